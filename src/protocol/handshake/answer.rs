//! The answer to an opening handshake: the checks of RFC 6455, 4.1, and what is kept of a refusal.

use tungstenite::handshake::derive_accept_key;

use crate::protocol::http::{Body, BodyKind, Headers, Limits, Reason, Refusal, members};

/// Why a handshake did not give a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The handshake asked for could not be written as a request.
    #[error("cannot ask for this: {0}")]
    Invalid(&'static str),
    /// The server answered, but not with 101.
    #[error("the server answered {status}: {}", body.lines().next().unwrap_or_default())]
    Status {
        /// Its status code.
        status: u16,
        /// How its body begins, at most 1 KiB, as text.
        body: String,
    },
    /// What came is no HTTP answer.
    #[error("malformed answer: {0}")]
    Malformed(&'static str),
    /// The head of the answer is over 16 KiB or 100 headers.
    #[error("the head of the answer is too large")]
    HeadTooLarge,
    /// 101 without `Upgrade: websocket` (RFC 6455, 4.1, item 2 of the checks).
    #[error("the answer lacks Upgrade: websocket")]
    MissingUpgrade,
    /// 101 without `Connection: Upgrade` (item 3).
    #[error("the answer lacks Connection: Upgrade")]
    MissingConnection,
    /// `Sec-WebSocket-Accept` is missing or does not fit the key (item 4).
    #[error("Sec-WebSocket-Accept does not fit the key")]
    WrongAccept,
    /// An extension that was not offered (item 5).
    #[error("the server chose an extension that was not offered: {0}")]
    UnexpectedExtension(String),
    /// A subprotocol that was not offered, or several (item 6).
    #[error("the server chose a subprotocol that was not offered: {0}")]
    UnexpectedProtocol(String),
    /// The connection ended before the answer did.
    #[error("the connection ended before the answer")]
    Ended,
}

/// What was asked for, which an answer has to fit.
#[derive(Debug)]
pub(super) struct Offer {
    /// As sent: in base64.
    pub(super) key: String,
    pub(super) protocols: Vec<String>,
    pub(super) extensions: Option<String>,
}

/// The head of an answer, found in order as HTTP.
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    headers: Headers<'a>,
}

impl<'a> Answer<'a> {
    pub(super) fn parse(head: &'a [u8]) -> Result<Answer<'a>, HandshakeError> {
        let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Response::new(&mut lines);
        match parsed.parse(head) {
            Ok(httparse::Status::Complete(length)) if length == head.len() => {}
            Ok(_) => return Err(HandshakeError::Malformed(NOT_HTTP)),
            Err(httparse::Error::TooManyHeaders) => return Err(HandshakeError::HeadTooLarge),
            Err(_) => return Err(HandshakeError::Malformed(NOT_HTTP)),
        }
        match (parsed.code, parsed.version) {
            // RFC 9110, 7.8: only HTTP/1.1 can switch protocols.
            (Some(101), Some(0)) | (None, _) => Err(HandshakeError::Malformed(NOT_HTTP)),
            (Some(status), _) => Ok(Answer {
                status,
                headers: Headers::of_head(head),
            }),
        }
    }

    /// RFC 6455, 4.1: what a client checks in a 101, in its order. Gives the subprotocol and the
    /// extensions that were agreed on.
    pub(super) fn agreement(
        &self,
        asked: &Offer,
    ) -> Result<(Option<String>, Option<String>), HandshakeError> {
        if !self.lists("Upgrade", "websocket") {
            return Err(HandshakeError::MissingUpgrade);
        }
        if !self.lists("Connection", "upgrade") {
            return Err(HandshakeError::MissingConnection);
        }
        let mut accepts = self.headers.named("Sec-WebSocket-Accept");
        if accepts.next() != Some(&derive_accept_key(asked.key.as_bytes()))
            || accepts.next().is_some()
        {
            return Err(HandshakeError::WrongAccept);
        }
        Ok((self.protocol(asked)?, self.extensions(asked)?))
    }

    fn extensions(&self, asked: &Offer) -> Result<Option<String>, HandshakeError> {
        let chosen: Vec<&str> = self.headers.named("Sec-WebSocket-Extensions").collect();
        let offered = asked.extensions.as_deref().unwrap_or_default();
        for name in chosen.iter().flat_map(|list| extension_names(list)) {
            if !extension_names(offered).any(|offer| offer == name) {
                let name = String::from_utf8_lossy(name).into_owned();
                return Err(HandshakeError::UnexpectedExtension(name));
            }
        }
        Ok((!chosen.is_empty()).then(|| chosen.join(", ")))
    }

    fn protocol(&self, asked: &Offer) -> Result<Option<String>, HandshakeError> {
        let chosen: Vec<&str> = self.headers.named("Sec-WebSocket-Protocol").collect();
        match chosen[..] {
            [] => Ok(None),
            [protocol] if asked.protocols.iter().any(|offer| offer == protocol) => {
                Ok(Some(protocol.to_owned()))
            }
            _ => Err(HandshakeError::UnexpectedProtocol(chosen.join(", "))),
        }
    }

    /// Whether a header of this name lists this member, in any case.
    fn lists(&self, name: &str, member: &str) -> bool {
        self.headers
            .named(name)
            .flat_map(|list| members(list.as_bytes()))
            .any(|listed| listed.eq_ignore_ascii_case(member.as_bytes()))
    }
}

/// An answer other than 101 whose body is still coming.
#[derive(Debug)]
pub(super) struct Refused {
    status: u16,
    body: Body,
}

impl Refused {
    pub(super) fn new(answer: &Answer<'_>) -> Result<Refused, HandshakeError> {
        let length = answer
            .headers
            .first("Content-Length")
            .and_then(|length| length.parse().ok());
        let kind = if answer.lists("Transfer-Encoding", "chunked") {
            BodyKind::Chunked
        } else {
            // RFC 9112, 6.3: without a length the body ends with the connection.
            BodyKind::Length(length.unwrap_or(u64::MAX).min(BODY_START_BYTES_MAX as u64))
        };
        Ok(Refused {
            status: answer.status,
            body: Body::new(kind, &LIMITS)?,
        })
    }

    /// Takes more of the body: an error, the report, as soon as nothing more is kept.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> Result<(), HandshakeError> {
        for piece in bytes.chunks(BODY_START_BYTES_MAX) {
            if self.is_enough() {
                break;
            }
            self.body.receive(piece).map_err(|_| self.report())?;
        }
        if self.is_enough() {
            Err(self.report())
        } else {
            Ok(())
        }
    }

    fn is_enough(&self) -> bool {
        self.body.is_complete() || self.body.as_bytes().len() >= BODY_START_BYTES_MAX
    }

    pub(super) fn report(&self) -> HandshakeError {
        let kept = self.body.as_bytes().len().min(BODY_START_BYTES_MAX);
        // The text may end up on a terminal, which would obey escape sequences.
        let body = String::from_utf8_lossy(&self.body.as_bytes()[..kept]).replace(
            |c: char| c.is_control() && !c.is_ascii_whitespace(),
            "\u{fffd}",
        );
        HandshakeError::Status {
            status: self.status,
            body,
        }
    }
}

impl From<Refusal> for HandshakeError {
    fn from(refusal: Refusal) -> HandshakeError {
        match refusal.reason() {
            Reason::HeadersTooLarge => HandshakeError::HeadTooLarge,
            reason => HandshakeError::Malformed(reason.expected()),
        }
    }
}

/// Largest head of an answer: none is asked to carry more.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How much of the body of a refusal is kept, in bytes.
const BODY_START_BYTES_MAX: usize = 1024;
/// Most header lines of an answer.
const HEADERS_MAX: usize = 100;

pub(super) const LIMITS: Limits = Limits {
    header_bytes_max: HEAD_BYTES_MAX,
    target_bytes_max: 0,
    // What is kept of a body is bounded by `Refused`, which stops when it has enough.
    body_bytes_max: u64::MAX,
};

const NOT_HTTP: &str = "expected an HTTP/1.1 response";

/// The names in a `Sec-WebSocket-Extensions` value, without their parameters. A comma cannot hide
/// in one: RFC 6455, 9.1 wants even a quoted value to be a token.
fn extension_names(list: &str) -> impl Iterator<Item = &[u8]> {
    members(list.as_bytes()).map(|extension| {
        extension
            .split(|byte| *byte == b';')
            .next()
            .unwrap_or_default()
            .trim_ascii()
    })
}
