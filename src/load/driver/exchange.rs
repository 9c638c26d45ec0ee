//! Messages and their answers on open connections.

use std::{collections::VecDeque, io};

use super::{Awaited, Connection, Core, End, Ends, Probe, READS_MAX, Stage, Until};
use crate::{
    load::frames::{PING, Stamp},
    protocol::{Event, Input, Message, State, frame::Control},
    slots::Key,
    transport::Received,
};

/// Messages of one connection that were sent, or are to be, and not answered, in their order. The
/// box exists while there are any: a connection that is only held costs eight bytes.
#[derive(Default)]
pub struct Flights(Option<Box<Waiting>>);

#[derive(Default)]
struct Waiting {
    flights: VecDeque<Flight>,
    /// How many of them, at the end, were not sent yet.
    unsent: usize,
}

#[derive(Clone, Copy)]
struct Flight {
    planned: u64,
    sent: u64,
}

impl Flights {
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn unsent(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.unsent)
    }

    fn push(&mut self, planned: u64) {
        let waiting = self.0.get_or_insert_default();
        waiting.flights.push_back(Flight { planned, sent: 0 });
        waiting.unsent += 1;
    }

    /// The first `count` of those that were not sent are now.
    fn send(&mut self, count: usize, now: u64) {
        if let Some(waiting) = &mut self.0 {
            let first = waiting.flights.len() - waiting.unsent;
            for flight in waiting.flights.range_mut(first..first + count) {
                flight.sent = now;
            }
            waiting.unsent -= count;
        }
    }

    /// The one that an answer belongs to.
    fn pop(&mut self) -> Option<Flight> {
        let waiting = self.0.as_mut()?;
        if waiting.flights.len() == waiting.unsent {
            return None;
        }
        waiting.flights.pop_front()
    }

    /// Gives the memory of an idle connection back.
    fn shrink(&mut self) {
        if self
            .0
            .as_ref()
            .is_some_and(|waiting| waiting.flights.is_empty())
        {
            self.0 = None;
        }
    }
}

impl Core {
    pub(super) fn receive_into(
        &mut self,
        buffer: &mut [u8],
        until: Until,
        key: Key,
        connection: &mut Connection,
    ) -> Result<(), End> {
        for _ in 0..READS_MAX {
            match connection.transport.receive(buffer) {
                Ok(Received::Bytes(receipt)) => {
                    self.request(connection)?;
                    self.tally.bytes_received.add(receipt.count as u64);
                    self.digest(&mut buffer[..receipt.count], key, connection)?;
                    if receipt.is_drained && until == Until::Drained {
                        return Ok(());
                    }
                }
                Ok(Received::Nothing) => return Ok(()),
                // Some systems say so of a socket that is not connected yet.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(()),
                Ok(Received::Violation(violation)) => return Err(End::Insecure(violation)),
                Ok(Received::End) => return Err(self.eof(connection)),
                // Before the connection is complete, the socket's error is the connect's.
                Err(error) if matches!(connection.stage, Stage::Opening(_)) => {
                    return Err(connection.unopened(error));
                }
                Err(error) => return Err(End::Lost(error)),
            }
        }
        self.ready.push((key, until));
        Ok(())
    }

    fn digest(
        &mut self,
        bytes: &mut [u8],
        key: Key,
        connection: &mut Connection,
    ) -> Result<(), End> {
        let used = self.answer(bytes, key, connection)?;
        let answers = self.events(&mut bytes[used..], key, connection)?;
        if answers > 0 && self.awaited == (Awaited::Echo { again: true }) {
            for _ in 0..answers {
                connection.flights.push(self.now);
            }
            self.send_messages(connection)?;
        }
        Ok(())
    }

    /// What the server said; counts the answers among it.
    fn events(
        &mut self,
        bytes: &mut [u8],
        key: Key,
        connection: &mut Connection,
    ) -> Result<usize, End> {
        let mut input = Input::new(bytes);
        let mut answers = 0;
        loop {
            let Stage::Open(session) = &mut connection.stage else {
                return Ok(answers);
            };
            match session.next(&mut input, &self.rules) {
                Ok(None) => return Ok(answers),
                Err(error) => return Err(End::Violation(error)),
                Ok(Some(Event::Message(message))) => {
                    answers += usize::from(self.message(message, key, connection));
                }
                Ok(Some(Event::Ping(payload))) => {
                    let pong = self.frames.control(Control::Pong, payload);
                    self.say(&pong, connection)?;
                }
                Ok(Some(Event::Pong(payload))) => {
                    if self.awaited == Awaited::Probe(Probe::Ping) && payload == PING {
                        self.answered(connection);
                    }
                }
                Ok(Some(Event::Close(close))) => {
                    let (code, reason) = (close.code.into(), close.reason.to_owned());
                    if session.close() {
                        let body = match close.code.is_allowed() {
                            true => u16::to_be_bytes(code).to_vec(),
                            false => Vec::new(),
                        };
                        let frame = self.frames.control(Control::Close, &body);
                        // The server may be gone by now: what counts is what it said.
                        let _ = self.say(&frame, connection);
                    } else if self.ends == Ends::AfterHandshake && code == 1000 {
                        // RFC 6455, 7.1.1: the server closes the TCP connection first.
                        return Ok(answers);
                    }
                    return Err(End::Closed(code, reason));
                }
            }
        }
    }

    /// Whether this message is the echo that was waited for.
    fn message(&mut self, message: Message<'_>, key: Key, connection: &mut Connection) -> bool {
        if let Awaited::Publications { by } = self.awaited
            && by != Some(key)
            && let Some(stamp) = Stamp::of(message.as_bytes())
        {
            self.copy(stamp, key);
            return false;
        }
        let is_awaited = matches!(
            self.awaited,
            Awaited::Echo { .. } | Awaited::Probe(Probe::Message)
        );
        if is_awaited && message == self.plan.options.payload.message() && self.answered(connection)
        {
            return true;
        }
        self.tally.messages_other.add(1);
        false
    }

    /// A subscriber's copy of a publication. One that comes twice, or after a later one, is not
    /// what was waited for; what is missing is counted at the end.
    fn copy(&mut self, stamp: Stamp, key: Key) {
        let slot = key.slot as usize;
        if self.heard.len() <= slot {
            self.heard.resize(slot + 1, 0);
        }
        if stamp.number < self.heard[slot] {
            let kind = "publications that came twice, or after a later one";
            self.findings.errors.add(kind, 1);
            self.tally.messages_other.add(1);
            return;
        }
        self.heard[slot] = stamp.number.saturating_add(1);
        let Stamp { planned, sent, .. } = stamp;
        self.findings.messages.record(planned, sent, self.now);
        self.tally.messages_received.add(1);
        self.tally.answered_last.set(self.now);
    }

    /// Matches an answer with the oldest message that waits for one.
    fn answered(&mut self, connection: &mut Connection) -> bool {
        let Some(flight) = connection.flights.pop() else {
            return false;
        };
        self.outstanding -= 1;
        match self.awaited {
            Awaited::Probe(probe) => {
                let took = self.now.saturating_sub(flight.sent);
                self.findings.probes[probe as usize].record(took);
                self.tally.probes_answered.add(1);
                connection.flights.shrink();
            }
            _ => {
                self.findings
                    .messages
                    .record(flight.planned, flight.sent, self.now);
                self.tally.messages_received.add(1);
                self.tally.answered_last.set(self.now);
            }
        }
        true
    }

    /// Plans one message on a connection, and sends it if the socket takes it.
    pub(super) fn plan_message(
        &mut self,
        planned: u64,
        connection: &mut Connection,
    ) -> Result<(), End> {
        connection.flights.push(planned);
        self.send_messages(connection)
    }

    /// Sends what was planned and not sent. A socket that is full keeps the rest waiting where it
    /// costs 16 bytes a message; their time runs all the same.
    pub(super) fn send_messages(&mut self, connection: &mut Connection) -> Result<(), End> {
        loop {
            let unsent = connection.flights.unsent();
            if unsent == 0 || connection.has_backlog() {
                return Ok(());
            }
            let (bytes, count) = self.frames.messages(unsent);
            connection.flights.send(count, self.now);
            self.tally.messages_sent.add(count as u64);
            self.tally.bytes_sent.add(bytes.len() as u64);
            self.outstanding += count;
            let taken = connection
                .transport
                .send(bytes, &mut self.seal)
                .map_err(End::Lost)?;
            connection.outbox.push(&bytes[taken..]);
        }
    }

    /// Publishes message number `number`.
    pub(super) fn publish(
        &mut self,
        number: u64,
        planned: u64,
        connection: &mut Connection,
    ) -> Result<(), End> {
        let frame = self.frames.publication(Stamp {
            number: u32::try_from(number).unwrap_or(u32::MAX),
            planned,
            sent: self.now,
        });
        self.tally.messages_sent.add(1);
        self.say(&frame, connection)
    }

    /// Sends one message or ping to which each connection owes an answer.
    pub(super) fn probe(&mut self, probe: Probe, connection: &mut Connection) -> Result<(), End> {
        let bytes = match probe {
            Probe::Message => self.frames.messages(1).0,
            Probe::Ping => self.frames.ping(),
        };
        connection.flights.push(self.now);
        connection.flights.send(1, self.now);
        self.outstanding += 1;
        self.tally.probes_sent.add(1);
        self.tally.bytes_sent.add(bytes.len() as u64);
        let taken = if connection.outbox.is_empty() {
            connection
                .transport
                .send(bytes, &mut self.seal)
                .map_err(End::Lost)?
        } else {
            0
        };
        connection.outbox.push(&bytes[taken..]);
        Ok(())
    }

    /// Sends a frame behind what waits already.
    pub(super) fn say(&mut self, frame: &[u8], connection: &mut Connection) -> Result<(), End> {
        self.tally.bytes_sent.add(frame.len() as u64);
        let taken = if connection.outbox.is_empty() {
            connection
                .transport
                .send(frame, &mut self.seal)
                .map_err(End::Lost)?
        } else {
            0
        };
        connection.outbox.push(&frame[taken..]);
        Ok(())
    }

    /// The socket may take bytes again.
    pub(super) fn writable(&mut self, connection: &mut Connection) -> Result<(), End> {
        if connection.has_backlog() {
            let Connection {
                outbox, transport, ..
            } = connection;
            transport.flush().map_err(End::Lost)?;
            outbox
                .write(|slices| transport.send_vectored(slices, &mut self.seal))
                .map_err(End::Lost)?;
        }
        self.send_messages(connection)
    }

    /// Counts what was sent on a connection and will not be answered.
    pub(super) fn give_up(&mut self, flights: &mut Flights) {
        let Some(waiting) = flights.0.take() else {
            return;
        };
        let sent = waiting.flights.len() - waiting.unsent;
        self.outstanding -= sent;
        if !matches!(self.awaited, Awaited::Probe(_)) {
            self.tally.messages_lost.add(sent as u64);
        }
        if waiting.unsent > 0 {
            let kind = "messages planned that the server was too slow to take";
            self.findings.errors.add(kind, waiting.unsent as u64);
        }
    }

    /// Whether a message may be sent on a connection.
    pub(super) fn is_usable(connection: &Connection) -> bool {
        matches!(&connection.stage, Stage::Open(session) if session.state() == State::Open)
    }
}
