//! What the engine should hold: a `BTreeMap` for each partition, and the entries handed to the log
//! that are not acknowledged yet.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use ringbolt_engine::entry::{Effect, EntryHead, KeyspaceId, LogId, PartitionId, WriteId};
use ringbolt_engine::writers::RESULTS_KEPT;

/// A keyspace and a key in it: the model's row key within a partition.
pub type Key = (KeyspaceId, Vec<u8>);

/// [`Effect`], owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnedEffect {
    /// [`Effect::Put`].
    Put {
        /// The keyspace and key.
        key: Key,
        /// The value.
        value: Rc<[u8]>,
        /// When it expires; 0 for never.
        expires_ms: u64,
        /// When it was created; 0 for "not looked up".
        created_ms: u64,
    },
    /// [`Effect::Delete`].
    Delete {
        /// The keyspace and key.
        key: Key,
    },
    /// [`Effect::DeleteRange`].
    DeleteRange {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The first key removed.
        from: Vec<u8>,
        /// The first key kept; empty for none.
        to: Vec<u8>,
    },
    /// [`Effect::Outcome`].
    Outcome(Vec<u8>),
}

impl OwnedEffect {
    /// Whether it is a range delete of a range that has the key.
    #[must_use]
    pub fn covers(&self, key: &Key) -> bool {
        match self {
            Self::DeleteRange { keyspace, from, to } => {
                key.0 == *keyspace && key.1 >= *from && (to.is_empty() || key.1 < *to)
            }
            _ => false,
        }
    }

    /// The effect as the engine takes it.
    #[must_use]
    pub fn borrowed(&self) -> Effect<'_> {
        match self {
            Self::Put {
                key,
                value,
                expires_ms,
                created_ms,
            } => Effect::Put {
                keyspace: key.0,
                key: &key.1,
                value,
                expires_ms: *expires_ms,
                created_ms: *created_ms,
            },
            Self::Delete { key } => Effect::Delete {
                keyspace: key.0,
                key: &key.1,
            },
            Self::DeleteRange { keyspace, from, to } => Effect::DeleteRange {
                keyspace: *keyspace,
                from,
                to,
            },
            Self::Outcome(outcome) => Effect::Outcome { outcome },
        }
    }
}

/// An entry, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedEntry {
    /// Where it stands.
    pub head: EntryHead,
    /// What it does.
    pub effects: Vec<OwnedEffect>,
}

/// What the model knows of a key that has a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRow {
    /// The value.
    pub value: Rc<[u8]>,
    /// Index of the entry that wrote it.
    pub version: u64,
    /// Time of that entry.
    pub updated_ms: u64,
    /// When the key came to be.
    pub created_ms: u64,
    /// Whether a version on the way from there to here had an expiry: compaction may have dropped
    /// it once that had passed, and then the key counts as created later, at most at `updated_ms`.
    pub created_loose: bool,
    /// When it expires; 0 for never.
    pub expires_ms: u64,
}

impl ModelRow {
    /// Whether it can be read at this time of the partition.
    #[must_use]
    pub fn lives_at(&self, time_ms: u64) -> bool {
        self.expires_ms == 0 || self.expires_ms > time_ms
    }
}

/// One partition: what is acknowledged, and what is on its way.
#[derive(Debug, Default)]
pub struct Partition {
    /// Its number.
    pub id: PartitionId,
    /// The last entry acknowledged.
    pub applied: LogId,
    /// The time of that entry.
    pub time_ms: u64,
    /// The rows as of `applied`; expired ones stay until something overwrites them.
    pub rows: BTreeMap<Key, ModelRow>,
    /// Entries handed to the log after `applied`, in order.
    pub pending: VecDeque<OwnedEntry>,
    /// What became of the newest writes that a client has numbered.
    pub results: VecDeque<(WriteId, LogId, Vec<u8>)>,
    /// The term of the next entry.
    pub term: u64,
    /// The highest time of any entry handed to the log.
    pub time_proposed_ms: u64,
}

impl Partition {
    /// An empty partition.
    #[must_use]
    pub fn new(id: PartitionId) -> Self {
        Self {
            id,
            term: 1,
            ..Self::default()
        }
    }

    /// The index of the next entry.
    #[must_use]
    pub fn next_index(&self) -> u64 {
        self.pending
            .back()
            .map_or(self.applied.index, |entry| entry.head.id.index)
            + 1
    }

    /// Acknowledges the oldest pending entry: it takes effect.
    pub fn acknowledge(&mut self) -> Option<OwnedEntry> {
        let entry = self.pending.pop_front()?;
        self.applied = entry.head.id;
        self.time_ms = entry.head.time_ms;
        // A range delete covers what was there before its entry, wherever in the entry it stands.
        let is_range = |effect: &&OwnedEffect| matches!(effect, OwnedEffect::DeleteRange { .. });
        let ranges = entry.effects.iter().filter(is_range);
        let others = entry.effects.iter().filter(|effect| !is_range(effect));
        let mut outcome = Vec::new();
        for effect in ranges.chain(others) {
            self.apply(&entry.head, effect);
            if let OwnedEffect::Outcome(bytes) = effect {
                outcome.clone_from(bytes);
            }
        }
        if let Some(write) = entry.head.write_id() {
            self.results.push_back((write, entry.head.id, outcome));
            if self.results.len() > RESULTS_KEPT {
                self.results.pop_front();
            }
        }
        Some(entry)
    }

    fn apply(&mut self, head: &EntryHead, effect: &OwnedEffect) {
        match effect {
            OwnedEffect::Put {
                key,
                value,
                expires_ms,
                created_ms,
            } => {
                let older = self.rows.get(key);
                let older = older.filter(|row| row.lives_at(head.time_ms));
                let (created_ms, created_loose) = match (*created_ms, older) {
                    (0, None) => (head.time_ms, false),
                    (0, Some(row)) => (row.created_ms, row.created_loose || row.expires_ms != 0),
                    (known, _) => (known, false),
                };
                let row = ModelRow {
                    value: value.clone(),
                    version: head.id.index,
                    updated_ms: head.time_ms,
                    created_ms,
                    created_loose,
                    expires_ms: *expires_ms,
                };
                self.rows.insert(key.clone(), row);
            }
            OwnedEffect::Delete { key } => {
                self.rows.remove(key);
            }
            OwnedEffect::DeleteRange { keyspace, from, to } => {
                let covered = |(space, key): &Key| {
                    space == keyspace && key >= from && (to.is_empty() || key < to)
                };
                self.rows.retain(|key, _| !covered(key));
            }
            OwnedEffect::Outcome(_) => {}
        }
    }

    /// The row, if it can be read at this time.
    #[must_use]
    pub fn get(&self, key: &Key, time_ms: u64) -> Option<&ModelRow> {
        self.rows.get(key).filter(|row| row.lives_at(time_ms))
    }

    /// Takes the log's word after a restart: entries up to `last` were durable, the rest is gone.
    ///
    /// # Errors
    /// If something acknowledged is gone or something never written is there.
    pub fn recovered(&mut self, last: LogId) -> Result<u64, String> {
        if last.index < self.applied.index {
            return Err(format!(
                "partition {}: entry {} was acknowledged, the log ends at {}",
                self.id, self.applied.index, last.index
            ));
        }
        let mut kept = 0;
        while self.applied.index < last.index {
            if self.acknowledge().is_none() {
                return Err(format!(
                    "partition {}: the log ends at {}, but {} was the last entry written",
                    self.id, last.index, self.applied.index
                ));
            }
            kept += 1;
        }
        if last.index > 0 && self.applied != last {
            return Err(format!(
                "partition {}: entry {} has term {}, not {}",
                self.id, last.index, last.term, self.applied.term
            ));
        }
        self.pending.clear();
        self.time_proposed_ms = self.time_ms;
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(index: u64, key: &[u8], expires_ms: u64) -> OwnedEntry {
        OwnedEntry {
            head: EntryHead {
                id: LogId { term: 1, index },
                time_ms: 100 * index,
                ..EntryHead::default()
            },
            effects: vec![OwnedEffect::Put {
                key: (0, key.to_vec()),
                value: Rc::from(&b"v"[..]),
                expires_ms,
                created_ms: 0,
            }],
        }
    }

    #[test]
    fn a_blind_put_keeps_the_creation_of_a_living_row_only() {
        let mut partition = Partition::new(0);
        let key = (0, b"k".to_vec());
        for (index, expires, created) in [(1, 250, 100), (2, 250, 100), (3, 0, 300)] {
            partition.pending.push_back(put(index, b"k", expires));
            partition.acknowledge();
            assert_eq!(partition.rows[&key].created_ms, created);
        }
    }

    #[test]
    fn recovery_keeps_a_prefix_of_what_was_pending() {
        let mut partition = Partition::new(0);
        for index in 1..=3 {
            partition.pending.push_back(put(index, b"k", 0));
        }
        partition.acknowledge();
        let at = |index| LogId { term: 1, index };
        assert!(partition.recovered(at(0)).is_err());
        assert_eq!(partition.recovered(at(2)), Ok(1));
        assert_eq!(partition.next_index(), 3);
        assert!(partition.recovered(at(3)).is_err());
    }
}
