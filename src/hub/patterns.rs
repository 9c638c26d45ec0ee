//! `Patterns`: who is interested in whole families of channels.
//!
//! Every home knows all patterns, since a channel that matches may live anywhere. A pattern is
//! what a family's names begin with, up to a `.` or a `:`, and a `*` behind it; so a publication
//! finds its patterns by looking up the beginnings of its channel's name.

use std::collections::HashMap;

use super::{Channel, interest::Interests, is_reserved};

/// The patterns that somebody is subscribed to.
#[derive(Debug, Default)]
pub struct Patterns {
    /// By what their names begin with, the `*` left away.
    known: HashMap<Box<str>, Pattern>,
}

#[derive(Debug)]
struct Pattern {
    name: Channel,
    interests: Interests,
}

/// Whether this is the name of a pattern, where there may be any.
pub fn is_pattern(name: &str) -> bool {
    name.ends_with(".*") || name.ends_with(":*")
}

impl Patterns {
    pub fn subscribe(&mut self, name: &Channel, reactor: u16) {
        let beginning = beginning(name);
        let pattern = match self.known.get_mut(beginning) {
            Some(pattern) => pattern,
            None => self.known.entry(beginning.into()).or_insert(Pattern {
                name: Channel::clone(name),
                interests: Interests::default(),
            }),
        };
        pattern.interests.add(reactor, false);
    }

    pub fn unsubscribe(&mut self, name: &str, reactor: u16) {
        let beginning = beginning(name);
        let Some(pattern) = self.known.get_mut(beginning) else {
            debug_assert!(false, "a subscription ends that never began");
            return;
        };
        pattern.interests.remove(reactor, false);
        if pattern.interests.is_empty() {
            self.known.remove(beginning);
        }
    }

    /// The patterns that a channel matches, with those who are interested. Names that need a proof
    /// of their own match none.
    pub fn of<'a>(
        &'a self,
        channel: &'a str,
    ) -> impl Iterator<Item = (&'a Channel, &'a Interests)> {
        let looks = !self.known.is_empty() && is_matchable(channel);
        let channel = if looks { channel } else { "" };
        let ends = channel.match_indices(['.', ':']);
        let patterns = ends.filter_map(|(end, _)| self.known.get(&channel[..=end]));
        patterns.map(|pattern| (&pattern.name, &pattern.interests))
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

fn beginning(name: &str) -> &str {
    name.strip_suffix('*').unwrap_or(name)
}

fn is_matchable(channel: &str) -> bool {
    let protected = ["$", "private-", "presence-"];
    !is_reserved(channel)
        && !channel.contains('#')
        && !protected.iter().any(|kind| channel.starts_with(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matching(patterns: &Patterns, channel: &str) -> Vec<String> {
        let mut names: Vec<_> = patterns
            .of(channel)
            .map(|(name, _)| name.to_string())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_channel_matches_every_pattern_it_begins_with() {
        let mut patterns = Patterns::default();
        for name in ["news.*", "news.sports.*", "chat:*", "chat:a.*"] {
            assert!(is_pattern(name));
            patterns.subscribe(&name.into(), 1);
        }
        assert_eq!(matching(&patterns, "news.weather"), ["news.*"]);
        let both = ["news.*", "news.sports.*"];
        assert_eq!(matching(&patterns, "news.sports.tennis"), both);
        assert_eq!(matching(&patterns, "chat:a.b"), ["chat:*", "chat:a.*"]);
        assert_eq!(matching(&patterns, "newspaper"), [""; 0]);
        patterns.unsubscribe("news.*", 1);
        assert_eq!(matching(&patterns, "news.sports.tennis"), ["news.sports.*"]);
        for name in ["news", "*", "news*", "news.*.more"] {
            assert!(!is_pattern(name));
        }
    }

    #[test]
    fn what_needs_a_proof_matches_nothing() {
        let mut patterns = Patterns::default();
        for name in ["private-a.*", "presence-a.*", "$a.*", "a.*", "\u{1}u.*"] {
            patterns.subscribe(&name.into(), 0);
        }
        for channel in ["private-a.b", "presence-a.b", "$a.b", "a.b#7", "\u{1}u.b"] {
            assert_eq!(matching(&patterns, channel), [""; 0]);
        }
        assert_eq!(matching(&patterns, "a.b"), ["a.*"]);
    }
}
