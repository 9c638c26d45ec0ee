//! Runs over TLS, against servers that we did not write: of another version, with certificates
//! that nobody should believe, and such as break TLS before or after the handshake.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::Arc,
    thread,
    time::Duration,
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    version::{TLS12, TLS13},
};
use tungstenite::handshake::derive_accept_key;

use crate::{
    authority::{Authority, Folder, Order},
    raw::{CLOSE, Raw, close, frame},
    report::Report,
    tool::report,
};

/// One who came, as a TLS server of a few lines has him.
struct Guest(StreamOwned<ServerConnection, Wire>);

/// A socket to which so many bytes are written at a time.
struct Wire {
    stream: TcpStream,
    step: usize,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(&bytes[..bytes.len().min(self.step)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Guest {
    fn receive(stream: TcpStream, config: &Arc<ServerConfig>) -> Option<Self> {
        let connection = ServerConnection::new(Arc::clone(config)).ok()?;
        let step = usize::MAX;
        Some(Self(StreamOwned::new(connection, Wire { stream, step })))
    }

    /// Completes both handshakes. None from a guest means that it is gone.
    fn welcomed(mut self) -> Option<Self> {
        let mut request = String::new();
        while !request.ends_with("\r\n\r\n") {
            request.push(char::from(self.bytes::<1>()?[0]));
        }
        let key = request.split_once("Sec-WebSocket-Key: ")?.1;
        let accept = derive_accept_key(key.lines().next()?.as_bytes());
        self.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        ))?;
        Some(self)
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) -> Option<()> {
        self.0.write_all(bytes.as_ref()).ok()?;
        self.0.flush().ok()
    }

    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Past TLS, straight onto the wire.
    fn break_in(&mut self, bytes: &[u8]) -> Option<()> {
        self.0.sock.write_all(bytes).ok()
    }

    /// Echoes, and answers a Close, as a server should.
    fn echo(&mut self) -> Option<()> {
        loop {
            let [first, second] = self.bytes()?;
            let length = match second & 0x7f {
                126 => usize::from(u16::from_be_bytes(self.bytes()?)),
                127 => u64::from_be_bytes(self.bytes()?) as usize,
                short => usize::from(short),
            };
            let mask: [u8; 4] = self.bytes()?;
            let mut payload = vec![0; length];
            self.0.read_exact(&mut payload).ok()?;
            for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
                *byte ^= mask;
            }
            self.send(frame(first, &payload))?;
            if first == CLOSE {
                self.0.conn.send_close_notify();
                return self.0.flush().ok();
            }
        }
    }

    /// Reads, whatever it is, until the guest is gone.
    fn ignore(&mut self) -> Option<()> {
        while self.bytes::<1>().is_some() {}
        None
    }
}

/// A server's side of TLS with a certificate of this order.
fn config(
    authority: &Authority,
    order: &Order<'_>,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ServerConfig> {
    let pair = authority.sign(order);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(versions).unwrap();
    let config = builder.with_no_client_auth();
    let config = config.with_single_cert(vec![pair.certificate.clone()], pair.key());
    Arc::new(config.unwrap())
}

/// A server that is what it says, and does this with those it has let in.
fn welcome(host: impl Fn(Guest) -> Option<()> + Send + Sync + 'static) -> Raw {
    let config = config(&Authority::new(), &Order::default(), &[&TLS13]);
    Raw::accept(move |stream| host(Guest::receive(stream, &config)?.welcomed()?))
}

/// Three connections.
#[track_caller]
fn run(server: &Raw, mode: &str, flags: &[&str]) -> Report {
    let url = format!("wss://{}/", server.address);
    let run = [mode, &url, "--connections", "3"];
    report(&[&run[..], flags].concat())
}

const SHORT: [&str; 3] = ["--insecure", "--duration", "100ms"];

/// For servers that say nothing.
const IMPATIENT: [&str; 2] = ["--timeout", "500ms"];

/// Fails each connection, and is called this.
#[track_caller]
fn expect_failed(kind: &str, host: impl Fn(TcpStream) -> Option<()> + Send + Sync + 'static) {
    expect_failed_with(&[], kind, host);
}

#[track_caller]
fn expect_failed_with(
    flags: &[&str],
    kind: &str,
    host: impl Fn(TcpStream) -> Option<()> + Send + Sync + 'static,
) {
    let server = Raw::accept(host);
    let report = run(&server, "echo", &[&SHORT[..], flags].concat());
    assert_eq!(report.number("/exit"), 1);
    assert_eq!(report.number("/connections/failed"), 3, "{kind}");
    assert_eq!(report.errors(kind), 3, "{kind}: {}", report.at("/errors"));
    assert!(report.at("/tls/version").is_null());
    assert!(report.at("/tls/remedy").is_null());
    assert!(report.float("/seconds") < 5.0);
}

/// Loses each connection, and is called this.
#[track_caller]
fn expect_lost(kind: &str, host: impl Fn(Guest) -> Option<()> + Send + Sync + 'static) {
    let server = welcome(host);
    let report = run(&server, "echo", &SHORT);
    assert_eq!(report.number("/exit"), 1);
    assert_eq!(report.number("/connections/opened"), 3, "{kind}");
    assert_eq!(report.number("/connections/lost"), 3, "{kind}");
    assert_eq!(report.errors(kind), 3, "{kind}: {}", report.at("/errors"));
    assert_eq!(report.text("/tls/version"), "TLS 1.3");
}

/// What a guest sends first, so that it is under way when the server does its worst.
fn hello(stream: &mut TcpStream) -> Option<()> {
    stream.read_exact(&mut [0; 16]).ok()
}

fn ignore(mut stream: TcpStream) -> Option<()> {
    while stream.read(&mut [0; 4096]).ok()? > 0 {}
    None
}

#[test]
fn both_versions_are_spoken_and_resumed() {
    for (version, name) in [(&TLS12, "TLS 1.2"), (&TLS13, "TLS 1.3")] {
        let config = config(&Authority::new(), &Order::default(), &[version]);
        let server = Raw::accept(move |stream| Guest::receive(stream, &config)?.welcomed()?.echo());
        let found = run(&server, "echo", &SHORT);
        found.expect_clean();
        assert_eq!(found.text("/tls/version"), name);
        let suite = found.text("/tls/cipher_suite");
        assert!(suite.starts_with("TLS_"), "{suite}");
        assert_eq!(found.number("/tls/handshakes_full"), 3);
        // One after the other, so that each has the ticket of the one before.
        let flags = ["--insecure", "--duration", "0", "--connecting", "1"];
        let found = run(&server, "hold", &[&flags[..], &["--resume"]].concat());
        found.expect_clean();
        assert_eq!(found.number("/tls/handshakes_full"), 1, "{name}");
        assert_eq!(found.number("/tls/handshakes_resumed"), 2, "{name}");
    }
}

/// However long ago it was: one kind, not one for each second.
#[test]
fn a_certificate_out_of_its_time_is_not_accepted() {
    for (valid, kind) in [((-9, -2), "Expired"), ((2, 9), "NotValidYet")] {
        let authority = Authority::new();
        let folder = Folder::new();
        let ca = folder.write("ca.pem", authority.pem());
        let order = Order {
            valid,
            ..Order::default()
        };
        let config = config(&authority, &order, &[&TLS13, &TLS12]);
        let server = Raw::accept(move |stream| Guest::receive(stream, &config)?.welcomed()?.echo());
        let report = run(&server, "hold", &["--ca", &ca, "--duration", "0"]);
        let whole = format!("connect: TLS: invalid peer certificate: {kind}");
        assert_eq!(report.errors(&whole), 3, "{}", report.at("/errors"));
        assert_eq!(report.list("/errors").len(), 1);
        let remedy = report.text("/tls/remedy");
        assert!(remedy.contains("--insecure") && !remedy.contains("--ca"));
        run(&server, "hold", &SHORT).expect_clean();
    }
}

#[test]
fn an_answer_that_is_no_tls_is_named() {
    let kind = "connect: TLS: the answer is no TLS";
    for garbage in [
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "SSH-2.0-OpenSSH_9.6\r\n",
        "\0\0\0\0\0\0",
    ] {
        expect_failed(kind, move |mut stream| {
            hello(&mut stream)?;
            stream.write_all(garbage.as_bytes()).ok()?;
            ignore(stream)
        });
    }
    // A record's header and then nothing that TLS knows.
    expect_failed("connect: TLS: ", |mut stream| {
        hello(&mut stream)?;
        let mut record = vec![0x16, 3, 3, 0x40, 0];
        record.resize(5 + 0x4000, 0x55);
        stream.write_all(&record).ok()?;
        ignore(stream)
    });
    // More than any record may have.
    expect_failed("connect: TLS: ", |mut stream| {
        hello(&mut stream)?;
        stream.write_all(&[0x16, 3, 3, 0xff, 0xff]).ok()?;
        ignore(stream)
    });
}

/// A handshake's message of this length, in records of this many bytes.
fn answer_of(length: u32, step: usize) -> Vec<u8> {
    let [_, length_bytes @ ..] = length.to_be_bytes();
    let mut message = [&[2][..], &length_bytes].concat();
    message.resize(4 + length as usize, 0);
    let mut records = Vec::new();
    for part in message.chunks(step) {
        records.extend_from_slice(&[0x16, 3, 3]);
        records.extend_from_slice(&(part.len() as u16).to_be_bytes());
        records.extend_from_slice(part);
    }
    records
}

/// Only so much of a handshake is kept, whatever is announced.
#[test]
fn a_handshake_without_end_is_given_up() {
    for (length, step, kind) in [
        (0xff_ffff, 16_384, "HandshakePayloadTooLarge"),
        (0xff00, 40, "a handshake larger than 64 KiB"),
    ] {
        expect_failed(kind, move |mut stream| {
            hello(&mut stream)?;
            stream.write_all(&answer_of(length, step)).ok()?;
            ignore(stream)
        });
    }
}

#[test]
fn an_alert_is_named() {
    expect_failed(
        "connect: TLS: received fatal alert: HandshakeFailure",
        |mut stream| {
            hello(&mut stream)?;
            stream.write_all(&[0x15, 3, 3, 0, 2, 2, 40]).ok()?;
            ignore(stream)
        },
    );
}

#[test]
fn a_handshake_that_ends_or_stalls_is_named() {
    let ended = "connect: TLS: the connection ended in the handshake";
    expect_failed(ended, |mut stream| {
        hello(&mut stream)?;
        let _ = stream.shutdown(std::net::Shutdown::Write);
        ignore(stream)
    });
    expect_failed("connect: TLS: connection reset by peer", |mut stream| {
        hello(&mut stream)?;
        let socket = socket2::SockRef::from(&stream);
        socket.set_linger(Some(Duration::ZERO)).ok()
    });
    let stalled = "connect: TLS: timed out";
    expect_failed_with(&IMPATIENT, stalled, ignore);
    // The header of a record that never comes.
    expect_failed_with(&IMPATIENT, stalled, |mut stream| {
        hello(&mut stream)?;
        stream.write_all(&[0x16, 3, 3, 0, 100, 2, 0]).ok()?;
        ignore(stream)
    });
}

/// TLS is done then, and what is missing is the other handshake.
#[test]
fn an_upgrade_that_never_comes_is_told_apart() {
    let config = config(&Authority::new(), &Order::default(), &[&TLS13]);
    let server = Raw::accept(move |stream| Guest::receive(stream, &config)?.ignore());
    let report = run(&server, "hold", &[&SHORT[..], &IMPATIENT].concat());
    assert_eq!(report.errors("handshake: timed out"), 3);
}

#[test]
fn bytes_one_by_one_are_a_handshake_and_messages() {
    for version in [&TLS12, &TLS13] {
        let config = config(&Authority::new(), &Order::default(), &[version]);
        let server = Raw::accept(move |stream| {
            let mut guest = Guest::receive(stream, &config)?;
            guest.0.sock.step = 1;
            guest.welcomed()?.echo()
        });
        run(&server, "echo", &SHORT).expect_clean();
    }
}

#[test]
fn a_server_that_breaks_tls_once_open_is_lost() {
    expect_lost("TLS: the answer is no TLS", |mut guest| {
        guest.break_in(b"HTTP/1.1 200 OK\r\n\r\n")?;
        guest.ignore()
    });
    // A record that nobody has sealed.
    expect_lost("TLS: cannot decrypt", |mut guest| {
        let mut record = vec![0x17, 3, 3, 0, 100];
        record.resize(5 + 100, 0xaa);
        guest.break_in(&record)?;
        guest.ignore()
    });
    expect_lost("ended by the server without a Close", |guest| {
        let _ = guest.0.sock.stream.shutdown(std::net::Shutdown::Both);
        None
    });
    expect_lost("ended by the server without a Close", |mut guest| {
        guest.0.conn.send_close_notify();
        guest.0.flush().ok()?;
        guest.ignore()
    });
}

/// What it said before is still heard.
#[test]
fn a_close_before_the_fault_is_what_counts() {
    expect_lost("1013 busy", |mut guest| {
        guest.send(close(1013, "busy"))?;
        guest.break_in(b"\xff\xff\xff\xff\xff\xff")?;
        guest.ignore()
    });
}

/// Full sockets, and records that wait: the run goes on when the server reads again.
#[test]
fn a_server_that_reads_late_holds_up_and_loses_nothing() {
    let server = welcome(|mut guest| {
        thread::park_timeout(Duration::from_millis(300));
        guest.echo()
    });
    let url = format!("wss://{}/", server.address);
    let run = ["echo", &url, "--insecure", "--connections", "3"];
    let flags = ["--duration", "400ms", "--size", "1MB", "--depth", "2"];
    let report = report(&[&run[..], &flags].concat());
    report.expect_clean();
    assert!(report.number("/messages/received") >= 6);
    assert!(report.float("/latency/corrected/max") > 250_000.0);
}
