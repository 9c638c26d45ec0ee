//! Echo servers over TLS 1.3, compared by the CPU time that a message or a handshake costs them.
//!
//! ```text
//! cargo build --release
//! cargo bench --manifest-path benches/Cargo.toml --bench tls
//! cargo bench --manifest-path benches/Cargo.toml --bench tls -- --only 64x20,resumed,storm
//! ```
//!
//! The floor is an echo over the system's OpenSSL: building it takes the files of libssl-dev, and
//! `--no-default-features` leaves all of this out. Two servers speak plain
//! WebSocket in the same rounds, for what TLS costs. A lost or changed message, a ticket refused
//! and a server that agrees to other parameters than the rest end the run. `--help` names all
//! options.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use harness::machine;
use harness::report::{self, Format};
use harness::rounds::in_turns;
use harness::selection::Selection;
use harness::servers::{CLIENT_CORE, FLOOR, Kind, Server, Variables};
use harness::tables;
use harness::tls::certificate::Certificate;
use harness::tls::idle::Wave;
use harness::tls::measure::{measure, start};
use harness::tls::probe::Probe;
use harness::tls::storm::{self, Storm};
use harness::tls::tables::{IDLE_COLUMNS, idle_title, of_storms, storm_legend};
use harness::tls::workload::{self, Part, SecuredWorkload};

/// The client counts bytes, so nothing may come that it did not ask for.
const VARIABLES: Variables = &[("TIDEMILL_PING_INTERVAL", "0")];
/// Descriptors that a process needs beside its connections.
const DESCRIPTORS_BESIDE: u64 = 32;
/// Servers whose names end like this speak plain WebSocket, those of --extra too.
const PLAIN: &str = "-ws";
const DEFAULT: [&str; 5] = [
    FLOOR,
    "tidemill",
    "tokio-rustls",
    "tidemill-ws",
    "tokio-tungstenite-ws",
];

/// Compares TLS echo servers by CPU time per message and handshake, memory, and calm in a storm.
#[derive(Parser)]
struct Options {
    /// Rounds, in each of which every server has its turn.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Seconds that one server is measured in one round; from 1 on, ticks are fine enough.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Parts to run, by name: 64x20, 64x1KiB, 64x16KiB, connect, resumed, idle, storm.
    #[arg(long, value_delimiter = ',', value_parser = workload::named)]
    only: Vec<Part>,
    /// Connections of the idle part; both client and server need a descriptor for each.
    #[arg(
        long,
        default_value_t = 5_000,
        value_parser = clap::value_parser!(u32).range(1..=450_000)
    )]
    connections: u32,
    #[command(flatten)]
    selection: Selection,
    /// Write the tables as Markdown, with machine, command and commit.
    #[arg(long)]
    markdown: bool,
    /// What cargo passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<()> {
    let certificate = Certificate::generate()?;
    let bench = Bench {
        servers: servers(&options.selection, &certificate).map_err(io::Error::other)?,
        probe: Probe::new(&certificate.der),
        rounds: options.rounds.into(),
        duration: Duration::try_from_secs_f64(options.seconds).map_err(io::Error::other)?,
        connections: options.connections as usize,
        format: report::format(options.markdown),
    };
    let limit = machine::raise_descriptor_limit()?;
    if u64::from(options.connections) + DESCRIPTORS_BESIDE > limit {
        return Err(io::Error::other(format!(
            "{} connections need a higher `ulimit -Hn` than {limit}, or fewer --connections",
            options.connections
        )));
    }
    machine::pin_to_core(CLIENT_CORE)?;
    report::introduce("tls", bench.format);
    bench.introduce_servers()?;
    println!("{}\n", tables::LEGEND);
    let parts = match &options.only[..] {
        [] => &workload::ALL[..],
        only => only,
    };
    for part in parts {
        match part {
            Part::Measured(workload) => bench.measured(workload)?,
            Part::Idle => bench.idle()?,
            Part::Storm => bench.storm()?,
        }
    }
    Ok(())
}

fn servers(selection: &Selection, certificate: &Certificate) -> Result<Vec<Kind>, String> {
    let mut peers = vec![
        Kind::peer(FLOOR, env!("CARGO_BIN_EXE_floor-tls")),
        Kind::peer("tokio-rustls", env!("CARGO_BIN_EXE_tokio-rustls-echo")),
    ];
    match selection.tidemill("tidemill-ws", VARIABLES) {
        Ok(kind) => peers.push(kind),
        Err(error) if selection.wants("tidemill-ws", true) => return Err(error),
        Err(_) => {}
    }
    let plain = env!("CARGO_BIN_EXE_tokio-tungstenite-echo");
    peers.push(Kind::peer("tokio-tungstenite-ws", plain));
    let kinds = selection.among(peers, &DEFAULT, VARIABLES)?;
    let secured = |kind: Kind| match kind.name.ends_with(PLAIN) {
        true => kind,
        false => kind.secured(certificate.chain(), certificate.key()),
    };
    Ok(kinds.into_iter().map(secured).collect())
}

/// What all parts share.
struct Bench {
    servers: Vec<Kind>,
    probe: Probe,
    rounds: usize,
    duration: Duration,
    connections: usize,
    format: Format,
}

impl Bench {
    fn secured(&self) -> Vec<&Kind> {
        self.servers
            .iter()
            .filter(|kind| kind.is_secured())
            .collect()
    }

    /// Starts each secured server once: all that is compared agrees on everything, or nothing is.
    fn introduce_servers(&self) -> io::Result<()> {
        let openssl = openssl::version::version();
        println!("The floor is made of {openssl}. All have one certificate, ECDSA P-256.\n");
        let header = ["server", "agreed to", "tickets"];
        let mut rows = vec![header.map(str::to_owned)];
        for kind in self.secured() {
            let mut agreement = None;
            Server::start_with(kind, |server| {
                agreement = Some(self.probe.visit(server)?);
                Ok(())
            })?;
            let agreement = agreement.ok_or_else(|| io::Error::other("nobody was visited"))?;
            rows.push([
                kind.name.clone(),
                agreement.parameters.to_string(),
                agreement.tickets.to_string(),
            ]);
        }
        println!("{}", report::table(&rows, self.format));
        Ok(())
    }

    fn measured(&self, workload: &SecuredWorkload) -> io::Result<()> {
        let name = workload.workload.name;
        let servers: Vec<_> = self
            .servers
            .iter()
            .filter(|kind| workload.suits(kind))
            .collect();
        let rounds = in_turns(name, self.rounds, &servers, |_, kind| {
            let measured = measure(kind, workload, &self.probe, self.duration)?;
            let said = measured.summary();
            Ok((measured, said))
        })?;
        println!(
            "{}",
            tables::of_workload(&workload.workload, &rounds, FLOOR, self.format)
        );
        Ok(())
    }

    fn storm(&self) -> io::Result<()> {
        let rounds = in_turns("storm", self.rounds, &self.secured(), |_, kind| {
            let weather = |storm| storm::measure(kind, storm, &self.probe, self.duration);
            let [calm, handshakes, hellos] = Storm::ALL.map(weather);
            let weather = [calm?, handshakes?, hellos?];
            let p99 = weather.each_ref().map(|weather| weather.p99_us());
            let said = format!("p99 {:.0}, {:.0} and {:.0} us", p99[0], p99[1], p99[2]);
            Ok((weather, said))
        })?;
        println!("{}\n", storm_legend(self.format));
        println!("{}", of_storms(&rounds, self.format));
        Ok(())
    }

    fn idle(&self) -> io::Result<()> {
        let mut rows = vec![IDLE_COLUMNS.map(str::to_owned)];
        for kind in self.secured() {
            let context = |error| io::Error::other(format!("{}: {error}", kind.name));
            rows.push(self.idle_row(kind).map_err(context)?);
        }
        println!("{}", idle_title(self.connections, self.format));
        println!("{}", report::table(&rows, self.format));
        Ok(())
    }

    fn idle_row(&self, kind: &Kind) -> io::Result<[String; 7]> {
        let server = start(kind, &self.probe)?;
        let resident = || {
            server.settle()?;
            server.clock.resident_bytes()
        };
        let base = resident()?;
        let mut wave = Wave::open(&server.endpoint, self.connections)?;
        let idle = resident()?;
        wave.echo()?;
        let echoed = resident()?;
        wave.close()?;
        let closed = resident()?;
        let kib = |bytes: u64| (bytes / 1024).to_string();
        let each = |now: u64| {
            let more = now as f64 - base as f64;
            format!("{:.0}", more / self.connections as f64)
        };
        Ok([
            kind.name.clone(),
            kib(base),
            kib(idle),
            each(idle),
            kib(echoed),
            each(echoed),
            kib(closed),
        ])
    }
}
