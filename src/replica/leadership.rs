//! Who leads: elections, and leadership that is handed over.
//!
//! Each voter has a time of its own to stand for election. A leader that is not the preferred one hands
//! over once that one is there and has everything; one that is to lead nothing gives its leadership away.

use raft::StateRole;
use ringbolt_engine::entry::LogId;

use super::{ELECTION_TICKS_MAX, ELECTION_TICKS_MIN, NodeId, Replica, node_of};
use crate::planted::{self, Bug};

/// Entries that a member may lack and still count as caught up.
const NEARLY: u64 = 64;
/// How long a leader that is not the preferred one waits before it hands over.
pub(super) const HANDOVER_TICKS: u32 = 100;

impl Replica {
    /// Stands for election at once: right for a group's only voter.
    pub fn campaign(&mut self) {
        // It cannot be refused: a voter may always stand.
        let _stands = self.raft.campaign();
        self.set_timeout();
    }

    /// The replica that leads, as far as it knows; 0 for none.
    #[must_use]
    pub fn leader(&self) -> u64 {
        self.raft.raft.leader_id
    }

    /// Whether it leads.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.raft.raft.state == StateRole::Leader
    }

    /// Whether it may decide writes: it leads, has applied an entry of its own term, and is not
    /// handing over.
    #[must_use]
    pub fn serves(&self) -> bool {
        let raft = &self.raft.raft;
        raft.state == StateRole::Leader
            && raft.lead_transferee.is_none()
            && self.opening.is_some_and(|opening| {
                opening.term == raft.term
                    && (self.applied.index >= opening.index || planted::is(Bug::ServesTooEarly))
            })
    }

    /// How often it has seen another leader elected, since it was started.
    #[must_use]
    pub fn elections(&self) -> u64 {
        self.elections
    }

    /// Hands leadership over to `to`, which must be a voter. From now on this term has no lease.
    pub fn transfer(&mut self, to: u64) {
        self.flush_batch();
        self.wake();
        self.spoil_lease();
        self.raft.transfer_leader(to);
    }

    /// The replica that should lead if it can, as of now. Another leader hands over to it at its next
    /// tick.
    pub fn set_preferred(&mut self, preferred: Option<u64>) {
        if self.preferred != preferred {
            self.preferred = preferred;
            self.handover_ticks = HANDOVER_TICKS;
            if preferred != Some(self.id()) && self.leads() {
                self.wake();
            }
        }
    }

    /// Hands leadership, if it has any, to a voter that is there, has nearly everything, and is on a
    /// node that may lead. Whether it did.
    pub fn give_away(&mut self, may_lead: impl Fn(NodeId) -> bool) -> bool {
        if !self.serves() {
            return false;
        }
        let me = self.id();
        let voters = self.membership.conf.voters.iter().copied();
        let able = voters.filter(|&id| id != me && self.is_caught_up(id) && may_lead(node_of(id)));
        let mut able: Vec<u64> = able.collect();
        able.sort_unstable();
        // Not the leaderships of all partitions to the same node.
        let count = able.len().max(1);
        let to = able.get(usize::from(self.partition) % count).copied();
        if let Some(to) = to {
            self.transfer(to);
        }
        to.is_some()
    }

    /// Whether a member has stored nearly all that is committed.
    pub(super) fn is_caught_up(&self, id: u64) -> bool {
        let raft = &self.raft.raft;
        raft.prs().get(id).is_some_and(|progress| {
            progress.recent_active
                && progress.matched > 0
                && progress.matched + NEARLY >= raft.raft_log.committed
        })
    }

    /// Whether there is a member, or one that learns, that has yet to catch up.
    #[must_use]
    pub fn is_behind(&self, id: u64) -> bool {
        self.leads() && self.raft.raft.prs().get(id).is_some() && !self.is_caught_up(id)
    }

    pub(super) fn role_changed(&mut self) {
        let raft = &mut self.raft.raft;
        if raft.leader_id != 0 && raft.leader_id != self.leader {
            self.elections += 1;
        }
        self.leader = raft.leader_id;
        self.handover_ticks = 0;
        let leads = raft.state == StateRole::Leader;
        if leads && self.opening.is_none_or(|opening| opening.term != raft.term) {
            self.opening = Some(LogId {
                term: raft.term,
                index: raft.raft_log.last_index(),
            });
            self.lease.drop_all();
            if planted::is(Bug::CommitsOfOldTerms) {
                let last = raft.raft_log.last_index();
                raft.raft_log.commit_to(last - 1);
            }
        }
        if !leads {
            self.opening = None;
            self.lease.drop_all();
        }
    }

    /// Hands over to the preferred leader once it is there and has everything.
    pub(super) fn hand_over_if_due(&mut self) {
        let Some(preferred) = self.preferred else {
            return;
        };
        if !self.serves() || preferred == self.id() {
            return;
        }
        self.handover_ticks += 1;
        let is_voter = self.membership.conf.voters.contains(&preferred);
        if self.handover_ticks >= HANDOVER_TICKS && is_voter && self.is_caught_up(preferred) {
            self.handover_ticks = 0;
            self.transfer(preferred);
        }
    }

    /// Gives every voter a time of its own to stand for election, so that no two of them split the
    /// votes: the preferred leader first, the others in an order that changes with partition and term,
    /// apart by more ticks than clocks of the same pace can differ.
    pub(super) fn set_timeout(&mut self) {
        let voters = &self.membership.conf.voters;
        // By id: after a change of the members the lists of two of them may be in another order.
        let place = voters.iter().filter(|&&id| id < self.id()).count();
        let ticks = match voters.contains(&self.id()).then_some(place) {
            _ if self.preferred == Some(self.id()) => ELECTION_TICKS_MIN,
            Some(place) => {
                let mixed = (self.term() ^ u64::from(self.partition) << 48)
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let place = place.wrapping_add((mixed >> 32) as usize) % voters.len();
                let apart = (ELECTION_TICKS_MAX - ELECTION_TICKS_MIN - 1)
                    .checked_div(voters.len() - 1)
                    .map_or(1, |apart| apart.max(1));
                (ELECTION_TICKS_MIN + 1 + place * apart).min(ELECTION_TICKS_MAX - 1)
            }
            None => ELECTION_TICKS_MAX - 1,
        };
        self.raft.raft.set_randomized_election_timeout(ticks);
    }
}
