//! Tokens that a server with a shared secret accepts: JWT, RFC 7519, signed by HS256.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
/// Longer than a run.
const SECONDS: u64 = 24 * 60 * 60;

/// A token that outlives the run.
///
/// # Errors
/// A clock before 1970.
pub fn lasting(secret: &str) -> io::Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_err(io::Error::other)?.as_secs();
    let expires = now + SECONDS;
    Ok(signed(
        &format!(r#"{{"sub":"42","jti":"bench","iat":{now},"exp":{expires}}}"#),
        secret,
    ))
}

fn signed(claims: &str, secret: &str) -> String {
    let content = format!(
        "{}.{}",
        encoded(HEADER.as_bytes()),
        encoded(claims.as_bytes())
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = hmac::sign(&key, content.as_bytes());
    format!("{content}.{}", encoded(signature.as_ref()))
}

/// base64url without padding, RFC 7515, 2.
fn encoded(bytes: &[u8]) -> String {
    let text = openssl::base64::encode_block(bytes);
    text.trim_end_matches('=')
        .replace('+', "-")
        .replace('/', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_one_that_others_make_of_the_same_claims() {
        let token = signed(
            r#"{"sub":"42","iat":1700000000,"exp":4102444800}"#,
            "cent-secret",
        );
        assert_eq!(
            token,
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.\
             eyJzdWIiOiI0MiIsImlhdCI6MTcwMDAwMDAwMCwiZXhwIjo0MTAyNDQ0ODAwfQ.\
             bdncrEqcZEponkYINSJmuzgzghiXUu5YEWx8YoGqGNA"
        );
    }
}
