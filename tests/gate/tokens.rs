//! Tokens that are sound: where they are looked for, which of them counts, and how they are signed.

use serde_json::json;

use crate::{
    call::{Answer, Call},
    guarded::{Guarded, set},
    jwt::{Key, SECRET, VECTOR, base64, claims, now, set_of},
    server::Setup,
};

fn good() -> String {
    Key::hmac(SECRET).sign(&claims("anna"))
}

fn bad() -> String {
    Key::hmac("another secret, which nobody told the server about").sign(&claims("anna"))
}

fn by_query(token: &str) -> Call {
    Call::to(&format!("/echo?a=1&token={token}&b=2"))
}

fn with_cookie(call: Call, token: &str) -> Call {
    call.header("Cookie", &format!("a=b; session={token}; c=d"))
}

#[test]
fn a_token_is_found_in_header_query_and_cookie() {
    let gate = Guarded::with(&[("TOKEN_SECRET", SECRET), ("TOKEN_COOKIE", "session")]);
    let token = good();
    Call::echo().bearer(&token).open(gate.address).close();
    by_query(&token).open(gate.address).close();
    Call::to(&format!("/echo?token={token}"))
        .open(gate.address)
        .close();
    with_cookie(Call::echo(), &token).open(gate.address).close();
    let only = Call::echo().header("Cookie", &format!("session={token}"));
    only.open(gate.address).close();
    // RFC 9110, 11.1: the name of a scheme has no case.
    for scheme in ["bearer", "BEARER"] {
        let call = Call::echo().header("Authorization", &format!("{scheme} {token}"));
        call.open(gate.address).close();
    }
    // The other dialects ask for one as well.
    for path in ["/", "/ws", "/chat"] {
        Call::to(path).bearer(&token).open(gate.address);
        gate.refuses_token(&Call::to(path), "token_missing");
    }
    gate.end();
}

#[test]
fn the_first_token_found_counts_and_no_other() {
    let gate = Guarded::with(&[("TOKEN_SECRET", SECRET), ("TOKEN_COOKIE", "session")]);
    let (good, bad) = (good(), bad());
    by_query(&bad).bearer(&good).open(gate.address).close();
    gate.refuses_token(&by_query(&good).bearer(&bad), "token_signature");
    with_cookie(by_query(&good), &bad)
        .open(gate.address)
        .close();
    gate.refuses_token(&with_cookie(by_query(&bad), &good), "token_signature");
    with_cookie(Call::echo(), &bad)
        .bearer(&good)
        .open(gate.address)
        .close();
    let call = with_cookie(Call::echo(), &good).bearer(&bad);
    gate.refuses_token(&call, "token_signature");
    gate.end();
}

#[test]
fn without_a_token_nobody_comes_in() {
    let gate = Guarded::with(&[("TOKEN_SECRET", SECRET)]);
    let answer = gate.refuses_token(&Call::echo(), "token_missing");
    assert!(!answer.body.contains(SECRET));
    // A cookie that the server was not told about is none.
    let call = with_cookie(Call::echo(), &good());
    gate.refuses_token(&call, "token_missing");
    // Nor is what only looks like a token's place.
    for path in [
        "/echo?tokens=x",
        "/echo?xtoken=y",
        "/echo?a=token",
        "/echo?Token=x",
    ] {
        let call = Call::to(path);
        let answer = call.refused(gate.address, 401);
        assert!(answer.header("www-authenticate").is_some());
    }
    // Other schemes are for others; what comes after them counts.
    let basic = Call::echo().header("Authorization", "Basic YTpi");
    gate.refuses_token(&basic, "token_missing");
    by_query(&good())
        .header("Authorization", "Basic YTpi")
        .open(gate.address);
    gate.end();
}

#[test]
fn a_token_that_is_empty_is_none_that_is_valid() {
    let gate = Guarded::with(&[("TOKEN_SECRET", SECRET), ("TOKEN_COOKIE", "session")]);
    let before = gate.all_refused();
    let calls = [
        by_query(""),
        Call::to("/echo?token"),
        Call::echo().header("Authorization", "Bearer"),
        Call::echo().header("Authorization", "Bearer "),
        Call::echo().header("Cookie", "session="),
    ];
    for call in &calls {
        let answer = call.refused(gate.address, 401);
        assert!(answer.header("www-authenticate").is_some());
    }
    assert_eq!(gate.all_refused(), before + calls.len() as u64);
    gate.end();
}

#[test]
fn plain_requests_need_no_token_and_what_is_not_there_needs_none_either() {
    let gate = Guarded::with(&[("TOKEN_SECRET", SECRET)]);
    for path in ["/health", "/ready", "/", "/health?token=nonsense"] {
        let answer = Call::get(path).bearer("nonsense").answered(gate.address);
        assert_eq!(answer.status, 200, "{path}");
    }
    gate.refuses(&Call::to("/nowhere"), 404, "unknown_path");
    gate.refuses(&Call::to("/nowhere").bearer(&bad()), 404, "unknown_path");
    gate.end();
}

#[test]
fn when_none_is_required_one_that_is_shown_must_be_valid() {
    let gate = Guarded::with(&[("TOKEN_SECRET", SECRET), ("TOKEN_REQUIRED", "false")]);
    Call::echo().open(gate.address).close();
    Call::echo().bearer(&good()).open(gate.address).close();
    gate.refuses_token(&Call::echo().bearer(&bad()), "token_signature");
    gate.refuses_token(&Call::echo().bearer("nonsense"), "token_malformed");
    let old = Key::hmac(SECRET).sign(&json!({"exp": now() - 100}));
    gate.refuses_token(&by_query(&old), "token_expired");
    gate.end();
}

/// Whoever is no friend of the page's origin is told so, whatever token they have.
#[test]
fn a_token_does_not_open_for_a_page_of_strangers() {
    let gate = Guarded::exposed(&[("TOKEN_SECRET", SECRET)]);
    let call = Call::echo()
        .host("example.com")
        .origin("https://evil.example");
    gate.refuses(&call.clone().bearer(&good()), 403, "origin");
    gate.refuses(&call, 403, "origin");
    gate.end();
}

#[test]
fn the_token_that_the_sdks_document_is_taken() {
    let gate = Guarded::with(&[("TOKEN_SECRET", "cent-secret")]);
    Call::echo().bearer(VECTOR).open(gate.address).close();
    // Eleven bytes are few (RFC 7518, 3.2), and the log says so without saying which.
    let line = gate.expect_said("TIDEMILL_TOKEN_SECRET");
    assert_eq!(line.level, "warn", "{line:?}");
    assert!(!line.message.contains("cent-secret"), "{line:?}");
    gate.end();
}

#[test]
fn every_size_of_hmac_is_taken() {
    for set in [SECRET.to_owned(), set_of(&[Key::hmac(SECRET).jwk(None)])] {
        let gate = Guarded::with(&[("TOKEN_SECRET", &set)]);
        for algorithm in ["HS256", "HS384", "HS512"] {
            let header = json!({"alg": algorithm, "typ": "JWT"});
            let token = Key::hmac(SECRET).sign_as(&header, &claims("anna"));
            Call::echo().bearer(&token).open(gate.address).close();
            // The same signature under another name is none.
            let renamed = ["HS256", "HS384", "HS512"]
                .iter()
                .find(|name| **name != algorithm);
            let header = json!({"alg": renamed, "typ": "JWT"}).to_string();
            let (_, rest) = token.split_once('.').unwrap();
            let call = Call::echo().bearer(&format!("{}.{rest}", base64(header)));
            gate.refuses_token(&call, "token_signature");
        }
        gate.end();
    }
}

#[test]
fn every_kind_of_public_key_is_taken_as_pem_and_as_jwk() {
    let keys = [Key::rsa(), Key::ec(), Key::ed()];
    let all: String = keys.iter().map(Key::pem).collect();
    let jwks: Vec<_> = keys.iter().map(|key| key.jwk(None)).collect();
    let mut sets = vec![all, set_of(&jwks)];
    sets.extend(keys.iter().map(Key::pem));
    for (number, set) in sets.iter().enumerate() {
        let gate = Guarded::with(&[("TOKEN_PUBLIC_KEY", set)]);
        for (kind, key) in keys.iter().enumerate() {
            let call = Call::echo().bearer(&key.sign(&claims("anna")));
            if number < 2 || number - 2 == kind {
                call.open(gate.address).close();
            } else {
                let reasons = ["token_algorithm", "token_key", "token_signature"];
                gate.refuses_token_somehow(&call, &reasons);
            }
        }
        gate.end();
    }
}

#[test]
fn several_keys_are_valid_at_once() {
    let (old, new) = (
        "the old secret, which still is known",
        "the new one, which is as good",
    );
    let ec = Key::ec();
    let gate = Guarded::with(&[
        ("TOKEN_SECRET", &format!("{old}\n{new}\n")),
        ("TOKEN_PUBLIC_KEY", &ec.pem()),
    ]);
    for key in [Key::hmac(old), Key::hmac(new), ec] {
        let token = key.sign(&claims("anna"));
        Call::echo().bearer(&token).open(gate.address).close();
    }
    gate.refuses_token(&Call::echo().bearer(&good()), "token_signature");
    // Both lines together are no secret.
    let both = Key::hmac(format!("{old}\n{new}")).sign(&claims("anna"));
    gate.refuses_token(&Call::echo().bearer(&both), "token_signature");
    let empty = Key::hmac("").sign(&claims("anna"));
    gate.refuses_token(&Call::echo().bearer(&empty), "token_signature");
    gate.end();
}

#[test]
fn issuer_and_audience_must_be_one_of_those_that_are_set() {
    let gate = Guarded::with(&[
        ("TOKEN_SECRET", SECRET),
        (
            "TOKEN_ISSUER",
            "https://login.example, https://other.example",
        ),
        ("TOKEN_AUDIENCE", "chat,feed"),
    ]);
    let token = |issuer: serde_json::Value, audience: serde_json::Value| {
        let mut claims = claims("anna");
        claims["iss"] = issuer;
        claims["aud"] = audience;
        let is_absent = |_: &String, claim: &mut serde_json::Value| !claim.is_null();
        claims.as_object_mut().unwrap().retain(is_absent);
        Call::echo().bearer(&Key::hmac(SECRET).sign(&claims))
    };
    let (login, none) = (json!("https://login.example"), serde_json::Value::Null);
    token(login.clone(), json!("chat")).open(gate.address);
    token(login.clone(), json!(["mail", "feed"])).open(gate.address);
    token(json!("https://other.example"), json!("feed")).open(gate.address);
    for (issuer, audience, reason) in [
        (json!("https://evil.example"), json!("chat"), "token_issuer"),
        (
            json!("https://login.example/"),
            json!("chat"),
            "token_issuer",
        ),
        (json!(""), json!("chat"), "token_issuer"),
        (none.clone(), json!("chat"), "token_issuer"),
        (login.clone(), json!("mail"), "token_audience"),
        (login.clone(), json!(["mail"]), "token_audience"),
        (login.clone(), json!([]), "token_audience"),
        (login, none, "token_audience"),
    ] {
        let reasons = [reason, "token_malformed"];
        let call = token(issuer, audience);
        assert_eq!(
            gate.refuses_token_somehow(&call, &reasons),
            reason,
            "{call:?}"
        );
    }
    gate.end();
}

#[test]
fn a_token_is_asked_for_over_tls_as_well() {
    let gate = Guarded::with(&[("TOKEN_SECRET", SECRET)]);
    let ask = |call: Call| {
        let mut client = gate.connect();
        std::io::Write::write_all(&mut client, &call.bytes()).unwrap();
        Answer::receive(&mut client).unwrap()
    };
    assert_eq!(ask(Call::echo().bearer(&good())).status, 101);
    let answer = ask(Call::echo());
    assert_eq!(answer.status, 401);
    answer.check_refusal();
    gate.end();
}

#[test]
fn options_of_tokens_without_a_key_are_refused_at_start() {
    let key = ("TOKEN_SECRET", SECRET);
    for options in [
        &[("TOKEN_REQUIRED", "true")][..],
        &[("TOKEN_COOKIE", "session")],
        &[("TOKEN_ISSUER", "https://login.example")],
        &[("TOKEN_AUDIENCE", "chat")],
        &[key, ("TOKEN_COOKIE", "no cookie")],
        &[key, ("TOKEN_LEEWAY", "11m")],
        &[("TOKEN_JWKS_URL", "http://login.example/jwks")],
        &[("TOKEN_JWKS_URL", "ftp://127.0.0.1/jwks")],
        &[key, ("TOKEN_JWKS_INTERVAL", "1s")],
        &[("TOKEN_PUBLIC_KEY", "-----BEGIN PUBLIC KEY-----\nAAAA\n")],
        &[("TOKEN_PUBLIC_KEY", "nonsense that is no key")],
        &[("TOKEN_SECRET", "{\"keys\": [{\"kty\": \"oct\"")],
        &[("TOKEN_SECRET", "{}")],
    ] {
        // A server does not start with what its check lets pass.
        let setup = set(Setup::new(), options);
        let output = setup.finish(&[]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{options:?}: {told}");
        let said = told.lines().find(|line| line.starts_with("error: "));
        let said = said.unwrap_or_else(|| panic!("{options:?}: {told}"));
        assert!(said.contains("TIDEMILL_TOKEN_"), "{options:?}: {told}");
        assert!(!told.contains("nonsense"), "{told}");
    }
}

/// A page of a browser cannot set a header, but offers the subprotocols that it likes.
#[test]
fn a_granted_upgrade_says_nothing_of_the_token() {
    let gate = Guarded::with(&[("TOKEN_SECRET", SECRET)]);
    let token = good();
    let mut stream = Call::echo().connect(gate.address);
    std::io::Write::write_all(&mut stream, &by_query(&token).bytes()).unwrap();
    let answer = Answer::receive(&mut stream).unwrap();
    assert_eq!(answer.status, 101);
    assert!(!answer.head.contains(&token) && !answer.head.contains("anna"));
    gate.end();
}

/// What comes behind a request that is refused is thrown away, and takes no answer with it.
#[test]
fn whoever_talks_on_sees_the_refusal() {
    let gate = Guarded::with(&[("TOKEN_SECRET", SECRET)]);
    let frames = crate::outside::peer::frame(crate::socket::BINARY, &[7; 60_000]);
    for call in [Call::echo(), Call::echo().bearer(&bad())] {
        let mut stream = call.connect(gate.address);
        let all = [call.bytes(), frames.clone(), frames.clone()].concat();
        std::io::Write::write_all(&mut stream, &all).unwrap();
        let answer = Answer::receive(&mut stream).unwrap();
        assert_eq!(answer.status, 401);
        answer.check_refusal();
        assert_eq!(std::io::Read::read(&mut stream, &mut [0]).unwrap(), 0);
    }
    gate.end();
}

/// A connection that was plain up to here, and one that was refused nothing.
#[test]
fn the_request_that_upgrades_is_the_one_that_shows_the_token() {
    let gate = Guarded::with(&[("TOKEN_SECRET", SECRET)]);
    let health = Call::get("/health").bearer(&good());
    for (last, status) in [(Call::echo(), 401), (Call::echo().bearer(&good()), 101)] {
        let mut stream = last.connect(gate.address);
        for _ in 0..3 {
            std::io::Write::write_all(&mut stream, &health.bytes()).unwrap();
            assert_eq!(Answer::receive(&mut stream).unwrap().status, 200);
        }
        std::io::Write::write_all(&mut stream, &last.bytes()).unwrap();
        assert_eq!(Answer::receive(&mut stream).unwrap().status, status);
    }
    gate.end();
}
