//! Channels over real sockets and several reactors, by the chat example and by an application that
//! uses all of what a peer may do with them.

mod chat;
#[path = "../../examples/chat.rs"]
#[expect(dead_code, reason = "the tests have a main of their own")]
mod example;
mod peers;
mod site;
