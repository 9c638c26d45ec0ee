//! The churn load over TLS: connect, both handshakes, close, and again, some sockets at a time.
//!
//! A socket is used again for the next connection, as in [`crate::churn`]. A cycle is over when the
//! server has answered the Close frame, said close_notify and closed the socket.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::HandshakeKind;
use socket2::{SockAddr, Socket};

use super::client::{Dialer, Line, Received, more_than_close, truncated};
use super::tickets::Tickets;
use crate::churn::disconnect;
use crate::exchange::{Outcome, histogram};
use crate::measure::Client;
use crate::socket::{self, CLOSE, CLOSE_REPLY, Endpoint, Epoll, Interest};

/// Room for the answer to the upgrade.
const HEAD_BYTES: usize = 2048;

/// How each cycle begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Handshake {
    Full,
    /// With a ticket of an earlier connection, each used once; the server must accept it.
    Resumed,
}

/// Sockets that go through the cycle.
pub struct ChurnLoad {
    cycle: Cycle,
    peers: Vec<Peer>,
    epoll: Epoll,
}

/// What all cycles have in common.
struct Cycle {
    server: SockAddr,
    request: Vec<u8>,
    dialer: Dialer,
    /// What each handshake must turn out to be.
    kind: HandshakeKind,
}

struct Peer {
    socket: Socket,
    /// `None` between cycles.
    line: Option<Line>,
    step: Step,
    started: Instant,
    head: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq)]
enum Step {
    Upgrading,
    Closing,
    /// The Close frame is answered; close_notify is to come.
    Answered,
    /// The server has yet to close the socket.
    Ending,
    Done,
}

impl ChurnLoad {
    /// Prepares the sockets and goes through a first cycle, which is where tickets come from.
    ///
    /// # Errors
    /// What the kernel or the server refuses, and anything wrong about an answer.
    pub fn open(server: &Endpoint, connections: usize, handshake: Handshake) -> io::Result<Self> {
        let epoll = Epoll::new(connections)?;
        let mut peers = Vec::with_capacity(connections);
        for index in 0..connections {
            // Connected first, so that no edge tells of a socket that never was.
            let socket = socket::connect(server.address, None)?;
            epoll.add(socket.as_raw_fd(), index, Interest::Read)?;
            peers.push(Peer {
                socket,
                line: None,
                step: Step::Done,
                started: Instant::now(),
                head: Vec::with_capacity(HEAD_BYTES),
            });
        }
        let (dialer, kind) = match handshake {
            Handshake::Full => (Dialer::new()?, HandshakeKind::Full),
            Handshake::Resumed => {
                let tickets = Arc::new(Tickets::default());
                (Dialer::resuming(&tickets)?, HandshakeKind::Resumed)
            }
        };
        let cycle = Cycle {
            server: server.address.into(),
            request: server.request.clone(),
            dialer,
            kind: HandshakeKind::Full,
        };
        let mut load = Self {
            cycle,
            peers,
            epoll,
        };
        load.run(Duration::ZERO)?;
        load.cycle.kind = kind;
        Ok(load)
    }

    /// Cycles for as long as it is told to go `on`, then finishes the cycles that have begun.
    ///
    /// # Errors
    /// What the kernel or the server refuses, and anything wrong about an answer.
    pub fn run_while(&mut self, on: impl Fn(Instant) -> bool) -> io::Result<Outcome> {
        let mut latency = histogram()?;
        let begin = Instant::now();
        let mut count = 0;
        let mut waiting = self.peers.len();
        for peer in &mut self.peers {
            peer.connect(&self.cycle, begin)?;
        }
        while waiting > 0 {
            for number in 0..self.epoll.wait()? {
                let edge = self.epoll.edge(number);
                let peer = &mut self.peers[edge.index];
                if peer.step == Step::Done || !peer.advance(&self.cycle, edge.ended)? {
                    continue;
                }
                let now = Instant::now();
                latency.saturating_record(now.duration_since(peer.started).as_nanos() as u64);
                count += 1;
                if on(now) {
                    peer.connect(&self.cycle, now)?;
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

impl Client for ChurnLoad {
    fn run(&mut self, duration: Duration) -> io::Result<Outcome> {
        let end = Instant::now() + duration;
        self.run_while(|now| now < end)
    }
}

impl Peer {
    /// Drops the last connection, connects anew and says hello. The request for the upgrade leaves
    /// with the end of the handshake.
    fn connect(&mut self, cycle: &Cycle, now: Instant) -> io::Result<()> {
        disconnect(&self.socket)?;
        // On loopback the handshake of TCP is over when this returns.
        self.socket.connect(&cycle.server)?;
        let mut line = cycle.dialer.line()?;
        line.flush(&self.socket)?;
        line.write(&cycle.request)?;
        self.line = Some(line);
        (self.step, self.started) = (Step::Upgrading, now);
        self.head.clear();
        Ok(())
    }

    /// Takes the steps that this edge allows; whether the cycle is over.
    fn advance(&mut self, cycle: &Cycle, ended: bool) -> io::Result<bool> {
        let Some(mut line) = self.line.take() else {
            return Ok(false);
        };
        loop {
            match line.receive(&self.socket)? {
                Received::Nothing => break,
                Received::End if self.step == Step::Ending => {
                    self.step = Step::Done;
                    return Ok(true);
                }
                Received::End => return Err(truncated()),
                Received::Bytes => self.take_in(&mut line, cycle)?,
            }
            line.flush(&self.socket)?;
            // The end shows in the edge, so the last `recv`, which only reports it, is saved.
            if ended && self.step == Step::Ending {
                self.step = Step::Done;
                return Ok(true);
            }
            if !ended {
                break;
            }
        }
        self.line = Some(line);
        Ok(false)
    }

    /// Steps as far as what was received leads.
    fn take_in(&mut self, line: &mut Line, cycle: &Cycle) -> io::Result<()> {
        let notified = line.read(&mut self.head)?;
        if self.step == Step::Upgrading && socket::is_upgrade(&self.head)? {
            let kind = line.tls().handshake_kind();
            if kind != Some(cycle.kind) {
                return Err(io::Error::other(format!(
                    "a handshake was {kind:?} and not {:?}",
                    cycle.kind
                )));
            }
            self.head.clear();
            self.step = Step::Closing;
            return line.write(&CLOSE);
        }
        if self.step == Step::Closing && self.head.len() >= CLOSE_REPLY.len() {
            if !self.head.starts_with(&CLOSE_REPLY) {
                return Err(io::Error::other("the Close frame came back changed"));
            }
            self.step = Step::Answered;
        }
        match self.step {
            Step::Answered if self.head.len() > CLOSE_REPLY.len() => Err(more_than_close()),
            Step::Answered if notified => {
                self.step = Step::Ending;
                Ok(())
            }
            Step::Upgrading | Step::Closing if notified => Err(io::Error::other(
                "the server closed without the close handshake",
            )),
            _ => Ok(()),
        }
    }
}
