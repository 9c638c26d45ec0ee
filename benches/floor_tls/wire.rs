//! OpenSSL between buffers that all connections share.
//!
//! OpenSSL on a socket of its own receives twice a record, the header and then the rest, and sends
//! once a record. Here a socket is received from once, OpenSSL takes the records from that buffer,
//! and what it writes is gathered and leaves in one `send`.

use std::cell::RefCell;
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;

use openssl::ssl::{self, ErrorCode, Ssl, SslStream};

/// Bytes received at once. Who gets fewer has emptied the socket.
pub const RECEIVE_BYTES_MAX: usize = 256 * 1024;

/// The buffers; a clone is the same buffers.
#[derive(Clone)]
pub struct Wire {
    buffers: Rc<RefCell<Buffers>>,
}

struct Buffers {
    received: Vec<u8>,
    /// OpenSSL has taken `received[..taken]` of `received[..filled]`.
    taken: usize,
    filled: usize,
    sending: Vec<u8>,
}

impl Wire {
    pub fn new() -> Self {
        let buffers = Buffers {
            received: vec![0; RECEIVE_BYTES_MAX],
            taken: 0,
            filled: 0,
            sending: Vec::with_capacity(RECEIVE_BYTES_MAX),
        };
        Self {
            buffers: Rc::new(RefCell::new(buffers)),
        }
    }
}

impl io::Read for Wire {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let mut buffers = self.buffers.borrow_mut();
        let Buffers { taken, filled, .. } = *buffers;
        let count = room.len().min(filled - taken);
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        room[..count].copy_from_slice(&buffers.received[taken..taken + count]);
        buffers.taken += count;
        Ok(count)
    }
}

impl io::Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffers.borrow_mut().sending.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One TLS connection over a [`Wire`]. Between turns it holds no byte of the shared buffers: an
/// incomplete record is inside OpenSSL, and what the socket refused is in the backlog.
pub struct Secured {
    stream: SslStream<Wire>,
    backlog: Vec<u8>,
}

/// What [`Secured::read`] found.
#[derive(Debug, PartialEq)]
pub enum Plain {
    Bytes(usize),
    /// All that was received is decrypted.
    Nothing,
    /// close_notify: nothing comes any more, and nothing was cut off.
    End,
}

impl Secured {
    /// # Errors
    /// Out of memory.
    pub fn new(ssl: Ssl, wire: &Wire) -> io::Result<Self> {
        Ok(Self {
            stream: SslStream::new(ssl, wire.clone()).map_err(io::Error::other)?,
            backlog: Vec::new(),
        })
    }

    /// Receives once, over whatever the last connection left; `None` when the socket is empty, 0 at
    /// its end.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn receive(&mut self, socket: RawFd) -> io::Result<Option<usize>> {
        let mut buffers = self.stream.get_ref().buffers.borrow_mut();
        (buffers.taken, buffers.filled) = (0, 0);
        let room = &mut buffers.received[..];
        // SAFETY: `room` is writable and of the length given.
        let received = unsafe { libc::recv(socket, room.as_mut_ptr().cast(), room.len(), 0) };
        if received >= 0 {
            buffers.filled = received as usize;
            return Ok(Some(buffers.filled));
        }
        match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            error => Err(error),
        }
    }

    /// Goes on with the handshake; whether it is over.
    ///
    /// # Errors
    /// The other side is refused, or refuses; the alert that says so is yet to be flushed.
    pub fn handshake(&mut self) -> io::Result<bool> {
        match self.stream.do_handshake() {
            Ok(()) => Ok(true),
            Err(error) if error.code() == ErrorCode::WANT_READ => Ok(false),
            Err(error) => Err(failure(error)),
        }
    }

    /// Decrypts what was received: at most one record a call.
    ///
    /// # Errors
    /// A record that is not one.
    pub fn read(&mut self, room: &mut [u8]) -> io::Result<Plain> {
        // The call that would only say so is the dearest of all: it makes an error.
        if self.is_drained() && self.stream.ssl().pending() == 0 {
            return Ok(Plain::Nothing);
        }
        match self.stream.ssl_read(room) {
            Ok(count) => Ok(Plain::Bytes(count)),
            Err(error) => match error.code() {
                ErrorCode::WANT_READ => Ok(Plain::Nothing),
                ErrorCode::ZERO_RETURN => Ok(Plain::End),
                _ => Err(failure(error)),
            },
        }
    }

    /// Encrypts for the next [`Self::flush`].
    ///
    /// # Errors
    /// The connection has failed before.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        // Without partial writes it is all or nothing, and a wire takes everything.
        match self.stream.ssl_write(bytes) {
            Ok(_) => Ok(()),
            Err(error) => Err(failure(error)),
        }
    }

    /// Says close_notify with the next [`Self::flush`].
    ///
    /// # Errors
    /// The connection has failed before.
    pub fn shut_down(&mut self) -> io::Result<()> {
        match self.stream.shutdown() {
            Ok(_) => Ok(()),
            Err(error) => Err(failure(error)),
        }
    }

    /// Sends all that was written since the last time, with what waits; whether nothing waits now.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn flush(&mut self, socket: RawFd) -> io::Result<bool> {
        let mut buffers = self.stream.get_ref().buffers.borrow_mut();
        let sending = &mut buffers.sending;
        if self.backlog.is_empty() {
            let sent = send(socket, sending);
            if let Ok(sent) = sent {
                self.backlog.extend_from_slice(&sending[sent..]);
            }
            sending.clear();
            sent?;
        } else {
            self.backlog.append(sending);
            let sent = send(socket, &self.backlog)?;
            self.backlog.drain(..sent);
            if self.backlog.is_empty() {
                self.backlog = Vec::new();
            }
        }
        Ok(self.backlog.is_empty())
    }

    fn is_drained(&self) -> bool {
        let buffers = self.stream.get_ref().buffers.borrow();
        buffers.taken == buffers.filled
    }
}

/// Bytes that the socket took.
fn send(socket: RawFd, bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        return Ok(0);
    }
    let (from, length) = (bytes.as_ptr().cast(), bytes.len());
    // SAFETY: `bytes` is a readable buffer of the length given.
    let sent = unsafe { libc::send(socket, from, length, libc::MSG_NOSIGNAL) };
    if sent >= 0 {
        return Ok(sent as usize);
    }
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        error => Err(error),
    }
}

fn failure(error: ssl::Error) -> io::Error {
    io::Error::other(format!("TLS: {error}"))
}
