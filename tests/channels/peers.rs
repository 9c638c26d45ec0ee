//! What a peer may do with channels: every call, every answer, every error.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tidemill::{
    Accept, Config, Failure, Frame, Handler, Incoming, Message, Peer, Publication, Reply,
    ReplyKind, Upgrade, Verdict,
};

use crate::site::{Guest, Site, config};

/// Does with channels what its peers tell it to.
struct Switchboard {
    encoded: Arc<AtomicUsize>,
}

/// What it remembers of a connection.
#[derive(Default)]
struct State {
    is_loud: bool,
    /// Suspended until a home answers.
    is_waiting: bool,
}

impl Switchboard {
    fn obey(&self, peer: &mut Peer<'_>, state: &mut State, command: &str) -> Result<(), Failure> {
        let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
        let (channel, text) = rest.split_once(' ').unwrap_or((rest, ""));
        match verb {
            "join" => peer.subscribe(channel)?,
            "leave" => {
                let left = peer.unsubscribe(channel);
                peer.send_text(&format!("left {left}"));
            }
            "say" => peer.publish(channel, Message::Text(text))?,
            "bytes" => peer.publish(channel, Message::Binary(text.as_bytes()))?,
            "ask" => {
                peer.publish(channel, Message::Text(text))?;
                peer.suspend();
                state.is_waiting = true;
            }
            "hesitate" => {
                peer.subscribe(channel)?;
                let left = peer.unsubscribe(channel);
                peer.suspend();
                peer.send_text(&format!("left {left}"));
            }
            "id" => peer.send_text(&peer.id().to_string()),
            _ => peer.send_text(command),
        }
        Ok(())
    }
}

impl Handler for Switchboard {
    type State = State;

    const DIALECTS: &'static [&'static str] = &["plain", "loud"];

    fn upgrade(&mut self, incoming: &Incoming<'_>, _: &Upgrade<'_>) -> Verdict<State> {
        let is_loud = incoming.request.path() == "/loud";
        let state = State {
            is_loud,
            ..State::default()
        };
        Accept::new(state).into()
    }

    fn message(
        &mut self,
        peer: &mut Peer<'_>,
        state: &mut State,
        message: Message<'_>,
    ) -> Result<(), Failure> {
        assert!(!state.is_waiting, "read while suspended");
        let Message::Text(command) = message else {
            return Err(Failure::new("commands are text"));
        };
        if let Err(failure) = self.obey(peer, state, command) {
            peer.send_text(&format!("{failure:?}"));
        }
        Ok(())
    }

    fn reply(
        &mut self,
        peer: &mut Peer<'_>,
        state: &mut State,
        reply: Reply,
    ) -> Result<(), Failure> {
        state.is_waiting = false;
        let channel = reply.channel;
        match reply.answer {
            ReplyKind::Subscribed(subscribed) => {
                let offset = subscribed.position.offset;
                peer.send_text(&format!("joined {channel} {offset}"));
            }
            ReplyKind::Published(position) => {
                peer.send_text(&format!("said {channel} {}", position.offset));
            }
            other => peer.send_text(&format!("{other:?}")),
        }
        Ok(())
    }

    fn encode(&mut self, publication: &Publication, _: &str, dialect: usize) -> Option<Frame> {
        self.encoded.fetch_add(1, Ordering::Relaxed);
        let Message::Text(text) = publication.message() else {
            return Some(Frame::new(publication.message()));
        };
        assert_ne!(text, "panic", "asked to panic");
        let Publication {
            channel, offset, ..
        } = publication;
        let publisher = publication.publisher.unwrap();
        let line = format!("{channel} {offset} {publisher}: {text}");
        let line = if dialect == 1 {
            line.to_uppercase()
        } else {
            line
        };
        Some(Frame::new(Message::Text(&line)))
    }

    fn dialect(&self, state: &State) -> usize {
        usize::from(state.is_loud)
    }
}

fn start(config: &Config) -> (Site, Arc<AtomicUsize>) {
    let encoded = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&encoded);
    let site = Site::start(config, move |_| Switchboard {
        encoded: Arc::clone(&counter),
    });
    (site, encoded)
}

/// A guest and its id.
fn enter(site: &Site, path: &str) -> (Guest, String) {
    let mut guest = site.enter(path);
    guest.text("id");
    let id = guest.hear().into_text().unwrap().to_string();
    (guest, id)
}

/// A subscriber's own publication and the answer to it, in this order or the other.
#[track_caller]
fn expect_both(guest: &mut Guest, one: &str, other: &str) {
    let heard = [guest.hear(), guest.hear()];
    let (one, other) = (
        tungstenite::Message::text(one),
        tungstenite::Message::text(other),
    );
    assert!(heard.contains(&one) && heard.contains(&other), "{heard:?}");
}

#[test]
fn a_subscriber_sees_what_comes_after_its_answer_until_it_leaves() {
    let (site, _) = start(&config());
    let ((mut ann, id), (mut ben, other)) = (enter(&site, "/"), enter(&site, "/"));
    ann.text("join news");
    ann.expect("joined news 0");
    ann.text("say news one");
    expect_both(&mut ann, &format!("news 1 {id}: one"), "said news 1");
    ben.text("join news");
    ben.expect("joined news 1");
    ben.text("say news two");
    ann.expect(&format!("news 2 {other}: two"));
    expect_both(&mut ben, &format!("news 2 {other}: two"), "said news 2");
    ben.text("leave news");
    ben.expect("left true");
    ben.text("leave news");
    ben.expect("left false");
    ann.text("ask news three");
    expect_both(&mut ann, &format!("news 3 {id}: three"), "said news 3");
    ben.text("join news");
    ben.expect("joined news 3");
    ann.text("bytes news four");
    assert_eq!(ben.hear(), tungstenite::Message::binary("four"));
    ben.text("echo");
    ben.expect("echo");
}

#[test]
fn a_suspended_peer_is_read_again_with_the_answer() {
    const QUESTIONS: usize = 300;
    let (site, _) = start(&config());
    let mut guest = site.enter("/");
    let mut burst = Vec::new();
    for number in 0..QUESTIONS {
        let command = format!("ask channel-{} {number}", number % 9);
        burst.extend([0x81, 0x80 | command.len() as u8, 0, 0, 0, 0]);
        burst.extend(command.as_bytes());
    }
    guest.0.get_mut().write_all(&burst).unwrap();
    for number in 0..QUESTIONS {
        // Nobody is interested, so each of them is the first.
        guest.expect(&format!("said channel-{} 1", number % 9));
    }
}

#[test]
fn a_subscription_given_up_at_once_is_not_answered_but_ends_the_suspension() {
    let (site, _) = start(&config());
    let mut guest = site.enter("/");
    for channel in 0..20 {
        guest.text(&format!("hesitate channel-{channel}"));
        guest.expect("left true");
        guest.text("next");
        guest.expect("next");
    }
    site.expect_metric("channels", 0);
    assert_eq!(site.metric("subscriptions"), 0);
}

#[test]
fn what_cannot_be_subscribed_to_is_an_error() {
    let (site, _) = start(&config());
    let mut guest = site.enter("/");
    guest.text("join ");
    let name = "Failure(\"the channel's name is empty or too long (TIDEMILL_MAX_CHANNEL_NAME)\")";
    guest.expect(name);
    guest.text(&format!("say {} text", "x".repeat(201)));
    guest.expect(name);
    for channel in 0..128 {
        guest.text(&format!("join {channel:0>200}"));
        guest.expect(&format!("joined {channel:0>200} 0"));
    }
    guest.text("join one-more");
    let too_many = "the connection has too many subscriptions (TIDEMILL_MAX_SUBSCRIPTIONS)";
    guest.expect(&format!("Failure(\"{too_many}\")"));
    guest.text(&format!("join {:0>200}", 7));
    guest.expect("Failure(\"already subscribed to this channel\")");
    guest.text(&format!("leave {:0>200}", 7));
    guest.expect("left true");
    guest.text("join one-more");
    guest.expect("joined one-more 0");
    site.expect_metric("channels", 128);
    assert_eq!(site.metric("subscriptions"), 128);
}

#[test]
fn a_publication_is_encoded_once_a_dialect() {
    let (site, encoded) = start(&Config {
        reactors: Some(1),
        ..config()
    });
    let mut plain: Vec<Guest> = (0..10).map(|_| site.enter("/")).collect();
    let mut loud: Vec<Guest> = (0..10).map(|_| site.enter("/loud")).collect();
    for guest in plain.iter_mut().chain(&mut loud) {
        guest.text("join news");
        guest.expect("joined news 0");
    }
    let (mut speaker, id) = enter(&site, "/loud");
    speaker.text("say news hush");
    speaker.expect("said news 1");
    for guest in &mut plain {
        guest.expect(&format!("news 1 {id}: hush"));
    }
    for guest in &mut loud {
        guest.expect(&format!("NEWS 1 {id}: HUSH"));
    }
    assert_eq!(encoded.load(Ordering::Relaxed), 2);
    assert_eq!(site.metric("publications_total{dialect=\"loud\"}"), 1);
    assert_eq!(site.metric("publications_total{dialect=\"plain\"}"), 0);
    assert_eq!(site.metric("deliveries_total"), 20);
}

#[test]
fn a_panic_while_encoding_ends_the_subscribers_and_nothing_else() {
    let (site, _) = start(&config());
    let mut guests: Vec<Guest> = (0..8).map(|_| site.enter("/")).collect();
    for guest in &mut guests {
        guest.text("join news");
        guest.expect("joined news 0");
    }
    let mut speaker = site.enter("/");
    speaker.text("say news panic");
    speaker.expect("said news 1");
    for guest in &mut guests {
        match guest.hear() {
            tungstenite::Message::Close(Some(close)) => assert_eq!(u16::from(close.code), 1011),
            other => panic!("{other:?}"),
        }
    }
    site.expect_metric("channels", 0);
    speaker.text("join news");
    speaker.expect("joined news 0");
}

#[test]
fn those_who_go_before_the_answer_leave_nothing_behind() {
    let (site, _) = start(&config());
    let mut stays = site.enter("/");
    for round in 0..300 {
        let mut guest = site.enter("/");
        guest.text(&format!("join channel-{}", round % 7));
        if round % 3 == 0 {
            stays.text(&format!("say channel-{} hello", round % 7));
            let answer = stays.hear().into_text().unwrap();
            assert!(answer.starts_with("said channel-"), "{answer}");
        }
    }
    site.expect_metric("connections{dialect=\"plain\"}", 1);
    site.expect_metric("subscriptions", 0);
    site.expect_metric("channels", 0);
    site.expect_metric("mail_bytes", 0);
}
