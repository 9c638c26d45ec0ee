//! Applications that fail: an error or a panic ends the one connection it was about.

use crate::{
    probe::{Seen, watch},
    site::{config, ms},
    wire::{BINARY, PING, PONG, TEXT, Wire, close, frame, get, upgrade},
};

#[test]
fn a_message_that_fails_or_panics_closes_its_connection_with_1011_and_no_other() {
    let watch = watch(&config());
    let mut other = watch.open("/a");
    for way in ["fail", "panic"] {
        let mut wire = watch.open("/b");
        wire.text(way);
        let reason = wire.expect_close(1011);
        assert!(
            !reason.contains("asked to"),
            "the reason is the log's: {reason}"
        );
        wire.expect_end();
        assert_eq!(watch.expect_closed().0, 1011);
        other.text("echo undisturbed");
        other.expect_text("undisturbed");
    }
    watch.site.expect_metric(r#"closed_total{code="1011"}"#, 2);
}

#[test]
fn what_was_answered_before_an_error_is_sent() {
    let watch = watch(&config());
    for size in [3, 6000] {
        let mut wire = watch.open("/a");
        wire.send([frame(BINARY, &vec![1; size]), frame(TEXT, b"fail")].concat());
        assert_eq!(wire.frame().payload, vec![1; size]);
        wire.expect_close(1011);
        wire.expect_end();
    }
}

#[test]
fn a_panic_behind_a_large_reply_still_ends_with_a_close() {
    let watch = watch(&config());
    for size in [3, 6000] {
        let mut wire = watch.open("/a");
        wire.send([frame(BINARY, &vec![1; size]), frame(TEXT, b"panic")].concat());
        let mut next = wire.frame();
        if next.opcode == BINARY {
            next = wire.frame();
        }
        assert_eq!(next.payload[..2], 1011u16.to_be_bytes());
        wire.expect_end();
    }
}

#[test]
fn an_open_that_fails_or_panics_is_a_101_and_then_1011() {
    let watch = watch(&config());
    for path in ["/fail-at-open", "/panic-at-open"] {
        let mut wire = Wire::connect(watch.site.address);
        wire.send(upgrade(path, ""));
        wire.switched();
        wire.expect_close(1011);
        wire.expect_end();
        watch.expect(&Seen::Open(path.to_owned()));
        assert_eq!(watch.expect_closed().0, 1011);
    }
}

#[test]
fn an_upgrade_or_a_request_that_panics_is_a_500() {
    let watch = watch(&config());
    for request in [upgrade("/panic-at-upgrade", ""), get("/panic")] {
        let mut wire = Wire::connect(watch.site.address);
        wire.send(request);
        let answer = wire.answer();
        assert_eq!(
            (answer.status, answer.header("connection")),
            (500, Some("close"))
        );
        assert!(answer.body.starts_with(r#"{"error":""#), "{answer:?}");
        wire.expect_end();
    }
    let mut wire = Wire::connect(watch.site.address);
    wire.send(get("/fine"));
    assert_eq!(wire.answer().status, 200);
}

#[test]
fn a_panic_over_a_body_is_a_500() {
    let watch = watch(&config());
    let mut wire = Wire::connect(watch.site.address);
    wire.send("POST /panic HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n");
    wire.send("ab");
    assert_eq!(wire.answer().status, 500);
}

#[test]
fn a_deadline_that_fails_or_panics_closes_with_1011() {
    let watch = watch(&config());
    for path in ["/fail-at-deadline", "/panic-at-deadline"] {
        let mut wire = watch.open(path);
        wire.text("deadline 100");
        wire.expect_close(1011);
        wire.expect_end();
        assert_eq!(watch.expect_closed().0, 1011);
    }
}

#[test]
fn a_close_that_panics_leaves_nothing_behind() {
    let watch = watch(&config());
    let mut other = watch.open("/a");
    for way in 0..3 {
        let mut wire = watch.open("/panic-at-close");
        match way {
            0 => drop(wire),
            1 => wire.reset(),
            _ => {
                wire.send(close(1000, ""));
                wire.expect_gone();
            }
        }
        watch.expect_closed();
        watch
            .site
            .expect_metric(r#"reactor_connections{reactor="0"}"#, 1);
        other.text("echo undisturbed");
        other.expect_text("undisturbed");
    }
    watch.site.expect_metric(r#"connections{dialect="app"}"#, 1);
    watch.expect(&Seen::Message("echo undisturbed".to_owned()));
    watch.expect_silence(ms(50));
}

#[test]
fn a_control_frame_that_panics_closes_with_1011() {
    let watch = watch(&config());
    let mut wire = watch.open("/a");
    wire.send([frame(TEXT, b"echo before"), frame(PING, b"panic")].concat());
    wire.expect_text("before");
    let mut next = wire.frame();
    if next.opcode == PONG {
        next = wire.frame();
    }
    assert_eq!(next.payload[..2], 1011u16.to_be_bytes());
    wire.expect_end();
}

#[test]
fn a_drain_that_fails_or_panics_closes_with_1011() {
    let config = tidemill::Config {
        outbox_bytes_max: Some(64 * 1024),
        ..config()
    };
    for path in ["/fail-at-drain", "/panic-at-drain"] {
        let watch = watch(&config);
        let mut wire = Wire::connect_narrow(watch.site.address).upgraded(path);
        let mut floods = 0;
        while watch.site.metric("buffer_bytes") < 32 * 1024 {
            wire.text("flood 8000");
            floods += 1;
            watch.site.expect_metric("messages_received_total", floods);
        }
        for _ in 0..floods {
            assert_eq!(wire.frame().payload.len(), 8000);
        }
        wire.expect_close(1011);
        wire.expect_end();
        assert_eq!(watch.expect_closed().0, 1011);
    }
}
