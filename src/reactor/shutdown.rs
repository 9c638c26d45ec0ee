//! Going away politely: stop accepting, tell everyone in turn, wait for the answers, leave.

use std::time::Duration;

use super::{Core, Reactor};
use crate::{
    connection::{Connection, Flags, Stage},
    handler::{CloseCode, Ending, Handler, Reason},
    slots::Key,
    wheel::{TICK_MS, Tick},
};

/// Connections that are told a second, at least.
const CLOSES_PER_SECOND_MIN: usize = 1000;

/// Batches taken from the listeners before they are closed: a full backlog's worth.
const BATCHES_MAX: usize = 256;

/// How a shutdown is paced.
#[derive(Clone, Copy, Debug)]
pub struct Shutdown {
    /// Time over which the Closes are spread.
    pub drain_time: Duration,
    /// Time that the last one told has to answer.
    pub close_timeout: Duration,
}

/// A shutdown under way.
#[derive(Debug)]
pub(super) struct Closing {
    /// Slots before this one have been told.
    next_slot: u32,
    slots: u32,
    began: Tick,
    /// At which the remaining connections are dropped.
    ends: Tick,
    per_tick: usize,
    told: usize,
}

impl<H: Handler> Reactor<H> {
    /// Takes in what the kernel has accepted already, closes the listeners, and begins to tell.
    pub(super) fn begin_shutdown(&mut self, shutdown: Shutdown) {
        if self.shutdown.is_some() {
            return;
        }
        for _ in 0..BATCHES_MAX {
            self.accept();
            if !self.has_newcomers() {
                break;
            }
        }
        self.listeners.clear();
        let now = self.core.now;
        let ticks = |time: Duration| (time.as_millis() as u64).div_ceil(TICK_MS) as Tick;
        let drain_ticks = ticks(shutdown.drain_time);
        let connections = self.connections.len();
        let slowest = CLOSES_PER_SECOND_MIN * TICK_MS as usize / 1000;
        let per_tick = match drain_ticks {
            0 => usize::MAX,
            ticks => connections.div_ceil(ticks as usize).max(slowest),
        };
        self.shutdown = Some(Closing {
            next_slot: 0,
            slots: self.connections.slots_used(),
            began: now,
            ends: now + drain_ticks + ticks(shutdown.close_timeout) + 1,
            per_tick,
            told: 0,
        });
    }

    /// Tells as many as the pace allows by now.
    pub(super) fn advance_shutdown(&mut self) {
        let Some(mut closing) = self.shutdown.take() else {
            return;
        };
        let ticks = (self.core.now - closing.began) as usize + 1;
        let quota = closing.per_tick.saturating_mul(ticks);
        while closing.told < quota && closing.next_slot < closing.slots {
            let slot = closing.next_slot;
            closing.next_slot += 1;
            if let Some(key) = self.connections.key_at(slot) {
                closing.told += 1;
                self.visit(key, Core::tell);
            }
        }
        self.shutdown = Some(closing);
    }

    /// Whether a shutdown is over: nobody is left, or those who are had their time. A reactor
    /// without connections stays for those of the others: it may be the home of their channels.
    pub(super) fn is_done(&self) -> bool {
        let now = self.core.now;
        let is_empty = self.connections.is_empty() && self.core.gate.connections() == 0;
        let over = |closing: &Closing| is_empty || now >= closing.ends;
        self.shutdown.as_ref().is_some_and(over)
    }

    /// Ends those who did not answer in time.
    pub(super) fn abandon_rest(&mut self) {
        for slot in 0..self.connections.slots_used() {
            if let Some(key) = self.connections.key_at(slot) {
                self.visit(key, Core::bury);
                self.reap();
            }
        }
    }
}

impl<H: Handler> Core<H> {
    /// Tells one connection that the server goes away.
    fn tell(&mut self, key: Key, connection: &mut Connection<H::State>) {
        match connection.link.stage {
            Stage::Open(_) => {
                let link = &mut connection.link;
                link.flags.clear(Flags::SUSPENDED | Flags::RATED);
                let usual = (CloseCode::Away, "server shutting down");
                let (handler, mut peer) = self.introduce(key, link);
                let words = handler.farewell(usize::from(peer.link.dialect), Ending::Shutdown);
                let (code, reason) = words.unwrap_or(usual);
                peer.close(code, reason);
                self.uncork_alone(key, connection);
            }
            Stage::Http(None)
                if connection.link.flags.has(Flags::ANSWERED) && !connection.link.has_backlog() =>
            {
                self.bury(key, connection);
            }
            // A request under way gets its answer, and a Connection: close with it; one that
            // has not begun is not waited for as long as it would be otherwise.
            Stage::Preamble | Stage::Http(_) => {
                connection.link.since = self.now;
                connection.link.shed = Some(Reason::Draining);
                connection.link.flags.set(Flags::REARM);
            }
            _ => {}
        }
    }
}
