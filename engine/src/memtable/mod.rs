//! The newest data of a shard: what is committed and not yet in a table, sorted in memory.
//!
//! Cells are written once into an arena of chunks; a B+ tree over them keeps the order (see `tree.rs`), and
//! an index by hash finds the newest cell of a row without a search (see `index.rs`), but for the rows of one
//! keyspace that is hardly ever asked for a single row. Nothing is removed: a
//! delete is a cell, a range delete goes into a list of its own. Memory is known to the byte, because it is
//! what decides when to flush.
//!
//! A memtable belongs to one core and takes no lock. A [`MemCursor`] holds no borrow of it, so it
//! stays usable while the memtable grows.

mod arena;
mod cursor;
mod index;
mod tree;

#[cfg(test)]
mod tests;

pub use cursor::MemCursor;

use crate::entry::KeyspaceId;
use crate::range_deletes::RangeDeletes;
use crate::row::{Cell, ROW_PREFIX_BYTES};
use arena::Arena;
use index::{Found, Index};
use tree::Tree;

/// Cells from which on a memtable has an index.
const INDEXED_FROM: usize = 128;

/// Rows that [`Memtable::warm`] fetches at once: a core has about as many reads of memory under way at most.
pub const WARMED_MAX: usize = 16;
/// Bytes from which on a memtable is warmed: a smaller one is in the CPU's own caches.
const WARMED_FROM: usize = 512 << 10;

/// A sorted, growing set of cells and range deletes. Lives on one core.
pub struct Memtable {
    arena: Arena,
    tree: Tree,
    index: Index,
    /// The keyspace whose rows are not in the index, as row keys have it.
    searched: Option<[u8; 4]>,
    range_deletes: RangeDeletes,
    tombstones: usize,
    content_bytes: u64,
    /// Raised by every insertion: a place found before it is stale.
    changes: u64,
}

impl Default for Memtable {
    fn default() -> Self {
        Self::new()
    }
}

impl Memtable {
    /// An empty memtable: about 1 KiB.
    #[must_use]
    pub fn new() -> Self {
        Self {
            arena: Arena::default(),
            tree: Tree::new(),
            index: Index::new(),
            searched: None,
            range_deletes: RangeDeletes::new(),
            tombstones: 0,
            content_bytes: 0,
            changes: 0,
        }
    }

    /// An empty one that finds the rows of a keyspace by search only.
    #[must_use]
    pub fn searching(keyspace: Option<KeyspaceId>) -> Self {
        Self {
            searched: keyspace.map(u32::to_be_bytes),
            ..Self::new()
        }
    }

    /// Another one like this, empty.
    #[must_use]
    pub fn anew(&self) -> Self {
        Self {
            searched: self.searched,
            ..Self::new()
        }
    }

    #[inline]
    fn is_indexed(&self, row_key: &[u8]) -> bool {
        self.searched
            .is_none_or(|searched| row_key.get(2..ROW_PREFIX_BYTES) != Some(&searched[..]))
    }

    /// Adds a cell. One with the same row key and version takes the place of the older one.
    pub fn insert(&mut self, row_key: &[u8], cell: Cell<'_>) {
        let value_len = match &cell {
            Cell::Put { value, .. } => value.len(),
            Cell::Delete { .. } => {
                self.tombstones += 1;
                0
            }
        };
        let stored = self.tree.insert(&mut self.arena, row_key, &cell);
        if self.index.has_begun() {
            if self.is_indexed(row_key) {
                self.index
                    .insert(&self.arena, row_key, cell.version(), stored);
            }
        } else if self.tree.len() >= INDEXED_FROM {
            self.begin_index();
        }
        self.content_bytes += (row_key.len() + value_len) as u64;
        self.changes += 1;
    }

    #[cold]
    fn begin_index(&mut self) {
        self.index.begin();
        let mut at = self.tree.settle(self.tree.start());
        while let Some((mut place, cell)) = at {
            let (row_key, version) = self.arena.key(cell);
            if self.is_indexed(row_key) {
                self.index.insert(&self.arena, row_key, version, cell);
            }
            place.slot += 1;
            at = self.tree.settle(place);
        }
    }

    /// Deletes every row of `from..to` older than `version`. An empty range does nothing.
    pub fn delete_range(&mut self, from: &[u8], to: &[u8], version: u64) {
        self.range_deletes.insert(from, to, version);
    }

    /// The newest cell of a row with a version of at most `at_version`. Looks at no range delete:
    /// see [`Memtable::max_range_delete_covering`].
    #[inline]
    #[must_use]
    pub fn get(&self, row_key: &[u8], at_version: u64) -> Option<Cell<'_>> {
        let found = match self.is_indexed(row_key) {
            true => self.index.newest(&self.arena, row_key),
            false => Found::Unknown,
        };
        match found {
            Found::Newest(found) => {
                let (_, cell) = self.arena.cell(found);
                if cell.version() <= at_version {
                    return Some(cell);
                }
            }
            Found::Absent => return None,
            Found::Unknown => {}
        }
        let place = self.tree.lower_bound(&self.arena, (row_key, at_version));
        let (_, found) = self.tree.settle(place)?;
        let (key, cell) = self.arena.cell(found);
        (key == row_key).then_some(cell)
    }

    /// Fetches what [`Memtable::get`] will look at for up to [`WARMED_MAX`] keys from memory into the CPU's
    /// caches: all at once, where the reads themselves would wait for one after the other. Only a
    /// hint: the keys need not exist.
    pub fn warm<'k>(&self, keys: impl Iterator<Item = (KeyspaceId, &'k [u8])>) {
        if self.arena.memory_bytes() < WARMED_FROM {
            return;
        }
        // In each of these loops no step waits for another, so that the CPU runs ahead of its memory.
        let mut hashes = [0; WARMED_MAX];
        let mut count = 0;
        for (hash, (keyspace, key)) in hashes.iter_mut().zip(keys) {
            *hash = self.index.hash(keyspace, key);
            count += 1;
        }
        let mut cells = [None; WARMED_MAX];
        for (cell, &hash) in cells.iter_mut().zip(&hashes[..count]) {
            *cell = self.index.guess(hash);
        }
        let touched = cells.iter().flatten().map(|&cell| self.arena.touch(cell));
        std::hint::black_box(touched.fold(0, u8::wrapping_add));
    }

    /// The newest version, at most `at_version`, of a range delete that covers a row; 0 for none.
    #[inline]
    #[must_use]
    pub fn max_range_delete_covering(&self, row_key: &[u8], at_version: u64) -> u64 {
        self.range_deletes.covering(row_key, at_version)
    }

    /// The range deletes.
    #[must_use]
    pub fn range_deletes(&self) -> &RangeDeletes {
        &self.range_deletes
    }

    /// A cursor that stands nowhere yet.
    #[must_use]
    pub fn cursor(&self) -> MemCursor {
        MemCursor::new()
    }

    /// Cells held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tree.len()
    }

    /// Whether there is neither a cell nor a range delete.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tree.len() == 0 && self.range_deletes.is_empty()
    }

    /// Tombstones inserted.
    #[must_use]
    pub fn tombstones(&self) -> usize {
        self.tombstones
    }

    /// Row keys and values inserted, in bytes.
    #[must_use]
    pub fn content_bytes(&self) -> u64 {
        self.content_bytes
    }

    /// Memory held, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.arena.memory_bytes()
            + self.tree.memory_bytes()
            + self.index.memory_bytes()
            + self.range_deletes.memory_bytes()
    }
}
