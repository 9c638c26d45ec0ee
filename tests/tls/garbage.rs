//! What is no TLS, or none that is spoken any more: it is answered if anybody could understand the
//! answer, ends one connection, and harms nobody.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    thread,
    time::Duration,
};

use crate::{
    bystanders::undisturbed,
    client::{reset, rest},
    forge::{ALERT, CHANGE_CIPHER_SPEC, DATA, HANDSHAKE, payloads, record},
    outside::PATIENCE,
    server::Server,
    socket::{Random, noise},
};

/// The first flight of a client in good order.
pub fn hello(server: &Server) -> Vec<u8> {
    let name = "localhost".try_into().unwrap();
    let mut tls = rustls::ClientConnection::new(server.config().into(), name).unwrap();
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).unwrap();
    hello
}

/// Sends this; gives what came back until the end, which must be a FIN.
#[track_caller]
fn answer(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut stream = server.bare();
    // A server that has heard enough may be gone before all is sent.
    let _ = stream.write_all(bytes);
    rest(&mut stream).unwrap()
}

/// The server has answered with a fatal alert and nothing else.
#[track_caller]
fn expect_alert(answer: &[u8]) {
    let records = payloads(answer);
    assert!(!records.is_empty(), "it said nothing");
    let (content, payload) = records[records.len() - 1];
    assert_eq!((content, payload[0]), (ALERT, 2), "{records:?}");
}

#[test]
fn plain_http_is_told_in_plain_text_what_this_port_speaks() {
    undisturbed(Server::start(), |server| {
        let large = format!(
            "POST / HTTP/1.1\r\nContent-Length: 200000\r\n\r\n{}",
            "x".repeat(200_000)
        );
        let requests = [
            "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody",
            "OPTIONS * HTTP/1.0\r\n\r\n",
            "GARBAGE\r\n",
            "G",
            &large,
        ];
        for request in requests {
            let mut stream = server.bare();
            let _ = stream.write_all(request.as_bytes());
            let answer = String::from_utf8(rest(&mut stream).unwrap()).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
            assert!(
                head.to_ascii_lowercase()
                    .contains("content-type: text/plain"),
                "{head}"
            );
            assert!(body.contains("TLS"), "{body}");
            assert!(
                body.contains("https://") && body.contains("wss://"),
                "{body}"
            );
            let length = head.to_ascii_lowercase();
            let length = length.split_once("content-length: ").unwrap().1;
            assert_eq!(length.lines().next().unwrap(), body.len().to_string());
            // The stream ended in order: one may still send.
            stream.write_all(b"\r\n").unwrap();
        }
        // As slowly as it can be sent.
        let mut stream = server.bare();
        for byte in b"GET / HTTP/1.1\r\n\r\n" {
            stream.write_all(&[*byte]).unwrap();
        }
        assert!(rest(&mut stream).unwrap().starts_with(b"HTTP/1.1 400 "));
        server.settles("tls_handshakes_total{result=\"plain_http\"}", 7.0);
        assert_eq!(server.handshakes("failed") as u64, 0);
    });
}

/// Hellos of other times, by hand: no library sends them any more.
fn old_hello(version: [u8; 2]) -> Vec<u8> {
    let mut hello = version.to_vec();
    hello.extend(noise(1, 32));
    hello.extend([0, 0, 4, 0x00, 0x35, 0x00, 0x0a, 1, 0]);
    let mut message = vec![1, 0, 0, hello.len() as u8];
    message.extend(hello);
    record(HANDSHAKE, u16::from_be_bytes(version).min(0x0301), &message)
}

#[test]
fn versions_of_other_times_are_refused_by_an_alert() {
    undisturbed(Server::start(), |server| {
        for version in [[3, 0], [3, 1], [3, 2]] {
            let answer = answer(server, &old_hello(version));
            expect_alert(&answer);
            let (_, alert) = payloads(&answer)[0];
            // protocol_version, or handshake_failure.
            assert!([70, 40].contains(&alert[1]), "{version:?}: {alert:?}");
        }
        // SSL 2.0: two bytes of length, CLIENT-HELLO, version, ciphers, challenge.
        let mut hello = vec![0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10];
        hello.extend([
            1, 0, 0x80, 2, 0, 0x80, 3, 0, 0x80, 4, 0, 0x80, 5, 0, 0x80, 6, 0x40, 0,
        ]);
        hello.extend([0x80, 7, 0]);
        hello.extend(noise(2, 16));
        expect_alert(&answer(server, &hello));
        server.settles("tls_handshakes_total{result=\"failed\"}", 4.0);
    });
}

#[test]
fn records_that_cannot_be_are_refused_by_an_alert() {
    undisturbed(Server::start(), |server| {
        let hello = hello(server);
        let (_, message) = payloads(&hello)[0];
        // More than a record may hold, in its header; and all of it.
        let mut cases = vec![
            vec![HANDSHAKE, 3, 1, 0xff, 0xff],
            record(HANDSHAKE, 0x0301, &noise(3, 0xffff)),
        ];
        // Nothing, again and again.
        cases.push(record(HANDSHAKE, 0x0301, &[]).repeat(1000));
        cases.push(record(DATA, 0x0303, &[]).repeat(1000));
        // What only comes later, or never.
        cases.push(record(DATA, 0x0303, &noise(4, 100)));
        cases.push(record(HANDSHAKE, 0x0301, &[20, 0, 0, 4, 1, 2, 3, 4]));
        cases.push(record(HANDSHAKE, 0x0301, &[24, 0, 0, 1, 0]));
        cases.push(record(99, 0x0301, &noise(5, 50)));
        cases.push(record(24, 0x0301, &[1, 0x40, 0]));
        cases.push(record(HANDSHAKE, 0x9999, message));
        // Twice.
        cases.push([&hello[..], &hello[..]].concat());
        for (number, case) in cases.iter().enumerate() {
            let mut stream = server.bare();
            let _ = stream.write_all(case);
            let answer = rest(&mut stream);
            let answer = answer.unwrap_or_else(|error| panic!("case {number}: {error}"));
            let records = payloads(&answer);
            let last = records
                .last()
                .unwrap_or_else(|| panic!("case {number}: no word"));
            // Behind a ServerHello the alert is sealed.
            let is_alert = last.0 == ALERT && last.1[0] == 2;
            assert!(is_alert || last.0 == DATA, "case {number}: {records:?}");
        }
        let failed = cases.len() as f64;
        server.settles("tls_handshakes_total{result=\"failed\"}", failed);
    });
}

#[test]
fn floods_before_a_handshake_end_soon() {
    undisturbed(Server::start(), |server| {
        let hello = hello(server);
        let warning = record(ALERT, 0x0301, &[1, 90]);
        let change = record(CHANGE_CIPHER_SPEC, 0x0303, &[1]);
        for flood in [&warning, &change] {
            for start in [&[][..], &hello] {
                let before = server.cpu();
                let mut stream = server.bare();
                let bytes = [start, &flood.repeat(5000)].concat();
                let _ = stream.write_all(&bytes);
                rest(&mut stream).unwrap();
                let spent = server.cpu() - before;
                assert!(spent.as_millis() < 500, "{spent:?}");
            }
        }
        server.settles("tls_handshakes_total{result=\"failed\"}", 4.0);
    });
}

/// A message of a handshake, cut into records of one byte.
fn crumbled(message: &[u8]) -> Vec<u8> {
    message
        .iter()
        .flat_map(|byte| record(HANDSHAKE, 0x0301, &[*byte]))
        .collect()
}

#[test]
fn a_hello_may_come_in_crumbs() {
    undisturbed(Server::start(), |server| {
        let hello = hello(server);
        let crumbs = crumbled(payloads(&hello)[0].1);
        for bytes in [&hello, &crumbs] {
            // One byte a record, one byte a packet.
            let mut stream = server.bare();
            for byte in bytes {
                stream.write_all(&[*byte]).unwrap();
            }
            expect_server_hello(&mut stream);
            // All at once.
            let mut stream = server.bare();
            stream.write_all(bytes).unwrap();
            expect_server_hello(&mut stream);
        }
    });
}

#[track_caller]
fn expect_server_hello(stream: &mut TcpStream) {
    let mut head = [0; 6];
    stream.read_exact(&mut head).unwrap();
    assert_eq!((head[0], head[5]), (HANDSHAKE, 2), "{head:?}");
}

/// A hello as large as one is taken, in records of one byte, a packet each: looking at all of it
/// again with each byte would be work that grows with its square.
#[test]
fn a_large_hello_in_crumbs_is_not_read_again_and_again() {
    undisturbed(Server::start(), |server| {
        let mut message = vec![1, 0, 0x20, 0];
        message.extend(noise(6, 0x2000 - 2));
        let crumbs = crumbled(&message);
        let mut stream = server.bare();
        let before = server.cpu();
        for crumb in crumbs.chunks(6) {
            stream.write_all(crumb).unwrap();
            // Long enough for the server to look at this one alone.
            thread::park_timeout(Duration::from_micros(100));
        }
        let spent = server.cpu() - before;
        // Eight thousand packets; the bystanders cost something as well.
        assert!(spent.as_millis() < 1500, "{spent:?}");
        drop(stream);
    });
}

#[test]
fn a_message_beyond_64_kib_is_not_gathered() {
    undisturbed(Server::start(), |server| {
        let idle = server.metric("buffer_bytes");
        let mut message = vec![1, 1, 0x10, 0];
        message.extend(noise(7, 0x1_1000));
        let bytes: Vec<u8> = message
            .chunks(1000)
            .flat_map(|part| record(HANDSHAKE, 0x0301, part))
            .collect();
        for _ in 0..50 {
            let mut stream = server.bare();
            let _ = stream.write_all(&bytes);
            // Told why or not, it hears the end.
            rest(&mut stream).unwrap();
        }
        server.settles("tls_handshakes_total{result=\"failed\"}", 50.0);
        server.settles("buffer_bytes", idle);
    });
}

#[test]
fn a_thousand_strangers_talk_nonsense() {
    undisturbed(Server::start(), |server| {
        let hello = hello(server);
        let mut random = Random(20_260_401);
        for number in 0..1000_u64 {
            let mut bytes = noise(number + 1, 1 + random.below(600));
            match number % 4 {
                // Nonsense from the first byte, or behind a header that makes sense.
                0 => {}
                1 => bytes = record(HANDSHAKE, 0x0301, &bytes),
                // A hello with some bytes that are not its own.
                2 => {
                    bytes = hello.clone();
                    for _ in 0..1 + random.below(8) {
                        let at = random.below(bytes.len());
                        bytes[at] ^= 1 << random.below(8);
                    }
                }
                _ => {
                    bytes = hello.clone();
                    bytes.truncate(random.below(hello.len()));
                    bytes.extend(noise(number, 100));
                }
            }
            let mut stream = server.bare();
            let _ = stream.write_all(&bytes);
            match number % 3 {
                0 => reset(stream),
                // The end must come by itself when we say that we are done.
                _ => {
                    let _ = stream.shutdown(Shutdown::Write);
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    rest(&mut stream).unwrap_or_else(|error| panic!("{number}: {error}"));
                }
            }
        }
        server.holds(20);
    });
}

/// Each flight of a handshake is cut at each place, and then the client is gone, by FIN or RST.
#[test]
fn who_goes_away_in_the_midst_of_a_handshake_leaves_nothing() {
    undisturbed(Server::start(), |server| {
        let hello = hello(server);
        let cuts: Vec<usize> = (0..hello.len()).step_by(7).collect();
        for cut in &cuts {
            let mut stream = server.bare();
            stream.write_all(&hello[..*cut]).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            rest(&mut stream).unwrap();
            let mut stream = server.bare();
            stream.write_all(&hello[..*cut]).unwrap();
            reset(stream);
        }
        // With the server's flight on its way.
        for _ in 0..20 {
            let mut stream = server.bare();
            stream.write_all(&hello).unwrap();
            expect_server_hello(&mut stream);
            reset(stream);
        }
        server.holds(20);
        // One that said nothing is no handshake that failed.
        let failed = server.handshakes("failed") as usize;
        assert!(failed >= cuts.len() - 1 + 20, "{failed}");
        let before = server.handshakes("failed") as u64;
        for _ in 0..20 {
            drop(server.bare());
        }
        server.holds(20);
        let after = server.handshakes("failed") as u64;
        assert_eq!(
            after, before,
            "connections on which nothing came are no handshakes"
        );
    });
}

#[test]
fn many_handshakes_at_once_are_all_served() {
    undisturbed(Server::start(), |server| {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|_| server.open().close()));
            }
        });
        server.settles("tls_handshakes_total{result=\"full\"}", 420.0);
    });
}
