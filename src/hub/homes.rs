//! `Homes`: the channels that live on one reactor, in order.
//!
//! A home gives each publication its place and knows which reactors want it. It exists while
//! somebody is interested or something is kept; where there is history, some time longer.

use std::{collections::HashMap, sync::Arc};

use super::{
    Address, Answer, Channel, Kind, Limits, Mail, Position, Publication, Question, Reply,
    Subscribed, Tick,
    epochs::Epochs,
    glob::looks_like,
    history::Shelf,
    home::Home,
    is_reserved,
    mail::{Draft, Enrolment, Inquiry, Withdrawal},
    members::Members,
    patterns::Patterns,
    post::Post,
    repeats::{Key, Repeats},
};

/// The channels of one reactor, and the patterns of all. See the module's text.
///
/// Invariant: every channel here has interest, or something is kept of it; every interest has a
/// subscription.
#[derive(Debug)]
pub struct Homes<A> {
    channels: HashMap<Channel, Home<A>>,
    patterns: Patterns,
    repeats: Repeats,
    shelf: Shelf,
    epochs: Epochs,
    limits: Limits,
    /// Channels with subscribers, the reserved ones apart.
    followed: usize,
    /// Messages refused since it was last asked for.
    refused: u64,
}

impl<A: Address> Homes<A> {
    pub fn new(limits: Limits, seed: u64) -> Self {
        Self {
            channels: HashMap::new(),
            patterns: Patterns::default(),
            repeats: Repeats::default(),
            shelf: Shelf::new(limits.history_bytes_max),
            epochs: Epochs::new(seed),
            limits,
            followed: 0,
            refused: 0,
        }
    }

    /// Channels with subscribers, the reserved ones apart.
    pub fn followed(&self) -> usize {
        self.followed
    }

    /// How many messages were refused since the last call.
    pub fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }

    /// What all that is kept costs, in bytes.
    pub fn history_bytes(&self) -> u64 {
        self.shelf.bytes()
    }

    /// A subscription begins, with all that the subscriber has missed.
    pub fn subscribe(&mut self, enrolment: Enrolment<A>, now: Tick, post: &mut Post<A>) {
        let Enrolment {
            channel,
            subscriber,
            ticket,
            tag,
            options,
            recover,
            member,
            watches,
            is_pattern,
        } = enrolment;
        let reactor = subscriber.reactor();
        let answer = |subscribed| Mail::Subscribed {
            channel: Channel::clone(&channel),
            subscriber,
            ticket,
            tag,
            subscribed: Box::new(subscribed),
        };
        if is_pattern {
            self.patterns.subscribe(&channel, reactor);
            let subscribed = Subscribed {
                position: self.epochs.beginning(),
                recovered: recover.map(|_| false),
                publications: Vec::new(),
            };
            post.send(reactor, answer(subscribed));
            return;
        }
        let home = match self.channels.get_mut(&channel) {
            Some(home) => home,
            None => self
                .channels
                .entry(Channel::clone(&channel))
                .or_insert_with(|| Home::new(self.epochs.beginning())),
        };
        if home.interests.is_empty() && !is_reserved(&channel) {
            self.followed += 1;
        }
        home.interests.add(reactor, watches);
        home.look(Some(options), now, &mut self.shelf);
        let subscribed = home.snapshot(recover, &self.limits);
        post.send(reactor, answer(subscribed));
        if let Some(member) = member.filter(|_| Members::<A>::are_kept(options)) {
            let members = &mut home.extra().members;
            let replaced = members.join(subscriber, ticket, Arc::clone(&member), options);
            if let Some(replaced) = replaced {
                home.tell_left(&channel, replaced, now, post);
            }
            if options.join_leave {
                home.tell(&channel, Kind::Join, &member.info, member.client, now, post);
            }
        }
    }

    /// A subscription ends. With the last one the channel does, unless something is kept of it.
    pub fn unsubscribe(&mut self, withdrawal: Withdrawal<A>, now: Tick, post: &mut Post<A>) {
        let Withdrawal {
            channel,
            subscriber,
            ticket,
            watches,
            is_pattern,
        } = withdrawal;
        let reactor = subscriber.reactor();
        if is_pattern {
            self.patterns.unsubscribe(&channel, reactor);
            return;
        }
        let Some(home) = self.channels.get_mut(&channel) else {
            debug_assert!(false, "a subscription ends that never began");
            return;
        };
        home.interests.remove(reactor, watches);
        if home.interests.is_empty() {
            self.followed -= usize::from(!is_reserved(&channel));
            home.rest(&channel, now, &mut self.shelf);
        }
        let extra = home.extra.as_mut();
        if let Some(left) = extra.and_then(|extra| extra.members.leave(subscriber, ticket)) {
            home.tell_left(&channel, left, now, post);
            home.tidy();
        }
        self.forget_if_idle(&channel);
    }

    /// Gives a publication its place and sends it to all who want it. Whether it was a message, and
    /// was published.
    pub fn publish(&mut self, mut draft: Draft<A>, now: Tick, post: &mut Post<A>) -> bool {
        let key = draft.idempotency.take().map(|key| Key {
            channel: Channel::clone(&draft.channel),
            key,
        });
        let (asker, tag, channel) = (draft.asker, draft.tag, Channel::clone(&draft.channel));
        let is_message = draft.kind == Kind::Message;
        let before = key.as_ref().and_then(|key| self.repeats.find(key, now));
        let (answer, is_published) = if let Some(position) = before {
            (Answer::Published(position), false)
        } else if self.is_refused(&draft, post) {
            self.refused += 1;
            (Answer::Busy, false)
        } else {
            let position = self.order(draft, now, post);
            if let Some(key) = key {
                self.repeats.remember(key, position, now);
            }
            (Answer::Published(position), is_message)
        };
        if let Some(to) = asker {
            let reply = Reply {
                tag,
                channel,
                answer,
            };
            post.send(to.reactor(), Mail::Reply { to, reply });
        }
        is_published
    }

    /// Answers a question, to a connection of whatever reactor.
    pub fn ask(&mut self, inquiry: Inquiry<A>, now: Tick, post: &mut Post<A>) {
        let Inquiry {
            channel,
            asker: to,
            tag,
            question,
        } = inquiry;
        let answer = match question {
            Question::Channels { pattern, limit } => self.list(pattern.as_deref(), limit),
            Question::RemoveHistory => {
                let home = self.channels.get_mut(&channel);
                if let Some(history) = home.and_then(Home::history) {
                    history.clear(&mut self.shelf);
                }
                Answer::HistoryRemoved
            }
            Question::Presence => {
                let members = self.members(&channel);
                let present = members.map(|members| members.present().cloned().collect());
                Answer::Presence(present.unwrap_or_default())
            }
            Question::PresenceStats => {
                let (clients, users) = self.members(&channel).map_or((0, 0), Members::count);
                Answer::PresenceStats { clients, users }
            }
            Question::History {
                since,
                limit,
                is_reverse,
            } => {
                if let Some(home) = self.channels.get_mut(&channel) {
                    home.look(None, now, &mut self.shelf);
                }
                let none = Home::new(self.epochs.beginning());
                let home = self.channels.get(&channel).unwrap_or(&none);
                home.page(since, limit, is_reverse)
            }
        };
        let reply = Reply {
            tag,
            channel,
            answer,
        };
        post.send(to.reactor(), Mail::Reply { to, reply });
    }

    /// Gives up what has been kept for long enough, in at most about `budget` steps.
    pub fn expire(&mut self, now: Tick, budget: usize) {
        let mut left = budget - self.repeats.expire(now, budget);
        while left > 0
            && let Some(channel) = self.shelf.take_due(now)
        {
            left -= 1;
            let Some(home) = self.channels.get_mut(&channel) else {
                debug_assert!(false, "a history without a channel");
                continue;
            };
            let Some(history) = home.history() else {
                debug_assert!(false, "a history that is due but not there");
                continue;
            };
            left -= history.trim_age(now, left, &mut self.shelf);
            match home.next_due(now) {
                Some(due) => self.shelf.wake(due, channel),
                None => {
                    home.end_history(&channel, &mut self.shelf);
                    self.forget_if_idle(&channel);
                }
            }
        }
    }

    /// When [`Homes::expire`] has something to do.
    pub fn next_expiry(&self) -> Option<Tick> {
        let all = [self.shelf.next_due(), self.repeats.next_expiry()];
        all.into_iter().flatten().min()
    }

    /// Whether a message can go to nobody because one who wants it is too far behind.
    fn is_refused(&self, draft: &Draft<A>, post: &Post<A>) -> bool {
        if draft.kind != Kind::Message {
            return false;
        }
        let is_full = |reactor| post.mail_bytes.is_overfull(reactor);
        let home = self.channels.get(&draft.channel);
        if home.is_some_and(|home| home.interests.reactors().any(is_full)) {
            return true;
        }
        let mut patterns = self.patterns.of(&draft.channel);
        draft.options.wildcards && patterns.any(|(_, interests)| interests.reactors().any(is_full))
    }

    /// Gives a publication its place, keeps it and sends it.
    fn order(&mut self, draft: Draft<A>, now: Tick, post: &mut Post<A>) -> Position {
        let options = draft.options;
        let keeps = options.keeps_history() && draft.kind == Kind::Message;
        let has_place = draft.kind == Kind::Message && !(draft.skips_history && keeps);
        let matches_patterns = options.wildcards && draft.kind == Kind::Message;
        let known = self.channels.get_mut(&draft.channel);
        let position = match &known {
            Some(home) => home.position,
            None => self.epochs.beginning(),
        };
        let placed = Position {
            offset: if has_place { position.offset + 1 } else { 0 },
            ..position
        };
        let name = known.as_ref().and_then(|home| home.name());
        let publication = Arc::new(Publication {
            channel: name.unwrap_or(draft.channel),
            offset: placed.offset,
            kind: draft.kind,
            payload: draft.payload,
            publisher: draft.publisher,
            about: draft.about,
            at: now,
        });
        if let Some(home) = known {
            if has_place {
                home.position = placed;
                home.keep(&publication, options, now, &mut self.shelf);
            }
            for reactor in home.interests.reactors() {
                post.send(reactor, Mail::Publication(Arc::clone(&publication)));
            }
        } else if has_place && keeps {
            let mut home = Home::new(placed);
            home.keep(&publication, options, now, &mut self.shelf);
            if home.extra.is_some() {
                let channel = Channel::clone(&publication.channel);
                self.channels.insert(channel, home);
            }
        }
        if matches_patterns {
            for (name, interests) in self.patterns.of(&publication.channel) {
                for reactor in interests.reactors() {
                    let (pattern, publication) = (Channel::clone(name), Arc::clone(&publication));
                    let mail = Mail::Pattern {
                        pattern,
                        publication,
                    };
                    post.send(reactor, mail);
                }
            }
        }
        placed
    }

    fn members(&self, channel: &str) -> Option<&Members<A>> {
        let extra = self.channels.get(channel)?.extra.as_ref();
        extra.map(|extra| &extra.members)
    }

    /// The channels with subscribers whose names look like `pattern`.
    fn list(&self, pattern: Option<&str>, limit: u32) -> Answer<A> {
        let mut found = self.channels.iter().filter(|(name, home)| {
            let looks_so = pattern.is_none_or(|pattern| looks_like(name, pattern));
            looks_so && !home.interests.is_empty() && !is_reserved(name)
        });
        let channels = found
            .by_ref()
            .take(limit as usize)
            .map(|(name, home)| (Channel::clone(name), home.interests.subscriptions()))
            .collect();
        Answer::Channels {
            channels,
            is_cut: found.next().is_some(),
        }
    }

    fn forget_if_idle(&mut self, channel: &str) {
        let home = self.channels.get(channel);
        if home.is_some_and(|home| home.interests.is_empty() && home.extra.is_none()) {
            self.channels.remove(channel);
        }
    }

    /// Checks the invariants of the type.
    #[cfg(test)]
    pub fn check_invariants(&self) {
        let (mut bytes, mut histories, mut followed) = (0, 0, 0);
        for (name, home) in &self.channels {
            let mut is_needed = !home.interests.is_empty();
            followed += usize::from(is_needed && !is_reserved(name));
            if let Some(extra) = &home.extra {
                assert!(extra.members.is_empty() || !home.interests.is_empty());
                assert!(extra.history.is_some() || !extra.members.is_empty());
                if let Some(history) = &extra.history {
                    histories += 1;
                    bytes += history.cost(name);
                    let offsets = history.kept().iter().rev().map(|kept| kept.offset);
                    let expected = (1..=home.position.offset).rev();
                    assert!(expected.zip(offsets).all(|(expected, is)| expected == is));
                }
                is_needed = true;
            }
            assert!(is_needed, "{name:?} is here for nothing");
        }
        assert_eq!(bytes, self.shelf.bytes());
        assert_eq!(histories, self.shelf.histories());
        assert_eq!(followed, self.followed);
    }

    /// Whether nothing is left, patterns included.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.patterns.is_empty()
    }
}

#[cfg(test)]
mod tests;
