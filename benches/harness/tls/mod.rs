//! The same loads over TLS 1.3, whatever the server is made of.
//!
//! The client costs as little as it can, or it would be what is measured: handshakes by rustls
//! without any verification (OpenSSL takes twice what a server does), one receive and one send a
//! step, buffers that all connections share, and of the echoes prepared frames, in records of our
//! own making. Its ClientHello is always the same but for tickets, so what a server agrees to with
//! the first connection holds for all, and one that agrees to anything else ends the run.

pub mod certificate;
pub mod churn;
pub mod client;
pub mod exchange;
pub mod idle;
pub mod measure;
pub mod probe;
pub mod records;
pub mod storm;
pub mod tables;
pub mod tickets;
pub mod trust;
pub mod workload;
