//! `Probe`: an application that does what its peers tell it to, and tells the test what it saw.

use std::{sync::mpsc, time::Duration};

use tidemill::{
    Accept, Answer, Caller, CloseCode, Config, ConnId, Control, Failure, Handler, Incoming,
    Message, Peer, Response, Upgrade, Verdict,
};

use crate::{
    site::Site,
    wire::{PATIENCE, Wire},
};

/// What happened to a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Open(String),
    Message(String),
    Binary(usize),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    PeerClose(u16, String),
    Drain,
    Deadline,
    Close(u16, String),
}

/// The handler of one reactor.
#[derive(Debug)]
pub struct Probe {
    seen: mpsc::Sender<(ConnId, Seen)>,
}

/// What the probe remembers of a connection: where it came in, and what it said.
#[derive(Debug)]
pub struct State {
    path: String,
    messages: usize,
}

/// The test's end of a probe.
#[derive(Debug)]
pub struct Watch {
    pub site: Site,
    seen: mpsc::Receiver<(ConnId, Seen)>,
}

pub fn watch(config: &Config) -> Watch {
    let (sender, seen) = mpsc::channel();
    let site = Site::of(config, move |_| Probe {
        seen: sender.clone(),
    });
    Watch { site, seen }
}

impl Watch {
    pub fn open(&self, path: &str) -> Wire {
        Wire::open(self.site.address, path)
    }

    /// What happened next, on whatever connection.
    #[track_caller]
    pub fn next(&self) -> Seen {
        self.seen
            .recv_timeout(PATIENCE)
            .expect("nothing happened")
            .1
    }

    /// What happened next must be this.
    #[track_caller]
    pub fn expect(&self, seen: &Seen) {
        assert_eq!(self.next(), *seen);
    }

    /// Skips to the end of a connection.
    #[track_caller]
    pub fn expect_closed(&self) -> (u16, String) {
        loop {
            if let Seen::Close(code, reason) = self.next() {
                return (code, reason);
            }
        }
    }

    /// Nothing happens in this time.
    #[track_caller]
    pub fn expect_silence(&self, time: Duration) {
        let seen = self.seen.recv_timeout(time);
        assert!(seen.is_err(), "{seen:?}");
    }

    /// Everything that happened until the server was gone.
    pub fn until_stopped(self) -> Vec<(ConnId, Seen)> {
        drop(self.site);
        self.seen.iter().collect()
    }
}

impl Probe {
    fn tell(&self, id: ConnId, seen: Seen) {
        // The test may have ended before the server.
        let _ = self.seen.send((id, seen));
    }

    fn obey(&self, peer: &mut Peer<'_>, state: &State, text: &str) -> Result<(), Failure> {
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        match verb {
            "echo" => peer.send_text(rest),
            "count" => peer.send_text(&state.messages.to_string()),
            "path" => peer.send_text(&state.path),
            "id" => peer.send_text(&peer.id().to_string()),
            "remote" => peer.send_text(&format!("{:?}", peer.remote())),
            "buffered" => peer.send_text(&peer.buffered_bytes().to_string()),
            "flood" => peer.send_binary(&vec![7; rest.parse()?]),
            "ping" => peer.ping(rest.as_bytes()),
            "fail" => return Err(Failure::new("asked to fail")),
            "panic" => panic!("asked to panic"),
            "suspend" => peer.suspend(),
            "block" => std::thread::sleep(Duration::from_millis(rest.parse()?)),
            "pause" => {
                peer.suspend();
                peer.deadline(Duration::from_millis(rest.parse()?));
            }
            "deadline" => peer.deadline(Duration::from_millis(rest.parse()?)),
            "close" => {
                let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
                peer.close(CloseCode::from(code.parse::<u16>()?), reason);
                peer.send_text("after the close");
                assert!(!peer.is_open());
            }
            _ => {}
        }
        Ok(())
    }
}

impl Handler for Probe {
    type State = State;

    fn upgrade(&mut self, incoming: &Incoming<'_>, upgrade: &Upgrade<'_>) -> Verdict<State> {
        let path = incoming.request.path().to_owned();
        match &*path {
            "/panic-at-upgrade" => panic!("asked to panic"),
            "/teapot" => return Verdict::Answer(Response::new(418).body("text/plain", "short")),
            "/refused" => return Verdict::Refuse(tidemill::Reason::UnknownPath.into()),
            _ => {}
        }
        let is_text_only = path == "/text-only";
        let token = incoming.request.header("x-token").unwrap_or("none");
        let state = State {
            path: path.clone(),
            messages: 0,
        };
        let mut accept = Accept::new(state).header("X-Seen", token);
        if let Some(last) = upgrade.protocols().last() {
            accept = accept.protocol(last);
        }
        if is_text_only {
            accept = accept.text_only();
        }
        accept.into()
    }

    fn open(&mut self, peer: &mut Peer<'_>, state: &mut State) -> Result<(), Failure> {
        self.tell(peer.id(), Seen::Open(state.path.clone()));
        match &*state.path {
            "/greeting" => peer.send_text("hello"),
            "/fail-at-open" => return Err(Failure::new("asked to fail")),
            "/panic-at-open" => panic!("asked to panic"),
            "/close-at-open" => peer.close(CloseCode::from(4005), "not today"),
            _ => {}
        }
        Ok(())
    }

    fn message(
        &mut self,
        peer: &mut Peer<'_>,
        state: &mut State,
        message: Message<'_>,
    ) -> Result<(), Failure> {
        state.messages += 1;
        match message {
            Message::Text(text) => {
                self.tell(peer.id(), Seen::Message(text.to_owned()));
                self.obey(peer, state, text)
            }
            Message::Binary(bytes) => {
                self.tell(peer.id(), Seen::Binary(bytes.len()));
                peer.send_binary(bytes);
                Ok(())
            }
        }
    }

    fn control(&mut self, peer: &mut Peer<'_>, _: &mut State, control: Control<'_>) {
        let seen = match control {
            Control::Ping(payload) => Seen::Ping(payload.to_vec()),
            Control::Pong(payload) => Seen::Pong(payload.to_vec()),
            Control::Close(code, reason) => Seen::PeerClose(code.into(), reason.to_owned()),
        };
        self.tell(peer.id(), seen);
        assert_ne!(control, Control::Ping(b"panic"), "asked to panic");
    }

    fn drain(&mut self, peer: &mut Peer<'_>, state: &mut State) -> Result<(), Failure> {
        self.tell(peer.id(), Seen::Drain);
        match &*state.path {
            "/fail-at-drain" => Err(Failure::new("asked to fail")),
            "/panic-at-drain" => panic!("asked to panic"),
            _ => Ok(()),
        }
    }

    fn deadline(&mut self, peer: &mut Peer<'_>, state: &mut State) -> Result<(), Failure> {
        self.tell(peer.id(), Seen::Deadline);
        peer.resume();
        match &*state.path {
            "/fail-at-deadline" => Err(Failure::new("asked to fail")),
            "/panic-at-deadline" => panic!("asked to panic"),
            _ => {
                peer.send_text("deadline");
                Ok(())
            }
        }
    }

    fn close(&mut self, id: ConnId, state: State, code: CloseCode, reason: &str) {
        self.tell(id, Seen::Close(code.into(), reason.to_owned()));
        assert_ne!(state.path, "/panic-at-close", "asked to panic");
    }

    fn request(&mut self, _: &mut Caller<'_>, incoming: &Incoming<'_>, body: &[u8]) -> Answer {
        let request = incoming.request;
        assert_ne!(request.path(), "/panic", "asked to panic");
        let text = format!(
            "{} {} {} {}",
            request.method(),
            request.path(),
            request.query().unwrap_or("-"),
            String::from_utf8_lossy(body)
        );
        Response::new(200)
            .body("text/plain", text.into_bytes())
            .into()
    }
}
