//! `Repeats`: publications that a publisher may try again without doing it twice.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::{Channel, Position, Tick};

/// For how long an answer is remembered: five minutes.
const TICKS: Tick = 5 * 60 * 10;

/// Answers that are remembered at most; the oldest is forgotten first.
const ANSWERS_MAX: usize = 16_384;

/// The answers to publications that came with a key.
#[derive(Debug, Default)]
pub struct Repeats {
    answers: HashMap<Arc<Key>, Position>,
    /// The oldest first.
    order: VecDeque<(Tick, Arc<Key>)>,
}

/// A publisher's own name for a publication to a channel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub channel: Channel,
    pub key: Box<str>,
}

impl Repeats {
    /// The answer of the first time.
    pub fn find(&mut self, key: &Key, now: Tick) -> Option<Position> {
        self.expire(now, usize::MAX);
        self.answers.get(key).copied()
    }

    /// Remembers an answer that [`Repeats::find`] has not found.
    pub fn remember(&mut self, key: Key, position: Position, now: Tick) {
        if self.order.len() >= ANSWERS_MAX {
            self.forget();
        }
        let key = Arc::new(key);
        let before = self.answers.insert(Arc::clone(&key), position);
        debug_assert!(before.is_none(), "a repeat is published again");
        self.order.push_back((now.saturating_add(TICKS), key));
    }

    /// Forgets what is old enough, but at most `budget` answers; how many it were.
    pub fn expire(&mut self, now: Tick, budget: usize) -> usize {
        let mut count = 0;
        while count < budget && self.next_expiry().is_some_and(|at| at <= now) {
            self.forget();
            count += 1;
        }
        count
    }

    pub fn next_expiry(&self) -> Option<Tick> {
        self.order.front().map(|(at, _)| *at)
    }

    fn forget(&mut self) {
        if let Some((_, key)) = self.order.pop_front() {
            self.answers.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        Key {
            channel: "news".into(),
            key: number.to_string().into(),
        }
    }

    fn position(offset: usize) -> Position {
        Position {
            offset: offset as u64,
            epoch: 1,
        }
    }

    #[test]
    fn an_answer_is_remembered_for_five_minutes() {
        let mut repeats = Repeats::default();
        assert_eq!(repeats.find(&key(1), 100), None);
        repeats.remember(key(1), position(1), 100);
        repeats.remember(key(2), position(2), 200);
        assert_eq!(repeats.find(&key(1), 3099), Some(position(1)));
        let elsewhere = Key {
            channel: "olds".into(),
            ..key(1)
        };
        assert_eq!(repeats.find(&elsewhere, 3099), None);
        assert_eq!(repeats.next_expiry(), Some(3100));
        assert_eq!(repeats.find(&key(1), 3100), None);
        assert_eq!(repeats.find(&key(2), 3100), Some(position(2)));
        assert_eq!(repeats.expire(9999, 10), 1);
        assert_eq!(repeats.next_expiry(), None);
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut repeats = Repeats::default();
        for number in 0..ANSWERS_MAX + 2 {
            repeats.remember(key(number), position(number), 0);
        }
        assert_eq!(repeats.answers.len(), ANSWERS_MAX);
        assert_eq!(repeats.find(&key(1), 0), None);
        assert_eq!(repeats.find(&key(2), 0), Some(position(2)));
    }
}
