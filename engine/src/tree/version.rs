//! The tables of the tree at one moment.
//!
//! A [`Version`] never changes; an edit makes a new one that shares what it leaves alone. Readers
//! hold the version they began with, so a table stays open, and its file in place, until the last
//! version that has it is gone.
//!
//! Level 0 is a list of *runs*, newest first; each flush makes one. Levels 1 to 6 are one run each.
//! The tables of a run are sorted and have no row key in common, and everything in a run is newer
//! than what older runs and deeper levels say of the same row.
//!
//! When a partition is exchanged or dropped, the tables that hold others' rows as well stay, and
//! *hide* it: a version has them as new [`TableFile`]s over the same file.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use crate::entry::PartitionId;
use crate::manifest::{LEVELS, TableRecord};
use crate::row::partition_of;

/// Numbers of tables whose files can be removed, filled as the last versions with them go.
pub(crate) type Obsolete = Rc<RefCell<Vec<u64>>>;

/// A table of the tree. `T` is its reader; the picker's tests go without.
pub(crate) struct TableFile<T> {
    /// What the manifest says of it. Level and run are those it was added with: a moved table's
    /// are where the version has it.
    pub record: TableRecord,
    /// Reads it.
    pub reader: T,
    /// Partitions whose rows and range deletes in it count for nothing.
    pub hidden: Vec<PartitionId>,
    /// Whether a compaction has it as an input.
    pub busy: Rc<Cell<bool>>,
    /// Whether a reader had to step over so many of its tombstones that it is worth compacting.
    pub wanted: Rc<Cell<bool>>,
    file: Rc<File>,
}

/// The file of a table, which goes when the manifest and all versions are done with it.
struct File {
    id: u64,
    removed: Cell<bool>,
    obsolete: Obsolete,
}

impl Drop for File {
    fn drop(&mut self) {
        if self.removed.get() {
            self.obsolete.borrow_mut().push(self.id);
        }
    }
}

impl<T> TableFile<T> {
    pub(crate) fn new(record: TableRecord, reader: T, obsolete: &Obsolete) -> Self {
        Self {
            hidden: Vec::new(),
            busy: Rc::default(),
            wanted: Rc::default(),
            file: Rc::new(File {
                id: record.id,
                removed: Cell::new(false),
                obsolete: Rc::clone(obsolete),
            }),
            record,
            reader,
        }
    }

    /// The manifest durably has it no more: its file goes with the last version.
    pub(crate) fn set_removed(&self) {
        self.file.removed.set(true);
    }

    /// Whether what it says of a row counts for nothing.
    #[inline]
    pub(crate) fn hides(&self, row_key: &[u8]) -> bool {
        !self.hidden.is_empty() && partition_of(row_key).is_some_and(|p| self.hidden.contains(&p))
    }
}

impl<T: Clone> TableFile<T> {
    /// The same table at another place.
    pub(crate) fn at(&self, level: u8, run: u64) -> Self {
        let mut table = self.hiding(&[]);
        table.record.level = level;
        table.record.run = run;
        table
    }

    /// The same table, which shows nothing more of some partitions.
    pub(crate) fn hiding(&self, partitions: &[PartitionId]) -> Self {
        Self {
            record: self.record.clone(),
            reader: self.reader.clone(),
            hidden: [&self.hidden, partitions].concat(),
            busy: Rc::clone(&self.busy),
            wanted: Rc::clone(&self.wanted),
            file: Rc::clone(&self.file),
        }
    }
}

/// Sorted tables without a row key in common.
pub(crate) struct Run<T> {
    /// In level 0, a higher one is newer; 0 elsewhere.
    pub number: u64,
    /// By row key.
    pub tables: Vec<Rc<TableFile<T>>>,
    /// Sum of the tables' files, in bytes.
    pub bytes: u64,
}

impl<T> Run<T> {
    fn new(number: u64, mut tables: Vec<Rc<TableFile<T>>>) -> Self {
        tables.sort_by(|a, b| a.record.smallest.cmp(&b.record.smallest));
        let bytes = tables.iter().map(|t| t.record.bytes).sum();
        Self {
            number,
            tables,
            bytes,
        }
    }

    /// Where the first table is that has row keys at or above `row_key`.
    pub(crate) fn lower_bound(&self, row_key: &[u8]) -> usize {
        self.tables
            .partition_point(|t| t.record.ends_before(row_key))
    }

    /// The table whose range holds `row_key`, unless it hides it.
    #[inline]
    pub(crate) fn find(&self, row_key: &[u8]) -> Option<&Rc<TableFile<T>>> {
        let table = self.tables.get(self.lower_bound(row_key))?;
        (table.record.smallest.as_slice() <= row_key && !table.hides(row_key)).then_some(table)
    }

    /// Which tables have a row key in common with `from..to`; with `to` itself too if `to_included`.
    pub(crate) fn overlapping(&self, from: &[u8], to: &[u8], to_included: bool) -> Range<usize> {
        let start = self.lower_bound(from);
        let rest = &self.tables[start..];
        let len = rest.partition_point(|t| {
            let smallest = t.record.smallest.as_slice();
            smallest < to || (to_included && smallest == to)
        });
        start..start + len
    }

    /// Which tables overlap a table's range.
    pub(crate) fn overlapping_table(&self, table: &TableRecord) -> Range<usize> {
        self.overlapping(&table.smallest, &table.largest, !table.largest_excluded)
    }
}

/// The tables of the tree at one moment.
pub(crate) struct Version<T> {
    /// Level 0, newest run first.
    pub l0: Vec<Rc<Run<T>>>,
    /// Levels 1 to 6, at their level less one.
    pub levels: Vec<Rc<Run<T>>>,
    /// Whether any table has a range delete.
    pub has_range_deletes: bool,
}

/// A change of a version, as an [`crate::manifest::Edit`] with open tables.
pub(crate) struct Change<T> {
    /// Tables that join, with their level and run.
    pub added: Vec<Rc<TableFile<T>>>,
    /// Tables that leave.
    pub removed: Vec<u64>,
    /// Tables that go to another level below level 0.
    pub moved: Vec<(u64, u8)>,
    /// Partitions that tables stop to show.
    pub hidden: Vec<(u64, PartitionId)>,
}

impl<T> Default for Change<T> {
    fn default() -> Self {
        Self {
            added: Vec::new(),
            removed: Vec::new(),
            moved: Vec::new(),
            hidden: Vec::new(),
        }
    }
}

impl<T: Clone> Change<T> {
    /// A table that stays, with what it hides from now on.
    fn hide(&self, table: &Rc<TableFile<T>>) -> Rc<TableFile<T>> {
        let hidden = self.hidden.iter();
        let more: Vec<_> = hidden
            .filter(|(id, _)| *id == table.record.id)
            .map(|(_, partition)| *partition)
            .collect();
        match more.is_empty() {
            true => Rc::clone(table),
            false => Rc::new(table.hiding(&more)),
        }
    }
}

impl<T> Version<T> {
    /// A tree without a table.
    pub(crate) fn empty() -> Self {
        Self::of(BTreeMap::new(), (1..LEVELS).map(|_| Vec::new()).collect())
    }

    fn of(l0: BTreeMap<u64, Vec<Rc<TableFile<T>>>>, levels: Vec<Vec<Rc<TableFile<T>>>>) -> Self {
        let l0: Vec<_> = l0
            .into_iter()
            .rev()
            .filter(|(_, tables)| !tables.is_empty())
            .map(|(number, tables)| Rc::new(Run::new(number, tables)))
            .collect();
        let levels: Vec<_> = levels
            .into_iter()
            .map(|tables| Rc::new(Run::new(0, tables)))
            .collect();
        let has_range_deletes = l0
            .iter()
            .chain(&levels)
            .flat_map(|run| &run.tables)
            .any(|t| t.record.range_deletes > 0);
        Self {
            l0,
            levels,
            has_range_deletes,
        }
    }

    /// The version after a change.
    pub(crate) fn changed(&self, change: &Change<T>) -> Self
    where
        T: Clone,
    {
        let goes = |table: &Rc<TableFile<T>>| {
            let id = table.record.id;
            change.removed.contains(&id) || change.moved.iter().any(|(moved, _)| *moved == id)
        };
        let stay = |run: &Rc<Run<T>>| -> Vec<Rc<TableFile<T>>> {
            let stays = run.tables.iter().filter(|t| !goes(t));
            stays.map(|table| change.hide(table)).collect()
        };
        let mut l0: BTreeMap<u64, Vec<_>> =
            self.l0.iter().map(|run| (run.number, stay(run))).collect();
        let mut levels: Vec<Vec<_>> = self.levels.iter().map(stay).collect();
        for (id, level) in &change.moved {
            let table = self.tables().find(|(_, t)| t.record.id == *id);
            if let (Some((_, table)), Some(level)) =
                (table, levels.get_mut(usize::from(*level).wrapping_sub(1)))
            {
                level.push(Rc::clone(table));
            }
        }
        for table in &change.added {
            match table.record.level {
                0 => l0
                    .entry(table.record.run)
                    .or_default()
                    .push(Rc::clone(table)),
                level => {
                    if let Some(level) = levels.get_mut(usize::from(level) - 1) {
                        level.push(Rc::clone(table));
                    }
                }
            }
        }
        Self::of(l0, levels)
    }

    /// Whether this very table is in it, and hides no more than it did.
    pub(crate) fn has(&self, table: &Rc<TableFile<T>>) -> bool {
        self.runs()
            .filter_map(|run| run.tables.get(run.lower_bound(&table.record.smallest)))
            .any(|found| Rc::ptr_eq(found, table))
    }

    /// All tables with their level, newest first.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (u8, &Rc<TableFile<T>>)> {
        let l0 = self.l0.iter().flat_map(|run| &run.tables).map(|t| (0, t));
        let deeper = self
            .levels
            .iter()
            .zip(1..)
            .flat_map(|(run, level)| run.tables.iter().map(move |table| (level, table)));
        l0.chain(deeper)
    }

    /// All sorted runs, newest first.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &Rc<Run<T>>> {
        self.l0.iter().chain(&self.levels)
    }

    /// Bytes in level 0.
    pub(crate) fn l0_bytes(&self) -> u64 {
        self.l0.iter().map(|run| run.bytes).sum()
    }

    /// The run of level 1 to 6.
    pub(crate) fn level(&self, level: usize) -> &Rc<Run<T>> {
        &self.levels[level - 1]
    }

    /// Whether a level deeper than `level` has a row key of `from..=to`.
    pub(crate) fn overlaps_below(&self, level: usize, from: &[u8], to: &[u8]) -> bool {
        self.levels
            .iter()
            .skip(level)
            .any(|run| !run.overlapping(from, to, true).is_empty())
    }
}
