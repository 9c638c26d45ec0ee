//! Tokens that are not sound, each in a way that some server somewhere has taken: RFC 8725 is the
//! list of them.

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use serde_json::{Value, json};

use crate::{
    call::{Answer, Call},
    guarded::Guarded,
    jwt::{ALPHABET, Key, SECRET, base64, claims, now, set_of},
};

/// What a token that no key fits may be refused for: which of the three depends on what is looked
/// at first.
const NO_KEY_FITS: [&str; 4] = [
    "token_algorithm",
    "token_key",
    "token_signature",
    "token_malformed",
];

fn bearing(token: &str) -> Call {
    Call::echo().bearer(token)
}

#[test]
fn a_token_without_a_signature_is_refused_whatever_it_calls_that() {
    let rsa = Key::rsa();
    let gate = Guarded::with(&[("TOKEN_SECRET", SECRET), ("TOKEN_PUBLIC_KEY", &rsa.pem())]);
    let sound = Key::hmac(SECRET).sign(&claims("anna"));
    let signature = sound.rsplit('.').next().unwrap();
    for name in [
        "none", "None", "NONE", "nOnE", "", " ", "null", "HS", "HS256 ",
    ] {
        let header = json!({"alg": name, "typ": "JWT"}).to_string();
        let unsigned = format!("{}.{}", base64(&header), base64(claims("eve").to_string()));
        for token in [
            format!("{unsigned}."),
            unsigned.clone(),
            format!("{unsigned}.{signature}"),
            format!("{unsigned}.{}", base64([0; 32])),
        ] {
            gate.refuses_token_somehow(&bearing(&token), &NO_KEY_FITS);
        }
    }
    for header in [
        "{}",
        r#"{"typ":"JWT"}"#,
        r#"{"alg":null}"#,
        r#"{"alg":256}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":{"HS256":1}}"#,
    ] {
        let token = Key::hmac(SECRET).sign_text(header, &claims("eve").to_string());
        gate.refuses_token_somehow(&bearing(&token), &NO_KEY_FITS);
    }
    // The one that was borrowed from is sound.
    bearing(&sound).open(gate.address).close();
    gate.end();
}

/// A server that lets the token choose takes the public key for a secret, which everyone knows.
#[test]
fn a_public_key_is_no_secret() {
    for key in [Key::rsa(), Key::ec(), Key::ed()] {
        let jwk = key.jwk(Some("one"));
        let configured = [
            key.pem(),
            set_of(std::slice::from_ref(&jwk)),
            set_of(&[key.jwk(None)]),
        ];
        for public in &configured {
            let other = ("TOKEN_SECRET", SECRET);
            for options in [
                &[("TOKEN_PUBLIC_KEY", &**public)][..],
                &[("TOKEN_PUBLIC_KEY", public), other],
            ] {
                let gate = Guarded::with(options);
                let pem = key.pem();
                let secrets: [Vec<u8>; 8] = [
                    pem.clone().into(),
                    pem.trim().into(),
                    pem.replace('\n', "\r\n").into(),
                    pem.lines()
                        .filter(|line| !line.contains('-'))
                        .collect::<String>()
                        .into(),
                    key.der(),
                    public.clone().into(),
                    jwk.to_string().into(),
                    jwk["x"].as_str().or(jwk["n"].as_str()).unwrap().into(),
                ];
                for (number, secret) in secrets.iter().enumerate() {
                    let algorithm = ["HS256", "HS384", "HS512"][number % 3];
                    let forger = Key::hmac(secret);
                    let mut header = json!({"alg": algorithm, "typ": "JWT"});
                    let token = forger.sign_as(&header, &claims("eve"));
                    gate.refuses_token_somehow(&bearing(&token), &NO_KEY_FITS);
                    header["kid"] = json!("one");
                    let token = forger.sign_as(&header, &claims("eve"));
                    gate.refuses_token_somehow(&bearing(&token), &NO_KEY_FITS);
                    // Signed by the secret, and called what the key is for.
                    let header = json!({"alg": key.algorithm(), "typ": "JWT"});
                    let token = forger.sign_as(&header, &claims("eve"));
                    gate.refuses_token_somehow(&bearing(&token), &NO_KEY_FITS);
                }
                bearing(&key.sign(&claims("anna")))
                    .open(gate.address)
                    .close();
                gate.end();
            }
        }
    }
}

#[test]
fn each_key_signs_with_its_own_algorithm_and_no_other() {
    let (rsa, ec, ed, secret) = (Key::rsa(), Key::ec(), Key::ed(), Key::hmac(SECRET));
    let public = [&rsa, &ec, &ed].map(Key::pem).concat();
    let gate = Guarded::with(&[("TOKEN_SECRET", SECRET), ("TOKEN_PUBLIC_KEY", &public)]);
    let names = [
        "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256",
        "ES384", "ES512", "ES256K", "EdDSA", "Ed25519", "hs256", "rs256", "es256", "eddsa", "dir",
        "A128KW", "RSA-OAEP", "HS1", "RS1",
    ];
    for (key, own) in [
        (&rsa, &["RS256"][..]),
        (&ec, &["ES256"]),
        (&ed, &["EdDSA"]),
        (&secret, &["HS256", "HS384", "HS512"]),
    ] {
        for name in names {
            let call = bearing(&key.sign_as(&json!({"alg": name}), &claims("anna")));
            if own.contains(&name) {
                call.open(gate.address);
            } else {
                gate.refuses_token_somehow(&call, &NO_KEY_FITS);
            }
        }
    }
    let unknown = json!({"alg": "RS384"});
    let call = bearing(&rsa.sign_as(&unknown, &claims("anna")));
    gate.refuses_token(&call, "token_algorithm");
    gate.end();
}

#[test]
fn a_wrong_key_is_a_wrong_signature() {
    for (key, option) in [
        (Key::hmac(SECRET), "TOKEN_SECRET"),
        (Key::rsa(), "TOKEN_PUBLIC_KEY"),
        (Key::ec(), "TOKEN_PUBLIC_KEY"),
        (Key::ed(), "TOKEN_PUBLIC_KEY"),
    ] {
        let (own, other) = match key {
            Key::Hmac(_) => (SECRET.to_owned(), Key::hmac(&SECRET[1..])),
            Key::Rsa(_) => (key.pem(), Key::rsa()),
            Key::Ec(_) => (key.pem(), Key::ec()),
            Key::Ed(_) => (key.pem(), Key::ed()),
        };
        let gate = Guarded::with(&[(option, &own)]);
        gate.refuses_token(&bearing(&other.sign(&claims("eve"))), "token_signature");
        let sound = key.sign(&claims("anna"));
        bearing(&sound).open(gate.address).close();
        // The signature of one token under the claims of another.
        let parts: Vec<_> = sound.split('.').collect();
        let claims = base64(claims("eve").to_string());
        let call = bearing(&[parts[0], &claims, parts[2]].join("."));
        gate.refuses_token(&call, "token_signature");
        gate.end();
    }
}

/// What a forger can send without knowing any key: CVE-2022-21449 took it.
#[test]
fn a_signature_of_zeros_is_none() {
    let keys = [Key::rsa(), Key::ec(), Key::ed()];
    let public: String = keys.iter().map(Key::pem).collect();
    let gate = Guarded::with(&[("TOKEN_SECRET", SECRET), ("TOKEN_PUBLIC_KEY", &public)]);
    for name in ["ES256", "EdDSA", "RS256", "HS256"] {
        let header = json!({"alg": name}).to_string();
        let unsigned = format!("{}.{}", base64(header), base64(claims("eve").to_string()));
        for length in [0, 1, 2, 32, 63, 64, 65, 70, 96, 256, 257] {
            for byte in [0, 1, 0xff] {
                let token = format!("{unsigned}.{}", base64(vec![byte; length]));
                gate.refuses_token_somehow(&bearing(&token), &NO_KEY_FITS);
            }
        }
    }
    gate.end();
}

/// A token that brings its own key, or says where one is, has proved nothing; and a server that
/// goes there does a stranger's bidding.
#[test]
fn a_token_brings_no_key_of_its_own() {
    let visits = Arc::new(AtomicUsize::new(0));
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/keys", trap.local_addr().unwrap());
    let counted = Arc::clone(&visits);
    thread::spawn(move || {
        for _ in trap.incoming() {
            counted.fetch_add(1, Relaxed);
        }
    });
    let (own, forger) = (Key::rsa(), Key::rsa());
    let public = set_of(&[own.jwk(Some("one"))]);
    let gate = Guarded::with(&[("TOKEN_SECRET", SECRET), ("TOKEN_PUBLIC_KEY", &public)]);
    for (name, value) in [
        ("jwk", forger.jwk(Some("one"))),
        ("jku", json!(url)),
        ("x5u", json!(url)),
        ("x5c", json!([base64(forger.der())])),
        ("kid", json!("one")),
        ("kid", json!(url)),
        ("kid", json!("../../../../dev/null")),
        ("kid", json!("one' OR '1'='1")),
        ("kid", json!("")),
        ("kid", json!(1)),
    ] {
        for key in [&forger, &Key::hmac(""), &Key::hmac([0])] {
            let mut header = json!({"alg": key.algorithm()});
            header[name] = value.clone();
            let token = key.sign_as(&header, &claims("eve"));
            gate.refuses_token_somehow(&bearing(&token), &NO_KEY_FITS);
        }
    }
    bearing(&own.sign_kid("one", &claims("anna")))
        .open(gate.address)
        .close();
    assert_eq!(visits.load(Relaxed), 0, "somebody went there");
    gate.end();
}

/// RFC 7515, 4.1.11: whoever does not understand what is critical must refuse.
#[test]
fn what_is_critical_and_not_understood_is_refused() {
    let gate = Guarded::with(&[("TOKEN_SECRET", SECRET)]);
    for critical in [
        json!(["b64"]),
        json!(["exp"]),
        json!([]),
        json!("exp"),
        json!(null),
    ] {
        let header = json!({"alg": "HS256", "crit": critical, "b64": true});
        let token = Key::hmac(SECRET).sign_as(&header, &claims("anna"));
        gate.refuses_token(&bearing(&token), "token_malformed");
    }
    gate.end();
}

#[test]
fn a_token_with_any_character_changed_is_refused() {
    for key in [Key::hmac(SECRET), Key::ec()] {
        let gate = match key {
            Key::Hmac(_) => Guarded::with(&[("TOKEN_SECRET", SECRET)]),
            _ => Guarded::with(&[("TOKEN_PUBLIC_KEY", &key.pem())]),
        };
        let sound = key.sign(&json!({"sub": "anna", "exp": now() + 3600}));
        let dots = sound.bytes().filter(|byte| *byte == b'.').count();
        let mut refused = 0;
        for at in 0..sound.len() {
            let mut changed = sound.clone().into_bytes();
            let Some(place) = ALPHABET.iter().position(|letter| *letter == changed[at]) else {
                continue;
            };
            // The highest bit of the six: no part of it is without meaning.
            changed[at] = ALPHABET[place ^ 0b10_0000];
            let token = String::from_utf8(changed).unwrap();
            bearing(&token).refused(gate.address, 401);
            refused += 1;
        }
        assert_eq!(refused, sound.len() - dots);
        bearing(&sound).open(gate.address).close();
        gate.end();
    }
}

#[test]
fn a_token_that_is_cut_or_lengthened_is_refused() {
    let gate = Guarded::with(&[("TOKEN_SECRET", SECRET)]);
    let sound = Key::hmac(SECRET).sign(&claims("anna"));
    for end in 1..sound.len() {
        bearing(&sound[..end]).refused(gate.address, 401);
    }
    let parts: Vec<_> = sound.split('.').collect();
    for wrong in [
        format!("{sound}."),
        format!(".{sound}"),
        format!("{sound}.{}", parts[2]),
        format!("{sound}A"),
        format!("{sound}AAAA"),
        format!("{sound}."),
        format!("{}..{}", parts[0], parts[2]),
        format!("{}..", parts[0]),
        format!("{}.{}", parts[1], parts[2]),
        sound.replace('.', ".."),
        sound.replace('.', " "),
        "..".to_owned(),
        ".".repeat(1000),
        "a.b.c".to_owned(),
        "ü.ü.ü".to_owned(),
        format!("{sound}, Bearer {sound}"),
        format!("{sound} {sound}"),
        format!("\"{sound}\""),
        format!("Bearer {sound}"),
        // RFC 7516: five parts are an encrypted token, which nobody can read here.
        format!("{sound}.{sound}"),
    ] {
        bearing(&wrong).refused(gate.address, 401);
    }
    bearing(&sound).open(gate.address).close();
    gate.end();
}

#[test]
fn claims_of_a_wrong_kind_are_refused_though_they_are_signed() {
    let gate = Guarded::with(&[("TOKEN_SECRET", SECRET)]);
    let key = Key::hmac(SECRET);
    let later = now() + 3600;
    for payload in [
        "",
        "null",
        "[]",
        "\"anna\"",
        "42",
        "{",
        "{\"sub\":\"anna\"",
        "{\"sub\":\"anna\"} x",
        "\u{feff}{\"sub\":\"anna\"}",
        &format!("{{\"exp\":\"{later}\"}}"),
        "{\"exp\":true}",
        "{\"exp\":[4102444800]}",
        "{\"exp\":{}}",
        "{\"nbf\":\"0\"}",
        "{\"nbf\":[]}",
        "{\"sub\":42}",
        "{\"sub\":[\"anna\"]}",
        "{\"jti\":42}",
        &"[".repeat(5000),
        &"{\"a\":".repeat(800),
    ] {
        let token = key.sign_text(r#"{"alg":"HS256"}"#, payload);
        gate.refuses_token(&bearing(&token), "token_malformed");
    }
    // Not text at all.
    let header = base64(r#"{"alg":"HS256"}"#);
    for bytes in [&[0xff, 0xfe][..], b"{\"sub\":\"\xc3\"}", &[0; 64]] {
        let token = format!("{header}.{}.{}", base64(bytes), base64([0; 32]));
        bearing(&token).refused(gate.address, 401);
    }
    // Numbers of any notation are numbers (RFC 7519, 2).
    for exp in [
        format!("{later}.5"),
        format!("{later}e0"),
        "1e12".to_owned(),
    ] {
        let token = key.sign_text(r#"{"alg":"HS256"}"#, &format!("{{\"exp\":{exp}}}"));
        bearing(&token).open(gate.address).close();
    }
    gate.end();
}

#[test]
fn a_token_of_ten_kilobytes_is_refused_before_it_is_looked_at() {
    let gate = Guarded::with(&[("TOKEN_SECRET", SECRET), ("MAX_HEADER_BYTES", "64KiB")]);
    let token = |length: usize| {
        let empty = Key::hmac(SECRET).sign(&json!({"exp": 4_102_444_800_u64, "pad": ""}));
        let mut pad = (length - empty.len()) * 3 / 4;
        loop {
            let claims = json!({"exp": 4_102_444_800_u64, "pad": "x".repeat(pad)});
            let token = Key::hmac(SECRET).sign(&claims);
            if token.len() <= length {
                return token;
            }
            pad -= 1;
        }
    };
    // Sound, and as long as may be.
    let fits = token(8192);
    assert!(fits.len() > 8180);
    bearing(&fits).open(gate.address).close();
    for length in [8200, 10_240, 40_000] {
        let long = token(length);
        assert!(long.len() > 8192);
        gate.refuses_token(&bearing(&long), "token_malformed");
    }
    let garbage = bearing(&"x".repeat(10_240));
    gate.refuses_token(&garbage, "token_malformed");
    let dots = bearing(&".".repeat(50_000));
    gate.refuses_token(&dots, "token_malformed");
    gate.end();

    // By default the head of a request is bounded below that.
    let gate = Guarded::with(&[("TOKEN_SECRET", SECRET)]);
    let long = token(10_240);
    for call in [bearing(&long), Call::to(&format!("/echo?token={long}"))] {
        let answer = call.refused(gate.address, answered(&gate, &call));
        assert!([414, 431].contains(&answer.status), "{answer:?}");
        assert!(!answer.body.contains(&long[..20]));
    }
    gate.end();
}

fn answered(gate: &Guarded, call: &Call) -> u16 {
    let answer: Answer = call.answered(gate.address);
    answer.status
}

/// Keys that are for something else do not vouch for anyone (RFC 7517, 4.2 to 4.4).
#[test]
fn a_key_that_is_for_something_else_is_not_used() {
    let (sound, encrypts, other) = (Key::ec(), Key::ec(), Key::rsa());
    let with = |key: &Key, kid: &str, member: &str, value: Value| {
        let mut jwk = key.jwk(Some(kid));
        jwk[member] = value;
        jwk
    };
    let set = set_of(&[
        with(&sound, "sound", "use", json!("sig")),
        with(&encrypts, "encrypts", "use", json!("enc")),
        with(&other, "other", "alg", json!("RS512")),
        json!({"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA", "kid": "curve"}),
        json!({"kty": "nonsense", "kid": "nonsense"}),
    ]);
    let gate = Guarded::with(&[("TOKEN_PUBLIC_KEY", &set)]);
    bearing(&sound.sign_kid("sound", &claims("anna")))
        .open(gate.address)
        .close();
    for (key, kid) in [(&encrypts, "encrypts"), (&other, "other")] {
        let call = bearing(&key.sign_kid(kid, &claims("eve")));
        gate.refuses_token_somehow(&call, &NO_KEY_FITS);
        let call = bearing(&key.sign(&claims("eve")));
        gate.refuses_token_somehow(&call, &NO_KEY_FITS);
    }
    gate.end();

    // `alg` names the only one that is allowed.
    let mut narrow = Key::hmac(SECRET).jwk(None);
    narrow["alg"] = json!("HS512");
    let gate = Guarded::with(&[("TOKEN_SECRET", &set_of(&[narrow]))]);
    let signed = |name: &str| Key::hmac(SECRET).sign_as(&json!({"alg": name}), &claims("anna"));
    bearing(&signed("HS512")).open(gate.address).close();
    gate.refuses_token_somehow(&bearing(&signed("HS256")), &NO_KEY_FITS);
    gate.refuses_token_somehow(&bearing(&signed("HS384")), &NO_KEY_FITS);
    gate.end();
}
