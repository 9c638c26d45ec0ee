//! What a thread sends, encoded once: the load must cost the machine less than the server does.

use crate::protocol::{
    Message,
    frame::{self, Control, OpCode},
};

/// Frames that lie ready behind each other, up to this many bytes.
const READY_BYTES_MAX: usize = 64 * 1024;

/// The message of a run as masked frames, and the ping. RFC 6455, 5.3, wants a new mask for each
/// frame, so that a page cannot choose what a proxy sees; here nobody hides behind a proxy, and one
/// mask a thread does.
#[derive(Debug)]
pub struct Frames {
    messages: Vec<u8>,
    message_bytes: usize,
    ping: Vec<u8>,
    mask: [u8; 4],
    opcode: OpCode,
    publication: Vec<u8>,
}

/// What a publication carries in front: three hexadecimal numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Counts the publications from 0.
    pub number: u32,
    /// When the plan said to send it.
    pub planned: u64,
    pub sent: u64,
}

/// Bytes of a stamp.
pub const STAMP_BYTES: usize = 40;

impl Stamp {
    /// The stamp of a message, if it carries one.
    pub fn of(payload: &[u8]) -> Option<Self> {
        let text = str::from_utf8(payload.get(..STAMP_BYTES)?).ok()?;
        let number = |from, to| u64::from_str_radix(text.get(from..to)?, 16).ok();
        Some(Self {
            number: u32::try_from(number(0, 8)?).ok()?,
            planned: number(8, 24)?,
            sent: number(24, 40)?,
        })
    }
}

/// What our pings carry.
pub const PING: &[u8] = b"tidemill";

impl Frames {
    /// Frames of `message`, of which up to `depth` are sent at once.
    pub fn new(message: Message<'_>, depth: usize, mask: [u8; 4]) -> Self {
        let mut messages = Vec::new();
        frame::encode(
            &mut messages,
            message.opcode(),
            message.as_bytes(),
            Some(mask),
        );
        let message_bytes = messages.len();
        let copies = depth.clamp(1, (READY_BYTES_MAX / message_bytes).max(1));
        let messages = messages.repeat(copies);
        let mut ping = Vec::new();
        frame::encode(&mut ping, OpCode::Control(Control::Ping), PING, Some(mask));
        Self {
            messages,
            message_bytes,
            ping,
            mask,
            opcode: message.opcode(),
            publication: message.as_bytes().to_vec(),
        }
    }

    /// As many as `count` messages, and how many they are.
    pub fn messages(&self, count: usize) -> (&[u8], usize) {
        let count = count.min(self.messages.len() / self.message_bytes);
        (&self.messages[..count * self.message_bytes], count)
    }

    pub fn ping(&self) -> &[u8] {
        &self.ping
    }

    /// The message with a stamp in front, so that each subscriber's copy tells its latency, and
    /// whether one is missing before it.
    pub fn publication(&mut self, stamp: Stamp) -> Vec<u8> {
        let Stamp {
            number,
            planned,
            sent,
        } = stamp;
        let stamp = format!("{number:08x}{planned:016x}{sent:016x}");
        self.publication[..STAMP_BYTES].copy_from_slice(stamp.as_bytes());
        let mut out = Vec::new();
        frame::encode(&mut out, self.opcode, &self.publication, Some(self.mask));
        out
    }

    /// A control frame.
    pub fn control(&self, control: Control, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frame::encode(&mut out, OpCode::Control(control), payload, Some(self.mask));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Event, Input, Role, Rules, Session};

    #[test]
    fn a_publication_carries_its_times() {
        let text = "x".repeat(50);
        let mut frames = Frames::new(Message::Text(&text), 1, [5, 6, 7, 8]);
        let sent = Stamp {
            number: u32::MAX,
            planned: 7,
            sent: u64::MAX,
        };
        let mut bytes = frames.publication(sent);
        let mut input = Input::new(&mut bytes);
        let rules = Rules {
            role: Role::Server,
            message_bytes_max: 100,
        };
        let event = Session::new().next(&mut input, &rules).unwrap();
        let Some(Event::Message(message)) = event else {
            panic!("{event:?}");
        };
        assert_eq!(Stamp::of(message.as_bytes()), Some(sent));
        assert_eq!(message.as_bytes().len(), 50);
        assert_eq!(Stamp::of(text.as_bytes()), None);
        assert_eq!(Stamp::of("é".repeat(20).as_bytes()), None);
        assert_eq!(Stamp::of(format!("0{}", "é".repeat(20)).as_bytes()), None);
        assert_eq!(Stamp::of(b"short"), None);
    }

    #[test]
    fn a_server_reads_as_many_messages_as_were_asked_for() {
        let rules = Rules {
            role: Role::Server,
            message_bytes_max: 1 << 20,
        };
        for (length, depth, asked, given) in
            [(20, 16, 16, 16), (20, 16, 20, 16), (100_000, 4, 2, 1)]
        {
            let text = "x".repeat(length);
            let frames = Frames::new(Message::Text(&text), depth, [1, 2, 3, 4]);
            let (bytes, count) = frames.messages(asked);
            assert_eq!(count, given);
            let mut bytes = [bytes, frames.ping()].concat();
            let mut input = Input::new(&mut bytes);
            let mut session = Session::new();
            for _ in 0..given {
                let event = session.next(&mut input, &rules).unwrap();
                assert_eq!(event, Some(Event::Message(Message::Text(&text))));
            }
            let event = session.next(&mut input, &rules).unwrap();
            assert_eq!(event, Some(Event::Ping(PING)));
        }
    }
}
