//! Publishing through the server API by a plan, while subscribers listen and the queues are watched.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::Socket;

use super::crowd::Crowd;
use super::gauges::{Gauges, Scraper, body_of};
use super::standing::{Spread, channel};
use crate::exchange::Outcome;
use crate::measure::{self, Client, Measurement};
use crate::paced::{Lanes, PacedLoad};
use crate::servers::Server;
use crate::socket::{self, Epoll, Interest, PATIENCE, Take};

/// The key that the server is given.
pub const KEY: &str = "the-key-of-the-benchmark";
/// Bytes of a publication, quotes included.
const DATA_BYTES: usize = 100;
/// Between two looks at the queues.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Queues of less than this do not grow, whatever the samples say.
const QUEUED_BYTES: f64 = 256.0 * 1024.0;

/// What one rate brought.
pub struct Pace {
    /// As many a second were to be published.
    pub rate: u32,
    /// Latencies are from when the plan had a publication sent until its answer.
    pub publications: Measurement,
    /// What was seen of the queues, in order.
    pub queues: Vec<Gauges>,
    /// From the last answer until the last delivery was counted.
    pub tail: Duration,
}

impl Pace {
    /// The most that waited.
    pub fn most(&self, of: impl Fn(&Gauges) -> u64) -> u64 {
        self.queues.iter().map(of).max().unwrap_or(0)
    }

    /// Whether more waited at the end than earlier on.
    pub fn grows(&self) -> bool {
        let quarter = self.queues.len() / 4;
        let mean = |queues: &[Gauges]| {
            let sum: u64 = queues.iter().map(Gauges::queued_bytes).sum();
            sum as f64 / queues.len().max(1) as f64
        };
        let (early, late) = (
            mean(&self.queues[quarter..2 * quarter]),
            mean(&self.queues[self.queues.len() - quarter..]),
        );
        late > 2.0 * early + QUEUED_BYTES
    }

    /// Whether the plan was kept and nothing grew.
    pub fn is_kept(&self) -> bool {
        self.publications.rate() > 0.99 * f64::from(self.rate) && !self.grows()
    }
}

/// Publishes for `duration` at `rate`.
///
/// # Errors
/// What the kernel refuses, a refusal, and a delivery that does not come.
pub fn measure(
    server: &Server,
    crowd: &mut Crowd,
    spread: Spread,
    connections: usize,
    rate: u32,
    duration: Duration,
) -> io::Result<Pace> {
    let lanes = HttpLanes::open(server.endpoint.address, connections, spread.channels)?;
    let load = Paced(PacedLoad::new(lanes, rate));
    let mut scraper = Scraper::new(server.endpoint.address)?;
    let before = crowd.frames()?;
    let over = AtomicBool::new(false);
    let (publications, queues) = thread::scope(|scope| {
        let on = || !over.load(Ordering::Relaxed);
        let watch = scope.spawn(move || scraper.watch(LOOK_EVERY, on));
        let publications = measure::of_client(server, Box::new(load), duration);
        over.store(true, Ordering::Relaxed);
        let queues = watch
            .join()
            .map_err(|_| io::Error::other("a thread panicked"))?;
        Ok::<_, io::Error>((publications?, queues?))
    })?;
    let expected = publications.count * spread.subscribers() as u64;
    let answered = Instant::now();
    loop {
        let delivered = crowd.frames()? - before;
        if delivered == expected {
            break;
        }
        if delivered > expected || answered.elapsed() > PATIENCE {
            return Err(io::Error::other(format!(
                "{delivered} deliveries of {expected} came"
            )));
        }
    }
    Ok(Pace {
        rate,
        publications,
        queues,
        tail: answered.elapsed(),
    })
}

struct Paced(PacedLoad<HttpLanes>);

impl Client for Paced {
    fn run(&mut self, duration: Duration) -> io::Result<Outcome> {
        let outcome = self.0.run(duration)?;
        Ok(Outcome {
            count: outcome.count,
            wall: outcome.wall,
            latency: outcome.planned,
        })
    }
}

/// Connections that are kept alive, one request in flight each; channels take turns.
struct HttpLanes {
    lanes: Vec<Lane>,
    epoll: Epoll,
    requests: Requests,
    room: Vec<u8>,
}

struct Lane {
    socket: Socket,
    sent: Instant,
    answer: Vec<u8>,
}

/// One request, prepared but for its channel.
struct Requests {
    bytes: Vec<u8>,
    channel_at: usize,
    channels: usize,
    next: usize,
}

impl HttpLanes {
    fn open(server: SocketAddr, connections: usize, channels: usize) -> io::Result<Self> {
        let epoll = Epoll::new(connections.min(256))?;
        let open = |index| {
            let socket = socket::connect(server, None)?;
            epoll.add(socket.as_raw_fd(), index, Interest::Read)?;
            Ok(Lane {
                socket,
                sent: Instant::now(),
                answer: Vec::new(),
            })
        };
        Ok(Self {
            lanes: (0..connections).map(open).collect::<io::Result<_>>()?,
            epoll,
            requests: Requests::new(server, channels),
            room: vec![0; 16 * 1024],
        })
    }
}

impl Requests {
    fn new(server: SocketAddr, channels: usize) -> Self {
        let first = channel(0);
        let letters: String = ('a'..='z').cycle().take(DATA_BYTES - 2).collect();
        let body = format!(r#"{{"channel":"{first}","data":"{letters}"}}"#);
        let head = format!(
            "POST /api/publish HTTP/1.1\r\nHost: {server}\r\nX-API-Key: {KEY}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let in_body = body.find(&first).unwrap_or(0);
        Self {
            channel_at: head.len() + in_body,
            bytes: [head, body].concat().into_bytes(),
            channels,
            next: 0,
        }
    }

    fn next(&mut self) -> &[u8] {
        let name = channel(self.next);
        self.bytes[self.channel_at..][..name.len()].copy_from_slice(name.as_bytes());
        self.next = (self.next + 1) % self.channels;
        &self.bytes
    }
}

impl Lanes for HttpLanes {
    fn count(&self) -> usize {
        self.lanes.len()
    }

    fn epoll(&mut self) -> &mut Epoll {
        &mut self.epoll
    }

    fn send(&mut self, index: usize) -> io::Result<()> {
        let lane = &mut self.lanes[index];
        let request = self.requests.next();
        lane.answer.clear();
        lane.sent = Instant::now();
        match socket::send(&lane.socket, request)? {
            sent if sent == request.len() => Ok(()),
            _ => Err(io::Error::other("a request does not fit the socket")),
        }
    }

    fn receive(&mut self, index: usize) -> io::Result<Option<Instant>> {
        let lane = &mut self.lanes[index];
        match socket::receive(&lane.socket, &mut self.room, Take::Bytes)? {
            None => return Ok(None),
            Some(0) => return Err(io::Error::other("the server closed a connection")),
            Some(received) => lane.answer.extend_from_slice(&self.room[..received]),
        }
        match body_of(&lane.answer) {
            Some([start, end]) if end <= lane.answer.len() => {
                let is_result = lane.answer[start..].starts_with(br#"{"result":"#);
                if lane.answer.starts_with(b"HTTP/1.1 200 ") && is_result {
                    return Ok(Some(lane.sent));
                }
                let answer = String::from_utf8_lossy(&lane.answer);
                Err(io::Error::other(format!(
                    "a publication was refused: {answer}"
                )))
            }
            _ => Ok(None),
        }
    }
}
