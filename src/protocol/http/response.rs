//! Answers: a status, headers and a body that is known in full before it is sent.

use std::borrow::Cow;

use bytes::Bytes;

use super::{Reason, is_token};

/// The interim answer to `Expect: 100-continue`, sent before the body is read (RFC 9110, 15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// An answer to a plain HTTP request, built by value:
/// `Response::new(200).body("text/plain", "hello")`.
#[derive(Clone, Debug)]
pub struct Response {
    status: u16,
    content_type: Cow<'static, str>,
    headers: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    body: Bytes,
    close: bool,
    refused: Option<Reason>,
}

impl Response {
    /// An answer with this final status (200 to 599) and no body.
    pub fn new(status: u16) -> Response {
        debug_assert!(
            (200..600).contains(&status),
            "{status} is not a final status"
        );
        Response {
            status,
            content_type: Cow::Borrowed(""),
            headers: Vec::new(),
            body: Bytes::new(),
            close: false,
            refused: None,
        }
    }

    /// Sets the body and its media type. Static pages are `Bytes::from_static`: never copied.
    pub fn body(
        mut self,
        content_type: impl Into<Cow<'static, str>>,
        body: impl Into<Bytes>,
    ) -> Response {
        self.content_type = content_type.into();
        self.body = body.into();
        self
    }

    /// Adds a header. Those that frame the answer (`Connection`, `Content-Length`,
    /// `Content-Type`, `Transfer-Encoding`) are written by [`Response::encode`] and left out
    /// here, as is one whose name is not a token. Control bytes in the value become spaces.
    pub fn header(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Response {
        let name = name.into();
        if !FRAMING
            .iter()
            .any(|framing| framing.eq_ignore_ascii_case(&name))
        {
            self.headers.push((name, value.into()));
        }
        self
    }

    /// Ends the connection after this answer, whatever the request asked for.
    pub fn close(mut self) -> Response {
        self.close = true;
        self
    }

    /// Notes that this answer turns the request away, and why.
    pub(super) fn refused(mut self, reason: Reason) -> Response {
        self.refused = Some(reason);
        self
    }

    /// Why the request is turned away, where the answer is that of a refusal.
    pub fn refusal(&self) -> Option<Reason> {
        self.refused
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether this answer ends its connection even if the request would keep it.
    pub fn closes(&self) -> bool {
        self.close
    }

    /// Appends the answer to `out`. `server` is the `Server` header; `keep_alive` is whether the
    /// connection stays (unless this answer closes it); `head_only` leaves the body out but
    /// keeps its length, as a HEAD request wants (RFC 9110, 9.3.2).
    pub fn encode(
        &self,
        out: &mut Vec<u8>,
        server: Option<&str>,
        keep_alive: bool,
        head_only: bool,
    ) {
        out.extend_from_slice(b"HTTP/1.1 ");
        push_decimal(out, u64::from(self.status));
        out.push(b' ');
        out.extend_from_slice(phrase(self.status).as_bytes());
        out.extend_from_slice(b"\r\n");
        if let Some(server) = server {
            push_header(out, "Server", server);
        }
        let connection = if keep_alive && !self.close {
            "keep-alive"
        } else {
            "close"
        };
        push_header(out, "Connection", connection);
        if !self.content_type.is_empty() {
            push_header(out, "Content-Type", &self.content_type);
        }
        // RFC 9110, 8.6: no Content-Length in a 204; 15.4.5: a 304 has no body of its own.
        let bodiless = matches!(self.status, 204 | 304);
        if !bodiless {
            out.extend_from_slice(b"Content-Length: ");
            push_decimal(out, self.body.len() as u64);
            out.extend_from_slice(b"\r\n");
        }
        for (name, value) in &self.headers {
            push_header(out, name, value);
        }
        out.extend_from_slice(b"\r\n");
        if !bodiless && !head_only {
            out.extend_from_slice(&self.body);
        }
    }
}

/// Appends one header line that cannot become two: a name that is no token leaves the line out,
/// and control bytes in the value are replaced by spaces as RFC 9110, 5.5 advises, because a value
/// may carry what a peer sent.
pub(in crate::protocol) fn push_header(out: &mut Vec<u8>, name: &str, value: &str) {
    if !is_token(name.as_bytes()) {
        return;
    }
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    if value.bytes().any(|byte| byte.is_ascii_control()) {
        out.extend(
            value
                .bytes()
                .map(|byte| if byte.is_ascii_control() { b' ' } else { byte }),
        );
    } else {
        out.extend_from_slice(value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

const FRAMING: [&str; 4] = [
    "Connection",
    "Content-Length",
    "Content-Type",
    "Transfer-Encoding",
];

fn push_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// The reason phrase. RFC 9112, 4 lets it be empty, as it is for statuses nobody sends here.
fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(response: &Response, keep_alive: bool, head_only: bool) -> String {
        let mut out = Vec::new();
        response.encode(&mut out, Some("tidemill"), keep_alive, head_only);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_answer_is_written_in_full() {
        let response = Response::new(200)
            .body("text/plain", "hello")
            .header("Cache-Control", "no-store");
        assert_eq!(
            encoded(&response, true, false),
            "HTTP/1.1 200 OK\r\nServer: tidemill\r\nConnection: keep-alive\r\n\
             Content-Type: text/plain\r\nContent-Length: 5\r\nCache-Control: no-store\r\n\r\nhello"
        );
    }

    #[test]
    fn a_head_request_gets_the_same_head_without_the_body() {
        let response = Response::new(200).body("text/plain", "hello");
        let whole = encoded(&response, false, false);
        assert_eq!(
            encoded(&response, false, true),
            whole.strip_suffix("hello").unwrap()
        );
    }

    #[test]
    fn an_answer_that_closes_overrules_keep_alive() {
        let response = Response::new(404).close();
        assert!(response.closes());
        assert!(encoded(&response, true, false).contains("\r\nConnection: close\r\n"));
    }

    #[test]
    fn no_content_and_not_modified_have_neither_length_nor_body() {
        for status in [204, 304] {
            let answer = encoded(
                &Response::new(status).body("text/plain", "hello"),
                true,
                false,
            );
            assert!(!answer.contains("Content-Length"), "{answer}");
            assert!(answer.ends_with("\r\n\r\n"), "{answer}");
        }
    }

    #[test]
    fn a_header_cannot_smuggle_a_second_line() {
        let response = Response::new(200)
            .header("X-Echo", "a\r\nSet-Cookie: b\0c")
            .header("X Bad", "dropped")
            .header("content-length", "99");
        let answer = encoded(&response, true, false);
        assert!(
            answer.contains("\r\nX-Echo: a  Set-Cookie: b c\r\n"),
            "{answer}"
        );
        assert!(!answer.contains("dropped"), "{answer}");
        assert_eq!(
            answer
                .to_ascii_lowercase()
                .matches("content-length")
                .count(),
            1
        );
    }

    #[test]
    fn decimals_are_written_at_both_ends_of_their_range() {
        for number in [0, 9, 10, 65_536, u64::MAX] {
            let mut out = Vec::new();
            push_decimal(&mut out, number);
            assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }
}
