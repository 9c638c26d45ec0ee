//! One socket of the floor over TLS: records in, replies out.
//!
//! All that is there is decrypted into one buffer of all connections, what it answers is written
//! into that same buffer and encrypted from there. Only a frame cut by the network is kept.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use openssl::ssl::Ssl;

use crate::frame::Frame;
use crate::wire::{Plain, RECEIVE_BYTES_MAX, Secured, Wire};

const HEAD_BYTES_MAX: usize = 8 * 1024;

/// What the connection waits for.
#[derive(Debug, PartialEq)]
pub enum Want {
    Read,
    /// The socket took only a part of the replies; nothing is read until it took the rest.
    Write,
}

pub struct Connection {
    secured: Secured,
    /// The beginning of a frame, or of the request. Empty and without capacity when idle.
    input: Vec<u8>,
    /// Closing it takes it out of the epoll set, so there is no call for that.
    socket: OwnedFd,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Securing,
    Connecting,
    Open,
    Closing,
}

impl Connection {
    /// A connection that owns `socket`, from its ClientHello on.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(socket: RawFd, mut ssl: Ssl, wire: &Wire) -> io::Result<Self> {
        // SAFETY: the socket was just accepted, and nobody else has its descriptor.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        ssl.set_accept_state();
        Ok(Self {
            secured: Secured::new(ssl, wire)?,
            input: Vec::new(),
            socket,
            phase: Phase::Securing,
        })
    }

    /// Receives what is there and answers it; reads to the end when the peer has `ended`.
    ///
    /// # Errors
    /// An error, an end and a finished close handshake alike: the connection is to be dropped.
    pub fn turn(&mut self, ended: bool, plain: &mut [u8]) -> io::Result<Want> {
        let socket = self.socket.as_raw_fd();
        let mut flushed = self.secured.flush(socket)?;
        while flushed && self.phase != Phase::Closing {
            let Some(received) = self.secured.receive(socket)? else {
                return Ok(Want::Read);
            };
            if received == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let answered = self.answer(plain);
            // An alert leaves too.
            flushed = self.secured.flush(socket)?;
            answered?;
            if received < RECEIVE_BYTES_MAX && !ended {
                break;
            }
        }
        match (flushed, self.phase) {
            (false, _) => Ok(Want::Write),
            // RFC 6455, 7.1.1: the server closes the socket once the Close frame is answered.
            (true, Phase::Closing) => Err(io::ErrorKind::ConnectionAborted.into()),
            (true, _) => Ok(Want::Read),
        }
    }

    /// Decrypts all that was received, behind what was kept, and answers it.
    fn answer(&mut self, plain: &mut [u8]) -> io::Result<()> {
        if self.phase == Phase::Securing {
            if !self.secured.handshake()? {
                return Ok(());
            }
            self.phase = Phase::Connecting;
        }
        let mut filled = self.input.len();
        plain[..filled].copy_from_slice(&self.input);
        loop {
            match self.secured.read(&mut plain[filled..])? {
                Plain::Bytes(count) => filled += count,
                Plain::Nothing => break,
                Plain::End => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        if filled > self.input.len() {
            self.input = Vec::new();
            self.answer_bytes(&mut plain[..filled])?;
        }
        Ok(())
    }

    /// Answers all complete frames of `bytes` with one write and keeps the incomplete rest.
    fn answer_bytes(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        let mut at = 0;
        if self.phase == Phase::Connecting {
            match self.upgrade(bytes)? {
                Some(head_bytes) => at = head_bytes,
                None => return Ok(()),
            }
        }
        let mut start = None;
        let mut end = 0;
        while self.phase == Phase::Open && at < bytes.len() {
            let frame = Frame::parse(&bytes[at..])?;
            let Some(frame) = frame.filter(|frame| frame.bytes() <= bytes.len() - at) else {
                self.input = bytes[at..].to_vec();
                break;
            };
            let first = match frame.opcode() {
                9 => Some(0x8a),
                10 => None,
                _ => Some(frame.first),
            };
            if let Some(first) = first {
                let to = if start.is_none() { at + 4 } else { end };
                start.get_or_insert(to);
                end = frame.reply(bytes, at, to, first);
            }
            if frame.opcode() == 8 {
                self.phase = Phase::Closing;
            }
            at += frame.bytes();
        }
        if let Some(start) = start {
            self.secured.write(&bytes[start..end])?;
        }
        if self.phase == Phase::Closing {
            self.secured.shut_down()?;
        }
        Ok(())
    }

    /// Answers the request; its size when it is complete.
    fn upgrade(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        const KEY: &[u8] = b"sec-websocket-key:";
        let mut key = None;
        let mut at = 0;
        while let Some(length) = bytes[at..].iter().position(|&byte| byte == b'\n') {
            let line = bytes[at..at + length].trim_ascii();
            at += length + 1;
            if line.is_empty() {
                let key = key.ok_or(io::ErrorKind::InvalidData)?;
                let response = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                     Connection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
                    tungstenite::handshake::derive_accept_key(key)
                );
                self.phase = Phase::Open;
                self.secured.write(response.as_bytes())?;
                return Ok(Some(at));
            }
            if line.len() > KEY.len() && line[..KEY.len()].eq_ignore_ascii_case(KEY) {
                key = Some(line[KEY.len()..].trim_ascii());
            }
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.input = bytes.to_vec();
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::IntoRawFd;
    use std::os::unix::net::UnixStream;

    use harness::tls::certificate::Certificate;
    use harness::tls::client::{Dialer, Line, Received};
    use openssl::ssl::SslContext;
    use socket2::Socket;

    use super::*;

    const REQUEST: &[u8] =
        b"GET /echo HTTP/1.1\r\nsec-websocket-KEY: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    /// What rustls takes at once.
    const WRITE_BYTES_MAX: usize = 16 * 1024;

    /// A client and the floor, with a socket in between.
    struct Pair {
        line: Line,
        peer: Socket,
        connection: Option<Connection>,
        plain: Vec<u8>,
        answers: Vec<u8>,
        said_goodbye: bool,
    }

    impl Pair {
        fn new(context: &SslContext) -> Self {
            let (peer, socket) = UnixStream::pair().unwrap();
            socket.set_nonblocking(true).unwrap();
            let ssl = Ssl::new(context).unwrap();
            let connection = Connection::new(socket.into_raw_fd(), ssl, &Wire::new()).unwrap();
            Self {
                line: Dialer::new().unwrap().line().unwrap(),
                peer: peer.into(),
                connection: Some(connection),
                plain: vec![0; crate::PLAIN_BYTES],
                answers: Vec::new(),
                said_goodbye: false,
            }
        }

        /// Sends what the client has to send in pieces of `cut` bytes, each of them a turn.
        fn exchange(&mut self, cut: usize) {
            loop {
                let sending = self.line.sending().unwrap();
                for piece in sending.chunks(cut) {
                    self.peer.write_all(piece).unwrap();
                    self.turn();
                }
                if sending.is_empty() {
                    return;
                }
            }
        }

        fn turn(&mut self) {
            let mut want = Ok(Want::Write);
            while let (Ok(Want::Write), Some(connection)) = (&want, &mut self.connection) {
                want = connection.turn(false, &mut self.plain);
                while self.line.receive(&self.peer).unwrap() == Received::Bytes {
                    self.said_goodbye |= self.line.read(&mut self.answers).unwrap();
                }
            }
            if want.is_err() {
                self.connection = None;
            }
        }
    }

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0xd1, 0x02, 0x73, 0x94];
        let mut bytes = reply(first, payload);
        bytes[1] |= 0x80;
        bytes.truncate(bytes.len() - payload.len());
        bytes.extend(mask);
        let masked = payload.iter().zip(mask.iter().cycle());
        bytes.extend(masked.map(|(byte, mask)| byte ^ mask));
        bytes
    }

    fn reply(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            short @ ..126 => bytes.push(short as u8),
            middle @ ..0x1_0000 => {
                bytes.push(126);
                bytes.extend((middle as u16).to_be_bytes());
            }
            long => {
                bytes.push(127);
                bytes.extend((long as u64).to_be_bytes());
            }
        }
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn every_frame_is_answered_however_the_stream_is_cut() {
        let certificate = Certificate::generate().unwrap();
        let [chain, key] = [certificate.chain(), certificate.key()].map(|file| {
            file.to_str()
                .expect("the folder for temporary files has a plain name")
                .to_owned()
        });
        let context = crate::context(&chain, &key).unwrap();

        let large: Vec<u8> = (0..70_000_u32).map(|index| (index * 31) as u8).collect();
        let mut script = REQUEST.to_vec();
        let mut expected = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
            .to_vec();
        for length in [0, 1, 20, 125, 126, 1000, 16_384, 65_535, 65_536, 70_000, 3] {
            script.extend(frame(0x82, &large[..length]));
            expected.extend(reply(0x82, &large[..length]));
        }
        script.extend(frame(0x89, b"beat"));
        expected.extend(reply(0x8a, b"beat"));
        script.extend(frame(0x8a, b"ignored"));
        script.extend(frame(0x88, &[3, 232]));
        expected.extend(reply(0x88, &[3, 232]));

        for cut in [7, 26, 1000, 20_000] {
            let mut pair = Pair::new(&context);
            pair.exchange(cut);
            for part in script.chunks(WRITE_BYTES_MAX) {
                pair.line.write(part).unwrap();
                pair.exchange(cut);
            }
            assert!(pair.answers == expected, "cut at {cut}");
            assert!(pair.said_goodbye, "close_notify follows the Close frame");
            assert!(pair.connection.is_none(), "and ends the connection");
        }
    }
}
