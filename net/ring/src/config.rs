//! The limits of a ring, and why one cannot be had.

use std::io;

/// When the kernel may run completion work on the ring's thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// At any system call (`IORING_SETUP_COOP_TASKRUN`). The ring's descriptor becomes readable
    /// as completions arrive, so another reactor can wait on it.
    Coop,
    /// Only when the ring is entered for events (`IORING_SETUP_DEFER_TASKRUN`): the cheapest, for a
    /// thread that sleeps in the ring itself.
    Defer,
}

/// The limits of one ring. Memory is about `buffers * buffer_bytes`, touched as it is used.
#[derive(Debug, Clone)]
pub struct RingConfig {
    /// Submission queue entries; rounded up to a power of two by the kernel.
    pub entries: u32,
    /// Completion queue entries: at least four times the completions expected in one turn.
    pub cq_entries: u32,
    /// Receive buffers: a power of two, 2 to 32,768.
    pub buffers: u16,
    /// Bytes of one receive buffer: 64 B to 1 MiB.
    pub buffer_bytes: u32,
    /// The most connections at a time, 1 to 16,777,216.
    pub connections_max: u32,
    /// When completion work runs.
    pub mode: Mode,
    /// Whether one receive may fill several buffers (Linux 6.10 or newer; ignored before).
    pub bundles: bool,
}

impl Default for RingConfig {
    fn default() -> Self {
        Self {
            entries: 1024,
            cq_entries: 16_384,
            buffers: 1024,
            buffer_bytes: 8192,
            connections_max: 65_536,
            mode: Mode::Defer,
            bundles: false,
        }
    }
}

impl RingConfig {
    pub(crate) fn check(&self) -> Result<(), RingError> {
        let bad = |what| Err(RingError::Config { what });
        if !self.buffers.is_power_of_two() || self.buffers < 2 || self.buffers > 32_768 {
            return bad("buffers must be a power of two from 2 to 32768");
        }
        if !(64..=1 << 20).contains(&self.buffer_bytes) {
            return bad("buffer_bytes must be from 64 to 1048576");
        }
        if !(8..=32_768).contains(&self.entries) {
            return bad("entries must be from 8 to 32768");
        }
        if self.cq_entries < self.entries || self.cq_entries > 1 << 18 {
            return bad("cq_entries must be from entries to 262144");
        }
        if !(1..=1 << 24).contains(&self.connections_max) {
            return bad("connections_max must be from 1 to 16777216");
        }
        Ok(())
    }
}

/// Why a ring could not be made or entered.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// A limit is out of range: correct the configuration.
    #[error("ring configuration: {what}")]
    Config {
        /// The rule that was broken.
        what: &'static str,
    },
    /// io_uring is forbidden or unknown here (a seccomp profile, a container,
    /// `kernel.io_uring_disabled`, an old kernel): change the host.
    #[error("io_uring is not available: {0}")]
    Unavailable(#[source] io::Error),
    /// Memory could not be mapped or locked: raise the limits.
    #[error("no memory for the ring: {0}")]
    Memory(#[source] io::Error),
    /// The kernel refused an operation that it must not refuse: stop.
    #[error("the ring failed: {0}")]
    Failed(#[source] io::Error),
}

impl RingError {
    pub(crate) fn from_setup(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSYS | libc::EPERM | libc::EACCES | libc::EINVAL) => {
                Self::Unavailable(error)
            }
            Some(libc::ENOMEM | libc::EMFILE | libc::ENFILE) => Self::Memory(error),
            _ => Self::Failed(error),
        }
    }
}
