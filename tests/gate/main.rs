//! Who may come in, from outside: origins, tokens, caps and rates, each met by a peer that has the
//! right and by many that have not; and each refusal by its answer, its counter and its log line.
//!
//! Peers come from addresses of the loopback network, one a test or more; what the server counts
//! is read from 127.0.0.1, where no peer comes from.

#![cfg(target_os = "linux")]

#[path = "../tls/authority.rs"]
#[allow(dead_code, reason = "this target uses a part of it")]
mod authority;
#[path = "../tls/client.rs"]
#[allow(dead_code, reason = "this target uses a part of it")]
mod client;
#[path = "../outside/mod.rs"]
mod outside;
#[path = "../tls/server.rs"]
#[allow(dead_code, reason = "this target uses a part of it")]
mod server;
#[path = "../server/site.rs"]
#[allow(dead_code, reason = "this target uses a part of it")]
mod site;
#[path = "../tls/socket.rs"]
#[allow(dead_code, reason = "this target uses a part of it")]
mod socket;
#[path = "../server/wire.rs"]
#[allow(dead_code, reason = "this target uses a part of it")]
mod wire;

mod call;
mod guarded;
mod jwt;

mod caps;
mod embedded;
mod expiry;
mod forged;
mod forwarded;
mod jwks;
mod keys;
mod leaving;
mod origins;
mod proxied;
mod rates;
mod revocation;
mod secrecy;
mod slow;
mod tokens;
