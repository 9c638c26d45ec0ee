//! `revoke`: refuses tokens before they expire.
//!
//! It is older than the other methods: what is wrong with a request shows in the status, too.

use serde_json::{Value, json};

use crate::{
    handler::{Incoming, Response, Revocation},
    sys,
};

/// What went wrong, by the numbers that this API's clients know.
#[derive(Clone, Copy, Debug)]
enum Fault {
    BadRequest(&'static str),
    TooMany(&'static str),
}

/// Answers `POST /api/revoke`.
pub fn answer(incoming: &Incoming<'_>, body: &[u8]) -> Response {
    match revoke(incoming, body) {
        Ok(result) => json_response(200, &json!({ "result": result })),
        Err(fault) => fault.response(),
    }
}

/// `{"jti":"…"}` or `{"sub":"…"}`, and optionally `"exp"`: until when, in seconds since 1970, a
/// token could be shown that is meant. Without it, the revocation is remembered for as long as the
/// server runs.
fn revoke(incoming: &Incoming<'_>, body: &[u8]) -> Result<Value, Fault> {
    let revocation = revocation(body, sys::unix_seconds()).map_err(Fault::BadRequest)?;
    match incoming.revoke(revocation) {
        Ok(()) => Ok(json!({})),
        Err(_) => Err(Fault::TooMany("too many revocations are remembered")),
    }
}

fn revocation(body: &[u8], now: i64) -> Result<Revocation, &'static str> {
    let body: Value = serde_json::from_slice(body).map_err(|_| "the body is not JSON")?;
    let body = body.as_object().ok_or("the body is not an object")?;
    let known = |name: &String| ["jti", "sub", "exp"].contains(&name.as_str());
    if !body.keys().all(known) {
        return Err("expected jti or sub, and exp");
    }
    let expires = match body.get("exp") {
        None | Some(Value::Null) => None,
        Some(exp) => Some(exp.as_i64().ok_or("exp is not a number of seconds")?),
    };
    match (body.get("jti"), body.get("sub")) {
        (Some(Value::String(id)), None) if !id.is_empty() => Ok(Revocation::Id {
            id: id.as_str().into(),
            expires,
        }),
        (None, Some(Value::String(subject))) if !subject.is_empty() => Ok(Revocation::Subject {
            subject: subject.as_str().into(),
            expires,
            at: now,
        }),
        _ => Err("expected either jti or sub, a string that is not empty"),
    }
}

impl Fault {
    fn response(self) -> Response {
        let (status, code, message) = match self {
            Self::BadRequest(message) => (400, 107, message),
            Self::TooMany(message) => (429, 111, message),
        };
        let error = json!({ "code": code, "message": message });
        json_response(status, &json!({ "error": error }))
    }
}

fn json_response(status: u16, body: &Value) -> Response {
    Response::new(status)
        .body("application/json", body.to_string().into_bytes())
        .header("Cache-Control", "no-store")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_names_a_token_or_a_user_and_perhaps_a_time() {
        let read = |body: &str| revocation(body.as_bytes(), 1000).unwrap();
        let id = |expires| Revocation::Id {
            id: "a".into(),
            expires,
        };
        assert_eq!(read(r#"{"jti":"a"}"#), id(None));
        assert_eq!(read(r#"{"jti":"a","exp":2000}"#), id(Some(2000)));
        let subject = Revocation::Subject {
            subject: "u".into(),
            expires: None,
            at: 1000,
        };
        assert_eq!(read(r#"{"sub":"u","exp":null}"#), subject);
    }

    #[test]
    fn anything_else_is_told_what_was_expected() {
        let bodies = [
            "",
            "[]",
            "{}",
            "nul",
            r#"{"jti":""}"#,
            r#"{"jti":1}"#,
            r#"{"sub":null}"#,
            r#"{"jti":"a","sub":"b"}"#,
            r#"{"jti":"a","exp":"soon"}"#,
            r#"{"jti":"a","exp":1.5}"#,
            r#"{"jti":"a","ttl":5}"#,
        ];
        for body in bodies {
            assert!(revocation(body.as_bytes(), 0).is_err(), "{body}");
        }
    }
}
