//! The cluster as one node knows it: who it is, who the others are, and who of them has spoken.
//!
//! One [`ClusterView`] a node, shared by its cores and fixed while the node runs, but for two things:
//! who of the others has spoken, noted when a node says hello, and who leads which partition, noted by
//! the core that has the replica and read by every core that tells a client.
//!
//! - [`ring`]: where partitions should be: a pure function of the nodes.
//! - [`map`]: the nodes there are, and where partitions are.
//! - [`bootstrap`]: how nodes that start for the first time become one cluster.

pub mod bootstrap;
mod flow;
pub mod map;
pub mod ring;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// A node's number, from 1; never used again.
pub type NodeId = u32;
/// A cluster's number, never 0.
pub type ClusterId = u64;

/// Who a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Its number.
    pub node: NodeId,
    /// How often it has started: durably raised at each start, from 1.
    pub boot: u64,
    /// Drawn at random at this start.
    pub start: u64,
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its number.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// How many cores it has.
    pub cores: u16,
    /// The zone it stands in; empty for none.
    pub zone: String,
    /// Its share of the data, relative to the others'.
    pub weight: u32,
}

/// A start whose boot counter was used before: a disk was rolled back or copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("node {node} says start {boot}, which is not the latest: {highest} was seen")]
pub struct BootReused {
    /// The node.
    pub node: NodeId,
    /// The counter it came with.
    pub boot: u64,
    /// The highest that was seen.
    pub highest: u64,
}

/// What a node knows of its cluster.
#[derive(Debug)]
pub struct ClusterView {
    identity: Identity,
    /// By number, this node among them.
    nodes: Vec<NodeInfo>,
    /// By partition: the nodes that hold it, the one that should lead first.
    placement: Vec<Vec<NodeId>>,
    /// By partition: the node that leads it, as the core that holds its replica here last heard; 0
    /// for none. Each is written by that core alone, when it changes.
    leaders: Box<[AtomicU32]>,
    map_version: u64,
    /// The encoded map; empty where there is none.
    map: Vec<u8>,
    /// The latest start of each other node: its counter and its random number.
    seen: Mutex<BTreeMap<NodeId, (u64, u64)>>,
}

impl ClusterView {
    /// The view of the node that `identity` names, which must be one of `nodes`.
    #[must_use]
    pub fn new(identity: Identity, mut nodes: Vec<NodeInfo>, placement: Vec<Vec<NodeId>>) -> Self {
        debug_assert!(nodes.iter().any(|node| node.id == identity.node));
        nodes.sort_unstable_by_key(|node| node.id);
        Self {
            identity,
            nodes,
            leaders: placement.iter().map(|_| AtomicU32::new(0)).collect(),
            placement,
            map_version: 1,
            map: Vec::new(),
            seen: Mutex::default(),
        }
    }

    /// The same with the map that it was made from, to be told to nodes that ask.
    #[must_use]
    pub fn with_map(mut self, version: u64, encoded: Vec<u8>) -> Self {
        self.map_version = version;
        self.map = encoded;
        self
    }

    /// The version of the map, from 1.
    #[must_use]
    pub fn map_version(&self) -> u64 {
        self.map_version
    }

    /// The encoded map; empty where there is none.
    #[must_use]
    pub fn map(&self) -> &[u8] {
        &self.map
    }

    /// Who this node is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// This node's number.
    #[must_use]
    pub fn here(&self) -> NodeId {
        self.identity.node
    }

    /// Every node by number, this one among them.
    #[must_use]
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    /// The node of this number.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&NodeInfo> {
        let found = self.nodes.binary_search_by_key(&id, |node| node.id);
        self.nodes.get(found.ok()?)
    }

    /// The nodes that hold a partition, the one that should lead first.
    #[must_use]
    pub fn holders(&self, partition: u16) -> &[NodeId] {
        self.placement
            .get(usize::from(partition))
            .map_or(&[], Vec::as_slice)
    }

    /// The node that should lead a partition; 0 if there is none.
    #[must_use]
    pub fn first_holder(&self, partition: u16) -> NodeId {
        self.holders(partition).first().copied().unwrap_or_default()
    }

    /// The node that leads a partition, or else should; 0 if that is not known.
    #[must_use]
    pub fn leader(&self, partition: u16) -> NodeId {
        match self.known_leader(partition) {
            0 => self.first_holder(partition),
            leader => leader,
        }
    }

    /// The node that leads a partition as far as this node's replica knows; 0 if that is nobody, or
    /// if this node has no replica of it.
    #[must_use]
    pub fn known_leader(&self, partition: u16) -> NodeId {
        let known = self.leaders.get(usize::from(partition));
        // Each is a hint of its own: nothing else is read by its order.
        known.map_or(0, |leader| leader.load(Ordering::Relaxed))
    }

    /// Notes who leads a partition; 0 for nobody. Only by the core that holds its replica.
    pub fn set_leader(&self, partition: u16, leader: NodeId) {
        if let Some(known) = self.leaders.get(usize::from(partition)) {
            known.store(leader, Ordering::Relaxed);
        }
    }

    /// Takes note of a start of another node, or of another connection of the same start.
    ///
    /// # Errors
    /// [`BootReused`] for a counter below the highest that was seen, and for the same one with
    /// another random number.
    pub fn admit(&self, node: NodeId, boot: u64, start: u64) -> Result<(), BootReused> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = seen.entry(node).or_insert((boot, start));
        if boot > latest.0 {
            *latest = (boot, start);
        }
        if *latest == (boot, start) {
            return Ok(());
        }
        Err(BootReused {
            node,
            boot,
            highest: latest.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: NodeId) -> NodeInfo {
        NodeInfo {
            id,
            name: format!("n{id}"),
            address: SocketAddr::from(([127, 0, 0, 1], 7400)),
            cores: 1,
            zone: String::new(),
            weight: 1,
        }
    }

    #[test]
    fn leaders_are_noted_where_there_is_a_replica() {
        let identity = Identity {
            cluster: 1,
            node: 1,
            boot: 1,
            start: 1,
        };
        let view = ClusterView::new(identity, vec![node(1), node(2)], vec![vec![2, 1]]);
        assert_eq!((view.known_leader(0), view.leader(0)), (0, 2));
        view.set_leader(0, 1);
        view.set_leader(1, 1);
        assert_eq!((view.known_leader(0), view.leader(0)), (1, 1));
        assert_eq!((view.known_leader(1), view.leader(1)), (0, 0));
    }

    #[test]
    fn a_boot_counter_is_used_by_one_start_only() {
        let identity = Identity {
            cluster: 1,
            node: 1,
            boot: 1,
            start: 1,
        };
        let view = ClusterView::new(identity, vec![node(2), node(1)], Vec::new());
        assert_eq!((view.nodes()[0].id, view.node(3)), (1, None));
        assert_eq!(view.admit(2, 5, 100), Ok(()));
        assert_eq!(view.admit(2, 5, 100), Ok(()), "another core of the same");
        assert_eq!(view.admit(2, 5, 101).unwrap_err().highest, 5);
        assert_eq!(view.admit(2, 7, 102), Ok(()));
        assert_eq!(view.admit(2, 6, 103).unwrap_err().highest, 7);
        assert_eq!(view.admit(2, 7, 102), Ok(()));
        assert_eq!(view.admit(1, 1, 1), Ok(()), "nodes are counted apart");
    }
}
