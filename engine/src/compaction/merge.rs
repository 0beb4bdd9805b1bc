//! The loop that flushes and compactions share: sorted cells in, those worth keeping out.

use std::rc::Rc;

use crate::entry::PartitionId;
use crate::env::Env;
use crate::error::{EngineError, Result};
use crate::planted::{self, Bug};
use crate::range_deletes::RangeDeletes;
use crate::row::partition_of;
use crate::tree::partitions::Positions;
use crate::tree::source::Merge;
use crate::tree::{Inner, Tables};

use super::output::Output;
use super::retain::{Retain, Rules};

/// Cells between two chances for others to run.
const CELLS_PER_CHECK: u32 = 16;

/// What there is to know about the rows that pass, found out as they come.
pub(crate) struct Rows<E: Env> {
    inner: Rc<Inner<E>>,
    range_deletes: Rc<RangeDeletes>,
    /// The partitions' times when the work began.
    applied: Positions,
    /// What lies below the output; `None` if the output is in level 0.
    below: Option<Below<E>>,
    partition: Option<PartitionId>,
    views: Vec<u64>,
    time_ms: u64,
    is_bottom: bool,
}

/// The levels below the output, each with how far the rows have come in it.
struct Below<E: Env> {
    version: Rc<Tables<E>>,
    level: usize,
    at: Vec<usize>,
}

impl<E: Env> Below<E> {
    /// Whether none of them has anything at a row key. Row keys only rise.
    fn is_empty_at(&mut self, row_key: &[u8]) -> bool {
        let levels = self.version.levels.iter().skip(self.level);
        for (run, at) in levels.zip(&mut self.at) {
            while let Some(table) = run.tables.get(*at) {
                if !table.record.ends_before(row_key) {
                    if table.record.smallest.as_slice() <= row_key {
                        return false;
                    }
                    break;
                }
                *at += 1;
            }
        }
        true
    }
}

impl<E: Env> Rows<E> {
    /// For output into level 0: older data may always lie below.
    pub(crate) fn for_flush(inner: &Rc<Inner<E>>, range_deletes: Rc<RangeDeletes>) -> Self {
        Self {
            applied: inner.applied.borrow().clone(),
            inner: Rc::clone(inner),
            range_deletes,
            below: None,
            partition: None,
            views: Vec::new(),
            time_ms: 0,
            is_bottom: false,
        }
    }

    /// For output into a deeper level of a version.
    pub(crate) fn for_level(
        inner: &Rc<Inner<E>>,
        range_deletes: Rc<RangeDeletes>,
        version: &Rc<Tables<E>>,
        level: usize,
    ) -> Self {
        Self {
            below: Some(Below {
                version: Rc::clone(version),
                level,
                at: vec![0; version.levels.len().saturating_sub(level)],
            }),
            ..Self::for_flush(inner, range_deletes)
        }
    }

    fn begin(&mut self, row_key: &[u8]) {
        let partition = partition_of(row_key);
        if self.partition != partition || partition.is_none() {
            self.partition = partition;
            let partition = partition.unwrap_or_default();
            self.views = self.inner.snapshots.views(partition);
            self.time_ms = self.applied.get(partition).map_or(0, |a| a.time_ms);
        }
        if let Some(below) = &mut self.below {
            self.is_bottom = below.is_empty_at(row_key) || planted::is(Bug::TombstoneLost);
        }
    }

    fn rules(&self) -> Rules<'_, RangeDeletes> {
        Rules {
            views: &self.views,
            range_deletes: &self.range_deletes,
            time_ms: self.time_ms,
            is_bottom: self.is_bottom,
        }
    }
}

enum Step {
    OtherRow,
    WriteFirst,
    Taken,
}

/// Writes what is worth keeping of the merged cells.
///
/// # Errors
/// `Closed` if the tree is closed meanwhile, and whatever reading and writing answer.
pub(crate) async fn merge_into<E: Env>(
    inner: &Rc<Inner<E>>,
    mut merge: Merge<E>,
    output: &mut Output<E>,
    mut rows: Rows<E>,
) -> Result<()> {
    let mut retain = Retain::default();
    let mut checks = 0;
    merge.seek(&[]).await?;
    loop {
        let is_hot = merge.is_hot();
        let hot_kept = retain.is_hot;
        let step = merge.with_cell(|row_key, cell| {
            if retain.row_key() != Some(row_key) {
                return Step::OtherRow;
            }
            match retain.offer(&cell, &rows.rules(), is_hot) {
                true => Step::WriteFirst,
                false => Step::Taken,
            }
        });
        match step {
            Some(Step::Taken) => merge.step().await?,
            Some(Step::WriteFirst) => {
                if let Some((row_key, cell)) = retain.take(&rows.rules(), false) {
                    output.add(row_key, cell, hot_kept).await?;
                }
            }
            Some(Step::OtherRow) | None => {
                if retain.row_key().is_some()
                    && let Some((row_key, cell)) = retain.take(&rows.rules(), true)
                {
                    output.add(row_key, cell, hot_kept).await?;
                }
                retain.end();
                if step.is_none() {
                    return Ok(());
                }
                merge.with_cell(|row_key, _| {
                    rows.begin(row_key);
                    retain.begin(row_key);
                });
            }
        }
        checks += 1;
        if checks >= CELLS_PER_CHECK {
            checks = 0;
            inner.env.yield_if_needed().await;
            if inner.is_ending() {
                return Err(EngineError::Closed);
            }
        }
    }
}
