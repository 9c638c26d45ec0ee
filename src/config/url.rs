//! The address that keys are fetched from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Reads the URL of a JWK Set. Whoever can change what comes back can sign tokens, so it must come
/// by TLS, or from this machine.
pub(super) fn jwks(text: &str) -> Result<String, String> {
    if text.len() > URL_BYTES_MAX {
        return Err(format!("longer than {URL_BYTES_MAX} bytes"));
    }
    if let Some(bad) = text.chars().find(|c| !c.is_ascii_graphic()) {
        return Err(format!("{bad:?} cannot stand in a URL, write it as %.."));
    }
    let lower = text.to_ascii_lowercase();
    let (is_secure, rest) = match (
        lower.strip_prefix("https://"),
        lower.strip_prefix("http://"),
    ) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return Err("not a URL of the web, write https://HOST/PATH".to_owned()),
    };
    if rest.contains('#') {
        return Err("what follows # is not sent to a server, leave it out".to_owned());
    }
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("a user and password cannot be given here, leave them out".to_owned());
    }
    let host = host(authority)?;
    if !is_secure && !is_loopback(host) {
        return Err("plain HTTP is for this machine only, write https://".to_owned());
    }
    Ok(text.to_owned())
}

/// The text with what stands in a URL before the host hidden: users and passwords.
pub(super) fn without_user(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // A password with a sign that ends the host is malformed, and still a password.
    match authority.rfind('@').or_else(|| rest.rfind('@')) {
        Some(at) => format!("{scheme}://***{}", &rest[at..]),
        None => text.to_owned(),
    }
}

/// The host of `host:port`, an IPv6 address without its brackets.
fn host(authority: &str) -> Result<&str, String> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').unwrap_or((rest, "]"));
            if address.parse::<Ipv6Addr>().is_err() {
                return Err("the brackets hold no IPv6 address".to_owned());
            }
            (address, port)
        }
        None => {
            let end = authority.find(':').unwrap_or(authority.len());
            let (name, port) = authority.split_at(end);
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            if name.is_empty() || !name.chars().all(allowed) {
                return Err(
                    "no host that could be connected to, write https://HOST/PATH".to_owned(),
                );
            }
            (name, port)
        }
    };
    let is_port = |text: &str| text.parse::<u16>().is_ok_and(|port| port != 0);
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok(host),
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) && is_port(port) => Ok(host),
        _ => Err("what follows the host is not a port, write such as :8443".to_owned()),
    }
}

fn is_loopback(host: &str) -> bool {
    // RFC 6761, 6.3: names of localhost are this machine.
    let host = host.trim_end_matches('.');
    let is_name = host == "localhost" || host.ends_with(".localhost");
    let v4 = host
        .parse()
        .is_ok_and(|address: Ipv4Addr| address.is_loopback());
    let v6 = host
        .parse()
        .is_ok_and(|address: Ipv6Addr| IpAddr::V6(address).to_canonical().is_loopback());
    is_name || v4 || v6
}

const URL_BYTES_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_by_tls_or_from_this_machine() {
        let accepted = [
            "https://issuer.example/.well-known/jwks.json",
            "https://issuer.example:8443/keys?tenant=a%20b",
            "HTTPS://Issuer.Example",
            "https://[2001:db8::1]/keys",
            "http://localhost/keys",
            "http://auth.localhost:8080/keys",
            "http://127.0.0.1:9000/keys",
            "http://127.8.8.8",
            "http://[::1]:9000/keys",
            "http://[::ffff:127.0.0.1]/keys",
        ];
        for text in accepted {
            assert_eq!(jwks(text), Ok(text.to_owned()));
        }
        let refused = [
            "",
            "issuer.example/keys",
            "ftp://issuer.example/keys",
            "file:///etc/keys.json",
            "https://",
            "https:///keys",
            "https://a b/keys",
            "https://issuer.example/ü",
            "https://issuer.example/keys#first",
            "https://issuer.example:0/keys",
            "https://issuer.example:99999/keys",
            "https://issuer.example:+80/keys",
            "https://issuer.example:/keys",
            "https://[::1/keys",
            "https://[::1]80/keys",
            "https://[example]/keys",
            "http://issuer.example/keys",
            "http://localhost.example/keys",
            "http://127.0.0.1.example/keys",
            "http://128.0.0.1/keys",
            "http://[2001:db8::1]/keys",
            "http://localhost@issuer.example/keys",
            "http://127.0.0.1\\@issuer.example/keys",
        ];
        for text in refused {
            assert!(jwks(text).is_err(), "{text}");
        }
        assert!(jwks(&format!("https://a/{}", "b".repeat(2048))).is_err());
        let problem = jwks("http://issuer.example/keys").unwrap_err();
        assert!(problem.contains("write https://"), "{problem}");
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_repeated() {
        let urls = [
            ("https://me:hunter2@host/keys", "https://***@host/keys"),
            ("https://me:hunt@hunter2@host", "https://***@host"),
            ("https://me:hunt/hunter2@host/", "https://***@host/"),
            ("ftp://hunter2@host", "ftp://***@host"),
        ];
        for (text, shown) in urls {
            assert!(!jwks(text).unwrap_err().contains("hunt"), "{text}");
            assert_eq!(without_user(text), shown);
        }
        for text in ["https://host/keys", "a@b", ""] {
            assert_eq!(without_user(text), text);
        }
    }
}
