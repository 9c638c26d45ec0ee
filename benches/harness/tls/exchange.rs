//! The echo load over TLS: what [`crate::exchange`] sends, as fast as answers come.
//!
//! Connections open with rustls and go on with [`super::records`].

use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use socket2::Socket;

use super::client::{Connection, Dialer};
use super::records::{Records, room_bytes, too_much};
use crate::exchange::{Exchange, Outcome, Script, histogram};
use crate::measure::Client;
use crate::paced::Lanes;
use crate::socket::{self, Endpoint, Epoll, Interest, Take};

/// Bytes received at once, with the beginning of a record before them.
const RECEIVE_BYTES_MAX: usize = 256 * 1024;

/// Open connections and the bytes that they exchange.
pub struct EchoLoad {
    epoll: Epoll,
    peers: Vec<Peer>,
    script: Script,
    buffers: Buffers,
}

impl EchoLoad {
    /// Opens the connections and sends a first batch over each, so that nothing is cold.
    ///
    /// # Errors
    /// What the kernel or the server refuses, and anything wrong about an answer.
    pub fn open(server: &Endpoint, connections: usize, exchange: Exchange) -> io::Result<Self> {
        let script = Script::new(exchange);
        let epoll = Epoll::new(connections.min(256))?;
        let dialer = Dialer::new()?;
        let mut peers = Vec::with_capacity(connections);
        for index in 0..connections {
            let Connection { socket, line } = dialer.open(server, None)?;
            epoll.add(socket.as_raw_fd(), index, Interest::ReadAndWrite)?;
            peers.push(Peer {
                socket,
                records: Records::new(line.into_tls())?,
                backlog: Vec::new(),
                cut: Vec::new(),
                sequence: 0,
                received: 0,
                started: Instant::now(),
            });
        }
        let buffers = Buffers {
            received: vec![0; RECEIVE_BYTES_MAX],
            plain: vec![0; room_bytes(script.reply.len())],
            sending: Vec::with_capacity(RECEIVE_BYTES_MAX),
        };
        let mut load = Self {
            epoll,
            peers,
            script,
            buffers,
        };
        load.run(Duration::ZERO)?;
        Ok(load)
    }
}

impl Client for EchoLoad {
    fn run(&mut self, duration: Duration) -> io::Result<Outcome> {
        let in_flight = self.script.in_flight as u64;
        let mut latency = histogram()?;
        let begin = Instant::now();
        let mut count = 0;
        let mut waiting = self.peers.len();
        for (index, peer) in self.peers.iter_mut().enumerate() {
            peer.send(index, begin, &mut self.script, &mut self.buffers)?;
        }
        while waiting > 0 {
            for number in 0..self.epoll.wait()? {
                let index = self.epoll.edge(number).index;
                let peer = &mut self.peers[index];
                if !peer.receive(index, &mut self.script, &mut self.buffers)? {
                    continue;
                }
                let now = Instant::now();
                let elapsed = now.duration_since(peer.started).as_nanos() as u64;
                latency.saturating_record_n(elapsed, in_flight);
                count += in_flight;
                if now.duration_since(begin) < duration {
                    peer.send(index, now, &mut self.script, &mut self.buffers)?;
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

impl Lanes for EchoLoad {
    fn count(&self) -> usize {
        self.peers.len()
    }

    fn epoll(&mut self) -> &mut Epoll {
        &mut self.epoll
    }

    fn send(&mut self, index: usize) -> io::Result<()> {
        let now = Instant::now();
        self.peers[index].send(index, now, &mut self.script, &mut self.buffers)
    }

    fn receive(&mut self, index: usize) -> io::Result<Option<Instant>> {
        let peer = &mut self.peers[index];
        let answered = peer.receive(index, &mut self.script, &mut self.buffers)?;
        Ok(answered.then_some(peer.started))
    }
}

/// One connection and its batch in flight.
struct Peer {
    socket: Socket,
    records: Records,
    /// What the socket refused of the batch.
    backlog: Vec<u8>,
    /// The beginning of a record that is not complete.
    cut: Vec<u8>,
    sequence: u32,
    received: usize,
    /// When the batch was sent.
    started: Instant,
}

/// Buffers that all connections share.
struct Buffers {
    received: Vec<u8>,
    plain: Vec<u8>,
    sending: Vec<u8>,
}

impl Peer {
    /// Begins the next batch.
    fn send(
        &mut self,
        index: usize,
        now: Instant,
        script: &mut Script,
        buffers: &mut Buffers,
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        (self.received, self.started) = (0, now);
        script.request.stamp(index, self.sequence);
        buffers.sending.clear();
        self.records
            .seal(&script.request.bytes, &mut buffers.sending)?;
        let sent = socket::send(&self.socket, &buffers.sending)?;
        self.backlog.extend_from_slice(&buffers.sending[sent..]);
        Ok(())
    }

    /// Whether this edge completed the answer to the batch. What still waits to be sent goes first.
    fn receive(
        &mut self,
        index: usize,
        script: &mut Script,
        buffers: &mut Buffers,
    ) -> io::Result<bool> {
        if !self.backlog.is_empty() {
            let sent = socket::send(&self.socket, &self.backlog)?;
            self.backlog.drain(..sent);
        }
        let expected = script.reply.len();
        if self.received == expected {
            return Ok(false);
        }
        let carried = self.cut.len();
        let Buffers {
            received, plain, ..
        } = buffers;
        received[..carried].copy_from_slice(&self.cut);
        let room = &mut received[carried..];
        let filled = match socket::receive(&self.socket, room, Take::Bytes)? {
            None => return Ok(false),
            Some(0) => return Err(io::Error::other("messages were lost: the server left")),
            Some(count) => carried + count,
        };
        self.cut.clear();
        let compare = script.compares(self.sequence);
        let start = self.received;
        let mut at = 0;
        while let Some(opened) = match compare {
            true => self
                .records
                .open(&received[at..filled], &mut plain[self.received..]),
            false => self.records.skip(&received[at..filled]),
        }? {
            at += opened.record_bytes;
            self.received += opened.plain_bytes;
            if self.received > expected {
                return Err(too_much());
            }
        }
        self.cut.extend_from_slice(&received[at..filled]);
        if compare {
            script.reply.stamp(index, self.sequence);
            let new = start..self.received;
            if script.reply.bytes[new.clone()] != plain[new] {
                return Err(io::Error::other("a message came back changed"));
            }
        }
        Ok(self.received == expected)
    }
}
