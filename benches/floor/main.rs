//! The floor: the least that a WebSocket echo costs on this kernel, for the ratios of the benches.
//!
//! One thread, one epoll set, edges, a table indexed by descriptor, one receive buffer for all
//! connections. `floor ADDRESS` listens there and prints the address that it got. It validates next
//! to nothing, has no timer, no limit and no backpressure beyond "write before you read again".

mod connection;
mod frame;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

use socket2::{Domain, Protocol, Socket, Type};

use crate::connection::{Connection, Want};

const SCRATCH_BYTES: usize = 256 * 1024;
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
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:0".into());
    let address: SocketAddr = address.parse().map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{address}: {error}"))
    })?;
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
    scratch: Vec<u8>,
}

impl Floor {
    fn new(listener: &Socket) -> io::Result<Self> {
        // SAFETY: no pointer is passed.
        let epoll = checked(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        let floor = Self {
            epoll,
            listener: listener.as_raw_fd(),
            connections: Vec::with_capacity(1 << 20),
            scratch: vec![0; SCRATCH_BYTES],
        };
        floor.watch(libc::EPOLL_CTL_ADD, floor.listener, READ_EDGES)?;
        Ok(floor)
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_PER_WAIT_MAX];
        loop {
            // SAFETY: `events` has room for the number of events given.
            let ready = unsafe {
                libc::epoll_wait(
                    self.epoll,
                    events.as_mut_ptr(),
                    EVENTS_PER_WAIT_MAX as i32,
                    -1,
                )
            };
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
        let connection = &mut self.connections[descriptor as usize];
        let want = match connection.turn(events & ENDED != 0, &mut self.scratch) {
            // Asking anew reports a socket that became writable in the meantime.
            Ok(Want::Write) => self.watch(libc::EPOLL_CTL_MOD, descriptor, WRITE_EDGES),
            other => other.map(|_| ()),
        };
        if want.is_err() {
            self.connections[descriptor as usize] = Connection::UNUSED;
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
                self.connections
                    .resize_with(index + 1, || Connection::UNUSED);
            }
            self.connections[index] = Connection::new(descriptor);
            if self
                .watch(libc::EPOLL_CTL_ADD, descriptor, READ_EDGES)
                .is_err()
            {
                self.connections[index] = Connection::UNUSED;
            }
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
