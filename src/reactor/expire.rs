//! What happens when nothing happens: handshakes that stall, peers to be pinged, peers that do not
//! answer. One lazy timer a connection; a look at it computes what is really due.

use super::{Core, Reactor};
use crate::{
    connection::{Connection, Flags, Link, Stage},
    handler::{CloseCode, Ending, Handler, Reason},
    metrics::{Timeout, TlsHandshake},
    protocol::{frame::Control, session::State},
    slots::Key,
    wheel::{TICK_MS, Tick},
};

/// Connections looked at in one turn: a look may be a ping, which costs as much as a send.
const LOOKS_PER_TURN_MAX: usize = 256;

/// Channels whose history is looked at in one turn.
const EXPIRIES_PER_TURN_MAX: usize = 1024;

/// How long a peer that was told goodbye may go on sending, and one that came when the server was
/// full may take for its request.
const LINGER: Tick = (1000 / TICK_MS) as Tick;

/// What our pings carry.
const HEARTBEAT: &[u8] = b"heartbeat";

/// What is due first for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Handshake,
    Message,
    Ping,
    Pong,
    Idle,
    Close,
    Linger,
    /// A request waits for what was asked of the homes of channels.
    Answer,
    /// The allowance is there again.
    Rate,
    Token,
    Application,
}

impl<H: Handler> Reactor<H> {
    /// Looks at the connections whose timer has come, or whose token counts no more.
    pub(super) fn expire(&mut self) {
        self.revoke();
        self.core.hub.expire(self.core.now, EXPIRIES_PER_TURN_MAX);
        self.core.wheel.advance(self.core.now);
        for _ in 0..LOOKS_PER_TURN_MAX {
            let Some(slot) = self.core.wheel.pop_due() else {
                return;
            };
            let Some(key) = self.connections.key_at(slot) else {
                continue;
            };
            self.visit(key, |core, key, connection| {
                if let Some((at, due)) = core.due(key, &mut connection.link)
                    && at <= core.now
                {
                    core.act(due, key, connection);
                }
                if !connection.link.is_dead() {
                    core.rearm(key, &mut connection.link);
                }
            });
        }
    }
}

impl<H: Handler> Core<H> {
    /// Sets the timer of a connection to what is due for it first.
    pub(super) fn rearm(&mut self, key: Key, link: &mut Link) {
        match self.due(key, link) {
            Some((at, _)) => self.wheel.set(key.slot, at),
            None => self.wheel.cancel(key.slot),
        }
    }

    /// The earliest deadline of a connection.
    fn due(&mut self, key: Key, link: &mut Link) -> Option<(Tick, Due)> {
        let settings = &self.settings;
        let Link {
            stage,
            flags,
            shed,
            since,
            last_seen,
            deadline,
            ..
        } = link;
        let session = match stage {
            Stage::Dead => return None,
            Stage::Lingering { .. } => return Some((*since + LINGER, Due::Linger)),
            _ if flags.has(Flags::FINISHING) => {
                return Some((*since + settings.close_timeout, Due::Close));
            }
            Stage::Preamble | Stage::Http(_) if shed.is_some() => {
                return Some((*since + LINGER, Due::Handshake));
            }
            Stage::Preamble | Stage::Http(_) => {
                return Some((*since + settings.handshake_timeout, Due::Handshake));
            }
            Stage::Asking { .. } => {
                return Some((*since + settings.handshake_timeout, Due::Answer));
            }
            Stage::Open(session) if session.state() != State::Open => {
                return Some((*since + settings.close_timeout, Due::Close));
            }
            Stage::Open(session) => session,
        };
        // What waits because we do not read is not the peer's delay, nor is an unread pong.
        let reading = !flags.has(Flags::PAUSED | Flags::SUSPENDED | Flags::RATED);
        // A ping that was answered leaves `since` as it is: the next one keeps its phase.
        let heartbeat = match (settings.ping_interval, flags.has(Flags::PINGED)) {
            (0, _) => None,
            _ if !reading => None,
            (interval, false) => Some((*since + interval, Due::Ping)),
            (_, true) => Some((*since + settings.pong_timeout, Due::Pong)),
        };
        let idle = (reading && settings.idle_timeout > 0)
            .then_some((last_seen.saturating_add(settings.idle_timeout), Due::Idle));
        let message = session
            .message_since(self.now)
            .filter(|_| reading && settings.message_timeout > 0)
            .map(|since| (since + settings.message_timeout, Due::Message));
        let application = (*deadline > 0).then_some((*deadline, Due::Application));
        let rate = (settings.rates.as_ref())
            .filter(|_| flags.has(Flags::RATED))
            .zip(self.visitors.level(key.slot))
            .map(|(rates, level)| (*last_seen + rates.ticks_until_under(level), Due::Rate));
        let expires = self.visitors.expires(key.slot);
        let token = (expires > 0).then_some((expires, Due::Token));
        [heartbeat, idle, message, application, rate, token]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }

    fn act(&mut self, due: Due, key: Key, connection: &mut Connection<H::State>) {
        match due {
            Due::Ping => self.ping(key, connection),
            Due::Application => self.wake_application(key, connection),
            Due::Linger => self.bury(key, connection),
            Due::Rate => self.resume_rate(key, &mut connection.link),
            Due::Handshake => self.handshake_expired(key, connection),
            Due::Answer => self.answer_expired(key, connection),
            Due::Pong => {
                self.block.timeout(Timeout::Pong);
                self.bury(key, connection);
            }
            Due::Close => {
                self.block.timeout(Timeout::Close);
                connection.link.transport.abandon();
                self.bury(key, connection);
            }
            Due::Idle => {
                self.block.timeout(Timeout::Idle);
                self.expel(key, connection, CloseCode::Away, "idle timeout");
            }
            Due::Token => {
                self.block.timeout(Timeout::Token);
                let usual = (CloseCode::Policy, "token expired");
                self.dismiss_peer(Ending::TokenExpired, usual, key, connection);
            }
            Due::Message => {
                self.block.timeout(Timeout::Message);
                self.expel(key, connection, CloseCode::Policy, "message timeout");
            }
        }
    }

    fn ping(&mut self, key: Key, connection: &mut Connection<H::State>) {
        let link = &mut connection.link;
        link.since = self.now;
        link.flags.set(Flags::PINGED);
        self.cork.control(Control::Ping, HEARTBEAT);
        self.uncork_alone(key, connection);
    }

    /// A request that did not come in time is told so; a connection kept alive between two
    /// requests just ends.
    fn handshake_expired(&mut self, key: Key, connection: &mut Connection<H::State>) {
        let is_between = matches!(connection.link.stage, Stage::Http(None))
            && connection.link.flags.has(Flags::ANSWERED);
        if connection.link.flags.has(Flags::HANDSHAKING) {
            self.block.timeout(Timeout::Handshake);
            self.handshake_ended(&mut connection.link, TlsHandshake::Timeout);
            return self.bury(key, connection);
        }
        if matches!(connection.link.stage, Stage::Preamble) {
            self.block.timeout(Timeout::Handshake);
            return self.bury(key, connection);
        }
        if is_between {
            let transport = &mut connection.link.transport;
            transport.close_notify(self.cork.seal());
            return self.bury(key, connection);
        }
        self.block.timeout(Timeout::Handshake);
        self.refuse(Reason::HandshakeTimeout.into(), key, connection);
    }

    fn wake_application(&mut self, key: Key, connection: &mut Connection<H::State>) {
        let Connection {
            link,
            state: Some(state),
        } = connection
        else {
            return;
        };
        link.deadline = 0;
        let (handler, mut peer) = self.introduce(key, link);
        if let Err(failure) = handler.deadline(&mut peer, state) {
            self.failed(failure.text(), key, connection);
        }
        self.uncork_alone(key, connection);
    }
}
