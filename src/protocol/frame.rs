//! One frame: its header, its mask, and a whole frame encoded once for many receivers.
//!
//! The header is tungstenite's [`FrameHeader`]; a hand-written parse for the headers that make up
//! nearly all traffic stands in front of it, and a test holds the two equal.

use std::io::Cursor;

use bytes::Bytes;
use tungstenite::protocol::frame::FrameHeader;
pub use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::{error::ProtocolError, message::Message};

/// RFC 6455, 5.5: the most that a control frame carries, in bytes.
pub const CONTROL_BYTES_MAX: usize = 125;

/// RFC 6455, 5.2: two bytes, eight of extended length, four of mask.
pub const HEADER_BYTES_MAX: usize = 14;

/// A frame header as it was received. Valid as a header; whether the frame may come now is the
/// session's question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub opcode: OpCode,
    pub is_final: bool,
    pub reserved: bool,
    pub mask: Option<[u8; 4]>,
    /// Payload length in bytes.
    pub length: u64,
    /// Bytes that the header itself takes.
    pub size: usize,
}

/// The header of a frame that needs no further thought: unfragmented masked data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    pub kind: Data,
    pub mask: [u8; 4],
    /// Payload length in bytes.
    pub length: usize,
    /// Bytes that the header itself takes.
    pub size: usize,
}

impl Plain {
    /// Reads the header of nearly every frame that a server receives; `None` for any other, and
    /// for one that is not all there.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let [first @ (0x81 | 0x82), second, ..] = *bytes else {
            return None;
        };
        let kind = if first == 0x81 {
            Data::Text
        } else {
            Data::Binary
        };
        match second {
            0x80..=0xfd => {
                let mask = *bytes.get(2..)?.first_chunk()?;
                Some(Self {
                    kind,
                    mask,
                    length: usize::from(second & 0x7f),
                    size: 6,
                })
            }
            0xfe => {
                let [high, low, mask @ ..] = *bytes.get(2..)?.first_chunk::<6>()?;
                let length = usize::from(u16::from_be_bytes([high, low]));
                (length > CONTROL_BYTES_MAX).then_some(Self {
                    kind,
                    mask,
                    length,
                    size: 8,
                })
            }
            _ => None,
        }
    }
}

impl Header {
    /// Reads a header from the front of `bytes`; `None` when it is not all there yet.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, ProtocolError> {
        if let Some(Plain {
            kind,
            mask,
            length,
            size,
        }) = Plain::parse(bytes)
        {
            return Ok(Some(Self {
                opcode: OpCode::Data(kind),
                is_final: true,
                reserved: false,
                mask: Some(mask),
                length: length as u64,
                size,
            }));
        }
        Self::parse_any(bytes)
    }

    /// Any header, by tungstenite's parser.
    fn parse_any(bytes: &[u8]) -> Result<Option<Self>, ProtocolError> {
        let mut cursor = Cursor::new(bytes);
        let (header, length) = match FrameHeader::parse(&mut cursor) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return Self::reject_early(bytes).map(|()| None),
            // The only protocol error of its parser; reading from memory has no other.
            Err(_) => return Err(ProtocolError::ReservedOpcode),
        };
        let size = usize::try_from(cursor.position()).unwrap_or(HEADER_BYTES_MAX);
        // RFC 6455, 5.2: the minimal number of bytes MUST be used; the top bit MUST be 0.
        if length >> 63 != 0 || header.len(length) != size {
            return Err(ProtocolError::MalformedLength);
        }
        Ok(Some(Self {
            opcode: header.opcode,
            is_final: header.is_final,
            reserved: header.rsv1 || header.rsv2 || header.rsv3,
            mask: header.mask,
            length,
            size,
        }))
    }

    /// A first byte that no continuation could make right is refused without waiting for more.
    fn reject_early(bytes: &[u8]) -> Result<(), ProtocolError> {
        match bytes.first() {
            Some(first) if matches!(first & 0x0f, 3..=7 | 11..=15) => {
                Err(ProtocolError::ReservedOpcode)
            }
            _ => Ok(()),
        }
    }
}

/// Removes (or applies: it is its own inverse) the mask of a payload, in place.
///
/// `at` is the payload position of the first byte, for payloads that come in parts
/// (RFC 6455, 5.3).
#[inline]
pub fn unmask(payload: &mut [u8], mask: [u8; 4], at: usize) {
    let mut mask = mask;
    mask.rotate_left(at & 3);
    let narrow = u32::from_ne_bytes(mask);
    let wide = u64::from(narrow) << 32 | u64::from(narrow);
    // Whole cache lines first: this loop becomes vector instructions.
    let (lines, rest) = payload.as_chunks_mut::<64>();
    for line in lines {
        for word in line.as_chunks_mut::<8>().0 {
            *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
        }
    }
    let (words, rest) = rest.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    let (half, rest) = rest.as_chunks_mut::<4>();
    if let [half] = half {
        *half = (u32::from_ne_bytes(*half) ^ narrow).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask) {
        *byte ^= key;
    }
}

/// Appends a frame header to `out`.
#[inline]
pub fn encode_header(out: &mut Vec<u8>, opcode: OpCode, length: usize, mask: Option<[u8; 4]>) {
    let header = FrameHeader {
        is_final: true,
        opcode,
        mask,
        ..FrameHeader::default()
    };
    let written = header.format(length as u64, out);
    debug_assert!(written.is_ok(), "writing to memory does not fail");
}

/// Appends a whole frame to `out`, masked when a mask is given (the client's role).
#[inline]
pub fn encode(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8], mask: Option<[u8; 4]>) {
    out.reserve(HEADER_BYTES_MAX + payload.len());
    match mask {
        // A server's short frame, nearly every one that it sends.
        None if payload.len() <= CONTROL_BYTES_MAX => {
            out.extend_from_slice(&[0x80 | u8::from(opcode), payload.len() as u8]);
            out.extend_from_slice(payload);
        }
        None => {
            encode_header(out, opcode, payload.len(), None);
            out.extend_from_slice(payload);
        }
        Some(mask) => {
            encode_header(out, opcode, payload.len(), Some(mask));
            let start = out.len();
            out.extend_from_slice(payload);
            unmask(&mut out[start..], mask, 0);
        }
    }
}

/// Appends a Close frame to `out`. The reason is cut to what a control frame carries, at a
/// character boundary.
pub fn encode_close(out: &mut Vec<u8>, code: CloseCode, reason: &str, mask: Option<[u8; 4]>) {
    // RFC 6455, 7.4.1: 1005 stands for "no code"; it is never sent.
    if code == CloseCode::Status {
        return encode(out, OpCode::Control(Control::Close), &[], mask);
    }
    let reason = &reason[..reason.floor_char_boundary(CONTROL_BYTES_MAX - 2)];
    let mut body = Vec::with_capacity(2 + reason.len());
    body.extend_from_slice(&u16::from(code).to_be_bytes());
    body.extend_from_slice(reason.as_bytes());
    encode(out, OpCode::Control(Control::Close), &body, mask);
}

/// A server's frame, encoded once and shared by all connections that it goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame(Bytes);

impl Frame {
    /// Encodes an unmasked data frame.
    pub fn new(message: Message<'_>) -> Self {
        let mut out = Vec::with_capacity(10 + message.as_bytes().len());
        encode(&mut out, message.opcode(), message.as_bytes(), None);
        Self(Bytes::from(out))
    }

    /// The frame as it goes on the wire.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeded(seed: u64) -> impl FnMut() -> u64 {
        let mut state = seed | 1;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        }
    }

    #[test]
    fn the_fast_path_reads_headers_as_tungstenite_does() {
        let mut random = seeded(42);
        for round in 0..200_000 {
            let mut bytes: Vec<u8> = random().to_le_bytes().to_vec();
            bytes.extend(random().to_le_bytes());
            if round % 2 == 0 {
                bytes[0] = 0x81 + (random() & 1) as u8;
                bytes[1] |= 0x80;
            }
            bytes.truncate(random() as usize % 17);
            assert_eq!(
                Header::parse(&bytes),
                Header::parse_any(&bytes),
                "{bytes:02x?}"
            );
        }
    }

    #[test]
    fn a_short_frame_has_the_header_that_tungstenite_writes() {
        for opcode in [OpCode::Data(Data::Text), OpCode::Control(Control::Pong)] {
            for length in [0, 1, 124, 125, 126, 127, 65535, 65536] {
                let (mut ours, mut theirs) = (Vec::new(), Vec::new());
                encode(&mut ours, opcode, &vec![7; length], None);
                encode_header(&mut theirs, opcode, length, None);
                theirs.resize(theirs.len() + length, 7);
                assert_eq!(ours, theirs);
            }
        }
    }

    #[test]
    fn unmasking_in_parts_is_unmasking_at_once() {
        let mut random = seeded(7);
        for length in 0..100 {
            let payload: Vec<u8> = (0..length).map(|_| random() as u8).collect();
            let mask = (random() as u32).to_le_bytes();
            let naive: Vec<u8> = payload
                .iter()
                .enumerate()
                .map(|(i, byte)| byte ^ mask[i & 3])
                .collect();
            for cut in 0..=length {
                let mut parts = payload.clone();
                unmask(&mut parts[..cut], mask, 0);
                unmask(&mut parts[cut..], mask, cut);
                assert_eq!(parts, naive);
            }
        }
    }

    #[test]
    fn the_hi_of_the_standard_articles_masks_to_7f93() {
        let mut out = Vec::new();
        let text = OpCode::Data(Data::Text);
        encode(&mut out, text, b"Hi", Some([0x37, 0xfa, 0x21, 0x3d]));
        assert_eq!(out, [0x81, 0x82, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x93]);
    }

    #[test]
    fn lengths_are_minimal_and_the_top_bit_is_zero() {
        let padded = [0x82, 0xfe, 0, 125, 1, 2, 3, 4, 0, 0];
        assert_eq!(Header::parse(&padded), Err(ProtocolError::MalformedLength));
        let padded = [0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4];
        assert_eq!(Header::parse(&padded), Err(ProtocolError::MalformedLength));
        let negative = [0x82, 0xff, 0x80, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4];
        assert_eq!(
            Header::parse(&negative),
            Err(ProtocolError::MalformedLength)
        );
    }

    #[test]
    fn a_long_close_reason_is_cut_at_a_character() {
        let mut out = Vec::new();
        encode_close(&mut out, CloseCode::Normal, &"é".repeat(100), None);
        assert_eq!(out[1] as usize, out.len() - 2);
        assert!(out.len() - 2 <= CONTROL_BYTES_MAX);
        assert!(std::str::from_utf8(&out[4..]).is_ok());
    }
}
