//! Writes a table, front to back, in writes of 256 KiB.
//!
//! Cells are added in internal order without waiting; whenever [`Builder::wants_write`] says so the
//! caller awaits [`Builder::write`], so that memory stays bounded and the core is shared. A data
//! block is closed when the next row would take it over its size; its index entry needs that row's
//! key for the shortest separator. A part is closed when its index block is full or its filter has
//! enough rows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::block::{Block, BlockWriter, Content};
use super::footer::{Footer, TRAILER_BYTES, TableInfo, Trailer};
use super::frame::{self, BlockHandle, BlockKind, RAW_BYTES_MAX};
use super::throttle::Throttle;
use super::{TableContext, count, filter, varint};
use crate::cache::Priority;
use crate::compress::{Compression, Compressor};
use crate::entry::VALUE_BYTES_MAX;
use crate::env::{AlignedBuf, Disk, DiskFile, Env, FileClass, SECTOR};
use crate::error::{EngineError, Result};
use crate::planted::{self, Bug};
use crate::row::{Cell, ROW_KEY_BYTES_MAX, compare_internal};

/// Bytes of one write.
const WRITE_BYTES: usize = 256 << 10;
/// Raw size of an index block at which its part is closed.
pub const INDEX_BYTES: usize = 4096;
/// Rows of a filter at which its part is closed: building it takes about 0.3 ms.
pub const FILTER_ROWS: usize = 4096;

/// How a table is written.
#[derive(Debug, Clone)]
pub struct BuilderOptions {
    /// Raw size of a data block that is not exceeded, unless by a single row.
    pub block_bytes: usize,
    /// How blocks are compressed.
    pub compression: Compression,
    /// Filter bits for each row; 0 for no filter.
    pub bits_per_key: u32,
    /// Whether index and filter blocks, and the data blocks of hot rows ([`Builder::mark_hot`]), go
    /// straight into the cache.
    pub warm_cache: bool,
}

impl Default for BuilderOptions {
    fn default() -> Self {
        Self {
            block_bytes: 4096,
            compression: Compression::Lz4,
            bits_per_key: 10,
            warm_cache: true,
        }
    }
}

/// A table being written. Belongs to one core.
pub struct Builder<E: Env> {
    context: TableContext<E>,
    throttle: Rc<dyn Throttle>,
    options: BuilderOptions,
    path: PathBuf,
    file: <E::Disk as Disk>::File,
    id: u64,
    data: BlockWriter,
    /// Whether a row of the open data block is hot.
    data_hot: bool,
    index: BlockWriter,
    top: BlockWriter,
    hashes: Vec<u64>,
    compressor: Compressor,
    /// Index and filter blocks hardly shrink and are read often: they stay raw.
    no_compressor: Compressor,
    last_key: Vec<u8>,
    last_version: u64,
    range_deletes: BTreeMap<(Vec<u8>, u64), Vec<u8>>,
    range_delete_bytes: usize,
    /// The greatest end of a range delete.
    range_end: Vec<u8>,
    /// Bytes sealed but not written, and where in the file they begin.
    pending: Vec<u8>,
    written: u64,
    buffer: Option<AlignedBuf>,
    footer: Footer,
    expiry_latest: u64,
    finished: bool,
}

impl<E: Env> Builder<E> {
    /// Creates the file `path` for the table `id`, which has never been another table's.
    ///
    /// # Errors
    /// If the file is there, or cannot be created.
    pub async fn create(
        context: &TableContext<E>,
        path: &Path,
        id: u64,
        options: BuilderOptions,
        throttle: Rc<dyn Throttle>,
    ) -> Result<Self> {
        let file = context.env.disk().create(path, FileClass::Table).await?;
        let compressor = Compressor::new(options.compression);
        let mut footer = Footer::default();
        footer.info.id = id;
        footer.info.version_min = u64::MAX;
        Ok(Self {
            context: context.clone(),
            throttle,
            options,
            path: path.to_path_buf(),
            file,
            id,
            data: BlockWriter::data(),
            data_hot: false,
            index: BlockWriter::index(),
            top: BlockWriter::index(),
            hashes: Vec::new(),
            compressor,
            no_compressor: Compressor::new(Compression::None),
            last_key: Vec::new(),
            last_version: 0,
            range_deletes: BTreeMap::new(),
            range_delete_bytes: 0,
            range_end: Vec::new(),
            pending: Vec::new(),
            written: 0,
            buffer: None,
            footer,
            expiry_latest: 0,
            finished: false,
        })
    }

    /// Adds a cell, which comes after the one before in internal order.
    ///
    /// # Errors
    /// `Invalid` if a key or value is over its limit; `Corrupt` if the order is not kept: what the
    /// cells come from must be damaged.
    pub fn add(&mut self, row_key: &[u8], cell: &Cell<'_>) -> Result<()> {
        let version = cell.version();
        let value_len = match cell {
            Cell::Put { value, .. } => value.len(),
            Cell::Delete { .. } => 0,
        };
        if row_key.len() > ROW_KEY_BYTES_MAX || value_len > VALUE_BYTES_MAX {
            return Err(EngineError::Invalid(format!(
                "a row with a key of {} and a value of {value_len} bytes",
                row_key.len()
            )));
        }
        let first = self.footer.info.entries == 0;
        let last = (&*self.last_key, self.last_version);
        if !first && compare_internal(last, (row_key, version)).is_ge() {
            let what = "the rows to be written are not in order";
            return Err(EngineError::corrupt(&self.path, self.offset(), what));
        }
        if !self.data.is_empty()
            && self.data.raw_bytes_with(row_key, value_len) > self.options.block_bytes
        {
            self.close_data(Some(row_key))?;
        }
        // A row that goes on behind the end of a part is in both parts' filters.
        if self.options.bits_per_key > 0 && (self.hashes.is_empty() || self.last_key != row_key) {
            self.hashes.push(filter::hash(row_key));
        }
        self.data.add(
            row_key,
            match cell {
                Cell::Put { meta, value } => Content::Put(*meta, value),
                Cell::Delete { version } => Content::Delete(*version),
            },
        );
        if first {
            self.footer.info.smallest = row_key.to_vec();
        }
        self.last_key.clear();
        self.last_key.extend_from_slice(row_key);
        self.last_version = version;
        self.tally(cell, row_key.len() + value_len);
        Ok(())
    }

    fn tally(&mut self, cell: &Cell<'_>, raw_bytes: usize) {
        let info = &mut self.footer.info;
        info.entries += 1;
        info.raw_bytes += raw_bytes as u64;
        info.version_min = info.version_min.min(cell.version());
        info.version_max = info.version_max.max(cell.version());
        match cell {
            Cell::Delete { .. } => info.tombstones += 1,
            Cell::Put { meta, .. } if meta.expires_ms != 0 => {
                info.expiring += 1;
                if info.expiry_min_ms == 0 || meta.expires_ms < info.expiry_min_ms {
                    info.expiry_min_ms = meta.expires_ms;
                }
                self.expiry_latest = self.expiry_latest.max(meta.expires_ms);
            }
            Cell::Put { .. } => {}
        }
    }

    /// Says that the row just added is often read: its block goes into the cache.
    pub fn mark_hot(&mut self) {
        self.data_hot = true;
    }

    /// Adds a range delete, in any order, at any time. An empty range is ignored.
    ///
    /// # Errors
    /// `Invalid` if a bound is longer than a row key or there are more than a table holds (32 MiB).
    pub fn add_range_delete(&mut self, from: &[u8], to: &[u8], version: u64) -> Result<()> {
        if from >= to {
            return Ok(());
        }
        let more = from.len() + to.len() + 32;
        if from.len() > ROW_KEY_BYTES_MAX
            || to.len() > ROW_KEY_BYTES_MAX + 1
            || self.range_delete_bytes + more > RAW_BYTES_MAX
        {
            let what = "more range deletes than a table holds";
            return Err(EngineError::Invalid(what.into()));
        }
        self.range_delete_bytes += more;
        let info = &mut self.footer.info;
        info.version_min = info.version_min.min(version);
        info.version_max = info.version_max.max(version);
        if to > &*self.range_end {
            self.range_end = to.to_vec();
        }
        let end = self
            .range_deletes
            .entry((from.to_vec(), version))
            .or_default();
        if to > &**end {
            *end = to.to_vec();
        }
        Ok(())
    }

    /// Whether enough is pending for [`Builder::write`].
    #[inline]
    #[must_use]
    pub fn wants_write(&self) -> bool {
        self.pending.len() >= WRITE_BYTES
    }

    /// Writes what fills whole writes, and yields if the slice is used up.
    ///
    /// # Errors
    /// Of the disk. Then the table must be given up.
    pub async fn write(&mut self) -> Result<()> {
        while self.pending.len() >= WRITE_BYTES {
            self.write_some(WRITE_BYTES).await?;
            self.context.env.yield_if_needed().await;
        }
        Ok(())
    }

    /// About how long the file would be if it were finished now, in bytes.
    #[must_use]
    pub fn estimated_bytes(&self) -> u64 {
        let open = self.data.raw_bytes() + self.index.raw_bytes() + self.top.raw_bytes();
        self.offset() + (open + self.range_delete_bytes) as u64
    }

    /// Cells added.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.footer.info.entries
    }

    /// Whether there is neither a cell nor a range delete.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.footer.info.entries == 0 && self.range_deletes.is_empty()
    }

    /// Memory it holds, in bytes, about.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.pending.capacity()
            + self.data.raw_bytes()
            + self.index.raw_bytes()
            + self.top.raw_bytes()
            + self.hashes.capacity() * 8
            + self.range_delete_bytes
            + self.buffer.as_ref().map_or(0, |buffer| buffer.len())
    }

    /// Writes the rest and syncs the file. The directory is the caller's to sync.
    ///
    /// # Errors
    /// Of the disk. Then the table must be given up.
    pub async fn finish(mut self) -> Result<TableInfo> {
        self.close_data(None)?;
        let tail_offset = self.offset();
        self.seal_range_deletes()?;
        if !self.top.is_empty() {
            let raw = std::mem::replace(&mut self.top, BlockWriter::index()).into_raw();
            let handle = self.seal(BlockKind::Top, &raw, false)?;
            (self.footer.top_offset, self.footer.top_len) = (handle.offset, handle.len);
        }
        self.describe();
        let raw = self.footer.encode()?;
        let offset = self.offset();
        let (len, footer_checksum) = frame::seal(
            BlockKind::Footer,
            &raw,
            &mut self.no_compressor,
            self.id,
            offset,
            &mut self.pending,
        );
        let trailer = Trailer {
            table: self.id,
            tail_offset,
            footer: BlockHandle { offset, len },
            footer_checksum,
        };
        let end = (self.pending.len() + TRAILER_BYTES).next_multiple_of(SECTOR);
        self.pending.resize(end - TRAILER_BYTES, 0);
        self.pending.extend_from_slice(&trailer.encode());
        while !self.pending.is_empty() {
            let len = self.pending.len().min(WRITE_BYTES);
            self.write_some(len).await?;
        }
        if !planted::is(Bug::TableNotSynced) {
            self.file.sync().await?;
        }
        self.finished = true;
        let mut info = std::mem::take(&mut self.footer.info);
        info.bytes = self.written;
        info.footer_checksum = footer_checksum;
        Ok(info)
    }

    /// Completes what the footer says of rows and range deletes.
    fn describe(&mut self) {
        let info = &mut self.footer.info;
        info.range_deletes = self.range_deletes.len() as u64;
        if info.entries > 0 && info.expiring == info.entries && info.range_deletes == 0 {
            info.expiry_max_ms = self.expiry_latest;
        }
        info.largest.clone_from(&self.last_key);
        if let Some(((from, _), _)) = self.range_deletes.first_key_value()
            && (info.entries == 0 || *from < info.smallest)
        {
            info.smallest.clone_from(from);
        }
        if self.range_end > info.largest {
            info.largest.clone_from(&self.range_end);
            info.largest_excluded = true;
        }
        if info.version_min > info.version_max {
            info.version_min = 0;
        }
    }

    fn offset(&self) -> u64 {
        self.written + self.pending.len() as u64
    }

    /// Seals a block behind what is pending, and puts it into the cache if it should be there.
    fn seal(&mut self, kind: BlockKind, raw: &[u8], cached: bool) -> Result<BlockHandle> {
        let offset = self.offset();
        let compressor = match kind {
            BlockKind::Data | BlockKind::RangeDeletes => &mut self.compressor,
            _ => &mut self.no_compressor,
        };
        let (len, _) = frame::seal(kind, raw, compressor, self.id, offset, &mut self.pending);
        if cached && self.options.warm_cache {
            let block = Block::parse(kind, raw.into())
                .map_err(|what| EngineError::corrupt(&self.path, offset, what))?;
            let priority = match kind {
                BlockKind::Data => Priority::Data,
                _ => Priority::Meta,
            };
            let cache = &self.context.cache;
            cache.insert(self.id, offset, Rc::new(block), priority);
        }
        Ok(BlockHandle { offset, len })
    }

    /// Closes the open data block; `next` is the row key behind it.
    fn close_data(&mut self, next: Option<&[u8]>) -> Result<()> {
        if !self.data.is_empty() {
            let mut data = std::mem::replace(&mut self.data, BlockWriter::data());
            let hot = std::mem::take(&mut self.data_hot);
            let sealed = self.seal(BlockKind::Data, data.finish(), hot);
            data.clear();
            self.data = data;
            let handle = sealed?;
            self.footer.data_blocks += 1;
            self.footer.data_bytes += u64::from(handle.len);
            let (key, version) = self.separator(next);
            let mut value = Vec::with_capacity(10);
            varint::put(handle.offset, &mut value);
            varint::put(u64::from(handle.len), &mut value);
            self.index.add(&key, Content::Link(version, &value));
            let full = self.index.raw_bytes() >= INDEX_BYTES || self.hashes.len() >= FILTER_ROWS;
            if full || next.is_none() {
                self.close_part(&key, version)?;
            }
        }
        Ok(())
    }

    /// The shortest internal key at or behind the last one and before `next`'s newest.
    fn separator(&self, next: Option<&[u8]>) -> (Vec<u8>, u64) {
        let last = &self.last_key;
        let Some(next) = next else {
            return (last.clone(), 0);
        };
        if next == last.as_slice() {
            return (last.clone(), self.last_version);
        }
        let shared = last.iter().zip(next).take_while(|(a, b)| a == b).count();
        // The first byte in which they differ, raised by one, if that stays below `next`: or else
        // with as much of `last` as it takes.
        for at in shared..last.len() {
            if last[at] < 0xff {
                let mut key = last[..=at].to_vec();
                key[at] += 1;
                if key.as_slice() < next && key.len() < last.len() {
                    return (key, 0);
                }
            }
        }
        (last.clone(), 0)
    }

    /// Closes the open part, whose internal keys end at (`key`, `version`).
    fn close_part(&mut self, key: &[u8], version: u64) -> Result<()> {
        let hashes = std::mem::take(&mut self.hashes);
        let mut handles = Vec::with_capacity(20);
        let raw = filter::build(&hashes, self.options.bits_per_key);
        let filter = self.seal(BlockKind::Filter, &raw, true)?;
        let mut index = std::mem::replace(&mut self.index, BlockWriter::index());
        let sealed = self.seal(BlockKind::Index, index.finish(), true);
        index.clear();
        self.index = index;
        let index = sealed?;
        self.hashes = hashes;
        self.hashes.clear();
        for number in [
            filter.offset,
            u64::from(filter.len),
            index.offset,
            u64::from(index.len),
        ] {
            varint::put(number, &mut handles);
        }
        self.top.add(key, Content::Link(version, &handles));
        self.footer.parts += 1;
        self.footer.filter_bytes += u64::from(filter.len);
        self.footer.index_bytes += u64::from(index.len);
        Ok(())
    }

    fn seal_range_deletes(&mut self) -> Result<()> {
        if self.range_deletes.is_empty() {
            return Ok(());
        }
        let mut raw = Vec::with_capacity(self.range_delete_bytes);
        varint::put(self.range_deletes.len() as u64, &mut raw);
        for ((from, version), to) in &self.range_deletes {
            varint::put(*version, &mut raw);
            for bound in [from, to] {
                varint::put(bound.len() as u64, &mut raw);
                raw.extend_from_slice(bound);
            }
        }
        let handle = self.seal(BlockKind::RangeDeletes, &raw, false)?;
        self.footer.range_deletes_offset = handle.offset;
        self.footer.range_deletes_len = handle.len;
        Ok(())
    }

    /// Writes the first `len` pending bytes, a multiple of a sector.
    async fn write_some(&mut self, len: usize) -> Result<()> {
        self.throttle.take(len as u64).await;
        let mut buffer = match self.buffer.take() {
            Some(buffer) if buffer.len() == len => buffer,
            _ => AlignedBuf::zeroed(len),
        };
        buffer.copy_from_slice(&self.pending[..len]);
        let (result, buffer) = self.file.write_at(self.written, buffer).await;
        self.buffer = Some(buffer);
        result?;
        self.pending.drain(..len);
        self.pending.shrink_to(4 * WRITE_BYTES);
        self.written += len as u64;
        count(&self.context.counters.written_bytes, len as u64);
        Ok(())
    }
}

impl<E: Env> Drop for Builder<E> {
    fn drop(&mut self) {
        if !self.finished {
            // What was put into the cache belongs to a table that will never be.
            self.context.cache.retire_table(self.id);
        }
    }
}
