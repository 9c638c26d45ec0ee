//! What a server says of itself at `/metrics`.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use socket2::Socket;

use crate::socket;

/// One look at the queues and the hub.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gauges {
    /// Publications on their way through reactors.
    pub mail_bytes: u64,
    /// Held for single connections.
    pub buffer_bytes: u64,
    pub channels: u64,
    pub subscriptions: u64,
}

/// A connection to look over.
pub struct Scraper {
    socket: Socket,
    request: Vec<u8>,
}

impl Scraper {
    /// # Errors
    /// What the kernel refuses.
    pub fn new(server: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            socket: socket::connect(server, None)?,
            request: format!("GET /metrics HTTP/1.1\r\nHost: {server}\r\n\r\n").into_bytes(),
        })
    }

    /// Looks once.
    ///
    /// # Errors
    /// What the kernel refuses, and an answer without them.
    pub fn look(&mut self) -> io::Result<Gauges> {
        self.socket.write_all(&self.request)?;
        let mut answer = Vec::new();
        let mut room = vec![0; 64 * 1024];
        let body = loop {
            match self.socket.read(&mut room)? {
                0 => {
                    return Err(io::Error::other(
                        "/metrics: the server closed the connection",
                    ));
                }
                received => answer.extend_from_slice(&room[..received]),
            }
            if let Some([start, end]) = body_of(&answer)
                && end <= answer.len()
            {
                break &answer[start..end];
            }
        };
        let text = String::from_utf8_lossy(body);
        let gauge = |name: &str| {
            let line = text.lines().find_map(|line| {
                let (metric, value) = line.rsplit_once(' ')?;
                (metric == format!("tidemill_{name}")).then_some(value)
            });
            let value = line.and_then(|value| value.parse::<f64>().ok());
            let value = value.map(|value| value as u64);
            value.ok_or_else(|| io::Error::other(format!("/metrics has no tidemill_{name}")))
        };
        Ok(Gauges {
            mail_bytes: gauge("mail_bytes")?,
            buffer_bytes: gauge("buffer_bytes")?,
            channels: gauge("channels")?,
            subscriptions: gauge("subscriptions")?,
        })
    }

    /// Looks every so often for as long as it is to go `on`.
    ///
    /// # Errors
    /// Those of [`Self::look`].
    pub fn watch(&mut self, every: Duration, on: impl Fn() -> bool) -> io::Result<Vec<Gauges>> {
        let mut seen = Vec::new();
        while on() {
            seen.push(self.look()?);
            std::thread::sleep(every);
        }
        Ok(seen)
    }
}

impl Gauges {
    /// All that waits somewhere.
    pub fn queued_bytes(&self) -> u64 {
        self.mail_bytes + self.buffer_bytes
    }
}

/// Where the body of the answer at the start of `bytes` begins and ends, once its head is there.
pub fn body_of(bytes: &[u8]) -> Option<[usize; 2]> {
    const LENGTH: &[u8] = b"content-length:";
    let start = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let mut lines = bytes[..start].split(|byte| *byte == b'\n');
    let length = lines.find_map(|line| {
        let (name, value) = line.split_at_checked(LENGTH.len())?;
        let value = name.eq_ignore_ascii_case(LENGTH).then_some(value)?;
        std::str::from_utf8(value)
            .ok()?
            .trim()
            .parse::<usize>()
            .ok()
    });
    Some([start, start + length.unwrap_or(0)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_found_once_the_head_is_there() {
        let answer = b"HTTP/1.1 200 OK\r\nConTent-length: 5\r\nx: y\r\n\r\nhello";
        assert_eq!(body_of(answer), Some([answer.len() - 5, answer.len()]));
        assert_eq!(body_of(&answer[..answer.len() - 6]), None);
    }
}
