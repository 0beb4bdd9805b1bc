//! A core's account of its requests: counts, histograms, and the slow ones.

use std::cell::{Cell, RefCell};

use ringbolt_engine::entry::{KeyspaceId, PartitionId};

use super::{Histogram, OPS, OUTCOMES, Op, Outcome, Slow, SlowRing, Trace, WAITS, Wait};
use crate::cluster::NodeId;

/// Slow records that a core keeps.
const SLOW_MAX: usize = 256;
/// Slow records that one turn may leave: when all is slow, a few tell why.
const SLOW_PER_TURN: u32 = 8;
/// Bytes of a key that are kept.
const KEY_BYTES_MAX: usize = 128;
/// A core looks at its sockets at least every 5 ms. One that did not for this long was held up: by a
/// task, by other processes, by a stopped process.
const STALL_US: u64 = 8_000;

/// What is known of a slow request beside its trace.
#[derive(Debug, Default)]
pub(in crate::shard) struct Note {
    pub(in crate::shard) partition: Option<PartitionId>,
    pub(in crate::shard) key: Option<(KeyspaceId, Vec<u8>)>,
    /// When each member had stored the write, as a moment of the clock.
    pub(in crate::shard) members: Vec<(NodeId, Option<u64>)>,
}

impl Note {
    /// Of a key.
    pub(in crate::shard) fn of_key(
        partition: PartitionId,
        keyspace: KeyspaceId,
        key: &[u8],
    ) -> Self {
        Self {
            partition: Some(partition),
            key: Some((keyspace, key[..key.len().min(KEY_BYTES_MAX)].to_vec())),
            members: Vec::new(),
        }
    }
}

/// A request whose answer goes out with this turn.
struct Answered {
    trace: Trace,
    outcome: Outcome,
    bytes: u32,
    note: Option<Box<Note>>,
}

/// A slow request that is being sent back.
pub(in crate::shard) struct SlowHere {
    trace: Trace,
    note: Option<Box<Note>>,
    at: (u64, u64),
}

/// One core's account.
pub(in crate::shard) struct Account {
    threshold_us: u32,
    counts: [[Cell<u64>; OUTCOMES]; OPS],
    times: [Histogram; OPS],
    waits: [Histogram; WAITS],
    /// Requests that began and are answered in this turn without having waited: nearly all, so
    /// they are only counted.
    within: [Cell<u64>; OPS],
    has_within: Cell<bool>,
    /// The others that are answered in this turn.
    answered: RefCell<Vec<Answered>>,
    /// What is known of the request that is about to be answered, if it is slow.
    note: Cell<Option<Box<Note>>>,
    slow: RefCell<SlowRing>,
    slow_total: Cell<u64>,
    /// Slow records that this turn may still leave.
    slow_left: Cell<u32>,
    turn_us: Cell<u64>,
    /// What the core had given to background tasks when the turn began.
    background_us: Cell<u64>,
    /// Since when requests that are taken up now may have waited, if that is worth telling.
    waiting_since_us: Cell<Option<u64>>,
    stalls: Cell<u64>,
    stalled_us: Cell<u64>,
}

impl Account {
    /// One that keeps what takes longer than `threshold_us`.
    pub(in crate::shard) fn new(threshold_us: u32) -> Self {
        Self {
            threshold_us,
            counts: Default::default(),
            times: Default::default(),
            waits: Default::default(),
            within: Default::default(),
            has_within: Cell::new(false),
            answered: RefCell::default(),
            note: Cell::default(),
            slow: RefCell::default(),
            slow_total: Cell::new(0),
            slow_left: Cell::new(SLOW_PER_TURN),
            turn_us: Cell::new(0),
            background_us: Cell::new(0),
            waiting_since_us: Cell::new(None),
            stalls: Cell::new(0),
            stalled_us: Cell::new(0),
        }
    }

    /// A turn begins; what it finds may have waited since the last one did.
    pub(in crate::shard) fn begin_turn(&self, now_us: u64, background_us: u64) {
        let before = self.turn_us.replace(now_us);
        self.background_us.set(background_us);
        self.slow_left.set(SLOW_PER_TURN);
        let gap = now_us.saturating_sub(before);
        let stalled = before != 0 && gap > STALL_US;
        self.waiting_since_us.set(stalled.then_some(before));
        if stalled {
            self.stalls.set(self.stalls.get() + 1);
            self.stalled_us.set(self.stalled_us.get() + gap);
        }
    }

    /// Requests taken up now have waited since then, until [`Account::waited`] says otherwise. Returns
    /// what was so before.
    pub(in crate::shard) fn waited_since(&self, us: Option<u64>) -> Option<u64> {
        self.waiting_since_us.replace(us)
    }

    /// A request that is taken up now.
    #[inline]
    pub(in crate::shard) fn begin(&self, op: Op) -> Trace {
        let trace = Trace::begin(op, self.turn_us.get(), self.background_us.get());
        match self.waiting_since_us.get() {
            None => trace,
            Some(since_us) => trace.since(since_us),
        }
    }

    /// Whether a request that is about to be answered leaves a record.
    pub(in crate::shard) fn is_slow(&self, trace: &Trace, now_us: u64) -> bool {
        trace.so_far_us(now_us) >= self.threshold_us && !trace.told && self.slow_left.get() > 0
    }

    /// Says what is known of the request that is answered next.
    pub(in crate::shard) fn note(&self, note: Note) {
        self.note.set(Some(Box::new(note)));
    }

    /// What was noted is not answered now after all.
    pub(in crate::shard) fn forget_note(&self) {
        drop(self.note.take());
    }

    /// A client's request is answered with this turn.
    #[inline]
    pub(in crate::shard) fn answered(&self, trace: &Trace, outcome: Outcome, bytes: u32) {
        let count = &self.counts[trace.op as usize][outcome as usize];
        count.set(count.get() + 1);
        if trace.marked_us == 0 && trace.began_us == self.turn_us.get() {
            let within = &self.within[trace.op as usize];
            within.set(within.get() + 1);
            return self.has_within.set(true);
        }
        let note = self.note.take();
        self.answered.borrow_mut().push(Answered {
            trace: *trace,
            outcome,
            bytes,
            note,
        });
    }

    /// Whether the turn's end has something to account for.
    pub(in crate::shard) fn has_answered(&self) -> bool {
        self.has_within.get() || !self.answered.borrow().is_empty()
    }

    /// The turn ends, and its answers go out.
    pub(in crate::shard) fn end_turn(&self, now_us: u64, wall_ms: u64, background_us: u64) {
        if self.has_within.replace(false) {
            self.end_within(now_us, wall_ms, background_us);
        }
        let mut answered = self.answered.take();
        for one in answered.drain(..) {
            let mut trace = one.trace;
            trace.mark(Wait::Core, now_us);
            let total = trace.marked_us;
            self.times[trace.op as usize].record(total, 1);
            for (wait, us) in self.waits.iter().zip(trace.waits) {
                if us > 0 {
                    wait.record(us, 1);
                }
            }
            if total >= self.threshold_us && !trace.told {
                let (outcome, bytes) = (one.outcome, one.bytes);
                self.keep(
                    trace,
                    outcome,
                    bytes,
                    None,
                    one.note,
                    (wall_ms, background_us),
                );
            }
        }
        // Its memory serves the next turn.
        self.answered.replace(answered);
    }

    /// The requests that the turn took up and answered took as long as it. A turn that is slow itself
    /// leaves one record for all of an operation.
    fn end_within(&self, now_us: u64, wall_ms: u64, background_us: u64) {
        for (op, within) in Op::ALL.iter().zip(&self.within) {
            let count = within.take();
            if count == 0 {
                continue;
            }
            let mut trace = self.begin(*op);
            trace.mark(Wait::Core, now_us);
            self.times[*op as usize].record(trace.marked_us, count);
            self.waits[Wait::Core as usize].record(trace.marked_us, count);
            if trace.marked_us >= self.threshold_us {
                self.slow_total.set(self.slow_total.get() + count - 1);
                self.keep(trace, Outcome::Ok, 0, None, None, (wall_ms, background_us));
            }
        }
    }

    /// A request of another core or node is answered: what it leaves here if it is slow and such that
    /// leave records. `at` is the moment: in microseconds, by the wall clock, and of background work.
    pub(in crate::shard) fn sends_back(
        &self,
        trace: &mut Trace,
        has_record: bool,
        (now_us, wall_ms, background_us): (u64, u64, u64),
    ) -> Option<SlowHere> {
        trace.mark(Wait::Core, now_us);
        let note = self.note.take();
        if !has_record || !self.is_slow(trace, now_us) {
            return None;
        }
        trace.told = true;
        Some(SlowHere {
            trace: *trace,
            note,
            at: (wall_ms, background_us),
        })
    }

    /// Leaves the record of a request that was sent back.
    pub(in crate::shard) fn leave(
        &self,
        slow: SlowHere,
        outcome: Outcome,
        bytes: u32,
        forwarded_by: Option<NodeId>,
    ) {
        self.keep(slow.trace, outcome, bytes, forwarded_by, slow.note, slow.at);
    }

    fn keep(
        &self,
        trace: Trace,
        outcome: Outcome,
        bytes: u32,
        forwarded_by: Option<NodeId>,
        note: Option<Box<Note>>,
        (wall_ms, background_us): (u64, u64),
    ) {
        self.slow_total.set(self.slow_total.get() + 1);
        let left = self.slow_left.get();
        if left == 0 {
            return;
        }
        self.slow_left.set(left - 1);
        let note = note.map(|note| *note).unwrap_or_default();
        let from = |us: u64| trace.so_far_us(us);
        let mut ring = self.slow.borrow_mut();
        if ring.records.len() == SLOW_MAX {
            ring.records.pop_front();
        }
        ring.number += 1;
        let number = ring.number;
        ring.records.push_back(Slow {
            number,
            wall_ms,
            op: trace.op,
            outcome,
            bytes,
            forwarded_by,
            partition: note.partition,
            key: note.key,
            total_us: trace.marked_us,
            waits: trace.waits,
            background_us: (background_us as u32).wrapping_sub(trace.background_us),
            members: note
                .members
                .into_iter()
                .map(|(node, us)| (node, us.map(from)))
                .collect(),
        });
    }

    /// A copy of it all, the slow records only if they are wanted.
    pub(in crate::shard) fn view(&self, with_slow: bool) -> AccountView {
        let ring = self.slow.borrow();
        let records = ring.records.iter().filter(|_| with_slow);
        AccountView {
            counts: std::array::from_fn(|op| {
                std::array::from_fn(|outcome| self.counts[op][outcome].get())
            }),
            times: self.times.clone(),
            waits: self.waits.clone(),
            slow_total: self.slow_total.get(),
            stalls: self.stalls.get(),
            stalled_us: self.stalled_us.get(),
            slow: records.cloned().collect(),
        }
    }
}

/// A copy of one core's account.
#[derive(Debug, Clone)]
pub struct AccountView {
    /// Requests by operation and outcome.
    pub counts: [[u64; OUTCOMES]; OPS],
    /// From arrival to answer, by operation.
    pub times: [Histogram; OPS],
    /// What requests waited for.
    pub waits: [Histogram; WAITS],
    /// Requests past the threshold.
    pub slow_total: u64,
    /// Times that the core did not look at its sockets for 8 ms or longer.
    pub stalls: u64,
    /// How long, in microseconds.
    pub stalled_us: u64,
    /// The newest slow requests, oldest first.
    pub slow: Vec<Slow>,
}

#[cfg(test)]
mod tests;
