//! Where the newest cell of each row is, by a hash of the row's key.
//!
//! A search in the tree waits for memory at each of its levels, more so where keys are alike for longer than
//! the 8 bytes that it compares at once. Most reads want the newest cell of one row: they look here, at one
//! slot and at the cell.
//!
//! ```text
//! slot    | used 1 bit | tag 19 bits | cell 44 bits |
//! ```
//!
//! The table is in parts, chosen by the hash's highest bits, each of which grows by itself: so no insertion
//! moves more than a part's slots. A part is searched from the slot that the tag's lowest bits name, on to the
//! first that is free, but not over more than [`PROBES_MAX`]: keys that were chosen to meet are found by the
//! tree, as is any row that is not found in a part that had to leave one out. A memtable of a few rows has no
//! index: it would be larger than they are.

use std::hash::{BuildHasher, Hasher};

use ahash::RandomState;

use super::arena::{Arena, CellRef, PACKED_BITS};
use crate::entry::KeyspaceId;
use crate::row::ROW_PREFIX_BYTES;

const PARTS_BITS: u32 = 8;
/// Slots of a part at first.
const SLOTS_MIN: usize = 8;
const TAG_BITS: u32 = 19;
/// Slots of a part at most: the tag names no more.
const SLOTS_MAX: usize = 1 << TAG_BITS;
/// Slots that are looked at for one key.
const PROBES_MAX: usize = 64;
/// Slots that are looked at for a guess: most are in the same cache line.
const PROBES_NEAR: usize = 4;
const USED: u64 = 1 << 63;

/// What is known of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Its newest cell.
    Newest(CellRef),
    /// It has none.
    Absent,
    /// Nothing: ask the tree.
    Unknown,
}

#[derive(Default)]
struct Part {
    slots: Box<[u64]>,
    used: u32,
    /// Whether a row was left out.
    is_partial: bool,
}

/// The index of one memtable.
pub(super) struct Index {
    hasher: RandomState,
    /// None before it is begun.
    parts: Box<[Part]>,
    slots: usize,
}

impl Index {
    pub fn new() -> Self {
        Self {
            // Always the same, so that a simulation repeats itself.
            hasher: RandomState::with_seeds(0x5269, 0x6e67, 0x626f, 0x6c74),
            parts: Box::default(),
            slots: 0,
        }
    }

    /// Begins it: every row of the memtable is to be inserted from now on, after those there are.
    pub fn begin(&mut self) {
        self.parts = (0..1 << PARTS_BITS).map(|_| Part::default()).collect();
    }

    #[inline]
    pub fn has_begun(&self) -> bool {
        !self.parts.is_empty()
    }

    pub fn memory_bytes(&self) -> usize {
        self.parts.len() * size_of::<Part>() + self.slots * size_of::<u64>()
    }

    /// A row's hash. Its partition is left out: it follows from the key, but in the server's own keyspace, whose
    /// rows are not here.
    #[inline]
    fn hash_of(&self, row_key: &[u8]) -> u64 {
        match row_key.split_first_chunk::<ROW_PREFIX_BYTES>() {
            Some((&[_, _, a, b, c, d], key)) => {
                self.hash(KeyspaceId::from_be_bytes([a, b, c, d]), key)
            }
            None => self.hash(0, row_key),
        }
    }

    /// The hash of a key's row.
    #[inline]
    pub fn hash(&self, keyspace: KeyspaceId, key: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u32(keyspace);
        hasher.write(key);
        hasher.finish()
    }

    /// The cell that is most likely a row's newest: its slot has the row's tag, and is near the first.
    #[inline]
    pub fn guess(&self, hash: u64) -> Option<CellRef> {
        let part = self.parts.get(part_of(hash))?;
        let tag = tag_of(hash);
        let near = places(tag, part.slots.len()).take(PROBES_NEAR);
        let mut slots = near.map(|at| part.slots[at]);
        let slot = slots.find(|&slot| slot == 0 || tag_in(slot) == tag)?;
        (slot != 0).then(|| cell_in(slot))
    }

    /// The newest cell of a row.
    #[inline]
    pub fn newest(&self, arena: &Arena, row_key: &[u8]) -> Found {
        let hash = self.hash_of(row_key);
        let Some(part) = self.parts.get(part_of(hash)) else {
            return Found::Unknown;
        };
        match part.find(arena, row_key, tag_of(hash)) {
            Ok(slot) => Found::Newest(cell_in(part.slots[slot])),
            Err(_) if part.is_partial => Found::Unknown,
            Err(_) => Found::Absent,
        }
    }

    /// A cell was added: it is its row's newest unless there is one of a higher version.
    pub fn insert(&mut self, arena: &Arena, row_key: &[u8], version: u64, cell: CellRef) {
        let hash = self.hash_of(row_key);
        let part = &mut self.parts[part_of(hash)];
        let before = part.slots.len();
        part.insert(arena, (row_key, tag_of(hash)), version, cell);
        self.slots = self.slots - before + part.slots.len();
    }
}

impl Part {
    /// The slot of a row, or else the first free one where it would be, if there is one within reach.
    #[inline]
    fn find(&self, arena: &Arena, row_key: &[u8], tag: u64) -> Result<usize, Option<usize>> {
        for at in places(tag, self.slots.len()) {
            let slot = self.slots[at];
            if slot == 0 {
                return Err(Some(at));
            }
            if tag_in(slot) == tag && arena.key(cell_in(slot)).0 == row_key {
                return Ok(at);
            }
        }
        Err(None)
    }

    fn insert(&mut self, arena: &Arena, (row_key, tag): (&[u8], u64), version: u64, cell: CellRef) {
        let Some(packed) = cell.pack() else {
            // What the part knows of the row would not be the newest any more.
            self.slots = Box::default();
            self.is_partial = true;
            return;
        };
        let entry = USED | tag << PACKED_BITS | packed;
        match self.find(arena, row_key, tag) {
            Ok(at) => {
                if arena.key(cell_in(self.slots[at])).1 <= version {
                    self.slots[at] = entry;
                }
            }
            Err(_) if self.is_partial => {}
            Err(Some(free)) if self.used as usize * 4 < self.slots.len() * 3 => {
                self.put(free, entry)
            }
            Err(_) => self.grow(entry),
        }
    }

    /// Makes room for one more. A part that is not half full, and has none where the entry belongs, was
    /// filled by somebody who chose the keys: it leaves the entry out.
    fn grow(&mut self, entry: u64) {
        let size = (self.slots.len() * 2).max(SLOTS_MIN);
        if size > SLOTS_MAX || (self.used as usize) * 2 < self.slots.len() {
            self.is_partial = true;
            return;
        }
        let entries = std::mem::replace(&mut self.slots, vec![0; size].into());
        self.used = 0;
        for entry in entries.iter().copied().chain([entry]) {
            let mut places = places(tag_in(entry), self.slots.len());
            if entry == 0 {
                continue;
            }
            match places.find(|&at| self.slots[at] == 0) {
                Some(free) => self.put(free, entry),
                None => self.is_partial = true,
            }
        }
    }

    fn put(&mut self, free: usize, entry: u64) {
        self.slots[free] = entry;
        self.used += 1;
    }
}

/// Where entries of a tag may be, of so many slots.
#[inline]
fn places(tag: u64, slots: usize) -> impl Iterator<Item = usize> {
    let mask = slots.wrapping_sub(1);
    (0..PROBES_MAX.min(slots)).map(move |probe| (tag as usize).wrapping_add(probe) & mask)
}

#[inline]
fn part_of(hash: u64) -> usize {
    (hash >> (u64::BITS - PARTS_BITS)) as usize
}

#[inline]
fn tag_of(hash: u64) -> u64 {
    hash & ((1 << TAG_BITS) - 1)
}

#[inline]
fn tag_in(slot: u64) -> u64 {
    (slot & !USED) >> PACKED_BITS
}

#[inline]
fn cell_in(slot: u64) -> CellRef {
    CellRef::unpack(slot & ((1 << PACKED_BITS) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Cell;

    #[test]
    fn keys_that_were_chosen_to_meet_are_left_to_the_tree() {
        let (mut arena, mut part) = (Arena::default(), Part::default());
        let keys: Vec<[u8; 2]> = (0..300_u16).map(u16::to_be_bytes).collect();
        let tag = (1 << TAG_BITS) - 3;
        for key in &keys {
            let cell = arena.push(key, &Cell::Delete { version: 7 });
            part.insert(&arena, (key, tag), 7, cell);
        }
        let found: Vec<usize> = (0..300)
            .filter(|&n| part.find(&arena, &keys[n], tag).is_ok())
            .collect();
        assert_eq!(found, (0..PROBES_MAX).collect::<Vec<_>>());
        assert!(part.is_partial);
        // Those that it knows are still kept up to date, and the table has not grown for the others.
        let newer = arena.push(&keys[0], &Cell::Delete { version: 9 });
        part.insert(&arena, (&keys[0], tag), 9, newer);
        let older = arena.push(&keys[0], &Cell::Delete { version: 8 });
        part.insert(&arena, (&keys[0], tag), 8, older);
        let at = part.find(&arena, &keys[0], tag).unwrap();
        assert_eq!(cell_in(part.slots[at]), newer);
        assert!(part.slots.len() <= 4 * PROBES_MAX, "{}", part.slots.len());
    }

    #[test]
    fn cells_are_packed_as_long_as_they_fit() {
        let cell = CellRef::unpack((1 << PACKED_BITS) - 1);
        assert_eq!(cell.pack(), Some((1 << PACKED_BITS) - 1));
        let (mut arena, mut part) = (Arena::default(), Part::default());
        let first = arena.push(b"a", &Cell::Delete { version: 1 });
        part.insert(&arena, (b"a", 5), 1, first);
        assert_eq!(part.find(&arena, b"a", 5), Ok(5));
        let far = CellRef::unpack(1 << PACKED_BITS);
        assert_eq!(far.pack(), None);
        part.insert(&arena, (b"a", 5), 2, far);
        assert!(part.is_partial && part.find(&arena, b"a", 5).is_err());
    }
}
