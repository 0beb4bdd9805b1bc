//! The seam between the engine and the world: tasks, time, randomness and the disk.
//!
//! Everything in this crate (and in the server's `shard/` and `replica/`) reaches the outside only
//! through [`Env`]. There are two implementations: the real one over glommio and the hot ring
//! (`src/runtime/` of the server), and the simulated one in [`sim`], which is deterministic from a
//! seed and injects crashes and disk faults.
//!
//! All of it is single-threaded: futures need not be `Send`, and an `Env` is cloned freely within
//! one core. No `Env` value ever crosses to another core.

use std::future::Future;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod buf;
mod error;
pub mod sim;

pub use buf::AlignedBuf;
pub use error::{DiskError, DiskErrorKind};

/// Alignment of every file offset, length and memory address given to a [`DiskFile`], in bytes.
pub const SECTOR: usize = 4096;

/// Which share of the core a task is paid from. CPU is shared in this order of precedence; the
/// disk is not ordered by it (see the I/O token bucket of background work).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskClass {
    /// A client waits for it: table reads, scans.
    Foreground,
    /// The log and, later, replication.
    Log,
    /// Memtable flush: the log cannot be recycled without it.
    Flush,
    /// Compaction out of level 0.
    CompactL0,
    /// Deeper compaction, scrubbing.
    Background,
}

/// What a core hands to the code that runs on it.
pub trait Env: Clone + 'static {
    /// The disk of this core.
    type Disk: Disk;

    /// The disk.
    fn disk(&self) -> &Self::Disk;

    /// Starts a task and detaches it. It may be polled before this returns: hold no borrow
    /// across the call.
    fn spawn(&self, class: TaskClass, task: impl Future<Output = ()> + 'static);

    /// Lets other tasks run if this one has used up its slice (0.5 ms); cheap enough for every
    /// step of a long loop.
    fn yield_if_needed(&self) -> impl Future<Output = ()>;

    /// Whether [`Env::yield_if_needed`] would yield now. For loops that are not `async`.
    fn should_yield(&self) -> bool;

    /// Wakes no earlier than `duration` from now.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()>;

    /// Monotonic time since an arbitrary origin; goes on while the machine is suspended
    /// (`CLOCK_BOOTTIME`).
    fn now(&self) -> Duration;

    /// Milliseconds since the Unix epoch by the wall clock. May jump; never decides safety.
    fn wall_ms(&self) -> u64;

    /// 64 random bits.
    fn random(&self) -> u64;

    /// What this core has given to background tasks so far: flushes, compactions. Zero where it is not
    /// measured.
    fn background(&self) -> Duration {
        Duration::ZERO
    }
}

/// How a file is used, which decides how the real disk opens it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileClass {
    /// A log segment: written in place through the hot ring, each write durable when it completes
    /// (`O_DSYNC`, or `fdatasync` after it, as the probe decided).
    Log,
    /// A table: written once front to back, synced once, then only read.
    Table,
    /// A small file such as the manifest: appended to and synced.
    Manifest,
}

/// A directory tree on one file system. Paths are absolute or relative to the process.
///
/// Names (creation, rename, removal) are durable only after [`Disk::sync_dir`] of the parent.
pub trait Disk: 'static {
    /// An open file.
    type File: DiskFile;

    /// Opens an existing file for reading, and for writing too if `class` is `Log` or `Manifest`.
    fn open(
        &self,
        path: &Path,
        class: FileClass,
    ) -> impl Future<Output = Result<Self::File, DiskError>>;

    /// Creates a file for reading and writing; fails with `AlreadyExists` if it is there.
    fn create(
        &self,
        path: &Path,
        class: FileClass,
    ) -> impl Future<Output = Result<Self::File, DiskError>>;

    /// Renames a file, replacing the target.
    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = Result<(), DiskError>>;

    /// Removes a file. Open handles stay usable.
    fn remove(&self, path: &Path) -> impl Future<Output = Result<(), DiskError>>;

    /// Creates a directory and its parents; no error if it exists.
    fn create_dir_all(&self, path: &Path) -> impl Future<Output = Result<(), DiskError>>;

    /// The entries of a directory, sorted by name. Full paths.
    fn list(&self, path: &Path) -> impl Future<Output = Result<Vec<PathBuf>, DiskError>>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> impl Future<Output = Result<(), DiskError>>;

    /// Bytes an unprivileged process can still write on this file system.
    fn free_bytes(&self, path: &Path) -> impl Future<Output = Result<u64, DiskError>>;
}

/// An open file. Offsets, lengths and buffers are multiples of [`SECTOR`].
///
/// Dropping the future of a write may leave the write done, not done or half done: never drop one.
/// Any failed write or sync of a log or manifest file is fatal for the shard (invariant 6).
#[allow(clippy::len_without_is_empty)] // A file's length is asked of the disk; emptiness is nobody's question.
pub trait DiskFile: 'static {
    /// What a read returns: it derefs to the bytes read.
    type ReadBuf: Deref<Target = [u8]> + 'static;

    /// The file's length in bytes.
    fn len(&self) -> impl Future<Output = Result<u64, DiskError>>;

    /// Reads `len` bytes at `offset`, fewer only at the end of the file. Callers check the length.
    fn read_at(
        &self,
        offset: u64,
        len: usize,
    ) -> impl Future<Output = Result<Self::ReadBuf, DiskError>>;

    /// Writes all of `buf` at `offset` and gives the buffer back. For `FileClass::Log` it is
    /// durable when this returns `Ok`; for the others after [`DiskFile::sync`].
    fn write_at(
        &self,
        offset: u64,
        buf: AlignedBuf,
    ) -> impl Future<Output = (Result<(), DiskError>, AlignedBuf)>;

    /// Makes all completed writes and the length durable.
    fn sync(&self) -> impl Future<Output = Result<(), DiskError>>;

    /// Sets the length. Growing zero-fills (the new range may be sparse).
    fn set_len(&self, len: u64) -> impl Future<Output = Result<(), DiskError>>;
}
