//! One publisher and its subscribers, on the server's own `/raw`, and on relays that lose, double
//! and swap what is published.

use std::{net::SocketAddr, time::Duration};

use tidemill::{
    Accept, Config, Failure, Handler, Incoming, Message, Peer, Upgrade, Verdict, server::Server,
};

use crate::{
    program::{Program, tidemill},
    raw::Raw,
    report::Report,
    tool::{Tool, bench, report},
};

fn server() -> Program {
    Program::serve(&["--reactors", "3"])
}

fn channel(server: &Program) -> String {
    format!("ws://{}/raw/tea", server.address)
}

/// A run of so many subscribers with these flags.
fn fanout(url: &str, subscribers: &str, flags: &[&str]) -> Report {
    report(&[&["fanout", url, "--connections", subscribers], flags].concat())
}

#[test]
fn every_subscriber_gets_every_publication() {
    let server = server();
    let flags = ["--rate", "100", "--duration", "500ms"];
    let report = fanout(&channel(&server), "40", &flags);
    report.expect_clean();
    assert_eq!(report.phases(), ["ramp", "publish", "close"]);
    // The publisher is one more.
    assert_eq!(report.number("/connections/opened"), 41);
    let published = report.number("/messages/published");
    assert!((48..=50).contains(&published), "{published}");
    assert_eq!(report.number("/messages/sent"), 40 * published);
    assert_eq!(report.number("/messages/received"), 40 * published);
    assert_eq!(report.number("/latency/corrected/count"), 40 * published);
    // The others hear the publisher, and it does not hear itself.
    assert_eq!(report.number("/messages/other"), 0);
    assert!(report.float("/latency/corrected/p50") < 1e6);
}

#[test]
fn a_publisher_that_hears_itself_is_no_subscriber() {
    let server = server();
    let url = channel(&server) + "?notify_self=1";
    let report = fanout(&url, "5", &["--rate", "100", "--duration", "200ms"]);
    report.expect_clean();
    let published = report.number("/messages/published");
    assert!(published > 0);
    assert_eq!(report.number("/messages/received"), 5 * published);
    assert_eq!(report.number("/messages/other"), published);
}

#[test]
fn a_closed_loop_publishes_when_all_have_heard() {
    let server = server();
    for depth in ["1", "4", "16"] {
        let flags = ["--depth", depth, "--duration", "500ms", "--binary"];
        let report = fanout(&channel(&server), "20", &flags);
        report.expect_clean();
        let published = report.number("/messages/published");
        // More than the first ones: it has gone on when they had arrived.
        assert!(published > depth.parse().unwrap(), "{published}");
        assert_eq!(report.number("/messages/received"), 20 * published);
        assert_eq!(report.number("/options/depth").to_string(), depth);
    }
}

#[test]
fn who_may_not_publish_is_told_so() {
    let namespaces = r#"[{"name":"","allow_publish_for_anonymous":false}]"#;
    let mut command = tidemill(&["--listen", "127.0.0.1:0"]);
    command.env("TIDEMILL_NAMESPACES", namespaces);
    let server = Program::start(command);
    let flags = ["--rate", "20", "--duration", "200ms", "--timeout", "300ms"];
    let report = fanout(&channel(&server), "3", &flags);
    assert_eq!(report.number("/exit"), 1);
    assert_eq!(report.errors("1008 publishing to this channel"), 1);
    assert_eq!(
        report.number("/messages/lost"),
        report.number("/messages/sent")
    );
}

/// A relay that says the third publication twice, keeps the fifth to itself, and the seventh back
/// until it has said the eighth.
#[derive(Default)]
struct Careless {
    heard: u32,
    kept: Vec<u8>,
}

impl Careless {
    fn serve() -> (Server, String) {
        let config = Config {
            listen: Some(vec![SocketAddr::from(([127, 0, 0, 1], 0))]),
            reactors: Some(1),
            connections_max: Some(1000),
            drain_time: Duration::ZERO,
            close_timeout: Duration::from_millis(100),
            ..Config::default()
        };
        let server = Server::start(&config, |_| Self::default()).unwrap();
        let url = format!("ws://{}/", server.addresses()[0]);
        (server, url)
    }
}

impl Handler for Careless {
    type State = ();

    fn upgrade(&mut self, _: &Incoming<'_>, _: &Upgrade<'_>) -> Verdict<()> {
        Accept::new(()).into()
    }

    fn open(&mut self, peer: &mut Peer<'_>, _: &mut ()) -> Result<(), Failure> {
        Ok(peer.subscribe("all")?)
    }

    fn message(
        &mut self,
        peer: &mut Peer<'_>,
        _: &mut (),
        message: Message<'_>,
    ) -> Result<(), Failure> {
        self.heard += 1;
        match self.heard {
            3 => peer.publish("all", message)?,
            5 => return Ok(()),
            7 => {
                self.kept = message.as_bytes().to_vec();
                return Ok(());
            }
            _ => {}
        }
        peer.publish("all", message)?;
        if self.heard == 8 {
            peer.publish("all", Message::Binary(&self.kept))?;
        }
        Ok(())
    }
}

#[test]
fn what_is_lost_doubled_or_late_is_found() {
    let (server, url) = Careless::serve();
    let flags = ["--rate", "100", "--duration", "300ms", "--timeout", "300ms"];
    let report = fanout(&url, "4", &flags);
    server.shutdown();
    assert_eq!(report.number("/exit"), 1);
    let published = report.number("/messages/published");
    assert!(published >= 8, "{published}");
    // A copy that comes too late is as good as lost.
    assert_eq!(report.number("/messages/lost"), 4 * 2);
    assert_eq!(report.errors("twice, or after a later one"), 4 * 2);
}

#[test]
fn a_closed_loop_waits_for_what_is_lost() {
    let (server, url) = Careless::serve();
    let flags = ["--depth", "1", "--duration", "200ms", "--timeout", "200ms"];
    let report = fanout(&url, "4", &flags);
    server.shutdown();
    assert_eq!(report.number("/exit"), 1);
    assert_eq!(report.number("/messages/published"), 5);
    assert_eq!(report.number("/messages/lost"), 4);
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
    let server = server();
    let flags = ["--connections", "5", "--rate", "200", "--duration", "60s"];
    let mut tool = Tool::run(&[&["fanout", &channel(&server)], &flags[..]].concat());
    tool.expect_phase("ramp");
    tool.signal("INT");
    let report = tool.ended().report();
    assert_eq!(report.text("/outcome"), "interrupted");
    assert_eq!(report.number("/messages/lost"), 0);
}

#[test]
fn what_a_fan_out_cannot_be_is_refused() {
    let flags: [(&str, &[&str]); 3] = [
        // Too small for its number and times.
        ("--size", &["--size", "39"]),
        ("--threads", &["--depth", "4", "--threads", "2"]),
        ("--depth", &["--depth", "4", "--rate", "2"]),
    ];
    for (name, flags) in flags {
        let args = [&["fanout", "ws://127.0.0.1:1/"], flags].concat();
        let ended = Tool::start(bench(&args)).ended();
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.log[0].contains(name), "{ended:?}");
    }
}
