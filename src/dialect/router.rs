//! `Router`: from a path to a dialect.

use std::sync::Arc;

use slab::Slab;

use super::{
    api::Api,
    echo::{self, WELCOME},
    native::{self, Native},
    pages::Pages,
    raw::{self, Raw},
};
use crate::{
    config::{Config, DefaultPath, Dialect},
    handler::{
        Accept, Answer, Caller, Channel, CloseCode, Command, ConnId, Door, Ending, Failure, Frame,
        Handler, Heard, Incoming, Message, OriginList, Peer, Publication, Reason, Refusal, Reply,
        Response, Upgrade, Verdict,
    },
    metrics::Registry,
    protocol::handshake::select_protocol,
};

/// The handler of the `tidemill` binary.
#[derive(Debug)]
pub struct Router {
    config: Config,
    pages: Pages,
    api: Api,
    raw: Raw,
    native: Native,
    /// What is remembered of the connections of those dialects that remember something.
    raw_states: Slab<raw::State>,
    native_states: Slab<native::State>,
}

/// The dialect of one connection, and where its state is: a word in the slot of those that have
/// none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Welcome,
    Echo,
    Raw(u32),
    Native(u32),
}

/// Where a path leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route<'p> {
    Welcome,
    Echo,
    /// To the channel, percent-encoded.
    Raw(&'p str),
    Native,
}

/// Runs a method of the dialect that a connection speaks, if it is one with a state.
macro_rules! dispatch {
    ($router:ident, $state:ident, $method:ident($($argument:expr),*)) => {
        match *$state {
            State::Welcome | State::Echo => Ok(()),
            State::Raw(index) => {
                let state = &mut $router.raw_states[index as usize];
                $router.raw.$method($($argument),*, state)
            }
            State::Native(index) => {
                let state = &mut $router.native_states[index as usize];
                $router.native.$method($($argument),*, state)
            }
        }
    };
}

impl Router {
    pub fn new(config: &Config, registry: &Arc<Registry>) -> Self {
        Self {
            config: config.clone(),
            pages: Pages::new(config, registry),
            api: Api::new(config, registry),
            raw: Raw::new(config),
            native: Native::new(config),
            raw_states: Slab::new(),
            native_states: Slab::new(),
        }
    }

    /// What an upgrade to this path speaks.
    fn route<'p>(&self, path: &'p str) -> Option<Route<'p>> {
        let path = strip_prefix(path, &self.config.path_prefix)?;
        let named = match path {
            "/" | "/ws" | "/chat" => Some((Dialect::Welcome, Route::Welcome)),
            "/echo" => Some((Dialect::Echo, Route::Echo)),
            "/connection/websocket" => Some((Dialect::Native, Route::Native)),
            _ => path
                .strip_prefix("/raw/")
                .map(|channel| (Dialect::Raw, Route::Raw(channel))),
        };
        match (named, self.config.default_path) {
            (Some((dialect, route)), _) => self.config.serves(dialect).then_some(route),
            (None, DefaultPath::Welcome) => Some(Route::Welcome),
            (None, DefaultPath::Echo) => Some(Route::Echo),
            (None, DefaultPath::Off) => None,
        }
    }
}

impl Handler for Router {
    type State = State;

    const DIALECTS: &'static [&'static str] = &["welcome", "echo", "raw", "native"];

    fn door(&self, incoming: &Incoming<'_>) -> Result<Door, Refusal> {
        let route = self.route(incoming.request.path());
        match route.filter(|_| !incoming.is_admin()) {
            Some(Route::Welcome) => Ok(Door::default()),
            Some(Route::Echo) => Ok(Door::default().origins(OriginList::Echo)),
            Some(Route::Raw(_)) => Ok(Door::default().origins(OriginList::Raw)),
            Some(Route::Native) => Ok(Door::default()
                .origins(OriginList::Native)
                .token_may_follow()),
            None => Err(Reason::UnknownPath.into()),
        }
    }

    fn upgrade(&mut self, incoming: &Incoming<'_>, upgrade: &Upgrade<'_>) -> Verdict<State> {
        let state = match self.route(incoming.request.path()) {
            None => return Verdict::Refuse(Reason::UnknownPath.into()),
            Some(Route::Welcome) => State::Welcome,
            Some(Route::Echo) => State::Echo,
            Some(Route::Raw(channel)) => match self.raw.upgrade(incoming, channel) {
                Ok(state) => State::Raw(self.raw_states.insert(state) as u32),
                Err(refusal) => return Verdict::Refuse(refusal),
            },
            Some(Route::Native) => {
                let state = self.native.upgrade(incoming);
                State::Native(self.native_states.insert(state) as u32)
            }
        };
        let accept = Accept::new(state);
        match select_protocol(upgrade.protocols(), &self.config.subprotocols) {
            Some(protocol) => accept.protocol(protocol).into(),
            None => accept.into(),
        }
    }

    fn open(&mut self, peer: &mut Peer<'_>, state: &mut State) -> Result<(), Failure> {
        if *state == State::Welcome {
            peer.send_text(WELCOME);
        }
        dispatch!(self, state, open(peer))
    }

    #[inline]
    fn message(
        &mut self,
        peer: &mut Peer<'_>,
        state: &mut State,
        message: Message<'_>,
    ) -> Result<(), Failure> {
        if let State::Welcome | State::Echo = state {
            echo::echo(peer, message);
            return Ok(());
        }
        dispatch!(self, state, message(peer, message))
    }

    fn reply(
        &mut self,
        peer: &mut Peer<'_>,
        state: &mut State,
        reply: Reply,
    ) -> Result<(), Failure> {
        dispatch!(self, state, reply(peer, reply))
    }

    fn room(&mut self, peer: &mut Peer<'_>, state: &mut State) -> Result<(), Failure> {
        dispatch!(self, state, room(peer))
    }

    fn command(
        &mut self,
        peer: &mut Peer<'_>,
        state: &mut State,
        command: &Command,
    ) -> Result<(), Failure> {
        match *state {
            State::Native(index) => {
                let state = &mut self.native_states[index as usize];
                self.native.command(peer, command, state)
            }
            State::Raw(index) => {
                self.raw_states[index as usize].obey(peer, command);
                Ok(())
            }
            State::Welcome | State::Echo => {
                peer.obey(command);
                Ok(())
            }
        }
    }

    fn missed(
        &mut self,
        peer: &mut Peer<'_>,
        state: &mut State,
        channel: &Channel,
    ) -> Result<(), Failure> {
        match *state {
            State::Native(index) => {
                let state = &mut self.native_states[index as usize];
                self.native.missed(peer, channel, state)
            }
            // Bare messages have no way to say that some are missing.
            State::Welcome | State::Echo | State::Raw(_) => Ok(()),
        }
    }

    fn deadline(&mut self, peer: &mut Peer<'_>, state: &mut State) -> Result<(), Failure> {
        dispatch!(self, state, deadline(peer))
    }

    fn encode(
        &mut self,
        publication: &Publication,
        channel: &str,
        dialect: usize,
    ) -> Option<Frame> {
        match dialect {
            NATIVE => self.native.encode(publication, channel),
            _ => raw::encode(publication),
        }
    }

    fn hears(&self, state: &State) -> bool {
        match *state {
            State::Welcome | State::Echo | State::Raw(_) => true,
            State::Native(index) => self.native_states[index as usize].is_connected(),
        }
    }

    fn farewell(&self, dialect: usize, ending: Ending) -> Option<(CloseCode, &'static str)> {
        (dialect == NATIVE).then(|| native::farewell(ending))
    }

    fn close(&mut self, _: ConnId, state: State, _: CloseCode, _: &str) {
        match state {
            State::Welcome | State::Echo => {}
            State::Raw(index) => drop(self.raw_states.remove(index as usize)),
            State::Native(index) => drop(self.native_states.remove(index as usize)),
        }
    }

    fn request(&mut self, caller: &mut Caller<'_>, incoming: &Incoming<'_>, body: &[u8]) -> Answer {
        let path = incoming.request.path();
        let Some(path) = strip_prefix(path, &self.config.path_prefix) else {
            return self.pages.unknown().into();
        };
        if let Some(method) = path.strip_prefix("/api/") {
            return self.api.answer(method, caller, incoming, body);
        }
        let route = self.route(incoming.request.path());
        let route = route.filter(|_| !incoming.is_admin());
        if let Some(Route::Raw(channel)) = route
            && incoming.request.method() == "POST"
        {
            return self.raw.publish(channel, caller, incoming, body);
        }
        self.pages.answer(path, incoming, route.is_some()).into()
    }

    fn answered(&mut self, caller: &mut Caller<'_>, heard: Heard) -> Option<Response> {
        if self.raw.is_waiting(caller.id()) {
            return self.raw.answered(caller, heard);
        }
        self.api.answered(caller, heard)
    }

    fn abandoned(&mut self, id: ConnId) {
        self.raw.abandoned(id);
        self.api.abandoned(id);
    }

    fn dialect(&self, state: &State) -> usize {
        match state {
            State::Welcome => 0,
            State::Echo => 1,
            State::Raw(_) => 2,
            State::Native(_) => NATIVE,
        }
    }
}

/// The place of the native protocol among the dialects.
const NATIVE: usize = 3;

/// The path behind the configured prefix; `None` when it is not below it.
fn strip_prefix<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    match path.strip_prefix(prefix)? {
        "" => Some("/"),
        rest if rest.starts_with('/') => Some(rest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Labels;

    fn router(config: Config) -> Router {
        Router::new(&config, &Arc::new(Registry::new(1, Labels::default())))
    }

    #[test]
    fn paths_lead_to_their_dialects() {
        let router = router(Config::default());
        for path in ["/", "/ws", "/chat"] {
            assert_eq!(router.route(path), Some(Route::Welcome));
        }
        assert_eq!(router.route("/echo"), Some(Route::Echo));
        assert_eq!(router.route("/echo/"), None);
        assert_eq!(router.route("/elsewhere"), None);
    }

    #[test]
    fn a_dialect_that_is_off_has_no_path_and_a_default_catches_the_rest() {
        let mut config = Config {
            dialects: vec![Dialect::Echo],
            ..Config::default()
        };
        config.default_path = DefaultPath::Echo;
        let router = router(config);
        assert_eq!(router.route("/ws"), None);
        assert_eq!(router.route("/elsewhere"), Some(Route::Echo));
    }

    #[test]
    fn the_prefix_is_stripped_at_a_slash() {
        assert_eq!(strip_prefix("/live/echo", "/live"), Some("/echo"));
        assert_eq!(strip_prefix("/live", "/live"), Some("/"));
        assert_eq!(strip_prefix("/lively", "/live"), None);
        assert_eq!(strip_prefix("/echo", ""), Some("/echo"));
    }
}
