//! The seam between the server and an application: [`Handler`], and [`Peer`], through which a
//! handler acts.
//!
//! Each reactor has a handler of its own, so a handler needs no lock. It is called with one
//! connection at a time and changes only that one; others are reached by publishing. Nothing
//! re-enters: what a call sends leaves after it has returned.
//!
//! - `incoming`: a request before it is a connection, and what becomes of it;
//! - `peer`: a connection, for the time of one call;
//! - `caller`: a plain request whose answer takes more than one call;
//! - `client_id`: the name of a connection outside of the process.

mod caller;
mod client_id;
mod incoming;
mod peer;

use std::{error::Error, fmt};

use bytes::Bytes;

pub use self::{
    caller::{Answer, Caller, Heard, Resident, What},
    client_id::ClientId,
    incoming::{Accept, Door, Incoming, Verdict},
    peer::Peer,
};
pub(crate) use self::{
    caller::{Census, Order},
    incoming::{TokenDoor, is_relayed},
    peer::listen_for_user,
};
pub use crate::{
    connection::Identity,
    gate::{
        KeyCheck, OriginList,
        channel::{Action, Asker, Denied, Namespace, Namespaces, Via},
        token::{Claims, Revocation, RevocationsFull, TokenError},
    },
    hub::{
        Channel, Kind, Options, Payload, Position, PublishError, Question, RESERVED, SubscribeError,
    },
    protocol::{
        CloseCode, Frame, Message,
        http::{Headers, Reason, Refusal, Request, Response, Upgrade},
    },
};
use crate::{
    gate::channel::SlowPolicy,
    hub::{self, Address},
    slots::Key,
    wheel::TICK_MS,
};

/// An application. Only [`Handler::message`] must be written.
///
/// A panic or an error in a call about a WebSocket connection closes that connection with 1011
/// and nothing else; in [`Handler::request`] a panic answers 500.
pub trait Handler: Sized {
    /// What the application remembers of one connection; exists from the upgrade to the close.
    type State;

    /// Labels that [`Handler::dialect`] chooses from; at most 16.
    const DIALECTS: &'static [&'static str] = &["app"];

    /// What is asked of whoever wants to connect to this path, before [`Handler::upgrade`] is. The
    /// default is an origin in `TIDEMILL_ORIGINS` and, where a token key is configured, a token.
    ///
    /// # Errors
    /// A refusal, such as 404 for a path that there is not.
    fn door(&self, incoming: &Incoming<'_>) -> Result<Door, Refusal> {
        let _ = incoming;
        Ok(Door::default())
    }

    /// Decides on a sound upgrade request that has passed the door. The default refuses with 404.
    fn upgrade(&mut self, incoming: &Incoming<'_>, upgrade: &Upgrade<'_>) -> Verdict<Self::State> {
        let _ = (incoming, upgrade);
        Verdict::Refuse(Reason::UnknownPath.into())
    }

    /// The connection is a WebSocket now; what is sent here comes before any reply.
    fn open(&mut self, peer: &mut Peer<'_>, state: &mut Self::State) -> Result<(), Failure> {
        let _ = (peer, state);
        Ok(())
    }

    /// A whole message came.
    fn message(
        &mut self,
        peer: &mut Peer<'_>,
        state: &mut Self::State,
        message: Message<'_>,
    ) -> Result<(), Failure>;

    /// A control frame came. Pings and Closes are answered without the handler's doing; this only
    /// observes them.
    fn control(&mut self, peer: &mut Peer<'_>, state: &mut Self::State, control: Control<'_>) {
        let _ = (peer, state, control);
    }

    /// The outbox had passed its soft mark and is below the low mark again: a good time to send
    /// what was held back.
    fn drain(&mut self, peer: &mut Peer<'_>, state: &mut Self::State) -> Result<(), Failure> {
        let _ = (peer, state);
        Ok(())
    }

    /// The time that [`Peer::deadline`] asked for has come.
    fn deadline(&mut self, peer: &mut Peer<'_>, state: &mut Self::State) -> Result<(), Failure> {
        let _ = (peer, state);
        Ok(())
    }

    /// The home of a channel has answered what this connection asked ([`Peer::subscribe`],
    /// [`Peer::publish`], [`Peer::ask`]); whoever was suspended for it is read again.
    fn reply(
        &mut self,
        peer: &mut Peer<'_>,
        state: &mut Self::State,
        reply: Reply,
    ) -> Result<(), Failure> {
        let _ = (peer, state, reply);
        Ok(())
    }

    /// A server tells this connection to do something: it, or its user. The default closes for
    /// `Disconnect`, unsubscribes for `Unsubscribe`, and leaves the others alone.
    fn command(
        &mut self,
        peer: &mut Peer<'_>,
        state: &mut Self::State,
        command: &Command,
    ) -> Result<(), Failure> {
        let _ = state;
        peer.obey(command);
        Ok(())
    }

    /// The peer read too slowly, and the namespace of this channel lets publications be dropped
    /// then: some were. Called once the peer has caught up; what is published from now on reaches
    /// it again.
    fn missed(
        &mut self,
        peer: &mut Peer<'_>,
        state: &mut Self::State,
        channel: &Channel,
    ) -> Result<(), Failure> {
        let _ = (peer, state, channel);
        Ok(())
    }

    /// There is room for publications again: see [`Peer::wait_for_room`].
    fn room(&mut self, peer: &mut Peer<'_>, state: &mut Self::State) -> Result<(), Failure> {
        let _ = (peer, state);
        Ok(())
    }

    /// Makes the frame that subscribers get, in the dialect that they speak; `None` where it has
    /// none for this. Called once for each publication, dialect and reactor, however many
    /// subscribers there are. The default gives the payload of messages as it was published.
    ///
    /// `channel` is what they are subscribed to: for a pattern, that. It is empty for what goes to
    /// everybody, and begins with [`RESERVED`] for what goes to one user or
    /// connection.
    fn encode(
        &mut self,
        publication: &Publication,
        channel: &str,
        dialect: usize,
    ) -> Option<Frame> {
        let _ = (channel, dialect);
        let is_message = matches!(publication.kind, Kind::Message);
        is_message.then(|| Frame::new(publication.message()))
    }

    /// Whether a connection is to get what is sent to it, to its user or to everybody without a
    /// channel. Not before it has said who it is, where a dialect asks for that first.
    fn hears(&self, state: &Self::State) -> bool {
        let _ = state;
        true
    }

    /// With what code and reason a dialect says that the server ends a connection by itself;
    /// `None`: as RFC 6455 has it.
    fn farewell(&self, dialect: usize, ending: Ending) -> Option<(CloseCode, &'static str)> {
        let _ = (dialect, ending);
        None
    }

    /// The connection ended: called once for each [`Handler::open`], with the code that ended it.
    /// 1006 when no Close was exchanged, 1005 when the peer's Close had no code.
    fn close(&mut self, id: ConnId, state: Self::State, code: CloseCode, reason: &str) {
        let _ = (id, state, code, reason);
    }

    /// Answers a plain HTTP request; `body` is complete. The default answers 404.
    ///
    /// With [`Answer::Later`] the connection waits, and what `caller` asked of channels' homes
    /// comes to [`Handler::answered`].
    fn request(&mut self, caller: &mut Caller<'_>, incoming: &Incoming<'_>, body: &[u8]) -> Answer {
        let _ = (caller, incoming, body);
        Answer::Now(Refusal::from(Reason::UnknownPath).response())
    }

    /// Something that a waiting request has asked for is there. `None`: it goes on waiting.
    fn answered(&mut self, caller: &mut Caller<'_>, heard: Heard) -> Option<Response> {
        let _ = (caller, heard);
        None
    }

    /// The connection of a waiting request is gone, or has waited as long as one may for a
    /// handshake, and got a 503.
    fn abandoned(&mut self, id: ConnId) {
        let _ = id;
    }

    /// Which of [`Handler::DIALECTS`] a connection speaks; it is counted under it, and asked once
    /// it is open.
    fn dialect(&self, state: &Self::State) -> usize {
        let _ = state;
        0
    }
}

/// Names a connection for as long as the server runs: no two connections share an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    reactor: u16,
    key: Key,
}

impl ConnId {
    pub(crate) fn new(reactor: u16, key: Key) -> Self {
        Self { reactor, key }
    }

    pub(crate) fn key(self) -> Key {
        self.key
    }
}

impl Address for ConnId {
    fn reactor(&self) -> u16 {
        self.reactor
    }

    fn slot(&self) -> u32 {
        self.key.slot
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}-{}-{}",
            self.reactor, self.key.slot, self.key.generation
        )
    }
}

/// What was published to a channel.
pub type Publication = hub::Publication<ConnId>;

/// What the home of a channel answers.
pub type Reply = hub::Reply<ConnId>;

/// What a reply says.
pub type ReplyKind = hub::Answer<ConnId>;

/// What a server tells connections to do.
pub type Command = hub::Command<ConnId>;

/// Somebody who is subscribed to a channel, as others may see it.
pub type Member = hub::Member<ConnId>;

/// A wish to be subscribed: [`Peer::subscribe_with`].
pub type Subscribe<'a> = hub::Subscribe<'a, ConnId>;

/// A wish to publish: [`Peer::publish_with`].
pub type Publish<'a> = hub::Publish<'a, ConnId>;

impl Publication {
    /// The payload as the message that it was published as.
    pub fn message(&self) -> Message<'_> {
        match &self.payload {
            Payload::Text(text) | Payload::Json(text) => Message::Text(text.as_str()),
            Payload::Binary(bytes) => Message::Binary(bytes),
        }
    }
}

impl From<Message<'_>> for Payload {
    fn from(message: Message<'_>) -> Self {
        match message {
            Message::Text(text) => Self::Text(text.into()),
            Message::Binary(bytes) => Self::Binary(Bytes::copy_from_slice(bytes)),
        }
    }
}

/// A control frame that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control<'a> {
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    Close(CloseCode, &'a str),
}

/// An error of the application: closes the connection with 1011 (RFC 6455, 7.4.1). The text goes
/// to the log, not to the peer.
#[derive(Debug)]
pub struct Failure(String);

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

impl Failure {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

/// Why the server ends a connection by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// The server goes away.
    Shutdown,
    /// The token that the connection came by has expired.
    TokenExpired,
    /// It was revoked.
    TokenRevoked,
}

/// What the home of a channel must know of the channel's namespace. Nothing is kept where there is
/// no such namespace.
pub(crate) fn options_of(namespaces: &Namespaces, channel: &str) -> Options {
    let Some(namespace) = namespaces.of(channel) else {
        return Options::default();
    };
    let ttl_ticks = namespace.history_ttl.as_millis() / u128::from(TICK_MS);
    Options {
        history_size: namespace.history_size,
        history_ttl: hub::Tick::try_from(ttl_ticks).unwrap_or(hub::Tick::MAX / 4),
        presence: namespaces.keeps_presence(channel),
        join_leave: namespace.join_leave,
        wildcards: namespace.allow_wildcards,
        drops_slow: namespace.slow_policy == SlowPolicy::Drop,
    }
}

/// The channel of everything that is addressed to one user.
pub(crate) fn user_channel(user: &str) -> String {
    format!("{}u{user}", hub::RESERVED)
}
