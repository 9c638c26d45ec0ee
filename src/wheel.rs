//! The timer wheel: one lazy timer a connection, eight bytes each.
//!
//! A timer is a promise to look at a connection no later than some tick. Messages never touch it:
//! they stamp the connection, and the look computes the real deadline and sets the timer anew.
//! The wheel is one ring of buckets, each a doubly linked list through the slots; what lies
//! beyond the horizon is looked at once a revolution.

/// A point in time: ticks of [`TICK_MS`] since the reactor started, beginning at 1.
pub type Tick = u32;

/// Length of a tick in milliseconds.
pub const TICK_MS: u64 = 100;

/// Buckets in the ring: a horizon of about 102 s.
const BUCKETS: u32 = 1024;

const NIL: u32 = u32::MAX;

/// Marks a `before` link that names a bucket instead of a slot, and an unset timer.
const HEAD: u32 = 1 << 31;

/// Invariant: every set timer is on exactly one list: that of its bucket, or the due list, which
/// is bucket number [`BUCKETS`].
#[derive(Debug)]
pub struct Wheel {
    /// First slot of each bucket; one more for what is due.
    heads: Vec<u32>,
    links: Vec<Links>,
    /// All buckets up to this tick have been moved to the due list.
    now: Tick,
    /// No bucket before this tick has a timer in it. A hint: it may name an empty bucket.
    next: Tick,
}

#[derive(Clone, Copy, Debug)]
struct Links {
    before: u32,
    after: u32,
}

const UNSET: Links = Links {
    before: NIL,
    after: NIL,
};

impl Wheel {
    /// A wheel for slots below `capacity`; what is not used costs nothing.
    pub fn new(now: Tick, capacity: usize) -> Self {
        let heads = vec![NIL; BUCKETS as usize + 1];
        Self {
            heads,
            links: Vec::with_capacity(capacity),
            now,
            next: Tick::MAX,
        }
    }

    /// Asks for a look at `slot` at `deadline`, or once the horizon is reached, whichever is
    /// earlier. Replaces the timer that the slot had.
    pub fn set(&mut self, slot: u32, deadline: Tick) {
        self.cancel(slot);
        let ahead = deadline.saturating_sub(self.now).clamp(1, BUCKETS - 1);
        self.next = self.next.min(self.now + ahead);
        self.link(slot, (self.now + ahead) % BUCKETS);
    }

    /// Forgets the timer of `slot`, if it has one.
    pub fn cancel(&mut self, slot: u32) {
        let Some(links) = self.links.get_mut(slot as usize) else {
            return;
        };
        let Links { before, after } = std::mem::replace(links, UNSET);
        if before == NIL {
            return;
        }
        if before & HEAD != 0 {
            self.heads[(before & !HEAD) as usize] = after;
        } else {
            self.links[before as usize].after = after;
        }
        if after != NIL {
            self.links[after as usize].before = before;
        }
    }

    /// Moves everything that is due by `now` to the due list. Costs nothing before the next
    /// timer, then one step a passed tick and one a due timer.
    pub fn advance(&mut self, now: Tick) {
        if now < self.next {
            self.now = self.now.max(now);
            return;
        }
        // After a long sleep one revolution reaches every bucket.
        let first = self.now.max(now.saturating_sub(BUCKETS)) + 1;
        for tick in first..=now {
            while self.heads[(tick % BUCKETS) as usize] != NIL {
                let slot = self.heads[(tick % BUCKETS) as usize];
                self.cancel(slot);
                self.link(slot, BUCKETS);
            }
        }
        self.now = self.now.max(now);
        let mut ahead = self.now + 1..self.now + BUCKETS;
        let next = ahead.find(|tick| self.heads[(tick % BUCKETS) as usize] != NIL);
        self.next = next.unwrap_or(Tick::MAX);
    }

    /// Takes one due slot; its timer is unset then.
    pub fn pop_due(&mut self) -> Option<u32> {
        let slot = self.heads[BUCKETS as usize];
        if slot == NIL {
            return None;
        }
        self.cancel(slot);
        Some(slot)
    }

    pub fn has_due(&self) -> bool {
        self.heads[BUCKETS as usize] != NIL
    }

    /// The tick at which [`Wheel::advance`] wants to be called next, at the latest.
    pub fn next_tick(&self) -> Option<Tick> {
        (self.next != Tick::MAX).then_some(self.next)
    }

    fn link(&mut self, slot: u32, bucket: u32) {
        if self.links.len() <= slot as usize {
            self.links.resize(slot as usize + 1, UNSET);
        }
        let after = std::mem::replace(&mut self.heads[bucket as usize], slot);
        if after != NIL {
            self.links[after as usize].before = slot;
        }
        self.links[slot as usize] = Links {
            before: HEAD | bucket,
            after,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_wheel_is_never_early_and_never_forgets(
            operations in prop::collection::vec((0u8..4, 0u32..40, 0u32..3000), 1..300)
        ) {
            let mut now = 1;
            let mut wheel = Wheel::new(now, 0);
            let mut model: BTreeMap<u32, Tick> = BTreeMap::new();
            for (operation, slot, amount) in operations {
                match operation {
                    0 | 1 => {
                        wheel.set(slot, now + amount);
                        model.insert(slot, now + amount);
                    }
                    2 => {
                        wheel.cancel(slot);
                        model.remove(&slot);
                    }
                    _ => {
                        if let Some(real) = model.values().min() {
                            let next = wheel.next_tick();
                            prop_assert!(next.is_some_and(|next| next <= (*real).max(now + 1)));
                        }
                        now += amount % 700;
                        wheel.advance(now);
                        let mut looked = Vec::new();
                        while let Some(slot) = wheel.pop_due() {
                            looked.push(slot);
                        }
                        for slot in looked {
                            let deadline = model.remove(&slot);
                            prop_assert!(deadline.is_some(), "a cancelled timer fired");
                            // The lazy rule: what is not due yet is set again.
                            if let Some(deadline) = deadline.filter(|deadline| *deadline > now) {
                                wheel.set(slot, deadline);
                                model.insert(slot, deadline);
                            }
                        }
                        prop_assert!(model.values().all(|deadline| *deadline + 1 > now));
                    }
                }
            }
        }
    }

    #[test]
    fn a_timer_costs_eight_bytes() {
        assert_eq!(size_of::<Links>(), 8);
    }
}
