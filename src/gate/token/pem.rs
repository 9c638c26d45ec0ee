//! Public keys as PEM (RFC 7468, 13: SubjectPublicKeyInfo).

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents,
};
use jsonwebtoken::{AlgorithmFamily, DecodingKey, DecodingKeyKind};
use rustls::pki_types::pem::{PemObject, SectionKind};
use x509_parser::{
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519,
    },
    prelude::FromDer,
    public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};

use super::keys::{Key, algorithms};

const RSA_BITS_MIN: usize = 2048;
const RSA_BITS_MAX: usize = 8192;

const KINDS: &str = "give a key of RSA (2048 to 8192 bits), P-256 or Ed25519";

/// Reads every `PUBLIC KEY` block of a text.
///
/// # Errors
/// What is wrong with the first block that is not one.
pub(super) fn read(text: &str) -> Result<Vec<Key>, String> {
    let mut keys = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
        let number = keys.len() + 1;
        let problem = |problem: &str| format!("block {number}: {problem}");
        let (kind, der) = section.map_err(|_| problem("malformed PEM"))?;
        match kind {
            SectionKind::PublicKey => {}
            SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => {
                return Err(problem(
                    "a private key; keep it where tokens are made, and give what \
                     `openssl pkey -pubout` makes of it",
                ));
            }
            SectionKind::Certificate => {
                return Err(problem(
                    "a certificate; give what `openssl x509 -pubkey -noout` makes of it",
                ));
            }
            _ => return Err(problem("not a public key")),
        }
        let decoding = from_info(&der).map_err(|error| problem(&error))?;
        let own = algorithms(decoding.family()).to_vec();
        keys.push(Key::new(None, decoding, own));
    }
    Ok(keys)
}

/// Reads a SubjectPublicKeyInfo (RFC 5280, 4.1; RFC 5480, 2; RFC 8410, 4).
fn from_info(der: &[u8]) -> Result<DecodingKey, String> {
    let malformed = "not a SubjectPublicKeyInfo";
    let (rest, info) = SubjectPublicKeyInfo::from_der(der).map_err(|_| malformed)?;
    if !rest.is_empty() {
        return Err(malformed.to_owned());
    }
    let kind = &info.algorithm.algorithm;
    let bits = info.subject_public_key.data.as_ref();
    let curve = || info.algorithm.parameters.as_ref()?.as_oid().ok();
    let decoding = if *kind == OID_PKCS1_RSAENCRYPTION {
        let Ok(PublicKey::RSA(key)) = info.parsed() else {
            return Err(malformed.to_owned());
        };
        // DER puts a zero before a number that would look negative.
        let plain = |number: &[u8]| number.iter().position(|byte| *byte != 0).unwrap_or(0);
        let modulus = &key.modulus[plain(key.modulus)..];
        let exponent = &key.exponent[plain(key.exponent)..];
        DecodingKey::from_rsa_raw_components(modulus, exponent)
    } else if *kind == OID_KEY_TYPE_EC_PUBLIC_KEY && curve() == Some(OID_EC_P256) {
        DecodingKey::from_ec_der(bits)
    } else if *kind == OID_SIG_ED25519 {
        DecodingKey::from_ed_der(bits)
    } else {
        return Err(format!("a key of another kind, {KINDS}"));
    };
    check(&decoding)?;
    Ok(decoding)
}

/// Whether a public key can verify anything: a number of the right size, a point on its curve.
///
/// # Errors
/// What is wrong with it. Better told at the start than by refusing every token.
pub(super) fn check(decoding: &DecodingKey) -> Result<(), String> {
    let is_good = match (decoding.family(), decoding.kind()) {
        (AlgorithmFamily::Rsa, DecodingKeyKind::RsaModulusExponent { n, e }) => {
            let first = n.first().map_or(0, |byte| byte.leading_zeros() as usize);
            let bits = n.len() * 8 - first;
            if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
                return Err(format!("RSA of {bits} bits, {KINDS}"));
            }
            let components = RsaPublicKeyComponents { n, e };
            let parsed = components.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256);
            parsed.is_ok()
        }
        (AlgorithmFamily::Ec, DecodingKeyKind::SecretOrDer(point)) => {
            ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).is_ok()
        }
        (AlgorithmFamily::Ed, DecodingKeyKind::SecretOrDer(point)) => {
            ParsedPublicKey::new(&ED25519, point).is_ok()
        }
        (AlgorithmFamily::Hmac, DecodingKeyKind::SecretOrDer(secret)) => !secret.is_empty(),
        _ => false,
    };
    match is_good {
        true => Ok(()),
        false => Err(format!("a malformed key, {KINDS}")),
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        encoding::{AsDer, PublicKeyX509Der},
        rsa::KeySize,
        signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
    };
    use rustls::pki_types::SubjectPublicKeyInfoDer;

    use super::*;
    use crate::gate::token::{
        Keys,
        sample::{ed25519, p256, pem, rsa, rsa_pair},
    };

    fn error(text: &str) -> String {
        let error = Keys::load(None, Some(text)).unwrap_err().to_string();
        assert!(error.starts_with("TIDEMILL_TOKEN_PUBLIC_KEY: "), "{error}");
        error
    }

    fn der(pem: &str) -> Vec<u8> {
        let info = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).unwrap();
        info.to_vec()
    }

    #[test]
    fn several_keys_of_every_kind_stand_in_one_text() {
        let text = [
            "# the old one\n",
            &rsa()[0].public_pem,
            &p256().public_pem,
            "\n\n",
            &ed25519().public_pem,
            &rsa_pair(KeySize::Rsa4096).public_pem,
        ];
        let text = text.concat();
        assert_eq!(Keys::load(None, Some(&text)).unwrap().len(), 4);
        let windows = text.replace('\n', "\r\n");
        assert_eq!(Keys::load(None, Some(&windows)).unwrap().len(), 4);
    }

    #[test]
    fn what_is_no_public_key_is_refused_with_the_remedy() {
        for (label, remedy) in [
            ("PRIVATE KEY", "openssl pkey -pubout"),
            ("RSA PRIVATE KEY", "openssl pkey -pubout"),
            ("EC PRIVATE KEY", "openssl pkey -pubout"),
            ("CERTIFICATE", "openssl x509 -pubkey"),
            ("CERTIFICATE REQUEST", "not a public key"),
            ("RSA PUBLIC KEY", "BEGIN PUBLIC KEY"),
            ("PUBLIC KEY", "not a SubjectPublicKeyInfo"),
        ] {
            let text = pem(label, b"c2VjcmV0 stuff");
            let error = error(&text);
            assert!(error.contains(remedy), "{label}: {error}");
            assert!(!error.contains(text.lines().nth(1).unwrap()), "{error}");
        }
        assert!(error("hunter2").contains("BEGIN PUBLIC KEY"));
        assert!(error("").contains("BEGIN PUBLIC KEY"));
        let mixed = rsa()[0].public_pem.clone() + &pem("PRIVATE KEY", b"x");
        assert!(error(&mixed).contains("block 2: a private key"));
    }

    #[test]
    fn a_key_on_another_curve_is_refused() {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let public = AsDer::<PublicKeyX509Der>::as_der(pair.public_key()).unwrap();
        let error = error(&pem("PUBLIC KEY", public.as_ref()));
        assert!(error.contains("P-256"), "{error}");
    }

    #[test]
    fn a_key_cut_anywhere_or_changed_is_refused_and_never_a_panic() {
        let whole = der(&p256().public_pem);
        for length in 0..whole.len() {
            error(&pem("PUBLIC KEY", &whole[..length]));
        }
        let longer = [&whole[..], b"\0"].concat();
        error(&pem("PUBLIC KEY", &longer));
        // Off the curve: the last byte is part of a coordinate.
        let mut moved = whole.clone();
        *moved.last_mut().unwrap() ^= 1;
        assert!(error(&pem("PUBLIC KEY", &moved)).contains("malformed"));
        for pair in [&rsa()[0], &ed25519()] {
            let whole = der(&pair.public_pem);
            for length in 0..whole.len() {
                error(&pem("PUBLIC KEY", &whole[..length]));
            }
        }
        let text = &p256().public_pem;
        for length in 0..text.trim_end().len() {
            error(&text[..length]);
        }
    }
}
