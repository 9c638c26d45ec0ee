//! The options about channels: what is kept of them, and what one connection may ask of them.

use super::group::Group;
use super::kind::{Kind, Text};
use super::namespaces;
use super::spec::{Preset, Spec};

pub(super) const NAMESPACES: Spec = Spec {
    name: "namespaces",
    group: Group::Channels,
    placeholder: "JSON",
    preset: Preset::Decided("demo, and names without a prefix"),
    help: "Who may do what with channels named NAME:..., and what is kept of them",
    reason: "docs/access.md lists the keys, which are those of Centrifugo's namespaces",
    kind: Kind::Text(Text {
        allowed: r#"a JSON array such as [{"name":"chat","presence":true}], or a file of it"#,
        read: |text, config| {
            config.namespaces = namespaces::read(text)?;
            Ok(())
        },
        show: |config| namespaces::show(&config.namespaces),
    }),
};

pub(super) const HISTORY_SIZE: Spec = Spec {
    name: "history-size",
    group: Group::Channels,
    placeholder: "COUNT",
    preset: Preset::Value("0"),
    help: "Publications kept for each channel whose name has no prefix; 0 is off",
    reason: "they are held in memory; NAMESPACES says it for the other names",
    kind: Kind::Count(0..=namespaces::HISTORY_SIZE_MAX, |config| {
        &mut config.history_size
    }),
};

pub(super) const HISTORY_TTL: Spec = Spec {
    name: "history-ttl",
    group: Group::Channels,
    placeholder: "TIME",
    preset: Preset::Value("300s"),
    help: "For how long HISTORY_SIZE publications are kept",
    reason: "they are held in memory",
    kind: Kind::Time(
        namespaces::HISTORY_TTL_LEAST..=namespaces::HISTORY_TTL_MAX,
        |config| &mut config.history_ttl,
    ),
};

pub(super) const RECOVERY_MAX: Spec = Spec {
    name: "recovery-max",
    group: Group::Channels,
    placeholder: "COUNT",
    preset: Preset::Decided("history size"),
    help: "Publications that a subscriber who comes back is sent; who missed more starts anew",
    reason: "at most what half an outbox holds",
    kind: Kind::AutoCount(1..=namespaces::HISTORY_SIZE_MAX, |config| {
        &mut config.recovery_max
    }),
};

pub(super) const SUBSCRIPTIONS: Spec = Spec {
    name: "max-subscriptions",
    group: Group::Channels,
    placeholder: "COUNT",
    preset: Preset::Value("128"),
    help: "Channels that one connection may be subscribed to",
    reason: "each is held in memory, and left one by one when the connection ends",
    kind: Kind::Count(1..=4096, |config| &mut config.subscriptions_max),
};

pub(super) const CHANNEL_NAME: Spec = Spec {
    name: "max-channel-name",
    group: Group::Channels,
    placeholder: "BYTES",
    preset: Preset::Value("200"),
    help: "Bytes of a channel's name",
    reason: "each channel in use holds its name in memory",
    kind: Kind::Count(1..=1024, |config| &mut config.channel_name_bytes_max),
};
