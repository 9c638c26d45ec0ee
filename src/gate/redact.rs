//! Request targets as they may be written into a log: without what proves who somebody is.

use std::borrow::Cow;

/// The longest part of a target that a log line shows, in bytes.
const SHOWN_BYTES_MAX: usize = 256;

/// A parameter whose name ends in one of these holds a secret: `token` and `access_token`, `key`
/// and `api_key`, `auth` and `auth_signature`.
const SECRETS: [&str; 7] = [
    "token",
    "jwt",
    "secret",
    "key",
    "auth",
    "signature",
    "password",
];

/// A name may be percent-encoded, once more by each program that passes it on. What is still
/// encoded after as many rounds as these is masked unread.
const DECODE_ROUNDS: usize = 3;

/// The target with the value of every parameter masked that holds a secret: `token=***`. One too
/// long for a log line is cut and ends in `…`.
///
/// Whatever the target is, it errs on the side of masking: names count in any case and encoded, and
/// so do parameters inside the value of another, or inside the path.
pub fn redact(target: &str) -> Cow<'_, str> {
    let mut shown = String::new();
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    push_masked(&mut shown, path);
    let mut separator = '?';
    for parameter in query.into_iter().flat_map(|query| query.split('&')) {
        if shown.len() > SHOWN_BYTES_MAX {
            break;
        }
        shown.push(separator);
        push_masked(&mut shown, parameter);
        separator = '&';
    }
    if shown.len() > SHOWN_BYTES_MAX {
        shown.truncate(shown.floor_char_boundary(SHOWN_BYTES_MAX));
        shown.push('…');
    }
    match shown == target {
        true => Cow::Borrowed(target),
        false => Cow::Owned(shown),
    }
}

/// Pushes a parameter, or the path, up to where it might name a secret's value.
fn push_masked(shown: &mut String, text: &str) {
    let Some(decoded) = decode(text.as_bytes()) else {
        shown.push_str("***");
        return;
    };
    if !holds_secret(&decoded) {
        shown.push_str(text);
        return;
    }
    // The name is shown as it was written, unless a value hides in it behind an encoded `=`. What
    // stands before the first encoded byte hides nothing.
    let hides_value = |name: &str| decode(name.as_bytes()).is_none_or(|name| name.contains(&b'='));
    match text.split_once('=').filter(|(name, _)| !hides_value(name)) {
        Some((name, _)) => shown.extend([name, "="]),
        None => shown.push_str(&text[..text.find('%').unwrap_or(0)]),
    }
    shown.push_str("***");
}

/// Whether the name of a secret and `=` stand anywhere in a decoded text: a value can be a target
/// itself. What follows the last letter of a name does not matter, so `token[]` is one too.
fn holds_secret(decoded: &[u8]) -> bool {
    let mut name_end = 0;
    decoded.iter().enumerate().any(|(at, byte)| {
        if byte.is_ascii_alphabetic() {
            name_end = at + 1;
        }
        *byte == b'=' && names_secret(&decoded[..name_end])
    })
}

fn names_secret(name: &[u8]) -> bool {
    SECRETS.iter().any(|secret| {
        let start = name.len().checked_sub(secret.len());
        start.is_some_and(|start| name[start..].eq_ignore_ascii_case(secret.as_bytes()))
    })
}

/// The text without its percent-encoding (RFC 3986, 2.1), and without that which it hid. `None`
/// when there is no end to it.
fn decode(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut decoded = Cow::Borrowed(text);
    for _ in 0..DECODE_ROUNDS {
        match decode_once(&decoded) {
            Some(next) => decoded = Cow::Owned(next),
            None => return Some(decoded),
        }
    }
    decode_once(&decoded).is_none().then_some(decoded)
}

/// One round; `None` when nothing is encoded.
fn decode_once(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.first_chunk::<2>().filter(|_| *first == b'%');
        let byte = digits.and_then(|digits| Some(hex(digits[0])? << 4 | hex(digits[1])?));
        decoded.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    (decoded.len() < text.len()).then_some(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_of_secrets_are_masked_and_nothing_else_is_touched() {
        let cases = [
            ("/ws", "/ws"),
            ("/ws?", "/ws?"),
            ("/ws?a=b&c", "/ws?a=b&c"),
            ("/ws?token=abc", "/ws?token=***"),
            ("/ws?a=b&token=abc&c=d", "/ws?a=b&token=***&c=d"),
            ("/ws?token=a&token=b", "/ws?token=***&token=***"),
            ("/ws?TOKEN=abc", "/ws?TOKEN=***"),
            ("/ws?token=a=b;c/d?e", "/ws?token=***"),
            ("/ws?token=", "/ws?token=***"),
            ("/ws?token", "/ws?token"),
            ("/ws?jwt=a&secret=b&key=c", "/ws?jwt=***&secret=***&key=***"),
            (
                "/ws?api_key=a&apikey=b&apiKey=c",
                "/ws?api_key=***&apikey=***&apiKey=***",
            ),
            ("/ws?auth=a&access_token=b", "/ws?auth=***&access_token=***"),
            (
                "/ws?auth_signature=a&password=b",
                "/ws?auth_signature=***&password=***",
            ),
            (
                "/ws?client_secret=a&refresh-token=b",
                "/ws?client_secret=***&refresh-token=***",
            ),
            (
                "/ws?token[]=a&token%5B0%5D=b",
                "/ws?token[]=***&token%5B0%5D=***",
            ),
            ("/ws?to%6ben=a&%54OKEN=b", "/ws?to%6ben=***&%54OKEN=***"),
            (
                "/ws?to%256ben=a&%2574oken=b",
                "/ws?to%256ben=***&%2574oken=***",
            ),
            ("/ws?+token=a&token%20=b", "/ws?+token=***&token%20=***"),
            (
                "/ws?tokens=a&keyboard=b&author=c",
                "/ws?tokens=a&keyboard=b&author=c",
            ),
            (
                "/ws?auth_timestamp=1&auth_version=1.0",
                "/ws?auth_timestamp=1&auth_version=1.0",
            ),
            ("/ws?notify_self=1&x=%zz%4", "/ws?notify_self=1&x=%zz%4"),
        ];
        for (target, shown) in cases {
            assert_eq!(redact(target), shown, "{target}");
        }
    }

    #[test]
    fn a_parameter_is_found_wherever_it_hides() {
        let cases = [
            ("/ws?a=b;token=abc", "/ws?a=***"),
            ("/ws?a=b?token=abc", "/ws?a=***"),
            ("/ws?a;token=abc&b", "/ws?a;token=***&b"),
            ("/ws?a=b#token=abc", "/ws?a=***"),
            ("/ws?next=%2Fws%3Ftoken%3Dabc", "/ws?next=***"),
            ("/ws?next=/ws%253Ftoken%253Dabc&b=c", "/ws?next=***&b=c"),
            ("/ws?next%3Dtoken%3Dabc", "/ws?next***"),
            ("/ws?token%3Dabc", "/ws?token***"),
            ("/ws?a%26token=abc", "/ws?a%26token=***"),
            ("/ws?x%3Ftoken%3Dabc%26b=c", "/ws?x***"),
            ("/ws%3Ftoken=abc", "/ws%3Ftoken=***"),
            ("/ws%3Ftoken%3Dabc", "/ws***"),
            ("/ws;token=abc", "/ws;token=***"),
            ("/token=abc/d", "/token=***"),
            ("token=abc", "token=***"),
            ("/ws?a%2525252525=b", "/ws?***"),
        ];
        for (target, shown) in cases {
            assert_eq!(redact(target), shown, "{target}");
        }
    }

    #[test]
    fn a_long_target_is_cut() {
        let path = |bytes: usize| format!("/{}", "a".repeat(bytes - 1));
        assert_eq!(redact(&path(256)), path(256));
        assert_eq!(redact(&path(257)), format!("{}…", path(256)));
        let umlauts = format!("/{}", "\u{fc}".repeat(200));
        let shown = redact(&umlauts);
        assert!(shown.ends_with("\u{fc}…") && shown.len() == 255 + "…".len());
        let many = format!("/?{}token=abc", "a=b&".repeat(2_000));
        assert!(redact(&many).len() < 260);
        let late = format!("{}?token=abc", path(255));
        assert_eq!(redact(&late), format!("{}?…", path(255)));
    }

    #[test]
    fn what_needs_no_change_is_not_copied() {
        assert!(matches!(redact("/ws?a=b"), Cow::Borrowed(_)));
        assert!(matches!(redact("/ws?token=b"), Cow::Owned(_)));
    }

    /// Text with some of its bytes percent-encoded, so many times over.
    fn encoded(text: &str, rounds: u32, which: u64) -> String {
        (0..rounds).fold(text.to_owned(), |text, round| {
            let encode = |(at, byte)| match which.rotate_left(round * 7) >> (at % 64) & 1 {
                0 => char::from(byte).to_string(),
                _ => format!("%{byte:02X}"),
            };
            text.bytes().enumerate().map(encode).collect()
        })
    }

    proptest! {
        #[test]
        fn no_masked_value_gets_through(
            before in "(/|[a-c=&;?#%,. ]){0,8}",
            separator in "[?&;#]",
            prefix in "([a-c]_)?",
            secret in prop::sample::select(&SECRETS[..]),
            upper: bool,
            after in "([a-c=&;?#%,. ]){0,8}",
            rounds in 0u32..6,
            which: u64,
        ) {
            let name = if upper { secret.to_uppercase() } else { secret.to_owned() };
            let hidden = format!("{separator}{prefix}{name}=");
            let hidden = encoded(&hidden, rounds, which);
            let target = format!("/{before}{hidden}XYZ{after}");
            let shown = redact(&target);
            prop_assert!(!shown.contains("XYZ"), "{} became {}", target, shown);
        }

        #[test]
        fn any_target_is_shown_in_a_bounded_line(target in "\\PC{0,300}|[a-z%0-9=&?;]{0,600}") {
            let shown = redact(&target);
            prop_assert!(shown.len() <= SHOWN_BYTES_MAX + "…".len());
            prop_assert_eq!(redact(&shown).into_owned().len(), shown.len());
        }
    }
}
