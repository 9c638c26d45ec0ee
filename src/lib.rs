//! Tidemill: a WebSocket server for very many long-lived connections.
//!
//! One single-threaded reactor a core owns a slab of connections. The crate is the server's
//! library: write a [`Handler`], give it to [`server::run`], and the rest (accepting, handshakes,
//! frames, heartbeats, limits, backpressure, shutdown) is done. `ARCHITECTURE.md` shows the whole
//! house; this is its map, from the ground up, and imports point only down:
//!
//! - [`config`], [`metrics`], `sys`: options, counters, system calls;
//! - [`protocol`]: RFC 6455 without sockets; `transport`: sockets without protocol;
//!   `hub`: channels over all reactors; `slots`, `wheel`, `mailbox`: the reactor's parts;
//! - `connection`: one peer, where protocol and transport meet;
//! - [`handler`]: the application's seam;
//! - `reactor`: the loop; [`dialect`]: what the paths of the `tidemill` binary speak;
//! - [`server`]: starts it all and ends it all; [`load`]: the other end, for measuring.

pub mod cli;
pub mod config;
mod connection;
pub mod dialect;
pub mod gate;
pub mod handler;
mod hub;
pub mod load;
mod mailbox;
pub mod metrics;
pub mod protocol;
mod reactor;
pub mod server;
mod slots;
mod sys;
mod transport;
mod wheel;

pub use config::Config;
pub use handler::{Accept, CloseCode, ConnId, Control, Failure, Handler, Incoming, Message, Peer};
pub use handler::{Answer, Caller, ClientId, Command, Ending, Heard, Resident, What};
pub use handler::{
    Channel, Frame, Kind, Member, Options, Payload, Position, Publication, Publish, PublishError,
    Question, RESERVED, Reply, ReplyKind, Subscribe, SubscribeError,
};
pub use handler::{Claims, Door, Identity, KeyCheck, OriginList, Revocation, TokenError};
pub use handler::{Reason, Refusal, Request, Response, Upgrade, Verdict};
