//! One side of a TLS connection over a socket that does not block.

use std::{
    fmt,
    io::{self, IoSlice, Read, Write},
    mem,
    os::fd::AsFd,
    sync::Arc,
};

use mio::net::TcpStream;
use rustls::{
    CommonState, HandshakeKind, ServerConfig,
    client::{ClientConnectionData, UnbufferedClientConnection},
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{ConnectionState, UnbufferedStatus},
};

use super::seal::{SealBuffer, encode};
use crate::{
    sys,
    transport::{Receipt, Received, Sink, nothing, retry, sent},
};

/// Received bytes that are kept because they are no whole record or no whole handshake message
/// (RFC 8446, 4 allows one of 16 MiB; the chains of client certificates are far smaller).
const HELD_BYTES_MAX: usize = 64 * 1024;

/// How much is received behind held bytes when it is not known how much is missing.
const HELD_GROWTH_BYTES: usize = 2 * 1024;

/// Records that wait are few if they are no more than this: those of a handshake, or an answer of
/// rustls to one.
const JOINED_BYTES_MAX: usize = 4 * 1024;

/// The header of a record (RFC 8446, 5.1): type, version, length.
const HEADER_BYTES: usize = 5;

/// One side of one connection. See the module's text.
#[derive(Debug)]
pub struct Session {
    side: Side,
    /// Received bytes that wait for the rest of their record.
    held: Vec<u8>,
    /// Records that the socket has not taken.
    pending: Vec<u8>,
    /// What is to be said of the peer once it was said what it sent.
    end: Option<Received>,
    /// Something came.
    begun: bool,
}

/// What a peer did that ends its connection.
#[derive(Debug)]
pub enum Violation {
    /// It speaks no TLS but plain HTTP.
    PlainHttp,
    /// More of a handshake than is kept.
    TooLarge,
    /// It was told by an alert.
    Protocol(Box<rustls::Error>),
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PlainHttp => formatter.write_str("plain HTTP on a TLS port"),
            Self::TooLarge => formatter.write_str("a handshake larger than 64 KiB"),
            Self::Protocol(error) => error.fmt(formatter),
        }
    }
}

enum Side {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

impl fmt::Debug for Side {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Server(_) => "Server",
            Self::Client(_) => "Client",
        })
    }
}

/// How a handshake came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    Full,
    /// By a ticket of an earlier connection.
    Resumed,
}

/// Both sides process records alike.
pub(super) trait Process {
    type Data;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    fn common(&self) -> &CommonState;
}

impl Process for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    #[inline]
    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }

    fn common(&self) -> &CommonState {
        self
    }
}

impl Process for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    #[inline]
    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }

    fn common(&self) -> &CommonState {
        self
    }
}

/// Calls a function that is generic over the side.
macro_rules! with_side {
    ($session:expr, $connection:ident => $call:expr) => {
        match &mut $session.side {
            Side::Server($connection) => $call,
            Side::Client($connection) => $call,
        }
    };
}

impl Session {
    /// The server's side of a new connection.
    pub fn server(config: &Arc<ServerConfig>) -> io::Result<Self> {
        let connection =
            UnbufferedServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
        Ok(Self::new(Side::Server(connection)))
    }

    /// The client's side; its first flight leaves with the first send.
    pub(super) fn client(connection: UnbufferedClientConnection) -> io::Result<Self> {
        let mut session = Self::new(Side::Client(connection));
        let begun = session.process(&mut [], &mut Sink::new(None, &mut []));
        begun.map_err(|violation| io::Error::other(violation.to_string()))?;
        Ok(session)
    }

    fn new(side: Side) -> Self {
        Self {
            side,
            held: Vec::new(),
            pending: Vec::new(),
            end: None,
            begun: false,
        }
    }

    /// How the handshake came out, once it has.
    pub fn handshake(&self) -> Option<Handshake> {
        let common = self.common();
        if common.is_handshaking() {
            return None;
        }
        match common.handshake_kind() {
            Some(HandshakeKind::Resumed) => Some(Handshake::Resumed),
            _ => Some(Handshake::Full),
        }
    }

    /// The certificate that the peer has shown and that was accepted, as DER.
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        self.common()
            .peer_certificates()?
            .first()
            .map(|leaf| &**leaf)
    }

    /// Whether anything came from the peer.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Records that the socket has not taken.
    pub fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// Bytes of memory beside what an idle session has.
    pub fn buffered_bytes(&self) -> usize {
        self.held.capacity() + self.pending.capacity()
    }

    /// Receives with one system call, and opens what came into the sink. `records` takes what
    /// comes; the sink's buffer must be as large.
    pub(in crate::transport) fn receive(
        &mut self,
        stream: &TcpStream,
        sink: &mut Sink<'_>,
        records: &mut [u8],
    ) -> io::Result<Received> {
        if let Some(end) = self.end.take() {
            return Ok(end);
        }
        let mut held = mem::take(&mut self.held);
        let before = held.len();
        let (behind, beside) = self.room(&held, records.len());
        held.reserve_exact(behind);
        let socket = stream.as_fd();
        let received = match behind {
            0 => retry(|| (&*stream).read(records)),
            _ => retry(|| sys::receive_behind(socket, &mut held, behind, &mut records[..beside])),
        };
        let wire = match received {
            Ok(0) => {
                self.held = held;
                return Ok(Received::End);
            }
            Ok(count) => count,
            Err(error) => {
                self.held = held;
                return nothing(error);
            }
        };
        let fresh = wire - (held.len() - before);
        let was_open = self.handshake().is_some();
        if let Err(error) = self.open(held, &mut records[..fresh], sink) {
            self.end = Some(Received::Violation(error));
        }
        self.begun = true;
        // What rustls has to say to it: the next flight, or an alert. The last flight waits for the
        // request, which is the client's to send, or for the answer to one that came already, and
        // leaves in one call with it.
        let is_last = !was_open && self.handshake().is_some();
        let is_followed = is_last && (self.is_client() || sink.count > 0);
        if (!is_followed || self.end.is_some())
            && let Err(error) = self.flush(stream)
            && self.end.is_none()
        {
            return Err(error);
        }
        let is_drained = wire < behind + beside && self.end.is_none();
        Ok(Received::Bytes(Receipt {
            count: sink.count,
            wire,
            is_drained,
        }))
    }

    /// How much may be received behind held bytes, and how much beside them. As much behind them
    /// as their record lacks, so that it is not copied again.
    fn room(&self, held: &[u8], records: usize) -> (usize, usize) {
        if held.is_empty() {
            return (0, records);
        }
        // What is held is bounded, and what is opened of it fits the sink.
        let growth = HELD_GROWTH_BYTES.max(held.len());
        let growth = growth.min(HELD_BYTES_MAX + 1 - held.len());
        let missing = match held {
            [_, _, _, high, low, ..] if self.handshake().is_some() => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                (HEADER_BYTES + length).checked_sub(held.len())
            }
            _ => None,
        };
        match missing {
            Some(missing @ 1..) if missing <= growth => {
                (missing, records.saturating_sub(held.len() + missing))
            }
            // An announcement is no reason to reserve so much; and of a handshake, nobody knows how
            // long it gets.
            _ => (growth, 0),
        }
    }

    /// Opens held bytes and those that came beside them; keeps what is not whole.
    fn open(
        &mut self,
        mut held: Vec<u8>,
        fresh: &mut [u8],
        sink: &mut Sink<'_>,
    ) -> Result<(), Violation> {
        if !self.begun && matches!(self.side, Side::Server(_)) && is_text(&held, fresh) {
            return Err(Violation::PlainHttp);
        }
        if !held.is_empty() {
            let used = self.process(&mut held, sink)?;
            held.drain(..used);
        }
        if held.is_empty() {
            let used = self.process(fresh, sink)?;
            self.held = fresh[used..].to_vec();
        } else {
            if !fresh.is_empty() {
                held.extend_from_slice(fresh);
                let used = self.process(&mut held, sink)?;
                held.drain(..used);
            }
            self.held = held;
        }
        if self.held.len() > HELD_BYTES_MAX {
            return Err(Violation::TooLarge);
        }
        Ok(())
    }

    /// Lets rustls look at received bytes; says how many of them are dealt with.
    fn process(&mut self, input: &mut [u8], sink: &mut Sink<'_>) -> Result<usize, Violation> {
        let pending = &mut self.pending;
        let outcome = with_side!(self, connection => process(connection, input, sink, pending));
        let outcome = outcome.map_err(|error| Violation::Protocol(Box::new(error)))?;
        if outcome.is_end {
            self.end = Some(Received::End);
        }
        Ok(outcome.used)
    }

    /// Seals and sends what the socket takes of several buffers, and at most 64 KiB ahead of it;
    /// says how much was sealed. 0 while there is no session yet to seal for.
    pub fn send(
        &mut self,
        stream: &TcpStream,
        buffers: &[IoSlice<'_>],
        seal: &mut SealBuffer,
    ) -> io::Result<usize> {
        if self.is_violated() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let offered: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        let is_closed = self.common().is_handshaking();
        // A few records more leave in one call with what is behind them.
        let is_alone = is_closed || offered == 0 || self.pending.len() > JOINED_BYTES_MAX;
        if is_alone && (!self.flush(stream)? || is_closed) {
            return Ok(0);
        }
        let mut taken = 0;
        while taken < offered {
            let held = &mut self.held;
            taken += with_side!(self, connection => seal.seal(connection, held, buffers, taken))?;
            self.send_records(stream, seal.records())?;
            // As long as the socket takes all: no event would tell that it takes more.
            if !self.pending.is_empty() {
                break;
            }
        }
        Ok(taken)
    }

    /// Says that nothing more comes. What the socket does not take of it is lost with it.
    pub fn close(&mut self, stream: &TcpStream, seal: &mut SealBuffer) {
        if self.is_violated() {
            return;
        }
        let held = &mut self.held;
        let sealed = with_side!(self, connection => seal.seal_close_notify(connection, held));
        if sealed.is_ok() && self.pending.is_empty() {
            // A peer that is gone needs no goodbye.
            let _ = self.send_records(stream, seal.records());
        }
    }

    /// Sends records that the socket did not take before; `false` when some are left.
    pub fn flush(&mut self, mut stream: &TcpStream) -> io::Result<bool> {
        if !self.pending.is_empty() {
            let taken = sent(retry(|| stream.write(&self.pending)))?;
            self.pending.drain(..taken);
            if self.pending.is_empty() {
                self.pending = Vec::new();
            }
        }
        Ok(self.pending.is_empty())
    }

    /// rustls cannot be asked for anything more.
    fn is_violated(&self) -> bool {
        matches!(self.end, Some(Received::Violation(_)))
    }

    /// Sends records, behind those that wait.
    fn send_records(&mut self, mut stream: &TcpStream, records: &[u8]) -> io::Result<()> {
        let waiting = self.pending.len();
        let taken = match waiting {
            0 => sent(retry(|| stream.write(records)))?,
            _ => {
                let both = [IoSlice::new(&self.pending), IoSlice::new(records)];
                sent(retry(|| stream.write_vectored(&both)))?
            }
        };
        self.pending.drain(..taken.min(waiting));
        self.pending
            .extend_from_slice(&records[taken.saturating_sub(waiting)..]);
        if self.pending.is_empty() {
            self.pending = Vec::new();
        }
        Ok(())
    }

    fn is_client(&self) -> bool {
        matches!(self.side, Side::Client(_))
    }

    pub(super) fn common(&self) -> &CommonState {
        match &self.side {
            Side::Server(connection) => connection,
            Side::Client(connection) => connection,
        }
    }
}

/// What one look at received bytes came to.
struct Processed {
    used: usize,
    /// The peer said that nothing more comes.
    is_end: bool,
}

fn process<P: Process>(
    connection: &mut P,
    input: &mut [u8],
    sink: &mut Sink<'_>,
    pending: &mut Vec<u8>,
) -> Result<Processed, rustls::Error> {
    let mut used = 0;
    loop {
        let UnbufferedStatus {
            mut discard, state, ..
        } = connection.process(&mut input[used..]);
        let mut is_over = false;
        let mut is_end = false;
        let state = match state {
            Ok(state) => state,
            Err(error) => {
                encode_alert(connection, pending);
                return Err(error);
            }
        };
        match state {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    sink.take(record.payload);
                }
            }
            ConnectionState::EncodeTlsData(data) => encode(data, pending)?,
            ConnectionState::TransmitTlsData(data) => data.done(),
            ConnectionState::PeerClosed | ConnectionState::Closed => is_end = true,
            // Early data is not accepted, so none is offered here.
            _ => is_over = true,
        }
        used += discard;
        if is_over || is_end {
            return Ok(Processed { used, is_end });
        }
    }
}

/// Appends the alert that tells the peer what it did wrong. As long as rustls has something to
/// send, it looks at nothing else; behind that, it cannot be asked again.
fn encode_alert<P: Process>(connection: &mut P, pending: &mut Vec<u8>) {
    while connection.common().wants_write()
        && let Ok(ConnectionState::EncodeTlsData(data)) = connection.process(&mut []).state
        && encode(data, pending).is_ok()
    {}
}

/// Whether a connection begins with a letter, as a request for plain HTTP does and no record.
fn is_text(held: &[u8], fresh: &[u8]) -> bool {
    let first = held.first().or(fresh.first());
    first.is_some_and(u8::is_ascii_uppercase)
}
