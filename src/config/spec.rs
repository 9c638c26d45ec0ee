//! [`Spec`]: one option, and all that follows from it: its names, its line of help and of the
//! README, reading and writing its value, and what an error about it says.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::error::{BadValue, ConfigError};
use super::group::Group;
use super::settings::Config;
use super::source::Source;
use super::table::OPTIONS;
use super::value;

/// One option. Its flag is `--name`, its variable `TIDEMILL_NAME`.
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

    /// What may be set, with the reason.
    pub fn allowed(&self) -> String {
        let values = match &self.kind {
            Kind::Bool(_) => "true or false".to_owned(),
            Kind::Count(range, _) => show_range(range, value::show_plain),
            Kind::AutoCount(range, _) => {
                format!("{}, or auto", show_range(range, value::show_plain))
            }
            Kind::Size(range, _) => show_range(range, value::show_size),
            Kind::AutoSize(range, _) => format!("{}, or auto", show_range(range, value::show_size)),
            Kind::Time(range, _) => show_times(range),
            Kind::TimeOrOff(range, _) => format!("{}, or 0 for off", show_times(range)),
            Kind::Text(text) => text.allowed.to_owned(),
        };
        match self.reason {
            "" => values,
            reason => format!("{values} ({reason})"),
        }
    }

    /// The value in `config`, in the form in which it could be set. Empty: nothing is set and the
    /// server decides.
    pub fn show(&self, config: &Config) -> String {
        // The table knows each field by one function that lends it mutably; a copy lends it too.
        let mut config = config.clone();
        let or_empty = |shown: Option<String>| shown.unwrap_or_default();
        match &self.kind {
            Kind::Bool(field) => field(&mut config).to_string(),
            Kind::Count(_, field) => field(&mut config).to_string(),
            Kind::AutoCount(_, field) => or_empty(field(&mut config).map(|set| set.to_string())),
            Kind::Size(_, field) => value::show_size(*field(&mut config) as u64),
            Kind::AutoSize(_, field) => {
                or_empty(field(&mut config).map(|set| value::show_size(set as u64)))
            }
            Kind::Time(_, field) => value::show_duration(*field(&mut config)),
            Kind::TimeOrOff(_, field) => {
                value::show_duration(field(&mut config).unwrap_or_default())
            }
            Kind::Text(text) => (text.show)(&config),
        }
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
        match &self.kind {
            Kind::Bool(field) => *field(config) = value::boolean(text)?,
            Kind::Count(range, field) => *field(config) = bounded(value::count(text)?, range)?,
            Kind::AutoCount(range, field) => {
                *field(config) = unless_auto(text, |text| bounded(value::count(text)?, range))?;
            }
            Kind::Size(range, field) => *field(config) = bounded(value::size(text)?, range)?,
            Kind::AutoSize(range, field) => {
                *field(config) = unless_auto(text, |text| bounded(value::size(text)?, range))?;
            }
            Kind::Time(range, field) => {
                *field(config) = bounded_time(value::duration(text)?, range)?;
            }
            Kind::TimeOrOff(range, field) => {
                let off = text.eq_ignore_ascii_case("off");
                let set = if off {
                    Duration::ZERO
                } else {
                    value::duration(text)?
                };
                *field(config) = match set {
                    Duration::ZERO => None,
                    set => Some(bounded_time(set, range)?),
                };
            }
            Kind::Text(option) => (option.read)(text, config)?,
        }
        Ok(())
    }

    /// Whether the field in `config` is within its bounds, however it came there.
    pub(super) fn check(&self, config: &Config) -> Result<(), String> {
        let mut copy = config.clone();
        match &self.kind {
            Kind::Bool(_) => Ok(()),
            Kind::Count(range, field) | Kind::Size(range, field) => {
                bounded(*field(&mut copy) as u64, range).map(drop)
            }
            Kind::AutoCount(range, field) | Kind::AutoSize(range, field) => {
                field(&mut copy).map_or(Ok(()), |set| bounded(set as u64, range).map(drop))
            }
            Kind::Time(range, field) => bounded_time(*field(&mut copy), range).map(drop),
            Kind::TimeOrOff(range, field) => {
                field(&mut copy).map_or(Ok(()), |set| bounded_time(set, range).map(drop))
            }
            Kind::Text(option) => match (option.show)(config) {
                shown if shown.is_empty() => Ok(()),
                shown => {
                    (option.read)(&shown, &mut copy)?;
                    let same = copy == *config;
                    same.then_some(()).ok_or_else(|| {
                        format!(
                            "not the form it is kept in, write {:?}",
                            (option.show)(&copy)
                        )
                    })
                }
            },
        }
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

/// How a value is read and bounded, and the field of [`Config`] that keeps it.
pub(super) enum Kind {
    Bool(Field<bool>),
    Count(RangeInclusive<u64>, Field<usize>),
    AutoCount(RangeInclusive<u64>, Field<Option<usize>>),
    Size(RangeInclusive<u64>, Field<usize>),
    AutoSize(RangeInclusive<u64>, Field<Option<usize>>),
    Time(RangeInclusive<Duration>, Field<Duration>),
    TimeOrOff(RangeInclusive<Duration>, Field<Option<Duration>>),
    Text(Text),
}

/// An option with a form of its own.
pub(super) struct Text {
    pub allowed: &'static str,
    pub read: fn(&str, &mut Config) -> Result<(), String>,
    pub show: fn(&Config) -> String,
}

pub(super) type Field<T> = fn(&mut Config) -> &mut T;

fn bounded(number: u64, range: &RangeInclusive<u64>) -> Result<usize, String> {
    if number < *range.start() {
        return Err("below the least that is allowed".to_owned());
    }
    match usize::try_from(number) {
        Ok(number_here) if number <= *range.end() => Ok(number_here),
        _ => Err("above the most that is allowed".to_owned()),
    }
}

fn bounded_time(time: Duration, range: &RangeInclusive<Duration>) -> Result<Duration, String> {
    match time {
        _ if time < *range.start() => Err("shorter than what is allowed".to_owned()),
        _ if time > *range.end() => Err("longer than what is allowed".to_owned()),
        _ => Ok(time),
    }
}

fn unless_auto<T>(
    text: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    match text {
        _ if text.eq_ignore_ascii_case("auto") => Ok(None),
        _ => read(text).map(Some),
    }
}

fn show_range(range: &RangeInclusive<u64>, show: fn(u64) -> String) -> String {
    format!("{} to {}", show(*range.start()), show(*range.end()))
}

fn show_times(range: &RangeInclusive<Duration>) -> String {
    format!(
        "{} to {}",
        value::show_duration(*range.start()),
        value::show_duration(*range.end())
    )
}

/// A value in an error is cut here: the line should stay a line.
const VALUE_CHARS_SHOWN: usize = 80;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

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
        ("max-mail-bytes", "100MiB"),
        ("handshake-timeout", "30s"),
        ("message-timeout", "15m"),
        ("ping-interval", "0"),
        ("pong-timeout", "2500ms"),
        ("idle-timeout", "2h"),
        ("close-timeout", "1s"),
        ("tcp-user-timeout", "0"),
        ("dialects", "echo"),
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
                Kind::Bool(_) | Kind::Text(_) => continue,
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
            buffer_bytes_max: Some(1 << 20),
            idle_timeout: Some(Duration::from_secs(1)),
            ..Config::default()
        };
        for (name, text) in [
            ("reactors", "auto"),
            ("max-buffer-bytes", "AUTO"),
            ("idle-timeout", "off"),
        ] {
            assert_eq!(Spec::named(name).unwrap().read(text, &mut config), Ok(()));
        }
        assert_eq!(config, Config::default());
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
