//! The close handshake in all its orders (RFC 6455, 5.5.1, 7.1 and 7.4).

use tidemill::protocol::{CloseCode, ProtocolError, Role, Session, State, frame};

use super::{MASK, Said, close_body, drive, masked, rules, server_says};

/// Both ends of a connection, joined in memory.
struct Pair {
    ends: [(Role, Session); 2],
}

impl Pair {
    fn new() -> Self {
        Self {
            ends: [
                (Role::Server, Session::new()),
                (Role::Client, Session::new()),
            ],
        }
    }

    /// The end of this role begins or answers a close; what it sends, if it has not before.
    fn close(&mut self, role: Role, code: CloseCode, reason: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let (_, session) = &mut self.ends[role as usize];
        if session.close() {
            let mask = (role == Role::Client).then_some(MASK);
            frame::encode_close(&mut bytes, code, reason, mask);
        }
        bytes
    }

    fn hear(&mut self, role: Role, bytes: &[u8]) -> Vec<Said> {
        let (role, session) = &mut self.ends[role as usize];
        drive(session, &rules(*role, 1000), bytes, || 3, false)
    }

    fn state(&self, role: Role) -> State {
        self.ends[role as usize].1.state()
    }
}

#[test]
fn either_side_may_close_first() {
    for (first, second) in [(Role::Server, Role::Client), (Role::Client, Role::Server)] {
        let mut pair = Pair::new();
        let sent = pair.close(first, CloseCode::Away, "going");
        assert_eq!(pair.state(first), State::Closing);
        assert_eq!(
            pair.hear(second, &sent),
            [Said::Close(1001, "going".to_owned())]
        );
        assert_eq!(pair.state(second), State::Closed);
        let answer = pair.close(second, CloseCode::Away, "");
        assert_eq!(
            pair.hear(first, &answer),
            [Said::Close(1001, String::new())]
        );
        assert_eq!(pair.state(first), State::Closed);
        assert!(
            pair.close(first, CloseCode::Normal, "").is_empty(),
            "a second Close"
        );
    }
}

#[test]
fn both_sides_may_close_at_once() {
    let mut pair = Pair::new();
    let from_server = pair.close(Role::Server, CloseCode::Normal, "");
    let from_client = pair.close(Role::Client, CloseCode::Normal, "");
    assert_eq!(
        pair.hear(Role::Client, &from_server),
        [Said::Close(1000, String::new())]
    );
    assert_eq!(
        pair.hear(Role::Server, &from_client),
        [Said::Close(1000, String::new())]
    );
    assert!(pair.close(Role::Server, CloseCode::Normal, "").is_empty());
    assert!(pair.close(Role::Client, CloseCode::Normal, "").is_empty());
}

#[test]
fn messages_behind_our_close_are_dropped_and_pings_are_not() {
    let mut session = Session::new();
    assert!(session.close());
    let bytes = [
        masked(0x81, b"late"),
        masked(0x01, b"la"),
        masked(0x89, b"p"),
        masked(0x80, b"te"),
        masked(0x88, &close_body(1000, b"")),
    ]
    .concat();
    let said = drive(&mut session, &rules(Role::Server, 100), &bytes, || 4, false);
    assert_eq!(
        said,
        [Said::Ping(b"p".to_vec()), Said::Close(1000, String::new())]
    );
}

#[test]
fn nothing_is_heard_behind_their_close() {
    let bytes = [masked(0x88, b""), masked(0x81, b"late"), vec![0xff; 10]].concat();
    assert_eq!(server_says(&bytes, 100), [Said::Close(1005, String::new())]);
}

#[test]
fn codes_that_may_be_sent_are_told_from_those_that_may_not() {
    let allowed = |code: u16| matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    for code in (0..=5100).chain([9999, 32768, 65535]) {
        let said = server_says(&masked(0x88, &close_body(code, b"why")), 100);
        let expected = if allowed(code) {
            Said::Close(code, "why".to_owned())
        } else {
            Said::Wrong(ProtocolError::InvalidCloseCode)
        };
        assert_eq!(said, [expected], "{code}");
    }
    assert_eq!(
        ProtocolError::InvalidCloseCode.close_code(),
        CloseCode::Protocol
    );
}

#[test]
fn a_close_body_is_empty_or_a_code_with_a_reason_in_utf8() {
    let one_byte = server_says(&masked(0x88, b"\x03"), 100);
    assert_eq!(one_byte, [Said::Wrong(ProtocolError::MalformedClose)]);
    let bad_reason = server_says(&masked(0x88, &close_body(1000, b"\xc3\x28")), 100);
    assert_eq!(bad_reason, [Said::Wrong(ProtocolError::InvalidUtf8)]);
    let longest = "é".repeat(61);
    let said = server_says(&masked(0x88, &close_body(1000, longest.as_bytes())), 100);
    assert_eq!(said, [Said::Close(1000, longest)]);
}
