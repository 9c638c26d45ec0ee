//! Namespaces: what holds for all channels whose names begin alike.

use core::{fmt, time::Duration};
use std::collections::BTreeMap;

use super::{Action, ONE_USER};
use crate::config::{
    Config, DEMO, DEMO_HISTORY_SIZE, DEMO_HISTORY_TTL, NamespaceEntry, NamespaceFlag, SlowPolicy,
};

/// What may be done with the channels of a namespace. The names are those of Centrifugo's channel
/// options, and mean the same; `allow_wildcards`, `slow_policy`, `raw` and `protected` are our own.
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
    /// Patterns such as `news.*` can be subscribed to, by who may subscribe at all.
    pub allow_wildcards: bool,
    /// Who is subscribed is kept.
    pub presence: bool,
    /// Subscribers that ask for it are told who comes and goes.
    pub join_leave: bool,
    /// All of them are told, whether they ask or not.
    pub force_push_join_leave: bool,
    /// All of them are told their place in the stream.
    pub force_positioning: bool,
    /// All of them are sent what they missed when they come back.
    pub force_recovery: bool,
    /// Publications kept for each channel; 0 = none.
    pub history_size: u32,
    /// For how long; 0 = not at all.
    pub history_ttl: Duration,
    /// Reached by `/raw` and PieSocket, whose peers see and send bare frames.
    pub raw: bool,
    /// Each channel needs a token of its own, whatever else is granted.
    pub protected: bool,
    /// What happens to a subscriber that does not keep up.
    pub slow_policy: SlowPolicy,
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

    /// Who may do this, without a token for the channel, where a name asks for none.
    pub fn who(&self, action: Action) -> Circle {
        if self.protected && action == Action::Subscribe {
            return Circle::Nobody;
        }
        let grants = self.grants(action);
        // Whoever is subscribed to a channel of a protected namespace has shown its token.
        let for_client = grants.for_client && !self.protected;
        let for_subscriber = grants.for_client || grants.for_subscriber;
        match (for_client, for_subscriber, grants.for_anonymous) {
            (true, _, true) => Circle::Everybody,
            (true, _, false) => Circle::Users,
            (false, true, true) => Circle::Subscribers,
            (false, true, false) => Circle::SubscribedUsers,
            (false, false, _) => Circle::Nobody,
        }
    }

    pub fn keeps_history(&self) -> bool {
        self.history_size > 0 && !self.history_ttl.is_zero()
    }

    /// The namespace of names without a `:`, unless it is configured.
    fn unprefixed(config: &Config, exposure: Exposure) -> Self {
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
            history_size: narrow(config.history_size),
            history_ttl: config.history_ttl,
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
            join_leave: true,
            history_size: narrow(DEMO_HISTORY_SIZE),
            history_ttl: DEMO_HISTORY_TTL,
            ..Self::default()
        }
    }

    /// Changes what the entry names.
    fn apply(&mut self, entry: &NamespaceEntry) {
        for (flag, is_on) in &entry.flags {
            *self.flag(*flag) = *is_on;
        }
        if let Some(size) = entry.history_size {
            self.history_size = narrow(size);
        }
        self.history_ttl = entry.history_ttl.unwrap_or(self.history_ttl);
        self.slow_policy = entry.slow_policy.unwrap_or(self.slow_policy);
    }

    fn flag(&mut self, flag: NamespaceFlag) -> &mut bool {
        match flag {
            NamespaceFlag::Presence => &mut self.presence,
            NamespaceFlag::JoinLeave => &mut self.join_leave,
            NamespaceFlag::ForcePushJoinLeave => &mut self.force_push_join_leave,
            NamespaceFlag::ForcePositioning => &mut self.force_positioning,
            NamespaceFlag::ForceRecovery => &mut self.force_recovery,
            NamespaceFlag::AllowSubscribeForClient => &mut self.allow_subscribe_for_client,
            NamespaceFlag::AllowSubscribeForAnonymous => &mut self.allow_subscribe_for_anonymous,
            NamespaceFlag::AllowPublishForClient => &mut self.allow_publish_for_client,
            NamespaceFlag::AllowPublishForSubscriber => &mut self.allow_publish_for_subscriber,
            NamespaceFlag::AllowPublishForAnonymous => &mut self.allow_publish_for_anonymous,
            NamespaceFlag::AllowPresenceForClient => &mut self.allow_presence_for_client,
            NamespaceFlag::AllowPresenceForSubscriber => &mut self.allow_presence_for_subscriber,
            NamespaceFlag::AllowPresenceForAnonymous => &mut self.allow_presence_for_anonymous,
            NamespaceFlag::AllowHistoryForClient => &mut self.allow_history_for_client,
            NamespaceFlag::AllowHistoryForSubscriber => &mut self.allow_history_for_subscriber,
            NamespaceFlag::AllowHistoryForAnonymous => &mut self.allow_history_for_anonymous,
            NamespaceFlag::AllowUserLimitedChannels => &mut self.allow_user_limited_channels,
            NamespaceFlag::AllowWildcards => &mut self.allow_wildcards,
            NamespaceFlag::Raw => &mut self.raw,
            NamespaceFlag::Protected => &mut self.protected,
        }
    }
}

/// A count that the configuration bounds far below.
fn narrow(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// To whom a namespace grants something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circle {
    /// Peers without a user id too.
    Everybody,
    /// Peers with a user id.
    Users,
    /// Peers that are subscribed to the channel.
    Subscribers,
    /// Those of them with a user id.
    SubscribedUsers,
    Nobody,
}

impl fmt::Display for Circle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Everybody => "everybody",
            Self::Users => "users",
            Self::Subscribers => "subscribers",
            Self::SubscribedUsers => "subscribed users",
            Self::Nobody => "nobody",
        })
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
    /// As a configuration has it.
    pub fn new(config: &Config) -> Self {
        Self {
            is_loopback_only: config.is_loopback_only(),
            has_token_keys: config.has_token_keys(),
        }
    }

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
    /// Those that are built in, changed and added to as a configuration says, which is valid.
    pub fn from_config(config: &Config, exposure: Exposure) -> Self {
        let mut namespaces = Self {
            unprefixed: Namespace::unprefixed(config, exposure),
            named: BTreeMap::from([(DEMO.into(), Namespace::demo())]),
        };
        for entry in &config.namespaces {
            if entry.is_off {
                namespaces.remove(&entry.name);
            } else if entry.name.is_empty() {
                namespaces.unprefixed.apply(entry);
            } else {
                let named = namespaces.named.entry(entry.name.as_str().into());
                named.or_default().apply(entry);
            }
        }
        namespaces
    }

    /// All of them in the order of their names; that of names without a `:` is the first and has
    /// an empty one.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Namespace)> {
        let named = self
            .named
            .iter()
            .map(|(name, namespace)| (&**name, namespace));
        [("", &self.unprefixed)].into_iter().chain(named)
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
