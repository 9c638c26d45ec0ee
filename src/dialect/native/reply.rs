//! What a client is answered: replies and errors, the ends of subscriptions and of connections.

use std::fmt::Write;

use super::json;
use crate::handler::{Denied, Peer, Position, Publication};

/// An error in a reply; the client goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Internal,
    Unauthorized,
    UnknownChannel,
    PermissionDenied,
    MethodNotFound,
    AlreadySubscribed,
    LimitExceeded,
    BadRequest,
    NotAvailable,
    TokenExpired,
    Expired,
    TooManyRequests,
    Unrecoverable,
}

impl Fault {
    pub fn code(self) -> u32 {
        // The codes are counted in the order of the names.
        100 + self as u32
    }

    fn message(self) -> &'static str {
        match self {
            Self::Internal => "internal server error",
            Self::Unauthorized => "unauthorized",
            Self::UnknownChannel => "unknown channel",
            Self::PermissionDenied => "permission denied",
            Self::MethodNotFound => "method not found",
            Self::AlreadySubscribed => "already subscribed",
            Self::LimitExceeded => "limit exceeded",
            Self::BadRequest => "bad request",
            Self::NotAvailable => "not available",
            Self::TokenExpired => "token expired",
            Self::Expired => "expired",
            Self::TooManyRequests => "too many requests",
            Self::Unrecoverable => "unrecoverable position",
        }
    }

    /// Whether the same may succeed later; the SDKs try again by themselves then.
    fn is_temporary(self) -> bool {
        matches!(self, Self::Internal | Self::TooManyRequests)
    }
}

impl From<Denied> for Fault {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Name => Self::BadRequest,
            Denied::UnknownNamespace => Self::UnknownChannel,
            Denied::NotKept => Self::NotAvailable,
            _ => Self::PermissionDenied,
        }
    }
}

/// The end of a connection. SDKs come back after codes of 3000 to 3499, and never after 3500 to
/// 3999; they look at the code only where there is a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect {
    pub code: u16,
    pub reason: &'static str,
}

impl Disconnect {
    pub const SHUTDOWN: Self = Self::new(3001, "shutdown");
    pub const EXPIRED: Self = Self::new(3005, "connection expired");
    pub const INSUFFICIENT_STATE: Self = Self::new(3010, "insufficient state");
    pub const NO_PONG: Self = Self::new(3012, "no pong");
    pub const INVALID_TOKEN: Self = Self::new(3500, "invalid token");
    pub const STALE: Self = Self::new(3502, "stale");
    pub const CHANNEL_LIMIT: Self = Self::new(3505, "channel limit");
    pub const NOT_AVAILABLE: Self = Self::new(3508, "not available");

    /// What the client sent makes no sense; `reason` says why, for whoever wrote the client.
    pub const fn bad_request(reason: &'static str) -> Self {
        Self::new(3501, reason)
    }

    const fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason }
    }

    pub fn close(self, peer: &mut Peer<'_>) {
        peer.close(self.code.into(), self.reason);
    }
}

/// The end of a subscription. SDKs subscribe again after codes from 2500 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribed {
    pub code: u16,
    pub reason: &'static str,
}

impl Unsubscribed {
    pub const BY_SERVER: Self = Self {
        code: 2000,
        reason: "server unsubscribe",
    };
    pub const INSUFFICIENT_STATE: Self = Self {
        code: 2500,
        reason: "insufficient state",
    };
    pub const EXPIRED: Self = Self {
        code: 2501,
        reason: "subscription expired",
    };
}

/// Replies that leave together: one text frame with one a line.
#[derive(Debug, Default)]
pub struct Replies(String);

impl Replies {
    /// Begins one more line.
    pub fn line(&mut self) -> &mut String {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        &mut self.0
    }

    /// Appends `{"id":…,"method":`; the result and a `}` follow.
    pub fn begin(&mut self, id: u32, method: &str) -> &mut String {
        let out = self.line();
        out.push_str("{\"id\":");
        push_number(out, u64::from(id));
        out.push_str(",\"");
        out.push_str(method);
        out.push_str("\":");
        out
    }

    /// A result that says nothing.
    pub fn empty(&mut self, id: u32, method: &str) {
        self.begin(id, method).push_str("{}}");
    }

    pub fn fault(&mut self, id: u32, fault: Fault) {
        let out = self.begin(id, "error");
        out.push_str("{\"code\":");
        push_number(out, u64::from(fault.code()));
        out.push_str(",\"message\":\"");
        out.push_str(fault.message());
        out.push_str(if fault.is_temporary() {
            "\",\"temporary\":true}}"
        } else {
            "\"}}"
        });
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes back what was appended since the length was that.
    pub fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// Takes back the lines that were appended since the length was that.
    pub fn take_since(&mut self, len: usize) -> String {
        let text = self.0.split_off(len);
        match text.strip_prefix('\n') {
            Some(lines) => lines.to_owned(),
            None => text,
        }
    }

    pub fn send(self, peer: &mut Peer<'_>) {
        if !self.0.is_empty() {
            peer.send_text(&self.0);
        }
    }
}

/// An object that is being written: `{` and whatever fields there are.
#[derive(Debug)]
pub struct Object<'o> {
    out: &'o mut String,
    has_fields: bool,
}

impl<'o> Object<'o> {
    pub fn begin(out: &'o mut String) -> Self {
        out.push('{');
        Self {
            out,
            has_fields: false,
        }
    }

    /// Appends a name; the value is the caller's to append.
    pub fn field(&mut self, name: &str) -> &mut String {
        self.out
            .push_str(if self.has_fields { ",\"" } else { "\"" });
        self.out.push_str(name);
        self.out.push_str("\":");
        self.has_fields = true;
        self.out
    }

    /// A number, unless it is 0: that is what a missing one means.
    pub fn number(&mut self, name: &str, number: u64) -> &mut Self {
        if number != 0 {
            push_number(self.field(name), number);
        }
        self
    }

    /// A number that is always said.
    pub fn count(&mut self, name: &str, number: u64) -> &mut Self {
        push_number(self.field(name), number);
        self
    }

    /// `true`; a missing field is `false`.
    pub fn flag(&mut self, name: &str, is_set: bool) -> &mut Self {
        if is_set {
            self.field(name).push_str("true");
        }
        self
    }

    pub fn string(&mut self, name: &str, text: &str) -> &mut Self {
        json::push_string(self.field(name), text);
        self
    }

    /// A value that is JSON already, if there is one.
    pub fn json(&mut self, name: &str, value: Option<&str>) -> &mut Self {
        if let Some(value) = value {
            self.field(name).push_str(value);
        }
        self
    }

    /// `offset` and `epoch`.
    pub fn position(&mut self, position: Position) -> &mut Self {
        self.count("offset", position.offset);
        let out = self.field("epoch");
        out.push('"');
        push_epoch(out, position.epoch);
        out.push('"');
        self
    }

    /// `expires` and `ttl`, where there is an end.
    pub fn ttl(&mut self, ttl: Option<u32>) -> &mut Self {
        self.flag("expires", ttl.is_some());
        self.number("ttl", u64::from(ttl.unwrap_or_default()))
    }

    /// `publications`, as long as all that is written stays below a length: how many of them.
    pub fn publications<'p>(
        &mut self,
        publications: impl IntoIterator<Item = &'p Publication>,
        len_max: usize,
    ) -> usize {
        let mut count = 0;
        let out = self.field("publications");
        out.push('[');
        let begin = out.len();
        for publication in publications {
            let before = out.len();
            if before > begin {
                out.push(',');
            }
            push_publication(out, publication, None);
            if out.len() > len_max {
                out.truncate(before);
                break;
            }
            count += 1;
        }
        out.push(']');
        count
    }

    pub fn end(self) -> &'o mut String {
        self.out.push('}');
        self.out
    }
}

/// Appends a publication as an object. `channel` is given where it is not known from around it: to
/// those who are subscribed to a pattern.
pub fn push_publication(out: &mut String, publication: &Publication, channel: Option<&str>) {
    push_publication_at(out, publication, publication.offset, channel);
}

/// The same at another offset: 0 where there is no stream to have one in.
#[inline]
pub fn push_publication_at(
    out: &mut String,
    publication: &Publication,
    offset: u64,
    channel: Option<&str>,
) {
    out.push_str("{\"data\":");
    json::push_payload(out, &publication.payload);
    if offset != 0 {
        out.push_str(",\"offset\":");
        push_number(out, offset);
    }
    if let Some(about) = publication
        .about
        .as_deref()
        .filter(|about| !about.is_empty())
    {
        out.push(',');
        out.push_str(about);
    }
    if let Some(channel) = channel {
        out.push_str(",\"channel\":");
        json::push_string(out, channel);
    }
    out.push('}');
}

#[inline]
pub fn push_number(out: &mut String, number: u64) {
    // Writing to a string does not fail.
    let _ = write!(out, "{number}");
}

/// Appends an epoch as clients know it.
fn push_epoch(out: &mut String, epoch: u64) {
    let _ = write!(out, "{epoch:x}");
}

/// An epoch as a client says it. An empty one is 0, whichever there is; one that we have never
/// written is an epoch that no stream has.
pub fn epoch(text: &str) -> u64 {
    if text.is_empty() {
        return 0;
    }
    match u64::from_str_radix(text, 16) {
        Ok(epoch) if epoch != 0 && !text.starts_with(['+', '0']) => epoch,
        _ => NO_EPOCH,
    }
}

/// Drawn once by the author: a stream has it by a chance of one in 2^64.
const NO_EPOCH: u64 = 0x6e6f_2065_706f_6368;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::handler::Payload;

    #[test]
    fn codes_are_those_that_the_sdks_know() {
        for (fault, code) in [
            (Fault::Internal, 100),
            (Fault::Unauthorized, 101),
            (Fault::UnknownChannel, 102),
            (Fault::PermissionDenied, 103),
            (Fault::MethodNotFound, 104),
            (Fault::AlreadySubscribed, 105),
            (Fault::LimitExceeded, 106),
            (Fault::BadRequest, 107),
            (Fault::NotAvailable, 108),
            (Fault::TokenExpired, 109),
            (Fault::Expired, 110),
            (Fault::TooManyRequests, 111),
            (Fault::Unrecoverable, 112),
        ] {
            assert_eq!(fault.code(), code);
        }
    }

    #[test]
    fn replies_are_joined_by_line_breaks() {
        let mut replies = Replies::default();
        replies.empty(7, "publish");
        replies.fault(8, Fault::TooManyRequests);
        replies.fault(9, Fault::PermissionDenied);
        let lines: Vec<Value> = replies
            .0
            .split('\n')
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let error = json!({"code": 111, "message": "too many requests", "temporary": true});
        assert_eq!(lines[0], json!({"id": 7, "publish": {}}));
        assert_eq!(lines[1], json!({"id": 8, "error": error}));
        let error = json!({"code": 103, "message": "permission denied"});
        assert_eq!(lines[2], json!({"id": 9, "error": error}));
        let len = replies.len();
        replies.empty(10, "unsubscribe");
        replies.truncate(len);
        assert!(replies.0.ends_with("}}"));
        replies.empty(11, "publish");
        assert_eq!(replies.take_since(len), r#"{"id":11,"publish":{}}"#);
        assert!(replies.take_since(0).starts_with(r#"{"id":7,"#));
        assert_eq!(replies.len(), 0);
    }

    #[test]
    fn an_object_has_the_fields_that_say_something() {
        let mut out = String::new();
        let mut object = Object::begin(&mut out);
        object.flag("no", false).number("zero", 0).ttl(None);
        object.json("data", None);
        assert_eq!(object.end(), "{}");
        let mut out = String::new();
        let mut object = Object::begin(&mut out);
        assert_eq!(object.publications([], 0), 0);
        object.count("zero", 0);
        assert_eq!(object.end(), r#"{"publications":[],"zero":0}"#);

        let mut out = String::new();
        let mut object = Object::begin(&mut out);
        object.string("a\u{301}", "\"\n").flag("yes", true);
        object.ttl(Some(5)).json("data", Some("[1]"));
        object.position(Position {
            offset: 3,
            epoch: 0xab,
        });
        let mut publication = Publication::new("c".into(), 9, Payload::Json("{}".into()));
        publication.about = Some(Arc::from(r#""tags":{"k":"v"}"#));
        let plain = Publication::new("c".into(), 0, Payload::Text("hi".into()));
        object.publications([&publication, &plain], usize::MAX);
        let value: Value = serde_json::from_str(object.end()).unwrap();
        let expected = json!({
            "a\u{301}": "\"\n", "yes": true, "expires": true, "ttl": 5, "data": [1],
            "offset": 3, "epoch": "ab",
            "publications": [{"data": {}, "offset": 9, "tags": {"k": "v"}}, {"data": "hi"}],
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn of_many_publications_there_are_as_many_as_fit() {
        let publication = Publication::new("c".into(), 1, Payload::Json("[7]".into()));
        let one = r#"{"data":[7],"offset":1}"#.len();
        let begin = r#"{"publications":["#.len();
        for (len_max, count) in [
            (0, 0),
            (begin + one - 1, 0),
            (begin + one, 1),
            (begin + 2 * one, 1),
            (begin + 2 * one + 1, 2),
            (usize::MAX, 3),
        ] {
            let mut out = String::new();
            let mut object = Object::begin(&mut out);
            assert_eq!(object.publications([&publication; 3], len_max), count);
            let value: Value = serde_json::from_str(object.end()).unwrap();
            assert_eq!(value["publications"].as_array().unwrap().len(), count);
        }
    }

    #[test]
    fn an_epoch_is_known_again_and_a_foreign_one_is_none() {
        for number in [1, 0xabc, u64::MAX] {
            let mut text = String::new();
            push_epoch(&mut text, number);
            assert_eq!(epoch(&text), number);
        }
        assert_eq!(epoch(""), 0);
        for foreign in ["0", "0ab", "+ab", "-1", "EP1", "ffffffffffffffff1", "ü"] {
            assert_eq!(epoch(foreign), NO_EPOCH, "{foreign}");
        }
    }
}
