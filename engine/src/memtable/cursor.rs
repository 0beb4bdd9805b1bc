//! A position among a memtable's cells that survives the memtable's growth.

use super::Memtable;
use super::arena::CellRef;
use super::tree::Place;
use crate::row::Cell;

/// Walks a memtable in internal order (row key ascending, version descending), both ways.
///
/// It borrows nothing: each call is given the memtable it was made for. Cells inserted meanwhile
/// are seen if they lie ahead.
#[derive(Debug, Clone, Default)]
pub struct MemCursor {
    at: Option<At>,
}

#[derive(Debug, Clone, Copy)]
struct At {
    place: Place,
    cell: CellRef,
    changes: u64,
}

impl MemCursor {
    /// A cursor that stands nowhere yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it stands on a cell.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.at.is_some()
    }

    /// Stands on the first cell at or after (`row_key`, `version`) in internal order. With
    /// `u64::MAX` that is the newest cell of the first row at or above `row_key`.
    pub fn seek(&mut self, table: &Memtable, row_key: &[u8], version: u64) {
        let place = table.tree.lower_bound(&table.arena, (row_key, version));
        self.stand(table, table.tree.settle(place));
    }

    /// Stands on the last cell before (`row_key`, `version`) in internal order. With `u64::MAX`
    /// that is the oldest cell of the last row below `row_key`.
    pub fn seek_before(&mut self, table: &Memtable, row_key: &[u8], version: u64) {
        let place = table.tree.lower_bound(&table.arena, (row_key, version));
        self.stand(table, table.tree.before(place));
    }

    /// Stands on the first cell.
    pub fn seek_first(&mut self, table: &Memtable) {
        self.stand(table, table.tree.settle(table.tree.start()));
    }

    /// Stands on the last cell.
    pub fn seek_last(&mut self, table: &Memtable) {
        self.stand(table, table.tree.before(table.tree.end()));
    }

    /// Moves to the next cell; from the last one, to nowhere.
    #[inline]
    pub fn next(&mut self, table: &Memtable) {
        if let Some(mut place) = self.place(table) {
            place.slot += 1;
            self.stand(table, table.tree.settle(place));
        }
    }

    /// Moves to the cell before; from the first one, to nowhere.
    #[inline]
    pub fn prev(&mut self, table: &Memtable) {
        if let Some(place) = self.place(table) {
            self.stand(table, table.tree.before(place));
        }
    }

    /// The row key and the cell it stands on.
    #[inline]
    #[must_use]
    pub fn get<'m>(&self, table: &'m Memtable) -> Option<(&'m [u8], Cell<'m>)> {
        self.at.map(|at| table.arena.cell(at.cell))
    }

    /// The row key and version it stands on.
    #[inline]
    #[must_use]
    pub fn key<'m>(&self, table: &'m Memtable) -> Option<(&'m [u8], u64)> {
        self.at.map(|at| table.arena.key(at.cell))
    }

    /// Where it stands now, found again by key if the memtable has changed since.
    #[inline]
    fn place(&self, table: &Memtable) -> Option<Place> {
        let at = self.at?;
        if at.changes == table.changes {
            return Some(at.place);
        }
        let place = table
            .tree
            .lower_bound(&table.arena, table.arena.key(at.cell));
        table.tree.settle(place).map(|(place, _)| place)
    }

    #[inline]
    fn stand(&mut self, table: &Memtable, found: Option<(Place, CellRef)>) {
        self.at = found.map(|(place, cell)| At {
            place,
            cell,
            changes: table.changes,
        });
    }
}
