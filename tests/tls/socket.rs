//! WebSocket over whatever can be read and written: an upgrade, frames, a close.

use std::io::{self, Read, Write};

use crate::outside::peer::frame;

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;

/// The request of an upgrade.
pub fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// A head and nothing behind it: byte by byte, for what follows is not ours.
pub fn head(stream: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8(head).unwrap())
}

/// A whole HTTP answer with a body of announced length: its head in lower case, and the body.
pub fn answer(stream: &mut impl Read) -> io::Result<(String, String)> {
    let head = head(stream)?.to_ascii_lowercase();
    let length = head.split_once("content-length: ");
    let length = length.and_then(|(_, rest)| rest.lines().next()?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body)?;
    Ok((head, String::from_utf8(body).unwrap()))
}

/// The next frame of a server.
pub fn receive(stream: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    let mut bytes = [0; 8];
    let length = match head[1] {
        126 => {
            stream.read_exact(&mut bytes[6..])?;
            u64::from_be_bytes(bytes)
        }
        127 => {
            stream.read_exact(&mut bytes)?;
            u64::from_be_bytes(bytes)
        }
        short => u64::from(short),
    };
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload)?;
    Ok((head[0] & 0xf, payload))
}

/// Sends a message and receives it back.
pub fn echo(stream: &mut (impl Read + Write), payload: &[u8]) -> io::Result<()> {
    stream.write_all(&frame(BINARY, payload))?;
    let (opcode, came) = receive(stream)?;
    match opcode == BINARY && came == payload {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "{} bytes came back as {} with opcode {opcode}",
            payload.len(),
            came.len()
        ))),
    }
}

/// A Close with this code.
pub fn close(code: u16) -> Vec<u8> {
    frame(CLOSE, &code.to_be_bytes())
}

/// Bytes that are the same in each run, and compress as badly as any.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random(seed);
    (0..length).map(|_| random.next() as u8).collect()
}

/// xorshift64*: what a test draws is what it drew the last time.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.max(1);
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}
