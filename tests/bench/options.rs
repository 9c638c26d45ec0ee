//! The command line: what is wrong with it is said by name, before anything is loaded.

use std::fs;

use crate::{
    program::{Program, finish},
    tool::{Tool, bench, echo_at, eventually},
};

/// Nobody listens there; a run that gets so far ends with another exit code.
const URL: &str = "ws://127.0.0.1:1/";

/// Must be refused in one line; gives that line.
#[track_caller]
fn refused(args: &[&str]) -> String {
    let output = finish(bench(args));
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
    assert_eq!(output.stdout, b"", "{args:?}");
    assert!(error.starts_with("error: "), "{args:?}: {error}");
    assert_eq!(error.lines().count(), 1, "{args:?}: {error}");
    error
}

/// Names the first of `flags`, whatever is wrong with its value.
#[track_caller]
fn expect_named(mode: &str, flags: &[&str]) {
    let error = refused(&[&[mode, URL], flags].concat());
    let name = flags[0].split('=').next().unwrap();
    let is_named = error
        .split(|letter: char| letter != '-' && !letter.is_alphanumeric())
        .any(|word| word == name);
    assert!(is_named, "{flags:?}: {error}");
}

#[test]
fn a_count_that_is_none_is_named() {
    let flags = ["--connections", "--threads", "--connecting"];
    let values = [
        "0",
        "-1",
        "",
        "ten",
        "1.5",
        "1e3",
        "0x10",
        "99999999999999999999",
    ];
    for flag in flags {
        for value in values {
            expect_named("hold", &[flag, value]);
        }
    }
    for flag in ["--sweep", "--pings"] {
        for value in values {
            expect_named("hold", &[flag, value]);
        }
    }
    for value in values {
        expect_named("echo", &["--depth", value]);
    }
    expect_named("hold", &["--connections", "4194305"]);
    expect_named("hold", &["--connections", "5_000_000"]);
    expect_named("hold", &["--threads", "513"]);
    expect_named("echo", &["--depth", "18446744073709551615"]);
}

#[test]
fn a_rate_that_is_none_is_named() {
    for value in [
        "0", "-0", "-1", "nan", "inf", "1e999", "1e10", "", "fast", "1/s", "10k",
    ] {
        expect_named("echo", &["--rate", value]);
        expect_named("connect", &["--rate", value]);
        expect_named("hold", &["--ramp", value]);
    }
}

#[test]
fn a_duration_that_is_none_is_named() {
    for value in [
        "10",
        "",
        "s",
        "1.5s",
        "1d",
        "1s 1s",
        "99999999999999999999s",
    ] {
        expect_named("hold", &["--duration", value]);
        expect_named("hold", &["--timeout", value]);
    }
    expect_named("echo", &["--timeout", "0"]);
}

/// A shell gives what stands there, be it meant or not.
#[test]
fn a_value_that_begins_like_a_flag_is_named_with_its_own() {
    for (flag, value) in [
        ("--duration", "-1s"),
        ("--timeout", "-500ms"),
        ("--rate", "-inf"),
        ("--source", "-127.0.0.2"),
        ("--size", "-1KiB"),
        ("--connections", "--json"),
    ] {
        expect_named("echo", &[flag, value]);
    }
}

/// A time that does not end is a long time or a wrong option, and no crash.
#[test]
fn a_duration_beyond_all_clocks_is_long_or_wrong() {
    let server = Program::serve(&[]);
    let url = echo_at(server.address);
    for mode in ["echo", "hold", "connect"] {
        for flag in ["--duration", "--timeout"] {
            let before = server.metric("connections_total");
            let run = [mode, &url, flag, "5000000000000000h", "--connections", "2"];
            let tool = Tool::run(&run);
            eventually("a connection or the end", || {
                server.metric("connections_total") >= before + 2 || tool.has_ended()
            });
            if !tool.has_ended() {
                tool.signal("INT");
            }
            let ended = tool.ended();
            match ended.code {
                Some(2) => assert!(ended.log.concat().contains(flag), "{ended:?}"),
                _ => ended.report().expect_clean(),
            }
        }
    }
}

#[test]
fn a_size_that_is_none_is_named() {
    for value in [
        "-1", "", "1k", "1.5MB", "20 bytes", "64MiB1", "65MiB", "1GiB",
    ] {
        expect_named("echo", &["--size", value]);
    }
}

#[test]
fn the_largest_size_is_no_error() {
    for size in ["64MiB", "67108864"] {
        let output = finish(bench(&["echo", URL, "--size", size]));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.starts_with("error: cannot connect"), "{error}");
        assert_eq!(output.status.code(), Some(1), "{error}");
    }
}

#[test]
fn a_payload_that_is_none_is_named() {
    let folder = std::env::temp_dir().join(format!("tidemill-options-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    fs::write(path("bytes"), [0xff]).unwrap();
    let sparse = fs::File::create(path("large")).unwrap();
    sparse.set_len(65 << 20).unwrap();
    expect_named("echo", &["--payload", &path("none")]);
    expect_named("echo", &["--payload", folder.to_str().unwrap()]);
    expect_named("echo", &["--payload", &path("bytes")]);
    expect_named("echo", &["--payload", &path("large"), "--binary"]);
    expect_named("echo", &["--payload", "/dev/zero", "--binary"]);
    expect_named(
        "echo",
        &["--payload", &path("bytes"), "--size", "1", "--binary"],
    );
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_source_that_is_none_is_named() {
    for value in [
        "",
        "here",
        "127.0.0.2,",
        ",",
        "127.0.0.2:80",
        "127.0.0.9-127.0.0.2",
        "127.0.0.2-",
        "127.0.0.2-127.0.0.3-127.0.0.4",
        "::1-::9",
        "0.0.0.0-255.255.255.255",
        "127.0.0.0/8",
    ] {
        expect_named("hold", &["--source", value]);
    }
}

#[test]
fn a_header_that_is_none_is_named() {
    for value in [
        "",
        "no colon",
        ": no name",
        "two words: here",
        "X-Break: a\r\nX-Other: b",
        "Host: a",
        "upgrade: b",
        "Sec-WebSocket-Key: c",
        "Content-Length: 5",
    ] {
        expect_named("echo", &["--header", value]);
    }
    for value in ["", "two words", "a,b", "größer", "a\n"] {
        expect_named("echo", &["--protocol", value]);
    }
    expect_named("echo", &["--protocol", "a", "--protocol", "a"]);
}

#[test]
fn an_origin_that_is_none_is_named() {
    for value in ["http://a\r\nX-Other: b", "http://a\u{7f}"] {
        expect_named("echo", &["--origin", value]);
    }
}

#[test]
fn a_server_pid_that_is_none_is_named() {
    for value in ["", "-1", "self", "1.0", "99999999999"] {
        expect_named("echo", &["--server-pid", value]);
    }
}

/// The server is there, the process is not.
#[cfg(target_os = "linux")]
#[test]
fn a_server_pid_that_nobody_has_is_named() {
    let server = Program::serve(&[]);
    let url = echo_at(server.address);
    for pid in ["0", "4194305"] {
        let ended = Tool::start(bench(&["echo", &url, "--server-pid", pid])).ended();
        assert!(matches!(ended.code, Some(1 | 2)), "{ended:?}");
        assert!(ended.log.concat().contains("--server-pid"), "{ended:?}");
    }
    assert_eq!(server.metric("connections_total"), 0);
}

#[test]
fn a_progress_that_is_none_is_named() {
    for value in ["", "yes", "BARS", "line"] {
        expect_named("echo", &["--progress", value]);
    }
}

#[test]
fn flags_of_other_modes_are_named() {
    for (mode, flag) in [
        ("echo", "--sweep"),
        ("echo", "--pings"),
        ("hold", "--rate"),
        ("hold", "--depth"),
        ("connect", "--depth"),
        ("connect", "--size"),
        ("connect", "--payload"),
        ("connect", "--sweep"),
        ("connect", "--pings"),
        ("echo", "--nonsense"),
    ] {
        expect_named(mode, &[flag, "1"]);
    }
}

#[test]
fn what_excludes_each_other_is_named() {
    let error = refused(&["echo", URL, "--rate", "1", "--depth", "1"]);
    assert!(error.contains("--rate") && error.contains("--depth"));
    let error = refused(&["echo", URL, "--size", "1", "--payload", "a"]);
    assert!(error.contains("--size") && error.contains("--payload"));
    for flag in ["--connections", "--rate", "--json", "--report"] {
        let twice = [format!("{flag}=1"), format!("{flag}=2")];
        expect_named("echo", &[&twice[0], &twice[1]]);
    }
}

/// Half of what was asked for would be a run of something else.
#[test]
fn flags_of_tls_without_tls_are_named() {
    for mode in ["echo", "hold", "fanout", "connect"] {
        expect_named(mode, &["--insecure"]);
        expect_named(mode, &["--resume"]);
        expect_named(mode, &["--ca", "/dev/null"]);
    }
    assert!(refused(&["echo", URL, "--insecure"]).contains("wss://"));
}

#[test]
fn authorities_that_are_none_are_named() {
    let url = URL.replace("ws://", "wss://");
    let folder = std::env::temp_dir().join(format!("tidemill-ca-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    fs::write(path("empty"), "").unwrap();
    fs::write(path("words"), "no certificate\n").unwrap();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    fs::write(path("broken"), broken).unwrap();
    for file in ["none", "empty", "words", "broken", ""] {
        let error = refused(&["echo", &url, "--ca", &path(file)]);
        assert!(error.contains("--ca"), "{error}");
        assert!(error.contains(&path(file)), "{error}");
    }
    fs::remove_dir_all(&folder).unwrap();
    let error = refused(&["echo", &url, "--ca", "a", "--insecure"]);
    assert!(error.contains("--ca") && error.contains("--insecure"));
}

#[test]
fn a_url_that_is_none_is_named() {
    for (url, why) in [
        ("", "ws://"),
        ("localhost:7000", "ws://"),
        ("http://127.0.0.1:1/", "ws://"),
        ("https://127.0.0.1:1/", "wss://"),
        ("wss://", "host"),
        ("wss://127.0.0.1:65536/", "65536"),
        ("wss://me@127.0.0.1:1/", "@"),
        ("wss://a..b:1/", "host"),
        ("ws://", "host"),
        ("ws:///echo", "host"),
        ("ws://:80/", "host"),
        ("ws://127.0.0.1:/", "port"),
        ("ws://127.0.0.1:65536/", "65536"),
        ("ws://127.0.0.1:-1/", "-1"),
        ("ws://127.0.0.1:+1/", "+1"),
        ("ws://127.0.0.1:1/a b", "encoded"),
        ("ws://127.0.0.1:1/\r\nX-Other: b", "encoded"),
        ("ws://127.0.0.1:1/größer", "encoded"),
        ("ws://127.0.0.1:1/#part", "#"),
        ("ws://me@127.0.0.1:1/", "@"),
        ("ws://a b:1/", "host"),
        ("ws://[::1/", "host"),
        ("ws://::1:1/", "host"),
    ] {
        let error = refused(&["echo", url]);
        assert!(error.contains(why), "{url:?}: {error}");
        assert!(error.contains("URL"), "{url:?}: {error}");
    }
}

#[test]
fn without_a_mode_or_a_url_the_line_says_what_is_missing() {
    assert!(refused(&[]).contains("bench --help"));
    assert!(refused(&["fly", URL]).contains("fly"));
    for mode in ["echo", "hold", "connect"] {
        assert!(refused(&[mode]).contains("URL"));
        assert!(refused(&[mode, URL, "ws://127.0.0.1:2/"]).contains("127.0.0.1:2"));
    }
    // JSON to a file needs the sign: what follows the flag alone would be the URL.
    assert!(refused(&["echo", URL, "--json", "file"]).contains("file"));
}

#[test]
fn help_is_no_error_and_names_each_flag() {
    let all = [
        "connections",
        "duration",
        "ramp",
        "connecting",
        "timeout",
        "threads",
        "source",
        "header",
        "origin",
        "protocol",
        "ca",
        "insecure",
        "resume",
        "server-pid",
        "json",
        "report",
        "progress",
        "binary",
    ];
    for (mode, own) in [
        ("echo", &["rate", "depth", "size", "payload"][..]),
        ("hold", &["sweep", "pings", "size", "payload"]),
        ("connect", &["rate"]),
    ] {
        let output = finish(bench(&[mode, "--help"]));
        assert_eq!(output.status.code(), Some(0));
        let help = String::from_utf8(output.stdout).unwrap();
        for flag in all.iter().chain(own) {
            assert!(
                help.contains(&format!("  --{flag}")),
                "{mode}: {flag} in {help}"
            );
        }
        assert!(help.lines().all(|line| line.len() <= 100), "{help}");
    }
    let output = finish(bench(&["--help"]));
    let help = String::from_utf8(output.stdout).unwrap();
    for mode in ["echo", "hold", "connect"] {
        assert!(help.contains(&format!("\n  {mode} ")), "{help}");
    }
}

/// What is wrong is known before anybody is loaded.
#[test]
fn a_file_that_cannot_be_written_is_known_before_the_run() {
    let server = Program::serve(&[]);
    let url = echo_at(server.address);
    for flag in [
        "--json=/nowhere/a.json",
        "--report=/nowhere/a.html",
        "--report=",
    ] {
        let ended = Tool::start(bench(&["echo", &url, flag])).ended();
        assert!(matches!(ended.code, Some(1 | 2)), "{ended:?}");
        let name = flag.split('=').next().unwrap();
        assert!(ended.log.concat().contains(name), "{ended:?}");
    }
    assert_eq!(server.metric("connections_total"), 0);
}
