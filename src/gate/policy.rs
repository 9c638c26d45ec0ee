//! What is asked of newcomers: the part of the configuration that a reload replaces.

use super::{
    origin::{self, Asked},
    token::same_secret,
};
use crate::config::{Config, Origins, Secret};

/// Which list of origins counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OriginList {
    /// `TIDEMILL_ORIGINS`.
    #[default]
    Default,
    /// `TIDEMILL_ORIGINS_ECHO`, where it is set.
    Echo,
    /// `TIDEMILL_ORIGINS_RAW`, where it is set.
    Raw,
    /// `TIDEMILL_ORIGINS_NATIVE`, where it is set; where it is not, every origin if a token is
    /// required.
    Native,
}

/// What is asked of newcomers.
#[derive(Clone, Debug)]
pub struct Policy {
    origins: Origins,
    origins_echo: Option<Origins>,
    origins_raw: Option<Origins>,
    origins_native: Option<Origins>,
    is_loopback_only: bool,
    api_key: Option<Secret>,
    takes_tokens: bool,
    token_required: bool,
    token_cookie: Option<String>,
}

/// How a request compares with the API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyCheck {
    Right,
    Wrong,
    /// No key is configured: nobody may.
    Off,
}

/// Where an upgrade request says that it comes from and goes to.
#[derive(Clone, Copy, Debug)]
pub struct Journey<'a> {
    /// The `Origin` header.
    pub origin: &'a str,
    /// Whom the request is for, as its sender wrote it.
    pub host: &'a str,
    /// Whether it came over TLS; `None` when a proxy in front does not say.
    pub is_secure: Option<bool>,
    /// Whether it came on somebody else's behalf.
    pub is_relayed: bool,
}

impl Policy {
    /// `is_loopback_only`: whether every listener is one that only this machine reaches.
    pub fn new(config: &Config, is_loopback_only: bool) -> Self {
        Self {
            origins: config.origins.clone().unwrap_or_else(Origins::same_origin),
            origins_echo: config.origins_echo.clone(),
            origins_raw: config.origins_raw.clone(),
            origins_native: config.origins_native_in_effect(),
            is_loopback_only,
            api_key: config.api_key.clone(),
            takes_tokens: config.has_token_keys(),
            token_required: config.token_is_required(),
            token_cookie: config.token_cookie.clone(),
        }
    }

    /// The variable that a list comes from.
    pub fn variable(&self, list: OriginList) -> &'static str {
        match (list, self.own(list)) {
            (OriginList::Echo, Some(_)) => "TIDEMILL_ORIGINS_ECHO",
            (OriginList::Raw, Some(_)) => "TIDEMILL_ORIGINS_RAW",
            (OriginList::Native, Some(_)) => "TIDEMILL_ORIGINS_NATIVE",
            (OriginList::Default, _) | (_, None) => "TIDEMILL_ORIGINS",
        }
    }

    /// Whether a page of this origin may open a connection.
    pub fn allows_origin(&self, list: OriginList, journey: &Journey<'_>) -> bool {
        origin::allows(&Asked {
            origins: self.list(list),
            origin: journey.origin,
            host: journey.host,
            is_secure: journey.is_secure,
            is_loopback_only: self.is_loopback_only && !journey.is_relayed,
        })
    }

    fn list(&self, list: OriginList) -> &Origins {
        self.own(list).unwrap_or(&self.origins)
    }

    /// The list that a dialect has for itself.
    fn own(&self, list: OriginList) -> Option<&Origins> {
        match list {
            OriginList::Default => None,
            OriginList::Echo => self.origins_echo.as_ref(),
            OriginList::Raw => self.origins_raw.as_ref(),
            OriginList::Native => self.origins_native.as_ref(),
        }
    }

    /// Whether every listener is one that only this machine reaches.
    pub fn is_loopback_only(&self) -> bool {
        self.is_loopback_only
    }

    /// Whether there is anything to check a token with.
    pub fn takes_tokens(&self) -> bool {
        self.takes_tokens
    }

    pub fn token_is_required(&self) -> bool {
        self.token_required
    }

    /// The cookie that a token may come in.
    pub fn token_cookie(&self) -> Option<&str> {
        self.token_cookie.as_deref()
    }

    /// Compares a key with the API's, in a time that does not depend on where they differ.
    pub fn check_api_key(&self, shown: Option<&str>) -> KeyCheck {
        match (&self.api_key, shown) {
            (None, _) => KeyCheck::Off,
            (Some(key), Some(shown)) if same_secret(key.expose().as_bytes(), shown.as_bytes()) => {
                KeyCheck::Right
            }
            (Some(_), _) => KeyCheck::Wrong,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTS: [OriginList; 4] = [
        OriginList::Default,
        OriginList::Echo,
        OriginList::Raw,
        OriginList::Native,
    ];

    /// The lists on which a page of another site is let in.
    fn open(policy: &Policy) -> Vec<OriginList> {
        let journey = Journey {
            origin: "https://elsewhere.example",
            host: "ws.example",
            is_secure: Some(true),
            is_relayed: false,
        };
        let lists = LISTS.into_iter();
        lists
            .filter(|list| policy.allows_origin(*list, &journey))
            .collect()
    }

    #[test]
    fn a_dialect_s_own_list_counts_for_it_alone() {
        let elsewhere = || Origins::parse("elsewhere.example").ok();
        let cases = [
            (
                Config {
                    origins_echo: elsewhere(),
                    ..Config::default()
                },
                OriginList::Echo,
                "TIDEMILL_ORIGINS_ECHO",
            ),
            (
                Config {
                    origins_raw: elsewhere(),
                    ..Config::default()
                },
                OriginList::Raw,
                "TIDEMILL_ORIGINS_RAW",
            ),
            (
                Config {
                    origins_native: elsewhere(),
                    ..Config::default()
                },
                OriginList::Native,
                "TIDEMILL_ORIGINS_NATIVE",
            ),
        ];
        for (config, list, variable) in cases {
            let policy = Policy::new(&config, false);
            assert_eq!(open(&policy), [list]);
            assert_eq!(policy.variable(list), variable);
            let others = LISTS.into_iter().filter(|other| *other != list);
            for other in others {
                assert_eq!(policy.variable(other), "TIDEMILL_ORIGINS");
            }
        }
        let general = Config {
            origins: elsewhere(),
            origins_native: Some(Origins::same_origin()),
            ..Config::default()
        };
        let policy = Policy::new(&general, false);
        assert_eq!(open(&policy), LISTS[..3]);
    }

    #[test]
    fn where_a_token_is_required_pages_of_any_origin_may_speak_the_native_dialect() {
        let keyed = Config {
            token_secret: Some(Secret::new("one")),
            ..Config::default()
        };
        assert_eq!(open(&Policy::new(&keyed, false)), [OriginList::Native]);
        let optional = Config {
            token_required: Some(false),
            ..keyed.clone()
        };
        assert_eq!(open(&Policy::new(&optional, false)), []);
        let listed = Config {
            origins_native: Some(Origins::same_origin()),
            ..keyed
        };
        assert_eq!(open(&Policy::new(&listed, false)), []);
    }
}
