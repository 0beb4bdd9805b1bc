//! What a log is told at open, and how it answers an append.

use std::time::Duration;

use super::format::record::RECORD_BYTES_MAX;
use crate::env::SECTOR;

/// How a log behaves. The defaults suit one core of a server.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Length of a segment, in bytes; rounded up to whole sectors.
    pub segment_bytes: u64,
    /// How much a log that is formatted fills with zeros before it opens, in bytes: its first
    /// segment is that long at most. A node gives each core its part of 256 MiB.
    pub first_fill_bytes: u64,
    /// How long that may take; what has been filled by then is the first segment.
    pub first_fill_time: Duration,
    /// Writes under way at once, 1–4.
    pub writes_in_flight: usize,
    /// Size of a group's buffer, in bytes. A larger record gets a buffer of its own.
    pub group_bytes: usize,
    /// Memory that groups may hold before they are written, while they are, and until whoever took
    /// them has dropped them, in bytes. Over it: [`AppendError::Full`].
    pub buffer_bytes_max: usize,
    /// Segments on disk, at most. When all are needed: [`AppendError::Full`].
    pub segments_max: usize,
    /// Segments that hold entries not in tables yet, above which a flush is asked for.
    pub segments_flush: usize,
    /// Segments kept although their entries are in tables.
    pub segments_retained: usize,
    /// How long the log is idle before its last group is sealed.
    pub seal_after: Duration,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            first_fill_bytes: 64 << 20,
            first_fill_time: Duration::from_millis(1500),
            writes_in_flight: 4,
            group_bytes: 512 << 10,
            buffer_bytes_max: 40 << 20,
            segments_max: 16,
            segments_flush: 4,
            segments_retained: 0,
            seal_after: Duration::from_millis(10),
        }
    }
}

impl LogOptions {
    /// The same, with every value brought into its range.
    pub(super) fn checked(mut self) -> Self {
        let sector = SECTOR as u64;
        self.segment_bytes = self
            .segment_bytes
            .clamp(16 * sector, 1 << 31)
            .next_multiple_of(sector);
        self.first_fill_bytes = self
            .first_fill_bytes
            .clamp(16 * sector, self.segment_bytes)
            .next_multiple_of(sector);
        self.writes_in_flight = self.writes_in_flight.clamp(1, 4);
        self.group_bytes = self
            .group_bytes
            .clamp(2 * SECTOR, RECORD_BYTES_MAX)
            .next_multiple_of(SECTOR);
        self.buffer_bytes_max = self.buffer_bytes_max.max(4 * self.group_bytes);
        self.segments_max = self.segments_max.max(3);
        self.segments_flush = self.segments_flush.clamp(1, self.segments_max - 2);
        self.segments_retained = self.segments_retained.min(self.segments_max - 3);
        self
    }
}

/// Why a record was not taken. Nothing of it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Too much is under way, or the next segment is not ready. **Try again** when the progress
    /// hook was called.
    #[error("the log has too much under way")]
    Full,
    /// The log cannot grow: the disk is full. **Refuse the write**; it resumes by itself when there
    /// is room.
    #[error("no space left for the log")]
    NoSpace,
    /// The record is over a limit (key, value, the whole, or what a segment can hold). **Fix the
    /// request.**
    #[error("the record is larger than the log takes")]
    TooLarge,
    /// The index leaves a hole in the partition's history. **A fault of the caller.**
    #[error("the index is not the next one")]
    Gap,
    /// The log has failed or was closed: see its `failure()`.
    #[error("the log has stopped")]
    Failed,
}
