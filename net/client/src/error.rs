use std::sync::Arc;
use std::time::Duration;

use ringbolt_wire::WireError;
use ringbolt_wire::message::{ErrorClass, ErrorCode, ErrorReply};

/// Why a request has no result, by what the caller must do.
///
/// Every variant but [`Error::InDoubt`] and [`Error::CommittedNotAll`] says of a write that it was
/// **not** done.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Fix the request: it will never succeed as it is.
    #[error("{0}")]
    Invalid(Reason),

    /// Decide again: the condition did not hold, and the write is not done. (Of a write that was sent again
    /// it is not told: [`Error::InDoubt`].)
    #[error("the condition did not hold: {}", current(*.version))]
    ConditionFailed {
        /// The version that the key has, `None` if it does not exist.
        version: Option<u64>,
    },
    /// Decide again: what this client has seen was never committed. Forget what was read, call
    /// [`Client::forget_tokens`](crate::Client::forget_tokens), which forgets no more than that, start over.
    #[error("what was read before was lost: {0}")]
    Lost(Reason),

    /// Try again later: the server refused, and went on refusing until the deadline or gave no
    /// time to try again.
    #[error("{0}")]
    Refused(Reason),
    /// Try again later, or read linearizably: by the deadline no replica that was asked was fresh
    /// enough for the session's tokens, or for the age that was asked for.
    #[error("{0}")]
    Stale(Reason),
    /// Try again later: no server could be reached.
    #[error("cannot reach {addresses}: {what}")]
    Unreachable {
        /// The addresses that were tried.
        addresses: Arc<str>,
        /// What went wrong with the last of them.
        what: Arc<str>,
    },
    /// Try again, with more time: the deadline passed.
    #[error("the deadline passed")]
    DeadlineExceeded,

    /// Find out: the write may have been done, may be done yet, or never.
    #[error("in doubt whether the write was done: {0}")]
    InDoubt(Arc<str>),
    /// The write was done and is safe on a majority, but was not on every voter by the deadline.
    #[error("committed, but not on every replica by the deadline")]
    CommittedNotAll,

    /// Call the operator: trying again does not help.
    #[error("{0}")]
    Failed(Reason),
    /// The server does not speak this client's protocol, or broke it.
    #[error("protocol error: {0}")]
    Protocol(Arc<str>),
}

/// What the server said with an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Its code.
    pub code: ErrorCode,
    /// The limit that was passed, where the code is `TooLarge`; else 0.
    pub detail: u64,
    /// When to try again, if that helps.
    pub retry_after: Option<Duration>,
    /// What was wrong and what to do, in words.
    pub message: Arc<str>,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

fn current(version: Option<u64>) -> String {
    match version {
        Some(version) => format!("the key has version {version}"),
        None => "the key does not exist".to_owned(),
    }
}

impl Error {
    /// Whether a write may have been done all the same.
    pub fn is_in_doubt(&self) -> bool {
        matches!(self, Error::InDoubt(_))
    }

    /// Whether the same request may succeed later, as it is, without harm: nothing was done.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Error::Refused(_)
                | Error::Stale(_)
                | Error::Unreachable { .. }
                | Error::DeadlineExceeded
        )
    }

    /// The server's code, if it was the server who answered.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Error::Invalid(reason)
            | Error::Lost(reason)
            | Error::Refused(reason)
            | Error::Stale(reason)
            | Error::Failed(reason) => Some(reason.code),
            Error::ConditionFailed { .. } => Some(ErrorCode::ConditionFailed),
            Error::CommittedNotAll => Some(ErrorCode::CommittedNotAll),
            Error::Unreachable { .. }
            | Error::DeadlineExceeded
            | Error::InDoubt(_)
            | Error::Protocol(_) => None,
        }
    }

    pub(crate) fn from_reply(reply: &ErrorReply<'_>) -> Error {
        let reason = Reason {
            code: reply.code,
            detail: reply.detail,
            retry_after: (reply.retry_after_ms > 0)
                .then(|| Duration::from_millis(reply.retry_after_ms.into())),
            message: if reply.message.is_empty() {
                format!("{:?}", reply.code).into()
            } else {
                reply.message.into()
            },
        };
        match (reply.code, reply.code.class()) {
            (ErrorCode::ConditionFailed, _) => Error::ConditionFailed {
                version: (reply.detail > 0).then_some(reply.detail),
            },
            (ErrorCode::DeadlineExceeded, _) => Error::DeadlineExceeded,
            (ErrorCode::CommittedNotAll, _) => Error::CommittedNotAll,
            (ErrorCode::Stale, _) => Error::Stale(reason),
            (_, ErrorClass::FixRequest) => Error::Invalid(reason),
            (_, ErrorClass::DecideAgain) => Error::Lost(reason),
            (_, ErrorClass::TryAgain) => Error::Refused(reason),
            (_, ErrorClass::FindOut) => Error::InDoubt(reason.message),
            (_, ErrorClass::CallOperator) => Error::Failed(reason),
        }
    }

    pub(crate) fn invalid(code: ErrorCode, message: impl Into<Arc<str>>) -> Error {
        Error::Invalid(Reason {
            code,
            detail: 0,
            retry_after: None,
            message: message.into(),
        })
    }

    pub(crate) fn too_large(what: &str, length: usize, limit: u32) -> Error {
        Error::Invalid(Reason {
            code: ErrorCode::TooLarge,
            detail: limit.into(),
            retry_after: None,
            message: format!("{what} of {length} bytes is over the server's limit of {limit}")
                .into(),
        })
    }
}

/// A request that cannot be put on the wire.
impl From<WireError> for Error {
    fn from(error: WireError) -> Error {
        Error::Invalid(Reason {
            code: error.code(),
            detail: error.detail(),
            retry_after: None,
            message: error.to_string().into(),
        })
    }
}
