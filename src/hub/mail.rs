//! What reactors say to each other about channels, and how much of it may wait.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::{Channel, Payload, Publication, Reply};

/// What one mail is charged beside its payload: the mail itself, the name, what the allocator adds.
/// So that a flood of empty publications is bounded too.
const OVERHEAD_BYTES: u64 = 256;

/// One mail. The first three go to a channel's home, the others come from it.
///
/// Subscribing and leaving is control mail: always accepted, and bounded all the same, because a
/// connection has at most [`SUBSCRIPTIONS_MAX`](super::SUBSCRIPTIONS_MAX) questions under way.
#[derive(Debug)]
pub enum Mail<A> {
    Subscribe {
        channel: Channel,
        subscriber: A,
        ticket: Ticket,
    },
    Unsubscribe {
        channel: Channel,
        reactor: u16,
    },
    Publish(Draft<A>),
    Subscribed {
        channel: Channel,
        /// The last one that the subscriber does not see.
        offset: u64,
        subscriber: A,
        ticket: Ticket,
    },
    /// The answer to a publication.
    Reply {
        to: A,
        reply: Reply,
    },
    Publication(Arc<Publication<A>>),
}

/// A publication without a place.
#[derive(Debug)]
pub struct Draft<A> {
    pub channel: Channel,
    pub payload: Payload,
    pub publisher: A,
    /// Under which the publication is counted.
    pub dialect: u8,
}

/// A subscription that waits for its home's answer, by its number on its own reactor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub(super) u32);

impl<A> Mail<A> {
    /// What this mail is charged, in bytes, from when it is sent until it is done with. Control
    /// mail is free.
    pub(super) fn cost(&self) -> u64 {
        match self {
            Self::Subscribe { .. } | Self::Unsubscribe { .. } | Self::Subscribed { .. } => 0,
            Self::Reply { .. } => OVERHEAD_BYTES,
            Self::Publish(draft) => payload_cost(&draft.payload),
            Self::Publication(publication) => publication.cost(),
        }
    }
}

impl<A> Publication<A> {
    /// What this publication is charged on each reactor that it goes to, in bytes.
    pub(super) fn cost(&self) -> u64 {
        payload_cost(&self.payload)
    }
}

fn payload_cost(payload: &Payload) -> u64 {
    payload.as_bytes().len() as u64 + OVERHEAD_BYTES
}

/// Bytes of data mail that each reactor has not dealt with: in its mailbox, or waiting for the
/// last subscriber.
///
/// What the senders add and the receiver takes away. Nobody waits for anybody: a limit that many
/// reach at once is passed by one mail each.
#[derive(Debug)]
pub struct MailBytes {
    held: Vec<Held>,
    max: u64,
}

/// Aligned so that no two reactors share a cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Held(AtomicU64);

impl MailBytes {
    /// Gauges for so many reactors, each full at `bytes_max`.
    pub fn new(reactors: usize, bytes_max: usize) -> Self {
        Self {
            held: (0..reactors).map(|_| Held::default()).collect(),
            max: bytes_max as u64,
        }
    }

    /// How many reactors there are.
    pub(super) fn reactors(&self) -> u16 {
        self.held.len() as u16
    }

    /// What a reactor has not dealt with, in bytes.
    pub fn held(&self, reactor: u16) -> u64 {
        self.held[usize::from(reactor)].0.load(Relaxed)
    }

    /// Whether nothing more may be published that goes to this reactor.
    pub(super) fn is_full(&self, reactor: u16) -> bool {
        self.held(reactor) >= self.max
    }

    /// Whether even what was published while there was room must be refused. A publication is
    /// charged to its home and then to those who want it, so the second limit is above the first:
    /// a burst that just fits is not refused by its own echo.
    pub(super) fn is_overfull(&self, reactor: u16) -> bool {
        self.held(reactor) >= self.max.saturating_mul(2)
    }

    pub(super) fn add(&self, reactor: u16, bytes: u64) {
        if bytes > 0 {
            self.held[usize::from(reactor)].0.fetch_add(bytes, Relaxed);
        }
    }

    pub(super) fn subtract(&self, reactor: u16, bytes: u64) {
        if bytes > 0 {
            self.held[usize::from(reactor)].0.fetch_sub(bytes, Relaxed);
        }
    }
}
