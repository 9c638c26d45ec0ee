//! Which certificate a client is shown.

use std::{collections::HashMap, sync::Arc};

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// Chooses by the name that a client asks for (RFC 6066, 3), and among several by what the client
/// can verify. Whoever asks for none, or for one that is not there, gets the first.
#[derive(Debug, Default)]
pub struct Resolver {
    all: Vec<Arc<CertifiedKey>>,
    /// By name in lower case; `*.` stands for one label.
    named: HashMap<String, Vec<Arc<CertifiedKey>>>,
}

impl Resolver {
    pub fn add(&mut self, key: CertifiedKey, names: &[String]) {
        let key = Arc::new(key);
        for name in names {
            let named = self.named.entry(name.clone()).or_default();
            named.push(Arc::clone(&key));
        }
        self.all.push(key);
    }

    fn candidates(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let find = |name: &str| {
            let exact = self.named.get(name);
            exact.or_else(|| {
                let (_, parent) = name.split_once('.')?;
                self.named.get(&format!("*.{parent}"))
            })
        };
        name.and_then(|name| find(&name.to_ascii_lowercase()))
            .unwrap_or(&self.all)
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let candidates = self.candidates(hello.server_name());
        let offered = hello.signature_schemes();
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(offered).is_some();
        candidates
            .iter()
            .find(fits)
            .or_else(|| candidates.first())
            .cloned()
    }
}
