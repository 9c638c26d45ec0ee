//! An IP network, as an operator names it: an address alone, or with the length of its prefix.

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network of IP addresses (RFC 4632, 3.1; RFC 4291, 2.3). An IPv4 address and the same one
/// mapped into IPv6 (RFC 4291, 2.5.5.2) are one and the same, here and in [`Network::contains`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    /// The first address: no bit is set behind the prefix, and it is never a mapped one.
    first: IpAddr,
    prefix_bits: u8,
}

impl Network {
    /// Reads `10.0.0.0/8`, `2001:db8::/32`, or an address alone for the network of that one.
    ///
    /// # Errors
    /// A phrase that follows the text, with the way to write it: the text is no address, the
    /// prefix is too long, or bits are set behind it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().map_err(|_| {
            format!(
                "{address:?} is not an IP address, write 10.0.0.7 or ::1 for one address, \
                 10.0.0.0/8 or fd00::/8 for a network; names are not looked up"
            )
        })?;
        let address = written.to_canonical();
        let bits = bits(address);
        // The 96 bits that say "mapped" are part of a prefix written for the IPv6 form.
        let mapped_bits = if address == written { 0 } else { 96 };
        let prefix_bits = match prefix {
            None => bits,
            Some(prefix) => read_prefix(prefix)
                .and_then(|prefix| prefix.checked_sub(mapped_bits))
                .filter(|prefix| *prefix <= bits)
                .ok_or_else(|| {
                    let (least, most) = (mapped_bits, mapped_bits + bits);
                    format!(
                        "{prefix:?} is not the length of a prefix of {written}, write a number \
                         from {least} to {most}"
                    )
                })?,
        };
        let network = Self {
            first: first_of(address, prefix_bits),
            prefix_bits,
        };
        if network.first != address {
            return Err(format!(
                "bits are set behind the prefix, write {network} for the network or {address} for \
                 the one address"
            ));
        }
        Ok(network)
    }

    /// Whether the address lies in this network. Those of the other family never do.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.first.is_ipv4()
            && first_of(address, self.prefix_bits) == self.first
    }

    /// Whether this network is all of IPv4 or all of IPv6.
    pub fn is_everything(&self) -> bool {
        self.prefix_bits == 0
    }
}

impl Display for Network {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.prefix_bits == bits(self.first) {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}/{}", self.first, self.prefix_bits)
        }
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Digits only: `u8` by itself would also take a sign.
fn read_prefix(text: &str) -> Option<u8> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// The address without the bits behind the prefix.
fn first_of(address: IpAddr, prefix_bits: u8) -> IpAddr {
    let prefix_bits = u32::from(prefix_bits);
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - prefix_bits).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - prefix_bits).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn contains(network: &str, address: &str) -> bool {
        let network = Network::parse(network).unwrap();
        network.contains(address.parse().unwrap())
    }

    #[test]
    fn what_is_shown_is_read_as_the_same_network() {
        let networks = [
            ("10.0.0.7", "10.0.0.7"),
            ("10.0.0.7/32", "10.0.0.7"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::1", "::1"),
            ("::1/128", "::1"),
            ("2001:DB8:0::/32", "2001:db8::/32"),
            ("::/0", "::/0"),
            ("::ffff:10.0.0.7", "10.0.0.7"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
        ];
        for (text, shown) in networks {
            let network = Network::parse(text).unwrap();
            assert_eq!(network.to_string(), shown, "{text}");
            assert_eq!(Network::parse(shown), Ok(network), "{text}");
        }
    }

    #[test]
    fn a_network_ends_where_its_prefix_says() {
        let cases = [
            ("10.0.0.0/8", "10.255.255.255", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "9.255.255.255", false),
            ("192.168.4.0/22", "192.168.7.255", true),
            ("192.168.4.0/22", "192.168.8.0", false),
            ("10.0.0.7", "10.0.0.7", true),
            ("10.0.0.7", "10.0.0.6", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("2001:db8::/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
            ("::/0", "2001:db8::1", true),
        ];
        for (network, address, is_in) in cases {
            assert_eq!(contains(network, address), is_in, "{address} in {network}");
        }
    }

    #[test]
    fn a_mapped_address_counts_as_ipv4() {
        assert!(contains("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(contains("::ffff:10.0.0.0/104", "10.1.2.3"));
        assert!(!contains("::/0", "::ffff:10.1.2.3"));
        assert!(!contains("::/0", "10.1.2.3"));
        assert!(
            !contains("0.0.0.0/0", "::10.1.2.3"),
            "compatible, not mapped"
        );
        assert!(!contains("0.0.0.0/0", "::1"));
    }

    #[test]
    fn all_of_a_family_is_everything() {
        for (text, is_everything) in [
            ("0.0.0.0/0", true),
            ("::/0", true),
            ("::ffff:0:0/96", true),
            ("0.0.0.0/1", false),
            ("0.0.0.0", false),
            ("::", false),
        ] {
            let network = Network::parse(text).unwrap();
            assert_eq!(network.is_everything(), is_everything, "{text}");
        }
    }

    #[test]
    fn a_mistake_is_answered_with_the_way_to_write_it() {
        let mistakes = [
            ("", "10.0.0.0/8"),
            ("proxy.example", "names are not looked up"),
            ("10.0.0.1:80", "10.0.0.0/8"),
            ("[::1]", "::1"),
            ("fe80::1%eth0", "fd00::/8"),
            ("10.0.0", "10.0.0.0/8"),
            ("10.0.0.0/", "from 0 to 32"),
            ("10.0.0.0/33", "from 0 to 32"),
            ("10.0.0.0/+8", "from 0 to 32"),
            ("10.0.0.0/-1", "from 0 to 32"),
            ("10.0.0.0/8/8", "from 0 to 32"),
            ("10.0.0.0/255.0.0.0", "from 0 to 32"),
            ("fd00::/129", "from 0 to 128"),
            ("::ffff:10.0.0.0/8", "from 96 to 128"),
            ("10.1.2.3/8", "write 10.0.0.0/8 for the network or 10.1.2.3"),
            ("fd00::1/8", "write fd00::/8 for the network or fd00::1"),
        ];
        for (text, remedy) in mistakes {
            let problem = Network::parse(text).unwrap_err();
            assert!(problem.contains(remedy), "{text}: {problem}");
        }
    }

    proptest! {
        #[test]
        fn an_address_is_in_exactly_the_networks_that_share_its_first_bits(
            address: u128, other: u128, prefix_bits in 0u8..=128, is_ipv4: bool,
        ) {
            let bits = if is_ipv4 { 32 } else { 128 };
            let prefix_bits = prefix_bits.min(bits);
            let ip = |number: u128| match is_ipv4 {
                true => IpAddr::from(Ipv4Addr::from_bits(number as u32)),
                false => IpAddr::from(Ipv6Addr::from_bits(number)),
            };
            // A mapped address would change its family.
            prop_assume!(ip(address).to_canonical() == ip(address));
            prop_assume!(ip(other).to_canonical() == ip(other));
            let first = first_of(ip(address), prefix_bits);
            prop_assume!(first.to_canonical() == first);
            let network = Network::parse(&format!("{first}/{prefix_bits}")).unwrap();
            let binary = |number: u128| match is_ipv4 {
                true => format!("{:032b}", number as u32),
                false => format!("{number:0128b}"),
            };
            let shares = |number: u128| {
                binary(number)[..usize::from(prefix_bits)]
                    == binary(address)[..usize::from(prefix_bits)]
            };
            // The given one, one that differs in a single bit, and any other.
            let near = address ^ (1 << (other % u128::from(bits)));
            prop_assert!(network.contains(ip(address)));
            prop_assert_eq!(network.contains(ip(other)), shares(other));
            if ip(near).to_canonical() == ip(near) {
                prop_assert_eq!(network.contains(ip(near)), shares(near));
            }
        }
    }
}
