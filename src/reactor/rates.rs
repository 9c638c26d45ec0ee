//! How much a connection may send: what it used is kept beside its slot, and sinks as time passes.
//! The level holds for the tick in `last_seen`, so the two change together.

use super::Core;
use crate::{
    config::RatePolicy,
    connection::{Connection, Flags, Link},
    gate::rate::{Level, Rates},
    handler::{CloseCode, Handler},
    slots::Key,
};

impl<H: Handler> Core<H> {
    /// Stamps the connection as seen now, and lets the time since then count.
    #[inline]
    pub(super) fn leak(&mut self, key: Key, link: &mut Link) {
        let ticks = self.now - link.last_seen;
        link.last_seen = self.now;
        if let Some(rates) = &self.settings.rates
            && let Some(level) = self.visitors.level(key.slot)
        {
            rates.leak(level, ticks);
        }
    }

    /// How many of the messages and control frames in so many bytes it may send before it is over
    /// its rate.
    #[inline]
    pub(super) fn allowance(&mut self, key: Key, bytes: usize) -> u32 {
        if bytes <= self.settings.unmetered_bytes {
            return u32::MAX;
        }
        let Some(rates) = &self.settings.rates else {
            return u32::MAX;
        };
        let level = self.visitors.level(key.slot);
        level.map_or(u32::MAX, |level| rates.allowance_within(level, bytes))
    }

    /// Charges what it has sent. One that is over its rate then is not read any more, unless it is
    /// to be closed for it: then it is once it goes on.
    #[inline]
    pub(super) fn charge(&mut self, key: Key, messages: u32, bytes: usize, link: &mut Link) {
        if let Some(rates) = &self.settings.rates
            && let Some(level) = self.visitors.level(key.slot)
        {
            let is_over = rates.charge(level, messages, bytes as u32);
            if is_over && self.settings.rate_policy == RatePolicy::Pause {
                self.pause_rate(key, link);
            }
        }
    }

    #[cold]
    fn pause_rate(&mut self, key: Key, link: &mut Link) {
        if link.flags.raise(Flags::RATED) {
            link.flags.set(Flags::REARM);
            self.note_rate(key, link, "paused");
        }
    }

    /// Goes on reading once there is an allowance again.
    pub(super) fn resume_rate(&mut self, key: Key, link: &mut Link) {
        self.leak(key, link);
        let is_over = |(rates, level): (&Rates, &mut Level)| rates.is_over(level);
        let levels = self
            .settings
            .rates
            .as_ref()
            .zip(self.visitors.level(key.slot));
        if !levels.is_some_and(is_over) {
            link.flags.clear(Flags::RATED | Flags::PINGED);
            link.flags.set(Flags::REARM | Flags::OWED);
        }
    }

    /// Closes a connection that has sent more than its rate.
    #[cold]
    pub(super) fn exceeded(&mut self, key: Key, connection: &mut Connection<H::State>) {
        self.note_rate(key, &connection.link, "closed");
        self.expel(key, connection, CloseCode::Policy, "rate limit");
    }

    fn note_rate(&mut self, key: Key, link: &Link, what: &str) {
        self.block.rate_limited.add(1);
        if let Some(untold) = self.throttles.rate.admit(self.now) {
            log::warn!(
                "over its rate, {what} id={} remote={} untold={untold} \
                 remedy=\"raise TIDEMILL_RATE_MESSAGES or TIDEMILL_RATE_BYTES\"",
                self.conn_id(key),
                self.remote_of(key, link)
            );
        }
    }
}
