//! The header of a token (RFC 7515, 4): what the token says about itself, believed by nobody. It
//! only narrows down which keys are tried.

use jsonwebtoken::{Algorithm, dangerous::insecure_decode_claims};
use serde_json::{Map, Value};

use super::{TOKEN_BYTES_MAX, TokenError};

/// The algorithms of tokens (RFC 7518, 3.1; RFC 8037, 3.1). There is no other, `none` least of all.
const ALGORITHMS: [(&str, Algorithm); 6] = [
    ("HS256", Algorithm::HS256),
    ("HS384", Algorithm::HS384),
    ("HS512", Algorithm::HS512),
    ("RS256", Algorithm::RS256),
    ("ES256", Algorithm::ES256),
    ("EdDSA", Algorithm::EdDSA),
];

/// What counts of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) algorithm: Algorithm,
    /// Which key it says it was signed by.
    pub(super) kid: Option<String>,
}

impl Head {
    /// Reads the first of a token's three parts. The other two may be anything.
    ///
    /// # Errors
    /// `Malformed`, `Algorithm`.
    pub(super) fn read(token: &str) -> Result<Self, TokenError> {
        if token.len() > TOKEN_BYTES_MAX || token.matches('.').count() != 2 {
            return Err(TokenError::Malformed);
        }
        let first = token.split('.').next().unwrap_or_default();
        // The crate decodes the middle one of three parts into whatever is wanted, but a header
        // only into its own type, which cannot tell an unknown algorithm from a broken header.
        let middle = format!(".{first}.");
        let fields: Map<String, Value> =
            insecure_decode_claims(middle).map_err(|_| TokenError::Malformed)?;
        // RFC 7515, 4.1.11: extensions that must be understood. None is.
        if fields.contains_key("crit") {
            return Err(TokenError::Malformed);
        }
        let kid = match fields.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(TokenError::Malformed),
        };
        let Some(Value::String(name)) = fields.get("alg") else {
            return Err(TokenError::Malformed);
        };
        let known = ALGORITHMS.iter().find(|(known, _)| known == name);
        let (_, algorithm) = known.ok_or(TokenError::Algorithm)?;
        Ok(Self {
            algorithm: *algorithm,
            kid,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::token::sample::part;

    fn read(header: &str) -> Result<Head, TokenError> {
        Head::read(&format!("{}.e30.", part(header)))
    }

    #[test]
    fn the_six_algorithms_are_read_and_their_names_are_exact() {
        for (name, algorithm) in ALGORITHMS {
            let header = format!(r#"{{"alg":"{name}","kid":"a"}}"#);
            let kid = Some("a".to_owned());
            assert_eq!(read(&header), Ok(Head { algorithm, kid }));
            let lower = format!(r#"{{"alg":"{}"}}"#, name.to_lowercase());
            assert_eq!(read(&lower), Err(TokenError::Algorithm));
        }
        let without = read(r#"{"alg":"HS256"}"#);
        assert_eq!(without.map(|head| head.kid), Ok(None));
    }

    #[test]
    fn none_in_every_spelling_and_foreign_algorithms_are_refused() {
        let none = [
            "none",
            "None",
            "NONE",
            "nOnE",
            "none ",
            " none",
            "n\\u006fne",
            "",
        ];
        let foreign = [
            "RS384",
            "RS512",
            "PS256",
            "ES384",
            "ES512",
            "ES256K",
            "dir",
            "HS256\\u0000",
        ];
        for name in none.iter().chain(&foreign) {
            let header = format!(r#"{{"typ":"JWT","alg":"{name}"}}"#);
            assert_eq!(read(&header), Err(TokenError::Algorithm), "{name}");
        }
    }

    #[test]
    fn a_header_that_is_none_is_malformed() {
        for header in [
            "",
            "{",
            "[]",
            "null",
            "\"HS256\"",
            "{}",
            r#"{"alg":null}"#,
            r#"{"alg":["HS256"]}"#,
            r#"{"alg":0}"#,
            r#"{"alg":"HS256","kid":7}"#,
            r#"{"alg":"HS256","kid":null}"#,
            r#"{"alg":"HS256"} x"#,
        ] {
            assert_eq!(read(header), Err(TokenError::Malformed), "{header}");
        }
        for crit in ["[]", "[\"exp\"]", "null", "\"b64\"", "7"] {
            let header = format!(r#"{{"alg":"HS256","crit":{crit}}}"#);
            assert_eq!(read(&header), Err(TokenError::Malformed), "{crit}");
        }
    }

    #[test]
    fn other_than_three_parts_of_strict_base64url_is_malformed() {
        let header = part(r#"{"alg":"HS256"}"#);
        assert!(Head::read(&format!("{header}..")).is_ok());
        for token in [
            header.clone(),
            format!("{header}."),
            format!("{header}.a.b.c"),
            format!("{header}=.a.b"),
            format!(" {header}.a.b"),
            format!("{}+/.a.b", header),
            "..".to_owned(),
        ] {
            assert_eq!(Head::read(&token), Err(TokenError::Malformed), "{token}");
        }
    }

    #[test]
    fn the_longest_token_is_read_and_a_longer_one_is_not() {
        let mut token = format!("{}..", part(r#"{"alg":"HS256"}"#));
        let missing = TOKEN_BYTES_MAX - token.len();
        token.push_str(&"a".repeat(missing));
        assert!(Head::read(&token).is_ok());
        token.push('a');
        assert_eq!(Head::read(&token), Err(TokenError::Malformed));
    }
}
