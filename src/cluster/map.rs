//! The cluster map: which nodes there are, and which of them has which partition.
//!
//! The ring ([`super::ring`]) computes where partitions should be; the map stores where they are. A
//! group's own membership, in its log, rules over both. Every change is a pure function of a map: it
//! gives the next map, one version higher, or says in words why it cannot be.
//!
//! A replica id is `node << 32 | generation` ([`replica_id`]). Generations count per node and are never used again, so
//! that a replica that lost its data never speaks under its old id. Nodes that are gone stay in the
//! map: so their numbers are never used again either.
//!
//! An encoded map:
//!
//! | bytes | content |
//! |---|---|
//! | 0..4 | `RBCM` |
//! | 4..6 | format version, 1 |
//! | 6..8 | 0 |
//! | 8..16 | XXH3 of the rest |
//! | 16.. | the map, as rkyv archives it |
//!
//! Integers are little-endian.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use ringbolt_wire::PARTITIONS_MAX;
use ringbolt_wire::message::{NodeId, PartitionId};
use rkyv::{Archive, Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::ClusterId;
use super::ring::{self, Candidate, WEIGHTS};
use crate::replica::{node_of, replica_id};

/// The version of the format that this code reads and writes.
pub const FORMAT_VERSION: u16 = 1;
/// Most nodes a map may list, those that are gone included.
pub const NODES_MAX: usize = 1024;
/// Most replicas of a partition.
pub const REPLICATION_MAX: u8 = 7;
/// Longest name of a node or zone, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Largest encoded map believed, in bytes: more than the limits above can make.
const ENCODED_BYTES_MAX: usize = 4 << 20;
const MAGIC: [u8; 4] = *b"RBCM";
const HEADER_BYTES: usize = 16;

/// A replica's identity: its node and a generation.
pub type ReplicaId = u64;

/// The generation of a replica on its node, from 1.
#[must_use]
pub fn generation_of(replica: ReplicaId) -> u32 {
    replica as u32
}

/// What a node is doing.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// It is listed and has no replicas yet.
    Joining,
    /// It has replicas, and may get more.
    Serving,
    /// Its replicas are being moved away.
    Draining,
    /// It has left for good.
    Gone,
}

impl NodeState {
    /// As people read it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Gone => "gone",
        }
    }
}

/// What a node says of itself: what the first map is made from.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name; unique among the nodes that are not gone.
    pub name: String,
    /// `HOST:PORT`, where peers and clients reach it.
    pub address: String,
    /// Its cores.
    pub cores: u16,
    /// What fails together with it.
    pub zone: String,
    /// Its capacity in proportion to the others'.
    pub weight: u32,
    /// The identity of its data folder, which a wiped node has not.
    pub folder: String,
}

/// A node in the map.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// What it said of itself.
    pub facts: NodeFacts,
    /// What it is doing.
    pub state: NodeState,
    /// The highest generation that any of its replicas ever had.
    pub generation: u32,
}

/// The map. Its parts are consistent: decoding and every change check them.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct ClusterMap {
    version: u64,
    cluster: ClusterId,
    replication: u8,
    /// By number.
    nodes: Vec<Node>,
    /// The replicas of each partition, its preferred leader first.
    placement: Vec<Vec<ReplicaId>>,
}

/// Why bytes are no map, or a change cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// The bytes are damaged, or no map.
    #[error("not an intact cluster map: {0}")]
    Damaged(String),
    /// The map is of another version of the format.
    #[error(
        "the cluster map has format {found}, this version of ringbolt reads format {FORMAT_VERSION}"
    )]
    Format {
        /// What it has.
        found: u16,
    },
    /// The change contradicts the map.
    #[error("{0}")]
    Refused(String),
}

fn refused(words: impl Into<String>) -> MapError {
    MapError::Refused(words.into())
}

impl ClusterMap {
    /// The first map of a cluster. The nodes' names in order give their numbers, from 1; every node
    /// serves, in generation 1, where the ring puts partitions. The order of `nodes` is of no account.
    ///
    /// # Errors
    /// [`MapError::Refused`] if the nodes cannot make a cluster.
    pub fn bootstrap(
        cluster: ClusterId,
        partitions: u16,
        replication: u8,
        mut nodes: Vec<NodeFacts>,
    ) -> Result<Self, MapError> {
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        let nodes: Vec<Node> = nodes
            .into_iter()
            .zip(1..)
            .map(|(facts, id)| Node {
                id,
                facts,
                state: NodeState::Serving,
                generation: 1,
            })
            .collect();
        let mut map = Self {
            version: 1,
            cluster,
            replication,
            nodes,
            placement: Vec::new(),
        };
        map.check_nodes()?;
        let first = |node| replica_id(node, 1);
        let target = ring::place(partitions, replication, &map.candidates());
        let target = target.into_iter();
        map.placement = target
            .map(|nodes| nodes.into_iter().map(first).collect())
            .collect();
        map.check()?;
        Ok(map)
    }

    /// The version: each change is one higher.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The cluster's identity.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// How many partitions there are.
    #[must_use]
    pub fn partitions(&self) -> u16 {
        self.placement.len() as u16
    }

    /// How many replicas a partition should have.
    #[must_use]
    pub fn replication(&self) -> u8 {
        self.replication
    }

    /// The nodes by number, those that are gone included.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A node by number.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        let at = self.nodes.binary_search_by_key(&id, |node| node.id).ok()?;
        self.nodes.get(at)
    }

    /// The node of this name that is not gone.
    #[must_use]
    pub fn node_named(&self, name: &str) -> Option<&Node> {
        let is_it = |node: &&Node| node.facts.name == name && node.state != NodeState::Gone;
        self.nodes.iter().find(is_it)
    }

    /// The replicas of a partition, its preferred leader first; none if there is no such partition.
    #[must_use]
    pub fn replicas(&self, partition: PartitionId) -> &[ReplicaId] {
        self.placement
            .get(usize::from(partition))
            .map_or(&[], Vec::as_slice)
    }

    /// The replica that a node has of a partition.
    #[must_use]
    pub fn replica_on(&self, partition: PartitionId, node: NodeId) -> Option<ReplicaId> {
        let replicas = self.replicas(partition).iter().copied();
        replicas.into_iter().find(|id| node_of(*id) == node)
    }

    /// Where the ring puts partitions now: on the nodes that serve or join.
    #[must_use]
    pub fn target(&self) -> Vec<Vec<NodeId>> {
        ring::place(self.partitions(), self.replication, &self.candidates())
    }

    fn candidates(&self) -> Vec<Candidate<'_>> {
        let may_hold = |node: &&Node| matches!(node.state, NodeState::Serving | NodeState::Joining);
        let nodes = self.nodes.iter().filter(may_hold);
        nodes
            .map(|node| Candidate {
                id: node.id,
                cores: node.facts.cores,
                zone: &node.facts.zone,
                weight: node.facts.weight,
            })
            .collect()
    }

    /// Adds a node, which joins. Gives its number with the map.
    ///
    /// # Errors
    /// [`MapError::Refused`]: the name or address is taken, or the facts are not sound.
    pub fn add_node(&self, facts: NodeFacts) -> Result<(Self, NodeId), MapError> {
        let id = self.nodes.last().map_or(1, |node| node.id + 1);
        let mut map = self.clone();
        map.nodes.push(Node {
            id,
            facts,
            state: NodeState::Joining,
            generation: 0,
        });
        Ok((map.changed()?, id))
    }

    /// Takes what a known node says of itself now: another address, more cores, a new folder after it
    /// was wiped. Its name cannot change.
    ///
    /// # Errors
    /// [`MapError::Refused`]: there is no such node, it is gone, or the facts are not sound.
    pub fn update_node(&self, id: NodeId, facts: NodeFacts) -> Result<Self, MapError> {
        let mut map = self.clone();
        let node = map.living(id)?;
        if node.facts.name != facts.name {
            let (old, new) = (&node.facts.name, &facts.name);
            return Err(refused(format!(
                "node {id} is {old}, it cannot become {new}"
            )));
        }
        node.facts = facts;
        map.changed()
    }

    /// Changes a node's state. A node that is gone stays so; one that has replicas cannot go.
    ///
    /// # Errors
    /// [`MapError::Refused`].
    pub fn set_state(&self, id: NodeId, state: NodeState) -> Result<Self, MapError> {
        let mut map = self.clone();
        map.living(id)?.state = state;
        map.changed()
    }

    /// Puts a new replica on `to` in the place of `from` in a partition: the same node again after it
    /// lost its data, or another. Gives the new replica's id with the map.
    ///
    /// # Errors
    /// [`MapError::Refused`]: `from` is no replica of the partition, `to` is not able to have one or
    /// has one already.
    pub fn replace_replica(
        &self,
        partition: PartitionId,
        from: ReplicaId,
        to: NodeId,
    ) -> Result<(Self, ReplicaId), MapError> {
        let mut map = self.clone();
        let node = map.living(to)?;
        if node.state == NodeState::Draining && node_of(from) != to {
            return Err(refused(format!("node {to} is being drained")));
        }
        node.generation = node
            .generation
            .checked_add(1)
            .ok_or_else(|| refused(format!("node {to} has used up its replica ids")))?;
        let replica = replica_id(to, node.generation);
        let place = map
            .placement
            .get_mut(usize::from(partition))
            .and_then(|replicas| replicas.iter_mut().find(|replica| **replica == from))
            .ok_or_else(|| refused(format!("partition {partition} has no replica {from:#x}")))?;
        *place = replica;
        Ok((map.changed()?, replica))
    }

    /// Makes a node the preferred leader of a partition.
    ///
    /// # Errors
    /// [`MapError::Refused`]: there is no such partition, or the node does not hold it.
    pub fn prefer(&self, partition: PartitionId, node: NodeId) -> Result<Self, MapError> {
        let mut map = self.clone();
        let replicas = map.placement.get_mut(usize::from(partition));
        let found = replicas.and_then(|replicas| {
            let at = replicas.iter().position(|id| node_of(*id) == node)?;
            Some((replicas, at))
        });
        let Some((replicas, at)) = found else {
            return Err(refused(format!(
                "node {node} does not hold partition {partition}"
            )));
        };
        replicas[..=at].rotate_right(1);
        map.changed()
    }

    /// Takes in a node that comes without its data: under the folder it has now, with a new replica in
    /// the place of each that it had, all of one new generation.
    ///
    /// # Errors
    /// [`MapError::Refused`]: there is no such node, or it has this folder already.
    pub fn rejoin(&self, name: &str, folder: &str) -> Result<Self, MapError> {
        let id = match self.node_named(name) {
            Some(node) if node.facts.folder != folder => node.id,
            Some(_) => return Err(refused(format!("node {name} has this folder already"))),
            None => return Err(refused(format!("there is no node {name}"))),
        };
        let mut map = self.clone();
        let node = map.living(id)?;
        folder.clone_into(&mut node.facts.folder);
        node.generation = node
            .generation
            .checked_add(1)
            .ok_or_else(|| refused(format!("node {name} has used up its replica ids")))?;
        let renewed = replica_id(id, node.generation);
        for replica in map.placement.iter_mut().flatten() {
            if node_of(*replica) == id {
                *replica = renewed;
            }
        }
        map.changed()
    }

    /// A node that is not gone.
    fn living(&mut self, id: NodeId) -> Result<&mut Node, MapError> {
        let found = self.nodes.iter_mut().find(|node| node.id == id);
        match found {
            Some(node) if node.state != NodeState::Gone => Ok(node),
            Some(_) => Err(refused(format!("node {id} is gone"))),
            None => Err(refused(format!("there is no node {id}"))),
        }
    }

    /// The map after a change, if it is sound.
    fn changed(mut self) -> Result<Self, MapError> {
        self.version += 1;
        self.check()?;
        Ok(self)
    }

    fn check_nodes(&self) -> Result<(), MapError> {
        if self.cluster == 0 || self.version == 0 {
            return Err(refused("a cluster or a version is never 0"));
        }
        if !(1..=REPLICATION_MAX).contains(&self.replication) {
            return Err(refused(format!(
                "a replication factor of {} is not one of 1 to {REPLICATION_MAX}",
                self.replication
            )));
        }
        if self.nodes.is_empty() || self.nodes.len() > NODES_MAX {
            return Err(refused(format!(
                "{} nodes are not 1 to {NODES_MAX}",
                self.nodes.len()
            )));
        }
        let mut names = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        for (node, expected) in self.nodes.iter().zip(1..) {
            let facts = &node.facts;
            if node.id != expected {
                return Err(refused(format!(
                    "node {} where {expected} belongs",
                    node.id
                )));
            }
            check_facts(facts)?;
            if node.state == NodeState::Gone {
                continue;
            }
            if !names.insert(&facts.name) {
                return Err(refused(format!("two nodes are named {}", facts.name)));
            }
            if !addresses.insert(&facts.address) {
                return Err(refused(format!(
                    "two nodes have the address {}",
                    facts.address
                )));
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), MapError> {
        self.check_nodes()?;
        let partitions = self.placement.len();
        if !partitions.is_power_of_two() || partitions > usize::from(PARTITIONS_MAX) {
            return Err(refused(format!(
                "{partitions} partitions are not a power of two from 1 to {PARTITIONS_MAX}"
            )));
        }
        for (partition, replicas) in self.placement.iter().enumerate() {
            let wrong = |what: String| Err(refused(format!("partition {partition} {what}")));
            if replicas.is_empty() || replicas.len() > usize::from(self.replication) {
                return wrong(format!("has {} replicas", replicas.len()));
            }
            for (at, replica) in replicas.iter().enumerate() {
                let node = node_of(*replica);
                if replicas[..at].iter().any(|other| node_of(*other) == node) {
                    return wrong(format!("is on node {node} twice"));
                }
                let Some(node) = self.node(node) else {
                    return wrong(format!("is on node {node}, which does not exist"));
                };
                if node.state == NodeState::Gone {
                    return wrong(format!("is still on node {}", node.id));
                }
                if !(1..=node.generation).contains(&generation_of(*replica)) {
                    return wrong(format!("has a replica {replica:#x} that was never made"));
                }
            }
        }
        Ok(())
    }

    /// The map as bytes.
    ///
    /// # Errors
    /// [`MapError::Refused`] if it is larger than any map may be.
    pub fn encode(&self) -> Result<Vec<u8>, MapError> {
        let payload = rkyv::to_bytes::<rkyv::rancor::Error>(self)
            .map_err(|error| refused(error.to_string()))?;
        if payload.len() > ENCODED_BYTES_MAX {
            return Err(refused(format!("a map of {} bytes", payload.len())));
        }
        let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&xxh3_64(&payload).to_le_bytes());
        bytes.extend_from_slice(&payload);
        Ok(bytes)
    }

    /// Reads a map back; nothing is believed before it is checked.
    ///
    /// # Errors
    /// [`MapError::Format`], [`MapError::Damaged`].
    pub fn decode(bytes: &[u8]) -> Result<Self, MapError> {
        let damaged = |what: &str| MapError::Damaged(what.to_owned());
        let (header, payload) = bytes
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or_else(|| damaged("it is too short"))?;
        let [m0, m1, m2, m3, v0, v1, 0, 0, checksum @ ..] = *header else {
            return Err(damaged("its reserved bytes are not zero"));
        };
        if [m0, m1, m2, m3] != MAGIC {
            return Err(damaged("it does not begin as one"));
        }
        let found = u16::from_le_bytes([v0, v1]);
        if found != FORMAT_VERSION {
            return Err(MapError::Format { found });
        }
        if payload.len() > ENCODED_BYTES_MAX || xxh3_64(payload) != u64::from_le_bytes(checksum) {
            return Err(damaged("its checksum does not match"));
        }
        // The archive is validated at the alignment it was written with.
        let mut aligned = rkyv::util::AlignedVec::<16>::with_capacity(payload.len());
        aligned.extend_from_slice(payload);
        let map = rkyv::from_bytes::<Self, rkyv::rancor::Error>(&aligned)
            .map_err(|error| MapError::Damaged(error.to_string()))?;
        map.check()
            .map_err(|error| MapError::Damaged(error.to_string()))?;
        Ok(map)
    }
}

/// Whether what a node says of itself can be used.
fn check_facts(facts: &NodeFacts) -> Result<(), MapError> {
    let name = &facts.name;
    for (what, text) in [("name", name), ("zone", &facts.zone)] {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if !(1..=NAME_BYTES_MAX).contains(&text.len()) || !text.chars().all(fits) {
            return Err(refused(format!("{text:?} is no {what} of a node")));
        }
    }
    if facts.cores == 0 || !WEIGHTS.contains(&facts.weight) {
        return Err(refused(format!(
            "node {name} with {} cores and weight {}",
            facts.cores, facts.weight
        )));
    }
    if facts.address.parse::<SocketAddr>().is_err() && !is_host_and_port(&facts.address) {
        return Err(refused(format!("{:?} is no address", facts.address)));
    }
    if facts.folder.len() > NAME_BYTES_MAX {
        return Err(refused(format!("node {name} has an overlong folder id")));
    }
    Ok(())
}

/// Whether text is a host name, a colon and a port.
fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (1..=253).contains(&host.len())
        && host.chars().all(fits)
        && port.parse::<u16>().is_ok_and(|port| port != 0)
}

#[cfg(test)]
mod tests;
