//! What the server says at its start, and how it logs.

use std::net::TcpListener;

use crate::{
    program::{Program, finish, tidemill},
    wire::{Wire, get, upgrade},
};

#[test]
fn the_banner_names_every_endpoint_and_limit() {
    let program = Program::serve(&["--reactors", "1", "--max-connections", "500"]);
    let address = program.address;
    let lines: Vec<&str> = program.banner.lines().collect();
    assert_eq!(lines[0], format!("tidemill {}", env!("CARGO_PKG_VERSION")));
    let expected = [
        format!("  websocket    ws://{address}   (only this machine)"),
        format!("  try it       http://{address}/"),
        format!("  health       http://{address}/health"),
        "  reactors     1".to_owned(),
    ];
    for line in expected {
        assert!(lines.contains(&&*line), "{line} in\n{}", program.banner);
    }
    assert!(program.banner.contains("\n  descriptors  ulimit -n is "));
    assert!(
        program
            .banner
            .contains("\n  connections  up to 500, set by ")
    );

    for path in ["/", "/health", "/ready"] {
        let mut wire = Wire::connect(address);
        wire.send(get(path));
        assert_eq!(wire.answer().status, 200, "{path}");
    }
    let mut wire = Wire::open(address, "/");
    wire.expect_text(r#"{"event":"connected","message":"Welcome!"}"#);
    wire.text("hello there");
    wire.expect_text("hello there");
    wire.close(1000);
}

#[test]
fn a_prefix_an_admin_side_and_an_open_address_are_shown() {
    let program = Program::start(tidemill(&[
        "--listen",
        "0.0.0.0:0",
        "--admin-listen",
        "127.0.0.1:0",
        "--path-prefix",
        "/live",
    ]));
    let port = program.address.port();
    assert!(
        program
            .banner
            .contains(&format!("ws://0.0.0.0:{port}/live\n"))
    );
    assert!(!program.banner.contains("only this machine"));
    let admin = program.banner.split_once("admin        http://").unwrap().1;
    let (admin, rest) = admin.split_once('/').unwrap();
    assert!(rest.starts_with("live/metrics\n"), "{}", program.banner);
    let mut wire = Wire::connect(admin.parse().unwrap());
    wire.send(get("/live/metrics"));
    assert_eq!(wire.answer().status, 200);
    let warning = program.expect_log("without TLS");
    assert!(warning.contains(r#""level":"warn""#), "{warning}");
}

#[test]
fn the_log_is_one_json_object_a_line_when_nobody_watches() {
    let program = Program::serve(&["--log", "debug"]);
    Wire::open(program.address, "/echo").close(1000);
    // What a peer sends must not forge a line.
    let mut wire = Wire::connect(program.address);
    wire.send(upgrade("/%0a{\"level\":\"error\"}\"\\", ""));
    assert_eq!(wire.answer().status, 404);
    program.expect_log("refused");
    program.signal("TERM");
    let (status, log) = program.ended();
    assert!(status.success());
    assert!(log.iter().any(|line| line.contains("stopped")), "{log:?}");
    for line in log {
        let object: serde_json::Value = serde_json::from_str(&line).expect(&line);
        for field in ["time", "level", "target", "message"] {
            assert!(object[field].is_string(), "{line}");
        }
    }
}

#[test]
fn the_log_is_text_when_asked_to_be() {
    let program = Program::serve(&["--log-format", "text"]);
    let line = program.expect_log("listening");
    assert!(line.contains(" INFO ") && !line.starts_with('{'), "{line}");
}

#[test]
fn a_hostile_peer_does_not_fill_the_log() {
    let program = Program::serve(&["--reactors", "1", "--max-connections", "1"]);
    let _inside = Wire::open(program.address, "/echo");
    for _ in 0..50 {
        let mut wire = Wire::connect(program.address);
        wire.send("garbage\r\n\r\n");
        assert_eq!(wire.answer().status, 400);
        let mut wire = Wire::connect(program.address);
        wire.send(upgrade("/echo", ""));
        assert_eq!(wire.answer().status, 503);
    }
    program.signal("TERM");
    program.expect_log("shutting down");
    drop(_inside);
    let (_, log) = program.ended();
    assert!(log.len() < 20, "{log:?}");
}

#[test]
fn a_port_in_use_is_found_before_listening() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = finish(tidemill(&["--listen", &address]));
    let error = String::from_utf8(output.stderr).unwrap();
    let error = error.lines().last().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        error.starts_with("error: ") && error.contains(&address),
        "{error}"
    );
    assert!(error.contains("TIDEMILL_LISTEN") && error.contains("TIDEMILL_TAKEOVER"));
    assert!(
        output.stdout.is_empty(),
        "no banner for a server that does not run"
    );
}

#[test]
fn a_port_of_another_tidemill_is_in_use_and_may_be_taken_over() {
    let first = Program::serve(&["--reactors", "2"]);
    let address = first.address.to_string();
    let output = finish(tidemill(&["--listen", &address]));
    assert_eq!(output.status.code(), Some(1));

    let take = [
        "--listen",
        &address,
        "--reactors",
        "2",
        "--takeover",
        "true",
    ];
    let second = Program::start(tidemill(&take));
    assert_eq!(second.address, first.address);
    first.signal("TERM");
    let (status, _) = first.ended();
    assert!(status.success());
    for _ in 0..20 {
        let mut wire = Wire::open(second.address, "/echo");
        wire.text("served on");
        wire.expect_text("served on");
    }
}

#[test]
fn a_port_whose_connections_linger_is_free() {
    let first = Program::serve(&[]);
    let address = first.address.to_string();
    // The server closes first, so its side of the connection stays in TIME_WAIT.
    let mut wire = Wire::connect(first.address);
    wire.send("GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(wire.answer().status, 200);
    wire.expect_end();
    drop(wire);
    first.signal("TERM");
    assert!(first.ended().0.success());
    let again = Program::start(tidemill(&["--listen", &address]));
    assert_eq!(again.address.to_string(), address);
}
