//! What is published, and what a stream says of its place.

use std::sync::Arc;

use bytes::Bytes;
use tungstenite::Utf8Bytes;

use super::{Channel, Tick};

/// What is published: text or bytes, shared by all who look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Any text.
    Text(Utf8Bytes),
    /// One valid JSON value without line breaks.
    Json(Utf8Bytes),
    Binary(Bytes),
}

impl Payload {
    /// The payload, whatever its kind.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) | Self::Json(text) => text.as_str().as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }
}

/// A place in a channel's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Of a publication, counted from 1; 0 is before the first.
    pub offset: u64,
    /// Names the stream: random, never 0, and another one whenever the stream is lost.
    pub epoch: u64,
}

/// What kind of thing is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind<A> {
    /// What somebody wanted to say.
    Message,
    /// Somebody has subscribed.
    Join,
    /// A subscription has ended.
    Leave,
    /// A server tells the subscribers what to do.
    Command(Arc<Command<A>>),
}

/// What was published to a channel, with the place that the channel's home gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication<A> {
    pub channel: Channel,
    /// Counts the messages of a channel from 1, without a gap, as long as the stream exists. 0: it
    /// has no place in the stream (whatever is no message, and what skips the history).
    pub offset: u64,
    pub kind: Kind<A>,
    /// Of a join or a leave: the member's `info`.
    pub payload: Payload,
    /// The connection that published, or joined, or left; `None` for servers.
    pub publisher: Option<A>,
    /// What the publisher's dialect says of it, which the hub does not look into.
    pub about: Option<Arc<str>>,
    /// When its home ordered it.
    pub(super) at: Tick,
}

impl<A> Publication<A> {
    /// A message that has come from no home, for what is sent or measured without one.
    pub fn new(channel: Channel, offset: u64, payload: Payload) -> Self {
        Self {
            channel,
            offset,
            kind: Kind::Message,
            payload,
            publisher: None,
            about: None,
            at: 0,
        }
    }

    /// Whether this tells who comes and goes.
    pub fn is_event(&self) -> bool {
        matches!(self.kind, Kind::Join | Kind::Leave)
    }
}

/// What a server tells connections to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<A> {
    Disconnect {
        code: u16,
        reason: Box<str>,
        /// These stay.
        except: Vec<A>,
    },
    Subscribe {
        channel: Box<str>,
        /// The request of the server API, as JSON: `info`, `data`, `recover` and the like.
        request: Arc<str>,
    },
    Unsubscribe {
        channel: Box<str>,
    },
    Refresh {
        /// The connection has expired now.
        expired: bool,
        /// When it will, in seconds since 1970; `None`: never.
        expires: Option<i64>,
    },
}

/// Who is subscribed to a channel, as its presence tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member<A> {
    pub client: A,
    pub user: Arc<str>,
    /// A JSON object, which the hub does not look into.
    pub info: Arc<str>,
}
