//! What is wrong with a configuration as a whole: fields out of their bounds, options that
//! contradict each other, and what is allowed and seldom meant.

use std::net::SocketAddr;

use super::error::ConfigError;
use super::settings::{Accept, Config, DefaultPath, Dialect, FdTables};
use super::source::Source;
use super::table::OPTIONS;
use super::text;
use super::value::{show_duration, show_size};

impl Config {
    /// Checks every field against its option's bounds, and the options against each other.
    ///
    /// # Errors
    /// [`ConfigError::Value`] names the field's variable; [`ConfigError::Conflict`] the options
    /// that contradict each other.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for spec in OPTIONS {
            spec.check(self)
                .map_err(|problem| spec.error(&spec.show(self), Source::Program, problem))?;
        }
        self.check_addresses()?;
        self.check_tls()?;
        self.check_sizes()?;
        self.check_access()?;
        self.check_namespaces()?;
        if self.accept == Accept::Handoff && self.fd_tables == FdTables::Private {
            return Err(ConfigError::Conflict(
                "TIDEMILL_ACCEPT=handoff passes sockets between reactors, which \
                 TIDEMILL_FD_TABLES=private keeps in separate descriptor tables; set \
                 TIDEMILL_ACCEPT=reuseport or TIDEMILL_FD_TABLES=shared"
                    .to_owned(),
            ));
        }
        let needed = match self.default_path {
            DefaultPath::Off => None,
            DefaultPath::Welcome => Some((Dialect::Welcome, "/")),
            DefaultPath::Echo => Some((Dialect::Echo, "/echo")),
        };
        if let Some((dialect, path)) = needed.filter(|(dialect, _)| !self.serves(*dialect)) {
            return Err(ConfigError::Conflict(format!(
                "TIDEMILL_DEFAULT_PATH={path} sends unknown paths to a dialect that \
                 TIDEMILL_DIALECTS leaves out; add {dialect} to TIDEMILL_DIALECTS or set \
                 TIDEMILL_DEFAULT_PATH=off"
            )));
        }
        Ok(())
    }

    /// What is allowed and most likely not meant. One line each, for the log and `tidemill check`.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        match (self.idle_timeout, self.ping_interval) {
            (Some(idle), Some(ping)) if idle < ping + self.pong_timeout => warnings.push(format!(
                "TIDEMILL_IDLE_TIMEOUT={} ends quiet connections before their pong can arrive; \
                 set it to at least PING_INTERVAL + PONG_TIMEOUT, which is {}",
                show_duration(idle),
                show_duration(ping + self.pong_timeout),
            )),
            (None, None) => warnings.push(
                "with TIDEMILL_PING_INTERVAL and TIDEMILL_IDLE_TIMEOUT both off, a peer that \
                 vanished without a word keeps its connection; set one of them"
                    .to_owned(),
            ),
            _ => {}
        }
        if self.tls_listen.is_empty() && (self.tls_self_signed || !self.tls_cert.is_empty()) {
            warnings.push(
                "TIDEMILL_TLS_CERT is shown to nobody; set TIDEMILL_TLS_LISTEN to an address"
                    .to_owned(),
            );
        }
        if self.dialects == [Dialect::Pages] {
            warnings.push(
                "TIDEMILL_DIALECTS=pages serves no WebSocket path at all; add welcome or echo"
                    .to_owned(),
            );
        }
        for target in text::log_targets(&self.log) {
            if !target.contains("::") && !target.starts_with("tidemill") {
                warnings.push(format!(
                    "TIDEMILL_LOG: {target:?} is no level (off, error, warn, info, debug, \
                     trace) and was taken for the name of a module"
                ));
            }
        }
        warnings.extend(self.access_warnings());
        warnings.extend(self.namespace_warnings());
        warnings
    }

    fn check_addresses(&self) -> Result<(), ConfigError> {
        let listen = self.listen_addresses();
        if listen.is_empty() && self.tls_listen.is_empty() {
            return Err(ConfigError::Conflict(
                "TIDEMILL_LISTEN=off leaves no address to listen on; name one, or set \
                 TIDEMILL_TLS_LISTEN"
                    .to_owned(),
            ));
        }
        let both = |left: &[SocketAddr], right: &[SocketAddr]| {
            let mut named = left.iter();
            named
                .find(|address| address.port() != 0 && right.contains(address))
                .copied()
        };
        if let Some(address) = both(&self.tls_listen, &listen) {
            return Err(ConfigError::Conflict(format!(
                "TIDEMILL_TLS_LISTEN and TIDEMILL_LISTEN both name {address}; give each a port of \
                 its own, or set TIDEMILL_LISTEN=off"
            )));
        }
        let admin = &self.admin_listen;
        match both(admin, &listen).or_else(|| both(admin, &self.tls_listen)) {
            Some(address) => Err(ConfigError::Conflict(format!(
                "TIDEMILL_ADMIN_LISTEN and {} both name {address}; give the admin \
                 side a port of its own, or leave TIDEMILL_ADMIN_LISTEN unset",
                match listen.contains(&address) {
                    true => "TIDEMILL_LISTEN",
                    false => "TIDEMILL_TLS_LISTEN",
                }
            ))),
            None => Ok(()),
        }
    }

    /// What is shown on the TLS listener, and that there is one.
    fn check_tls(&self) -> Result<(), ConfigError> {
        let (certificates, keys) = (self.tls_cert.len(), self.tls_key.len());
        let problem = if certificates != keys {
            format!(
                "TIDEMILL_TLS_CERT names {certificates} files and TIDEMILL_TLS_KEY {keys}; name \
                 one key for each certificate, in the same order"
            )
        } else if self.tls_self_signed && certificates > 0 {
            "TIDEMILL_TLS_SELF_SIGNED and TIDEMILL_TLS_CERT exclude each other; unset the first \
             to show the certificates, which a client can trust"
                .to_owned()
        } else if self.tls_client_ca.is_none() && self.tls_client_auth.is_some() {
            "TIDEMILL_TLS_CLIENT_AUTH asks nobody for a certificate without \
             TIDEMILL_TLS_CLIENT_CA; name a file of authorities there"
                .to_owned()
        } else if !self.tls_listen.is_empty() && !self.tls_self_signed && certificates == 0 {
            "TIDEMILL_TLS_LISTEN needs a certificate: set TIDEMILL_TLS_CERT and TIDEMILL_TLS_KEY \
             (scripts/gen-certs makes a pair), or TIDEMILL_TLS_SELF_SIGNED=true for development"
                .to_owned()
        } else {
            return Ok(());
        };
        Err(ConfigError::Conflict(problem))
    }

    /// A limit that holds whole messages must hold the largest one.
    fn check_sizes(&self) -> Result<(), ConfigError> {
        let message = self.message_bytes_max;
        let hard = self.outbox_bytes_hard();
        let limits = [
            (
                "TIDEMILL_MAX_OUTBOX_BYTES",
                self.outbox_bytes_max,
                message,
                "TIDEMILL_MAX_MESSAGE_BYTES",
            ),
            (
                "TIDEMILL_MAX_MAIL_BYTES",
                Some(self.mail_bytes_max),
                message,
                "TIDEMILL_MAX_MESSAGE_BYTES",
            ),
            (
                "TIDEMILL_MAX_BUFFER_BYTES",
                self.buffer_bytes_max,
                hard,
                "what one connection's outbox may hold",
            ),
        ];
        for (variable, set, needed, what) in limits {
            if let Some(set) = set.filter(|set| *set < needed) {
                return Err(ConfigError::Conflict(format!(
                    "{variable}={} is less than {what}, {}; raise {variable} to at least that, \
                     or lower TIDEMILL_MAX_MESSAGE_BYTES",
                    show_size(set as u64),
                    show_size(needed as u64),
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn conflict(config: Config) -> String {
        match config.validate() {
            Err(ConfigError::Conflict(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn limits_that_cannot_hold_one_message_are_contradictions() {
        let config = Config {
            message_bytes_max: 16 << 20,
            ..Config::default()
        };
        assert_eq!(config.validate(), Ok(()), "defaults follow");

        let outbox = Config {
            outbox_bytes_max: Some(1 << 20),
            ..config.clone()
        };
        let text = conflict(outbox);
        assert!(
            text.starts_with("TIDEMILL_MAX_OUTBOX_BYTES=1MiB is less than"),
            "{text}"
        );
        assert!(text.contains("TIDEMILL_MAX_MESSAGE_BYTES, 16MiB"), "{text}");
        let exact = Config {
            outbox_bytes_max: Some(16 << 20),
            ..config.clone()
        };
        assert_eq!(exact.validate(), Ok(()));

        let mail = Config {
            mail_bytes_max: 1 << 20,
            ..config.clone()
        };
        assert!(conflict(mail).starts_with("TIDEMILL_MAX_MAIL_BYTES=1MiB"));

        let buffers = Config {
            buffer_bytes_max: Some(31 << 20),
            ..config.clone()
        };
        assert!(conflict(buffers).starts_with("TIDEMILL_MAX_BUFFER_BYTES=31MiB"));
        let exact = Config {
            buffer_bytes_max: Some(32 << 20),
            ..config
        };
        assert_eq!(exact.validate(), Ok(()));
    }

    #[test]
    fn options_that_exclude_each_other_are_named_with_the_remedy() {
        let handoff = Config {
            accept: Accept::Handoff,
            fd_tables: FdTables::Private,
            ..Config::default()
        };
        let text = conflict(handoff);
        assert!(
            text.contains("ACCEPT=handoff") && text.contains("FD_TABLES=shared"),
            "{text}"
        );

        let path = Config {
            default_path: DefaultPath::Echo,
            dialects: vec![Dialect::Welcome],
            ..Config::default()
        };
        assert!(conflict(path).contains("add echo to TIDEMILL_DIALECTS"));

        let address = SocketAddr::from(([127, 0, 0, 1], 7000));
        let admin = Config {
            admin_listen: vec![address],
            ..Config::default()
        };
        assert!(conflict(admin).contains("both name 127.0.0.1:7000"));

        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let ports = Config {
            listen: Some(vec![free]),
            admin_listen: vec![free],
            ..Config::default()
        };
        assert_eq!(ports.validate(), Ok(()), "port 0 is another port each time");

        let nowhere = Config {
            listen: Some(Vec::new()),
            ..Config::default()
        };
        assert!(conflict(nowhere).contains("TIDEMILL_LISTEN"));
    }

    #[test]
    fn fields_that_a_program_set_are_held_to_the_same_bounds() {
        let refused = [
            Config {
                backlog: 0,
                ..Config::default()
            },
            Config {
                reactors: Some(0),
                ..Config::default()
            },
            Config {
                handshake_timeout: Duration::ZERO,
                ..Config::default()
            },
            Config {
                ping_interval: Some(Duration::ZERO),
                ..Config::default()
            },
            Config {
                idle_timeout: Some(Duration::MAX),
                ..Config::default()
            },
            Config {
                path_prefix: "/live/".to_owned(),
                ..Config::default()
            },
            Config {
                subprotocols: vec!["a b".to_owned()],
                ..Config::default()
            },
            Config {
                subprotocols: vec!["a,b".to_owned()],
                ..Config::default()
            },
            Config {
                server_header: Some("a\r\nb: c".to_owned()),
                ..Config::default()
            },
            Config {
                log: "tidemill=loud".to_owned(),
                ..Config::default()
            },
        ];
        for config in refused {
            match config.validate() {
                Err(ConfigError::Value(value)) => assert_eq!(value.origin, Source::Program),
                other => panic!("{other:?} for {config:?}"),
            }
        }
    }

    #[test]
    fn an_idle_timeout_that_outruns_the_pong_is_warned_about() {
        let warnings = |idle: u64, ping: Option<u64>| {
            let config = Config {
                idle_timeout: Some(Duration::from_secs(idle)),
                ping_interval: ping.map(Duration::from_secs),
                ..Config::default()
            };
            assert_eq!(config.validate(), Ok(()));
            config.warnings()
        };
        assert!(warnings(34, Some(25))[0].contains("which is 35s"));
        assert!(warnings(35, Some(25)).is_empty());
        assert!(
            warnings(1, None).is_empty(),
            "without pings only the peer's own traffic counts"
        );
    }

    #[test]
    fn what_is_seldom_meant_is_warned_about() {
        let deaf = Config {
            ping_interval: None,
            ..Config::default()
        };
        assert!(deaf.warnings()[0].contains("vanished"));
        let pages = Config {
            dialects: vec![Dialect::Pages],
            ..Config::default()
        };
        assert!(pages.warnings()[0].contains("no WebSocket path"));
        let slip = Config {
            log: "inof,tidemill".to_owned(),
            ..Config::default()
        };
        assert_eq!(slip.warnings().len(), 1);
        assert!(slip.warnings()[0].contains("\"inof\""));
    }
}
