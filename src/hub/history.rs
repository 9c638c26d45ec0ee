//! `History`: what is kept of a channel's stream; `Shelf`: what all of them cost a reactor.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    sync::Arc,
};

use super::{Channel, Limits, Options, Position, Publication, Tick};

/// What a channel is charged that has a history with nothing in it.
const CHANNEL_BYTES: u64 = 512;

/// What is kept of a stream, the oldest first.
pub type Kept<A> = VecDeque<Arc<Publication<A>>>;

/// The latest messages of a channel.
///
/// Invariant: their offsets have no gap, and the last of them is the latest that was given.
#[derive(Debug)]
pub struct History<A> {
    kept: Kept<A>,
    size: usize,
    ttl: Tick,
    /// When nothing is kept and nobody is subscribed, the stream is remembered until then: who has
    /// seen a part of it may come back.
    until: Tick,
}

/// What the histories of one reactor cost together, and when each must be looked at.
///
/// Invariant: each history has one entry in `due`, from when it is begun until it is ended.
#[derive(Debug)]
pub struct Shelf {
    bytes: u64,
    max: u64,
    due: BinaryHeap<Reverse<(Tick, Channel)>>,
}

impl<A> History<A> {
    /// Begins a history for its first publication; `None` when that would not fit.
    pub fn begin(first: &Publication<A>, options: Options, shelf: &mut Shelf) -> Option<Self> {
        let cost = channel_cost(&first.channel);
        if !shelf.has_room(cost + first.cost()) {
            return None;
        }
        let mut history = Self::empty(&first.channel, options.history_ttl, first.at, shelf);
        history.bound(options);
        Some(history)
    }

    /// Begins a history with nothing in it, for a stream that is to be remembered. Such take at
    /// most half of the shelf, so that those who only come and go cannot fill it.
    pub fn remember(channel: &Channel, ttl: Tick, now: Tick, shelf: &mut Shelf) -> Option<Self> {
        if shelf.bytes + channel_cost(channel) > shelf.max / 2 {
            return None;
        }
        Some(Self::empty(channel, ttl, now, shelf))
    }

    fn empty(channel: &Channel, ttl: Tick, now: Tick, shelf: &mut Shelf) -> Self {
        shelf.bytes += channel_cost(channel);
        let until = now.saturating_add(ttl);
        shelf.wake(until, Channel::clone(channel));
        Self {
            kept: VecDeque::new(),
            size: 0,
            ttl,
            until,
        }
    }

    /// Gives everything up, the history itself included.
    pub fn end(mut self, channel: &str, shelf: &mut Shelf) {
        self.clear(shelf);
        shelf.bytes -= channel_cost(channel);
    }

    /// Takes over what the latest publication or question says of the channel.
    pub fn bound(&mut self, options: Options) {
        self.size = options.history_size as usize;
        self.ttl = options.history_ttl;
    }

    /// Keeps a publication. If all histories together are too large then, this one gives up its
    /// oldest, and at last the publication itself.
    pub fn push(&mut self, publication: &Arc<Publication<A>>, shelf: &mut Shelf) {
        // As long again as the publication itself.
        self.stay(publication.at.saturating_add(self.ttl));
        let cost = publication.cost();
        while !shelf.has_room(cost) && self.pop(shelf) {}
        if shelf.has_room(cost) {
            shelf.bytes += cost;
            self.kept.push_back(Arc::clone(publication));
        }
        self.trim_size(shelf);
    }

    /// Gives up what is too much or too old.
    pub fn trim(&mut self, now: Tick, shelf: &mut Shelf) {
        self.trim_size(shelf);
        self.trim_age(now, usize::MAX, shelf);
    }

    /// Gives up what is too old, but at most `budget` publications; how many it were.
    pub fn trim_age(&mut self, now: Tick, budget: usize, shelf: &mut Shelf) -> usize {
        let mut count = 0;
        while count < budget && self.next_expiry().is_some_and(|at| at <= now) {
            self.pop(shelf);
            count += 1;
        }
        count
    }

    /// Somebody has seen a part of the stream who may come back from now on.
    pub fn stay(&mut self, now: Tick) {
        self.until = self.until.max(now.saturating_add(self.ttl));
    }

    pub fn clear(&mut self, shelf: &mut Shelf) {
        while self.pop(shelf) {}
    }

    /// When the oldest publication has been kept for long enough.
    pub fn next_expiry(&self) -> Option<Tick> {
        let oldest = self.kept.front()?;
        Some(oldest.at.saturating_add(self.ttl))
    }

    /// Until when the stream is remembered with nothing in it.
    pub fn until(&self) -> Tick {
        self.until
    }

    /// When a history with nothing in it must be looked at again: not later than something expires
    /// that is published right now.
    pub fn next_look(&self, now: Tick) -> Tick {
        self.until.min(now.saturating_add(self.ttl))
    }

    pub fn kept(&self) -> &Kept<A> {
        &self.kept
    }

    /// What this history is charged.
    #[cfg(test)]
    pub fn cost(&self, channel: &str) -> u64 {
        let kept = self.kept.iter().map(|publication| publication.cost());
        channel_cost(channel) + kept.sum::<u64>()
    }

    fn trim_size(&mut self, shelf: &mut Shelf) {
        while self.kept.len() > self.size {
            self.pop(shelf);
        }
    }

    fn pop(&mut self, shelf: &mut Shelf) -> bool {
        let popped = self.kept.pop_front();
        if let Some(publication) = &popped {
            shelf.bytes -= publication.cost();
        }
        // What a long history needed is not kept for a short one.
        if self.kept.capacity() > 32 && self.kept.len() < self.kept.capacity() / 4 {
            self.kept.shrink_to(self.kept.len() * 2);
        }
        popped.is_some()
    }
}

impl Shelf {
    pub fn new(max: u64) -> Self {
        Self {
            bytes: 0,
            max,
            due: BinaryHeap::new(),
        }
    }

    /// When the first history must be looked at.
    pub fn next_due(&self) -> Option<Tick> {
        self.due.peek().map(|Reverse((due, _))| *due)
    }

    /// A channel whose history must be looked at by now. It must be put back by
    /// [`Shelf::wake`], or its history ended.
    pub fn take_due(&mut self, now: Tick) -> Option<Channel> {
        if self.next_due()? > now {
            return None;
        }
        self.due.pop().map(|Reverse((_, channel))| channel)
    }

    pub fn wake(&mut self, due: Tick, channel: Channel) {
        self.due.push(Reverse((due, channel)));
    }

    fn has_room(&self, bytes: u64) -> bool {
        self.bytes + bytes <= self.max
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    #[cfg(test)]
    pub fn histories(&self) -> usize {
        self.due.len()
    }
}

/// What a subscriber missed that has seen everything up to `offset`; `None` when not all of it is
/// kept, or when it is too much.
pub fn recover<A>(
    kept: &Kept<A>,
    offset: u64,
    top: u64,
    limits: &Limits,
) -> Option<Vec<Arc<Publication<A>>>> {
    let missed = after(kept, offset, top)?;
    if missed > limits.recovery_max as usize {
        return None;
    }
    let publications = || kept.range(kept.len() - missed..);
    let bytes: usize = publications().map(|publication| publication.bytes()).sum();
    (bytes <= limits.recovery_bytes_max).then(|| publications().cloned().collect())
}

/// Answers a question about a history; `None` when what comes after `since` is not all kept, or
/// `since` is no place in this stream.
pub fn page<A>(
    kept: &Kept<A>,
    position: Position,
    since: Option<Position>,
    limit: Option<u32>,
    is_reverse: bool,
) -> Option<Vec<Arc<Publication<A>>>> {
    let top = position.offset;
    if since.is_some_and(|since| since.epoch != 0 && since.epoch != position.epoch) {
        return None;
    }
    let range = match since {
        None => 0..kept.len(),
        // Just behind the end is a place to go back from.
        Some(since) if is_reverse && since.offset <= top.saturating_add(1) => {
            let later = top.saturating_add(1) - since.offset;
            0..kept.len().saturating_sub(later as usize)
        }
        Some(since) => kept.len() - after(kept, since.offset, top)?..kept.len(),
    };
    let limit = limit.map_or(usize::MAX, |limit| limit as usize);
    let found = kept.range(range);
    Some(if is_reverse {
        found.rev().take(limit).cloned().collect()
    } else {
        found.take(limit).cloned().collect()
    })
}

/// How many publications came after `offset`; `None` when they are not all kept.
fn after<A>(kept: &Kept<A>, offset: u64, top: u64) -> Option<usize> {
    let missed = top.checked_sub(offset)?;
    (missed <= kept.len() as u64).then_some(missed as usize)
}

fn channel_cost(channel: &str) -> u64 {
    CHANNEL_BYTES + channel.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Payload;

    const OPTIONS: Options = Options {
        history_size: 5,
        history_ttl: 100,
        presence: false,
        join_leave: false,
        wildcards: false,
        drops_slow: false,
    };

    fn publication(offset: u64) -> Arc<Publication<()>> {
        let payload = Payload::Text("hello".into());
        let publication = Publication::new("news".into(), offset, payload);
        Arc::new(Publication {
            at: offset as Tick,
            ..publication
        })
    }

    fn history(count: u64, shelf: &mut Shelf) -> History<()> {
        let mut history = History::begin(&publication(1), OPTIONS, shelf).unwrap();
        for offset in 1..=count {
            history.push(&publication(offset), shelf);
        }
        history
    }

    fn offsets(publications: Option<Vec<Arc<Publication<()>>>>) -> Option<Vec<u64>> {
        let publications = publications?.into_iter();
        Some(publications.map(|publication| publication.offset).collect())
    }

    #[test]
    fn a_page_goes_on_from_any_place_that_is_kept_both_ways() {
        let mut shelf = Shelf::new(u64::MAX);
        let history = history(8, &mut shelf);
        let position = Position {
            offset: 8,
            epoch: 9,
        };
        let page = |offset: Option<u64>, limit, is_reverse| {
            let since = offset.map(|offset| Position { offset, epoch: 9 });
            offsets(page(history.kept(), position, since, limit, is_reverse))
        };
        assert_eq!(page(None, None, false), Some(vec![4, 5, 6, 7, 8]));
        assert_eq!(page(None, Some(2), false), Some(vec![4, 5]));
        assert_eq!(page(None, Some(2), true), Some(vec![8, 7]));
        assert_eq!(page(None, Some(0), false), Some(vec![]));
        assert_eq!(page(Some(5), Some(2), false), Some(vec![6, 7]));
        assert_eq!(page(Some(8), None, false), Some(vec![]));
        assert_eq!(page(Some(3), Some(1), false), Some(vec![4]));
        assert_eq!(page(Some(2), None, false), None);
        assert_eq!(page(Some(9), None, false), None);
        assert_eq!(page(Some(6), None, true), Some(vec![5, 4]));
        assert_eq!(page(Some(9), Some(1), true), Some(vec![8]));
        assert_eq!(page(Some(2), None, true), Some(vec![]));
        assert_eq!(page(Some(10), None, true), None);
        for (epoch, expected) in [(0, Some(vec![8])), (1, None)] {
            let since = Some(Position { offset: 7, epoch });
            let found = super::page(history.kept(), position, since, None, false);
            assert_eq!(offsets(found), expected);
        }
    }

    #[test]
    fn what_is_too_old_goes_bit_by_bit_and_leaves_nothing() {
        let mut shelf = Shelf::new(u64::MAX);
        let mut history = history(5, &mut shelf);
        assert_eq!(history.next_expiry(), Some(101));
        assert_eq!(history.trim_age(104, 3, &mut shelf), 3);
        assert_eq!(history.trim_age(104, 3, &mut shelf), 1);
        assert_eq!(history.kept().len(), 1);
        assert_eq!(shelf.take_due(100), None);
        assert_eq!(shelf.take_due(101).as_deref(), Some("news"));
        history.end("news", &mut shelf);
        assert_eq!((shelf.bytes(), shelf.histories()), (0, 0));
    }

    #[test]
    fn a_full_shelf_costs_a_channel_its_own_oldest() {
        let one = publication(1).cost();
        let mut shelf = Shelf::new(CHANNEL_BYTES + 4 + 3 * one);
        let mut history = history(5, &mut shelf);
        let kept: Vec<_> = history.kept().iter().map(|kept| kept.offset).collect();
        assert_eq!(kept, [3, 4, 5]);
        assert!(History::begin(&publication(1), OPTIONS, &mut shelf).is_none());
        // A large one pushes out all others, and itself if it must.
        let payload = Payload::Binary(vec![0; 5 * one as usize].into());
        let large = Publication::new("news".into(), 6, payload);
        history.push(&Arc::new(large), &mut shelf);
        assert!(history.kept().is_empty());
        assert_eq!(shelf.bytes(), CHANNEL_BYTES + 4);
    }
}
