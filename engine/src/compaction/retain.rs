//! Which versions of a row a compaction keeps, and what becomes of them.
//!
//! The cells of one row come newest first. A *view* is a version at which somebody may read: the
//! newest, and those of live snapshots. A cell is kept if it is what some view sees, that is the
//! newest not above the view and not covered by a range delete at the view. Then:
//!
//! * a kept record that is expired becomes a tombstone, unless a snapshot of its partition lives;
//! * a kept tombstone goes when nothing older lies below the output and no snapshot lives;
//! * a record whose creation is unknown takes it over from the older record that it replaced.
//!
//! **Creation.** A blind put does not look whether the row was there. Its `created_ms` is *open*: 0,
//! or [`OPEN`] and a time `t`, which both mean: created at `t` (for 0, when it was written), unless
//! an older record was alive at `t`: then whatever that one says. A known creation ends the chain, a
//! tombstone, a range delete or an expiry before `t` does, and so does the bottom of the tree.

use crate::range_deletes::Covering;
use crate::row::{Cell, RowMeta};

/// Set in `created_ms` when the rest is only an upper bound: see the module.
pub(crate) const OPEN: u64 = 1 << 63;

/// Whether an older record may still say when the row was created.
#[inline]
pub(crate) fn is_open(meta: &RowMeta) -> bool {
    meta.created_ms == 0 || meta.created_ms & OPEN != 0
}

/// When the row was created if nothing older says otherwise, in milliseconds.
#[inline]
pub(crate) fn created_at_latest(meta: &RowMeta) -> u64 {
    match meta.created_ms {
        0 => meta.updated_ms,
        created => created & !OPEN,
    }
}

/// Closes an open creation: nothing older was alive.
pub(crate) fn close(meta: &mut RowMeta) {
    meta.created_ms = created_at_latest(meta);
}

/// Lets an open creation see the next older cell of the row, not covered by a range delete.
pub(crate) fn absorb(meta: &mut RowMeta, older: &Cell<'_>) {
    if !is_open(meta) {
        return;
    }
    let at = created_at_latest(meta);
    meta.created_ms = match older {
        Cell::Put { meta: older, .. } if !older.expired_at(at) => match is_open(older) {
            true => created_at_latest(older) | OPEN,
            false => older.created_ms,
        },
        _ => at,
    };
}

/// What a reader is told of the creation: 0 unless it is known.
#[inline]
pub(crate) fn public(mut meta: RowMeta) -> RowMeta {
    if is_open(&meta) {
        meta.created_ms = 0;
    }
    meta
}

/// A kept cell, owned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    Put(RowMeta),
    Delete(u64),
}

/// What decides about the row at hand.
pub(crate) struct Rules<'r, D> {
    /// Versions at which the row's partition may be read, descending, `u64::MAX` first.
    pub views: &'r [u64],
    /// The range deletes of the inputs.
    pub range_deletes: &'r D,
    /// The partition's time, in milliseconds: records up to it are expired.
    pub time_ms: u64,
    /// Whether nothing older of the row lies below the output.
    pub is_bottom: bool,
}

impl<D: Covering> Rules<'_, D> {
    fn is_seen(&self, row_key: &[u8], version: u64, newer: Option<u64>) -> bool {
        let mut views = self
            .views
            .iter()
            .skip_while(|view| newer.is_some_and(|newer| **view >= newer))
            .take_while(|view| **view >= version);
        views.any(|view| self.range_deletes.covering(row_key, *view) <= version)
    }

    /// What is written of a kept cell, if anything.
    fn outcome(&self, kept: Kept) -> Option<Kept> {
        let no_snapshot = self.views.len() <= 1;
        let kept = match kept {
            Kept::Put(meta) if no_snapshot && meta.expired_at(self.time_ms) => {
                Kept::Delete(meta.version)
            }
            other => other,
        };
        match kept {
            Kept::Delete(_) if self.is_bottom && no_snapshot => None,
            other => Some(other),
        }
    }
}

/// The kept cell of the row at hand that waits for the next older one.
#[derive(Default)]
pub(crate) struct Retain {
    row_key: Vec<u8>,
    value: Vec<u8>,
    kept: Option<Kept>,
    newer: Option<u64>,
    in_row: bool,
    /// Whether the cell that waits is often read.
    pub is_hot: bool,
}

impl Retain {
    /// The row whose cells are being taken in.
    pub(crate) fn row_key(&self) -> Option<&[u8]> {
        self.in_row.then_some(&self.row_key)
    }

    /// Begins a row. The one before must have been finished.
    pub(crate) fn begin(&mut self, row_key: &[u8]) {
        self.row_key.clear();
        self.row_key.extend_from_slice(row_key);
        self.kept = None;
        self.newer = None;
        self.in_row = true;
    }

    /// Takes in the next older cell of the row. Returns true if the cell that waited must be
    /// written first: [`Retain::take`] has it, and then the same cell is offered again.
    #[must_use]
    pub(crate) fn offer<D: Covering>(
        &mut self,
        cell: &Cell<'_>,
        rules: &Rules<'_, D>,
        is_hot: bool,
    ) -> bool {
        let version = cell.version();
        if self.newer.is_some_and(|newer| version >= newer) {
            // The same entry twice: a flush that was repeated after a crash. One is enough.
            return false;
        }
        if rules.is_seen(&self.row_key, version, self.newer) {
            if self.kept.is_some() {
                return true;
            }
            self.value.clear();
            self.is_hot = is_hot;
            self.kept = Some(match cell {
                Cell::Put { meta, value } => {
                    self.value.extend_from_slice(value);
                    Kept::Put(*meta)
                }
                Cell::Delete { version } => Kept::Delete(*version),
            });
        } else if let Some(Kept::Put(meta)) = &mut self.kept {
            let covering = rules.range_deletes.covering(&self.row_key, meta.version);
            if covering > version {
                close(meta);
            } else {
                absorb(meta, cell);
            }
        }
        self.newer = Some(version);
        false
    }

    /// Takes out the cell that waits, as it is to be written. `last`: no older one follows.
    pub(crate) fn take<D: Covering>(
        &mut self,
        rules: &Rules<'_, D>,
        last: bool,
    ) -> Option<(&[u8], Cell<'_>)> {
        let mut kept = self.kept.take()?;
        if last
            && rules.is_bottom
            && let Kept::Put(meta) = &mut kept
        {
            close(meta);
        }
        let cell = match rules.outcome(kept)? {
            Kept::Put(meta) => Cell::Put {
                meta,
                value: &self.value,
            },
            Kept::Delete(version) => Cell::Delete { version },
        };
        Some((&self.row_key, cell))
    }

    /// Ends the row.
    pub(crate) fn end(&mut self) {
        self.in_row = false;
    }
}
