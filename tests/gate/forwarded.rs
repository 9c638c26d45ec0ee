//! `X-Forwarded-For` and `Forwarded` (RFC 7239): of whom they are believed, and how far back.

use crate::{
    call::{Call, Outcome},
    guarded::Guarded,
    outside::{PATIENCE, wait_until},
};

fn gate(more: &[(&str, &str)]) -> Guarded {
    let own = [
        (
            "TRUSTED_PROXIES",
            "127.0.0.9, 10.0.0.0/8, 2001:db8:aaaa::/48",
        ),
        ("LISTEN", "0.0.0.0:0"),
    ];
    Guarded::with(&[&own, more].concat())
}

/// A call that is refused, so that the log tells where it came from.
fn evil(headers: &[(&str, &str)]) -> Call {
    let call = Call::echo()
        .host("example.com")
        .origin("https://evil.example");
    headers
        .iter()
        .fold(call, |call, (name, value)| call.header(name, value))
}

#[track_caller]
fn expect_remote(gate: &Guarded, call: &Call, remote: &str) {
    let look = || {
        let before = gate.said("reason=origin").len();
        call.refused(gate.address, 403);
        let lines = gate.said("reason=origin");
        lines
            .get(before)
            .map(|line| line.value("remote").to_owned())
    };
    let seen = wait_until(PATIENCE, look, Option::is_some).unwrap();
    assert_eq!(seen.trim_matches(['[', ']']), remote, "{call:?}");
}

#[test]
fn the_last_address_that_nobody_vouches_for_is_the_client() {
    let gate = gate(&[]);
    let client = "198.51.100.7";
    for value in [
        "198.51.100.7",
        " 198.51.100.7 ",
        "198.51.100.7, 10.1.2.3",
        "198.51.100.7,10.1.2.3,10.9.9.9",
        "192.0.2.1, 198.51.100.7",
        "127.0.0.1, 198.51.100.7, 10.1.2.3",
        "nonsense, 198.51.100.7",
        "198.51.100.7, 2001:db8:aaaa::5",
    ] {
        let call = evil(&[("X-Forwarded-For", value)]).from(9);
        expect_remote(&gate, &call, client);
    }
    for value in [
        "for=198.51.100.7",
        "For=198.51.100.7;proto=https;by=10.0.0.1",
        "for=\"198.51.100.7:4711\"",
        "for=192.0.2.1, for=198.51.100.7;proto=http, for=10.1.2.3",
        "for=unknown, for=198.51.100.7",
    ] {
        let call = evil(&[("Forwarded", value)]).from(9);
        expect_remote(&gate, &call, client);
    }
    gate.end();
}

#[test]
fn more_forms_of_the_same() {
    let gate = gate(&[]);
    let lines = [
        ("X-Forwarded-For", "192.0.2.1"),
        ("X-Forwarded-For", "198.51.100.7, 10.0.0.1"),
    ];
    expect_remote(&gate, &evil(&lines).from(9), "198.51.100.7");
    let newer = [("Forwarded", "for=\"[2001:db8::7]:4711\"")];
    expect_remote(&gate, &evil(&newer).from(9), "2001:db8::7");
    let newer = [("X-Forwarded-For", "2001:db8::7, 2001:db8:aaaa:1::1")];
    expect_remote(&gate, &evil(&newer).from(9), "2001:db8::7");
    // Both headers, and they agree.
    let both = [
        ("X-Forwarded-For", "198.51.100.7"),
        ("Forwarded", "for=198.51.100.7"),
    ];
    expect_remote(&gate, &evil(&both).from(9), "198.51.100.7");
    // All of them are proxies: the first of them asks for itself.
    let all = [("X-Forwarded-For", "10.0.0.3, 10.0.0.2")];
    expect_remote(&gate, &evil(&all).from(9), "10.0.0.3");
    expect_remote(&gate, &evil(&[]).from(9), "127.0.0.9");
    gate.end();
}

#[test]
fn whoever_is_not_trusted_says_nothing_of_the_kind() {
    let gate = gate(&[]);
    for headers in [
        &[("X-Forwarded-For", "198.51.100.7")][..],
        &[("X-Forwarded-For", "10.0.0.1")],
        &[("X-Forwarded-For", "127.0.0.9")],
        &[("Forwarded", "for=198.51.100.7")],
        // Nor can they quarrel.
        &[
            ("X-Forwarded-For", "198.51.100.7"),
            ("Forwarded", "for=192.0.2.1"),
        ],
    ] {
        expect_remote(&gate, &evil(headers).from(8), "127.0.0.8");
    }
    assert_eq!(gate.refused("forwarded"), 0);
    gate.end();
}

/// A proxy that sets one of them passes on what a client has written into the other.
#[test]
fn two_that_disagree_are_refused() {
    let gate = gate(&[]);
    for (one, other) in [
        ("198.51.100.7", "for=192.0.2.1"),
        ("192.0.2.1", "for=198.51.100.7, for=10.0.0.1"),
        ("198.51.100.7, 10.0.0.1", "for=\"[2001:db8::7]\""),
    ] {
        let call = Call::echo()
            .header("X-Forwarded-For", one)
            .header("Forwarded", other);
        gate.refuses(&call.from(9), 400, "forwarded");
    }
    gate.end();
}

#[test]
fn what_makes_no_sense_harms_nobody() {
    let gate = gate(&[]);
    let long = "1.2.3.4, ".repeat(800) + "198.51.100.7";
    let proxies = "10.0.0.1, ".repeat(700) + "10.0.0.1";
    let quotes = format!("for={}", "\"".repeat(3000));
    for headers in [
        &[("X-Forwarded-For", "")][..],
        &[("X-Forwarded-For", ",,,")],
        &[("X-Forwarded-For", "unknown")],
        &[("X-Forwarded-For", "999.999.999.999")],
        &[("X-Forwarded-For", "_hidden")],
        &[("X-Forwarded-For", "fe80::1%eth0")],
        &[("X-Forwarded-For", &long)],
        &[("X-Forwarded-For", &proxies)],
        &[("Forwarded", "")],
        &[("Forwarded", "for")],
        &[("Forwarded", "for=")],
        &[("Forwarded", "for=\"")],
        &[("Forwarded", "for=\"\\")],
        &[("Forwarded", &quotes)],
        &[("Forwarded", ";;;,,,;=;=,")],
        &[("Forwarded", "for=_gazonk, for=unknown")],
        &[("Forwarded", "for=\"[::1\"")],
    ] {
        let call = headers
            .iter()
            .fold(Call::echo().from(9), |call, (name, value)| {
                call.header(name, value)
            });
        let outcome = call.ask(gate.address);
        let is_fine = match &outcome {
            Outcome::Open(_) => true,
            Outcome::Answered(answer) => [400, 403, 431].contains(&answer.status),
            Outcome::Dropped => false,
        };
        assert!(is_fine, "{outcome:?}");
    }
    expect_remote(
        &gate,
        &evil(&[("X-Forwarded-For", &long[6000..])]).from(9),
        "198.51.100.7",
    );
    gate.end();
}

#[test]
fn caps_are_for_those_who_come_and_not_for_their_proxy() {
    let gate = gate(&[("MAX_CONNECTIONS_PER_IP", "2")]);
    let of = |address: &str| Call::echo().header("X-Forwarded-For", address).from(9);
    let mut inside = Vec::new();
    for host in 1..20 {
        let address = format!("203.0.113.{host}");
        inside.extend([0, 1].map(|_| of(&address).open(gate.address)));
    }
    gate.refuses(&of("203.0.113.5"), 429, "address_cap")
        .retry_after();
    gate.refuses(&of("198.51.100.1, 203.0.113.5"), 429, "address_cap");
    gate.refuses(&of("203.0.113.5, 10.0.0.1"), 429, "address_cap");
    gate.refuses(&of("::ffff:203.0.113.5"), 429, "address_cap");
    inside.push(of("2001:db8:1:2::1").open(gate.address));
    inside.push(of("2001:db8:1:2::2").open(gate.address));
    gate.refuses(&of("2001:db8:1:2:ff::3"), 429, "address_cap");
    inside.push(of("2001:db8:1:3::1").open(gate.address));
    // Whoever is not trusted hides behind nobody.
    let own = |address: &str| Call::echo().header("X-Forwarded-For", address).from(8);
    inside.push(own("198.51.100.1").open(gate.address));
    inside.push(own("198.51.100.2").open(gate.address));
    gate.refuses(&own("198.51.100.3"), 429, "address_cap");
    for caller in &mut inside {
        caller.echo(b"undisturbed");
    }
    let health = Call::get("/health")
        .header("X-Forwarded-For", "203.0.113.5")
        .from(9);
    assert_eq!(health.answered(gate.address).status, 200);
    // They leave, and there is room again.
    drop(inside);
    gate.settles("connections", 0.0);
    let look = || of("203.0.113.5").ask(gate.address);
    wait_until(PATIENCE, look, |outcome| {
        matches!(outcome, Outcome::Open(_))
    });
    gate.end();
}

/// A connection of a proxy may carry requests of many (RFC 9112, 9.3).
#[test]
fn each_request_of_a_connection_is_its_own_clients() {
    let gate = gate(&[("MAX_CONNECTIONS_PER_IP", "1")]);
    let of = |call: Call, address: &str| call.header("X-Forwarded-For", address).from(9);
    let _inside = of(Call::echo(), "203.0.113.5").open(gate.address);
    let mut stream = Call::echo().from(9).connect(gate.address);
    for host in 1..6 {
        let health = of(Call::get("/health"), &format!("198.51.100.{host}"));
        std::io::Write::write_all(&mut stream, &health.bytes()).unwrap();
        let answer = crate::call::Answer::receive(&mut stream).unwrap();
        assert_eq!(
            (answer.status, answer.header("connection")),
            (200, Some("keep-alive"))
        );
    }
    // The last of them upgrades, and is counted as who it is.
    let last = of(Call::echo(), "198.51.100.99");
    std::io::Write::write_all(&mut stream, &last.bytes()).unwrap();
    assert!(matches!(
        crate::call::learn(stream.try_clone().unwrap()),
        Outcome::Open(_)
    ));
    gate.refuses(&last, 429, "address_cap");
    of(Call::echo(), "198.51.100.1").open(gate.address).close();
    gate.end();
}

/// What only this machine may see, a stranger does not see through a proxy on this machine.
#[test]
fn a_stranger_behind_a_proxy_is_no_peer_of_this_machine() {
    let gate = gate(&[]);
    let strange = [
        ("X-Forwarded-For", "198.51.100.7"),
        ("Forwarded", "for=198.51.100.7"),
    ];
    for (name, value) in strange {
        let answer = Call::get("/metrics")
            .header(name, value)
            .from(9)
            .answered(gate.address);
        assert_eq!(answer.status, 403, "{name}: {}", answer.head);
        assert!(!answer.body.contains("tidemill_"));
    }
    gate.end();
}
