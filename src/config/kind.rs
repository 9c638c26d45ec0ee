//! [`Kind`]: the forms that values have, and how one is read, bounded, kept in a field of
//! [`Config`] and shown.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use super::secret::{SECRET_BYTES_MAX, Secret};
use super::settings::Config;
use super::value;

/// How a value is read and bounded, and the field of [`Config`] that keeps it.
pub(super) enum Kind {
    Bool(Field<bool>),
    AutoBool(Field<Option<bool>>),
    Count(RangeInclusive<u64>, Field<usize>),
    AutoCount(RangeInclusive<u64>, Field<Option<usize>>),
    Size(RangeInclusive<u64>, Field<usize>),
    AutoSize(RangeInclusive<u64>, Field<Option<usize>>),
    Time(RangeInclusive<Duration>, Field<Duration>),
    TimeOrOff(RangeInclusive<Duration>, Field<Option<Duration>>),
    Text(Text),
    Secret(Hidden),
}

impl Kind {
    /// What may be set.
    pub fn allowed(&self) -> String {
        match self {
            Kind::Bool(_) => "true or false".to_owned(),
            Kind::AutoBool(_) => "true or false, or auto".to_owned(),
            Kind::Count(range, _) => show_range(range, value::show_plain),
            Kind::AutoCount(range, _) => {
                format!("{}, or auto", show_range(range, value::show_plain))
            }
            Kind::Size(range, _) => show_range(range, value::show_size),
            Kind::AutoSize(range, _) => format!("{}, or auto", show_range(range, value::show_size)),
            Kind::Time(range, _) => show_times(range),
            Kind::TimeOrOff(range, _) => format!("{}, or 0 for off", show_times(range)),
            Kind::Text(text) => text.allowed.to_owned(),
            Kind::Secret(secret) => secret.allowed.to_owned(),
        }
    }

    /// The value in `config`; empty when nothing is set.
    pub fn show(&self, config: &Config) -> String {
        // The table knows each field by one function that lends it mutably; a copy lends it too.
        let mut config = config.clone();
        let or_empty = |shown: Option<String>| shown.unwrap_or_default();
        match self {
            Kind::Bool(field) => field(&mut config).to_string(),
            Kind::AutoBool(field) => or_empty(field(&mut config).map(|set| set.to_string())),
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
            Kind::Secret(secret) => {
                or_empty((secret.field)(&mut config).as_ref().map(Secret::to_string))
            }
        }
    }

    /// Reads `text` into the field.
    pub fn read(&self, text: &str, config: &mut Config) -> Result<(), String> {
        match self {
            Kind::Bool(field) => *field(config) = value::boolean(text)?,
            Kind::AutoBool(field) => *field(config) = unless_auto(text, value::boolean)?,
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
            Kind::Secret(option) => option.set(Secret::new(text), config)?,
        }
        Ok(())
    }

    /// Reads the file at `path` into the field of a secret.
    pub fn read_file(&self, path: &Path, config: &mut Config) -> Result<(), String> {
        match self {
            Kind::Secret(option) => option.set(Secret::read(path)?, config),
            _ => Err("not the file of a secret".to_owned()),
        }
    }

    /// Whether the field is within its bounds, however its value came there.
    pub fn check(&self, config: &Config) -> Result<(), String> {
        let mut copy = config.clone();
        match self {
            Kind::Bool(_) | Kind::AutoBool(_) => Ok(()),
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
            Kind::Secret(option) => (option.field)(&mut copy)
                .as_ref()
                .map_or(Ok(()), |secret| option.accept(secret)),
        }
    }
}

/// An option with a form of its own.
pub(super) struct Text {
    pub allowed: &'static str,
    pub read: fn(&str, &mut Config) -> Result<(), String>,
    pub show: fn(&Config) -> String,
}

/// An option whose value nobody may see.
pub(super) struct Hidden {
    pub allowed: &'static str,
    pub field: Field<Option<Secret>>,
    /// Says what is wrong with a text, without any part of it.
    pub check: fn(&str) -> Result<(), String>,
}

impl Hidden {
    fn set(&self, secret: Secret, config: &mut Config) -> Result<(), String> {
        self.accept(&secret)?;
        *(self.field)(config) = Some(secret);
        Ok(())
    }

    fn accept(&self, secret: &Secret) -> Result<(), String> {
        match secret.expose() {
            text if text.trim().is_empty() => Err("empty, write the secret".to_owned()),
            // Words that switch other options off would be the easiest secrets to guess.
            text if ["off", "none"].contains(&text.to_ascii_lowercase().as_str()) => {
                Err("a word for nothing, leave the variable unset".to_owned())
            }
            text if text.len() > SECRET_BYTES_MAX => Err("larger than 64KiB".to_owned()),
            text => (self.check)(text),
        }
    }
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
