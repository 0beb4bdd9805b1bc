//! Rows in order, into tables of the deepest level.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringbolt_engine::cache::BlockCache;
use ringbolt_engine::error::Result;
use ringbolt_engine::manifest::{LEVELS, TableRecord};
use ringbolt_engine::row::Cell;
use ringbolt_engine::table::{Builder, BuilderOptions, TableContext, TableInfo, Unthrottled};
use ringbolt_engine::tree::{TreeOptions, table_path};

use crate::cli::offline::PlainEnv;

/// Writes one table after the other.
pub(super) struct Tables {
    context: TableContext<PlainEnv>,
    folder: PathBuf,
    options: TreeOptions,
    open: Option<Builder<PlainEnv>>,
    written: Vec<TableRecord>,
}

impl Tables {
    pub(super) fn new(env: PlainEnv, folder: &Path, options: &TreeOptions) -> Self {
        Self {
            // Nothing is read through it.
            context: TableContext::new(env, Rc::new(BlockCache::new(0))),
            folder: folder.to_path_buf(),
            options: options.clone(),
            open: None,
            written: Vec::new(),
        }
    }

    /// Adds a row; rows come in order.
    pub(super) async fn add(&mut self, row_key: &[u8], cell: &Cell<'_>) -> Result<()> {
        let mut table = match self.open.take() {
            Some(table) => table,
            None => self.create().await?,
        };
        table.add(row_key, cell)?;
        if table.wants_write() {
            table.write().await?;
        }
        if table.estimated_bytes() >= self.options.table_bytes {
            self.written.push(record(table.finish().await?));
        } else {
            self.open = Some(table);
        }
        Ok(())
    }

    /// Ends the last table, and says what was written.
    pub(super) async fn finish(mut self) -> Result<Vec<TableRecord>> {
        if let Some(table) = self.open.take() {
            self.written.push(record(table.finish().await?));
        }
        Ok(self.written)
    }

    async fn create(&self) -> Result<Builder<PlainEnv>> {
        let id = self.written.len() as u64 + 1;
        let options = BuilderOptions {
            block_bytes: self.options.block_bytes,
            compression: self.options.compression_deepest,
            bits_per_key: self.options.bloom_bits_deepest,
            warm_cache: false,
        };
        let path = table_path(&self.folder, id);
        Builder::create(&self.context, &path, id, options, Rc::new(Unthrottled)).await
    }
}

/// A table as the manifest knows it.
fn record(info: TableInfo) -> TableRecord {
    TableRecord {
        id: info.id,
        level: (LEVELS - 1) as u8,
        run: 0,
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
        smallest: info.smallest,
        largest: info.largest,
        largest_excluded: info.largest_excluded,
        footer_checksum: info.footer_checksum,
    }
}
