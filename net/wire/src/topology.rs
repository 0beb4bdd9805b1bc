//! Who is in a cluster, and where its partitions live.
//!
//! Partitions are spread over the cores of a node by [`core_of`](crate::slot::core_of), so that
//! a topology says only which nodes hold a partition, and how many cores each node has.

use crate::message::PartitionId;
use crate::slot::core_of;

/// A node's number in its cluster, from 1; never used again. 0 stands for none.
pub type NodeId = u32;

/// The cluster as one of its nodes knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// The cluster's number; 0 for a node that is alone.
    pub cluster: u64,
    /// The version of the cluster map: of two maps of a cluster the higher is the newer. Leaders
    /// change without it.
    pub version: u64,
    /// The node that tells this.
    pub here: NodeId,
    /// The nodes, by ascending number.
    pub nodes: Vec<NodeInfo>,
    /// `replicas[partition]`; its length, a power of two, is the number of partitions.
    pub replicas: Vec<Replicas>,
}

/// A node as its cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its number.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Where clients reach it, `host:port`. Empty: where this topology was asked for.
    pub address: String,
    /// How many cores it has, at least 1.
    pub cores: u16,
    /// Its failure zone; empty if it has none.
    pub zone: String,
}

/// Where one partition lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replicas {
    /// The node believed to lead it; 0 if none is known.
    pub leader: NodeId,
    /// The nodes that hold a replica of it, at least one.
    pub nodes: Vec<NodeId>,
}

impl Topology {
    /// That of a node which is alone: number 1, and the leader of every partition.
    pub fn alone(name: impl Into<String>, cores: u16, partitions: u16) -> Topology {
        const ALONE: NodeId = 1;
        let replicas = Replicas {
            leader: ALONE,
            nodes: vec![ALONE],
        };
        Topology {
            cluster: 0,
            version: 0,
            here: ALONE,
            nodes: vec![NodeInfo {
                id: ALONE,
                name: name.into(),
                address: String::new(),
                cores,
                zone: String::new(),
            }],
            replicas: vec![replicas; usize::from(partitions)],
        }
    }

    /// How many cores the node has that tells this.
    pub fn cores_here(&self) -> u16 {
        self.node(self.here).map_or(1, |node| node.cores)
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> u16 {
        // At most PARTITIONS_MAX.
        self.replicas.len() as u16
    }

    /// The node of this number.
    pub fn node(&self, id: NodeId) -> Option<&NodeInfo> {
        let at = self.nodes.binary_search_by_key(&id, |node| node.id).ok()?;
        Some(&self.nodes[at])
    }

    /// The core on which a node keeps a partition, if it holds one; `None` if there is no such
    /// node or partition.
    pub fn core_of(&self, node: NodeId, partition: PartitionId) -> Option<u16> {
        let cores = self.node(node)?.cores;
        let partitions = self.partitions();
        (partition < partitions).then(|| core_of(partition, partitions, cores))
    }

    /// The node that is believed to lead a partition, if one is.
    pub fn leader(&self, partition: PartitionId) -> Option<NodeId> {
        match self.replicas.get(usize::from(partition))?.leader {
            0 => None,
            leader => Some(leader),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_alone_leads_everything() {
        let topology = Topology::alone("n", 3, 8);
        assert_eq!(topology.partitions(), 8);
        assert!((0..8).all(|partition| topology.leader(partition) == Some(1)));
        let cores: Vec<_> = (0..8).map(|p| topology.core_of(1, p).unwrap()).collect();
        assert_eq!(cores, [0, 0, 0, 1, 1, 1, 2, 2]);
        assert_eq!(topology.core_of(2, 0), None);
        assert_eq!(topology.leader(8), None);
    }
}
