//! Tokens as a test wants them, sound or forged: signed by hand (RFC 7515), so that nothing that
//! the server relies on has looked at them before.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::{
    encoding::AsDer,
    hmac,
    rand::SystemRandom,
    rsa,
    signature::{
        self, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaEncoding,
    },
};
use serde_json::{Value, json};

use crate::authority::pem;

/// Long enough for every HMAC here (RFC 7518, 3.2), and easily found in a log.
pub const SECRET: &str = "a-secret-that-is-known-to-no-one-but-these-tests-and-is-64-bytes";

/// A key that signs.
pub enum Key {
    Hmac(Vec<u8>),
    Rsa(Box<rsa::KeyPair>),
    Ec(Box<EcdsaKeyPair>),
    Ed(Box<Ed25519KeyPair>),
}

impl Key {
    pub fn hmac(secret: impl AsRef<[u8]>) -> Self {
        Self::Hmac(secret.as_ref().to_vec())
    }

    pub fn rsa() -> Self {
        Self::Rsa(Box::new(
            rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap(),
        ))
    }

    pub fn ec() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
        Self::Ec(Box::new(pair.unwrap()))
    }

    pub fn ed() -> Self {
        Self::Ed(Box::new(Ed25519KeyPair::generate().unwrap()))
    }

    /// The algorithm that it is for.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Hmac(_) => "HS256",
            Self::Rsa(_) => "RS256",
            Self::Ec(_) => "ES256",
            Self::Ed(_) => "EdDSA",
        }
    }

    /// A sound token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_as(&json!({"alg": self.algorithm(), "typ": "JWT"}), claims)
    }

    /// A sound token that names its key.
    pub fn sign_kid(&self, kid: &str, claims: &Value) -> String {
        self.sign_as(&json!({"alg": self.algorithm(), "kid": kid}), claims)
    }

    /// A token with this header, signed as it says if this key can, else as the key does.
    pub fn sign_as(&self, header: &Value, claims: &Value) -> String {
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    /// The same of any text.
    pub fn sign_text(&self, header: &str, claims: &str) -> String {
        let parsed: Value = serde_json::from_str(header).unwrap_or_default();
        let algorithm = parsed["alg"].as_str().unwrap_or(self.algorithm());
        let signed = format!("{}.{}", base64(header), base64(claims));
        let signature = self.signature(algorithm, signed.as_bytes());
        format!("{signed}.{}", base64(signature))
    }

    fn signature(&self, algorithm: &str, signed: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Hmac(secret) => {
                let with = match algorithm {
                    "HS384" => hmac::HMAC_SHA384,
                    "HS512" => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(with, secret), signed)
                    .as_ref()
                    .to_vec()
            }
            Self::Rsa(pair) => {
                let with: &'static dyn RsaEncoding = match algorithm {
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut bytes = vec![0; pair.public_modulus_len()];
                pair.sign(with, &random, signed, &mut bytes).unwrap();
                bytes
            }
            Self::Ec(pair) => pair.sign(&random, signed).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(signed).as_ref().to_vec(),
        }
    }

    /// The public half as SubjectPublicKeyInfo (RFC 5280, 4.1.2.7).
    pub fn der(&self) -> Vec<u8> {
        match self {
            Self::Hmac(_) => panic!("a secret has no public half"),
            Self::Rsa(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
            Self::Ec(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
        }
    }

    pub fn pem(&self) -> String {
        pem("PUBLIC KEY", &self.der())
    }

    /// The key as a JWK (RFC 7517), public but for secrets.
    pub fn jwk(&self, kid: Option<&str>) -> Value {
        let mut jwk = match self {
            Self::Hmac(secret) => json!({"kty": "oct", "k": base64(secret)}),
            Self::Rsa(pair) => {
                // RFC 8017, A.1.1: a sequence of the modulus and the exponent.
                let mut der = pair.public_key().as_ref();
                (_, der) = element(der);
                let (modulus, rest) = split(der);
                let (exponent, _) = split(rest);
                json!({"kty": "RSA", "n": base64(unsigned(modulus)),
                       "e": base64(unsigned(exponent))})
            }
            Self::Ec(pair) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(32);
                json!({"kty": "EC", "crv": "P-256", "x": base64(x), "y": base64(y)})
            }
            Self::Ed(pair) => {
                let x = base64(pair.public_key().as_ref());
                json!({"kty": "OKP", "crv": "Ed25519", "x": x})
            }
        };
        if let Some(kid) = kid {
            jwk["kid"] = json!(kid);
        }
        jwk
    }
}

/// The header and the content of the element of DER that begins here.
fn element(der: &[u8]) -> (u8, &[u8]) {
    let (_, length, start) = sizes(der);
    (der[0], &der[start..start + length])
}

fn split(der: &[u8]) -> (&[u8], &[u8]) {
    let (_, length, start) = sizes(der);
    (&der[start..start + length], &der[start + length..])
}

fn sizes(der: &[u8]) -> (u8, usize, usize) {
    match der[1] {
        short @ 0..0x80 => (der[0], usize::from(short), 2),
        long => {
            let count = usize::from(long & 0x7f);
            let bytes = &der[2..2 + count];
            let length = bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            (der[0], length, 2 + count)
        }
    }
}

fn unsigned(integer: &[u8]) -> &[u8] {
    match integer {
        [0, rest @ ..] => rest,
        all => all,
    }
}

/// A JWK Set of these.
pub fn set_of(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// base64url without padding (RFC 4648, 5).
pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    let mut letters = String::new();
    for group in bytes.as_ref().chunks(3) {
        let word = (0..3).fold(0, |word, at| {
            word << 8 | u32::from(*group.get(at).unwrap_or(&0))
        });
        for at in 0..=group.len() {
            letters.push(char::from(ALPHABET[(word >> (18 - 6 * at) & 63) as usize]));
        }
    }
    letters
}

pub const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Seconds since 1970, as tokens count them.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs() as i64
}

/// Waits until the clock of tokens shows this.
pub fn wait_for(second: i64) {
    while now() < second {
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
}

/// Claims of someone whose token lasts for an hour.
pub fn claims(subject: &str) -> Value {
    json!({"sub": subject, "iat": now(), "exp": now() + 3600})
}

#[test]
fn the_signer_signs_what_others_have_signed() {
    // RFC 7515, A.1 signs with HS256; this is the same for the claims that the SDKs document.
    let signed = Key::hmac("cent-secret").sign_text(
        r#"{"alg":"HS256","typ":"JWT"}"#,
        r#"{"sub":"42","iat":1700000000,"exp":4102444800}"#,
    );
    assert_eq!(signed, VECTOR);
}

/// Signed with `cent-secret`, for user 42, until the end of the century.
pub const VECTOR: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiI0MiIsImlhdCI6MTcwMDAwMDA\
                          wMCwiZXhwIjo0MTAyNDQ0ODAwfQ.bdncrEqcZEponkYINSJmuzgzghiXUu5YEWx8YoGqGNA";
