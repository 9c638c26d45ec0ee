//! Descriptors and source addresses, as the kernel sees them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::Ipv4Addr,
    process::Command,
};

use crate::{
    program::{Program, finish, tidemill_under},
    report::Report,
    tool::{Tool, echo_at},
};

/// Held for as long as a test looks at it.
const HELD: [&str; 3] = ["hold", "--duration", "60s"];

fn under(descriptors: u32, url: &str, flags: &[&str]) -> Command {
    let run = ["bench", "hold", url, "--duration", "50ms", "--json"];
    tidemill_under(descriptors, &[&run[..], flags].concat())
}

#[test]
fn private_tables_hold_more_than_one_limit_allows() {
    let server = Program::serve(&[]);
    let url = echo_at(server.address);
    let probes = ["--connections", "1000", "--sweep", "50", "--pings", "50"];
    let ended = Tool::start(under(256, &url, &probes)).ended();
    let report = ended.report();
    report.expect_clean();
    assert_eq!(report.at("/options/private_tables"), true);
    assert_eq!(report.number("/connections/opened"), 1000);
    assert_eq!(report.number("/sweep/received"), 1000);
    assert_eq!(report.number("/pings/received"), 1000);
    assert!(report.number("/options/threads") >= 5);
}

#[test]
fn few_connections_need_no_private_tables() {
    let server = Program::serve(&[]);
    let url = echo_at(server.address);
    let ended = Tool::start(under(256, &url, &["--connections", "100"])).ended();
    assert_eq!(ended.report().at("/options/private_tables"), false);
}

/// As many as the plan says that fit must fit, in each way of dividing them.
#[test]
fn all_fit_that_are_said_to_fit() {
    let server = Program::serve(&[]);
    let url = echo_at(server.address);
    for (limit, flags) in [
        (128, ["--threads", "1", "--connections", "93"]),
        (128, ["--threads", "4", "--connections", "336"]),
        (128, ["--threads", "16", "--connections", "768"]),
    ] {
        let ended = Tool::start(under(limit, &url, &flags)).ended();
        let report = ended.report();
        report.expect_clean();
        assert_eq!(report.number("/connections/opened").to_string(), flags[3]);
    }
}

#[test]
fn what_does_not_fit_names_the_flag_the_limit_and_the_remedy() {
    let url = echo_at(Program::serve(&[]).address);
    for (threads, remedy) in [("1", "--threads 5"), ("2", "--threads 5")] {
        let flags = ["--connections", "1000", "--threads", threads];
        let output = finish(under(256, &url, &flags));
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert_eq!(output.stdout, b"");
        for part in ["error: --connections 1000 ", "256", remedy, "ulimit -Hn"] {
            assert!(error.contains(part), "{part} in {error}");
        }
        let server = Program::serve(&[]);
        // What is said to help does help.
        let flags = ["--connections", "1000", "--threads", &remedy[10..]];
        let ended = Tool::start(under(256, &echo_at(server.address), &flags)).ended();
        ended.report().expect_clean();
    }
}

/// Descriptors that the caller left open are in every table too.
#[test]
fn descriptors_of_the_caller_are_reckoned_with() {
    let server = Program::serve(&[]);
    let url = echo_at(server.address);
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(
        "for number in {20..119}; do eval \"exec $number</dev/null\"; done; \
         ulimit -n 256; exec \"$0\" \"$@\"",
    );
    let command = under(256, &url, &["--connections", "200"]);
    // Behind `sh -c SCRIPT`.
    let args: Vec<_> = command.get_args().skip(2).collect();
    shell.args(args);
    let report = Tool::start(shell).ended().report();
    report.expect_clean();
    assert_eq!(report.number("/connections/opened"), 200);
}

/// How many connections to this server each local address has, other than from the server's side.
/// The table is no snapshot: with others coming and going, what stays may stand in it twice.
fn established(server: &Program) -> BTreeMap<Ipv4Addr, usize> {
    let hex = |text: &str| u32::from_str_radix(text, 16).unwrap();
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let mut ends = BTreeSet::new();
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, remote, state) = (fields[1], fields[2], fields[3]);
        let (_, port) = remote.split_once(':').unwrap();
        if state == "01" && hex(port) == u32::from(server.address.port()) {
            ends.insert(local);
        }
    }
    let mut found = BTreeMap::new();
    for end in ends {
        let (local, _) = end.split_once(':').unwrap();
        // In the order of the network, as this machine reads it.
        let local = Ipv4Addr::from(hex(local).to_ne_bytes());
        *found.entry(local).or_default() += 1;
    }
    found
}

#[track_caller]
fn sources_of(flags: &[&str]) -> (BTreeMap<Ipv4Addr, usize>, Report) {
    let server = Program::serve(&[]);
    let url = echo_at(server.address);
    let mut tool = Tool::run(&[&HELD[..], &[&url], flags].concat());
    tool.expect_phase("ramp");
    let found = established(&server);
    tool.signal("INT");
    let report = tool.ended().report();
    report.expect_clean();
    (found, report)
}

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, last)
}

#[test]
fn connections_come_from_the_source_address() {
    let (found, report) = sources_of(&["--connections", "30", "--source", "127.0.0.77"]);
    assert_eq!(found, BTreeMap::from([(address(77), 30)]));
    assert_eq!(report.number("/options/sources"), 1);
}

#[test]
fn connections_come_from_each_of_several_source_addresses() {
    let list = "127.0.0.7,127.0.0.20-127.0.0.22";
    let (found, report) = sources_of(&["--connections", "40", "--source", list]);
    assert_eq!(report.number("/options/sources"), 4);
    assert_eq!(found.values().sum::<usize>(), 40);
    let expected = [7, 20, 21, 22].map(address);
    assert_eq!(found.into_keys().collect::<Vec<_>>(), expected);
}

#[test]
fn few_connections_come_from_where_the_system_says() {
    let (found, report) = sources_of(&["--connections", "30"]);
    assert_eq!(found, BTreeMap::from([(address(1), 30)]));
    assert_eq!(report.number("/options/sources"), 0);
}

#[test]
fn a_source_address_that_is_not_of_this_machine_is_said_so() {
    let server = Program::serve(&[]);
    let url = echo_at(server.address);
    for source in ["192.0.2.1", "::1"] {
        let run = ["hold", &url, "--connections", "3", "--duration", "0"];
        let ended = Tool::run(&[&run[..], &["--source", source]].concat()).ended();
        assert_ne!(ended.code, Some(0), "{ended:?}");
        let all = ended.output + &ended.log.concat();
        // Whatever the system calls it.
        assert!(all.to_ascii_lowercase().contains("address"), "{all}");
    }
}
