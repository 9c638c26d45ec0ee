//! For whom a trusted proxy speaks, by the headers it adds: `Forwarded` (RFC 7239) and the older
//! `X-Forwarded-For`, `-Host` and `-Proto`.
//!
//! Each proxy on the way appends whom it was connected by, so the end of a list was written by the
//! nearest one and its beginning by anybody. It is therefore read from the end, for as long as the
//! hops that it names are trusted themselves; the first one that is not is the client. What is said
//! of host and scheme counts at the same hop: there the client itself was asking.

mod grammar;

use core::net::IpAddr;
use std::collections::VecDeque;

use thiserror::Error;

use self::grammar::{Hop, address, from_the_end, is_secure};
use crate::config::Network;

/// More hops than these have no meaning: the last that is looked at counts as the first.
const HOPS_MAX: usize = 32;

/// What a request says of the way it came, header by header, as far as it says it. Headers that
/// came several times are in their order.
#[derive(Clone, Debug, Default)]
pub struct Said<'a> {
    pub x_forwarded_for: Vec<&'a str>,
    pub forwarded: Vec<&'a str>,
    pub x_forwarded_host: Option<&'a str>,
    pub x_forwarded_proto: Option<&'a str>,
}

/// What is to be believed of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forwarded<'a> {
    /// The client's address, never an IPv4 one mapped into IPv6. `None` when nothing is said, or
    /// the proxy does not want to say it (RFC 7239, 6.2 and 6.3).
    pub client: Option<IpAddr>,
    /// The host that the client asked for, as the proxy wrote it: it can be anything.
    pub host: Option<&'a str>,
    /// Whether the client came over TLS.
    pub is_secure: Option<bool>,
}

/// Two headers name different clients, or one cannot be read at all. A proxy passes on what it does
/// not set itself, so one of them may be the client's own invention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("forwarding headers are malformed or disagree")]
pub struct Ambiguous;

/// Reads what a trusted peer says. Never to be asked about any other: all of it can be made up.
///
/// Where both forms are there and differ over host or scheme, neither is believed in that.
///
/// # Errors
/// [`Ambiguous`], for which the request is refused.
pub fn read<'a>(said: &Said<'a>, trusted: &[Network]) -> Result<Forwarded<'a>, Ambiguous> {
    let x_forwarded = read_x_forwarded(said, trusted)?;
    let Some(forwarded) = read_forwarded(&said.forwarded, trusted)? else {
        return Ok(x_forwarded);
    };
    if !is_blank(&said.x_forwarded_for) && forwarded.client != x_forwarded.client {
        return Err(Ambiguous);
    }
    let host = match (forwarded.host, x_forwarded.host) {
        (Some(host), Some(other)) => host.eq_ignore_ascii_case(other).then_some(host),
        (host, other) => host.or(other),
    };
    let is_secure = match (forwarded.is_secure, x_forwarded.is_secure) {
        (Some(is_secure), Some(other)) => (is_secure == other).then_some(is_secure),
        (is_secure, other) => is_secure.or(other),
    };
    Ok(Forwarded {
        client: forwarded.client,
        host,
        is_secure,
    })
}

fn read_x_forwarded<'a>(said: &Said<'a>, trusted: &[Network]) -> Result<Forwarded<'a>, Ambiguous> {
    // A header that is not text reads as this one character. What the proxy wrote at its end is
    // lost with the rest, and to believe nothing would let its sender escape the limits.
    let is_unreadable = |line: &&str| line.contains(char::REPLACEMENT_CHARACTER);
    if said.x_forwarded_for.iter().any(is_unreadable) {
        return Err(Ambiguous);
    }
    let lines = said.x_forwarded_for.iter().rev();
    let nodes = lines.flat_map(|line| from_the_end(line)).map(address);
    let (depth, client) = client(nodes, trusted).unwrap_or_default();
    let at_depth = |list: &'a str| from_the_end(list).take(depth + 1).last();
    Ok(Forwarded {
        client,
        host: said.x_forwarded_host.and_then(at_depth),
        is_secure: said
            .x_forwarded_proto
            .and_then(at_depth)
            .and_then(is_secure),
    })
}

/// `None` when no such header says anything.
fn read_forwarded<'a>(
    lines: &[&'a str],
    trusted: &[Network],
) -> Result<Option<Forwarded<'a>>, Ambiguous> {
    let mut hops = VecDeque::new();
    for line in lines {
        let mut rest = Some(*line);
        while let Some(text) = rest {
            let (hop, after) = Hop::parse(text)?;
            rest = after;
            if hop == Hop::default() {
                continue;
            }
            if hops.len() == HOPS_MAX {
                hops.pop_front();
            }
            hops.push_back(hop);
        }
    }
    let nodes = hops.iter().rev().map(|hop| hop.node.and_then(address));
    let Some((depth, client)) = client(nodes, trusted) else {
        return Ok(None);
    };
    // The proxies in between need not repeat what the first of them said, nor the first say all.
    let believed = || hops.iter().rev().take(depth + 1).rev();
    Ok(Some(Forwarded {
        client,
        host: believed().find_map(|hop| hop.host),
        is_secure: believed().find_map(|hop| hop.proto.and_then(is_secure)),
    }))
}

/// The client among the nodes of a chain, nearest first, and how many hops lie in between. All
/// trusted: the farthest.
fn client(
    nodes: impl Iterator<Item = Option<IpAddr>>,
    trusted: &[Network],
) -> Option<(usize, Option<IpAddr>)> {
    let mut found = None;
    for (depth, node) in nodes.take(HOPS_MAX).enumerate() {
        found = Some((depth, node));
        let is_trusted = |address| trusted.iter().any(|network| network.contains(address));
        if !node.is_some_and(is_trusted) {
            break;
        }
    }
    found
}

/// Whether no line of a list has a member.
fn is_blank(lines: &[&str]) -> bool {
    lines.iter().all(|line| from_the_end(line).next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Client = Result<Option<IpAddr>, Ambiguous>;

    fn trusted() -> Vec<Network> {
        let networks = ["10.0.0.0/8", "fd00::/8"];
        networks.map(|text| Network::parse(text).unwrap()).into()
    }

    fn said<'a>(x_forwarded_for: &[&'a str], forwarded: &[&'a str]) -> Said<'a> {
        Said {
            x_forwarded_for: x_forwarded_for.to_vec(),
            forwarded: forwarded.to_vec(),
            ..Said::default()
        }
    }

    fn client_of(said: &Said<'_>) -> Client {
        read(said, &trusted()).map(|told| told.client)
    }

    fn known(address: &str) -> Client {
        let address = (!address.is_empty()).then(|| address.parse().unwrap());
        Ok(address)
    }

    #[test]
    fn the_client_is_the_nearest_hop_that_is_not_trusted() {
        let cases: [(&[&str], &str); 18] = [
            (&[], ""),
            (&[""], ""),
            (&["192.0.2.1"], "192.0.2.1"),
            (&["1.1.1.1, 192.0.2.1"], "192.0.2.1"),
            (&["1.1.1.1,192.0.2.1 ,\t10.0.0.1"], "192.0.2.1"),
            (&["1.1.1.1", "192.0.2.1", "10.0.0.2, 10.0.0.1"], "192.0.2.1"),
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            (&["10.0.0.3, ::ffff:10.0.0.2"], "10.0.0.3"),
            (&["2001:db8::1, fd00::1"], "2001:db8::1"),
            (&["::ffff:192.0.2.1"], "192.0.2.1"),
            (&["192.0.2.1,, ,10.0.0.1,"], "192.0.2.1"),
            (&["1.1.1.1, unknown"], ""),
            (&["1.1.1.1, _hidden, 10.0.0.1"], ""),
            (&["1.1.1.1, unix:"], ""),
            (&["1.1.1.1, garbage, 10.0.0.1"], ""),
            (&["garbage, 192.0.2.1"], "192.0.2.1"),
            (&["unknown, 10.0.0.1"], ""),
            (&["\"192.0.2.1:80\""], "192.0.2.1"),
        ];
        for (lines, client) in cases {
            let found = client_of(&said(lines, &[]));
            assert_eq!(found, known(client), "{lines:?}");
        }
    }

    #[test]
    fn an_element_of_forwarded_is_pairs_in_any_order_and_case() {
        let cases: [(&[&str], &str); 19] = [
            (&["for=192.0.2.1"], "192.0.2.1"),
            (&["For=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17"),
            (&["for=192.0.2.60;proto=http;by=203.0.113.43"], "192.0.2.60"),
            (&["for=1.1.1.1, for=192.0.2.1"], "192.0.2.1"),
            (&["for=1.1.1.1,for=192.0.2.1", "for=10.0.0.1"], "192.0.2.1"),
            (&["by=\"_a,_b\";FOR=192.0.2.1 , for=10.0.0.1"], "192.0.2.1"),
            (&["x=\"\\\", for=1.1.1.1\"; for=192.0.2.1"], "192.0.2.1"),
            (&["for=192.0.2.1:4711"], "192.0.2.1"),
            (&["for=[2001:db8::1]"], "2001:db8::1"),
            (&[";;for=192.0.2.1;,,"], "192.0.2.1"),
            (&["for=192.0.2.1, for=\"10.0.0.1:80\""], "192.0.2.1"),
            (&["for=10.0.0.2, for=10.0.0.1"], "10.0.0.2"),
            (&["for=1.1.1.1, for=unknown"], ""),
            (&["for=1.1.1.1, for=\"_gazonk\", for=10.0.0.1"], ""),
            (&["for=1.1.1.1, proto=https"], ""),
            (&["for=1.1.1.1, for=\"\""], ""),
            (&["proto=https"], ""),
            (&[", ;"], ""),
            (&[], ""),
        ];
        for (lines, client) in cases {
            let found = client_of(&said(&[], lines));
            assert_eq!(found, known(client), "{lines:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let malformed: [&[&str]; 14] = [
            &["for"],
            &["for="],
            &["for=;proto=http"],
            &["=192.0.2.1"],
            &["for 192.0.2.1"],
            &["for= 192.0.2.1"],
            &["for=192.0.2.1 for=1.1.1.1"],
            &["for=192.0.2.1;for=1.1.1.1"],
            &["for=\"192.0.2.1"],
            &["for=\"192.0.2.1\"x"],
            &["for=\"192.0.2.1\\\""],
            &["for=192.0.2.1\""],
            &["garbage!?, for=192.0.2.1"],
            &["\u{fffd}"],
        ];
        for lines in malformed {
            assert_eq!(client_of(&said(&[], lines)), Err(Ambiguous), "{lines:?}");
        }
        for lines in [&["\u{fffd}"][..], &["192.0.2.1", "\u{fffd}, 10.0.0.1"]] {
            assert_eq!(client_of(&said(lines, &[])), Err(Ambiguous), "{lines:?}");
        }
    }

    #[test]
    fn an_open_quote_cannot_swallow_what_the_proxy_appends() {
        let openings = [
            "for=\"1.1.1.1",
            "for=1.1.1.1, x=\"",
            "for=1.1.1.1;x=\"\\",
            "for=1.1.1.1, for=\"10.0.0.1\";x=\"",
        ];
        let appended = [
            "for=192.0.2.1",
            "for=\"192.0.2.1:80\"",
            "for=\"[2001:db8::1]\";proto=https",
            "proto=https;host=\"a.example\";for=192.0.2.1",
        ];
        for opening in openings {
            for own in appended {
                let line = format!("{opening}, {own}");
                assert_eq!(client_of(&said(&[], &[&line])), Err(Ambiguous), "{line}");
            }
        }
    }

    #[test]
    fn both_headers_name_the_same_client_or_the_request_is_refused() {
        let cases: [(&[&str], &[&str], Client); 9] = [
            (&["192.0.2.1"], &["for=192.0.2.1"], known("192.0.2.1")),
            (
                &["192.0.2.1"],
                &["for=1.1.1.1, for=\"192.0.2.1:1\""],
                known("192.0.2.1"),
            ),
            (&["192.0.2.1"], &["for=1.1.1.1"], Err(Ambiguous)),
            (&["192.0.2.1"], &["for=unknown"], Err(Ambiguous)),
            (&["192.0.2.1"], &["proto=https"], Err(Ambiguous)),
            (&["unknown"], &["for=192.0.2.1"], Err(Ambiguous)),
            (&["unknown"], &["for=_hidden"], known("")),
            (&["192.0.2.1"], &[" , "], known("192.0.2.1")),
            (&[" , "], &["for=192.0.2.1"], known("192.0.2.1")),
        ];
        for (x_forwarded_for, forwarded, client) in cases {
            let said = said(x_forwarded_for, forwarded);
            assert_eq!(client_of(&said), client, "{said:?}");
        }
    }

    #[test]
    fn host_and_scheme_count_where_the_client_was_asking() {
        let x_cases = [
            (
                "192.0.2.1",
                "a.example",
                "https",
                Some("a.example"),
                Some(true),
            ),
            ("", "a.example", "http", Some("a.example"), Some(false)),
            (
                "192.0.2.1",
                "evil, a.example",
                "https, http",
                Some("a.example"),
                Some(false),
            ),
            (
                "192.0.2.1, 10.0.0.1",
                "a.example, inner",
                "WSS,ws",
                Some("a.example"),
                Some(true),
            ),
            (
                "192.0.2.1, 10.0.0.1",
                "a.example",
                "https",
                Some("a.example"),
                Some(true),
            ),
            (
                "1.1.1.1, 192.0.2.1, 10.0.0.1",
                "evil, a, b",
                "x, y, z",
                Some("a"),
                None,
            ),
            ("192.0.2.1", " , ", "", None, None),
        ];
        for (list, asked, proto, host, is_secure) in x_cases {
            let said = Said {
                x_forwarded_host: Some(asked),
                x_forwarded_proto: Some(proto),
                ..said(&[list], &[])
            };
            let told = read(&said, &trusted()).unwrap();
            assert_eq!((told.host, told.is_secure), (host, is_secure), "{said:?}");
        }
        let cases = [
            (
                "for=192.0.2.1;host=a.example;proto=https",
                Some("a.example"),
                Some(true),
            ),
            (
                "host=\"a.example:8080\";proto=HTTP",
                Some("a.example:8080"),
                Some(false),
            ),
            ("host=evil, for=192.0.2.1;proto=https", None, Some(true)),
            (
                "for=192.0.2.1;host=a;proto=https,for=10.0.0.1;host=b;proto=http",
                Some("a"),
                Some(true),
            ),
            (
                "host=evil,for=192.0.2.1,for=10.0.0.1;host=b;proto=http",
                Some("b"),
                Some(false),
            ),
        ];
        for (line, host, is_secure) in cases {
            let told = read(&said(&[], &[line]), &trusted()).unwrap();
            assert_eq!((told.host, told.is_secure), (host, is_secure), "{line}");
        }
    }

    #[test]
    fn where_both_differ_over_host_or_scheme_neither_is_believed() {
        let said = |x_forwarded_host, x_forwarded_proto| Said {
            x_forwarded_host,
            x_forwarded_proto,
            ..said(
                &["192.0.2.1"],
                &["for=192.0.2.1;host=a.example;proto=https"],
            )
        };
        let cases = [
            (
                Some("A.example"),
                Some("https"),
                Some("a.example"),
                Some(true),
            ),
            (Some("b.example"), Some("http"), None, None),
            (None, None, Some("a.example"), Some(true)),
            (None, Some("ftp"), Some("a.example"), Some(true)),
        ];
        for (x_host, x_proto, host, is_secure) in cases {
            let told = read(&said(x_host, x_proto), &trusted()).unwrap();
            assert_eq!(
                (told.host, told.is_secure),
                (host, is_secure),
                "{x_host:?} {x_proto:?}"
            );
        }
    }

    #[test]
    fn only_so_many_hops_are_looked_at() {
        let chain = |hops: usize, before: &str| {
            let hops: Vec<_> = (1..=hops)
                .rev()
                .map(|hop| format!("{before}10.0.0.{hop}"))
                .collect();
            format!("{before}192.0.2.1, {}", hops.join(", "))
        };
        let last = format!("10.0.0.{HOPS_MAX}");
        for (hops, client) in [(HOPS_MAX - 1, "192.0.2.1"), (HOPS_MAX, &last), (200, &last)] {
            let x_forwarded_for = chain(hops, "");
            let forwarded = chain(hops, "for=");
            let found = client_of(&said(&[&x_forwarded_for], &[&forwarded]));
            assert_eq!(found, known(client), "{hops}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_client_sends_first_the_proxy_names_it(
            before in prop::collection::vec(
                "[\\t -~]{0,24}|(for=|10[.]0[.]0[.]1|[\"\\\\;,= ]){0,8}",
                0..4,
            ),
            is_one_line: bool,
        ) {
            let append = |own: &str| -> Vec<String> {
                let mut lines = before.clone();
                match lines.last_mut().filter(|_| is_one_line) {
                    Some(last) => last.push_str(&format!(", {own}")),
                    None => lines.push(own.to_owned()),
                }
                lines
            };
            let lines = append("192.0.2.1");
            let x_forwarded_for: Vec<_> = lines.iter().map(String::as_str).collect();
            prop_assert_eq!(client_of(&said(&x_forwarded_for, &[])), known("192.0.2.1"));
            for own in ["for=192.0.2.1", "for=\"192.0.2.1:80\";proto=https"] {
                let lines = append(own);
                let forwarded: Vec<_> = lines.iter().map(String::as_str).collect();
                let found = client_of(&said(&[], &forwarded));
                prop_assert!(found == known("192.0.2.1") || found == Err(Ambiguous), "{:?}", found);
            }
        }

        #[test]
        fn any_headers_are_answered(
            x_forwarded_for in "\\PC{0,40}",
            forwarded in "\\PC{0,40}|(for=|host=|[a-z0-9.:\"\\\\;,=\\[\\] ]){0,20}",
            x_host in "\\PC{0,10}",
        ) {
            let said = Said {
                x_forwarded_host: Some(&x_host),
                x_forwarded_proto: Some(&x_host),
                ..said(&[&x_forwarded_for], &[&forwarded])
            };
            if let Ok(told) = read(&said, &trusted()) {
                let client = told.client.map(|client| client.to_canonical());
                prop_assert_eq!(told.client, client);
            }
        }
    }
}
