//! From a publication to its subscribers, a budget's worth a turn.

use std::sync::Arc;

use bytes::Bytes;

use super::{Core, Reactor};
use crate::{
    connection::{Connection, Stage},
    handler::{ConnId, Handler},
    hub::{self, Delivery, Seat},
    metrics::Operation,
    protocol::session::State,
    slots::Key,
};

/// Subscribers served in one turn. A send costs some microseconds, and everybody else waits so
/// long; a turn of its own costs a hundredth of that.
const DELIVERIES_PER_TURN_MAX: usize = 64;

/// What one subscriber gets of one channel.
#[derive(Debug)]
pub struct Piece {
    key: Key,
    frames: Bytes,
}

impl<H: Handler> Reactor<H> {
    /// One batch for each channel that has something to deliver, until the budget is spent.
    pub(super) fn deliver(&mut self) {
        let mut budget = self.broadcast(DELIVERIES_PER_TURN_MAX);
        let deliveries = self.core.hub.deliveries();
        // Of several channels, one subscriber may get something in one turn: then in one write.
        let gathers = deliveries > 1;
        for _ in 0..deliveries {
            if budget == 0 {
                break;
            }
            let Some(mut delivery) = self.core.hub.begin_delivery() else {
                break;
            };
            while budget > 0
                && let Some(seat) = self.core.hub.next_seat(&delivery)
            {
                budget -= 1;
                // Whoever is subscribed has a slot: leaving comes before reaping.
                if let Some(key) = self.connections.key_at(seat.slot) {
                    self.visit(key, |core, key, connection| {
                        core.deliver(&mut delivery, &seat, gathers, key, connection);
                    });
                }
            }
            self.core.hub.end_delivery(delivery);
        }
        self.send_pieces();
    }

    /// Sends what was gathered, in one write to each.
    fn send_pieces(&mut self) {
        if self.core.outbound.pieces.is_empty() {
            return;
        }
        let mut pieces = std::mem::take(&mut self.core.outbound.pieces);
        // Stable: what one subscriber gets stays in order.
        pieces.sort_by_key(|piece| piece.key);
        let mut frames: Vec<Bytes> = Vec::new();
        let mut waiting = pieces.drain(..).peekable();
        while let Some(Piece { key, frames: first }) = waiting.next() {
            frames.push(first);
            while let Some(next) = waiting.next_if(|next| next.key == key) {
                frames.push(next.frames);
            }
            self.visit(key, |core, key, connection| {
                core.send_pieces(&frames, key, connection);
            });
            frames.clear();
        }
        drop(waiting);
        self.core.outbound.pieces = pieces;
    }
}

impl<H: Handler> Core<H> {
    /// Gives one subscriber what a batch has for it, in one write: now, or with what it gets of
    /// other channels.
    fn deliver(
        &mut self,
        delivery: &mut Delivery<ConnId>,
        seat: &Seat,
        gathers: bool,
        key: Key,
        connection: &mut Connection<H::State>,
    ) {
        if let Some(command) = delivery.batch.command() {
            let command = Arc::clone(command);
            if delivery.batch.count_for(seat) > 0 {
                self.send_gathered(key, connection);
                self.command(&command, key, connection);
            }
            return;
        }
        let Connection { link, state } = connection;
        let is_open = matches!(&link.stage, Stage::Open(session) if session.state() == State::Open);
        if !is_open {
            return;
        }
        let state = state.as_ref();
        let count = delivery.batch.count_for(seat) as u64;
        if count == 0 {
            return;
        }
        if hub::is_reserved(&delivery.channel)
            && !state.is_some_and(|state| self.handler.hears(state))
        {
            return;
        }
        if delivery.drops_slow && link.waiting_bytes() >= self.settings.outbox_bytes_soft {
            self.block.gaps.add(1);
            return self.hub.miss(seat);
        }
        let (handler, dialect) = (&mut self.handler, link.dialect);
        let channel = &delivery.channel;
        let frames = delivery.batch.frames_for(seat, dialect, |publication| {
            let frame = handler.encode(publication, channel, usize::from(dialect))?;
            Some(frame.as_bytes().clone())
        });
        if frames.is_empty() {
            return;
        }
        self.block.deliveries.add(count);
        self.block.messages_sent.add(count);
        if self.held.holds(key.slot) {
            return self.hold(frames, key, connection);
        }
        if gathers {
            return self.outbound.pieces.push(Piece { key, frames });
        }
        self.block.bytes_sent.add(frames.len() as u64);
        if let Err(error) = link.send_shared(&frames, self.cork.seal()) {
            self.lost(key, connection, Operation::Send, &error);
        }
    }

    /// Keeps what a connection is not to hear yet.
    pub(super) fn hold(&mut self, frames: Bytes, key: Key, connection: &mut Connection<H::State>) {
        if self.held.push(key.slot, frames) > self.settings.outbox_bytes_soft {
            self.drop_slow(key, connection);
        }
    }

    fn send_pieces(&mut self, frames: &[Bytes], key: Key, connection: &mut Connection<H::State>) {
        let link = &mut connection.link;
        let is_open = matches!(&link.stage, Stage::Open(session) if session.state() == State::Open);
        if !is_open {
            return;
        }
        let bytes: usize = frames.iter().map(Bytes::len).sum();
        self.block.bytes_sent.add(bytes as u64);
        let sent = match frames {
            [frames] => link.send_shared(frames, self.cork.seal()),
            several => link.send_all_shared(several, self.cork.seal()),
        };
        if let Err(error) = sent {
            self.lost(key, connection, Operation::Send, &error);
        }
    }

    /// Sends what was gathered for one connection, before it is told something else.
    fn send_gathered(&mut self, key: Key, connection: &mut Connection<H::State>) {
        let is_its = |piece: &mut Piece| piece.key == key;
        let its = self.outbound.pieces.extract_if(.., is_its);
        let frames: Vec<Bytes> = its.map(|piece| piece.frames).collect();
        if !frames.is_empty() {
            self.send_pieces(&frames, key, connection);
        }
    }
}
