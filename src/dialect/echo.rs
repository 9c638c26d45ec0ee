//! The two dialects that return what they are sent, text as text and binary as binary.

use crate::handler::{Message, Peer};

/// What the welcoming dialect says first.
pub const WELCOME: &str = r#"{"event":"connected","message":"Welcome!"}"#;

/// Sends a message back. The payload is not copied when it is large: the cork notes where it lies.
#[inline]
pub fn echo(peer: &mut Peer<'_>, message: Message<'_>) {
    peer.send(message);
}
