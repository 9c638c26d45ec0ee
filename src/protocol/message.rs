//! What a session gives: messages, and the control frames around them.

use super::{
    error::ProtocolError,
    frame::{CloseCode, Control, Data, OpCode},
};

/// A data message: text is valid UTF-8 (RFC 6455, 5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
}

impl<'a> Message<'a> {
    /// The payload, whatever its kind.
    #[inline]
    pub fn as_bytes(&self) -> &'a [u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    pub(crate) fn opcode(&self) -> OpCode {
        match self {
            Self::Text(_) => OpCode::Data(Data::Text),
            Self::Binary(_) => OpCode::Data(Data::Binary),
        }
    }
}

/// The body of a Close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close<'a> {
    /// [`CloseCode::Status`] (1005) when the frame had no body (RFC 6455, 7.1.5).
    pub code: CloseCode,
    pub reason: &'a str,
}

/// What the other side said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    Message(Message<'a>),
    /// Wants a Pong with the same payload (RFC 6455, 5.5.3).
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    /// Wants a Close in return, unless one was sent before (RFC 6455, 5.5.1). The last event.
    Close(Close<'a>),
}

/// Gives a complete, unmasked frame its meaning.
#[inline]
pub(super) fn event(opcode: OpCode, payload: &[u8]) -> Result<Event<'_>, ProtocolError> {
    Ok(match opcode {
        OpCode::Data(Data::Text) => {
            let text = simdutf8::basic::from_utf8(payload);
            Event::Message(Message::Text(text.map_err(|_| ProtocolError::InvalidUtf8)?))
        }
        OpCode::Data(_) => Event::Message(Message::Binary(payload)),
        OpCode::Control(Control::Ping) => Event::Ping(payload),
        OpCode::Control(Control::Pong) => Event::Pong(payload),
        OpCode::Control(_) => Event::Close(close(payload)?),
    })
}

/// RFC 6455, 5.5.1 and 7.4: the body of a Close frame.
fn close(payload: &[u8]) -> Result<Close<'_>, ProtocolError> {
    let (code, reason) = match payload {
        [] => {
            return Ok(Close {
                code: CloseCode::Status,
                reason: "",
            });
        }
        [_] => return Err(ProtocolError::MalformedClose),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    // RFC 6455, 7.4.2, and the registry: 1004-1006 and 1015 are never sent, 1016-2999 are
    // unassigned. 1012-1014 were registered later.
    let valid = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    if !valid {
        return Err(ProtocolError::InvalidCloseCode);
    }
    let reason = std::str::from_utf8(reason).map_err(|_| ProtocolError::InvalidUtf8)?;
    Ok(Close {
        code: code.into(),
        reason,
    })
}
