//! Writes are applied once: what became of the newest writes of a partition, by (client, sequence).
//!
//! A client that does not know whether a write was done sends it again under the same pair, marked
//! as a repeat. So every entry with a pair also carries its result, as the effect that sets one row
//! of the system keyspace: followers, replays and snapshots have the results without further ado.
//! The rows are a ring of [`RESULTS_KEPT`]; the leader counts the slots on.
//!
//! ```text
//! key: | 0x00 'w' | slot u16 BE |        version of the row: the entry's index
//! value: | kind u8 | client u64 | sequence u64 | before u64 | term u64 | result |     (LE)
//! ```
//!
//! 1. A pair that is known is answered with its result, one that is proposed with what becomes of
//!    that entry; neither is proposed again, marked or not.
//! 2. A repeat that is not known is done if its result cannot have been forgotten. Of a client that
//!    is known, only results up to a certain sequence were forgotten: `before` is the highest that
//!    the client had written before this entry, so that whoever begins with the ring as it stands
//!    knows this limit for each client in it.
//! 3. Of a client that is not known, a result was forgotten only if one of some client was within
//!    [`REPEAT_WITHIN`], by this node's own clock: a client sends no repeat later than half that time
//!    after the write's first sending. A node that begins with a ring that has come round counts
//!    that as forgetting.
//! 4. Otherwise the repeat is answered `IN_DOUBT`, and never done.
//!
//! A first sending that is not known is done: it may arrive after its repeat, but hardly after
//! [`RESULTS_KEPT`] others that came later.
//!
//! Whether a result is forgotten follows from the entries applied alone, and so is the same on every
//! replica. Clients without a result in the ring are remembered too, up to [`CLIENTS_KEPT`].

use std::collections::VecDeque;
use std::time::Duration;

use ahash::AHashMap;
use ringbolt_engine::entry::{Effect, EntryHead, LogId, PartitionId};
use ringbolt_engine::env::Env;
use ringbolt_engine::log::Effects;
use ringbolt_wire::message::{Ack, ErrorCode, KEYSPACE_SYSTEM, WriteOptions};

use super::Inner;
use super::mail::Origin;
use super::pending::{KeyHashes, Outcome, Pending};
use super::reply::Refusal;
use crate::planted::{self, Bug};

/// Results of a partition that are remembered.
pub(super) const RESULTS_KEPT: usize = 1024;
/// Clients of a partition that are remembered beyond those whose results are.
const CLIENTS_KEPT: usize = 4096;
/// How long a repeat of what was forgotten may come. Clients keep to half of it.
const REPEAT_WITHIN: Duration = Duration::from_secs(60);
/// Counters of a batch that are remembered. A repeat of a batch with more stays in doubt.
const COUNTERS_KEPT: usize = 16;
/// What the keys of the rows begin with.
const KEY_PREFIX: [u8; 2] = [0, b'w'];
/// In place of `before`: it is not known.
const UNKNOWN: u64 = u64::MAX;

/// What a write was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Done {
    /// A put, delete or touch.
    Written { existed: Option<bool> },
    /// An increment.
    Counter { value: i64 },
    /// A batch of `ops` writes: the counters by their place in it.
    Batch {
        ops: u32,
        counters: Box<[(u32, i64)]>,
    },
    /// A batch with more counters than are remembered.
    Untold,
}

impl Done {
    pub(super) fn of_batch(counters: &[Option<i64>]) -> Self {
        let places = (0..).zip(counters);
        let counters_kept: Box<[_]> = places
            .filter_map(|(at, counter)| Some((at, (*counter)?)))
            .take(COUNTERS_KEPT + 1)
            .collect();
        if counters_kept.len() > COUNTERS_KEPT {
            return Self::Untold;
        }
        Self::Batch {
            ops: counters.len() as u32,
            counters: counters_kept,
        }
    }

    /// The answer for whoever asks again; `None` if it was not kept.
    fn outcome(&self, origin: Origin) -> Option<Outcome> {
        Some(match self {
            Self::Written { existed } => Outcome::Written {
                origin,
                existed: *existed,
            },
            Self::Counter { value } => Outcome::Counter {
                origin,
                value: *value,
            },
            Self::Batch { ops, counters } => {
                let mut all = vec![None; *ops as usize];
                for (at, counter) in counters {
                    if let Some(place) = all.get_mut(*at as usize) {
                        *place = Some(*counter);
                    }
                }
                Outcome::Batch {
                    origin,
                    counters: all.into(),
                }
            }
            Self::Untold => return None,
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Written { .. } | Self::Untold => {}
            Self::Counter { value } => out.extend_from_slice(&value.to_le_bytes()),
            Self::Batch { ops, counters } => {
                out.extend_from_slice(&ops.to_le_bytes());
                for (at, counter) in counters {
                    out.extend_from_slice(&at.to_le_bytes());
                    out.extend_from_slice(&counter.to_le_bytes());
                }
            }
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Written { existed: None } => 0,
            Self::Written {
                existed: Some(false),
            } => 1,
            Self::Written {
                existed: Some(true),
            } => 2,
            Self::Counter { .. } => 3,
            Self::Batch { .. } => 4,
            Self::Untold => 5,
        }
    }

    fn decode(kind: u8, bytes: &[u8]) -> Option<Self> {
        Some(match (kind, bytes) {
            (0, []) => Self::Written { existed: None },
            (1, []) => Self::Written {
                existed: Some(false),
            },
            (2, []) => Self::Written {
                existed: Some(true),
            },
            (3, _) => Self::Counter {
                value: i64::from_le_bytes(bytes.try_into().ok()?),
            },
            (4, _) => {
                let (ops, rest) = bytes.split_first_chunk::<4>()?;
                let (counters, []) = rest.as_chunks::<12>() else {
                    return None;
                };
                let counter = |bytes: &[u8; 12]| {
                    let (at, counter) = bytes.split_first_chunk::<4>()?;
                    let counter = i64::from_le_bytes(counter.try_into().ok()?);
                    Some((u32::from_le_bytes(*at), counter))
                };
                Self::Batch {
                    ops: u32::from_le_bytes(*ops),
                    counters: counters.iter().map(counter).collect::<Option<_>>()?,
                }
            }
            (5, []) => Self::Untold,
            _ => return None,
        })
    }
}

/// A result as its row has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResultRow {
    slot: u16,
    client: u64,
    sequence: u64,
    before: u64,
    id: LogId,
    done: Done,
}

impl ResultRow {
    fn key(&self) -> [u8; 4] {
        let [high, low] = self.slot.to_be_bytes();
        [KEY_PREFIX[0], KEY_PREFIX[1], high, low]
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.done.kind());
        for number in [self.client, self.sequence, self.before, self.id.term] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        self.done.encode(out);
    }

    /// The row with this key, value and version; `None` if it is none of these.
    pub(super) fn decode(key: &[u8], value: &[u8], version: u64) -> Option<Self> {
        let [p0, p1, high, low] = *key else {
            return None;
        };
        let slot = u16::from_be_bytes([high, low]);
        if [p0, p1] != KEY_PREFIX || usize::from(slot) >= RESULTS_KEPT {
            return None;
        }
        let (kind, rest) = value.split_first()?;
        let (numbers, result) = rest.split_first_chunk::<32>()?;
        let (numbers, _) = numbers.as_chunks::<8>();
        let [client, sequence, before, term] = *numbers else {
            return None;
        };
        Some(Self {
            slot,
            client: u64::from_le_bytes(client),
            sequence: u64::from_le_bytes(sequence),
            before: u64::from_le_bytes(before),
            id: LogId {
                term: u64::from_le_bytes(term),
                index: version,
            },
            done: Done::decode(*kind, result)?,
        })
    }
}

/// What a client has written in a partition.
#[derive(Debug, Clone, Copy)]
struct Client {
    /// The highest sequence that was ever applied or proposed.
    highest: u64,
    /// Results up to this sequence may have been forgotten.
    forgotten: u64,
    /// Until then, any may have been.
    unknown_until: Duration,
    /// Its results in the ring.
    results: u32,
    /// When it was last seen.
    seen: Duration,
}

struct Record {
    client: u64,
    sequence: u64,
    id: LogId,
    done: Done,
}

/// What is known of a write that came.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    /// It was not done.
    New,
    /// It is done, or will be if its entry is committed.
    Done(LogId, Done),
    /// It may have been done.
    Doubtful,
}

/// The writers of one partition.
#[derive(Default)]
pub(super) struct Writers {
    /// By slot.
    ring: Vec<Option<Record>>,
    slots: AHashMap<(u64, u64), u16>,
    clients: AHashMap<u64, Client>,
    /// Clients without a result in the ring, with when they were last seen; and others.
    idle: VecDeque<(u64, Duration)>,
    /// The slot behind that of the newest entry applied.
    next: u16,
    /// What was proposed in the term led, the term, and the slot behind it.
    proposed: AHashMap<(u64, u64), (LogId, Done)>,
    proposed_term: u64,
    proposed_next: u16,
    /// Until then, a client that is not known may have been forgotten.
    forgot_until: Duration,
}

impl Writers {
    /// From the rows of the ring, in any order.
    pub(super) fn load(mut rows: Vec<ResultRow>, now: Duration) -> Self {
        let mut writers = Self::default();
        if rows.len() == RESULTS_KEPT {
            writers.forgot_until = now + REPEAT_WITHIN;
        }
        rows.sort_unstable_by_key(|row| row.id);
        for row in rows {
            writers.applied(row, now);
        }
        writers
    }

    fn find(&self, options: &WriteOptions, term: u64, now: Duration) -> Known {
        if planted::is(Bug::RepeatDoneAgain) {
            return Known::New;
        }
        let pair = (options.client, options.sequence);
        if let Some(slot) = self.slots.get(&pair)
            && let Some(Some(record)) = self.ring.get(usize::from(*slot))
        {
            return Known::Done(record.id, record.done.clone());
        }
        if self.proposed_term == term
            && let Some((id, done)) = self.proposed.get(&pair)
        {
            return Known::Done(*id, done.clone());
        }
        let forgotten = match self.clients.get(&options.client) {
            Some(client) => options.sequence <= client.forgotten || now < client.unknown_until,
            None => now < self.forgot_until,
        };
        match options.retry && forgotten {
            true => Known::Doubtful,
            false => Known::New,
        }
    }

    /// The row for an entry that is about to be proposed in `term`.
    fn row(&self, options: &WriteOptions, done: Done, term: u64, now: Duration) -> ResultRow {
        let before = match self.clients.get(&options.client) {
            Some(client) if now < client.unknown_until => UNKNOWN,
            Some(client) => client.highest,
            None if now < self.forgot_until => UNKNOWN,
            None => 0,
        };
        ResultRow {
            slot: match self.proposed_term == term {
                true => self.proposed_next,
                false => self.next,
            },
            client: options.client,
            sequence: options.sequence,
            before,
            id: LogId { term, index: 0 },
            done,
        }
    }

    /// The entry with this row was proposed.
    fn proposed(&mut self, row: ResultRow, id: LogId, now: Duration) {
        if self.proposed_term != id.term {
            self.proposed.clear();
            self.proposed_term = id.term;
        }
        self.proposed_next = after(row.slot);
        self.client(&row, now);
        self.proposed
            .insert((row.client, row.sequence), (id, row.done));
    }

    /// It leads no more: what it proposed is decided by others.
    pub(super) fn stepped_down(&mut self) {
        self.proposed = AHashMap::default();
        self.proposed_term = 0;
    }

    /// The client of a row, noted if it is new.
    fn client(&mut self, row: &ResultRow, now: Duration) -> &mut Client {
        let idle = &mut self.idle;
        let client = self.clients.entry(row.client).or_insert_with(|| {
            idle.push_back((row.client, now));
            let (known, unknown_until) = match row.before {
                UNKNOWN => (0, now + REPEAT_WITHIN),
                before => (before, Duration::ZERO),
            };
            Client {
                highest: known,
                forgotten: known,
                unknown_until,
                results: 0,
                seen: now,
            }
        });
        client.highest = client.highest.max(row.sequence);
        client
    }

    /// An entry with this row was applied.
    fn applied(&mut self, row: ResultRow, now: Duration) {
        let pair = (row.client, row.sequence);
        if self
            .proposed
            .get(&pair)
            .is_some_and(|(id, _)| *id == row.id)
        {
            self.proposed.remove(&pair);
        }
        let slot = usize::from(row.slot);
        if self.ring.len() <= slot {
            self.ring.resize_with(slot + 1, || None);
        }
        if let Some(old) = self.ring[slot].take() {
            self.forget(row.slot, &old);
        }
        let client = self.client(&row, now);
        client.results += 1;
        client.seen = now;
        self.next = after(row.slot);
        self.slots.insert(pair, row.slot);
        self.ring[slot] = Some(Record {
            client: row.client,
            sequence: row.sequence,
            id: row.id,
            done: row.done,
        });
        self.forget_clients();
    }

    fn forget(&mut self, slot: u16, old: &Record) {
        let pair = (old.client, old.sequence);
        // A first sending that was under way for so long that its repeat was forgotten stands in
        // two slots.
        if self.slots.get(&pair) == Some(&slot) {
            self.slots.remove(&pair);
        }
        if let Some(client) = self.clients.get_mut(&old.client) {
            client.forgotten = client.forgotten.max(old.sequence);
            client.results -= 1;
            if client.results == 0 {
                self.idle.push_back((old.client, client.seen));
            }
        }
    }

    fn forget_clients(&mut self) {
        while self.idle.len() > CLIENTS_KEPT
            && let Some((id, seen)) = self.idle.pop_front()
        {
            let known = self.clients.get(&id);
            if known.is_some_and(|client| client.results == 0 && client.seen == seen) {
                self.clients.remove(&id);
                self.forgot_until = self.forgot_until.max(seen + REPEAT_WITHIN);
            }
        }
    }
}

fn after(slot: u16) -> u16 {
    (slot + 1) % RESULTS_KEPT as u16
}

/// An entry's result, ready to be proposed with it.
pub(super) struct Result {
    row: ResultRow,
    key: [u8; 4],
    value: Vec<u8>,
}

impl Result {
    /// The effect that sets its row.
    pub(super) fn effect(&self) -> Effect<'_> {
        Effect::Put {
            keyspace: KEYSPACE_SYSTEM,
            key: &self.key,
            value: &self.value,
            expires_ms: 0,
            created_ms: 0,
        }
    }
}

fn is_identified(options: &WriteOptions) -> bool {
    options.client != 0 && options.sequence != 0
}

impl<E: Env> Inner<E> {
    /// Answers a write that is known, or that may have been done; whether it did.
    pub(super) fn answer_repeat(
        &self,
        origin: Origin,
        partition: PartitionId,
        options: &WriteOptions,
    ) -> bool {
        if !is_identified(options) {
            return false;
        }
        let now = self.clock.get().now;
        let term = self.with_replica(partition, |replica| replica.term());
        let known = {
            let writers = self.writers.borrow();
            writers[usize::from(partition)].find(options, term.unwrap_or_default(), now)
        };
        let (id, outcome) = match known {
            Known::New => return false,
            Known::Done(id, done) => (id, done.outcome(origin)),
            Known::Doubtful => (LogId::default(), None),
        };
        let Some(outcome) = outcome else {
            let refusal = Refusal::new(
                ErrorCode::InDoubt,
                0,
                "it is not known any more whether this write was done before, or what it came to: \
                 read the key to find out",
            );
            self.refuse(&origin, &refusal);
            return true;
        };
        let pending = Pending {
            id,
            keys: KeyHashes::None,
            outcome,
            ack: match options.ack {
                Ack::Leader => Ack::Quorum,
                ack => ack,
            },
            bytes: 0,
        };
        if id.index <= self.applied(partition).index {
            self.conclude(partition, pending);
        } else {
            self.await_commit(partition, pending);
        }
        true
    }

    /// The result that a write's entry is to carry; `None` for a write without an identity.
    pub(super) fn result_of(
        &self,
        partition: PartitionId,
        options: &WriteOptions,
        done: impl FnOnce() -> Done,
    ) -> Option<Result> {
        if !is_identified(options) {
            return None;
        }
        let term = self.with_replica(partition, |replica| replica.term())?;
        let writers = self.writers.borrow();
        let writers = &writers[usize::from(partition)];
        let row = writers.row(options, done(), term, self.clock.get().now);
        let mut value = Vec::with_capacity(48);
        row.encode(&mut value);
        let key = row.key();
        Some(Result { row, key, value })
    }

    /// The entry that carries this result was proposed.
    pub(super) fn result_proposed(&self, head: &EntryHead, result: Result) {
        let mut writers = self.writers.borrow_mut();
        let now = self.clock.get().now;
        writers[usize::from(head.partition)].proposed(result.row, head.id, now);
    }

    /// An entry of a client was applied: its result is remembered.
    pub(super) fn result_applied(&self, head: &EntryHead, effects: Effects<'_>) {
        let row = effects.into_iter().find_map(|effect| match effect {
            Effect::Put {
                keyspace: KEYSPACE_SYSTEM,
                key,
                value,
                ..
            } => ResultRow::decode(key, value, head.id.index),
            _ => None,
        });
        if let Some(row) = row {
            let mut writers = self.writers.borrow_mut();
            let now = self.clock.get().now;
            writers[usize::from(head.partition)].applied(row, now);
        }
    }
}

#[cfg(test)]
mod tests;
