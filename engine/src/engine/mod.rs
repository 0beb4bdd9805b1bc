//! One shard's storage as a whole: the log and the tree, opened, kept in step and closed together.
//!
//! ```text
//!   append ─▶ submit ─▶ (disk) ─▶ take_durable ─▶ apply ─▶ memtable ─▶ table
//!                                                                        │ flushed
//!                         segments recycled ◀── what tables hold ◀───────┘
//! ```
//!
//! The owner proposes, and decides what is committed; the engine makes durable and readable. An
//! entry is encoded once, straight into the group that is written; [`Engine::apply`] reads it there.

use std::cell::Cell;
use std::path::Path;
use std::rc::{Rc, Weak};
use std::time::Duration;

use ahash::AHashMap;

use crate::entry::{Effect, EntryHead, LogId, PartitionId};
use crate::env::{Disk, Env, TaskClass};
use crate::error::{EngineError, Result};
use crate::log::{
    AppendError, DurableGroup, Effects, HardState, Log, LogOptions, LogStats, RecordRef,
    RecoveredEntry, RecoveredReplica, Recovery,
};
use crate::snapshot;
use crate::tree::{Tree, TreeOptions, TreeStats};

#[cfg(test)]
mod tests;

/// Pause of a replay while memtables are being flushed.
const REPLAY_PAUSE: Duration = Duration::from_millis(1);

/// How an engine behaves.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// The log.
    pub log: LogOptions,
    /// The tree.
    pub tree: TreeOptions,
    /// Whether this replica is the only voter of a group with this membership (empty: it was never
    /// written), so that every durable entry counts as committed when the log is replayed.
    /// Otherwise only what is known to be committed is applied.
    pub commits_alone: fn(&[u8]) -> bool,
    /// The index of the entry that made a membership; 0 for an empty one. A later change of it that the
    /// log holds is not applied when the log is replayed, nor is what follows: the consensus layer does it,
    /// which knows what the change does.
    pub membership_index: fn(&[u8]) -> u64,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            log: LogOptions::default(),
            tree: TreeOptions::default(),
            commits_alone: |_| true,
            membership_index: |_| 0,
        }
    }
}

/// What an engine counts.
#[derive(Debug, Clone)]
pub struct EngineStats {
    /// The log.
    pub log: LogStats,
    /// The tree.
    pub tree: TreeStats,
    /// Entries applied again when it was opened.
    pub replayed: u64,
    /// How long opening took.
    pub opened_in: Duration,
    /// Flushes asked for because the log had become long.
    pub flushes_for_log: u64,
}

/// One shard's storage. Cheap to clone; lives on one core.
pub struct Engine<E: Env> {
    inner: Rc<Inner<E>>,
}

impl<E: Env> Clone for Engine<E> {
    fn clone(&self) -> Self {
        Self {
            inner: Rc::clone(&self.inner),
        }
    }
}

struct Inner<E: Env> {
    env: E,
    log: Log<E>,
    tree: Tree<E>,
    /// A flush that the log asked for is under way.
    flushing: Cell<bool>,
    flushes_for_log: Cell<u64>,
    replayed: u64,
    opened_in: Duration,
}

impl<E: Env> Engine<E> {
    /// Opens the storage in `dir`, or formats it if it is not there or empty. Says what is known of
    /// each replica. Committed entries that were durable are readable when this returns.
    ///
    /// # Errors
    ///
    /// [`EngineError::Corrupt`] if something that was acknowledged is missing or damaged (never
    /// for a torn tail), [`EngineError::WrongFormat`] for another version's files,
    /// [`EngineError::NoSpace`] if there is no room to go on, and what the disk says.
    pub async fn open(
        env: E,
        dir: &Path,
        options: EngineOptions,
    ) -> Result<(Self, Vec<RecoveredReplica>)> {
        let begun = env.now();
        // The folder's own name must outlast a power cut, too.
        env.disk().create_dir_all(dir).await?;
        let parent = dir.parent().filter(|p| !p.as_os_str().is_empty());
        env.disk()
            .sync_dir(parent.unwrap_or(Path::new(".")))
            .await?;
        let tree = Tree::open(env.clone(), &dir.join("tables"), options.tree).await?;
        let flushed = |partition: PartitionId| tree.flushed(partition).id;
        let mut recovery = Recovery::scan(
            env.clone(),
            &dir.join("log"),
            options.log,
            options.commits_alone,
            options.membership_index,
            &flushed,
        )
        .await?;
        let pending = tree.pending().await;
        for (partition, applied) in tree.flushed_all() {
            let is_pending = pending.iter().any(|(p, _)| *p == partition);
            if applied.id.index > 0 && !is_pending && recovery.last(partition).is_none() {
                let what = format!("the tables hold partition {partition}, which no segment knows");
                return Err(EngineError::corrupt(&dir.join("log"), 0, what));
            }
        }
        // Before anything that was found can get into tables.
        recovery.renew().await?;
        for (partition, replacement) in pending {
            let (snapshot, last) = (recovery.snapshot(partition), recovery.last(partition));
            let is_decided = snapshot::is_decided(replacement.as_ref(), snapshot, last);
            tree.settle(partition, replacement, is_decided).await?;
        }
        for (partition, _) in tree.flushed_all() {
            tree.load_results(partition).await?;
        }
        let mut replay = Replay::default();
        replay.run(&env, &mut recovery, &tree).await?;
        let (log, mut replicas) = recovery.finish().await?;
        for replica in &mut replicas {
            replay.tell(replica, tree.applied(replica.partition).id);
            log.set_commit(replica.partition, replica.applied.index);
        }
        let replayed = replay.entries;
        let inner = Rc::new(Inner {
            log,
            tree,
            flushing: Cell::new(false),
            flushes_for_log: Cell::new(0),
            replayed,
            opened_in: env.now().saturating_sub(begun),
            env,
        });
        let weak = Rc::downgrade(&inner);
        inner.tree.on_flushed(Rc::new(move || recycle(&weak)));
        let engine = Self { inner };
        recycle(&Rc::downgrade(&engine.inner));
        engine.flush_for_log();
        Ok((engine, replicas))
    }

    /// Appends an entry to the open group of the log. It is durable when its group is taken.
    /// Encodes once; allocates nothing.
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
        let result = self.inner.log.append(head, effects);
        if matches!(result, Err(AppendError::Full)) {
            self.flush_for_log();
        }
        result
    }

    /// Appends an entry whose payload is at hand: see [`Log::append_payload`].
    ///
    /// # Errors
    ///
    /// [`AppendError`]; nothing was appended.
    #[inline]
    pub fn append_payload(
        &self,
        partition: PartitionId,
        id: LogId,
        time_ms: u64,
        payload: &[u8],
    ) -> Result<RecordRef, AppendError> {
        let result = self
            .inner
            .log
            .append_payload(partition, id, time_ms, payload);
        if matches!(result, Err(AppendError::Full)) {
            self.flush_for_log();
        }
        result
    }

    /// Has a log that has become long, or was held, let go of what it no longer needs; for a call now and then.
    /// Answers what it still waits for: see [`Log::waits_for`].
    #[must_use]
    pub fn relieve_log(&self) -> Vec<(PartitionId, u64)> {
        let needs_flush = self.inner.log.needs_flush();
        if needs_flush || self.inner.log.has_released() {
            recycle(&Rc::downgrade(&self.inner));
        }
        if !needs_flush {
            return Vec::new();
        }
        let tree = &self.inner.tree;
        let flushed = |partition| tree.flushed(partition).id;
        self.inner.log.waits_for(&flushed)
    }

    /// Appends a replica's hard state. A partition's first record should be one.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; nothing was appended.
    pub fn append_hard_state(
        &self,
        partition: PartitionId,
        state: HardState,
    ) -> Result<RecordRef, AppendError> {
        self.inner.log.append_hard_state(partition, state)
    }

    /// Starts the write of what was appended if fewer writes are in flight than the limit;
    /// otherwise it starts by itself when one of them ends. For the end of a loop's turn.
    pub fn submit(&self) {
        self.inner.log.submit();
    }

    /// The next durable group, in log order and without holes; `None` if there is none now.
    #[must_use]
    pub fn take_durable(&self) -> Option<DurableGroup> {
        let group = self.inner.log.take_durable();
        if group.is_some() {
            self.flush_for_log();
        }
        group
    }

    /// Shows an entry that was appended and not yet taken; `None` if it was taken. `f` must not
    /// append.
    pub fn with_pending<R>(
        &self,
        at: RecordRef,
        f: impl FnOnce(&EntryHead, Effects<'_>) -> R,
    ) -> Option<R> {
        self.inner.log.with_pending(at, f)
    }

    /// Has `hook` called whenever [`Engine::take_durable`], [`Engine::failure`] or an append that
    /// was refused may have news: from a task of the log, never from within a call of the owner.
    pub fn on_progress(&self, hook: Rc<dyn Fn()>) {
        self.inner.log.on_progress(hook);
    }

    /// Why the shard must stop, if it must: a write of the log failed, or the tree met a device
    /// that fails. Nothing appended after that is ever durable.
    #[must_use]
    pub fn failure(&self) -> Option<EngineError> {
        self.inner
            .log
            .failure()
            .or_else(|| self.inner.tree.failure().filter(EngineError::is_fatal))
    }

    /// Makes a committed, durable entry readable. Entries of a partition come in the order of
    /// their index.
    #[inline]
    pub fn apply<'a>(&self, head: &EntryHead, effects: impl Iterator<Item = Effect<'a>>) {
        self.inner.tree.apply(head, effects);
        self.inner.log.set_commit(head.partition, head.id.index);
    }

    /// The tree, for reads.
    #[must_use]
    pub fn tree(&self) -> &Tree<E> {
        &self.inner.tree
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &Log<E> {
        &self.inner.log
    }

    /// Makes everything appended durable, seals the log and ends all background work. Nothing is
    /// flushed: the next open replays what is not in tables. Groups that are durable can still be
    /// taken.
    ///
    /// # Errors
    ///
    /// The failure that stopped the log or the tree, if one did.
    pub async fn close(&self) -> Result<()> {
        let log = self.inner.log.close().await;
        let tree = self.inner.tree.close().await;
        log.and(tree)
    }

    /// Counters of the log and the tree.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        EngineStats {
            log: self.inner.log.stats(),
            tree: self.inner.tree.stats(),
            replayed: self.inner.replayed,
            opened_in: self.inner.opened_in,
            flushes_for_log: self.inner.flushes_for_log.get(),
        }
    }

    /// Has the tree flushed when the log has become long: its groups may be mostly padding, so that
    /// it grows faster than the memtable.
    fn flush_for_log(&self) {
        let inner = &self.inner;
        if inner.flushing.get() || !inner.log.needs_flush() {
            return;
        }
        inner.flushing.set(true);
        let weak = Rc::downgrade(inner);
        let tree = inner.tree.clone();
        inner.env.spawn(TaskClass::Flush, async move {
            // What was applied meanwhile may be what the log waits for now.
            let mut before = None;
            while before.as_ref() != Some(&tree.flushed_all()) {
                before = Some(tree.flushed_all());
                if let Some(inner) = weak.upgrade() {
                    let flushes = inner.flushes_for_log.get() + 1;
                    inner.flushes_for_log.set(flushes);
                }
                // What went wrong is the tree's failure or its lack of space, which it tells itself.
                let _told_by_tree = tree.flush().await;
                recycle(&weak);
                let needed = weak.upgrade().is_some_and(|inner| inner.log.needs_flush());
                if !needed {
                    break;
                }
            }
            if let Some(inner) = weak.upgrade() {
                inner.flushing.set(false);
            }
        });
    }
}

/// Lets the log forget what tables hold now.
fn recycle<E: Env>(inner: &Weak<Inner<E>>) {
    if let Some(inner) = inner.upgrade() {
        let tree = &inner.tree;
        inner.log.recycle(&|partition| tree.flushed(partition).id);
        if tree.failure().is_some() {
            inner.log.tell_owner();
        }
    }
}

/// What is done again with the entries that the log holds and tables do not.
#[derive(Default)]
struct Replay {
    entries: u64,
    tails: AHashMap<PartitionId, Vec<RecoveredEntry>>,
}

impl Replay {
    /// Applies what is committed; keeps the rest.
    async fn run<E: Env>(
        &mut self,
        env: &E,
        recovery: &mut Recovery<E>,
        tree: &Tree<E>,
    ) -> Result<()> {
        while let Some(group) = recovery.next_group().await? {
            for entry in group.entries() {
                let partition = entry.head.partition;
                if !entry.committed {
                    self.tails
                        .entry(partition)
                        .or_default()
                        .extend(entry.to_recovered());
                    continue;
                }
                tree.apply(&entry.head, entry.effects);
                self.entries += 1;
            }
            // A full disk must not keep the shard from being read: then memory holds what the log
            // does.
            while tree.pressure().stop && !tree.is_out_of_space() {
                if let Some(failure) = tree.failure() {
                    return Err(failure);
                }
                env.sleep(REPLAY_PAUSE).await;
            }
        }
        Ok(())
    }

    /// Tells a replica what was done with its entries. What tables hold counts as applied, and so as
    /// committed; what the log has truncated need not: it may have been superseded.
    fn tell(&mut self, replica: &mut RecoveredReplica, applied: LogId) {
        replica.applied = applied;
        replica.hard.commit = replica.hard.commit.max(replica.applied.index);
        replica.tail = self.tails.remove(&replica.partition).unwrap_or_default();
    }
}
