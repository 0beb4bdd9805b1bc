//! What can go wrong in the engine, by what the caller must do about it.

use std::path::{Path, PathBuf};

use crate::env::{DiskError, DiskErrorKind};

/// A failure of the engine. Each variant asks for something else of the caller.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// Bytes on disk are not what was written there. **Fetch the data from a replica or a backup**;
    /// until then do not serve what the file held. Never answered for a torn tail of the log.
    #[error("{}: damaged at byte {offset}: {what}", file.display())]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// Where in the file, in bytes.
        offset: u64,
        /// What was wrong with it.
        what: String,
    },
    /// No space is left. **Refuse writes and go on reading**; work resumes by itself when there is
    /// room again.
    #[error("no space left on the disk: {0}")]
    NoSpace(DiskError),
    /// The device failed, or the file system did. **Stop the shard and recover from disk**: what was
    /// being written may or may not be there. Never retried.
    #[error("the disk failed: {0}")]
    Disk(DiskError),
    /// A file was written by another version or for another purpose. **Use the version that wrote
    /// it, or another folder.**
    #[error(
        "{}: its format is {found}, this version reads {expected}: use the version that wrote it, or another folder",
        file.display()
    )]
    WrongFormat {
        /// The file.
        file: PathBuf,
        /// What it says it is.
        found: String,
        /// What can be read.
        expected: String,
    },
    /// An argument is over a limit or contradicts itself. **Fix the request.**
    #[error("invalid: {0}")]
    Invalid(String),
    /// A limit on memory or work was reached. **Try again later**; nothing was done.
    #[error("over the limit: {0}")]
    Busy(&'static str),
    /// The deadline passed, or the work was cancelled. Nothing was changed.
    #[error("the deadline passed")]
    Deadline,
    /// What it was begun on is no longer there. **Begin anew** with what is there now.
    #[error("gone meanwhile: {0}")]
    Gone(&'static str),
    /// The engine was closed, or stopped after an earlier failure. **Open it again.**
    #[error("the engine is closed")]
    Closed,
}

/// The engine's result.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;

impl EngineError {
    /// Damage found at `offset` of `file`.
    #[must_use]
    pub fn corrupt(file: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Corrupt {
            file: file.to_path_buf(),
            offset,
            what: what.into(),
        }
    }

    /// Whether the shard must stop: it can neither be retried nor worked around.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Disk(_) | Self::WrongFormat { .. })
    }
}

impl From<DiskError> for EngineError {
    fn from(error: DiskError) -> Self {
        match error.kind {
            DiskErrorKind::NoSpace => Self::NoSpace(error),
            _ => Self::Disk(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_not_fatal_and_a_broken_one_is() {
        let disk = |kind| DiskError {
            kind,
            op: "write",
            path: "x".into(),
            detail: "because".into(),
        };
        assert!(!EngineError::from(disk(DiskErrorKind::NoSpace)).is_fatal());
        assert!(EngineError::from(disk(DiskErrorKind::Io)).is_fatal());
        assert_eq!(
            EngineError::from(disk(DiskErrorKind::Io)).to_string(),
            "the disk failed: write x: because"
        );
    }
}
