//! Where a request's time goes.
//!
//! Each request carries a [`Trace`]: when it began, and for each thing that a request may wait for
//! ([`Wait`]) how long it did. Whatever ends a wait *marks* it: all the time since the last mark was
//! that wait. So the waits add up to the whole time whatever way a request takes, over other
//! cores too: their clocks are one. A mark is a subtraction and two stores, by the clock that the turn
//! has read anyway.
//!
//! A turn's answers are accounted for at its end, where the clock is read once more if there were
//! any: counted by operation and outcome, put into histograms, and kept as a [`Slow`] record if
//! they took longer than the threshold. Records are made by the core that executed a request, for it
//! knows the key and what its peers have said; a request that became slow only on the way back leaves
//! one where its connection is.

use std::cell::Cell;
use std::collections::VecDeque;

use ringbolt_engine::entry::{KeyspaceId, PartitionId};
use ringbolt_wire::Kind;

use crate::cluster::NodeId;

mod account;
mod acks;

pub use account::AccountView;
pub(super) use account::{Account, Note, SlowHere};
pub(super) use acks::Acks;

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $word:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$doc])* $word,)*
        }

        impl $name {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$word),*];

            /// As metrics and records show it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$word => $text,)*
                }
            }
        }
    };
}

words! {
    /// What a request asks for.
    Op {
        /// One value.
        Get = "get",
        /// Many values.
        MultiGet = "multi_get",
        /// A record's description.
        Stat = "stat",
        /// A page of rows.
        Scan = "scan",
        /// A put.
        Put = "put",
        /// A delete.
        Delete = "delete",
        /// An increment.
        Increment = "increment",
        /// A touch.
        Touch = "touch",
        /// Many writes.
        Batch = "batch",
        /// Anything else: pings, topology, keyspaces, counters.
        Other = "other",
    }
}

words! {
    /// How a request ended, by what a client should do.
    Outcome {
        /// Done.
        Ok = "ok",
        /// There is no such key.
        NotFound = "not_found",
        /// The request is wrong.
        Invalid = "invalid",
        /// The data is not as the request supposed.
        Conflict = "conflict",
        /// Not done, to be tried again: overload, no leader, no space, too late.
        Retry = "retry",
        /// It may or may not be done.
        InDoubt = "in_doubt",
        /// For the operator: damage, or a shard that has stopped.
        Failed = "failed",
    }
}

words! {
    /// What a request waits for.
    Wait {
        /// The core has not looked at its socket for long, or did not read the connection because a
        /// limit was reached: at most this long.
        Queue = "queue",
        /// The core works: on this request and on the others of its turn.
        Core = "core",
        /// On the way to another core of the node, or back.
        Mailbox = "mailbox",
        /// Until its partition has applied what the request must see.
        Apply = "apply",
        /// Table reads.
        Disk = "disk",
        /// Until a quorum has said that this replica still leads.
        Proof = "proof",
        /// Until the log has made it durable here.
        Log = "log",
        /// From then until a quorum of the partition's replicas has.
        Peers = "peers",
        /// From then until as many replicas as the client asked for have.
        Spread = "spread",
        /// Held back by write throttling.
        Throttle = "throttle",
        /// Until other cores or nodes have answered parts of it, or another node all of it.
        Forward = "forward",
    }
}

/// How many operations, outcomes and waits there are.
pub const OPS: usize = Op::ALL.len();
/// See [`OPS`].
pub const OUTCOMES: usize = Outcome::ALL.len();
/// See [`OPS`].
pub const WAITS: usize = Wait::ALL.len();

impl Op {
    /// What a frame of this kind asks for; a single write is looked at more closely later.
    pub(super) fn of_kind(kind: u8) -> Self {
        const GET: u8 = Kind::Get as u8;
        const MULTI_GET: u8 = Kind::MultiGet as u8;
        const STAT: u8 = Kind::Stat as u8;
        const SCAN: u8 = Kind::Scan as u8;
        const WRITE: u8 = Kind::Write as u8;
        const BATCH: u8 = Kind::Batch as u8;
        match kind {
            GET => Self::Get,
            MULTI_GET => Self::MultiGet,
            STAT => Self::Stat,
            SCAN => Self::Scan,
            WRITE => Self::Put,
            BATCH => Self::Batch,
            _ => Self::Other,
        }
    }
}

impl Outcome {
    /// How a reply frame of our own says that the request ended.
    pub(super) fn of_reply(reply: &[u8]) -> Self {
        match ringbolt_wire::codec::outcome_of(reply) {
            (kind, _) if kind == Kind::NotFound as u8 => Self::NotFound,
            (kind, class) if kind == Kind::Error as u8 => match class {
                1 => Self::Invalid,
                2 => Self::Conflict,
                3 => Self::Retry,
                4 => Self::InDoubt,
                _ => Self::Failed,
            },
            _ => Self::Ok,
        }
    }
}

/// A request's time so far. Microseconds of the machine's `CLOCK_BOOTTIME`, which all cores share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    began_us: u64,
    /// The last mark, from `began_us`.
    marked_us: u32,
    /// What the core had given to background tasks when the request began.
    background_us: u32,
    waits: [u32; WAITS],
    /// What it asks for.
    pub(super) op: Op,
    /// Whether a slow record of it was left already.
    told: bool,
}

impl Default for Trace {
    /// Of what is no client's request.
    fn default() -> Self {
        Self::begin(Op::Other, 0, 0)
    }
}

impl Trace {
    /// A request that begins now.
    pub(super) fn begin(op: Op, now_us: u64, background_us: u64) -> Self {
        Self {
            began_us: now_us,
            marked_us: 0,
            background_us: background_us as u32,
            waits: [0; WAITS],
            op,
            told: false,
        }
    }

    /// It has waited since then already.
    pub(super) fn since(mut self, arrived_us: u64) -> Self {
        let now_us = self.began_us;
        self.began_us = arrived_us.min(now_us);
        self.mark(Wait::Queue, now_us);
        self
    }

    /// All the time since the last mark was this.
    pub(super) fn mark(&mut self, wait: Wait, now_us: u64) {
        let at = self.so_far_us(now_us);
        let waited = at.saturating_sub(self.marked_us);
        self.waits[wait as usize] += waited;
        self.marked_us += waited;
    }

    fn so_far_us(&self, now_us: u64) -> u32 {
        u32::try_from(now_us.saturating_sub(self.began_us)).unwrap_or(u32::MAX)
    }
}

/// A request that took longer than the threshold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slow {
    /// Grows by one with each record of a core.
    pub number: u64,
    /// When it was answered, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// What it asked for.
    pub op: Op,
    /// How it ended.
    pub outcome: Outcome,
    /// Bytes of the request.
    pub bytes: u32,
    /// The node that forwarded it, if one did.
    pub forwarded_by: Option<NodeId>,
    /// Its partition and the key, as far as they are known: keyspace and key, or nothing.
    pub partition: Option<PartitionId>,
    /// See [`Slow::partition`].
    pub key: Option<(KeyspaceId, Vec<u8>)>,
    /// From arrival to answer, in microseconds.
    pub total_us: u32,
    /// What it waited for, by [`Wait`], in microseconds. They add up to the total.
    pub waits: [u32; WAITS],
    /// Of this time, what its core gave to flushes and compactions.
    pub background_us: u32,
    /// For a write: when each member had stored it, in microseconds from the arrival; `None` for
    /// one that has not been heard of.
    pub members: Vec<(NodeId, Option<u32>)>,
}

/// Sub-buckets of each power of two.
const PARTS: usize = 4;
/// Powers of two of a microsecond: the last one is over 8 s.
const POWERS: usize = 24;
/// Buckets of a [`Histogram`].
pub const BUCKETS: usize = POWERS * PARTS;

/// Times by size, in buckets no wider than a quarter of what is in them.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: [Cell<u64>; BUCKETS],
    sum_us: Cell<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: [const { Cell::new(0) }; BUCKETS],
            sum_us: Cell::new(0),
        }
    }
}

impl Histogram {
    fn record(&self, us: u32, times: u64) {
        let count = &self.counts[bucket_of(us)];
        count.set(count.get() + times);
        self.sum_us.set(self.sum_us.get() + u64::from(us) * times);
    }

    /// All times added up, in microseconds.
    #[must_use]
    pub fn sum_us(&self) -> u64 {
        self.sum_us.get()
    }

    /// The count of each bucket.
    pub fn counts(&self) -> impl Iterator<Item = u64> + '_ {
        self.counts.iter().map(Cell::get)
    }
}

/// The bucket of a time: by its highest bit and the two bits behind it.
fn bucket_of(us: u32) -> usize {
    if us < PARTS as u32 {
        return us as usize;
    }
    let power = us.ilog2() as usize;
    let part = (us >> (power - 2)) as usize & (PARTS - 1);
    ((power - 1) * PARTS + part).min(BUCKETS - 1)
}

/// The least time, in microseconds, that is above a bucket.
#[must_use]
pub fn bucket_end_us(bucket: usize) -> u64 {
    if bucket < PARTS {
        return bucket as u64 + 1;
    }
    let (power, part) = (bucket / PARTS + 1, bucket % PARTS);
    ((PARTS + part + 1) as u64) << (power - 2)
}

/// The newest records of one core.
#[derive(Debug, Default)]
pub(super) struct SlowRing {
    records: VecDeque<Slow>,
    number: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_add_up_to_the_whole_time() {
        let mut trace = Trace::begin(Op::Put, 1_000, 7).since(900);
        trace.mark(Wait::Core, 1_010);
        trace.mark(Wait::Log, 1_400);
        // A clock that a task has read earlier than the turn.
        trace.mark(Wait::Peers, 1_390);
        trace.mark(Wait::Core, 1_405);
        assert_eq!(trace.so_far_us(1_405), 505);
        assert_eq!(trace.waits.iter().sum::<u32>(), 505);
        assert_eq!(trace.waits[Wait::Queue as usize], 100);
        assert_eq!(trace.waits[Wait::Log as usize], 390);
        assert_eq!(trace.marked_us, 505);
    }

    #[test]
    fn every_time_has_a_bucket_that_holds_it() {
        let mut before = 0;
        for us in (0..100_000).chain([1 << 22, 1 << 30, u32::MAX]) {
            let bucket = bucket_of(us);
            assert!(bucket >= before && bucket < BUCKETS);
            before = bucket;
            if bucket < BUCKETS - 1 {
                assert!(u64::from(us) < bucket_end_us(bucket), "{us}");
                assert!(
                    bucket == 0 || u64::from(us) >= bucket_end_us(bucket - 1),
                    "{us}"
                );
            }
        }
        let ends: Vec<u64> = (0..BUCKETS).map(bucket_end_us).collect();
        assert!(ends.is_sorted() && ends[BUCKETS - 1] == 1 << 25);
    }
}
