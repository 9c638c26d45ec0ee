//! The state machine of one open WebSocket connection, in either role.
//!
//! [`Session::next`] takes received bytes and gives one [`Event`] at a time. A whole frame is
//! unmasked where it lies and lent to the caller; only what is cut by the end of the input is
//! kept, in a box that exists no longer than it is needed. An idle session is sixteen bytes.
//!
//! The session enforces RFC 6455 on what comes in. What goes out is encoded by
//! [`frame`]; the session only remembers whether a Close was sent.

use super::{
    error::ProtocolError,
    frame::{self, CONTROL_BYTES_MAX, Data, Header, OpCode, Plain},
    input::Place,
    message::event,
    partial::{Partial, Payload, Step},
};
pub use super::{
    input::Input,
    message::{Close, Event, Message},
};

/// From this many bytes on, a message is received straight into its own buffer.
pub const LARGE_BYTES: usize = 4096;

/// From this many bytes on, a payload may be lent until the whole input is done with, to be sent
/// from where it lies instead of being copied.
pub const LEND_BYTES: usize = 512;

/// The first reservation for a message that comes in parts; it doubles from there. What a header
/// announces is never reserved, so that fourteen bytes cannot cost sixteen megabytes.
const GROWTH_BYTES: usize = 64 * 1024;

/// Which end of the connection a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Server,
    Client,
}

/// What holds for all sessions of a server.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub role: Role,
    /// The largest message, inclusive, in bytes.
    pub message_bytes_max: usize,
}

/// RFC 6455, 4.1 and 7.1: `CONNECTING` is the handshake's; these are the states after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Open,
    /// We sent a Close and wait for the other one. Messages are read and dropped.
    Closing,
    /// A Close came, or the other side broke the protocol: nothing more is read.
    Closed,
}

/// One connection after its handshake. See the module's text.
#[derive(Debug)]
pub struct Session {
    partial: Option<Box<Partial>>,
    state: State,
    text_only: bool,
    close_sent: bool,
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    pub fn new() -> Self {
        Self {
            partial: None,
            state: State::Open,
            text_only: false,
            close_sent: false,
        }
    }

    /// Refuses binary messages with 1003 (RFC 6455, 7.4.1), at the header of the first.
    pub fn text_only(mut self) -> Self {
        self.text_only = true;
        self
    }

    pub fn state(&self) -> State {
        self.state
    }

    /// Notes that a Close frame goes out. `false` when one did before: an endpoint sends one
    /// (RFC 6455, 5.5.1).
    pub fn close(&mut self) -> bool {
        if self.state == State::Open {
            self.state = State::Closing;
        }
        !std::mem::replace(&mut self.close_sent, true)
    }

    /// Nothing more will be read, for good or bad.
    pub fn end(&mut self) {
        self.state = State::Closed;
        self.partial = None;
    }

    /// The next event of `input`, or `None` when its end was reached. After an error the session
    /// is closed; the error's code goes into the Close frame that answers it.
    #[inline]
    pub fn next<'i>(
        &mut self,
        input: &'i mut Input<'_>,
        rules: &Rules,
    ) -> Result<Option<Event<'i>>, ProtocolError> {
        input.release_small();
        if let Some((kind, place)) = self.plain_frame(input, rules) {
            let payload = input.slice(place);
            return match kind {
                Data::Text => self.text(payload).map(Some),
                _ => Ok(Some(Event::Message(Message::Binary(payload)))),
            };
        }
        self.next_by_rules(input, rules)
    }

    /// The frame at hand, if it is a whole message that breaks no rule: the shortest way, for
    /// nearly every frame that a server receives.
    #[inline]
    fn plain_frame(&self, input: &mut Input<'_>, rules: &Rules) -> Option<(Data, Place)> {
        if self.partial.is_some() || self.state != State::Open || rules.role != Role::Server {
            return None;
        }
        let plain = Plain::parse(&input.bytes[input.at..])?;
        let start = input.at + plain.size;
        let payload = input.bytes.get_mut(start..start + plain.length)?;
        if plain.length > rules.message_bytes_max || (self.text_only && plain.kind == Data::Binary)
        {
            return None;
        }
        frame::unmask(payload, plain.mask, 0);
        input.at = start + plain.length;
        Some((
            plain.kind,
            Place {
                held: false,
                start,
                end: input.at,
            },
        ))
    }

    #[inline]
    fn text<'i>(&mut self, payload: &'i [u8]) -> Result<Event<'i>, ProtocolError> {
        match simdutf8::basic::from_utf8(payload) {
            Ok(text) => Ok(Event::Message(Message::Text(text))),
            Err(_) => {
                self.end();
                Err(ProtocolError::InvalidUtf8)
            }
        }
    }

    /// Any frame, by every rule.
    fn next_by_rules<'i>(
        &mut self,
        input: &'i mut Input<'_>,
        rules: &Rules,
    ) -> Result<Option<Event<'i>>, ProtocolError> {
        let result = self.step(input, rules).and_then(|step| match step {
            Step::Starved => Ok(None),
            Step::Frame(opcode, place) => event(opcode, input.slice(place)).map(Some),
        });
        match result {
            Ok(Some(Event::Close(_))) | Err(_) => self.end(),
            _ => {}
        }
        result
    }

    /// True while part of a message has come and the rest has not.
    pub fn is_mid_message(&self) -> bool {
        self.partial.is_some()
    }

    /// Bytes kept for a message under way.
    pub fn buffered_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| {
            size_of::<Partial>() + partial.raw.capacity() + partial.message.capacity()
        })
    }

    /// When the message under way began. The first call with a partial message sets it to `now`:
    /// the session has no clock of its own.
    pub fn message_since(&mut self, now: u32) -> Option<u32> {
        let partial = self.partial.as_mut()?;
        if partial.since == 0 {
            partial.since = now;
        }
        Some(partial.since)
    }

    /// Where the rest of a large frame may be received without a detour: the message buffer and
    /// how many bytes of the frame are missing. Tell [`Session::received`] what was appended.
    pub fn direct(&mut self) -> Option<(&mut Vec<u8>, usize)> {
        let partial = self.partial.as_mut()?;
        let left = usize::try_from(partial.frame?.left).unwrap_or(usize::MAX);
        if left < LARGE_BYTES {
            return None;
        }
        let room = left.min(GROWTH_BYTES.max(partial.message.len()));
        if partial.message.capacity() - partial.message.len() < room {
            partial.message.reserve_exact(room);
        }
        Some((&mut partial.message, left))
    }

    /// `count` bytes of payload were appended to the buffer that [`Session::direct`] gave.
    pub fn received(&mut self, count: usize) -> Result<(), ProtocolError> {
        let Some(partial) = self.partial.as_mut() else {
            return Ok(());
        };
        let Some(payload) = partial.frame.as_mut() else {
            return Ok(());
        };
        let start = partial.message.len() - count;
        if let Some(mask) = payload.mask {
            frame::unmask(&mut partial.message[start..], mask, payload.at);
        }
        payload.at += count;
        payload.left -= count as u64;
        let checked = partial.check_text();
        if checked.is_err() {
            self.end();
        }
        checked
    }

    fn step(&mut self, input: &mut Input<'_>, rules: &Rules) -> Result<Step, ProtocolError> {
        loop {
            if self.state == State::Closed {
                input.at = input.bytes.len();
            }
            let step = match self.partial {
                None => self.whole_frame(input, rules)?,
                Some(_) => self.resume(input, rules)?,
            };
            return Ok(match step {
                // Between two states: look again.
                None => continue,
                // After our Close, messages are read and dropped (RFC 6455, 1.4).
                Some(Step::Frame(OpCode::Data(_), _)) if self.state == State::Closing => continue,
                Some(step) => step,
            });
        }
    }

    /// Nothing is pending: the next frame begins in the input.
    fn whole_frame(
        &mut self,
        input: &mut Input<'_>,
        rules: &Rules,
    ) -> Result<Option<Step>, ProtocolError> {
        let available = &input.bytes[input.at..];
        if available.is_empty() {
            return Ok(Some(Step::Starved));
        }
        let Some(header) = Header::parse(available)? else {
            self.keep(Partial {
                raw: available.to_vec(),
                ..Partial::default()
            });
            input.at = input.bytes.len();
            return Ok(Some(Step::Starved));
        };
        self.admit(&header, None, 0, rules)?;
        let start = input.at + header.size;
        let whole = header.length <= (input.bytes.len() - start) as u64;
        match header.opcode {
            OpCode::Control(_) if !whole => {
                self.keep(Partial {
                    raw: available.to_vec(),
                    ..Partial::default()
                });
                input.at = input.bytes.len();
                Ok(Some(Step::Starved))
            }
            OpCode::Data(kind) if !whole || !header.is_final => {
                self.keep(Partial {
                    frame: Some(Payload::of(&header)),
                    kind: Some(kind),
                    ..Partial::default()
                });
                input.at = start;
                Ok(None)
            }
            opcode => {
                let end = start + header.length as usize;
                if let Some(mask) = header.mask {
                    frame::unmask(&mut input.bytes[start..end], mask, 0);
                }
                input.at = end;
                Ok(Some(Step::Frame(
                    opcode,
                    Place {
                        held: false,
                        start,
                        end,
                    },
                )))
            }
        }
    }

    /// Goes on with what an earlier input, or an earlier frame of this one, left.
    fn resume(
        &mut self,
        input: &mut Input<'_>,
        rules: &Rules,
    ) -> Result<Option<Step>, ProtocolError> {
        let Some(mut partial) = self.partial.take() else {
            return Ok(None);
        };
        let step = if partial.frame.is_some() {
            partial.take_payload(input)
        } else {
            self.take_frame(&mut partial, input, rules)
        }?;
        if !partial.is_clean() {
            self.partial = Some(partial);
        }
        Ok(step)
    }

    /// Collects the next header of a fragmented message, or any header or control frame that was
    /// cut; at most 139 bytes.
    fn take_frame(
        &self,
        partial: &mut Partial,
        input: &mut Input<'_>,
        rules: &Rules,
    ) -> Result<Option<Step>, ProtocolError> {
        loop {
            // Without bytes from before, the frame can be read where it lies.
            let from_input = partial.raw.is_empty();
            let bytes = if from_input {
                &input.bytes[input.at..]
            } else {
                &partial.raw[..]
            };
            let Some(header) = Header::parse(bytes)? else {
                let Some(byte) = input.bytes.get(input.at) else {
                    return Ok(Some(Step::Starved));
                };
                partial.raw.push(*byte);
                input.at += 1;
                continue;
            };
            self.admit(&header, partial.kind, partial.message.len(), rules)?;
            if from_input {
                let size = header.size;
                partial
                    .raw
                    .extend_from_slice(&input.bytes[input.at..input.at + size]);
                input.at += size;
            }
            let OpCode::Control(_) = header.opcode else {
                partial.raw = Vec::new();
                partial.frame = Some(Payload::of(&header));
                if let OpCode::Data(kind @ (Data::Text | Data::Binary)) = header.opcode {
                    partial.kind = Some(kind);
                }
                return Ok(None);
            };
            let missing = header.size + header.length as usize - partial.raw.len();
            let rest = input.rest();
            let taken = missing.min(rest.len());
            partial.raw.extend_from_slice(&rest[..taken]);
            input.at += taken;
            if taken < missing {
                return Ok(Some(Step::Starved));
            }
            let mut raw = std::mem::take(&mut partial.raw);
            if let Some(mask) = header.mask {
                frame::unmask(&mut raw[header.size..], mask, 0);
            }
            let mut place = input.hold(raw);
            place.start = header.size;
            return Ok(Some(Step::Frame(header.opcode, place)));
        }
    }

    /// Every rule about whether this frame may come now. `kind` and `so_far` describe the
    /// message under way.
    #[inline]
    fn admit(
        &self,
        header: &Header,
        kind: Option<Data>,
        so_far: usize,
        rules: &Rules,
    ) -> Result<(), ProtocolError> {
        if header.reserved {
            return Err(ProtocolError::ReservedBit);
        }
        match (rules.role, header.mask) {
            (Role::Server, None) => return Err(ProtocolError::Unmasked),
            (Role::Client, Some(_)) => return Err(ProtocolError::Masked),
            _ => {}
        }
        match header.opcode {
            OpCode::Control(_) if !header.is_final => return Err(ProtocolError::FragmentedControl),
            OpCode::Control(_) if header.length > CONTROL_BYTES_MAX as u64 => {
                return Err(ProtocolError::ControlTooLong);
            }
            OpCode::Control(_) => return Ok(()),
            OpCode::Data(Data::Continue) if kind.is_none() => {
                return Err(ProtocolError::UnexpectedContinuation);
            }
            OpCode::Data(Data::Text | Data::Binary) if kind.is_some() => {
                return Err(ProtocolError::ExpectedContinuation);
            }
            OpCode::Data(Data::Binary) if self.text_only => {
                return Err(ProtocolError::BinaryUnsupported);
            }
            OpCode::Data(_) => {}
        }
        if header.length > (rules.message_bytes_max.saturating_sub(so_far)) as u64 {
            return Err(ProtocolError::MessageTooBig);
        }
        Ok(())
    }

    #[cold]
    fn keep(&mut self, partial: Partial) {
        self.partial = Some(Box::new(partial));
    }
}
