//! Request bodies: Content-Length and chunked (RFC 9112, 6 and 7), decoded as they come.

use bytes::Bytes;

use super::{Limits, Reason, Refusal};

/// How a body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// No body, or one of length 0.
    None,
    /// This many bytes.
    Length(u64),
    /// Chunks (RFC 9112, 7.1).
    Chunked,
}

/// A body on its way in. It holds what has come and nothing in advance: an announced length
/// reserves nothing.
///
/// Chunk extensions and trailers are read past and dropped; together they may be as large as a
/// head.
#[derive(Debug)]
pub struct Body {
    content: Vec<u8>,
    state: State,
    /// How much more content a chunk may announce.
    content_left: u64,
    /// How many more bytes of extensions and trailers may come.
    overhead_left: usize,
    content_bytes_max: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// This many bytes and the body is complete.
    Length(u64),
    /// In the digits of a chunk size: its value and their count.
    Size(u64, u8),
    /// In a chunk extension, behind a size.
    Extension(u64),
    /// Behind the CR of a size line.
    SizeEnd(u64),
    /// This many bytes of a chunk to come, at least one.
    Data(u64),
    /// Behind the data of a chunk: its CR, its LF.
    DataCr,
    DataLf,
    /// At the beginning of a trailer line, inside one, behind the CR of one.
    TrailerStart,
    Trailer,
    TrailerEnd,
    /// Behind the CR of the empty line.
    LastEnd,
    Complete,
}

/// More digits than a 64-bit size needs are padding that only serves to confuse.
const SIZE_DIGITS_MAX: u8 = 16;

impl Body {
    /// A body of this kind, of which nothing has come.
    ///
    /// # Errors
    /// 413 at once for an announced length over the limit.
    pub fn new(kind: BodyKind, limits: &Limits) -> Result<Body, Refusal> {
        let state = match kind {
            BodyKind::None | BodyKind::Length(0) => State::Complete,
            BodyKind::Length(length) if length > limits.body_bytes_max => {
                return Err(Refusal::over_limit(
                    Reason::BodyTooLarge,
                    limits.body_bytes_max,
                ));
            }
            BodyKind::Length(length) => State::Length(length),
            BodyKind::Chunked => State::Size(0, 0),
        };
        Ok(Body {
            content: Vec::new(),
            state,
            content_left: limits.body_bytes_max,
            overhead_left: limits.header_bytes_max,
            content_bytes_max: limits.body_bytes_max,
        })
    }

    /// Takes what belongs to the body from the front of `bytes`: how many of them that were, and
    /// whether the body is complete. What lies behind belongs to the next request.
    ///
    /// # Errors
    /// 400 for a malformed chunk, 413 for a body over the limit, 431 for trailers and extensions
    /// over theirs. After an error the body is of no use.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(usize, bool), Refusal> {
        let mut consumed = 0;
        while consumed < bytes.len() && self.state != State::Complete {
            let rest = &bytes[consumed..];
            consumed += match self.state {
                State::Length(left) => self.copy(rest, left, State::Length, State::Complete),
                State::Data(left) => self.copy(rest, left, State::Data, State::DataCr),
                _ => {
                    self.state = self.frame(rest[0])?;
                    1
                }
            };
        }
        Ok((consumed, self.is_complete()))
    }

    /// Whether nothing more is to come.
    pub fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// How much memory the content holds, in bytes.
    pub fn capacity(&self) -> usize {
        self.content.capacity()
    }

    /// The decoded content that has come.
    pub fn as_bytes(&self) -> &[u8] {
        &self.content
    }

    /// The decoded content, given up without a copy.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from(self.content)
    }

    fn copy(
        &mut self,
        rest: &[u8],
        left: u64,
        unfinished: fn(u64) -> State,
        finished: State,
    ) -> usize {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
        self.content.extend_from_slice(&rest[..count]);
        let left = left - count as u64;
        self.state = if left == 0 {
            finished
        } else {
            unfinished(left)
        };
        count
    }

    /// One byte of what lies around the data of chunks.
    fn frame(&mut self, byte: u8) -> Result<State, Refusal> {
        let malformed = Err(Refusal::new(Reason::MalformedChunk));
        match (self.state, byte) {
            (State::Size(size, digits), _) if byte.is_ascii_hexdigit() => {
                if digits == SIZE_DIGITS_MAX {
                    return malformed;
                }
                Ok(State::Size(size << 4 | hex_value(byte), digits + 1))
            }
            (State::Size(_, 0), _) => malformed,
            (State::Size(size, _) | State::Extension(size), b'\r') => Ok(State::SizeEnd(size)),
            // RFC 9112, 7.1.1: white space ahead of the semicolon is to be expected.
            (State::Size(size, _), b';' | b' ' | b'\t') => Ok(State::Extension(size)),
            (State::Extension(size), _) if is_text(byte) => {
                self.spend_overhead()?;
                Ok(State::Extension(size))
            }
            (State::SizeEnd(0), b'\n') => Ok(State::TrailerStart),
            (State::SizeEnd(size), b'\n') => self.begin_chunk(size),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size(0, 0)),
            (State::TrailerStart, b'\r') => Ok(State::LastEnd),
            (State::LastEnd, b'\n') => Ok(State::Complete),
            (State::Trailer, b'\r') => Ok(State::TrailerEnd),
            (State::TrailerEnd, b'\n') => Ok(State::TrailerStart),
            (State::TrailerStart | State::Trailer, _) if is_text(byte) => {
                self.spend_overhead()?;
                Ok(State::Trailer)
            }
            _ => malformed,
        }
    }

    fn begin_chunk(&mut self, size: u64) -> Result<State, Refusal> {
        self.content_left = self
            .content_left
            .checked_sub(size)
            .ok_or(Refusal::over_limit(
                Reason::BodyTooLarge,
                self.content_bytes_max,
            ))?;
        Ok(State::Data(size))
    }

    /// RFC 9112, 7.1.1: the total length of chunk extensions is limited; 7.1.2: trailers count.
    fn spend_overhead(&mut self) -> Result<(), Refusal> {
        self.overhead_left = self
            .overhead_left
            .checked_sub(1)
            .ok_or(Reason::HeadersTooLarge)?;
        Ok(())
    }
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}

fn hex_value(digit: u8) -> u64 {
    u64::from(match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        header_bytes_max: 16,
        target_bytes_max: 0,
        body_bytes_max: 12,
    };

    /// What comes of these bytes when they come `step` at a time: the content and how many of the
    /// bytes were its own, once it is complete.
    fn received(
        kind: BodyKind,
        bytes: &[u8],
        step: usize,
    ) -> Result<Option<(Vec<u8>, usize)>, Reason> {
        let mut body = Body::new(kind, &LIMITS).map_err(|refusal| refusal.reason())?;
        let mut consumed = 0;
        for piece in bytes.chunks(step) {
            let (count, complete) = body.receive(piece).map_err(|refusal| refusal.reason())?;
            consumed += count;
            assert_eq!(complete, body.is_complete());
            assert!(
                complete || count == piece.len(),
                "bytes left over ahead of the end"
            );
            if complete {
                break;
            }
        }
        Ok(body
            .is_complete()
            .then(|| (body.into_bytes().to_vec(), consumed)))
    }

    /// The same, whatever the step; `step` one is the answer that the others must agree with.
    fn agreed(kind: BodyKind, bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Reason> {
        let answer = received(kind, bytes, 1);
        for step in [2, 3, 7, bytes.len()] {
            assert_eq!(
                received(kind, bytes, step),
                answer,
                "{} by {step}",
                bytes.escape_ascii()
            );
        }
        answer
    }

    #[test]
    fn a_body_of_known_length_ends_there() {
        let whole = agreed(BodyKind::Length(5), b"hello, and the next")
            .unwrap()
            .unwrap();
        assert_eq!(whole, (b"hello".to_vec(), 5));
        assert_eq!(agreed(BodyKind::Length(5), b"hell"), Ok(None));
        for kind in [BodyKind::None, BodyKind::Length(0)] {
            assert_eq!(
                Body::new(kind, &LIMITS).unwrap().receive(b"GET").unwrap(),
                (0, true)
            );
        }
    }

    #[test]
    fn an_announced_length_costs_nothing_until_the_bytes_come() {
        let limits = Limits {
            body_bytes_max: u64::MAX,
            ..LIMITS
        };
        let mut body = Body::new(BodyKind::Length(1 << 40), &limits).unwrap();
        assert_eq!(body.capacity(), 0);
        body.receive(b"a few bytes").unwrap();
        assert!(body.capacity() < 64, "{}", body.capacity());
        let mut body = Body::new(BodyKind::Chunked, &limits).unwrap();
        body.receive(b"ffffffffff\r\na few bytes").unwrap();
        assert_eq!(body.as_bytes(), b"a few bytes");
        assert!(body.capacity() < 64, "{}", body.capacity());
    }

    #[test]
    fn chunks_are_joined_and_what_lies_around_them_is_dropped() {
        let cases: &[(&[u8], &[u8])] = &[
            (b"0\r\n\r\n", b""),
            (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
            (
                b"5;a=\"b\"\r\nhello\r\n7 ; c\r\n, world\r\n000;d\r\n\r\n",
                b"hello, world",
            ),
            (
                b"A\r\n0123456789\r\n0\r\nX: a\r\nY:b\r\n\r\n",
                b"0123456789",
            ),
            (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
        ];
        for (bytes, content) in cases {
            let mut followed = bytes.to_vec();
            followed.extend_from_slice(b"GET /");
            let whole = agreed(BodyKind::Chunked, &followed).unwrap().unwrap();
            assert_eq!(
                whole,
                (content.to_vec(), bytes.len()),
                "{}",
                bytes.escape_ascii()
            );
            assert_eq!(
                agreed(BodyKind::Chunked, &bytes[..bytes.len() - 1]),
                Ok(None)
            );
        }
    }

    #[test]
    fn a_malformed_chunk_is_refused() {
        let cases: &[&[u8]] = &[
            b"\r\n",
            b" 5\r\n",
            b"-5\r\n",
            b"0x5\r\n",
            b"g\r\n",
            b";a\r\n",
            b"5\n",
            b"5;a\n",
            b"5\r\r\n",
            b"5;a\0\r\n",
            b"5\r\nhello!\r\n",
            b"5\r\nhello\n",
            b"5\r\nhello\rx",
            b"0\r\nX: a\n",
            b"0\r\n\n",
            b"0\r\n\rx",
            b"00000000000000000",
            b"10000000000000000\r\n",
        ];
        for bytes in cases {
            assert_eq!(
                agreed(BodyKind::Chunked, bytes),
                Err(Reason::MalformedChunk),
                "{}",
                bytes.escape_ascii()
            );
        }
    }

    #[test]
    fn a_body_may_be_as_large_as_its_limit_and_no_larger() {
        let twelve = agreed(BodyKind::Length(12), b"hello, world")
            .unwrap()
            .unwrap();
        assert_eq!(twelve.1, 12);
        assert_eq!(
            agreed(BodyKind::Length(13), b"x"),
            Err(Reason::BodyTooLarge)
        );
        assert_eq!(
            agreed(BodyKind::Length(u64::MAX), b"x"),
            Err(Reason::BodyTooLarge)
        );
        let chunked = |bytes| agreed(BodyKind::Chunked, bytes);
        assert!(
            chunked(b"6\r\nhello,\r\n6\r\n world\r\n0\r\n\r\n")
                .unwrap()
                .is_some()
        );
        assert_eq!(chunked(b"6\r\nhello,\r\n7\r\n"), Err(Reason::BodyTooLarge));
        assert_eq!(chunked(b"ffffffffffffffff\r\n"), Err(Reason::BodyTooLarge));
    }

    #[test]
    fn extensions_and_trailers_together_are_bounded() {
        let extended = b"1;aaaaaaaa\r\nx\r\n1;bbbbbbbb\r\ny\r\n0\r\n\r\n";
        assert!(agreed(BodyKind::Chunked, extended).unwrap().is_some());
        let more = b"1;aaaaaaaa\r\nx\r\n1;bbbbbbbb\r\ny\r\n0\r\nX: a\r\n\r\n";
        assert_eq!(
            agreed(BodyKind::Chunked, more),
            Err(Reason::HeadersTooLarge)
        );
        let endless = b"1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        assert_eq!(
            agreed(BodyKind::Chunked, endless),
            Err(Reason::HeadersTooLarge)
        );
    }
}
