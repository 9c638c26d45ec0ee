//! What servers tell a connection to do, by the API.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    call::Call,
    reply::{Disconnect, Unsubscribed},
    state::By,
    subscribe::Wish,
    token::Pass,
};
use crate::handler::Command;

/// The parts of the API's request that are about the subscription itself.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Request<'a> {
    /// What others in the channel are told about the subscriber.
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    /// What the client is told.
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    recover_since: Option<Since>,
    /// In seconds since 1970; 0: never.
    expire_at: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Since {
    offset: u64,
    epoch: String,
}

impl Call<'_, '_> {
    /// Does what a server says. Before the client has said who it is, there is nothing to do it
    /// with, but to end it.
    pub fn obey(&mut self, command: &Command) {
        match command {
            Command::Disconnect {
                code,
                reason,
                except,
            } => {
                if !except.contains(&self.peer.id()) {
                    self.peer.close((*code).into(), reason);
                }
            }
            _ if !self.state.is_connected => {}
            Command::Unsubscribe { channel } => self.end(channel, Unsubscribed::BY_SERVER),
            Command::Refresh { expired: true, .. } => Disconnect::EXPIRED.close(self.peer),
            Command::Refresh { expires, .. } => self.refreshed(*expires),
            Command::Subscribe { channel, request } => self.subscribe_by_server(channel, request),
        }
    }

    fn subscribe_by_server(&mut self, channel: &str, request: &str) {
        // The API has looked at it; of what it does not know, nothing is wanted here.
        let request: Request<'_> = serde_json::from_str(request).unwrap_or_default();
        if self.peer.is_subscribed(channel) {
            return;
        }
        self.state.set_pass(Pass {
            channel: channel.into(),
            info: request.info.map(|info| info.get().into()),
            expires: (request.expire_at != 0).then_some(request.expire_at),
        });
        let by = By::Server {
            data: request.data.map(|data| data.get().into()),
        };
        let since = request.recover_since.as_ref();
        let wish = Wish {
            since: since.map(|since| (since.offset, &*since.epoch)),
            ..Wish::new(channel, by)
        };
        // One that has as many subscriptions as it may have stays without this one.
        if self.wish(0, wish).is_err() {
            self.state.forget_pass(channel);
        }
    }
}
