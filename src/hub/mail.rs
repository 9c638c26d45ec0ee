//! What reactors say to each other about channels, and how much of it may wait.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::{
    Channel, Command, Kind, Limits, Member, Options, Payload, Position, Publication, Publish,
    PublishError, Question, Reply, Subscribed, home_of,
};

/// What one mail is charged beside name and payload: the mail itself, what the allocator adds.
/// So that a flood of empty publications is bounded too.
const OVERHEAD_BYTES: u64 = 256;

/// One mail. The first four go to a channel's home, the others come from it.
///
/// Subscribing and leaving is control mail: always accepted, and bounded all the same, because a
/// connection has at most [`Limits::subscriptions_max`] questions under way.
#[derive(Debug)]
pub enum Mail<A> {
    Subscribe(Box<Enrolment<A>>),
    Unsubscribe(Withdrawal<A>),
    Publish(Box<Draft<A>>),
    Ask(Inquiry<A>),
    /// The answer to a subscription; of a pattern, the answer of one of its homes.
    Subscribed {
        channel: Channel,
        subscriber: A,
        ticket: Ticket,
        tag: u32,
        subscribed: Box<Subscribed<A>>,
    },
    /// The answer to a publication or a question.
    Reply {
        to: A,
        reply: Reply<A>,
    },
    Publication(Arc<Publication<A>>),
    /// For those who subscribed to a pattern that the publication's channel matches.
    Pattern {
        pattern: Channel,
        publication: Arc<Publication<A>>,
    },
}

/// A subscription that a home is to know of.
#[derive(Debug)]
pub struct Enrolment<A> {
    pub channel: Channel,
    pub subscriber: A,
    pub ticket: Ticket,
    pub tag: u32,
    pub options: Options,
    pub recover: Option<Position>,
    pub member: Option<Arc<Member<A>>>,
    pub watches: bool,
    pub is_pattern: bool,
}

/// A subscription that a home is to forget.
#[derive(Debug)]
pub struct Withdrawal<A> {
    pub channel: Channel,
    pub subscriber: A,
    pub ticket: Ticket,
    pub watches: bool,
    pub is_pattern: bool,
}

/// A question on its way.
#[derive(Debug)]
pub struct Inquiry<A> {
    /// Empty when all channels are meant.
    pub channel: Channel,
    pub asker: A,
    pub tag: u32,
    pub question: Question,
}

/// A publication without a place.
#[derive(Debug)]
pub struct Draft<A> {
    pub channel: Channel,
    pub options: Options,
    pub kind: Kind<A>,
    pub payload: Payload,
    pub about: Option<Arc<str>>,
    pub publisher: Option<A>,
    pub skips_history: bool,
    pub idempotency: Option<Box<str>>,
    pub asker: Option<A>,
    pub tag: u32,
    /// Under which the publication is counted.
    pub dialect: u8,
}

/// A subscription, by its number on its own reactor. It is given to no other one before the home
/// has heard that this one has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub(super) u32);

impl<A> Mail<A> {
    /// A publication from a thread that is no reactor, and the reactor that it must go to. The mail
    /// is charged already: it must be sent.
    pub fn from_outside(
        request: Publish<'_, A>,
        limits: &Limits,
        mail_bytes: &MailBytes,
    ) -> Result<(u16, Self), PublishError> {
        let name = request.channel;
        Self::outside(name, limits, mail_bytes, || Draft::from(request))
    }

    /// As [`Mail::from_outside`], for a command.
    pub fn command_from_outside(
        channel: &str,
        command: Arc<Command<A>>,
        limits: &Limits,
        mail_bytes: &MailBytes,
    ) -> Result<(u16, Self), PublishError> {
        Self::outside(channel, limits, mail_bytes, || {
            Draft::command(channel, command)
        })
    }

    fn outside(
        channel: &str,
        limits: &Limits,
        mail_bytes: &MailBytes,
        draft: impl FnOnce() -> Draft<A>,
    ) -> Result<(u16, Self), PublishError> {
        if !limits.is_name(channel) {
            return Err(PublishError::Name);
        }
        let home = home_of(channel, mail_bytes.reactors());
        if !mail_bytes.admits(home) {
            return Err(PublishError::Busy);
        }
        let mail = Self::Publish(Box::new(draft()));
        mail_bytes.add(home, mail.cost());
        Ok((home, mail))
    }

    /// What this mail is charged, in bytes, from when it is sent until it is done with. Control
    /// mail is free.
    pub(super) fn cost(&self) -> u64 {
        match self {
            Self::Subscribe(_) | Self::Unsubscribe(_) | Self::Subscribed { .. } => 0,
            Self::Ask(_) | Self::Reply { .. } => OVERHEAD_BYTES,
            Self::Publish(draft) => cost(&draft.channel, &draft.payload, draft.about.as_deref()),
            Self::Publication(publication) | Self::Pattern { publication, .. } => {
                publication.cost()
            }
        }
    }
}

impl<A> Draft<A> {
    pub(super) fn command(channel: &str, command: Arc<Command<A>>) -> Self {
        let payload = Payload::Binary(bytes::Bytes::new());
        Self {
            kind: Kind::Command(command),
            ..Self::from(Publish::new(channel, Options::default(), payload))
        }
    }
}

impl<A> From<Publish<'_, A>> for Draft<A> {
    fn from(request: Publish<'_, A>) -> Self {
        Self {
            channel: request.channel.into(),
            options: request.options,
            kind: Kind::Message,
            payload: request.payload,
            about: request.about,
            publisher: request.publisher,
            skips_history: request.skips_history,
            idempotency: request.idempotency,
            asker: request.asker,
            tag: request.tag,
            dialect: request.dialect,
        }
    }
}

impl<A> Publication<A> {
    /// What this publication is charged, in bytes, wherever it waits or is kept.
    pub(super) fn cost(&self) -> u64 {
        cost(&self.channel, &self.payload, self.about.as_deref())
    }

    /// Its bytes as its publisher knows them.
    pub(super) fn bytes(&self) -> usize {
        self.payload.as_bytes().len() + self.about.as_deref().map_or(0, str::len)
    }
}

fn cost(channel: &str, payload: &Payload, about: Option<&str>) -> u64 {
    let bytes = channel.len() + payload.as_bytes().len() + about.map_or(0, str::len);
    bytes as u64 + OVERHEAD_BYTES
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
    pub fn reactors(&self) -> u16 {
        self.held.len() as u16
    }

    /// What a reactor has not dealt with, in bytes.
    pub fn held(&self, reactor: u16) -> u64 {
        self.held[usize::from(reactor)].0.load(Relaxed)
    }

    /// Whether more may be published that goes to this reactor.
    pub fn admits(&self, reactor: u16) -> bool {
        self.held(reactor) < self.max
    }

    /// Charges these reactors for what is on its way to them without a channel.
    ///
    /// # Errors
    /// `Busy` when one of them is full: then none is charged.
    pub fn charge<A>(
        &self,
        publication: &Publication<A>,
        reactors: impl IntoIterator<Item = u16> + Clone,
    ) -> Result<(), PublishError> {
        if !reactors
            .clone()
            .into_iter()
            .all(|reactor| self.admits(reactor))
        {
            return Err(PublishError::Busy);
        }
        for reactor in reactors {
            self.add(reactor, publication.cost());
        }
        Ok(())
    }

    /// A reactor is done with what it was charged for.
    pub fn discharge<A>(&self, publication: &Publication<A>, reactor: u16) {
        self.subtract(reactor, publication.cost());
    }

    /// Whether even what was published while there was room must be refused. A publication is
    /// charged to its home and then to those who want it, so the second limit is above the first:
    /// a burst that just fits is not refused by its own echo.
    pub(super) fn is_overfull(&self, reactor: u16) -> bool {
        self.held(reactor) >= self.max.saturating_mul(2)
    }

    /// Whether not even joins and leaves are told any more. Nobody can be refused for them, since
    /// they have happened; so they have room above what publications may take.
    pub(super) fn is_flooded(&self, reactor: u16) -> bool {
        self.held(reactor) >= self.max.saturating_mul(4)
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
