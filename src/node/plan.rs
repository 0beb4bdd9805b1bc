//! From settings to what each component is told; how a core's memory is shared out.

use std::path::PathBuf;
use std::sync::Arc;

use ringbolt_engine::engine::EngineOptions;
use ringbolt_engine::log::LogOptions;
use ringbolt_engine::tree::{self, TreeOptions};
use ringbolt_ring::RingConfig;
use ringbolt_wire::message::KEYSPACE_SYSTEM;

use super::StartError;
use super::format::DataDir;
use super::identity::Membership;
use crate::cluster::{ClusterView, ToldStart};
use crate::config::{Compression, Durability as DurabilitySetting, RespCluster, Settings};
use crate::resp;
use crate::runtime::{CoreOptions, Durability, LaunchOptions};
use crate::shard::limits::ShardLimits;
use crate::shard::route::PartitionMap;

/// Zero-filling at the first start, over all cores, in bytes.
const FIRST_FILL_BYTES: u64 = 256 << 20;
/// What a core needs beside the budgets below: stacks, rings, connections' tables.
const CORE_OVERHEAD_BYTES: u64 = 8 << 20;
/// The ring's receive buffers.
const RECEIVE_BUFFERS: u16 = 1024;
const RECEIVE_BUFFER_BYTES: u32 = 8192;
/// Connections of a ring beyond those of clients: other nodes', and those that are being refused or
/// made.
const RING_RESERVE: u32 = 8192;
/// The least a tree can work in.
const TREE_BYTES_MIN: u64 = 16 << 20;

/// What the node's cores are told.
#[derive(Debug)]
pub struct Plan {
    shards: Vec<PathBuf>,
    /// Which core owns which partition.
    pub map: Arc<PartitionMap>,
    /// The cluster, and this node's place in it.
    pub cluster: Arc<ClusterView>,
    /// The limits of each shard.
    pub limits: ShardLimits,
    /// The door for Redis clients.
    pub resp: Arc<resp::Options>,
    /// The options of each engine.
    pub engine: EngineOptions,
    /// The setting for the whole process's memory, in bytes.
    pub memory_bytes: u64,
    /// Free bytes below which puts are refused.
    pub space_reserve: u64,
    durability: Durability,
}

impl Plan {
    /// The plan of a node over an open folder; `told` is the start that other nodes are told of.
    ///
    /// # Errors
    /// [`StartError::Damaged`] if the folder names a durability mode that is not known;
    /// [`StartError::Cluster`] if the map cannot be used.
    pub(super) fn new(
        settings: &Settings,
        dir: &DataDir,
        member: &Membership,
        told: ToldStart,
    ) -> Result<Self, StartError> {
        let format = dir.format();
        let durability = match settings.log.durability {
            DurabilitySetting::Dsync => Durability::Dsync,
            DurabilitySetting::Fdatasync => Durability::WriteDatasync,
            DurabilitySetting::Auto => {
                Durability::from_name(&format.durability).ok_or_else(|| StartError::Damaged {
                    path: dir.path().join("FORMAT"),
                    what: format!("durability {:?} is not known", format.durability),
                })?
            }
        };
        let limits = limits(settings);
        let cluster = ClusterView::of_map(member.map.clone(), member.node, told, &dir.seen()?)
            .map_err(StartError::Cluster)?;
        Ok(Self {
            shards: (0..format.cores).map(|core| dir.shard(core)).collect(),
            map: Arc::new(PartitionMap::spread(
                settings.name.clone(),
                format.partitions,
                format.cores,
            )),
            cluster: Arc::new(cluster),
            engine: engine(settings, &limits),
            resp: Arc::new(resp_options(settings)),
            limits,
            memory_bytes: settings.memory,
            space_reserve: settings.disk.reserve_bytes,
            durability,
        })
    }

    /// How many cores the node has.
    pub fn cores(&self) -> u16 {
        self.shards.len() as u16
    }

    /// The folder of a core's engine.
    pub fn shard_dir(&self, core: u16) -> PathBuf {
        self.shards[usize::from(core)].clone()
    }

    /// How the cores are started.
    pub fn launch_options(&self, settings: &Settings) -> LaunchOptions {
        LaunchOptions {
            cpus: (0..settings.cores)
                .map(|core| settings.cpu_of(core).map(usize::from))
                .collect(),
            core: CoreOptions {
                ring: RingConfig {
                    buffers: RECEIVE_BUFFERS,
                    buffer_bytes: RECEIVE_BUFFER_BYTES,
                    connections_max: settings.limits.connections_max.saturating_add(RING_RESERVE),
                    ..RingConfig::default()
                },
                spin: settings.core.spin,
                durability: self.durability,
                ..CoreOptions::default()
            },
        }
    }
}

fn resp_options(settings: &Settings) -> resp::Options {
    resp::Options {
        listen: settings.resp.listen,
        native: Some(settings.listen),
        databases: settings.resp.databases.clone(),
        mode: match settings.resp.cluster {
            RespCluster::Forward => resp::ClusterMode::Forward,
            RespCluster::Moved => resp::ClusterMode::Moved,
        },
        keys_max: settings.resp.keys_max,
        memory: settings.memory,
    }
}

fn limits(settings: &Settings) -> ShardLimits {
    let limits = &settings.limits;
    ShardLimits {
        key_bytes_max: ringbolt_wire::KEY_BYTES_MAX as usize,
        value_bytes_max: limits.value_bytes_max,
        sessions_max: limits.connections_max as usize,
        inflight_requests_max: limits.connection_requests_max,
        inflight_bytes_max: limits.connection_bytes_max,
        shard_inflight_bytes_max: limits.core_bytes_max,
        out_bytes_max: limits.connection_reply_bytes_max,
        stall_timeout: limits.stall_timeout,
        handshake_timeout: limits.handshake_timeout,
        frame_timeout: limits.frame_timeout,
        idle_timeout: limits.idle_timeout,
        deadline_default: limits.deadline_default,
        scan_rows_max: limits.scan_rows_max,
        scan_page_bytes: limits.scan_page_bytes,
        batch_ops_max: limits.batch_writes_max,
        keyspaces_max: limits.keyspaces_max,
        slow_threshold: settings.admin.slow_threshold,
        copy_bytes_per_s: limits.copy_bytes_per_second,
        ..ShardLimits::default()
    }
}

/// What each core's engine is told: how the core's memory is shared out, and the bounds of its log.
#[must_use]
pub fn engine_options(settings: &Settings) -> EngineOptions {
    engine(settings, &limits(settings))
}

/// Shares a core's memory out: what requests and the log may hold at most is set aside, the tree
/// has the rest.
fn engine(settings: &Settings, limits: &ShardLimits) -> EngineOptions {
    let core = settings.memory_per_core();
    let largest = (limits.value_bytes_max + limits.key_bytes_max) as u64;
    let log_buffers = (core / 8).clamp(largest + (4 << 20), 64 << 20);
    let receive = u64::from(RECEIVE_BUFFERS) * u64::from(RECEIVE_BUFFER_BYTES);
    // Requests in flight are rarely at their limit, and most of them stand in the log's buffers.
    let requests = limits.shard_inflight_bytes_max as u64 / 4;
    let aside = CORE_OVERHEAD_BYTES + receive + log_buffers / 2 + requests;
    // The allocator keeps some of what is given back: resident memory stays within the setting.
    let usable = core.saturating_sub(aside) / 8 * 7;
    let memory_bytes = usable.max(TREE_BYTES_MIN).max(core / 4);
    let tree = TreeOptions {
        memory_bytes,
        memtable_percent: u64::from(settings.tree.memtable_percent),
        compression: compression(settings.tree.compression),
        compression_deepest: compression(settings.tree.compression_deepest),
        background_bytes_per_s: settings.tree.background_bytes_per_second,
        own_keyspace: Some(KEYSPACE_SYSTEM),
        ..TreeOptions::default()
    };
    let segment_bytes = settings.log.segment_bytes;
    // Groups are padded to whole sectors, so the log is longer than what it holds.
    let memtables = tree.memtable_budget(memory_bytes).div_ceil(segment_bytes) as usize;
    let segments_flush = (2 * memtables).max(4);
    let segments_retained = (settings.log.retained_bytes / segment_bytes) as usize;
    let log = LogOptions {
        segment_bytes,
        first_fill_bytes: segment_bytes.min(FIRST_FILL_BYTES / u64::from(settings.cores)),
        writes_in_flight: settings.log.writes_inflight_max,
        buffer_bytes_max: log_buffers as usize,
        segments_flush,
        segments_retained,
        segments_max: 2 * segments_flush + segments_retained + 4,
        ..LogOptions::default()
    };
    EngineOptions {
        log,
        tree,
        commits_alone: crate::replica::commits_alone,
        membership_index: crate::replica::membership_index,
    }
}

fn compression(setting: Compression) -> tree::Compression {
    match setting {
        Compression::None => tree::Compression::None,
        Compression::Lz4 => tree::Compression::Lz4,
        Compression::Zstd => tree::Compression::Zstd,
    }
}
