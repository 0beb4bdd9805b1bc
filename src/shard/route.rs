//! Which core owns which partition.

use ringbolt_wire::message::{NodeInfo, PartitionId, Replicas, Topology};
use ringbolt_wire::slot::core_of;

use crate::cluster::ClusterView;

/// The node's map from partitions to cores; the same on every core, fixed while the node runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionMap {
    node: String,
    cores: u16,
    core_of: Box<[u16]>,
}

impl PartitionMap {
    /// Spreads `partitions` (a power of two) over `cores` as contiguous ranges whose sizes differ
    /// by at most one.
    #[must_use]
    pub fn spread(node: String, partitions: u16, cores: u16) -> Self {
        debug_assert!(partitions.is_power_of_two() && cores >= 1 && cores <= partitions);
        Self {
            node,
            cores,
            core_of: (0..partitions)
                .map(|partition| core_of(partition, partitions, cores))
                .collect(),
        }
    }

    /// How many partitions there are.
    #[must_use]
    pub fn partitions(&self) -> u16 {
        self.core_of.len() as u16
    }

    /// How many cores there are.
    #[must_use]
    pub fn cores(&self) -> u16 {
        self.cores
    }

    /// The core that owns a partition, which must be in `0..partitions`.
    #[must_use]
    pub fn core_of(&self, partition: PartitionId) -> u16 {
        self.core_of[usize::from(partition)]
    }

    /// The partitions a core owns.
    pub fn owned_by(&self, core: u16) -> impl Iterator<Item = PartitionId> + '_ {
        (0..self.partitions()).filter(move |&p| self.core_of(p) == core)
    }

    /// As told to clients: that of a node alone.
    #[must_use]
    pub fn topology(&self) -> Topology {
        Topology::alone(self.node.clone(), self.cores, self.partitions())
    }
}

/// As told to clients of a cluster of several nodes: each partition's leader is the one that this
/// node's own replica knows, or where it has none the one that this node was told of, if any.
pub(super) fn cluster_topology(cluster: &ClusterView, partitions: u16) -> Topology {
    let nodes = cluster.nodes().iter().map(|node| NodeInfo {
        id: node.id,
        name: node.name.clone(),
        address: cluster.shown_address(node),
        cores: node.cores,
        zone: node.zone.clone(),
    });
    let replicas = (0..partitions).map(|partition| Replicas {
        leader: cluster.known_leader(partition),
        nodes: cluster.holders(partition).to_vec(),
    });
    Topology {
        cluster: cluster.identity().cluster,
        version: cluster.map_version(),
        here: cluster.here(),
        nodes: nodes.collect(),
        replicas: replicas.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_core_gets_its_share() {
        for cores in 1..=128 {
            let map = PartitionMap::spread("n".into(), 128, cores);
            let counts: Vec<usize> = (0..cores).map(|c| map.owned_by(c).count()).collect();
            let (low, high) = (
                128 / usize::from(cores),
                128usize.div_ceil(usize::from(cores)),
            );
            assert!(counts.iter().all(|&n| n == low || n == high), "{counts:?}");
            assert_eq!(counts.iter().sum::<usize>(), 128);
        }
    }
}
