//! Connections that never finish a handshake, beside open ones that echo by a plan.
//!
//! The half-open ones come spread over one handshake timeout and are replaced when the server ends
//! them, so as many as came in a second leave in each, and all of them are there while the echoes
//! are timed. A thread of its own holds them, on the client's core as well; the thread of the plan
//! runs in real time, so that they delay it only inside the server and the kernel.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{SockAddr, Socket};

use crate::churn::{disconnect, send_all};
use crate::exchange::{EchoLoad, TWENTY_BYTES};
use crate::machine;
use crate::paced::{Lanes, PacedLoad};
use crate::servers::{Kind, Server};
use crate::socket::{self, Endpoint, Epoll, Interest};
use crate::tls::client::Dialer;
use crate::tls::exchange::EchoLoad as SecuredEchoLoad;
use crate::tls::measure::start;
use crate::tls::probe::Probe;
use crate::weather::{self, OPEN_CONNECTIONS, Weather};

/// Half-open connections at all times.
pub const CROWD_CONNECTIONS: usize = 2000;
/// Between two bytes of one connection.
const DRIP: Duration = Duration::from_secs(1);
/// Bytes that a connection has left when it begins to drip: more than it gets to send.
const WITHHELD_BYTES: usize = 32;
/// Between two looks at the clock where nothing else is due.
const PAUSE: Duration = Duration::from_millis(2);

/// What the half-open connections do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Crowd {
    /// Connect and say nothing.
    Silent,
    /// Most of a request head, and then a byte a second.
    SlowHeads,
    /// Most of a ClientHello, and then a byte a second.
    CutHellos,
}

impl Crowd {
    pub const ALL: [Self; 3] = [Self::Silent, Self::SlowHeads, Self::CutHellos];

    /// What the report calls it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Silent => "silence",
            Self::SlowHeads => "slow heads",
            Self::CutHellos => "cut hellos",
        }
    }

    /// Whether it takes a server that speaks TLS.
    pub fn is_secured(self) -> bool {
        self == Self::CutHellos
    }

    /// What each connection would send, if it ever did.
    fn words(self, server: &Endpoint) -> io::Result<Vec<u8>> {
        Ok(match self {
            Self::Silent => Vec::new(),
            Self::SlowHeads => server.request.clone(),
            Self::CutHellos => Dialer::new()?.line()?.sending()?,
        })
    }
}

/// How the same open connections fared without the crowd and with it.
pub struct Pair {
    pub calm: Weather,
    /// Its storm are the connections that the server ended.
    pub crowded: Weather,
}

impl Pair {
    /// How many times later the latest hundredth of the echoes came.
    pub fn ratio(&self) -> f64 {
        self.crowded.p99_us() / self.calm.p99_us()
    }
}

/// Which of a pair comes first; whatever the first leaves behind is the second's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Order {
    CalmFirst,
    CrowdFirst,
}

/// How long things take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Times {
    /// After which the server ends a connection that has not finished its handshake.
    pub timeout: Duration,
    /// Of the plan, without the crowd and with it.
    pub duration: Duration,
}

/// Starts `kind`, which must speak TLS where the crowd does, and has it echo twice.
///
/// # Errors
/// The server does not start or ends, a message is lost or changed, a half-open connection is ended
/// long before its time.
pub fn measure(
    kind: &Kind,
    crowd: Crowd,
    probe: &Probe,
    order: Order,
    times: Times,
) -> io::Result<Pair> {
    let context =
        |error: io::Error| io::Error::other(format!("{}, {}: {error}", kind.name, crowd.title()));
    let timeout = format!("{}ms", times.timeout.as_millis());
    let kind = kind.clone().set("TIDEMILL_HANDSHAKE_TIMEOUT", timeout);
    let server = match crowd.is_secured() {
        true => start(&kind, probe)?,
        false => Server::start(&kind)?,
    };
    let endpoint = &server.endpoint;
    let visit = Visit {
        server: &server,
        crowd,
        order,
        times,
    };
    // The order of real time ends with its thread.
    thread::scope(|scope| {
        let steady = scope.spawn(|| match crowd.is_secured() {
            true => visit.pair(|| SecuredEchoLoad::open(endpoint, OPEN_CONNECTIONS, TWENTY_BYTES)),
            false => visit.pair(|| EchoLoad::open(endpoint, OPEN_CONNECTIONS, TWENTY_BYTES)),
        });
        steady.join().map_err(panicked)?
    })
    .map_err(context)
}

/// What one measurement has in common.
struct Visit<'a> {
    server: &'a Server,
    crowd: Crowd,
    order: Order,
    times: Times,
}

impl Visit<'_> {
    fn pair<L: Lanes>(&self, open: impl FnOnce() -> io::Result<L>) -> io::Result<Pair> {
        let real_time = machine::run_in_real_time().is_ok();
        let mut load = weather::paced(open()?);
        Ok(match self.order {
            Order::CalmFirst => {
                let calm = self.calm(&mut load, real_time)?;
                let crowded = self.crowded(&mut load, real_time)?;
                Pair { calm, crowded }
            }
            Order::CrowdFirst => {
                let crowded = self.crowded(&mut load, real_time)?;
                let calm = self.calm(&mut load, real_time)?;
                Pair { calm, crowded }
            }
        })
    }

    fn calm<L: Lanes>(&self, load: &mut PacedLoad<L>, real_time: bool) -> io::Result<Weather> {
        self.server.settle()?;
        Weather::of(self.server, load, self.times.duration, real_time)
    }

    /// Echoes by the plan, once the crowd is there.
    fn crowded<L: Lanes>(&self, load: &mut PacedLoad<L>, real_time: bool) -> io::Result<Weather> {
        let over = AtomicBool::new(false);
        let (here, gathered) = mpsc::channel();
        let over = &over;
        thread::scope(|scope| {
            let holder = scope.spawn(move || Gathering::new(self)?.hold(&here, over));
            // With an error the holder's end of the channel is gone.
            let weather = match gathered.recv() {
                Ok(()) => Weather::of(self.server, load, self.times.duration, real_time),
                Err(_) => Err(io::Error::other("nobody gathered")),
            };
            over.store(true, Ordering::Relaxed);
            // The crowd's own error explains the other one.
            let storm_rate = holder.join().map_err(panicked)??;
            Ok(Weather {
                storm_rate,
                ..weather?
            })
        })
    }
}

/// The half-open connections.
struct Gathering {
    server: SockAddr,
    /// What each sends at once, and the bytes that follow one by one.
    opening: Vec<u8>,
    withheld: Vec<u8>,
    timeout: Duration,
    members: Vec<Member>,
    epoll: Epoll,
    ended: u64,
}

struct Member {
    socket: Socket,
    since: Instant,
    dripped: usize,
}

impl Gathering {
    fn new(visit: &Visit<'_>) -> io::Result<Self> {
        let mut opening = visit.crowd.words(&visit.server.endpoint)?;
        let withheld = opening.split_off(opening.len().saturating_sub(WITHHELD_BYTES));
        Ok(Self {
            server: visit.server.endpoint.address.into(),
            opening,
            withheld,
            timeout: visit.times.timeout,
            members: Vec::with_capacity(CROWD_CONNECTIONS),
            epoll: Epoll::new(256)?,
            ended: 0,
        })
    }

    /// Gathers, says so, and stays until it is `over`; connections that the server ended a second.
    fn hold(&mut self, here: &Sender<()>, over: &AtomicBool) -> io::Result<f64> {
        let connections = CROWD_CONNECTIONS as u32;
        let begin = Instant::now();
        let mut complete = None;
        let mut drips = 0;
        while !over.load(Ordering::Relaxed) {
            let now = Instant::now();
            while self.members.len() < CROWD_CONNECTIONS
                && begin + self.timeout / connections * self.members.len() as u32 <= now
            {
                self.open()?;
            }
            if complete.is_none() && self.members.len() == CROWD_CONNECTIONS {
                complete = Some((now, self.ended));
                let gone = |_| io::Error::other("the open connections ended early");
                here.send(()).map_err(gone)?;
            }
            while begin + DRIP / connections * drips <= now {
                self.drip(drips as usize % CROWD_CONNECTIONS)?;
                drips += 1;
            }
            let due = match self.withheld.is_empty() {
                true => now + PAUSE,
                false => begin + DRIP / connections * drips,
            };
            let pause = due.saturating_duration_since(Instant::now());
            for number in 0..self.epoll.wait_for(pause)? {
                let edge = self.epoll.edge(number);
                if edge.ended {
                    self.replace(edge.index)?;
                }
            }
        }
        Ok(complete.map_or(0.0, |(since, before)| {
            (self.ended - before) as f64 / since.elapsed().as_secs_f64()
        }))
    }

    fn open(&mut self) -> io::Result<()> {
        let address = self.server.as_socket().ok_or_else(nowhere)?;
        let socket = socket::connect(address, None)?;
        let index = self.members.len();
        self.epoll.add(socket.as_raw_fd(), index, Interest::Read)?;
        send_all(&socket, &self.opening)?;
        self.members.push(Member {
            socket,
            since: Instant::now(),
            dripped: 0,
        });
        Ok(())
    }

    fn drip(&mut self, index: usize) -> io::Result<()> {
        let Some(member) = self.members.get_mut(index) else {
            return Ok(());
        };
        let Some(byte) = self.withheld.get(member.dripped..=member.dripped) else {
            return Ok(());
        };
        member.dripped += 1;
        match socket::send(&member.socket, byte) {
            // The edge that tells of it is on its way.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) =>
            {
                Ok(())
            }
            result => result.map(|_| ()),
        }
    }

    /// Connects anew where the server has ended a connection.
    fn replace(&mut self, index: usize) -> io::Result<()> {
        let member = &mut self.members[index];
        let lived = member.since.elapsed();
        if lived < self.timeout / 2 {
            return Err(io::Error::other(format!(
                "a half-open connection was ended after {lived:?} of {:?}",
                self.timeout
            )));
        }
        self.ended += 1;
        disconnect(&member.socket)?;
        member.socket.connect(&self.server)?;
        (member.since, member.dripped) = (Instant::now(), 0);
        send_all(&member.socket, &self.opening)
    }
}

fn nowhere() -> io::Error {
    io::Error::other("the server has no address")
}

fn panicked<E>(_: E) -> io::Error {
    io::Error::other("a thread panicked")
}
