//! Tokens: JSON Web Tokens (RFC 7519) that say who a peer is and until when.
//!
//! [`Tokens`] is shared by all reactors and verifies a token against the keys of the moment, the
//! rules of the configuration and what has been revoked. The clock is an argument. A signature is
//! checked first, everything it vouches for afterwards; the key, never the token, decides by
//! which algorithm. Neither errors nor `Debug` show a key or any part of a token.
//!
//! Where a token is found, where keys are fetched and what a refused peer is told is up to others.

mod claims;
mod head;
mod jwk;
mod keys;
mod pem;
mod revocation;
#[cfg(test)]
mod sample;

use std::{
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use aws_lc_rs::{constant_time, digest};
use thiserror::Error;

pub use self::{
    claims::Claims,
    keys::{KeyError, Keys},
    revocation::{Revocation, RevocationsFull},
};
use self::{head::Head, revocation::Revocations};

/// A longer token is refused before any work is done for it.
pub const TOKEN_BYTES_MAX: usize = 8192;

/// What is asked of every token beside its signature.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// How far the clocks of issuer and server may be apart, for `exp` and `nbf`.
    pub leeway_seconds: u64,
    /// When there are any, `iss` must be one of them.
    pub issuers: Vec<String>,
    /// When there are any, `aud` must name one of them.
    pub audiences: Vec<String>,
}

/// Keys, rules and revocations of one server.
pub struct Tokens {
    keys: RwLock<Arc<Keys>>,
    rules: Rules,
    revocations: RwLock<Revocations>,
    wants_keys: AtomicBool,
}

/// Why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum TokenError {
    /// Not a signed token, or a claim of it has the wrong type.
    #[error("the token is malformed")]
    Malformed,
    /// Signed by an algorithm that is not supported, or not by one of the key that it names.
    #[error("the token's algorithm is not accepted")]
    Algorithm,
    /// Signed by a key (`kid`) that is not known here.
    #[error("the token's key is not known")]
    UnknownKey,
    /// Not signed by the key, or not as it is now.
    #[error("the token's signature is wrong")]
    Signature,
    /// `exp` is over.
    #[error("the token has expired")]
    Expired,
    /// `nbf` is still to come.
    #[error("the token is not valid yet")]
    NotYet,
    /// `iss` is missing or none of those expected.
    #[error("the token's issuer is not accepted")]
    Issuer,
    /// `aud` is missing or names none of those expected.
    #[error("the token's audience is not accepted")]
    Audience,
    /// It has the claim `channel`: it proves the right to one channel, and no more.
    #[error("the token is for a channel, not for a connection")]
    Purpose,
    /// Called back before it expired.
    #[error("the token is revoked")]
    Revoked,
    /// There is no key (yet) to verify it with; the token may well be good.
    #[error("no key to verify tokens with")]
    NoKeys,
}

impl Tokens {
    pub fn new(keys: Keys, rules: Rules) -> Self {
        Self {
            keys: RwLock::new(Arc::new(keys)),
            rules,
            revocations: RwLock::new(Revocations::default()),
            wants_keys: AtomicBool::new(false),
        }
    }

    /// From here on these keys count, and no other.
    pub fn replace(&self, keys: Keys) {
        let mut current = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(keys);
        self.wants_keys.store(false, Relaxed);
    }

    /// Whether a token named an unknown key since the keys were last replaced: the issuer may have
    /// new ones. Anybody can bring that about, so whoever fetches keys limits how often.
    pub fn wants_keys(&self) -> bool {
        self.wants_keys.load(Relaxed)
    }

    /// Verifies a token; `now` is in seconds since 1970.
    ///
    /// # Errors
    /// The first reason found to refuse it: form, algorithm, key, signature, claims (RFC 7519,
    /// 4.1: `exp`, `nbf`, `iss`, `aud`), revocation.
    pub fn verify(&self, token: &str, now: i64) -> Result<Claims, TokenError> {
        let head = Head::read(token)?;
        let keys = {
            let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(&keys)
        };
        let opened = keys.open(token, &head);
        if opened.is_err() && head.kid.as_deref().is_some_and(|kid| !keys.knows(kid)) {
            self.wants_keys.store(true, Relaxed);
        }
        let claims = Claims::read(opened?)?;
        claims.check(&self.rules, now)?;
        match self.is_revoked(&claims, now) {
            true => Err(TokenError::Revoked),
            false => Ok(claims),
        }
    }

    /// The second from which [`Tokens::verify`] refuses these claims as expired, leeway counted;
    /// `None` is never.
    pub fn ends(&self, claims: &Claims) -> Option<i64> {
        claims.ends(self.rules.leeway_seconds)
    }

    /// Refuses tokens from now on. What has been acknowledged once is kept until the tokens have
    /// expired.
    ///
    /// # Errors
    /// When as many revocations are remembered as may be.
    pub fn revoke(&self, revocation: Revocation, now: i64) -> Result<(), RevocationsFull> {
        let mut revocations = self
            .revocations
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        revocations.insert(&revocation, self.rules.leeway_seconds, now)
    }

    /// Whether claims that once were good have been revoked since.
    pub fn is_revoked(&self, claims: &Claims, now: i64) -> bool {
        let revocations = self
            .revocations
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        revocations.cover(claims, now)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        formatter
            .debug_struct("Tokens")
            .field("keys", &*keys)
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

/// Whether two secrets are the same, in a time that does not depend on where they differ.
///
/// Digests are compared, so that neither does it depend on whether the lengths are equal. How long
/// hashing takes depends on each length alone: on what the peer knows, and on a constant.
pub fn same_secret(a: &[u8], b: &[u8]) -> bool {
    let hash = |secret| digest::digest(&digest::SHA256, secret);
    constant_time::verify_slices_are_equal(hash(a).as_ref(), hash(b).as_ref()).is_ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        sample::{SECRET, ed25519, p256, rsa, secret_token},
        *,
    };

    /// Made by an independent implementation of the native protocol.
    const VECTOR: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiI0MiIsImlhdCI6MTcwMDAwMDAw\
                          MCwiZXhwIjo0MTAyNDQ0ODAwfQ.bdncrEqcZEponkYINSJmuzgzghiXUu5YEWx8YoGqGNA";
    const NOW: i64 = 1_750_000_000;

    fn tokens(secret: &str) -> Tokens {
        let rules = Rules {
            leeway_seconds: 5,
            ..Rules::default()
        };
        Tokens::new(Keys::load(Some(secret), None).unwrap(), rules)
    }

    fn signed(claims: &str) -> String {
        secret_token(SECRET, claims)
    }

    #[test]
    fn the_vector_of_the_native_protocol_is_good() {
        let tokens = tokens(SECRET);
        let claims = tokens.verify(VECTOR, NOW).unwrap();
        assert_eq!(claims.subject.as_deref(), Some("42"));
        assert_eq!(claims.issued, Some(1_700_000_000));
        assert_eq!(claims.expires, Some(4_102_444_800));
        assert_eq!(tokens.ends(&claims), Some(4_102_444_805));
        assert!(tokens.verify(VECTOR, 4_102_444_804).is_ok());
        let late = tokens.verify(VECTOR, 4_102_444_805);
        assert_eq!(late, Err(TokenError::Expired));
    }

    #[test]
    fn a_token_cut_anywhere_is_refused() {
        let pairs = [&rsa()[0], &p256(), &ed25519()];
        let pem: String = pairs.iter().map(|pair| pair.public_pem.as_str()).collect();
        let keys = Keys::load(Some(SECRET), Some(&pem)).unwrap();
        let tokens = Tokens::new(keys, Rules::default());
        let claims = json!({"sub": "42", "exp": NOW + 9});
        let mut good: Vec<_> = pairs.iter().map(|pair| pair.token(&claims)).collect();
        good.push(VECTOR.to_owned());
        for token in good {
            assert!(tokens.verify(&token, NOW).is_ok());
            for length in 0..token.len() {
                assert!(tokens.verify(&token[..length], NOW).is_err());
                assert!(tokens.verify(&token[length + 1..], NOW).is_err());
            }
        }
    }

    #[test]
    fn a_token_with_any_letter_changed_or_added_is_refused() {
        let tokens = tokens(SECRET);
        for at in 0..VECTOR.len() {
            for letter in ['A', 'B', '_', '=', '.', ' ', '\0', 'é'] {
                let (before, after) = VECTOR.split_at(at);
                let added = format!("{before}{letter}{after}");
                assert!(tokens.verify(&added, NOW).is_err(), "{added}");
                let changed = format!("{before}{letter}{}", &after[1..]);
                let is_same = changed == VECTOR;
                assert_eq!(tokens.verify(&changed, NOW).is_ok(), is_same, "{changed}");
            }
        }
        assert!(tokens.verify(&format!("{VECTOR}="), NOW).is_err());
        assert!(tokens.verify(&format!("{VECTOR}\n"), NOW).is_err());
    }

    #[test]
    fn garbage_of_every_kind_is_refused() {
        let tokens = tokens(SECRET);
        const LETTERS: &[u8] = b"eyJhbGciOiJIUzI1NiJ9....AZaz09-_={}\" \\";
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as usize
        };
        for _ in 0..20_000 {
            let length = next() % 120;
            let garbage: String = (0..length)
                .map(|_| char::from(LETTERS[next() % LETTERS.len()]))
                .collect();
            assert!(tokens.verify(&garbage, NOW).is_err());
            let behind = format!("eyJhbGciOiJIUzI1NiJ9.{garbage}");
            assert!(tokens.verify(&behind, NOW).is_err());
        }
    }

    #[test]
    fn a_long_token_is_good_and_one_of_ten_kilobytes_is_not() {
        let tokens = tokens(SECRET);
        let long = |bytes: usize| signed(&format!(r#"{{"info":"{}"}}"#, "a".repeat(bytes)));
        assert!(long(6000).len() > 8000 && tokens.verify(&long(6000), NOW).is_ok());
        let outcome = tokens.verify(&long(7500), NOW);
        assert!(long(7500).len() > 10_000);
        assert_eq!(outcome, Err(TokenError::Malformed));
    }

    #[test]
    fn claims_are_believed_only_behind_a_signature() {
        let tokens = tokens(SECRET);
        let forged = secret_token("another", r#"{"exp":1,"sub":7}"#);
        assert_eq!(tokens.verify(&forged, NOW), Err(TokenError::Signature));
        for (claims, error) in [
            (r#"{"exp":1749999995}"#, TokenError::Expired),
            (r#"{"exp":"4102444800"}"#, TokenError::Malformed),
            (r#"{"exp":{}}"#, TokenError::Malformed),
            (r#"{"exp":1e999}"#, TokenError::Malformed),
            (r#"{"exp":NaN}"#, TokenError::Malformed),
            (r#"{"exp":4102444800,"exp":1}"#, TokenError::Malformed),
            (r#"{"exp":1,"exp":4102444800}"#, TokenError::Malformed),
            (r#"{"nbf":1750000006}"#, TokenError::NotYet),
            (r#"{"sub":7}"#, TokenError::Malformed),
        ] {
            assert_eq!(tokens.verify(&signed(claims), NOW), Err(error), "{claims}");
        }
        for claims in [
            "{}",
            r#"{"exp":1749999996}"#,
            r#"{"exp":4102444800.5}"#,
            r#"{"exp":99999999999999999999999}"#,
            r#"{"nbf":1750000005}"#,
            r#"{"iss":7,"aud":{"a":1},"typ":null}"#,
        ] {
            assert!(tokens.verify(&signed(claims), NOW).is_ok(), "{claims}");
        }
    }

    #[test]
    fn an_issuer_and_an_audience_are_asked_for_when_configured() {
        let rules = Rules {
            leeway_seconds: 0,
            issuers: vec!["a".to_owned()],
            audiences: vec!["b".to_owned()],
        };
        let tokens = Tokens::new(Keys::load(Some(SECRET), None).unwrap(), rules);
        let verify = |claims| tokens.verify(&signed(claims), NOW).map(drop);
        assert_eq!(verify(r#"{"iss":"a","aud":["x","b"]}"#), Ok(()));
        assert_eq!(verify(r#"{"aud":"b"}"#), Err(TokenError::Issuer));
        assert_eq!(
            verify(r#"{"iss":"a","aud":"a"}"#),
            Err(TokenError::Audience)
        );
    }

    #[test]
    fn a_revoked_token_is_refused_until_it_has_expired() {
        let tokens = tokens(SECRET);
        let exp = NOW + 100;
        let one = signed(&format!(
            r#"{{"jti":"a","sub":"u","iat":{NOW},"exp":{exp}}}"#
        ));
        let other = signed(&format!(
            r#"{{"jti":"b","sub":"u","iat":{NOW},"exp":{exp}}}"#
        ));
        let later = signed(&format!(r#"{{"jti":"c","sub":"u","iat":{}}}"#, NOW + 1));
        let live = tokens.verify(&one, NOW).unwrap();
        let id = "a".to_owned();
        let expires = Some(exp);
        tokens.revoke(Revocation::Id { id, expires }, NOW).unwrap();
        assert_eq!(tokens.verify(&one, NOW), Err(TokenError::Revoked));
        assert_eq!(tokens.verify(&one, exp + 4), Err(TokenError::Revoked));
        assert_eq!(tokens.verify(&one, exp + 5), Err(TokenError::Expired));
        assert!(tokens.is_revoked(&live, NOW));
        assert!(tokens.verify(&other, NOW).is_ok());

        let subject = "u".to_owned();
        let revocation = Revocation::Subject {
            subject,
            expires,
            at: NOW,
        };
        tokens.revoke(revocation, NOW).unwrap();
        assert_eq!(tokens.verify(&other, NOW), Err(TokenError::Revoked));
        assert!(tokens.verify(&later, NOW).is_ok());
    }

    #[test]
    fn keys_are_replaced_at_once_and_an_unknown_name_asks_for_new_ones() {
        let [a, b] = rsa();
        let set = |jwk| Keys::from_jwks(&json!({"keys": [jwk]}).to_string()).unwrap();
        let named = |kid: &str, pair: &sample::Pair| {
            let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::RS256);
            header.kid = Some(kid.to_owned());
            sample::token(&header, &json!({}), &pair.private)
        };
        let tokens = Tokens::new(Keys::default(), Rules::default());
        let token = b.token(&json!({}));
        assert_eq!(tokens.verify(&token, NOW), Err(TokenError::NoKeys));
        tokens.replace(set(a.jwk("a")));
        assert!(tokens.verify(&named("a", a), NOW).is_ok());
        assert_eq!(
            tokens.verify(&named("a", b), NOW),
            Err(TokenError::Signature)
        );
        assert!(!tokens.wants_keys());
        let outcome = tokens.verify(&named("b", b), NOW);
        assert_eq!(outcome, Err(TokenError::UnknownKey));
        assert!(tokens.wants_keys());
        tokens.replace(set(b.jwk("b")));
        assert!(!tokens.wants_keys());
        assert!(tokens.verify(&named("b", b), NOW).is_ok());
        let outcome = tokens.verify(&named("a", a), NOW);
        assert_eq!(outcome, Err(TokenError::UnknownKey));
    }

    #[test]
    fn an_unknown_name_asks_for_keys_even_when_an_unnamed_key_was_tried() {
        let tokens = tokens(SECRET);
        let header = jsonwebtoken::Header {
            kid: Some("new".to_owned()),
            ..jsonwebtoken::Header::default()
        };
        let token = |secret: &str| {
            let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
            sample::token(&header, &json!({}), &key)
        };
        assert!(tokens.verify(&token(SECRET), NOW).is_ok());
        assert!(!tokens.wants_keys());
        let outcome = tokens.verify(&token("another"), NOW);
        assert_eq!(outcome, Err(TokenError::Signature));
        assert!(tokens.wants_keys());
    }

    #[test]
    fn nothing_shows_a_key_or_a_token() {
        let pem = &rsa()[0].public_pem;
        let keys = Keys::load(Some("hunter2hunter2"), Some(pem)).unwrap();
        let jwk = p256().jwk("k-1");
        let set = Keys::from_jwks(&json!({"keys": [jwk]}).to_string()).unwrap();
        let x = jwk["x"].as_str().unwrap();
        let tokens = Tokens::new(Keys::join([keys, set]), Rules::default());
        let claims = r#"{"sub":"42","info":"hunter3","exp":1}"#;
        let token = secret_token("hunter2hunter2", claims);
        let claims = Claims::read(serde_json::from_str(claims).unwrap()).unwrap();
        let error = tokens.verify(&token, NOW).unwrap_err();
        let shown = format!("{tokens:?} {error:?} {error} {claims:?} {:#?}", tokens.keys);
        assert!(shown.contains("HS256") && shown.contains("RS256") && shown.contains("k-1"));
        let body: String = pem.lines().nth(1).unwrap().chars().take(16).collect();
        let decimal = format!("{:?}", b"hunter").replace(['[', ']'], "");
        let part = token.split('.').nth(1).unwrap();
        for secret in ["hunter", part, &body, &x[..8], &decimal, "104,\n"] {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
    }

    #[test]
    fn secrets_are_the_same_only_when_every_byte_is() {
        assert!(same_secret(b"", b"") && same_secret(b"key", b"key"));
        for (a, b) in [
            ("key", "kez"),
            ("key", "ke"),
            ("key", "key\0"),
            ("", "k"),
            ("key", "Key"),
        ] {
            assert!(!same_secret(a.as_bytes(), b.as_bytes()));
            assert!(!same_secret(b.as_bytes(), a.as_bytes()));
        }
    }
}
