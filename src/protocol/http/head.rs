//! Finding where a head ends while it is still arriving.
//!
//! Everything that is refused here is refused at the first byte that makes it wrong, whether or
//! not the rest has come, so a peer that speaks something else is not waited for, and the answer
//! does not depend on how the bytes were cut.

use memchr::memchr;

use super::headers::is_token_byte;
use super::{Limits, Reason, Refusal};

/// The longest method that is looked at. The longest registered one has 17 bytes.
const METHOD_BYTES_MAX: usize = 24;

/// How far a head has been looked at. Eight bytes a field, kept beside the bytes that arrived.
///
/// Invariant: `line <= scanned`, and everything before `scanned` was found in order, except that
/// a carriage return at the very end is left for the byte that follows it.
#[derive(Clone, Copy, Debug)]
pub struct HeadScan {
    part: Part,
    /// Where the present line, or within the request line the present word, begins.
    line: usize,
    scanned: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Blank,
    Method,
    Target,
    Lines,
}

impl Default for HeadScan {
    /// A scan of a request head, from its first byte.
    fn default() -> HeadScan {
        HeadScan {
            part: Part::Blank,
            line: 0,
            scanned: 0,
        }
    }
}

/// Where the head of the request in `bytes` ends: the index behind its empty line, or `None`
/// while that has not come.
///
/// `bytes` holds the request from its first byte, each time with more behind it; `scan`
/// remembers what was seen, so that a head that comes a byte at a time costs no more than one
/// that comes at once. After an end was found the scan is spent: the next request begins with a
/// new one.
///
/// # Errors
/// 400 for a bare CR or LF, another control byte, a folded line, or what is no HTTP request at
/// all; 414 for a target and 431 for a head over its limit.
pub fn head_end(
    bytes: &[u8],
    scan: &mut HeadScan,
    limits: &Limits,
) -> Result<Option<usize>, Refusal> {
    let window = &bytes[..bytes.len().min(limits.header_bytes_max)];
    let end = loop {
        let part_is_over = match scan.part {
            Part::Blank => scan.blank_lines(window)?,
            Part::Method => scan.method(window)?,
            Part::Target => scan.target(window, limits.target_bytes_max)?,
            Part::Lines => break scan.lines(window)?,
        };
        if !part_is_over {
            break None;
        }
    };
    if end.is_none() && window.len() == limits.header_bytes_max {
        let reason = match scan.part {
            Part::Target => Reason::TargetTooLong,
            _ => Reason::HeadersTooLarge,
        };
        return Err(Refusal::over_limit(reason, limits.header_bytes_max as u64));
    }
    Ok(end)
}

impl HeadScan {
    /// A scan of a response head, whose first line is taken like any other.
    pub(in crate::protocol) fn response() -> HeadScan {
        HeadScan {
            part: Part::Lines,
            line: 0,
            scanned: 0,
        }
    }

    /// RFC 9112, 2.2: a server ignores empty lines ahead of the request line. They count as head.
    fn blank_lines(&mut self, window: &[u8]) -> Result<bool, Refusal> {
        loop {
            match window[self.scanned..] {
                [] | [b'\r'] => return Ok(false),
                [b'\r', b'\n', ..] => self.scanned += 2,
                [b'\r', ..] => return Err(Reason::BareCr.into()),
                [b'\n', ..] => return Err(Reason::BareLf.into()),
                _ => {
                    self.begin(Part::Method);
                    return Ok(true);
                }
            }
        }
    }

    fn method(&mut self, window: &[u8]) -> Result<bool, Refusal> {
        for byte in &window[self.scanned..] {
            let length = self.scanned - self.line;
            match byte {
                b' ' if length > 0 => {
                    self.scanned += 1;
                    self.begin(Part::Target);
                    return Ok(true);
                }
                byte if is_token_byte(*byte) && length < METHOD_BYTES_MAX => self.scanned += 1,
                // A TLS handshake sent to this port ends here, at its first byte.
                _ => return Err(Reason::NotHttp.into()),
            }
        }
        Ok(false)
    }

    fn target(&mut self, window: &[u8], target_bytes_max: usize) -> Result<bool, Refusal> {
        for byte in &window[self.scanned..] {
            let length = self.scanned - self.line;
            match byte {
                b' ' if length > 0 => {
                    self.scanned += 1;
                    self.begin(Part::Lines);
                    return Ok(true);
                }
                b'!'..=b'~' if length < target_bytes_max => self.scanned += 1,
                b'!'..=b'~' => {
                    let limit = target_bytes_max as u64;
                    return Err(Refusal::over_limit(Reason::TargetTooLong, limit));
                }
                // `GET /` alone is HTTP/0.9, which nobody speaks any more.
                b' ' | b'\r' | b'\n' => return Err(Reason::NotHttp.into()),
                byte if byte.is_ascii_control() => return Err(Reason::ControlByte.into()),
                _ => return Err(Reason::MalformedTarget.into()),
            }
        }
        Ok(false)
    }

    /// From the HTTP version to the empty line.
    fn lines(&mut self, window: &[u8]) -> Result<Option<usize>, Refusal> {
        loop {
            let rest = &window[self.scanned..];
            // RFC 9112, 5.2: a server refuses a folded line; 2.2: white space ahead of the first.
            if self.scanned == self.line && matches!(rest.first(), Some(b' ' | b'\t')) {
                return Err(Reason::ObsFold.into());
            }
            let Some(feed) = memchr(b'\n', rest) else {
                // The byte behind a last carriage return decides whether it is a bare one.
                let seen = rest.strip_suffix(b"\r").unwrap_or(rest);
                refuse_control(seen)?;
                self.scanned += seen.len();
                return Ok(None);
            };
            let text = rest[..feed].strip_suffix(b"\r");
            refuse_control(text.unwrap_or(&rest[..feed]))?;
            let text = text.ok_or(Reason::BareLf)?;
            let empty = self.scanned + text.len() == self.line;
            self.scanned += feed + 1;
            self.line = self.scanned;
            if empty {
                return Ok(Some(self.scanned));
            }
        }
    }

    fn begin(&mut self, part: Part) {
        self.part = part;
        self.line = self.scanned;
    }
}

/// RFC 9110, 5.5: control bytes in a field value are invalid and dangerous.
fn refuse_control(text: &[u8]) -> Result<(), Refusal> {
    // No branch a byte, so that this compiles to vector code; the culprit is looked for after.
    let found = text
        .iter()
        .fold(false, |found, byte| found | is_control(*byte));
    if !found {
        return Ok(());
    }
    match text.iter().find(|byte| is_control(**byte)) {
        Some(b'\r') => Err(Reason::BareCr.into()),
        _ => Err(Reason::ControlByte.into()),
    }
}

fn is_control(byte: u8) -> bool {
    (byte < b' ') & (byte != b'\t') | (byte == 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        header_bytes_max: 64,
        target_bytes_max: 16,
        body_bytes_max: 0,
    };

    /// The answer to these bytes when they come `step` at a time, and how many had come by then.
    fn scanned(bytes: &[u8], step: usize) -> (usize, Result<Option<usize>, Reason>) {
        let mut scan = HeadScan::default();
        let mut come = 0;
        loop {
            come = bytes.len().min(come + step);
            match head_end(&bytes[..come], &mut scan, &LIMITS) {
                Ok(None) if come < bytes.len() => {}
                answer => return (come, answer.map_err(|refusal| refusal.reason())),
            }
        }
    }

    fn at_once(bytes: &[u8]) -> Result<Option<usize>, Reason> {
        scanned(bytes, bytes.len().max(1)).1
    }

    /// Bytes, and the shortest part of them after which the answer is certain.
    const REFUSED: &[(&[u8], usize, Reason)] = &[
        (b"GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n", 21, Reason::BareLf),
        (b"GET / HTTP/1.1\n\n", 15, Reason::BareLf),
        (b"\nGET / HTTP/1.1\r\n\r\n", 1, Reason::BareLf),
        (b"GET / HTTP/1.1\r\nA: b\r\n\n", 23, Reason::BareLf),
        (b"GET / HTTP/1.1\r\nA: b\rC\r\n", 22, Reason::BareCr),
        (b"GET / HTTP/1.1\r\nA: b\r\r\n", 22, Reason::BareCr),
        (b"\rGET / HTTP/1.1\r\n", 2, Reason::BareCr),
        (b"GET / HTTP/1.1\r\nA: b\0c\r\n", 21, Reason::ControlByte),
        (b"GET / HTTP/1.1\r\nA: \x7fc\n", 20, Reason::ControlByte),
        (b"GET /\x01 HTTP/1.1\r\n", 6, Reason::ControlByte),
        (b"GET / HTTP/1.1\r\n A: b\r\n", 17, Reason::ObsFold),
        (b"GET / HTTP/1.1\r\nA: b\r\n\tc\r\n", 23, Reason::ObsFold),
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            1,
            Reason::NotHttp,
        ),
        (b"GET\r\n\r\n", 4, Reason::NotHttp),
        (b"GET /\r\n\r\n", 6, Reason::NotHttp),
        (b"GET  / HTTP/1.1\r\n", 5, Reason::NotHttp),
        (b" GET / HTTP/1.1\r\n", 1, Reason::NotHttp),
        (b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", 25, Reason::NotHttp),
        (b"GET /caf\xc3\xa9 HTTP/1.1\r\n", 9, Reason::MalformedTarget),
        (b"GET /aaaaaaaaaaaaaaaaaaaaaaaaa", 21, Reason::TargetTooLong),
    ];

    #[test]
    fn a_wrong_byte_is_refused_as_soon_as_it_comes() {
        for (bytes, certain, reason) in REFUSED {
            assert_eq!(
                scanned(bytes, 1),
                (*certain, Err(*reason)),
                "{}",
                bytes.escape_ascii()
            );
            assert_eq!(at_once(bytes), Err(*reason), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_head_ends_behind_its_empty_line_however_it_is_cut() {
        let head = b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nX:\xe9\t b\r\n\r\n";
        let mut bytes = head.to_vec();
        bytes.extend_from_slice(b"\x81\x80\0\0\n\r");
        for step in [1, 2, 3, 7, bytes.len()] {
            assert_eq!(scanned(&bytes, step).1, Ok(Some(head.len())), "step {step}");
        }
        for short in 0..head.len() {
            assert_eq!(at_once(&head[..short]), Ok(None), "{short}");
        }
    }

    #[test]
    fn a_head_may_be_as_large_as_its_limit_and_no_larger() {
        let head = |filler: usize| {
            format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "b".repeat(filler)).into_bytes()
        };
        let fits = head(64 - head(0).len());
        assert_eq!(at_once(&fits), Ok(Some(64)));
        let large = head(65 - head(0).len());
        for step in [1, 2, 3, 7, 65] {
            assert_eq!(
                scanned(&large, step).1,
                Err(Reason::HeadersTooLarge),
                "step {step}"
            );
        }
        assert_eq!(at_once(&large[..63]), Ok(None));
    }

    #[test]
    fn no_byte_is_looked_at_more_than_twice() {
        let head = b"\r\nGET /a HTTP/1.1\r\nHost: a\r\nX: \xe9\t b c d e\r\n\r\n";
        let mut scan = HeadScan::default();
        for come in 1..head.len() {
            assert_eq!(head_end(&head[..come], &mut scan, &LIMITS), Ok(None));
            let again = usize::from(head[come - 1] == b'\r');
            assert_eq!(come - scan.scanned, again, "after {come}");
        }
    }

    #[test]
    fn a_target_may_be_as_long_as_its_limit_and_no_longer() {
        let request = |length: usize| {
            format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(length - 1)).into_bytes()
        };
        assert_eq!(at_once(&request(16)), Ok(Some(request(16).len())));
        assert_eq!(at_once(&request(17)), Err(Reason::TargetTooLong));
    }

    #[test]
    fn a_head_that_overflows_inside_its_target_has_a_target_that_is_too_long() {
        let limits = Limits {
            header_bytes_max: 32,
            target_bytes_max: 100,
            body_bytes_max: 0,
        };
        let bytes = format!("GET /{}", "a".repeat(60));
        let refusal = head_end(bytes.as_bytes(), &mut HeadScan::default(), &limits).unwrap_err();
        assert_eq!(refusal.reason(), Reason::TargetTooLong);
    }
}
