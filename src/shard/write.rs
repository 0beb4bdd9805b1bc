//! Writes: decided here, logged as effects.
//!
//! A put or delete without a condition needs no look at what is there: it is numbered and encoded
//! into the log's open group at once. Anything else is decided against the newest pending effect
//! on its key, or else the applied state; where that is on disk, a task reads it into the cache
//! and the decision is made again from the start, so that it always rests on one moment.
//!
//! A decision that rests on a pending effect is answered only once that effect is committed, a
//! failure too: such answers ride in the queue of pending writes.

use std::io::Write as _;
use std::ops::Range;
use std::rc::Rc;

use ringbolt_engine::entry::{Effect, EntryHead, KeyspaceId, PartitionId};
use ringbolt_engine::env::{Env, TaskClass};
use ringbolt_engine::log::{AppendError, decode_payload_trusted, encode_payload};
use ringbolt_engine::row::{ReadAt, RowKeyBuf};
use ringbolt_engine::tree::Lookup;
use ringbolt_wire::message::{
    Ack, Condition, ErrorCode, KEYSPACE_DEFAULT, KEYSPACE_SYSTEM, Ttl, WriteOp, WriteOps,
    WriteOptions,
};
use ringbolt_wire::partition_of;

use super::mail::Origin;
use super::pending::{KeyHashes, Outcome, Pending};
use super::reply::Refusal;
use super::trace::{Op, Wait};
use super::writers::{self, Done};
use super::{Inner, micros};
use crate::planted::{self, Bug};
use crate::replica::{Replica, node_of};
use crate::resp::number;

/// How often a decision may find its key's state pushed out of the cache again before it gives up.
const DECISION_ATTEMPTS: usize = 16;

/// How long a client waits before it asks again who leads, in milliseconds.
const LEADER_RETRY_MS: u32 = 25;

/// How long a client waits while the tree takes no writes, in milliseconds.
const STOP_RETRY_MS: u32 = 50;
/// What to do when background work has stopped.
const TABLES_REMEDY: &str = "; nothing more can be compacted or flushed, so writes to this core are \
                             refused, and reads of what is not damaged go on: stop the server, \
                             restore that file or the data folder from a backup, and start it again";

/// What is known of a key when a write on it is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Present {
    version: u64,
    created_ms: u64,
    expires_ms: u64,
}

/// A key's state: the newest pending effect, or else what is applied.
struct State {
    present: Option<Present>,
    /// Whether it rests on an effect that is not committed yet.
    pending: bool,
}

/// Why a write is not done as asked.
enum Verdict {
    ConditionFailed { version: u64, pending: bool },
    NotFound { pending: bool },
    NotANumber { overflow: bool, pending: bool },
    NeedsDisk,
}

/// An effect whose value may stand in the arena of the decision, not in the request.
enum Decided<'a> {
    Put {
        key: &'a [u8],
        value: Value<'a>,
        expires_ms: u64,
        created_ms: u64,
        existed: Option<bool>,
        counter: Option<i64>,
    },
    Delete {
        key: &'a [u8],
        existed: Option<bool>,
    },
}

enum Value<'a> {
    Given(&'a [u8]),
    Made(Range<usize>),
}

impl Decided<'_> {
    fn key(&self) -> &[u8] {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } => key,
        }
    }

    fn existed(&self) -> Option<bool> {
        match self {
            Self::Put { existed, .. } | Self::Delete { existed, .. } => *existed,
        }
    }

    fn counter(&self) -> Option<i64> {
        match self {
            Self::Put { counter, .. } => *counter,
            Self::Delete { .. } => None,
        }
    }

    fn effect<'s>(&'s self, keyspace: KeyspaceId, arena: &'s [u8]) -> Effect<'s> {
        match self {
            Self::Put {
                key,
                value,
                expires_ms,
                created_ms,
                ..
            } => Effect::Put {
                keyspace,
                key,
                value: match value {
                    Value::Given(value) => value,
                    Value::Made(range) => &arena[range.clone()],
                },
                expires_ms: *expires_ms,
                created_ms: *created_ms,
            },
            Self::Delete { key, .. } => Effect::Delete { keyspace, key },
        }
    }
}

impl<E: Env> Inner<E> {
    /// Whether the keyspace exists.
    pub(super) fn check_keyspace(&self, keyspace: KeyspaceId) -> Result<(), Refusal> {
        if keyspace == KEYSPACE_DEFAULT || self.keyspaces.borrow().options(keyspace).is_some() {
            return Ok(());
        }
        let message = if keyspace == KEYSPACE_SYSTEM {
            "the system keyspace is the server's own".to_owned()
        } else {
            format!("there is no keyspace number {keyspace}: list them, or create one")
        };
        Err(Refusal::new(ErrorCode::NoSuchKeyspace, 0, message))
    }

    /// Proposes an entry: numbers it and encodes it, once for log, peers and tree.
    pub(super) fn propose(
        &self,
        partition: PartitionId,
        client: u64,
        sequence: u64,
        effects: &[Effect<'_>],
    ) -> Result<EntryHead, Refusal> {
        let mut replicas = self.replicas.borrow_mut();
        let replica = match replicas.get_mut(usize::from(partition)) {
            Some(Some(replica)) if replica.serves() => replica,
            other => return Err(not_leader(partition, other.and_then(|r| r.as_ref()))),
        };
        let head = replica.next_head(client, sequence, self.clock.get().wall_ms);
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
        if let Err(refusal) = self.check_op(op) {
            self.refuse(&origin, &refusal);
            return true;
        }
        let mut arena = Vec::new();
        let decided = match self.decide(partition, keyspace, op, &mut arena) {
            Ok(decided) => decided,
            Err(verdict) => {
                let now = !matches!(verdict, Verdict::NeedsDisk);
                self.not_done(origin, partition, verdict, &[op.key()], bytes, keyspace);
                return now;
            }
        };
        let effect = decided.effect(keyspace, &arena);
        let result = self.result_of(partition, options, || match decided.counter() {
            Some(value) => Done::Counter { value },
            None => Done::Written {
                existed: decided.existed(),
            },
        });
        let (client, sequence) = (options.client, options.sequence);
        let proposed = match &result {
            Some(result) => self.propose(partition, client, sequence, &[effect, result.effect()]),
            None => self.propose(partition, client, sequence, &[effect]),
        };
        let head = match proposed {
            Ok(head) => head,
            Err(refusal) => {
                self.refuse(&origin, &refusal);
                return true;
            }
        };
        if let Some(result) = result {
            self.result_proposed(&head, result);
        }
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

    /// Removes every record of a keyspace in one partition.
    pub(super) fn clear(&self, origin: Origin, partition: PartitionId, keyspace: KeyspaceId) {
        let everything = Effect::DeleteRange {
            keyspace,
            from: &[],
            to: &[],
        };
        let proposed = self
            .check_leads(partition, keyspace)
            .and_then(|()| self.check_tables())
            .and_then(|()| self.propose(partition, 0, 0, &[everything]));
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

    /// The one partition of a batch's keys.
    pub(super) fn batch_partition(&self, ops: &WriteOps<'_>) -> Result<PartitionId, Refusal> {
        let partitions = self.config.map.partitions();
        let mut partition = None;
        for op in ops.iter() {
            let this = partition_of(op.key(), partitions);
            if *partition.get_or_insert(this) != this {
                return Err(Refusal::new(
                    ErrorCode::CrossPartition,
                    0,
                    "a batch's keys must belong to one partition: give them a common {tag}",
                ));
            }
        }
        partition.ok_or_else(|| Refusal::new(ErrorCode::BadRequest, 0, "the batch is empty"))
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
        if let Err(refusal) = self.check_batch(ops) {
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
        let result = self.result_of(partition, options, || Done::of_batch(&counters));
        let effects: Vec<Effect<'_>> = decided
            .iter()
            .map(|one| one.effect(keyspace, &arena))
            .chain(result.iter().map(writers::Result::effect))
            .collect();
        let proposed = self.propose(partition, options.client, options.sequence, &effects);
        let head = match proposed {
            Ok(head) => head,
            Err(refusal) => return self.refuse(&origin, &refusal),
        };
        if let Some(result) = result {
            self.result_proposed(&head, result);
        }
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

    /// Decides one write against the state of its key.
    fn decide<'a>(
        &self,
        partition: PartitionId,
        keyspace: KeyspaceId,
        op: &WriteOp<'a>,
        arena: &mut Vec<u8>,
    ) -> Result<Decided<'a>, Verdict> {
        let time_ms = self.next_time_ms(partition);
        match *op {
            WriteOp::Put {
                key,
                value,
                ttl,
                condition,
            } => {
                let looks = condition != Condition::None || ttl == Ttl::Keep;
                let state = looks
                    .then(|| self.state(partition, keyspace, key, time_ms, |_| {}))
                    .transpose()?;
                if let Some(state) = &state {
                    check(condition, state)?;
                }
                let present = state.as_ref().and_then(|state| state.present);
                Ok(Decided::Put {
                    key,
                    value: Value::Given(value),
                    expires_ms: self.expiry(keyspace, ttl, time_ms, present),
                    created_ms: match (&state, present) {
                        (None, _) => 0,
                        (Some(_), Some(present)) => present.created_ms,
                        (Some(_), None) => time_ms,
                    },
                    existed: state.map(|state| state.present.is_some()),
                    counter: None,
                })
            }
            WriteOp::Delete { key, condition } => {
                let state = (condition != Condition::None)
                    .then(|| self.state(partition, keyspace, key, time_ms, |_| {}))
                    .transpose()?;
                if let Some(state) = &state {
                    check(condition, state)?;
                }
                Ok(Decided::Delete {
                    key,
                    existed: state.map(|state| state.present.is_some()),
                })
            }
            WriteOp::Increment {
                key,
                by,
                ttl,
                condition,
            } => {
                let mut number = Some(0);
                let state = self.state(partition, keyspace, key, time_ms, |value| {
                    number = number::parse(value);
                })?;
                check(condition, &state)?;
                let refused = |overflow| Verdict::NotANumber {
                    overflow,
                    pending: state.pending,
                };
                let number: i64 = number.ok_or(refused(false))?;
                let value = number.checked_add(by).ok_or(refused(true))?;
                let start = arena.len();
                // Writing to a vector cannot fail.
                let _ = write!(arena, "{value}");
                Ok(Decided::Put {
                    key,
                    value: Value::Made(start..arena.len()),
                    expires_ms: self.expiry(keyspace, ttl, time_ms, state.present),
                    created_ms: state.present.map_or(time_ms, |present| present.created_ms),
                    existed: Some(state.present.is_some()),
                    counter: Some(value),
                })
            }
            WriteOp::Touch {
                key,
                ttl,
                condition,
            } => {
                let start = arena.len();
                let state = self.state(partition, keyspace, key, time_ms, |value| {
                    arena.extend_from_slice(value);
                })?;
                check(condition, &state)?;
                let Some(present) = state.present else {
                    return Err(Verdict::NotFound {
                        pending: state.pending,
                    });
                };
                Ok(Decided::Put {
                    key,
                    value: Value::Made(start..arena.len()),
                    expires_ms: self.expiry(keyspace, ttl, time_ms, Some(present)),
                    created_ms: present.created_ms,
                    existed: Some(true),
                    counter: None,
                })
            }
        }
    }

    /// The state of a key at the time the next entry would carry. `value` sees the value if there
    /// is one.
    fn state(
        &self,
        partition: PartitionId,
        keyspace: KeyspaceId,
        key: &[u8],
        time_ms: u64,
        mut value: impl FnMut(&[u8]),
    ) -> Result<State, Verdict> {
        let hash = self.hash(keyspace, key);
        let pending = self.pending.borrow();
        let replicas = self.replicas.borrow();
        let replica = replicas
            .get(usize::from(partition))
            .and_then(Option::as_ref);
        for id in pending[usize::from(partition)].touching(hash) {
            let payload = replica.and_then(|replica| replica.payload(id.index));
            let entry = payload
                .as_deref()
                .and_then(|payload| decode_payload_trusted(partition, id, payload));
            let found = entry.map(|(head, effects)| {
                let mut found = None;
                for effect in effects {
                    match effect {
                        Effect::Put {
                            keyspace: k,
                            key: effect_key,
                            value: bytes,
                            expires_ms,
                            created_ms,
                        } if k == keyspace && effect_key == key => {
                            let expired = expires_ms != 0 && expires_ms <= time_ms;
                            found = Some((!expired).then(|| {
                                value(bytes);
                                Present {
                                    version: head.id.index,
                                    created_ms,
                                    expires_ms,
                                }
                            }));
                        }
                        Effect::Delete {
                            keyspace: k,
                            key: effect_key,
                        } if k == keyspace && effect_key == key => found = Some(None),
                        // What the server writes itself removes whole keyspaces only.
                        Effect::DeleteRange { keyspace: k, .. } if k == keyspace => {
                            found = Some(None);
                        }
                        _ => {}
                    }
                }
                found
            });
            if let Some(Some(present)) = found {
                return Ok(State {
                    present,
                    pending: true,
                });
            }
        }
        drop((pending, replicas));
        let mut row_key = self.row_key.borrow_mut();
        let row_key = row_key.set(partition, keyspace, key);
        let at = ReadAt::newest(time_ms);
        let found = self.engine.tree().get_now(row_key, at, |row, bytes| {
            value(bytes);
            Present {
                version: row.version,
                created_ms: row.created_ms,
                expires_ms: row.expires_ms,
            }
        });
        match found {
            Lookup::Found(present) => Ok(State {
                present: Some(present),
                pending: false,
            }),
            Lookup::Absent => Ok(State {
                present: None,
                pending: false,
            }),
            Lookup::NeedsDisk => Err(Verdict::NeedsDisk),
        }
    }

    /// Answers a write that is not done, or makes it wait for the disk.
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
            let seen = self.applied(partition);
            self.settle(outcome, seen);
        }
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
            let at = ReadAt::newest(this.next_time_ms(partition));
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
                    .all(|key| !matches!(tree.get_now(key, at, |_, _| ()), Lookup::NeedsDisk));
                if cached {
                    this.execute_frame(origin, super::mail::Scope::Whole, &frame);
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

    fn next_time_ms(&self, partition: PartitionId) -> u64 {
        let wall_ms = self.clock.get().wall_ms;
        let replicas = self.replicas.borrow();
        match replicas.get(usize::from(partition)) {
            Some(Some(replica)) => replica.next_time_ms(wall_ms),
            _ => wall_ms,
        }
    }

    fn expiry(
        &self,
        keyspace: KeyspaceId,
        ttl: Ttl,
        time_ms: u64,
        present: Option<Present>,
    ) -> u64 {
        match ttl {
            Ttl::Never => 0,
            Ttl::AfterMs(ms) => time_ms.saturating_add(ms),
            Ttl::AtMs(ms) => ms.max(1),
            Ttl::Keep => present.map_or(0, |present| present.expires_ms),
            Ttl::Default => {
                if keyspace == KEYSPACE_DEFAULT {
                    return 0;
                }
                match self.keyspaces.borrow().options(keyspace) {
                    Some(options) if options.default_ttl_ms > 0 => {
                        time_ms.saturating_add(options.default_ttl_ms)
                    }
                    _ => 0,
                }
            }
        }
    }

    /// Whether the group has as many replicas as acknowledgements are asked for.
    fn check_options(&self, partition: PartitionId, options: &WriteOptions) -> Result<(), Refusal> {
        self.check_tables()?;
        let Ack::Count(count) = options.ack else {
            return Ok(());
        };
        let replicas = self.replicas.borrow();
        let voters = match replicas.get(usize::from(partition)) {
            Some(Some(replica)) => replica.membership().conf.voters.len(),
            _ => 0,
        };
        if usize::from(count) <= voters {
            return Ok(());
        }
        Err(Refusal::new(
            ErrorCode::BadRequest,
            voters as u64,
            format!("{count} acknowledgements are asked for; this partition has {voters} replicas"),
        ))
    }

    /// Whether this replica may decide writes, and the keyspace exists.
    pub(super) fn check_leads(
        &self,
        partition: PartitionId,
        keyspace: KeyspaceId,
    ) -> Result<(), Refusal> {
        self.check_keyspace(keyspace)?;
        match self.replicas.borrow().get(usize::from(partition)) {
            Some(Some(replica)) if replica.serves() => Ok(()),
            other => Err(not_leader(partition, other.and_then(Option::as_ref))),
        }
    }

    /// Once background work has met a damaged table nothing more gets into tables: writes would only
    /// fill memory and the log.
    pub(super) fn check_tables(&self) -> Result<(), Refusal> {
        let Some(failure) = self.engine.tree().failure() else {
            return Ok(());
        };
        let mut refusal = Refusal::from(failure);
        refusal.message.push_str(TABLES_REMEDY);
        Err(refusal)
    }

    fn check_op(&self, op: &WriteOp<'_>) -> Result<(), Refusal> {
        let limits = &self.config.limits;
        let key = op.key();
        if key.is_empty() {
            return Err(Refusal::new(ErrorCode::BadRequest, 0, "the key is empty"));
        }
        if key.len() > limits.key_bytes_max {
            return Err(too_large("the key", key.len(), limits.key_bytes_max));
        }
        match op {
            WriteOp::Delete { .. } => return Ok(()),
            WriteOp::Put { value, .. } if value.len() > limits.value_bytes_max => {
                return Err(too_large("the value", value.len(), limits.value_bytes_max));
            }
            _ => {}
        }
        if self.space_low.get() || self.engine.tree().is_out_of_space() {
            return Err(no_space());
        }
        if self.engine.tree().pressure().stop {
            return Err(Refusal::retry(
                ErrorCode::Overloaded,
                STOP_RETRY_MS,
                "memory for writes is used up until more has reached the disk: try again",
            ));
        }
        Ok(())
    }

    fn check_batch(&self, ops: &WriteOps<'_>) -> Result<(), Refusal> {
        let limit = self.config.limits.batch_ops_max as usize;
        if ops.len() > limit {
            return Err(too_large("the batch's number of writes", ops.len(), limit));
        }
        let mut keys = Vec::with_capacity(ops.len());
        for op in ops.iter() {
            self.check_op(&op)?;
            keys.push(op.key());
        }
        keys.sort_unstable();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Refusal::new(
                ErrorCode::BadRequest,
                0,
                "a key occurs twice in the batch: a batch may write a key once",
            ));
        }
        Ok(())
    }
}

/// Where a write that this replica may not decide should go.
pub(super) fn not_leader(partition: PartitionId, replica: Option<&Replica>) -> Refusal {
    match replica {
        Some(replica) if replica.leader() != 0 && !replica.leads() => Refusal {
            detail: u64::from(node_of(replica.leader())),
            ..Refusal::retry(
                ErrorCode::NotLeader,
                LEADER_RETRY_MS,
                format!("partition {partition} is led by another node: `detail` is its number"),
            )
        },
        _ => Refusal::retry(
            ErrorCode::Unavailable,
            LEADER_RETRY_MS,
            format!("partition {partition} has no leader that serves yet: try again"),
        ),
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

fn too_large(what: &str, is: usize, limit: usize) -> Refusal {
    Refusal::new(
        ErrorCode::TooLarge,
        limit as u64,
        format!("{what} of {is} bytes is over the limit of {limit}"),
    )
}

fn no_space() -> Refusal {
    Refusal::retry(
        ErrorCode::NoSpace,
        1000,
        "the disk is nearly full: puts are refused, reads and deletes go on; writes resume by \
         themselves once there is room",
    )
}

fn refusal_of(error: AppendError) -> Refusal {
    match error {
        AppendError::Full => Refusal::retry(
            ErrorCode::Overloaded,
            5,
            "the log has too many bytes under way: try again a little later",
        ),
        AppendError::NoSpace => no_space(),
        AppendError::TooLarge => Refusal::new(ErrorCode::TooLarge, 0, error.to_string()),
        AppendError::Gap | AppendError::Failed => Refusal::new(
            ErrorCode::ShardFailed,
            0,
            "the shard has stopped: see the server's log",
        ),
    }
}

fn check(condition: Condition, state: &State) -> Result<(), Verdict> {
    let holds = match (condition, &state.present) {
        (Condition::None, _) | (Condition::Absent, None) | (Condition::Present, Some(_)) => true,
        (Condition::Version(version), Some(present)) => present.version == version,
        _ => false,
    };
    if holds {
        return Ok(());
    }
    Err(Verdict::ConditionFailed {
        version: state.present.map_or(0, |present| present.version),
        pending: state.pending,
    })
}
