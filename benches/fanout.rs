//! Fan-out: one publisher and thousands of subscribers, compared by the server's CPU time a
//! delivery.
//!
//! ```text
//! cargo build --release
//! cargo bench --manifest-path benches/Cargo.toml --bench fanout
//! cargo bench --manifest-path benches/Cargo.toml --bench fanout -- deliver --subscribers 1000
//! cargo bench --manifest-path benches/Cargo.toml --bench fanout -- --short
//! ```
//!
//! Four parts: `deliver` compares servers, all of which are filled once and then driven in turns;
//! `echo` times echoes of other connections meanwhile; `api` publishes by HTTP at rising rates and
//! watches the queues; `memory` is that of a million subscriptions. A lost, doubled or changed
//! publication ends the run with an error. `--help` names all options.

use std::io;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Parser;

use harness::fanout::api::{self, KEY, Pace};
use harness::fanout::contender::{
    self, Binaries, Contender, NATIVE, NATIVE_BY_TWO, RAW, RAW_BY_TWO, Stage, over_both_cores,
};
use harness::fanout::crowd::Crowd;
use harness::fanout::delivery::Waiting;
use harness::fanout::disturbance::{Bystanders, Din};
use harness::fanout::gauges::Scraper;
use harness::fanout::part::{self, Part};
use harness::fanout::standing::Spread;
use harness::fanout::tables::{LEGEND, Resident, of_deliveries, of_echoes, of_memory, of_paces};
use harness::fanout::words::Dialect;
use harness::machine;
use harness::measure::Measurement;
use harness::report::{self, Format};
use harness::rounds::{Rounds, in_rotation};
use harness::selection::Tidemills;
use harness::servers::{CLIENT_CORE, FLOOR, Kind, Server, Variables};

const CROWD: &str = env!("CARGO_BIN_EXE_crowd");
const BINARIES: Binaries = Binaries {
    floor: env!("CARGO_BIN_EXE_floor-fanout"),
    tokio_broadcast: env!("CARGO_BIN_EXE_tokio-broadcast"),
};
/// Of one publication.
const PAYLOAD_BYTES: usize = 100;
/// The floor, given publications as long as the native protocol's pushes.
const FLOOR_AS_NATIVE: &str = "floor, as long";
/// Descriptors that a process needs beside its connections.
const DESCRIPTORS_BESIDE: u64 = 200;
const WITH_API: Variables = &[("TIDEMILL_API_KEY", KEY)];

/// Compares servers by CPU time a delivery, and shows what deliveries do to others.
#[derive(Parser)]
struct Options {
    /// Parts to run, by name: deliver, echo, api, memory [default: all].
    #[arg(value_parser = part::named)]
    parts: Vec<Part>,
    /// Rounds, in each of which everybody has their turn.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Seconds of one turn.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// A trial of a minute: two rounds of half a second, and a tenth of all connections, channels
    /// and rates.
    #[arg(long)]
    short: bool,
    /// Subscribers of the deliveries; both client and server need a descriptor for each. The
    /// greatest number is that of the echo part.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000])]
    subscribers: Vec<u32>,
    /// Publications in a burst; the next one follows when everybody has the last.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16])]
    in_flight: Vec<u16>,
    /// Servers of the deliveries, by the names in the report.
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
    /// Have the subscribers sleep until something comes, and not look again and again: whoever
    /// delivers then has to wake them, which adds about half to a delivery.
    #[arg(long)]
    asleep: bool,
    /// Publications a second of the API part.
    #[arg(long, value_delimiter = ',', default_values_t = [5_000, 10_000, 15_000, 20_000, 25_000])]
    rates: Vec<u32>,
    /// HTTP connections of the API part, one request in flight each.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    publishers: u16,
    /// Connections that the 20,000 subscriptions of the API part are spread over.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(200..))]
    listeners: u32,
    /// Reactors of the API part.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    reactors: u8,
    #[command(flatten)]
    tidemills: Tidemills,
    /// Pin neither server nor client to a core, for trials on a machine where others work.
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
    let parts = match &options.parts[..] {
        [] => &Part::ALL[..],
        parts => parts,
    };
    let (rounds, seconds, scale) = match options.short {
        true => (2, 0.5, 10),
        false => (options.rounds.into(), options.seconds, 1),
    };
    let bench = Bench {
        options,
        rounds,
        duration: Duration::try_from_secs_f64(seconds).map_err(io::Error::other)?,
        scale,
        format: report::format(options.markdown),
    };
    let limit = machine::raise_descriptor_limit()?;
    if bench.connections_max(parts) + DESCRIPTORS_BESIDE > limit {
        return Err(io::Error::other(format!(
            "{} connections need a higher `ulimit -Hn` than {limit}, or fewer subscribers",
            bench.connections_max(parts)
        )));
    }
    if options.unpinned {
        machine::leave_unpinned();
    }
    machine::pin_to_core(CLIENT_CORE)?;
    report::introduce("fanout", bench.format);
    for part in parts {
        match part {
            Part::Deliver => bench.deliver()?,
            Part::Echo => bench.echo()?,
            Part::Api => bench.api()?,
            Part::Memory => bench.memory()?,
        }
    }
    Ok(())
}

/// What all parts share.
struct Bench<'a> {
    options: &'a Options,
    rounds: usize,
    duration: Duration,
    /// What sizes are divided by.
    scale: usize,
    format: Format,
}

impl Bench<'_> {
    fn deliver(&self) -> io::Result<()> {
        let Options {
            tidemills, servers, ..
        } = self.options;
        let contenders = contender::all(&BINARIES, tidemills, servers).map_err(io::Error::other)?;
        println!("{LEGEND}\n");
        for subscribers in &self.options.subscribers {
            self.deliver_to(*subscribers as usize / self.scale, &contenders)?;
        }
        Ok(())
    }

    fn deliver_to(&self, subscribers: usize, contenders: &[Contender]) -> io::Result<()> {
        let fill = |contender| Stage::fill(contender, CROWD, subscribers);
        let mut stages: Vec<_> = contenders.iter().map(fill).collect::<io::Result<_>>()?;
        let lanes = lanes(contenders, &mut stages)?;
        let names: Vec<_> = lanes.iter().map(|lane| lane.name.clone()).collect();
        let waiting = match self.options.asleep {
            true => Waiting::Asleep,
            false => Waiting::Awake,
        };
        for in_flight in &self.options.in_flight {
            let title = match in_flight {
                1 => "one in flight".into(),
                more => format!("bursts of {more}"),
            };
            let title = format!("{subscribers} subscribers x {PAYLOAD_BYTES} B, {title}");
            let rounds = in_rotation(&title, self.rounds, &names, |_, index| {
                let lane = &lanes[index];
                let context = |error| io::Error::other(format!("{}: {error}", lane.name));
                let measured = stages[lane.stage]
                    .measure(
                        (*in_flight).into(),
                        lane.payload_bytes,
                        self.duration,
                        waiting,
                    )
                    .map_err(context)?;
                let said = measured.summary();
                Ok((measured, said))
            })?;
            self.tell(&title, rounds, &lanes);
        }
        Ok(())
    }

    fn tell(&self, title: &str, rounds: Vec<Rounds<Measurement>>, lanes: &[Lane]) {
        let (native, raw): (Vec<_>, Vec<_>) = rounds
            .into_iter()
            .zip(lanes)
            .partition(|(_, lane)| lane.dialect == Dialect::Native);
        let dialects = [
            ("/raw", raw, FLOOR, [RAW, RAW_BY_TWO]),
            (
                "native protocol",
                native,
                FLOOR_AS_NATIVE,
                [NATIVE, NATIVE_BY_TWO],
            ),
        ];
        for (dialect, servers, baseline, by_two) in dialects {
            let servers: Vec<_> = servers.into_iter().map(|(rounds, _)| rounds).collect();
            if !servers.is_empty() {
                let title = format!("{dialect}: {title}");
                let table = of_deliveries(&title, &servers, baseline, by_two, self.format);
                println!("{table}");
            }
        }
    }

    fn echo(&self) -> io::Result<()> {
        let most = self.options.subscribers.iter().max().copied();
        let subscribers = most.unwrap_or(1) as usize / self.scale;
        let server = Server::start(&self.tidemill("tidemill", &[])?)?;
        let address = server.endpoint.address;
        let mut crowd = Crowd::audience(CROWD, address, Dialect::Raw, subscribers)?;
        let names = Din::ALL.map(Din::title);
        // The order of real time ends with its thread.
        let rounds = thread::scope(|scope| {
            let steady = scope.spawn(|| {
                let real_time = machine::run_in_real_time().is_ok();
                let mut bystanders = Bystanders::new(&server, &mut crowd, real_time)?;
                in_rotation("echo", self.rounds, &names, |_, index| {
                    let echoes = bystanders.among(Din::ALL[index], self.duration)?;
                    let [planned, closed] = echoes.p99_us();
                    let said = format!("p99 {planned:.0} us by the plan, {closed:.0} us closed");
                    Ok((echoes, said))
                })
            });
            let panicked = |_| io::Error::other("a thread panicked");
            steady.join().map_err(panicked)?
        })?;
        println!("{}", of_echoes(&rounds, subscribers, self.format));
        Ok(())
    }

    fn api(&self) -> io::Result<()> {
        let connections = self.options.listeners as usize / self.scale;
        let channels = 2_000 / self.scale;
        let spread = Spread {
            connections,
            subscriptions: 10 * channels / connections,
            channels,
        };
        let mut kind = self.tidemill("tidemill", WITH_API)?;
        if self.options.reactors == 2 {
            kind = over_both_cores(kind);
        }
        let server = Server::start(&kind)?;
        let mut crowd = Crowd::standing(CROWD, server.endpoint.address, spread)?;
        crowd.subscribe()?;
        let scaled = |rate: &u32| (rate / self.scale as u32).max(1);
        let rates: Vec<_> = self.options.rates.iter().map(scaled).collect();
        let names: Vec<_> = rates.iter().map(|rate| format!("{rate}/s")).collect();
        let publishers = self.options.publishers.into();
        let rounds = in_rotation("api", self.rounds.min(3), &names, |_, index| {
            let rate = rates[index];
            let pace = api::measure(&server, &mut crowd, spread, publishers, rate, self.duration)?;
            let said = said_of(&pace);
            Ok((pace, said))
        })?;
        println!("{}", of_paces(&rounds, spread, publishers, self.format));
        Ok(())
    }

    fn memory(&self) -> io::Result<()> {
        let spread = Spread {
            connections: 10_000 / self.scale,
            subscriptions: 100,
            channels: 100_000 / self.scale,
        };
        let one = self.tidemill("one reactor", &[])?;
        let two = over_both_cores(self.tidemill("two reactors", &[])?);
        let mut residents = Vec::new();
        for kind in [one, two] {
            let resident = resident(&kind, spread)?;
            eprintln!(
                "memory {}: {} KiB, {} KiB subscribed",
                kind.name,
                resident.connected / 1024,
                resident.subscribed / 1024
            );
            residents.push((kind.name, resident));
        }
        println!("{}", of_memory(&residents, spread, self.format));
        Ok(())
    }

    fn tidemill(&self, name: &str, variables: Variables) -> io::Result<Kind> {
        let kind = self.options.tidemills.now(name, variables);
        kind.map_err(io::Error::other)
    }

    /// The most that any process holds at a time.
    fn connections_max(&self, parts: &[Part]) -> u64 {
        let crowds = self.options.subscribers.iter().copied().max();
        let each = parts.iter().map(|part| match part {
            Part::Deliver | Part::Echo => crowds.unwrap_or(0),
            Part::Api => self.options.listeners,
            Part::Memory => 10_000,
        });
        u64::from(each.max().unwrap_or(0)) / self.scale as u64
    }
}

/// A contender and what is published to it.
struct Lane {
    name: String,
    stage: usize,
    dialect: Dialect,
    payload_bytes: usize,
}

/// All contenders, and the floor once more where the native protocol takes part.
fn lanes(contenders: &[Contender], stages: &mut [Stage]) -> io::Result<Vec<Lane>> {
    let of = |(stage, contender): (usize, &Contender)| Lane {
        name: contender.kind.name.clone(),
        stage,
        dialect: contender.dialect,
        payload_bytes: PAYLOAD_BYTES,
    };
    let mut lanes: Vec<_> = contenders.iter().enumerate().map(of).collect();
    let find = |name| contenders.iter().position(|there| there.kind.name == name);
    let first_native = lanes
        .iter()
        .position(|lane| lane.dialect == Dialect::Native);
    if let (Some(floor), Some(native)) = (find(FLOOR), first_native) {
        let lane = Lane {
            name: FLOOR_AS_NATIVE.into(),
            stage: floor,
            dialect: Dialect::Native,
            payload_bytes: stages[native].push_bytes(PAYLOAD_BYTES)?,
        };
        eprintln!("a native push has {} bytes", lane.payload_bytes);
        lanes.insert(native, lane);
    }
    Ok(lanes)
}

fn said_of(pace: &Pace) -> String {
    let queued = pace.most(|gauges| gauges.queued_bytes()) / 1024;
    let grows = if pace.grows() { ", growing" } else { "" };
    format!(
        "{}, {queued} KiB queued{grows}",
        pace.publications.summary()
    )
}

/// A server with connections, and with their subscriptions.
fn resident(kind: &Kind, spread: Spread) -> io::Result<Resident> {
    let server = Server::start(kind)?;
    let resident = || {
        server.settle()?;
        server.clock.resident_bytes()
    };
    let base = resident()?;
    let mut crowd = Crowd::standing(CROWD, server.endpoint.address, spread)?;
    let connected = resident()?;
    crowd.subscribe()?;
    let subscribed = resident()?;
    let gauges = Scraper::new(server.endpoint.address)?.look()?;
    if gauges.subscriptions != spread.all_subscriptions() as u64 {
        return Err(io::Error::other(format!(
            "the server has {} subscriptions of {}",
            gauges.subscriptions,
            spread.all_subscriptions()
        )));
    }
    drop(crowd);
    Ok(Resident {
        base,
        connected,
        subscribed,
        closed: resident()?,
        gauges,
    })
}
