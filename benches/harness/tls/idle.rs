//! Idle connections over TLS, opened one after the other.

use std::io;
use std::net::Ipv4Addr;

use super::client::{Connection, Dialer};
use crate::socket::Endpoint;

/// Of one source address; there are about 28,000 ports.
const CONNECTIONS_PER_ADDRESS: usize = 5_000;

/// Connections that were opened together.
pub struct Wave {
    connections: Vec<Connection>,
}

impl Wave {
    /// Opens `connections`, each with both handshakes.
    ///
    /// # Errors
    /// What the kernel or the server refuses, and any answer but an upgrade.
    pub fn open(server: &Endpoint, connections: usize) -> io::Result<Self> {
        let context = |index| move |error| io::Error::other(format!("connection {index}: {error}"));
        let dialer = Dialer::new()?;
        let open = |index: usize| {
            let source = Ipv4Addr::new(127, 0, 2, 2 + (index / CONNECTIONS_PER_ADDRESS) as u8);
            dialer.open(server, Some(source)).map_err(context(index))
        };
        Ok(Self {
            connections: (0..connections).map(open).collect::<io::Result<_>>()?,
        })
    }

    /// Has one 20-byte message echoed on each.
    ///
    /// # Errors
    /// What the kernel refuses, and any other answer.
    pub fn echo(&mut self) -> io::Result<()> {
        self.connections.iter_mut().try_for_each(Connection::echo)
    }

    /// Closes each with the whole handshake, which shows that the server still had it.
    ///
    /// # Errors
    /// What the kernel refuses, and a connection that was gone.
    pub fn close(self) -> io::Result<()> {
        self.connections.into_iter().try_for_each(Connection::close)
    }
}
