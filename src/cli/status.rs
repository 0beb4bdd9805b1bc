//! `ringbolt status`: the nodes, who leads what, and what is behind.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;

use ringbolt_client::{MemberStatus, NodeId, NodeInfo, NodeStatus, ReplicaStatus, Role, Topology};
use serde::Serialize;

use super::args::ClientArgs;
use super::clocks::{Clocks, wall_ms};
use super::failure::{Answer, Outcome};
use super::output::{Format, Out};
use super::remote;

const EXAMPLES: &str = "\
Examples:
  The nodes of the cluster, how many partitions each leads, and partitions without a leader:
    ringbolt status

  Every partition: its leader, term and indexes, and how far each member is behind:
    ringbolt status --partitions

  The partitions without a leader, for a script:
    ringbolt status --format json | jq -c .leaderless

Each node is asked for what it knows itself; one that does not answer is shown as unreachable. The
lag of a node is the most entries that a leader has committed and the node has not stored.
Clocks that are more than 10 s apart are warned of.";

/// Shows the nodes, their partitions and how far each is behind.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Shows every partition too.
    #[arg(long)]
    partitions: bool,

    #[command(flatten)]
    pub(super) client: ClientArgs,
}

/// A node as shown.
#[derive(Serialize)]
struct NodeRow<'a> {
    id: NodeId,
    name: &'a str,
    address: &'a str,
    zone: &'a str,
    cores: u16,
    /// Whether it answered.
    reachable: bool,
    leads: usize,
    replicas: usize,
    /// Entries; none if no leader tells.
    lag: Option<u64>,
    /// The clock of the node, in milliseconds since the Unix epoch, and how far it is ahead of the clock in
    /// the middle of all nodes'.
    wall_ms: Option<u64>,
    clock_ahead_ms: Option<i64>,
    elections: u64,
    /// What replication has come to since the node's start: see [`COUNTERS`]. Empty if it does not answer.
    counters: BTreeMap<String, u64>,
}

/// The counters of a node that its row shows, as `ringbolt stats` names them.
const COUNTERS: &[&str] = &[
    "leaderships_total",
    "proposals_total",
    "proposal_batches_total",
    "peer_sent_bytes_total",
    "peer_received_bytes_total",
    "snapshots_sent_total",
    "snapshot_sent_bytes_total",
    "snapshots_installed_total",
];

impl<'a> NodeRow<'a> {
    /// A node that is alone tells no address.
    fn shown_address(&self) -> &'a str {
        match self.address {
            "" => "-",
            address => address,
        }
    }
}

/// A partition as its leader, or else the replica with the newest term, tells of it.
#[derive(Serialize)]
struct PartitionRow {
    partition: u16,
    /// 0 for none.
    leader: NodeId,
    /// Why it has none.
    why: Option<String>,
    term: u64,
    last: u64,
    commit: u64,
    applied: u64,
    /// Entries that each member has not stored of what is committed; empty without a leader. Of a
    /// node that is being replaced, those of its newest replica.
    lag: BTreeMap<NodeId, u64>,
    members: Vec<MemberRow>,
}

/// A member of a partition's group.
#[derive(Serialize)]
struct MemberRow {
    node: NodeId,
    /// How often the node has begun anew without its data, from 1.
    generation: u32,
    /// Whether it votes; otherwise it is being caught up.
    votes: bool,
}

#[derive(Serialize)]
struct Status<'a> {
    cluster: String,
    map_version: u64,
    nodes: Vec<NodeRow<'a>>,
    leaderless: Vec<u16>,
    /// What else is wrong, in words.
    warnings: Vec<String>,
    partitions: Vec<PartitionRow>,
}

impl Args {
    pub(super) fn run(self, out: &mut Out) -> Outcome {
        let client = remote::connect(&self.client)?;
        let topology = client.topology()?;
        let (mut told, mut clocks) = (BTreeMap::new(), BTreeMap::new());
        for node in &topology.nodes {
            // One that does not answer is part of the picture.
            if let Ok(status) = client.status(node.id) {
                // All by the same clock, whichever that is.
                let ahead_ms = status.wall_ms.wrapping_sub(wall_ms()).cast_signed();
                clocks.insert(node.id, ahead_ms);
                told.insert(node.id, status);
            }
        }
        let mut status = Status::new(&topology, &told, &Clocks::of(clocks));
        if self.client.output.format == Format::Json {
            for row in status.nodes.iter_mut().filter(|row| row.reachable) {
                let counters = client.stats_of(row.id).unwrap_or_default().into_iter();
                row.counters = counters
                    .filter(|(name, _)| COUNTERS.contains(&name.as_str()))
                    .collect();
            }
        }
        match self.client.output.format {
            Format::Json => out.json(&status)?,
            Format::Text => status.text(self.partitions, out)?,
        }
        Ok(Answer::Yes)
    }
}

impl<'a> Status<'a> {
    fn new(topology: &'a Topology, told: &BTreeMap<NodeId, NodeStatus>, clocks: &Clocks) -> Self {
        let mut partitions: Vec<PartitionRow> = (0..topology.partitions())
            .map(|partition| partition_row(partition, told))
            .collect();
        for row in partitions.iter_mut().filter(|row| row.leader == 0) {
            row.why = Some(why_leaderless(&row.members, topology, told));
        }
        let nodes = topology.nodes.iter();
        Self {
            cluster: format!("{:016x}", topology.cluster),
            map_version: topology.version,
            nodes: nodes
                .map(|node| NodeRow {
                    clock_ahead_ms: clocks.ahead_ms(node.id),
                    ..node_row(node, told, &partitions)
                })
                .collect(),
            leaderless: partitions
                .iter()
                .filter(|row| row.leader == 0)
                .map(|row| row.partition)
                .collect(),
            warnings: clocks.warnings(topology),
            partitions,
        }
    }

    fn text(&self, partitions: bool, out: &mut Out) -> std::io::Result<()> {
        let width = |head: &str, text: fn(&NodeRow<'a>) -> &'a str| {
            let longest = self.nodes.iter().map(|node| text(node).len()).max();
            longest.unwrap_or(0).max(head.len())
        };
        let name = width("name", |node| node.name);
        let address = width("address", NodeRow::shown_address);
        writeln!(
            out,
            "{:>4}  {:name$}  {:address$}  {:>5}  {:>5}  {:>8}  {:>6}",
            "node", "name", "address", "cores", "leads", "replicas", "lag"
        )?;
        for node in &self.nodes {
            write!(
                out,
                "{:>4}  {:name$}  {:address$}  {:>5}  ",
                node.id,
                node.name,
                node.shown_address(),
                node.cores
            )?;
            if node.reachable {
                let lag = node.lag.map_or("-".to_owned(), |lag| lag.to_string());
                writeln!(out, "{:>5}  {:>8}  {lag:>6}", node.leads, node.replicas)?;
            } else {
                writeln!(out, "unreachable")?;
            }
        }
        let all = self.partitions.len();
        match self.leaderless.len() {
            0 => writeln!(out, "{all} partitions, each with a leader")?,
            without => writeln!(out, "{all} partitions, {without} without a leader:")?,
        }
        for (why, partitions) in self.reasons() {
            writeln!(out, "  {why}: {}", partitions.join(" "))?;
        }
        for warning in &self.warnings {
            writeln!(out, "warning: {warning}")?;
        }
        if partitions {
            self.partitions(out)?;
        }
        Ok(())
    }

    /// Why partitions have no leader, and which.
    fn reasons(&self) -> BTreeMap<&str, Vec<String>> {
        let mut reasons: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for row in &self.partitions {
            if let Some(why) = &row.why {
                let same = reasons.entry(why).or_default();
                same.push(row.partition.to_string());
            }
        }
        reasons
    }

    fn partitions(&self, out: &mut Out) -> std::io::Result<()> {
        writeln!(
            out,
            "{:>9}  {:>6}  {:>6}  {:>10}  {:>10}  lag by node",
            "partition", "leader", "term", "committed", "applied"
        )?;
        for row in &self.partitions {
            let leader = match row.leader {
                0 => "-".to_owned(),
                leader => leader.to_string(),
            };
            let lag: Vec<String> = row
                .lag
                .iter()
                .map(|(id, lag)| format!("{id}:{lag}"))
                .collect();
            writeln!(
                out,
                "{:>9}  {leader:>6}  {:>6}  {:>10}  {:>10}  {}",
                row.partition,
                row.term,
                row.commit,
                row.applied,
                lag.join(" ")
            )?;
        }
        Ok(())
    }
}

fn partition_row(partition: u16, told: &BTreeMap<NodeId, NodeStatus>) -> PartitionRow {
    let of_node = |status: &NodeStatus| {
        let found = status
            .replicas
            .iter()
            .find(|replica| replica.partition == partition);
        found.cloned().map(|replica| (status.here, replica))
    };
    let known: Vec<(NodeId, ReplicaStatus)> = told.values().filter_map(of_node).collect();
    // An old leader that has not noticed yet has an older term.
    let newest = known
        .iter()
        .max_by_key(|(_, replica)| (replica.term, replica.role as u8));
    let Some((node, replica)) = newest else {
        return PartitionRow {
            partition,
            leader: 0,
            why: None,
            term: 0,
            last: 0,
            commit: 0,
            applied: 0,
            lag: BTreeMap::new(),
            members: Vec::new(),
        };
    };
    let leads = replica.role == Role::Leader;
    let members = replica.members.iter().filter(|_| leads);
    PartitionRow {
        partition,
        leader: if leads { *node } else { 0 },
        why: None,
        term: replica.term,
        last: replica.last,
        commit: replica.commit,
        applied: replica.applied,
        // They come by replica id, so the newest of a node comes last.
        lag: members
            .map(|member| (member.node(), replica.commit.saturating_sub(member.stored)))
            .collect(),
        members: replica.members.iter().map(member_row).collect(),
    }
}

/// Why a partition with these members has no leader, as far as what the nodes have told goes.
fn why_leaderless(
    members: &[MemberRow],
    topology: &Topology,
    told: &BTreeMap<NodeId, NodeStatus>,
) -> String {
    // A node that is being replaced votes twice for a while.
    let voters: BTreeSet<NodeId> = members
        .iter()
        .filter(|member| member.votes)
        .map(|member| member.node)
        .collect();
    if voters.is_empty() {
        return "none of the nodes that hold it answers".to_owned();
    }
    let silent: Vec<&str> = topology
        .nodes
        .iter()
        .filter(|node| voters.contains(&node.id) && !told.contains_key(&node.id))
        .map(|node| node.name.as_str())
        .collect();
    let quorum = voters.len() / 2 + 1;
    match quorum.checked_sub(voters.len() - silent.len()) {
        None | Some(0) => {
            "most of its nodes answer, so an election is under way, or they do not reach \
                           each other"
                .to_owned()
        }
        Some(missing) => format!(
            "no quorum, {} of its {} nodes do not answer ({}) and {missing} of them must be back with \
             its data",
            silent.len(),
            voters.len(),
            silent.join(", ")
        ),
    }
}

fn member_row(member: &MemberStatus) -> MemberRow {
    MemberRow {
        node: member.node(),
        generation: member.replica as u32,
        votes: member.votes,
    }
}

fn node_row<'a>(
    node: &'a NodeInfo,
    told: &BTreeMap<NodeId, NodeStatus>,
    partitions: &[PartitionRow],
) -> NodeRow<'a> {
    let own = told.get(&node.id);
    let replicas = own.map_or(&[][..], |status| &status.replicas);
    NodeRow {
        id: node.id,
        name: &node.name,
        address: &node.address,
        zone: &node.zone,
        cores: node.cores,
        reachable: own.is_some(),
        leads: partitions
            .iter()
            .filter(|row| row.leader == node.id)
            .count(),
        replicas: replicas.len(),
        lag: partitions
            .iter()
            .filter_map(|row| row.lag.get(&node.id).copied())
            .max(),
        wall_ms: own.map(|status| status.wall_ms),
        clock_ahead_ms: None,
        elections: replicas.iter().map(|replica| replica.elections).sum(),
        counters: BTreeMap::new(),
    }
}
