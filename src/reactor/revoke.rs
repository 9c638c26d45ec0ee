//! Revoked tokens: a walk over the records of those who came by one, some of them a turn.

use std::{mem, sync::Arc};

use super::Reactor;
use crate::{
    gate::token::Revocation,
    handler::{CloseCode, Ending, Handler},
};

/// Records looked at in one turn.
const LOOKS_PER_TURN_MAX: usize = 4096;

/// What is being looked for, and how far the walk has come. There is one while there is anything.
#[derive(Debug, Default)]
pub struct Sweep {
    asked: Vec<Arc<Revocation>>,
    /// Those of this walk; the others wait for the next one.
    sought: Vec<Arc<Revocation>>,
    place: usize,
}

impl Sweep {
    pub fn ask(&mut self, revocation: Arc<Revocation>) {
        self.asked.push(revocation);
    }
}

impl<H: Handler> Reactor<H> {
    /// Goes on with the walk, and closes those who are found.
    pub(super) fn revoke(&mut self) {
        let Some(mut sweep) = self.core.sweep.take() else {
            return;
        };
        if sweep.sought.is_empty() {
            sweep.sought = mem::take(&mut sweep.asked);
            sweep.place = 0;
        }
        let end = self.core.visitors.records_end();
        let until = (sweep.place + LOOKS_PER_TURN_MAX).min(end);
        for place in sweep.place..until {
            let Some(slot) = self.core.visitors.revoked_at(place, &sweep.sought) else {
                continue;
            };
            if let Some(key) = self.connections.key_at(slot) {
                self.visit(key, |core, key, connection| {
                    let usual = (CloseCode::Policy, "token revoked");
                    core.dismiss_peer(Ending::TokenRevoked, usual, key, connection);
                });
            }
        }
        sweep.place = until;
        if until == end {
            sweep.sought.clear();
        }
        if until < end || !sweep.asked.is_empty() {
            self.core.sweep = Some(sweep);
        }
    }
}
