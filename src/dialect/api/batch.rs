//! Several commands in one request, one after the other or all at once.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
};

use serde_json::value::RawValue;

use super::{
    answers,
    body::{Body, Field},
    call::Begun,
    fault::{Code, Fault},
    methods::{Method, Methods, Tag},
};
use crate::handler::{Caller, Heard};

/// Commands, and what has become of them.
#[derive(Debug)]
pub struct Batch {
    serial: u8,
    steps: Vec<Step>,
    /// What has not begun yet.
    rest: VecDeque<Box<RawValue>>,
    /// Each command waits for the one before it.
    is_sequential: bool,
    /// How many answers are waited for.
    left: usize,
    /// How many more channels may be published to.
    channels_left: usize,
    answer_bytes_max: usize,
}

/// One command.
#[derive(Debug)]
struct Step {
    method: &'static str,
    state: Result<Begun, Fault>,
}

impl Batch {
    pub fn read(
        body: &Body<'_>,
        methods: &Methods,
        serial: u8,
        answer_bytes_max: usize,
    ) -> Result<Self, Fault> {
        let commands = body.raw(Field::Commands).map(RawValue::get);
        let commands =
            commands.ok_or_else(|| Fault::field("commands", "an array, and found none"))?;
        let rest = serde_json::from_str::<VecDeque<Box<RawValue>>>(commands);
        let rest = rest.map_err(|_| Fault::field("commands", "an array"))?;
        if rest.len() > COMMANDS_MAX {
            let detail = format!("a batch has at most {COMMANDS_MAX} commands");
            return Err(Fault::new(Code::LimitExceeded, detail));
        }
        Ok(Self {
            serial,
            steps: Vec::with_capacity(rest.len()),
            rest,
            is_sequential: !body.flag(Field::Parallel)?,
            left: 0,
            channels_left: methods.channels_max,
            answer_bytes_max,
        })
    }

    /// Begins what may begin now.
    pub fn go_on(&mut self, methods: &Methods, caller: &mut Caller<'_>) {
        let left_max = if self.is_sequential { 0 } else { ANSWERS_MAX };
        while self.left <= left_max
            && let Some(command) = self.rest.pop_front()
        {
            let tag = Tag {
                serial: self.serial,
                command: self.steps.len() as u16,
                item: 0,
            };
            let step = Step::begin(methods, caller, &command, tag, &mut self.channels_left);
            self.left += step.left();
            self.steps.push(step);
        }
    }

    /// One of the commands hears something.
    pub fn hear(&mut self, tag: Tag, heard: Heard) {
        let Some(step) = self.steps.get_mut(usize::from(tag.command)) else {
            return;
        };
        let before = step.left();
        if let Ok(Begun::Waits(waiting)) = &mut step.state {
            waiting.hear(tag.item.into(), heard);
        }
        self.left -= before - step.left();
    }

    pub fn is_complete(&self) -> bool {
        self.left == 0 && self.rest.is_empty()
    }

    /// The answer: a reply for each command, in their order.
    pub fn write(&self) -> String {
        let mut out = String::with_capacity(64 * (self.steps.len() + 1));
        out.push_str("{\"replies\":[");
        for (number, step) in self.steps.iter().enumerate() {
            if number > 0 {
                out.push(',');
            }
            answers::envelope(&mut out, step.method, |out| {
                step.write(out, self.answer_bytes_max)
            });
        }
        out.push_str("]}");
        out
    }
}

impl Step {
    fn begin(
        methods: &Methods,
        caller: &mut Caller<'_>,
        command: &RawValue,
        tag: Tag,
        channels_left: &mut usize,
    ) -> Self {
        let (method, state) = match named(command) {
            Ok((method, text)) => {
                let begun = Body::read(text)
                    .and_then(|body| methods.begin(method, caller, &body, tag, channels_left));
                (method.name(), begun)
            }
            Err(fault) => ("", Err(fault)),
        };
        Self { method, state }
    }

    fn left(&self) -> usize {
        match &self.state {
            Ok(Begun::Waits(waiting)) => waiting.left(),
            Ok(Begun::Done(_)) | Err(_) => 0,
        }
    }

    fn write(&self, out: &mut String, end: usize) -> Result<(), Fault> {
        match &self.state {
            Err(fault) => Err(fault.clone()),
            // The commands before it have taken all the room there is.
            Ok(_) if out.len() > end => {
                let detail = format!("the answer would have more than {end} bytes");
                Err(Fault::new(Code::LimitExceeded, detail))
            }
            Ok(Begun::Done(done)) => {
                out.push_str(done);
                Ok(())
            }
            Ok(Begun::Waits(waiting)) => waiting.write(out, end),
        }
    }
}

/// The method of a command and its body: `{"publish":{…}}`.
fn named(command: &RawValue) -> Result<(Method, &str), Fault> {
    let entries = serde_json::from_str::<BTreeMap<Cow<'_, str>, &RawValue>>(command.get());
    let entry = entries.ok().filter(|entries| entries.len() == 1);
    let entry = entry.and_then(|mut entries| entries.pop_first());
    let (name, body) =
        entry.ok_or_else(|| Fault::field("command", "an object with one method and its body"))?;
    let method = Method::named(&name);
    let method = method.ok_or_else(|| Fault::new(Code::MethodNotFound, name.into_owned()))?;
    Ok((method, body.get()))
}

/// Commands of one batch.
const COMMANDS_MAX: usize = 1000;

/// Answers that commands which do not wait for each other wait for at a time.
const ANSWERS_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(command: &str) -> Result<(Method, String), Fault> {
        let raw = RawValue::from_string(command.to_owned()).unwrap();
        named(&raw).map(|(method, body)| (method, body.to_owned()))
    }

    #[test]
    fn a_command_is_named_by_its_only_key() {
        let (method, body) = read(r#"{"history":{"channel": "a"}}"#).unwrap();
        assert_eq!(method, Method::History);
        assert_eq!(body, r#"{"channel": "a"}"#);
        assert_eq!(
            read(r#"{"fly":{}}"#).unwrap_err().code,
            Code::MethodNotFound
        );
        assert_eq!(
            read(r#"{"batch":{}}"#).unwrap_err().code,
            Code::MethodNotFound
        );
        for command in ["{}", "[]", "5", r#"{"info":{},"stats":{}}"#] {
            assert_eq!(
                read(command).unwrap_err().code,
                Code::BadRequest,
                "{command}"
            );
        }
    }
}
