//! How long a reactor may sleep, and what time it is when it wakes.

use std::time::Duration;

use super::{FIRST_TICK, Reactor, accept::Listener};
use crate::{
    handler::Handler,
    wheel::{TICK_MS, Tick},
};

/// How often it is looked whether there is room for those who wait to publish.
const ROOM_PAUSE: Duration = Duration::from_millis(2);

impl<H: Handler> Reactor<H> {
    /// How long to sleep: not at all while something is owed, else until the next timer.
    pub(super) fn timeout(&self) -> Option<Duration> {
        let core = &self.core;
        let owed = !core.ready.is_empty()
            || !core.greetings.is_empty()
            || !core.unflushed.is_empty()
            || core.wheel.has_due()
            || self.has_newcomers()
            || core.hub.is_busy()
            || core.sweep.is_some()
            || !core.outbound.broadcasts.is_empty()
            || !self.mailbox.is_empty();
        if owed {
            return Some(Duration::ZERO);
        }
        if core.hub.has_waiters() {
            // Room is made on other threads, and nobody says when.
            return Some(ROOM_PAUSE);
        }
        let mut next = core.wheel.next_tick();
        let mut at_latest = |tick: Tick| next = Some(next.map_or(tick, |next| next.min(tick)));
        if let Some(publishing) = core.turns.publishing() {
            at_latest(publishing);
        }
        if let Some(expiry) = core.hub.next_expiry() {
            at_latest(expiry);
        }
        if self.shutdown.is_some() || self.listeners.iter().any(Listener::is_resting) {
            at_latest(core.now + 1);
        }
        let due = Duration::from_millis(u64::from(next? - FIRST_TICK) * TICK_MS);
        let passed = core.turns.ended().duration_since(core.settings.epoch);
        Some(due.saturating_sub(passed))
    }

    pub(super) fn tick(&self) -> Tick {
        let passed = self
            .core
            .turns
            .started()
            .duration_since(self.core.settings.epoch);
        let ticks = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX) / TICK_MS;
        FIRST_TICK.saturating_add(u32::try_from(ticks).unwrap_or(u32::MAX))
    }
}
