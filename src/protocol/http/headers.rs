//! Header lines read in place, and the two pieces of grammar that most of them share: tokens
//! (RFC 9110, 5.6.2) and comma-separated lists (5.6.1).

use memchr::memchr;

/// The headers of a head, in the order of arrival, read from the bytes they came in: no
/// allocation, and as cheap to copy as a slice.
///
/// A value is text. One that is not UTF-8 reads as U+FFFD, so that it is never mistaken for an
/// absent one and never equals anything that is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    lines: &'a [u8],
}

impl<'a> Headers<'a> {
    /// The headers of a whole head: what follows its request or status line.
    pub(in crate::protocol) fn of_head(head: &'a [u8]) -> Headers<'a> {
        let first = head
            .iter()
            .take_while(|byte| matches!(byte, b'\r' | b'\n'))
            .count();
        let lines = match memchr(b'\n', &head[first..]) {
            Some(feed) => &head[first + feed + 1..],
            None => &[],
        };
        Headers { lines }
    }

    /// The first value of this name, in any case.
    pub fn first(&self, name: &str) -> Option<&'a str> {
        self.named(name).next()
    }

    /// Every value of this name, in any case.
    pub fn named<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        Lines { rest: self.lines }
            .filter(move |(found, _)| found.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| text(value))
    }

    /// Every name, as the peer wrote it, with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        Lines { rest: self.lines }.map(|(name, value)| (text(name), text(value)))
    }
}

/// The members of a comma-separated list, without the white space around them; empty ones are
/// skipped, as RFC 9110, 5.6.1.2 asks.
pub(in crate::protocol) fn members(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

/// Whether these bytes are a token: at least one character, none a separator.
pub(in crate::protocol) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_token_byte(*byte))
}

/// RFC 9110, 5.6.2: `tchar`.
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The lines up to the empty one, split at the colon. A line without one ends the iteration; a
/// head that was parsed has none.
struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let feed = memchr(b'\n', self.rest)?;
        let line = &self.rest[..feed];
        let colon = memchr(b':', line)?;
        self.rest = &self.rest[feed + 1..];
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or("\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"\r\nGET / HTTP/1.1\r\nHost: a\r\ncookie:  b; c=d:e \r\nX-Empty:\r\n\
        COOKIE: f\r\nX-Latin: \xe9\r\n\r\nnot: a header\r\n";

    #[test]
    fn headers_are_found_in_any_case_and_in_order() {
        let headers = Headers::of_head(HEAD);
        assert_eq!(headers.first("host"), Some("a"));
        assert_eq!(
            headers.named("Cookie").collect::<Vec<_>>(),
            ["b; c=d:e", "f"]
        );
        assert_eq!(headers.first("x-empty"), Some(""));
        assert_eq!(headers.first("not"), None);
        assert_eq!(
            headers.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            ["Host", "cookie", "X-Empty", "COOKIE", "X-Latin"]
        );
    }

    #[test]
    fn a_value_that_is_no_text_is_present_but_equals_nothing() {
        assert_eq!(Headers::of_head(HEAD).first("x-latin"), Some("\u{fffd}"));
    }

    #[test]
    fn a_head_without_lines_has_no_headers() {
        for head in [
            &b""[..],
            b"\r\n",
            b"GET / HTTP/1.1",
            b"GET / HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(Headers::of_head(head).iter().count(), 0);
        }
    }

    #[test]
    fn lists_skip_white_space_and_empty_members() {
        let list: Vec<&[u8]> = members(b" a,, b\t, ,c d ").collect();
        assert_eq!(list, [&b"a"[..], b"b", b"c d"]);
        assert_eq!(members(b" , ").count(), 0);
    }
}
