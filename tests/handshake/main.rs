//! The HTTP side of the protocol, driven as a reactor drives it but without a socket: what each
//! request is answered with, however its bytes are cut, and both roles joined in memory.

mod answered;
mod garbage;
mod joined;
mod refused;

use tidemill::protocol::handshake::{accept, select_protocol};
use tidemill::protocol::http::{Body, HeadScan, Intent, Limits, Refusal, Request, head_end};

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";
const LIMITS: Limits = Limits {
    header_bytes_max: 1024,
    target_bytes_max: 256,
    body_bytes_max: 64,
};

/// What a server makes of the bytes of a connection, up to the first answer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Waiting,
    Refused(Refusal),
    /// Method, target and body of a plain request, and how many bytes it had.
    Plain(String, Vec<u8>, usize),
    /// The 101, and how many bytes the request had.
    Switched(String, usize),
}

/// Serves these bytes; `cut` says how many come next.
fn serve(bytes: &[u8], mut cut: impl FnMut() -> usize) -> Answer {
    let mut scan = HeadScan::default();
    let mut body: Option<(Body, usize, usize)> = None;
    let mut come = 0;
    while come < bytes.len() {
        come = bytes.len().min(come + cut());
        let step = match &mut body {
            None => head_end(&bytes[..come], &mut scan, &LIMITS).and_then(|end| match end {
                Some(end) => begin(&bytes[..end], &mut body),
                None => Ok(None),
            }),
            Some(_) => Ok(None),
        };
        match step {
            Ok(None) => {}
            Ok(Some(answer)) => return answer,
            Err(refusal) => return Answer::Refused(refusal),
        }
        let Some((body, head, used)) = &mut body else {
            continue;
        };
        match body.receive(&bytes[*used..come]) {
            Err(refusal) => return Answer::Refused(refusal),
            Ok((count, false)) => *used += count,
            Ok((count, true)) => {
                let request = Request::parse(&bytes[..*head], &LIMITS).unwrap();
                let line = format!("{} {}{}", request.method(), request.host(), request.path());
                return Answer::Plain(line, body.as_bytes().to_vec(), *used + count);
            }
        }
    }
    Answer::Waiting
}

/// Answers a whole head, or begins its body.
fn begin(head: &[u8], body: &mut Option<(Body, usize, usize)>) -> Result<Option<Answer>, Refusal> {
    let request = Request::parse(head, &LIMITS)?;
    match request.intent() {
        Intent::Plain => {
            *body = Some((Body::new(request.body(), &LIMITS)?, head.len(), head.len()));
            Ok(None)
        }
        Intent::Upgrade(upgrade) => {
            let allowed = ["chat".to_owned(), "json".to_owned()];
            let protocol = select_protocol(upgrade.protocols(), &allowed);
            let mut out = Vec::new();
            accept(&upgrade, protocol, &[], None, &mut out);
            Ok(Some(Answer::Switched(
                String::from_utf8(out).unwrap(),
                head.len(),
            )))
        }
    }
}

/// The one answer that these bytes get whether they come at once, 1, 2, 3 or 7 at a time, or cut
/// at random.
fn answer(bytes: &[u8]) -> Answer {
    let whole = serve(bytes, || usize::MAX / 2);
    for step in [1, 2, 3, 7] {
        assert_eq!(
            serve(bytes, || step),
            whole,
            "{} by {step}",
            bytes.escape_ascii()
        );
    }
    let mut random = Random::seeded(bytes.len() as u64);
    for _ in 0..4 {
        let answer = serve(bytes, || 1 + random.below(40));
        assert_eq!(answer, whole, "{} cut at random", bytes.escape_ascii());
    }
    whole
}

fn refused(request: impl AsRef<[u8]>) -> (u16, &'static str) {
    match answer(request.as_ref()) {
        Answer::Refused(refusal) => (refusal.status(), refusal.reason().as_str()),
        other => panic!(
            "{} was not refused: {other:?}",
            request.as_ref().escape_ascii()
        ),
    }
}

/// The upgrade request with one part replaced.
fn with(part: &str, other: &str) -> String {
    assert_eq!(UPGRADE.matches(part).count(), 1, "{part:?}");
    UPGRADE.replace(part, other)
}

/// A plain request with these further lines.
fn plain(lines: &str) -> String {
    format!("POST /a HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

fn is_switched(request: &str) -> bool {
    match answer(request.as_bytes()) {
        Answer::Switched(answer, used) => {
            answer.starts_with("HTTP/1.1 101 ")
                && answer.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n")
                && used == request.len()
        }
        _ => false,
    }
}

/// SplitMix64: enough for tests, and the same everywhere.
struct Random(u64);

impl Random {
    fn seeded(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}
