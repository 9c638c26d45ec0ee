//! The command line, the variables and the file of variables; `check`; and what is refused.

use std::{fs, process::Command};

use crate::{
    program::{Program, finish, tidemill},
    wire::Wire,
};

/// Must be refused as a wrong configuration; gives the one line that says so.
#[track_caller]
fn refused(command: Command) -> String {
    let output = finish(command);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    let lines: Vec<&str> = error.lines().collect();
    let last = lines.last().unwrap();
    assert!(last.starts_with("error: "), "{error}");
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.starts_with("error: "))
            .count(),
        1
    );
    (*last).to_owned()
}

fn with(name: &str, value: &str) -> Command {
    let mut command = tidemill(&[]);
    command.env("TIDEMILL_LISTEN", "127.0.0.1:0");
    command.env(name, value);
    command
}

#[test]
fn help_shows_each_option_with_its_variable_and_default() {
    let output = finish(tidemill(&["--help"]));
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    for spec in tidemill::config::OPTIONS {
        let variable = format!(" {} ", spec.variable());
        let line = help.lines().find(|line| line.contains(&variable));
        let line = line.unwrap_or_else(|| panic!("no {variable}in\n{help}"));
        // Secrets have no flag: others could read it in the list of processes.
        let flag = format!("  --{} ", spec.name);
        assert_eq!(line.starts_with(&flag), !spec.is_secret(), "{line}");
    }
    assert!(help.contains("--ping-interval TIME") && help.contains("25s"));
}

#[test]
fn help_never_shows_what_the_environment_holds() {
    let mut command = tidemill(&["--help"]);
    command.env("TIDEMILL_SERVER_HEADER", "from-the-environment");
    let output = finish(command);
    assert!(
        !String::from_utf8(output.stdout)
            .unwrap()
            .contains("from-the-environment")
    );
}

#[test]
fn the_version_is_one_line() {
    let output = finish(tidemill(&["--version"]));
    let expected = format!("tidemill {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn a_bad_value_names_variable_and_remedy() {
    let cases = [
        ("TIDEMILL_PING_INTERVAL", "25", "25s"),
        ("TIDEMILL_MAX_MESSAGE_BYTES", "64 potatoes", "KiB"),
        ("TIDEMILL_TAKEOVER", "maybe", "true"),
        ("TIDEMILL_LISTEN", "localhost", "127.0.0.1"),
        ("TIDEMILL_REACTORS", "0", "1"),
        ("TIDEMILL_FD_TABLES", "own", "private"),
        ("TIDEMILL_DIALECTS", "echo,telnet", "welcome"),
        (
            "TIDEMILL_MAX_OUTBOX_BYTES",
            "1KiB",
            "TIDEMILL_MAX_MESSAGE_BYTES",
        ),
    ];
    for (name, value, remedy) in cases {
        let error = refused(with(name, value));
        assert!(error.contains(name), "{error}");
        assert!(error.contains(remedy), "{remedy} in {error}");
    }
}

#[test]
fn what_is_no_option_is_refused_with_the_one_that_was_meant() {
    let error = refused(with("TIDEMILL_PING_INTERVALL", "5s"));
    assert!(error.contains("TIDEMILL_PING_INTERVALL"), "{error}");
    assert!(
        error.contains("did you mean TIDEMILL_PING_INTERVAL?"),
        "{error}"
    );
    let error = refused(tidemill(&["--ping-intervall", "5s"]));
    assert!(error.contains("--help"), "{error}");
    refused(tidemill(&["dance"]));
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let error = refused(tidemill(&["--accept", "handoff", "--fd-tables", "private"]));
    assert!(error.contains("TIDEMILL_ACCEPT") && error.contains("TIDEMILL_FD_TABLES"));
}

#[test]
fn names_that_kubernetes_injects_are_not_taken_for_options() {
    let mut command = with("TIDEMILL_PORT", "tcp://10.0.0.1:7000");
    command.env("TIDEMILL_SERVICE_HOST", "10.0.0.1");
    command.env("TIDEMILL_PORT_7000_TCP", "tcp://10.0.0.1:7000");
    let program = Program::start(command);
    Wire::open(program.address, "/echo").close(1000);
}

#[test]
fn a_flag_counts_before_a_variable_and_a_variable_before_the_file() {
    let folder = std::env::temp_dir().join(format!("tidemill-options-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("tidemill.env");
    let text = "# comment\nTIDEMILL_SERVER_HEADER=file\nTIDEMILL_BACKLOG=77\n\
                TIDEMILL_CLOSE_TIMEOUT=7s\n";
    fs::write(&file, text).unwrap();
    let mut command = tidemill(&["check", "--backlog", "99"]);
    command.env("TIDEMILL_ENV_FILE", &file);
    command.env("TIDEMILL_SERVER_HEADER", "variable");
    let output = finish(command);
    let report = String::from_utf8(output.stdout).unwrap();
    fs::remove_dir_all(&folder).unwrap();
    assert!(output.status.success());
    for (name, value) in [
        ("TIDEMILL_BACKLOG", "99"),
        ("TIDEMILL_SERVER_HEADER", "variable"),
        ("TIDEMILL_CLOSE_TIMEOUT", "7s"),
    ] {
        let line = report.lines().find(|line| line.contains(name)).unwrap();
        assert_eq!(line.split_whitespace().nth(1), Some(value), "{line}");
    }
    let missing = ["--env-file", "/nonexistent/tidemill.env"];
    assert!(refused(tidemill(&missing)).contains("/nonexistent/tidemill.env"));
}

#[test]
fn check_shows_the_configuration_and_what_the_limit_allows() {
    let output = finish(crate::program::tidemill_under(
        500,
        &["check", "--reactors", "1"],
    ));
    assert_eq!(output.status.code(), Some(0));
    let report = String::from_utf8(output.stdout).unwrap();
    for spec in tidemill::config::OPTIONS {
        assert!(report.contains(&spec.variable()), "{report}");
    }
    assert!(report.contains("soft limit 500"), "{report}");
    let fits = report.split_once("What fits").unwrap().1;
    let connections = fits.split_whitespace().nth(1).unwrap();
    let connections: u32 = connections.trim_end_matches(',').parse().unwrap();
    assert!((400..500).contains(&connections), "{fits}");
    assert!(fits.contains("ulimit -n"), "{fits}");
}

#[test]
fn check_refuses_what_does_not_fit_as_serve_does() {
    for command in ["check", "serve"] {
        let args = [
            command,
            "--max-connections",
            "5000",
            "--fd-tables",
            "shared",
        ];
        let error = refused(crate::program::tidemill_under(500, &args));
        assert!(error.contains("TIDEMILL_MAX_CONNECTIONS"), "{error}");
        assert!(error.contains("limit is 500; raise it"), "{error}");
    }
}
