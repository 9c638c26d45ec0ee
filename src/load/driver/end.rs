//! Why connections end, in the words by which the report counts them.

use std::io;

use crate::{
    protocol::{ProtocolError, handshake::HandshakeError},
    transport::tls,
};

/// Why a connection ended.
pub enum End {
    Connect(io::Error),
    /// Connected, and before TLS was agreed on.
    Unsecured(io::Error),
    /// It broke TLS, or what it showed was not believed.
    Insecure(tls::Violation),
    Handshake(HandshakeError),
    TimedOut,
    Lost(io::Error),
    /// The server's Close, with code and reason.
    Closed(u16, String),
    Eof,
    Violation(ProtocolError),
}

impl End {
    pub fn during_handshake(&self) -> String {
        match self {
            Self::Connect(error) => format!("connect: {}", reason(error)),
            Self::Unsecured(_) | Self::Insecure(_) => format!("connect: {}", self.when_open()),
            Self::Handshake(error) => format!("handshake: {error}"),
            Self::TimedOut => "handshake: timed out".to_owned(),
            Self::Lost(error) => format!("handshake: {}", reason(error)),
            Self::Eof => "handshake: the connection ended before the answer".to_owned(),
            Self::Closed(..) | Self::Violation(_) => self.when_open(),
        }
    }

    pub fn when_open(&self) -> String {
        match self {
            Self::Closed(code, reason) if reason.is_empty() => {
                format!("closed by the server: {code}")
            }
            Self::Closed(code, reason) => format!("closed by the server: {code} {reason}"),
            Self::Eof => "ended by the server without a Close".to_owned(),
            Self::Violation(error) => format!("the server broke the protocol: {error}"),
            Self::Insecure(violation) => format!("TLS: {}", violation.of_server()),
            Self::Unsecured(error) => format!("TLS: {}", reason(error)),
            Self::TimedOut => "close: timed out".to_owned(),
            Self::Lost(error) | Self::Connect(error) => format!("connection: {}", reason(error)),
            Self::Handshake(error) => format!("handshake: {error}"),
        }
    }

    /// Before TLS was agreed on, by the end of what the server sends.
    pub fn unsecured_eof() -> Self {
        Self::Unsecured(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the connection ended in the handshake",
        ))
    }

    /// Why the server's certificate was not accepted, if that is why.
    pub fn distrust(&self) -> Option<tls::Distrust> {
        match self {
            Self::Insecure(violation) => violation.distrust(),
            _ => None,
        }
    }
}

/// What the system said, without its number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_lowercase()
}
