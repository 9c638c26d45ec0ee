//! Peers that break RFC 6455: each learns by the close code what it did, and nobody else does.

use crate::{
    site::{Site, config},
    wire::{BINARY, CLOSE, PING, TEXT, Wire, close, frame, raw_frame},
};

/// Sends this on a new connection; it must be closed with the code, in order.
#[track_caller]
fn expelled(site: &Site, bytes: &[u8], code: u16) {
    let mut wire = Wire::open(site.address, "/echo");
    wire.send(bytes);
    wire.expect_close(code);
    wire.expect_end();
}

#[test]
fn each_violation_has_its_close_code() {
    let site = Site::router(config());
    let unmasked = [0x81, 2, b'h', b'i'];
    let minimal = [0x82, 0xfe, 0, 5, 1, 2, 3, 4, 0, 0, 0, 0, 0];
    let bit_63 = [0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4];
    let cases: Vec<(Vec<u8>, u16)> = vec![
        (unmasked.to_vec(), 1002),
        (minimal.to_vec(), 1002),
        (bit_63.to_vec(), 1002),
        (raw_frame(0xc1, b"rsv1"), 1002),
        (raw_frame(0x83, b"reserved"), 1002),
        (raw_frame(0x8b, b"reserved"), 1002),
        (raw_frame(PING, b"fragmented"), 1002),
        (frame(PING, &[0; 126]), 1002),
        (frame(0, b"continues nothing"), 1002),
        ([raw_frame(TEXT, b"a"), frame(TEXT, b"b")].concat(), 1002),
        (frame(CLOSE, &[3]), 1002),
        (close(1005, ""), 1002),
        (close(1006, ""), 1002),
        (close(999, ""), 1002),
        (close(2999, ""), 1002),
        (frame(CLOSE, b"\x03\xe8\xff"), 1007),
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"cut \xe2\x82"), 1007),
        (frame(BINARY, &[0; 65_537]), 1009),
        (
            [raw_frame(BINARY, &[0; 65_536]), frame(0, &[1])].concat(),
            1009,
        ),
    ];
    for (bytes, code) in cases {
        expelled(&site, &bytes, code);
    }
    site.expect_metric(r#"closed_total{code="1002"}"#, 15);
    site.expect_metric(r#"closed_total{code="1007"}"#, 3);
    site.expect_metric(r#"closed_total{code="1009"}"#, 2);
}

#[test]
fn broken_text_is_refused_before_its_message_is_complete() {
    let site = Site::router(config());
    expelled(
        &site,
        &raw_frame(TEXT, b"broken \xc0\xaf and not final"),
        1007,
    );
}

#[test]
fn a_message_too_large_is_refused_at_its_header() {
    let site = Site::router(config());
    let huge = [0x82, 0xff, 0, 0, 0, 0, 1, 0, 0, 0, 1, 2, 3, 4];
    expelled(&site, &huge, 1009);
    assert_eq!(site.metric("buffer_bytes"), 0);
}

/// The replies to what came before the violation, in the same segment, come before the Close;
/// a large one too, which is sent from where it was received.
#[test]
fn what_came_before_a_violation_is_answered_first() {
    let site = Site::router(config());
    for size in [5, 5000, 60_000] {
        let mut wire = Wire::open(site.address, "/echo");
        let message = frame(BINARY, &vec![8; size]);
        wire.send([message, frame(TEXT, b"\xff")].concat());
        assert_eq!(wire.frame().payload, vec![8; size]);
        wire.expect_close(1007);
        wire.expect_end();
    }
    let mut wire = Wire::open(site.address, "/echo");
    let two = [frame(BINARY, &[1; 5000]), frame(TEXT, &[b'2'; 9000])].concat();
    wire.send([two, raw_frame(0xf1, b"")].concat());
    assert_eq!(wire.frame().payload, [1; 5000]);
    assert_eq!(wire.frame().payload, [b'2'; 9000]);
    wire.expect_close(1002);
}

#[test]
fn a_peer_that_keeps_sending_after_its_violation_sees_the_close_and_a_fin() {
    let site = Site::router(config());
    for _ in 0..20 {
        let mut wire = Wire::open(site.address, "/echo");
        wire.send(frame(TEXT, b"\xff"));
        for _ in 0..12 {
            wire.send(frame(BINARY, &[0; 16_000]));
        }
        wire.finish();
        wire.expect_close(1007);
        wire.expect_end();
    }
}

#[test]
fn the_close_handshake_returns_the_code_and_ends_in_order() {
    let site = Site::router(config());
    for code in [1000, 1001, 1003, 1011, 3000, 4999] {
        Wire::open(site.address, "/echo").close(code);
    }
    let mut wire = Wire::open(site.address, "/echo");
    wire.send(frame(CLOSE, b""));
    let answer = wire.frame();
    assert_eq!((answer.opcode, answer.payload.len()), (CLOSE, 0));
    wire.expect_end();
    site.expect_metric(r#"closed_total{code="1005"}"#, 1);
    site.expect_metric(r#"closed_total{code="1000"}"#, 1);
    site.expect_metric(r#"closed_total{code="other"}"#, 1);
}

#[test]
fn a_close_behind_a_message_in_one_segment_comes_after_its_echo() {
    let site = Site::router(config());
    for size in [3, 6000] {
        let mut wire = Wire::open(site.address, "/echo");
        wire.send([frame(BINARY, &vec![5; size]), close(1000, "done")].concat());
        assert_eq!(wire.frame().payload, vec![5; size]);
        wire.expect_close(1000);
        wire.expect_end();
    }
}

#[test]
fn one_peer_s_violation_disturbs_nobody() {
    let site = Site::router(config());
    let mut good = Wire::open(site.address, "/echo");
    for round in 0..20 {
        let mut bad = Wire::open(site.address, "/echo");
        bad.send(frame(TEXT, b"\xff"));
        let text = format!("round {round}");
        good.text(&text);
        good.expect_text(&text);
        bad.expect_close(1007);
    }
}
