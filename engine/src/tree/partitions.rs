//! Up to where each partition has been applied.

use std::collections::BTreeMap;

use crate::entry::PartitionId;
use crate::manifest::Applied;

/// Positions by partition. Partition numbers are small and dense, so it is a plain vector.
#[derive(Debug, Clone, Default)]
pub(crate) struct Positions {
    of: Vec<Option<Applied>>,
}

impl Positions {
    pub(crate) fn from_map(map: &BTreeMap<PartitionId, Applied>) -> Self {
        let mut positions = Self::default();
        for (partition, applied) in map {
            positions.set(*partition, *applied);
        }
        positions
    }

    #[inline]
    pub(crate) fn get(&self, partition: PartitionId) -> Option<Applied> {
        self.of.get(usize::from(partition)).copied().flatten()
    }

    #[inline]
    pub(crate) fn set(&mut self, partition: PartitionId, applied: Applied) {
        let at = usize::from(partition);
        if at >= self.of.len() {
            self.of.resize(at + 1, None);
        }
        self.of[at] = Some(applied);
    }

    pub(crate) fn remove(&mut self, partition: PartitionId) {
        if let Some(applied) = self.of.get_mut(usize::from(partition)) {
            *applied = None;
        }
    }

    /// All positions, by partition.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (PartitionId, Applied)> {
        (0..=PartitionId::MAX)
            .zip(&self.of)
            .filter_map(|(partition, applied)| Some((partition, (*applied)?)))
    }

    /// Those that are further than in `other`.
    pub(crate) fn ahead_of(&self, other: &Self) -> Vec<(PartitionId, Applied)> {
        self.iter()
            .filter(|(partition, applied)| other.get(*partition) != Some(*applied))
            .collect()
    }

    /// The least time of the partitions from `first` to `last`, in milliseconds; `None` if there is
    /// none among them.
    pub(crate) fn time_min(&self, first: PartitionId, last: PartitionId) -> Option<u64> {
        self.iter()
            .filter(|(partition, _)| (first..=last).contains(partition))
            .map(|(_, applied)| applied.time_ms)
            .min()
    }
}
