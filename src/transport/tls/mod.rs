//! TLS 1.2 and 1.3 (RFC 5246, RFC 8446) between the socket and the bytes of a connection, by
//! rustls.
//!
//! [`Session`] is one side of one connection, [`Certificates`] what a server shows to its peers,
//! [`Trust`] what a client makes of them. An idle session owns no record buffer: records are
//! received into the reactor's shared buffer and opened there, and sealed into a [`SealBuffer`]
//! that all connections of a thread share.

mod certificates;
mod client;
mod resolver;
mod seal;
mod session;
mod suites;

use std::sync::Arc;

pub use certificates::{Certificates, CertificatesError, Tickets, subject};
pub use client::{Agreement, Authorities, Distrust, ServerName, Trust};
use rustls::crypto::CryptoProvider;
pub use seal::SealBuffer;
pub use session::{Handshake, Session, Violation};

/// The one crypto library, for whatever needs cryptography.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites = suites::suites(&provider);
    Arc::new(provider)
}
