//! What tokens grant beside the user: their claims, read once the signature is known to be good.

use serde_json::Value;

use crate::handler::Claims;

/// What the token of a connection says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// What others are told about the connection, as JSON.
    pub info: Option<Box<str>>,
    /// When the connection expires, in seconds since 1970; `None`: never.
    pub expires: Option<i64>,
    /// What the connection is subscribed to without asking.
    pub channels: Vec<Granted>,
}

/// A channel that a token grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    pub channel: Box<str>,
    /// What others in the channel are told about the subscriber, as JSON.
    pub info: Option<Box<str>>,
}

/// What a token for one channel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    pub channel: Box<str>,
    /// What others in the channel are told about the subscriber, as JSON.
    pub info: Option<Box<str>>,
    /// When the subscription expires, in seconds since 1970; `None`: never.
    pub expires: Option<i64>,
}

/// A good token whose claims make no sense here, or are about somebody or something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch;

impl Grant {
    /// Reads `info`, `channels`, `subs` and `expire_at`.
    pub fn read(claims: &Claims) -> Result<Self, Mismatch> {
        let mut channels = Vec::new();
        let mut grant = |channel: &str, info| {
            let is_known = channels
                .iter()
                .any(|granted: &Granted| &*granted.channel == channel);
            if !is_known {
                let channel = channel.into();
                channels.push(Granted { channel, info });
            }
        };
        match claims.payload.get("subs") {
            None | Some(Value::Null) => {}
            Some(Value::Object(subs)) => {
                for (channel, options) in subs {
                    grant(channel, json(options.get("info")));
                }
            }
            Some(_) => return Err(Mismatch),
        }
        match claims.payload.get("channels") {
            None | Some(Value::Null) => {}
            Some(Value::Array(names)) => {
                for name in names {
                    grant(name.as_str().ok_or(Mismatch)?, None);
                }
            }
            Some(_) => return Err(Mismatch),
        }
        Ok(Self {
            info: json(claims.payload.get("info")),
            expires: expires(claims)?,
            channels,
        })
    }
}

impl Pass {
    /// Reads the claims of a token that was shown for this channel by a connection of this user;
    /// an empty user is none.
    pub fn read(claims: &Claims, channel: &str, user: &str) -> Result<Self, Mismatch> {
        let is_theirs = claims.subject.as_deref().unwrap_or_default() == user;
        let is_for_it = claims.payload.get("channel").and_then(Value::as_str) == Some(channel);
        if !is_theirs || !is_for_it {
            return Err(Mismatch);
        }
        Ok(Self {
            channel: channel.into(),
            info: json(claims.payload.get("info")),
            expires: expires(claims)?,
        })
    }

    /// Whether there is anything in it that must be remembered.
    pub fn is_empty(&self) -> bool {
        self.info.is_none() && self.expires.is_none()
    }
}

/// When what a token grants expires: `expire_at`, where it is there, or else with the token. 0 is
/// never.
fn expires(claims: &Claims) -> Result<Option<i64>, Mismatch> {
    match claims.payload.get("expire_at") {
        None | Some(Value::Null) => Ok(claims.expires),
        Some(Value::Number(number)) => {
            let seconds = number.as_i64();
            let seconds = seconds.or_else(|| Some(number.as_f64()? as i64));
            let seconds = seconds.ok_or(Mismatch)?;
            Ok((seconds != 0).then_some(seconds))
        }
        Some(_) => Err(Mismatch),
    }
}

/// The text of a value; the serializer writes it in one line.
fn json(value: Option<&Value>) -> Option<Box<str>> {
    let value = value.filter(|value| !value.is_null())?;
    Some(value.to_string().into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(payload: Value) -> Claims {
        let text = |name: &str| payload[name].as_str().map(Box::from);
        Claims {
            subject: text("sub"),
            id: None,
            expires: payload["exp"].as_i64(),
            issued: None,
            payload: payload.as_object().unwrap().clone(),
        }
    }

    #[test]
    fn a_token_of_a_connection_grants_what_it_says() {
        let token = claims(json!({
            "sub": "42", "exp": 100, "info": {"name": "Ann"},
            "channels": ["a", "b"], "subs": {"b": {"info": [1]}, "c": {}},
        }));
        let grant = Grant::read(&token).unwrap();
        assert_eq!(grant.info.as_deref(), Some(r#"{"name":"Ann"}"#));
        assert_eq!(grant.expires, Some(100));
        let channels: Vec<_> = grant
            .channels
            .iter()
            .map(|granted| (&*granted.channel, granted.info.as_deref()))
            .collect();
        assert_eq!(channels, [("b", Some("[1]")), ("c", None), ("a", None)]);
        assert_eq!(Grant::read(&claims(json!({}))), Ok(Grant::default()));
        for wrong in [
            json!({"channels": "a"}),
            json!({"channels": [7]}),
            json!({"subs": ["a"]}),
            json!({"expire_at": "7"}),
        ] {
            assert_eq!(Grant::read(&claims(wrong)), Err(Mismatch));
        }
    }

    #[test]
    fn what_a_token_grants_may_outlive_it_or_never_end() {
        let expires = |payload| super::expires(&claims(payload));
        assert_eq!(expires(json!({"exp": 5})), Ok(Some(5)));
        assert_eq!(expires(json!({"exp": 5, "expire_at": 9})), Ok(Some(9)));
        assert_eq!(expires(json!({"exp": 5, "expire_at": 9.5})), Ok(Some(9)));
        assert_eq!(expires(json!({"exp": 5, "expire_at": 0})), Ok(None));
        assert_eq!(expires(json!({})), Ok(None));
    }

    #[test]
    fn a_pass_is_for_one_channel_and_one_user() {
        let token = claims(json!({"sub": "42", "channel": "$a", "exp": 7, "info": "x"}));
        let pass = Pass::read(&token, "$a", "42").unwrap();
        assert_eq!(pass.info.as_deref(), Some("\"x\""));
        assert_eq!(pass.expires, Some(7));
        assert_eq!(Pass::read(&token, "$b", "42"), Err(Mismatch));
        assert_eq!(Pass::read(&token, "$a", "7"), Err(Mismatch));
        assert_eq!(Pass::read(&token, "$a", ""), Err(Mismatch));
        let anyone = claims(json!({"channel": "$a"}));
        assert!(Pass::read(&anyone, "$a", "").unwrap().is_empty());
        assert_eq!(Pass::read(&anyone, "$a", "42"), Err(Mismatch));
        let none = claims(json!({"sub": "42"}));
        assert_eq!(Pass::read(&none, "$a", "42"), Err(Mismatch));
    }
}
