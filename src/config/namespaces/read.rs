//! Reading the entries. An error says in which entry it is, at which key, and what to write there:
//! the text is often long, and pasted from elsewhere.

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use serde_json::{Map, Value};

use super::{
    ENTRIES_MAX, FILE_BYTES_MAX, HISTORY_SIZE_MAX, HISTORY_TTL_LEAST, HISTORY_TTL_MAX,
    NAME_BYTES_MAX, NamespaceEntry, NamespaceFlag, SLOW_POLICY_WORDS, foreign,
};
use crate::config::value;

/// Reads the entries from JSON, or from a file of it when the text is none.
pub(in crate::config) fn read(text: &str) -> Result<Vec<NamespaceEntry>, String> {
    if text.starts_with(['[', '{']) {
        return parse(text);
    }
    let json = file(text).map_err(|error| {
        format!("cannot be read as a file: {error}; give the path of one, or JSON in brackets")
    })?;
    // Editors of some systems put a byte order mark in front.
    parse(json.trim_start_matches('\u{feff}').trim())
}

fn file(path: &str) -> io::Result<String> {
    let mut text = String::new();
    let mut bounded = File::open(path)?.take(FILE_BYTES_MAX + 1);
    bounded.read_to_string(&mut text)?;
    match text.len() as u64 > FILE_BYTES_MAX {
        true => Err(io::Error::other("it is larger than 1MiB")),
        false => Ok(text),
    }
}

fn parse(json: &str) -> Result<Vec<NamespaceEntry>, String> {
    let entries = match serde_json::from_str(json) {
        Ok(Value::Array(entries)) => entries,
        Ok(Value::Object(_)) => {
            return Err(
                "an object, write an array of entries: what Centrifugo has as \"namespaces\", and \
                 {\"name\":\"\",…} for what it has as \"without_namespace\""
                    .to_owned(),
            );
        }
        Ok(_) => return Err("not an array of entries, write [{\"name\":\"chat\"}]".to_owned()),
        Err(error) => return Err(format!("not JSON: {error}")),
    };
    if entries.len() > ENTRIES_MAX {
        return Err(format!("more than {ENTRIES_MAX} namespaces"));
    }
    let mut read: Vec<NamespaceEntry> = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let Value::Object(keys) = entry else {
            return Err(format!(
                "entry {} is not an object, write {{\"name\":\"chat\"}}",
                index + 1
            ));
        };
        let named = name(keys).map_err(|problem| format!("entry {}: {problem}", index + 1))?;
        let entry = entry_of(named, keys).map_err(|problem| format!("{named:?}: {problem}"))?;
        if read.iter().any(|other| other.name == entry.name) {
            return Err(format!("{named:?} has two entries, write one"));
        }
        read.push(entry);
    }
    Ok(read)
}

fn name(keys: &Map<String, Value>) -> Result<&str, String> {
    let name = match keys.get("name") {
        None => "",
        Some(Value::String(name)) => name,
        Some(other) => return Err(format!("\"name\" is {}, write a text", shown(other))),
    };
    let is_sound = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("the name is longer than {NAME_BYTES_MAX} bytes"));
    }
    match name.chars().find(|c| !is_sound(*c)) {
        Some(bad) => Err(format!(
            "{bad:?} in the name {name:?}, write letters, digits, - and _ only"
        )),
        None => Ok(name),
    }
}

fn entry_of(name: &str, keys: &Map<String, Value>) -> Result<NamespaceEntry, String> {
    let mut entry = NamespaceEntry::new(name);
    for (key, value) in keys {
        if let Some((_, flag)) = NamespaceFlag::ALL.iter().find(|(known, _)| known == key) {
            entry.flags.insert(*flag, boolean(key, value)?);
            continue;
        }
        match key.as_str() {
            "name" => {}
            "off" => entry.is_off = boolean(key, value)?,
            "history_size" => entry.history_size = Some(size(value)?),
            "history_ttl" => entry.history_ttl = Some(ttl(value)?),
            "slow_policy" => {
                let word = value.as_str().unwrap_or_default();
                let policy = value::word(word, SLOW_POLICY_WORDS).map_err(|_| {
                    format!(
                        "\"slow_policy\" is {}, write \"close\" or \"drop\"",
                        shown(value)
                    )
                })?;
                entry.slow_policy = Some(policy);
            }
            _ => foreign::pass(key, value)?,
        }
    }
    if entry.is_off && name.is_empty() {
        return Err(
            "the namespace of names without a prefix cannot be taken away; close it with \
             \"allow_subscribe_for_client\":false and \"allow_publish_for_client\":false"
                .to_owned(),
        );
    }
    Ok(entry)
}

fn boolean(key: &str, value: &Value) -> Result<bool, String> {
    value
        .as_bool()
        .ok_or_else(|| format!("{key:?} is {}, write true or false", shown(value)))
}

fn size(value: &Value) -> Result<usize, String> {
    let size = value.as_u64().filter(|size| *size <= HISTORY_SIZE_MAX);
    size.and_then(|size| usize::try_from(size).ok())
        .ok_or_else(|| {
            format!(
                "\"history_size\" is {}, write a number from 0 to {HISTORY_SIZE_MAX}",
                shown(value)
            )
        })
}

fn ttl(value: &Value) -> Result<Duration, String> {
    let refused = |problem: &str| {
        format!(
            "\"history_ttl\" is {}: {problem}, write \"0\" or a time such as \"300s\", at most \
             \"{}\"",
            shown(value),
            value::show_duration(HISTORY_TTL_MAX)
        )
    };
    let text = value
        .as_str()
        .ok_or_else(|| refused("no text with a unit"))?;
    let ttl = parts(text).try_fold(Duration::ZERO, |sum, part| {
        sum.checked_add(value::duration(part).ok()?)
    });
    match ttl {
        None => Err(refused("no time")),
        Some(ttl) if ttl > HISTORY_TTL_MAX => Err(refused("too long")),
        Some(ttl) if !ttl.is_zero() && ttl < HISTORY_TTL_LEAST => Err(refused("too short")),
        Some(ttl) => Ok(ttl),
    }
}

/// `1h30m`, as Centrifugo takes it too, in its parts; at least one.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let unit = text.find(|c: char| !c.is_ascii_digit());
        let end = unit.and_then(|unit| {
            let next = text[unit..].find(|c: char| c.is_ascii_digit());
            next.map(|next| unit + next)
        });
        let (part, after) = text.split_at(end.unwrap_or(text.len()));
        rest = end.map(|_| after);
        Some(part)
    })
}

/// A value for an error: short.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(VALUE_CHARS_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

const VALUE_CHARS_SHOWN: usize = 40;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::SlowPolicy;
    use crate::config::namespaces::show;
    use crate::config::temporary::TemporaryFile;

    fn one(json: &str) -> NamespaceEntry {
        let entries = read(json).unwrap_or_else(|problem| panic!("{json}: {problem}"));
        assert_eq!(entries.len(), 1);
        entries.into_iter().next().unwrap()
    }

    fn problem(json: &str) -> String {
        read(json).expect_err(json)
    }

    #[test]
    fn an_entry_says_what_it_names_and_nothing_else() {
        assert_eq!(read("[]"), Ok(Vec::new()));
        assert_eq!(one(r#"[{"name":"chat"}]"#), NamespaceEntry::new("chat"));
        assert_eq!(one("[{}]"), NamespaceEntry::new(""));
        let entry = one(r#" [ {"name": "a_B-9", "presence": true, "raw": false,
                "history_size": 100000, "history_ttl": "168h", "slow_policy": "drop"} ] "#
            .trim());
        let expected = NamespaceEntry {
            slow_policy: Some(SlowPolicy::Drop),
            ..NamespaceEntry::new("a_B-9")
                .with(NamespaceFlag::Presence, true)
                .with(NamespaceFlag::Raw, false)
                .history(100_000, Duration::from_secs(168 * 3600))
        };
        assert_eq!(entry, expected);
        let off = one(r#"[{"off":true,"name":"demo"}]"#);
        assert!(off.is_off && off.name == "demo");
    }

    #[test]
    fn every_flag_has_a_key_and_what_is_shown_is_read_as_the_same() {
        let all = NamespaceFlag::ALL.map(|(_, flag)| (flag, true));
        let flags = BTreeMap::from(all);
        assert_eq!(flags.len(), all.len());
        for (key, flag) in NamespaceFlag::ALL {
            assert_eq!(flag.key(), key);
            let entry = one(&format!("[{{\"name\":\"x\",\"{key}\":true}}]"));
            assert_eq!(entry, NamespaceEntry::new("x").with(flag, true));
        }
        let full = NamespaceEntry {
            flags,
            is_off: true,
            slow_policy: Some(SlowPolicy::Close),
            ..NamespaceEntry::new("x").history(0, Duration::ZERO)
        };
        let entries = [full, NamespaceEntry::new("")];
        assert_eq!(read(&show(&entries)).as_deref(), Ok(&entries[..]));
    }

    #[test]
    fn an_entry_of_centrifugo_s_is_taken_as_it_stands() {
        let entry = one(
            r#"[{"name":"facts","presence":true,"join_leave":true,"history_size":10,
            "history_ttl":"1h30m","history_meta_ttl":"0s","force_positioning":true,
            "force_recovery":true,"force_recovery_mode":"","allow_positioning":true,
            "allow_recovery":false,"allowed_delta_types":[],"delta_publish":false,
            "allow_subscribe_for_client":true,"allow_user_limited_channels":true,
            "channel_regex":"","subscribe_proxy_enabled":false,
            "subscribe_proxy_name":"default"}]"#,
        );
        assert_eq!(entry.history_ttl, Some(Duration::from_secs(5400)));
        assert_eq!(entry.flags.len(), 6);
        assert!(entry.flags.values().all(|is_on| *is_on));
    }

    #[test]
    fn a_time_has_units() {
        let ttl = |text: &str| super::ttl(&Value::from(text)).ok();
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(ttl("300s"), seconds(300));
        assert_eq!(ttl("1h30m5s"), seconds(5405));
        assert_eq!(ttl("0"), seconds(0));
        assert_eq!(ttl("0s"), seconds(0));
        assert_eq!(ttl("100ms"), Some(Duration::from_millis(100)));
        assert_eq!(ttl("168h"), seconds(604_800));
        for text in [
            "", "300", "1h30", "h", "99ms", "168h1s", "1d", "-1s", "1.5h", "1s 2s s",
        ] {
            assert_eq!(ttl(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_entry_and_the_remedy() {
        let cases = [
            ("[{\"name\":\"chat\"}", "not JSON: EOF"),
            ("{\"namespaces\":[]}", "an object, write an array"),
            ("[1]", "entry 1 is not an object"),
            (
                r#"[{"name":"a"},{"name":7}]"#,
                "entry 2: \"name\" is 7, write a text",
            ),
            (
                r#"[{"name":"a:b"}]"#,
                "entry 1: ':' in the name \"a:b\", write letters",
            ),
            (r#"[{"name":"a*"}]"#, "'*' in the name"),
            (r#"[{"name":"a"},{"name":"a"}]"#, "\"a\" has two entries"),
            (r#"[{},{"name":""}]"#, "\"\" has two entries"),
            (r#"[{"off":true}]"#, "cannot be taken away; close it with"),
            (
                r#"[{"name":"a","off":1}]"#,
                "\"off\" is 1, write true or false",
            ),
            (
                r#"[{"name":"a","presence":"yes"}]"#,
                "\"a\": \"presence\" is \"yes\", write true or false",
            ),
            (
                r#"[{"name":"a","history_size":-1}]"#,
                "is -1, write a number from 0 to 100000",
            ),
            (
                r#"[{"name":"a","history_size":100001}]"#,
                "from 0 to 100000",
            ),
            (
                r#"[{"name":"a","history_size":"9"}]"#,
                "\"history_size\" is \"9\", write a number",
            ),
            (
                r#"[{"name":"a","history_ttl":300}]"#,
                "\"history_ttl\" is 300: no text with a unit",
            ),
            (r#"[{"name":"a","history_ttl":"169h"}]"#, "too long, write"),
            (
                r#"[{"name":"a","slow_policy":"kill"}]"#,
                "write \"close\" or \"drop\"",
            ),
            (
                r#"[{"name":"a","presense":true}]"#,
                "did you mean \"presence\"?",
            ),
            (
                r#"[{"name":"a","histroy_size":9}]"#,
                "did you mean \"history_size\"?",
            ),
            (r#"[{"name":"a","zzz":9}]"#, "docs/access.md lists them"),
            (
                r#"[{"name":"a","recover":true}]"#,
                "an old name, write \"force_recovery\"",
            ),
            (r#"[{"name":"a","rate":9}]"#, "set TIDEMILL_RATE_MESSAGES"),
            (
                r#"[{"name":"a","channel_regex":"^a$"}]"#,
                "\"channel_regex\" is \"^a$\", and that key of Centrifugo's is not supported",
            ),
        ];
        for (json, phrase) in cases {
            let problem = problem(json);
            assert!(problem.contains(phrase), "{json}: {problem}");
            assert!(problem.len() < 250, "{problem}");
        }
    }

    #[test]
    fn names_and_entries_are_bounded() {
        let named = |bytes: usize| format!("[{{\"name\":\"{}\"}}]", "n".repeat(bytes));
        assert!(read(&named(64)).is_ok());
        assert!(problem(&named(65)).contains("longer than 64 bytes"));
        let many = |entries: usize| {
            let entries: Vec<_> = (0..entries)
                .map(|entry| format!("{{\"name\":\"n{entry}\"}}"))
                .collect();
            format!("[{}]", entries.join(","))
        };
        assert_eq!(read(&many(256)).map(|entries| entries.len()), Ok(256));
        assert!(problem(&many(257)).contains("more than 256 namespaces"));
    }

    #[test]
    fn the_entries_may_be_in_a_file() {
        let json = "\u{feff}\n[\n  {\"name\": \"chat\", \"presence\": true}\n]\n";
        let file = TemporaryFile::new("namespaces", json);
        assert_eq!(one(file.path()), one(json.trim_matches(['\u{feff}', '\n'])));
        let broken = TemporaryFile::new("namespaces-broken", "[{\"name\": chat}]");
        assert!(problem(broken.path()).contains("not JSON: expected value at line 1 column 11"));
        let large = TemporaryFile::new("namespaces-large", &" ".repeat((1 << 20) + 1));
        assert!(problem(large.path()).contains("larger than 1MiB"));
        let missing = problem("/nowhere/namespaces.json");
        assert!(
            missing.contains("give the path of one, or JSON in brackets"),
            "{missing}"
        );
    }

    #[test]
    fn a_long_value_is_cut_in_an_error() {
        let long = format!(r#"[{{"name":"a","presence":"{}"}}]"#, "ü".repeat(10_000));
        assert!(problem(&long).len() < 200);
    }
}
