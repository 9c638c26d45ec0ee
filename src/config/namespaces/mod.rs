//! What `TIDEMILL_NAMESPACES` says: a JSON array with an entry for each namespace, as text or in a
//! file. The keys are those of Centrifugo's channel options, and a few of our own.
//!
//! An entry holds what was named and nothing else. What is built in, and what holds in the end, is
//! the business of `gate/channel`.

mod check;
mod foreign;
mod read;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

pub(super) use read::read;

use super::value;

/// What one entry says of the channels whose names begin with its own and a `:`. What it does not
/// name stays as it is built in; in a namespace that is not built in, that is off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceEntry {
    /// 1 to 64 letters, digits, `-` and `_`; empty: the namespace of names without a prefix.
    pub name: String,
    /// The namespace is taken away: its channels are nobody's.
    pub is_off: bool,
    /// What is switched on or off.
    pub flags: BTreeMap<NamespaceFlag, bool>,
    /// Publications kept for each channel; 0 = none.
    pub history_size: Option<usize>,
    /// For how long they are kept; 0 = not at all.
    pub history_ttl: Option<Duration>,
    /// What happens to a subscriber that does not keep up.
    pub slow_policy: Option<SlowPolicy>,
}

impl NamespaceEntry {
    /// An entry that says nothing but its name.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// The entry with one more thing switched on or off.
    #[must_use]
    pub fn with(mut self, flag: NamespaceFlag, is_on: bool) -> Self {
        self.flags.insert(flag, is_on);
        self
    }

    /// The entry with a history of so many publications for so long.
    #[must_use]
    pub fn history(mut self, size: usize, ttl: Duration) -> Self {
        self.history_size = Some(size);
        self.history_ttl = Some(ttl);
        self
    }

    /// Whether the entry itself switches this on.
    pub(super) fn names(&self, flag: NamespaceFlag) -> bool {
        self.flags.get(&flag) == Some(&true)
    }
}

/// What can be switched on or off for a namespace, in the order in which it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NamespaceFlag {
    /// Who is subscribed is kept.
    Presence,
    /// Subscribers that ask for it are told who comes and goes.
    JoinLeave,
    /// All of them are told.
    ForcePushJoinLeave,
    /// All of them are told their place in the stream.
    ForcePositioning,
    /// All of them are sent what they missed when they come back.
    ForceRecovery,
    AllowSubscribeForClient,
    AllowSubscribeForAnonymous,
    AllowPublishForClient,
    AllowPublishForSubscriber,
    AllowPublishForAnonymous,
    AllowPresenceForClient,
    AllowPresenceForSubscriber,
    AllowPresenceForAnonymous,
    AllowHistoryForClient,
    AllowHistoryForSubscriber,
    AllowHistoryForAnonymous,
    /// Users that a name lists after a `#` need no token for the channel.
    AllowUserLimitedChannels,
    /// Patterns such as `news.*` can be subscribed to.
    AllowWildcards,
    /// Reached by the doors that speak in bare frames.
    Raw,
    /// Each channel needs a token of its own.
    Protected,
}

impl NamespaceFlag {
    /// All of them with their keys.
    pub const ALL: [(&'static str, Self); 20] = [
        ("presence", Self::Presence),
        ("join_leave", Self::JoinLeave),
        ("force_push_join_leave", Self::ForcePushJoinLeave),
        ("force_positioning", Self::ForcePositioning),
        ("force_recovery", Self::ForceRecovery),
        ("allow_subscribe_for_client", Self::AllowSubscribeForClient),
        (
            "allow_subscribe_for_anonymous",
            Self::AllowSubscribeForAnonymous,
        ),
        ("allow_publish_for_client", Self::AllowPublishForClient),
        (
            "allow_publish_for_subscriber",
            Self::AllowPublishForSubscriber,
        ),
        (
            "allow_publish_for_anonymous",
            Self::AllowPublishForAnonymous,
        ),
        ("allow_presence_for_client", Self::AllowPresenceForClient),
        (
            "allow_presence_for_subscriber",
            Self::AllowPresenceForSubscriber,
        ),
        (
            "allow_presence_for_anonymous",
            Self::AllowPresenceForAnonymous,
        ),
        ("allow_history_for_client", Self::AllowHistoryForClient),
        (
            "allow_history_for_subscriber",
            Self::AllowHistoryForSubscriber,
        ),
        (
            "allow_history_for_anonymous",
            Self::AllowHistoryForAnonymous,
        ),
        (
            "allow_user_limited_channels",
            Self::AllowUserLimitedChannels,
        ),
        ("allow_wildcards", Self::AllowWildcards),
        ("raw", Self::Raw),
        ("protected", Self::Protected),
    ];

    /// The key in an entry.
    pub fn key(self) -> &'static str {
        let mut all = Self::ALL.iter();
        all.find(|(_, flag)| *flag == self)
            .map_or("", |(key, _)| key)
    }
}

/// What happens to a subscriber for which more waits than an outbox holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowPolicy {
    /// It is closed, and may come back for what it missed.
    #[default]
    Close,
    /// Publications are left out, and it is told so where its dialect can.
    Drop,
}

const SLOW_POLICY_WORDS: &[(&str, SlowPolicy)] =
    &[("close", SlowPolicy::Close), ("drop", SlowPolicy::Drop)];

impl SlowPolicy {
    /// The word for it.
    pub fn word(self) -> &'static str {
        value::spelling(self, SLOW_POLICY_WORDS)
    }
}

/// Writes the entries the way [`read`] reads them.
pub(super) fn show(entries: &[NamespaceEntry]) -> String {
    if entries.is_empty() {
        return String::new();
    }
    let shown: Vec<String> = entries.iter().map(show_one).collect();
    format!("[{}]", shown.join(","))
}

fn show_one(entry: &NamespaceEntry) -> String {
    let mut shown = format!("{{\"name\":{}", serde_json::Value::from(&*entry.name));
    let mut pair = |key: &str, text: &str| {
        let _ = write!(shown, ",\"{key}\":{text}");
    };
    if entry.is_off {
        pair("off", "true");
    }
    for (flag, is_on) in &entry.flags {
        pair(flag.key(), if *is_on { "true" } else { "false" });
    }
    if let Some(size) = entry.history_size {
        pair("history_size", &size.to_string());
    }
    if let Some(ttl) = entry.history_ttl {
        pair("history_ttl", &format!("\"{}\"", value::show_duration(ttl)));
    }
    if let Some(policy) = entry.slow_policy {
        pair("slow_policy", &format!("\"{}\"", policy.word()));
    }
    shown.push('}');
    shown
}

/// Of the built-in namespace that serves the demo page.
pub const DEMO: &str = "demo";

/// What is kept of its channels.
pub const DEMO_HISTORY_SIZE: usize = 100;

/// And for how long.
pub const DEMO_HISTORY_TTL: Duration = Duration::from_secs(300);

pub(super) const ENTRIES_MAX: usize = 256;
pub(super) const NAME_BYTES_MAX: usize = 64;
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;
pub(super) const HISTORY_SIZE_MAX: u64 = 100_000;
pub(super) const HISTORY_TTL_LEAST: Duration = Duration::from_millis(100);
pub(super) const HISTORY_TTL_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
