//! Any script of frames means the same however its bytes were cut, and no bytes at all do harm.

use proptest::prelude::*;
use tidemill::protocol::{Role, Session};

use super::{Said, close_body, drive, masked, rules};

/// One step of a conversation, as the frames that it takes.
#[derive(Clone, Debug)]
enum Step {
    Message {
        text: bool,
        payload: Vec<u8>,
        fragments: Vec<usize>,
        ping_between: bool,
    },
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let sizes = prop_oneof![4 => 0usize..40, 2 => 100usize..200, 1 => 4000usize..70_000];
    let message = (
        any::<bool>(),
        sizes,
        any::<u8>(),
        prop::collection::vec(0usize..5000, 0..4),
    );
    let message = (message, any::<bool>()).prop_map(|((text, size, salt, fragments), between)| {
        let letters = "aé€😀".chars().cycle().skip(usize::from(salt % 4));
        let payload = if text {
            letters.take(size / 2).collect::<String>().into_bytes()
        } else {
            (0..size)
                .map(|index| (index as u8).wrapping_mul(salt | 1))
                .collect()
        };
        Step::Message {
            text,
            payload,
            fragments,
            ping_between: between,
        }
    });
    let control = prop::collection::vec(any::<u8>(), 0..=125);
    prop_oneof![
        4 => message,
        1 => control.clone().prop_map(Step::Ping),
        1 => control.prop_map(Step::Pong),
    ]
}

/// The bytes of a script, and what a server should hear.
fn encode(steps: &[Step]) -> (Vec<u8>, Vec<Said>) {
    let (mut bytes, mut expected) = (Vec::new(), Vec::new());
    for step in steps {
        match step {
            Step::Ping(payload) => {
                bytes.extend(masked(0x89, payload));
                expected.push(Said::Ping(payload.clone()));
            }
            Step::Pong(payload) => {
                bytes.extend(masked(0x8a, payload));
                expected.push(Said::Pong(payload.clone()));
            }
            Step::Message {
                text,
                payload,
                fragments,
                ping_between,
            } => {
                let mut opcode = if *text { 1 } else { 2 };
                let mut rest = &payload[..];
                for size in fragments {
                    let (part, behind) = rest.split_at((*size).min(rest.len()));
                    bytes.extend(masked(opcode, part));
                    (opcode, rest) = (0, behind);
                    if *ping_between {
                        bytes.extend(masked(0x89, b"between"));
                        expected.push(Said::Ping(b"between".to_vec()));
                    }
                }
                bytes.extend(masked(0x80 | opcode, rest));
                expected.push(match text {
                    true => Said::Text(String::from_utf8(payload.clone()).unwrap()),
                    false => Said::Binary(payload.clone()),
                });
            }
        }
    }
    bytes.extend(masked(0x88, &close_body(1000, b"done")));
    expected.push(Said::Close(1000, "done".to_owned()));
    (bytes, expected)
}

fn seeded(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

proptest! {
    #[test]
    fn any_script_cut_anywhere_is_the_same_conversation(
        steps in prop::collection::vec(step(), 0..12),
        seed in any::<u64>(),
    ) {
        let (bytes, expected) = encode(&steps);
        let rules = rules(Role::Server, 1 << 20);
        for direct in [false, true] {
            for cut in [1, 2, 3, 7, 5000, usize::MAX] {
                let said = drive(&mut Session::new(), &rules, &bytes, || cut, direct);
                prop_assert_eq!(&said, &expected);
            }
            let mut random = seeded(seed);
            let cut = || random() as usize % 9000;
            let said = drive(&mut Session::new(), &rules, &bytes, cut, direct);
            prop_assert_eq!(&said, &expected);
        }
    }

    #[test]
    fn a_damaged_script_gives_one_verdict_however_it_is_cut(
        steps in prop::collection::vec(step(), 1..6),
        damage in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..4),
        seed in any::<u64>(),
    ) {
        let (mut bytes, _) = encode(&steps);
        for (place, change) in damage {
            let index = place.index(bytes.len());
            bytes[index] ^= change;
        }
        let rules = rules(Role::Server, 1 << 17);
        let whole = drive(&mut Session::new(), &rules, &bytes, || usize::MAX, false);
        let mut random = seeded(seed);
        for (direct, one) in [(false, true), (true, false), (false, false)] {
            let cut = || if one { 1 } else { random() as usize % 3000 };
            let said = drive(&mut Session::new(), &rules, &bytes, cut, direct);
            prop_assert_eq!(&said, &whole);
        }
    }
}

#[test]
fn garbage_never_panics_and_never_costs_more_than_it_is() {
    for seed in 1..3000 {
        let mut random = seeded(seed * 7919);
        let length = random() as usize % 600;
        let mut bytes: Vec<u8> = (0..length).map(|_| random() as u8).collect();
        // Half of it begins as a frame would, so that it comes further.
        if seed % 2 == 0 && length > 2 {
            bytes[0] = [0x81, 0x82, 0x01, 0x02, 0x89, 0x88][random() as usize % 6];
            bytes[1] |= 0x80;
        }
        for role in [Role::Server, Role::Client] {
            let mut session = Session::new();
            let rules = rules(role, 1 << 16);
            drive(
                &mut session,
                &rules,
                &bytes,
                || random() as usize % 50,
                seed % 3 == 0,
            );
            assert!(session.buffered_bytes() <= 128 * 1024 + 4096, "seed {seed}");
        }
    }
}
