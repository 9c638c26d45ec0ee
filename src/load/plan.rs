//! What a run will do: the options, checked and fitted to this machine.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    ops::Range,
    time::Duration,
};

use thiserror::Error;

use super::frames::STAMP_BYTES;
use super::secure::Secure;
use super::target::{CONNECTIONS_PER_SOURCE, Target, default_sources};
use crate::{
    config::{Machine, show_count},
    protocol::{Message, handshake::ClientHandshake},
    transport::tls::{self, Authorities},
};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Messages and their echoes: throughput and latency.
    Echo,
    /// Connections that stay open.
    Hold,
    /// One publisher, and subscribers to whom the server relays what it says.
    Fanout,
    /// Handshakes and closes.
    Connect,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Hold => "hold",
            Self::Fanout => "fanout",
            Self::Connect => "connect",
        }
    }
}

/// When the next message, or in [`Mode::Connect`] the next handshake, begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// A plan that does not wait for answers: this many a second, over all connections.
    Open { per_second: f64 },
    /// The next one follows an answer; so many are under way on each connection.
    Closed { depth: usize },
}

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    Text(String),
    Binary(Vec<u8>),
}

impl Payload {
    /// `length` bytes that no two neighbours of which are equal.
    pub fn of_length(length: usize, is_binary: bool) -> Self {
        let alphabet = (b'a'..=b'z').chain(b'0'..=b'9').cycle();
        let bytes: Vec<u8> = alphabet.take(length).collect();
        match String::from_utf8(bytes) {
            Ok(text) if !is_binary => Self::Text(text),
            Ok(text) => Self::Binary(text.into_bytes()),
            Err(error) => Self::Binary(error.into_bytes()),
        }
    }

    pub fn message(&self) -> Message<'_> {
        match self {
            Self::Text(text) => Message::Text(text),
            Self::Binary(bytes) => Message::Binary(bytes),
        }
    }

    pub fn len(&self) -> usize {
        self.message().as_bytes().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Binary(_) => "binary",
        }
    }
}

/// What the user asked for. Names and units are those of the flags.
#[derive(Clone, Debug)]
pub struct Options {
    pub mode: Mode,
    pub target: Target,
    pub connections: usize,
    pub threads: Option<usize>,
    /// Connections a second, at most.
    pub ramp: Option<f64>,
    /// Handshakes under way at once, over all threads.
    pub connecting: usize,
    pub sources: Vec<IpAddr>,
    /// For a handshake, and for answers that are still out at the end.
    pub timeout: Duration,
    pub duration: Duration,
    pub pace: Pace,
    pub payload: Payload,
    /// Headers of the handshake.
    pub headers: Vec<(String, String)>,
    pub protocols: Vec<String>,
    /// Who may have signed the server's certificate, for a `wss://` URL alone; without, whoever the
    /// system believes.
    pub authorities: Option<Authorities>,
    /// Whether TLS sessions are resumed where they can be; each handshake is a full one otherwise.
    pub resume: bool,
    pub server_pid: Option<u32>,
    /// After holding: one echo over each connection, at most so many out at once.
    pub sweep: Option<usize>,
    /// After holding: one ping over each connection, at most so many out at once.
    pub pings: Option<usize>,
}

impl Options {
    /// All connections: a publisher is one more.
    pub fn connections_all(&self) -> usize {
        self.connections + usize::from(self.mode == Mode::Fanout)
    }

    /// Whether publications wait until earlier ones have reached all subscribers.
    fn is_closed_fanout(&self) -> bool {
        self.mode == Mode::Fanout && matches!(self.pace, Pace::Closed { .. })
    }

    /// The least of what may be under way at once, and its flag.
    fn at_once(&self) -> (&'static str, usize) {
        let limits = [
            ("--connecting", Some(self.connecting)),
            ("--sweep", self.sweep),
            ("--pings", self.pings),
        ];
        let set = limits.map(|(flag, limit)| (flag, limit.unwrap_or(usize::MAX)));
        set.into_iter()
            .min_by_key(|(_, limit)| *limit)
            .unwrap_or(("--connecting", self.connecting))
    }

    /// What is used where the user said nothing.
    pub fn new(mode: Mode, target: Target) -> Self {
        Self {
            mode,
            target,
            connections: match mode {
                Mode::Echo | Mode::Connect => 64,
                Mode::Hold | Mode::Fanout => 1000,
            },
            threads: None,
            ramp: None,
            connecting: 256,
            sources: Vec::new(),
            timeout: Duration::from_secs(10),
            duration: Duration::from_secs(10),
            pace: match mode {
                Mode::Fanout => Pace::Open { per_second: 10.0 },
                _ => Pace::Closed { depth: 1 },
            },
            payload: match mode {
                Mode::Fanout => Payload::of_length(64, false),
                _ => Payload::of_length(20, false),
            },
            headers: Vec::new(),
            protocols: Vec::new(),
            authorities: None,
            resume: false,
            server_pid: None,
            sweep: None,
            pings: None,
        }
    }
}

/// Why there is no plan. Each names the flag and the remedy.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PlanError {
    #[error("{0}")]
    Value(String),
    #[error(
        "--connections {connections} needs {needed} descriptors{place}, and the hard limit is \
         {limit}: raise it (ulimit -Hn {needed}){or}"
    )]
    Descriptors {
        connections: usize,
        needed: u64,
        limit: u64,
        place: String,
        or: String,
    },
}

/// Options that fit, with what follows from them.
#[derive(Clone, Debug)]
pub struct Plan {
    pub options: Options,
    pub threads: usize,
    /// Whether each thread has a descriptor table of its own.
    pub private_tables: bool,
    /// What to raise the descriptor limit to.
    pub descriptors_limit: u64,
    /// Cores of this machine.
    pub cores: usize,
    /// Present for a `wss://` URL.
    secure: Option<Secure>,
}

/// Threads that one process may have: beyond that, more tables are no help.
const THREADS_MAX: u64 = 512;

/// Descriptors of a table that are not connections: standard streams, signals, files read.
const DESCRIPTORS_RESERVED: u64 = 32;

impl Plan {
    /// Fits options to a machine on which this process has `inherited` descriptors from its
    /// parent.
    ///
    /// # Errors
    /// An option that cannot be, or more connections than descriptors.
    pub fn new(mut options: Options, machine: &Machine, inherited: u64) -> Result<Self, PlanError> {
        check(&options)?;
        if options.is_closed_fanout() {
            options.threads = Some(1);
        }
        let secure = Secure::of(&options)?;
        let limit = machine.descriptors_hard.max(machine.descriptors_soft);
        let wanted = options.connections_all() as u64;
        // What is allowed at once is shared among the threads, and none goes without.
        let (flag, at_once) = options.at_once();
        let threads = options
            .threads
            .unwrap_or(machine.cores.max(1))
            .min(options.connections)
            .min(at_once) as u64;
        // Each table inherits what was open before it was made: every poll and waker.
        let reserve =
            |threads: u64| threads * DESCRIPTORS_PER_THREAD + DESCRIPTORS_RESERVED + inherited;
        if reserve(threads) + wanted <= limit {
            return Ok(Self::of(options, threads, false, limit, machine, secure));
        }
        let room = |threads: u64| limit.saturating_sub(reserve(threads));
        let fits = |threads: u64| room(threads) >= wanted.div_ceil(threads);
        let enough = match options.threads {
            Some(_) => Some(threads).filter(|threads| fits(*threads)),
            None => (threads..=THREADS_MAX).find(|threads| fits(*threads)),
        };
        match enough.filter(|_| machine.unshare) {
            Some(threads) if threads > at_once as u64 => Err(PlanError::Value(format!(
                "{flag} {at_once}: must be at least {threads}, one for each thread: the descriptor \
                 limit of {limit} asks for so many with --connections {}",
                options.connections
            ))),
            Some(threads) => Ok(Self::of(options, threads, true, limit, machine, secure)),
            None => {
                let threads = if machine.unshare { threads } else { 1 };
                let least = (1..=THREADS_MAX).find(|threads| fits(*threads));
                Err(PlanError::Descriptors {
                    connections: options.connections,
                    needed: wanted.div_ceil(threads) + reserve(threads),
                    limit,
                    place: match threads {
                        1 => String::new(),
                        _ => format!(" in each of {threads} threads"),
                    },
                    or: match least.filter(|_| machine.unshare && options.threads.is_some()) {
                        Some(least) => format!(" or set --threads {least}"),
                        None => String::new(),
                    },
                })
            }
        }
    }

    fn of(
        options: Options,
        threads: u64,
        private_tables: bool,
        descriptors_limit: u64,
        machine: &Machine,
        secure: Option<Secure>,
    ) -> Self {
        Self {
            options,
            threads: threads as usize,
            private_tables,
            descriptors_limit,
            cores: machine.cores,
            secure,
        }
    }

    /// Where the connections come from: the addresses that were given, or those that the number
    /// of connections to `address` needs.
    pub fn sources(&self, address: SocketAddr) -> Vec<IpAddr> {
        if self.options.sources.is_empty() {
            default_sources(address.ip(), self.options.connections_all())
        } else {
            self.options.sources.clone()
        }
    }

    /// What most likely goes wrong with these connections to `address`.
    pub fn warning(&self, sources: &[IpAddr]) -> Option<String> {
        let connections = self.options.connections_all();
        let each = connections.div_ceil(sources.len().max(1));
        (each > CONNECTIONS_PER_SOURCE).then(|| {
            format!(
                "{} connections for each source address: beyond {} a kernel finds free ports \
                 only slowly; give more addresses with --source",
                show_count(each as u64),
                show_count(CONNECTIONS_PER_SOURCE as u64),
            )
        })
    }

    /// The connections of one thread, by their numbers over all.
    pub fn connections_of(&self, thread: usize) -> Range<usize> {
        let all = self.options.connections_all();
        all * thread / self.threads..all * (thread + 1) / self.threads
    }

    /// What one thread may have under way of what all together may.
    pub fn share_of(&self, all: usize, thread: usize) -> usize {
        all * (thread + 1) / self.threads - all * thread / self.threads
    }

    /// The TLS session of a new connection, if it has one.
    ///
    /// # Errors
    /// When TLS cannot be begun.
    pub fn session(&self) -> io::Result<Option<tls::Session>> {
        self.secure.as_ref().map(Secure::session).transpose()
    }

    /// The handshake of one connection.
    ///
    /// # Errors
    /// When a header or a subprotocol cannot stand in a request.
    pub fn handshake(&self, key: [u8; 16]) -> Result<ClientHandshake, PlanError> {
        handshake(&self.options, key)
    }
}

/// A poll, a waker and a timer.
const DESCRIPTORS_PER_THREAD: u64 = 3;

fn handshake(options: &Options, key: [u8; 16]) -> Result<ClientHandshake, PlanError> {
    let target = &options.target;
    let wrong = |flag: &str, text: &str, error: &dyn std::fmt::Display| {
        PlanError::Value(format!("{flag} {text:?}: {error}"))
    };
    let mut handshake = ClientHandshake::new(&target.authority, &target.path, key)
        .map_err(|error| wrong("URL", target.url(), &error))?;
    for protocol in &options.protocols {
        handshake = handshake
            .protocol(protocol)
            .map_err(|error| wrong("--protocol", protocol, &error))?;
    }
    for (name, value) in &options.headers {
        handshake = handshake
            .header(name, value)
            .map_err(|error| wrong("--header", name, &error))?;
    }
    Ok(handshake)
}

/// What is wrong by itself, whatever the machine.
fn check(options: &Options) -> Result<(), PlanError> {
    let wrong = |text: &str| Err(PlanError::Value(text.to_owned()));
    let is_zero = |number: usize, flag: &str| {
        if number == 0 {
            return Err(PlanError::Value(format!("{flag} 0: must be at least 1")));
        }
        Ok(())
    };
    is_zero(options.connections, "--connections")?;
    is_zero(options.connecting, "--connecting")?;
    is_zero(options.threads.unwrap_or(1), "--threads")?;
    is_zero(options.sweep.unwrap_or(1), "--sweep")?;
    is_zero(options.pings.unwrap_or(1), "--pings")?;
    if options.connections > CONNECTIONS_MAX {
        return Err(PlanError::Value(format!(
            "--connections {}: must be at most {CONNECTIONS_MAX}",
            options.connections
        )));
    }
    if options.threads.unwrap_or(1) as u64 > THREADS_MAX {
        return Err(PlanError::Value(format!(
            "--threads: must be at most {THREADS_MAX}"
        )));
    }
    let is_rate = |rate: f64| rate.is_finite() && rate > 0.0 && rate <= 1e9;
    match options.pace {
        Pace::Closed { depth } => {
            is_zero(depth, "--depth")?;
            let in_flight = depth.saturating_mul(options.payload.len());
            if depth > 1 && in_flight > IN_FLIGHT_BYTES_MAX {
                return wrong("--depth: at most 64 MiB may be in flight on a connection");
            }
        }
        Pace::Open { per_second } if !is_rate(per_second) => {
            return wrong("--rate: must be above 0 and at most 1,000,000,000 a second");
        }
        Pace::Open { .. } => {}
    }
    if options.ramp.is_some_and(|ramp| !is_rate(ramp)) {
        return wrong("--ramp: must be above 0 and at most 1,000,000,000 a second");
    }
    if options.mode == Mode::Fanout && options.payload.len() < STAMP_BYTES {
        return wrong(
            "--size: a publication carries its number and times, and has at least 40 bytes",
        );
    }
    if options.is_closed_fanout() && options.threads.is_some_and(|threads| threads > 1) {
        return wrong("--threads: a fan-out with --depth has one, which knows when all have heard");
    }
    if options.timeout < Duration::from_millis(1) || options.timeout > TIME_MAX {
        return wrong("--timeout: must be at least 1ms and at most 8760h");
    }
    if options.duration > TIME_MAX {
        return wrong("--duration: must be at most 8760h");
    }
    if options.payload.len() > PAYLOAD_BYTES_MAX {
        return wrong("--size or --payload: must be at most 64 MiB");
    }
    handshake(options, [0; 16]).map(drop)
}

/// As many as the largest server is built for.
const CONNECTIONS_MAX: usize = 4_194_304;

/// One year.
const TIME_MAX: Duration = Duration::from_secs(8760 * 3600);

/// The largest message that may be sent.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;

const IN_FLIGHT_BYTES_MAX: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(descriptors: u64) -> Machine {
        Machine {
            cores: 2,
            descriptors_soft: 1024,
            descriptors_hard: descriptors,
            memory_bytes: 24 << 30,
            ipv6: true,
            unshare: true,
        }
    }

    fn options(connections: usize) -> Options {
        let target = Target::parse("ws://127.0.0.1:7000/echo").unwrap();
        Options {
            connections,
            ..Options::new(Mode::Hold, target)
        }
    }

    #[test]
    fn few_connections_need_a_thread_a_core_and_one_table() {
        let plan = Plan::new(options(1000), &machine(20_000), 0).unwrap();
        assert_eq!((plan.threads, plan.private_tables), (2, false));
        let plan = Plan::new(options(1), &machine(20_000), 0).unwrap();
        assert_eq!(plan.threads, 1);
    }

    #[test]
    fn a_million_is_spread_over_private_tables_that_hold_it() {
        let plan = Plan::new(options(1_000_000), &machine(20_000), 0).unwrap();
        assert!(plan.private_tables);
        let most = (0..plan.threads)
            .map(|thread| plan.connections_of(thread).len())
            .max();
        let inherited = 3 * plan.threads + 32;
        assert!(most.unwrap() + inherited <= 20_000, "{plan:?}");
        let fewer = plan.threads - 1;
        assert!(1_000_000usize.div_ceil(fewer) + 3 * fewer + 32 > 20_000);
        let all = (0..plan.threads).map(|thread| plan.connections_of(thread).len());
        assert_eq!(all.sum::<usize>(), 1_000_000);
        assert_eq!(
            plan.connections_of(1).start,
            plan.connections_of(0).end,
            "no connection is opened twice"
        );
    }

    #[test]
    fn what_does_not_fit_names_the_flag_and_the_limit() {
        let few = Options {
            threads: Some(4),
            ..options(1_000_000)
        };
        let problem = Plan::new(few, &machine(20_000), 0).unwrap_err().to_string();
        assert!(
            problem.contains("--connections 1000000")
                && problem.contains("20000")
                && problem.contains("--threads 51"),
            "{problem}"
        );
        let bound = Machine {
            unshare: false,
            ..machine(20_000)
        };
        let problem = Plan::new(options(30_000), &bound, 0)
            .unwrap_err()
            .to_string();
        assert!(problem.contains("ulimit -Hn 30035"), "{problem}");
    }

    #[test]
    fn values_that_cannot_be_name_their_flag() {
        let pace = |pace| Options {
            pace,
            ..options(10)
        };
        for (options, flag) in [
            (options(0), "--connections"),
            (pace(Pace::Closed { depth: 0 }), "--depth"),
            (
                pace(Pace::Open {
                    per_second: f64::NAN,
                }),
                "--rate",
            ),
            (
                Options {
                    headers: vec![("Host".into(), "a".into())],
                    ..options(1)
                },
                "--header",
            ),
            (
                Options {
                    protocols: vec!["a b".into()],
                    ..options(1)
                },
                "--protocol",
            ),
        ] {
            let problem = Plan::new(options, &machine(1000), 0)
                .unwrap_err()
                .to_string();
            assert!(problem.starts_with(flag), "{problem}");
        }
    }

    #[test]
    fn shares_add_up() {
        let plan = Plan::new(options(1_000_000), &machine(20_000), 0).unwrap();
        let shares: usize = (0..plan.threads).map(|t| plan.share_of(256, t)).sum();
        assert!(shares <= 256, "{shares}");
    }
}
