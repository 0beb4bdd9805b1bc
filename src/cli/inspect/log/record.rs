//! One record, as text and as JSON.

use std::io::{self, Write};
use std::path::Path;

use ringbolt_engine::entry::{Effect, LogId, PartitionId};
use ringbolt_engine::log::{HardState, RecordView};
use serde_json::{Value, json};

use crate::cli::inspect::show_bytes;
use crate::cli::output::{JsonBytes, show_time};

/// Where a record stands.
pub(super) struct Place<'a> {
    pub(super) segment: &'a Path,
    pub(super) epoch: u64,
    /// The number of its group.
    pub(super) sequence: u64,
    /// Byte offset in the segment; 0 for a checkpoint.
    pub(super) offset: u64,
}

/// Whether a record is of this partition and writes this key.
pub(super) fn is_wanted(
    record: &RecordView<'_>,
    partition: Option<PartitionId>,
    key: Option<&[u8]>,
) -> bool {
    let of_partition = partition.is_none_or(|wanted| wanted == partition_of(record));
    let of_key = key.is_none_or(|wanted| match record {
        RecordView::Entry { effects, .. } => (*effects).into_iter().any(|effect| match effect {
            Effect::Put { key, .. } | Effect::Delete { key, .. } => key == wanted,
            Effect::DeleteRange { from, to, .. } => {
                from <= wanted && (to.is_empty() || wanted < to)
            }
            Effect::Membership { .. } | Effect::Outcome { .. } => false,
        }),
        _ => false,
    });
    of_partition && of_key
}

fn partition_of(record: &RecordView<'_>) -> PartitionId {
    match record {
        RecordView::Entry { head, .. } => head.partition,
        RecordView::HardState { partition, .. }
        | RecordView::Truncation { partition, .. }
        | RecordView::Snapshot { partition, .. }
        | RecordView::Membership { partition, .. }
        | RecordView::Removal { partition } => *partition,
        RecordView::Checkpoint(checkpoint) => checkpoint.partition,
    }
}

/// Writes a record as a line, and a line for each effect of an entry.
pub(super) fn text(
    place: &Place<'_>,
    record: &RecordView<'_>,
    out: &mut impl Write,
) -> io::Result<()> {
    write!(
        out,
        "epoch {} group {} at {}: partition {}, ",
        place.epoch,
        place.sequence,
        place.offset,
        partition_of(record),
    )?;
    match record {
        RecordView::Entry { head, effects } => {
            write!(
                out,
                "entry {}, {}",
                show_id(head.id),
                show_time(head.time_ms)
            )?;
            if head.client != 0 {
                write!(out, ", client {:016x} write {}", head.client, head.sequence)?;
            }
            writeln!(out)?;
            for effect in *effects {
                writeln!(out, "    {}", show_effect(&effect))?;
            }
            Ok(())
        }
        RecordView::HardState { state, .. } => writeln!(out, "hard state: {}", show_hard(state)),
        RecordView::Truncation { upto, .. } => writeln!(out, "truncated to {}", show_id(*upto)),
        RecordView::Snapshot { id, time_ms, .. } => {
            writeln!(out, "snapshot {}, {}", show_id(*id), show_time(*time_ms))
        }
        RecordView::Membership { membership, .. } => {
            writeln!(out, "membership {}", show_bytes(membership))
        }
        RecordView::Removal { .. } => writeln!(out, "removed"),
        RecordView::Checkpoint(checkpoint) => writeln!(
            out,
            "checkpoint: last {}, truncated to {}, {}; {}",
            show_id(checkpoint.last),
            show_id(checkpoint.truncated),
            show_time(checkpoint.time_ms),
            show_hard(&checkpoint.hard),
        ),
    }
}

fn show_id(id: LogId) -> String {
    format!("{}:{}", id.term, id.index)
}

fn show_hard(state: &HardState) -> String {
    format!(
        "replica {:016x}, term {}, vote {:016x}, commit {}",
        state.replica_id, state.term, state.vote, state.commit
    )
}

fn show_effect(effect: &Effect<'_>) -> String {
    match effect {
        Effect::Put {
            keyspace,
            key,
            value,
            expires_ms,
            ..
        } => {
            let expires = match expires_ms {
                0 => String::new(),
                ms => format!(", expires {}", show_time(*ms)),
            };
            let value = show_bytes(value);
            format!(
                "put keyspace {keyspace} {} = {value}{expires}",
                show_bytes(key)
            )
        }
        Effect::Delete { keyspace, key } => {
            format!("delete keyspace {keyspace} {}", show_bytes(key))
        }
        Effect::DeleteRange { keyspace, from, to } => format!(
            "delete range keyspace {keyspace} {} to {}",
            show_bytes(from),
            if to.is_empty() {
                "its end".to_string()
            } else {
                show_bytes(to)
            },
        ),
        Effect::Membership { change } => format!("change membership {}", show_bytes(change)),
        Effect::Outcome { outcome } => format!("comes to {}", show_bytes(outcome)),
    }
}

/// A record as one JSON object.
pub(super) fn json(place: &Place<'_>, record: &RecordView<'_>) -> Value {
    let id = |id: LogId| json!({ "term": id.term, "index": id.index });
    let hard = |state: &HardState| {
        json!({
            "replica_id": state.replica_id,
            "term": state.term,
            "vote": state.vote,
            "commit": state.commit,
        })
    };
    let (kind, content) = match record {
        RecordView::Entry { head, effects } => (
            "entry",
            json!({
                "id": id(head.id),
                "time_ms": head.time_ms,
                "client": head.client,
                "sequence": head.sequence,
                "effects": (*effects).map(|effect| json_effect(&effect)).collect::<Vec<_>>(),
            }),
        ),
        RecordView::HardState { state, .. } => ("hard_state", hard(state)),
        RecordView::Truncation { upto, .. } => ("truncation", json!({ "upto": id(*upto) })),
        RecordView::Snapshot {
            id: last, time_ms, ..
        } => ("snapshot", json!({ "id": id(*last), "time_ms": time_ms })),
        RecordView::Membership { membership, .. } => {
            ("membership", json!({ "membership": JsonBytes(membership) }))
        }
        RecordView::Removal { .. } => ("removal", json!({})),
        RecordView::Checkpoint(checkpoint) => (
            "checkpoint",
            json!({
                "last": id(checkpoint.last),
                "truncated": id(checkpoint.truncated),
                "time_ms": checkpoint.time_ms,
                "hard_state": hard(&checkpoint.hard),
            }),
        ),
    };
    json!({
        "segment": place.segment,
        "epoch": place.epoch,
        "group": place.sequence,
        "offset": place.offset,
        "partition": partition_of(record),
        kind: content,
    })
}

fn json_effect(effect: &Effect<'_>) -> Value {
    match effect {
        Effect::Put {
            keyspace,
            key,
            value,
            expires_ms,
            created_ms,
        } => json!({ "put": {
            "keyspace": keyspace,
            "key": JsonBytes(key),
            "value": JsonBytes(value),
            "expires_ms": expires_ms,
            "created_ms": created_ms,
        }}),
        Effect::Delete { keyspace, key } => json!({ "delete": {
            "keyspace": keyspace,
            "key": JsonBytes(key),
        }}),
        Effect::DeleteRange { keyspace, from, to } => json!({ "delete_range": {
            "keyspace": keyspace,
            "from": JsonBytes(from),
            "to": JsonBytes(to),
        }}),
        Effect::Membership { change } => json!({ "membership": { "change": JsonBytes(change) } }),
        Effect::Outcome { outcome } => json!({ "outcome": JsonBytes(outcome) }),
    }
}
