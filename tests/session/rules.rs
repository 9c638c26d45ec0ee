//! Each rule of RFC 6455 about frames, and the close code that breaking it earns.

use tidemill::protocol::{CloseCode, Event, Input, ProtocolError, Role, Session};

use super::{MASK, Said, code_of, drive, frame, masked, rules, server_says};

const MIB: usize = 1 << 20;

fn refused(bytes: &[u8], error: ProtocolError, code: CloseCode) {
    let said = server_says(bytes, MIB);
    assert_eq!(said, [Said::Wrong(error)], "{bytes:02x?}");
    assert_eq!(code_of(&said[0]), Some(code));
}

#[test]
fn frames_that_may_not_be_are_1002() {
    use ProtocolError::*;
    for reserved in [0x40, 0x20, 0x10] {
        refused(
            &masked(0x81 | reserved, b"x"),
            ReservedBit,
            CloseCode::Protocol,
        );
        refused(
            &masked(0x89 | reserved, b"x"),
            ReservedBit,
            CloseCode::Protocol,
        );
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        refused(
            &masked(0x80 | opcode, b"x"),
            ReservedOpcode,
            CloseCode::Protocol,
        );
        // Known from the first byte: nobody waits for the second.
        refused(&[0x80 | opcode], ReservedOpcode, CloseCode::Protocol);
    }
    for opcode in [8, 9, 10] {
        refused(&masked(opcode, b""), FragmentedControl, CloseCode::Protocol);
        refused(
            &masked(0x80 | opcode, &[b'x'; 126]),
            ControlTooLong,
            CloseCode::Protocol,
        );
    }
    refused(&frame(0x81, b"hello", None), Unmasked, CloseCode::Protocol);
    refused(
        &masked(0x80, b"x"),
        UnexpectedContinuation,
        CloseCode::Protocol,
    );
    refused(
        &masked(0x00, b"x"),
        UnexpectedContinuation,
        CloseCode::Protocol,
    );
    let interleaved = [masked(0x01, b"a"), masked(0x81, b"b")].concat();
    refused(&interleaved, ExpectedContinuation, CloseCode::Protocol);
}

#[test]
fn lengths_are_minimal_and_the_top_bit_is_zero() {
    for header in [
        &[0x82, 0xfe, 0, 125][..],
        &[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
        &[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1],
    ] {
        let bytes = [header, &MASK].concat();
        refused(&bytes, ProtocolError::MalformedLength, CloseCode::Protocol);
    }
}

#[test]
fn a_client_refuses_masked_frames_and_takes_unmasked_ones() {
    let rules = rules(Role::Client, MIB);
    let say = |bytes: &[u8]| drive(&mut Session::new(), &rules, bytes, || usize::MAX, false);
    assert_eq!(
        say(&masked(0x81, b"hi")),
        [Said::Wrong(ProtocolError::Masked)]
    );
    assert_eq!(
        say(&frame(0x81, b"hi", None)),
        [Said::Text("hi".to_owned())]
    );
}

#[test]
fn control_frames_come_between_fragments() {
    let bytes = [
        masked(0x01, b"hel"),
        masked(0x89, b"ping"),
        masked(0x00, b"l"),
        masked(0x8a, b""),
        masked(0x80, b"o"),
    ]
    .concat();
    let expected = [
        Said::Ping(b"ping".to_vec()),
        Said::Pong(Vec::new()),
        Said::Text("hello".to_owned()),
    ];
    assert_eq!(server_says(&bytes, MIB), expected);
}

#[test]
fn the_limit_is_inclusive_and_counts_all_fragments() {
    let whole = masked(0x82, &[7; 100]);
    assert_eq!(server_says(&whole, 100), [Said::Binary(vec![7; 100])]);
    assert_eq!(
        server_says(&whole, 99),
        [Said::Wrong(ProtocolError::MessageTooBig)]
    );
    let halves = [masked(0x02, &[7; 60]), masked(0x80, &[7; 40])].concat();
    assert_eq!(server_says(&halves, 100), [Said::Binary(vec![7; 100])]);
    assert_eq!(
        server_says(&halves, 99),
        [Said::Wrong(ProtocolError::MessageTooBig)]
    );
    assert_eq!(ProtocolError::MessageTooBig.close_code(), CloseCode::Size);
}

#[test]
fn an_announcement_costs_nothing_until_the_bytes_come() {
    let rules = rules(Role::Server, 16 * MIB);
    let mut session = Session::new();
    let header = [&[0x82, 0xff][..], &(16 * MIB as u64).to_be_bytes(), &MASK].concat();
    assert_eq!(
        drive(&mut session, &rules, &header, || usize::MAX, false),
        []
    );
    assert!(
        session.buffered_bytes() < 300,
        "{}",
        session.buffered_bytes()
    );
    // Once it goes on, what is reserved stays in proportion to what came.
    let (message, missing) = session.direct().unwrap();
    assert_eq!(missing, 16 * MIB);
    assert!(message.capacity() <= 64 * 1024);
}

#[test]
fn memory_is_given_back_with_the_message() {
    let rules = rules(Role::Server, MIB);
    let mut session = Session::new();
    let bytes = masked(0x82, &vec![7; MIB]);
    let said = drive(&mut session, &rules, &bytes, || 10_000, true);
    assert_eq!(said, [Said::Binary(vec![7; MIB])]);
    assert_eq!(session.buffered_bytes(), 0);
    assert!(!session.is_mid_message());
}

#[test]
fn bad_text_is_refused_at_its_first_bad_byte() {
    let rules = rules(Role::Server, MIB);
    // One long frame: the bad byte is at 1,000, and nobody waits for the other 99,000.
    let mut text = vec![b'a'; 100_000];
    text[1000] = 0xff;
    for direct in [false, true] {
        let bytes = &masked(0x81, &text)[..2000];
        let said = drive(&mut Session::new(), &rules, bytes, || 500, direct);
        assert_eq!(said, [Said::Wrong(ProtocolError::InvalidUtf8)]);
    }
    // A character may be cut by the end of a fragment, a wrong one may not wait for the next.
    let halves = |a: &[u8], b: &[u8]| [masked(0x01, a), masked(0x80, b)].concat();
    assert_eq!(
        server_says(&halves(b"\xc3", b"\xa9"), MIB),
        [Said::Text("é".to_owned())]
    );
    let early = masked(0x01, b"\xed\xa0");
    assert_eq!(
        server_says(&early, MIB),
        [Said::Wrong(ProtocolError::InvalidUtf8)]
    );
    let cut_off = masked(0x81, b"\xe2\x82");
    assert_eq!(
        server_says(&cut_off, MIB),
        [Said::Wrong(ProtocolError::InvalidUtf8)]
    );
    assert_eq!(ProtocolError::InvalidUtf8.close_code(), CloseCode::Invalid);
}

#[test]
fn a_text_only_session_refuses_binary_at_its_header() {
    let rules = rules(Role::Server, MIB);
    let mut session = Session::new().text_only();
    let said = drive(
        &mut session,
        &rules,
        &masked(0x81, b"ok"),
        || usize::MAX,
        false,
    );
    assert_eq!(said, [Said::Text("ok".to_owned())]);
    let header = &masked(0x82, &[0; 1000])[..8];
    let said = drive(&mut session, &rules, header, || usize::MAX, false);
    assert_eq!(said, [Said::Wrong(ProtocolError::BinaryUnsupported)]);
    assert_eq!(code_of(&said[0]), Some(CloseCode::Unsupported));
}

#[test]
fn a_message_under_way_keeps_the_time_it_began() {
    let rules = rules(Role::Server, MIB);
    let mut session = Session::new();
    assert_eq!(session.message_since(7), None);
    drive(
        &mut session,
        &rules,
        &masked(0x01, b"a"),
        || usize::MAX,
        false,
    );
    assert_eq!(session.message_since(8), Some(8));
    drive(
        &mut session,
        &rules,
        &masked(0x00, b"b"),
        || usize::MAX,
        false,
    );
    assert_eq!(session.message_since(9), Some(8));
    drive(
        &mut session,
        &rules,
        &masked(0x80, b"c"),
        || usize::MAX,
        false,
    );
    assert_eq!(session.message_since(10), None);
}

#[test]
fn a_whole_message_is_lent_from_where_it_was_received() {
    let rules = rules(Role::Server, MIB);
    let mut bytes = masked(0x82, &[9; 5000]);
    let region = bytes.as_ptr_range();
    let mut input = Input::new(&mut bytes);
    match Session::new().next(&mut input, &rules) {
        Ok(Some(Event::Message(message))) => {
            assert!(region.contains(&message.as_bytes().as_ptr()), "copied");
            assert_eq!(message.as_bytes(), [9; 5000]);
        }
        other => panic!("{other:?}"),
    }
}
