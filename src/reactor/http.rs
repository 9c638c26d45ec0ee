//! Connections that still speak HTTP: one request at a time, answered or upgraded.

use super::Core;
use crate::{
    connection::{Connection, Exchange, Flags, Stage},
    gate::Full,
    handler::{Accept, Handler, Incoming, Reason, Refusal, Response, Upgrade, Verdict},
    protocol::{
        handshake,
        http::{Body, BodyKind, CONTINUE, HeadScan, Intent, Request, head_end},
        session::Session,
    },
    slots::Key,
};

impl<H: Handler> Core<H> {
    /// Goes on with the request that these bytes belong to; says how many of them did.
    pub(super) fn request(
        &mut self,
        bytes: &[u8],
        key: Key,
        connection: &mut Connection<H::State>,
    ) -> usize {
        let Stage::Http(slot) = &mut connection.link.stage else {
            return bytes.len();
        };
        let Some(mut exchange) = slot.take() else {
            // Nearly always a head comes in one piece, and is read where it lies.
            let mut scan = HeadScan::default();
            return match head_end(bytes, &mut scan, &self.settings.http) {
                Ok(Some(end)) => {
                    self.head(&bytes[..end], key, connection);
                    end
                }
                Ok(None) => {
                    let exchange = Exchange {
                        head: bytes.to_vec(),
                        scan,
                        body: None,
                    };
                    connection.link.stage = Stage::Http(Some(Box::new(exchange)));
                    bytes.len()
                }
                Err(refusal) => {
                    self.refuse(refusal, key, connection);
                    bytes.len()
                }
            };
        };
        if exchange.body.is_some() {
            return self.body(exchange, bytes, key, connection);
        }
        let before = exchange.head.len();
        let room = (self.settings.http.header_bytes_max + 1).saturating_sub(before);
        exchange
            .head
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
        match head_end(&exchange.head, &mut exchange.scan, &self.settings.http) {
            Ok(Some(end)) => {
                self.head(&exchange.head[..end], key, connection);
                end - before
            }
            Ok(None) => {
                connection.link.stage = Stage::Http(Some(exchange));
                bytes.len()
            }
            Err(refusal) => {
                self.refuse(refusal, key, connection);
                bytes.len()
            }
        }
    }

    /// A head is complete: what does it want?
    fn head(&mut self, head: &[u8], key: Key, connection: &mut Connection<H::State>) {
        let limits = self.settings.http;
        let request = match Request::parse(head, &limits) {
            Ok(request) => request,
            Err(refusal) => return self.refuse(refusal, key, connection),
        };
        match request.intent() {
            Intent::Upgrade(upgrade) => self.upgrade(&request, &upgrade, key, connection),
            Intent::Plain => match Body::new(request.body(), &limits) {
                Err(refusal) => self.refuse(refusal, key, connection),
                Ok(_) if matches!(request.body(), BodyKind::None | BodyKind::Length(0)) => {
                    self.answer(&request, &[], key, connection);
                }
                Ok(body) => {
                    if request.expects_continue() {
                        self.cork.raw().extend_from_slice(CONTINUE);
                        self.uncork_alone(key, connection);
                    }
                    let scan = HeadScan::default();
                    let exchange = Exchange {
                        head: head.to_vec(),
                        scan,
                        body: Some(body),
                    };
                    connection.link.stage = Stage::Http(Some(Box::new(exchange)));
                }
            },
        }
    }

    /// Collects the body; answers once it is complete.
    fn body(
        &mut self,
        mut exchange: Box<Exchange>,
        bytes: &[u8],
        key: Key,
        connection: &mut Connection<H::State>,
    ) -> usize {
        let Some(body) = &mut exchange.body else {
            return 0;
        };
        match body.receive(bytes) {
            Err(refusal) => {
                self.refuse(refusal, key, connection);
                bytes.len()
            }
            Ok((used, false)) => {
                connection.link.stage = Stage::Http(Some(exchange));
                used
            }
            Ok((used, true)) => {
                // The head was read once already; it is the same bytes.
                match Request::parse(&exchange.head, &self.settings.http) {
                    Ok(request) => self.answer(&request, body.as_bytes(), key, connection),
                    Err(refusal) => self.refuse(refusal, key, connection),
                }
                used
            }
        }
    }

    /// Answers a plain request.
    fn answer(
        &mut self,
        request: &Request<'_>,
        body: &[u8],
        key: Key,
        connection: &mut Connection<H::State>,
    ) {
        let link = &connection.link;
        let incoming = self.incoming(request, key, connection);
        let response = self.handler.request(&incoming, body);
        let keep = request.keep_alive()
            && !response.closes()
            && !link.flags.has(Flags::SHED)
            && !self.gate.is_draining();
        self.respond(&response, keep, request.is_head(), key, connection);
    }

    /// Grants or refuses an upgrade.
    fn upgrade(
        &mut self,
        request: &Request<'_>,
        upgrade: &Upgrade<'_>,
        key: Key,
        connection: &mut Connection<H::State>,
    ) {
        if let Err(reason) = self.admits(connection) {
            if self.throttles.unavailable.allow(self.now) {
                log::warn!("refusing upgrades with 503 reason={}", reason.as_str());
            }
            return self.refuse(reason.into(), key, connection);
        }
        let incoming = self.incoming(request, key, connection);
        match self.handler.upgrade(&incoming, upgrade) {
            Verdict::Accept(accept) => self.open(accept, request, upgrade, key, connection),
            Verdict::Refuse(refusal) => self.refuse(refusal, key, connection),
            Verdict::Answer(response) => {
                self.respond(&response, false, request.is_head(), key, connection);
            }
        }
    }

    /// Whether this server takes one more WebSocket now.
    fn admits(&self, connection: &Connection<H::State>) -> Result<(), Reason> {
        self.gate.upgrade().map_err(|full| match full {
            Full::Draining => Reason::Draining,
            Full::Buffers => Reason::Buffers,
        })?;
        if connection.link.flags.has(Flags::SHED) {
            return Err(Reason::ConnectionCap);
        }
        if self.turns.is_overloaded() {
            Err(Reason::Overload)
        } else {
            Ok(())
        }
    }

    fn open(
        &mut self,
        accept: Accept<H::State>,
        request: &Request<'_>,
        upgrade: &Upgrade<'_>,
        key: Key,
        connection: &mut Connection<H::State>,
    ) {
        let server = self.settings.server_header.as_deref();
        let Accept {
            state,
            protocol,
            headers,
            text_only,
        } = accept;
        let out = self.cork.raw();
        handshake::accept(upgrade, protocol.as_deref(), &headers, server, out);
        let session = Session::new();
        let session = if text_only {
            session.text_only()
        } else {
            session
        };
        let dialect = self.handler.dialect(&state);
        self.block.connections[dialect].add(1);
        self.block.connections_total.add(1);
        // Pings are spread over the interval: this connection's last one lies somewhere in it.
        let phase = self.random_below(self.settings.ping_interval);
        let link = &mut connection.link;
        link.dialect = dialect as u8;
        link.stage = Stage::Open(session);
        link.since = self.now - phase;
        link.flags.set(Flags::REARM);
        let id = self.conn_id(key);
        log::debug!(
            "open id={id} path={:?} dialect={}",
            request.path(),
            H::DIALECTS[dialect]
        );
        let state = connection.state.insert(state);
        let (handler, mut peer) = self.introduce(key, link);
        if let Err(failure) = handler.open(&mut peer, state) {
            self.failed(failure.text(), key, connection);
        }
        self.uncork_alone(key, connection);
    }

    /// Turns a request away and ends its connection politely.
    pub(super) fn refuse(
        &mut self,
        refusal: Refusal,
        key: Key,
        connection: &mut Connection<H::State>,
    ) {
        self.block.refused.add(refusal.reason() as usize);
        log::debug!(
            "refused id={} status={} reason={}",
            self.conn_id(key),
            refusal.status(),
            refusal.reason().as_str()
        );
        self.respond(&refusal.response(), false, false, key, connection);
    }

    fn respond(
        &mut self,
        response: &Response,
        keep: bool,
        head_only: bool,
        key: Key,
        connection: &mut Connection<H::State>,
    ) {
        let server = self.settings.server_header.as_deref();
        response.encode(self.cork.raw(), server, keep, head_only);
        let link = &mut connection.link;
        link.stage = Stage::Http(None);
        link.since = self.now;
        link.flags.set(Flags::REARM | Flags::ANSWERED);
        if !keep {
            link.flags.set(Flags::FINISHING | Flags::LINGER);
            // What remains is politeness: it takes nobody's place.
            self.uncount(&mut connection.link);
        }
        self.uncork_alone(key, connection);
    }

    fn incoming<'r>(
        &self,
        request: &'r Request<'r>,
        key: Key,
        connection: &'r Connection<H::State>,
    ) -> Incoming<'r> {
        Incoming {
            id: self.conn_id(key),
            request,
            transport: &connection.link.transport,
            is_admin: connection.link.flags.has(Flags::ADMIN),
            is_unavailable: self.gate.is_draining() || self.gate.is_full(),
        }
    }
}
