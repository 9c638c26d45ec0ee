//! What an idle connection costs a server in resident memory, and what is left of it afterwards.
//!
//! ```text
//! scripts/bench-memory
//! scripts/bench-memory --servers floor,tidemill,tokio-tungstenite --connections 10000
//! ```
//!
//! The baseline is taken when a first connection was opened and closed. Then a wave of connections
//! opens and closes, and a second one of the same size, which should find the room of the first;
//! at last each of the second wave has one message echoed.

use std::io;
use std::process::ExitCode;

use clap::Parser;

use harness::idle::Wave;
use harness::machine;
use harness::report;
use harness::selection::{Binaries, Selection};
use harness::servers::{CLIENT_CORE, Kind, Server, Variables};

/// Pings go out as by default, but a wave answers none before it closes.
const VARIABLES: Variables = &[("TIDEMILL_PONG_TIMEOUT", "10m")];
/// Descriptors that a process needs beside its connections.
const DESCRIPTORS_BESIDE: u64 = 32;

/// Measures the resident memory of servers with many idle connections.
#[derive(Parser)]
struct Options {
    /// Connections in a wave; both client and server need a descriptor for each.
    #[arg(
        long,
        default_value_t = 19_000,
        value_parser = clap::value_parser!(u32).range(1..=450_000)
    )]
    connections: u32,
    #[command(flatten)]
    selection: Selection,
    /// Write the table as Markdown.
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
    let binaries = Binaries {
        floor: env!("CARGO_BIN_EXE_floor"),
        tokio_tungstenite: env!("CARGO_BIN_EXE_tokio-tungstenite-echo"),
        fastwebsockets: env!("CARGO_BIN_EXE_fastwebsockets-echo"),
    };
    let servers = options
        .selection
        .kinds(&binaries, &["floor", "tidemill"], VARIABLES)
        .map_err(io::Error::other)?;
    let limit = machine::raise_descriptor_limit()?;
    if u64::from(options.connections) + DESCRIPTORS_BESIDE > limit {
        return Err(io::Error::other(format!(
            "{} connections need a higher `ulimit -Hn` than {limit}, or fewer --connections",
            options.connections
        )));
    }
    machine::pin_to_core(CLIENT_CORE)?;
    let format = report::format(options.markdown);
    report::introduce("memory", format);
    println!(
        "{} connections in each wave; resident memory in KiB.\n",
        options.connections
    );
    let header = [
        "server",
        "base",
        "first wave",
        "bytes each",
        "closed",
        "second wave",
        "second adds",
        "echoed",
        "bytes each",
        "closed",
    ];
    let mut rows = vec![header.map(str::to_owned)];
    for kind in &servers {
        rows.push(measure(kind, options.connections as usize)?);
    }
    print!("{}", report::table(&rows, format));
    Ok(())
}

fn measure(kind: &Kind, connections: usize) -> io::Result<[String; 10]> {
    let context = |error: io::Error| io::Error::other(format!("{}: {error}", kind.name));
    let server = Server::start(kind)?;
    let resident = || {
        server.settle()?;
        server.clock.resident_bytes()
    };
    let waves = || {
        let base = resident()?;
        let wave = Wave::open(&server.endpoint, connections, 0)?;
        let first = resident()?;
        wave.close()?;
        let first_closed = resident()?;
        let wave = Wave::open(&server.endpoint, connections, 1)?;
        let second = resident()?;
        wave.echo()?;
        let echoed = resident()?;
        wave.close()?;
        Ok([base, first, first_closed, second, echoed, resident()?])
    };
    let [base, first, first_closed, second, echoed, second_closed] = waves().map_err(context)?;
    let kib = |bytes: u64| (bytes / 1024).to_string();
    let more = |now: u64, then: u64| now as i64 - then as i64;
    let each = |now| format!("{:.0}", more(now, base) as f64 / connections as f64);
    Ok([
        kind.name.clone(),
        kib(base),
        kib(first),
        each(first),
        kib(first_closed),
        kib(second),
        format!("{:+}", more(second, first) / 1024),
        kib(echoed),
        each(echoed),
        kib(second_closed),
    ])
}
