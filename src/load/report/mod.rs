//! What came of a run: the facts, and what follows from them. `text.rs`, `json.rs` and `page.rs`
//! say it to people, to programs and to browsers.

mod json;
mod page;
mod text;

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    latency::Latency,
    machine::{MachineUse, ProcessUse, busiest},
    plan::{Mode, Options, Pace, Plan},
    tally::{Findings, Totals},
};
use crate::transport::tls::Distrust;

/// A thread that is busy for this share of the time has no more to give.
const SATURATED: f64 = 0.9;

/// All that a run found out. Times are counted from its beginning.
#[derive(Debug)]
pub struct Report {
    pub(super) options: Options,
    pub(super) threads: usize,
    pub(super) private_tables: bool,
    pub(super) cores: usize,
    pub(super) sources: usize,
    /// Seconds since 1970.
    pub(super) started: u64,
    pub(super) elapsed: Duration,
    pub(super) interrupted: bool,
    pub(super) totals: Totals,
    /// Messages that the publisher of a fan-out sent.
    pub(super) published: u64,
    pub(super) findings: Findings,
    pub(super) phases: Vec<Phase>,
    pub(super) looks: Vec<Look>,
    pub(super) samples: Vec<Sample>,
}

/// One phase of a run.
#[derive(Debug)]
pub struct Phase {
    pub name: &'static str,
    pub begin: Duration,
    pub end: Duration,
    pub before: Totals,
    pub after: Totals,
}

impl Phase {
    fn seconds(&self) -> f64 {
        (self.end - self.begin).as_secs_f64()
    }
}

/// What both ends have used up to a moment.
#[derive(Debug, Default)]
pub struct Look {
    pub client: Option<ProcessUse>,
    pub client_threads: BTreeMap<u32, Duration>,
    pub server: Option<ProcessUse>,
    pub server_threads: BTreeMap<u32, Duration>,
    pub machine: Option<MachineUse>,
}

/// A moment of a run, for the plots.
#[derive(Debug)]
pub struct Sample {
    pub at: Duration,
    pub totals: Totals,
    pub client: Option<ProcessUse>,
    pub server: Option<ProcessUse>,
    pub machine: Option<MachineUse>,
}

/// What one process used during one phase.
#[derive(Clone, Copy, Debug)]
struct CpuUse {
    user: f64,
    system: f64,
    /// Of all cores: 1.0 is one core.
    cores: f64,
    /// Of the busiest thread: 1.0 is all of the time.
    busiest_thread: f64,
}

/// What a server's connections cost it.
#[derive(Clone, Copy, Debug)]
struct ServerCost {
    rss_before: u64,
    rss: u64,
    rss_per_connection: Option<f64>,
    /// User and system time in microseconds, of a message and its answer.
    message: Option<(f64, f64)>,
    /// CPU time in microseconds, of a handshake.
    connection_us: Option<f64>,
}

/// Kernel memory in bytes, of one connection: both ends, where both are on this machine.
#[derive(Clone, Copy, Debug)]
struct KernelCost {
    memory: f64,
    slab: f64,
}

/// Answers of all connections to one question each.
struct ProbeResult<'r> {
    sent: u64,
    received: u64,
    seconds: f64,
    latency: &'r Latency,
}

impl Report {
    pub(super) fn new(plan: &Plan, started: SystemTime, sources: usize) -> Self {
        let started = started.duration_since(UNIX_EPOCH);
        Self {
            options: plan.options.clone(),
            threads: plan.threads,
            private_tables: plan.private_tables,
            cores: plan.cores,
            sources,
            started: started.map_or(0, |time| time.as_secs()),
            elapsed: Duration::ZERO,
            interrupted: false,
            totals: Totals::default(),
            published: 0,
            findings: Findings::default(),
            phases: Vec::new(),
            looks: Vec::new(),
            samples: Vec::new(),
        }
    }

    /// Of a fan-out, what was sent is what the server had to send: a copy of each publication for
    /// each subscriber.
    pub(super) fn account_for_copies(&mut self) {
        if self.options.mode == Mode::Fanout {
            let subscribers = self.totals.opened.saturating_sub(1);
            self.published = self.totals.messages_sent;
            self.totals.messages_sent = self.published * subscribers;
            let missing = self
                .totals
                .messages_sent
                .saturating_sub(self.totals.messages_received);
            self.totals.messages_lost = missing;
        }
    }

    /// Whether every connection was made and kept, and every message answered.
    pub fn is_clean(&self) -> bool {
        let totals = &self.totals;
        let probes_lost = totals.probes_sent - totals.probes_answered;
        let errors = self.findings.errors.by_frequency().len();
        totals.failed + totals.lost + totals.messages_lost + probes_lost == 0 && errors == 0
    }

    /// What to do about a certificate that was not accepted, if it was not.
    fn remedy(&self) -> Option<&'static str> {
        self.findings.tls.distrust.map(|distrust| match distrust {
            Distrust::UnknownIssuer => {
                "name who signed the certificate with --ca FILE, or verify nothing with --insecure"
            }
            Distrust::Unfit => "verify nothing with --insecure, or mend the certificate",
        })
    }

    /// The number of a phase and the phase.
    fn phase(&self, name: &str) -> Option<(usize, &Phase)> {
        let mut phases = self.phases.iter().enumerate();
        phases.find(|(_, phase)| phase.name == name)
    }

    /// The phase that the run is about.
    fn main_phase(&self) -> Option<(usize, &Phase)> {
        let name = match self.options.mode {
            Mode::Echo => "exchange",
            Mode::Hold => "hold",
            Mode::Fanout => "publish",
            Mode::Connect => "churn",
        };
        self.phase(name).or_else(|| self.phase("ramp"))
    }

    /// The phase in which messages are.
    fn message_phase(&self) -> Option<(usize, &Phase)> {
        self.phase("exchange").or_else(|| self.phase("publish"))
    }

    /// The phase in which connections are made.
    fn opening_phase(&self) -> Option<(usize, &Phase)> {
        self.phase("ramp").or_else(|| self.phase("churn"))
    }

    fn connect_seconds(&self) -> f64 {
        self.opening_phase()
            .map_or(0.0, |(_, phase)| phase.seconds())
    }

    /// From the beginning of the exchange to the last answer.
    fn message_seconds(&self) -> f64 {
        let Some((_, phase)) = self.message_phase() else {
            return 0.0;
        };
        let last = Duration::from_nanos(self.totals.answered_last);
        last.saturating_sub(phase.begin).as_secs_f64()
    }

    /// The share of the planned messages that were sent: a generator that is behind its plan
    /// measures itself.
    fn plan_kept(&self) -> Option<f64> {
        let Pace::Open { per_second } = self.options.pace else {
            return None;
        };
        let (_, exchange) = self.message_phase()?;
        let seconds = match self.interrupted {
            true => exchange.seconds(),
            false => self.options.duration.as_secs_f64(),
        };
        let planned = (per_second * seconds).floor();
        let sent = match self.options.mode {
            Mode::Fanout => self.published,
            _ => self.totals.messages_sent,
        };
        (planned > 0.0).then(|| sent as f64 / planned)
    }

    fn client_cpu(&self, phase: usize) -> Option<CpuUse> {
        let (before, after) = (self.looks.get(phase)?, self.looks.get(phase + 1)?);
        let busiest = busiest(&before.client_threads, &after.client_threads);
        self.cpu(phase, before.client?, after.client?, busiest)
    }

    fn server_cpu(&self, phase: usize) -> Option<CpuUse> {
        let (before, after) = (self.looks.get(phase)?, self.looks.get(phase + 1)?);
        let busiest = busiest(&before.server_threads, &after.server_threads);
        self.cpu(phase, before.server?, after.server?, busiest)
    }

    fn cpu(
        &self,
        phase: usize,
        before: ProcessUse,
        after: ProcessUse,
        busiest: Duration,
    ) -> Option<CpuUse> {
        let seconds = self.phases.get(phase)?.seconds().max(1e-3);
        let user = after.user.saturating_sub(before.user).as_secs_f64();
        let system = after.system.saturating_sub(before.system).as_secs_f64();
        Some(CpuUse {
            user,
            system,
            cores: (user + system) / seconds,
            busiest_thread: busiest.as_secs_f64() / seconds,
        })
    }

    /// The share of the whole machine's CPU time that was used during a phase.
    fn machine_busy(&self, phase: usize) -> Option<f64> {
        let before = self.looks.get(phase)?.machine?;
        let after = self.looks.get(phase + 1)?.machine?;
        let total = after.total.saturating_sub(before.total).as_secs_f64();
        let busy = after.busy.saturating_sub(before.busy).as_secs_f64();
        (total > 0.0).then(|| busy / total)
    }

    /// Which side had no more to give in the phase that says most: the exchange or the churn; of a
    /// held run, the ramp.
    fn saturated(&self) -> &'static str {
        let phase = match self.options.mode {
            Mode::Hold => self.opening_phase(),
            _ => self.main_phase(),
        };
        let Some((phase, _)) = phase else {
            return "nothing";
        };
        let is_full = |cpu: Option<CpuUse>| cpu.is_some_and(|cpu| cpu.busiest_thread >= SATURATED);
        match (
            is_full(self.client_cpu(phase)),
            is_full(self.server_cpu(phase)),
        ) {
            (true, true) => "both",
            (true, false) => "client",
            (false, true) => "server",
            _ if self
                .machine_busy(phase)
                .is_some_and(|busy| busy >= SATURATED) =>
            {
                "machine"
            }
            _ => "nothing",
        }
    }

    fn server_cost(&self) -> Option<ServerCost> {
        let (main, _) = self.main_phase()?;
        let before = self.looks.first()?.server?;
        let after = self.looks.get(main + 1)?.server?;
        let opened = self.phases[main].after.open;
        let grown = after.resident_bytes as f64 - before.resident_bytes as f64;
        let messages = self.totals.messages_received as f64;
        let exchange = self
            .message_phase()
            .and_then(|(phase, _)| self.server_cpu(phase));
        let opening = self
            .opening_phase()
            .and_then(|(phase, _)| self.server_cpu(phase));
        let is_open = self.options.mode != Mode::Connect && opened >= CONNECTIONS_LEAST;
        Some(ServerCost {
            rss_before: before.resident_bytes,
            rss: after.resident_bytes,
            rss_per_connection: is_open.then(|| grown / opened as f64),
            message: exchange
                .filter(|_| messages > 0.0)
                .map(|cpu| (cpu.user * 1e6 / messages, cpu.system * 1e6 / messages)),
            connection_us: opening
                .filter(|_| self.totals.opened >= CONNECTIONS_LEAST)
                .map(|cpu| (cpu.user + cpu.system) * 1e6 / self.totals.opened as f64),
        })
    }

    /// Kernel memory of a connection. `MemAvailable` would flatter: it counts what could be freed.
    fn kernel_cost(&self) -> Option<KernelCost> {
        let (main, phase) = self.main_phase()?;
        let (before, after) = (self.looks.first()?, self.looks.get(main + 1)?);
        let open = phase.after.open as f64;
        if phase.after.open < KERNEL_CONNECTIONS_LEAST || self.options.mode == Mode::Connect {
            return None;
        }
        let resident = |look: &Look| {
            let of = |used: Option<ProcessUse>| used.map_or(0, |used| used.resident_bytes);
            (of(look.client) + of(look.server)) as f64
        };
        let (machine_before, machine_after) = (before.machine?, after.machine?);
        let used = machine_before.free_bytes as f64 - machine_after.free_bytes as f64;
        let slab = machine_after.slab_bytes as f64 - machine_before.slab_bytes as f64;
        let user = resident(after) - resident(before);
        Some(KernelCost {
            memory: (used - user) / open,
            slab: slab / open,
        })
    }

    fn probe(&self, name: &str, latency: usize) -> Option<ProbeResult<'_>> {
        let (_, phase) = self.phase(name)?;
        Some(ProbeResult {
            sent: phase.after.probes_sent - phase.before.probes_sent,
            received: phase.after.probes_answered - phase.before.probes_answered,
            seconds: phase.seconds(),
            latency: &self.findings.probes[latency],
        })
    }

    fn sweep(&self) -> Option<ProbeResult<'_>> {
        self.probe("sweep", 0)
    }

    fn pings(&self) -> Option<ProbeResult<'_>> {
        self.probe("pings", 1)
    }
}

/// With fewer connections, what else a process does weighs more than they do.
const CONNECTIONS_LEAST: u64 = 1_000;

/// As above, for what else the whole machine does.
const KERNEL_CONNECTIONS_LEAST: u64 = 50_000;
