//! `Router`: from a path to a dialect.

use std::sync::Arc;

use super::{
    api::Api,
    echo::{self, WELCOME},
    pages::Pages,
};
use crate::{
    config::{Config, DefaultPath, Dialect},
    handler::{
        Accept, Door, Failure, Handler, Incoming, Message, OriginList, Peer, Reason, Refusal,
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
}

/// The dialect of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Welcome,
    Echo,
}

impl Router {
    pub fn new(config: &Config, registry: &Arc<Registry>) -> Self {
        Self {
            config: config.clone(),
            pages: Pages::new(config, registry),
            api: Api::new(config),
        }
    }

    /// What an upgrade to this path speaks.
    fn route(&self, path: &str) -> Option<State> {
        let path = strip_prefix(path, &self.config.path_prefix)?;
        let named = match path {
            "/" | "/ws" | "/chat" => Some((Dialect::Welcome, State::Welcome)),
            "/echo" => Some((Dialect::Echo, State::Echo)),
            _ => None,
        };
        match (named, self.config.default_path) {
            (Some((dialect, state)), _) => self.config.serves(dialect).then_some(state),
            (None, DefaultPath::Welcome) => Some(State::Welcome),
            (None, DefaultPath::Echo) => Some(State::Echo),
            (None, DefaultPath::Off) => None,
        }
    }
}

impl Handler for Router {
    type State = State;

    const DIALECTS: &'static [&'static str] = &["welcome", "echo"];

    fn door(&self, incoming: &Incoming<'_>) -> Result<Door, Refusal> {
        match self.route(incoming.request.path()) {
            Some(State::Welcome) if !incoming.is_admin() => Ok(Door::default()),
            Some(State::Echo) if !incoming.is_admin() => {
                Ok(Door::default().origins(OriginList::Echo))
            }
            _ => Err(Reason::UnknownPath.into()),
        }
    }

    fn upgrade(&mut self, incoming: &Incoming<'_>, upgrade: &Upgrade<'_>) -> Verdict<State> {
        let Some(state) = self.route(incoming.request.path()) else {
            return Verdict::Refuse(Reason::UnknownPath.into());
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
        Ok(())
    }

    #[inline]
    fn message(
        &mut self,
        peer: &mut Peer<'_>,
        state: &mut State,
        message: Message<'_>,
    ) -> Result<(), Failure> {
        match state {
            State::Welcome | State::Echo => echo::echo(peer, message),
        }
        Ok(())
    }

    fn request(&mut self, incoming: &Incoming<'_>, body: &[u8]) -> Response {
        let path = incoming.request.path();
        let Some(path) = strip_prefix(path, &self.config.path_prefix) else {
            return self.pages.unknown();
        };
        if let Some(method) = path.strip_prefix("/api/") {
            return self.api.answer(method, incoming, body);
        }
        let speaks = !incoming.is_admin() && self.route(incoming.request.path()).is_some();
        self.pages.answer(path, incoming, speaks)
    }

    fn dialect(&self, state: &State) -> usize {
        *state as usize
    }
}

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
            assert_eq!(router.route(path), Some(State::Welcome));
        }
        assert_eq!(router.route("/echo"), Some(State::Echo));
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
        assert_eq!(router.route("/elsewhere"), Some(State::Echo));
    }

    #[test]
    fn the_prefix_is_stripped_at_a_slash() {
        assert_eq!(strip_prefix("/live/echo", "/live"), Some("/echo"));
        assert_eq!(strip_prefix("/live", "/live"), Some("/"));
        assert_eq!(strip_prefix("/lively", "/live"), None);
        assert_eq!(strip_prefix("/echo", ""), Some("/echo"));
    }
}
