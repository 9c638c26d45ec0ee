//! `Slots<T>`: a slab whose keys carry a generation, so that a key which outlived its connection
//! (in a timer, a mail, a readiness event) finds nothing instead of a stranger.

use slab::Slab;

/// Names one occupancy of one slot. Fits a `mio::Token`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub slot: u32,
    /// Never 0, so tokens below 2^32 are free for listeners and wakers.
    pub generation: u32,
}

impl Key {
    pub fn to_token(self) -> mio::Token {
        mio::Token(((self.generation as usize) << 32) | self.slot as usize)
    }

    /// `None` for the tokens that are no keys.
    #[inline]
    pub fn from_token(token: mio::Token) -> Option<Self> {
        let generation = (token.0 >> 32) as u32;
        (generation != 0).then_some(Self {
            slot: token.0 as u32,
            generation,
        })
    }
}

/// A slab of a fixed size with generations.
///
/// Invariant: the slab never grows past the capacity it was made with, so its memory never moves;
/// pages that were never used cost nothing.
#[derive(Debug)]
pub struct Slots<T> {
    slab: Slab<Entry<T>>,
    capacity: usize,
    generation: u32,
    /// No slot from this one on was ever used.
    used: u32,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: T,
}

/// The memory for this many slots could not be reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot reserve memory for {capacity} connections")]
pub struct ReserveError {
    pub capacity: usize,
}

impl<T> Slots<T> {
    /// Reserves address space for `capacity` values, at most 2^32.
    pub fn with_capacity(capacity: usize) -> Result<Self, ReserveError> {
        // slab has no fallible reservation: try one of the same size first.
        let mut probe: Vec<Entry<T>> = Vec::new();
        probe
            .try_reserve_exact(capacity)
            .map_err(|_| ReserveError { capacity })?;
        drop(probe);
        Ok(Self {
            slab: Slab::with_capacity(capacity),
            capacity,
            generation: 0,
            used: 0,
        })
    }

    pub fn len(&self) -> usize {
        self.slab.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.slab.len() >= self.capacity
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many slots were ever used: what a walk over all of them must look at.
    pub fn slots_used(&self) -> u32 {
        self.used
    }

    /// Stores a value; gives it back when every slot is taken.
    pub fn insert(&mut self, value: T) -> Result<Key, T> {
        if self.is_full() {
            return Err(value);
        }
        self.generation = self.generation.wrapping_add(1).max(1);
        let generation = self.generation;
        let slot = self.slab.insert(Entry { generation, value }) as u32;
        self.used = self.used.max(slot + 1);
        Ok(Key { slot, generation })
    }

    #[inline]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let entry = self.slab.get_mut(key.slot as usize)?;
        (entry.generation == key.generation).then_some(&mut entry.value)
    }

    pub fn get(&self, key: Key) -> Option<&T> {
        let entry = self.slab.get(key.slot as usize)?;
        (entry.generation == key.generation).then_some(&entry.value)
    }

    pub fn contains(&self, key: Key) -> bool {
        self.slab
            .get(key.slot as usize)
            .is_some_and(|entry| entry.generation == key.generation)
    }

    /// The key of whatever occupies this slot now.
    pub fn key_at(&self, slot: u32) -> Option<Key> {
        let entry = self.slab.get(slot as usize)?;
        Some(Key {
            slot,
            generation: entry.generation,
        })
    }

    pub fn remove(&mut self, key: Key) -> Option<T> {
        if !self.contains(key) {
            return None;
        }
        self.slab
            .try_remove(key.slot as usize)
            .map(|entry| entry.value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_finds_only_what_it_was_given_for() {
        let mut slots = Slots::with_capacity(1).unwrap();
        let first = slots.insert("first").unwrap();
        assert_eq!(slots.insert("too many"), Err("too many"));
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert("second").unwrap();
        assert_eq!(first.slot, second.slot);
        assert_eq!(slots.get_mut(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get_mut(second), Some(&mut "second"));
        assert_eq!(Key::from_token(second.to_token()), Some(second));
        assert_eq!(Key::from_token(mio::Token(7)), None);
    }

    #[test]
    fn an_absurd_reservation_is_an_error() {
        assert!(Slots::<[u8; 4096]>::with_capacity(usize::MAX / 4096).is_err());
    }

    proptest! {
        #[test]
        fn slots_behave_like_a_map(operations in prop::collection::vec((0u8..3, 0usize..50), 1..400)) {
            let mut slots = Slots::with_capacity(20).unwrap();
            let mut model: HashMap<Key, usize> = HashMap::new();
            let mut keys: Vec<Key> = Vec::new();
            for (index, (operation, pick)) in operations.into_iter().enumerate() {
                match operation {
                    0 => match slots.insert(index) {
                        Ok(key) => {
                            prop_assert!(model.insert(key, index).is_none());
                            keys.push(key);
                        }
                        Err(_) => prop_assert_eq!(model.len(), 20),
                    },
                    1 if !keys.is_empty() => {
                        let key = keys[pick % keys.len()];
                        prop_assert_eq!(slots.remove(key), model.remove(&key));
                    }
                    _ if !keys.is_empty() => {
                        let key = keys[pick % keys.len()];
                        prop_assert_eq!(slots.get_mut(key), model.get_mut(&key));
                        prop_assert_eq!(slots.contains(key), model.contains_key(&key));
                    }
                    _ => {}
                }
                prop_assert_eq!(slots.len(), model.len());
            }
        }
    }
}
