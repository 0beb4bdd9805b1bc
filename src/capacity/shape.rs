//! What a record takes, in the log and in tables, and the levels of a core's tree: with that, how
//! often a byte is written and how much is stored beside the live records.
//!
//! * A **data block** has as many rows as fit, at least one; an **index entry** points to each block,
//!   a **part** of a table is closed when its index block is full or its filter has enough rows.
//! * **Levels**: the deepest has the live records, each above it `level_multiplier` times less, down
//!   to the least worth having; level 0 has an eighth of the deepest, within its bounds.
//! * **Space**: all that levels above the deepest have is held twice, at worst. Beside it, a job needs
//!   room for its output until its inputs may go.
//! * **Writing**: a put goes to the log, in a group padded to whole sectors, to level 0 by a flush, and
//!   from there down. Each column of level 0 and each range of a level is taken when it holds twice
//!   the average, so a byte that moves down rewrites half of the ratio of the two levels, and itself.

use ringbolt_engine::cache::ENTRY_BYTES;
use ringbolt_engine::entry::{Effect, EntryHead};
use ringbolt_engine::env::SECTOR;
use ringbolt_engine::log::format::group::GROUP_HEADER_BYTES;
use ringbolt_engine::log::format::record::entry_bytes;
use ringbolt_engine::manifest::LEVELS;
use ringbolt_engine::row::ROW_PREFIX_BYTES;
use ringbolt_engine::table::{
    FILTER_ROWS, FRAME_TAIL_BYTES, INDEX_BYTES, INDEX_RESTART_INTERVAL, RESTART_BYTES,
    RESTART_INTERVAL, ROWS_TAIL_BYTES,
};
use ringbolt_engine::tree::{COLUMNS, TreeOptions, l0_target};

use super::measured;

/// What one record takes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RecordSizes {
    /// Key and value, as the client sees them.
    pub plain: f64,
    /// In a table of the deepest level: row, its part of the index and of the filter.
    pub table: f64,
    /// Its part of index and filter blocks, as the cache and pinned parts of tables account for them.
    pub meta: f64,
    /// In the log, with its part of a group's header and padding.
    pub log: f64,
    /// In a memtable.
    pub memtable: f64,
}

impl RecordSizes {
    pub fn new(key: u64, value: u64, value_ratio: f64, tree: &TreeOptions) -> Self {
        let plain = (key + value) as f64;
        let row_key = key as f64 + ROW_PREFIX_BYTES as f64;
        let head = row_key + measured::ROW_BYTES + RESTART_BYTES as f64 / RESTART_INTERVAL as f64;
        let room = tree.block_bytes as f64 - ROWS_TAIL_BYTES as f64;
        let rows = (room / (head + value as f64)).floor().max(1.0);
        // A block is stored compressed only where that saves an eighth.
        let ratio = if value_ratio > 0.875 {
            1.0
        } else {
            value_ratio
        };
        let block = (ROWS_TAIL_BYTES + FRAME_TAIL_BYTES) as f64;
        let entry = row_key
            + measured::INDEX_ENTRY_BYTES
            + RESTART_BYTES as f64 / INDEX_RESTART_INTERVAL as f64;
        let filter = f64::from(tree.bloom_bits_deepest) / 8.0;
        let part_rows = ((INDEX_BYTES as f64 / entry).max(1.0) * rows).min(FILTER_ROWS as f64);
        let index = filter + entry / rows;
        let in_group = (GROUP_HEADER_BYTES + SECTOR / 2) as f64 / measured::PUTS_PER_GROUP;
        Self {
            plain,
            table: head + value as f64 * ratio + block / rows + index,
            // The top block has an entry for each part; the cache has two blocks of it.
            meta: index + (entry + 2.0 * (ENTRY_BYTES as f64 + block)) / part_rows,
            log: plain + log_overhead() + in_group,
            memtable: row_key + value as f64 + measured::MEMTABLE_ROW_BYTES,
        }
    }
}

/// What a put's record has beside key and value, in bytes.
fn log_overhead() -> f64 {
    let head = EntryHead {
        client: 1,
        sequence: 1,
        ..EntryHead::default()
    };
    let put = Effect::Put {
        keyspace: 0,
        key: b"",
        value: b"",
        expires_ms: 0,
        created_ms: 0,
    };
    entry_bytes(&head, &[put]).unwrap_or_default() as f64
}

/// The tree of one core, settled under overwrites.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Levels {
    /// Bytes of level 0.
    l0: f64,
    /// Bytes of each level below it that is used, from the base level to the deepest.
    levels: Vec<f64>,
    /// Largest table.
    table: f64,
    /// Size of a level over that of the one above.
    multiplier: f64,
}

impl Levels {
    /// Over `live` bytes of tables of live records.
    pub fn new(live: f64, tree: &TreeOptions) -> Self {
        let live = live.max(1.0);
        let l0_bytes = tree.l0_bytes(tree.memtable_limit(tree.memory_bytes));
        let base_min = tree.base_bytes(l0_bytes).max(1) as f64;
        let multiplier = tree.level_multiplier.max(2) as f64;
        let mut levels = vec![live];
        let mut above = live / multiplier;
        while levels.len() + 1 < LEVELS && above >= base_min {
            levels.insert(0, above);
            above /= multiplier;
        }
        Self {
            // A float beyond u64 becomes its largest value, where level 0 has its bound anyway.
            l0: (l0_target(live as u64, l0_bytes) as f64).min(live),
            levels,
            table: tree.table_bytes as f64,
            multiplier,
        }
    }

    /// How many levels there are, level 0 included.
    pub fn count(&self) -> usize {
        1 + self.levels.len()
    }

    fn base(&self) -> f64 {
        self.levels.first().copied().unwrap_or(1.0)
    }

    fn deepest(&self) -> f64 {
        self.levels.last().copied().unwrap_or(1.0)
    }

    /// Bytes of tables over those of the live records, while the largest jobs run.
    pub fn space(&self) -> f64 {
        let all = self.l0 + self.levels.iter().sum::<f64>();
        let column = (2.0 * self.l0 + self.base()) / COLUMNS as f64;
        // Tables of a small level are smaller; a job below level 0 is never more than the levels.
        let deeper = (self.table * (1.0 + self.multiplier)).min(self.deepest() / 8.0);
        let jobs = column + if self.levels.len() > 1 { deeper } else { 0.0 };
        (all + jobs) / self.deepest() * measured::SPACE_SLACK
    }

    /// Bytes written by compactions of level 0, over those flushed.
    pub fn l0_writes(&self) -> f64 {
        1.0 + self.base() / (2.0 * self.l0)
    }

    /// The same of the compactions below.
    pub fn deeper_writes(&self) -> f64 {
        (self.levels.len() - 1) as f64 * (1.0 + self.multiplier / 2.0)
    }
}
