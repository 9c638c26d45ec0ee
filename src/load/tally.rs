//! What one thread has done so far, for the others to read; and what went wrong, by kind.

use std::collections::BTreeMap;

use super::{
    latency::{Latencies, Latency},
    secure::Handshakes,
};
use crate::metrics::Counter;

/// The counters of one thread. Aligned so that no two threads share a cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Tally {
    /// Handshakes that were completed.
    pub opened: Counter,
    /// Connections that never were.
    pub failed: Counter,
    /// Connections that ended before we ended them.
    pub lost: Counter,
    /// Open now.
    pub open: Counter,
    pub messages_sent: Counter,
    pub messages_received: Counter,
    /// Sent, and not answered in time.
    pub messages_lost: Counter,
    /// Messages that are no answer to ours, such as a server's greeting.
    pub messages_other: Counter,
    pub bytes_sent: Counter,
    pub bytes_received: Counter,
    /// Connections probed by the sweep or the ping round, and those that answered.
    pub probes_sent: Counter,
    pub probes_answered: Counter,
    /// When the last message was answered; nanoseconds since the run began.
    pub answered_last: Counter,
}

/// The sums of all threads at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub opened: u64,
    pub failed: u64,
    pub lost: u64,
    pub open: u64,
    pub messages_sent: u64,
    pub messages_received: u64,
    pub messages_lost: u64,
    pub messages_other: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub probes_sent: u64,
    pub probes_answered: u64,
    /// Nanoseconds since the epoch.
    pub answered_last: u64,
}

impl Totals {
    pub fn of<'t>(tallies: impl Iterator<Item = &'t Tally>) -> Self {
        let mut totals = Self::default();
        for tally in tallies {
            totals.opened += tally.opened.load();
            totals.failed += tally.failed.load();
            totals.lost += tally.lost.load();
            totals.open += tally.open.load();
            // In this order: nothing was received before it was sent.
            totals.messages_received += tally.messages_received.load();
            totals.messages_sent += tally.messages_sent.load();
            totals.messages_lost += tally.messages_lost.load();
            totals.messages_other += tally.messages_other.load();
            totals.bytes_sent += tally.bytes_sent.load();
            totals.bytes_received += tally.bytes_received.load();
            totals.probes_sent += tally.probes_sent.load();
            totals.probes_answered += tally.probes_answered.load();
            totals.answered_last = totals.answered_last.max(tally.answered_last.load());
        }
        totals
    }
}

/// What one thread found out, when its part of the run is over.
#[derive(Debug, Default)]
pub struct Findings {
    pub messages: Latencies,
    pub handshakes: Latencies,
    /// Of the sweep and of the ping round, in this order.
    pub probes: [Latency; 2],
    pub tls: Handshakes,
    pub errors: Errors,
}

impl Findings {
    pub fn merge(&mut self, other: &Self) {
        self.messages.merge(&other.messages);
        self.handshakes.merge(&other.handshakes);
        for (mine, theirs) in self.probes.iter_mut().zip(&other.probes) {
            mine.merge(theirs);
        }
        self.tls.merge(&other.tls);
        for (kind, count) in &other.errors.0 {
            self.errors.add(kind, *count);
        }
    }
}

/// Errors by kind. Servers have a say in what a kind is called, so there are only so many.
#[derive(Debug, Default)]
pub struct Errors(BTreeMap<String, u64>);

const KINDS_MAX: usize = 64;
const KIND_CHARS_MAX: usize = 120;

impl Errors {
    pub fn add(&mut self, kind: &str, count: u64) {
        let printable = |character: char| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        };
        let mut kind: String = kind.chars().take(KIND_CHARS_MAX).map(printable).collect();
        if self.0.len() >= KINDS_MAX && !self.0.contains_key(&kind) {
            "others".clone_into(&mut kind);
        }
        *self.0.entry(kind).or_default() += count;
    }

    /// The kinds, the most frequent first.
    pub fn by_frequency(&self) -> Vec<(&str, u64)> {
        let kinds = self.0.iter().map(|(kind, count)| (kind.as_str(), *count));
        let mut list: Vec<_> = kinds.collect();
        list.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_grouped_and_bounded() {
        let mut errors = Errors::default();
        errors.add("rare", 1);
        errors.add("often", 2);
        errors.add("often", 3);
        assert_eq!(errors.by_frequency(), [("often", 5), ("rare", 1)]);
        errors.add("a\u{1b}[2Jb\n", 9);
        assert_eq!(errors.by_frequency()[0].0, "a [2Jb ");
        for number in 0..1000 {
            errors.add(&format!("kind {number}"), 1);
        }
        let list = errors.by_frequency();
        assert!(list.len() <= KINDS_MAX + 1);
        let total: u64 = list.iter().map(|(_, count)| count).sum();
        assert_eq!(total, 1 + 5 + 9 + 1000);
    }
}
