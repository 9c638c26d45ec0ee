//! The keys that verify tokens. Each belongs to one family of algorithms and is used for no other,
//! whatever a token says: a public key is never taken for a secret.

use std::fmt;

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, Validation, decode, errors::ErrorKind,
};
use serde_json::{Map, Value};
use thiserror::Error;

use super::{TokenError, head::Head, jwk, pem};

/// Keys of one source, and tries for one token.
pub(super) const KEYS_MAX: usize = 32;

/// An ordered set of keys.
#[derive(Clone, Default)]
pub struct Keys {
    keys: Vec<Key>,
}

/// What cannot be used as keys, by the variable that gave it. No part of it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}: {problem}", given_as.variable())]
pub struct KeyError {
    pub(super) given_as: Source,
    pub(super) problem: String,
}

impl KeyError {
    /// What is wrong, and the remedy, without the variable.
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

/// Where keys come from decides which kinds they may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Secrets only.
    Secret,
    /// Public keys only.
    PublicKey,
    /// Public keys only; what cannot be used is left out, since others decide what is in it.
    Url,
}

/// One key.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) kid: Option<Box<str>>,
    decoding: DecodingKey,
    /// Every field is set: which algorithms, and that the crate looks at no claim. Claims are
    /// looked at by us, against a clock that is an argument.
    validation: Validation,
}

impl Keys {
    /// Reads what is configured.
    ///
    /// `secret`: HMAC secrets, one a line; or a JWK Set (RFC 7517, 5) of `oct` keys.
    /// `public_key`: one or more PEM blocks `PUBLIC KEY` (RFC 7468, 13); or a JWK Set.
    /// Public keys are RSA of 2048 to 8192 bits, P-256 or Ed25519.
    ///
    /// # Errors
    /// The variable, what is wrong with its value, and the remedy.
    pub fn load(secret: Option<&str>, public_key: Option<&str>) -> Result<Self, KeyError> {
        let mut sets = Vec::new();
        if let Some(text) = secret {
            sets.push(match is_json(text) {
                true => Self::from_json(text, Source::Secret)?,
                false => Self::limited(secrets(text), Source::Secret)?,
            });
        }
        if let Some(text) = public_key {
            sets.push(match is_json(text) {
                true => Self::from_json(text, Source::PublicKey)?,
                false => Self::limited(pem::read(text), Source::PublicKey)?,
            });
        }
        Ok(Self::join(sets))
    }

    /// Reads a fetched JWK Set. Keys that cannot be used here are left out, secrets (`oct`) too:
    /// what anybody can fetch is none.
    ///
    /// # Errors
    /// Not a JWK Set, none of its keys can be used, or more than 32 of them.
    pub fn from_jwks(json: &str) -> Result<Self, KeyError> {
        Self::from_json(json, Source::Url)
    }

    /// All keys of several sets, in this order.
    pub fn join(sets: impl IntoIterator<Item = Self>) -> Self {
        let keys = sets.into_iter().flat_map(|set| set.keys);
        Self {
            keys: keys.collect(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is a key of this name.
    pub(super) fn knows(&self, kid: &str) -> bool {
        self.named(Some(kid)).next().is_some()
    }

    /// Checks a token's signature and gives what it vouches for.
    ///
    /// # Errors
    /// `Malformed`, `Algorithm`, `UnknownKey`, `Signature`, `NoKeys`.
    pub(super) fn open(&self, token: &str, head: &Head) -> Result<Map<String, Value>, TokenError> {
        if self.is_empty() {
            return Err(TokenError::NoKeys);
        }
        let candidates: Vec<_> = match head.kid.as_deref() {
            None => self.keys.iter().collect(),
            Some(kid) if self.knows(kid) => self.named(Some(kid)).collect(),
            Some(_) => self.named(None).collect(),
        };
        if candidates.is_empty() {
            return Err(TokenError::UnknownKey);
        }
        let fits = |key: &&&Key| key.validation.algorithms.contains(&head.algorithm);
        let mut outcome = Err(TokenError::Algorithm);
        for key in candidates.iter().filter(fits).take(KEYS_MAX) {
            outcome = key.open(token);
            if outcome != Err(TokenError::Signature) {
                break;
            }
        }
        outcome
    }

    fn named<'k>(&'k self, kid: Option<&'k str>) -> impl Iterator<Item = &'k Key> {
        self.keys
            .iter()
            .filter(move |key| key.kid.as_deref() == kid)
    }

    fn from_json(json: &str, source: Source) -> Result<Self, KeyError> {
        Self::limited(jwk::read(json, source), source)
    }

    fn limited(keys: Result<Vec<Key>, String>, source: Source) -> Result<Self, KeyError> {
        let error = |problem| KeyError {
            given_as: source,
            problem,
        };
        let keys = keys.map_err(error)?;
        match keys.len() {
            0 => Err(error(source.nothing().to_owned())),
            1..=KEYS_MAX => Ok(Self { keys }),
            many => Err(error(format!("{many} keys, give at most {KEYS_MAX}"))),
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(&self.keys).finish()
    }
}

impl Key {
    /// `algorithms` are of the key's own family.
    pub(super) fn new(
        kid: Option<String>,
        decoding: DecodingKey,
        algorithms: Vec<Algorithm>,
    ) -> Self {
        let of_family = |algorithm: &Algorithm| algorithm.family() == decoding.family();
        debug_assert!(!algorithms.is_empty() && algorithms.iter().all(of_family));
        let validation = Validation {
            required_spec_claims: std::collections::HashSet::new(),
            leeway: 0,
            reject_tokens_expiring_in_less_than: 0,
            validate_exp: false,
            validate_nbf: false,
            validate_aud: false,
            aud: None,
            iss: None,
            sub: None,
            algorithms,
        };
        Self {
            kid: kid.map(String::into_boxed_str),
            decoding,
            validation,
        }
    }

    fn open(&self, token: &str) -> Result<Map<String, Value>, TokenError> {
        let opened = decode(token, &self.decoding, &self.validation);
        opened
            .map(|opened| opened.claims)
            .map_err(|error| match error.kind() {
                ErrorKind::InvalidSignature => TokenError::Signature,
                ErrorKind::InvalidAlgorithm => TokenError::Algorithm,
                _ => TokenError::Malformed,
            })
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Key")
            .field("kid", &self.kid)
            .field("algorithms", &self.validation.algorithms)
            .finish_non_exhaustive()
    }
}

impl Source {
    fn variable(self) -> &'static str {
        match self {
            Self::Secret => "TIDEMILL_TOKEN_SECRET",
            Self::PublicKey => "TIDEMILL_TOKEN_PUBLIC_KEY",
            Self::Url => "TIDEMILL_TOKEN_JWKS_URL",
        }
    }

    fn nothing(self) -> &'static str {
        match self {
            Self::Secret => "no secret in it, give one a line or a JWK Set of oct keys",
            Self::PublicKey => {
                "no public key in it, give PEM that begins with -----BEGIN PUBLIC KEY-----, or a \
                 JWK Set"
            }
            Self::Url => "no key in it can be used: RS256, ES256 or EdDSA, for signatures",
        }
    }
}

/// The algorithms of a family that tokens may be signed by.
pub(super) fn algorithms(family: AlgorithmFamily) -> &'static [Algorithm] {
    match family {
        AlgorithmFamily::Hmac => &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512],
        AlgorithmFamily::Rsa => &[Algorithm::RS256],
        AlgorithmFamily::Ec => &[Algorithm::ES256],
        AlgorithmFamily::Ed => &[Algorithm::EdDSA],
    }
}

fn is_json(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

/// One secret a line. Spaces belong to it, empty lines do not count.
fn secrets(text: &str) -> Result<Vec<Key>, String> {
    // Whoever has the public key, everybody, could sign with it.
    if text.contains("-----BEGIN ") {
        return Err(
            "PEM is not a secret, a public key belongs in TIDEMILL_TOKEN_PUBLIC_KEY".into(),
        );
    }
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let key = |line: &str| {
        let decoding = DecodingKey::from_secret(line.as_bytes());
        Key::new(None, decoding, algorithms(AlgorithmFamily::Hmac).to_vec())
    };
    Ok(lines.map(key).collect())
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header};
    use rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};
    use serde_json::json;

    use super::*;
    use crate::gate::token::sample::{self, SECRET, ed25519, p256, rsa, secret_token};

    fn open(keys: &Keys, token: &str) -> Result<Map<String, Value>, TokenError> {
        keys.open(token, &Head::read(token)?)
    }

    fn named(mut header: Header, kid: &str) -> Header {
        header.kid = Some(kid.to_owned());
        header
    }

    fn verdict(keys: &Keys, token: &str) -> Result<(), TokenError> {
        open(keys, token).map(drop)
    }

    #[test]
    fn each_algorithm_opens_what_its_key_signed_and_nothing_else() {
        let [rsa, other_rsa] = rsa();
        let pairs = [
            (rsa, other_rsa),
            (&p256(), &p256()),
            (&ed25519(), &ed25519()),
        ];
        let claims = json!({"sub": "42"});
        for (pair, other) in pairs {
            let keys = Keys::load(None, Some(&pair.public_pem)).unwrap();
            let token = pair.token(&claims);
            assert_eq!(Value::Object(open(&keys, &token).unwrap()), claims);
            let foreign = other.token(&claims);
            assert_eq!(verdict(&keys, &foreign), Err(TokenError::Signature));

            let (message, signature) = token.rsplit_once('.').unwrap();
            let (_, foreign_signature) = foreign.rsplit_once('.').unwrap();
            let (header, _) = message.split_once('.').unwrap();
            let payload = sample::part(r#"{"sub":"43"}"#);
            for forged in [
                format!("{message}.{foreign_signature}"),
                format!("{header}.{payload}.{signature}"),
                format!("{message}."),
                format!("{message}.{}", sample::part("short")),
            ] {
                assert_eq!(verdict(&keys, &forged), Err(TokenError::Signature));
            }
        }
    }

    #[test]
    fn each_length_of_hmac_opens_and_a_wrong_secret_does_not() {
        let keys = Keys::load(Some(SECRET), None).unwrap();
        let claims = json!({"sub": "42"});
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let sign = |secret: &str| {
                let key = EncodingKey::from_secret(secret.as_bytes());
                sample::token(&Header::new(algorithm), &claims, &key)
            };
            assert_eq!(verdict(&keys, &sign(SECRET)), Ok(()));
            for wrong in ["cent-secre", "cent-secret ", "Cent-secret", ""] {
                assert_eq!(verdict(&keys, &sign(wrong)), Err(TokenError::Signature));
            }
        }
    }

    #[test]
    fn a_public_key_is_never_a_secret_however_it_is_written() {
        let claims = json!({"sub": "admin"});
        for pair in [&rsa()[0], &p256(), &ed25519()] {
            let pem = pair.public_pem.as_str();
            let keys = Keys::load(None, Some(pem)).unwrap();
            let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).unwrap();
            let jwk = pair.jwk("a").to_string();
            let secrets = [
                pem.as_bytes(),
                pem.trim_end().as_bytes(),
                &der,
                jwk.as_bytes(),
                b"",
            ];
            for secret in secrets {
                for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                    let key = EncodingKey::from_secret(secret);
                    let token = sample::token(&Header::new(algorithm), &claims, &key);
                    assert_eq!(verdict(&keys, &token), Err(TokenError::Algorithm));
                }
            }
            let both = Keys::load(Some("another"), Some(pem)).unwrap();
            let forged = secret_token(pem, "{}");
            assert_eq!(verdict(&both, &forged), Err(TokenError::Signature));
        }
    }

    #[test]
    fn a_family_opens_only_by_the_algorithms_that_are_listed() {
        let pair = &rsa()[0];
        let keys = Keys::load(Some(SECRET), Some(&pair.public_pem)).unwrap();
        for algorithm in [
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS512,
        ] {
            let token = sample::token(&Header::new(algorithm), &json!({}), &pair.private);
            assert_eq!(verdict(&keys, &token), Err(TokenError::Algorithm));
        }
        for (header, signed_by) in [("ES256", pair), ("EdDSA", pair)] {
            let token = signed_by.token(&json!({}));
            let (_, rest) = token.split_once('.').unwrap();
            let header = sample::part(&format!(r#"{{"alg":"{header}"}}"#));
            let token = format!("{header}.{rest}");
            assert_eq!(verdict(&keys, &token), Err(TokenError::Algorithm));
        }
    }

    #[test]
    fn a_token_without_signature_opens_nothing() {
        let keys = Keys::load(Some(SECRET), Some(&rsa()[0].public_pem)).unwrap();
        for algorithm in ["none", "None", "NONE", "nOnE"] {
            let header = sample::part(&format!(r#"{{"alg":"{algorithm}"}}"#));
            for end in ["", "e30", "AA"] {
                let token = format!("{header}.{}.{end}", sample::part("{}"));
                assert_eq!(verdict(&keys, &token), Err(TokenError::Algorithm));
            }
        }
    }

    #[test]
    fn a_key_that_is_named_is_the_only_one_tried() {
        let [a, b] = rsa();
        let set = json!({"keys": [a.jwk("a"), b.jwk("b")]}).to_string();
        let keys = Keys::from_jwks(&set).unwrap();
        let claims = json!({});
        let header = Header::new(Algorithm::RS256);
        let sign = |kid, pair: &sample::Pair| {
            sample::token(&named(header.clone(), kid), &claims, &pair.private)
        };
        assert_eq!(verdict(&keys, &sign("a", a)), Ok(()));
        assert_eq!(verdict(&keys, &sign("b", b)), Ok(()));
        assert_eq!(verdict(&keys, &sign("a", b)), Err(TokenError::Signature));
        assert_eq!(verdict(&keys, &sign("c", a)), Err(TokenError::UnknownKey));
        assert_eq!(verdict(&keys, &sign("", a)), Err(TokenError::UnknownKey));
        assert_eq!(verdict(&keys, &b.token(&claims)), Ok(()));

        // Keys without a name stand in for a name that is not known, and for no other.
        let unnamed = Keys::load(Some(SECRET), Some(&p256().public_pem)).unwrap();
        let keys = Keys::join([keys, unnamed]);
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let hmac = |kid| sample::token(&named(Header::default(), kid), &claims, &key);
        assert_eq!(verdict(&keys, &hmac("c")), Ok(()));
        assert_eq!(verdict(&keys, &hmac("a")), Err(TokenError::Algorithm));
        assert_eq!(verdict(&keys, &sign("c", a)), Err(TokenError::Algorithm));
    }

    #[test]
    fn several_secrets_count_at_once_and_spaces_belong_to_them() {
        let keys = Keys::load(Some("one\r\n\n two \n  \nthree"), None).unwrap();
        assert_eq!(keys.len(), 3);
        for secret in ["one", " two ", "three"] {
            assert_eq!(verdict(&keys, &secret_token(secret, "{}")), Ok(()));
        }
        for secret in ["two", "", "one\r"] {
            let token = secret_token(secret, "{}");
            assert_eq!(verdict(&keys, &token), Err(TokenError::Signature));
        }
        let many = |count: usize| vec!["s"; count].join("\n");
        assert_eq!(
            Keys::load(Some(&many(KEYS_MAX)), None).unwrap().len(),
            KEYS_MAX
        );
        assert!(Keys::load(Some(&many(KEYS_MAX + 1)), None).is_err());
    }

    #[test]
    fn what_is_no_secret_is_refused_with_the_remedy_and_never_shown() {
        let pem = rsa()[0].public_pem.clone();
        for (secret, remedy) in [
            (pem.as_str(), "TIDEMILL_TOKEN_PUBLIC_KEY"),
            ("", "give one a line"),
            ("\n \n", "give one a line"),
            ("{hunter2", "line 1 column 2"),
            (r#"{"hunter2":1}"#, "keys"),
            (r#"{"keys":[]}"#, "JWK Set of oct"),
        ] {
            let error = Keys::load(Some(secret), None).unwrap_err().to_string();
            assert!(error.starts_with("TIDEMILL_TOKEN_SECRET: "), "{error}");
            assert!(error.contains(remedy), "{error}");
            assert!(
                !error.contains("hunter2") && !error.contains("MII"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_token_with_a_payload_that_is_no_object_is_malformed() {
        let keys = Keys::load(Some(SECRET), None).unwrap();
        let deep = format!("{}{}", "{\"a\":".repeat(200), "}".repeat(200));
        for payload in [
            "",
            "[]",
            "null",
            "7",
            "\"a\"",
            "{",
            "{\"a\":1}}",
            "{a:1}",
            &deep,
        ] {
            let token = secret_token(SECRET, payload);
            assert_eq!(
                verdict(&keys, &token),
                Err(TokenError::Malformed),
                "{payload}"
            );
        }
    }
}
