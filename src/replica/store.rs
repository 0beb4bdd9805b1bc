//! The log as the `raft` crate reads it: the newest entries of one partition, in memory.
//!
//! Entries are added when they are handed to the shard's log, which makes them durable; they stay
//! here until they are applied, and beyond that as far as a budget allows, so that followers a
//! little behind are served from memory. For one that is further behind the crate is told to wait:
//! what it asked for becomes an [`OldRead`] of the shard's log, which the crate takes up again once it
//! is answered. A follower that is further behind than the log gets a snapshot.

use std::cell::RefCell;
use std::collections::VecDeque;

use raft::prelude::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};
use ringbolt_engine::entry::LogId;
use ringbolt_engine::terms::Terms;

use crate::planted::{self, Bug};

/// Reads of the log that one partition may wait for: what is asked for beyond, or for two followers at once,
/// is asked for again.
const OLD_READS_MAX: usize = 4;

/// Entries that are wanted for a follower, and are in the log only.
#[derive(Debug)]
pub struct OldRead {
    /// The replica that wants them.
    pub(super) replica: u64,
    pub(super) context: GetEntriesContext,
    /// The last index before them.
    pub after: u64,
    /// The last index of them that is not in memory either.
    pub upto: u64,
}

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
    /// Of them, those of entries that are not applied.
    waiting_bytes: usize,
    hard: HardState,
    conf: ConfState,
    /// The snapshot to offer: what is applied.
    applied: LogId,
    /// Where the terms of what is applied begin.
    terms: Terms,
    /// The least index that the log may still have, of what is not here.
    log_first: Option<u64>,
    /// A run of entries that was read from the log, while the crate takes it.
    old: Vec<Entry>,
    /// What the crate waits for, and is not asked for yet.
    wanted: RefCell<Vec<OldRead>>,
    /// The last index before each read that is wanted or under way: the crate asks again whenever a
    /// follower could be sent something.
    reading: RefCell<Vec<u64>>,
    replica: u64,
}

impl EntryStore {
    pub(super) fn new(replica: u64, applied: LogId, hard: HardState, conf: ConfState) -> Self {
        Self {
            replica,
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
            && !planted::is(Bug::TruncationDropped)
        {
            if let Some(gone) = self.entries.pop_back() {
                self.bytes -= cost(&gone);
                self.waiting_bytes -= cost(&gone);
            }
        }
        debug_assert_eq!(first.index, self.last().index + 1, "no holes");
        let bytes = entries.iter().map(cost).sum::<usize>();
        self.bytes += bytes;
        self.waiting_bytes += bytes;
        self.entries.extend(entries.iter().cloned());
    }

    /// Forgets everything: the partition's state was replaced by a snapshot that ends with `id`.
    pub(super) fn restore(&mut self, id: LogId, conf: ConfState) {
        self.entries.clear();
        self.bytes = 0;
        self.waiting_bytes = 0;
        self.truncated = id;
        self.applied = id;
        self.conf = conf;
        self.terms = Terms::default();
        self.log_first = None;
        self.wanted.borrow_mut().clear();
        self.reading.borrow_mut().clear();
    }

    /// Takes over where the terms of what is applied begin. From now on the log is believed to have
    /// what is not here, until a read of it says otherwise; but for the first entry: whoever needs that
    /// one gets a snapshot, which says who the members are ([`super::Replica::change_applied`]).
    pub(super) fn set_terms(&mut self, terms: Terms) {
        self.terms = terms;
        self.log_first = Some(2);
    }

    /// Where the terms of what is applied begin.
    pub(super) fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The next entry in order is applied.
    pub(super) fn note_term(&mut self, id: LogId) {
        self.terms.note(id);
    }

    /// What is to be read from the log.
    pub(super) fn take_wanted(&self) -> Vec<OldRead> {
        self.wanted.take()
    }

    /// A read is over.
    pub(super) fn was_read(&mut self, after: u64) {
        self.reading.borrow_mut().retain(|&other| other != after);
    }

    /// The run of entries that the crate is about to ask for again.
    pub(super) fn set_old(&mut self, old: Vec<Entry>) {
        self.old = old;
    }

    /// The log begins with entry `first`.
    pub(super) fn log_begins(&mut self, first: u64) {
        self.log_first = self.log_first.map(|known| known.max(first));
    }

    /// Old entries, as far as they were read: what is missing is wanted.
    fn old_entries(&self, low: u64, max: u64, context: GetEntriesContext) -> Result<Vec<Entry>> {
        let run = self
            .old
            .first()
            .and_then(|first| low.checked_sub(first.index));
        if let Some(found) = run.and_then(|at| self.old.get(at as usize..))
            && !found.is_empty()
        {
            return Ok(limited(found.iter(), max));
        }
        if !context.can_async() || self.log_first.is_none_or(|first| low < first) {
            return Err(Error::Store(StorageError::Compacted));
        }
        let (mut reading, after) = (self.reading.borrow_mut(), low - 1);
        if reading.len() < OLD_READS_MAX && !reading.contains(&after) {
            reading.push(after);
            self.wanted.borrow_mut().push(OldRead {
                replica: self.replica,
                context,
                after,
                upto: self.truncated.index,
            });
        }
        Err(Error::Store(StorageError::LogTemporarilyUnavailable))
    }

    /// Notes what is applied, and forgets the oldest entries beyond `budget` bytes.
    pub(super) fn applied(&mut self, applied: LogId, budget: usize) {
        for index in self.applied.index + 1..=applied.index {
            self.waiting_bytes -= self.get(index).map_or(0, cost);
        }
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

    /// Bytes of entries that are not applied.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
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

pub(super) fn cost(entry: &Entry) -> usize {
    entry.data.len() + entry.context.len() + ENTRY_OVERHEAD
}

/// Clones of entries, up to `max` bytes of them but one at least.
fn limited<'a>(entries: impl Iterator<Item = &'a Entry>, max: u64) -> Vec<Entry> {
    let mut bytes = 0;
    let mut found = Vec::with_capacity(entries.size_hint().0);
    for entry in entries {
        bytes += cost(entry) as u64;
        if bytes > max && !found.is_empty() {
            break;
        }
        found.push(entry.clone());
    }
    found
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
        context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        let max = max_size.into().unwrap_or(u64::MAX);
        if low <= self.truncated.index {
            return self.old_entries(low, max, context);
        }
        let start = (low - self.truncated.index - 1) as usize;
        let end = (high - self.truncated.index - 1) as usize;
        Ok(limited(self.entries.range(start..end), max))
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.truncated.index {
            return Ok(self.truncated.term);
        }
        if index == 0 {
            return Ok(0);
        }
        if index < self.truncated.index {
            let known = self.terms.of_index(index);
            return known.ok_or(Error::Store(StorageError::Compacted));
        }
        self.get(index)
            .map(|entry| entry.term)
            .ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> Result<u64> {
        let first = self.truncated.index + 1;
        Ok(self.log_first.map_or(first, |log| log.min(first)))
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
