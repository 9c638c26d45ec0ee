//! Tokens that are taken back: who has one leaves, and does not come again.

use serde_json::{Value, json};

use crate::{
    call::{Answer, Call, Caller},
    guarded::{Guarded, set},
    jwt::{Key, SECRET, now},
    server::Setup,
};

const API_KEY: &str = "the-key-of-the-api-which-the-operator-alone-knows";

fn gate() -> Guarded {
    Guarded::with(&[
        ("TOKEN_SECRET", SECRET),
        ("API_KEY", API_KEY),
        ("TOKEN_LEEWAY", "0s"),
    ])
}

fn bearing(claims: &Value) -> Call {
    let mut claims = claims.clone();
    if claims.get("exp").is_none() {
        claims["exp"] = json!(now() + 3600);
    }
    Call::echo().bearer(&Key::hmac(SECRET).sign(&claims))
}

fn revoke(body: &Value) -> Call {
    Call::post("/api/revoke", body.to_string())
        .header("Content-Type", "application/json")
        .header("X-API-Key", API_KEY)
}

#[track_caller]
fn expect_revoked(gate: &Guarded, body: &Value) {
    let answer = revoke(body).answered(gate.address);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let answer: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(answer, json!({"result": {}}));
}

#[track_caller]
fn expect_gone(caller: Caller) {
    assert_eq!(caller.closed(1008), "token revoked");
}

#[test]
fn a_token_is_taken_back_by_its_id() {
    let gate = gate();
    let stolen = bearing(&json!({"sub": "anna", "jti": "one"}));
    let victims: Vec<_> = (0..20)
        .map(|at| stolen.clone().from(2 + at).open(gate.address))
        .collect();
    let mut other = bearing(&json!({"sub": "anna", "jti": "two"})).open(gate.address);
    let mut nameless = bearing(&json!({"sub": "anna"})).open(gate.address);
    expect_revoked(&gate, &json!({"jti": "one", "exp": now() + 3600}));
    gate.refuses_token(&stolen, "token_revoked");
    victims.into_iter().for_each(expect_gone);
    // Nor does another token help that has the same id.
    let same = bearing(&json!({"sub": "eve", "jti": "one", "iat": now()}));
    gate.refuses_token(&same, "token_revoked");
    other.echo(b"undisturbed");
    nameless.echo(b"undisturbed");
    for similar in ["on", "One", "one ", "oneone", ""] {
        bearing(&json!({"jti": similar})).open(gate.address);
    }
    gate.end();
}

#[test]
fn everything_that_someone_has_is_taken_back() {
    let gate = gate();
    let before = now();
    let victims: Vec<_> = (0..30)
        .map(|number| {
            let call = bearing(&json!({"sub": "eve", "iat": before, "jti": number.to_string()}));
            call.from(2 + number).open(gate.address)
        })
        .collect();
    let undated = bearing(&json!({"sub": "eve"}));
    let undated_victim = undated.open(gate.address);
    let mut other = bearing(&json!({"sub": "evelyn", "iat": before})).open(gate.address);
    expect_revoked(&gate, &json!({"sub": "eve"}));
    gate.refuses_token(
        &bearing(&json!({"sub": "eve", "iat": before})),
        "token_revoked",
    );
    gate.refuses_token(&undated, "token_revoked");
    victims.into_iter().for_each(expect_gone);
    expect_gone(undated_victim);
    other.echo(b"undisturbed");
    bearing(&json!({"sub": "Eve", "iat": before}))
        .open(gate.address)
        .close();
    // Who signs in again is welcome.
    let again = bearing(&json!({"sub": "eve", "iat": now() + 1}));
    again.open(gate.address).close();
    gate.refuses_token(
        &bearing(&json!({"sub": "eve", "iat": before})),
        "token_revoked",
    );
    gate.end();
}

/// Whoever came without a token has none that could be taken back.
#[test]
fn strangers_who_may_be_there_are_left_alone() {
    let gate = Guarded::with(&[
        ("TOKEN_SECRET", SECRET),
        ("API_KEY", API_KEY),
        ("TOKEN_REQUIRED", "false"),
    ]);
    let mut stranger = Call::echo().open(gate.address);
    let known = bearing(&json!({"sub": "anna"})).open(gate.address);
    for subject in ["", "null", "anna"] {
        let answer = revoke(&json!({"sub": subject})).answered(gate.address);
        assert!([200, 400].contains(&answer.status), "{answer:?}");
    }
    expect_gone(known);
    stranger.echo(b"undisturbed");
    Call::echo().open(gate.address).close();
    gate.end();
}

/// A revocation holds whatever comes between it and the token: other keys, another signal.
#[test]
fn what_was_taken_back_stays_so_when_keys_are_read_again() {
    let setup = Setup::new();
    setup.folder.write("secret", SECRET);
    let options = [("TOKEN_SECRET_FILE", "@/secret"), ("API_KEY", API_KEY)];
    let gate = Guarded::start(set(setup, &options));
    let stolen = bearing(&json!({"jti": "one"}));
    expect_revoked(&gate, &json!({"jti": "one"}));
    gate.signal("HUP");
    gate.settles("reloads_total{result=\"ok\"}", 1.0);
    gate.refuses_token(&stolen, "token_revoked");
    gate.end();
}

#[test]
fn who_may_not_take_tokens_back_is_told_so() {
    let gate = gate();
    let inside = bearing(&json!({"jti": "one"}));
    let mut caller = inside.open(gate.address);
    let body = json!({"jti": "one"}).to_string();
    let post = || Call::post("/api/revoke", body.clone());
    for wrong in [
        post(),
        post().header("X-API-Key", ""),
        post().header("X-API-Key", "wrong"),
        post().header("X-API-Key", &API_KEY[1..]),
        post().header("X-API-Key", &API_KEY[..API_KEY.len() - 1]),
        post().header("X-API-Key", &format!("{API_KEY}x")),
        post().header("X-API-Key", &API_KEY.to_uppercase()),
        post().header("X-API-Key", SECRET),
        post().header("Cookie", &format!("X-API-Key={API_KEY}")),
    ] {
        let answer = wrong.answered(gate.address);
        assert_eq!(answer.status, 401, "{wrong:?}: {answer:?}");
        assert!(!answer.body.contains(API_KEY));
    }
    // Two keys, one of them right: nobody guesses that way.
    let two = post()
        .header("X-API-Key", "wrong")
        .header("X-API-Key", API_KEY);
    let answer = two.answered(gate.address);
    assert!([400, 401].contains(&answer.status), "{answer:?}");
    for path in ["/api/revoke", &format!("/api/revoke?key={API_KEY}")] {
        let call = Call::get(path).header("X-API-Key", API_KEY);
        let answer = call.answered(gate.address);
        assert_eq!(answer.status, 405, "{answer:?}");
        assert_eq!(answer.header("allow"), Some("POST"));
    }
    caller.echo(b"undisturbed");
    inside.open(gate.address).close();
    gate.end();
}

#[test]
fn without_a_key_nobody_may() {
    let gate = Guarded::with(&[("TOKEN_SECRET", SECRET)]);
    for call in [
        revoke(&json!({"jti": "one"})),
        Call::post("/api/revoke", json!({"jti": "one"}).to_string()),
        Call::post("/api/revoke", json!({"jti": "one"}).to_string()).header("X-API-Key", ""),
    ] {
        assert_eq!(call.answered(gate.address).status, 403, "{call:?}");
    }
    bearing(&json!({"jti": "one"})).open(gate.address).close();
    gate.end();
}

#[test]
fn what_cannot_be_understood_is_not_half_done() {
    let gate = gate();
    let mut caller = bearing(&json!({"jti": "one", "sub": "anna"})).open(gate.address);
    for wrong in [
        "",
        "nonsense",
        "{",
        "[]",
        "null",
        "{}",
        "\"one\"",
        "{\"id\":\"one\"}",
        "{\"jti\":1}",
        "{\"jti\":null}",
        "{\"jti\":[\"one\"]}",
        "{\"sub\":{}}",
        "{\"jti\":\"one\",\"exp\":\"tomorrow\"}",
        "{\"jti\":\"one\",\"exp\":[]}",
        "{\"jti\":\"one\"} and more",
        "jti=one",
        "\u{0}",
    ] {
        let call = Call::post("/api/revoke", wrong).header("X-API-Key", API_KEY);
        let answer: Answer = call.answered(gate.address);
        assert_eq!(answer.status, 400, "{wrong:?}: {answer:?}");
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(body["error"]["code"], json!(107), "{wrong:?}: {answer:?}");
        assert!(body["error"]["message"].is_string(), "{answer:?}");
    }
    let deep = Call::post("/api/revoke", "[".repeat(100_000)).header("X-API-Key", API_KEY);
    assert_eq!(deep.answered(gate.address).status, 400);
    caller.echo(b"undisturbed");
    gate.end();
}

#[test]
fn tokens_are_taken_back_where_the_operator_listens() {
    let options = [
        ("TOKEN_SECRET", SECRET),
        ("API_KEY", API_KEY),
        ("ADMIN_LISTEN", "127.0.0.1:0"),
    ];
    // What is counted is told there, too, so this server is asked by hand.
    let gate = Guarded::with(&options);
    let line = gate
        .banner
        .lines()
        .find(|line| line.trim_start().starts_with("admin"));
    let admin = line.unwrap().split_once("http://").unwrap().1;
    let admin = admin.split('/').next().unwrap().parse().unwrap();
    let caller = bearing(&json!({"jti": "one"})).open(gate.address);
    let call = revoke(&json!({"jti": "one"}));
    assert_eq!(call.answered(gate.address).status, 404);
    assert_eq!(call.answered(admin).status, 200);
    expect_gone(caller);
    let refused = bearing(&json!({"jti": "one"})).refused(gate.address, 401);
    assert!(
        refused
            .header("www-authenticate")
            .unwrap()
            .contains("invalid_token")
    );
    gate.end();
}

/// What was acknowledged is never forgotten before its time, so there is an end to what is taken.
#[test]
fn so_many_are_remembered_and_not_one_more() {
    const REMEMBERED: usize = 65_536;
    let gate = gate();
    let mut stream = Call::get("/").connect(gate.address);
    let mut statuses = Vec::new();
    // Some at a time in one connection, each with its answer.
    for start in (0..REMEMBERED).step_by(256) {
        let requests = (start..start + 256).map(|number| {
            let body = json!({"jti": format!("id-{number}"), "exp": now() + 36_000});
            revoke(&body).bytes()
        });
        let requests: Vec<u8> = requests.flatten().collect();
        std::io::Write::write_all(&mut stream, &requests).unwrap();
        for _ in 0..256 {
            statuses.push(Answer::receive(&mut stream).unwrap().status);
        }
    }
    assert!(statuses.iter().all(|status| *status == 200));
    let one_more = revoke(&json!({"jti": "one more", "exp": now() + 36_000}));
    assert_eq!(one_more.answered(gate.address).status, 429);
    bearing(&json!({"jti": "one more"}))
        .open(gate.address)
        .close();
    // Neither the first nor the last has made way.
    for number in [0, 1, REMEMBERED / 2, REMEMBERED - 1] {
        let call = bearing(&json!({"jti": format!("id-{number}")}));
        gate.refuses_token(&call, "token_revoked");
    }
    // What is remembered already costs nothing more.
    assert_eq!(
        revoke(&json!({"jti": "id-7", "exp": now() + 36_000}))
            .answered(gate.address)
            .status,
        200
    );
    gate.end();
}

#[test]
fn what_has_expired_makes_room() {
    let gate = gate();
    let soon = now() + 2;
    let mut stream = Call::get("/").connect(gate.address);
    for start in (0..65_536).step_by(256) {
        let requests = (start..start + 256)
            .map(|number| revoke(&json!({"jti": format!("id-{number}"), "exp": soon})).bytes());
        let requests: Vec<u8> = requests.flatten().collect();
        std::io::Write::write_all(&mut stream, &requests).unwrap();
        for _ in 0..256 {
            assert_eq!(Answer::receive(&mut stream).unwrap().status, 200);
        }
    }
    crate::jwt::wait_for(soon + 2);
    for number in 0..300 {
        expect_revoked(&gate, &json!({"jti": format!("later-{number}")}));
    }
    gate.end();
}

#[test]
fn the_key_of_the_api_is_exchanged_by_a_signal() {
    let setup = Setup::new();
    setup.folder.write("api-key", API_KEY);
    let options = [("TOKEN_SECRET", SECRET), ("API_KEY_FILE", "@/api-key")];
    let gate = Guarded::start(set(setup, &options));
    expect_revoked(&gate, &json!({"jti": "one"}));
    gate.folder
        .replace("api-key", "another-key-which-is-as-good-as-the-first\n");
    gate.signal("HUP");
    gate.settles("reloads_total{result=\"ok\"}", 1.0);
    assert_eq!(
        revoke(&json!({"jti": "two"})).answered(gate.address).status,
        401
    );
    let other = Call::post("/api/revoke", json!({"jti": "two"}).to_string())
        .header("X-API-Key", "another-key-which-is-as-good-as-the-first");
    assert_eq!(other.answered(gate.address).status, 200);
    gate.end();
}

/// It is called now and then; whoever calls it all the time has no right to stop everyone else.
#[test]
fn two_at_once_lose_nobody() {
    let gate = gate();
    let victims: Vec<_> = (0..40)
        .map(|number| bearing(&json!({"jti": format!("n{number}")})).open(gate.address))
        .collect();
    std::thread::scope(|scope| {
        for half in 0..2 {
            let gate = &gate;
            scope.spawn(move || {
                for number in (0..40).filter(|number| number % 2 == half) {
                    expect_revoked(gate, &json!({"jti": format!("n{number}")}));
                }
            });
        }
    });
    victims.into_iter().for_each(expect_gone);
    gate.settles("connections", 0.0);
    gate.end();
}
