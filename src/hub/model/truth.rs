//! What the homes of all channels should know: lists and counters that any reader believes,
//! brought forward by each mail in the order in which it reaches its home.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{
    super::{
        Kind, Limits, Options, Position, Question, Tick, home_of, is_reserved,
        mail::{Draft, Enrolment, Inquiry, Withdrawal},
    },
    Id, REACTORS, channels, number, options_of,
};

/// What a publication and a history cost beside the channel's name and what is published.
const PUBLICATION_BYTES: u64 = 256;
const HISTORY_BYTES: u64 = 512;

/// For how long an answer is repeated.
const REPEAT_TICKS: Tick = 3000;

/// A place in a stream, which is known by its number until somebody is told its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub offset: u64,
    pub stream: usize,
}

#[derive(Debug)]
pub enum Expected {
    Published(Place),
    Busy,
    History(Place, Vec<(u64, u64)>),
    Unrecoverable(Place),
    Presence(BTreeSet<Id>),
    Stats(u32, u32),
    Removed,
    /// These, but at most so many.
    Channels(BTreeMap<String, u32>, usize),
}

/// How a subscription should begin, as far as one home knows.
#[derive(Debug)]
pub struct Start {
    pub place: Place,
    pub recovered: Option<bool>,
    pub publications: Vec<(u64, u64)>,
    /// Where in the logs of which channels it begins.
    pub from: Vec<(String, usize)>,
}

/// What was ordered, for all time.
#[derive(Debug)]
pub enum Entry {
    Message {
        number: u64,
        offset: u64,
        publisher: Option<Id>,
    },
    Event {
        is_join: bool,
        id: Id,
        /// Reactors that are told of it.
        to: Vec<u16>,
    },
    Command(u64),
}

/// One channel.
#[derive(Debug, Default)]
pub struct Truth {
    /// There while the channel is.
    stream: Option<usize>,
    top: u64,
    kept: Vec<Kept>,
    /// When its history must be looked at, if it has one, and until when it has at least one.
    due: Option<Tick>,
    until: Tick,
    /// Subscriptions by reactor, and those that watch.
    interests: BTreeMap<u16, (u32, u32)>,
    members: BTreeMap<Id, Present>,
    pub log: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    offset: u64,
    number: u64,
    at: Tick,
    bytes: u64,
}

impl Kept {
    fn cost(&self, name: &str) -> u64 {
        self.bytes + name.len() as u64 + PUBLICATION_BYTES
    }
}

#[derive(Debug)]
struct Present {
    ticket: u32,
    user: String,
}

pub struct Truths {
    pub channels: BTreeMap<String, Truth>,
    pub streams: Streams,
    /// Subscriptions by home, name and reactor.
    patterns: BTreeMap<(u16, String), BTreeMap<u16, u32>>,
    repeats: HashMap<(String, Box<str>), (Place, Tick)>,
    limits: Limits,
    /// What all histories of each home cost.
    bytes: BTreeMap<u16, u64>,
    pub now: Tick,
    /// Publications that were not published a second time.
    pub repeated: u64,
}

/// All streams there ever were.
#[derive(Default)]
pub struct Streams {
    epochs: Vec<Option<u64>>,
    known: HashSet<u64>,
}

impl Streams {
    fn begin(&mut self) -> usize {
        self.epochs.push(None);
        self.epochs.len() - 1
    }

    /// Somebody is told of a stream: always the same, and what no other one was called.
    pub fn check(&mut self, place: Place, position: Position) {
        assert_eq!(position.offset, place.offset);
        assert_ne!(position.epoch, 0);
        match self.epochs[place.stream] {
            Some(epoch) => assert_eq!(position.epoch, epoch, "another epoch"),
            None => {
                assert!(self.known.insert(position.epoch), "an epoch comes again");
                self.epochs[place.stream] = Some(position.epoch);
            }
        }
    }

    fn is(&self, stream: usize, epoch: u64) -> bool {
        epoch == 0 || self.epochs[stream] == Some(epoch)
    }
}

impl Truths {
    pub fn new(limits: Limits) -> Self {
        let channels = channels().map(|name| (name.to_owned(), Truth::default()));
        Self {
            channels: channels.collect(),
            streams: Streams::default(),
            patterns: BTreeMap::new(),
            repeats: HashMap::new(),
            limits,
            bytes: BTreeMap::new(),
            now: 0,
            repeated: 0,
        }
    }

    /// A subscription reaches a home; `held` is what waits for each reactor.
    pub fn enrol(&mut self, home: u16, mail: &Enrolment<Id>, held: &[u64], max: u64) -> Start {
        let reactor = mail.subscriber.reactor;
        if mail.is_pattern {
            let key = (home, mail.channel.to_string());
            let interests = self.patterns.entry(key).or_default();
            *interests.entry(reactor).or_default() += 1;
            let beginning = mail.channel.trim_end_matches('*');
            let matching = self.channels.iter();
            let matching = matching.filter(|(name, _)| {
                let is_open = options_of(name).wildcards && home_of(name, REACTORS) == home;
                is_open && name.starts_with(beginning)
            });
            let offset = 0;
            return Start {
                place: Place {
                    offset,
                    stream: self.streams.begin(),
                },
                recovered: mail.recover.map(|_| false),
                publications: Vec::new(),
                from: matching
                    .map(|(name, truth)| (name.clone(), truth.log.len()))
                    .collect(),
            };
        }
        let truth = self.channels.get_mut(&*mail.channel).expect("known");
        let streams = &mut self.streams;
        let stream = *truth.stream.get_or_insert_with(|| streams.begin());
        let interest = truth.interests.entry(reactor).or_default();
        interest.0 += 1;
        interest.1 += u32::from(mail.watches);
        let recovered = mail.recover.map(|seen| {
            let is_known = streams.is(stream, seen.epoch);
            truth.missed(seen.offset).filter(|missed| {
                let bytes: u64 = missed.iter().map(|kept| kept.bytes).sum();
                is_known
                    && missed.len() <= self.limits.recovery_max as usize
                    && bytes <= self.limits.recovery_bytes_max as u64
            })
        });
        let offset = truth.top;
        let start = Start {
            place: Place { offset, stream },
            recovered: recovered.as_ref().map(Option::is_some),
            publications: pairs(&recovered.flatten().unwrap_or_default()),
            from: vec![(mail.channel.to_string(), truth.log.len())],
        };
        truth.join(mail, held, max);
        start
    }

    /// The end of a subscription reaches a home.
    pub fn withdraw(&mut self, home: u16, mail: &Withdrawal<Id>, held: &[u64], max: u64) {
        let reactor = mail.subscriber.reactor;
        if mail.is_pattern {
            let key = (home, mail.channel.to_string());
            let interests = self.patterns.get_mut(&key).expect("subscribed");
            *interests.get_mut(&reactor).expect("subscribed") -= 1;
            interests.retain(|_, count| *count > 0);
            return;
        }
        let truth = self.channels.get_mut(&*mail.channel).expect("known");
        let interest = truth.interests.get_mut(&reactor).expect("subscribed");
        interest.0 -= 1;
        interest.1 -= u32::from(mail.watches);
        truth.interests.retain(|_, (count, _)| *count > 0);
        let member = truth.members.get(&mail.subscriber);
        if member.is_some_and(|member| member.ticket == mail.ticket.0) {
            truth.members.remove(&mail.subscriber);
            let (id, name) = (mail.subscriber, &mail.channel);
            truth.tell(false, id, name, &mut held.to_vec(), max);
        }
        let bytes = self.bytes.entry(home).or_default();
        truth.rest(
            &mail.channel,
            self.now,
            bytes,
            self.limits.history_bytes_max,
        );
        truth.end_if_idle();
    }

    /// A publication reaches its home.
    pub fn publish(&mut self, home: u16, mail: &Draft<Id>, held: &[u64], max: u64) -> Expected {
        let name = mail.channel.to_string();
        let now = self.now;
        let key = mail.idempotency.clone().map(|key| (name.clone(), key));
        let before = key.as_ref().and_then(|key| self.repeats.get(key));
        if let Some((place, at)) = before
            && now < at + REPEAT_TICKS
        {
            self.repeated += 1;
            return Expected::Published(*place);
        }
        let truth = self.channels.get_mut(&name).expect("known");
        if let Kind::Command(command) = &mail.kind {
            truth
                .log
                .push(Entry::Command(super::command_number(command)));
            let stream = self.streams.begin();
            return Expected::Published(Place { offset: 0, stream });
        }
        let patterns = self.patterns.iter().filter(|((at, pattern), _)| {
            *at == home && mail.options.wildcards && name.starts_with(pattern.trim_end_matches('*'))
        });
        let wanting = patterns.flat_map(|(_, interests)| interests.keys());
        let mut wanting = wanting.chain(truth.interests.keys());
        if wanting.any(|reactor| held[usize::from(*reactor)] >= max.saturating_mul(2)) {
            return Expected::Busy;
        }
        let about = mail.about.as_ref().map_or(0, |about| about.len());
        let kept = Kept {
            offset: truth.top + 1,
            number: number(mail.payload.as_bytes()),
            at: now,
            bytes: (mail.payload.as_bytes().len() + about) as u64,
        };
        let place = self.place(home, &name, kept, mail);
        let truth = self.channels.get_mut(&name).expect("known");
        truth.log.push(Entry::Message {
            number: kept.number,
            offset: place.offset,
            publisher: mail.publisher,
        });
        if let Some(key) = key {
            self.repeats.insert(key, (place, now));
        }
        Expected::Published(place)
    }

    /// Gives a message its place, and keeps it if it is to be kept.
    fn place(&mut self, home: u16, name: &str, kept: Kept, mail: &Draft<Id>) -> Place {
        let Options {
            history_size: size,
            history_ttl: ttl,
            ..
        } = mail.options;
        let truth = self.channels.get_mut(name).expect("known");
        let bytes = self.bytes.entry(home).or_default();
        let max = self.limits.history_bytes_max;
        let cost = kept.cost(name);
        let streams = &mut self.streams;
        if size > 0 && mail.skips_history {
            let stream = truth.stream.unwrap_or_else(|| streams.begin());
            return Place { offset: 0, stream };
        }
        let offset = kept.offset;
        let empty = HISTORY_BYTES + name.len() as u64;
        let begins = size > 0 && truth.due.is_none() && *bytes + empty + cost <= max;
        if begins {
            truth.due = Some(self.now + ttl);
            *bytes += empty;
        }
        if truth.stream.is_none() && truth.due.is_none() {
            let stream = streams.begin();
            return Place { offset, stream };
        }
        let stream = *truth.stream.get_or_insert_with(|| streams.begin());
        truth.top = offset;
        if truth.due.is_some() {
            truth.until = truth.until.max(self.now + 2 * ttl);
            while *bytes + cost > max && !truth.kept.is_empty() {
                *bytes -= truth.drop_oldest(name);
            }
            if *bytes + cost <= max {
                *bytes += cost;
                truth.kept.push(kept);
            }
            while truth.kept.len() > size as usize {
                *bytes -= truth.drop_oldest(name);
            }
        }
        Place { offset, stream }
    }

    /// A question reaches a home.
    pub fn ask(&mut self, home: u16, mail: &Inquiry<Id>) -> Expected {
        if let Question::Channels { pattern, limit } = &mail.question {
            let beginning = pattern
                .as_deref()
                .map(|pattern| pattern.trim_end_matches('*'));
            let all = self.channels.iter();
            let found = all.filter(|(name, truth)| {
                let looks_so = beginning.is_none_or(|beginning| name.starts_with(beginning));
                looks_so
                    && home_of(name, REACTORS) == home
                    && truth.has_followers()
                    && !is_reserved(name)
            });
            let counted = found.map(|(name, truth)| {
                let counts = truth.interests.values().map(|(count, _)| count);
                (name.clone(), counts.sum())
            });
            return Expected::Channels(counted.collect(), *limit as usize);
        }
        let truth = self.channels.get_mut(&*mail.channel).expect("known");
        match &mail.question {
            Question::RemoveHistory => {
                let (name, bytes) = (&mail.channel, self.bytes.entry(home).or_default());
                while !truth.kept.is_empty() {
                    *bytes -= truth.drop_oldest(name);
                }
                Expected::Removed
            }
            Question::History {
                since,
                limit,
                is_reverse,
            } => {
                let streams = &mut self.streams;
                let stream = truth.stream.unwrap_or_else(|| streams.begin());
                let offset = truth.top;
                let place = Place { offset, stream };
                if since.is_some_and(|since| !streams.is(stream, since.epoch)) {
                    return Expected::Unrecoverable(place);
                }
                let since = since.map(|since| since.offset);
                match truth.page(since, limit.unwrap_or(u32::MAX), *is_reverse) {
                    Some(publications) => Expected::History(place, publications),
                    None => Expected::Unrecoverable(place),
                }
            }
            _ => {
                let is_kept = options_of(&mail.channel).presence;
                let members = truth.members.iter().filter(|_| is_kept);
                if mail.question == Question::Presence {
                    return Expected::Presence(members.map(|(id, _)| *id).collect());
                }
                let users: Vec<_> = members.map(|(_, member)| &member.user).collect();
                let distinct: BTreeSet<_> = users.iter().collect();
                Expected::Stats(users.len() as u32, distinct.len() as u32)
            }
        }
    }

    /// Time passes, and what is old enough goes.
    pub fn tick(&mut self, now: Tick) {
        self.now = now;
        for (name, truth) in &mut self.channels {
            let bytes = self.bytes.entry(home_of(name, REACTORS)).or_default();
            let ttl = options_of(name).history_ttl;
            while truth.kept.first().is_some_and(|kept| kept.at + ttl <= now) {
                *bytes -= truth.drop_oldest(name);
            }
            if truth.due.is_some_and(|due| due <= now) {
                let rests = truth.interests.is_empty() && truth.until > now;
                let oldest = truth.kept.first().map(|kept| kept.at + ttl);
                truth.due = oldest.or(rests.then(|| truth.until.min(now + ttl)));
                if truth.due.is_none() {
                    *bytes -= HISTORY_BYTES + name.len() as u64;
                    truth.end_if_idle();
                }
            }
        }
    }
}

impl Truth {
    pub fn has_followers(&self) -> bool {
        !self.interests.is_empty()
    }

    pub fn members(&self) -> BTreeSet<Id> {
        self.members.keys().copied().collect()
    }

    /// What came after `offset`, if all of it is kept.
    fn missed(&self, offset: u64) -> Option<Vec<Kept>> {
        let missed = self.kept.iter().filter(|kept| kept.offset > offset);
        let missed: Vec<_> = missed.copied().collect();
        (offset + missed.len() as u64 == self.top).then_some(missed)
    }

    fn page(&self, since: Option<u64>, limit: u32, is_reverse: bool) -> Option<Vec<(u64, u64)>> {
        let mut found = pairs(&self.kept);
        if is_reverse {
            if since.is_some_and(|since| since > self.top + 1) {
                return None;
            }
            found.retain(|(offset, _)| since.is_none_or(|since| *offset < since));
            found.reverse();
        } else if let Some(since) = since {
            found = pairs(&self.missed(since)?);
        }
        found.truncate(limit as usize);
        Some(found)
    }

    fn join(&mut self, mail: &Enrolment<Id>, held: &[u64], max: u64) {
        let options = options_of(&mail.channel);
        let Some(member) = mail.member.as_ref() else {
            return;
        };
        assert!(options.presence || options.join_leave);
        let mut held = held.to_vec();
        let present = Present {
            ticket: mail.ticket.0,
            user: member.user.to_string(),
        };
        if self.members.insert(mail.subscriber, present).is_some() {
            self.tell(false, mail.subscriber, &mail.channel, &mut held, max);
        }
        self.tell(true, mail.subscriber, &mail.channel, &mut held, max);
    }

    /// Who comes or goes is told to the reactors that want to know, unless they drown in mail.
    fn tell(&mut self, is_join: bool, id: Id, name: &str, held: &mut [u64], max: u64) {
        if !options_of(name).join_leave {
            return;
        }
        let mut to = Vec::new();
        for (reactor, (_, watchers)) in &self.interests {
            let held = &mut held[usize::from(*reactor)];
            if *watchers > 0 && *held < max.saturating_mul(4) {
                *held += PUBLICATION_BYTES + (name.len() + super::info(id).len()) as u64;
                to.push(*reactor);
            }
        }
        self.log.push(Entry::Event { is_join, id, to });
    }

    /// What it cost.
    fn drop_oldest(&mut self, name: &str) -> u64 {
        self.kept.remove(0).cost(name)
    }

    /// The last subscriber of a channel with history may come back.
    fn rest(&mut self, name: &str, now: Tick, bytes: &mut u64, max: u64) {
        let ttl = options_of(name).history_ttl;
        if ttl == 0 || !self.interests.is_empty() {
            return;
        }
        let empty = HISTORY_BYTES + name.len() as u64;
        if self.due.is_none() && *bytes + empty <= max / 2 {
            *bytes += empty;
            self.due = Some(now + ttl);
            self.until = now + ttl;
        } else if self.due.is_some() {
            self.until = self.until.max(now + ttl);
        }
    }

    fn end_if_idle(&mut self) {
        if self.interests.is_empty() && self.due.is_none() {
            assert!(self.kept.is_empty() && self.members.is_empty());
            (self.stream, self.top, self.until) = (None, 0, 0);
        }
    }
}

fn pairs(kept: &[Kept]) -> Vec<(u64, u64)> {
    kept.iter().map(|kept| (kept.offset, kept.number)).collect()
}
