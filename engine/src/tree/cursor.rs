//! Reading rows in order, both ways.
//!
//! A cursor holds the memtables and the version of the moment it was made, and reads at the versions
//! its partitions had then: later writes and compactions do not show. Holding them costs memory and
//! disk, so a cursor is made for one page, not for a session.

use std::rc::Rc;
use std::time::Duration;

use crate::compaction::retain;
use crate::entry::PartitionId;
use crate::env::Env;
use crate::error::{EngineError, Result};
use crate::range_deletes::Covering;
use crate::row::{Cell, ReadAt, RowMeta, partition_of, partition_range};
use crate::table::ReadMode;

use super::partitions::Positions;
use super::source::Merge;
use super::view::{Deletes, View};
use super::{Inner, Tree};

/// Cells looked at between two looks at the clock.
const CELLS_PER_CHECK: u32 = 32;

/// A memtable with so many times the tombstones that a cursor may step over is flushed for them,
/// but not more often than this.
const TOMBSTONES_PER_FLUSH: u64 = 16;
const FLUSH_INTERVAL: Duration = Duration::from_millis(500);

/// Walks the rows of a range.
pub struct Cursor<E: Env> {
    inner: Rc<Inner<E>>,
    merge: Merge<E>,
    from: Vec<u8>,
    to: Vec<u8>,
    reverse: bool,
    at: Versions,
    time_ms: u64,
    deletes: Deletes<E>,
    deadline: Option<Duration>,
    state: State,
    row_key: Vec<u8>,
    value: Vec<u8>,
    /// Set while the cursor stands on a row.
    row: Option<RowMeta>,
    /// Tombstones stepped over since the last row.
    skipped: u64,
    checks: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Walking,
    Ended,
}

/// Up to which version each partition is read.
enum Versions {
    One(u64),
    Each(Positions),
}

impl Versions {
    fn of(&self, row_key: &[u8]) -> u64 {
        match self {
            Self::One(version) => *version,
            Self::Each(positions) => {
                let partition = partition_of(row_key).unwrap_or_default();
                positions.get(partition).map_or(0, |a| a.id.index)
            }
        }
    }
}

impl<E: Env> Tree<E> {
    /// A cursor over the row keys `from..to`, ascending or, if `reverse`, descending, that reads what
    /// is there now, at `at`: with the version `u64::MAX` each partition's newest. An older version
    /// needs a [`super::Snapshot`].
    #[must_use]
    pub fn cursor(&self, from: &[u8], to: &[u8], reverse: bool, at: ReadAt) -> Cursor<E> {
        let inner = &self.inner;
        let View { sources, deletes } = inner.view(from, to, &ReadMode::Cached);
        Cursor {
            merge: Merge::new(sources, reverse),
            at: inner.versions(from, to, at.version),
            inner: Rc::clone(inner),
            from: from.to_vec(),
            to: to.to_vec(),
            reverse,
            time_ms: at.time_ms,
            deletes,
            deadline: None,
            state: State::New,
            row_key: Vec::new(),
            value: Vec::new(),
            row: None,
            skipped: 0,
            checks: 0,
        }
    }
}

impl<E: Env> Inner<E> {
    /// The versions to read a range at. The newest are pinned down now, because the memtable grows.
    fn versions(&self, from: &[u8], to: &[u8], version: u64) -> Versions {
        if version != u64::MAX {
            return Versions::One(version);
        }
        let applied = self.applied.borrow();
        let first: PartitionId = partition_of(from).unwrap_or_default();
        if to <= partition_range(first).1.as_slice() {
            return Versions::One(applied.get(first).map_or(0, |a| a.id.index));
        }
        Versions::Each(applied.clone())
    }
}

impl<E: Env> Cursor<E> {
    /// Gives up with `Deadline` once [`Env::now`] is past `at`, also in the middle of tombstones.
    #[must_use]
    pub fn with_deadline(mut self, at: Duration) -> Self {
        self.deadline = Some(at);
        self
    }

    /// The next live row: its row key, what it says of itself (`created_ms` is 0 where it is not
    /// known without looking further), and its value. `None` at the end of the range.
    ///
    /// # Errors
    /// `Deadline`; `Corrupt` names the damaged table; the disk's error. After an error the cursor
    /// is at its end.
    pub async fn next(&mut self) -> Result<Option<(&[u8], RowMeta, &[u8])>> {
        self.row = None;
        let found = self.advance().await;
        self.note_skipped();
        match found {
            Ok(Some(meta)) => {
                self.inner.stats.borrow_mut().rows_scanned += 1;
                self.row = Some(retain::public(meta));
                Ok(self.current())
            }
            Ok(None) => {
                self.state = State::Ended;
                Ok(None)
            }
            Err(e) => {
                self.state = State::Ended;
                Err(e)
            }
        }
    }

    /// The row that [`Cursor::next`] returned last, for merging several cursors. `None` before the
    /// first and after the last.
    #[must_use]
    pub fn current(&self) -> Option<(&[u8], RowMeta, &[u8])> {
        self.row
            .map(|meta| (self.row_key.as_slice(), meta, self.value.as_slice()))
    }

    async fn advance(&mut self) -> Result<Option<RowMeta>> {
        match self.state {
            State::Ended => return Ok(None),
            State::New if self.from >= self.to => return Ok(None),
            State::New if self.reverse => self.merge.seek_before(&self.to).await?,
            State::New => self.merge.seek(&self.from).await?,
            State::Walking => {}
        }
        self.state = State::Walking;
        loop {
            let row_key = &mut self.row_key;
            let begun = self.merge.with_cell(|key, _| {
                row_key.clear();
                row_key.extend_from_slice(key);
            });
            if begun.is_none() || !self.is_in_range() {
                return Ok(None);
            }
            let at = self.at.of(&self.row_key);
            if let Some(meta) = self.newest_of_row(at).await? {
                return Ok(Some(meta));
            }
            self.check().await?;
        }
    }

    fn is_in_range(&self) -> bool {
        match self.reverse {
            false => self.row_key < self.to,
            true => self.row_key >= self.from,
        }
    }

    /// Walks through all cells of the row at hand; its newest one at `at`, if that is live. Its value
    /// is then in `self.value`.
    async fn newest_of_row(&mut self, at: u64) -> Result<Option<RowMeta>> {
        let mut newest: Option<u64> = None;
        let mut live: Option<RowMeta> = None;
        while self.merge.is_in_row(&self.row_key) {
            let value = &mut self.value;
            self.merge.with_cell(|_, cell| {
                let version = cell.version();
                if version > at || newest.is_some_and(|newest| newest >= version) {
                    return;
                }
                newest = Some(version);
                live = match cell {
                    Cell::Put { meta, value: v } => {
                        value.clear();
                        value.extend_from_slice(v);
                        Some(meta)
                    }
                    Cell::Delete { .. } => None,
                };
            });
            self.merge.step().await?;
            self.checks += 1;
            if self.checks >= CELLS_PER_CHECK {
                self.check().await?;
            }
        }
        let time_ms = self.time_ms;
        let live = live.filter(|meta| {
            !Inner::<E>::is_expired(meta, time_ms)
                && self.deletes.covering(&self.row_key, at) <= meta.version
        });
        if live.is_none() && newest.is_some() {
            self.skipped += 1;
        }
        Ok(live)
    }

    async fn check(&mut self) -> Result<()> {
        self.checks += 1;
        if self.checks < CELLS_PER_CHECK {
            return Ok(());
        }
        self.checks = 0;
        let env = self.inner.env.clone();
        if self.deadline.is_some_and(|deadline| env.now() > deadline) {
            return Err(EngineError::Deadline);
        }
        env.yield_if_needed().await;
        Ok(())
    }

    /// Tells the tree of tombstones worth compacting away.
    fn note_skipped(&mut self) {
        let skipped = std::mem::take(&mut self.skipped);
        if skipped == 0 {
            return;
        }
        let inner = &*self.inner;
        inner.stats.borrow_mut().tombstones_skipped += skipped;
        if skipped >= inner.options.tombstone_skips_max {
            let (from, to) = match self.reverse {
                false => (self.from.as_slice(), self.row_key.as_slice()),
                true => (self.row_key.as_slice(), self.to.as_slice()),
            };
            inner.want_compaction(from, to);
        }
    }
}

impl<E: Env> Inner<E> {
    /// Marks what holds tombstones in a range for compaction.
    fn want_compaction(&self, from: &[u8], to: &[u8]) {
        let in_memory = {
            let memtables = self.memtables.borrow();
            let active = memtables.active.borrow();
            let deletes = (active.tombstones() + active.range_deletes().len()) as u64;
            deletes >= TOMBSTONES_PER_FLUSH * self.options.tombstone_skips_max
        };
        let now = self.env.now();
        if in_memory && now.saturating_sub(self.flush_wanted_at.get()) >= FLUSH_INTERVAL {
            self.flush_wanted.set(true);
            self.flush_wanted_at.set(now);
        }
        for run in self.version().runs() {
            for table in &run.tables[run.overlapping(from, to, true)] {
                if table.record.tombstones + table.record.range_deletes > 0 {
                    table.wanted.set(true);
                }
            }
        }
        self.changed.notify();
    }
}
