//! `tidemill check`: the effective configuration, where each value was set, and what this machine
//! allows of it. Starts nothing and changes nothing.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::config::{Config, ConfigError, FdTables, Invocation, Machine, OPTIONS, Plan};
use crate::config::{Secret, SlowPolicy, show_count, show_duration, show_size_rounded};
use crate::gate::channel::{Action, Circle, Exposure, Namespace, Namespaces};
use crate::gate::token::{KeyError, Keys};
use crate::transport::tls::{Certificates, CertificatesError, Tickets};

/// Prints the report on standard output and what is wrong on standard error. The exit code is 2
/// when the configuration does not fit the machine, else 0.
pub fn run(invocation: &Invocation, machine: &Machine) -> ExitCode {
    let plan = invocation.config.plan(machine);
    let certificates = certificates(&invocation.config);
    let to_show = certificates
        .as_ref()
        .and_then(|loaded| loaded.as_ref().ok());
    let keys = keys(&invocation.config);
    let report = report(invocation, machine, &plan, to_show, keys.as_ref().ok());
    // A reader that closed the pipe has read what it wanted.
    let _ = io::stdout().lock().write_all(report.as_bytes());
    let wrong = [
        plan.err().map(|error| error.to_string()),
        certificates.and_then(|loaded| Some(loaded.err()?.to_string())),
        keys.err().map(|error| error.to_string()),
    ];
    match wrong.into_iter().flatten().next() {
        None => ExitCode::SUCCESS,
        Some(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// What tokens would be verified by, as far as it is here.
fn keys(config: &Config) -> Result<Keys, KeyError> {
    let secret = config.token_secret.as_ref().map(Secret::expose);
    let public_key = config.token_public_key.as_ref().map(Secret::expose);
    Keys::load(secret, public_key)
}

fn counted(config: &Config, keys: &Keys) -> String {
    let mut lines = String::from("\nToken keys\n");
    if !keys.is_empty() {
        let _ = writeln!(lines, "  configured    {}", keys.len());
    }
    if let Some(url) = &config.token_jwks_url {
        let url = without_query(url.clone());
        let _ = writeln!(lines, "  fetched       from {url}, at start");
    }
    lines
}

/// What the TLS listeners would show, if there are any.
fn certificates(config: &Config) -> Option<Result<Certificates, CertificatesError>> {
    let is_complete = !config.tls_listen.is_empty() && config.validate().is_ok();
    is_complete.then(|| Certificates::load(config, &Tickets::new()?))
}

fn shown(certificates: &Certificates) -> String {
    let mut lines = String::from("\nCertificates\n");
    for shown in certificates.shown() {
        let file = match &shown.file {
            Some(file) => file.display().to_string(),
            None => "made at start, for development".to_owned(),
        };
        let (names, days) = (shown.names.join(", "), shown.days_left());
        let _ = writeln!(lines, "  {file}: {names}; {days} days left");
    }
    lines
}

fn report(
    invocation: &Invocation,
    machine: &Machine,
    plan: &Result<Plan, ConfigError>,
    certificates: Option<&Certificates>,
    keys: Option<&Keys>,
) -> String {
    let mut report = format!("tidemill {}\n\n", env!("CARGO_PKG_VERSION"));
    let mut warnings = invocation.warnings();
    match plan {
        Ok(plan) => {
            report += &options(invocation, &effective(&invocation.config, plan));
            report += &this_machine(machine);
            report += &what_fits(&invocation.config, plan);
            report += &certificates.map_or_else(String::new, shown);
            if let Some(keys) = keys.filter(|_| invocation.config.has_token_keys()) {
                report += &counted(&invocation.config, keys);
            }
            warnings.extend_from_slice(&plan.warnings);
        }
        Err(_) => {
            report += &options(invocation, &invocation.config);
            report += &this_machine(machine);
        }
    }
    report += &namespaces(&invocation.config);
    for warning in &warnings {
        let _ = write!(report, "\nwarning: {warning}");
    }
    if !warnings.is_empty() {
        report.push('\n');
    }
    report
}

/// Every option with its value and where it was set.
fn options(invocation: &Invocation, config: &Config) -> String {
    let mut lines = String::from("Options, and where each was set\n");
    for spec in OPTIONS {
        let variable = spec.variable();
        let value = match config.namespaces.len() {
            count if count > 0 && spec.name == "namespaces" => format!("{count} named, see below"),
            _ => without_query(spec.describe(config)),
        };
        let source = invocation.sources.of(spec);
        let _ = writeln!(lines, "  {variable:<31} {value:<26} {source}");
    }
    lines
}

/// An address without its query, which may be what opens it.
fn without_query(mut value: String) -> String {
    if let Some(mark) = value.find('?').filter(|_| value.contains("://")) {
        value.replace_range(mark + 1.., "***");
    }
    value
}

/// The configuration with the server's own decisions filled in.
fn effective(config: &Config, plan: &Plan) -> Config {
    Config {
        listen: Some(plan.listen.clone()),
        reactors: Some(plan.reactors),
        connections_max: Some(plan.connections_max),
        fd_tables: if plan.private_tables {
            FdTables::Private
        } else {
            FdTables::Shared
        },
        outbox_bytes_max: Some(
            config
                .outbox_bytes_max
                .unwrap_or(config.outbox_bytes_hard()),
        ),
        buffer_bytes_max: Some(plan.buffer_bytes_max),
        origins_echo: config.origins_echo.clone().or(config.origins.clone()),
        origins_raw: config.origins_raw.clone().or(config.origins.clone()),
        origins_native: config.origins_native_in_effect().or(config.origins.clone()),
        token_required: Some(config.token_is_required()),
        ..config.clone()
    }
}

fn this_machine(machine: &Machine) -> String {
    let memory = match machine.memory_bytes {
        0 => "not known".to_owned(),
        bytes => show_size_rounded(bytes),
    };
    let hard = machine.descriptors_hard.max(machine.descriptors_soft);
    format!(
        "
This machine
  cores         {}
  memory        {memory}
  descriptors   soft limit {}, raised at start to the hard limit {}
",
        machine.cores,
        show_count(machine.descriptors_soft),
        show_count(hard),
    )
}

fn what_fits(config: &Config, plan: &Plan) -> String {
    let tables = match plan.private_tables {
        true => "each with a descriptor table of its own",
        false => "with one descriptor table",
    };
    format!(
        "
What fits
  connections   {}, set by {}
  reactors      {}, {tables}, up to {} connections each
  descriptors   {} in a table when full
  buffers       {} together, {} for one slow reader, which is not listened to above {}
",
        show_count(plan.connections_max as u64),
        plan.bound,
        plan.reactors,
        show_count(plan.connections_per_reactor as u64),
        show_count(plan.descriptors_needed),
        show_size_rounded(plan.buffer_bytes_max as u64),
        show_size_rounded(config.outbox_bytes_hard() as u64),
        show_size_rounded(config.outbox_bytes_soft() as u64),
    )
}

/// Who may do what with which channels, as it holds in the end.
fn namespaces(config: &Config) -> String {
    let mut lines = String::from("\nChannels, and who may without a token of their own\n");
    let mut row = |name: &str, [subscribe, publish, presence, history]: [&str; 4], rest: &str| {
        let line = format!(
            "  {name:<15} {subscribe:<16} {publish:<16} {presence:<16} {history:<16} {rest}"
        );
        let _ = writeln!(lines, "{}", line.trim_end());
    };
    let actions = ["subscribe", "publish", "see who is on", "see what was"];
    row("", actions, "and");
    for (name, namespace) in Namespaces::from_config(config, Exposure::new(config)).iter() {
        let who = |action, is_kept: bool| match namespace.who(action) {
            Circle::Nobody => "nobody".to_owned(),
            circle if is_kept => circle.to_string(),
            _ => "not kept".to_owned(),
        };
        let cells = [
            who(Action::Subscribe, true),
            who(Action::Publish, true),
            who(Action::Presence, namespace.presence),
            who(Action::History, namespace.keeps_history()),
        ];
        let cells = cells.each_ref().map(String::as_str);
        let name = match name {
            "" => "without prefix".to_owned(),
            name => format!("{name}:…"),
        };
        row(&name, cells, &beside(namespace).join(", "));
    }
    lines
}

/// What else there is to say of a namespace.
fn beside(namespace: &Namespace) -> Vec<String> {
    let history = namespace.keeps_history().then(|| {
        let (size, ttl) = (namespace.history_size, namespace.history_ttl);
        format!("{} for {}", show_count(size.into()), show_duration(ttl))
    });
    let words = [
        ("presence", namespace.presence),
        ("join_leave", namespace.join_leave),
        ("force_push_join_leave", namespace.force_push_join_leave),
        ("force_positioning", namespace.force_positioning),
        ("force_recovery", namespace.force_recovery),
        ("user#lists", namespace.allow_user_limited_channels),
        ("wildcards", namespace.allow_wildcards),
        ("raw", namespace.raw),
        ("protected", namespace.protected),
        (
            "drops for the slow",
            namespace.slow_policy == SlowPolicy::Drop,
        ),
    ];
    let words = words.into_iter().filter(|(_, is_so)| *is_so);
    history
        .into_iter()
        .chain(words.map(|(word, _)| word.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Parsed, parse};

    fn machine() -> Machine {
        Machine {
            cores: 2,
            descriptors_soft: 1024,
            descriptors_hard: 20_000,
            memory_bytes: 24 << 30,
            ipv6: true,
            unshare: true,
        }
    }

    fn invocation(args: &[&str], variables: &[(&str, &str)]) -> Invocation {
        let args = ["tidemill", "check"].iter().chain(args);
        match parse(args, variables.iter().copied()).unwrap() {
            Parsed::Run(invocation) => *invocation,
            Parsed::Print(text) => panic!("printed {text}"),
        }
    }

    fn reported(args: &[&str], variables: &[(&str, &str)], machine: &Machine) -> String {
        let invocation = invocation(args, variables);
        let keys = keys(&invocation.config).unwrap();
        let plan = invocation.config.plan(machine);
        report(&invocation, machine, &plan, None, Some(&keys))
    }

    /// The words of the line that begins with `start`.
    fn line<'a>(report: &'a str, start: &str) -> Vec<&'a str> {
        let mut lines = report.lines().map(str::trim_start);
        let found = lines.find(|line| line.starts_with(&format!("{start} ")));
        found
            .unwrap_or_else(|| panic!("no {start} in:\n{report}"))
            .split_whitespace()
            .collect()
    }

    #[test]
    fn every_option_is_listed_with_its_value_and_where_it_was_set() {
        let report = reported(
            &["--backlog", "128"],
            &[("TIDEMILL_PING_INTERVAL", "1m"), ("RUST_LOG", "debug")],
            &machine(),
        );
        for spec in OPTIONS {
            assert!(line(&report, &spec.variable()).len() >= 3, "{report}");
        }
        assert_eq!(line(&report, "TIDEMILL_BACKLOG")[1..], ["128", "flag"]);
        assert_eq!(
            line(&report, "TIDEMILL_PING_INTERVAL")[1..],
            ["60s", "environment"]
        );
        assert_eq!(
            line(&report, "TIDEMILL_LOG")[1..],
            ["debug", "environment,", "RUST_LOG"]
        );
        assert_eq!(
            line(&report, "TIDEMILL_CLOSE_TIMEOUT")[1..],
            ["5s", "default"]
        );
    }

    #[test]
    fn what_the_server_decides_is_shown_as_decided() {
        let report = reported(
            &[],
            &[],
            &Machine {
                ipv6: false,
                ..machine()
            },
        );
        assert_eq!(
            line(&report, "TIDEMILL_LISTEN")[1..],
            ["127.0.0.1:7000", "default"]
        );
        assert_eq!(line(&report, "TIDEMILL_REACTORS")[1..], ["2", "default"]);
        assert_eq!(
            line(&report, "TIDEMILL_FD_TABLES")[1..],
            ["shared", "default"]
        );
        assert_eq!(
            line(&report, "TIDEMILL_MAX_OUTBOX_BYTES")[1..],
            ["1MiB", "default"]
        );
        assert_eq!(
            line(&report, "TIDEMILL_MAX_BUFFER_BYTES")[1..],
            ["6GiB", "default"]
        );
        let connections = line(&report, "TIDEMILL_MAX_CONNECTIONS")[1]
            .parse::<u64>()
            .unwrap();
        assert!((19_900..20_000).contains(&connections), "{connections}");
    }

    #[test]
    fn the_descriptor_limit_and_what_it_allows_are_named() {
        let report = reported(&[], &[], &machine());
        assert!(report.contains("soft limit 1,024, raised at start to the hard limit 20,000"));
        assert!(
            report.contains("set by the descriptor limit (ulimit -n)"),
            "{report}"
        );
    }

    #[test]
    fn a_configuration_that_does_not_fit_is_still_shown() {
        let args = ["--max-connections", "1000000", "--fd-tables", "shared"];
        let report = reported(&args, &[], &machine());
        assert_eq!(
            line(&report, "TIDEMILL_MAX_CONNECTIONS")[1..],
            ["1000000", "flag"]
        );
        assert!(
            report.contains("hard limit 20,000") && !report.contains("What fits"),
            "{report}"
        );
    }

    #[test]
    fn a_secret_is_shown_as_set_with_its_file_and_place_and_nothing_of_it() {
        let secret = "hunter2-hunter2-hunter2-hunter2-hunter2";
        let name = format!("tidemill-{}-check-secret", std::process::id());
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, format!("{secret}\n{secret}-2\n")).unwrap();
        let path = file.to_str().unwrap();
        let variables = [
            ("TIDEMILL_TOKEN_SECRET_FILE", path),
            ("TIDEMILL_API_KEY", secret),
        ];
        let report = reported(&[], &variables, &machine());
        std::fs::remove_file(&file).unwrap();
        assert!(!report.contains("hunter2"), "{report}");
        let shown = format!("(set, from {path}) environment");
        assert_eq!(line(&report, "TIDEMILL_TOKEN_SECRET")[1..].join(" "), shown);
        let api_key = &line(&report, "TIDEMILL_API_KEY")[1..];
        assert_eq!(api_key, ["(set)", "environment"]);
        let public_key = &line(&report, "TIDEMILL_TOKEN_PUBLIC_KEY")[1..];
        assert_eq!(public_key, ["none", "default"]);
        let required = &line(&report, "TIDEMILL_TOKEN_REQUIRED")[1..];
        assert_eq!(required, ["true", "default"]);
        let (_, keys) = report.split_once("Token keys\n").unwrap();
        assert_eq!(line(keys, "configured")[1], "2");
    }

    #[test]
    fn without_a_key_no_token_is_required_and_none_is_counted() {
        let report = reported(&["--origins", "same-origin,null"], &[], &machine());
        let required = &line(&report, "TIDEMILL_TOKEN_REQUIRED")[1..];
        assert_eq!(required, ["false", "default"]);
        let echo = &line(&report, "TIDEMILL_ORIGINS_ECHO")[1..];
        assert_eq!(echo, ["same-origin,null", "default"]);
        assert!(!report.contains("Token keys"), "{report}");
    }

    #[test]
    fn the_namespaces_in_effect_are_shown_with_who_may_what() {
        let json = r#"[{"name":"chat","allow_subscribe_for_client":true,"presence":true,
            "allow_publish_for_subscriber":true,"allow_presence_for_client":true,
            "history_size":1000,"history_ttl":"90s","slow_policy":"drop"},
            {"name":"news","protected":true,"allow_wildcards":true},
            {"name":"demo","off":true}]"#;
        let report = reported(&[], &[("TIDEMILL_NAMESPACES", json)], &machine());
        let named = &line(&report, "TIDEMILL_NAMESPACES")[1..];
        assert_eq!(named.join(" "), "3 named, see below environment");
        let (_, shown) = report.split_once("Channels, ").unwrap();
        assert_eq!(
            line(shown, "chat:…")[1..].join(" "),
            "users subscribed users users nobody 1,000 for 90s, presence, drops for the slow"
        );
        assert_eq!(
            line(shown, "news:…")[1..].join(" "),
            "nobody nobody nobody nobody wildcards, protected"
        );
        let bare = line(shown, "without prefix")[2..].join(" ");
        assert_eq!(
            bare,
            "everybody everybody not kept not kept user#lists, raw"
        );
        assert!(!shown.contains("demo:"), "{shown}");

        let keyed = [("TIDEMILL_TOKEN_SECRET", "hunter2-hunter2-hunter2-hunter2-")];
        let report = reported(&[], &keyed, &machine());
        let bare = &line(&report, "without prefix")[2..4];
        assert_eq!(bare, ["everybody", "users"]);
        let demo = line(&report, "demo:…")[1..].join(" ");
        let everybody = "everybody everybody everybody everybody";
        assert_eq!(
            demo,
            format!("{everybody} 100 for 300s, presence, join_leave")
        );
        let native = &line(&report, "TIDEMILL_ORIGINS_NATIVE")[1..];
        assert_eq!(native, ["*", "default"]);
    }

    #[test]
    fn the_document_s_example_is_shown_as_the_document_has_it() {
        let document = include_str!("../../docs/access.md");
        let block = |start: &str| {
            let (_, rest) = document.split_once(start).unwrap();
            rest.split_once("```").unwrap().0.trim()
        };
        let example = [("TIDEMILL_NAMESPACES", block("```json"))];
        let keyed = ("TIDEMILL_TOKEN_SECRET", "hunter2-hunter2-hunter2-hunter2-");
        let variables = [example[0], keyed];
        let report = reported(&[], &variables, &machine());
        let shown = block("```text\nChannels,");
        assert!(report.contains(shown), "{report}");
        assert!(!report.contains("warning"), "{report}");
    }

    #[test]
    fn warnings_close_the_report() {
        let report = reported(&["--idle-timeout", "20s"], &[], &machine());
        let last = report.lines().last().unwrap();
        assert!(
            last.starts_with("warning: TIDEMILL_IDLE_TIMEOUT=20s"),
            "{report}"
        );
        assert!(!reported(&[], &[], &machine()).contains("warning"));
    }
}
