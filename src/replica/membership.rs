//! Who belongs to a partition's group: replica ids, what a log remembers of the membership, and
//! what a change of it carries.
//!
//! A replica's id names its node: `node << 32 | generation`. A replica that lost its data comes
//! back under a higher generation, so an id never speaks twice.
//!
//! ```text
//! membership: version 1 (1), flags (1): 1 leave the joint state by itself, index (8) of the entry
//!             that made it, then four lists: voters, learners, outgoing voters, next learners;
//!             each a count (1) and that many ids (8 each)
//! change:     version 1 (1), steps (1), then for each its kind (1) and the replica (8);
//!             no steps: leave the joint state
//! ```

use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2};
use raft::prelude::ConfState;

const VERSION: u8 = 1;
const AUTO_LEAVE: u8 = 1;
/// Replicas that any list of a membership may have.
const MEMBERS_MAX: usize = 32;

/// A node's number in its cluster, from 1. It is never reused.
pub type NodeId = u32;

/// The id of a node's replica of this generation (from 1).
#[must_use]
pub fn replica_id(node: NodeId, generation: u32) -> u64 {
    u64::from(node) << 32 | u64::from(generation)
}

/// The node whose replica this is.
#[must_use]
pub fn node_of(replica: u64) -> NodeId {
    (replica >> 32) as u32
}

/// Whether a replica is of a later life of the same node than another one.
#[must_use]
pub(super) fn is_later(one: u64, other: u64) -> bool {
    node_of(one) != 0 && node_of(one) == node_of(other) && one > other
}

/// A group's members as of one entry.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Membership {
    /// The entry that made it; 0 for the first.
    pub index: u64,
    /// Its members.
    pub conf: ConfState,
}

impl Membership {
    /// A group's first members.
    #[must_use]
    pub fn of_voters(voters: &[u64]) -> Self {
        let mut conf = ConfState::default();
        conf.set_voters(voters.to_vec());
        Self { index: 0, conf }
    }

    /// Whether nobody is known to vote: that of a replica that waits for its first snapshot.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.conf.voters.is_empty()
    }

    /// As the log keeps it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let flags = if self.conf.auto_leave { AUTO_LEAVE } else { 0 };
        let mut out = vec![VERSION, flags];
        out.extend_from_slice(&self.index.to_le_bytes());
        for list in lists(&self.conf) {
            out.push(list.len() as u8);
            for id in list {
                out.extend_from_slice(&id.to_le_bytes());
            }
        }
        out
    }

    /// The reverse of [`Membership::encode`]; `None` if it is none of this version.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[version, flags], rest) = bytes.split_first_chunk::<2>()?;
        let (index, mut rest) = rest.split_first_chunk::<8>()?;
        if version != VERSION || flags & !AUTO_LEAVE != 0 {
            return None;
        }
        let mut conf = ConfState {
            auto_leave: flags & AUTO_LEAVE != 0,
            ..ConfState::default()
        };
        conf.set_voters(take_list(&mut rest)?);
        conf.set_learners(take_list(&mut rest)?);
        conf.set_voters_outgoing(take_list(&mut rest)?);
        conf.set_learners_next(take_list(&mut rest)?);
        let index = u64::from_le_bytes(*index);
        rest.is_empty().then_some(Self { index, conf })
    }

    /// Whether those of which `is` says so are a quorum, of a joint membership both quorums.
    #[must_use]
    pub fn has_quorum(&self, is: impl Fn(u64) -> bool) -> bool {
        let most = |voters: &[u64]| {
            let count = voters.iter().filter(|id| is(**id)).count();
            voters.is_empty() || count > voters.len() / 2
        };
        most(&self.conf.voters) && most(&self.conf.voters_outgoing)
    }

    /// Whether `replica` is the only one that votes.
    #[must_use]
    pub fn is_alone(&self, replica: u64) -> bool {
        self.conf.voters == [replica] && self.conf.voters_outgoing.is_empty()
    }

    /// Whether these replicas vote and there is nobody else: no change is under way or needed.
    #[must_use]
    pub fn is_settled_as(&self, wanted: &[u64]) -> bool {
        let conf = &self.conf;
        conf.learners.is_empty()
            && conf.voters_outgoing.is_empty()
            && conf.voters.len() == wanted.len()
            && conf.voters.iter().all(|id| wanted.contains(id))
    }

    /// Every member, voter or learner, once.
    #[must_use]
    pub fn members(&self) -> Vec<u64> {
        let mut all: Vec<u64> = lists(&self.conf).into_iter().flatten().copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// Whether a log's membership has one voter only; an empty one was never written, and belongs to a
/// group that began with one voter.
#[must_use]
pub fn commits_alone(bytes: &[u8]) -> bool {
    bytes.is_empty()
        || Membership::decode(bytes).is_some_and(|membership| {
            membership.conf.voters.len() == 1 && membership.conf.voters_outgoing.is_empty()
        })
}

/// The entry that made a log's membership; 0 if it was never written or cannot be understood.
#[must_use]
pub fn membership_index(bytes: &[u8]) -> u64 {
    Membership::decode(bytes).map_or(0, |membership| membership.index)
}

/// The change that brings a group's members nearer to the replicas that the cluster map wants for its
/// partition: first members that are not wanted and have no vote go, then a wanted one that is caught
/// up takes the vote of one that is not wanted (of the same node, if there is one), then wanted ones
/// are added without a vote. Each is one entry, and asked again after a crash or by the next leader
/// gives the next one: nothing else must be remembered. A joint state is left before anything else.
///
/// `None` if there is nothing to do, or nothing that can be done now. The group's own record rules:
/// where it has a newer replica of a node than is wanted, the map is an old one and asks for nothing.
#[must_use]
pub fn next_change(
    conf: &ConfState,
    wanted: &[u64],
    is_caught_up: impl Fn(u64) -> bool,
) -> Option<Change> {
    if !conf.voters_outgoing.is_empty() {
        return Some(Change::default());
    }
    let members = || conf.voters.iter().chain(&conf.learners).copied();
    let is_wanted = |id: &u64| wanted.contains(id);
    if wanted.is_empty()
        || wanted
            .iter()
            .any(|want| members().any(|id| is_later(id, *want)))
    {
        return None;
    }
    let one = |step| Some(Change { steps: vec![step] });
    if let Some(stale) = conf.learners.iter().find(|id| !is_wanted(id)) {
        return one(Step::Remove(*stale));
    }
    if let Some(&ready) = conf.learners.iter().find(|id| is_caught_up(**id)) {
        let mut unwanted = conf.voters.iter().filter(|id| !is_wanted(id)).copied();
        let same_node = unwanted.clone().find(|old| is_later(ready, *old));
        let replaced = same_node.or_else(|| unwanted.next()).map(Step::Remove);
        let steps = [Step::AddVoter(ready)].into_iter().chain(replaced);
        return Some(Change {
            steps: steps.collect(),
        });
    }
    let missing = wanted.iter().find(|want| members().all(|id| id != **want));
    missing.and_then(|missing| one(Step::AddLearner(*missing)))
}

fn lists(conf: &ConfState) -> [&[u64]; 4] {
    [
        &conf.voters,
        &conf.learners,
        &conf.voters_outgoing,
        &conf.learners_next,
    ]
}

fn take_list(bytes: &mut &[u8]) -> Option<Vec<u64>> {
    let (&count, rest) = bytes.split_first()?;
    if usize::from(count) > MEMBERS_MAX {
        return None;
    }
    let (ids, rest) = rest.split_at_checked(usize::from(count) * 8)?;
    *bytes = rest;
    Some(
        ids.as_chunks::<8>()
            .0
            .iter()
            .map(|id| u64::from_le_bytes(*id))
            .collect(),
    )
}

/// One step of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The replica votes from now on.
    AddVoter(u64),
    /// The replica is sent the log and has no vote.
    AddLearner(u64),
    /// The replica is no member any more.
    Remove(u64),
}

/// A change of a group's membership. Several steps are taken together, through a joint state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// Its steps; none: leave the joint state.
    pub steps: Vec<Step>,
}

impl Change {
    /// As an entry carries it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, self.steps.len() as u8];
        for step in &self.steps {
            let (kind, id) = match step {
                Step::AddVoter(id) => (1, id),
                Step::AddLearner(id) => (2, id),
                Step::Remove(id) => (3, id),
            };
            out.push(kind);
            out.extend_from_slice(&id.to_le_bytes());
        }
        out
    }

    /// The reverse of [`Change::encode`]; `None` if it is none of this version.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[version, count], rest) = bytes.split_first_chunk::<2>()?;
        let (steps, left) = rest.as_chunks::<9>();
        if version != VERSION
            || steps.len() != usize::from(count)
            || steps.len() > MEMBERS_MAX
            || !left.is_empty()
        {
            return None;
        }
        let steps = steps
            .iter()
            .map(|[kind, id @ ..]| {
                let id = u64::from_le_bytes(*id);
                match kind {
                    1 => Some(Step::AddVoter(id)),
                    2 => Some(Step::AddLearner(id)),
                    3 => Some(Step::Remove(id)),
                    _ => None,
                }
            })
            .collect::<Option<Vec<_>>>()?;
        Some(Self { steps })
    }

    /// As the `raft` crate wants it.
    #[must_use]
    pub(super) fn to_raft(&self) -> ConfChangeV2 {
        let mut change = ConfChangeV2::default();
        change.set_transition(ConfChangeTransition::Auto);
        let steps: Vec<ConfChangeSingle> = self
            .steps
            .iter()
            .map(|step| {
                let mut single = ConfChangeSingle::default();
                let (kind, id) = match *step {
                    Step::AddVoter(id) => (ConfChangeType::AddNode, id),
                    Step::AddLearner(id) => (ConfChangeType::AddLearnerNode, id),
                    Step::Remove(id) => (ConfChangeType::RemoveNode, id),
                };
                single.set_change_type(kind);
                single.node_id = id;
                single
            })
            .collect();
        change.set_changes(steps.into());
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(voters: &[u64], learners: &[u64], outgoing: &[u64]) -> ConfState {
        let mut conf = ConfState::from((voters.to_vec(), learners.to_vec()));
        conf.set_voters_outgoing(outgoing.to_vec());
        conf
    }

    fn change(conf: &ConfState, wanted: &[u64], caught_up: bool) -> Vec<Step> {
        next_change(conf, wanted, |_| caught_up).map_or(Vec::new(), |change| change.steps)
    }

    const A: u64 = 1 << 32 | 1;
    const B: u64 = 2 << 32 | 1;
    const C: u64 = 3 << 32 | 1;
    const C2: u64 = 3 << 32 | 2;
    const C3: u64 = 3 << 32 | 3;

    #[test]
    fn a_node_that_lost_its_data_is_swapped_step_by_step() {
        let wanted = [A, C2, B];
        assert_eq!(change(&conf(&[A, B, C], &[], &[]), &[A, B, C], true), []);
        let first = change(&conf(&[A, B, C], &[], &[]), &wanted, true);
        assert_eq!(first, [Step::AddLearner(C2)]);
        let behind = conf(&[A, B, C], &[C2], &[]);
        assert_eq!(change(&behind, &wanted, false), [], "it is not there yet");
        let swap = [Step::AddVoter(C2), Step::Remove(C)];
        assert_eq!(change(&behind, &wanted, true), swap);
        let joint = conf(&[A, B, C2], &[], &[A, B, C]);
        assert_eq!(
            next_change(&joint, &wanted, |_| true),
            Some(Change::default())
        );
        assert_eq!(change(&conf(&[A, B, C2], &[], &[]), &wanted, true), []);
        let is_settled = |conf| Membership { index: 1, conf }.is_settled_as(&wanted);
        assert!(is_settled(conf(&[B, A, C2], &[], &[])));
        for unsettled in [
            joint,
            behind,
            conf(&[A, B, C], &[], &[]),
            conf(&[A, B], &[], &[]),
        ] {
            assert!(!is_settled(unsettled));
        }
    }

    #[test]
    fn one_lost_again_meanwhile_is_begun_anew() {
        let begun = conf(&[A, B, C], &[C2], &[]);
        assert_eq!(change(&begun, &[A, B, C3], true), [Step::Remove(C2)]);
        let without = conf(&[A, B, C], &[], &[]);
        assert_eq!(change(&without, &[A, B, C3], true), [Step::AddLearner(C3)]);
    }

    #[test]
    fn an_old_map_undoes_nothing() {
        for group in [conf(&[A, B, C2], &[], &[]), conf(&[A, B, C], &[C2], &[])] {
            assert_eq!(change(&group, &[A, B, C], true), []);
        }
        assert_eq!(
            change(&conf(&[A, B], &[], &[]), &[], true),
            [],
            "none at all"
        );
    }

    #[test]
    fn a_blank_membership_commits_nothing_alone() {
        let blank = Membership::of_voters(&[]);
        assert!(blank.is_blank() && !blank.is_alone(A));
        let bytes = blank.encode();
        assert_eq!(Membership::decode(&bytes), Some(blank));
        assert!(!commits_alone(&bytes) && commits_alone(&[]));
    }
}
