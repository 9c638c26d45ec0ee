//! The floor over TLS: the least that a WebSocket echo over OpenSSL costs on this kernel.
//!
//! What the plain floor is, with OpenSSL in between as a careful C server has it: a socket is
//! received from once into a buffer of all connections, records are taken from there, replies are
//! written in place and encrypted together, and leave in one `send`. Buffers of OpenSSL stay with
//! their connection (no SSL_MODE_RELEASE_BUFFERS), tickets are stateless.
//!
//! `floor-tls ADDRESS CERTIFICATE KEY` listens there and prints the address that it got.

mod connection;
#[path = "../floor/frame.rs"]
mod frame;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

use openssl::error::ErrorStack;
use openssl::ssl::{
    Ssl, SslContext, SslFiletype, SslMethod, SslOptions, SslSessionCacheMode, SslVersion,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::connection::{Connection, Want};
use crate::frame::PAYLOAD_BYTES_MAX;
use crate::wire::{RECEIVE_BYTES_MAX, Wire};

/// All that is received at once, behind the longest frame that waits for its end.
const PLAIN_BYTES: usize = PAYLOAD_BYTES_MAX + 64 + RECEIVE_BYTES_MAX;
const EVENTS_PER_WAIT_MAX: usize = 1024;
const READ_EDGES: u32 = (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET) as u32;
const WRITE_EDGES: u32 = READ_EDGES | libc::EPOLLOUT as u32;
const ENDED: u32 = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;

fn main() {
    if let Err(error) = run() {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

fn run() -> io::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [address, certificate, key] = &arguments[..] else {
        return Err(io::Error::other("usage: floor-tls ADDRESS CERTIFICATE KEY"));
    };
    let address: SocketAddr = address
        .parse()
        .map_err(|error| io::Error::other(format!("{address}: {error}")))?;
    let context = context(certificate, key)?;
    let listener = listen(address)?;
    let bound = listener
        .local_addr()?
        .as_socket()
        .ok_or(io::ErrorKind::AddrNotAvailable)?;
    println!("listening on {bound}");
    Floor::new(&listener, context)?.run()
}

/// TLS 1.2 and 1.3; with 1.3, two stateless tickets follow a full handshake.
fn context(certificate: &str, key: &str) -> Result<SslContext, ErrorStack> {
    let mut context = SslContext::builder(SslMethod::tls_server())?;
    context.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    context.set_options(SslOptions::NO_COMPRESSION);
    context.set_session_cache_mode(SslSessionCacheMode::OFF);
    context.set_groups_list("X25519:P-256")?;
    context.set_certificate_chain_file(certificate)?;
    context.set_private_key_file(key, SslFiletype::PEM)?;
    context.check_private_key()?;
    Ok(context.build())
}

/// Accepted sockets inherit TCP_NODELAY from the listener, which saves a call for each.
fn listen(address: SocketAddr) -> io::Result<Socket> {
    let listener = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    listener.set_reuse_address(true)?;
    listener.set_tcp_nodelay(true)?;
    listener.bind(&address.into())?;
    listener.listen(65_535)?;
    Ok(listener)
}

struct Floor {
    epoll: RawFd,
    listener: RawFd,
    context: SslContext,
    wire: Wire,
    /// Indexed by descriptor.
    connections: Vec<Option<Connection>>,
    plain: Vec<u8>,
}

impl Floor {
    fn new(listener: &Socket, context: SslContext) -> io::Result<Self> {
        // SAFETY: no pointer is passed.
        let epoll = checked(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        let floor = Self {
            epoll,
            listener: listener.as_raw_fd(),
            context,
            wire: Wire::new(),
            connections: Vec::with_capacity(1 << 20),
            plain: vec![0; PLAIN_BYTES],
        };
        floor.watch(libc::EPOLL_CTL_ADD, floor.listener, READ_EDGES)?;
        Ok(floor)
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_PER_WAIT_MAX];
        let room = EVENTS_PER_WAIT_MAX as i32;
        loop {
            // SAFETY: `events` has room for the number of events given.
            let ready = unsafe { libc::epoll_wait(self.epoll, events.as_mut_ptr(), room, -1) };
            let ready = match checked(ready) {
                Ok(ready) => ready as usize,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            for event in &events[..ready] {
                let descriptor = event.u64 as RawFd;
                if descriptor == self.listener {
                    self.accept();
                } else {
                    self.turn(descriptor, event.events);
                }
            }
        }
    }

    fn turn(&mut self, descriptor: RawFd, events: u32) {
        let Some(connection) = &mut self.connections[descriptor as usize] else {
            return;
        };
        let want = match connection.turn(events & ENDED != 0, &mut self.plain) {
            // Asking anew reports a socket that became writable in the meantime.
            Ok(Want::Write) => self.watch(libc::EPOLL_CTL_MOD, descriptor, WRITE_EDGES),
            other => other.map(|_| ()),
        };
        if want.is_err() {
            self.connections[descriptor as usize] = None;
        }
    }

    /// Accepts all that wait. Any error ends the batch: the next edge tries again.
    fn accept(&mut self) {
        const FLAGS: i32 = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let nowhere = std::ptr::null_mut;
        loop {
            // SAFETY: no address is asked for.
            let accepted =
                unsafe { libc::accept4(self.listener, nowhere(), nowhere().cast(), FLAGS) };
            let Ok(descriptor) = checked(accepted) else {
                return;
            };
            let index = descriptor as usize;
            if index >= self.connections.len() {
                self.connections.resize_with(index + 1, || None);
            }
            let ssl = Ssl::new(&self.context).map_err(io::Error::other);
            let connection = ssl.and_then(|ssl| Connection::new(descriptor, ssl, &self.wire));
            self.connections[index] = connection.ok().filter(|_| {
                self.watch(libc::EPOLL_CTL_ADD, descriptor, READ_EDGES)
                    .is_ok()
            });
        }
    }

    fn watch(&self, operation: i32, descriptor: RawFd, events: u32) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events,
            u64: descriptor as u64,
        };
        // SAFETY: `event` lives through the call.
        checked(unsafe { libc::epoll_ctl(self.epoll, operation, descriptor, &mut event) })?;
        Ok(())
    }
}

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
