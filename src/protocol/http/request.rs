//! One request head: what it asks for, whether it asks to become a WebSocket, and everything
//! that makes a server turn it away before looking at its path.

use std::mem::MaybeUninit;

use super::seen::Seen;
use super::target::Target;
use super::{BodyKind, Headers, Limits, Reason, Refusal};

/// The most header lines of one request. Its refusal names this number.
const HEADERS_MAX: usize = 100;

/// A request head that was read and found in order. It borrows the bytes it was read from and
/// owns nothing.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    method: &'a str,
    version: Version,
    target: Target<'a>,
    host: &'a str,
    headers: Headers<'a>,
    body: BodyKind,
    keep_alive: bool,
    expects_continue: bool,
    intent: Intent<'a>,
}

/// What the sender of a request wants.
#[derive(Clone, Copy, Debug)]
pub enum Intent<'a> {
    /// An answer.
    Plain,
    /// A WebSocket, by a request that satisfies RFC 6455, 4.2.1.
    Upgrade(Upgrade<'a>),
}

/// What an upgrade request says beyond its path.
#[derive(Clone, Copy, Debug)]
pub struct Upgrade<'a> {
    key: &'a str,
    headers: Headers<'a>,
}

/// The HTTP versions that are spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: no upgrade, no chunks, closed after each answer unless asked otherwise.
    Http10,
    /// HTTP/1.1.
    Http11,
}

impl<'a> Request<'a> {
    /// Reads a head whose end [`head_end`](super::head_end) found. Bytes that did not pass it
    /// give a refusal or some request, never a panic.
    ///
    /// A request is an attempt to upgrade, whose faults are refused as such, when an `Upgrade`
    /// header names `websocket` or when it carries `Sec-WebSocket-Key` or
    /// `Sec-WebSocket-Version`, which nothing else sends; a proxy that drops `Upgrade` is thus
    /// told so. Any other upgrade (`h2c`) is ignored, as RFC 9110, 7.8 allows.
    ///
    /// # Errors
    /// Each status that a head alone can earn: 400, 405, 414, 426, 431, 501, 505. Whether the body
    /// is too large is for [`Body::new`](super::Body::new).
    pub fn parse(head: &'a [u8], limits: &Limits) -> Result<Request<'a>, Refusal> {
        let mut space = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(head, &mut space) {
            Ok(httparse::Status::Complete(length)) if length == head.len() => {}
            Ok(_) => return Err(Reason::NotHttp.into()),
            Err(error) => return Err(refusal_of(error, head)),
        }
        let (Some(method), Some(target), Some(minor)) =
            (parsed.method, parsed.path, parsed.version)
        else {
            return Err(Reason::NotHttp.into());
        };
        let version = if minor == 0 {
            Version::Http10
        } else {
            Version::Http11
        };
        let target = Target::parse(target, limits)?;
        let seen = Seen::gather(parsed.headers);
        let body = seen.body(version)?;
        let host = seen.host(version)?;
        let headers = Headers::of_head(head);
        let intent = if seen.attempts_upgrade() {
            let key = seen.upgrade_key(method, version, body)?;
            Intent::Upgrade(Upgrade { key, headers })
        } else {
            Intent::Plain
        };
        Ok(Request {
            method,
            version,
            // RFC 9112, 3.2.2: the authority of an absolute target overrules the Host header.
            host: target.authority.unwrap_or(host),
            target,
            headers,
            body,
            keep_alive: seen.keep_alive(version),
            // RFC 9110, 10.1.1: the expectation of an HTTP/1.0 request is ignored.
            expects_continue: seen.expects_continue && version == Version::Http11,
            intent,
        })
    }

    /// The method as it was sent: methods are case-sensitive (RFC 9110, 9.1).
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// The path, percent-encoding untouched. It begins with a slash.
    pub fn path(&self) -> &'a str {
        self.target.path
    }

    /// What follows the first question mark of the target, percent-encoding untouched.
    pub fn query(&self) -> Option<&'a str> {
        self.target.query
    }

    /// The HTTP version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whom the request is for: `Host`, or the authority of an absolute target. Empty only for
    /// HTTP/1.0 without `Host`.
    pub fn host(&self) -> &'a str {
        self.host
    }

    /// The first header of this name, in any case; see [`Headers`] for values that are no text.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.first(name)
    }

    /// Every header of this name, in any case.
    pub fn headers<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.headers.named(name)
    }

    /// Every header, in the order of arrival.
    pub fn all_headers(&self) -> Headers<'a> {
        self.headers
    }

    /// Whether the sender expects the connection to outlive the answer (RFC 9112, 9.3).
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Whether the answer goes out without its body (RFC 9110, 9.3.2).
    pub fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// Whether the sender waits for [`CONTINUE`](super::CONTINUE) before it sends the body.
    pub fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// How the body behind the head is framed.
    pub fn body(&self) -> BodyKind {
        self.body
    }

    /// Whether this is plain HTTP or a sound upgrade request.
    pub fn intent(&self) -> Intent<'a> {
        self.intent
    }
}

impl<'a> Upgrade<'a> {
    /// The value of `Sec-WebSocket-Key`: the base64 of 16 bytes.
    pub fn key(&self) -> &'a str {
        self.key
    }

    /// The subprotocols offered, most wanted first, over all `Sec-WebSocket-Protocol` headers
    /// (RFC 6455, 11.3.4: several are one list).
    pub fn protocols(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.headers
            .named("Sec-WebSocket-Protocol")
            .flat_map(|list| list.split(','))
            .map(str::trim_ascii)
            .filter(|protocol| !protocol.is_empty())
    }

    /// The values of all `Sec-WebSocket-Extensions` headers, unparsed; together one list
    /// (RFC 6455, 11.3.2).
    pub fn extensions(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.headers.named("Sec-WebSocket-Extensions")
    }
}

fn refusal_of(error: httparse::Error, head: &[u8]) -> Refusal {
    match error {
        httparse::Error::HeaderName | httparse::Error::HeaderValue => Reason::MalformedHeader,
        httparse::Error::TooManyHeaders => Reason::TooManyHeaders,
        httparse::Error::Version if names_http_version(head) => Reason::HttpVersion,
        _ => Reason::NotHttp,
    }
    .into()
}

/// Whether the first line is three words and the last is `HTTP/x.y`: then it is HTTP, only not
/// ours.
fn names_http_version(head: &[u8]) -> bool {
    let line = head
        .trim_ascii_start()
        .split(|byte| *byte == b'\r')
        .next()
        .unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ').skip(2);
    let is_version = words.next().is_some_and(|word| {
        matches!(word, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit())
    });
    is_version && words.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(head: &[u8]) -> Request<'_> {
        Request::parse(head, &Limits::default()).unwrap()
    }

    fn refused(head: &[u8]) -> Reason {
        Request::parse(head, &Limits::default())
            .unwrap_err()
            .reason()
    }

    #[test]
    fn a_plain_request_says_what_it_asks_for() {
        let head = b"\r\nPOST /api/publish?a=b&c HTTP/1.1\r\nhOST: a.example:7000\r\n\
            Content-Length: 12\r\nExpect: 100-Continue\r\nX-Key:  k \r\nx-key: l\r\n\r\n";
        let request = parsed(head);
        assert_eq!(request.method(), "POST");
        assert_eq!(request.path(), "/api/publish");
        assert_eq!(request.query(), Some("a=b&c"));
        assert_eq!(request.version(), Version::Http11);
        assert_eq!(request.host(), "a.example:7000");
        assert_eq!(request.body(), BodyKind::Length(12));
        assert_eq!(request.header("x-KEY"), Some("k"));
        assert_eq!(request.headers("X-Key").collect::<Vec<_>>(), ["k", "l"]);
        assert_eq!(request.all_headers().iter().count(), 5);
        assert!(request.expects_continue() && request.keep_alive() && !request.is_head());
        assert!(matches!(request.intent(), Intent::Plain));
    }

    #[test]
    fn an_old_request_closes_unless_it_asks_to_stay() {
        let old = parsed(b"HEAD / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n");
        assert_eq!((old.version(), old.host()), (Version::Http10, ""));
        assert!(old.is_head() && !old.keep_alive() && !old.expects_continue());
        let cases: &[(&[u8], bool)] = &[
            (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
            (
                b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
                false,
            ),
            (
                b"GET / HTTP/1.1\r\nHost: a\r\nConnection: foo\r\nconnection: CLOSE\r\n\r\n",
                false,
            ),
            (
                b"GET / HTTP/1.1\r\nHost: a\r\nConnection: closed\r\n\r\n",
                true,
            ),
        ];
        for (head, stays) in cases {
            assert_eq!(parsed(head).keep_alive(), *stays, "{}", head.escape_ascii());
        }
    }

    #[test]
    fn an_absolute_target_overrules_the_host_header() {
        let request = parsed(b"GET http://b:81/c HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!((request.host(), request.path()), ("b:81", "/c"));
    }

    #[test]
    fn an_upgrade_gives_its_key_and_all_that_it_offers() {
        let head = b"GET /ws HTTP/1.1\r\nHost: a\r\nUPGRADE: h2c, WebSocket\r\n\
            Connection: keep-alive\r\nConnection: x,Upgrade\r\nContent-Length: 0\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            Sec-WebSocket-Protocol: chat,, superchat\r\nSec-WebSocket-Protocol: json\r\n\
            Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";
        let Intent::Upgrade(upgrade) = parsed(head).intent() else {
            panic!("no upgrade")
        };
        assert_eq!(upgrade.key(), "dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(
            upgrade.protocols().collect::<Vec<_>>(),
            ["chat", "superchat", "json"]
        );
        assert_eq!(
            upgrade.extensions().collect::<Vec<_>>(),
            ["permessage-deflate; client_max_window_bits"]
        );
    }

    #[test]
    fn a_request_may_have_as_many_headers_as_the_refusal_says() {
        let head = |count: usize| {
            format!("GET / HTTP/1.1\r\n{}\r\n", "Host: a\r\n".repeat(count)).into_bytes()
        };
        assert_eq!(refused(&head(HEADERS_MAX)), Reason::RepeatedHost);
        assert_eq!(refused(&head(HEADERS_MAX + 1)), Reason::TooManyHeaders);
        assert!(
            Reason::TooManyHeaders
                .expected()
                .contains(&format!("at most {HEADERS_MAX} "))
        );
    }

    #[test]
    fn bytes_that_no_scan_has_seen_are_refused_and_nothing_worse() {
        assert_eq!(refused(b""), Reason::NotHttp);
        assert_eq!(refused(b"\r\n\r\n"), Reason::NotHttp);
        assert_eq!(refused(b"GET / HTTP/1.1\r\nHost: a\r\n"), Reason::NotHttp);
        assert_eq!(
            refused(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbehind"),
            Reason::NotHttp
        );
    }
}
