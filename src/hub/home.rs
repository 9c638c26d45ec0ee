//! `Home`: one channel where it lives: its place in the stream, who wants it, what is kept of it.

use std::sync::Arc;

use super::{
    Address, Answer, Channel, Kind, Limits, Mail, Options, Payload, Position, Publication,
    Subscribed, Tick,
    history::{self, History, Shelf},
    interest::Interests,
    members::{Entry, Members},
    post::Post,
};

/// A channel on its home reactor. A hundred thousand of them must be cheap, so what few have is
/// in a box.
#[derive(Debug)]
pub struct Home<A> {
    /// Where the stream is.
    pub position: Position,
    pub interests: Interests,
    /// For how long the stream is remembered when nobody is subscribed and nothing is kept; 0: not
    /// at all.
    linger: Tick,
    /// What few channels have.
    pub extra: Option<Box<Extra<A>>>,
}

/// Invariant: there is a history, or there are members.
#[derive(Debug)]
pub struct Extra<A> {
    pub history: Option<History<A>>,
    pub members: Members<A>,
}

impl<A: Address> Home<A> {
    pub fn new(position: Position) -> Self {
        Self {
            position,
            interests: Interests::default(),
            linger: 0,
            extra: None,
        }
    }

    pub fn extra(&mut self) -> &mut Extra<A> {
        self.extra.get_or_insert_with(|| {
            Box::new(Extra {
                history: None,
                members: Members::default(),
            })
        })
    }

    pub fn history(&mut self) -> Option<&mut History<A>> {
        self.extra.as_mut()?.history.as_mut()
    }

    /// The channel's name, where a kept publication can lend it: so that all of them share one.
    pub fn name(&self) -> Option<Channel> {
        let history = self.extra.as_ref()?.history.as_ref()?;
        let latest = history.kept().back()?;
        Some(Channel::clone(&latest.channel))
    }

    /// Brings the history up to date, before it is looked at.
    pub fn look(&mut self, options: Option<Options>, now: Tick, shelf: &mut Shelf) {
        let options = options.filter(|options| options.keeps_history());
        self.linger = options.map_or(self.linger, |options| options.history_ttl);
        let Some(history) = self.history() else {
            return;
        };
        if let Some(options) = options {
            history.bound(options);
        }
        history.trim(now, shelf);
    }

    /// The last subscriber is gone, and may come back for what it misses.
    pub fn rest(&mut self, channel: &Channel, now: Tick, shelf: &mut Shelf) {
        if self.linger == 0 {
            return;
        }
        if self.history().is_none() {
            let Some(history) = History::remember(channel, self.linger, now, shelf) else {
                return;
            };
            self.extra().history = Some(history);
        }
        if let Some(history) = self.history() {
            history.stay(now);
        }
    }

    /// When the history must be looked at again; `None`: it has come to its end.
    pub fn next_due(&mut self, now: Tick) -> Option<Tick> {
        let is_followed = !self.interests.is_empty();
        let history = self.history()?;
        // With a subscriber the stream goes on by itself.
        let rests = !is_followed && history.until() > now;
        let later = rests.then(|| history.next_look(now));
        history.next_expiry().or(later)
    }

    /// What a subscriber gets to see that has seen everything up to `recover`.
    pub fn snapshot(&self, recover: Option<Position>, limits: &Limits) -> Subscribed<A> {
        let found = recover.map(|seen| {
            if seen.epoch != 0 && seen.epoch != self.position.epoch {
                return None;
            }
            self.with_kept(|kept| history::recover(kept, seen.offset, self.position.offset, limits))
        });
        Subscribed {
            position: self.position,
            recovered: found.as_ref().map(Option::is_some),
            publications: found.flatten().unwrap_or_default(),
        }
    }

    pub fn page(&self, since: Option<Position>, limit: Option<u32>, is_reverse: bool) -> Answer<A> {
        let position = self.position;
        let found = self.with_kept(|kept| history::page(kept, position, since, limit, is_reverse));
        match found {
            None => Answer::Unrecoverable(position),
            Some(publications) => Answer::History {
                position,
                publications,
            },
        }
    }

    fn with_kept<T>(&self, look: impl FnOnce(&history::Kept<A>) -> T) -> T {
        let history = self.extra.as_ref().and_then(|extra| extra.history.as_ref());
        match history {
            Some(history) => look(history.kept()),
            None => look(&history::Kept::new()),
        }
    }

    /// Keeps a publication that has a place, as its namespace says.
    pub fn keep(
        &mut self,
        publication: &Arc<Publication<A>>,
        options: Options,
        now: Tick,
        shelf: &mut Shelf,
    ) {
        if !options.keeps_history() {
            // Nothing is kept behind a gap.
            if let Some(history) = self.history() {
                history.clear(shelf);
            }
            return;
        }
        self.linger = options.history_ttl;
        if self.history().is_none() {
            let Some(history) = History::begin(publication, options, shelf) else {
                return;
            };
            self.extra().history = Some(history);
        }
        if let Some(history) = self.history() {
            history.bound(options);
            history.trim(now, shelf);
            history.push(publication, shelf);
        }
    }

    pub fn end_history(&mut self, channel: &str, shelf: &mut Shelf) {
        let extra = self.extra.as_mut();
        if let Some(history) = extra.and_then(|extra| extra.history.take()) {
            history.end(channel, shelf);
        }
        self.tidy();
    }

    pub fn tidy(&mut self) {
        let extra = self.extra.as_ref();
        if extra.is_some_and(|extra| extra.history.is_none() && extra.members.is_empty()) {
            self.extra = None;
        }
    }

    pub fn tell_left(&self, channel: &Channel, left: Entry<A>, now: Tick, post: &mut Post<A>) {
        if left.is_told {
            let member = left.member;
            self.tell(channel, Kind::Leave, &member.info, member.client, now, post);
        }
    }

    /// Tells those who want to know it who comes or goes.
    pub fn tell(
        &self,
        channel: &Channel,
        kind: Kind<A>,
        info: &str,
        client: A,
        now: Tick,
        post: &mut Post<A>,
    ) {
        let mut publication = None;
        for reactor in self.interests.watching() {
            // Presence stays right, even if not everybody is told why.
            if post.mail_bytes.is_flooded(reactor) {
                continue;
            }
            let publication = publication.get_or_insert_with(|| {
                Arc::new(Publication {
                    channel: Channel::clone(channel),
                    offset: 0,
                    kind: kind.clone(),
                    payload: Payload::Json(info.into()),
                    publisher: Some(client),
                    about: None,
                    at: now,
                })
            });
            post.send(reactor, Mail::Publication(Arc::clone(publication)));
        }
    }
}
