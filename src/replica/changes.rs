//! A change of the group's members, from its proposal to when the log remembers what it made of them.

use ringbolt_engine::entry::{Effect, LogId};
use ringbolt_engine::log::encode_payload;

use super::{Change, Membership, Replica, ReplicaError, Step, next_change};

impl Replica {
    /// Proposes a change of the membership. `None` if it cannot be made now: another one is under
    /// way.
    pub fn propose_change(&mut self, change: &Change, now_ms: u64) -> Option<LogId> {
        self.flush_batch();
        if !self.serves() || self.raft.raft.has_pending_conf() {
            return None;
        }
        self.wake();
        self.sleep.disturb();
        let head = self.next_head(None, now_ms);
        let bytes = change.encode();
        let payload = encode_payload(&head, &[Effect::Membership { change: &bytes }])?;
        self.raft
            .propose_conf_change(payload, change.to_raft())
            .ok()?;
        self.time_ms = head.time_ms;
        Some(head.id)
    }

    /// The change that brings the members nearer to `wanted`, if there is one and this replica can
    /// propose it now: see [`next_change`].
    #[must_use]
    pub fn next_change(&self, wanted: &[u64]) -> Option<Change> {
        if !self.serves() || self.raft.raft.has_pending_conf() {
            return None;
        }
        next_change(&self.membership.conf, wanted, |id| self.is_caught_up(id))
    }

    /// The next entry to be applied changes the membership. Returns what the log must remember before the
    /// entry is applied; [`Replica::change_saved`] follows, and no work is taken until then.
    ///
    /// # Errors
    /// If the change cannot be understood: the replica must stop.
    pub fn change_members(&mut self, id: LogId, change: &[u8]) -> Result<Vec<u8>, ReplicaError> {
        let fail = |what: String| ReplicaError {
            partition: self.partition,
            what,
        };
        let change = Change::decode(change)
            .ok_or_else(|| fail("a change of the membership is of another version".to_owned()))?;
        let conf = self
            .raft
            .apply_conf_change(&change.to_raft())
            .map_err(|error| fail(format!("a change of the membership: {error}")))?;
        self.raft.mut_store().set_conf(conf.clone());
        self.membership = Membership {
            index: id.index,
            conf,
        };
        self.saving = true;
        Ok(self.membership.encode())
    }

    /// The log remembers the last change of the membership, durably.
    pub fn change_saved(&mut self) {
        self.saving = false;
    }

    /// The entry of a change that the log remembers is applied: after [`Replica::change_saved`], or after
    /// a restart.
    ///
    /// Where a member is added, the entries in memory are forgotten, on every replica: so whoever leads
    /// can begin a new member by a snapshot only, which says who the members are.
    pub fn change_applied(&mut self, change: &[u8]) {
        let adds = |step: &Step| matches!(step, Step::AddLearner(_));
        self.forgets |= Change::decode(change).is_some_and(|change| change.steps.iter().any(adds));
    }
}
