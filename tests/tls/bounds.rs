//! Limits of connections, time and memory, which count for TLS as they do without it, and the end
//! of a server.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use rustls::version::{TLS12, TLS13};

use crate::{
    bystanders::{Bystanders, undisturbed},
    client::{self, Client, Stream, rest},
    forge::{DATA, Forger},
    outside::{PATIENCE, Peer, peer::frame, wait_until},
    server::{Server, Setup},
    socket::{self, BINARY, PING, TEXT, noise, upgrade},
};

#[test]
fn one_more_than_the_cap_is_told_503_through_tls() {
    let server = Setup::new().set("MAX_CONNECTIONS", "20").start();
    let mut open: Vec<Client> = Vec::new();
    let mut refusals = 0;
    for _ in 0..40 {
        let mut client = server.connect();
        client.write_all(upgrade("/echo").as_bytes()).unwrap();
        let head = socket::head(&mut client).unwrap();
        if head.starts_with("HTTP/1.1 101 ") {
            open.push(client);
            continue;
        }
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        let mut body = String::new();
        // To its end, which is a close_notify and no cut.
        client.read_to_string(&mut body).unwrap();
        refusals += 1;
    }
    assert_eq!((open.len(), refusals), (20, 20));
    for (number, client) in open.iter_mut().enumerate() {
        client.echo(&noise(number as u64, 2000));
    }
    // Room again.
    open.pop().unwrap().close();
    wait_until(
        PATIENCE,
        || server.connect().try_upgraded("/echo").is_ok(),
        |is_open| *is_open,
    );
    server.stop();
}

#[test]
fn a_shutdown_says_1001_then_close_notify_then_fin() {
    let server = Setup::new().set("REACTORS", "2").start();
    let clients: Vec<Client> = [&TLS12, &TLS13]
        .into_iter()
        .cycle()
        .take(100)
        .map(|version| {
            let config = client::config(&server.authority, &[version], None);
            let client = Client::connect(server.address, config, "localhost").unwrap();
            client.upgraded("/ws")
        })
        .collect();
    server.signal("TERM");
    for mut client in clients {
        assert_eq!(client.receive().unwrap().0, TEXT);
        assert_eq!(client.expect_close(1001), "server shutting down");
        client.write_all(&socket::close(1001)).unwrap();
        client.expect_end();
    }
    server.stop_by_itself();
}

#[test]
fn the_times_of_an_open_connection_run_through_tls() {
    let server = Setup::new().set("IDLE_TIMEOUT", "1s").start();
    let mut client = server.open();
    assert_eq!(client.expect_close(1001), "idle timeout");
    client.expect_end();

    let server = Setup::new()
        .set("PING_INTERVAL", "1s")
        .set("PONG_TIMEOUT", "1s")
        .start();
    let mut client = server.open();
    let (opcode, payload) = client.receive().unwrap();
    assert_eq!(opcode, PING);
    client.send(0xa, &payload);
    // The next one is not answered.
    assert_eq!(client.receive().unwrap().0, PING);
    let end = client.read(&mut [0; 64]);
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    server.settles("timeouts_total{kind=\"pong\"}", 1.0);

    let server = Setup::new().set("MESSAGE_TIMEOUT", "1s").start();
    let mut client = server.open();
    client.write_all(&frame(TEXT, b"half of it")[..9]).unwrap();
    assert_eq!(client.expect_close(1008), "message timeout");
    client.expect_end();
}

/// Half a record is no sign of life: neither for those who count messages nor for those who count
/// silence.
#[test]
fn half_a_record_does_not_keep_a_connection() {
    let server = Setup::new().set("IDLE_TIMEOUT", "1s").start();
    for version in [&TLS12, &TLS13] {
        let mut forger = Forger::open(&server, version);
        let record = forger.seal(DATA, &frame(BINARY, &noise(1, 10_000)));
        let began = Instant::now();
        for byte in &record {
            if forger.stream.write_all(&[*byte]).is_err() {
                break;
            }
            assert!(
                began.elapsed() < Duration::from_secs(8),
                "kept by half a record"
            );
            thread::park_timeout(Duration::from_millis(20));
        }
    }
    server.settles("timeouts_total{kind=\"idle\"}", 2.0);
    server.holds(0);
}

/// Sends requests for echoes that it never reads, until the server has enough of it.
fn never_read(client: &mut Client) -> ErrorKind {
    let request = frame(BINARY, &noise(5, 16_000));
    let patience = Some(Duration::from_secs(2));
    client.stream().set_write_timeout(patience).unwrap();
    loop {
        if let Err(error) = client.write_all(&request) {
            return error.kind();
        }
    }
}

/// A connection that neither waits to be read nor to be written.
struct Pump {
    client: Client,
    sent: usize,
    received: Vec<u8>,
}

impl Pump {
    fn new(mut client: Client) -> Self {
        client.stream().set_nonblocking(true).unwrap();
        client.tls().set_buffer_limit(Some(64 * 1024));
        Self {
            client,
            sent: 0,
            received: Vec::new(),
        }
    }

    /// Sends what is taken of these bytes; whether any of them was.
    fn send(&mut self, bytes: &[u8]) -> bool {
        let before = self.sent;
        let Stream { conn, sock } = &mut self.client.0;
        self.sent += conn.writer().write(&bytes[self.sent..]).unwrap();
        while conn.wants_write() {
            match conn.write_tls(sock) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        self.sent > before
    }

    /// Receives what is there; whether anything was.
    fn receive(&mut self) -> bool {
        let Stream { conn, sock } = &mut self.client.0;
        match conn.read_tls(sock) {
            Ok(count) => assert!(count > 0, "the server has hung up"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => panic!("{error}"),
        }
        conn.process_new_packets().unwrap();
        let end = conn.reader().read_to_end(&mut self.received);
        assert_eq!(end.unwrap_err().kind(), ErrorKind::WouldBlock);
        true
    }
}

#[test]
fn who_never_reads_is_paused_and_may_go_on_later() {
    undisturbed(Server::start(), |server| {
        let mut pump = Pump::new(server.open());
        let message = noise(6, 16_000);
        let bytes = frame(BINARY, &message).repeat(2000);
        let mut last = Instant::now();
        while last.elapsed() < Duration::from_millis(500) {
            if pump.send(&bytes) {
                last = Instant::now();
            }
            thread::park_timeout(Duration::from_millis(1));
        }
        assert!(pump.sent < bytes.len(), "the server takes everything");
        let held = server.metric("buffer_bytes");
        assert!(held < 1_500_000.0, "{held} bytes for one who does not read");
        // Now it reads, and all comes back in order.
        let expected = 2000 * (message.len() + 4);
        let mut last = Instant::now();
        while pump.received.len() < expected {
            let (has_sent, has_received) = (pump.send(&bytes), pump.receive());
            if has_sent || has_received {
                last = Instant::now();
            } else {
                thread::park_timeout(Duration::from_millis(1));
            }
            assert!(
                last.elapsed() < PATIENCE,
                "{} bytes and no more",
                pump.received.len()
            );
        }
        let mut rest = &pump.received[..];
        while !rest.is_empty() {
            let (opcode, payload) = socket::receive(&mut rest).unwrap();
            assert!((opcode, &payload) == (BINARY, &message));
        }
        pump.client.stream().set_nonblocking(false).unwrap();
        pump.client.close();
        server.settles("buffer_bytes", 0.0);
    });
}

#[test]
fn memory_for_those_who_do_not_read_is_bounded_and_sealed_bytes_count() {
    const BUDGET: u64 = 24 << 20;
    let server = Setup::new()
        .set("MAX_BUFFER_BYTES", "24MiB")
        .set("MAX_MESSAGE_BYTES", "1MiB")
        .start();
    let bystanders = Bystanders::of(&server);
    let idle = server.rss_bytes();
    let ended = thread::scope(|scope| {
        let attackers: Vec<_> = (0..80)
            .map(|number| {
                let server = &server;
                scope.spawn(move || {
                    let stream = Peer::connect_with(server.address, number, Some(4096)).unwrap();
                    let client = Client::over(stream, server.config(), "localhost").unwrap();
                    match client.try_upgraded("/echo") {
                        Ok(mut client) => never_read(&mut client),
                        Err(error) => error.kind(),
                    }
                })
            })
            .collect();
        let mut most = 0;
        while attackers.iter().any(|attacker| !attacker.is_finished()) {
            most = most.max(server.rss_bytes().saturating_sub(idle));
            thread::park_timeout(Duration::from_millis(20));
        }
        assert!(most < 2 * BUDGET, "{most} bytes");
        attackers
            .into_iter()
            .map(|attacker| attacker.join().unwrap())
            .collect::<Vec<_>>()
    });
    assert_eq!(ended.len(), 80);
    bystanders.are_well();
    server.settles("buffer_bytes", 0.0);
    server.stop();
}

/// The head of a record announces what may never come. What is announced is not reserved.
#[test]
fn heads_of_records_cost_no_more_than_what_came() {
    let server = Server::start();
    let before = server.metric("buffer_bytes");
    let mut forgers: Vec<(Forger, Vec<u8>)> = (0..100)
        .map(|_| {
            let mut forger = Forger::open(&server, &TLS13);
            let record = forger.seal(DATA, &noise(1, 16_000));
            forger.stream.write_all(&record[..100]).unwrap();
            (forger, record)
        })
        .collect();
    // A hundred bytes each; and one more, when it is known how many are missing.
    let held = || server.metric("buffer_bytes") - before;
    wait_until(PATIENCE, held, |held| *held >= 100.0 * 100.0);
    for (forger, record) in &mut forgers {
        forger.stream.write_all(&record[100..101]).unwrap();
    }
    wait_until(PATIENCE, held, |held| *held >= 100.0 * 101.0);
    let held = held();
    assert!(
        held < 100.0 * 4096.0,
        "{held} bytes for 100 heads of records"
    );
    drop(forgers);
    server.settles("buffer_bytes", 0.0);
}

#[test]
fn an_idle_connection_holds_no_buffer() {
    let server = Server::start();
    let mut clients: Vec<Client> = (0..50).map(|_| server.open()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.echo(&noise(number as u64, 60_000));
    }
    server.settles("buffer_bytes", 0.0);
    // And one whose record is not whole gives back what it took.
    let mut forger = Forger::open(&server, &TLS13);
    let record = forger.seal(DATA, &frame(TEXT, b"in two parts"));
    forger.stream.write_all(&record[..10]).unwrap();
    wait_until(
        PATIENCE,
        || server.metric("buffer_bytes"),
        |held| *held > 0.0,
    );
    forger.stream.write_all(&record[10..]).unwrap();
    assert_eq!(forger.receive().unwrap().0, DATA);
    server.settles("buffer_bytes", 0.0);
}

/// Without a descriptor for them, newcomers wait or are turned away; then all is well again.
#[test]
fn out_of_descriptors_is_no_end() {
    let server = Setup::new().set("REACTORS", "1").start();
    let mut open = server.open();
    let id = server.id().to_string();
    let limit = |soft: &str| {
        let mut command = std::process::Command::new("prlimit");
        let done = command
            .args(["--pid", &id, &format!("--nofile={soft}:")])
            .output();
        assert!(done.unwrap().status.success());
    };
    limit("12");
    let crowd: Vec<TcpStream> = (0..60).map(|_| server.bare()).collect();
    open.echo(b"still here");
    server.expect_log("cannot accept", 1);
    limit("1024");
    drop(crowd);
    wait_until(
        PATIENCE,
        || {
            let client = Client::connect(server.address, server.config(), "localhost");
            client
                .and_then(|client| client.try_upgraded("/echo"))
                .is_ok()
        },
        |is_open| *is_open,
    );
    open.echo(b"and here");
    let mut last = server.bare();
    last.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert!(rest(&mut last).unwrap().starts_with(b"HTTP/1.1 400"));
    server.stop();
}
