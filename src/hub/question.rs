//! What is asked of the hub, and what it answers.

use std::sync::Arc;

use thiserror::Error;

use super::{Channel, Member, Payload, Position, Publication, RESERVED, Tick};

/// What the hub never goes beyond.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest name of a channel, in bytes.
    pub channel_name_bytes_max: usize,
    /// Channels that one connection may be subscribed to at a time.
    pub subscriptions_max: usize,
    /// Publications that a subscriber gets back at most; one that missed more recovers nothing.
    pub recovery_max: u32,
    /// The same in bytes: payloads and what is said about them, as the hub holds them.
    pub recovery_bytes_max: usize,
    /// What all histories of one reactor may cost, in bytes.
    pub history_bytes_max: u64,
}

impl Limits {
    /// Whether a channel may have this name, as far as its length goes. Reserved ones always may.
    pub fn is_name(&self, channel: &str) -> bool {
        is_reserved(channel) || (1..=self.channel_name_bytes_max).contains(&channel.len())
    }
}

/// Whether a name is not for peers to use. Such channels count in no limit and in no metric.
pub fn is_reserved(channel: &str) -> bool {
    channel.starts_with(RESERVED)
}

/// What a namespace says about a channel, as far as its home must know. By default nothing is
/// kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// How many publications are kept; 0: none.
    pub history_size: u32,
    /// For how many ticks each of them is; 0: not at all.
    pub history_ttl: Tick,
    /// Who is subscribed can be asked for.
    pub presence: bool,
    /// Those who want to are told who comes and goes.
    pub join_leave: bool,
    /// A name that ends in `.*` or `:*` is a pattern, and publications go to patterns too.
    pub wildcards: bool,
    /// Publications are dropped for a subscriber that is too slow, instead of the subscriber.
    pub drops_slow: bool,
}

impl Options {
    pub(super) fn keeps_history(&self) -> bool {
        self.history_size > 0 && self.history_ttl > 0
    }
}

/// A wish to subscribe.
#[derive(Clone, Debug)]
pub struct Subscribe<'a, A> {
    /// With [`Options::wildcards`], a name that ends in `.*` or `:*` is a pattern: it stands for
    /// all channels that begin with what is before the `*`. It has no history and no presence.
    pub channel: &'a str,
    pub options: Options,
    /// The last place that the subscriber has seen: what came after it is wanted back. An epoch of
    /// 0 is whichever there is.
    pub recover: Option<Position>,
    /// What the channel's presence says of the subscriber, and its joining and leaving.
    pub member: Option<Arc<Member<A>>>,
    /// It is told who comes and goes, itself included.
    pub wants_events: bool,
    /// It does not get what it published itself.
    pub skips_own: bool,
    /// Four bits for the dialect, given back by [`Share::subscriptions`](super::Share).
    pub mark: u8,
    /// Given back in the [`Reply`].
    pub tag: u32,
}

impl<'a, A> Subscribe<'a, A> {
    /// A plain subscription.
    pub fn new(channel: &'a str, options: Options) -> Self {
        Self {
            channel,
            options,
            recover: None,
            member: None,
            wants_events: false,
            skips_own: false,
            mark: 0,
            tag: 0,
        }
    }
}

/// A wish to publish.
#[derive(Clone, Debug)]
pub struct Publish<'a, A> {
    pub channel: &'a str,
    pub options: Options,
    pub payload: Payload,
    /// Goes with the publication, see [`Publication::about`].
    pub about: Option<Arc<str>>,
    /// Whom the publication is from; `None` for servers.
    pub publisher: Option<A>,
    /// In a channel with history: it is sent, but gets no place and is not kept.
    pub skips_history: bool,
    /// Who publishes again under the same key within five minutes gets the answer of the first
    /// time, and nothing is published.
    pub idempotency: Option<Box<str>>,
    /// Who is answered, with [`Answer::Published`] or [`Answer::Busy`]; `None`: nobody.
    pub asker: Option<A>,
    /// Given back in the [`Reply`].
    pub tag: u32,
    /// Under which the publication is counted.
    pub dialect: u8,
}

impl<'a, A> Publish<'a, A> {
    /// A plain publication, from and answered to nobody.
    pub fn new(channel: &'a str, options: Options, payload: Payload) -> Self {
        Self {
            channel,
            options,
            payload,
            about: None,
            publisher: None,
            skips_history: false,
            idempotency: None,
            asker: None,
            tag: 0,
            dialect: 0,
        }
    }
}

/// What can be asked about channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// What is kept of a channel's stream.
    History {
        /// Only what comes after this place, or before it in reverse. An epoch of 0 is whichever
        /// there is.
        since: Option<Position>,
        /// At most so many publications; 0 asks for the position alone.
        limit: Option<u32>,
        /// The newest first.
        is_reverse: bool,
    },
    /// Who is subscribed.
    Presence,
    /// How many are.
    PresenceStats,
    /// That what is kept be given up. The stream goes on.
    RemoveHistory,
    /// Which channels have subscribers. It is asked of every reactor, and each answers for the
    /// channels that live there.
    Channels {
        /// A `*` stands for anything; `None`: all.
        pattern: Option<Box<str>>,
        /// At most so many from each reactor.
        limit: u32,
    },
}

/// An answer to whoever asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply<A> {
    /// As in the question.
    pub tag: u32,
    /// As in the question; empty for [`Question::Channels`].
    pub channel: Channel,
    pub answer: Answer<A>,
}

/// What the home of a channel answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<A> {
    /// The connection is subscribed, and will see everything that is published from now on.
    Subscribed(Box<Subscribed<A>>),
    /// The publication has this place, and is on its way to all subscribers. The offset is 0 for
    /// one that skipped the history.
    Published(Position),
    /// Nobody gets the publication: a reactor with subscribers is too far behind. The publisher
    /// may try again.
    Busy,
    History {
        /// Where the stream is now.
        position: Position,
        publications: Vec<Arc<Publication<A>>>,
    },
    /// The history does not reach back to the place that was asked about, or knows no such place;
    /// the stream is here now.
    Unrecoverable(Position),
    Presence(Vec<Arc<Member<A>>>),
    PresenceStats {
        clients: u32,
        users: u32,
    },
    HistoryRemoved,
    Channels {
        /// With the number of subscriptions, in no order.
        channels: Vec<(Channel, u32)>,
        /// There are more than were asked for.
        is_cut: bool,
    },
}

/// How a subscription begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribed<A> {
    /// Where the stream is now.
    pub position: Position,
    /// Whether `publications` is all that the subscriber missed; `None`: it did not ask.
    pub recovered: Option<bool>,
    /// What it missed, in order; empty unless it recovered.
    pub publications: Vec<Arc<Publication<A>>>,
}

/// What a connection hears of its home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told<A> {
    pub to: A,
    /// `None` when it has no use for the answer any more, but may have waited for it.
    pub reply: Option<Reply<A>>,
}

/// Why `Peer::subscribe` did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SubscribeError {
    #[error("the channel's name is empty or too long (TIDEMILL_MAX_CHANNEL_NAME)")]
    Name,
    #[error("the connection has too many subscriptions (TIDEMILL_MAX_SUBSCRIPTIONS)")]
    TooMany,
    #[error("already subscribed to this channel")]
    Already,
}

/// Why `Peer::publish` did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PublishError {
    #[error("the channel's name is empty or too long (TIDEMILL_MAX_CHANNEL_NAME)")]
    Name,
    /// More waits for the channel's home, or for this connection's reactor, than
    /// `TIDEMILL_MAX_MAIL_BYTES`. It passes: the publisher may try again.
    #[error("too much is being published")]
    Busy,
}
