//! One partition's consensus on one core: a pure state machine.
//!
//! It is told what happened (a start, a write to propose, a record that became durable) and says
//! what must be logged and what may be applied. It has no clock, socket, file or randomness.
//!
//! This release has one voter per partition, so an entry is committed as soon as it is durable
//! here; terms, votes and indexes are kept and logged as in Raft all the same, so that more voters
//! need no new format:
//!
//! 1. a start is an election: the term rises by one and the vote for itself is logged;
//! 2. the new leader proposes an empty entry of its own term;
//! 3. it serves only once that entry is committed;
//! 4. `propose` numbers each write; `persisted` commits it; `applied` records it was applied.

use ringbolt_engine::entry::{EntryHead, LogId, PartitionId};

#[cfg(test)]
mod tests;

/// What a replica must never forget, as in Raft, beside its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vote {
    /// The highest term seen.
    pub term: u64,
    /// Whom it voted for in that term; 0 for nobody.
    pub vote: u64,
    /// The highest index known to be committed when this was written.
    pub commit: u64,
}

/// One partition's replica. Lives on exactly one core.
#[derive(Debug, Clone)]
pub struct Replica {
    partition: PartitionId,
    /// This replica's number; it votes by it.
    id: u64,
    term: u64,
    last: LogId,
    commit: u64,
    applied: LogId,
    /// The partition's time at the last entry proposed.
    time_ms: u64,
    /// The partition's time at the last entry applied.
    applied_time_ms: u64,
    /// The index of the empty entry of this term: serving begins when it is committed.
    opening: u64,
}

impl Replica {
    /// A replica as found in the log: `last` is its last entry, `applied` the last one that the
    /// tree has, `time_ms` the partition's time at `last`.
    #[must_use]
    pub fn recover(
        partition: PartitionId,
        id: u64,
        vote: Vote,
        last: LogId,
        applied: LogId,
        time_ms: u64,
    ) -> Self {
        Self {
            partition,
            id,
            term: vote.term.max(last.term),
            last,
            commit: vote.commit.max(applied.index),
            applied,
            time_ms,
            applied_time_ms: time_ms,
            opening: u64::MAX,
        }
    }

    /// Stands for election as the only voter. The returned vote must be logged before the entry
    /// that follows it from [`Replica::propose`], the empty one that opens the term.
    pub fn campaign(&mut self) -> Vote {
        self.term += 1;
        self.opening = self.last.index + 1;
        Vote {
            term: self.term,
            vote: self.id,
            commit: self.commit,
        }
    }

    /// Numbers the next entry. `now_ms` is the leader's wall clock: the partition's time never
    /// goes back, whatever the clock does.
    pub fn propose(&mut self, client: u64, sequence: u64, now_ms: u64) -> EntryHead {
        self.time_ms = self.time_ms.max(now_ms);
        self.last = LogId {
            term: self.term,
            index: self.last.index + 1,
        };
        EntryHead {
            partition: self.partition,
            id: self.last,
            client,
            sequence,
            time_ms: self.time_ms,
        }
    }

    /// Takes back the entry just proposed, which could not be logged.
    pub fn retract(&mut self, head: &EntryHead, before: LogId) {
        debug_assert_eq!(
            self.last, head.id,
            "only the newest proposal can be retracted"
        );
        self.last = before;
    }

    /// An entry is durable here. Returns the commit index that follows from it.
    pub fn persisted(&mut self, id: LogId) -> u64 {
        debug_assert!(
            id.index <= self.last.index,
            "durable before it was proposed"
        );
        self.commit = self.commit.max(id.index);
        self.commit
    }

    /// The tree has applied this entry.
    pub fn applied(&mut self, head: &EntryHead) {
        let id = head.id;
        debug_assert!(id.index <= self.commit, "applied before it was committed");
        debug_assert_eq!(id.index, self.applied.index + 1, "applied out of order");
        self.applied = id;
        self.applied_time_ms = head.time_ms;
    }

    /// This replica's number.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether it may serve: it leads, and has committed an entry of its own term.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.applied.index >= self.opening
    }

    /// The last entry the tree has applied: what a read sees.
    #[must_use]
    pub fn applied_id(&self) -> LogId {
        self.applied
    }

    /// The last entry proposed.
    #[must_use]
    pub fn last_id(&self) -> LogId {
        self.last
    }

    /// The partition's time as reads see it, in milliseconds since the Unix epoch: that of the
    /// last entry applied.
    #[must_use]
    pub fn applied_time_ms(&self) -> u64 {
        self.applied_time_ms
    }

    /// The time the next entry would carry.
    #[must_use]
    pub fn next_time_ms(&self, now_ms: u64) -> u64 {
        self.time_ms.max(now_ms)
    }
}
