//! Request targets (RFC 9112, 3.2) and the authority that a target or a `Host` header names.

use memchr::memchr;

use super::{Limits, Reason, Refusal};

/// A request target, in the two forms that name a resource here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    pub(super) authority: Option<&'a str>,
    /// Begins with a slash.
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
}

impl<'a> Target<'a> {
    pub(super) fn parse(target: &'a str, limits: &Limits) -> Result<Target<'a>, Refusal> {
        if target.len() > limits.target_bytes_max {
            let limit = limits.target_bytes_max as u64;
            return Err(Refusal::over_limit(Reason::TargetTooLong, limit));
        }
        // RFC 6455, 3: a fragment is meaningless in a ws URI; RFC 9112, 3.2: no form has one.
        if target
            .bytes()
            .any(|byte| byte == b'#' || !byte.is_ascii_graphic())
        {
            return Err(Reason::MalformedTarget.into());
        }
        if target.starts_with('/') {
            return Ok(Target::split(None, target));
        }
        // RFC 9112, 3.2.2: a server accepts the absolute form. The asterisk and authority forms
        // are for OPTIONS and CONNECT, which nothing here answers.
        let (scheme, rest) = target.split_once("://").ok_or(Reason::MalformedTarget)?;
        if !["http", "https", "ws", "wss"]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(scheme))
        {
            return Err(Reason::MalformedTarget.into());
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        if !is_authority(authority) {
            return Err(Reason::MalformedTarget.into());
        }
        Ok(Target::split(Some(authority), rest))
    }

    fn split(authority: Option<&'a str>, rest: &'a str) -> Target<'a> {
        let (path, query) = match memchr(b'?', rest.as_bytes()) {
            Some(mark) => (&rest[..mark], Some(&rest[mark + 1..])),
            None => (rest, None),
        };
        Target {
            authority,
            path: if path.is_empty() { "/" } else { path },
            query,
        }
    }
}

/// RFC 3986, 3.2.2 and 3.2.3: a host name or address with an optional port; no user information.
pub(in crate::protocol) fn is_authority(authority: &str) -> bool {
    let (host_is_sound, port) = match authority.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => (is_address(address), port),
            None => return false,
        },
        None => {
            let end = authority.find(':').unwrap_or(authority.len());
            let (name, port) = authority.split_at(end);
            (!name.is_empty() && name.bytes().all(is_host_byte), port)
        }
    };
    host_is_sound && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

fn is_address(address: &str) -> bool {
    !address.is_empty()
        && address
            .bytes()
            .all(|b| b.is_ascii_hexdigit() || b == b':' || b == b'.')
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte)
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit())
        && (port.is_empty() || port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_splits_into_authority_path_and_query() {
        let cases: &[(&str, Option<&str>, &str, Option<&str>)] = &[
            ("/", None, "/", None),
            ("/ws?", None, "/ws", Some("")),
            (
                "/a%2Fb%20c?d=%26&e?f",
                None,
                "/a%2Fb%20c",
                Some("d=%26&e?f"),
            ),
            ("//double/../dots", None, "//double/../dots", None),
            ("/to?http://b/c", None, "/to", Some("http://b/c")),
            ("http://a/b?c", Some("a"), "/b", Some("c")),
            ("WSS://a.example:443", Some("a.example:443"), "/", None),
            (
                "https://[::1]:8443?c/d",
                Some("[::1]:8443"),
                "/",
                Some("c/d"),
            ),
        ];
        for (target, authority, path, query) in cases {
            let parsed = Target::parse(target, &Limits::default()).unwrap();
            assert_eq!(
                (parsed.authority, parsed.path, parsed.query),
                (*authority, *path, *query),
                "{target}"
            );
        }
    }

    #[test]
    fn a_target_that_names_no_resource_here_is_refused() {
        let targets = [
            "*",
            "a.example:443",
            "ws",
            "?a",
            "/a#b",
            "http://a/#b",
            "ftp://a/",
            "http:///b",
            "http://user@a/",
            "http://a:port/",
            "://a/",
            "/caf\u{e9}",
        ];
        for target in targets {
            let refusal = Target::parse(target, &Limits::default()).unwrap_err();
            assert_eq!(refusal.reason(), Reason::MalformedTarget, "{target}");
        }
    }

    #[test]
    fn an_authority_is_a_host_with_an_optional_port() {
        let sound = [
            "a",
            "a.example",
            "A-b_c.example.",
            "127.0.0.1:7000",
            "[::1]",
            "[::ffff:1.2.3.4]:80",
            "xn--bcher-kva.example:65535",
            "a:",
        ];
        for authority in sound {
            assert!(is_authority(authority), "{authority}");
        }
        let faulty = [
            "",
            ":80",
            "a b",
            "a/b",
            "a,b c",
            "user@a",
            "a:65536",
            "a:-1",
            "a:1:2",
            "::1",
            "[::1",
            "[]",
            "[::1]80",
            "[g]",
            "b\u{fc}cher",
        ];
        for authority in faulty {
            assert!(!is_authority(authority), "{authority}");
        }
    }
}
