//! The log as its owner holds it: appends, submissions, durable groups.
//!
//! A write is a future that is polled first when it is submitted, then by a driver task that its
//! completion wakes, and by [`Log::take_durable`]: a loop that has just reaped the disk's
//! completions sees them at once, without waiting for a turn of the executor.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::chain;
use super::format::group::GROUP_HEADER_BYTES;
use super::format::record::{self, HardState, Place, RecordView};
use super::format::{Effects, Records};
use super::options::AppendError;
use super::pool::Pool;
use super::state::{Reserved, State};
use super::stats::LogStats;
use crate::entry::{Effect, EntryHead, LogId, MEMBERSHIP_BYTES_MAX, PartitionId};
use crate::env::{AlignedBuf, Disk, DiskError, DiskFile, Env, TaskClass};
use crate::error::EngineError;

pub(super) type File<E> = <<E as Env>::Disk as Disk>::File;
type Written = (Result<(), DiskError>, AlignedBuf);

/// One shard's write-ahead log. Cheap to clone; lives on one core.
pub struct Log<E: Env> {
    pub(super) inner: Rc<Inner<E>>,
}

impl<E: Env> Clone for Log<E> {
    fn clone(&self) -> Self {
        Self {
            inner: Rc::clone(&self.inner),
        }
    }
}

pub(super) struct Inner<E: Env> {
    pub(super) env: E,
    pub(super) dir: PathBuf,
    pub(super) state: RefCell<State<File<E>>>,
    writes: RefCell<Vec<Write>>,
    /// The driver task's waker: whoever polls a write leaves it there.
    driver: RefCell<Option<Waker>>,
    /// Tasks that wait for the log to be idle.
    waiters: RefCell<Vec<Waker>>,
    hook: RefCell<Option<Rc<dyn Fn()>>>,
    /// Something happened that the hook has not been told.
    news: Cell<bool>,
    /// Background tasks that still use the log.
    pub(super) tasks: RefCell<Tasks>,
}

/// What runs beside the owner.
#[derive(Default)]
pub(super) struct Tasks {
    pub(super) running: usize,
    sealer: bool,
}

/// A write under way.
struct Write {
    sequence: u64,
    future: Pin<Box<dyn Future<Output = Written>>>,
}

/// Where a record stands that was appended: which group, and where in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordRef {
    /// The group's number.
    pub group: u64,
    /// Bytes from the group's start.
    pub offset: u32,
}

/// A group that is durable. Its buffer is reused when this is dropped.
pub struct DurableGroup {
    sequence: u64,
    body: usize,
    end: usize,
    records: u32,
    /// Always there until dropped.
    buf: Option<AlignedBuf>,
    pool: Rc<Pool>,
}

impl DurableGroup {
    /// The group's number. Records are in the group that [`RecordRef::group`] names.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// How many records it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records as usize
    }

    /// Never true: empty groups are not handed out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Its records in the order they were appended. May be called again for a second pass.
    pub fn records(&self) -> impl Iterator<Item = RecordView<'_>> + Clone {
        self.records_at().map(|(_, view)| view)
    }

    /// As [`DurableGroup::records`], with where each stands.
    pub fn records_at(&self) -> impl Iterator<Item = (RecordRef, RecordView<'_>)> + Clone {
        let bytes = self.buf.as_deref().unwrap_or_default();
        let group = self.sequence;
        Records::new(bytes.get(..self.end).unwrap_or_default(), self.body)
            .map(move |(offset, view)| (RecordRef { group, offset }, view))
    }
}

impl Drop for DurableGroup {
    fn drop(&mut self) {
        if let Some(buf) = self.buf.take() {
            self.pool.give(buf);
        }
    }
}

impl<E: Env> Log<E> {
    /// Starts the tasks of a log whose state has been recovered.
    pub(super) fn start(env: E, dir: PathBuf, state: State<File<E>>) -> Self {
        let inner = Rc::new(Inner {
            env,
            dir,
            state: RefCell::new(state),
            writes: RefCell::default(),
            driver: RefCell::default(),
            waiters: RefCell::default(),
            hook: RefCell::default(),
            news: Cell::new(false),
            tasks: RefCell::default(),
        });
        let log = Self { inner };
        let driver = log.clone();
        log.inner
            .env
            .spawn(TaskClass::Log, async move { driver.drive().await });
        log.prepare_next();
        log
    }

    /// Appends an entry to the open group. It is durable when its group is taken.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; nothing was appended.
    #[inline]
    pub fn append(
        &self,
        head: &EntryHead,
        effects: &[Effect<'_>],
    ) -> Result<RecordRef, AppendError> {
        let bytes = record::entry_bytes(head, effects).ok_or(AppendError::TooLarge)?;
        self.append_entry(
            head.partition,
            head.id,
            head.time_ms,
            bytes,
            |out, place| {
                record::encode_entry(out, place, head, effects);
            },
        )
    }

    /// Whether an entry with a payload of `bytes` would be taken now: so that it can be refused
    /// before it is proposed.
    ///
    /// # Errors
    ///
    /// What appending it would say.
    #[inline]
    pub fn has_room(&self, bytes: usize) -> Result<(), AppendError> {
        if bytes >= record::RECORD_BYTES_MAX - record::RECORD_HEADER_BYTES {
            return Err(AppendError::TooLarge);
        }
        let mut state = self.inner.state.borrow_mut();
        if state.is_in_reserve() {
            return Err(AppendError::Full);
        }
        let room = state.make_room(record::RECORD_HEADER_BYTES + bytes);
        drop(state);
        room.map_err(|error| self.grow(error))
    }

    /// Appends an entry whose payload is at hand ([`record::encode_payload`], or checked by
    /// [`record::decode_payload`]). It is durable when its group is taken.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; nothing was appended.
    pub fn append_payload(
        &self,
        partition: PartitionId,
        id: LogId,
        time_ms: u64,
        payload: &[u8],
    ) -> Result<RecordRef, AppendError> {
        let bytes = record::payload_record_bytes(payload);
        if bytes > record::RECORD_BYTES_MAX {
            return Err(AppendError::TooLarge);
        }
        self.append_entry(partition, id, time_ms, bytes, |out, place| {
            record::encode_entry_payload(out, place, partition, id, payload);
        })
    }

    #[inline]
    fn append_entry(
        &self,
        partition: PartitionId,
        id: LogId,
        time_ms: u64,
        bytes: usize,
        encode: impl FnOnce(&mut [u8], Place),
    ) -> Result<RecordRef, AppendError> {
        let mut state = self.inner.state.borrow_mut();
        let state = &mut *state;
        // A refused append leaves no trace: a checkpoint lists only who has records.
        let known = state.replicas.get(partition);
        let last = known.map_or(0, |replica| replica.now.last.index);
        if id.index == 0 || (id.index > last + 1 && last != 0) {
            return Err(AppendError::Gap);
        }
        let at = match state.reserve(bytes) {
            Ok(at) => at,
            Err(error) => return Err(self.grow(error)),
        };
        if id.index <= last {
            chain::supersede(&mut state.chain, partition, id.index, at.group);
        }
        encode(state.reserved(&at, bytes), at.place);
        state.note_entry(partition, id, time_ms, &at);
        state.touch(partition, at.group);
        Ok(RecordRef::from(&at))
    }

    /// Appends a replica's hard state. A partition's first record should be one.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; nothing was appended.
    pub fn append_hard_state(
        &self,
        partition: PartitionId,
        hard: HardState,
    ) -> Result<RecordRef, AppendError> {
        self.append_other(
            record::HARD_STATE_BYTES,
            partition,
            |out, place| record::encode_hard_state(out, place, partition, &hard),
            |state, _| state.replicas.set_hard_state(partition, hard),
        )
    }

    /// Notes that the entries up to `upto` are no longer in this log.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; nothing was appended.
    pub fn append_truncation(
        &self,
        partition: PartitionId,
        upto: LogId,
    ) -> Result<RecordRef, AppendError> {
        self.append_other(
            record::TRUNCATION_BYTES,
            partition,
            |out, place| record::encode_truncation(out, place, partition, upto),
            |state, _| state.replicas.truncate(partition, upto),
        )
    }

    /// Notes that the partition's state was replaced by a snapshot that ends with `id`: records
    /// before this one do not count any more. `membership` is at most 4 KiB.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; nothing was appended.
    pub fn append_snapshot(
        &self,
        partition: PartitionId,
        id: LogId,
        time_ms: u64,
        membership: &[u8],
    ) -> Result<RecordRef, AppendError> {
        if membership.len() > MEMBERSHIP_BYTES_MAX {
            return Err(AppendError::TooLarge);
        }
        self.append_other(
            record::snapshot_bytes(membership),
            partition,
            |out, place| {
                record::encode_snapshot(out, place, partition, id, time_ms, membership);
            },
            |state, group| {
                state
                    .replicas
                    .install_snapshot(partition, id, time_ms, membership);
                chain::supersede(&mut state.chain, partition, 0, group);
            },
        )
    }

    /// Notes the group's membership once the entry that changed it was applied: an entry that is
    /// in tables may be forgotten, what it did to the membership may not. At most 4 KiB.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; nothing was appended.
    pub fn append_membership(
        &self,
        partition: PartitionId,
        membership: &[u8],
    ) -> Result<RecordRef, AppendError> {
        if membership.len() > MEMBERSHIP_BYTES_MAX {
            return Err(AppendError::TooLarge);
        }
        self.append_other(
            record::membership_bytes(membership),
            partition,
            |out, place| record::encode_membership(out, place, partition, membership),
            |state, _| state.replicas.set_membership(partition, membership),
        )
    }

    /// Notes that the shard has no replica of the partition any more: records before this one do not
    /// count, and nothing is remembered of it.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; nothing was appended.
    pub fn append_removal(&self, partition: PartitionId) -> Result<RecordRef, AppendError> {
        self.append_other(
            record::REMOVAL_BYTES,
            partition,
            |out, place| record::encode_removal(out, place, partition),
            |state, group| {
                state.replicas.remove(partition);
                chain::supersede(&mut state.chain, partition, 0, group);
            },
        )
    }

    fn append_other(
        &self,
        bytes: usize,
        partition: PartitionId,
        encode: impl FnOnce(&mut [u8], Place),
        note: impl FnOnce(&mut State<File<E>>, u64),
    ) -> Result<RecordRef, AppendError> {
        let mut state = self.inner.state.borrow_mut();
        let at = match state.reserve(bytes) {
            Ok(at) => at,
            Err(error) => return Err(self.grow(error)),
        };
        encode(state.reserved(&at, bytes), at.place);
        state.touch(partition, at.group);
        note(&mut state, at.group);
        Ok(RecordRef::from(&at))
    }

    /// Has what an append was missing made ready, unless it is under way.
    #[cold]
    pub(super) fn grow(&self, error: AppendError) -> AppendError {
        if matches!(error, AppendError::Full | AppendError::NoSpace) {
            self.wake_driver();
        }
        error
    }

    /// Notes how far a partition is committed, for the next checkpoint. Costs no record: what is
    /// committed is found out anew after a crash.
    #[inline]
    pub fn set_commit(&self, partition: PartitionId, index: u64) {
        let mut state = self.inner.state.borrow_mut();
        if state.replicas.get(partition).is_some() {
            let hard = &mut state.replicas.entry(partition).now.hard;
            hard.commit = hard.commit.max(index);
        }
    }

    /// Starts the write of what was appended, if fewer writes are in flight than the limit;
    /// otherwise it starts by itself when one of them ends. For the end of a loop's turn.
    pub fn submit(&self) {
        loop {
            let start = {
                let mut state = self.inner.state.borrow_mut();
                state.start(self.inner.env.now())
            };
            let Some(start) = start else { break };
            let (file, offset, buf) = (start.file, start.offset, start.buf);
            let mut future: Pin<Box<dyn Future<Output = Written>>> =
                Box::pin(async move { file.write_at(offset, buf).await });
            let waker = self.inner.driver.borrow().clone();
            let mut context = Context::from_waker(waker.as_ref().unwrap_or(Waker::noop()));
            match future.as_mut().poll(&mut context) {
                Poll::Ready((result, _buf)) => {
                    self.completed(start.sequence, result);
                    self.tell();
                }
                Poll::Pending => self.inner.writes.borrow_mut().push(Write {
                    sequence: start.sequence,
                    future,
                }),
            }
        }
        self.prepare_next();
    }

    fn completed(&self, sequence: u64, result: Result<(), DiskError>) {
        let now = self.inner.env.now();
        self.inner
            .state
            .borrow_mut()
            .complete(sequence, now, result);
    }

    /// Sees which writes have ended. Says whether any has.
    fn poll_writes(&self) -> bool {
        if self.inner.writes.borrow().is_empty() {
            return false;
        }
        let waker = self.inner.driver.borrow().clone();
        let mut context = Context::from_waker(waker.as_ref().unwrap_or(Waker::noop()));
        // Out of the cell while they are polled: a poll runs foreign code.
        let mut writes = std::mem::take(&mut *self.inner.writes.borrow_mut());
        let mut progress = false;
        writes.retain_mut(|write| match write.future.as_mut().poll(&mut context) {
            Poll::Ready((result, buf)) => {
                // The group's own handle is to be the only one again.
                drop(buf);
                self.completed(write.sequence, result);
                progress = true;
                false
            }
            Poll::Pending => true,
        });
        let mut cell = self.inner.writes.borrow_mut();
        writes.append(&mut cell);
        *cell = writes;
        drop(cell);
        if progress {
            self.after_progress();
        }
        progress
    }

    /// Starts what waited for a write to end.
    fn after_progress(&self) {
        let (submit, seal) = {
            let mut state = self.inner.state.borrow_mut();
            let submit = std::mem::take(&mut state.submit_wanted);
            let seal = state.wants_seal();
            let failed = state.failed.is_some();
            drop(state);
            if failed {
                self.tell();
            }
            (submit, seal)
        };
        if submit {
            self.submit();
        }
        if seal {
            self.seal_when_idle();
        }
        self.wake_waiters();
    }

    fn wake_waiters(&self) {
        for waiter in self.inner.waiters.take() {
            waiter.wake();
        }
    }

    /// The next durable group, in log order and without holes; `None` if there is none now. Empty
    /// groups are passed over.
    #[must_use]
    pub fn take_durable(&self) -> Option<DurableGroup> {
        self.poll_writes();
        let mut state = self.inner.state.borrow_mut();
        let (sequence, group) = state.take()?;
        Some(DurableGroup {
            sequence,
            body: group.body,
            end: group.end,
            records: group.records,
            buf: Some(group.buf),
            pool: Rc::clone(&state.pool),
        })
    }

    /// Shows an entry that was appended and not yet taken. `None` if it was taken, or is no entry.
    /// `f` must not append.
    pub fn with_pending<R>(
        &self,
        at: RecordRef,
        f: impl FnOnce(&EntryHead, Effects<'_>) -> R,
    ) -> Option<R> {
        let state = self.inner.state.borrow();
        let group = state.pending(at.group)?;
        let bytes = group.buf.get(at.offset as usize..group.end)?;
        if (at.offset as usize) < GROUP_HEADER_BYTES || group.records == 0 {
            return None;
        }
        match record::decode_trusted(bytes)?.0 {
            RecordView::Entry { head, effects } => Some(f(&head, effects)),
            _ => None,
        }
    }

    /// Has `hook` called whenever [`Log::take_durable`], [`Log::failure`] or an append that was
    /// refused may have news. It is called from a task of the log, never from within a call of its
    /// owner.
    pub fn on_progress(&self, hook: Rc<dyn Fn()>) {
        *self.inner.hook.borrow_mut() = Some(hook);
    }

    pub(super) fn call_hook(&self) {
        let hook = self.inner.hook.borrow().clone();
        if let Some(hook) = hook {
            hook();
        }
    }

    /// Why the log has stopped, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<EngineError> {
        self.inner.state.borrow().failed.clone()
    }

    /// Stops the log: a part of the shard outside it has failed.
    pub fn fail(&self, error: EngineError) {
        self.inner.state.borrow_mut().failed.get_or_insert(error);
        self.wake_waiters();
        self.tell();
    }

    /// Whether so many segments are needed that the tables should be flushed.
    #[must_use]
    pub fn needs_flush(&self) -> bool {
        let state = self.inner.state.borrow();
        state.segments() > state.options.segments_flush + state.options.segments_retained
    }

    /// Lets the log take a few segments more than its limit, until it needs them no more.
    ///
    /// An entry that is not committed keeps its segment and all after it. What commits or supersedes
    /// it is an append itself: a log that is full for such an entry could never take what frees it.
    /// Nothing new is to be proposed meanwhile: [`Log::has_room`] says that the log is full.
    pub fn open_reserve(&self) {
        self.inner.state.borrow_mut().open_reserve();
        self.wake_driver();
    }

    /// Whether the log is full but for the reserve, and waits for others than this partition, of
    /// which `flushed` is the last entry in tables.
    #[must_use]
    pub fn spares_for_others(&self, partition: PartitionId, flushed: LogId) -> bool {
        let state = self.inner.state.borrow();
        state.is_in_reserve() && !state.pins(partition, flushed)
    }

    /// Lets go of the segments that are no longer needed. `flushed` says of each partition what
    /// the last entry in its tables is.
    pub fn recycle(&self, flushed: &dyn Fn(PartitionId) -> LogId) {
        self.inner.state.borrow_mut().recycle(flushed);
        self.prepare_next();
        // An append that was refused may have a segment now.
        self.tell();
    }

    /// Has the hook called: something outside the log has news for its owner.
    pub(crate) fn tell_owner(&self) {
        self.tell();
    }

    /// How long the oldest write has been under way; zero if there is none.
    #[must_use]
    pub fn oldest_in_flight(&self) -> Duration {
        let now = self.inner.env.now();
        let state = self.inner.state.borrow();
        state.oldest_in_flight(now).unwrap_or_default()
    }

    /// The log's counters.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        let oldest = self.oldest_in_flight();
        let state = self.inner.state.borrow();
        let mut stats = state.stats;
        stats.in_flight = state.in_flight as u64;
        stats.oldest_in_flight_us = u64::try_from(oldest.as_micros()).unwrap_or(u64::MAX);
        stats.segments = state.chain.len() as u64;
        stats.buffer_bytes = state.pool.memory_bytes() as u64;
        stats
    }

    /// Writes out and seals what was appended, then stops. Groups that are durable can still be
    /// taken.
    ///
    /// # Errors
    ///
    /// The failure that stopped the log, if one did.
    pub async fn close(&self) -> Result<(), EngineError> {
        self.submit();
        self.idle().await;
        {
            let mut state = self.inner.state.borrow_mut();
            state.seal();
            state.closing = true;
        }
        self.submit();
        self.idle().await;
        self.wake_driver();
        self.failure().map_or(Ok(()), Err)
    }

    /// Waits before an append that was refused is tried again.
    pub(crate) async fn pause(&self, duration: Duration) {
        self.inner.env.sleep(duration).await;
    }

    /// Waits until a record is durable. It must have been submitted, or be submitted by somebody.
    ///
    /// # Errors
    ///
    /// The failure that stopped the log; then it may or may not be durable.
    pub async fn durable(&self, at: RecordRef) -> Result<(), EngineError> {
        poll_fn(|context| {
            self.poll_writes();
            let state = self.inner.state.borrow();
            if state.is_durable(at.group) {
                return Poll::Ready(Ok(()));
            }
            if let Some(failure) = &state.failed {
                return Poll::Ready(Err(failure.clone()));
            }
            let waker = context.waker().clone();
            self.inner.waiters.borrow_mut().push(waker);
            Poll::Pending
        })
        .await
    }

    /// Waits until everything appended is durable or the log has failed, and no task of it is at
    /// work.
    async fn idle(&self) {
        poll_fn(|context| {
            self.poll_writes();
            let state = self.inner.state.borrow();
            let quiet = if state.failed.is_some() {
                state.in_flight == 0
            } else {
                state.is_idle()
            };
            let alone = !state.closing || self.inner.tasks.borrow().running == 0;
            if quiet && alone {
                return Poll::Ready(());
            }
            self.inner
                .waiters
                .borrow_mut()
                .push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Notes that a background task of the log has ended.
    pub(super) fn task_ended(&self) {
        self.inner.tasks.borrow_mut().running -= 1;
        self.wake_waiters();
    }

    /// Has the driver call the hook.
    fn tell(&self) {
        self.inner.news.set(true);
        self.wake_driver();
    }

    pub(super) fn wake_driver(&self) {
        let waker = self.inner.driver.borrow().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Follows the writes until the log is closed.
    async fn drive(&self) {
        poll_fn(|context| {
            {
                let mut driver = self.inner.driver.borrow_mut();
                if !driver
                    .as_ref()
                    .is_some_and(|known| known.will_wake(context.waker()))
                {
                    *driver = Some(context.waker().clone());
                }
            }
            let progress = self.poll_writes();
            self.prepare_next();
            if self.inner.news.take() || progress {
                self.call_hook();
            }
            let state = self.inner.state.borrow();
            if state.closing && state.in_flight == 0 && (state.failed.is_some() || state.is_idle())
            {
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
    }

    /// Seals the last group once the log has been idle for a while. One task at most; it never
    /// delays a write, and costs nothing while the log is busy but a look now and then.
    fn seal_when_idle(&self) {
        {
            let mut tasks = self.inner.tasks.borrow_mut();
            if std::mem::replace(&mut tasks.sealer, true) {
                return;
            }
            tasks.running += 1;
        }
        let log = self.clone();
        self.inner.env.spawn(TaskClass::Log, async move {
            let wait = log.inner.state.borrow().options.seal_after;
            loop {
                let newest = log.inner.state.borrow().newest();
                log.inner.env.sleep(wait).await;
                let mut state = log.inner.state.borrow_mut();
                if state.closing || state.failed.is_some() {
                    break;
                }
                if state.newest() != newest || !state.is_idle() {
                    continue;
                }
                state.seal();
                if !state.wants_seal() {
                    break;
                }
            }
            log.inner.tasks.borrow_mut().sealer = false;
            log.submit();
            log.task_ended();
        });
    }
}

impl From<&Reserved> for RecordRef {
    fn from(at: &Reserved) -> Self {
        Self {
            group: at.group,
            offset: at.at as u32,
        }
    }
}
