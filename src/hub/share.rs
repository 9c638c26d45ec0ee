//! `Share`: what one reactor does of the hub's work.

use std::{collections::VecDeque, sync::Arc};

use super::{
    Address, Channel, Mail, MailBytes, Payload, Publication, PublishError, Reply, SubscribeError,
    home::Homes,
    home_of, is_name,
    mail::Draft,
    subscribers::{Answered, Delivery, Left, Seat, Subscribers},
};
use crate::metrics::Block;

/// One reactor's share of the hub: the channels that live on it, and its own subscribers.
///
/// What it has to say to others is taken from it by [`Share::take_outgoing`], what it has to say
/// to itself by [`Share::take_own`]; both must come to [`Share::receive`] in order.
#[derive(Debug)]
pub struct Share<A> {
    homes: Homes,
    subscribers: Subscribers<A>,
    post: Post<A>,
    block: Arc<Block>,
}

/// What a reactor has to say.
#[derive(Debug)]
struct Post<A> {
    reactor: u16,
    outgoing: Vec<(u16, Mail<A>)>,
    own: VecDeque<Mail<A>>,
    mail_bytes: Arc<MailBytes>,
}

/// What a connection is to hear from a home.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer<A> {
    pub to: A,
    /// `None` when it has no use for the answer any more, but may have waited for it.
    pub reply: Option<Reply>,
}

impl<A: Address> Share<A> {
    /// The share of one of the reactors that `mail_bytes` is about; counts into `block`.
    pub fn new(reactor: u16, mail_bytes: Arc<MailBytes>, block: Arc<Block>) -> Self {
        Self {
            homes: Homes::default(),
            subscribers: Subscribers::default(),
            post: Post {
                reactor,
                outgoing: Vec::new(),
                own: VecDeque::new(),
                mail_bytes,
            },
            block,
        }
    }

    /// Asks the channel's home for a subscription.
    pub fn subscribe(&mut self, subscriber: A, channel: &str) -> Result<(), SubscribeError> {
        if !is_name(channel) {
            return Err(SubscribeError::Name);
        }
        let (channel, ticket) = self.subscribers.subscribe(subscriber.slot(), channel)?;
        let home = self.home_of(&channel);
        let mail = Mail::Subscribe {
            channel,
            subscriber,
            ticket,
        };
        self.post.send(home, mail);
        self.count();
        Ok(())
    }

    /// Ends a subscription at once; `false` when there was none.
    pub fn unsubscribe(&mut self, subscriber: A, channel: &str) -> bool {
        match self.subscribers.unsubscribe(subscriber.slot(), channel) {
            Left::Nothing => return false,
            Left::Later => {}
            Left::Now(channel) => self.lose_interest(channel),
        }
        self.count();
        true
    }

    /// Ends all subscriptions of a connection. Its slot may be given to another one then.
    pub fn leave(&mut self, slot: u32) {
        let before = self.subscribers.len();
        let mut gone = Vec::new();
        self.subscribers.leave(slot, |channel| gone.push(channel));
        for channel in gone {
            self.lose_interest(channel);
        }
        if before != self.subscribers.len() {
            self.count();
        }
    }

    /// Sends a publication to its channel's home; `dialect` is what it is counted under.
    pub fn publish(
        &mut self,
        publisher: A,
        dialect: u8,
        channel: &str,
        payload: impl FnOnce() -> Payload,
    ) -> Result<(), PublishError> {
        if !is_name(channel) {
            return Err(PublishError::Name);
        }
        let home = self.home_of(channel);
        // Its own mailbox too: the answer will come there.
        if self.post.is_full(home) || self.post.is_full(self.post.reactor) {
            return Err(PublishError::Busy);
        }
        let draft = Draft {
            channel: channel.into(),
            payload: payload(),
            publisher,
            dialect,
        };
        self.post.send(home, Mail::Publish(draft));
        Ok(())
    }

    /// Deals with one mail to this reactor; what a connection must hear of it.
    pub fn receive(&mut self, mail: Mail<A>) -> Option<Answer<A>> {
        // A publication is charged until its last subscriber has it.
        if !matches!(mail, Mail::Publication(_)) {
            self.release(mail.cost());
        }
        let answer = match mail {
            Mail::Subscribe {
                channel,
                subscriber,
                ticket,
            } => {
                let offset = self.homes.subscribe(&channel, subscriber.reactor());
                let mail = Mail::Subscribed {
                    channel,
                    offset,
                    subscriber,
                    ticket,
                };
                self.post.send(subscriber.reactor(), mail);
                None
            }
            Mail::Unsubscribe { channel, reactor } => {
                self.homes.unsubscribe(&channel, reactor);
                None
            }
            Mail::Publish(draft) => {
                self.order(draft);
                None
            }
            Mail::Subscribed {
                channel,
                offset,
                subscriber: to,
                ticket,
            } => {
                let reply = match self.subscribers.answered(ticket, offset) {
                    Answered::Seated => Some(Reply::Subscribed { channel, offset }),
                    Answered::Cancelled => {
                        self.lose_interest(channel);
                        None
                    }
                };
                Some(Answer { to, reply })
            }
            Mail::Reply { to, reply } => Some(Answer {
                to,
                reply: Some(reply),
            }),
            Mail::Publication(publication) => {
                self.subscribers.publish(publication);
                self.release(0);
                None
            }
        };
        self.count();
        answer
    }

    /// As the home: gives a publication its place and sends it to all who want it.
    fn order(&mut self, draft: Draft<A>) {
        let Draft {
            channel,
            payload,
            publisher,
            dialect,
        } = draft;
        let Self { homes, post, .. } = self;
        let is_full = |reactor| post.mail_bytes.is_overfull(reactor);
        let reply = match homes.publish(&channel, is_full) {
            None => Reply::Refused { channel },
            Some((offset, interest)) => {
                self.block.publications[usize::from(dialect)].add(1);
                let publication = Arc::new(Publication {
                    channel: Channel::clone(&channel),
                    offset,
                    payload,
                    publisher: Some(publisher),
                });
                for interested in interest {
                    let mail = Mail::Publication(Arc::clone(&publication));
                    post.send(interested.reactor, mail);
                }
                Reply::Published { channel, offset }
            }
        };
        let to = publisher;
        self.post.send(to.reactor(), Mail::Reply { to, reply });
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
        self.post.own.pop_front()
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
        self.subscribers.begin()
    }

    /// The next one to deliver to; it counts as served from then on.
    pub fn next_seat(&mut self, delivery: &Delivery<A>) -> Option<Seat> {
        self.subscribers.next(delivery)
    }

    /// Puts a delivery back, finished or not.
    pub fn end_delivery(&mut self, delivery: Delivery<A>) {
        self.subscribers.end(delivery);
        self.release(0);
    }

    /// Bytes of data mail that wait for this reactor.
    pub fn mail_bytes(&self) -> u64 {
        self.post.mail_bytes.held(self.post.reactor)
    }

    #[cfg(test)]
    pub fn check_invariants(&self) {
        self.subscribers.check_invariants();
    }

    fn home_of(&self, channel: &str) -> u16 {
        home_of(channel, self.post.mail_bytes.reactors())
    }

    fn lose_interest(&mut self, channel: Channel) {
        let home = self.home_of(&channel);
        let reactor = self.post.reactor;
        self.post.send(home, Mail::Unsubscribe { channel, reactor });
        self.release(0);
    }

    /// Gives back what a mail was charged, and what the subscribers are done with.
    fn release(&mut self, cost: u64) {
        let cost = cost + self.subscribers.take_released();
        self.post.mail_bytes.subtract(self.post.reactor, cost);
    }

    fn count(&self) {
        self.block.channels.set(self.homes.len() as u64);
        self.block.subscriptions.set(self.subscribers.len() as u64);
    }
}

impl<A> Post<A> {
    fn is_full(&self, reactor: u16) -> bool {
        self.mail_bytes.is_full(reactor)
    }

    fn send(&mut self, to: u16, mail: Mail<A>) {
        self.mail_bytes.add(to, mail.cost());
        if to == self.reactor {
            self.own.push_back(mail);
        } else {
            self.outgoing.push((to, mail));
        }
    }
}
