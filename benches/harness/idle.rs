//! Idle connections: many of them, opened one after the other, and what is then done to them.

use std::io;
use std::net::Ipv4Addr;

use socket2::Socket;

use crate::socket::{self, Endpoint};

/// Of one source address; there are about 28,000 ports.
const CONNECTIONS_PER_ADDRESS: usize = 5_000;
/// Waves take turns with their addresses, so that no port of the last one is in the way.
const ADDRESSES_PER_WAVE: usize = 100;

/// Connections that were opened together.
pub struct Wave {
    sockets: Vec<Socket>,
}

impl Wave {
    /// Opens `connections`, from addresses that only waves with the same `number` use.
    ///
    /// # Errors
    /// What the kernel refuses, and any answer but an upgrade.
    pub fn open(server: &Endpoint, connections: usize, number: usize) -> io::Result<Self> {
        let context = |index| move |error| io::Error::other(format!("connection {index}: {error}"));
        let open = |index: usize| {
            let address = number % 2 * ADDRESSES_PER_WAVE + index / CONNECTIONS_PER_ADDRESS;
            let source = Ipv4Addr::new(127, 0, 1, 2 + address as u8);
            socket::open(server, Some(source)).map_err(context(index))
        };
        Ok(Self {
            sockets: (0..connections).map(open).collect::<io::Result<_>>()?,
        })
    }

    /// Has one 20-byte message echoed on each.
    ///
    /// # Errors
    /// What the kernel refuses, and any other answer.
    pub fn echo(&self) -> io::Result<()> {
        self.sockets.iter().try_for_each(socket::echo)
    }

    /// Closes each with the whole handshake, which shows that the server still had it.
    ///
    /// # Errors
    /// What the kernel refuses, and a connection that was gone.
    pub fn close(self) -> io::Result<()> {
        self.sockets.iter().try_for_each(socket::close)
    }
}
