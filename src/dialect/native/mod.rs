//! The native protocol: the Centrifugo client protocol in JSON, which its SDKs speak.
//!
//! A text frame has one or more commands, one a line; each is answered by a reply with its number,
//! and what is published comes as pushes, which have none. Commands are dealt with strictly in the
//! order in which they came: SDKs send the first one, which says who they are, in one frame with
//! all their subscriptions. Questions to the homes of channels may be under way at the same time;
//! the replies leave in the order of the commands all the same, and what is published in a channel
//! leaves behind the reply by which the client is subscribed.
//! What must be waited for (the subscriptions that a token brings, room for a publication, too
//! many questions) holds back the commands behind it, and the peer is not read meanwhile.
//!
//! - `command` reads what a client says, `reply` and `push` write what it hears, `json` neither
//!   parses nor copies more than it must;
//! - `token` is what tokens say beside the user, `state` what is remembered of a connection;
//! - `call` goes through commands and answers; `connect`, `subscribe`, `ask` and `server` are what
//!   it does about them.
//!
//! Left out: the protobuf form, delta compression, tag filters, channel compaction, map and
//! shared-poll subscriptions. Clients ask for these and go on without.

mod ask;
mod call;
mod command;
mod connect;
pub mod json;
mod push;
pub mod reply;
mod server;
mod state;
mod subscribe;
mod token;

use std::time::Duration;

pub use self::state::State;
use self::{
    call::Call,
    reply::{Disconnect, Replies},
    token::Grant,
};
use crate::{
    config::Config,
    connection::Flags,
    handler::{
        Channel, CloseCode, Command, Ending, Failure, Frame, Incoming, Message, Namespace,
        Namespaces, Peer, Publication, Reply,
    },
    wheel::{TICK_MS, Tick},
};

/// The native protocol, for all connections of one reactor.
#[derive(Debug)]
pub struct Native {
    settings: Settings,
    /// Where frames for many are written.
    scratch: String,
    /// As the gate has them, once there was a peer to learn it from.
    namespaces: Option<Namespaces>,
}

/// What holds for all connections.
#[derive(Debug)]
struct Settings {
    /// What clients are told: they expect a ping at least as often. 0: none.
    ping_seconds: u64,
    /// When one is really sent, after the last one was answered: a bit earlier, so that the pong
    /// comes before the reactor thinks of pings of its own.
    ping_ticks: Tick,
    pong_ticks: Tick,
    /// For how long after its end a connection or subscription is still good: SDKs ask for a new
    /// token when the old one has expired.
    grace_seconds: i64,
    /// Keys of tokens are fetched: one that is not known yet may be known soon.
    fetches_keys: bool,
    commands_max: usize,
    rest_bytes_max: usize,
    /// An answer that would let more wait for a client than this is not given.
    waiting_bytes_max: usize,
    channel_name_bytes_max: usize,
    /// Publications that a history has at most.
    recovery_max: u32,
}

impl Native {
    pub fn new(config: &Config) -> Self {
        let interval = config.ping_interval.unwrap_or_default();
        let leeway = i64::try_from(config.token_leeway.as_secs()).unwrap_or(i64::MAX / 4);
        let settings = Settings {
            ping_seconds: interval.as_millis().div_ceil(1000) as u64,
            ping_ticks: ticks(interval * 9 / 10),
            pong_ticks: ticks(config.pong_timeout),
            grace_seconds: leeway.max(GRACE_SECONDS),
            fetches_keys: config.token_jwks_url.is_some(),
            commands_max: COMMANDS_LEAST + 2 * config.subscriptions_max,
            rest_bytes_max: 4 * config.message_bytes_max,
            waiting_bytes_max: config.outbox_bytes_hard() / 4 * 3,
            channel_name_bytes_max: config.channel_name_bytes_max,
            recovery_max: u32::try_from(config.recovery_max.unwrap_or(usize::MAX))
                .unwrap_or(u32::MAX),
        };
        Self {
            settings,
            scratch: String::new(),
            namespaces: None,
        }
    }

    /// What is remembered from the upgrade on.
    pub fn upgrade(&self, incoming: &Incoming<'_>) -> State {
        let mut state = State::default();
        let query = incoming.request.query().unwrap_or_default();
        // Then the client wants pings as RFC 6455 has them, which the reactor sends anyway.
        let by_frames = query.split('&').any(|pair| pair == FRAME_PINGS);
        state.is_pinged = self.settings.ping_seconds > 0 && !by_frames;
        // A claim of a wrong type is found out about when the client connects.
        state.work().grant = incoming.claims().map(Grant::read);
        state.tidy();
        state
    }

    pub fn open(&mut self, peer: &mut Peer<'_>, state: &mut State) -> Result<(), Failure> {
        self.namespaces
            .get_or_insert_with(|| peer.namespaces().clone());
        let wait = Duration::from_secs(CONNECT_SECONDS);
        state.due = peer.now + ticks(wait);
        peer.deadline(wait);
        Ok(())
    }

    pub fn message(
        &mut self,
        peer: &mut Peer<'_>,
        message: Message<'_>,
        state: &mut State,
    ) -> Result<(), Failure> {
        match message {
            Message::Text(text) => self.call(peer, state).receive(text),
            // Protobuf, which was not agreed on: to come again would not help.
            Message::Binary(_) => {
                Disconnect::bad_request("bad request: binary frame, JSON is spoken here")
                    .close(peer);
            }
        }
        Ok(())
    }

    pub fn reply(
        &mut self,
        peer: &mut Peer<'_>,
        reply: Reply,
        state: &mut State,
    ) -> Result<(), Failure> {
        self.call(peer, state).answered(reply);
        Ok(())
    }

    /// There is room for the publication that the commands stopped at.
    pub fn room(&mut self, peer: &mut Peer<'_>, state: &mut State) -> Result<(), Failure> {
        state.awaits_room = false;
        peer.resume();
        self.call(peer, state).go_on();
        Ok(())
    }

    pub fn command(
        &mut self,
        peer: &mut Peer<'_>,
        command: &Command,
        state: &mut State,
    ) -> Result<(), Failure> {
        let mut call = self.call(peer, state);
        call.obey(command);
        call.queue(0);
        call.finish();
        Ok(())
    }

    pub fn missed(
        &mut self,
        peer: &mut Peer<'_>,
        channel: &Channel,
        state: &mut State,
    ) -> Result<(), Failure> {
        let mut call = self.call(peer, state);
        call.missed(channel);
        call.queue(0);
        call.finish();
        Ok(())
    }

    /// A ping or its pong is due, a subscription expires, or the first command has not come.
    pub fn deadline(&mut self, peer: &mut Peer<'_>, state: &mut State) -> Result<(), Failure> {
        let mut call = self.call(peer, state);
        call.expire();
        call.queue(0);
        if std::mem::take(&mut call.state.awaits_drain) {
            call.go_on();
        }
        call.finish();
        if state.due != 0 && peer.now >= state.due {
            match (state.is_connected, state.awaits_pong) {
                (false, _) => return done(Disconnect::STALE, peer),
                (true, false) => {
                    peer.send_text("{}");
                    state.awaits_pong = true;
                    state.due = peer.now + self.settings.pong_ticks;
                }
                // A pong that we have not read is not late.
                (true, true) if !is_read(peer) => state.due = peer.now + self.settings.pong_ticks,
                (true, true) => return done(Disconnect::NO_PONG, peer),
            }
        }
        self.call(peer, state).arm();
        Ok(())
    }

    /// Makes the frame of what was published, for all who are subscribed to this channel.
    pub fn encode(&mut self, publication: &Publication, channel: &str) -> Option<Frame> {
        self.scratch.clear();
        if self.scratch.capacity() > SCRATCH_BYTES_MAX {
            self.scratch = String::new();
        }
        let namespaces = self.namespaces.as_ref();
        let namespace = namespaces.and_then(|namespaces| namespaces.of(&publication.channel));
        let has_stream = namespace.is_some_and(Namespace::keeps_history);
        push::push_published(&mut self.scratch, publication, channel, has_stream)
            .then(|| Frame::new(Message::Text(&self.scratch)))
    }

    fn call<'c, 'p>(&'c self, peer: &'c mut Peer<'p>, state: &'c mut State) -> Call<'c, 'p> {
        Call {
            settings: &self.settings,
            peer,
            state,
            replies: Replies::default(),
        }
    }
}

/// With what code and reason a connection is told that the server ends it by itself.
pub fn farewell(ending: Ending) -> (CloseCode, &'static str) {
    let Disconnect { code, reason } = match ending {
        Ending::Shutdown => Disconnect::SHUTDOWN,
        // It comes back, and is told to get a new token.
        Ending::TokenExpired => Disconnect::EXPIRED,
        Ending::TokenRevoked => Disconnect::INVALID_TOKEN,
    };
    (code.into(), reason)
}

fn done(disconnect: Disconnect, peer: &mut Peer<'_>) -> Result<(), Failure> {
    disconnect.close(peer);
    Ok(())
}

/// Whether what the peer sends is read now.
fn is_read(peer: &Peer<'_>) -> bool {
    let flags = Flags::PAUSED | Flags::SUSPENDED | Flags::RATED;
    !peer.link.flags.has(flags)
}

fn ticks(duration: Duration) -> Tick {
    let ticks = duration.as_millis().div_ceil(u128::from(TICK_MS));
    // A quarter of what there is, so that adding to the present does not overflow.
    Tick::try_from(ticks)
        .unwrap_or(Tick::MAX)
        .min(Tick::MAX / 4)
}

/// In the query of the upgrade.
const FRAME_PINGS: &str = "cf_ws_frame_ping_pong=true";

/// Within which the first command must come.
const CONNECT_SECONDS: u64 = 10;

/// At least so long a connection or subscription outlives its end, for a new token to come.
const GRACE_SECONDS: i64 = 5;

/// Commands of one frame beside two for each subscription.
const COMMANDS_LEAST: usize = 256;

/// What a large publication leaves behind.
const SCRATCH_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_come_before_they_are_missed() {
        let native = |interval| {
            let ping_interval = interval;
            Native::new(&Config {
                ping_interval,
                ..Config::default()
            })
        };
        let settings = native(Some(Duration::from_secs(25))).settings;
        assert_eq!((settings.ping_seconds, settings.ping_ticks), (25, 225));
        let settings = native(Some(Duration::from_millis(300))).settings;
        assert_eq!((settings.ping_seconds, settings.ping_ticks), (1, 3));
        assert_eq!(native(None).settings.ping_seconds, 0);
    }

    #[test]
    fn endings_have_codes_of_the_protocol_and_reasons() {
        for (ending, code) in [
            (Ending::Shutdown, 3001),
            (Ending::TokenExpired, 3005),
            (Ending::TokenRevoked, 3500),
        ] {
            let (close_code, reason) = farewell(ending);
            assert_eq!(u16::from(close_code), code);
            assert!(!reason.is_empty());
        }
    }
}
