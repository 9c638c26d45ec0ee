//! Mail: what other threads ask, and what reactors say to each other about channels.

use super::{Core, Mail, Reactor, read::CORK_BYTES_MAX};
use crate::{
    connection::{Connection, Stage},
    handler::{ConnId, Handler, Heard, Order, Reply, ReplyKind},
    hub::{Address, Told},
    slots::Key,
};

/// Mails dealt with in one turn: so many rounds of so many from other threads and as many from this
/// reactor to itself, so that neither keeps the other waiting, and what belongs together mostly
/// stays together.
const ROUNDS_PER_TURN_MAX: usize = 128;
const MAILS_PER_ROUND_MAX: usize = 64;

impl<H: Handler> Reactor<H> {
    /// What other threads ask, and what this reactor asks of the channels that live on it.
    pub(super) fn mail(&mut self) {
        if std::mem::take(&mut self.mailed) {
            self.mailbox.open();
        }
        self.core.post();
        for _ in 0..ROUNDS_PER_TURN_MAX {
            if !self.core.hub.has_own() && self.mailbox.is_empty() {
                break;
            }
            for _ in 0..MAILS_PER_ROUND_MAX {
                let Some(mail) = self.core.hub.take_own() else {
                    break;
                };
                let told = self.core.hub.receive(mail, self.core.now);
                self.tell(told);
            }
            for _ in 0..MAILS_PER_ROUND_MAX {
                let Some(mail) = self.mailbox.pop() else {
                    break;
                };
                self.open_mail(mail);
            }
        }
        self.make_room();
        self.uncork_told();
        self.core.post();
    }

    fn open_mail(&mut self, mail: Mail) {
        if let Mail::Hub(mail) = mail {
            let told = self.core.hub.receive(mail, self.core.now);
            return self.tell(told);
        }
        self.uncork_told();
        match mail {
            Mail::Hub(_) => {}
            Mail::Socket(stream, remote, flags) => self.admit(stream, remote, flags),
            Mail::Revoked(revocation) => {
                self.core.sweep.get_or_insert_default().ask(revocation);
            }
            Mail::Certificates(certificates) => self.core.certificates = Some(certificates),
            Mail::Shutdown(shutdown) => self.begin_shutdown(shutdown),
            Mail::Order(order) => self.obey(order),
            Mail::Counted(asker, heard) => {
                self.visit(asker.key(), |core, key, connection| {
                    core.answered(heard, key, connection);
                });
            }
        }
    }

    /// A connection hears what a home has answered. What it says to several answers in a row leaves
    /// in one write: whoever asks for many channels at once is answered at once.
    fn tell(&mut self, told: Option<Told<ConnId>>) {
        let Some(Told { to, reply }) = told else {
            return;
        };
        if self.core.outbound.told != Some(to.key()) {
            self.uncork_told();
        }
        self.visit(to.key(), |core, key, connection| {
            match (reply, &connection.link.stage) {
                (Some(reply), Stage::Asking { .. }) => {
                    core.answered(Heard::Reply(reply), key, connection);
                }
                (reply, _) => core.replied(reply, key, connection),
            }
        });
    }

    /// Sends what the last connection that was told something has to say to it.
    fn uncork_told(&mut self) {
        if let Some(key) = self.core.outbound.told.take() {
            self.visit(key, Core::uncork_alone);
            // It may be gone: its words are nobody else's.
            self.core.cork.clear();
        }
    }

    /// Wakes those who wait to publish, as far as there is room.
    fn make_room(&mut self) {
        while let Some(waiter) = self.core.hub.take_roomy() {
            self.uncork_told();
            self.visit(waiter.key(), |core, key, connection| {
                let Connection {
                    link,
                    state: Some(state),
                } = connection
                else {
                    return;
                };
                link.resume();
                let (handler, mut peer) = core.introduce(key, link);
                if let Err(failure) = handler.room(&mut peer, state) {
                    core.failed(failure.text(), key, connection);
                }
                core.uncork_alone(key, connection);
            });
        }
    }
}

impl<H: Handler> Core<H> {
    /// Hands over what this reactor has to say to others.
    #[inline]
    pub(super) fn post(&mut self) {
        if self.hub.has_outgoing() || !self.outbound.orders.is_empty() {
            self.post_all();
        }
    }

    fn post_all(&mut self) {
        // All of it is put down before anybody is woken: what was published together is found, and
        // delivered, together.
        for (to, mail) in self.hub.take_outgoing() {
            self.reactors[usize::from(to)].put(Mail::Hub(mail));
            if !self.outbound.posted.contains(&to) {
                self.outbound.posted.push(to);
            }
        }
        for to in self.outbound.posted.drain(..) {
            self.reactors[usize::from(to)].notify();
        }
        for order in self.outbound.orders.drain(..) {
            match &order {
                Order::Tell(to, _) => {
                    self.reactors[usize::from(to.reactor())].send(Mail::Order(order));
                }
                Order::Everyone(_) | Order::Count(_) => {
                    for reactor in &self.reactors {
                        reactor.send(Mail::Order(order.clone()));
                    }
                }
            }
        }
    }

    /// The home of a channel has answered this connection.
    fn replied(&mut self, reply: Option<Reply>, key: Key, connection: &mut Connection<H::State>) {
        let Connection {
            link,
            state: Some(state),
        } = connection
        else {
            return;
        };
        link.resume();
        let Some(reply) = reply else { return };
        if let ReplyKind::Subscribed(subscribed) = &reply.answer
            && let Some(recovered) = subscribed.recovered
        {
            self.block.recoveries[usize::from(!recovered)].add(1);
        }
        self.outbound.told = Some(key);
        let (handler, mut peer) = self.introduce(key, link);
        if let Err(failure) = handler.reply(&mut peer, state, reply) {
            self.failed(failure.text(), key, connection);
        }
        if self.cork.len() >= CORK_BYTES_MAX {
            self.uncork_alone(key, connection);
        }
    }
}
