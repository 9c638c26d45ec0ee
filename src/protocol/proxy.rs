//! The PROXY protocol, versions 1 and 2: how a proxy that only passes bytes on says for whom it
//! connected, in front of everything else. Sections are those of HAProxy's `proxy-protocol.txt`.
//!
//! Whether a peer is to be believed, and whether it must send this, is for the caller to know;
//! nothing here guesses. The address of destination and the values behind the addresses (TLVs) are
//! skipped.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use memchr::memchr2;
use thiserror::Error;

/// No header of either version is longer than this many bytes.
pub const PREAMBLE_BYTES_MAX: usize = V2_FIXED_BYTES + V2_REST_BYTES_MAX;

/// How much of a header has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preamble {
    /// Not yet all of it: read again with more bytes.
    Incomplete,
    /// The header is these first bytes.
    Complete {
        /// Its length in bytes: what follows belongs to the connection itself.
        length: usize,
        /// For whom the proxy connected. `None` where it does not say (UNKNOWN, AF_UNSPEC), where
        /// there is no address of the Internet (AF_UNIX), or where the proxy speaks for itself
        /// (LOCAL): then the peer's own address counts.
        source: Option<SocketAddr>,
    },
}

/// Why bytes are not a PROXY header. The connection is closed: there is nobody to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProxyError {
    /// They begin like neither version: the peer speaks something else, or sends no header.
    #[error("no PROXY header")]
    Missing,
    /// Section 2.1: the line is none of the forms it may have.
    #[error("malformed PROXY line")]
    MalformedLine,
    /// Section 2.1: the line does not end within 107 bytes.
    #[error("PROXY line too long")]
    LineTooLong,
    /// Section 2.2: the highest four bits of the 13th byte are 2.
    #[error("unknown version of the PROXY header")]
    UnknownVersion,
    /// Section 2.2: the command is LOCAL or PROXY.
    #[error("unknown command in the PROXY header")]
    UnknownCommand,
    /// Section 2.2: other families and transports are rejected as invalid.
    #[error("unknown address family or transport in the PROXY header")]
    UnknownFamily,
    /// The announced length is too short for the addresses that it is to hold.
    #[error("PROXY header too short for its addresses")]
    TooShort,
    /// The announced length is over the limit of this server.
    #[error("PROXY header too long")]
    TooLong,
}

/// Reads the header that a connection begins with; `bytes` are all that came so far.
///
/// # Errors
/// As soon as the bytes can be no header any more, however they go on.
pub fn read(bytes: &[u8]) -> Result<Preamble, ProxyError> {
    if begins(bytes, V2_SIGNATURE) {
        return binary(bytes);
    }
    if begins(bytes, V1_SIGNATURE) {
        return line(bytes);
    }
    Err(ProxyError::Missing)
}

const V1_SIGNATURE: &[u8] = b"PROXY ";
/// Section 2.1: the longest line, with its CRLF.
const V1_BYTES_MAX: usize = 107;
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length of the rest.
const V2_FIXED_BYTES: usize = 16;
/// Two AF_UNIX addresses take 216; certificates' names, identifiers and what clouds add rarely more
/// than as much again.
const V2_REST_BYTES_MAX: usize = 2048;

/// Whether all bytes that came are those of the signature, as far as it goes.
fn begins(bytes: &[u8], signature: &[u8]) -> bool {
    let both = bytes.len().min(signature.len());
    bytes[..both] == signature[..both]
}

/// Section 2.1.
fn line(bytes: &[u8]) -> Result<Preamble, ProxyError> {
    let window = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = memchr2(b'\r', b'\n', window) else {
        return match window.len() {
            V1_BYTES_MAX => Err(ProxyError::LineTooLong),
            _ => Ok(Preamble::Incomplete),
        };
    };
    // A single CR or LF does not end the line.
    match &window[end..] {
        [b'\r', b'\n', ..] => {}
        [b'\r'] if window.len() < V1_BYTES_MAX => return Ok(Preamble::Incomplete),
        [b'\r'] => return Err(ProxyError::LineTooLong),
        _ => return Err(ProxyError::MalformedLine),
    }
    let source = line_source(&window[..end]).ok_or(ProxyError::MalformedLine)?;
    let length = end + 2;
    Ok(Preamble::Complete { length, source })
}

/// The source that a line names, without its CRLF; `None` when it is malformed.
fn line_source(line: &[u8]) -> Option<Option<SocketAddr>> {
    let said = line.strip_prefix(V1_SIGNATURE)?;
    if let Some(rest) = said.strip_prefix(b"UNKNOWN") {
        // Whatever else is on this line is ignored.
        return (rest.is_empty() || rest.starts_with(b" ")).then_some(None);
    }
    // Exactly one space stands between two fields, so more of them make an empty one.
    let mut fields = core::str::from_utf8(said).ok()?.split(' ');
    let mut next = || fields.next();
    let family = next()?;
    let (source, destination) = (next()?, next()?);
    let (source_port, destination_port) = (next()?, next()?);
    if next().is_some() {
        return None;
    }
    let read_address: fn(&str) -> Option<IpAddr> = match family {
        "TCP4" => |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::from),
        "TCP6" => |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        _ => return None,
    };
    read_address(destination)?;
    read_port(destination_port)?;
    let source = SocketAddr::new(read_address(source)?, read_port(source_port)?);
    Some(Some(source))
}

/// Digits without zeros in front.
fn read_port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_plain = text == "0" || !text.starts_with('0');
    let port = text.parse().ok();
    port.filter(|_| is_number && is_plain)
}

/// Section 2.2.
fn binary(bytes: &[u8]) -> Result<Preamble, ProxyError> {
    let Some((fixed, rest)) = bytes.split_at_checked(V2_FIXED_BYTES) else {
        return Ok(Preamble::Incomplete);
    };
    let (version, command) = (fixed[12] >> 4, fixed[12] & 0x0F);
    let (family, transport) = (fixed[13] >> 4, fixed[13] & 0x0F);
    let rest_bytes = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if version != 2 {
        return Err(ProxyError::UnknownVersion);
    }
    if rest_bytes > V2_REST_BYTES_MAX {
        return Err(ProxyError::TooLong);
    }
    let address_bytes = match (command, family, transport) {
        // LOCAL: the whole block is discarded, the family with it.
        (0, _, _) => 0,
        (1, 0..=3, 0) | (1, 0, 1..=2) => 0,
        (1, 1, 1..=2) => 12,
        (1, 2, 1..=2) => 36,
        (1, 3, 1..=2) => 216,
        (1, _, _) => return Err(ProxyError::UnknownFamily),
        _ => return Err(ProxyError::UnknownCommand),
    };
    if rest_bytes < address_bytes {
        return Err(ProxyError::TooShort);
    }
    // No address is read before the block is there.
    let Some(block) = rest.get(..rest_bytes) else {
        return Ok(Preamble::Incomplete);
    };
    let source = match address_bytes {
        12 => source::<4>(block),
        36 => source::<16>(block),
        _ => None,
    };
    let length = V2_FIXED_BYTES + rest_bytes;
    Ok(Preamble::Complete { length, source })
}

/// Source and destination address, source and destination port, in network byte order.
fn source<const BYTES: usize>(block: &[u8]) -> Option<SocketAddr>
where
    IpAddr: From<[u8; BYTES]>,
{
    let address = *block.first_chunk::<BYTES>()?;
    let port = *block.get(2 * BYTES..)?.first_chunk::<2>()?;
    Some(SocketAddr::new(address.into(), u16::from_be_bytes(port)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn complete(length: usize, source: &str) -> Result<Preamble, ProxyError> {
        let source = (!source.is_empty()).then(|| source.parse().unwrap());
        Ok(Preamble::Complete { length, source })
    }

    fn v2(version_command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[version_command, family], &length, block].concat()
    }

    /// 192.0.2.1:258 or 2001:db8::1:258 to some place, and then a TLV.
    fn v4_block() -> Vec<u8> {
        [
            &[192, 0, 2, 1, 10, 0, 0, 1, 1, 2, 1, 187][..],
            b"\x02\x00\x01a",
        ]
        .concat()
    }

    fn v6_block() -> Vec<u8> {
        let source = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        [&source[..], &[9; 16], &[1, 2, 1, 187]].concat()
    }

    fn sound() -> Vec<(Vec<u8>, &'static str)> {
        let longest = format!("PROXY UNKNOWN {}", "f".repeat(91));
        let lines = [
            ("PROXY TCP4 192.0.2.1 10.0.0.1 56324 443", "192.0.2.1:56324"),
            (
                "PROXY TCP4 255.255.255.255 0.0.0.0 65535 0",
                "255.255.255.255:65535",
            ),
            ("PROXY TCP4 192.0.2.1 10.0.0.1 0 0", "192.0.2.1:0"),
            ("PROXY TCP6 2001:DB8::1 ::1 1 2", "[2001:db8::1]:1"),
            (
                "PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2",
                "[::ffff:192.0.2.1]:1",
            ),
            ("PROXY UNKNOWN", ""),
            ("PROXY UNKNOWN ", ""),
            ("PROXY UNKNOWN 192.0.2.1 what ever", ""),
            (&longest, ""),
        ];
        let lines = lines.map(|(line, source)| (format!("{line}\r\n").into_bytes(), source));
        let binaries = [
            (v2(0x21, 0x11, &v4_block()), "192.0.2.1:258"),
            (v2(0x21, 0x11, &v4_block()[..12]), "192.0.2.1:258"),
            (v2(0x21, 0x12, &v4_block()), "192.0.2.1:258"),
            (v2(0x21, 0x21, &v6_block()), "[2001:db8::1]:258"),
            (v2(0x21, 0x22, &v6_block()), "[2001:db8::1]:258"),
            (v2(0x21, 0x31, &[b'/'; 216]), ""),
            (v2(0x21, 0x32, &[b'/'; 216]), ""),
            (v2(0x21, 0x00, &[]), ""),
            (v2(0x21, 0x00, &v4_block()), ""),
            (v2(0x21, 0x10, &v4_block()), ""),
            (v2(0x21, 0x01, &v4_block()), ""),
            (v2(0x20, 0x00, &[]), ""),
            (v2(0x20, 0x11, &v4_block()), ""),
            (v2(0x20, 0xFF, &[7; 3]), ""),
            (v2(0x21, 0x11, &[1; V2_REST_BYTES_MAX]), "1.1.1.1:257"),
        ];
        lines.into_iter().chain(binaries).collect()
    }

    #[test]
    fn a_header_names_its_source_and_its_length_wherever_it_is_cut() {
        for (header, source) in sound() {
            let shown = String::from_utf8_lossy(&header).into_owned();
            for cut in 0..header.len() {
                let result = read(&header[..cut]);
                assert_eq!(result, Ok(Preamble::Incomplete), "{shown:?} cut at {cut}");
            }
            let whole = complete(header.len(), source);
            assert_eq!(read(&header), whole, "{shown:?}");
            for next in ["GET / HTTP/1.1\r\n", "\r\n\r\n", "PROXY UNKNOWN\r\n"] {
                let more = [&header[..], next.as_bytes()].concat();
                assert_eq!(read(&more), whole, "{shown:?}, then {next:?}");
            }
            assert!(header.len() <= PREAMBLE_BYTES_MAX);
        }
    }

    #[test]
    fn a_malformed_line_is_refused() {
        let lines = [
            "PROXY  TCP4 192.0.2.1 10.0.0.1 1 2",
            "PROXY TCP4  192.0.2.1 10.0.0.1 1 2",
            "PROXY TCP4 192.0.2.1 10.0.0.1 1 2 ",
            "PROXY TCP4 192.0.2.1 10.0.0.1 1 2 3",
            "PROXY TCP4 192.0.2.1 10.0.0.1 1",
            "PROXY TCP4 192.0.2.1 10.0.0.1",
            "PROXY TCP4",
            "PROXY ",
            "PROXY tcp4 192.0.2.1 10.0.0.1 1 2",
            "PROXY UDP4 192.0.2.1 10.0.0.1 1 2",
            "PROXY unknown",
            "PROXY UNKNOWNS",
            "PROXY TCP4 2001:db8::1 ::1 1 2",
            "PROXY TCP6 192.0.2.1 10.0.0.1 1 2",
            "PROXY TCP4 192.0.2.1 ::1 1 2",
            "PROXY TCP4 192.0.2.01 10.0.0.1 1 2",
            "PROXY TCP4 192.0.2 10.0.0.1 1 2",
            "PROXY TCP4 192.0.2.256 10.0.0.1 1 2",
            "PROXY TCP6 [::1] ::1 1 2",
            "PROXY TCP6 fe80::1%1 ::1 1 2",
            "PROXY TCP4 192.0.2.1 10.0.0.1 01 2",
            "PROXY TCP4 192.0.2.1 10.0.0.1 1 00",
            "PROXY TCP4 192.0.2.1 10.0.0.1 65536 2",
            "PROXY TCP4 192.0.2.1 10.0.0.1 1 65536",
            "PROXY TCP4 192.0.2.1 10.0.0.1 +1 2",
            "PROXY TCP4 192.0.2.1 10.0.0.1 -1 2",
            "PROXY TCP4 192.0.2.1 10.0.0.1 1 ",
            "PROXY TCP4\t192.0.2.1 10.0.0.1 1 2",
            "PROXY TCP4 192.0.2.1 10.0.0.1 1 2\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r",
            "PROXY TCP4 192.0.2.1 10.0.0.1 1 \u{662}",
        ];
        for line in lines {
            let bytes = format!("{line}\r\n");
            let result = read(bytes.as_bytes());
            assert_eq!(result, Err(ProxyError::MalformedLine), "{line:?}");
        }
        let bytes = b"PROXY TCP4 192.0.2.1 10.0.0.1 1 \xFF\r\n";
        assert_eq!(read(bytes), Err(ProxyError::MalformedLine));
    }

    #[test]
    fn a_line_ends_within_its_limit() {
        let line = |bytes: usize| format!("PROXY UNKNOWN {}\r\n", "f".repeat(bytes - 16));
        assert_eq!(read(line(107).as_bytes()), complete(107, ""));
        assert_eq!(read(line(108).as_bytes()), Err(ProxyError::LineTooLong));
        assert_eq!(read(line(109).as_bytes()), Err(ProxyError::LineTooLong));
        let endless = "PROXY UNKNOWN ".repeat(100);
        assert_eq!(read(endless.as_bytes()), Err(ProxyError::LineTooLong));
        assert_eq!(read(&endless.as_bytes()[..106]), Ok(Preamble::Incomplete));
    }

    #[test]
    fn what_begins_like_no_header_is_none_from_the_first_byte_that_differs() {
        let others: [&[u8]; 7] = [
            b"G",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01",
            b"PROXZ",
            b"PROXY\tTCP4",
            b"\r\n\r\nG",
            b"\r\n\r\n\0\r\nQUIT\r",
        ];
        for bytes in others {
            assert_eq!(read(bytes), Err(ProxyError::Missing), "{bytes:?}");
        }
        assert_eq!(read(b""), Ok(Preamble::Incomplete));
    }

    #[test]
    fn a_malformed_binary_header_is_refused_before_its_block_came() {
        let block = v4_block();
        let cases = [
            (v2(0x11, 0x11, &block), ProxyError::UnknownVersion),
            (v2(0x31, 0x11, &block), ProxyError::UnknownVersion),
            (v2(0x22, 0x11, &block), ProxyError::UnknownCommand),
            (v2(0x2F, 0x00, &block), ProxyError::UnknownCommand),
            (v2(0x21, 0x41, &block), ProxyError::UnknownFamily),
            (v2(0x21, 0x40, &block), ProxyError::UnknownFamily),
            (v2(0x21, 0x13, &block), ProxyError::UnknownFamily),
            (v2(0x21, 0x03, &block), ProxyError::UnknownFamily),
            (v2(0x21, 0x11, &block[..11]), ProxyError::TooShort),
            (v2(0x21, 0x21, &v6_block()[..35]), ProxyError::TooShort),
            (v2(0x21, 0x31, &[0; 215]), ProxyError::TooShort),
            (
                v2(0x21, 0x11, &[0; V2_REST_BYTES_MAX + 1]),
                ProxyError::TooLong,
            ),
            (v2(0x20, 0x00, &[0; 0xFFFF]), ProxyError::TooLong),
        ];
        for (header, error) in cases {
            assert_eq!(read(&header), Err(error));
            assert_eq!(read(&header[..V2_FIXED_BYTES]), Err(error));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered_and_an_answer_stays_however_they_go_on(
            signature in 0usize..3,
            bytes in prop::collection::vec(any::<u8>(), 0..80),
            cut: prop::sample::Index,
        ) {
            let signature = [&b""[..], V1_SIGNATURE, V2_SIGNATURE][signature];
            let bytes = [signature, &bytes].concat();
            let early = read(&bytes[..cut.index(bytes.len() + 1)]);
            if early != Ok(Preamble::Incomplete) {
                prop_assert_eq!(read(&bytes), early);
            }
            if let Ok(Preamble::Complete { length, .. }) = early {
                prop_assert!(length <= bytes.len() && length <= PREAMBLE_BYTES_MAX);
            }
        }

        #[test]
        fn every_source_is_read_as_it_was_written(source: SocketAddr) {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (address, port) = (source.ip(), source.port());
            let line = format!("PROXY {family} {address} {address} {port} 1\r\n");
            let plain = SocketAddr::new(address, port);
            let length = line.len();
            let whole = Ok(Preamble::Complete { length, source: Some(plain) });
            prop_assert_eq!(read(line.as_bytes()), whole);
            let (kind, octets) = match address {
                IpAddr::V4(address) => (0x11, address.octets().to_vec()),
                IpAddr::V6(address) => (0x21, address.octets().to_vec()),
            };
            let block = [&octets, &octets, &port.to_be_bytes()[..], &[0, 1]].concat();
            let header = v2(0x21, kind, &block);
            let length = header.len();
            let whole = Ok(Preamble::Complete { length, source: Some(plain) });
            prop_assert_eq!(read(&header), whole);
        }
    }
}
