//! A home by itself: what it counts, keeps, and says to whom.

use super::{
    super::{MailBytes, Member, Options, Payload, Publish, mail::Ticket},
    *,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Id(u16, u32);

impl Address for Id {
    fn reactor(&self) -> u16 {
        self.0
    }

    fn slot(&self) -> u32 {
        self.1
    }
}

const PLAIN: Options = Options {
    history_size: 0,
    history_ttl: 0,
    presence: false,
    join_leave: false,
    wildcards: false,
    drops_slow: false,
};
const KEPT: Options = Options {
    history_size: 3,
    history_ttl: 100,
    ..PLAIN
};
const ROOM: Options = Options {
    presence: true,
    join_leave: true,
    ..PLAIN
};

/// A home, and what it says.
struct Bench {
    homes: Homes<Id>,
    post: Post<Id>,
    options: Options,
    watches: bool,
    now: Tick,
}

impl Bench {
    fn new(options: Options) -> Self {
        let limits = Limits {
            channel_name_bytes_max: 200,
            subscriptions_max: 128,
            recovery_max: 2,
            recovery_bytes_max: 1000,
            history_bytes_max: 1_000_000,
        };
        let mail_bytes = MailBytes::new(4, 1000);
        Self {
            homes: Homes::new(limits, 7),
            post: Post::new(0, Arc::new(mail_bytes)),
            options,
            watches: true,
            now: 0,
        }
    }

    /// What was said, to whom.
    fn said(&mut self) -> Vec<(u16, Mail<Id>)> {
        self.homes.check_invariants();
        let own = self.post.own.drain(..).map(|mail| (0, mail));
        own.chain(self.post.outgoing.drain(..)).collect()
    }

    fn subscribe(&mut self, id: Id, ticket: u32, recover: Option<Position>) -> Subscribed<Id> {
        let member = Member {
            client: id,
            user: "joe".into(),
            info: "{}".into(),
        };
        let enrolment = Enrolment {
            channel: "news".into(),
            subscriber: id,
            ticket: Ticket(ticket),
            tag: 0,
            options: self.options,
            recover,
            member: Some(Arc::new(member)),
            watches: self.watches,
            is_pattern: false,
        };
        self.homes.subscribe(enrolment, self.now, &mut self.post);
        let own = self
            .post
            .own
            .iter()
            .chain(self.post.outgoing.iter().map(|(_, mail)| mail));
        let mut answers = own.filter_map(|mail| match mail {
            Mail::Subscribed { subscribed, .. } => Some(Subscribed::clone(subscribed)),
            _ => None,
        });
        answers.next().expect("an answer")
    }

    fn unsubscribe(&mut self, subscriber: Id, ticket: u32) {
        let withdrawal = Withdrawal {
            channel: "news".into(),
            subscriber,
            ticket: Ticket(ticket),
            watches: self.watches,
            is_pattern: false,
        };
        self.homes.unsubscribe(withdrawal, self.now, &mut self.post);
    }

    /// The answer, and the reactors that the publication goes to.
    fn publish(&mut self) -> (Answer<Id>, Vec<u16>) {
        let payload = Payload::Text("hello".into());
        let draft = Draft::from(Publish {
            asker: Some(Id(3, 0)),
            ..Publish::new("news", self.options, payload)
        });
        self.homes.publish(draft, self.now, &mut self.post);
        let (mut answer, mut reactors) = (None, Vec::new());
        for (to, mail) in self.said() {
            match mail {
                Mail::Reply { reply, .. } => answer = Some(reply.answer),
                Mail::Publication(_) => reactors.push(to),
                other => panic!("{other:?}"),
            }
        }
        reactors.sort_unstable();
        (answer.expect("an answer"), reactors)
    }

    fn offset(&mut self) -> u64 {
        match self.publish().0 {
            Answer::Published(position) => position.offset,
            other => panic!("{other:?}"),
        }
    }

    fn events(&mut self) -> Vec<(Kind<Id>, Id)> {
        let said = self.said().into_iter();
        said.filter_map(|(_, mail)| match mail {
            Mail::Publication(publication) => {
                Some((publication.kind.clone(), publication.publisher?))
            }
            _ => None,
        })
        .collect()
    }
}

#[test]
fn a_home_counts_from_one_and_ends_with_the_last_interest() {
    let mut bench = Bench::new(PLAIN);
    assert_eq!(bench.offset(), 1);
    let first = bench.subscribe(Id(3, 0), 0, None).position;
    bench.said();
    let place = |offset| Position { offset, ..first };
    assert_eq!(first.offset, 0);
    assert_eq!(bench.publish(), (Answer::Published(place(1)), vec![3]));
    assert_eq!(bench.subscribe(Id(1, 0), 0, None).position, place(1));
    bench.said();
    assert_eq!(bench.publish(), (Answer::Published(place(2)), vec![1, 3]));
    bench.unsubscribe(Id(3, 0), 0);
    assert_eq!(bench.publish(), (Answer::Published(place(3)), vec![1]));
    bench.unsubscribe(Id(1, 0), 0);
    assert!(bench.homes.is_empty());
    let second = bench.subscribe(Id(1, 0), 0, Some(place(3)));
    assert_eq!((second.position.offset, second.recovered), (0, Some(false)));
    assert_ne!(second.position.epoch, first.epoch);
}

#[test]
fn one_full_reactor_refuses_for_all_and_takes_no_offset() {
    let mut bench = Bench::new(PLAIN);
    bench.subscribe(Id(0, 0), 0, None);
    bench.subscribe(Id(1, 0), 0, None);
    bench.said();
    bench.post.mail_bytes.add(1, 2000);
    assert_eq!(bench.publish(), (Answer::Busy, vec![]));
    bench.post.mail_bytes.subtract(1, 1);
    assert_eq!(bench.offset(), 1);
}

#[test]
fn what_was_missed_comes_back_whole_or_not_at_all() {
    let mut bench = Bench::new(KEPT);
    let mut places = vec![bench.subscribe(Id(1, 0), 0, None).position];
    bench.unsubscribe(Id(1, 0), 0);
    bench.said();
    for _ in 0..4 {
        let Answer::Published(position) = bench.publish().0 else {
            panic!("refused");
        };
        places.push(position);
    }
    // The only subscriber has left before the first publication, and nothing of that is lost.
    assert_eq!(places[0].epoch, places[1].epoch);
    let recover = |bench: &mut Bench, place: Position| {
        let subscribed = bench.subscribe(Id(1, 0), 0, Some(place));
        bench.unsubscribe(Id(1, 0), 0);
        bench.said();
        let publications = subscribed.publications.iter();
        let offsets: Vec<_> = publications.map(|publication| publication.offset).collect();
        (subscribed.recovered, offsets)
    };
    let nothing = (Some(false), vec![]);
    assert_eq!(recover(&mut bench, places[0]), nothing);
    assert_eq!(recover(&mut bench, places[4]), (Some(true), vec![]));
    assert_eq!(recover(&mut bench, places[2]), (Some(true), vec![3, 4]));
    // One more is kept, and would be one too many.
    assert_eq!(recover(&mut bench, places[1]), nothing);
    let later = Position {
        offset: 5,
        ..places[4]
    };
    assert_eq!(recover(&mut bench, later), nothing);
    bench.now = 100;
    assert_eq!(recover(&mut bench, places[3]), nothing);
    assert_eq!(recover(&mut bench, places[4]), (Some(true), vec![]));
    // Whoever was here last has as long again to come back.
    bench.homes.expire(100, 1000);
    assert_eq!(bench.homes.next_expiry(), Some(200));
    bench.now = 199;
    assert_eq!(recover(&mut bench, places[4]), (Some(true), vec![]));
    bench.homes.expire(200, 1000);
    assert_eq!(bench.homes.next_expiry(), Some(299));
    bench.homes.expire(299, 1000);
    assert!(bench.homes.is_empty());
    assert_eq!(bench.homes.next_expiry(), None);
}

#[test]
fn the_sole_subscriber_of_a_quiet_channel_misses_nothing() {
    let mut bench = Bench::new(KEPT);
    let before = bench.subscribe(Id(1, 0), 0, None).position;
    bench.unsubscribe(Id(1, 0), 0);
    bench.said();
    bench.now = 99;
    bench.homes.expire(99, 1000);
    assert_eq!(bench.offset(), 1);
    let subscribed = bench.subscribe(Id(2, 0), 0, Some(before));
    assert_eq!(subscribed.recovered, Some(true));
    assert_eq!(subscribed.publications.len(), 1);
}

#[test]
fn a_history_with_nothing_in_it_is_looked_at_before_the_next_publication_expires() {
    let mut bench = Bench::new(KEPT);
    bench.offset();
    bench.now = 99;
    bench.offset();
    let inquiry = Inquiry {
        channel: "news".into(),
        asker: Id(1, 0),
        tag: 0,
        question: Question::RemoveHistory,
    };
    bench.homes.ask(inquiry, 99, &mut bench.post);
    // It is remembered until 299, and what comes now would be too old at 200.
    bench.homes.expire(100, 1000);
    assert_eq!(bench.homes.next_expiry(), Some(200));
    bench.homes.expire(200, 1000);
    assert_eq!(bench.homes.next_expiry(), Some(299));
}

#[test]
fn who_joins_leaves_once_even_when_it_comes_back_too_soon() {
    let mut bench = Bench::new(ROOM);
    let (ann, bob) = (Id(1, 1), Id(2, 2));
    bench.subscribe(ann, 5, None);
    assert_eq!(bench.events(), [(Kind::Join, ann)]);
    bench.subscribe(bob, 6, None);
    // To both reactors.
    assert_eq!(bench.events(), [(Kind::Join, bob), (Kind::Join, bob)]);
    bench.unsubscribe(bob, 6);
    assert_eq!(bench.events(), [(Kind::Leave, bob)]);
    // Her first subscription was cancelled, which the home hears after it hears of the second.
    bench.subscribe(ann, 7, None);
    assert_eq!(bench.events(), [(Kind::Leave, ann), (Kind::Join, ann)]);
    bench.unsubscribe(ann, 5);
    assert_eq!(bench.events(), []);
    assert_eq!(
        bench.homes.members("news").map(Members::count),
        Some((1, 1))
    );
    bench.unsubscribe(ann, 7);
    assert_eq!(bench.events(), []);
    assert!(bench.homes.is_empty());
}

#[test]
fn only_reactors_that_want_to_know_are_told_who_comes() {
    let mut bench = Bench::new(ROOM);
    bench.subscribe(Id(1, 1), 1, None);
    bench.watches = false;
    bench.subscribe(Id(1, 2), 2, None);
    bench.said();
    bench.subscribe(Id(2, 3), 3, None);
    assert_eq!(bench.events(), [(Kind::Join, Id(2, 3))]);
    bench.watches = true;
    bench.unsubscribe(Id(1, 1), 1);
    assert_eq!(bench.events(), []);
}
