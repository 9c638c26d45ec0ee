//! Keys that are exchanged while the server runs, by a signal and a file.

use serde_json::json;

use crate::{
    call::{Call, Outcome},
    guarded::{Guarded, set},
    jwt::{Key, SECRET, claims, set_of},
    outside::{PATIENCE, wait_until},
    server::Setup,
};

const OLD: &str = "the secret that was there at first, long enough";
const NEW: &str = "the secret that comes after it, as long as that";

fn bearing(key: &Key) -> Call {
    Call::echo().bearer(&key.sign(&claims("anna")))
}

fn admits(gate: &Guarded, call: &Call) -> bool {
    match call.ask(gate.address) {
        Outcome::Open(_) => true,
        Outcome::Answered(answer) if answer.status == 401 => false,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn expect_admits(gate: &Guarded, call: &Call) {
    wait_until(PATIENCE, || admits(gate, call), |admitted| *admitted);
}

/// A server whose option is read from a file, which holds this.
fn from_file(option: &str, content: &str) -> Guarded {
    let setup = Setup::new();
    setup.folder.write("keys", content);
    Guarded::start(setup.set(&format!("{option}_FILE"), "@/keys"))
}

fn reload(gate: &Guarded, content: &str) {
    gate.folder.replace("keys", content);
    gate.signal("HUP");
}

#[track_caller]
fn reloads(gate: &Guarded, result: &str) -> f64 {
    gate.metric(&format!("reloads_total{{result=\"{result}\"}}"))
}

#[test]
fn a_secret_rotates_by_a_signal() {
    let gate = from_file("TOKEN_SECRET", &format!("{OLD}\n"));
    let (old, new) = (bearing(&Key::hmac(OLD)), bearing(&Key::hmac(NEW)));
    let mut inside = old.open(gate.address);
    gate.refuses_token(&new, "token_signature");
    // First both, so that nobody is turned away meanwhile.
    reload(&gate, &format!("{OLD}\n{NEW}\n"));
    expect_admits(&gate, &new);
    assert!(admits(&gate, &old));
    reload(&gate, NEW);
    wait_until(PATIENCE, || admits(&gate, &old), |admitted| !admitted);
    assert!(admits(&gate, &new));
    // Who is in has shown a token that was good.
    inside.echo(b"undisturbed");
    inside.close();
    assert!(reloads(&gate, "ok") >= 2.0);
    gate.end();
}

#[test]
fn nobody_is_turned_away_while_keys_are_read_all_the_time() {
    let gate = from_file("TOKEN_SECRET", OLD);
    let call = bearing(&Key::hmac(OLD));
    std::thread::scope(|scope| {
        let newcomers: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| (0..150).for_each(|_| call.open(gate.address).close())))
            .collect();
        while newcomers.iter().any(|newcomer| !newcomer.is_finished()) {
            reload(&gate, &format!("{NEW}\n{OLD}\n"));
            std::thread::park_timeout(std::time::Duration::from_millis(2));
        }
    });
    assert_eq!(gate.all_refused(), 0);
    gate.end();
}

#[test]
fn what_is_no_key_is_not_taken_and_not_told() {
    let gate = from_file("TOKEN_SECRET", OLD);
    let old = bearing(&Key::hmac(OLD));
    let hidden = "what-was-in-the-file-when-it-was-broken";
    for (number, broken) in [
        format!("{{\"keys\":[{{\"kty\":\"oct\",\"k\":\"{hidden}\""),
        format!("{{\"{hidden}\":1}}"),
        String::new(),
        "\n\n".to_owned(),
    ]
    .iter()
    .enumerate()
    {
        reload(&gate, broken);
        let failed = || reloads(&gate, "failed") as usize;
        wait_until(PATIENCE, failed, |failed| *failed > number);
        assert!(admits(&gate, &old), "{broken:?}");
        assert!(gate.logged(hidden).is_empty());
    }
    let errors = gate.said("TIDEMILL_TOKEN_SECRET");
    assert!(
        errors.iter().any(|line| line.level == "error"),
        "{errors:?}"
    );
    gate.folder.remove("keys");
    gate.signal("HUP");
    wait_until(
        PATIENCE,
        || reloads(&gate, "failed"),
        |failed| *failed > 4.5,
    );
    assert!(admits(&gate, &old));
    // And then it is put right.
    reload(&gate, NEW);
    expect_admits(&gate, &bearing(&Key::hmac(NEW)));
    assert!(!admits(&gate, &old));
    gate.end();
}

#[test]
fn public_keys_rotate_as_pem() {
    let (old, new) = (Key::ec(), Key::ed());
    let gate = from_file("TOKEN_PUBLIC_KEY", &old.pem());
    assert!(admits(&gate, &bearing(&old)) && !admits(&gate, &bearing(&new)));
    reload(&gate, &(old.pem() + &new.pem()));
    expect_admits(&gate, &bearing(&new));
    assert!(admits(&gate, &bearing(&old)));
    reload(&gate, &new.pem());
    wait_until(
        PATIENCE,
        || admits(&gate, &bearing(&old)),
        |admitted| !admitted,
    );
    assert!(admits(&gate, &bearing(&new)));
    gate.end();
}

#[test]
fn a_key_that_is_named_is_the_only_one_that_counts() {
    let (one, two) = (Key::rsa(), Key::rsa());
    let set = [one.jwk(Some("one")), two.jwk(Some("two"))];
    let gate = from_file("TOKEN_PUBLIC_KEY", &set_of(&set));
    let named = |key: &Key, kid: &str| Call::echo().bearer(&key.sign_kid(kid, &claims("anna")));
    named(&one, "one").open(gate.address).close();
    named(&two, "two").open(gate.address).close();
    // Without a name, each of them may be it.
    bearing(&one).open(gate.address).close();
    bearing(&two).open(gate.address).close();
    gate.refuses_token(&named(&one, "two"), "token_signature");
    gate.refuses_token(&named(&one, "three"), "token_key");
    gate.refuses_token(&named(&one, "One"), "token_key");

    // The third comes, the first goes.
    let three = Key::ec();
    reload(
        &gate,
        &set_of(&[two.jwk(Some("two")), three.jwk(Some("three"))]),
    );
    expect_admits(&gate, &named(&three, "three"));
    assert!(!admits(&gate, &named(&one, "one")));
    assert!(!admits(&gate, &bearing(&one)));
    assert!(admits(&gate, &named(&two, "two")));
    gate.end();
}

#[test]
fn a_key_without_a_name_is_tried_for_names_that_nobody_knows() {
    let (named, nameless) = (Key::ec(), Key::ec());
    let set = set_of(&[named.jwk(Some("named")), nameless.jwk(None)]);
    let gate = from_file("TOKEN_PUBLIC_KEY", &set);
    let call = |key: &Key, kid| Call::echo().bearer(&key.sign_kid(kid, &claims("anna")));
    call(&nameless, "whatever").open(gate.address).close();
    call(&named, "named").open(gate.address).close();
    gate.refuses_token(&call(&named, "whatever"), "token_signature");
    gate.refuses_token(&call(&nameless, "named"), "token_signature");
    gate.end();
}

#[test]
fn secrets_have_names_too() {
    let (one, two) = (Key::hmac(OLD), Key::hmac(NEW));
    let set = set_of(&[one.jwk(Some("one")), two.jwk(Some("two"))]);
    let gate = from_file("TOKEN_SECRET", &set);
    let named = |key: &Key, kid: &str| Call::echo().bearer(&key.sign_kid(kid, &claims("anna")));
    named(&one, "one").open(gate.address).close();
    named(&two, "two").open(gate.address).close();
    gate.refuses_token(&named(&one, "two"), "token_signature");
    gate.refuses_token(&named(&one, "three"), "token_key");
    gate.end();
}

#[test]
fn a_secret_is_given_in_one_way_and_by_no_flag() {
    let setup = Setup::new();
    setup.folder.write("keys", SECRET);
    let both = [("TOKEN_SECRET", SECRET), ("TOKEN_SECRET_FILE", "@/keys")];
    let output = set(setup, &both).finish(&["check"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("TIDEMILL_TOKEN_SECRET_FILE"), "{told}");
    assert!(!told.contains(SECRET), "{told}");

    let missing = set(Setup::new(), &[("TOKEN_SECRET_FILE", "@/nowhere")]);
    let output = missing.finish(&["check"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(
        told.contains("TIDEMILL_TOKEN_SECRET_FILE") && told.contains("nowhere"),
        "{told}"
    );

    for flag in [
        "--token-secret",
        "--api-key",
        "--token-public-key",
        "--token-secret-file",
    ] {
        for args in [vec![flag, SECRET], vec![&*format!("{flag}={SECRET}")]] {
            let output = Setup::new().finish(&args);
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{args:?}: {told}");
            assert!(!told.contains(SECRET), "{args:?}: {told}");
        }
    }
}

/// From the file of variables, and from a file that this file names.
#[test]
fn a_secret_may_come_from_the_file_of_variables() {
    let setup = Setup::new();
    setup
        .folder
        .write("env", format!("TIDEMILL_TOKEN_SECRET={OLD}\n"));
    let gate = Guarded::start(setup.set("ENV_FILE", "@/env"));
    assert!(admits(&gate, &bearing(&Key::hmac(OLD))));
    let path = gate.folder.write("secret", NEW);
    gate.folder
        .replace("env", format!("TIDEMILL_TOKEN_SECRET_FILE={path}\n"));
    gate.signal("HUP");
    expect_admits(&gate, &bearing(&Key::hmac(NEW)));
    assert!(!admits(&gate, &bearing(&Key::hmac(OLD))));
    gate.end();
}

/// The end of a file is no part of a secret, and nothing before it is lost.
#[test]
fn a_secret_of_a_file_ends_where_its_line_does() {
    for ending in ["", "\n", "\r\n"] {
        let gate = from_file("TOKEN_SECRET", &format!("{OLD}{ending}"));
        bearing(&Key::hmac(OLD)).open(gate.address).close();
        gate.end();
    }
    let set = json!({"keys": [Key::hmac(OLD).jwk(None)]});
    let pretty = serde_json::to_string_pretty(&set).unwrap();
    let gate = from_file("TOKEN_SECRET", &format!("\n  {pretty}\n\n"));
    bearing(&Key::hmac(OLD)).open(gate.address).close();
    gate.end();
}
