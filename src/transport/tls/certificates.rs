//! What a server shows to its peers: certificates and their keys, read, checked and put together.

use std::{
    fmt, fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs::Ticketer},
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    server::{
        NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier, danger::ClientCertVerifier,
    },
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use thiserror::Error;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{provider, resolver::Resolver};
use crate::config::{ClientAuth, Config};

/// The protocol that is spoken inside (RFC 7301): WebSocket upgrades from it, and no other.
pub(super) const ALPN: &[u8] = b"http/1.1";

/// A client gets a new ticket with each connection; more would be made and sent for nothing.
const TICKETS_PER_HANDSHAKE: usize = 1;

/// Names in a certificate made for development.
const SELF_SIGNED_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// How long such a certificate is valid.
const SELF_SIGNED_DAYS: i64 = 365;

/// Certificates that are ready to be shown. See the module's text.
#[derive(Clone, Debug)]
pub struct Certificates {
    server: Arc<ServerConfig>,
    shown: Vec<Shown>,
}

/// One certificate.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Where it comes from; none is one made in memory.
    pub file: Option<PathBuf>,
    /// The names and addresses that it is good for.
    pub names: Vec<String>,
    /// When it expires, in seconds since 1970.
    pub expires: i64,
}

/// Seals and opens the tickets by which clients resume (RFC 8446, 4.6.1). The server keeps nothing
/// of them; the key is changed every six hours, and the one before is still taken.
#[derive(Clone, Debug)]
pub struct Tickets(Arc<dyn ProducesTickets>);

/// Why certificates cannot be shown.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{variable}: {}{problem}", Place(file.as_deref()))]
pub struct CertificatesError {
    /// The variable that is to be set right, with its prefix.
    variable: &'static str,
    file: Option<PathBuf>,
    /// What is wrong, and the remedy.
    problem: String,
}

struct Place<'a>(Option<&'a Path>);

impl fmt::Display for Place<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(file) => write!(formatter, "{}: ", file.display()),
            None => Ok(()),
        }
    }
}

/// One end of an error: the variable and the file.
#[derive(Clone, Copy)]
struct Of<'f>(&'static str, &'f Path);

impl Of<'_> {
    fn error(self, problem: impl fmt::Display) -> CertificatesError {
        CertificatesError {
            variable: self.0,
            file: Some(self.1.to_owned()),
            problem: problem.to_string(),
        }
    }

    fn read(self) -> Result<Vec<u8>, CertificatesError> {
        fs::read(self.1)
            .map_err(|error| self.error(format!("{error}; name a file that this user may read")))
    }
}

impl Tickets {
    /// # Errors
    /// When the system gives no randomness.
    pub fn new() -> Result<Self, CertificatesError> {
        Ticketer::new().map(Self).map_err(internal)
    }
}

impl Certificates {
    /// Reads and checks what the configuration names. Certificates must parse, match their keys,
    /// and be valid now.
    ///
    /// # Errors
    /// The variable, the file and what is wrong with it.
    pub fn load(config: &Config, tickets: &Tickets) -> Result<Self, CertificatesError> {
        let provider = provider();
        let mut resolver = Resolver::default();
        let mut shown = Vec::new();
        if config.tls_self_signed {
            let (key, expires) = self_signed(&provider)?;
            let names = SELF_SIGNED_NAMES.map(str::to_owned).to_vec();
            resolver.add(key, &names);
            shown.push(Shown {
                file: None,
                names,
                expires,
            });
        }
        for (certificate, key) in config.tls_cert.iter().zip(&config.tls_key) {
            let (key, facts) = pair(certificate, key, &provider)?;
            resolver.add(key, &facts.names);
            shown.push(facts);
        }
        let versions = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(internal)?;
        let mut server = match &config.tls_client_ca {
            None => versions.with_no_client_auth(),
            Some(file) => {
                let verifier = client_verifier(file, config.tls_client_auth, provider)?;
                versions.with_client_cert_verifier(verifier)
            }
        }
        .with_cert_resolver(Arc::new(resolver));
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.ticketer = Arc::clone(&tickets.0);
        server.send_tls13_tickets = TICKETS_PER_HANDSHAKE;
        Ok(Self {
            server: Arc::new(server),
            shown,
        })
    }

    /// What sessions are made of.
    pub fn server(&self) -> &Arc<ServerConfig> {
        &self.server
    }

    /// The certificates, the one without a name first.
    pub fn shown(&self) -> &[Shown] {
        &self.shown
    }

    /// The one that expires first.
    pub fn first_to_expire(&self) -> Option<&Shown> {
        self.shown.iter().min_by_key(|shown| shown.expires)
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(formatter, "file={:?}", file.display().to_string())?,
            None => formatter.write_str("self_signed=true")?,
        }
        let names = self.names.join(",");
        write!(formatter, " names={names:?} days_left={}", self.days_left())
    }
}

impl Shown {
    /// Whole days that are left, rounded down; negative once expired.
    pub fn days_left(&self) -> i64 {
        (self.expires - now()).div_euclid(24 * 60 * 60)
    }
}

/// Reads one chain and its key.
fn pair(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<(CertifiedKey, Shown), CertificatesError> {
    let of = Of("TIDEMILL_TLS_CERT", certificate);
    let of_key = Of("TIDEMILL_TLS_KEY", key);
    let chain = chain(of)?;
    let facts = facts(&chain[0], of)?;
    let text = of_key.read()?;
    let private = PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        _ if contains(&text, b"ENCRYPTED") => {
            of_key.error("the key is encrypted; decrypt it with `openssl pkey -in FILE -out NEW`")
        }
        pem::Error::NoItemsFound => of_key
            .error("no private key in it; expected a PEM file with a PKCS#8, PKCS#1 or SEC1 key"),
        error => of_key.error(format!(
            "{}; expected a PEM file with a private key",
            malformed(&error)
        )),
    })?;
    let key = CertifiedKey::from_der(chain, private, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => of_key.error(format!(
            "is not the key of the certificate {}; name the pair that belongs together",
            certificate.display()
        )),
        error => of_key.error(format!("{error}; expected an ECDSA, RSA or Ed25519 key")),
    })?;
    Ok((key, facts))
}

fn chain(of: Of<'_>) -> Result<Vec<CertificateDer<'static>>, CertificatesError> {
    let text = of.read()?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|error| {
        let problem = malformed(&error);
        of.error(format!("{problem}; expected a PEM file of certificates"))
    })?;
    match chain.is_empty() {
        true => Err(of.error("no certificate in it; expected a PEM file, the server's own first")),
        false => Ok(chain),
    }
}

/// What a certificate says of itself, if it is valid now.
fn facts(leaf: &CertificateDer<'_>, of: Of<'_>) -> Result<Shown, CertificatesError> {
    let (_, parsed) = X509Certificate::from_der(leaf)
        .map_err(|error| of.error(format!("its first certificate is malformed: {error}")))?;
    let validity = parsed.validity();
    let now = now();
    if validity.not_after.timestamp() < now {
        return Err(of.error(format!(
            "the certificate expired on {}; renew it",
            validity.not_after
        )));
    }
    if validity.not_before.timestamp() > now {
        return Err(of.error(format!(
            "the certificate is valid only from {} on; is this machine's clock right?",
            validity.not_before
        )));
    }
    Ok(Shown {
        file: Some(of.1.to_owned()),
        names: names(&parsed),
        expires: validity.not_after.timestamp(),
    })
}

/// The subject of a certificate in DER, in words.
pub fn subject(certificate: &[u8]) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(parsed.subject().to_string())
}

/// The names and addresses that a certificate is good for (RFC 5280, 4.2.1.6).
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(alternatives)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = alternatives.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
            _ => None,
        })
        .collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

fn client_verifier(
    file: &Path,
    auth: Option<ClientAuth>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, CertificatesError> {
    let of = Of("TIDEMILL_TLS_CLIENT_CA", file);
    let mut roots = RootCertStore::empty();
    for certificate in chain(of)? {
        roots
            .add(certificate)
            .map_err(|error| of.error(format!("not a certificate of an authority: {error}")))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    match auth {
        None | Some(ClientAuth::Required) => verifier,
        Some(ClientAuth::Optional) => verifier.allow_unauthenticated(),
    }
    .build()
    .map_err(|error| of.error(error))
}

/// A certificate for development, in memory alone.
fn self_signed(provider: &CryptoProvider) -> Result<(CertifiedKey, i64), CertificatesError> {
    let failed = |error: rcgen::Error| internal(rustls::Error::General(error.to_string()));
    let now = now();
    let expires = now + SELF_SIGNED_DAYS * 24 * 60 * 60;
    let date = |seconds| {
        time::OffsetDateTime::from_unix_timestamp(seconds)
            .map_err(|error| internal(rustls::Error::General(error.to_string())))
    };
    let mut parameters =
        rcgen::CertificateParams::new(SELF_SIGNED_NAMES.map(str::to_owned)).map_err(failed)?;
    // A clock that is a little behind is no reason to refuse it.
    parameters.not_before = date(now - 60 * 60)?;
    parameters.not_after = date(expires)?;
    let mut name = rcgen::DistinguishedName::new();
    name.push(rcgen::DnType::CommonName, "Tidemill, for development");
    parameters.distinguished_name = name;
    let key = rcgen::KeyPair::generate().map_err(failed)?;
    let certificate = parameters.self_signed(&key).map_err(failed)?;
    let private = PrivateKeyDer::try_from(key.serialize_der())
        .map_err(|error| internal(rustls::Error::General(error.to_owned())))?;
    let chain = vec![certificate.der().clone()];
    let key = CertifiedKey::from_der(chain, private, provider).map_err(internal)?;
    Ok((key, expires))
}

/// What is wrong with a PEM file. What is in it stays there: it may be a key.
pub(super) fn malformed(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no END line",
        pem::Error::IllegalSectionStart { .. } => "a section's BEGIN line is malformed",
        pem::Error::Base64Decode(_) => "a section is no base64",
        pem::Error::SectionTooLarge => "a section is too large",
        _ => "no PEM file",
    }
}

/// What no file is to blame for.
fn internal(error: rustls::Error) -> CertificatesError {
    CertificatesError {
        variable: "TIDEMILL_TLS_LISTEN",
        file: None,
        problem: format!("cannot set TLS up: {error}"),
    }
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    memchr::memmem::find(text, word).is_some()
}

/// Seconds since 1970.
fn now() -> i64 {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(passed.unwrap_or(Duration::ZERO).as_secs()).unwrap_or(i64::MAX)
}
