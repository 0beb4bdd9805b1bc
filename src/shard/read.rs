//! Reads: from memory at once, from the disk in a task, after waiting where the read level asks.
//!
//! A leader's followers may have applied an entry before it has: it is committed once a majority has
//! stored it, and applied here only once this log has stored it, too. So a read of the leader first
//! waits until what was committed when it came is applied. Then what it reads is the newest committed
//! state, if this replica still led when it read: a `Linearizable` read is answered after the value was read
//! and the lease was found to hold then, or a quorum has said so since. A `Strict` read always asks
//! the quorum. `Session` and `Stale` reads are served by any replica: the first waits until what its
//! token names is applied, and gets `STALE` at its deadline; the second is refused at once if this
//! replica cannot say that it is new enough, but for a leader, which then goes by its lease or asks
//! the quorum. A refusal wakes a group that sleeps, in which nobody grows younger.
//!
//! A record that is expired by the wall clock but not yet by the partition's time is not simply
//! hidden: the partition's time must first have passed its expiry for everybody. So the read
//! proposes an empty entry, which carries the time, and is served behind it; reads that come
//! meanwhile share that entry.

use std::rc::Rc;
use std::time::Duration;

use ringbolt_engine::entry::LogId;
use ringbolt_engine::env::{Env, TaskClass};
use ringbolt_engine::row::{ReadAt, RowKeyBuf, RowMeta, split_row_key};
use ringbolt_engine::tree::{Lookup, Row};
use ringbolt_wire::codec::{self, ValuesBuilder};
use ringbolt_wire::list::KeysBuf;
use ringbolt_wire::message::{
    ErrorCode, Keys, KeyspaceId, PartitionId, ReadLevel, ReadOptions, Request, Response, Token,
};
use ringbolt_wire::{frame, partition_of};

use super::counters::add;
use super::gather::Target;
use super::input::by_leader;
use super::mail::{Origin, Scope};
use super::reply::{Refusal, meta, token};
use super::trace::Wait;
use super::write::not_leader;
use super::{Deferred, Inner, micros};
use crate::planted::{self, Bug};

/// Whether a replica of this age may serve a read that allows so much.
fn is_young(age: Duration, max_age_ms: u32) -> bool {
    age <= Duration::from_millis(u64::from(max_age_ms)) || planted::is(Bug::AgeIgnored)
}

fn too_old(partition: PartitionId, age: Duration) -> Refusal {
    let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    let message = format!("this replica of partition {partition} may be {age_ms} ms old");
    Refusal {
        detail: age_ms,
        ..Refusal::retry(ErrorCode::Stale, 50, message)
    }
}

/// What a read from memory came to.
pub(super) enum Glance {
    /// There is a record, and it was told.
    Told,
    Absent,
    /// The record is expired by the clock, not yet by the partition's time.
    Expiring,
    /// It needs the disk, or it is not known whether this replica still leads.
    Unknown,
}

impl<E: Env> Inner<E> {
    /// Whether the row is expired by the wall clock though the partition's time has not come, so
    /// that a leader must bring the partition's time forward first. A follower reads by the
    /// partition's time alone.
    pub(super) fn expires_here(&self, partition: PartitionId, row: &RowMeta) -> bool {
        row.expired_at(self.clock.get().wall_ms)
            && matches!(
                self.replicas.borrow().get(usize::from(partition)),
                Some(Some(replica)) if replica.serves()
            )
    }

    /// What a read of a partition sees now: the applied position and time. A refusal if it is not
    /// to be served here or the keyspace is unknown.
    pub(super) fn view(
        &self,
        partition: PartitionId,
        keyspace: KeyspaceId,
        level: ReadLevel,
    ) -> Result<(Token, ReadAt), Refusal> {
        self.check_keyspace(keyspace)?;
        let replicas = self.replicas.borrow();
        let Some(Some(replica)) = replicas.get(usize::from(partition)) else {
            return Err(not_leader(partition, None));
        };
        if replica.is_installing() {
            // From some moment in between the rows are the snapshot's.
            let message = format!("partition {partition} is being brought up to date: try again");
            return Err(Refusal::retry(ErrorCode::Unavailable, 20, message));
        }
        match level {
            ReadLevel::Linearizable | ReadLevel::Strict
                if !replica.serves() && !planted::is(Bug::FollowerReads) =>
            {
                return Err(not_leader(partition, Some(replica)));
            }
            ReadLevel::Stale { max_age_ms } if !replica.serves() => {
                // As for a lease, the clock is read now: the process may have been paused.
                let age = replica.age(self.env.now());
                if !is_young(age, max_age_ms) {
                    drop(replicas);
                    self.rouse(partition);
                    return Err(too_old(partition, age));
                }
            }
            _ => {}
        }
        Ok((
            token(partition, replica.applied_id()),
            ReadAt::newest(replica.applied_time_ms()),
        ))
    }

    /// Whether a read just made may be answered at once: see the module's header.
    fn proven_now(&self, partition: PartitionId, level: ReadLevel) -> bool {
        if planted::is(Bug::LeaseIgnored) || planted::is(Bug::FollowerReads) {
            return true;
        }
        let now = || match planted::is(Bug::LeaseByOldClock) {
            true => self.clock.get().now,
            false if planted::is(Bug::LeaseRemembered) => {
                self.env.now().saturating_sub(Duration::from_secs(6))
            }
            false => self.env.now(),
        };
        let replicas = self.replicas.borrow();
        let Some(Some(replica)) = replicas.get(usize::from(partition)) else {
            return false;
        };
        // The clock is read now, not taken from the turn: the process may have been paused since.
        match level {
            ReadLevel::Session => true,
            ReadLevel::Stale { max_age_ms } => is_young(replica.age(self.env.now()), max_age_ms),
            ReadLevel::Linearizable if replica.has_lease(now()) => true,
            _ => replica.is_alone() && replica.serves(),
        }
    }

    /// Sees to it that reads just made may be answered.
    pub(super) async fn prove_reads(
        &self,
        partitions: impl IntoIterator<Item = PartitionId>,
        level: ReadLevel,
    ) -> Result<(), Refusal> {
        for partition in partitions {
            if self.proven_now(partition, level) {
                continue;
            }
            if !self.prove(partition, level == ReadLevel::Strict).await {
                let replicas = self.replicas.borrow();
                let replica = replicas
                    .get(usize::from(partition))
                    .and_then(Option::as_ref);
                return Err(match (level, replica) {
                    (ReadLevel::Stale { .. }, Some(replica)) => {
                        too_old(partition, replica.age(self.env.now()))
                    }
                    _ => not_leader(partition, replica),
                });
            }
        }
        Ok(())
    }

    /// The index that a read must wait for: what its tokens name, or what a leader knows to be
    /// committed. A refusal if a token names an entry that was discarded.
    pub(super) fn wanted(
        &self,
        origin: &Origin,
        partition: PartitionId,
        read: &ReadOptions<'_>,
        applied: Token,
    ) -> Result<Option<u64>, Refusal> {
        let wanted = match read.level {
            ReadLevel::Session if planted::is(Bug::TokenIgnored) => None,
            ReadLevel::Session => {
                let mut highest = None;
                for token in read.tokens.iter().filter(|t| t.partition == partition) {
                    self.check_not_lost(&token)?;
                    highest = highest.max(Some(token.index));
                }
                highest
            }
            _ if origin.settled || planted::is(Bug::CommitNotAwaited) => None,
            ReadLevel::Linearizable | ReadLevel::Strict => {
                self.with_replica(partition, |replica| replica.commit())
            }
            // A leader passes for up to date, a follower knows its age.
            ReadLevel::Stale { .. } => self
                .with_replica(partition, |replica| {
                    replica.serves().then(|| replica.commit())
                })
                .flatten(),
        };
        Ok(wanted.filter(|&index| index > applied.index))
    }

    /// Whether the entry that a token names stands, or may come yet.
    fn check_not_lost(&self, token: &Token) -> Result<(), Refusal> {
        let id = LogId {
            term: token.term,
            index: token.index,
        };
        match self.with_replica(token.partition, |replica| replica.is_lost(id)) {
            Some(true) => Err(Refusal::new(
                ErrorCode::Lost,
                0,
                format!(
                    "entry {} of term {} in partition {} was discarded when its leader failed: \
                     what was read or written with it never came to be",
                    id.index, id.term, token.partition
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Puts a request aside until its partitions have applied what is wanted of each.
    pub(super) fn defer(
        &self,
        origin: &Origin,
        scope: Scope,
        wanted: Vec<(PartitionId, u64)>,
        bytes: &[u8],
    ) {
        self.account.forget_note();
        self.deferred.borrow_mut().push(Deferred {
            wanted,
            origin: Origin {
                settled: true,
                ..*origin
            },
            scope,
            frame: bytes.to_vec(),
        });
    }

    /// Makes the partition's time reach the wall clock, by one empty entry that all reads of this
    /// moment share. Returns the index to wait for.
    pub(super) fn tick(&self, partition: PartitionId) -> Result<u64, Refusal> {
        let wall_ms = self.clock.get().wall_ms;
        {
            let replicas = self.replicas.borrow();
            if let Some(Some(replica)) = replicas.get(usize::from(partition))
                && replica.next_time_ms(0) >= wall_ms
                && replica.last_index() != replica.applied_id().index
            {
                return Ok(replica.last_index());
            }
        }
        let head = self.propose(partition, 0, 0, &[])?;
        Ok(head.id.index)
    }

    /// Puts a read aside until the partition's time has passed the expiry it met.
    pub(super) fn defer_for_time(
        &self,
        origin: &Origin,
        scope: Scope,
        partition: PartitionId,
        bytes: &[u8],
    ) {
        match self.tick(partition) {
            Ok(index) => self.defer(origin, scope, vec![(partition, index)], bytes),
            Err(refusal) => self.refuse(origin, &refusal),
        }
    }

    #[allow(clippy::too_many_arguments)] // A request's parts, taken apart once by the decoder.
    pub(super) fn get(
        self: &Rc<Self>,
        origin: Origin,
        scope: Scope,
        partition: PartitionId,
        keyspace: KeyspaceId,
        read: &ReadOptions<'_>,
        key: &[u8],
        bytes: &[u8],
    ) {
        add(&self.counters.gets_total, 1);
        let (seen, at) = match self.view(partition, keyspace, read.level) {
            Ok(view) => view,
            Err(refusal) => return self.refuse(&origin, &refusal),
        };
        match self.wanted(&origin, partition, read, seen) {
            Ok(None) => {}
            Ok(Some(index)) => {
                return self.defer(&origin, scope, vec![(partition, index)], bytes);
            }
            Err(refusal) => return self.refuse(&origin, &refusal),
        }
        let target = (partition, keyspace, read.level);
        let glance = self.glance(target, key, at, |row, value| {
            self.note_key(&origin, partition, keyspace, key);
            self.reply(&origin, |out| {
                codec::encode_value(out, origin.request_id, seen, &meta(row), value);
            });
        });
        match glance {
            Glance::Told => {}
            Glance::Absent => self.reply(&origin, |out| {
                codec::encode_not_found(out, origin.request_id, seen);
            }),
            Glance::Expiring => self.defer_for_time(&origin, scope, partition, bytes),
            Glance::Unknown => self.get_in_task(origin, scope, target, key, bytes),
        }
    }

    /// Reads one key from memory, and tells what is there if it may be answered at once. What was
    /// committed when the request came must be applied.
    pub(super) fn glance(
        &self,
        (partition, keyspace, level): (PartitionId, KeyspaceId, ReadLevel),
        key: &[u8],
        at: ReadAt,
        tell: impl FnOnce(&RowMeta, &[u8]),
    ) -> Glance {
        let mut row_key = self.row_key.borrow_mut();
        let row_key = row_key.set(partition, keyspace, key);
        let found = self.engine.tree().get_now(row_key, at, |row, value| {
            if self.expires_here(partition, &row) {
                return Glance::Expiring;
            }
            if !self.proven_now(partition, level) {
                return Glance::Unknown;
            }
            tell(&row, value);
            Glance::Told
        });
        match found {
            Lookup::Found(glance) => glance,
            Lookup::Absent if self.proven_now(partition, level) => Glance::Absent,
            Lookup::Absent | Lookup::NeedsDisk => Glance::Unknown,
        }
    }

    fn get_in_task(
        self: &Rc<Self>,
        origin: Origin,
        scope: Scope,
        target: (PartitionId, KeyspaceId, ReadLevel),
        key: &[u8],
        bytes: &[u8],
    ) {
        add(&self.counters.reads_from_disk_total, 1);
        let this = Rc::clone(self);
        let row_key = RowKeyBuf::of(target.0, target.1, key);
        // Kept only for the rare record that expires in just this moment.
        let frame = bytes.to_vec();
        self.env.spawn(TaskClass::Foreground, async move {
            this.finish_get(origin, scope, target, &row_key, &frame)
                .await;
        });
    }

    async fn finish_get(
        &self,
        mut origin: Origin,
        scope: Scope,
        (partition, keyspace, level): (PartitionId, KeyspaceId, ReadLevel),
        row_key: &[u8],
        frame: &[u8],
    ) {
        let (_, at) = match self.view(partition, keyspace, level) {
            Ok(view) => view,
            Err(refusal) => return self.refuse(&origin, &refusal),
        };
        let found = self.engine.tree().get(row_key, at).await;
        origin.trace.mark(Wait::Disk, self.now_us());
        let found = match found {
            Ok(found) => found,
            Err(error) => return self.refuse(&origin, &Refusal::from(error)),
        };
        let proven = self.prove_reads([partition], level).await;
        let now = self.env.now();
        origin.trace.mark(Wait::Proof, micros(now));
        if let Some(parts) = split_row_key(row_key) {
            self.note_key(&origin, partition, keyspace, parts.key);
        }
        if let Err(refusal) = proven {
            return self.refuse(&origin, &refusal);
        }
        if now > origin.deadline {
            return self.too_late(&origin);
        }
        // What was read is not newer than what is shown by now.
        let seen = self.shown(partition);
        match found {
            Some(row) if self.expires_here(partition, &row.meta) => {
                self.defer_for_time(&origin, scope, partition, frame);
            }
            Some(row) => self.reply(&origin, |out| {
                codec::encode_value(out, origin.request_id, seen, &meta(&row.meta), &row.value);
            }),
            None => self.reply(&origin, |out| {
                codec::encode_not_found(out, origin.request_id, seen);
            }),
        }
    }

    /// What a read of the partition that was begun earlier has seen at most.
    fn shown(&self, partition: PartitionId) -> Token {
        let id = self.with_replica(partition, |replica| replica.shown_id());
        token(partition, id.unwrap_or_default())
    }

    /// What the partition has applied.
    pub(super) fn applied(&self, partition: PartitionId) -> Token {
        let replicas = self.replicas.borrow();
        let id = replicas
            .get(usize::from(partition))
            .and_then(Option::as_ref)
            .map(crate::replica::Replica::applied_id)
            .unwrap_or_default();
        token(partition, id)
    }

    #[allow(clippy::too_many_arguments)] // A request's parts, taken apart once by the decoder.
    pub(super) fn stat(
        self: &Rc<Self>,
        origin: Origin,
        scope: Scope,
        partition: PartitionId,
        keyspace: KeyspaceId,
        read: &ReadOptions<'_>,
        key: &[u8],
        bytes: &[u8],
    ) {
        let level = read.level;
        let (seen, at) = match self.view(partition, keyspace, level) {
            Ok(view) => view,
            Err(refusal) => return self.refuse(&origin, &refusal),
        };
        match self.wanted(&origin, partition, read, seen) {
            Ok(None) => {}
            Ok(Some(index)) => {
                return self.defer(&origin, scope, vec![(partition, index)], bytes);
            }
            Err(refusal) => return self.refuse(&origin, &refusal),
        }
        let this = Rc::clone(self);
        let row_key = RowKeyBuf::of(partition, keyspace, key);
        let frame = bytes.to_vec();
        self.env.spawn(TaskClass::Foreground, async move {
            let tree = this.engine.tree();
            let found = match tree.stat(&row_key, at).await {
                Ok(Some(row)) => {
                    let at = ReadAt {
                        version: row.version,
                        ..at
                    };
                    let value = tree.get(&row_key, at).await;
                    value.map(|value| value.map(|value| (row, value.value.len() as u64)))
                }
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            };
            let mut origin = origin;
            origin.trace.mark(Wait::Disk, this.now_us());
            let proven = this.prove_reads([partition], level).await;
            origin.trace.mark(Wait::Proof, this.now_us());
            if let Err(refusal) = proven {
                return this.refuse(&origin, &refusal);
            }
            let seen = this.shown(partition);
            match found {
                _ if this.env.now() > origin.deadline => this.too_late(&origin),
                Ok(Some((row, _))) if this.expires_here(partition, &row) => {
                    this.defer_for_time(&origin, scope, partition, &frame);
                }
                Ok(Some((row, value_bytes))) => this.reply(&origin, |out| {
                    let meta = meta(&row);
                    codec::encode_stat(out, origin.request_id, seen, &meta, value_bytes);
                }),
                Ok(None) => this.reply(&origin, |out| {
                    codec::encode_not_found(out, origin.request_id, seen);
                }),
                Err(error) => this.refuse(&origin, &Refusal::from(error)),
            }
        });
    }

    pub(super) fn multi_get(
        self: &Rc<Self>,
        origin: Origin,
        scope: Scope,
        keyspace: KeyspaceId,
        read: &ReadOptions<'_>,
        keys: &Keys<'_>,
        bytes: &[u8],
    ) {
        let limit = self.config.limits.batch_ops_max as usize;
        if keys.len() > limit {
            let message = format!("{} keys are over the limit of {limit}", keys.len());
            let refusal = Refusal::new(ErrorCode::TooLarge, limit as u64, message);
            return self.refuse(&origin, &refusal);
        }
        let mut shares: Vec<(Target, KeysBuf)> = Vec::new();
        for key in keys.iter() {
            let target = self.target_of_key(key, read);
            let share = match shares.iter().position(|(known, _)| *known == target) {
                Some(share) => share,
                None => {
                    shares.push((target, KeysBuf::new()));
                    shares.len() - 1
                }
            };
            if shares[share].1.push(key).is_err() {
                let refusal = Refusal::new(ErrorCode::BadRequest, 0, "a key is empty or too long");
                return self.refuse(&origin, &refusal);
            }
        }
        if shares
            .iter()
            .all(|(target, _)| *target == self.target_here())
        {
            return self.multi_get_here(origin, scope, keyspace, read, keys, bytes);
        }
        let mut asked = Vec::with_capacity(shares.len());
        for (target, keys) in &shares {
            let keys = keys.as_keys();
            let request = Request::MultiGet {
                keyspace,
                read: *read,
                keys,
            };
            let mut frame = Vec::new();
            if let Err(error) = request.encode(origin.request_id, 0, &mut frame) {
                return self.fail(&origin, error.code(), 0, error.detail(), &error.to_string());
            }
            asked.push((*target, frame));
        }
        let order: Vec<usize> = keys
            .iter()
            .map(|key| {
                let target = self.target_of_key(key, read);
                let share = asked.iter().position(|(known, _)| *known == target);
                share.unwrap_or_default()
            })
            .collect();
        let this = Rc::clone(self);
        self.env.spawn(TaskClass::Foreground, async move {
            let asked: Vec<_> = asked
                .iter()
                .map(|(target, frame)| (*target, &frame[..]))
                .collect();
            let replies = this.ask(&asked, Scope::Whole, &origin).await;
            let mut origin = origin;
            origin.trace.mark(Wait::Forward, this.now_us());
            this.merge_values(&origin, &order, &replies);
        });
    }

    fn target_of_key(&self, key: &[u8], read: &ReadOptions<'_>) -> Target {
        let partition = partition_of(key, self.config.map.partitions());
        self.target_of(partition, by_leader(read))
    }

    /// Reads this core's keys of a multi-get; in the order asked.
    fn multi_get_here(
        self: &Rc<Self>,
        origin: Origin,
        scope: Scope,
        keyspace: KeyspaceId,
        read: &ReadOptions<'_>,
        keys: &Keys<'_>,
        bytes: &[u8],
    ) {
        let mut wanted = Vec::with_capacity(keys.len());
        let mut seen: Vec<Token> = Vec::new();
        let mut behind = Vec::new();
        for key in keys.iter() {
            let partition = partition_of(key, self.config.map.partitions());
            let (token, at) = match self.view(partition, keyspace, read.level) {
                Ok(view) => view,
                Err(refusal) => return self.refuse(&origin, &refusal),
            };
            if !seen.iter().any(|other| other.partition == partition) {
                let index = match self.wanted(&origin, partition, read, token) {
                    Ok(index) => index,
                    Err(refusal) => return self.refuse(&origin, &refusal),
                };
                behind.extend(index.map(|index| (partition, index)));
                seen.push(token);
            }
            self.touch(&origin, partition, keyspace, key, false);
            wanted.push((partition, RowKeyBuf::of(partition, keyspace, key), at));
        }
        if !behind.is_empty() {
            return self.defer(&origin, scope, behind, bytes);
        }
        let this = Rc::clone(self);
        let (frame, level) = (bytes.to_vec(), read.level);
        self.env.spawn(TaskClass::Foreground, async move {
            this.finish_multi_get(origin, scope, (&wanted, level), &seen, &frame)
                .await;
        });
    }

    async fn finish_multi_get(
        &self,
        mut origin: Origin,
        scope: Scope,
        (wanted, level): (&[(PartitionId, RowKeyBuf, ReadAt)], ReadLevel),
        seen: &[Token],
        frame: &[u8],
    ) {
        let tree = self.engine.tree();
        let reads = wanted.iter().map(|(_, key, at)| tree.get(key, *at));
        let rows = futures_util::future::try_join_all(reads).await;
        origin.trace.mark(Wait::Disk, self.now_us());
        let rows: Vec<Option<Row>> = match rows {
            Ok(rows) => rows,
            Err(error) => return self.refuse(&origin, &Refusal::from(error)),
        };
        let partitions = seen.iter().map(|token| token.partition);
        let proven = self.prove_reads(partitions, level).await;
        let now = self.env.now();
        origin.trace.mark(Wait::Proof, micros(now));
        if let Err(refusal) = proven {
            return self.refuse(&origin, &refusal);
        }
        if now > origin.deadline {
            return self.too_late(&origin);
        }
        let expiring = rows.iter().zip(wanted).find_map(|(row, (partition, ..))| {
            row.as_ref()
                .is_some_and(|row| self.expires_here(*partition, &row.meta))
                .then_some(*partition)
        });
        if let Some(partition) = expiring {
            return self.defer_for_time(&origin, scope, partition, frame);
        }
        let bytes: usize = rows.iter().flatten().map(|row| row.value.len() + 64).sum();
        let limit = self.config.limits.frame_bytes_max();
        if bytes > limit as usize {
            let message = format!("the values exceed a reply of {limit} bytes: ask for fewer keys");
            let refusal = Refusal::new(ErrorCode::TooLarge, u64::from(limit), message);
            return self.refuse(&origin, &refusal);
        }
        self.reply(&origin, |out| {
            let mut values = ValuesBuilder::begin(out, origin.request_id);
            for row in &rows {
                match row {
                    Some(row) => values.push(out, &meta(&row.meta), &row.value),
                    None => values.push_absent(out),
                }
            }
            let seen = seen.iter().map(|token| self.shown(token.partition));
            values.finish(out, seen);
        });
    }

    /// Puts the cores' shares of a multi-get back into the order asked: `order` says of each key
    /// whose share it is in.
    fn merge_values(&self, origin: &Origin, order: &[usize], replies: &[Vec<u8>]) {
        let mut shares = Vec::with_capacity(replies.len());
        let mut tokens = Vec::new();
        for reply in replies {
            match decode_reply(reply) {
                Ok(Response::Values {
                    tokens: seen,
                    values,
                }) => {
                    tokens.extend(seen);
                    shares.push(values.into_iter());
                }
                other => return self.pass_on(origin, other),
            }
        }
        self.reply(origin, |out| {
            let mut values = ValuesBuilder::begin(out, origin.request_id);
            for &share in order {
                match shares.get_mut(share).and_then(Iterator::next).flatten() {
                    Some((meta, value)) => values.push(out, &meta, value),
                    None => values.push_absent(out),
                }
            }
            values.finish(out, tokens);
        });
    }

    /// Answers with another core's error, or with one of our own for an answer that does not fit.
    pub(super) fn pass_on(&self, origin: &Origin, reply: Result<Response<'_>, Refusal>) {
        match reply {
            Ok(error @ Response::Error(_)) => self.answer(origin, &error),
            Err(refusal) => self.refuse(origin, &refusal),
            Ok(_) => self.refuse(
                origin,
                &Refusal::new(ErrorCode::ShardFailed, 0, "a core answered out of turn"),
            ),
        }
    }
}

/// Decodes another core's reply frame.
pub(super) fn decode_reply(bytes: &[u8]) -> Result<Response<'_>, Refusal> {
    frame::open(bytes)
        .and_then(|view| Response::decode(&view))
        .map_err(|error| Refusal::new(ErrorCode::ShardFailed, 0, error.to_string()))
}
