//! Requests that are turned away: a complete answer, one line of JSON, and an orderly end.

use std::time::{Duration, Instant};

use tidemill::Config;

use crate::{
    site::{Site, config, ms},
    wire::{Answer, KEY, Wire, get, upgrade},
};

/// The next answer is a whole refusal with this status, and the connection ends in order.
#[track_caller]
fn expect_refusal(wire: &mut Wire, status: u16) -> Answer {
    let answer = wire.answer();
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let text = body["error"].as_str().unwrap();
    assert!(text.len() > 5 && body.as_object().unwrap().len() == 1);
    assert_eq!(answer.body.trim_end().lines().count(), 1, "{answer:?}");
    wire.expect_end();
    answer
}

#[track_caller]
fn refused(site: &Site, request: &str, status: u16) -> Answer {
    let mut wire = Wire::connect(site.address);
    wire.send(request);
    expect_refusal(&mut wire, status)
}

/// A sound upgrade with one part replaced.
#[track_caller]
fn with(part: &str, other: &str) -> String {
    let request = upgrade("/echo", "");
    assert_eq!(request.matches(part).count(), 1, "{part:?}");
    request.replace(part, other)
}

#[test]
fn every_faulty_request_is_answered_in_full_and_ended_in_order() {
    let site = Site::router(config());
    let key = format!("Sec-WebSocket-Key: {KEY}\r\n");
    let host = "Host: localhost\r\n";
    let version = "Sec-WebSocket-Version: 13\r\n";
    let post = |lines: &str| format!("POST / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
    let cases = [
        (with(&key, ""), 400),
        (with(KEY, "c2hvcnQ="), 400),
        (with(&key, &key.repeat(2)), 400),
        (with("Upgrade: websocket\r\n", ""), 400),
        (with("Connection: Upgrade\r\n", ""), 400),
        (with(host, ""), 400),
        (with(host, &host.repeat(2)), 400),
        (with("HTTP/1.1", "HTTP/1.0"), 400),
        (with("localhost\r\nUpgrade", "localhost\nUpgrade"), 400),
        (with("websocket", "\r\n websocket"), 400),
        (with("websocket", "web\u{1}socket"), 400),
        (
            with(version, &format!("{version}Content-Length: 3\r\n")),
            400,
        ),
        (
            post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"),
            400,
        ),
        (post("Content-Length: 3\r\nContent-Length: 4\r\n"), 400),
        (with("/echo", "/nowhere"), 404),
        (get("/nowhere"), 404),
        (with("GET", "POST"), 405),
        (with("/echo", &format!("/{}", "e".repeat(7000))), 414),
        (with(version, "Sec-WebSocket-Version: 8\r\n"), 426),
        (
            with(version, &format!("{version}X: {}\r\n", "x".repeat(9000))),
            431,
        ),
        (
            with(version, &format!("{version}{}", "x: y\r\n".repeat(200))),
            431,
        ),
        (post("Transfer-Encoding: gzip\r\n"), 501),
        (post("Content-Length: 1048577\r\n"), 413),
        ("\u{16}\u{3}\u{1}\r\n\r\n".to_owned(), 400),
    ];
    for (request, status) in cases {
        if status == 404 && request.starts_with("GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r") {
            let mut wire = Wire::connect(site.address);
            wire.send(&request);
            assert_eq!(wire.answer().status, 404);
            continue;
        }
        refused(&site, &request, status);
    }
}

#[test]
fn a_refusal_names_what_would_be_right() {
    let site = Site::router(config());
    let answer = refused(&site, &with("GET", "POST"), 405);
    assert_eq!(answer.header("allow"), Some("GET"));
    let answer = refused(&site, &with("n: 13", "n: 7"), 426);
    assert_eq!(answer.header("sec-websocket-version"), Some("13"));
    assert_eq!(answer.header("upgrade"), Some("websocket"));

    let mut wire = Wire::connect(site.address);
    wire.send(get("/echo"));
    let answer = wire.answer();
    assert_eq!(answer.status, 426);
    assert_eq!(answer.header("sec-websocket-version"), Some("13"));

    let mut wire = Wire::connect(site.address);
    wire.send("DELETE /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = wire.answer();
    assert_eq!(
        (answer.status, answer.header("allow")),
        (405, Some("GET, HEAD"))
    );
}

#[test]
fn refusals_are_counted_by_status_and_reason() {
    let site = Site::router(config());
    refused(&site, &with("/echo", "/nowhere"), 404);
    refused(&site, &with("n: 13", "n: 7"), 426);
    let series = r#"handshakes_refused_total{status="404",reason="unknown_path"}"#;
    site.expect_metric(series, 1);
    let series = r#"handshakes_refused_total{status="426",reason="websocket_version"}"#;
    site.expect_metric(series, 1);
    site.expect_metric("connections_total", 0);
}

#[test]
fn a_request_that_never_ends_is_told_so_at_the_handshake_timeout() {
    let site = Site::router(Config {
        handshake_timeout: ms(300),
        ..config()
    });
    for beginning in ["", "GET /echo HTT", &upgrade("/echo", "")[..60]] {
        let began = Instant::now();
        let mut wire = Wire::connect(site.address);
        wire.send(beginning);
        expect_refusal(&mut wire, 408);
        assert!(began.elapsed() >= ms(300), "{:?}", began.elapsed());
    }
    site.expect_metric(r#"timeouts_total{kind="handshake"}"#, 3);
}

#[test]
fn a_body_that_never_ends_is_told_so_at_the_handshake_timeout() {
    let site = Site::router(Config {
        handshake_timeout: ms(300),
        ..config()
    });
    let mut wire = Wire::connect(site.address);
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    expect_refusal(&mut wire, 408);
}

#[test]
fn a_byte_now_and_then_does_not_extend_the_handshake() {
    let site = Site::router(Config {
        handshake_timeout: ms(500),
        ..config()
    });
    let began = Instant::now();
    let mut wire = Wire::connect(site.address);
    // The whole request takes more than three seconds; at its end it would be granted.
    wire.trickle(upgrade("/echo", "").as_bytes());
    let answer = wire.answer();
    assert_eq!(answer.status, 408);
    assert!(began.elapsed() >= ms(500));
    site.expect_metric("connections_total", 0);
}

/// After its answer the server reads on for a while: closing with unread bytes would be a reset,
/// which takes the answer away from a peer that is still sending.
#[test]
fn a_peer_that_keeps_sending_sees_the_answer_and_a_fin() {
    let site = Site::router(config());
    for _ in 0..20 {
        let mut wire = Wire::connect(site.address);
        wire.send(with("/echo", "/nowhere"));
        // Twelve pieces of 16 KiB stay below what the server throws away with patience.
        for _ in 0..12 {
            wire.send([b'x'; 16 * 1024]);
        }
        wire.finish();
        expect_refusal(&mut wire, 404);
    }
}

#[test]
fn a_body_too_large_is_refused_before_it_is_sent_and_while_it_is() {
    let site = Site::router(Config {
        body_bytes_max: 64 * 1024,
        ..config()
    });
    let mut wire = Wire::connect(site.address);
    wire.send(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\nExpect: 100-continue\r\n\r\n",
    );
    expect_refusal(&mut wire, 413);

    let mut wire = Wire::connect(site.address);
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..3 {
        wire.send(format!("8000\r\n{}\r\n", "b".repeat(0x8000)));
    }
    expect_refusal(&mut wire, 413);
}

#[test]
fn a_peer_that_never_leaves_is_left_after_a_second() {
    let site = Site::router(config());
    let mut wire = Wire::connect(site.address);
    wire.send(with("/echo", "/nowhere"));
    expect_refusal(&mut wire, 404);
    let began = Instant::now();
    site.expect_metric(r#"reactor_connections{reactor="0"}"#, 0);
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn garbage_of_every_kind_ends_in_an_answer_or_an_end() {
    let site = Site::router(config());
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for length in [1, 7, 100, 5000, 100_000] {
        let mut bytes: Vec<u8> = Vec::with_capacity(length);
        for _ in 0..length {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            bytes.push(random as u8);
        }
        let mut wire = Wire::connect(site.address);
        let _ = wire.try_send(&bytes);
        wire.finish();
        wire.expect_gone();
    }
    Wire::open(site.address, "/echo").close(1000);
}
