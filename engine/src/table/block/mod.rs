//! Blocks in memory: checked, decompressed, ready to be searched.
//!
//! A block of rows (data, index and top blocks alike):
//!
//! ```text
//! | entry | entry | ... |
//! | restart offset u32 LE x n | restart head u64 BE x n |
//! | base version u64 | base updated u64 | shared u32 | n u32 |              (all LE)
//!
//! entry = | shared varint | unshared varint | flags u8 | version - base, zigzag varint |
//!   put:    | updated - base, zigzag | updated - created, zigzag, if flagged
//!           | expires - updated, zigzag, if flagged | value length varint |
//!   link:   | value length varint |
//!           | the key's unshared bytes | value |
//! ```
//!
//! Each key is stored without the bytes it shares with the one before, but every sixteenth (of an
//! index or top block, every fourth: each read searches those) is stored whole: a *restart*. All keys of the block have `shared` leading bytes in common, and a
//! restart's *head* is the eight bytes that follow them, so that the search over restarts compares
//! numbers that lie side by side.

mod cursor;
mod rows;
mod writer;

#[cfg(test)]
mod tests;

pub use cursor::{BlockCursor, Damaged};
pub(super) use rows::{Bound, Entry, Rows};
pub(super) use writer::{BlockWriter, Content};

use super::filter::Filter;
use super::frame::BlockKind;

/// Entries from one restart to the next, at most: what data blocks have.
pub const RESTART_INTERVAL: usize = 16;
/// The same in index and top blocks.
pub const INDEX_RESTART_INTERVAL: usize = 4;

/// Offsets and heads: bytes a restart costs.
pub const RESTART_BYTES: usize = 12;
/// Bytes behind the restarts.
pub const ROWS_TAIL_BYTES: usize = 24;

/// A tombstone.
pub(super) const FLAG_DELETE: u8 = 1;
/// The creation time follows.
pub(super) const FLAG_CREATED: u8 = 2;
/// The expiry follows.
pub(super) const FLAG_EXPIRES: u8 = 4;
/// An entry of an index: key, version and a value that says where.
pub(super) const FLAG_LINK: u8 = 8;

/// A block in memory. Shared by reference counting within its core.
pub struct Block {
    bytes: Box<[u8]>,
    shape: Shape,
}

enum Shape {
    Rows(Rows),
    Filter(Filter),
}

impl Block {
    /// Takes in the raw bytes of a block.
    ///
    /// # Errors
    /// If they are no such block.
    pub(super) fn parse(kind: BlockKind, bytes: Box<[u8]>) -> Result<Self, &'static str> {
        let shape = match kind {
            BlockKind::Filter => Filter::parse(&bytes).map(Shape::Filter),
            BlockKind::Data | BlockKind::Index | BlockKind::Top => {
                Rows::parse(&bytes).map(Shape::Rows)
            }
            BlockKind::RangeDeletes | BlockKind::Footer => None,
        };
        match shape {
            Some(shape) => Ok(Self { bytes, shape }),
            None => Err("a block's shape is wrong"),
        }
    }

    /// Memory it holds, in bytes, with what the allocator rounds up.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + 2 * size_of::<usize>() + allocated(self.bytes.len())
    }

    /// The bytes and their shape; `None` if it is a filter.
    #[inline]
    pub(super) fn rows(&self) -> Option<(&Rows, &[u8])> {
        match &self.shape {
            Shape::Rows(rows) => Some((rows, &self.bytes)),
            Shape::Filter(_) => None,
        }
    }

    /// Whether a row of this hash may be there. A block that is no filter does not know.
    #[inline]
    pub(super) fn may_contain(&self, hash: u64) -> bool {
        match &self.shape {
            Shape::Filter(filter) => filter.may_contain(&self.bytes, hash),
            Shape::Rows(_) => true,
        }
    }
}

/// What an allocation of `len` bytes takes: allocators keep four sizes for each power of two.
fn allocated(len: usize) -> usize {
    let step = (len.next_power_of_two() / 8).max(16);
    len.next_multiple_of(step)
}
