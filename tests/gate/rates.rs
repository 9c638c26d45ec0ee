//! How much one connection may say: whoever says more waits, and loses nothing; or goes.
//!
//! Times are held to their lower bounds, which no slow machine can break.

use std::{
    io::{self, Write},
    thread,
    time::{Duration, Instant},
};

use crate::{
    call::{Call, Caller},
    guarded::Guarded,
    outside::{PATIENCE, peer::frame},
    socket::{BINARY, CLOSE, PING, TEXT, noise},
};

const PONG: u8 = 10;

/// So much less may it take than the arithmetic says: a tick at either end, and the burst's own.
const SLACK: f64 = 0.5;

fn with(options: &[(&str, &str)]) -> (Guarded, Caller) {
    let gate = Guarded::with(options);
    let caller = Call::echo().open(gate.address);
    (gate, caller)
}

/// Sends these messages at once, receives them all back in order; gives the seconds it took.
#[track_caller]
fn send_all(caller: &mut Caller, messages: &[Vec<u8>]) -> f64 {
    let began = Instant::now();
    let mut writer = caller.0.try_clone().unwrap();
    let frames: Vec<u8> = messages
        .iter()
        .flat_map(|message| frame(BINARY, message))
        .collect();
    thread::scope(|scope| {
        scope.spawn(move || writer.write_all(&frames).unwrap());
        for message in messages {
            caller.expect(message);
        }
    });
    began.elapsed().as_secs_f64()
}

fn numbered(count: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|number| format!("message {number}").into_bytes())
        .collect()
}

#[track_caller]
fn expect_limited(gate: &Guarded) {
    let limited = gate.metric("rate_limited_total");
    assert!(limited > 0.5, "{limited}");
}

#[test]
fn too_many_messages_wait_and_none_is_lost() {
    let (gate, mut caller) = with(&[("RATE_MESSAGES", "20")]);
    let mut bystander = Call::echo().from(6).open(gate.address);
    let others = thread::spawn(move || {
        for number in 0..15 {
            bystander.echo(format!("undisturbed {number}").as_bytes());
        }
        Instant::now()
    });
    let took = send_all(&mut caller, &numbered(100));
    let ended = Instant::now();
    // A second's worth at once, the rest at its rate.
    assert!(took >= 80.0 / 20.0 - SLACK, "{took}");
    assert!(others.join().unwrap() < ended, "somebody else had to wait");
    expect_limited(&gate);
    caller.close();
    gate.end();
}

#[test]
fn too_many_bytes_wait_and_none_is_lost() {
    let (gate, mut caller) = with(&[("RATE_BYTES", "64KiB")]);
    let messages: Vec<_> = (1..7).map(|seed| noise(seed, 60_000)).collect();
    let took = send_all(&mut caller, &messages);
    // The last may be paid for afterwards, and the first second is saved up.
    let least = (5.0 * 60_000.0 - 65_536.0) / 65_536.0 - SLACK;
    assert!(took >= least, "{took} where {least}");
    expect_limited(&gate);
    caller.close();
    gate.end();
}

/// The largest message that may be sent is more than a second brings: it gets through all the
/// same, and whoever sent it pays afterwards.
#[test]
fn a_message_larger_than_the_rate_gets_through() {
    let (gate, mut caller) = with(&[("RATE_BYTES", "20000"), ("RATE_BURST", "100ms")]);
    let large = noise(7, 65_000);
    let took = send_all(&mut caller, &[large.clone(), large]);
    assert!(took >= 65_000.0 / 20_000.0 - SLACK, "{took}");
    caller.close();
    gate.end();
}

#[test]
fn whoever_says_too_much_goes_where_that_is_the_policy() {
    for (options, count, size) in [
        (
            &[("RATE_MESSAGES", "20"), ("RATE_POLICY", "close")],
            200,
            10,
        ),
        (
            &[("RATE_BYTES", "64KiB"), ("RATE_POLICY", "close")],
            20,
            60_000,
        ),
    ] {
        let (gate, mut caller) = with(options);
        let mut bystander = Call::echo().from(6).open(gate.address);
        let mut writer = caller.0.try_clone().unwrap();
        thread::spawn(move || {
            for _ in 0..count {
                if writer.write_all(&frame(BINARY, &vec![b'x'; size])).is_err() {
                    return;
                }
            }
        });
        let mut echoed = 0;
        let reason = loop {
            let (opcode, payload) = caller.receive().unwrap();
            if opcode == CLOSE {
                assert_eq!(payload[..2], 1008_u16.to_be_bytes());
                break String::from_utf8(payload[2..].to_vec()).unwrap();
            }
            echoed += 1;
        };
        assert_eq!(reason, "rate limit");
        // What was within the rate has been heard.
        assert!(echoed >= 1 && echoed < count, "{echoed}");
        bystander.echo(b"undisturbed");
        expect_limited(&gate);
        assert!(gate.metric("closed_total{code=\"1008\"}") >= 1.0);
        gate.end();
    }
}

/// Pings cost an answer each, so they count as messages do; and pongs that nobody asked for.
#[test]
fn control_frames_count() {
    for opcode in [PING, PONG] {
        let (gate, mut caller) = with(&[("RATE_MESSAGES", "20")]);
        let began = Instant::now();
        let mut flood: Vec<u8> = (0..100).flat_map(|_| frame(opcode, b"flood")).collect();
        flood.extend(frame(BINARY, b"the end"));
        caller.0.write_all(&flood).unwrap();
        while caller.receive().unwrap() != (BINARY, b"the end".to_vec()) {}
        let took = began.elapsed().as_secs_f64();
        assert!(took >= 80.0 / 20.0 - SLACK, "{opcode}: {took}");
        caller.close();
        gate.end();
        let (gate, mut caller) = with(&[("RATE_MESSAGES", "20"), ("RATE_POLICY", "close")]);
        caller.0.write_all(&flood).unwrap();
        assert_eq!(caller.expect_close(1008), "rate limit");
        gate.end();
    }
}

/// Pieces of a message cost work as whole ones do, and empty ones bring no bytes that count.
#[test]
fn a_message_in_countless_empty_pieces_is_not_for_nothing() {
    let (gate, mut caller) = with(&[("RATE_BYTES", "2000"), ("RATE_POLICY", "close")]);
    let mut pieces = frame(BINARY, b"");
    pieces[0] &= 0x7f;
    let mut piece = frame(0, b"");
    piece[0] &= 0x7f;
    for _ in 0..20_000 {
        pieces.extend_from_slice(&piece);
    }
    let mut writer = caller.0.try_clone().unwrap();
    thread::spawn(move || writer.write_all(&pieces));
    assert_eq!(caller.expect_close(1008), "rate limit");
    gate.end();
}

#[test]
fn over_tls_too_much_waits_as_well() {
    let gate = Guarded::with(&[("RATE_MESSAGES", "20")]);
    let mut client = gate.open();
    let mut bystander = gate.open();
    let messages = numbered(80);
    let began = Instant::now();
    for message in &messages {
        client.send(BINARY, message);
    }
    for number in 0..15 {
        bystander.echo(format!("undisturbed {number}").as_bytes());
    }
    for message in &messages {
        assert_eq!(client.receive().unwrap(), (BINARY, message.clone()));
    }
    let took = began.elapsed().as_secs_f64();
    assert!(took >= 60.0 / 20.0 - SLACK, "{took}");
    client.close();
    bystander.close();
    gate.end();

    let gate = Guarded::with(&[("RATE_BYTES", "64KiB")]);
    let mut client = gate.open();
    let messages: Vec<_> = (1..5).map(|seed| noise(seed, 60_000)).collect();
    let began = Instant::now();
    // Records of several sizes, so that some are cut where it has to wait.
    let all: Vec<u8> = messages
        .iter()
        .flat_map(|message| frame(BINARY, message))
        .collect();
    for piece in [&all[..1000], &all[1000..]] {
        client.write_all(piece).unwrap();
    }
    for message in &messages {
        assert!(client.receive().unwrap() == (BINARY, message.clone()));
    }
    let took = began.elapsed().as_secs_f64();
    assert!(
        took >= (3.0 * 60_000.0 - 65_536.0) / 65_536.0 - SLACK,
        "{took}"
    );
    client.close();
    gate.end();

    let gate = Guarded::with(&[("RATE_MESSAGES", "20"), ("RATE_POLICY", "close")]);
    let mut client = gate.open();
    for message in numbered(100) {
        client.send(BINARY, &message);
    }
    let reason = loop {
        let (opcode, payload) = client.receive().unwrap();
        if opcode == CLOSE {
            break payload;
        }
    };
    assert_eq!(
        reason,
        [&1008_u16.to_be_bytes()[..], b"rate limit"].concat()
    );
    gate.end();
}

/// While it is not listened to, a peer cannot show that it is alive; that is not its fault.
#[test]
fn who_has_to_wait_is_not_taken_for_dead() {
    let (gate, mut caller) = with(&[
        ("RATE_MESSAGES", "20"),
        ("PING_INTERVAL", "1s"),
        ("PONG_TIMEOUT", "1s"),
    ]);
    // Pings of the server are answered behind what waits.
    let messages = numbered(150);
    let all: Vec<u8> = messages
        .iter()
        .flat_map(|message| frame(BINARY, message))
        .collect();
    caller.0.write_all(&all).unwrap();
    let mut pings = 0;
    let mut expected = messages.iter();
    while expected.len() > 0 {
        match caller.receive().unwrap() {
            (PING, payload) => {
                pings += 1;
                caller.send(PONG, &payload);
            }
            (BINARY, payload) => assert_eq!(payload, *expected.next().unwrap()),
            other => panic!("{other:?} after {pings} pings"),
        }
    }
    gate.end();
}

#[test]
fn who_has_to_wait_is_neither_idle_nor_slow() {
    let (gate, mut caller) = with(&[
        ("RATE_BYTES", "16KiB"),
        ("IDLE_TIMEOUT", "2s"),
        ("MESSAGE_TIMEOUT", "2s"),
    ]);
    // Each of them takes longer than that to be paid for.
    let messages: Vec<_> = (1..4).map(|seed| noise(seed, 60_000)).collect();
    let took = send_all(&mut caller, &messages);
    assert!(
        took >= (2.0 * 60_000.0 - 16_384.0) / 16_384.0 - SLACK,
        "{took}"
    );
    caller.close();
    gate.end();
}

/// A peer that goes while it has to wait is heard to the end: its messages, then its Close.
#[test]
fn who_says_goodbye_while_waiting_is_heard_to_the_end() {
    let (gate, mut caller) = with(&[("RATE_MESSAGES", "20")]);
    let messages = numbered(80);
    let mut all: Vec<u8> = messages
        .iter()
        .flat_map(|message| frame(BINARY, message))
        .collect();
    all.extend(crate::socket::close(1000));
    caller.0.write_all(&all).unwrap();
    crate::call::finish(&caller.0);
    for message in &messages {
        caller.expect(message);
    }
    assert_eq!(caller.expect_close(1000), "");
    gate.end();
}

/// Nothing is left behind of one who is torn away while it waits.
#[test]
fn who_is_torn_away_while_waiting_leaves_nothing() {
    let (gate, mut caller) = with(&[("RATE_MESSAGES", "2")]);
    let all: Vec<u8> = numbered(200)
        .iter()
        .flat_map(|message| frame(BINARY, message))
        .collect();
    caller.0.write_all(&all).unwrap();
    caller.expect(b"message 0");
    crate::client::reset(caller.0);
    gate.settles("connections", 0.0);
    gate.end();

    // Nor does the next one, in the same place, pay for what the last one has sent.
    let gate = Guarded::with(&[
        ("RATE_MESSAGES", "2"),
        ("RATE_POLICY", "close"),
        ("REACTORS", "1"),
    ]);
    for _ in 0..20 {
        let mut caller = Call::echo().open(gate.address);
        caller.echo(b"within the rate");
        // It may be torn away before all of it is sent.
        let _ = caller.0.write_all(&all);
        assert_eq!(caller.expect_close(1008), "rate limit");
        crate::client::reset(caller.0);
        gate.settles("connections", 0.0);
    }
    gate.end();
}

/// Who waits for its rate does not hold up the end of the server, and is told of it.
#[test]
fn who_has_to_wait_learns_that_the_server_ends() {
    let (gate, mut caller) = with(&[("RATE_MESSAGES", "1"), ("DRAIN_TIME", "0s")]);
    let all: Vec<u8> = numbered(300)
        .iter()
        .flat_map(|message| frame(BINARY, message))
        .collect();
    caller.0.write_all(&all).unwrap();
    caller.expect(b"message 0");
    gate.signal("TERM");
    caller.expect_close(1001);
    drop(caller);
    gate.end_by_itself();
}

/// Nor does it keep whoever has no right any more.
#[test]
fn who_has_to_wait_is_revoked_all_the_same() {
    let (secret, key) = (crate::jwt::SECRET, "the-key-of-the-api");
    let options = [
        ("RATE_MESSAGES", "1"),
        ("TOKEN_SECRET", secret),
        ("API_KEY", key),
    ];
    let gate = Guarded::with(&options);
    let token = crate::jwt::Key::hmac(secret).sign(&crate::jwt::claims("anna"));
    let mut caller = Call::echo().bearer(&token).open(gate.address);
    let all: Vec<u8> = numbered(300)
        .iter()
        .flat_map(|message| frame(BINARY, message))
        .collect();
    caller.0.write_all(&all).unwrap();
    caller.expect(b"message 0");
    let revoke = Call::post("/api/revoke", "{\"sub\":\"anna\"}").header("X-API-Key", key);
    assert_eq!(revoke.answered(gate.address).status, 200);
    assert_eq!(caller.expect_close(1008), "token revoked");
    gate.end();
}

/// What the server does not read stays where it came from: neither it nor its memory takes it.
#[test]
fn a_flood_is_held_back_by_the_kernel() {
    let (gate, caller) = with(&[("RATE_BYTES", "64KiB"), ("MAX_MESSAGE_BYTES", "64KiB")]);
    let before = gate.rss_bytes();
    let message = frame(BINARY, &noise(3, 60_000));
    let mut writer = caller.0.try_clone().unwrap();
    let mut reader = caller;
    let reading = thread::spawn(move || while reader.receive().is_ok() {});
    writer
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let mut sent: u64 = 0;
    let stuck = loop {
        match writer.write(&message) {
            Ok(count) => sent += count as u64,
            Err(error) => break error,
        }
        assert!(sent < 64 << 20, "it takes everything");
    };
    assert_eq!(stuck.kind(), io::ErrorKind::WouldBlock);
    let grown = gate.rss_bytes().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes for {sent} that were sent");
    drop(writer.shutdown(std::net::Shutdown::Both));
    reading.join().unwrap();
    gate.end();
}

#[test]
fn who_keeps_to_the_rate_is_never_stopped() {
    for policy in ["pause", "close"] {
        let options = [
            ("RATE_MESSAGES", "100"),
            ("RATE_BYTES", "64KiB"),
            ("RATE_POLICY", policy),
        ];
        let (gate, mut caller) = with(&options);
        for number in 0_u32..60 {
            caller.echo(&number.to_be_bytes());
            thread::park_timeout(Duration::from_millis(20));
        }
        assert!(gate.metric("rate_limited_total") < 0.5);
        caller.close();
        gate.end();
    }
}

#[test]
fn so_much_may_be_saved_up_and_no_more() {
    let close = ("RATE_POLICY", "close");
    // Ten seconds' worth at once is a burst that was allowed.
    let options = [("RATE_MESSAGES", "10"), ("RATE_BURST", "10s"), close];
    let (gate, mut caller) = with(&options);
    send_all(&mut caller, &numbered(90));
    assert!(gate.metric("rate_limited_total") < 0.5);
    gate.end();
    // A second of silence saves no more than the burst.
    let options = [("RATE_MESSAGES", "10"), ("RATE_BURST", "500ms")];
    let (gate, mut caller) = with(&options);
    caller.expect_silence(Duration::from_secs(3));
    let took = send_all(&mut caller, &numbered(30));
    assert!(took >= (30.0 - 5.0) / 10.0 - SLACK, "{took}");
    gate.end();
}

#[test]
fn each_connection_has_a_rate_of_its_own() {
    let gate = Guarded::with(&[("RATE_MESSAGES", "20"), ("REACTORS", "2")]);
    let began = Instant::now();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|number| {
                let gate = &gate;
                scope.spawn(move || {
                    let mut caller = Call::echo().from(20 + number).open(gate.address);
                    let took = send_all(&mut caller, &numbered(60));
                    assert!(took >= 2.0 - SLACK, "{took}");
                    caller.close();
                })
            })
            .collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    });
    // One after the other would have been sixteen seconds at least, and one bucket for all 24.
    assert!(began.elapsed() < PATIENCE);
    gate.end();
}

/// The other dialect, and text.
#[test]
fn the_rate_is_the_same_whatever_is_spoken() {
    let gate = Guarded::with(&[("RATE_MESSAGES", "20")]);
    let mut caller = Call::to("/ws").open(gate.address);
    let (opcode, welcome) = caller.receive().unwrap();
    assert_eq!(opcode, TEXT);
    assert!(welcome.starts_with(b"{\"event\":\"connected\""));
    let began = Instant::now();
    for _ in 0..80 {
        caller.send(TEXT, b"text");
    }
    for _ in 0..80 {
        assert_eq!(caller.receive().unwrap(), (TEXT, b"text".to_vec()));
    }
    let took = began.elapsed().as_secs_f64();
    assert!(took >= 60.0 / 20.0 - SLACK, "{took}");
    gate.end();
}

#[test]
fn a_rate_that_makes_no_sense_is_refused_at_start() {
    for options in [
        &[("RATE_BURST", "50ms"), ("RATE_MESSAGES", "10")][..],
        &[("RATE_BURST", "2m"), ("RATE_MESSAGES", "10")],
        &[("RATE_POLICY", "drop"), ("RATE_MESSAGES", "10")],
        &[("RATE_MESSAGES", "-1")],
        &[("RATE_BYTES", "many")],
        &[("MAX_CONNECTIONS_PER_IP", "-1")],
        &[("CONNECT_RATE_PER_IP", "1.5")],
    ] {
        let setup = crate::guarded::set(crate::server::Setup::new(), options);
        let output = setup.finish(&["check"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{options:?}: {told}");
        assert!(
            told.contains(&format!("TIDEMILL_{}", options[0].0)),
            "{told}"
        );
    }
}
