//! The echo load: each connection sends a batch of prepared frames and waits for all of it.
//!
//! Every message carries a stamp of its connection and number. Small replies are compared byte by
//! byte; of large ones a sample is, and of the rest the kernel counts the bytes without copying
//! them, so that the client is never the slower side for checking.

use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use socket2::Socket;

use crate::paced::Lanes;
use crate::socket::{self, Endpoint, Epoll, Interest, MASK, PATIENCE, Take};

const STAMP_BYTES: usize = 8;
/// Replies up to this are all compared.
const COMPARED_BYTES_MAX: usize = 2 * 1024;
/// Of longer ones, one in this many.
const COMPARED_EVERY: u32 = 8;

/// What a load did.
pub struct Outcome {
    /// Messages echoed, or connections opened and closed.
    pub count: u64,
    pub wall: Duration,
    /// In nanoseconds.
    pub latency: Histogram<u64>,
}

/// An empty histogram of nanoseconds, of a size that never changes under load.
///
/// # Errors
/// None with these bounds.
pub fn histogram() -> io::Result<Histogram<u64>> {
    let highest = 2 * PATIENCE.as_nanos() as u64;
    Histogram::new_with_bounds(1, highest, 3).map_err(io::Error::other)
}

/// What is sent.
#[derive(Clone, Copy)]
pub struct Exchange {
    pub payload_bytes: usize,
    pub in_flight: usize,
    pub payload: Payload,
}

/// One binary message of 20 bytes at a time.
pub const TWENTY_BYTES: Exchange = Exchange {
    payload_bytes: 20,
    in_flight: 1,
    payload: Payload::Binary,
};

/// Text or binary frames; the bytes are the same ASCII.
#[derive(Clone, Copy, PartialEq)]
pub enum Payload {
    Text,
    Binary,
}

/// Open connections and the bytes that they exchange.
pub struct EchoLoad {
    script: Script,
    peers: Vec<Peer>,
    epoll: Epoll,
    received: Vec<u8>,
}

impl EchoLoad {
    /// Opens the connections and sends a first batch over each, so that nothing is cold.
    ///
    /// # Errors
    /// What the kernel refuses, and anything wrong about an answer.
    pub fn open(server: &Endpoint, connections: usize, exchange: Exchange) -> io::Result<Self> {
        let script = Script::new(exchange);
        let epoll = Epoll::new(connections.min(256))?;
        let mut peers = Vec::with_capacity(connections);
        for index in 0..connections {
            let socket = socket::open(server, None)?;
            epoll.add(socket.as_raw_fd(), index, Interest::ReadAndWrite)?;
            peers.push(Peer {
                socket,
                sequence: 0,
                sent: 0,
                received: 0,
                started: Instant::now(),
            });
        }
        // One byte more than a reply has, so that a byte too many is seen.
        let received = vec![0; script.reply.len() + 1];
        let mut load = Self {
            script,
            peers,
            epoll,
            received,
        };
        load.run(Duration::ZERO)?;
        Ok(load)
    }

    /// Exchanges batches until `duration` is over, then waits for all that is in flight.
    ///
    /// # Errors
    /// What the kernel refuses, and anything wrong about an answer.
    pub fn run(&mut self, duration: Duration) -> io::Result<Outcome> {
        let end = Instant::now() + duration;
        self.run_while(|_, now| now < end)
    }

    /// Exchanges `messages` and what the connections have in flight by then.
    ///
    /// # Errors
    /// What the kernel refuses, and anything wrong about an answer.
    pub fn run_messages(&mut self, messages: u64) -> io::Result<Outcome> {
        self.run_while(|count, _| count < messages)
    }

    /// Begins a batch behind each answer for as long as it is told to go `on`, by what was answered
    /// and the time.
    fn run_while(&mut self, on: impl Fn(u64, Instant) -> bool) -> io::Result<Outcome> {
        let in_flight = self.script.in_flight as u64;
        let mut latency = histogram()?;
        let begin = Instant::now();
        let mut count = 0;
        let mut waiting = self.peers.len();
        for (index, peer) in self.peers.iter_mut().enumerate() {
            peer.begin(begin);
            peer.send(index, &mut self.script)?;
        }
        while waiting > 0 {
            for number in 0..self.epoll.wait()? {
                let index = self.epoll.edge(number).index;
                let peer = &mut self.peers[index];
                peer.send(index, &mut self.script)?;
                if !peer.receive(index, &mut self.script, &mut self.received)? {
                    continue;
                }
                let now = Instant::now();
                let elapsed = now.duration_since(peer.started).as_nanos() as u64;
                latency.saturating_record_n(elapsed, in_flight);
                count += in_flight;
                if on(count, now) {
                    peer.begin(now);
                    peer.send(index, &mut self.script)?;
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
        let peer = &mut self.peers[index];
        peer.begin(Instant::now());
        peer.send(index, &mut self.script)
    }

    fn receive(&mut self, index: usize) -> io::Result<Option<Instant>> {
        let peer = &mut self.peers[index];
        peer.send(index, &mut self.script)?;
        let answered = peer.receive(index, &mut self.script, &mut self.received)?;
        Ok(answered.then_some(peer.started))
    }
}

struct Peer {
    socket: Socket,
    /// Of the batch in flight.
    sequence: u32,
    sent: usize,
    received: usize,
    started: Instant,
}

impl Peer {
    fn begin(&mut self, now: Instant) {
        self.sequence = self.sequence.wrapping_add(1);
        (self.sent, self.received, self.started) = (0, 0, now);
    }

    /// Sends what the socket takes of the rest of the batch.
    fn send(&mut self, index: usize, script: &mut Script) -> io::Result<()> {
        if self.sent < script.request.len() {
            script.request.stamp(index, self.sequence);
            self.sent += socket::send(&self.socket, &script.request.bytes[self.sent..])?;
        }
        Ok(())
    }

    /// Whether the batch is answered. One call takes all there is: a batch is all that can come.
    fn receive(
        &mut self,
        index: usize,
        script: &mut Script,
        buffer: &mut [u8],
    ) -> io::Result<bool> {
        let expected = script.reply.len() - self.received;
        if expected == 0 {
            return Ok(false);
        }
        let compare = script.compares(self.sequence);
        let take = if compare { Take::Bytes } else { Take::Count };
        let Some(received) = socket::receive(&self.socket, &mut buffer[..=expected], take)? else {
            return Ok(false);
        };
        if received == 0 {
            return Err(io::Error::other(
                "messages were lost: the server closed a connection",
            ));
        }
        if compare {
            script.reply.stamp(index, self.sequence);
            let rest = &script.reply.bytes[self.received..];
            if rest.get(..received) != Some(&buffer[..received]) {
                return Err(io::Error::other("a message came back changed"));
            }
        } else if received > expected {
            return Err(io::Error::other("more came back than was sent"));
        }
        self.received += received;
        Ok(self.received == script.reply.len())
    }
}

/// The frames of one batch, there and back.
pub(crate) struct Script {
    pub in_flight: usize,
    pub request: Frames,
    pub reply: Frames,
}

impl Script {
    pub fn new(exchange: Exchange) -> Self {
        let payload: Vec<u8> = (0..exchange.payload_bytes.max(STAMP_BYTES))
            .map(|index| b'a' + (index % 26) as u8)
            .collect();
        let masked = payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask);
        let mut request = header(exchange.payload, payload.len(), 0x80);
        request.extend(MASK);
        let reply = header(exchange.payload, payload.len(), 0);
        let wide = u64::from(u32::from_be_bytes(MASK));
        Self {
            in_flight: exchange.in_flight,
            request: Frames::new(
                request,
                masked.collect(),
                exchange.in_flight,
                wide << 32 | wide,
            ),
            reply: Frames::new(reply, payload, exchange.in_flight, 0),
        }
    }

    /// Whether the replies of that batch are compared byte by byte.
    pub fn compares(&self, sequence: u32) -> bool {
        self.reply.len() <= COMPARED_BYTES_MAX || sequence.is_multiple_of(COMPARED_EVERY)
    }
}

/// Equal frames behind one another, prepared but for their stamps.
pub(crate) struct Frames {
    pub bytes: Vec<u8>,
    frame_bytes: usize,
    header_bytes: usize,
    /// Of a stamp; it opens the payload, so the frame's mask begins with it.
    mask: u64,
}

impl Frames {
    fn new(header: Vec<u8>, payload: Vec<u8>, count: usize, mask: u64) -> Self {
        let header_bytes = header.len();
        let frame = [header, payload].concat();
        Self {
            bytes: frame.repeat(count),
            frame_bytes: frame.len(),
            header_bytes,
            mask,
        }
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Marks each message as one of that connection and batch.
    pub fn stamp(&mut self, index: usize, sequence: u32) {
        for (number, frame) in self.bytes.chunks_exact_mut(self.frame_bytes).enumerate() {
            let stamp = stamp(index, sequence, number) ^ self.mask;
            frame[self.header_bytes..][..STAMP_BYTES].copy_from_slice(&stamp.to_be_bytes());
        }
    }
}

/// Eight ASCII characters of six bits each: connection, batch, message of the batch.
fn stamp(index: usize, sequence: u32, number: usize) -> u64 {
    let sequence = u64::from(sequence & 0x0fff_ffff);
    let bits = (index as u64) << 32 | sequence << 4 | (number as u64 & 0xf);
    (0..8).fold(0, |stamp, digit| {
        stamp << 8 | (0x30 + (bits >> (digit * 6) & 0x3f))
    })
}

fn header(payload: Payload, payload_bytes: usize, mask_bit: u8) -> Vec<u8> {
    let mut header = vec![if payload == Payload::Text { 0x81 } else { 0x82 }];
    match payload_bytes {
        short @ ..126 => header.push(mask_bit | short as u8),
        middle @ ..0x1_0000 => {
            header.push(mask_bit | 126);
            header.extend((middle as u16).to_be_bytes());
        }
        long => {
            header.push(mask_bit | 127);
            header.extend((long as u64).to_be_bytes());
        }
    }
    header
}
