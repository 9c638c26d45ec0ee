//! What the gate costs, off against on, and what it withstands.
//!
//! ```text
//! cargo build --release
//! cargo bench --manifest-path benches/Cargo.toml --bench gate
//! cargo bench --manifest-path benches/Cargo.toml --bench gate -- --only cost,instructions
//! ```
//!
//! Four parts: the latency of open connections among half-open ones, the server's CPU time an echo,
//! its instructions an echo (by valgrind, left out where that is missing), and the memory of an
//! idle connection. Each is told for one binary with all of the gate off, and but for the first
//! with all of it on, its limits so high that none bites. An earlier binary is measured with
//! everything off.
//! A lost or changed message and a refused connection end the run. `--help` names all options.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use harness::exchange::Payload;
use harness::gate::half_open::{self, Crowd, Order, Times};
use harness::gate::instructions::{self, Shape};
use harness::gate::part::{self, Part};
use harness::gate::setting::{self, Setting};
use harness::gate::tables::{Resident, of_half_open, of_idle, of_instructions};
use harness::idle::Wave;
use harness::machine;
use harness::measure::measure;
use harness::report::{self, Format};
use harness::rounds::in_turns;
use harness::selection::Tidemills;
use harness::servers::{CLIENT_CORE, Kind, Server};
use harness::tables;
use harness::tls::certificate::Certificate;
use harness::tls::probe::Probe;
use harness::workload;

/// Descriptors that a process needs beside its connections.
const DESCRIPTORS_BESIDE: u64 = 32;

/// Compares a server with all of its gate off and on.
#[derive(Parser)]
struct Options {
    /// Rounds, in each of which every setting has its turn.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Seconds that one setting is measured in one round; from 1 on, ticks are fine enough.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Parts to run, by name: half-open, cost, instructions, idle.
    #[arg(long, value_delimiter = ',', value_parser = part::named)]
    only: Vec<Part>,
    /// Settings to compare in each part, the first with the others: off, on-without-tokens, on
    /// [default: those that the part is about].
    #[arg(long, value_delimiter = ',', value_parser = setting::named)]
    settings: Vec<Setting>,
    /// Seconds after which the server ends a half-open connection; they gather for as long.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=30))]
    handshake_timeout: u16,
    /// Connections of the idle part; both client and server need a descriptor for each.
    #[arg(
        long,
        default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(1..=450_000)
    )]
    connections: u32,
    #[command(flatten)]
    tidemills: Tidemills,
    /// Pin neither server nor client to a core, for trials on a machine where others work; the
    /// shares of cores then say nothing.
    #[arg(long)]
    unpinned: bool,
    /// Write the tables as Markdown, with machine, command and commit.
    #[arg(long)]
    markdown: bool,
    /// What cargo passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<()> {
    let parts = match &options.only[..] {
        [] => &Part::ALL[..],
        only => only,
    };
    let limit = machine::raise_descriptor_limit()?;
    if parts.contains(&Part::Idle) && u64::from(options.connections) + DESCRIPTORS_BESIDE > limit {
        return Err(io::Error::other(format!(
            "{} connections need a higher `ulimit -Hn` than {limit}, or fewer --connections",
            options.connections
        )));
    }
    let bench = Bench {
        options,
        rounds: options.rounds.into(),
        duration: Duration::try_from_secs_f64(options.seconds).map_err(io::Error::other)?,
        timeout: Duration::from_secs(options.handshake_timeout.into()),
        format: report::format(options.markdown),
    };
    if options.unpinned {
        machine::leave_unpinned();
    }
    machine::pin_to_core(CLIENT_CORE)?;
    report::introduce("gate", bench.format);
    for part in parts {
        match part {
            Part::HalfOpen => bench.half_open()?,
            Part::Cost => bench.cost()?,
            Part::Instructions => bench.instructions()?,
            Part::Idle => bench.idle()?,
        }
    }
    Ok(())
}

/// What all parts share.
struct Bench<'a> {
    options: &'a Options,
    rounds: usize,
    duration: Duration,
    timeout: Duration,
    format: Format,
}

impl Bench<'_> {
    fn servers(&self, part: Part) -> io::Result<Vec<Kind>> {
        let settings = match &self.options.settings[..] {
            [] => part.settings(),
            settings => settings,
        };
        setting::servers(&self.options.tidemills, settings)
    }

    fn half_open(&self) -> io::Result<()> {
        let certificate = Certificate::generate()?;
        let probe = Probe::new(&certificate.der);
        let times = Times {
            timeout: self.timeout,
            duration: self.duration,
        };
        let servers = self.servers(Part::HalfOpen)?;
        let servers: Vec<_> = servers.iter().collect();
        let rounds = in_turns("half-open", self.rounds, &servers, |round, kind| {
            let order = match round % 2 {
                0 => Order::CalmFirst,
                _ => Order::CrowdFirst,
            };
            let among = |crowd: Crowd| {
                let mut kind = kind.clone();
                if crowd.is_secured() {
                    kind = kind.secured(certificate.chain(), certificate.key());
                }
                half_open::measure(&kind, crowd, &probe, order, times)
            };
            let [silent, heads, hellos] = Crowd::ALL.map(among);
            let pairs = [silent?, heads?, hellos?];
            let said = pairs.each_ref().map(|pair| {
                let [calm, crowded] = [&pair.calm, &pair.crowded].map(|weather| weather.p99_us());
                format!("{calm:.0} -> {crowded:.0}")
            });
            Ok((pairs, format!("p99 {} us", said.join(", "))))
        })?;
        println!("{}", of_half_open(&rounds, times, self.format));
        Ok(())
    }

    fn cost(&self) -> io::Result<()> {
        let workload = &workload::ALL[0];
        let servers = self.servers(Part::Cost)?;
        let servers: Vec<_> = servers.iter().collect();
        let rounds = in_turns("cost", self.rounds, &servers, |_, kind| {
            let measured = measure(kind, workload, Payload::Binary, self.duration)?;
            let said = measured.summary();
            Ok((measured, said))
        })?;
        let table = tables::of_workload(workload, &rounds, &servers[0].name, self.format);
        println!("{table}\n{}\n", tables::LEGEND);
        Ok(())
    }

    fn instructions(&self) -> io::Result<()> {
        if !instructions::are_counted() {
            println!("Instructions are left out: there is no valgrind to count them.\n");
            return Ok(());
        }
        let servers = self.servers(Part::Instructions)?;
        let servers: Vec<_> = servers.iter().collect();
        // Counts hardly differ from run to run.
        let rounds = self.rounds.min(2);
        let rounds = in_turns("instructions", rounds, &servers, |_, kind| {
            let [one, many, batch] = Shape::ALL.map(|shape| instructions::measure(kind, &shape));
            let counts = [one?, many?, batch?];
            let said = counts.map(|count| format!("{count:.1}")).join(", ");
            Ok((counts, said))
        })?;
        println!("{}", of_instructions(&rounds, self.format));
        Ok(())
    }

    fn idle(&self) -> io::Result<()> {
        let connections = self.options.connections as usize;
        let servers = self.servers(Part::Idle)?;
        let servers: Vec<_> = servers.iter().collect();
        let rounds = in_turns("idle", self.rounds, &servers, |round, kind| {
            let context = |error| io::Error::other(format!("{}: {error}", kind.name));
            let resident = resident(kind, connections, round).map_err(context)?;
            let said = format!("{:.1} bytes each", resident.each(connections));
            Ok((resident, said))
        })?;
        println!("{}", of_idle(&rounds, connections, self.format));
        Ok(())
    }
}

/// A wave of idle connections; the number decides about their addresses.
fn resident(kind: &Kind, connections: usize, number: usize) -> io::Result<Resident> {
    let server = Server::start(kind)?;
    let resident = || {
        server.settle()?;
        server.clock.resident_bytes()
    };
    let base = resident()?;
    let wave = Wave::open(&server.endpoint, connections, number)?;
    let idle = resident()?;
    wave.close()?;
    Ok(Resident {
        base,
        idle,
        closed: resident()?,
    })
}
