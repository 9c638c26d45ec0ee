//! `Backlog`: what a peer has said and its channel's home has not taken.

use std::collections::VecDeque;

use crate::handler::Payload;

/// Messages in the order in which they were said: first what the home has refused, then what is on
/// its way to it, then the rest.
#[derive(Debug, Default)]
pub struct Backlog {
    payloads: VecDeque<Payload>,
    refused: usize,
    under_way: usize,
}

impl Backlog {
    pub fn push(&mut self, payload: Payload) {
        self.payloads.push_back(payload);
    }

    /// What goes out next. Nothing does while something that was said earlier is refused.
    pub fn next(&self) -> Option<&Payload> {
        if self.refused > 0 || self.under_way == UNDER_WAY_MAX {
            return None;
        }
        self.payloads.get(self.under_way)
    }

    /// The next one is on its way.
    pub fn sent(&mut self) {
        self.under_way += 1;
    }

    /// The home has taken the oldest that is on its way.
    pub fn taken(&mut self) {
        if self.under_way > 0 {
            self.under_way -= 1;
            self.payloads.remove(self.refused);
        }
    }

    /// The home has refused the oldest that is on its way.
    pub fn refused(&mut self) {
        if self.under_way > 0 {
            self.under_way -= 1;
            self.refused += 1;
        }
    }

    /// Whether something was refused, and nothing that was said after it is on its way any more.
    pub fn must_pause(&self) -> bool {
        self.refused > 0 && self.under_way == 0
    }

    /// What was refused goes out again.
    pub fn retry(&mut self) {
        if self.must_pause() {
            self.refused = 0;
        }
    }

    /// Whether something is neither taken nor on its way.
    pub fn is_held(&self) -> bool {
        self.payloads.len() > self.under_way
    }

    pub fn is_empty(&self) -> bool {
        self.payloads.is_empty()
    }
}

/// Messages of one peer that may be on their way to the channel's home.
const UNDER_WAY_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::handler::Message;

    /// Publishes as a peer does, to a home that answers each message as told.
    #[test]
    fn what_is_refused_goes_out_again_before_what_came_later() {
        let mut backlog = Backlog::default();
        let mut said = 0;
        let mut say = |backlog: &mut Backlog, count: usize| {
            for _ in 0..count {
                said += 1;
                backlog.push(Message::Text(&said.to_string()).into());
            }
        };
        let send = |backlog: &mut Backlog| {
            let mut sent = Vec::new();
            while let Some(Payload::Text(text)) = backlog.next() {
                sent.push(text.to_string());
                backlog.sent();
            }
            sent
        };
        say(&mut backlog, 3);
        assert_eq!(send(&mut backlog), ["1", "2", "3"]);
        assert!(!backlog.is_held());
        backlog.taken();
        backlog.refused();
        assert!(!backlog.must_pause(), "one is on its way still");
        say(&mut backlog, 1);
        assert!(backlog.is_held());
        assert_eq!(send(&mut backlog), [""; 0]);
        backlog.retry();
        assert_eq!(
            send(&mut backlog),
            [""; 0],
            "before the last one is answered"
        );
        backlog.refused();
        assert!(backlog.must_pause());
        backlog.retry();
        assert_eq!(send(&mut backlog), ["2", "3", "4"]);
        for _ in 0..3 {
            assert!(!backlog.is_empty());
            backlog.taken();
        }
        assert!(backlog.is_empty() && !backlog.is_held());
        backlog.taken();
        backlog.refused();
        assert!(!backlog.must_pause(), "nobody was asked");
    }

    #[test]
    fn so_much_is_under_way_and_no_more() {
        let mut backlog = Backlog::default();
        for _ in 0..UNDER_WAY_MAX + 1 {
            backlog.push(Payload::Binary(Bytes::new()));
        }
        while backlog.next().is_some() {
            backlog.sent();
        }
        assert_eq!(backlog.under_way, UNDER_WAY_MAX);
        assert!(backlog.is_held());
        backlog.taken();
        assert!(backlog.next().is_some());
    }
}
