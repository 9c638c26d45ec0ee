//! From bytes to the handler: one receive an event into the shared buffer, then whatever stage
//! the connection is in makes of them what it can.

use std::io;

use super::Core;
use crate::{
    config::RatePolicy,
    connection::{Connection, Cork, Flags, Link, Stage},
    handler::{Control, Failure, Handler},
    metrics::Operation,
    protocol::{
        ProtocolError,
        frame::Control as ControlCode,
        session::{Event, Input, State},
    },
    slots::Key,
    transport::{Receipt, Received, tls},
};

/// Replies are sent before the batch is over once this many bytes are gathered.
pub(super) const CORK_BYTES_MAX: usize = 64 * 1024;

/// Why a look at received bytes ended before they did.
enum Stop {
    /// The other side broke the protocol.
    Violation(ProtocolError),
    /// The handler gave up.
    Failed(Failure),
    /// The socket is lost.
    Lost(io::Error),
    /// The other side broke TLS.
    Insecure(tls::Violation),
}

/// What one receive brought.
struct Fill {
    /// Bytes in the shared buffer.
    buffered: usize,
    receipt: Receipt,
}

impl<H: Handler> Core<H> {
    /// Reads from a connection until its socket is empty or it had its share.
    pub(super) fn receive(&mut self, key: Key, connection: &mut Connection<H::State>) {
        connection.link.flags.clear(Flags::OWED);
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.is_empty() {
            // A handler panicked while the buffer was taken.
            buffer = vec![0; super::RECEIVE_BYTES];
        }
        if matches!(connection.link.stage, Stage::Preamble)
            && !self.preamble(&mut buffer, key, connection)
        {
            self.buffer = buffer;
            return;
        }
        // An event alone is no reason to go on: the connection may be paused still.
        if connection.link.is_readable()
            && let Some(mut unread) = connection.link.unread.take()
        {
            self.digest(&mut unread, key, connection);
        }
        self.receive_into(&mut buffer, key, connection);
        self.buffer = buffer;
    }

    fn receive_into(&mut self, buffer: &mut [u8], key: Key, connection: &mut Connection<H::State>) {
        let mut budget = self.settings.read_budget_bytes;
        while connection.link.is_readable() && budget > 0 {
            let fill = match fill(&mut connection.link, buffer) {
                Ok(Some(fill)) => fill,
                Ok(None) => return self.ended(key, connection),
                Err(Stop::Lost(error)) => {
                    return self.lost(key, connection, Operation::Receive, &error);
                }
                Err(stop) => return self.stopped(stop, key, connection),
            };
            let Receipt {
                count,
                wire,
                is_drained,
            } = fill.receipt;
            let was_handshaking = connection.link.flags.has(Flags::HANDSHAKING);
            if was_handshaking {
                self.note_handshake(&mut connection.link);
            }
            if count > 0 {
                if connection.link.last_seen != self.now {
                    self.leak(key, &mut connection.link);
                }
                self.block.bytes_received.add(count as u64);
                if count > fill.buffered {
                    // What went straight behind a large message is charged here, the rest below.
                    self.charge(key, 0, count - fill.buffered, &mut connection.link);
                }
                self.digest(&mut buffer[..fill.buffered], key, connection);
                connection.link.flags.clear(Flags::PINGED);
            }
            // The end of a handshake that nothing was said behind.
            if was_handshaking && let Err(error) = connection.link.transport.flush() {
                return self.lost(key, connection, Operation::Send, &error);
            }
            // A peer that is done sending is read to its end: no further event will come.
            if is_drained && (wire == 0 || !connection.link.flags.has(Flags::READ_CLOSED)) {
                return;
            }
            budget = budget.saturating_sub(wire);
        }
        connection.link.flags.set(Flags::OWED);
    }

    /// Shows received bytes to the stage of the connection, and to the next one after an upgrade.
    fn digest(&mut self, bytes: &mut [u8], key: Key, connection: &mut Connection<H::State>) {
        let mut at = 0;
        loop {
            let rest = &mut bytes[at..];
            match &mut connection.link.stage {
                Stage::Http(_) if rest.is_empty() => return,
                Stage::Http(_) => at += self.request(rest, key, connection),
                Stage::Open(_) => return self.frames(rest, key, connection),
                Stage::Lingering { discarded_bytes } => {
                    *discarded_bytes = discarded_bytes.saturating_add(rest.len() as u32);
                    return;
                }
                Stage::Preamble | Stage::Asking { .. } | Stage::Dead => return,
            }
            if !connection.link.is_readable() {
                return connection.link.keep_unread(&bytes[at..]);
            }
        }
    }

    /// Runs received bytes through the session, and what it finds through the handler.
    #[inline]
    fn frames(&mut self, bytes: &mut [u8], key: Key, connection: &mut Connection<H::State>) {
        let length = bytes.len();
        let mut input = Input::new(bytes);
        let mut cork_max = self.cork_max(&connection.link);
        let allowance = self.allowance(key, length);
        let mut used = 0;
        let mut is_stopped = false;
        loop {
            // A message that was received in its place leaves nothing here, and is not held back.
            if used >= allowance && input.rest_bytes() > 0 {
                if self.settings.rate_policy == RatePolicy::Pause {
                    break;
                }
                if self.uncork(key, connection, &mut input) {
                    self.exceeded(key, connection);
                }
                return;
            }
            match self.frame(&mut input, key, connection) {
                Ok(true) => used += 1,
                Ok(false) => break,
                Err(stop) => {
                    // What was said before still counts, and may point into this input.
                    if self.uncork(key, connection, &mut input) {
                        self.stopped(stop, key, connection);
                    }
                    return;
                }
            }
            if self.cork.len() >= cork_max {
                if !self.uncork(key, connection, &mut input) {
                    return;
                }
                cork_max = self.cork_max(&connection.link);
            }
            if !connection.link.is_readable() {
                is_stopped = true;
                break;
            }
        }
        let link = &mut connection.link;
        if self.settings.rates.is_some() {
            self.charge(key, used, length - input.rest_bytes(), link);
            is_stopped |= link.flags.has(Flags::RATED);
        }
        if is_stopped {
            if !link.flags.has(Flags::FINISHING) {
                link.keep_unread(input.rest());
            } else if !input.rest().is_empty() {
                // The peer goes on after its Close: let it finish, and see ours.
                link.flags.set(Flags::LINGER);
            }
        }
        self.uncork(key, connection, &mut input);
        self.watch_message(&mut connection.link);
    }

    /// What may be gathered before it is sent: not more than leads to the soft mark, for the hard
    /// one has room for one maximal reply above it.
    fn cork_max(&self, link: &Link) -> usize {
        let soft = self.settings.outbox_bytes_soft;
        soft.saturating_sub(link.outbox.len())
            .clamp(1, CORK_BYTES_MAX)
    }

    /// Handles the next event; `false` when there is none.
    #[inline]
    fn frame(
        &mut self,
        input: &mut Input<'_>,
        key: Key,
        connection: &mut Connection<H::State>,
    ) -> Result<bool, Stop> {
        let Connection { link, state } = connection;
        let Stage::Open(session) = &mut link.stage else {
            return Ok(false);
        };
        let was_open = session.state() == State::Open;
        let event = session
            .next(input, &self.settings.rules)
            .map_err(Stop::Violation)?;
        let (Some(event), Some(application)) = (event, state.as_mut()) else {
            return Ok(false);
        };
        let control = match event {
            Event::Message(message) => {
                self.block.messages_received.add(1);
                self.cork.lend(&message);
                let (handler, mut peer) = self.introduce(key, link);
                handler
                    .message(&mut peer, application, message)
                    .map_err(Stop::Failed)?;
                return Ok(true);
            }
            Event::Ping(payload) => {
                if was_open {
                    answer_ping(payload, link, &mut self.cork);
                }
                Control::Ping(payload)
            }
            Event::Close(close) => {
                // RFC 6455, 5.5.1: a Close is answered by a Close, typically with its code.
                if session.close() {
                    self.cork.close(close.code, "");
                }
                link.since = self.now;
                link.flags.set(Flags::FINISHING | Flags::REARM);
                // Its pong may be under way, or its close_notify, and must not be met by a reset.
                if link.flags.has(Flags::PINGED) || link.transport.tls().is_some() {
                    link.flags.set(Flags::LINGER);
                }
                Control::Close(close.code, close.reason)
            }
            Event::Pong(payload) => Control::Pong(payload),
        };
        let (handler, mut peer) = self.introduce(key, link);
        handler.control(&mut peer, application, control);
        if let Control::Close(code, reason) = control {
            self.farewell(key, connection, code, reason);
        }
        Ok(true)
    }

    /// Ends a connection whose bytes or whose handler failed, telling the peer why.
    fn stopped(&mut self, stop: Stop, key: Key, connection: &mut Connection<H::State>) {
        match stop {
            Stop::Violation(error) => self.violated(error, key, connection),
            Stop::Failed(failure) => self.failed(failure.text(), key, connection),
            Stop::Lost(error) => self.lost(key, connection, Operation::Receive, &error),
            Stop::Insecure(violation) => self.insecure(&violation, key, connection),
        }
    }

    /// A message that came only in part must be complete in time.
    fn watch_message(&mut self, link: &mut Link) {
        if let Stage::Open(session) = &mut link.stage
            && session.is_mid_message()
            && session.message_since(self.now) == Some(self.now)
        {
            link.flags.set(Flags::REARM);
        }
    }
}

/// A pong behind a backlog waits there, and takes the payload of later pings meanwhile.
fn answer_ping(payload: &[u8], link: &mut Link, cork: &mut Cork) {
    if link.outbox.is_empty() {
        cork.control(ControlCode::Pong, payload);
    } else {
        link.outbox.push_pong(payload);
    }
}

/// One receive: into the shared buffer, or for the rest of a large frame straight behind what
/// came of it. `None` is the end of the stream.
fn fill(link: &mut Link, buffer: &mut [u8]) -> Result<Option<Fill>, Stop> {
    let Link {
        transport, stage, ..
    } = link;
    let (received, direct) = match stage {
        Stage::Open(session) => match session.direct() {
            Some((message, missing)) => {
                let before = message.len();
                let received = transport.receive_behind(message, missing, buffer);
                let direct = message.len() - before;
                session.received(direct).map_err(Stop::Violation)?;
                (received, direct)
            }
            None => (transport.receive(buffer), 0),
        },
        _ => (transport.receive(buffer), 0),
    };
    let receipt = match received.map_err(Stop::Lost)? {
        Received::Bytes(receipt) => receipt,
        Received::Nothing => Receipt::NOTHING,
        Received::End => return Ok(None),
        Received::Violation(violation) => return Err(Stop::Insecure(violation)),
    };
    Ok(Some(Fill {
        buffered: receipt.count - direct,
        receipt,
    }))
}
