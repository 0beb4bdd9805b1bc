//! Writing sorted cells into tables, cut where it is best.
//!
//! A table is closed when it is full, and before if it comes to a *good cut*: somewhat before at the
//! end of a table in the level below, because tables that end where those below end drag fewer of them
//! into the next compaction; and well before at the edge of a column of level 0, in level 0 itself
//! and in the level it is compacted into, because one table across two columns makes one job of both.
//! All cells of a row go into one table, and range deletes are clipped to it.

use std::rc::Rc;

use crate::env::{Disk, Env};
use crate::error::{EngineError, Result};
use crate::manifest::{LEVELS, TableRecord};
use crate::range_deletes::RangeDeletes;
use crate::row::Cell;
use crate::table::{Builder, BuilderOptions, Table, TableInfo, Throttle};
use crate::tree::version::TableFile;
use crate::tree::{Inner, TableRef, table_path};

use super::bucket::Overdraft;

/// Percentage of its size from which a table is closed where one in the level below begins.
const BELOW_CUT_PERCENT: u64 = 60;
/// Percentage of its size from which a table is closed at the edge of a column.
const COLUMN_CUT_PERCENT: u64 = 20;
/// Percentage of its size up to which a table may grow to reach a good cut.
const WAIT_PERCENT: u64 = 130;

/// Where tables go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub level: u8,
    /// The run in level 0; 0 elsewhere.
    pub run: u64,
    /// Whether nothing lies below the level.
    pub is_deepest: bool,
    /// Size at which a table is closed, in bytes.
    pub table_bytes: u64,
    /// Whether writing waits for tokens, or only counts.
    pub waits: bool,
    /// Whether index and filter blocks go straight into the cache, because reads will follow.
    pub warms: bool,
}

/// Row keys at which tables are best cut, ascending, each with the percentage of a table's size from
/// which it counts.
pub(crate) struct Cuts(Vec<(Vec<u8>, u64)>);

impl Cuts {
    /// Of the row keys at which columns of level 0 and tables in the level below begin.
    pub(crate) fn new(columns: Vec<Vec<u8>>, below: Vec<Vec<u8>>) -> Self {
        let columns = columns.into_iter().map(|key| (key, COLUMN_CUT_PERCENT));
        let below = below.into_iter().map(|key| (key, BELOW_CUT_PERCENT));
        let mut cuts: Vec<_> = columns.chain(below).collect();
        cuts.sort();
        Self(cuts)
    }
}

/// Writes the tables of one flush or compaction. Until [`Output::finish`] has been called and its
/// tables are in the manifest, they are nothing; [`Output::undo`] removes them.
pub(crate) struct Output<E: Env> {
    inner: Rc<Inner<E>>,
    place: Place,
    cuts: Cuts,
    next_cut: usize,
    /// Range deletes to go along.
    range_deletes: Rc<RangeDeletes>,
    writer: Option<Builder<E>>,
    /// Where the table being written begins: what comes before is in earlier ones.
    from: Option<Vec<u8>>,
    last_row: Vec<u8>,
    done: Vec<TableRef<E>>,
    created: Vec<u64>,
}

impl<E: Env> Output<E> {
    /// `range_deletes` are written along, clipped to each table.
    pub(crate) fn new(
        inner: &Rc<Inner<E>>,
        place: Place,
        cuts: Cuts,
        range_deletes: Rc<RangeDeletes>,
    ) -> Self {
        Self {
            inner: Rc::clone(inner),
            place,
            cuts,
            next_cut: 0,
            range_deletes,
            writer: None,
            from: None,
            last_row: Vec::new(),
            done: Vec::new(),
            created: Vec::new(),
        }
    }

    /// Adds a cell. They come in internal order. A hot one goes into the cache, too.
    pub(crate) async fn add(&mut self, row_key: &[u8], cell: Cell<'_>, is_hot: bool) -> Result<()> {
        if self.writer.is_some() && self.last_row != row_key && self.is_cut(row_key) {
            self.close(Some(row_key)).await?;
        }
        if self.writer.is_none() {
            self.open().await?;
        }
        let Some(writer) = &mut self.writer else {
            return Err(EngineError::Closed);
        };
        writer.add(row_key, &cell)?;
        if is_hot {
            writer.mark_hot();
        }
        if writer.wants_write() {
            writer.write().await?;
        }
        if self.last_row != row_key {
            self.last_row.clear();
            self.last_row.extend_from_slice(row_key);
        }
        Ok(())
    }

    /// Whether the table being written should end before `row_key`.
    fn is_cut(&mut self, row_key: &[u8]) -> bool {
        let cuts = &self.cuts.0;
        let passed = cuts[self.next_cut..].iter();
        let passed = passed.take_while(|(cut, _)| cut.as_slice() <= row_key);
        let (mut count, mut percent) = (0, u64::MAX);
        for (_, counts_from) in passed {
            count += 1;
            percent = percent.min(*counts_from);
        }
        self.next_cut += count;
        let bytes = self.writer.as_ref().map_or(0, Builder::estimated_bytes);
        let full = self.place.table_bytes;
        let more_cuts = self.next_cut < cuts.len();
        bytes >= full * WAIT_PERCENT / 100
            || (bytes >= full && !more_cuts)
            || (count > 0 && bytes >= full * percent / 100)
    }

    async fn open(&mut self) -> Result<()> {
        let inner = &self.inner;
        let id = inner.next_table.get();
        inner.next_table.set(id + 1);
        self.created.push(id);
        let o = &inner.options;
        let options = BuilderOptions {
            block_bytes: o.block_bytes,
            bits_per_key: match self.place.is_deepest {
                true => o.bloom_bits_deepest,
                false => o.bloom_bits,
            },
            compression: match self.place.is_deepest {
                true => o.compression_deepest,
                false => o.compression,
            },
            warm_cache: self.place.warms,
        };
        let path = table_path(&inner.dir, id);
        let throttle: Rc<dyn Throttle> = match self.place.waits {
            true => Rc::new(inner.bucket.clone()),
            false => Rc::new(Overdraft(inner.bucket.clone())),
        };
        let writer = Builder::create(&inner.context, &path, id, options, throttle).await?;
        self.writer = Some(writer);
        Ok(())
    }

    /// Ends the table being written; the next one begins at `to`.
    async fn close(&mut self, to: Option<&[u8]>) -> Result<()> {
        let Some(mut writer) = self.writer.take() else {
            return Ok(());
        };
        let range_deletes = Rc::clone(&self.range_deletes);
        for delete in range_deletes.iter() {
            self.inner.env.yield_if_needed().await;
            let from = match &self.from {
                Some(from) => delete.from.max(from),
                None => delete.from,
            };
            let end = to.map_or(delete.to, |to| delete.to.min(to));
            if from < end {
                writer.add_range_delete(from, end, delete.version)?;
            }
        }
        self.from = to.map(<[u8]>::to_vec);
        let info = writer.finish().await?;
        let inner = &self.inner;
        let path = table_path(&inner.dir, info.id);
        let expected = Some((info.bytes, info.footer_checksum));
        let reader = Table::open(&inner.context, &path, info.id, expected).await?;
        let record = record_of(&info, &self.place);
        let table = TableFile::new(record, Rc::new(reader), &inner.obsolete);
        self.done.push(Rc::new(table));
        Ok(())
    }

    /// Ends the last table and makes the names of all durable.
    pub(crate) async fn finish(&mut self) -> Result<Vec<TableRef<E>>> {
        if self.writer.is_none() {
            let from = self.from.as_deref().unwrap_or(&[]);
            if self.range_deletes.iter().any(|d| d.to > from) {
                self.open().await?;
            }
        }
        self.close(None).await?;
        if !self.done.is_empty() {
            let inner = &self.inner;
            inner.env.disk().sync_dir(&inner.dir).await?;
        }
        Ok(std::mem::take(&mut self.done))
    }

    /// The tree that it writes for.
    pub(crate) fn inner(&self) -> &Rc<Inner<E>> {
        &self.inner
    }

    /// The numbers of all tables begun so far, whose files are the caller's business from now on.
    pub(crate) fn take_created(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.created)
    }

    /// Removes what was written.
    pub(crate) async fn undo(self) -> Result<()> {
        drop(self.writer);
        drop(self.done);
        for id in self.created {
            let path = table_path(&self.inner.dir, id);
            match self.inner.env.disk().remove(&path).await {
                Err(e) if e.kind != crate::env::DiskErrorKind::NotFound => return Err(e.into()),
                _ => {}
            }
        }
        Ok(())
    }
}

/// What the manifest says of a new table.
fn record_of(info: &TableInfo, place: &Place) -> TableRecord {
    TableRecord {
        id: info.id,
        level: place.level,
        run: place.run,
        bytes: info.bytes,
        raw_bytes: info.raw_bytes,
        entries: info.entries,
        tombstones: info.tombstones,
        range_deletes: info.range_deletes,
        version_min: info.version_min,
        version_max: info.version_max,
        expiring: info.expiring,
        expiry_min_ms: info.expiry_min_ms,
        expiry_max_ms: info.expiry_max_ms,
        smallest: info.smallest.clone(),
        largest: info.largest.clone(),
        largest_excluded: info.largest_excluded,
        footer_checksum: info.footer_checksum,
    }
}

/// Whether a level is the last one there is.
pub(crate) fn is_last_level(level: u8) -> bool {
    usize::from(level) + 1 >= LEVELS
}
