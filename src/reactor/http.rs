//! Connections that still speak HTTP: one request at a time, answered or upgraded.

use super::{Core, refusals::shown};
use crate::{
    connection::{Connection, Exchange, Flags, Stage},
    gate::{Full, forwarded::Forwarded},
    handler::{
        Accept, Answer, Caller, ConnId, Handler, Heard, Incoming, Reason, Response, Upgrade,
        Verdict, listen_for_user,
    },
    protocol::{
        handshake,
        http::{Body, BodyKind, CONTINUE, HeadScan, Intent, Request, head_end},
        session::Session,
    },
    slots::Key,
    sys,
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
        let told = match self.locate(&request, key, &mut connection.link) {
            Ok(told) => told,
            Err(reason) => return self.turn_away(reason.into(), &request, None, key, connection),
        };
        match request.intent() {
            Intent::Upgrade(upgrade) => self.upgrade(&request, &upgrade, &told, key, connection),
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
        let id = self.conn_id(key);
        let incoming = Incoming {
            id,
            request,
            link: &connection.link,
            visitors: &self.visitors,
            claims: None,
        };
        let mut caller = Caller {
            id,
            hub: &mut self.hub,
            visitors: &self.visitors,
            orders: &mut self.outbound.orders,
        };
        let answer = self.handler.request(&mut caller, &incoming, body);
        let keep = request.keep_alive() && connection.link.shed.is_none();
        let head_only = request.is_head();
        let response = match answer {
            Answer::Now(response) => response,
            Answer::Later => {
                let link = &mut connection.link;
                link.stage = Stage::Asking { keep, head_only };
                link.since = self.now;
                link.flags.set(Flags::SUSPENDED | Flags::REARM);
                return;
            }
        };
        if let Some(reason @ (Reason::ApiKey | Reason::ApiOff)) = response.refusal() {
            // Who guesses keys shall be seen; a path that there is not is nothing of that kind.
            self.block.refused.add(reason as usize);
            let remote = self.remote_of(key, &connection.link);
            self.note_refusal(reason, &remote, Some(request), None);
        }
        let keep = keep && !response.closes() && !self.gate.is_draining();
        self.respond(&response, keep, head_only, key, connection);
    }

    /// Something that a waiting request has asked for is there.
    pub(super) fn answered(
        &mut self,
        heard: Heard,
        key: Key,
        connection: &mut Connection<H::State>,
    ) {
        let Stage::Asking { keep, head_only } = connection.link.stage else {
            return;
        };
        let mut caller = Caller {
            id: ConnId::new(self.id, key),
            hub: &mut self.hub,
            visitors: &self.visitors,
            orders: &mut self.outbound.orders,
        };
        if let Some(response) = self.handler.answered(&mut caller, heard) {
            connection.link.resume();
            let keep = keep && !response.closes() && !self.gate.is_draining();
            self.respond(&response, keep, head_only, key, connection);
        }
    }

    /// What a request has asked for did not come in time.
    pub(super) fn answer_expired(&mut self, key: Key, connection: &mut Connection<H::State>) {
        self.handler.abandoned(self.conn_id(key));
        connection.link.resume();
        connection.link.stage = Stage::Http(None);
        self.refuse(Reason::Overload.into(), key, connection);
    }

    /// Grants or refuses an upgrade.
    fn upgrade(
        &mut self,
        request: &Request<'_>,
        upgrade: &Upgrade<'_>,
        told: &Forwarded<'_>,
        key: Key,
        connection: &mut Connection<H::State>,
    ) {
        if let Err(reason) = self.admits(connection) {
            return self.turn_away(reason.into(), request, None, key, connection);
        }
        let mut incoming = Incoming {
            id: self.conn_id(key),
            request,
            link: &connection.link,
            visitors: &self.visitors,
            claims: None,
        };
        let door = match self.handler.door(&incoming) {
            Ok(door) => door,
            Err(refusal) => return self.turn_away(refusal, request, None, key, connection),
        };
        if let Err((refusal, page)) = self.check_origin(request, door, told) {
            return self.turn_away(refusal, request, Some(page), key, connection);
        }
        let claims = match self.check_token(request, door) {
            Ok(claims) => claims,
            Err(reason) => return self.turn_away(reason.into(), request, None, key, connection),
        };
        incoming.claims = claims.as_ref();
        match self.handler.upgrade(&incoming, upgrade) {
            Verdict::Accept(accept) => {
                if let Some(claims) = &claims {
                    let time = sys::unix_seconds();
                    self.visitors.identify(key.slot, claims, time, self.now);
                    let id = self.conn_id(key);
                    listen_for_user(&mut self.hub, id, claims);
                }
                self.open(accept, request, upgrade, key, connection);
            }
            Verdict::Refuse(refusal) => self.turn_away(refusal, request, None, key, connection),
            Verdict::Answer(response) => {
                self.respond(&response, false, request.is_head(), key, connection);
            }
        }
    }

    /// Whether this server takes one more WebSocket now, and from there.
    fn admits(&self, connection: &Connection<H::State>) -> Result<(), Reason> {
        self.gate.upgrade().map_err(|full| match full {
            Full::Draining => Reason::Draining,
            Full::Buffers => Reason::Buffers,
        })?;
        match connection.link.shed {
            Some(reason) => Err(reason),
            None if self.turns.is_overloaded() => Err(Reason::Overload),
            None => Ok(()),
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
        self.arrive(key);
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
        self.note_opening(key.slot);
        let id = self.conn_id(key);
        log::debug!(
            "open id={id} remote={} path={:?} dialect={}",
            self.remote_of(key, link),
            shown(request),
            H::DIALECTS[dialect]
        );
        let state = connection.state.insert(state);
        let (handler, mut peer) = self.introduce(key, link);
        if let Err(failure) = handler.open(&mut peer, state) {
            self.failed(failure.text(), key, connection);
        }
        self.uncork_alone(key, connection);
    }

    /// Answers, and ends the connection if it is not to be kept.
    pub(super) fn respond(
        &mut self,
        response: &Response,
        keep: bool,
        head_only: bool,
        key: Key,
        connection: &mut Connection<H::State>,
    ) {
        let server = self.settings.server_header.as_deref();
        response.encode(self.cork.raw(), server, keep, head_only);
        self.arrive(key);
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
}
