//! The certificate of all servers: made at the start, in a folder that goes with the run.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509NameBuilder};

use crate::folder::Folder;

/// Long enough that no server warns of its end.
const DAYS: u32 = 365;

/// A self-signed certificate for localhost and its key, ECDSA P-256, in PEM files (PKCS#8).
///
/// The files are removed when it is dropped.
pub struct Certificate {
    folder: Folder,
    pub der: Vec<u8>,
}

impl Certificate {
    /// # Errors
    /// The folder for temporary files takes none.
    pub fn generate() -> io::Result<Self> {
        let (certificate, key) = pair()?;
        let this = Self {
            folder: Folder::new()?,
            der: certificate.to_der()?,
        };
        fs::write(this.chain(), certificate.to_pem()?)?;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(this.key())?;
        file.write_all(&key.private_key_to_pem_pkcs8()?)?;
        Ok(this)
    }

    /// The file of the certificate.
    pub fn chain(&self) -> PathBuf {
        self.folder.file("cert.pem")
    }

    /// The file of its key.
    pub fn key(&self) -> PathBuf {
        self.folder.file("key.pem")
    }
}

fn pair() -> Result<(X509, PKey<Private>), ErrorStack> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    let key = PKey::from_ec_key(EcKey::generate(&group)?)?;
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_nid(Nid::COMMONNAME, "localhost")?;
    let name = name.build();
    let mut serial = BigNum::new()?;
    serial.rand(127, MsbOption::MAYBE_ZERO, false)?;

    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    builder.set_serial_number(&*serial.to_asn1_integer()?)?;
    builder.set_subject_name(&name)?;
    builder.set_issuer_name(&name)?;
    builder.set_pubkey(&key)?;
    builder.set_not_before(&*Asn1Time::days_from_now(0)?)?;
    builder.set_not_after(&*Asn1Time::days_from_now(DAYS)?)?;
    builder.append_extension(BasicConstraints::new().critical().build()?)?;
    let names = SubjectAlternativeName::new()
        .dns("localhost")
        .ip("127.0.0.1")
        .ip("::1")
        .build(&builder.x509v3_context(None, None))?;
    builder.append_extension(names)?;
    builder.sign(&key, MessageDigest::sha256())?;
    Ok((builder.build(), key))
}
