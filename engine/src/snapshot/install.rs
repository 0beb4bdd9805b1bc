//! Exchanging what a shard has of a partition, all at once: for a staged snapshot, or for nothing.
//!
//! Two things must change together that lie in different files: the tree (which rows there are) and
//! the log (which entries they end with). The log's record is the moment at which they do:
//!
//! 1. The staged tables are durable; nobody knows them.
//! 2. **Pending.** A manifest edit names them, and the partition. Nothing is shown of them yet.
//! 3. **Decided.** The log's record (a snapshot, or a removal) is durable: entries before it do not
//!    count any more.
//! 4. **In force.** A second manifest edit takes away what the tree had of the partition, adds the
//!    tables, and sets the partition's position; in the same step, memory does.
//!
//! A crash before 3 leaves the old content, and the next open forgets what is pending; a crash after
//! it is made good at the next open, by the second edit, before anything is replayed. The segment
//! with the record cannot be recycled between 3 and 4, because the log's last entry is not in tables.
//! So rows and position are always those of one state.
//!
//! **Taking away.** Tables that hold nothing but the partition leave the tree. The others *hide* it:
//! it stays in their files until compaction rewrites them, and is passed over by every reader. So do
//! memtables. What a compaction or a flush had already read of a hidden partition is void, and is
//! done again (`Inner::commit`). Readers that began before go on with what they hold.
//!
//! **Where the tables go.** Nothing else is shown of the partition, so they may go to any level: the
//! deepest in which no other table lies in their way.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::Staged;
use super::stage::Files;
use crate::engine::Engine;
use crate::entry::{LogId, MEMBERSHIP_BYTES_MAX, PartitionId};
use crate::env::{Env, TaskClass};
use crate::error::{EngineError, Result};
use crate::log::{AppendError, Log, RecordRef};
use crate::manifest::{Applied, Edit, HideRecord, LEVELS, PendingRecord, Replacement, TableRecord};
use crate::row::partition_range;
use crate::tree::signal::Signal;
use crate::tree::version::{Change, TableFile, Version};
use crate::tree::{Inner, TableRef, Tables, Tree, open_table, space};

/// Pause before a record is appended again that the log had no room for.
const APPEND_PAUSE: Duration = Duration::from_millis(1);

impl<E: Env> Engine<E> {
    /// Replaces what the shard has of a partition by a staged snapshot: rows, position, and the
    /// log's record of it, where everything before does not count any more, entries beyond the
    /// snapshot included. `membership` goes into the log with it, at most 4 KiB. A crash at any
    /// moment leaves the old content or the new one.
    ///
    /// Until it is done the partition's old content is read, and no entry of it may be appended or
    /// applied. It goes on to its end even if the future is dropped.
    ///
    /// # Errors
    /// `Invalid` for a snapshot that ends before what is applied, or too long a membership; `NoSpace`
    /// if there was none to begin. Then nothing was changed. `Closed`, and whatever has stopped the
    /// log or the tree: then the next open shows which it is.
    pub async fn install(&self, staged: Staged<E>, membership: &[u8]) -> Result<()> {
        let of = staged.of();
        let applied = self.tree().applied(of.partition);
        if of.id.index < applied.id.index || of.id.index == 0 {
            let what = format!("a snapshot up to {:?} over {:?}", of.id, applied.id);
            return Err(EngineError::Invalid(what));
        }
        if membership.len() > MEMBERSHIP_BYTES_MAX {
            return Err(EngineError::Invalid("too long a membership".into()));
        }
        let membership = membership.to_vec();
        let log = self.log().clone();
        let decide = async move {
            let record = || log.append_snapshot(of.partition, of.id, of.time_ms, &membership);
            make_durable(&log, record).await
        };
        let (tables, files) = staged.into_parts();
        let replacement = Replacement {
            term: of.id.term,
            index: of.id.index,
            time_ms: of.time_ms,
            tables: tables.iter().map(|t| t.record.clone()).collect(),
        };
        let new = Some((replacement, tables, files));
        exchange(self.tree(), of.partition, new, decide).await?;
        self.tree().load_results(of.partition).await
    }

    /// Removes a partition: its rows, its position, and all that the log remembers of it, its hard
    /// state included. Afterwards the shard is as if it had never had it. Otherwise as
    /// [`Engine::install`].
    ///
    /// # Errors
    /// As [`Engine::install`].
    pub async fn drop_partition(&self, partition: PartitionId) -> Result<()> {
        let log = self.log().clone();
        let decide = async move { make_durable(&log, || log.append_removal(partition)).await };
        exchange(self.tree(), partition, None, decide).await
    }
}

/// Appends a record and waits until it is durable; while the log has no room, it tries again.
async fn make_durable<E: Env>(
    log: &Log<E>,
    record: impl Fn() -> Result<RecordRef, AppendError>,
) -> Result<()> {
    loop {
        match record() {
            Ok(at) => {
                log.submit();
                return log.durable(at).await;
            }
            Err(AppendError::Full | AppendError::NoSpace) => log.pause(APPEND_PAUSE).await,
            Err(AppendError::Failed) => return Err(log.failure().unwrap_or(EngineError::Closed)),
            Err(e) => return Err(EngineError::Invalid(e.to_string())),
        }
    }
}

type New<E> = (Replacement, Vec<TableRef<E>>, Files<E>);

/// Exchanges a partition's content, in a task of its own. `decide` makes the log's record durable;
/// if it answers `Invalid`, the log has none.
async fn exchange<E: Env>(
    tree: &Tree<E>,
    partition: PartitionId,
    new: Option<New<E>>,
    decide: impl Future<Output = Result<()>> + 'static,
) -> Result<()> {
    let done: Rc<RefCell<Option<Result<()>>>> = Rc::default();
    let signal = Rc::new(Signal::default());
    let (tell, wake) = (Rc::clone(&done), Rc::clone(&signal));
    space::spawn(&tree.inner, TaskClass::Log, move |inner| async move {
        let result = run(&inner, partition, new, decide).await;
        tell.replace(Some(result));
        wake.notify();
    });
    signal.wait_until(|| done.borrow().is_some()).await;
    done.take().unwrap_or(Err(EngineError::Closed))
}

async fn run<E: Env>(
    inner: &Rc<Inner<E>>,
    partition: PartitionId,
    new: Option<New<E>>,
    decide: impl Future<Output = Result<()>>,
) -> Result<()> {
    let (replacement, tables, files) = match new {
        Some((replacement, tables, files)) => (Some(replacement), tables, Some(files)),
        None => (None, Vec::new(), None),
    };
    let applied = replacement.as_ref().map(Replacement::applied);
    match inner.make_pending(partition, replacement).await {
        Ok(()) => {}
        // The edit may be durable all the same: its tables must stay.
        Err(e) if e.is_fatal() || matches!(e, EngineError::Closed) => {
            files.into_iter().for_each(Files::keep);
            if e.is_fatal() {
                inner.fail(e.clone());
            }
            return Err(e);
        }
        Err(e) => return Err(e),
    }
    if let Err(e) = decide.await {
        if matches!(e, EngineError::Invalid(_)) {
            inner.forget_pending(partition).await?;
        } else {
            files.into_iter().for_each(Files::keep);
        }
        return Err(e);
    }
    files.into_iter().for_each(Files::keep);
    while let Err(e) = inner.put_in_force(partition, applied, &tables).await {
        if !inner.after_failure(e.clone()).await {
            return Err(e);
        }
    }
    inner.space.set_written();
    inner.tell_flushed();
    Ok(())
}

impl<E: Env> Tree<E> {
    /// The partitions that were about to be exchanged when the tree was last open, with what for.
    pub(crate) async fn pending(&self) -> Vec<(PartitionId, Option<Replacement>)> {
        self.inner.pending().await
    }

    /// Makes good or forgets what was pending, as the log has decided. Before anything is applied.
    ///
    /// # Errors
    /// As [`Tree::open`].
    pub(crate) async fn settle(
        &self,
        partition: PartitionId,
        replacement: Option<Replacement>,
        is_decided: bool,
    ) -> Result<()> {
        let inner = &self.inner;
        let records = replacement.iter().flat_map(|r| &r.tables);
        if !is_decided {
            inner.forget_pending(partition).await?;
            let mut obsolete = inner.obsolete.borrow_mut();
            obsolete.extend(records.map(|record| record.id));
            return Ok(());
        }
        let mut tables = Vec::new();
        for record in records {
            let table = open_table(&inner.context, &inner.dir, record, &inner.obsolete).await?;
            tables.push(Rc::new(table));
        }
        let applied = replacement.as_ref().map(Replacement::applied);
        inner.put_in_force(partition, applied, &tables).await
    }
}

impl<E: Env> Inner<E> {
    /// How often a partition was exchanged since the tree was opened.
    pub(crate) fn exchanges_of(&self, partition: PartitionId) -> u64 {
        let exchanges = self.exchanges.borrow();
        exchanges.get(&partition).copied().unwrap_or(0)
    }

    async fn make_pending(
        &self,
        partition: PartitionId,
        replacement: Option<Replacement>,
    ) -> Result<()> {
        let edit = Edit {
            pending: vec![PendingRecord {
                partition,
                replacement,
            }],
            ..Edit::default()
        };
        let done = self.commit(|_| Some((edit, Change::default())), || {});
        done.await.map(|_| ())
    }

    async fn forget_pending(&self, partition: PartitionId) -> Result<()> {
        let edit = Edit {
            settled: vec![partition],
            ..Edit::default()
        };
        let done = self.commit(|_| Some((edit, Change::default())), || {});
        done.await.map(|_| ())
    }

    /// Takes away what there is of a partition, and puts `tables` in its place, up to `applied`;
    /// `None` leaves nothing.
    async fn put_in_force(
        &self,
        partition: PartitionId,
        applied: Option<Applied>,
        tables: &[TableRef<E>],
    ) -> Result<()> {
        let plan = |version: &Tables<E>| {
            let (removed, hidden) = what_goes(version, partition);
            let level = deepest_free_level(version, &removed, tables);
            let run = match level {
                0 => self.next_run.replace(self.next_run.get() + 1),
                _ => 0,
            };
            let added: Vec<_> = tables.iter().map(|t| Rc::new(t.at(level, run))).collect();
            let edit = Edit {
                added: added.iter().map(|t| t.record.clone()).collect(),
                removed: removed.clone(),
                hidden: hidden
                    .iter()
                    .map(|id| HideRecord { id: *id, partition })
                    .collect(),
                settled: vec![partition],
                dropped: applied.is_none().then_some(partition).into_iter().collect(),
                flushed: applied
                    .iter()
                    .map(|applied| applied.record(partition))
                    .collect(),
                ..Edit::default()
            };
            let change = Change {
                added,
                removed,
                hidden: hidden.into_iter().map(|id| (id, partition)).collect(),
                ..Change::default()
            };
            Some((edit, change))
        };
        let install = || {
            self.rotate();
            self.memtables.borrow().hide(partition);
            self.forget_results(partition);
            for positions in [&self.applied, &self.flushed] {
                let mut positions = positions.borrow_mut();
                match applied {
                    Some(applied) => positions.set(partition, applied),
                    None => positions.remove(partition),
                }
            }
            *self.exchanges.borrow_mut().entry(partition).or_default() += 1;
            self.stats.borrow_mut().exchanges += 1;
        };
        self.commit(plan, install).await.map(|_| ())
    }
}

/// Which tables hold nothing but a partition, and which others must hide it.
fn what_goes<T>(version: &Version<T>, partition: PartitionId) -> (Vec<u64>, Vec<u64>) {
    let (from, to) = partition_range(partition);
    let is_inside = |r: &TableRecord| {
        r.smallest >= from && (r.largest < to || (r.largest == to && r.largest_excluded))
    };
    let touched = version
        .tables()
        .map(|(_, table)| table)
        .filter(|t| t.record.smallest < to && !t.record.ends_before(&from));
    let (inside, across): (Vec<_>, Vec<_>) = touched.partition(|t| is_inside(&t.record));
    let across = across
        .into_iter()
        .filter(|t| !t.hidden.contains(&partition));
    let ids = |t: &Rc<TableFile<T>>| t.record.id;
    (
        inside.into_iter().map(ids).collect(),
        across.map(ids).collect(),
    )
}

/// The deepest level where no table stands in the way of `tables`, but for those that leave; 0 if
/// there is none.
fn deepest_free_level<T, U>(
    version: &Version<T>,
    removed: &[u64],
    tables: &[Rc<TableFile<U>>],
) -> u8 {
    let (Some(first), Some(last)) = (tables.first(), tables.last()) else {
        return 0;
    };
    let (from, to) = (&first.record.smallest, &last.record.largest);
    let is_free = |level: &usize| {
        let run = version.level(*level);
        let in_the_way = &run.tables[run.overlapping(from, to, true)];
        in_the_way.iter().all(|t| removed.contains(&t.record.id))
    };
    (1..LEVELS).rev().find(is_free).unwrap_or(0) as u8
}

/// Whether the log has decided for what is pending.
pub(crate) fn is_decided(
    replacement: Option<&Replacement>,
    snapshot: Option<LogId>,
    last: Option<LogId>,
) -> bool {
    match replacement {
        Some(replacement) => snapshot == Some(replacement.applied().id),
        None => last.is_none(),
    }
}
