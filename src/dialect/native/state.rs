//! What is remembered of one connection: little, and next to nothing while it is idle. What it is
//! subscribed to the hub knows.

use std::{collections::VecDeque, mem, sync::Arc};

use super::token::{Grant, Mismatch, Pass};
use crate::wheel::Tick;

/// One connection. What takes part of an answer or of a frame stands in a box that is there only
/// while it is needed.
#[derive(Debug, Default)]
pub struct State {
    pub(super) is_connected: bool,
    /// It is pinged with `{}`; without, the frames of RFC 6455 do it.
    pub(super) is_pinged: bool,
    pub(super) awaits_pong: bool,
    pub(super) awaits_room: bool,
    /// Commands wait until the client has read more of what it was answered.
    pub(super) awaits_drain: bool,
    /// The last answer was small that might have been large.
    pub(super) has_small_answers: bool,
    /// What is published waits until replies were sent that it must not overtake.
    pub(super) holds: bool,
    /// The last tag that was given to a question.
    tag: u32,
    /// When the first command must have come, or the next ping is due, or its pong. 0: never.
    pub(super) due: Tick,
    /// What others are told about the connection, as an object of JSON, once somebody is; all of
    /// its subscriptions share it.
    pub(super) shown: Option<Arc<str>>,
    /// What tokens say of subscriptions, those of which there is something to remember.
    pub(super) passes: Vec<Pass>,
    work: Option<Box<Work>>,
}

/// What has begun and waits for something.
#[derive(Debug, Default)]
pub struct Work {
    /// What the token of the upgrade grants, until the client connects.
    pub(super) grant: Option<Result<Grant, Mismatch>>,
    /// What the client is yet to be answered, in the order in which it asked.
    pub(super) pending: VecDeque<Pending>,
    /// Commands that wait.
    pub(super) rest: Rest,
    /// The reply to the first command, which waits for the subscriptions that come with it.
    pub(super) connecting: Option<Connecting>,
}

/// A text of commands, and how far it was dealt with.
#[derive(Debug, Default)]
pub struct Rest {
    pub text: String,
    pub at: usize,
}

/// A reply that is not sent yet.
#[derive(Debug)]
pub struct Pending {
    /// That of the question to a channel's home; 0: it is answered.
    tag: u32,
    /// The command's; 0: none.
    id: u32,
    /// The answer may be large.
    is_heavy: bool,
    wish: Wish,
}

#[derive(Debug)]
pub enum Wish {
    Publish,
    Presence,
    PresenceStats,
    History,
    Subscribe(Box<Wanted>),
    /// It is answered, but something before it is not.
    Said {
        text: String,
        /// The client learns by it that it is subscribed.
        begins: bool,
    },
}

impl Wish {
    /// Whether the answer may be large.
    pub fn is_heavy(&self) -> bool {
        match self {
            Self::History | Self::Presence => true,
            Self::Subscribe(wanted) => wanted.since.is_some(),
            Self::Publish | Self::PresenceStats | Self::Said { .. } => false,
        }
    }
}

/// A subscription that the channel's home does not know yet.
#[derive(Debug)]
pub struct Wanted {
    pub channel: Box<str>,
    pub by: By,
    /// The offset behind which the client wants what it missed.
    pub since: Option<u64>,
    pub is_recoverable: bool,
    pub is_positioned: bool,
    /// It wants no subscription unless it recovers.
    pub rejects_gap: bool,
}

/// Who wanted it.
#[derive(Debug, PartialEq, Eq)]
pub enum By {
    Client,
    /// The connection's token.
    Token,
    /// The server API, which had this to say.
    Server {
        data: Option<Box<str>>,
    },
}

/// The first command, until all subscriptions that come with it are there.
#[derive(Debug)]
pub struct Connecting {
    pub id: u32,
    pub expires: Option<i64>,
    pub waiting: usize,
    /// The fields of the reply's `subs`.
    pub subs: String,
}

/// Questions that one connection may have under way.
pub const PENDING_MAX: usize = 256;

/// Those among them whose answers may be as large as all that a client may miss, but were not of
/// late; otherwise one.
pub const HEAVY_MAX: usize = 4;

impl State {
    /// Whether the client has said who it is.
    pub fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Makes room for a question; its tag is never 0.
    pub fn ask(&mut self, id: u32, wish: Wish) -> u32 {
        self.tag = self.tag.wrapping_add(1).max(1);
        let pending = Pending {
            tag: self.tag,
            id,
            is_heavy: wish.is_heavy(),
            wish,
        };
        self.work().pending.push_back(pending);
        self.tag
    }

    /// Takes back the last question.
    pub fn unask(&mut self) {
        self.work().pending.pop_back();
    }

    /// The question with this tag, which is answered now: its place in the order, the id of the
    /// command and what it was. It keeps its place until [`State::said`] or [`State::forget`].
    pub fn answered(&mut self, tag: u32) -> Option<(usize, u32, Wish)> {
        self.take(|pending| pending.tag == tag)
    }

    /// The same for the wish to subscribe to a channel, if its home has not answered it yet.
    pub fn cancelled(&mut self, channel: &str) -> Option<(usize, u32, Wish)> {
        self.take(|pending| {
            matches!(&pending.wish, Wish::Subscribe(wanted) if &*wanted.channel == channel)
        })
    }

    fn take(&mut self, is_it: impl Fn(&Pending) -> bool) -> Option<(usize, u32, Wish)> {
        let pending = &mut self.work.as_mut()?.pending;
        let at = pending.iter().position(is_it)?;
        let found = pending.get_mut(at).filter(|found| found.tag != 0)?;
        found.tag = 0;
        let nothing = Wish::Said {
            text: String::new(),
            begins: false,
        };
        Some((at, found.id, mem::replace(&mut found.wish, nothing)))
    }

    /// Leaves the reply at this place, for when its turn comes.
    pub fn said(&mut self, at: usize, text: String, begins: bool) {
        if let Some(pending) = self.work().pending.get_mut(at) {
            pending.wish = Wish::Said { text, begins };
        }
    }

    /// Lets a reply wait that is known already: behind all others.
    pub fn say_later(&mut self, text: String) {
        let begins = false;
        self.work().pending.push_back(Pending {
            tag: 0,
            id: 0,
            is_heavy: false,
            wish: Wish::Said { text, begins },
        });
    }

    /// Gives up a place, for which there is no reply.
    pub fn forget(&mut self, at: usize) {
        self.work().pending.remove(at);
    }

    /// Takes the next reply, if it is known.
    pub fn next_said(&mut self) -> Option<String> {
        let pending = &mut self.work.as_mut()?.pending;
        match pending.front() {
            Some(Pending { tag: 0, .. }) => match pending.pop_front()?.wish {
                Wish::Said { text, .. } => Some(text),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether some reply waits, so that others must not be sent before it.
    pub fn has_pending(&self) -> bool {
        let work = self.work.as_deref();
        work.is_some_and(|work| !work.pending.is_empty())
    }

    /// Whether the client does not know yet of a subscription that has begun.
    pub fn hides_subscription(&self) -> bool {
        let is_hidden = |pending: &Pending| matches!(pending.wish, Wish::Said { begins: true, .. });
        let work = self.work.as_deref();
        work.is_some_and(|work| work.connecting.is_some() || work.pending.iter().any(is_hidden))
    }

    /// Bytes of replies that wait.
    pub fn said_bytes(&self) -> usize {
        let pending = self.work.iter().flat_map(|work| &work.pending);
        let said = pending.map(|pending| match &pending.wish {
            Wish::Said { text, .. } => text.len(),
            _ => 0,
        });
        said.sum()
    }

    /// Whether the next command has to wait for an answer.
    pub fn is_busy(&self) -> bool {
        let work = self.work.as_deref();
        work.is_some_and(|work| work.connecting.is_some() || work.pending.len() >= PENDING_MAX)
    }

    /// Whether a question with a large answer has to wait for other ones.
    pub fn is_loaded(&self) -> bool {
        let max = if self.has_small_answers { HEAVY_MAX } else { 1 };
        let pending = self.work.iter().flat_map(|work| &work.pending);
        let heavy = pending.filter(|pending| pending.is_heavy);
        heavy.take(max).count() == max
    }

    /// Bytes of the reply to the first command, so far.
    pub fn granted_bytes(&self) -> usize {
        let connecting = self.work.iter().flat_map(|work| &work.connecting);
        connecting.map(|connecting| connecting.subs.len()).sum()
    }

    pub fn has_rest(&self) -> bool {
        let work = self.work.as_deref();
        work.is_some_and(|work| !work.rest.text.is_empty())
    }

    /// What begins or waits.
    pub fn work(&mut self) -> &mut Work {
        self.work.get_or_insert_default()
    }

    pub fn work_mut(&mut self) -> Option<&mut Work> {
        self.work.as_deref_mut()
    }

    /// Frees what nothing waits in.
    pub fn tidy(&mut self) {
        let is_over = |work: &Work| {
            work.grant.is_none()
                && work.pending.is_empty()
                && work.rest.text.is_empty()
                && work.connecting.is_none()
        };
        if self.work.as_deref().is_some_and(is_over) {
            self.work = None;
        }
    }

    pub fn pass(&self, channel: &str) -> Option<&Pass> {
        self.passes.iter().find(|pass| &*pass.channel == channel)
    }

    /// Remembers what a token says of a subscription, in place of what one said before.
    pub fn set_pass(&mut self, pass: Pass) {
        self.forget_pass(&pass.channel);
        if !pass.is_empty() {
            self.passes.push(pass);
        }
    }

    pub fn forget_pass(&mut self, channel: &str) {
        self.passes.retain(|pass| &*pass.channel != channel);
        if self.passes.is_empty() {
            self.passes = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(channel: &str, since: Option<u64>) -> Wish {
        Wish::Subscribe(Box::new(Wanted {
            channel: channel.into(),
            by: By::Client,
            since,
            is_recoverable: false,
            is_positioned: false,
            rejects_gap: false,
        }))
    }

    #[test]
    fn a_connection_takes_seventy_two_bytes() {
        assert!(size_of::<State>() <= 72, "{}", size_of::<State>());
    }

    #[test]
    fn replies_leave_in_the_order_of_the_questions_whatever_that_of_the_answers() {
        let mut state = State::default();
        let tags = [1, 2, 3].map(|id| state.ask(id, Wish::Publish));
        state.say_later("four".to_owned());
        assert!(!tags.contains(&0) && tags[0] != tags[1]);
        assert!(state.has_pending());
        let (at, id, _) = state.answered(tags[1]).unwrap();
        assert_eq!((at, id), (1, 2));
        state.said(at, "two".to_owned(), true);
        assert!(state.answered(tags[1]).is_none() && state.answered(0).is_none());
        assert!(state.hides_subscription() && state.next_said().is_none());
        assert_eq!(state.said_bytes(), "twofour".len());
        let (at, id, _) = state.answered(tags[0]).unwrap();
        assert_eq!((at, id), (0, 1));
        state.said(at, "one".to_owned(), false);
        assert_eq!(state.next_said().as_deref(), Some("one"));
        assert_eq!(state.next_said().as_deref(), Some("two"));
        assert!(state.next_said().is_none() && !state.hides_subscription());
        let (at, _, _) = state.answered(tags[2]).unwrap();
        state.forget(at);
        assert_eq!(state.next_said().as_deref(), Some("four"));
        state.tidy();
        assert!(state.work.is_none());
        state.tag = u32::MAX;
        assert_ne!(state.ask(1, Wish::Publish), 0);
        state.unask();
        assert!(!state.has_pending());
    }

    #[test]
    fn questions_are_bounded_and_large_ones_more_so() {
        let mut state = State::default();
        assert!(!state.is_loaded());
        state.ask(1, Wish::History);
        assert!(state.is_loaded());
        state.unask();
        state.has_small_answers = true;
        for _ in 0..HEAVY_MAX {
            assert!(!state.is_loaded());
            state.ask(1, wanted("a", Some(1)));
            state.ask(1, wanted("b", None));
        }
        assert!(state.is_loaded() && !state.is_busy());
        for _ in 2 * HEAVY_MAX..PENDING_MAX {
            assert!(!state.is_busy());
            state.ask(1, Wish::Publish);
        }
        assert!(state.is_busy());
    }

    #[test]
    fn a_subscription_that_is_given_up_is_found_by_its_channel() {
        let mut state = State::default();
        state.ask(1, Wish::Publish);
        let tag = state.ask(2, wanted("a", None));
        assert!(state.cancelled("b").is_none());
        assert_eq!(state.cancelled("a").unwrap().1, 2);
        assert!(state.answered(tag).is_none());
    }

    #[test]
    fn of_passes_the_last_one_of_a_channel_counts() {
        let mut state = State::default();
        let pass = |expires| Pass {
            channel: "a".into(),
            info: None,
            expires,
        };
        state.set_pass(pass(Some(1)));
        state.set_pass(pass(Some(2)));
        assert_eq!(state.pass("a").unwrap().expires, Some(2));
        assert_eq!(state.passes.len(), 1);
        state.set_pass(pass(None));
        assert_eq!(state.passes.capacity(), 0);
    }
}
