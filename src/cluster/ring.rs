//! Where partitions should be: consistent hashing with virtual nodes, bounded loads, zones first.
//!
//! The target placement is a pure function of the nodes, the same on every machine and in every
//! build (XXH3 with seed 0, integers only):
//!
//! 1. Each node has as many points on a ring of 64 bits as its weight says, each partition one.
//!    Walking the ring from a partition's point gives the order in which it prefers the nodes.
//! 2. Each node has a **share**: how many replicas it ought to have, by weight, as far as zones allow
//!    ([`shares`]). It takes no more than its **cap**, the share and an eighth.
//! 3. For each partition, replica by replica: of the zones that have the fewest replicas of it so far
//!    (and a node left), the first node on the walk that is below its cap. So replicas are in
//!    distinct zones first, then on distinct nodes, and zones never differ by two where there is a
//!    choice. If all those nodes are at their caps, the least full of them takes it.
//! 4. What that leaves over a cap, or under the share less an eighth, is passed on from node to node
//!    ([`even`]).
//! 5. **Leaders**: each node ought to lead an equal part of each partition that it has. A flow with
//!    bounds ([`super::flow`]) picks for each partition one of its replicas so that every node, and
//!    every core of every node, leads its part rounded down or up. Such a choice always exists: the
//!    equal parts are one, in fractions, and the bounds are nested.
//!
//! The cap is what keeps the loads even with so few partitions, and it costs little movement: a node
//! that comes or goes moves its own share, and what overflows moves on along the ring.

use std::collections::{BTreeSet, VecDeque};

use ringbolt_wire::message::{NodeId, PartitionId};
use ringbolt_wire::slot::core_of;
use xxhash_rust::xxh3::xxh3_64;

use super::flow::Network;

/// The least and greatest weight of a node; it has as many virtual nodes.
pub const WEIGHTS: std::ops::RangeInclusive<u32> = 1..=10_000;
/// The weight of a node that names none.
pub const WEIGHT_DEFAULT: u32 = 100;
/// A node takes no more than its share and this part of it, rounded up.
pub const CAP_PART: u128 = 8;
/// Shares are counted in this fraction of a replica.
const PRECISION: u128 = 1 << 20;

/// A node that partitions may be placed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Its number; no two are alike.
    pub id: NodeId,
    /// Its cores; at least one.
    pub cores: u16,
    /// What fails together; nodes in different zones do not.
    pub zone: &'a str,
    /// Its capacity in proportion to the others', one of [`WEIGHTS`].
    pub weight: u32,
}

/// The nodes that each of `partitions` should be on, its preferred leader first: `replication` of
/// them, or all nodes if there are fewer. The order of `nodes` is of no account.
#[must_use]
pub fn place(partitions: u16, replication: u8, nodes: &[Candidate<'_>]) -> Vec<Vec<NodeId>> {
    let mut nodes = nodes.to_vec();
    nodes.sort_by_key(|node| node.id);
    let replicas = usize::from(replication).min(nodes.len());
    let zones = zone_numbers(&nodes);
    let shares = shares(partitions, replicas, &nodes, &zones);
    let ring = ring(&nodes);
    let mut loads = Loads::new(&shares);
    let mut chosen = Vec::with_capacity(usize::from(partitions));
    for partition in 0..partitions {
        let walk = walk(&ring, partition, nodes.len());
        chosen.push(choose(&walk, replicas, &zones, &mut loads));
    }
    even(&mut chosen, &zones, &mut loads);
    elect(partitions, &nodes, &mut chosen);
    let named = |replicas: Vec<usize>| replicas.into_iter().map(|node| nodes[node].id).collect();
    chosen.into_iter().map(named).collect()
}

/// The number of each node's zone.
fn zone_numbers(nodes: &[Candidate<'_>]) -> Vec<usize> {
    let names: BTreeSet<&str> = nodes.iter().map(|node| node.zone).collect();
    let number = |node: &Candidate<'_>| names.range(..node.zone).count();
    nodes.iter().map(number).collect()
}

/// How many replicas each node ought to have, in fractions of [`PRECISION`].
///
/// Zones give their nodes to a partition in rounds, one each; what the last round lacks nodes for is
/// shared by weight among the zones that can still give, at most one each. Within a zone, nodes share
/// by weight, at most every partition each.
fn shares(partitions: u16, replicas: usize, nodes: &[Candidate<'_>], zones: &[usize]) -> Vec<u128> {
    let whole = u128::from(partitions) * PRECISION;
    let count = zones.iter().max().map_or(0, |last| last + 1);
    let mut sizes = vec![0; count];
    let mut weights = vec![0; count];
    for (node, zone) in nodes.iter().zip(zones) {
        sizes[*zone] += 1;
        weights[*zone] += u128::from(node.weight);
    }
    let after = |rounds: usize| sizes.iter().map(|size| rounds.min(*size)).sum::<usize>();
    let rounds = (0..=replicas).take_while(|r| after(*r) <= replicas).last();
    let rounds = rounds.unwrap_or_default();
    let left = (replicas - after(rounds)) as u128 * whole;
    let able: Vec<u128> = sizes
        .iter()
        .zip(&weights)
        .map(|(size, weight)| if *size > rounds { *weight } else { 0 })
        .collect();
    let more = divide(left, &able, whole);
    let mut shares = vec![0; nodes.len()];
    for zone in 0..count {
        let members: Vec<usize> = (0..nodes.len()).filter(|n| zones[*n] == zone).collect();
        let own: Vec<u128> = members.iter().map(|n| nodes[*n].weight.into()).collect();
        let total = rounds.min(sizes[zone]) as u128 * whole + more[zone];
        for (node, share) in members.iter().zip(divide(total, &own, whole)) {
            shares[*node] = share;
        }
    }
    shares
}

/// Divides `total` by weight, at most `max` each: what is over the limit for one goes to the others.
fn divide(total: u128, weights: &[u128], max: u128) -> Vec<u128> {
    let mut parts = vec![0; weights.len()];
    let mut open: Vec<usize> = (0..weights.len()).filter(|i| weights[*i] > 0).collect();
    let mut left = total;
    loop {
        let weight: u128 = open.iter().map(|i| weights[*i]).sum();
        let (full, rest): (Vec<usize>, Vec<usize>) = open
            .iter()
            .partition(|i| left * weights[**i] >= max * weight);
        if full.is_empty() {
            for i in rest {
                parts[i] = left * weights[i] / weight;
            }
            return parts;
        }
        for i in &full {
            parts[*i] = max;
            left = left.saturating_sub(max);
        }
        open = rest;
        if open.is_empty() {
            return parts;
        }
    }
}

/// The points of all virtual nodes in order.
fn ring(nodes: &[Candidate<'_>]) -> Vec<(u64, usize)> {
    let mut points: Vec<(u64, usize)> = nodes
        .iter()
        .enumerate()
        .flat_map(|(index, node)| {
            (0..node.weight).map(move |number| (point(b'n', node.id, number), index))
        })
        .collect();
    points.sort_unstable();
    points
}

/// A point on the ring: of a node's virtual node, or of a partition.
fn point(kind: u8, id: u32, number: u32) -> u64 {
    let mut bytes = [kind; 9];
    bytes[1..5].copy_from_slice(&id.to_le_bytes());
    bytes[5..9].copy_from_slice(&number.to_le_bytes());
    xxh3_64(&bytes)
}

/// The nodes in the order in which a partition's walk round the ring meets them.
fn walk(ring: &[(u64, usize)], partition: PartitionId, nodes: usize) -> Vec<usize> {
    let start = point(b'p', partition.into(), 0);
    let at = ring.partition_point(|(point, _)| *point < start);
    let (before, after) = ring.split_at(at);
    let mut met = vec![false; nodes];
    let mut order = Vec::with_capacity(nodes);
    for (_, node) in after.iter().chain(before) {
        if !std::mem::replace(&mut met[*node], true) {
            order.push(*node);
            if order.len() == nodes {
                break;
            }
        }
    }
    order
}

/// How many replicas each node has, and ought to have.
struct Loads<'a> {
    shares: &'a [u128],
    loads: Vec<u128>,
}

impl<'a> Loads<'a> {
    fn new(shares: &'a [u128]) -> Self {
        Self {
            shares,
            loads: vec![0; shares.len()],
        }
    }

    /// The most a node takes.
    fn cap(&self, node: usize) -> u128 {
        let share = self.shares[node];
        (share + share / CAP_PART).div_ceil(PRECISION)
    }

    /// The least a node is left with.
    fn floor(&self, node: usize) -> u128 {
        let share = self.shares[node];
        (share - share / CAP_PART) / PRECISION
    }

    /// Whether it could take another one and still have no more than its share, rounded up.
    fn has_room(&self, node: usize) -> bool {
        self.loads[node] * PRECISION < self.shares[node]
    }

    /// Whether it could give one away and still have its share, rounded down.
    fn can_spare(&self, node: usize) -> bool {
        self.loads[node] * PRECISION > self.shares[node]
    }
}

/// Chooses a partition's nodes along its walk and adds them to the loads.
fn choose(walk: &[usize], replicas: usize, zones: &[usize], loads: &mut Loads<'_>) -> Vec<usize> {
    let mut chosen: Vec<usize> = Vec::with_capacity(replicas);
    while chosen.len() < replicas {
        let free = || walk.iter().copied().filter(|node| !chosen.contains(node));
        let fewest = free().map(|node| of_zone(&chosen, zones, node)).min();
        let fitting = || free().filter(|node| Some(of_zone(&chosen, zones, *node)) == fewest);
        let below_cap = |node: &usize| loads.loads[*node] < loads.cap(*node);
        let fullness =
            |node: &usize| loads.loads[*node] * PRECISION * PRECISION / loads.shares[*node].max(1);
        let found = fitting().find(below_cap);
        let Some(node) = found.or_else(|| fitting().min_by_key(fullness)) else {
            break;
        };
        loads.loads[node] += 1;
        chosen.push(node);
    }
    chosen
}

/// How many of `chosen` are in the zone of `node`.
fn of_zone(chosen: &[usize], zones: &[usize], node: usize) -> usize {
    let zone = zones[node];
    chosen.iter().filter(|other| zones[**other] == zone).count()
}

/// Mends what was chosen until no node is over its cap or under its floor: replicas are passed on
/// from node to node by the shortest chain from one that has more than its share to one that has less.
fn even(placement: &mut [Vec<usize>], zones: &[usize], loads: &mut Loads<'_>) {
    let nodes = zones.len();
    loop {
        let over = (0..nodes).find(|node| loads.loads[*node] > loads.cap(*node));
        let under = (0..nodes).find(|node| loads.loads[*node] < loads.floor(*node));
        let chain = match (over, under) {
            (Some(node), _) => chain(placement, zones, &[node], |end| loads.has_room(end)),
            (None, Some(node)) => {
                let rich: Vec<usize> = (0..nodes).filter(|n| loads.can_spare(*n)).collect();
                chain(placement, zones, &rich, |end| end == node)
            }
            (None, None) => return,
        };
        // Without a chain nothing more can be evened out.
        let Some(chain) = chain else { return };
        for pair in chain.windows(2) {
            let [from, to] = *pair else { return };
            // An earlier link of the chain may have used up what this one needs: the loop goes on.
            if let Some((partition, place)) = link(placement, zones, from, to) {
                placement[partition][place] = to;
                loads.loads[from] -= 1;
                loads.loads[to] += 1;
            }
        }
    }
}

/// The shortest chain of nodes from one of `starts` to one that `ends` says, each of which can pass a
/// replica to the next.
fn chain(
    placement: &[Vec<usize>],
    zones: &[usize],
    starts: &[usize],
    ends: impl Fn(usize) -> bool,
) -> Option<Vec<usize>> {
    let mut from = vec![None; zones.len()];
    let mut todo: VecDeque<usize> = starts.iter().copied().collect();
    while let Some(node) = todo.pop_front() {
        for next in 0..zones.len() {
            if starts.contains(&next)
                || from[next].is_some()
                || link(placement, zones, node, next).is_none()
            {
                continue;
            }
            from[next] = Some(node);
            if ends(next) {
                let mut chain = vec![next];
                while let Some(before) = chain.last().and_then(|last| from[*last]) {
                    chain.push(before);
                }
                chain.reverse();
                return Some(chain);
            }
            todo.push_back(next);
        }
    }
    None
}

/// A partition of which `from` can pass its replica to `to` so that zones stay as even: the partition
/// and the replica's place in its list.
fn link(
    placement: &[Vec<usize>],
    zones: &[usize],
    from: usize,
    to: usize,
) -> Option<(usize, usize)> {
    placement
        .iter()
        .enumerate()
        .find_map(|(partition, chosen)| {
            let place = chosen.iter().position(|node| *node == from)?;
            let even = zones[from] == zones[to]
                || of_zone(chosen, zones, to) < of_zone(chosen, zones, from);
            (even && !chosen.contains(&to)).then_some((partition, place))
        })
}

/// Moves each partition's leader to the front.
fn elect(partitions: u16, nodes: &[Candidate<'_>], placement: &mut [Vec<usize>]) {
    if nodes.is_empty() {
        return;
    }
    // Vertices: the partitions, each node's cores, the nodes, and one that closes the circle.
    let mut first_core = Vec::with_capacity(nodes.len());
    let mut vertex = placement.len();
    for node in nodes {
        first_core.push(vertex);
        vertex += usize::from(node.cores);
    }
    let (first_node, hub) = (vertex, vertex + nodes.len());
    // What each core and node ought to lead, in fractions of `replicas`.
    let mut due = vec![0; hub];
    let mut network = Network::new(hub + 1);
    let mut edges = Vec::with_capacity(placement.len());
    for (partition, replicas) in placement.iter().enumerate() {
        network.edge(hub, partition, 1, 1);
        let edge_of = |node: &usize| {
            let core = core_of(partition as PartitionId, partitions, nodes[*node].cores);
            let core = first_core[*node] + usize::from(core);
            due[core] += 1;
            due[first_node + node] += 1;
            network.edge(partition, core, 0, 1)
        };
        edges.push(replicas.iter().map(edge_of).collect::<Vec<_>>());
    }
    let replicas = placement.first().map_or(1, Vec::len).max(1) as u64;
    let bounded = |network: &mut Network, from: usize, to: usize| {
        network.edge(from, to, due[from] / replicas, due[from].div_ceil(replicas));
    };
    for (index, node) in nodes.iter().enumerate() {
        for core in 0..usize::from(node.cores) {
            bounded(&mut network, first_core[index] + core, first_node + index);
        }
        bounded(&mut network, first_node + index, hub);
    }
    let met = network.circulate();
    debug_assert!(met, "equal parts are a flow in fractions");
    for (replicas, edges) in placement.iter_mut().zip(edges) {
        if let Some(leader) = edges.iter().position(|edge| network.carried(*edge) == 1) {
            replicas[..=leader].rotate_right(1);
        }
    }
}

#[cfg(test)]
mod tests;
