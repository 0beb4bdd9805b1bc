//! Which node of which cluster this process is: settled before any core starts.

use std::collections::BTreeMap;
use std::time::SystemTime;

use ringbolt_wire::message::NodeId;

use super::StartError;
use super::format::DataDir;
use crate::cluster::bootstrap::{Decision, Introduction, decide};
use crate::cluster::map::{ClusterMap, NodeFacts};
use crate::config::{Peer, Settings};

/// This node's place in its cluster.
pub(super) struct Membership {
    /// Its number.
    pub node: NodeId,
    /// The cluster as this node last knew it.
    pub map: ClusterMap,
}

/// Makes the folder this node's, and finds or makes its place in a cluster. A node without `--peers`
/// is a cluster of one.
///
/// # Errors
/// The folder is another node's, or of other peers; the cluster cannot be made.
pub(super) fn settle(settings: &Settings, dir: &mut DataDir) -> Result<Membership, StartError> {
    dir.identify(&settings.name, &settings.peers)?;
    let own = introduce(settings, dir)?;
    let (map, node) = match dir.cluster()? {
        Some((map, node)) => (refresh(map, node, own.facts, dir)?, node),
        None => {
            let nobody = BTreeMap::new();
            let map = match decide(&own, &nobody, &nobody) {
                Decision::Form(map) => map,
                Decision::Refuse(words) => return Err(StartError::Cluster(words)),
                Decision::AskAgain | Decision::Join { .. } => {
                    return Err(StartError::Cluster(
                        "this version runs clusters of one node: leave --peers out".to_owned(),
                    ));
                }
            };
            let node = map.node_named(&settings.name).map_or(1, |node| node.id);
            dir.belong(&map, node)?;
            (map, node)
        }
    };
    Ok(Membership { node, map })
}

/// A cluster of one takes what its node says of itself now: another address, other cores after
/// `ringbolt recore`. Where there are more nodes, the map is theirs together.
fn refresh(
    map: ClusterMap,
    node: NodeId,
    facts: NodeFacts,
    dir: &mut DataDir,
) -> Result<ClusterMap, StartError> {
    let differs = map.node(node).is_some_and(|known| known.facts != facts);
    if map.nodes().len() > 1 || !differs {
        return Ok(map);
    }
    let map = map
        .update_node(node, facts)
        .map_err(|error| StartError::Cluster(error.to_string()))?;
    dir.belong(&map, node)?;
    Ok(map)
}

/// What this node says of itself to its peers.
fn introduce(settings: &Settings, dir: &DataDir) -> Result<Introduction, StartError> {
    let alone = vec![Peer {
        name: settings.name.clone(),
        address: settings.listen.to_string(),
    }];
    let peers = if settings.peers.is_empty() {
        alone
    } else {
        settings.peers.clone()
    };
    let own = peers.iter().find(|peer| peer.name == settings.name);
    let address = own.map_or_else(|| settings.listen.to_string(), |peer| peer.address.clone());
    let random = super::random_id().map_err(|error| StartError::io("/dev/urandom", &error))?;
    let proposal = u64::from_str_radix(&random[..16], 16).unwrap_or_default();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Ok(Introduction {
        facts: NodeFacts {
            name: settings.name.clone(),
            address,
            cores: settings.cores,
            zone: settings.zone.clone(),
            weight: settings.weight,
            folder: dir.format().id.clone(),
        },
        peers,
        partitions: dir.format().partitions,
        replication: settings.replication,
        // 0 stands for no cluster.
        proposal: proposal.max(1),
        wall_ms: now.map_or(0, |now| now.as_millis() as u64),
    })
}
