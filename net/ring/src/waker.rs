//! Waking a ring that sleeps from another thread.
//!
//! The state is one word shared by the ring and its wakers. The ring goes *awake → parked* before it
//! looks at its mailboxes a last time, and *→ awake* when it is up again. A sender posts its
//! message, then moves *parked → notified*; whoever succeeds sends the one wake that this sleep
//! needs, everybody else sends nothing. Both sides put a full fence between their store and their
//! load, so either the sender sees the ring parked or the ring sees the message.
//!
//! The wake itself is an `IORING_OP_MSG_RING` from the sender's own ring if it has one
//! ([`Ring::wake`](crate::Ring::wake)): it goes out with the sender's next submit. From a thread
//! without a ring it is a write to an eventfd on which the ring has a read armed.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};

const AWAKE: u32 = 0;
const PARKED: u32 = 1;
const NOTIFIED: u32 = 2;

#[derive(Debug)]
pub(crate) struct WakeShared {
    state: AtomicU32,
    ring_fd: RawFd,
    event_fd: OwnedFd,
}

impl WakeShared {
    pub(crate) fn new(ring_fd: RawFd) -> io::Result<Arc<Self>> {
        // SAFETY: creates a descriptor, touches no memory.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Arc::new(Self {
            state: AtomicU32::new(AWAKE),
            ring_fd,
            // SAFETY: `fd` is a fresh descriptor that nobody else owns.
            event_fd: unsafe { OwnedFd::from_raw_fd(fd) },
        }))
    }

    pub(crate) fn event_fd(&self) -> RawFd {
        self.event_fd.as_raw_fd()
    }

    pub(crate) fn park(&self) {
        self.state.store(PARKED, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub(crate) fn unpark(&self) {
        self.state.store(AWAKE, Ordering::Release);
    }

    /// Whether the caller is the one to wake the ring.
    fn claim(&self) -> bool {
        fence(Ordering::SeqCst);
        self.state.load(Ordering::Relaxed) == PARKED
            && self
                .state
                .compare_exchange(PARKED, NOTIFIED, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }
}

/// Wakes one ring from any thread. A wake of a ring that is awake costs one fence and one load.
#[derive(Debug, Clone)]
pub struct RingWaker {
    shared: Arc<WakeShared>,
}

impl RingWaker {
    pub(crate) fn new(shared: Arc<WakeShared>) -> Self {
        Self { shared }
    }

    /// Wakes the ring if it is parked. Post the message that it must see before the call. For
    /// threads without a ring; a thread with one uses [`Ring::wake`](crate::Ring::wake).
    pub fn wake(&self) {
        if self.shared.claim() {
            self.ring_the_bell();
        }
    }

    /// Claims the wake; the caller must then deliver it.
    pub(crate) fn claim(&self) -> bool {
        self.shared.claim()
    }

    pub(crate) fn ring_fd(&self) -> RawFd {
        self.shared.ring_fd
    }

    /// Writes to the eventfd without looking at the state.
    pub(crate) fn ring_the_bell(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: writes eight bytes from a live array to a descriptor that `shared` keeps open.
        // The counter cannot overflow at one write a sleep, so the write neither blocks nor fails.
        unsafe { libc::write(self.shared.event_fd(), one.as_ptr().cast(), one.len()) };
    }
}
