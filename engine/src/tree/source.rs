//! Sorted sources of cells, and the merge of several into one order.
//!
//! A source steps over the rows of partitions that its memtable or table hides.

use std::cmp::Ordering;
use std::rc::Rc;

use crate::entry::PartitionId;
use crate::env::Env;
use crate::error::Result;
use crate::memtable::MemCursor;
use crate::row::{Cell, compare_internal, partition_of, partition_range};
use crate::table::{ReadMode, TableCursor};

use super::TableRef;
use super::memtables::SharedMemtable;

/// A place in one memtable or one sorted run.
pub(crate) enum Source<E: Env> {
    Memtable {
        table: SharedMemtable,
        cursor: MemCursor,
        hidden: Vec<PartitionId>,
    },
    Run(Box<RunSource<E>>),
}

/// A place in one sorted run: in one of its tables, or nowhere.
pub(crate) struct RunSource<E: Env> {
    tables: Vec<TableRef<E>>,
    /// The table that `cursor` is in.
    at: usize,
    cursor: Option<TableCursor<E>>,
    mode: ReadMode,
    /// Whether one of the tables hides a partition.
    hides: bool,
}

impl<E: Env> RunSource<E> {
    fn open(&mut self, at: usize) -> Option<&mut TableCursor<E>> {
        self.at = at;
        let table = self.tables.get(at);
        self.cursor = table.map(|table| TableCursor::new(&table.reader, self.mode.clone()));
        self.cursor.as_mut()
    }

    fn stands(&self) -> bool {
        self.cursor.as_ref().is_some_and(TableCursor::is_valid)
    }

    /// The row keys of the partition it stands in, if the table hides that.
    fn hidden_here(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        if !self.hides {
            return None;
        }
        let (row_key, _) = self.cursor.as_ref()?.key()?;
        let table = self.tables.get(self.at)?;
        table
            .hides(row_key)
            .then(|| partition_range(partition_of(row_key).unwrap_or_default()))
    }

    /// From behind a table's last cell to the first of the tables after it, and past what is hidden.
    async fn settle_forward(&mut self) -> Result<()> {
        while let Some(cursor) = &self.cursor {
            if !cursor.is_valid() {
                if let Some(cursor) = self.open(self.at + 1) {
                    cursor.seek_first().await?;
                }
            } else if let Some((_, end)) = self.hidden_here() {
                if let Some(cursor) = &mut self.cursor {
                    cursor.seek(&end, u64::MAX).await?;
                }
            } else {
                break;
            }
        }
        Ok(())
    }

    /// From before a table's first cell to the last of the tables before it, and past what is hidden.
    async fn settle_backward(&mut self) -> Result<()> {
        while self.cursor.is_some() {
            if self.stands() {
                let Some((start, _)) = self.hidden_here() else {
                    break;
                };
                if let Some(cursor) = &mut self.cursor {
                    cursor.seek_before(&start, u64::MAX).await?;
                }
                continue;
            }
            match self.at.checked_sub(1) {
                Some(before) => {
                    if let Some(cursor) = self.open(before) {
                        cursor.seek_last().await?;
                    }
                }
                None => self.cursor = None,
            }
        }
        Ok(())
    }

    async fn seek(&mut self, row_key: &[u8]) -> Result<()> {
        let at = self
            .tables
            .partition_point(|t| t.record.ends_before(row_key));
        if let Some(cursor) = self.open(at) {
            cursor.seek(row_key, u64::MAX).await?;
        }
        self.settle_forward().await
    }

    async fn seek_before(&mut self, row_key: &[u8]) -> Result<()> {
        let after = self
            .tables
            .partition_point(|t| t.record.smallest.as_slice() < row_key);
        match after.checked_sub(1) {
            Some(at) => {
                if let Some(cursor) = self.open(at) {
                    cursor.seek_before(row_key, u64::MAX).await?;
                }
                self.settle_backward().await
            }
            None => {
                self.cursor = None;
                Ok(())
            }
        }
    }

    #[inline]
    async fn next(&mut self) -> Result<()> {
        if let Some(cursor) = &mut self.cursor {
            cursor.next().await?;
            if !cursor.is_valid() || self.hides {
                self.settle_forward().await?;
            }
        }
        Ok(())
    }

    async fn prev(&mut self) -> Result<()> {
        if let Some(cursor) = &mut self.cursor {
            cursor.prev().await?;
        }
        self.settle_backward().await
    }
}

impl<E: Env> Source<E> {
    pub(crate) fn memtable(table: &SharedMemtable, hidden: Vec<PartitionId>) -> Self {
        Self::Memtable {
            table: Rc::clone(table),
            cursor: MemCursor::new(),
            hidden,
        }
    }

    /// Of sorted tables without a row key in common.
    pub(crate) fn run(tables: Vec<TableRef<E>>, mode: ReadMode) -> Self {
        Self::Run(Box::new(RunSource {
            hides: tables.iter().any(|table| !table.hidden.is_empty()),
            tables,
            at: 0,
            cursor: None,
            mode,
        }))
    }

    async fn seek(&mut self, row_key: &[u8]) -> Result<()> {
        match self {
            Self::Memtable { table, cursor, .. } => {
                cursor.seek(&table.borrow(), row_key, u64::MAX);
            }
            Self::Run(run) => run.seek(row_key).await?,
        }
        self.pass_hidden(false);
        Ok(())
    }

    async fn seek_before(&mut self, row_key: &[u8]) -> Result<()> {
        match self {
            Self::Memtable { table, cursor, .. } => {
                cursor.seek_before(&table.borrow(), row_key, u64::MAX);
            }
            Self::Run(run) => run.seek_before(row_key).await?,
        }
        self.pass_hidden(true);
        Ok(())
    }

    #[inline]
    async fn step(&mut self, reverse: bool) -> Result<()> {
        match self {
            Self::Memtable { table, cursor, .. } => {
                match reverse {
                    false => cursor.next(&table.borrow()),
                    true => cursor.prev(&table.borrow()),
                }
                self.pass_hidden(reverse);
                Ok(())
            }
            Self::Run(run) if reverse => run.prev().await,
            Self::Run(run) => run.next().await,
        }
    }

    /// Steps over what a memtable hides.
    #[inline]
    fn pass_hidden(&mut self, reverse: bool) {
        let Self::Memtable {
            table,
            cursor,
            hidden,
        } = self
        else {
            return;
        };
        if hidden.is_empty() {
            return;
        }
        let table = table.borrow();
        while let Some(partition) = cursor.key(&table).and_then(|(key, _)| partition_of(key))
            && hidden.contains(&partition)
        {
            let (from, to) = partition_range(partition);
            match reverse {
                false => cursor.seek(&table, &to, u64::MAX),
                true => cursor.seek_before(&table, &from, u64::MAX),
            }
        }
    }

    fn stands(&self) -> bool {
        match self {
            Self::Memtable { cursor, .. } => cursor.is_valid(),
            Self::Run(run) => run.stands(),
        }
    }

    /// Shows the cell it stands on.
    #[inline]
    fn with_cell<R>(&self, f: impl FnOnce(&[u8], Cell<'_>) -> R) -> Option<R> {
        match self {
            Self::Memtable { table, cursor, .. } => {
                let table = table.borrow();
                cursor.get(&table).map(|(row_key, cell)| f(row_key, cell))
            }
            Self::Run(run) => {
                let cursor = run.cursor.as_ref()?;
                cursor.get().map(|(row_key, cell)| f(row_key, cell))
            }
        }
    }

    #[inline]
    fn with_key<R>(&self, f: impl FnOnce((&[u8], u64)) -> R) -> Option<R> {
        match self {
            Self::Memtable { table, cursor, .. } => cursor.key(&table.borrow()).map(f),
            Self::Run(run) => run.cursor.as_ref()?.key().map(f),
        }
    }
}

/// Merges sources in internal order, or against it. A binary heap of those that stand on a cell.
pub(crate) struct Merge<E: Env> {
    sources: Vec<Source<E>>,
    /// Positions in `sources`; the first is the one whose cell comes next.
    heap: Vec<usize>,
    reverse: bool,
}

impl<E: Env> Merge<E> {
    pub(crate) fn new(sources: Vec<Source<E>>, reverse: bool) -> Self {
        Self {
            heap: Vec::with_capacity(sources.len()),
            sources,
            reverse,
        }
    }

    /// Stands on the first cell of the first row at or above `row_key`.
    pub(crate) async fn seek(&mut self, row_key: &[u8]) -> Result<()> {
        for source in &mut self.sources {
            source.seek(row_key).await?;
        }
        self.rebuild();
        Ok(())
    }

    /// Stands on the last cell of the last row below `row_key`.
    pub(crate) async fn seek_before(&mut self, row_key: &[u8]) -> Result<()> {
        for source in &mut self.sources {
            source.seek_before(row_key).await?;
        }
        self.rebuild();
        Ok(())
    }

    /// Goes on to the next cell, or the one before when merging in reverse.
    #[inline]
    pub(crate) async fn step(&mut self) -> Result<()> {
        let Some(first) = self.heap.first().copied() else {
            return Ok(());
        };
        self.sources[first].step(self.reverse).await?;
        if !self.sources[first].stands() {
            self.heap.swap_remove(0);
        }
        self.sift_down(0);
        Ok(())
    }

    /// Shows the cell it stands on; `None` at the end.
    #[inline]
    pub(crate) fn with_cell<R>(&self, f: impl FnOnce(&[u8], Cell<'_>) -> R) -> Option<R> {
        self.sources[*self.heap.first()?].with_cell(f)
    }

    /// Whether the cell it stands on belongs to this row.
    #[inline]
    pub(crate) fn is_in_row(&self, row_key: &[u8]) -> bool {
        let first = self.heap.first();
        first.is_some_and(|at| self.sources[*at].with_key(|(key, _)| key == row_key) == Some(true))
    }

    /// Whether the cell it stands on is often read by clients. Known when reading for compaction.
    #[inline]
    pub(crate) fn is_hot(&self) -> bool {
        match self.heap.first().map(|at| &self.sources[*at]) {
            Some(Source::Run(run)) => run.cursor.as_ref().is_some_and(TableCursor::is_hot),
            _ => false,
        }
    }

    fn rebuild(&mut self) {
        self.heap.clear();
        for (at, source) in self.sources.iter().enumerate() {
            if source.stands() {
                self.heap.push(at);
            }
        }
        for at in (0..self.heap.len() / 2).rev() {
            self.sift_down(at);
        }
    }

    fn sift_down(&mut self, mut at: usize) {
        loop {
            let mut least = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < self.heap.len() && self.comes_before(child, least) {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            self.heap.swap(at, least);
            at = least;
        }
    }

    #[inline]
    fn comes_before(&self, a: usize, b: usize) -> bool {
        let (a, b) = (self.heap[a], self.heap[b]);
        let order = self.sources[a]
            .with_key(|a| self.sources[b].with_key(|b| compare_internal(a, b)))
            .flatten();
        match order {
            Some(Ordering::Less) => !self.reverse,
            Some(Ordering::Greater) => self.reverse,
            // The same entry twice: any order does.
            _ => a < b,
        }
    }
}
