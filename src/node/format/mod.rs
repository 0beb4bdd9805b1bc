//! The data folder: who owns it, which format it has, how it is laid out.
//!
//! ```text
//! DIR/LOCK         held (flock) by the process that uses the folder
//! DIR/FORMAT       this module's file: TOML, replaced by write, fsync, rename, fsync
//! DIR/CLUSTER      the cluster map as this node last knew it, replaced likewise
//! DIR/SEEN         the latest start of each other node that was seen, replaced likewise
//! DIR/lost-1/      what the folder held before its data was lost, and so on
//! DIR/shard-000/   the engine of core 0, and so on
//! DIR/shard-000.1/ the same in layout 1, after `ringbolt recore` has laid the folder out anew
//! ```
//!
//! Which layout counts stands in FORMAT alone: a new one is written beside the old one, and replacing
//! FORMAT switches over at once.
//!
//! FORMAT also says which node the folder is of: its name and peers from the first start on, its
//! cluster and number once it has formed or joined one. The map is written before FORMAT names its
//! cluster: a map without that counts for nothing.
//!
//! **Data that is lost** (damaged, rolled back, or outlived by a later life of the node) is never deleted:
//! FORMAT first says that it is lost, then all else is moved into a folder beside, and last a new
//! FORMAT takes the place of the old one: that of an empty folder of the same node, which knows which
//! cluster it was of. A crash in between is finished at the next start.

mod known;
mod lost;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use ringbolt_wire::message::NodeId;
use serde::{Deserialize, Serialize};

use super::StartError;

/// The version of the folder's layout that this code reads and writes.
pub const FORMAT_VERSION: u32 = 1;
const FORMAT_FILE: &str = "FORMAT";
const LOCK_FILE: &str = "LOCK";
const CLUSTER_FILE: &str = "CLUSTER";
const SEEN_FILE: &str = "SEEN";
/// How the folders begin that keep lost data, and how many there may be.
const LOST_PREFIX: &str = "lost-";
const LOST_MAX: u32 = 3;
const HEADING: &str = "# A Ringbolt data folder. Written by the server; do not edit.\n";

/// What the folder says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Format {
    /// The layout's version.
    pub version: u32,
    /// The folder's identity, 128 random bits in hexadecimal.
    pub id: String,
    /// How many shards there are.
    pub cores: u16,
    /// Which set of shard folders counts; each `ringbolt recore` adds one.
    #[serde(default)]
    pub layout: u32,
    /// How many partitions; fixed for ever.
    pub partitions: u16,
    /// How log writes are made durable, as chosen at the first start: `O_DSYNC` or `write+fdatasync`.
    pub durability: String,
    /// How often the folder has been started.
    pub boots: u64,
    /// Whether every shard has been opened: from then on one whose log is not there has lost it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub begun: bool,
    /// Why the data must not be used any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
    /// The cluster, 16 hexadecimal digits, that the data was of that was set aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejoins: Option<String>,
    /// The start that the other nodes are told of, if none of them has welcomed it yet
    /// ([`crate::cluster::ToldStart::encode`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<String>,
    /// Which node it is; a folder of before there were clusters learns it at its next start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeIdentity>,
}

impl Format {
    /// That of a new folder, of nobody yet.
    #[must_use]
    pub fn new(id: String, cores: u16, partitions: u16, durability: &str) -> Self {
        Self {
            version: FORMAT_VERSION,
            id,
            cores,
            layout: 0,
            partitions,
            durability: durability.to_owned(),
            boots: 0,
            begun: false,
            lost: None,
            rejoins: None,
            told: None,
            node: None,
        }
    }
}

/// Which node a folder is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeIdentity {
    /// Its name.
    pub name: String,
    /// The nodes it was first started with, as `--peers` has them; empty for a cluster of one.
    pub peers: String,
    /// The cluster, 16 hexadecimal digits; none before it has formed or joined one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Its number in the cluster; none before it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<NodeId>,
}

/// Only the version, read before anything else is believed.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// An open data folder. Its lock is held until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    format: Format,
    _lock: File,
}

impl DataDir {
    /// Opens a folder, or makes one if it is not there or is empty: then `make` says how it is to
    /// be laid out. Its count of boots has risen durably when this returns.
    ///
    /// # Errors
    /// [`StartError::InUse`], [`StartError::Foreign`], [`StartError::Format`],
    /// [`StartError::Damaged`], [`StartError::Io`], and what `make` fails with.
    pub fn open(
        path: &Path,
        make: impl FnOnce() -> Result<Format, StartError>,
    ) -> Result<Self, StartError> {
        std::fs::create_dir_all(path).map_err(|error| StartError::io(path, &error))?;
        let found = read_format(path)?;
        if found.is_none() && !is_fresh(path)? {
            return Err(StartError::Foreign(path.to_owned()));
        }
        let lock = lock(path)?;
        // Read again under the lock: another process may have made it meanwhile.
        let mut format = match read_format(path)? {
            Some(format) => format,
            None => make()?,
        };
        format.boots += 1;
        let dir = Self {
            path: path.to_owned(),
            format,
            _lock: lock,
        };
        dir.write()?;
        Ok(dir)
    }

    /// What the folder says of itself.
    #[must_use]
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of one core's engine.
    #[must_use]
    pub fn shard(&self, core: u16) -> PathBuf {
        self.shard_in(self.format.layout, core)
    }

    /// The folder that one core's engine has in a layout.
    #[must_use]
    pub fn shard_in(&self, layout: u32, core: u16) -> PathBuf {
        self.path.join(match layout {
            0 => format!("shard-{core:03}"),
            layout => format!("shard-{core:03}.{layout}"),
        })
    }

    /// Folders of shards that are of another layout than the one that counts: what a `recore` that
    /// was cut short has left.
    ///
    /// # Errors
    /// [`StartError::Io`].
    pub fn leftovers(&self) -> Result<Vec<PathBuf>, StartError> {
        let failed = |error: std::io::Error| StartError::io(&self.path, &error);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let layout = name.to_str().and_then(layout_of);
            if layout.is_some_and(|layout| layout != self.format.layout) {
                found.push(entry.path());
            }
        }
        found.sort();
        Ok(found)
    }

    /// Switches to the next layout, whose shards have been written durably.
    ///
    /// # Errors
    /// [`StartError::Io`]; the old layout still counts then.
    pub fn switch(&mut self, cores: u16) -> Result<(), StartError> {
        let old = self.format.clone();
        self.format.cores = cores;
        self.format.layout += 1;
        self.write().inspect_err(|_| self.format = old)
    }

    /// Notes that every shard has been opened.
    ///
    /// # Errors
    /// [`StartError::Io`].
    pub fn begin(&mut self) -> Result<(), StartError> {
        if self.format.begun {
            return Ok(());
        }
        self.format.begun = true;
        self.write()
    }

    fn write(&self) -> Result<(), StartError> {
        let target = self.path.join(FORMAT_FILE);
        let text = toml::to_string(&self.format).map_err(|error| StartError::Damaged {
            path: target.clone(),
            what: error.to_string(),
        })?;
        self.replace(FORMAT_FILE, format!("{HEADING}{text}").as_bytes())
    }

    /// Replaces a file of the folder: the old content or the new one is there, whatever happens.
    fn replace(&self, name: &str, content: &[u8]) -> Result<(), StartError> {
        let target = self.path.join(name);
        let staged = self.path.join(format!("{name}.new"));
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&staged)?;
            file.write_all(content)?;
            file.sync_all()?;
            std::fs::rename(&staged, &target)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|error| StartError::io(&target, &error))
    }
}

/// The layout that a shard's folder of this name is of.
fn layout_of(name: &str) -> Option<u32> {
    let core = name.strip_prefix("shard-")?;
    let (core, layout) = core.split_once('.').unwrap_or((core, "0"));
    core.parse::<u16>().ok()?;
    layout.parse().ok()
}

fn lock(path: &Path) -> Result<File, StartError> {
    let name = path.join(LOCK_FILE);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&name)
        .map_err(|error| StartError::io(&name, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(StartError::io(&name, &error)),
    }
}

fn read_format(path: &Path) -> Result<Option<Format>, StartError> {
    let file = path.join(FORMAT_FILE);
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StartError::io(&file, &error)),
    };
    let damaged = |what: String| StartError::Damaged {
        path: file.clone(),
        what: format!("it is not readable as a FORMAT file ({what})"),
    };
    let table: toml::Table = text
        .parse()
        .map_err(|e: toml::de::Error| damaged(e.message().to_owned()))?;
    let Version { version } = table
        .clone()
        .try_into()
        .map_err(|e: toml::de::Error| damaged(e.message().to_owned()))?;
    if version != FORMAT_VERSION {
        return Err(StartError::Format {
            dir: path.to_owned(),
            found: version,
            expected: FORMAT_VERSION,
        });
    }
    let format: Format = table
        .try_into()
        .map_err(|e: toml::de::Error| damaged(e.message().to_owned()))?;
    if !format.partitions.is_power_of_two() || format.cores == 0 || format.cores > format.partitions
    {
        return Err(damaged(format!(
            "{} cores, {} partitions",
            format.cores, format.partitions
        )));
    }
    Ok(Some(format))
}

/// Whether nothing but what a first start that was cut short leaves is in the folder.
fn is_fresh(path: &Path) -> Result<bool, StartError> {
    let entries = std::fs::read_dir(path).map_err(|error| StartError::io(path, &error))?;
    for entry in entries {
        let entry = entry.map_err(|error| StartError::io(path, &error))?;
        let name = entry.file_name();
        let ours = [LOCK_FILE, "FORMAT.new", "lost+found"];
        if !ours.iter().any(|own| name == *own) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
