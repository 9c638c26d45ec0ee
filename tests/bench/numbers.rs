//! Whether what a run counts is what happened, as the server counted it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{
    program::Program,
    raw::{CLOSE, Raw},
    report::Report,
    tool::{Tool, echo_at, eventually, report, report_on},
};

#[track_caller]
fn expect_server_counted(server: &Program, series: &str, count: u64) {
    // A turn's counters are published at its end, which the peer need not see.
    eventually(&format!("{series} {count}"), || {
        server.metric(series) >= count
    });
    assert_eq!(server.metric(series), count, "{series}");
}

#[track_caller]
fn expect_server_agrees(server: &Program, report: &Report) {
    let opened = report.number("/connections/opened");
    expect_server_counted(server, "connections_total", opened);
    expect_server_counted(server, "closed_total{code=\"1000\"}", opened);
    expect_server_counted(server, "connections{dialect=\"echo\"}", 0);
    if report.text("/mode") == "echo" {
        let (sent, received) = ("/messages/sent", "/messages/received");
        expect_server_counted(server, "messages_received_total", report.number(sent));
        expect_server_counted(server, "messages_sent_total", report.number(received));
    }
}

#[test]
fn a_closed_loop_counts_what_the_server_counts() {
    for depth in ["1", "7"] {
        let server = Program::serve(&[]);
        let flags = ["--connections", "20", "--duration", "300ms"];
        let report = report_on(&server, "echo", &[&flags[..], &["--depth", depth]].concat());
        report.expect_clean();
        assert_eq!(report.phases(), ["ramp", "exchange", "close"]);
        assert_eq!(report.number("/connections/opened"), 20);
        assert!(report.number("/messages/sent") > 100);
        assert_eq!(report.number("/messages/other"), 0);
        expect_server_agrees(&server, &report);
    }
}

#[test]
fn bytes_are_those_of_the_frames() {
    for (length, head) in [
        ("0", 2),
        ("125", 2),
        ("126", 4),
        ("65535", 4),
        ("65536", 10),
    ] {
        let server = Program::serve(&[]);
        let flags = ["--connections", "2", "--duration", "50ms", "--size", length];
        let report = report_on(&server, "echo", &flags);
        report.expect_clean();
        let payload: u64 = length.parse().unwrap();
        assert_eq!(report.number("/options/payload_bytes"), payload);
        let messages = report.number("/messages/sent");
        assert!(messages > 0);
        // Two handshakes and two closes are all that is sent beside the messages.
        let rest = report.number("/messages/bytes_sent") - messages * (payload + head + 4);
        assert!((300..1000).contains(&rest), "{length}: {rest}");
        let rest = report.number("/messages/bytes_received") - messages * (payload + head);
        assert!((150..1000).contains(&rest), "{length}: {rest}");
    }
}

/// Of three tries, because a busy machine may keep the tool from its plan, which it says then.
#[test]
fn an_open_loop_sends_as_many_as_were_planned() {
    for (connections, rate, planned) in [("7", "2_000", 1000.0), ("1", "333.3", 166.0)] {
        let server = Program::serve(&[]);
        let flags = ["--connections", connections, "--rate", rate];
        let flags = [&flags[..], &["--duration", "500ms"]].concat();
        let sent = (0..3).map(|_| {
            let report = report_on(&server, "echo", &flags);
            report.expect_clean();
            let sent = report.float("/messages/sent");
            let kept = report.float("/messages/plan_kept");
            assert!((sent / planned - kept).abs() < 0.02, "{sent} {kept}");
            sent
        });
        let sent: Vec<f64> = sent.collect();
        let is_kept = |sent: &f64| (sent / planned - 1.0).abs() <= 0.01;
        assert!(sent.iter().any(is_kept), "{sent:?} of {planned}");
        assert!(sent.iter().all(|sent| *sent <= planned * 1.01), "{sent:?}");
    }
}

#[test]
fn a_rate_of_next_to_nothing_sends_next_to_nothing() {
    let server = Program::serve(&[]);
    for rate in ["0.001", "0.0000001", "1e-12", "1e-300"] {
        let flags = ["--connections", "2", "--duration", "100ms", "--rate", rate];
        let report = report_on(&server, "echo", &flags);
        report.expect_clean();
        let sent = report.number("/messages/sent");
        assert!(sent <= 2, "{sent} messages at {rate} a second");
    }
}

#[test]
fn a_plan_far_beyond_the_machine_is_said_not_to_be_kept() {
    let server = Program::serve(&[]);
    let flags = ["--connections", "2", "--duration", "200ms"];
    let flags = [&flags[..], &["--rate", "1_000_000_000", "--timeout", "1s"]].concat();
    let report = report_on(&server, "echo", &flags);
    let kept = report.float("/messages/plan_kept");
    assert!((0.0..0.5).contains(&kept), "{kept}");
}

#[test]
fn a_stall_of_the_server_is_in_the_latencies() {
    let server = Program::serve(&[]);
    let url = echo_at(server.address);
    let flags = ["--connections", "4", "--duration", "1s", "--rate", "1000"];
    let mut tool = Tool::run(&[&["echo", &url], &flags[..]].concat());
    tool.expect_phase("ramp");
    eventually("messages", || server.metric("messages_sent_total") > 100);
    server.signal("STOP");
    thread::park_timeout(Duration::from_millis(300));
    server.signal("CONT");
    let report = tool.ended().report();
    report.expect_clean();
    // In 300 of a thousand milliseconds: of the messages planned then, half waited for longer
    // than 150 ms.
    let p90 = report.float("/latency/corrected/p90");
    assert!(p90 > 100_000.0, "{p90}");
    assert!(report.float("/latency/corrected/max") > 250_000.0);
}

/// A server that says nothing for a while is owed `depth` messages a connection, and no more.
#[test]
fn depth_is_how_many_messages_are_in_flight() {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let server = Raw::welcome(move |mut guest| {
        let mut sent = Vec::new();
        while sent.len() < 5 {
            sent.push(guest.frame()?);
        }
        // A sixth would have left with them.
        let rest = guest.quiet_for(Duration::from_millis(100));
        tell.lock().unwrap().send(rest).ok()?;
        sent.iter().try_for_each(|frame| guest.answer_to(frame))?;
        guest.echo()
    });
    let flags = ["--connections", "3", "--depth", "5", "--duration", "300ms"];
    report(&[&["echo", &server.url()], &flags[..]].concat()).expect_clean();
    let rests: Vec<bool> = told.try_iter().collect();
    assert_eq!(rests, [true; 3]);
}

/// Of a server whose every handshake takes a while, and that counts how many are under way.
#[track_caller]
fn most_at_once(flags: &[&str]) -> usize {
    let now = AtomicUsize::new(0);
    let most = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&most);
    let server = Raw::serve(move |mut guest| {
        let count = now.fetch_add(1, Ordering::SeqCst) + 1;
        seen.fetch_max(count, Ordering::SeqCst);
        thread::park_timeout(Duration::from_millis(20));
        now.fetch_sub(1, Ordering::SeqCst);
        guest.switch("")?;
        guest.ignore()
    });
    let url = server.url();
    let run = ["hold", &url, "--connections", "24", "--duration", "0"];
    report(&[&run[..], flags].concat()).expect_clean();
    most.load(Ordering::SeqCst)
}

#[test]
fn no_more_handshakes_are_under_way_than_were_allowed() {
    for (connecting, threads) in [("6", "2"), ("2", "2"), ("1", "1"), ("5", "4")] {
        let flags = ["--connecting", connecting, "--threads", threads];
        let most = most_at_once(&flags);
        assert_eq!(most.to_string(), connecting, "with {threads} threads");
    }
}

/// More threads than that allows for must not each have one of their own.
#[test]
fn no_more_handshakes_are_under_way_than_were_allowed_with_more_threads() {
    assert_eq!(most_at_once(&["--connecting", "1", "--threads", "4"]), 1);
}

#[test]
fn a_ramp_opens_so_many_a_second() {
    let server = Program::serve(&[]);
    let flags = ["--connections", "100", "--ramp", "200", "--duration", "0"];
    let report = report_on(&server, "hold", &flags);
    report.expect_clean();
    // The first one at once, the last one after 99 intervals.
    let seconds = report.phase_seconds("ramp");
    assert!((0.49..2.0).contains(&seconds), "{seconds}");
}

#[test]
fn a_ramp_of_next_to_nothing_opens_next_to_nothing() {
    let server = Program::serve(&[]);
    for ramp in ["0.001", "1e-12"] {
        let url = echo_at(server.address);
        let flags = ["--connections", "10", "--ramp", ramp];
        let tool = Tool::run(&[&["hold", &url], &flags[..]].concat());
        eventually("the first connection", || {
            server.metric("connections{dialect=\"echo\"}") > 0
        });
        tool.signal("INT");
        let report = tool.ended().report();
        let opened = report.number("/connections/opened");
        assert!(opened <= 2, "{opened} connections at {ramp} a second");
    }
}

#[test]
fn churn_counts_what_the_server_counts() {
    let server = Program::serve(&[]);
    let flags = ["--connections", "8", "--duration", "300ms"];
    let report = report_on(&server, "connect", &flags);
    report.expect_clean();
    assert_eq!(report.phases(), ["churn"]);
    assert!(report.number("/connections/opened") > 20);
    expect_server_agrees(&server, &report);
}

#[test]
fn churn_keeps_to_a_rate() {
    let server = Program::serve(&[]);
    let flags = ["--duration", "500ms", "--rate", "200"];
    let opened = (0..3).map(|_| report_on(&server, "connect", &flags));
    let opened: Vec<u64> = opened
        .map(|report| report.number("/connections/opened"))
        .collect();
    assert!(opened.iter().all(|opened| *opened <= 101), "{opened:?}");
    assert!(opened.iter().any(|opened| *opened >= 99), "{opened:?}");
}

#[test]
fn a_server_on_this_machine_is_measured() {
    let server = Program::serve(&[]);
    let id = server.id().to_string();
    let flags = ["--connections", "4", "--duration", "300ms"];
    let report = report_on(&server, "echo", &flags);
    assert!(report.at("/server").is_null() && report.at("/cpu/server").is_null());
    if cfg!(not(target_os = "linux")) {
        return;
    }
    let report = report_on(
        &server,
        "echo",
        &[&flags[..], &["--server-pid", &id]].concat(),
    );
    assert_eq!(report.at("/server/pid").to_string(), id);
    let cores = report.float("/cpu/server/cores_used");
    let busiest = report.float("/cpu/server/busiest_thread");
    assert!(cores > 0.0 && busiest > 0.0, "{}", report.at("/cpu"));
    assert!(report.number("/server/rss") > 1 << 20);
    let samples = report.list("/samples");
    assert!(samples.iter().all(|sample| sample["server_rss"].is_u64()));
}

/// The kernel counts CPU time in ticks of some milliseconds: over less than a tick, a share of a
/// core says nothing. A phase as short as that ends each of these runs.
#[test]
fn no_sample_shows_more_cores_than_there_are() {
    let server = Program::serve(&[]);
    let id = server.id().to_string();
    let flags = ["--connections", "50", "--duration", "30ms", "--server-pid"];
    let mut shares = Vec::new();
    for _ in 0..25 {
        let report = report_on(&server, "echo", &[&flags[..], &[&id]].concat());
        let cores = report.float("/cpu/cores");
        for sample in report.list("/samples") {
            let used = [&sample["client_cpu"], &sample["server_cpu"]];
            shares.extend(used.into_iter().filter_map(Value::as_f64));
            // A tick that began in the sample before may end in this one.
            assert!(shares.iter().all(|used| *used <= cores + 0.2), "{shares:?}");
        }
    }
}

#[test]
fn the_payload_is_what_was_asked_for() {
    let folder = std::env::temp_dir().join(format!("tidemill-payload-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let text = file("text", "größer \u{1f30a}\n".as_bytes());
    let bytes = file("bytes", &[0xff, 0, 0x80, 1]);
    let empty = file("empty", b"");
    for (flags, first, payload) in [
        (vec![], 0x81, &b"abcdefghijklmnopqrst"[..]),
        (vec!["--binary"], 0x82, b"abcdefghijklmnopqrst"),
        (vec!["--size", "3"], 0x81, b"abc"),
        (vec!["--size", "0", "--binary"], 0x82, b""),
        (
            vec!["--payload", &text],
            0x81,
            "größer \u{1f30a}\n".as_bytes(),
        ),
        (
            vec!["--payload", &bytes, "--binary"],
            0x82,
            &[0xff, 0, 0x80, 1],
        ),
        (vec!["--payload", &empty], 0x81, b""),
    ] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&seen);
        let server = Raw::welcome(move |mut guest| {
            loop {
                let frame = guest.frame()?;
                guest.answer_to(&frame)?;
                into.lock().unwrap().push(frame);
            }
        });
        let url = server.url();
        let run = ["echo", &url, "--connections", "1", "--duration", "20ms"];
        report(&[&run[..], &flags].concat()).expect_clean();
        let seen = seen.lock().unwrap();
        assert!(!seen.is_empty());
        for frame in seen.iter().filter(|frame| frame.first != CLOSE) {
            assert_eq!((frame.first, &*frame.payload), (first, payload));
            assert!(frame.is_masked, "{frame:?}");
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
