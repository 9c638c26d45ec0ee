//! The records of an open connection, RFC 8446, 5.2, with nothing else in the way.
//!
//! A TLS library takes as long for a small record as the rest of an exchange takes the client, and
//! then the client is what is measured. So the echo load opens with rustls, asks it for the keys
//! and goes on alone: AES-256-GCM, one nonce a record, and of the replies that nobody compares only
//! the headers are read. There is no key update, no ticket and no alert here: each of them ends the
//! run.

use std::io;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use rustls::{ClientConnection, ConnectionTrafficSecrets};

const HEADER_BYTES: usize = 5;
const TAG_BYTES: usize = 16;
/// Behind the plaintext stands its type, of one byte, and behind that the tag.
const TRAILER_BYTES: usize = 1 + TAG_BYTES;
const PLAIN_BYTES_MAX: usize = 16 * 1024;
const APPLICATION_DATA: u8 = 23;
/// Both directions of a connection.
pub struct Records {
    sealing: Direction,
    opening: Direction,
}

struct Direction {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    /// Of the next record.
    sequence: u64,
}

impl Records {
    /// The records of a connection from where rustls is with it.
    ///
    /// # Errors
    /// The handshake is not over, something is left to send, or the suite is another one.
    pub fn new(connection: ClientConnection) -> io::Result<Self> {
        let secrets = connection
            .dangerous_extract_secrets()
            .map_err(io::Error::other)?;
        Ok(Self {
            sealing: Direction::new(secrets.tx)?,
            opening: Direction::new(secrets.rx)?,
        })
    }

    /// Appends `plain` in as few records as it fits.
    ///
    /// # Errors
    /// None with data of this size.
    pub fn seal(&mut self, plain: &[u8], sending: &mut Vec<u8>) -> io::Result<()> {
        for part in plain.chunks(PLAIN_BYTES_MAX) {
            let at = sending.len();
            sending.extend_from_slice(&header(part.len() + TRAILER_BYTES));
            sending.extend_from_slice(part);
            sending.extend_from_slice(&[0; TRAILER_BYTES]);
            let (header, body) = sending[at..].split_at_mut(HEADER_BYTES);
            let (sealed, trailer) = body.split_at_mut(part.len());
            let Direction { key, .. } = &self.sealing;
            let nonce = self.sealing.nonce();
            let (aad, kind) = (Aad::from(&*header), [APPLICATION_DATA]);
            key.seal_in_place_scatter(nonce, aad, sealed, &kind, trailer)
                .map_err(broken)?;
            self.sealing.sequence += 1;
        }
        Ok(())
    }

    /// Decrypts the record that `bytes` begin with into `room`. `None` while it is not complete.
    ///
    /// # Errors
    /// Anything but application data, and more of it than there is room for.
    pub fn open(&mut self, bytes: &[u8], room: &mut [u8]) -> io::Result<Option<Opened>> {
        let Some((record, opened)) = split(bytes)? else {
            return Ok(None);
        };
        let (header, body) = record.split_at(HEADER_BYTES);
        let (sealed, tag) = body.split_at(body.len() - TAG_BYTES);
        let room = room.get_mut(..sealed.len()).ok_or_else(too_much)?;
        let Direction { key, .. } = &self.opening;
        let nonce = self.opening.nonce();
        key.open_separate_gather(nonce, Aad::from(header), sealed, tag, room)
            .map_err(|Unspecified| io::Error::other("a record that does not decrypt"))?;
        self.opening.sequence += 1;
        match room.last() {
            Some(&APPLICATION_DATA) => Ok(Some(opened)),
            kind => Err(io::Error::other(format!(
                "a record of type {kind:?} instead of a message"
            ))),
        }
    }

    /// The same without decryption: only the sizes are told.
    ///
    /// # Errors
    /// Those of [`Self::open`] as far as headers tell.
    pub fn skip(&mut self, bytes: &[u8]) -> io::Result<Option<Opened>> {
        let Some((_, opened)) = split(bytes)? else {
            return Ok(None);
        };
        self.opening.sequence += 1;
        Ok(Some(opened))
    }
}

/// The sizes of one record.
pub struct Opened {
    pub record_bytes: usize,
    /// Without padding, which none of the servers adds.
    pub plain_bytes: usize,
}

/// Room for the plaintext of one record, with its type behind it.
pub const fn room_bytes(plain_bytes: usize) -> usize {
    plain_bytes + 1
}

fn header(body_bytes: usize) -> [u8; HEADER_BYTES] {
    let [high, low] = (body_bytes as u16).to_be_bytes();
    [APPLICATION_DATA, 3, 3, high, low]
}

/// The record that `bytes` begin with.
fn split(bytes: &[u8]) -> io::Result<Option<(&[u8], Opened)>> {
    let &[kind, _, _, high, low, ..] = bytes else {
        return Ok(None);
    };
    let body_bytes = usize::from(u16::from_be_bytes([high, low]));
    let Some(plain_bytes) = body_bytes.checked_sub(TRAILER_BYTES) else {
        return Err(io::Error::other("a record too short for its tag"));
    };
    if kind != APPLICATION_DATA {
        return Err(io::Error::other(format!("a bare record of type {kind}")));
    }
    let record_bytes = HEADER_BYTES + body_bytes;
    let opened = Opened {
        record_bytes,
        plain_bytes,
    };
    Ok(bytes.get(..record_bytes).map(|record| (record, opened)))
}

impl Direction {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> io::Result<Self> {
        let ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets else {
            return Err(io::Error::other(
                "not AES-256-GCM, which this load knows alone",
            ));
        };
        let key = UnboundKey::new(&AES_256_GCM, key.as_ref()).map_err(broken)?;
        Ok(Self {
            key: LessSafeKey::new(key),
            iv: iv.as_ref().try_into().map_err(io::Error::other)?,
            sequence,
        })
    }

    /// RFC 8446, 5.3.
    fn nonce(&self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= number;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

fn broken(_: Unspecified) -> io::Error {
    io::Error::other("the keys of the connection do not work")
}

/// The answer has more bytes than it should.
pub fn too_much() -> io::Error {
    io::Error::other("more came back than was sent")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direction() -> Direction {
        let key = UnboundKey::new(&AES_256_GCM, &[7; 32]).unwrap();
        Direction {
            key: LessSafeKey::new(key),
            iv: [9; NONCE_LEN],
            sequence: 3,
        }
    }

    fn records() -> Records {
        Records {
            sealing: direction(),
            opening: direction(),
        }
    }

    #[test]
    fn what_was_sealed_opens_in_order_and_only_then() {
        let plain: Vec<u8> = (0..40_000_u32).map(|index| (index * 31) as u8).collect();
        let mut sealed = Vec::new();
        records().seal(&plain, &mut sealed).unwrap();
        assert_eq!(
            sealed.len(),
            plain.len() + 3 * (HEADER_BYTES + TRAILER_BYTES)
        );

        let mut receiver = records();
        let mut room = vec![0; room_bytes(plain.len())];
        let (mut at, mut filled) = (0, 0);
        while let Some(opened) = receiver.open(&sealed[at..], &mut room[filled..]).unwrap() {
            at += opened.record_bytes;
            filled += opened.plain_bytes;
        }
        assert!(at == sealed.len() && room[..filled] == plain);

        let second = &sealed[HEADER_BYTES + PLAIN_BYTES_MAX + TRAILER_BYTES..];
        assert!(records().open(second, &mut room).is_err());
        let mut receiver = records();
        let skipped = receiver.skip(&sealed).unwrap().unwrap();
        assert_eq!(skipped.plain_bytes, PLAIN_BYTES_MAX);
        assert!(receiver.open(second, &mut room).unwrap().is_some());
    }

    #[test]
    fn a_record_is_taken_only_when_it_is_whole_and_unchanged() {
        let mut sealed = Vec::new();
        records()
            .seal(b"twenty bytes of text", &mut sealed)
            .unwrap();
        let mut room = [0; room_bytes(20)];
        for cut in 0..sealed.len() {
            let opened = records().open(&sealed[..cut], &mut room).unwrap();
            assert!(opened.is_none(), "cut at {cut}");
        }
        for at in HEADER_BYTES..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(records().open(&changed, &mut room).is_err(), "byte {at}");
        }
        assert!(records().open(&sealed, &mut room[..20]).is_err());
        assert!(records().open(&[21, 3, 3, 0, 17, 0], &mut room).is_err());
    }
}
