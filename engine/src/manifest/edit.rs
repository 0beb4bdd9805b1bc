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
}

/// Up to where a partition has been applied or flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// The last entry.
    pub id: LogId,
    /// The partition's time with that entry, in milliseconds since the Unix epoch.
    pub time_ms: u64,
}

/// What all edits so far add up to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// The tables by number.
    pub tables: BTreeMap<u64, TableRecord>,
    /// The partitions' flushed positions.
    pub flushed: BTreeMap<PartitionId, Applied>,
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
                .map(|(partition, a)| FlushedRecord {
                    partition: *partition,
                    term: a.id.term,
                    index: a.id.index,
                    time_ms: a.time_ms,
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
        }
        edits.push(edit);
        edits
    }
}
