//! What connections, threads outside and time do to the shares, at random.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    super::{
        Command, Mail, Member, Payload, Position, Publish, PublishError, Question, Share,
        Subscribe, SubscribeError, home_of, is_reserved,
    },
    CHANNELS, CONNECTIONS_MAX, Connection, Id, PATTERNS, REACTORS, RESERVED, SUBSCRIPTIONS_MAX,
    World, info, options_of,
    sight::Sub,
};

impl World {
    pub fn connect(&mut self, reactor: u16) {
        if self.connections.len() < CONNECTIONS_MAX {
            let taken = |slot: &u32| {
                let mut ids = self.connections.keys();
                ids.any(|id| (id.reactor, id.slot) == (reactor, *slot))
            };
            let slot = (0..).find(|slot| !taken(slot)).expect("there are slots");
            let serial = self.below(u64::MAX);
            let id = Id {
                reactor,
                slot,
                serial,
            };
            self.connections.insert(id, Connection::default());
        }
    }

    pub fn any_connection(&mut self) -> Option<Id> {
        let index = self.below(self.connections.len().max(1) as u64) as usize;
        self.connections.keys().nth(index).copied()
    }

    /// Channels of all kinds, and sometimes a pattern.
    pub fn any_name(&mut self) -> &'static str {
        match self.below(12) {
            0 => self.any(&RESERVED),
            1 | 2 => self.any(&PATTERNS),
            _ => self.any(&CHANNELS),
        }
    }

    pub fn disconnect_one(&mut self) {
        if let Some(id) = self.any_connection() {
            self.disconnect(id);
        }
    }

    pub fn disconnect(&mut self, id: Id) {
        let connection = self.connections.remove(&id).unwrap_or_default();
        let places = connection.subs.into_iter();
        self.lost
            .extend(places.filter_map(|(channel, sub)| Some((channel, sub.seen?))));
        self.share(id.reactor).leave(id);
    }

    /// Where a subscriber of a channel that has been here before would go on.
    fn any_place(&mut self, channel: &str) -> Option<Position> {
        let index = self.lost.iter().rposition(|(lost, _)| lost == channel)?;
        let mut position = if self.one_in(2) {
            self.lost.swap_remove(index).1
        } else {
            self.lost[index].1
        };
        match self.below(12) {
            0 => position.offset += 1,
            1 => position.epoch ^= 1,
            2 => position.epoch = 0,
            _ => {}
        }
        Some(position)
    }

    pub fn subscribe(&mut self) {
        let Some(id) = self.any_connection() else {
            return;
        };
        let channel = self.any_name();
        let recover = if self.one_in(3) {
            None
        } else {
            self.any_place(channel)
        };
        let member = Member {
            client: id,
            user: format!("user-{}", id.serial % 5).into(),
            info: info(id).into(),
        };
        let request = Subscribe {
            recover,
            member: (!self.one_in(4)).then(|| Arc::new(member)),
            wants_events: self.one_in(2),
            skips_own: self.one_in(3),
            mark: self.below(16) as u8,
            tag: self.tag(),
            ..Subscribe::new(channel, options_of(channel))
        };
        let is_pattern = channel.ends_with('*');
        let keeps_members = request.options.presence || request.options.join_leave;
        let sub = Sub {
            tag: request.tag,
            mark: request.mark,
            wants_events: request.wants_events,
            skips_own: request.skips_own,
            has_member: request.member.is_some() && keeps_members,
            is_pattern,
            is_seated: false,
            has_missed: false,
            cursors: BTreeMap::new(),
            seen: None,
        };
        let result = self.share(id.reactor).subscribe(id, request);
        let connection = self.connections.entry(id).or_default();
        let names = connection.subs.keys().filter(|name| !is_reserved(name));
        let count = names.count() + connection.cancelled.len();
        if connection.subs.contains_key(channel) {
            assert_eq!(result, Err(SubscribeError::Already));
        } else if !is_reserved(channel) && count >= SUBSCRIPTIONS_MAX {
            assert_eq!(result, Err(SubscribeError::TooMany));
            self.tally.too_many += 1;
        } else {
            assert_eq!(result, Ok(()));
            let homes = if is_pattern { REACTORS } else { 1 };
            self.awaited.insert(sub.tag, homes);
            connection.subs.insert(channel.to_owned(), sub);
        }
    }

    pub fn unsubscribe(&mut self) {
        if let Some(id) = self.any_connection() {
            let channel = self.any_name();
            self.unsubscribe_from(id, channel);
        }
    }

    pub fn unsubscribe_from(&mut self, id: Id, channel: &str) {
        let ended = self.share(id.reactor).unsubscribe(id, channel);
        let connection = self.connections.entry(id).or_default();
        let known = connection.subs.remove(channel);
        assert_eq!(ended, known.is_some());
        let Some(known) = known else { return };
        if !known.is_seated && !is_reserved(channel) {
            connection.cancelled.insert(known.tag);
        }
        self.lost
            .extend(known.seen.map(|seen| (channel.to_owned(), seen)));
    }

    fn any_publication(&mut self, channel: &'static str) -> Publish<'static, Id> {
        self.tally.published += 1;
        let payload = Bytes::copy_from_slice(&self.tally.published.to_be_bytes());
        let about = self.one_in(2).then(|| "x".repeat(self.below(40) as usize));
        let key = self.one_in(4).then(|| self.below(6).to_string());
        Publish {
            about: about.map(Arc::from),
            skips_history: self.one_in(6),
            idempotency: key.map(Box::from),
            tag: self.tag(),
            ..Publish::new(channel, options_of(channel), Payload::Binary(payload))
        }
    }

    pub fn publish(&mut self) {
        let Some(id) = self.any_connection() else {
            return;
        };
        let channel = if self.one_in(9) {
            self.any(&RESERVED)
        } else {
            self.any(&CHANNELS)
        };
        let request = Publish {
            publisher: (!self.one_in(5)).then_some(id),
            asker: (!self.one_in(5)).then_some(id),
            ..self.any_publication(channel)
        };
        let home = home_of(channel, REACTORS);
        let is_full = !self.has_room(id.reactor, home);
        match self.share(id.reactor).publish(request) {
            Ok(()) => assert!(!is_full),
            Err(error) => {
                assert_eq!((error, is_full), (PublishError::Busy, true));
                self.tally.busy += 1;
                // Nobody waits twice.
                if let Entry::Vacant(vacant) = self.waiting.entry(id) {
                    vacant.insert(home);
                    self.share(id.reactor).wait_for_room(id, channel);
                }
            }
        }
    }

    fn has_room(&self, reactor: u16, home: u16) -> bool {
        let mut both = [reactor, home].into_iter();
        both.all(|reactor| self.mail_bytes.held(reactor) < self.max)
    }

    pub fn take_roomy(&mut self, reactor: u16) {
        let mut all = (0..REACTORS).map(|reactor| self.mail_bytes.held(reactor));
        let refuses = all.any(|held| held >= self.max.saturating_mul(2));
        let roomy = self.share(reactor).take_roomy();
        if let Some(id) = roomy {
            let home = self.waiting.remove(&id).expect("it waits");
            assert_eq!(id.reactor, reactor);
            assert!(self.has_room(reactor, home) && !refuses);
            self.tally.roomy += 1;
        } else if !refuses {
            let mut others = self.waiting.iter().filter(|(id, _)| id.reactor == reactor);
            assert!(others.all(|(_, home)| !self.has_room(reactor, *home)));
        }
    }

    pub fn publish_from_outside(&mut self) {
        let channel = self.any(&CHANNELS);
        let request = self.any_publication(channel);
        let sent = Mail::from_outside(request, &self.limits, &self.mail_bytes);
        self.send_from_outside(channel, sent);
    }

    pub fn command(&mut self) {
        let channel = self.any(&RESERVED);
        self.tally.commands += 1;
        let command = Arc::new(Command::Unsubscribe {
            channel: self.tally.commands.to_string().into(),
        });
        if self.one_in(2) {
            let (limits, bytes) = (&self.limits, &self.mail_bytes);
            let sent = Mail::command_from_outside(channel, command, limits, bytes);
            self.send_from_outside(channel, sent);
        } else {
            let reactor = self.below(u64::from(REACTORS)) as u16;
            let is_full = !self.has_room(reactor, home_of(channel, REACTORS));
            let sent = self.share(reactor).command(channel, command);
            assert_eq!(sent.is_err(), is_full);
        }
    }

    fn send_from_outside(&mut self, channel: &str, sent: Result<(u16, Mail<Id>), PublishError>) {
        match sent {
            Ok((to, mail)) => {
                assert_eq!(to, home_of(channel, REACTORS));
                let wire = self.wires.entry((REACTORS, to)).or_default();
                wire.push_back(mail);
            }
            Err(error) => {
                assert_eq!(error, PublishError::Busy);
                let home = home_of(channel, REACTORS);
                assert!(self.mail_bytes.held(home) >= self.max);
            }
        }
    }

    pub fn ask(&mut self) {
        let Some(id) = self.any_connection() else {
            return;
        };
        let channel = self.any(&CHANNELS);
        let question = match self.below(12) {
            0 | 1 => Question::Presence,
            2 | 3 => Question::PresenceStats,
            4 => Question::RemoveHistory,
            5 => Question::Channels {
                pattern: self.one_in(2).then(|| "news.*".into()),
                limit: 1 + self.below(8) as u32,
            },
            _ => Question::History {
                since: if self.one_in(3) {
                    None
                } else {
                    self.any_place(channel)
                },
                limit: (!self.one_in(3)).then(|| self.below(5) as u32),
                is_reverse: self.one_in(2),
            },
        };
        let is_for_all = matches!(question, Question::Channels { .. });
        let tag = self.tag();
        let asked = self.share(id.reactor).ask(id, tag, channel, question);
        assert_eq!(asked, if is_for_all { REACTORS } else { 1 });
    }

    pub fn take_missed(&mut self) {
        let Some(id) = self.any_connection() else {
            return;
        };
        let taken = self.share(id.reactor).take_missed(id.slot);
        let taken: BTreeSet<String> = taken.iter().map(|name| name.to_string()).collect();
        let connection = self.connections.entry(id).or_default();
        let mut missed = BTreeSet::new();
        for (name, sub) in &mut connection.subs {
            if std::mem::take(&mut sub.has_missed) {
                missed.insert(name.clone());
                sub.resume(&self.truths.channels);
            }
        }
        assert_eq!(taken, missed);
        self.tally.missed += missed.len() as u64;
    }

    pub fn tick(&mut self) {
        let ticks = if self.one_in(40) {
            3000
        } else {
            self.below(12)
        };
        self.pass(ticks as u32);
    }

    /// Time passes, for all reactors alike.
    pub fn pass(&mut self, ticks: u32) {
        let now = self.truths.now + ticks;
        self.truths.tick(now);
        for reactor in 0..REACTORS {
            let is_due = |share: &Share<Id>| share.next_expiry().is_some_and(|at| at <= now);
            for round in 0.. {
                if !is_due(self.share(reactor)) {
                    break;
                }
                assert!(round < 100_000, "what is due is not dealt with");
                let budget = 1 + self.below(4) as usize;
                self.share(reactor).expire(now, budget);
            }
        }
    }
}
