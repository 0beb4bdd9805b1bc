//! Reads: from memory at once, from the disk in a task, after waiting where the read level asks
//! ([`super::read_level`]).
//!
//! A record that is expired by the wall clock but not yet by the partition's time is not simply
//! hidden: the partition's time must first have passed its expiry for everybody. So the read
//! proposes an empty entry, which carries the time, and is served behind it; reads that come
//! meanwhile share that entry.

use std::rc::Rc;

use ringbolt_engine::env::{Env, TaskClass};
use ringbolt_engine::row::{ReadAt, RowKeyBuf, RowMeta, split_row_key};
use ringbolt_engine::tree::{Lookup, Row, Undecided};
use ringbolt_wire::codec::{self};
use ringbolt_wire::frame;
use ringbolt_wire::message::{
    ErrorCode, KeyspaceId, PartitionId, ReadLevel, ReadOptions, Response, Token,
};

use super::counters::add;
use super::mail::{Origin, Scope};
use super::read_level::too_old;
use super::refuse::not_leader;
use super::reply::{Refusal, meta};
use super::trace::Wait;
use super::{Deferred, Inner, micros};

/// What a read from memory came to.
pub(super) enum Glance<E: Env> {
    /// There is a record, and it was told.
    Told,
    Absent,
    /// The record is expired by the clock, not yet by the partition's time.
    Expiring,
    /// The disk must be asked.
    NeedsDisk(Undecided<E>),
    /// It is not known whether this replica still leads.
    Unproven,
}

/// A read of one key that needs the disk: what was shown of its partition when it began, and how far it came.
struct Begun<E: Env> {
    seen: Token,
    at: ReadAt,
    undecided: Undecided<E>,
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

    /// Sees to it that reads just made may be answered: `seen` is what was shown of each partition when its
    /// read began.
    ///
    /// Whoever leads now knows the newest state. Whether it did when it read is certain only if it has led
    /// ever since: another may have led in between, and have written.
    pub(super) async fn prove_reads(
        &self,
        seen: impl IntoIterator<Item = Token>,
        level: ReadLevel,
    ) -> Result<(), Refusal> {
        for Token {
            partition, term, ..
        } in seen
        {
            let is_led = matches!(level, ReadLevel::Linearizable | ReadLevel::Strict);
            // A leader serves once it has applied an entry of its own term.
            if is_led && self.with_replica(partition, |replica| replica.term()) != Some(term) {
                let replicas = self.replicas.borrow();
                let replica = replicas.get(usize::from(partition));
                return Err(not_leader(partition, replica.and_then(Option::as_ref)));
            }
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
        let head = self.propose(partition, None, &[])?;
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
            Glance::NeedsDisk(undecided) => {
                let begun = Begun {
                    seen,
                    at,
                    undecided,
                };
                self.get_in_task(origin, scope, target, key, Some(begun), bytes);
            }
            Glance::Unproven => self.get_in_task(origin, scope, target, key, None, bytes),
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
    ) -> Glance<E> {
        let mut row_key = self.row_key.borrow_mut();
        let row_key = row_key.set(partition, keyspace, key);
        let found = self.engine.tree().get_now(row_key, at, |row, value| {
            if self.expires_here(partition, &row) {
                return Glance::Expiring;
            }
            if !self.proven_now(partition, level) {
                return Glance::Unproven;
            }
            tell(&row, value);
            Glance::Told
        });
        match found {
            Lookup::Found(glance) => glance,
            Lookup::Absent if self.proven_now(partition, level) => Glance::Absent,
            Lookup::Absent => Glance::Unproven,
            Lookup::NeedsDisk(undecided) => Glance::NeedsDisk(undecided),
        }
    }

    fn get_in_task(
        self: &Rc<Self>,
        origin: Origin,
        scope: Scope,
        target: (PartitionId, KeyspaceId, ReadLevel),
        key: &[u8],
        begun: Option<Begun<E>>,
        bytes: &[u8],
    ) {
        add(&self.counters.reads_from_disk_total, 1);
        let this = Rc::clone(self);
        let row_key = RowKeyBuf::of(target.0, target.1, key);
        // Kept only for the rare record that expires in just this moment.
        let frame = bytes.to_vec();
        self.env.spawn(TaskClass::Foreground, async move {
            this.finish_get(origin, scope, target, &row_key, begun, &frame)
                .await;
        });
    }

    async fn finish_get(
        &self,
        mut origin: Origin,
        scope: Scope,
        (partition, keyspace, level): (PartitionId, KeyspaceId, ReadLevel),
        row_key: &[u8],
        begun: Option<Begun<E>>,
        frame: &[u8],
    ) {
        let tree = self.engine.tree();
        let (seen, found) = match begun {
            Some(begun) => {
                let row = tree.go_on(begun.undecided, row_key, begun.at, Row::of);
                (begun.seen, row.await)
            }
            None => match self.view(partition, keyspace, level) {
                Ok((seen, at)) => (seen, tree.get(row_key, at).await),
                Err(refusal) => return self.refuse(&origin, &refusal),
            },
        };
        origin.trace.mark(Wait::Disk, self.now_us());
        let found = match found {
            Ok(found) => found,
            Err(error) => return self.refuse(&origin, &Refusal::from(error)),
        };
        let proven = self.prove_reads([seen], level).await;
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
            let proven = this.prove_reads([seen], level).await;
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
