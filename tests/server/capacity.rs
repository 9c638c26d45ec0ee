//! At the connection cap: who is inside stays undisturbed, who is outside is told to come back.

use tidemill::Config;

use crate::{
    probe::{Seen, watch},
    site::{Site, config, eventually},
    wire::{TEXT, Wire, frame, get, upgrade},
};

fn small() -> Site {
    Site::router(Config {
        connections_max: Some(3),
        ..config()
    })
}

const REFUSED: &str = r#"handshakes_refused_total{status="503",reason="connection_cap"}"#;

#[test]
fn one_more_than_the_cap_is_told_to_come_back_and_gets_in_when_somebody_leaves() {
    let site = small();
    let mut inside: Vec<Wire> = (0..3).map(|_| Wire::open(site.address, "/echo")).collect();
    for turned_away in 1..=5 {
        let mut wire = Wire::connect(site.address);
        wire.send(upgrade("/echo", ""));
        let answer = wire.answer();
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(
            answer
                .header("retry-after")
                .unwrap()
                .parse::<u32>()
                .unwrap()
                > 0
        );
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(answer.body.starts_with(r#"{"error":""#), "{answer:?}");
        wire.expect_end();
        site.expect_metric(REFUSED, turned_away);
    }
    for wire in &mut inside {
        wire.text("still here");
        wire.expect_text("still here");
    }
    inside.pop().unwrap().close(1000);
    site.expect_metric(r#"reactor_connections{reactor="0"}"#, 2);
    let mut wire = Wire::open(site.address, "/echo");
    wire.text("in at last");
    wire.expect_text("in at last");
}

#[test]
fn a_full_server_is_healthy_but_not_ready() {
    let site = small();
    let inside: Vec<Wire> = (0..3).map(|_| Wire::open(site.address, "/echo")).collect();
    for (path, status) in [("/health", 200), ("/ready", 503), ("/metrics", 200)] {
        let mut wire = Wire::connect(site.address);
        wire.send(get(path));
        let answer = wire.answer();
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header("connection"), Some("close"), "{path}");
    }
    drop(inside);
    eventually("the server is ready again", || {
        let mut wire = Wire::connect(site.address);
        wire.send(get("/ready"));
        wire.answer().status == 200
    });
}

#[test]
fn who_says_nothing_at_a_full_server_does_not_stay_long() {
    let site = small();
    let _inside: Vec<Wire> = (0..3).map(|_| Wire::open(site.address, "/echo")).collect();
    let mut silent = Wire::connect(site.address);
    // A whole handshake timeout is ten seconds; at a full server it is one.
    let began = std::time::Instant::now();
    silent.expect_gone();
    assert!(began.elapsed().as_secs() < 8, "{:?}", began.elapsed());
}

#[test]
fn many_more_than_the_cap_at_once_are_all_answered() {
    let site = small();
    let _inside: Vec<Wire> = (0..3).map(|_| Wire::open(site.address, "/echo")).collect();
    let mut crowd: Vec<Wire> = (0..100).map(|_| Wire::connect(site.address)).collect();
    for wire in &mut crowd {
        wire.send(upgrade("/echo", ""));
    }
    for mut wire in crowd {
        assert_eq!(wire.answer().status, 503);
    }
    site.expect_metric(REFUSED, 100);
}

#[test]
fn connections_come_and_go_without_a_trace() {
    let site = small();
    for round in 0..300 {
        let mut wire = Wire::open(site.address, "/echo");
        wire.text("x");
        wire.expect_text("x");
        match round % 3 {
            0 => wire.close(1000),
            1 => wire.reset(),
            _ => drop(wire),
        }
        site.expect_metric(r#"reactor_connections{reactor="0"}"#, 0);
    }
    site.expect_metric(r#"closed_total{code="1000"}"#, 100);
    site.expect_metric(r#"closed_total{code="1006"}"#, 200);
    site.expect_metric(r#"connections{dialect="echo"}"#, 0);
    site.expect_metric("buffer_bytes", 0);
}

/// Turns of more than a second, one after the other, are an overload; a short one ends it.
#[test]
fn an_overloaded_reactor_refuses_upgrades_until_it_has_caught_up() {
    let watch = watch(&config());
    let mut busy = watch.open("/a");
    let mut late = Wire::connect(watch.site.address);
    let blocks = frame(TEXT, b"block 300").repeat(5);
    let begun = Seen::Message("block 300".to_owned());
    busy.send(&blocks);
    watch.expect(&Seen::Open("/a".to_owned()));
    watch.expect(&begun);
    // Read in the next turn, which is as long.
    busy.send(&blocks);
    for _ in 0..5 {
        watch.expect(&begun);
    }
    late.send(upgrade("/b", ""));
    let answer = late.answer();
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    late.expect_end();
    watch.open("/c").close(1000);
}
