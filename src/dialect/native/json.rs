//! JSON without a tree: texts are appended, values are passed on as they came.

use base64::{Engine, engine::general_purpose::STANDARD};
use memchr::memchr2;
use serde::de::IgnoredAny;
use tungstenite::Utf8Bytes;

use crate::handler::Payload;

/// Objects and arrays within each other that a payload may have. Its receivers parse it, and the
/// parsers of some give up, with their connection, not far above.
pub const DEPTH_MAX: usize = 128;

/// A payload that nests deeper than [`DEPTH_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooDeep;

/// Makes a payload of one valid value: the same text, but for line breaks, which part the commands
/// and replies of one frame and therefore must not be in it.
pub fn payload(value: &str) -> Result<Payload, TooDeep> {
    let survey = Survey::of(value);
    if survey.depth > DEPTH_MAX {
        return Err(TooDeep);
    }
    Ok(Payload::Json(match survey.has_breaks {
        true => Utf8Bytes::from(in_one_line(value)),
        false => Utf8Bytes::from(value),
    }))
}

/// Appends a payload as a value: JSON as it is, other text and bytes (in base64) as a string.
pub fn push_payload(out: &mut String, payload: &Payload) {
    match payload {
        Payload::Json(value) => out.push_str(value),
        Payload::Text(text) => push_text(out, text),
        Payload::Binary(bytes) => {
            out.push('"');
            STANDARD.encode_string(bytes, out);
            out.push('"');
        }
    }
}

/// Appends a text that may be a value itself, or else becomes a string.
fn push_text(out: &mut String, text: &str) {
    let is_value = serde_json::from_str::<IgnoredAny>(text).is_ok();
    let survey = Survey::of(text);
    match (is_value && survey.depth <= DEPTH_MAX, survey.has_breaks) {
        (true, false) => out.push_str(text.trim_ascii()),
        (true, true) => out.push_str(in_one_line(text).trim_ascii()),
        (false, _) => push_string(out, text),
    }
}

/// Appends a text as a string.
#[inline]
pub fn push_string(out: &mut String, text: &str) {
    // RFC 8259, 7: what must be escaped.
    let is_plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if text.bytes().all(is_plain) {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::Value::from(text).to_string());
    }
}

/// RFC 8259, 2: in a valid value, a line break stands between tokens, where a space may stand too.
fn in_one_line(value: &str) -> String {
    value.replace(['\n', '\r'], " ")
}

/// What is to be known of a value before it is passed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Survey {
    depth: usize,
    has_breaks: bool,
}

impl Survey {
    /// Looks over a value. Of what is no value it says something, too, but nothing of use.
    fn of(value: &str) -> Self {
        let bytes = value.as_bytes();
        let mut survey = Self::default();
        let (mut at, mut depth) = (0, 0_usize);
        while let Some(&byte) = bytes.get(at) {
            at += 1;
            match byte {
                b'"' => at = string_end(bytes, at),
                b'[' | b'{' => {
                    depth += 1;
                    survey.depth = survey.depth.max(depth);
                }
                b']' | b'}' => depth = depth.saturating_sub(1),
                b'\n' | b'\r' => survey.has_breaks = true,
                _ => {}
            }
        }
        survey
    }
}

/// Where it goes on behind a string that begins before `at`.
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += found;
        if bytes[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn pushed(payload: &Payload) -> String {
        let mut out = String::new();
        push_payload(&mut out, payload);
        out
    }

    #[test]
    fn a_value_is_passed_on_as_it_is_but_in_one_line() {
        for (value, expected) in [
            (r#"{"a":[1,2]}"#, r#"{"a":[1,2]}"#),
            ("{\r\n\"a\"\n:1}", "{  \"a\" :1}"),
            (r#""\n[[[[""#, r#""\n[[[[""#),
            ("null", "null"),
        ] {
            assert_eq!(payload(value), Ok(Payload::Json(expected.into())));
        }
    }

    #[test]
    fn a_payload_may_nest_so_deep_and_no_deeper() {
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(payload(&nested(DEPTH_MAX)).is_ok());
        assert_eq!(payload(&nested(DEPTH_MAX + 1)), Err(TooDeep));
        let text = Payload::Text(nested(DEPTH_MAX + 1).into());
        assert!(pushed(&text).starts_with("\"[["));
        assert!(payload(&format!("[{}]", vec!["[]"; 500].join(","))).is_ok());
    }

    #[test]
    fn text_and_bytes_become_values() {
        for (text, value) in [
            ("hello", json!("hello")),
            ("7", json!(7)),
            (" {\"a\":\n1} ", json!({"a": 1})),
            ("{\"a\":", json!("{\"a\":")),
            ("two\nlines \"quoted\"", json!("two\nlines \"quoted\"")),
            ("", json!("")),
        ] {
            let pushed = pushed(&Payload::Text(text.into()));
            assert!(!pushed.contains(['\n', '\r']), "{pushed}");
            assert_eq!(serde_json::from_str::<Value>(&pushed).unwrap(), value);
        }
        let bytes = Payload::Binary(Bytes::from_static(&[0, 255, 16]));
        assert_eq!(pushed(&bytes), r#""AP8Q""#);
    }

    proptest! {
        #[test]
        fn whatever_the_text_one_value_in_one_line_comes_out(
            text in prop_oneof![any::<String>(), r#"[\[\]{}",:\\\n\r a1]{0,20}"#],
        ) {
            let pushed = pushed(&Payload::Text(text.as_str().into()));
            prop_assert!(!pushed.contains(['\n', '\r']));
            let value: Value = serde_json::from_str(&pushed).unwrap();
            let is_same = serde_json::from_str::<Value>(&text).is_ok_and(|same| same == value);
            prop_assert!(is_same || value == text.as_str());
        }

        #[test]
        fn a_string_is_the_text_again(text in any::<String>()) {
            let mut out = String::new();
            push_string(&mut out, &text);
            prop_assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
        }
    }
}
