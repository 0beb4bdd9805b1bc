//! Which node and core a request goes to.
//!
//! A request that only the leader can serve goes to the leader, as far as it is known: by the
//! topology, or by what a node answered since. A read that any replica can serve goes to the
//! nearest, by the mean latency of its answers; replicas about as near as that share such reads.
//! Nodes that are suspect, or that failed this very request, come last: any node passes on what
//! it cannot serve itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use ringbolt_wire::message::{NodeId, NodeInfo, Topology};
use ringbolt_wire::partition_of;
use ringbolt_wire::slot::partition_of_prefix;

use crate::lane::Lane;
use crate::node::Node;

/// Nodes share reads while their latencies differ by no more than a quarter and this, in
/// microseconds.
const NEAR_MICROS: u64 = 100;
/// One read in this many goes to any replica, so that a node that has become near is noticed.
const EXPLORE_EVERY: usize = 64;

/// What a request is about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Route<'a> {
    /// This key.
    Key(&'a [u8]),
    /// All keys with this prefix, which may be of many partitions.
    Prefix(&'a [u8]),
    /// Keys of several partitions that were found to live together; `partition` is one of them.
    Together(Place, u16),
    /// Nothing in particular.
    Any,
}

/// A core of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) node: NodeId,
    pub(crate) core: u16,
}

/// Where a request is sent.
pub(crate) struct Pick {
    pub(crate) node: Arc<Node>,
    pub(crate) lane: Arc<Lane>,
    /// Whether the node is believed to lead the request's partition, if it has one.
    pub(crate) leads: Option<bool>,
    /// Whether every node has failed this request.
    pub(crate) again: bool,
}

/// A topology and the nodes that belong to it.
pub(crate) struct Routes {
    topology: Topology,
    /// By partition: who leads, as heard last; 0 for nobody knows.
    leaders: Box<[AtomicU32]>,
    /// In the topology's order.
    nodes: Vec<Arc<Node>>,
    next: AtomicUsize,
}

impl Routes {
    /// Takes over those nodes of `before` that are as they were.
    pub(crate) fn new(
        topology: Topology,
        before: Option<&Routes>,
        node: impl Fn(&NodeInfo) -> Arc<Node>,
    ) -> Routes {
        let old = |info: &NodeInfo| {
            let before = before?;
            let at = before.topology.nodes.iter().position(|old| {
                (old.id, old.cores, &old.address) == (info.id, info.cores, &info.address)
            })?;
            Some(before.nodes[at].clone())
        };
        Routes {
            leaders: topology
                .replicas
                .iter()
                .map(|replicas| AtomicU32::new(replicas.leader))
                .collect(),
            nodes: topology
                .nodes
                .iter()
                .map(|info| old(info).unwrap_or_else(|| node(info)))
                .collect(),
            topology,
            next: AtomicUsize::new(0),
        }
    }

    pub(crate) fn topology(&self) -> &Topology {
        &self.topology
    }

    pub(crate) fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    pub(crate) fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        let ids = &self.topology.nodes;
        let at = ids.binary_search_by_key(&id, |info| info.id).ok()?;
        Some(&self.nodes[at])
    }

    /// Whether partitions live where another topology says. Who leads them does not matter.
    pub(crate) fn is_as(&self, topology: &Topology) -> bool {
        let replicas = self.topology.replicas.iter();
        (self.topology.cluster, self.topology.version) == (topology.cluster, topology.version)
            && self.topology.nodes == topology.nodes
            && self.topology.replicas.len() == topology.replicas.len()
            && replicas
                .zip(&topology.replicas)
                .all(|(old, new)| old.nodes == new.nodes)
    }

    /// Hears who leads partitions; a node that does not know is not listened to.
    pub(crate) fn hear_leaders(&self, topology: &Topology) {
        for (leader, replicas) in self.leaders.iter().zip(&topology.replicas) {
            if replicas.leader != 0 {
                leader.store(replicas.leader, Ordering::Relaxed);
            }
        }
    }

    /// Hears who leads a request's partition.
    pub(crate) fn hear_leader(&self, route: Route<'_>, leader: NodeId) {
        if let Some(partition) = self.partition_of(route)
            && let Some(known) = self.leaders.get(usize::from(partition))
            && self.node(leader).is_some()
        {
            known.store(leader, Ordering::Relaxed);
        }
    }

    fn leader(&self, partition: u16) -> Option<&Arc<Node>> {
        let leader = self.leaders.get(usize::from(partition))?;
        self.node(leader.load(Ordering::Relaxed))
    }

    pub(crate) fn partition(&self, key: &[u8]) -> u16 {
        partition_of(key, self.topology.partitions())
    }

    /// The partition of all keys with this prefix, if there is one.
    pub(crate) fn partition_of_prefix(&self, prefix: &[u8]) -> Option<u16> {
        partition_of_prefix(prefix, self.topology.partitions())
    }

    fn partition_of(&self, route: Route<'_>) -> Option<u16> {
        match route {
            Route::Key(key) => Some(self.partition(key)),
            Route::Prefix(prefix) => self.partition_of_prefix(prefix),
            Route::Together(_, partition) => Some(partition),
            Route::Any => None,
        }
    }

    /// Where the partition of each key of a list is best read, so that few requests are needed.
    /// `anywhere`: by any replica, but for those of the partitions in `led`.
    pub(crate) fn places<'a>(
        &'a self,
        keys: &'a [&[u8]],
        anywhere: bool,
        led: &'a [u16],
    ) -> impl Iterator<Item = (Place, u16)> + 'a {
        // The nearest first; each list begins somewhere else among those.
        let mut order: Vec<&Arc<Node>> = Vec::new();
        while anywhere && order.len() < self.nodes.len() {
            let left = || {
                let taken = |node: &&Arc<Node>| order.iter().any(|taken| taken.id == node.id);
                self.nodes.iter().filter(move |node| !taken(node))
            };
            let usable = || left().filter(|node| !node.is_suspect());
            match self.near(usable).or_else(|| left().next()) {
                Some(next) => order.push(next),
                None => break,
            }
        }
        keys.iter().map(move |key| {
            let partition = self.partition(key);
            let holders = &self.topology.replicas[usize::from(partition)].nodes;
            let leader = || self.leader(partition).map(|node| node.id);
            let nearest = || {
                let mut order = order.iter().map(|node| node.id);
                order.find(|id| holders.contains(id))
            };
            let node = match anywhere && !led.contains(&partition) {
                true => nearest().or_else(leader),
                false => leader(),
            };
            let node = node.unwrap_or(holders[0]);
            let core = self.topology.core_of(node, partition).unwrap_or(0);
            (Place { node, core }, partition)
        })
    }

    /// Where to send a request. `anywhere`: any replica can serve it. `failed`: the nodes that have
    /// failed it.
    pub(crate) fn pick(&self, route: Route<'_>, anywhere: bool, failed: &[NodeId]) -> Pick {
        let partition = self.partition_of(route);
        let leader = partition.and_then(|partition| self.leader(partition));
        let untried = |node: &&Arc<Node>| !failed.contains(&node.id);
        let usable = |node: &&Arc<Node>| untried(node) && !node.is_suspect();
        let holders = || {
            let replicas = partition.and_then(|p| self.topology.replicas.get(usize::from(p)));
            let ids = replicas.map_or(&[][..], |replicas| &replicas.nodes);
            ids.iter().filter_map(|&id| self.node(id))
        };
        let together = match route {
            Route::Together(place, _) if failed.is_empty() => self.node(place.node),
            _ => None,
        };
        let first = match (together, anywhere) {
            (Some(node), _) => Some(node),
            (None, true) => None,
            (None, false) => leader,
        };
        let found = first
            .filter(usable)
            .or_else(|| self.near(|| holders().filter(usable)))
            .or_else(|| self.near(|| self.nodes.iter().filter(usable)))
            .or_else(|| first.filter(untried))
            .or_else(|| self.near(|| self.nodes.iter().filter(untried)));
        let again = found.is_none();
        // A topology has at least the node that told it.
        let node = found
            .or_else(|| self.near(|| self.nodes.iter()))
            .unwrap_or(&self.nodes[0])
            .clone();
        let core = match route {
            Route::Together(place, _) if place.node == node.id => Some(place.core),
            _ => partition.and_then(|partition| self.topology.core_of(node.id, partition)),
        };
        Pick {
            lane: node.lane(core).clone(),
            leads: partition.map(|_| leader.is_some_and(|leader| leader.id == node.id)),
            again,
            node,
        }
    }

    /// The nearest of some nodes; of several about as near, each in turn.
    fn near<'a, I>(&self, nodes: impl Fn() -> I) -> Option<&'a Arc<Node>>
    where
        I: Iterator<Item = &'a Arc<Node>>,
    {
        let mut all = nodes();
        let first = all.next()?;
        if all.next().is_none() {
            return Some(first);
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let nearest = nodes().map(|node| node.latency.micros()).min()?;
        let near_micros = match turn % EXPLORE_EVERY {
            0 => u64::MAX,
            _ => nearest + nearest / 4 + NEAR_MICROS,
        };
        let near = || nodes().filter(|node| node.latency.micros() <= near_micros);
        near().nth(turn % near().count().max(1))
    }
}
