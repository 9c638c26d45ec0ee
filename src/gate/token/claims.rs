//! What a signed token says (RFC 7519, 4.1), and whether that holds here and now.

use std::fmt;

use serde_json::{Map, Value};

use super::{Rules, TokenError};

/// What a verified token says about its bearer. All fields come from one reading of one payload.
#[derive(Clone, PartialEq)]
pub struct Claims {
    /// `sub`: the user. An empty one names nobody.
    pub subject: Option<Box<str>>,
    /// `jti`: the token itself.
    pub id: Option<Box<str>>,
    /// `exp`: the second from which the token is no longer valid, since 1970, without leeway.
    pub expires: Option<i64>,
    /// `iat`: the second in which it was made.
    pub issued: Option<i64>,
    /// All of it, the above included.
    pub payload: Map<String, Value>,
}

impl Claims {
    /// # Errors
    /// `Malformed` when a claim that we know has a type that it must not have. `null` is one: an
    /// issuer that leaves a claim open does not write it.
    pub(super) fn read(payload: Map<String, Value>) -> Result<Self, TokenError> {
        let subject = text(&payload, "sub")?.filter(|subject| !subject.is_empty());
        let claims = Self {
            subject: subject.map(Box::from),
            id: text(&payload, "jti")?.map(Box::from),
            expires: date(&payload, "exp", f64::round)?,
            // Downwards, so that a revocation in the same second covers it.
            issued: date(&payload, "iat", f64::floor)?,
            payload,
        };
        Ok(claims)
    }

    /// # Errors
    /// `Expired`, `NotYet`, `Issuer`, `Audience`; `Malformed` for `nbf` of a wrong type.
    pub(super) fn check(&self, rules: &Rules, now: i64) -> Result<(), TokenError> {
        // RFC 7519, 4.1.4: the current time must be before `exp`.
        if self
            .ends(rules.leeway_seconds)
            .is_some_and(|end| now >= end)
        {
            return Err(TokenError::Expired);
        }
        // RFC 7519, 4.1.5: the current time must be `nbf` or after it.
        let not_before = date(&self.payload, "nbf", f64::round)?;
        if not_before.is_some_and(|start| now.saturating_add_unsigned(rules.leeway_seconds) < start)
        {
            return Err(TokenError::NotYet);
        }
        let is_one_of = |wanted: &[String], value: &Value| {
            let value = value.as_str();
            value.is_some_and(|value| wanted.iter().any(|wanted| wanted == value))
        };
        let issuer = self.payload.get("iss");
        if !rules.issuers.is_empty() && !issuer.is_some_and(|iss| is_one_of(&rules.issuers, iss)) {
            return Err(TokenError::Issuer);
        }
        let names_us = |audience: &Value| match audience {
            Value::Array(several) => several.iter().any(|one| is_one_of(&rules.audiences, one)),
            one => is_one_of(&rules.audiences, one),
        };
        if !rules.audiences.is_empty() && !self.payload.get("aud").is_some_and(names_us) {
            return Err(TokenError::Audience);
        }
        Ok(())
    }

    /// Whether they are those of a connection.
    ///
    /// # Errors
    /// `Purpose`: they are for one channel. Who was given such a token was given no more.
    pub fn for_connection(self) -> Result<Self, TokenError> {
        match self.payload.contains_key("channel") {
            true => Err(TokenError::Purpose),
            false => Ok(self),
        }
    }

    /// The second from which they are refused as expired.
    pub(super) fn ends(&self, leeway_seconds: u64) -> Option<i64> {
        let expires = self.expires?;
        Some(expires.saturating_add_unsigned(leeway_seconds))
    }
}

/// Without the payload: applications put there what they like.
impl fmt::Debug for Claims {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Claims")
            .field("subject", &self.subject)
            .field("id", &self.id)
            .field("expires", &self.expires)
            .field("issued", &self.issued)
            .finish_non_exhaustive()
    }
}

fn text<'p>(payload: &'p Map<String, Value>, name: &str) -> Result<Option<&'p str>, TokenError> {
    match payload.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(TokenError::Malformed),
    }
}

/// A NumericDate (RFC 7519, 2): seconds since 1970, with a fraction or without. One out of range
/// is as far as the range goes.
fn date(
    payload: &Map<String, Value>,
    name: &str,
    whole: fn(f64) -> f64,
) -> Result<Option<i64>, TokenError> {
    match payload.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => {
            let seconds = number.as_i64();
            let seconds = seconds.or_else(|| Some(whole(number.as_f64()?) as i64));
            seconds.map(Some).ok_or(TokenError::Malformed)
        }
        Some(_) => Err(TokenError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<Claims, TokenError> {
        Claims::read(serde_json::from_str(text).unwrap())
    }

    fn check(claims: &Value, rules: &Rules, now: i64) -> Result<(), TokenError> {
        Claims::read(claims.as_object().unwrap().clone())?.check(rules, now)
    }

    fn leeway(leeway_seconds: u64) -> Rules {
        Rules {
            leeway_seconds,
            ..Rules::default()
        }
    }

    fn lists(issuers: &[&str], audiences: &[&str]) -> Rules {
        let owned = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect();
        Rules {
            leeway_seconds: 0,
            issuers: owned(issuers),
            audiences: owned(audiences),
        }
    }

    #[test]
    fn every_field_is_read_and_none_is_required() {
        let text = r#"{"sub":"u","jti":"t","exp":20,"iat":10,"info":{"a":[1]}}"#;
        let claims = read(text).unwrap();
        assert_eq!(claims.subject.as_deref(), Some("u"));
        assert_eq!(claims.id.as_deref(), Some("t"));
        assert_eq!((claims.expires, claims.issued), (Some(20), Some(10)));
        assert_eq!(claims.payload["info"], json!({"a": [1]}));
        assert_eq!(claims.payload.len(), 5);
        let empty = read("{}").unwrap();
        assert_eq!((empty.subject, empty.id), (None, None));
        assert_eq!((empty.expires, empty.issued), (None, None));
        assert_eq!(read(r#"{"sub":""}"#).unwrap().subject, None);
    }

    #[test]
    fn a_claim_of_a_wrong_type_is_malformed() {
        for name in ["exp", "iat", "nbf"] {
            for value in ["\"100\"", "null", "true", "[1]", "{}", "\"\""] {
                let payload = serde_json::from_str(&format!(r#"{{"{name}":{value}}}"#)).unwrap();
                let outcome = check(&payload, &leeway(0), 0);
                assert_eq!(outcome, Err(TokenError::Malformed), "{name} {value}");
            }
        }
        for name in ["sub", "jti"] {
            for value in ["7", "null", "true", "[\"a\"]", "{}"] {
                let text = format!(r#"{{"{name}":{value}}}"#);
                assert_eq!(read(&text), Err(TokenError::Malformed), "{text}");
            }
        }
    }

    #[test]
    fn a_token_is_good_until_the_last_second_of_the_leeway() {
        let claims = json!({"exp": 1000});
        for (seconds, now, outcome) in [
            (0, 999, Ok(())),
            (0, 1000, Err(TokenError::Expired)),
            (5, 1004, Ok(())),
            (5, 1005, Err(TokenError::Expired)),
            (5, i64::MAX, Err(TokenError::Expired)),
            (u64::MAX, i64::MAX - 1, Ok(())),
        ] {
            assert_eq!(
                check(&claims, &leeway(seconds), now),
                outcome,
                "{seconds} {now}"
            );
        }
        let claims = read(r#"{"exp":1000}"#).unwrap();
        assert_eq!(claims.ends(5), Some(1005));
        assert_eq!(read("{}").unwrap().ends(5), None);
    }

    #[test]
    fn a_token_is_good_from_the_first_second_of_the_leeway() {
        let claims = json!({"nbf": 1000});
        for (seconds, now, outcome) in [
            (0, 1000, Ok(())),
            (0, 999, Err(TokenError::NotYet)),
            (5, 995, Ok(())),
            (5, 994, Err(TokenError::NotYet)),
            (u64::MAX, i64::MIN, Ok(())),
        ] {
            assert_eq!(
                check(&claims, &leeway(seconds), now),
                outcome,
                "{seconds} {now}"
            );
        }
    }

    #[test]
    fn numbers_of_every_kind_are_dates() {
        for (number, expires) in [
            ("100", 100),
            ("100.4", 100),
            ("100.5", 101),
            ("1e3", 1000),
            ("-1", -1),
            ("-1.5", -2),
            ("0", 0),
            ("-0.0", 0),
            ("9223372036854775807", i64::MAX),
            ("18446744073709551615", i64::MAX),
            ("1e300", i64::MAX),
            ("-1e300", i64::MIN),
        ] {
            let claims = read(&format!(r#"{{"exp":{number}}}"#)).unwrap();
            assert_eq!(claims.expires, Some(expires), "{number}");
        }
        let now = 1_700_000_000;
        for huge in ["9223372036854775807", "1e300"] {
            let claims = serde_json::from_str(&format!(r#"{{"exp":{huge}}}"#)).unwrap();
            assert_eq!(check(&claims, &leeway(600), now), Ok(()));
        }
        for past in ["-1", "0", "-1e300"] {
            let claims = serde_json::from_str(&format!(r#"{{"exp":{past}}}"#)).unwrap();
            assert_eq!(check(&claims, &leeway(600), now), Err(TokenError::Expired));
        }
        assert_eq!(read(r#"{"iat":100.9}"#).unwrap().issued, Some(100));
    }

    #[test]
    fn a_token_from_the_future_is_good() {
        assert_eq!(check(&json!({"iat": 2000}), &leeway(5), 1000), Ok(()));
    }

    #[test]
    fn an_issuer_that_is_asked_for_must_be_there_as_one_text() {
        let rules = lists(&["https://a", "b"], &[]);
        for iss in [json!("https://a"), json!("b")] {
            assert_eq!(check(&json!({"iss": iss}), &rules, 0), Ok(()));
        }
        for claims in [
            json!({}),
            json!({"iss": "https://a/"}),
            json!({"iss": "B"}),
            json!({"iss": ""}),
            json!({"iss": null}),
            json!({"iss": ["b"]}),
            json!({"iss": 7}),
        ] {
            assert_eq!(
                check(&claims, &rules, 0),
                Err(TokenError::Issuer),
                "{claims}"
            );
        }
        assert_eq!(check(&json!({"iss": "c"}), &lists(&[], &[]), 0), Ok(()));
    }

    #[test]
    fn an_audience_that_is_asked_for_must_be_the_text_or_in_the_list() {
        let rules = lists(&[], &["chat", "news"]);
        for aud in [
            json!("chat"),
            json!(["news"]),
            json!(["x", "chat"]),
            json!([7, "chat"]),
        ] {
            assert_eq!(check(&json!({"aud": aud}), &rules, 0), Ok(()));
        }
        for claims in [
            json!({}),
            json!({"aud": "Chat"}),
            json!({"aud": "chat news"}),
            json!({"aud": []}),
            json!({"aud": ["x", "y"]}),
            json!({"aud": [["chat"]]}),
            json!({"aud": {"chat": true}}),
            json!({"aud": null}),
        ] {
            assert_eq!(
                check(&claims, &rules, 0),
                Err(TokenError::Audience),
                "{claims}"
            );
        }
        assert_eq!(check(&json!({"aud": "c"}), &lists(&[], &[]), 0), Ok(()));
    }
}
