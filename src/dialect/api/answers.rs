//! Writing answers: `{"result":…}` or `{"error":{"code":…,"message":…}}`, straight into the text
//! that is sent.

use std::fmt::{self, Write};

use super::fault::Fault;
use crate::{
    dialect::native::{json::push_string, reply::push_publication},
    handler::{Channel, Member, Position, Publication, Resident},
};

/// Writes `{"KEY":…}` around what `result` writes, or `{"error":…}` instead when it fails.
pub fn envelope(
    out: &mut String,
    key: &str,
    result: impl FnOnce(&mut String) -> Result<(), Fault>,
) {
    let begin = out.len();
    write(out, format_args!("{{\"{key}\":"));
    if let Err(fault) = result(out) {
        out.truncate(begin);
        error(out, &fault);
    } else {
        out.push('}');
    }
}

fn error(out: &mut String, fault: &Fault) {
    let code = fault.code as u32;
    write(
        out,
        format_args!("{{\"error\":{{\"code\":{code},\"message\":"),
    );
    push_string(out, &fault.to_string());
    out.push_str("}}");
}

/// Where a publication stands, or a stream.
pub fn position(out: &mut String, position: Position) {
    out.push('{');
    place(out, position);
    out.push('}');
}

fn place(out: &mut String, position: Position) {
    let Position { offset, epoch } = position;
    write(
        out,
        format_args!("\"offset\":{offset},\"epoch\":\"{epoch:x}\""),
    );
}

/// What a stream holds, and where it ends.
pub fn history<'p>(
    out: &mut String,
    end: usize,
    top: Position,
    publications: impl Iterator<Item = &'p Publication>,
) {
    let mut list = List::begin(out, end, "publications", '[');
    for found in publications {
        list.entry(|out| push_publication(out, found, None));
    }
    list.finish(']', |out| {
        out.push(',');
        place(out, top);
    });
}

/// Who is subscribed, by their client ids.
pub fn presence<'m>(out: &mut String, end: usize, members: impl Iterator<Item = &'m Member>) {
    let mut list = List::begin(out, end, "presence", '{');
    for member in members {
        list.entry(|out| {
            write(
                out,
                format_args!("\"{}\":{}", member.client.client_id(), member.info),
            );
        });
    }
    list.finish('}', |_| {});
}

/// Channels, and how many are subscribed to each.
pub fn channels(out: &mut String, end: usize, found: &[(Channel, u32)], is_cut: bool) {
    let mut list = List::begin(out, end, "channels", '{');
    list.is_cut |= is_cut;
    for (channel, subscribers) in found {
        list.entry(|out| {
            push_string(out, channel);
            write(out, format_args!(":{{\"num_clients\":{subscribers}}}"));
        });
    }
    list.finish('}', |_| {});
}

/// Connections, by their client ids. `transport` and `protocol` are what clients of this API
/// expect to find.
pub fn connections(out: &mut String, end: usize, residents: &[Resident], is_cut: bool) {
    let mut list = List::begin(out, end, "connections", '{');
    list.is_cut |= is_cut;
    for resident in residents {
        list.entry(|out| connection(out, resident));
    }
    list.finish('}', |_| {});
}

fn connection(out: &mut String, resident: &Resident) {
    let client = resident.id.client_id();
    write(
        out,
        format_args!("\"{client}\":{{\"client\":\"{client}\",\"user\":"),
    );
    push_string(out, resident.user.as_deref().unwrap_or_default());
    if let Some(remote) = resident.remote {
        write(out, format_args!(",\"remote\":\"{remote}\""));
    }
    let Resident {
        dialect,
        connected_at,
        last_seen,
        ..
    } = resident;
    write(
        out,
        format_args!(
            ",\"dialect\":\"{dialect}\",\"transport\":\"websocket\",\"protocol\":\"json\",\
             \"connected_at\":{connected_at},\"last_seen\":{last_seen},\"channels\":["
        ),
    );
    for (number, channel) in resident.channels.iter().enumerate() {
        if number > 0 {
            out.push(',');
        }
        push_string(out, channel);
    }
    out.push_str("]}");
}

pub fn write(out: &mut String, text: fmt::Arguments<'_>) {
    let written = out.write_fmt(text);
    debug_assert!(written.is_ok(), "writing to a string does not fail");
}

/// An object with one array or object in it, whose entries are written until the whole answer is as
/// long as it may be. Then it says `"truncated":true`.
struct List<'o> {
    out: &'o mut String,
    end: usize,
    is_first: bool,
    is_full: bool,
    is_cut: bool,
}

impl<'o> List<'o> {
    fn begin(out: &'o mut String, end: usize, key: &str, bracket: char) -> Self {
        write(out, format_args!("{{\"{key}\":{bracket}"));
        Self {
            out,
            end,
            is_first: true,
            is_full: false,
            is_cut: false,
        }
    }

    fn entry(&mut self, entry: impl FnOnce(&mut String)) {
        if self.is_full {
            return;
        }
        let begin = self.out.len();
        if !self.is_first {
            self.out.push(',');
        }
        entry(self.out);
        self.is_first = false;
        if self.out.len() > self.end {
            self.out.truncate(begin);
            self.is_cut = true;
            self.is_full = true;
        }
    }

    fn finish(self, bracket: char, more: impl FnOnce(&mut String)) {
        self.out.push(bracket);
        more(self.out);
        if self.is_cut {
            self.out.push_str(",\"truncated\":true");
        }
        self.out.push('}');
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::{super::fault::Code, *};
    use crate::{
        handler::{ConnId, Payload},
        slots::Key,
    };

    const TOP: Position = Position {
        offset: 7,
        epoch: 0xabc,
    };

    fn id(slot: u32) -> ConnId {
        ConnId::new(
            0,
            Key {
                slot,
                generation: 1,
            },
        )
    }

    fn written(write: impl FnOnce(&mut String)) -> Value {
        let mut out = String::new();
        write(&mut out);
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error} in {out}"))
    }

    #[test]
    fn a_result_or_an_error_stands_in_the_envelope_never_both() {
        let good = written(|out| {
            envelope(out, "result", |out| {
                position(out, TOP);
                Ok(())
            });
        });
        assert_eq!(good, json!({"result": {"offset": 7, "epoch": "abc"}}));
        let bad = written(|out| {
            envelope(out, "result", |out| {
                out.push_str("{\"half\":");
                Err(Fault::bad("say \"a\""))
            });
        });
        let told = json!({"code": 107, "message": "bad request: say \"a\""});
        assert_eq!(bad, json!({ "error": told }));
        let plain = written(|out| error(out, &Code::Unrecoverable.into()));
        assert_eq!(plain["error"]["message"], "unrecoverable position");
    }

    fn publications() -> Vec<Publication> {
        let one = Publication::new("c".into(), 6, Payload::Json(r#"{"a":1.0}"#.into()));
        let mut two = Publication::new("c".into(), 7, Payload::Binary(vec![255].into()));
        two.about = Some(Arc::from(r#""tags":{"k":"v"}"#));
        vec![one, two]
    }

    #[test]
    fn a_history_says_where_the_stream_is_and_what_is_in_it() {
        let told = written(|out| history(out, 1000, TOP, publications().iter()));
        let expected = json!([
            {"data": {"a": 1.0}, "offset": 6},
            {"data": "/w==", "offset": 7, "tags": {"k": "v"}},
        ]);
        assert_eq!(
            told,
            json!({"publications": expected, "offset": 7, "epoch": "abc"})
        );
    }

    #[test]
    fn an_answer_that_would_be_too_long_ends_early_and_says_so() {
        let publications = publications();
        let whole = written(|out| history(out, 1000, TOP, publications.iter()));
        for end in 0..100 {
            let told = written(|out| history(out, end, TOP, publications.iter()));
            let shown = told["publications"].as_array().unwrap();
            let all = whole["publications"].as_array().unwrap();
            assert_eq!(shown[..], all[..shown.len()]);
            let is_cut = told.get("truncated") == Some(&Value::Bool(true));
            assert_eq!(is_cut, shown.len() < all.len(), "at {end}");
        }
        let nothing = written(|out| channels(out, 1000, &[], true));
        assert_eq!(nothing, json!({"channels": {}, "truncated": true}));
    }

    #[test]
    fn channels_and_members_are_listed_by_their_names() {
        let found = [("a\"b".into(), 2), ("c".into(), 1)];
        let told = written(|out| channels(out, 1000, &found, false));
        let expected = json!({"a\"b": {"num_clients": 2}, "c": {"num_clients": 1}});
        assert_eq!(told, json!({ "channels": expected }));

        let member = Member {
            client: id(3),
            user: "anne".into(),
            info: r#"{"user":"anne"}"#.into(),
        };
        let told = written(|out| presence(out, 1000, [&member].into_iter()));
        let name = id(3).client_id().to_string();
        assert_eq!(told["presence"][&name], json!({"user": "anne"}));
    }

    #[test]
    fn a_connection_is_shown_with_all_that_is_known() {
        let resident = Resident {
            id: id(5),
            user: Some("anne".into()),
            remote: Some(([192, 0, 2, 1], 80).into()),
            dialect: "native",
            connected_at: 1000,
            last_seen: 1001,
            channels: vec!["a".into(), "b".into()],
        };
        let stranger = Resident {
            user: None,
            remote: None,
            id: id(6),
            ..resident.clone()
        };
        let told = written(|out| connections(out, 1000, &[resident, stranger], false));
        let name = |slot| id(slot).client_id().to_string();
        let expected = json!({
            "client": name(5), "user": "anne", "remote": "192.0.2.1:80", "dialect": "native",
            "transport": "websocket", "protocol": "json", "connected_at": 1000,
            "last_seen": 1001, "channels": ["a", "b"],
        });
        assert_eq!(told["connections"][name(5)], expected);
        assert_eq!(told["connections"][name(6)]["user"], "");
    }
}
