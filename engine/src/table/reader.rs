//! Reads a table.
//!
//! [`Table::get_cached`] answers from memory alone, without a task or an allocation;
//! [`Table::get`] goes on to the device where that needs it. A filter and the index beside it are
//! read together. Whatever is damaged is an error that names file and offset, never a panic.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::block::{Block, Bound, Entry};
use super::footer::{Footer, TRAILER_BYTES, TableInfo, Trailer};
use super::frame::{self, BlockHandle, BlockKind, FRAME_TAIL_BYTES};
use super::{TableContext, count, filter, varint};
use crate::cache::Priority;
use crate::env::{Disk, DiskFile, Env, FileClass, SECTOR};
use crate::error::{EngineError, Result};
use crate::range_deletes::RangeDeletes;
use crate::row::Cell;

/// Read from the end of a file at opening: most tails fit, so that one read is enough.
const TAIL_READ_BYTES: u64 = 64 << 10;

/// An open table. Belongs to one core; shared within it by `Rc`.
pub struct Table<E: Env> {
    pub(super) context: TableContext<E>,
    pub(super) file: <E::Disk as Disk>::File,
    path: PathBuf,
    footer: Footer,
    top: Option<Rc<Block>>,
    range_deletes: RangeDeletes,
    /// Where blocks end and the tail begins.
    pub(super) blocks_end: u64,
}

/// A cell that was found, with the block that holds it.
#[derive(Clone)]
pub struct Found {
    block: Rc<Block>,
    entry: Entry,
}

impl Found {
    /// The cell.
    #[inline]
    #[must_use]
    pub fn cell(&self) -> Cell<'_> {
        match self.block.rows() {
            Some((_, bytes)) => self.entry.cell(bytes),
            None => Cell::Delete {
                version: self.entry.meta.version,
            },
        }
    }
}

/// What memory alone can say of a row.
pub enum CachedLookup {
    /// Here it is.
    Found(Found),
    /// The table does not have it.
    Absent,
    /// A block that is needed is not in memory: use [`Table::get`].
    NeedsDisk,
}

/// The blocks of a part, as the top block names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub filter: BlockHandle,
    pub index: BlockHandle,
}

impl<E: Env> Table<E> {
    /// Opens a table, normally by one read of its end, and checks it against what the manifest
    /// knows: its length and its footer's checksum (`None` to take the file's word for both).
    ///
    /// # Errors
    /// `Corrupt` if the file is not that table, undamaged; `WrongFormat` if another version wrote
    /// it; or of the disk.
    pub async fn open(
        context: &TableContext<E>,
        path: &Path,
        id: u64,
        expected: Option<(u64, u64)>,
    ) -> Result<Self> {
        let file = context.env.disk().open(path, FileClass::Table).await?;
        let corrupt = |offset, what: &str| EngineError::corrupt(path, offset, what);
        let bytes = file.len().await?;
        if bytes < SECTOR as u64 || !bytes.is_multiple_of(SECTOR as u64) {
            return Err(corrupt(bytes, "the file's length is not one of a table"));
        }
        if expected.is_some_and(|(len, _)| len != bytes) {
            return Err(corrupt(bytes, "the file's length is not what was written"));
        }
        let mut start = bytes - bytes.min(TAIL_READ_BYTES);
        let mut tail = read(context, &file, path, start, (bytes - start) as usize).await?;
        let trailer_at = bytes - TRAILER_BYTES as u64;
        let trailer = Trailer::decode(&tail, path, trailer_at)?;
        let sane = trailer.table == id
            && trailer.tail_offset <= trailer.footer.offset
            && trailer.footer.end() <= trailer_at
            && bytes - trailer.tail_offset <= frame::RAW_BYTES_MAX as u64 * 3;
        if !sane {
            return Err(corrupt(trailer_at, "the trailer is another table's"));
        }
        if trailer.tail_offset < start {
            start = trailer.tail_offset / SECTOR as u64 * SECTOR as u64;
            tail = read(context, &file, path, start, (bytes - start) as usize).await?;
        }
        let part = |handle: BlockHandle, kind: BlockKind| {
            let stored = slice(&tail, start, handle).filter(|_| handle.end() <= trailer_at);
            let stored =
                stored.ok_or_else(|| corrupt(handle.offset, "a block lies outside the file"))?;
            frame::open(kind, stored, id, handle.offset)
                .map_err(|what| corrupt(handle.offset, what))
        };
        let (raw, checksum) = part(trailer.footer, BlockKind::Footer)?;
        let offset = trailer.footer.offset;
        let vouched = expected.is_none_or(|(_, expected)| expected == checksum);
        if checksum != trailer.footer_checksum || !vouched {
            return Err(corrupt(
                offset,
                "the footer is not the one that was written",
            ));
        }
        let mut footer = Footer::decode(&raw).map_err(|what| corrupt(offset, what))?;
        if footer.info.id != id {
            return Err(corrupt(offset, "the footer is another table's"));
        }
        footer.info.bytes = bytes;
        footer.info.footer_checksum = checksum;
        let top = match footer.top() {
            Some(handle) => {
                let (raw, _) = part(handle, BlockKind::Top)?;
                let block = Block::parse(BlockKind::Top, raw);
                Some(Rc::new(block.map_err(|what| corrupt(handle.offset, what))?))
            }
            None => None,
        };
        let mut range_deletes = RangeDeletes::new();
        if let Some(handle) = footer.range_deletes() {
            let (raw, _) = part(handle, BlockKind::RangeDeletes)?;
            parse_range_deletes(&raw, &mut range_deletes)
                .ok_or_else(|| corrupt(handle.offset, "the range deletes are cut short"))?;
        }
        drop(tail);
        Ok(Self {
            context: context.clone(),
            file,
            path: path.to_path_buf(),
            footer,
            top,
            range_deletes,
            blocks_end: trailer.tail_offset,
        })
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.footer.info.id
    }

    /// What is known of it.
    #[must_use]
    pub fn info(&self) -> &TableInfo {
        &self.footer.info
    }

    /// Its footer.
    #[must_use]
    pub fn footer(&self) -> &Footer {
        &self.footer
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its range deletes.
    #[must_use]
    pub fn range_deletes(&self) -> &RangeDeletes {
        &self.range_deletes
    }

    /// Memory that it holds while it is open, beside what is in the cache, in bytes.
    #[must_use]
    pub fn pinned_bytes(&self) -> usize {
        let info = &self.footer.info;
        size_of::<Self>()
            + info.smallest.capacity()
            + info.largest.capacity()
            + self.path.capacity()
            + self.top.as_ref().map_or(0, |top| top.memory_bytes())
            + self.range_deletes.memory_bytes()
    }

    /// The newest cell of a row with a version of at most `at_version`, from memory alone. Looks at
    /// no range delete. A damaged block is left to [`Table::get`] to report.
    #[inline]
    #[must_use]
    pub fn get_cached(&self, row_key: &[u8], at_version: u64) -> CachedLookup {
        let Some(top) = &self.top else {
            return CachedLookup::Absent;
        };
        let part = match find_part(top, row_key, at_version) {
            Ok(Some(part)) => part,
            Ok(None) => return CachedLookup::Absent,
            Err(_) => return CachedLookup::NeedsDisk,
        };
        let cache = &self.context.cache;
        let Some(filter) = cache.get(self.id(), part.filter.offset) else {
            return CachedLookup::NeedsDisk;
        };
        let counters = &self.context.counters;
        count(&counters.filter_probes, 1);
        if !filter.may_contain(filter::hash(row_key)) {
            count(&counters.filter_negatives, 1);
            return CachedLookup::Absent;
        }
        let Some(index) = cache.get(self.id(), part.index.offset) else {
            return CachedLookup::NeedsDisk;
        };
        let handle = match find_block(&index, row_key, at_version) {
            Ok(Some(handle)) => handle,
            Ok(None) => return CachedLookup::Absent,
            Err(_) => return CachedLookup::NeedsDisk,
        };
        let Some(data) = cache.get(self.id(), handle.offset) else {
            return CachedLookup::NeedsDisk;
        };
        match self.find_row(data, row_key, at_version) {
            Ok(Some(found)) => CachedLookup::Found(found),
            Ok(None) => CachedLookup::Absent,
            Err(_) => CachedLookup::NeedsDisk,
        }
    }

    /// The newest cell of a row with a version of at most `at_version`. Looks at no range delete.
    ///
    /// # Errors
    /// `Corrupt` if a block is damaged, or of the disk.
    pub async fn get(&self, row_key: &[u8], at_version: u64) -> Result<Option<Found>> {
        let Some(top) = &self.top else {
            return Ok(None);
        };
        let top_offset = self.footer.top_offset;
        let part = find_part(top, row_key, at_version).map_err(|w| self.corrupt(top_offset, w))?;
        let Some(part) = part else {
            return Ok(None);
        };
        let filter = self.load_filter(&part).await?;
        let counters = &self.context.counters;
        count(&counters.filter_probes, 1);
        if !filter.may_contain(filter::hash(row_key)) {
            count(&counters.filter_negatives, 1);
            return Ok(None);
        }
        let index = self.load(part.index, BlockKind::Index).await?;
        let handle = find_block(&index, row_key, at_version)
            .map_err(|what| self.corrupt(part.index.offset, what))?;
        let Some(handle) = handle else {
            return Ok(None);
        };
        let data = self.load(handle, BlockKind::Data).await?;
        self.find_row(data, row_key, at_version)
            .map_err(|what| self.corrupt(handle.offset, what))
    }

    /// Reads every block of the table past the cache and checks it, sharing the core. For scrubbing.
    ///
    /// # Errors
    /// `Corrupt` at the first damaged block, or of the disk.
    pub async fn verify(&self) -> Result<()> {
        for (kind, handle) in self.blocks().await? {
            self.read_block(handle, kind).await?;
            self.context.env.yield_if_needed().await;
        }
        Ok(())
    }

    /// Where the table's data, filter and index blocks lie, in the order of its rows. Reads the index
    /// blocks, past the cache.
    ///
    /// # Errors
    /// `Corrupt` at the first damaged index block, or of the disk.
    pub async fn blocks(&self) -> Result<Vec<(BlockKind, BlockHandle)>> {
        let mut found = Vec::new();
        let Some(top) = &self.top else {
            return Ok(found);
        };
        let mut parts = super::block::BlockCursor::default();
        parts.enter(top.clone());
        let damaged = |offset| move |_| self.corrupt(offset, "a block contradicts itself");
        let mut more = parts
            .seek_first()
            .map_err(damaged(self.footer.top_offset))?;
        while more {
            let link = parts.entry().map(|(entry, bytes)| entry.value(bytes));
            let part = link
                .and_then(parse_part)
                .ok_or_else(|| self.corrupt(self.footer.top_offset, BAD_LINK))?;
            let index = self.read_block(part.index, BlockKind::Index).await?;
            let mut blocks = super::block::BlockCursor::default();
            blocks.enter(index);
            let mut more_blocks = blocks.seek_first().map_err(damaged(part.index.offset))?;
            while more_blocks {
                let link = blocks.entry().map(|(entry, bytes)| entry.value(bytes));
                let handle = link
                    .and_then(parse_link)
                    .ok_or_else(|| self.corrupt(part.index.offset, BAD_LINK))?;
                found.push((BlockKind::Data, handle));
                self.context.env.yield_if_needed().await;
                more_blocks = blocks.next().map_err(damaged(part.index.offset))?;
            }
            found.push((BlockKind::Filter, part.filter));
            found.push((BlockKind::Index, part.index));
            more = parts.next().map_err(damaged(self.footer.top_offset))?;
        }
        Ok(found)
    }

    pub(super) fn top(&self) -> Option<&Rc<Block>> {
        self.top.as_ref()
    }

    pub(super) fn corrupt(&self, offset: u64, what: &str) -> EngineError {
        EngineError::corrupt(&self.path, offset, what)
    }

    /// Whether a handle names a place where blocks can be.
    pub(super) fn check(&self, handle: BlockHandle) -> Result<()> {
        let sane = handle.end() <= self.blocks_end
            && handle.len as usize > FRAME_TAIL_BYTES
            && handle.len as usize <= frame::RAW_BYTES_MAX + FRAME_TAIL_BYTES;
        match sane {
            true => Ok(()),
            false => Err(self.corrupt(handle.offset, "an index names a block outside the table")),
        }
    }

    /// A block from the cache or the device.
    pub(super) async fn load(&self, handle: BlockHandle, kind: BlockKind) -> Result<Rc<Block>> {
        if let Some(block) = self.context.cache.get(self.id(), handle.offset) {
            return Ok(block);
        }
        let block = self.read_block(handle, kind).await?;
        self.keep(handle, kind, &block);
        Ok(block)
    }

    /// A filter from the cache, or from the device, then with the index block beside it.
    async fn load_filter(&self, part: &Part) -> Result<Rc<Block>> {
        if let Some(block) = self.context.cache.get(self.id(), part.filter.offset) {
            return Ok(block);
        }
        let adjacent = part.filter.end() == part.index.offset;
        if !adjacent
            || self
                .context
                .cache
                .peek(self.id(), part.index.offset)
                .is_some()
        {
            let filter = self.read_block(part.filter, BlockKind::Filter).await?;
            self.keep(part.filter, BlockKind::Filter, &filter);
            return Ok(filter);
        }
        self.check(part.filter)?;
        self.check(part.index)?;
        let len = part.filter.len.saturating_add(part.index.len);
        let offset = part.filter.offset;
        let (start, bytes) = self.read_span(BlockHandle { offset, len }).await?;
        let filter = self.decode(part.filter, BlockKind::Filter, &bytes, start)?;
        let index = self.decode(part.index, BlockKind::Index, &bytes, start)?;
        self.keep(part.filter, BlockKind::Filter, &filter);
        self.keep(part.index, BlockKind::Index, &index);
        Ok(filter)
    }

    fn keep(&self, handle: BlockHandle, kind: BlockKind, block: &Rc<Block>) {
        let priority = match kind {
            BlockKind::Data => Priority::Data,
            _ => Priority::Meta,
        };
        let cache = &self.context.cache;
        cache.insert(self.id(), handle.offset, block.clone(), priority);
    }

    /// A block from the device, past the cache.
    pub(super) async fn read_block(
        &self,
        handle: BlockHandle,
        kind: BlockKind,
    ) -> Result<Rc<Block>> {
        self.check(handle)?;
        let (start, bytes) = self.read_span(handle).await?;
        self.decode(handle, kind, &bytes, start)
    }

    /// Reads the sectors that a checked span of the file touches; returns where they begin.
    async fn read_span(
        &self,
        span: BlockHandle,
    ) -> Result<(u64, <<E::Disk as Disk>::File as DiskFile>::ReadBuf)> {
        let start = span.offset / SECTOR as u64 * SECTOR as u64;
        let end = span.end().next_multiple_of(SECTOR as u64);
        let len = (end - start) as usize;
        let bytes = read(&self.context, &self.file, &self.path, start, len).await?;
        Ok((start, bytes))
    }

    /// Checks a block that lies in `bytes`, which begin at `start` in the file.
    pub(super) fn decode(
        &self,
        handle: BlockHandle,
        kind: BlockKind,
        bytes: &[u8],
        start: u64,
    ) -> Result<Rc<Block>> {
        let stored = slice(bytes, start, handle)
            .ok_or_else(|| self.corrupt(handle.offset, "the file ends before the block does"))?;
        frame::open(kind, stored, self.id(), handle.offset)
            .and_then(|(raw, _)| Block::parse(kind, raw))
            .map(Rc::new)
            .map_err(|what| self.corrupt(handle.offset, what))
    }

    #[inline]
    fn find_row(
        &self,
        block: Rc<Block>,
        row_key: &[u8],
        at_version: u64,
    ) -> Result<Option<Found>, &'static str> {
        let (rows, bytes) = block.rows().ok_or(BAD_BLOCK)?;
        let bound = rows.lower_bound(bytes, row_key, at_version);
        match bound.ok_or(BAD_BLOCK)? {
            Bound::At {
                entry,
                same_key: true,
                ..
            } => Ok(Some(Found { block, entry })),
            _ => {
                count(&self.context.counters.filter_false_positives, 1);
                Ok(None)
            }
        }
    }
}

const BAD_BLOCK: &str = "a block contradicts itself";
const BAD_LINK: &str = "an index entry names no block";

/// Reads whole sectors and checks that all of them came.
async fn read<E: Env>(
    context: &TableContext<E>,
    file: &<E::Disk as Disk>::File,
    path: &Path,
    start: u64,
    len: usize,
) -> Result<<<E::Disk as Disk>::File as DiskFile>::ReadBuf> {
    count(&context.counters.device_reads, 1);
    count(&context.counters.device_read_bytes, len as u64);
    let bytes = file.read_at(start, len).await?;
    if bytes.len() < len {
        let at = start + bytes.len() as u64;
        return Err(EngineError::corrupt(path, at, "the file is cut short"));
    }
    Ok(bytes)
}

/// The block's bytes in a buffer that begins at `start` in the file.
fn slice(bytes: &[u8], start: u64, handle: BlockHandle) -> Option<&[u8]> {
    let at = usize::try_from(handle.offset.checked_sub(start)?).ok()?;
    bytes.get(at..at.checked_add(handle.len as usize)?)
}

#[inline]
fn find_part(top: &Block, row_key: &[u8], version: u64) -> Result<Option<Part>, &'static str> {
    match find_link(top, row_key, version)? {
        Some(link) => parse_part(link).map(Some).ok_or(BAD_LINK),
        None => Ok(None),
    }
}

#[inline]
fn find_block(
    index: &Block,
    row_key: &[u8],
    version: u64,
) -> Result<Option<BlockHandle>, &'static str> {
    match find_link(index, row_key, version)? {
        Some(link) => parse_link(link).map(Some).ok_or(BAD_LINK),
        None => Ok(None),
    }
}

/// The value of the first index entry at or behind a key.
#[inline]
fn find_link<'b>(
    block: &'b Block,
    row_key: &[u8],
    version: u64,
) -> Result<Option<&'b [u8]>, &'static str> {
    let (rows, bytes) = block.rows().ok_or(BAD_BLOCK)?;
    match rows.lower_bound(bytes, row_key, version).ok_or(BAD_BLOCK)? {
        Bound::At { entry, .. } => Ok(Some(entry.value(bytes))),
        Bound::End => Ok(None),
    }
}

#[inline]
fn parse_handle(link: &[u8], at: &mut usize) -> Option<BlockHandle> {
    Some(BlockHandle {
        offset: varint::get(link, at)?,
        len: u32::try_from(varint::get(link, at)?).ok()?,
    })
}

/// Reads the value of an index entry.
#[inline]
pub(super) fn parse_link(link: &[u8]) -> Option<BlockHandle> {
    parse_handle(link, &mut 0)
}

/// Reads the value of an entry of the top block.
#[inline]
pub(super) fn parse_part(link: &[u8]) -> Option<Part> {
    let mut at = 0;
    Some(Part {
        filter: parse_handle(link, &mut at)?,
        index: parse_handle(link, &mut at)?,
    })
}

pub(super) fn parse_range_deletes(raw: &[u8], into: &mut RangeDeletes) -> Option<()> {
    let mut at = 0;
    let bound = |at: &mut usize| {
        let len = varint::get_len(raw, at)?;
        let bytes = raw.get(*at..at.checked_add(len)?)?;
        *at += len;
        Some(bytes)
    };
    for _ in 0..varint::get(raw, &mut at)? {
        let version = varint::get(raw, &mut at)?;
        let from = bound(&mut at)?;
        let to = bound(&mut at)?;
        into.insert(from, to, version);
    }
    (at == raw.len()).then_some(())
}
