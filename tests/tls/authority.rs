//! Certificates as tests want them: of any age, name and key, signed by an authority that only the
//! test knows.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, SignatureAlgorithm,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::{Duration, OffsetDateTime};

/// Who signs.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// What is to be certified.
pub struct Order<'a> {
    pub names: &'a [&'a str],
    pub subject: &'a str,
    pub algorithm: &'static SignatureAlgorithm,
    /// Days from today.
    pub valid: (i64, i64),
    /// Less than that.
    pub expires_in_s: Option<i64>,
}

pub const ECDSA: &SignatureAlgorithm = &PKCS_ECDSA_P256_SHA256;
pub const RSA: &SignatureAlgorithm = &PKCS_RSA_SHA256;
pub const ED25519: &SignatureAlgorithm = &PKCS_ED25519;

/// A certificate and its key.
pub struct Pair {
    pub certificate: CertificateDer<'static>,
    pub certificate_pem: String,
    pub key_pem: String,
    key_der: Vec<u8>,
}

impl Default for Order<'_> {
    fn default() -> Self {
        Self {
            names: &["localhost", "127.0.0.1", "::1"],
            subject: "tests",
            algorithm: ECDSA,
            valid: (-1, 365),
            expires_in_s: None,
        }
    }
}

impl Authority {
    pub fn new() -> Self {
        let mut parameters = CertificateParams::new([]).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = format!("authority {}", next());
        parameters
            .distinguished_name
            .push(DnType::CommonName, name.as_str());
        let key = KeyPair::generate_for(ECDSA).unwrap();
        Self(CertifiedIssuer::self_signed(parameters, key).unwrap())
    }

    pub fn certificate(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub fn pem(&self) -> String {
        pem("CERTIFICATE", self.0.der())
    }

    pub fn sign(&self, order: &Order<'_>) -> Pair {
        let names: Vec<String> = order.names.iter().map(|name| (*name).to_owned()).collect();
        let mut parameters = CertificateParams::new(names).unwrap();
        parameters
            .distinguished_name
            .push(DnType::CommonName, order.subject);
        parameters.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let day = |days| OffsetDateTime::now_utc() + Duration::days(days);
        parameters.not_before = day(order.valid.0);
        parameters.not_after = match order.expires_in_s {
            Some(seconds) => OffsetDateTime::now_utc() + Duration::seconds(seconds),
            None => day(order.valid.1),
        };
        let key = KeyPair::generate_for(order.algorithm).unwrap();
        let signed = parameters.signed_by(&key, &self.0).unwrap();
        let key_der = key.serialize_der();
        Pair {
            certificate: signed.der().clone(),
            certificate_pem: pem("CERTIFICATE", signed.der()),
            key_pem: pem("PRIVATE KEY", &key_der),
            key_der,
        }
    }

    /// A pair for this name, and nothing special about it.
    pub fn pair(&self, name: &str) -> Pair {
        self.sign(&Order {
            names: &[name],
            ..Order::default()
        })
    }
}

impl Pair {
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key_der.clone()).unwrap()
    }
}

/// PEM (RFC 7468): base64 in lines of 64 characters.
pub fn pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut letters = String::new();
    for group in der.chunks(3) {
        let word = (0..3).fold(0, |word, at| {
            word << 8 | u32::from(*group.get(at).unwrap_or(&0))
        });
        for at in 0..4 {
            letters.push(match at <= group.len() {
                true => char::from(ALPHABET[(word >> (18 - 6 * at) & 63) as usize]),
                false => '=',
            });
        }
    }
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in letters.as_bytes().chunks(64) {
        text += std::str::from_utf8(line).unwrap();
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

/// A folder that ends with its test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        let name = format!("tidemill-tls-{}-{}", std::process::id(), next());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file in place; gives its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        fs::write(self.0.join(name), content).unwrap();
        self.path(name)
    }

    /// Puts a whole file where another may be, as ACME clients do.
    pub fn replace(&self, name: &str, content: impl AsRef<[u8]>) {
        let fresh = self.write(&format!("{name}.new"), content);
        fs::rename(fresh, self.0.join(name)).unwrap();
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.0.join(name)).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left in the temporary folder harms no other test.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn next() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Relaxed)
}
