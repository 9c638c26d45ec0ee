//! Peers that read slowly or never: what waits for them is bounded, in order, and nobody else's
//! concern.

use std::time::Instant;

use tidemill::Config;

use crate::{
    probe::{Seen, Watch, watch},
    site::{Site, config, eventually, ms},
    wire::{BINARY, PING, PONG, TEXT, Wire, close, frame},
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The marks at their smallest: 128 KiB hard, 32 KiB soft.
fn tight() -> Config {
    Config {
        outbox_bytes_max: Some(64 * KIB),
        ping_interval: None,
        idle_timeout: None,
        ..config()
    }
}

fn buffered(site: &Site) -> usize {
    usize::try_from(site.metric("buffer_bytes")).unwrap()
}

#[test]
fn a_reader_that_never_reads_is_closed_at_the_hard_mark_and_others_are_undisturbed() {
    let watch = watch(&tight());
    let mut other = watch.open("/other");
    let mut deaf = Wire::connect_narrow(watch.site.address).upgraded("/deaf");
    // More in one go than kernel and outbox hold together.
    deaf.text("flood 16000000");
    assert_eq!(watch.expect_closed(), (1006, String::new()));
    watch.site.expect_metric("slow_consumers_total", 1);
    watch.site.expect_metric("buffer_bytes", 0);
    // A reset, so that the kernel forgets at once what it held for this peer.
    deaf.expect_reset();
    for round in 0..10 {
        other.text(&format!("echo {round}"));
        other.expect_text(&round.to_string());
    }
}

/// Sends as long as the server takes it; gives what was sent in whole.
fn stuff(site: &Site, wire: &mut Wire, piece: &[u8]) -> Vec<u8> {
    let mut sent = Vec::new();
    let mut still = 0;
    let mut before = site.metric("bytes_received_total");
    while still < 20 && sent.len() < 64 * MIB {
        let count = wire.stuff(&piece[sent.len() % piece.len()..]);
        sent.extend_from_slice(&piece[sent.len() % piece.len()..][..count]);
        let now = site.metric("bytes_received_total");
        if count == 0 && now == before {
            still += 1;
            std::thread::park_timeout(ms(10));
        } else {
            still = 0;
        }
        before = now;
    }
    sent
}

#[test]
fn a_peer_that_pings_and_never_reads_costs_little_and_gets_its_last_pong() {
    let site = Site::router(tight());
    let mut wire = Wire::connect_narrow(site.address).upgraded("/echo");
    let piece = frame(PING, &[b'p'; 125]);
    // Pongs fill the kernel's buffer first; from then on they take each other's place.
    let mut pings = 0;
    while pings < 200_000 && buffered(&site) == 0 {
        wire.send(piece.repeat(100));
        pings += 100;
    }
    assert!(buffered(&site) > 0, "the kernel took {pings} pongs");
    for _ in 0..1000 {
        wire.send(piece.repeat(10));
        assert!(buffered(&site) <= 128 * KIB, "{}", buffered(&site));
    }
    wire.send(frame(PING, b"the last one"));
    loop {
        let pong = wire.frame();
        assert_eq!(pong.opcode, PONG);
        if pong.payload == b"the last one" {
            break;
        }
        assert_eq!(pong.payload.len(), 125);
    }
    site.expect_metric("buffer_bytes", 0);
    site.expect_metric("slow_consumers_total", 0);
    wire.text("friends again");
    wire.expect_text("friends again");
}

#[test]
fn reading_pauses_for_a_peer_that_does_not_read_and_nothing_is_lost() {
    for size in [100, 5000, 60_000] {
        let site = Site::router(tight());
        let mut wire = Wire::connect_narrow(site.address).upgraded("/echo");
        let piece = frame(BINARY, &vec![b'm'; size]);
        let sent = stuff(&site, &mut wire, &piece);
        assert!(sent.len() < 64 * MIB, "the server never stopped reading");
        assert!(buffered(&site) > 0, "after {} bytes of {size}", sent.len());
        // The outbox, what was read and not looked at, and a message cut at the end.
        assert!(buffered(&site) <= 512 * KIB, "{}", buffered(&site));
        let whole = sent.len().div_ceil(piece.len());
        let rest = whole * piece.len() - sent.len();
        let mut missing = &piece[piece.len() - rest..];
        for _ in 0..whole {
            let count = wire.stuff(missing);
            missing = &missing[count..];
            let frame = wire.frame();
            assert!(frame.opcode == BINARY && frame.payload.len() == size);
            assert!(frame.payload.iter().all(|byte| *byte == b'm'));
        }
        assert!(missing.is_empty());
        wire.text("and on it goes");
        wire.expect_text("and on it goes");
        site.expect_metric("buffer_bytes", 0);
        site.expect_metric("slow_consumers_total", 0);
        site.expect_metric("messages_received_total", whole as u64 + 1);
    }
}

#[test]
fn replies_stay_in_order_through_every_pause() {
    let site = Site::router(tight());
    let mut wire = Wire::connect_narrow(site.address).upgraded("/echo");
    let mut to_send = Vec::new();
    let texts: Vec<String> = (0..3000)
        .map(|number| format!("{number} {}", "x".repeat(number * 7 % 5000)))
        .collect();
    for text in &texts {
        to_send.extend(frame(TEXT, text.as_bytes()));
    }
    let mut at = 0;
    for text in &texts {
        at += wire.stuff(&to_send[at..]);
        wire.expect_text(text);
    }
    assert_eq!(at, to_send.len());
}

#[test]
fn segments_that_come_while_reading_is_paused_change_nothing() {
    let site = Site::router(tight());
    let mut wire = Wire::connect_narrow(site.address).upgraded("/echo");
    let piece = frame(BINARY, &[b'm'; 60_000]);
    let mut messages = 0;
    // A client that sends whole messages until they are not read any more, then on in small
    // pieces, each an event of its own at the server.
    while site.metric("messages_received_total") == messages {
        wire.send(&piece);
        messages += 1;
        let received = Instant::now();
        while site.metric("messages_received_total") < messages && received.elapsed() < ms(300) {
            std::thread::park_timeout(ms(1));
        }
    }
    for part in frame(BINARY, &[b'n'; 60_000]).chunks(300) {
        wire.send(part);
    }
    messages += 1;
    for number in 1..=messages {
        assert_eq!(wire.frame().payload.len(), 60_000, "{number} of {messages}");
    }
    site.expect_metric("slow_consumers_total", 0);
}

#[test]
fn a_maximal_message_always_fits_behind_what_waits() {
    // The smallest outbox allowed for messages of this size: 64 KiB are left beside one.
    let config = Config {
        message_bytes_max: MIB,
        outbox_bytes_max: Some(MIB),
        ..tight()
    };
    // What is buffered is told at the end of a turn, so by one message late; the soft mark, at which
    // nothing more would be received, is further away than that.
    for waiting in [1, 30 * KIB, 57_000] {
        let site = Site::router(config.clone());
        let mut wire = Wire::connect_narrow(site.address).upgraded("/echo");
        let small = frame(BINARY, &[1; 4000]);
        let mut messages = 0;
        while buffered(&site) < waiting {
            wire.send(&small);
            messages += 1;
            site.expect_metric("messages_received_total", messages);
        }
        wire.send(frame(BINARY, &vec![2; MIB]));
        site.expect_metric("messages_received_total", messages + 1);
        assert_eq!(site.metric("slow_consumers_total"), 0, "behind {waiting}");
        for _ in 0..messages {
            assert_eq!(wire.frame().payload, [1; 4000]);
        }
        assert_eq!(wire.frame().payload.len(), MIB);
    }
}

#[test]
fn a_message_of_many_megabytes_comes_back_to_a_slow_reader() {
    let size = 20 * MIB;
    let site = Site::router(Config {
        message_bytes_max: size,
        ..config()
    });
    let mut wire = Wire::connect_narrow(site.address).upgraded("/echo");
    wire.send(frame(BINARY, &vec![6; size]));
    site.expect_metric("messages_received_total", 1);
    let echoed = wire.frame();
    assert!(echoed.payload.len() == size && echoed.payload.iter().all(|byte| *byte == 6));
    site.expect_metric("buffer_bytes", 0);
}

/// Floods a peer just over the soft mark, which pauses it.
fn paused(watch: &Watch) -> Wire {
    let mut wire = Wire::connect_narrow(watch.site.address).upgraded("/a");
    let mut floods = 0;
    while buffered(&watch.site) < 32 * KIB {
        wire.text("flood 8000");
        floods += 1;
        watch.site.expect_metric("messages_received_total", floods);
    }
    wire
}

#[test]
fn the_application_hears_when_its_peer_has_caught_up() {
    let watch = watch(&tight());
    let mut wire = paused(&watch);
    wire.text("buffered");
    while !matches!(wire.frame().opcode, TEXT) {}
    let drains = |watch: &Watch| loop {
        match watch.next() {
            Seen::Drain => return,
            Seen::Open(_) | Seen::Message(_) => {}
            other => panic!("{other:?}"),
        }
    };
    drains(&watch);
    // Once for one pause.
    watch.expect(&Seen::Message("buffered".to_owned()));
    watch.expect_silence(ms(50));
}

#[test]
fn a_paused_peer_that_reads_again_slowly_is_not_taken_for_dead() {
    let watch = watch(&Config {
        ping_interval: Some(ms(300)),
        pong_timeout: ms(300),
        ..tight()
    });
    let mut wire = paused(&watch);
    let began = Instant::now();
    let mut frames = 0;
    while began.elapsed() < ms(1500) {
        // Reads one frame now and then, and answers each ping that it comes to.
        std::thread::park_timeout(ms(50));
        let frame_seen = wire.frame();
        frames += 1;
        if frame_seen.opcode == PING {
            wire.send(frame(PONG, &frame_seen.payload));
        } else {
            wire.text("flood 8000");
        }
    }
    assert!(frames > 10, "{frames}");
    assert_eq!(watch.site.metric(r#"timeouts_total{kind="pong"}"#), 0);
}

#[test]
fn the_buffer_budget_closes_the_largest_and_lets_the_small_live() {
    let watch = watch(&Config {
        message_bytes_max: 256 * KIB,
        buffer_bytes_max: Some(MIB),
        ping_interval: None,
        idle_timeout: None,
        ..config()
    });
    let mut small = Wire::connect_narrow(watch.site.address).upgraded("/small");
    let mut large: Vec<Wire> = (0..8)
        .map(|_| Wire::connect_narrow(watch.site.address).upgraded("/large"))
        .collect();
    for wire in &mut large {
        wire.text("flood 900000");
    }
    eventually("somebody is closed", || {
        watch.site.metric("slow_consumers_total") > 0
    });
    eventually("the budget holds", || buffered(&watch.site) <= MIB);
    small.text("echo alive");
    small.expect_text("alive");
}

#[test]
fn upgrades_are_refused_while_buffers_are_nearly_full() {
    let watch = watch(&Config {
        message_bytes_max: 256 * KIB,
        outbox_bytes_max: Some(MIB),
        buffer_bytes_max: Some(MIB),
        ping_interval: None,
        idle_timeout: None,
        ..config()
    });
    // An incomplete message holds what came of it.
    let mut holders = Vec::new();
    let answer = loop {
        let mut wire = Wire::connect(watch.site.address);
        wire.send(crate::wire::upgrade("/a", ""));
        let answer = wire.answer();
        if answer.status != 101 {
            break answer;
        }
        wire.send(&frame(BINARY, &[0; 200 * KIB])[..150 * KIB]);
        let want = 150 * KIB * (holders.len() + 1);
        eventually("the piece is held", || buffered(&watch.site) >= want);
        holders.push(wire);
        assert!(holders.len() < 7, "nobody is refused");
    };
    assert_eq!(answer.status, 503);
    assert!(buffered(&watch.site) > 800 * KIB && holders.len() > 2);
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    holders.clear();
    watch.site.expect_metric("buffer_bytes", 0);
    watch.open("/a").close(1000);
}

/// A peer that has replies waiting, not enough to be paused.
fn backlogged(site: &Site) -> (Wire, u64) {
    let mut wire = Wire::connect_narrow(site.address).upgraded("/echo");
    let mut messages = 0;
    while buffered(site) == 0 {
        wire.send(frame(BINARY, &[4; 4000]));
        messages += 1;
        site.expect_metric("messages_received_total", messages);
    }
    (wire, messages)
}

#[test]
fn a_peer_that_closes_and_does_not_read_is_left_at_the_close_timeout() {
    let site = Site::router(Config {
        close_timeout: ms(500),
        tcp_user_timeout: None,
        ..tight()
    });
    let (mut wire, _) = backlogged(&site);
    wire.send(close(1000, ""));
    site.expect_metric(r#"closed_total{code="1000"}"#, 1);
    let closed = Instant::now();
    site.expect_metric(r#"reactor_connections{reactor="0"}"#, 0);
    assert!(closed.elapsed() >= ms(400), "{:?}", closed.elapsed());
    site.expect_metric(r#"timeouts_total{kind="close"}"#, 1);
    site.expect_metric("buffer_bytes", 0);
    wire.expect_reset();
}

#[test]
fn a_peer_that_closes_with_replies_waiting_has_time_to_read_them() {
    let site = Site::router(Config {
        ping_interval: Some(ms(400)),
        pong_timeout: ms(20_000),
        close_timeout: ms(3000),
        ..tight()
    });
    let (mut wire, messages) = backlogged(&site);
    // Long enough for the last ping to be further back than any timer of the close.
    std::thread::park_timeout(ms(1200));
    wire.send(close(1000, ""));
    site.expect_metric(r#"closed_total{code="1000"}"#, 1);
    std::thread::park_timeout(ms(1500));
    let mut echoed = 0;
    loop {
        let frame = wire.frame();
        match frame.opcode {
            BINARY => echoed += 1,
            PING => {}
            _ => break,
        }
    }
    assert_eq!(echoed, messages);
    wire.expect_end();
}
