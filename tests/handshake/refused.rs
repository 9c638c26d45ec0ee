//! Requests that are turned away, each with its status and reason.

use super::*;

#[test]
fn a_faulty_upgrade_is_refused_as_such() {
    let cases = [
        (with(KEY, ""), 400, "missing_key"),
        (with("dGhlIHNhbXBsZSBub25jZQ==", ""), 400, "malformed_key"),
        (
            with("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j"),
            400,
            "malformed_key",
        ),
        (
            with("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ"),
            400,
            "malformed_key",
        ),
        (
            with("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZSE="),
            400,
            "malformed_key",
        ),
        (
            with("dGhlIHNhbXBsZSBub25jZQ==", "dGhl-HNhbXBsZSBub25jZQ=="),
            400,
            "malformed_key",
        ),
        (with(KEY, &KEY.repeat(2)), 400, "malformed_key"),
        (with("Upgrade: websocket\r\n", ""), 400, "missing_upgrade"),
        (with("websocket\r\n", "h2c\r\n"), 400, "missing_upgrade"),
        (
            with("websocket\r\n", "websockets\r\n"),
            400,
            "missing_upgrade",
        ),
        (
            with("Connection: Upgrade\r\n", ""),
            400,
            "missing_connection",
        ),
        (
            with("n: Upgrade", "n: keep-alive"),
            400,
            "missing_connection",
        ),
        (
            with("n: Upgrade", "n: no-upgrade"),
            400,
            "missing_connection",
        ),
        (with(VERSION, ""), 426, "websocket_version"),
        (with(": 13", ": 8"), 426, "websocket_version"),
        (with(": 13", ": 013"), 426, "websocket_version"),
        (with(": 13", ": 13, 8"), 426, "websocket_version"),
        (with(VERSION, &VERSION.repeat(2)), 426, "websocket_version"),
        (with("HTTP/1.1", "HTTP/1.0"), 400, "http_1_0_upgrade"),
        (with("GET", "POST"), 405, "method"),
        (with("GET", "HEAD"), 405, "method"),
        (with("GET", "get"), 405, "method"),
        (
            with(VERSION, &format!("{VERSION}Content-Length: 2\r\n")),
            400,
            "upgrade_body",
        ),
        (
            with(VERSION, &format!("{VERSION}Transfer-Encoding: chunked\r\n")),
            400,
            "upgrade_body",
        ),
        (with("Host: a.example\r\n", ""), 400, "missing_host"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n".into(),
            400,
            "missing_connection",
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\n{KEY}\r\n"),
            400,
            "missing_upgrade",
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\n{VERSION}\r\n"),
            400,
            "missing_upgrade",
        ),
    ];
    for (request, status, reason) in cases {
        assert_eq!(refused(&request), (status, reason), "{request}");
    }
}

#[test]
fn a_head_that_two_parties_could_read_differently_is_refused() {
    let cases = [
        (with("\r\nHost", "\nHost"), 400, "bare_lf"),
        (with("\r\nHost", "\rHost"), 400, "bare_cr"),
        (with("a.example", "a.exa\rmple"), 400, "bare_cr"),
        (with("Upgrade: w", "Upgrade: \x01w"), 400, "control_byte"),
        (with("a.example", "a\0.example"), 400, "control_byte"),
        (with("a.example", "a\x7f.example"), 400, "control_byte"),
        (with("Upgrade: w", "Upgrade:\r\n w"), 400, "obs_fold"),
        (with("Host:", " Host:"), 400, "obs_fold"),
        (with("Host:", "Host :"), 400, "malformed_header"),
        (with("Host:", "Ho(st:"), 400, "malformed_header"),
        (with("Host:", ":"), 400, "malformed_header"),
        (
            with("Host: a.example", "Host a.example"),
            400,
            "malformed_header",
        ),
        (
            with("a.example", "a.example\r\nhost: a.example"),
            400,
            "repeated_host",
        ),
        (with("a.example", ""), 400, "malformed_host"),
        (with("a.example", "a, b"), 400, "malformed_host"),
        (with("a.example", "u@a.example"), 400, "malformed_host"),
        (with("a.example", "a.example/b"), 400, "malformed_host"),
        (with("a.example", "a\u{e9}.example"), 400, "malformed_host"),
        (with("/ws", "/ws#a"), 400, "malformed_target"),
        (with("/ws", "/w\u{e9}"), 400, "malformed_target"),
        (with("/ws", "*"), 400, "malformed_target"),
        (with("/ws", "a.example:80"), 400, "malformed_target"),
        (with("/ws", "/w s"), 400, "not_http"),
        (with("HTTP/1.1", "HTTPS/1.1"), 400, "not_http"),
        (with("HTTP/1.1", "HTTP/1.1 "), 400, "not_http"),
        (with("HTTP/1.1", "http/1.1"), 400, "not_http"),
        (with("HTTP/1.1", "HTTP/1.2"), 505, "http_version"),
        (with("HTTP/1.1", "HTTP/2.0"), 505, "http_version"),
        (
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
            505,
            "http_version",
        ),
        ("\x16\x03\x01\x02".to_owned(), 400, "not_http"),
    ];
    for (request, status, reason) in cases {
        assert_eq!(refused(&request), (status, reason), "{request}");
    }
}

#[test]
fn a_body_that_two_parties_could_end_differently_is_refused() {
    let both = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
    let cases = [
        (plain(both), 400, "length_and_coding"),
        (
            plain("Content-Length: 5\r\nContent-Length: 6\r\n"),
            400,
            "repeated_length",
        ),
        (
            plain("Content-Length: 5\r\nContent-Length: 5\r\n"),
            400,
            "repeated_length",
        ),
        (plain("Content-Length: 5, 5\r\n"), 400, "malformed_length"),
        (plain("Content-Length: +5\r\n"), 400, "malformed_length"),
        (plain("Content-Length: 0x5\r\n"), 400, "malformed_length"),
        (plain("Content-Length:\r\n"), 400, "malformed_length"),
        (plain("Transfer-Encoding: gzip\r\n"), 501, "transfer_coding"),
        (
            plain("Transfer-Encoding: gzip, chunked\r\n"),
            501,
            "transfer_coding",
        ),
        (
            plain("Transfer-Encoding: chunked, identity\r\n"),
            501,
            "transfer_coding",
        ),
        (
            plain("Transfer-Encoding: xchunked\r\n"),
            501,
            "transfer_coding",
        ),
        (
            plain("Transfer-Encoding: chunked, chunked\r\n"),
            400,
            "malformed_coding",
        ),
        (plain("Transfer-Encoding:\r\n"), 400, "malformed_coding"),
        (
            plain("Transfer-Encoding: chunked\r\n").replace("HTTP/1.1", "HTTP/1.0"),
            400,
            "malformed_coding",
        ),
        (
            plain("Transfer-Encoding: chunked\r\n") + "5\nhello",
            400,
            "malformed_chunk",
        ),
    ];
    for (request, status, reason) in cases {
        assert_eq!(refused(&request), (status, reason), "{request}");
    }
}

#[test]
fn each_limit_has_its_status_and_is_inclusive() {
    let long = "a".repeat(300);
    let target = |length: usize| with("/ws", &format!("/{}", &long[..length - 1]));
    assert!(is_switched(&target(256)));
    assert_eq!(refused(target(257)), (414, "target_too_long"));

    let head = |length: usize| {
        let filler = length - UPGRADE.len() - "X: \r\n".len();
        with(VERSION, &format!("{VERSION}X: {}\r\n", "x".repeat(filler)))
    };
    assert!(is_switched(&head(1024)));
    assert_eq!(refused(head(1025)), (431, "headers_too_large"));
    assert_eq!(
        refused(with(VERSION, &"a:\r\n".repeat(150))),
        (431, "too_many_headers")
    );

    let sized =
        |length: usize| plain(&format!("Content-Length: {length}\r\n")) + &"b".repeat(length);
    assert!(matches!(answer(sized(64).as_bytes()), Answer::Plain(..)));
    assert_eq!(refused(sized(65)), (413, "body_too_large"));
    let huge = plain("Content-Length: 99999999999999999999999\r\n");
    assert_eq!(refused(huge), (413, "body_too_large"));
    let chunked = plain("Transfer-Encoding: chunked\r\n");
    assert_eq!(refused(chunked.clone() + "41\r\n"), (413, "body_too_large"));
    let extended = format!("{chunked}1;{}", "x".repeat(1025));
    assert_eq!(refused(extended), (431, "headers_too_large"));
}
