//! Who may come in. So far: how many.
//!
//! One [`Gate`] is shared by all reactors. It is touched when a connection comes and goes, and
//! once a turn in which buffers grew or shrank; never for a message.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// Upgrades are refused while more than this share of the buffer budget is in use.
const BUFFERS_FULL_PERCENT: usize = 80;

/// The counts that hold for the whole process.
#[derive(Debug)]
pub struct Gate {
    connections: AtomicUsize,
    connections_max: usize,
    buffered_bytes: AtomicUsize,
    buffer_bytes_max: usize,
    draining: AtomicBool,
}

/// Why a newcomer is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    Buffers,
    Draining,
}

impl Gate {
    pub fn new(connections_max: usize, buffer_bytes_max: usize) -> Self {
        Self {
            connections: AtomicUsize::new(0),
            connections_max,
            buffered_bytes: AtomicUsize::new(0),
            buffer_bytes_max,
            draining: AtomicBool::new(false),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cap_is_inclusive_and_a_leaver_makes_room() {
        let gate = Gate::new(2, 1000);
        assert!(gate.enter() && gate.enter());
        assert!(gate.is_full());
        assert!(!gate.enter());
        assert_eq!(gate.connections(), 2);
        gate.leave();
        assert!(gate.enter());
    }

    #[test]
    fn buffers_close_the_gate_at_four_fifths() {
        let gate = Gate::new(2, 1000);
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
