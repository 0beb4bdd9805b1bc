//! Metrics of the log and the tree.

use super::{Kind, MICROS, Metric, Read, counter, gauge, highest};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "log_write_seconds",
        help: "How long log writes took, from submission to durable",
        kind: Kind::Histogram,
        labels: &[],
        read: Read::Powers(
            |core| vec![(Vec::new(), (&core.shard.engine.log.write_times).into())],
            MICROS,
        ),
    },
    Metric {
        name: "log_group_bytes",
        help: "How large groups of the log were, headers and padding included",
        kind: Kind::Histogram,
        labels: &[],
        read: Read::Powers(
            |core| vec![(Vec::new(), (&core.shard.engine.log.group_sizes).into())],
            1.0,
        ),
    },
    counter("log_records_total", "Records appended to the log", |core| {
        core.shard.engine.log.records as f64
    }),
    counter("log_record_bytes_total", "Their bytes", |core| {
        core.shard.engine.log.record_bytes as f64
    }),
    counter(
        "log_groups_total",
        "Groups of the log made durable",
        |core| core.shard.engine.log.groups as f64,
    ),
    counter(
        "log_seals_total",
        "Empty groups written to seal an idle log",
        |core| core.shard.engine.log.seals as f64,
    ),
    counter(
        "log_written_bytes_total",
        "Bytes written to the log, headers and padding included",
        |core| core.shard.engine.log.written_bytes as f64,
    ),
    counter(
        "log_filled_bytes_total",
        "Zeros written into new segments of the log",
        |core| core.shard.engine.log.filled_bytes as f64,
    ),
    counter(
        "log_segments_begun_total",
        "Segments of the log begun",
        |core| core.shard.engine.log.segments_begun as f64,
    ),
    counter(
        "log_segments_recycled_total",
        "Segments of the log given back for reuse",
        |core| core.shard.engine.log.segments_recycled as f64,
    ),
    gauge(
        "log_segments",
        "Segments that the log consists of",
        |core| core.shard.engine.log.segments as f64,
    ),
    counter(
        "log_refused_full_total",
        "Appends that met the log's limit",
        |core| core.shard.engine.log.full as f64,
    ),
    counter(
        "log_refused_no_space_total",
        "Times the log could not grow for want of space",
        |core| core.shard.engine.log.no_space as f64,
    ),
    gauge("log_writes_inflight", "Log writes under way", |core| {
        core.shard.engine.log.in_flight as f64
    }),
    highest(
        "log_write_oldest_seconds",
        "How long the oldest log write has been under way",
        |core| core.shard.engine.log.oldest_in_flight_us as f64 * 1e-6,
    ),
    gauge("log_buffer_bytes", "Memory of the log's buffers", |core| {
        core.shard.engine.log.buffer_bytes as f64
    }),
    counter(
        "log_replayed_entries_total",
        "Entries applied again when the node started",
        |core| core.shard.engine.replayed as f64,
    ),
    highest(
        "recovery_seconds",
        "How long opening log and tables took, on the slowest core",
        |core| core.shard.engine.opened_in.as_secs_f64(),
    ),
    counter(
        "log_flushes_asked_total",
        "Flushes asked for because the log had become long",
        |core| core.shard.engine.flushes_for_log as f64,
    ),
    counter(
        "tree_gets_cached_total",
        "Point reads answered from memory alone",
        |core| core.shard.engine.tree.gets_cached as f64,
    ),
    counter(
        "tree_gets_from_disk_total",
        "Point reads that had to wait for the disk",
        |core| core.shard.engine.tree.gets_from_disk as f64,
    ),
    counter(
        "tree_device_reads_total",
        "Device reads for point reads and scans",
        |core| core.shard.engine.tree.device_reads as f64,
    ),
    counter(
        "tree_cache_hits_total",
        "Blocks found in the cache",
        |core| core.shard.engine.tree.cache_hits as f64,
    ),
    counter(
        "tree_cache_misses_total",
        "Blocks not found in the cache",
        |core| core.shard.engine.tree.cache_misses as f64,
    ),
    counter(
        "tree_filter_negatives_total",
        "Filters that ruled a table out",
        |core| core.shard.engine.tree.filter_negatives as f64,
    ),
    counter(
        "tree_filter_false_positives_total",
        "Filters that let a read pass for nothing",
        |core| core.shard.engine.tree.filter_false_positives as f64,
    ),
    counter(
        "tree_rows_scanned_total",
        "Rows that cursors returned",
        |core| core.shard.engine.tree.rows_scanned as f64,
    ),
    counter(
        "tree_tombstones_skipped_total",
        "Tombstones that cursors stepped over",
        |core| core.shard.engine.tree.tombstones_skipped as f64,
    ),
    gauge("tree_memtable_bytes", "Memory of memtables", |core| {
        core.shard.engine.tree.memtable_bytes as f64
    }),
    gauge(
        "tree_memtables_waiting",
        "Memtables waiting to be flushed",
        |core| core.shard.engine.tree.memtables_waiting as f64,
    ),
    gauge("tree_cache_bytes", "Memory of the block cache", |core| {
        core.shard.engine.tree.cache_bytes as f64
    }),
    gauge(
        "tree_pinned_bytes",
        "Memory of pinned parts of tables",
        |core| core.shard.engine.tree.pinned_bytes as f64,
    ),
    counter("tree_flushes_total", "Memtables flushed", |core| {
        core.shard.engine.tree.flushes as f64
    }),
    counter(
        "tree_flush_written_bytes_total",
        "Bytes written to tables by flushes",
        |core| core.shard.engine.tree.flush_bytes_written as f64,
    ),
    counter("tree_compactions_total", "Compactions finished", |core| {
        core.shard.engine.tree.compactions as f64
    }),
    gauge(
        "tree_compactions_running",
        "Compactions under way",
        |core| core.shard.engine.tree.compactions_running as f64,
    ),
    counter(
        "tree_compaction_read_bytes_total",
        "Bytes of tables read by compactions",
        |core| core.shard.engine.tree.compaction_bytes_read as f64,
    ),
    counter(
        "tree_compaction_written_bytes_total",
        "Bytes of tables written by compactions",
        |core| core.shard.engine.tree.compaction_bytes_written as f64,
    ),
    counter(
        "tree_l0_written_bytes_total",
        "Of these, by compactions of level 0 into the base level",
        |core| core.shard.engine.tree.l0_bytes_written as f64,
    ),
    counter(
        "tree_intra_l0_written_bytes_total",
        "Of these, by compactions within level 0",
        |core| core.shard.engine.tree.intra_l0_bytes_written as f64,
    ),
    counter(
        "tree_tombstone_compactions_total",
        "Compactions for the sake of tombstones",
        |core| core.shard.engine.tree.tombstone_compactions as f64,
    ),
    counter(
        "tree_expiry_compactions_total",
        "Compactions for the sake of expired records",
        |core| core.shard.engine.tree.expiry_compactions as f64,
    ),
    gauge(
        "tree_debt_bytes",
        "Bytes over the targets of the levels: what compaction has before it",
        |core| core.shard.engine.tree.debt_bytes as f64,
    ),
    gauge("tree_l0_runs", "Runs in level 0", |core| {
        core.shard.engine.tree.l0_runs as f64
    }),
    gauge("tree_tables", "Tables", |core| {
        core.shard.engine.tree.tables as f64
    }),
    gauge("tree_table_bytes", "Bytes of all tables", |core| {
        core.shard.engine.tree.table_bytes as f64
    }),
    counter(
        "tree_tables_moved_total",
        "Tables that changed their level without being rewritten",
        |core| core.shard.engine.tree.tables_moved as f64,
    ),
    counter(
        "tree_tables_dropped_total",
        "Tables dropped unread",
        |core| core.shard.engine.tree.tables_dropped as f64,
    ),
    counter(
        "tree_tables_removed_total",
        "Files of tables removed",
        |core| core.shard.engine.tree.tables_removed as f64,
    ),
    counter(
        "tree_no_space_total",
        "Times background work stopped for want of room",
        |core| core.shard.engine.tree.no_space as f64,
    ),
    counter(
        "tree_background_throttled_seconds_total",
        "Time that background work waited for its share of the disk",
        |core| core.shard.engine.tree.throttled_us as f64 * 1e-6,
    ),
    counter(
        "tree_exchanges_total",
        "Partitions replaced by a snapshot, or dropped",
        |core| core.shard.engine.tree.exchanges as f64,
    ),
    counter(
        "tree_jobs_void_total",
        "Flushes and compactions done for nothing, because a partition was exchanged meanwhile",
        |core| core.shard.engine.tree.jobs_void as f64,
    ),
    gauge(
        "tree_stopped",
        "Cores whose background work has stopped for good",
        |core| core.shard.engine.tree.stopped as f64,
    ),
];
