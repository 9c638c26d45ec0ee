//! [`ClientId`]: the name of a connection outside of the process.

use std::{
    collections::hash_map::RandomState, fmt, hash::BuildHasher, str::FromStr, sync::LazyLock,
};

use thiserror::Error;

use super::ConnId;
use crate::slots::Key;

/// Names a connection towards clients and servers, in the form of a UUID (RFC 9562, 4). It leads to
/// the connection without a table, and cannot be guessed: a part of it is a keyed hash of the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientId(u128);

/// A text that is not the name of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected a client id: 32 hexadecimal digits in groups of 8-4-4-4-12")]
pub struct NoClientId;

/// Other keys in each process, so that a name of an earlier one leads nowhere.
static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// How many hexadecimal digits each group has.
const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];

impl ClientId {
    /// The connection of this process that it names; it may be gone by now.
    pub fn conn_id(self) -> Option<ConnId> {
        let key = Key {
            slot: (self.0 >> 64) as u32,
            generation: (self.0 >> 32) as u32,
        };
        let id = ConnId::new((self.0 >> 96) as u16, key);
        (id.client_id() == self).then_some(id)
    }
}

impl ConnId {
    /// The name of this connection outside of the process.
    pub fn client_id(self) -> ClientId {
        // Twice, as SipHash gives 64 bits: 32 say which process it is of, or nearly, and 16 are
        // left of the upper half, of which the reactor takes the others.
        let check = KEYS.hash_one(self);
        let key = self.key();
        let upper = (check >> 48) << 16 | u64::from(self.reactor);
        let bits = u128::from(upper) << 96
            | u128::from(key.slot) << 64
            | u128::from(key.generation) << 32
            | u128::from(check as u32);
        ClientId(bits)
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:032x}", self.0);
        let mut rest = &digits[..];
        for (number, length) in GROUPS.into_iter().enumerate() {
            let (group, behind) = rest.split_at(length);
            if number > 0 {
                formatter.write_str("-")?;
            }
            formatter.write_str(group)?;
            rest = behind;
        }
        Ok(())
    }
}

impl FromStr for ClientId {
    type Err = NoClientId;

    fn from_str(text: &str) -> Result<Self, NoClientId> {
        let groups = text.split('-').map(str::len);
        let is_hex =
            |byte: u8| byte == b'-' || byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if !groups.eq(GROUPS) || !text.bytes().all(is_hex) {
            return Err(NoClientId);
        }
        let digits: String = text.split('-').collect();
        u128::from_str_radix(&digits, 16)
            .map(Self)
            .map_err(|_| NoClientId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(reactor: u16, slot: u32, generation: u32) -> ConnId {
        ConnId::new(reactor, Key { slot, generation })
    }

    #[test]
    fn a_name_leads_back_to_its_connection() {
        for id in [
            id(0, 0, 1),
            id(3, 70_000, 9),
            id(u16::MAX, u32::MAX, u32::MAX),
        ] {
            let text = id.client_id().to_string();
            assert_eq!(text.len(), 36);
            assert_eq!(text.parse::<ClientId>().unwrap().conn_id(), Some(id));
        }
    }

    #[test]
    fn a_name_that_was_made_up_leads_nowhere() {
        let text = id(0, 5, 7).client_id().to_string();
        let near = text
            .replacen("00000005", "00000006", 1)
            .replacen("0000-0005", "0000-0006", 1);
        assert_ne!(near, text);
        assert_eq!(near.parse::<ClientId>().unwrap().conn_id(), None);
        for text in [
            "",
            "42",
            &text[1..],
            &text.replace('-', ""),
            &text.replace('-', "+"),
        ] {
            assert_eq!(text.parse::<ClientId>(), Err(NoClientId));
        }
    }
}
