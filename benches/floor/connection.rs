//! One socket of the floor: bytes in, replies out, in 48 bytes of state.
//!
//! An idle connection owns no buffer. What a batch of frames answers is written into the receive
//! buffer itself and leaves in one `send`. Only a frame cut by the network is kept, in a buffer of
//! its own size: the rest of it is received straight behind.

use std::io;
use std::os::fd::RawFd;

use crate::frame::Frame;

const HEAD_BYTES_MAX: usize = 8 * 1024;

/// What the connection waits for.
#[derive(PartialEq)]
pub enum Want {
    Read,
    /// The socket took only a part of the replies; nothing is read until it took the rest.
    Write,
}

pub struct Connection {
    /// The beginning of a frame, or of the request. Empty and without capacity when idle.
    input: Vec<u8>,
    /// The size of the frame in `input`; 0 when its header is not complete, or there is none.
    frame_bytes: usize,
    output: Option<Box<Output>>,
    socket: RawFd,
    phase: Phase,
}

const _: () = assert!(size_of::<Connection>() <= 48);

struct Output {
    bytes: Vec<u8>,
    sent_bytes: usize,
}

#[derive(PartialEq)]
enum Phase {
    Connecting,
    Open,
    Closing,
}

struct Received {
    /// Bytes at the start of the scratch buffer that are to be answered.
    filled_bytes: usize,
    /// The socket had less than there was room for: it is empty.
    drained: bool,
}

impl Connection {
    /// The state of a descriptor that is no connection.
    pub const UNUSED: Self = Self::new(-1);

    /// A connection that owns `socket`, from its request on.
    pub const fn new(socket: RawFd) -> Self {
        let phase = Phase::Connecting;
        Self {
            input: Vec::new(),
            frame_bytes: 0,
            output: None,
            socket,
            phase,
        }
    }

    /// Receives what is there and answers it; reads to the end when the peer has `ended`.
    ///
    /// # Errors
    /// An error, an end and a finished close handshake alike: the connection is to be dropped.
    pub fn turn(&mut self, ended: bool, scratch: &mut [u8]) -> io::Result<Want> {
        self.flush()?;
        while self.output.is_none() {
            let Some(received) = self.receive(scratch)? else {
                break;
            };
            self.answer(&mut scratch[..received.filled_bytes])?;
            if received.drained && !ended {
                break;
            }
        }
        Ok(if self.output.is_some() {
            Want::Write
        } else {
            Want::Read
        })
    }

    /// Receives behind the frame that is not complete, and behind that into `scratch`.
    fn receive(&mut self, scratch: &mut [u8]) -> io::Result<Option<Received>> {
        if self.frame_bytes != 0 {
            return self.receive_rest(scratch);
        }
        let carried = self.input.len();
        scratch[..carried].copy_from_slice(&self.input);
        let room = &mut scratch[carried..];
        let Some(received) = receive_into(self.socket, &mut [io::IoSliceMut::new(room)])? else {
            return Ok(None);
        };
        self.input = Vec::new();
        let drained = received < room.len();
        Ok(Some(Received {
            filled_bytes: carried + received,
            drained,
        }))
    }

    fn receive_rest(&mut self, scratch: &mut [u8]) -> io::Result<Option<Received>> {
        let missing = self.frame_bytes - self.input.len();
        let spare = &mut self.input.spare_capacity_mut()[..missing];
        // SAFETY: the kernel only writes here, and `set_len` below covers only what it wrote.
        let spare = unsafe { &mut *(std::ptr::from_mut(spare) as *mut [u8]) };
        let mut parts = [io::IoSliceMut::new(spare), io::IoSliceMut::new(scratch)];
        let Some(received) = receive_into(self.socket, &mut parts)? else {
            return Ok(None);
        };
        // SAFETY: the first part was filled before the second; capacity for all of it was reserved.
        unsafe { self.input.set_len(self.input.len() + received.min(missing)) };
        if received < missing {
            return Ok(Some(Received {
                filled_bytes: 0,
                drained: true,
            }));
        }
        self.frame_bytes = 0;
        let mut frame = std::mem::take(&mut self.input);
        self.answer(&mut frame)?;
        let filled_bytes = received - missing;
        Ok(Some(Received {
            filled_bytes,
            drained: filled_bytes < scratch.len(),
        }))
    }

    /// Answers all complete frames of `bytes` with one `send` and keeps the incomplete rest.
    fn answer(&mut self, bytes: &mut [u8]) -> io::Result<()> {
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
            let Some(frame) = Frame::parse(&bytes[at..])? else {
                self.input = bytes[at..].to_vec();
                break;
            };
            if bytes.len() - at < frame.bytes() {
                self.keep(&bytes[at..], frame.bytes());
                break;
            }
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
        match start {
            Some(start) => self.send(&bytes[start..end]),
            None => Ok(()),
        }
    }

    fn keep(&mut self, beginning: &[u8], frame_bytes: usize) {
        self.input = Vec::with_capacity(frame_bytes);
        self.input.extend_from_slice(beginning);
        self.frame_bytes = frame_bytes;
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
                self.send(response.as_bytes())?;
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

    /// Sends behind what still waits; what the socket refuses waits too.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(output) = &mut self.output {
            output.bytes.extend_from_slice(bytes);
            return Ok(());
        }
        let sent_bytes = send(self.socket, bytes)?;
        if sent_bytes < bytes.len() {
            let bytes = bytes[sent_bytes..].to_vec();
            self.output = Some(Box::new(Output {
                bytes,
                sent_bytes: 0,
            }));
        }
        self.end_if_closed()
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(output) = &mut self.output {
            output.sent_bytes += send(self.socket, &output.bytes[output.sent_bytes..])?;
            if output.sent_bytes == output.bytes.len() {
                self.output = None;
            }
            return self.end_if_closed();
        }
        Ok(())
    }

    /// RFC 6455, 7.1.1: the server closes the socket once the Close frame is answered.
    fn end_if_closed(&self) -> io::Result<()> {
        if self.phase == Phase::Closing && self.output.is_none() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.socket >= 0 {
            // SAFETY: the connection alone owns its descriptor. Closing takes it out of the epoll
            // set, so there is no call for that.
            unsafe { libc::close(self.socket) };
        }
    }
}

/// Receives into `parts`, in order; `None` when the socket is empty.
fn receive_into(socket: RawFd, parts: &mut [io::IoSliceMut<'_>]) -> io::Result<Option<usize>> {
    // SAFETY: each part is a writable buffer of the length given; `IoSliceMut` is an `iovec`.
    let received = unsafe {
        match parts {
            [only] => libc::recv(socket, only.as_mut_ptr().cast(), only.len(), 0),
            _ => libc::readv(
                socket,
                parts.as_mut_ptr().cast(),
                parts.len() as libc::c_int,
            ),
        }
    };
    match received {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        1.. => Ok(Some(received as usize)),
        _ => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            error => Err(error),
        },
    }
}

/// Bytes that the socket took.
fn send(socket: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: `bytes` is a readable buffer of the length given.
    let sent = unsafe {
        libc::send(
            socket,
            bytes.as_ptr().cast(),
            bytes.len(),
            libc::MSG_NOSIGNAL,
        )
    };
    if sent >= 0 {
        return Ok(sent as usize);
    }
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::IntoRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    const REQUEST: &[u8] =
        b"GET /echo HTTP/1.1\r\nsec-websocket-KEY: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0xd1, 0x02, 0x73, 0x94];
        let mut bytes = vec![first];
        match payload.len() {
            short @ ..126 => bytes.push(0x80 | short as u8),
            middle @ ..0x1_0000 => {
                bytes.push(0xfe);
                bytes.extend((middle as u16).to_be_bytes());
            }
            long => {
                bytes.push(0xff);
                bytes.extend((long as u64).to_be_bytes());
            }
        }
        bytes.extend(mask);
        bytes.extend(
            payload
                .iter()
                .enumerate()
                .map(|(at, byte)| byte ^ mask[at % 4]),
        );
        bytes
    }

    fn reply(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = frame(first, payload);
        let header_bytes = bytes.len() - payload.len() - 4;
        bytes[1] &= 0x7f;
        bytes.truncate(header_bytes);
        bytes.extend(payload);
        bytes
    }

    /// What the peer reads when it writes `script` in pieces of `cut` bytes.
    fn echoed(script: &[u8], cut: usize, scratch_bytes: usize) -> Vec<u8> {
        let (mut peer, socket) = UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        peer.set_nonblocking(true).unwrap();
        let mut connection = Some(Connection::new(socket.into_raw_fd()));
        let mut scratch = vec![0; scratch_bytes];
        let mut answers = Vec::new();
        for piece in script.chunks(cut) {
            if let Some(open) = &mut connection {
                peer.write_all(piece).unwrap();
                let mut want = open.turn(false, &mut scratch);
                while let Ok(Want::Write) = want {
                    // An error here is "nothing to read yet"; what came before it was appended.
                    let _ = peer.read_to_end(&mut answers);
                    want = open.turn(false, &mut scratch);
                }
                if want.is_err() {
                    connection = None;
                }
            }
            let _ = peer.read_to_end(&mut answers);
        }
        assert!(connection.is_none(), "the Close frame ends the connection");
        answers
    }

    #[test]
    fn every_frame_is_answered_however_the_stream_is_cut() {
        let large: Vec<u8> = (0..70_000_u32).map(|index| (index * 31) as u8).collect();
        let mut script = REQUEST.to_vec();
        let mut expected = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
            .to_vec();
        for length in [0, 1, 20, 125, 126, 1000, 65_535, 65_536, 70_000, 3] {
            script.extend(frame(0x82, &large[..length]));
            expected.extend(reply(0x82, &large[..length]));
        }
        script.extend(frame(0x89, b"beat"));
        expected.extend(reply(0x8a, b"beat"));
        script.extend(frame(0x8a, b"ignored"));
        script.extend(frame(0x01, b"text"));
        expected.extend(reply(0x01, b"text"));
        script.extend(frame(0x88, &[3, 232]));
        expected.extend(reply(0x88, &[3, 232]));
        for cut in [1, 2, 3, 7, 26, 1000, 65_483, script.len()] {
            for scratch_bytes in [16 * 1024, 512 * 1024] {
                assert!(
                    echoed(&script, cut, scratch_bytes) == expected,
                    "cut at {cut}"
                );
            }
        }
    }
}
