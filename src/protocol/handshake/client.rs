//! The client's side: the request, and whether the answer keeps to RFC 6455, 4.1.

use std::mem;

use crate::protocol::http::{HeadScan, Headers, head_end, is_authority, is_token, push_header};

use super::answer::{Answer, HandshakeError, LIMITS, Offer, Refused};

/// Most interim answers ahead of the final one.
const INTERIM_MAX: u32 = 8;

/// An opening handshake seen from the client: it writes its request once and is fed the answer
/// until that is accepted or refused.
#[derive(Debug)]
pub struct ClientHandshake {
    target: String,
    host: String,
    offer: Offer,
    headers: Vec<(String, String)>,
    received: Vec<u8>,
    scan: HeadScan,
    interims: u32,
    /// Exists only once an answer other than 101 has come, whose body is being waited for.
    refused: Option<Box<Refused>>,
}

/// What a server agreed to.
#[derive(Debug)]
pub struct Accepted {
    /// The subprotocol it chose among those offered.
    pub protocol: Option<String>,
    /// The extensions it chose among those offered, unparsed.
    pub extensions: Option<String>,
    head: Vec<u8>,
}

impl ClientHandshake {
    /// A handshake for `target` (path and query, such as `/ws?a=b`) at `host` (name or address,
    /// with the port where it is not the scheme's own). `key` is 16 random bytes, new for each
    /// connection (RFC 6455, 4.1).
    ///
    /// # Errors
    /// [`HandshakeError::Invalid`] when either cannot stand in a request.
    pub fn new(host: &str, target: &str, key: [u8; 16]) -> Result<ClientHandshake, HandshakeError> {
        if !target.starts_with('/')
            || target
                .bytes()
                .any(|byte| byte == b'#' || !byte.is_ascii_graphic())
        {
            return Err(HandshakeError::Invalid(
                "the target must be an encoded path",
            ));
        }
        if !is_authority(host) {
            return Err(HandshakeError::Invalid(
                "the host must be a name with an optional port",
            ));
        }
        Ok(ClientHandshake {
            target: target.to_owned(),
            host: host.to_owned(),
            offer: Offer {
                key: base64(key),
                protocols: Vec::new(),
                extensions: None,
            },
            headers: Vec::new(),
            received: Vec::new(),
            scan: HeadScan::response(),
            interims: 0,
            refused: None,
        })
    }

    /// Offers a subprotocol, behind those offered before: most wanted first.
    ///
    /// # Errors
    /// [`HandshakeError::Invalid`] when it is no token or was offered before.
    pub fn protocol(mut self, protocol: &str) -> Result<ClientHandshake, HandshakeError> {
        if !is_token(protocol.as_bytes())
            || self.offer.protocols.iter().any(|known| known == protocol)
        {
            return Err(HandshakeError::Invalid(
                "a subprotocol must be a token, offered once",
            ));
        }
        self.offer.protocols.push(protocol.to_owned());
        Ok(self)
    }

    /// Offers extensions: the whole value of `Sec-WebSocket-Extensions`.
    ///
    /// # Errors
    /// [`HandshakeError::Invalid`] when it cannot stand in a header.
    pub fn extensions(mut self, offer: &str) -> Result<ClientHandshake, HandshakeError> {
        refuse_control(offer)?;
        self.offer.extensions = Some(offer.to_owned());
        Ok(self)
    }

    /// Adds a header, such as `Origin` or `Authorization`.
    ///
    /// # Errors
    /// [`HandshakeError::Invalid`] when it cannot stand in a request or is one of those that the
    /// handshake itself is made of.
    pub fn header(mut self, name: &str, value: &str) -> Result<ClientHandshake, HandshakeError> {
        if !is_token(name.as_bytes()) {
            return Err(HandshakeError::Invalid("a header name must be a token"));
        }
        if OURS.iter().any(|ours| ours.eq_ignore_ascii_case(name)) {
            return Err(HandshakeError::Invalid(
                "this header belongs to the handshake",
            ));
        }
        refuse_control(value)?;
        self.headers.push((name.to_owned(), value.to_owned()));
        Ok(self)
    }

    /// Appends the request (RFC 6455, 4.1).
    pub fn request(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"GET ");
        out.extend_from_slice(self.target.as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        push_header(out, "Host", &self.host);
        out.extend_from_slice(b"Upgrade: websocket\r\nConnection: Upgrade\r\n");
        push_header(out, "Sec-WebSocket-Key", &self.offer.key);
        out.extend_from_slice(b"Sec-WebSocket-Version: 13\r\n");
        if !self.offer.protocols.is_empty() {
            push_header(
                out,
                "Sec-WebSocket-Protocol",
                &self.offer.protocols.join(", "),
            );
        }
        if let Some(offer) = &self.offer.extensions {
            push_header(out, "Sec-WebSocket-Extensions", offer);
        }
        for (name, value) in &self.headers {
            push_header(out, name, value);
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Takes the next bytes of the answer. `Ok(None)` asks for more; with the acceptance comes how
    /// many of these bytes the handshake used: those behind are frames. Afterwards, as after an
    /// error, the handshake is spent.
    ///
    /// # Errors
    /// Everything in [`HandshakeError`] but `Invalid` and `Ended`. An answer other than 101 is
    /// reported once its body has come as far as it is kept.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Option<(usize, Accepted)>, HandshakeError> {
        if let Some(refused) = &mut self.refused {
            return refused.receive(bytes).map(|()| None);
        }
        let mut rest = bytes;
        loop {
            let room = (LIMITS.header_bytes_max - self.received.len()).min(rest.len());
            let (taken, behind) = rest.split_at(room);
            self.received.extend_from_slice(taken);
            rest = behind;
            let Some(end) = head_end(&self.received, &mut self.scan, &LIMITS)? else {
                return Ok(None);
            };
            let answer = Answer::parse(&self.received[..end])?;
            match answer.status {
                101 => {
                    let (protocol, extensions) = answer.agreement(&self.offer)?;
                    let unused = self.received.len() - end + rest.len();
                    let mut head = mem::take(&mut self.received);
                    head.truncate(end);
                    let accepted = Accepted {
                        protocol,
                        extensions,
                        head,
                    };
                    return Ok(Some((bytes.len() - unused, accepted)));
                }
                // RFC 9110, 15.2: interim answers may come first.
                100..200 if self.interims < INTERIM_MAX => {
                    self.interims += 1;
                    self.received.drain(..end);
                    self.scan = HeadScan::response();
                }
                100..200 => return Err(HandshakeError::Malformed("too many interim answers")),
                _ => {
                    let mut refused = Box::new(Refused::new(&answer)?);
                    refused.receive(&self.received[end..])?;
                    refused.receive(rest)?;
                    self.received = Vec::new();
                    self.refused = Some(refused);
                    return Ok(None);
                }
            }
        }
    }

    /// What to report when the connection ends, or its time runs out, before the answer is whole.
    pub fn ended(&self) -> HandshakeError {
        match &self.refused {
            Some(refused) => refused.report(),
            None => HandshakeError::Ended,
        }
    }
}

impl Accepted {
    /// The headers of the answer.
    pub fn headers(&self) -> Headers<'_> {
        Headers::of_head(&self.head)
    }
}

/// Headers of the request that the handshake writes itself, or that would give it a body.
const OURS: [&str; 9] = [
    "Host",
    "Upgrade",
    "Connection",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Version",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Extensions",
    "Content-Length",
    "Transfer-Encoding",
];

fn refuse_control(value: &str) -> Result<(), HandshakeError> {
    if value.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(HandshakeError::Invalid(
            "a header value must not hold control bytes",
        ));
    }
    Ok(())
}

/// RFC 4648, 4, for the one length that is needed.
fn base64(bytes: [u8; 16]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits = u128::from_be_bytes(bytes);
    // 128 bits are 21 groups of six and one of two, which is filled up with zeros.
    let digit = |index: u32| {
        let group = if index < 21 {
            bits >> (122 - 6 * index)
        } else {
            bits << 4
        };
        char::from(ALPHABET[(group & 63) as usize])
    };
    (0..22).map(digit).chain(['=', '=']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 16] = *b"the sample nonce";
    const ACCEPT: &str = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\n";

    fn handshake() -> ClientHandshake {
        ClientHandshake::new("server.example.com", "/chat", KEY)
            .and_then(|handshake| handshake.protocol("chat"))
            .and_then(|handshake| handshake.protocol("json"))
            .and_then(|handshake| handshake.extensions("permessage-deflate; a, x-other"))
            .unwrap()
    }

    /// What comes of an answer that arrives `step` bytes at a time before the connection ends:
    /// the protocol, the extensions and how many bytes the handshake used in all.
    type Outcome = Result<(Option<String>, Option<String>, usize), HandshakeError>;

    fn received(answer: &[u8], step: usize) -> Outcome {
        let mut handshake = handshake();
        for (index, piece) in answer.chunks(step).enumerate() {
            if let Some((used, accepted)) = handshake.receive(piece)? {
                let used = index * step + used;
                return Ok((accepted.protocol, accepted.extensions, used));
            }
        }
        Err(handshake.ended())
    }

    /// The same, whatever the step.
    fn agreed(answer: &[u8]) -> Outcome {
        let whole = received(answer, answer.len().max(1));
        for step in [1, 2, 3, 7] {
            assert_eq!(
                received(answer, step),
                whole,
                "{} by {step}",
                answer.escape_ascii()
            );
        }
        whole
    }

    fn switched(headers: &str) -> Outcome {
        agreed(format!("{SWITCH}{ACCEPT}{headers}\r\n").as_bytes())
    }

    fn refused(answer: &str) -> (u16, String) {
        match agreed(answer.as_bytes()) {
            Err(HandshakeError::Status { status, body }) => (status, body),
            other => panic!("not a refusal: {other:?}"),
        }
    }

    #[test]
    fn the_request_is_the_one_of_the_rfc() {
        let handshake = handshake().header("Origin", "http://example.com").unwrap();
        let mut out = Vec::new();
        handshake.request(&mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat, json\r\n\
             Sec-WebSocket-Extensions: permessage-deflate; a, x-other\r\n\
             Origin: http://example.com\r\n\r\n"
        );
    }

    #[test]
    fn what_cannot_stand_in_a_request_is_not_asked_for() {
        let invalid = |result: Result<ClientHandshake, HandshakeError>| {
            assert!(
                matches!(result, Err(HandshakeError::Invalid(_))),
                "{result:?}"
            );
        };
        for target in ["", "chat", "/a b", "/a\r\nX: b", "/a#b", "/caf\u{e9}"] {
            invalid(ClientHandshake::new("a", target, KEY));
        }
        invalid(ClientHandshake::new("a\r\nX: b", "/", KEY));
        invalid(handshake().protocol("chat"));
        invalid(handshake().protocol("a b"));
        invalid(handshake().extensions("a\r\nX: b"));
        invalid(handshake().header("X-A", "a\r\nX: b"));
        invalid(handshake().header("X A", "a"));
        invalid(handshake().header("sec-websocket-key", "a"));
    }

    #[test]
    fn an_answer_may_have_frames_right_behind_it() {
        let head = format!("{SWITCH}{ACCEPT}sec-websocket-protocol: json\r\n\r\n");
        let answer = [head.as_bytes(), b"\x81\x02hi\r\n\r\n"].concat();
        assert_eq!(
            agreed(&answer),
            Ok((Some("json".to_owned()), None, head.len()))
        );
        let (_, accepted) = handshake().receive(&answer).unwrap().unwrap();
        assert_eq!(accepted.headers().first("Upgrade"), Some("websocket"));
        assert_eq!(accepted.headers().iter().count(), 4);
    }

    #[test]
    fn interim_answers_are_passed_over_and_bounded() {
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        let answer = |count| format!("{}{SWITCH}{ACCEPT}\r\n", interim.repeat(count));
        let most = answer(INTERIM_MAX as usize);
        assert_eq!(agreed(most.as_bytes()), Ok((None, None, most.len())));
        let more = answer(INTERIM_MAX as usize + 1);
        assert!(matches!(
            agreed(more.as_bytes()),
            Err(HandshakeError::Malformed(_))
        ));
    }

    #[test]
    fn an_answer_that_does_not_fit_the_request_is_an_error() {
        use HandshakeError as E;
        let cases = [
            (
                SWITCH.replace("websocket", "h2c") + ACCEPT,
                E::MissingUpgrade,
            ),
            (
                SWITCH.replace("n: Upgrade", "n: close") + ACCEPT,
                E::MissingConnection,
            ),
            (SWITCH.to_owned(), E::WrongAccept),
            (
                SWITCH.to_owned() + &ACCEPT.replace("s3", "S3"),
                E::WrongAccept,
            ),
            (format!("{SWITCH}{ACCEPT}{ACCEPT}"), E::WrongAccept),
            (
                SWITCH.replace("1.1", "1.0") + ACCEPT,
                E::Malformed("expected an HTTP/1.1 response"),
            ),
        ];
        for (head, error) in cases {
            assert_eq!(
                agreed(format!("{head}\r\n").as_bytes()),
                Err(error),
                "{head}"
            );
        }
    }

    #[test]
    fn only_what_was_offered_may_be_chosen() {
        let (_, extensions, _) = switched("Sec-WebSocket-Extensions: x-other;q=1\r\n").unwrap();
        assert_eq!(extensions.as_deref(), Some("x-other;q=1"));
        let unasked = "Sec-WebSocket-Extensions: x-other, x-new; b\r\n";
        let error = HandshakeError::UnexpectedExtension("x-new".to_owned());
        assert_eq!(switched(unasked), Err(error));
        for chosen in ["Chat", "chat, json", ""] {
            let error = HandshakeError::UnexpectedProtocol(chosen.to_owned());
            assert_eq!(
                switched(&format!("Sec-WebSocket-Protocol: {chosen}\r\n")),
                Err(error)
            );
        }
    }

    #[test]
    fn a_refusal_is_reported_with_its_status_and_the_start_of_its_body() {
        let sized = "HTTP/1.1 503 \r\nContent-Length: 4\r\n\r\nfullGET";
        assert_eq!(refused(sized), (503, "full".to_owned()));
        assert_eq!(
            refused("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
            (404, "".into())
        );
        let chunked = "HTTP/1.1 403 \r\nTransfer-Encoding: chunked\r\n\r\n3\r\nno!\r\n0\r\n\r\n";
        assert_eq!(refused(chunked), (403, "no!".to_owned()));
        let ended = "HTTP/1.0 302 Found\r\n\r\ngone\x1b[2J";
        assert_eq!(refused(ended), (302, "gone\u{fffd}[2J".to_owned()));
        let endless = format!("HTTP/1.1 500 \r\n\r\n{}", "x".repeat(5000));
        assert_eq!(refused(&endless), (500, "x".repeat(1024)));
        let broken = "HTTP/1.1 500 \r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc0";
        assert_eq!(refused(broken), (500, "abc".to_owned()));
    }

    #[test]
    fn an_answer_that_is_no_http_or_never_ends_is_an_error() {
        for answer in [
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/1.1 101\n",
            "HTTP/1.1 1x1\r\n\r\n",
        ] {
            let outcome = agreed(answer.as_bytes());
            assert!(
                matches!(outcome, Err(HandshakeError::Malformed(_))),
                "{outcome:?}"
            );
        }
        let large = format!("{SWITCH}X: {}", "x".repeat(LIMITS.header_bytes_max));
        assert_eq!(agreed(large.as_bytes()), Err(HandshakeError::HeadTooLarge));
        let many = format!("{SWITCH}{}\r\n", "X: x\r\n".repeat(100));
        assert_eq!(agreed(many.as_bytes()), Err(HandshakeError::HeadTooLarge));
        assert_eq!(agreed(SWITCH.as_bytes()), Err(HandshakeError::Ended));
    }

    #[test]
    fn base64_agrees_at_its_edges() {
        assert_eq!(base64([0; 16]), "AAAAAAAAAAAAAAAAAAAAAA==");
        assert_eq!(base64([255; 16]), "/////////////////////w==");
        assert_eq!(base64(KEY), "dGhlIHNhbXBsZSBub25jZQ==");
    }
}
