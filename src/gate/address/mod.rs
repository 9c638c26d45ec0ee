//! How many connections one address may have: in all, without a finished handshake, and new ones a
//! second.
//!
//! All reactors share the one table of [`Addresses`]. It is touched when a connection comes, when
//! its handshake ends and when it goes, never for a message; and it is split into shards, so that
//! reactors seldom wait for each other. A connection keeps a [`Ticket`] of four bytes.
//!
//! An address is known as long as it has connections. Without any it is remembered only until its
//! connect rate has recovered, which takes a second at most, and only so many are: beyond that the
//! oldest is forgotten first. Memory follows the number of addresses down again.

#[cfg(test)]
mod model;
mod table;

use core::{hash::BuildHasher, net::IpAddr, num::NonZeroU32};
use std::{
    hash::RandomState,
    sync::{Mutex, MutexGuard, PoisonError},
};

use table::{Key, Table};

/// What one address may have. 0 = off.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    pub connections_max: u32,
    /// Connections whose handshake has not ended.
    pub half_open_max: u32,
    /// New connections; as many may come at once after a second without any.
    pub connects_per_second: u32,
    /// Of the clock that every `now` is read from.
    pub ticks_per_second: u32,
}

impl Caps {
    /// Whether nothing is capped, so that a table is not worth having.
    pub fn are_off(&self) -> bool {
        self.connections_max == 0 && self.half_open_max == 0 && self.connects_per_second == 0
    }
}

/// Where the table keeps the address of a connection. Never 0, so an `Option` of it costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(NonZeroU32);

/// Of what an address has too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crowd {
    Connections,
    HalfOpen,
    Rate { retry_after_seconds: u32 },
}

/// The answer to a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Welcome, with a handshake to finish.
    Admitted(Ticket),
    /// One too many, who may be told why. At most 8 such at a time and address.
    Refused(Ticket, Crowd),
    /// Even more than that: nothing is kept, to be closed at once.
    Dropped(Crowd),
}

/// How far a connection that has a ticket has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Admitted, its handshake not ended.
    HalfOpen,
    /// [`Addresses::opened`] was told.
    Open,
    /// Refused, and being told so.
    Refused,
}

/// The table of all addresses. See the module's text.
#[derive(Debug)]
pub struct Addresses {
    caps: Caps,
    remembered_max: usize,
    hasher: RandomState,
    shards: Box<[Shard]>,
}

/// Aligned so that two shards never share a cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(Mutex<Table>);

impl Addresses {
    /// A table for a server that holds `connections_max` connections. Empty it costs 8 KiB.
    pub fn new(caps: Caps, connections_max: usize) -> Self {
        let ticks_per_second = caps.ticks_per_second.max(1);
        let remembered = connections_max.clamp(REMEMBERED_MIN, REMEMBERED_MAX);
        Self {
            caps: Caps {
                // A second's worth of connects must fit the level.
                connects_per_second: caps.connects_per_second.min(u32::MAX / ticks_per_second),
                ticks_per_second,
                ..caps
            },
            remembered_max: remembered / SHARDS,
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
        }
    }

    /// A connection from `address` has come. An IPv4-mapped address counts as IPv4, and the whole
    /// /64 of an IPv6 address as one.
    ///
    /// `now` is in ticks that began together for all callers; one whose clock lags behind the
    /// others' sees no time pass.
    pub fn enter(&self, address: IpAddr, now: u32) -> Entry {
        let key = Key::new(address);
        let shard = (self.hasher.hash_one(key) >> 32) as usize % SHARDS;
        let mut table = self.table(shard);
        table.forget_recovered(now, &self.caps);
        let index = table.find_or_add(key, now);
        let ticket = Ticket::new(shard, index);
        let known = &mut table.known[index];
        let Some(crowd) = known.crowd(now, &self.caps) else {
            known.connections += 1;
            known.half_open += 1;
            known.charge(now, &self.caps);
            return Entry::Admitted(ticket);
        };
        // Only those admitted are charged to the rate: one that charged refusals, too, would lock
        // out for good whoever retries politely.
        if known.refused == REFUSED_MAX {
            return Entry::Dropped(crowd);
        }
        known.refused += 1;
        Entry::Refused(ticket, crowd)
    }

    /// The handshake of an admitted connection has ended.
    pub fn opened(&self, ticket: Ticket) {
        let mut table = self.table(ticket.shard());
        match table.known.get_mut(ticket.index()) {
            Some(known) if known.half_open > 0 => known.half_open -= 1,
            _ => debug_assert!(false, "a handshake ends that never began"),
        }
    }

    /// A connection has gone; its ticket is void from here on.
    pub fn leave(&self, ticket: Ticket, was: Standing, now: u32) {
        let mut table = self.table(ticket.shard());
        let Some(known) = table.known.get_mut(ticket.index()) else {
            debug_assert!(false, "a connection leaves that never came");
            return;
        };
        let (connections, half_open, refused) = match was {
            Standing::HalfOpen => (1, 1, 0),
            Standing::Open => (1, 0, 0),
            Standing::Refused => (0, 0, 1),
        };
        debug_assert!(known.connections >= connections && known.half_open >= half_open);
        known.connections = known.connections.saturating_sub(connections);
        known.half_open = known.half_open.saturating_sub(half_open);
        known.refused = known.refused.saturating_sub(refused);
        if known.is_unused() {
            table.remember(ticket.index());
        }
        table.forget_recovered(now, &self.caps);
        while table.remembered > self.remembered_max {
            table.forget_oldest();
        }
    }

    fn table(&self, shard: usize) -> MutexGuard<'_, Table> {
        // A table is whole between any two statements that can panic.
        let lock = self.shards[shard].0.lock();
        lock.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    fn new(shard: usize, index: usize) -> Self {
        let number = u32::try_from(index * SHARDS + shard + 1).ok();
        let number = number.and_then(NonZeroU32::new);
        Self(number.expect("the addresses of a shard are fewer than 2^26: each has a descriptor"))
    }

    fn shard(self) -> usize {
        (self.0.get() - 1) as usize % SHARDS
    }

    fn index(self) -> usize {
        (self.0.get() - 1) as usize / SHARDS
    }
}

/// Enough that reactors on many cores seldom meet.
const SHARDS: usize = 64;

/// Refused connections of an address that are told why, at a time.
const REFUSED_MAX: u32 = 8;

/// How many addresses without connections are remembered, in all shards together: as many as the
/// server may have connections, within these bounds. One costs under 100 bytes.
const REMEMBERED_MIN: usize = 16 * SHARDS;
const REMEMBERED_MAX: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::{
        table::{CAPACITY_KEPT, Known},
        *,
    };

    impl Addresses {
        /// Lets every shard see what time it is; gives the number of addresses known.
        pub(super) fn sweep(&self, now: u32) -> usize {
            let sweep = |shard: usize| {
                let mut table = self.table(shard);
                table.forget_recovered(now, &self.caps);
                table.check_invariants();
                table.known.len()
            };
            (0..SHARDS).map(sweep).sum()
        }

        fn capacity(&self) -> usize {
            let capacity = |shard| self.table(shard).known.capacity();
            (0..SHARDS).map(capacity).sum()
        }
    }

    fn caps(connections_max: u32, half_open_max: u32, connects_per_second: u32) -> Caps {
        Caps {
            connections_max,
            half_open_max,
            connects_per_second,
            ticks_per_second: 10,
        }
    }

    fn numbered(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    fn enter(addresses: &Addresses, number: u32, now: u32) -> Ticket {
        match addresses.enter(numbered(number), now) {
            Entry::Admitted(ticket) => ticket,
            refused => panic!("{refused:?}"),
        }
    }

    #[test]
    fn without_a_rate_an_address_is_forgotten_with_its_last_connection() {
        let addresses = Addresses::new(caps(2, 0, 0), 1000);
        let tickets: Vec<Ticket> = (0..50_000).map(|n| enter(&addresses, n, 5)).collect();
        assert_eq!(addresses.sweep(5), 50_000);
        assert!(addresses.capacity() >= 50_000);
        for ticket in &tickets[..30_000] {
            addresses.leave(*ticket, Standing::HalfOpen, 5);
        }
        assert_eq!(addresses.sweep(5), 20_000);
        for ticket in &tickets[30_000..] {
            addresses.leave(*ticket, Standing::HalfOpen, 5);
        }
        assert_eq!(addresses.sweep(5), 0);
        assert!(addresses.capacity() <= SHARDS * CAPACITY_KEPT);
    }

    #[test]
    fn memory_follows_down_while_some_stay() {
        let addresses = Addresses::new(caps(2, 0, 0), 1000);
        let tickets: Vec<Ticket> = (0..100_000).map(|n| enter(&addresses, n, 5)).collect();
        for ticket in tickets[2_000..].iter().rev() {
            addresses.leave(*ticket, Standing::HalfOpen, 5);
        }
        assert_eq!(addresses.sweep(5), 2_000);
        let capacity = addresses.capacity();
        assert!(capacity < 100_000 / 3, "{capacity}");
        // What stayed is still where its ticket says.
        for (ticket, number) in tickets[..2_000].iter().zip(0..) {
            assert_eq!(enter(&addresses, number, 5), *ticket);
        }
    }

    #[test]
    fn a_flood_of_addresses_is_remembered_within_bounds() {
        for connections_max in [1, 20_000, usize::MAX] {
            let addresses = Addresses::new(caps(0, 0, 1), connections_max);
            for number in 0..200_000 {
                let ticket = enter(&addresses, number, 5);
                addresses.leave(ticket, Standing::HalfOpen, 5);
            }
            let remembered = addresses.sweep(5);
            let bound = connections_max.clamp(REMEMBERED_MIN, REMEMBERED_MAX);
            assert!(remembered <= bound, "{remembered}");
            assert!(remembered > bound / 2, "{remembered}");
            // The latest is among them, and the first is not.
            let latest = addresses.enter(numbered(199_999), 5);
            assert!(matches!(latest, Entry::Refused(..)));
            enter(&addresses, 0, 5);
            assert_eq!(addresses.sweep(15), 2);
            assert!(addresses.capacity() < 5_000, "{}", addresses.capacity());
        }
    }

    #[test]
    fn the_ninth_refused_at_a_time_is_dropped() {
        let addresses = Addresses::new(caps(1, 0, 0), 1000);
        let first = enter(&addresses, 1, 5);
        let refused = (0..8).map(|_| match addresses.enter(numbered(1), 5) {
            Entry::Refused(ticket, Crowd::Connections) => ticket,
            wrong => panic!("{wrong:?}"),
        });
        let refused: Vec<Ticket> = refused.collect();
        let dropped = Entry::Dropped(Crowd::Connections);
        assert_eq!(addresses.enter(numbered(1), 5), dropped);
        addresses.leave(refused[0], Standing::Refused, 5);
        let again = addresses.enter(numbered(1), 5);
        assert_eq!(again, Entry::Refused(first, Crowd::Connections));
    }

    #[test]
    fn a_polite_client_gets_in_after_the_second_it_is_told() {
        let addresses = Addresses::new(caps(0, 0, 2), 1000);
        let late = Crowd::Rate {
            retry_after_seconds: 1,
        };
        for second in 1..100 {
            let now = second * 10;
            enter(&addresses, 1, now);
            enter(&addresses, 1, now);
            // An impatient neighbour behind the same address does not change that.
            for tick in now..now + 5 {
                match addresses.enter(numbered(1), tick) {
                    Entry::Refused(ticket, why) => {
                        assert_eq!(why, late);
                        addresses.leave(ticket, Standing::Refused, tick);
                    }
                    wrong => panic!("{wrong:?}"),
                }
            }
        }
    }

    #[test]
    fn a_clock_that_lags_behind_gives_nothing_away() {
        let addresses = Addresses::new(caps(0, 0, 2), 1000);
        enter(&addresses, 1, 100);
        enter(&addresses, 1, 0);
        for now in [99, 0, 100, 104, 50] {
            let entry = addresses.enter(numbered(1), now);
            assert!(matches!(entry, Entry::Refused(..)), "{now}");
        }
        enter(&addresses, 1, 105);
    }

    #[test]
    fn the_largest_caps_do_not_overflow() {
        let highest = Caps {
            connections_max: u32::MAX,
            half_open_max: u32::MAX,
            connects_per_second: u32::MAX,
            ticks_per_second: u32::MAX,
        };
        let addresses = Addresses::new(highest, usize::MAX);
        enter(&addresses, 1, u32::MAX);
        assert!(matches!(
            addresses.enter(numbered(1), 0),
            Entry::Refused(..)
        ));
        assert!(!highest.are_off() && caps(0, 0, 0).are_off());
    }

    #[test]
    fn reactors_that_come_at_once_share_one_cap() {
        let addresses = Addresses::new(caps(100, 0, 0), 1000);
        let admitted = std::thread::scope(|scope| {
            let come = || {
                let came = (0..100).map(|_| addresses.enter(numbered(1), 5));
                came.filter(|entry| matches!(entry, Entry::Admitted(_)))
                    .count()
            };
            let threads = [scope.spawn(come), scope.spawn(come), scope.spawn(come)];
            threads
                .map(|thread| thread.join().unwrap())
                .iter()
                .sum::<usize>()
        });
        assert_eq!(admitted, 100);
    }

    #[test]
    fn a_ticket_costs_four_bytes_and_an_address_under_a_hundred() {
        assert_eq!(size_of::<Option<Ticket>>(), 4);
        let in_map = size_of::<(Key, u32)>() + 1;
        assert!(size_of::<(usize, Known)>() + in_map * 8 / 7 < 100);
    }
}
