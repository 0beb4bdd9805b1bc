//! How every node of a run is set up, and what it says of itself.

use std::net::SocketAddr;

use ringbolt::cluster::bootstrap::Introduction;
use ringbolt::cluster::map::NodeFacts;
use ringbolt::config::Peer;
use ringbolt::shard::limits::ShardLimits;
use ringbolt_engine::engine::EngineOptions;

/// Replicas of each partition, where there are as many nodes.
const REPLICAS: u8 = 3;

/// The number of every simulated cluster.
const CLUSTER: u64 = 1;

/// How every node of a run is set up.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Partitions of the cluster.
    pub partitions: u16,
    /// The engine.
    pub engine: EngineOptions,
    /// The shard.
    pub limits: ShardLimits,
    /// One in so many turns is interrupted for long; 0 for none.
    pub stall_one_in: u64,
    /// Cores of each node.
    pub cores: Vec<u16>,
}

/// The name of a node.
fn name(node: u16) -> String {
    format!("node-{:03}", node + 1)
}

/// Where a node listens.
fn address(node: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, (node >> 8) as u8, node as u8], 7400))
}

impl Setup {
    /// What a node without a cluster says of itself, whose data folder is `folder`, and whose earlier
    /// one was of the cluster `rejoins`.
    #[must_use]
    pub fn introduction(
        &self,
        node: u16,
        folder: &str,
        rejoins: u64,
        wall_ms: u64,
    ) -> Introduction {
        let peers = (0..self.cores.len() as u16).map(|node| Peer {
            name: name(node),
            address: address(node).to_string(),
        });
        Introduction {
            facts: NodeFacts {
                name: name(node),
                address: address(node).to_string(),
                cores: self.cores[usize::from(node)],
                zone: "sim".to_owned(),
                weight: 100,
                folder: folder.to_owned(),
            },
            peers: peers.collect(),
            partitions: self.partitions,
            replication: REPLICAS,
            proposal: CLUSTER,
            rejoins,
            wall_ms,
        }
    }
}
