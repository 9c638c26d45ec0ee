//! `tidemill bench`: loads a server, this one or any other, and says what it saw.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, IsTerminal as _, Read as _, Write as _},
    path::PathBuf,
    process::ExitCode,
    str::FromStr,
};

use clap::{Arg, ArgAction, ArgMatches, Command, error::ErrorKind};

use crate::{
    config::{read_count, read_duration, read_size},
    load::{self, Mode, Options, PAYLOAD_BYTES_MAX, Pace, Payload, Plan, Report, Show, Target},
    server,
    transport::tls::Authorities,
};

/// Exit code 0 when all went well, 1 when a connection failed or a message was lost or the run
/// could not be made, 2 when the options are wrong.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => return asked_for(&error),
    };
    let outcome = match matches.subcommand() {
        Some((name, matches)) => bench(name, matches),
        None => Err(
            "expected a mode: echo, hold, fanout or connect; see `tidemill bench --help`".into(),
        ),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Problem { text, code }) => {
            eprintln!("error: {text}");
            ExitCode::from(code)
        }
    }
}

/// Why there is no report.
struct Problem {
    text: String,
    code: u8,
}

/// The options are wrong.
impl From<String> for Problem {
    fn from(text: String) -> Self {
        Self { text, code: 2 }
    }
}

impl From<&str> for Problem {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

/// The run could not be made, or not be told about.
fn failure(error: impl ToString) -> Problem {
    Problem {
        text: error.to_string(),
        code: 1,
    }
}

/// Makes a run; says whether all of it went well.
fn bench(name: &str, matches: &ArgMatches) -> Result<bool, Problem> {
    let given = Given { matches };
    let options = options(name, &given)?;
    let show = given.show()?;
    let machine = server::machine().map_err(failure)?;
    let plan = Plan::new(options, &machine, load::inherited_descriptors())
        .map_err(|error| error.to_string())?;
    // What cannot be written is better known before the run than after it.
    let page = given.get("report").map(PathBuf::from);
    let json = given.get("json").filter(|path| !path.is_empty());
    for (flag, path) in [("report", given.get("report")), ("json", json)] {
        if let Some(path) = path {
            // What is there already stays until there is something to put in its place.
            let opened = File::options().append(true).create(true).open(path);
            opened.map_err(|error| format!("--{flag} {path:?}: {error}"))?;
        }
    }
    let report = load::run(plan, show).map_err(failure)?;
    if let Some(path) = page {
        fs::write(path, report.html()).map_err(failure)?;
    }
    match given.get("json") {
        Some("") => print(&(report.json() + "\n")),
        Some(path) => {
            fs::write(path, report.json() + "\n").map_err(failure)?;
            print(&report.to_string());
        }
        None => print(&report.to_string()),
    }
    Ok(Report::is_clean(&report))
}

/// A closed standard output is no failure of the run.
fn print(text: &str) {
    let _ = io::stdout().lock().write_all(text.as_bytes());
}

fn options(name: &str, given: &Given<'_>) -> Result<Options, String> {
    let mode = match name {
        "echo" => Mode::Echo,
        "hold" => Mode::Hold,
        "fanout" => Mode::Fanout,
        _ => Mode::Connect,
    };
    let url = given.get("url").unwrap_or_default();
    let target = Target::parse(url).map_err(|problem| format!("URL {url:?}: {problem}"))?;
    let mut options = Options::new(mode, target);
    given.set("connections", count, &mut options.connections)?;
    given.set("connecting", count, &mut options.connecting)?;
    given.set("timeout", read_duration, &mut options.timeout)?;
    given.set("duration", read_duration, &mut options.duration)?;
    given.set("source", load::sources, &mut options.sources)?;
    options.authorities = authorities(given)?;
    options.resume = given.has("resume");
    options.threads = given.read("threads", count)?;
    options.ramp = given.read("ramp", number)?;
    options.server_pid = given.read("server-pid", number)?;
    options.sweep = given.read("sweep", count)?;
    options.pings = given.read("pings", count)?;
    options.pace = match (given.read("rate", number)?, given.read("depth", count)?) {
        (Some(_), Some(_)) => {
            return Err(
                "--rate and --depth exclude each other: with a rate, as much is in \
                        flight as the server leaves unanswered"
                    .to_owned(),
            );
        }
        (Some(per_second), None) => Pace::Open { per_second },
        (None, Some(depth)) => Pace::Closed { depth },
        (None, None) => options.pace,
    };
    if let Some(payload) = payload(given, options.payload.len())? {
        options.payload = payload;
    }
    for header in given.all("header") {
        let (name, value) = header
            .split_once(':')
            .ok_or(format!("--header {header:?}: write 'Name: value'"))?;
        let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
        options.headers.push((name, value));
    }
    if let Some(origin) = given.get("origin") {
        if origin.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(format!("--origin {origin:?}: must not hold control bytes"));
        }
        options
            .headers
            .push(("Origin".to_owned(), origin.to_owned()));
    }
    options.protocols = given.all("protocol").map(str::to_owned).collect();
    Ok(options)
}

fn authorities(given: &Given<'_>) -> Result<Option<Authorities>, String> {
    match (given.get("ca"), given.has("insecure")) {
        (Some(_), true) => Err(
            "--ca and --insecure exclude each other: one verifies, the other does not".to_owned(),
        ),
        (Some(file), false) => Ok(Some(Authorities::File(file.into()))),
        (None, true) => Ok(Some(Authorities::Anybody)),
        (None, false) => Ok(None),
    }
}

fn payload(given: &Given<'_>, default: usize) -> Result<Option<Payload>, String> {
    let is_binary = given.has("binary");
    let size = given.read("size", |text| {
        usize::try_from(read_size(text)?).map_err(|_| "larger than any message".to_owned())
    })?;
    let Some(path) = given.get("payload") else {
        let size = size.unwrap_or(default);
        if size > PAYLOAD_BYTES_MAX {
            return Err(format!("--size {size}: must be at most 64MiB"));
        }
        return Ok(Some(Payload::of_length(size, is_binary)));
    };
    if size.is_some() {
        return Err("--size and --payload exclude each other".to_owned());
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| {
            file.take(PAYLOAD_BYTES_MAX as u64 + 1)
                .read_to_end(&mut bytes)
        })
        .map_err(|error| format!("--payload {path}: {error}"))?;
    if bytes.len() > PAYLOAD_BYTES_MAX {
        return Err(format!("--payload {path}: must be at most 64MiB"));
    }
    if is_binary {
        return Ok(Some(Payload::Binary(bytes)));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(Payload::Text(text))),
        Err(_) => Err(format!(
            "--payload {path}: not UTF-8, and so no text message; add --binary"
        )),
    }
}

/// The flags that were given.
struct Given<'m> {
    matches: &'m ArgMatches,
}

impl<'m> Given<'m> {
    fn get(&self, name: &str) -> Option<&'m str> {
        let value = self.matches.try_get_one::<String>(name).ok().flatten();
        value.map(String::as_str)
    }

    fn has(&self, name: &str) -> bool {
        matches!(self.matches.try_get_one::<bool>(name), Ok(Some(true)))
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &'m str> {
        let values = self.matches.try_get_many::<String>(name).ok().flatten();
        values.into_iter().flatten().map(String::as_str)
    }

    /// The value of a flag; an error names the flag and the value.
    fn read<T>(
        &self,
        name: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        let value = read(text).map_err(|problem| format!("--{name} {text:?}: {problem}"))?;
        Ok(Some(value))
    }

    fn set<T>(
        &self,
        name: &str,
        read: impl Fn(&str) -> Result<T, String>,
        to: &mut T,
    ) -> Result<(), String> {
        if let Some(value) = self.read(name, read)? {
            *to = value;
        }
        Ok(())
    }

    fn show(&self) -> Result<Show, String> {
        match self.get("progress") {
            Some("off") => Ok(Show::Nothing),
            Some("lines") => Ok(Show::Lines),
            Some("bars") => Ok(Show::Bars),
            None if io::stderr().is_terminal() => Ok(Show::Bars),
            None => Ok(Show::Nothing),
            Some(other) => Err(format!("--progress {other:?}: write bars, lines or off")),
        }
    }
}

fn count(text: &str) -> Result<usize, String> {
    usize::try_from(read_count(text)?).map_err(|_| "too large".to_owned())
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    let number = text.replace('_', "").parse();
    number.map_err(|_| "not a number".to_owned())
}

/// What clap stopped at: the help is no error.
fn asked_for(error: &clap::Error) -> ExitCode {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        print(&error.to_string());
        return ExitCode::SUCCESS;
    }
    if error.kind() == ErrorKind::MissingRequiredArgument {
        eprintln!("error: a URL is missing: tidemill bench MODE ws://HOST:PORT/PATH");
        return ExitCode::from(2);
    }
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    eprintln!("error: {line}; see `tidemill bench --help`");
    ExitCode::from(2)
}

/// The command line as clap sees it.
fn command() -> Command {
    let mode = |name: &'static str| {
        Command::new(name)
            .override_usage(format!("tidemill bench {name} URL [--flag VALUE]..."))
            .disable_version_flag(true)
            .arg(
                Arg::new("url")
                    .value_name("URL")
                    .required(true)
                    .help("ws://HOST:PORT/PATH or wss://HOST:PORT/PATH"),
            )
            .args(FLAGS_OF_ALL.iter().map(argument))
    };
    Command::new("bench")
        .bin_name("tidemill bench")
        .about(
            "Loads a WebSocket server and says what it saw: counts, latencies, what it cost.\n\
             `tidemill bench MODE --help` lists the flags of a mode.",
        )
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .disable_version_flag(true)
        .subcommand(
            mode("echo")
                .about("Messages and their echoes: throughput and latency")
                .args(FLAGS_OF_MESSAGES.iter().map(argument)),
        )
        .subcommand(
            mode("hold")
                .about("Connections that stay open")
                .args(FLAGS_OF_HOLD.iter().map(argument)),
        )
        .subcommand(
            mode("fanout")
                .about(
                    "One publisher, and subscribers to whom the server relays what it says, such \
                     as ws://HOST:PORT/raw/CHANNEL",
                )
                .args(FLAGS_OF_FANOUT.iter().map(argument)),
        )
        .subcommand(
            mode("connect")
                .about("Handshakes and closes")
                .args(FLAGS_OF_CONNECT.iter().map(argument)),
        )
}

/// A flag: its name, the name of its value (none for a switch), and its help.
type Flag = (&'static str, &'static str, &'static str);

fn argument(flag: &Flag) -> Arg {
    let (name, value, help) = *flag;
    let argument = Arg::new(name).long(name).help(help);
    match name {
        _ if value.is_empty() => argument.action(ArgAction::SetTrue),
        "header" | "protocol" => argument.value_name(value).action(ArgAction::Append),
        // Without a file the report goes to standard output.
        "json" => argument
            .value_name(value)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value(""),
        // A value that looks like a flag is told by its own name.
        _ => argument.value_name(value).allow_hyphen_values(true),
    }
}

const FLAGS_OF_ALL: [Flag; 18] = [
    (
        "connections",
        "N",
        "Connections, subscribers of a fan-out; 64, or 1000 for hold and fanout",
    ),
    ("duration", "TIME", "How long the load lasts; 10s"),
    ("ramp", "N", "Open at most so many connections a second"),
    ("connecting", "N", "Handshakes under way at once; 256"),
    (
        "timeout",
        "TIME",
        "For a handshake, and for late answers; 10s",
    ),
    (
        "threads",
        "N",
        "Threads; one a core, or as many as descriptors need",
    ),
    (
        "source",
        "LIST",
        "Source addresses: 127.0.0.2,127.0.1.1-127.0.1.9",
    ),
    ("header", "LINE", "A header of the handshake: 'Name: value'"),
    ("origin", "ORIGIN", "The Origin header"),
    ("protocol", "NAME", "A subprotocol to offer"),
    (
        "ca",
        "FILE",
        "wss: authorities (PEM) instead of this system's",
    ),
    ("insecure", "", "wss: accept any certificate"),
    ("resume", "", "wss: resume earlier TLS sessions"),
    ("server-pid", "PID", "Measure this process as the server"),
    (
        "json",
        "FILE",
        "The report as JSON instead; with =FILE beside it",
    ),
    ("report", "FILE", "Write an HTML report with plots"),
    ("progress", "HOW", "bars, lines or off; bars on a terminal"),
    ("binary", "", "Send binary messages instead of text"),
];

const FLAGS_OF_MESSAGES: [Flag; 4] = [
    (
        "rate",
        "N",
        "Messages a second over all connections: an open loop",
    ),
    (
        "depth",
        "N",
        "Messages in flight on a connection: a closed loop; 1",
    ),
    ("size", "SIZE", "Bytes of a message; 20"),
    ("payload", "FILE", "The message itself"),
];

const FLAGS_OF_HOLD: [Flag; 4] = [
    ("sweep", "N", "Then an echo over each connection, N at once"),
    ("pings", "N", "Then a ping over each connection, N at once"),
    ("size", "SIZE", "Bytes of a message of the sweep; 20"),
    ("payload", "FILE", "The message itself"),
];

const FLAGS_OF_FANOUT: [Flag; 3] = [
    ("rate", "N", "Publications a second: an open loop; 10"),
    (
        "depth",
        "N",
        "Publications that not all have yet: a closed loop, on one thread",
    ),
    ("size", "SIZE", "Bytes of a publication; 64, at least 40"),
];

const FLAGS_OF_CONNECT: [Flag; 1] = [("rate", "N", "Handshakes a second: an open loop")];
