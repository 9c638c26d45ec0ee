//! The server API: `POST /api/{method}` with a JSON body and `X-API-Key`, for the servers behind an
//! application. Bodies and answers are Centrifugo's, so its libraries work.
//!
//! An answer is `{"result":…}` or `{"error":{"code":…,"message":…}}`, with status 200 in either
//! case; other statuses are for requests that are none of this API's, or carry no key. Most methods
//! ask homes of channels and wait for them: what they wait for is kept by connection, one call
//! each, until it is complete or the connection gives it up.
//!
//! - `body` reads requests, `answers` writes results, `fault` is what goes wrong;
//! - `methods` is what each method does, with `publish` and `tell`, and `call` what it waits for
//!   then;
//! - `batch` runs several in one request;
//! - `stats` is about the server as a whole, `revoke` about tokens.

mod answers;
mod batch;
mod body;
mod call;
mod fault;
mod methods;
mod publish;
mod revoke;
mod stats;
mod tell;

use std::{collections::HashMap, sync::Arc};

use batch::Batch;
use body::Body;
use call::{Begun, Waiting};
use fault::Fault;
use methods::{Method, Methods, Tag};
use stats::Stats;

use crate::{
    config::Config,
    handler::{Answer, Caller, ConnId, Heard, Incoming, KeyCheck, Reason, Refusal, Response},
    metrics::Registry,
};

/// Answers to the server API.
#[derive(Debug)]
pub struct Api {
    has_admin: bool,
    methods: Methods,
    /// What requests wait for. Each connection has one at a time, so they bound this.
    calls: HashMap<ConnId, Call>,
    /// Tells the answers to one call from late ones to the call before it.
    serial: u8,
    /// How long an answer may become: less than what its connection may have waiting.
    answer_bytes_max: usize,
}

/// A request that waits.
#[derive(Debug)]
struct Call {
    serial: u8,
    work: Work,
}

#[derive(Debug)]
enum Work {
    One(Waiting),
    Batch(Box<Batch>),
}

impl Api {
    pub fn new(config: &Config, registry: &Arc<Registry>) -> Self {
        let answer_bytes_max = config.outbox_bytes_hard().saturating_sub(OUTBOX_BYTES_LEFT);
        Self {
            has_admin: !config.admin_listen.is_empty(),
            methods: Methods::new(config, Stats::new(registry), answer_bytes_max),
            calls: HashMap::new(),
            serial: 0,
            answer_bytes_max,
        }
    }

    /// Answers a request for `/api/` and `method`.
    pub fn answer(
        &mut self,
        method: &str,
        caller: &mut Caller<'_>,
        incoming: &Incoming<'_>,
        body: &[u8],
    ) -> Answer {
        // With an admin listener, the API is only there.
        let is_here = incoming.is_admin() || !self.has_admin;
        let Some(route) = Route::of(method).filter(|_| is_here) else {
            return Refusal::from(Reason::UnknownPath).response().into();
        };
        let verb = incoming.request.method();
        let is_get = matches!(verb, "GET" | "HEAD") && route.is_safe();
        if !is_get && verb != "POST" {
            let allowed = if route.is_safe() {
                "GET, HEAD, POST"
            } else {
                "POST"
            };
            return Refusal::method_not_allowed(allowed).response().into();
        }
        match incoming.api_key() {
            KeyCheck::Right => {}
            KeyCheck::Off => return Refusal::from(Reason::ApiOff).response().into(),
            KeyCheck::Wrong => return Refusal::from(Reason::ApiKey).response().into(),
        }
        if route == Route::Revoke {
            return revoke::answer(incoming, body).into();
        }
        let query = incoming.request.query().filter(|_| route.is_safe());
        let response = match (route, query, simdutf8::basic::from_utf8(body)) {
            (Route::One(method), Some(query), Ok("")) => {
                self.one(method, caller, &body::of_query(query))
            }
            (Route::One(method), _, Ok(body)) => self.one(method, caller, body),
            (Route::Batch | Route::Revoke, _, Ok(body)) => self.batch(caller, body),
            (_, _, Err(_)) => {
                let fault = Fault::bad("the body is not UTF-8");
                Some(result(self.answer_bytes_max, |_, _| Err(fault)))
            }
        };
        response.map_or(Answer::Later, Answer::Now)
    }

    /// A waiting request hears something. `None`: that was not all.
    pub fn answered(&mut self, caller: &mut Caller<'_>, heard: Heard) -> Option<Response> {
        let tag = Tag::of(&heard);
        let call = self.calls.get_mut(&caller.id())?;
        if call.serial != tag.serial {
            return None;
        }
        let response = match &mut call.work {
            Work::One(waiting) => {
                waiting.hear(tag.item.into(), heard);
                let end = self.answer_bytes_max;
                (waiting.left() == 0).then(|| result(end, |out, end| waiting.write(out, end)))
            }
            Work::Batch(batch) => {
                batch.hear(tag, heard);
                batch.go_on(&self.methods, caller);
                batch.is_complete().then(|| json(batch.write()))
            }
        };
        if response.is_some() {
            self.calls.remove(&caller.id());
        }
        response
    }

    /// Nobody waits for the answer any more.
    pub fn abandoned(&mut self, id: ConnId) {
        self.calls.remove(&id);
    }

    fn one(&mut self, method: Method, caller: &mut Caller<'_>, text: &str) -> Option<Response> {
        let tag = self.next_tag();
        let mut channels_left = self.methods.channels_max;
        let methods = &self.methods;
        let begun = Body::read(text)
            .and_then(|body| methods.begin(method, caller, &body, tag, &mut channels_left));
        let end = self.answer_bytes_max;
        match begun {
            Err(fault) => Some(result(end, |_, _| Err(fault))),
            Ok(Begun::Done(done)) => Some(result(end, |out, _| {
                out.push_str(&done);
                Ok(())
            })),
            Ok(Begun::Waits(waiting)) if waiting.left() == 0 => {
                Some(result(end, |out, end| waiting.write(out, end)))
            }
            Ok(Begun::Waits(waiting)) => {
                self.wait(caller.id(), tag, Work::One(waiting));
                None
            }
        }
    }

    fn batch(&mut self, caller: &mut Caller<'_>, text: &str) -> Option<Response> {
        let tag = self.next_tag();
        let (serial, end) = (tag.serial, self.answer_bytes_max);
        let batch =
            Body::read(text).and_then(|body| Batch::read(&body, &self.methods, serial, end));
        let mut batch = match batch {
            Ok(batch) => batch,
            Err(fault) => return Some(result(end, |_, _| Err(fault))),
        };
        batch.go_on(&self.methods, caller);
        if batch.is_complete() {
            return Some(json(batch.write()));
        }
        self.wait(caller.id(), tag, Work::Batch(Box::new(batch)));
        None
    }

    fn wait(&mut self, id: ConnId, tag: Tag, work: Work) {
        let serial = tag.serial;
        self.calls.insert(id, Call { serial, work });
    }

    fn next_tag(&mut self) -> Tag {
        self.serial = self.serial.wrapping_add(1);
        Tag {
            serial: self.serial,
            command: 0,
            item: 0,
        }
    }
}

/// What a path behind `/api/` leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    One(Method),
    Batch,
    Revoke,
}

impl Route {
    fn of(path: &str) -> Option<Self> {
        match path {
            "batch" => Some(Self::Batch),
            "revoke" => Some(Self::Revoke),
            _ => Method::named(path).map(Self::One),
        }
    }

    /// Whether GET will do.
    fn is_safe(self) -> bool {
        matches!(self, Self::One(method) if method.is_safe())
    }
}

/// `{"result":…}`, or the error that `write` gives. It is given the length that is not to be
/// passed.
fn result(end: usize, write: impl FnOnce(&mut String, usize) -> Result<(), Fault>) -> Response {
    let mut out = String::with_capacity(RESULT_BYTES);
    answers::envelope(&mut out, "result", |out| write(out, end));
    json(out)
}

fn json(body: String) -> Response {
    Response::new(200)
        .body("application/json", body)
        .header("Cache-Control", "no-store")
}

/// Room for the result of a publish.
const RESULT_BYTES: usize = 80;

/// What is left of a connection's outbox for the head of an answer.
const OUTBOX_BYTES_LEFT: usize = 64 * 1024;
