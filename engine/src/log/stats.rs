//! What a log counts.

use std::time::Duration;

/// Buckets of [`WriteTimes`]: the i-th counts writes that took less than 2^i microseconds (and not
/// less than half of that); the last one, all longer ones.
pub const WRITE_TIME_BUCKETS: usize = 24;

/// How long writes took, from submission to completion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteTimes {
    /// Writes completed.
    pub count: u64,
    /// Their times added up, in microseconds.
    pub sum_us: u64,
    /// The longest, in microseconds.
    pub max_us: u64,
    /// By powers of two: see [`WRITE_TIME_BUCKETS`].
    pub buckets: [u64; WRITE_TIME_BUCKETS],
}

impl WriteTimes {
    pub(super) fn record(&mut self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.count += 1;
        self.sum_us = self.sum_us.saturating_add(us);
        self.max_us = self.max_us.max(us);
        let bucket = (u64::BITS - us.leading_zeros()) as usize;
        self.buckets[bucket.min(WRITE_TIME_BUCKETS - 1)] += 1;
    }
}

/// How large groups were on disk, headers and padding included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupSizes {
    /// Their bytes added up.
    pub sum_bytes: u64,
    /// By powers of two: the i-th counts groups of less than 2^i bytes (and not less than half of
    /// that); the last one, all larger ones.
    pub buckets: [u64; WRITE_TIME_BUCKETS],
}

impl GroupSizes {
    pub(super) fn record(&mut self, bytes: u64) {
        self.sum_bytes += bytes;
        let bucket = (u64::BITS - bytes.leading_zeros()) as usize;
        self.buckets[bucket.min(WRITE_TIME_BUCKETS - 1)] += 1;
    }
}

/// A log's counters since it was opened, and what it holds now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Records appended.
    pub records: u64,
    /// Their bytes.
    pub record_bytes: u64,
    /// Groups with records made durable.
    pub groups: u64,
    /// Empty groups written to seal an idle log.
    pub seals: u64,
    /// Bytes written to segments: headers and padding included, zero-filling not.
    pub written_bytes: u64,
    /// Bytes of zeros written into new segments.
    pub filled_bytes: u64,
    /// Segments begun.
    pub segments_begun: u64,
    /// Segments given back for reuse.
    pub segments_recycled: u64,
    /// Times an append met a limit ([`super::AppendError::Full`]).
    pub full: u64,
    /// Times the log could not grow for want of space.
    pub no_space: u64,
    /// How long group writes took.
    pub write_times: WriteTimes,
    /// How large the groups with records were.
    pub group_sizes: GroupSizes,
    /// Writes under way now.
    pub in_flight: u64,
    /// How long the oldest of them has been under way, in microseconds.
    pub oldest_in_flight_us: u64,
    /// Segments that the log consists of now.
    pub segments: u64,
    /// Bytes of memory in group buffers.
    pub buffer_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_powers_of_two() {
        let mut times = WriteTimes::default();
        for us in [0, 1, 100, 1_000_000_000] {
            times.record(Duration::from_micros(us));
        }
        assert_eq!((times.count, times.max_us), (4, 1_000_000_000));
        assert_eq!(
            (times.buckets[0], times.buckets[1], times.buckets[7]),
            (1, 1, 1)
        );
        assert_eq!(times.buckets[WRITE_TIME_BUCKETS - 1], 1);
    }
}
