//! `Batch`: what is delivered to the subscribers of a channel in one go.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::Publication;

/// Publications that leave together. Their frames stand behind each other in one piece of memory,
/// a run, made once a dialect and shared by all subscribers: so one subscriber costs one write and
/// no copy, however many publications there are.
#[derive(Debug)]
pub struct Batch<A> {
    publications: Vec<Arc<Publication<A>>>,
    /// By dialect; empty until the first subscriber that speaks it.
    runs: Vec<Option<Run>>,
    /// What the publications are charged.
    cost: u64,
}

#[derive(Debug)]
struct Run {
    bytes: Bytes,
    /// Where the frame of each publication begins.
    starts: Vec<usize>,
}

impl<A> Batch<A> {
    /// A batch of at least one publication, in the order of their offsets.
    pub(super) fn new(publications: Vec<Arc<Publication<A>>>) -> Self {
        let costs = publications.iter().map(|publication| publication.cost());
        Self {
            cost: costs.sum(),
            publications,
            runs: Vec::new(),
        }
    }

    pub(super) fn cost(&self) -> u64 {
        self.cost
    }

    /// How many publications there are after this offset.
    pub fn count_after(&self, offset: u64) -> usize {
        self.publications.len() - self.first_after(offset)
    }

    /// The frames of the publications after this offset, for one dialect; made by `encode` if
    /// they are not yet.
    pub fn frames_after(
        &mut self,
        offset: u64,
        dialect: u8,
        mut encode: impl FnMut(&Publication<A>) -> Bytes,
    ) -> Bytes {
        let first = self.first_after(offset);
        let dialect = usize::from(dialect);
        if self.runs.len() <= dialect {
            self.runs.resize_with(dialect + 1, || None);
        }
        let publications = &self.publications;
        let run = self.runs[dialect].get_or_insert_with(|| {
            let frames = publications.iter().map(|publication| encode(publication));
            Run::new(frames.collect())
        });
        match run.starts.get(first) {
            Some(0) => run.bytes.clone(),
            Some(start) => run.bytes.slice(start..),
            None => Bytes::new(),
        }
    }

    /// The first publication after this offset.
    fn first_after(&self, offset: u64) -> usize {
        let seen = |publication: &Arc<Publication<A>>| publication.offset <= offset;
        // Nearly always a subscriber was there before all of them.
        match self.publications.first() {
            Some(first) if seen(first) => self.publications.partition_point(seen),
            _ => 0,
        }
    }
}

impl Run {
    fn new(frames: Vec<Bytes>) -> Self {
        let length = frames.iter().map(Bytes::len).sum();
        let mut starts = Vec::with_capacity(frames.len());
        if let [frame] = &frames[..] {
            starts.push(0);
            let bytes = frame.clone();
            return Self { bytes, starts };
        }
        let mut bytes = BytesMut::with_capacity(length);
        for frame in frames {
            starts.push(bytes.len());
            bytes.extend_from_slice(&frame);
        }
        Self {
            bytes: bytes.freeze(),
            starts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Payload, *};

    fn publication(offset: u64) -> Arc<Publication<()>> {
        Arc::new(Publication {
            channel: "news".into(),
            offset,
            payload: Payload::Text(format!("<{offset}>").into()),
            publisher: None,
        })
    }

    fn verbatim(publication: &Publication<()>) -> Bytes {
        Bytes::copy_from_slice(publication.payload.as_bytes())
    }

    #[test]
    fn a_subscriber_gets_what_came_after_it_and_a_dialect_is_encoded_once() {
        let mut batch = Batch::new((5..=8).map(publication).collect());
        let mut encoded = 0;
        for (offset, expected) in [(0, "<5><6><7><8>"), (6, "<7><8>"), (7, "<8>"), (8, "")] {
            let frames = batch.frames_after(offset, 3, |publication| {
                encoded += 1;
                verbatim(publication)
            });
            assert_eq!(frames, expected);
            assert_eq!(batch.count_after(offset), expected.len() / 3);
        }
        assert_eq!(encoded, 4);
        let other = batch.frames_after(0, 0, |_| Bytes::from_static(b"!"));
        assert_eq!(other, "!!!!");
    }

    #[test]
    fn a_single_frame_is_shared_not_copied() {
        let frame = Bytes::from(vec![7; 100_000]);
        let mut batch = Batch::new(vec![publication(1)]);
        let bytes = batch.frames_after(0, 0, |_| frame.clone());
        assert_eq!(bytes.as_ptr(), frame.as_ptr());
    }
}
