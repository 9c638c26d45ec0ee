//! Why a request is turned away, with the status, the metric label and the sentence that tells
//! the peer what was expected instead.

use std::fmt;

use super::Response;

/// How long a peer that met a full or stopping server, or a limit, is asked to wait, unless the
/// caller of [`Refusal::retry_after`] knows better.
const RETRY_AFTER_SECONDS: u32 = 5;

/// A request turned away: a reason, and what its answer needs beside the status.
///
/// Every refusal ends its connection: after a malformed head nobody knows where the next
/// request would begin, and a peer that was refused for load shall go away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    reason: Reason,
    detail: Detail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Detail {
    None,
    Allow(&'static str),
    RetryAfterSeconds(u32),
    LimitBytes(u64),
}

impl Refusal {
    /// A refusal with the usual detail of its reason: `Retry-After: 5` for each 429 and 503,
    /// `Allow: GET` for a 405.
    pub const fn new(reason: Reason) -> Refusal {
        let detail = match reason.status() {
            429 | 503 => Detail::RetryAfterSeconds(RETRY_AFTER_SECONDS),
            405 => Detail::Allow("GET"),
            _ => Detail::None,
        };
        Refusal { reason, detail }
    }

    /// 405 for a path that exists but does not take this method; `allow` is the value of the
    /// `Allow` header, such as `"GET, HEAD"` (RFC 9110, 15.5.6).
    pub const fn method_not_allowed(allow: &'static str) -> Refusal {
        Refusal {
            reason: Reason::Method,
            detail: Detail::Allow(allow),
        }
    }

    /// A refusal for something larger than a limit, which its text then names.
    pub const fn over_limit(reason: Reason, limit_bytes: u64) -> Refusal {
        Refusal {
            reason,
            detail: Detail::LimitBytes(limit_bytes),
        }
    }

    /// The same refusal with another `Retry-After`.
    pub const fn retry_after(self, seconds: u32) -> Refusal {
        Refusal {
            reason: self.reason,
            detail: Detail::RetryAfterSeconds(seconds),
        }
    }

    /// Why.
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// The status code of the answer.
    pub const fn status(&self) -> u16 {
        self.reason.status()
    }

    /// The answer: a one-line JSON body that says what was expected, the headers that its status
    /// demands, and the end of the connection.
    pub fn response(&self) -> Response {
        let expected = self.reason.expected();
        let body = match self.detail {
            Detail::LimitBytes(limit) => {
                format!("{{\"error\":\"{expected}; the limit is {limit} bytes\"}}\n")
            }
            _ => format!("{{\"error\":\"{expected}\"}}\n"),
        };
        let response = Response::new(self.status()).refused(self.reason).close();
        // Whoever came to the wrong port is a person, and may see nothing but this.
        let mut response = match self.reason {
            Reason::PlainHttp => response.body("text/plain", format!("{expected}\n").into_bytes()),
            _ => response.body("application/json", body.into_bytes()),
        };
        match self.detail {
            Detail::Allow(allow) => response = response.header("Allow", allow),
            Detail::RetryAfterSeconds(seconds) => {
                response = response.header("Retry-After", seconds.to_string());
            }
            Detail::None | Detail::LimitBytes(_) => {}
        }
        if self.status() == 401 {
            response = response.header("WWW-Authenticate", self.challenge());
        }
        if self.status() == 426 {
            // RFC 6455, 4.4: the versions that are understood; RFC 9110, 15.5.22: 426 names the
            // protocol. `Connection` does not list it, for this connection ends here.
            response = response
                .header("Upgrade", "websocket")
                .header("Sec-WebSocket-Version", "13");
        }
        response
    }
}

impl Refusal {
    /// RFC 6750, 3 and 3.1: a request without a token is told no error.
    fn challenge(&self) -> String {
        let expected = self.reason.expected();
        match self.reason {
            Reason::ApiKey => r#"ApiKey realm="tidemill""#.to_owned(),
            Reason::TokenMissing => r#"Bearer realm="tidemill""#.to_owned(),
            _ => format!(
                r#"Bearer realm="tidemill", error="invalid_token", error_description="{expected}""#
            ),
        }
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Refusal {
        Refusal::new(reason)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} {}: {}",
            self.status(),
            self.reason.as_str(),
            self.reason.expected()
        )
    }
}

impl std::error::Error for Refusal {}

/// One line a reason, so that its variant, status, label and text cannot drift apart.
macro_rules! reasons {
    ($($variant:ident $status:literal $label:literal $expected:literal,)*) => {
        /// Why a request was refused. Its place in [`Reason::ALL`] is `reason as usize`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $(#[doc = concat!($status, ": ", $expected, ".")] $variant,)*
        }

        impl Reason {
            /// Every reason, in the order of the discriminants.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// The status code of the answer.
            pub const fn status(self) -> u16 {
                match self { $(Reason::$variant => $status,)* }
            }

            /// The label in metrics and logs, such as `missing_key`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Reason::$variant => $label,)* }
            }

            /// What was expected instead, as told to the peer: printable ASCII without quotes
            /// or backslashes, so that it is the same inside JSON.
            pub const fn expected(self) -> &'static str {
                match self { $(Reason::$variant => $expected,)* }
            }
        }
    };
}

reasons! {
    NotHttp 400 "not_http" "expected an HTTP/1.1 request",
    PlainHttp 400 "plain_http" "this port speaks TLS: use https:// or wss://",
    BareLf 400 "bare_lf" "expected every line to end in CR LF, found a bare LF",
    BareCr 400 "bare_cr" "expected every line to end in CR LF, found a bare CR",
    ControlByte 400 "control_byte" "expected a head without control bytes",
    ObsFold 400 "obs_fold" "expected each header on one line, found one that is folded",
    MalformedHeader 400 "malformed_header"
        "expected a header as name, colon, value, without a space before the colon",
    MalformedTarget 400 "malformed_target"
        "expected a target such as /path?query in printable ASCII without a fragment",
    MissingHost 400 "missing_host" "expected a Host header",
    RepeatedHost 400 "repeated_host" "expected one Host header, found several",
    MalformedHost 400 "malformed_host" "expected a Host header such as example.com:8080",
    LengthAndCoding 400 "length_and_coding"
        "expected either Content-Length or Transfer-Encoding, found both",
    RepeatedLength 400 "repeated_length" "expected one Content-Length, found several",
    MalformedLength 400 "malformed_length" "expected Content-Length to be a decimal number",
    MalformedCoding 400 "malformed_coding"
        "expected Transfer-Encoding to be chunked, once, in HTTP/1.1",
    MalformedChunk 400 "malformed_chunk" "expected a chunk as hexadecimal size, CR LF, data, CR LF",
    Http10Upgrade 400 "http_1_0_upgrade"
        "expected a WebSocket upgrade to use HTTP/1.1, found HTTP/1.0",
    UpgradeBody 400 "upgrade_body" "expected a WebSocket upgrade without a body",
    MissingUpgrade 400 "missing_upgrade" "expected Upgrade: websocket",
    MissingConnection 400 "missing_connection" "expected Connection: Upgrade",
    MissingKey 400 "missing_key" "expected a Sec-WebSocket-Key header",
    MalformedKey 400 "malformed_key" "expected one Sec-WebSocket-Key, the base64 of 16 bytes",
    Forwarded 400 "forwarded"
        "expected X-Forwarded-For and Forwarded to name the same client",
    ProxyHeader 400 "proxy_header" "expected the PROXY protocol, version 1 or 2",
    ChannelName 400 "channel_name"
        "expected the name of a channel, percent-encoded, not empty and not too long",
    ApiKey 401 "api_key" "expected the API key in X-API-Key",
    TokenMissing 401 "token_missing" "expected a token",
    TokenMalformed 401 "token_malformed" "the token is malformed",
    TokenAlgorithm 401 "token_algorithm" "the token is signed by an algorithm that is not allowed",
    TokenKey 401 "token_key" "the token is signed by a key that is not known",
    TokenSignature 401 "token_signature" "the signature of the token is wrong",
    TokenExpired 401 "token_expired" "the token has expired",
    TokenEarly 401 "token_early" "the token is not valid yet",
    TokenIssuer 401 "token_issuer" "the token has another issuer",
    TokenAudience 401 "token_audience" "the token is for another audience",
    TokenRevoked 401 "token_revoked" "the token was revoked",
    ApiOff 403 "api_off" "the API is off on this server",
    Origin 403 "origin" "this origin is not allowed",
    Channel 403 "channel" "this channel may not be reached this way",
    UnknownPath 404 "unknown_path" "there is nothing at this path",
    Method 405 "method" "expected a method that the Allow header lists",
    HandshakeTimeout 408 "handshake_timeout" "expected the whole request sooner",
    BodyTooLarge 413 "body_too_large" "the body is too large",
    TargetTooLong 414 "target_too_long" "the request target is too long",
    WebSocketVersion 426 "websocket_version" "expected Sec-WebSocket-Version: 13",
    AddressCap 429 "address_cap" "too many connections from this address",
    ConnectRate 429 "connect_rate" "too many new connections from this address",
    HalfOpen 429 "half_open" "too many unfinished requests from this address",
    HeadersTooLarge 431 "headers_too_large" "the request head is too large",
    TooManyHeaders 431 "too_many_headers" "expected at most 100 headers",
    HandlerFailed 500 "handler_failed" "the server failed to answer this request",
    TransferCoding 501 "transfer_coding" "expected no transfer coding but chunked",
    ConnectionCap 503 "connection_cap" "the server holds as many connections as it may",
    Draining 503 "draining" "the server is shutting down",
    Buffers 503 "buffers" "the server is short of buffer memory",
    Descriptors 503 "descriptors" "the server is out of file descriptors",
    Overload 503 "overload" "the server is overloaded",
    TokenKeys 503 "token_keys" "the server has no keys to check tokens with yet",
    HttpVersion 505 "http_version" "expected HTTP/1.1 or HTTP/1.0",
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(refusal: Refusal) -> String {
        let mut out = Vec::new();
        refusal.response().encode(&mut out, None, true, false);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_reason_is_found_at_its_discriminant() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
    }

    #[test]
    fn labels_are_distinct_and_bounded() {
        let mut labels: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Reason::ALL.len());
        for label in labels {
            assert!(
                label
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit())
            );
        }
    }

    #[test]
    fn every_refusal_is_a_whole_answer_with_one_line_of_json_that_ends_the_connection() {
        let told_as_text = |reason: &&Reason| **reason == Reason::PlainHttp;
        for reason in Reason::ALL.iter().filter(|reason| !told_as_text(reason)) {
            let answer = encoded(Refusal::new(*reason));
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(
                head.starts_with(&format!("HTTP/1.1 {} ", reason.status())),
                "{head}"
            );
            assert!(head.contains("\r\nConnection: close"), "{head}");
            assert!(
                head.contains("\r\nContent-Type: application/json"),
                "{head}"
            );
            assert!(
                head.contains(&format!("\r\nContent-Length: {}", body.len())),
                "{head}"
            );
            assert_eq!(body, format!("{{\"error\":\"{}\"}}\n", reason.expected()));
            assert!(reason.expected().bytes().all(|b| matches!(b, b' '..=b'~')));
            assert!(!reason.expected().contains(['"', '\\']));
            let phrase = head.lines().next().unwrap().splitn(3, ' ').nth(2).unwrap();
            assert!(!phrase.is_empty(), "{reason:?} has no phrase");
        }
    }

    #[test]
    fn plain_http_on_a_tls_port_is_told_so_in_plain_text() {
        let answer = encoded(Reason::PlainHttp.into());
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("\r\nContent-Type: text/plain"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nthis port speaks TLS: use https:// or wss://\n"));
    }

    #[test]
    fn statuses_bring_the_headers_they_demand() {
        assert!(
            encoded(Refusal::method_not_allowed("GET, HEAD")).contains("\r\nAllow: GET, HEAD\r\n")
        );
        assert!(encoded(Reason::Method.into()).contains("\r\nAllow: GET\r\n"));
        let version = encoded(Reason::WebSocketVersion.into());
        assert!(version.contains("\r\nSec-WebSocket-Version: 13\r\n"));
        assert!(version.contains("\r\nUpgrade: websocket\r\n"));
        assert!(encoded(Reason::Draining.into()).contains("\r\nRetry-After: 5\r\n"));
        let patient = Refusal::new(Reason::ConnectionCap).retry_after(30);
        assert!(encoded(patient).contains("\r\nRetry-After: 30\r\n"));
    }

    #[test]
    fn a_refusal_over_a_limit_names_the_limit() {
        let refusal = Refusal::over_limit(Reason::HeadersTooLarge, 8192);
        assert!(encoded(refusal).ends_with("the limit is 8192 bytes\"}\n"));
        assert_eq!(
            refusal.to_string(),
            "431 headers_too_large: the request head is too large"
        );
    }
}
