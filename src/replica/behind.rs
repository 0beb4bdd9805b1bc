//! Followers that are behind what memory keeps: they are served from the log, or by a snapshot.

use raft::SnapshotStatus;
use ringbolt_engine::entry::LogId;

use super::store::OldRead;
use super::{Replica, from_payload};

impl Replica {
    /// A message to `peer` could not be sent.
    pub fn unreachable(&mut self, peer: u64) {
        self.flush_batch();
        self.raft.report_unreachable(peer);
    }

    /// A snapshot for `peer` has arrived there, or has not.
    pub fn snapshot_sent(&mut self, peer: u64, arrived: bool) {
        self.flush_batch();
        let status = if arrived {
            SnapshotStatus::Finish
        } else {
            SnapshotStatus::Failure
        };
        self.raft.report_snapshot(peer, status);
    }

    /// What is to be read from the log for followers that are far behind. Each is answered by
    /// [`Replica::old_read`] or [`Replica::log_begins`].
    pub fn take_old_reads(&mut self) -> Vec<OldRead> {
        self.raft.store().take_wanted()
    }

    /// Entries of the log that were asked for, the first of them at least.
    pub fn old_read(&mut self, read: OldRead, entries: Vec<(LogId, Vec<u8>)>) {
        if read.replica != self.id() {
            return;
        }
        self.flush_batch();
        self.raft.mut_store().was_read(read.after);
        let partition = self.partition;
        let entries = entries
            .into_iter()
            .map(|(id, payload)| from_payload(partition, id, payload));
        self.raft.mut_store().set_old(entries.collect());
        self.raft.on_entries_fetched(read.context);
        self.raft.mut_store().set_old(Vec::new());
    }

    /// The log has nothing before `first`, or cannot be read there: who needs it gets a snapshot.
    pub fn log_begins(&mut self, read: OldRead, first: u64) {
        if read.replica != self.id() {
            return;
        }
        self.flush_batch();
        self.raft.mut_store().was_read(read.after);
        self.raft.mut_store().log_begins(first.max(read.after + 2));
        self.raft.on_entries_fetched(read.context);
    }
}
