//! `Held`: deliveries that wait until their peer was told what they belong to.

use std::collections::HashMap;

use bytes::Bytes;

/// Frames for connections that asked not to be delivered to for a moment. Nearly always empty.
#[derive(Debug, Default)]
pub struct Held(HashMap<u32, Frames>);

#[derive(Debug, Default)]
struct Frames {
    frames: Vec<Bytes>,
    bytes: usize,
}

impl Held {
    /// Whether deliveries to this slot wait.
    #[inline]
    pub fn holds(&self, slot: u32) -> bool {
        !self.0.is_empty() && self.0.contains_key(&slot)
    }

    /// Lets deliveries to a slot wait from now on.
    pub fn begin(&mut self, slot: u32) {
        self.0.entry(slot).or_default();
    }

    /// Keeps what is delivered to a slot; how many bytes wait for it now.
    pub fn push(&mut self, slot: u32, frames: Bytes) -> usize {
        let held = self.0.entry(slot).or_default();
        held.bytes += frames.len();
        held.frames.push(frames);
        held.bytes
    }

    /// Ends it: what waited, in order.
    pub fn end(&mut self, slot: u32) -> Vec<Bytes> {
        let held = self.0.remove(&slot);
        held.map(|held| held.frames).unwrap_or_default()
    }
}
