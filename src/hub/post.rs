//! `Post`: what a reactor has to say, and who waits until it may say more.

use std::{collections::VecDeque, sync::Arc};

use super::{Mail, MailBytes};

/// Mails that a queue has room for even when it is empty. What a great rush needed is given back.
const KEPT_MAX: usize = 4096;

/// Mails that there is always room for.
const MAILS_KEPT: usize = 4096;

/// A reactor's outgoing mail, to others and to itself, in order.
#[derive(Debug)]
pub struct Post<A> {
    pub reactor: u16,
    pub outgoing: Vec<(u16, Mail<A>)>,
    pub own: VecDeque<Mail<A>>,
    pub mail_bytes: Arc<MailBytes>,
    /// Who waits for room, by the home that they want to publish to.
    waiters: Vec<VecDeque<A>>,
    pub waiting: usize,
}

impl<A> Post<A> {
    pub fn new(reactor: u16, mail_bytes: Arc<MailBytes>) -> Self {
        Self {
            reactor,
            outgoing: Vec::new(),
            own: VecDeque::new(),
            waiters: (0..mail_bytes.reactors())
                .map(|_| VecDeque::new())
                .collect(),
            waiting: 0,
            mail_bytes,
        }
    }

    pub fn send(&mut self, to: u16, mail: Mail<A>) {
        self.mail_bytes.add(to, mail.cost());
        if to == self.reactor {
            if self.own.is_empty() {
                self.own.shrink_to(KEPT_MAX);
            }
            self.own.push_back(mail);
        } else {
            if self.outgoing.is_empty() {
                self.outgoing.shrink_to(KEPT_MAX);
            }
            self.outgoing.push((to, mail));
        }
    }

    /// Gives back what many who left at once have needed.
    pub fn shrink(&mut self) {
        if self.own.capacity() > MAILS_KEPT {
            self.own.shrink_to(MAILS_KEPT);
        }
        if self.outgoing.capacity() > MAILS_KEPT {
            self.outgoing.shrink_to(MAILS_KEPT);
        }
    }

    /// Whether something may be published that goes to `home`.
    pub fn admits(&self, home: u16) -> bool {
        // This reactor's mailbox too: the answer will come there.
        self.mail_bytes.admits(home) && self.mail_bytes.admits(self.reactor)
    }

    /// Remembers somebody until there is room at `home`.
    pub fn wait(&mut self, waiter: A, home: u16) {
        self.waiters[usize::from(home)].push_back(waiter);
        self.waiting += 1;
    }

    /// Somebody for whom there is room now, who is forgotten.
    pub fn take_roomy(&mut self) -> Option<A> {
        let mail_bytes = &self.mail_bytes;
        // Where the subscribers are is not known here. A reactor that makes homes refuse would do
        // so again, at once and as often as somebody is let try.
        let refuses = || (0..mail_bytes.reactors()).any(|reactor| mail_bytes.is_overfull(reactor));
        if self.waiting == 0 || !mail_bytes.admits(self.reactor) || refuses() {
            return None;
        }
        let queues = (0..).zip(&mut self.waiters);
        let waiter = queues
            .filter(|(home, _)| mail_bytes.admits(*home))
            .find_map(|(_, queue)| queue.pop_front())?;
        self.waiting -= 1;
        Some(waiter)
    }
}
