//! The data folder of a simulated node: what the server keeps beside the engines' files in `FORMAT`,
//! `CLUSTER` and `SEEN`, each replaced at once and durable when it is written.
//!
//! The engines of a folder have a directory of the simulated disk to themselves. Data that is set aside
//! stays there under the identity of the folder that it was of.

use std::path::PathBuf;

use ringbolt::cluster::leaving::FolderTold;
use ringbolt::cluster::map::ClusterMap;
use ringbolt::cluster::{ClusterId, ClusterView, NodeId, Seen, ToldStart};
use ringbolt_engine::env::sim::SimStore;

/// A data folder.
#[derive(Debug, Clone)]
pub struct Folder {
    /// Its identity.
    pub id: String,
    /// How often it has been started.
    pub boots: u64,
    /// The map that was kept last, and the node's number in it.
    pub belongs: Option<(ClusterMap, NodeId)>,
    /// The latest starts of the other nodes.
    pub seen: Vec<Seen>,
    /// The cluster that the data was of that was set aside; 0 for none.
    pub rejoins: ClusterId,
    /// How often data was set aside.
    pub set_aside: u64,
    told: Option<ToldStart>,
    begun: bool,
    lost: Option<String>,
}

impl Folder {
    /// An empty one.
    #[must_use]
    pub fn new(id: String) -> Self {
        Self {
            id,
            boots: 0,
            belongs: None,
            seen: Vec::new(),
            rejoins: 0,
            set_aside: 0,
            told: None,
            begun: false,
            lost: None,
        }
    }

    /// A start of a node of `cores` cores on this disk. Data that must not be used any more is set aside,
    /// and the folder begins anew as `id`.
    pub fn open(&mut self, store: &SimStore, cores: u16, id: String) {
        self.boots += 1;
        let has_log = |core: &u16| {
            let log = self.shard_dir(*core).join("log");
            store.files().iter().any(|(path, _)| path.starts_with(&log))
        };
        let told = FolderTold {
            id: &self.id,
            lost: self.lost.as_deref(),
            belongs: self.belongs.as_ref().map(|(map, node)| (map, *node)),
            missing_log: (0..cores).find(|core| self.begun && !has_log(core)),
        };
        if told.why_lost().is_none() {
            return;
        }
        let was = self.belongs.take().map(|(map, _)| map.cluster());
        *self = Self {
            boots: self.boots,
            told: self.told,
            rejoins: was.unwrap_or(self.rejoins),
            set_aside: self.set_aside + 1,
            ..Self::new(id)
        };
    }

    /// The directory of a core's engine.
    #[must_use]
    pub fn shard_dir(&self, core: u16) -> PathBuf {
        PathBuf::from(format!("{}-shard-{core:03}", self.id))
    }

    /// The start that the others are told of.
    pub fn tell_start(&mut self, random: u64) -> ToldStart {
        let boots = self.boots;
        *self.told.get_or_insert(ToldStart { boots, random })
    }

    /// Notes that every shard has been opened.
    pub fn begin(&mut self) {
        self.begun = true;
    }

    /// Notes that the data must not be used any more.
    pub fn lose(&mut self, why: &str) {
        self.lost.get_or_insert_with(|| why.to_owned());
    }

    /// Keeps what the running node has learnt of its cluster.
    pub fn follow(&mut self, cluster: &ClusterView) {
        self.seen = cluster.seen();
        if cluster.is_welcomed() {
            self.told = None;
        }
        if let (Some((kept, _)), Some(known)) = (&mut self.belongs, cluster.map())
            && kept.version() != known.map.version()
        {
            kept.clone_from(&known.map);
        }
    }

    /// Whether a start of a node has been seen that is later than this one.
    #[must_use]
    pub fn has_seen_later(&self, node: NodeId, boot: u64) -> bool {
        let seen = self.seen.iter().find(|seen| seen.node == node);
        seen.is_some_and(|seen| seen.boot > boot)
    }
}
