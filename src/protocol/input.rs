//! `Input`: received bytes on their way through a session, which lends out pieces of them.

use super::session::LEND_BYTES;

/// Received bytes on their way through a session.
#[derive(Debug)]
pub struct Input<'b> {
    pub(super) bytes: &'b mut [u8],
    pub(super) at: usize,
    /// Messages that did not lie in `bytes` in one piece. Events borrow from the last one.
    held: Vec<Vec<u8>>,
}

impl<'b> Input<'b> {
    pub fn new(bytes: &'b mut [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            held: Vec::new(),
        }
    }

    /// All received bytes, the consumed ones too (unmasked by now).
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// The messages that were put together from parts and are still lent out.
    pub fn held(&self) -> &[Vec<u8>] {
        &self.held
    }

    /// What has been consumed: nobody but the holder of an event's payload looks at it again.
    pub fn consumed(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.at]
    }

    /// What has not been consumed yet.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// How many bytes have not been consumed yet.
    #[inline]
    pub fn rest_bytes(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Puts together messages that nobody looks at any more out of the way.
    pub(super) fn release_small(&mut self) {
        if self.held.last().is_some_and(|last| last.len() < LEND_BYTES) {
            self.held.pop();
        }
    }

    pub(super) fn hold(&mut self, bytes: Vec<u8>) -> Place {
        let place = Place {
            held: true,
            start: 0,
            end: bytes.len(),
        };
        self.held.push(bytes);
        place
    }

    pub(super) fn slice(&self, place: Place) -> &[u8] {
        let source = match self.held.last() {
            Some(last) if place.held => last,
            _ => &*self.bytes,
        };
        &source[place.start..place.end]
    }
}

/// Where an event's payload lies in an [`Input`].
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) held: bool,
    pub(super) start: usize,
    pub(super) end: usize,
}
