//! Entries that stay uncommitted are carried forward, so that the log can go on without them.
//!
//! What is not committed is not in tables, so the log needs its segment and all after that one: a
//! partition whose group has lost its quorum would sooner or later keep every other partition of the
//! shard from writing. So when the log has become long and its oldest segment waits for such a
//! partition, all of its entries from the first uncommitted one on are appended again. As with every
//! append over old entries, they no longer need their old places once the new ones are durable.
//!
//! The copies go into **one group**, which a crash leaves whole or not at all. With copies in two
//! groups it could leave the first, which supersedes all that followed, and not the second: entries
//! would be gone of which this replica has said that it stores them.

use super::format::record::{self, RECORD_BYTES_MAX};
use super::handle::{Log, RecordRef};
use super::options::AppendError;
use super::state::State;
use crate::entry::{LogId, PartitionId};
use crate::env::Env;

/// Bytes of records that are carried forward at once, at most: a largest record and a little beside.
const CARRIED_BYTES_MAX: usize = RECORD_BYTES_MAX + (512 << 10);
/// Bytes of entries that a partition's leader should let wait for their commit, at most.
const UNCOMMITTED_BYTES_MAX: u64 = 16 << 20;

/// An entry that is in the log already.
#[derive(Debug, Clone)]
pub struct Carried<P> {
    /// Term and index.
    pub id: LogId,
    /// The partition's time at it, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// What it carries, as [`super::encode_payload`] made it.
    pub payload: P,
}

impl<E: Env> Log<E> {
    /// The partitions that the oldest segment waits for, each with the last entry that must be in
    /// tables or superseded; none while the log is short. `flushed` says of each partition what the
    /// last entry in its tables is.
    #[must_use]
    pub fn waits_for(&self, flushed: &dyn Fn(PartitionId) -> LogId) -> Vec<(PartitionId, u64)> {
        if !self.needs_flush() {
            return Vec::new();
        }
        self.inner.state.borrow().waits_for(flushed)
    }

    /// Appends a partition's last entries again. They must be all from the first one on, to the
    /// partition's last in the log.
    ///
    /// # Errors
    ///
    /// [`AppendError::Gap`] if they are not; [`AppendError::TooLarge`] over 24.5 MiB, or if a segment
    /// does not hold them; else as for an append. Nothing was appended.
    pub fn append_again<P: AsRef<[u8]>>(
        &self,
        partition: PartitionId,
        entries: &[Carried<P>],
    ) -> Result<RecordRef, AppendError> {
        let sizes = entries
            .iter()
            .map(|entry| record::payload_record_bytes(entry.payload.as_ref()));
        let bytes: usize = sizes.sum();
        if bytes > CARRIED_BYTES_MAX {
            return Err(AppendError::TooLarge);
        }
        let mut state = self.inner.state.borrow_mut();
        let known = state
            .replicas
            .get(partition)
            .map(|replica| replica.now.last);
        if entries.is_empty() || entries.last().map(|entry| entry.id) != known {
            return Err(AppendError::Gap);
        }
        let room = state.make_room(bytes);
        drop(state);
        room.map_err(|error| self.grow(error))?;
        let mut last = Err(AppendError::Gap);
        for entry in entries {
            let payload = entry.payload.as_ref();
            last = Ok(self.append_payload(partition, entry.id, entry.time_ms, payload)?);
        }
        last
    }

    /// Bytes of entries that a partition's leader should let wait for their commit, at most: as many
    /// can be carried forward. A single entry may have more.
    #[must_use]
    pub fn uncommitted_bytes_max(&self) -> usize {
        let segment = self.inner.state.borrow().options.segment_bytes;
        (segment / 2).min(UNCOMMITTED_BYTES_MAX) as usize
    }
}

impl<F> State<F> {
    fn waits_for(&self, flushed: &dyn Fn(PartitionId) -> LogId) -> Vec<(PartitionId, u64)> {
        let needs = self
            .chain
            .get(self.held + 1)
            .map_or(&[][..], |second| &second.needs);
        let unmet = needs
            .iter()
            .filter(|need| need.index > flushed(need.partition).index);
        unmet.map(|need| (need.partition, need.index)).collect()
    }
}
