//! Counters of a tree.

/// Counts of what a tree has done since it was opened, and what it holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TreeStats {
    /// Point reads answered from memory alone.
    pub gets_cached: u64,
    /// Point reads that had to wait for the disk.
    pub gets_from_disk: u64,
    /// Memtables flushed.
    pub flushes: u64,
    /// Bytes written to tables by flushes.
    pub flush_bytes_written: u64,
    /// Compactions finished, moves and drops not counted.
    pub compactions: u64,
    /// Compactions under way.
    pub compactions_running: u64,
    /// Bytes of tables read by compactions.
    pub compaction_bytes_read: u64,
    /// Bytes of tables written by compactions.
    pub compaction_bytes_written: u64,
    /// Of these, by compactions within level 0.
    pub intra_l0_bytes_written: u64,
    /// Of these, by compactions of level 0 into the base level.
    pub l0_bytes_written: u64,
    /// Compactions for the sake of tombstones.
    pub tombstone_compactions: u64,
    /// Compactions for the sake of expired records.
    pub expiry_compactions: u64,
    /// Tables that changed their level without being rewritten.
    pub tables_moved: u64,
    /// Tables dropped unread: expired, or covered by a range delete.
    pub tables_dropped: u64,
    /// Files of tables removed.
    pub tables_removed: u64,
    /// Tombstones that cursors stepped over.
    pub tombstones_skipped: u64,
    /// Rows that cursors returned.
    pub rows_scanned: u64,
    /// Times that background work stopped for want of room.
    pub no_space: u64,
    /// 1 if background work has stopped for good: it met a damaged table, or the disk failed.
    pub stopped: u64,
    /// Partitions replaced by a snapshot or dropped.
    pub exchanges: u64,
    /// Flushes and compactions done for nothing, because a partition was exchanged meanwhile.
    pub jobs_void: u64,
    /// Device reads for point reads and scans.
    pub device_reads: u64,
    /// Blocks found in the cache.
    pub cache_hits: u64,
    /// Blocks not found in the cache.
    pub cache_misses: u64,
    /// Filters that ruled a table out.
    pub filter_negatives: u64,
    /// Filters that let a read pass for nothing.
    pub filter_false_positives: u64,
    /// Time that background work waited for tokens, in microseconds.
    pub throttled_us: u64,
    /// Memory of memtables, in bytes.
    pub memtable_bytes: u64,
    /// Memory of the block cache, in bytes.
    pub cache_bytes: u64,
    /// Memory of pinned parts of tables, in bytes.
    pub pinned_bytes: u64,
    /// Memtables waiting to be flushed.
    pub memtables_waiting: u64,
    /// Runs in level 0.
    pub l0_runs: u64,
    /// Tables.
    pub tables: u64,
    /// Bytes of all tables.
    pub table_bytes: u64,
    /// Bytes over the targets of level 0 to 5: what compaction has before it.
    pub debt_bytes: u64,
}

impl TreeStats {
    /// All of them by name, for metrics.
    #[must_use]
    pub fn by_name(&self) -> [(&'static str, u64); 37] {
        [
            ("gets_cached", self.gets_cached),
            ("gets_from_disk", self.gets_from_disk),
            ("flushes", self.flushes),
            ("flush_bytes_written", self.flush_bytes_written),
            ("compactions", self.compactions),
            ("compactions_running", self.compactions_running),
            ("compaction_bytes_read", self.compaction_bytes_read),
            ("compaction_bytes_written", self.compaction_bytes_written),
            ("intra_l0_bytes_written", self.intra_l0_bytes_written),
            ("l0_bytes_written", self.l0_bytes_written),
            ("tombstone_compactions", self.tombstone_compactions),
            ("expiry_compactions", self.expiry_compactions),
            ("tables_moved", self.tables_moved),
            ("tables_dropped", self.tables_dropped),
            ("tables_removed", self.tables_removed),
            ("tombstones_skipped", self.tombstones_skipped),
            ("rows_scanned", self.rows_scanned),
            ("no_space", self.no_space),
            ("stopped", self.stopped),
            ("exchanges", self.exchanges),
            ("jobs_void", self.jobs_void),
            ("device_reads", self.device_reads),
            ("cache_hits", self.cache_hits),
            ("cache_misses", self.cache_misses),
            ("filter_negatives", self.filter_negatives),
            ("filter_false_positives", self.filter_false_positives),
            ("throttled_us", self.throttled_us),
            ("memtable_bytes", self.memtable_bytes),
            ("cache_bytes", self.cache_bytes),
            ("pinned_bytes", self.pinned_bytes),
            ("memtables_waiting", self.memtables_waiting),
            ("l0_runs", self.l0_runs),
            ("tables", self.tables),
            ("table_bytes", self.table_bytes),
            ("debt_bytes", self.debt_bytes),
            ("gets", self.gets_cached + self.gets_from_disk),
            (
                "bytes_written",
                self.flush_bytes_written + self.compaction_bytes_written,
            ),
        ]
    }
}

/// One level, for people to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LevelSummary {
    /// Its number; 0 is the newest.
    pub level: u8,
    /// Sorted runs in it.
    pub runs: u64,
    /// Tables in it.
    pub tables: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes it may have; 0 above the base level.
    pub target_bytes: u64,
    /// Versions in it, tombstones included.
    pub entries: u64,
    /// Tombstones in it.
    pub tombstones: u64,
    /// Range deletes in it.
    pub range_deletes: u64,
}
