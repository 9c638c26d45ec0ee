//! What can change while the server runs: certificates, token keys, the API key, origins. Upon
//! SIGHUP, or when a certificate's file changes; on a thread of its own.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use super::{ServerError, certificates::Keeper, ring::KeyRing, system};
use crate::{
    config::Config,
    gate::{Gate, Policy},
    mailbox::Sender,
    metrics::Registry,
    reactor::Mail,
};

/// How long the thread sleeps when nothing needs to be looked at.
const PAUSE: Duration = Duration::from_secs(24 * 60 * 60);

/// Who knows how to take over what.
pub struct Reload {
    /// What holds now.
    pub config: Config,
    pub gate: Arc<Gate>,
    pub registry: Arc<Registry>,
    pub is_loopback_only: bool,
    pub mail: Vec<Sender<Mail>>,
    pub keeper: Option<Keeper>,
    pub ring: KeyRing,
}

impl Reload {
    /// Waits for whoever asks, for as long as the server runs.
    pub fn watch(mut self) -> Result<mpsc::Sender<Config>, ServerError> {
        self.ring.watch(&self.gate)?;
        let mail = self.mail.clone();
        self.gate.set_herald(Box::new(move |revocation| {
            for sender in &mail {
                sender.send(Mail::Revoked(Arc::clone(revocation)));
            }
        }));
        let (ask, asked) = mpsc::channel();
        let body = move || {
            loop {
                let pause = self.keeper.as_ref().map_or(PAUSE, Keeper::pause);
                match asked.recv_timeout(pause) {
                    Ok(config) => self.take_over(&config),
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        if let Some(keeper) = &mut self.keeper {
                            keeper.look(&self.mail);
                        }
                    }
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        let thread = thread::Builder::new().name("reload".to_owned());
        let started = thread.spawn(body);
        started.map(|_| ask).map_err(system("start a thread"))
    }

    /// Takes over what may change of a configuration. What is wrong with one part does not keep the
    /// others from it.
    fn take_over(&mut self, config: &Config) {
        let mut is_good = true;
        for spec in self.config.changes(config) {
            log::warn!("{} has changed, which needs a restart", spec.variable());
        }
        match self.keys(config) {
            Ok(()) => {}
            Err(error) => {
                is_good = false;
                log::error!("token keys not reloaded, the old ones stay error=\"{error}\"");
            }
        }
        self.config.origins.clone_from(&config.origins);
        self.config.origins_echo.clone_from(&config.origins_echo);
        self.config.api_key.clone_from(&config.api_key);
        let policy = Policy::new(&self.config, self.is_loopback_only);
        self.gate.replace_policy(policy);
        if let Some(keeper) = &mut self.keeper {
            is_good &= keeper.reload(&self.mail);
        }
        self.registry.reloads().count(is_good);
        if is_good {
            log::info!("reloaded");
        }
    }

    fn keys(&mut self, config: &Config) -> Result<(), String> {
        // Without keys, nothing is remembered of single peers: no expiry, no revocation.
        if config.has_token_keys() != self.config.has_token_keys() {
            return Err("to begin or end the use of tokens needs a restart".to_owned());
        }
        let replaced = self.ring.replace(config, &self.gate);
        replaced.map_err(|error| error.to_string())?;
        self.config.token_secret.clone_from(&config.token_secret);
        self.config
            .token_public_key
            .clone_from(&config.token_public_key);
        Ok(())
    }
}
