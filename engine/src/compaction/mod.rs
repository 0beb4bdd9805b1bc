//! Compaction: keeping the levels in shape while clients go on.
//!
//! Two tasks, of different shares of the core: one for level 0, which must never wait for the other,
//! and one for everything deeper. Each takes what [`picker`] says is due, merges it in slices short
//! enough that a client does not notice ([`merge`]), keeps what somebody can still see ([`retain`]),
//! writes tables ([`output`]), and commits one manifest edit. The inputs are marked busy meanwhile,
//! so that the two never take the same table.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::select;

use crate::env::{Env, TaskClass};
use crate::error::{EngineError, Result};
use crate::manifest::{Edit, MoveRecord, TableRecord};
use crate::range_deletes::RangeDeletes;
use crate::row::{RangeDelete, partition_of};
use crate::table::ReadMode;
use crate::tree::source::{Merge, Source};
use crate::tree::version::Change;
use crate::tree::{Inner, Reader, TableRef, Tables, space};

pub(crate) mod bucket;
pub(crate) mod merge;
pub(crate) mod output;
pub(crate) mod picker;
pub(crate) mod retain;
#[cfg(test)]
mod tests;

use merge::{Rows, merge_into};
use output::{Cuts, Output, Place, is_last_level};
use picker::Reason;

type Job<E> = picker::Job<Reader<E>>;

/// How often it is looked for tables whose records have all expired.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(5);

/// Starts the two tasks.
pub(crate) fn start<E: Env>(inner: &Rc<Inner<E>>) {
    space::spawn(inner, TaskClass::CompactL0, |inner| async move {
        work(&inner, |inner| {
            picker::pick_l0(&inner.version(), &inner.shape())
        })
        .await;
    });
    space::spawn(inner, TaskClass::Background, |inner| async move {
        work(&inner, |inner| {
            picker::pick_deep(&inner.version(), &inner.shape())
        })
        .await;
    });
    space::spawn(inner, TaskClass::Background, |inner| async move {
        drop_whole_tables(&inner).await;
    });
}

async fn work<E: Env>(inner: &Rc<Inner<E>>, pick: impl Fn(&Inner<E>) -> Option<Job<E>>) {
    loop {
        if inner.is_ending() {
            return;
        }
        let seen = inner.changed.generation();
        let Some(job) = pick(inner) else {
            let changed = || inner.changed.generation() != seen || inner.is_ending();
            inner.changed.wait_until(changed).await;
            continue;
        };
        let done = run(inner, &job).await;
        drop(job);
        match done {
            Ok(()) => {
                inner.space.set_written();
                // The inputs are free again: the other task may have waited for one.
                inner.changed.notify();
            }
            Err(e) => {
                if !inner.after_failure(e).await {
                    return;
                }
            }
        }
    }
}

async fn run<E: Env>(inner: &Rc<Inner<E>>, job: &Job<E>) -> Result<()> {
    inner.stats.borrow_mut().compactions_running += 1;
    let done = match job.is_move {
        true => move_tables(inner, job).await,
        false => rewrite(inner, job).await,
    };
    inner.stats.borrow_mut().compactions_running -= 1;
    done
}

async fn rewrite<E: Env>(inner: &Rc<Inner<E>>, job: &Job<E>) -> Result<()> {
    let version = inner.version();
    let level = usize::from(job.output_level);
    let mut all = RangeDeletes::new();
    let mut kept = RangeDeletes::new();
    for delete in job.tables().flat_map(|t| shown_deletes(t)) {
        inner.env.yield_if_needed().await;
        all.insert(delete.from, delete.to, delete.version);
        let partition = partition_of(delete.from).unwrap_or_default();
        let is_needed = level == 0
            || version.overlaps_below(level, delete.from, delete.to)
            || inner.snapshots.any_in(partition, partition);
        if is_needed {
            kept.insert(delete.from, delete.to, delete.version);
        }
    }
    let all = Rc::new(all);
    let below = version.levels.get(level).filter(|_| level > 0);
    let below = below.into_iter().flat_map(|next| &next.tables);
    let below = below.map(|t| t.record.smallest.clone()).collect();
    let shape = inner.shape();
    let targets = picker::targets(&version, &shape);
    let columns = match level == 0 || level == targets.base {
        true => inner.columns(),
        false => Vec::new(),
    };
    let cuts = Cuts::new(columns, below);
    let place = Place {
        level: job.output_level,
        run: job.output_run,
        is_deepest: is_last_level(job.output_level),
        table_bytes: match level {
            0 => inner.l0_table_bytes(),
            level => picker::level_table_bytes(&targets, &shape, level),
        },
        waits: true,
        warms: true,
    };
    let mut output = Output::new(inner, place, cuts, Rc::new(kept));
    let mode = ReadMode::Sequential(Rc::new(inner.bucket.clone()));
    let sources = job
        .inputs
        .iter()
        .map(|(_, tables)| Source::run(tables.clone(), mode.clone()))
        .collect();
    let rows = match level {
        0 => Rows::for_flush(inner, all),
        level => Rows::for_level(inner, all, &version, level),
    };
    let merged = merge_into(inner, Merge::new(sources, false), &mut output, rows).await;
    let added = match merged {
        Ok(()) => output.finish().await,
        Err(e) => Err(e),
    };
    let added = match added {
        Ok(added) => added,
        Err(e) => {
            output.undo().await?;
            return Err(e);
        }
    };
    let written: u64 = added.iter().map(|t| t.record.bytes).sum();
    let removed: Vec<_> = job.tables().map(|t| t.record.id).collect();
    let plan = |version: &Tables<E>| {
        if !job.tables().all(|table| version.has(table)) {
            // A partition was exchanged: an input is gone, or hides what was read of it.
            return None;
        }
        let edit = Edit {
            added: added.iter().map(|t| t.record.clone()).collect(),
            removed: removed.clone(),
            ..Edit::default()
        };
        let change = Change {
            added,
            removed,
            ..Change::default()
        };
        Some((edit, change))
    };
    match inner.commit(plan, || {}).await {
        Ok(true) => {}
        Ok(false) => {
            inner.stats.borrow_mut().jobs_void += 1;
            return output.undo().await;
        }
        Err(e @ EngineError::NoSpace(_)) => {
            output.undo().await?;
            return Err(e);
        }
        // The edit may be durable all the same: its tables must stay.
        Err(e) => return Err(e),
    }
    let mut stats = inner.stats.borrow_mut();
    stats.compactions += 1;
    stats.compaction_bytes_read += job.bytes();
    stats.compaction_bytes_written += written;
    match job.reason {
        Reason::IntraL0 => stats.intra_l0_bytes_written += written,
        Reason::L0 => stats.l0_bytes_written += written,
        Reason::Tombstones => stats.tombstone_compactions += 1,
        Reason::Expired => stats.expiry_compactions += 1,
        Reason::Size => {}
    }
    Ok(())
}

async fn move_tables<E: Env>(inner: &Rc<Inner<E>>, job: &Job<E>) -> Result<()> {
    let moved: Vec<_> = job
        .tables()
        .map(|t| (t.record.id, job.output_level))
        .collect();
    let count = moved.len() as u64;
    let plan = |version: &Tables<E>| {
        if !job.tables().all(|table| version.has(table)) {
            return None;
        }
        let records = moved.iter().map(|(id, level)| MoveRecord {
            id: *id,
            level: *level,
        });
        let edit = Edit {
            moved: records.collect(),
            ..Edit::default()
        };
        let change = Change {
            moved,
            ..Change::default()
        };
        Some((edit, change))
    };
    if inner.commit(plan, || {}).await? {
        inner.stats.borrow_mut().tables_moved += count;
    }
    Ok(())
}

/// Drops tables that nobody can see anything of, without reading them, and rewrites those of which
/// half has expired.
async fn drop_whole_tables<E: Env>(inner: &Rc<Inner<E>>) {
    loop {
        if inner.is_ending() {
            return;
        }
        let seen = inner.changed.generation();
        let version = inner.version();
        let deletes = range_deletes_of(inner, &version).await;
        if !Rc::ptr_eq(&version, &inner.version()) {
            // Collecting took its time, and the tables are others now.
            continue;
        }
        let tables = droppable(inner, &version, &deletes);
        if tables.is_empty()
            && let Some(job) = picker::pick_expired(&version, |r| partitions_time(inner, r))
        {
            drop(version);
            let done = run(inner, &job).await;
            drop(job);
            inner.changed.notify();
            if let Err(e) = done
                && !inner.after_failure(e).await
            {
                return;
            }
            continue;
        }
        drop(version);
        if tables.is_empty() {
            let changed = || inner.changed.generation() != seen || inner.is_ending();
            let changed = pin!(inner.changed.wait_until(changed));
            select(pin!(inner.env.sleep(EXPIRY_INTERVAL)), changed).await;
            continue;
        }
        tables.iter().for_each(|table| table.busy.set(true));
        let plan = |version: &Tables<E>| {
            if !tables.iter().all(|table| version.has(table)) {
                return None;
            }
            let removed: Vec<_> = tables.iter().map(|t| t.record.id).collect();
            let edit = Edit {
                removed: removed.clone(),
                ..Edit::default()
            };
            let change = Change {
                removed,
                ..Change::default()
            };
            Some((edit, change))
        };
        let done = inner.commit(plan, || {}).await;
        tables.iter().for_each(|table| table.busy.set(false));
        inner.changed.notify();
        match done {
            Ok(true) => inner.stats.borrow_mut().tables_dropped += tables.len() as u64,
            Ok(false) => {}
            Err(e) => {
                if !inner.after_failure(e).await {
                    return;
                }
            }
        }
    }
}

/// Tables all of whose records have expired, with nothing older below; and those that a newer range
/// delete covers wholly. Not where a snapshot might look.
fn droppable<E: Env>(
    inner: &Inner<E>,
    version: &Tables<E>,
    deletes: &RangeDeletes,
) -> Vec<TableRef<E>> {
    let applied = inner.applied.borrow();
    let is_droppable = |level: u8, table: &TableRef<E>| {
        let r = &table.record;
        let first = partition_of(&r.smallest).unwrap_or_default();
        let last = partition_of(&r.largest).unwrap_or(u16::MAX);
        if table.busy.get() || inner.snapshots.any_in(first, last) {
            return false;
        }
        let end = match r.largest_excluded {
            true => r.largest.clone(),
            false => successor_key(&r.largest),
        };
        if deletes.covering_all(&r.smallest, &end, u64::MAX) > r.version_max {
            return true;
        }
        let expired = r.expiry_max_ms != 0
            && applied
                .time_min(first, last)
                .is_some_and(|time_ms| r.expiry_max_ms <= time_ms);
        expired && level > 0 && !version.overlaps_below(usize::from(level), &r.smallest, &r.largest)
    };
    version
        .tables()
        .filter(|(level, table)| is_droppable(*level, table))
        .map(|(_, table)| Rc::clone(table))
        .collect()
}

/// The least time of the partitions that a table lies in, in milliseconds. `None` where a snapshot
/// might still look at what has expired.
fn partitions_time<E: Env>(inner: &Inner<E>, record: &TableRecord) -> Option<u64> {
    let first = partition_of(&record.smallest).unwrap_or_default();
    let last = partition_of(&record.largest).unwrap_or(u16::MAX);
    match inner.snapshots.any_in(first, last) {
        true => None,
        false => inner.applied.borrow().time_min(first, last),
    }
}

/// All range deletes of a version.
async fn range_deletes_of<E: Env>(inner: &Inner<E>, version: &Tables<E>) -> RangeDeletes {
    let mut deletes = RangeDeletes::new();
    if version.has_range_deletes {
        for (_, table) in version.tables() {
            for delete in shown_deletes(table) {
                inner.env.yield_if_needed().await;
                deletes.insert(delete.from, delete.to, delete.version);
            }
        }
    }
    deletes
}

/// The range deletes of a table that count.
fn shown_deletes<E: Env>(table: &TableRef<E>) -> impl Iterator<Item = RangeDelete<'_>> {
    let all = table.reader.range_deletes().iter();
    all.filter(|delete| !table.hides(delete.from))
}

/// The least row key above `row_key`.
fn successor_key(row_key: &[u8]) -> Vec<u8> {
    let mut next = row_key.to_vec();
    next.push(0);
    next
}
