//! One peer: its socket, where it stands in the protocol, and what waits for it.
//!
//! A [`Connection`] is what a slot of the reactor's slab holds. Everything that only some
//! connections need at some times lives behind a pointer that is null for an idle one.

mod cork;
mod held;
mod outbox;
mod visitors;

use std::io::{self, IoSlice};

use bytes::Bytes;
pub use cork::Cork;
pub use held::Held;
pub use outbox::Outbox;
pub use visitors::{Identity, Visitors};

use crate::{
    protocol::{
        http::{Body, HeadScan, Reason},
        session::{Input, Session},
    },
    transport::{Transport, tls::SealBuffer},
    wheel::Tick,
};

/// Shared pieces given to the kernel in one call.
const PIECES_MAX: usize = 32;

/// A connection and the application's state for it, which exists from the upgrade on.
#[derive(Debug)]
pub struct Connection<S> {
    pub link: Link,
    pub state: Option<S>,
}

/// A connection without the application's state.
#[derive(Debug)]
pub struct Link {
    pub transport: Transport,
    pub flags: Flags,
    /// What it speaks once it is open.
    pub dialect: u8,
    /// Why it gets no upgrade, but answers to plain requests.
    pub shed: Option<Reason>,
    /// When bytes last came.
    pub last_seen: Tick,
    /// What it means depends on the stage: the accept or the last request; the last ping; our
    /// Close; the beginning of lingering.
    pub since: Tick,
    /// The application's own deadline; 0 is none.
    pub deadline: Tick,
    pub stage: Stage,
    pub outbox: Outbox,
    /// Received bytes that are not looked at before the connection is resumed.
    #[expect(
        clippy::box_collection,
        reason = "a third of the size while there is none"
    )]
    pub unread: Option<Box<Vec<u8>>>,
}

/// Where a connection stands.
#[derive(Debug)]
pub enum Stage {
    /// A proxy says first for whom it speaks.
    Preamble,
    /// Speaks HTTP; the box exists while a request is incomplete.
    Http(Option<Box<Exchange>>),
    /// Its request waits for an answer that takes a while. `keep`: another one may follow.
    Asking { keep: bool, head_only: bool },
    /// Speaks WebSocket.
    Open(Session),
    /// Everything was said. The write side is shut; what still comes is thrown away, so that the
    /// peer sees our last words and a FIN instead of a reset.
    Lingering { discarded_bytes: u32 },
    /// To be reaped at the end of the turn.
    Dead,
}

/// A request that has not come completely.
#[derive(Debug, Default)]
pub struct Exchange {
    pub head: Vec<u8>,
    pub scan: HeadScan,
    /// Present once the head is complete.
    pub body: Option<Body>,
}

impl Link {
    pub fn new(transport: Transport, flags: Flags, now: Tick) -> Self {
        Self {
            transport,
            flags,
            dialect: 0,
            shed: None,
            last_seen: now,
            since: now,
            deadline: 0,
            stage: Stage::Http(None),
            outbox: Outbox::default(),
            unread: None,
        }
    }

    pub fn is_dead(&self) -> bool {
        matches!(self.stage, Stage::Dead)
    }

    /// Bytes of memory held for this connection beside its slot.
    pub fn buffered_bytes(&self) -> usize {
        let stage = match &self.stage {
            Stage::Http(Some(exchange)) => {
                exchange.head.capacity() + exchange.body.as_ref().map_or(0, Body::capacity)
            }
            Stage::Open(session) => session.buffered_bytes(),
            _ => 0,
        };
        let unread = self.unread.as_ref().map_or(0, |unread| unread.capacity());
        self.outbox.len() + stage + unread + self.transport.buffered_bytes()
    }

    /// Bytes that wait for the socket.
    #[inline]
    pub fn waiting_bytes(&self) -> usize {
        self.outbox.len() + self.transport.pending_bytes()
    }

    /// Whether anything waits for the socket.
    #[inline]
    pub fn has_backlog(&self) -> bool {
        !self.outbox.is_empty() || self.transport.pending_bytes() > 0
    }

    /// Whether received bytes may be looked at now.
    #[inline]
    pub fn is_readable(&self) -> bool {
        !self
            .flags
            .has(Flags::PAUSED | Flags::SUSPENDED | Flags::RATED | Flags::FINISHING)
            && !self.is_dead()
    }

    /// Sends what was gathered in the cork.
    #[inline]
    pub fn flush_cork(&mut self, cork: &mut Cork, input: &mut Input<'_>) -> io::Result<()> {
        if cork.is_empty() {
            return Ok(());
        }
        cork.flush(input, &mut self.outbox, &mut self.transport)
    }

    /// Sends what waits in the outbox, as far as the socket takes it.
    pub fn flush_outbox(&mut self, seal: &mut SealBuffer) -> io::Result<()> {
        let Self {
            outbox, transport, ..
        } = self;
        transport.flush()?;
        outbox.write(|slices| transport.send_vectored(slices, seal))
    }

    /// Sends bytes that many connections share, behind what waits already.
    pub fn send_shared(&mut self, bytes: &Bytes, seal: &mut SealBuffer) -> io::Result<()> {
        let taken = if self.outbox.is_empty() {
            self.transport.send(bytes, seal)?
        } else {
            0
        };
        if bytes.len() - taken < bytes.len() / 2 {
            // The rest does not keep the whole alive.
            self.outbox.push(&bytes[taken..]);
        } else {
            self.outbox.push_shared(bytes.slice(taken..));
        }
        if cfg!(debug_assertions) {
            self.outbox.check_invariants();
        }
        Ok(())
    }

    /// As [`Link::send_shared`], for several pieces in one call.
    pub fn send_all_shared(&mut self, pieces: &[Bytes], seal: &mut SealBuffer) -> io::Result<()> {
        for group in pieces.chunks(PIECES_MAX) {
            let mut taken = 0;
            if self.outbox.is_empty() {
                let mut slices = [IoSlice::new(&[]); PIECES_MAX];
                for (slice, piece) in slices.iter_mut().zip(group) {
                    *slice = IoSlice::new(piece);
                }
                taken = self.transport.send_vectored(&slices[..group.len()], seal)?;
            }
            for piece in group {
                let skipped = taken.min(piece.len());
                taken -= skipped;
                if skipped < piece.len() {
                    self.outbox.push_shared(piece.slice(skipped..));
                }
            }
        }
        Ok(())
    }

    /// Goes on reading for an application that waited for an answer.
    pub fn resume(&mut self) {
        if self.flags.has(Flags::SUSPENDED) {
            self.flags.clear(Flags::SUSPENDED | Flags::PINGED);
            self.flags.set(Flags::REARM);
        }
    }

    /// Keeps received bytes for later; the caller stops reading, and owes a look at them.
    pub fn keep_unread(&mut self, bytes: &[u8]) {
        self.flags.set(Flags::OWED);
        if !bytes.is_empty() {
            self.unread.get_or_insert_default().extend_from_slice(bytes);
        }
    }
}

/// A set of yes-or-no facts about a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u16);

impl Flags {
    /// The outbox passed its soft mark: nothing is read until it is below the low mark.
    pub const PAUSED: Self = Self(1);
    /// The application waits for an answer before it wants to see more.
    pub const SUSPENDED: Self = Self(1 << 1);
    /// On the ready list, or in the queue of TLS handshakes.
    pub const READY: Self = Self(1 << 2);
    /// On the list of connections to flush.
    pub const UNFLUSHED: Self = Self(1 << 3);
    /// A ping is out and nothing has come since.
    pub const PINGED: Self = Self(1 << 4);
    /// Sent more than its rate: nothing is read until that is made up for.
    pub const RATED: Self = Self(1 << 5);
    /// Accepted on the admin listener.
    pub const ADMIN: Self = Self(1 << 6);
    /// Ends as soon as the outbox is empty, by an orderly close.
    pub const FINISHING: Self = Self(1 << 7);
    /// As `FINISHING`, but the peer may still be sending: linger.
    pub const LINGER: Self = Self(1 << 8);
    /// Already on the list of connections that hold buffers.
    pub const HOLDER: Self = Self(1 << 9);
    /// The peer sends no more.
    pub const READ_CLOSED: Self = Self(1 << 10);
    /// There may be bytes to read for which no event will come.
    pub const OWED: Self = Self(1 << 11);
    /// At least one plain request was answered.
    pub const ANSWERED: Self = Self(1 << 13);
    /// The TLS handshake is under way.
    pub const HANDSHAKING: Self = Self(1 << 15);
    /// Counts against the connection cap.
    pub const COUNTED: Self = Self(1 << 14);
    /// The timer must be set anew.
    pub const REARM: Self = Self(1 << 12);

    #[inline]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    #[inline]
    pub fn set(&mut self, other: Self) {
        self.0 |= other.0;
    }

    #[inline]
    pub fn clear(&mut self, other: Self) {
        self.0 &= !other.0;
    }

    /// Sets the flag; true if it was not set before.
    #[inline]
    pub fn raise(&mut self, other: Self) -> bool {
        let raised = !self.has(other);
        self.set(other);
        raised
    }
}

impl std::ops::BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_read_path_touches_fits_a_cache_line() {
        // In a debug build mio's socket has a word more, and nothing fits in beside it.
        let more = if cfg!(debug_assertions) { 16 } else { 0 };
        assert!(size_of::<Link>() <= 64 + more, "{}", size_of::<Link>());
    }
}
