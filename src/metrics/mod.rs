//! Counters: one block a reactor, read by whoever asks.
//!
//! Each counter has a single writer, its reactor, which stores to it without a locked instruction;
//! a scrape adds the blocks up. So nothing is copied out and a scrape is never behind. Only the
//! histogram of turn times, which is no single word, is published now and then.

mod page;
mod turns;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

pub use turns::{TurnCounters, TurnTimes};

/// A number that one thread writes and every thread may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`. Only the owner of the block may call this.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0
            .store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// Takes `count` away, for gauges. Only the owner of the block may call this.
    #[inline]
    pub fn subtract(&self, count: u64) {
        self.0
            .store(self.0.load(Relaxed).wrapping_sub(count), Relaxed);
    }

    /// Replaces the value. Only the owner of the block may call this.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    #[inline]
    pub fn load(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Dialects that a server can tell apart, [`SERVER`] included.
pub const DIALECTS_MAX: usize = 16;

/// In place of a dialect: what servers publish, by the API or from within the program.
pub const SERVER: usize = DIALECTS_MAX - 1;

/// Reasons for a refusal that a server can tell apart.
pub const REASONS_MAX: usize = 64;

/// Close codes with a counter of their own; the last counter is `other`.
pub const CLOSE_CODES: [u16; 28] = [
    1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3001,
    3004, 3005, 3008, 3010, 3011, 3012, 3500, 3501, 3502, 3503, 3507, 4000,
];

/// What failed when the system refused.
#[derive(Clone, Copy, Debug)]
pub enum Operation {
    Accept,
    Receive,
    Send,
}

/// Which time limit a connection reached.
#[derive(Clone, Copy, Debug)]
pub enum Timeout {
    Handshake,
    Message,
    Pong,
    Idle,
    Close,
    Token,
}

/// How a TLS handshake came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsHandshake {
    Full,
    /// By a ticket of an earlier connection.
    Resumed,
    /// The peer broke the protocol, or went away in the midst of it.
    Failed,
    Timeout,
    /// The peer spoke plain HTTP.
    PlainHttp,
}

const TLS_HANDSHAKES: [&str; 5] = ["full", "resumed", "failed", "timeout", "plain_http"];

const OPERATIONS: [&str; 3] = ["accept", "receive", "send"];
const TIMEOUTS: [&str; 6] = ["handshake", "message", "pong", "idle", "close", "token"];

/// All counters of one reactor. Aligned so that no two reactors share a cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Block {
    /// Open WebSocket connections by dialect.
    pub connections: [Counter; DIALECTS_MAX],
    /// Everything this reactor holds, requests under way included.
    pub sockets: Counter,
    pub connections_total: Counter,
    pub refused: RefusedCounters,
    pub messages_received: Counter,
    pub messages_sent: Counter,
    pub bytes_received: Counter,
    pub bytes_sent: Counter,
    closed: [Counter; CLOSE_CODES.len() + 1],
    io_errors: [Counter; OPERATIONS.len()],
    timeouts: [Counter; TIMEOUTS.len()],
    tls_handshakes: [Counter; TLS_HANDSHAKES.len()],
    pub slow_consumers: Counter,
    /// Times that a subscriber was too slow where publications are dropped then.
    pub gaps: Counter,
    /// Publications that were told to come again, as too many were under way.
    pub publications_refused: Counter,
    pub rate_limited: Counter,
    pub buffer_bytes: Counter,
    /// Channels whose home this reactor is.
    pub channels: Counter,
    pub subscriptions: Counter,
    /// Publications that were given an offset, by the dialect of their publisher.
    pub publications: [Counter; DIALECTS_MAX],
    /// Subscribers that came back: those who got what they missed, and those who did not.
    pub recoveries: [Counter; 2],
    /// Held as the history of channels.
    pub history_bytes: Counter,
    pub deliveries: Counter,
    /// Data mail that this reactor has not dealt with.
    pub mail_bytes: Counter,
    /// By the clock on the wall.
    pub turns: TurnCounters,
    /// By the processor's; empty unless that is measured.
    pub turns_cpu: TurnCounters,
}

/// One counter a reason, by the reason's number.
#[derive(Debug)]
pub struct RefusedCounters([Counter; REASONS_MAX]);

impl Default for RefusedCounters {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl RefusedCounters {
    pub fn add(&self, reason: usize) {
        self.0[reason.min(REASONS_MAX - 1)].add(1);
    }
}

impl Block {
    pub fn closed(&self, code: u16) {
        let index = CLOSE_CODES.iter().position(|known| *known == code);
        self.closed[index.unwrap_or(CLOSE_CODES.len())].add(1);
    }

    pub fn io_error(&self, operation: Operation) {
        self.io_errors[operation as usize].add(1);
    }

    pub fn tls_handshake(&self, result: TlsHandshake) {
        self.tls_handshakes[result as usize].add(1);
    }

    pub fn timeout(&self, kind: Timeout) {
        self.timeouts[kind as usize].add(1);
    }
}

/// Names for what the blocks count by number.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    pub dialects: &'static [&'static str],
    /// Status and label of each reason for a refusal.
    pub reasons: Vec<(u16, &'static str)>,
    /// Whether the CPU time of turns is measured.
    pub turn_cpu: bool,
    /// Whether there is TLS.
    pub tls: bool,
}

/// What happened to the files that are read again. Few threads write it, and seldom.
#[derive(Debug, Default)]
pub struct Reloads {
    good: AtomicU64,
    failed: AtomicU64,
    /// When the certificate that expires first does, in seconds since 1970.
    certificate_expires: AtomicI64,
}

impl Reloads {
    pub fn count(&self, was_good: bool) {
        let counter = if was_good { &self.good } else { &self.failed };
        counter.fetch_add(1, Relaxed);
    }

    /// Seconds since 1970.
    pub fn set_certificate_expires(&self, at: i64) {
        self.certificate_expires.store(at, Relaxed);
    }
}

/// The counters of all reactors, for whoever wants to read them.
#[derive(Debug)]
pub struct Registry {
    blocks: Vec<Arc<Block>>,
    labels: Labels,
    reloads: Reloads,
}

impl Registry {
    pub fn new(reactors: usize, labels: Labels) -> Self {
        Self {
            blocks: (0..reactors).map(|_| Arc::default()).collect(),
            labels,
            reloads: Reloads::default(),
        }
    }

    pub fn reloads(&self) -> &Reloads {
        &self.reloads
    }

    /// The counters of one reactor.
    pub fn block(&self, reactor: usize) -> &Arc<Block> {
        &self.blocks[reactor]
    }

    /// One counter, added up over all reactors.
    pub fn total(&self, of: impl Fn(&Block) -> &Counter) -> u64 {
        self.blocks
            .iter()
            .map(|block| of(block).load())
            .fold(0, u64::wrapping_add)
    }

    /// All counters in the Prometheus text format (version 0.0.4).
    pub fn prometheus(&self, process: &Process) -> String {
        page::text(self, process)
    }
}

/// Facts about the process, measured by the caller at the time of the scrape.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    pub cpu: Duration,
    pub resident_bytes: u64,
    pub descriptors_max: u64,
    pub start_time_seconds: u64,
    /// Now, in seconds since 1970.
    pub time_seconds: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_added_up_and_every_series_has_a_type() {
        let labels = Labels {
            dialects: &["welcome", "echo"],
            reasons: vec![(404, "unknown_path")],
            turn_cpu: false,
            tls: true,
        };
        let registry = Registry::new(2, labels);
        registry.reloads().count(false);
        registry.reloads().set_certificate_expires(1000);
        registry.block(1).tls_handshake(TlsHandshake::Resumed);
        let (one, two) = (registry.block(0), registry.block(1));
        one.messages_received.add(3);
        two.messages_received.add(4);
        one.connections[1].add(5);
        two.connections[1].subtract(1);
        two.closed(1000);
        two.closed(4999);
        let mut turns = TurnTimes::default();
        turns.record(Duration::from_micros(40));
        turns.record(Duration::from_millis(300));
        turns.publish(&one.turns);
        one.publications[0].add(6);
        two.publications[0].add(1);
        let page = registry.prometheus(&Process {
            time_seconds: 400,
            ..Process::default()
        });
        for line in [
            "tidemill_messages_received_total 7",
            "tidemill_connections{dialect=\"echo\"} 4",
            "tidemill_closed_total{code=\"1000\"} 1",
            "tidemill_publications_total{dialect=\"welcome\"} 7",
            "tidemill_closed_total{code=\"other\"} 1",
            "tidemill_turn_seconds_bucket{reactor=\"0\",le=\"0.00005\"} 1",
            "tidemill_turn_seconds_bucket{reactor=\"0\",le=\"+Inf\"} 2",
            "tidemill_tls_handshakes_total{result=\"resumed\"} 1",
            "tidemill_tls_certificate_expiry_seconds 600",
            "tidemill_reloads_total{result=\"failed\"} 1",
            "tidemill_turn_longest_seconds{reactor=\"0\"} 0.3",
            "tidemill_handshakes_refused_total{status=\"404\",reason=\"unknown_path\"} 0",
        ] {
            assert!(
                page.lines().any(|found| found == line),
                "{line} is missing in\n{page}"
            );
        }
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            let family = name.trim_end_matches("_bucket").trim_end_matches("_sum");
            let family = family.strip_suffix("_count").unwrap_or(family);
            assert!(
                page.contains(&format!("# TYPE {family} ")),
                "{name} has no type"
            );
        }
    }
}
