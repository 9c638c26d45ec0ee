//! `/raw/{channel}`: each connection is on one channel, and every message goes to the others on it
//! as it is, text as text and binary as binary. With `?notify_self=1` its sender gets it, too. A
//! server says something to a channel with `POST` and the API key.
//!
//! What a peer says is published at once, many messages at a time, and kept until the channel's
//! home has taken it. When too much waits there, the peer is not read from until there is room;
//! what was refused goes out again before what it said later.

mod backlog;

use std::{collections::HashSet, time::Duration};

use bytes::Bytes;

use self::backlog::Backlog;
use crate::{
    config::Config,
    gate::channel::{Action, Asker, Denied, Via},
    handler::{
        Answer, Caller, Channel, CloseCode, Command, ConnId, Failure, Frame, Heard, Incoming,
        KeyCheck, Kind, Message, Options, Payload, Peer, Publication, Publish, PublishError,
        Reason, Refusal, Reply, ReplyKind, Response, Subscribe,
    },
};

/// The dialect.
#[derive(Debug)]
pub struct Raw {
    channel_name_bytes_max: usize,
    message_bytes_max: usize,
    /// Requests whose publication is on its way to its channel's home.
    waiting: HashSet<ConnId>,
}

/// What is remembered of one connection.
#[derive(Debug)]
pub struct State {
    channel: Channel,
    options: Options,
    may_publish: bool,
    hears_itself: bool,
    /// [`Peer::wait_for_room`] was called, and [`Raw::room`] has not been.
    waits_for_room: bool,
    /// Not there while there is nothing in it.
    backlog: Option<Box<Backlog>>,
}

impl State {
    /// Does what a server asks. Whose only channel was taken away has nothing to do here any more.
    pub fn obey(&self, peer: &mut Peer<'_>, command: &Command) {
        peer.obey(command);
        if !peer.is_subscribed(&self.channel) {
            peer.close(CloseCode::Policy, "unsubscribed by the server");
        }
    }
}

/// A subscriber's frame: the payload and nothing else, whoever it is from.
pub fn encode(publication: &Publication) -> Option<Frame> {
    let is_message = matches!(publication.kind, Kind::Message);
    is_message.then(|| Frame::new(publication.message()))
}

impl Raw {
    pub fn new(config: &Config) -> Self {
        Self {
            channel_name_bytes_max: config.channel_name_bytes_max,
            message_bytes_max: config.message_bytes_max,
            waiting: HashSet::new(),
        }
    }

    /// Decides on an upgrade to this channel, whose name is still percent-encoded.
    pub fn upgrade(&self, incoming: &Incoming<'_>, channel: &str) -> Result<State, Refusal> {
        let channel = self.name(channel)?;
        let namespaces = incoming.namespaces();
        let user = incoming
            .claims()
            .and_then(|claims| claims.subject.as_deref());
        let asker = Asker {
            via: Via::Raw,
            user,
            is_proven: false,
            // It publishes to nothing but what it is subscribed to.
            is_subscribed: true,
        };
        namespaces
            .permit(&asker, Action::Subscribe, &channel)
            .map_err(refusal)?;
        Ok(State {
            may_publish: namespaces.permit(&asker, Action::Publish, &channel).is_ok(),
            hears_itself: wants_own(incoming.request.query().unwrap_or_default()),
            channel: channel.into(),
            options: Options::default(),
            waits_for_room: false,
            backlog: None,
        })
    }

    /// Subscribes. What others publish before the home has answered is not seen, but what this peer
    /// says before it is on its way already.
    pub fn open(&self, peer: &mut Peer<'_>, state: &mut State) -> Result<(), Failure> {
        state.options = peer.options(&state.channel);
        peer.subscribe_with(Subscribe {
            skips_own: !state.hears_itself,
            ..Subscribe::new(&state.channel, state.options)
        })?;
        // The hub keeps the name for all of its subscribers.
        if let Some((channel, _)) = peer.subscriptions().next() {
            state.channel = Channel::clone(channel);
        }
        Ok(())
    }

    pub fn message(
        &self,
        peer: &mut Peer<'_>,
        message: Message<'_>,
        state: &mut State,
    ) -> Result<(), Failure> {
        if !state.may_publish {
            peer.close(
                CloseCode::Policy,
                "publishing to this channel is not allowed",
            );
            return Ok(());
        }
        state.backlog.get_or_insert_default().push(message.into());
        publish(peer, state)
    }

    pub fn reply(
        &self,
        peer: &mut Peer<'_>,
        reply: Reply,
        state: &mut State,
    ) -> Result<(), Failure> {
        let Some(backlog) = &mut state.backlog else {
            return Ok(());
        };
        match reply.answer {
            ReplyKind::Published(_) => backlog.taken(),
            ReplyKind::Busy => backlog.refused(),
            _ => {}
        }
        if backlog.must_pause() {
            peer.deadline(PAUSE);
        }
        publish(peer, state)
    }

    /// There is room at the channel's home.
    pub fn room(&self, peer: &mut Peer<'_>, state: &mut State) -> Result<(), Failure> {
        state.waits_for_room = false;
        publish(peer, state)
    }

    /// A pause is over.
    pub fn deadline(&self, peer: &mut Peer<'_>, state: &mut State) -> Result<(), Failure> {
        if let Some(backlog) = &mut state.backlog {
            backlog.retry();
        }
        peer.resume();
        publish(peer, state)
    }

    /// Publishes the body of a request to this channel, whose name is still percent-encoded.
    pub fn publish(
        &mut self,
        channel: &str,
        caller: &mut Caller<'_>,
        incoming: &Incoming<'_>,
        body: &[u8],
    ) -> Answer {
        match self.post(channel, caller, incoming, body) {
            Ok(()) => {
                self.waiting.insert(caller.id());
                Answer::Later
            }
            Err(response) => response.into(),
        }
    }

    fn post(
        &self,
        channel: &str,
        caller: &mut Caller<'_>,
        incoming: &Incoming<'_>,
        body: &[u8],
    ) -> Result<(), Response> {
        let refuse = |reason: Reason| Err(Refusal::from(reason).response());
        match incoming.api_key() {
            KeyCheck::Right => {}
            KeyCheck::Off => return refuse(Reason::ApiOff),
            KeyCheck::Wrong => return refuse(Reason::ApiKey),
        }
        let channel = self.name(channel).map_err(|refusal| refusal.response())?;
        // A key opens every name, but not what is closed to this dialect.
        match caller.namespaces().of(&channel) {
            Some(namespace) if namespace.raw => {}
            _ => return refuse(Reason::Channel),
        }
        let asker = Asker {
            via: Via::Api,
            user: None,
            is_proven: false,
            is_subscribed: false,
        };
        let permitted = caller
            .namespaces()
            .permit(&asker, Action::Publish, &channel);
        permitted.map_err(|denied| refusal(denied).response())?;
        if body.len() > self.message_bytes_max {
            let limit = self.message_bytes_max as u64;
            return Err(Refusal::over_limit(Reason::BodyTooLarge, limit).response());
        }
        let payload = payload(incoming.request.header("Content-Type"), body);
        let options = caller.options(&channel);
        match caller.publish(Publish::new(&channel, options, payload)) {
            Ok(()) => Ok(()),
            Err(PublishError::Busy) => Err(busy()),
            Err(PublishError::Name) => refuse(Reason::ChannelName),
        }
    }

    /// Whether a request waits for the answer to [`Raw::publish`].
    pub fn is_waiting(&self, id: ConnId) -> bool {
        self.waiting.contains(&id)
    }

    pub fn answered(&mut self, caller: &mut Caller<'_>, heard: Heard) -> Option<Response> {
        let Heard::Reply(reply) = heard else {
            return None;
        };
        self.waiting.remove(&caller.id());
        let ReplyKind::Published(position) = reply.answer else {
            return Some(busy());
        };
        let body = format!(
            "{{\"offset\":{},\"epoch\":\"{:x}\"}}\n",
            position.offset, position.epoch
        );
        Some(Response::new(200).body("application/json", body.into_bytes()))
    }

    pub fn abandoned(&mut self, id: ConnId) {
        self.waiting.remove(&id);
    }

    /// The name of a channel as it is in a path.
    fn name(&self, encoded: &str) -> Result<String, Refusal> {
        let is_name = |name: &String| (1..=self.channel_name_bytes_max).contains(&name.len());
        let name = decode(encoded).filter(is_name);
        name.ok_or(Reason::ChannelName.into())
    }
}

/// Publishes what waits to be, as far as that goes. While something is left, the peer is not read.
fn publish(peer: &mut Peer<'_>, state: &mut State) -> Result<(), Failure> {
    let Some(backlog) = &mut state.backlog else {
        return Ok(());
    };
    while !state.waits_for_room
        && let Some(payload) = backlog.next()
    {
        let publication = Publish::new(&state.channel, state.options, payload.clone());
        match peer.publish_with(publication) {
            Ok(()) => backlog.sent(),
            Err(PublishError::Busy) => {
                peer.wait_for_room(&state.channel);
                state.waits_for_room = true;
            }
            Err(error) => return Err(error.into()),
        }
    }
    if backlog.is_held() {
        peer.suspend();
    } else if backlog.is_empty() {
        state.backlog = None;
    }
    Ok(())
}

/// How long a home is left alone that has refused something: one of its channel's subscribers'
/// reactors is far behind.
const PAUSE: Duration = Duration::from_millis(100);

fn refusal(denied: Denied) -> Refusal {
    match denied {
        Denied::Name => Reason::ChannelName.into(),
        _ => Reason::Channel.into(),
    }
}

fn busy() -> Response {
    let body = &b"{\"error\":\"too much is being published to this channel\"}\n"[..];
    Response::new(429)
        .body("application/json", Bytes::from_static(body))
        .header("Retry-After", "1")
}

/// Text where the request says that it is and it is, else bytes.
fn payload(content_type: Option<&str>, body: &[u8]) -> Payload {
    let media = content_type.unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default();
    let media = media.trim_ascii().to_ascii_lowercase();
    let is_text = media.starts_with("text/") || media == "application/json";
    match std::str::from_utf8(body) {
        Ok(text) if is_text => Message::Text(text).into(),
        _ => Message::Binary(body).into(),
    }
}

/// `?notify_self=1` or `=true`.
fn wants_own(query: &str) -> bool {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let found = pairs.find(|(name, _)| *name == "notify_self");
    found.is_some_and(|(_, value)| matches!(value, "1" | "true"))
}

/// Undoes percent-encoding (RFC 3986, 2.1). `None` for what is none, and for what is no text.
fn decode(encoded: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        if *byte == b'%' {
            let (digits, behind) = after.split_first_chunk::<2>()?;
            let digit = |at: usize| char::from(digits[at]).to_digit(16);
            decoded.push((digit(0)? * 16 + digit(1)?) as u8);
            rest = behind;
        } else {
            decoded.push(*byte);
            rest = after;
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_decoded_and_bounded() {
        let raw = Raw::new(&Config {
            channel_name_bytes_max: 5,
            ..Config::default()
        });
        for (encoded, name) in [
            ("tea", "tea"),
            ("a/b", "a/b"),
            ("a%2Fb", "a/b"),
            ("%C3%a9t%C3%A9", "été"),
            ("a+b", "a+b"),
        ] {
            assert_eq!(raw.name(encoded).unwrap(), name, "{encoded}");
        }
        for encoded in [
            "",
            "%",
            "%2",
            "%zz",
            "%+1",
            "%ff",
            "sixsix",
            "%C3%A9%C3%A9%C3%A9",
        ] {
            let refusal = raw.name(encoded).unwrap_err();
            assert_eq!(refusal.reason(), Reason::ChannelName, "{encoded}");
        }
    }

    #[test]
    fn a_query_asks_for_what_oneself_says() {
        for query in [
            "notify_self=1",
            "notify_self=true",
            "token=x&notify_self=1&y",
        ] {
            assert!(wants_own(query), "{query}");
        }
        for query in [
            "",
            "notify_self",
            "notify_self=0",
            "xnotify_self=1",
            "notify_self=10",
        ] {
            assert!(!wants_own(query), "{query}");
        }
    }

    #[test]
    fn a_body_is_text_only_if_it_says_so_and_is() {
        let is_text = |media, body: &[u8]| matches!(payload(media, body), Payload::Text(_));
        for media in [
            "text/plain",
            "Text/HTML; charset=utf-8",
            "application/json ;x",
            "text/x",
        ] {
            assert!(is_text(Some(media), b"{}"), "{media}");
            assert!(!is_text(Some(media), b"\xff"), "{media}");
        }
        assert!(!is_text(None, b"text"));
        for media in [
            "",
            "application/octet-stream",
            "application/jsonp",
            "nottext/plain",
        ] {
            assert!(!is_text(Some(media), b"text"), "{media}");
        }
    }
}
