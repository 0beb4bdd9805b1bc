//! What a core's replicas want logged, on its way to the disk.
//!
//! Entries of all partitions go into the same group of the log; the work they belong to waits in one
//! queue, in log order, until that group is durable. Then the replica is told, its followers' answers
//! go out, and what became committed by it is applied.
//!
//! A log that is full takes the rest of a replica's work later, in order; meanwhile a leader refuses
//! writes, a follower takes no entries, and the replica does nothing more, but that what it has stored is
//! applied once it is committed: that may be what the log waits for. If it waits for what is not
//! committed, that is carried forward ([`Inner::carry_forward`]).

use std::rc::Rc;

use raft::eraftpb::Entry;
use ringbolt_engine::entry::{LogId, PartitionId};
use ringbolt_engine::env::Env;
use ringbolt_engine::log::{AppendError, Carried, HardState, RecordRef, decode_payload_trusted};

use super::Inner;
use super::counters::add;
use crate::planted::{self, Bug};
use crate::replica::{Outgoing, Replica, Vote};

/// Work that waits until the log has made it durable.
pub(super) struct Awaiting {
    /// The group it is in.
    group: u64,
    partition: PartitionId,
    number: u64,
    messages: Vec<Outgoing>,
    committed: Vec<Entry>,
}

/// Work that the log had no room for.
pub(super) struct Unlogged {
    pub(super) partition: PartitionId,
    pub(super) number: u64,
    pub(super) vote: Option<Vote>,
    pub(super) append: Option<std::ops::RangeInclusive<u64>>,
    pub(super) membership: Option<Vec<u8>>,
    pub(super) messages: Vec<Outgoing>,
    /// To be applied once the membership is durable: the entry that changed it, and what follows.
    pub(super) committed: Vec<Entry>,
}

impl<E: Env> Inner<E> {
    /// Whether a replica's work waits for room in the log.
    pub(super) fn is_blocked(&self, partition: PartitionId) -> bool {
        let unlogged = self.unlogged.borrow();
        !unlogged.is_empty() && unlogged.iter().any(|work| work.partition == partition)
    }

    /// Logs a replica's work, behind what it has that could not be logged yet.
    pub(super) fn log_in_order(self: &Rc<Self>, work: Unlogged) {
        let rest = match self.is_blocked(work.partition) {
            true => Some(work),
            false => self.log_work(work),
        };
        self.unlogged.borrow_mut().extend(rest);
    }

    /// Logs a replica's work as far as the log has room; gives back the rest.
    pub(super) fn log_work(self: &Rc<Self>, mut work: Unlogged) -> Option<Unlogged> {
        let partition = work.partition;
        let mut last: Option<RecordRef> = None;
        let mut replicas = self.replicas.borrow_mut();
        let replica = replicas.get_mut(usize::from(partition))?.as_mut()?;
        if let Some(vote) = work.vote.filter(|_| !planted::is(Bug::VoteNotLogged)) {
            let hard = HardState {
                replica_id: replica.id(),
                term: vote.term,
                vote: vote.vote,
                commit: vote.commit,
            };
            match self.engine.append_hard_state(partition, hard) {
                Ok(record) => last = Some(record),
                Err(error) => return self.not_logged(error, work),
            }
            work.vote = None;
        }
        if let Some(membership) = &work.membership {
            match self.engine.log().append_membership(partition, membership) {
                Ok(record) => last = Some(record),
                Err(error) => return self.not_logged(error, work),
            }
            work.membership = None;
        }
        if let Some(append) = work.append.take() {
            for index in append.clone() {
                let Some((id, payload)) = replica.entry(index) else {
                    continue;
                };
                let time_ms = time_of(partition, id, &payload);
                match self.engine.append_payload(partition, id, time_ms, &payload) {
                    Ok(record) => last = Some(record),
                    Err(error) => {
                        work.append = Some(index..=*append.end());
                        drop(replicas);
                        self.note_logged(partition, last);
                        return self.not_logged(error, work);
                    }
                }
            }
        }
        drop(replicas);
        self.note_logged(partition, last);
        if work.number != 0 || !work.committed.is_empty() {
            self.await_durable(work);
        }
        None
    }

    fn not_logged(&self, error: AppendError, work: Unlogged) -> Option<Unlogged> {
        match error {
            AppendError::Full | AppendError::NoSpace => Some(work),
            // The log has stopped, or is not what the replica takes it for: nothing more counts.
            AppendError::TooLarge | AppendError::Gap | AppendError::Failed => {
                self.stop(&format!("partition {}: {error}", work.partition));
                None
            }
        }
    }

    /// Stops the shard: its process must end. No work is taken from here on: what comes after
    /// something that was not logged must never count as durable.
    pub(super) fn stop(&self, why: &str) {
        self.halted.set(true);
        tracing::error!(core = self.config.core, "{why}");
        self.engine
            .log()
            .fail(ringbolt_engine::error::EngineError::Closed);
    }

    fn note_logged(&self, partition: PartitionId, last: Option<RecordRef>) {
        if let Some(record) = last {
            self.logged.borrow_mut()[usize::from(partition)] = record.group;
        }
    }

    /// Queues work until the partition's newest record is durable.
    fn await_durable(self: &Rc<Self>, work: Unlogged) {
        let group = self.logged.borrow()[usize::from(work.partition)];
        let work = Awaiting {
            group,
            partition: work.partition,
            number: work.number,
            messages: work.messages,
            committed: work.committed,
        };
        if group <= self.durable.get() || planted::is(Bug::DurableTooEarly) {
            return self.became_durable(work);
        }
        self.awaiting.borrow_mut().push(work);
    }

    /// Tries again what the log had no room for.
    pub(super) fn log_the_rest(self: &Rc<Self>) {
        let waiting = self.unlogged.take();
        for work in waiting {
            let partition = work.partition;
            self.log_in_order(work);
            match self.is_blocked(partition) {
                // It may be what frees the log.
                true => self.engine.log().open_reserve(),
                false => self.to_drive(partition),
            }
        }
    }

    /// Takes in what became durable, and carries out what follows from it.
    pub(super) fn take_durable(self: &Rc<Self>) {
        let mut progress = false;
        while let Some(group) = self.engine.take_durable() {
            self.durable.set(group.sequence());
            progress = true;
        }
        if progress {
            let durable = self.durable.get();
            // In log order, but for a replica's empty work behind an older group of its own.
            let done: Vec<Awaiting> = self
                .awaiting
                .borrow_mut()
                .extract_if(.., |waiting| waiting.group <= durable)
                .collect();
            for work in done {
                self.became_durable(work);
            }
        }
        self.drive_replicas();
        self.wake_deferred();
    }

    fn became_durable(self: &Rc<Self>, work: Awaiting) {
        let Awaiting {
            partition,
            number,
            messages,
            committed,
            ..
        } = work;
        if !committed.is_empty() {
            self.with_replica(partition, Replica::change_saved);
            self.apply_committed(partition, committed);
        }
        if number == 0 {
            return self.to_drive(partition);
        }
        let stored = self.with_replica(partition, |replica| {
            replica.persisted(number);
            (replica.stored_index(), replica.is_alone())
        });
        if let Some((stored, false)) = stored {
            let now_us = self.clock.get().us;
            self.acks.borrow_mut().own_stored(partition, stored, now_us);
        }
        for outgoing in messages {
            self.send_raft(partition, outgoing);
        }
        if let Some((stored, _)) = stored
            && self.leader_acks.get() > 0
        {
            self.acknowledge_durable(partition, stored);
        }
        self.to_drive(partition);
    }

    /// Has entries appended again that stay uncommitted while the log cannot go on without them.
    pub(super) fn carry_forward(&self) {
        for (partition, last) in self.engine.relieve_log() {
            if self.is_blocked(partition) || self.halted.get() {
                continue;
            }
            let carried = self.with_replica(partition, |replica| {
                // What is applied is on its way to the tables.
                let waits = !replica.is_installing() && replica.applied_id().index < last;
                waits.then(|| self.append_again(partition, replica))
            });
            match carried.flatten() {
                Some(Ok(record)) => {
                    self.note_logged(partition, Some(record));
                    add(&self.counters.carried_forward_total, 1);
                }
                Some(Err(AppendError::Full)) => self.engine.log().open_reserve(),
                // It is tried again at the next tick, and more is not lost than room.
                Some(Err(AppendError::NoSpace | AppendError::TooLarge)) | None => {}
                Some(Err(error @ (AppendError::Gap | AppendError::Failed))) => {
                    self.stop(&format!("partition {partition}: carried forward: {error}"));
                }
            }
        }
    }

    fn append_again(
        &self,
        partition: PartitionId,
        replica: &Replica,
    ) -> Result<RecordRef, AppendError> {
        let entries: Vec<_> = replica
            .waiting()
            .filter_map(|index| replica.entry(index))
            .map(|(id, payload)| Carried {
                id,
                time_ms: time_of(partition, id, &payload),
                payload,
            })
            .collect();
        self.engine.log().append_again(partition, &entries)
    }
}

/// The partition's time at an entry.
fn time_of(partition: PartitionId, id: LogId, payload: &[u8]) -> u64 {
    decode_payload_trusted(partition, id, payload).map_or(0, |(head, _)| head.time_ms)
}
