//! How much of the gate is on.

use std::io;

use super::token;
use crate::selection::Tidemills;
use crate::servers::{Kind, Variables};
use crate::socket::Credentials;

/// RFC 7518, 3.2: as long as the hash at least.
const SECRET: &str = "an hmac secret of some forty bytes, or so";

/// Nothing of it ever bites: every limit is far above what a benchmark does. The trusted proxies
/// are elsewhere, or no address would be counted.
const BOUNDS: Variables = &[
    ("TIDEMILL_MAX_CONNECTIONS_PER_IP", "1000000"),
    ("TIDEMILL_CONNECT_RATE_PER_IP", "1000000"),
    ("TIDEMILL_HALF_OPEN_PER_IP", "1000000"),
    ("TIDEMILL_RATE_MESSAGES", "1000000"),
    ("TIDEMILL_RATE_BYTES", "100000000"),
    (
        "TIDEMILL_ORIGINS",
        "https://example.com,https://*.example.org",
    ),
    ("TIDEMILL_TRUSTED_PROXIES", "192.0.2.0/24,2001:db8::/32"),
];
const ORIGIN: &str = "Origin: https://app.example.org\r\n";
const TOKENS: Variables = &[("TIDEMILL_TOKEN_SECRET", SECRET)];

/// One setting of the gate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Setting {
    /// As it is by default, for connections without an Origin.
    Off,
    /// Caps, rates, a list of origins and trusted proxies.
    OnWithoutTokens,
    /// The same, and a token that expires.
    On,
}

impl Setting {
    const ALL: [Self; 3] = [Self::Off, Self::OnWithoutTokens, Self::On];

    /// What the report and `--settings` call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::OnWithoutTokens => "on-without-tokens",
            Self::On => "on",
        }
    }

    fn apply(self, kind: Kind) -> io::Result<Kind> {
        let origin = Credentials {
            query: String::new(),
            headers: ORIGIN.into(),
        };
        Ok(match self {
            Self::Off => kind,
            Self::OnWithoutTokens => kind.with(BOUNDS).asked_with(origin),
            Self::On => kind.with(BOUNDS).with(TOKENS).asked_with(Credentials {
                query: format!("?token={}", token::lasting(SECRET)?),
                ..origin
            }),
        })
    }
}

/// The setting of that name.
///
/// # Errors
/// An unknown name, with the known ones.
pub fn named(name: &str) -> Result<Setting, String> {
    let setting = Setting::ALL
        .into_iter()
        .find(|setting| setting.name() == name);
    setting.ok_or_else(|| {
        let known = Setting::ALL.map(Setting::name).join(", ");
        format!("no setting {name}, there is {known}")
    })
}

/// A server for each setting, by its name, and the earlier one behind them, which may know of none.
///
/// # Errors
/// A binary that is not there, and no clock.
pub fn servers(tidemills: &Tidemills, settings: &[Setting]) -> io::Result<Vec<Kind>> {
    let mut kinds = Vec::new();
    for setting in settings {
        let kind = tidemills.now(setting.name(), &[]);
        kinds.push(setting.apply(kind.map_err(io::Error::other)?)?);
    }
    kinds.extend(tidemills.before("before", &[]).map_err(io::Error::other)?);
    Ok(kinds)
}
