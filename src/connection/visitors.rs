//! `Visitors`: who is at the other end, and how much of their allowance they have used. A row of 16
//! bytes beside each slot, which exists only when something is asked of anybody; and a record for
//! those connections that came by a token or through a proxy.

use std::{mem, net::SocketAddr, sync::Arc};

use serde_json::Map;
use slab::Slab;

use crate::{
    gate::{
        Gate,
        address::{Standing, Ticket},
        rate::Level,
        token::{Claims, Revocation},
    },
    wheel::{TICK_MS, Tick},
};

/// The rows of one reactor's slots, and the records. See the module's text.
#[derive(Debug)]
pub struct Visitors {
    gate: Arc<Gate>,
    is_kept: bool,
    capacity: usize,
    rows: Vec<Row>,
    records: Slab<Record>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    ticket: Option<Ticket>,
    /// The number of the record, counted from 1, and three facts in the bits above it.
    record: u32,
    level: Level,
}

/// The peer may say for whom it speaks.
const TRUSTED: u32 = 1 << 31;
/// A request has come completely.
const ARRIVED: u32 = 1 << 30;
/// The ticket is that of somebody who is only told to go away.
const REFUSED: u32 = 1 << 29;
const RECORD: u32 = REFUSED - 1;

#[derive(Debug)]
struct Record {
    slot: u32,
    /// Named by the PROXY protocol.
    source: Option<SocketAddr>,
    /// Named by the headers of the last request.
    client: Option<SocketAddr>,
    /// When the token expires; 0 is never.
    expires: Tick,
    /// What its token said, but for the payload.
    claims: Option<Claims>,
}

/// Who a connection belongs to, as its token said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity<'a> {
    /// The `sub` claim (RFC 7519, 4.1.2): the user.
    pub subject: Option<&'a str>,
    /// The `jti` claim (4.1.7): the token.
    pub id: Option<&'a str>,
    /// The `exp` claim (4.1.4), in seconds since 1970.
    pub expires: Option<i64>,
}

impl Visitors {
    /// Room for as many slots. Without `is_kept` there are no rows, and nothing is ever known.
    pub fn new(gate: Arc<Gate>, is_kept: bool, capacity: usize) -> Self {
        // Address space alone: a row is backed by memory once its slot was used.
        let rows = Vec::with_capacity(if is_kept { capacity } else { 0 });
        Self {
            gate,
            is_kept,
            capacity,
            rows,
            records: Slab::new(),
        }
    }

    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Begins a row for a connection that has just come.
    pub fn come(&mut self, slot: u32, ticket: Option<(Ticket, Standing)>, is_trusted: bool) {
        if !self.is_kept {
            return;
        }
        let index = slot as usize;
        debug_assert!(index < self.capacity);
        if self.rows.len() <= index {
            self.rows.resize(index + 1, Row::default());
        }
        self.rows[index] = Row {
            record: if is_trusted { TRUSTED } else { 0 },
            ..Row::default()
        };
        self.set_ticket(slot, ticket);
    }

    /// Ends the row. The ticket is to be given back, with what its holder was.
    pub fn go(&mut self, slot: u32) -> Option<(Ticket, Standing)> {
        let ticket = self.take_ticket(slot);
        let row = mem::take(self.rows.get_mut(slot as usize)?);
        if let Some(index) = record_index(row) {
            self.records.try_remove(index);
        }
        ticket
    }

    /// Takes the ticket away, to be given back with what its holder was.
    pub fn take_ticket(&mut self, slot: u32) -> Option<(Ticket, Standing)> {
        let row = self.rows.get_mut(slot as usize)?;
        let standing = match row.record {
            facts if facts & REFUSED != 0 => Standing::Refused,
            facts if facts & ARRIVED != 0 => Standing::Open,
            _ => Standing::HalfOpen,
        };
        row.ticket.take().map(|ticket| (ticket, standing))
    }

    /// Gives a connection a ticket: at its beginning, or once it is known for whom it speaks.
    pub fn set_ticket(&mut self, slot: u32, ticket: Option<(Ticket, Standing)>) {
        let Some(row) = self.rows.get_mut(slot as usize) else {
            return;
        };
        row.record &= !(ARRIVED | REFUSED);
        row.ticket = ticket.map(|(ticket, _)| ticket);
        row.record |= match ticket {
            Some((_, Standing::Refused)) => REFUSED,
            Some((_, Standing::Open)) => ARRIVED,
            Some((_, Standing::HalfOpen)) | None => 0,
        };
    }

    pub fn has_ticket(&self, slot: u32) -> bool {
        let row = self.rows.get(slot as usize);
        row.is_some_and(|row| row.ticket.is_some())
    }

    /// Notes that a request has come completely. The ticket of a handshake that ends by it, if
    /// somebody counts them.
    pub fn arrive(&mut self, slot: u32) -> Option<Ticket> {
        let row = self.rows.get_mut(slot as usize)?;
        let is_first = row.record & (ARRIVED | REFUSED) == 0;
        row.record |= ARRIVED;
        row.ticket.filter(|_| is_first)
    }

    /// What was used of the allowance.
    #[inline]
    pub fn level(&mut self, slot: u32) -> Option<&mut Level> {
        self.rows.get_mut(slot as usize).map(|row| &mut row.level)
    }

    /// Whether the peer may say for whom it speaks.
    pub fn is_trusted(&self, slot: u32) -> bool {
        let row = self.rows.get(slot as usize);
        row.is_some_and(|row| row.record & TRUSTED != 0)
    }

    /// Notes what the PROXY protocol said, and whether whoever it named is a proxy itself.
    pub fn set_source(&mut self, slot: u32, source: SocketAddr, is_trusted: bool) {
        if let Some(record) = self.record_mut(slot) {
            record.source = Some(source);
        }
        if let Some(row) = self.rows.get_mut(slot as usize) {
            row.record = row.record & !TRUSTED | if is_trusted { TRUSTED } else { 0 };
        }
    }

    /// Notes what the headers of a request said.
    pub fn set_client(&mut self, slot: u32, client: Option<SocketAddr>) {
        let is_news = client.is_some() || self.record(slot).is_some();
        if is_news && let Some(record) = self.record_mut(slot) {
            record.client = client;
        }
    }

    /// Notes who the connection belongs to, and until when; replaces what was noted before. `time`
    /// is in seconds since 1970, `now` the same instant.
    pub fn identify(&mut self, slot: u32, claims: &Claims, time: i64, now: Tick) {
        let ends = self.gate.tokens.ends(claims);
        let expires = ends.map_or(0, |end| tick_of(end, time, now));
        if let Some(record) = self.record_mut(slot) {
            record.expires = expires;
            record.claims = Some(Claims {
                subject: claims.subject.clone(),
                id: claims.id.clone(),
                expires: claims.expires,
                issued: claims.issued,
                payload: Map::new(),
            });
        }
    }

    /// Replaces the time at which the token of a connection expires; `None` is never.
    pub fn set_expiry(&mut self, slot: u32, seconds: Option<i64>, time: i64, now: Tick) {
        let expires = seconds.map_or(0, |end| tick_of(end, time, now));
        if let Some(record) = self.record_mut(slot) {
            record.expires = expires;
        }
    }

    /// The address that somebody in front has named.
    pub fn remote(&self, slot: u32) -> Option<SocketAddr> {
        let record = self.record(slot)?;
        record.client.or(record.source)
    }

    pub fn identity(&self, slot: u32) -> Option<Identity<'_>> {
        let claims = self.record(slot)?.claims.as_ref()?;
        Some(Identity {
            subject: claims.subject.as_deref(),
            id: claims.id.as_deref(),
            expires: claims.expires,
        })
    }

    /// When the token expires; 0 is never.
    pub fn expires(&self, slot: u32) -> Tick {
        self.record(slot).map_or(0, |record| record.expires)
    }

    /// How many places of records a walk over all of them must look at.
    pub fn records_end(&self) -> usize {
        self.records.capacity()
    }

    /// The slot of the record at this place, if a revocation is about its token.
    pub fn revoked_at(&self, place: usize, revocations: &[Arc<Revocation>]) -> Option<u32> {
        let record = self.records.get(place)?;
        let claims = record.claims.as_ref()?;
        let is_covered = revocations.iter().any(|each| each.covers(claims));
        is_covered.then_some(record.slot)
    }

    fn record(&self, slot: u32) -> Option<&Record> {
        self.records
            .get(record_index(*self.rows.get(slot as usize)?)?)
    }

    /// The record of a slot, made if there is none; `None` without rows.
    fn record_mut(&mut self, slot: u32) -> Option<&mut Record> {
        let row = self.rows.get_mut(slot as usize)?;
        let index = record_index(*row).unwrap_or_else(|| {
            let index = self.records.insert(Record {
                slot,
                source: None,
                client: None,
                expires: 0,
                claims: None,
            });
            row.record |= (index as u32 + 1) & RECORD;
            index
        });
        self.records.get_mut(index)
    }
}

/// When this second since 1970 comes; `time` is such a second, and `now` the same instant. 0 for
/// what is years away, which is not waited for.
fn tick_of(end: i64, time: i64, now: Tick) -> Tick {
    let ticks = end.saturating_sub(time).max(0).saturating_mul(1000) / TICK_MS.cast_signed();
    // Never early: what is left of this tick is not known, nor how long this turn took.
    let ticks = Tick::try_from(ticks.saturating_add(2)).ok();
    ticks.and_then(|ticks| now.checked_add(ticks)).unwrap_or(0)
}

fn record_index(row: Row) -> Option<usize> {
    ((row.record & RECORD) as usize).checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_sixteen_bytes() {
        assert_eq!(size_of::<Row>(), 16);
    }
}
