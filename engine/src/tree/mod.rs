//! The tree: what a shard holds, in memory and in tables.
//!
//! ```text
//!  apply ─▶ active memtable ─▶ waiting memtables ─▶ level 0 (runs) ─▶ base level ─▶ … ─▶ level 6
//!               (rotated)          (flushed)             (compacted in the background)
//! ```
//!
//! Newer data always lies left of older data of the same row, so a read goes from left to right and
//! the first cell it meets is the newest. Everything a reader needs is held by reference counts: the
//! memtables, and a [`version::Version`] of the tables. So a cursor sees one moment, whatever is
//! flushed or compacted meanwhile, and nothing waits for it.
//!
//! A memtable is closed when it is full, and flushed by a task of its own into a run of level 0.
//! The manifest edit of a flush says up to which entry each partition is now in tables:
//! [`Tree::flushed`]. The log may forget what lies before that.
//!
//! All of it belongs to one core.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::compaction::bucket::Bucket;
use crate::compaction::picker::Shape;
use crate::entry::{Effect, EntryHead, PartitionId};
use crate::env::Env;
use crate::error::{EngineError, Result};
use crate::manifest::{Applied, Edit, Manifest, Replacement};
use crate::planted::{self, Bug};
use crate::row::{RowKeyBuf, keyspace_range};
use crate::table::{Table, TableContext};
use crate::terms;
use crate::writers::{self, Writers};

mod columns;
mod cursor;
mod flush;
mod get;
pub(crate) mod memtables;
mod open;
mod options;
pub(crate) mod partitions;
mod pressure;
mod results;
pub(crate) mod signal;
mod snapshot;
pub(crate) mod source;
pub(crate) mod space;
mod stats;
pub(crate) mod version;
pub(crate) mod view;

#[cfg(test)]
pub(crate) mod tests;

pub use columns::COLUMNS;
pub use cursor::Cursor;
pub use get::{Lookup, Row, Undecided};
pub(crate) use open::open_table;
pub use open::{table_id, table_path};
pub use options::{Compression, TreeOptions, l0_target};
pub use pressure::Pressure;
pub use snapshot::Snapshot;
pub use stats::{LevelSummary, TreeStats};

use memtables::Memtables;
use partitions::Positions;
use pressure::Debt;
use signal::{Gate, Signal};
use snapshot::Snapshots;
use version::{Change, Obsolete, TableFile, Version};

/// A reader of one table.
pub(crate) type Reader<E> = Rc<Table<E>>;
pub(crate) type Tables<E> = Version<Reader<E>>;
pub(crate) type TableRef<E> = Rc<TableFile<Reader<E>>>;

/// One shard's LSM tree. Cheap to clone; lives on one core. When the last clone is dropped, or after
/// [`Tree::close`], background work ends.
pub struct Tree<E: Env> {
    pub(crate) inner: Rc<Inner<E>>,
    handle: Rc<Handle<E>>,
}

impl<E: Env> Clone for Tree<E> {
    fn clone(&self) -> Self {
        Self {
            inner: Rc::clone(&self.inner),
            handle: Rc::clone(&self.handle),
        }
    }
}

/// Ends background work when the last [`Tree`] goes: its tasks hold only [`Inner`].
struct Handle<E: Env>(Rc<Inner<E>>);

impl<E: Env> Drop for Handle<E> {
    fn drop(&mut self) {
        self.0.closing.set(true);
        self.0.changed.notify();
    }
}

/// What a tree's handles and background tasks share.
pub(crate) struct Inner<E: Env> {
    pub env: E,
    pub dir: PathBuf,
    pub options: TreeOptions,
    pub context: TableContext<E>,
    pub memtables: RefCell<Memtables>,
    pub version: RefCell<Rc<Tables<E>>>,
    pub applied: RefCell<Positions>,
    pub flushed: RefCell<Positions>,
    pub snapshots: Rc<Snapshots>,
    /// Taken out while an edit is being written; `gate` keeps others from looking.
    manifest: RefCell<Option<Manifest<E>>>,
    gate: Rc<Gate>,
    pub next_table: Cell<u64>,
    pub next_run: Cell<u64>,
    columns: columns::Columns,
    pub obsolete: Obsolete,
    pub bucket: Bucket<E>,
    pub budget: Cell<u64>,
    /// The active memtable's size at which it is closed.
    pub memtable_limit: Cell<u64>,
    pub debt: Cell<Debt>,
    pub space: space::Space,
    pub failure: RefCell<Option<EngineError>>,
    /// A reader stepped over many tombstones of the active memtable.
    pub flush_wanted: Cell<bool>,
    /// When a flush was last asked for on that account.
    pub flush_wanted_at: Cell<std::time::Duration>,
    /// Something changed that background work or somebody waiting may care about.
    pub changed: Signal,
    pub closing: Cell<bool>,
    /// Background tasks running.
    pub tasks: Cell<u64>,
    pub stats: RefCell<TreeStats>,
    /// By partition: how often it was exchanged or dropped.
    pub exchanges: RefCell<BTreeMap<PartitionId, u64>>,
    on_flushed: RefCell<Option<Rc<dyn Fn()>>>,
    scratch: RefCell<RowKeyBuf>,
    /// By partition; those behind the last that ever had any are left out.
    writers: RefCell<Vec<Writers>>,
}

impl<E: Env> Tree<E> {
    /// Opens the tree in `dir`, which is created if it is not there, and starts its background work.
    /// Files that no manifest knows are removed.
    ///
    /// # Errors
    /// `Corrupt` or `WrongFormat` for a manifest or table that cannot be believed, named; `NoSpace`
    /// when not even the manifest can be written; the disk's error.
    pub async fn open(env: E, dir: &Path, options: TreeOptions) -> Result<Self> {
        let inner = open::open(env, dir, options).await?;
        let tree = Self {
            handle: Rc::new(Handle(Rc::clone(&inner))),
            inner,
        };
        flush::start(&tree.inner);
        crate::compaction::start(&tree.inner);
        space::start(&tree.inner);
        Ok(tree)
    }

    /// Puts a committed entry's effects where reads find them. Entries of a partition come in the
    /// order of their index; one that was applied before is ignored.
    ///
    /// Never fails and never waits: a caller that goes on writing asks [`Tree::pressure`] first.
    pub fn apply<'a>(&self, head: &EntryHead, effects: impl Iterator<Item = Effect<'a>>) {
        let inner = &*self.inner;
        let before = inner.applied.borrow().get(head.partition);
        if before.is_some_and(|applied| head.id.index <= applied.id.index) {
            return;
        }
        {
            let memtables = inner.memtables.borrow();
            let mut memtable = memtables.active.borrow_mut();
            let mut scratch = inner.scratch.borrow_mut();
            let own = inner.options.own_keyspace;
            let mut outcome = Some(&[][..]);
            for effect in effects {
                match effect {
                    Effect::Outcome { outcome: bytes } => outcome = Some(bytes),
                    Effect::Put { keyspace, key, .. }
                        if Some(keyspace) == own && writers::row::is_of_version_2(key) =>
                    {
                        outcome = None;
                    }
                    _ => apply_effect(&mut memtable, &mut scratch, head, &effect),
                }
            }
            if let Some(write) = head.write_id().filter(|_| own.is_some()) {
                let mut writers = self.writers(head.partition);
                let now = inner.env.now();
                match outcome {
                    Some(outcome) => writers.applied(write, head.id, outcome, now),
                    None => writers.applied_unknown(write, now),
                }
            }
            let begins = before.is_none_or(|before| before.id.term < head.id.term);
            if begins && let Some(keyspace) = own {
                let note = Effect::Put {
                    keyspace,
                    key: &terms::key_of(head.id.term),
                    value: &terms::value_of(head.id.term),
                    expires_ms: 0,
                    created_ms: 0,
                };
                apply_effect(&mut memtable, &mut scratch, head, &note);
            }
        }
        let applied = Applied {
            id: head.id,
            time_ms: head.time_ms.max(before.map_or(0, |b| b.time_ms)),
        };
        inner.applied.borrow_mut().set(head.partition, applied);
        self.close_full();
    }

    /// What became of a partition's newest writes.
    #[must_use]
    pub fn writers(&self, partition: PartitionId) -> RefMut<'_, Writers> {
        self.inner.writers_of(partition)
    }

    /// Closes the active memtable if it is full. At once, not before the next entry: there may be none,
    /// while writers are held back on account of this one.
    pub(crate) fn close_full(&self) {
        let inner = &*self.inner;
        let bytes = inner.memtables.borrow().active_bytes();
        if bytes >= inner.memtable_limit.get() {
            inner.rotate();
        }
    }

    /// Up to where a partition has been applied; zeros if it never was.
    #[must_use]
    pub fn applied(&self, partition: PartitionId) -> Applied {
        self.inner
            .applied
            .borrow()
            .get(partition)
            .unwrap_or_default()
    }

    /// Up to where a partition is in tables, durably; zeros if it never was.
    #[must_use]
    pub fn flushed(&self, partition: PartitionId) -> Applied {
        self.inner
            .flushed
            .borrow()
            .get(partition)
            .unwrap_or_default()
    }

    /// All partitions that were ever flushed, with up to where.
    #[must_use]
    pub fn flushed_all(&self) -> Vec<(PartitionId, Applied)> {
        self.inner.flushed.borrow().iter().collect()
    }

    /// Called, outside of any borrow, each time [`Tree::flushed`] has risen, and when background work
    /// has failed. One hook: a later call
    /// replaces the earlier.
    pub fn on_flushed(&self, hook: Rc<dyn Fn()>) {
        *self.inner.on_flushed.borrow_mut() = Some(hook);
    }

    /// How much a writer must hold back now.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        let inner = &*self.inner;
        let memtables = inner.memtables.borrow();
        let used = memtables.active_bytes() + memtables.immutable_bytes();
        let budget = inner.options.memtable_budget(inner.budget.get());
        let mut pressure = pressure::of(&inner.debt.get(), used, budget);
        pressure.stop |= inner.failure.borrow().is_some();
        pressure
    }

    /// Why background work has stopped for good, if it has. Reads go on; what is applied stays in
    /// memory and in the log.
    #[must_use]
    pub fn failure(&self) -> Option<EngineError> {
        self.inner.failure.borrow().clone()
    }

    /// Whether the disk is full or nearly so: puts should be refused, deletes let through. It ends by
    /// itself when there is room.
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        self.inner.space.is_full()
    }

    /// Changes the memory budget, in bytes. The cache shrinks at once, memtables with the next flush; one
    /// that is full by the new measure is closed.
    pub fn set_budget(&self, bytes: u64) {
        let inner = &*self.inner;
        inner.budget.set(bytes);
        inner.share_memory();
        self.close_full();
        inner.changed.notify();
    }

    /// What the tree may hold at this moment, in bytes: all of its memtables' share, the pinned parts
    /// of tables, and of the cache what is filled.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        let inner = &*self.inner;
        let memtables = inner.options.memtable_budget(inner.budget.get());
        memtables + inner.pinned_bytes() + inner.context.cache.used() as u64
    }

    /// Keeps what the newest version of a partition shows from being compacted away until the
    /// returned guard is dropped.
    #[must_use]
    pub fn snapshot(&self, partition: PartitionId) -> Snapshot {
        let applied = self.applied(partition);
        Snapshots::take(&self.inner.snapshots, partition, applied)
    }

    /// What the tree has done since it was opened, and what it holds now.
    #[must_use]
    pub fn stats(&self) -> TreeStats {
        let inner = &*self.inner;
        let mut stats = *inner.stats.borrow();
        let memtables = inner.memtables.borrow();
        stats.stopped = u64::from(inner.failure.borrow().is_some());
        stats.memtable_bytes = memtables.active_bytes() + memtables.immutable_bytes();
        stats.memtables_waiting = memtables.immutable.len() as u64;
        stats.cache_bytes = inner.context.cache.used() as u64;
        let cache = inner.context.cache.stats();
        stats.cache_hits = cache.hits;
        stats.cache_misses = cache.misses;
        let counters = &inner.context.counters;
        stats.device_reads = counters.device_reads.get();
        stats.filter_negatives = counters.filter_negatives.get();
        stats.filter_false_positives = counters.filter_false_positives.get();
        stats.pinned_bytes = inner.pinned_bytes();
        stats.throttled_us = inner.bucket.waited().as_micros() as u64;
        for level in self.levels() {
            if level.level == 0 {
                stats.l0_runs = level.runs;
            }
            stats.tables += level.tables;
            stats.table_bytes += level.bytes;
            stats.debt_bytes += level.bytes.saturating_sub(level.target_bytes);
        }
        stats
    }

    /// The levels, from the newest.
    #[must_use]
    pub fn levels(&self) -> Vec<LevelSummary> {
        let inner = &*self.inner;
        let version = inner.version();
        let shape = inner.shape();
        let targets = crate::compaction::picker::targets(&version, &shape);
        let mut levels: Vec<_> = (0u8..)
            .zip(targets.bytes)
            .map(|(level, target_bytes)| LevelSummary {
                level,
                target_bytes,
                ..LevelSummary::default()
            })
            .collect();
        levels[0].target_bytes = crate::compaction::picker::l0_target(&version, &shape);
        for (level, table) in version.tables() {
            let summary = &mut levels[usize::from(level)];
            summary.tables += 1;
            summary.bytes += table.record.bytes;
            summary.entries += table.record.entries;
            summary.tombstones += table.record.tombstones;
            summary.range_deletes += table.record.range_deletes;
        }
        levels[0].runs = version.l0.len() as u64;
        for level in &mut levels[1..] {
            level.runs = u64::from(level.tables > 0);
        }
        levels
    }

    /// Ends background work and waits until it has ended. What is not flushed stays in the log;
    /// a compaction under way is given up and will be done again.
    ///
    /// # Errors
    /// The failure that had stopped background work before, if one had.
    pub async fn close(&self) -> Result<()> {
        let inner = &*self.inner;
        inner.closing.set(true);
        inner.changed.notify();
        inner.changed.wait_until(|| inner.tasks.get() == 0).await;
        match self.failure() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }
}

fn apply_effect(
    memtable: &mut crate::memtable::Memtable,
    scratch: &mut RowKeyBuf,
    head: &EntryHead,
    effect: &Effect<'_>,
) {
    use crate::row::{Cell as RowCell, RowMeta};
    let version = head.id.index;
    match *effect {
        Effect::Put {
            keyspace,
            key,
            value,
            expires_ms,
            created_ms,
        } => {
            let meta = RowMeta {
                version,
                updated_ms: head.time_ms,
                created_ms,
                expires_ms,
            };
            let row_key = scratch.set(head.partition, keyspace, key);
            memtable.insert(row_key, RowCell::Put { meta, value });
        }
        Effect::Delete { keyspace, key } => {
            let row_key = scratch.set(head.partition, keyspace, key);
            memtable.insert(row_key, RowCell::Delete { version });
        }
        Effect::DeleteRange { keyspace, from, to } => {
            let (low, high) = keyspace_range(head.partition, keyspace, from, to);
            memtable.delete_range(&low, &high, version);
        }
        Effect::Membership { .. } | Effect::Outcome { .. } => {}
    }
}

impl<E: Env> Inner<E> {
    /// Closes the active memtable, unless nothing has been applied since the last time.
    pub(crate) fn rotate(&self) -> bool {
        let applied = self.applied.borrow().clone();
        let mut memtables = self.memtables.borrow_mut();
        let closed = memtables.immutable.first().map(|i| i.applied.clone());
        let closed = closed.unwrap_or_else(|| self.flushed.borrow().clone());
        if memtables.active.borrow().is_empty() && applied.ahead_of(&closed).is_empty() {
            return false;
        }
        for (partition, _) in applied.iter() {
            self.put_down(&memtables, partition);
        }
        memtables.rotate(applied);
        drop(memtables);
        self.flush_wanted.set(false);
        self.changed.notify();
        true
    }

    /// The version in force.
    pub(crate) fn version(&self) -> Rc<Tables<E>> {
        Rc::clone(&self.version.borrow())
    }

    /// What decides the shape of the levels, at the memory budget of now.
    pub(crate) fn shape(&self) -> Shape {
        let o = &self.options;
        let l0_bytes = o.l0_bytes(self.memtable_limit.get());
        Shape {
            table_bytes: o.table_bytes,
            l0_runs: o.l0_runs,
            l0_bytes,
            multiplier: o.level_multiplier.max(2),
            base_bytes: o.base_bytes(l0_bytes),
            tombstone_percent: o.tombstone_percent,
            tombstone_entries_min: o.tombstone_entries_min,
        }
    }

    /// Finds out how far behind the levels are, for writers and for background work.
    pub(crate) fn weigh(&self) {
        let debt = pressure::of_levels(&self.version(), &self.shape());
        self.debt.set(debt);
        self.bucket.set_pressure(debt.background);
    }

    /// Divides the budget anew between memtables, pinned parts of tables and the cache.
    pub(crate) fn share_memory(&self) {
        let budget = self.budget.get();
        self.memtable_limit
            .set(self.options.memtable_limit(budget).max(1));
        let memtables = self.options.memtable_budget(budget);
        let pinned = self.pinned_bytes();
        let cache = budget.saturating_sub(memtables).saturating_sub(pinned);
        let cache = usize::try_from(cache).unwrap_or(usize::MAX);
        self.context.cache.set_budget(cache);
    }

    pub(crate) fn pinned_bytes(&self) -> u64 {
        let version = self.version.borrow();
        version
            .tables()
            .map(|(_, table)| table.reader.pinned_bytes() as u64)
            .sum()
    }

    /// Makes an edit durable and its result the version in force. `plan` makes the edit from the
    /// version that it changes, or finds that its work has become void: then nothing is done, and
    /// the answer is `false`. `install` runs in the same step as the version changes, so that nobody
    /// sees one without the other.
    pub(crate) async fn commit(
        &self,
        plan: impl FnOnce(&Tables<E>) -> Option<(Edit, Change<Reader<E>>)>,
        install: impl FnOnce(),
    ) -> Result<bool> {
        let pass = self.gate.pass().await;
        let old = self.version();
        let Some((edit, change)) = plan(&old) else {
            return Ok(false);
        };
        let Some(mut manifest) = self.manifest.borrow_mut().take() else {
            return Err(EngineError::Closed);
        };
        let result = manifest.append(&edit).await;
        *self.manifest.borrow_mut() = Some(manifest);
        result?;
        for id in &change.removed {
            if let Some((_, table)) = old.tables().find(|(_, t)| t.record.id == *id) {
                table.set_removed();
                self.context.cache.retire_table(*id);
            }
        }
        *self.version.borrow_mut() = Rc::new(old.changed(&change));
        install();
        drop(pass);
        drop(change);
        drop(old);
        self.share_memory();
        self.weigh();
        self.changed.notify();
        Ok(true)
    }

    /// Ends background work for good.
    pub(crate) fn fail(&self, error: EngineError) {
        self.failure.borrow_mut().get_or_insert(error);
        self.changed.notify();
        self.tell_flushed();
    }

    /// Whether background work should end or not begin.
    pub(crate) fn is_ending(&self) -> bool {
        self.closing.get() || self.failure.borrow().is_some()
    }

    /// What partitions are about to be exchanged for.
    pub(crate) async fn pending(&self) -> Vec<(PartitionId, Option<Replacement>)> {
        // Background work may be writing an edit, and have the manifest meanwhile.
        let _pass = self.gate.pass().await;
        let manifest = self.manifest.borrow();
        let pending = manifest.as_ref().map(|manifest| &manifest.state().pending);
        let pending = pending.into_iter().flatten();
        pending.map(|(p, r)| (*p, r.clone())).collect()
    }

    pub(crate) fn tell_flushed(&self) {
        let hook = self.on_flushed.borrow().clone();
        if let Some(hook) = hook {
            hook();
        }
    }

    /// Whether a record is expired for a reader at `time_ms`.
    #[inline]
    fn is_expired(meta: &crate::row::RowMeta, time_ms: u64) -> bool {
        if planted::is(Bug::ExpiryOffByOne) {
            return meta.expires_ms != 0 && meta.expires_ms < time_ms;
        }
        meta.expired_at(time_ms)
    }
}
