//! Opening a tree: manifest, tables, and the removal of what neither knows.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::cache::BlockCache;
use crate::compaction::bucket::Bucket;
use crate::env::{Disk, Env};
use crate::error::{EngineError, Result};
use crate::manifest::{Manifest, TableRecord};
use crate::row::RowKeyBuf;
use crate::table::{Table, TableContext};

use super::columns::Columns;
use super::memtables::Memtables;
use super::partitions::Positions;
use super::signal::{Gate, Signal};
use super::version::{Change, Obsolete, TableFile, Version};
use super::{Inner, Reader, Tables, TreeOptions, TreeStats, space};

const SUFFIX: &str = ".table";

/// The file of a table.
#[must_use]
pub fn table_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:010}{SUFFIX}"))
}

/// The number of a table, if `path` is named like one.
#[must_use]
pub fn table_id(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(SUFFIX)?.parse().ok()
}

/// Tables in one sorted run must have no row key in common.
fn check_disjoint<E: Env>(version: &Tables<E>, dir: &Path) -> Result<()> {
    for run in version.runs() {
        for pair in run.tables.windows(2) {
            if let [a, b] = pair
                && a.record.overlaps(&b.record)
            {
                let what = format!("it overlaps table {}", b.record.id);
                let path = table_path(dir, a.record.id);
                return Err(EngineError::corrupt(&path, 0, what));
            }
        }
    }
    Ok(())
}

/// Opens the file of a table that the manifest knows.
pub(crate) async fn open_table<E: Env>(
    context: &TableContext<E>,
    dir: &Path,
    record: &TableRecord,
    obsolete: &Obsolete,
) -> Result<TableFile<Reader<E>>> {
    let path = table_path(dir, record.id);
    let expected = Some((record.bytes, record.footer_checksum));
    let reader = Table::open(context, &path, record.id, expected).await?;
    Ok(TableFile::new(record.clone(), Rc::new(reader), obsolete))
}

pub(super) async fn open<E: Env>(env: E, dir: &Path, options: TreeOptions) -> Result<Rc<Inner<E>>> {
    env.disk().create_dir_all(dir).await?;
    if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
        env.disk().sync_dir(parent).await?;
    }
    space::clear(&env, dir).await?;
    let manifest = Manifest::open(&env, dir, options.manifest_bytes).await?;
    let state = manifest.state();
    let pending = state.pending.values().flatten();
    let staged = pending.flat_map(|r| r.tables.iter().map(|table| table.id));
    let known: BTreeSet<u64> = state.tables.keys().copied().chain(staged).collect();
    let mut id_max = known.last().copied().unwrap_or(0);
    for path in env.disk().list(dir).await? {
        let Some(id) = table_id(&path) else { continue };
        id_max = id_max.max(id);
        if !known.contains(&id) {
            env.disk().remove(&path).await?;
        }
    }
    let cache = usize::try_from(options.memory_bytes).unwrap_or(usize::MAX);
    let context = TableContext::new(env.clone(), Rc::new(BlockCache::new(cache)));
    let obsolete = Obsolete::default();
    let mut change = Change::default();
    let mut run_max = 0;
    for record in state.tables.values() {
        run_max = run_max.max(record.run);
        let table = open_table(&context, dir, record, &obsolete).await?;
        change.added.push(match state.hidden.get(&record.id) {
            Some(partitions) => Rc::new(table.hiding(partitions)),
            None => Rc::new(table),
        });
        env.yield_if_needed().await;
    }
    let version = Version::empty().changed(&change);
    check_disjoint::<E>(&version, dir)?;
    let flushed = Positions::from_map(&state.flushed);
    let bucket = Bucket::new(&env, options.background_bytes_per_s);
    let inner = Inner {
        dir: dir.to_path_buf(),
        budget: Cell::new(options.memory_bytes),
        memtable_limit: Cell::new(0),
        memtables: RefCell::new(Memtables::new(options.own_keyspace)),
        options,
        context,
        version: RefCell::new(Rc::new(version)),
        applied: RefCell::new(flushed.clone()),
        flushed: RefCell::new(flushed),
        snapshots: Rc::default(),
        manifest: RefCell::new(Some(manifest)),
        gate: Rc::<Gate>::default(),
        next_table: Cell::new(id_max + 1),
        next_run: Cell::new(run_max + 1),
        columns: Columns::default(),
        obsolete,
        bucket,
        debt: Cell::default(),
        space: space::Space::default(),
        failure: RefCell::default(),
        flush_wanted: Cell::new(false),
        flush_wanted_at: Cell::new(env.now()),
        changed: Signal::default(),
        closing: Cell::new(false),
        tasks: Cell::new(0),
        stats: RefCell::new(TreeStats::default()),
        exchanges: RefCell::default(),
        on_flushed: RefCell::default(),
        scratch: RefCell::new(RowKeyBuf::new()),
        writers: RefCell::default(),
        env,
    };
    for (partition, _) in inner.flushed.borrow().iter() {
        inner.forget_results(partition);
    }
    inner.share_memory();
    inner.weigh();
    Ok(Rc::new(inner))
}
