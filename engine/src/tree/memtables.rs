//! The memtables: one that grows, and those that wait to be flushed.

use std::cell::RefCell;
use std::rc::Rc;

use crate::memtable::Memtable;

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
}

/// All memtables of a tree.
#[derive(Default)]
pub(crate) struct Memtables {
    /// The one that grows.
    pub active: SharedMemtable,
    /// Those that wait, newest first.
    pub immutable: Vec<Rc<Immutable>>,
}

impl Memtables {
    /// All of them, newest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &SharedMemtable> {
        std::iter::once(&self.active).chain(self.immutable.iter().map(|i| &i.table))
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
        let table = std::mem::take(&mut self.active);
        let bytes = table.borrow().memory_bytes() as u64;
        let immutable = Immutable {
            table,
            applied,
            bytes,
        };
        self.immutable.insert(0, Rc::new(immutable));
    }
}
