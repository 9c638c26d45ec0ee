//! Keys as JSON: a JWK Set (RFC 7517, 5; RFC 7518, 6; RFC 8037, 2).

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde_json::Value;

use super::{
    keys::{Key, Source, algorithms},
    pem::check,
};

/// Reads the keys of a set that tokens may be signed by. Keys for other purposes, of other kinds
/// and for other algorithms are passed over (RFC 7517, 5).
///
/// # Errors
/// Not a set; or, where we and not others decide what is in it, a key that is malformed or does
/// not belong there.
pub(super) fn read(json: &str, source: Source) -> Result<Vec<Key>, String> {
    // Of the parser's errors only the place: the rest may quote the text.
    let set: Value = serde_json::from_str(json).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("not JSON, at line {line} column {column}")
    })?;
    let Some(Value::Array(list)) = set.get("keys") else {
        return Err("not a JWK Set, it has a list of \"keys\"".to_owned());
    };
    let mut keys = Vec::new();
    for (index, value) in list.iter().enumerate() {
        match key(value, source) {
            Ok(found) => keys.extend(found),
            Err(_) if source == Source::Url => {}
            Err(problem) => return Err(format!("key {}: {problem}", index + 1)),
        }
    }
    Ok(keys)
}

/// One key; `None` is a sound one that tokens are not signed by.
fn key(value: &Value, source: Source) -> Result<Option<Key>, String> {
    let malformed = |_| "not a JWK".to_owned();
    let jwk: Jwk = serde_json::from_value(value.clone()).map_err(malformed)?;
    let common = &jwk.common;
    let is_for_signatures = match &common.public_key_use {
        None => true,
        Some(purpose) => *purpose == PublicKeyUse::Signature,
    };
    let verifies = match &common.key_operations {
        None => true,
        Some(operations) => operations.contains(&KeyOperations::Verify),
    };
    if !is_for_signatures || !verifies {
        return Ok(None);
    }
    let Some(family) = family(&jwk.algorithm) else {
        return Ok(None);
    };
    match (source, family) {
        (Source::Secret, AlgorithmFamily::Hmac) => {}
        (Source::Secret, _) => {
            return Err("a public key belongs in TIDEMILL_TOKEN_PUBLIC_KEY".to_owned());
        }
        (_, AlgorithmFamily::Hmac) => {
            return Err("a secret (oct) belongs in TIDEMILL_TOKEN_SECRET".to_owned());
        }
        _ => {}
    }
    let own = algorithms(family);
    let own = match common.key_algorithm.map(Algorithm::try_from) {
        None => own.to_vec(),
        Some(Ok(only)) if own.contains(&only) => vec![only],
        Some(_) => return Ok(None),
    };
    let decoding = DecodingKey::from_jwk(&jwk).map_err(|_| "not base64url".to_owned())?;
    check(&decoding)?;
    Ok(Some(Key::new(common.key_id.clone(), decoding, own)))
}

fn family(parameters: &AlgorithmParameters) -> Option<AlgorithmFamily> {
    match parameters {
        AlgorithmParameters::OctetKey(_) => Some(AlgorithmFamily::Hmac),
        AlgorithmParameters::RSA(_) => Some(AlgorithmFamily::Rsa),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            Some(AlgorithmFamily::Ec)
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            Some(AlgorithmFamily::Ed)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::gate::token::{
        Keys, TokenError, Tokens,
        sample::{ed25519, p256, part, rsa, secret_token},
    };

    fn fetched(keys: &[Value]) -> Result<Keys, String> {
        let set = json!({"keys": keys, "other": 1}).to_string();
        Keys::from_jwks(&set).map_err(|error| error.to_string())
    }

    fn with(mut jwk: Value, name: &str, value: Value) -> Value {
        jwk[name] = value;
        jwk
    }

    fn oct(secret: &str) -> Value {
        json!({"kty": "oct", "k": part(secret)})
    }

    #[test]
    fn every_kind_of_public_key_is_read_and_verifies() {
        for pair in [&rsa()[0], &p256(), &ed25519()] {
            let mut jwk = pair.jwk("a");
            let token = pair.token(&json!({"sub": "u"}));
            for name in ["nothing", "alg", "kid"] {
                jwk.as_object_mut().unwrap().remove(name);
                let jwk = with(jwk.clone(), "use", json!("sig"));
                let set = json!({"keys": [jwk]}).to_string();
                for keys in [Keys::from_jwks(&set), Keys::load(None, Some(&set))] {
                    let tokens = Tokens::new(keys.unwrap(), Default::default());
                    assert!(tokens.verify(&token, 0).is_ok());
                }
            }
        }
    }

    #[test]
    fn keys_that_tokens_are_not_signed_by_are_passed_over() {
        let good = p256().jwk("good");
        let rsa = rsa()[0].jwk("a");
        for other in [
            with(good.clone(), "use", json!("enc")),
            with(good.clone(), "use", json!("SIG")),
            with(good.clone(), "key_ops", json!(["sign"])),
            with(good.clone(), "alg", json!("ES384")),
            with(good.clone(), "alg", json!("RS256")),
            with(good.clone(), "alg", json!("none")),
            with(good.clone(), "crv", json!("P-384")),
            with(good.clone(), "crv", json!("secp256k1")),
            with(good.clone(), "crv", json!("P-521")),
            with(good.clone(), "kty", json!("RSA")),
            with(rsa.clone(), "alg", json!("PS256")),
            with(rsa.clone(), "alg", json!("RSA-OAEP")),
            with(rsa.clone(), "alg", json!("HS256")),
            json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA"}),
        ] {
            let keys = fetched(&[other.clone(), good.clone()]).unwrap();
            assert_eq!(keys.len(), 1, "{other}");
            let error = fetched(&[other]).unwrap_err();
            assert!(
                error.starts_with("TIDEMILL_TOKEN_JWKS_URL: no key"),
                "{error}"
            );
        }
        let both = with(good.clone(), "key_ops", json!(["verify"]));
        assert_eq!(fetched(&[both, good]).unwrap().len(), 2);
    }

    #[test]
    fn malformed_keys_are_left_out_when_fetched_and_refused_when_configured() {
        let good = p256().jwk("good");
        let small = part(&"n".repeat(128));
        for bad in [
            json!("hunter2"),
            json!(null),
            with(good.clone(), "x", json!("hunter2!")),
            with(good.clone(), "x", json!(part("short"))),
            with(good.clone(), "x", good["y"].clone()),
            with(good.clone(), "kid", json!(7)),
            with(rsa()[0].jwk("a"), "n", json!(small)),
            with(rsa()[0].jwk("a"), "e", json!("")),
            with(ed25519().jwk("a"), "x", json!("")),
            oct("hunter2"),
        ] {
            assert_eq!(
                fetched(&[bad.clone(), good.clone()]).unwrap().len(),
                1,
                "{bad}"
            );
            let set = json!({"keys": [good, bad]}).to_string();
            let error = Keys::load(None, Some(&set)).unwrap_err().to_string();
            assert!(
                error.starts_with("TIDEMILL_TOKEN_PUBLIC_KEY: key 2: "),
                "{error}"
            );
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn secrets_come_as_a_set_too_each_with_its_own_algorithm() {
        let any = oct("any");
        let only = with(oct("only"), "alg", json!("HS512"));
        let set = json!({"keys": [any, only]}).to_string();
        let tokens = Tokens::new(Keys::load(Some(&set), None).unwrap(), Default::default());
        assert!(tokens.verify(&secret_token("any", "{}"), 0).is_ok());
        let outcome = tokens.verify(&secret_token("only", "{}"), 0);
        assert_eq!(outcome, Err(TokenError::Signature));
        let alone = json!({"keys": [with(oct("only"), "alg", json!("HS512"))]}).to_string();
        let tokens = Tokens::new(Keys::load(Some(&alone), None).unwrap(), Default::default());
        let outcome = tokens.verify(&secret_token("only", "{}"), 0);
        assert_eq!(outcome, Err(TokenError::Algorithm));

        for (wrong, remedy) in [
            (p256().jwk("a"), "TOKEN_PUBLIC_KEY"),
            (oct(""), "malformed"),
        ] {
            let set = json!({"keys": [wrong]}).to_string();
            let error = Keys::load(Some(&set), None).unwrap_err().to_string();
            assert!(error.contains(remedy), "{error}");
        }
    }

    #[test]
    fn what_is_no_set_is_told_without_quoting_it() {
        for text in [
            "",
            "hunter2",
            "<html>hunter2</html>",
            "[]",
            "{}",
            r#"{"keys":"hunter2"}"#,
            r#"{"keys":{"hunter2":1}}"#,
            r#"{"keys":[]"#,
        ] {
            let error = Keys::from_jwks(text).unwrap_err().to_string();
            assert!(
                error.contains("JWK Set") || error.contains("not JSON"),
                "{error}"
            );
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(fetched(&vec![p256().jwk("a"); 33]).is_err());
    }
}
