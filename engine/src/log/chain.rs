//! The segments that the log consists of, oldest first, and when the oldest is no longer needed.
//!
//! A segment is needed until the *next* one's header is durable and every entry that the next
//! one's checkpoint has as some partition's last is in tables (or was superseded since). The same
//! rule tells recovery where to begin, so that a segment which was recycled is never missed, and
//! one that is missing without having been recyclable is found out.

use std::collections::VecDeque;
use std::rc::Rc;

use super::format::segment::CheckpointEntry;
use crate::entry::{LogId, PartitionId};

/// A file that segments are written to, one after the other.
#[derive(Debug)]
pub(super) struct Slot<F> {
    /// The number in its name.
    pub(super) number: u32,
    /// The open file.
    pub(super) file: Rc<F>,
    /// How much of it may be used, in bytes.
    pub(super) bytes: u64,
}

impl<F> Clone for Slot<F> {
    fn clone(&self) -> Self {
        Self {
            number: self.number,
            file: Rc::clone(&self.file),
            bytes: self.bytes,
        }
    }
}

/// A segment of the log.
#[derive(Debug)]
pub(super) struct Segment<F> {
    pub(super) slot: Slot<F>,
    pub(super) epoch: u64,
    /// The number of its header's write.
    pub(super) sequence: u64,
    /// Where its first group is, in bytes.
    pub(super) begin: u64,
    /// For each partition, how far its history must be in tables before the segments before this
    /// one can go.
    pub(super) needs: Vec<Need>,
}

/// See [`Segment::needs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) partition: PartitionId,
    /// The partition's last entry where the segment begins.
    pub(super) last: LogId,
    /// The same, less what was superseded since.
    pub(super) index: u64,
    /// The newest group that superseded something of it: until that is durable, and a later header
    /// says so, it did not.
    pub(super) by: u64,
}

/// What a checkpoint asks for before its predecessors can go.
pub(super) fn needs<'a>(checkpoints: impl Iterator<Item = &'a CheckpointEntry>) -> Vec<Need> {
    checkpoints
        .map(|entry| Need {
            partition: entry.partition,
            last: entry.last,
            index: entry.last.index,
            by: 0,
        })
        .collect()
}

/// Whether all needs are met by what is in tables.
pub(super) fn met(needs: &[Need], flushed: &dyn Fn(PartitionId) -> LogId) -> bool {
    needs
        .iter()
        .all(|need| need.index == 0 || flushed(need.partition).index >= need.index)
}

/// Notes that a partition's entries from `index` on no longer count once group `by` is durable: those
/// before that group. What a later segment's checkpoint tells of came after it.
pub(super) fn supersede<F>(
    chain: &mut VecDeque<Segment<F>>,
    partition: PartitionId,
    index: u64,
    by: u64,
) {
    let kept = index.saturating_sub(1);
    let before = chain.iter_mut().filter(|segment| segment.sequence <= by);
    for segment in before {
        for need in &mut segment.needs {
            if need.partition == partition && need.index > kept {
                need.index = kept;
                need.by = by;
            }
        }
    }
}
