//! From durable to answered: commit, apply, acknowledge.
//!
//! The log hands back groups in log order, each wholly durable, never past a gap. Each entry is
//! told to its replica (which commits it), applied to the tree, and matched with the write at the
//! front of the pending queue. Where the tree asks for throttling, acknowledgements are held back
//! so that writes go on at the rate compaction can follow: smoothly, since each write moves the
//! release time a little, and without delaying reads.

use std::time::Duration;

use ringbolt_engine::entry::{EntryHead, LogId, PartitionId};
use ringbolt_engine::env::Env;
use ringbolt_engine::log::RecordView;
use ringbolt_wire::codec;
use ringbolt_wire::message::{ErrorCode, Token};

use super::counters::add;
use super::mail::Origin;
use super::pending::Outcome;
use super::reply::token;
use super::{Held, Inner};

/// Longest that throttling may hold back one acknowledgement.
const HOLD_MAX: Duration = Duration::from_millis(100);

impl<E: Env> Inner<E> {
    /// Applies and answers everything that has become durable.
    pub(super) fn take_durable(&self) {
        while let Some(group) = self.engine.take_durable() {
            for record in group.records() {
                if let RecordView::Entry { head, effects } = record {
                    self.commit(&head);
                    self.engine.apply(&head, effects);
                    self.finish_write(&head);
                }
            }
        }
        self.wake_deferred();
    }

    fn commit(&self, head: &EntryHead) {
        let mut replicas = self.replicas.borrow_mut();
        if let Some(Some(replica)) = replicas.get_mut(usize::from(head.partition)) {
            replica.persisted(head.id);
            replica.applied(head);
        }
    }

    /// Answers the write whose entry was just applied, and what rode behind it.
    fn finish_write(&self, head: &EntryHead) {
        let done = self.pending.borrow_mut().pop_write();
        if let Some(done) = done {
            debug_assert_eq!(done.partition, head.partition, "answers in log order");
            self.acknowledge(done.outcome, done.bytes, head.partition, head.id);
        }
        loop {
            let rider = self.pending.borrow_mut().pop_rider();
            let Some(rider) = rider else {
                break;
            };
            let seen = self.applied(rider.partition);
            self.settle(rider.outcome, seen);
        }
    }

    fn acknowledge(&self, outcome: Outcome, bytes: u32, partition: PartitionId, id: LogId) {
        let token = token(partition, id);
        let pressure = self.engine.tree().pressure();
        if pressure.delay_per_kib.is_zero() || matches!(outcome, Outcome::Own(_)) {
            return self.settle(outcome, token);
        }
        let now = self.clock.get().now;
        let kib = bytes.div_ceil(1024);
        let until = self
            .throttle_until
            .get()
            .max(now)
            .saturating_add(pressure.delay_per_kib.saturating_mul(kib))
            .min(now + HOLD_MAX);
        self.throttle_until.set(until);
        add(
            &self.counters.throttled_us_total,
            (until - now).as_micros() as u64,
        );
        self.held.borrow_mut().push_back(Held {
            until,
            token,
            outcome,
        });
    }

    /// Gives the acknowledgements whose time has come. Returns when the next one is due.
    pub(super) fn release_held(&self) -> Option<Duration> {
        let now = self.clock.get().now;
        loop {
            let due = {
                let mut held = self.held.borrow_mut();
                match held.front() {
                    None => return None,
                    Some(front) if front.until > now => return Some(front.until),
                    Some(_) => held.pop_front(),
                }
            };
            if let Some(due) = due {
                self.settle(due.outcome, due.token);
            }
        }
    }

    /// Answers a write.
    pub(super) fn settle(&self, outcome: Outcome, token: Token) {
        match outcome {
            Outcome::Written { origin, existed } => {
                add(&self.counters.writes_total, 1);
                self.reply(&origin, |out| {
                    codec::encode_written(out, origin.request_id, token, existed);
                });
            }
            Outcome::Counter { origin, value } => {
                add(&self.counters.writes_total, 1);
                self.reply(&origin, |out| {
                    codec::encode_counter(out, origin.request_id, token, value);
                });
            }
            Outcome::Batch { origin, counters } => {
                add(&self.counters.writes_total, counters.len() as u64);
                self.reply(&origin, |out| {
                    let counters = counters.iter().copied();
                    codec::encode_batch_written(out, origin.request_id, token, counters);
                });
            }
            Outcome::NotFound { origin } => self.reply(&origin, |out| {
                codec::encode_not_found(out, origin.request_id, token);
            }),
            Outcome::Failed {
                origin,
                code,
                detail,
            } => self.fail(&origin, code, 0, detail, words(code)),
            Outcome::Own(signal) => {
                if let Some(signal) = signal {
                    signal.set(LogId {
                        term: token.term,
                        index: token.index,
                    });
                }
            }
        }
    }

    /// Takes up again the requests that waited for what is now applied.
    fn wake_deferred(&self) {
        if self.deferred.borrow().is_empty() {
            return;
        }
        let ready: Vec<_> = self
            .deferred
            .borrow_mut()
            .extract_if(.., |waiting| {
                self.applied(waiting.partition).index >= waiting.index
            })
            .collect();
        self.ready.borrow_mut().extend(ready);
    }

    /// Answers what waited past its deadline: a write under way is in doubt, anything else was not
    /// done.
    pub(super) fn expire(&self) {
        let now = self.clock.get().now;
        let mut doubtful: Vec<Origin> = Vec::new();
        self.pending
            .borrow_mut()
            .expire(now, |origin| doubtful.push(origin));
        for origin in doubtful {
            self.fail(
                &origin,
                ErrorCode::InDoubt,
                0,
                0,
                "the deadline passed while the write was under way: it may or may not be done; \
                 read the key to find out",
            );
        }
        let late: Vec<_> = self
            .deferred
            .borrow_mut()
            .extract_if(.., |waiting| waiting.origin.deadline <= now)
            .collect();
        for waiting in late {
            let applied = self.applied(waiting.partition).index;
            let message = format!(
                "partition {} is at {applied}, the read asked for {}: no replica has it",
                waiting.partition, waiting.index
            );
            self.fail(&waiting.origin, ErrorCode::Stale, 50, applied, &message);
        }
    }
}

/// The words for a failure that was decided against a key's state.
fn words(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::ConditionFailed => {
            "the condition does not hold: `detail` is the key's version, 0 if it is absent"
        }
        ErrorCode::NotANumber => {
            "the value is no decimal number of 64 bits with a sign, or would overflow"
        }
        _ => "the write was not done",
    }
}
