//! Log lines about limits: at most one a second of each kind, so that a hostile peer cannot fill a
//! disk.

use crate::wheel::{TICK_MS, Tick};

const PAUSE: Tick = (1000 / TICK_MS) as Tick;

/// One kind of line.
#[derive(Debug, Default)]
pub struct Throttle {
    next: Tick,
}

/// All kinds that a reactor writes.
#[derive(Debug, Default)]
pub struct Throttles {
    pub connection_cap: Throttle,
    pub descriptors: Throttle,
    pub unavailable: Throttle,
    pub slow_consumer: Throttle,
    pub buffers: Throttle,
    pub handler: Throttle,
    pub tls: Throttle,
}

impl Throttle {
    /// Whether the line may be written now.
    pub fn allow(&mut self, now: Tick) -> bool {
        let allowed = now >= self.next;
        if allowed {
            self.next = now + PAUSE;
        }
        allowed
    }
}
