//! The seam from the application's side: state, headers, codes, deadlines, and one end for each
//! beginning.

use std::{collections::HashMap, time::Instant};

use crate::{
    probe::{Seen, watch},
    site::{config, ms},
    wire::{BINARY, PING, PONG, TEXT, Wire, close, frame, get, upgrade},
};

#[test]
fn each_connection_has_its_own_state_and_a_name_of_its_own() {
    let watch = watch(&config());
    let (mut one, mut two) = (watch.open("/one"), watch.open("/two"));
    one.text("nothing");
    one.text("count");
    two.text("count");
    one.expect_text("2");
    two.expect_text("1");
    two.text("path");
    two.expect_text("/two");
    one.text("id");
    two.text("id");
    assert_ne!(one.frame().payload, two.frame().payload);
}

#[test]
fn a_peer_has_the_address_it_came_from() {
    let watch = watch(&config());
    let mut wire = watch.open("/a");
    wire.text("remote");
    let remote = String::from_utf8(wire.frame().payload).unwrap();
    assert!(remote.starts_with("Some(127.0.0.1:"), "{remote}");
}

#[test]
fn headers_are_seen_at_the_upgrade_and_may_be_added_to_its_answer() {
    let watch = watch(&config());
    let mut wire = Wire::connect(watch.site.address);
    wire.send(upgrade(
        "/a",
        "X-Token: secret\r\nSec-WebSocket-Protocol: a, b\r\n",
    ));
    let answer = wire.switched();
    assert_eq!(answer.header("x-seen"), Some("secret"));
    assert_eq!(answer.header("sec-websocket-protocol"), Some("b"));
}

#[test]
fn an_upgrade_may_be_refused_or_answered_by_the_application() {
    let watch = watch(&config());
    for (path, status) in [("/refused", 404), ("/teapot", 418)] {
        let mut wire = Wire::connect(watch.site.address);
        wire.send(upgrade(path, ""));
        let answer = wire.answer();
        assert_eq!(
            (answer.status, answer.header("connection")),
            (status, Some("close"))
        );
        wire.expect_end();
    }
    watch.expect_silence(ms(50));
}

#[test]
fn what_open_sends_comes_first() {
    let watch = watch(&config());
    let mut wire = Wire::connect(watch.site.address);
    let all = [
        upgrade("/greeting", "").into_bytes(),
        frame(TEXT, b"echo second"),
    ]
    .concat();
    wire.send(all);
    wire.switched();
    wire.expect_text("hello");
    wire.expect_text("second");
}

#[test]
fn a_close_by_the_application_is_its_last_word() {
    let watch = watch(&config());
    let mut wire = watch.open("/a");
    wire.send(
        [
            frame(TEXT, b"close 4000 bye"),
            frame(TEXT, b"echo never seen"),
        ]
        .concat(),
    );
    assert_eq!(wire.expect_close(4000), "bye");
    wire.send(close(4000, ""));
    wire.expect_end();
    watch.expect(&Seen::Open("/a".to_owned()));
    watch.expect(&Seen::Message("close 4000 bye".to_owned()));
    watch.expect(&Seen::PeerClose(4000, String::new()));
    watch.expect(&Seen::Close(4000, String::new()));
}

#[test]
fn a_connection_may_be_closed_as_soon_as_it_is_open() {
    let watch = watch(&config());
    let mut wire = watch.open("/close-at-open");
    assert_eq!(wire.expect_close(4005), "not today");
    wire.close_answered(4005);
    assert_eq!(watch.expect_closed().0, 4005);
}

#[test]
fn a_code_that_may_not_be_sent_is_not() {
    let watch = watch(&config());
    let mut wire = watch.open("/a");
    wire.text("close 1006 bye");
    wire.expect_close(1011);
}

#[test]
fn a_text_only_connection_refuses_binary() {
    let watch = watch(&config());
    let mut wire = watch.open("/text-only");
    wire.text("echo text is fine");
    wire.expect_text("text is fine");
    wire.send(frame(BINARY, b"binary is not"));
    wire.expect_close(1003);
    wire.expect_end();
    assert_eq!(watch.expect_closed().0, 1003);
    let mut wire = watch.open("/both");
    wire.send(frame(BINARY, b"fine"));
    assert_eq!(wire.frame().opcode, BINARY);
}

#[test]
fn control_frames_are_answered_and_observed() {
    let watch = watch(&config());
    let mut wire = watch.open("/a");
    watch.expect(&Seen::Open("/a".to_owned()));
    wire.send(frame(PING, b"p"));
    let pong = wire.frame();
    assert_eq!((pong.opcode, &pong.payload[..]), (PONG, &b"p"[..]));
    watch.expect(&Seen::Ping(b"p".to_vec()));
    wire.text("ping mine");
    watch.expect(&Seen::Message("ping mine".to_owned()));
    let ping = wire.frame();
    assert_eq!((ping.opcode, &ping.payload[..]), (PING, &b"mine"[..]));
    wire.send(frame(PONG, b"mine"));
    watch.expect(&Seen::Pong(b"mine".to_vec()));
    wire.send(close(3001, "why"));
    watch.expect(&Seen::PeerClose(3001, "why".to_owned()));
    watch.expect(&Seen::Close(3001, "why".to_owned()));
}

#[test]
fn a_deadline_comes_in_time_and_once() {
    let watch = watch(&config());
    let mut wire = watch.open("/a");
    let began = Instant::now();
    wire.text("deadline 300");
    wire.expect_text("deadline");
    assert!(began.elapsed() >= ms(300), "{:?}", began.elapsed());
    wire.expect_silence(ms(500));
    // A later one replaces the earlier.
    let began = Instant::now();
    wire.text("deadline 100");
    wire.text("deadline 700");
    wire.expect_text("deadline");
    assert!(began.elapsed() >= ms(700), "{:?}", began.elapsed());
    wire.expect_silence(ms(300));
}

#[test]
fn a_suspended_connection_is_not_read_and_loses_nothing() {
    let watch = watch(&config());
    let mut wire = watch.open("/a");
    watch.expect(&Seen::Open("/a".to_owned()));
    let pause = frame(TEXT, b"pause 600");
    wire.send([pause, frame(TEXT, b"echo 1"), frame(TEXT, b"echo 2")].concat());
    watch.expect(&Seen::Message("pause 600".to_owned()));
    for number in 3..20 {
        // Each segment is an event of its own; none may reach the application.
        wire.text(&format!("echo {number}"));
        watch.expect_silence(ms(10));
    }
    watch.expect(&Seen::Deadline);
    wire.expect_text("deadline");
    for number in 1..20 {
        watch.expect(&Seen::Message(format!("echo {number}")));
        wire.expect_text(&number.to_string());
    }
}

/// What waits because the application does not want to see it is not the peer's fault.
#[test]
fn a_suspended_peer_is_not_taken_for_dead() {
    let watch = watch(&tidemill::Config {
        ping_interval: Some(ms(200)),
        pong_timeout: ms(200),
        ..config()
    });
    let mut wire = watch.open("/a");
    wire.text("pause 1500");
    loop {
        let frame_seen = wire.frame();
        if frame_seen.opcode != PING {
            assert_eq!(frame_seen.payload, b"deadline");
            break;
        }
        wire.send(frame(PONG, &frame_seen.payload));
    }
}

#[test]
fn a_suspended_connection_ends_with_the_server_in_order() {
    let watch = watch(&tidemill::Config {
        close_timeout: ms(2000),
        ..config()
    });
    let mut wire = watch.open("/a");
    wire.text("suspend");
    watch.expect(&Seen::Open("/a".to_owned()));
    watch.expect(&Seen::Message("suspend".to_owned()));
    watch.site.server().shutdown();
    wire.expect_close(1001);
    wire.send(close(1001, ""));
    wire.expect_end();
    watch.expect(&Seen::PeerClose(1001, String::new()));
    watch.expect(&Seen::Close(1001, String::new()));
}

#[test]
fn a_route_of_plain_http_sees_its_body() {
    let watch = watch(&config());
    let mut wire = Wire::connect(watch.site.address);
    wire.send("POST /items?all HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(wire.answer().body, "POST /items all hello");
    wire.send(get("/again"));
    assert_eq!(wire.answer().body, "GET /again - ");
}

#[test]
fn every_open_has_one_close_however_it_ends() {
    let watch = watch(&tidemill::Config {
        reactors: Some(2),
        ping_interval: Some(ms(200)),
        pong_timeout: ms(200),
        ..config()
    });
    let mut kept = Vec::new();
    for number in 0..120 {
        let mut wire = watch.open(if number % 12 == 11 {
            "/panic-at-open"
        } else {
            "/a"
        });
        match number % 12 {
            0 => wire.close(1000),
            1 => wire.reset(),
            2 => drop(wire),
            3 => wire.send(frame(TEXT, b"\xff")),
            4 => wire.text("fail"),
            5 => wire.text("panic"),
            6 => wire.text("close 4000 x"),
            7 => wire.finish(),
            8 => wire.send([close(1000, ""), frame(TEXT, b"more")].concat()),
            9 => wire.send([frame(TEXT, b"flood 3000000"), close(1000, "")].concat()),
            _ => kept.push(wire),
        }
    }
    watch.site.expect_metric("connections_total", 120);
    let mut counts: HashMap<_, (usize, usize)> = HashMap::new();
    for (id, seen) in watch.until_stopped() {
        match seen {
            Seen::Open(_) => counts.entry(id).or_default().0 += 1,
            Seen::Close(..) => counts.entry(id).or_default().1 += 1,
            _ => {}
        }
    }
    assert_eq!(counts.len(), 120);
    assert!(counts.values().all(|count| *count == (1, 1)), "{counts:?}");
}
