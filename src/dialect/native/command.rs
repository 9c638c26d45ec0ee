//! What a client says: a text frame is some commands, one a line.
//!
//! What is not understood of a command is left out, so that newer clients can talk to this server;
//! what is known has to have its type. Texts and payloads are borrowed from the frame.

use std::{borrow::Cow, collections::HashMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// One command.
#[derive(Debug)]
pub struct Command<'a> {
    /// What the reply names; 0 where none is expected.
    pub id: u32,
    pub method: Method<'a>,
}

/// What a command asks for.
#[derive(Debug)]
pub enum Method<'a> {
    /// Nothing at all: `{}`, which answers a ping.
    Pong,
    Connect(Connect<'a>),
    Subscribe(Box<Subscribe<'a>>),
    Unsubscribe(Channel<'a>),
    Publish(Publish<'a>),
    Presence(Channel<'a>),
    PresenceStats(Channel<'a>),
    History(History<'a>),
    Ping,
    Send,
    Rpc,
    Refresh(Refresh<'a>),
    SubRefresh(Refresh<'a>),
    /// Something that a newer client may know.
    Unknown,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Connect<'a> {
    #[serde(borrow, deserialize_with = "text")]
    pub token: Cow<'a, str>,
    /// How far the client has come in the channels that the server subscribed it to.
    #[serde(borrow)]
    pub subs: HashMap<Cow<'a, str>, Since<'a>>,
}

/// A place in a stream, and whether it is to be taken up from there.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Since<'a> {
    pub recover: bool,
    pub offset: u64,
    #[serde(borrow, deserialize_with = "text")]
    pub epoch: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Subscribe<'a> {
    #[serde(borrow, deserialize_with = "text")]
    pub channel: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "text")]
    pub token: Cow<'a, str>,
    pub recover: bool,
    pub offset: u64,
    #[serde(borrow, deserialize_with = "text")]
    pub epoch: Cow<'a, str>,
    pub recoverable: bool,
    pub positioned: bool,
    pub join_leave: bool,
    /// Bits: see [`REJECT_UNRECOVERED`].
    pub flag: u64,
    /// Which publications it wants by their tags.
    #[serde(borrow)]
    pub tf: Option<&'a RawValue>,
    /// A kind of subscription other than to a stream.
    #[serde(rename = "type")]
    pub kind: u32,
}

/// What cannot be recovered is an error then, instead of a subscription with a gap in front of it.
pub const REJECT_UNRECOVERED: u64 = 1 << 1;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Channel<'a> {
    #[serde(borrow, deserialize_with = "text")]
    pub channel: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Publish<'a> {
    #[serde(borrow, deserialize_with = "text")]
    pub channel: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "value")]
    pub data: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct History<'a> {
    #[serde(borrow, deserialize_with = "text")]
    pub channel: Cow<'a, str>,
    /// 0: the position alone; below: as many as one may have.
    pub limit: i32,
    #[serde(borrow)]
    pub since: Option<Since<'a>>,
    pub reverse: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Refresh<'a> {
    #[serde(borrow, deserialize_with = "text")]
    pub channel: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "text")]
    pub token: Cow<'a, str>,
}

/// Splits the first command off a frame: it and what is behind it. `None`: there is none.
pub fn split(frame: &str) -> Option<(&str, &str)> {
    let frame = frame.trim_ascii_start();
    if frame.is_empty() {
        return None;
    }
    let (line, rest) = frame.split_once('\n').unwrap_or((frame, ""));
    Some((line, rest))
}

/// Reads one command.
///
/// # Errors
/// When it is not the JSON of a command.
pub fn read(line: &str) -> Result<Command<'_>, serde_json::Error> {
    serde_json::from_str(line)
}

/// The names in a command.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Name {
    Id,
    Connect,
    Subscribe,
    Unsubscribe,
    Publish,
    Presence,
    PresenceStats,
    History,
    Ping,
    Send,
    Rpc,
    Refresh,
    SubRefresh,
    #[serde(other)]
    Unknown,
}

impl<'de: 'a, 'a> Deserialize<'de> for Command<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(CommandVisitor)
    }
}

struct CommandVisitor;

impl<'de> Visitor<'de> for CommandVisitor {
    type Value = Command<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a command")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Command<'de>, A::Error> {
        let (mut id, mut method) = (0, Method::Pong);
        while let Some(name) = map.next_key()? {
            let read = match name {
                Name::Id => {
                    id = map.next_value()?;
                    continue;
                }
                Name::Connect => Method::Connect(map.next_value()?),
                Name::Subscribe => Method::Subscribe(map.next_value()?),
                Name::Unsubscribe => Method::Unsubscribe(map.next_value()?),
                Name::Publish => Method::Publish(map.next_value()?),
                Name::Presence => Method::Presence(map.next_value()?),
                Name::PresenceStats => Method::PresenceStats(map.next_value()?),
                Name::History => Method::History(map.next_value()?),
                Name::Refresh => Method::Refresh(map.next_value()?),
                Name::SubRefresh => Method::SubRefresh(map.next_value()?),
                Name::Ping => skip(&mut map, Method::Ping)?,
                Name::Send => skip(&mut map, Method::Send)?,
                Name::Rpc => skip(&mut map, Method::Rpc)?,
                Name::Unknown => skip(&mut map, Method::Unknown)?,
            };
            // One command asks for one thing.
            method = match (method, read) {
                (Method::Pong | Method::Unknown, read) => read,
                (method, Method::Unknown) => method,
                _ => return Err(de::Error::custom("two methods in one command")),
            };
        }
        Ok(Command { id, method })
    }
}

fn skip<'de, A: MapAccess<'de>>(map: &mut A, method: Method<'de>) -> Result<Method<'de>, A::Error> {
    map.next_value::<IgnoredAny>().map(|_| method)
}

/// A text; `null` is none.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'de, str>, D::Error> {
    deserializer.deserialize_any(TextVisitor)
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(""))
    }
}

/// A value that is there, `null` among them.
fn value<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The first frame of a client that reconnects, and others that were seen.
    const FRAMES: [&str; 8] = [
        "{\"connect\":{\"token\":\"a.b.c\",\"name\":\"js\",\"subs\":{\"n\":{\"recover\":true,\
         \"offset\":3,\"epoch\":\"e\"}}},\"id\":1}\n{\"subscribe\":{\"channel\":\"news\",\
         \"recoverable\":true,\"flag\":1,\"recover\":true,\"offset\":7,\"epoch\":\"x\"},\"id\":2}",
        r#"{"publish":{"channel":"a","data":{"k":[1,"\"x"]}},"id":3}"#,
        r#"{"history":{"channel":"a","limit":-1,"since":{"offset":1,"epoch":"e"}},"id":4}"#,
        r#"{"sub_refresh":{"channel":"$a","token":"t"},"id":5}"#,
        r#"{"rpc":{"data":null,"method":"m"},"id":6}"#,
        r#"{"send":{"data":7}}"#,
        r#"{"presence_stats":{"channel":"ü\u0041"},"id":8}"#,
        "{}",
    ];

    fn commands(frame: &str) -> Vec<Result<Command<'_>, serde_json::Error>> {
        let mut rest = frame;
        let next = || {
            let (line, behind) = split(rest)?;
            rest = behind;
            Some(read(line))
        };
        std::iter::from_fn(next).collect()
    }

    fn only(line: &str) -> Command<'_> {
        read(line).unwrap()
    }

    #[test]
    fn a_frame_has_a_command_a_line_whatever_the_white_space() {
        let read = commands("\n {}\r\n\n{\"id\":1,\"ping\":{}}\r\n  ");
        let read: Vec<_> = read.into_iter().map(Result::unwrap).collect();
        assert!(matches!(read[0].method, Method::Pong));
        assert!(matches!(read[1].method, Method::Ping));
        assert_eq!((read.len(), read[1].id), (2, 1));
        assert!(split("").is_none() && split(" \r\n").is_none());
    }

    #[test]
    fn the_first_frame_of_a_client_that_comes_back() {
        let mut read = commands(FRAMES[0]).into_iter().map(Result::unwrap);
        let connect = read.next().unwrap();
        let Method::Connect(Connect { token, subs }) = connect.method else {
            panic!("{connect:?}");
        };
        assert_eq!((connect.id, &*token), (1, "a.b.c"));
        assert!(subs["n"].recover && subs["n"].offset == 3 && subs["n"].epoch == "e");
        let subscribe = read.next().unwrap();
        let Method::Subscribe(subscribe) = subscribe.method else {
            panic!("{subscribe:?}");
        };
        assert!(subscribe.recover && subscribe.recoverable && !subscribe.positioned);
        assert_eq!((&*subscribe.channel, subscribe.offset), ("news", 7));
        assert!(matches!(subscribe.channel, Cow::Borrowed(_)));
    }

    #[test]
    fn a_payload_is_the_text_that_came() {
        let publish = only(FRAMES[1]);
        let Method::Publish(publish) = publish.method else {
            panic!("{publish:?}");
        };
        assert_eq!(publish.data.unwrap().get(), r#"{"k":[1,"\"x"]}"#);
        let Method::Publish(null) = only(r#"{"publish":{"data":null}}"#).method else {
            panic!("a publish");
        };
        assert_eq!(null.data.unwrap().get(), "null");
        let Method::Publish(none) = only(r#"{"publish":{"channel":null}}"#).method else {
            panic!("a publish");
        };
        assert!(none.data.is_none() && none.channel.is_empty());
    }

    #[test]
    fn what_a_newer_client_says_besides_is_left_out() {
        let command = only(r#"{"new":1,"id":2,"ping":{"x":[]},"newer":{}}"#);
        assert!(matches!(command.method, Method::Ping));
        assert!(matches!(
            only(r#"{"id":9,"track":{}}"#).method,
            Method::Unknown
        ));
    }

    #[test]
    fn what_is_no_command_is_an_error() {
        for line in [
            "",
            "[]",
            "7",
            "null",
            "{",
            "{}}",
            r#"{"id":-1}"#,
            r#"{"id":4294967296}"#,
            r#"{"id":"1"}"#,
            r#"{"id":1,"subscribe":{"channel":7}}"#,
            r#"{"id":1,"subscribe":{"offset":-1}}"#,
            r#"{"id":1,"ping":{},"rpc":{}}"#,
            r#"{"id":1,"publish":{"data":{"a"}}}"#,
        ] {
            assert!(read(line).is_err(), "{line}");
        }
        let deep = format!(r#"{{"id":1,"connect":{}"#, r#"{"subs":{"a":"#.repeat(100));
        assert!(read(&deep).is_err());
    }

    proptest! {
        #[test]
        fn garbage_is_read_or_refused(text in any::<String>()) {
            for command in commands(&text) {
                let _ = command;
            }
        }

        #[test]
        fn frames_with_something_changed_are_read_or_refused(
            number in 0..FRAMES.len(),
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<char>()), 1..4),
            keep in any::<prop::sample::Index>(),
        ) {
            let mut letters: Vec<char> = FRAMES[number].chars().collect();
            for (at, letter) in edits {
                let at = at.index(letters.len());
                letters[at] = letter;
            }
            letters.truncate(keep.index(letters.len() + 1));
            let text: String = letters.into_iter().collect();
            let lines = commands(&text).len();
            prop_assert!(lines <= text.matches('\n').count() + 1);
        }
    }
}
