//! Publishing: to one channel, or the same to many.

use std::{collections::HashMap, sync::Arc};

use super::{
    body::{Body, Field},
    call::{Begun, Waiting},
    fault::{Code, Fault},
    methods::{Tag, permit},
};
use crate::{
    gate::channel::Action,
    handler::{Caller, Payload, Publish},
};

/// Publishes to a channel.
pub fn one(caller: &mut Caller<'_>, body: &Body<'_>, tag: Tag) -> Result<Begun, Fault> {
    let channel = body.needed_text(Field::Channel)?;
    Parcel::read(body)?.publish(caller, &channel, tag)?;
    Ok(Begun::Waits(Waiting::Home(None)))
}

/// Publishes to each of some channels.
pub fn many(
    caller: &mut Caller<'_>,
    body: &Body<'_>,
    tag: Tag,
    channels_left: &mut usize,
) -> Result<Begun, Fault> {
    let channels = body.texts(Field::Channels, *channels_left)?;
    if channels.is_empty() {
        let expected = "an array of strings that is not empty";
        return Err(Fault::field("channels", expected));
    }
    let parcel = Parcel::read(body)?;
    *channels_left -= channels.len();
    let mut responses = Vec::with_capacity(channels.len());
    for (item, channel) in (0..).zip(&channels) {
        let published = parcel.publish(caller, channel, Tag { item, ..tag });
        responses.push(published.err().map(Err));
    }
    let left = responses.iter().filter(|response| response.is_none());
    let left = left.count();
    Ok(Begun::Waits(Waiting::Broadcast { responses, left }))
}

/// What is published, to one channel or to many.
struct Parcel {
    payload: Payload,
    about: Option<Arc<str>>,
    skips_history: bool,
    idempotency: Option<Box<str>>,
}

impl Parcel {
    fn read(body: &Body<'_>) -> Result<Self, Fault> {
        if body.count(Field::Version)?.unwrap_or(0) > 0 {
            let detail = "version: publications are not compared by a version here";
            return Err(Fault::new(Code::NotAvailable, detail));
        }
        let idempotency = body.given_text(Field::IdempotencyKey)?;
        if let Some(key) = &idempotency
            && key.len() > IDEMPOTENCY_KEY_BYTES_MAX
        {
            return Err(Fault::field("idempotency_key", "1 to 64 bytes"));
        }
        Ok(Self {
            payload: body.payload()?,
            about: tags(body)?,
            skips_history: body.flag(Field::SkipHistory)?,
            idempotency: idempotency.map(Into::into),
        })
    }

    fn publish(&self, caller: &mut Caller<'_>, channel: &str, tag: Tag) -> Result<(), Fault> {
        permit(caller, Action::Publish, channel)?;
        let options = caller.options(channel);
        caller.publish(Publish {
            about: self.about.clone(),
            skips_history: self.skips_history,
            idempotency: self.idempotency.clone(),
            tag: tag.number(),
            ..Publish::new(channel, options, self.payload.clone())
        })?;
        Ok(())
    }
}

/// The tags of a publication, as they are shown with it: an object of texts. `None` when it is
/// empty.
fn tags(body: &Body<'_>) -> Result<Option<Arc<str>>, Fault> {
    let Some(written) = body.json(Field::Tags)? else {
        return Ok(None);
    };
    let tags: Result<HashMap<String, String>, _> = serde_json::from_str(&written);
    let tags = tags.map_err(|_| Fault::field("tags", "an object of strings"))?;
    let shown = || format!("\"tags\":{written}").into();
    Ok((!tags.is_empty()).then(shown))
}

const IDEMPOTENCY_KEY_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_texts_and_are_shown_as_they_were_written() {
        let read = |tags_text: &str| {
            let body = format!("{{\"tags\":{tags_text}}}");
            tags(&Body::read(&body).unwrap())
        };
        let shown = read("{\"a\":\n\"b\"}").unwrap();
        assert_eq!(shown.as_deref(), Some("\"tags\":{\"a\": \"b\"}"));
        assert_eq!(read("{}").unwrap(), None);
        for wrong in ["[]", r#"{"a":1}"#, r#""a""#] {
            assert_eq!(
                read(wrong).unwrap_err().detail,
                "tags: expected an object of strings"
            );
        }
    }

    #[test]
    fn publications_are_read_with_what_goes_along() {
        let parcel = |text: &str| Parcel::read(&Body::read(text).unwrap());
        let read = parcel(r#"{"data":1,"skip_history":true,"idempotency_key":"k","version":0}"#);
        let read = read.unwrap();
        assert!(read.skips_history && read.about.is_none());
        assert_eq!(read.idempotency.as_deref(), Some("k"));
        let key = "k".repeat(65);
        let long = parcel(&format!(r#"{{"data":1,"idempotency_key":"{key}"}}"#));
        assert_eq!(long.err().unwrap().code, Code::BadRequest);
        let versioned = parcel(r#"{"data":1,"version":3}"#);
        assert_eq!(versioned.err().unwrap().code, Code::NotAvailable);
    }
}
