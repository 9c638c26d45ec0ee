//! Reading the body of a call: its fields as they were written, each looked at when it is asked
//! for.
//!
//! Fields that no method knows are ignored, so that newer clients can talk to this server. One that
//! is known has to have the right type; `null` counts as absent, but for `data`.

use std::{borrow::Cow, fmt};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use tungstenite::Utf8Bytes;

use super::fault::Fault;
use crate::{
    dialect::native::json::{self, DEPTH_MAX, push_string},
    handler::Payload,
};

/// An object of JSON: a body, or an object in one.
#[derive(Clone, Copy, Debug)]
pub struct Body<'a>([Option<&'a RawValue>; Field::COUNT]);

/// The fields that methods know, by their places in [`Body`].
macro_rules! fields {
    ($($field:ident $name:literal)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Field { $($field),* }

        impl Field {
            const COUNT: usize = [$($name),*].len();

            pub fn name(self) -> &'static str {
                match self { $(Self::$field => $name),* }
            }

            fn named(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$field),)*
                    _ => None,
                }
            }
        }
    };
}

fields! {
    Channel "channel"
    Data "data"
    B64Data "b64data"
    Tags "tags"
    IdempotencyKey "idempotency_key"
    SkipHistory "skip_history"
    Version "version"
    Channels "channels"
    User "user"
    Client "client"
    Session "session"
    Whitelist "whitelist"
    Disconnect "disconnect"
    Code "code"
    Reason "reason"
    Info "info"
    B64Info "b64info"
    RecoverSince "recover_since"
    Override "override"
    Expired "expired"
    ExpireAt "expire_at"
    Since "since"
    Offset "offset"
    Epoch "epoch"
    Limit "limit"
    Reverse "reverse"
    Pattern "pattern"
    Expression "expression"
    Commands "commands"
    Parallel "parallel"
}

impl<'a> Body<'a> {
    /// Reads a body; an empty one is an object without fields.
    pub fn read(source: &'a str) -> Result<Self, Fault> {
        if source.trim_ascii().is_empty() {
            return Ok(Self([None; Field::COUNT]));
        }
        let body = serde_json::from_str(source);
        body.map_err(|error| Fault::bad(format!("the body: {error}")))
    }

    /// A field as it was written.
    pub fn raw(&self, field: Field) -> Option<&'a RawValue> {
        let raw = self.0[field as usize]?;
        (field == Field::Data || raw.get() != "null").then_some(raw)
    }

    pub fn text(&self, field: Field) -> Result<Option<Cow<'a, str>>, Fault> {
        let text = self.raw(field).map(text).transpose();
        text.map_err(|_| Fault::field(field.name(), "a string"))
    }

    /// A text that must be there.
    pub fn needed_text(&self, field: Field) -> Result<Cow<'a, str>, Fault> {
        let text = self.text(field)?;
        text.ok_or_else(|| Fault::field(field.name(), "a string, and found none"))
    }

    /// A text that says something: an empty one counts as absent.
    pub fn given_text(&self, field: Field) -> Result<Option<Cow<'a, str>>, Fault> {
        let text = self.text(field)?;
        Ok(text.filter(|text| !text.is_empty()))
    }

    pub fn texts(&self, field: Field, count_max: usize) -> Result<Vec<Cow<'a, str>>, Fault> {
        let Some(raw) = self.raw(field) else {
            return Ok(Vec::new());
        };
        let not_texts = || Fault::field(field.name(), "an array of strings");
        let raws: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(|_| not_texts())?;
        if raws.len() > count_max {
            return Err(Fault::field(
                field.name(),
                &format!("at most {count_max} entries, and found {}", raws.len()),
            ));
        }
        let texts = raws.into_iter().map(text).collect::<Result<_, _>>();
        texts.map_err(|_| not_texts())
    }

    pub fn flag(&self, field: Field) -> Result<bool, Fault> {
        let flag = self.scalar(field, "true or false")?;
        Ok(flag.unwrap_or(false))
    }

    /// A whole number from 0 on.
    pub fn count(&self, field: Field) -> Result<Option<u64>, Fault> {
        self.scalar(field, "a whole number that is not negative")
    }

    pub fn integer(&self, field: Field) -> Result<Option<i64>, Fault> {
        self.scalar(field, "a whole number")
    }

    /// Any value, as it was written but on one line, which may be sent to clients.
    pub fn json(&self, field: Field) -> Result<Option<Utf8Bytes>, Fault> {
        let payload = self.raw(field).map(|raw| json::payload(raw.get()));
        match payload.transpose() {
            Ok(Some(Payload::Json(value))) => Ok(Some(value)),
            Ok(_) => Ok(None),
            Err(_) => {
                let expected = format!("at most {DEPTH_MAX} nested levels");
                Err(Fault::field(field.name(), &expected))
            }
        }
    }

    /// An object in this one.
    pub fn object(&self, field: Field) -> Result<Option<Body<'a>>, Fault> {
        let Some(raw) = self.raw(field) else {
            return Ok(None);
        };
        let object = serde_json::from_str(raw.get());
        let object = object.map_err(|_| Fault::field(field.name(), "an object"));
        object.map(Some)
    }

    /// What is to be sent: `data` as it was written, or the bytes that `b64data` stands for.
    pub fn payload(&self) -> Result<Payload, Fault> {
        if let Some(encoded) = self.given_text(Field::B64Data)? {
            let bytes = STANDARD.decode(encoded.as_bytes());
            let bytes = bytes.map_err(|_| Fault::field("b64data", "padded base64"))?;
            return Ok(Payload::Binary(bytes.into()));
        }
        let data = self.json(Field::Data)?;
        let data = data.ok_or_else(|| Fault::field("data", "a value, and found none"))?;
        Ok(Payload::Json(data))
    }

    fn scalar<T: DeserializeOwned>(
        &self,
        field: Field,
        expected: &str,
    ) -> Result<Option<T>, Fault> {
        let value = self.raw(field).map(|raw| serde_json::from_str(raw.get()));
        let value = value.transpose();
        value.map_err(|_| Fault::field(field.name(), expected))
    }
}

/// The fields of a query, as a body: those that are numbers there are numbers here.
pub fn of_query(query: &str) -> String {
    let mut body = String::from("{");
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if body.len() > 1 {
            body.push(',');
        }
        push_string(&mut body, &decoded(name));
        body.push(':');
        let value = decoded(value);
        match value.parse::<u64>() {
            Ok(number) if name == Field::Limit.name() => body.push_str(&number.to_string()),
            _ => push_string(&mut body, &value),
        }
    }
    body.push('}');
    body
}

/// A name or a value of a query, as a form writes it: `+` is a space, and `%41` an `A`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, behind @ ..] = rest {
        let digits = behind.get(..2).filter(|_| *byte == b'%');
        let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let escaped = digits.and_then(|digits| str::from_utf8(digits).ok());
        let escaped = escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escaped.unwrap_or(if *byte == b'+' { b' ' } else { *byte }));
        rest = if escaped.is_some() {
            &behind[2..]
        } else {
            behind
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The text that a string stands for; nearly always it is written without an escape.
fn text(raw: &RawValue) -> Result<Cow<'_, str>, serde_json::Error> {
    let inside = raw.get().strip_prefix('"');
    match inside.and_then(|inside| inside.strip_suffix('"')) {
        Some(plain) if !plain.contains('\\') => Ok(plain.into()),
        _ => serde_json::from_str(raw.get()).map(Cow::Owned),
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Body<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collects;

        impl<'de> Visitor<'de> for Collects {
            type Value = Body<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Body<'de>, M::Error> {
                let mut fields = [None; Field::COUNT];
                while let Some(Key(field)) = map.next_key()? {
                    let value: &RawValue = map.next_value()?;
                    let Some(field) = field else {
                        continue;
                    };
                    if fields[field as usize].replace(value).is_some() {
                        return Err(de::Error::duplicate_field(field.name()));
                    }
                }
                Ok(Body(fields))
            }
        }

        deserializer.deserialize_map(Collects)
    }
}

/// The name of a field, if it is a known one.
struct Key(Option<Field>);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl Visitor<'_> for Name {
            type Value = Key;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the name of a field")
            }

            fn visit_str<E>(self, name: &str) -> Result<Key, E> {
                Ok(Key(Field::named(name)))
            }
        }

        deserializer.deserialize_str(Name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Body<'_> {
        Body::read(text).unwrap()
    }

    fn complaint<T: fmt::Debug>(result: Result<T, Fault>) -> String {
        result.unwrap_err().detail.into_owned()
    }

    #[test]
    fn fields_are_read_by_their_types_and_unknown_ones_ignored() {
        let body = read(
            r#" {"channel":"n\u0065ws","later":{"a":[1]},"limit":7,"offset":18446744073709551615,
                "reverse":true,"user":null,"whitelist":["a","\"b\""],"since":{"epoch":"x"}} "#,
        );
        assert_eq!(body.needed_text(Field::Channel).unwrap(), "news");
        assert_eq!(body.count(Field::Limit).unwrap(), Some(7));
        assert_eq!(body.count(Field::Offset).unwrap(), Some(u64::MAX));
        assert!(body.flag(Field::Reverse).unwrap() && !body.flag(Field::Expired).unwrap());
        assert_eq!(body.text(Field::User).unwrap(), None);
        assert_eq!(body.texts(Field::Whitelist, 2).unwrap(), ["a", "\"b\""]);
        let since = body.object(Field::Since).unwrap().unwrap();
        assert_eq!(since.text(Field::Epoch).unwrap().as_deref(), Some("x"));
        assert_eq!(read(" \n").text(Field::Channel).unwrap(), None);
    }

    #[test]
    fn a_wrong_type_is_told_by_the_field_and_what_was_expected() {
        let body = read(
            r#"{"channel":5,"limit":-1,"reverse":"yes","whitelist":["a",1],"since":[],
                "channels":["a","b","c"],"offset":1.5}"#,
        );
        let told = |text: &str, fault: String| assert_eq!(fault, text);
        told(
            "channel: expected a string",
            complaint(body.text(Field::Channel)),
        );
        told(
            "limit: expected a whole number that is not negative",
            complaint(body.count(Field::Limit)),
        );
        told(
            "offset: expected a whole number",
            complaint(body.integer(Field::Offset)),
        );
        told(
            "reverse: expected true or false",
            complaint(body.flag(Field::Reverse)),
        );
        told(
            "whitelist: expected an array of strings",
            complaint(body.texts(Field::Whitelist, 9)),
        );
        told(
            "channels: expected at most 2 entries, and found 3",
            complaint(body.texts(Field::Channels, 2)),
        );
        told(
            "since: expected an object",
            complaint(body.object(Field::Since)),
        );
        told(
            "user: expected a string, and found none",
            complaint(body.needed_text(Field::User)),
        );
    }

    #[test]
    fn a_query_is_read_as_a_body() {
        let body = of_query("user=J%C3%B6rg+%22J%22&limit=05&&x");
        assert_eq!(body, r#"{"user":"Jörg \"J\"","limit":5,"x":""}"#);
        let wrong = of_query("limit=many&user=%zz%+4%4");
        assert_eq!(wrong, r#"{"limit":"many","user":"%zz% 4%4"}"#);
        assert_eq!(of_query(""), "{}");
    }

    #[test]
    fn a_body_that_is_no_object_is_refused() {
        for text in [
            "[]",
            "5",
            "{",
            "{}{}",
            r#"{"channel":"a","channel":"b"}"#,
            "{'a':1}",
        ] {
            let fault = Body::read(text).unwrap_err();
            assert!(fault.detail.starts_with("the body: "), "{text}: {fault:?}");
        }
    }

    #[test]
    fn data_is_any_value_as_it_was_written_on_one_line() {
        let data = |text: &str| {
            let body = format!(r#"{{"data":{text}}}"#);
            read(&body).payload().unwrap()
        };
        for text in ["null", "0.10", r#""a\nb""#, r#"{"b":1,"a":[ 2 ]}"#, "1e400"] {
            assert_eq!(data(text), Payload::Json(text.into()));
        }
        let spread = "{\r\n\"a\":\n\"b\\n\"}";
        assert_eq!(data(spread), Payload::Json("{  \"a\": \"b\\n\"}".into()));
        assert_eq!(
            complaint(read("{}").payload()),
            "data: expected a value, and found none"
        );
    }

    #[test]
    fn b64data_counts_before_data() {
        let body = read(r#"{"data":{},"b64data":"AP8="}"#);
        assert_eq!(
            body.payload().unwrap(),
            Payload::Binary(vec![0, 255].into())
        );
        let body = read(r#"{"data":{},"b64data":""}"#);
        assert_eq!(body.payload().unwrap(), Payload::Json("{}".into()));
        let body = read(r#"{"b64data":"A"}"#);
        assert_eq!(complaint(body.payload()), "b64data: expected padded base64");
    }
}
