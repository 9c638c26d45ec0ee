//! Tokens that are called back before they expire.
//!
//! Remembered are digests of names, so that each entry has the same size whatever a peer puts into
//! its token, and nobody chooses where it lands. What has been acknowledged is never forgotten
//! before the tokens that it means have expired; a full memory refuses instead.

use std::collections::HashMap;

use aws_lc_rs::digest;
use thiserror::Error;

use super::Claims;

/// How many are remembered at once, in at most 8 MiB.
pub const REVOCATIONS_MAX: usize = 65_536;

/// The end of what is remembered until the server stops.
const NEVER: i64 = i64::MAX;

/// Which tokens are called back. Times are in seconds since 1970; without `expires` a revocation is
/// remembered until the server stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// The one token with this `jti`, which expires then.
    Id { id: String, expires: Option<i64> },
    /// The tokens of this `sub` that were issued at or before `at`, those that do not say when
    /// (`iat`) too. The last of them expires at `expires`.
    Subject {
        subject: String,
        expires: Option<i64>,
        at: i64,
    },
}

/// As many revocations are remembered as may be, and none of them is over yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{REVOCATIONS_MAX} revocations are remembered, there is room when some of them expire")]
pub struct RevocationsFull;

/// All that is remembered.
///
/// Invariant: there are at most `REVOCATIONS_MAX` entries, and none ends before `first_end`.
#[derive(Debug)]
pub(super) struct Revocations {
    ids: HashMap<Name, i64>,
    subjects: HashMap<Name, Subject>,
    /// Before this second, sweeping would find nothing.
    first_end: i64,
}

/// SHA-256 of a `jti` or `sub`.
type Name = [u8; digest::SHA256_OUTPUT_LEN];

#[derive(Clone, Copy, Debug)]
struct Subject {
    issued_max: i64,
    end: i64,
}

impl Revocation {
    /// Whether these claims are among those called back. When that ends is not looked at.
    pub fn covers(&self, claims: &Claims) -> bool {
        match self {
            Self::Id { id, .. } => claims.id.as_deref() == Some(id),
            Self::Subject { subject, at, .. } => {
                claims.subject.as_deref() == Some(subject) && is_by(claims.issued, *at)
            }
        }
    }
}

impl Revocations {
    /// Remembers one more. A token is good for a leeway after it expires, and so is this.
    pub(super) fn insert(
        &mut self,
        revocation: &Revocation,
        leeway_seconds: u64,
        now: i64,
    ) -> Result<(), RevocationsFull> {
        let (Revocation::Id { expires, .. } | Revocation::Subject { expires, .. }) = revocation;
        let end = expires.map_or(NEVER, |end| end.saturating_add_unsigned(leeway_seconds));
        if end <= now {
            return Ok(());
        }
        if self.first_end <= now {
            self.sweep(now);
        }
        let is_full = self.len() >= REVOCATIONS_MAX;
        match revocation {
            Revocation::Id { id, .. } => {
                let name = name(id);
                if is_full && !self.ids.contains_key(&name) {
                    return Err(RevocationsFull);
                }
                let known = self.ids.entry(name).or_insert(end);
                *known = end.max(*known);
            }
            Revocation::Subject { subject, at, .. } => {
                let name = name(subject);
                if is_full && !self.subjects.contains_key(&name) {
                    return Err(RevocationsFull);
                }
                // Of two, what either refuses is refused until the later end.
                let issued_max = *at;
                let entry = self.subjects.entry(name);
                let known = entry.or_insert(Subject { issued_max, end });
                known.issued_max = issued_max.max(known.issued_max);
                known.end = end.max(known.end);
            }
        }
        self.first_end = self.first_end.min(end);
        self.check_invariants();
        Ok(())
    }

    /// Whether these claims are refused at this second.
    pub(super) fn cover(&self, claims: &Claims, now: i64) -> bool {
        let by_id = || {
            let end = self.ids.get(&name(claims.id.as_deref()?))?;
            Some(now < *end)
        };
        let by_subject = || {
            let entry = self.subjects.get(&name(claims.subject.as_deref()?))?;
            Some(now < entry.end && is_by(claims.issued, entry.issued_max))
        };
        // Most servers never revoke anything, and then nothing is hashed.
        !self.ids.is_empty() && by_id() == Some(true)
            || !self.subjects.is_empty() && by_subject() == Some(true)
    }

    fn len(&self) -> usize {
        self.ids.len() + self.subjects.len()
    }

    fn sweep(&mut self, now: i64) {
        self.ids.retain(|_, end| now < *end);
        self.subjects.retain(|_, subject| now < subject.end);
        let subjects = self.subjects.values().map(|subject| subject.end);
        let ends = self.ids.values().copied().chain(subjects);
        self.first_end = ends.min().unwrap_or(NEVER);
        self.ids.shrink_to(self.ids.len() * 2);
        self.subjects.shrink_to(self.subjects.len() * 2);
    }

    fn check_invariants(&self) {
        debug_assert!(self.len() <= REVOCATIONS_MAX);
    }
}

impl Default for Revocations {
    fn default() -> Self {
        Self {
            ids: HashMap::new(),
            subjects: HashMap::new(),
            first_end: NEVER,
        }
    }
}

/// Whether a token may have been issued at or before that second.
fn is_by(issued: Option<i64>, at: i64) -> bool {
    issued.is_none_or(|issued| issued <= at)
}

fn name(text: &str) -> Name {
    let mut name = Name::default();
    name.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    name
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn id(id: &str, expires: Option<i64>) -> Revocation {
        let id = id.to_owned();
        Revocation::Id { id, expires }
    }

    fn subject(subject: &str, expires: Option<i64>, at: i64) -> Revocation {
        Revocation::Subject {
            subject: subject.to_owned(),
            expires,
            at,
        }
    }

    fn claims(value: &serde_json::Value) -> Claims {
        Claims::read(value.as_object().unwrap().clone()).unwrap()
    }

    #[test]
    fn an_id_is_refused_until_its_token_has_expired_and_the_leeway_is_over() {
        let mut revocations = Revocations::default();
        let token = claims(&json!({"jti": "a", "sub": "b"}));
        assert!(!revocations.cover(&token, 0));
        revocations.insert(&id("a", Some(100)), 5, 50).unwrap();
        assert!(revocations.cover(&token, 104));
        assert!(!revocations.cover(&token, 105));
        assert!(!revocations.cover(&claims(&json!({"jti": "b", "sub": "a"})), 60));
        assert!(!revocations.cover(&claims(&json!({})), 60));
    }

    #[test]
    fn a_subject_is_refused_for_tokens_issued_till_then_and_undated_ones() {
        let mut revocations = Revocations::default();
        let revocation = subject("u", None, 1000);
        revocations.insert(&revocation, 5, 1000).unwrap();
        for (token, is_covered) in [
            (json!({"sub": "u", "iat": 999}), true),
            (json!({"sub": "u", "iat": 1000}), true),
            (json!({"sub": "u", "iat": 1000.9}), true),
            (json!({"sub": "u"}), true),
            (json!({"sub": "u", "iat": 1001}), false),
            (json!({"sub": "v", "iat": 1}), false),
            (json!({"jti": "u"}), false),
        ] {
            let token = claims(&token);
            assert_eq!(
                revocations.cover(&token, i64::MAX - 1),
                is_covered,
                "{token:?}"
            );
            assert_eq!(revocation.covers(&token), is_covered, "{token:?}");
        }
    }

    #[test]
    fn a_second_revocation_never_weakens_the_first() {
        let mut revocations = Revocations::default();
        let old = claims(&json!({"sub": "u", "iat": 90, "jti": "a"}));
        revocations.insert(&subject("u", None, 90), 0, 100).unwrap();
        revocations
            .insert(&subject("u", Some(200), 80), 0, 100)
            .unwrap();
        assert!(revocations.cover(&old, 5000));
        let mut revocations = Revocations::default();
        revocations.insert(&id("a", Some(300)), 0, 100).unwrap();
        revocations.insert(&id("a", Some(200)), 0, 100).unwrap();
        assert!(revocations.cover(&old, 299));
        revocations.insert(&id("a", None), 0, 100).unwrap();
        assert!(revocations.cover(&old, 5000));
    }

    #[test]
    fn what_is_full_refuses_forgets_nothing_and_has_room_again_when_entries_end() {
        let mut revocations = Revocations::default();
        for number in 0..REVOCATIONS_MAX as i64 {
            let name = number.to_string();
            let entry = match number % 2 {
                0 => id(&name, Some(1000 + number)),
                _ => subject(&name, Some(1000 + number), 0),
            };
            revocations.insert(&entry, 0, 10).unwrap();
        }
        let full = Err(RevocationsFull);
        assert_eq!(revocations.insert(&id("x", None), 0, 999), full);
        assert_eq!(revocations.insert(&subject("x", None, 0), 0, 999), full);
        assert_eq!(revocations.insert(&id("0", Some(1000)), 0, 999), Ok(()));
        assert!(revocations.cover(&claims(&json!({"jti": "0"})), 999));
        assert!(revocations.cover(&claims(&json!({"sub": "1"})), 999));

        assert_eq!(revocations.insert(&id("x", None), 0, 1001), Ok(()));
        assert_eq!(revocations.insert(&id("y", None), 0, 1001), Ok(()));
        assert_eq!(revocations.insert(&id("z", None), 0, 1001), full);
        assert!(revocations.cover(&claims(&json!({"jti": "x"})), 1002));
        assert!(!revocations.cover(&claims(&json!({"jti": "z"})), 1002));

        let end = 2000 + REVOCATIONS_MAX as i64;
        assert_eq!(revocations.insert(&id("z", None), 0, end), Ok(()));
        assert_eq!(revocations.len(), 3);
        assert!(revocations.ids.capacity() < 100);
    }

    #[test]
    fn what_is_over_already_takes_no_room() {
        let mut revocations = Revocations::default();
        revocations.insert(&id("a", Some(95)), 5, 100).unwrap();
        assert_eq!(revocations.len(), 0);
        revocations.insert(&id("a", Some(96)), 5, 100).unwrap();
        assert_eq!(revocations.len(), 1);
        revocations
            .insert(&id("b", Some(i64::MAX)), 5, 100)
            .unwrap();
        revocations
            .insert(&id("c", Some(i64::MIN)), 5, 100)
            .unwrap();
        assert_eq!(revocations.len(), 2);
    }
}
