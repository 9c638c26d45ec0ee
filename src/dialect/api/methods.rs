//! The methods: what each reads in its body, asks for, and what it waits for then.

use std::borrow::Cow;

use super::{
    body::{Body, Field},
    call::{Begun, Waiting},
    fault::{Code, Fault},
    publish,
    stats::Stats,
    tell,
};
use crate::{
    config::Config,
    dialect::native::reply::epoch,
    gate::channel::{Action, Asker, Via},
    handler::{Caller, Heard, Position, Question},
};

macro_rules! methods {
    ($($method:ident $name:literal)*) => {
        /// A method, by the name in its path.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Method { $($method),* }

        impl Method {
            pub fn name(self) -> &'static str {
                match self { $(Self::$method => $name),* }
            }

            pub fn named(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$method),)*
                    _ => None,
                }
            }
        }
    };
}

methods! {
    Publish "publish"
    Broadcast "broadcast"
    Subscribe "subscribe"
    Unsubscribe "unsubscribe"
    Disconnect "disconnect"
    Refresh "refresh"
    Presence "presence"
    PresenceStats "presence_stats"
    History "history"
    HistoryRemove "history_remove"
    Channels "channels"
    Info "info"
    Send "send"
    BroadcastAll "broadcast_all"
    Connections "connections"
    Stats "stats"
}

impl Method {
    /// Whether it only looks, and so may be asked for with GET.
    pub fn is_safe(self) -> bool {
        matches!(self, Self::Connections | Self::Stats)
    }
}

/// What the methods know of the server that they are answered on.
#[derive(Debug)]
pub struct Methods {
    channel_name_bytes_max: usize,
    /// Channels of one broadcast, or of all in one batch.
    pub channels_max: usize,
    stats: Stats,
}

/// Which answers belong to what: the call, the command in it and the channel of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    pub serial: u8,
    pub command: u16,
    pub item: u16,
}

impl Methods {
    pub fn new(config: &Config, stats: Stats, answer_bytes_max: usize) -> Self {
        Self {
            channel_name_bytes_max: config.channel_name_bytes_max,
            channels_max: CHANNELS_MAX.min(answer_bytes_max / RESPONSE_BYTES),
            stats,
        }
    }

    /// Does what can be done at once. `channels_left` is how many channels may be broadcast to.
    pub fn begin(
        &self,
        method: Method,
        caller: &mut Caller<'_>,
        body: &Body<'_>,
        tag: Tag,
        channels_left: &mut usize,
    ) -> Result<Begun, Fault> {
        match method {
            Method::Publish => publish::one(caller, body, tag),
            Method::Broadcast => publish::many(caller, body, tag, channels_left),
            Method::Subscribe => {
                let channel = self.channel(caller, body, Action::Subscribe)?;
                tell::subscribe(caller, body, &channel)
            }
            Method::Unsubscribe => {
                let channel = self.channel(caller, body, Action::Subscribe)?;
                tell::unsubscribe(caller, body, &channel)
            }
            Method::Disconnect => tell::disconnect(caller, body),
            Method::Refresh => tell::refresh(caller, body),
            Method::Presence => self.ask(caller, body, Action::Presence, Question::Presence, tag),
            Method::PresenceStats => {
                self.ask(caller, body, Action::Presence, Question::PresenceStats, tag)
            }
            Method::History => self.history(caller, body, tag),
            Method::HistoryRemove => {
                self.ask(caller, body, Action::History, Question::RemoveHistory, tag)
            }
            Method::Channels => channels(caller, body, tag),
            Method::Info => Ok(Begun::Done(self.stats.info())),
            Method::Send => tell::send(caller, body),
            Method::BroadcastAll => tell::everyone(caller, body),
            Method::Connections => connections(caller, body, tag),
            Method::Stats => Ok(Begun::Done(self.stats.all(caller.reactors()))),
        }
    }

    /// Asks one question of one home.
    fn ask(
        &self,
        caller: &mut Caller<'_>,
        body: &Body<'_>,
        action: Action,
        question: Question,
        tag: Tag,
    ) -> Result<Begun, Fault> {
        let channel = self.channel(caller, body, action)?;
        caller.ask(tag.number(), &channel, question);
        Ok(Begun::Waits(Waiting::Home(None)))
    }

    fn history(&self, caller: &mut Caller<'_>, body: &Body<'_>, tag: Tag) -> Result<Begun, Fault> {
        let channel = self.channel(caller, body, Action::History)?;
        let is_reverse = body.flag(Field::Reverse)?;
        let limit = match body.integer(Field::Limit)?.unwrap_or(0) {
            -1 => None,
            limit => Some(u32::try_from(limit).map_err(|_| Fault::field("limit", LIMIT))?),
        };
        let question = Question::History {
            since: body.object(Field::Since)?.map(position).transpose()?,
            limit,
            is_reverse,
        };
        caller.ask(tag.number(), &channel, question);
        Ok(Begun::Waits(Waiting::Home(None)))
    }

    /// The channel that a body names, if a server may do this with it.
    fn channel<'a>(
        &self,
        caller: &Caller<'_>,
        body: &Body<'a>,
        action: Action,
    ) -> Result<Cow<'a, str>, Fault> {
        let channel = body.needed_text(Field::Channel)?;
        if channel.len() > self.channel_name_bytes_max {
            let expected = format!("a name of at most {} bytes", self.channel_name_bytes_max);
            return Err(Fault::field("channel", &expected));
        }
        permit(caller, action, &channel)?;
        Ok(channel)
    }
}

impl Tag {
    pub fn of(heard: &Heard) -> Self {
        let number = match heard {
            Heard::Reply(reply) => reply.tag,
            Heard::Residents { tag, .. } => *tag,
        };
        Self {
            serial: (number >> 24) as u8,
            command: (number >> ITEM_BITS) as u16 & COMMAND_MASK,
            item: number as u16 & ITEM_MASK,
        }
    }

    pub fn number(self) -> u32 {
        let command = u32::from(self.command & COMMAND_MASK) << ITEM_BITS;
        u32::from(self.serial) << 24 | command | u32::from(self.item & ITEM_MASK)
    }
}

/// A place in a stream; without an epoch, in whichever stream there is.
pub fn position(body: Body<'_>) -> Result<Position, Fault> {
    Ok(Position {
        offset: body.count(Field::Offset)?.unwrap_or(0),
        epoch: epoch(&body.text(Field::Epoch)?.unwrap_or_default()),
    })
}

/// Whether a server may do this with a channel.
pub fn permit(caller: &Caller<'_>, action: Action, channel: &str) -> Result<(), Fault> {
    let asker = Asker {
        via: Via::Api,
        user: None,
        is_proven: false,
        is_subscribed: false,
    };
    caller.namespaces().permit(&asker, action, channel)?;
    Ok(())
}

fn channels(caller: &mut Caller<'_>, body: &Body<'_>, tag: Tag) -> Result<Begun, Fault> {
    let question = Question::Channels {
        pattern: body.given_text(Field::Pattern)?.map(Into::into),
        limit: CHANNELS_MAX as u32,
    };
    let left = caller.ask(tag.number(), "", question);
    Ok(Begun::Waits(Waiting::Channels {
        found: Vec::new(),
        is_cut: false,
        left,
    }))
}

fn connections(caller: &mut Caller<'_>, body: &Body<'_>, tag: Tag) -> Result<Begun, Fault> {
    if body.given_text(Field::Expression)?.is_some() {
        let detail = "expression: connections are looked for by user alone";
        return Err(Fault::new(Code::NotAvailable, detail));
    }
    let user = body.given_text(Field::User)?;
    let limit = match body.count(Field::Limit)? {
        None | Some(0) => CONNECTIONS_SHOWN,
        Some(limit) => u32::try_from(limit)
            .ok()
            .filter(|limit| *limit <= CONNECTIONS_SHOWN_MAX)
            .ok_or_else(|| Fault::field("limit", "at most 1000"))?,
    };
    // One more, to know whether there are more.
    let left = caller.residents(tag.number(), user.as_deref(), limit + 1);
    Ok(Begun::Waits(Waiting::Connections {
        found: Vec::new(),
        limit: limit as usize,
        left,
    }))
}

/// Channels of one broadcast, clients of one whitelist, and channels that one answer shows.
pub const CHANNELS_MAX: usize = 8000;

/// What the response for one channel of a broadcast takes at the most.
const RESPONSE_BYTES: usize = 120;

const CONNECTIONS_SHOWN: u32 = 100;
const CONNECTIONS_SHOWN_MAX: u32 = 1000;
const ITEM_BITS: u32 = 14;
const ITEM_MASK: u16 = (1 << ITEM_BITS) - 1;
const COMMAND_MASK: u16 = (1 << 10) - 1;
const LIMIT: &str = "a number of publications, or -1 for all";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::Resident;

    #[test]
    fn a_tag_comes_back_as_it_was() {
        let command = COMMAND_MASK;
        for tag in [
            Tag {
                serial: 0,
                command: 0,
                item: 0,
            },
            Tag {
                serial: 255,
                command,
                item: 0,
            },
            Tag {
                serial: 1,
                command: 1,
                item: 9_999,
            },
            Tag {
                serial: 128,
                command: 999,
                item: ITEM_MASK,
            },
        ] {
            let heard = Heard::Residents {
                tag: tag.number(),
                residents: Vec::<Resident>::new(),
            };
            assert_eq!(Tag::of(&heard), tag);
        }
        assert!(CHANNELS_MAX <= usize::from(ITEM_MASK));
    }
}
