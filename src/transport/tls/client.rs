//! What a client makes of the certificate that it is shown, and of the tickets that it is given.

use std::{
    collections::VecDeque,
    fmt, fs, io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use rustls::pki_types::ServerName;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, InvalidMessage, NamedGroup,
    ProtocolVersion, RootCertStore, SignatureScheme,
    client::{
        ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
        UnbufferedClientConnection,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, UnixTime, pem::PemObject},
    version::{TLS12, TLS13},
};

use super::{Session, Violation, certificates::malformed, provider};

/// Whom a client believes, and whether it resumes.
#[derive(Clone, Debug)]
pub struct Trust {
    config: Arc<ClientConfig>,
}

/// The authorities that a client believes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorities {
    /// Those of this system.
    System,
    /// Those in a PEM file.
    File(std::path::PathBuf),
    /// Whoever says anything: no certificate is verified.
    Anybody,
}

impl Trust {
    /// Keeps as many tickets of earlier connections for later ones; with 0, each handshake is a
    /// full one.
    ///
    /// # Errors
    /// What is wrong with the authorities, as a sentence.
    pub fn new(authorities: &Authorities, tickets: usize) -> Result<Self, String> {
        let provider = provider();
        let versions = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| error.to_string())?;
        let trusting = match authorities {
            Authorities::System => versions.with_root_certificates(system_roots()?),
            Authorities::File(file) => versions.with_root_certificates(roots(file)?),
            Authorities::Anybody => versions
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Believer(provider))),
        };
        let mut config = trusting.with_no_client_auth();
        config.alpn_protocols = vec![super::certificates::ALPN.to_vec()];
        config.resumption = match tickets {
            0 => Resumption::disabled(),
            tickets => Resumption::store(Arc::new(Wallet::new(tickets))),
        };
        Ok(Self {
            config: Arc::new(config),
        })
    }

    /// The client's side of a new connection to the server of this name.
    ///
    /// # Errors
    /// When rustls cannot begin a handshake.
    pub fn session(&self, name: &ServerName<'static>) -> io::Result<Session> {
        let connection = UnbufferedClientConnection::new(Arc::clone(&self.config), name.clone());
        Session::client(connection.map_err(io::Error::other)?)
    }
}

/// What both sides of a connection agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// "TLS 1.3" or "TLS 1.2".
    pub version: &'static str,
    /// The cipher suite by its registered name.
    pub suite: String,
}

impl Session {
    /// What was agreed on, once it was.
    pub fn agreement(&self) -> Option<Agreement> {
        let common = self.common();
        let version = match common.protocol_version()? {
            ProtocolVersion::TLSv1_3 => "TLS 1.3",
            _ => "TLS 1.2",
        };
        let suite = format!("{:?}", common.negotiated_cipher_suite()?.suite());
        Some(Agreement {
            version,
            // RFC 8446, B.4, has no number in the name.
            suite: suite.replacen("TLS13_", "TLS_", 1),
        })
    }
}

impl Violation {
    /// What a client says of it: the same words for every connection that ends by it.
    pub fn of_server(&self) -> String {
        let Self::Protocol(error) = self else {
            return self.to_string();
        };
        let certificate = match &**error {
            Error::InvalidCertificate(certificate) => certificate,
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
                return "the answer is no TLS".to_owned();
            }
            error => return error.to_string(),
        };
        let problem = match certificate {
            // Times to the second would make many kinds of one.
            CertificateError::ExpiredContext { .. } => "Expired".to_owned(),
            CertificateError::NotValidYetContext { .. } => "NotValidYet".to_owned(),
            // All the names that it is valid for may be hundreds.
            CertificateError::NotValidForNameContext { expected, .. } => {
                format!("NotValidForName {:?}", expected.to_str())
            }
            other => other.to_string(),
        };
        format!("{BAD_CERTIFICATE}: {problem}")
    }

    /// What was wrong with the other side's certificate, if that is what it was.
    pub fn distrust(&self) -> Option<Distrust> {
        let Self::Protocol(error) = self else {
            return None;
        };
        match &**error {
            Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                Some(Distrust::UnknownIssuer)
            }
            Error::InvalidCertificate(_) => Some(Distrust::Unfit),
            _ => None,
        }
    }
}

/// Why a certificate was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// Nobody signed it who is believed.
    UnknownIssuer,
    /// Whoever signed it: out of its time, for another name, or not in order.
    Unfit,
}

const BAD_CERTIFICATE: &str = "invalid peer certificate";

fn system_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    match roots.is_empty() {
        true => Err("this system knows no authorities".to_owned()),
        false => Ok(roots),
    }
}

fn roots(file: &Path) -> Result<RootCertStore, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let mut roots = RootCertStore::empty();
    let text = fs::read(file).map_err(|error| failed(&error))?;
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| failed(&malformed(&error)))?;
        roots.add(certificate).map_err(|error| failed(&error))?;
    }
    match roots.is_empty() {
        true => Err(failed(&"no certificate in it")),
        false => Ok(roots),
    }
}

/// Tickets of earlier connections, the oldest first: each is good for one resumption (RFC 8446,
/// C.4). rustls's own store keeps eight of a server's, less than there are handshakes at once.
struct Wallet {
    tickets_max: usize,
    contents: Mutex<Contents>,
}

/// Each with the server that it is for. Of what is good for any number of connections, only the
/// last is kept: there is one server, or hardly more.
#[derive(Default)]
struct Contents {
    tickets: VecDeque<(ServerName<'static>, Tls13ClientSessionValue)>,
    /// TLS 1.2 has sessions that are resumed any number of times (RFC 5077, 5.3).
    session: Option<(ServerName<'static>, Tls12ClientSessionValue)>,
    group: Option<(ServerName<'static>, NamedGroup)>,
}

impl Wallet {
    fn new(tickets_max: usize) -> Self {
        Self {
            tickets_max,
            contents: Mutex::default(),
        }
    }

    fn open(&self) -> MutexGuard<'_, Contents> {
        // What a panicking thread leaves is whole: nothing here is changed in two steps.
        let contents = self.contents.lock();
        contents.unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Wallet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Wallet")
    }
}

impl ClientSessionStore for Wallet {
    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.open().group = Some((server, group));
    }

    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        let contents = self.open();
        let hint = contents.group.as_ref().filter(|(of, _)| of == server);
        hint.map(|(_, group)| *group)
    }

    fn set_tls12_session(&self, server: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.open().session = Some((server, session));
    }

    fn tls12_session(&self, server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        let contents = self.open();
        let session = contents.session.as_ref().filter(|(of, _)| of == server);
        session.map(|(_, session)| session.clone())
    }

    fn remove_tls12_session(&self, server: &ServerName<'static>) {
        self.open().session.take_if(|(of, _)| of == server);
    }

    fn insert_tls13_ticket(&self, server: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut contents = self.open();
        if contents.tickets.len() >= self.tickets_max {
            contents.tickets.pop_front();
        }
        contents.tickets.push_back((server, ticket));
    }

    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let mut contents = self.open();
        let first = contents.tickets.iter().position(|(of, _)| of == server)?;
        contents.tickets.remove(first).map(|(_, ticket)| ticket)
    }
}

/// Believes every certificate, but not that somebody has a key without showing it.
#[derive(Debug)]
struct Believer(Arc<CryptoProvider>);

impl ServerCertVerifier for Believer {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
