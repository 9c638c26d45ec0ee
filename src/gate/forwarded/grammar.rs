//! How the headers of a proxy are written: the elements of `Forwarded` (RFC 7239, 4), the nodes
//! that they name (6), and the lists of the older headers, which nobody ever specified.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Ambiguous;

/// One element of `Forwarded`: what one proxy says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hop<'a> {
    pub(super) node: Option<&'a str>,
    pub(super) host: Option<&'a str>,
    pub(super) proto: Option<&'a str>,
    /// Whether it says anything at all, be it something that is of no interest here.
    is_there: bool,
}

impl<'a> Hop<'a> {
    /// Reads the first element, and gives what follows its comma: as RFC 7239, 4 has it, and with
    /// white space around the separators or characters in a value that should stand in quotes,
    /// since both are seen. All else is malformed. A quote that a client leaves open swallows what
    /// the proxy appends, and then either none closes it, or one that this may not follow.
    pub(super) fn parse(text: &'a str) -> Result<(Self, Option<&'a str>), Ambiguous> {
        let mut hop = Self::default();
        let mut rest = text;
        loop {
            rest = rest.trim_start_matches(is_space);
            let name_end = rest.find(|c| !is_token(c)).unwrap_or(rest.len());
            let (name, after) = rest.split_at(name_end);
            rest = after;
            if !name.is_empty() {
                let (value, after) = split_value(after.strip_prefix('=').ok_or(Ambiguous)?)?;
                hop.meet(name, value)?;
                rest = after.trim_start_matches(is_space);
            }
            match rest.chars().next() {
                None => return Ok((hop, None)),
                Some(',') => return Ok((hop, Some(&rest[1..]))),
                Some(';') => rest = &rest[1..],
                Some(_) => return Err(Ambiguous),
            }
        }
    }

    fn meet(&mut self, name: &str, value: &'a str) -> Result<(), Ambiguous> {
        self.is_there = true;
        let field = match name {
            _ if name.eq_ignore_ascii_case("for") => &mut self.node,
            _ if name.eq_ignore_ascii_case("host") => &mut self.host,
            _ if name.eq_ignore_ascii_case("proto") => &mut self.proto,
            _ => return Ok(()),
        };
        // RFC 7239, 4: each parameter at most once.
        match field.replace(value) {
            None => Ok(()),
            Some(_) => Err(Ambiguous),
        }
    }
}

/// A value and what follows it. Escapes in quotes are left as they are: neither an address nor a
/// host needs one.
fn split_value(text: &str) -> Result<(&str, &str), Ambiguous> {
    let Some(quoted) = text.strip_prefix('"') else {
        let ends = |c| is_space(c) || matches!(c, ';' | ',' | '"');
        return match text.split_at(text.find(ends).unwrap_or(text.len())) {
            ("", _) => Err(Ambiguous),
            split => Ok(split),
        };
    };
    let mut is_escaped = false;
    let end = quoted.find(|c| {
        let ends = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        ends
    });
    let end = end.ok_or(Ambiguous)?;
    Ok((&quoted[..end], &quoted[end + 1..]))
}

/// RFC 7239, 6, and the same without brackets, which `X-Forwarded-For` leaves out: an address with
/// or without a port. All else, `unknown` and `_names` above all, is none.
pub(super) fn address(node: &str) -> Option<IpAddr> {
    if let Ok(address) = node.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (address, port) = match node.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            let address: IpAddr = address.parse::<Ipv6Addr>().ok()?.into();
            (address, port)
        }
        None => {
            let (address, port) = node.split_at(node.find(':')?);
            let address: IpAddr = address.parse::<Ipv4Addr>().ok()?.into();
            (address, port)
        }
    };
    let is_sound = |port: &str| !port.is_empty() && port.chars().all(is_token);
    let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_sound);
    is_port.then(|| address.to_canonical())
}

/// Whether a scheme is that of TLS.
pub(super) fn is_secure(scheme: &str) -> Option<bool> {
    let is = |known: &&str| known.eq_ignore_ascii_case(scheme);
    match scheme {
        _ if ["https", "wss"].iter().any(is) => Some(true),
        _ if ["http", "ws"].iter().any(is) => Some(false),
        _ => None,
    }
}

/// The members of a list, last one first; empty ones do not count (RFC 9110, 5.6.1.2).
pub(super) fn from_the_end(list: &str) -> impl Iterator<Item = &str> {
    list.rsplit(',')
        .map(unquoted)
        .filter(|member| !member.is_empty())
}

fn unquoted(member: &str) -> &str {
    let member = member.trim_matches(is_space);
    let rest = member.strip_prefix('"');
    rest.and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(member)
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

/// RFC 9110, 5.6.2.
fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_an_address_with_or_without_port_and_brackets() {
        let cases = [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:4711", "192.0.2.1"),
            ("192.0.2.1:_port", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:DB8::1]:4711", "2001:db8::1"),
            ("[::ffff:192.0.2.1]:1", "192.0.2.1"),
            ("192.0.2.1:", ""),
            ("192.0.2.1:1:2", ""),
            ("192.0.2.1 :1", ""),
            ("192.0.2.01", ""),
            ("192.0.2", ""),
            ("[192.0.2.1]", ""),
            ("[2001:db8::1", ""),
            ("[2001:db8::1]4711", ""),
            ("[2001:db8::1]:", ""),
            ("2001:db8::1%eth0", ""),
            ("unknown", ""),
            ("unknown:80", ""),
            ("_gazonk", ""),
            ("a.example", ""),
            ("", ""),
        ];
        for (node, client) in cases {
            let client = (!client.is_empty()).then(|| client.parse().unwrap());
            assert_eq!(address(node), client, "{node}");
        }
    }

    #[test]
    fn an_element_ends_at_its_comma_and_a_value_at_its_quote() {
        let text = "for=a;host=\"b,\\\";c\" ; secret=\"x\",for=d";
        let (hop, after) = Hop::parse(text).unwrap();
        assert_eq!((hop.node, hop.host), (Some("a"), Some("b,\\\";c")));
        assert_eq!((hop.proto, after), (None, Some("for=d")));
        let (hop, after) = Hop::parse(" ;, for=d").unwrap();
        assert_eq!((hop, after), (Hop::default(), Some(" for=d")));
        assert_eq!(Hop::parse("").unwrap(), (Hop::default(), None));
    }

    #[test]
    fn a_list_is_read_from_its_end_without_spaces_quotes_and_empty_members() {
        let members: Vec<_> = from_the_end(" a b,\"c\",,\t d \t, \"e, ").collect();
        assert_eq!(members, ["\"e", "d", "c", "a b"]);
    }
}
