//! What operators look at: metrics, health, and a page, over HTTP and read-only.
//!
//! It lives on a thread of its own, beside the cores, at a lower priority than theirs. A core learns of it only when
//! somebody looks: a [`Look`] comes by the core's mailbox, the core copies its counters out in that
//! turn, and goes on. So a scrape costs the request path nothing but the copying, works without a
//! quorum and while the node starts, and shows a core that hangs by its silence.
//!
//! [`registry`] is the one table of metrics: `/metrics`, `/metrics/detail`, the files in
//! `monitoring/` and `docs/metrics.md` are all made from it.

mod api;
mod exposition;
mod health;
mod look;
pub(crate) mod process;
pub mod registry;
mod requests;
mod series;
mod server;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ringbolt_ring::RingStats;

use crate::cluster::ClusterView;
use crate::config::Keys;
use crate::shard::view::{Depth, ShardView};
use series::Series;

/// What one core is at.
#[derive(Debug, Clone)]
pub struct CoreView {
    /// Its shard.
    pub shard: ShardView,
    /// Its ring.
    pub ring: RingStats,
}

/// Somebody's question to a core.
pub struct Look {
    /// How much is wanted.
    pub depth: Depth,
    /// Takes the answer; called once on the core's thread, and must not wait.
    pub answer: Box<dyn FnOnce(CoreView) + Send>,
}

impl std::fmt::Debug for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Look")
            .field("depth", &self.depth)
            .finish_non_exhaustive()
    }
}

/// The way to the cores.
pub trait Cores: Send + Sync {
    /// How many there are.
    fn count(&self) -> u16;
    /// Posts a question to a core. `false` if its mailbox is full.
    fn post(&self, core: u16, look: Look) -> bool;
}

/// A node that runs.
#[derive(Clone)]
pub struct Running {
    /// Its cores.
    pub cores: Arc<dyn Cores>,
    /// Its cluster.
    pub cluster: Arc<ClusterView>,
    /// How many partitions there are.
    pub partitions: u16,
}

/// What does not change while the process lives.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The node's name.
    pub name: String,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// The data folder.
    pub data: PathBuf,
    /// The budget of memory, in bytes.
    pub memory_bytes: u64,
    /// Free bytes on the disk below which puts are refused.
    pub reserve_bytes: u64,
    /// What counts as slow.
    pub slow_threshold: Duration,
    /// Whether keys are shown.
    pub keys: Keys,
    /// When the process began.
    pub began: Instant,
}

/// How far the node has come.
#[derive(Clone)]
enum Stage {
    Meeting,
    Recovering,
    Serving(Running),
    Stopping,
}

struct State {
    facts: Facts,
    stage: Mutex<Stage>,
    series: Series,
    /// For keys that are hidden.
    key_hasher: ahash::RandomState,
}

impl State {
    fn stage(&self) -> Stage {
        let stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        stage.clone()
    }
}

/// The node's end of it: tells how far the node has come.
#[derive(Clone)]
pub struct Admin(Arc<State>);

impl Admin {
    /// Serves on a socket, on a thread of its own, until the process ends. `key_seed` is drawn at
    /// random, for the hashes of keys that are hidden.
    ///
    /// # Errors
    /// If the thread or its runtime cannot be made.
    pub fn start(listener: TcpListener, facts: Facts, key_seed: u64) -> std::io::Result<Self> {
        let state = Arc::new(State {
            facts,
            stage: Mutex::new(Stage::Meeting),
            series: Series::default(),
            key_hasher: ahash::RandomState::with_seed(key_seed as usize),
        });
        server::start(listener, Arc::clone(&state))?;
        Ok(Self(state))
    }

    /// The node has its place in the cluster and recovers.
    pub fn recovering(&self) {
        self.set(Stage::Recovering);
    }

    /// The node serves.
    pub fn serving(&self, running: Running) {
        self.set(Stage::Serving(running));
    }

    /// The node stops.
    pub fn stopping(&self) {
        self.set(Stage::Stopping);
    }

    fn set(&self, stage: Stage) {
        *self.0.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }
}
