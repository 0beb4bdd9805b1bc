//! Writes that are logged and not yet committed, in log order.
//!
//! A decision (condition, increment, touch) must see the newest pending effect on its key. So each
//! pending write keeps a hash of its keys; the search runs from the newest back, and the caller
//! compares the keys themselves in the log's buffer. The queue holds what a few log groups hold:
//! at most some thousands of writes.
//!
//! An answer that rests on a pending effect but writes nothing (a failed condition) rides in the
//! queue behind it, and is given only once everything before it is committed.

use std::collections::VecDeque;
use std::time::Duration;

use ringbolt_engine::entry::{LogId, PartitionId};
use ringbolt_engine::log::RecordRef;
use ringbolt_wire::message::ErrorCode;

use super::mail::Origin;
use super::signal::Signal;

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
    /// The server's own write; the waiting task is told.
    Own(Option<Signal<LogId>>),
}

impl Outcome {
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
}

impl KeyHashes {
    fn contains(&self, hash: u64) -> bool {
        match self {
            Self::None => false,
            Self::One(one) => *one == hash,
            Self::Many(many) => many.contains(&hash),
        }
    }
}

/// One write under way, or an answer that rides behind one.
pub(super) struct Pending {
    pub(super) partition: PartitionId,
    /// `None` for an answer that writes nothing.
    pub(super) record: Option<RecordRef>,
    pub(super) keys: KeyHashes,
    pub(super) outcome: Outcome,
    /// Bytes of key and value, for throttling.
    pub(super) bytes: u32,
}

/// The queue.
#[derive(Default)]
pub(super) struct PendingQueue {
    queue: VecDeque<Pending>,
}

impl PendingQueue {
    pub(super) fn push(&mut self, pending: Pending) {
        self.queue.push_back(pending);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The next write in log order; `None` if the front is a riding answer or nothing.
    pub(super) fn pop_write(&mut self) -> Option<Pending> {
        self.pop_front_if(|pending| pending.record.is_some())
    }

    /// The next riding answer, if it is at the front: all it rests on is committed.
    pub(super) fn pop_rider(&mut self) -> Option<Pending> {
        self.pop_front_if(|pending| pending.record.is_none())
    }

    fn pop_front_if(&mut self, wanted: impl FnOnce(&Pending) -> bool) -> Option<Pending> {
        if self.queue.front().is_some_and(wanted) {
            self.queue.pop_front()
        } else {
            None
        }
    }

    /// The records, newest first, that may touch a key with this hash.
    pub(super) fn touching(
        &self,
        partition: PartitionId,
        hash: u64,
    ) -> impl Iterator<Item = RecordRef> + '_ {
        self.queue.iter().rev().filter_map(move |pending| {
            (pending.partition == partition && pending.keys.contains(hash))
                .then_some(pending.record)
                .flatten()
        })
    }

    /// Takes out the answers of writes whose deadline has passed; the writes stay.
    pub(super) fn expire(&mut self, now: Duration, mut answer: impl FnMut(Origin)) {
        for pending in &mut self.queue {
            if let Some(origin) = pending.outcome.origin()
                && origin.deadline <= now
            {
                answer(*origin);
                pending.outcome = Outcome::Own(None);
            }
        }
    }
}
