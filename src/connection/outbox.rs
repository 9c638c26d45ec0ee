//! `Outbox`: the bytes that one socket has not taken yet, in order, counted.
//!
//! Almost always empty, and then it is eight bytes: what is sent goes from the cork straight to
//! the socket, and only what the socket refused comes here. Its length is the backpressure.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
};

use bytes::Bytes;

use crate::protocol::frame::{self, CONTROL_BYTES_MAX, Control, OpCode};

/// Small pieces are gathered into chunks of this size.
const CHUNK_BYTES: usize = 16 * 1024;

/// A shared frame below this size is copied: a reference would cost as much.
const SHARE_BYTES: usize = 1024;

/// Buffers given to the kernel in one call.
const SLICES_MAX: usize = 32;

/// Bytes waiting for one socket. See the module's text.
#[derive(Debug, Default)]
pub struct Outbox(Option<Box<Backlog>>);

/// Invariants: `bytes` is the sum of what the chunks still hold (a pong placeholder counts as a
/// full control frame); `sent` is less than the length of the first chunk; no chunk is empty.
#[derive(Debug, Default)]
struct Backlog {
    chunks: VecDeque<Chunk>,
    /// How much of the first chunk the socket has taken.
    sent: usize,
    bytes: usize,
    /// The payload for the one `Chunk::Pong` that may be queued.
    pong: Vec<u8>,
}

#[derive(Debug)]
enum Chunk {
    Owned(Vec<u8>),
    Shared(Bytes),
    /// A pong to be encoded when its turn comes, with the payload of the latest ping by then:
    /// RFC 6455, 5.5.3, asks for no more, and a peer that pings without reading stays cheap.
    Pong,
}

/// What a pong placeholder is charged: header and the longest payload.
const PONG_BYTES: usize = 2 + CONTROL_BYTES_MAX;

impl Outbox {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Bytes waiting.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |backlog| backlog.bytes)
    }

    /// Queues a copy of `bytes`.
    pub fn push(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let backlog = self.0.get_or_insert_default();
        backlog.bytes += bytes.len();
        if let Some(Chunk::Owned(last)) = backlog.chunks.back_mut()
            && last.len() + bytes.len() <= CHUNK_BYTES
        {
            last.extend_from_slice(bytes);
            return;
        }
        backlog.chunks.push_back(Chunk::Owned(bytes.to_vec()));
    }

    /// Queues `bytes` without a copy, unless they are few.
    pub fn push_shared(&mut self, bytes: Bytes) {
        if bytes.len() < SHARE_BYTES {
            return self.push(&bytes);
        }
        let backlog = self.0.get_or_insert_default();
        backlog.bytes += bytes.len();
        backlog.chunks.push_back(Chunk::Shared(bytes));
    }

    /// Queues the answer to a ping. A pong that is still waiting takes the new payload instead.
    pub fn push_pong(&mut self, payload: &[u8]) {
        let backlog = self.0.get_or_insert_default();
        backlog.pong.clear();
        backlog.pong.extend_from_slice(payload);
        if !backlog
            .chunks
            .iter()
            .any(|chunk| matches!(chunk, Chunk::Pong))
        {
            backlog.bytes += PONG_BYTES;
            backlog.chunks.push_back(Chunk::Pong);
        }
    }

    /// Throws everything away.
    pub fn clear(&mut self) {
        self.0 = None;
    }

    /// Hands bytes to `send`, which says how many it took, until it takes less than it was
    /// offered or nothing is left.
    pub fn write(
        &mut self,
        mut send: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<()> {
        while let Some(backlog) = &mut self.0 {
            backlog.materialize();
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut offered = 0;
            let mut used = 0;
            for (index, chunk) in backlog.chunks.iter().take(SLICES_MAX).enumerate() {
                let bytes = match chunk {
                    Chunk::Owned(bytes) => &bytes[..],
                    Chunk::Shared(bytes) => &bytes[..],
                    // Behind the first chunk a pong keeps waiting for a later ping.
                    Chunk::Pong => break,
                };
                let bytes = if index == 0 {
                    &bytes[backlog.sent..]
                } else {
                    bytes
                };
                slices[index] = IoSlice::new(bytes);
                offered += bytes.len();
                used += 1;
            }
            let taken = send(&slices[..used])?;
            backlog.consume(taken);
            if backlog.chunks.is_empty() {
                self.0 = None;
            } else if taken < offered {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Checks the invariants of the type.
    pub fn check_invariants(&self) {
        let Some(backlog) = &self.0 else { return };
        let lengths = backlog.chunks.iter().map(Chunk::len);
        assert_eq!(backlog.bytes + backlog.sent, lengths.clone().sum::<usize>());
        assert!(lengths.clone().all(|length| length > 0));
        assert!(backlog.sent < lengths.clone().next().unwrap_or(0));
        let pongs = backlog
            .chunks
            .iter()
            .filter(|chunk| matches!(chunk, Chunk::Pong))
            .count();
        assert!(pongs <= 1);
    }
}

impl Backlog {
    /// A pong at the front becomes bytes.
    fn materialize(&mut self) {
        if let Some(front @ Chunk::Pong) = self.chunks.front_mut() {
            let mut encoded = Vec::with_capacity(2 + self.pong.len());
            frame::encode(
                &mut encoded,
                OpCode::Control(Control::Pong),
                &self.pong,
                None,
            );
            self.bytes = self.bytes - PONG_BYTES + encoded.len();
            *front = Chunk::Owned(encoded);
            self.pong = Vec::new();
        }
    }

    fn consume(&mut self, taken: usize) {
        self.bytes -= taken;
        self.sent += taken;
        while let Some(front) = self.chunks.front() {
            if self.sent < front.len() {
                break;
            }
            self.sent -= front.len();
            self.chunks.pop_front();
        }
    }
}

impl Chunk {
    fn len(&self) -> usize {
        match self {
            Self::Owned(bytes) => bytes.len(),
            Self::Shared(bytes) => bytes.len(),
            Self::Pong => PONG_BYTES,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drain(outbox: &mut Outbox, mut limit: usize, into: &mut Vec<u8>) {
        outbox
            .write(|slices| {
                let mut taken = 0;
                for slice in slices {
                    let part = slice.len().min(limit);
                    into.extend_from_slice(&slice[..part]);
                    limit -= part;
                    taken += part;
                }
                Ok(taken)
            })
            .unwrap();
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order(
            operations in prop::collection::vec((0u8..3, 0usize..5000), 1..200)
        ) {
            let mut outbox = Outbox::default();
            let (mut model, mut seen) = (Vec::new(), Vec::new());
            let mut next = 0u8;
            for (operation, size) in operations {
                let bytes: Vec<u8> = (0..size).map(|i| next.wrapping_add(i as u8)).collect();
                next = next.wrapping_add(37);
                match operation {
                    0 => {
                        outbox.push(&bytes);
                        model.extend_from_slice(&bytes);
                    }
                    1 => {
                        outbox.push_shared(Bytes::from(bytes.clone()));
                        model.extend_from_slice(&bytes);
                    }
                    _ => drain(&mut outbox, size * 3, &mut seen),
                }
                outbox.check_invariants();
                prop_assert_eq!(outbox.len(), model.len() - seen.len());
                prop_assert_eq!(outbox.is_empty(), model.len() == seen.len());
            }
            drain(&mut outbox, usize::MAX, &mut seen);
            prop_assert_eq!(model, seen);
        }
    }

    #[test]
    fn pongs_coalesce_into_the_latest_and_keep_their_place() {
        let mut outbox = Outbox::default();
        outbox.push(b"before ");
        for number in 0..1000 {
            outbox.push_pong(format!("{number}").as_bytes());
        }
        outbox.push(b"after");
        outbox.check_invariants();
        assert!(outbox.len() < 200);
        let mut seen = Vec::new();
        drain(&mut outbox, 3, &mut seen);
        outbox.push_pong(b"last");
        drain(&mut outbox, usize::MAX, &mut seen);
        assert_eq!(seen, b"before \x8a\x04lastafter");
        assert!(outbox.is_empty());
    }

    #[test]
    fn an_empty_outbox_is_one_word() {
        assert_eq!(size_of::<Outbox>(), size_of::<usize>());
    }
}
