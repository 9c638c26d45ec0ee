//! What is loaded: a `ws://` or `wss://` URL, and the addresses to load it from.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs},
    time::Duration,
};

use crate::transport::tls::ServerName;

/// Connections for which one source address has enough ports. A kernel looks through half of
/// its 28,232 first; beyond that, each connect walks over thousands of ports in use.
pub const CONNECTIONS_PER_SOURCE: usize = 10_000;

/// A parsed URL (RFC 6455, 3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    url: String,
    scheme: Scheme,
    /// Name or address, with the port where the URL has one: what the `Host` header says.
    pub authority: String,
    host: String,
    port: u16,
    /// Path and query.
    pub path: String,
}

/// What carries the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Ws,
    /// Over TLS.
    Wss,
}

impl Scheme {
    fn port(self) -> u16 {
        match self {
            Self::Ws => 80,
            Self::Wss => 443,
        }
    }
}

impl Target {
    /// Reads `ws://HOST[:PORT][/PATH][?QUERY]`, or the same with `wss://`.
    ///
    /// # Errors
    /// What is wrong, as a phrase that follows the URL.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "ws" => Scheme::Ws,
            "wss" => Scheme::Wss,
            _ => {
                return Err(
                    "not a WebSocket URL, write ws://HOST:PORT/PATH or wss://HOST:PORT/PATH"
                        .to_owned(),
                );
            }
        };
        if rest.contains('#') {
            return Err("a WebSocket URL has no fragment, leave out what follows #".to_owned());
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err("a WebSocket URL has no user, leave out what precedes @".to_owned());
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => {
                let port = port
                    .parse()
                    .map_err(|_| format!("{port:?} is not a port, write a number up to 65535"))?;
                (host, port)
            }
            _ => (authority, scheme.port()),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err("a host is missing, write ws://HOST:PORT/PATH".to_owned());
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self {
            url: url.to_owned(),
            scheme,
            authority: authority.to_owned(),
            host: host.to_owned(),
            port,
            path: format!("{slash}{path}"),
        })
    }

    /// The URL as it was given.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether the connections are over TLS.
    pub fn is_secure(&self) -> bool {
        self.scheme == Scheme::Wss
    }

    /// Whom a certificate must be for: the name or the address in the URL. No certificate is for
    /// a host of which this is `None`.
    pub fn server_name(&self) -> Option<ServerName<'static>> {
        ServerName::try_from(self.host.clone()).ok()
    }

    /// Finds an address of the host that takes connections, by opening one: of the family of
    /// `sources`, if there are any.
    ///
    /// # Errors
    /// When the name is unknown or none of its addresses answers in time.
    pub fn reach(&self, sources: &[IpAddr], timeout: Duration) -> io::Result<SocketAddr> {
        let mut outcome = Err(io::ErrorKind::AddrNotAvailable.into());
        let mut addresses: Vec<_> = (self.host.as_str(), self.port).to_socket_addrs()?.collect();
        // Of the loopback addresses, there is more than one of these.
        addresses.sort_by_key(SocketAddr::is_ipv6);
        for address in addresses {
            if sources
                .first()
                .is_some_and(|source| source.is_ipv4() != address.is_ipv4())
            {
                continue;
            }
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(_) => return Ok(address),
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }
}

/// Reads source addresses: single ones and ranges, separated by commas.
///
/// # Errors
/// What is wrong, as a phrase that follows the text.
pub fn sources(text: &str) -> Result<Vec<IpAddr>, String> {
    let mut sources = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (address(first)?, address(last)?) {
            (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => {
                let range = u32::from(first)..=u32::from(last);
                if range.end() - range.start() >= SOURCES_MAX {
                    return Err(format!("{part} is more than {SOURCES_MAX} addresses"));
                }
                sources.extend(range.map(|number| IpAddr::V4(Ipv4Addr::from(number))));
            }
            (first, last) if first == last => sources.push(first),
            _ => {
                return Err(format!(
                    "{part} is no range, write IPv4 addresses in order: 127.0.0.2-127.0.0.9"
                ));
            }
        }
    }
    if sources.len() > SOURCES_MAX as usize {
        return Err(format!("more than {SOURCES_MAX} addresses"));
    }
    Ok(sources)
}

const SOURCES_MAX: u32 = 65_536;

fn address(text: &str) -> Result<IpAddr, String> {
    let wrong = |_| format!("{text:?} is no IP address");
    text.trim().parse().map_err(wrong)
}

/// Source addresses for this many connections to `to` when none are given: on loopback all of
/// 127.0.0.0/8 may be used; elsewhere the system chooses.
pub fn default_sources(to: IpAddr, connections: usize) -> Vec<IpAddr> {
    let plenty = cfg!(target_os = "linux") && to.is_ipv4() && to.is_loopback();
    if !plenty || connections <= CONNECTIONS_PER_SOURCE {
        return Vec::new();
    }
    let count = connections.div_ceil(CONNECTIONS_PER_SOURCE) as u32;
    let first = u32::from(Ipv4Addr::new(127, 0, 1, 1));
    let addresses = first..first + count;
    addresses
        .map(|number| IpAddr::V4(Ipv4Addr::from(number)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let target = Target::parse("ws://localhost:7000/echo?a=b").unwrap();
        assert_eq!(target.authority, "localhost:7000");
        assert_eq!((target.host.as_str(), target.port), ("localhost", 7000));
        assert_eq!(target.path, "/echo?a=b");
        let target = Target::parse("WS://[::1]:9").unwrap();
        assert_eq!((target.host.as_str(), target.port), ("::1", 9));
        assert_eq!(
            (target.authority.as_str(), target.path.as_str()),
            ("[::1]:9", "/")
        );
        let target = Target::parse("ws://[::1]?x").unwrap();
        assert_eq!((target.port, target.path.as_str()), (80, "/?x"));
        assert!(!target.is_secure());
        let target = Target::parse("wss://[::1]").unwrap();
        assert_eq!((target.port, target.is_secure()), (443, true));
        assert_eq!(Target::parse("Wss://a:1/").unwrap().port, 1);
    }

    #[test]
    fn a_certificate_is_for_a_name_or_an_address() {
        let name = |url: &str| Target::parse(url).unwrap().server_name();
        for (url, whom) in [
            ("wss://Example.org./", "Example.org."),
            ("wss://127.0.0.1:1/", "127.0.0.1"),
            ("wss://[::1]:1/", "::1"),
        ] {
            let name = name(url).unwrap();
            assert_eq!(name.to_str(), whom);
            let is_address = matches!(name, ServerName::IpAddress(_));
            assert_eq!(is_address, whom.parse::<IpAddr>().is_ok(), "{whom}");
        }
        assert_eq!(name("wss://a..b/"), None);
    }

    #[test]
    fn a_url_that_cannot_be_used_says_why() {
        for (url, why) in [
            ("http://a", "write ws://"),
            ("localhost:7000", "write ws://"),
            ("https://a", "wss://"),
            ("wss:///echo", "host is missing"),
            ("ws:///echo", "host is missing"),
            ("ws://a:70000/", "70000"),
            ("ws://a:/", "not a port"),
            ("ws://me@a/", "no user"),
            ("ws://a/#b", "no fragment"),
        ] {
            let problem = Target::parse(url).unwrap_err();
            assert!(problem.contains(why), "{url}: {problem}");
        }
    }

    #[test]
    fn sources_are_addresses_and_ranges() {
        let list = sources("127.0.0.250-127.0.1.2, ::1,10.0.0.1").unwrap();
        assert_eq!(list.len(), 9 + 2);
        assert_eq!(list[6], "127.0.1.0".parse::<IpAddr>().unwrap());
        for text in ["", "a", "127.0.0.2-127.0.0.1", "::1-::2", "0.0.0.0-1.0.0.0"] {
            assert!(sources(text).is_err(), "{text}");
        }
    }

    #[test]
    fn loopback_gets_an_address_for_each_ten_thousand() {
        let loopback = "127.0.0.1".parse().unwrap();
        assert_eq!(default_sources(loopback, 10_000).len(), 0);
        assert_eq!(default_sources("::1".parse().unwrap(), 50_000).len(), 0);
        if cfg!(target_os = "linux") {
            assert_eq!(default_sources(loopback, 10_001).len(), 2);
            let million = default_sources(loopback, 1_000_000);
            assert_eq!(
                million.last(),
                Some(&"127.0.1.100".parse::<IpAddr>().unwrap())
            );
        }
    }
}
