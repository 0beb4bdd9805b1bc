//! Settings of a tree.

pub use crate::compress::Compression;
use crate::entry::KeyspaceId;

/// How a tree shares its memory and shapes its levels. All sizes in bytes.
///
/// The defaults suit a core with 512 MiB; tests shrink everything so that a few thousand small
/// records pass through each path.
#[derive(Debug, Clone)]
pub struct TreeOptions {
    /// Memory for memtables, block cache and pinned parts of tables together.
    pub memory_bytes: u64,
    /// Percentage of `memory_bytes` for memtables; the rest is for the cache.
    pub memtable_percent: u64,
    /// Size at which a memtable is closed and flushed; 0 for half the memtables' share.
    pub memtable_bytes: u64,
    /// Size at which a table is closed.
    pub table_bytes: u64,
    /// Content of a block before compression.
    pub block_bytes: usize,
    /// Runs in level 0 at which it is compacted.
    pub l0_runs: usize,
    /// How many times larger a level is than the one above.
    pub level_multiplier: u64,
    /// The least target of a level worth having; 0 for what level 0 hands down at once, or a little
    /// less.
    pub base_bytes: u64,
    /// Percentage of tombstones from which a table is compacted at any level size.
    pub tombstone_percent: u64,
    /// Entries below which a table's tombstones do not matter.
    pub tombstone_entries_min: u64,
    /// Tombstones stepped over by one step of a cursor from which what held them is compacted.
    pub tombstone_skips_max: u64,
    /// Compression of level 0 and the base level.
    pub compression: Compression,
    /// Compression of the deepest level.
    pub compression_deepest: Compression,
    /// Bits of the Bloom filter for each row at level 0 and the base level.
    pub bloom_bits: u32,
    /// Bits of the Bloom filter for each row at the deepest level.
    pub bloom_bits_deepest: u32,
    /// Background reads and writes at rest, in bytes each second; up to sixteen times as much when
    /// compaction is behind.
    pub background_bytes_per_s: u64,
    /// Room kept in a file of no use, given up when the disk is full so that compaction and
    /// deletion can go on; 0 for none.
    pub ballast_bytes: u64,
    /// Least length at which the manifest is rewritten.
    pub manifest_bytes: u64,
    /// Rows of one chunk of an export, at most 1 MiB: see [`TreeOptions::chunk_bytes`].
    pub chunk_bytes: usize,
    /// The keyspace of the server's own rows, if it has any. The first entry of each term is noted in
    /// it ([`crate::terms`]); and as its rows are scanned and hardly ever looked up, a memtable keeps
    /// them out of its index by hash.
    pub own_keyspace: Option<KeyspaceId>,
}

impl Default for TreeOptions {
    fn default() -> Self {
        Self {
            memory_bytes: 384 << 20,
            memtable_percent: 35,
            memtable_bytes: 0,
            table_bytes: 32 << 20,
            block_bytes: 4096,
            l0_runs: 8,
            level_multiplier: 10,
            base_bytes: 0,
            tombstone_percent: 40,
            tombstone_entries_min: 1000,
            tombstone_skips_max: 64,
            compression: Compression::Lz4,
            compression_deepest: Compression::Lz4,
            bloom_bits: 16,
            bloom_bits_deepest: 12,
            background_bytes_per_s: 64 << 20,
            ballast_bytes: 16 << 20,
            manifest_bytes: 1 << 20,
            chunk_bytes: 64 << 10,
            own_keyspace: None,
        }
    }
}

impl TreeOptions {
    /// Sizes at which a few hundred small records fill a memtable, and a few thousand every level.
    #[must_use]
    pub fn tiny() -> Self {
        Self {
            memory_bytes: 512 << 10,
            memtable_percent: 40,
            memtable_bytes: 16 << 10,
            table_bytes: 8 << 10,
            block_bytes: 512,
            l0_runs: 3,
            level_multiplier: 4,
            base_bytes: 24 << 10,
            tombstone_entries_min: 20,
            tombstone_skips_max: 8,
            compression_deepest: Compression::Zstd,
            background_bytes_per_s: 64 << 20,
            ballast_bytes: 64 << 10,
            manifest_bytes: 64 << 10,
            chunk_bytes: 2 << 10,
            ..Self::default()
        }
    }

    /// Length of rows at which a chunk of an export ends, within its limit.
    #[must_use]
    pub fn chunk_bytes(&self) -> usize {
        self.chunk_bytes.min(1 << 20)
    }

    /// Bytes that level 0 may have at most, given the size at which a memtable is closed.
    #[must_use]
    pub fn l0_bytes(&self, memtable_limit: u64) -> u64 {
        memtable_limit * self.l0_runs as u64
    }

    /// The least target of a level worth having, given [`TreeOptions::l0_bytes`].
    #[must_use]
    pub fn base_bytes(&self, l0_bytes: u64) -> u64 {
        match self.base_bytes {
            0 => l0_bytes * 7 / 10,
            bytes => bytes,
        }
    }

    /// Memory for memtables, given the budget.
    #[must_use]
    pub fn memtable_budget(&self, memory_bytes: u64) -> u64 {
        memory_bytes * self.memtable_percent.min(90) / 100
    }

    /// Size at which a memtable is closed, given the budget.
    #[must_use]
    pub fn memtable_limit(&self, memory_bytes: u64) -> u64 {
        match self.memtable_bytes {
            0 => self.memtable_budget(memory_bytes) / 2,
            bytes => bytes.min(self.memtable_budget(memory_bytes)),
        }
    }
}

/// Bytes that level 0 has beside a largest level of `largest` bytes: no more than an eighth of it, so
/// that what the tree holds twice stays small, but a quarter of [`TreeOptions::l0_bytes`] in any case.
#[must_use]
pub fn l0_target(largest: u64, l0_bytes: u64) -> u64 {
    let least = l0_bytes / 4;
    (largest / 8).clamp(least, l0_bytes.max(least)).max(1)
}
