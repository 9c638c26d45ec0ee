//! Tokens and time: not yet, no longer, and while the connection is open.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    call::{Call, Caller},
    guarded::Guarded,
    jwt::{Key, SECRET, now, wait_for},
    outside::PATIENCE,
    socket::BINARY,
};

fn bearing(claims: &Value) -> Call {
    Call::echo().bearer(&Key::hmac(SECRET).sign(claims))
}

fn with_leeway(leeway: &str) -> Guarded {
    Guarded::with(&[("TOKEN_SECRET", SECRET), ("TOKEN_LEEWAY", leeway)])
}

#[test]
fn an_expired_token_and_an_early_one_are_refused() {
    let gate = with_leeway("0s");
    gate.refuses_token(&bearing(&json!({"exp": now() - 1})), "token_expired");
    for exp in [0, 1, -1, 1_500_000_000, i64::MIN] {
        gate.refuses_token(&bearing(&json!({"exp": exp})), "token_expired");
    }
    for nbf in [now() + 600, i64::MAX, 4_102_444_800] {
        gate.refuses_token(&bearing(&json!({"nbf": nbf})), "token_early");
    }
    // Both at once: neither lets it in.
    let never = json!({"nbf": now() + 600, "exp": now() - 600});
    let reasons = ["token_early", "token_expired"];
    gate.refuses_token_somehow(&bearing(&never), &reasons);
    bearing(&json!({"nbf": now() - 1, "exp": now() + 600}))
        .open(gate.address)
        .close();
    gate.end();
}

#[test]
fn clocks_may_differ_by_the_leeway_and_no_more() {
    let gate = with_leeway("1m");
    bearing(&json!({"exp": now() - 20}))
        .open(gate.address)
        .close();
    bearing(&json!({"nbf": now() + 50}))
        .open(gate.address)
        .close();
    gate.refuses_token(&bearing(&json!({"exp": now() - 61})), "token_expired");
    gate.refuses_token(&bearing(&json!({"nbf": now() + 100})), "token_early");
    // When it was issued is of no concern.
    bearing(&json!({"iat": now() + 6000}))
        .open(gate.address)
        .close();
    gate.end();
    // Five seconds by default.
    let gate = Guarded::with(&[("TOKEN_SECRET", SECRET)]);
    bearing(&json!({"nbf": now() + 3}))
        .open(gate.address)
        .close();
    gate.refuses_token(&bearing(&json!({"nbf": now() + 30})), "token_early");
    gate.refuses_token(&bearing(&json!({"exp": now() - 6})), "token_expired");
    gate.end();
}

/// Nobody who stays gets more time than their token had.
#[track_caller]
fn expect_expiry(mut caller: Caller, at: i64) {
    let reason = caller.expect_close(1008);
    assert!(now() >= at, "closed {} s early", at - now());
    assert_eq!(reason, "token expired");
    caller.0.set_read_timeout(Some(PATIENCE)).unwrap();
}

#[test]
fn a_connection_ends_with_its_token() {
    let gate = with_leeway("0s");
    let exp = now() + 2;
    let mut callers: Vec<_> = (0..20)
        .map(|number| {
            bearing(&json!({"sub": "a", "exp": exp}))
                .from(2 + number)
                .open(gate.address)
        })
        .collect();
    let mut stays = bearing(&json!({"sub": "b", "exp": now() + 3600})).open(gate.address);
    let mut forever = bearing(&json!({"sub": "c"})).open(gate.address);
    for caller in &mut callers {
        caller.echo(b"in time");
    }
    let last = callers.pop().unwrap();
    for caller in callers {
        expect_expiry(caller, exp);
    }
    assert_eq!(last.closed(1008), "token expired");
    stays.echo(b"undisturbed");
    forever.echo(b"undisturbed");
    assert!(gate.metric("closed_total{code=\"1008\"}") as u64 >= 20);
    let again = bearing(&json!({"sub": "a", "exp": exp}));
    gate.refuses_token(&again, "token_expired");
    gate.end();
}

#[test]
fn the_leeway_counts_for_those_who_are_in() {
    let gate = with_leeway("3s");
    let exp = now();
    let caller = bearing(&json!({"exp": exp})).open(gate.address);
    expect_expiry(caller, exp + 3);
    gate.end();
}

/// A peer that talks without end has no less of an end.
#[test]
fn a_busy_connection_ends_with_its_token_too() {
    let gate = with_leeway("0s");
    let exp = now() + 2;
    let mut caller = bearing(&json!({"exp": exp})).open(gate.address);
    let began = Instant::now();
    loop {
        caller.send(BINARY, b"busy");
        let (opcode, payload) = caller.receive().unwrap();
        if opcode != BINARY {
            assert_eq!(
                payload,
                [&1008_u16.to_be_bytes()[..], b"token expired"].concat()
            );
            break;
        }
        assert!(began.elapsed() < PATIENCE, "it goes on");
    }
    assert!(now() >= exp);
    gate.end();
}

/// Nor does one that is made to wait outlive its token by waiting.
#[test]
fn a_paused_connection_ends_with_its_token_too() {
    let gate = Guarded::with(&[
        ("TOKEN_SECRET", SECRET),
        ("TOKEN_LEEWAY", "0s"),
        ("RATE_MESSAGES", "1"),
    ]);
    let exp = now() + 2;
    let mut caller = bearing(&json!({"exp": exp})).open(gate.address);
    for _ in 0..200 {
        caller.send(BINARY, b"too much");
    }
    expect_expiry(caller, exp);
    // At one a second the rest would have taken minutes.
    assert!(now() < exp + 100);
    gate.end();
}

/// A peer that neither answers the Close nor goes is left.
#[test]
fn one_that_does_not_go_when_its_token_ends_is_left() {
    let gate = Guarded::with(&[
        ("TOKEN_SECRET", SECRET),
        ("TOKEN_LEEWAY", "0s"),
        ("CLOSE_TIMEOUT", "500ms"),
    ]);
    let mut caller = bearing(&json!({"exp": now() + 1})).open(gate.address);
    caller.expect_close(1008);
    assert_eq!(std::io::Read::read(&mut caller.0, &mut [0]).unwrap(), 0);
    gate.settles("connections", 0.0);
    gate.end();
}

/// A timer that counts in ticks of 32 bits comes round after some years: a token that lasts as long
/// lasts nothing. Those of another unit, or of no end, last at least.
#[test]
fn a_token_that_lasts_for_ages_does_not_end_at_once() {
    let gate = Guarded::with(&[("TOKEN_SECRET", SECRET), ("TOKEN_LEEWAY", "0s")]);
    let mut ends = vec![
        json!(i64::MAX),
        json!(u64::MAX),
        json!(1e300),
        json!(now() * 1000),
    ];
    for ticks_per_second in [1, 4, 5, 10, 20, 100, 1000] {
        for ticks in [1_u64 << 31, 1 << 32, 1 << 33] {
            let seconds = (ticks / ticks_per_second) as i64;
            ends.extend([0, 1].map(|more| json!(now() + seconds + more)));
        }
    }
    let (began, mut callers) = (Instant::now(), Vec::new());
    for end in &ends {
        callers.push(bearing(&json!({"exp": end})).open(gate.address));
    }
    while began.elapsed() < Duration::from_secs(3) {
        for (caller, end) in callers.iter_mut().zip(&ends) {
            caller.send(BINARY, b"still here");
            let came = caller.receive().unwrap();
            assert_eq!(came, (BINARY, b"still here".to_vec()), "exp {end}");
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
    gate.end();
}

/// What is exact to the second at the door is so inside: a token may be taken until its end, and
/// who came in by then leaves soon after.
#[test]
fn a_token_is_taken_until_its_last_second() {
    let gate = with_leeway("0s");
    let exp = now() + 3;
    let mut opened = 0;
    while now() < exp - 1 {
        bearing(&json!({"exp": exp})).open(gate.address);
        opened += 1;
    }
    assert!(opened > 0);
    wait_for(exp + 1);
    gate.refuses_token(&bearing(&json!({"exp": exp})), "token_expired");
    gate.end();
}
