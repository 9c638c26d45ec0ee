//! The headers that decide what a request is: those that frame it, name its host or ask for a
//! WebSocket, gathered in one pass and judged together.

use super::{BodyKind, Reason, Refusal, Version, is_authority, members};

/// What one pass over the headers leaves: those that frame, route or upgrade.
#[derive(Default)]
pub(super) struct Seen<'a> {
    host: Field<'a>,
    length: Field<'a>,
    key: Field<'a>,
    websocket_version: Field<'a>,
    coding: Coding,
    names_websocket: bool,
    pub(super) expects_continue: bool,
    connection_close: bool,
    connection_keep_alive: bool,
    connection_upgrade: bool,
}

/// A header that may be sent once.
#[derive(Clone, Copy, Default)]
enum Field<'a> {
    #[default]
    Absent,
    Once(&'a [u8]),
    Repeated,
}

/// What all Transfer-Encoding headers together say.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Coding {
    #[default]
    Absent,
    Chunked,
    Malformed,
    Unknown,
}

impl<'a> Seen<'a> {
    pub(super) fn gather(headers: &[httparse::Header<'a>]) -> Seen<'a> {
        let mut seen = Seen::default();
        for httparse::Header { name, value } in headers {
            let is = |known: &str| name.eq_ignore_ascii_case(known);
            // Told apart by length first: most headers are none of these.
            match name.len() {
                4 if is("Host") => seen.host.meet(value),
                6 if is("Expect") => {
                    seen.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
                }
                7 if is("Upgrade") => {
                    seen.names_websocket |=
                        members(value).any(|member| member.eq_ignore_ascii_case(b"websocket"));
                }
                10 if is("Connection") => seen.connection(value),
                14 if is("Content-Length") => seen.length.meet(value),
                17 if is("Sec-WebSocket-Key") => seen.key.meet(value),
                17 if is("Transfer-Encoding") => seen.coding(value),
                21 if is("Sec-WebSocket-Version") => seen.websocket_version.meet(value),
                _ => {}
            }
        }
        seen
    }

    fn connection(&mut self, options: &[u8]) {
        for option in members(options) {
            self.connection_close |= option.eq_ignore_ascii_case(b"close");
            self.connection_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            self.connection_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
        }
    }

    fn coding(&mut self, list: &[u8]) {
        // A header without a member is malformed rather than absent: it must not hide a body.
        if members(list).next().is_none() && self.coding == Coding::Absent {
            self.coding = Coding::Malformed;
        }
        for member in members(list) {
            self.coding = match self.coding {
                _ if !member.eq_ignore_ascii_case(b"chunked") => Coding::Unknown,
                Coding::Absent => Coding::Chunked,
                // RFC 9112, 6.1: chunked is not applied more than once.
                Coding::Chunked | Coding::Malformed => Coding::Malformed,
                Coding::Unknown => Coding::Unknown,
            };
        }
    }

    /// RFC 9112, 6.3, read strictly: what two parties could frame differently is refused.
    pub(super) fn body(&self, version: Version) -> Result<BodyKind, Refusal> {
        if self.coding != Coding::Absent && !self.length.is_absent() {
            return Err(Reason::LengthAndCoding.into());
        }
        match self.coding {
            Coding::Absent => {}
            // RFC 9112, 6.1: Transfer-Encoding in HTTP/1.0 means that the framing is faulty.
            _ if version == Version::Http10 => return Err(Reason::MalformedCoding.into()),
            Coding::Chunked => return Ok(BodyKind::Chunked),
            Coding::Malformed => return Err(Reason::MalformedCoding.into()),
            Coding::Unknown => return Err(Reason::TransferCoding.into()),
        }
        match self.length {
            Field::Absent => Ok(BodyKind::None),
            // RFC 9110, 8.6 leaves the choice for equal values; unequal ones are an attack.
            Field::Repeated => Err(Reason::RepeatedLength.into()),
            Field::Once(value) => match decimal(value).ok_or(Reason::MalformedLength)? {
                0 => Ok(BodyKind::None),
                length => Ok(BodyKind::Length(length)),
            },
        }
    }

    /// RFC 9112, 3.2: 400 for a missing, repeated or invalid Host.
    pub(super) fn host(&self, version: Version) -> Result<&'a str, Refusal> {
        match self.host {
            Field::Absent if version == Version::Http10 => Ok(""),
            Field::Absent => Err(Reason::MissingHost.into()),
            Field::Repeated => Err(Reason::RepeatedHost.into()),
            Field::Once(value) => match std::str::from_utf8(value) {
                Ok(host) if is_authority(host) => Ok(host),
                _ => Err(Reason::MalformedHost.into()),
            },
        }
    }

    pub(super) fn keep_alive(&self, version: Version) -> bool {
        match version {
            _ if self.connection_close => false,
            Version::Http10 => self.connection_keep_alive,
            Version::Http11 => true,
        }
    }

    pub(super) fn attempts_upgrade(&self) -> bool {
        self.names_websocket || !self.key.is_absent() || !self.websocket_version.is_absent()
    }

    /// RFC 6455, 4.2.1, point by point; the key is what the answer needs.
    pub(super) fn upgrade_key(
        &self,
        method: &str,
        version: Version,
        body: BodyKind,
    ) -> Result<&'a str, Refusal> {
        if method != "GET" {
            return Err(Refusal::method_not_allowed("GET"));
        }
        if version == Version::Http10 {
            return Err(Reason::Http10Upgrade.into());
        }
        if body != BodyKind::None {
            return Err(Reason::UpgradeBody.into());
        }
        if !self.names_websocket {
            return Err(Reason::MissingUpgrade.into());
        }
        if !self.connection_upgrade {
            return Err(Reason::MissingConnection.into());
        }
        // RFC 6455, 4.4: the version is settled before anything that might depend on it.
        if !matches!(self.websocket_version, Field::Once(b"13")) {
            return Err(Reason::WebSocketVersion.into());
        }
        match self.key {
            Field::Absent => Err(Reason::MissingKey.into()),
            Field::Once(key) if is_key(key) => {
                std::str::from_utf8(key).map_err(|_| Reason::MalformedKey.into())
            }
            Field::Once(_) | Field::Repeated => Err(Reason::MalformedKey.into()),
        }
    }
}

impl<'a> Field<'a> {
    fn meet(&mut self, value: &'a [u8]) {
        *self = match self {
            Field::Absent => Field::Once(value),
            Field::Once(_) | Field::Repeated => Field::Repeated,
        };
    }

    fn is_absent(&self) -> bool {
        matches!(self, Field::Absent)
    }
}

/// Decimal digits as a number. One too large for 64 bits is the largest: over every limit.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        Some(number.saturating_mul(10).saturating_add(u64::from(digit)))
    })
}

/// RFC 6455, 4.2.1: the base64 of 16 bytes, so 22 characters and two of padding. The four bits
/// that the last character has to spare may be anything, as RFC 4648, 3.5 leaves open: the key
/// is hashed as it stands and never decoded.
fn is_key(key: &[u8]) -> bool {
    key.len() == 24
        && key.ends_with(b"==")
        && key[..22]
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(byte))
}
