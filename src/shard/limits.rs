//! The limits of a shard's request path. Reaching one has a typed answer.

use std::time::Duration;

/// What one shard allows. Sizes are bytes unless the name says otherwise.
#[derive(Debug, Clone)]
pub struct ShardLimits {
    /// Largest key.
    pub key_bytes_max: usize,
    /// Largest value.
    pub value_bytes_max: usize,
    /// Connections this shard serves; one more is told `OVERLOADED` and closed.
    pub sessions_max: usize,
    /// Unanswered requests of one connection; past it the connection is not read.
    pub inflight_requests_max: u32,
    /// Bytes of unanswered requests of one connection; past it the connection is not read.
    pub inflight_bytes_max: usize,
    /// Bytes of unanswered requests of the whole shard; past it requests get `OVERLOADED`.
    pub shard_inflight_bytes_max: usize,
    /// Replies waiting to be sent on one connection; past it the connection is not read.
    pub out_bytes_max: usize,
    /// How long a connection with replies waiting may take none of them before it is cut off.
    pub stall_timeout: Duration,
    /// How long a connection may take to say hello.
    pub handshake_timeout: Duration,
    /// How long a frame may take from its first byte to its last.
    pub frame_timeout: Duration,
    /// How long a connection may be silent; zero for ever.
    pub idle_timeout: Duration,
    /// The deadline of a request that names none.
    pub deadline_default: Duration,
    /// Rows of one scan page.
    pub scan_rows_max: u32,
    /// Bytes of one scan page (one row may exceed it).
    pub scan_page_bytes: usize,
    /// Writes of one batch, and keys of one multi-get.
    pub batch_ops_max: u32,
    /// Keyspaces that may exist.
    pub keyspaces_max: usize,
    /// What may wait to be sent to one core of another node; what comes beyond is dropped.
    pub peer_backlog_bytes_max: usize,
    /// Connections of other nodes' cores.
    pub peer_sessions_max: usize,
    /// Requests that may wait for other nodes.
    pub forwards_max: usize,
    /// A request that takes at least this long leaves a record of where its time went.
    pub slow_threshold: Duration,
    /// Applied entries of each partition that stay in memory for followers a little behind.
    pub entries_kept_bytes: usize,
    /// Bytes of snapshots that are sent to other nodes in a second.
    pub copy_bytes_per_s: u64,
    /// How long nothing must have been asked of a partition before its replicas sleep.
    pub sleep_after: Duration,
}

impl ShardLimits {
    /// Largest frame: the largest key and value, or a page of rows, and room for the rest.
    #[must_use]
    pub fn frame_bytes_max(&self) -> u32 {
        let frame = self.key_bytes_max + self.value_bytes_max + (64 << 10);
        u32::try_from(frame.max(self.scan_page_bytes * 2)).unwrap_or(u32::MAX)
    }

    /// Bytes of replies that may wait on one connection in all: reads that were under way when it
    /// stopped being read may still bring as much as one largest frame.
    #[must_use]
    pub fn backlog_bytes_max(&self) -> usize {
        self.out_bytes_max + self.frame_bytes_max() as usize
    }
}

impl Default for ShardLimits {
    fn default() -> Self {
        Self {
            key_bytes_max: 64 << 10,
            value_bytes_max: 16 << 20,
            sessions_max: 20_000,
            inflight_requests_max: 1024,
            inflight_bytes_max: 32 << 20,
            shard_inflight_bytes_max: 128 << 20,
            out_bytes_max: 1 << 20,
            stall_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(5),
            frame_timeout: Duration::from_secs(30),
            idle_timeout: Duration::ZERO,
            deadline_default: Duration::from_secs(5),
            scan_rows_max: 10_000,
            scan_page_bytes: 1 << 20,
            batch_ops_max: 4096,
            keyspaces_max: 1024,
            peer_backlog_bytes_max: 32 << 20,
            peer_sessions_max: 4096,
            forwards_max: 16_384,
            slow_threshold: Duration::from_millis(10),
            entries_kept_bytes: 64 << 10,
            copy_bytes_per_s: 16 << 20,
            sleep_after: Duration::from_secs(5),
        }
    }
}
