//! The churn load: connect, upgrade, close, and again, with some sockets at a time.
//!
//! A socket is used again for the next connection: `connect` to no address resets what is left of
//! the last one (the server has closed it by then), so neither side keeps a port in TIME_WAIT, and
//! the client spends fewer calls a cycle than the server.

use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use socket2::{SockAddr, Socket};

use crate::exchange::{self, Outcome};
use crate::socket::{self, CLOSE, CLOSE_REPLY, Endpoint, Epoll, Interest, Take};

/// Sockets that go through the cycle.
pub struct ChurnLoad {
    server: SockAddr,
    request: Vec<u8>,
    peers: Vec<Peer>,
    epoll: Epoll,
}

struct Peer {
    socket: Socket,
    step: Step,
    started: Instant,
    head: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq)]
enum Step {
    Upgrading,
    Closing,
    /// The Close frame is answered; the server has yet to close the socket.
    Ending,
    Done,
}

impl ChurnLoad {
    /// Prepares the sockets and goes through a first cycle.
    ///
    /// # Errors
    /// What the kernel refuses, and anything wrong about an answer.
    pub fn open(server: &Endpoint, connections: usize) -> io::Result<Self> {
        let epoll = Epoll::new(connections)?;
        let mut peers = Vec::with_capacity(connections);
        for index in 0..connections {
            // Connected first, so that no edge tells of a socket that never was.
            let socket = socket::connect(server.address, None)?;
            epoll.add(socket.as_raw_fd(), index, Interest::Read)?;
            let head = Vec::with_capacity(2048);
            peers.push(Peer {
                socket,
                step: Step::Done,
                started: Instant::now(),
                head,
            });
        }
        let mut load = Self {
            server: server.address.into(),
            request: server.request.clone(),
            peers,
            epoll,
        };
        load.run(Duration::ZERO)?;
        Ok(load)
    }

    /// Cycles until `duration` is over, then finishes the cycles that have begun.
    ///
    /// # Errors
    /// What the kernel refuses, and anything wrong about an answer.
    pub fn run(&mut self, duration: Duration) -> io::Result<Outcome> {
        let mut latency = exchange::histogram()?;
        let begin = Instant::now();
        let mut count = 0;
        let mut waiting = self.peers.len();
        for peer in &mut self.peers {
            peer.connect(&self.server, &self.request, begin)?;
        }
        while waiting > 0 {
            for number in 0..self.epoll.wait()? {
                let edge = self.epoll.edge(number);
                let peer = &mut self.peers[edge.index];
                if peer.step == Step::Done || !peer.advance(edge.ended)? {
                    continue;
                }
                let now = Instant::now();
                latency.saturating_record(now.duration_since(peer.started).as_nanos() as u64);
                count += 1;
                if now.duration_since(begin) < duration {
                    peer.connect(&self.server, &self.request, now)?;
                } else {
                    waiting -= 1;
                }
            }
        }
        Ok(Outcome {
            count,
            wall: begin.elapsed(),
            latency,
        })
    }
}

impl Peer {
    /// Drops the last connection, connects anew and asks for the upgrade.
    fn connect(&mut self, server: &SockAddr, request: &[u8], now: Instant) -> io::Result<()> {
        disconnect(&self.socket)?;
        // On loopback the handshake is over when this returns.
        self.socket.connect(server)?;
        (self.step, self.started) = (Step::Upgrading, now);
        self.head.clear();
        send_all(&self.socket, request)
    }

    /// Takes one step; whether the cycle is over.
    fn advance(&mut self, ended: bool) -> io::Result<bool> {
        let mut room = [0; 2048];
        loop {
            let Some(received) = socket::receive(&self.socket, &mut room, Take::Bytes)? else {
                return Ok(false);
            };
            if received == 0 && self.step != Step::Ending {
                return Err(io::Error::other(
                    "the server closed without the close handshake",
                ));
            }
            self.head.extend_from_slice(&room[..received]);
            match self.step {
                Step::Upgrading if socket::is_upgrade(&self.head)? => {
                    self.head.clear();
                    self.step = Step::Closing;
                    send_all(&self.socket, &CLOSE)?;
                    return Ok(false);
                }
                Step::Closing if self.head == CLOSE_REPLY => {
                    self.head.clear();
                    self.step = Step::Ending;
                }
                Step::Closing if self.head.len() >= CLOSE_REPLY.len() => {
                    return Err(io::Error::other("the Close frame came back changed"));
                }
                Step::Ending if received > 0 => {
                    return Err(io::Error::other(
                        "the server sent more after its Close frame",
                    ));
                }
                _ => {}
            }
            // The end shows in the edge, so the last `recv`, which only reports it, is saved.
            if self.step == Step::Ending && (ended || received == 0) {
                self.step = Step::Done;
                return Ok(true);
            }
            if !ended {
                return Ok(false);
            }
        }
    }
}

/// Sends a request that any new socket has room for.
pub(crate) fn send_all(socket: &Socket, bytes: &[u8]) -> io::Result<()> {
    match socket::send(socket, bytes)? {
        sent if sent == bytes.len() => Ok(()),
        _ => Err(io::Error::other(
            "a new socket did not take a short request",
        )),
    }
}

/// Resets the connection and leaves the socket as if new.
pub(crate) fn disconnect(socket: &Socket) -> io::Result<()> {
    let nowhere = libc::sockaddr {
        sa_family: libc::AF_UNSPEC as u16,
        sa_data: [0; 14],
    };
    let size = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: `nowhere` lives through the call.
    match unsafe { libc::connect(socket.as_raw_fd(), &nowhere, size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
