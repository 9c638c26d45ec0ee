//! Telling connections something: those of a user, one by its id, or all.

use std::{borrow::Cow, ops::RangeInclusive};

use super::{
    answers::write,
    body::{Body, Field},
    call::Begun,
    fault::{Code, Fault},
    methods::CHANNELS_MAX,
};
use crate::{
    dialect::native::json::push_string,
    handler::{Caller, ClientId, Command, ConnId, What},
};

/// Sends something to those whom the body names.
pub fn send(caller: &mut Caller<'_>, body: &Body<'_>) -> Result<Begun, Fault> {
    tell(caller, body, What::Payload(body.payload()?))
}

/// Sends something to every connection.
pub fn everyone(caller: &mut Caller<'_>, body: &Body<'_>) -> Result<Begun, Fault> {
    caller.tell_all(What::Payload(body.payload()?))?;
    Ok(Begun::empty())
}

/// Has connections subscribed to a channel. What is said of the subscription is read here, so that
/// the caller hears what is wrong with it, and written again for the dialect of each connection.
pub fn subscribe(caller: &mut Caller<'_>, body: &Body<'_>, channel: &str) -> Result<Begun, Fault> {
    let command = Command::Subscribe {
        channel: channel.into(),
        request: subscription(body)?.into(),
    };
    tell(caller, body, What::Command(command))
}

fn subscription(body: &Body<'_>) -> Result<String, Fault> {
    for (field, remedy) in [
        (
            Field::Override,
            "a channel's options are those of its namespace",
        ),
        (Field::B64Info, "clients speak JSON: send info"),
        (Field::B64Data, "clients speak JSON: send data"),
    ] {
        if body.raw(field).is_some() {
            let detail = format!("{}: {remedy}", field.name());
            return Err(Fault::new(Code::NotAvailable, detail));
        }
    }
    let expires = body.integer(Field::ExpireAt)?.unwrap_or(0);
    let mut request = format!("{{\"expire_at\":{expires}");
    for field in [Field::Info, Field::Data] {
        if let Some(value) = body.json(field)? {
            write(&mut request, format_args!(",\"{}\":{value}", field.name()));
        }
    }
    if let Some(since) = body.object(Field::RecoverSince)? {
        let offset = since.count(Field::Offset)?.unwrap_or(0);
        write(
            &mut request,
            format_args!(",\"recover_since\":{{\"offset\":{offset},\"epoch\":"),
        );
        push_string(&mut request, &since.text(Field::Epoch)?.unwrap_or_default());
        request.push('}');
    }
    request.push('}');
    Ok(request)
}

/// Ends subscriptions to a channel.
pub fn unsubscribe(
    caller: &mut Caller<'_>,
    body: &Body<'_>,
    channel: &str,
) -> Result<Begun, Fault> {
    let command = Command::Unsubscribe {
        channel: channel.into(),
    };
    tell(caller, body, What::Command(command))
}

/// Closes connections.
pub fn disconnect(caller: &mut Caller<'_>, body: &Body<'_>) -> Result<Begun, Fault> {
    let (mut code, mut reason) = (FORCE_DISCONNECT, Cow::Borrowed("force disconnect"));
    if let Some(custom) = body.object(Field::Disconnect)? {
        if let Some(wanted) = custom.count(Field::Code)? {
            let wanted = u16::try_from(wanted).ok();
            let wanted = wanted.filter(|code| CODES.contains(code));
            code = wanted.ok_or_else(|| Fault::field("disconnect.code", "3000 to 4999"))?;
        }
        // SDKs look at the code only where there is a reason.
        reason = custom.given_text(Field::Reason)?.unwrap_or(reason);
        // RFC 6455, 5.5: 125 bytes, of which the code takes two.
        if reason.len() > 123 {
            return Err(Fault::field("disconnect.reason", "at most 123 bytes"));
        }
    }
    let whitelist = body.texts(Field::Whitelist, CHANNELS_MAX)?;
    let except = whitelist
        .iter()
        .map(|client| conn_id(Field::Whitelist, client));
    let except: Vec<_> = except.collect::<Result<_, _>>()?;
    let command = Command::Disconnect {
        code,
        reason: reason.into(),
        except: except.into_iter().flatten().collect(),
    };
    tell(caller, body, What::Command(command))
}

/// Says when connections expire.
pub fn refresh(caller: &mut Caller<'_>, body: &Body<'_>) -> Result<Begun, Fault> {
    let expires = body.integer(Field::ExpireAt)?;
    let command = Command::Refresh {
        expired: body.flag(Field::Expired)?,
        expires: expires.filter(|expires| *expires != 0),
    };
    tell(caller, body, What::Command(command))
}

/// Tells it to the connection that the body names, or to those of the user that it names.
fn tell(caller: &mut Caller<'_>, body: &Body<'_>, what: What) -> Result<Begun, Fault> {
    let user = body.given_text(Field::User)?;
    // A connection's session has no name of its own here.
    for field in [Field::Client, Field::Session] {
        if let Some(client) = body.given_text(field)? {
            if let Some(id) = conn_id(field, &client)? {
                caller.tell_client(id, what)?;
            }
            return Ok(Begun::empty());
        }
    }
    let user = user.ok_or_else(|| Fault::bad("expected user or client, a string"))?;
    caller.tell_user(&user, what)?;
    Ok(Begun::empty())
}

/// The connection that is meant; `None` when it is none of this server's.
fn conn_id(field: Field, client: &str) -> Result<Option<ConnId>, Fault> {
    let client: Result<ClientId, _> = client.parse();
    let client =
        client.map_err(|_| Fault::field(field.name(), "client ids, as given by connect"))?;
    Ok(client.conn_id())
}

/// What a connection is closed with that shall not come back.
const FORCE_DISCONNECT: u16 = 3503;

/// Close codes that applications and libraries may use (RFC 6455, 7.4.2).
const CODES: RangeInclusive<u16> = 3000..=4999;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(body: &str) -> Result<Value, Fault> {
        let request = subscription(&Body::read(body).unwrap())?;
        assert!(!request.contains('\n'), "{request}");
        Ok(serde_json::from_str(&request).unwrap())
    }

    #[test]
    fn what_is_said_of_a_subscription_is_written_again() {
        let body = "{\"channel\":\"c\",\"info\":{\n\"a\":1},\"data\":[2],\"expire_at\":9,\
                     \"recover_since\":{\"offset\":3,\"epoch\":\"a\\\"b\"}}";
        let since = json!({"offset": 3, "epoch": "a\"b"});
        let expected = json!({
            "expire_at": 9, "info": {"a": 1}, "data": [2], "recover_since": since,
        });
        assert_eq!(read(body).unwrap(), expected);
        let nothing = r#"{"expire_at":null,"info":null,"recover_since":null,"user":"u"}"#;
        assert_eq!(read(nothing).unwrap(), json!({"expire_at": 0}));
    }

    #[test]
    fn what_would_be_without_effect_is_refused() {
        for body in [
            r#"{"override":{}}"#,
            r#"{"b64info":"AA=="}"#,
            r#"{"b64data":"AA=="}"#,
        ] {
            assert_eq!(read(body).unwrap_err().code, Code::NotAvailable, "{body}");
        }
        let wrong = read(r#"{"recover_since":{"offset":"3"}}"#).unwrap_err();
        assert_eq!(wrong.code, Code::BadRequest);
    }
}
