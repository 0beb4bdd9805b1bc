//! The order of a memtable's cells: a B+ tree whose nodes compare 8 bytes at a time.
//!
//! A node knows how many leading bytes all keys between its two fences share; it keeps, for each
//! key, the 8 bytes that follow them (the *head*) beside the reference to the cell. A search
//! compares heads, which lie together in a few cache lines, and looks into the arena only between
//! keys of the same head. Nothing is ever removed, so there is no merging; a cell whose internal
//! key is already there replaces the older one.
//!
//! Measured against an arena skip list and `BTreeMap` in `benches/benches/memtable.rs`.

use std::cmp::Ordering;

use super::arena::{Arena, CellRef};
use crate::row::{Cell, compare_internal};

/// Keys in a node.
const FANOUT: usize = 64;
/// Nodes in one allocation.
const POOL_CHUNK: usize = 64;
/// Absent node.
pub(super) const NONE: u32 = u32::MAX;
/// Nodes from the root to a leaf; 2^31 half-full nodes of 64 are far fewer levels.
const DEPTH_MAX: usize = 12;

/// The sorted keys of a node.
struct Keys {
    heads: [u64; FANOUT],
    cells: [CellRef; FANOUT],
    len: usize,
    /// Leading bytes that all row keys between the node's fences share.
    shared: usize,
}

impl Keys {
    fn new(shared: usize) -> Self {
        Self {
            heads: [0; FANOUT],
            cells: [CellRef::default(); FANOUT],
            len: 0,
            shared,
        }
    }

    /// The first position whose key is not below `target`, and whether it equals it.
    #[inline]
    fn search(&self, arena: &Arena, target: (&[u8], u64)) -> (usize, bool) {
        let head = head_of(target.0, self.shared);
        let heads = &self.heads[..self.len];
        let mut low = lower_bound(heads, head);
        let mut high = low;
        while high < self.len && heads[high] == head {
            high += 1;
        }
        while low < high {
            let middle = low.midpoint(high);
            match compare_internal(arena.key(self.cells[middle]), target) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return (middle, true),
            }
        }
        (low, false)
    }

    fn insert(&mut self, at: usize, head: u64, cell: CellRef) {
        self.heads.copy_within(at..self.len, at + 1);
        self.cells.copy_within(at..self.len, at + 1);
        self.heads[at] = head;
        self.cells[at] = cell;
        self.len += 1;
    }

    /// Moves the keys from `at` on into `right`.
    fn move_tail(&mut self, at: usize, right: &mut Self) {
        let count = self.len - at;
        right.heads[..count].copy_from_slice(&self.heads[at..self.len]);
        right.cells[..count].copy_from_slice(&self.cells[at..self.len]);
        right.len = count;
        right.shared = self.shared;
        self.len = at;
    }

    /// Recomputes what the keys share from new fences.
    fn set_fences(&mut self, arena: &Arena, low: Option<CellRef>, high: Option<CellRef>) {
        let shared = match (low, high) {
            (Some(low), Some(high)) => shared_len(arena.key(low).0, arena.key(high).0),
            _ => 0,
        };
        if shared != self.shared {
            self.shared = shared;
            for at in 0..self.len {
                self.heads[at] = head_of(arena.key(self.cells[at]).0, shared);
            }
        }
    }
}

struct Leaf {
    keys: Keys,
    next: u32,
    previous: u32,
}

struct Inner {
    /// `keys[i]` is the lowest key below `children[i + 1]`.
    keys: Keys,
    children: [u32; FANOUT + 1],
}

/// Nodes in chunks, so that growth neither copies nor over-allocates.
struct Pool<T> {
    chunks: Vec<Vec<T>>,
    len: usize,
}

impl<T> Pool<T> {
    fn push(&mut self, node: T) -> u32 {
        if self.len.is_multiple_of(POOL_CHUNK) {
            // The first nodes of a small memtable should not cost a whole chunk.
            let size = if self.len == 0 { 1 } else { POOL_CHUNK };
            self.chunks.push(Vec::with_capacity(size));
        }
        let last = self.chunks.len() - 1;
        self.chunks[last].push(node);
        self.len += 1;
        (self.len - 1) as u32
    }

    #[inline]
    fn at(&self, node: u32) -> &T {
        &self.chunks[node as usize / POOL_CHUNK][node as usize % POOL_CHUNK]
    }

    #[inline]
    fn at_mut(&mut self, node: u32) -> &mut T {
        &mut self.chunks[node as usize / POOL_CHUNK][node as usize % POOL_CHUNK]
    }

    fn memory_bytes(&self) -> usize {
        let nodes: usize = match self.chunks.split_last() {
            Some((last, full)) if !full.is_empty() => {
                full[0].capacity() + (full.len() - 1) * POOL_CHUNK + last.capacity()
            }
            Some((only, _)) => only.capacity(),
            None => 0,
        };
        nodes * size_of::<T>() + self.chunks.capacity() * size_of::<Vec<T>>()
    }
}

/// A place in the tree; valid until the next insertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub leaf: u32,
    pub slot: usize,
}

/// The tree.
pub(super) struct Tree {
    leaves: Pool<Leaf>,
    inners: Pool<Inner>,
    root: u32,
    /// Inner levels above the leaves.
    height: usize,
    first: u32,
    last: u32,
    len: usize,
}

impl Tree {
    pub fn new() -> Self {
        let mut leaves = Pool {
            chunks: Vec::new(),
            len: 0,
        };
        let root = leaves.push(Leaf {
            keys: Keys::new(0),
            next: NONE,
            previous: NONE,
        });
        Self {
            leaves,
            inners: Pool {
                chunks: Vec::new(),
                len: 0,
            },
            root,
            height: 0,
            first: root,
            last: root,
            len: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn memory_bytes(&self) -> usize {
        self.leaves.memory_bytes() + self.inners.memory_bytes()
    }

    /// The place of the first key at or above `target`; its slot may be one past the leaf's end.
    #[inline]
    pub fn lower_bound(&self, arena: &Arena, target: (&[u8], u64)) -> Place {
        let mut node = self.root;
        for _ in 0..self.height {
            let inner = self.inners.at(node);
            let (at, equal) = inner.keys.search(arena, target);
            node = inner.children[at + usize::from(equal)];
        }
        let (slot, _) = self.leaves.at(node).keys.search(arena, target);
        Place { leaf: node, slot }
    }

    /// The cell at a place, moving on to the next leaf if the place is past the end of its own.
    #[inline]
    pub fn settle(&self, place: Place) -> Option<(Place, CellRef)> {
        let leaf = self.leaves.at(place.leaf);
        if place.slot < leaf.keys.len {
            return Some((place, leaf.keys.cells[place.slot]));
        }
        if leaf.next == NONE {
            return None;
        }
        let place = Place {
            leaf: leaf.next,
            slot: 0,
        };
        Some((place, self.leaves.at(place.leaf).keys.cells[0]))
    }

    /// The place and cell before a place.
    #[inline]
    pub fn before(&self, place: Place) -> Option<(Place, CellRef)> {
        let mut place = place;
        if place.slot == 0 {
            let previous = self.leaves.at(place.leaf).previous;
            if previous == NONE {
                return None;
            }
            place = Place {
                leaf: previous,
                slot: self.leaves.at(previous).keys.len,
            };
        }
        place.slot -= 1;
        Some((place, self.leaves.at(place.leaf).keys.cells[place.slot]))
    }

    /// The place of the first key.
    pub fn start(&self) -> Place {
        Place {
            leaf: self.first,
            slot: 0,
        }
    }

    /// The place past the last key.
    pub fn end(&self) -> Place {
        Place {
            leaf: self.last,
            slot: self.leaves.at(self.last).keys.len,
        }
    }

    /// Adds a cell, or puts it in place of one with the same internal key; where it is now.
    pub fn insert(&mut self, arena: &mut Arena, row_key: &[u8], cell: &Cell<'_>) -> CellRef {
        let target = (row_key, cell.version());
        let mut path = [(NONE, 0usize); DEPTH_MAX];
        let mut node = self.root;
        for step in path.iter_mut().take(self.height) {
            let inner = self.inners.at(node);
            let (at, equal) = inner.keys.search(arena, target);
            let child = at + usize::from(equal);
            *step = (node, child);
            node = inner.children[child];
        }
        let leaf = self.leaves.at_mut(node);
        let (at, equal) = leaf.keys.search(arena, target);
        let stored = arena.push(row_key, cell);
        if equal {
            leaf.keys.cells[at] = stored;
            return stored;
        }
        self.len += 1;
        if leaf.keys.len < FANOUT {
            let head = head_of(row_key, leaf.keys.shared);
            leaf.keys.insert(at, head, stored);
            return stored;
        }
        self.split_leaf(arena, &path[..self.height], node, at, stored);
        stored
    }

    fn split_leaf(
        &mut self,
        arena: &Arena,
        path: &[(u32, usize)],
        node: u32,
        at: usize,
        stored: CellRef,
    ) {
        let (low, high) = self.fences(path);
        let leaf = self.leaves.at_mut(node);
        let next = leaf.next;
        let mut right = Leaf {
            keys: Keys::new(0),
            next,
            previous: node,
        };
        // Keys that only ever grow leave full leaves behind.
        let ascending = next == NONE && at == FANOUT;
        let middle = if ascending { FANOUT } else { FANOUT / 2 };
        leaf.keys.move_tail(middle, &mut right.keys);
        let row_key = arena.key(stored).0;
        let into = if at > middle || ascending {
            (&mut right.keys, at - middle)
        } else {
            (&mut leaf.keys, at)
        };
        let head = head_of(row_key, into.0.shared);
        into.0.insert(into.1, head, stored);
        let separator = right.keys.cells[0];
        leaf.keys.set_fences(arena, low, Some(separator));
        right.keys.set_fences(arena, Some(separator), high);
        let right = self.leaves.push(right);
        self.leaves.at_mut(node).next = right;
        if next == NONE {
            self.last = right;
        } else {
            self.leaves.at_mut(next).previous = right;
        }
        self.insert_child(arena, path, separator, right);
    }

    /// The separators around the node that `path` leads to.
    fn fences(&self, path: &[(u32, usize)]) -> (Option<CellRef>, Option<CellRef>) {
        let mut low = None;
        let mut high = None;
        for (node, child) in path {
            let keys = &self.inners.at(*node).keys;
            if *child > 0 {
                low = Some(keys.cells[*child - 1]);
            }
            if *child < keys.len {
                high = Some(keys.cells[*child]);
            }
        }
        (low, high)
    }

    fn insert_child(
        &mut self,
        arena: &Arena,
        path: &[(u32, usize)],
        separator: CellRef,
        right: u32,
    ) {
        let Some(((parent, at), above)) = path.split_last() else {
            let mut root = Inner {
                keys: Keys::new(0),
                children: [NONE; FANOUT + 1],
            };
            root.keys
                .insert(0, head_of(arena.key(separator).0, 0), separator);
            root.children[0] = self.root;
            root.children[1] = right;
            self.root = self.inners.push(root);
            self.height += 1;
            return;
        };
        let inner = self.inners.at_mut(*parent);
        if inner.keys.len < FANOUT {
            inner.insert(arena, *at, separator, right);
            return;
        }
        let (low, high) = self.fences(above);
        let inner = self.inners.at_mut(*parent);
        // The middle key moves up: the children right of it go to the new node.
        let middle = if *at == FANOUT {
            FANOUT - 1
        } else {
            FANOUT / 2
        };
        let up = inner.keys.cells[middle];
        let mut sibling = Inner {
            keys: Keys::new(0),
            children: [NONE; FANOUT + 1],
        };
        inner.keys.move_tail(middle + 1, &mut sibling.keys);
        inner.keys.len = middle;
        let moved = sibling.keys.len + 1;
        sibling.children[..moved].copy_from_slice(&inner.children[middle + 1..middle + 1 + moved]);
        if *at > middle {
            sibling.insert(arena, *at - middle - 1, separator, right);
        } else {
            inner.insert(arena, *at, separator, right);
        }
        inner.keys.set_fences(arena, low, Some(up));
        sibling.keys.set_fences(arena, Some(up), high);
        let sibling = self.inners.push(sibling);
        self.insert_child(arena, above, up, sibling);
    }
}

impl Inner {
    fn insert(&mut self, arena: &Arena, at: usize, separator: CellRef, right: u32) {
        let count = self.keys.len + 1;
        let head = head_of(arena.key(separator).0, self.keys.shared);
        self.keys.insert(at, head, separator);
        self.children.copy_within(at + 1..count, at + 2);
        self.children[at + 1] = right;
    }
}

/// How many of the sorted heads are below `head`. A binary search would wait for memory at each
/// step; here the loads of the first pass, one in each cache line, do not wait for each other, and
/// the second pass stays within one line.
#[inline]
fn lower_bound(heads: &[u64], head: u64) -> usize {
    const LINE: usize = 64 / size_of::<u64>();
    let ends = heads.iter().skip(LINE - 1).step_by(LINE);
    let begin = LINE * ends.filter(|h| **h < head).count();
    let line = heads[begin..].iter().take(LINE);
    begin + line.filter(|h| **h < head).count()
}

/// The 8 bytes after the shared ones, as a number that orders like them; zero beyond the end.
#[inline]
fn head_of(row_key: &[u8], shared: usize) -> u64 {
    let rest = row_key.get(shared..).unwrap_or_default();
    if let Some(word) = rest.first_chunk::<8>() {
        return u64::from_be_bytes(*word);
    }
    let mut word = [0; 8];
    word[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(word)
}

fn shared_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
