//! What a ring has done: plain counters, for metrics and for alarms.

/// Counters since the ring was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RingStats {
    /// `io_uring_enter` calls.
    pub syscalls: u64,
    /// Completions collected.
    pub completions: u64,
    /// Receives that brought bytes.
    pub recvs: u64,
    /// Bytes received.
    pub recv_bytes: u64,
    /// Sends that finished whole.
    pub sends: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Sends that the kernel cut short and this ring went on with.
    pub short_sends: u64,
    /// Receives that stopped because no buffer was free.
    pub enobufs: u64,
    /// Times the completion queue was found overflowing: it is too small. An alarm.
    pub overflows: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Outgoing connections made.
    pub connected: u64,
    /// Times accepting paused because descriptors or memory had run out.
    pub accept_pauses: u64,
    /// File requests finished.
    pub file_requests: u64,
    /// Wakes received.
    pub wakes: u64,
    /// Wakes of other rings that the kernel refused.
    pub wakes_failed: u64,
    /// Completions that belong to nothing known. Always 0 unless something is broken.
    pub strays: u64,
}
