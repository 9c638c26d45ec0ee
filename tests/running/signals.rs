//! SIGTERM and SIGINT: in order at the first, at once at the second. SIGHUP ends nothing.

use std::time::{Duration, Instant};

use crate::{
    program::Program,
    wire::{Wire, close},
};

#[test]
fn with_nobody_there_the_server_ends_at_once_with_0() {
    for name in ["TERM", "INT"] {
        let program = Program::serve(&["--drain-time", "60s", "--close-timeout", "60s"]);
        let began = Instant::now();
        program.signal(name);
        let (status, log) = program.ended();
        assert_eq!(status.code(), Some(0), "{name} {log:?}");
        assert!(began.elapsed() < Duration::from_secs(10));
        assert!(
            log.iter().any(|line| line.contains("shutting down")),
            "{log:?}"
        );
        assert!(log.last().unwrap().contains("stopped"), "{log:?}");
    }
}

#[test]
fn everyone_is_told_and_the_exit_code_is_0() {
    let program = Program::serve(&["--drain-time", "60s", "--close-timeout", "60s"]);
    let mut wires: Vec<Wire> = (0..150)
        .map(|_| Wire::open(program.address, "/echo"))
        .collect();
    program.signal("TERM");
    for wire in &mut wires {
        assert_eq!(wire.expect_close(1001), "server shutting down");
        wire.send(close(1001, ""));
        wire.expect_end();
    }
    let (status, _) = program.ended();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_hangup_disturbs_nobody_and_is_noted() {
    let program = Program::serve(&[]);
    let mut wire = Wire::open(program.address, "/echo");
    program.signal("HUP");
    wire.text("still there");
    wire.expect_text("still there");
    program.signal("TERM");
    wire.expect_close(1001);
    wire.send(close(1001, ""));
    let (status, log) = program.ended();
    assert_eq!(status.code(), Some(0));
    assert!(log.iter().any(|line| line.contains("reloaded")), "{log:?}");
}

#[test]
fn a_second_signal_ends_the_server_at_once() {
    for (second, code) in [("TERM", 143), ("INT", 130)] {
        let program = Program::serve(&["--drain-time", "60s", "--close-timeout", "60s"]);
        let mut wire = Wire::open(program.address, "/echo");
        program.signal("TERM");
        wire.expect_close(1001);
        program.signal(second);
        let (status, _) = program.ended();
        assert_eq!(status.code(), Some(code));
        wire.expect_gone();
    }
}

#[test]
fn who_does_not_answer_does_not_hold_the_exit() {
    let program = Program::serve(&["--drain-time", "300ms", "--close-timeout", "500ms"]);
    let mut silent = Wire::open(program.address, "/echo");
    let mut half_open = Wire::connect(program.address);
    half_open.send("GET / HTTP/1.1\r\nHost:");
    // The half-open one is in, too, once the next request on the port is answered.
    Wire::open(program.address, "/echo").close(1000);
    program.signal("TERM");
    let began = Instant::now();
    silent.expect_close(1001);
    let (status, _) = program.ended();
    assert_eq!(status.code(), Some(0));
    assert!(
        began.elapsed() >= Duration::from_millis(400),
        "{:?}",
        began.elapsed()
    );
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    half_open.expect_gone();
}

#[test]
fn a_hangup_of_the_reader_of_its_output_does_not_end_the_server() {
    let program = Program::serve(&[]);
    program.signal("PIPE");
    let mut wire = Wire::open(program.address, "/echo");
    wire.text("still here");
    wire.expect_text("still here");
}
