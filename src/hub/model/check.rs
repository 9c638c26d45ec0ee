//! What comes out of the shares, compared with what should.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{
    Id, REACTORS, World, channels, command_number, info, number, options_of,
    truth::{Entry, Expected},
};
use crate::{
    hub::{
        Answer, Delivery, Kind, Mail, Payload, Publication, Seat, Subscribed, home_of, is_reserved,
    },
    metrics::Block,
};

impl World {
    pub fn receive(&mut self, reactor: u16, mail: Mail<Id>) {
        self.note(reactor, &mail);
        let begun = match &mail {
            Mail::Subscribed {
                channel,
                subscriber,
                tag,
                subscribed,
                ..
            } => Some((
                *subscriber,
                channel.to_string(),
                *tag,
                Subscribed::clone(subscribed),
            )),
            _ => None,
        };
        let now = self.truths.now;
        let told = self.share(reactor).receive(mail, now);
        if let Some((to, channel, tag, subscribed)) = begun {
            let is_seated = self.begin(to, &channel, tag, &subscribed);
            let reply = told.as_ref().map(|told| (told.to, told.reply.is_some()));
            assert_eq!(reply, is_seated.map(|is_seated| (to, is_seated)));
            if let Some(reply) = told.and_then(|told| told.reply) {
                assert_eq!((reply.tag, &*reply.channel), (tag, &*channel));
                assert_eq!(reply.answer, Answer::Subscribed(Box::new(subscribed)));
            }
        } else if let Some(told) = told {
            let reply = told
                .reply
                .expect("only a subscription may be answered with nothing");
            self.compare(reply.tag, reply.answer);
        }
    }

    /// What a mail means to its home, in the model.
    fn note(&mut self, reactor: u16, mail: &Mail<Id>) {
        let mut held: Vec<u64> = (0..REACTORS).map(|at| self.mail_bytes.held(at)).collect();
        held[usize::from(reactor)] -= mail.cost();
        let max = self.max;
        let is_at_home = |channel: &str| home_of(channel, REACTORS) == reactor;
        match mail {
            Mail::Subscribe(enrolment) => {
                assert!(enrolment.is_pattern || is_at_home(&enrolment.channel));
                let start = self.truths.enrol(reactor, enrolment, &held, max);
                self.starts.entry(enrolment.tag).or_default().push(start);
            }
            Mail::Unsubscribe(withdrawal) => {
                self.truths.withdraw(reactor, withdrawal, &held, max);
            }
            Mail::Publish(draft) => {
                assert!(is_at_home(&draft.channel));
                let expected = self.truths.publish(reactor, draft, &held, max);
                self.tally.refused += u64::from(matches!(expected, Expected::Busy));
                self.expected.entry(draft.tag).or_default().push(expected);
            }
            Mail::Ask(inquiry) => {
                let expected = self.truths.ask(reactor, inquiry);
                self.expected.entry(inquiry.tag).or_default().push(expected);
            }
            _ => {}
        }
    }

    /// A home has answered a subscription. Whether its connection is to hear that it is subscribed,
    /// or that it is not; nothing while other homes are to answer.
    fn begin(
        &mut self,
        id: Id,
        channel: &str,
        tag: u32,
        subscribed: &Subscribed<Id>,
    ) -> Option<bool> {
        let start = self.starts.get_mut(&tag).expect("asked").remove(0);
        self.truths.streams.check(start.place, subscribed.position);
        assert_eq!(subscribed.recovered, start.recovered);
        let publications = subscribed.publications.iter();
        assert!(
            publications
                .map(|publication| placed(publication))
                .eq(start.publications.clone())
        );
        if let Some(recovered) = start.recovered.filter(|_| !channel.ends_with('*')) {
            self.tally.recovered[usize::from(recovered)] += 1;
        }
        let awaited = self.awaited.get_mut(&tag).expect("asked");
        *awaited -= 1;
        let is_last = *awaited == 0;
        let connection = self.connections.get_mut(&id);
        let sub = connection.and_then(|connection| {
            if is_last {
                connection.cancelled.remove(&tag);
            }
            let sub = connection.subs.get_mut(channel);
            sub.filter(|sub| sub.tag == tag)
        });
        let is_wanted = sub.is_some();
        if let Some(sub) = sub {
            sub.start(start, is_last, &self.truths.channels);
            sub.seen = (!sub.is_pattern).then_some(subscribed.position);
        }
        is_last.then_some(is_wanted)
    }

    fn compare(&mut self, tag: u32, answer: Answer<Id>) {
        self.tally.answered += 1;
        let all = self.expected.get_mut(&tag).expect("asked");
        // Of several homes it is not said which one answers.
        let index = all.iter().position(|expected| is_list(expected, &answer));
        let expected = all.remove(index.unwrap_or(0));
        let streams = &mut self.truths.streams;
        match (expected, answer) {
            (Expected::Published(place), Answer::Published(position))
            | (Expected::Unrecoverable(place), Answer::Unrecoverable(position)) => {
                streams.check(place, position);
            }
            (
                Expected::History(place, expected),
                Answer::History {
                    position,
                    publications,
                },
            ) => {
                streams.check(place, position);
                let publications = publications.iter();
                let found: Vec<_> = publications.map(|found| placed(found)).collect();
                assert_eq!(found, expected);
            }
            (Expected::Presence(expected), Answer::Presence(members)) => {
                assert!(
                    members
                        .iter()
                        .all(|member| *member.info == info(member.client))
                );
                let found: BTreeSet<_> = members.iter().map(|member| member.client).collect();
                assert_eq!((found.len(), &found), (members.len(), &expected));
            }
            (Expected::Stats(clients, users), answer) => {
                assert_eq!(answer, Answer::PresenceStats { clients, users });
            }
            (Expected::Busy, Answer::Busy) | (Expected::Removed, Answer::HistoryRemoved) => {}
            (Expected::Channels(..), Answer::Channels { .. }) if index.is_some() => {}
            (expected, answer) => panic!("{answer:?} instead of {expected:?}"),
        }
    }

    pub fn deliver(&mut self, reactor: u16, mut budget: u64) {
        for _ in 0..self.share(reactor).deliveries() {
            if budget == 0 {
                break;
            }
            let Some(mut delivery) = self.share(reactor).begin_delivery() else {
                break;
            };
            while budget > 0
                && let Some(seat) = self.share(reactor).next_seat(&delivery)
            {
                budget -= 1;
                let mut ids = self.connections.keys();
                let id = ids.find(|id| (id.reactor, id.slot) == (reactor, seat.slot));
                let id = *id.expect("a seat without a connection");
                self.serve(id, &seat, &mut delivery);
                match self.below(60) {
                    0 => self.disconnect(id),
                    1 | 2 => {
                        let channel = self.any_name();
                        self.unsubscribe_from(id, channel);
                    }
                    _ => {}
                }
            }
            self.share(reactor).end_delivery(delivery);
        }
        self.shares[usize::from(reactor)].check_invariants();
    }

    /// One subscriber gets what a batch has for it, or misses it.
    fn serve(&mut self, id: Id, seat: &Seat, delivery: &mut Delivery<Id>) {
        let drops = options_of(&delivery.channel).drops_slow;
        assert_eq!(delivery.drops_slow, drops);
        let count = delivery.batch.count_for(seat);
        let drops = drops && count > 0 && self.one_in(4);
        let connection = self.connections.get_mut(&id).expect("connected");
        let sub = connection.subs.get_mut(&*delivery.channel);
        let sub = sub.expect("a seat without a subscription");
        if let Some(command) = delivery.batch.command() {
            let number = command_number(command);
            if count > 0 {
                let truth = &self.truths.channels[&*delivery.channel];
                let is_it = |entry: &Entry| matches!(entry, Entry::Command(it) if *it == number);
                sub.see(id, &delivery.channel, truth, is_it);
            }
            return;
        }
        assert!(!sub.has_missed || count == 0);
        if drops {
            sub.has_missed = true;
            self.share(id.reactor).miss(seat);
            return;
        }
        let dialect = id.serial as u8 % 2;
        let mut frames = &*delivery.batch.frames_for(seat, dialect, record);
        let mut seen = 0;
        while let Some((head, rest)) = frames.split_first_chunk::<18>() {
            let (name, rest) = rest.split_at(usize::from(head[17]));
            frames = rest;
            let name = String::from_utf8_lossy(name);
            let (offset, what) = (number(&head[1..9]), number(&head[9..17]));
            sub.see(id, &name, &self.truths.channels[&*name], |entry| {
                is_entry(entry, head[0], offset, what)
            });
            if offset > 0
                && let Some(position) = &mut sub.seen
            {
                position.offset = offset;
            }
            seen += 1;
            self.tally.events += u64::from(head[0] != b'M');
        }
        assert_eq!(seen, count);
        self.tally.delivered += seen as u64;
    }

    /// Lets everything arrive, and looks whether it has.
    pub fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "mail without end");
            let mut idle = true;
            for reactor in 0..REACTORS {
                self.post(reactor);
                while let Some(mail) = self.share(reactor).take_own() {
                    idle = false;
                    self.receive(reactor, mail);
                }
                idle &= self.share(reactor).deliveries() == 0;
                self.deliver(reactor, 1000);
                self.post(reactor);
            }
            let wires: Vec<_> = self.wires.keys().copied().collect();
            for (from, to) in wires {
                while let Some(mail) = self.wires.entry((from, to)).or_default().pop_front() {
                    idle = false;
                    self.receive(to, mail);
                }
            }
            if idle {
                break;
            }
        }
        assert!((0..REACTORS).all(|reactor| self.mail_bytes.held(reactor) == 0));
        self.check_subscriptions();
        self.check_members();
        self.check_counters();
    }

    fn check_subscriptions(&self) {
        for (id, connection) in &self.connections {
            assert!(connection.cancelled.is_empty());
            let share = &self.shares[usize::from(id.reactor)];
            let mut expected = BTreeMap::new();
            for (channel, sub) in &connection.subs {
                assert!(sub.is_seated, "{id:?} waits for {channel}");
                sub.check_seen_all(*id, &self.truths.channels);
                assert!(share.is_subscribed(id.slot, channel));
                assert!(share.subscribers(channel).any(|slot| slot == id.slot));
                if !is_reserved(channel) {
                    expected.insert(channel.clone(), sub.mark);
                }
            }
            let found = share.subscriptions(id.slot);
            let found: BTreeMap<_, _> =
                found.map(|(name, mark)| (name.to_string(), mark)).collect();
            assert_eq!(found, expected);
        }
    }

    /// Who is present is who is subscribed, and has joined once more often than it has left.
    fn check_members(&self) {
        for name in channels() {
            let truth = &self.truths.channels[name];
            let connections = self.connections.iter();
            let members = connections.filter(|(_, connection)| {
                let sub = connection.subs.get(name);
                sub.is_some_and(|sub| sub.has_member)
            });
            let members: BTreeSet<Id> = members.map(|(id, _)| *id).collect();
            assert_eq!(truth.members(), members);
            let mut joined = BTreeSet::new();
            for entry in &truth.log {
                if let Entry::Event { is_join, id, .. } = entry {
                    let is_new = if *is_join {
                        joined.insert(*id)
                    } else {
                        joined.remove(id)
                    };
                    assert!(is_new, "{id:?} comes or goes twice in {name}");
                }
            }
            assert!(!options_of(name).join_leave || joined == members);
        }
    }

    fn check_counters(&self) {
        let followed = self.truths.channels.iter();
        let followed = followed.filter(|(name, truth)| truth.has_followers() && !is_reserved(name));
        assert_eq!(
            self.sum(|block| block.channels.load()),
            followed.count() as u64
        );
        let names = self
            .connections
            .values()
            .flat_map(|connection| connection.subs.keys());
        let count = names.filter(|name| !is_reserved(name)).count();
        assert_eq!(self.sum(|block| block.subscriptions.load()), count as u64);
    }

    pub fn sum(&self, of: impl Fn(&Block) -> u64) -> u64 {
        self.blocks.iter().map(|block| of(block)).sum()
    }
}

/// Whether an answer is the list of channels that one home should give.
fn is_list(expected: &Expected, answer: &Answer<Id>) -> bool {
    let (Expected::Channels(expected, limit), Answer::Channels { channels, is_cut }) =
        (expected, answer)
    else {
        return false;
    };
    let mut found = channels.iter();
    channels.len() == expected.len().min(*limit)
        && *is_cut == (expected.len() > *limit)
        && found.all(|(name, count)| expected.get(&**name) == Some(count))
}

fn placed(publication: &Publication<Id>) -> (u64, u64) {
    assert_eq!(publication.kind, Kind::Message);
    (publication.offset, number(publication.payload.as_bytes()))
}

/// A frame of this test: kind, offset, number or who, and the channel's name behind its length.
fn record(publication: &Publication<Id>) -> Option<Bytes> {
    let name = publication.channel.as_bytes();
    let (kind, what) = match &publication.kind {
        Kind::Message => (b'M', number(publication.payload.as_bytes())),
        Kind::Command(_) => panic!("a command is encoded"),
        event => {
            let id = publication.publisher.expect("somebody comes or goes");
            assert_eq!(publication.payload, Payload::Json(info(id).into()));
            let kind = if *event == Kind::Join { b'J' } else { b'L' };
            (kind, id.serial)
        }
    };
    let (offset, what) = (publication.offset.to_be_bytes(), what.to_be_bytes());
    let parts = [&[kind][..], &offset, &what, &[name.len() as u8], name];
    Some(parts.concat().into())
}

fn is_entry(entry: &Entry, kind: u8, seen_offset: u64, what: u64) -> bool {
    match entry {
        Entry::Message { number, offset, .. } => {
            (b'M', *offset, *number) == (kind, seen_offset, what)
        }
        Entry::Event { is_join, id, .. } => {
            let expected = if *is_join { b'J' } else { b'L' };
            (expected, 0, id.serial) == (kind, seen_offset, what)
        }
        Entry::Command(_) => false,
    }
}
