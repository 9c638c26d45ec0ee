//! The first connection to a server: what it agrees to, and whether the others agreed to the same.

use std::cell::OnceCell;
use std::fmt;
use std::io;
use std::sync::Arc;

use super::client::Dialer;
use super::tickets::Tickets;
use crate::socket::Endpoint;

/// Visits servers and holds them all to what the first one agreed to.
pub struct Probe {
    certificate_der: Vec<u8>,
    agreed: OnceCell<Parameters>,
}

/// What decides the work of a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    pub version: String,
    pub suite: String,
    pub group: String,
}

/// What one server does with a connection.
pub struct Agreement {
    pub parameters: Parameters,
    /// Session tickets after a full handshake.
    pub tickets: usize,
}

impl Probe {
    /// A probe that knows the certificate that all servers have.
    pub fn new(certificate_der: &[u8]) -> Self {
        Self {
            certificate_der: certificate_der.to_vec(),
            agreed: OnceCell::new(),
        }
    }

    /// Opens, uses and closes a connection.
    ///
    /// # Errors
    /// Other parameters than the first server's, another certificate, and all that can go wrong
    /// with a connection.
    pub fn visit(&self, server: &Endpoint) -> io::Result<Agreement> {
        let tickets = Arc::new(Tickets::default());
        let mut connection = Dialer::resuming(&tickets)?.open(server, None)?;
        connection.echo()?;
        let tls = connection.line.tls();
        let suite = tls.negotiated_cipher_suite();
        let group = tls.negotiated_key_exchange_group();
        let parameters = Parameters {
            version: named(tls.protocol_version()).replace("TLSv1_3", "TLS 1.3"),
            // rustls' names are not those of the registry.
            suite: named(suite.map(|suite| suite.suite())).replace("TLS13_", "TLS_"),
            group: named(group.map(|group| group.name())),
        };
        let chain = tls.peer_certificates().unwrap_or_default();
        if chain.first().map(AsRef::as_ref) != Some(&self.certificate_der[..]) {
            return Err(io::Error::other("the server has another certificate"));
        }
        let agreed = self.agreed.get_or_init(|| parameters.clone());
        if parameters != *agreed {
            return Err(io::Error::other(format!(
                "agreed to {parameters}, where the first server agreed to {agreed}"
            )));
        }
        connection.close()?;
        Ok(Agreement {
            parameters,
            tickets: tickets.count(),
        })
    }
}

fn named(value: Option<impl fmt::Debug>) -> String {
    value.map_or_else(|| "none".into(), |value| format!("{value:?}"))
}

impl fmt::Display for Parameters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            version,
            suite,
            group,
        } = self;
        write!(formatter, "{version}, {suite}, {group}")
    }
}
