//! Keys and tokens for the tests of this folder. Keys are made anew for each run.

use std::sync::OnceLock;

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair,
    },
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, crypto::sign, encode, jwk::Jwk};
use serde_json::{Value, json};

/// What the independent vector of the native protocol is signed with.
pub(super) const SECRET: &str = "cent-secret";

/// Both halves of a key pair.
pub(super) struct Pair {
    pub(super) private: EncodingKey,
    pub(super) public_pem: String,
    algorithm: Algorithm,
}

impl Pair {
    pub(super) fn token(&self, claims: &Value) -> String {
        token(&Header::new(self.algorithm), claims, &self.private)
    }

    pub(super) fn jwk(&self, kid: &str) -> Value {
        let jwk = Jwk::from_encoding_key(&self.private, self.algorithm).expect("a good key");
        let mut jwk = serde_json::to_value(jwk).expect("a JWK is JSON");
        jwk["kid"] = json!(kid);
        jwk
    }
}

/// The same two key pairs of a kind all the time: RSA ones take a while to make.
pub(super) fn rsa() -> &'static [Pair; 2] {
    static PAIRS: OnceLock<[Pair; 2]> = OnceLock::new();
    PAIRS.get_or_init(|| [(); 2].map(|()| rsa_pair(KeySize::Rsa2048)))
}

pub(super) fn rsa_pair(size: KeySize) -> Pair {
    let pair = RsaKeyPair::generate(size).expect("keys can be made");
    let public = AsDer::<PublicKeyX509Der>::as_der(pair.public_key()).expect("DER of a good key");
    let private = AsDer::<Pkcs8V1Der>::as_der(&pair).expect("DER of a good key");
    // The crate signs with PKCS #1, which PKCS #8 wraps: a header of 26 bytes at these sizes.
    let private = EncodingKey::from_rsa_der(&private.as_ref()[26..]);
    Pair {
        private,
        public_pem: pem("PUBLIC KEY", public.as_ref()),
        algorithm: Algorithm::RS256,
    }
}

pub(super) fn p256() -> Pair {
    let random = SystemRandom::new();
    let private = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
        .expect("keys can be made");
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, private.as_ref())
        .expect("just made");
    let public = AsDer::<PublicKeyX509Der>::as_der(pair.public_key()).expect("DER of a good key");
    Pair {
        private: EncodingKey::from_ec_der(private.as_ref()),
        public_pem: pem("PUBLIC KEY", public.as_ref()),
        algorithm: Algorithm::ES256,
    }
}

pub(super) fn ed25519() -> Pair {
    // Of 48 bytes, without the public half: from another length the crate makes no JWK.
    let pair = Ed25519KeyPair::generate().expect("keys can be made");
    let private = AsDer::<Pkcs8V1Der>::as_der(&pair).expect("DER of a good key");
    let public = AsDer::<PublicKeyX509Der>::as_der(pair.public_key()).expect("DER of a good key");
    Pair {
        private: EncodingKey::from_ed_der(private.as_ref()),
        public_pem: pem("PUBLIC KEY", public.as_ref()),
        algorithm: Algorithm::EdDSA,
    }
}

pub(super) fn token(header: &Header, claims: &Value, key: &EncodingKey) -> String {
    encode(header, claims, key).expect("a key that signs")
}

/// A token with a secret; the claims may be any text.
pub(super) fn secret_token(secret: &str, claims: &str) -> String {
    let message = format!(
        "{}.{}",
        part(r#"{"alg":"HS256","typ":"JWT"}"#),
        part(claims)
    );
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signature = sign(message.as_bytes(), &key, Algorithm::HS256).expect("any secret signs");
    format!("{message}.{signature}")
}

/// A part of a token: base64url (RFC 4648, 5) without padding.
pub(super) fn part(text: &str) -> String {
    let encoded = base64(text.as_bytes());
    let encoded = encoded.trim_end_matches('=');
    encoded.replace('+', "-").replace('/', "_")
}

pub(super) fn pem(label: &str, der: &[u8]) -> String {
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        base64(der)
    )
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |group: &[u8]| {
        let byte = |index| u32::from(*group.get(index).unwrap_or(&0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        let letter = |index: usize| match index > group.len() {
            true => '=',
            false => char::from(ALPHABET[(bits >> (18 - 6 * index) & 63) as usize]),
        };
        [0, 1, 2, 3].map(letter)
    };
    bytes.chunks(3).flat_map(group).collect()
}
