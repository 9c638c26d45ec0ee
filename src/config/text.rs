//! The options whose value is text with rules of its own: a path prefix, names that are tokens, the
//! Server field, a log filter.

use log::LevelFilter;

/// Reads what is stripped from paths. A slash at the end is dropped: `/live/` and `/live` mean
/// the same, and `/` alone strips nothing.
pub(super) fn path_prefix(text: &str) -> Result<String, String> {
    let prefix = text.trim_end_matches('/');
    if !text.starts_with('/') {
        return Err(format!("a path begins with a slash, write /{prefix}"));
    }
    if prefix.len() > PATH_PREFIX_BYTES_MAX {
        return Err(format!("longer than {PATH_PREFIX_BYTES_MAX} bytes"));
    }
    if let Some(bad) = prefix
        .chars()
        .find(|c| !c.is_ascii_graphic() || "?#".contains(*c))
    {
        return Err(format!("{bad:?} cannot stand in the path of a request"));
    }
    if prefix.contains("//") {
        return Err("two slashes in a row, write one".to_owned());
    }
    Ok(prefix.to_owned())
}

/// Reads the name of something, which is a token.
pub(super) fn token(text: &str, of: &str) -> Result<String, String> {
    // RFC 9110, 5.6.2: what a token is made of.
    let allowed = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if let Some(bad) = text.chars().find(|c| !allowed(*c)) {
        return Err(format!(
            "{bad:?} in {text:?} cannot stand in the name of {of}"
        ));
    }
    if text.len() > TOKEN_BYTES_MAX {
        return Err(format!("a name is longer than {TOKEN_BYTES_MAX} bytes"));
    }
    Ok(text.to_owned())
}

/// Reads the Server field; empty and `off` leave it out.
pub(super) fn server_header(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() || text.eq_ignore_ascii_case("off") {
        return Ok(None);
    }
    if let Some(bad) = text.chars().find(|c| !(c.is_ascii_graphic() || *c == ' ')) {
        return Err(format!("{bad:?} cannot stand in a header field"));
    }
    if text.len() > SERVER_HEADER_BYTES_MAX {
        return Err(format!("longer than {SERVER_HEADER_BYTES_MAX} bytes"));
    }
    Ok(Some(text.to_owned()))
}

/// Checks a log filter. `env_logger` itself skips the parts that it does not understand, so a
/// slip would silence the log.
pub(super) fn log_filter(text: &str) -> Result<String, String> {
    if text.split('/').count() > 2 {
        return Err("more than one slash, write target=level,... and one /text at the end".into());
    }
    for directive in directives(text) {
        let mut parts = directive.split('=').map(str::trim);
        let (target, level) = (parts.next().unwrap_or_default(), parts.next());
        if parts.next().is_some() {
            return Err(format!(
                "{directive:?} has two equals signs, write target=level"
            ));
        }
        if target.contains(char::is_whitespace) {
            return Err(format!(
                "a space in {directive:?}, separate directives by commas"
            ));
        }
        match level {
            Some(_) if target.is_empty() => {
                return Err(format!("{directive:?} names no target, write target=level"));
            }
            Some(level) if !level.is_empty() && level.parse::<LevelFilter>().is_err() => {
                return Err(format!(
                    "{level:?} is no level, write off, error, warn, info, debug or trace"
                ));
            }
            _ => {}
        }
    }
    Ok(text.to_owned())
}

/// The targets that a filter names without a level: all of them is logged, which is seldom meant
/// when the name is a level with a slip in it.
pub(super) fn log_targets(filter: &str) -> impl Iterator<Item = &str> {
    directives(filter).filter(|part| !part.contains('=') && part.parse::<LevelFilter>().is_err())
}

/// Whether a filter asks for trace by name.
pub(super) fn log_asks_for_trace(filter: &str) -> bool {
    let mut levels = directives(filter).filter_map(|part| part.rsplit('=').next());
    levels.any(|level| level.trim().parse() == Ok(LevelFilter::Trace))
}

/// The parts of a filter in front of its slash.
fn directives(filter: &str) -> impl Iterator<Item = &str> {
    let list = filter.split('/').next().unwrap_or_default();
    list.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

const PATH_PREFIX_BYTES_MAX: usize = 256;
const TOKEN_BYTES_MAX: usize = 256;
const SERVER_HEADER_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_kept_without_the_slash_at_its_end() {
        assert_eq!(path_prefix("/live"), Ok("/live".to_owned()));
        assert_eq!(path_prefix("/live/v2/"), Ok("/live/v2".to_owned()));
        assert_eq!(path_prefix("/"), Ok(String::new()));
        assert!(path_prefix("live").unwrap_err().contains("write /live"));
        for text in ["/a b", "/a?b", "/a#b", "/ü", "/a//b", "/a\r\n", "//"] {
            assert!(path_prefix(text).is_err() || text == "//", "{text}");
        }
        assert!(path_prefix(&format!("/{}", "a".repeat(256))).is_err());
    }

    #[test]
    fn a_subprotocol_is_a_token() {
        assert_eq!(
            token("graphql-transport-ws", "a subprotocol"),
            Ok("graphql-transport-ws".to_owned())
        );
        assert_eq!(
            token("v1.chat+json", "a subprotocol"),
            Ok("v1.chat+json".to_owned())
        );
        for text in ["a b", "a;b", "a\"b", "(a)", "ü", "a/b"] {
            assert!(token(text, "a cookie").is_err(), "{text}");
        }
    }

    #[test]
    fn the_server_field_cannot_smuggle_another_field() {
        assert_eq!(server_header("mill 1.0"), Ok(Some("mill 1.0".to_owned())));
        assert_eq!(server_header(""), Ok(None));
        assert_eq!(server_header("Off"), Ok(None));
        for text in ["a\r\nSet-Cookie: b=c", "a\tb", "ü", "\u{7f}"] {
            assert!(server_header(text).is_err(), "{text:?}");
        }
        assert!(server_header(&"a".repeat(129)).is_err());
    }

    #[test]
    fn a_log_filter_is_taken_in_the_forms_that_env_logger_reads() {
        let filters = [
            "info",
            "WARN",
            "off",
            "tidemill=debug",
            "warn,tidemill::server=debug, mio=error",
            "tidemill",
            "tidemill=",
            "debug/needle",
            "info,,",
        ];
        for filter in filters {
            assert_eq!(log_filter(filter), Ok(filter.to_owned()), "{filter}");
        }
    }

    #[test]
    fn a_log_filter_that_would_be_passed_over_is_refused() {
        let slips = [
            "tidemill=loud",
            "a=b=c",
            "=info",
            "info debug",
            "tidemill=info/a/b",
            "info;x=2",
        ];
        for filter in slips {
            assert!(log_filter(filter).is_err(), "{filter}");
        }
        assert!(
            log_filter("tidemill=verbose")
                .unwrap_err()
                .contains("debug or trace")
        );
    }

    #[test]
    fn trace_is_noticed_wherever_it_stands() {
        for filter in ["trace", "info,tidemill=TRACE", "tidemill= trace /x"] {
            assert!(log_asks_for_trace(filter), "{filter}");
        }
        for filter in ["debug", "info/trace", "trace=info", "tidemill"] {
            assert!(!log_asks_for_trace(filter), "{filter}");
        }
    }

    #[test]
    fn a_name_without_a_level_is_a_target() {
        let targets: Vec<_> = log_targets("inof, debug,tidemill=warn,mio/x").collect();
        assert_eq!(targets, ["inof", "mio"]);
    }
}
