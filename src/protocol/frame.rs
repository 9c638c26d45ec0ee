//! One frame: its header, its mask, and a whole frame encoded once for many receivers.
//!
//! The header is tungstenite's [`FrameHeader`]; a hand-written parse for the headers that make up
//! nearly all traffic stands in front of it, and a test holds the two equal.

use std::io::Cursor;

use bytes::Bytes;
use tungstenite::protocol::frame::FrameHeader;
pub use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::{error::ProtocolError, session::Message};

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

impl Header {
    /// Reads a header from the front of `bytes`; `None` when it is not all there yet.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, ProtocolError> {
        // Unfragmented masked data of up to 125 bytes, or up to 64 KiB - 1: nearly every frame
        // a server receives.
        if bytes.len() >= 8 && (bytes[0] == 0x81 || bytes[0] == 0x82) && bytes[1] & 0x80 != 0 {
            let short = bytes[1] & 0x7f;
            let data = if bytes[0] == 0x81 {
                Data::Text
            } else {
                Data::Binary
            };
            let extended = u64::from(u16::from_be_bytes([bytes[2], bytes[3]]));
            let (length, size) = match short {
                0..=125 => (u64::from(short), 6),
                126 if extended > 125 => (extended, 8),
                _ => return Self::parse_any(bytes),
            };
            let mask = [
                bytes[size - 4],
                bytes[size - 3],
                bytes[size - 2],
                bytes[size - 1],
            ];
            return Ok(Some(Self {
                opcode: OpCode::Data(data),
                is_final: true,
                reserved: false,
                mask: Some(mask),
                length,
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
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    // Whole words first: this loop becomes vector instructions.
    let mut words = payload.chunks_exact_mut(8);
    for word in &mut words {
        let value = u64::from_ne_bytes([
            word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7],
        ]);
        word.copy_from_slice(&(value ^ wide).to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(mask.iter().cycle()) {
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
    encode_header(out, opcode, payload.len(), mask);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(mask) = mask {
        unmask(&mut out[start..], mask, 0);
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
