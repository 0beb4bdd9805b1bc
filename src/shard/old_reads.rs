//! Entries that followers missed and memory has forgotten, read from the log again.
//!
//! A leader's replica asks for them ([`Replica::take_old_reads`](crate::replica::Replica)), a task
//! reads them, and the replica goes on where it waited. A few reads at a time, and each of one
//! message's size: the log's own writes go before. What the log has recycled is answered as such, and
//! the follower gets a snapshot.

use std::collections::VecDeque;
use std::rc::Rc;

use ringbolt_engine::entry::PartitionId;
use ringbolt_engine::env::{Env, TaskClass};
use ringbolt_engine::log::ReadError;

use super::Inner;
use super::counters::add;
use crate::replica::{MESSAGE_BYTES_MAX, OldRead};

/// Reads of one core at a time.
const READS_MAX: usize = 2;

/// The reads of one core.
#[derive(Default)]
pub(super) struct OldReads {
    running: usize,
    /// At most a few for each partition: a replica asks for no more before they are done.
    waiting: VecDeque<(PartitionId, OldRead)>,
}

impl<E: Env> Inner<E> {
    /// Begins what a replica asks for, now or when others are done.
    pub(super) fn read_old_entries(self: &Rc<Self>, partition: PartitionId) {
        let wanted = self.with_replica(partition, |replica| replica.take_old_reads());
        let wanted = wanted.unwrap_or_default();
        if wanted.is_empty() {
            return;
        }
        let waiting = wanted.into_iter().map(|read| (partition, read));
        self.old_reads.borrow_mut().waiting.extend(waiting);
        self.next_old_read();
    }

    fn next_old_read(self: &Rc<Self>) {
        loop {
            let next = {
                let mut reads = self.old_reads.borrow_mut();
                if reads.running >= READS_MAX {
                    return;
                }
                let Some(next) = reads.waiting.pop_front() else {
                    return;
                };
                reads.running += 1;
                next
            };
            let (partition, read) = next;
            let this = Rc::clone(self);
            self.env.spawn(TaskClass::Background, async move {
                this.old_read(partition, read).await;
                this.old_reads.borrow_mut().running -= 1;
                this.next_old_read();
            });
        }
    }

    async fn old_read(self: &Rc<Self>, partition: PartitionId, read: OldRead) {
        let log = self.engine.log();
        let bytes_max = MESSAGE_BYTES_MAX as usize;
        let found = log.read(partition, read.after, read.upto, bytes_max).await;
        let begins = match found {
            Ok(entries) if !entries.is_empty() => {
                add(&self.counters.old_entries_total, entries.len() as u64);
                let entries = entries.into_iter().map(|e| (e.id, e.payload)).collect();
                self.with_replica(partition, |replica| replica.old_read(read, entries));
                return self.to_drive(partition);
            }
            Ok(_) => read.upto + 1,
            Err(ReadError::Gone { first }) => first,
            Err(ReadError::Engine(error)) => {
                tracing::warn!(
                    core = self.config.core,
                    partition,
                    "entries for a follower cannot be read from the log, it gets a snapshot: {error}"
                );
                read.upto + 1
            }
        };
        self.with_replica(partition, |replica| replica.log_begins(read, begins));
        self.to_drive(partition);
    }
}
