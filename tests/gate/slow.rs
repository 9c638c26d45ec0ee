//! Peers that never get anywhere: heads, hellos and messages a byte at a time, and a crowd of them
//! while others work.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::{
    call::{Answer, Call, is_ended, trickle, until_end},
    client::Client,
    guarded::Guarded,
    outside::{PATIENCE, peer::frame, wait_until},
    socket::{BINARY, PING},
};

const STEP: Duration = Duration::from_millis(100);

/// The whole request would take ten seconds and more: it is the first moment that counts.
#[test]
fn a_head_a_byte_at_a_time_ends_at_the_deadline() {
    let gate = Guarded::with(&[("HANDSHAKE_TIMEOUT", "1s")]);
    let mut stream = Call::echo().connect(gate.address);
    let took = trickle(&mut stream, &Call::echo().bytes(), STEP);
    assert!(took >= Duration::from_millis(900), "{took:?}");
    let answer = Answer::receive(&mut stream).unwrap();
    assert_eq!(answer.status, 408);
    answer.check_refusal();
    assert_eq!(gate.refused("handshake_timeout"), 1);
    gate.settles("timeouts_total{kind=\"handshake\"}", 1.0);
    assert!(gate.metric("connections_total") < 0.5);
    gate.end();
}

#[test]
fn a_hello_of_tls_a_byte_at_a_time_ends_at_the_deadline() {
    let gate = Guarded::with(&[("HANDSHAKE_TIMEOUT", "1s")]);
    let name = "localhost".try_into().unwrap();
    let mut tls = rustls::ClientConnection::new(gate.config().into(), name).unwrap();
    let mut hello = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut hello).unwrap();
    }
    let mut stream = Call::echo().connect(gate.secure());
    let took = trickle(&mut stream, &hello, STEP);
    assert!(took >= Duration::from_millis(900), "{took:?}");
    until_end(&mut stream);
    gate.end();
}

/// Neither part of it alone is slow.
#[test]
fn tls_and_the_head_have_one_deadline_together() {
    let gate = Guarded::with(&[("HANDSHAKE_TIMEOUT", "2s")]);
    let stream = Call::echo().connect(gate.secure());
    let began = Instant::now();
    std::thread::park_timeout(Duration::from_millis(1200));
    let client = Client::over(stream, gate.config(), "localhost");
    let Ok(mut client) = client else {
        // The machine was so busy that the first part took all of it.
        assert!(began.elapsed() >= Duration::from_millis(1900));
        return;
    };
    // The whole head would take more than ten seconds.
    let timed_out = || gate.metric("timeouts_total{kind=\"handshake\"}") > 0.5;
    let bytes = Call::echo().bytes();
    let taken = bytes.iter().take_while(|byte| {
        std::thread::park_timeout(STEP);
        let sent = client.write_all(&[**byte]).and_then(|()| client.flush());
        sent.is_ok() && !timed_out()
    });
    assert!(taken.count() < bytes.len(), "the whole head was taken");
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(1900), "{took:?}");
    gate.settles("timeouts_total{kind=\"handshake\"}", 1.0);
    gate.end();
}

/// An answer does not begin the time anew for ever: whoever says nothing afterwards goes, too.
#[test]
fn silence_ends_at_the_deadline_wherever_it_comes() {
    let gate = Guarded::with(&[("HANDSHAKE_TIMEOUT", "1s")]);
    let mut silent: Vec<TcpStream> = (0..3).map(|_| Call::echo().connect(gate.address)).collect();
    silent[1].write_all(b"GET ").unwrap();
    silent[2].write_all(&Call::get("/health").bytes()).unwrap();
    assert_eq!(Answer::receive(&mut silent[2]).unwrap().status, 200);
    for stream in &mut silent {
        until_end(stream);
    }
    gate.settles("reactor_connections", 1.0);
    gate.end();
}

#[test]
fn a_message_a_byte_at_a_time_ends_at_its_deadline() {
    let gate = Guarded::with(&[("MESSAGE_TIMEOUT", "1s")]);
    let whole = frame(BINARY, &[b'x'; 120]);
    let mut piece = frame(0, b"x");
    piece[0] &= 0x7f;
    let mut first = frame(BINARY, b"x");
    first[0] &= 0x7f;
    let fragments = [first, piece.repeat(40)].concat();
    for bytes in [whole, fragments] {
        let mut caller = Call::echo().open(gate.address);
        let took = trickle(&mut caller.0, &bytes, STEP);
        assert!(took >= Duration::from_millis(900), "{took:?}");
        assert_eq!(caller.expect_close(1008), "message timeout");
    }
    gate.settles("timeouts_total{kind=\"message\"}", 2.0);
    gate.end();
}

/// A ping between the pieces shows life, and does not make the message any faster.
#[test]
fn pings_do_not_lengthen_a_message() {
    let gate = Guarded::with(&[("MESSAGE_TIMEOUT", "1s")]);
    let mut caller = Call::echo().open(gate.address);
    let began = Instant::now();
    let mut first = frame(BINARY, b"x");
    first[0] &= 0x7f;
    caller.0.write_all(&first).unwrap();
    loop {
        assert!(began.elapsed() < PATIENCE, "it goes on");
        caller.0.write_all(&frame(PING, b"alive")).unwrap();
        let mut piece = frame(0, b"x");
        piece[0] &= 0x7f;
        caller.0.write_all(&piece).unwrap();
        let (opcode, payload) = crate::socket::receive(&mut caller.0).unwrap();
        if opcode == crate::socket::CLOSE {
            assert_eq!(payload[2..], *b"message timeout");
            break;
        }
        assert_eq!((opcode, &*payload), (10, &b"alive"[..]));
        std::thread::park_timeout(STEP);
    }
    assert!(began.elapsed() >= Duration::from_millis(900));
    gate.end();
}

/// Half a thousand of them are held while a few work; then they go, and nothing is left.
#[test]
fn a_crowd_that_gets_nowhere_is_in_nobodys_way() {
    let gate = Guarded::with(&[("HANDSHAKE_TIMEOUT", "5s"), ("REACTORS", "2")]);
    let mut working: Vec<_> = (0..8)
        .map(|at| Call::echo().from(60 + at).open(gate.address))
        .collect();
    let mut crowd: Vec<TcpStream> = (0..500)
        .map(|number| {
            let call = Call::echo().from(10 + (number % 40) as u8);
            let to_tls = number % 5 == 4;
            let mut stream = call.connect(if to_tls { gate.secure() } else { gate.address });
            let bytes = match number % 5 {
                0 => Vec::new(),
                1 => b"G".to_vec(),
                2 => call.bytes()[..80].to_vec(),
                3 => b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nslow".to_vec(),
                _ => vec![22, 3, 1, 2, 0],
            };
            stream.write_all(&bytes).unwrap();
            stream
        })
        .collect();
    for number in 0..30_u32 {
        for caller in &mut working {
            caller.echo(&number.to_be_bytes());
        }
    }
    Call::echo().open(gate.address).close();
    assert_eq!(Call::get("/health").answered(gate.address).status, 200);
    // Those that were answered with 408 are ended after it.
    for stream in &mut crowd {
        until_end(stream);
    }
    wait_until(
        PATIENCE,
        || crowd.iter().filter(|stream| is_ended(stream)).count(),
        |ended| *ended == crowd.len(),
    );
    drop(crowd);
    for caller in &mut working {
        caller.echo(b"undisturbed");
    }
    gate.settles("connections", 8.0);
    gate.holds(8);
    gate.end();
}

/// A reader that never reads is closed when too much waits for it, and the others read on.
#[test]
fn a_peer_that_never_reads_is_closed_at_the_hard_mark() {
    let gate = Guarded::with(&[
        ("MAX_OUTBOX_BYTES", "256KiB"),
        ("MAX_MESSAGE_BYTES", "64KiB"),
    ]);
    let mut deaf = Call::echo().open(gate.address);
    deaf.0
        .set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let message = frame(PING, &[7; 125]).repeat(400);
    let mut bystander = Call::echo().from(6).open(gate.address);
    let began = Instant::now();
    // It is not listened to either, sooner or later: both are fine, growing is not.
    let before = gate.rss_bytes();
    while began.elapsed() < Duration::from_secs(5) && deaf.0.write_all(&message).is_ok() {}
    bystander.echo(b"undisturbed");
    assert!(gate.rss_bytes().saturating_sub(before) < 16 << 20);
    drop(deaf.0.set_read_timeout(Some(Duration::from_millis(1))));
    let _ = deaf.0.read(&mut [0; 1024]);
    drop(deaf);
    gate.settles("connections", 1.0);
    gate.end();
}
