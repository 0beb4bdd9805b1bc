//! What can go wrong with a disk, by what the caller must do about it.

use std::path::PathBuf;

/// A failed disk operation.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{op} {}: {detail}", path.display())]
pub struct DiskError {
    /// What the caller must do.
    pub kind: DiskErrorKind,
    /// The operation that failed, such as `write` or `open`.
    pub op: &'static str,
    /// The file.
    pub path: PathBuf,
    /// The system's words.
    pub detail: String,
}

/// The class of a [`DiskError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiskErrorKind {
    /// The file or directory is not there.
    NotFound,
    /// It is there and must not be.
    AlreadyExists,
    /// No space is left: refuse writes, go on reading, try again later.
    NoSpace,
    /// The process has no permission or has run out of descriptors or locked memory.
    Refused,
    /// The device failed: believe nothing of the write, never retry a sync.
    Io,
}

impl DiskError {
    /// Classifies an error of the operating system.
    #[must_use]
    pub fn from_io(op: &'static str, path: impl Into<PathBuf>, error: &std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        let kind = match error.kind() {
            K::NotFound => DiskErrorKind::NotFound,
            K::AlreadyExists => DiskErrorKind::AlreadyExists,
            K::StorageFull | K::QuotaExceeded | K::FileTooLarge => DiskErrorKind::NoSpace,
            K::PermissionDenied | K::OutOfMemory => DiskErrorKind::Refused,
            _ => DiskErrorKind::Io,
        };
        Self {
            kind,
            op,
            path: path.into(),
            detail: error.to_string(),
        }
    }
}
