//! What a client hears without having asked: one push a text frame.

use super::{
    json,
    reply::{Object, Unsubscribed, push_number, push_publication_at},
};
use crate::handler::{Kind, Payload, Publication, RESERVED};

/// Appends what was published, for those who are subscribed to `channel`: a pattern, for a
/// pattern. Offsets mean something to them where there is a stream. `false`: there is nothing to
/// say about it.
#[inline]
pub fn push_published(
    out: &mut String,
    publication: &Publication,
    channel: &str,
    has_stream: bool,
) -> bool {
    match &publication.kind {
        // To one user or connection, or to everybody.
        Kind::Message if channel.is_empty() || channel.starts_with(RESERVED) => {
            out.push_str("{\"push\":{\"message\":{\"data\":");
            json::push_payload(out, &publication.payload);
            out.push_str("}}}");
        }
        Kind::Message => {
            push_head(out, channel, "pub");
            let concrete = (&*publication.channel != channel).then_some(&*publication.channel);
            let offset = publication.offset * u64::from(has_stream);
            push_publication_at(out, publication, offset, concrete);
            out.push_str("}}");
        }
        Kind::Join => push_event(out, channel, "join", &publication.payload),
        Kind::Leave => push_event(out, channel, "leave", &publication.payload),
        Kind::Command(_) => return false,
    }
    true
}

/// Appends `{"push":{"channel":…,"what":`; what it is and `}}` follow.
#[inline]
pub fn push_head(out: &mut String, channel: &str, what: &str) {
    out.push_str("{\"push\":{\"channel\":");
    json::push_string(out, channel);
    out.push_str(",\"");
    out.push_str(what);
    out.push_str("\":");
}

fn push_event(out: &mut String, channel: &str, what: &str, info: &Payload) {
    push_head(out, channel, what);
    out.push_str("{\"info\":");
    json::push_payload(out, info);
    out.push_str("}}}");
}

/// Appends that a subscription has ended.
pub fn push_unsubscribed(out: &mut String, channel: &str, unsubscribed: Unsubscribed) {
    push_head(out, channel, "unsubscribe");
    out.push_str("{\"code\":");
    push_number(out, u64::from(unsubscribed.code));
    out.push_str(",\"reason\":");
    json::push_string(out, unsubscribed.reason);
    out.push_str("}}}");
}

/// Appends that a connection expires at another time from now on.
pub fn push_refreshed(out: &mut String, ttl: Option<u32>) {
    out.push_str("{\"push\":{\"refresh\":");
    let mut object = Object::begin(out);
    object.ttl(ttl);
    object.end().push_str("}}");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::handler::Command;

    fn published(publication: &Publication, channel: &str) -> Value {
        let mut out = String::new();
        assert!(push_published(&mut out, publication, channel, true));
        assert!(!out.contains(['\n', '\r']), "{out}");
        serde_json::from_str(&out).unwrap()
    }

    fn publication(channel: &str, offset: u64, data: &str) -> Publication {
        Publication::new(channel.into(), offset, Payload::Json(data.into()))
    }

    #[test]
    fn a_message_of_a_channel() {
        let mut message = publication("n\"ews", 0, r#"{"a":1}"#);
        let expected = json!({"push": {"channel": "n\"ews", "pub": {"data": {"a": 1}}}});
        assert_eq!(published(&message, "n\"ews"), expected);
        message.offset = 12;
        message.about = Some(Arc::from(r#""info":{"user":"42"},"tags":{"t":"x"}"#));
        let about = json!({
            "data": {"a": 1}, "offset": 12, "info": {"user": "42"}, "tags": {"t": "x"},
        });
        let expected = json!({"push": {"channel": "n\"ews", "pub": about}});
        assert_eq!(published(&message, "n\"ews"), expected);
    }

    #[test]
    fn without_a_stream_there_is_no_offset() {
        let mut out = String::new();
        push_published(&mut out, &publication("c", 7, "1"), "c", false);
        assert_eq!(out, r#"{"push":{"channel":"c","pub":{"data":1}}}"#);
    }

    #[test]
    fn a_pattern_is_told_which_channel_it_was() {
        let message = publication("news.a", 3, "7");
        let expected = json!({"data": 7, "offset": 3, "channel": "news.a"});
        assert_eq!(
            published(&message, "news.*"),
            json!({"push": {"channel": "news.*", "pub": expected}})
        );
    }

    #[test]
    fn a_direct_message_and_a_broadcast_have_no_channel() {
        for channel in ["\u{1}u42", ""] {
            let message = publication(channel, 0, "[1]");
            let expected = json!({"push": {"message": {"data": [1]}}});
            assert_eq!(published(&message, channel), expected);
        }
    }

    #[test]
    fn who_comes_and_goes() {
        let mut event = publication("c", 0, r#"{"user":"42","client":"x"}"#);
        for (kind, name) in [(Kind::Join, "join"), (Kind::Leave, "leave")] {
            event.kind = kind;
            let info = json!({"info": {"user": "42", "client": "x"}});
            let expected = json!({"push": {"channel": "c", name: info}});
            assert_eq!(published(&event, "c"), expected);
        }
        let expired = Command::Refresh {
            expired: true,
            expires: None,
        };
        event.kind = Kind::Command(Arc::new(expired));
        assert!(!push_published(&mut String::new(), &event, "c", true));
    }

    #[test]
    fn the_end_of_a_subscription_and_a_new_one_of_a_connection() {
        let mut out = String::new();
        push_unsubscribed(&mut out, "c", Unsubscribed::EXPIRED);
        let ended = json!({"code": 2501, "reason": "subscription expired"});
        let expected = json!({"push": {"channel": "c", "unsubscribe": ended}});
        assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), expected);
        for (ttl, fields) in [
            (Some(9), json!({"expires": true, "ttl": 9})),
            (None, json!({})),
        ] {
            let mut out = String::new();
            push_refreshed(&mut out, ttl);
            let expected = json!({"push": {"refresh": fields}});
            assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), expected);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_published_is_one_line_of_json(
            (channel, text) in any::<(String, String)>(),
            offset in any::<u64>(),
        ) {
            let payload = Payload::Text(text.as_str().into());
            let message = Publication::new(channel.as_str().into(), offset, payload);
            published(&message, &channel);
            published(&message, "other");
        }
    }
}
