//! Keys that are none of ours: what Centrifugo has beyond what there is here, what it once had, and
//! slips of the fingers.

use serde_json::Value;

use super::{NamespaceFlag, read::shown};
use crate::config::suggest;

/// Refuses a key with what to write instead. Centrifugo's that switch nothing on pass, so that a
/// whole entry of its configuration can be pasted.
pub(super) fn pass(key: &str, value: &Value) -> Result<(), String> {
    if ALWAYS_SO.contains(&key) {
        return Ok(());
    }
    if let Some((_, now)) = RENAMED.iter().find(|(old, _)| *old == key) {
        return Err(format!("{key:?} is an old name, write {now:?}"));
    }
    if UNSUPPORTED.contains(&key) {
        return match is_idle(value) {
            true => Ok(()),
            false => Err(format!(
                "{key:?} is {}, and that key of Centrifugo's is not supported; take it out",
                shown(value)
            )),
        };
    }
    if key == "rate" {
        return Err(
            "\"rate\" is not supported, set TIDEMILL_RATE_MESSAGES for all connections".to_owned(),
        );
    }
    let flags = NamespaceFlag::ALL.iter().map(|(key, _)| *key);
    let known = flags.chain(OTHER_KEYS).map(str::to_owned);
    Err(match suggest::nearest(key, "", known) {
        Some(near) => format!("{key:?} is no key of a namespace, did you mean {near:?}?"),
        None => format!("{key:?} is no key of a namespace; docs/access.md lists them"),
    })
}

/// Whether a key with this value asks for nothing beyond what there is.
fn is_idle(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(is_on) => !is_on,
        Value::Number(number) => number.as_u64() == Some(0),
        Value::String(text) => ["", "0", "0s", "default", "stream"].contains(&&**text),
        Value::Array(items) => items.is_empty(),
        Value::Object(keys) => keys.is_empty(),
    }
}

const OTHER_KEYS: [&str; 5] = ["name", "off", "history_size", "history_ttl", "slow_policy"];

/// Where history is kept, a subscriber may always ask for what it missed.
const ALWAYS_SO: [&str; 2] = ["allow_positioning", "allow_recovery"];

/// Of earlier versions of Centrifugo, and of its client protocol.
const RENAMED: [(&str, &str); 8] = [
    ("anonymous", "allow_subscribe_for_anonymous"),
    ("history_lifetime", "history_ttl"),
    ("history_recover", "force_recovery"),
    ("position", "force_positioning"),
    ("publish", "allow_publish_for_client"),
    ("recover", "force_recovery"),
    ("recoverable", "force_recovery"),
    ("subscribe_to_publish", "allow_publish_for_subscriber"),
];

/// What Centrifugo 5 and 6 have beyond what there is here.
const UNSUPPORTED: [&str; 36] = [
    "allow_tags_filter",
    "allowed_delta_types",
    "auto_cache_recover",
    "batch_max_delay",
    "batch_max_size",
    "broker_name",
    "cache_empty_proxy_enabled",
    "cache_empty_proxy_name",
    "channel_regex",
    "delta_publish",
    "force_recovery_mode",
    "history_cel",
    "history_meta_ttl",
    "keep_latest_publication",
    "pattern",
    "presence_cel",
    "presence_manager_name",
    "proxy_publish",
    "proxy_sub_refresh",
    "proxy_subscribe",
    "proxy_subscribe_stream",
    "proxy_subscribe_stream_bidirectional",
    "publication_data_format",
    "publish_cel",
    "publish_proxy_enabled",
    "publish_proxy_name",
    "shared_position_sync",
    "sub_refresh_proxy_enabled",
    "sub_refresh_proxy_name",
    "subscribe_cel",
    "subscribe_proxy_enabled",
    "subscribe_proxy_name",
    "subscribe_stream_bidirectional",
    "subscribe_stream_proxy_bidirectional",
    "subscribe_stream_proxy_enabled",
    "subscribe_stream_proxy_name",
];
