//! TLS from outside: what a client gets that keeps to the protocol, and what becomes of those that
//! do not, while twenty that do are served without a fault. Needs `openssl`.

#![cfg(target_os = "linux")]

#[path = "../outside/mod.rs"]
mod outside;

mod authority;
mod bystanders;
mod client;
mod forge;
mod server;
mod socket;

mod bounds;
mod clients;
mod garbage;
mod http;
mod names;
mod options;
mod resumption;
mod rotation;
mod s_client;
mod sealed;
mod served;
mod stalls;
