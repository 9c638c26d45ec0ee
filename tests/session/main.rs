//! The session from outside: every rule of RFC 6455 with its close code, any script cut anywhere,
//! both roles joined in memory, and tungstenite as the judge of random streams.

mod closing;
mod cuts;
mod oracle;
mod rules;

use tidemill::protocol::{
    CloseCode, Event, Input, Message, ProtocolError, Role, Rules, Session,
    frame::{self, Data, OpCode},
};

pub const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// An event that owns what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(u16, String),
    Wrong(ProtocolError),
}

impl Said {
    fn of(event: Event<'_>) -> Self {
        match event {
            Event::Message(Message::Text(text)) => Self::Text(text.to_owned()),
            Event::Message(Message::Binary(bytes)) => Self::Binary(bytes.to_vec()),
            Event::Ping(payload) => Self::Ping(payload.to_vec()),
            Event::Pong(payload) => Self::Pong(payload.to_vec()),
            Event::Close(close) => Self::Close(close.code.into(), close.reason.to_owned()),
        }
    }
}

pub fn rules(role: Role, message_bytes_max: usize) -> Rules {
    Rules {
        role,
        message_bytes_max,
    }
}

/// Gives `session` these bytes, in pieces of the given sizes, and returns all that it says. As the
/// reactor does, the rest of a large frame goes straight into its message when `direct`.
pub fn drive(
    session: &mut Session,
    rules: &Rules,
    bytes: &[u8],
    mut next_cut: impl FnMut() -> usize,
    direct: bool,
) -> Vec<Said> {
    let mut said = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut piece = next_cut().clamp(1, rest.len());
        if direct && let Some((message, missing)) = session.direct() {
            let room = (message.capacity() - message.len()).min(missing).min(piece);
            message.extend_from_slice(&rest[..room]);
            rest = &rest[room..];
            piece -= room;
            if let Err(error) = session.received(room) {
                said.push(Said::Wrong(error));
                return said;
            }
        }
        let mut received = rest[..piece.min(rest.len())].to_vec();
        rest = &rest[received.len()..];
        let mut input = Input::new(&mut received);
        loop {
            match session.next(&mut input, rules) {
                Ok(Some(event)) => said.push(Said::of(event)),
                Ok(None) => break,
                Err(error) => {
                    said.push(Said::Wrong(error));
                    return said;
                }
            }
        }
    }
    said
}

/// What a fresh server says to all of `bytes` at once.
pub fn server_says(bytes: &[u8], message_bytes_max: usize) -> Vec<Said> {
    let rules = rules(Role::Server, message_bytes_max);
    drive(&mut Session::new(), &rules, bytes, || usize::MAX, false)
}

/// One frame with every bit of its first byte given, masked unless told otherwise.
pub fn frame(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(&mut bytes, OpCode::Data(Data::Binary), payload, mask);
    bytes[0] = first;
    bytes
}

pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(first, payload, Some(MASK))
}

pub fn close_body(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
}

pub fn code_of(said: &Said) -> Option<CloseCode> {
    match said {
        Said::Wrong(error) => Some(error.close_code()),
        _ => None,
    }
}
