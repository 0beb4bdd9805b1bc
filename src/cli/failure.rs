//! How a command ends: exit codes, and failures with their remedy.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | not found, or a condition did not hold (`bench --verify`: a value was wrong) |
//! | 2 | wrong usage or settings, or the server could not start |
//! | 3 | the server could not be reached, or refused |
//! | 4 | in doubt: it may or may not have been done |

use std::fmt;
use std::io;
use std::process::ExitCode;

use serde::Serialize;

/// A command that went through, and what it found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Answer {
    /// Done: exit code 0.
    Yes,
    /// Not found, or the condition did not hold: exit code 1.
    No,
    /// It has told all, and ends with this exit code.
    Ended(ExitCode),
}

impl From<Answer> for ExitCode {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Yes => Self::SUCCESS,
            Answer::No => Self::from(1),
            Answer::Ended(code) => code,
        }
    }
}

/// What a command returns.
pub type Outcome = Result<Answer, Failure>;

/// The class of a [`Failure`], by what the caller must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Correct the command, the settings or the machine: exit code 2.
    Usage,
    /// The server was not reached, or refused; nothing was done: exit code 3.
    Refused,
    /// It may or may not have been done; look before trying again: exit code 4.
    InDoubt,
    /// Whoever read standard output went away, as `head` does; not an error: exit code 0.
    ReaderGone,
}

/// A command that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its class.
    pub kind: FailureKind,
    /// What was wrong and what to do.
    pub message: String,
    /// The server's code, by name, where it has one: `Overloaded`.
    pub code: Option<String>,
    /// When to try again, where that helps.
    pub retry_after_ms: Option<u64>,
}

impl Failure {
    /// A failure of the class `kind`.
    pub fn new(kind: FailureKind, message: impl fmt::Display) -> Self {
        Self {
            kind,
            message: message.to_string(),
            code: None,
            retry_after_ms: None,
        }
    }

    /// Wrong usage, settings or machine.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(FailureKind::Usage, message)
    }

    /// Its exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            FailureKind::Usage => 2,
            FailureKind::Refused => 3,
            FailureKind::InDoubt => 4,
            FailureKind::ReaderGone => 0,
        }
    }

    /// The failure as one JSON object.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "error": {
                "kind": self.kind,
                "code": self.code,
                "message": self.message,
                "retry_after_ms": self.retry_after_ms,
            }
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = match self.kind {
            FailureKind::InDoubt => "in doubt: ",
            _ => "error: ",
        };
        write!(f, "{start}{}", self.message)?;
        if let Some(code) = &self.code {
            write!(f, " ({code})")?;
        }
        if let Some(ms) = self.retry_after_ms {
            write!(f, "; try again in {ms} ms")?;
        }
        Ok(())
    }
}

/// Failures of standard output and input.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(FailureKind::ReaderGone, error),
            _ => Self::usage(error),
        }
    }
}

impl From<crate::config::ConfigError> for Failure {
    fn from(error: crate::config::ConfigError) -> Self {
        Self::usage(error)
    }
}
