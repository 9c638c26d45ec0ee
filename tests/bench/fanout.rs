//! One publisher and its subscribers, on the chat example: a relay over several reactors.

use std::{net::SocketAddr, time::Duration};

use tidemill::{Config, server::Server};

use crate::{
    example::Chat,
    raw::Raw,
    tool::{Tool, bench, report},
};

/// A chat of this process, shut down when the test ends.
struct Relay(Server);

impl Relay {
    fn start() -> Self {
        let config = Config {
            listen: Some(vec![SocketAddr::from(([127, 0, 0, 1], 0))]),
            reactors: Some(3),
            connections_max: Some(1000),
            drain_time: Duration::ZERO,
            close_timeout: Duration::from_millis(100),
            ..Config::default()
        };
        Self(Server::start(&config, |_| Chat).unwrap())
    }

    fn room(&self) -> String {
        format!("ws://{}/room/tea", self.0.addresses()[0])
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.0.shutdown();
    }
}

#[test]
fn every_subscriber_gets_every_publication() {
    let relay = Relay::start();
    let flags = [
        "--connections",
        "40",
        "--rate",
        "100",
        "--duration",
        "500ms",
    ];
    let report = report(&[&["fanout", &relay.room()], &flags[..]].concat());
    report.expect_clean();
    assert_eq!(report.phases(), ["ramp", "publish", "close"]);
    // The publisher is one more.
    assert_eq!(report.number("/connections/opened"), 41);
    let published = report.number("/messages/published");
    assert!((48..=50).contains(&published), "{published}");
    assert_eq!(report.number("/messages/sent"), 40 * published);
    assert_eq!(report.number("/messages/received"), 40 * published);
    assert_eq!(report.number("/latency/corrected/count"), 40 * published);
    // The chat says to the publisher as well what it said.
    assert_eq!(report.number("/messages/other"), published);
    assert!(report.float("/latency/corrected/p50") < 1e6);
}

#[test]
fn publications_that_nobody_relays_are_lost() {
    let server = Raw::welcome(|mut guest| guest.ignore());
    let flags = ["--connections", "3", "--rate", "20", "--duration", "200ms"];
    let flags = [&flags[..], &["--timeout", "300ms"]].concat();
    let report = report(&[&["fanout", &server.url()], &flags[..]].concat());
    assert_eq!(report.number("/exit"), 1);
    let sent = report.number("/messages/sent");
    assert!(sent > 0 && sent.is_multiple_of(3), "{sent}");
    assert_eq!(report.number("/messages/lost"), sent);
}

#[test]
fn an_interrupted_publishing_is_reported() {
    let relay = Relay::start();
    let flags = ["--connections", "5", "--rate", "200", "--duration", "60s"];
    let mut tool = Tool::run(&[&["fanout", &relay.room()], &flags[..]].concat());
    tool.expect_phase("ramp");
    tool.signal("INT");
    let report = tool.ended().report();
    assert_eq!(report.text("/outcome"), "interrupted");
    assert_eq!(report.number("/messages/lost"), 0);
}

#[test]
fn a_publication_too_small_for_its_times_is_refused() {
    let ended = Tool::start(bench(&["fanout", "ws://127.0.0.1:1/", "--size", "31"])).ended();
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.log[0].contains("--size"), "{ended:?}");
}
