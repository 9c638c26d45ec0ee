//! From nothing to an open connection: connect, request, answer.

use std::{io, time::Duration};

use super::{Connection, Core, Deadline, Driver, End, Ends, Flights, Handshake, Stage};
use crate::{
    connection::Outbox,
    protocol::{
        Session,
        frame::Control,
        handshake::{ClientHandshake, HandshakeError},
    },
    slots::Key,
    transport::{connect, tls},
};

/// A handshake under way.
pub struct Opening {
    handshake: ClientHandshake,
    /// When it was planned to begin, and when it did; nanoseconds since the epoch.
    planned: u64,
    began: u64,
    requested: bool,
}

impl Driver {
    /// Begins connection number `number` of all, planned for the time `planned`.
    pub(super) fn open(&mut self, number: usize, planned: u64) {
        if let Err(end) = self.try_open(number, planned) {
            self.core.tally.failed.add(1);
            self.core.findings.errors.add(&end.during_handshake(), 1);
        }
    }

    fn try_open(&mut self, number: usize, planned: u64) -> Result<(), End> {
        self.look_at_clock();
        let core = &mut self.core;
        let source = match self.sources.len() {
            0 => None,
            count => Some(self.sources[number * count / core.plan.options.connections_all()]),
        };
        let mut transport = connect::connect(self.address, source).map_err(End::Connect)?;
        if let Some(session) = core.plan.session().map_err(End::Unsecured)? {
            transport.secure(session);
        }
        let mut key = [0; 16];
        key[..8].copy_from_slice(&core.next_random().to_ne_bytes());
        key[8..].copy_from_slice(&core.next_random().to_ne_bytes());
        // The plan was checked with this very handshake.
        let invalid = |_| End::Handshake(HandshakeError::Invalid("a header or subprotocol"));
        let opening = Opening {
            handshake: core.plan.handshake(key).map_err(invalid)?,
            planned,
            began: core.now,
            requested: false,
        };
        let connection = Connection {
            transport,
            stage: Stage::Opening(Box::new(opening)),
            outbox: Outbox::default(),
            flights: Flights::default(),
        };
        let Ok(key) = self.connections.insert(connection) else {
            return Err(End::Connect(io::ErrorKind::OutOfMemory.into()));
        };
        core.opening += 1;
        core.wait_for(Handshake::Opening, key);
        let registry = self.poll.registry();
        let core = &mut self.core;
        if let Some(connection) = self.connections.get_mut(key) {
            let begun = connection
                .transport
                .register(registry, key.to_token())
                .map_err(End::Connect)
                .and_then(|()| core.request(connection));
            if let Err(end) = begun {
                core.ended(connection, &end);
                self.connections.remove(key);
            }
        }
        Ok(())
    }
}

impl Core {
    /// Sends the request, once the socket is connected, and TLS agreed on if there is any.
    pub(super) fn request(&mut self, connection: &mut Connection) -> Result<(), End> {
        let Stage::Opening(opening) = &mut connection.stage else {
            return Ok(());
        };
        if opening.requested {
            return Ok(());
        }
        let transport = &mut connection.transport;
        let is_secured = transport.tls().is_none_or(|tls| tls.handshake().is_some());
        let mut request = Vec::new();
        if is_secured {
            opening.handshake.request(&mut request);
        }
        // Nothing to send is reason enough for the first flight of TLS to leave.
        let taken = match transport.send(&request, &mut self.seal) {
            Ok(taken) => taken,
            // Some systems say so of a socket that is not connected yet.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => 0,
            Err(error) => return Err(connection.unopened(error)),
        };
        if taken > 0 {
            opening.requested = true;
            self.tally.bytes_sent.add(request.len() as u64);
            connection.outbox.push(&request[taken..]);
        }
        Ok(())
    }

    /// Reads the answer; says how many of these bytes it was.
    pub(super) fn answer(
        &mut self,
        bytes: &[u8],
        key: Key,
        connection: &mut Connection,
    ) -> Result<usize, End> {
        let Stage::Opening(opening) = &mut connection.stage else {
            return Ok(0);
        };
        let accepted = opening.handshake.receive(bytes).map_err(End::Handshake)?;
        let Some((used, _)) = accepted else {
            return Ok(bytes.len());
        };
        if let Some(session) = connection.transport.tls() {
            self.findings.tls.add(session);
        }
        let (planned, began) = (opening.planned, opening.began);
        self.findings.handshakes.record(planned, began, self.now);
        self.opening -= 1;
        self.tally.opened.add(1);
        self.tally.open.add(1);
        connection.stage = Stage::Open(Session::new());
        if self.ends == Ends::AfterHandshake {
            self.close(key, connection)?;
        }
        Ok(used)
    }

    /// Begins the close handshake (RFC 6455, 7.1.2).
    pub(super) fn close(&mut self, key: Key, connection: &mut Connection) -> Result<(), End> {
        let Stage::Open(session) = &mut connection.stage else {
            return Ok(());
        };
        if session.close() {
            let frame = self.frames.control(Control::Close, &1000u16.to_be_bytes());
            self.say(&frame, connection)?;
            self.wait_for(Handshake::Closing, key);
        }
        Ok(())
    }

    /// A connection that ended during its handshake: what was it told?
    pub(super) fn eof(&self, connection: &Connection) -> End {
        match &connection.stage {
            Stage::Opening(_) if connection.is_securing() => End::unsecured_eof(),
            Stage::Opening(opening) => End::Handshake(opening.handshake.ended()),
            _ => End::Eof,
        }
    }

    /// A handshake that took too long: what is known of the answer by now?
    pub(super) fn overdue(&self, connection: &Connection) -> End {
        match self.eof(connection) {
            End::Handshake(HandshakeError::Ended) => End::TimedOut,
            End::Unsecured(_) => End::Unsecured(io::ErrorKind::TimedOut.into()),
            end => end,
        }
    }

    pub(super) fn timeout_ns(&self) -> u64 {
        let timeout = self.plan.options.timeout;
        let timeout = match self.is_cut {
            true => timeout.min(CUT_TIMEOUT),
            false => timeout,
        };
        u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Nothing is waited for any longer than an impatient user does.
    pub(super) fn cut(&mut self) {
        self.is_cut = true;
        let latest = self.now + self.timeout_ns();
        for deadline in &mut self.deadlines {
            deadline.at = deadline.at.min(latest);
        }
    }

    fn wait_for(&mut self, of: Handshake, key: Key) {
        let at = self.now.saturating_add(self.timeout_ns());
        self.deadlines.push_back(Deadline { at, key, of });
    }
}

impl Connection {
    /// Whether TLS is being agreed on: the server was told so much, and has not answered in full.
    fn is_securing(&self) -> bool {
        let is_open = |tls: &tls::Session| tls.handshake().is_some() || tls.pending_bytes() > 0;
        self.transport.tls().is_some_and(|tls| !is_open(tls))
    }

    /// What the system's error means before there is an answer.
    pub(super) fn unopened(&self, error: io::Error) -> End {
        match self.is_securing() {
            true => End::Unsecured(error),
            false => End::Connect(error),
        }
    }

    /// Whether anything waits for the socket.
    pub(super) fn has_backlog(&self) -> bool {
        !self.outbox.is_empty() || self.transport.pending_bytes() > 0
    }
}

/// What `--timeout` is at the most once the run was interrupted.
pub const CUT_TIMEOUT: Duration = Duration::from_secs(1);
