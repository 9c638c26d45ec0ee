//! Servers that end in the middle, refuse, or are not there.

use std::time::Duration;

use crate::{
    program::Program,
    report::Report,
    tool::{Tool, bench, echo_at, eventually, report, report_on},
};

/// How a run with a server that ends in its middle is begun.
struct Fate {
    mode: &'static str,
    flags: &'static [&'static str],
    /// The metric that shows that the middle is reached, and from which value on.
    series: &'static str,
    middle: u64,
}

const EXCHANGE: Fate = Fate {
    mode: "echo",
    flags: &["--connections", "20", "--duration", "60s", "--depth", "3"],
    series: "messages_sent_total",
    middle: 20,
};

const OPEN_LOOP: Fate = Fate {
    mode: "echo",
    flags: &["--connections", "20", "--duration", "60s", "--rate", "5000"],
    series: "messages_sent_total",
    middle: 20,
};

const HOLD: Fate = Fate {
    mode: "hold",
    flags: &[
        "--connections",
        "50",
        "--duration",
        "400ms",
        "--sweep",
        "9",
        "--pings",
        "9",
    ],
    series: "connections{dialect=\"echo\"}",
    middle: 50,
};

const RAMP: Fate = Fate {
    mode: "hold",
    flags: &["--connections", "100", "--ramp", "200", "--duration", "0"],
    series: "connections{dialect=\"echo\"}",
    middle: 20,
};

const CHURN: Fate = Fate {
    mode: "connect",
    flags: &["--connections", "8", "--duration", "600ms"],
    series: "connections_total",
    middle: 20,
};

/// Runs until the middle, ends the server by this signal, and waits for the report.
#[track_caller]
fn ended_by(signal: &str, fate: &Fate) -> Report {
    let server = Program::serve(&["--drain-time", "100ms"]);
    let url = echo_at(server.address);
    let tool = Tool::run(&[&[fate.mode, &url], fate.flags].concat());
    eventually(fate.series, || server.metric(fate.series) >= fate.middle);
    server.signal(signal);
    let report = tool.ended().report();
    assert_eq!(report.number("/exit"), 1, "{}", report.at("/errors"));
    assert_eq!(report.text("/outcome"), "complete");
    report
}

#[test]
fn a_server_killed_in_an_exchange_is_reported() {
    for fate in [EXCHANGE, OPEN_LOOP] {
        let report = ended_by("KILL", &fate);
        assert_eq!(report.number("/connections/lost"), 20);
        assert!(report.number("/messages/received") > 0);
        // There was an end to it: the exchange does not go on without anybody.
        assert!(report.phase_seconds("exchange") < 20.0);
    }
}

#[test]
fn a_server_stopped_in_an_exchange_is_reported_with_what_it_said() {
    let report = ended_by("TERM", &EXCHANGE);
    assert_eq!(report.number("/connections/lost"), 20);
    assert_eq!(report.errors("1001"), 20, "{}", report.at("/errors"));
}

#[test]
fn a_server_that_ends_under_held_connections_is_reported() {
    for (signal, kind) in [("KILL", ""), ("TERM", "1001")] {
        let report = ended_by(signal, &HOLD);
        assert_eq!(report.number("/connections/lost"), 50);
        assert_eq!(report.errors(kind), 50, "{}", report.at("/errors"));
        // Nobody was left to be asked.
        assert_eq!(report.number("/sweep/sent"), 0);
        assert_eq!(report.number("/pings/sent"), 0);
    }
}

#[test]
fn a_server_killed_in_the_ramp_is_reported() {
    let report = ended_by("KILL", &RAMP);
    let (opened, failed) = ("/connections/opened", "/connections/failed");
    assert!((20..100).contains(&report.number(opened)));
    assert!(report.number(failed) > 0);
    assert_eq!(report.number("/connections/lost"), report.number(opened));
    assert!(report.errors("refused") > 0, "{}", report.at("/errors"));
}

#[test]
fn a_server_killed_in_a_churn_is_reported() {
    let report = ended_by("KILL", &CHURN);
    assert!(report.number("/connections/failed") > 0);
    assert!(report.errors("refused") > 0, "{}", report.at("/errors"));
}

#[test]
fn a_server_that_is_full_is_counted_by_its_answer() {
    let server = Program::serve(&["--max-connections", "10"]);
    let flags = ["--connections", "25", "--duration", "50ms"];
    let report = report_on(&server, "hold", &flags);
    let opened = report.number("/connections/opened");
    // The look whether somebody listens may still hold a place when the others come.
    assert!((9..=10).contains(&opened), "{opened}");
    assert_eq!(report.number("/connections/lost"), 0);
    let failed = report.number("/connections/failed");
    assert_eq!(report.errors("503"), failed, "{}", report.at("/errors"));
    assert_eq!(report.number("/exit"), 1);
}

#[test]
fn a_path_that_is_not_there_is_counted_by_its_answer() {
    let server = Program::serve(&[]);
    let url = format!("ws://{}/nowhere", server.address);
    for mode in ["echo", "hold"] {
        let report = report(&[mode, &url, "--connections", "30", "--duration", "50ms"]);
        assert_eq!(report.number("/connections/failed"), 30);
        assert_eq!(report.errors("404"), 30, "{}", report.at("/errors"));
        assert_eq!(report.number("/exit"), 1);
        assert!(report.at("/handshake").is_null());
    }
}

#[test]
fn without_anybody_to_load_there_is_no_report() {
    let nobody = Program::serve(&[]).address;
    for url in [echo_at(nobody), "ws://tidemill.invalid/".to_owned()] {
        for mode in ["echo", "hold", "connect"] {
            let ended = Tool::start(bench(&[mode, &url, "--json", "--timeout", "2s"])).ended();
            assert_eq!(ended.code, Some(1), "{ended:?}");
            assert_eq!(ended.output, "");
            assert_eq!(ended.log.len(), 1, "{ended:?}");
            let line = &ended.log[0];
            assert!(line.starts_with("error: cannot connect to ws://"), "{line}");
            assert!(line.contains(&url), "{line}");
        }
    }
}

#[test]
fn a_frozen_server_is_given_up_after_the_timeout() {
    let server = Program::serve(&[]);
    let url = echo_at(server.address);
    let flags = ["--connections", "5", "--duration", "600ms"];
    let flags = [&flags[..], &["--timeout", "300ms"]].concat();
    let mut tool = Tool::run(&[&["echo", &url], &flags[..]].concat());
    tool.expect_phase("ramp");
    server.signal("STOP");
    let ended = tool.ended_within(Duration::from_secs(5));
    server.signal("CONT");
    let report = ended.report();
    assert_eq!(report.number("/messages/lost"), 5);
    assert_eq!(report.number("/exit"), 1);
}
