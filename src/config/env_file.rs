//! The file of variables that `--env-file` names: lines of `NAME=value`, in the form that shells,
//! systemd and containers read too.
//!
//! Blank lines and lines that begin with `#` are skipped, as is ` #…` behind an unquoted value.
//! `export ` in front of a name is allowed. A value may stand in single quotes (taken as it is) or
//! double quotes (`\"` and `\\` stand for the characters). Nothing is expanded.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::error::ConfigError;
use super::names;

/// The values of a file by variable, each with its line.
pub(super) type Lines = BTreeMap<String, (String, usize)>;

/// Reads and parses the file.
pub(super) fn read(path: &Path) -> Result<Lines, ConfigError> {
    let unreadable = |reason: String| ConfigError::EnvFile {
        path: path.to_owned(),
        reason,
    };
    let text = text_of(path).map_err(|error| unreadable(error.to_string()))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(unreadable("it is larger than 1MiB".to_owned()));
    }
    parse(&text).map_err(|(line, problem)| ConfigError::EnvFileLine {
        path: path.to_owned(),
        line,
        problem,
    })
}

/// The variables of ours in `text`; an error is a line, counted from 1, and what is wrong there.
fn parse(text: &str) -> Result<Lines, (usize, String)> {
    let mut lines = Lines::new();
    // Editors of some systems put a byte order mark in front.
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let number = index + 1;
        let Some((name, value)) = assignment(line).map_err(|problem| (number, problem))? else {
            continue;
        };
        if !name.starts_with("TIDEMILL_") {
            refuse_bare_option(name).map_err(|problem| (number, problem))?;
            continue;
        }
        if let Some((_, first)) = lines.get(name) {
            return Err((
                number,
                format!("{name} is set in line {first} already, keep one"),
            ));
        }
        lines.insert(name.to_owned(), (value, number));
    }
    Ok(lines)
}

/// Name and value of a line, or nothing where it sets nothing.
fn assignment(line: &str) -> Result<Option<(&str, String)>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let line = line.strip_prefix("export ").map_or(line, str::trim_start);
    let Some((name, value)) = line.split_once('=') else {
        return Err("not a setting, write TIDEMILL_NAME=value, or # in front of a remark".into());
    };
    let name = name.trim_end();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(plain) {
        // It is not repeated: it may be the second line of a secret, which base64 ends with `=`.
        return Err(
            "what stands before = is not the name of a variable, write TIDEMILL_NAME=value \
                    on one line"
                .to_owned(),
        );
    }
    Ok(Some((name, unquoted(value.trim())?)))
}

/// The value itself, without quotes and remark.
fn unquoted(value: &str) -> Result<String, String> {
    let Some(quote) = value.chars().next().filter(|c| "'\"".contains(*c)) else {
        let remark = value.find(" #").or_else(|| value.find("\t#"));
        return Ok(value[..remark.unwrap_or(value.len())].trim_end().to_owned());
    };
    let mut text = String::new();
    let mut chars = value[1..].chars();
    loop {
        match chars.next() {
            None => return Err(format!("the value has no closing {quote} on its line")),
            Some(c) if c == quote => break,
            Some('\\') if quote == '"' => match chars.next() {
                Some(c @ ('"' | '\\')) => text.push(c),
                _ => return Err("in double quotes, \\ stands before \" or \\ only".to_owned()),
            },
            Some(c) => text.push(c),
        }
    }
    match chars.as_str().trim_start() {
        "" => Ok(text),
        remark if remark.starts_with('#') => Ok(text),
        _ => Err(format!("something follows the closing {quote}")),
    }
}

/// Variables of others may stand in the file, but not an option that lost its prefix: it would be
/// passed over in silence.
fn refuse_bare_option(name: &str) -> Result<(), String> {
    let variable = format!("TIDEMILL_{}", name.to_ascii_uppercase());
    match names::option(&variable) {
        Some(_) => Err(format!("{name} lacks its prefix, write {variable}")),
        None => Ok(()),
    }
}

/// The file's text, or one byte more than is allowed of it.
fn text_of(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)?;
    Ok(text)
}

const FILE_BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn value(line: &str) -> Result<String, String> {
        let lines = parse(&format!("TIDEMILL_LOG={line}")).map_err(|(_, problem)| problem)?;
        Ok(lines["TIDEMILL_LOG"].0.clone())
    }

    #[test]
    fn lines_are_found_with_their_numbers() {
        let text = "\u{feff}# limits\r\n\r\nTIDEMILL_BACKLOG=128\r\n  \
                    export TIDEMILL_LOG = debug\r\nPATH=/bin\nTIDEMILL_LISTEN=";
        let lines = parse(text).unwrap();
        let line = |name: &str| lines.get(name).map(|(value, line)| (value.as_str(), *line));
        assert_eq!(line("TIDEMILL_BACKLOG"), Some(("128", 3)));
        assert_eq!(line("TIDEMILL_LOG"), Some(("debug", 4)));
        assert_eq!(line("TIDEMILL_LISTEN"), Some(("", 6)));
        assert_eq!(lines.len(), 3, "the variables of others are passed over");
    }

    #[test]
    fn values_lose_their_quotes_and_remarks() {
        let values = [
            ("a b", "a b"),
            ("a # b", "a"),
            ("a#b", "a#b"),
            ("'a # b'", "a # b"),
            ("\"a \\\"b\\\" \\\\\" # c", "a \"b\" \\"),
            ("'\\n\"'", "\\n\""),
            ("''", ""),
            ("a=b", "a=b"),
        ];
        for (line, expected) in values {
            assert_eq!(value(line).as_deref(), Ok(expected), "{line}");
        }
    }

    #[test]
    fn a_malformed_line_is_named() {
        for line in ["'a", "\"a", "\"a\\n\"", "'a' b", "\"a\\"] {
            assert!(value(line).is_err(), "{line}");
        }
        let problems = [
            ("TIDEMILL_LOG=info\nwhat is this", 2),
            ("\n\nTIDEMILL-LOG=info", 3),
            ("=info", 1),
            ("TIDEMILL_LOG=info\n\nTIDEMILL_LOG=debug", 3),
            ("# listen\nLISTEN=127.0.0.1:7000", 2),
        ];
        for (text, line) in problems {
            assert_eq!(parse(text).unwrap_err().0, line, "{text}");
        }
    }

    #[test]
    fn an_option_without_its_prefix_is_not_passed_over() {
        let (_, problem) = parse("MAX_CONNECTIONS=5").unwrap_err();
        assert_eq!(
            problem,
            "MAX_CONNECTIONS lacks its prefix, write TIDEMILL_MAX_CONNECTIONS"
        );
        let (_, problem) = parse("\ntoken_secret_file=/run/secrets/token").unwrap_err();
        assert!(
            problem.ends_with("write TIDEMILL_TOKEN_SECRET_FILE"),
            "{problem}"
        );
        assert_eq!(parse("MAX_WORKERS=5").map(|lines| lines.len()), Ok(0));
    }

    #[test]
    fn a_secret_over_two_lines_is_refused_and_not_repeated() {
        for text in [
            "TIDEMILL_TOKEN_SECRET=aHVu\ndGVyMg/hunter2==",
            "TIDEMILL_TOKEN_SECRET=aHVu\nhunter2",
            "TIDEMILL_TOKEN_SECRET=\"hunter2\nhunter2\"",
            "TIDEMILL_TOKEN_SECRET=\"hunter2\" hunter2",
            "TIDEMILL_TOKEN_SECRET=hunter2\nTIDEMILL_TOKEN_SECRET=hunter2",
        ] {
            let (_, problem) = parse(text).unwrap_err();
            assert!(!problem.contains("hunter2"), "{problem}");
        }
    }
}
