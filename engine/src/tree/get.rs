//! Reading one row.
//!
//! From the newest structure to the oldest, the first cell of the row that the reader may see is the
//! answer. A range delete met on the way covers everything in older structures, so that it ends the
//! search as well; where the tree has none, nothing is spent on them.

use std::rc::Rc;

use crate::compaction::retain;
use crate::entry::KeyspaceId;
use crate::env::Env;
use crate::error::Result;
use crate::memtable::Memtable;
use crate::planted::{self, Bug};
use crate::row::{Cell, ReadAt, RowMeta};
use crate::table::CachedLookup;

use super::{Inner, Tables, Tree};

/// What memory knows of a row.
pub enum Lookup<R, E: Env> {
    /// It is there.
    Found(R),
    /// It is not there.
    Absent,
    /// A block that is not cached decides: [`Tree::go_on`] reads it.
    NeedsDisk(Undecided<E>),
}

/// A read that memory could not decide, with how far it came: what it has seen it need not look at again.
pub struct Undecided<E: Env> {
    version: Rc<Tables<E>>,
    /// Sorted runs of the version that do not have the row.
    runs_passed: usize,
    /// The highest range delete met so far.
    covering: u64,
}

/// A row, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What it says of itself.
    pub meta: RowMeta,
    /// Its value.
    pub value: Vec<u8>,
}

impl Row {
    /// A copy of a row that is shown.
    #[must_use]
    pub fn of(meta: RowMeta, value: &[u8]) -> Self {
        Self {
            meta,
            value: value.to_vec(),
        }
    }
}

/// The next older cell of a row.
enum Met<R> {
    /// A live one, shown.
    Live(R),
    /// It shows the row to be absent.
    Dead,
}

impl<R> Met<R> {
    fn live(self) -> Option<R> {
        match self {
            Self::Live(r) => Some(r),
            Self::Dead => None,
        }
    }
}

/// Judges the newest cell of a row: `covering` is the highest range delete met so far.
#[inline]
fn judge<E: Env, R>(
    cell: &Cell<'_>,
    covering: u64,
    time_ms: u64,
    f: impl FnOnce(RowMeta, &[u8]) -> R,
) -> Met<R> {
    match cell {
        Cell::Put { meta, value }
            if meta.version >= covering && !Inner::<E>::is_expired(meta, time_ms) =>
        {
            Met::Live(f(*meta, value))
        }
        _ => Met::Dead,
    }
}

#[inline]
fn covering_in(memtable: &Memtable, row_key: &[u8], version: u64) -> u64 {
    if memtable.range_deletes().is_empty() || planted::is(Bug::RangeDeleteIgnored) {
        return 0;
    }
    memtable.max_range_delete_covering(row_key, version)
}

impl<E: Env> Tree<E> {
    /// Reads a row if memory alone can tell, and shows it to `f`, which must not call back into the
    /// tree. Waits for nothing and allocates nothing. `created_ms` is 0 where it is not known.
    pub fn get_now<R>(
        &self,
        row_key: &[u8],
        at: ReadAt,
        f: impl FnOnce(RowMeta, &[u8]) -> R,
    ) -> Lookup<R, E> {
        let found = self
            .inner
            .get_now(row_key, at, |meta, value| f(retain::public(meta), value));
        if !matches!(found, Lookup::NeedsDisk(_)) {
            self.inner.stats.borrow_mut().gets_cached += 1;
        }
        found
    }

    /// Ends a read that [`Tree::get_now`] could not, of the same row at the same point, and shows the row
    /// to `f`, which must not call back into the tree. It sees the tree as it was when the read began.
    ///
    /// # Errors
    /// As [`Tree::get`].
    pub async fn go_on<R>(
        &self,
        undecided: Undecided<E>,
        row_key: &[u8],
        at: ReadAt,
        f: impl FnOnce(RowMeta, &[u8]) -> R,
    ) -> Result<Option<R>> {
        let f = |meta, value: &[u8]| f(retain::public(meta), value);
        self.inner.get_counted(undecided, row_key, at, f).await
    }

    /// Says that up to [`WARMED_MAX`] keys will be read presently: rows in the growing memtable are fetched into
    /// the CPU's caches side by side.
    ///
    /// [`WARMED_MAX`]: crate::memtable::WARMED_MAX
    pub fn warm<'k>(&self, keys: impl Iterator<Item = (KeyspaceId, &'k [u8])>) {
        let memtables = self.inner.memtables.borrow();
        memtables.active.borrow().warm(keys);
    }

    /// Reads a row. `created_ms` is 0 where it is not known without looking further.
    ///
    /// # Errors
    /// `Corrupt` names the damaged table; the disk's error.
    pub async fn get(&self, row_key: &[u8], at: ReadAt) -> Result<Option<Row>> {
        let f = |meta, value: &[u8]| Row::of(retain::public(meta), value);
        self.inner.get(row_key, at, f).await
    }

    /// Reads what a row says of itself, with its exact creation.
    ///
    /// The creation of a row is that of its first version since it was last absent. Where a version
    /// with an expiry was overwritten before it expired, and compaction has dropped it since, it is
    /// that of the overwriting version.
    ///
    /// # Errors
    /// As [`Tree::get`].
    pub async fn stat(&self, row_key: &[u8], at: ReadAt) -> Result<Option<RowMeta>> {
        let version = self.inner.version();
        let memtables: Vec<_> = {
            let memtables = self.inner.memtables.borrow();
            memtables.showing(row_key).cloned().collect()
        };
        let mut covering = 0;
        let mut newest: Option<RowMeta> = None;
        // One cell after the other, from structure to structure, until the creation is settled.
        let mut meet = |cell: Option<&Cell<'_>>, covering: u64| match (&mut newest, cell) {
            (_, None) => (covering > 0).then_some(()),
            (None, Some(Cell::Put { meta, .. }))
                if meta.version >= covering && !Inner::<E>::is_expired(meta, at.time_ms) =>
            {
                newest = Some(*meta);
                (!retain::is_open(meta)).then_some(())
            }
            (None, Some(_)) => Some(()),
            (Some(meta), Some(older)) => {
                if older.version() < covering {
                    return Some(());
                }
                retain::absorb(meta, older);
                (!retain::is_open(meta)).then_some(())
            }
        };
        let mut settled = None;
        for table in &memtables {
            let table = table.borrow();
            covering = covering.max(covering_in(&table, row_key, at.version));
            let mut below = Some(at.version);
            while let (None, Some(v)) = (settled, below) {
                let cell = table.get(row_key, v);
                settled = meet(cell.as_ref(), covering);
                below = cell.and_then(|cell| cell.version().checked_sub(1));
            }
            if settled.is_some() {
                break;
            }
        }
        if settled.is_none() {
            'runs: for run in version.runs() {
                let Some(table) = run.find(row_key) else {
                    continue;
                };
                if table.record.range_deletes > 0 {
                    let here = table.reader.range_deletes().covering(row_key, at.version);
                    covering = covering.max(here);
                }
                let mut below = Some(at.version);
                while let Some(v) = below {
                    let found = table.reader.get(row_key, v).await?;
                    let cell = found.as_ref().map(|found| found.cell());
                    if cell.is_some() && meet(cell.as_ref(), covering).is_some() {
                        break 'runs;
                    }
                    below = cell.and_then(|cell| cell.version().checked_sub(1));
                }
                if meet(None, covering).is_some() {
                    break;
                }
            }
        }
        Ok(newest.map(|mut meta| {
            retain::close(&mut meta);
            meta
        }))
    }
}

impl<E: Env> Inner<E> {
    pub(super) fn get_now<R>(
        &self,
        row_key: &[u8],
        at: ReadAt,
        f: impl FnOnce(RowMeta, &[u8]) -> R,
    ) -> Lookup<R, E> {
        let f = match self.get_in_memtables(row_key, at, f) {
            Ok(Met::Live(r)) => return Lookup::Found(r),
            Ok(Met::Dead) => return Lookup::Absent,
            Err(f) => f,
        };
        let mut covering = 0;
        let version = self.version.borrow();
        for (runs_passed, run) in version.runs().enumerate() {
            let Some(table) = run.find(row_key) else {
                continue;
            };
            if table.record.range_deletes > 0 && !planted::is(Bug::RangeDeleteIgnored) {
                let here = table.reader.range_deletes().covering(row_key, at.version);
                covering = covering.max(here);
            }
            match table.reader.get_cached(row_key, at.version) {
                CachedLookup::Found(found) => {
                    return match judge::<E, _>(&found.cell(), covering, at.time_ms, f) {
                        Met::Live(r) => Lookup::Found(r),
                        Met::Dead => Lookup::Absent,
                    };
                }
                CachedLookup::NeedsDisk => {
                    return Lookup::NeedsDisk(Undecided {
                        version: Rc::clone(&version),
                        runs_passed,
                        covering,
                    });
                }
                CachedLookup::Absent if covering > 0 => return Lookup::Absent,
                CachedLookup::Absent => {}
            }
        }
        Lookup::Absent
    }

    async fn get<R>(
        &self,
        row_key: &[u8],
        at: ReadAt,
        f: impl FnOnce(RowMeta, &[u8]) -> R,
    ) -> Result<Option<R>> {
        let f = match self.get_in_memtables(row_key, at, f) {
            Ok(met) => {
                self.stats.borrow_mut().gets_cached += 1;
                return Ok(met.live());
            }
            Err(f) => f,
        };
        let undecided = Undecided {
            version: self.version(),
            runs_passed: 0,
            covering: 0,
        };
        self.get_counted(undecided, row_key, at, f).await
    }

    async fn get_counted<R>(
        &self,
        undecided: Undecided<E>,
        row_key: &[u8],
        at: ReadAt,
        f: impl FnOnce(RowMeta, &[u8]) -> R,
    ) -> Result<Option<R>> {
        // Nothing but a device read waits here, so that nobody else counts any if this one has none.
        let device_reads = &self.context.counters.device_reads;
        let before = device_reads.get();
        let row = self.get_in_tables(undecided, row_key, at, f).await;
        let mut stats = self.stats.borrow_mut();
        match device_reads.get() == before {
            true => stats.gets_cached += 1,
            false => stats.gets_from_disk += 1,
        }
        row
    }

    /// What the tables say of a row of which the memtables have nothing, nor a range delete.
    async fn get_in_tables<R>(
        &self,
        undecided: Undecided<E>,
        row_key: &[u8],
        at: ReadAt,
        f: impl FnOnce(RowMeta, &[u8]) -> R,
    ) -> Result<Option<R>> {
        let mut covering = undecided.covering;
        for run in undecided.version.runs().skip(undecided.runs_passed) {
            let Some(table) = run.find(row_key) else {
                continue;
            };
            if table.record.range_deletes > 0 && !planted::is(Bug::RangeDeleteIgnored) {
                let here = table.reader.range_deletes().covering(row_key, at.version);
                covering = covering.max(here);
            }
            match table.reader.get(row_key, at.version).await? {
                Some(found) => {
                    return Ok(judge::<E, _>(&found.cell(), covering, at.time_ms, f).live());
                }
                None if covering > 0 => return Ok(None),
                None => {}
            }
        }
        Ok(None)
    }

    /// What the memtables say of a row; if nothing, `f` again.
    #[inline]
    fn get_in_memtables<R, F: FnOnce(RowMeta, &[u8]) -> R>(
        &self,
        row_key: &[u8],
        at: ReadAt,
        f: F,
    ) -> std::result::Result<Met<R>, F> {
        let mut covering = 0;
        let memtables = self.memtables.borrow();
        for table in memtables.showing(row_key) {
            let table = table.borrow();
            covering = covering.max(covering_in(&table, row_key, at.version));
            if let Some(cell) = table.get(row_key, at.version) {
                return Ok(judge::<E, R>(&cell, covering, at.time_ms, f));
            }
            if covering > 0 {
                return Ok(Met::Dead);
            }
        }
        Err(f)
    }
}
