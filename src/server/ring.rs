//! The keys that tokens are checked with: those of the configuration, and those that
//! `TIDEMILL_TOKEN_JWKS_URL` answers with, which a thread of its own fetches now and then.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{ServerError, keys, system};
use crate::{
    config::Config,
    gate::{
        Gate,
        token::{KeyError, Keys, Rules, Tokens},
    },
};

/// An unknown key brings a fetch forward, but not closer than this to the one before: whoever makes
/// up names of keys must not make us flood their issuer.
const FETCH_PAUSE: Duration = Duration::from_secs(10);

/// How often the thread looks whether it is time.
const LOOK: Duration = Duration::from_secs(1);

/// The keys of a server, by where they come from.
#[derive(Clone)]
pub struct KeyRing {
    rules: Rules,
    source: Option<Source>,
    keys: Arc<Mutex<Held>>,
}

#[derive(Clone)]
struct Source {
    url: String,
    interval: Duration,
}

#[derive(Default)]
struct Held {
    configured: Keys,
    fetched: Keys,
    /// When to fetch next.
    due: Option<Instant>,
    fetched_at: Option<Instant>,
}

impl KeyRing {
    /// Reads the configured keys, and fetches the others for the first time. Without those the
    /// server starts all the same: their issuer may come up later than we do.
    pub fn new(config: &Config) -> Result<Self, KeyError> {
        let held = Held {
            configured: configured(config)?,
            ..Held::default()
        };
        let ring = Self {
            rules: Rules {
                // Tokens know whole seconds only.
                leeway_seconds: config.token_leeway.as_millis().div_ceil(1000) as u64,
                issuers: config.token_issuer.clone(),
                audiences: config.token_audience.clone(),
            },
            source: config.token_jwks_url.clone().map(|url| Source {
                url,
                interval: config.token_jwks_interval,
            }),
            keys: Arc::new(Mutex::new(held)),
        };
        if let Some(source) = &ring.source {
            ring.fetch(source);
        }
        Ok(ring)
    }

    /// What verifies tokens with the keys of now.
    pub fn tokens(&self) -> Tokens {
        Tokens::new(self.joined(), self.rules.clone())
    }

    /// Takes over the keys of another configuration.
    pub fn replace(&self, config: &Config, gate: &Gate) -> Result<(), KeyError> {
        let configured = configured(config)?;
        self.held().configured = configured;
        gate.tokens.replace(self.joined());
        Ok(())
    }

    /// Fetches whenever it is time, for as long as the server runs.
    pub fn watch(&self, gate: &Arc<Gate>) -> Result<(), ServerError> {
        let Some(source) = self.source.clone() else {
            return Ok(());
        };
        let (ring, gate) = (self.clone(), Arc::downgrade(gate));
        let body = move || {
            loop {
                thread::sleep(LOOK);
                let Some(gate) = gate.upgrade() else { return };
                if ring.is_due(gate.tokens.wants_keys()) && ring.fetch(&source) {
                    gate.tokens.replace(ring.joined());
                }
            }
        };
        let thread = thread::Builder::new().name("keys".to_owned());
        thread
            .spawn(body)
            .map(drop)
            .map_err(system("start a thread"))
    }

    fn is_due(&self, is_wanted: bool) -> bool {
        let now = Instant::now();
        let held = self.held();
        let is_late = held.due.is_none_or(|due| due <= now);
        let is_rested = held
            .fetched_at
            .is_none_or(|at| now.duration_since(at) >= FETCH_PAUSE);
        is_late || is_wanted && is_rested
    }

    /// Fetches once; false when that failed, and the keys of before stay.
    fn fetch(&self, source: &Source) -> bool {
        let fetched = keys::fetch(&source.url);
        let now = Instant::now();
        let mut held = self.held();
        held.fetched_at = Some(now);
        match fetched {
            Ok((keys, age_max)) => {
                let pause = age_max.unwrap_or(source.interval);
                held.due = Some(now + pause.clamp(FETCH_PAUSE, source.interval));
                log::info!("token keys fetched keys={}", keys.len());
                held.fetched = keys;
                true
            }
            Err(error) => {
                held.due = Some(now + FETCH_PAUSE.min(source.interval));
                let consequence = match (held.fetched.is_empty(), held.configured.is_empty()) {
                    (true, true) => "tokens are refused with 503",
                    (true, false) => "only those of the configuration count",
                    (false, _) => "the old ones stay",
                };
                log::error!("token keys not fetched, {consequence} error=\"{error}\"");
                false
            }
        }
    }

    fn joined(&self) -> Keys {
        let held = self.held();
        Keys::join([held.configured.clone(), held.fetched.clone()])
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn configured(config: &Config) -> Result<Keys, KeyError> {
    let secret = config.token_secret.as_ref().map(|secret| secret.expose());
    let public = config.token_public_key.as_ref().map(|key| key.expose());
    Keys::load(secret, public)
}
