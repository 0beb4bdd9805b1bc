//! The log as the `raft` crate reads it: the newest entries of one partition, in memory.
//!
//! Entries are added when they are handed to the shard's log, which makes them durable; they stay
//! here until they are applied, and beyond that as far as a budget allows, so that followers a
//! little behind are served from memory. One that is further behind gets a snapshot.

use std::collections::VecDeque;

use raft::prelude::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};
use ringbolt_engine::entry::LogId;

/// What an entry costs beside its bytes, in bytes.
const ENTRY_OVERHEAD: usize = 128;

/// The newest entries of a partition.
#[derive(Default)]
pub(super) struct EntryStore {
    /// The last entry that is not here any more.
    truncated: LogId,
    /// All after it, without holes.
    entries: VecDeque<Entry>,
    bytes: usize,
    hard: HardState,
    conf: ConfState,
    /// The snapshot to offer: what is applied.
    applied: LogId,
}

impl EntryStore {
    pub(super) fn new(applied: LogId, hard: HardState, conf: ConfState) -> Self {
        Self {
            truncated: applied,
            hard,
            conf,
            applied,
            ..Self::default()
        }
    }

    /// Adds entries, in place of those with the same or a higher index.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else {
            return;
        };
        debug_assert!(
            first.index > self.truncated.index,
            "what is gone is committed"
        );
        while self
            .entries
            .back()
            .is_some_and(|last| last.index >= first.index)
        {
            if let Some(gone) = self.entries.pop_back() {
                self.bytes -= cost(&gone);
            }
        }
        debug_assert_eq!(first.index, self.last().index + 1, "no holes");
        self.bytes += entries.iter().map(cost).sum::<usize>();
        self.entries.extend(entries.iter().cloned());
    }

    /// Forgets everything: the partition's state was replaced by a snapshot that ends with `id`.
    pub(super) fn restore(&mut self, id: LogId, conf: ConfState) {
        self.entries.clear();
        self.bytes = 0;
        self.truncated = id;
        self.applied = id;
        self.conf = conf;
    }

    /// Notes what is applied, and forgets the oldest entries beyond `budget` bytes.
    pub(super) fn applied(&mut self, applied: LogId, budget: usize) {
        self.applied = applied;
        while self.bytes > budget
            && let Some(first) = self.entries.front()
            && first.index <= applied.index
        {
            self.truncated = id_of(first);
            self.bytes -= cost(first);
            self.entries.pop_front();
        }
    }

    pub(super) fn set_conf(&mut self, conf: ConfState) {
        self.conf = conf;
    }

    pub(super) fn get(&self, index: u64) -> Option<&Entry> {
        let at = index.checked_sub(self.truncated.index + 1)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    /// The last entry that is not here any more.
    pub(super) fn truncated(&self) -> LogId {
        self.truncated
    }

    pub(super) fn last(&self) -> LogId {
        self.entries.back().map_or(self.truncated, id_of)
    }
}

pub(super) fn id_of(entry: &Entry) -> LogId {
    LogId {
        term: entry.term,
        index: entry.index,
    }
}

fn cost(entry: &Entry) -> usize {
    entry.data.len() + entry.context.len() + ENTRY_OVERHEAD
}

impl Storage for EntryStore {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(RaftState::new(self.hard.clone(), self.conf.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        if low <= self.truncated.index {
            return Err(Error::Store(StorageError::Compacted));
        }
        let max = max_size.into().unwrap_or(u64::MAX);
        let start = (low - self.truncated.index - 1) as usize;
        let end = (high - self.truncated.index - 1) as usize;
        let mut bytes = 0;
        let mut found = Vec::with_capacity(end - start);
        for entry in self.entries.range(start..end) {
            bytes += cost(entry) as u64;
            if bytes > max && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.truncated.index {
            return Ok(self.truncated.term);
        }
        if index < self.truncated.index {
            return Err(Error::Store(StorageError::Compacted));
        }
        self.get(index)
            .map(|entry| entry.term)
            .ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.truncated.index + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last().index)
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> Result<Snapshot> {
        if self.applied.index < request_index {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = self.applied.index;
        metadata.term = self.applied.term;
        metadata.set_conf_state(self.conf.clone());
        Ok(snapshot)
    }
}
