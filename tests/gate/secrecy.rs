//! What must be in no log, no page, no error: tokens, secrets, keys. Everything that a server says
//! while it logs as much as it can is searched for them.

use serde_json::json;

use crate::{
    call::{Call, Outcome},
    guarded::{Guarded, set},
    jwt::{Key, SECRET, base64, claims, now, set_of},
    outside::{PATIENCE, wait_until},
    server::Setup,
    socket::BINARY,
};

const API_KEY: &str = "the-key-of-the-api-which-the-operator-alone-knows";
const GUESS: &str = "a-guess-at-the-api-key-that-may-be-close-to-it";

/// Whatever of this would help a thief. The head of a token is the same for all, and says nothing.
fn parts(token: &str) -> Vec<String> {
    let mut parts: Vec<_> = token.split('.').skip(1).map(str::to_owned).collect();
    parts.push(token.to_owned());
    parts.retain(|part| part.len() > 8);
    parts
}

#[track_caller]
fn expect_silence_about(hidden: &[String], said: &str) {
    for part in hidden {
        if let Some(at) = said.find(part.as_str()) {
            let line = said[..at].rfind('\n').map_or(0, |start| start + 1);
            let rest = said[line..].lines().next().unwrap();
            panic!("told: {rest}");
        }
    }
}

/// Comes with this token in every place where one can be put.
fn everywhere(gate: &Guarded, token: &str) {
    let calls = [
        Call::echo().bearer(token),
        Call::echo().header("Authorization", token),
        Call::echo().header("Authorization", &format!("Basic {token}")),
        Call::echo().header("Cookie", &format!("session={token}; a=b")),
        Call::echo().header("Sec-WebSocket-Protocol", &format!("bearer, {token}")),
        Call::to(&format!("/echo?token={token}")),
        Call::to(&format!("/echo?a=b&token={token}&c=d")),
        Call::to(&format!("/echo?Token={token}")),
        Call::to(&format!("/echo?%74oken={token}")),
        Call::to(&format!("/echo?tok%65n={token}&%74%6F%6b%65%6E={token}")),
        Call::to(&format!(
            "/echo?jwt={token}&secret={token}&key={token}&api_key={token}"
        )),
        Call::to(&format!(
            "/echo?access_token={token}&auth={token}&password={token}"
        )),
        Call::to(&format!("/nowhere?token={token}")),
        Call::to(&format!("/?token={token}")),
        Call::get(&format!("/health?token={token}")),
        Call::get(&format!("/echo?token={token}")),
        Call::get(&format!("/nowhere?token={token}")).bearer(token),
        Call::echo()
            .bearer(token)
            .origin("https://evil.example")
            .host("example.com"),
        Call::to(&format!("/echo?token={token}")).origin("https://evil.example"),
        Call::to(&format!("/echo?token={token}")).header("Sec-WebSocket-Version", "7"),
        Call::post(
            &format!("/api/revoke?token={token}"),
            json!({"jti": token}).to_string(),
        )
        .header("X-API-Key", GUESS),
        Call::post("/api/revoke", format!("{{\"jti\":\"{token}\"")).header("X-API-Key", API_KEY),
        Call::post("/api/nothing", token).header("X-API-Key", API_KEY),
    ];
    for call in calls {
        match call.ask(gate.address) {
            Outcome::Answered(answer) => {
                expect_silence_about(&parts(token), &(answer.head + &answer.body));
            }
            Outcome::Open(mut caller) => {
                // Whether a welcome or an echo comes first is of no concern here.
                caller.send(BINARY, b"hello");
                caller.receive().unwrap();
            }
            Outcome::Dropped => {}
        }
    }
}

#[test]
fn nothing_that_is_secret_is_told_however_much_is_logged() {
    let setup = Setup::new();
    let (rsa, forger) = (Key::rsa(), Key::ec());
    setup.folder.write("api-key", format!("{API_KEY}\n"));
    let gate = Guarded::start(set(
        setup,
        &[
            ("LISTEN", "0.0.0.0:0"),
            ("TOKEN_SECRET", SECRET),
            ("TOKEN_PUBLIC_KEY", &rsa.pem()),
            ("TOKEN_COOKIE", "session"),
            ("TOKEN_LEEWAY", "0s"),
            ("API_KEY_FILE", "@/api-key"),
            ("LOG", "debug"),
        ],
    ));
    let sound = Key::hmac(SECRET);
    let hidden_claim = "a-claim-that-nobody-else-must-read";
    let private = json!({"sub": hidden_claim, "jti": hidden_claim, "exp": now() + 3600});
    let tokens = [
        sound.sign(&private),
        rsa.sign(&private),
        forger.sign(&private),
        sound.sign(&json!({"sub": hidden_claim, "exp": now() - 3600})),
        sound.sign(&json!({"sub": hidden_claim, "nbf": now() + 3600})),
        sound.sign_as(&json!({"alg": "none"}), &private),
        sound.sign_as(&json!({"alg": hidden_claim, "kid": hidden_claim}), &private),
        sound.sign_kid(hidden_claim, &private),
        sound.sign_text(r#"{"alg":"HS256"}"#, hidden_claim),
        sound.sign_text(hidden_claim, hidden_claim),
        format!("x{}", sound.sign(&private)),
        "not.a.token-but-meant-to-be-one".to_owned(),
        hidden_claim.to_owned(),
    ];
    let mut hidden: Vec<String> = tokens.iter().flat_map(|token| parts(token)).collect();
    hidden.extend([SECRET, API_KEY, GUESS].map(str::to_owned));
    hidden.extend([base64(SECRET), base64(API_KEY)]);
    for token in &tokens {
        everywhere(&gate, token);
    }
    let soon = json!({"sub": hidden_claim, "exp": now() + 1});
    let token = sound.sign(&soon);
    let caller = Call::echo().bearer(&token).open(gate.address);
    assert_eq!(caller.closed(1008), "token expired");
    let token = sound.sign(&private);
    let caller = Call::echo().bearer(&token).open(gate.address);
    let revoke = Call::post("/api/revoke", json!({"jti": hidden_claim}).to_string());
    let answer = revoke.header("X-API-Key", API_KEY).answered(gate.address);
    assert_eq!(answer.status, 200);
    assert_eq!(caller.closed(1008), "token revoked");
    gate.signal("HUP");
    gate.settles("reloads_total{result=\"ok\"}", 1.0);
    let pages = [gate.page("/metrics"), gate.page("/"), gate.page("/health")].concat();
    expect_silence_about(&hidden, &pages);

    // The log is whole once what came last is in it.
    gate.signal("TERM");
    wait_until(PATIENCE, || gate.said("stopped").len(), |lines| *lines > 0);
    let log = gate.logged("").join("\n");
    assert!(
        log.matches("\"level\":\"debug\"").count() > tokens.len(),
        "{log}"
    );
    expect_silence_about(&hidden, &log);
    hidden.push(hidden_claim.to_owned());
    expect_silence_about(&hidden, &gate.banner);
    // What is masked is seen to be, so that one knows that there was something.
    assert!(log.contains("token=***"), "{log}");
}

/// `tidemill check` with these variables: what it says, on either stream.
#[track_caller]
fn checked(options: &[(&str, &str)], files: &[(&str, &str)], code: i32) -> String {
    let setup = Setup::new();
    for (name, content) in files {
        setup.folder.write(name, content);
    }
    let output = set(setup, options).finish(&["check"]);
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

#[test]
fn the_check_says_that_a_secret_is_set_and_not_which() {
    let ec = Key::ec();
    let jwks = set_of(&[Key::hmac(SECRET).jwk(Some("one"))]);
    let (pem, url) = (ec.pem(), "https://keys.example/jwks?key=hidden-in-the-url");
    let mut hidden = vec![SECRET.to_owned(), API_KEY.to_owned(), base64(SECRET)];
    hidden.push(pem.lines().nth(1).unwrap().to_owned());
    let by_variable = [
        ("TOKEN_SECRET", SECRET),
        ("TOKEN_PUBLIC_KEY", &pem),
        ("API_KEY", API_KEY),
        ("TOKEN_JWKS_URL", url),
    ];
    let said = checked(&by_variable, &[], 0);
    expect_silence_about(&hidden, &said);
    assert!(!said.contains("hidden-in-the-url"), "{said}");
    for name in ["TOKEN_SECRET", "TOKEN_PUBLIC_KEY", "API_KEY"] {
        let line = said
            .lines()
            .find(|line| line.contains(&format!("TIDEMILL_{name} ")));
        assert!(
            line.is_some_and(|line| line.contains("(set")),
            "{name}: {said}"
        );
    }
    let by_file = [
        ("TOKEN_SECRET_FILE", "@/secret"),
        ("TOKEN_PUBLIC_KEY_FILE", "@/public"),
        ("API_KEY_FILE", "@/api"),
    ];
    let files = [("secret", &*jwks), ("public", &pem), ("api", API_KEY)];
    let said = checked(&by_file, &files, 0);
    expect_silence_about(&hidden, &said);
    assert!(said.contains("/secret") && said.contains("/api"), "{said}");
    let env = format!("TIDEMILL_TOKEN_SECRET={SECRET}\nTIDEMILL_API_KEY={API_KEY}\n");
    let said = checked(&[("ENV_FILE", "@/env")], &[("env", &env)], 0);
    expect_silence_about(&hidden, &said);
    // A secret that is short is warned of, and not shown.
    let said = checked(&[("TOKEN_SECRET", "short-one")], &[], 0);
    assert!(
        said.contains("warning") && !said.contains("short-one"),
        "{said}"
    );
}

#[test]
fn an_error_at_start_names_the_variable_and_not_what_it_holds() {
    let broken = format!("{{\"keys\":[{{\"kty\":\"oct\",\"k\":\"{SECRET}\"");
    let wrong_letters = format!("{{\"keys\":[{{\"kty\":\"oct\",\"k\":\"{SECRET}!\"}}]}}");
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----\n");
    let hidden = [SECRET.to_owned()];
    for (name, value) in [
        ("TOKEN_SECRET", &*broken),
        ("TOKEN_SECRET", &wrong_letters),
        ("TOKEN_PUBLIC_KEY", &pem),
        ("TOKEN_PUBLIC_KEY", &broken),
        ("TOKEN_PUBLIC_KEY", SECRET),
    ] {
        let output = set(Setup::new(), &[(name, value)]).finish(&[]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(&format!("TIDEMILL_{name}")), "{told}");
        expect_silence_about(&hidden, &told);
        // The same out of a file, whose path may be told.
        let setup = Setup::new();
        setup.folder.write("keys", value);
        let output = set(setup, &[(&format!("{name}_FILE"), "@/keys")]).finish(&[]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(&format!("TIDEMILL_{name}")), "{told}");
        expect_silence_about(&hidden, &told);
    }
    // A name that is misspelt holds a secret all the same.
    for name in [
        "TOKEN_SECRT",
        "APIKEY",
        "TOKEN_SECRET_FILES",
        "TOKEN_PUBLIC_KEYS",
    ] {
        let said = checked(&[(name, SECRET)], &[], 2);
        assert!(said.contains(name), "{said}");
        expect_silence_about(&hidden, &said);
        let env = format!("TIDEMILL_{name}={SECRET}\n");
        let said = checked(&[("ENV_FILE", "@/env")], &[("env", &env)], 2);
        expect_silence_about(&hidden, &said);
    }
    let env = format!("TIDEMILL_TOKEN_SECRET {SECRET}\n");
    expect_silence_about(
        &hidden,
        &checked(&[("ENV_FILE", "@/env")], &[("env", &env)], 2),
    );
    let env = format!("TIDEMILL_TOKEN_SECRET=\"{SECRET}\n");
    let setup = Setup::new();
    setup.folder.write("env", env);
    let output = set(setup, &[("ENV_FILE", "@/env")]).finish(&["check"]);
    let said = [output.stdout, output.stderr].concat();
    expect_silence_about(&hidden, &String::from_utf8_lossy(&said));
}

#[test]
fn help_shows_no_value_that_was_set() {
    let options = [("TOKEN_SECRET", SECRET), ("API_KEY", API_KEY)];
    for args in [&["--help"][..], &["help"], &["check", "--help"]] {
        let output = set(Setup::new(), &options).finish(args);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        expect_silence_about(&[SECRET.to_owned(), API_KEY.to_owned()], &said);
    }
}

/// A line for each refusal would hold it all; a path is told without what it asks for.
#[test]
fn a_refusal_tells_the_path_without_its_secrets() {
    let gate = Guarded::with(&[("TOKEN_SECRET", SECRET)]);
    let token = Key::hmac("another secret, which nobody told").sign(&claims("anna"));
    let path = format!("/echo?room=7&token={token}&JWT={token}&a=b");
    gate.refuses_token(&Call::to(&path), "token_signature");
    let line = gate.expect_said("reason=token_signature");
    let path = line.value("path");
    assert!(path.starts_with("/echo?room=7&token=***"), "{line:?}");
    assert!(!path.contains(&token[..20]), "{line:?}");
    let long = format!("/echo?room={}", "x".repeat(3000));
    gate.refuses_token(&Call::to(&long), "token_missing");
    let line = gate.expect_said("reason=token_missing");
    assert!(line.message.len() < 1000, "{line:?}");
    gate.end();
}
