//! A storm of handshakes against open connections.
//!
//! The open connections echo by a plan and their latency is what counts. The storm comes from a
//! thread of its own, on the client's core as well; the thread of the plan runs in real time, so
//! that the storm delays it only inside the server.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{SockAddr, Socket};

use super::churn::{ChurnLoad, Handshake};
use super::client::Dialer;
use super::exchange::EchoLoad;
use super::measure::start;
use super::probe::Probe;
use crate::churn::{disconnect, send_all};
use crate::exchange::TWENTY_BYTES;
use crate::machine;
use crate::servers::{Kind, Server};
use crate::socket::{self, Endpoint, Epoll, Interest, Take};
use crate::weather::{self, OPEN_CONNECTIONS, Weather};

/// Connections that the storm has in progress, at all times.
pub const STORM_CONNECTIONS: usize = 256;
/// A handshake record, RFC 8446, 5.1: anything else in answer to a hello is a refusal.
const HANDSHAKE_RECORD: u8 = 22;

/// What the storm does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Storm {
    Calm,
    /// Full handshake, upgrade, close. The client works nearly as hard as the server.
    Handshakes,
    /// A ClientHello, the server's answer, and away: the server's part of the work alone, which
    /// costs the client next to nothing.
    Hellos,
}

impl Storm {
    pub const ALL: [Self; 3] = [Self::Calm, Self::Handshakes, Self::Hellos];

    /// What the report calls it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Calm => "undisturbed",
            Self::Handshakes => "handshakes",
            Self::Hellos => "hellos only",
        }
    }
}

/// Starts `kind` and has it echo for `duration` in that storm.
///
/// # Errors
/// The server does not start or ends, a message is lost or changed, a handshake fails.
pub fn measure(
    kind: &Kind,
    storm: Storm,
    probe: &Probe,
    duration: Duration,
) -> io::Result<Weather> {
    let context =
        |error: io::Error| io::Error::other(format!("{}, {}: {error}", kind.name, storm.title()));
    let server = start(kind, probe)?;
    let endpoint = &server.endpoint;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let (open, opened) = mpsc::channel();
        let (rage, raging) = mpsc::channel();
        let stormy = scope.spawn(|| {
            // With an error on either side its channel ends, so that the other waits for nobody.
            let wind = Wind { opened, rage };
            match storm {
                Storm::Calm => wind.calm(),
                Storm::Handshakes => wind.handshakes(endpoint, &over),
                Storm::Hellos => wind.hellos(endpoint, &over),
            }
        });
        let steady = scope.spawn(|| {
            let weather = endure(&server, duration, open, raging);
            over.store(true, Ordering::Relaxed);
            weather
        });
        let ended = |_| io::Error::other("a thread panicked");
        let storm_rate = stormy.join().map_err(ended)?;
        // The storm's own error explains the other one.
        let weather = steady.join().map_err(ended)?;
        let storm_rate = storm_rate?;
        Ok(Weather {
            storm_rate,
            ..weather?
        })
    })
    .map_err(context)
}

/// Echoes by the plan, once the storm rages.
fn endure(
    server: &Server,
    duration: Duration,
    open: Sender<()>,
    raging: Receiver<()>,
) -> io::Result<Weather> {
    let real_time = machine::run_in_real_time().is_ok();
    let lanes = EchoLoad::open(&server.endpoint, OPEN_CONNECTIONS, TWENTY_BYTES)?;
    let mut load = weather::paced(lanes);
    let gone = |_| io::Error::other("the storm ended early");
    open.send(()).map_err(gone)?;
    raging
        .recv()
        .map_err(|error| io::Error::other(format!("the storm: {error}")))?;
    Weather::of(server, &mut load, duration, real_time)
}

/// The storm's side of the two channels.
struct Wind {
    opened: Receiver<()>,
    rage: Sender<()>,
}

impl Wind {
    fn calm(self) -> io::Result<f64> {
        self.begin()?;
        Ok(0.0)
    }

    fn handshakes(self, server: &Endpoint, over: &AtomicBool) -> io::Result<f64> {
        self.opened.recv().map_err(nobody)?;
        let mut load = ChurnLoad::open(server, STORM_CONNECTIONS, Handshake::Full)?;
        self.rage.send(()).map_err(nobody)?;
        let outcome = load.run_while(|_| !over.load(Ordering::Relaxed))?;
        Ok(outcome.count as f64 / outcome.wall.as_secs_f64())
    }

    fn hellos(self, server: &Endpoint, over: &AtomicBool) -> io::Result<f64> {
        self.opened.recv().map_err(nobody)?;
        let mut load = HelloLoad::open(server)?;
        self.rage.send(()).map_err(nobody)?;
        load.run(over)
    }

    fn begin(&self) -> io::Result<()> {
        self.opened.recv().map_err(nobody)?;
        self.rage.send(()).map_err(nobody)
    }
}

/// Sockets that say hello, all with the same words.
struct HelloLoad {
    server: SockAddr,
    hello: Vec<u8>,
    sockets: Vec<Socket>,
    epoll: Epoll,
}

impl HelloLoad {
    fn open(server: &Endpoint) -> io::Result<Self> {
        let epoll = Epoll::new(STORM_CONNECTIONS)?;
        let mut sockets = Vec::with_capacity(STORM_CONNECTIONS);
        for index in 0..STORM_CONNECTIONS {
            let socket = socket::connect(server.address, None)?;
            epoll.add(socket.as_raw_fd(), index, Interest::Read)?;
            sockets.push(socket);
        }
        Ok(Self {
            server: server.address.into(),
            hello: Dialer::new()?.line()?.sending()?,
            sockets,
            epoll,
        })
    }

    /// Says hello until it is `over`; answers a second.
    fn run(&mut self, over: &AtomicBool) -> io::Result<f64> {
        let begin = Instant::now();
        let mut count = 0_u64;
        for socket in &self.sockets {
            self.say(socket)?;
        }
        while !over.load(Ordering::Relaxed) {
            for number in 0..self.epoll.wait()? {
                let socket = &self.sockets[self.epoll.edge(number).index];
                let mut first = [0];
                match socket::receive(socket, &mut first, Take::Bytes)? {
                    None => {}
                    Some(1..) if first == [HANDSHAKE_RECORD] => {
                        count += 1;
                        self.say(socket)?;
                    }
                    _ => return Err(io::Error::other("a hello was refused")),
                }
            }
        }
        Ok(count as f64 / begin.elapsed().as_secs_f64())
    }

    fn say(&self, socket: &Socket) -> io::Result<()> {
        disconnect(socket)?;
        socket.connect(&self.server)?;
        send_all(socket, &self.hello)
    }
}

fn nobody<E>(_: E) -> io::Error {
    io::Error::other("the open connections ended early")
}
