//! One record: what happened to one partition.
//!
//! A record begins with 40 bytes that all kinds share. Its checksum covers them (but itself), so
//! that the segment's epoch and the record's own position are part of what is checked: a stale or
//! misplaced record is never believed.

use super::{Fields, Put, crc32c};
use crate::entry::{
    Effect, EntryHead, KEY_BYTES_MAX, LogId, MEMBERSHIP_BYTES_MAX, OUTCOME_BYTES_MAX, PartitionId,
    VALUE_BYTES_MAX,
};
use crate::planted::{self, Bug};

/// Bytes that every record begins with.
pub const RECORD_HEADER_BYTES: usize = 40;
/// Largest record, in bytes: a value of 16 MiB with its key and room for a batch around it.
pub const RECORD_BYTES_MAX: usize = 24 << 20;

const KIND_ENTRY: u8 = 1;
const KIND_HARD_STATE: u8 = 2;
const KIND_TRUNCATION: u8 = 3;
const KIND_SNAPSHOT: u8 = 4;
const KIND_CHECKPOINT: u8 = 5;
const KIND_MEMBERSHIP: u8 = 6;
const KIND_REMOVAL: u8 = 7;

/// The record names a client and its sequence number.
const FLAG_CLIENT: u8 = 1;

const EFFECT_PUT: u8 = 1;
const EFFECT_DELETE: u8 = 2;
const EFFECT_DELETE_RANGE: u8 = 3;
const EFFECT_MEMBERSHIP: u8 = 4;
const EFFECT_OUTCOME: u8 = 5;
const EFFECT_TAG: u8 = 0x0f;
/// The effect has an expiry.
const EFFECT_EXPIRES: u8 = 0x10;
/// The effect says when the record was created.
const EFFECT_CREATED: u8 = 0x20;

/// Where a record stands in a segment: what its bytes say of it must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The segment's epoch.
    pub epoch: u64,
    /// Byte offset in the segment's file.
    pub offset: u32,
}

/// What a replica must remember of elections and commitment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HardState {
    /// The replica's own number; 0 for none.
    pub replica_id: u64,
    /// The newest term it has seen.
    pub term: u64,
    /// The replica it voted for in that term; 0 for none.
    pub vote: u64,
    /// The highest index it knows to be committed.
    pub commit: u64,
}

/// What a record says. Borrowed from the group's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordView<'a> {
    /// An entry of a partition. Supersedes the partition's earlier records of the same or a higher
    /// index.
    Entry {
        /// Where it stands, who wrote it.
        head: EntryHead,
        /// What it does.
        effects: Effects<'a>,
    },
    /// A replica's hard state.
    HardState {
        /// The partition.
        partition: PartitionId,
        /// The state.
        state: HardState,
    },
    /// Entries up to `upto` are no longer in this log.
    Truncation {
        /// The partition.
        partition: PartitionId,
        /// The last entry that is gone.
        upto: LogId,
    },
    /// The partition's state was replaced by a snapshot: earlier records of it do not count.
    Snapshot {
        /// The partition.
        partition: PartitionId,
        /// The last entry that the snapshot holds.
        id: LogId,
        /// The partition's time there.
        time_ms: u64,
        /// The group's membership there, as the consensus layer wrote it.
        membership: &'a [u8],
    },
    /// The group's membership from an entry on, once that entry was applied.
    Membership {
        /// The partition.
        partition: PartitionId,
        /// The membership, as the consensus layer wrote it.
        membership: &'a [u8],
    },
    /// The shard has no replica of the partition any more: earlier records of it do not count.
    Removal {
        /// The partition.
        partition: PartitionId,
    },
    /// All that is remembered of a replica, in a segment's header area.
    Checkpoint(CheckpointView<'a>),
}

/// A replica's state where a segment begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointView<'a> {
    /// The partition.
    pub partition: PartitionId,
    /// Its last entry.
    pub last: LogId,
    /// Its hard state.
    pub hard: HardState,
    /// The last entry that was no longer in the log.
    pub truncated: LogId,
    /// The partition's time at `last`.
    pub time_ms: u64,
    /// The group's membership, as the consensus layer wrote it.
    pub membership: &'a [u8],
}

/// The effects of an entry, decoded as they are asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Effects<'a> {
    bytes: &'a [u8],
}

impl std::fmt::Debug for Effects<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(*self).finish()
    }
}

impl<'a> Effects<'a> {
    /// Whether the bytes are effects from end to end.
    fn is_valid(mut self) -> bool {
        while !self.bytes.is_empty() {
            if self.next().is_none() {
                return false;
            }
        }
        true
    }

    /// Length of the encoded effects, in bytes.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        self.bytes.len()
    }
}

impl<'a> Iterator for Effects<'a> {
    type Item = Effect<'a>;

    #[inline]
    fn next(&mut self) -> Option<Effect<'a>> {
        let mut fields = Fields(self.bytes);
        let tag = fields.u8()?;
        if tag == EFFECT_MEMBERSHIP {
            let len = fields.u32()? as usize;
            if len > MEMBERSHIP_BYTES_MAX {
                return None;
            }
            let change = fields.bytes(len)?;
            self.bytes = fields.0;
            return Some(Effect::Membership { change });
        }
        if tag == EFFECT_OUTCOME {
            let len = usize::from(fields.u16()?);
            if len > OUTCOME_BYTES_MAX {
                return None;
            }
            let outcome = fields.bytes(len)?;
            self.bytes = fields.0;
            return Some(Effect::Outcome { outcome });
        }
        let keyspace = fields.u32()?;
        let first_len = fields.u32()? as usize;
        if first_len > KEY_BYTES_MAX {
            return None;
        }
        let effect = match tag & EFFECT_TAG {
            EFFECT_PUT => {
                let value_len = fields.u32()? as usize;
                if value_len > VALUE_BYTES_MAX {
                    return None;
                }
                let expires_ms = if tag & EFFECT_EXPIRES != 0 {
                    fields.u64()?
                } else {
                    0
                };
                let created_ms = if tag & EFFECT_CREATED != 0 {
                    fields.u64()?
                } else {
                    0
                };
                Effect::Put {
                    keyspace,
                    key: fields.bytes(first_len)?,
                    value: fields.bytes(value_len)?,
                    expires_ms,
                    created_ms,
                }
            }
            EFFECT_DELETE => Effect::Delete {
                keyspace,
                key: fields.bytes(first_len)?,
            },
            EFFECT_DELETE_RANGE => {
                let to_len = fields.u32()? as usize;
                if to_len > KEY_BYTES_MAX {
                    return None;
                }
                Effect::DeleteRange {
                    keyspace,
                    from: fields.bytes(first_len)?,
                    to: fields.bytes(to_len)?,
                }
            }
            _ => return None,
        };
        self.bytes = fields.0;
        Some(effect)
    }
}

/// Encoded length of one effect, in bytes.
#[inline]
fn effect_bytes(effect: &Effect<'_>) -> usize {
    match *effect {
        Effect::Put {
            key,
            value,
            expires_ms,
            created_ms,
            ..
        } => {
            13 + key.len()
                + value.len()
                + 8 * (usize::from(expires_ms != 0) + usize::from(created_ms != 0))
        }
        Effect::Delete { key, .. } => 9 + key.len(),
        Effect::DeleteRange { from, to, .. } => 13 + from.len() + to.len(),
        Effect::Membership { change } => 5 + change.len(),
        Effect::Outcome { outcome } => 3 + outcome.len(),
    }
}

/// Encoded length of an entry, in bytes; `None` if a key, a value or the whole is over its limit.
#[inline]
#[must_use]
pub fn entry_bytes(head: &EntryHead, effects: &[Effect<'_>]) -> Option<usize> {
    let mut bytes = RECORD_HEADER_BYTES + 8;
    if head.client != 0 || head.sequence != 0 {
        bytes += 16;
    }
    for effect in effects {
        let (key_max, value) = match *effect {
            Effect::Put { key, value, .. } => (key.len(), value.len()),
            Effect::Delete { key, .. } => (key.len(), 0),
            Effect::DeleteRange { from, to, .. } => (from.len().max(to.len()), 0),
            Effect::Membership { change } if change.len() > MEMBERSHIP_BYTES_MAX => return None,
            Effect::Outcome { outcome } if outcome.len() > OUTCOME_BYTES_MAX => return None,
            Effect::Membership { .. } | Effect::Outcome { .. } => (0, 0),
        };
        if key_max > KEY_BYTES_MAX || value > VALUE_BYTES_MAX {
            return None;
        }
        bytes += effect_bytes(effect);
    }
    (bytes <= RECORD_BYTES_MAX).then_some(bytes)
}

/// What all kinds share.
struct Common {
    kind: u8,
    flags: u8,
    partition: PartitionId,
    id: LogId,
}

/// Writes the shared header over `out` (a whole record whose body is in place) and seals it.
#[inline]
fn seal(out: &mut [u8], place: Place, common: &Common) {
    let len = out.len() as u32;
    Put::new(out)
        .u32(0)
        .u32(len)
        .u32(place.epoch as u32)
        .u32(place.offset)
        .u8(common.kind)
        .u8(common.flags)
        .u16(common.partition)
        .u32(0)
        .u64(common.id.term)
        .u64(common.id.index);
    let crc = crc32c(&out[4..]);
    out[..4].copy_from_slice(&crc.to_le_bytes());
}

/// Encodes an entry over the whole of `out`, whose length is what [`entry_bytes`] said.
#[inline]
pub fn encode_entry(out: &mut [u8], place: Place, head: &EntryHead, effects: &[Effect<'_>]) {
    let flags = encode_body(&mut out[RECORD_HEADER_BYTES..], head, effects);
    let common = Common {
        kind: KIND_ENTRY,
        flags,
        partition: head.partition,
        id: head.id,
    };
    seal(out, place, &common);
}

/// Writes what an entry's record has behind its header; says its flags.
#[inline]
fn encode_body(out: &mut [u8], head: &EntryHead, effects: &[Effect<'_>]) -> u8 {
    let has_client = head.client != 0 || head.sequence != 0;
    let mut put = Put::new(out);
    put.u64(head.time_ms);
    if has_client {
        put.u64(head.client).u64(head.sequence);
    }
    for effect in effects {
        encode_effect(&mut put, effect);
    }
    if has_client { FLAG_CLIENT } else { 0 }
}

/// An entry's payload: what its record has but the place where it is logged, so that it can be
/// encoded once and then be logged, sent and applied. A byte of flags, then the record's body.
///
/// `None` if a key, a value or the whole is over its limit.
#[inline]
#[must_use]
pub fn encode_payload(head: &EntryHead, effects: &[Effect<'_>]) -> Option<Vec<u8>> {
    let bytes = entry_bytes(head, effects)? - RECORD_HEADER_BYTES;
    let mut payload = vec![0; 1 + bytes];
    payload[0] = encode_body(&mut payload[1..], head, effects);
    Some(payload)
}

/// What an entry's payload says, fully checked. `None` if it is none.
#[must_use]
pub fn decode_payload(
    partition: PartitionId,
    id: LogId,
    payload: &[u8],
) -> Option<(EntryHead, Effects<'_>)> {
    if payload.len() > RECORD_BYTES_MAX - RECORD_HEADER_BYTES + 1 {
        return None;
    }
    let (head, effects) = decode_payload_trusted(partition, id, payload)?;
    effects.is_valid().then_some((head, effects))
}

/// What a payload says that was checked by [`decode_payload`] or encoded by this process.
#[inline]
#[must_use]
pub fn decode_payload_trusted(
    partition: PartitionId,
    id: LogId,
    payload: &[u8],
) -> Option<(EntryHead, Effects<'_>)> {
    let (flags, body) = payload.split_first()?;
    entry(*flags, partition, id, body)
}

/// Length of the record that logs a payload, in bytes.
#[inline]
#[must_use]
pub fn payload_record_bytes(payload: &[u8]) -> usize {
    RECORD_HEADER_BYTES + payload.len().saturating_sub(1)
}

/// Encodes an entry whose payload is at hand over the whole of `out`, whose length is what
/// [`payload_record_bytes`] said.
#[inline]
pub fn encode_entry_payload(
    out: &mut [u8],
    place: Place,
    partition: PartitionId,
    id: LogId,
    payload: &[u8],
) {
    let (flags, body) = payload.split_first().map_or((0, payload), |(f, b)| (*f, b));
    Put::new(&mut out[RECORD_HEADER_BYTES..]).bytes(body);
    let common = Common {
        kind: KIND_ENTRY,
        flags,
        partition,
        id,
    };
    seal(out, place, &common);
}

/// The bytes of the record at the start of `bytes`, which were checked.
pub(crate) fn first_record(bytes: &[u8]) -> Option<&[u8]> {
    let mut fields = Fields(bytes);
    fields.u32()?;
    let len = fields.u32()? as usize;
    bytes.get(..len)
}

/// The payload of an entry's record, whose bytes were checked.
#[must_use]
pub fn payload_of(record: &[u8]) -> Option<Vec<u8>> {
    let body = record.get(RECORD_HEADER_BYTES..)?;
    let mut payload = Vec::with_capacity(1 + body.len());
    payload.push(*record.get(17)?);
    payload.extend_from_slice(body);
    Some(payload)
}

#[inline]
fn encode_effect(put: &mut Put<'_>, effect: &Effect<'_>) {
    match *effect {
        Effect::Put {
            keyspace,
            key,
            value,
            expires_ms,
            created_ms,
        } => {
            let mut tag = EFFECT_PUT;
            if expires_ms != 0 {
                tag |= EFFECT_EXPIRES;
            }
            if created_ms != 0 {
                tag |= EFFECT_CREATED;
            }
            put.u8(tag)
                .u32(keyspace)
                .u32(key.len() as u32)
                .u32(value.len() as u32);
            if expires_ms != 0 {
                put.u64(expires_ms);
            }
            if created_ms != 0 {
                put.u64(created_ms);
            }
            put.bytes(key).bytes(value);
        }
        Effect::Delete { keyspace, key } => {
            put.u8(EFFECT_DELETE)
                .u32(keyspace)
                .u32(key.len() as u32)
                .bytes(key);
        }
        Effect::DeleteRange { keyspace, from, to } => {
            put.u8(EFFECT_DELETE_RANGE)
                .u32(keyspace)
                .u32(from.len() as u32)
                .u32(to.len() as u32)
                .bytes(from)
                .bytes(to);
        }
        Effect::Membership { change } => {
            put.u8(EFFECT_MEMBERSHIP)
                .u32(change.len() as u32)
                .bytes(change);
        }
        Effect::Outcome { outcome } => {
            put.u8(EFFECT_OUTCOME)
                .u16(outcome.len() as u16)
                .bytes(outcome);
        }
    }
}

/// Encoded length of a hard state, in bytes.
pub const HARD_STATE_BYTES: usize = RECORD_HEADER_BYTES + 16;
/// Encoded length of a truncation, in bytes.
pub const TRUNCATION_BYTES: usize = RECORD_HEADER_BYTES;

/// Encodes a hard state over the whole of `out`, [`HARD_STATE_BYTES`] long.
pub fn encode_hard_state(out: &mut [u8], place: Place, partition: PartitionId, state: &HardState) {
    Put::new(&mut out[RECORD_HEADER_BYTES..])
        .u64(state.replica_id)
        .u64(state.vote);
    let common = Common {
        kind: KIND_HARD_STATE,
        flags: 0,
        partition,
        id: LogId {
            term: state.term,
            index: state.commit,
        },
    };
    seal(out, place, &common);
}

/// Encodes a truncation over the whole of `out`, [`TRUNCATION_BYTES`] long.
pub fn encode_truncation(out: &mut [u8], place: Place, partition: PartitionId, upto: LogId) {
    let common = Common {
        kind: KIND_TRUNCATION,
        flags: 0,
        partition,
        id: upto,
    };
    seal(out, place, &common);
}

/// Encoded length of a snapshot record, in bytes.
#[must_use]
pub fn snapshot_bytes(membership: &[u8]) -> usize {
    RECORD_HEADER_BYTES + 8 + membership.len()
}

/// Encodes a snapshot over the whole of `out`, whose length is what [`snapshot_bytes`] said.
pub fn encode_snapshot(
    out: &mut [u8],
    place: Place,
    partition: PartitionId,
    id: LogId,
    time_ms: u64,
    membership: &[u8],
) {
    Put::new(&mut out[RECORD_HEADER_BYTES..])
        .u64(time_ms)
        .bytes(membership);
    let common = Common {
        kind: KIND_SNAPSHOT,
        flags: 0,
        partition,
        id,
    };
    seal(out, place, &common);
}

/// Encoded length of a membership record, in bytes.
#[must_use]
pub fn membership_bytes(membership: &[u8]) -> usize {
    RECORD_HEADER_BYTES + membership.len()
}

/// Encodes a membership over the whole of `out`, whose length is what [`membership_bytes`] said.
pub fn encode_membership(out: &mut [u8], place: Place, partition: PartitionId, membership: &[u8]) {
    Put::new(&mut out[RECORD_HEADER_BYTES..]).bytes(membership);
    let common = Common {
        kind: KIND_MEMBERSHIP,
        flags: 0,
        partition,
        id: LogId::default(),
    };
    seal(out, place, &common);
}

/// Encoded length of a removal, in bytes.
pub const REMOVAL_BYTES: usize = RECORD_HEADER_BYTES;

/// Encodes a removal over the whole of `out`, [`REMOVAL_BYTES`] long.
pub fn encode_removal(out: &mut [u8], place: Place, partition: PartitionId) {
    let common = Common {
        kind: KIND_REMOVAL,
        flags: 0,
        partition,
        id: LogId::default(),
    };
    seal(out, place, &common);
}

/// Encoded length of a checkpoint record, in bytes.
#[must_use]
pub fn checkpoint_bytes(membership: &[u8]) -> usize {
    RECORD_HEADER_BYTES + 56 + membership.len()
}

/// Encodes a checkpoint over the whole of `out`, whose length is what [`checkpoint_bytes`] said.
pub fn encode_checkpoint(out: &mut [u8], place: Place, checkpoint: &CheckpointView<'_>) {
    Put::new(&mut out[RECORD_HEADER_BYTES..])
        .u64(checkpoint.hard.replica_id)
        .u64(checkpoint.hard.term)
        .u64(checkpoint.hard.vote)
        .u64(checkpoint.hard.commit)
        .u64(checkpoint.truncated.term)
        .u64(checkpoint.truncated.index)
        .u64(checkpoint.time_ms)
        .bytes(checkpoint.membership);
    let common = Common {
        kind: KIND_CHECKPOINT,
        flags: 0,
        partition: checkpoint.partition,
        id: checkpoint.last,
    };
    seal(out, place, &common);
}

/// The record at the start of `bytes` and its length, fully checked: checksum, place, kind and
/// every length in it. `None` if anything is wrong.
#[must_use]
pub fn decode(bytes: &[u8], place: Place) -> Option<(RecordView<'_>, usize)> {
    let mut fields = Fields(bytes);
    let crc = fields.u32()?;
    let len = fields.u32()? as usize;
    if !(RECORD_HEADER_BYTES..=RECORD_BYTES_MAX).contains(&len) {
        return None;
    }
    let record = bytes.get(..len)?;
    if fields.u32()? != place.epoch as u32 || fields.u32()? != place.offset {
        return None;
    }
    if crc32c(&record[4..]) != crc && !planted::is(Bug::LogChecksumIgnored) {
        return None;
    }
    let view = view(record)?;
    if let RecordView::Entry { effects, .. } = &view
        && !effects.is_valid()
    {
        return None;
    }
    Some((view, len))
}

/// The record at the start of bytes that this process has written itself, or has checked with
/// [`decode`] before: only lengths are checked.
#[inline]
#[must_use]
pub(crate) fn decode_trusted(bytes: &[u8]) -> Option<(RecordView<'_>, usize)> {
    let mut fields = Fields(bytes);
    fields.u32()?;
    let len = fields.u32()? as usize;
    Some((view(bytes.get(..len)?)?, len))
}

/// What a whole record says.
#[inline]
fn view(record: &[u8]) -> Option<RecordView<'_>> {
    let mut fields = Fields(record.get(16..)?);
    let kind = fields.u8()?;
    let flags = fields.u8()?;
    let partition = fields.u16()?;
    let _reserved = fields.u32()?;
    let id = LogId {
        term: fields.u64()?,
        index: fields.u64()?,
    };
    match kind {
        KIND_ENTRY => {
            let (head, effects) = entry(flags, partition, id, fields.0)?;
            Some(RecordView::Entry { head, effects })
        }
        KIND_HARD_STATE => {
            let state = HardState {
                replica_id: fields.u64()?,
                term: id.term,
                vote: fields.u64()?,
                commit: id.index,
            };
            fields
                .0
                .is_empty()
                .then_some(RecordView::HardState { partition, state })
        }
        KIND_TRUNCATION => fields.0.is_empty().then_some(RecordView::Truncation {
            partition,
            upto: id,
        }),
        KIND_SNAPSHOT => {
            let time_ms = fields.u64()?;
            let membership = fields.0;
            (membership.len() <= MEMBERSHIP_BYTES_MAX).then_some(RecordView::Snapshot {
                partition,
                id,
                time_ms,
                membership,
            })
        }
        KIND_MEMBERSHIP => {
            let membership = fields.0;
            (membership.len() <= MEMBERSHIP_BYTES_MAX).then_some(RecordView::Membership {
                partition,
                membership,
            })
        }
        KIND_REMOVAL => Some(RecordView::Removal { partition }),
        KIND_CHECKPOINT => {
            let hard = HardState {
                replica_id: fields.u64()?,
                term: fields.u64()?,
                vote: fields.u64()?,
                commit: fields.u64()?,
            };
            let truncated = LogId {
                term: fields.u64()?,
                index: fields.u64()?,
            };
            let checkpoint = CheckpointView {
                partition,
                last: id,
                hard,
                truncated,
                time_ms: fields.u64()?,
                membership: fields.0,
            };
            (checkpoint.membership.len() <= MEMBERSHIP_BYTES_MAX)
                .then_some(RecordView::Checkpoint(checkpoint))
        }
        _ => None,
    }
}

/// What an entry's body says.
#[inline]
fn entry(
    flags: u8,
    partition: PartitionId,
    id: LogId,
    body: &[u8],
) -> Option<(EntryHead, Effects<'_>)> {
    let mut fields = Fields(body);
    let time_ms = fields.u64()?;
    let (client, sequence) = if flags & FLAG_CLIENT != 0 {
        (fields.u64()?, fields.u64()?)
    } else {
        (0, 0)
    };
    let head = EntryHead {
        partition,
        id,
        client,
        sequence,
        time_ms,
    };
    Some((head, Effects { bytes: fields.0 }))
}
