//! One measurement: a fresh server, a warm client, one load.

use std::io;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::churn::ChurnLoad;
use crate::exchange::{EchoLoad, Exchange, Outcome, Payload};
use crate::machine::{CoreTimes, TICKS_PER_SECOND};
use crate::servers::{CLIENT_CORE, Kind, SERVER_CORE, Server};
use crate::workload::{Load, Workload};

/// What one server did under one workload.
pub struct Measurement {
    /// Messages echoed, or connections opened and closed.
    pub count: u64,
    pub wall: Duration,
    /// User and system time of the server, exact.
    pub cpu: Duration,
    /// The same apart, in ticks: a sample, for the proportion.
    pub user_and_system_ticks: [u64; 2],
    /// Interrupts on the server's core, for anybody.
    pub interrupts: Duration,
    /// The shares of the time that the server's and the client's core were not idle.
    pub busy: [f64; 2],
    /// The share of the server's core that went to other processes.
    pub disturbed: f64,
    /// In nanoseconds.
    pub latency: Histogram<u64>,
}

impl Measurement {
    /// The server's CPU time for one message or connection, in nanoseconds.
    pub fn cpu_ns(&self) -> f64 {
        self.cpu.as_nanos() as f64 / self.count as f64
    }

    /// Messages or connections a second.
    pub fn rate(&self) -> f64 {
        self.count as f64 / self.wall.as_secs_f64()
    }

    /// Both, while the run goes on.
    pub fn summary(&self) -> String {
        format!("{:.0}/s, {:.0} ns", self.rate(), self.cpu_ns())
    }
}

/// Starts `kind` and loads it for `duration`.
///
/// # Errors
/// The server does not start or ends, a message is lost or changed.
pub fn measure(
    kind: &Kind,
    workload: &Workload,
    payload: Payload,
    duration: Duration,
) -> io::Result<Measurement> {
    let context =
        |error| io::Error::other(format!("{} under {}: {error}", kind.name, workload.name));
    let server = Server::start(kind)?;
    let client = open(&server, workload.load, payload).map_err(context)?;
    of_client(&server, client, duration).map_err(context)
}

/// A client that has opened its connections.
pub trait Client {
    /// Loads the server for `duration`.
    ///
    /// # Errors
    /// What the kernel refuses, and anything wrong about an answer.
    fn run(&mut self, duration: Duration) -> io::Result<Outcome>;
}

/// Has `client` load `server` for `duration`.
///
/// # Errors
/// The server ends, a message is lost or changed.
pub fn of_client(
    server: &Server,
    mut client: Box<dyn Client + '_>,
    duration: Duration,
) -> io::Result<Measurement> {
    let cpu_before = server.settle()?;
    let ticks_before = server.clock.user_and_system_ticks()?;
    let before = [CoreTimes::now(SERVER_CORE)?, CoreTimes::now(CLIENT_CORE)?];
    let outcome = client.run(duration)?;
    let after = [CoreTimes::now(SERVER_CORE)?, CoreTimes::now(CLIENT_CORE)?];
    let cpu = server.settle()? - cpu_before;
    let ticks = server.clock.user_and_system_ticks()?;

    let wall = outcome.wall.as_secs_f64();
    let seconds = |ticks: u64| ticks as f64 / TICKS_PER_SECOND as f64;
    let busy = [0, 1].map(|core: usize| {
        let idle = seconds(after[core].idle_ticks - before[core].idle_ticks);
        (1.0 - idle / wall).clamp(0.0, 1.0)
    });
    let interrupts = seconds(after[0].interrupt_ticks - before[0].interrupt_ticks);
    Ok(Measurement {
        count: outcome.count,
        wall: outcome.wall,
        cpu,
        user_and_system_ticks: [0, 1].map(|kind: usize| ticks[kind] - ticks_before[kind]),
        interrupts: Duration::from_secs_f64(interrupts),
        busy,
        disturbed: (busy[0] - (cpu.as_secs_f64() + interrupts) / wall).max(0.0),
        latency: outcome.latency,
    })
}

fn open(server: &Server, load: Load, payload: Payload) -> io::Result<Box<dyn Client>> {
    Ok(match load {
        Load::Echo {
            connections,
            payload_bytes,
            in_flight,
        } => {
            let exchange = Exchange {
                payload_bytes,
                in_flight,
                payload,
            };
            Box::new(EchoLoad::open(&server.endpoint, connections, exchange)?)
        }
        Load::Churn { connections } => Box::new(ChurnLoad::open(&server.endpoint, connections)?),
    })
}

impl Client for EchoLoad {
    fn run(&mut self, duration: Duration) -> io::Result<Outcome> {
        self.run(duration)
    }
}

impl Client for ChurnLoad {
    fn run(&mut self, duration: Duration) -> io::Result<Outcome> {
        self.run(duration)
    }
}
