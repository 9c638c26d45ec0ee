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

/// Bytes of the times that a publication carries: two hexadecimal numbers.
pub const STAMP_BYTES: usize = 32;

/// The planned and the real time of sending, if a message carries them.
pub fn stamp(payload: &[u8]) -> Option<(u64, u64)> {
    let stamp = str::from_utf8(payload.get(..STAMP_BYTES)?).ok()?;
    let (planned, sent) = stamp.split_at_checked(STAMP_BYTES / 2)?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some((number(planned)?, number(sent)?))
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

    /// The message with its times in front, so that each subscriber's copy tells its latency.
    pub fn publication(&mut self, planned: u64, sent: u64) -> Vec<u8> {
        let stamp = format!("{planned:016x}{sent:016x}");
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
        let text = "x".repeat(40);
        let mut frames = Frames::new(Message::Text(&text), 1, [5, 6, 7, 8]);
        let mut bytes = frames.publication(7, u64::MAX);
        let mut input = Input::new(&mut bytes);
        let rules = Rules {
            role: Role::Server,
            message_bytes_max: 100,
        };
        let event = Session::new().next(&mut input, &rules).unwrap();
        let Some(Event::Message(message)) = event else {
            panic!("{event:?}");
        };
        assert_eq!(stamp(message.as_bytes()), Some((7, u64::MAX)));
        assert_eq!(message.as_bytes().len(), 40);
        assert_eq!(stamp(text.as_bytes()), None);
        assert_eq!(stamp("é".repeat(16).as_bytes()), None);
        assert_eq!(stamp(b"short"), None);
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
