//! What a tree must show, kept in a `BTreeMap`.

use std::collections::BTreeMap;

use crate::entry::{Effect, EntryHead, LogId, PartitionId};
use crate::row::{RowMeta, encode_row_key, keyspace_range};

/// An effect, owned.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Put {
        key: Vec<u8>,
        value: Vec<u8>,
        expires_ms: u64,
        created_ms: u64,
    },
    Delete {
        key: Vec<u8>,
    },
    DeleteRange {
        from: Vec<u8>,
        to: Vec<u8>,
    },
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub head: EntryHead,
    pub keyspace: u32,
    pub ops: Vec<Op>,
}

impl Entry {
    pub(crate) fn effects(&self) -> impl Iterator<Item = Effect<'_>> {
        let keyspace = self.keyspace;
        self.ops.iter().map(move |op| match op {
            Op::Put {
                key,
                value,
                expires_ms,
                created_ms,
            } => Effect::Put {
                keyspace,
                key,
                value,
                expires_ms: *expires_ms,
                created_ms: *created_ms,
            },
            Op::Delete { key } => Effect::Delete { keyspace, key },
            Op::DeleteRange { from, to } => Effect::DeleteRange { keyspace, from, to },
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expected {
    /// With the exact creation.
    pub meta: RowMeta,
    pub value: Vec<u8>,
    /// A version with an expiry was overwritten blindly: the creation may come out later.
    pub created_is_loose: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub rows: BTreeMap<Vec<u8>, Expected>,
    pub times: BTreeMap<PartitionId, u64>,
    pub indexes: BTreeMap<PartitionId, u64>,
}

impl Model {
    pub(crate) fn time(&self, partition: PartitionId) -> u64 {
        self.times.get(&partition).copied().unwrap_or(0)
    }

    pub(crate) fn next_head(&mut self, partition: PartitionId, passed_ms: u64) -> EntryHead {
        let index = self.indexes.entry(partition).or_default();
        *index += 1;
        let time = self.times.entry(partition).or_insert(1000);
        *time += passed_ms;
        EntryHead {
            partition,
            id: LogId {
                term: 1 + *index / 100,
                index: *index,
            },
            // Every other one is numbered.
            client: 1 + *index % 3,
            sequence: *index * (*index % 2),
            time_ms: *time,
        }
    }

    pub(crate) fn live(&self, row_key: &[u8], time_ms: u64) -> Option<&Expected> {
        self.rows
            .get(row_key)
            .filter(|row| !row.meta.expired_at(time_ms))
    }

    pub(crate) fn apply(&mut self, entry: &Entry) {
        let head = &entry.head;
        // A range delete covers nothing of its own entry.
        for op in &entry.ops {
            if let Op::DeleteRange { from, to } = op {
                let (from, to) = keyspace_range(head.partition, entry.keyspace, from, to);
                let gone: Vec<_> = match from < to {
                    true => self.rows.range(from..to).map(|(k, _)| k.clone()).collect(),
                    false => Vec::new(),
                };
                for key in gone {
                    self.rows.remove(&key);
                }
            }
        }
        for op in &entry.ops {
            let mut row_key = Vec::new();
            match op {
                Op::Put {
                    key,
                    value,
                    expires_ms,
                    created_ms,
                } => {
                    encode_row_key(head.partition, entry.keyspace, key, &mut row_key);
                    let older = self.live(&row_key, head.time_ms);
                    let (created, is_loose) = match (created_ms, older) {
                        (0, Some(older)) => (
                            older.meta.created_ms,
                            older.created_is_loose || older.meta.expires_ms != 0,
                        ),
                        (0, None) => (head.time_ms, false),
                        (created, _) => (*created, false),
                    };
                    let row = Expected {
                        meta: RowMeta {
                            version: head.id.index,
                            updated_ms: head.time_ms,
                            created_ms: created,
                            expires_ms: *expires_ms,
                        },
                        value: value.clone(),
                        created_is_loose: is_loose,
                    };
                    self.rows.insert(row_key, row);
                }
                Op::Delete { key } => {
                    encode_row_key(head.partition, entry.keyspace, key, &mut row_key);
                    self.rows.remove(&row_key);
                }
                Op::DeleteRange { .. } => {}
            }
        }
    }
}
