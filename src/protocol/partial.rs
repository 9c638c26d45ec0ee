//! What a session keeps while a frame or a message is cut by the end of the input. It lives in a
//! box, and no longer than it is needed.

use super::{
    error::ProtocolError,
    frame::{self, Data, Header, OpCode},
    input::{Input, Place},
};

/// An event before its payload is borrowed.
pub(super) enum Step {
    Starved,
    Frame(OpCode, Place),
}

/// What a session keeps while a frame or message is cut by the end of the input.
#[derive(Debug, Default)]
pub(super) struct Partial {
    /// An incomplete header, or a control frame that is not all there.
    pub(super) raw: Vec<u8>,
    /// The data frame whose payload is being received.
    pub(super) frame: Option<Payload>,
    /// Kind of the message under way: `Text` or `Binary`.
    pub(super) kind: Option<Data>,
    /// Its unmasked payload so far.
    pub(super) message: Vec<u8>,
    /// How much of `message` is known to be whole UTF-8 characters.
    pub(super) checked: usize,
    /// When the reactor first saw this message, in its ticks; 0 is not yet.
    pub(super) since: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Payload {
    pub(super) left: u64,
    pub(super) mask: Option<[u8; 4]>,
    /// Payload position, for the mask.
    pub(super) at: usize,
    pub(super) is_final: bool,
}

impl Payload {
    pub(super) fn of(header: &Header) -> Self {
        Self {
            left: header.length,
            mask: header.mask,
            at: 0,
            is_final: header.is_final,
        }
    }
}

impl Partial {
    /// Moves payload from the input into the message; gives the message once it is whole.
    pub(super) fn take_payload(
        &mut self,
        input: &mut Input<'_>,
    ) -> Result<Option<Step>, ProtocolError> {
        let Some(mut payload) = self.frame.take() else {
            return Ok(None);
        };
        let rest = input.rest();
        let taken = rest
            .len()
            .min(usize::try_from(payload.left).unwrap_or(usize::MAX));
        let start = self.message.len();
        self.message.extend_from_slice(&rest[..taken]);
        input.at += taken;
        if let Some(mask) = payload.mask {
            frame::unmask(&mut self.message[start..], mask, payload.at);
        }
        payload.at += taken;
        payload.left -= taken as u64;
        if taken > 0 {
            self.check_text()?;
        }
        if payload.left > 0 {
            self.frame = Some(payload);
            return Ok(Some(Step::Starved));
        }
        if !payload.is_final {
            return Ok(None);
        }
        let kind = self.kind.take().unwrap_or(Data::Binary);
        let place = input.hold(std::mem::take(&mut self.message));
        self.checked = 0;
        Ok(Some(Step::Frame(OpCode::Data(kind), place)))
    }

    /// Fails at the first byte that no continuation could make valid (RFC 6455, 8.1), so that a
    /// long bad text is not received to its end.
    pub(super) fn check_text(&mut self) -> Result<(), ProtocolError> {
        if self.kind != Some(Data::Text) {
            return Ok(());
        }
        match simdutf8::compat::from_utf8(&self.message[self.checked..]) {
            Ok(_) => self.checked = self.message.len(),
            Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
            Err(_) => return Err(ProtocolError::InvalidUtf8),
        }
        Ok(())
    }

    pub(super) fn is_clean(&self) -> bool {
        self.raw.is_empty() && self.frame.is_none() && self.kind.is_none()
    }
}
