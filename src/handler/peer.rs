//! [`Peer`]: a connection as an application sees it.

use std::net::SocketAddr;

use super::{
    Channel, Claims, ClientId, CloseCode, Command, ConnId, Identity, Message, Namespaces, Options,
    Publish, PublishError, Question, Subscribe, SubscribeError, TokenError, options_of,
    user_channel,
};
use crate::{
    connection::{Cork, Flags, Held, Link, Stage, Visitors},
    hub::{Share, is_reserved},
    metrics::Block,
    protocol::{frame::Control as ControlCode, session::State},
    sys,
    wheel::{TICK_MS, Tick},
};

/// A connection as an application sees it, for the time of one call.
#[derive(Debug)]
pub struct Peer<'a> {
    pub(crate) id: ConnId,
    pub(crate) link: &'a mut Link,
    pub(crate) cork: &'a mut Cork,
    pub(crate) hub: &'a mut Share<ConnId>,
    pub(crate) visitors: &'a mut Visitors,
    pub(crate) held: &'a mut Held,
    pub(crate) block: &'a Block,
    pub(crate) now: Tick,
}

impl Peer<'_> {
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// The name of the connection outside of the process.
    pub fn client_id(&self) -> ClientId {
        self.id.client_id()
    }

    /// The address of the client, as [`Incoming::remote`](super::Incoming::remote) gives it. A
    /// system call; `None` once the peer has reset the connection.
    pub fn remote(&self) -> Option<SocketAddr> {
        let named = self.visitors.remote(self.id.key().slot);
        named.or_else(|| self.link.transport.remote().ok())
    }

    /// Who the connection belongs to, if it came by a token or has shown one since.
    pub fn identity(&self) -> Option<Identity<'_>> {
        self.visitors.identity(self.id.key().slot)
    }

    /// Takes a token that came in a message: the first one of the connection, or a new one before
    /// the old one expires. From now on the connection belongs to whom it names, and is closed when
    /// it expires.
    ///
    /// # Errors
    /// When the token is not good; the connection stays what it was.
    pub fn authenticate(&mut self, token: &str) -> Result<Claims, TokenError> {
        let time = sys::unix_seconds();
        let claims = self.visitors.gate().tokens.verify(token, time)?;
        let claims = claims.for_connection()?;
        let slot = self.id.key().slot;
        let before = self.identity().and_then(|identity| identity.subject);
        if before != claims.subject.as_deref()
            && let Some(user) = before.map(user_channel)
        {
            self.hub.unsubscribe(self.id, &user);
        }
        self.visitors.identify(slot, &claims, time, self.now);
        listen_for_user(self.hub, self.id, &claims);
        self.link.flags.set(Flags::REARM);
        Ok(claims)
    }

    /// Lets the connection end by its token's expiry at this second since 1970, or never: for what
    /// says so beside the token.
    pub fn expire_at(&mut self, seconds: Option<i64>) {
        let slot = self.id.key().slot;
        self.visitors
            .set_expiry(slot, seconds, sys::unix_seconds(), self.now);
        self.link.flags.set(Flags::REARM);
    }

    /// What a token says that is not the connection's own, such as one for a channel.
    ///
    /// # Errors
    /// When the token is not good.
    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        let gate = self.visitors.gate();
        gate.tokens.verify(token, sys::unix_seconds())
    }

    /// Whether `TIDEMILL_TOKEN_REQUIRED` holds: for what lets the token come in a message.
    pub fn requires_token(&self) -> bool {
        self.visitors.gate().policy().token_is_required()
    }

    /// Bytes that wait for this peer: it reads slower than it is sent to.
    pub fn buffered_bytes(&self) -> usize {
        self.link.waiting_bytes() + self.cork.len()
    }

    /// Whether what is sent still reaches the peer: no Close was sent or received.
    #[inline]
    pub fn is_open(&self) -> bool {
        matches!(&self.link.stage, Stage::Open(session) if session.state() == State::Open)
    }

    /// Sends a message. Never blocks: what the socket does not take waits, and a peer that lets
    /// too much wait is closed. After a Close, nothing is sent.
    #[inline]
    pub fn send(&mut self, message: Message<'_>) {
        if self.is_open() {
            self.cork.message(message);
            self.block.messages_sent.add(1);
        }
    }

    /// Sends a text message.
    #[inline]
    pub fn send_text(&mut self, text: &str) {
        self.send(Message::Text(text));
    }

    /// Sends a binary message.
    #[inline]
    pub fn send_binary(&mut self, bytes: &[u8]) {
        self.send(Message::Binary(bytes));
    }

    /// Sends a Ping with at most 125 bytes of payload (RFC 6455, 5.5.2); what is beyond is cut.
    /// The answer comes by [`Handler::control`](super::Handler::control).
    pub fn ping(&mut self, payload: &[u8]) {
        if self.is_open() {
            self.cork
                .control(ControlCode::Ping, &payload[..payload.len().min(125)]);
        }
    }

    /// Begins the close handshake (RFC 6455, 7.1.2). Messages that come after this call are
    /// dropped. A code that may not be sent becomes 1011, a reason over 123 bytes is cut.
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        if let Stage::Open(session) = &mut self.link.stage
            && session.state() == State::Open
            && session.close()
        {
            let code = if code.is_allowed() {
                code
            } else {
                CloseCode::Error
            };
            self.cork.close(code, reason);
            self.link.since = self.now;
            self.link.flags.set(Flags::REARM);
        }
    }

    /// Does what every dialect can of what a server asks: closes for `Disconnect`, unsubscribes for
    /// `Unsubscribe`, and leaves the others alone.
    pub fn obey(&mut self, command: &Command) {
        match command {
            Command::Disconnect {
                code,
                reason,
                except,
            } if !except.contains(&self.id) => self.close((*code).into(), reason),
            Command::Unsubscribe { channel } => drop(self.unsubscribe(channel)),
            _ => {}
        }
    }

    /// Asks for [`Handler::deadline`](super::Handler::deadline) after this time, or up to two
    /// tenths of a second later; replaces the deadline that was set before.
    pub fn deadline(&mut self, after: std::time::Duration) {
        let ticks = after.as_millis().div_ceil(u128::from(TICK_MS));
        let ticks = Tick::try_from(ticks).unwrap_or(Tick::MAX / 2).max(1);
        self.link.deadline = self.now.saturating_add(ticks + 1);
        self.link.flags.set(Flags::REARM);
    }

    /// What the namespaces say: who may do what, and what is kept.
    pub fn namespaces(&self) -> &Namespaces {
        &self.visitors.gate().namespaces
    }

    /// What the namespace of a channel says; nothing is kept where there is no such namespace.
    pub fn options(&self, channel: &str) -> Options {
        options_of(self.namespaces(), channel)
    }

    /// Subscribes to a channel. [`Handler::reply`](super::Handler::reply) gets the answer of the
    /// channel's home; from then on the peer gets what is published, until it unsubscribes or its
    /// connection ends.
    ///
    /// # Errors
    /// When the name is empty or longer than `TIDEMILL_MAX_CHANNEL_NAME`, the connection is
    /// subscribed already, or has `TIDEMILL_MAX_SUBSCRIPTIONS`. One that was given up before it was
    /// answered counts until it is.
    pub fn subscribe(&mut self, channel: &str) -> Result<(), SubscribeError> {
        let options = self.options(channel);
        self.subscribe_with(Subscribe::new(channel, options))
    }

    /// As [`Peer::subscribe`], with all that can be wished for.
    ///
    /// # Errors
    /// As [`Peer::subscribe`].
    pub fn subscribe_with(&mut self, subscribe: Subscribe<'_>) -> Result<(), SubscribeError> {
        if is_reserved(subscribe.channel) {
            return Err(SubscribeError::Name);
        }
        self.hub.subscribe(self.id, subscribe)
    }

    /// Ends a subscription: nothing more of the channel is sent to the peer, nor is a subscription
    /// answered that was not yet. `false` when there was none.
    pub fn unsubscribe(&mut self, channel: &str) -> bool {
        // What is addressed to its user is not the peer's to give up.
        !is_reserved(channel) && self.hub.unsubscribe(self.id, channel)
    }

    /// Whether the peer is subscribed to a channel, or has asked to be.
    pub fn is_subscribed(&self, channel: &str) -> bool {
        !is_reserved(channel) && self.hub.is_subscribed(self.id.key().slot, channel)
    }

    /// The channels that the peer is subscribed to or has asked for, each with the mark that it was
    /// subscribed with.
    pub fn subscriptions(&self) -> impl Iterator<Item = (&Channel, u8)> {
        self.hub.subscriptions(self.id.key().slot)
    }

    /// Publishes a message to all who are subscribed to a channel; to this peer as well if it is.
    /// [`Handler::reply`](super::Handler::reply) gets the answer of the channel's home: the
    /// publication's place, or that it was refused. What one connection publishes to one channel
    /// keeps its order.
    ///
    /// # Errors
    /// When the name is empty or too long, or so much waits to be published that
    /// `TIDEMILL_MAX_MAIL_BYTES` is reached.
    pub fn publish(&mut self, channel: &str, message: Message<'_>) -> Result<(), PublishError> {
        let options = self.options(channel);
        self.publish_with(Publish::new(channel, options, message.into()))
    }

    /// As [`Peer::publish`], with all that can be said of a publication. The peer is its publisher
    /// and gets the answer.
    ///
    /// # Errors
    /// As [`Peer::publish`].
    pub fn publish_with(&mut self, publish: Publish<'_>) -> Result<(), PublishError> {
        if is_reserved(publish.channel) {
            return Err(PublishError::Name);
        }
        self.hub.publish(Publish {
            publisher: Some(self.id),
            asker: Some(self.id),
            dialect: self.link.dialect,
            ..publish
        })
    }

    /// Asks the home of a channel; how many answers will come to
    /// [`Handler::reply`](super::Handler::reply), with this tag.
    pub fn ask(&mut self, tag: u32, channel: &str, question: Question) -> u16 {
        self.hub.ask(self.id, tag, channel, question)
    }

    /// Stops reading from this connection until there is room for what it wants to publish to a
    /// channel: call it after `PublishError::Busy`. [`Handler::room`](super::Handler::room)
    /// follows.
    pub fn wait_for_room(&mut self, channel: &str) {
        self.hub.wait_for_room(self.id, channel);
        self.suspend();
    }

    /// Lets what is published wait until [`Peer::release`]: for a peer that must first be told what
    /// it is subscribed to. More than the soft mark of an outbox does not wait; it ends the
    /// connection.
    pub fn hold(&mut self) {
        self.held.begin(self.id.key().slot);
    }

    /// Sends what waited since [`Peer::hold`], behind what was sent before this call.
    pub fn release(&mut self) {
        for frames in self.held.end(self.id.key().slot) {
            self.cork.raw().extend_from_slice(&frames);
        }
    }

    /// Stops reading from this connection until the next answer of a channel's home: call it after
    /// [`Peer::subscribe`] or [`Peer::publish`], before
    /// [`Handler::reply`](super::Handler::reply), or end it with [`Peer::resume`]. What the peer
    /// sends meanwhile stays where it is: nothing is lost.
    pub fn suspend(&mut self) {
        self.link.flags.set(Flags::SUSPENDED);
    }

    /// Goes on reading after [`Peer::suspend`], without an answer.
    pub fn resume(&mut self) {
        self.link.resume();
    }
}

/// Subscribes a connection to what is addressed to its user.
pub(crate) fn listen_for_user(hub: &mut Share<ConnId>, id: ConnId, claims: &Claims) {
    let Some(user) = &claims.subject else { return };
    let channel = user_channel(user);
    // It may be subscribed already; more than the memory for its name is not asked of a hub.
    let _ = hub.subscribe(id, Subscribe::new(&channel, Options::default()));
}
