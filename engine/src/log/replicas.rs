//! What the log remembers of each replica, as of the last record appended.

use super::format::record::{CheckpointView, HardState, RecordView};
use super::format::segment::CheckpointEntry;
use super::places::{Places, RecordAt};
use crate::entry::{LogId, PartitionId};

/// One replica.
#[derive(Debug, Clone, Default)]
pub(super) struct Replica {
    /// What a checkpoint of it would say now.
    pub(super) now: CheckpointEntry,
    /// The newest group that has a record of it.
    pub(super) group: u64,
    /// The newest snapshot of it, if its record was seen.
    pub(super) snapshot: Option<LogId>,
    /// Where its entries are.
    pub(super) places: Places,
}

/// The replicas of a shard, found by partition in two loads.
#[derive(Debug, Clone, Default)]
pub(super) struct Replicas {
    /// By partition: 1 + the place in `list`, 0 for none.
    places: Vec<u32>,
    list: Vec<Replica>,
}

impl Replicas {
    #[inline]
    pub(super) fn get(&self, partition: PartitionId) -> Option<&Replica> {
        match self.places.get(usize::from(partition)) {
            None | Some(0) => None,
            Some(place) => self.list.get(*place as usize - 1),
        }
    }

    /// The replica of a partition, made if there is none.
    #[inline]
    pub(super) fn entry(&mut self, partition: PartitionId) -> &mut Replica {
        let at = usize::from(partition);
        if self.places.get(at).is_none_or(|place| *place == 0) {
            self.add(partition);
        }
        &mut self.list[self.places[at] as usize - 1]
    }

    #[cold]
    fn add(&mut self, partition: PartitionId) {
        let at = usize::from(partition);
        if self.places.len() <= at {
            self.places.resize(at + 1, 0);
        }
        let mut replica = Replica::default();
        replica.now.partition = partition;
        self.list.push(replica);
        self.places[at] = self.list.len() as u32;
    }

    /// Forgets the replica of a partition.
    pub(super) fn remove(&mut self, partition: PartitionId) {
        let Some(place) = self.places.get_mut(usize::from(partition)) else {
            return;
        };
        let Some(at) = std::mem::take(place).checked_sub(1) else {
            return;
        };
        self.list.swap_remove(at as usize);
        if let Some(moved) = self.list.get(at as usize) {
            self.places[usize::from(moved.now.partition)] = at + 1;
        }
    }

    pub(super) fn checkpoints(&self) -> impl Iterator<Item = &CheckpointEntry> {
        self.list.iter().map(|replica| &replica.now)
    }

    pub(super) fn set(&mut self, entry: &CheckpointEntry) {
        self.entry(entry.partition).now = entry.clone();
    }

    /// Takes in a record that follows in the log. Answers the index from which the partition's
    /// earlier entries no longer count, if the record says so.
    pub(super) fn observe(
        &mut self,
        record: &RecordView<'_>,
        at: RecordAt,
    ) -> Option<(PartitionId, u64)> {
        match *record {
            RecordView::Entry { head, .. } => {
                let last = self.entry(head.partition).now.last;
                self.note_entry(head.partition, head.id, head.time_ms, at);
                let superseded = head.id.index <= last.index;
                superseded.then_some((head.partition, head.id.index))
            }
            RecordView::HardState { partition, state } => {
                self.set_hard_state(partition, state);
                None
            }
            RecordView::Truncation { partition, upto } => {
                self.truncate(partition, upto);
                None
            }
            RecordView::Snapshot {
                partition,
                id,
                time_ms,
                membership,
            } => {
                self.install_snapshot(partition, id, time_ms, membership);
                Some((partition, 0))
            }
            RecordView::Membership {
                partition,
                membership,
            } => {
                self.set_membership(partition, membership);
                None
            }
            RecordView::Removal { partition } => {
                self.remove(partition);
                Some((partition, 0))
            }
            RecordView::Checkpoint(_) => None,
        }
    }

    /// Notes an entry, appended to a group.
    #[inline]
    pub(super) fn note_entry(
        &mut self,
        partition: PartitionId,
        id: LogId,
        time_ms: u64,
        at: RecordAt,
    ) {
        let replica = self.entry(partition);
        replica.now.last = id;
        replica.now.time_ms = time_ms;
        replica.places.note(id.index, at);
    }

    /// Forgets where entries are that stand before the segment whose header has this number.
    pub(super) fn forget_before(&mut self, segment: u64) {
        for replica in &mut self.list {
            replica.places.forget_before(segment);
        }
    }

    pub(super) fn set_hard_state(&mut self, partition: PartitionId, state: HardState) {
        self.entry(partition).now.hard = state;
    }

    pub(super) fn truncate(&mut self, partition: PartitionId, upto: LogId) {
        let now = &mut self.entry(partition).now;
        if upto.index > now.truncated.index {
            now.truncated = upto;
        }
    }

    pub(super) fn install_snapshot(
        &mut self,
        partition: PartitionId,
        id: LogId,
        time_ms: u64,
        membership: &[u8],
    ) {
        let replica = self.entry(partition);
        replica.snapshot = Some(id);
        replica.places.clear();
        let now = &mut replica.now;
        now.last = id;
        now.truncated = id;
        now.time_ms = time_ms;
        now.hard.commit = now.hard.commit.max(id.index);
        now.membership.clear();
        now.membership.extend_from_slice(membership);
    }

    pub(super) fn set_membership(&mut self, partition: PartitionId, membership: &[u8]) {
        let known = &mut self.entry(partition).now.membership;
        known.clear();
        known.extend_from_slice(membership);
    }

    /// Whether a checkpoint read from disk says what the records before it said. Commit and
    /// truncation may be ahead: they move without a record.
    pub(super) fn agrees_with(&self, entry: &CheckpointEntry) -> bool {
        self.get(entry.partition).is_some_and(|replica| {
            let (mine, theirs) = (replica.now.view(), entry.view());
            let comparable = |view: CheckpointView<'_>| {
                (
                    view.last,
                    view.hard.replica_id,
                    view.hard.term,
                    view.hard.vote,
                    view.time_ms,
                )
            };
            comparable(mine) == comparable(theirs)
        })
    }
}
