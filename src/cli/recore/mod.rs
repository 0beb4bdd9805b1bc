//! `ringbolt recore`: lays a data folder out for another number of cores.
//!
//! A partition lives in the log and the tree of exactly one core. For another number of cores each
//! one moves, as it would to another node: the rows that are live go into new tables, and the new
//! log begins with the partition's hard state and a snapshot record that names its last entry.
//!
//! 1. The folder is locked, so that no server uses it.
//! 2. The old shards are opened, which replays their logs. Their data stays as it is.
//! 3. The new shards are written beside them, in the folders of the next layout, and synced.
//! 4. Each new shard is opened and read back; what it holds must be what was written.
//! 5. The file FORMAT is replaced: from here on the new layout counts.
//! 6. The old shards are removed.
//!
//! Cut short before 5, the old layout counts and nothing has happened to it; after 5, the new one.
//! Either way the next `recore` removes what is left over.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use ringbolt_engine::engine::{Engine, EngineOptions};
use ringbolt_engine::error::EngineError;
use ringbolt_engine::log::RecoveredReplica;
use ringbolt_wire::message::KEYSPACE_SYSTEM;

use super::args::SettingsArgs;
use super::failure::{Answer, Failure, Outcome};
use super::offline::{Access, PlainEnv};
use super::output::Out;
use crate::config::{Settings, about_bytes};
use crate::node::StartError;
use crate::node::format::DataDir;
use crate::shard::route::PartitionMap;
use shard::NewShard;

mod shard;
mod tables;
#[cfg(test)]
mod tests;

const EXAMPLES: &str = "\
Examples:
  A folder that was made on 2 CPUs, for a server with 8:
    ringbolt recore --data /var/lib/ringbolt --cores 8
    ringbolt server --data /var/lib/ringbolt --cores 8

The server must be stopped. The data is written anew beside the old, so there must be room for it;
then the folder switches over at once, and the old is removed. If it is interrupted, nothing has
happened: run it again.";

/// Lays a data folder out for another number of cores; the server must be stopped.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    settings: SettingsArgs,
}

/// What was moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moved {
    partitions: u16,
    rows: u64,
    bytes: u64,
}

/// A shard as it was.
struct OldShard {
    engine: Engine<PlainEnv>,
    replicas: Vec<RecoveredReplica>,
}

impl Args {
    pub(super) fn run(self, out: &mut Out) -> Outcome {
        let settings = self.settings.load()?.settings;
        if !settings.data.join("FORMAT").is_file() {
            return Err(Failure::usage(format!(
                "{} is no data folder: give the server's with --data",
                settings.data.display()
            )));
        }
        let foreign = || Err(StartError::Foreign(settings.data.clone()));
        let mut dir = DataDir::open(&settings.data, foreign).map_err(Failure::usage)?;
        let from = dir.format().cores;
        remove(&dir)?;
        if from == settings.cores {
            writeln!(
                out,
                "{} is laid out for {from} cores already",
                settings.data.display()
            )?;
            return Ok(Answer::Yes);
        }
        let moved = recore(&mut dir, &settings)?;
        remove(&dir)?;
        writeln!(
            out,
            "{} is laid out for {} cores now, before for {from}: {} partitions, {} rows, {}",
            settings.data.display(),
            settings.cores,
            moved.partitions,
            moved.rows,
            about_bytes(moved.bytes),
        )?;
        Ok(Answer::Yes)
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self::usage(error)
    }
}

/// Removes shards that do not count.
fn remove(dir: &DataDir) -> Result<(), Failure> {
    for path in dir.leftovers().map_err(Failure::usage)? {
        std::fs::remove_dir_all(&path).map_err(|error| {
            Failure::usage(format!("cannot remove {}: {error}", path.display()))
        })?;
    }
    Ok(())
}

/// Lays the folder out for the number of cores of the settings, and switches over.
fn recore(dir: &mut DataDir, settings: &Settings) -> Result<Moved, Failure> {
    let format = dir.format().clone();
    if settings.cores > format.partitions {
        return Err(Failure::usage(StartError::TooManyCores {
            cores: settings.cores,
            partitions: format.partitions,
        }));
    }
    has_room(dir, settings)?;
    let env = PlainEnv::new(Access::Write);
    let moved = env.block_on(async {
        let map = |cores| PartitionMap::spread(settings.name.clone(), format.partitions, cores);
        let (old_map, new_map) = (map(format.cores), map(settings.cores));
        let progress = progress_bar(format.partitions);
        let mut old = Vec::new();
        for core in 0..format.cores {
            let options = options(settings, format.cores);
            let (engine, replicas) = Engine::open(env.clone(), &dir.shard(core), options).await?;
            old.push(OldShard { engine, replicas });
        }
        let mut moved = Moved {
            partitions: 0,
            rows: 0,
            bytes: 0,
        };
        for core in 0..settings.cores {
            let path = dir.shard_in(format.layout + 1, core);
            let options = options(settings, settings.cores);
            let mut new = NewShard::create(env.clone(), &path, options).await?;
            for partition in new_map.owned_by(core) {
                if let Some(shard) = old.get(usize::from(old_map.core_of(partition))) {
                    let replica = shard.replicas.iter().find(|r| r.partition == partition);
                    new.take(&shard.engine, partition, replica).await?;
                }
                progress.inc(1);
                moved.partitions += 1;
            }
            let written = new.finish().await?;
            moved.rows += written.rows;
            moved.bytes += written.bytes;
        }
        for shard in old {
            shard.engine.close().await?;
        }
        progress.finish_and_clear();
        Ok::<_, Failure>(moved)
    })?;
    dir.switch(settings.cores).map_err(Failure::usage)?;
    Ok(moved)
}

/// How engines are opened: with the memory that each core of this layout has.
fn options(settings: &Settings, cores: u16) -> EngineOptions {
    let mut options = EngineOptions {
        commits_alone: crate::replica::commits_alone,
        membership_index: crate::replica::membership_index,
        ..EngineOptions::default()
    };
    options.tree.memory_bytes = settings.memory / u64::from(cores.max(1)) / 2;
    options.tree.own_keyspace = Some(KEYSPACE_SYSTEM);
    options.log.segment_bytes = settings.log.segment_bytes;
    // It is filled for the server's first start, which can do that itself.
    options.log.first_fill_bytes = 1 << 20;
    options
}

/// Refuses to begin what would end in a full disk.
fn has_room(dir: &DataDir, settings: &Settings) -> Result<(), Failure> {
    let mut bytes = 0;
    for core in 0..dir.format().cores {
        bytes += bytes_below(&dir.shard(core));
    }
    let need = bytes + settings.disk.reserve_bytes;
    let free = crate::runtime::probe::free_bytes(dir.path()).map_err(Failure::usage)?;
    match free > need {
        true => Ok(()),
        false => Err(Failure::usage(format!(
            "{}: the new layout may need {} and {} are free: free some space, or lower \
             disk.reserve_bytes",
            dir.path().display(),
            about_bytes(need),
            about_bytes(free),
        ))),
    }
}

/// Length of all files below a folder, in bytes; what cannot be read counts nothing.
fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let bytes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    bytes.sum()
}

fn progress_bar(partitions: u16) -> ProgressBar {
    let bar = match std::io::stderr().is_terminal() {
        true => ProgressBar::new(u64::from(partitions)),
        false => ProgressBar::hidden(),
    };
    let style = ProgressStyle::with_template("moving partitions {wide_bar} {pos} of {len}");
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
