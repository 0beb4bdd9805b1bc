//! Moving one partition from shard to shard, as it stood at one entry.
//!
//! ```text
//!   a shard that has it                          a shard that needs it
//!   Tree::export ─▶ chunk, chunk, … ─▶ (caller) ─▶ Tree::stage ─▶ tables that nobody sees yet
//!   (a view, held)                                                  │
//!                                                  Engine::install ─┘ all of it, or nothing
//! ```
//!
//! - **Export** ([`Export`]): the rows that a reader sees at one entry, in order, in chunks that
//!   check themselves. The view is held by keeping its versions out of compaction, not by holding
//!   files or memory.
//! - **Stage** ([`Stage`]): takes chunks in order and writes tables. It says up to which row it has
//!   come, so that any sender with the same view can go on from there.
//! - **Install** ([`crate::engine::Engine::install`]): puts the tables in the place of what the shard
//!   had, in step with the log. [`crate::engine::Engine::drop_partition`] puts nothing there.
//!
//! How the bytes travel, and who may replace what, is the caller's business.

mod chunk;
mod export;
mod install;
mod stage;

#[cfg(test)]
mod tests;

pub use export::{Chunk, Export};
pub(crate) use install::is_decided;
pub use stage::{Stage, Staged};

use crate::entry::{KEY_BYTES_MAX, LogId, PartitionId, VALUE_BYTES_MAX};

/// Longest chunk, in bytes: [`crate::tree::TreeOptions::chunk_bytes`] of up to 1 MiB and the row
/// that goes over it.
pub const CHUNK_BYTES_MAX: usize = (1 << 20) + 3 * KEY_BYTES_MAX + VALUE_BYTES_MAX;

/// Which state of which partition: what its entries up to one have made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SnapshotId {
    /// The partition.
    pub partition: PartitionId,
    /// The last entry that it holds.
    pub id: LogId,
    /// The partition's time with that entry, in milliseconds since the Unix epoch.
    pub time_ms: u64,
}
