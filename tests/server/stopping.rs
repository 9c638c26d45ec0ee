//! The shutdown: everyone is told, in turn and with time to answer; nobody holds it up.

use std::time::Duration;

use tidemill::{Config, config::Accept};

use crate::{
    site::{Site, config, ms},
    wire::{Wire, close, get, upgrade},
};

const GOODBYE: &str = "server shutting down";

#[test]
fn with_nobody_there_a_shutdown_is_over_at_once() {
    let site = Site::router(Config {
        drain_time: Duration::from_secs(60),
        close_timeout: Duration::from_secs(60),
        reactors: Some(2),
        ..config()
    });
    let took = site.stop().took();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn everyone_is_told_and_the_last_answer_ends_the_server() {
    for accept in [Accept::Reuseport, Accept::Handoff] {
        let site = Site::router(Config {
            accept,
            reactors: Some(2),
            drain_time: Duration::from_secs(60),
            close_timeout: Duration::from_secs(60),
            ..config()
        });
        let mut wires: Vec<Wire> = (0..50).map(|_| Wire::open(site.address, "/echo")).collect();
        let address = site.address;
        let stopping = site.stop();
        for wire in &mut wires {
            assert_eq!(wire.expect_close(1001), GOODBYE);
        }
        assert!(std::net::TcpStream::connect(address).is_err());
        for mut wire in wires {
            wire.send(close(1001, ""));
            wire.expect_end();
        }
        let took = stopping.took();
        assert!(took < Duration::from_secs(20), "{took:?}");
    }
}

/// Some left before, so the slab has holes; most leave as soon as they are told.
#[test]
fn a_paced_shutdown_tells_everyone_despite_those_who_left() {
    let site = Site::router(Config {
        drain_time: ms(800),
        close_timeout: Duration::from_secs(20),
        ..config()
    });
    let mut wires: Vec<Option<Wire>> = (0..480)
        .map(|_| Some(Wire::open(site.address, "/echo")))
        .collect();
    for number in [150, 151, 290, 300, 310] {
        wires[number].take().unwrap().close(1000);
    }
    site.expect_metric(r#"reactor_connections{reactor="0"}"#, 475);
    let stopping = site.stop();
    for mut wire in wires.into_iter().flatten() {
        assert_eq!(wire.expect_close(1001), GOODBYE);
        wire.send(close(1001, ""));
        wire.expect_end();
    }
    // A hundred every tenth of a second: four full tenths before the last ones are told.
    let took = stopping.took();
    assert!(took >= ms(300), "not paced: {took:?}");
}

#[test]
fn those_who_do_not_answer_are_left_behind_in_time() {
    let site = Site::router(Config {
        drain_time: ms(200),
        close_timeout: ms(700),
        ..config()
    });
    let mut silent = Wire::open(site.address, "/echo");
    let mut half_open = Wire::connect(site.address);
    half_open.send(&upgrade("/echo", "")[..30]);
    let mut quiet = Wire::connect(site.address);
    let mut kept_alive = Wire::connect(site.address);
    kept_alive.send(get("/health"));
    assert_eq!(kept_alive.answer().status, 200);
    site.expect_metric(r#"reactor_connections{reactor="0"}"#, 4);
    let stopping = site.stop();
    assert_eq!(silent.expect_close(1001), GOODBYE);
    quiet.expect_gone();
    kept_alive.expect_gone();
    let took = stopping.took();
    assert!(took >= ms(600), "the silent one had no time: {took:?}");
    assert!(took < Duration::from_secs(6), "{took:?}");
    silent.expect_gone();
    half_open.expect_gone();
}

#[test]
fn a_request_under_way_is_answered_and_an_upgrade_refused() {
    let site = Site::router(Config {
        drain_time: Duration::from_secs(10),
        close_timeout: Duration::from_secs(10),
        ..config()
    });
    let mut told = Wire::open(site.address, "/echo");
    let (mut ready, mut late) = (Wire::connect(site.address), Wire::connect(site.address));
    let (ready_request, late_request) = (get("/ready"), upgrade("/echo", ""));
    ready.send(&ready_request[..20]);
    late.send(&late_request[..50]);
    site.expect_metric(r#"reactor_connections{reactor="0"}"#, 3);
    let bytes = (ready_request[..20].len() + late_request[..50].len()) as u64;
    let handshake = upgrade("/echo", "").len() as u64;
    site.expect_metric("bytes_received_total", bytes + handshake);
    let stopping = site.stop();
    told.expect_close(1001);
    ready.send(&ready_request[20..]);
    let answer = ready.answer();
    assert_eq!(
        (answer.status, answer.header("connection")),
        (503, Some("close"))
    );
    ready.expect_end();
    late.send(&late_request[50..]);
    let answer = late.answer();
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    late.expect_end();
    told.send(close(1001, ""));
    told.expect_end();
    let took = stopping.took();
    assert!(took < Duration::from_secs(8), "{took:?}");
}

#[test]
fn a_peer_that_sends_without_end_does_not_hold_the_shutdown() {
    let site = Site::router(Config {
        drain_time: ms(100),
        close_timeout: ms(500),
        ..config()
    });
    let mut wire = Wire::open(site.address, "/echo");
    let stopping = site.stop();
    wire.expect_close(1001);
    let message = crate::wire::frame(crate::wire::BINARY, &[0; 10_000]);
    let began = std::time::Instant::now();
    while wire.try_send(&message).is_ok() {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "it goes on and on"
        );
    }
    assert!(stopping.took() < Duration::from_secs(8));
}
