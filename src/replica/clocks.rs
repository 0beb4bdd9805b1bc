//! What clocks tell: until when a leader has its lease, and how old what a follower shows may be.
//!
//! Every message carries its sender's clock, every answer the asker's own clock back: clocks of two nodes
//! are never compared.

use std::time::Duration;

use raft::eraftpb::{Message, MessageType};

use super::{Outgoing, Replica};
use crate::planted::{self, Bug};

impl Replica {
    /// Whether a read that was made before `now` saw the newest committed state: no other replica
    /// can have led until then.
    #[must_use]
    pub fn has_lease(&self, now: Duration) -> bool {
        self.sleep.note_use();
        self.holds_lease(now)
            || self.is_asleep() && self.leads() && planted::is(Bug::SleeperKeepsLease)
    }

    pub(super) fn holds_lease(&self, now: Duration) -> bool {
        self.serves()
            && (self.is_alone()
                || self.spoiled_term != self.raft.raft.term && now < self.lease.until())
    }

    pub(super) fn spoil_lease(&mut self) {
        self.spoiled_term = self.raft.raft.term;
        self.lease.drop_all();
    }

    /// How old what it has applied may be, at most, against the newest committed state.
    #[must_use]
    pub fn age(&self, now: Duration) -> Duration {
        self.sleep.note_use();
        if self.holds_lease(now) {
            return Duration::ZERO;
        }
        if self.fresh_as_of.is_zero() {
            return Duration::MAX;
        }
        now.saturating_sub(self.fresh_as_of)
    }

    pub(super) fn heard(&mut self, from: u64, stamp: Duration) {
        match self.stamps.iter_mut().find(|(id, _)| *id == from) {
            // The last one, not the highest: a peer's clock may have begun anew.
            Some((_, last)) => *last = stamp,
            None => self.stamps.push((from, stamp)),
        }
    }

    pub(super) fn note_freshness(&mut self) {
        if let Some((index, as_of)) = self.fresh_then
            && self.applied.index >= index
        {
            self.fresh_as_of = self.fresh_as_of.max(as_of);
            self.fresh_then = None;
        }
    }

    pub(super) fn stamped(&self, messages: Vec<Message>, now: Duration) -> Vec<Outgoing> {
        let heard = |peer| {
            let known = self.stamps.iter().find(|(id, _)| *id == peer);
            known.map_or(Duration::ZERO, |(_, stamp)| *stamp)
        };
        messages
            .into_iter()
            .map(|mut message| {
                let echo = match message.msg_type {
                    MessageType::MsgHeartbeat => {
                        // Free in a heartbeat: what the leader knows to be committed.
                        message.index = self.commit();
                        if self.holds_lease(now) {
                            heard(message.to)
                        } else {
                            Duration::ZERO
                        }
                    }
                    MessageType::MsgHeartbeatResponse => heard(message.to),
                    _ => Duration::ZERO,
                };
                Outgoing {
                    message,
                    stamp: now,
                    echo,
                }
            })
            .collect()
    }
}
