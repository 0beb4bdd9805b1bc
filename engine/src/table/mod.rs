//! Tables: sorted runs of rows in files, written once.
//!
//! ```text
//! | data block ... | filter block | index block |   (a part: up to 4 KiB of index or 4096 rows)
//! | data block ... | filter block | index block |
//! | range deletes | top block | footer | zeros | trailer, 56 bytes |
//! ```
//!
//! A data block holds about 4 KiB of rows. An index block has an entry for each data block of its
//! part, a filter block the rows of the part, and the top block an entry for each part. Top block
//! and range deletes stay in memory with an open table ([`Table`]); all else goes through the
//! block cache. So a read of a row looks at the top block, the part's filter, the part's index and
//! one data block, of which only the last normally costs a device read. Blocks lie one behind the
//! other, unaligned; one read covers the sectors that a block touches.
//!
//! Index keys are the shortest that separate two blocks, with a version where one row's versions
//! lie on both sides. Everything is checked before it is believed: see `frame.rs` and
//! `docs/format-table.md`.
//!
//! Tables know nothing of snapshots or of each other: they yield every internal entry, and the tree
//! merges.

mod block;
mod builder;
mod cursor;
pub mod filter;
mod footer;
mod frame;
mod reader;
mod throttle;
pub mod untrusted;
pub(crate) mod varint;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::rc::Rc;

pub use block::{Block, INDEX_RESTART_INTERVAL, RESTART_BYTES, RESTART_INTERVAL, ROWS_TAIL_BYTES};
pub use builder::{Builder, BuilderOptions, FILTER_ROWS, INDEX_BYTES};
pub use cursor::{ReadMode, TableCursor};
pub use footer::{Footer, TableInfo};
pub use frame::{BlockHandle, BlockKind, FRAME_TAIL_BYTES};
pub use reader::{CachedLookup, Found, Table};
pub use throttle::{Throttle, Unthrottled};

use crate::cache::BlockCache;
use crate::env::Env;

#[cfg(test)]
pub(crate) use tests::test_block;

/// What all tables of a tree share. Belongs to one core.
pub struct TableContext<E: Env> {
    /// The world.
    pub env: E,
    /// Blocks in memory.
    pub cache: Rc<BlockCache>,
    /// What reads cost.
    pub counters: Rc<TableCounters>,
}

impl<E: Env> TableContext<E> {
    /// A context with fresh counters.
    #[must_use]
    pub fn new(env: E, cache: Rc<BlockCache>) -> Self {
        Self {
            env,
            cache,
            counters: Rc::default(),
        }
    }
}

impl<E: Env> Clone for TableContext<E> {
    fn clone(&self) -> Self {
        Self {
            env: self.env.clone(),
            cache: self.cache.clone(),
            counters: self.counters.clone(),
        }
    }
}

/// What the tables of a tree did, counted from its opening.
#[derive(Debug, Default)]
pub struct TableCounters {
    /// Reads of the device for point reads and scans.
    pub device_reads: Cell<u64>,
    /// Bytes they brought, whole sectors.
    pub device_read_bytes: Cell<u64>,
    /// Reads of the device by compaction.
    pub sequential_reads: Cell<u64>,
    /// Bytes they brought, whole sectors.
    pub sequential_read_bytes: Cell<u64>,
    /// Filters asked.
    pub filter_probes: Cell<u64>,
    /// Filters that said: surely absent.
    pub filter_negatives: Cell<u64>,
    /// Filters that let a row pass that was not there.
    pub filter_false_positives: Cell<u64>,
    /// Bytes written into tables, whole sectors.
    pub written_bytes: Cell<u64>,
}

/// Adds to a counter.
#[inline]
fn count(counter: &Cell<u64>, more: u64) {
    counter.set(counter.get().wrapping_add(more));
}
