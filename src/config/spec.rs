//! [`Spec`]: one option, and all that follows from it: its names, its line of help and of the
//! README, reading and writing its value, and what an error about it says.

use std::path::Path;

use super::error::{BadValue, ConfigError};
use super::group::Group;
use super::kind::Kind;
use super::settings::Config;
use super::source::Source;
use super::table::OPTIONS;
use super::url;

/// One option. Its flag is `--name`, its variable `TIDEMILL_NAME`. A secret has no flag, as command
/// lines are seen by others, and instead `TIDEMILL_NAME_FILE`, the path of a file that holds it.
pub struct Spec {
    /// The flag without its dashes.
    pub name: &'static str,
    /// The heading that it stands under.
    pub group: Group,
    /// What stands for the value in the help.
    pub placeholder: &'static str,
    /// The value when nothing sets it.
    pub preset: Preset,
    /// One line: what it does.
    pub help: &'static str,
    /// Why the value is bounded as it is; empty where the choice explains itself.
    pub reason: &'static str,
    /// How the value is read, bounded and kept.
    pub(super) kind: Kind,
}

impl Spec {
    /// The option of this name, which is its flag without the dashes.
    pub fn named(name: &str) -> Option<&'static Spec> {
        OPTIONS.iter().find(|spec| spec.name == name)
    }

    /// The name as a variable: `TIDEMILL_MAX_CONNECTIONS`.
    pub fn variable(&self) -> String {
        format!(
            "TIDEMILL_{}",
            self.name.replace('-', "_").to_ascii_uppercase()
        )
    }

    /// The variable of the file that holds a secret: `TIDEMILL_API_KEY_FILE`.
    pub fn file_variable(&self) -> Option<String> {
        self.is_secret().then(|| self.variable() + "_FILE")
    }

    /// Whether the value may be shown to nobody.
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Secret(_))
    }

    /// Whether a running server takes a new value on SIGHUP. The others need a restart.
    pub fn reloads(&self) -> bool {
        self.is_secret() || self.name.starts_with("origins")
    }

    /// What may be set, with the reason.
    pub fn allowed(&self) -> String {
        let values = self.kind.allowed();
        match self.reason {
            "" => values,
            reason => format!("{values} ({reason})"),
        }
    }

    /// The value in `config`, in the form in which it could be set; of a secret, that it is set.
    /// Empty: nothing is set and the server decides.
    pub fn show(&self, config: &Config) -> String {
        self.kind.show(config)
    }

    /// The value in `config` for people: as [`Spec::show`], and how the server decides where
    /// nothing is set.
    pub fn describe(&self, config: &Config) -> String {
        match (self.show(config), &self.preset) {
            (shown, Preset::Decided(how)) if shown.is_empty() => (*how).to_owned(),
            (shown, _) if shown.is_empty() => "none".to_owned(),
            (shown, _) => shown,
        }
    }

    /// Reads `text` into its field of `config`. The error says what is wrong with the text.
    pub(super) fn read(&self, text: &str, config: &mut Config) -> Result<(), String> {
        self.kind.read(text, config)
    }

    /// Reads the file at `path` into the field of a secret. The error says what is wrong with it.
    pub(super) fn read_file(&self, path: &Path, config: &mut Config) -> Result<(), String> {
        self.kind.read_file(path, config)
    }

    /// Whether the field in `config` is within its bounds, however it came there.
    pub(super) fn check(&self, config: &Config) -> Result<(), String> {
        self.kind.check(config)
    }

    /// Writes the default into its field.
    pub(super) fn write_preset(&self, config: &mut Config) {
        if let Preset::Value(text) = self.preset {
            self.read(text, config)
                .expect("every default of the table is within its own bounds");
        }
    }

    /// Whether an empty value means something, instead of "not set" as everywhere else.
    pub(super) fn takes_empty(&self) -> bool {
        // Whoever writes SERVER_HEADER= wants the field gone, not the name of the product.
        self.name == "server-header"
    }

    /// The error about `value`, which `origin` gave to this option.
    pub(super) fn error(&self, value: &str, origin: Source, problem: String) -> ConfigError {
        let value = match self.is_secret() {
            true => "(not shown)".to_owned(),
            false => url::without_user(value),
        };
        let mut shown: String = value.chars().take(VALUE_CHARS_SHOWN).collect();
        if shown.len() < value.len() {
            shown.push('…');
        }
        ConfigError::Value(Box::new(BadValue {
            variable: self.variable(),
            origin,
            value: shown,
            problem,
            allowed: self.allowed(),
        }))
    }
}

/// What an option is when nothing sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// This value.
    Value(&'static str),
    /// Nothing: what it would switch on is off.
    Nothing,
    /// What the server works out, said in words.
    Decided(&'static str),
}

impl Preset {
    /// The default as the help shows it.
    pub fn text(self) -> &'static str {
        match self {
            Preset::Nothing => "none",
            Preset::Value(text) | Preset::Decided(text) => text,
        }
    }
}

/// A value in an error is cut here: the line should stay a line.
const VALUE_CHARS_SHOWN: usize = 80;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::ops::RangeInclusive;
    use std::time::Duration;

    use super::*;

    /// A value of each option that is not its default, in the form in which it is shown.
    const OTHERS: &[(&str, &str)] = &[
        ("listen", "0.0.0.0:80,[::]:80"),
        ("admin-listen", "127.0.0.1:9000"),
        ("takeover", "true"),
        ("accept", "handoff"),
        ("backlog", "16"),
        ("max-connections", "1000000"),
        ("reactors", "56"),
        ("pin-cores", "true"),
        ("fd-tables", "private"),
        ("accept-budget", "1"),
        ("read-budget", "1MiB"),
        ("max-message-bytes", "10MiB"),
        ("max-outbox-bytes", "30MiB"),
        ("max-header-bytes", "16KiB"),
        ("max-body-bytes", "0"),
        ("max-buffer-bytes", "64MiB"),
        ("tls-listen", "127.0.0.1:7443"),
        ("tls-cert", "/etc/tls/a.pem,/etc/tls/b.pem"),
        ("tls-key", "/etc/tls/a.key,/etc/tls/b.key"),
        ("tls-self-signed", "true"),
        ("tls-client-ca", "/etc/tls/clients.pem"),
        ("tls-client-auth", "optional"),
        ("tls-reload-interval", "15m"),
        ("origins", "same-origin,https://*.example.com,null"),
        ("origins-echo", "*"),
        ("origins-raw", "https://example.com"),
        ("origins-native", "*"),
        ("token-secret", "(set)"),
        ("token-public-key", "(set)"),
        ("token-jwks-url", "https://issuer.example/jwks.json"),
        ("token-jwks-interval", "60s"),
        ("token-required", "false"),
        ("token-cookie", "session"),
        ("token-leeway", "0"),
        ("token-issuer", "https://issuer.example,me"),
        ("token-audience", "tidemill,you"),
        ("api-key", "(set)"),
        ("trusted-proxies", "127.0.0.1,10.0.0.0/8,fd00::/8"),
        ("proxy-protocol", "true"),
        (
            "namespaces",
            r#"[{"name":"chat","presence":true,"history_size":9,"history_ttl":"60s"}]"#,
        ),
        ("history-size", "100"),
        ("history-ttl", "168h"),
        ("recovery-max", "500"),
        ("max-subscriptions", "4096"),
        ("max-channel-name", "1024"),
        ("max-connections-per-ip", "50"),
        ("connect-rate-per-ip", "10"),
        ("half-open-per-ip", "20"),
        ("rate-messages", "100"),
        ("rate-bytes", "64KiB"),
        ("rate-burst", "2500ms"),
        ("rate-policy", "close"),
        ("max-mail-bytes", "100MiB"),
        ("handshake-timeout", "30s"),
        ("message-timeout", "15m"),
        ("ping-interval", "0"),
        ("pong-timeout", "2500ms"),
        ("idle-timeout", "2h"),
        ("close-timeout", "1s"),
        ("tcp-user-timeout", "0"),
        ("dialects", "echo,native"),
        ("default-path", "/echo"),
        ("path-prefix", "/live"),
        ("subprotocols", "chat,json"),
        ("server-header", "off"),
        ("drain-time", "0"),
        ("shed-turn", "0"),
        ("turn-cpu", "true"),
        ("log", "warn,tidemill=debug"),
        ("log-format", "json"),
        ("env-file", "/etc/tidemill.env"),
    ];

    fn field<T>(range: &RangeInclusive<T>, spec: &Spec, show: impl Fn(&T) -> String) {
        let mut config = Config::default();
        for edge in [range.start(), range.end()] {
            assert_eq!(spec.read(&show(edge), &mut config), Ok(()), "{}", spec.name);
        }
    }

    #[test]
    fn names_are_flags_and_become_variables() {
        let mut names = HashSet::new();
        for spec in OPTIONS {
            assert!(names.insert(spec.name), "{} stands twice", spec.name);
            let plain = |c: char| c.is_ascii_lowercase() || c == '-';
            assert!(spec.name.chars().all(plain), "{}", spec.name);
            assert!(Group::ALL.contains(&spec.group));
        }
        let spec = Spec::named("max-connections").unwrap();
        assert_eq!(spec.variable(), "TIDEMILL_MAX_CONNECTIONS");
        assert!(Spec::named("MAX_CONNECTIONS").is_none());
    }

    #[test]
    fn every_default_is_shown_as_the_table_writes_it() {
        let config = Config::default();
        for spec in OPTIONS {
            match spec.preset {
                Preset::Value(text) => assert_eq!(spec.show(&config), text, "{}", spec.name),
                Preset::Nothing | Preset::Decided(_) => assert_eq!(spec.show(&config), ""),
            }
            assert_eq!(spec.describe(&config), spec.preset.text());
        }
    }

    #[test]
    fn every_option_changes_its_own_value_and_shows_it_as_it_was_set() {
        assert_eq!(OTHERS.len(), OPTIONS.len(), "each option has a row here");
        let default = Config::default();
        for (name, text) in OTHERS {
            let spec = Spec::named(name).unwrap();
            let mut config = Config::default();
            assert_eq!(spec.read(text, &mut config), Ok(()), "{name}");
            assert_ne!(config, default, "{name}");
            assert_eq!(spec.show(&config), *text);
            assert_eq!(spec.check(&config), Ok(()), "{name}");
            for other in OPTIONS.iter().filter(|other| other.name != *name) {
                assert_eq!(other.show(&config), other.show(&default), "{name}");
            }
        }
    }

    #[test]
    fn bounds_are_inclusive_and_beyond_them_is_refused() {
        let count = |number: &u64| number.to_string();
        let time = |time: &Duration| format!("{}ms", time.as_millis());
        let mut config = Config::default();
        for spec in OPTIONS {
            let beyond = match &spec.kind {
                Kind::Count(range, _) | Kind::Size(range, _) => {
                    field(range, spec, count);
                    [range.start().checked_sub(1), range.end().checked_add(1)]
                        .map(|n| Some(count(&n?)))
                }
                Kind::AutoCount(range, _) | Kind::AutoSize(range, _) => {
                    field(range, spec, count);
                    [range.start().checked_sub(1), range.end().checked_add(1)]
                        .map(|n| Some(count(&n?)))
                }
                Kind::Time(range, _) | Kind::TimeOrOff(range, _) => {
                    field(range, spec, time);
                    let step = Duration::from_millis(1);
                    let below = range
                        .start()
                        .checked_sub(step)
                        .filter(|time| !time.is_zero());
                    [below, range.end().checked_add(step)].map(|edge| Some(time(&edge?)))
                }
                Kind::Bool(_) | Kind::AutoBool(_) | Kind::Text(_) | Kind::Secret(_) => continue,
            };
            for text in beyond.into_iter().flatten() {
                assert!(
                    spec.read(&text, &mut config).is_err(),
                    "{}={text}",
                    spec.name
                );
            }
            assert!(
                !spec.reason.is_empty(),
                "{} does not say why it is bounded",
                spec.name
            );
        }
    }

    #[test]
    fn auto_and_off_are_words_for_nothing_set() {
        let mut config = Config {
            reactors: Some(5),
            token_required: Some(true),
            buffer_bytes_max: Some(1 << 20),
            idle_timeout: Some(Duration::from_secs(1)),
            ..Config::default()
        };
        for (name, text) in [
            ("reactors", "auto"),
            ("max-buffer-bytes", "AUTO"),
            ("token-required", "auto"),
            ("idle-timeout", "off"),
        ] {
            assert_eq!(Spec::named(name).unwrap().read(text, &mut config), Ok(()));
        }
        assert_eq!(config, Config::default());
    }

    #[test]
    fn the_options_that_reload_exist() {
        let reload = OPTIONS.iter().filter(|spec| spec.reloads());
        let names: Vec<&str> = reload.map(|spec| spec.name).collect();
        let expected = [
            "origins",
            "origins-echo",
            "origins-raw",
            "origins-native",
            "token-secret",
            "token-public-key",
            "api-key",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_password_in_a_url_does_not_reach_an_error() {
        let spec = Spec::named("token-jwks-url").unwrap();
        let text = "https://me:hunter2@issuer.example/keys";
        let problem = spec.read(text, &mut Config::default()).unwrap_err();
        let error = spec.error(text, Source::Flag, problem).to_string();
        assert!(!error.contains("hunter2"), "{error}");
        assert!(error.contains("https://***@issuer.example/keys"), "{error}");
    }

    #[test]
    fn an_error_says_what_is_allowed_and_why_and_cuts_long_values() {
        let spec = Spec::named("max-header-bytes").unwrap();
        let error = spec.error(&"9".repeat(10_000), Source::Flag, "too much".to_owned());
        let text = error.to_string();
        assert!(
            text.starts_with("TIDEMILL_MAX_HEADER_BYTES=\"999"),
            "{text}"
        );
        assert!(
            text.contains("9…\" (flag): too much; allowed: 256 to 1MiB (it is held"),
            "{text}"
        );
        assert!(text.len() < 300, "{text}");
    }
}
