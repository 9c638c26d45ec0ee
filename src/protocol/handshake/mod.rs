//! The opening handshake of RFC 6455, section 4, on both sides.
//!
//! The server's side answers an [`Upgrade`](super::http::Upgrade) that `Request::parse` already
//! found sound; the client's side writes a request and checks the answer. Neither owns a socket, a
//! clock or a source of randomness: the client's key is given to it.

mod answer;
mod client;
mod server;

pub use answer::HandshakeError;
pub use client::{Accepted, ClientHandshake};
pub use server::{accept, select_protocol};
