//! HTTP/1.1 without sockets: just enough of RFC 9110 and RFC 9112 to carry WebSocket upgrades
//! and a handful of plain pages beside them.
//!
//! A request arrives in this order: [`head_end`] finds where its head ends, [`Request::parse`]
//! reads the head in place and says whether it is an upgrade, [`Body`] decodes what follows, and
//! [`Response`] or [`Refusal`] is the answer. Whatever the bytes are and however they were cut,
//! the same bytes give the same answer, at a cost linear in their number and without a panic.
//!
//! Left out on purpose: HTTP/2, content codings, trailers (discarded), pipelining (the caller
//! takes one request at a time) and the `Date` header (this side has no clock).

mod body;
mod head;
mod headers;
mod refusal;
mod request;
mod response;
mod seen;
mod target;

pub use body::{Body, BodyKind};
pub use head::{HeadScan, head_end};
pub use headers::Headers;
pub use refusal::{Reason, Refusal};
pub use request::{Intent, Request, Upgrade, Version};
pub use response::{CONTINUE, Response};

pub(in crate::protocol) use headers::{is_token, members};
pub(in crate::protocol) use response::push_header;
pub(in crate::protocol) use target::is_authority;

/// What one request may cost. All sizes are inclusive and in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest head, from the first byte of the request line to the empty line: over it 431.
    pub header_bytes_max: usize,
    /// Longest request target: over it 414.
    pub target_bytes_max: usize,
    /// Largest decoded body: over it 413.
    pub body_bytes_max: u64,
}

impl Limits {
    /// Limits for heads and bodies of these sizes. A target gets three quarters of the head, so
    /// that one that is too long is told apart from too many headers.
    pub const fn new(header_bytes_max: usize, body_bytes_max: u64) -> Limits {
        let target_bytes_max = header_bytes_max - header_bytes_max / 4;
        Limits {
            header_bytes_max,
            target_bytes_max,
            body_bytes_max,
        }
    }
}

impl Default for Limits {
    /// 8 KiB of head, 6 KiB of target, 1 MiB of body.
    fn default() -> Limits {
        Limits::new(8 * 1024, 1024 * 1024)
    }
}
