//! Whether a page may connect, by the `Origin` that its browser sends (RFC 6454; RFC 6455, 10.2).
//!
//! Browsers send their visitor's cookies along whichever page it is that connects, and leave it to
//! the server to refuse. Other programs can write what they like into the header, so it keeps out
//! pages and nobody else. The header is read strictly: what no browser would send is nobody's.

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::config::Origins;

/// What is asked of [`allows`].
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The list that counts.
    pub origins: &'a Origins,
    /// The value of the one `Origin` header.
    pub origin: &'a str,
    /// Whom the request is for: the `Host` header, or what a trusted proxy says that it was.
    pub host: &'a str,
    /// Whether the peer came over TLS; `None` when a proxy in front does not say.
    pub is_secure: Option<bool>,
    /// Whether every listener is one that only this machine reaches.
    pub is_loopback_only: bool,
}

/// Whether the list lets this origin connect. Where only this machine can connect, and asks for it
/// by a name of its own, `same-origin` also means its pages on other ports, and those that were
/// opened as files (`null`).
pub fn allows(asked: &Asked<'_>) -> bool {
    let origins = asked.origins;
    if origins.is_any() {
        return true;
    }
    // A proxy on this machine would make everybody at home, but for the name that they asked for.
    let is_at_home = asked.is_loopback_only
        && origins.has_same_origin()
        && split_port(asked.host).is_some_and(|(host, _)| is_loopback(host));
    if asked.origin == "null" {
        return is_at_home || origins.has_null();
    }
    let Some(origin) = Origin::parse(asked.origin) else {
        return false;
    };
    origins.names(origin.scheme, origin.host, origin.port)
        || (origins.has_same_origin() && origin.is_that_of(asked.host, asked.is_secure))
        || (is_at_home && is_loopback(origin.host))
}

/// RFC 6454, 6.2: the serialization of an origin that is not opaque.
struct Origin<'a> {
    scheme: &'a str,
    /// As [`split_port`] leaves it.
    host: &'a str,
    port: Option<u16>,
}

impl<'a> Origin<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        // RFC 3986, 3.1. A list of origins would hide in it otherwise.
        let is_scheme_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if scheme.is_empty() || !scheme.bytes().all(is_scheme_byte) {
            return None;
        }
        // `file://` and the like have no host; on the web there is always one.
        if authority.is_empty() && Origins::default_port(scheme).is_none() {
            let (host, port) = (authority, None);
            return Some(Self { scheme, host, port });
        }
        let (host, port) = split_port(authority)?;
        // Every other byte that could change the meaning (`/`, `@`, `,`, a space, a control
        // character, a letter that only looks right) is none of a host name.
        let port = match port {
            None => None,
            Some(digits) => Some(read_port(digits)?),
        };
        Some(Self { scheme, host, port })
    }

    /// Whether this is the origin of the pages that the host itself serves.
    fn is_that_of(&self, host: &str, is_secure: Option<bool>) -> bool {
        let Some(default_port) = Origins::default_port(self.scheme) else {
            return false;
        };
        // Over TLS, a page that came in the clear is another's: it may have been tampered with. The
        // other way round there is a proxy that ends TLS and does not say so.
        if is_secure == Some(true) && default_port != HTTPS_PORT {
            return false;
        }
        let Some((host, port)) = split_port(host) else {
            return false;
        };
        // RFC 9110, 4.2.3: an empty port is the default one.
        let port = match port.filter(|digits| !digits.is_empty()).map(read_port) {
            None => default_port,
            Some(Some(port)) => port,
            Some(None) => return false,
        };
        is_same_host(self.host, host) && self.port.unwrap_or(default_port) == port
    }
}

const HTTPS_PORT: u16 = 443;

/// Host and port of an authority. The host is a name without its trailing dot, which says no more
/// than that the name is complete; or an IPv6 address in its brackets.
fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = authority.split_at(rest.find(']')? + 2);
            ipv6(host)?;
            (host, port)
        }
        None => {
            let end = authority.find(':').unwrap_or(authority.len());
            let (name, port) = authority.split_at(end);
            let name = name.strip_suffix('.').unwrap_or(name);
            if !Origins::is_host_name(name) {
                return None;
            }
            (name, port)
        }
    };
    match port.strip_prefix(':') {
        Some(port) => Some((host, Some(port))),
        None => port.is_empty().then_some((host, None)),
    }
}

/// Digits only: `u16` by itself would also take a sign.
fn read_port(digits: &str) -> Option<u16> {
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let port = digits.parse().ok().filter(|port| *port > 0);
    port.filter(|_| is_number)
}

fn ipv6(host: &str) -> Option<Ipv6Addr> {
    host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

fn is_same_host(left: &str, right: &str) -> bool {
    match (ipv6(left), ipv6(right)) {
        // One address can be written in several ways.
        (Some(left), Some(right)) => left == right,
        _ => left.eq_ignore_ascii_case(right),
    }
}

/// RFC 6761, 6.3: `localhost` and all below it; and the addresses of this machine itself.
fn is_loopback(host: &str) -> bool {
    if let Some(address) = ipv6(host) {
        return address.to_canonical().is_loopback();
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return address.is_loopback();
    }
    let last = host.rsplit('.').next().unwrap_or(host);
    last.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn asked<'a>(origins: &'a Origins, origin: &'a str, host: &'a str) -> Asked<'a> {
        Asked {
            origins,
            origin,
            host,
            is_secure: None,
            is_loopback_only: false,
        }
    }

    /// Whether a list lets an origin in that is not the server's own.
    fn lets_in(list: &str, origin: &str) -> bool {
        let origins = Origins::parse(list).unwrap();
        allows(&asked(&origins, origin, "server.example"))
    }

    #[test]
    fn same_origin_is_the_host_that_the_request_is_for() {
        let cases = [
            ("http://a.example", "a.example", true),
            ("https://a.example", "a.example", true),
            ("https://A.Example", "a.exaMPLE", true),
            ("https://a.example.", "a.example", true),
            ("https://a.example", "a.example.", true),
            ("https://a.example.", "a.example.:443", true),
            ("https://a.example", "a.example:443", true),
            ("https://a.example:443", "a.example:", true),
            ("https://a.example:443", "a.example", true),
            ("http://a.example:80", "a.example", true),
            ("http://a.example", "a.example:80", true),
            ("http://a.example:443", "a.example", false),
            ("https://a.example", "a.example:80", false),
            ("http://a.example:8080", "a.example:8080", true),
            ("http://a.example:8080", "a.example:8081", false),
            ("http://a.example:8080", "a.example", false),
            ("http://a.example", "a.example:8080", false),
            ("http://b.a.example", "a.example", false),
            ("http://a.example", "b.a.example", false),
            ("http://evila.example", "a.example", false),
            ("http://a.example.evil.example", "a.example", false),
            ("http://127.0.0.1:7000", "127.0.0.1:7000", true),
            ("http://localhost:7000", "127.0.0.1:7000", false),
            ("http://[::1]:7000", "[0:0:0:0:0:0:0:1]:7000", true),
            ("http://[::1]", "[::2]", false),
            (
                "http://xn--bcher-kva.example",
                "XN--BCHER-KVA.example",
                true,
            ),
            ("ws://a.example", "a.example", true),
            ("wss://a.example", "a.example:443", true),
            ("tauri://a.example", "a.example", false),
            ("file://", "", false),
            ("http://a.example", "", false),
            ("http://a.example", "a.example:x", false),
            ("http://a.example", "a.example:0", false),
            ("http://a.example", "a.example:65616", false),
            ("http://a.example", "user@a.example", false),
            ("http://a.example", "a.example, a.example", false),
            ("http://a.example", "a.example/", false),
            ("null", "a.example", false),
        ];
        let origins = Origins::same_origin();
        for (origin, host, is_same) in cases {
            let allowed = allows(&asked(&origins, origin, host));
            assert_eq!(allowed, is_same, "{origin} to {host}");
        }
    }

    #[test]
    fn over_tls_a_page_that_came_in_the_clear_is_not_of_the_same_origin() {
        let origins = Origins::parse("same-origin,http://listed.example").unwrap();
        let cases = [
            ("https://a.example", Some(true), true),
            ("http://a.example", Some(true), false),
            ("http://a.example:443", Some(true), false),
            ("ws://a.example", Some(true), false),
            ("wss://a.example", Some(true), true),
            ("http://listed.example", Some(true), true),
            ("https://a.example", Some(false), true),
            ("http://a.example", Some(false), true),
            ("https://a.example", None, true),
            ("http://a.example", None, true),
        ];
        for (origin, is_secure, allowed) in cases {
            let hosts = [":80", ":443", ""].map(|port| format!("a.example{port}"));
            let any = hosts.iter().any(|host| {
                allows(&Asked {
                    is_secure,
                    ..asked(&origins, origin, host)
                })
            });
            assert_eq!(any, allowed, "{origin}, secure: {is_secure:?}");
        }
    }

    #[test]
    fn nothing_that_a_browser_would_not_send_is_let_in() {
        let malformed = [
            "",
            " ",
            "good.example",
            "https:good.example",
            "https:/good.example",
            "https//good.example",
            "//good.example",
            "://good.example",
            "https://",
            "http://:80",
            "https://good.example/",
            "https://good.example/path",
            "https://good.example?",
            "https://good.example#",
            "https://good.example\\",
            "https://good.example@evil.example",
            "https://evil.example@good.example",
            "https://user:password@good.example",
            "https://@good.example",
            "https://good.example,https://evil.example",
            "https://good.example, https://good.example",
            "https://good.example https://evil.example",
            "https://evil.example https://good.example",
            "https://https://good.example",
            " https://good.example",
            "https://good.example ",
            "https://good.example\t",
            "https://good.example\0",
            "https://good.example\r\n",
            "https:// good.example",
            "https://good .example",
            "https://good%2eexample",
            "https://good.example%00.evil.example",
            "https://good.example..",
            "https://.good.example",
            "https://good..example",
            "https://good.example:",
            "https://good.example:0",
            "https://good.example:65536",
            "https://good.example:65979",
            "https://good.example:+443",
            "https://good.example:-1",
            "https://good.example:443:443",
            "https://good.example:443/",
            "https://good.example:443@evil.example",
            "https://good.example:\u{664}\u{664}\u{663}",
            "https://g\u{43e}od.example",
            "https://good\u{ff0e}example",
            "https://good\u{3002}example",
            "https://[good.example]",
            "https://[::1",
            "https://[::1]good.example",
            "https://[::1%25eth0]",
            "https://[]",
            "https://[127.0.0.1]",
            "https://::1",
            "https://*",
            "https://*.good.example",
            "*",
            "NULL",
            "null ",
            "null,https://good.example",
            "same-origin",
            "file://",
            "javascript:alert(1)",
            "data:text/html,https://good.example",
        ];
        let list = "same-origin,good.example:*,*.good.example:*,[::1]:*,localhost:*";
        let origins = Origins::parse(list).unwrap();
        for origin in malformed {
            for host in ["good.example", "", origin] {
                let asked = asked(&origins, origin, host);
                assert!(!allows(&asked), "{origin:?} to {host:?}");
            }
        }
        let sound = [
            "https://good.example",
            "http://a.b.good.example.:1",
            "ws://[::1]:65535",
        ];
        for origin in sound {
            assert!(lets_in(list, origin), "{origin}");
        }
    }

    #[test]
    fn a_list_lets_in_what_it_names_and_no_neighbour_of_it() {
        let cases = [
            ("https://good.example", "https://good.example", true),
            ("https://good.example", "https://GOOD.example.:443", true),
            ("https://good.example", "http://good.example", false),
            ("https://good.example", "https://evilgood.example", false),
            (
                "https://good.example",
                "https://good.example.evil.example",
                false,
            ),
            ("https://good.example", "https://good.example.co", false),
            ("https://good.example", "https://good-example", false),
            ("https://good.example", "https://goodxexample", false),
            ("https://good.example", "https://server.example", false),
            ("*.good.example", "https://a.good.example", true),
            ("*.good.example", "https://good.example", false),
            ("*.good.example", "https://.good.example", false),
            (
                "*.good.example",
                "https://a.good.example.evil.example",
                false,
            ),
            ("*.good.example", "https://a-good.example", false),
            ("http://[2001:db8::1]:80", "http://[2001:DB8:0::1]", true),
            ("http://[::ffff:1.2.3.4]", "http://[::ffff:102:304]", true),
            ("http://1.2.3.4", "http://[::ffff:102:304]", false),
            ("http://127.0.0.1", "http://127.1", false),
            ("http://127.0.0.1", "http://2130706433", false),
            ("null", "null", true),
            ("null", "https://null", false),
            ("https://null", "null", false),
            ("null,same-origin", "https://server.example", true),
            ("file://", "file://", true),
            ("file://", "file:///", false),
            ("file://", "file://server.example", false),
            (
                "chrome-extension://abcdef",
                "chrome-extension://abcdef",
                true,
            ),
            (
                "chrome-extension://abcdef",
                "chrome-extension://abcdefg",
                false,
            ),
            ("chrome-extension://abcdef", "https://abcdef", false),
            ("abcdef", "chrome-extension://abcdef", false),
            ("*", "https://evil.example", true),
            ("*", "null", true),
            ("*", "", true),
            ("*", "https://good.example@evil.example", true),
        ];
        for (list, origin, allowed) in cases {
            assert_eq!(lets_in(list, origin), allowed, "{origin} by {list}");
        }
    }

    #[test]
    fn where_only_this_machine_connects_its_own_pages_are_let_in() {
        let cases = [
            ("http://localhost", true),
            ("https://LOCALHOST:5173", true),
            ("http://localhost.:80", true),
            ("http://app.localhost:3000", true),
            ("http://127.0.0.1:8080", true),
            ("http://127.255.0.9", true),
            ("http://[::1]:1", true),
            ("http://[::ffff:127.0.0.1]", true),
            ("tauri://localhost", true),
            ("null", true),
            ("http://localhost:0", false),
            ("http://localhost/", false),
            ("http://localhost.evil.example", false),
            ("http://evillocalhost", false),
            ("http://127.0.0.1.evil.example", false),
            ("http://128.0.0.1", false),
            ("http://0.0.0.0", false),
            ("http://[::2]", false),
            ("http://localhost@evil.example", false),
            ("https://evil.example", false),
        ];
        let at_home = |list: &str, origin: &str, host: &str| {
            let origins = Origins::parse(list).unwrap();
            allows(&Asked {
                is_loopback_only: true,
                ..asked(&origins, origin, host)
            })
        };
        for (origin, allowed) in cases {
            for host in [
                "localhost:7000",
                "127.0.0.1:7000",
                "[::1]:7000",
                "App.Localhost.",
            ] {
                let found = at_home("same-origin", origin, host);
                assert_eq!(found, allowed, "{origin} to {host}");
                // Whoever leaves the word out means just what the list says.
                let found = at_home("https://good.example", origin, host);
                assert!(!found, "{origin} to {host} by a list");
            }
            assert!(!lets_in("same-origin", origin), "{origin} in the world");
            for host in [
                "server.example",
                "localhost.server.example",
                "",
                "localhost, a",
            ] {
                let found = at_home("same-origin", origin, host);
                assert!(
                    !found,
                    "{origin} to {host}, through a proxy on this machine"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn a_stranger_is_never_let_in(
            prefix in "(https?://)?[a-c.@:/,\\[\\]%\\\\ ]{0,6}",
            suffix in "[a-c.@:/,0-9\\[\\]%\\\\ ]{0,6}|\\PC{0,6}",
        ) {
            let origin = format!("{prefix}good.example{suffix}");
            let exact = ["", "http://", "https://"].map(|scheme| {
                ["", ".", ":80", ":443", ".:80", ".:443"]
                    .map(|end| format!("{scheme}good.example{end}"))
            });
            // The same port with zeros in front is the same port.
            let plain = origin.replace(":0", ":").replace(":0", ":").replace(":0", ":");
            let plain = plain.replace(":0", ":");
            prop_assume!(!exact.concat().contains(&plain));
            let origins = Origins::parse("same-origin,good.example").unwrap();
            prop_assert!(!allows(&asked(&origins, &origin, "good.example")), "{}", origin);
        }

        #[test]
        fn any_header_is_answered(origin in "\\PC{0,40}", host in "\\PC{0,40}") {
            let origins = Origins::parse("same-origin,*.a.example").unwrap();
            let allowed = allows(&asked(&origins, &origin, &host));
            prop_assert!(!allowed || origin.contains("://"));
        }
    }
}
