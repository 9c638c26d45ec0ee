//! What a refusal leaves behind: a counter, and a line in the log that says who was refused, and
//! how to let them in. At most one line a second and reason.

use std::fmt;

use super::{Core, admission::Remote, throttle::PAUSE};
use crate::{
    connection::Connection,
    gate::redact,
    handler::{Handler, Reason, Refusal, Request},
    slots::Key,
};

/// A page that wanted to connect.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// The variable with the list that it is not in.
    pub variable: &'static str,
    pub origin: &'a str,
    pub host: &'a str,
}

impl<H: Handler> Core<H> {
    /// Turns away whoever made a request, and ends the connection politely.
    pub(super) fn turn_away(
        &mut self,
        refusal: Refusal,
        request: &Request<'_>,
        page: Option<Page<'_>>,
        key: Key,
        connection: &mut Connection<H::State>,
    ) {
        self.block.refused.add(refusal.reason() as usize);
        let remote = self.remote_of(key, &connection.link);
        self.note_refusal(refusal.reason(), &remote, Some(request), page);
        self.respond(&refusal.response(), false, false, key, connection);
    }

    /// As [`Core::turn_away`], of somebody whose request was not understood.
    pub(super) fn refuse(
        &mut self,
        refusal: Refusal,
        key: Key,
        connection: &mut Connection<H::State>,
    ) {
        self.block.refused.add(refusal.reason() as usize);
        let remote = self.remote_of(key, &connection.link);
        self.note_refusal(refusal.reason(), &remote, None, None);
        self.respond(&refusal.response(), false, false, key, connection);
    }

    /// Writes the line about a refusal, unless there was one about this reason just now.
    pub(super) fn note_refusal(
        &mut self,
        reason: Reason,
        remote: &Remote,
        request: Option<&Request<'_>>,
        page: Option<Page<'_>>,
    ) {
        let Some(untold) = self.gate.tells(reason as usize, self.now, PAUSE) else {
            return;
        };
        let remedy = Remedy { reason, page };
        // Somebody must act who has set a limit, or will have to; a garbled request is nobody's.
        let level = match remedy.is_known() {
            true => log::Level::Warn,
            false => log::Level::Info,
        };
        let (status, label) = (reason.status(), reason.as_str());
        let path = request.map_or_else(|| "-".to_owned(), shown);
        log::log!(
            level,
            "{}refused status={status} reason={label} remote={remote} path={path:?}{}{remedy}{}",
            if page.is_some() { "origin " } else { "" },
            Whence(page),
            Untold(untold)
        );
    }
}

impl<H: Handler> Core<H> {
    /// Writes the line about the server being full, unless there was one just now.
    pub(super) fn note_connection_cap(&mut self) {
        if self.throttles.connection_cap.allow(self.now) {
            log::warn!(
                "connection limit reached, refusing with 503 connections={} \
                 remedy=\"raise ulimit -n or TIDEMILL_MAX_CONNECTIONS\"",
                self.gate.connections_max()
            );
        }
    }
}

/// What a request asked for, without the secrets in it.
pub(super) fn shown(request: &Request<'_>) -> String {
    match request.query() {
        None => redact(request.path()).into_owned(),
        Some(query) => redact(&format!("{}?{query}", request.path())).into_owned(),
    }
}

/// Where a page came from and whom it asked.
struct Whence<'a>(Option<Page<'a>>);

impl fmt::Display for Whence<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(page) = self.0 else { return Ok(()) };
        let (origin, host) = (cut(page.origin), cut(page.host));
        write!(formatter, " origin={origin:?} host={host:?}")
    }
}

struct Untold(u32);

impl fmt::Display for Untold {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            untold => write!(formatter, " untold={untold}"),
        }
    }
}

/// What lets them in.
struct Remedy<'a> {
    reason: Reason,
    page: Option<Page<'a>>,
}

impl Remedy<'_> {
    fn is_known(&self) -> bool {
        self.text().is_some()
    }

    fn text(&self) -> Option<&'static str> {
        Some(match self.reason {
            Reason::Origin => "",
            Reason::TokenMissing => {
                "send a token: Authorization: Bearer, ?token= or the cookie TIDEMILL_TOKEN_COOKIE; \
                 or set TIDEMILL_TOKEN_REQUIRED=false"
            }
            Reason::TokenAlgorithm | Reason::TokenKey | Reason::TokenSignature => {
                "compare the issuer's key with TIDEMILL_TOKEN_SECRET, TIDEMILL_TOKEN_PUBLIC_KEY or \
                 TIDEMILL_TOKEN_JWKS_URL"
            }
            Reason::TokenExpired | Reason::TokenEarly => {
                "let the client renew its token; where clocks differ, raise TIDEMILL_TOKEN_LEEWAY"
            }
            Reason::TokenIssuer => "set TIDEMILL_TOKEN_ISSUER to the iss claim of your tokens",
            Reason::TokenAudience => "set TIDEMILL_TOKEN_AUDIENCE to the aud claim of your tokens",
            Reason::TokenMalformed => "send the token as its issuer made it",
            Reason::TokenRevoked => "issue a new token",
            Reason::TokenKeys => "let TIDEMILL_TOKEN_JWKS_URL answer with a key set",
            Reason::ApiKey => "send TIDEMILL_API_KEY in the header X-API-Key",
            Reason::ApiOff => "set TIDEMILL_API_KEY",
            Reason::AddressCap => {
                "raise TIDEMILL_MAX_CONNECTIONS_PER_IP; if this is a proxy, name it in \
                 TIDEMILL_TRUSTED_PROXIES"
            }
            Reason::ConnectRate => {
                "raise TIDEMILL_CONNECT_RATE_PER_IP; if this is a proxy, name it in \
                 TIDEMILL_TRUSTED_PROXIES"
            }
            Reason::HalfOpen => {
                "raise TIDEMILL_HALF_OPEN_PER_IP; if this is a proxy, name it in \
                 TIDEMILL_TRUSTED_PROXIES"
            }
            Reason::Forwarded => "let the proxy set or remove both headers",
            Reason::ProxyHeader => {
                "let this proxy send the PROXY protocol, or set TIDEMILL_PROXY_PROTOCOL=false"
            }
            Reason::ConnectionCap => "raise ulimit -n or TIDEMILL_MAX_CONNECTIONS",
            Reason::Buffers => "raise TIDEMILL_MAX_BUFFER_BYTES",
            Reason::Descriptors => "raise ulimit -n",
            Reason::Overload => "add cores or servers, or raise TIDEMILL_SHED_TURN",
            Reason::HeadersTooLarge | Reason::TargetTooLong => "raise TIDEMILL_MAX_HEADER_BYTES",
            Reason::BodyTooLarge => "raise TIDEMILL_MAX_BODY_BYTES",
            Reason::HandshakeTimeout => {
                "for honest peers raise TIDEMILL_HANDSHAKE_TIMEOUT, for others set \
                 TIDEMILL_HALF_OPEN_PER_IP"
            }
            _ => return None,
        })
    }
}

impl fmt::Display for Remedy<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.text(), self.page) {
            (None, _) => Ok(()),
            (Some(_), Some(page)) if self.reason == Reason::Origin => {
                let (variable, origin) = (page.variable, cut(page.origin));
                write!(
                    formatter,
                    " remedy=\"set {variable}={}\"",
                    origin.escape_debug()
                )
            }
            (Some(text), _) => write!(formatter, " remedy=\"{text}\""),
        }
    }
}

/// Enough of a header to recognise it by.
fn cut(text: &str) -> &str {
    const SHOWN_BYTES_MAX: usize = 128;
    &text[..text.floor_char_boundary(SHOWN_BYTES_MAX)]
}
