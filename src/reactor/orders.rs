//! What is sent to connections directly, without a channel; and the count of who is here.

use std::{collections::VecDeque, sync::Arc};

use super::{Core, Mail, Reactor, deliver::Piece, settings::TICKS_PER_SECOND};
use crate::{
    connection::{Connection, Stage},
    handler::{Census, Command, ConnId, Frame, Handler, Heard, Kind, Order, Publication, Resident},
    hub::Address,
    metrics::{DIALECTS_MAX, Operation},
    protocol::session::State,
    slots::Key,
    sys,
    wheel::Tick,
};

/// Slots looked at in one turn on the way to everybody.
const LOOKS_PER_TURN_MAX: u32 = 16 * 1024;

/// What a reactor has to say that has not been said yet.
#[derive(Debug, Default)]
pub struct Outbound {
    /// What requests have asked for, to be posted.
    pub orders: Vec<Order>,
    pub broadcasts: VecDeque<Broadcast>,
    /// Reactors to be woken for what was posted.
    pub posted: Vec<u16>,
    /// What is to be sent at the end of a delivery.
    pub pieces: Vec<Piece>,
    /// The connection whose words about what it was told are in the cork.
    pub told: Option<Key>,
}

/// A publication on its way to every connection.
#[derive(Debug)]
pub struct Broadcast {
    publication: Arc<Publication>,
    /// By dialect, once somebody speaks it: the frame, if there is one.
    frames: [Option<Option<Frame>>; DIALECTS_MAX],
    /// Slots before this one have got it.
    next_slot: u32,
}

impl<H: Handler> Reactor<H> {
    pub(super) fn obey(&mut self, order: Order) {
        match order {
            Order::Tell(to, publication) => {
                self.visit(to.key(), |core, key, connection| {
                    core.direct(&publication, key, connection);
                });
                self.core.hub.gauges().discharge(&publication, self.core.id);
            }
            Order::Everyone(publication) => self.core.outbound.broadcasts.push_back(Broadcast {
                publication,
                frames: Default::default(),
                next_slot: 0,
            }),
            Order::Count(census) => self.count(&census),
        }
    }

    /// Goes on with what is sent to everybody, at most so many connections; how many are left.
    pub(super) fn broadcast(&mut self, mut budget: usize) -> usize {
        let Some(mut broadcast) = self.core.outbound.broadcasts.pop_front() else {
            return budget;
        };
        let end = self.connections.slots_used();
        let until = end.min(broadcast.next_slot.saturating_add(LOOKS_PER_TURN_MAX));
        while budget > 0 && broadcast.next_slot < until {
            let slot = broadcast.next_slot;
            broadcast.next_slot += 1;
            if let Some(key) = self.connections.key_at(slot) {
                budget -= 1;
                let Broadcast {
                    publication,
                    frames,
                    ..
                } = &mut broadcast;
                self.visit(key, |core, key, connection| {
                    if let Kind::Command(_) = publication.kind {
                        return core.direct(publication, key, connection);
                    }
                    let dialect = usize::from(connection.link.dialect);
                    let frame = frames[dialect]
                        .get_or_insert_with(|| core.handler.encode(publication, "", dialect));
                    core.send_frame(frame.as_ref(), key, connection);
                });
            }
        }
        if broadcast.next_slot < end {
            self.core.outbound.broadcasts.push_front(broadcast);
        } else {
            let core = &self.core;
            core.hub.gauges().discharge(&broadcast.publication, core.id);
        }
        budget
    }

    /// Answers a question about the connections of this reactor.
    fn count(&mut self, census: &Census) {
        let slots: Vec<u32> = match &census.user {
            Some(user) => self.core.hub.subscribers(user).take(census.limit).collect(),
            None => {
                let all = 0..self.connections.slots_used();
                let open = |slot: &u32| {
                    let key = self.connections.key_at(*slot);
                    let connection = key.and_then(|key| self.connections.get(key));
                    connection.is_some_and(|connection| connection.state.is_some())
                };
                all.filter(open).take(census.limit).collect()
            }
        };
        let mut residents = Vec::with_capacity(slots.len());
        for slot in slots {
            if let Some(key) = self.connections.key_at(slot)
                && let Some(connection) = self.connections.get(key)
                && connection.state.is_some()
            {
                residents.push(self.core.resident(key, connection));
            }
        }
        let tag = census.tag;
        let heard = Heard::Residents { tag, residents };
        self.core.reactors[usize::from(census.asker.reactor())]
            .send(Mail::Counted(census.asker, heard));
    }
}

impl<H: Handler> Core<H> {
    /// Gives one connection what was sent to it alone.
    fn direct(
        &mut self,
        publication: &Publication,
        key: Key,
        connection: &mut Connection<H::State>,
    ) {
        if let Kind::Command(command) = &publication.kind {
            return self.command(command, key, connection);
        }
        let dialect = usize::from(connection.link.dialect);
        let frame = self
            .handler
            .encode(publication, &publication.channel, dialect);
        self.send_frame(frame.as_ref(), key, connection);
    }

    /// Passes a server's command on to the handler of a connection.
    pub(super) fn command(
        &mut self,
        command: &Command,
        key: Key,
        connection: &mut Connection<H::State>,
    ) {
        let Connection {
            link,
            state: Some(state),
        } = connection
        else {
            return;
        };
        let (handler, mut peer) = self.introduce(key, link);
        if let Err(failure) = handler.command(&mut peer, state, command) {
            self.failed(failure.text(), key, connection);
        }
        self.uncork_alone(key, connection);
    }

    fn send_frame(
        &mut self,
        frame: Option<&Frame>,
        key: Key,
        connection: &mut Connection<H::State>,
    ) {
        let Connection { link, state } = connection;
        let is_open = matches!(&link.stage, Stage::Open(session) if session.state() == State::Open);
        let hears = state
            .as_ref()
            .is_some_and(|state| self.handler.hears(state));
        let (Some(frame), true) = (frame, is_open && hears) else {
            return;
        };
        let bytes = frame.as_bytes();
        self.block.messages_sent.add(1);
        if self.held.holds(key.slot) {
            return self.hold(bytes.clone(), key, connection);
        }
        self.block.bytes_sent.add(bytes.len() as u64);
        if let Err(error) = link.send_shared(bytes, self.cork.seal()) {
            self.lost(key, connection, Operation::Send, &error);
        }
    }

    fn resident(&self, key: Key, connection: &Connection<H::State>) -> Resident {
        let link = &connection.link;
        let time = sys::unix_seconds();
        let at = |tick: Tick| {
            let ago = self.now.saturating_sub(tick) / TICKS_PER_SECOND;
            time - i64::from(ago)
        };
        let opened = self.opened.get(key.slot as usize).copied();
        let identity = self.visitors.identity(key.slot);
        let named = self.visitors.remote(key.slot);
        let channels = self.hub.subscriptions(key.slot);
        Resident {
            id: ConnId::new(self.id, key),
            user: identity.and_then(|identity| identity.subject.map(Box::from)),
            remote: named.or_else(|| link.transport.remote().ok()),
            dialect: H::DIALECTS[usize::from(link.dialect)],
            connected_at: at(opened.unwrap_or(self.now)),
            last_seen: at(link.last_seen),
            channels: channels.map(|(channel, _)| Arc::clone(channel)).collect(),
        }
    }
}
