//! The memtables: one that grows, and those that wait to be flushed.

use std::cell::RefCell;
use std::rc::Rc;

use crate::entry::{KeyspaceId, PartitionId};
use crate::memtable::Memtable;
use crate::range_deletes::RangeDeletes;
use crate::row::partition_of;

use super::partitions::Positions;

/// A memtable that cursors may hold on to while it grows.
pub(crate) type SharedMemtable = Rc<RefCell<Memtable>>;

/// A memtable that grows no more.
pub(crate) struct Immutable {
    /// The data.
    pub table: SharedMemtable,
    /// Up to where each partition had been applied when it was closed.
    pub applied: Positions,
    /// Memory it holds, in bytes.
    pub bytes: u64,
    /// Partitions whose rows and range deletes in it count for nothing: they were exchanged.
    pub hidden: RefCell<Vec<PartitionId>>,
}

impl Immutable {
    /// The range deletes that count.
    pub(crate) fn range_deletes(&self) -> RangeDeletes {
        let table = self.table.borrow();
        let all = table.range_deletes();
        if self.hidden.borrow().is_empty() {
            return all.clone();
        }
        let mut shown = RangeDeletes::new();
        for delete in all.iter() {
            if !self.hides(partition_of(delete.from).unwrap_or_default()) {
                shown.insert(delete.from, delete.to, delete.version);
            }
        }
        shown
    }

    fn hides(&self, partition: PartitionId) -> bool {
        self.hidden.borrow().contains(&partition)
    }
}

/// All memtables of a tree.
pub(crate) struct Memtables {
    /// The one that grows.
    pub active: SharedMemtable,
    /// Those that wait, newest first.
    pub immutable: Vec<Rc<Immutable>>,
}

impl Memtables {
    /// An empty one, which keeps the rows of `own_keyspace` out of its index.
    pub(crate) fn new(own_keyspace: Option<KeyspaceId>) -> Self {
        Self {
            active: SharedMemtable::new(RefCell::new(Memtable::searching(own_keyspace))),
            immutable: Vec::new(),
        }
    }

    /// Those that show a row, newest first.
    #[inline]
    pub(crate) fn showing(&self, row_key: &[u8]) -> impl Iterator<Item = &SharedMemtable> {
        let partition = partition_of(row_key).unwrap_or_default();
        let shown = self.immutable.iter().filter(move |i| !i.hides(partition));
        std::iter::once(&self.active).chain(shown.map(|i| &i.table))
    }

    /// All of them, newest first, with what they hide.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&SharedMemtable, Vec<PartitionId>)> {
        let waiting = self.immutable.iter();
        let waiting = waiting.map(|i| (&i.table, i.hidden.borrow().clone()));
        std::iter::once((&self.active, Vec::new())).chain(waiting)
    }

    /// Hides a partition in all that wait. The active one must be closed before.
    pub(crate) fn hide(&self, partition: PartitionId) {
        for immutable in self.immutable.iter().filter(|i| !i.hides(partition)) {
            immutable.hidden.borrow_mut().push(partition);
        }
    }

    /// Memory of the growing one, in bytes.
    #[inline]
    pub(crate) fn active_bytes(&self) -> u64 {
        self.active.borrow().memory_bytes() as u64
    }

    /// Memory of all that wait, in bytes.
    pub(crate) fn immutable_bytes(&self) -> u64 {
        self.immutable.iter().map(|i| i.bytes).sum()
    }

    /// Closes the growing one and begins another.
    pub(crate) fn rotate(&mut self, applied: Positions) {
        let next = SharedMemtable::new(RefCell::new(self.active.borrow().anew()));
        let table = std::mem::replace(&mut self.active, next);
        let bytes = table.borrow().memory_bytes() as u64;
        let immutable = Immutable {
            table,
            applied,
            bytes,
            hidden: RefCell::default(),
        };
        self.immutable.insert(0, Rc::new(immutable));
    }
}
