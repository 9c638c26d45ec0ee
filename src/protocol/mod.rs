//! RFC 6455 without sockets, clocks or threads.
//!
//! Bytes go in, events come out; messages go in, bytes come out. Everything here is pure, so a
//! test can replay any conversation, cut anywhere. Both roles are spoken: a server and a client
//! joined in memory are a complete WebSocket connection.
//!
//! - [`handshake`] turns request bytes into an upgrade and an upgrade into a 101, and its client's
//!   side the other way round; [`http`] is the plain HTTP around it.
//! - [`frame`] knows the header, the mask and how to encode once for many.
//! - [`session`] is the state machine of an open connection; it reads an `Input`, gives `Message`s
//!   and keeps what is `Partial`.
//! - [`error`] names what a peer can do wrong, and the close code for each.

pub mod error;
pub mod frame;
pub mod handshake;
pub mod http;
mod input;
mod message;
mod partial;
pub mod proxy;
pub mod session;

pub use error::ProtocolError;
pub use frame::{CloseCode, Frame};
pub use input::Input;
pub use message::{Close, Event, Message};
pub use session::{Role, Rules, Session, State};
