//! The list of web origins that may open a WebSocket here, as an operator writes it.
//!
//! An origin is what a browser says of the page that connects (RFC 6454): scheme, host and port.
//! This file reads and writes the list and says whether a pattern of it stands for an origin. What
//! an `Origin` header holds, and what `same-origin` and `null` mean for a request, is judged in
//! `gate/origin.rs`.

use std::fmt::{self, Display, Formatter};
use std::net::{Ipv4Addr, Ipv6Addr};

use super::value::{list, show_list};

/// More would be searched through at every handshake; a wildcard says it shorter.
const ITEMS_MAX: usize = 256;

/// Which origins are let in: words and patterns, any one of which is enough.
///
/// - `same-origin`: the page came from the host and port that it connects to;
/// - `*`: every origin, and requests whose origin cannot be read;
/// - `null`: the opaque origin of sandboxed frames and local files;
/// - a pattern `scheme://host:port`. Without a scheme it stands for `http` and `https`, without a
///   port for the scheme's own, with `:*` for all of them. A host `*.example.com` stands for the
///   names below `example.com` at any depth, not for `example.com`. `ws` and `wss` are taken as
///   `http` and `https`, which is what the pages say that use them.
///
/// `Display` writes the list the way [`Origins::parse`] reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origins {
    items: Vec<Item>,
}

impl Origins {
    /// Reads a list separated by commas.
    ///
    /// # Errors
    /// A phrase that follows the text and says what is wrong with it and how to write it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let items = list(text, ITEMS_MAX, Item::parse)?;
        Ok(Self { items })
    }

    /// The list of the one word `same-origin`.
    pub fn same_origin() -> Self {
        let items = vec![Item::SameOrigin];
        Self { items }
    }

    /// The list of the one word `*`.
    pub fn any() -> Self {
        let items = vec![Item::Any];
        Self { items }
    }

    /// Whether the list lets every origin in.
    pub fn is_any(&self) -> bool {
        self.items.contains(&Item::Any)
    }

    /// Whether the list has the word `same-origin`.
    pub fn has_same_origin(&self) -> bool {
        self.items.contains(&Item::SameOrigin)
    }

    /// Whether the list has the word `null`.
    pub fn has_null(&self) -> bool {
        self.items.contains(&Item::Null)
    }

    /// Whether a pattern of the list stands for this origin. The host is a name or an IPv4 address
    /// without its trailing dot, or an IPv6 address in brackets; no port is the scheme's own.
    pub fn names(&self, scheme: &str, host: &str, port: Option<u16>) -> bool {
        let scheme = web_scheme(scheme);
        let port = port.or_else(|| Self::default_port(scheme));
        self.items.iter().any(|item| match item {
            Item::Pattern(pattern) => pattern.stands_for(scheme, host, port),
            Item::SameOrigin | Item::Any | Item::Null => false,
        })
    }

    /// Whether this is the name of a host, or an IPv4 address: labels of letters, digits, `-` and
    /// `_`, none of them empty.
    pub fn is_host_name(name: &str) -> bool {
        name.split('.').all(|label| {
            let is_sound = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            !label.is_empty() && label.bytes().all(is_sound)
        })
    }

    /// The port that an origin of this scheme leaves out (RFC 6454, 6.2), if the scheme has one.
    pub fn default_port(scheme: &str) -> Option<u16> {
        match web_scheme(scheme) {
            scheme if scheme.eq_ignore_ascii_case("http") => Some(80),
            scheme if scheme.eq_ignore_ascii_case("https") => Some(443),
            _ => None,
        }
    }
}

impl Display for Origins {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&show_list(&self.items))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Item {
    SameOrigin,
    Any,
    Null,
    Pattern(Pattern),
}

impl Item {
    fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "same-origin" => Ok(Self::SameOrigin),
            "*" => Ok(Self::Any),
            "null" => Ok(Self::Null),
            // Each would pass for the name of a host, and then let nobody in.
            "self" | "'self'" | "same_origin" | "sameorigin" => Err(format!(
                "{text:?} is not a word of this list, write same-origin"
            )),
            "any" | "all" | "*:*" | "*.*" => Err(format!(
                "{text:?} is not a word of this list, write * for every origin"
            )),
            "none" | "off" | "true" | "false" => Err(format!(
                "{text:?} is not a word of this list, write same-origin for no other site than \
                 the server's own"
            )),
            lower => Pattern::parse(lower).map(Self::Pattern),
        }
    }
}

impl Display for Item {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::SameOrigin => f.write_str("same-origin"),
            Self::Any => f.write_str("*"),
            Self::Null => f.write_str("null"),
            Self::Pattern(pattern) => pattern.fmt(f),
        }
    }
}

/// All of it in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Pattern {
    /// None: `http` and `https`.
    scheme: Option<String>,
    host: Host,
    port: Port,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Host {
    /// Without a trailing dot. Empty only for a scheme of its own, as in `file://`.
    Name(String),
    /// The names that end in this one, which begins with its dot.
    Below(String),
    Address(Ipv6Addr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Port {
    Own,
    Any,
    Number(u16),
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        let (scheme, authority) = match text.split_once("://") {
            Some((scheme, authority)) => (Some(scheme), authority),
            None => (None, text),
        };
        if let Some(scheme) = scheme.filter(|scheme| !is_scheme(scheme)) {
            return Err(format!(
                "{scheme:?} is not a scheme, write https:// or http://"
            ));
        }
        let before = scheme.map_or(String::new(), |scheme| format!("{scheme}://"));
        if let Some(end) = authority.find(['/', '?', '#']) {
            let authority = &authority[..end];
            return Err(format!(
                "an origin ends with its host and port, write {before}{authority}"
            ));
        }
        if let Some((_, authority)) = authority.rsplit_once('@') {
            return Err(format!("an origin has no user, write {before}{authority}"));
        }
        let (host, port) = split_port(authority)?;
        let scheme = scheme.map(|scheme| web_scheme(scheme).to_owned());
        // Such as `file://`: the whole origin is its scheme.
        let is_scheme_alone = authority.is_empty()
            && scheme
                .as_deref()
                .is_some_and(|scheme| Origins::default_port(scheme).is_none());
        Ok(Self {
            host: match is_scheme_alone {
                true => Host::Name(String::new()),
                false => Host::parse(host)?,
            },
            port,
            scheme,
        })
    }

    /// The scheme is none of `ws` and `wss`, and the port is its own where it was left out.
    fn stands_for(&self, scheme: &str, host: &str, port: Option<u16>) -> bool {
        let scheme_fits = match &self.scheme {
            Some(own) => own.eq_ignore_ascii_case(scheme),
            None => ["http", "https"]
                .iter()
                .any(|web| web.eq_ignore_ascii_case(scheme)),
        };
        let port_fits = match self.port {
            Port::Own => port == Origins::default_port(scheme),
            Port::Any => true,
            Port::Number(number) => port == Some(number),
        };
        scheme_fits && port_fits && self.host.stands_for(host)
    }
}

impl Display for Pattern {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(scheme) = &self.scheme {
            write!(f, "{scheme}://")?;
        }
        match &self.host {
            Host::Name(name) => f.write_str(name)?,
            Host::Below(suffix) => write!(f, "*{suffix}")?,
            Host::Address(address) => write!(f, "[{address}]")?,
        }
        match self.port {
            Port::Own => Ok(()),
            Port::Any => f.write_str(":*"),
            Port::Number(number) => write!(f, ":{number}"),
        }
    }
}

impl Host {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(address) = text.strip_prefix('[') {
            let address = address
                .strip_suffix(']')
                .and_then(|address| address.parse().ok());
            return address.map(Self::Address).ok_or_else(|| {
                format!("{text:?} is not an IPv6 address in brackets, write it as in [::1]")
            });
        }
        if text == "*" {
            return Err(
                "a `*` for the whole host stands for no certain site, write *.example.com for the \
                 names below example.com, or * alone for every origin"
                    .to_owned(),
            );
        }
        let below = text.strip_prefix("*.");
        let name = below.unwrap_or(text);
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.contains('*') {
            return Err(format!(
                "a `*` in {text:?} stands neither for the first names of the host nor for the \
                 port, write it as in *.example.com or localhost:*"
            ));
        }
        if !name.is_ascii() {
            return Err(format!(
                "{text:?} is not what a browser sends for this host, write its ASCII form, which \
                 begins with xn--"
            ));
        }
        if !Origins::is_host_name(name) {
            return Err(format!(
                "{text:?} is not the name of a host, write https://chat.example.com; origins are \
                 separated by commas"
            ));
        }
        match below {
            Some(_) if name.parse::<Ipv4Addr>().is_ok() => Err(format!(
                "nothing lies below the address {name}, write {name} without the `*`"
            )),
            Some(_) => Ok(Self::Below(format!(".{name}"))),
            None => Ok(Self::Name(name.to_owned())),
        }
    }

    fn stands_for(&self, host: &str) -> bool {
        match self {
            Self::Name(name) => name.eq_ignore_ascii_case(host),
            // The suffix begins with a dot, so `evilexample.com` is not below `example.com`; and
            // something has to stand before that dot.
            Self::Below(suffix) => host
                .len()
                .checked_sub(suffix.len())
                .filter(|first| *first > 0)
                .and_then(|first| host.get(first..))
                .is_some_and(|end| end.eq_ignore_ascii_case(suffix)),
            // Compared as addresses: one can be written in several ways.
            Self::Address(address) => host
                .strip_prefix('[')
                .and_then(|host| host.strip_suffix(']'))
                .is_some_and(|host| host.parse() == Ok(*address)),
        }
    }
}

/// Host and port of an authority without a user.
fn split_port(authority: &str) -> Result<(&str, Port), String> {
    let host_end = match authority.find(']') {
        Some(bracket) => bracket + 1,
        None if authority.starts_with('[') => authority.len(),
        None if authority.parse::<Ipv6Addr>().is_ok() => {
            return Err(format!(
                "an IPv6 address stands in brackets, write [{authority}]"
            ));
        }
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(host_end);
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => Port::Own,
        Some("*") => Port::Any,
        // Digits only: `u16` by itself would also take a sign.
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            let number = digits.parse().ok().filter(|number| *number > 0);
            Port::Number(number.ok_or_else(|| bad_port(digits))?)
        }
        _ => return Err(bad_port(port.trim_start_matches(':'))),
    };
    Ok((host, port))
}

fn bad_port(text: &str) -> String {
    format!("{text:?} is not a port, write a number from 1 to 65535, or * for every port")
}

/// RFC 3986, 3.1.
fn is_scheme(scheme: &str) -> bool {
    let is_sound = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    scheme.starts_with(|first: char| first.is_ascii_alphabetic()) && scheme.bytes().all(is_sound)
}

/// RFC 6455, 4.1: the scheme of the page that says `ws` or `wss`.
fn web_scheme(scheme: &str) -> &str {
    match scheme {
        _ if scheme.eq_ignore_ascii_case("ws") => "http",
        _ if scheme.eq_ignore_ascii_case("wss") => "https",
        _ => scheme,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn origins(text: &str) -> Origins {
        Origins::parse(text).unwrap_or_else(|problem| panic!("{text}: {problem}"))
    }

    #[test]
    fn what_is_shown_is_read_as_the_same_list() {
        let lists = [
            ("same-origin", "same-origin"),
            (" Same-Origin , NULL,* ", "same-origin,null,*"),
            ("https://Chat.Example.COM", "https://chat.example.com"),
            ("https://a.example.:8443", "https://a.example:8443"),
            ("a.example", "a.example"),
            ("*.example.com:*", "*.example.com:*"),
            ("localhost:*,127.0.0.1:3000", "localhost:*,127.0.0.1:3000"),
            ("http://[0:0::1]:80", "http://[::1]:80"),
            (
                "wss://a.example,WS://b.example",
                "https://a.example,http://b.example",
            ),
            ("file://", "file://"),
            ("chrome-extension://abcdefgh", "chrome-extension://abcdefgh"),
            ("tauri://localhost", "tauri://localhost"),
            ("my_host", "my_host"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ];
        for (text, shown) in lists {
            assert_eq!(origins(text).to_string(), shown, "{text}");
            assert_eq!(origins(shown), origins(text), "{text}");
        }
    }

    #[test]
    fn words_are_told_from_patterns() {
        let list = origins("https://a.example,same-origin");
        assert!(list.has_same_origin() && !list.is_any() && !list.has_null());
        let list = origins("*,null");
        assert!(!list.has_same_origin() && list.is_any() && list.has_null());
        assert_eq!(Origins::same_origin(), origins("same-origin"));
        // The words name nothing: what they mean is not decided here.
        assert!(!origins("*,null,same-origin").names("https", "null", None));
    }

    #[test]
    fn a_pattern_stands_for_these_origins_and_no_others() {
        let cases = [
            ("https://a.example", "https", "a.example", None, true),
            ("https://a.example", "HTTPS", "A.EXAMPLE", Some(443), true),
            ("https://a.example", "http", "a.example", None, false),
            ("https://a.example", "https", "a.example", Some(8443), false),
            ("https://a.example", "https", "b.a.example", None, false),
            ("https://a.example", "https", "a.example.evil", None, false),
            ("https://a.example", "https", "evila.example", None, false),
            ("https://a.example", "wss", "a.example", None, true),
            ("wss://a.example", "https", "a.example", None, true),
            ("https://a.example:80", "https", "a.example", None, false),
            ("https://a.example:443", "https", "a.example", None, true),
            ("a.example", "http", "a.example", None, true),
            ("a.example", "https", "a.example", Some(443), true),
            ("a.example", "https", "a.example", Some(80), false),
            ("a.example", "ftp", "a.example", None, false),
            ("a.example:*", "http", "a.example", Some(1), true),
            ("a.example:8080", "https", "a.example", Some(8080), true),
            ("a.example:8080", "https", "a.example", None, false),
            ("*.a.example", "https", "b.a.example", None, true),
            ("*.a.example", "https", "C.B.A.example", None, true),
            ("*.a.example", "https", "a.example", None, false),
            ("*.a.example", "https", ".a.example", None, false),
            ("*.a.example", "https", "evila.example", None, false),
            ("*.a.example", "https", "b.a.example.evil", None, false),
            ("*.a.example", "https", "", None, false),
            ("*.a.example", "https", "\u{fc}.a.example", None, true),
            ("*.a.example", "https", "\u{fc}a.example", None, false),
            ("[::1]", "http", "[0:0:0::1]", None, true),
            ("[::1]", "http", "[::2]", None, false),
            ("[::1]", "http", "::1", None, false),
            ("[::ffff:102:304]", "http", "[::ffff:1.2.3.4]", None, true),
            ("file://", "file", "", None, true),
            ("file://", "http", "", None, false),
            ("tauri://localhost", "tauri", "localhost", None, true),
            ("tauri://localhost", "tauri", "localhost", Some(80), false),
            ("tauri://localhost", "https", "localhost", None, false),
        ];
        for (pattern, scheme, host, port, fits) in cases {
            let found = origins(pattern).names(scheme, host, port);
            assert_eq!(found, fits, "{scheme}://{host}:{port:?} in {pattern}");
            let mixed = format!("same-origin,null,https://other.example,{pattern}");
            let found = origins(&mixed).names(scheme, host, port);
            assert_eq!(found, fits, "{scheme}://{host}:{port:?} in {mixed}");
        }
    }

    #[test]
    fn a_mistake_is_answered_with_the_way_to_write_it() {
        let mistakes = [
            ("", "separated by single commas"),
            ("a.example,,b.example", "separated by single commas"),
            ("a.example,A.example", "twice"),
            ("any", "write *"),
            ("https://*", "* alone for every origin"),
            ("https://*:*", "* alone for every origin"),
            ("'self'", "write same-origin"),
            ("none", "write same-origin"),
            ("https://a.example/", "write https://a.example"),
            ("a.example/chat?x", "write a.example"),
            ("https://user:word@a.example", "write https://a.example"),
            ("https://", "https://chat.example.com"),
            ("//a.example", "ends with its host"),
            ("://a.example", "write https://"),
            ("1a://a.example", "write https://"),
            ("https://a.example b.example", "separated by commas"),
            ("https://a..example", "not the name of a host"),
            (".a.example", "not the name of a host"),
            ("*.", "not the name of a host"),
            ("*example.com", "*.example.com"),
            ("a.*.example", "*.example.com"),
            ("*.*.example", "*.example.com"),
            ("*.127.0.0.1", "write 127.0.0.1"),
            ("b\u{fc}cher.example", "xn--"),
            ("::1", "write [::1]"),
            ("[::1", "as in [::1]"),
            ("[1.2.3.4]", "as in [::1]"),
            ("[::1]80", "from 1 to 65535"),
            ("a.example:", "from 1 to 65535"),
            ("a.example:0", "from 1 to 65535"),
            ("a.example:65536", "from 1 to 65535"),
            ("a.example:+80", "from 1 to 65535"),
            ("a.example:80:80", "from 1 to 65535"),
            ("https:a.example", "from 1 to 65535"),
            ("file://:80", "not the name of a host"),
        ];
        for (text, remedy) in mistakes {
            let problem = Origins::parse(text).unwrap_err();
            assert!(problem.contains(remedy), "{text}: {problem}");
        }
    }

    #[test]
    fn a_list_is_bounded() {
        let list = |items: usize| {
            let names: Vec<_> = (0..items).map(|item| format!("h{item}.example")).collect();
            Origins::parse(&names.join(","))
        };
        assert!(list(ITEMS_MAX).is_ok());
        assert!(list(ITEMS_MAX + 1).unwrap_err().contains("256"));
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_read_as_what_is_shown(
            text in "\\PC{0,24}|[a-c.*:/@\\[\\]0-9,]{0,16}",
        ) {
            if let Ok(list) = Origins::parse(&text) {
                prop_assert_eq!(Origins::parse(&list.to_string()), Ok(list));
            }
        }

        #[test]
        fn a_name_below_a_wildcard_ends_in_it_behind_a_dot(host in "[a-c.]{0,12}") {
            let is_below = host.ends_with(".a.b") && host.len() > ".a.b".len();
            prop_assert_eq!(origins("*.a.b").names("https", &host, None), is_below);
        }
    }
}
