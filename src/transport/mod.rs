//! Sockets: what carries the bytes of a connection.
//!
//! `WouldBlock` and `Interrupted` end here: the first is a normal answer, the second is tried
//! again. Every other error means that the connection is lost.

pub mod connect;
pub mod listen;

use std::{
    io::{self, IoSlice, Read, Write},
    net::{Shutdown, SocketAddr},
    os::fd::AsFd,
};

use mio::{Interest, Registry, Token, net::TcpStream};
use socket2::SockRef;

use crate::sys;

/// A connection's socket.
#[derive(Debug)]
pub struct Transport {
    stream: TcpStream,
}

/// What a receive gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    Bytes(usize),
    /// Nothing there now: an event will tell.
    Nothing,
    /// The peer sends no more.
    End,
}

impl Transport {
    pub fn new(stream: TcpStream) -> Self {
        Self { stream }
    }

    /// Registers the socket once and for all: every edge in either direction is reported.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(
            &mut self.stream,
            token,
            Interest::READABLE | Interest::WRITABLE,
        )
    }

    /// Receives into `buffer`, with one system call.
    #[inline]
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        received(retry(|| self.stream.read(buffer)))
    }

    /// Receives up to `count` bytes behind the end of `message`, what follows into `overflow`.
    pub fn receive_behind(
        &mut self,
        message: &mut Vec<u8>,
        count: usize,
        overflow: &mut [u8],
    ) -> io::Result<Received> {
        received(retry(|| {
            sys::receive_behind(self.stream.as_fd(), message, count, overflow)
        }))
    }

    /// Sends what the socket takes of `bytes`: 0 when it takes nothing now.
    #[inline]
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        sent(retry(|| self.stream.write(bytes)))
    }

    /// Sends what the socket takes of several buffers, in order.
    pub fn send_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        sent(retry(|| self.stream.write_vectored(buffers)))
    }

    /// Tells the peer that nothing more comes; it may still send.
    pub fn finish(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// Makes the close that follows throw away what the kernel still holds for a peer that does
    /// not read.
    pub fn abandon(&self) {
        // A socket that cannot be told so keeps its bytes until TCP_USER_TIMEOUT.
        let _ = SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO));
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
fn received(result: io::Result<usize>) -> io::Result<Received> {
    match result {
        Ok(0) => Ok(Received::End),
        Ok(count) => Ok(Received::Bytes(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Received::Nothing),
        Err(error) => Err(error),
    }
}

#[inline]
fn sent(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}
