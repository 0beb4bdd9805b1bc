//! Entries and snapshots as the `raft` crate has them, and the payloads that log, peers and tree read.

use std::borrow::Cow;

use raft::eraftpb::{Entry, EntryType, Snapshot};
use ringbolt_engine::entry::{Effect, EntryHead, LogId, PartitionId};
use ringbolt_engine::log::{decode_payload_trusted, encode_payload};

use super::store::id_of;
use super::{Change, Membership};

/// The payload of an entry that only opens a term: no time, no effects.
const EMPTY_PAYLOAD: [u8; 9] = [0; 9];

/// A snapshot as the `raft` crate wants it.
#[must_use]
pub fn snapshot_of(id: LogId, membership: &Membership) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let metadata = snapshot.mut_metadata();
    metadata.index = id.index;
    metadata.term = id.term;
    metadata.set_conf_state(membership.conf.clone());
    snapshot
}

/// An entry as the `raft` crate wants it, from its payload.
#[must_use]
pub fn from_payload(partition: PartitionId, id: LogId, payload: Vec<u8>) -> Entry {
    let mut entry = Entry {
        term: id.term,
        index: id.index,
        ..Entry::default()
    };
    if payload == EMPTY_PAYLOAD {
        return entry;
    }
    let changes =
        decode_payload_trusted(partition, id, &payload).is_some_and(|(_, mut effects)| {
            effects.any(|effect| matches!(effect, Effect::Membership { .. }))
        });
    if changes {
        // The crate reads a change's own bytes only from the proposer.
        entry.set_entry_type(EntryType::EntryConfChangeV2);
        entry.context = payload.into();
    } else {
        entry.data = payload.into();
    }
    entry
}

/// The payload of an entry: what is logged, sent and applied.
#[must_use]
pub fn payload_of(partition: PartitionId, entry: &Entry) -> Cow<'_, [u8]> {
    match entry.get_entry_type() {
        EntryType::EntryNormal if entry.data.is_empty() => Cow::Borrowed(&EMPTY_PAYLOAD),
        EntryType::EntryNormal => Cow::Borrowed(&entry.data),
        _ if !entry.context.is_empty() => Cow::Borrowed(&entry.context),
        // The crate's own proposal to leave the joint state.
        _ => {
            let head = EntryHead {
                partition,
                id: id_of(entry),
                ..EntryHead::default()
            };
            let change = Change::default().encode();
            let leave = encode_payload(&head, &[Effect::Membership { change: &change }]);
            Cow::Owned(leave.unwrap_or_default())
        }
    }
}
