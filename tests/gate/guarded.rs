//! `Guarded`: a running server, what it counts of those it refused, and what it says of them.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    ops::Deref,
};

use crate::{
    call::{Answer, Call},
    outside::{PATIENCE, wait_until},
    server::{Server, Setup},
};

/// A server, ended with its test.
pub struct Guarded {
    server: Server,
    /// Where TLS is not spoken.
    pub address: SocketAddr,
}

/// A line of the log.
#[derive(Clone, Debug)]
pub struct Line {
    pub level: String,
    pub message: String,
}

impl Deref for Guarded {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Guarded {
    /// A server with these variables, given without their prefix. `@/` is its folder.
    #[track_caller]
    pub fn with(options: &[(&str, &str)]) -> Self {
        Self::start(set(Setup::new(), options))
    }

    /// The same, reachable by other machines.
    #[track_caller]
    pub fn exposed(options: &[(&str, &str)]) -> Self {
        let setup = Setup::new().set("LISTEN", "0.0.0.0:0");
        Self::start(set(setup, options))
    }

    #[track_caller]
    pub fn start(setup: Setup) -> Self {
        let server = setup.start();
        let mut address = server.plain.unwrap();
        if address.ip().is_unspecified() {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        Self { server, address }
    }

    /// Where TLS is spoken.
    pub fn secure(&self) -> SocketAddr {
        self.server.address
    }

    /// How many were refused, by reason and with whatever status.
    #[track_caller]
    pub fn refusals(&self) -> HashMap<String, u64> {
        let page = self.page("/metrics");
        let samples = page.lines().filter_map(|line| {
            let labels = line.strip_prefix("tidemill_handshakes_refused_total{")?;
            let reason = labels.split_once("reason=\"")?.1.split_once('"')?.0;
            let count = line.rsplit(' ').next()?.parse().ok()?;
            Some((reason.to_owned(), count))
        });
        let mut counts = HashMap::new();
        for (reason, count) in samples {
            assert_eq!(counts.insert(reason, count), None, "{page}");
        }
        assert!(!counts.is_empty(), "{page}");
        counts
    }

    #[track_caller]
    pub fn refused(&self, reason: &str) -> u64 {
        let counts = self.refusals();
        let count = counts.get(reason);
        *count.unwrap_or_else(|| panic!("no {reason} in {counts:?}"))
    }

    /// The call is refused with this status, and counted for this reason and no other.
    #[track_caller]
    pub fn refuses(&self, call: &Call, status: u16, reason: &str) -> Answer {
        let before = self.refusals();
        let answer = call.refused(self.address, status);
        assert_eq!(
            rose(&before, &self.refusals()),
            reason,
            "{call:?} {answer:?}"
        );
        answer
    }

    /// The same for tokens: 401 with what RFC 6750, 3 wants of it.
    #[track_caller]
    pub fn refuses_token(&self, call: &Call, reason: &str) -> Answer {
        let answer = self.refuses(call, 401, reason);
        check_challenge(&answer, reason == "token_missing");
        answer
    }

    /// The same for a token that may be refused for one of these reasons; gives which.
    #[track_caller]
    pub fn refuses_token_somehow(&self, call: &Call, reasons: &[&str]) -> String {
        let before = self.refusals();
        let answer = call.refused(self.address, 401);
        check_challenge(&answer, false);
        let reason = rose(&before, &self.refusals());
        assert!(reasons.contains(&&*reason), "{reason}: {call:?}");
        reason
    }

    #[track_caller]
    pub fn all_refused(&self) -> u64 {
        self.refusals().values().sum()
    }

    /// Lines of the log whose message contains this.
    #[track_caller]
    pub fn said(&self, part: &str) -> Vec<Line> {
        let lines = self.logged("").into_iter().map(|line| {
            let line: serde_json::Value = serde_json::from_str(&line)
                .unwrap_or_else(|error| panic!("{error}: not a line of the log: {line:?}"));
            Line {
                level: line["level"].as_str().unwrap().to_owned(),
                message: line["message"].as_str().unwrap().to_owned(),
            }
        });
        lines.filter(|line| line.message.contains(part)).collect()
    }

    /// Waits until something like this was said; gives the first.
    #[track_caller]
    pub fn expect_said(&self, part: &str) -> Line {
        let lines = wait_until(PATIENCE, || self.said(part), |lines| !lines.is_empty());
        lines[0].clone()
    }

    /// Waits until so many were refused for this reason.
    #[track_caller]
    pub fn expect_refused(&self, reason: &str, count: u64) {
        wait_until(PATIENCE, || self.refused(reason), |seen| *seen == count);
    }

    /// It was told to end, and does, in order.
    #[track_caller]
    pub fn end_by_itself(self) {
        self.server.stop_by_itself();
    }

    /// Ends it in order, and insists that nothing panicked.
    #[track_caller]
    pub fn end(self) {
        self.server.stop();
    }
}

impl Line {
    /// The value of `key=`, without its quotes.
    #[track_caller]
    pub fn value(&self, key: &str) -> &str {
        let from = self.message.split_once(&format!(" {key}="));
        let (_, rest) = from.unwrap_or_else(|| panic!("no {key}= in {self:?}"));
        match rest.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next().unwrap(),
            None => rest.split(' ').next().unwrap(),
        }
    }
}

impl Line {
    /// How many like it were not told since the last one.
    pub fn untold(&self) -> u64 {
        let count = self.message.split_once(" untold=");
        count.map_or(0, |(_, count)| count.parse().unwrap())
    }
}

pub fn set(setup: Setup, options: &[(&str, &str)]) -> Setup {
    let mut setup = setup;
    for (name, value) in options {
        setup = setup.set(name, value);
    }
    setup
}

/// The one reason that was counted, once.
#[track_caller]
fn rose(before: &HashMap<String, u64>, after: &HashMap<String, u64>) -> String {
    let rose = after.iter().filter_map(|(reason, count)| {
        let more = count - before.get(reason).copied().unwrap_or(0);
        (more > 0).then_some((reason.clone(), more))
    });
    let rose: Vec<_> = rose.collect();
    assert!(rose.len() == 1 && rose[0].1 == 1, "counted: {rose:?}");
    rose[0].0.clone()
}

#[track_caller]
fn check_challenge(answer: &Answer, is_missing: bool) {
    let challenge = answer.header("www-authenticate");
    let challenge = challenge.unwrap_or_else(|| panic!("no WWW-Authenticate in {answer:?}"));
    let rest = challenge.strip_prefix("Bearer realm=\"tidemill\"");
    let rest = rest.unwrap_or_else(|| panic!("{challenge}"));
    if is_missing {
        // RFC 6750, 3.1: who shows nothing is told no error.
        assert_eq!(rest, "");
    } else {
        let said = ", error=\"invalid_token\", error_description=\"";
        assert!(rest.starts_with(said) && rest.ends_with('"'), "{challenge}");
    }
}
