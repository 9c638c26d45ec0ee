//! A publisher and all who hear it: what the crowd's process does for deliveries.
//!
//! Every byte is compared with what must come: the frame is learnt from the first publication, and
//! after that only its stamp differs, and its number where it has one. So a publication that is lost, doubled, changed or out of
//! order ends the run. One `recv` takes all there is of a burst.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use socket2::Socket;

use super::delivery::{Delivered, Order, Waiting};
use super::script::Script;
use super::words::{self, Dialect, PUBLISHED, REFUSED};
use crate::exchange::histogram;
use crate::socket::{self, Credentials, Endpoint, Epoll, Interest, PATIENCE, Take};

/// After the last publication, for one that should not come.
const AFTERWARDS: Duration = Duration::from_millis(5);
const EVENTS_MAX: usize = 512;

/// A publisher and its subscribers.
pub struct Audience {
    dialect: Dialect,
    publisher: Publisher,
    members: Vec<Member>,
    epoll: Epoll,
    /// Of publications, never one twice.
    number: u32,
}

struct Publisher {
    socket: Socket,
    /// Publications that were not answered yet, where they are answered.
    unanswered: usize,
}

struct Member {
    socket: Socket,
    /// Of the burst in flight.
    received: usize,
}

impl Audience {
    /// Opens all connections and has the members subscribe.
    ///
    /// # Errors
    /// What the kernel refuses, and what the server does.
    pub fn open(server: SocketAddr, dialect: Dialect, members: usize) -> io::Result<Self> {
        let endpoint = Endpoint::at(server, &dialect.path(), &Credentials::default());
        let epoll = Epoll::new(EVENTS_MAX)?;
        let member = |index| {
            let socket = socket::open(&endpoint, None)?;
            dialect.subscribe(&socket)?;
            epoll.add(socket.as_raw_fd(), index, Interest::Read)?;
            Ok(Member {
                socket,
                received: 0,
            })
        };
        let members: Vec<_> = (0..members).map(member).collect::<io::Result<_>>()?;
        let socket = socket::open(&endpoint, None)?;
        dialect.introduce(&socket)?;
        epoll.add(socket.as_raw_fd(), members.len(), Interest::Read)?;
        Ok(Self {
            dialect,
            publisher: Publisher {
                socket,
                unanswered: 0,
            },
            members,
            epoll,
            number: 0,
        })
    }

    /// Publishes as it is ordered and sees that everybody hears all of it.
    ///
    /// # Errors
    /// What the kernel refuses, and anything wrong about what is heard.
    pub fn carry_out(&mut self, order: Order) -> io::Result<Delivered> {
        let mut script = self.learn(order)?;
        let mut delivered = Delivered {
            count: 0,
            wall: Duration::ZERO,
            push_bytes: script.push_bytes(),
            latency: histogram()?,
        };
        // Nothing is cold, and every socket is known to be empty.
        self.burst(&mut script, &mut histogram()?)?;
        let begin = Instant::now();
        let mut due = begin;
        while due.duration_since(begin) < order.duration {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            self.burst(&mut script, &mut delivered.latency)?;
            delivered.count += (script.in_flight * self.members.len()) as u64;
            due = Instant::now().max(due + order.interval);
        }
        delivered.wall = begin.elapsed();
        self.hear_nothing(&mut script)?;
        Ok(delivered)
    }

    /// One burst: from its first byte until all of it is everywhere.
    fn burst(
        &mut self,
        script: &mut Script,
        latency: &mut hdrhistogram::Histogram<u64>,
    ) -> io::Result<()> {
        script.prepare(&mut self.number);
        for member in &mut self.members {
            member.received = 0;
        }
        let begin = Instant::now();
        self.publisher.publish(script, self.dialect)?;
        let mut waiting = self.members.len();
        while waiting > 0 || self.publisher.unanswered > 0 {
            let ready = match script.waiting {
                Waiting::Asleep => self.epoll.wait()?,
                Waiting::Awake => self.epoll.spin()?,
            };
            for number in 0..ready {
                let index = self.epoll.edge(number).index;
                let Some(member) = self.members.get_mut(index) else {
                    self.publisher.hear(&mut script.room)?;
                    continue;
                };
                let frames = member.hear(script)?;
                if frames > 0 {
                    latency.saturating_record_n(begin.elapsed().as_nanos() as u64, frames);
                }
                waiting -= usize::from(frames > 0 && member.received == script.pushes.len());
            }
        }
        Ok(())
    }

    /// One publication, which shows how a push looks.
    fn learn(&mut self, order: Order) -> io::Result<Script> {
        let mut script = Script::new(self.dialect, order);
        script.prepare(&mut self.number);
        self.publisher.publish_one(&script, self.dialect)?;
        let mut push = Vec::new();
        let first = self.members.first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut room = vec![0; script.room.len()];
        while words::payload_of(&push).is_none_or(|[_, end]| end > push.len()) {
            socket::wait_readable(first.socket.as_raw_fd())?;
            match socket::receive(&first.socket, &mut room, Take::Bytes)? {
                Some(0) => return Err(lost()),
                Some(received) => push.extend_from_slice(&room[..received]),
                None => {}
            }
        }
        script.expect(&push)?;
        let mut waiting = self.members.len() - 1;
        for member in &mut self.members {
            member.received = 0;
        }
        while waiting > 0 || self.publisher.unanswered > 0 {
            for number in 0..self.epoll.wait()? {
                let index = self.epoll.edge(number).index;
                match self.members.get_mut(index) {
                    None => self.publisher.hear(&mut room)?,
                    Some(_) if index == 0 => {}
                    Some(member) => waiting -= member.hear(&mut script)? as usize,
                }
            }
        }
        Ok(script)
    }

    /// # Errors
    /// There is something to hear still.
    fn hear_nothing(&mut self, script: &mut Script) -> io::Result<()> {
        for number in 0..self.epoll.wait_for(AFTERWARDS)? {
            let index = self.epoll.edge(number).index;
            if let Some(member) = self.members.get_mut(index)
                && socket::receive(&member.socket, &mut script.room, Take::Bytes)?.is_some()
            {
                return Err(io::Error::other("there came more than was published"));
            }
        }
        Ok(())
    }
}

impl Publisher {
    fn publish(&mut self, script: &Script, dialect: Dialect) -> io::Result<()> {
        self.send(&script.request, script.in_flight, dialect)
    }

    fn publish_one(&mut self, script: &Script, dialect: Dialect) -> io::Result<()> {
        self.send(&script.request[..script.request_bytes], 1, dialect)
    }

    /// A burst fits an empty socket; a second call would be a second read for the server.
    fn send(&mut self, bytes: &[u8], count: usize, dialect: Dialect) -> io::Result<()> {
        if socket::send(&self.socket, bytes)? != bytes.len() {
            return Err(io::Error::other("the burst does not fit the socket"));
        }
        self.unanswered += match dialect {
            Dialect::Raw => 0,
            Dialect::Native => count,
        };
        Ok(())
    }

    fn hear(&mut self, room: &mut [u8]) -> io::Result<()> {
        while let Some(received) = socket::receive(&self.socket, room, Take::Bytes)? {
            let heard = &room[..received];
            if received == 0 || words::count(heard, REFUSED) > 0 {
                let heard = String::from_utf8_lossy(heard);
                return Err(io::Error::other(format!("the publisher heard {heard:?}")));
            }
            // An answer that is cut in two would never be counted: small ones never are.
            let answers = words::count(heard, PUBLISHED);
            self.unanswered = self.unanswered.saturating_sub(answers);
        }
        Ok(())
    }
}

impl Member {
    /// Takes all there is, and tells how many frames it completes.
    fn hear(&mut self, script: &mut Script) -> io::Result<u64> {
        let expected = &script.pushes[self.received..];
        // One byte more, so that one too many is seen.
        let room = &mut script.room[..=expected.len()];
        let Some(received) = socket::receive(&self.socket, room, Take::Bytes)? else {
            return Ok(0);
        };
        if received == 0 {
            return Err(lost());
        }
        if expected.get(..received) != Some(&room[..received]) {
            return Err(io::Error::other(format!(
                "a publication is not the one that must come: {:?}",
                String::from_utf8_lossy(&room[..received])
            )));
        }
        let complete = |received| script.ends.partition_point(|end| *end <= received);
        let before = complete(self.received);
        self.received += received;
        Ok((complete(self.received) - before) as u64)
    }
}

fn lost() -> io::Error {
    io::Error::other(format!(
        "publications were lost: the server closed a connection, or was silent for {PATIENCE:?}"
    ))
}
