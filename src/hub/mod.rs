//! Channels: what is published to one reaches all who subscribed to it, on whatever reactor.
//!
//! Every channel has one home, the reactor that its name hashes to. There a publication gets its
//! offset, and from there it goes to each reactor with subscribers, one mail a reactor. Mail from
//! one reactor to another keeps its order, and that is all the order there needs to be: the answer
//! to a subscriber leaves the home before every publication that it must see, and after every one
//! that it must not. What a subscriber missed while it was away comes with that answer, so nothing
//! is lost or doubled in between.
//!
//! - `publication` and `question` are the words: what is published, asked and answered;
//! - `homes` orders the channels that live on a reactor, each of them a `home`, and knows who is
//!   interested in them, with `interest` and `patterns`; what is kept of few is in `history`,
//!   `members` and `repeats`;
//! - `subscribers` knows a reactor's own subscribers, and `local` how far a delivery has come;
//! - `batch` is what is delivered in one go, encoded once a dialect;
//! - `share` joins them: what one reactor does of the hub's work, mail in and mail out;
//! - `mail` is what reactors say to each other and how much of it may wait, `post` what one of
//!   them has to say.
//!
//! All of it is pure: no socket, no clock, no thread. A channel exists while somebody subscribes
//! to it or something of it is kept, and with history as long again, so that its last subscriber
//! may come back; one that comes again is another stream, with another epoch.

mod batch;
mod epochs;
mod glob;
mod history;
mod home;
mod homes;
mod interest;
mod local;
mod mail;
mod members;
#[cfg(test)]
mod model;
mod patterns;
mod post;
mod publication;
mod question;
mod repeats;
mod share;
mod subscribers;

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

pub use batch::Batch;
pub use local::Seat;
pub use mail::{Mail, MailBytes};
pub use publication::{Command, Kind, Member, Payload, Position, Publication};
pub use question::{
    Answer, Limits, Options, Publish, PublishError, Question, Reply, Subscribe, SubscribeError,
    Subscribed, Told, is_reserved,
};
pub use share::Share;
pub use subscribers::Delivery;

/// The name of a channel; a clone is a reference.
pub type Channel = Arc<str>;

/// A tenth of a second of whoever drives the hub.
pub type Tick = u32;

/// How the names of channels begin that are not for peers to use.
pub const RESERVED: char = '\u{1}';

/// Names a connection: where it lives, and which slot it has there.
pub trait Address: Copy + Eq + Hash + fmt::Debug {
    /// The reactor that owns the connection.
    fn reactor(&self) -> u16;

    /// The connection's slot. It is not given to another one before [`Share::leave`].
    fn slot(&self) -> u32;
}

/// The reactor that orders a channel: the same for all reactors of a process.
pub fn home_of(channel: &str, reactors: u16) -> u16 {
    let mut hasher = DefaultHasher::new();
    channel.hash(&mut hasher);
    (hasher.finish() % u64::from(reactors)) as u16
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
