//! What one shard is at, copied out for those who look on from another thread.

use ringbolt_engine::engine::EngineStats;
use ringbolt_engine::env::Env;
use ringbolt_wire::message::{Keyspace, NodeId, ReplicaStatus};

use super::Shard;
use super::counters::Counters;
use super::hot::HotView;
use super::trace::AccountView;

/// How much to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Counters: a few hundred numbers, cheap enough for once a second.
    Counters,
    /// Replicas and keyspaces too.
    All,
    /// Counters and the newest slow requests.
    Requests,
}

/// A copy of one shard's counters and state. Of one core, at one moment of its loop.
#[derive(Debug, Clone)]
pub struct ShardView {
    /// The core.
    pub core: u16,
    /// The request path's counters.
    pub counters: Counters,
    /// The log's and the tree's.
    pub engine: EngineStats,
    /// Bytes of requests that are not answered yet.
    pub inflight_bytes: u64,
    /// Reads and writes that wait until their partition has applied an entry.
    pub deferred: u64,
    /// Acknowledgements held back by write throttling.
    pub held: u64,
    /// Requests that other nodes have been asked.
    pub forwards: u64,
    /// How long writers must hold back for each KiB now, in microseconds.
    pub throttle_us_per_kib: f64,
    /// Whether puts are refused for want of free space.
    pub space_low: bool,
    /// Why the shard, or its tree's background work, has stopped; if it has.
    pub failure: Option<String>,
    /// Requests by operation and outcome, their times, and for [`Depth::Requests`] the slow ones.
    pub account: AccountView,
    /// The keys and partitions that its requests are for.
    pub hot: HotView,
    /// How far the other nodes' clocks are ahead of this node's, in milliseconds; told by core 0 alone.
    pub clocks: Vec<(NodeId, i64)>,
    /// Every replica of this core; only for [`Depth::All`].
    pub replicas: Vec<ReplicaStatus>,
    /// Every keyspace; only for [`Depth::All`].
    pub keyspaces: Vec<Keyspace>,
}

impl<E: Env> Shard<E> {
    /// A copy of what the shard is at.
    #[must_use]
    pub fn view(&self, depth: Depth) -> ShardView {
        let inner = &self.0;
        let tree = inner.engine.tree();
        let failure = inner.engine.failure().or_else(|| tree.failure());
        let all = depth == Depth::All;
        ShardView {
            core: inner.config.core,
            counters: inner.counters.clone(),
            engine: inner.engine.stats(),
            inflight_bytes: inner.inflight_bytes.get() as u64,
            deferred: inner.deferred.borrow().len() as u64,
            held: inner.held.borrow().len() as u64,
            forwards: inner.forwards.borrow().len() as u64,
            throttle_us_per_kib: tree.pressure().delay_per_kib.as_secs_f64() * 1e6,
            space_low: inner.space_low.get(),
            account: inner.account.view(depth == Depth::Requests),
            hot: inner.hot.view(),
            failure: failure.map(|failure| failure.to_string()),
            clocks: match inner.config.core {
                0 => inner.config.cluster.clocks().ahead_ms(inner.env.now()),
                _ => Vec::new(),
            },
            replicas: if all {
                inner.own_replicas()
            } else {
                Vec::new()
            },
            keyspaces: if all {
                inner.keyspaces.borrow().list()
            } else {
                Vec::new()
            },
        }
    }
}
