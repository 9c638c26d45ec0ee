//! One thread of load: a loop over the connections it alone owns, as a reactor is in the server,
//! and of the same parts (slots, transport, session, outbox, mailbox), in the client's role.
//!
//! A turn is `wait -> read -> obey -> expire -> work`. The conductor sends one [`Order`] at a time;
//! when what it asks for is done, the driver says so. What is to be sent next, and when, is in
//! `task.rs`; the way of a connection to its first frame in `open.rs`; messages and their answers
//! in `exchange.rs`; why it ended in `end.rs`.

mod end;
mod exchange;
mod open;
mod task;

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use end::End;
use exchange::Flights;
use mio::{Events, Poll, Token};
pub use open::CUT_TIMEOUT;
use open::Opening;
use task::Task;
pub use task::{Order, Probe};

use super::{
    frames::Frames,
    plan::{Pace, Plan},
    tally::{Findings, Tally},
};
use crate::{
    connection::Outbox,
    mailbox::Mailbox,
    protocol::{Role, Rules, Session},
    slots::{Key, Slots},
    sys,
    transport::{Transport, tls::SealBuffer},
};

/// The token of the mailbox.
pub const MAIL: Token = Token(u32::MAX as usize);

const TIMER: Token = Token(u32::MAX as usize - 1);

/// Readiness events taken from the kernel in one turn.
const EVENTS_MAX: usize = 1024;

/// The shared receive buffer.
const RECEIVE_BYTES: usize = 128 * 1024;

/// Reads from one connection in one turn.
const READS_MAX: usize = 16;

/// Messages may be as long as those that are sent, and greetings as long as this.
const MESSAGE_BYTES_LEAST: usize = 1 << 20;

/// What a driver is made of, prepared on the main thread.
pub struct Parts {
    pub thread: usize,
    pub plan: Arc<Plan>,
    pub address: SocketAddr,
    pub sources: Arc<[IpAddr]>,
    /// When the run began: times are counted from here.
    pub epoch: Instant,
    pub poll: Poll,
    pub mailbox: Mailbox<Order>,
    pub tally: Arc<Tally>,
    /// Told whenever an order was carried out.
    pub done: mpsc::Sender<Done>,
}

/// What a driver says.
#[derive(Debug)]
pub enum Done {
    /// An order was carried out.
    Task,
    /// The last word.
    End(Box<Findings>),
    /// The system refused what is needed; the driver is gone.
    Failed(io::Error),
}

/// One thread and its connections. See the module's text.
pub struct Driver {
    poll: Poll,
    events: Events,
    mailbox: Mailbox<Order>,
    timer: Option<sys::Timer>,
    done: mpsc::Sender<Done>,
    address: SocketAddr,
    sources: Arc<[IpAddr]>,
    epoch: Instant,
    connections: Slots<Connection>,
    task: Task,
    is_ended: bool,
    core: Core,
}

/// Everything of a driver but its connections and what it does next.
struct Core {
    thread: usize,
    plan: Arc<Plan>,
    tally: Arc<Tally>,
    findings: Findings,
    frames: Frames,
    rules: Rules,
    buffer: Vec<u8>,
    seal: SealBuffer,
    random: u64,
    /// Nanoseconds since the epoch, read whenever something was received or is to be sent.
    now: u64,
    /// Handshakes and closes to be given up, in the order of their deadlines.
    deadlines: VecDeque<Deadline>,
    /// Connections that are owed a read without an event.
    ready: Vec<(Key, Until)>,
    /// Handshakes under way.
    opening: usize,
    /// Messages or pings sent, and not answered.
    outstanding: usize,
    /// Of each subscriber, by its slot, the number of the publication that may come next.
    heard: Vec<u32>,
    /// What counts as an answer now.
    awaited: Awaited,
    /// What the end of a connection means now.
    ends: Ends,
    /// Whether the run was interrupted: nobody wants to wait for what may not come.
    is_cut: bool,
}

/// When something is given up.
#[derive(Clone, Copy, Debug)]
struct Deadline {
    /// Nanoseconds since the epoch.
    at: u64,
    key: Key,
    of: Handshake,
}

/// The two of them (RFC 6455, 4 and 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handshake {
    Opening,
    Closing,
}

/// What counts as an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    /// The echo of our message; `again` makes the next message follow it.
    Echo {
        again: bool,
    },
    /// One answer on each connection, for the sweep or the ping round.
    Probe(Probe),
    /// Publications, of which `by` gets no copy, or one that does not count.
    Publications {
        by: Option<Key>,
    },
    Nothing,
}

/// What the end of an open connection means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// It is lost.
    Untimely,
    /// Each is closed once it is open.
    AfterHandshake,
    /// We are closing all of them.
    Wanted,
}

/// A connection of ours.
struct Connection {
    transport: Transport,
    stage: Stage,
    outbox: Outbox,
    flights: Flights,
}

enum Stage {
    Opening(Box<Opening>),
    Open(Session),
    /// To be removed before anything else is done with it.
    Dead,
}

/// How far a socket is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// A short read says that it is empty: an event tells of more.
    Drained,
    End,
}

impl Driver {
    /// Puts a driver together, on the thread that will run it.
    pub fn new(parts: Parts) -> io::Result<Self> {
        let Parts {
            thread,
            plan,
            address,
            sources,
            epoch,
            poll,
            mailbox,
            tally,
            done,
        } = parts;
        let capacity = plan.connections_of(thread).len();
        let connections = Slots::with_capacity(capacity)
            .map_err(|error| io::Error::new(io::ErrorKind::OutOfMemory, error))?;
        let timer = match sys::Timer::new(poll.registry(), TIMER) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => None,
            result => Some(result?),
        };
        let mut random = seed(thread);
        let mask = (next_random(&mut random) as u32).to_ne_bytes();
        let depth = match plan.options.pace {
            Pace::Closed { depth } => depth,
            Pace::Open { .. } => 1,
        };
        let payload = &plan.options.payload;
        let core = Core {
            thread,
            frames: Frames::new(payload.message(), depth, mask),
            rules: Rules {
                role: Role::Client,
                message_bytes_max: payload.len().max(MESSAGE_BYTES_LEAST),
            },
            plan,
            tally,
            findings: Findings::default(),
            buffer: vec![0; RECEIVE_BYTES],
            seal: SealBuffer::default(),
            random,
            now: 0,
            deadlines: VecDeque::new(),
            ready: Vec::new(),
            opening: 0,
            outstanding: 0,
            heard: Vec::new(),
            awaited: Awaited::Nothing,
            ends: Ends::Untimely,
            is_cut: false,
        };
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            mailbox,
            timer,
            done,
            address,
            sources,
            epoch,
            connections,
            task: Task::Idle,
            is_ended: false,
            core,
        })
    }

    /// Runs until it is told to end.
    pub fn run(mut self) -> io::Result<Findings> {
        while !self.is_ended {
            self.wait()?;
            self.read();
            self.obey();
            self.expire();
            // Last, for everything before it may have been what an order waited for.
            self.work();
        }
        Ok(self.core.findings)
    }

    /// Sleeps until something comes, or it is time for the next message or to give one up.
    fn wait(&mut self) -> io::Result<()> {
        let timeout = self.timeout();
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            result => result?,
        }
        self.look_at_clock();
        Ok(())
    }

    fn timeout(&mut self) -> Option<Duration> {
        if !self.core.ready.is_empty() || !self.mailbox.is_empty() {
            return Some(Duration::ZERO);
        }
        let next = self.next_step();
        let deadline = self.core.deadlines.front().map(|deadline| deadline.at);
        let after = |at: u64| Duration::from_nanos(at.saturating_sub(self.core.now));
        let deadline = deadline.map(after);
        let next = next.map(after);
        match (next, &self.timer) {
            (None, _) => deadline,
            (Some(Duration::ZERO), _) => next,
            // The poll counts in milliseconds, and rounds up: too coarse for a plan.
            (Some(next), Some(timer)) if timer.set(next).is_ok() => deadline,
            (Some(next), _) => Some(deadline.map_or(next, |deadline| deadline.min(next))),
        }
    }

    /// Every connection that has something to say, then those that had more than their share.
    fn read(&mut self) {
        let owed = std::mem::take(&mut self.core.ready);
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            let Some(key) = Key::from_token(event.token()) else {
                continue;
            };
            self.look_at_clock();
            // A server that is done sending is read to its end: no further event will come.
            let until = match event.is_read_closed() || event.is_error() {
                true => Until::End,
                false => Until::Drained,
            };
            self.visit(key, |core, key, connection| {
                core.request(connection)?;
                // What the server says may tell why the socket takes no more.
                core.receive(until, key, connection)?;
                match event.is_writable() {
                    true => core.writable(connection),
                    false => Ok(()),
                }
            });
        }
        self.events = events;
        for (key, until) in owed {
            self.visit(key, |core, key, connection| {
                core.receive(until, key, connection)
            });
        }
    }

    /// Orders that came.
    fn obey(&mut self) {
        self.mailbox.open();
        while let Some(order) = self.mailbox.pop() {
            self.look_at_clock();
            self.begin(order);
        }
    }

    /// Handshakes and closes that took too long.
    fn expire(&mut self) {
        while let Some(Deadline { at, key, of }) = self.core.deadlines.front().copied()
            && at <= self.core.now
        {
            self.core.deadlines.pop_front();
            self.visit(key, |core, _, connection| match (&connection.stage, of) {
                (Stage::Opening(_), Handshake::Opening) => Err(core.overdue(connection)),
                (Stage::Open(_), Handshake::Closing) => Err(End::TimedOut),
                _ => Ok(()),
            });
        }
    }

    fn look_at_clock(&mut self) {
        self.core.now = u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
    }

    /// Does something with a connection, if it is still there, and removes it if that ended it.
    fn visit(
        &mut self,
        key: Key,
        action: impl FnOnce(&mut Core, Key, &mut Connection) -> Result<(), End>,
    ) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if let Err(mut end) = action(&mut self.core, key, connection) {
            // A socket that takes no more may still hold the server's reason.
            if matches!(end, End::Lost(_))
                && let Err(reason) = self.core.receive(Until::End, key, connection)
            {
                end = reason;
            }
            self.core.ended(connection, &end);
        }
        if matches!(connection.stage, Stage::Dead) {
            self.connections.remove(key);
        }
    }
}

impl Core {
    /// Reads until the socket is empty or the connection had its share.
    fn receive(&mut self, until: Until, key: Key, connection: &mut Connection) -> Result<(), End> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let outcome = self.receive_into(&mut buffer, until, key, connection);
        self.buffer = buffer;
        outcome
    }

    /// Counts the end of a connection, and what it takes with it.
    fn ended(&mut self, connection: &mut Connection, end: &End) {
        self.findings.tls.distrust = self.findings.tls.distrust.or(end.distrust());
        match std::mem::replace(&mut connection.stage, Stage::Dead) {
            Stage::Dead => {}
            Stage::Opening(_) => {
                self.opening -= 1;
                self.tally.failed.add(1);
                self.findings.errors.add(&end.during_handshake(), 1);
            }
            Stage::Open(_) => {
                self.tally.open.subtract(1);
                let in_order = match self.ends {
                    Ends::Untimely => false,
                    Ends::AfterHandshake => matches!(end, End::Eof),
                    Ends::Wanted => true,
                };
                if !in_order {
                    self.tally.lost.add(1);
                    self.findings.errors.add(&end.when_open(), 1);
                }
                self.give_up(&mut connection.flights);
            }
        }
    }

    fn next_random(&mut self) -> u64 {
        next_random(&mut self.random)
    }
}

/// Different for each thread and run; nothing here needs to be secret.
fn seed(thread: usize) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(thread) | 1
}

fn next_random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_is_only_held_fits_a_cache_line() {
        let bytes = size_of::<Connection>();
        assert!(bytes <= 64, "{bytes}");
    }
}
