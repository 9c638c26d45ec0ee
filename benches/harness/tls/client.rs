//! Client connections: dialled, upgraded, and used one exchange at a time.

use std::io::{self, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, version};
use socket2::Socket;

use super::tickets::Tickets;
use super::trust::Blind;
use crate::socket::{self, Endpoint, Take};

/// The name that the client asks for, as clients do.
const SERVER_NAME: &str = "localhost";
/// More than a server sends in one step of the loads that rustls does.
const ROOM_BYTES: usize = 8 * 1024;

/// Makes connections with equal settings.
pub struct Dialer {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// One side of a connection, apart from its socket.
pub struct Line {
    tls: ClientConnection,
}

/// What [`Line::receive`] found.
#[derive(Debug, PartialEq)]
pub enum Received {
    Bytes,
    /// The socket is empty.
    Nothing,
    /// The socket has ended.
    End,
}

impl Dialer {
    /// A dialer of full handshakes.
    ///
    /// # Errors
    /// A cryptographic library that lacks what it always has.
    pub fn new() -> io::Result<Self> {
        Self::with(Resumption::disabled())
    }

    /// A dialer that offers a ticket where it has one, and keeps those that it gets.
    ///
    /// # Errors
    /// Those of [`Self::new`].
    pub fn resuming(tickets: &Arc<Tickets>) -> io::Result<Self> {
        Self::with(Resumption::store(Arc::clone(tickets) as _))
    }

    /// TLS 1.3, the suites in rustls' own order, and one group, so that every handshake is the same
    /// work and none takes a second hello.
    fn with(resumption: Resumption) -> io::Result<Self> {
        let provider = CryptoProvider {
            kx_groups: vec![aws_lc_rs::kx_group::X25519],
            ..aws_lc_rs::default_provider()
        };
        let mut config = ClientConfig::builder_with_provider(provider.into())
            .with_protocol_versions(&[&version::TLS13])
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Blind))
            .with_no_client_auth();
        config.resumption = resumption;
        // The echo load goes on without rustls.
        config.enable_secret_extraction = true;
        Ok(Self {
            config: Arc::new(config),
            name: ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?,
        })
    }

    /// A connection that has its ClientHello to send.
    ///
    /// # Errors
    /// No randomness.
    pub fn line(&self) -> io::Result<Line> {
        let config = Arc::clone(&self.config);
        let tls = ClientConnection::new(config, self.name.clone()).map_err(io::Error::other)?;
        Ok(Line { tls })
    }

    /// Connects, with the handshakes of TLS and WebSocket. The socket blocks, for as long as the
    /// client has patience.
    ///
    /// # Errors
    /// What the kernel or the server refuses, and any answer but a proper 101.
    pub fn open(&self, server: &Endpoint, source: Option<Ipv4Addr>) -> io::Result<Connection> {
        let socket = socket::connect(server.address, source)?;
        let line = self.line()?;
        let mut connection = Connection { socket, line };
        connection.line.write(&server.request)?;
        let mut head = Vec::new();
        while !socket::is_upgrade(&head)? {
            connection.step(&mut head)?;
        }
        Ok(connection)
    }
}

impl Line {
    /// What rustls knows about the connection.
    pub fn tls(&self) -> &ClientConnection {
        &self.tls
    }

    /// rustls' part alone, for who goes on without it.
    pub fn into_tls(self) -> ClientConnection {
        self.tls
    }

    /// Receives without waiting, and takes in what came.
    ///
    /// # Errors
    /// What the kernel refuses, an alert, and a record that is not one.
    pub fn receive(&mut self, socket: &Socket) -> io::Result<Received> {
        let mut room = [0; ROOM_BYTES];
        match socket::receive(socket, &mut room, Take::Bytes)? {
            None => Ok(Received::Nothing),
            Some(0) => Ok(Received::End),
            Some(count) => self.take_in(&room[..count]).map(|()| Received::Bytes),
        }
    }

    fn take_in(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.tls.read_tls(&mut bytes)?;
            let processed = self.tls.process_new_packets();
            processed.map_err(|error| io::Error::other(format!("TLS: {error}")))?;
        }
        Ok(())
    }

    /// Appends what was decrypted; whether close_notify stands behind it.
    ///
    /// # Errors
    /// What rustls refuses.
    pub fn read(&mut self, bytes: &mut Vec<u8>) -> io::Result<bool> {
        match self.tls.reader().read_to_end(bytes) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Encrypts for the next [`Self::flush`], or for after the handshake.
    ///
    /// # Errors
    /// More than rustls holds.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tls.writer().write_all(bytes)
    }

    /// Sends all that there is to send.
    ///
    /// # Errors
    /// What the kernel refuses, and a socket without room for that little.
    pub fn flush(&mut self, socket: &Socket) -> io::Result<()> {
        if !self.tls.wants_write() {
            return Ok(());
        }
        let bytes = self.sending()?;
        match socket::send(socket, &bytes)? {
            sent if sent == bytes.len() => Ok(()),
            _ => Err(io::Error::other("the socket did not take a short request")),
        }
    }

    /// Takes what there is to send.
    ///
    /// # Errors
    /// None: memory takes everything.
    pub fn sending(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(512);
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes)?;
        }
        Ok(bytes)
    }
}

/// An open connection.
pub struct Connection {
    pub socket: Socket,
    pub line: Line,
}

impl Connection {
    /// Sends one message and waits for it to come back.
    ///
    /// # Errors
    /// What the kernel refuses, and any other answer.
    pub fn echo(&mut self) -> io::Result<()> {
        self.exchange(&socket::echo_request(), &socket::ECHO_REPLY)
    }

    /// Says goodbye and waits for the answer, close_notify and the end.
    ///
    /// # Errors
    /// What the kernel refuses, and any other answer.
    pub fn close(mut self) -> io::Result<()> {
        self.exchange(&socket::CLOSE, &socket::CLOSE_REPLY)?;
        let mut behind = Vec::new();
        while !self.line.read(&mut behind)? {
            self.wait()?;
        }
        if !behind.is_empty() {
            return Err(more_than_close());
        }
        match self.socket.recv(&mut [std::mem::MaybeUninit::uninit()])? {
            0 => Ok(()),
            _ => Err(io::Error::other("there is more behind close_notify")),
        }
    }

    fn exchange(&mut self, request: &[u8], expected: &[u8]) -> io::Result<()> {
        self.line.write(request)?;
        let mut reply = Vec::new();
        while reply.len() < expected.len() {
            self.step(&mut reply)?;
        }
        match reply == expected {
            true => Ok(()),
            false => Err(io::Error::other(format!(
                "a message came back changed: {reply:?}"
            ))),
        }
    }

    /// Sends what there is, and appends what was decrypted, or waits for more.
    fn step(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        self.line.flush(&self.socket)?;
        let before = bytes.len();
        if self.line.read(bytes)? {
            // A Close frame may have its close_notify right behind it.
            return match bytes.len() > before {
                true => Ok(()),
                false => Err(io::Error::other("the server closed the connection")),
            };
        }
        match bytes.len() > before {
            true => Ok(()),
            false => self.wait(),
        }
    }

    fn wait(&mut self) -> io::Result<()> {
        socket::wait_readable(self.socket.as_raw_fd())?;
        match self.line.receive(&self.socket)? {
            Received::End => Err(truncated()),
            Received::Bytes | Received::Nothing => Ok(()),
        }
    }
}

pub(super) fn truncated() -> io::Error {
    io::Error::other("the server ended the connection without close_notify")
}

pub(super) fn more_than_close() -> io::Error {
    io::Error::other("the server sent more after its Close frame")
}
