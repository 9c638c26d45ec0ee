//! Frames as the floor needs them: the length of one, and its payload turned into a reply.
//!
//! A reply's header is the request's less the four bytes of its mask, so written right in front of
//! the payload it ends where the request began plus four: the payload of a lone frame never moves.
//! Nothing is validated that an echo does not need (no RSV bits, no UTF-8): this is the least that
//! any server can do, not a server.

use std::io;

/// The longest payload the floor answers, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// The header of one masked frame.
pub struct Frame {
    /// FIN and the opcode, as they came.
    pub first: u8,
    /// 6, 8 or 14: the header with its mask.
    pub header_bytes: usize,
    pub payload_bytes: usize,
    mask: [u8; 4],
}

impl Frame {
    /// Reads the header at the start of `bytes`; `None` while it is not complete.
    ///
    /// # Errors
    /// An unmasked frame and one over [`PAYLOAD_BYTES_MAX`] are invalid data.
    pub fn parse(bytes: &[u8]) -> io::Result<Option<Self>> {
        let &[first, second, ..] = bytes else {
            return Ok(None);
        };
        if second & 0x80 == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let (mask_at, payload_bytes) = match second & 0x7f {
            126 => match bytes.get(2..4) {
                Some(length) => (4, usize::from(u16::from_be_bytes([length[0], length[1]]))),
                None => return Ok(None),
            },
            127 => match bytes.get(2..10).and_then(|length| length.try_into().ok()) {
                Some(length) => (10, u64::from_be_bytes(length) as usize),
                None => return Ok(None),
            },
            short => (2, usize::from(short)),
        };
        if payload_bytes > PAYLOAD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mask = bytes
            .get(mask_at..mask_at + 4)
            .and_then(|mask| mask.try_into().ok());
        Ok(mask.map(|mask| Self {
            first,
            header_bytes: mask_at + 4,
            payload_bytes,
            mask,
        }))
    }

    /// The whole frame, in bytes.
    pub fn bytes(&self) -> usize {
        self.header_bytes + self.payload_bytes
    }

    pub fn opcode(&self) -> u8 {
        self.first & 0x0f
    }

    /// Writes the reply to the frame at `at` to `to`, at most four bytes further, and returns its
    /// end. `first` is the reply's first byte.
    pub fn reply(&self, bytes: &mut [u8], at: usize, to: usize, first: u8) -> usize {
        let header_bytes = self.header_bytes - 4;
        assert!(to <= at + 4 && at + self.bytes() <= bytes.len());
        let header = &mut bytes[to..to + header_bytes];
        header[0] = first;
        match header_bytes {
            2 => header[1] = self.payload_bytes as u8,
            4 => {
                header[1] = 126;
                header[2..].copy_from_slice(&(self.payload_bytes as u16).to_be_bytes());
            }
            _ => {
                header[1] = 127;
                header[2..].copy_from_slice(&(self.payload_bytes as u64).to_be_bytes());
            }
        }
        let (from, to) = (at + self.header_bytes, to + header_bytes);
        // SAFETY: `to <= from`, and the assertion above keeps both ranges inside `bytes`.
        unsafe {
            let start = bytes.as_mut_ptr();
            unmask(
                start.add(from),
                start.add(to),
                self.payload_bytes,
                self.mask,
            );
        }
        to + self.payload_bytes
    }
}

/// Unmasks `length` bytes at `from` into `to`, wide and in one pass.
///
/// # Safety
/// Both ranges lie in one allocation and `to <= from`. They may overlap: each step reads all that
/// it writes over before it writes.
unsafe fn unmask(mut from: *const u8, mut to: *mut u8, mut length: usize, mask: [u8; 4]) {
    const WIDE: usize = 8;
    let narrow = u32::from_ne_bytes(mask);
    let word = u64::from(narrow) << 32 | u64::from(narrow);
    // SAFETY: each step is inside the `length` bytes that are left; unaligned on purpose.
    unsafe {
        while length >= 8 * WIDE {
            let mut words = from.cast::<[u64; WIDE]>().read_unaligned();
            for each in &mut words {
                *each ^= word;
            }
            to.cast::<[u64; WIDE]>().write_unaligned(words);
            (from, to, length) = (from.add(8 * WIDE), to.add(8 * WIDE), length - 8 * WIDE);
        }
        while length >= 8 {
            let unmasked = from.cast::<u64>().read_unaligned() ^ word;
            to.cast::<u64>().write_unaligned(unmasked);
            (from, to, length) = (from.add(8), to.add(8), length - 8);
        }
        if length >= 4 {
            let unmasked = from.cast::<u32>().read_unaligned() ^ narrow;
            to.cast::<u32>().write_unaligned(unmasked);
            (from, to, length) = (from.add(4), to.add(4), length - 4);
        }
        for (index, byte) in mask.iter().enumerate().take(length) {
            to.add(index).write(from.add(index).read() ^ byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_of_any_length_is_unmasked_at_any_distance() {
        let mask = [0x11, 0xa2, 0x03, 0xf4];
        for length in 0..300_usize {
            for distance in [0, 4, 12, 60, 64] {
                let payload: Vec<u8> = (0..length).map(|index| (index * 7) as u8).collect();
                let mut bytes = vec![0; distance];
                bytes.extend(
                    payload
                        .iter()
                        .enumerate()
                        .map(|(at, byte)| byte ^ mask[at % 4]),
                );
                let start = bytes.as_mut_ptr();
                // SAFETY: `bytes` holds `distance + length` bytes.
                unsafe { unmask(start.add(distance), start, length, mask) };
                assert_eq!(
                    bytes[..length],
                    payload,
                    "{length} bytes moved by {distance}"
                );
            }
        }
    }

    #[test]
    fn a_header_is_read_only_when_it_is_complete() {
        for header in [
            &[0x82, 0x85, 1, 2, 3, 4][..],
            &[0x82, 0xfe, 0, 200, 1, 2, 3, 4],
            &[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4],
        ] {
            for cut in 0..header.len() {
                assert!(Frame::parse(&header[..cut]).unwrap().is_none());
            }
            let frame = Frame::parse(header).unwrap().unwrap();
            assert_eq!(
                (frame.header_bytes, frame.mask),
                (header.len(), [1, 2, 3, 4])
            );
        }
        assert!(Frame::parse(&[0x82, 0x05]).is_err());
        assert!(Frame::parse(&[0x82, 0xff, 0, 0, 0, 0, 0, 16, 0, 1]).is_err());
    }
}
