//! Reading entries again, for those who missed them.
//!
//! What is in tables stays in the log for a while: until its segment is recycled, which
//! [`super::LogOptions::segments_retained`] puts off. A read walks the groups from the last mark before
//! what is wanted (see `places.rs`): those that are not taken yet from memory, the others from disk,
//! a megabyte at a time. Nothing keeps a segment from being recycled meanwhile: a group that is not
//! there any more is found out by its epoch and number, as at recovery.

use super::chain::Slot;
use super::format::Records;
use super::format::record::{self, Place, RecordView};
use super::handle::{File, Log};
use super::reader::Reader;
use super::recovery::RecoveredEntry;
use super::state::State;
use crate::entry::PartitionId;
use crate::env::{Env, SECTOR};
use crate::error::EngineError;

/// Why entries could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The log has forgotten the first of them. **Send a snapshot.**
    #[error("the log begins with entry {first}")]
    Gone {
        /// The least index that can be read; one more than the last entry if none can.
        first: u64,
    },
    /// The disk failed, or what it holds is damaged.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// What is still wanted.
struct Wanted {
    partition: PartitionId,
    /// The next index.
    next: u64,
    /// The first index that is not wanted from here.
    limit: u64,
    /// Records of this group that stand before this place are not looked at.
    from: (u64, u32),
    bytes_left: usize,
    entries: Vec<RecoveredEntry>,
}

impl Wanted {
    fn new(partition: PartitionId, after: u64, bytes_max: usize) -> Self {
        Self {
            partition,
            next: after + 1,
            limit: after + 1,
            from: (0, 0),
            bytes_left: bytes_max,
            entries: Vec::new(),
        }
    }

    fn is_full(&self) -> bool {
        self.bytes_left == 0 && !self.entries.is_empty()
    }

    fn is_done(&self) -> bool {
        self.next >= self.limit || self.is_full()
    }

    /// Takes what is wanted of a group, whose records were checked.
    fn take(&mut self, sequence: u64, group: &[u8], records_at: usize) {
        for (offset, view) in Records::new(group, records_at) {
            if self.is_done() {
                return;
            }
            let RecordView::Entry { head, .. } = view else {
                continue;
            };
            if (sequence, offset) < self.from {
                continue;
            }
            if (head.partition, head.id.index) != (self.partition, self.next) {
                continue;
            }
            let record = group.get(offset as usize..).and_then(record::first_record);
            let Some(payload) = record.and_then(record::payload_of) else {
                return;
            };
            if payload.len() > self.bytes_left && !self.entries.is_empty() {
                self.bytes_left = 0;
                return;
            }
            self.bytes_left = self.bytes_left.saturating_sub(payload.len());
            self.next += 1;
            self.entries.push(RecoveredEntry {
                id: head.id,
                payload,
            });
        }
    }

    /// What was read before the log turned out to have forgotten the rest.
    fn gone<F>(self, state: &State<F>) -> Result<Vec<RecoveredEntry>, ReadError> {
        if !self.entries.is_empty() {
            return Ok(self.entries);
        }
        let first = state.replicas.get(self.partition).map_or(1, |replica| {
            let known = replica.places.first().unwrap_or(u64::MAX);
            known
                .max(replica.now.truncated.index + 1)
                .min(replica.now.last.index + 1)
        });
        Err(ReadError::Gone { first })
    }
}

/// Where a group is to be had.
enum Source<F> {
    /// It was in memory, and has been looked through.
    Memory {
        bytes: u64,
    },
    Disk {
        slot: Slot<F>,
        epoch: u64,
    },
    /// Nowhere any more.
    Gone,
}

impl<E: Env> Log<E> {
    /// The entries of a partition from behind `after` up to `upto`, as many as there are and fit into
    /// `bytes_max` of payloads, but one at least if there is one. They are as the log has them now,
    /// superseded ones left out; they need be neither in tables nor durable. For a task: it reads
    /// from disk.
    ///
    /// # Errors
    ///
    /// [`ReadError::Gone`] if the first of them is not in the log any more.
    pub async fn read(
        &self,
        partition: PartitionId,
        after: u64,
        upto: u64,
        bytes_max: usize,
    ) -> Result<Vec<RecoveredEntry>, ReadError> {
        let mut wanted = Wanted::new(partition, after, bytes_max);
        let mut cuts = None;
        loop {
            let start = {
                let state = self.inner.state.borrow();
                let Some(replica) = state.replicas.get(partition) else {
                    return Ok(Vec::new());
                };
                let now = Some(replica.places.cuts());
                if std::mem::replace(&mut cuts, now) != now {
                    // What was read so far may be superseded: all of it is to be of one history.
                    wanted = Wanted::new(partition, after, bytes_max);
                }
                let last = replica.now.last.index.min(upto);
                if wanted.next > last || wanted.is_full() {
                    return Ok(wanted.entries);
                }
                let start = replica.places.find(wanted.next);
                let is_gone = wanted.next <= replica.now.truncated.index;
                let Some(start) = start.filter(|_| !is_gone) else {
                    return wanted.gone(&state);
                };
                wanted.limit = start.limit.min(last + 1);
                wanted.from = (start.sequence, start.record);
                start
            };
            let next = wanted.next;
            self.walk(start.sequence, start.offset, &mut wanted).await?;
            let state = self.inner.state.borrow();
            let replica = state.replicas.get(partition);
            let is_as_before = replica.is_some_and(|r| {
                Some(r.places.cuts()) == cuts && r.places.find(next) == Some(start)
            });
            if wanted.next == next && is_as_before {
                let what = "entries that should be there are not";
                let error = EngineError::corrupt(&self.inner.dir, start.offset, what);
                return Err(error.into());
            }
        }
    }

    /// Walks over groups from one on until everything wanted of them is there, or a group is not.
    async fn walk(
        &self,
        mut sequence: u64,
        mut offset: u64,
        wanted: &mut Wanted,
    ) -> Result<(), EngineError> {
        let mut reader: Option<(u64, Reader<File<E>>)> = None;
        while !wanted.is_done() {
            self.inner.env.yield_if_needed().await;
            let source = {
                let state = self.inner.state.borrow();
                if let Some(begin) = state.segment_begun_by(sequence) {
                    // The segment ends here: on to the next one's first group.
                    sequence += 1;
                    offset = begin;
                    continue;
                }
                state.look_for(sequence, wanted)
            };
            let bytes = match source {
                Source::Memory { bytes } => bytes,
                Source::Gone => return Ok(()),
                Source::Disk { slot, epoch } => {
                    let reader = match &mut reader {
                        Some((of, reader)) if *of == epoch => reader,
                        other => &mut other.insert((epoch, Reader::new(&slot))).1,
                    };
                    let place = Place {
                        epoch,
                        offset: offset as u32,
                    };
                    let Some(group) = reader.group(place, sequence).await? else {
                        return Ok(());
                    };
                    wanted.take(sequence, group.bytes, group.header.body_offset());
                    group.header.group_bytes() as u64
                }
            };
            sequence += 1;
            offset += bytes;
        }
        Ok(())
    }
}

impl<F> State<F> {
    /// Where a group is to be had; if that is memory, takes what is wanted of it.
    fn look_for(&self, sequence: u64, wanted: &mut Wanted) -> Source<F> {
        if let Some(group) = self.pending(sequence) {
            let bytes = group.buf.get(..group.end).unwrap_or_default();
            wanted.take(sequence, bytes, group.body);
            return Source::Memory {
                bytes: group.end.next_multiple_of(SECTOR) as u64,
            };
        }
        let mut newest_first = self.chain.iter().rev();
        match newest_first.find(|segment| segment.sequence < sequence) {
            Some(segment) if sequence < self.sequence_after_last() => Source::Disk {
                slot: segment.slot.clone(),
                epoch: segment.epoch,
            },
            _ => Source::Gone,
        }
    }

    /// Where the first group is of the segment whose header has this number, in bytes.
    fn segment_begun_by(&self, sequence: u64) -> Option<u64> {
        let mut newest_first = self.chain.iter().rev();
        let segment = newest_first.find(|segment| segment.sequence <= sequence)?;
        (segment.sequence == sequence).then_some(segment.begin)
    }
}
