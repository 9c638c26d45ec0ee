//! Several reactors in a process of their own: with private descriptor tables, and by handoff.

use std::collections::BTreeSet;

use crate::{
    program::{Program, tidemill_under},
    wire::{Wire, close, upgrade},
};

const LISTEN: [&str; 2] = ["--listen", "127.0.0.1:0"];

/// Opens so many connections as fit of these; the rest is told so.
fn open(program: &Program, count: usize) -> Vec<Wire> {
    let mut inside = Vec::new();
    for _ in 0..count {
        let mut wire = Wire::connect(program.address);
        wire.send(upgrade("/echo", ""));
        match wire.answer().status {
            101 => inside.push(wire),
            status => assert_eq!(status, 503),
        }
    }
    inside
}

#[track_caller]
fn expect_echo(wires: &mut [Wire]) {
    for (number, wire) in wires.iter_mut().enumerate() {
        wire.text(&number.to_string());
    }
    for (number, wire) in wires.iter_mut().enumerate() {
        wire.expect_text(&number.to_string());
    }
}

#[cfg(target_os = "linux")]
#[test]
fn private_tables_hold_more_than_one_limit_allows() {
    let args = [&LISTEN[..], &["--reactors", "3", "--fd-tables", "private"]].concat();
    let program = Program::start(tidemill_under(120, &args));
    assert!(
        program.banner.contains("3, a descriptor table each"),
        "{}",
        program.banner
    );
    let mut wires = open(&program, 210);
    assert!(
        wires.len() > 130,
        "{} connections under a limit of 120",
        wires.len()
    );
    expect_echo(&mut wires);
    for reactor in 0..3 {
        let held = program.metric(&format!("reactor_connections{{reactor=\"{reactor}\"}}"));
        assert!((20..120).contains(&held), "{held}");
    }
    // Closing works in the table where a socket lives: the room is there again.
    for wire in wires {
        wire.close(1000);
    }
    let mut again = open(&program, 210);
    assert!(again.len() > 130, "{}", again.len());
    expect_echo(&mut again);
    program.signal("TERM");
    for mut wire in again {
        wire.expect_close(1001);
        wire.send(close(1001, ""));
        wire.expect_end();
    }
    assert_eq!(program.ended().0.code(), Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn private_tables_are_chosen_when_one_table_is_too_small() {
    let args = [&LISTEN[..], &["--max-connections", "200"]].concat();
    let program = Program::start(tidemill_under(120, &args));
    assert!(
        program.banner.contains("a descriptor table each"),
        "{}",
        program.banner
    );
    assert!(program.banner.contains("up to 200"), "{}", program.banner);
    let mut wires = open(&program, 180);
    assert!(wires.len() > 130, "{}", wires.len());
    expect_echo(&mut wires);
}

/// A descriptor that is open at the unshare lives on in every table. A listener copied like that
/// would keep the port after its reactor closed it.
#[cfg(target_os = "linux")]
#[test]
fn private_tables_share_no_socket() {
    let program = Program::serve(&["--reactors", "3", "--fd-tables", "private"]);
    let mut wires = open(&program, 30);
    expect_echo(&mut wires);
    let mut seen = BTreeSet::new();
    let mut tables = 0;
    for task in std::fs::read_dir(format!("/proc/{}/task", program.id())).unwrap() {
        let task = task.unwrap().path();
        let name = std::fs::read_to_string(task.join("comm")).unwrap();
        if !name.starts_with("reactor-") {
            continue;
        }
        tables += 1;
        for descriptor in std::fs::read_dir(task.join("fd")).unwrap() {
            let Ok(target) = std::fs::read_link(descriptor.unwrap().path()) else {
                continue;
            };
            let target = target.display().to_string();
            if target.starts_with("socket:") {
                assert!(seen.insert(target.clone()), "{target} is in two tables");
            }
        }
    }
    assert_eq!(tables, 3);
    assert!(seen.len() >= 30 + 3, "{seen:?}");
}

#[test]
fn one_reactor_may_accept_for_all() {
    let program = Program::serve(&["--reactors", "3", "--accept", "handoff"]);
    let mut wires = open(&program, 90);
    assert_eq!(wires.len(), 90);
    expect_echo(&mut wires);
    for reactor in 0..3 {
        let held = program.metric(&format!("reactor_connections{{reactor=\"{reactor}\"}}"));
        assert!(held >= 30, "{held}");
    }
    program.signal("TERM");
    for mut wire in wires {
        wire.expect_close(1001);
        wire.send(close(1001, ""));
        wire.expect_end();
    }
    assert_eq!(program.ended().0.code(), Some(0));
}
