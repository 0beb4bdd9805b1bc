//! Writes: decided ([`super::decide`]), logged as effects, answered once committed.
//!
//! A put or delete without a condition needs no look at what is there: it is numbered and encoded
//! into the log's open group at once. Anything else is decided against the newest pending effect
//! on its key, or else the applied state; where that is on disk, a task reads it into the cache
//! and the decision is made again from the start, so that it always rests on one moment.
//!
//! A decision that rests on a pending effect is answered only once that effect is committed, a
//! failure too: such answers ride in the queue of pending writes.

use std::rc::Rc;

use ringbolt_engine::entry::{Effect, EntryHead, KeyspaceId, PartitionId, WriteId};
use ringbolt_engine::env::{Env, TaskClass};
use ringbolt_engine::log::{AppendError, encode_payload};
use ringbolt_engine::row::RowKeyBuf;
use ringbolt_engine::tree::Lookup;
use ringbolt_wire::message::{
    Ack, ErrorCode, KEYSPACE_DEFAULT, ReadLevel, Token, WriteOp, WriteOps, WriteOptions,
};

use super::decide::{Decided, Verdict};
use super::mail::{Origin, Scope};
use super::pending::{KeyHashes, Outcome, Pending};
use super::refuse::{not_leader, refusal_of};
use super::reply::Refusal;
use super::trace::{Op, Wait};
use super::writers::{Done, write_id};
use super::{Inner, micros};
use crate::planted::{self, Bug};

/// How often a decision may find its key's state pushed out of the cache again before it gives up.
const DECISION_ATTEMPTS: usize = 16;

impl<E: Env> Inner<E> {
    /// Proposes an entry, for a write if a client has numbered it: numbers it and encodes it, once for
    /// log, peers and tree. What the write came to is the last effect.
    pub(super) fn propose(
        &self,
        partition: PartitionId,
        write: Option<WriteId>,
        effects: &[Effect<'_>],
    ) -> Result<EntryHead, Refusal> {
        let mut replicas = self.replicas.borrow_mut();
        let replica = match replicas.get_mut(usize::from(partition)) {
            Some(Some(replica)) if replica.serves() => replica,
            other => return Err(not_leader(partition, other.and_then(|r| r.as_ref()))),
        };
        let head = replica.next_head(write, self.clock.get().wall_ms);
        let Some(payload) = encode_payload(&head, effects) else {
            return Err(refusal_of(AppendError::TooLarge));
        };
        let waiting = replica.waiting_bytes();
        let is_over = waiting > 0 && waiting + payload.len() > self.uncommitted_bytes_max;
        if is_over || self.is_blocked(partition) {
            return Err(refusal_of(AppendError::Full));
        }
        let room = self.engine.log().has_room(payload.len());
        room.map_err(refusal_of)?;
        replica.propose(&head, payload);
        if let Some(write) = write {
            let outcome = match effects.last() {
                Some(Effect::Outcome { outcome }) => outcome,
                _ => &[][..],
            };
            let mut writers = self.engine.tree().writers(partition);
            writers.proposed(write, head.id, outcome, self.clock.get().now);
        }
        self.to_drive(partition);
        Ok(head)
    }

    /// Queues what is to be answered once a proposal is committed.
    pub(super) fn await_commit(&self, partition: PartitionId, pending: Pending) {
        if pending.ack == Ack::Leader {
            self.leader_acks.set(self.leader_acks.get() + 1);
        }
        self.pending.borrow_mut()[usize::from(partition)].push(pending);
    }

    /// One write. `false` if it is to be decided later, after a look at the disk.
    pub(super) fn write(
        self: &Rc<Self>,
        mut origin: Origin,
        partition: PartitionId,
        keyspace: KeyspaceId,
        options: &WriteOptions,
        op: &WriteOp<'_>,
        bytes: &[u8],
    ) -> bool {
        origin.trace.op = match op {
            WriteOp::Put { .. } => Op::Put,
            WriteOp::Delete { .. } => Op::Delete,
            WriteOp::Increment { .. } => Op::Increment,
            WriteOp::Touch { .. } => Op::Touch,
        };
        let checked = self
            .check_leads(partition, keyspace)
            .and_then(|()| self.check_options(partition, options));
        if let Err(refusal) = checked {
            self.refuse(&origin, &refusal);
            return true;
        }
        if self.answer_repeat(origin, partition, options) {
            return true;
        }
        if let Err(refusal) = self.check_op(partition, op) {
            self.refuse(&origin, &refusal);
            return true;
        }
        let mut arena = Vec::new();
        let decided = match self.decide(partition, keyspace, op, &mut arena) {
            Ok(decided) => decided,
            Err(verdict) => {
                let now = !matches!(verdict, Verdict::NeedsDisk | Verdict::Expiring);
                self.not_done(origin, partition, verdict, &[op.key()], bytes, keyspace);
                return now;
            }
        };
        let effect = decided.effect(keyspace, &arena);
        let done = match decided.counter() {
            Some(value) => Done::Counter { value },
            None => Done::Written {
                existed: decided.existed(),
            },
        };
        let outcome = done.outcome_of(options);
        let effects = [effect, Effect::Outcome { outcome: &outcome }];
        let effects = &effects[..1 + usize::from(!outcome.is_empty())];
        let head = match self.propose(partition, write_id(options), effects) {
            Ok(head) => head,
            Err(refusal) => {
                self.refuse(&origin, &refusal);
                return true;
            }
        };
        let outcome = match decided.counter() {
            Some(value) => Outcome::Counter { origin, value },
            None => Outcome::Written {
                origin,
                existed: decided.existed(),
            },
        };
        let pending = Pending {
            id: head.id,
            keys: KeyHashes::One(self.hash(keyspace, op.key())),
            outcome,
            ack: ack_of(options, std::slice::from_ref(&decided)),
            bytes: origin.cost,
        };
        self.await_commit(partition, pending);
        true
    }

    /// Removes every record of a keyspace in one partition. If another core asks
    /// ([`Scope::Share`]) the keyspace was dropped, and is forgotten here.
    pub(super) fn clear(
        &self,
        origin: Origin,
        scope: Scope,
        partition: PartitionId,
        keyspace: KeyspaceId,
    ) {
        let of = match scope {
            Scope::Whole => keyspace,
            Scope::Share | Scope::Node => {
                self.keyspaces.borrow_mut().remove(keyspace);
                KEYSPACE_DEFAULT
            }
        };
        let everything = Effect::DeleteRange {
            keyspace,
            from: &[],
            to: &[],
        };
        let proposed = self
            .check_leads(partition, of)
            .and_then(|()| self.check_tables())
            .and_then(|()| self.propose(partition, None, &[everything]));
        match proposed {
            Ok(head) => {
                let outcome = Outcome::Written {
                    origin,
                    existed: None,
                };
                let pending = Pending {
                    id: head.id,
                    keys: KeyHashes::All,
                    outcome,
                    ack: Ack::Quorum,
                    bytes: 0,
                };
                self.await_commit(partition, pending);
            }
            Err(refusal) => self.refuse(&origin, &refusal),
        }
    }

    /// Many writes, all or none.
    pub(super) fn batch(
        self: &Rc<Self>,
        origin: Origin,
        partition: PartitionId,
        keyspace: KeyspaceId,
        options: &WriteOptions,
        ops: &WriteOps<'_>,
        bytes: &[u8],
    ) {
        let checked = self
            .check_leads(partition, keyspace)
            .and_then(|()| self.check_options(partition, options));
        if let Err(refusal) = checked {
            return self.refuse(&origin, &refusal);
        }
        if self.answer_repeat(origin, partition, options) {
            return;
        }
        if let Err(refusal) = self.check_batch(partition, ops) {
            return self.refuse(&origin, &refusal);
        }
        let mut arena = Vec::new();
        let mut decided = Vec::with_capacity(ops.len());
        for op in ops.iter() {
            match self.decide(partition, keyspace, &op, &mut arena) {
                Ok(one) => decided.push(one),
                Err(verdict) => {
                    let keys: Vec<&[u8]> = ops.iter().map(|op| op.key()).collect();
                    return self.not_done(origin, partition, verdict, &keys, bytes, keyspace);
                }
            }
        }
        let counters: Box<[_]> = decided.iter().map(Decided::counter).collect();
        let outcome = Done::of_batch(&counters).outcome_of(options);
        let effects: Vec<Effect<'_>> = decided
            .iter()
            .map(|one| one.effect(keyspace, &arena))
            .chain((!outcome.is_empty()).then_some(Effect::Outcome { outcome: &outcome }))
            .collect();
        let head = match self.propose(partition, write_id(options), &effects) {
            Ok(head) => head,
            Err(refusal) => return self.refuse(&origin, &refusal),
        };
        let keys = decided
            .iter()
            .map(|one| self.hash(keyspace, one.key()))
            .collect();
        let pending = Pending {
            id: head.id,
            keys: KeyHashes::Many(keys),
            outcome: Outcome::Batch { origin, counters },
            ack: ack_of(options, &decided),
            bytes: origin.cost,
        };
        self.await_commit(partition, pending);
    }

    /// Answers a write that is not done, or makes it wait: for the disk, or for what is not committed and decides.
    fn not_done(
        self: &Rc<Self>,
        origin: Origin,
        partition: PartitionId,
        verdict: Verdict,
        keys: &[&[u8]],
        bytes: &[u8],
        keyspace: KeyspaceId,
    ) {
        let (outcome, pending) = match verdict {
            Verdict::NeedsDisk => {
                return self.decide_after_reading(origin, partition, keyspace, keys, bytes);
            }
            Verdict::Expiring => {
                return self.defer_for_time(&origin, Scope::Whole, partition, bytes);
            }
            Verdict::ConditionFailed { version, pending } => (
                Outcome::Failed {
                    origin,
                    code: ErrorCode::ConditionFailed,
                    detail: version,
                },
                pending,
            ),
            Verdict::NotFound { pending } => (Outcome::NotFound { origin }, pending),
            Verdict::NotANumber { overflow, pending } => (
                Outcome::Failed {
                    origin,
                    code: ErrorCode::NotANumber,
                    detail: u64::from(overflow),
                },
                pending,
            ),
        };
        let behind = self.pending.borrow()[usize::from(partition)].last();
        if pending && let Some(id) = behind {
            let rider = Pending {
                id,
                keys: KeyHashes::None,
                outcome,
                ack: Ack::Quorum,
                bytes: 0,
            };
            self.await_commit(partition, rider);
        } else {
            self.settle_as_read(self.applied(partition), outcome);
        }
    }

    /// Answers what rests on an entry that is applied here, as a linearizable read does: once it is known
    /// that this replica has led since that entry's term. Another may have written since.
    pub(super) fn settle_as_read(self: &Rc<Self>, seen: Token, mut outcome: Outcome) {
        let level = ReadLevel::Linearizable;
        let is_proven = self.proven_now(seen.partition, level)
            && self.with_replica(seen.partition, |replica| replica.term()) == Some(seen.term);
        if is_proven || planted::is(Bug::RefusedWithoutProof) {
            return self.settle(outcome, seen);
        }
        let this = Rc::clone(self);
        self.env.spawn(TaskClass::Foreground, async move {
            let proven = this.prove_reads([seen], level).await;
            let now = this.env.now();
            outcome.mark(Wait::Proof, micros(now));
            match (proven, outcome.origin()) {
                (Err(refusal), Some(origin)) => this.refuse(origin, &refusal),
                (Ok(()), Some(origin)) if now > origin.deadline => this.too_late(origin),
                _ => this.settle(outcome, seen),
            }
        });
    }

    /// Reads the keys into the cache, then takes the whole request up again.
    fn decide_after_reading(
        self: &Rc<Self>,
        mut origin: Origin,
        partition: PartitionId,
        keyspace: KeyspaceId,
        keys: &[&[u8]],
        bytes: &[u8],
    ) {
        super::counters::add(&self.counters.reads_from_disk_total, 1);
        let this = Rc::clone(self);
        let keys: Vec<RowKeyBuf> = keys
            .iter()
            .map(|key| RowKeyBuf::of(partition, keyspace, key))
            .collect();
        let frame = bytes.to_vec();
        self.env.spawn(TaskClass::Foreground, async move {
            let tree = this.engine.tree();
            let at = this.decided_at(partition);
            for _ in 0..DECISION_ATTEMPTS {
                let read =
                    futures_util::future::try_join_all(keys.iter().map(|key| tree.get(key, at)));
                let read = read.await;
                let now = this.env.now();
                origin.trace.mark(Wait::Disk, micros(now));
                if let Err(error) = read {
                    this.refuse(&origin, &Refusal::from(error));
                    return;
                }
                if now > origin.deadline {
                    this.too_late(&origin);
                    return;
                }
                let cached = keys
                    .iter()
                    .all(|key| !matches!(tree.get_now(key, at, |_, _| ()), Lookup::NeedsDisk(_)));
                if cached {
                    this.execute_frame(origin, Scope::Whole, &frame);
                    return;
                }
            }
            this.refuse(
                &origin,
                &Refusal::retry(
                    ErrorCode::Overloaded,
                    50,
                    "the cache is too small or too busy to decide this write: try again",
                ),
            );
        });
    }

    pub(super) fn hash(&self, keyspace: KeyspaceId, key: &[u8]) -> u64 {
        self.hasher.hash_one((keyspace, key))
    }
}

/// When to acknowledge. What rests on the state of a key is at least a quorum's: the leader alone
/// may be wrong about it.
fn ack_of(options: &WriteOptions, decided: &[Decided<'_>]) -> Ack {
    let rests_on_state = decided.iter().any(|one| one.existed().is_some());
    match options.ack {
        Ack::Leader if rests_on_state => Ack::Quorum,
        Ack::Quorum if planted::is(Bug::AcknowledgedByLeader) => Ack::Leader,
        ack => ack,
    }
}
