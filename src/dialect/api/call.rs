//! What a request waits for: the answers of the homes and reactors that it asked.

use super::{
    answers,
    fault::{Code, Fault},
};
use crate::handler::{Channel, Heard, Position, ReplyKind, Resident};

/// What has become of one command.
#[derive(Debug)]
pub enum Begun {
    /// The result, which is a value of JSON.
    Done(String),
    Waits(Waiting),
}

impl Begun {
    /// Done, and there is nothing to tell.
    pub fn empty() -> Self {
        Self::Done("{}".to_owned())
    }
}

/// One command, and what has come of what it asked for.
#[derive(Debug)]
pub enum Waiting {
    /// One answer of one home.
    Home(Option<ReplyKind>),
    /// An answer for each channel, where it did not fail at once.
    Broadcast {
        responses: Vec<Option<Result<Position, Fault>>>,
        left: usize,
    },
    /// The channels of each reactor.
    Channels {
        found: Vec<(Channel, u32)>,
        is_cut: bool,
        left: u16,
    },
    /// The connections of each reactor.
    Connections {
        found: Vec<Resident>,
        limit: usize,
        left: u16,
    },
}

impl Waiting {
    /// Takes in what was heard for its `item`.
    pub fn hear(&mut self, item: usize, heard: Heard) {
        match (self, heard) {
            (Self::Home(answer), Heard::Reply(reply)) => *answer = Some(reply.answer),
            (Self::Broadcast { responses, left }, Heard::Reply(reply)) => {
                let Some(response @ None) = responses.get_mut(item) else {
                    return;
                };
                *response = Some(published(&reply.answer));
                *left -= 1;
            }
            (
                Self::Channels {
                    found,
                    is_cut,
                    left,
                },
                Heard::Reply(reply),
            ) => {
                let ReplyKind::Channels {
                    channels,
                    is_cut: more,
                } = reply.answer
                else {
                    return;
                };
                found.extend(channels);
                *is_cut |= more;
                *left = left.saturating_sub(1);
            }
            (Self::Connections { found, left, .. }, Heard::Residents { residents, .. }) => {
                found.extend(residents);
                *left = left.saturating_sub(1);
            }
            _ => {}
        }
    }

    /// How many answers are still to come.
    pub fn left(&self) -> usize {
        match self {
            Self::Home(answer) => usize::from(answer.is_none()),
            Self::Broadcast { left, .. } => *left,
            Self::Channels { left, .. } | Self::Connections { left, .. } => (*left).into(),
        }
    }

    /// Writes the result, which ends where `out` is `end` bytes long if it can.
    pub fn write(&self, out: &mut String, end: usize) -> Result<(), Fault> {
        match self {
            Self::Home(answer) => match answer {
                Some(answer) => write_answer(answer, out, end)?,
                None => return Err(Code::Internal.into()),
            },
            Self::Broadcast { responses, .. } => {
                out.push_str("{\"responses\":[");
                for (number, response) in responses.iter().enumerate() {
                    if number > 0 {
                        out.push(',');
                    }
                    let response = response.clone().unwrap_or(Err(Code::Internal.into()));
                    answers::envelope(out, "result", |out| {
                        answers::position(out, response?);
                        Ok(())
                    });
                }
                out.push_str("]}");
            }
            Self::Channels { found, is_cut, .. } => answers::channels(out, end, found, *is_cut),
            Self::Connections { found, limit, .. } => {
                let shown = &found[..found.len().min(*limit)];
                answers::connections(out, end, shown, shown.len() < found.len());
            }
        }
        Ok(())
    }
}

fn published(answer: &ReplyKind) -> Result<Position, Fault> {
    match answer {
        ReplyKind::Published(position) => Ok(*position),
        _ => Err(Fault::new(Code::TooManyRequests, BUSY)),
    }
}

/// Why a home refuses a publication.
const BUSY: &str = "subscribers of the channel are too far behind";

fn write_answer(answer: &ReplyKind, out: &mut String, end: usize) -> Result<(), Fault> {
    match answer {
        ReplyKind::Published(position) => answers::position(out, *position),
        ReplyKind::Busy => return Err(Fault::new(Code::TooManyRequests, BUSY)),
        ReplyKind::History {
            position,
            publications,
        } => {
            let publications = publications.iter().map(|publication| &**publication);
            answers::history(out, end, *position, publications);
        }
        ReplyKind::Unrecoverable(_) => return Err(Code::Unrecoverable.into()),
        ReplyKind::Presence(members) => {
            answers::presence(out, end, members.iter().map(|member| &**member));
        }
        ReplyKind::PresenceStats { clients, users } => {
            let stats = format_args!("{{\"num_clients\":{clients},\"num_users\":{users}}}");
            answers::write(out, stats);
        }
        _ => out.push_str("{}"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::handler::Reply;

    fn reply(answer: ReplyKind) -> Heard {
        Heard::Reply(Reply {
            tag: 0,
            channel: "c".into(),
            answer,
        })
    }

    fn published(offset: u64) -> Heard {
        reply(ReplyKind::Published(Position { offset, epoch: 1 }))
    }

    fn written(waiting: &Waiting) -> Result<Value, Fault> {
        let mut out = String::new();
        waiting.write(&mut out, 1000)?;
        Ok(serde_json::from_str(&out).unwrap())
    }

    #[test]
    fn one_home_answers_once() {
        let mut waiting = Waiting::Home(None);
        assert_eq!(waiting.left(), 1);
        waiting.hear(0, published(4));
        assert_eq!(waiting.left(), 0);
        assert_eq!(
            written(&waiting).unwrap(),
            json!({"offset": 4, "epoch": "1"})
        );

        waiting.hear(0, reply(ReplyKind::Busy));
        assert_eq!(written(&waiting).unwrap_err().code, Code::TooManyRequests);
        let top = Position {
            offset: 9,
            epoch: 1,
        };
        waiting.hear(0, reply(ReplyKind::Unrecoverable(top)));
        assert_eq!(written(&waiting).unwrap_err().code, Code::Unrecoverable);
        let stats = ReplyKind::PresenceStats {
            clients: 3,
            users: 2,
        };
        waiting.hear(0, reply(stats));
        assert_eq!(
            written(&waiting).unwrap(),
            json!({"num_clients": 3, "num_users": 2})
        );
        waiting.hear(0, reply(ReplyKind::HistoryRemoved));
        assert_eq!(written(&waiting).unwrap(), json!({}));
    }

    #[test]
    fn a_broadcast_waits_for_each_channel_that_did_not_fail_at_once() {
        let refused = Some(Err(Fault::new(Code::UnknownChannel, "x")));
        let mut waiting = Waiting::Broadcast {
            responses: vec![None, refused, None],
            left: 2,
        };
        waiting.hear(2, reply(ReplyKind::Busy));
        // What was answered already, and what was never asked.
        for item in [2, 1, 3, 99] {
            waiting.hear(item, published(1));
            assert_eq!(waiting.left(), 1);
        }
        waiting.hear(0, published(8));
        assert_eq!(waiting.left(), 0);
        let told = written(&waiting).unwrap();
        let responses = told["responses"].as_array().unwrap();
        assert_eq!(responses[0]["result"], json!({"offset": 8, "epoch": "1"}));
        assert_eq!(responses[1]["error"]["code"], 102);
        assert_eq!(responses[2]["error"]["code"], 111);
        assert_eq!(responses.len(), 3);
    }

    #[test]
    fn what_every_reactor_answers_is_put_together() {
        let mut waiting = Waiting::Channels {
            found: Vec::new(),
            is_cut: false,
            left: 2,
        };
        for (channel, is_cut) in [("a", true), ("b", false)] {
            let channels = vec![(channel.into(), 1)];
            waiting.hear(0, reply(ReplyKind::Channels { channels, is_cut }));
        }
        assert_eq!(waiting.left(), 0);
        let told = written(&waiting).unwrap();
        assert_eq!(told["channels"].as_object().unwrap().len(), 2);
        assert_eq!(told["truncated"], true);
    }
}
