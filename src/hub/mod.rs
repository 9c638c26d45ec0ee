//! Channels: what is published to one reaches all who subscribed to it, on whatever reactor.
//!
//! Every channel has one home, the reactor that its name hashes to. There a publication gets its
//! offset, and from there it goes to each reactor with subscribers, one mail a reactor. Mail from
//! one reactor to another keeps its order, and that is all the order there needs to be: the answer
//! to a subscriber leaves the home before every publication that it must see, and after every one
//! that it must not.
//!
//! - `home` orders the channels that live on a reactor and knows who is interested in them;
//! - `subscribers` knows a reactor's own subscribers and how far a delivery has come;
//! - `batch` is what is delivered in one go, encoded once a dialect;
//! - `share` joins them: what one reactor does of the hub's work, mail in and mail out;
//! - `mail` is what reactors say to each other, and how much of it may wait.
//!
//! All of it is pure: no socket, no clock, no thread. A channel exists while somebody subscribes
//! to it; what is published to nobody is gone, and a channel that comes again counts from 1 again.

mod batch;
mod home;
mod mail;
#[cfg(test)]
mod model;
mod share;
mod subscribers;

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

pub use batch::Batch;
use bytes::Bytes;
pub use mail::{Mail, MailBytes};
pub use share::{Answer, Share};
use thiserror::Error;
use tungstenite::Utf8Bytes;

/// The longest name of a channel, in bytes.
pub const CHANNEL_NAME_BYTES_MAX: usize = 200;

/// Channels that one connection may be subscribed to at a time.
pub const SUBSCRIPTIONS_MAX: usize = 128;

/// The name of a channel; a clone is a reference.
pub type Channel = Arc<str>;

/// Names a connection: where it lives, and which slot it has there.
pub trait Address: Copy + Eq + fmt::Debug {
    /// The reactor that owns the connection.
    fn reactor(&self) -> u16;

    /// The connection's slot. It is not given to another one before [`Share::leave`].
    fn slot(&self) -> u32;
}

/// What is published: text or bytes, shared by all who look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    Text(Utf8Bytes),
    Binary(Bytes),
}

impl Payload {
    /// The payload, whatever its kind.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_str().as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }
}

/// What was published to a channel, with the place that the channel's home gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication<A> {
    pub channel: Channel,
    /// Counts the publications of a channel from 1, without a gap, as long as it has subscribers.
    pub offset: u64,
    pub payload: Payload,
    /// The connection that published it.
    pub publisher: Option<A>,
}

/// What the home of a channel answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// The connection is subscribed. It will see the publications after this offset, all of them.
    Subscribed { channel: Channel, offset: u64 },
    /// The publication has this offset, and is on its way to all subscribers.
    Published { channel: Channel, offset: u64 },
    /// Nobody gets the publication: a reactor with subscribers is too far behind. The publisher
    /// may try again.
    Refused { channel: Channel },
}

/// Why `Peer::subscribe` did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SubscribeError {
    #[error("a channel's name has 1 to {CHANNEL_NAME_BYTES_MAX} bytes")]
    Name,
    #[error("a connection has at most {SUBSCRIPTIONS_MAX} subscriptions")]
    TooMany,
    #[error("already subscribed to this channel")]
    Already,
}

/// Why `Peer::publish` did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PublishError {
    #[error("a channel's name has 1 to {CHANNEL_NAME_BYTES_MAX} bytes")]
    Name,
    /// More waits for the channel's home, or for this connection's reactor, than
    /// `TIDEMILL_MAX_MAIL_BYTES`. It passes: the publisher may try again.
    #[error("too much is being published")]
    Busy,
}

/// The reactor that orders a channel: the same for all reactors of a process.
fn home_of(channel: &str, reactors: u16) -> u16 {
    let mut hasher = DefaultHasher::new();
    channel.hash(&mut hasher);
    (hasher.finish() % u64::from(reactors)) as u16
}

fn is_name(channel: &str) -> bool {
    (1..=CHANNEL_NAME_BYTES_MAX).contains(&channel.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_are_spread_over_the_reactors() {
        let mut counts = [0; 4];
        for number in 0..4000 {
            counts[usize::from(home_of(&format!("channel-{number}"), 4))] += 1;
        }
        assert!(
            counts.iter().all(|count| (800..1200).contains(count)),
            "{counts:?}"
        );
        assert_eq!(home_of("anything", 1), 0);
    }
}
