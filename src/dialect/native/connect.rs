//! Who a client is: its first command, and new tokens before the old ones expire.

use std::{borrow::Cow, collections::HashMap, mem, sync::Arc};

use super::{
    call::{Call, Flow},
    command::{Connect, Since},
    json, push,
    reply::{Disconnect, Fault, Object},
    state::{By, Connecting},
    subscribe::Wish,
    token::{Grant, Granted, Mismatch, Pass},
};
use crate::handler::{SubscribeError, TokenError};

impl Call<'_, '_> {
    /// The first command. Those behind it wait for the subscriptions that the token brings.
    pub fn connect(&mut self, id: u32, request: &Connect<'_>) -> Result<Flow, Disconnect> {
        if self.state.is_connected {
            return Err(Disconnect::bad_request("bad request: connect comes once"));
        }
        let brought = self.state.work_mut().and_then(|work| work.grant.take());
        let grant = match brought {
            _ if !request.token.is_empty() => match self.peer.authenticate(&request.token) {
                Ok(claims) => Grant::read(&claims),
                Err(error) => return self.token_refused(id, error),
            },
            Some(grant) => grant,
            None if self.peer.requires_token() => {
                self.replies.fault(id, Fault::Unauthorized);
                return Ok(Flow::Next);
            }
            None => Ok(Grant::default()),
        };
        let grant = grant.map_err(|Mismatch| Disconnect::INVALID_TOKEN)?;
        for Granted { channel, .. } in &grant.channels {
            if let Err(fault) = self.may_subscribe(channel, true) {
                self.replies.fault(id, fault);
                return Ok(Flow::Next);
            }
        }
        self.state.is_connected = true;
        if let Some(info) = &grant.info {
            self.show(Some(info));
        }
        self.expire_at(grant.expires);
        self.begin_pings();
        self.take_granted(id, grant, &request.subs)?;
        Ok(Flow::Next)
    }

    /// Subscribes to what the token names, and replies once all of that is there.
    fn take_granted(
        &mut self,
        id: u32,
        grant: Grant,
        subs: &HashMap<Cow<'_, str>, Since<'_>>,
    ) -> Result<(), Disconnect> {
        let mut waiting = 0;
        if !grant.channels.is_empty() {
            // What is published meanwhile would come before the reply that says what it is of.
            self.state.holds = true;
            self.peer.hold();
        }
        for Granted { channel, info } in grant.channels {
            let since = subs.get(&*channel).filter(|since| since.recover);
            let wish = Wish {
                since: since.map(|since| (since.offset, &*since.epoch)),
                ..Wish::new(&channel, By::Token)
            };
            self.state.set_pass(Pass {
                channel: channel.clone(),
                info,
                expires: None,
            });
            match self.wish(0, wish) {
                Ok(()) => waiting += 1,
                Err(SubscribeError::Already) => {}
                Err(SubscribeError::TooMany) => return Err(Disconnect::CHANNEL_LIMIT),
                Err(SubscribeError::Name) => return Err(Disconnect::INVALID_TOKEN),
            }
        }
        let connecting = Connecting {
            id,
            expires: grant.expires,
            waiting,
            subs: String::new(),
        };
        match waiting {
            0 => self.connected(&connecting),
            _ => self.state.work().connecting = Some(connecting),
        }
        Ok(())
    }

    /// One of the subscriptions that the token brings is there: its result is in `subs`.
    pub fn granted(&mut self) {
        let Some(work) = self.state.work_mut() else {
            return;
        };
        let Some(connecting) = &mut work.connecting else {
            return;
        };
        connecting.waiting = connecting.waiting.saturating_sub(1);
        if connecting.waiting == 0
            && let Some(connecting) = work.connecting.take()
        {
            self.connected(&connecting);
            // Before anything that waits for its turn.
            mem::take(&mut self.replies).send(self.peer);
        }
    }

    fn connected(&mut self, connecting: &Connecting) {
        let ttl = self.ttl(connecting.expires);
        let client = self.peer.client_id().to_string();
        let is_pinged = self.state.is_pinged;
        let pings = self.settings.ping_seconds * u64::from(is_pinged);
        let mut object = Object::begin(self.replies.begin(connecting.id, "connect"));
        object.string("client", &client).string("version", VERSION);
        object
            .number("ping", pings)
            .flag("pong", is_pinged)
            .ttl(ttl);
        if !connecting.subs.is_empty() {
            let out = object.field("subs");
            out.push('{');
            out.push_str(&connecting.subs);
            out.push('}');
        }
        object.end().push('}');
    }

    /// A new token, before the old one expires or just after.
    pub fn refresh(&mut self, id: u32, token: &str) -> Result<Flow, Disconnect> {
        if token.is_empty() {
            self.replies.fault(id, Fault::BadRequest);
            return Ok(Flow::Next);
        }
        match self.peer.verify(token) {
            // It would be somebody else.
            Ok(claims) if claims.subject.as_deref().unwrap_or_default() != self.user() => {
                return Err(Disconnect::INVALID_TOKEN);
            }
            Ok(_) => {}
            // An error would end the client for good; so it comes back, and is told to get
            // another one.
            Err(TokenError::Expired) => return Err(Disconnect::EXPIRED),
            Err(error) => return self.token_refused(id, error),
        }
        let claims = match self.peer.authenticate(token) {
            Ok(claims) => claims,
            Err(error) => return self.token_refused(id, error),
        };
        let grant = Grant::read(&claims).map_err(|Mismatch| Disconnect::INVALID_TOKEN)?;
        self.expire_at(grant.expires);
        if let Some(info) = &grant.info {
            self.show(Some(info));
        }
        let ttl = self.ttl(grant.expires);
        let client = self.peer.client_id().to_string();
        let mut object = Object::begin(self.replies.begin(id, "refresh"));
        object.string("client", &client).string("version", VERSION);
        object.ttl(ttl);
        object.end().push('}');
        Ok(Flow::Next)
    }

    /// A server says when the connection expires.
    pub fn refreshed(&mut self, expires: Option<i64>) {
        self.expire_at(expires);
        let ttl = self.ttl(expires);
        push::push_refreshed(self.replies.line(), ttl);
    }

    /// A token that is not good ends the connection for good, unless it was good once, or may be
    /// soon.
    fn token_refused(&mut self, id: u32, error: TokenError) -> Result<Flow, Disconnect> {
        let fault = match error {
            TokenError::Expired => Fault::TokenExpired,
            TokenError::UnknownKey | TokenError::NoKeys if self.settings.fetches_keys => {
                Fault::Internal
            }
            _ => return Err(Disconnect::INVALID_TOKEN),
        };
        self.replies.fault(id, fault);
        Ok(Flow::Next)
    }

    fn expire_at(&mut self, expires: Option<i64>) {
        let grace = self.settings.grace_seconds;
        let end = expires.map(|end| end.saturating_add(grace));
        self.peer.expire_at(end);
    }

    /// What others are told about the client in a channel: an object of JSON.
    pub fn client_info(&mut self, channel: &str) -> Arc<str> {
        let shown = match &self.state.shown {
            Some(shown) => Arc::clone(shown),
            None => self.show(None),
        };
        let pass = self.state.pass(channel);
        let Some(info) = pass.and_then(|pass| pass.info.as_deref()) else {
            return shown;
        };
        let mut out = String::with_capacity(shown.len() + info.len() + 16);
        out.push_str(&shown[..shown.len() - 1]);
        out.push_str(",\"chan_info\":");
        out.push_str(info);
        out.push('}');
        out.into()
    }

    /// Writes down what others are told about the client in every channel.
    fn show(&mut self, info: Option<&str>) -> Arc<str> {
        let mut out = String::with_capacity(96);
        let mut object = Object::begin(&mut out);
        object.string("user", self.user());
        object.string("client", &self.peer.client_id().to_string());
        object.json("conn_info", info);
        object.end();
        let shown = Arc::from(out);
        self.state.shown = Some(Arc::clone(&shown));
        shown
    }

    /// Appends the name and the result of a subscription to the reply that waits for it.
    pub fn grant_result(&mut self, channel: &str, result: &str) {
        let connecting = self
            .state
            .work_mut()
            .and_then(|work| work.connecting.as_mut());
        if let Some(connecting) = connecting {
            if !connecting.subs.is_empty() {
                connecting.subs.push(',');
            }
            json::push_string(&mut connecting.subs, channel);
            connecting.subs.push(':');
            connecting.subs.push_str(result);
        }
    }
}

/// What clients are told that they are connected to.
const VERSION: &str = concat!("tidemill ", env!("CARGO_PKG_VERSION"));
