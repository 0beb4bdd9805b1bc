//! The sender's side: one partition's rows at one entry, chunk by chunk.
//!
//! An [`Export`] reads at the version that was applied when it was made. Compaction keeps what that
//! version shows ([`crate::tree::Snapshot`]); nothing else is held from chunk to chunk for long. The
//! rows come from a merge of memtables and tables as in a compaction, past the block cache and paid
//! for at the token bucket. That merge holds memory and files, so it is let go a second after it was
//! begun, whether or not somebody asks for more, and begun again behind the last row.
//!
//! A row goes out as its newest version at the view, with its creation settled from the older ones.
//! Rows that are deleted or expired there do not go out at all, and so the receiver needs neither
//! tombstones nor range deletes.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::SnapshotId;
use super::chunk::Writer;
use crate::compaction::retain::{Retain, Rules};
use crate::entry::PartitionId;
use crate::env::{Env, TaskClass};
use crate::error::{EngineError, Result};
use crate::row::{Cell, partition_range};
use crate::table::ReadMode;
use crate::tree::source::Merge;
use crate::tree::view::{Deletes, View};
use crate::tree::{Inner, Snapshot, Tree};

/// How long a merge is held.
const HOLD: Duration = Duration::from_secs(1);
/// Cells between two looks at the clock.
const CELLS_PER_CHECK: u32 = 16;

/// A view of one partition, to be sent in chunks. While it lives, compaction keeps what it shows.
pub struct Export<E: Env> {
    inner: Rc<Inner<E>>,
    snapshot: Snapshot,
    of: SnapshotId,
    deadline: Duration,
    /// How often the partition had been exchanged.
    exchanges: u64,
    walk: Rc<RefCell<Option<Walk<E>>>>,
}

/// One piece of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// What [`super::Stage::accept`] takes: at most [`super::CHUNK_BYTES_MAX`] bytes.
    pub bytes: Vec<u8>,
    /// The last row key in it: the next chunk comes after it.
    pub last_key: Vec<u8>,
    /// Nothing comes after it.
    pub is_last: bool,
}

/// A merge under way.
struct Walk<E: Env> {
    merge: Merge<E>,
    deletes: Deletes<E>,
    retain: Retain,
    begun: Duration,
    /// The last row key that was read.
    at: Vec<u8>,
}

enum Step {
    End,
    OtherRow,
    Taken,
}

impl<E: Env> Tree<E> {
    /// A view of a partition as it is now, to be sent to another shard. Reads nothing yet. Past
    /// `deadline` (of [`Env::now`]) it answers no more; drop it early, because what was overwritten
    /// since cannot be compacted away while it lives.
    #[must_use]
    pub fn export(&self, partition: PartitionId, deadline: Duration) -> Export<E> {
        let memtables = self.inner.memtables.borrow();
        self.inner.put_down(&memtables, partition);
        drop(memtables);
        self.close_full();
        let applied = self.applied(partition);
        Export {
            inner: Rc::clone(&self.inner),
            snapshot: self.snapshot(partition),
            of: SnapshotId {
                partition,
                id: applied.id,
                time_ms: applied.time_ms,
            },
            deadline,
            exchanges: self.inner.exchanges_of(partition),
            walk: Rc::default(),
        }
    }
}

impl<E: Env> Export<E> {
    /// What it is a view of.
    #[must_use]
    pub fn of(&self) -> SnapshotId {
        self.of
    }

    /// The rows behind `after`, a row key of the partition; empty for the first. A chunk ends with
    /// the row that takes it to [`crate::tree::TreeOptions::chunk_bytes`]. To go on where the last
    /// chunk ended costs least, but any place will do, any number of times.
    ///
    /// # Errors
    /// `Deadline` past the deadline; `Gone` once the partition was exchanged or dropped; `Invalid` for an `after` outside the partition; `Closed` once
    /// the tree is closed; `Corrupt` names the damaged table; the disk's error.
    pub async fn chunk(&mut self, after: &[u8]) -> Result<Chunk> {
        let held = self.walk.take();
        let mut walk = match held.filter(|walk| walk.at == after && self.is_fresh(walk)) {
            Some(walk) => walk,
            None => self.begin(after).await?,
        };
        let mut writer = Writer::new(&self.of, after);
        let is_last = self.fill(&mut walk, &mut writer).await?;
        let (bytes, last_key) = writer.finish(is_last);
        if !is_last && self.is_fresh(&walk) {
            walk.at.clone_from(&last_key);
            self.walk.replace(Some(walk));
        }
        Ok(Chunk {
            bytes,
            last_key,
            is_last,
        })
    }

    fn is_fresh(&self, walk: &Walk<E>) -> bool {
        self.inner.env.now().saturating_sub(walk.begun) < HOLD
    }

    fn check(&self) -> Result<()> {
        if self.inner.env.now() > self.deadline {
            return Err(EngineError::Deadline);
        }
        if self.inner.exchanges_of(self.of.partition) != self.exchanges {
            return Err(EngineError::Gone("the partition has other content now"));
        }
        match self.inner.closing.get() {
            true => Err(EngineError::Closed),
            false => Ok(()),
        }
    }

    async fn begin(&self, after: &[u8]) -> Result<Walk<E>> {
        self.check()?;
        let (mut from, to) = partition_range(self.of.partition);
        if !after.is_empty() {
            if after < from.as_slice() || after >= to.as_slice() {
                let what = "an export's position outside its partition";
                return Err(EngineError::Invalid(what.into()));
            }
            from = after.to_vec();
            from.push(0);
        }
        let mode = ReadMode::Sequential(Rc::new(self.inner.bucket.clone()));
        let View { sources, deletes } = self.inner.view(&from, &to, &mode);
        let mut walk = Walk {
            merge: Merge::new(sources, false),
            deletes,
            retain: Retain::default(),
            begun: self.inner.env.now(),
            at: after.to_vec(),
        };
        walk.merge.seek(&from).await?;
        self.let_go_later(walk.begun);
        Ok(walk)
    }

    /// Has a merge let go in time if nobody asks for more.
    fn let_go_later(&self, begun: Duration) {
        let (env, walk) = (self.inner.env.clone(), Rc::downgrade(&self.walk));
        let timer = async move {
            env.sleep(HOLD).await;
            if let Some(walk) = walk.upgrade() {
                let is_it = walk.borrow().as_ref().is_some_and(|w| w.begun == begun);
                if is_it {
                    walk.take();
                }
            }
        };
        self.inner.env.spawn(TaskClass::Background, timer);
    }

    /// Fills a chunk; whether nothing comes after it.
    async fn fill(&self, walk: &mut Walk<E>, writer: &mut Writer) -> Result<bool> {
        let (_, to) = partition_range(self.of.partition);
        let views = [self.snapshot.at().version];
        let retain = &mut walk.retain;
        let rules = Rules {
            views: &views,
            range_deletes: &walk.deletes,
            time_ms: self.of.time_ms,
            // Nothing older is left behind: what it says of the creation is all there is.
            is_bottom: true,
        };
        let mut checks = 0;
        loop {
            let step = walk.merge.with_cell(|row_key, cell| {
                if row_key >= to.as_slice() {
                    return Step::End;
                }
                if retain.row_key() != Some(row_key) {
                    return Step::OtherRow;
                }
                let kept_before = retain.offer(&cell, &rules, false);
                debug_assert!(!kept_before, "one view sees one cell of a row");
                Step::Taken
            });
            if let Some(Step::Taken) = step {
                walk.merge.step().await?;
            } else {
                if retain.row_key().is_some() {
                    if let Some((row_key, Cell::Put { meta, value })) = retain.take(&rules, true) {
                        writer.add(row_key, &meta, value);
                    }
                    retain.end();
                }
                if !matches!(step, Some(Step::OtherRow)) {
                    return Ok(true);
                }
                if writer.row_bytes() >= self.inner.options.chunk_bytes() {
                    return Ok(false);
                }
                walk.merge.with_cell(|row_key, _| retain.begin(row_key));
            }
            checks += 1;
            if checks >= CELLS_PER_CHECK {
                checks = 0;
                self.inner.env.yield_if_needed().await;
                self.check()?;
            }
        }
    }
}
