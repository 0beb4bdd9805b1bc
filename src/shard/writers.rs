//! Writes are applied once: what a write came to is in its entry, and a repeat is answered by that.
//!
//! A client that does not know whether a write was done sends it again under the same pair of client
//! and sequence, marked as a repeat. What is remembered of pairs, and for how long, is the engine's:
//! [`ringbolt_engine::writers`]. Here is what a write comes to, as its entry has it:
//!
//! ```text
//! (nothing)                                    a put, delete or touch that did not look at the key
//! | 1 |  or  | 2 |                             one that found it absent, or present
//! | 3 | value i64 |                            an increment
//! | 4 | ops u32 | for each counter: | its place u32 | value i64 |     a batch
//! | 5 |                                        a batch with more counters than are kept      (LE)
//! ```
//!
//! A repeat that may have been done is answered `IN_DOUBT`, and never done.

use std::rc::Rc;

use ringbolt_engine::entry::{LogId, PartitionId, WriteId};
use ringbolt_engine::env::Env;
use ringbolt_engine::writers::Known;
use ringbolt_wire::message::{Ack, ErrorCode, WriteOptions};

use super::Inner;
use super::mail::Origin;
use super::pending::{KeyHashes, Outcome, Pending};
use super::reply::Refusal;
use crate::planted::{self, Bug};

/// Counters of a batch that are remembered. A repeat of a batch with more stays in doubt.
const COUNTERS_KEPT: usize = 16;

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
    fn outcome(self, origin: Origin) -> Option<Outcome> {
        Some(match self {
            Self::Written { existed } => Outcome::Written { origin, existed },
            Self::Counter { value } => Outcome::Counter { origin, value },
            Self::Batch { ops, counters } => {
                let mut all = vec![None; ops as usize];
                for (at, counter) in counters {
                    if let Some(place) = all.get_mut(at as usize) {
                        *place = Some(counter);
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

    /// As the entry of a write with these options has it: nothing, if nobody can ask again.
    pub(super) fn outcome_of(&self, options: &WriteOptions) -> Vec<u8> {
        match write_id(options) {
            Some(_) => self.encode(),
            None => Vec::new(),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Written { existed: None } => {}
            Self::Written {
                existed: Some(existed),
            } => out.push(1 + u8::from(*existed)),
            Self::Counter { value } => {
                out.push(3);
                out.extend_from_slice(&value.to_le_bytes());
            }
            Self::Batch { ops, counters } => {
                out.push(4);
                out.extend_from_slice(&ops.to_le_bytes());
                for (at, counter) in counters {
                    out.extend_from_slice(&at.to_le_bytes());
                    out.extend_from_slice(&counter.to_le_bytes());
                }
            }
            Self::Untold => out.push(5),
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let Some((kind, rest)) = bytes.split_first() else {
            return Some(Self::Written { existed: None });
        };
        Some(match (kind, rest) {
            (1 | 2, []) => Self::Written {
                existed: Some(*kind == 2),
            },
            (3, _) => Self::Counter {
                value: i64::from_le_bytes(rest.try_into().ok()?),
            },
            (4, _) => {
                let (ops, rest) = rest.split_first_chunk::<4>()?;
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

/// The pair that the client has given a write, if it has.
pub(super) fn write_id(options: &WriteOptions) -> Option<WriteId> {
    WriteId::of(options.client, options.sequence)
}

impl<E: Env> Inner<E> {
    /// Answers a write that is known, or that may have been done; whether it did.
    pub(super) fn answer_repeat(
        self: &Rc<Self>,
        origin: Origin,
        partition: PartitionId,
        options: &WriteOptions,
    ) -> bool {
        let Some(write) = write_id(options).filter(|_| !planted::is(Bug::RepeatDoneAgain)) else {
            return false;
        };
        let now = self.clock.get().now;
        let term = self.with_replica(partition, |replica| replica.term());
        let (id, outcome) = {
            let writers = self.engine.tree().writers(partition);
            match writers.find(write, options.retry, term.unwrap_or_default(), now) {
                Known::New => return false,
                Known::Done(id, outcome) => (
                    id,
                    Done::decode(outcome).and_then(|done| done.outcome(origin)),
                ),
                Known::Doubtful => (LogId::default(), None),
            }
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
}

#[cfg(test)]
mod tests;
