//! The opening handshake in the forms that real clients and proxies give it.

use std::net::TcpStream;

use tidemill::Config;
use tungstenite::{Message, client};

use crate::{
    site::{Site, config},
    wire::{BINARY, PATIENCE, PING, PONG, TEXT, Wire, frame, raw_frame, upgrade},
};

#[test]
fn a_request_may_come_a_byte_at_a_time() {
    let site = Site::router(config());
    let mut wire = Wire::connect(site.address);
    for byte in upgrade("/echo", "X-Padding: yes\r\n").bytes() {
        wire.send([byte]);
    }
    wire.switched();
    for byte in frame(TEXT, "bytes, one by one: ä".as_bytes()) {
        wire.send([byte]);
    }
    wire.expect_text("bytes, one by one: ä");
    wire.close(1000);
}

#[test]
fn frames_in_the_segment_of_the_request_are_read() {
    let site = Site::router(config());
    for (cut, large) in [(0, 20), (0, 60_000), (10, 60_000)] {
        let mut wire = Wire::connect(site.address);
        let mut all = upgrade("/echo", "").into_bytes();
        let request = all.len();
        all.extend(frame(TEXT, b"first"));
        all.extend(frame(PING, b"p"));
        all.extend(frame(BINARY, &vec![3; large]));
        wire.send(&all[..request + cut]);
        wire.send(&all[request + cut..]);
        wire.switched();
        wire.expect_text("first");
        let pong = wire.frame();
        assert_eq!((pong.opcode, &pong.payload[..]), (PONG, &b"p"[..]));
        let echoed = wire.frame();
        assert_eq!((echoed.opcode, echoed.payload.len()), (BINARY, large));
    }
}

#[test]
fn headers_count_in_any_case_and_in_several_lines() {
    let site = Site::router(config());
    let key = crate::wire::KEY;
    let requests = [
        format!(
            "GET /echo HTTP/1.1\r\nhOsT: a\r\nUPGRADE: WebSocket\r\nCONNECTION: uPGRADE\r\n\
             sec-websocket-KEY: {key}\r\nSEC-WEBSOCKET-version: 13\r\n\r\n"
        ),
        format!(
            "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ),
        format!(
            "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: Upgrade\r\n\
             Upgrade: h2c\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Key:{key}  \r\nSec-WebSocket-Version:13\r\n\r\n"
        ),
    ];
    for request in requests {
        let mut wire = Wire::connect(site.address);
        wire.send(&request);
        wire.switched();
        wire.text("hello");
        wire.expect_text("hello");
    }
}

#[test]
fn the_first_offered_subprotocol_that_is_allowed_is_chosen() {
    let site = Site::router(Config {
        subprotocols: vec!["json".to_owned(), "chat.v2".to_owned()],
        ..config()
    });
    let cases = [
        (
            "Sec-WebSocket-Protocol: xml, chat.v2, json\r\n",
            Some("chat.v2"),
        ),
        (
            "Sec-WebSocket-Protocol: xml\r\nSec-WebSocket-Protocol: json\r\n",
            Some("json"),
        ),
        ("Sec-WebSocket-Protocol: JSON, xml\r\n", None),
        ("", None),
    ];
    for (offer, chosen) in cases {
        let mut wire = Wire::connect(site.address);
        wire.send(upgrade("/echo", offer));
        assert_eq!(
            wire.switched().header("sec-websocket-protocol"),
            chosen,
            "{offer}"
        );
    }
}

#[test]
fn extensions_that_are_not_spoken_are_not_agreed_to() {
    let site = Site::router(config());
    let mut wire = Wire::connect(site.address);
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    wire.send(upgrade("/echo", offer));
    assert_eq!(wire.switched().header("sec-websocket-extensions"), None);
}

#[test]
fn the_server_header_is_what_was_set_or_absent() {
    for name in [Some("tidemill"), Some("another/2"), None] {
        let site = Site::router(Config {
            server_header: name.map(str::to_owned),
            ..config()
        });
        let mut wire = Wire::connect(site.address);
        wire.send(upgrade("/echo", ""));
        assert_eq!(wire.switched().header("server"), name);
        let mut wire = Wire::connect(site.address);
        wire.send(upgrade("/nowhere", ""));
        assert_eq!(wire.answer().header("server"), name);
    }
}

#[test]
fn a_library_talks_to_the_welcome_and_to_the_echo() {
    let site = Site::router(config());
    for path in ["/", "/ws", "/chat", "/echo"] {
        let stream = TcpStream::connect(site.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let url = format!("ws://{}{path}?a=b", site.address);
        let (mut socket, _) = client(url, stream).unwrap();
        if path != "/echo" {
            let welcome = r#"{"event":"connected","message":"Welcome!"}"#;
            assert_eq!(socket.read().unwrap(), Message::text(welcome));
        }
        for size in [0, 1, 125, 126, 65_535, 65_536] {
            for message in [
                Message::text("t".repeat(size)),
                Message::binary(vec![9; size]),
            ] {
                socket.send(message.clone()).unwrap();
                assert_eq!(socket.read().unwrap(), message, "{size}");
            }
        }
        socket.close(None).unwrap();
        while socket.read().is_ok() {}
    }
    site.expect_metric(r#"connections{dialect="welcome"}"#, 0);
    site.expect_metric("connections_total", 4);
}

#[test]
fn fragments_with_control_frames_between_them_make_one_message() {
    let site = Site::router(config());
    let mut wire = Wire::open(site.address, "/echo");
    wire.send(raw_frame(TEXT, "Grü".as_bytes().split_at(3).0));
    wire.send(frame(PING, b"between"));
    assert_eq!(wire.frame().payload, b"between");
    wire.send(raw_frame(0, &"Grü".as_bytes()[3..]));
    wire.send(frame(0, b"n"));
    wire.expect_text("Grün");
}
