//! How a connection pauses, resumes and ends. Whatever happened in a call, [`Core::settle`] draws
//! the consequences; slots are freed in `reap` alone.

use std::io;

use super::{Core, Reactor};
use crate::{
    connection::{Connection, Flags, Link, Stage},
    handler::{CloseCode, Ending, Handler, Reason},
    metrics::{Operation, TlsHandshake},
    protocol::{ProtocolError, session::Input},
    slots::Key,
};

/// Bytes thrown away from a peer that goes on sending after our last word.
const LINGER_BYTES_MAX: u32 = 256 * 1024;

impl<H: Handler> Core<H> {
    /// Draws the consequences of whatever was done with a connection.
    #[inline]
    pub(super) fn settle(&mut self, key: Key, connection: &mut Connection<H::State>) {
        let link = &connection.link;
        let unsettled = Flags::OWED | Flags::FINISHING | Flags::PAUSED | Flags::REARM;
        let lingering = matches!(link.stage, Stage::Lingering { .. });
        if !link.flags.has(unsettled) && !link.has_backlog() && !lingering {
            return;
        }
        self.settle_unusual(key, connection);
    }

    #[cold]
    fn settle_unusual(&mut self, key: Key, connection: &mut Connection<H::State>) {
        let waiting = connection.link.waiting_bytes();
        if waiting > self.settings.outbox_bytes_hard {
            return self.drop_slow(key, connection);
        }
        let link = &mut connection.link;
        if waiting >= self.settings.outbox_bytes_soft {
            link.flags.set(Flags::PAUSED);
        }
        if let Stage::Lingering { discarded_bytes } = link.stage
            && discarded_bytes > LINGER_BYTES_MAX
        {
            return self.bury(key, connection);
        }
        if link.flags.has(Flags::FINISHING) && !link.has_backlog() {
            self.finish(key, connection);
        }
        let link = &mut connection.link;
        if link.flags.has(Flags::REARM) && !link.is_dead() {
            link.flags.clear(Flags::REARM);
            self.rearm(key, link);
        }
        if link.flags.has(Flags::OWED) && link.is_readable() {
            self.want_read(key, link);
        }
    }

    /// Sends what the cork has gathered; `false` when the connection was lost over it.
    #[inline]
    pub(super) fn uncork(
        &mut self,
        key: Key,
        connection: &mut Connection<H::State>,
        input: &mut Input<'_>,
    ) -> bool {
        if self.cork.is_empty() {
            return true;
        }
        // First what was asked of others: whoever has an answer may count on it.
        self.post();
        let link = &mut connection.link;
        self.block.bytes_sent.add(self.cork.len() as u64);
        match link.flush_cork(&mut self.cork, input) {
            Ok(()) => {
                if link.waiting_bytes() >= self.settings.outbox_bytes_soft {
                    link.flags.set(Flags::PAUSED);
                }
                true
            }
            Err(error) => {
                self.cork.clear();
                self.lost(key, connection, Operation::Send, &error);
                false
            }
        }
    }

    /// As [`Core::uncork`], for what was not caused by received bytes.
    pub(super) fn uncork_alone(&mut self, key: Key, connection: &mut Connection<H::State>) {
        self.uncork(key, connection, &mut Input::new(&mut []));
    }

    /// Puts a connection on the list of those whose socket takes bytes again.
    pub(super) fn want_flush(&mut self, key: Key, link: &mut Link) {
        if link.flags.raise(Flags::UNFLUSHED) {
            self.unflushed.push(key);
        }
    }

    /// Sends from the outbox. Below the low mark, half of the soft one, reading goes on and the
    /// handler hears of it.
    pub(super) fn flush(&mut self, key: Key, connection: &mut Connection<H::State>) {
        if let Err(error) = connection.link.flush_outbox(self.cork.seal()) {
            return self.lost(key, connection, Operation::Send, &error);
        }
        let Connection { link, state } = connection;
        let low = self.settings.outbox_bytes_soft / 2;
        if link.waiting_bytes() >= low.max(1) || !link.flags.has(Flags::PAUSED) {
            return;
        }
        link.flags.clear(Flags::PAUSED | Flags::PINGED);
        link.flags.set(Flags::REARM);
        let Some(application) = state else { return };
        let (handler, mut peer) = self.introduce(key, link);
        let mut outcome = handler.drain(&mut peer, application);
        // What was dropped while it did not read: from here on it gets everything again.
        for channel in peer.hub.take_missed(key.slot) {
            outcome = outcome.and_then(|()| handler.missed(&mut peer, application, &channel));
        }
        if let Err(failure) = outcome {
            self.failed(failure.text(), key, connection);
        }
        self.uncork_alone(key, connection);
    }

    /// Tells the handler that its connection is over. Called for every end, effective once.
    pub(super) fn farewell(
        &mut self,
        key: Key,
        connection: &mut Connection<H::State>,
        code: CloseCode,
        reason: &str,
    ) {
        let Some(state) = connection.state.take() else {
            return;
        };
        let id = self.conn_id(key);
        self.hub.leave(id);
        self.held.end(key.slot);
        self.block.connections[usize::from(connection.link.dialect)].subtract(1);
        self.block.closed(code.into());
        log::debug!("closed id={id} code={code}");
        self.handler.close(id, state, code, reason);
    }

    /// The other side broke the protocol: it is told by the close code (RFC 6455, 7.1.7).
    pub(super) fn violated(
        &mut self,
        error: ProtocolError,
        key: Key,
        connection: &mut Connection<H::State>,
    ) {
        log::debug!("protocol error id={} error=\"{error}\"", self.conn_id(key));
        self.expel(key, connection, error.close_code(), &error.to_string());
    }

    /// The handler failed.
    pub(super) fn failed(&mut self, text: &str, key: Key, connection: &mut Connection<H::State>) {
        if self.throttles.handler.allow(self.now) {
            log::warn!("handler failed id={} error={text:?}", self.conn_id(key));
        }
        self.expel(key, connection, CloseCode::Error, "internal error");
    }

    /// A handler panicked somewhere in a call about this connection.
    pub(super) fn recover(&mut self, key: Key, connection: &mut Connection<H::State>) {
        if !self.cork.is_whole() {
            self.cork.clear();
        }
        match connection.link.stage {
            Stage::Http(_) | Stage::Asking { .. } => {
                self.refuse(Reason::HandlerFailed.into(), key, connection);
            }
            Stage::Open(_) => self.failed("panic", key, connection),
            _ => self.bury(key, connection),
        }
        self.uncork_alone(key, connection);
    }

    /// Ends a WebSocket connection from our side without waiting for an answer: Close, FIN, and
    /// patience for a peer that is still sending.
    pub(super) fn expel(
        &mut self,
        key: Key,
        connection: &mut Connection<H::State>,
        code: CloseCode,
        reason: &str,
    ) {
        let link = &mut connection.link;
        let Stage::Open(session) = &mut link.stage else {
            return;
        };
        if session.close() {
            self.cork.close(code, reason);
        }
        session.end();
        link.since = self.now;
        link.unread = None;
        link.flags
            .clear(Flags::PAUSED | Flags::SUSPENDED | Flags::RATED);
        link.flags
            .set(Flags::FINISHING | Flags::LINGER | Flags::REARM);
        self.farewell(key, connection, code, reason);
        self.uncork_alone(key, connection);
    }

    /// As [`Core::expel`], with the words of the peer's dialect where it has some of its own.
    pub(super) fn dismiss_peer(
        &mut self,
        ending: Ending,
        usual: (CloseCode, &'static str),
        key: Key,
        connection: &mut Connection<H::State>,
    ) {
        let dialect = usize::from(connection.link.dialect);
        let (code, reason) = self.handler.farewell(dialect, ending).unwrap_or(usual);
        self.expel(key, connection, code, reason);
    }

    /// The socket failed: nobody is there to be told.
    pub(super) fn lost(
        &mut self,
        key: Key,
        connection: &mut Connection<H::State>,
        operation: Operation,
        error: &io::Error,
    ) {
        self.block.io_error(operation);
        log::debug!("connection lost id={} error=\"{error}\"", self.conn_id(key));
        self.bury(key, connection);
    }

    /// The peer sends no more.
    pub(super) fn ended(&mut self, key: Key, connection: &mut Connection<H::State>) {
        let link = &mut connection.link;
        // Half-closed right after a request: its answer still goes out.
        if matches!(link.stage, Stage::Http(_)) && link.has_backlog() {
            link.flags.set(Flags::FINISHING);
            return;
        }
        // Before its end, a handshake has nothing to say goodbye with.
        if !link.flags.has(Flags::HANDSHAKING) {
            link.transport.close_notify(self.cork.seal());
        }
        self.bury(key, connection);
    }

    /// All was said and sent: close, or linger for a peer that may still be sending.
    fn finish(&mut self, key: Key, connection: &mut Connection<H::State>) {
        let link = &mut connection.link;
        if !link.flags.has(Flags::LINGER) {
            link.transport.close_notify(self.cork.seal());
            return self.bury(key, connection);
        }
        if link.transport.finish(self.cork.seal()).is_err() {
            return self.bury(key, connection);
        }
        link.flags.clear(Flags::FINISHING | Flags::LINGER);
        link.stage = Stage::Lingering { discarded_bytes: 0 };
        link.since = self.now;
        link.unread = None;
        link.flags.set(Flags::OWED | Flags::REARM);
    }

    /// Closes a peer that does not read, at once and without a word: its socket takes none.
    pub(super) fn drop_slow(&mut self, key: Key, connection: &mut Connection<H::State>) {
        self.block.slow_consumers.add(1);
        if self.throttles.slow_consumer.allow(self.now) {
            log::warn!(
                "slow consumer closed id={} outbox_bytes={} limit={}",
                self.conn_id(key),
                connection.link.waiting_bytes(),
                self.settings.outbox_bytes_hard
            );
        }
        connection.link.transport.abandon();
        self.bury(key, connection);
    }

    /// Whether one more socket may be held beside those that the cap counts. The descriptor
    /// reserve of the plan covers so many.
    pub(super) fn has_guest_slot(&self) -> bool {
        self.guests < self.settings.shed_slots
    }

    /// Takes a connection off the cap while it still has its socket.
    pub(super) fn uncount(&mut self, link: &mut Link) {
        if link.flags.has(Flags::COUNTED) && self.has_guest_slot() {
            link.flags.clear(Flags::COUNTED);
            self.gate.leave();
            self.guests += 1;
        }
    }

    /// Marks a connection to be freed at the end of the turn.
    pub(super) fn bury(&mut self, key: Key, connection: &mut Connection<H::State>) {
        if connection.link.is_dead() {
            return;
        }
        if connection.link.flags.has(Flags::HANDSHAKING) {
            self.handshake_ended(&mut connection.link, TlsHandshake::Failed);
        }
        connection.link.transport.forget();
        if matches!(connection.link.stage, Stage::Asking { .. }) {
            self.handler.abandoned(self.conn_id(key));
        }
        connection.link.stage = Stage::Dead;
        connection.link.outbox.clear();
        connection.link.unread = None;
        self.dead.push(key);
        self.farewell(key, connection, CloseCode::Abnormal, "");
    }
}

impl<H: Handler> Reactor<H> {
    /// Frees the slots of those that ended in this turn.
    pub(super) fn reap(&mut self) {
        while let Some(key) = self.core.dead.pop() {
            self.core.wheel.cancel(key.slot);
            // Dropping the socket closes it; epoll forgets it by itself.
            if let Some(connection) = self.connections.remove(key) {
                self.core.give_back(key.slot);
                if connection.link.flags.has(Flags::COUNTED) {
                    self.core.gate.leave();
                } else {
                    self.core.guests -= 1;
                }
                self.core.block.sockets.subtract(1);
            }
        }
    }
}
