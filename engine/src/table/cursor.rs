//! Walks a table in internal order, both ways.
//!
//! Three block cursors, one in the top block, one in an index block, one in a data block. Steps
//! within a data block need no wait ([`TableCursor::step`]); at its end the next block comes from
//! the cache, from what was read ahead, or from the device. A compaction reads 256 KiB at a time and
//! leaves the cache as it is. A scan goes through the cache; from its second miss in a row on it
//! reads ahead, twice as much each time, up to 128 KiB.

use std::rc::Rc;

use super::block::{Block, BlockCursor, Damaged};
use super::count;
use super::frame::{BlockHandle, BlockKind};
use super::reader::{Table, parse_link, parse_part};
use super::throttle::Throttle;
use crate::cache::Priority;
use crate::env::{Disk, DiskFile, Env, SECTOR};
use crate::error::{EngineError, Result};
use crate::row::Cell;

/// Read at once by a compaction.
const SEQUENTIAL_BYTES: u64 = 256 << 10;
/// Read ahead by a scan at its second miss in a row, and at most.
const SCAN_BYTES_MIN: u64 = 16 << 10;
const SCAN_BYTES_MAX: u64 = 128 << 10;

/// How a cursor gets at blocks.
#[derive(Clone)]
pub enum ReadMode {
    /// Through the cache: for clients.
    Cached,
    /// 256 KiB at a time past the cache, each read paid to the throttle: for compaction.
    Sequential(Rc<dyn Throttle>),
}

/// A position in a table. It holds the table open.
pub struct TableCursor<E: Env> {
    table: Rc<Table<E>>,
    mode: ReadMode,
    top: BlockCursor,
    index: BlockCursor,
    data: BlockCursor,
    /// Where the block is that `data` and `index` are in.
    data_offset: u64,
    index_offset: u64,
    hot: bool,
    ahead: Option<Ahead<E>>,
    scan_bytes: u64,
    misses: u32,
}

/// Sectors read ahead, and where in the file they begin.
struct Ahead<E: Env> {
    start: u64,
    bytes: <<E::Disk as Disk>::File as DiskFile>::ReadBuf,
}

/// Which way a block was wanted: what lies beyond it is read ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
    /// After a seek: nothing is known yet.
    Here,
}

impl<E: Env> TableCursor<E> {
    /// A cursor that stands nowhere yet.
    #[must_use]
    pub fn new(table: &Rc<Table<E>>, mode: ReadMode) -> Self {
        Self {
            table: table.clone(),
            mode,
            top: BlockCursor::default(),
            index: BlockCursor::default(),
            data: BlockCursor::default(),
            data_offset: 0,
            index_offset: 0,
            hot: false,
            ahead: None,
            scan_bytes: SCAN_BYTES_MIN,
            misses: 0,
        }
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> &Rc<Table<E>> {
        &self.table
    }

    /// Whether it stands on a cell.
    #[inline]
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.data.entry().is_some()
    }

    /// The row key and the cell it stands on.
    #[inline]
    #[must_use]
    pub fn get(&self) -> Option<(&[u8], Cell<'_>)> {
        let (entry, bytes) = self.data.entry()?;
        Some((self.data.key(), entry.cell(bytes)))
    }

    /// The row key and version it stands on.
    #[inline]
    #[must_use]
    pub fn key(&self) -> Option<(&[u8], u64)> {
        let (entry, _) = self.data.entry()?;
        Some((self.data.key(), entry.meta.version))
    }

    /// Whether the block it stands in is in the cache and in use: what a compaction writes of it
    /// should be cached, too. Known in sequential mode only.
    #[must_use]
    pub fn is_hot(&self) -> bool {
        self.hot
    }

    /// Stands on the first cell at or after (`row_key`, `version`) in internal order. With
    /// `u64::MAX` that is the newest cell of the first row at or above `row_key`.
    ///
    /// # Errors
    /// `Corrupt` if a block is damaged, or of the disk. Then it stands nowhere.
    pub async fn seek(&mut self, row_key: &[u8], version: u64) -> Result<()> {
        if self.begin()
            && self.top_step(|top| top.seek(row_key, version))?
            && self.enter_part(Way::Here).await?
            && self.index_step(|index| index.seek(row_key, version))?
            && self.enter_data(Way::Here).await?
            && !self.data_step(|data| data.seek(row_key, version))?
        {
            self.next_block().await?;
        }
        Ok(())
    }

    /// Stands on the last cell before (`row_key`, `version`) in internal order. With `u64::MAX`
    /// that is the oldest cell of the last row below `row_key`.
    ///
    /// # Errors
    /// As [`TableCursor::seek`].
    pub async fn seek_before(&mut self, row_key: &[u8], version: u64) -> Result<()> {
        self.seek(row_key, version).await?;
        if self.is_valid() {
            self.prev().await
        } else {
            self.seek_last().await
        }
    }

    /// Stands on the first cell.
    ///
    /// # Errors
    /// As [`TableCursor::seek`].
    pub async fn seek_first(&mut self) -> Result<()> {
        if self.begin()
            && self.top_step(BlockCursor::seek_first)?
            && self.enter_part(Way::Up).await?
            && self.index_step(BlockCursor::seek_first)?
            && self.enter_data(Way::Up).await?
        {
            self.data_step(BlockCursor::seek_first)?;
        }
        Ok(())
    }

    /// Stands on the last cell.
    ///
    /// # Errors
    /// As [`TableCursor::seek`].
    pub async fn seek_last(&mut self) -> Result<()> {
        if self.begin()
            && self.top_step(BlockCursor::seek_last)?
            && self.enter_part(Way::Down).await?
            && self.index_step(BlockCursor::seek_last)?
            && self.enter_data(Way::Down).await?
        {
            self.data_step(BlockCursor::seek_last)?;
        }
        Ok(())
    }

    /// Moves to the next cell if it lies in the same block; false if it does not, or it stands
    /// nowhere: then [`TableCursor::next`] goes on, from where it still stands.
    ///
    /// # Errors
    /// `Corrupt` if the block is damaged.
    #[inline]
    pub fn step(&mut self) -> Result<bool> {
        let Some((entry, _)) = self.data.entry() else {
            return Ok(false);
        };
        let rows = self.data.block().and_then(|block| block.rows());
        if rows.is_none_or(|(rows, _)| entry.end >= rows.entries_end) {
            return Ok(false);
        }
        self.data_step(BlockCursor::next)
    }

    /// Moves to the next cell; from the last one, to nowhere.
    ///
    /// # Errors
    /// As [`TableCursor::seek`].
    #[inline]
    pub async fn next(&mut self) -> Result<()> {
        if !self.is_valid() || self.data_step(BlockCursor::next)? {
            return Ok(());
        }
        self.next_block().await
    }

    /// Moves to the cell before; from the first one, to nowhere.
    ///
    /// # Errors
    /// As [`TableCursor::seek`].
    #[inline]
    pub async fn prev(&mut self) -> Result<()> {
        if !self.is_valid() || self.data_step(BlockCursor::prev)? {
            return Ok(());
        }
        self.previous_block().await
    }

    async fn next_block(&mut self) -> Result<()> {
        if !self.index_step(BlockCursor::next)? {
            let more = self.top_step(BlockCursor::next)?
                && self.enter_part(Way::Up).await?
                && self.index_step(BlockCursor::seek_first)?;
            if !more {
                self.data.leave();
                return Ok(());
            }
        }
        if self.enter_data(Way::Up).await? {
            self.data_step(BlockCursor::seek_first)?;
        }
        Ok(())
    }

    async fn previous_block(&mut self) -> Result<()> {
        if !self.index_step(BlockCursor::prev)? {
            let more = self.top_step(BlockCursor::prev)?
                && self.enter_part(Way::Down).await?
                && self.index_step(BlockCursor::seek_last)?;
            if !more {
                self.data.leave();
                return Ok(());
            }
        }
        if self.enter_data(Way::Down).await? {
            self.data_step(BlockCursor::seek_last)?;
        }
        Ok(())
    }

    /// Enters the top block; false if the table has no cells.
    fn begin(&mut self) -> bool {
        self.data.leave();
        self.misses = 0;
        self.scan_bytes = SCAN_BYTES_MIN;
        match self.table.top() {
            Some(top) => {
                if self.top.block().is_none() {
                    self.top.enter(top.clone());
                }
                true
            }
            None => false,
        }
    }

    #[inline]
    fn top_step(
        &mut self,
        step: impl FnOnce(&mut BlockCursor) -> Result<bool, Damaged>,
    ) -> Result<bool> {
        let offset = self.table.footer().top_offset;
        step(&mut self.top).map_err(|damaged| self.damaged(damaged, offset))
    }

    #[inline]
    fn index_step(
        &mut self,
        step: impl FnOnce(&mut BlockCursor) -> Result<bool, Damaged>,
    ) -> Result<bool> {
        step(&mut self.index).map_err(|damaged| self.damaged(damaged, self.index_offset))
    }

    #[inline]
    fn data_step(
        &mut self,
        step: impl FnOnce(&mut BlockCursor) -> Result<bool, Damaged>,
    ) -> Result<bool> {
        match step(&mut self.data) {
            Ok(stands) => Ok(stands),
            Err(damaged) => {
                self.data.leave();
                Err(self.damaged(damaged, self.data_offset))
            }
        }
    }

    fn damaged(&self, _: Damaged, offset: u64) -> EngineError {
        self.table.corrupt(offset, "a block contradicts itself")
    }

    /// Enters the index block that the top block's cursor stands on.
    async fn enter_part(&mut self, way: Way) -> Result<bool> {
        let link = self.top.entry().map(|(entry, bytes)| entry.value(bytes));
        let offset = self.table.footer().top_offset;
        let part = link
            .and_then(parse_part)
            .ok_or_else(|| self.table.corrupt(offset, "an index entry names no block"))?;
        if self.index.block().is_some() && self.index_offset == part.index.offset {
            return Ok(true);
        }
        self.data.leave();
        self.index.leave();
        let block = self.fetch(part.index, BlockKind::Index, way).await?;
        self.index.enter(block);
        self.index_offset = part.index.offset;
        Ok(true)
    }

    /// Enters the data block that the index block's cursor stands on.
    async fn enter_data(&mut self, way: Way) -> Result<bool> {
        let link = self.index.entry().map(|(entry, bytes)| entry.value(bytes));
        let offset = self.index_offset;
        let handle = link
            .and_then(parse_link)
            .ok_or_else(|| self.table.corrupt(offset, "an index entry names no block"))?;
        self.data.leave();
        let block = self.fetch(handle, BlockKind::Data, way).await?;
        self.data.enter(block);
        self.data_offset = handle.offset;
        Ok(true)
    }

    /// A block, by what the mode allows.
    async fn fetch(&mut self, handle: BlockHandle, kind: BlockKind, way: Way) -> Result<Rc<Block>> {
        self.table.check(handle)?;
        let cache = &self.table.context.cache;
        let id = self.table.id();
        let sequential = matches!(self.mode, ReadMode::Sequential(_));
        let cached = match sequential {
            // The data around it must be read anyhow; an index block stands alone.
            true if kind == BlockKind::Data => {
                self.hot = cache.is_hot(id, handle.offset);
                None
            }
            true => cache.peek(id, handle.offset),
            false => cache.get(id, handle.offset),
        };
        if let Some(block) = cached {
            if kind == BlockKind::Data {
                self.misses = 0;
                self.scan_bytes = SCAN_BYTES_MIN;
            }
            return Ok(block);
        }
        self.table.context.env.yield_if_needed().await;
        let block = match self.read_ahead(handle, kind, way).await? {
            Some(()) => {
                let ahead = self.ahead.as_ref();
                let (bytes, start) = ahead.map_or((&[][..], 0), |a| (&*a.bytes, a.start));
                self.table.decode(handle, kind, bytes, start)?
            }
            None => self.table.read_block(handle, kind).await?,
        };
        if !sequential {
            let priority = match kind {
                BlockKind::Data => Priority::Data,
                _ => Priority::Meta,
            };
            let cache = &self.table.context.cache;
            cache.insert(id, handle.offset, block.clone(), priority);
        }
        Ok(block)
    }

    /// Sees to it that the block lies in what was read ahead; `None` if it is to be read alone.
    async fn read_ahead(
        &mut self,
        handle: BlockHandle,
        kind: BlockKind,
        way: Way,
    ) -> Result<Option<()>> {
        if let Some(ahead) = &self.ahead
            && ahead.start <= handle.offset
            && handle.end() <= ahead.start + ahead.bytes.len() as u64
        {
            return Ok(Some(()));
        }
        let window = match &self.mode {
            // What lies around an index block is not what comes next.
            ReadMode::Sequential(_) if kind == BlockKind::Data => SEQUENTIAL_BYTES,
            ReadMode::Sequential(throttle) => {
                throttle.take(u64::from(handle.len)).await;
                return Ok(None);
            }
            ReadMode::Cached if kind != BlockKind::Data => return Ok(None),
            ReadMode::Cached => {
                self.misses += 1;
                if self.misses < 2 || way == Way::Here {
                    return Ok(None);
                }
                let window = self.scan_bytes;
                self.scan_bytes = (window * 2).min(SCAN_BYTES_MAX);
                window
            }
        };
        let sector = SECTOR as u64;
        let (start, end) = match way {
            Way::Up | Way::Here => {
                let start = handle.offset / sector * sector;
                (start, handle.end().max(start + window))
            }
            Way::Down => {
                let end = handle.end();
                (handle.offset.min(end.saturating_sub(window)), end)
            }
        };
        let start = start / sector * sector;
        let end = end.min(self.table.blocks_end).max(handle.end());
        let len = (end.next_multiple_of(sector) - start) as usize;
        self.ahead = None;
        let counters = &self.table.context.counters;
        if let ReadMode::Sequential(throttle) = &self.mode {
            throttle.take(len as u64).await;
            count(&counters.sequential_reads, 1);
            count(&counters.sequential_read_bytes, len as u64);
        } else {
            count(&counters.device_reads, 1);
            count(&counters.device_read_bytes, len as u64);
        }
        let bytes = self.table.file.read_at(start, len).await?;
        self.ahead = Some(Ahead { start, bytes });
        Ok(Some(()))
    }
}
