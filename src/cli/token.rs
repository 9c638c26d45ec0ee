//! `tidemill token`: signs a token with the configured secret, to try things out. Whoever runs a
//! service signs tokens in its own server.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Arg, ArgMatches, Command, error::ErrorKind};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Map, Value};

use crate::{
    config::{Secret, read_duration, resolve},
    sys,
};

/// Prints the token. Exit code 2 when the options or the configuration are wrong.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => {
            let _ = error.print();
            let is_asked_for = error.kind() == ErrorKind::DisplayHelp;
            return ExitCode::from(if is_asked_for { 0 } else { 2 });
        }
    };
    match token(&matches) {
        Ok(token) => {
            // A reader that closed the pipe has read what it wanted.
            let _ = writeln!(io::stdout().lock(), "{token}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::from(2)
        }
    }
}

fn command() -> Command {
    let option = |name, value, help| Arg::new(name).long(name).value_name(value).help(help);
    Command::new("tidemill token")
        .about("Sign a token with TIDEMILL_TOKEN_SECRET, to try things out.")
        .override_usage("tidemill token --user NAME [--flag VALUE]...")
        .arg(option("user", "NAME", "The user (sub)").required(true))
        .arg(
            option("expires", "TIME", "When it ends (exp), from now; never: 0").default_value("1h"),
        )
        .arg(option(
            "id",
            "ID",
            "Its name (jti), by which it can be revoked",
        ))
        .arg(option("claims", "JSON", "More claims, as an object"))
        .arg(option(
            "env-file",
            "FILE",
            "A file of TIDEMILL_NAME=value lines",
        ))
}

fn token(matches: &ArgMatches) -> Result<String, String> {
    let given = |name: &str| matches.get_one::<String>(name);
    let flags: BTreeMap<&'static str, String> = given("env-file")
        .map(|file| ("env-file", file.clone()))
        .into_iter()
        .collect();
    let resolved = resolve(&flags, env::vars_os()).map_err(|error| error.to_string())?;
    let secret = resolved.config.token_secret;
    let secret = secret.ok_or("TIDEMILL_TOKEN_SECRET is not set, nothing to sign with")?;
    let mut claims = match given("claims") {
        None => Map::new(),
        Some(json) => object(json)?,
    };
    let now = sys::unix_seconds();
    let lifetime = given("expires").map_or("0", String::as_str);
    let lifetime = read_duration(lifetime).map_err(|problem| format!("--expires: {problem}"))?;
    claims.insert("iat".to_owned(), now.into());
    if !lifetime.is_zero() {
        let end = now.saturating_add_unsigned(lifetime.as_secs());
        claims.insert("exp".to_owned(), end.into());
    }
    for (option, claim) in [("user", "sub"), ("id", "jti")] {
        if let Some(text) = given(option) {
            claims.insert(claim.to_owned(), text.as_str().into());
        }
    }
    sign(&secret, &claims)
}

fn object(json: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(json).map_err(|error| format!("--claims is not a JSON object: {error}"))
}

/// By HS256 and the first of the secrets.
fn sign(secret: &Secret, claims: &Map<String, Value>) -> Result<String, String> {
    let mut lines = secret.expose().lines();
    let first = lines
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default();
    if first.starts_with('{') {
        return Err(
            "TIDEMILL_TOKEN_SECRET is a JWK Set, sign with one of its keys elsewhere".into(),
        );
    }
    let key = EncodingKey::from_secret(first.as_bytes());
    encode(&Header::new(Algorithm::HS256), claims, &key).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::token::{Keys, Rules, Tokens};

    #[test]
    fn what_is_signed_is_accepted_by_the_server_with_that_secret() {
        let secret = "cent-secret\nolder-secret";
        let claims = object(r#"{"sub":"ann","room":7}"#).unwrap();
        let token = sign(&Secret::new(secret), &claims).unwrap();
        let keys = Keys::load(Some(secret), None).unwrap();
        let tokens = Tokens::new(keys, Rules::default());
        let accepted = tokens.verify(&token, 0).unwrap();
        assert_eq!(accepted.subject.as_deref(), Some("ann"));
        assert_eq!(accepted.payload["room"], 7);
    }

    #[test]
    fn a_set_of_keys_is_not_taken_for_a_secret() {
        let set = Secret::new(r#"{"keys":[]}"#);
        assert!(sign(&set, &Map::new()).is_err());
        assert!(object("[]").is_err());
    }
}
