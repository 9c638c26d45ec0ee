//! What comes before a connection is a peer: a request, the door it asks at, and what becomes of
//! it.

use std::net::SocketAddr;

use super::{
    Claims, ConnId, KeyCheck, Namespaces, OriginList, Refusal, Request, Response, Revocation,
    RevocationsFull,
};
use crate::{
    connection::{Flags, Link, Visitors},
    sys,
    transport::tls,
};

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

    /// What the namespaces say: who may do what, and what is kept.
    pub fn namespaces(&self) -> &Namespaces {
        &self.visitors.gate().namespaces
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
    pub(crate) token: TokenDoor,
}

/// Whether a token is looked for in the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenDoor {
    /// As `TIDEMILL_TOKEN_REQUIRED` says.
    Asked,
    /// One that is there must be good.
    Welcome,
    Ignored,
}

impl Default for Door {
    fn default() -> Self {
        Self {
            origins: Some(OriginList::Default),
            token: TokenDoor::Asked,
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

    /// No token is looked for in the request: for what everybody may see.
    pub fn without_token(mut self) -> Self {
        self.token = TokenDoor::Ignored;
        self
    }

    /// A token in the request must be good, but it may as well come in a message
    /// ([`Peer::authenticate`](super::Peer::authenticate)): the handler sees to it.
    pub fn token_may_follow(mut self) -> Self {
        self.token = TokenDoor::Welcome;
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
