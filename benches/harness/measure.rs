//! One measurement: a fresh server, a warm client, one load.

use std::io;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::churn::ChurnLoad;
use crate::exchange::{EchoLoad, Exchange, Kind as Payload};
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
    pub client_cpu: Duration,
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
}

enum Client {
    Echo(EchoLoad),
    Churn(ChurnLoad),
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
    let mut client = Client::open(&server, workload.load, payload).map_err(context)?;
    let cpu = server.settle()?;
    let ticks = server.clock.user_and_system_ticks()?;
    let cores = [CoreTimes::now(SERVER_CORE)?, CoreTimes::now(CLIENT_CORE)?];
    let outcome = match &mut client {
        Client::Echo(load) => load.run(duration),
        Client::Churn(load) => load.run(duration),
    };
    let outcome = outcome.map_err(context)?;
    let [server_core, client_core] = [CoreTimes::now(SERVER_CORE)?, CoreTimes::now(CLIENT_CORE)?];
    let cpu = server.settle()? - cpu;
    let ticks_after = server.clock.user_and_system_ticks()?;
    let share = |ticks: u64| {
        let seconds = ticks as f64 / TICKS_PER_SECOND as f64;
        (seconds / outcome.wall.as_secs_f64()).min(1.0)
    };
    let idle = [
        share(server_core.idle_ticks - cores[0].idle_ticks),
        share(client_core.idle_ticks - cores[1].idle_ticks),
    ];
    let interrupt_ticks = server_core.interrupt_ticks - cores[0].interrupt_ticks;
    let served = cpu.as_secs_f64() / outcome.wall.as_secs_f64() + share(interrupt_ticks);
    Ok(Measurement {
        count: outcome.count,
        wall: outcome.wall,
        cpu,
        user_and_system_ticks: [0, 1].map(|kind| ticks_after[kind] - ticks[kind]),
        interrupts: Duration::from_secs(1) * interrupt_ticks as u32 / TICKS_PER_SECOND as u32,
        busy: idle.map(|idle| 1.0 - idle),
        disturbed: (1.0 - idle[0] - served).max(0.0),
        client_cpu: outcome.client_cpu,
        latency: outcome.latency,
    })
}

impl Client {
    fn open(server: &Server, load: Load, payload: Payload) -> io::Result<Self> {
        Ok(match load {
            Load::Echo {
                connections,
                payload_bytes,
                in_flight,
            } => {
                let exchange = Exchange {
                    payload_bytes,
                    in_flight,
                    kind: payload,
                };
                Self::Echo(EchoLoad::open(server.address, connections, exchange)?)
            }
            Load::Churn { connections } => {
                Self::Churn(ChurnLoad::open(server.address, connections)?)
            }
        })
    }
}
