//! From applied to answered.
//!
//! An entry that was applied decides what waited for its index: the write it was, and what rode
//! behind it, are done; what another entry replaced never was. Where the tree asks for throttling,
//! acknowledgements are held back so that writes go on at the rate compaction can follow: smoothly,
//! since each write moves the release time a little, and without delaying reads.
//!
//! Sending is most of what a turn does, and a read that has just missed a turn waits for all of it. So a turn that
//! has read acknowledges to a few connections only, and leaves the others to the next one.

use std::rc::Rc;
use std::time::Duration;

use ringbolt_engine::entry::{Effect, LogId, PartitionId};
use ringbolt_engine::env::Env;
use ringbolt_engine::log::decode_payload_trusted;
use ringbolt_wire::codec;
use ringbolt_wire::message::{Ack, ErrorCode, Token};

use super::counters::add;
use super::forward::is_write;
use super::mail::{Origin, Ticket};
use super::pending::{Outcome, Pending};
use super::reply::token;
use super::trace::{Note, Wait};
use super::{Held, Inner, Spreading};
use crate::replica::node_of;

/// Connections to which one turn acknowledges writes where it has read for clients as well: reads that come
/// meanwhile wait for all that it sends.
const ACKS_BESIDE_READS: usize = 16;
/// Longest that throttling may hold back one acknowledgement.
const HOLD_MAX: Duration = Duration::from_millis(100);

impl<E: Env> Inner<E> {
    /// Answers what waited for the entry that was just applied, and what rode behind it.
    pub(super) fn finish_writes(self: &Rc<Self>, partition: PartitionId, applied: LogId) {
        loop {
            let next = self.pending.borrow_mut()[usize::from(partition)].pop_known(applied);
            let Some(pending) = next else {
                break;
            };
            if pending.ack == Ack::Leader {
                self.leader_acks.set(self.leader_acks.get() - 1);
            }
            if pending.id != applied {
                self.discarded(partition, pending.outcome);
                continue;
            }
            self.conclude(partition, pending);
        }
    }

    /// Answers a write whose entry is applied, once as many replicas have stored it as it asks for.
    pub(super) fn conclude(self: &Rc<Self>, partition: PartitionId, mut pending: Pending) {
        if pending.outcome.writes_nothing() {
            // It is a read of what its entry left: another may have led and written since it was asked.
            let seen = token(partition, pending.id);
            return self.settle_as_read(seen, pending.outcome);
        }
        self.mark_stored(partition, pending.id.index, &mut pending.outcome);
        match self.still_to_store(partition, &pending) {
            Some(needed) => self.spreading.borrow_mut().push(Spreading {
                partition,
                id: pending.id,
                needed,
                bytes: pending.bytes,
                outcome: pending.outcome,
            }),
            None => self.acknowledge(pending.outcome, pending.bytes, partition, pending.id),
        }
    }

    /// A write has waited for its entry: first for this node's log, then for the others'.
    fn mark_stored(&self, partition: PartitionId, index: u64, outcome: &mut Outcome) {
        let now_us = self.clock.get().us;
        match self.acks.borrow().own_since(partition, index) {
            Some(stored_us) => {
                outcome.mark(Wait::Log, stored_us);
                outcome.mark(Wait::Peers, now_us);
            }
            None => outcome.mark(Wait::Log, now_us),
        }
    }

    /// Says which key a slow write is about and when its members had stored it, as far as memory
    /// tells.
    fn note_write(&self, origin: &Origin, token: Token) {
        if !self.is_slow(origin) {
            return;
        }
        let (partition, index) = (token.partition, token.index);
        let replicas = self.replicas.borrow();
        let Some(Some(replica)) = replicas.get(usize::from(partition)) else {
            return;
        };
        let mut note = Note::default();
        if let Some((id, payload)) = replica.entry(index)
            && let Some((_, mut effects)) = decode_payload_trusted(partition, id, &payload)
            && let Some(Effect::Put { keyspace, key, .. } | Effect::Delete { keyspace, key }) =
                effects.next()
        {
            note = Note::of_key(partition, keyspace, key);
        }
        note.partition = Some(partition);
        if !replica.is_alone() {
            let acks = self.acks.borrow();
            let here = self.config.cluster.here();
            let members = replica.progress().map(|(id, ..)| node_of(id));
            let since = |node| match node == here {
                true => acks.own_since(partition, index),
                false => acks.peer_since(partition, node, index),
            };
            note.members = members.map(|node| (node, since(node))).collect();
        }
        self.account.note(note);
    }

    /// How many voters must have stored a write before it is acknowledged, if not enough have yet.
    fn still_to_store(&self, partition: PartitionId, pending: &Pending) -> Option<usize> {
        let wanted = match pending.ack {
            Ack::All => usize::MAX,
            Ack::Count(count) => usize::from(count),
            Ack::Leader | Ack::Quorum => return None,
        };
        let replicas = self.replicas.borrow();
        let replica = replicas.get(usize::from(partition))?.as_ref()?;
        let (stored, voters) = replica.stored_by(pending.id.index);
        let needed = wanted.min(voters);
        (stored < needed).then_some(needed)
    }

    /// Acknowledges the writes that enough replicas have stored by now.
    pub(super) fn acknowledge_spread(&self, partition: PartitionId) {
        if self.spreading.borrow().is_empty() {
            return;
        }
        let done: Vec<Spreading> = {
            let replicas = self.replicas.borrow();
            let Some(Some(replica)) = replicas.get(usize::from(partition)) else {
                return;
            };
            let mut spreading = self.spreading.borrow_mut();
            spreading
                .extract_if(.., |one| {
                    one.partition == partition && replica.stored_by(one.id.index).0 >= one.needed
                })
                .collect()
        };
        for mut one in done {
            one.outcome.mark(Wait::Spread, self.clock.get().us);
            self.acknowledge(one.outcome, one.bytes, partition, one.id);
        }
    }

    /// Answers the writes that need only be durable on the leader, up to `index`.
    pub(super) fn acknowledge_durable(&self, partition: PartitionId, index: u64) {
        let mut done = Vec::new();
        let term = self.with_replica(partition, |replica| replica.term());
        self.pending.borrow_mut()[usize::from(partition)].durable(
            term.unwrap_or_default(),
            index,
            |id, outcome| {
                done.push((id, outcome));
            },
        );
        self.leader_acks
            .set(self.leader_acks.get() - done.len() as u64);
        for (id, mut outcome) in done {
            outcome.mark(Wait::Log, self.clock.get().us);
            self.settle(outcome, token(partition, id));
        }
    }

    /// Answers a write that another leader's entry has replaced: it was not done.
    fn discarded(&self, partition: PartitionId, outcome: Outcome) {
        if let Outcome::Own(signal) = &outcome {
            if let Some(signal) = signal {
                signal.set(None);
            }
            return;
        }
        if let Some(origin) = outcome.origin() {
            self.refuse(origin, &self.led_elsewhere(partition));
        }
    }

    /// Answers what waited for entries up to this one whose fate cannot be known any more.
    pub(super) fn in_doubt_upto(&self, partition: PartitionId, applied: LogId) {
        loop {
            let next = self.pending.borrow_mut()[usize::from(partition)].pop_known(applied);
            let Some(pending) = next else {
                break;
            };
            if pending.ack == Ack::Leader {
                self.leader_acks.set(self.leader_acks.get() - 1);
            }
            match pending.outcome {
                Outcome::Own(Some(signal)) => signal.set(None),
                outcome => {
                    if let Some(origin) = outcome.origin() {
                        self.in_doubt(origin);
                    }
                }
            }
        }
    }

    fn in_doubt(&self, origin: &Origin) {
        self.fail(
            origin,
            ErrorCode::InDoubt,
            0,
            0,
            "the deadline passed or leadership was lost while the write was under way: it may or \
             may not be done; read the key to find out",
        );
    }

    fn acknowledge(&self, outcome: Outcome, bytes: u32, partition: PartitionId, id: LogId) {
        let token = token(partition, id);
        let pressure = self.engine.tree().pressure();
        if pressure.delay_per_kib.is_zero() || matches!(outcome, Outcome::Own(_)) {
            return self.settle_or_postpone(outcome, token);
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

    /// Says how many connections this turn may acknowledge to, and begins with those that the last one left.
    pub(super) fn begin_acknowledging(&self) {
        let gets = self.counters.gets_total.get();
        let has_read = self.gets_before.replace(gets) != gets;
        self.acks_left.set(match has_read {
            true => ACKS_BESIDE_READS,
            false => usize::MAX,
        });
        for (outcome, token) in self.postponed.take() {
            self.settle_or_postpone(outcome, token);
        }
    }

    /// Answers a write, in this turn if it may.
    fn settle_or_postpone(&self, outcome: Outcome, token: Token) {
        let one_more_to_send = |key| {
            let mut sessions = self.sessions.borrow_mut();
            let session = sessions.get(key);
            session.is_some_and(|session| !session.sending && session.out.is_empty())
        };
        if let Some(origin) = outcome.origin()
            && let Ticket::Session(key) = origin.ticket
            && origin.core == self.config.core
            && one_more_to_send(key)
        {
            match self.acks_left.get().checked_sub(1) {
                Some(left) => self.acks_left.set(left),
                None => return self.postponed.borrow_mut().push_back((outcome, token)),
            }
        }
        self.settle(outcome, token);
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
            if let Some(mut due) = due {
                due.outcome.mark(Wait::Throttle, self.clock.get().us);
                self.settle(due.outcome, due.token);
            }
        }
    }

    /// Answers a write.
    pub(super) fn settle(&self, outcome: Outcome, token: Token) {
        match outcome {
            Outcome::Written { origin, existed } => {
                self.note_write(&origin, token);
                add(&self.counters.writes_total, 1);
                self.reply(&origin, |out| {
                    codec::encode_written(out, origin.request_id, token, existed);
                });
            }
            Outcome::Counter { origin, value } => {
                self.note_write(&origin, token);
                add(&self.counters.writes_total, 1);
                self.reply(&origin, |out| {
                    codec::encode_counter(out, origin.request_id, token, value);
                });
            }
            Outcome::Batch { origin, counters } => {
                self.note_write(&origin, token);
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
                    signal.set(Some(LogId {
                        term: token.term,
                        index: token.index,
                    }));
                }
            }
        }
    }

    /// Takes up again the requests that waited for what is now applied.
    pub(super) fn wake_deferred(&self) {
        if self.deferred.borrow().is_empty() {
            return;
        }
        let ready: Vec<_> = self
            .deferred
            .borrow_mut()
            .extract_if(.., |waiting| {
                let mut wanted = waiting.wanted.iter();
                wanted.all(|(partition, index)| self.applied(*partition).index >= *index)
            })
            .collect();
        self.ready.borrow_mut().extend(ready);
    }

    /// Answers the partition's writes under way whose deadline is no later than this: they are in doubt.
    fn in_doubt_by(&self, partition: PartitionId, deadline: Duration) {
        let mut doubtful = Vec::new();
        self.pending.borrow_mut()[usize::from(partition)].expire(deadline, |id, outcome| {
            doubtful.push((token(partition, id), outcome));
        });
        for (token, mut outcome) in doubtful {
            self.mark_stored(partition, token.index, &mut outcome);
            if let Some(origin) = outcome.origin() {
                self.note_write(origin, token);
                self.in_doubt(origin);
            }
        }
    }

    /// Nothing is applied here for a while, and another node leads the partition or is about to: whoever
    /// waits is sent there. Writes under way are answered as in doubt, which a repeat settles.
    pub(super) fn let_go(&self, partition: PartitionId) {
        self.in_doubt_by(partition, Duration::MAX);
        let stuck: Vec<_> = self
            .deferred
            .borrow_mut()
            .extract_if(.., |waiting| {
                let mut wanted = waiting.wanted.iter();
                wanted.any(|(of, _)| *of == partition)
            })
            .collect();
        if stuck.is_empty() {
            return;
        }
        let refusal = self.led_elsewhere(partition);
        for mut waiting in stuck {
            let now_us = self.clock.get().us;
            waiting.origin.trace.mark(Wait::Apply, now_us);
            self.refuse(&waiting.origin, &refusal);
        }
    }

    /// Answers what waited past its deadline: a write under way is in doubt, anything else was not
    /// done.
    pub(super) fn expire(&self) {
        let now = self.clock.get().now;
        let partitions = self.pending.borrow().len();
        for partition in 0..partitions as PartitionId {
            self.in_doubt_by(partition, now);
        }
        let unspread: Vec<Spreading> = self
            .spreading
            .borrow_mut()
            .extract_if(.., |one| {
                one.outcome
                    .origin()
                    .is_none_or(|origin| origin.deadline <= now)
            })
            .collect();
        for mut one in unspread {
            one.outcome.mark(Wait::Spread, self.clock.get().us);
            if let Some(origin) = one.outcome.origin() {
                self.fail(
                    origin,
                    ErrorCode::CommittedNotAll,
                    0,
                    one.id.index,
                    "committed and safe on a majority, but by the deadline not on as many replicas \
                     as asked for; `detail` is the write's version",
                );
            }
        }
        let late: Vec<_> = self
            .deferred
            .borrow_mut()
            .extract_if(.., |waiting| waiting.origin.deadline <= now)
            .collect();
        for mut waiting in late {
            let now_us = self.clock.get().us;
            waiting.origin.trace.mark(Wait::Apply, now_us);
            let behind =
                |(partition, index): &&(PartitionId, u64)| self.applied(*partition).index < *index;
            let behind = waiting.wanted.iter().find(behind);
            let Some((partition, index)) = behind.filter(|_| !is_write(&waiting.frame)) else {
                self.too_late(&waiting.origin);
                continue;
            };
            let applied = self.applied(*partition).index;
            let message =
                format!("partition {partition} is at {applied}, the read needs {index}: not yet");
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
