//! One new shard: its tables, its manifest and its log, written and read back.

use std::hash::{DefaultHasher, Hasher as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringbolt_engine::engine::{Engine, EngineOptions};
use ringbolt_engine::entry::{LogId, PartitionId};
use ringbolt_engine::env::{Disk as _, Env as _};
use ringbolt_engine::error::EngineError;
use ringbolt_engine::log::{AppendError, Log, RecordRef, RecoveredReplica, Recovery};
use ringbolt_engine::manifest::{Edit, FlushedRecord, Manifest};
use ringbolt_engine::row::{Cell, ReadAt, RowMeta, partition_range};
use ringbolt_engine::tree::Tree;

use super::tables::Tables;
use crate::cli::failure::Failure;
use crate::cli::offline::PlainEnv;

/// Pause while the log has no room for a record.
const PAUSE: Duration = Duration::from_millis(1);

/// What partitions hold, in short: two that differ have another sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sum {
    rows: u64,
    bytes: u64,
    hash: u64,
}

/// What was written.
pub(super) struct Written {
    pub(super) rows: u64,
    /// Of keys and values.
    pub(super) bytes: u64,
}

/// A shard that is being written.
pub(super) struct NewShard {
    env: PlainEnv,
    folder: PathBuf,
    options: EngineOptions,
    tables: Tables,
    /// Empty until all tables are there.
    manifest: Manifest<PlainEnv>,
    flushed: Vec<FlushedRecord>,
    replicas: Vec<RecoveredReplica>,
    sums: Vec<(PartitionId, Sum)>,
}

impl NewShard {
    /// Begins a shard in a folder that does not exist.
    pub(super) async fn create(
        env: PlainEnv,
        folder: &Path,
        options: EngineOptions,
    ) -> Result<Self, Failure> {
        let tables = folder.join("tables");
        env.disk()
            .create_dir_all(&tables)
            .await
            .map_err(EngineError::from)?;
        // Tables without a manifest would be taken for damage.
        let manifest = Manifest::open(&env, &tables, options.tree.manifest_bytes).await?;
        Ok(Self {
            manifest,
            tables: Tables::new(env.clone(), &tables, &options.tree),
            env,
            folder: folder.to_path_buf(),
            options,
            flushed: Vec::new(),
            replicas: Vec::new(),
            sums: Vec::new(),
        })
    }

    /// Takes a partition over from an old shard. Partitions come in ascending order.
    pub(super) async fn take(
        &mut self,
        old: &Engine<PlainEnv>,
        partition: PartitionId,
        replica: Option<&RecoveredReplica>,
    ) -> Result<(), Failure> {
        // Without a replica nothing was ever written to it.
        let Some(replica) = replica else {
            return Ok(());
        };
        let applied = old.tree().applied(partition);
        if applied.id.index != replica.last.index {
            return Err(Failure::usage(format!(
                "partition {partition} has entries up to {}, of which only those up to {} are \
                 committed: start the server once with the old number of cores, and stop it",
                replica.last.index, applied.id.index,
            )));
        }
        let tables = &mut self.tables;
        let mut sum = Summing::new();
        let (from, to) = partition_range(partition);
        let at = ReadAt::newest(applied.time_ms);
        let mut cursor = old.tree().cursor(&from, &to, false, at);
        while let Some((row_key, mut meta, value)) = cursor.next().await? {
            // A write that did not look has left open when its row came to be: settled here, since
            // the older versions that tell are not taken over.
            if meta.created_ms == 0 {
                let exact = old.tree().stat(row_key, at).await?;
                meta.created_ms = exact.map_or(meta.updated_ms, |exact| exact.created_ms);
            }
            sum.add(row_key, &meta, value);
            tables.add(row_key, &Cell::Put { meta, value }).await?;
        }
        self.sums.push((partition, sum.finish()));
        self.flushed.push(FlushedRecord {
            partition,
            term: applied.id.term,
            index: applied.id.index,
            time_ms: applied.time_ms,
        });
        self.replicas.push(replica.clone());
        Ok(())
    }

    /// Makes the shard durable, opens it, and compares what it holds with what was taken over.
    pub(super) async fn finish(self) -> Result<Written, Failure> {
        let Self {
            env,
            folder,
            options,
            tables,
            mut manifest,
            flushed,
            replicas,
            sums,
        } = self;
        let added = tables.finish().await?;
        sync_names(&env, &folder).await?;
        let edit = Edit {
            added,
            flushed,
            ..Edit::default()
        };
        manifest.append(&edit).await?;
        write_log(&env, &folder, &options, &replicas).await?;
        let (engine, found) = Engine::open(env.clone(), &folder, options).await?;
        let mut written = Written { rows: 0, bytes: 0 };
        for (partition, taken) in sums {
            let replica = replicas.iter().find(|r| r.partition == partition);
            let now = found.iter().find(|r| r.partition == partition);
            let same_state = match (replica, now) {
                (Some(old), Some(new)) => {
                    old.last == new.last && old.hard == new.hard && old.time_ms == new.time_ms
                }
                _ => false,
            };
            if !same_state || read_back(engine.tree(), partition).await? != taken {
                return Err(Failure::usage(format!(
                    "{}: partition {partition} does not read back as it was written; the old \
                     layout still counts, and is unharmed",
                    folder.display()
                )));
            }
            written.rows += taken.rows;
            written.bytes += taken.bytes;
        }
        engine.close().await?;
        Ok(written)
    }
}

/// Makes the tables' names durable, and those of the folders that they are in.
async fn sync_names(env: &PlainEnv, folder: &Path) -> Result<(), EngineError> {
    env.disk().sync_dir(&folder.join("tables")).await?;
    env.disk().sync_dir(folder).await?;
    if let Some(parent) = folder.parent() {
        env.disk().sync_dir(parent).await?;
    }
    Ok(())
}

/// A log that begins with each partition's hard state and the snapshot that the tables are.
async fn write_log(
    env: &PlainEnv,
    folder: &Path,
    options: &EngineOptions,
    replicas: &[RecoveredReplica],
) -> Result<(), Failure> {
    let nothing = |_| LogId::default();
    let log = folder.join("log");
    let recovery = Recovery::scan(
        env.clone(),
        &log,
        options.log.clone(),
        |_| true,
        |_| 0,
        &nothing,
    )
    .await?;
    let (log, _) = recovery.finish().await?;
    for replica in replicas {
        let partition = replica.partition;
        append(env, &log, || log.append_hard_state(partition, replica.hard)).await?;
        append(env, &log, || {
            log.append_snapshot(
                partition,
                replica.last,
                replica.time_ms,
                &replica.membership,
            )
        })
        .await?;
        log.set_commit(partition, replica.hard.commit);
    }
    log.close().await?;
    Ok(())
}

/// Appends a record, waiting for room if need be.
async fn append(
    env: &PlainEnv,
    log: &Log<PlainEnv>,
    mut record: impl FnMut() -> Result<RecordRef, AppendError>,
) -> Result<(), Failure> {
    loop {
        match record() {
            Ok(_) => return Ok(()),
            Err(AppendError::Full) => {
                log.submit();
                while log.take_durable().is_some() {}
                env.sleep(PAUSE).await;
            }
            Err(error) => {
                return Err(match log.failure() {
                    Some(failure) => failure.into(),
                    None => Failure::usage(error),
                });
            }
        }
    }
}

async fn read_back(tree: &Tree<PlainEnv>, partition: PartitionId) -> Result<Sum, EngineError> {
    let mut sum = Summing::new();
    let (from, to) = partition_range(partition);
    let at = ReadAt::newest(tree.applied(partition).time_ms);
    let mut cursor = tree.cursor(&from, &to, false, at);
    while let Some((row_key, meta, value)) = cursor.next().await? {
        sum.add(row_key, &meta, value);
    }
    Ok(sum.finish())
}

/// A [`Sum`] in the making.
struct Summing {
    rows: u64,
    bytes: u64,
    hasher: DefaultHasher,
}

impl Summing {
    fn new() -> Self {
        Self {
            rows: 0,
            bytes: 0,
            hasher: DefaultHasher::new(),
        }
    }

    fn add(&mut self, row_key: &[u8], meta: &RowMeta, value: &[u8]) {
        self.rows += 1;
        self.bytes += (row_key.len() + value.len()) as u64;
        self.hasher.write_usize(row_key.len());
        self.hasher.write(row_key);
        for number in [
            meta.version,
            meta.updated_ms,
            meta.created_ms,
            meta.expires_ms,
        ] {
            self.hasher.write_u64(number);
        }
        self.hasher.write_usize(value.len());
        self.hasher.write(value);
    }

    fn finish(self) -> Sum {
        Sum {
            rows: self.rows,
            bytes: self.bytes,
            hash: self.hasher.finish(),
        }
    }
}
