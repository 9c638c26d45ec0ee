//! Echo servers under load, compared by the CPU time that a message costs them.
//!
//! ```text
//! cargo build --release
//! cargo bench --manifest-path benches/Cargo.toml --bench echo
//! cargo bench --manifest-path benches/Cargo.toml --bench echo -- --only 64x20,connect
//! ```
//!
//! Machines are shared and noisy, so servers take turns within each round and the order rotates
//! from round to round; the figure to quote is the ratio to the floor of the quietest rounds.
//! A lost or changed message ends the run with an error. `--help` names all options.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use harness::exchange::Payload;
use harness::machine;
use harness::measure::measure;
use harness::report;
use harness::rounds::in_turns;
use harness::selection::{Binaries, Selection};
use harness::servers::{CLIENT_CORE, FLOOR, Variables};
use harness::tables;
use harness::workload::{self, Workload};

/// The client counts bytes, so nothing may come that it did not ask for. The peers send no pings
/// either.
const VARIABLES: Variables = &[("TIDEMILL_PING_INTERVAL", "0")];

/// Compares echo servers by CPU time per message, throughput and latency.
#[derive(Parser)]
struct Options {
    /// Rounds, in each of which every server has its turn.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Seconds that one server is measured in one round; from 1 on, ticks are fine enough.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Workloads to run, by name: 64x20, 512x20, 4096x20, 64x1KiB, 64x16KiB, 64x64KiB, 64x20x16,
    /// connect.
    #[arg(long, value_delimiter = ',', value_parser = workload::named)]
    only: Vec<Workload>,
    #[command(flatten)]
    selection: Selection,
    /// Send text instead of binary messages.
    #[arg(long)]
    text: bool,
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
    let binaries = Binaries {
        floor: env!("CARGO_BIN_EXE_floor"),
        tokio_tungstenite: env!("CARGO_BIN_EXE_tokio-tungstenite-echo"),
        fastwebsockets: env!("CARGO_BIN_EXE_fastwebsockets-echo"),
    };
    let default = ["floor", "tidemill", "tokio-tungstenite", "fastwebsockets"];
    let servers = options
        .selection
        .kinds(&binaries, &default, VARIABLES)
        .map_err(io::Error::other)?;
    let workloads = if options.only.is_empty() {
        &workload::ALL[..]
    } else {
        &options.only[..]
    };
    let duration = Duration::try_from_secs_f64(options.seconds).map_err(io::Error::other)?;
    machine::raise_descriptor_limit()?;
    machine::pin_to_core(CLIENT_CORE)?;
    let format = report::format(options.markdown);
    report::introduce("echo", format);
    println!("{}\n", tables::LEGEND);
    let payload = match options.text {
        true => Payload::Text,
        false => Payload::Binary,
    };
    let servers: Vec<_> = servers.iter().collect();
    for workload in workloads {
        let rounds = in_turns(workload.name, options.rounds.into(), &servers, |_, kind| {
            let measured = measure(kind, workload, payload, duration)?;
            let said = measured.summary();
            Ok((measured, said))
        })?;
        println!("{}", tables::of_workload(workload, &rounds, FLOOR, format));
    }
    Ok(())
}
