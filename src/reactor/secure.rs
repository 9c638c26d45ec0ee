//! TLS handshakes: a budget of them a turn, for each takes as long as a hundred messages.

use std::time::{Duration, Instant};

use mio::net::TcpStream;

use super::{Core, Reactor};
use crate::{
    connection::{Connection, Flags, Link, Stage},
    handler::{CloseCode, Handler, Reason},
    metrics::TlsHandshake,
    slots::Key,
    transport::{
        Transport,
        tls::{Handshake, Session, Violation},
    },
};

/// The time that the handshakes of one turn may take. What is beyond waits for the next one, so
/// that open connections are served in between however many newcomers there are.
const GREETING_TIME: Duration = Duration::from_millis(1);

impl<H: Handler> Reactor<H> {
    /// Goes on with the handshakes that wait, in their order, until their time is spent.
    pub(super) fn greet(&mut self) {
        if self.core.greetings.is_empty() {
            return;
        }
        let began = Instant::now();
        while let Some(key) = self.core.greetings.pop_front() {
            self.visit(key, |core, key, connection| {
                connection.link.flags.clear(Flags::READY);
                core.receive(key, connection);
            });
            if began.elapsed() >= GREETING_TIME {
                return;
            }
        }
    }
}

impl<H: Handler> Core<H> {
    /// What carries a new connection; `None` if TLS could not be set up.
    pub(super) fn transport(&mut self, stream: TcpStream, flags: Flags) -> Option<Transport> {
        let mut transport = Transport::new(stream);
        if flags.has(Flags::HANDSHAKING) {
            let certificates = self.certificates.as_ref()?;
            match Session::server(certificates.server()) {
                Ok(session) => transport.secure(session),
                Err(error) => {
                    self.block.tls_handshake(TlsHandshake::Failed);
                    if self.throttles.tls.allow(self.now) {
                        log::error!("cannot begin a TLS session error=\"{error}\"");
                    }
                    return None;
                }
            }
        }
        Some(transport)
    }

    /// Puts a connection on the list of those that are owed a read. A handshake that has begun goes
    /// before those that have not: what was spent on it is not lost then.
    pub(super) fn want_read(&mut self, key: Key, link: &mut Link) {
        if !link.flags.raise(Flags::READY) {
            return;
        }
        if !link.flags.has(Flags::HANDSHAKING) {
            self.ready.push(key);
        } else if link.transport.tls().is_some_and(Session::has_begun) {
            self.greetings.push_front(key);
        } else {
            self.greetings.push_back(key);
        }
    }

    /// Looks whether a handshake is complete.
    pub(super) fn note_handshake(&mut self, link: &mut Link) {
        let outcome = match link.transport.tls().and_then(Session::handshake) {
            Some(Handshake::Full) => TlsHandshake::Full,
            Some(Handshake::Resumed) => TlsHandshake::Resumed,
            None => return,
        };
        self.handshake_ended(link, outcome);
    }

    /// Counts a handshake; one of which nothing ever came was none.
    pub(super) fn handshake_ended(&mut self, link: &mut Link, outcome: TlsHandshake) {
        link.flags.clear(Flags::HANDSHAKING);
        let came = link.transport.tls().is_none_or(Session::has_begun);
        if came || outcome == TlsHandshake::Timeout {
            self.block.tls_handshake(outcome);
        }
    }

    /// The other side broke TLS. It was told by an alert, or is by an answer in plain text.
    pub(super) fn insecure(
        &mut self,
        violation: &Violation,
        key: Key,
        connection: &mut Connection<H::State>,
    ) {
        let id = self.conn_id(key);
        let link = &mut connection.link;
        if self.throttles.tls.allow(self.now) {
            let remote = link.transport.remote();
            let remote = remote.map_or_else(|_| "gone".to_owned(), |remote| remote.to_string());
            log::info!("TLS violated id={id} remote={remote} error=\"{violation}\"");
        }
        let is_plain = matches!(violation, Violation::PlainHttp);
        if link.flags.has(Flags::HANDSHAKING) {
            let outcome = match is_plain {
                true => TlsHandshake::PlainHttp,
                false => TlsHandshake::Failed,
            };
            self.handshake_ended(link, outcome);
        }
        if is_plain {
            return self.refuse(Reason::PlainHttp.into(), key, connection);
        }
        if let Stage::Open(session) = &mut link.stage {
            session.end();
        }
        link.outbox.clear();
        link.unread = None;
        link.since = self.now;
        link.flags
            .clear(Flags::PAUSED | Flags::SUSPENDED | Flags::RATED);
        link.flags
            .set(Flags::FINISHING | Flags::LINGER | Flags::REARM);
        self.uncount(link);
        self.farewell(key, connection, CloseCode::Abnormal, "");
    }
}
