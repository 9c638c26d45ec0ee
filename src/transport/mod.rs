//! Sockets: what carries the bytes of a connection.
//!
//! `WouldBlock` and `Interrupted` end here: the first is a normal answer, the second is tried
//! again. Every other error means that the connection is lost.

pub mod connect;
pub mod listen;
pub mod tls;

use std::{
    io::{self, IoSlice, Read, Write},
    net::{Shutdown, SocketAddr},
    os::fd::AsFd,
};

use mio::{Interest, Registry, Token, net::TcpStream};
use socket2::SockRef;
use tls::{SealBuffer, Session, Violation};

use crate::sys;

/// A connection's socket, and the TLS session over it if there is one.
#[derive(Debug)]
pub struct Transport {
    stream: TcpStream,
    /// The TLS session is over: nothing is sent any more, for it would be in the clear.
    is_over: bool,
    tls: Option<Box<Session>>,
}

/// What a receive gave.
#[derive(Debug)]
pub enum Received {
    Bytes(Receipt),
    /// Nothing there now: an event will tell.
    Nothing,
    /// The peer sends no more.
    End,
    /// The peer broke TLS, and so the session is over. It was told; what it sends from now on is
    /// received as it comes.
    Violation(Violation),
}

/// Bytes that a receive gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Bytes for the connection. Records may have come without any.
    pub count: usize,
    /// Bytes off the socket.
    pub wire: usize,
    /// The socket had less than there was room for: it is empty now.
    pub is_drained: bool,
}

impl Receipt {
    /// What a socket gives that has nothing.
    pub const NOTHING: Self = Self {
        count: 0,
        wire: 0,
        is_drained: true,
    };
}

impl Transport {
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            is_over: false,
            tls: None,
        }
    }

    /// Puts a TLS session over the socket, before anything was received.
    pub fn secure(&mut self, session: Session) {
        self.tls = Some(Box::new(session));
    }

    /// The TLS session, while there is one.
    pub fn tls(&self) -> Option<&Session> {
        self.tls.as_deref()
    }

    /// Registers the socket once and for all: every edge in either direction is reported.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(
            &mut self.stream,
            token,
            Interest::READABLE | Interest::WRITABLE,
        )
    }

    /// Receives into `buffer`, with one system call. Of a TLS connection the buffer holds half as
    /// much, for its other half takes the records.
    #[inline]
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        if self.tls.is_some() {
            return self.receive_records(None, buffer);
        }
        received(buffer.len(), retry(|| self.stream.read(buffer)))
    }

    /// Receives up to `count` bytes behind the end of `message`, as far as it has room for them,
    /// and what follows into `overflow`.
    pub fn receive_behind(
        &mut self,
        message: &mut Vec<u8>,
        count: usize,
        overflow: &mut [u8],
    ) -> io::Result<Received> {
        if self.tls.is_some() {
            return self.receive_records(Some((message, count)), overflow);
        }
        let room = match count.min(message.capacity() - message.len()) {
            room if room == count => room + overflow.len(),
            room => room,
        };
        let call = || sys::receive_behind(self.stream.as_fd(), message, count, overflow);
        received(room, retry(call))
    }

    fn receive_records(
        &mut self,
        message: Option<(&mut Vec<u8>, usize)>,
        buffer: &mut [u8],
    ) -> io::Result<Received> {
        let Some(session) = &mut self.tls else {
            return Ok(Received::Nothing);
        };
        let (buffer, records) = buffer.split_at_mut(buffer.len() / 2);
        let received = session.receive(&self.stream, &mut Sink::new(message, buffer), records);
        if let Ok(Received::Violation(violation)) = &received {
            // Who never spoke TLS is answered in the clear.
            self.is_over = !matches!(violation, Violation::PlainHttp);
            self.tls = None;
        }
        received
    }

    /// Sends what the socket takes of `bytes`: 0 when it takes nothing now. `seal` is where
    /// records are made, if there are any.
    #[inline]
    pub fn send(&mut self, bytes: &[u8], seal: &mut SealBuffer) -> io::Result<usize> {
        match &mut self.tls {
            None if self.is_over => Err(io::ErrorKind::NotConnected.into()),
            None => sent(retry(|| self.stream.write(bytes))),
            Some(session) => session.send(&self.stream, &[IoSlice::new(bytes)], seal),
        }
    }

    /// Sends what the socket takes of several buffers, in order.
    pub fn send_vectored(
        &mut self,
        buffers: &[IoSlice<'_>],
        seal: &mut SealBuffer,
    ) -> io::Result<usize> {
        match &mut self.tls {
            None if self.is_over => Err(io::ErrorKind::NotConnected.into()),
            None => sent(retry(|| self.stream.write_vectored(buffers))),
            Some(session) => session.send(&self.stream, buffers, seal),
        }
    }

    /// Bytes that count as sent although the socket has not taken them: sealed records.
    #[inline]
    pub fn pending_bytes(&self) -> usize {
        self.tls.as_ref().map_or(0, |tls| tls.pending_bytes())
    }

    /// Sends them, as far as the socket takes them.
    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            None => Ok(()),
            Some(session) => session.flush(&self.stream).map(drop),
        }
    }

    /// Bytes of memory held beside what an idle connection has.
    #[inline]
    pub fn buffered_bytes(&self) -> usize {
        self.tls.as_ref().map_or(0, |tls| tls.buffered_bytes())
    }

    /// Tells the peer that nothing more comes; it may still send, and is received as it comes.
    pub fn finish(&mut self, seal: &mut SealBuffer) -> io::Result<()> {
        self.close_notify(seal);
        self.stream.shutdown(Shutdown::Write)
    }

    /// Ends the TLS session, if there is one, as its peer is told: before a close.
    pub fn close_notify(&mut self, seal: &mut SealBuffer) {
        if let Some(mut session) = self.tls.take() {
            self.is_over = true;
            session.close(&self.stream, seal);
        }
    }

    /// Drops the TLS session, if there is one, without a word.
    pub fn forget(&mut self) {
        self.is_over |= self.tls.take().is_some();
    }

    /// Makes the close that follows throw away what the kernel still holds for a peer that does
    /// not read.
    pub fn abandon(&self) {
        // A socket that cannot be told so keeps its bytes until TCP_USER_TIMEOUT.
        let _ = SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO));
    }

    /// What came first, and stays where it is: as much of it as `buffer` takes. `None`: nothing has
    /// come yet; 0: nothing will.
    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match retry(|| self.stream.peek(buffer)) {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Throws away what was seen by [`Transport::peek`]: exactly as much as `seen` holds.
    pub fn skip(&mut self, seen: &mut [u8]) -> io::Result<()> {
        self.stream.read_exact(seen)
    }

    /// The peer's address; an error once the connection was reset.
    pub fn remote(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}

/// A system call that a signal interrupted is made again.
#[inline]
fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[inline]
fn received(room: usize, result: io::Result<usize>) -> io::Result<Received> {
    match result {
        Ok(0) => Ok(Received::End),
        Ok(count) => Ok(Received::Bytes(Receipt {
            count,
            wire: count,
            is_drained: count < room,
        })),
        Err(error) => nothing(error),
    }
}

/// `WouldBlock` is a normal answer.
fn nothing(error: io::Error) -> io::Result<Received> {
    match error.kind() {
        io::ErrorKind::WouldBlock => Ok(Received::Nothing),
        _ => Err(error),
    }
}

#[inline]
fn sent(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}

/// Where opened bytes go: behind a message as far as it has room for what it lacks, the rest into
/// a buffer.
#[derive(Debug)]
struct Sink<'b> {
    message: Option<(&'b mut Vec<u8>, usize)>,
    buffer: &'b mut [u8],
    buffered: usize,
    count: usize,
}

impl<'b> Sink<'b> {
    fn new(message: Option<(&'b mut Vec<u8>, usize)>, buffer: &'b mut [u8]) -> Self {
        Self {
            message,
            buffer,
            buffered: 0,
            count: 0,
        }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        self.count += bytes.len();
        if let Some((message, missing)) = &mut self.message
            && self.buffered == 0
        {
            let room = (*missing).min(message.capacity() - message.len());
            let (behind, rest) = bytes.split_at(room.min(bytes.len()));
            message.extend_from_slice(behind);
            *missing -= behind.len();
            bytes = rest;
        }
        self.buffer[self.buffered..][..bytes.len()].copy_from_slice(bytes);
        self.buffered += bytes.len();
    }
}
