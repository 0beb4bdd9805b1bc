//! The cluster as one node knows it: who it is, who the others are, and who of them has spoken.
//!
//! One [`ClusterView`] a node, shared by its cores. Which nodes there are and where partitions lie is
//! fixed while the node runs; what changes is behind locks that no request takes (but for puts while some
//! node's disk is nearly full), or is a hint:
//!
//! - who of the others has spoken, noted when a node says hello and from time to time;
//! - who leads which partition, noted by the core that has the replica, or by whoever was told so by
//!   another node where there is none here, and read by every core that tells a client;
//! - the cluster map: which replica of a node is the one that counts, after the node came without its
//!   data ([`crate::shard`] keeps it, replicated, in the home partition);
//! - nodes that ask to be taken in again, until the map's leader looks;
//! - where the nodes are whose hosts have names ([`addresses`]);
//! - what the other nodes' clocks say;
//! - which nodes are to lead nothing;
//! - whose disks are nearly full;
//! - whether this node's own data has been outlived by a newer life of it.
//!
//! - [`ring`]: where partitions should be: a pure function of the nodes.
//! - [`map`]: the nodes there are, and where partitions are.
//! - [`addresses`]: where the nodes are now.
//! - [`bootstrap`]: how nodes that start for the first time become one cluster.
//! - [`clocks`]: how far the other nodes' clocks are from this node's.
//! - [`namesake`]: a name is for one node only.
//! - [`leaving`]: when a node parts with its data.

pub mod addresses;
pub mod bootstrap;
pub mod clocks;
mod flow;
pub mod leaving;
pub mod map;
pub mod namesake;
pub mod ring;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::replica::{node_of, replica_id};
use addresses::Addresses;
use clocks::Clocks;
use map::{ClusterMap, MapError, NodeState};

/// A node's number, from 1; never used again.
pub type NodeId = u32;
/// A cluster's number, never 0.
pub type ClusterId = u64;

/// How long it counts that a node's disk is nearly full: it says so twice a second, and may not be heard when it
/// is so no more.
const FULL_FOR: Duration = Duration::from_secs(5);

/// Who a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Its number.
    pub node: NodeId,
    /// Durably raised at each start, from 1: see [`boot_of`].
    pub boot: u64,
    /// Drawn at random at this start.
    pub start: u64,
}

/// The counter that a node says hello with: how often its folder has been started, and above that the
/// generation in which the folder joined. So a node that came without its data is always later than
/// any earlier life of it.
#[must_use]
pub fn boot_of(generation: u32, boots: u64) -> u64 {
    u64::from(generation) << 32 | boots & u64::from(u32::MAX)
}

/// The start that a node tells the others of: a counter, and what was drawn at random for it.
///
/// It is the same as at the start before where no other node has welcomed that one yet. So a disk that
/// was rolled back can not outrun what the others have seen by being started again and again before it
/// meets them (found by the simulator).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToldStart {
    /// How often the folder had been started.
    pub boots: u64,
    /// Drawn at random.
    pub random: u64,
}

impl ToldStart {
    /// As a folder keeps it.
    #[must_use]
    pub fn encode(&self) -> String {
        format!("{:x} {:016x}", self.boots, self.random)
    }

    /// The reverse of [`ToldStart::encode`].
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        let (boots, random) = text.split_once(' ')?;
        Some(Self {
            boots: u64::from_str_radix(boots, 16).ok()?,
            random: u64::from_str_radix(random, 16).ok()?,
        })
    }
}

/// A cluster map, and its bytes.
#[derive(Debug)]
pub struct KnownMap {
    /// The map.
    pub map: ClusterMap,
    /// As it is kept and told.
    pub encoded: Vec<u8>,
}

/// A start of another node that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The node.
    pub node: NodeId,
    /// Its counter.
    pub boot: u64,
    /// Its random number.
    pub start: u64,
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its number.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Where it listens, `HOST:PORT`: [`ClusterView::address`] has what a name stands for now.
    pub address: String,
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
    addresses: Addresses,
    /// By partition: the nodes that hold it, the one that should lead first.
    placement: Vec<Vec<NodeId>>,
    /// By partition: the node that leads it, 0 for none. Where there is a replica here, as the core that
    /// holds it last heard: written by that core alone, when it changes. Elsewhere as other nodes have
    /// answered, or failed to: written by any core that asked.
    leaders: Box<[AtomicU32]>,
    /// The newest map; none where partitions were placed without one.
    map: Mutex<Option<Arc<KnownMap>>>,
    map_version: AtomicU64,
    /// The latest start of each other node: its counter and its random number.
    seen: Mutex<BTreeMap<NodeId, (u64, u64)>>,
    /// How often that has changed.
    seen_changes: AtomicU64,
    /// When each other node was last heard of.
    heard: Mutex<BTreeMap<NodeId, Duration>>,
    clocks: Clocks,
    /// Nodes that came without their data: by name, the folder they have now, and when they said so.
    claims: Mutex<BTreeMap<String, (String, Duration)>>,
    /// Whether another node has welcomed this start.
    welcomed: AtomicBool,
    /// Why this node's data must not be used any more.
    outlived: OnceLock<String>,
    /// What of this node's tables was found to be damaged first.
    damage: OnceLock<String>,
    /// The cores that could do without this node: see [`ClusterView::note_settled`].
    settled: Mutex<BTreeSet<u16>>,
    /// Whether this node is to lead nothing.
    drains: AtomicBool,
    /// The other nodes that want to lead nothing, and how often that has changed.
    draining: Mutex<BTreeSet<NodeId>>,
    draining_changes: AtomicU64,
    /// The nodes whose disks are nearly full and when each said so last, and whether there is any.
    full: Mutex<BTreeMap<NodeId, Duration>>,
    any_full: AtomicBool,
}

/// What is behind a lock is whole at any moment: a thread that panicked with it left nothing halfway.
fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClusterView {
    /// The view of the node that `identity` names, which must be one of `nodes`.
    #[must_use]
    pub fn new(identity: Identity, mut nodes: Vec<NodeInfo>, placement: Vec<Vec<NodeId>>) -> Self {
        debug_assert!(nodes.iter().any(|node| node.id == identity.node));
        nodes.sort_unstable_by_key(|node| node.id);
        Self {
            identity,
            addresses: Addresses::of(&nodes),
            nodes,
            leaders: placement.iter().map(|_| AtomicU32::new(0)).collect(),
            placement,
            map: Mutex::default(),
            map_version: AtomicU64::new(1),
            seen: Mutex::default(),
            seen_changes: AtomicU64::new(0),
            heard: Mutex::default(),
            clocks: Clocks::default(),
            claims: Mutex::default(),
            welcomed: AtomicBool::new(false),
            outlived: OnceLock::new(),
            damage: OnceLock::new(),
            settled: Mutex::default(),
            drains: AtomicBool::new(false),
            draining: Mutex::default(),
            draining_changes: AtomicU64::new(0),
            full: Mutex::default(),
            any_full: AtomicBool::new(false),
        }
    }

    /// The view of a node that begins. `seen` are the starts of others that its folder remembers.
    ///
    /// # Errors
    /// In words: the map cannot be used.
    pub fn of_map(
        map: ClusterMap,
        here: NodeId,
        told: ToldStart,
        seen: &[Seen],
    ) -> Result<Self, String> {
        let living = map
            .nodes()
            .iter()
            .filter(|node| node.state != NodeState::Gone);
        let info = |node: &map::Node| {
            let facts = &node.facts;
            NodeInfo {
                id: node.id,
                name: facts.name.clone(),
                address: facts.address.clone(),
                cores: facts.cores,
                zone: facts.zone.clone(),
                weight: facts.weight,
            }
        };
        let nodes = living.map(info).collect();
        let identity = Identity {
            cluster: map.cluster(),
            node: here,
            boot: boot_of(map.node(here).map_or(1, |own| own.generation), told.boots),
            start: told.random,
        };
        let placement = (0..map.partitions()).map(|partition| {
            let replicas = map.replicas(partition).iter();
            replicas.map(|replica| node_of(*replica)).collect()
        });
        Self::new(identity, nodes, placement.collect())
            .with_map(map, seen)
            .map_err(|error| error.to_string())
    }

    /// The same with the map that it was made from, and the starts of other nodes that this node's
    /// folder remembers.
    ///
    /// # Errors
    /// [`MapError::Refused`] if the map is larger than any may be.
    pub fn with_map(self, map: ClusterMap, seen: &[Seen]) -> Result<Self, MapError> {
        let encoded = map.encode()?;
        self.map_version.store(map.version(), Ordering::Release);
        *locked(&self.map) = Some(Arc::new(KnownMap { map, encoded }));
        locked(&self.seen).extend(seen.iter().map(|s| (s.node, (s.boot, s.start))));
        Ok(self)
    }

    /// The version of the map, from 1.
    #[must_use]
    pub fn map_version(&self) -> u64 {
        self.map_version.load(Ordering::Acquire)
    }

    /// The newest map that this node knows; none where partitions were placed without one.
    #[must_use]
    pub fn map(&self) -> Option<Arc<KnownMap>> {
        locked(&self.map).clone()
    }

    /// Takes a map that was told or read, if it is a newer one of this cluster. One in which this node
    /// has another data folder is not taken: it outlives this one's.
    ///
    /// # Errors
    /// [`MapError`] if the bytes are no map.
    pub fn learn(&self, encoded: &[u8]) -> Result<(), MapError> {
        let map = ClusterMap::decode(encoded)?;
        let mut known = locked(&self.map);
        let Some(old) = known.as_ref().map(|known| &known.map) else {
            return Ok(());
        };
        if map.cluster() != old.cluster() || map.version() <= old.version() {
            return Ok(());
        }
        let folder = |map: &ClusterMap| map.node(self.here()).map(|node| node.facts.folder.clone());
        if folder(&map) != folder(old) {
            self.outlive("the cluster has taken this node in again with another data folder");
            return Ok(());
        }
        self.map_version.store(map.version(), Ordering::Release);
        let encoded = encoded.to_vec();
        *known = Some(Arc::new(KnownMap { map, encoded }));
        Ok(())
    }

    /// The replica id that a node has of a partition: as the map says, or else that of the first
    /// generation, if the node holds the partition.
    #[must_use]
    pub fn replica_on(&self, partition: u16, node: NodeId) -> Option<u64> {
        match &*locked(&self.map) {
            Some(known) => known.map.replica_on(partition, node),
            None => {
                let holds = self.holders(partition).contains(&node);
                holds.then(|| replica_id(node, 1))
            }
        }
    }

    /// A node came without its data and asks, at this moment of `CLOCK_BOOTTIME`, to be taken in with
    /// this folder. Only of nodes that the map knows with another one.
    pub fn claim(&self, name: &str, folder: &str, at: Duration) {
        let is_other = locked(&self.map).as_ref().is_some_and(|known| {
            let node = known.map.node_named(name);
            node.is_some_and(|node| node.facts.folder != folder)
        });
        if is_other {
            locked(&self.claims).insert(name.to_owned(), (folder.to_owned(), at));
        }
    }

    /// Takes what nodes have claimed since then: names and folders. What is older is forgotten.
    #[must_use]
    pub fn take_claims(&self, since: Duration) -> Vec<(String, String)> {
        let claims = std::mem::take(&mut *locked(&self.claims));
        let new = claims.into_iter().filter(|(_, (_, at))| *at >= since);
        new.map(|(name, (folder, _))| (name, folder)).collect()
    }

    /// Another node was heard of at this moment of `CLOCK_BOOTTIME`.
    pub fn note_heard(&self, node: NodeId, at: Duration) {
        let mut heard = locked(&self.heard);
        let last = heard.entry(node).or_default();
        *last = at.max(*last);
    }

    /// When another node was last heard of; zero for never.
    #[must_use]
    pub fn heard(&self, node: NodeId) -> Duration {
        locked(&self.heard).get(&node).copied().unwrap_or_default()
    }

    /// The other nodes that were heard of within a time before `now`.
    #[must_use]
    pub fn heard_within(&self, within: Duration, now: Duration) -> Vec<NodeId> {
        let heard = locked(&self.heard);
        let lately = heard
            .iter()
            .filter(|(_, at)| now.saturating_sub(**at) < within);
        lately.map(|(node, _)| *node).collect()
    }

    /// The other nodes' clocks.
    #[must_use]
    pub fn clocks(&self) -> &Clocks {
        &self.clocks
    }

    /// Another node has welcomed this start.
    pub fn note_welcome(&self) {
        self.welcomed.store(true, Ordering::Release);
    }

    /// Whether another node has welcomed this start.
    #[must_use]
    pub fn is_welcomed(&self) -> bool {
        self.welcomed.load(Ordering::Acquire)
    }

    /// A table of this node was found to be damaged. Its log is not, so it may go on voting.
    pub fn note_damage(&self, what: &str) {
        // The first stands for all.
        let _known = self.damage.set(what.to_owned());
    }

    /// What was found to be damaged first, if anything was.
    #[must_use]
    pub fn damage(&self) -> Option<&str> {
        self.damage.get().map(String::as_str)
    }

    /// A core says whether, as far as it can see, the others could do without this node now: all are
    /// heard of, none of a lower number is about to go, and no group here changes its members.
    pub fn note_settled(&self, core: u16, settled: bool) {
        let mut cores = locked(&self.settled);
        if settled {
            cores.insert(core);
        } else {
            cores.remove(&core);
        }
    }

    /// How many cores said so last.
    #[must_use]
    pub fn settled_cores(&self) -> usize {
        locked(&self.settled).len()
    }

    /// Has this node give away what it leads and lead nothing more, or lead again.
    pub fn drain(&self, drains: bool) {
        self.note_draining(self.here(), drains);
        self.drains.store(drains, Ordering::Release);
    }

    /// Whether this node is to lead nothing.
    #[must_use]
    pub fn drains(&self) -> bool {
        self.drains.load(Ordering::Acquire)
    }

    /// A node says whether it is to lead nothing.
    pub fn note_draining(&self, node: NodeId, drains: bool) {
        let mut draining = locked(&self.draining);
        let changed = if drains {
            draining.insert(node)
        } else {
            draining.remove(&node)
        };
        if changed {
            self.draining_changes.fetch_add(1, Ordering::Release);
        }
    }

    /// Whether leadership may be given to a node.
    #[must_use]
    pub fn may_lead(&self, node: NodeId) -> bool {
        !locked(&self.draining).contains(&node)
    }

    /// Changes with the answers of [`ClusterView::may_lead`].
    #[must_use]
    pub fn draining_changes(&self) -> u64 {
        self.draining_changes.load(Ordering::Acquire)
    }

    /// A node, this one too, says whether its disk is nearly full.
    pub fn note_full(&self, node: NodeId, is_full: bool, now: Duration) {
        let mut full = locked(&self.full);
        match is_full {
            true => full.insert(node, now),
            false => full.remove(&node),
        };
        full.retain(|_, said| now.saturating_sub(*said) < FULL_FOR);
        self.any_full.store(!full.is_empty(), Ordering::Release);
    }

    /// Whether a node's disk is nearly full, by what it said lately.
    #[must_use]
    pub fn is_full(&self, node: NodeId, now: Duration) -> bool {
        let said = locked(&self.full).get(&node).copied();
        said.is_some_and(|said| now.saturating_sub(said) < FULL_FOR)
    }

    /// Whether any node's disk is.
    #[must_use]
    pub fn any_full(&self) -> bool {
        self.any_full.load(Ordering::Acquire)
    }

    /// How many partitions this node leads, as far as its cores have noted.
    #[must_use]
    pub fn led_here(&self) -> usize {
        let here = |leader: &&AtomicU32| leader.load(Ordering::Relaxed) == self.here();
        self.leaders.iter().filter(here).count()
    }

    /// This node's data must not be used any more: its replicas may have forgotten what they promised,
    /// or others stand in their place.
    pub fn outlive(&self, why: &str) {
        // The first reason stands.
        let _known = self.outlived.set(why.to_owned());
    }

    /// Why this node's data must not be used any more, if that is so.
    #[must_use]
    pub fn outlived(&self) -> Option<&str> {
        self.outlived.get().map(String::as_str)
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

    /// Where the nodes are.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Where a node is now; none while its host's name stands for nothing.
    #[must_use]
    pub fn address(&self, node: NodeId) -> Option<SocketAddr> {
        self.addresses.get(node)
    }

    /// Where clients find a node: its address now, or else as the map has it.
    #[must_use]
    pub fn shown_address(&self, node: &NodeInfo) -> String {
        let now = self.address(node.id);
        now.map_or_else(|| node.address.clone(), |address| address.to_string())
    }

    /// The nodes that hold a partition, the one that should lead first.
    #[must_use]
    pub fn holders(&self, partition: u16) -> &[NodeId] {
        self.placement
            .get(usize::from(partition))
            .map_or(&[], Vec::as_slice)
    }

    /// Whether this node holds a partition.
    #[must_use]
    pub fn holds(&self, partition: u16) -> bool {
        self.holders(partition).contains(&self.here())
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

    /// The node that leads a partition as far as this node's replica knows, or where it has none as far
    /// as it was told; 0 if that is nobody.
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

    /// Another node said who leads a partition. Of one that is held here its replica knows better.
    pub fn note_leader_elsewhere(&self, partition: u16, leader: NodeId) {
        if !self.holds(partition) && self.holders(partition).contains(&leader) {
            self.set_leader(partition, leader);
        }
    }

    /// A node that was taken for the leader of a partition does not lead it, and did not say who does: the
    /// next holder is taken for it, unless more was learned since that one was asked.
    pub fn note_not_led_by(&self, partition: u16, asked: NodeId) {
        if self.leader(partition) != asked || self.holds(partition) {
            return;
        }
        let holders = self.holders(partition);
        if let Some(at) = holders.iter().position(|node| *node == asked) {
            self.set_leader(partition, holders[(at + 1) % holders.len()]);
        }
    }

    /// A node cannot be reached, or does not answer: of the partitions that it was taken for the leader of,
    /// and that are not held here, the next holders are.
    pub fn note_silent(&self, node: NodeId) {
        for partition in (0..).take(self.placement.len()) {
            self.note_not_led_by(partition, node);
        }
    }

    /// Takes note of a start of another node, or of another connection of the same start.
    ///
    /// # Errors
    /// [`BootReused`] for a counter below the highest that was seen, and for the same one with
    /// another random number.
    pub fn admit(&self, node: NodeId, boot: u64, start: u64) -> Result<(), BootReused> {
        let mut seen = locked(&self.seen);
        let latest = seen.entry(node).or_default();
        if boot > latest.0 {
            *latest = (boot, start);
            self.seen_changes.fetch_add(1, Ordering::Release);
            // It has forgotten that it was to lead nothing.
            self.note_draining(node, false);
            locked(&self.full).remove(&node);
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

    /// How often [`ClusterView::seen`] has changed.
    #[must_use]
    pub fn seen_changes(&self) -> u64 {
        self.seen_changes.load(Ordering::Acquire)
    }

    /// The latest start of every other node that was seen, to be remembered over a restart.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        let seen = locked(&self.seen);
        let of = |(&node, &(boot, start)): (&NodeId, &(u64, u64))| Seen { node, boot, start };
        seen.iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: NodeId) -> NodeInfo {
        NodeInfo {
            id,
            name: format!("n{id}"),
            address: "127.0.0.1:7400".to_owned(),
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
    fn who_leads_elsewhere_is_what_was_told_or_else_the_next_holder() {
        let identity = Identity {
            cluster: 1,
            node: 1,
            boot: 1,
            start: 1,
        };
        let nodes = (1..=4).map(node).collect();
        let view = ClusterView::new(identity, nodes, vec![vec![2, 3, 4], vec![1, 2, 3]]);
        view.note_not_led_by(0, 3);
        assert_eq!(view.leader(0), 2, "another one was asked");
        for (asked, next) in [(2, 3), (3, 4), (4, 2), (2, 3), (2, 3)] {
            view.note_not_led_by(0, asked);
            assert_eq!(view.leader(0), next);
        }
        view.note_leader_elsewhere(0, 4);
        view.note_leader_elsewhere(0, 1);
        assert_eq!(view.leader(0), 4, "node 1 holds nothing of it");
        view.note_leader_elsewhere(1, 3);
        view.note_not_led_by(1, 1);
        assert_eq!(view.known_leader(1), 0, "it is held here");
        view.note_not_led_by(9, 0);
        view.note_silent(1);
        view.note_silent(4);
        assert_eq!((view.leader(0), view.leader(1)), (2, 1));
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
        assert_eq!(view.seen_changes(), 3, "the first, a later one, and node 1");
        let seen = view.seen();
        assert_eq!((seen.len(), seen[1].boot, seen[1].start), (2, 7, 102));
        assert!(boot_of(2, 1) > boot_of(1, 900), "a new folder is later");
    }

    #[test]
    fn a_newer_map_is_taken_unless_it_outlives_this_node() {
        let facts = |name: &str, port| map::NodeFacts {
            name: name.to_owned(),
            address: format!("127.0.0.1:{port}"),
            cores: 1,
            zone: "z".to_owned(),
            weight: 1,
            folder: format!("{name}-1"),
        };
        let first = ClusterMap::bootstrap(9, 8, 2, vec![facts("n1", 1), facts("n2", 2)]).unwrap();
        let identity = Identity {
            cluster: 9,
            node: 1,
            boot: 1,
            start: 1,
        };
        let holders = vec![vec![1, 2]; 8];
        let view = ClusterView::new(identity, vec![node(1), node(2)], holders);
        assert_eq!(view.replica_on(0, 2), Some(replica_id(2, 1)));
        let view = view.with_map(first.clone(), &[]).unwrap();
        let (then, now) = (Duration::from_secs(1), Duration::from_secs(2));
        view.claim("n2", "n2-1", now);
        assert!(view.take_claims(then).is_empty(), "it has that folder");
        view.claim("n2", "n2-2", then);
        view.claim("n9", "n9-2", now);
        let claimed = ("n2".to_owned(), "n2-2".to_owned());
        assert_eq!(view.take_claims(then), [claimed], "n9 is not known");
        assert!(view.take_claims(then).is_empty());
        view.claim("n2", "n2-2", then);
        assert!(view.take_claims(now).is_empty(), "too old");

        let second = first.rejoin("n2", "n2-2").unwrap();
        view.learn(&second.encode().unwrap()).unwrap();
        assert_eq!(view.map_version(), 2);
        assert_eq!(view.replica_on(0, 2), Some(replica_id(2, 2)));
        view.learn(&first.encode().unwrap()).unwrap();
        assert_eq!(view.map_version(), 2, "an older one");
        assert!(view.learn(b"x").is_err());
        assert_eq!(view.outlived(), None);
        let third = second.rejoin("n1", "n1-2").unwrap();
        view.learn(&third.encode().unwrap()).unwrap();
        assert_eq!(view.map_version(), 2);
        assert!(view.outlived().is_some());
    }
}
