//! Starts the drivers, leads them through the phases of a run, and watches both ends meanwhile.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    process,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use mio::Poll;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use thiserror::Error;

use super::{
    driver::{CUT_TIMEOUT, Done, Driver, MAIL, Order, Parts, Probe},
    machine::{self, MachineUse, ProcessUse},
    plan::{Mode, Plan},
    progress::{Counted, Goal, Progress, Show},
    report::{Look, Phase, Report, Sample},
    tally::{Findings, Tally, Totals},
};
use crate::{
    mailbox::{Mailbox, Sender},
    sys,
};

/// How often progress is shown and signals are looked for.
const LOOK: Duration = Duration::from_millis(50);

/// How often a sample is taken for the report.
const SAMPLE: Duration = Duration::from_millis(250);

/// A server may answer a handshake before the subscription that comes with it stands on all of
/// its threads; only after this time does the first publication leave.
const SETTLE: Duration = Duration::from_millis(200);

/// Samples of one run; beyond that, every other one is given up and they are taken half as often.
const SAMPLES_MAX: usize = 2400;

/// Why a run could not be made.
#[derive(Debug, Error)]
pub enum LoadError {
    #[error("cannot connect to {url}: {source}")]
    Unreachable { url: String, source: io::Error },
    #[error("--server-pid {0}: there is no such process on this machine")]
    NoServer(u32),
    #[error("cannot {action}: {source}")]
    System {
        action: &'static str,
        source: io::Error,
    },
    #[error("a thread of the load generator ended unexpectedly")]
    DriverLost,
}

fn system(action: &'static str) -> impl FnOnce(io::Error) -> LoadError {
    move |source| LoadError::System { action, source }
}

/// Makes a run. SIGINT and SIGTERM end it early, with a report; a second one ends the process.
///
/// # Errors
/// When it could not begin, or the system refused what is needed on the way. Connections that
/// failed and messages that were lost are no errors here: the report tells them.
pub fn run(plan: Plan, show: Show) -> Result<Report, LoadError> {
    let started = SystemTime::now();
    let signals = Signals::new([SIGINT, SIGTERM]).map_err(system("watch for signals"))?;
    let before = sys::raise_descriptor_limit(plan.descriptors_limit);
    before.map_err(system("raise the descriptor limit"))?;
    let target = &plan.options.target;
    let unreachable = |source| LoadError::Unreachable {
        url: target.url().to_owned(),
        source,
    };
    let options = &plan.options;
    let address = target
        .reach(&options.sources, options.timeout)
        .map_err(unreachable)?;
    let sources: Arc<[IpAddr]> = plan.sources(address).into();
    if let Some(warning) = plan.warning(&sources)
        && show != Show::Nothing
    {
        eprintln!("warning: {warning}");
    }
    let report = Report::new(&plan, started, sources.len());
    let mut conductor = Conductor::start(plan, show, signals, address, sources)?;
    conductor.conduct()?;
    conductor.end(report)
}

/// A run under way.
struct Conductor {
    plan: Arc<Plan>,
    show: Show,
    signals: Signals,
    epoch: Instant,
    orders: Vec<Sender<Order>>,
    done: mpsc::Receiver<Done>,
    threads: Vec<JoinHandle<()>>,
    tallies: Vec<Arc<Tally>>,
    interrupted: bool,
    phases: Vec<Phase>,
    /// What both ends used: at the beginning, and at the end of each phase.
    looks: Vec<Look>,
    samples: Vec<Sample>,
    sample_every: Duration,
    sampled: Instant,
}

/// A phase under way.
struct Watch {
    name: &'static str,
    began: Instant,
    before: Totals,
    progress: Progress,
}

impl Conductor {
    fn start(
        plan: Plan,
        show: Show,
        signals: Signals,
        address: SocketAddr,
        sources: Arc<[IpAddr]>,
    ) -> Result<Self, LoadError> {
        let plan = Arc::new(plan);
        let epoch = Instant::now();
        // Every poll and waker before the first thread: a table of its own inherits them all, and
        // a number means the same in each.
        let mut boxes = Vec::with_capacity(plan.threads);
        for _ in 0..plan.threads {
            let poll = Poll::new().map_err(system("create a poll"))?;
            let mailbox = Mailbox::new(&poll, MAIL).map_err(system("create a waker"))?;
            boxes.push((poll, mailbox));
        }
        let (tell, done) = mpsc::channel();
        let mut conductor = Self {
            show,
            signals,
            epoch,
            orders: boxes.iter().map(|(_, mailbox)| mailbox.sender()).collect(),
            done,
            threads: Vec::with_capacity(plan.threads),
            tallies: (0..plan.threads).map(|_| Arc::default()).collect(),
            interrupted: false,
            phases: Vec::new(),
            looks: Vec::new(),
            samples: Vec::new(),
            sample_every: SAMPLE,
            sampled: epoch,
            plan,
        };
        conductor.look();
        if let Some(pid) = conductor.plan.options.server_pid
            && ProcessUse::of(pid).is_none()
            && cfg!(target_os = "linux")
        {
            return Err(LoadError::NoServer(pid));
        }
        for (thread, (poll, mailbox)) in boxes.into_iter().enumerate() {
            let parts = Parts {
                thread,
                plan: Arc::clone(&conductor.plan),
                address,
                sources: Arc::clone(&sources),
                epoch,
                poll,
                mailbox,
                tally: Arc::clone(&conductor.tallies[thread]),
                done: tell.clone(),
            };
            let handle = thread::Builder::new()
                .name(format!("load-{thread}"))
                .spawn(move || drive(parts))
                .map_err(system("start a thread"))?;
            conductor.threads.push(handle);
        }
        Ok(conductor)
    }

    /// All phases, one after the other.
    fn conduct(&mut self) -> Result<(), LoadError> {
        let plan = Arc::clone(&self.plan);
        let options = &plan.options;
        let all = options.connections_all() as u64;
        let duration = options.duration;
        if options.mode == Mode::Connect {
            let until = self.after(duration);
            let goal = Goal::Time(duration, Counted::Handshakes);
            return self.phase("churn", Order::Churn { until }, goal);
        }
        self.phase("ramp", Order::Open, Goal::Connections(all))?;
        match options.mode {
            Mode::Echo => {
                let until = self.after(duration);
                let goal = Goal::Time(duration, Counted::Messages);
                self.phase("exchange", Order::Exchange { until }, goal)?;
            }
            Mode::Fanout => self.publish(duration)?,
            _ => self.hold(duration)?,
        }
        let probes = [
            ("sweep", options.sweep, Probe::Message),
            ("pings", options.pings, Probe::Ping),
        ];
        for (name, wanted, probe) in probes {
            if wanted.is_some() && options.mode == Mode::Hold {
                let goal = Goal::Answers(self.totals().open);
                self.phase(name, Order::Probe(probe), goal)?;
            }
        }
        // A million orderly closes would leave a million ports waiting.
        let abruptly = options.mode == Mode::Hold;
        let open = self.totals().open;
        self.phase("close", Order::Close { abruptly }, Goal::Closing(open))
    }

    /// Nanoseconds since the epoch.
    fn after(&self, duration: Duration) -> u64 {
        u64::try_from((self.epoch.elapsed() + duration).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Gives all drivers an order, and waits until each has carried it out.
    fn phase(&mut self, name: &'static str, order: Order, goal: Goal) -> Result<(), LoadError> {
        let is_needless = self.interrupted && !matches!(order, Order::Close { .. });
        if is_needless {
            return Ok(());
        }
        let watch = self.begin(name, goal);
        self.order(order);
        let mut left = self.threads.len();
        let mut is_cut = self.interrupted;
        self.watch(watch, |conductor, done| {
            left -= usize::from(matches!(done, Some(Done::Task)));
            // Once: a second one would not wait for the answers that are out.
            if conductor.interrupted && !is_cut {
                is_cut = true;
                conductor.order(Order::Cut);
            }
            left == 0
        })
    }

    /// Publishes, and waits for what is still on its way to the subscribers.
    fn publish(&mut self, duration: Duration) -> Result<(), LoadError> {
        if self.interrupted {
            return Ok(());
        }
        let timeout = self.plan.options.timeout;
        let subscribers = self.totals().open.saturating_sub(1);
        let goal = Goal::Time(duration, Counted::Messages);
        let watch = self.begin("publish", goal);
        let (from, until) = (self.after(SETTLE), self.after(SETTLE + duration));
        self.order(Order::Publish { from, until });
        let mut left = self.threads.len();
        let mut is_cut = false;
        let mut published = None;
        self.watch(watch, |conductor, done| {
            left -= usize::from(matches!(done, Some(Done::Task)));
            if conductor.interrupted && !is_cut {
                is_cut = true;
                conductor.order(Order::Cut);
            }
            if left > 0 {
                return false;
            }
            let totals = conductor.totals();
            let is_missing = totals.messages_received < totals.messages_sent * subscribers;
            let patience = match conductor.interrupted {
                true => timeout.min(CUT_TIMEOUT),
                false => timeout,
            };
            let published: Instant = *published.get_or_insert_with(Instant::now);
            !is_missing || published.elapsed() >= patience
        })
    }

    /// Lets time pass.
    fn hold(&mut self, duration: Duration) -> Result<(), LoadError> {
        if self.interrupted {
            return Ok(());
        }
        let until = Instant::now() + duration;
        let goal = Goal::Time(duration, Counted::Connections);
        let watch = self.begin("hold", goal);
        self.watch(watch, |conductor, _| {
            conductor.interrupted || Instant::now() >= until
        })
    }

    /// The beginning of a phase, before its order is given.
    fn begin(&self, name: &'static str, goal: Goal) -> Watch {
        let before = self.totals();
        Watch {
            name,
            began: Instant::now(),
            before,
            progress: Progress::new(self.show, name, goal, before),
        }
    }

    /// Shows progress and takes samples until `is_over`, which sees what the drivers say.
    fn watch(
        &mut self,
        watch: Watch,
        mut is_over: impl FnMut(&mut Self, Option<Done>) -> bool,
    ) -> Result<(), LoadError> {
        let Watch {
            name,
            began,
            before,
            progress,
        } = watch;
        loop {
            let done = match self.done.recv_timeout(LOOK) {
                Ok(Done::Failed(error)) => return Err(system("go on with a thread")(error)),
                Ok(done) => Some(done),
                Err(mpsc::RecvTimeoutError::Timeout) => None,
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(LoadError::DriverLost),
            };
            if self.threads.iter().any(JoinHandle::is_finished) {
                return Err(LoadError::DriverLost);
            }
            self.heed_signals();
            let over = is_over(self, done);
            let totals = self.totals();
            progress.update(&totals, began.elapsed());
            self.sample(&totals, over);
            if over {
                progress.finish(&totals, began.elapsed());
                self.phases.push(Phase {
                    name,
                    begin: began.duration_since(self.epoch),
                    end: self.epoch.elapsed(),
                    before,
                    after: totals,
                });
                self.look();
                return Ok(());
            }
        }
    }

    fn heed_signals(&mut self) {
        for signal in self.signals.pending() {
            if self.interrupted {
                process::exit(128 + signal);
            }
            self.interrupted = true;
        }
    }

    fn order(&self, order: Order) {
        for driver in &self.orders {
            driver.send(order);
        }
    }

    fn totals(&self) -> Totals {
        Totals::of(self.tallies.iter().map(|tally| &**tally))
    }

    /// Notes what both ends have used so far.
    fn look(&mut self) {
        let server = self.plan.options.server_pid;
        self.looks.push(Look {
            client: ProcessUse::of(process::id()),
            client_threads: machine::threads(process::id()),
            server: server.and_then(ProcessUse::of),
            server_threads: server.map_or_else(BTreeMap::new, machine::threads),
            machine: MachineUse::now(),
        });
    }

    fn sample(&mut self, totals: &Totals, is_last: bool) {
        if self.sampled.elapsed() < self.sample_every && !is_last {
            return;
        }
        self.sampled = Instant::now();
        self.samples.push(Sample {
            at: self.epoch.elapsed(),
            totals: *totals,
            client: ProcessUse::of(process::id()),
            server: self.plan.options.server_pid.and_then(ProcessUse::of),
            machine: MachineUse::now(),
        });
        if self.samples.len() > SAMPLES_MAX {
            let mut is_odd = false;
            self.samples.retain(|_| {
                is_odd = !is_odd;
                is_odd
            });
            self.sample_every *= 2;
        }
    }

    /// Gathers what the drivers found out.
    fn end(self, mut report: Report) -> Result<Report, LoadError> {
        self.order(Order::End);
        let mut findings = Findings::default();
        let mut left = self.threads.len();
        while left > 0 {
            match self.done.recv() {
                Ok(Done::End(found)) => {
                    findings.merge(&found);
                    left -= 1;
                }
                Ok(Done::Failed(error)) => return Err(system("go on with a thread")(error)),
                Ok(Done::Task) => {}
                Err(_) => return Err(LoadError::DriverLost),
            }
        }
        report.totals = self.totals();
        report.account_for_copies();
        for thread in self.threads {
            thread.join().map_err(|_| LoadError::DriverLost)?;
        }
        report.findings = findings;
        report.elapsed = self.epoch.elapsed();
        report.interrupted = self.interrupted;
        report.phases = self.phases;
        report.looks = self.looks;
        report.samples = self.samples;
        Ok(report)
    }
}

/// The life of one driver's thread.
fn drive(parts: Parts) {
    sys::block_signals();
    let done = parts.done.clone();
    let private = parts.plan.private_tables;
    let table = if private {
        sys::unshare_descriptors()
    } else {
        Ok(())
    };
    let outcome = table.and_then(|()| Driver::new(parts)?.run());
    let last = match outcome {
        Ok(findings) => Done::End(Box::new(findings)),
        Err(error) => Done::Failed(error),
    };
    // The conductor waits for this, or has given up.
    let _ = done.send(last);
}
