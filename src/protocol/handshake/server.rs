//! The server's side: choosing a subprotocol and writing the 101.

use tungstenite::handshake::derive_accept_key;

use crate::protocol::http::{Upgrade, push_header};

/// The first subprotocol offered that is allowed. With none, the answer carries no
/// `Sec-WebSocket-Protocol` and the client decides whether it goes on (RFC 6455, 4.2.2).
pub fn select_protocol<'r>(
    offered: impl IntoIterator<Item = &'r str>,
    allowed: &[String],
) -> Option<&'r str> {
    offered
        .into_iter()
        .find(|offer| allowed.iter().any(|protocol| protocol == offer))
}

/// Appends the answer that turns the connection into a WebSocket (RFC 6455, 4.2.2).
///
/// `headers` are the application's: those that the handshake itself is made of are left out, so
/// that none is doubled. `server` is the `Server` header.
pub fn accept(
    upgrade: &Upgrade<'_>,
    protocol: Option<&str>,
    headers: &[(String, String)],
    server: Option<&str>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Accept: ",
    );
    out.extend_from_slice(derive_accept_key(upgrade.key().as_bytes()).as_bytes());
    out.extend_from_slice(b"\r\n");
    if let Some(protocol) = protocol {
        push_header(out, "Sec-WebSocket-Protocol", protocol);
    }
    if let Some(server) = server {
        push_header(out, "Server", server);
    }
    for (name, value) in headers {
        if !OURS.iter().any(|ours| ours.eq_ignore_ascii_case(name)) {
            push_header(out, name, value);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// RFC 9110, 8.6 and RFC 9112, 6.1: a 1xx answer has no length and no coding either.
const OURS: [&str; 6] = [
    "Upgrade",
    "Connection",
    "Sec-WebSocket-Accept",
    "Sec-WebSocket-Protocol",
    "Content-Length",
    "Transfer-Encoding",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::http::{Intent, Limits, Request};

    const HEAD: &[u8] = b"GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";

    fn accepted(
        protocol: Option<&str>,
        headers: &[(String, String)],
        server: Option<&str>,
    ) -> String {
        let request = Request::parse(HEAD, &Limits::default()).unwrap();
        let Intent::Upgrade(upgrade) = request.intent() else {
            panic!("no upgrade")
        };
        let mut out = Vec::new();
        accept(&upgrade, protocol, headers, server, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn header(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn the_example_of_the_rfc_is_answered_as_it_says() {
        assert_eq!(
            accepted(None, &[], None),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
    }

    #[test]
    fn a_chosen_protocol_and_the_headers_of_the_application_are_added() {
        let answer = accepted(
            Some("chat"),
            &[header("X-Node", "a\r\nb")],
            Some("tidemill"),
        );
        let (_, added) = answer.split_once("xOo=\r\n").unwrap();
        assert_eq!(
            added,
            "Sec-WebSocket-Protocol: chat\r\nServer: tidemill\r\nX-Node: a  b\r\n\r\n"
        );
    }

    #[test]
    fn the_application_cannot_double_what_the_handshake_says() {
        let headers: Vec<_> = OURS
            .iter()
            .map(|name| header(&name.to_lowercase(), "x"))
            .collect();
        assert_eq!(accepted(None, &headers, None), accepted(None, &[], None));
    }

    #[test]
    fn the_first_protocol_offered_that_is_allowed_is_chosen() {
        let allowed = ["json".to_owned(), "chat".to_owned()];
        assert_eq!(
            select_protocol(["mqtt", "chat", "json"], &allowed),
            Some("chat")
        );
        // RFC 6455, 1.9: subprotocol names are compared as they stand.
        assert_eq!(select_protocol(["Chat"], &allowed), None);
        assert_eq!(select_protocol([], &allowed), None);
        assert_eq!(select_protocol(["chat"], &[]), None);
    }
}
