//! Every way to go, and what is counted of it: whoever has gone takes nobody's place any more, and
//! nobody comes in twice for one who went.

use std::{
    io::Write,
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    call::{Call, Caller, Outcome, finish, until_end},
    client::{Client, reset},
    guarded::Guarded,
    jwt::{Key, SECRET, now},
    outside::{PATIENCE, peer::frame, wait_until},
    socket::{BINARY, TEXT},
};

const CONNECTIONS: usize = 4;
const HALF_OPEN: usize = 3;
const API_KEY: &str = "the-key-of-the-api-which-the-operator-alone-knows";

fn gate() -> Guarded {
    Guarded::with(&[
        ("MAX_CONNECTIONS_PER_IP", "4"),
        ("HALF_OPEN_PER_IP", "3"),
        ("TOKEN_SECRET", SECRET),
        ("TOKEN_LEEWAY", "0s"),
        ("TOKEN_REQUIRED", "false"),
        ("API_KEY", API_KEY),
        ("RATE_MESSAGES", "50"),
        ("RATE_POLICY", "close"),
        ("HANDSHAKE_TIMEOUT", "2s"),
        ("MESSAGE_TIMEOUT", "1s"),
        ("CLOSE_TIMEOUT", "500ms"),
        ("REACTORS", "2"),
    ])
}

fn call() -> Call {
    Call::echo().from(5)
}

/// Comes in as soon as there is room.
#[track_caller]
fn enter(gate: &Guarded, call: &Call) -> Caller {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match call.ask(gate.address) {
            Outcome::Open(caller) => return caller,
            Outcome::Answered(answer) => assert_eq!(answer.status, 429, "{answer:?}"),
            Outcome::Dropped => {}
        }
        assert!(Instant::now() < deadline, "there is no room");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// A way to go: takes a server, and is gone afterwards.
type Way = (&'static str, fn(&Guarded));

const WAYS: [Way; 23] = [
    ("without a word", |gate| drop(call().connect(gate.address))),
    ("by a reset without a word", |gate| {
        reset(call().connect(gate.address))
    }),
    ("by the end of half a head", |gate| {
        let mut stream = call().connect(gate.address);
        stream.write_all(b"GET /echo HTTP/1.1\r\nHo").unwrap();
        finish(&stream);
        until_end(&mut stream);
    }),
    ("by a reset in a head", |gate| {
        let mut stream = call().connect(gate.address);
        stream.write_all(b"GET /echo HTTP/1.1\r\nHo").unwrap();
        reset(stream);
    }),
    ("refused for garbage", |gate| {
        refused(gate, b"garbage\r\n\r\n")
    }),
    ("refused for its path", |gate| {
        refused(gate, &Call::to("/nowhere").bytes())
    }),
    ("refused for its origin", |gate| {
        refused(gate, &call().origin("https://evil.example").bytes());
    }),
    ("refused for its token", |gate| {
        refused(gate, &call().bearer("nonsense").bytes())
    }),
    ("after a plain answer", |gate| {
        let mut stream = call().connect(gate.address);
        stream.write_all(&Call::get("/health").bytes()).unwrap();
        assert_eq!(
            crate::call::Answer::receive(&mut stream).unwrap().status,
            200
        );
    }),
    ("by silence", |gate| {
        drop(until_end(&mut call().connect(gate.address)))
    }),
    ("by silence after an answer", |gate| {
        let mut stream = call().connect(gate.address);
        stream.write_all(&Call::get("/health").bytes()).unwrap();
        until_end(&mut stream);
    }),
    ("by no TLS", |gate| {
        secure_garbage(gate, b"GET / HTTP/1.1\r\n\r\n")
    }),
    ("by garbage for TLS", |gate| {
        secure_garbage(gate, &[22, 3, 3, 0, 4, 1, 2, 3, 4])
    }),
    ("by silence for TLS", |gate| secure_garbage(gate, &[22])),
    ("by the end of TLS", |gate| {
        let stream = call().connect(gate.secure());
        let client = Client::over(stream, gate.config(), "localhost").unwrap();
        client.upgraded("/echo").close();
    }),
    ("in order", |gate| enter(gate, &call()).close()),
    ("torn away", |gate| reset(enter(gate, &call()).0)),
    ("by a violation", |gate| {
        let mut caller = enter(gate, &call());
        caller.send(TEXT, b"\xff");
        caller.expect_close(1007);
        drop(caller);
    }),
    ("by a message too long", |gate| {
        let mut caller = enter(gate, &call());
        // The server reads no further than the length.
        let _ = caller.0.write_all(&frame(BINARY, &[0; 70_000]));
        caller.expect_close(1009);
    }),
    ("by half a message", |gate| {
        let mut caller = enter(gate, &call());
        caller.0.write_all(&frame(BINARY, b"half")[..4]).unwrap();
        caller.expect_close(1008);
    }),
    ("by its rate", |gate| {
        let mut caller = enter(gate, &call());
        let _ = caller.0.write_all(&frame(BINARY, b"x").repeat(200));
        assert_eq!(caller.expect_close(1008), "rate limit");
    }),
    ("with its token", |gate| {
        let token = Key::hmac(SECRET).sign(&json!({"exp": now() + 1}));
        let mut caller = enter(gate, &call().bearer(&token));
        assert_eq!(caller.expect_close(1008), "token expired");
    }),
    ("revoked", |gate| {
        let token = Key::hmac(SECRET).sign(&json!({"sub": "eve", "iat": now() + 5}));
        let mut caller = enter(gate, &call().bearer(&token));
        let jti = json!({"sub": "eve"}).to_string();
        let revoke = Call::post("/api/revoke", jti).header("X-API-Key", API_KEY);
        assert_eq!(revoke.answered(gate.address).status, 200);
        // Made after the word that took everything back: it stays.
        caller.echo(b"still here");
    }),
];

#[track_caller]
fn refused(gate: &Guarded, bytes: &[u8]) {
    let mut stream = call().connect(gate.address);
    stream.write_all(bytes).unwrap();
    // Over the cap the server may have dropped it at once: that is a refusal as well.
    until_end(&mut stream);
}

#[track_caller]
fn secure_garbage(gate: &Guarded, bytes: &[u8]) {
    let mut stream = call().connect(gate.secure());
    stream.write_all(bytes).unwrap();
    until_end(&mut stream);
}

/// Exactly so many are let in, and so many may hang.
#[track_caller]
fn expect_exact(gate: &Guarded, way: &str) {
    gate.settles("reactor_connections", 1.0);
    let inside: Vec<_> = (0..CONNECTIONS).map(|_| enter(gate, &call())).collect();
    assert_eq!(
        call().answered(gate.address).status,
        429,
        "after one went {way}"
    );
    inside.into_iter().for_each(Caller::close);
    gate.settles("reactor_connections", 1.0);
    let hanging: Vec<TcpStream> = (0..HALF_OPEN)
        .map(|_| call().connect(gate.address))
        .collect();
    gate.holds(HALF_OPEN);
    let before = gate.refused("half_open");
    let answer = call().answered(gate.address);
    // On a slow machine those who hang may have been sent away meanwhile.
    drop(hanging);
    assert_eq!(answer.status, 429, "after one went {way}");
    assert_eq!(
        gate.refused("half_open"),
        before + 1,
        "after one went {way}"
    );
}

#[test]
fn whichever_way_one_goes_there_is_room_for_one_more_and_not_for_two() {
    let gate = gate();
    for (way, go) in WAYS {
        // More often than there is room: none of them may stay behind.
        for _ in 0..2 {
            go(&gate);
        }
        expect_exact(&gate, way);
    }
    gate.end();
}

#[test]
fn quick_ways_to_go_leave_nothing_behind_however_often() {
    let gate = gate();
    let slow = ["silence", "half a message", "token", "TLS", "revoked"];
    let quick = WAYS
        .iter()
        .filter(|(way, _)| !slow.iter().any(|word| way.contains(word)));
    for (_, go) in quick.cycle().take(300) {
        go(&gate);
    }
    expect_exact(&gate, "in many ways");
    gate.end();
}

/// Whoever was refused for being one too many is no one too few when they go.
#[test]
fn who_was_one_too_many_leaves_the_count_as_it_was() {
    let gate = gate();
    let mut inside: Vec<_> = (0..CONNECTIONS).map(|_| enter(&gate, &call())).collect();
    for number in 0..60 {
        match number % 4 {
            0 => drop(call().ask(gate.address)),
            1 => drop(call().connect(gate.address)),
            2 => reset(call().connect(gate.address)),
            _ => drop(Call::get("/health").from(5).ask(gate.address)),
        }
    }
    for caller in &mut inside {
        caller.echo(b"undisturbed");
    }
    let look = || call().ask(gate.address);
    let seen = wait_until(PATIENCE, look, |outcome| {
        !matches!(outcome, Outcome::Dropped)
    });
    assert!(matches!(seen, Outcome::Answered(answer) if answer.status == 429));
    inside.into_iter().for_each(Caller::close);
    expect_exact(&gate, "as one too many");
    gate.end();
}

/// Many addresses, each once: what is remembered of them is little, and has an end.
#[test]
fn a_crowd_of_addresses_leaves_little_behind() {
    let gate = Guarded::with(&[
        ("CONNECT_RATE_PER_IP", "1"),
        ("MAX_CONNECTIONS_PER_IP", "2"),
        ("TRUSTED_PROXIES", "127.0.0.9"),
        ("PROXY_PROTOCOL", "true"),
    ]);
    let through = |number: usize| {
        let line = format!("PROXY TCP6 2001:db8:{number:x}::1 2001:db8::99 1 443\r\n");
        Call::get("/health").after(line).from(9)
    };
    let mut before = 0;
    for number in 0..4000 {
        assert_eq!(through(number).answered(gate.address).status, 200);
        if number == 500 {
            before = gate.rss_bytes();
        }
    }
    let grown = gate.rss_bytes().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes");
    gate.end();
}
