//! What may happen in an open session: records of all sizes and cuts, new keys, and a client that
//! has turned bad behind its handshake.

use std::{
    io::{Read, Write},
    net::Shutdown,
    time::{Duration, Instant},
};

use rustls::{
    SupportedProtocolVersion,
    version::{TLS12, TLS13},
};

use crate::{
    bystanders::undisturbed,
    client::{self, Client, reset, rest},
    forge::{ALERT, CHANGE_CIPHER_SPEC, DATA, Forger, HANDSHAKE, record},
    outside::peer::frame,
    server::{Server, Setup},
    socket::{self, BINARY, Random, TEXT, noise},
};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

const UNEXPECTED_MESSAGE: u8 = 10;
const BAD_RECORD_MAC: u8 = 20;
const RECORD_OVERFLOW: u8 = 22;
const ILLEGAL_PARAMETER: u8 = 47;
const DECODE_ERROR: u8 = 50;

#[test]
fn records_of_every_size_are_the_same_to_a_message() {
    let server = Setup::new().set("MAX_MESSAGE_BYTES", "1MiB").start();
    for version in VERSIONS {
        // The library's own smallest, odd ones, its largest.
        for size in [32, 33, 100, 1000, 4097, 16_384 + 5] {
            let mut config = client::config(&server.authority, &[version], None);
            config.max_fragment_size = Some(size);
            let client = Client::connect(server.address, config, "localhost").unwrap();
            let mut client = client.upgraded("/echo");
            for length in [0, 1, 200, 5000, 300_000] {
                client.echo(&noise(size as u64, length));
            }
            client.close();
        }
        // One byte a record, by hand: the head of a frame too.
        let mut forger = Forger::open(&server, version);
        let message = noise(9, 700);
        let mut records = Vec::new();
        for byte in frame(BINARY, &message) {
            records.extend(forger.seal(DATA, &[byte]));
        }
        forger.stream.write_all(&records).unwrap();
        let mut answer = Vec::new();
        while answer.len() < message.len() + 4 {
            answer.extend(forger.receive().unwrap().1);
        }
        let came = socket::receive(&mut &*answer).unwrap();
        assert_eq!(came, (BINARY, message));
    }
    server.stop();
}

/// The same stream of records, in packets that end anywhere.
#[test]
fn a_record_may_be_cut_anywhere() {
    let server = Server::start();
    for version in VERSIONS {
        let mut forger = Forger::open(&server, version);
        let mut random = Random(17);
        let messages: Vec<Vec<u8>> = [1, 20, 125, 126, 3000, 16_000, 40_000, 7]
            .into_iter()
            .map(|length| noise(length as u64, length))
            .collect();
        for round in 0..4 {
            let mut records = Vec::new();
            for message in &messages {
                let bytes = frame(BINARY, message);
                let piece = [usize::MAX, 16_384, 999, 4096][round].min(16_384);
                for part in bytes.chunks(piece) {
                    records.extend(forger.seal(DATA, part));
                }
            }
            let mut at = 0;
            while at < records.len() {
                let most = [3000, 5, 20_000, 400][round];
                let end = records.len().min(at + 1 + random.below(most));
                forger.stream.write_all(&records[at..end]).unwrap();
                at = end;
            }
            let mut answer = std::collections::VecDeque::new();
            for message in &messages {
                let head =
                    [2, 4, 10][(message.len() > 125) as usize + (message.len() > 0xffff) as usize];
                while answer.len() < head + message.len() {
                    answer.extend(forger.receive().unwrap().1);
                }
                let (opcode, came) = socket::receive(&mut answer).unwrap();
                assert!((opcode, &came) == (BINARY, message), "{}", message.len());
            }
            assert!(answer.is_empty());
        }
    }
    server.stop();
}

#[test]
fn every_byte_of_a_session_may_come_alone() {
    let server = Server::start();
    for version in VERSIONS {
        let mut forger = Forger::open(&server, version);
        let mut records = forger.seal(DATA, &frame(TEXT, b"byte by byte"));
        records.extend(forger.seal(DATA, &frame(TEXT, b"and again")));
        for byte in records {
            forger.stream.write_all(&[byte]).unwrap();
        }
        let mut answer = Vec::new();
        while answer.len() < "byte by byte".len() + "and again".len() + 4 {
            answer.extend(forger.receive().unwrap().1);
        }
        let mut answer = &answer[..];
        for text in [&b"byte by byte"[..], b"and again"] {
            let came = socket::receive(&mut answer).unwrap();
            assert_eq!(came, (TEXT, text.to_vec()));
        }
    }
    server.stop();
}

#[test]
fn new_keys_are_taken_in_the_midst_of_everything() {
    undisturbed(Server::start(), |server| {
        let config = client::config(&server.authority, &[&TLS13], None);
        let client = Client::connect(server.address, config, "localhost").unwrap();
        let mut client = client.upgraded("/echo");
        for number in 0..200 {
            client.tls().refresh_traffic_keys().unwrap();
            client.echo(&noise(number, 3000));
        }
        // Between the halves of a message.
        let bytes = frame(BINARY, &noise(1, 5000));
        for part in bytes.chunks(1700) {
            client.write_all(part).unwrap();
            client.tls().refresh_traffic_keys().unwrap();
        }
        assert_eq!(client.receive().unwrap(), (BINARY, noise(1, 5000)));
        client.close();
    });
}

#[test]
fn a_flood_of_new_keys_ends_its_connection_and_no_other() {
    undisturbed(Server::start(), |server| {
        let config = client::config(&server.authority, &[&TLS13], None);
        let client = Client::connect(server.address, config, "localhost").unwrap();
        let mut client = client.upgraded("/echo");
        let mut is_over = false;
        for _ in 0..10_000 {
            client.tls().refresh_traffic_keys().unwrap();
            if client.flush_records().is_err() {
                is_over = true;
                break;
            }
        }
        // Thousands of them were read in order, or too many were told so: never a reset of others.
        if !is_over {
            let _ = client.read(&mut [0; 64]);
        }
    });
}

#[test]
fn a_record_that_was_tampered_with_ends_its_connection_by_an_alert() {
    undisturbed(Server::start(), |server| {
        for version in VERSIONS {
            for place in [5, 20, 30] {
                let mut forger = Forger::open(server, version);
                let mut record = forger.seal(DATA, &frame(TEXT, b"I am who I was"));
                record[place] ^= 1;
                forger.stream.write_all(&record).unwrap();
                forger.expect_alert(&[BAD_RECORD_MAC]);
            }
        }
        server.settles("closed_total{code=\"1006\"}", 6.0);
        // The handshakes were in order.
        assert!(server.handshakes("failed") < 0.5);
    });
}

/// What came whole before the one that was tampered with is answered.
#[test]
fn what_was_said_before_a_bad_record_counts() {
    for version in VERSIONS {
        let server = Server::start();
        let mut forger = Forger::open(&server, version);
        let mut bytes = forger.seal(DATA, &frame(TEXT, b"before"));
        let mut bad = forger.seal(DATA, &frame(TEXT, b"after"));
        *bad.last_mut().unwrap() ^= 1;
        bytes.extend(bad);
        forger.stream.write_all(&bytes).unwrap();
        // Besides the one that a forger begins with.
        server.settles("messages_received_total", 2.0);
        forger.expect_alert(&[BAD_RECORD_MAC]);
    }
}

#[test]
fn contents_that_have_no_place_in_a_session_end_it() {
    undisturbed(Server::start(), |server| {
        let long = noise(3, 5000);
        let cases: [(u8, &[u8]); 8] = [
            (CHANGE_CIPHER_SPEC, &[1]),
            (99, b"what is this"),
            (24, &[1, 0x40, 0]),
            // Of a handshake: a Finished, a message cut short, something huge.
            (HANDSHAKE, &[20, 0, 0, 1, 0]),
            (HANDSHAKE, &[4, 0, 0, 2, 1, 2]),
            (HANDSHAKE, &[24, 0, 0, 1, 9]),
            (ALERT, &[2]),
            (HANDSHAKE, &long),
        ];
        for version in VERSIONS {
            for (content, payload) in cases {
                let mut forger = Forger::open(server, version);
                forger.send(content, payload);
                // Whatever the server waits for does not come.
                forger.stream.shutdown(Shutdown::Write).unwrap();
                let end = forger.rest();
                assert!(end.is_ok(), "{version:?} {content} {payload:?}: {end:?}");
            }
        }
        server.holds(20);
    });
}

#[test]
fn a_record_that_is_too_long_ends_its_session() {
    undisturbed(Server::start(), |server| {
        for version in VERSIONS {
            // Its header says so; nothing of it need come.
            let mut forger = Forger::open(server, version);
            let head = [DATA, 3, 3, 0xff, 0xff];
            forger.stream.write_all(&head).unwrap();
            forger.expect_alert(&[RECORD_OVERFLOW, DECODE_ERROR, UNEXPECTED_MESSAGE]);
            // Sealed in order, but larger than allowed.
            let mut forger = Forger::open(server, version);
            let record = forger.seal(DATA, &noise(1, 16_384 + 100));
            forger.stream.write_all(&record).unwrap();
            forger.expect_alert(&[RECORD_OVERFLOW, DECODE_ERROR, BAD_RECORD_MAC]);
        }
    });
}

/// Each is allowed (RFC 8446, 5.1), all together are not: the server must not be kept busy by what
/// is no message.
#[test]
fn floods_of_nothing_in_a_session_disturb_nobody() {
    undisturbed(Server::start(), |server| {
        for version in VERSIONS {
            let warning = [1, 90];
            for (content, payload) in [(DATA, &[][..]), (ALERT, &warning[..])] {
                let mut forger = Forger::open(server, version);
                let mut records = Vec::new();
                for _ in 0..20_000 {
                    records.extend(forger.seal(content, payload));
                }
                let before = server.cpu();
                // It may be ended in the midst.
                let _ = forger.stream.write_all(&records);
                let spent = server.cpu() - before;
                assert!(spent.as_millis() < 1000, "{version:?} {content}: {spent:?}");
                let _ = forger.stream.shutdown(Shutdown::Write);
                let _ = forger.rest();
            }
        }
        server.holds(20);
    });
}

#[test]
fn a_session_ends_however_its_client_goes() {
    undisturbed(Server::start(), |server| {
        for version in VERSIONS {
            let open = || Forger::open(server, version);
            // FIN without a close_notify: between records, in the midst of one, and of a message.
            for part in [0, 3, 20] {
                let mut forger = open();
                let record = forger.seal(DATA, &frame(TEXT, b"not all of it"));
                forger.stream.write_all(&record[..part]).unwrap();
                forger.stream.shutdown(Shutdown::Write).unwrap();
                forger.rest().unwrap();
            }
            let mut forger = open();
            forger.send(DATA, &frame(TEXT, &[b'x'; 500])[..100]);
            forger.stream.shutdown(Shutdown::Write).unwrap();
            forger.rest().unwrap();
            reset(open().stream);
            // A fatal alert of theirs.
            let mut forger = open();
            forger.send(ALERT, &[2, 40]);
            forger.rest().unwrap();
        }
        server.holds(20);
        server.settles("closed_total{code=\"1006\"}", 12.0);
    });
}

#[test]
fn what_comes_behind_a_close_notify_was_never_said() {
    undisturbed(Server::start(), |server| {
        for version in VERSIONS {
            let mut forger = Forger::open(server, version);
            let mut bytes = forger.seal(ALERT, &[1, 0]);
            bytes.extend(forger.seal(DATA, &frame(TEXT, b"from beyond")));
            bytes.extend(noise(1, 3000));
            forger.stream.write_all(&bytes).unwrap();
            forger.stream.shutdown(Shutdown::Write).unwrap();
            while let Ok((content, payload)) = forger.receive() {
                assert_eq!((content, &payload[..]), (ALERT, &[1, 0][..]), "{version:?}");
            }
        }
        server.holds(20);
    });
}

/// RFC 5746: no renegotiation, neither with a hello of their own nor in plain text.
#[test]
fn renegotiation_is_refused() {
    undisturbed(Server::start(), |server| {
        let hello = crate::garbage::hello(server);
        let message = &hello[5..];
        let mut forger = Forger::open(server, &TLS12);
        forger.send(HANDSHAKE, message);
        let (content, payload) = forger.receive().unwrap();
        // no_renegotiation, as a warning or for good.
        assert_eq!((content, payload[1]), (ALERT, 100));
        if payload[0] == 1 {
            forger.echo(b"as before");
            for _ in 0..1000 {
                let again = forger.seal(HANDSHAKE, message);
                if forger.stream.write_all(&again).is_err() {
                    break;
                }
            }
            let ended = loop {
                match forger.receive() {
                    Ok((ALERT, alert)) if alert[0] == 2 => break true,
                    Ok(_) => {}
                    Err(_) => break true,
                }
            };
            assert!(ended);
        }
        for version in VERSIONS {
            let mut forger = Forger::open(server, version);
            forger.stream.write_all(&hello).unwrap();
            forger.expect_alert(&[
                UNEXPECTED_MESSAGE,
                BAD_RECORD_MAC,
                ILLEGAL_PARAMETER,
                DECODE_ERROR,
            ]);
        }
    });
}

#[test]
fn plain_text_in_a_session_is_not_taken_for_http() {
    undisturbed(Server::start(), |server| {
        for version in VERSIONS {
            let mut forger = Forger::open(server, version);
            forger.stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            let end = forger.rest().unwrap();
            assert!(!end.starts_with(b"HTTP"), "{end:?}");
        }
        assert!(server.handshakes("plain_http") < 0.5);
        // Nor is a record without a seal.
        let mut forger = Forger::open(server, &TLS13);
        let alert = record(ALERT, 0x0303, &[1, 0]);
        forger.stream.write_all(&alert).unwrap();
        let _ = forger.rest();
        server.holds(20);
    });
}

/// Half a message of a handshake, in a whole record: the other half may never come, and meanwhile
/// the server has things of its own to say.
#[test]
fn half_a_message_of_a_handshake_is_no_trap() {
    let server = Setup::new()
        .set("PING_INTERVAL", "1s")
        .set("PONG_TIMEOUT", "1s")
        .start();
    let mut silents = Vec::new();
    for version in VERSIONS {
        // Of a KeyUpdate, of a hello, of something long.
        for half in [
            &[24, 0, 0][..],
            &[1, 0, 0, 50, 3, 3],
            &[4, 0, 0x20, 0, 1, 2, 3],
        ] {
            let begin = || {
                let mut forger = Forger::open(&server, version);
                // Its answer is due when the half is there already.
                let mut bytes = forger.seal(DATA, &frame(TEXT, b"and what now?"));
                bytes.extend(forger.seal(HANDSHAKE, half));
                forger.stream.write_all(&bytes).unwrap();
                forger
            };
            let mut ended = begin();
            ended.stream.shutdown(Shutdown::Write).unwrap();
            ended.rest().unwrap();
            reset(begin().stream);
            silents.push(begin());
            // What must not be in between.
            let mut mixed = begin();
            mixed.send(DATA, &frame(TEXT, b"in between"));
            let _ = mixed.rest();
        }
    }
    // They are pinged, do not answer, and are given up; or were refused before.
    for silent in &mut silents {
        while silent.receive().is_ok() {}
    }
    server.holds(0);
    server.stop();
}

#[test]
fn half_a_hello_in_a_whole_record_is_no_trap() {
    let server = Setup::new().set("HANDSHAKE_TIMEOUT", "1s").start();
    undisturbed(server, |server| {
        let hello = crate::garbage::hello(server);
        let half = record(HANDSHAKE, 0x0301, &hello[5..100]);
        for _ in 0..3 {
            let mut ended = server.bare();
            ended.write_all(&half).unwrap();
            ended.shutdown(Shutdown::Write).unwrap();
            rest(&mut ended).unwrap();
            let mut gone = server.bare();
            gone.write_all(&half).unwrap();
            reset(gone);
            let mut wrong = server.bare();
            wrong.write_all(&half).unwrap();
            wrong.write_all(&record(ALERT, 0x0301, &[1, 90])).unwrap();
            let _ = wrong.write_all(&record(DATA, 0x0301, b"what?"));
            rest(&mut wrong).unwrap();
            let mut silent = server.bare();
            silent.write_all(&half).unwrap();
            rest(&mut silent).unwrap();
        }
        server.holds(20);
    });
}

/// Halves of messages are open when the server is told to end.
#[test]
fn a_shutdown_comes_through_half_a_message() {
    let server = Server::start();
    let hello = crate::garbage::hello(&server);
    let mut bare = server.bare();
    bare.write_all(&record(HANDSHAKE, 0x0301, &hello[5..100]))
        .unwrap();
    let mut forgers: Vec<Forger> = VERSIONS
        .into_iter()
        .map(|version| {
            let mut forger = Forger::open(&server, version);
            forger.send(HANDSHAKE, &[24, 0, 0]);
            forger
        })
        .collect();
    server.holds(3);
    server.signal("TERM");
    for forger in &mut forgers {
        let mut is_told = false;
        while let Ok((content, payload)) = forger.receive() {
            is_told |= content == DATA && payload[0] == 0x88 || content == ALERT;
        }
        assert!(is_told);
    }
    server.stop_by_itself();
}

/// A Close, and then a record that was tampered with: whichever the server heeds, it does so
/// at once.
#[test]
fn a_close_before_a_bad_record_is_not_waited_for() {
    undisturbed(Server::start(), |server| {
        for version in VERSIONS {
            let mut forger = Forger::open(server, version);
            let mut bytes = forger.seal(DATA, &socket::close(1000));
            let mut bad = forger.seal(DATA, &frame(TEXT, b"after"));
            *bad.last_mut().unwrap() ^= 1;
            bytes.extend(bad);
            let began = Instant::now();
            forger.stream.write_all(&bytes).unwrap();
            forger.rest().unwrap();
            assert!(
                began.elapsed() < Duration::from_secs(3),
                "{:?}",
                began.elapsed()
            );
        }
    });
}
