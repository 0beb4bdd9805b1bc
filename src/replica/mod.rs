//! One partition's consensus on one core: a pure state machine over the `raft` crate.
//!
//! It is told what happened (a proposal, a message of a peer, a tick, a record that became
//! durable) and says what must be logged, sent and applied ([`Replica::take_work`]). It has no
//! clock, socket, file or randomness: moments are handed in, election timeouts follow from the term.
//!
//! 1. The leader numbers a write ([`Replica::propose`]) and keeps it in a batch; all writes of one
//!    turn of the core's loop become one proposal when the turn's work is taken.
//! 2. Work is taken: entries go to the shard's log, and, from a leader, to the followers at the
//!    same time. A follower's answer waits until what it answers for is durable.
//! 3. [`Replica::persisted`] tells what is durable; what a quorum has stored comes back as
//!    committed, to be applied in order.
//! 4. A new leader opens its term with an empty entry, and serves once that is applied. What an
//!    older leader had not brought to a quorum is overwritten: it never counted.
//!
//! Where nothing happens for a while, all of this sleeps ([`sleep`]).
//!
//! A replica that is its group's only voter goes the same way and never waits for anybody.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

use raft::eraftpb::{Entry, Message, MessageType};
use raft::prelude::HardState;
use raft::{Config, RawNode, StateRole};
use ringbolt_engine::entry::{EntryHead, LogId, PartitionId, WriteId};
use ringbolt_engine::log::RecoveredReplica;
use ringbolt_engine::terms::Terms;

use crate::planted::{self, Bug};

mod behind;
mod changes;
mod clocks;
mod leadership;
mod lease;
mod membership;
mod payload;
mod sleep;
mod store;
#[cfg(test)]
mod tests;
mod validate;

use lease::Lease;
pub use membership::{
    Change, Membership, NodeId, Step, commits_alone, membership_index, next_change, node_of,
    replica_id,
};
pub use payload::{from_payload, payload_of, snapshot_of};
use sleep::Sleep;
use store::{EntryStore, id_of};

pub use sleep::{SleepNote, SleepWord};
pub use store::OldRead;

/// How often [`Replica::tick`] is to be called. Never more often, also not to make up for a pause:
/// a follower's promise to a leader is counted in ticks.
pub const TICK: Duration = Duration::from_millis(50);
/// Ticks without a leader after which an election may begin.
pub const ELECTION_TICKS_MIN: usize = 6;
/// Ticks before which it will have begun.
const ELECTION_TICKS_MAX: usize = 12;
/// Bytes of entries in one message.
pub const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Messages with entries that a follower may not have answered.
const MESSAGES_IN_FLIGHT_MAX: usize = 256;

/// What a replica must never forget, as in Raft, beside its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vote {
    /// The highest term seen.
    pub term: u64,
    /// Whom it voted for in that term; 0 for nobody.
    pub vote: u64,
    /// The highest index known to be committed, and stored, when this was written.
    pub commit: u64,
}

/// A message for a peer. `stamp` is this node's clock as it was sent; `echo` is the peer's, as this
/// node last heard it, or zero.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// The message.
    pub message: Message,
    /// This node's clock.
    pub stamp: Duration,
    /// The peer's clock.
    pub echo: Duration,
}

/// What has to be done, in this order: log the vote, log the entries, send the messages (those for
/// later once all of it is durable), apply what is committed.
#[derive(Debug, Default)]
pub struct Work {
    /// To be given to [`Replica::persisted`] once vote and entries are durable.
    pub number: u64,
    /// A vote or term to log.
    pub vote: Option<Vote>,
    /// Entries to log: see [`Replica::entry`].
    pub append: Option<RangeInclusive<u64>>,
    /// The partition's state is to be replaced by the snapshot that was staged.
    pub snapshot: Option<(LogId, Membership)>,
    /// To be sent now.
    pub messages: Vec<Outgoing>,
    /// To be sent once vote and entries are durable.
    pub messages_later: Vec<Outgoing>,
    /// To be applied, in order.
    pub committed: Vec<Entry>,
    /// Rounds of [`Replica::read_round`] that a quorum answered, with the index to wait for.
    pub reads: Vec<(u64, u64)>,
    /// Whether the replica began or ceased to lead, or learnt of another leader.
    pub role_changed: bool,
}

/// How a replica begins.
#[derive(Debug, Clone)]
pub struct Start {
    /// The partition.
    pub partition: PartitionId,
    /// This replica's id, if the log knows none.
    pub id: u64,
    /// The group's first members, if the log knows none; nobody for a replica that waits for its
    /// first snapshot.
    pub voters: Vec<u64>,
    /// Whether this replica should lead if it can.
    pub preferred: Option<u64>,
    /// Bytes of applied entries kept in memory for followers a little behind.
    pub kept_bytes: usize,
    /// Ticks that nothing must have been asked of it before it sleeps.
    pub sleep_after: u32,
}

/// One partition's replica. Lives on exactly one core.
pub struct Replica {
    partition: PartitionId,
    raft: RawNode<EntryStore>,
    /// The replica that should lead if it can.
    preferred: Option<u64>,
    kept_bytes: usize,
    /// This turn's proposals, numbered, not yet with the `raft` crate.
    batch: Vec<Entry>,
    /// Bytes of what was proposed since work was taken.
    proposed_bytes: usize,
    membership: Membership,
    applied: LogId,
    /// The partition's time at the last entry applied.
    applied_time_ms: u64,
    /// The partition's time at the last entry proposed.
    time_ms: u64,
    /// The term led and the index of the empty entry that opens it.
    opening: Option<LogId>,
    lease: Lease,
    sleep: Sleep,
    /// The term in which leadership was being handed over: it has no lease any more, since the
    /// other may be told late.
    spoiled_term: u64,
    /// Peers' clocks as last heard.
    stamps: Vec<(u64, Duration)>,
    /// A follower's data is at least as new as this moment of its own clock.
    fresh_as_of: Duration,
    /// The same, once this index is applied.
    fresh_then: Option<(u64, Duration)>,
    ticks: u32,
    /// Ticks since it leads without being the preferred leader.
    handover_ticks: u32,
    rounds: u64,
    /// A snapshot is being installed: no work is taken meanwhile. Its rows may be seen from some moment
    /// before it is known to be in force.
    installing: Option<LogId>,
    /// A change of the members is being logged: no work is taken meanwhile.
    saving: bool,
    /// A member was added: see [`Replica::change_applied`].
    forgets: bool,
    elections: u64,
    leader: u64,
}

/// The group's state could not be taken over from the log.
#[derive(Debug, Clone, thiserror::Error)]
#[error("partition {partition}: {what}")]
pub struct ReplicaError {
    partition: PartitionId,
    what: String,
}

impl Replica {
    /// A replica as found in the log, or a new one.
    ///
    /// # Errors
    /// If the log's membership or entries cannot be understood.
    pub fn new(
        start: &Start,
        found: Option<&RecoveredReplica>,
        applied_time_ms: u64,
    ) -> Result<Self, ReplicaError> {
        let fail = |what: &str| ReplicaError {
            partition: start.partition,
            what: what.to_owned(),
        };
        let id = match found {
            Some(found) if found.hard.replica_id != 0 => found.hard.replica_id,
            _ => start.id,
        };
        let membership = match found {
            Some(found) if !found.membership.is_empty() => Membership::decode(&found.membership)
                .ok_or_else(|| fail("the log's membership record is of another version"))?,
            // Written before there were groups: it was alone.
            Some(found) if found.hard.replica_id != 0 && start.voters.len() == 1 => {
                Membership::of_voters(&[id])
            }
            _ => Membership::of_voters(&start.voters),
        };
        let applied = found.map_or_else(LogId::default, |found| found.applied);
        let mut hard = HardState::default();
        if let Some(found) = found {
            hard.term = found.hard.term.max(found.last.term);
            hard.vote = if hard.term == found.hard.term {
                found.hard.vote
            } else {
                0
            };
            hard.commit = found.hard.commit.min(found.last.index).max(applied.index);
        }
        let mut store = EntryStore::new(id, applied, hard, membership.conf.clone());
        let tail: Vec<Entry> = found
            .map_or(&[][..], |found| &found.tail)
            .iter()
            .map(|entry| from_payload(start.partition, entry.id, entry.payload.clone()))
            .collect();
        let follows = tail
            .iter()
            .zip(applied.index + 1..)
            .all(|(e, i)| e.index == i);
        if !follows
            || found.is_some_and(|found| found.last.index != applied.index + tail.len() as u64)
        {
            return Err(fail("the log's entries do not continue what is applied"));
        }
        store.append(&tail);
        let config = Config {
            id,
            election_tick: ELECTION_TICKS_MIN,
            heartbeat_tick: 1,
            applied: applied.index,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: MESSAGES_IN_FLIGHT_MAX,
            check_quorum: true,
            pre_vote: true,
            min_election_tick: ELECTION_TICKS_MIN,
            max_election_tick: ELECTION_TICKS_MAX,
            skip_bcast_commit: true,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raft = RawNode::new(&config, store, &logger)
            .map_err(|error| fail(&format!("the log's state is refused: {error}")))?;
        let mut replica = Self {
            partition: start.partition,
            raft,
            preferred: start.preferred,
            batch: Vec::new(),
            proposed_bytes: 0,
            membership,
            applied,
            kept_bytes: start.kept_bytes,
            applied_time_ms,
            time_ms: applied_time_ms,
            opening: None,
            lease: Lease::default(),
            sleep: Sleep::after(start.sleep_after),
            spoiled_term: 0,
            stamps: Vec::new(),
            fresh_as_of: Duration::ZERO,
            fresh_then: None,
            ticks: 0,
            handover_ticks: 0,
            rounds: 0,
            installing: None,
            saving: false,
            forgets: false,
            elections: 0,
            leader: 0,
        };
        replica.set_timeout();
        Ok(replica)
    }

    /// [`TICK`] has passed. Whether there may be work now.
    pub fn tick(&mut self) -> bool {
        if self.is_asleep() {
            return !self.sleeps_on();
        }
        self.flush_batch();
        self.ticks = self.ticks.saturating_add(1);
        if !self.is_restoring() {
            self.raft.tick();
        }
        self.set_timeout();
        self.hand_over_if_due();
        self.consider_sleep();
        true
    }

    /// A peer's message, with its clock and what it last heard of ours.
    pub fn step(&mut self, mut message: Message, stamp: Duration, echo: Duration) {
        self.flush_batch();
        if validate::is_outlived(&self.raft.raft, &message) {
            return;
        }
        if !validate::is_sound(&self.raft.raft, &message) {
            tracing::warn!(
                partition = self.partition,
                from = format_args!("{:x}", message.from),
                kind = ?message.msg_type,
                "a peer's message makes no sense here and is dropped"
            );
            return;
        }
        let is_vote = matches!(
            message.msg_type,
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote
        );
        // Whatever it promised a leader before it was restarted still holds.
        let promised = self.ticks <= ELECTION_TICKS_MIN as u32;
        if is_vote && promised && !planted::is(Bug::PromiseForgotten) {
            return;
        }
        if message.msg_type == MessageType::MsgTimeoutNow && self.is_restoring() {
            return;
        }
        let (kind, from, term) = (message.msg_type, message.from, message.term);
        let leader_commit = message.index;
        if kind == MessageType::MsgHeartbeat {
            message.index = 0;
        }
        self.disturbed_by(kind, from, term, message.entries.is_empty());
        // What is refused is refused by the protocol: an old term, a member no more.
        if self.raft.step(message).is_err() {
            return;
        }
        self.set_timeout();
        let raft = &self.raft.raft;
        if term != raft.term {
            return;
        }
        match kind {
            MessageType::MsgHeartbeat if raft.leader_id == from => {
                self.heard(from, stamp);
                if echo > Duration::ZERO && self.fresh_then.is_none() {
                    self.fresh_then = Some((leader_commit, echo));
                    self.note_freshness();
                }
            }
            MessageType::MsgHeartbeatResponse if raft.state == StateRole::Leader => {
                self.heard(from, stamp);
                let (me, conf) = (self.raft.raft.id, &self.membership.conf);
                self.lease.answered(from, echo, me, conf);
            }
            _ => {}
        }
    }

    /// The head of the entry that [`Replica::propose`] would make now. `now_ms` is the wall clock:
    /// the partition's time never goes back, whatever the clock does.
    #[must_use]
    pub fn next_head(&self, write: Option<WriteId>, now_ms: u64) -> EntryHead {
        EntryHead {
            partition: self.partition,
            id: LogId {
                term: self.raft.raft.term,
                index: self.last_index() + 1,
            },
            client: write.map_or(0, |write| write.client),
            sequence: write.map_or(0, |write| write.sequence),
            time_ms: self.next_time_ms(now_ms),
        }
    }

    /// Proposes an entry under the head that [`Replica::next_head`] gave for it. Only while
    /// [`Replica::serves`].
    pub fn propose(&mut self, head: &EntryHead, payload: Vec<u8>) {
        debug_assert!(self.serves(), "only a serving leader proposes");
        self.wake();
        self.sleep.disturb();
        self.time_ms = head.time_ms;
        let entry = Entry {
            term: head.id.term,
            index: head.id.index,
            data: payload.into(),
            ..Entry::default()
        };
        self.proposed_bytes += store::cost(&entry);
        self.batch.push(entry);
    }

    /// Asks a quorum whether this replica still leads; the round's number comes back in
    /// [`Work::reads`]. Only while [`Replica::serves`].
    pub fn read_round(&mut self) -> u64 {
        self.flush_batch();
        self.wake();
        self.sleep.disturb();
        self.rounds += 1;
        self.raft.read_index(self.rounds.to_le_bytes().to_vec());
        self.rounds
    }

    /// The work numbered `number`, and all before it, is durable.
    pub fn persisted(&mut self, number: u64) {
        self.raft.on_persist_ready(number);
        let stored = self.stored_index();
        if self.installing.is_none() && self.is_restoring() && stored >= self.applied.index {
            self.raft.advance_apply_to(self.applied.index);
        }
    }

    /// The snapshot of the last work taken is installed, durably: everything up to `id` is applied.
    /// [`Replica::persisted`] follows.
    pub fn installed(&mut self, id: LogId, time_ms: u64, membership: Membership) {
        self.installing = None;
        self.membership = membership;
        self.applied = id;
        self.applied_time_ms = time_ms;
        self.time_ms = self.time_ms.max(time_ms);
        self.note_freshness();
    }

    /// The tree has applied this entry.
    pub fn applied(&mut self, head: &EntryHead) {
        debug_assert_eq!(
            head.id.index,
            self.applied.index + 1,
            "applied out of order"
        );
        self.applied = head.id;
        self.raft.mut_store().note_term(head.id);
        self.applied_time_ms = self.applied_time_ms.max(head.time_ms);
    }

    /// What [`Work::committed`] had is applied.
    pub fn applied_all(&mut self) {
        self.time_ms = self.time_ms.max(self.applied_time_ms);
        // With the last entry of a joint change raft appends one that ends it: behind what has its index.
        self.flush_batch();
        self.raft.advance_apply_to(self.applied.index);
        let forgets = std::mem::take(&mut self.forgets);
        let kept = if self.is_alone() || forgets {
            0
        } else {
            self.kept_bytes
        };
        self.raft.mut_store().applied(self.applied, kept);
        self.note_freshness();
    }

    /// Whether work can be taken: not while a snapshot is installed or a change of the members logged.
    #[must_use]
    pub fn takes_work(&self) -> bool {
        !self.is_installing() && !self.saving
    }

    /// What has to be done now, if anything. `now` is this node's monotonic clock.
    pub fn take_work(&mut self, now: Duration) -> Option<Work> {
        self.flush_batch();
        if !self.takes_work() || !self.raft.has_ready() {
            return None;
        }
        let mut ready = self.raft.ready();
        self.proposed_bytes = 0;
        let mut work = Work {
            number: ready.number(),
            ..Work::default()
        };
        if ready.ss().is_some() {
            self.role_changed();
            work.role_changed = true;
        }
        if let Some(hard) = ready.hs()
            && ready.must_sync()
        {
            // What is committed may have yet to be logged, behind this, in place of what is no more: a log
            // that ended in between would take the latter for committed.
            work.vote = Some(Vote {
                term: hard.term,
                vote: hard.vote,
                commit: hard.commit.min(self.raft.raft.raft_log.persisted),
            });
        }
        if !ready.snapshot().is_empty() {
            let metadata = ready.snapshot().get_metadata();
            let id = LogId {
                term: metadata.term,
                index: metadata.index,
            };
            let conf = metadata.get_conf_state().clone();
            self.raft.mut_store().restore(id, conf.clone());
            self.installing = Some(id);
            let membership = Membership {
                index: id.index,
                conf,
            };
            work.snapshot = Some((id, membership));
        }
        if let (Some(first), Some(last)) = (ready.entries().first(), ready.entries().last()) {
            work.append = Some(first.index..=last.index);
            let entries = ready.take_entries();
            self.raft.mut_store().append(&entries);
        }
        let messages = ready.take_messages();
        work.messages = self.stamped(messages, now);
        let later = ready.take_persisted_messages();
        work.messages_later = self.stamped(later, now);
        work.committed = ready.take_committed_entries();
        for read in ready.take_read_states() {
            if let Ok(round) = read.request_ctx.try_into() {
                work.reads.push((u64::from_le_bytes(round), read.index));
            }
        }
        self.raft.advance_append_async(ready);
        Some(work)
    }

    /// An entry's payload, of one that was proposed, or is to be logged, or was not applied long
    /// ago.
    #[must_use]
    pub fn payload(&self, index: u64) -> Option<Cow<'_, [u8]>> {
        if let Some(entry) = self.raft.store().get(index) {
            return Some(payload_of(self.partition, entry));
        }
        let unstable = &self.raft.raft.raft_log.unstable;
        let entry = match index.checked_sub(unstable.offset) {
            Some(at) if (at as usize) < unstable.entries.len() => &unstable.entries[at as usize],
            Some(at) => self.batch.get(at as usize - unstable.entries.len())?,
            None => return None,
        };
        Some(payload_of(self.partition, entry))
    }

    /// The entry at `index`, as [`Work::append`] names it.
    #[must_use]
    pub fn entry(&self, index: u64) -> Option<(LogId, Cow<'_, [u8]>)> {
        let entry = self.raft.store().get(index)?;
        Some((id_of(entry), payload_of(self.partition, entry)))
    }

    /// The entries that were given out to be logged and are not applied.
    #[must_use]
    pub fn waiting(&self) -> RangeInclusive<u64> {
        self.applied.index + 1..=self.raft.store().last().index
    }

    /// Memory of the entries that are not applied, those just proposed included, in bytes.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.raft.store().waiting_bytes() + self.proposed_bytes
    }

    /// This replica's id.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.raft.raft.id
    }

    /// The newest term it has seen.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.raft.raft.term
    }

    /// Whether a snapshot is being installed.
    #[must_use]
    pub fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    /// The last entry of which a read may have seen something.
    #[must_use]
    pub fn shown_id(&self) -> LogId {
        self.installing.unwrap_or(self.applied)
    }

    /// Whether it is its group's only voter.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.membership.is_alone(self.id())
    }

    /// The last entry the tree has applied: what a read sees.
    #[must_use]
    pub fn applied_id(&self) -> LogId {
        self.applied
    }

    /// Takes over where the terms of what is applied begin, as the tree has noted.
    pub fn set_terms(&mut self, terms: Terms) {
        self.raft.mut_store().set_terms(terms);
    }

    /// Whether an entry was discarded: another one stands in its place, or its term is over.
    #[must_use]
    pub fn is_lost(&self, id: LogId) -> bool {
        self.raft.store().terms().is_lost(id, self.applied)
    }

    /// The highest index known to be committed.
    #[must_use]
    pub fn commit(&self) -> u64 {
        self.raft.raft.raft_log.committed
    }

    /// The index of the last entry proposed or received.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.raft.raft.raft_log.last_index() + self.batch.len() as u64
    }

    /// The index up to which this replica's own log is durable.
    #[must_use]
    pub fn stored_index(&self) -> u64 {
        self.raft.raft.raft_log.persisted
    }

    /// Members and what they are known to have stored: (replica, index, heard of lately).
    pub fn progress(&self) -> impl Iterator<Item = (u64, u64, bool)> + '_ {
        let tracker = self.raft.raft.prs();
        tracker
            .iter()
            .map(|(id, progress)| (*id, progress.matched, progress.recent_active))
    }

    /// How many of the voters are known to have stored everything up to `index`, and how many
    /// voters there are.
    #[must_use]
    pub fn stored_by(&self, index: u64) -> (usize, usize) {
        let voters = &self.membership.conf.voters;
        let tracker = self.raft.raft.prs();
        let stored = voters
            .iter()
            .filter(|id| tracker.get(**id).is_some_and(|p| p.matched >= index))
            .count();
        (stored, voters.len())
    }

    /// The group's members as of the last entry applied.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.membership
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
        match planted::is(Bug::TimeGoesBack) {
            true => now_ms,
            false => self.time_ms.max(now_ms),
        }
    }

    /// Gives this turn's proposals to the `raft` crate, as one.
    fn flush_batch(&mut self) {
        let Some(first) = self.batch.first() else {
            return;
        };
        debug_assert_eq!(
            first.index,
            self.raft.raft.raft_log.last_index() + 1,
            "entries are numbered as raft numbers them"
        );
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.raft.raft.id;
        message.set_entries(std::mem::take(&mut self.batch).into());
        // A leader that is not handing over takes every proposal, and nothing has been stepped
        // since these were numbered.
        let taken = self.raft.step(message);
        debug_assert!(taken.is_ok(), "a serving leader refused a proposal");
    }

    /// Whether it has stored something that is committed and not applied.
    #[must_use]
    pub fn has_to_apply(&self) -> bool {
        let log = &self.raft.raft.raft_log;
        log.applied < log.committed.min(log.persisted) && log.unstable.snapshot.is_none()
    }

    /// Whether a snapshot has taken the place of entries that the `raft` crate believes are still to
    /// be applied: it must not stand for election now, for which it would look at them.
    fn is_restoring(&self) -> bool {
        self.raft.raft.raft_log.applied < self.raft.store().truncated().index
    }
}
