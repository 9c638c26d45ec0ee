//! `Batch`: what is delivered to the subscribers of a channel in one go.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::{Address, Command, Kind, Publication, Seat};

/// Publications that leave together. Their frames stand behind each other in one piece of memory,
/// a run, made once a dialect and shared by all subscribers: so one subscriber costs one write and
/// no copy, however many publications there are. Those who are told who comes and goes have a run
/// of their own, if somebody does.
#[derive(Debug)]
pub struct Batch<A> {
    /// The reactor that delivers this.
    reactor: u16,
    /// How many publications came before these, see [`Seat`].
    before: u64,
    publications: Vec<Arc<Publication<A>>>,
    /// Somebody comes or goes.
    has_events: bool,
    runs: Vec<Run>,
    /// What the publications are charged.
    cost: u64,
}

#[derive(Debug)]
struct Run {
    dialect: u8,
    has_events: bool,
    bytes: Bytes,
    /// Where the frame of each publication begins. One that is left out is empty.
    starts: Vec<usize>,
}

impl<A: Address> Batch<A> {
    /// A batch of at least one publication, in order; `before` of them came earlier.
    pub(super) fn new(reactor: u16, before: u64, publications: Vec<Arc<Publication<A>>>) -> Self {
        let costs = publications.iter().map(|publication| publication.cost());
        Self {
            reactor,
            before,
            cost: costs.sum(),
            has_events: publications
                .iter()
                .any(|publication| publication.is_event()),
            publications,
            runs: Vec::new(),
        }
    }

    pub(super) fn cost(&self) -> u64 {
        self.cost
    }

    /// The command that this batch consists of, if it is one.
    pub fn command(&self) -> Option<&Arc<Command<A>>> {
        match &self.publications.first()?.kind {
            Kind::Command(command) => Some(command),
            _ => None,
        }
    }

    /// How many publications a subscriber gets.
    pub fn count_for(&self, seat: &Seat) -> usize {
        let first = self.first_for(seat);
        if !self.has_events && !seat.skips_own() {
            return self.publications.len() - first;
        }
        let rest = self.publications.iter().skip(first);
        rest.filter(|publication| self.is_for(seat, publication))
            .count()
    }

    /// The frames of what a subscriber gets, in one dialect; made by `encode` if they are not yet.
    /// `encode` gives nothing where the dialect has no frame.
    pub fn frames_for(
        &mut self,
        seat: &Seat,
        dialect: u8,
        encode: impl FnMut(&Publication<A>) -> Option<Bytes>,
    ) -> Bytes {
        let first = self.first_for(seat);
        let index = self.run(dialect, self.has_events && seat.wants_events(), encode);
        let run = &self.runs[index];
        if seat.skips_own() {
            let publications = &self.publications;
            let is_own = |publication: &Arc<_>| self.is_own(seat, publication);
            if publications.iter().skip(first).any(is_own) {
                return run.gather(first, |index| !is_own(&publications[index]));
            }
        }
        match first {
            0 => run.bytes.clone(),
            first => run.after(first),
        }
    }

    /// The first publication that is not from before the subscriber.
    #[inline]
    fn first_for(&self, seat: &Seat) -> usize {
        if seat.has_missed() && self.command().is_none() {
            return self.publications.len();
        }
        // Nearly always a subscriber was there before all of them.
        let seen = seat.after().saturating_sub(self.before);
        self.publications.len().min(seen as usize)
    }

    fn is_for(&self, seat: &Seat, publication: &Publication<A>) -> bool {
        let is_wanted = seat.wants_events() || !publication.is_event();
        is_wanted && !(seat.skips_own() && self.is_own(seat, publication))
    }

    fn is_own(&self, seat: &Seat, publication: &Publication<A>) -> bool {
        // The slot is enough: what an earlier owner of it published came before this subscriber.
        publication.kind == Kind::Message
            && publication.publisher.is_some_and(|publisher| {
                (publisher.reactor(), publisher.slot()) == (self.reactor, seat.slot)
            })
    }

    /// The index of a run, which is made now if it is not there.
    fn run(
        &mut self,
        dialect: u8,
        has_events: bool,
        mut encode: impl FnMut(&Publication<A>) -> Option<Bytes>,
    ) -> usize {
        let mut runs = self.runs.iter();
        let known = runs.position(|run| run.dialect == dialect && run.has_events == has_events);
        known.unwrap_or_else(|| {
            let frames = self.publications.iter().map(|publication| {
                let is_in = has_events || !publication.is_event();
                is_in.then(|| encode(publication)).flatten()
            });
            let run = Run::new(dialect, has_events, frames.collect());
            self.runs.push(run);
            self.runs.len() - 1
        })
    }
}

impl Run {
    fn new(dialect: u8, has_events: bool, frames: Vec<Option<Bytes>>) -> Self {
        let mut starts = Vec::with_capacity(frames.len());
        let bytes = if let [Some(frame)] = &frames[..] {
            starts.push(0);
            frame.clone()
        } else {
            let length = frames.iter().flatten().map(Bytes::len).sum();
            let mut bytes = BytesMut::with_capacity(length);
            for frame in frames {
                starts.push(bytes.len());
                bytes.extend_from_slice(&frame.unwrap_or_default());
            }
            bytes.freeze()
        };
        Self {
            dialect,
            has_events,
            bytes,
            starts,
        }
    }

    /// The frames from one on.
    fn after(&self, first: usize) -> Bytes {
        match self.starts.get(first) {
            Some(start) => self.bytes.slice(start..),
            None => Bytes::new(),
        }
    }

    /// Those frames from one on that somebody is to have.
    fn gather(&self, first: usize, is_for: impl Fn(usize) -> bool) -> Bytes {
        let mut bytes = BytesMut::new();
        for (index, start) in self.starts.iter().enumerate().skip(first) {
            if is_for(index) {
                let end = self.starts.get(index + 1);
                let end = end.copied().unwrap_or(self.bytes.len());
                bytes.extend_from_slice(&self.bytes[*start..end]);
            }
        }
        bytes.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Payload, local::Wants},
        *,
    };

    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    struct Id(u32);

    impl Address for Id {
        fn reactor(&self) -> u16 {
            3
        }

        fn slot(&self) -> u32 {
            self.0
        }
    }

    const OWN: Wants = Wants {
        events: false,
        skips_own: true,
    };
    const EVENTS: Wants = Wants {
        events: true,
        skips_own: false,
    };

    fn publication(number: u64) -> Publication<Id> {
        let payload = Payload::Text(format!("<{number}>").into());
        Publication {
            publisher: Some(Id(number as u32)),
            ..Publication::new("news".into(), number, payload)
        }
    }

    fn batch(before: u64, publications: impl Iterator<Item = Publication<Id>>) -> Batch<Id> {
        Batch::new(3, before, publications.map(Arc::new).collect())
    }

    fn verbatim(publication: &Publication<Id>) -> Option<Bytes> {
        Some(Bytes::copy_from_slice(publication.payload.as_bytes()))
    }

    fn seat(slot: u32, after: u64, wants: Wants) -> Seat {
        Seat::new(slot, 0, after, wants)
    }

    #[test]
    fn a_subscriber_gets_what_came_after_it_and_a_dialect_is_encoded_once() {
        let mut batch = batch(4, (5..=8).map(publication));
        let mut encoded = 0;
        let expectations = [(0, "<5><6><7><8>"), (6, "<7><8>"), (7, "<8>"), (8, "")];
        for (after, expected) in expectations {
            let seat = seat(1, after, Wants::default());
            let frames = batch.frames_for(&seat, 3, |publication| {
                encoded += 1;
                verbatim(publication)
            });
            assert_eq!(frames, expected);
            assert_eq!(batch.count_for(&seat), expected.len() / 3);
        }
        assert_eq!(encoded, 4);
        let seat = seat(1, 0, Wants::default());
        let other = batch.frames_for(&seat, 0, |_| Some(Bytes::from_static(b"!")));
        assert_eq!(other, "!!!!");
        assert_eq!(batch.frames_for(&seat, 1, |_| None), "");
    }

    #[test]
    fn a_single_frame_is_shared_not_copied() {
        let frame = Bytes::from(vec![7; 100_000]);
        let mut batch = batch(0, [publication(1)].into_iter());
        let seat = seat(9, 0, OWN);
        let bytes = batch.frames_for(&seat, 0, |_| Some(frame.clone()));
        assert_eq!(bytes.as_ptr(), frame.as_ptr());
    }

    #[test]
    fn who_does_not_want_its_own_gets_the_others_only() {
        let mut batch = batch(0, (1..=4).map(publication));
        for (slot, after, expected) in [
            (2, 0, "<1><3><4>"),
            (2, 2, "<3><4>"),
            (4, 3, ""),
            (9, 1, "<2><3><4>"),
        ] {
            let seat = seat(slot, after, OWN);
            assert_eq!(batch.frames_for(&seat, 0, verbatim), expected);
            assert_eq!(batch.count_for(&seat), expected.len() / 3);
        }
        assert_eq!(batch.runs.len(), 1);
        let own = seat(2, 0, Wants::default());
        assert_eq!(batch.frames_for(&own, 0, verbatim), "<1><2><3><4>");
    }

    #[test]
    fn events_are_for_those_who_want_them() {
        let join = Publication {
            kind: Kind::Join,
            ..publication(2)
        };
        let mut batch = batch(0, [publication(1), join, publication(3)].into_iter());
        let plain = seat(1, 0, Wants::default());
        let watcher = seat(2, 0, EVENTS);
        assert_eq!(batch.frames_for(&plain, 0, verbatim), "<1><3>");
        assert_eq!(batch.count_for(&plain), 2);
        assert_eq!(batch.frames_for(&watcher, 0, verbatim), "<1><2><3>");
        assert_eq!(batch.count_for(&watcher), 3);
        // Its own coming is told to it even if its own words are not.
        let both = seat(
            2,
            1,
            Wants {
                skips_own: true,
                ..EVENTS
            },
        );
        assert_eq!(batch.frames_for(&both, 0, verbatim), "<2><3>");
    }

    #[test]
    fn who_missed_something_gets_nothing_but_commands() {
        let mut missed = seat(1, 0, Wants::default());
        missed.set_missed(true);
        let mut messages = batch(0, [publication(1)].into_iter());
        assert_eq!(messages.count_for(&missed), 0);
        assert_eq!(messages.frames_for(&missed, 0, verbatim), "");
        assert!(messages.command().is_none());
        let command = Arc::new(Command::Unsubscribe {
            channel: "news".into(),
        });
        let kind = Kind::Command(Arc::clone(&command));
        let publication = Publication {
            kind,
            ..publication(2)
        };
        let command_alone = batch(1, [publication].into_iter());
        assert_eq!(command_alone.count_for(&missed), 1);
        assert_eq!(command_alone.command(), Some(&command));
    }
}
