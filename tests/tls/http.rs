//! `https://`: the pages of the server by TLS alone, and how such a connection ends.

use std::io::Write;

use rustls::version::{TLS12, TLS13};

use crate::{
    client::Client,
    forge::{DATA, Forger},
    server::{Server, Setup},
    socket,
};

fn secure_only() -> Server {
    Setup::new()
        .set("LISTEN", "off")
        .set("HANDSHAKE_TIMEOUT", "1s")
        .start()
}

fn get(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n")
}

#[track_caller]
fn ask(client: &mut Client, request: &str) -> (String, String) {
    client.write_all(request.as_bytes()).unwrap();
    socket::answer(client).unwrap()
}

#[test]
fn every_page_answers() {
    let server = secure_only();
    let mut client = server.connect();
    let (head, body) = ask(&mut client, &get("/health", ""));
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert_eq!(body, r#"{"status":"healthy"}"#);
    let (head, _) = ask(&mut client, &get("/ready", ""));
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    let (head, body) = ask(&mut client, &get("/", ""));
    assert!(head.contains("text/html"), "{head}");
    assert!(
        body.contains("<html") || body.contains("<!doctype"),
        "{body}"
    );
    // The page must reach the socket by the scheme that it came by.
    assert!(
        !body.contains("ws://"),
        "the page asks for what is not sealed"
    );
    let (head, body) = ask(&mut client, &get("/metrics", "Connection: close\r\n"));
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    for family in [
        "tidemill_tls_handshakes_total{result=\"full\"} 1",
        "tidemill_tls_handshakes_total{result=\"plain_http\"} 0",
        "tidemill_tls_certificate_expiry_seconds ",
        "tidemill_reloads_total{result=\"ok\"} 0",
    ] {
        assert!(body.contains(family), "{family} in {body}");
    }
    client.expect_end();
    server.stop();
}

#[test]
fn a_request_that_is_the_clients_last_word_is_answered() {
    let server = secure_only();
    for _ in 0..50 {
        let mut client = server.connect();
        client.write_all(get("/health", "").as_bytes()).unwrap();
        client.notify();
        client.finish();
        let (head, body) = socket::answer(&mut client).unwrap();
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        assert_eq!(body, r#"{"status":"healthy"}"#);
        client.expect_end();
    }
}

#[test]
fn a_connection_that_is_kept_for_nothing_ends_with_a_close_notify() {
    let server = secure_only();
    let mut client = server.connect();
    ask(&mut client, &get("/health", ""));
    client.expect_end();
}

#[test]
fn a_request_that_does_not_come_is_answered_408() {
    let server = secure_only();
    let mut client = server.connect();
    client.write_all(b"GET /health HTTP/1.1\r\n").unwrap();
    let (head, _) = socket::answer(&mut client).unwrap();
    assert!(head.starts_with("http/1.1 408 "), "{head}");
    client.expect_end();
    // Its handshake was complete: nothing is wrong with TLS.
    assert_eq!(server.handshakes("timeout") as u64, 0);
}

#[test]
fn what_is_too_large_is_refused_and_the_refusal_arrives() {
    let server = secure_only();
    let mut client = server.connect();
    let request = get("/echo", &format!("X-Large: {}\r\n", "x".repeat(100_000)));
    // The server may have hung up before all of it was sent.
    let _ = client.write_all(request.as_bytes());
    let (head, _) = socket::answer(&mut client).unwrap();
    assert!(head.starts_with("http/1.1 431 "), "{head}");
    client.expect_end();
}

/// The request is sound, what follows it is not. The end is in order all the same.
#[test]
fn a_bad_record_behind_a_request_ends_in_order() {
    let server = secure_only();
    for version in [&TLS12, &TLS13] {
        let mut forger = Forger::fresh(&server, version);
        let mut bytes = forger.seal(DATA, get("/health", "").as_bytes());
        let mut bad = forger.seal(DATA, b"GET /");
        *bad.last_mut().unwrap() ^= 1;
        bytes.extend(bad);
        forger.stream.write_all(&bytes).unwrap();
        assert!(!forger.rest().unwrap().is_empty());
    }
}
