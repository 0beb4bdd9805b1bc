//! The entries of a cache, at fixed places, and the chains of each table's entries.

use std::rc::Rc;

use super::Name;
use crate::table::Block;

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

/// Where an entry waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queue {
    Small,
    Main,
    Meta,
}

/// An entry. Without a block it is dead: only its queue still knows it.
pub(super) struct Slot {
    pub block: Option<Rc<Block>>,
    pub name: Name,
    pub bytes: usize,
    pub frequency: u8,
    pub queue: Queue,
    /// Neighbours among the blocks of the same table.
    pub next: u32,
    pub previous: u32,
}

#[derive(Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
    dead: usize,
}

impl Slots {
    #[inline]
    pub fn at(&self, index: u32) -> &Slot {
        &self.slots[index as usize]
    }

    #[inline]
    pub fn at_mut(&mut self, index: u32) -> &mut Slot {
        &mut self.slots[index as usize]
    }

    /// Counts a use, and gives the block.
    #[inline]
    pub fn touch(&mut self, index: u32, frequency_max: u8) -> Option<Rc<Block>> {
        let slot = self.at_mut(index);
        if slot.frequency < frequency_max {
            slot.frequency += 1;
        }
        slot.block.clone()
    }

    /// Adds an entry in front of `head`, its table's newest.
    pub fn add(
        &mut self,
        name: Name,
        block: Rc<Block>,
        bytes: usize,
        queue: Queue,
        head: u32,
    ) -> u32 {
        let slot = Slot {
            block: Some(block),
            name,
            bytes,
            frequency: 0,
            queue,
            next: head,
            previous: NONE,
        };
        let index = match self.free.pop() {
            Some(index) => {
                *self.at_mut(index) = slot;
                index
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        if head != NONE {
            self.at_mut(head).previous = index;
        }
        index
    }

    /// Takes an entry out of its table's chain; returns the one behind it.
    pub fn unlink(&mut self, index: u32) -> u32 {
        let slot = self.at(index);
        let (next, previous) = (slot.next, slot.previous);
        if next != NONE {
            self.at_mut(next).previous = previous;
        }
        if previous != NONE {
            self.at_mut(previous).next = next;
        }
        next
    }

    /// Counts an entry whose block is gone while its queue still knows it.
    pub fn mark_dead(&mut self) {
        self.dead += 1;
    }

    /// How many of those there are.
    pub fn dead(&self) -> usize {
        self.dead
    }

    /// Makes the place of such an entry free.
    pub fn release_dead(&mut self, index: u32) {
        self.dead -= 1;
        self.release(index);
    }

    /// Makes a place free again that no queue knows any more.
    pub fn release(&mut self, index: u32) {
        self.free.push(index);
    }
}
