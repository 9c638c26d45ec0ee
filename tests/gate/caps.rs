//! How many may come from one address: connections, newcomers, and those who never finish.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv6Addr, TcpStream},
    time::{Duration, Instant},
};

use crate::{
    call::{Answer, Call, Caller, Outcome, finish, is_ended, learn, until_end},
    guarded::{Guarded, set},
    outside::{PATIENCE, wait_until},
    server::Setup,
};

/// Waits until there is room again for one from this address, and takes it.
#[track_caller]
fn expect_room(gate: &Guarded, call: &Call) -> Caller {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match call.ask(gate.address) {
            Outcome::Open(caller) => return caller,
            Outcome::Answered(answer) if answer.status == 429 => {}
            Outcome::Dropped => {}
            other => panic!("{other:?}"),
        }
        assert!(Instant::now() < deadline, "there is no room again");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn one_address_holds_so_many_connections_and_others_are_not_touched() {
    let gate = Guarded::with(&[("MAX_CONNECTIONS_PER_IP", "3"), ("REACTORS", "2")]);
    let call = Call::echo().from(5);
    let mut inside: Vec<_> = (0..3).map(|_| call.open(gate.address)).collect();
    for _ in 0..3 {
        let answer = gate.refuses(&call, 429, "address_cap");
        answer.retry_after();
    }
    let mut others: Vec<_> = (6..10)
        .map(|last| Call::echo().from(last).open(gate.address))
        .collect();
    // Whoever only asks how the server is gets to know it.
    let health = Call::get("/health").from(5).answered(gate.address);
    assert_eq!(
        (health.status, health.body.contains("healthy")),
        (200, true)
    );
    for caller in inside.iter_mut().chain(&mut others) {
        caller.echo(b"undisturbed");
    }
    let line = gate.expect_said("reason=address_cap");
    assert_eq!((&*line.level, line.value("remote")), ("warn", "127.0.0.5"));
    assert!(
        line.value("remedy")
            .contains("TIDEMILL_MAX_CONNECTIONS_PER_IP"),
        "{line:?}"
    );

    // One leaves, one comes; and not one more.
    inside.pop().unwrap().close();
    inside.push(expect_room(&gate, &call));
    gate.refuses(&call, 429, "address_cap");
    // Whoever is torn away leaves as well.
    crate::client::reset(inside.pop().unwrap().0);
    inside.push(expect_room(&gate, &call));
    drop(inside);
    let again: Vec<_> = (0..3).map(|_| expect_room(&gate, &call)).collect();
    gate.refuses(&call, 429, "address_cap");
    drop(again);
    gate.end();
}

/// Over the cap a few are told why, so that a person sees it; a crowd of them costs nothing.
#[test]
fn a_crowd_over_the_cap_is_dropped_without_a_word() {
    let gate = Guarded::with(&[("MAX_CONNECTIONS_PER_IP", "2")]);
    let call = Call::echo().from(5);
    let inside: Vec<_> = (0..2).map(|_| call.open(gate.address)).collect();
    let crowd: Vec<TcpStream> = (0..60).map(|_| call.connect(gate.address)).collect();
    let dropped = || crowd.iter().filter(|stream| is_ended(stream)).count();
    wait_until(PATIENCE, dropped, |dropped| *dropped >= 60 - 8);
    // The others never learn of it.
    let mut other = Call::echo().from(6).open(gate.address);
    other.echo(b"undisturbed");
    drop(crowd);
    drop(inside);
    expect_room(&gate, &call).close();
    gate.end();
}

/// What is plain over the cap is answered once, and does not stay.
#[test]
fn a_plain_answer_over_the_cap_is_the_last_of_its_connection() {
    let gate = Guarded::with(&[("MAX_CONNECTIONS_PER_IP", "1")]);
    let inside = Call::echo().from(5).open(gate.address);
    let health = Call::get("/health").from(5);
    for _ in 0..30 {
        let mut stream = health.connect(gate.address);
        stream.write_all(&health.bytes()).unwrap();
        let answer = match learn(stream.try_clone().unwrap()) {
            Outcome::Answered(answer) => answer,
            // Eight at a time: those before may not be gone yet.
            Outcome::Dropped => continue,
            Outcome::Open(_) => panic!("a plain request was upgraded"),
        };
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("connection"), Some("close"));
        finish(&stream);
        assert!(until_end(&mut stream).is_empty());
    }
    drop(inside);
    gate.end();
}

#[test]
fn an_address_of_the_newer_kind_is_counted_too() {
    let localhost = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let options = [("LISTEN", "[::1]:0"), ("MAX_CONNECTIONS_PER_IP", "2")];
    let gate = Guarded::with(&options);
    let call = Call::echo().coming_from(localhost);
    let _inside: Vec<_> = (0..2).map(|_| call.open(gate.address)).collect();
    let answer = call.refused(gate.address, 429);
    answer.retry_after();
    gate.end();
}

/// A connection that is only HTTP is one as well, and so is one that says nothing.
#[test]
fn whoever_is_connected_counts_whatever_they_do() {
    let gate = Guarded::with(&[
        ("MAX_CONNECTIONS_PER_IP", "3"),
        ("HANDSHAKE_TIMEOUT", "30s"),
    ]);
    let call = Call::echo().from(5);
    let silent = call.connect(gate.address);
    let mut plain = call.connect(gate.address);
    plain.write_all(&Call::get("/health").bytes()).unwrap();
    assert_eq!(Answer::receive(&mut plain).unwrap().status, 200);
    let tls = crate::client::stream(gate.secure(), 3).unwrap();
    assert_eq!(tls.local_addr().unwrap().ip(), IpAddr::from([127, 0, 0, 5]));
    gate.holds(3);
    gate.refuses(&call, 429, "address_cap");
    drop((silent, plain, tls));
    expect_room(&gate, &call).close();
    gate.end();
}

#[test]
fn newcomers_of_one_address_are_counted_by_the_second() {
    let gate = Guarded::with(&[("CONNECT_RATE_PER_IP", "2")]);
    let call = Call::echo().from(5);
    let began = Instant::now();
    let (mut opened, mut refused) = (0, 0);
    for _ in 0..12 {
        match call.ask(gate.address) {
            Outcome::Open(_) => opened += 1,
            Outcome::Answered(answer) => {
                assert_eq!(answer.status, 429);
                answer.check_refusal();
                answer.retry_after();
                refused += 1;
            }
            Outcome::Dropped => {}
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    // A burst of one second's worth, and what the time has brought since, to a tick.
    assert!(
        opened >= 2 && f64::from(opened) <= 2.0 + 2.0 * seconds + 1.0,
        "{opened} in {seconds}"
    );
    assert!(refused > 0);
    assert_eq!(gate.refused("connect_rate"), refused);
    let mut other = Call::echo().from(6).open(gate.address);
    other.echo(b"undisturbed");
    let line = gate.expect_said("reason=connect_rate");
    assert!(
        line.value("remedy")
            .contains("TIDEMILL_CONNECT_RATE_PER_IP"),
        "{line:?}"
    );
    // Whoever waits is welcome; and asking meanwhile has not made it longer.
    expect_room(&gate, &call).close();
    gate.end();
}

/// A client that retries as it was told must get in.
#[test]
fn who_waits_as_told_is_let_in() {
    let gate = Guarded::with(&[("CONNECT_RATE_PER_IP", "1")]);
    let call = Call::echo().from(5);
    call.open(gate.address).close();
    let deadline = Instant::now() + PATIENCE;
    while let Outcome::Answered(answer) = call.ask(gate.address) {
        assert!(Instant::now() < deadline, "still {answer:?}");
        // Its own word for how long, and a tick for the clock of the server.
        let wait = Duration::from_secs(answer.retry_after()) + Duration::from_millis(200);
        std::thread::park_timeout(wait);
    }
    gate.end();
}

#[test]
fn those_who_never_finish_are_counted_by_themselves() {
    let gate = Guarded::with(&[("HALF_OPEN_PER_IP", "3"), ("HANDSHAKE_TIMEOUT", "60s")]);
    let call = Call::echo().from(5);
    // Whoever is in does not count.
    let mut inside: Vec<_> = (0..10).map(|_| call.open(gate.address)).collect();
    let mut half: Vec<TcpStream> = (0..3).map(|_| call.connect(gate.address)).collect();
    half[1].write_all(b"GET /echo HT").unwrap();
    gate.holds(13);
    let answer = gate.refuses(&call, 429, "half_open");
    answer.retry_after();
    Call::echo().from(6).open(gate.address).close();
    let line = gate.expect_said("reason=half_open");
    assert!(
        line.value("remedy").contains("TIDEMILL_HALF_OPEN_PER_IP"),
        "{line:?}"
    );

    // One finishes, and is no longer in the way.
    let mut first = half.remove(0);
    first.write_all(&call.bytes()).unwrap();
    match learn(first) {
        Outcome::Open(caller) => inside.push(caller),
        other => panic!("{other:?}"),
    }
    inside.push(expect_room(&gate, &call));
    // One goes, and is not either.
    half.push(call.connect(gate.address));
    gate.holds(15);
    gate.refuses(&call, 429, "half_open");
    drop(half.remove(0));
    inside.push(expect_room(&gate, &call));
    for caller in &mut inside {
        caller.echo(b"undisturbed");
    }
    gate.end();
}

/// One handshake of TLS that hangs is a connection that has not finished, too.
#[test]
fn a_handshake_of_tls_that_hangs_is_half_open() {
    let gate = Guarded::with(&[("HALF_OPEN_PER_IP", "2"), ("HANDSHAKE_TIMEOUT", "60s")]);
    let secure = gate.secure();
    let call = Call::echo().from(5);
    let hanging: Vec<_> = (0..2)
        .map(|_| {
            let mut stream = call.connect(secure);
            stream.write_all(&[22, 3, 1]).unwrap();
            stream
        })
        .collect();
    gate.holds(2);
    gate.refuses(&call, 429, "half_open");
    drop(hanging);
    expect_room(&gate, &call).close();
    gate.end();
}

/// Many addresses, each with few: nothing is forgotten too early, nothing is kept for ever.
#[test]
fn addresses_are_counted_each_for_itself() {
    let gate = Guarded::with(&[("MAX_CONNECTIONS_PER_IP", "2")]);
    for _ in 0..3 {
        let mut crowd = Vec::new();
        for last in 10..60 {
            let call = Call::echo().from(last);
            crowd.push(expect_room(&gate, &call));
            crowd.push(expect_room(&gate, &call));
            assert_eq!(call.answered(gate.address).status, 429);
        }
        for caller in &mut crowd {
            caller.echo(b"one of many");
        }
    }
    wait_until(PATIENCE, || gate.metric("connections"), |open| *open < 0.5);
    for last in 10..60 {
        expect_room(&gate, &Call::echo().from(last)).close();
    }
    gate.end();
}

/// Threads that come and go at once, and nobody is counted twice or not at all.
#[test]
fn the_count_is_right_when_all_come_at_once() {
    const CAP: usize = 5;
    let options = [("MAX_CONNECTIONS_PER_IP", "5"), ("REACTORS", "2")];
    let gate = Guarded::with(&options);
    let call = Call::echo().from(5);
    for _ in 0..5 {
        let inside: Vec<Caller> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let asked = (0..4).map(|_| call.ask(gate.address));
                        let open = asked.filter_map(|outcome| match outcome {
                            Outcome::Open(caller) => Some(caller),
                            _ => None,
                        });
                        open.collect::<Vec<_>>()
                    })
                })
                .collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        assert!(
            !inside.is_empty() && inside.len() <= CAP,
            "{}",
            inside.len()
        );
        drop(inside);
        gate.settles("connections", 0.0);
    }
    let inside: Vec<_> = (0..CAP).map(|_| expect_room(&gate, &call)).collect();
    gate.refuses(&call, 429, "address_cap");
    drop(inside);
    gate.end();
}

/// Over TLS the answer can be read as well.
#[test]
fn over_tls_one_too_many_is_told_so() {
    let gate = Guarded::with(&[("MAX_CONNECTIONS_PER_IP", "1")]);
    // `connect` comes from the first of its addresses.
    let mut first = gate.connect().upgraded("/echo");
    first.echo(b"in");
    let mut second = gate.connect();
    second.write_all(&Call::echo().bytes()).unwrap();
    let answer = Answer::receive(&mut second).unwrap();
    assert_eq!(answer.status, 429);
    answer.check_refusal();
    assert_eq!(second.read(&mut [0]).unwrap(), 0);
    gate.end();
}

#[test]
fn one_too_many_in_all_is_503_and_has_room_when_one_leaves() {
    let options = [("MAX_CONNECTIONS", "2"), ("REACTORS", "1")];
    let gate = Guarded::start(set(Setup::new(), &options));
    let mut inside: Vec<_> = (5..7)
        .map(|last| Call::echo().from(last).open(gate.address))
        .collect();
    let answer = Call::echo().from(8).refused(gate.address, 503);
    answer.retry_after();
    inside.pop().unwrap().close();
    let deadline = Instant::now() + PATIENCE;
    let again = loop {
        match Call::echo().from(8).ask(gate.address) {
            Outcome::Open(caller) => break caller,
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
    };
    drop(again);
    gate.end();
}
