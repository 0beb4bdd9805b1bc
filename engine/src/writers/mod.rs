//! What became of the newest writes of a partition, by (client, sequence): so that a write which
//! comes again is not done again.
//!
//! An entry that a client has numbered carries what it came to ([`crate::entry::Effect::Outcome`]),
//! and applying it notes that here: followers and replays know it without further ado. Of each
//! partition the newest [`RESULTS_KEPT`] results are kept. They stand in memory; when a memtable is
//! closed, and before a partition is exported, they are put down as one row beside what they are
//! results of ([`row`]). So tables, replays and snapshots have them, and a write costs no row of
//! its own.
//!
//! 1. A pair that is known is answered by its result, one that is proposed by what becomes of that
//!    entry; neither is proposed again.
//! 2. A repeat that is not known is new if its result cannot have been forgotten. Of a client that
//!    has results here, only those up to a certain sequence were forgotten.
//! 3. Of another client, a result was forgotten only if one of some client was within
//!    [`REPEAT_WITHIN`], by this node's own clock: a client sends no repeat later than half that
//!    time after the write's first sending. Whoever begins with what a row says counts that as
//!    forgetting, unless the row has all that ever was.
//! 4. Otherwise nobody knows.
//!
//! A first sending that is not known is new, unless results of its client up to its sequence were
//! forgotten: it may arrive after its repeat, from a process that had stood still, say, however much
//! was written meanwhile. Of a client that is not known any more, nor its repeat, it is taken for new.
//!
//! Which results are forgotten follows from the entries applied alone, and so is the same on every
//! replica. Clients without a result are remembered too, up to [`CLIENTS_KEPT`].

use std::collections::VecDeque;
use std::time::Duration;

use ahash::AHashMap;

use crate::entry::{LogId, WriteId};
use crate::planted::{self, Bug};

pub mod row;
#[cfg(test)]
mod tests;

/// Results of a partition that are remembered.
pub const RESULTS_KEPT: usize = 1024;
/// Clients of a partition that are remembered beyond those whose results are.
const CLIENTS_KEPT: usize = 4096;
/// How long a repeat of what was forgotten may come. Clients keep to half of it.
pub const REPEAT_WITHIN: Duration = Duration::from_secs(60);

/// What is known of a write that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known<'a> {
    /// It was not done.
    New,
    /// It is done, or will be if this entry is committed: what it came to.
    Done(LogId, &'a [u8]),
    /// It may have been done.
    Doubtful,
}

/// A write and what it came to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    sequence: u64,
    id: LogId,
    outcome: Box<[u8]>,
}

/// What a client has written in a partition.
#[derive(Debug, Default)]
struct Client {
    /// Its results by index: first those of applied entries, then what was proposed.
    records: VecDeque<Record>,
    /// Of them, those of applied entries.
    applied: usize,
    /// No sequence beyond it is among the records.
    highest: u64,
    /// Results up to this sequence may have been forgotten.
    forgotten: u64,
    /// Until then, any may have been.
    unknown_until: Duration,
    /// When an entry of it was last applied.
    seen: Duration,
}

impl Client {
    fn push(&mut self, sequence: u64, id: LogId, outcome: &[u8]) {
        self.highest = self.highest.max(sequence);
        self.records.push_back(Record {
            sequence,
            id,
            outcome: outcome.into(),
        });
    }

    /// Leaves out what was proposed, unless its first is of `term`: then all of it is.
    fn keep_proposed(&mut self, term: u64) {
        if self
            .records
            .get(self.applied)
            .is_some_and(|first| first.id.term != term)
        {
            self.records.truncate(self.applied);
        }
    }
}

/// The writers of one partition.
#[derive(Debug, Default)]
pub struct Writers {
    clients: AHashMap<u64, Client>,
    /// Whose the results of applied entries are, by index.
    order: VecDeque<u64>,
    /// Clients without a result, with when they were last seen; and others.
    idle: VecDeque<(u64, Duration)>,
    /// Until then, a client that is not known may have been forgotten.
    forgot_until: Duration,
    /// A row has all of this.
    is_put_down: bool,
}

impl Writers {
    /// Of a partition of whose writes nothing is known at `now`, or nothing yet: that takes the place
    /// of no row.
    #[must_use]
    pub fn unknown(now: Duration) -> Self {
        Self {
            forgot_until: now + REPEAT_WITHIN,
            is_put_down: true,
            ..Self::default()
        }
    }

    /// What is known of a write, by a leader of `term` that has applied all that is committed of
    /// older terms. `is_repeat` if the client says that it has sent it before.
    #[must_use]
    pub fn find(&self, write: WriteId, is_repeat: bool, term: u64, now: Duration) -> Known<'_> {
        let Some(client) = self.clients.get(&write.client) else {
            return match is_repeat && now < self.forgot_until {
                true => Known::Doubtful,
                false => Known::New,
            };
        };
        if write.sequence <= client.highest {
            let counts = |at: usize, record: &Record| {
                record.sequence == write.sequence && (at < client.applied || record.id.term == term)
            };
            let mut newest_first = client.records.iter().enumerate().rev();
            if let Some((_, record)) = newest_first.find(|(at, record)| counts(*at, record)) {
                return Known::Done(record.id, &record.outcome);
            }
        }
        let is_unknown = is_repeat && now < client.unknown_until;
        match write.sequence <= client.forgotten || is_unknown {
            true => Known::Doubtful,
            false => Known::New,
        }
    }

    /// A leader has proposed an entry for a write.
    pub fn proposed(&mut self, write: WriteId, id: LogId, outcome: &[u8], now: Duration) {
        let client = self.client(write.client, now);
        client.keep_proposed(id.term);
        client.push(write.sequence, id, outcome);
        // If it is forgotten before this is applied, it was seen lately.
        client.seen = now;
        if client.applied == 0 {
            self.idle.push_back((write.client, now));
        }
    }

    /// An entry for a write was applied.
    pub(crate) fn applied(&mut self, write: WriteId, id: LogId, outcome: &[u8], now: Duration) {
        self.is_put_down = false;
        if self.order.len() == RESULTS_KEPT {
            self.forget_oldest();
        }
        self.order.push_back(write.client);
        let client = self.client(write.client, now);
        client.seen = now;
        let is_as_proposed = |record: &Record| record.id == id && record.sequence == write.sequence;
        if !client
            .records
            .get(client.applied)
            .is_some_and(is_as_proposed)
        {
            client.records.truncate(client.applied);
            client.push(write.sequence, id, outcome);
        }
        client.applied += 1;
        self.forget_clients();
    }

    fn client(&mut self, id: u64, now: Duration) -> &mut Client {
        let unknown_until = self.forgot_until;
        self.clients.entry(id).or_insert_with(|| Client {
            unknown_until,
            seen: now,
            ..Client::default()
        })
    }

    fn forget_oldest(&mut self) {
        if let Some(id) = self.order.pop_front()
            && let Some(client) = self.clients.get_mut(&id)
            && let Some(oldest) = client.records.pop_front()
        {
            client.applied -= 1;
            client.forgotten = client.forgotten.max(oldest.sequence);
            if client.applied == 0 {
                self.idle.push_back((id, client.seen));
            }
            if client.records.is_empty() {
                client.records = VecDeque::new();
            }
        }
    }

    fn forget_clients(&mut self) {
        while self.idle.len() > CLIENTS_KEPT
            && let Some((id, seen)) = self.idle.pop_front()
        {
            let known = self.clients.get(&id);
            if known.is_some_and(|client| client.applied == 0 && client.seen == seen) {
                self.clients.remove(&id);
                self.forgot_until = self.forgot_until.max(seen + REPEAT_WITHIN);
            }
        }
    }

    /// All results of applied entries: for whom, which entry, what it came to. By index.
    #[must_use]
    pub fn results(&self) -> Vec<(WriteId, LogId, &[u8])> {
        let mut results: Vec<_> = self
            .clients
            .iter()
            .flat_map(|(&client, known)| {
                known.records.iter().take(known.applied).map(move |record| {
                    let sequence = record.sequence;
                    (WriteId { client, sequence }, record.id, &*record.outcome)
                })
            })
            .collect();
        results.sort_unstable_by_key(|(_, id, _)| *id);
        results
    }

    /// Whether there is something that no row has; from now on, one has it.
    pub(crate) fn put_down(&mut self) -> bool {
        !std::mem::replace(&mut self.is_put_down, true) && !planted::is(Bug::ResultsNotPutDown)
    }

    /// An entry for a write was applied that does not say what it came to: nobody knows.
    pub(crate) fn applied_unknown(&mut self, write: WriteId, now: Duration) {
        self.is_put_down = false;
        self.forgot_until = now + REPEAT_WITHIN;
        if let Some(client) = self.clients.get_mut(&write.client) {
            client.unknown_until = self.forgot_until;
        }
    }
}
