//! Requests that are served: every spelling of an upgrade, and what is none.

use super::*;

#[test]
fn an_upgrade_is_recognised_in_every_spelling() {
    let requests = [
        UPGRADE.to_owned(),
        UPGRADE
            .replace("Upgrade: w", "UPGRADE:w")
            .replace("Sec-WebSocket", "sec-websocket"),
        with("websocket\r\n", "WebSocket\r\n"),
        with("websocket\r\n", "h2c, websocket\r\n"),
        with("n: Upgrade", "n: keep-alive, Upgrade"),
        with("n: Upgrade", "n:\tupgrade ,"),
        with(
            "Connection: Upgrade",
            "Connection: keep-alive\r\nConnection: Upgrade",
        ),
        with("/ws", "http://b.example/ws"),
        with("GET", "\r\n\r\nGET"),
        with(VERSION, &format!("{VERSION}Content-Length: 0\r\n")),
        with(VERSION, &format!("{VERSION}User-Agent: caf\u{e9}\r\n")),
        with("a.example", "[::1]:7000"),
        with(VERSION, &format!("{VERSION}X-Empty:\r\n")),
    ];
    for request in requests {
        assert!(
            is_switched(&request),
            "{request}: {:?}",
            answer(request.as_bytes())
        );
    }
    // The spare bits of a key's last character may be anything.
    let spare_bits = with("ZQ==", "ZR==");
    assert!(matches!(
        answer(spare_bits.as_bytes()),
        Answer::Switched(..)
    ));
}

#[test]
fn what_is_no_websocket_upgrade_is_plain_http() {
    let browser = "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\
        Upgrade-Insecure-Requests: 1\r\nAccept: text/html\r\n\r\n";
    let h2c = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n\
        Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n";
    for request in [browser, h2c] {
        let expected = Answer::Plain("GET a/".into(), Vec::new(), request.len());
        assert_eq!(answer(request.as_bytes()), expected, "{request}");
    }
    let old = "GET /health HTTP/1.0\r\n\r\n";
    assert_eq!(
        answer(old.as_bytes()),
        Answer::Plain("GET /health".into(), Vec::new(), old.len())
    );
}

#[test]
fn what_lies_behind_a_request_is_left_alone() {
    let request = UPGRADE.len();
    let mut bytes = UPGRADE.as_bytes().to_vec();
    bytes.extend_from_slice(b"\x81\x85\0\0\0\0hello\n\r\n\r\n");
    assert!(matches!(answer(&bytes), Answer::Switched(_, used) if used == request));

    let chunked = plain("Transfer-Encoding: chunked\r\n") + "5;x\r\nhello\r\n0\r\nT: t\r\n\r\n";
    let two = chunked.clone() + "\x01GET / HTTP/1.1\r\n";
    assert_eq!(
        answer(two.as_bytes()),
        Answer::Plain("POST a/a".into(), b"hello".to_vec(), chunked.len())
    );
}

#[test]
fn the_first_subprotocol_offered_that_is_allowed_is_chosen() {
    let chosen = |lines: &str| {
        let request = with(VERSION, &format!("{VERSION}{lines}"));
        let Answer::Switched(answer, _) = answer(request.as_bytes()) else {
            panic!("{request}")
        };
        let line = answer
            .lines()
            .find_map(|line| line.strip_prefix("Sec-WebSocket-Protocol: "));
        line.map(str::to_owned)
    };
    let name = "Sec-WebSocket-Protocol";
    assert_eq!(
        chosen(&format!("{name}: mqtt, json, chat\r\n")).as_deref(),
        Some("json")
    );
    let several = format!(
        "{name}: mqtt\r\n{}: chat\r\n{name}: json\r\n",
        name.to_uppercase()
    );
    assert_eq!(chosen(&several).as_deref(), Some("chat"));
    assert_eq!(chosen(&format!("{name}: mqtt\r\n")), None);
    assert_eq!(chosen(&format!("{name}:\r\n")), None);
    assert_eq!(chosen(""), None);
}
