//! The receiver's side: chunks in, tables out that nobody sees yet.
//!
//! The tables lie in the tree's folder, where the manifest does not know them. So whatever becomes
//! of a stage, nothing of it is ever read by mistake: its files are removed when it is dropped, or
//! at the next open. Writing them waits for tokens as compaction does, and memory holds no more than
//! one table's open blocks and the chunk at hand.

use std::cmp::Ordering;
use std::rc::Rc;

use super::SnapshotId;
use super::chunk::Reader;
use crate::compaction::output::{Cuts, Output, Place};
use crate::env::Env;
use crate::error::{EngineError, Result};
use crate::manifest::LEVELS;
use crate::row::Cell;
use crate::tree::{Inner, TableRef, Tree};

/// Takes the chunks of one snapshot, in order, and writes tables of them.
pub struct Stage<E: Env> {
    of: SnapshotId,
    output: Output<E>,
    position: Vec<u8>,
    is_complete: bool,
    /// A chunk was half taken: what is written is worth nothing.
    is_spent: bool,
    rows: u64,
}

/// A whole snapshot in tables, durable, not yet part of the tree.
pub struct Staged<E: Env> {
    pub(crate) of: SnapshotId,
    pub(crate) tables: Vec<TableRef<E>>,
    rows: u64,
    files: Files<E>,
}

/// Files of tables that are removed when this is dropped, unless somebody keeps them.
pub(super) struct Files<E: Env> {
    inner: Rc<Inner<E>>,
    ids: Vec<u64>,
}

impl<E: Env> Files<E> {
    /// They are the manifest's from now on.
    pub(super) fn keep(mut self) {
        self.ids.clear();
    }
}

impl<E: Env> Drop for Files<E> {
    fn drop(&mut self) {
        if !self.ids.is_empty() {
            self.inner.obsolete.borrow_mut().append(&mut self.ids);
            self.inner.changed.notify();
        }
    }
}

impl<E: Env> Tree<E> {
    /// Begins to take in a snapshot. Any number may be under way.
    #[must_use]
    pub fn stage(&self, of: SnapshotId) -> Stage<E> {
        let inner = &self.inner;
        let place = Place {
            level: (LEVELS - 1) as u8,
            run: 0,
            is_deepest: true,
            table_bytes: inner.options.table_bytes,
            waits: true,
            warms: false,
        };
        Stage {
            of,
            output: Output::new(
                inner,
                place,
                Cuts::new(Vec::new(), Vec::new()),
                Rc::default(),
            ),
            position: Vec::new(),
            is_complete: false,
            is_spent: false,
            rows: 0,
        }
    }
}

impl<E: Env> Stage<E> {
    /// What it takes in.
    #[must_use]
    pub fn of(&self) -> SnapshotId {
        self.of
    }

    /// The last row key taken: the next chunk must come after it. Empty at the start.
    #[must_use]
    pub fn position(&self) -> &[u8] {
        &self.position
    }

    /// Whether the last chunk was taken.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Rows taken.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Takes a chunk of [`super::Export::chunk`], which comes after [`Stage::position`]. One that was
    /// taken before is passed over.
    ///
    /// # Errors
    /// `Invalid` for a chunk that is damaged, of another snapshot, or not the next: nothing of it was
    /// taken, and the stage is as good as before. Anything else is final, and so is dropping the
    /// future half way: every later call answers `Closed`.
    pub async fn accept(&mut self, chunk: &[u8]) -> Result<()> {
        if self.is_spent {
            return Err(EngineError::Closed);
        }
        let invalid = |what| EngineError::Invalid(format!("a chunk of a snapshot: {what}"));
        let reader = Reader::new(chunk).map_err(invalid)?;
        if reader.of != self.of {
            return Err(invalid(format!("it is of {:?}", reader.of)));
        }
        let last_key = &reader.last_key;
        let is_old = match last_key.cmp(&self.position) {
            Ordering::Less => true,
            Ordering::Equal => !last_key.is_empty() && !reader.is_last,
            Ordering::Greater => false,
        };
        if is_old || self.is_complete {
            return Ok(());
        }
        if reader.after != self.position {
            return Err(invalid("it is not the next one".into()));
        }
        self.is_spent = true;
        let mut rows = reader.rows();
        while let Some((row_key, meta, value)) = rows.next() {
            let cell = Cell::Put { meta, value };
            self.output.add(row_key, cell, false).await?;
            self.rows += 1;
        }
        self.is_spent = false;
        self.position = reader.last_key;
        self.is_complete = reader.is_last;
        Ok(())
    }

    /// Ends the last table and makes all of them durable, with their names.
    ///
    /// # Errors
    /// `Invalid` if the last chunk is missing, `Closed` for a stage that failed before, and what the
    /// disk says.
    pub async fn finish(mut self) -> Result<Staged<E>> {
        if self.is_spent {
            return Err(EngineError::Closed);
        }
        if !self.is_complete {
            let what = "the last chunk of a snapshot is missing";
            return Err(EngineError::Invalid(what.into()));
        }
        let tables = self.output.finish().await?;
        let files = Files {
            inner: Rc::clone(self.output.inner()),
            ids: self.output.take_created(),
        };
        Ok(Staged {
            of: self.of,
            tables,
            rows: self.rows,
            files,
        })
    }
}

impl<E: Env> Drop for Stage<E> {
    fn drop(&mut self) {
        let ids = self.output.take_created();
        let inner = Rc::clone(self.output.inner());
        drop(Files { inner, ids });
    }
}

impl<E: Env> Staged<E> {
    pub(super) fn into_parts(self) -> (Vec<TableRef<E>>, Files<E>) {
        (self.tables, self.files)
    }

    /// What it holds.
    #[must_use]
    pub fn of(&self) -> SnapshotId {
        self.of
    }

    /// Rows in it.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Length of its tables, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.tables.iter().map(|table| table.record.bytes).sum()
    }
}
