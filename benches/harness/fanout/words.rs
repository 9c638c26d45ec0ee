//! What subscribers and publishers say in each dialect, just enough of it.

use std::io::{self, Read, Write};

use socket2::Socket;

use crate::socket::MASK;

/// Bytes at the start of a publication that differ from one to the next.
pub const STAMP_BYTES: usize = 8;
/// The answer to a publication holds this once.
pub const PUBLISHED: &[u8] = br#""publish":{"#;
/// What any other answer holds.
pub const REFUSED: &[u8] = br#""error""#;

const CHANNEL: &str = "bench";
const TEXT: u8 = 0x81;

/// How a publication is said and heard.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Dialect {
    /// Bare messages; the channel is in the path.
    Raw,
    /// JSON commands and pushes.
    Native,
}

impl Dialect {
    /// The dialect of that name.
    ///
    /// # Errors
    /// There is no such one.
    pub fn named(name: &str) -> io::Result<Self> {
        match name {
            "raw" => Ok(Self::Raw),
            "native" => Ok(Self::Native),
            _ => Err(io::Error::other(format!("no dialect {name}"))),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Native => "native",
        }
    }

    /// Where it is spoken. Servers that know one channel alone do not look at it.
    pub fn path(self) -> String {
        match self {
            Self::Raw => format!("/raw/{CHANNEL}"),
            Self::Native => "/connection/websocket".into(),
        }
    }

    /// Has a subscriber subscribe, and waits until it is.
    ///
    /// # Errors
    /// What the kernel refuses, and a refusal.
    pub fn subscribe(self, socket: &Socket) -> io::Result<()> {
        let command = format!(r#"{{"id":2,"subscribe":{{"channel":"{CHANNEL}"}}}}"#);
        match self {
            Self::Raw => Ok(()),
            Self::Native => command_all(socket, &format!("{CONNECT}\n{command}"), 2),
        }
    }

    /// Introduces a publisher.
    ///
    /// # Errors
    /// What the kernel refuses, and a refusal.
    pub fn introduce(self, socket: &Socket) -> io::Result<()> {
        match self {
            Self::Raw => Ok(()),
            Self::Native => command_all(socket, CONNECT, 1),
        }
    }

    /// What a publisher sends around a publication of so many bytes, and the publication itself.
    /// It begins with a stamp, behind a quote where it is JSON.
    pub fn publication(self, payload_bytes: usize) -> [String; 3] {
        let text = |bytes: usize| -> String {
            let letters = (0..bytes.max(STAMP_BYTES)).map(|index| b'a' + (index % 26) as u8);
            letters.map(char::from).collect()
        };
        match self {
            Self::Raw => [String::new(), text(payload_bytes), String::new()],
            Self::Native => [
                format!(r#"{{"id":3,"publish":{{"channel":"{CHANNEL}","data":""#),
                text(payload_bytes.saturating_sub(2)),
                r#""}}"#.into(),
            ],
        }
    }
}

/// The first command of a native connection.
pub const CONNECT: &str = r#"{"id":1,"connect":{}}"#;

/// Sends commands in one frame and waits until all are answered.
///
/// # Errors
/// What the kernel refuses, and an answer that is an error.
pub fn command_all(mut socket: &Socket, commands: &str, count: usize) -> io::Result<()> {
    socket.write_all(&frame(commands.as_bytes()))?;
    let mut answers = Answers::default();
    let mut room = [0; 16 * 1024];
    while answers.count < count {
        match socket.read(&mut room)? {
            0 => return Err(io::Error::other("the server closed the connection")),
            received => answers.receive(&room[..received])?,
        }
    }
    Ok(())
}

/// What came in answer to commands, as far as it is not complete.
#[derive(Default)]
struct Answers {
    count: usize,
    bytes: Vec<u8>,
}

impl Answers {
    fn receive(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes.extend_from_slice(bytes);
        while let Some([start, end]) = payload_of(&self.bytes)
            && end <= self.bytes.len()
        {
            let payload = &self.bytes[start..end];
            if count(payload, REFUSED) > 0 || self.bytes[0] != TEXT {
                let said = String::from_utf8_lossy(payload);
                return Err(io::Error::other(format!("refused: {said}")));
            }
            self.count += count(payload, br#""id":"#);
            self.bytes.drain(..end);
        }
        Ok(())
    }
}

/// Where the payload of the unmasked frame at the start of `bytes` begins and ends, once its header
/// is complete.
pub fn payload_of(bytes: &[u8]) -> Option<[usize; 2]> {
    let (start, length) = match *bytes.get(1)? & 0x7f {
        126 => (
            4,
            u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?).into(),
        ),
        127 => (
            10,
            u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize,
        ),
        short => (2, usize::from(short)),
    };
    Some([start, start + length])
}

/// How often `what` is in `bytes`.
pub fn count(bytes: &[u8], what: &[u8]) -> usize {
    bytes
        .windows(what.len())
        .filter(|window| window == &what)
        .count()
}

/// A masked text frame.
pub fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![TEXT];
    match payload.len() {
        short @ ..126 => frame.push(0x80 | short as u8),
        middle @ ..0x1_0000 => {
            frame.push(0xfe);
            frame.extend((middle as u16).to_be_bytes());
        }
        long => {
            frame.push(0xff);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(masked(payload));
    frame
}

/// `bytes` as they are behind a header, from the beginning of a payload.
pub fn masked(bytes: &[u8]) -> impl Iterator<Item = u8> {
    let mask = MASK.iter().cycle();
    bytes.iter().zip(mask).map(|(byte, mask)| byte ^ mask)
}

/// Eight letters for a number, which no dialect has to escape.
pub fn stamp(number: u32) -> [u8; STAMP_BYTES] {
    std::array::from_fn(|digit| b'a' + (number >> (28 - 4 * digit) & 0xf) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_however_they_are_cut_and_joined() {
        let mut bytes = Vec::new();
        let two = format!("{CONNECT}\n{}", r#"{"id":2,"subscribe":{}}"#);
        for payload in [CONNECT.to_owned(), "x".repeat(200), two] {
            bytes.push(TEXT);
            match payload.len() {
                short @ ..126 => bytes.push(short as u8),
                long => bytes.extend([126, 0, long as u8]),
            }
            bytes.extend(payload.as_bytes());
        }
        for cut in 1..bytes.len() {
            let mut answers = Answers::default();
            for piece in bytes.chunks(cut) {
                answers.receive(piece).unwrap();
            }
            assert_eq!((answers.count, answers.bytes.len()), (3, 0), "cut at {cut}");
        }
        let refusal = br#"{"id":2,"error":{"code":103}}"#;
        let frame = [&[TEXT, refusal.len() as u8], &refusal[..]].concat();
        assert!(Answers::default().receive(&frame).is_err());
    }

    #[test]
    fn stamps_differ_and_are_letters() {
        assert_eq!(&stamp(0), b"aaaaaaaa");
        assert_eq!(&stamp(0x0123_cdef), b"abcdmnop");
    }
}
