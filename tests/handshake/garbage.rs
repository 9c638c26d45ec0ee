//! Damaged requests: whatever the bytes are, the answer depends on nothing else.

use super::*;

#[test]
fn garbage_gets_the_same_answer_however_it_is_cut() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(20_26);
    println!("to repeat a failure: SEED={seed}");
    let mut random = Random::seeded(seed);
    let sources = [
        UPGRADE.to_owned(),
        plain("Content-Length: 5\r\nExpect: 100-continue\r\n") + "hello",
        plain("Transfer-Encoding: chunked\r\n") + "5;x\r\nhello\r\n0\r\nT: t\r\n\r\n",
    ];
    let mut kinds = [0; 4];
    for _ in 0..3_000 {
        let mut bytes = sources[random.below(sources.len())].clone().into_bytes();
        for _ in 0..random.below(4) {
            mutate(&mut bytes, &mut random);
        }
        if random.below(20) == 0 {
            bytes
                .iter_mut()
                .for_each(|byte| *byte = random.next() as u8);
        }
        match answer(&bytes) {
            Answer::Waiting => kinds[0] += 1,
            Answer::Refused(_) => kinds[1] += 1,
            Answer::Plain(_, _, used) => {
                assert!(used <= bytes.len());
                kinds[2] += 1;
            }
            Answer::Switched(_, used) => {
                assert!(used <= bytes.len());
                kinds[3] += 1;
            }
        }
    }
    assert!(
        kinds.iter().all(|kind| *kind > 100),
        "too little of something: {kinds:?}"
    );
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    const TEMPTING: &[u8] = b"\r\n\t :,;#/?%=@[]\0\x01\x7f\x80\xff013aAzZ";
    let at = random.below(bytes.len() + 1);
    let tempting = TEMPTING[random.below(TEMPTING.len())];
    match random.below(5) {
        0 => bytes.insert(at, tempting),
        1 => bytes.truncate(at.max(1)),
        2 => drop(bytes.splice(at..at, UPGRADE.bytes().skip(random.below(90)).take(30))),
        3 if at < bytes.len() => bytes[at] = tempting,
        _ if at < bytes.len() => drop(bytes.remove(at)),
        _ => bytes.push(tempting),
    }
}
