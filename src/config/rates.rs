//! The options that bound one address and one connection.

use std::time::Duration;

use super::group::Group;
use super::kind::{Kind, Text};
use super::spec::{Preset, Spec};
use super::table::CONNECTIONS_CEILING;
use super::value;

/// What is done with a connection that sends more than its rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RatePolicy {
    /// It is not read from until its rate allows more: TCP tells the sender, nothing is lost.
    Pause,
    /// It is closed with 1008.
    Close,
}

const RATE_POLICY_WORDS: &[(&str, RatePolicy)] =
    &[("pause", RatePolicy::Pause), ("close", RatePolicy::Close)];

pub(super) const CONNECTIONS_PER_IP: Spec = Spec {
    name: "max-connections-per-ip",
    group: Group::Rates,
    placeholder: "COUNT",
    preset: Preset::Value("0"),
    help: "Connections open at once from one address, IPv6 by /64; 0 is off, over it 429",
    reason: "many people may share one address",
    kind: Kind::Count(0..=CONNECTIONS_CEILING, |config| {
        &mut config.connections_per_ip_max
    }),
};

pub(super) const CONNECT_RATE_PER_IP: Spec = Spec {
    name: "connect-rate-per-ip",
    group: Group::Rates,
    placeholder: "COUNT",
    preset: Preset::Value("0"),
    help: "New connections a second from one address, IPv6 by /64; 0 is off, over it 429",
    reason: "many people may share one address; a second's worth may come at once",
    kind: Kind::Count(0..=1_000_000, |config| &mut config.connect_rate_per_ip),
};

pub(super) const HALF_OPEN_PER_IP: Spec = Spec {
    name: "half-open-per-ip",
    group: Group::Rates,
    placeholder: "COUNT",
    preset: Preset::Value("0"),
    help: "Connections of one address before their handshake is done; 0 is off, over it 429",
    reason: "many people may share one address",
    kind: Kind::Count(0..=CONNECTIONS_CEILING, |config| {
        &mut config.half_open_per_ip_max
    }),
};

pub(super) const MESSAGES: Spec = Spec {
    name: "rate-messages",
    group: Group::Rates,
    placeholder: "COUNT",
    preset: Preset::Value("0"),
    help: "Messages a second from one connection, pings and pongs counted; 0 is off",
    reason: "above it RATE_POLICY holds",
    kind: Kind::Count(0..=1_000_000, |config| &mut config.rate_messages),
};

pub(super) const BYTES: Spec = Spec {
    name: "rate-bytes",
    group: Group::Rates,
    placeholder: "SIZE",
    preset: Preset::Value("0"),
    help: "Bytes a second from one connection; 0 is off",
    reason: "above it RATE_POLICY holds; a message larger than it is taken and paid for afterwards",
    kind: Kind::Size(0..=1 << 30, |config| &mut config.rate_bytes),
};

pub(super) const BURST: Spec = Spec {
    name: "rate-burst",
    group: Group::Rates,
    placeholder: "TIME",
    preset: Preset::Value("1s"),
    help: "How much unused rate a connection may save up",
    reason: "so much time's worth may come at once",
    kind: Kind::Time(
        Duration::from_millis(100)..=Duration::from_secs(60),
        |config| &mut config.rate_burst,
    ),
};

pub(super) const POLICY: Spec = Spec {
    name: "rate-policy",
    group: Group::Rates,
    placeholder: "HOW",
    preset: Preset::Value("pause"),
    help: "Over its rate a connection is not read from for a while, or closed with 1008",
    reason: "a pause loses nothing: TCP lets the sender wait",
    kind: Kind::Text(Text {
        allowed: "pause or close",
        read: |text, config| {
            config.rate_policy = value::word(text, RATE_POLICY_WORDS)?;
            Ok(())
        },
        show: |config| value::spelling(config.rate_policy, RATE_POLICY_WORDS).to_owned(),
    }),
};
