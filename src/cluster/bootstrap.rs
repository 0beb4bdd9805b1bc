//! How nodes that start for the first time become one cluster.
//!
//! A node without a cluster asks every node of its `--peers`, in rounds; nobody's answer outlives its
//! round. [`decide`] is the whole rule, a pure function of a round's answers:
//!
//! 1. An answer that cannot be reconciled with what this node was told (another name, another list of
//!    peers, other partitions, a clock far off, two clusters): **refuse**, in words.
//! 2. Somebody belongs to a cluster already. If the newest map that was told knows this node with the
//!    folder it has, it **joins**: it is a founder that had not heard yet, or was taken in again. If
//!    with another folder, this node has lost its data, and never speaks under its old replica ids: it
//!    **claims** its place with every question from now on, until the leader of the map's partition
//!    has written a map that gives it new ids. While a member says that it **hears** the life that had the
//!    data, nothing is claimed ([`super::namesake`]). What it cannot be taken in with (another address, other
//!    cores) is refused in words.
//! 3. Somebody did not answer: **ask again**.
//! 4. All answered and all are empty, with the same folders as in the round before: the node whose
//!    name is the lowest **forms** the cluster, with the random id it proposes and the facts that all
//!    have told. The others **ask again**, and join once it has.
//!
//! So one node alone decides, by writing its own folder: no two nodes can form two clusters from the
//! same list, whatever is lost, late or restarted. And two nodes of three that lost their data never
//! make a rival: the third does not answer, or answers with its cluster. Two rounds are needed because
//! the answers of one are not of one moment: a peer may join after it answered, and the one it joined
//! be wiped before it answers. A folder that was empty in both rounds was empty between them; so at
//! that moment there was no cluster. A node that has set its data aside, because it was damaged or
//! rolled back, is not empty: it says which cluster it was of, never counts towards forming one, and
//! joins no other.
//!
//! The node must have its folder's identity on disk before it says anything here, and answers with
//! [`Answer::Member`] only once the map is on disk.

use std::collections::BTreeMap;
use std::time::Duration;

use ringbolt_wire::message::NodeId;
use ringbolt_wire::peer::Claim;
use rkyv::{Archive, Deserialize, Serialize};

use super::ClusterId;
use super::map::{ClusterMap, NodeFacts};
use crate::config::{Peer, show_peers};

/// How far a peer's clock may be from this node's. The partitions' time, which decides expiry, is
/// their leader's clock: over this, records would live visibly longer or shorter.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(10);
/// Largest encoded answer believed, in bytes.
const ENCODED_BYTES_MAX: usize = 5 << 20;

/// What a node without a cluster says of itself.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Introduction {
    /// Its place in the first map.
    pub facts: NodeFacts,
    /// The list it was started with, itself included, sorted by name.
    pub peers: Vec<Peer>,
    /// How many partitions it was told to make.
    pub partitions: u16,
    /// How many replicas of each it was told to keep.
    pub replication: u8,
    /// The cluster's id if this node is to form it: random, never 0.
    pub proposal: ClusterId,
    /// The cluster that the data was of that it has set aside; 0 if it never had any.
    pub rejoins: ClusterId,
    /// Its wall clock, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
}

/// What a node answers when it is asked.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It has no cluster yet.
    Empty(Introduction),
    /// It belongs to a cluster.
    Member(Member),
}

/// What a node that belongs to a cluster says.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// The encoded map of its cluster, as far as it knows it.
    pub map: Vec<u8>,
    /// Its wall clock, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// The other nodes that it has heard of in the last seconds, by number.
    pub heard: Vec<NodeId>,
}

/// What to do after a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Ask all peers again, after a pause.
    AskAgain,
    /// Write this first map durably: the cluster exists from then on.
    Form(ClusterMap),
    /// Belong to this cluster, as its node `node`.
    Join {
        /// The newest map that was told.
        map: ClusterMap,
        /// This node's number in it.
        node: NodeId,
    },
    /// This node's data is lost: ask to be taken in under new replica ids, and ask all peers again
    /// after a pause.
    Claim(ClusterId),
    /// This node's data is lost, and this member hears the life that had it: claim nothing, and ask
    /// all peers again after a pause.
    Heard(String),
    /// Do not start: these words say what does not fit and what to do.
    Refuse(String),
}

/// Whether a node that belongs to a cluster may start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// It may; with what does not fit, in words, if anything does not.
    Fits(Option<String>),
    /// Not yet, for this reason: others have to say who is right. Answer them, and ask again.
    Unclear(String),
    /// It may not, for this reason.
    Wrong(String),
}

impl Answer {
    /// The name of who answers.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Empty(introduction) => &introduction.facts.name,
            Self::Member(member) => &member.name,
        }
    }

    /// The wall clock of who answers.
    #[must_use]
    pub fn wall_ms(&self) -> u64 {
        match self {
            Self::Empty(introduction) => introduction.wall_ms,
            Self::Member(member) => member.wall_ms,
        }
    }

    /// The same answer at another time of the wall clock.
    #[must_use]
    pub fn at(mut self, now_ms: u64) -> Self {
        let (Self::Empty(Introduction { wall_ms, .. }) | Self::Member(Member { wall_ms, .. })) =
            &mut self;
        *wall_ms = now_ms;
        self
    }

    /// The answer as bytes.
    ///
    /// # Errors
    /// In words, if it cannot be encoded.
    pub fn encode(&self) -> Result<Vec<u8>, String> {
        rkyv::to_bytes::<rkyv::rancor::Error>(self)
            .map(|bytes| bytes.to_vec())
            .map_err(|error| error.to_string())
    }

    /// Reads an answer back, validated. The map in it is checked by [`decide`].
    ///
    /// # Errors
    /// In words, what is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > ENCODED_BYTES_MAX {
            return Err(format!("an answer of {} bytes", bytes.len()));
        }
        // The archive is validated at the alignment it was written with.
        let mut aligned = rkyv::util::AlignedVec::<16>::with_capacity(bytes.len());
        aligned.extend_from_slice(bytes);
        rkyv::from_bytes::<Self, rkyv::rancor::Error>(&aligned).map_err(|error| error.to_string())
    }
}

/// A node without a cluster that asks its peers, round after round, until one of the rules ends it.
#[derive(Debug)]
pub struct Search {
    own: Introduction,
    before: BTreeMap<String, Answer>,
    is_lost: bool,
}

impl Search {
    /// Before the first round.
    #[must_use]
    pub fn new(own: Introduction) -> Self {
        Self {
            own,
            before: BTreeMap::new(),
            is_lost: false,
        }
    }

    /// What the node says of itself.
    #[must_use]
    pub fn own(&self) -> &Introduction {
        &self.own
    }

    /// What the questions of the next round carry: a claim, once it is known that the data is lost.
    #[must_use]
    pub fn claim(&self) -> Option<Claim<'_>> {
        self.is_lost.then_some(Claim {
            name: &self.own.facts.name,
            folder: &self.own.facts.folder,
        })
    }

    /// Takes what a round has brought that began when this node's wall clock was `wall_ms`: the answers
    /// by the name that the node's list gives the peer.
    pub fn decide(&mut self, wall_ms: u64, answers: BTreeMap<String, Answer>) -> Decision {
        self.own.wall_ms = wall_ms;
        let decision = decide(&self.own, &self.before, &answers);
        match decision {
            Decision::Claim(_) => self.is_lost = true,
            Decision::Heard(_) => self.is_lost = false,
            _ => {}
        }
        self.before = answers;
        decision
    }
}

/// What a node without a cluster does after a round: `answers` are those of its peers, by the name
/// that its own list gives the peer, `before` those of the round before, all of which had come before
/// the first question of this one.
#[must_use]
pub fn decide(
    own: &Introduction,
    before: &BTreeMap<String, Answer>,
    answers: &BTreeMap<String, Answer>,
) -> Decision {
    match weigh(own, before, answers) {
        Ok(decision) => decision,
        Err(words) => Decision::Refuse(words),
    }
}

fn weigh(
    own: &Introduction,
    before: &BTreeMap<String, Answer>,
    answers: &BTreeMap<String, Answer>,
) -> Result<Decision, String> {
    let mut newest: Option<(&str, ClusterMap)> = None;
    let mut hears: Vec<(&str, &[NodeId])> = Vec::new();
    let mut facts = vec![own.facts.clone()];
    let mut was_empty = true;
    let mut is_new = own.rejoins == 0;
    for peer in own.peers.iter().filter(|peer| peer.name != own.facts.name) {
        let Some(answer) = answers.get(&peer.name) else {
            continue;
        };
        match answer {
            Answer::Empty(theirs) => {
                check_name(peer, &theirs.facts.name)?;
                check_clock(peer, own.wall_ms, theirs.wall_ms)?;
                check_empty(peer, own, theirs)?;
                facts.push(theirs.facts.clone());
                is_new &= theirs.rejoins == 0;
                was_empty &= matches!(
                    before.get(&peer.name),
                    Some(Answer::Empty(earlier)) if earlier.facts.folder == theirs.facts.folder
                );
            }
            Answer::Member(Member {
                name,
                map,
                wall_ms,
                heard,
            }) => {
                check_name(peer, name)?;
                check_clock(peer, own.wall_ms, *wall_ms)?;
                let map = ClusterMap::decode(map)
                    .map_err(|error| format!("the answer of {} is {error}", peer.name))?;
                hears.push((&peer.name, heard));
                if let Some((other, known)) = &newest
                    && known.cluster() != map.cluster()
                {
                    return Err(format!(
                        "{other} belongs to cluster {:016x} and {} to cluster {:016x}: one of them \
                         has the data folder of another cluster",
                        known.cluster(),
                        peer.name,
                        map.cluster(),
                    ));
                }
                if newest
                    .as_ref()
                    .is_none_or(|(_, known)| known.version() < map.version())
                {
                    newest = Some((&peer.name, map));
                }
            }
        }
    }
    if let Some((member, map)) = newest {
        return join(own, member, map, &hears);
    }
    // The list is sorted by name.
    let lowest = own
        .peers
        .first()
        .is_none_or(|first| first.name == own.facts.name);
    if facts.len() < own.peers.len() || !is_new || !was_empty || !lowest {
        return Ok(Decision::AskAgain);
    }
    ClusterMap::bootstrap(own.proposal, own.partitions, own.replication, facts)
        .map(Decision::Form)
        .map_err(|error| error.to_string())
}

fn join(
    own: &Introduction,
    member: &str,
    map: ClusterMap,
    hears: &[(&str, &[NodeId])],
) -> Result<Decision, String> {
    let name = &own.facts.name;
    let cluster = map.cluster();
    let Some(node) = map.node_named(name) else {
        return Err(format!(
            "{member} belongs to cluster {cluster:016x}, which has no node {name}: if that is the \
             wrong cluster, {member} has the data folder of another one",
        ));
    };
    if own.rejoins != 0 && own.rejoins != cluster {
        return Err(format!(
            "{member} belongs to cluster {cluster:016x}, the data that this node has set aside is of \
             cluster {:016x}: one of them has the data folder of another cluster",
            own.rejoins,
        ));
    }
    if node.facts.folder == own.facts.folder {
        let node = node.id;
        return Ok(Decision::Join { map, node });
    }
    let known = &node.facts;
    if known.address != own.facts.address {
        return Err(format!(
            "the cluster knows node {name} at {}, --peers has it at {}: a node that lost its data \
             comes back at the same address",
            known.address, own.facts.address,
        ));
    }
    // Peers look for a partition on the core that the map's number of cores gives it.
    if known.cores != own.facts.cores {
        return Err(format!(
            "the cluster knows node {name} with {} cores, it has {} now: start it with --cores {}",
            known.cores, own.facts.cores, known.cores,
        ));
    }
    if map.partitions() != own.partitions {
        return Err(format!(
            "the cluster has {} partitions, this node is set to {}: give it the same number",
            map.partitions(),
            own.partitions,
        ));
    }
    if let Some((member, _)) = hears.iter().find(|(_, heard)| heard.contains(&node.id)) {
        return Ok(Decision::Heard((*member).to_owned()));
    }
    Ok(Decision::Claim(cluster))
}

/// Whether a node that belongs to `cluster` may start, by what its peers answered. What may not fit is
/// another name, another cluster, a clock far off; it may be the other's fault as well as this node's:
///
/// - So many say so that this node and all the others are no majority: it is wrong. It could not serve
///   without one of them, or it is the one at fault. If it is for clocks alone, that is unclear: where the power
///   has come back a moment ago clocks are set soon, and a node that had gone for good would stay away.
/// - Fewer, and nobody says that it fits: that is unclear. One peer that is at fault must not keep a
///   majority of others from starting, and this node must not serve with it alone. So it waits for one
///   more, and answers meanwhile: of those that fit each other the second to come starts, and then the first.
/// - Fewer, and somebody fits: they are at fault, and it starts beside them.
#[must_use]
pub fn check_member(
    own: &Introduction,
    cluster: ClusterId,
    answers: &BTreeMap<String, Answer>,
) -> Place {
    let (mut fit, mut wrong) = (0, Vec::new());
    for peer in &own.peers {
        let Some(answer) = answers.get(&peer.name) else {
            continue;
        };
        let (is_it, wall_ms) = match answer {
            Answer::Empty(empty) => (check_name(peer, answer.name()), empty.wall_ms),
            Answer::Member(member) => (
                check_name(peer, answer.name())
                    .and_then(|()| check_cluster(peer, cluster, &member.map)),
                member.wall_ms,
            ),
        };
        match (is_it, check_clock(peer, own.wall_ms, wall_ms)) {
            (Err(words), _) => wrong.insert(0, (words, true)),
            (Ok(()), Err(words)) => wrong.push((words, false)),
            (Ok(()), Ok(())) => fit += 1,
        }
    }
    let nodes = own.peers.len();
    let is_minority = nodes.saturating_sub(wrong.len()) < nodes / 2 + 1;
    match wrong.into_iter().next() {
        Some((words, true)) if is_minority => Place::Wrong(words),
        Some((words, _)) if is_minority || fit == 0 => Place::Unclear(words),
        other => Place::Fits(other.map(|(words, _)| words)),
    }
}

fn check_cluster(peer: &Peer, own: ClusterId, map: &[u8]) -> Result<(), String> {
    let map = ClusterMap::decode(map)
        .map_err(|error| format!("the answer of {} is {error}", peer.name))?;
    if map.cluster() == own {
        return Ok(());
    }
    Err(format!(
        "{} at {} belongs to cluster {:016x}, this node's data folder to cluster {own:016x}: start it \
         with its own folder, or correct --peers",
        peer.name,
        peer.address,
        map.cluster(),
    ))
}

fn check_name(peer: &Peer, name: &str) -> Result<(), String> {
    if peer.name == name {
        return Ok(());
    }
    Err(format!(
        "the node at {} says that it is {name}, --peers calls it {}: start it with --node {}, or \
         correct the list on every node",
        peer.address, peer.name, peer.name,
    ))
}

fn check_clock(peer: &Peer, own_ms: u64, their_ms: u64) -> Result<(), String> {
    match clock_apart(&peer.name, their_ms.wrapping_sub(own_ms).cast_signed()) {
        Some(words) => Err(words),
        None => Ok(()),
    }
}

/// In words, that the clock of a node is too far ahead of this node's, or behind it; none if it is not.
#[must_use]
pub fn clock_apart(name: &str, ahead_ms: i64) -> Option<String> {
    let apart = Duration::from_millis(ahead_ms.unsigned_abs());
    (apart > CLOCK_SKEW_MAX).then(|| {
        format!(
            "the clock of {name} is {:.1} s {} this node's, {} s are allowed: set both by NTP",
            apart.as_secs_f64(),
            if ahead_ms > 0 { "ahead of" } else { "behind" },
            CLOCK_SKEW_MAX.as_secs(),
        )
    })
}

fn check_empty(peer: &Peer, own: &Introduction, theirs: &Introduction) -> Result<(), String> {
    if own.peers != theirs.peers {
        return Err(format!(
            "{} was started with --peers {}, this node with --peers {}: give every node the same \
             list",
            peer.name,
            show_peers(&theirs.peers),
            show_peers(&own.peers),
        ));
    }
    if own.facts.folder == theirs.facts.folder {
        return Err(format!(
            "{} has a copy of this node's data folder: give it an empty one",
            peer.name
        ));
    }
    let ours = (own.partitions, own.replication);
    if ours != (theirs.partitions, theirs.replication) {
        return Err(format!(
            "{} is set to {} partitions and {} replicas, this node to {} and {}: give every node \
             the same settings",
            peer.name, theirs.partitions, theirs.replication, own.partitions, own.replication,
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
