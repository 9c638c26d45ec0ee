//! Held connections: the sweep and the ping round reach each of them once, and no more at a time
//! than was asked for.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    program::Program,
    raw::{Guest, PING, PONG, Raw, TEXT, frame},
    tool::{eventually, report, report_on},
};

#[test]
fn each_connection_answers_the_sweep_and_the_ping() {
    let server = Program::serve(&[]);
    let flags = ["--connections", "1500", "--duration", "100ms"];
    let probes = ["--sweep", "64", "--pings", "32"];
    let report = report_on(&server, "hold", &[&flags[..], &probes].concat());
    report.expect_clean();
    let phases = ["ramp", "hold", "sweep", "pings", "close"];
    assert_eq!(report.phases(), phases);
    for path in ["/connections/opened", "/sweep/received", "/pings/received"] {
        assert_eq!(report.number(path), 1500, "{path}");
    }
    let held = report.phase_seconds("hold");
    assert!((0.1..5.0).contains(&held), "{held}");
    assert_eq!(server.metric("messages_received_total"), 1500);
    // A million orderly closes would leave as many ports waiting.
    let reset = "closed_total{code=\"1006\"}";
    eventually("resets", || server.metric(reset) == 1500);
    assert_eq!(server.metric("closed_total{code=\"1000\"}"), 0);
}

#[test]
fn without_being_told_to_nobody_is_asked() {
    let server = Program::serve(&[]);
    let flags = ["--connections", "3", "--duration", "0"];
    let report = report_on(&server, "hold", &flags);
    report.expect_clean();
    assert_eq!(report.phases(), ["ramp", "hold", "close"]);
    assert!(report.at("/sweep").is_null() && report.at("/pings").is_null());
    assert_eq!(server.metric("messages_received_total"), 0);
}

/// What each guest was sent, in its order.
#[derive(Default)]
struct Book {
    guests: Mutex<Vec<Vec<u8>>>,
    waiting: AtomicUsize,
    waiting_most: AtomicUsize,
}

impl Book {
    fn host(&self, mut guest: Guest) -> Option<()> {
        loop {
            let asked = guest.frame()?;
            let waiting = self.waiting.fetch_add(1, Ordering::SeqCst) + 1;
            self.waiting_most.fetch_max(waiting, Ordering::SeqCst);
            let mut guests = self.guests.lock().unwrap();
            let count = guests.len().max(guest.number + 1);
            guests.resize(count, Vec::new());
            guests[guest.number].push(asked.first);
            drop(guests);
            thread::park_timeout(Duration::from_millis(10));
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            guest.answer_to(&asked)?;
        }
    }
}

/// Runs with probes of so many at once; says how many there were at most.
#[track_caller]
fn waiting_most(at_once: &str, threads: &str) -> usize {
    let book = Arc::new(Book::default());
    let host = Arc::clone(&book);
    let server = Raw::welcome(move |guest| host.host(guest));
    let url = server.url();
    let flags = ["--connections", "24", "--duration", "0"];
    let probes = ["--sweep", at_once, "--pings", at_once, "--threads", threads];
    let report = report(&[&["hold", &url], &flags[..], &probes].concat());
    report.expect_clean();
    let guests = book.guests.lock().unwrap();
    assert_eq!(guests.len(), 24);
    assert!(
        guests.iter().all(|sent| sent == &[TEXT, PING]),
        "{guests:?}"
    );
    book.waiting_most.load(Ordering::SeqCst)
}

#[test]
fn no_more_are_asked_at_once_than_was_said() {
    for (at_once, threads) in [("1", "1"), ("6", "2"), ("5", "4")] {
        assert_eq!(waiting_most(at_once, threads).to_string(), at_once);
    }
}

/// More threads than that allows for must not each ask one of their own.
#[test]
fn no_more_are_asked_at_once_than_was_said_with_more_threads() {
    assert_eq!(waiting_most("1", "4"), 1);
}

#[test]
fn who_does_not_answer_is_counted_and_holds_up_nobody_else() {
    let server = Raw::welcome(|mut guest| match guest.number % 3 {
        0 => guest.ignore(),
        _ => guest.echo(),
    });
    let url = server.url();
    let flags = [
        "--connections",
        "9",
        "--duration",
        "0",
        "--timeout",
        "300ms",
    ];
    let probes = ["--sweep", "9", "--pings", "9"];
    let report = report(&[&["hold", &url], &flags[..], &probes].concat());
    assert_eq!(report.number("/sweep/sent"), 9);
    assert_eq!(report.number("/sweep/lost"), 3);
    assert_eq!(report.number("/pings/lost"), 3);
    assert_eq!(report.number("/connections/lost"), 0);
    assert_eq!(report.number("/exit"), 1);
}

/// An answer is what was asked for: not a pong of its own accord, nor any message.
#[test]
fn only_the_right_answer_counts() {
    let server = Raw::welcome(|mut guest| {
        loop {
            let asked = guest.frame()?;
            guest.send(frame(PONG, b""))?;
            guest.send(frame(PONG, b"something else"))?;
            guest.send(frame(TEXT, b"something else"))?;
            if asked.first == PING {
                guest.send(frame(TEXT, b"abcdefghijklmnopqrst"))?;
            } else {
                guest.send(frame(PONG, b"abcdefghijklmnopqrst"))?;
            }
        }
    });
    let url = server.url();
    let flags = [
        "--connections",
        "2",
        "--duration",
        "0",
        "--timeout",
        "300ms",
    ];
    let probes = ["--sweep", "2", "--pings", "2"];
    let report = report(&[&["hold", &url], &flags[..], &probes].concat());
    assert_eq!(report.number("/sweep/lost"), 2);
    assert_eq!(report.number("/pings/lost"), 2);
}

/// The answer to the sweep that comes late is none to the ping round.
#[test]
fn a_late_answer_is_not_taken_for_another() {
    let server = Raw::welcome(|mut guest| {
        let asked = guest.frame()?;
        let ping = guest.frame()?;
        guest.answer_to(&asked)?;
        thread::park_timeout(Duration::from_millis(100));
        guest.answer_to(&ping)?;
        guest.ignore()
    });
    let url = server.url();
    let flags = [
        "--connections",
        "1",
        "--duration",
        "0",
        "--timeout",
        "300ms",
    ];
    let probes = ["--sweep", "1", "--pings", "1"];
    let report = report(&[&["hold", &url], &flags[..], &probes].concat());
    assert_eq!(report.number("/sweep/lost"), 1);
    assert_eq!(report.number("/pings/received"), 1);
    assert!(report.float("/pings/latency/max") >= 100_000.0);
}
