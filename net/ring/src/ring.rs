//! The ring itself: queueing requests, entering the kernel, and turning completions into events.
//!
//! Requests wait in two lists until the kernel is entered, short reads and writes of files ahead of all others:
//! the kernel starts them one after the other, and a send is carried out as it is started, so that the
//! disk would be idle during all sends queued ahead of its write. The lists' length is bounded by what the
//! connections, listeners and file requests can have in flight.
//! Completions are collected into `batch` once per turn, right after the kernel was entered, so that
//! a turn's work is bounded even while more completions arrive.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use crate::accept::Listener;
use crate::buffers::Pool;
use crate::conn::Conns;
use crate::connect::Dials;
use crate::file::Files;
use crate::token::{Op, decode, encode};
use crate::waker::WakeShared;
use crate::{ConnId, Event, Mode, RingConfig, RingError, RingStats, RingWaker};

pub(crate) const BUFFER_GROUP: u16 = 0;

const ENTER_GETEVENTS: u32 = 1;

/// Whether the request with this user data completes exactly once on this ring: messages to and
/// from other rings do not.
fn completes(user_data: u64) -> bool {
    !matches!(decode(user_data), Some((Op::Wake | Op::WakeSent, ..)))
}

/// How long dropping a ring waits for the kernel to let go of its buffers.
const DRAIN_TURNS_MAX: usize = 500;
const DRAIN_TURN: Duration = Duration::from_millis(10);

enum Queued {
    One(squeue::Entry),
    /// Two requests of which the first carries the link flag: they must be submitted together.
    Pair {
        entries: [squeue::Entry; 2],
        completions: usize,
    },
}

struct Completion {
    user_data: u64,
    result: i32,
    flags: u32,
}

/// One io_uring with its sockets, listeners and file requests. Lives and dies on one thread.
///
/// Dropping it forgets what was not submitted, cancels everything else and waits, up to five seconds,
/// until the kernel has let go of the buffers; sockets are closed.
pub struct Ring {
    pub(crate) uring: IoUring,
    pub(crate) pool: Rc<Pool>,
    pub(crate) conns: Conns,
    pub(crate) connections_max: u32,
    pub(crate) dials: Dials,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) files: Files,
    /// Connections whose receive waits for buffers.
    pub(crate) starved: Vec<ConnId>,
    /// Events that are due before the next completion is looked at.
    pub(crate) ready: VecDeque<Event>,
    pub(crate) stats: RingStats,
    pub(crate) bundles: bool,
    pub(crate) truncate_supported: bool,
    /// Short reads and writes of files that the submission queue has not taken.
    ahead: VecDeque<Queued>,
    /// All other requests that it has not.
    queued: VecDeque<Queued>,
    batch: VecDeque<Completion>,
    /// Requests that the kernel, the queue or the lists hold and that will complete.
    in_flight: usize,
    draining: bool,
    wake: Arc<WakeShared>,
    /// Where the armed read on the wake eventfd puts its eight bytes.
    wake_buf: Box<u64>,
    /// Rings this one has woken; the position is the slot of its messages.
    wake_targets: Vec<RingWaker>,
}

impl Ring {
    /// Makes a ring. Call it on the thread that will use it: the kernel ties the two together.
    ///
    /// # Errors
    ///
    /// [`RingError`] by what must be changed.
    pub fn new(config: &RingConfig) -> Result<Self, RingError> {
        config.check()?;
        let mut builder = IoUring::builder();
        builder
            .setup_single_issuer()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(config.cq_entries);
        match config.mode {
            Mode::Coop => builder.setup_coop_taskrun(),
            Mode::Defer => builder.setup_defer_taskrun(),
        };
        let uring = builder
            .build(config.entries)
            .map_err(RingError::from_setup)?;
        let features = uring.params();
        if !features.is_feature_nodrop() || !features.is_feature_ext_arg() {
            return Err(RingError::Unavailable(io::ErrorKind::Unsupported.into()));
        }
        let bundles = config.bundles && features.is_feature_recvsend_bundle();
        let mut probe = io_uring::register::Probe::new();
        uring
            .submitter()
            .register_probe(&mut probe)
            .map_err(RingError::from_setup)?;
        let truncate_supported = probe.is_supported(opcode::Ftruncate::CODE);
        let pool = Pool::new(config.buffers, config.buffer_bytes).map_err(RingError::Memory)?;
        // SAFETY: the entry ring is mapped for as long as the pool lives; the ring holds the pool,
        // and `drop` drains the ring before it lets go of it.
        unsafe {
            uring
                .submitter()
                .register_buf_ring_with_flags(pool.entries_addr(), pool.count(), BUFFER_GROUP, 0)
                .map_err(RingError::from_setup)?;
        }
        let wake = WakeShared::new(uring.as_raw_fd()).map_err(RingError::Memory)?;
        let mut ring = Self {
            uring,
            pool,
            conns: Conns::new(config.connections_max),
            connections_max: config.connections_max,
            dials: Dials::default(),
            listeners: Vec::new(),
            files: Files::default(),
            starved: Vec::new(),
            ready: VecDeque::new(),
            stats: RingStats::default(),
            bundles,
            truncate_supported,
            ahead: VecDeque::new(),
            queued: VecDeque::new(),
            batch: VecDeque::new(),
            in_flight: 0,
            draining: false,
            wake,
            wake_buf: Box::new(0),
            wake_targets: Vec::new(),
        };
        ring.arm_wake();
        Ok(ring)
    }

    /// Hands queued requests to the kernel and collects the completions that are there. Does not
    /// wait, and does not enter the kernel when there is nothing to hand over and nothing to
    /// collect by it. Returns how much [`Ring::next_event`] has to look at.
    ///
    /// # Errors
    ///
    /// [`RingError::Failed`] if the kernel refuses the ring: it is of no use any more.
    pub fn submit(&mut self) -> Result<usize, RingError> {
        self.rearm_starved();
        loop {
            self.fill();
            let (queued, work) = {
                let queue = self.uring.submission();
                (queue.len() as u32, queue.taskrun() || queue.cq_overflow())
            };
            if queued == 0 && !work {
                break;
            }
            self.stats.syscalls += 1;
            // SAFETY: no signal mask is passed.
            let entered = unsafe {
                self.uring
                    .submitter()
                    .enter::<libc::sigset_t>(queued, 0, ENTER_GETEVENTS, None)
            };
            match entered {
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => continue,
                    // The kernel is short of memory or wants completions collected first; what
                    // was not taken stays in the queue.
                    Some(libc::EAGAIN | libc::EBUSY) => break,
                    _ => return Err(RingError::Failed(error)),
                },
            }
            if !self.has_waiting() {
                break;
            }
            self.collect();
        }
        self.collect();
        Ok(self.pending())
    }

    /// Like [`Ring::submit`], but sleeps in the kernel until a completion or `timeout` if there is
    /// nothing to do. An interrupted sleep ends early.
    ///
    /// # Errors
    ///
    /// As for [`Ring::submit`].
    pub fn wait(&mut self, timeout: Duration) -> Result<usize, RingError> {
        self.rearm_starved();
        self.fill();
        self.collect();
        if self.pending() > 0 || self.has_waiting() {
            return self.submit();
        }
        self.stats.syscalls += 1;
        let timeout = types::Timespec::from(timeout);
        let args = types::SubmitArgs::new().timespec(&timeout);
        match self.uring.submitter().submit_with_args(1, &args) {
            Ok(_) => {}
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => {}
                _ => return Err(RingError::Failed(error)),
            },
        }
        self.collect();
        Ok(self.pending())
    }

    /// The next thing that happened, until `None`; then [`Ring::submit`] or [`Ring::wait`].
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let completion = self.batch.pop_front()?;
            if let Some(event) = self.dispatch(&completion) {
                return Some(event);
            }
        }
    }

    /// Whether entering or collecting would bring something: completions are there or the kernel
    /// has work to run for this ring. Costs a few loads; for long loops that share the thread.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        if self.pending() > 0 {
            return true;
        }
        // SAFETY: this thread is the only one that touches the queues, no other view of them
        // lives at this point (each is dropped within its statement), and nothing is pushed or
        // taken through these.
        unsafe {
            !self.uring.completion_shared().is_empty() || self.uring.submission_shared().taskrun()
        }
    }

    /// Requests that are queued and not yet with the kernel.
    #[must_use]
    pub fn has_queued(&self) -> bool {
        // SAFETY: as in `has_pending`.
        self.has_waiting() || unsafe { !self.uring.submission_shared().is_empty() }
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> RingStats {
        self.stats
    }

    /// A handle with which any thread can wake this ring.
    #[must_use]
    pub fn waker(&self) -> RingWaker {
        RingWaker::new(Arc::clone(&self.wake))
    }

    /// Says that this thread is about to sleep. Look at the mailboxes once more after this call and
    /// before the sleep; messages posted later bring a wake.
    pub fn park(&self) {
        self.wake.park();
    }

    /// Says that this thread is up again.
    pub fn unpark(&self) {
        self.wake.unpark();
    }

    /// Wakes another ring if it is parked, by a message from this ring that goes out with the next
    /// submit. Post what it must see before the call.
    pub fn wake(&mut self, target: &RingWaker) {
        if !target.claim() {
            return;
        }
        let known = self
            .wake_targets
            .iter()
            .position(|known| known.ring_fd() == target.ring_fd());
        let slot = known.unwrap_or_else(|| {
            self.wake_targets.push(target.clone());
            self.wake_targets.len() - 1
        });
        // The descriptor may have gone to another ring since.
        self.wake_targets[slot] = target.clone();
        let message =
            opcode::MsgRingData::new(types::Fd(target.ring_fd()), 0, encode(Op::Wake, 0, 0), None)
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS)
                .user_data(encode(Op::WakeSent, slot as u32, 0));
        if !self.draining {
            self.queued.push_back(Queued::One(message));
        }
    }

    /// Queues a request that will complete.
    pub(crate) fn push(&mut self, entry: squeue::Entry) {
        if !self.draining {
            self.in_flight += 1;
            self.queued.push_back(Queued::One(entry));
        }
    }

    /// Queues two linked requests that will both complete.
    pub(crate) fn push_pair(&mut self, entries: [squeue::Entry; 2]) {
        if !self.draining {
            let pair = Queued::Pair {
                entries,
                completions: 2,
            };
            self.in_flight += 2;
            self.queued.push_back(pair);
        }
    }

    /// The same ahead of others.
    pub(crate) fn push_ahead(&mut self, entry: squeue::Entry) {
        if !self.draining {
            self.in_flight += 1;
            self.ahead.push_back(Queued::One(entry));
        }
    }

    /// Queues a write and the sync linked behind it, of which one will complete.
    pub(crate) fn push_write_and_sync(&mut self, entries: [squeue::Entry; 2], ahead: bool) {
        if !self.draining {
            let pair = Queued::Pair {
                entries,
                completions: 1,
            };
            self.in_flight += 1;
            match ahead {
                true => self.ahead.push_back(pair),
                false => self.queued.push_back(pair),
            }
        }
    }

    /// Whether there are requests that the submission queue has not taken.
    fn has_waiting(&self) -> bool {
        !(self.ahead.is_empty() && self.queued.is_empty())
    }

    fn try_queue(uring: &mut IoUring, queued: &Queued) -> bool {
        // SAFETY: what an entry points to (buffers, paths, timers, descriptors) is owned by the
        // slot named in its user data, or static, and stays in place until the completion was
        // taken; `drop` waits for them all, or leaks them.
        let pushed = unsafe {
            match queued {
                Queued::One(entry) => uring.submission().push(entry),
                Queued::Pair { entries, .. } => uring.submission().push_multiple(entries),
            }
        };
        pushed.is_ok()
    }

    /// Moves requests into the submission queue as far as it has room.
    fn fill(&mut self) {
        for list in [&mut self.ahead, &mut self.queued] {
            while let Some(queued) = list.front() {
                if !Self::try_queue(&mut self.uring, queued) {
                    return;
                }
                list.pop_front();
            }
        }
    }

    fn pending(&self) -> usize {
        self.batch.len() + self.ready.len()
    }

    /// Takes what lies in the completion queue.
    fn collect(&mut self) {
        if self.uring.submission().cq_overflow() {
            self.stats.overflows += 1;
        }
        let before = self.batch.len();
        for entry in self.uring.completion() {
            self.batch.push_back(Completion {
                user_data: entry.user_data(),
                result: entry.result(),
                flags: entry.flags(),
            });
        }
        self.stats.completions += (self.batch.len() - before) as u64;
    }

    fn dispatch(&mut self, completion: &Completion) -> Option<Event> {
        let &Completion {
            user_data,
            result,
            flags,
        } = completion;
        let Some((op, slot, generation)) = decode(user_data) else {
            self.stats.strays += 1;
            return None;
        };
        if !cqueue::more(flags) && completes(user_data) {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        let conn = ConnId { slot, generation };
        match op {
            Op::Recv => {
                self.on_recv(conn, result, flags);
                None
            }
            Op::Send => self.on_send(conn, result),
            Op::CancelAll => {
                self.on_cancelled(conn);
                None
            }
            Op::Linger => {
                self.on_linger(conn);
                None
            }
            Op::CancelRecv | Op::Drain => None,
            Op::Accept => self.on_accept(slot, result, flags),
            Op::Connect => self.on_connect(slot, result),
            Op::ConnectLimit => {
                self.on_connect_limit(slot);
                None
            }
            Op::AcceptRetry => self.on_accept_retry(slot),
            Op::CancelAccept => self.on_accept_cancelled(slot),
            Op::File => self.on_file(slot, generation, false, result),
            Op::FileSync => self.on_file(slot, generation, true, result),
            Op::Wake => {
                self.stats.wakes += 1;
                Some(Event::Woken)
            }
            Op::WakeFd => {
                self.arm_wake();
                if result < 0 {
                    return None;
                }
                self.stats.wakes += 1;
                Some(Event::Woken)
            }
            Op::WakeSent => {
                // Only failures complete. The target is parked and claimed: wake it otherwise.
                self.stats.wakes_failed += 1;
                if let Some(target) = self.wake_targets.get(slot as usize) {
                    target.ring_the_bell();
                }
                None
            }
        }
    }

    fn arm_wake(&mut self) {
        let read = opcode::Read::new(
            types::Fd(self.wake.event_fd()),
            (&raw mut *self.wake_buf).cast(),
            size_of::<u64>() as u32,
        )
        .build();
        self.push(read.user_data(encode(Op::WakeFd, 0, 0)));
    }

    /// Cancels everything and takes completions until the kernel holds nothing. False if it
    /// still does at the end.
    fn drain(&mut self) -> bool {
        self.draining = true;
        for _ in 0..DRAIN_TURNS_MAX {
            let cancel = opcode::AsyncCancel2::new(types::CancelBuilder::any().all()).build();
            let cancel = cancel.user_data(encode(Op::Drain, 0, 0));
            if Self::try_queue(&mut self.uring, &Queued::One(cancel)) {
                self.in_flight += 1;
            }
            let timeout = types::Timespec::from(DRAIN_TURN);
            let args = types::SubmitArgs::new().timespec(&timeout);
            let _ = self.uring.submitter().submit_with_args(1, &args);
            self.collect();
            while self.next_event().is_some() {}
            if self.in_flight == 0 {
                return true;
            }
        }
        false
    }
}

impl AsRawFd for Ring {
    /// The ring's own descriptor: readable when completions are there, for parking through another
    /// reactor ([`Mode::Coop`]).
    fn as_raw_fd(&self) -> RawFd {
        self.uring.as_raw_fd()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Requests in the lists never reach the kernel; those in its queue will.
        let ahead = std::mem::take(&mut self.ahead);
        for queued in ahead.into_iter().chain(std::mem::take(&mut self.queued)) {
            self.in_flight -= match queued {
                Queued::One(entry) => usize::from(completes(entry.get_user_data())),
                Queued::Pair { completions, .. } => completions,
            };
        }
        if !self.drain() {
            // The kernel may still write to these: better lost than reused.
            std::mem::forget(Rc::clone(&self.pool));
            std::mem::forget(std::mem::replace(&mut self.conns, Conns::new(1)));
            std::mem::forget(std::mem::take(&mut self.dials));
            std::mem::forget(std::mem::take(&mut self.files));
            std::mem::forget(std::mem::take(&mut self.wake_buf));
        }
    }
}
