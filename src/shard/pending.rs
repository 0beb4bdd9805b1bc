//! Writes that are proposed and not yet applied, one queue for each partition, by index.
//!
//! A decision (condition, increment, touch) must see the newest pending effect on its key. So each
//! pending write keeps a hash of its keys; the search runs from the newest back, and the caller
//! compares the keys themselves in the entry. A queue holds what a few log groups hold: at most
//! some thousands of writes.
//!
//! An answer that rests on a pending effect but writes nothing (a failed condition) rides in the
//! queue under that effect's entry, and is given only once it is committed, and once it is known that this
//! replica has led ever since: the entry may have been committed by another leader, with more behind it. The
//! answer to a repeat of a write that is pending rides there too.
//!
//! What becomes of an entry is known when its index is applied: it is this entry, or another one
//! of a newer term that took its place. In the first case the write is done, in the second it was
//! discarded and never will be. Of the latter kind is also whatever is still to come of an older term
//! than the entry just applied.

use std::collections::VecDeque;
use std::time::Duration;

use ringbolt_engine::entry::LogId;
use ringbolt_wire::message::{Ack, ErrorCode};

use super::mail::Origin;
use super::signal::Signal;
use super::trace::Wait;

/// What to answer once a write is committed.
pub(super) enum Outcome {
    /// A put, delete or touch.
    Written {
        origin: Origin,
        existed: Option<bool>,
    },
    /// An increment.
    Counter { origin: Origin, value: i64 },
    /// A batch.
    Batch {
        origin: Origin,
        counters: Box<[Option<i64>]>,
    },
    /// A typed failure that rests on what was pending.
    Failed {
        origin: Origin,
        code: ErrorCode,
        detail: u64,
    },
    /// The key was absent, by what was pending.
    NotFound { origin: Origin },
    /// The server's own write; the waiting task is told, `None` if it was discarded.
    Own(Option<Signal<Option<LogId>>>),
}

impl Outcome {
    /// All the time since the last mark was this wait.
    pub(super) fn mark(&mut self, wait: Wait, now_us: u64) {
        match self {
            Self::Written { origin, .. }
            | Self::Counter { origin, .. }
            | Self::Batch { origin, .. }
            | Self::Failed { origin, .. }
            | Self::NotFound { origin } => origin.trace.mark(wait, now_us),
            Self::Own(_) => {}
        }
    }

    /// Whether it only says what there was.
    pub(super) fn writes_nothing(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::NotFound { .. })
    }

    pub(super) fn origin(&self) -> Option<&Origin> {
        match self {
            Self::Written { origin, .. }
            | Self::Counter { origin, .. }
            | Self::Batch { origin, .. }
            | Self::Failed { origin, .. }
            | Self::NotFound { origin } => Some(origin),
            Self::Own(_) => None,
        }
    }
}

/// The hashes of the keys a write touches.
pub(super) enum KeyHashes {
    None,
    One(u64),
    Many(Box<[u64]>),
    /// Any key.
    All,
}

impl KeyHashes {
    fn contains(&self, hash: u64) -> bool {
        match self {
            Self::None => false,
            Self::One(one) => *one == hash,
            Self::Many(many) => many.contains(&hash),
            Self::All => true,
        }
    }
}

/// One write under way, or an answer that rides behind one.
pub(super) struct Pending {
    /// The entry it stands or falls with.
    pub(super) id: LogId,
    /// The keys it writes; none for an answer that writes nothing.
    pub(super) keys: KeyHashes,
    pub(super) outcome: Outcome,
    /// When to give the answer.
    pub(super) ack: Ack,
    /// Bytes of key and value, for throttling.
    pub(super) bytes: u32,
}

/// One partition's queue.
#[derive(Default)]
pub(super) struct PendingQueue {
    queue: VecDeque<Pending>,
}

impl PendingQueue {
    /// Adds one behind all of the same entry.
    pub(super) fn push(&mut self, pending: Pending) {
        if self.last().is_none_or(|last| last <= pending.id) {
            return self.queue.push_back(pending);
        }
        let at = self.queue.partition_point(|one| one.id <= pending.id);
        self.queue.insert(at, pending);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The newest entry that something waits for.
    pub(super) fn last(&self) -> Option<LogId> {
        self.queue.back().map(|pending| pending.id)
    }

    /// The next one whose fate is known once `applied` is: one of its index or before, or of an older
    /// term, of which nothing can come behind an entry of a newer one.
    pub(super) fn pop_known(&mut self, applied: LogId) -> Option<Pending> {
        let first = self.queue.front()?.id;
        if first.index <= applied.index || first.term < applied.term {
            self.queue.pop_front()
        } else {
            None
        }
    }

    /// The entries, newest first, that may touch a key with this hash.
    pub(super) fn touching(&self, hash: u64) -> impl Iterator<Item = LogId> + '_ {
        self.queue
            .iter()
            .rev()
            .filter_map(move |pending| pending.keys.contains(hash).then_some(pending.id))
    }

    /// Takes out the answers of writes that need only be durable here, up to `index`; the writes
    /// stay. What was proposed in another term than `term` may have been replaced.
    pub(super) fn durable(
        &mut self,
        term: u64,
        index: u64,
        mut answer: impl FnMut(LogId, Outcome),
    ) {
        for pending in &mut self.queue {
            if pending.id.index > index {
                break;
            }
            if pending.ack == Ack::Leader && pending.id.term == term {
                pending.ack = Ack::Quorum;
                answer(
                    pending.id,
                    std::mem::replace(&mut pending.outcome, Outcome::Own(None)),
                );
            }
        }
    }

    /// Takes out the answers of writes whose deadline has passed; the writes stay.
    pub(super) fn expire(&mut self, now: Duration, mut answer: impl FnMut(LogId, Outcome)) {
        for pending in &mut self.queue {
            if let Some(origin) = pending.outcome.origin()
                && origin.deadline <= now
            {
                let outcome = std::mem::replace(&mut pending.outcome, Outcome::Own(None));
                answer(pending.id, outcome);
            }
        }
    }
}
