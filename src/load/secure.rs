//! TLS as a run has it: whom it believes, and what its handshakes came to.

use std::io;

use super::plan::{Mode, Options, PlanError};
use crate::transport::tls::{
    Agreement, Authorities, Distrust, Handshake, ServerName, Session, Trust,
};

/// What all connections of a run have in common.
#[derive(Clone, Debug)]
pub struct Secure {
    trust: Trust,
    name: ServerName<'static>,
}

impl Secure {
    /// Of a `wss://` URL; there is none of a `ws://` URL.
    ///
    /// # Errors
    /// Options that belong to a `wss://` URL alone, a host that no certificate is for, or
    /// authorities that cannot be read.
    pub fn of(options: &Options) -> Result<Option<Self>, PlanError> {
        let target = &options.target;
        let authorities = options.authorities.as_ref();
        if !target.is_secure() {
            let flag = match authorities {
                Some(Authorities::Anybody) => "--insecure",
                Some(_) => "--ca",
                None if options.resume => "--resume",
                None => return Ok(None),
            };
            return wrong(format!(
                "{flag}: only with a wss:// URL, for ws:// has no TLS"
            ));
        }
        let Some(name) = target.server_name() else {
            let url = target.url();
            return wrong(format!("URL {url:?}: no certificate can be for this host"));
        };
        // What is under way at once asks for as many tickets before it brings new ones.
        let tickets = match options.mode {
            _ if !options.resume => 0,
            Mode::Connect => options.connections,
            _ => options.connecting.min(options.connections_all()),
        };
        let trust = match Trust::new(authorities.unwrap_or(&Authorities::System), tickets) {
            Ok(trust) => trust,
            Err(problem) if authorities.is_none() => {
                return wrong(format!(
                    "{problem}: name some with --ca FILE, or verify nothing with --insecure"
                ));
            }
            Err(problem) => return wrong(format!("--ca {problem}")),
        };
        Ok(Some(Self { trust, name }))
    }

    /// The client's side of a new connection.
    ///
    /// # Errors
    /// When TLS cannot be begun.
    pub fn session(&self) -> io::Result<Session> {
        self.trust.session(&self.name)
    }
}

fn wrong<T>(problem: String) -> Result<T, PlanError> {
    Err(PlanError::Value(problem))
}

/// What the TLS handshakes of opened connections came to.
#[derive(Clone, Debug, Default)]
pub struct Handshakes {
    pub full: u64,
    pub resumed: u64,
    /// By the first of them.
    pub agreement: Option<Agreement>,
    /// Why the server's certificate was not accepted, the first time that it was not.
    pub distrust: Option<Distrust>,
}

impl Handshakes {
    /// Counts an opened connection.
    pub fn add(&mut self, session: &Session) {
        match session.handshake() {
            Some(Handshake::Resumed) => self.resumed += 1,
            _ => self.full += 1,
        }
        if self.agreement.is_none() {
            self.agreement = session.agreement();
        }
    }

    pub fn merge(&mut self, other: &Self) {
        self.full += other.full;
        self.resumed += other.resumed;
        if self.agreement.is_none() {
            self.agreement.clone_from(&other.agreement);
        }
        self.distrust = self.distrust.or(other.distrust);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::target::Target;

    fn options(url: &str) -> Options {
        Options::new(Mode::Hold, Target::parse(url).unwrap())
    }

    #[track_caller]
    fn problem(options: &Options) -> String {
        Secure::of(options).unwrap_err().to_string()
    }

    #[test]
    fn flags_of_tls_want_a_url_of_tls() {
        let plain = || options("ws://127.0.0.1:1/");
        let with = |authorities| Options {
            authorities: Some(authorities),
            ..plain()
        };
        assert!(Secure::of(&plain()).unwrap().is_none());
        for (options, flag) in [
            (with(Authorities::Anybody), "--insecure: "),
            (with(Authorities::File("a".into())), "--ca: "),
            (
                Options {
                    resume: true,
                    ..plain()
                },
                "--resume: ",
            ),
        ] {
            let problem = problem(&options);
            assert!(problem.starts_with(flag), "{problem}");
            assert!(problem.contains("wss://"), "{problem}");
        }
    }

    #[test]
    fn what_cannot_be_believed_is_named() {
        let missing = Options {
            authorities: Some(Authorities::File("/nowhere/ca.pem".into())),
            ..options("wss://127.0.0.1:1/")
        };
        let said = problem(&missing);
        assert!(said.starts_with("--ca /nowhere/ca.pem: "), "{said}");
        let nobody = Options {
            authorities: Some(Authorities::Anybody),
            ..options("wss://a..b/")
        };
        let said = problem(&nobody);
        assert!(said.starts_with("URL \"wss://a..b/\": "), "{said}");
    }
}
