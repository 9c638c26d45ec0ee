//! One shard's addresses: what is known of each, and the list of those that are only remembered.

use core::net::IpAddr;
use std::collections::HashMap;

use slab::Slab;

use super::{Caps, Crowd};

/// What counts as one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    V4(u32),
    /// The upper half: whoever has one address of a /64 has them all.
    V6(u64),
}

impl Key {
    pub(super) fn new(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

/// The addresses of one shard.
///
/// Invariant: `places` has exactly the keys of `known`; and an address is on the list of the
/// remembered, which begins with the one that was left longest ago, exactly when it is unused.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) known: Slab<Known>,
    places: HashMap<Key, u32>,
    oldest: u32,
    newest: u32,
    pub(super) remembered: usize,
    /// With fewer addresses than this, memory is given back.
    shrink_below: usize,
}

/// What is known of one address.
#[derive(Debug)]
pub(super) struct Known {
    key: Key,
    /// Admitted ones, half open or open.
    pub(super) connections: u32,
    pub(super) half_open: u32,
    pub(super) refused: u32,
    /// Of the connect rate, as it was at `at`: rises by the ticks of a second with each connect,
    /// sinks by the rate with each tick.
    level: u32,
    at: u32,
    before: u32,
    after: u32,
}

impl Known {
    pub(super) fn is_unused(&self) -> bool {
        self.connections == 0 && self.refused == 0
    }

    /// What keeps a newcomer out.
    pub(super) fn crowd(&self, now: u32, caps: &Caps) -> Option<Crowd> {
        let is_full = |count: u32, max: u32| max > 0 && count >= max;
        if is_full(self.connections, caps.connections_max) {
            return Some(Crowd::Connections);
        }
        if is_full(self.half_open, caps.half_open_max) {
            return Some(Crowd::HalfOpen);
        }
        let capacity = caps.connects_per_second * caps.ticks_per_second;
        let spare = capacity.saturating_sub(self.level_at(now, caps));
        // The rate is one a second at least, so room for one is never further away.
        let retry_after_seconds = 1;
        (spare < caps.ticks_per_second && capacity > 0).then_some(Crowd::Rate {
            retry_after_seconds,
        })
    }

    pub(super) fn charge(&mut self, now: u32, caps: &Caps) {
        if caps.connects_per_second > 0 {
            self.level = self.level_at(now, caps) + caps.ticks_per_second;
            self.at = self.at.max(now);
        }
    }

    fn level_at(&self, now: u32, caps: &Caps) -> u32 {
        let passed = now.saturating_sub(self.at);
        let leaked = caps.connects_per_second.saturating_mul(passed);
        self.level.saturating_sub(leaked)
    }
}

impl Default for Table {
    fn default() -> Self {
        Self {
            known: Slab::new(),
            places: HashMap::new(),
            oldest: NIL,
            newest: NIL,
            remembered: 0,
            shrink_below: 0,
        }
    }
}

impl Table {
    /// The place of an address that is about to be used.
    pub(super) fn find_or_add(&mut self, key: Key, now: u32) -> usize {
        if let Some(place) = self.places.get(&key) {
            let index = *place as usize;
            if self.known[index].is_unused() {
                self.unlink(index);
            }
            return index;
        }
        let capacity = self.known.capacity();
        let index = self.known.insert(Known {
            key,
            connections: 0,
            half_open: 0,
            refused: 0,
            level: 0,
            at: now,
            before: NIL,
            after: NIL,
        });
        self.places.insert(key, index as u32);
        if self.known.capacity() > capacity.max(CAPACITY_KEPT) {
            self.shrink_below = self.known.len() / 4;
        }
        index
    }

    /// Puts an address without connections behind all others of that kind.
    pub(super) fn remember(&mut self, index: usize) {
        let newest = core::mem::replace(&mut self.newest, index as u32);
        match self.known.get_mut(newest as usize) {
            Some(before) => before.after = index as u32,
            None => self.oldest = index as u32,
        }
        self.known[index].before = newest;
        self.known[index].after = NIL;
        self.remembered += 1;
    }

    fn unlink(&mut self, index: usize) {
        let (before, after) = (self.known[index].before, self.known[index].after);
        match self.known.get_mut(before as usize) {
            Some(known) => known.after = after,
            None => self.oldest = after,
        }
        match self.known.get_mut(after as usize) {
            Some(known) => known.before = before,
            None => self.newest = before,
        }
        self.remembered -= 1;
    }

    /// Forgets, from the oldest on, who might come again as if for the first time. Each address is
    /// forgotten once, so this is paid for by those who came. It stops at one that has not
    /// recovered, for a second at most: who comes back leaves the list.
    pub(super) fn forget_recovered(&mut self, now: u32, caps: &Caps) {
        while let Some(known) = self.known.get(self.oldest as usize) {
            if known.level_at(now, caps) > 0 {
                return;
            }
            self.forget_oldest();
        }
    }

    pub(super) fn forget_oldest(&mut self) {
        let index = self.oldest as usize;
        self.unlink(index);
        let known = self.known.remove(index);
        self.places.remove(&known.key);
        if self.known.len() < self.shrink_below {
            // Half of that before the next time: an address at the very end keeps all before it.
            self.shrink_below = self.known.len().div_ceil(2);
            self.known.shrink_to_fit();
            self.places.shrink_to_fit();
        }
    }
}

/// Addresses of a shard for which memory, once taken, is kept.
pub(super) const CAPACITY_KEPT: usize = 16;

const NIL: u32 = u32::MAX;

#[cfg(test)]
impl Table {
    pub(super) fn check_invariants(&self) {
        assert_eq!(self.places.len(), self.known.len());
        for (key, place) in &self.places {
            let known = &self.known[*place as usize];
            assert_eq!(known.key, *key);
            assert!(known.half_open <= known.connections && known.refused <= super::REFUSED_MAX);
        }
        let (mut at, mut before, mut count) = (self.oldest, NIL, 0);
        while at != NIL {
            let known = &self.known[at as usize];
            assert!(known.is_unused() && known.before == before);
            (before, at, count) = (at, known.after, count + 1);
        }
        assert_eq!((self.newest, self.remembered), (before, count));
        let unused = self.known.iter().filter(|(_, known)| known.is_unused());
        assert_eq!(unused.count(), count);
    }
}
