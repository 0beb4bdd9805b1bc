//! When replicas have stored what: the last few moments, for the requests that wait for them.
//!
//! Of this node itself, a few moments a partition: every write of a partition with several voters asks
//! for one. Of the others, one ring for all of the core's partitions, which only slow writes ask.

use ringbolt_engine::entry::PartitionId;

use crate::cluster::NodeId;

/// Moments kept of each partition here.
const OWN_KEPT: usize = 4;
/// Moments kept of other nodes.
const PEERS_KEPT: usize = 2048;

/// From this entry back all are stored, since then.
#[derive(Debug, Clone, Copy, Default)]
struct Stored {
    index: u64,
    us: u64,
}

#[derive(Debug, Clone, Copy)]
struct PeerStored {
    partition: PartitionId,
    node: NodeId,
    stored: Stored,
}

/// The moments of one core's partitions.
#[derive(Debug)]
pub(in crate::shard) struct Acks {
    /// By partition; the newest first.
    own: Box<[[Stored; OWN_KEPT]]>,
    peers: Vec<PeerStored>,
    /// Where the oldest of `peers` is.
    next: usize,
}

impl Acks {
    /// For a node with so many partitions.
    pub(in crate::shard) fn new(partitions: usize) -> Self {
        Self {
            own: vec![[Stored::default(); OWN_KEPT]; partitions].into(),
            peers: Vec::new(),
            next: 0,
        }
    }

    /// This node has stored a partition up to `index`.
    pub(in crate::shard) fn own_stored(&mut self, partition: PartitionId, index: u64, now_us: u64) {
        let Some(own) = self.own.get_mut(usize::from(partition)) else {
            return;
        };
        if own[0].index != index {
            own.rotate_right(1);
            own[0] = Stored { index, us: now_us };
        }
    }

    /// Another node says that it has.
    pub(in crate::shard) fn peer_stored(
        &mut self,
        partition: PartitionId,
        node: NodeId,
        index: u64,
        now_us: u64,
    ) {
        let one = PeerStored {
            partition,
            node,
            stored: Stored { index, us: now_us },
        };
        if self.peers.len() < PEERS_KEPT {
            self.peers.push(one);
        } else {
            self.peers[self.next] = one;
            self.next = (self.next + 1) % PEERS_KEPT;
        }
    }

    /// Since when this node has stored the entry; not earlier than the oldest moment that is kept.
    pub(in crate::shard) fn own_since(&self, partition: PartitionId, index: u64) -> Option<u64> {
        let own = self.own.get(usize::from(partition))?;
        let since = own.iter().take_while(|stored| stored.index >= index);
        since.last().map(|stored| stored.us)
    }

    /// The same of another node.
    pub(in crate::shard) fn peer_since(
        &self,
        partition: PartitionId,
        node: NodeId,
        index: u64,
    ) -> Option<u64> {
        let (newer, older) = self.peers.split_at(self.next);
        let newest_first = newer.iter().rev().chain(older.iter().rev());
        newest_first
            .filter(|one| one.partition == partition && one.node == node)
            .take_while(|one| one.stored.index >= index)
            .last()
            .map(|one| one.stored.us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_stored_since_the_first_moment_that_covers_it() {
        let mut acks = Acks::new(2);
        assert_eq!(acks.own_since(1, 1), None);
        for (index, us) in [(5, 100), (5, 110), (9, 120), (12, 130)] {
            acks.own_stored(1, index, us);
        }
        assert_eq!(acks.own_since(1, 5), Some(100));
        assert_eq!(acks.own_since(1, 6), Some(120));
        assert_eq!(acks.own_since(1, 13), None);
        assert_eq!(acks.own_since(0, 1), None);
    }

    #[test]
    fn the_newest_moments_of_others_are_kept() {
        let mut acks = Acks::new(2);
        for round in 0..3 * PEERS_KEPT as u64 {
            acks.peer_stored((round % 2) as u16, 2 + (round % 3) as u32, round, round);
        }
        let last = 3 * PEERS_KEPT as u64 - 1;
        let (partition, node) = ((last % 2) as u16, 2 + (last % 3) as u32);
        assert_eq!(acks.peer_since(partition, node, last), Some(last));
        assert_eq!(acks.peer_since(partition, node, last - 7), Some(last - 6));
        assert_eq!(acks.peer_since(partition, node, last + 1), None);
        assert_eq!(acks.peer_since(partition, 9, 0), None);
    }
}
