//! The bytes of a burst: what is published, and what every subscriber must get of it.

use std::io;

use super::delivery::{Order, Waiting};
use super::words::{self, Dialect, STAMP_BYTES};
use crate::socket::MASK;

/// The bytes of one burst, those that are sent and those that must come.
pub struct Script {
    pub in_flight: usize,
    pub waiting: Waiting,
    payload: Vec<u8>,
    /// In front of the payload in each frame of `request`, header included.
    lead_bytes: usize,
    /// Behind the header: where a frame's mask begins.
    masked_from: usize,
    pub request: Vec<u8>,
    pub request_bytes: usize,
    push: Option<Push>,
    pub pushes: Vec<u8>,
    /// Where in `pushes` each one ends.
    pub ends: Vec<usize>,
    pub room: Vec<u8>,
}

impl Script {
    pub fn new(dialect: Dialect, order: Order) -> Self {
        let [before, payload, behind] = dialect.publication(order.payload_bytes);
        let words = [&before[..], &payload, &behind].concat();
        let request = words::frame(words.as_bytes());
        let masked_from = request.len() - words.len();
        Self {
            in_flight: order.in_flight,
            waiting: order.waiting,
            payload: payload.into_bytes(),
            lead_bytes: masked_from + before.len(),
            masked_from,
            request_bytes: request.len(),
            request: request.repeat(order.in_flight),
            push: None,
            pushes: Vec::new(),
            ends: Vec::new(),
            room: vec![0; 64 * 1024 + order.in_flight * 2 * words.len()],
        }
    }

    /// Stamps the next burst.
    pub fn prepare(&mut self, number: &mut u32) {
        self.pushes.clear();
        self.ends.clear();
        for index in 0..self.in_flight {
            let stamp = words::stamp(*number);
            *number = number.wrapping_add(1);
            let at = index * self.request_bytes + self.lead_bytes;
            let mask = MASK
                .iter()
                .cycle()
                .skip((self.lead_bytes - self.masked_from) % 4);
            for ((place, byte), mask) in self.request[at..].iter_mut().zip(stamp).zip(mask) {
                *place = byte ^ mask;
            }
            if let Some(push) = &mut self.push {
                push.write(stamp, &mut self.pushes);
                self.ends.push(self.pushes.len());
            }
        }
    }

    /// Takes `frame` for what each publication becomes.
    ///
    /// # Errors
    /// What was published is not in it.
    pub fn expect(&mut self, frame: &[u8]) -> io::Result<()> {
        self.push = Some(
            Push::learn(frame, &self.payload[STAMP_BYTES..]).ok_or_else(|| {
                let frame = String::from_utf8_lossy(frame);
                io::Error::other(format!("this is no push of what was published: {frame:?}"))
            })?,
        );
        self.pushes = frame.to_vec();
        self.ends = vec![frame.len()];
        Ok(())
    }

    /// The payload of one delivery, in bytes.
    pub fn push_bytes(&self) -> usize {
        self.push.as_ref().map_or(0, |push| push.payload.len())
    }
}

/// How a publication is delivered.
struct Push {
    opcode: u8,
    payload: Vec<u8>,
    stamp_at: usize,
    /// Where its number stands, and the number, where the server gives publications one.
    offset: Option<(usize, u64)>,
}

impl Push {
    /// `letters` are what is published behind the stamp.
    fn learn(frame: &[u8], letters: &[u8]) -> Option<Self> {
        const OFFSET: &[u8] = br#""offset":"#;
        let [start, end] = words::payload_of(frame)?;
        let payload = frame.get(start..end).filter(|_| end == frame.len())?;
        let find = |what: &[u8]| {
            payload
                .windows(what.len())
                .position(|window| window == what)
        };
        let offset = find(OFFSET).and_then(|at| {
            let at = at + OFFSET.len();
            let digits = payload[at..]
                .iter()
                .take_while(|byte| byte.is_ascii_digit());
            let number = String::from_utf8(digits.copied().collect()).ok()?;
            Some((at, number.parse().ok()?))
        });
        Some(Self {
            opcode: frame[0],
            payload: payload.to_vec(),
            stamp_at: find(letters)?.checked_sub(STAMP_BYTES)?,
            offset,
        })
    }

    /// Appends the next one.
    fn write(&mut self, stamp: [u8; STAMP_BYTES], to: &mut Vec<u8>) {
        self.payload[self.stamp_at..][..STAMP_BYTES].copy_from_slice(&stamp);
        if let Some((at, number)) = &mut self.offset {
            let digits = *at..*at + number.to_string().len();
            *number += 1;
            self.payload.splice(digits, number.to_string().into_bytes());
        }
        to.push(self.opcode);
        match self.payload.len() {
            short @ ..126 => to.push(short as u8),
            long => {
                to.push(126);
                to.extend((long as u16).to_be_bytes());
            }
        }
        to.extend_from_slice(&self.payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(payload: &str) -> Vec<u8> {
        let mut frame = vec![0x81];
        match payload.len() {
            short @ ..126 => frame.push(short as u8),
            long => frame.extend([126, 0, long as u8]),
        }
        frame.extend(payload.as_bytes());
        frame
    }

    #[test]
    fn a_push_is_learnt_with_its_stamp_and_number() {
        let letters = "ijkl".repeat(22);
        let push = |stamp: &str, offset: &str| {
            frame(&format!(
                r#"{{"pub":{{"data":"{stamp}{letters}","offset":{offset}}}}}"#
            ))
        };
        let mut learnt = Push::learn(&push("aaaaaaaa", "8"), letters.as_bytes()).unwrap();
        let mut written = Vec::new();
        learnt.write(*b"aaaaaaab", &mut written);
        learnt.write(*b"aaaaaaac", &mut written);
        assert_eq!(
            written,
            [push("aaaaaaab", "9"), push("aaaaaaac", "10")].concat()
        );
        let other = frame(&"x".repeat(110));
        assert!(Push::learn(&other, letters.as_bytes()).is_none());
    }
}
