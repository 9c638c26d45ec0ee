//! Peers that fall silent, slowly or at once: each time limit, from below and from above.

use std::time::{Duration, Instant};

use tidemill::Config;

use crate::{
    probe::{Seen, watch},
    site::{Site, config, ms},
    wire::{PATIENCE, PING, PONG, TEXT, Wire, close, frame, raw_frame, upgrade},
};

#[test]
fn a_quiet_peer_is_pinged_and_its_pong_keeps_it() {
    let site = Site::router(Config {
        ping_interval: Some(ms(300)),
        pong_timeout: ms(300),
        ..config()
    });
    let mut wire = Wire::open(site.address, "/echo");
    let mut last: Option<Instant> = None;
    for _ in 0..5 {
        let ping = wire.frame();
        assert_eq!((ping.opcode, &ping.payload[..]), (PING, &b"heartbeat"[..]));
        let now = Instant::now();
        if let Some(last) = last {
            assert!(now - last >= ms(250), "{:?}", now - last);
        }
        last = Some(now);
        wire.send(frame(PONG, b"heartbeat"));
    }
    wire.text("alive");
    wire.expect_text("alive");
}

#[test]
fn a_peer_that_does_not_answer_a_ping_is_gone() {
    let watch = watch(&Config {
        ping_interval: Some(ms(200)),
        pong_timeout: ms(400),
        ..config()
    });
    let mut wire = watch.open("/a");
    assert_eq!(wire.frame().opcode, PING);
    let pinged = Instant::now();
    wire.expect_gone();
    assert!(pinged.elapsed() >= ms(350), "{:?}", pinged.elapsed());
    assert_eq!(watch.expect_closed(), (1006, String::new()));
    watch
        .site
        .expect_metric(r#"timeouts_total{kind="pong"}"#, 1);
    watch.site.expect_metric(r#"closed_total{code="1006"}"#, 1);
}

#[test]
fn any_traffic_counts_as_life() {
    let watch = watch(&Config {
        ping_interval: Some(ms(200)),
        pong_timeout: ms(300),
        ..config()
    });
    let mut wire = watch.open("/a");
    let until = Instant::now() + ms(2500);
    let mut pings = 0;
    // Messages answer the pings, pongs never do.
    while Instant::now() < until {
        if wire.frame().opcode == PING {
            pings += 1;
            wire.text("not a pong");
        }
    }
    assert!(pings >= 3, "{pings}");
    wire.text("echo still here");
    while wire.frame().opcode == PING {}
}

#[test]
fn a_piece_of_a_message_counts_as_life() {
    let site = Site::router(Config {
        ping_interval: Some(ms(200)),
        pong_timeout: ms(500),
        ..config()
    });
    let mut wire = Wire::open(site.address, "/echo");
    let bytes = frame(TEXT, b"slowly");
    for piece in bytes.chunks(4) {
        while wire.frame().opcode != PING {}
        wire.send(piece);
    }
    while wire.frame().opcode == PING {}
    site.expect_metric("messages_received_total", 1);
}

/// Opened together, pinged apart: otherwise a million connections are pinged at once.
#[test]
fn the_first_pings_of_many_are_spread_over_the_interval() {
    let interval = ms(2000);
    let site = Site::router(Config {
        ping_interval: Some(interval),
        ..config()
    });
    let mut wires: Vec<Wire> = (0..200)
        .map(|_| Wire::open(site.address, "/echo"))
        .collect();
    let opened = Instant::now();
    let mut quarters = [0; 4];
    let threads: Vec<_> = wires
        .drain(..)
        .map(|mut wire| {
            std::thread::spawn(move || {
                assert_eq!(wire.frame().opcode, PING);
                opened.elapsed()
            })
        })
        .collect();
    for thread in threads {
        let after = thread.join().unwrap();
        assert!(after < interval + PATIENCE / 4, "{after:?}");
        let quarter = after.as_millis() * 4 / interval.as_millis();
        quarters[quarter.min(3) as usize] += 1;
    }
    assert!(quarters.iter().all(|count| *count >= 20), "{quarters:?}");
}

#[test]
fn a_message_that_never_ends_is_given_up() {
    let watch = watch(&Config {
        message_timeout: ms(400),
        ping_interval: None,
        idle_timeout: Some(Duration::from_secs(60)),
        ..config()
    });
    let whole = frame(TEXT, b"whole");
    for beginning in [
        &whole[..1],
        &whole[..8],
        &raw_frame(TEXT, b"a fragment")[..],
    ] {
        let mut wire = watch.open("/a");
        let began = Instant::now();
        wire.send(beginning);
        assert_eq!(wire.expect_close(1008), "message timeout");
        assert!(began.elapsed() >= ms(400), "{:?}", began.elapsed());
        wire.expect_end();
        assert_eq!(watch.expect_closed().0, 1008);
    }
    watch
        .site
        .expect_metric(r#"timeouts_total{kind="message"}"#, 3);
}

#[test]
fn a_byte_now_and_then_does_not_extend_a_message() {
    let site = Site::router(Config {
        message_timeout: ms(500),
        ..config()
    });
    let mut wire = Wire::open(site.address, "/echo");
    // The whole message takes four seconds; at its end it would be echoed.
    wire.trickle(&frame(TEXT, &[b'x'; 200]));
    wire.expect_close(1008);
    site.expect_metric("messages_received_total", 0);
}

#[test]
fn messages_one_after_the_other_each_have_their_own_time() {
    let site = Site::router(Config {
        message_timeout: ms(500),
        ..config()
    });
    let mut wire = Wire::open(site.address, "/echo");
    let text = frame(TEXT, b"cut at one place each time");
    let began = Instant::now();
    wire.send(&text[..9]);
    while began.elapsed() < ms(1500) {
        std::thread::park_timeout(ms(50));
        // The end of one message and the beginning of the next: never idle between two.
        wire.send([&text[9..], &text[..9]].concat());
        wire.expect_text("cut at one place each time");
    }
}

#[test]
fn a_silent_peer_is_closed_at_the_idle_timeout() {
    let watch = watch(&Config {
        ping_interval: None,
        idle_timeout: Some(ms(400)),
        ..config()
    });
    let mut wire = watch.open("/a");
    for _ in 0..4 {
        std::thread::park_timeout(ms(200));
        wire.text("echo x");
        wire.expect_text("x");
    }
    let last = Instant::now();
    assert_eq!(wire.expect_close(1001), "idle timeout");
    assert!(last.elapsed() >= ms(300), "{:?}", last.elapsed());
    wire.expect_end();
    assert_eq!(watch.expect_closed(), (1001, "idle timeout".to_owned()));
    watch
        .site
        .expect_metric(r#"timeouts_total{kind="idle"}"#, 1);
}

#[test]
fn a_close_that_is_not_answered_ends_at_the_close_timeout() {
    let watch = watch(&Config {
        close_timeout: ms(500),
        ..config()
    });
    let mut wire = watch.open("/a");
    wire.text("close 4001 enough");
    assert_eq!(wire.expect_close(4001), "enough");
    let began = Instant::now();
    // Messages after the Close are read and dropped; they do not hold the connection.
    wire.text("echo too late");
    wire.expect_gone();
    assert!(began.elapsed() >= ms(450), "{:?}", began.elapsed());
    assert_eq!(watch.expect_closed(), (1006, String::new()));
    watch
        .site
        .expect_metric(r#"timeouts_total{kind="close"}"#, 1);
}

#[test]
fn a_pong_that_crosses_the_close_meets_no_reset() {
    let site = Site::router(Config {
        ping_interval: Some(ms(200)),
        ..config()
    });
    let mut wire = Wire::open(site.address, "/echo");
    assert_eq!(wire.frame().opcode, PING);
    wire.send(close(1000, ""));
    wire.expect_close(1000);
    // The first finds the connection closed or lingering; a reset would fail the second.
    wire.send(frame(PONG, b"heartbeat"));
    wire.try_send(frame(PONG, b"heartbeat")).expect("a reset");
    wire.expect_end();
}

#[test]
fn a_close_that_is_answered_carries_the_peer_s_code() {
    let watch = watch(&config());
    let mut wire = watch.open("/a");
    wire.text("close 4001 enough");
    assert_eq!(wire.expect_close(4001), "enough");
    wire.send(close(4001, "agreed"));
    wire.expect_end();
    assert_eq!(watch.expect_closed(), (4001, "agreed".to_owned()));
}

#[test]
fn a_peer_that_vanishes_is_1006_for_the_application_once() {
    let watch = watch(&config());
    for way in 0..4 {
        let mut wire = watch.open("/a");
        wire.text("hello");
        watch.expect(&Seen::Open("/a".to_owned()));
        watch.expect(&Seen::Message("hello".to_owned()));
        match way {
            0 => drop(wire),
            1 => wire.reset(),
            2 => {
                wire.send(&frame(TEXT, b"cut")[..4]);
                wire.finish();
                wire.expect_end();
            }
            _ => {
                wire.finish();
                wire.expect_end();
            }
        }
        watch.expect(&Seen::Close(1006, String::new()));
    }
    watch.site.expect_metric(r#"closed_total{code="1006"}"#, 4);
    watch.expect_silence(ms(50));
}

#[test]
fn a_peer_that_vanishes_in_its_handshake_is_nobody_s_business() {
    let watch = watch(&config());
    for way in 0..3 {
        let mut wire = Wire::connect(watch.site.address);
        wire.send(&upgrade("/a", "")[..40]);
        match way {
            0 => drop(wire),
            1 => wire.reset(),
            _ => {
                wire.finish();
                wire.expect_end();
            }
        }
    }
    watch
        .site
        .expect_metric(r#"reactor_connections{reactor="0"}"#, 0);
    watch.expect_silence(ms(50));
}
