//! Handshakes that do not come to an end: one time limit holds for all of it, TLS and HTTP, however
//! far it has come and however slowly it goes on.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, SupportedProtocolVersion,
    version::{TLS12, TLS13},
};

use crate::{
    bystanders::undisturbed,
    client::{self, Client, rest},
    garbage::hello,
    server::{Server, Setup},
    socket::upgrade,
};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];
const LIMIT: Duration = Duration::from_secs(1);

fn impatient() -> Server {
    Setup::new().set("HANDSHAKE_TIMEOUT", "1s").start()
}

/// The server ends this by a FIN, about when its time is over.
#[track_caller]
fn expect_end_in_time(mut stream: TcpStream, began: Instant) {
    rest(&mut stream).unwrap();
    let took = began.elapsed();
    assert!(took >= LIMIT - Duration::from_millis(300), "after {took:?}");
    assert!(took < LIMIT * 5, "after {took:?}");
}

/// As far as the server's first flight has come, and our answer to it is made.
fn answered(server: &Server, version: &'static SupportedProtocolVersion) -> (TcpStream, Vec<u8>) {
    let config: Arc<ClientConfig> = client::config(&server.authority, &[version], None).into();
    let name = "localhost".try_into().unwrap();
    let mut tls = ClientConnection::new(config, name).unwrap();
    let mut stream = server.bare();
    tls.write_tls(&mut stream).unwrap();
    let mut flight = Vec::new();
    while flight.is_empty() {
        tls.read_tls(&mut stream).unwrap();
        tls.process_new_packets().unwrap();
        while tls.wants_write() {
            tls.write_tls(&mut flight).unwrap();
        }
        // Half of the server's flight has no answer yet, but for the word to middleboxes.
        if flight.len() == 6 {
            stream.write_all(&flight).unwrap();
            flight.clear();
        }
    }
    (stream, flight)
}

#[test]
fn a_handshake_that_stalls_anywhere_is_ended_in_time_and_counted() {
    undisturbed(impatient(), |server| {
        let began = Instant::now();
        let hello = hello(server);
        let mut stalled = Vec::new();
        for length in [0, 1, 4, 5, 6, hello.len() / 2, hello.len() - 1, hello.len()] {
            let mut stream = server.bare();
            stream.write_all(&hello[..length]).unwrap();
            stalled.push(stream);
        }
        for version in VERSIONS {
            let flight = answered(server, version).1;
            for length in [0, 1, flight.len() / 2, flight.len() - 1] {
                let (mut stream, flight) = answered(server, version);
                stream.write_all(&flight[..length]).unwrap();
                stalled.push(stream);
            }
        }
        let count = stalled.len() as f64;
        for stream in stalled {
            expect_end_in_time(stream, began);
        }
        server.settles("tls_handshakes_total{result=\"timeout\"}", count);
        server.holds(20);
    });
}

#[test]
fn http_that_stalls_inside_shares_the_same_limit() {
    undisturbed(impatient(), |server| {
        let request = upgrade("/echo");
        for length in [1, request.len() / 2, request.len() - 1] {
            let began = Instant::now();
            let mut client = server.connect();
            client.write_all(&request.as_bytes()[..length]).unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
            assert!(began.elapsed() < LIMIT * 4, "{:?}", began.elapsed());
        }
        server.settles("timeouts_total{kind=\"handshake\"}", 3.0);
        assert!(server.handshakes("timeout") < 0.5);
    });
}

/// A byte now and then is no reason to go on.
#[test]
fn a_trickle_wins_no_time() {
    undisturbed(impatient(), |server| {
        let hello = hello(server);
        thread::scope(|scope| {
            for number in 0..8 {
                let hello = &hello;
                scope.spawn(move || {
                    let mut stream = client::stream(server.address, number).unwrap();
                    let began = Instant::now();
                    for byte in hello {
                        if stream.write_all(&[*byte]).is_err() {
                            break;
                        }
                        assert!(began.elapsed() < LIMIT * 5, "it waits for ever");
                        thread::park_timeout(Duration::from_millis(50));
                    }
                    assert!(began.elapsed() >= LIMIT / 2);
                });
            }
        });
        server.settles("tls_handshakes_total{result=\"timeout\"}", 8.0);
    });
}

#[test]
fn hundreds_that_stall_are_forgotten_together() {
    undisturbed(impatient(), |server| {
        let idle = server.metric("buffer_bytes");
        let hello = hello(server);
        let stalled: Vec<TcpStream> = (0..300)
            .map(|number| {
                let mut stream = client::stream(server.address, number).unwrap();
                stream.write_all(&hello[..hello.len() - 1]).unwrap();
                stream
            })
            .collect();
        server.settles("tls_handshakes_total{result=\"timeout\"}", 300.0);
        server.holds(20);
        server.settles("buffer_bytes", idle);
        drop(stalled);
    });
}

/// Whoever is in the midst of a handshake does not hold up the end of the server.
#[test]
fn a_shutdown_does_not_wait_for_handshakes() {
    let server = Setup::new().set("HANDSHAKE_TIMEOUT", "30s").start();
    let hello = hello(&server);
    let mut stalled = vec![server.bare(), server.bare()];
    stalled[1].write_all(&hello).unwrap();
    let idle = Client::connect(server.address, server.config(), "localhost").unwrap();
    server.holds(3);
    let began = Instant::now();
    server.stop();
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    drop((stalled, idle));
}
