//! Certificates while the server runs: read again when their files change or somebody asks, checked
//! before they are shown, and watched as they expire.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::ServerError;
use crate::{
    config::Config,
    mailbox::Sender,
    metrics::Registry,
    reactor::Mail,
    transport::tls::{Certificates, CertificatesError, Tickets},
};

/// Certificates with less left than this are warned about.
const WARN_DAYS: i64 = 14;

/// How often, once they are.
const WARN_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Keeps the certificates of a server. Connections keep what they were shown.
pub struct Keeper {
    config: Config,
    tickets: Tickets,
    registry: Arc<Registry>,
    current: Arc<Certificates>,
    /// What the files were like when they were last read.
    seen: Vec<Option<(SystemTime, u64)>>,
    warned: Instant,
}

impl Keeper {
    /// Reads the certificates for the first time; `None` without a TLS listener.
    pub fn start(config: &Config, registry: &Arc<Registry>) -> Result<Option<Self>, ServerError> {
        if config.tls_listen.is_empty() {
            return Ok(None);
        }
        let seen = look(config);
        let tickets = Tickets::new()?;
        let current = Arc::new(Certificates::load(config, &tickets)?);
        let mut keeper = Self {
            config: config.clone(),
            tickets,
            registry: Arc::clone(registry),
            current,
            seen,
            warned: Instant::now(),
        };
        keeper.publish_expiry();
        if config.tls_self_signed {
            log::warn!(
                "TIDEMILL_TLS_SELF_SIGNED: showing a certificate that was made just now and that \
                 no client can trust; for development only"
            );
        }
        keeper.announce();
        Ok(Some(keeper))
    }

    pub fn current(&self) -> &Arc<Certificates> {
        &self.current
    }

    /// How long nothing needs to be looked at.
    pub fn pause(&self) -> Duration {
        let interval = self.config.tls_reload_interval;
        interval.unwrap_or(WARN_INTERVAL).min(WARN_INTERVAL)
    }

    /// Looks whether the files have changed, and reads them if they have.
    pub fn look(&mut self, mail: &[Sender<Mail>]) {
        if self.config.tls_reload_interval.is_some() && look(&self.config) != self.seen {
            let is_good = self.reload(mail);
            self.registry.reloads().count(is_good);
        } else if self.warned.elapsed() >= WARN_INTERVAL {
            self.warn_of_expiry();
        }
    }

    /// Reads everything anew, and shows it if all of it is good.
    pub fn reload(&mut self, mail: &[Sender<Mail>]) -> bool {
        self.seen = look(&self.config);
        let read = self.read();
        let is_good = read.is_ok();
        match read {
            Ok(certificates) => {
                self.current = Arc::new(certificates);
                for sender in mail {
                    sender.send(Mail::Certificates(Arc::clone(&self.current)));
                }
                self.announce();
            }
            Err(error) => {
                log::error!("certificates not reloaded, the old ones stay error=\"{error}\"");
                self.warn_of_expiry();
            }
        }
        self.publish_expiry();
        is_good
    }

    /// Says what is shown from now on.
    fn announce(&mut self) {
        for shown in self.current.shown() {
            log::info!("certificate loaded {shown}");
        }
        self.warn_of_expiry();
    }

    fn read(&mut self) -> Result<Certificates, CertificatesError> {
        // A ticket speaks for the certificate that its client once showed: authorities that have
        // changed since have not seen it.
        if self.config.tls_client_ca.is_some() {
            self.tickets = Tickets::new()?;
        }
        Certificates::load(&self.config, &self.tickets)
    }

    fn publish_expiry(&self) {
        if let Some(first) = self.current.first_to_expire() {
            let reloads = self.registry.reloads();
            reloads.set_certificate_expires(first.expires);
        }
    }

    fn warn_of_expiry(&mut self) {
        self.warned = Instant::now();
        for shown in self.current.shown() {
            match shown.days_left() {
                ..0 => log::error!("certificate has expired, renew it {shown}"),
                0..WARN_DAYS => log::warn!("certificate expires soon, renew it {shown}"),
                _ => {}
            }
        }
    }
}

/// What tells that a file has changed: its time and its length.
fn look(config: &Config) -> Vec<Option<(SystemTime, u64)>> {
    let files = config.tls_cert.iter().chain(&config.tls_key);
    let of = |file: &PathBuf| {
        let facts = fs::metadata(file).ok()?;
        Some((facts.modified().ok()?, facts.len()))
    };
    files.chain(&config.tls_client_ca).map(of).collect()
}
