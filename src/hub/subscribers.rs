//! `Subscribers`: who on this reactor is subscribed to what, and how far a delivery has come.
//!
//! The subscribers of a channel are a dense vector that a delivery walks from the front. It stops
//! when its budget is spent and goes on from its cursor in the next turn; what is published
//! meanwhile waits behind it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use slab::Slab;

use super::{Batch, Channel, Publication, SUBSCRIPTIONS_MAX, SubscribeError, mail::Ticket};

/// Publications are gathered into one batch up to this size; a larger one goes alone.
const BATCH_BYTES_MAX: u64 = 64 * 1024;

const NIL: u32 = u32::MAX;

/// The subscriptions of one reactor. See the module's text.
///
/// Invariants: a channel is here while it has seats, waiting subscriptions, or a place in
/// `active`; it has publications only while it has seats. Seats before the cursor have got the
/// batch under way, those from the cursor on have not. A subscription that waits for its home's
/// answer is freed by nothing but that answer.
#[derive(Debug)]
pub struct Subscribers<A> {
    ids: HashMap<Channel, u32>,
    channels: Slab<Local<A>>,
    subscriptions: Slab<Subscription>,
    /// The first subscription of each slot.
    heads: Vec<u32>,
    /// Channels with something to deliver, in turn.
    active: VecDeque<u32>,
    /// Subscriptions that were not cancelled.
    count: usize,
    /// Cost of publications that were dealt with since it was last asked for.
    released: u64,
}

/// A channel as this reactor sees it.
#[derive(Debug)]
struct Local<A> {
    name: Channel,
    seats: Vec<Seat>,
    /// Subscriptions without a seat yet.
    waiting: u32,
    /// The batch under way, unless somebody delivers from it right now.
    batch: Option<Batch<A>>,
    cursor: usize,
    /// What comes after that batch.
    pending: VecDeque<Arc<Publication<A>>>,
    is_active: bool,
}

/// A place in the vector that deliveries walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The subscriber's slot.
    pub slot: u32,
    subscription: u32,
    /// The last publication that the subscriber does not see.
    pub offset: u64,
}

/// What one connection has to do with one channel.
#[derive(Debug)]
struct Subscription {
    /// [`NIL`] once the connection is gone.
    slot: u32,
    /// The next subscription of the same slot.
    next: u32,
    channel: u32,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The home has not answered.
    Waiting,
    /// The home has not answered, and nobody wants to know any more.
    Cancelled,
    /// Sits at this index.
    Seated(u32),
}

/// A batch on its way to the subscribers of a channel.
#[derive(Debug)]
pub struct Delivery<A> {
    channel: u32,
    pub batch: Batch<A>,
}

/// What leaving a channel asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Left {
    /// There was no subscription.
    Nothing,
    /// The home hears of it when it has answered.
    Later,
    /// The home must hear of it now.
    Now(Channel),
}

/// What an answer of a home led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Answered {
    Seated,
    /// The home must hear that nobody is interested.
    Cancelled,
}

impl<A> Default for Subscribers<A> {
    fn default() -> Self {
        Self {
            ids: HashMap::new(),
            channels: Slab::new(),
            subscriptions: Slab::new(),
            heads: Vec::new(),
            active: VecDeque::new(),
            count: 0,
            released: 0,
        }
    }
}

impl<A> Subscribers<A> {
    /// Subscriptions of all connections.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether something waits to be delivered.
    pub fn is_active(&self) -> bool {
        !self.active.is_empty()
    }

    /// How many channels have something to deliver.
    pub fn active(&self) -> usize {
        self.active.len()
    }

    /// Cost of the publications that were dealt with since the last call.
    pub fn take_released(&mut self) -> u64 {
        std::mem::take(&mut self.released)
    }

    /// Begins a subscription, which has no seat before its home has answered.
    pub fn subscribe(
        &mut self,
        slot: u32,
        name: &str,
    ) -> Result<(Channel, Ticket), SubscribeError> {
        let known = self.ids.get(name).copied();
        if known.is_some_and(|channel| self.find(slot, channel).is_some()) {
            return Err(SubscribeError::Already);
        }
        // Those that were cancelled count until they are answered: so that nobody can ask faster
        // than homes answer.
        if self.of_slot(slot).count() >= SUBSCRIPTIONS_MAX {
            return Err(SubscribeError::TooMany);
        }
        let channel = known.unwrap_or_else(|| self.insert_channel(name));
        if self.heads.len() <= slot as usize {
            self.heads.resize(slot as usize + 1, NIL);
        }
        let head = &mut self.heads[slot as usize];
        let subscription = self.subscriptions.insert(Subscription {
            slot,
            next: *head,
            channel,
            stage: Stage::Waiting,
        }) as u32;
        *head = subscription;
        self.count += 1;
        let local = &mut self.channels[channel as usize];
        local.waiting += 1;
        Ok((Channel::clone(&local.name), Ticket(subscription)))
    }

    /// Ends a subscription.
    pub fn unsubscribe(&mut self, slot: u32, name: &str) -> Left {
        let channel = self.ids.get(name).copied();
        let found = channel.and_then(|channel| Some((channel, self.find(slot, channel)?)));
        let Some((channel, subscription)) = found else {
            return Left::Nothing;
        };
        self.count -= 1;
        let entry = &mut self.subscriptions[subscription as usize];
        match entry.stage {
            Stage::Seated(index) => {
                self.unlink(subscription);
                self.subscriptions.remove(subscription as usize);
                Left::Now(self.vacate(channel, index))
            }
            Stage::Waiting | Stage::Cancelled => {
                entry.stage = Stage::Cancelled;
                Left::Later
            }
        }
    }

    /// Ends all subscriptions of a slot; `gone` gets the channels whose homes must hear of it now.
    pub fn leave(&mut self, slot: u32, mut gone: impl FnMut(Channel)) {
        let Some(head) = self.heads.get_mut(slot as usize) else {
            return;
        };
        let mut next = std::mem::replace(head, NIL);
        while next != NIL {
            let subscription = next;
            let entry = &mut self.subscriptions[subscription as usize];
            next = entry.next;
            self.count -= usize::from(entry.stage != Stage::Cancelled);
            match entry.stage {
                Stage::Seated(index) => {
                    let Subscription { channel, .. } =
                        self.subscriptions.remove(subscription as usize);
                    gone(self.vacate(channel, index));
                }
                Stage::Waiting | Stage::Cancelled => {
                    entry.stage = Stage::Cancelled;
                    (entry.slot, entry.next) = (NIL, NIL);
                }
            }
        }
    }

    /// A home has answered: the subscriber sees what comes after `offset`.
    pub fn answered(&mut self, ticket: Ticket, offset: u64) -> Answered {
        let Ticket(subscription) = ticket;
        let entry = &mut self.subscriptions[subscription as usize];
        let Subscription { slot, channel, .. } = *entry;
        let local = &mut self.channels[channel as usize];
        local.waiting -= 1;
        if entry.stage == Stage::Waiting {
            entry.stage = Stage::Seated(local.seats.len() as u32);
            local.seats.push(Seat {
                slot,
                subscription,
                offset,
            });
            return Answered::Seated;
        }
        if slot != NIL {
            self.unlink(subscription);
        }
        self.subscriptions.remove(subscription as usize);
        self.free_if_idle(channel);
        Answered::Cancelled
    }

    /// A publication came from its home.
    pub fn publish(&mut self, publication: Arc<Publication<A>>) {
        let id = self.ids.get(&publication.channel).copied();
        let local = id.and_then(|id| self.channels.get_mut(id as usize));
        match (local, id) {
            (Some(local), Some(id)) if !local.seats.is_empty() => {
                local.pending.push_back(publication);
                if !std::mem::replace(&mut local.is_active, true) {
                    self.active.push_back(id);
                }
            }
            _ => self.released += publication.cost(),
        }
    }

    /// What is to be delivered next. It must come back by [`Subscribers::end`].
    pub fn begin(&mut self) -> Option<Delivery<A>> {
        while let Some(channel) = self.active.pop_front() {
            let local = &mut self.channels[channel as usize];
            if let Some(batch) = local.batch.take().or_else(|| local.gather()) {
                return Some(Delivery { channel, batch });
            }
            local.is_active = false;
            self.free_if_idle(channel);
        }
        None
    }

    /// The next one to deliver to. Steps on before it is delivered to, so that it may leave.
    pub fn next(&mut self, delivery: &Delivery<A>) -> Option<Seat> {
        let local = &mut self.channels[delivery.channel as usize];
        let seat = *local.seats.get(local.cursor)?;
        local.cursor += 1;
        Some(seat)
    }

    /// Puts a delivery back: to go on with it later, unless everybody has got it.
    pub fn end(&mut self, delivery: Delivery<A>) {
        let Delivery { channel, batch } = delivery;
        let local = &mut self.channels[channel as usize];
        if local.cursor < local.seats.len() {
            local.batch = Some(batch);
        } else {
            local.cursor = 0;
            self.released += batch.cost();
        }
        if local.batch.is_some() || !local.pending.is_empty() {
            self.active.push_back(channel);
        } else {
            local.is_active = false;
            self.free_if_idle(channel);
        }
    }

    /// Checks the invariants of the type, for a reactor between two deliveries.
    #[cfg(test)]
    pub fn check_invariants(&self) {
        let mut seated = 0;
        for (id, local) in &self.channels {
            assert_eq!(self.ids.get(&local.name), Some(&(id as u32)));
            assert!(!local.seats.is_empty() || local.waiting > 0 || local.is_active);
            assert!(!local.seats.is_empty() || (local.pending.is_empty() && local.cursor == 0));
            assert!(local.cursor == 0 || local.batch.is_some());
            assert_eq!(local.is_active, self.active.contains(&(id as u32)));
            for (index, seat) in local.seats.iter().enumerate() {
                let entry = &self.subscriptions[seat.subscription as usize];
                assert_eq!(entry.stage, Stage::Seated(index as u32));
                assert_eq!((entry.slot, entry.channel), (seat.slot, id as u32));
            }
            seated += local.seats.len();
        }
        let all = self.subscriptions.iter();
        let waiting = all.filter(|(_, entry)| !matches!(entry.stage, Stage::Seated(_)));
        let locals = self.channels.iter();
        let expected: u32 = locals.map(|(_, local)| local.waiting).sum();
        assert_eq!(waiting.count(), expected as usize);
        assert_eq!(self.subscriptions.len(), seated + expected as usize);
        assert_eq!(self.ids.len(), self.channels.len());
    }

    /// Takes a seat away without a gap; the channel's name.
    fn vacate(&mut self, channel: u32, index: u32) -> Channel {
        let local = &mut self.channels[channel as usize];
        let index = index as usize;
        let mut hole = index;
        if index < local.cursor {
            // The last one that has the batch takes this seat, so that nobody gets it twice, and
            // the one that comes from the end still gets it.
            local.cursor -= 1;
            hole = local.cursor;
            local.seats.swap(index, hole);
        }
        local.seats.swap_remove(hole);
        for index in [index, hole] {
            if let Some(moved) = local.seats.get(index) {
                self.subscriptions[moved.subscription as usize].stage = Stage::Seated(index as u32);
            }
        }
        if local.seats.is_empty() {
            let batch = local.batch.take();
            self.released += batch.map_or(0, |batch| batch.cost());
            let pending = local.pending.drain(..);
            self.released += pending.map(|publication| publication.cost()).sum::<u64>();
        }
        let name = Channel::clone(&local.name);
        self.free_if_idle(channel);
        name
    }

    fn insert_channel(&mut self, name: &str) -> u32 {
        let name = Channel::from(name);
        let channel = self.channels.insert(Local {
            name: Channel::clone(&name),
            seats: Vec::new(),
            waiting: 0,
            batch: None,
            cursor: 0,
            pending: VecDeque::new(),
            is_active: false,
        }) as u32;
        self.ids.insert(name, channel);
        channel
    }

    fn free_if_idle(&mut self, channel: u32) {
        let local = &self.channels[channel as usize];
        if local.seats.is_empty() && local.waiting == 0 && !local.is_active {
            let local = self.channels.remove(channel as usize);
            self.ids.remove(&local.name);
        }
    }

    /// The subscription of a slot to a channel, if it was not cancelled.
    fn find(&self, slot: u32, channel: u32) -> Option<u32> {
        self.of_slot(slot).find(|subscription| {
            let entry = &self.subscriptions[*subscription as usize];
            entry.channel == channel && entry.stage != Stage::Cancelled
        })
    }

    /// The subscriptions of a slot, cancelled ones included.
    fn of_slot(&self, slot: u32) -> impl Iterator<Item = u32> {
        let some = |subscription: u32| (subscription != NIL).then_some(subscription);
        let head = self.heads.get(slot as usize).copied().and_then(some);
        std::iter::successors(head, move |subscription| {
            some(self.subscriptions[*subscription as usize].next)
        })
    }

    /// Takes a subscription off the list of its slot.
    fn unlink(&mut self, subscription: u32) {
        let Subscription { slot, next, .. } = self.subscriptions[subscription as usize];
        let before = self
            .of_slot(slot)
            .find(|before| self.subscriptions[*before as usize].next == subscription);
        match before {
            Some(before) => self.subscriptions[before as usize].next = next,
            None => self.heads[slot as usize] = next,
        }
    }
}

impl<A> Local<A> {
    /// The next batch: what waits, as far as it fits into one.
    fn gather(&mut self) -> Option<Batch<A>> {
        let mut bytes = self.pending.front()?.cost();
        let mut count = 1;
        for publication in self.pending.iter().skip(1) {
            bytes += publication.cost();
            if bytes > BATCH_BYTES_MAX {
                break;
            }
            count += 1;
        }
        Some(Batch::new(self.pending.drain(..count).collect()))
    }
}
