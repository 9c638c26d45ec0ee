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
}

/// What is asked of newcomers.
#[derive(Clone, Debug)]
pub struct Policy {
    origins: Origins,
    origins_echo: Option<Origins>,
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
            is_loopback_only,
            api_key: config.api_key.clone(),
            takes_tokens: config.has_token_keys(),
            token_required: config.token_is_required(),
            token_cookie: config.token_cookie.clone(),
        }
    }

    /// The variable that a list comes from.
    pub fn variable(&self, list: OriginList) -> &'static str {
        match (list, &self.origins_echo) {
            (OriginList::Echo, Some(_)) => "TIDEMILL_ORIGINS_ECHO",
            (OriginList::Default | OriginList::Echo, _) => "TIDEMILL_ORIGINS",
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
        match list {
            OriginList::Default => &self.origins,
            OriginList::Echo => self.origins_echo.as_ref().unwrap_or(&self.origins),
        }
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
