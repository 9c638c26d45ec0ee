//! What goes wrong with a call, by the numbers that this API's clients know.

use std::{borrow::Cow, fmt};

use crate::{gate::channel::Denied, handler::PublishError};

/// An error that a call is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub code: Code,
    /// What was expected instead, or which limit was passed.
    pub detail: Cow<'static, str>,
}

/// The numbers of Centrifugo's errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// We are wrong.
    Internal = 100,
    UnknownChannel = 102,
    PermissionDenied = 103,
    MethodNotFound = 104,
    LimitExceeded = 106,
    BadRequest = 107,
    NotAvailable = 108,
    TooManyRequests = 111,
    Unrecoverable = 112,
}

impl Code {
    pub fn phrase(self) -> &'static str {
        match self {
            Self::Internal => "internal server error",
            Self::UnknownChannel => "unknown channel",
            Self::PermissionDenied => "permission denied",
            Self::MethodNotFound => "method not found",
            Self::LimitExceeded => "limit exceeded",
            Self::BadRequest => "bad request",
            Self::NotAvailable => "not available",
            Self::TooManyRequests => "too many requests",
            Self::Unrecoverable => "unrecoverable position",
        }
    }
}

impl Fault {
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            detail: detail.into(),
        }
    }

    pub fn bad(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::BadRequest, detail)
    }

    /// A field of the body is not what it has to be.
    pub fn field(name: &str, expected: &str) -> Self {
        Self::bad(format!("{name}: expected {expected}"))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phrase = self.code.phrase();
        match &*self.detail {
            "" => formatter.write_str(phrase),
            detail => write!(formatter, "{phrase}: {detail}"),
        }
    }
}

impl From<Code> for Fault {
    fn from(code: Code) -> Self {
        Self::new(code, "")
    }
}

impl From<Denied> for Fault {
    fn from(denied: Denied) -> Self {
        let code = match denied {
            Denied::Name => Code::BadRequest,
            Denied::UnknownNamespace => Code::UnknownChannel,
            Denied::NotKept => Code::NotAvailable,
            _ => Code::PermissionDenied,
        };
        Self::new(code, denied.to_string())
    }
}

impl From<PublishError> for Fault {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Name => Self::bad(error.to_string()),
            PublishError::Busy => Self::new(Code::TooManyRequests, error.to_string()),
        }
    }
}
