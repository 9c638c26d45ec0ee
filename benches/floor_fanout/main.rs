//! The floor of fan-out: the least that it costs on this kernel to pass what one connection sends
//! on to all others.
//!
//! One thread, one epoll set, edges, one receive buffer, a table of descriptors. The frames that
//! came in one read are turned into the frames to send in place, once, and leave in one `send` to
//! each of the others. `floor-fanout ADDRESS` listens there and prints the address that it got. It
//! validates next to nothing, and a socket that does not take all of a `send` is dropped: nobody is
//! slow here.

#[path = "../floor/frame.rs"]
mod frame;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

use socket2::{Domain, Protocol, Socket, Type};

use crate::frame::Frame;

const SCRATCH_BYTES: usize = 256 * 1024;
const HEAD_BYTES_MAX: usize = 8 * 1024;
const EVENTS_PER_WAIT_MAX: usize = 1024;
const READ_EDGES: u32 = (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET) as u32;
const CLOSE: u8 = 8;

fn main() {
    if let Err(error) = run() {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

fn run() -> io::Result<()> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:0".into());
    let address: SocketAddr = address
        .parse()
        .map_err(|error| io::Error::other(format!("{address}: {error}")))?;
    let listener = listen(address)?;
    let bound = listener
        .local_addr()?
        .as_socket()
        .ok_or(io::ErrorKind::AddrNotAvailable)?;
    println!("listening on {bound}");
    Floor::new(&listener)?.run()
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
    /// Indexed by descriptor.
    connections: Vec<Connection>,
    /// The descriptors of those that hear what the others send.
    open: Vec<RawFd>,
    scratch: Vec<u8>,
}

#[derive(Default)]
struct Connection {
    is_open: bool,
    /// The beginning of a frame, or of the request.
    input: Vec<u8>,
}

impl Floor {
    fn new(listener: &Socket) -> io::Result<Self> {
        // SAFETY: no pointer is passed.
        let epoll = checked(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        let floor = Self {
            epoll,
            listener: listener.as_raw_fd(),
            connections: Vec::new(),
            open: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES],
        };
        floor.watch(floor.listener)?;
        Ok(floor)
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_PER_WAIT_MAX];
        loop {
            let room = EVENTS_PER_WAIT_MAX as i32;
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
                } else if self.turn(descriptor).is_err() {
                    self.drop_connection(descriptor);
                }
            }
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
                self.connections.resize_with(index + 1, Connection::default);
            }
            self.connections[index] = Connection::default();
            if self.watch(descriptor).is_err() {
                self.drop_connection(descriptor);
            }
        }
    }

    /// Receives all there is and passes it on.
    ///
    /// # Errors
    /// An error, an end and a Close frame alike: the connection is to be dropped.
    fn turn(&mut self, descriptor: RawFd) -> io::Result<()> {
        let index = descriptor as usize;
        loop {
            let carried = std::mem::take(&mut self.connections[index].input);
            self.scratch[..carried.len()].copy_from_slice(&carried);
            let room = &mut self.scratch[carried.len()..];
            let room_bytes = room.len();
            let Some(received) = receive(descriptor, room)? else {
                self.connections[index].input = carried;
                return Ok(());
            };
            let filled = carried.len() + received;
            let mut at = 0;
            if !self.connections[index].is_open {
                match upgrade(descriptor, &self.scratch[..filled])? {
                    Some(head_bytes) => at = head_bytes,
                    None => {
                        self.connections[index].input = self.scratch[..filled].to_vec();
                        continue;
                    }
                }
                self.connections[index].is_open = true;
                self.open.push(descriptor);
            }
            self.pass_on(descriptor, at, filled)?;
            if received < room_bytes {
                return Ok(());
            }
        }
    }

    /// Passes on all complete frames between `at` and `filled` and keeps the incomplete rest.
    fn pass_on(&mut self, from: RawFd, mut at: usize, filled: usize) -> io::Result<()> {
        let bytes = &mut self.scratch[..filled];
        let mut start = None;
        let mut end = 0;
        while let Some(frame) = Frame::parse(&bytes[at..])? {
            if bytes.len() - at < frame.bytes() {
                break;
            }
            let to = if start.is_none() { at + 4 } else { end };
            start.get_or_insert(to);
            let frame_end = frame.reply(bytes, at, to, frame.first);
            if frame.opcode() == CLOSE {
                // RFC 6455, 7.1.1: the server closes the socket once the Close frame is answered.
                send(from, &bytes[to..frame_end])?;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            (at, end) = (at + frame.bytes(), frame_end);
        }
        self.connections[from as usize].input = bytes[at..].to_vec();
        let Some(start) = start else {
            return Ok(());
        };
        let frames = &bytes[start..end];
        let mut gone = Vec::new();
        for &to in self.open.iter().filter(|to| **to != from) {
            if send(to, frames).is_err() {
                gone.push(to);
            }
        }
        gone.into_iter().for_each(|to| self.drop_connection(to));
        Ok(())
    }

    /// Closing takes a descriptor out of the epoll set.
    fn drop_connection(&mut self, descriptor: RawFd) {
        self.connections[descriptor as usize] = Connection::default();
        if let Some(place) = self.open.iter().position(|open| *open == descriptor) {
            self.open.swap_remove(place);
        }
        // SAFETY: the table alone owns its descriptors, and this one was in it until now.
        unsafe { libc::close(descriptor) };
    }

    fn watch(&self, descriptor: RawFd) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: READ_EDGES,
            u64: descriptor as u64,
        };
        let operation = libc::EPOLL_CTL_ADD;
        // SAFETY: `event` lives through the call.
        checked(unsafe { libc::epoll_ctl(self.epoll, operation, descriptor, &mut event) })?;
        Ok(())
    }
}

/// Answers the request; its size when it is complete.
fn upgrade(descriptor: RawFd, bytes: &[u8]) -> io::Result<Option<usize>> {
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
            send(descriptor, response.as_bytes())?;
            return Ok(Some(at));
        }
        if line.len() > KEY.len() && line[..KEY.len()].eq_ignore_ascii_case(KEY) {
            key = Some(line[KEY.len()..].trim_ascii());
        }
    }
    match bytes.len() > HEAD_BYTES_MAX {
        true => Err(io::ErrorKind::InvalidData.into()),
        false => Ok(None),
    }
}

/// Bytes received; `None` when the socket is empty.
fn receive(descriptor: RawFd, room: &mut [u8]) -> io::Result<Option<usize>> {
    // SAFETY: `room` is writable and of the length given.
    let received = unsafe { libc::recv(descriptor, room.as_mut_ptr().cast(), room.len(), 0) };
    match received {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        1.. => Ok(Some(received as usize)),
        _ => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            error => Err(error),
        },
    }
}

/// Sends all of it, or it is an error.
fn send(descriptor: RawFd, bytes: &[u8]) -> io::Result<()> {
    let flags = libc::MSG_NOSIGNAL;
    // SAFETY: `bytes` is a readable buffer of the length given.
    let sent = unsafe { libc::send(descriptor, bytes.as_ptr().cast(), bytes.len(), flags) };
    match sent {
        all if all == bytes.len() as isize => Ok(()),
        0.. => Err(io::ErrorKind::WriteZero.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
