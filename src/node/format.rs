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

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use ringbolt_wire::message::NodeId;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::StartError;
use crate::cluster::map::ClusterMap;
use crate::cluster::{ClusterId, Seen};
use crate::config::{Peer, show_peers};

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
    /// How log writes are made durable, as measured at the first start: `dsync` or `fdatasync`.
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
    /// Which node it is; a folder of before there were clusters learns it at its next start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeIdentity>,
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

    /// Makes the folder this node's, if it is nobody's yet.
    ///
    /// # Errors
    /// [`StartError::OtherNode`], [`StartError::OtherPeers`]: it is another node's already.
    /// [`StartError::Io`].
    pub fn identify(&mut self, name: &str, peers: &[Peer]) -> Result<(), StartError> {
        let peers = show_peers(peers);
        match &self.format.node {
            Some(found) if found.peers != peers => {
                return Err(StartError::OtherPeers {
                    dir: self.path.clone(),
                    found: found.peers.clone(),
                    given: peers,
                });
            }
            Some(found) if found.name == name => return Ok(()),
            Some(found) => {
                return Err(StartError::OtherNode {
                    dir: self.path.clone(),
                    found: found.name.clone(),
                    wanted: name.to_owned(),
                });
            }
            None => {
                self.format.node = Some(NodeIdentity {
                    name: name.to_owned(),
                    peers,
                    cluster: None,
                    id: None,
                });
            }
        }
        self.write()
    }

    /// Keeps the map durably, and from then on belongs to its cluster as `node`.
    ///
    /// # Errors
    /// [`StartError::OtherCluster`] if the folder belongs to another one, or is another node of it.
    /// [`StartError::Io`].
    pub fn belong(&mut self, map: &ClusterMap, node: NodeId) -> Result<(), StartError> {
        let path = self.path.clone();
        let cluster = format!("{:016x}", map.cluster());
        let Some(identity) = &mut self.format.node else {
            return Err(StartError::Damaged {
                path: path.join(FORMAT_FILE),
                what: "it does not say which node it is".to_owned(),
            });
        };
        let belongs = identity.cluster.clone().zip(identity.id);
        if let Some((found, id)) = belongs.filter(|own| *own != (cluster.clone(), node)) {
            return Err(StartError::OtherCluster {
                dir: path,
                found: format!("node {id} of cluster {found}"),
                wanted: format!("node {node} of cluster {cluster}"),
            });
        }
        let bytes = map.encode().map_err(|error| StartError::Damaged {
            path: path.join(CLUSTER_FILE),
            what: error.to_string(),
        })?;
        identity.cluster = Some(cluster);
        identity.id = Some(node);
        self.replace(CLUSTER_FILE, &bytes)?;
        self.write()
    }

    /// The map that was kept last, and this node's number in it; none if the folder does not belong
    /// to a cluster yet.
    ///
    /// # Errors
    /// [`StartError::Damaged`] if the map is not intact, or not that of the folder's cluster;
    /// [`StartError::Io`].
    pub fn cluster(&self) -> Result<Option<(ClusterMap, NodeId)>, StartError> {
        let identity = self.format.node.as_ref();
        let Some((cluster, node)) = identity.and_then(|i| i.cluster.as_ref().zip(i.id)) else {
            return Ok(None);
        };
        let path = self.path.join(CLUSTER_FILE);
        let bytes = std::fs::read(&path).map_err(|error| StartError::io(&path, &error))?;
        let damaged = |what: String| StartError::Damaged {
            path: path.clone(),
            what,
        };
        let map = ClusterMap::decode(&bytes).map_err(|error| damaged(error.to_string()))?;
        if format!("{:016x}", map.cluster()) != *cluster || map.node(node).is_none() {
            return Err(damaged(format!(
                "it is the map of cluster {:016x}, FORMAT says node {node} of cluster {cluster}",
                map.cluster()
            )));
        }
        Ok(Some((map, node)))
    }

    /// Notes durably that the data must not be used any more, and why.
    ///
    /// # Errors
    /// [`StartError::Io`].
    pub fn lose(&mut self, why: &str) -> Result<(), StartError> {
        self.format.lost.get_or_insert_with(|| why.to_owned());
        self.write()
    }

    /// Moves lost data into a folder beside, and begins anew as the empty folder `id` of the same node.
    /// Gives where the data is now.
    ///
    /// # Errors
    /// [`StartError::LostTooOften`]; nothing was moved then. [`StartError::Io`]: the next call goes on.
    pub fn set_aside(&mut self, id: String) -> Result<PathBuf, StartError> {
        let place = |n: u32| self.path.join(format!("{LOST_PREFIX}{n}"));
        // Its FORMAT is the last thing that comes into it.
        let is_used = |n: &u32| place(*n).join(FORMAT_FILE).exists();
        let Some(number) = (1..=LOST_MAX).find(|n| !is_used(n)) else {
            return Err(StartError::LostTooOften {
                dir: self.path.clone(),
                why: self.format.lost.clone().unwrap_or_default(),
                kept: LOST_MAX,
            });
        };
        let aside = place(number);
        self.move_into(&aside)
            .map_err(|error| StartError::io(&aside, &error))?;
        let node = self.format.node.take();
        let was = node.as_ref().and_then(|node| node.cluster.clone());
        self.format = Format {
            id,
            layout: 0,
            begun: false,
            lost: None,
            rejoins: was.or_else(|| self.format.rejoins.take()),
            node: node.map(|node| NodeIdentity {
                cluster: None,
                id: None,
                ..node
            }),
            ..self.format.clone()
        };
        self.write()?;
        Ok(aside)
    }

    /// Moves everything but the lock and earlier lost data, and copies FORMAT.
    fn move_into(&self, aside: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(aside)?;
        for entry in std::fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let stays = [LOCK_FILE, FORMAT_FILE, "FORMAT.new", "lost+found"];
            let is_lost = name.to_string_lossy().starts_with(LOST_PREFIX);
            if !is_lost && !stays.iter().any(|stay| name == *stay) {
                std::fs::rename(self.path.join(&name), aside.join(&name))?;
            }
        }
        File::open(aside)?.sync_all()?;
        File::open(&self.path)?.sync_all()?;
        std::fs::copy(self.path.join(FORMAT_FILE), aside.join(FORMAT_FILE))?;
        File::open(aside.join(FORMAT_FILE))?.sync_all()?;
        File::open(aside)?.sync_all()
    }

    /// Whether a shard's log is there.
    #[must_use]
    pub fn has_log(&self, core: u16) -> bool {
        let entries = std::fs::read_dir(self.shard(core).join("log"));
        let is_segment = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.is_ok_and(|entry| entry.path().extension().is_some_and(|end| end == "seg"))
        };
        entries.is_ok_and(|mut entries| entries.any(is_segment))
    }

    /// The cluster that the data was of that has been set aside; 0 if there was none.
    #[must_use]
    pub fn rejoins(&self) -> ClusterId {
        let rejoins = self.format.rejoins.as_ref();
        rejoins.map_or(0, |id| {
            u64::from_str_radix(id, 16).unwrap_or(ClusterId::MAX)
        })
    }

    /// The starts of other nodes that were kept; none before there were any.
    ///
    /// # Errors
    /// [`StartError::Damaged`], [`StartError::Io`].
    pub fn seen(&self) -> Result<Vec<Seen>, StartError> {
        let path = self.path.join(SEEN_FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(StartError::io(&path, &error)),
        };
        read_seen(&text).ok_or_else(|| StartError::Damaged {
            path,
            what: "its checksum does not match".to_owned(),
        })
    }

    /// Keeps the starts of other nodes durably.
    ///
    /// # Errors
    /// [`StartError::Io`].
    pub fn keep_seen(&self, seen: &[Seen]) -> Result<(), StartError> {
        self.replace(SEEN_FILE, write_seen(seen).as_bytes())
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

/// One line a node: node, boot and start in hexadecimal; the last line is the checksum of the others.
fn write_seen(seen: &[Seen]) -> String {
    let mut text = String::new();
    for Seen { node, boot, start } in seen {
        text.push_str(&format!("{node:x} {boot:x} {start:x}\n"));
    }
    let checksum = xxh3_64(text.as_bytes());
    text + &format!("{checksum:016x}\n")
}

fn read_seen(text: &str) -> Option<Vec<Seen>> {
    let at = text.len().checked_sub(17)?;
    let (lines, checksum) = text.split_at_checked(at)?;
    let checksum = u64::from_str_radix(checksum.trim_end(), 16).ok()?;
    if xxh3_64(lines.as_bytes()) != checksum {
        return None;
    }
    let number = |text: Option<&str>| u64::from_str_radix(text?, 16).ok();
    lines
        .lines()
        .map(|line| {
            let mut parts = line.split(' ');
            Some(Seen {
                node: number(parts.next())?.try_into().ok()?,
                boot: number(parts.next())?,
                start: number(parts.next())?,
            })
        })
        .collect()
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
mod tests {
    use super::*;
    use crate::cluster::map::NodeFacts;

    fn format() -> Result<Format, StartError> {
        Ok(Format {
            version: FORMAT_VERSION,
            id: "00".into(),
            cores: 2,
            layout: 0,
            partitions: 128,
            durability: "dsync".into(),
            boots: 0,
            begun: false,
            lost: None,
            rejoins: None,
            node: None,
        })
    }

    fn peers(list: &str) -> Vec<Peer> {
        crate::config::parse_peers(list).unwrap()
    }

    fn map(cluster: u64) -> ClusterMap {
        let facts = |name: &str, port| NodeFacts {
            name: name.to_owned(),
            address: format!("127.0.0.1:{port}"),
            cores: 2,
            zone: "z".to_owned(),
            weight: 100,
            folder: "00".to_owned(),
        };
        let nodes = vec![facts("a", 1), facts("b", 2)];
        ClusterMap::bootstrap(cluster, 128, 3, nodes).unwrap()
    }

    #[test]
    fn a_folder_stays_with_its_node() {
        let dir = tempfile::tempdir().unwrap();
        let open = || DataDir::open(dir.path(), format).unwrap();
        let (list, other) = (peers("a=x:1,b=x:2"), peers("a=x:1,b=x:3"));
        open().identify("a", &list).unwrap();
        let mut data = open();
        assert_eq!(data.format().boots, 2);
        data.identify("a", &list).unwrap();
        let name = data.identify("b", &list).unwrap_err();
        assert!(matches!(name, StartError::OtherNode { .. }), "{name}");
        for peers in [&other, &vec![]] {
            let error = data.identify("a", peers).unwrap_err();
            assert!(matches!(error, StartError::OtherPeers { .. }), "{error}");
        }
        assert!(data.cluster().unwrap().is_none());
        data.belong(&map(7), 1).unwrap();
        for (cluster, node) in [(8, 1), (7, 2)] {
            let error = data.belong(&map(cluster), node).unwrap_err();
            assert!(matches!(error, StartError::OtherCluster { .. }), "{error}");
        }
        drop(data);
        assert_eq!(open().cluster().unwrap(), Some((map(7), 1)));

        std::fs::write(dir.path().join("CLUSTER"), map(8).encode().unwrap()).unwrap();
        let swapped = open().cluster().unwrap_err().to_string();
        assert!(
            swapped.contains("the map of cluster 0000000000000008"),
            "{swapped}"
        );
        std::fs::write(dir.path().join("CLUSTER"), "x").unwrap();
        assert!(matches!(open().cluster(), Err(StartError::Damaged { .. })));
    }

    #[test]
    fn lost_data_is_moved_aside_and_the_folder_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let open = || DataDir::open(dir.path(), format).unwrap();
        let list = peers("a=x:1,b=x:2");
        let shard = dir.path().join("shard-000");
        for number in 1..=LOST_MAX {
            let mut data = open();
            data.identify("a", &list).unwrap();
            data.belong(&map(7), 1).unwrap();
            data.begin().unwrap();
            std::fs::create_dir_all(shard.join("log")).unwrap();
            assert!(!data.has_log(0));
            std::fs::write(shard.join("log/00000001.seg"), number.to_string()).unwrap();
            assert!(data.has_log(0));
            data.lose("its log is damaged").unwrap();
            data.lose("again").unwrap();
            drop(data);
            let mut data = open();
            let why = data.format().lost.clone();
            assert_eq!(why.as_deref(), Some("its log is damaged"));
            if number == 2 {
                // A crash after the first files were moved.
                std::fs::create_dir(dir.path().join("lost-2")).unwrap();
                std::fs::rename(&shard, dir.path().join("lost-2/shard-000")).unwrap();
            }
            let aside = data.set_aside(format!("{number:02x}")).unwrap();
            assert_eq!(aside, dir.path().join(format!("lost-{number}")));
            let kept = std::fs::read_to_string(aside.join("shard-000/log/00000001.seg"));
            assert_eq!(kept.unwrap(), number.to_string());
            assert!(aside.join("CLUSTER").exists() && aside.join("FORMAT").exists());
            assert!(!shard.exists());
            drop(data);
            let data = open();
            assert_eq!(data.rejoins(), 7);
            assert_eq!(data.cluster().unwrap(), None);
            let format = data.format();
            assert_eq!((&format.lost, format.begun), (&None, false));
            assert_eq!(format.id, format!("{number:02x}"));
            assert_eq!(format.node.as_ref().unwrap().name, "a");
        }
        let mut data = open();
        data.lose("once more").unwrap();
        let often = data.set_aside("ff".into()).unwrap_err().to_string();
        assert!(
            often.contains("once more") && often.contains("3 folders"),
            "{often}"
        );
    }

    #[test]
    fn starts_of_others_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path(), format).unwrap();
        assert_eq!(data.seen().unwrap(), []);
        let seen = |node, boot| Seen {
            node,
            boot,
            start: u64::MAX,
        };
        let two = [seen(1, 5), seen(3, 1 << 32)];
        data.keep_seen(&two).unwrap();
        assert_eq!(data.seen().unwrap(), two);
        let text = std::fs::read_to_string(dir.path().join("SEEN")).unwrap();
        for damaged in [
            text.replacen('5', "4", 1),
            text[1..].to_owned(),
            String::new(),
        ] {
            std::fs::write(dir.path().join("SEEN"), damaged).unwrap();
            assert!(matches!(data.seen(), Err(StartError::Damaged { .. })));
        }
    }

    #[test]
    fn an_older_folder_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let mut data = DataDir::open(dir.path(), format).unwrap();
        assert_eq!(data.format().node, None);
        data.identify("b", &[]).unwrap();
        assert_eq!(data.format().node.as_ref().unwrap().name, "b");
        let error = data.identify("b", &peers("b=x:1")).unwrap_err();
        assert!(matches!(error, StartError::OtherPeers { .. }), "{error}");
    }

    #[test]
    fn boots_are_counted_and_the_folder_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path(), format).unwrap();
        assert_eq!(first.format().boots, 1);
        let second = DataDir::open(dir.path(), format);
        assert!(matches!(second, Err(StartError::InUse(_))), "{second:?}");
        drop(first);
        let again = DataDir::open(dir.path(), || unreachable!("it is there")).unwrap();
        assert_eq!(again.format().boots, 2);
    }

    #[test]
    fn layouts_are_switched_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut data = DataDir::open(dir.path(), format).unwrap();
        for (layout, core) in [(0, 0), (0, 1), (1, 0)] {
            std::fs::create_dir(data.shard_in(layout, core)).unwrap();
        }
        assert_eq!(data.leftovers().unwrap(), [dir.path().join("shard-000.1")]);
        data.switch(1).unwrap();
        assert_eq!(data.shard(0), dir.path().join("shard-000.1"));
        let old = ["shard-000", "shard-001"].map(|name| dir.path().join(name));
        assert_eq!(data.leftovers().unwrap(), old);
        drop(data);
        let data = DataDir::open(dir.path(), || unreachable!("it is there")).unwrap();
        assert_eq!((data.format().layout, data.format().cores), (1, 1));
    }

    #[test]
    fn other_folders_and_versions_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("photo.jpg"), "x").unwrap();
        let foreign = DataDir::open(dir.path(), format);
        assert!(
            matches!(foreign, Err(StartError::Foreign(_))),
            "{foreign:?}"
        );

        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("FORMAT"), "version = 9\nnew = true\n").unwrap();
        let newer = DataDir::open(dir.path(), format);
        assert!(
            matches!(newer, Err(StartError::Format { found: 9, .. })),
            "{newer:?}"
        );

        std::fs::write(dir.path().join("FORMAT"), "\0\0\0").unwrap();
        let damaged = DataDir::open(dir.path(), format);
        assert!(
            matches!(damaged, Err(StartError::Damaged { .. })),
            "{damaged:?}"
        );
    }
}
