//! `Local`: a channel as one reactor sees it, and how far its delivery has come.
//!
//! The subscribers of a channel are a dense vector that a delivery walks from the front. It stops
//! when its budget is spent and goes on from its cursor in the next turn; what is published
//! meanwhile waits behind it.

use std::{collections::VecDeque, sync::Arc};

use super::{Address, Batch, Channel, Kind, Publication};

/// Publications are gathered into one batch up to this size; a larger one goes alone.
const BATCH_BYTES_MAX: u64 = 64 * 1024;

/// A channel, or a pattern, that this reactor has subscribers to.
#[derive(Debug)]
pub struct Local<A> {
    pub name: Channel,
    pub seats: Vec<Seat>,
    /// What has come from the home, counted while there are seats.
    received: u64,
    /// What is to be delivered; there exactly while the channel is active.
    pub queue: Option<Box<Queue<A>>>,
    /// Subscriptions without a seat yet.
    pub waiting: u32,
    pub is_pattern: bool,
    pub drops_slow: bool,
}

/// What is on its way to the seats of a channel.
#[derive(Debug)]
pub struct Queue<A> {
    /// The batch under way, unless somebody delivers from it right now.
    pub batch: Option<Batch<A>>,
    /// The first seat that has not got it.
    pub cursor: usize,
    /// What comes after that batch.
    pub pending: VecDeque<Arc<Publication<A>>>,
}

/// A place in the vector that deliveries walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The subscriber's slot.
    pub slot: u32,
    pub(super) subscription: u32,
    /// Above the flags: how many publications the reactor had received when the seat was taken.
    /// The subscriber sees those after them.
    bits: u64,
}

/// What a subscriber wants, beside the messages of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// To be told who comes and goes.
    pub events: bool,
    /// Not to get what it published itself.
    pub skips_own: bool,
}

const EVENTS: u64 = 1;
const SKIPS_OWN: u64 = 2;
const MISSED: u64 = 4;
const FLAGS: u32 = 3;

impl Seat {
    pub(super) fn new(slot: u32, subscription: u32, after: u64, wants: Wants) -> Self {
        let events = if wants.events { EVENTS } else { 0 };
        let skips_own = if wants.skips_own { SKIPS_OWN } else { 0 };
        Self {
            slot,
            subscription,
            bits: after << FLAGS | events | skips_own,
        }
    }

    #[inline]
    pub(super) fn after(&self) -> u64 {
        self.bits >> FLAGS
    }

    #[inline]
    pub(super) fn wants_events(&self) -> bool {
        self.bits & EVENTS != 0
    }

    #[inline]
    pub(super) fn skips_own(&self) -> bool {
        self.bits & SKIPS_OWN != 0
    }

    /// Whether something was dropped for it that it has not been told of.
    #[inline]
    pub(super) fn has_missed(&self) -> bool {
        self.bits & MISSED != 0
    }

    pub(super) fn set_missed(&mut self, has_missed: bool) {
        self.bits = if has_missed {
            self.bits | MISSED
        } else {
            self.bits & !MISSED
        };
    }
}

impl<A> Local<A> {
    pub fn new(name: Channel, is_pattern: bool) -> Self {
        Self {
            name,
            seats: Vec::new(),
            received: 0,
            queue: None,
            waiting: 0,
            is_pattern,
            drops_slow: false,
        }
    }

    /// Whether nobody would miss this channel.
    pub fn is_idle(&self) -> bool {
        self.seats.is_empty() && self.waiting == 0 && self.queue.is_none()
    }

    /// Seats a subscriber, who sees what is received from now on; the index of its seat.
    pub fn seat(&mut self, slot: u32, subscription: u32, wants: Wants) -> u32 {
        if self.seats.len() == self.seats.capacity() {
            // By half, since small channels are many and doubling wastes most on them.
            self.seats.reserve_exact((self.seats.len() / 2).max(2));
        }
        let seat = Seat::new(slot, subscription, self.received, wants);
        self.seats.push(seat);
        self.seats.len() as u32 - 1
    }

    /// Takes a seat away without a gap; the indices whose seats may have changed.
    pub fn vacate(&mut self, index: usize) -> [usize; 2] {
        let mut hole = index;
        if let Some(queue) = &mut self.queue
            && index < queue.cursor
        {
            // The last one that has the batch takes this seat, so that nobody gets it twice, and
            // the one that comes from the end still gets it.
            queue.cursor -= 1;
            hole = queue.cursor;
            self.seats.swap(index, hole);
        }
        self.seats.swap_remove(hole);
        if self.seats.is_empty() {
            self.seats = Vec::new();
        }
        [index, hole]
    }

    /// A publication came; whether the channel is active only since now.
    pub fn receive(&mut self, publication: Arc<Publication<A>>) -> bool {
        self.received += 1;
        let was_idle = self.queue.is_none();
        let queue = self.queue.get_or_insert_with(|| {
            Box::new(Queue {
                batch: None,
                cursor: 0,
                pending: VecDeque::new(),
            })
        });
        queue.pending.push_back(publication);
        was_idle
    }
}

impl<A: Address> Local<A> {
    /// The batch under way, or the next one.
    pub fn begin(&mut self, reactor: u16) -> Option<Batch<A>> {
        let queue = self.queue.as_mut()?;
        if let Some(batch) = queue.batch.take() {
            return Some(batch);
        }
        let before = self.received - queue.pending.len() as u64;
        let count = queue.gather()?;
        let publications = queue.pending.drain(..count).collect();
        Some(Batch::new(reactor, before, publications))
    }

    /// Gives up what was to be delivered; its cost.
    pub fn clear(&mut self) -> u64 {
        let Some(queue) = &mut self.queue else {
            return 0;
        };
        let batch = queue.batch.take().map_or(0, |batch| batch.cost());
        let pending = queue.pending.drain(..);
        batch + pending.map(|publication| publication.cost()).sum::<u64>()
    }
}

impl<A> Queue<A> {
    /// How many of those that wait make the next batch.
    fn gather(&self) -> Option<usize> {
        let is_command = |publication: &Publication<A>| {
            // A command goes alone.
            matches!(publication.kind, Kind::Command(_))
        };
        let first = self.pending.front()?;
        let mut bytes = first.cost();
        if is_command(first) {
            return Some(1);
        }
        let more = self.pending.iter().skip(1).take_while(|publication| {
            bytes += publication.cost();
            bytes <= BATCH_BYTES_MAX && !is_command(publication)
        });
        Some(1 + more.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_channels_have_small_vectors() {
        let mut local = Local::<()>::new("news".into(), false);
        for number in 0..10 {
            local.seat(number, number, Wants::default());
        }
        assert!(local.seats.capacity() <= 13, "{}", local.seats.capacity());
        while !local.seats.is_empty() {
            local.vacate(0);
        }
        assert_eq!(local.seats.capacity(), 0);
    }

    #[test]
    fn what_a_seat_knows_does_not_mix() {
        let wants = Wants {
            events: true,
            skips_own: false,
        };
        let mut seat = Seat::new(7, 8, 123, wants);
        seat.set_missed(true);
        assert!(seat.wants_events() && !seat.skips_own() && seat.has_missed());
        assert_eq!(seat.after(), 123);
        seat.set_missed(false);
        assert_eq!(seat, Seat::new(7, 8, 123, wants));
    }
}
