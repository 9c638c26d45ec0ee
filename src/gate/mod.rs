//! Who may come in, and what they may do.
//!
//! One [`Gate`] is shared by all reactors. It is touched when a connection comes and goes, and
//! once a turn in which buffers grew or shrank; never for a message. Beside it stand the rules
//! themselves, all of them pure: what they need to know of sockets and clocks is an argument.

pub mod address;
pub mod channel;
mod credentials;
pub mod forwarded;
pub mod origin;
mod policy;
pub mod rate;
mod redact;
pub mod token;

use std::{
    fmt,
    sync::{
        Arc, OnceLock, RwLock,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
};

use address::{Addresses, Caps};
use channel::{Exposure, Namespaces};
pub use credentials::Credentials;
pub use policy::{Journey, KeyCheck, OriginList, Policy};
pub use redact::redact;
use token::{Revocation, RevocationsFull, Tokens};

use crate::config::Config;

/// Upgrades are refused while more than this share of the buffer budget is in use.
const BUFFERS_FULL_PERCENT: usize = 80;

/// Takes a revocation to all who hold connections.
pub type Herald = Box<dyn Fn(&Arc<Revocation>) + Send + Sync>;

/// What holds for the whole process: the counts, the addresses, the tokens and the policy.
pub struct Gate {
    connections: AtomicUsize,
    connections_max: usize,
    buffered_bytes: AtomicUsize,
    buffer_bytes_max: usize,
    draining: AtomicBool,
    /// Present when anything is counted by address.
    pub addresses: Option<Addresses>,
    pub tokens: Tokens,
    /// Who may do what with which channel. It stays as it is while the server runs.
    pub namespaces: Namespaces,
    policy: RwLock<Arc<Policy>>,
    herald: OnceLock<Herald>,
    /// When a line about each kind of refusal may be written next, whichever reactor it is.
    lines: Box<[Line]>,
}

/// A line of the log that is written now and then.
#[derive(Debug, Default)]
struct Line {
    next: AtomicU32,
    untold: AtomicU32,
}

/// Why a newcomer is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    Buffers,
    Draining,
}

/// What one process holds at the most.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub connections_max: usize,
    pub buffer_bytes_max: usize,
    pub ticks_per_second: u32,
    /// Kinds of refusals.
    pub refusals: usize,
}

impl Gate {
    pub fn new(config: &Config, bounds: Bounds, policy: Policy, tokens: Tokens) -> Self {
        let narrow = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let caps = Caps {
            connections_max: narrow(config.connections_per_ip_max),
            half_open_max: narrow(config.half_open_per_ip_max),
            connects_per_second: narrow(config.connect_rate_per_ip),
            ticks_per_second: bounds.ticks_per_second,
        };
        let exposure = Exposure {
            is_loopback_only: policy.is_loopback_only(),
            has_token_keys: config.has_token_keys(),
        };
        Self {
            connections: AtomicUsize::new(0),
            connections_max: bounds.connections_max,
            buffered_bytes: AtomicUsize::new(0),
            buffer_bytes_max: bounds.buffer_bytes_max,
            draining: AtomicBool::new(false),
            addresses: (!caps.are_off()).then(|| Addresses::new(caps, bounds.connections_max)),
            tokens,
            namespaces: Namespaces::from_config(config, exposure),
            policy: RwLock::new(Arc::new(policy)),
            herald: OnceLock::new(),
            lines: (0..bounds.refusals).map(|_| Line::default()).collect(),
        }
    }

    /// Whether a line about a refusal of this kind may be written at `now`, in ticks: then, how
    /// many were not since the last one. `pause` is the time between two.
    pub fn tells(&self, refusal: usize, now: u32, pause: u32) -> Option<u32> {
        let line = &self.lines[refusal];
        let next = line.next.load(Relaxed);
        let is_due = now >= next;
        let is_ours = || {
            let swapped = line
                .next
                .compare_exchange(next, now + pause, Relaxed, Relaxed);
            swapped.is_ok()
        };
        if is_due && is_ours() {
            return Some(line.untold.swap(0, Relaxed));
        }
        line.untold.fetch_add(1, Relaxed);
        None
    }

    /// What is asked of newcomers now.
    pub fn policy(&self) -> Arc<Policy> {
        let policy = self.policy.read();
        Arc::clone(&policy.unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// What is asked of newcomers from now on.
    pub fn replace_policy(&self, policy: Policy) {
        let current = self.policy.write();
        *current.unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(policy);
    }

    /// Says who carries revocations to the reactors. The first to be named stays.
    pub fn set_herald(&self, herald: Herald) {
        let _ = self.herald.set(herald);
    }

    /// Refuses tokens from now on, and has the connections closed that came by them. `now` is in
    /// seconds since 1970.
    ///
    /// # Errors
    /// When so many revocations are remembered that there is no room for one more: none of those
    /// that were acknowledged is forgotten for it.
    pub fn revoke(&self, revocation: Revocation, now: i64) -> Result<(), RevocationsFull> {
        self.tokens.revoke(revocation.clone(), now)?;
        if let Some(herald) = self.herald.get() {
            herald(&Arc::new(revocation));
        }
        Ok(())
    }

    /// Counts a connection in, unless it is one too many.
    pub fn enter(&self) -> bool {
        let entered = self.connections.fetch_add(1, Relaxed) < self.connections_max;
        if !entered {
            self.leave();
        }
        entered
    }

    /// Counts a connection out.
    pub fn leave(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Reports that a reactor's buffers grew or shrank by so many bytes.
    pub fn buffer(&self, change: isize) {
        if change >= 0 {
            self.buffered_bytes
                .fetch_add(change.unsigned_abs(), Relaxed);
        } else {
            self.buffered_bytes
                .fetch_sub(change.unsigned_abs(), Relaxed);
        }
    }

    /// Bytes by which the buffers of all reactors exceed the budget.
    pub fn buffer_excess_bytes(&self) -> usize {
        self.buffered_bytes
            .load(Relaxed)
            .saturating_sub(self.buffer_bytes_max)
    }

    /// From here on nobody is let in.
    pub fn drain(&self) {
        self.draining.store(true, Relaxed);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Whether a new upgrade may be granted.
    pub fn upgrade(&self) -> Result<(), Full> {
        if self.is_draining() {
            return Err(Full::Draining);
        }
        let buffered = self.buffered_bytes.load(Relaxed);
        if buffered / 100 * 100 > self.buffer_bytes_max / 100 * BUFFERS_FULL_PERCENT {
            return Err(Full::Buffers);
        }
        Ok(())
    }

    pub fn connections_max(&self) -> usize {
        self.connections_max
    }

    /// Whether the server holds all connections that it may.
    pub fn is_full(&self) -> bool {
        self.connections() >= self.connections_max
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Gate")
            .field("connections", &self.connections)
            .field("connections_max", &self.connections_max)
            .field("buffered_bytes", &self.buffered_bytes)
            .field("draining", &self.draining)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{token::Keys, *};

    fn gate() -> Gate {
        let config = Config::default();
        let bounds = Bounds {
            connections_max: 2,
            buffer_bytes_max: 1000,
            ticks_per_second: 10,
            refusals: 2,
        };
        let tokens = Tokens::new(Keys::default(), token::Rules::default());
        Gate::new(&config, bounds, Policy::new(&config, true), tokens)
    }

    #[test]
    fn the_cap_is_inclusive_and_a_leaver_makes_room() {
        let gate = gate();
        assert!(gate.enter() && gate.enter());
        assert!(gate.is_full());
        assert!(!gate.enter());
        assert_eq!(gate.connections(), 2);
        gate.leave();
        assert!(gate.enter());
    }

    #[test]
    fn a_line_is_written_once_in_a_while_and_says_how_many_were_not() {
        let gate = gate();
        assert_eq!(gate.tells(0, 5, 10), Some(0));
        assert_eq!(gate.tells(0, 5, 10), None);
        assert_eq!(gate.tells(0, 14, 10), None);
        assert_eq!(gate.tells(1, 14, 10), Some(0));
        assert_eq!(gate.tells(0, 15, 10), Some(2));
    }

    #[test]
    fn buffers_close_the_gate_at_four_fifths() {
        let gate = gate();
        gate.buffer(799);
        assert_eq!(gate.upgrade(), Ok(()));
        gate.buffer(102);
        assert_eq!(gate.upgrade(), Err(Full::Buffers));
        assert_eq!(gate.buffer_excess_bytes(), 0);
        gate.buffer(600);
        assert_eq!(gate.buffer_excess_bytes(), 501);
        gate.buffer(-1400);
        assert_eq!(gate.upgrade(), Ok(()));
        gate.drain();
        assert_eq!(gate.upgrade(), Err(Full::Draining));
    }
}
