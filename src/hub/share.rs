//! `Share`: what one reactor does of the hub's work.

use std::sync::Arc;

use super::{
    Address, Answer, Channel, Command, Delivery, Limits, Mail, MailBytes, Publish, PublishError,
    Question, Reply, Seat, Subscribe, SubscribeError, Tick, Told, home_of,
    homes::Homes,
    local::Wants,
    mail::{Draft, Enrolment, Inquiry, Withdrawal},
    members::Members,
    patterns::is_pattern,
    post::Post,
    subscribers::{Answered, Ended, Left, Subscribers, Terms},
};
use crate::metrics::Block;

/// One reactor's share of the hub: the channels that live on it, and its own subscribers.
///
/// What it has to say to others is taken from it by [`Share::take_outgoing`], what it has to say
/// to itself by [`Share::take_own`]; both must come to [`Share::receive`] in order.
#[derive(Debug)]
pub struct Share<A> {
    homes: Homes<A>,
    subscribers: Subscribers<A>,
    post: Post<A>,
    limits: Limits,
    block: Arc<Block>,
}

impl<A: Address> Share<A> {
    /// The share of one of the reactors that `mail_bytes` is about; counts into `block`. The names
    /// of its streams follow from `seed`, which must be another one in each process and reactor.
    pub fn new(
        reactor: u16,
        limits: Limits,
        mail_bytes: Arc<MailBytes>,
        block: Arc<Block>,
        seed: u64,
    ) -> Self {
        Self {
            homes: Homes::new(limits, seed),
            subscribers: Subscribers::new(reactor, limits.subscriptions_max),
            post: Post::new(reactor, mail_bytes),
            limits,
            block,
        }
    }

    /// Asks the channel's home for a subscription. The answer comes as mail.
    pub fn subscribe(
        &mut self,
        subscriber: A,
        request: Subscribe<'_, A>,
    ) -> Result<(), SubscribeError> {
        let Subscribe {
            channel, options, ..
        } = request;
        if !self.limits.is_name(channel) {
            return Err(SubscribeError::Name);
        }
        let terms = Terms {
            wants: Wants {
                events: request.wants_events,
                skips_own: request.skips_own,
            },
            mark: request.mark,
            is_pattern: options.wildcards && is_pattern(channel),
            drops_slow: options.drops_slow,
            homes: self.post.mail_bytes.reactors(),
        };
        let begun = self
            .subscribers
            .subscribe(subscriber.slot(), channel, terms)?;
        let member = request
            .member
            .filter(|_| Members::<A>::are_kept(options) && !begun.is_pattern);
        let enrolment = || Enrolment {
            channel: Channel::clone(&begun.channel),
            subscriber,
            ticket: begun.ticket,
            tag: request.tag,
            options,
            recover: request.recover,
            member: member.clone(),
            watches: request.wants_events,
            is_pattern: begun.is_pattern,
        };
        for home in self.homes_of(&begun.channel, begun.is_pattern) {
            self.post.send(home, Mail::Subscribe(Box::new(enrolment())));
        }
        self.count();
        Ok(())
    }

    /// Ends a subscription at once; `false` when there was none.
    pub fn unsubscribe(&mut self, subscriber: A, channel: &str) -> bool {
        match self.subscribers.unsubscribe(subscriber.slot(), channel) {
            Left::Nothing => return false,
            Left::Later => {}
            Left::Now(ended) => self.withdraw(subscriber, ended),
        }
        self.count();
        true
    }

    /// Ends all subscriptions of a connection. Its slot may be given to another one then.
    pub fn leave(&mut self, subscriber: A) {
        let before = self.subscribers.len();
        let mut gone = Vec::new();
        self.subscribers
            .leave(subscriber.slot(), |ended| gone.push(ended));
        for ended in gone {
            self.withdraw(subscriber, ended);
        }
        if before != self.subscribers.len() {
            self.count();
        }
    }

    /// Sends a publication to its channel's home.
    pub fn publish(&mut self, request: Publish<'_, A>) -> Result<(), PublishError> {
        let home = self.admit(request.channel)?;
        let draft = Draft::from(request);
        self.post.send(home, Mail::Publish(Box::new(draft)));
        Ok(())
    }

    /// Sends a command to all who are subscribed to a channel.
    pub fn command(&mut self, channel: &str, command: Arc<Command<A>>) -> Result<(), PublishError> {
        let home = self.admit(channel)?;
        let draft = Draft::command(channel, command);
        self.post.send(home, Mail::Publish(Box::new(draft)));
        Ok(())
    }

    /// Asks a channel's home, or all reactors for [`Question::Channels`]; how many answers will
    /// come, each as mail.
    pub fn ask(&mut self, asker: A, tag: u32, channel: &str, question: Question) -> u16 {
        let is_for_all = matches!(question, Question::Channels { .. });
        let channel = Channel::from(if is_for_all { "" } else { channel });
        let mut asked = 0;
        for home in self.homes_of(&channel, is_for_all) {
            let inquiry = Inquiry {
                channel: Channel::clone(&channel),
                asker,
                tag,
                question: question.clone(),
            };
            self.post.send(home, Mail::Ask(inquiry));
            asked += 1;
        }
        asked
    }

    /// Whether a slot is subscribed to a channel, or waits for the answer.
    pub fn is_subscribed(&self, slot: u32, channel: &str) -> bool {
        self.subscribers.is_subscribed(slot, channel)
    }

    /// What a slot is subscribed to, or waits to be, with the marks; not the reserved channels.
    pub fn subscriptions(&self, slot: u32) -> impl Iterator<Item = (&Channel, u8)> {
        self.subscribers.of(slot)
    }

    /// The slots of this reactor that are subscribed to a channel; not those that wait to be.
    pub fn subscribers(&self, channel: &str) -> impl Iterator<Item = u32> {
        self.subscribers.to(channel)
    }

    /// Remembers a connection until there is room for publications to a channel. It must not wait
    /// twice.
    pub fn wait_for_room(&mut self, waiter: A, channel: &str) {
        let home = self.home_of(channel);
        self.post.wait(waiter, home);
    }

    /// A connection that has waited and for which there is room now. It may be gone by now.
    pub fn take_roomy(&mut self) -> Option<A> {
        self.post.take_roomy()
    }

    /// Whether somebody waits for room.
    #[inline]
    pub fn has_waiters(&self) -> bool {
        self.post.waiting > 0
    }

    /// How much mail waits for each reactor.
    pub fn gauges(&self) -> &Arc<MailBytes> {
        &self.post.mail_bytes
    }

    /// Deals with one mail to this reactor; what a connection must hear of it.
    pub fn receive(&mut self, mail: Mail<A>, now: Tick) -> Option<Told<A>> {
        // A publication is charged until its last subscriber has it.
        if !matches!(mail, Mail::Publication(_) | Mail::Pattern { .. }) {
            self.release(mail.cost());
        }
        let mut told = None;
        match mail {
            Mail::Subscribe(enrolment) => self.homes.subscribe(*enrolment, now, &mut self.post),
            Mail::Unsubscribe(withdrawal) => {
                self.homes.unsubscribe(withdrawal, now, &mut self.post);
            }
            Mail::Publish(draft) => {
                let dialect = usize::from(draft.dialect);
                if self.homes.publish(*draft, now, &mut self.post) {
                    self.block.publications[dialect].add(1);
                }
                let refused = self.homes.take_refused();
                self.block.publications_refused.add(refused);
            }
            Mail::Ask(inquiry) => self.homes.ask(inquiry, now, &mut self.post),
            Mail::Subscribed {
                channel,
                subscriber: to,
                ticket,
                tag,
                subscribed,
            } => {
                let answer = Answer::Subscribed(subscribed);
                let reply = Reply {
                    tag,
                    channel,
                    answer,
                };
                told = match self.subscribers.answered(ticket) {
                    Answered::Waiting => None,
                    Answered::Seated => Some(Told {
                        to,
                        reply: Some(reply),
                    }),
                    Answered::Cancelled(ended) => {
                        self.withdraw(to, ended);
                        Some(Told { to, reply: None })
                    }
                };
            }
            Mail::Reply { to, reply } => {
                told = Some(Told {
                    to,
                    reply: Some(reply),
                });
            }
            Mail::Publication(publication) => {
                let channel = Channel::clone(&publication.channel);
                self.subscribers.publish(&channel, publication);
                self.release(0);
            }
            Mail::Pattern {
                pattern,
                publication,
            } => {
                self.subscribers.publish(&pattern, publication);
                self.release(0);
            }
        }
        self.count();
        told
    }

    /// Gives up what has been kept for long enough, in at most about `budget` steps.
    pub fn expire(&mut self, now: Tick, budget: usize) {
        if self.next_expiry().is_some_and(|due| due <= now) {
            self.homes.expire(now, budget);
            self.count();
        }
    }

    /// When [`Share::expire`] has something to do.
    pub fn next_expiry(&self) -> Option<Tick> {
        self.homes.next_expiry()
    }

    /// A publication was dropped for this seat, which gets nothing more until
    /// [`Share::take_missed`].
    pub fn miss(&mut self, seat: &Seat) {
        self.subscribers.miss(seat);
    }

    /// The channels in which a slot has missed something. From now on it gets what comes.
    pub fn take_missed(&mut self, slot: u32) -> Vec<Channel> {
        self.subscribers.take_missed(slot)
    }

    /// The mail to other reactors since the last call, in order.
    pub fn take_outgoing(&mut self) -> impl Iterator<Item = (u16, Mail<A>)> {
        self.post.outgoing.drain(..)
    }

    #[inline]
    pub fn has_outgoing(&self) -> bool {
        !self.post.outgoing.is_empty()
    }

    #[inline]
    pub fn has_own(&self) -> bool {
        !self.post.own.is_empty()
    }

    /// The next mail of this reactor to itself.
    pub fn take_own(&mut self) -> Option<Mail<A>> {
        let mail = self.post.own.pop_front();
        if mail.is_none() {
            self.post.shrink();
        }
        mail
    }

    /// Whether there is something to do: own mail, or a delivery.
    pub fn is_busy(&self) -> bool {
        !self.post.own.is_empty() || self.subscribers.is_active()
    }

    /// How many channels have something to deliver.
    pub fn deliveries(&self) -> usize {
        self.subscribers.active()
    }

    /// What is to be delivered next. It must come back by [`Share::end_delivery`].
    pub fn begin_delivery(&mut self) -> Option<Delivery<A>> {
        self.subscribers.begin_delivery()
    }

    /// The next one to deliver to; it counts as served from then on.
    pub fn next_seat(&mut self, delivery: &Delivery<A>) -> Option<Seat> {
        self.subscribers.next_seat(delivery)
    }

    /// Puts a delivery back, finished or not.
    pub fn end_delivery(&mut self, delivery: Delivery<A>) {
        self.subscribers.end_delivery(delivery);
        self.release(0);
    }

    /// Bytes of data mail that wait for this reactor.
    pub fn mail_bytes(&self) -> u64 {
        self.post.mail_bytes.held(self.post.reactor)
    }

    #[cfg(test)]
    pub fn check_invariants(&self) {
        self.subscribers.check_invariants();
        self.homes.check_invariants();
    }

    /// Whether nothing is left of any channel.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.homes.is_empty()
    }

    /// The home of a channel to which something may be published now.
    fn admit(&self, channel: &str) -> Result<u16, PublishError> {
        if !self.limits.is_name(channel) {
            return Err(PublishError::Name);
        }
        let home = self.home_of(channel);
        if !self.post.admits(home) {
            self.block.publications_refused.add(1);
            return Err(PublishError::Busy);
        }
        Ok(home)
    }

    fn home_of(&self, channel: &str) -> u16 {
        home_of(channel, self.post.mail_bytes.reactors())
    }

    /// The home of a channel, or all of them.
    fn homes_of(&self, channel: &str, are_all: bool) -> std::ops::Range<u16> {
        if are_all {
            return 0..self.post.mail_bytes.reactors();
        }
        let home = self.home_of(channel);
        home..home + 1
    }

    /// Tells the homes of a subscription that it has ended.
    fn withdraw(&mut self, subscriber: A, ended: Ended) {
        for home in self.homes_of(&ended.channel, ended.is_pattern) {
            let withdrawal = Withdrawal {
                channel: Channel::clone(&ended.channel),
                subscriber,
                ticket: ended.ticket,
                watches: ended.watches,
                is_pattern: ended.is_pattern,
            };
            self.post.send(home, Mail::Unsubscribe(withdrawal));
        }
        self.release(0);
    }

    /// Gives back what a mail was charged, and what the subscribers are done with.
    fn release(&mut self, cost: u64) {
        let cost = cost + self.subscribers.take_released();
        self.post.mail_bytes.subtract(self.post.reactor, cost);
    }

    fn count(&self) {
        self.block.history_bytes.set(self.homes.history_bytes());
        self.block.channels.set(self.homes.followed() as u64);
        self.block.subscriptions.set(self.subscribers.len() as u64);
    }
}
