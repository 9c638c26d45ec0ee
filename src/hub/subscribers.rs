//! `Subscribers`: who on this reactor is subscribed to what.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use slab::Slab;

use super::{
    Address, Batch, Channel, Publication, Seat, SubscribeError, is_reserved,
    local::{Local, Wants},
    mail::Ticket,
};

const NIL: u32 = u32::MAX;

/// The subscriptions of one reactor. See the module's text.
///
/// Invariants: a channel is here while it has seats, waiting subscriptions, or a place in
/// `active`; it has publications only while it has seats. Seats before the cursor have got the
/// batch under way, those from the cursor on have not. A subscription that waits for its home's
/// answer is freed by nothing but that answer.
#[derive(Debug)]
pub struct Subscribers<A> {
    reactor: u16,
    /// Subscriptions of one slot at most.
    subscriptions_max: usize,
    ids: HashMap<Channel, u32>,
    channels: Slab<Local<A>>,
    subscriptions: Slab<Subscription>,
    /// The first subscription of each slot.
    heads: Vec<u32>,
    /// Channels with something to deliver, in turn.
    active: VecDeque<u32>,
    /// Subscriptions that were not cancelled, those to reserved channels apart.
    count: usize,
    /// Cost of publications that were dealt with since it was last asked for.
    released: u64,
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
    /// The dialect's mark in the low four bits, ours above.
    bits: u8,
}

const MARK: u8 = 0x0f;
const EVENTS: u8 = 0x10;
const SKIPS_OWN: u8 = 0x20;
const RESERVED: u8 = 0x40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// So many homes have not answered.
    Waiting(u16),
    /// So many homes have not answered, and nobody wants to know any more.
    Cancelled(u16),
    /// Sits at this index.
    Seated(u32),
}

/// A batch on its way to the subscribers of a channel.
#[derive(Debug)]
pub struct Delivery<A> {
    id: u32,
    /// What its receivers are subscribed to: a pattern, for a pattern.
    pub channel: Channel,
    /// A subscriber that is too slow is to miss something, not to be closed.
    pub drops_slow: bool,
    pub batch: Batch<A>,
}

/// How somebody wants to be subscribed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms {
    pub wants: Wants,
    pub mark: u8,
    pub is_pattern: bool,
    pub drops_slow: bool,
    /// How many homes will answer if it is a pattern.
    pub homes: u16,
}

/// A subscription that has begun.
#[derive(Debug)]
pub struct Begun {
    pub channel: Channel,
    pub ticket: Ticket,
    /// As the channel is known, whatever the terms said.
    pub is_pattern: bool,
}

/// A subscription that has ended, as its homes must hear.
#[derive(Debug)]
pub struct Ended {
    pub channel: Channel,
    pub ticket: Ticket,
    pub watches: bool,
    pub is_pattern: bool,
}

/// What leaving a channel asks for.
#[derive(Debug)]
pub enum Left {
    /// There was no subscription.
    Nothing,
    /// The homes hear of it when they have answered.
    Later,
    /// The homes must hear of it now.
    Now(Ended),
}

/// What an answer of a home led to.
#[derive(Debug)]
pub enum Answered {
    Seated,
    /// There are more to come.
    Waiting,
    /// The homes must hear that nobody is interested.
    Cancelled(Ended),
}

impl<A: Address> Subscribers<A> {
    pub fn new(reactor: u16, subscriptions_max: usize) -> Self {
        Self {
            reactor,
            subscriptions_max,
            ids: HashMap::new(),
            channels: Slab::new(),
            subscriptions: Slab::new(),
            heads: Vec::new(),
            active: VecDeque::new(),
            count: 0,
            released: 0,
        }
    }

    /// Subscriptions of all connections, those to reserved channels apart.
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

    /// Begins a subscription, which has no seat before its homes have answered.
    pub fn subscribe(
        &mut self,
        slot: u32,
        name: &str,
        terms: Terms,
    ) -> Result<Begun, SubscribeError> {
        let known = self.ids.get(name).copied();
        if known.is_some_and(|channel| self.find(slot, channel).is_some()) {
            return Err(SubscribeError::Already);
        }
        let is_reserved = is_reserved(name);
        if !is_reserved && self.is_at_limit(slot) {
            return Err(SubscribeError::TooMany);
        }
        let channel = known.unwrap_or_else(|| self.insert_channel(name, terms.is_pattern));
        if self.heads.len() <= slot as usize {
            self.heads.resize(slot as usize + 1, NIL);
        }
        let local = &mut self.channels[channel as usize];
        local.waiting += 1;
        local.drops_slow = terms.drops_slow;
        let head = &mut self.heads[slot as usize];
        let subscription = self.subscriptions.insert(Subscription {
            slot,
            next: *head,
            channel,
            stage: Stage::Waiting(if local.is_pattern { terms.homes } else { 1 }),
            bits: terms.bits() | if is_reserved { RESERVED } else { 0 },
        }) as u32;
        *head = subscription;
        self.count += usize::from(!is_reserved);
        Ok(Begun {
            channel: Channel::clone(&local.name),
            ticket: Ticket(subscription),
            is_pattern: local.is_pattern,
        })
    }

    /// Ends a subscription.
    pub fn unsubscribe(&mut self, slot: u32, name: &str) -> Left {
        let Some(subscription) = self.find_by_name(slot, name) else {
            return Left::Nothing;
        };
        let entry = &mut self.subscriptions[subscription as usize];
        self.count -= usize::from(!entry.is_reserved());
        match entry.stage {
            Stage::Seated(_) => {
                self.unlink(subscription);
                Left::Now(self.end_seated(subscription))
            }
            Stage::Waiting(homes) | Stage::Cancelled(homes) => {
                entry.stage = Stage::Cancelled(homes);
                Left::Later
            }
        }
    }

    /// Ends all subscriptions of a slot; `gone` gets those whose homes must hear of it now.
    pub fn leave(&mut self, slot: u32, mut gone: impl FnMut(Ended)) {
        let Some(head) = self.heads.get_mut(slot as usize) else {
            return;
        };
        let mut next = std::mem::replace(head, NIL);
        while next != NIL {
            let subscription = next;
            let entry = &mut self.subscriptions[subscription as usize];
            next = entry.next;
            let is_counted = !entry.is_cancelled() && !entry.is_reserved();
            self.count -= usize::from(is_counted);
            match entry.stage {
                Stage::Seated(_) => gone(self.end_seated(subscription)),
                Stage::Waiting(homes) | Stage::Cancelled(homes) => {
                    entry.stage = Stage::Cancelled(homes);
                    (entry.slot, entry.next) = (NIL, NIL);
                }
            }
        }
    }

    /// A home has answered. With the last one the subscriber sees what comes from now on.
    pub fn answered(&mut self, ticket: Ticket) -> Answered {
        let Ticket(subscription) = ticket;
        let Some(entry) = self.subscriptions.get_mut(subscription as usize) else {
            debug_assert!(false, "an answer to nobody");
            return Answered::Waiting;
        };
        if let Stage::Waiting(homes) | Stage::Cancelled(homes) = &mut entry.stage
            && *homes > 1
        {
            *homes -= 1;
            return Answered::Waiting;
        }
        let local = &mut self.channels[entry.channel as usize];
        local.waiting -= 1;
        if !entry.is_cancelled() {
            let index = local.seat(entry.slot, subscription, entry.wants());
            entry.stage = Stage::Seated(index);
            return Answered::Seated;
        }
        if entry.slot != NIL {
            self.unlink(subscription);
        }
        Answered::Cancelled(self.end(subscription))
    }

    /// A publication came for those who are subscribed to `name`.
    pub fn publish(&mut self, name: &str, publication: Arc<Publication<A>>) {
        let id = self.ids.get(name).copied();
        let local = id.and_then(|id| self.channels.get_mut(id as usize));
        match (local, id) {
            (Some(local), Some(id)) if !local.seats.is_empty() => {
                if local.receive(publication) {
                    self.active.push_back(id);
                }
            }
            _ => self.released += publication.cost(),
        }
    }

    /// What is to be delivered next. It must come back by [`Subscribers::end_delivery`].
    pub fn begin_delivery(&mut self) -> Option<Delivery<A>> {
        while let Some(id) = self.active.pop_front() {
            let local = &mut self.channels[id as usize];
            if let Some(batch) = local.begin(self.reactor) {
                return Some(Delivery {
                    id,
                    channel: Channel::clone(&local.name),
                    drops_slow: local.drops_slow,
                    batch,
                });
            }
            local.queue = None;
            self.free_if_idle(id);
        }
        None
    }

    /// The next one to deliver to. Steps on before it is delivered to, so that it may leave.
    pub fn next_seat(&mut self, delivery: &Delivery<A>) -> Option<Seat> {
        let local = &mut self.channels[delivery.id as usize];
        let queue = local.queue.as_mut()?;
        let seat = *local.seats.get(queue.cursor)?;
        queue.cursor += 1;
        Some(seat)
    }

    /// Puts a delivery back: to go on with it later, unless everybody has got it.
    pub fn end_delivery(&mut self, delivery: Delivery<A>) {
        let Delivery { id, batch, .. } = delivery;
        let local = &mut self.channels[id as usize];
        let Some(queue) = &mut local.queue else {
            debug_assert!(false, "a delivery without a queue");
            return;
        };
        if queue.cursor < local.seats.len() {
            queue.batch = Some(batch);
        } else {
            queue.cursor = 0;
            self.released += batch.cost();
        }
        if queue.batch.is_some() || !queue.pending.is_empty() {
            self.active.push_back(id);
        } else {
            local.queue = None;
            self.free_if_idle(id);
        }
    }

    /// A publication was dropped for this seat: it misses all that follows, until it is told.
    pub fn miss(&mut self, seat: &Seat) {
        let entry = self.subscriptions.get(seat.subscription as usize);
        if let Some(Subscription {
            slot,
            channel,
            stage: Stage::Seated(index),
            ..
        }) = entry
            && *slot == seat.slot
        {
            self.channels[*channel as usize].seats[*index as usize].set_missed(true);
        }
    }

    /// The channels in which a slot has missed something, which from now on gets what comes.
    pub fn take_missed(&mut self, slot: u32) -> Vec<Channel> {
        let mut missed = Vec::new();
        let mut next = self.heads.get(slot as usize).copied().unwrap_or(NIL);
        while next != NIL {
            let entry = &self.subscriptions[next as usize];
            next = entry.next;
            if let Stage::Seated(index) = entry.stage {
                let local = &mut self.channels[entry.channel as usize];
                let seat = &mut local.seats[index as usize];
                if seat.has_missed() {
                    seat.set_missed(false);
                    missed.push(Channel::clone(&local.name));
                }
            }
        }
        missed
    }

    /// Whether a slot is subscribed to a channel, or waits to be.
    pub fn is_subscribed(&self, slot: u32, name: &str) -> bool {
        self.find_by_name(slot, name).is_some()
    }

    /// What a slot is subscribed to, or waits to be, and its marks. Not the reserved channels.
    pub fn of(&self, slot: u32) -> impl Iterator<Item = (&Channel, u8)> {
        let entries = self.of_slot(slot);
        let entries = entries.map(|subscription| &self.subscriptions[subscription as usize]);
        let entries = entries.filter(|entry| !entry.is_cancelled() && !entry.is_reserved());
        entries.map(|entry| {
            let local = &self.channels[entry.channel as usize];
            (&local.name, entry.bits & MARK)
        })
    }

    /// The slots that are subscribed to a channel.
    pub fn to(&self, name: &str) -> impl Iterator<Item = u32> {
        let local = self.ids.get(name).map(|id| &self.channels[*id as usize]);
        let seats = local.map_or(&[][..], |local| &local.seats);
        seats.iter().map(|seat| seat.slot)
    }

    /// Checks the invariants of the type, for a reactor between two deliveries.
    #[cfg(test)]
    pub fn check_invariants(&self) {
        let (mut seated, mut waiting) = (0, 0);
        for (id, local) in &self.channels {
            assert_eq!(self.ids.get(&local.name), Some(&(id as u32)));
            assert!(!local.is_idle());
            assert_eq!(local.queue.is_some(), self.active.contains(&(id as u32)));
            if let Some(queue) = &local.queue {
                assert!(queue.cursor == 0 || queue.batch.is_some());
                assert!(queue.cursor <= local.seats.len());
                let has_some = queue.batch.is_some() || !queue.pending.is_empty();
                assert!(!local.seats.is_empty() || !has_some);
            }
            for (index, seat) in local.seats.iter().enumerate() {
                let entry = &self.subscriptions[seat.subscription as usize];
                assert_eq!(entry.stage, Stage::Seated(index as u32));
                assert_eq!((entry.slot, entry.channel), (seat.slot, id as u32));
            }
            seated += local.seats.len();
            waiting += local.waiting as usize;
        }
        assert_eq!(self.subscriptions.len(), seated + waiting);
        assert_eq!(self.ids.len(), self.channels.len());
        let all = self.subscriptions.iter();
        let counted = all.filter(|(_, entry)| !entry.is_cancelled() && !entry.is_reserved());
        assert_eq!(counted.count(), self.count);
    }

    /// Ends a subscription that has a seat and is on no list any more.
    fn end_seated(&mut self, subscription: u32) -> Ended {
        let Subscription { channel, stage, .. } = self.subscriptions[subscription as usize];
        let local = &mut self.channels[channel as usize];
        if let Stage::Seated(index) = stage {
            for index in local.vacate(index as usize) {
                if let Some(moved) = local.seats.get(index) {
                    let moved = &mut self.subscriptions[moved.subscription as usize];
                    moved.stage = Stage::Seated(index as u32);
                }
            }
        }
        if local.seats.is_empty() {
            self.released += local.clear();
        }
        self.end(subscription)
    }

    /// Forgets a subscription that has no seat and is on no list any more.
    fn end(&mut self, subscription: u32) -> Ended {
        let entry = self.subscriptions.remove(subscription as usize);
        let local = &self.channels[entry.channel as usize];
        let ended = Ended {
            channel: Channel::clone(&local.name),
            ticket: Ticket(subscription),
            watches: entry.wants().events,
            is_pattern: local.is_pattern,
        };
        self.free_if_idle(entry.channel);
        ended
    }

    fn insert_channel(&mut self, name: &str, is_pattern: bool) -> u32 {
        let name = Channel::from(name);
        let local = Local::new(Channel::clone(&name), is_pattern);
        let channel = self.channels.insert(local) as u32;
        self.ids.insert(name, channel);
        channel
    }

    fn free_if_idle(&mut self, channel: u32) {
        if self.channels[channel as usize].is_idle() {
            let local = self.channels.remove(channel as usize);
            self.ids.remove(&local.name);
        }
    }

    /// Those that were cancelled count until they are answered: so that nobody can ask faster than
    /// homes answer.
    fn is_at_limit(&self, slot: u32) -> bool {
        let all = self.of_slot(slot);
        let counted =
            all.filter(|subscription| !self.subscriptions[*subscription as usize].is_reserved());
        counted.count() >= self.subscriptions_max
    }

    fn find_by_name(&self, slot: u32, name: &str) -> Option<u32> {
        self.find(slot, *self.ids.get(name)?)
    }

    /// The subscription of a slot to a channel, if it was not cancelled.
    fn find(&self, slot: u32, channel: u32) -> Option<u32> {
        self.of_slot(slot).find(|subscription| {
            let entry = &self.subscriptions[*subscription as usize];
            entry.channel == channel && !entry.is_cancelled()
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

impl Subscription {
    fn is_cancelled(&self) -> bool {
        matches!(self.stage, Stage::Cancelled(_))
    }

    fn is_reserved(&self) -> bool {
        self.bits & RESERVED != 0
    }

    fn wants(&self) -> Wants {
        Wants {
            events: self.bits & EVENTS != 0,
            skips_own: self.bits & SKIPS_OWN != 0,
        }
    }
}

impl Terms {
    fn bits(self) -> u8 {
        let events = if self.wants.events { EVENTS } else { 0 };
        let skips_own = if self.wants.skips_own { SKIPS_OWN } else { 0 };
        self.mark & MARK | events | skips_own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `Slab` makes of a subscription.
    #[allow(dead_code)]
    enum Entry {
        Vacant(usize),
        Occupied(Subscription),
    }

    #[test]
    fn a_subscription_costs_at_most_48_bytes_beside_its_channel() {
        let (seat, subscription) = (size_of::<Seat>(), size_of::<Entry>());
        let head = size_of::<u32>();
        assert!(
            seat + subscription + head <= 48,
            "{seat} + {subscription} + {head}"
        );
    }
}
