//! Snapshots: versions that compaction must keep visible.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::entry::PartitionId;
use crate::manifest::Applied;
use crate::planted::{self, Bug};
use crate::row::ReadAt;

/// The live snapshots of a tree: how many by partition and version.
#[derive(Default)]
pub(crate) struct Snapshots {
    live: RefCell<BTreeMap<(PartitionId, u64), usize>>,
}

/// Keeps one version of a partition readable, at [`Snapshot::at`], while it lives.
pub struct Snapshot {
    of: Rc<Snapshots>,
    partition: PartitionId,
    at: ReadAt,
}

impl Snapshots {
    pub(crate) fn take(of: &Rc<Self>, partition: PartitionId, applied: Applied) -> Snapshot {
        let version = applied.id.index;
        *of.live
            .borrow_mut()
            .entry((partition, version))
            .or_default() += 1;
        Snapshot {
            of: Rc::clone(of),
            partition,
            at: ReadAt {
                version,
                time_ms: applied.time_ms,
            },
        }
    }

    /// Versions at which somebody may read a partition, descending, `u64::MAX` first.
    pub(crate) fn views(&self, partition: PartitionId) -> Vec<u64> {
        let mut views = vec![u64::MAX];
        if !planted::is(Bug::SnapshotIgnored) {
            let live = self.live.borrow();
            let of_partition = live.range((partition, 0)..=(partition, u64::MAX));
            views.extend(of_partition.rev().map(|((_, version), _)| *version));
        }
        views
    }

    /// Whether any snapshot lives in the partitions from `first` to `last`.
    pub(crate) fn any_in(&self, first: PartitionId, last: PartitionId) -> bool {
        let live = self.live.borrow();
        live.range((first, 0)..=(last, u64::MAX)).next().is_some()
    }
}

impl Snapshot {
    /// The partition.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// Where to read to see it.
    #[must_use]
    pub fn at(&self) -> ReadAt {
        self.at
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let mut live = self.of.live.borrow_mut();
        if let Some(count) = live.get_mut(&(self.partition, self.at.version)) {
            *count -= 1;
            if *count == 0 {
                live.remove(&(self.partition, self.at.version));
            }
        }
    }
}
