//! The seam between the server and an application: [`Handler`], and [`Peer`], through which a
//! handler acts.
//!
//! Each reactor has a handler of its own, so a handler needs no lock. It is called with one
//! connection at a time and changes only that one; others are reached by publishing. Nothing
//! re-enters: what a call sends leaves after it has returned.

use std::{error::Error, fmt, net::SocketAddr};

use bytes::Bytes;

pub use crate::{
    connection::Identity,
    gate::{
        KeyCheck, OriginList,
        token::{Claims, Revocation, RevocationsFull, TokenError},
    },
    hub::{Channel, Payload, PublishError, Reply, SubscribeError},
    protocol::{
        CloseCode, Frame, Message,
        http::{Headers, Reason, Refusal, Request, Response, Upgrade},
    },
};
use crate::{
    connection::{Cork, Flags, Link, Stage, Visitors},
    hub::{self, Address, Share},
    metrics::Block,
    protocol::{frame::Control as ControlCode, session::State},
    slots::Key,
    sys,
    transport::tls,
    wheel::{TICK_MS, Tick},
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

    /// The home of a channel has answered [`Peer::subscribe`] or [`Peer::publish`]; whoever was
    /// suspended for it is read again.
    fn reply(
        &mut self,
        peer: &mut Peer<'_>,
        state: &mut Self::State,
        reply: Reply,
    ) -> Result<(), Failure> {
        let _ = (peer, state, reply);
        Ok(())
    }

    /// Makes the frame that subscribers get, in the dialect that they speak. Called once for each
    /// publication, dialect and reactor, however many subscribers there are. The default gives the
    /// payload as it was published.
    fn encode(&mut self, publication: &Publication, dialect: usize) -> Frame {
        let _ = dialect;
        Frame::new(publication.message())
    }

    /// The connection ended: called once for each [`Handler::open`], with the code that ended it.
    /// 1006 when no Close was exchanged, 1005 when the peer's Close had no code.
    fn close(&mut self, id: ConnId, state: Self::State, code: CloseCode, reason: &str) {
        let _ = (id, state, code, reason);
    }

    /// Answers a plain HTTP request; `body` is complete. The default answers 404.
    fn request(&mut self, incoming: &Incoming<'_>, body: &[u8]) -> Response {
        let _ = (incoming, body);
        Refusal::from(Reason::UnknownPath).response()
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

impl Publication {
    /// The payload as the message that it was published as.
    pub fn message(&self) -> Message<'_> {
        match &self.payload {
            Payload::Text(text) => Message::Text(text.as_str()),
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

/// A request and where it came from.
#[derive(Debug)]
pub struct Incoming<'a> {
    /// The connection that it came on.
    pub id: ConnId,
    pub request: &'a Request<'a>,
    pub(crate) link: &'a Link,
    pub(crate) visitors: &'a Visitors,
    pub(crate) claims: Option<&'a Claims>,
}

impl Incoming<'_> {
    /// Whether it came in by the admin listener.
    pub fn is_admin(&self) -> bool {
        self.link.flags.has(Flags::ADMIN)
    }

    /// Whether the server is shutting down, or holds all connections that it may.
    pub fn is_unavailable(&self) -> bool {
        let gate = self.visitors.gate();
        gate.is_draining() || gate.is_full()
    }

    /// The address of the client: the peer's, or what a trusted proxy says, with port 0 where it
    /// named none. A system call; `None` when the peer has reset the connection meanwhile.
    pub fn remote(&self) -> Option<SocketAddr> {
        let named = self.visitors.remote(self.id.key().slot);
        named.or_else(|| self.link.transport.remote().ok())
    }

    /// Whether it came from this machine, and on nobody else's behalf.
    pub fn is_local(&self) -> bool {
        let remote = self.link.transport.remote();
        let is_here = remote.is_ok_and(|remote| remote.ip().to_canonical().is_loopback());
        let named = self.visitors.remote(self.id.key().slot);
        is_here && !is_relayed(self.request) && named.is_none()
    }

    /// What the token says that it came with: the right signature, not expired, not revoked.
    /// `None` when it has none, which the door then allowed.
    pub fn claims(&self) -> Option<&Claims> {
        self.claims
    }

    /// Compares the `X-API-Key` header with `TIDEMILL_API_KEY`.
    pub fn api_key(&self) -> KeyCheck {
        let shown = self.request.header("X-API-Key");
        self.visitors.gate().policy().check_api_key(shown)
    }

    /// Refuses tokens from now on, and closes the connections that came by them with 1008.
    ///
    /// # Errors
    /// When there is no room to remember one more.
    pub fn revoke(&self, revocation: Revocation) -> Result<(), RevocationsFull> {
        let gate = self.visitors.gate();
        gate.revoke(revocation, sys::unix_seconds())
    }

    /// Whether it came over TLS.
    pub fn is_secure(&self) -> bool {
        self.link.transport.tls().is_some()
    }

    /// The certificate that the client has shown and that `TIDEMILL_TLS_CLIENT_CA` vouches for, as
    /// DER (RFC 5280). `None` when it was not asked for one, or had none and needed none.
    pub fn client_certificate(&self) -> Option<&[u8]> {
        self.link.transport.tls()?.peer_certificate()
    }

    /// The subject of that certificate, such as `O=Example, CN=device-17`.
    pub fn client_subject(&self) -> Option<String> {
        tls::subject(self.client_certificate()?)
    }
}

/// Whether a proxy says that it passes a request on.
pub(crate) fn is_relayed(request: &Request<'_>) -> bool {
    let headers = ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"];
    headers.iter().any(|name| request.header(name).is_some())
}

/// What is asked of newcomers to one path, built by value: `Door::default().any_origin()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Door {
    /// The list of origins that may; `None`: all.
    pub(crate) origins: Option<OriginList>,
    /// Whether a token is looked for.
    pub(crate) takes_token: bool,
}

impl Default for Door {
    fn default() -> Self {
        Self {
            origins: Some(OriginList::Default),
            takes_token: true,
        }
    }
}

impl Door {
    /// Pages of the origins in this list may connect.
    pub fn origins(mut self, list: OriginList) -> Self {
        self.origins = Some(list);
        self
    }

    /// Pages of any origin may connect: for what everybody may see, or what is guarded by something
    /// that a browser does not send by itself. A token in a cookie does not count then.
    pub fn any_origin(mut self) -> Self {
        self.origins = None;
        self
    }

    /// No token is looked for in the request: for what everybody may see, or where it comes in the
    /// first message ([`Peer::authenticate`]).
    pub fn without_token(mut self) -> Self {
        self.takes_token = false;
        self
    }
}

/// What becomes of an upgrade request.
#[derive(Debug)]
pub enum Verdict<S> {
    Accept(Accept<S>),
    /// The refusal is sent, and the connection ends.
    Refuse(Refusal),
    /// As `Refuse`, with an answer of the application's own making.
    Answer(Response),
}

/// An upgrade that is granted, built by value: `Accept::new(state).protocol("chat")`.
#[derive(Debug)]
pub struct Accept<S> {
    pub(crate) state: S,
    pub(crate) protocol: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) text_only: bool,
}

impl<S> Accept<S> {
    pub fn new(state: S) -> Self {
        Self {
            state,
            protocol: None,
            headers: Vec::new(),
            text_only: false,
        }
    }

    /// The subprotocol that was chosen from those offered (RFC 6455, 4.2.2).
    pub fn protocol(mut self, protocol: impl Into<String>) -> Self {
        self.protocol = Some(protocol.into());
        self
    }

    /// Adds a header to the 101.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Refuses binary messages with 1003.
    pub fn text_only(mut self) -> Self {
        self.text_only = true;
        self
    }
}

impl<S> From<Accept<S>> for Verdict<S> {
    fn from(accept: Accept<S>) -> Self {
        Self::Accept(accept)
    }
}

impl<S> From<Refusal> for Verdict<S> {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
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

/// A connection as an application sees it, for the time of one call.
#[derive(Debug)]
pub struct Peer<'a> {
    pub(crate) id: ConnId,
    pub(crate) link: &'a mut Link,
    pub(crate) cork: &'a mut Cork,
    pub(crate) hub: &'a mut Share<ConnId>,
    pub(crate) visitors: &'a mut Visitors,
    pub(crate) block: &'a Block,
    pub(crate) now: Tick,
}

impl Peer<'_> {
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// The address of the client, as [`Incoming::remote`] gives it. A system call; `None` once the
    /// peer has reset the connection.
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
        let slot = self.id.key().slot;
        self.visitors.identify(slot, &claims, time, self.now);
        self.link.flags.set(Flags::REARM);
        Ok(claims)
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
    /// The answer comes by [`Handler::control`].
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

    /// Asks for [`Handler::deadline`] after this time, or up to two tenths of a second later;
    /// replaces the deadline that was set before.
    pub fn deadline(&mut self, after: std::time::Duration) {
        let ticks = after.as_millis().div_ceil(u128::from(TICK_MS));
        let ticks = Tick::try_from(ticks).unwrap_or(Tick::MAX / 2).max(1);
        self.link.deadline = self.now.saturating_add(ticks + 1);
        self.link.flags.set(Flags::REARM);
    }

    /// Subscribes to a channel. [`Handler::reply`] gets the answer of the channel's home; from then
    /// on the peer gets what is published, until it unsubscribes or its connection ends.
    ///
    /// # Errors
    /// When the name is empty or over 200 bytes, the connection is subscribed already, or has 128
    /// subscriptions. One that was given up before it was answered counts until it is.
    pub fn subscribe(&mut self, channel: &str) -> Result<(), SubscribeError> {
        self.hub.subscribe(self.id, channel)
    }

    /// Ends a subscription: nothing more of the channel is sent to the peer, nor is a subscription
    /// answered that was not yet. `false` when there was none.
    pub fn unsubscribe(&mut self, channel: &str) -> bool {
        self.hub.unsubscribe(self.id, channel)
    }

    /// Publishes a message to all who are subscribed to a channel; to this peer as well if it is.
    /// [`Handler::reply`] gets the answer of the channel's home: the publication's offset, or that
    /// it was refused. What one connection publishes to one channel keeps its order.
    ///
    /// # Errors
    /// When the name is empty or over 200 bytes, or so much waits to be published that
    /// `TIDEMILL_MAX_MAIL_BYTES` is reached.
    pub fn publish(&mut self, channel: &str, message: Message<'_>) -> Result<(), PublishError> {
        let dialect = self.link.dialect;
        self.hub
            .publish(self.id, dialect, channel, || message.into())
    }

    /// Stops reading from this connection until the next answer of a channel's home: call it after
    /// [`Peer::subscribe`] or [`Peer::publish`], before [`Handler::reply`], or end it with
    /// [`Peer::resume`]. What the peer sends meanwhile stays where it is: nothing is lost.
    pub fn suspend(&mut self) {
        self.link.flags.set(Flags::SUSPENDED);
    }

    /// Goes on reading after [`Peer::suspend`], without an answer.
    pub fn resume(&mut self) {
        self.link.resume();
    }
}
