//! The cache of blocks of one core, by bytes.
//!
//! **Data blocks** are kept by S3-FIFO (Yang et al., SOSP 2023): a new block enters a small queue of
//! a tenth of the budget; if it was not asked for again when it comes to the front, it leaves and
//! only its name is remembered (the *ghosts*); otherwise it moves to the main queue. A block whose
//! ghost is remembered enters the main queue at once. In the main queue a block goes round as often
//! as it was asked for, at most three times. So a scan passes through the small queue without
//! washing out what is hot, and a hit costs a counter.
//!
//! **Meta blocks** (index and filter blocks) have a queue of their own that data cannot push out:
//! they stay, up to a share of the budget, and only push each other out beyond it. What they do not
//! use is the data's.
//!
//! Memory is accounted with the allocator's rounding and a fixed sum for each entry. A block that
//! was handed out stays alive until it is dropped, cached or not.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;

use crate::table::Block;

mod slots;
#[cfg(test)]
mod tests;

use slots::{NONE, Queue, Slots};

/// What an entry costs beside its block, in bytes: slot, map entry, queue and ghost.
pub const ENTRY_BYTES: usize = 144;
/// What meta blocks may take of the budget, in percent.
pub const META_SHARE_PERCENT: u8 = 50;
/// A block over this part of the budget is not kept.
const LARGEST_PART: usize = 16;
/// Rounds in the main queue that a block can earn.
const FREQUENCY_MAX: u8 = 3;
/// Blocks of retired tables freed with each insertion.
const RETIRED_PER_INSERT: usize = 8;

/// What is given up first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Rows.
    Data,
    /// Index and filter blocks: each read needs them.
    Meta,
}

/// What a cache has done and holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStats {
    /// Lookups that found their block.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
    /// Blocks taken in.
    pub inserts: u64,
    /// Blocks pushed out for want of room.
    pub evictions: u64,
    /// Memory of data blocks, in bytes.
    pub data_bytes: usize,
    /// Memory of index and filter blocks, in bytes.
    pub meta_bytes: usize,
    /// Blocks held.
    pub blocks: usize,
}

/// A cache of blocks. Belongs to one core; shared within it by `Rc`.
pub struct BlockCache {
    inner: RefCell<Inner>,
    hits: Cell<u64>,
    misses: Cell<u64>,
}

type Name = (u64, u64);

struct Inner {
    budget: usize,
    meta_share_percent: usize,
    map: HashMap<Name, u32, ahash::RandomState>,
    slots: Slots,
    small: VecDeque<u32>,
    main: VecDeque<u32>,
    meta: VecDeque<u32>,
    small_bytes: usize,
    main_bytes: usize,
    meta_bytes: usize,
    ghosts: VecDeque<u64>,
    ghost_set: HashSet<u64, ahash::RandomState>,
    /// Newest block of each table; the blocks of a table are chained.
    tables: HashMap<u64, u32, ahash::RandomState>,
    retired: Vec<u32>,
    inserts: u64,
    evictions: u64,
}

/// A fixed hasher: the same run does the same thing.
fn hasher() -> ahash::RandomState {
    ahash::RandomState::with_seeds(
        0x243f_6a88_85a3_08d3,
        0x1319_8a2e_0370_7344,
        0xa409_3822_299f_31d0,
        0x082e_fa98_ec4e_6c89,
    )
}

impl BlockCache {
    /// A cache of `budget` bytes, of which meta blocks may take half.
    #[must_use]
    pub fn new(budget: usize) -> Self {
        Self::with_meta_share(budget, META_SHARE_PERCENT)
    }

    /// A cache of `budget` bytes, of which meta blocks may take `meta_percent`.
    #[must_use]
    pub fn with_meta_share(budget: usize, meta_percent: u8) -> Self {
        Self {
            inner: RefCell::new(Inner {
                budget,
                meta_share_percent: usize::from(meta_percent.min(100)),
                map: HashMap::with_hasher(hasher()),
                slots: Slots::default(),
                small: VecDeque::new(),
                main: VecDeque::new(),
                meta: VecDeque::new(),
                small_bytes: 0,
                main_bytes: 0,
                meta_bytes: 0,
                ghosts: VecDeque::new(),
                ghost_set: HashSet::with_hasher(hasher()),
                tables: HashMap::with_hasher(hasher()),
                retired: Vec::new(),
                inserts: 0,
                evictions: 0,
            }),
            hits: Cell::new(0),
            misses: Cell::new(0),
        }
    }

    /// A block, if it is here. Counts as use.
    #[inline]
    #[must_use]
    pub fn get(&self, table: u64, offset: u64) -> Option<Rc<Block>> {
        let mut inner = self.inner.borrow_mut();
        let found = match inner.map.get(&(table, offset)) {
            Some(index) => {
                let index = *index;
                inner.slots.touch(index, FREQUENCY_MAX)
            }
            None => None,
        };
        let count = if found.is_some() {
            &self.hits
        } else {
            &self.misses
        };
        count.set(count.get() + 1);
        found
    }

    /// A block, if it is here. Does not count as use.
    #[must_use]
    pub fn peek(&self, table: u64, offset: u64) -> Option<Rc<Block>> {
        let inner = self.inner.borrow();
        let index = *inner.map.get(&(table, offset))?;
        inner.slots.at(index).block.clone()
    }

    /// Whether a block is here and has been used since it came: what replaces it should be here too.
    #[must_use]
    pub fn is_hot(&self, table: u64, offset: u64) -> bool {
        let inner = self.inner.borrow();
        inner.map.get(&(table, offset)).is_some_and(|index| {
            let slot = inner.slots.at(*index);
            slot.frequency > 0 || slot.queue == Queue::Main
        })
    }

    /// Takes in a block, pushing out others if there is no room. A block of over a sixteenth of
    /// the budget is not kept, nor is one that is here already.
    pub fn insert(&self, table: u64, offset: u64, block: Rc<Block>, priority: Priority) {
        let evicted = {
            let mut inner = self.inner.borrow_mut();
            inner.insert(table, offset, block, priority)
        };
        // Blocks are dropped outside the borrow.
        drop(evicted);
    }

    /// Gives up the blocks of a table that is no more, bit by bit as other blocks come in, and before
    /// any block of a table that is.
    pub fn retire_table(&self, table: u64) {
        let mut inner = self.inner.borrow_mut();
        if let Some(head) = inner.tables.remove(&table) {
            inner.retired.push(head);
        }
    }

    /// Changes the budget, in bytes. A lower one takes effect at once.
    pub fn set_budget(&self, budget: usize) {
        let evicted = {
            let mut inner = self.inner.borrow_mut();
            inner.budget = budget;
            inner.make_room(0, Priority::Data)
        };
        drop(evicted);
    }

    /// The budget, in bytes.
    #[must_use]
    pub fn budget(&self) -> usize {
        self.inner.borrow().budget
    }

    /// Memory held, in bytes: at most the budget.
    #[must_use]
    pub fn used(&self) -> usize {
        self.inner.borrow().used()
    }

    /// What it has done and holds.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        let inner = self.inner.borrow();
        CacheStats {
            hits: self.hits.get(),
            misses: self.misses.get(),
            inserts: inner.inserts,
            evictions: inner.evictions,
            data_bytes: inner.small_bytes + inner.main_bytes,
            meta_bytes: inner.meta_bytes,
            blocks: inner.map.len(),
        }
    }
}

impl Inner {
    fn used(&self) -> usize {
        self.small_bytes + self.main_bytes + self.meta_bytes
    }

    fn insert(
        &mut self,
        table: u64,
        offset: u64,
        block: Rc<Block>,
        priority: Priority,
    ) -> Vec<Rc<Block>> {
        let mut gone = self.free_retired(RETIRED_PER_INSERT);
        let bytes = block.memory_bytes() + ENTRY_BYTES;
        if bytes > self.budget / LARGEST_PART || self.map.contains_key(&(table, offset)) {
            return gone;
        }
        gone.append(&mut self.make_room(bytes, priority));
        if self.used() + bytes > self.budget {
            return gone;
        }
        let queue = match priority {
            Priority::Meta => Queue::Meta,
            Priority::Data if self.ghost_set.remove(&ghost(table, offset)) => Queue::Main,
            Priority::Data => Queue::Small,
        };
        let head = self.tables.get(&table).copied().unwrap_or(NONE);
        let index = self.slots.add((table, offset), block, bytes, queue, head);
        self.tables.insert(table, index);
        self.map.insert((table, offset), index);
        let (entries, sum) = self.queue(queue);
        entries.push_back(index);
        *sum += bytes;
        self.inserts += 1;
        gone
    }

    fn queue(&mut self, queue: Queue) -> (&mut VecDeque<u32>, &mut usize) {
        match queue {
            Queue::Small => (&mut self.small, &mut self.small_bytes),
            Queue::Main => (&mut self.main, &mut self.main_bytes),
            Queue::Meta => (&mut self.meta, &mut self.meta_bytes),
        }
    }

    /// Evicts until `bytes` more fit.
    fn make_room(&mut self, bytes: usize, priority: Priority) -> Vec<Rc<Block>> {
        let mut gone = Vec::new();
        while self.used() + bytes > self.budget && !self.retired.is_empty() {
            gone.append(&mut self.free_retired(RETIRED_PER_INSERT));
        }
        let meta_max = self.budget / 100 * self.meta_share_percent;
        let meta_more = if priority == Priority::Meta { bytes } else { 0 };
        while self.meta_bytes + meta_more > meta_max && self.evict_round(Queue::Meta, &mut gone) {}
        while self.used() + bytes > self.budget {
            let small_due = self.small_bytes >= self.budget / 10 || self.main.is_empty();
            let (first, second) = match small_due {
                true => (Queue::Small, Queue::Main),
                false => (Queue::Main, Queue::Small),
            };
            let moved = self.evict_round(first, &mut gone)
                || self.evict_round(second, &mut gone)
                || self.evict_round(Queue::Meta, &mut gone);
            if !moved {
                break;
            }
        }
        gone
    }

    /// Looks at the front of a queue: evicts it, moves it on or sends it round. False if the queue
    /// is empty.
    fn evict_round(&mut self, queue: Queue, gone: &mut Vec<Rc<Block>>) -> bool {
        let Some(index) = self.queue(queue).0.pop_front() else {
            return false;
        };
        let slot = self.slots.at_mut(index);
        if slot.block.is_none() {
            // Its table was retired.
            self.slots.release_dead(index);
            return true;
        }
        let bytes = slot.bytes;
        if slot.frequency > 0 {
            let to = match queue {
                Queue::Small => {
                    slot.frequency = 0;
                    Queue::Main
                }
                other => {
                    slot.frequency -= 1;
                    other
                }
            };
            slot.queue = to;
            *self.queue(queue).1 -= bytes;
            let (entries, sum) = self.queue(to);
            entries.push_back(index);
            *sum += bytes;
            return true;
        }
        if queue == Queue::Small {
            let name = slot.name;
            self.remember_ghost(name);
        }
        gone.extend(self.remove(index));
        self.slots.release(index);
        self.evictions += 1;
        true
    }

    /// Takes a block out of everything but its queue.
    fn remove(&mut self, index: u32) -> Option<Rc<Block>> {
        let slot = self.slots.at_mut(index);
        let (name, queue, bytes, previous) = (slot.name, slot.queue, slot.bytes, slot.previous);
        let block = slot.block.take()?;
        let next = self.slots.unlink(index);
        if previous == NONE {
            self.replace_head(name.0, index, next);
        }
        self.map.remove(&name);
        *self.queue(queue).1 -= bytes;
        Some(block)
    }

    /// Lets a table's chain begin at `next`, where it began at `head`.
    fn replace_head(&mut self, table: u64, head: u32, next: u32) {
        if self.tables.get(&table) == Some(&head) {
            match next {
                NONE => self.tables.remove(&table),
                next => self.tables.insert(table, next),
            };
        } else if let Some(at) = self.retired.iter().position(|retired| *retired == head) {
            match next {
                NONE => self.retired.swap_remove(at),
                next => std::mem::replace(&mut self.retired[at], next),
            };
        }
    }

    /// Frees up to `most` blocks of retired tables. Their slots stay in their queues until they
    /// come to the front, or until there are too many of those.
    fn free_retired(&mut self, most: usize) -> Vec<Rc<Block>> {
        let mut gone = Vec::new();
        while gone.len() < most
            && let Some(head) = self.retired.last().copied()
        {
            gone.extend(self.remove(head));
            self.slots.mark_dead();
        }
        if self.slots.dead() > self.map.len() + 1024 {
            self.sweep();
        }
        gone
    }

    /// Takes the slots of retired blocks out of the queues.
    fn sweep(&mut self) {
        for queue in [Queue::Small, Queue::Main, Queue::Meta] {
            let mut entries = std::mem::take(self.queue(queue).0);
            entries.retain(|index| {
                let alive = self.slots.at(*index).block.is_some();
                if !alive {
                    self.slots.release_dead(*index);
                }
                alive
            });
            *self.queue(queue).0 = entries;
        }
    }

    fn remember_ghost(&mut self, name: Name) {
        let ghost = ghost(name.0, name.1);
        if self.ghost_set.insert(ghost) {
            self.ghosts.push_back(ghost);
        }
        while self.ghosts.len() > self.map.len().max(64) {
            if let Some(oldest) = self.ghosts.pop_front() {
                self.ghost_set.remove(&oldest);
            }
        }
    }
}

fn ghost(table: u64, offset: u64) -> u64 {
    let mixed = (table ^ offset.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}
