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
    transport::{Transport, connect},
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
        let transport = connect::connect(self.address, source).map_err(End::Connect)?;
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
    /// Sends the request, once the socket is connected.
    pub(super) fn request(&mut self, connection: &mut Connection) -> Result<(), End> {
        let Stage::Opening(opening) = &mut connection.stage else {
            return Ok(());
        };
        if opening.requested {
            return Ok(());
        }
        let mut request = Vec::new();
        opening.handshake.request(&mut request);
        let taken = send(&mut connection.transport, &request).map_err(End::Connect)?;
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
            Stage::Opening(opening) => End::Handshake(opening.handshake.ended()),
            _ => End::Eof,
        }
    }

    /// A handshake that took too long: what is known of the answer by now?
    pub(super) fn overdue(&self, connection: &Connection) -> End {
        match self.eof(connection) {
            End::Handshake(HandshakeError::Ended) => End::TimedOut,
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

/// What `--timeout` is at the most once the run was interrupted.
pub const CUT_TIMEOUT: Duration = Duration::from_secs(1);

/// A socket that is not connected yet takes nothing; some systems call that an error.
fn send(transport: &mut Transport, bytes: &[u8]) -> io::Result<usize> {
    match transport.send(bytes) {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(0),
        result => result,
    }
}
