//! What contradicts itself in the entries, and what is allowed and seldom meant.

use std::time::Duration;

use super::{DEMO, DEMO_HISTORY_SIZE, DEMO_HISTORY_TTL, NamespaceEntry, NamespaceFlag as Flag};
use crate::config::error::ConfigError;
use crate::config::settings::Config;

impl Config {
    /// Whether only this machine can connect.
    pub fn is_loopback_only(&self) -> bool {
        let listen = self.listen_addresses();
        let mut all = listen
            .iter()
            .chain(&self.tls_listen)
            .chain(&self.admin_listen);
        all.all(|address| address.ip().to_canonical().is_loopback())
    }

    /// Entries that keep nothing of what they promise.
    pub(in crate::config) fn check_namespaces(&self) -> Result<(), ConfigError> {
        for entry in self.namespaces.iter().filter(|entry| !entry.is_off) {
            if let Some(problem) = self.history_problem(entry) {
                let about = format!("TIDEMILL_NAMESPACES: {:?}: {problem}", entry.name);
                return Err(ConfigError::Conflict(about));
            }
        }
        Ok(())
    }

    /// The most of a channel's publications that are kept, and for how long, before the entry is
    /// heard.
    fn history_built_in(&self, name: &str) -> (usize, Duration) {
        match name {
            "" => (self.history_size, self.history_ttl),
            DEMO => (DEMO_HISTORY_SIZE, DEMO_HISTORY_TTL),
            _ => (0, Duration::ZERO),
        }
    }

    fn history_problem(&self, entry: &NamespaceEntry) -> Option<String> {
        let (built_in_size, built_in_ttl) = self.history_built_in(&entry.name);
        let size = entry.history_size.unwrap_or(built_in_size);
        let ttl = entry.history_ttl.unwrap_or(built_in_ttl);
        let needs = [Flag::ForceRecovery, Flag::ForcePositioning];
        let needs = needs.into_iter().find(|flag| entry.names(*flag));
        if size > 0 && ttl.is_zero() {
            Some(format!(
                "history_size {size} without history_ttl keeps nothing; add \
                 \"history_ttl\":\"300s\""
            ))
        } else if size == 0 && entry.history_ttl.is_some_and(|ttl| !ttl.is_zero()) {
            Some(
                "history_ttl without history_size keeps nothing; add \"history_size\":100"
                    .to_owned(),
            )
        } else {
            let flag = needs.filter(|_| size == 0)?;
            Some(format!(
                "{} needs a history; add \"history_size\":100,\"history_ttl\":\"300s\"",
                flag.key()
            ))
        }
    }

    /// What opens more, or does less, than it looks.
    pub(in crate::config) fn namespace_warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let is_exposed = !self.is_loopback_only() && !self.token_is_required();
        for entry in self.namespaces.iter().filter(|entry| !entry.is_off) {
            let name = &entry.name;
            let mut warn = |text: &str| {
                warnings.push(format!("TIDEMILL_NAMESPACES: {name:?}: {text}"));
            };
            let publishes = entry.names(Flag::AllowPublishForAnonymous);
            if is_exposed && publishes {
                warn(
                    "allow_publish_for_anonymous lets everybody who can reach this server publish \
                     to all subscribers; set a token key, or leave it to clients with a user id",
                );
            }
            for (flag, others, text) in IDLE_ALONE {
                let is_new = !["", DEMO].contains(&name.as_str());
                if is_new && entry.names(flag) && !others.iter().any(|other| entry.names(*other)) {
                    warn(text);
                }
            }
        }
        warnings
    }
}

/// What grants nothing in a namespace of one's own without one of the others.
const IDLE_ALONE: [(Flag, &[Flag], &str); 5] = [
    (
        Flag::AllowSubscribeForAnonymous,
        &[Flag::AllowSubscribeForClient],
        "allow_subscribe_for_anonymous extends allow_subscribe_for_client and grants nothing \
         without it",
    ),
    (
        Flag::AllowPublishForAnonymous,
        &[Flag::AllowPublishForClient, Flag::AllowPublishForSubscriber],
        "allow_publish_for_anonymous extends allow_publish_for_client or _for_subscriber and \
         grants nothing without them",
    ),
    (
        Flag::AllowPresenceForClient,
        &[Flag::Presence],
        "allow_presence_for_client tells nobody anything without presence",
    ),
    (
        Flag::AllowPresenceForSubscriber,
        &[Flag::Presence],
        "allow_presence_for_subscriber tells nobody anything without presence",
    ),
    (
        Flag::ForcePushJoinLeave,
        &[Flag::JoinLeave],
        "force_push_join_leave pushes nothing without join_leave",
    ),
];

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::config::{Secret, SlowPolicy};

    const MINUTE: Duration = Duration::from_secs(60);

    fn with(entry: NamespaceEntry) -> Config {
        Config {
            namespaces: vec![entry],
            ..Config::default()
        }
    }

    fn conflict(config: &Config) -> String {
        match config.validate() {
            Err(ConfigError::Conflict(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_history_has_a_size_and_a_time() {
        let entry = NamespaceEntry::new;
        let size = |name: &str, size| NamespaceEntry {
            history_size: Some(size),
            ..entry(name)
        };
        let ttl = |name: &str, ttl| NamespaceEntry {
            history_ttl: Some(ttl),
            ..entry(name)
        };
        let text = conflict(&with(size("chat", 9)));
        assert!(
            text.starts_with("TIDEMILL_NAMESPACES: \"chat\": history_size 9 without history_ttl"),
            "{text}"
        );
        assert!(text.contains("add \"history_ttl\":\"300s\""), "{text}");
        let text = conflict(&with(ttl("chat", MINUTE)));
        assert!(text.contains("add \"history_size\":100"), "{text}");
        assert_eq!(with(entry("chat").history(9, MINUTE)).validate(), Ok(()));
        assert_eq!(
            with(entry("chat").history(0, Duration::ZERO)).validate(),
            Ok(())
        );
        // What is not named is as it is built in.
        assert_eq!(with(size("demo", 9)).validate(), Ok(()));
        assert_eq!(with(size("demo", 0)).validate(), Ok(()));
        assert_eq!(with(ttl("demo", MINUTE)).validate(), Ok(()));
        assert_eq!(with(size("", 9)).validate(), Ok(()));
        assert!(conflict(&with(ttl("", MINUTE))).contains("\"\": history_ttl without"));
        let sized = Config {
            history_size: 9,
            ..with(ttl("", MINUTE))
        };
        assert_eq!(sized.validate(), Ok(()));
        assert!(
            conflict(&with(ttl("demo", Duration::ZERO))).contains("\"demo\": history_size 100")
        );
    }

    #[test]
    fn what_is_recovered_from_history_needs_one() {
        for flag in [Flag::ForceRecovery, Flag::ForcePositioning] {
            let entry = NamespaceEntry::new("chat").with(flag, true);
            let text = conflict(&with(entry.clone()));
            assert!(
                text.contains(&format!("{} needs a history", flag.key())),
                "{text}"
            );
            assert_eq!(with(entry.history(9, MINUTE)).validate(), Ok(()));
            let demo = NamespaceEntry::new("demo").with(flag, true);
            assert_eq!(with(demo).validate(), Ok(()));
            let unprefixed = with(NamespaceEntry::new("").with(flag, true));
            assert!(unprefixed.validate().is_err());
            let sized = Config {
                history_size: 1,
                ..unprefixed
            };
            assert_eq!(sized.validate(), Ok(()));
        }
    }

    #[test]
    fn an_entry_that_is_off_is_not_judged() {
        let off = NamespaceEntry {
            is_off: true,
            ..NamespaceEntry::new("chat").with(Flag::ForceRecovery, true)
        };
        let config = with(off);
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(config.warnings(), [""; 0]);
    }

    #[test]
    fn entries_that_a_program_made_are_held_to_the_same_bounds() {
        let refused = [
            NamespaceEntry::new("a:b"),
            NamespaceEntry::new(&"n".repeat(65)),
            NamespaceEntry::new("\""),
            NamespaceEntry::new("a").history(100_001, MINUTE),
            NamespaceEntry::new("a").history(1, Duration::MAX),
            NamespaceEntry {
                is_off: true,
                ..NamespaceEntry::new("")
            },
        ];
        for entry in refused {
            let validity = with(entry.clone()).validate();
            assert!(matches!(validity, Err(ConfigError::Value(_))), "{entry:?}");
        }
        let twice = Config {
            namespaces: vec![NamespaceEntry::new("a"), NamespaceEntry::new("a")],
            ..Config::default()
        };
        assert!(twice.validate().is_err());
        let slow = NamespaceEntry {
            slow_policy: Some(SlowPolicy::Drop),
            ..NamespaceEntry::new("a")
        };
        assert_eq!(with(slow).validate(), Ok(()));
    }

    #[test]
    fn everybody_s_publications_are_warned_about_beyond_loopback() {
        let entry = NamespaceEntry::new("chat")
            .with(Flag::AllowPublishForClient, true)
            .with(Flag::AllowPublishForAnonymous, true);
        let at_home = with(entry);
        assert!(at_home.is_loopback_only());
        assert_eq!(at_home.warnings(), [""; 0]);
        let in_the_world = Config {
            listen: Some(vec![SocketAddr::from(([0, 0, 0, 0], 7000))]),
            ..at_home
        };
        assert!(!in_the_world.is_loopback_only());
        let warnings = in_the_world.warnings();
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0].starts_with("TIDEMILL_NAMESPACES: \"chat\": allow_publish_for_anonymous"),
            "{warnings:?}"
        );
        let with_tokens = Config {
            token_secret: Some(Secret::new(&"s".repeat(32))),
            ..in_the_world
        };
        assert_eq!(with_tokens.warnings(), [""; 0]);
    }

    #[test]
    fn what_grants_nothing_alone_is_warned_about() {
        for (flag, others, _) in IDLE_ALONE {
            let alone = NamespaceEntry::new("chat").with(flag, true);
            let warnings = with(alone.clone()).warnings();
            assert_eq!(warnings.len(), 1, "{warnings:?}");
            assert!(warnings[0].contains(flag.key()), "{warnings:?}");
            for other in others {
                let both = alone.clone().with(*other, true);
                assert_eq!(with(both).warnings(), [""; 0]);
            }
            let built_in = NamespaceEntry::new("").with(flag, true);
            assert_eq!(with(built_in).warnings(), [""; 0]);
        }
    }
}
