//! SIGINT and SIGTERM: what there is so far is still said, and soon.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    program::Program,
    raw::{CLOSE, Raw},
    report::Report,
    tool::{Tool, echo_at, eventually},
};

/// Within seconds, whatever the timeouts are.
const SOON: Duration = Duration::from_secs(5);

#[track_caller]
fn interrupted(tool: Tool, signal: &str) -> Report {
    tool.signal(signal);
    let report = tool.ended_within(SOON).report();
    assert_eq!(report.text("/outcome"), "interrupted");
    report
}

#[test]
fn an_interrupted_ramp_is_reported() {
    for signal in ["INT", "TERM"] {
        let server = Program::serve(&[]);
        let url = echo_at(server.address);
        let tool = Tool::run(&["hold", &url, "--connections", "9000", "--ramp", "300"]);
        eventually("connections", || {
            server.metric("connections{dialect=\"echo\"}") > 20
        });
        let report = interrupted(tool, signal);
        report.expect_clean();
        assert_eq!(report.phases(), ["ramp", "close"]);
        assert!((21..5000).contains(&report.number("/connections/opened")));
    }
}

#[test]
fn an_interrupted_exchange_is_reported_with_each_answer() {
    for pace in [["--depth", "3"], ["--rate", "2000"]] {
        let server = Program::serve(&[]);
        let url = echo_at(server.address);
        let flags = ["--connections", "10", "--duration", "60s"];
        let tool = Tool::run(&[&["echo", &url], &flags[..], &pace].concat());
        eventually("messages", || server.metric("messages_sent_total") > 50);
        let report = interrupted(tool, "INT");
        report.expect_clean();
        assert_eq!(report.phases(), ["ramp", "exchange", "close"]);
        assert!(report.number("/messages/received") > 50);
        if pace[0] == "--rate" {
            let kept = report.float("/messages/plan_kept");
            assert!((0.5..1.1).contains(&kept), "of the time there was: {kept}");
        }
    }
}

#[test]
fn an_interrupted_hold_is_reported_and_asks_nobody_any_more() {
    let server = Program::serve(&[]);
    let url = echo_at(server.address);
    let flags = ["--connections", "50", "--duration", "60s"];
    let probes = ["--sweep", "5", "--pings", "5"];
    let mut tool = Tool::run(&[&["hold", &url], &flags[..], &probes].concat());
    tool.expect_phase("ramp");
    let report = interrupted(tool, "TERM");
    report.expect_clean();
    assert_eq!(report.phases(), ["ramp", "hold", "close"]);
    assert!(report.at("/sweep").is_null() && report.at("/pings").is_null());
}

#[test]
fn an_interrupted_churn_is_reported() {
    let server = Program::serve(&[]);
    let url = echo_at(server.address);
    let tool = Tool::run(&["connect", &url, "--connections", "4", "--duration", "60s"]);
    eventually("connections", || server.metric("connections_total") > 20);
    let report = interrupted(tool, "INT");
    report.expect_clean();
    assert_eq!(report.phases(), ["churn"]);
}

/// A server that takes its time for each answer, so that the phase would last for a minute.
#[test]
fn an_interrupted_probe_is_reported() {
    for (probe, name) in [("--sweep", "sweep"), ("--pings", "pings")] {
        let answers = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&answers);
        let server = Raw::welcome(move |mut guest| {
            let asked = guest.frame()?;
            thread::park_timeout(Duration::from_millis(600));
            guest.answer_to(&asked)?;
            counted.fetch_add(1, Ordering::SeqCst);
            guest.ignore()
        });
        let url = server.url();
        let flags = ["--connections", "100", "--duration", "0", "--threads", "1"];
        let tool = Tool::run(&[&["hold", &url], &flags[..], &[probe, "1"]].concat());
        eventually("answers", || answers.load(Ordering::SeqCst) > 1);
        let report = interrupted(tool, "INT");
        report.expect_clean();
        assert_eq!(report.phases(), ["ramp", "hold", name, "close"]);
        let answered = report.number(&format!("/{name}/received"));
        assert!((2..10).contains(&answered), "{answered}");
    }
}

/// Nobody who presses Ctrl-C wants to wait for the timeout of what will not come.
#[test]
fn silent_servers_do_not_hold_up_an_interrupted_ramp() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let server = Raw::serve(move |mut guest| {
        counted.fetch_add(1, Ordering::SeqCst);
        guest.ignore()
    });
    let tool = Tool::run(&["hold", &server.url(), "--timeout", "60s"]);
    eventually("requests", || asked.load(Ordering::SeqCst) > 5);
    let report = interrupted(tool, "INT");
    assert_eq!(report.number("/connections/opened"), 0);
}

#[test]
fn silent_servers_do_not_hold_up_an_interrupted_exchange() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let server = Raw::welcome(move |mut guest| {
        while guest.frame()?.first != CLOSE {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        guest.ignore()
    });
    let url = server.url();
    let flags = ["--connections", "4", "--timeout", "60s"];
    let tool = Tool::run(&[&["echo", &url], &flags[..]].concat());
    eventually("messages", || asked.load(Ordering::SeqCst) >= 4);
    let report = interrupted(tool, "INT");
    assert_eq!(report.number("/messages/lost"), 4);
}

#[test]
fn silent_servers_do_not_hold_up_an_interrupted_probe() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let server = Raw::welcome(move |mut guest| {
        guest.frame()?;
        counted.fetch_add(1, Ordering::SeqCst);
        guest.ignore()
    });
    let url = server.url();
    let flags = ["--connections", "9", "--duration", "0", "--timeout", "60s"];
    let tool = Tool::run(&[&["hold", &url], &flags[..], &["--sweep", "4"]].concat());
    eventually("messages", || asked.load(Ordering::SeqCst) >= 4);
    let report = interrupted(tool, "INT");
    assert_eq!(report.number("/sweep/lost"), 4);
}

#[test]
fn a_second_signal_ends_the_tool_at_once() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let server = Raw::serve(move |mut guest| {
            counted.fetch_add(1, Ordering::SeqCst);
            guest.ignore()
        });
        let url = server.url();
        let tool = Tool::run(&["hold", &url, "--timeout", "60s", "--connections", "3"]);
        eventually("requests", || asked.load(Ordering::SeqCst) == 3);
        // Two of a kind that come together are one.
        for _ in 0..5 {
            tool.signal(signal);
            thread::park_timeout(Duration::from_millis(60));
        }
        let ended = tool.ended_within(SOON);
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert_eq!(ended.output, "");
    }
}
