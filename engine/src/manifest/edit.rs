//! What a manifest says: the tables there are, and up to where each partition is in them.

use std::collections::BTreeMap;

use rkyv::{Archive, Deserialize, Serialize};

use crate::entry::{LogId, PartitionId};

/// Levels of the tree: level 0 and six sorted ones.
pub const LEVELS: usize = 7;

/// One table, as the manifest knows it.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
pub struct TableRecord {
    /// Its number: its file's name.
    pub id: u64,
    /// Its level, less than [`LEVELS`].
    pub level: u8,
    /// In level 0: the run it belongs to; a higher run is newer. 0 elsewhere.
    pub run: u64,
    /// Length of the file, in bytes.
    pub bytes: u64,
    /// Bytes of keys and values before compression.
    pub raw_bytes: u64,
    /// Versions in it, tombstones included, range deletes not.
    pub entries: u64,
    /// Tombstones among the entries.
    pub tombstones: u64,
    /// Range deletes in it.
    pub range_deletes: u64,
    /// The lowest version in it.
    pub version_min: u64,
    /// The highest version in it, range deletes included.
    pub version_max: u64,
    /// Entries that are records with an expiry.
    pub expiring: u64,
    /// The earliest expiry of a record in it, in milliseconds; 0 if none expires.
    pub expiry_min_ms: u64,
    /// The latest expiry if every entry is a record that expires, in milliseconds; 0 otherwise.
    pub expiry_max_ms: u64,
    /// The least row key, range deletes included.
    pub smallest: Vec<u8>,
    /// The greatest row key, range deletes included.
    pub largest: Vec<u8>,
    /// Whether `largest` itself is outside: it is the first key that a range delete leaves alone.
    pub largest_excluded: bool,
    /// The checksum of the table's footer, which covers all the rest.
    pub footer_checksum: u64,
}

/// Up to where a partition is in the tables.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlushedRecord {
    /// The partition.
    pub partition: u16,
    /// Term of the last flushed entry.
    pub term: u64,
    /// Index of the last flushed entry.
    pub index: u64,
    /// The partition's time with that entry, in milliseconds.
    pub time_ms: u64,
}

/// A table that changes its level without being rewritten.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MoveRecord {
    /// The table.
    pub id: u64,
    /// Its new level.
    pub level: u8,
}

/// A partition that a table shows nothing of any more: its rows and range deletes in the table
/// count for nothing.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HideRecord {
    /// The table.
    pub id: u64,
    /// The partition.
    pub partition: u16,
}

/// A partition whose content is about to be exchanged: the log decides whether it is.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct PendingRecord {
    /// The partition.
    pub partition: u16,
    /// What for; `None` for nothing: the partition goes.
    pub replacement: Option<Replacement>,
}

/// What takes the place of a partition's content.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
pub struct Replacement {
    /// Term of the last entry in it.
    pub term: u64,
    /// Index of the last entry in it.
    pub index: u64,
    /// The partition's time with that entry, in milliseconds.
    pub time_ms: u64,
    /// The tables that hold it. Their level is settled when they join.
    pub tables: Vec<TableRecord>,
}

/// A change of the tree, all or nothing.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
pub struct Edit {
    /// Tables that join the tree.
    pub added: Vec<TableRecord>,
    /// Tables that leave it.
    pub removed: Vec<u64>,
    /// Tables that change their level.
    pub moved: Vec<MoveRecord>,
    /// Partitions whose flushed position rises.
    pub flushed: Vec<FlushedRecord>,
    /// Partitions that tables stop to show.
    pub hidden: Vec<HideRecord>,
    /// Partitions that are pending no more, whether or not what was pending came to be.
    pub settled: Vec<u16>,
    /// Partitions whose flushed position is forgotten.
    pub dropped: Vec<u16>,
    /// Partitions that become pending.
    pub pending: Vec<PendingRecord>,
}

/// An edit of version 1 of the format.
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct EditV1 {
    added: Vec<TableRecord>,
    removed: Vec<u64>,
    moved: Vec<MoveRecord>,
    flushed: Vec<FlushedRecord>,
}

impl From<EditV1> for Edit {
    fn from(edit: EditV1) -> Self {
        Self {
            added: edit.added,
            removed: edit.removed,
            moved: edit.moved,
            flushed: edit.flushed,
            ..Self::default()
        }
    }
}

/// Up to where a partition has been applied or flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// The last entry.
    pub id: LogId,
    /// The partition's time with that entry, in milliseconds since the Unix epoch.
    pub time_ms: u64,
}

impl Applied {
    /// It as a partition's flushed position.
    #[must_use]
    pub fn record(&self, partition: PartitionId) -> FlushedRecord {
        FlushedRecord {
            partition,
            term: self.id.term,
            index: self.id.index,
            time_ms: self.time_ms,
        }
    }
}

/// What all edits so far add up to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// The tables by number.
    pub tables: BTreeMap<u64, TableRecord>,
    /// The partitions' flushed positions.
    pub flushed: BTreeMap<PartitionId, Applied>,
    /// By table: the partitions that it shows nothing of any more.
    pub hidden: BTreeMap<u64, Vec<PartitionId>>,
    /// What partitions are about to be exchanged for.
    pub pending: BTreeMap<PartitionId, Option<Replacement>>,
}

impl Replacement {
    /// The partition's position with it.
    #[must_use]
    pub fn applied(&self) -> Applied {
        Applied {
            id: LogId {
                term: self.term,
                index: self.index,
            },
            time_ms: self.time_ms,
        }
    }
}

impl TableRecord {
    /// Whether nothing at or above `row_key` is in the table's range.
    #[must_use]
    pub fn ends_before(&self, row_key: &[u8]) -> bool {
        match self.largest.as_slice().cmp(row_key) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal => self.largest_excluded,
            std::cmp::Ordering::Greater => false,
        }
    }

    /// Whether the ranges of two tables have a row key in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        !self.ends_before(&other.smallest) && !other.ends_before(&self.smallest)
    }
}

impl State {
    /// Applies an edit.
    ///
    /// # Errors
    /// Says what is wrong with an edit that does not fit the state, which is then half applied and
    /// must be thrown away.
    pub fn apply(&mut self, edit: &Edit) -> Result<(), String> {
        for id in &edit.removed {
            if self.tables.remove(id).is_none() {
                return Err(format!("removes table {id}, which is not there"));
            }
            self.hidden.remove(id);
        }
        for moved in &edit.moved {
            let Some(table) = self.tables.get_mut(&moved.id) else {
                return Err(format!("moves table {}, which is not there", moved.id));
            };
            if moved.level == 0 || usize::from(moved.level) >= LEVELS {
                return Err(format!("moves a table to level {}", moved.level));
            }
            table.level = moved.level;
            table.run = 0;
        }
        for table in &edit.added {
            if usize::from(table.level) >= LEVELS || table.ends_before(&table.smallest) {
                return Err(format!("adds table {} out of range", table.id));
            }
            if self.tables.insert(table.id, table.clone()).is_some() {
                return Err(format!("adds table {} twice", table.id));
            }
        }
        for f in &edit.flushed {
            let applied = Applied {
                id: LogId {
                    term: f.term,
                    index: f.index,
                },
                time_ms: f.time_ms,
            };
            self.flushed.insert(f.partition, applied);
        }
        for hide in &edit.hidden {
            if !self.tables.contains_key(&hide.id) {
                return Err(format!(
                    "hides rows of table {}, which is not there",
                    hide.id
                ));
            }
            self.hidden.entry(hide.id).or_default().push(hide.partition);
        }
        for partition in &edit.settled {
            if self.pending.remove(partition).is_none() {
                return Err(format!(
                    "settles partition {partition}, which is not pending"
                ));
            }
        }
        for partition in &edit.dropped {
            self.flushed.remove(partition);
        }
        for p in &edit.pending {
            let before = self.pending.insert(p.partition, p.replacement.clone());
            if before.is_some() {
                return Err(format!("has partition {} pending twice", p.partition));
            }
        }
        Ok(())
    }

    /// The state as edits of a bounded size each.
    #[must_use]
    pub fn to_edits(&self) -> Vec<Edit> {
        const BYTES_PER_EDIT: usize = 1 << 20;
        let mut edits = Vec::new();
        let mut edit = Edit {
            flushed: self
                .flushed
                .iter()
                .map(|(partition, applied)| applied.record(*partition))
                .collect(),
            pending: self
                .pending
                .iter()
                .map(|(partition, replacement)| PendingRecord {
                    partition: *partition,
                    replacement: replacement.clone(),
                })
                .collect(),
            ..Edit::default()
        };
        let mut bytes = 0;
        for table in self.tables.values() {
            if bytes >= BYTES_PER_EDIT {
                edits.push(std::mem::take(&mut edit));
                bytes = 0;
            }
            bytes += 128 + table.smallest.len() + table.largest.len();
            edit.added.push(table.clone());
            let hidden = self.hidden.get(&table.id);
            edit.hidden
                .extend(hidden.into_iter().flatten().map(|p| HideRecord {
                    id: table.id,
                    partition: *p,
                }));
        }
        edits.push(edit);
        edits
    }
}
