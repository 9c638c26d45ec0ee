//! What a client says to a channel and asks about it, and the answers of its home.

use std::{mem, sync::Arc};

use super::{
    call::{Call, Flow},
    command::{History, Publish},
    json,
    reply::{self, Fault, Object},
    state::{By, Wish},
};
use crate::{
    gate::channel::Action,
    handler::{
        Position, Publication, Publish as Request, PublishError, Question, Reply, ReplyKind,
    },
};

impl Call<'_, '_> {
    pub fn publish(&mut self, id: u32, request: &Publish<'_>) -> Result<Flow, Fault> {
        let channel = &*request.channel;
        self.check_name(channel)?;
        let data = request.data.ok_or(Fault::BadRequest)?;
        self.may(Action::Publish, channel, false)?;
        let payload = json::payload(data.get()).map_err(|json::TooDeep| Fault::BadRequest)?;
        let mut about = String::from("\"info\":");
        about.push_str(&self.client_info(channel));
        let tag = self.state.ask(id, Wish::Publish);
        let options = self.peer.options(channel);
        let asked = self.peer.publish_with(Request {
            about: Some(Arc::from(about)),
            tag,
            ..Request::new(channel, options, payload)
        });
        if let Err(error) = asked {
            self.state.unask();
            return match error {
                PublishError::Name => Err(Fault::BadRequest),
                PublishError::Busy => {
                    self.state.awaits_room = true;
                    self.peer.wait_for_room(channel);
                    Ok(Flow::Again)
                }
            };
        }
        Ok(Flow::Next)
    }

    pub fn presence(&mut self, id: u32, channel: &str) -> Result<Flow, Fault> {
        self.check_name(channel)?;
        self.may(Action::Presence, channel, false)?;
        if self.is_loaded() {
            return Ok(Flow::Again);
        }
        self.ask(id, channel, Wish::Presence, Question::Presence);
        Ok(Flow::Next)
    }

    pub fn presence_stats(&mut self, id: u32, channel: &str) -> Result<Flow, Fault> {
        self.check_name(channel)?;
        self.may(Action::Presence, channel, false)?;
        self.ask(id, channel, Wish::PresenceStats, Question::PresenceStats);
        Ok(Flow::Next)
    }

    pub fn history(&mut self, id: u32, request: &History<'_>) -> Result<Flow, Fault> {
        let channel = &*request.channel;
        self.check_name(channel)?;
        self.may(Action::History, channel, false)?;
        if self.is_loaded() {
            return Ok(Flow::Again);
        }
        let since = request.since.as_ref().map(|since| Position {
            offset: since.offset,
            epoch: reply::epoch(&since.epoch),
        });
        let wanted = u32::try_from(request.limit).unwrap_or(u32::MAX);
        let question = Question::History {
            since,
            limit: Some(wanted.min(self.settings.recovery_max)),
            is_reverse: request.reverse,
        };
        self.ask(id, channel, Wish::History, question);
        Ok(Flow::Next)
    }

    fn ask(&mut self, id: u32, channel: &str, wish: Wish, question: Question) {
        let tag = self.state.ask(id, wish);
        self.peer.ask(tag, channel, question);
    }

    /// The home of a channel has answered a question, and commands that waited for it go on.
    pub fn answered(&mut self, reply: Reply) {
        if let Some((at, id, wish)) = self.state.answered(reply.tag) {
            let begins = matches!(wish, Wish::Subscribe(_));
            // The token's subscriptions have a reply together, which `connecting` waits with.
            if matches!(&wish, Wish::Subscribe(wanted) if wanted.by == By::Token) {
                self.state.forget(at);
                self.answer(id, wish, reply.answer);
            } else {
                let before = mem::take(&mut self.replies);
                let is_heavy = wish.is_heavy();
                self.answer(id, wish, reply.answer);
                let text = mem::replace(&mut self.replies, before).take_since(0);
                if is_heavy {
                    self.state.has_small_answers = text.len() <= SMALL_BYTES_MAX;
                }
                self.state.said(at, text, begins);
            }
            self.say();
            // It has begun, and the client is told later: then what is published waits, too.
            if begins && self.state.hides_subscription() {
                self.state.holds = true;
                self.peer.hold();
            }
        }
        self.go_on();
    }

    fn answer(&mut self, id: u32, wish: Wish, answer: ReplyKind) {
        match (wish, answer) {
            (Wish::Subscribe(wanted), ReplyKind::Subscribed(subscribed)) => {
                self.subscribed(id, *wanted, &subscribed);
            }
            (Wish::Publish, ReplyKind::Published(_)) => self.replies.empty(id, "publish"),
            (Wish::Publish, ReplyKind::Busy) => self.replies.fault(id, Fault::TooManyRequests),
            (Wish::Presence, ReplyKind::Presence(members)) => {
                let mut object = Object::begin(self.replies.begin(id, "presence"));
                let mut list = Object::begin(object.field("presence"));
                for member in &members {
                    list.json(&member.client.client_id().to_string(), Some(&member.info));
                }
                list.end();
                object.end().push('}');
                self.withdraw_if(!self.fits(), id);
            }
            (Wish::PresenceStats, ReplyKind::PresenceStats { clients, users }) => {
                let mut object = Object::begin(self.replies.begin(id, "presence_stats"));
                object.count("num_clients", u64::from(clients));
                object.count("num_users", u64::from(users));
                object.end().push('}');
            }
            (
                Wish::History,
                ReplyKind::History {
                    position,
                    publications,
                },
            ) => {
                let limit = self.replies_bytes_max();
                let mut object = Object::begin(self.replies.begin(id, "history"));
                // As many as the client can take: it asks for what is behind them.
                let limit = limit.saturating_sub(MARGIN_BYTES);
                let all: &[Arc<Publication>] = &publications;
                let count = object.publications(all.iter().map(|one| &**one), limit);
                object.position(position);
                object.end().push('}');
                self.withdraw_if(count == 0 && !all.is_empty(), id);
            }
            (Wish::History, ReplyKind::Unrecoverable(_)) => {
                self.replies.fault(id, Fault::Unrecoverable);
            }
            // A home answers what it was asked.
            _ => self.replies.fault(id, Fault::Internal),
        }
    }

    /// An answer that the client could not take becomes an error: it may ask for less, or later.
    /// It is the only one that is being written.
    fn withdraw_if(&mut self, is_too_much: bool, id: u32) {
        // It never fits, or not now.
        let fault = match self.replies.len() > self.settings.waiting_bytes_max {
            true => Fault::LimitExceeded,
            false => Fault::TooManyRequests,
        };
        if is_too_much {
            self.replies.truncate(0);
            self.replies.fault(id, fault);
        }
    }
}

/// An answer after which others are asked for without waiting for each.
const SMALL_BYTES_MAX: usize = 16 << 10;

/// What follows the publications of a history.
const MARGIN_BYTES: usize = 128;
