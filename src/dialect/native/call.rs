//! `Call`: commands one after the other, and what waits for an answer.

use std::{mem, time::Duration};

use super::{
    Settings,
    command::{self, Command, Method},
    reply::{Disconnect, Fault, Replies},
    state::{Rest, State},
};
use crate::{
    handler::Peer,
    sys,
    wheel::{TICK_MS, Tick},
};

/// One call about one connection: what it says in it leaves together.
pub struct Call<'c, 'p> {
    pub(super) settings: &'c Settings,
    pub(super) peer: &'c mut Peer<'p>,
    pub(super) state: &'c mut State,
    pub(super) replies: Replies,
}

/// How it goes on after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Next,
    /// This one has done nothing and is to be tried again, later.
    Again,
}

impl Call<'_, '_> {
    /// A frame has come.
    pub fn receive(&mut self, text: &str) {
        if !self.state.has_rest() {
            if let Some(at) = self.run(text) {
                self.keep(&text[at..]);
            }
            return self.finish();
        }
        // What is suspended may be read once more, by an answer that it did not wait for.
        let rest = &mut self.state.work().rest;
        if rest.text.len() + text.len() > self.settings.rest_bytes_max {
            return Disconnect::bad_request("bad request: too much at once").close(self.peer);
        }
        rest.text.push('\n');
        rest.text.push_str(text);
        self.finish();
    }

    /// Deals with the commands that had to wait, as far as they need not any longer.
    pub fn go_on(&mut self) {
        if self.state.has_rest() && !self.state.awaits_room {
            let Rest { text, at } = mem::take(&mut self.state.work().rest);
            if let Some(further) = self.run(&text[at..]) {
                let at = at + further;
                self.state.work().rest = Rest { text, at };
            }
        }
        self.finish();
    }

    /// Sends what there is to say. The peer is read again once its next command need not wait.
    pub fn finish(&mut self) {
        self.say();
        mem::take(&mut self.replies).send(self.peer);
        if self.state.holds && !self.state.hides_subscription() {
            self.state.holds = false;
            self.peer.release();
        }
        if self.state.has_rest() || self.state.is_busy() {
            self.peer.suspend();
        }
        self.state.tidy();
    }

    /// Says what waited for its turn and need not any longer.
    pub fn say(&mut self) {
        while let Some(text) = self.state.next_said() {
            if !text.is_empty() {
                self.replies.line().push_str(&text);
            }
        }
    }

    /// Has what was said since then wait for its turn, if others come before it.
    pub fn queue(&mut self, since: usize) {
        if self.state.has_pending() && self.replies.len() > since {
            let text = self.replies.take_since(since);
            self.state.say_later(text);
        }
    }

    /// Deals with commands until one has to wait: where that begins.
    fn run(&mut self, text: &str) -> Option<usize> {
        let mut rest = text;
        for _ in 0..self.settings.commands_max {
            let (line, behind) = command::split(rest)?;
            let since = self.replies.len();
            let flow = match self.state.is_busy() {
                true => Ok(Flow::Again),
                false => self.execute(line),
            };
            self.queue(since);
            match flow {
                Ok(Flow::Next) => rest = behind,
                Ok(Flow::Again) => return Some(text.len() - rest.len()),
                Err(disconnect) => {
                    mem::take(&mut self.replies).send(self.peer);
                    disconnect.close(self.peer);
                    return None;
                }
            }
            if self.replies.len() > REPLIES_BYTES_MAX {
                mem::take(&mut self.replies).send(self.peer);
            }
        }
        if command::split(rest).is_some() {
            Disconnect::bad_request("bad request: too many commands in a frame").close(self.peer);
        }
        None
    }

    /// Whether a question with a large answer has to wait: for the answers to others, or until the
    /// client has read more of them.
    pub fn is_loaded(&mut self) -> bool {
        let waiting = self.peer.buffered_bytes() + self.replies.len();
        if waiting > self.settings.waiting_bytes_max / WAITING_PARTS {
            self.state.awaits_drain = true;
            self.arm();
            return true;
        }
        self.state.is_loaded()
    }

    fn keep(&mut self, text: &str) {
        let text = text.to_owned();
        self.state.work().rest = Rest { text, at: 0 };
    }

    fn execute(&mut self, line: &str) -> Result<Flow, Disconnect> {
        let Command { id, method } =
            command::read(line).map_err(|_| Disconnect::bad_request("bad request: no command"))?;
        if !self.state.is_connected && !matches!(method, Method::Connect(_)) {
            return Err(Disconnect::bad_request("bad request: connect comes first"));
        }
        if id == 0 && !matches!(method, Method::Pong | Method::Send) {
            return Err(Disconnect::bad_request("bad request: command without id"));
        }
        let outcome = match method {
            Method::Pong => {
                self.pong();
                Ok(Flow::Next)
            }
            Method::Connect(request) => return self.connect(id, &request),
            Method::Refresh(request) => return self.refresh(id, &request.token),
            Method::SubRefresh(request) => return self.sub_refresh(id, &request),
            // Nobody listens to these: said this way, as there is no reply to say it in.
            Method::Send => return Err(Disconnect::NOT_AVAILABLE),
            Method::Subscribe(request) => self.subscribe(id, &request),
            Method::Unsubscribe(request) => self.unsubscribe(id, &request.channel),
            Method::Publish(request) => self.publish(id, &request),
            Method::Presence(request) => self.presence(id, &request.channel),
            Method::PresenceStats(request) => self.presence_stats(id, &request.channel),
            Method::History(request) => self.history(id, &request),
            Method::Ping => {
                self.replies.empty(id, "ping");
                Ok(Flow::Next)
            }
            Method::Rpc | Method::Unknown => Err(Fault::MethodNotFound),
        };
        Ok(outcome.unwrap_or_else(|fault| {
            self.replies.fault(id, fault);
            Flow::Next
        }))
    }

    /// A pong has come, or an empty command that nobody asked for.
    fn pong(&mut self) {
        if mem::take(&mut self.state.awaits_pong) {
            self.state.due = self.peer.now + self.settings.ping_ticks;
            self.arm();
        }
    }

    /// The next ping, after which others follow when they are answered. The first ones of those
    /// who come at the same time are spread out.
    pub fn begin_pings(&mut self) {
        self.state.due = 0;
        if self.state.is_pinged {
            let half = self.settings.ping_ticks / 2;
            let spread = hub_slot(self.peer).wrapping_mul(SPREAD) % half.max(1);
            self.state.due = self.peer.now + self.settings.ping_ticks - spread;
        }
        self.arm();
    }

    /// Sets the timer to what is due first.
    pub fn arm(&mut self) {
        let mut wait = None;
        if self.state.due != 0 {
            let ticks = self.state.due.saturating_sub(self.peer.now);
            wait = Some(Duration::from_millis(u64::from(ticks) * TICK_MS));
        }
        let ends = self.state.passes.iter().filter_map(|pass| pass.expires);
        if let Some(end) = ends.min() {
            let end = end.saturating_add(self.settings.grace_seconds);
            let seconds = end.saturating_sub(sys::unix_seconds()).max(0);
            let until = Duration::from_secs(seconds.unsigned_abs());
            wait = Some(wait.map_or(until, |wait| wait.min(until)));
        }
        if self.state.awaits_drain {
            wait = Some(Duration::from_millis(2 * TICK_MS));
        }
        if let Some(wait) = wait {
            self.peer.deadline(wait);
        }
    }

    /// The user that the connection belongs to; empty for none.
    pub fn user(&self) -> &str {
        let identity = self.peer.identity();
        identity
            .and_then(|identity| identity.subject)
            .unwrap_or_default()
    }

    /// The seconds until then that a client is told; `None` for no end.
    pub fn ttl(&self, expires: Option<i64>) -> Option<u32> {
        let seconds = expires?.saturating_sub(sys::unix_seconds());
        Some(u32::try_from(seconds.max(1)).unwrap_or(u32::MAX))
    }
}

fn hub_slot(peer: &Peer<'_>) -> Tick {
    peer.id().key().slot
}

/// Neighbours get times far apart (Knuth's multiplicative hashing).
const SPREAD: u32 = 2_654_435_761;

/// When more than one such part of what may wait for a client does, no large answer is asked for.
const WAITING_PARTS: usize = 6;

/// Replies of one frame that are sent as one.
const REPLIES_BYTES_MAX: usize = 64 << 10;
