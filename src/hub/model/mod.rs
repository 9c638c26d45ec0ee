//! Four reactors' shares with the mail between them in random order, against a model that any
//! reader believes: `truth` is what the homes should know, `sight` what a subscriber must see.

mod check;
mod sight;
mod steps;
mod truth;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use sight::Sub;
use truth::{Expected, Start, Truths};

use super::{Address, Command, Limits, Mail, MailBytes, Options, Position, Share};
use crate::metrics::Block;

const REACTORS: u16 = 4;
const CONNECTIONS_MAX: usize = 60;
const SUBSCRIPTIONS_MAX: usize = 7;

/// Enough that everything happens; some seconds without optimisation.
const WORLDS: u64 = 24;
const STEPS: u64 = 5000;

const CHANNELS: [&str; 13] = [
    "plain.0", "plain.1", "drop.0", "kept.0", "kept.1", "room.0", "room.1", "here.0", "told.0",
    "news.a", "news.b.c", "news.b.d", "news.off",
];
const RESERVED: [&str; 2] = ["\u{1}u0", "\u{1}u1"];
const PATTERNS: [&str; 2] = ["news.*", "news.b.*"];

/// Without a limit in the way, and with one that is reached all the time.
const MAIL_BYTES: [usize; 2] = [usize::MAX, 6000];
const HISTORY_BYTES: [u64; 3] = [u64::MAX / 2, 4000, 1500];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    reactor: u16,
    slot: u32,
    serial: u64,
}

impl Address for Id {
    fn reactor(&self) -> u16 {
        self.reactor
    }

    fn slot(&self) -> u32 {
        self.slot
    }
}

fn channels() -> impl Iterator<Item = &'static str> {
    CHANNELS.into_iter().chain(RESERVED)
}

fn options_of(name: &str) -> Options {
    let kind = name.split('.').next().unwrap_or_default();
    let (history_size, history_ttl) = match kind {
        "kept" | "news" => (6, 40),
        "room" => (3, 100),
        _ => (0, 0),
    };
    Options {
        history_size,
        history_ttl,
        presence: matches!(kind, "room" | "here"),
        join_leave: matches!(kind, "room" | "told"),
        wildcards: kind == "news" && name != "news.off",
        drops_slow: kind == "drop" || name.starts_with("news.b"),
    }
}

/// What a member says of itself.
fn info(id: Id) -> String {
    format!("{{\"serial\":{}}}", id.serial)
}

fn command_number(command: &Command<Id>) -> u64 {
    match command {
        Command::Unsubscribe { channel } => channel.parse().expect("a number"),
        _ => panic!("not a command of this test"),
    }
}

/// A number as it is published.
fn number(bytes: &[u8]) -> u64 {
    let number = bytes.iter();
    number.fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[derive(Default)]
struct Connection {
    subs: BTreeMap<String, Sub>,
    /// Subscriptions that it has cancelled and that are still to be answered, by their tags;
    /// reserved channels apart.
    cancelled: BTreeSet<u32>,
}

/// What happened, so that a test that tests nothing is noticed.
#[derive(Default)]
struct Tally {
    published: u64,
    delivered: u64,
    events: u64,
    commands: u64,
    answered: u64,
    busy: u64,
    refused: u64,
    recovered: [u64; 2],
    missed: u64,
    roomy: u64,
    too_many: u64,
    repeated: u64,
}

struct World {
    random: u64,
    shares: Vec<Share<Id>>,
    blocks: Vec<Arc<Block>>,
    limits: Limits,
    mail_bytes: Arc<MailBytes>,
    max: u64,
    /// From one reactor to another; the threads outside are one more.
    wires: BTreeMap<(u16, u16), VecDeque<Mail<Id>>>,
    connections: BTreeMap<Id, Connection>,
    truths: Truths,
    /// How many homes are to answer the subscription with this tag.
    awaited: HashMap<u32, u16>,
    /// How it should begin, as each of them should say.
    starts: HashMap<u32, Vec<Start>>,
    /// What should be answered to this tag, as each home should say.
    expected: HashMap<u32, Vec<Expected>>,
    /// Places that somebody has seen who is gone.
    lost: Vec<(String, Position)>,
    /// Who waits for room, and at which home.
    waiting: BTreeMap<Id, u16>,
    tag: u32,
    tally: Tally,
}

impl World {
    fn new(seed: u64, mail_bytes_max: usize, history_bytes_max: u64) -> Self {
        let mail_bytes = Arc::new(MailBytes::new(usize::from(REACTORS), mail_bytes_max));
        let blocks: Vec<Arc<Block>> = (0..REACTORS).map(|_| Arc::default()).collect();
        let limits = Limits {
            channel_name_bytes_max: 20,
            subscriptions_max: SUBSCRIPTIONS_MAX,
            recovery_max: 4,
            recovery_bytes_max: 80,
            history_bytes_max,
        };
        let share = |reactor: u16| {
            let (block, mail) = (&blocks[usize::from(reactor)], Arc::clone(&mail_bytes));
            let seed = seed << 16 | u64::from(reactor);
            Share::new(reactor, limits, mail, Arc::clone(block), seed)
        };
        Self {
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            shares: (0..REACTORS).map(share).collect(),
            blocks,
            limits,
            mail_bytes,
            max: mail_bytes_max as u64,
            wires: BTreeMap::new(),
            connections: BTreeMap::new(),
            truths: Truths::new(limits),
            awaited: HashMap::new(),
            starts: HashMap::new(),
            expected: HashMap::new(),
            lost: Vec::new(),
            waiting: BTreeMap::new(),
            tag: 0,
            tally: Tally::default(),
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 20) % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    fn any<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    fn tag(&mut self) -> u32 {
        self.tag += 1;
        self.tag
    }

    fn share(&mut self, reactor: u16) -> &mut Share<Id> {
        &mut self.shares[usize::from(reactor)]
    }

    fn step(&mut self) {
        let reactor = self.below(u64::from(REACTORS)) as u16;
        match self.below(34) {
            0 => self.connect(reactor),
            1 if self.one_in(3) => self.disconnect_one(),
            1 => self.tick(),
            2..=6 => self.subscribe(),
            7 | 8 => self.unsubscribe(),
            9..=13 => self.publish(),
            14 => self.publish_from_outside(),
            15 => self.command(),
            16 | 17 => self.ask(),
            18 => self.take_missed(),
            19 => self.take_roomy(reactor),
            20 | 21 => self.post(reactor),
            22..=25 => self.receive_one(),
            26..=29 => self.receive_own(reactor),
            // One reactor is behind, so that limits are reached.
            _ if reactor == 0 && !self.one_in(8) => {}
            _ => {
                let budget = 1 + self.below(12);
                self.deliver(reactor, budget);
            }
        }
    }

    fn post(&mut self, reactor: u16) {
        let outgoing: Vec<_> = self.share(reactor).take_outgoing().collect();
        for (to, mail) in outgoing {
            assert_ne!(to, reactor);
            self.wires.entry((reactor, to)).or_default().push_back(mail);
        }
    }

    fn receive_one(&mut self) {
        let index = self.below(self.wires.len().max(1) as u64) as usize;
        let Some((&(_, to), wire)) = self.wires.iter_mut().nth(index) else {
            return;
        };
        if let Some(mail) = wire.pop_front() {
            self.receive(to, mail);
        }
    }

    fn receive_own(&mut self, reactor: u16) {
        if let Some(mail) = self.share(reactor).take_own() {
            self.receive(reactor, mail);
        }
    }
}

/// Runs one world; what happened in it.
fn run(seed: u64, mail_bytes_max: usize, history_bytes_max: u64) -> Tally {
    let mut world = World::new(seed, mail_bytes_max, history_bytes_max);
    for step in 1..=STEPS {
        world.step();
        if step % 1000 == 0 {
            world.settle();
        }
    }
    while let Some(id) = world.any_connection() {
        world.disconnect(id);
    }
    world.settle();
    world.pass(u32::MAX / 2);
    for share in &world.shares {
        share.check_invariants();
        assert!(share.is_empty(), "something is left");
    }
    world.tally.repeated = world.truths.repeated;
    world.tally
}

#[test]
fn nothing_is_lost_doubled_or_overtaken_in_any_order_of_mail() {
    let seed = std::env::var("SEED").ok();
    let first = seed.and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut tallies = Vec::new();
    for seed in first..first + WORLDS {
        // Shown when the test fails.
        println!("to repeat a failure: SEED={seed}");
        let mail_bytes_max = MAIL_BYTES[seed as usize % MAIL_BYTES.len()];
        let history_bytes_max = HISTORY_BYTES[seed as usize % HISTORY_BYTES.len()];
        let tally = run(seed, mail_bytes_max, history_bytes_max);
        let is_bounded = mail_bytes_max < usize::MAX;
        assert!(is_bounded || tally.busy + tally.refused == 0);
        tallies.push(tally);
    }
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
    assert!(sum(|tally| tally.delivered) > sum(|tally| tally.published));
    let kinds = [
        ("answered", sum(|tally| tally.answered)),
        ("told who comes and goes", sum(|tally| tally.events)),
        ("commanded", sum(|tally| tally.commands)),
        ("kept out by a full mailbox", sum(|tally| tally.busy)),
        ("refused by a home", sum(|tally| tally.refused)),
        ("let in after waiting", sum(|tally| tally.roomy)),
        ("recovered", sum(|tally| tally.recovered[1])),
        ("not recovered", sum(|tally| tally.recovered[0])),
        ("published twice", sum(|tally| tally.repeated)),
        ("dropped", sum(|tally| tally.missed)),
        ("over the limit", sum(|tally| tally.too_many)),
    ];
    for (kind, count) in kinds {
        println!("{kind}: {count}");
        assert!(count > 20, "hardly anything was {kind}");
    }
}
