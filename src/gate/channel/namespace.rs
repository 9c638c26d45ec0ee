//! Namespaces: what holds for all channels whose names begin alike.

use core::time::Duration;
use std::collections::BTreeMap;

use super::{Action, ONE_USER};

/// What may be done with the channels of a namespace. The names are those of Centrifugo's channel
/// options, and mean the same; `raw` and `protected` are our own.
///
/// A `_for_client` grants it to peers with a user id, `_for_subscriber` to those of them that are
/// subscribed to the channel; `_for_anonymous` extends these two to peers without a user id, and
/// grants nothing alone. By default nothing is granted: who has a token for a channel may
/// subscribe to it, and that is all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    pub allow_subscribe_for_client: bool,
    pub allow_subscribe_for_anonymous: bool,
    pub allow_publish_for_client: bool,
    pub allow_publish_for_subscriber: bool,
    pub allow_publish_for_anonymous: bool,
    pub allow_presence_for_client: bool,
    pub allow_presence_for_subscriber: bool,
    pub allow_presence_for_anonymous: bool,
    pub allow_history_for_client: bool,
    pub allow_history_for_subscriber: bool,
    pub allow_history_for_anonymous: bool,
    /// Lets the users that a name lists after its last `#` in without a token for the channel.
    /// Others are kept out of such a channel whatever else is granted.
    pub allow_user_limited_channels: bool,
    /// Who is subscribed is kept.
    pub presence: bool,
    /// Publications kept for each channel; 0 = none.
    pub history_size: u32,
    /// For how long; 0 = not at all.
    pub history_ttl: Duration,
    /// Reached by `/raw` and PieSocket, whose peers see and send bare frames.
    pub raw: bool,
    /// Each channel needs a token of its own, whatever else is granted.
    pub protected: bool,
}

/// What a namespace grants for one action, apart from any token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grants {
    pub for_client: bool,
    pub for_subscriber: bool,
    pub for_anonymous: bool,
}

impl Namespace {
    pub(super) fn grants(&self, action: Action) -> Grants {
        let (for_client, for_subscriber, for_anonymous) = match action {
            Action::Subscribe => (
                self.allow_subscribe_for_client,
                false,
                self.allow_subscribe_for_anonymous,
            ),
            Action::Publish => (
                self.allow_publish_for_client,
                self.allow_publish_for_subscriber,
                self.allow_publish_for_anonymous,
            ),
            Action::Presence => (
                self.allow_presence_for_client,
                self.allow_presence_for_subscriber,
                self.allow_presence_for_anonymous,
            ),
            Action::History => (
                self.allow_history_for_client,
                self.allow_history_for_subscriber,
                self.allow_history_for_anonymous,
            ),
        };
        Grants {
            for_client,
            for_subscriber,
            for_anonymous,
        }
    }

    pub fn keeps_history(&self) -> bool {
        self.history_size > 0 && !self.history_ttl.is_zero()
    }

    /// The namespace of names without a `:`, unless it is configured.
    fn unprefixed(exposure: Exposure) -> Self {
        let is_open = exposure.is_open();
        Self {
            allow_subscribe_for_client: true,
            allow_subscribe_for_anonymous: true,
            // Whoever has a user id was vouched for by a token.
            allow_publish_for_client: true,
            allow_publish_for_anonymous: is_open,
            allow_presence_for_subscriber: true,
            allow_presence_for_anonymous: is_open,
            allow_history_for_subscriber: true,
            allow_history_for_anonymous: is_open,
            allow_user_limited_channels: true,
            history_ttl: HISTORY_TTL,
            raw: true,
            ..Self::default()
        }
    }

    /// The namespace of the demo page: everything for everyone, but no bare frames.
    fn demo() -> Self {
        Self {
            allow_subscribe_for_client: true,
            allow_subscribe_for_anonymous: true,
            allow_publish_for_client: true,
            allow_publish_for_anonymous: true,
            allow_presence_for_client: true,
            allow_presence_for_anonymous: true,
            allow_history_for_client: true,
            allow_history_for_anonymous: true,
            presence: true,
            history_size: 100,
            history_ttl: HISTORY_TTL,
            ..Self::default()
        }
    }
}

/// How far the server can be reached, and whether it could tell who comes.
#[derive(Clone, Copy, Debug)]
pub struct Exposure {
    /// Every listener is a loopback one.
    pub is_loopback_only: bool,
    /// A key is configured that tokens are verified with.
    pub has_token_keys: bool,
}

impl Exposure {
    /// Open on loopback, closed in the world. A token key closes it everywhere: who configures
    /// one wants peers to be told apart.
    pub fn is_open(self) -> bool {
        self.is_loopback_only && !self.has_token_keys
    }
}

/// All namespaces of a server.
#[derive(Clone, Debug)]
pub struct Namespaces {
    /// That of names without a `:`.
    pub unprefixed: Namespace,
    named: BTreeMap<Box<str>, Namespace>,
}

impl Namespaces {
    /// Those that are there without any configuration.
    pub fn new(exposure: Exposure) -> Self {
        Self {
            unprefixed: Namespace::unprefixed(exposure),
            named: BTreeMap::from([(DEMO.into(), Namespace::demo())]),
        }
    }

    /// Adds a namespace, or replaces the one of that name.
    pub fn insert(&mut self, name: &str, namespace: Namespace) {
        self.named.insert(name.into(), namespace);
    }

    /// Removes a namespace; its channels are nobody's then, for clients and the API alike.
    pub fn remove(&mut self, name: &str) -> Option<Namespace> {
        self.named.remove(name)
    }

    /// The namespace that a channel is in: what stands in front of its first `:`, behind a `$`.
    /// `None` when there is no such namespace.
    pub fn of(&self, channel: &str) -> Option<&Namespace> {
        if channel.starts_with(ONE_USER) {
            // A user's id may hold a `:`, which begins no namespace then.
            return Some(&self.unprefixed);
        }
        let name = channel.strip_prefix('$').unwrap_or(channel);
        match name.split_once(':') {
            Some((name, _)) => self.named.get(name),
            None => Some(&self.unprefixed),
        }
    }
}

/// The built-in namespace, which may be removed.
pub const DEMO: &str = "demo";

const HISTORY_TTL: Duration = Duration::from_secs(300);
