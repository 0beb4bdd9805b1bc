//! Flushing memtables into level 0.

use std::cell::RefCell;
use std::rc::Rc;

use crate::compaction::merge::{Rows, merge_into};
use crate::compaction::output::{Cuts, Output, Place};
use crate::compaction::picker;
use crate::env::{Env, TaskClass};
use crate::error::{EngineError, Result};
use crate::manifest::Edit;
use crate::planted::{self, Bug};

use super::columns::COLUMNS;
use super::memtables::Immutable;
use super::source::{Merge, Source};
use super::version::Change;
use super::{Inner, Tables, Tree, space};

impl<E: Env> Tree<E> {
    /// Closes the active memtable and waits until all that had been applied is in tables, durably.
    ///
    /// # Errors
    /// The failure that ended background work, or `Closed`. While the disk is full it waits.
    pub async fn flush(&self) -> Result<()> {
        let inner = &*self.inner;
        inner.rotate();
        let goal = inner.applied.borrow().clone();
        // A partition that was dropped meanwhile is applied to nothing.
        let is_done = || {
            goal.iter().all(|(p, a)| {
                let goal = a.id.index.min(self.applied(p).id.index);
                self.flushed(p).id.index >= goal
            })
        };
        inner
            .changed
            .wait_until(|| is_done() || inner.is_ending())
            .await;
        if is_done() {
            return Ok(());
        }
        Err(self.failure().unwrap_or(EngineError::Closed))
    }
}

/// Starts the task that flushes memtables as they are closed, the oldest first.
pub(super) fn start<E: Env>(inner: &Rc<Inner<E>>) {
    space::spawn(inner, TaskClass::Flush, |inner| async move {
        loop {
            let has_work =
                || inner.flush_wanted.get() || !inner.memtables.borrow().immutable.is_empty();
            inner
                .changed
                .wait_until(|| inner.is_ending() || has_work())
                .await;
            if inner.is_ending() {
                return;
            }
            if inner.flush_wanted.replace(false) {
                inner.rotate();
            }
            let oldest = inner.memtables.borrow().immutable.last().cloned();
            let Some(oldest) = oldest else { continue };
            match flush(&inner, &oldest).await {
                Ok(()) => inner.tell_flushed(),
                Err(e) => {
                    if !inner.after_failure(e).await {
                        return;
                    }
                }
            }
        }
    });
}

async fn flush<E: Env>(inner: &Rc<Inner<E>>, memtable: &Rc<Immutable>) -> Result<()> {
    let applied = match planted::is(Bug::FlushedTooMuch) {
        true => inner.applied.borrow().clone(),
        false => memtable.applied.clone(),
    };
    let place = Place {
        level: 0,
        run: inner.next_run.get(),
        is_deepest: false,
        table_bytes: inner.l0_table_bytes(),
        waits: false,
        warms: true,
    };
    inner.next_run.set(place.run + 1);
    let hidden = memtable.hidden.borrow().clone();
    let range_deletes = Rc::new(memtable.range_deletes());
    let cuts = Cuts::new(inner.columns(), Vec::new());
    let mut output = Output::new(inner, place, cuts, Rc::clone(&range_deletes));
    let source = Source::memtable(&memtable.table, hidden.clone());
    let merge = Merge::new(vec![source], false);
    let rows = Rows::for_flush(inner, range_deletes);
    let added = match merge_into(inner, merge, &mut output, rows).await {
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
    let bytes: u64 = added.iter().map(|t| t.record.bytes).sum();
    let flushed = RefCell::default();
    let plan = |_: &Tables<E>| {
        if *memtable.hidden.borrow() != hidden {
            // A partition was exchanged, and the tables still show its rows.
            return None;
        }
        let mut ahead = applied.ahead_of(&inner.flushed.borrow());
        ahead.retain(|(partition, _)| !hidden.contains(partition));
        let edit = Edit {
            added: added.iter().map(|t| t.record.clone()).collect(),
            flushed: ahead
                .iter()
                .map(|(partition, applied)| applied.record(*partition))
                .collect(),
            ..Edit::default()
        };
        flushed.replace(ahead);
        let change = Change {
            added,
            ..Change::default()
        };
        Some((edit, change))
    };
    let install = || {
        let mut memtables = inner.memtables.borrow_mut();
        memtables.immutable.retain(|i| !Rc::ptr_eq(i, memtable));
        let mut all = inner.flushed.borrow_mut();
        for (partition, applied) in flushed.take() {
            all.set(partition, applied);
        }
    };
    match inner.commit(plan, install).await {
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
    inner.space.set_written();
    let mut stats = inner.stats.borrow_mut();
    stats.flushes += 1;
    stats.flush_bytes_written += bytes;
    Ok(())
}

impl<E: Env> Inner<E> {
    /// Size at which a table of level 0 is closed, in bytes: a full memtable makes one for each column.
    pub(crate) fn l0_table_bytes(&self) -> u64 {
        picker::table_bytes(&self.shape(), self.memtable_limit.get(), COLUMNS)
    }
}
