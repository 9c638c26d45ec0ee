//! Mail: what other threads ask, and what reactors say to each other about channels.

use super::{Core, Mail, Reactor};
use crate::{
    connection::Connection,
    handler::{ConnId, Handler, Reply},
    hub,
    slots::Key,
};

/// Mails dealt with in one turn, from other threads and as many from this reactor to itself.
const MAILS_PER_TURN_MAX: usize = 8192;

impl<H: Handler> Reactor<H> {
    /// What other threads ask, and what this reactor asks of the channels that live on it.
    pub(super) fn mail(&mut self) {
        if std::mem::take(&mut self.mailed) {
            self.mailbox.open();
        }
        self.post();
        if !self.core.hub.has_own() && self.mailbox.is_empty() {
            return;
        }
        for _ in 0..MAILS_PER_TURN_MAX {
            // One of each, so that neither keeps the other waiting.
            let (own, other) = (self.core.hub.take_own(), self.mailbox.pop());
            if own.is_none() && other.is_none() {
                break;
            }
            if let Some(mail) = own {
                self.receive_mail(mail);
            }
            match other {
                Some(Mail::Hub(mail)) => self.receive_mail(mail),
                Some(Mail::Socket(stream, remote, flags)) => self.admit(stream, remote, flags),
                Some(Mail::Revoked(revocation)) => {
                    self.core.sweep.get_or_insert_default().ask(revocation);
                }
                Some(Mail::Certificates(certificates)) => {
                    self.core.certificates = Some(certificates);
                }
                Some(Mail::Shutdown(shutdown)) => self.begin_shutdown(shutdown),
                None => {}
            }
        }
        self.post();
    }

    /// Hands over what this reactor has to say to others.
    #[inline]
    pub(super) fn post(&mut self) {
        if !self.core.hub.has_outgoing() {
            return;
        }
        for (to, mail) in self.core.hub.take_outgoing() {
            self.reactors[usize::from(to)].send(Mail::Hub(mail));
        }
    }

    fn receive_mail(&mut self, mail: hub::Mail<ConnId>) {
        if let Some(hub::Answer { to, reply }) = self.core.hub.receive(mail) {
            self.visit(to.key(), |core, key, connection| {
                core.answered(reply, key, connection);
            });
        }
    }
}

impl<H: Handler> Core<H> {
    /// The home of a channel has answered this connection.
    fn answered(&mut self, reply: Option<Reply>, key: Key, connection: &mut Connection<H::State>) {
        let Connection {
            link,
            state: Some(state),
        } = connection
        else {
            return;
        };
        link.resume();
        let Some(reply) = reply else { return };
        let (handler, mut peer) = self.introduce(key, link);
        if let Err(failure) = handler.reply(&mut peer, state, reply) {
            self.failed(failure.text(), key, connection);
        }
        self.uncork_alone(key, connection);
    }
}
