//! What a peer can do wrong once the connection is a WebSocket, and the close code it earns.

use thiserror::Error;

use super::frame::CloseCode;

/// A violation of RFC 6455 by the other side. It ends that one connection and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// RFC 6455, 5.2: RSV1-3 are zero unless an extension that defines them was negotiated.
    #[error("reserved bit set")]
    ReservedBit,
    /// RFC 6455, 5.2: opcodes 3-7 and 11-15 are reserved.
    #[error("reserved opcode")]
    ReservedOpcode,
    /// RFC 6455, 5.1: a server closes the connection upon an unmasked frame.
    #[error("unmasked frame")]
    Unmasked,
    /// RFC 6455, 5.1: a client closes the connection upon a masked frame.
    #[error("masked frame")]
    Masked,
    /// RFC 6455, 5.2: the minimal number of bytes must be used to encode the length, and the
    /// most significant bit of a 64-bit length is zero.
    #[error("malformed length")]
    MalformedLength,
    /// RFC 6455, 5.5: control frames are not fragmented.
    #[error("fragmented control frame")]
    FragmentedControl,
    /// RFC 6455, 5.5: control frames carry at most 125 bytes.
    #[error("control frame too long")]
    ControlTooLong,
    /// RFC 6455, 5.4: a continuation needs a message that it continues.
    #[error("unexpected continuation")]
    UnexpectedContinuation,
    /// RFC 6455, 5.4: fragments of one message are not interleaved with another message.
    #[error("expected continuation")]
    ExpectedContinuation,
    /// RFC 6455, 5.5.1: a Close body is empty or begins with a two-byte code.
    #[error("malformed close")]
    MalformedClose,
    /// RFC 6455, 7.4: codes below 1000, 1004-1006, 1015 and unassigned ones are not sent.
    #[error("invalid close code")]
    InvalidCloseCode,
    /// RFC 6455, 8.1: text messages and close reasons are UTF-8.
    #[error("invalid UTF-8")]
    InvalidUtf8,
    /// The dialect of this connection takes text only.
    #[error("binary not supported")]
    BinaryUnsupported,
    /// The message would exceed the limit of this server.
    #[error("message too big")]
    MessageTooBig,
}

impl ProtocolError {
    /// The code of the Close frame that answers this error (RFC 6455, 7.4.1).
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::InvalidUtf8 => CloseCode::Invalid,
            Self::BinaryUnsupported => CloseCode::Unsupported,
            Self::MessageTooBig => CloseCode::Size,
            _ => CloseCode::Protocol,
        }
    }
}
