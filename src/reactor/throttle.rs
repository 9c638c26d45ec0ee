//! Log lines about limits: at most one a second of each kind, so that a hostile peer cannot fill a
//! disk.

use crate::wheel::{TICK_MS, Tick};

/// Between two lines of one kind.
pub const PAUSE: Tick = (1000 / TICK_MS) as Tick;

/// One kind of line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Throttle {
    next: Tick,
    untold: u32,
}

/// All kinds that a reactor writes for itself. Those about refusals are the gate's: there is one
/// for all reactors.
#[derive(Debug, Default)]
pub struct Throttles {
    pub connection_cap: Throttle,
    pub descriptors: Throttle,
    pub slow_consumer: Throttle,
    pub rate: Throttle,
    pub buffers: Throttle,
    pub handler: Throttle,
    pub tls: Throttle,
}

impl Throttle {
    /// Whether the line may be written now.
    pub fn allow(&mut self, now: Tick) -> bool {
        self.admit(now).is_some()
    }

    /// If the line may be written now: how many were not, since the last one.
    pub fn admit(&mut self, now: Tick) -> Option<u32> {
        if now < self.next {
            self.untold = self.untold.saturating_add(1);
            return None;
        }
        self.next = now + PAUSE;
        Some(std::mem::take(&mut self.untold))
    }
}
