//! The log of the binary: which lines, and how they look.
//!
//! A person at a terminal gets text, everything else one JSON object a line with `time` (RFC 3339,
//! UTC, milliseconds), `level`, `target` and `message`. Both escape control characters: paths and
//! reasons in a message come from peers, and must not forge lines or steer a terminal.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write};

use env_logger::fmt::Formatter;
use log::{LevelFilter, Record};

use crate::config::{Config, LogFormat};

/// Sends the log to standard error, as `config` says. A logger that the process has already stays.
///
/// The filter must be one that [`Config::validate`] accepts: `env_logger` ignores what it does not
/// understand.
pub fn start(config: &Config) {
    let json = match config.log_format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let format = if json { write_json } else { write_text };
    if builder(config, format).try_init().is_err() {
        log::debug!("a logger is installed already, kept");
        return;
    }
    if log::STATIC_MAX_LEVEL < LevelFilter::Trace && config.log_asks_for_trace() {
        log::warn!(
            "TIDEMILL_LOG asks for trace, which release builds leave out; debug is the most \
             that is logged, a debug build (cargo run) has trace"
        );
    }
}

fn builder(config: &Config, format: LineFormat) -> env_logger::Builder {
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(&config.log).format(format);
    builder
}

type LineFormat = fn(&mut Formatter, &Record<'_>) -> io::Result<()>;

/// `2026-01-31T12:00:00.123Z INFO  tidemill::server: message`
fn write_text(line: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let time = line.timestamp_millis();
    let style = line.default_level_style(record.level());
    let (level, target) = (record.level(), record.target());
    writeln!(
        line,
        "{time} {style}{level:<5}{style:#} {target}: {}",
        Printable(record.args())
    )
}

/// `{"time":"2026-01-31T12:00:00.123Z","level":"info","target":"tidemill::server","message":"…"}`
fn write_json(line: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let time = line.timestamp_millis();
    let level = record.level().as_str().to_ascii_lowercase();
    write!(line, r#"{{"time":"{time}","level":"{level}","target":"#)?;
    serde_json::to_writer(&mut *line, record.target())?;
    line.write_all(br#","message":"#)?;
    serde_json::to_writer(&mut *line, &record.args().to_string())?;
    line.write_all(b"}\n")
}

/// Shows its argument with control characters escaped.
struct Printable<'a>(&'a fmt::Arguments<'a>);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escape(f).write_fmt(*self.0)
    }
}

struct Escape<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for Escape<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(char::is_control) {
            match part.chars().next_back().filter(|last| last.is_control()) {
                Some(last) => {
                    self.0.write_str(&part[..part.len() - last.len_utf8()])?;
                    write!(self.0, "{}", last.escape_default())?;
                }
                None => self.0.write_str(part)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use env_logger::{Target, WriteStyle};
    use log::{Level, Log};

    use super::*;

    /// Collects what a logger writes.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged of one record under `filter`.
    fn logged(filter: &str, format: LineFormat, level: Level, message: &str) -> String {
        let lines = Lines::default();
        let config = Config {
            log: filter.to_owned(),
            ..Config::default()
        };
        let logger = builder(&config, format)
            .target(Target::Pipe(Box::new(lines.clone())))
            .write_style(WriteStyle::Never)
            .build();
        let mut record = Record::builder();
        record.level(level).target("tidemill::server");
        logger.log(&record.args(format_args!("{message}")).build());
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    /// RFC 3339 in UTC with milliseconds: `2026-01-31T12:00:00.123Z`.
    fn is_time(text: &str) -> bool {
        let shape: String = text
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        shape == "0000-00-00T00:00:00.000Z"
    }

    #[test]
    fn a_json_line_is_one_object_with_the_four_fields_in_order() {
        let line = logged(
            "info",
            write_json,
            Level::Info,
            "listening address=127.0.0.1:7000",
        );
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert!(is_time(object["time"].as_str().unwrap()), "{line}");
        assert_eq!(object.as_object().unwrap().len(), 4, "{line}");
        let rest = concat!(
            r#"Z","level":"info","target":"tidemill::server","#,
            r#""message":"listening address=127.0.0.1:7000"}"#,
        );
        assert!(line.ends_with(&format!("{rest}\n")), "{line}");
    }

    #[test]
    fn json_carries_any_message_unchanged_on_one_line() {
        let message = "path=\"/\u{1b}[2J\\\"\r\n{\"level\":\"error\"}\u{0} ü 🦀\u{2028}";
        let line = logged("info", write_json, Level::Warn, message);
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(object["message"], message);
        assert_eq!(object["level"], "warn");
    }

    #[test]
    fn a_text_line_names_time_level_target_and_message() {
        let line = logged("info", write_text, Level::Info, "connections=5");
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(is_time(time), "{line}");
        assert_eq!(rest, "INFO  tidemill::server: connections=5\n");
    }

    #[test]
    fn text_from_a_peer_neither_forges_a_line_nor_steers_the_terminal() {
        let line = logged(
            "info",
            write_text,
            Level::Info,
            "path=/a\nERROR b\u{1b}[2Jü\u{9b}c\r",
        );
        assert!(
            line.ends_with("path=/a\\nERROR b\\u{1b}[2Jü\\u{9b}c\\r\n"),
            "{line:?}"
        );
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn the_filter_decides_by_level_and_target() {
        assert_eq!(logged("warn", write_text, Level::Info, "quiet"), "");
        assert_eq!(logged("off", write_json, Level::Error, "quiet"), "");
        assert_ne!(
            logged(
                "warn,tidemill::server=info",
                write_json,
                Level::Info,
                "heard"
            ),
            ""
        );
        assert_eq!(
            logged(
                "info,tidemill::server=warn",
                write_json,
                Level::Info,
                "quiet"
            ),
            ""
        );
    }
}
