//! Subscriptions: wished for, begun, recovered, ended.

use std::sync::Arc;

use super::{
    call::{Call, Flow},
    command::{REJECT_UNRECOVERED, Refresh, Subscribe},
    push::{push_head, push_unsubscribed},
    reply::{self, Disconnect, Fault, Object, Replies, Unsubscribed, push_publication},
    state::{self, By, Wanted},
    token::{Mismatch, Pass},
};
use crate::{
    gate::channel::{Action, Asker, Via},
    handler::{
        ConnId, Member, Position, Publication, Subscribe as Request, SubscribeError, TokenError,
    },
    hub::Subscribed,
    sys,
};

/// A subscription that is wished for, and permitted.
#[derive(Debug)]
pub struct Wish<'w> {
    pub channel: &'w str,
    pub by: By,
    /// The offset and epoch behind which something may have been missed.
    pub since: Option<(u64, &'w str)>,
    pub is_recoverable: bool,
    pub is_positioned: bool,
    pub wants_events: bool,
    pub rejects_gap: bool,
}

impl<'w> Wish<'w> {
    /// One that a server has, which gets whatever the channel keeps.
    pub fn new(channel: &'w str, by: By) -> Self {
        Self {
            channel,
            by,
            since: None,
            is_recoverable: true,
            is_positioned: true,
            wants_events: false,
            rejects_gap: false,
        }
    }
}

impl Call<'_, '_> {
    pub fn subscribe(&mut self, id: u32, request: &Subscribe<'_>) -> Result<Flow, Fault> {
        let channel = &*request.channel;
        self.check_name(channel)?;
        // Without them it would get other publications than it wants.
        if request.tf.is_some() {
            return Err(Fault::BadRequest);
        }
        if request.kind != 0 {
            return Err(Fault::NotAvailable);
        }
        if self.peer.is_subscribed(channel) {
            return Err(Fault::AlreadySubscribed);
        }
        if request.recover && self.is_loaded() {
            return Ok(Flow::Again);
        }
        let pass = match &*request.token {
            "" => None,
            token => Some(self.pass(token, channel)?),
        };
        self.may_subscribe(channel, pass.is_some())?;
        if let Some(pass) = pass {
            self.state.set_pass(pass);
        }
        let wish = Wish {
            channel,
            by: By::Client,
            since: request.recover.then(|| (request.offset, &*request.epoch)),
            is_recoverable: request.recoverable || request.recover,
            is_positioned: request.positioned,
            wants_events: request.join_leave,
            rejects_gap: request.flag & REJECT_UNRECOVERED != 0,
        };
        self.wish(id, wish).map_err(|error| {
            self.state.forget_pass(channel);
            match error {
                SubscribeError::Already => Fault::AlreadySubscribed,
                SubscribeError::TooMany => Fault::LimitExceeded,
                SubscribeError::Name => Fault::BadRequest,
            }
        })?;
        Ok(Flow::Next)
    }

    /// Verifies a token that was shown for a channel.
    fn pass(&self, token: &str, channel: &str) -> Result<Pass, Fault> {
        let claims = self.peer.verify(token).map_err(|error| match error {
            TokenError::Expired => Fault::TokenExpired,
            TokenError::UnknownKey | TokenError::NoKeys if self.settings.fetches_keys => {
                Fault::Internal
            }
            _ => Fault::PermissionDenied,
        })?;
        Pass::read(&claims, channel, self.user()).map_err(|Mismatch| Fault::PermissionDenied)
    }

    pub fn check_name(&self, channel: &str) -> Result<(), Fault> {
        let is_name = (1..=self.settings.channel_name_bytes_max).contains(&channel.len())
            && !channel.contains(char::is_control);
        is_name.then_some(()).ok_or(Fault::BadRequest)
    }

    /// Whether the namespace lets the client do this.
    pub fn may(&self, action: Action, channel: &str, is_proven: bool) -> Result<(), Fault> {
        let asker = Asker {
            via: Via::Native,
            user: Some(self.user()),
            is_proven,
            is_subscribed: action != Action::Subscribe && self.peer.is_subscribed(channel),
        };
        let permit = self.peer.namespaces().permit(&asker, action, channel);
        permit.map_err(Fault::from)
    }

    pub fn may_subscribe(&self, channel: &str, is_proven: bool) -> Result<(), Fault> {
        self.may(Action::Subscribe, channel, is_proven)
    }

    /// Asks the channel's home for a subscription. The answer goes on with [`Call::subscribed`].
    pub fn wish(&mut self, id: u32, wish: Wish<'_>) -> Result<(), SubscribeError> {
        let Wish { channel, .. } = wish;
        let options = self.peer.options(channel);
        let (forces_recovery, forces_positioning, forces_events, keeps) =
            match self.peer.namespaces().of(channel) {
                Some(namespace) => (
                    namespace.force_recovery,
                    namespace.force_positioning,
                    namespace.force_push_join_leave,
                    namespace.keeps_history() && !is_pattern(channel),
                ),
                None => (false, false, false, false),
            };
        let is_recoverable = keeps && (wish.is_recoverable || forces_recovery);
        let is_positioned = keeps && (wish.is_positioned || forces_positioning) || is_recoverable;
        let is_member = options.presence || options.join_leave;
        let member = match is_member {
            true => Some(Arc::new(Member {
                info: self.client_info(channel),
                client: self.peer.id(),
                user: self.user().into(),
            })),
            false => None,
        };
        let by_server = wish.by != By::Client;
        let wanted = Wanted {
            channel: channel.into(),
            by: wish.by,
            since: wish.since.map(|(offset, _)| offset),
            is_recoverable,
            is_positioned,
            rejects_gap: wish.rejects_gap,
        };
        let tag = self.state.ask(id, state::Wish::Subscribe(Box::new(wanted)));
        let mark = (u8::from(by_server) * BY_SERVER) | (u8::from(is_positioned) * POSITIONED);
        let recover = wish.since.filter(|_| is_recoverable);
        let asked = self.peer.subscribe_with(Request {
            recover: recover.map(|(offset, epoch)| Position {
                offset,
                epoch: reply::epoch(epoch),
            }),
            member,
            wants_events: options.join_leave && (wish.wants_events || forces_events),
            mark,
            tag,
            ..Request::new(channel, options)
        });
        if asked.is_err() {
            self.state.unask();
        }
        asked
    }

    /// The home has answered: from here on the client gets what is published.
    pub fn subscribed(&mut self, id: u32, wanted: Wanted, subscribed: &Subscribed<ConnId>) {
        let is_gap = wanted.since.is_some() && subscribed.recovered != Some(true);
        if is_gap && wanted.rejects_gap {
            self.leave(&wanted.channel);
            return self.replies.fault(id, Fault::Unrecoverable);
        }
        let Position { offset, epoch } = subscribed.position;
        match &wanted.by {
            By::Client => {
                let expires = self
                    .state
                    .pass(&wanted.channel)
                    .and_then(|pass| pass.expires);
                let ttl = self.ttl(expires);
                let before = self.replies.len();
                let limit = self.replies_bytes_max();
                let out = self.replies.begin(id, "subscribe");
                push_subscribed(out, &wanted, subscribed, ttl);
                out.push('}');
                if self.replies.len() > limit {
                    // More than the client could take: it is told that it missed something.
                    self.replies.truncate(before);
                    let out = self.replies.begin(id, "subscribe");
                    push_subscribed(out, &wanted, &unrecovered(offset, epoch), ttl);
                    out.push('}');
                }
                if expires.is_some() {
                    self.arm();
                }
            }
            By::Token => {
                let mut result = String::new();
                push_subscribed(&mut result, &wanted, subscribed, None);
                let others = self.state.granted_bytes();
                if result.len() + others > self.replies_bytes_max() {
                    result.clear();
                    push_subscribed(&mut result, &wanted, &unrecovered(offset, epoch), None);
                }
                self.grant_result(&wanted.channel, &result);
                self.granted();
            }
            By::Server { data } => {
                self.push_subscribe(&wanted, data.as_deref(), subscribed);
                self.arm();
            }
        }
    }

    /// Tells that a server has subscribed the client, and what it missed.
    fn push_subscribe(
        &mut self,
        wanted: &Wanted,
        data: Option<&str>,
        subscribed: &Subscribed<ConnId>,
    ) {
        let out = self.replies.line();
        push_head(out, &wanted.channel, "subscribe");
        let mut object = Object::begin(out);
        object.flag("recoverable", wanted.is_recoverable);
        object.flag("positioned", wanted.is_positioned);
        if wanted.is_positioned {
            object.position(start(wanted, subscribed));
        }
        object.json("data", data);
        object.end().push_str("}}");
        for publication in &subscribed.publications {
            let out = self.replies.line();
            push_head(out, &wanted.channel, "pub");
            push_publication(out, publication, None);
            out.push_str("}}");
        }
    }

    /// How long replies may become before too much waits for the client.
    pub fn replies_bytes_max(&self) -> usize {
        let waiting = self.peer.buffered_bytes() + self.state.said_bytes();
        self.settings.waiting_bytes_max.saturating_sub(waiting)
    }

    pub fn fits(&self) -> bool {
        self.replies.len() <= self.replies_bytes_max()
    }

    pub fn unsubscribe(&mut self, id: u32, channel: &str) -> Result<Flow, Fault> {
        self.check_name(channel)?;
        self.leave(channel);
        self.replies.empty(id, "unsubscribe");
        Ok(Flow::Next)
    }

    /// Ends a subscription, also one that is not there yet: whoever wished for it is told then.
    /// `false`: there was none.
    pub fn leave(&mut self, channel: &str) -> bool {
        if let Some((at, id, state::Wish::Subscribe(wanted))) = self.state.cancelled(channel) {
            match wanted.by {
                By::Client => {
                    let mut reply = Replies::default();
                    reply.fault(id, Fault::NotAvailable);
                    self.state.said(at, reply.take_since(0), false);
                }
                By::Token => {
                    self.state.forget(at);
                    self.granted();
                }
                By::Server { .. } => self.state.forget(at),
            }
        }
        self.state.forget_pass(channel);
        self.peer.unsubscribe(channel)
    }

    /// A new token for a channel.
    pub fn sub_refresh(&mut self, id: u32, request: &Refresh<'_>) -> Result<Flow, Disconnect> {
        let channel = &*request.channel;
        let fault = match () {
            () if !self.peer.is_subscribed(channel) => Some(Fault::PermissionDenied),
            () if request.token.is_empty() => Some(Fault::BadRequest),
            () => None,
        };
        let pass = match fault {
            Some(fault) => Err(fault),
            None => self.pass(&request.token, channel),
        };
        match pass {
            Ok(pass) => {
                let ttl = self.ttl(pass.expires);
                self.state.set_pass(pass);
                self.arm();
                let mut object = Object::begin(self.replies.begin(id, "sub_refresh"));
                object.ttl(ttl);
                object.end().push('}');
            }
            // As the connection's own token, one that is not good ends it all.
            Err(Fault::PermissionDenied) if fault.is_none() => {
                return Err(Disconnect::INVALID_TOKEN);
            }
            Err(Fault::TokenExpired) => self.replies.fault(id, Fault::Expired),
            Err(fault) => self.replies.fault(id, fault),
        }
        Ok(Flow::Next)
    }

    /// Ends the subscriptions whose tokens have expired.
    pub fn expire(&mut self) {
        if self.state.passes.is_empty() {
            return;
        }
        let now = sys::unix_seconds().saturating_sub(self.settings.grace_seconds);
        let is_over = |pass: &&Pass| pass.expires.is_some_and(|end| end <= now);
        let over = self.state.passes.iter().filter(is_over);
        let over: Vec<Box<str>> = over.map(|pass| pass.channel.clone()).collect();
        for channel in over {
            self.end(&channel, Unsubscribed::EXPIRED);
        }
    }

    /// Ends a subscription and says so, if there was one.
    pub fn end(&mut self, channel: &str, unsubscribed: Unsubscribed) {
        if self.leave(channel) {
            push_unsubscribed(self.replies.line(), channel, unsubscribed);
        }
    }

    /// The client was too slow for a channel that lets publications be dropped then, which it is
    /// told by the end of the subscription: it subscribes again, and recovers if it can.
    pub fn missed(&mut self, channel: &str) {
        let mut subscriptions = self.peer.subscriptions();
        let mark = subscriptions.find(|(name, _)| &***name == channel);
        let mark = mark.map_or(0, |(_, mark)| mark);
        drop(subscriptions);
        match (mark & BY_SERVER != 0, mark & POSITIONED != 0) {
            (false, _) => self.end(channel, Unsubscribed::INSUFFICIENT_STATE),
            // What a server has subscribed to recovers with the connection alone.
            (true, true) => Disconnect::INSUFFICIENT_STATE.close(self.peer),
            (true, false) => {
                let pass = self.state.pass(channel).cloned();
                self.end(channel, Unsubscribed::INSUFFICIENT_STATE);
                if let Some(pass) = pass {
                    self.state.set_pass(pass);
                }
                let again = Wish::new(channel, By::Server { data: None });
                if self.wish(0, again).is_err() {
                    self.state.forget_pass(channel);
                }
            }
        }
    }
}

/// Appends the result of a subscription.
fn push_subscribed(
    out: &mut String,
    wanted: &Wanted,
    subscribed: &Subscribed<ConnId>,
    ttl: Option<u32>,
) {
    let mut object = Object::begin(out);
    object.flag("recoverable", wanted.is_recoverable);
    object.flag("positioned", wanted.is_positioned);
    if wanted.is_positioned {
        object.position(start(wanted, subscribed));
    }
    object.flag("was_recovering", wanted.since.is_some());
    object.flag("recovered", subscribed.recovered == Some(true));
    let publications: &[Arc<Publication>] = &subscribed.publications;
    if !publications.is_empty() {
        let publications = publications.iter().map(|publication| &**publication);
        object.publications(publications, usize::MAX);
    }
    object.ttl(ttl);
    object.end();
}

/// From where the client counts on: from the offset that it named if it recovers, as the
/// publications that follow bring it to the present.
fn start(wanted: &Wanted, subscribed: &Subscribed<ConnId>) -> Position {
    let Position { offset, epoch } = subscribed.position;
    let since = wanted.since.filter(|_| subscribed.recovered == Some(true));
    Position {
        offset: since.unwrap_or(offset),
        epoch,
    }
}

/// A subscription that has a gap before it.
fn unrecovered(offset: u64, epoch: u64) -> Subscribed<ConnId> {
    Subscribed {
        position: Position { offset, epoch },
        recovered: Some(false),
        publications: Vec::new(),
    }
}

fn is_pattern(channel: &str) -> bool {
    channel.ends_with('*')
}

/// Marks of subscriptions that the client has not asked for itself.
const BY_SERVER: u8 = 1;

/// And of those whose subscribers know their place in the stream.
const POSITIONED: u8 = 2;
