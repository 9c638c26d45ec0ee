//! The table under random comings and goings, against what any reader believes: a plain map that
//! forgets nothing.

use core::net::IpAddr;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Addresses, Caps, Crowd, Entry, REFUSED_MAX, Standing, Ticket};

/// The same place in different words, in pairs, then neighbours that are strangers.
const ADDRESSES: [(&str, usize); 9] = [
    ("192.0.2.1", 0),
    ("::ffff:192.0.2.1", 0),
    ("2001:db8::1", 1),
    ("2001:db8::ffff:0:0:1", 1),
    ("2001:db8:0:1::1", 2),
    ("192.0.2.2", 3),
    ("0.0.0.0", 4),
    ("::1", 5),
    ("32.1.13.184", 6),
];

/// What the map holds for one place.
#[derive(Default)]
struct Place {
    connections: u32,
    half_open: u32,
    refused: u32,
    /// The moment at which all connects are paid for, on a clock that counts so finely that a
    /// tick and a connect are whole numbers of it.
    paid: u64,
}

struct World {
    caps: Caps,
    addresses: Addresses,
    now: u32,
    places: BTreeMap<usize, Place>,
    live: Vec<(Ticket, Standing, usize)>,
}

impl World {
    fn new(caps: Caps) -> Self {
        Self {
            caps,
            addresses: Addresses::new(caps, 1000),
            now: 7,
            places: BTreeMap::new(),
            live: Vec::new(),
        }
    }

    fn enter(&mut self, which: usize) {
        let (text, index) = ADDRESSES[which % ADDRESSES.len()];
        let address: IpAddr = text.parse().expect("an address");
        let place = self.places.entry(index).or_default();
        let expected = place.crowd(&self.caps, self.now);
        let (standing, ticket) = match self.addresses.enter(address, self.now) {
            Entry::Admitted(ticket) => {
                assert_eq!(expected, None);
                place.admit(&self.caps, self.now);
                (Standing::HalfOpen, ticket)
            }
            Entry::Refused(ticket, crowd) => {
                assert_eq!(expected, Some(crowd));
                place.refused += 1;
                assert!(place.refused <= REFUSED_MAX);
                (Standing::Refused, ticket)
            }
            Entry::Dropped(crowd) => {
                assert_eq!(expected, Some(crowd));
                assert_eq!(place.refused, REFUSED_MAX);
                return;
            }
        };
        self.live.push((ticket, standing, index));
    }

    fn open(&mut self, which: usize) {
        let count = self.live.len();
        let Some((ticket, standing, index)) = self.live.get_mut(which % count.max(1)) else {
            return;
        };
        if *standing == Standing::HalfOpen {
            self.addresses.opened(*ticket);
            *standing = Standing::Open;
            self.places.entry(*index).or_default().half_open -= 1;
        }
    }

    fn leave(&mut self, which: usize) {
        if self.live.is_empty() {
            return;
        }
        let (ticket, standing, index) = self.live.swap_remove(which % self.live.len());
        self.addresses.leave(ticket, standing, self.now);
        let place = self.places.entry(index).or_default();
        match standing {
            Standing::Refused => place.refused -= 1,
            Standing::Open => place.connections -= 1,
            Standing::HalfOpen => {
                place.connections -= 1;
                place.half_open -= 1;
            }
        }
    }

    /// Whoever has connections is known; and others only while the rate of one of them recovers.
    fn check(&self) {
        let known = self.addresses.sweep(self.now);
        let (used, left): (Vec<&Place>, Vec<&Place>) = self
            .places
            .values()
            .partition(|place| place.connections + place.refused > 0);
        let now = self.caps.clock(self.now);
        let is_recovering = |place: &&Place| now > 0 && place.paid > now;
        if left.iter().any(is_recovering) {
            assert!(known > used.len() && known <= self.places.len());
        } else {
            assert_eq!(known, used.len());
        }
    }
}

impl Caps {
    fn clock(&self, now: u32) -> u64 {
        u64::from(now) * u64::from(self.connects_per_second)
    }
}

impl Place {
    fn crowd(&self, caps: &Caps, now: u32) -> Option<Crowd> {
        let (connect, rate) = (caps.ticks_per_second.into(), caps.connects_per_second);
        let second = caps.clock(caps.ticks_per_second);
        if caps.connections_max > 0 && self.connections == caps.connections_max {
            Some(Crowd::Connections)
        } else if caps.half_open_max > 0 && self.half_open == caps.half_open_max {
            Some(Crowd::HalfOpen)
        } else if rate > 0 && self.paid_with(connect, caps, now) > caps.clock(now) + second {
            Some(Crowd::Rate {
                retry_after_seconds: 1,
            })
        } else {
            None
        }
    }

    fn admit(&mut self, caps: &Caps, now: u32) {
        self.paid = self.paid_with(caps.ticks_per_second.into(), caps, now);
        self.connections += 1;
        self.half_open += 1;
    }

    fn paid_with(&self, connect: u64, caps: &Caps, now: u32) -> u64 {
        self.paid.max(caps.clock(now)) + connect
    }
}

proptest! {
    #[test]
    fn the_table_answers_as_a_map_that_forgets_nothing(
        (connections_max, half_open_max, connects_per_second) in (0u32..14, 0u32..4, 0u32..15),
        steps in prop::collection::vec((0u8..10, 0usize..1000, 0u32..4), 1..400),
    ) {
        let mut world = World::new(Caps {
            connections_max,
            half_open_max,
            connects_per_second,
            ticks_per_second: 10,
        });
        for (step, which, ticks) in steps {
            match step {
                0 => world.now += ticks * ticks,
                1..=5 => world.enter(which),
                6 | 7 => world.open(which),
                _ => world.leave(which),
            }
            world.check();
        }
        while !world.live.is_empty() {
            world.leave(0);
        }
        prop_assert_eq!(world.addresses.sweep(world.now + 10), 0);
    }
}
