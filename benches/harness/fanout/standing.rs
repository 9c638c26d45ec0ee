//! Connections with many subscriptions each, spread evenly over the channels: what the crowd's
//! process does where frames are only counted.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use socket2::Socket;

use super::words::{self, CONNECT, Dialect};
use crate::socket::{self, Credentials, Endpoint, Epoll, Interest, PATIENCE, Take};

const ROOM_BYTES: usize = 64 * 1024;
const EVENTS_MAX: usize = 512;

/// How many subscribe to what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub connections: usize,
    /// Of each connection.
    pub subscriptions: usize,
    pub channels: usize,
}

impl Spread {
    pub fn all_subscriptions(self) -> usize {
        self.connections * self.subscriptions
    }

    /// Of each channel.
    pub fn subscribers(self) -> usize {
        self.all_subscriptions() / self.channels
    }

    /// The channels of one connection.
    fn channels_of(self, connection: usize) -> impl Iterator<Item = String> {
        let first = connection * self.subscriptions;
        let numbers = first..first + self.subscriptions;
        numbers.map(move |number| channel(number % self.channels))
    }
}

/// The name of a channel. All have the same length.
pub fn channel(number: usize) -> String {
    format!("channel-{number:06}")
}

/// Connections of the native protocol that only listen.
pub struct Standing {
    spread: Spread,
    listeners: Vec<Listener>,
    epoll: Epoll,
    room: Vec<u8>,
    frames: u64,
}

struct Listener {
    socket: Socket,
    tally: Tally,
}

/// Where in a frame the last bytes ended.
#[derive(Default)]
struct Tally {
    /// Of the payload, still to come.
    missing: usize,
    /// The beginning of a header.
    header: Vec<u8>,
}

impl Standing {
    /// Opens the connections; they subscribe to nothing yet.
    ///
    /// # Errors
    /// What the kernel refuses, and what the server does.
    pub fn open(server: SocketAddr, spread: Spread) -> io::Result<Self> {
        let endpoint = Endpoint::at(server, &Dialect::Native.path(), &Credentials::default());
        let open = |_| {
            let socket = socket::open(&endpoint, None)?;
            words::command_all(&socket, CONNECT, 1)?;
            Ok(Listener {
                socket,
                tally: Tally::default(),
            })
        };
        Ok(Self {
            spread,
            listeners: (0..spread.connections)
                .map(open)
                .collect::<io::Result<_>>()?,
            epoll: Epoll::new(EVENTS_MAX)?,
            room: vec![0; ROOM_BYTES],
            frames: 0,
        })
    }

    /// Has every connection subscribe to its channels in one frame, and waits for all answers.
    ///
    /// # Errors
    /// What the kernel refuses, and a refusal.
    pub fn subscribe(&mut self) -> io::Result<()> {
        for (index, listener) in self.listeners.iter().enumerate() {
            let command = |(place, channel): (usize, String)| {
                let id = place + 2;
                format!(r#"{{"id":{id},"subscribe":{{"channel":"{channel}"}}}}"#)
            };
            let commands = self.spread.channels_of(index).enumerate().map(command);
            let commands: Vec<_> = commands.collect();
            words::command_all(&listener.socket, &commands.join("\n"), commands.len())?;
        }
        Ok(())
    }

    /// Counts frames until there is a line to read, again and again, and answers each line with
    /// their number so far. Ends with the lines.
    ///
    /// # Errors
    /// What the kernel refuses, and a connection that ends.
    pub fn count(&mut self) -> io::Result<()> {
        let lines = self.listeners.len();
        for (index, listener) in self.listeners.iter().enumerate() {
            let socket = listener.socket.as_raw_fd();
            self.epoll.add(socket, index, Interest::Read)?;
        }
        let (asked, asking) = asked()?;
        self.epoll.add(asking.as_raw_fd(), lines, Interest::Read)?;
        loop {
            for number in 0..self.epoll.wait_for(PATIENCE)? {
                let index = self.epoll.edge(number).index;
                if index < lines {
                    self.frames += self.listeners[index].hear(&mut self.room)?;
                }
            }
            while let Ok(question) = asked.try_recv() {
                if !question {
                    return Ok(());
                }
                drain(&asking);
                println!("{}", self.frames);
                io::stdout().flush()?;
            }
        }
    }
}

/// Lines of the standard input as they come, `false` at its end, and a socket that wakes for each.
fn asked() -> io::Result<(std::sync::mpsc::Receiver<bool>, Socket)> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let (bell, ear) = Socket::pair(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    std::thread::spawn(move || {
        let mut lines = io::stdin().lines();
        loop {
            let question = matches!(lines.next(), Some(Ok(_)));
            // With an error the other thread is over, and with it the process.
            if sender.send(question).is_err() || (&bell).write_all(b"?").is_err() || !question {
                return;
            }
        }
    });
    Ok((receiver, ear))
}

fn drain(ear: &Socket) {
    let mut room = [0; 64];
    while let Ok(Some(1..)) = socket::receive(ear, &mut room, Take::Bytes) {}
}

impl Listener {
    /// Takes all there is, and tells how many frames it completes.
    fn hear(&mut self, room: &mut [u8]) -> io::Result<u64> {
        let mut frames = 0;
        while let Some(received) = socket::receive(&self.socket, room, Take::Bytes)? {
            if received == 0 {
                return Err(io::Error::other("the server closed a connection"));
            }
            frames += self.tally.count(&room[..received]);
            if received < room.len() {
                break;
            }
        }
        Ok(frames)
    }
}

impl Tally {
    /// The frames that end in `bytes`.
    fn count(&mut self, mut bytes: &[u8]) -> u64 {
        let mut frames = 0;
        loop {
            let skipped = self.missing.min(bytes.len());
            bytes = &bytes[skipped..];
            self.missing -= skipped;
            if self.missing > 0 {
                return frames;
            }
            if skipped > 0 {
                frames += 1;
            }
            if self.header.is_empty()
                && let Some([start, end]) = words::payload_of(bytes)
            {
                // All of it but what `missing` says is here: no copy.
                bytes = &bytes[start..];
                self.missing = end - start;
            } else {
                let Some((first, rest)) = bytes.split_first() else {
                    return frames;
                };
                self.header.push(*first);
                bytes = rest;
                if let Some([start, end]) = words::payload_of(&self.header) {
                    self.missing = end - start;
                    self.header.clear();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_channel_has_as_many_subscribers() {
        let spread = Spread {
            connections: 40,
            subscriptions: 25,
            channels: 100,
        };
        let mut subscribers = std::collections::BTreeMap::new();
        for connection in 0..spread.connections {
            let mut channels: Vec<_> = spread.channels_of(connection).collect();
            channels.dedup();
            assert_eq!(channels.len(), spread.subscriptions);
            for channel in channels {
                *subscribers.entry(channel).or_insert(0) += 1;
            }
        }
        assert_eq!(subscribers.len(), spread.channels);
        assert!(
            subscribers
                .values()
                .all(|count| *count == spread.subscribers())
        );
    }

    #[test]
    fn frames_are_counted_however_the_stream_is_cut() {
        let mut stream = Vec::new();
        for length in [1_u16, 125, 126, 200, 3, 1000] {
            match length {
                ..126 => stream.extend([0x81, length as u8]),
                _ => {
                    stream.extend([0x81, 126]);
                    stream.extend(length.to_be_bytes());
                }
            }
            stream.extend(std::iter::repeat_n(b'x', length.into()));
        }
        for cut in 1..=stream.len() {
            let mut tally = Tally::default();
            let frames: u64 = stream.chunks(cut).map(|piece| tally.count(piece)).sum();
            assert_eq!(frames, 6, "cut at {cut}");
        }
    }
}
