//! What a subscriber sees, held against what was ordered: everything once, in order, and nothing
//! left out from where it begins.

use std::collections::BTreeMap;

use super::{
    Id,
    truth::{Entry, Start, Truth},
};
use crate::hub::Position;

/// A subscription as its connection knows it.
#[derive(Debug)]
pub struct Sub {
    /// By which its answers are known.
    pub tag: u32,
    pub mark: u8,
    pub wants_events: bool,
    pub skips_own: bool,
    pub has_member: bool,
    pub is_pattern: bool,
    /// All homes have answered.
    pub is_seated: bool,
    /// Something was dropped for it that it does not know of.
    pub has_missed: bool,
    /// How far it is in the log of each channel.
    pub cursors: BTreeMap<String, Cursor>,
    /// The last place that it has seen.
    pub seen: Option<Position>,
}

#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    next: usize,
    /// It may first see any entry from `next` on, but no later one than the first from here on.
    latest: usize,
}

impl Sub {
    /// A home has answered. With the last one it begins to see things.
    pub fn start(&mut self, start: Start, is_last: bool, logs: &BTreeMap<String, Truth>) {
        for (channel, next) in start.from {
            let latest = next;
            self.cursors.insert(channel, Cursor { next, latest });
        }
        self.is_seated = is_last;
        if is_last && self.is_pattern {
            self.resume(logs);
        }
    }

    /// From now on it must see everything, and may have seen nothing of what came before.
    pub fn resume(&mut self, logs: &BTreeMap<String, Truth>) {
        for (channel, cursor) in &mut self.cursors {
            cursor.latest = logs[channel].log.len();
        }
    }

    /// It sees something in a channel, which `is_it` knows in the log.
    pub fn see(&mut self, id: Id, channel: &str, truth: &Truth, is_it: impl Fn(&Entry) -> bool) {
        assert!(self.is_seated, "seen before the answer");
        let log = &truth.log;
        let Cursor { next, latest } = self.cursors[channel];
        let mut rest = (next..).zip(&log[next..]);
        let found = rest.find(|(index, entry)| {
            let is_found = is_it(entry) && self.is_for(id, entry);
            let must = *index >= latest && self.is_for(id, entry);
            assert!(
                is_found || !must,
                "{id:?} in {channel}: {entry:?} is left out"
            );
            is_found
        });
        let (index, _) = found.expect("nothing like this was published after the last one");
        let next = index + 1;
        let latest = next;
        self.cursors
            .insert(channel.to_owned(), Cursor { next, latest });
    }

    /// Whether it has seen all that it must.
    pub fn check_seen_all(&self, id: Id, logs: &BTreeMap<String, Truth>) {
        for (channel, cursor) in &self.cursors {
            let rest = logs[channel].log.iter().skip(cursor.latest);
            for entry in rest {
                let is_lost = self.is_for(id, entry) && !self.has_missed;
                assert!(!is_lost, "{id:?} in {channel}: {entry:?} is lost");
            }
        }
    }

    fn is_for(&self, id: Id, entry: &Entry) -> bool {
        match entry {
            Entry::Message { publisher, .. } => !(self.skips_own && *publisher == Some(id)),
            Entry::Event { to, .. } => {
                self.wants_events && !self.is_pattern && to.contains(&id.reactor)
            }
            Entry::Command(_) => true,
        }
    }
}
