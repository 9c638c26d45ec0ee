//! `Cork`: what one connection says in one go, gathered so that it leaves in one system call.
//!
//! A reactor has one, shared by all of its connections in turn. Small frames are copied into it;
//! a large payload that lies in the input of the same connection is only noted, and sent from
//! where it lies.

use std::{
    io::{self, IoSlice},
    ops::Range,
};

use super::Outbox;
use crate::{
    protocol::{
        frame::{self, CloseCode, Control, OpCode},
        session::{Input, LARGE_BYTES, LEND_BYTES, Message},
    },
    transport::{Transport, tls::SealBuffer},
};

/// Buffers given to the kernel in one call; a cork with more notes than fit copies.
const SLICES_MAX: usize = 16;

/// Gathered output of one connection. See the module's text.
#[derive(Debug, Default)]
pub struct Cork {
    bytes: Vec<u8>,
    notes: Vec<Note>,
    /// Sum of the noted lengths.
    noted: usize,
    /// Addresses of the payload that the handler is looking at: what may be noted.
    lendable: Range<usize>,
    /// Where TLS makes records of it.
    seal: SealBuffer,
}

/// A payload that stays where it is, to be sent when `at` bytes of the cork have been.
#[derive(Debug)]
struct Note {
    at: usize,
    address: usize,
    length: usize,
}

impl Cork {
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            ..Self::default()
        }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.noted == 0
    }

    /// Bytes gathered, noted ones included.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len() + self.noted
    }

    /// Allows this payload to be noted instead of copied, until the next call.
    #[inline]
    pub fn lend(&mut self, message: &Message<'_>) {
        let payload = message.as_bytes();
        let start = payload.as_ptr() as usize;
        // A first payload may leave in one piece with its header; a later one costs the kernel two
        // more buffers, which only a large one is worth.
        let least = if self.is_empty() {
            LEND_BYTES
        } else {
            LARGE_BYTES
        };
        let length = if payload.len() >= least {
            payload.len()
        } else {
            0
        };
        self.lendable = start..start + length;
    }

    /// Adds a data frame.
    #[inline]
    pub fn message(&mut self, message: Message<'_>) {
        let payload = message.as_bytes();
        if payload.len() >= LEND_BYTES && self.note(&message) {
            return;
        }
        frame::encode(&mut self.bytes, message.opcode(), payload, None);
    }

    /// Adds a control frame.
    pub fn control(&mut self, control: Control, payload: &[u8]) {
        frame::encode(&mut self.bytes, OpCode::Control(control), payload, None);
    }

    /// Adds a Close frame.
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        frame::encode_close(&mut self.bytes, code, reason, None);
    }

    /// Adds bytes that are no frame: a frame encoded before, or HTTP.
    pub fn raw(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Whether all of it is here: nothing is noted that lies in an input.
    pub fn is_whole(&self) -> bool {
        self.notes.is_empty()
    }

    /// Where TLS makes records, for whatever is sent past the cork.
    pub fn seal(&mut self) -> &mut SealBuffer {
        &mut self.seal
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.notes.clear();
        self.noted = 0;
    }

    /// Sends everything; what the socket does not take goes to the outbox, in order. `input` is
    /// where the notes point.
    #[inline]
    pub fn flush(
        &mut self,
        input: &mut Input<'_>,
        outbox: &mut Outbox,
        transport: &mut Transport,
    ) -> io::Result<()> {
        if outbox.is_empty() && self.notes.is_empty() {
            let taken = transport.send(&self.bytes, &mut self.seal)?;
            outbox.push(&self.bytes[taken..]);
            self.bytes.clear();
            return Ok(());
        }
        let result = match self.join(input) {
            Some(frame) if outbox.is_empty() => {
                transport.send(frame, &mut self.seal).map(|taken| {
                    outbox.push(&frame[taken..]);
                })
            }
            _ => self.flush_slices(input, outbox, transport),
        };
        self.clear();
        result
    }

    /// Writes a header in front of the one noted payload, where it lies: the peer's own header,
    /// read long since, was longer. One buffer costs the kernel less than two.
    fn join<'i>(&self, input: &'i mut Input<'_>) -> Option<&'i [u8]> {
        let [note] = &self.notes[..] else { return None };
        let payload = note.address.checked_sub(input.bytes().as_ptr() as usize)?;
        let start = payload.checked_sub(self.bytes.len())?;
        let end = payload + note.length;
        if note.at != self.bytes.len() || end > input.consumed().len() {
            return None;
        }
        let consumed = input.consumed();
        consumed[start..payload].copy_from_slice(&self.bytes);
        Some(&consumed[start..end])
    }

    fn flush_slices(
        &mut self,
        input: &Input<'_>,
        outbox: &mut Outbox,
        transport: &mut Transport,
    ) -> io::Result<()> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut used = 0;
        let mut at = 0;
        for note in &self.notes {
            slices[used] = IoSlice::new(&self.bytes[at..note.at]);
            slices[used + 1] = IoSlice::new(note.find(input));
            used += 2;
            at = note.at;
        }
        slices[used] = IoSlice::new(&self.bytes[at..]);
        let slices = &slices[..=used];
        let mut taken = if outbox.is_empty() {
            transport.send_vectored(slices, &mut self.seal)?
        } else {
            0
        };
        for slice in slices {
            let sent = taken.min(slice.len());
            outbox.push(&slice[sent..]);
            taken -= sent;
        }
        Ok(())
    }

    /// Notes a payload if it is the one that was lent; `false` means it must be copied.
    fn note(&mut self, message: &Message<'_>) -> bool {
        let payload = message.as_bytes();
        let address = payload.as_ptr() as usize;
        let lent = self.lendable.contains(&address)
            && address + payload.len() <= self.lendable.end
            && 2 * self.notes.len() + 2 < SLICES_MAX;
        if lent {
            frame::encode_header(&mut self.bytes, message.opcode(), payload.len(), None);
            self.notes.push(Note {
                at: self.bytes.len(),
                address,
                length: payload.len(),
            });
            self.noted += payload.len();
        }
        lent
    }
}

impl Note {
    /// The noted payload: in the received bytes, or in a message put together from parts.
    fn find<'i>(&self, input: &'i Input<'_>) -> &'i [u8] {
        let sources = std::iter::once(input.bytes()).chain(input.held().iter().map(Vec::as_slice));
        for source in sources {
            let start = source.as_ptr() as usize;
            if self.address >= start && self.address + self.length <= start + source.len() {
                return &source[self.address - start..][..self.length];
            }
        }
        unreachable!("a note points into the input that lent it, which lives until the flush")
    }
}
