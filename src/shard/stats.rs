//! A shard's counters, by name: its own, its log's, its tree's.

use ringbolt_engine::env::Env;

use super::Inner;

impl<E: Env> Inner<E> {
    /// Every counter. The names are the same on every core, in the same order, so that they can be
    /// summed.
    pub(super) fn own_stats(&self) -> Vec<(String, u64)> {
        let engine = self.engine.stats();
        let log = &engine.log;
        let times = &log.write_times;
        let log = [
            ("log_records_total", log.records),
            ("log_record_bytes_total", log.record_bytes),
            ("log_groups_total", log.groups),
            ("log_seals_total", log.seals),
            ("log_written_bytes_total", log.written_bytes),
            ("log_filled_bytes_total", log.filled_bytes),
            ("log_segments_begun_total", log.segments_begun),
            ("log_segments_recycled_total", log.segments_recycled),
            ("log_segments", log.segments),
            ("log_refused_full_total", log.full),
            ("log_refused_no_space_total", log.no_space),
            ("log_writes_total", times.count),
            ("log_write_us_total", times.sum_us),
            ("log_buffer_bytes", log.buffer_bytes),
            ("log_replayed_total", engine.replayed),
            ("log_open_us", engine.opened_in.as_micros() as u64),
            ("log_flushes_asked_total", engine.flushes_for_log),
        ];
        let tree = engine.tree.by_name();
        let own = self
            .counters
            .list()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        let log = log
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        let tree = tree
            .into_iter()
            .map(|(name, value)| (format!("tree_{name}"), value));
        own.chain(log).chain(tree).collect()
    }
}
