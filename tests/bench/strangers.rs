//! Servers that we did not write: what they are told, and what becomes of it when they are slow,
//! silent, wrong or hostile.

use std::{
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use crate::{
    raw::{CLOSE, Guest, PING, PONG, Raw, TEXT, close, frame},
    report::Report,
    tool::{Tool, bench, report},
};

/// What the tool says if nothing else is asked for.
const MESSAGE: &[u8] = b"abcdefghijklmnopqrst";

/// Three connections, with patience for half a second.
#[track_caller]
fn exchange(server: &Raw, flags: &[&str]) -> Report {
    let url = server.url();
    let run = ["echo", &url, "--connections", "3", "--duration", "100ms"];
    let timeout = ["--timeout", "500ms"];
    let timeout = if flags.contains(&"--timeout") {
        &[]
    } else {
        &timeout[..]
    };
    report(&[&run[..], timeout, flags].concat())
}

#[track_caller]
fn expect_failed(host: impl Fn(Guest) -> Option<()> + Send + Sync + 'static, kind: &str) {
    let server = Raw::serve(host);
    let report = exchange(&server, &[]);
    assert_eq!(report.number("/exit"), 1);
    assert_eq!(report.number("/connections/failed"), 3, "{kind}");
    assert_eq!(report.errors(kind), 3, "{kind}: {}", report.at("/errors"));
    assert_eq!(report.number("/messages/sent"), 0);
    // With nobody there, there is no exchange to wait for.
    assert!(report.float("/seconds") < 3.0);
}

#[track_caller]
fn expect_lost(host: impl Fn(Guest) -> Option<()> + Send + Sync + 'static, kind: &str) -> Report {
    let server = Raw::welcome(host);
    let report = exchange(&server, &[]);
    assert_eq!(report.number("/exit"), 1);
    assert_eq!(report.number("/connections/opened"), 3);
    assert_eq!(report.number("/connections/lost"), 3, "{kind}");
    assert_eq!(report.errors(kind), 3, "{kind}: {}", report.at("/errors"));
    report
}

#[test]
fn the_request_is_what_was_asked_for() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&seen);
    let server = Raw::serve(move |mut guest| {
        into.lock().unwrap().push(guest.request.clone());
        guest.switch("Sec-WebSocket-Protocol: second\r\n")?;
        guest.echo()
    });
    let url = format!("ws://localhost:{}/a/b?c=d%20e&f", server.address.port());
    let run = ["echo", &url, "--connections", "4", "--duration", "10ms"];
    let flags = [
        "--header",
        "X-One: 1",
        "--header",
        "X-Two:  two : words ",
        "--header",
        "Authorization: Bearer a.b.c",
        "--origin",
        "http://example.org",
        "--protocol",
        "first",
        "--protocol",
        "second",
    ];
    report(&[&run[..], &flags].concat()).expect_clean();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 4);
    let mut keys = Vec::new();
    for request in seen.iter() {
        let mut lines: Vec<&str> = request.lines().collect();
        let key = lines
            .iter()
            .position(|line| line.starts_with("Sec-WebSocket-Key: "));
        keys.push(lines.remove(key.unwrap()));
        let host = format!("Host: localhost:{}", server.address.port());
        assert_eq!(lines[0], "GET /a/b?c=d%20e&f HTTP/1.1");
        for line in [
            &*host,
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Protocol: first, second",
            "X-One: 1",
            "X-Two: two : words",
            "Authorization: Bearer a.b.c",
            "Origin: http://example.org",
        ] {
            let count = lines.iter().filter(|found| **found == line).count();
            assert_eq!(count, 1, "{line} in {request}");
        }
        assert_eq!(lines.len(), 1 + 9 + 1, "{request}");
    }
    // RFC 6455, 4.1: new for each connection.
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 4);
    assert!(
        keys.iter()
            .all(|key| key.len() == "Sec-WebSocket-Key: ".len() + 24)
    );
}

#[test]
fn a_handshake_that_is_never_answered_times_out() {
    expect_failed(|mut guest| guest.ignore(), "timed out");
    let half = "HTTP/1.1 101 Switching Protocols\r\nUpgr";
    expect_failed(
        move |mut guest| {
            guest.send(half)?;
            guest.ignore()
        },
        "timed out",
    );
}

#[test]
fn an_answer_that_is_no_handshake_is_named() {
    expect_failed(
        |mut guest| guest.send("SSH-2.0-OpenSSH_9.6\r\n\r\n"),
        "malformed",
    );
    expect_failed(|mut guest| guest.send([0xff; 40_000]), "");
    expect_failed(|_| None, "ended");
    expect_failed(
        |mut guest| {
            let answer = guest.answer("");
            let (line, rest) = answer.split_once("Accept: ")?;
            guest.send(format!("{line}Accept: A{rest}"))?;
            guest.ignore()
        },
        "Sec-WebSocket-Accept",
    );
    expect_failed(
        |mut guest| {
            guest.switch("Sec-WebSocket-Protocol: chat\r\n")?;
            guest.ignore()
        },
        "subprotocol",
    );
    expect_failed(
        |mut guest| {
            guest.switch("Sec-WebSocket-Extensions: permessage-deflate\r\n")?;
            guest.ignore()
        },
        "permessage-deflate",
    );
    expect_failed(
        |mut guest| {
            guest.send("HTTP/1.1 301 Moved\r\nLocation: /\r\nContent-Length: 0\r\n\r\n")?;
            guest.ignore()
        },
        "301",
    );
}

/// The status is known by then: that it took too long is the lesser news.
#[test]
fn a_refusal_whose_body_never_comes_is_still_known_by_its_status() {
    expect_failed(
        |mut guest| {
            guest.send("HTTP/1.1 429 Too Many\r\nContent-Length: 100\r\n\r\nslow")?;
            guest.ignore()
        },
        "429",
    );
}

#[test]
fn an_answer_byte_by_byte_is_an_answer() {
    let server = Raw::serve(|mut guest| {
        let answer = guest.answer("X-Padding: here\r\n");
        for byte in answer.bytes() {
            guest.send([byte])?;
        }
        guest.echo()
    });
    exchange(&server, &[]).expect_clean();
}

#[test]
fn a_server_that_leaves_after_the_101_is_lost() {
    expect_lost(|_| None, "");
    expect_lost(|mut guest| guest.send(close(1001, "going")), "1001 going");
    expect_lost(
        |mut guest| {
            guest.send(close(1013, "busy"))?;
            guest.ignore()
        },
        "1013 busy",
    );
    expect_lost(
        |mut guest| {
            guest.send(frame(CLOSE, b""))?;
            guest.ignore()
        },
        "1005",
    );
}

#[test]
fn a_server_that_breaks_the_protocol_is_lost() {
    let masked = crate::wire::frame(1, MESSAGE);
    for (name, bytes) in [
        ("masked", masked),
        ("a reserved bit", frame(0xc1, b"a")),
        ("a reserved opcode", frame(0x83, b"a")),
        ("a fragmented ping", frame(0x09, b"a")),
        ("a long ping", frame(PING, &[0; 126])),
        ("a continuation of nothing", frame(0x80, b"a")),
        ("no UTF-8", frame(TEXT, &[0xff, 0xfe])),
        ("a Close of one byte", frame(CLOSE, &[3])),
        (
            "a length beyond all",
            [&[0x82, 127][..], &[0x7f; 8]].concat(),
        ),
    ] {
        let report = expect_lost(
            move |mut guest| {
                guest.frame()?;
                guest.send(&bytes)?;
                guest.ignore()
            },
            "protocol",
        );
        assert_eq!(report.number("/messages/lost"), 3, "{name}");
    }
}

#[test]
fn wrong_echoes_are_other_messages_and_no_answers() {
    for wrong in [
        frame(TEXT, b"abcdefghijklmnopqrsT"),
        frame(TEXT, b""),
        frame(0x82, MESSAGE),
        frame(TEXT, b"abcdefghijklmnopqrstabcdefghijklmnopqrst"),
    ] {
        let server = Raw::welcome(move |mut guest| {
            while guest.frame()?.first != CLOSE {
                guest.send(&wrong)?;
            }
            guest.send(frame(CLOSE, b""))
        });
        let report = exchange(&server, &[]);
        assert_eq!(report.number("/messages/sent"), 3);
        assert_eq!(report.number("/messages/lost"), 3);
        assert_eq!(report.number("/messages/other"), 3);
        assert_eq!(report.number("/exit"), 1);
    }
}

#[test]
fn half_of_the_answers_is_half_of_the_messages() {
    for pace in [["--depth", "10"], ["--rate", "600"]] {
        let server = Raw::welcome(|mut guest| {
            for count in 0.. {
                let sent = guest.frame()?;
                if sent.first == CLOSE || count % 2 == 0 {
                    guest.answer_to(&sent)?;
                }
            }
            None
        });
        let report = exchange(&server, &pace);
        let sent = report.number("/messages/sent");
        let received = report.number("/messages/received");
        // An odd one on each connection may be the last.
        assert!(received * 2 >= sent && received * 2 <= sent + 3);
        assert!(sent > 9 && report.number("/exit") == 1);
        assert_eq!(report.number("/connections/lost"), 0);
    }
}

#[test]
fn more_answers_than_questions_are_other_messages() {
    let server = Raw::welcome(|mut guest| {
        guest.send(frame(TEXT, MESSAGE))?;
        let sent = guest.frame()?;
        let three = frame(TEXT, &sent.payload).repeat(3);
        guest.send(three)?;
        guest.echo()
    });
    let report = exchange(&server, &["--rate", "30"]);
    // A greeting before the question, and two too many.
    assert!(
        report.number("/messages/other") >= 3,
        "{}",
        report.at("/messages")
    );
    assert!(report.number("/messages/received") >= 3);
    report.expect_clean();
}

#[test]
fn fragments_and_pings_in_between_make_a_message() {
    let pongs = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&pongs);
    let server = Raw::welcome(move |mut guest| {
        let mut count = 0u32;
        loop {
            let sent = guest.frame()?;
            match sent.first {
                TEXT => {}
                PONG => {
                    into.lock().unwrap().push(sent.payload);
                    continue;
                }
                _ => return guest.answer_to(&sent),
            }
            count += 1;
            let (head, tail) = sent.payload.split_at(7);
            let ping = frame(PING, &count.to_be_bytes());
            let parts = [
                frame(0x01, head),
                ping.clone(),
                frame(0x00, b""),
                frame(0x80, tail),
            ];
            // Each byte may come on its own.
            for byte in parts.concat() {
                guest.send([byte])?;
            }
        }
    });
    let report = exchange(&server, &[]);
    report.expect_clean();
    assert_eq!(report.number("/messages/other"), 0);
    let received = report.number("/messages/received") as usize;
    assert!(received > 3);
    let pongs = pongs.lock().unwrap();
    assert_eq!(pongs.len(), received);
    assert!(pongs.iter().all(|pong| pong.len() == 4));
}

/// A server that leaves all of it in its sockets for a while: what was planned waits, and its time
/// runs.
#[test]
fn a_server_that_reads_slowly_is_seen_in_the_corrected_latencies() {
    let server = Raw::welcome(|mut guest| {
        thread::park_timeout(Duration::from_millis(400));
        guest.echo()
    });
    let flags = ["--rate", "300", "--size", "1MB", "--timeout", "10s"];
    let report = exchange(&server, &flags);
    report.expect_clean();
    let corrected = report.float("/latency/corrected/p50");
    let uncorrected = report.float("/latency/uncorrected/p50");
    assert!(corrected > 200_000.0, "{corrected}");
    assert!(corrected > uncorrected, "{corrected} {uncorrected}");
}

#[test]
fn what_a_server_never_takes_is_lost_or_never_sent_and_both_are_said() {
    let server = Raw::welcome(|guest| {
        thread::park_timeout(Duration::from_secs(2));
        drop(guest);
        None
    });
    let report = exchange(&server, &["--rate", "300", "--size", "1MB"]);
    assert_eq!(report.number("/messages/received"), 0);
    let sent = report.number("/messages/sent");
    let unsent = report.errors("too slow to take");
    assert!(sent >= 3 && unsent > 0, "{sent} {unsent}");
    assert!((27..=30).contains(&(sent + unsent)), "{sent} {unsent}");
}

/// The close handshake of a run that is over has its time limit too.
#[test]
fn a_close_that_is_never_answered_does_not_hold_up_the_end() {
    let server = Raw::welcome(|mut guest| {
        loop {
            let sent = guest.frame()?;
            if sent.first == CLOSE {
                return guest.ignore();
            }
            guest.answer_to(&sent)?;
        }
    });
    let report = exchange(&server, &[]);
    assert_eq!(report.number("/messages/lost"), 0);
    let seconds = report.phase_seconds("close");
    // From the Close on, not from the handshake.
    assert!((0.45..3.0).contains(&seconds), "{seconds}");
}

#[test]
fn a_server_that_never_stops_talking_does_not_hold_up_the_end() {
    let server = Raw::welcome(|mut guest| {
        guest.frame()?;
        let chatter = frame(TEXT, b"and another thing").repeat(1000);
        loop {
            guest.send(&chatter)?;
        }
    });
    let url = server.url();
    let run = ["echo", &url, "--connections", "2", "--duration", "100ms"];
    let flags = ["--timeout", "300ms", "--json"];
    let tool = Tool::start(bench(&[&run[..], &flags].concat()));
    let report = tool.ended_within(Duration::from_secs(5)).report();
    assert_eq!(report.number("/messages/lost"), 2);
    assert!(report.number("/messages/other") > 1000);
}

#[test]
fn kinds_of_errors_are_bounded_and_printable_whatever_a_server_says() {
    let server = Raw::welcome(|mut guest| {
        let reason = format!("\u{1b}[31m{} \u{9b}{}", guest.number, "x".repeat(100));
        guest.send(close(4000, &reason))?;
        guest.ignore()
    });
    let url = server.url();
    let run = ["hold", &url, "--connections", "200", "--duration", "0"];
    let report = report(&run);
    assert_eq!(report.number("/connections/lost"), 200);
    let errors = report.list("/errors");
    assert!((2..=70).contains(&errors.len()), "{}", errors.len());
    for error in errors {
        let kind = error["kind"].as_str().unwrap();
        assert!(
            kind.len() < 200 && !kind.contains(char::is_control),
            "{kind:?}"
        );
    }
}
