//! What `serve` says when it has started: where it is reached, who may do what, how much it holds.

use std::{fmt::Write as _, net::SocketAddr};

use crate::{
    config::{Config, Dialect, Plan},
    gate::channel::{Action, Circle, Exposure, Namespaces},
};

/// What a running server is like.
#[derive(Clone, Copy, Debug)]
pub struct Started<'a> {
    pub config: &'a Config,
    pub plan: &'a Plan,
    /// Where it listens, without and with TLS.
    pub plain: &'a [SocketAddr],
    pub tls: &'a [SocketAddr],
    pub admin: &'a [SocketAddr],
    /// The soft descriptor limit before and after it was raised.
    pub descriptors: (u64, u64),
}

impl Started<'_> {
    /// The lines for standard output.
    pub fn banner(&self) -> String {
        let mut banner = Lines(format!("tidemill {}\n", env!("CARGO_PKG_VERSION")));
        self.endpoints(&mut banner);
        if self.has_channels() && !self.plan.is_loopback_only() {
            anonymous(self.config, &mut banner);
        }
        self.capacity(&mut banner);
        banner.0
    }

    /// Every address, and on the first of each kind what there is to open.
    fn endpoints(&self, banner: &mut Lines) {
        let prefix = &self.config.path_prefix;
        let whose = match self.plan.is_loopback_only() {
            true => "   (only this machine)",
            false => "",
        };
        for address in self.plain {
            banner.add("websocket", &format!("ws://{address}{prefix}{whose}"));
        }
        for address in self.tls {
            banner.add("websocket", &format!("wss://{address}{prefix}{whose}"));
        }
        let plain = self.plain.iter().map(|address| ("", address));
        let tls = self.tls.iter().map(|address| ("s", address));
        for (s, address) in plain.take(1).chain(tls.take(1)) {
            let serves = |dialect| self.config.serves(dialect);
            let paths = [
                ("raw", "ws", "/raw/{channel}", serves(Dialect::Raw)),
                (
                    "client sdks",
                    "ws",
                    "/connection/websocket",
                    serves(Dialect::Native),
                ),
                ("try it", "http", "/", serves(Dialect::Pages)),
                (
                    "chat demo",
                    "http",
                    "/demo",
                    serves(Dialect::Pages) && serves(Dialect::Native),
                ),
                ("health", "http", "/health", true),
            ];
            for (name, scheme, path, _) in paths.into_iter().filter(|path| path.3) {
                banner.add(name, &format!("{scheme}{s}://{address}{prefix}{path}"));
            }
        }
        for address in self.admin {
            banner.add("admin", &format!("http://{address}{prefix}/metrics"));
        }
    }

    fn capacity(&self, banner: &mut Lines) {
        let plan = self.plan;
        let tables = match plan.private_tables {
            true => ", a descriptor table each",
            false => "",
        };
        banner.add("reactors", &format!("{}{tables}", plan.reactors));
        let (before, after) = self.descriptors;
        let raised = match after > before {
            true => format!(", raised to {after}"),
            false => String::new(),
        };
        banner.add("descriptors", &format!("ulimit -n is {before}{raised}"));
        let connections = format!("up to {}, set by {}", plan.connections_max, plan.bound);
        banner.add("connections", &connections);
    }

    fn has_channels(&self) -> bool {
        [Dialect::Raw, Dialect::Native]
            .iter()
            .any(|dialect| self.config.serves(*dialect))
    }
}

/// What peers without a token may do on a server that others than this machine can reach, and how
/// to let them do more or less.
fn anonymous(config: &Config, banner: &mut Lines) {
    if config.token_is_required() {
        return;
    }
    let namespaces = Namespaces::from_config(config, Exposure::new(config));
    let opens = |circle| matches!(circle, Circle::Everybody | Circle::Subscribers);
    let may = |action| opens(namespaces.unprefixed.who(action));
    let mut text = match (may(Action::Subscribe), may(Action::Publish)) {
        (true, true) => "may subscribe and publish",
        (true, false) => "may subscribe, not publish",
        (false, true) => "may publish, not subscribe",
        (false, false) => "may neither subscribe nor publish",
    }
    .to_owned();
    let named = namespaces.iter().filter(|(name, namespace)| {
        !name.is_empty() && !may(Action::Publish) && opens(namespace.who(Action::Publish))
    });
    let named: Vec<_> = named
        .map(|(name, _)| format!("{name}:…"))
        .take(NAMES_MAX)
        .collect();
    if !named.is_empty() {
        let _ = write!(text, ", except in {}", named.join(", "));
    }
    banner.add("anyone", &text);
    if !may(Action::Publish) {
        banner.add("", &format!("open:  TIDEMILL_NAMESPACES='{OPEN}'"));
    }
    banner.add("", "close: TIDEMILL_TOKEN_SECRET, and all need a token");
}

/// An entry that lets everybody publish.
const OPEN: &str = r#"[{"name":"","allow_publish_for_anonymous":true}]"#;

/// A banner is no list of namespaces: `tidemill check` has that.
const NAMES_MAX: usize = 4;

struct Lines(String);

impl Lines {
    fn add(&mut self, name: &str, text: &str) {
        let _ = writeln!(self.0, "  {name:<12} {text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Machine, NamespaceEntry, Secret};

    fn banner(config: &Config) -> String {
        let machine = Machine {
            cores: 2,
            descriptors_soft: 1024,
            descriptors_hard: 20_000,
            memory_bytes: 24 << 30,
            ipv6: true,
            unshare: true,
        };
        let plan = config.plan(&machine).unwrap();
        let started = Started {
            config,
            plan: &plan,
            plain: &config.listen_addresses(),
            tls: &config.tls_listen,
            admin: &config.admin_listen,
            descriptors: (1024, 20_000),
        };
        started.banner()
    }

    fn in_the_world() -> Config {
        Config {
            listen: Some(vec![SocketAddr::from(([0, 0, 0, 0], 7000))]),
            ..Config::default()
        }
    }

    #[test]
    fn it_says_where_everything_is() {
        let expected = "
  websocket    ws://127.0.0.1:7000   (only this machine)
  websocket    ws://[::1]:7000   (only this machine)
  raw          ws://127.0.0.1:7000/raw/{channel}
  client sdks  ws://127.0.0.1:7000/connection/websocket
  try it       http://127.0.0.1:7000/
  chat demo    http://127.0.0.1:7000/demo
  health       http://127.0.0.1:7000/health
  reactors     2
  descriptors  ulimit -n is 1024, raised to 20000
";
        let banner = banner(&Config::default());
        assert!(banner.contains(expected), "{banner}");
        assert!(!banner.contains("anyone"), "{banner}");
    }

    #[test]
    fn what_is_not_served_is_not_named() {
        let words = ["/raw/", "/connection/websocket", ":7000/\n", "/demo"];
        let named = |dialects: &[Dialect]| -> Vec<bool> {
            let banner = banner(&Config {
                dialects: dialects.to_vec(),
                path_prefix: String::new(),
                ..in_the_world()
            });
            let has_line = banner.contains("anyone");
            let named = words.iter().map(|word| banner.contains(word));
            named.chain([has_line]).collect()
        };
        let (raw, native, pages) = (Dialect::Raw, Dialect::Native, Dialect::Pages);
        assert_eq!(named(&[Dialect::Echo]), [false; 5]);
        assert_eq!(named(&[raw]), [true, false, false, false, true]);
        assert_eq!(named(&[native]), [false, true, false, false, true]);
        assert_eq!(named(&[pages]), [false, false, true, false, false]);
        assert_eq!(named(&[native, pages]), [false, true, true, true, true]);
    }

    #[test]
    fn in_the_world_it_says_what_anyone_may_do_and_how_to_change_it() {
        let text = banner(&in_the_world());
        let expected = "
  anyone       may subscribe, not publish, except in demo:…
               open:  TIDEMILL_NAMESPACES='[{\"name\":\"\",\"allow_publish_for_anonymous\":true}]'
               close: TIDEMILL_TOKEN_SECRET, and all need a token
";
        assert!(text.contains(expected), "{text}");

        let mut open = in_the_world();
        let (_, entry) = text.split_once("TIDEMILL_NAMESPACES='").unwrap();
        let (entry, _) = entry.split_once('\'').unwrap();
        let spec = crate::config::Spec::named("namespaces").unwrap();
        let shown = Config {
            namespaces: vec![
                NamespaceEntry::new("")
                    .with(crate::config::NamespaceFlag::AllowPublishForAnonymous, true),
            ],
            ..Config::default()
        };
        assert_eq!(spec.show(&shown), entry, "the remedy is an entry");
        open.namespaces.clone_from(&shown.namespaces);
        let text = banner(&open);
        assert!(
            text.contains("anyone       may subscribe and publish\n"),
            "{text}"
        );
        assert!(!text.contains("open:"), "{text}");

        let closed = Config {
            token_secret: Some(Secret::new("one")),
            ..in_the_world()
        };
        assert!(!banner(&closed).contains("anyone"));
    }

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        for config in [Config::default(), in_the_world()] {
            let banner = banner(&config);
            let widest = banner.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(100), "{banner}");
        }
    }
}
