//! From a publication to its subscribers, a budget's worth a turn.

use super::{Core, Reactor};
use crate::{
    connection::{Connection, Stage},
    handler::{ConnId, Handler},
    hub::Batch,
    metrics::Operation,
    protocol::session::State,
    slots::Key,
};

/// Subscribers served in one turn.
const DELIVERIES_PER_TURN_MAX: usize = 1024;

impl<H: Handler> Reactor<H> {
    /// One batch for each channel that has something to deliver, until the budget is spent.
    pub(super) fn deliver(&mut self) {
        let mut budget = DELIVERIES_PER_TURN_MAX;
        for _ in 0..self.core.hub.deliveries() {
            if budget == 0 {
                return;
            }
            let Some(mut delivery) = self.core.hub.begin_delivery() else {
                return;
            };
            while budget > 0
                && let Some(seat) = self.core.hub.next_seat(&delivery)
            {
                budget -= 1;
                // Whoever is subscribed has a slot: leaving comes before reaping.
                if let Some(key) = self.connections.key_at(seat.slot) {
                    self.visit(key, |core, key, connection| {
                        core.deliver(&mut delivery.batch, seat.offset, key, connection);
                    });
                }
            }
            self.core.hub.end_delivery(delivery);
        }
    }
}

impl<H: Handler> Core<H> {
    /// Gives one subscriber what a batch has for it, in one write.
    fn deliver(
        &mut self,
        batch: &mut Batch<ConnId>,
        after: u64,
        key: Key,
        connection: &mut Connection<H::State>,
    ) {
        let link = &mut connection.link;
        let count = batch.count_after(after) as u64;
        let is_open = matches!(&link.stage, Stage::Open(session) if session.state() == State::Open);
        if count == 0 || !is_open {
            return;
        }
        let (handler, dialect) = (&mut self.handler, link.dialect);
        let frames = batch.frames_after(after, dialect, |publication| {
            let frame = handler.encode(publication, usize::from(dialect));
            frame.as_bytes().clone()
        });
        self.block.deliveries.add(count);
        self.block.messages_sent.add(count);
        self.block.bytes_sent.add(frames.len() as u64);
        if let Err(error) = link.send_shared(&frames, self.cork.seal()) {
            self.lost(key, connection, Operation::Send, &error);
        }
    }
}
