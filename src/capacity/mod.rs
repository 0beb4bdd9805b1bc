//! How large a cluster must be for what it is to hold and to serve: pure functions, no I/O.
//!
//! 1. [`shape`] says what a record takes, and how often it is written.
//! 2. The fewest nodes are found on whose disks the share of the fullest one fits, and whose cores are
//!    not too busy. How long the log may be depends on the memory, and that on the data of a node: both
//!    are found in turns, and the log only ever grows from turn to turn, so it comes to an end.
//! 3. [`memory`] finds the least memory at which indexes and filters stay in the cache.
//! 4. Times and rates follow.
//!
//! Constants of the code are the code's own; what is measured stands in [`measured`]. All is reckoned in
//! `f64`: the bounds of a [`Question`] keep every product far inside its range, and its rounding is
//! nothing beside what the formulas are off by. `docs/operations.md`, "Size it", states the formulas.

mod error;
mod measured;
mod memory;
mod shape;
#[cfg(test)]
mod tests;

use ringbolt_engine::engine::EngineOptions;
use ringbolt_engine::entry::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use serde::Serialize;

pub use error::CapacityError;

use crate::cluster::map::{NODES_MAX, REPLICATION_MAX};
use crate::cluster::ring::CAP_PART;
use crate::config::{Settings, about_bytes};
use crate::node::engine_options;
use crate::shard::limits::ShardLimits;
use memory::Shares;
use shape::{Levels, RecordSizes};

/// Partitions that there are at least and at most: the default and the limit of the setting.
const PARTITIONS: std::ops::RangeInclusive<u64> = 128..=16384;
/// Partitions that each core should have at least: the unit that moves between cores and nodes.
const PARTITIONS_PER_CORE: u64 = 4;
const SECONDS_PER_DAY: f64 = 86_400.0;
/// The years for which drives are rated.
const RATED_YEARS: f64 = 5.0;

/// What is to be stored and served, and what a node is.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Live records.
    pub records: u64,
    /// Bytes of a key.
    pub key_bytes: u64,
    /// Bytes of a value.
    pub value_bytes: u64,
    /// What compression leaves of a value, as a part of it: 1 for nothing gained.
    pub value_ratio: f64,
    /// On how many nodes each record is.
    pub replicas: u8,
    /// Puts in a second, of all clients.
    pub puts_per_s: u64,
    /// Gets in a second, of all clients.
    pub gets_per_s: u64,
    /// Cores of a node.
    pub cores: u16,
    /// The disk of a node, in bytes.
    pub disk_bytes: u64,
    /// The setting `memory` of a node, in bytes; `None` for the least that serves well.
    pub memory_bytes: Option<u64>,
    /// The network of a node, in bytes a second.
    pub network_bytes_per_s: u64,
    /// The part of the network that copies may take, over 0 up to 1.
    pub copy_share: f64,
}

/// What decided the number of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitedBy {
    /// Each record is on so many nodes.
    Replicas,
    /// Their disks.
    Disk,
    /// Their cores.
    Cpu,
}

/// A cluster that serves. What is told of a node is of the fullest one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Nodes.
    pub nodes: usize,
    /// What decided that.
    pub limited_by: LimitedBy,
    /// The setting `partitions` to make the cluster with.
    pub partitions: u64,
    /// Each node's disk.
    pub disk: DiskPlan,
    /// Each node's memory.
    pub memory: MemoryPlan,
    /// How often a byte is written and held.
    pub amplification: Amplification,
    /// What the traffic writes to a device; `None` without puts.
    pub device: Option<DevicePlan>,
    /// How long it takes to be whole again.
    pub recovery: RecoveryPlan,
    /// Requests.
    pub requests: RequestPlan,
}

/// A node's disk, in bytes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DiskPlan {
    /// Live records of the node.
    pub records: u64,
    /// Their keys and values.
    pub plain_bytes: u64,
    /// Tables, at their peak.
    pub tables_bytes: u64,
    /// The log, at its longest.
    pub log_bytes: u64,
    /// Kept free, and the ballast.
    pub reserve_bytes: u64,
    /// All of it.
    pub total_bytes: u64,
    /// The part of the disk that is, from 0 to 1.
    pub used: f64,
}

/// A node's memory, in bytes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemoryPlan {
    /// The setting `memory`.
    pub setting_bytes: u64,
    /// What the process may come to, with entries that are kept for followers.
    pub resident_bytes: u64,
    /// Index and filter blocks.
    pub meta_bytes: u64,
    /// The part of these that stays in the cache, from 0 to 1.
    pub meta_cached: f64,
    /// The cache.
    pub cache_bytes: u64,
    /// Memtables.
    pub memtable_bytes: u64,
    /// The newest entries of each partition.
    pub entries_bytes: u64,
}

/// Bytes written and held for each byte of keys and values.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Amplification {
    /// Written in all: the sum of the next four.
    pub write: f64,
    /// To the log.
    pub write_log: f64,
    /// By flushes.
    pub write_flush: f64,
    /// By compactions of level 0.
    pub write_level0: f64,
    /// By compactions below.
    pub write_deeper: f64,
    /// Tables over live keys and values, at their peak.
    pub space: f64,
    /// Levels, level 0 included.
    pub levels: usize,
}

/// What a device must take.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DevicePlan {
    /// Bytes written in a second.
    pub bytes_per_s: u64,
    /// How often its size is written in a day.
    pub drive_writes_per_day: f64,
    /// How long one lasts that is rated for one drive-write a day over five years.
    pub years_at_one_a_day: f64,
}

/// Times to be whole again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecoveryPlan {
    /// Records that a core replays at most.
    pub replay_records_per_core: u64,
    /// Their bytes in the log.
    pub replay_bytes_per_core: u64,
    /// From start to service, in seconds, at most.
    pub restart_s: f64,
    /// What a node without its data is sent.
    pub copy_bytes: u64,
    /// How fast, in bytes a second.
    pub copy_bytes_per_s: u64,
    /// How long that takes, in seconds.
    pub copy_s: f64,
}

/// What requests cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RequestPlan {
    /// Device reads for a get of a key drawn uniformly.
    pub reads_per_get: f64,
    /// CPU of a put on each replica, in µs.
    pub put_cpu_us: f64,
    /// CPU of a get, in µs.
    pub get_cpu_us: f64,
    /// Puts that a core can take in a second, of those it replicates too.
    pub puts_per_core_per_s: u64,
    /// Gets that a core can answer in a second.
    pub gets_per_core_per_s: u64,
    /// How busy the cores are, from 0 to 1.
    pub cpu_used: f64,
}

impl Question {
    fn check(&self) -> Result<(), CapacityError> {
        let number = |what, given: u64, least: u64, most: u64| {
            check(what, given, least, most, |n| n.to_string())
        };
        number(
            "the number of records",
            self.records,
            1,
            1_000_000_000_000_000,
        )?;
        number(
            "the number of replicas",
            self.replicas.into(),
            1,
            REPLICATION_MAX.into(),
        )?;
        number("puts a second", self.puts_per_s, 0, 1_000_000_000_000)?;
        number("gets a second", self.gets_per_s, 0, 1_000_000_000_000)?;
        number("cores of a node", self.cores.into(), 1, 1024)?;
        let bytes = |what, given, least, most| check(what, given, least, most, about_bytes);
        bytes("the size of a key", self.key_bytes, 1, KEY_BYTES_MAX as u64)?;
        bytes(
            "the size of a value",
            self.value_bytes,
            0,
            VALUE_BYTES_MAX as u64,
        )?;
        bytes("the disk of a node", self.disk_bytes, 1 << 30, 1 << 60)?;
        bytes("the network", self.network_bytes_per_s, 1 << 20, 1 << 40)?;
        let part = |what, given: f64, least: f64| {
            // So that NaN is refused too.
            if (least..=1.0).contains(&given) {
                return Ok(());
            }
            Err(CapacityError::OutOfRange {
                what,
                given: given.to_string(),
                least: least.to_string(),
                most: "1".to_string(),
            })
        };
        part("what compression leaves of a value", self.value_ratio, 0.01)?;
        part("the part of the network for copies", self.copy_share, 0.01)
    }

    /// CPU of a get, in µs.
    fn get_cpu_us(&self, reads: f64) -> f64 {
        let disk = measured::DISK_GET_CPU_US - measured::CACHED_GET_CPU_US;
        measured::CACHED_GET_CPU_US + reads * disk
    }
}

fn check<T: PartialOrd + Copy>(
    what: &'static str,
    given: T,
    least: T,
    most: T,
    show: impl Fn(T) -> String,
) -> Result<(), CapacityError> {
    if given >= least && given <= most {
        return Ok(());
    }
    Err(CapacityError::OutOfRange {
        what,
        given: show(given),
        least: show(least),
        most: show(most),
    })
}

/// A node of a size, and what the question makes of it.
struct Sized {
    options: EngineOptions,
    record: RecordSizes,
    /// Kept free, and the ballast of each core, in bytes.
    reserve: f64,
    log: f64,
    shares: Shares,
    memory: u64,
}

impl Sized {
    fn new(question: &Question, settings: &Settings) -> Self {
        let options = engine_options(settings);
        let cores = f64::from(question.cores);
        let log = options.log.segments_max as f64 * options.log.segment_bytes as f64 * cores;
        let ballast = options.tree.ballast_bytes as f64 * cores;
        Self {
            record: RecordSizes::new(
                question.key_bytes,
                question.value_bytes,
                question.value_ratio,
                &options.tree,
            ),
            reserve: settings.disk.reserve_bytes as f64 + ballast,
            log,
            shares: Shares::new(&options),
            memory: settings.memory,
            options,
        }
    }
}

/// One candidate: so many nodes of a size.
struct Candidate<'a> {
    question: &'a Question,
    node: &'a Sized,
    nodes: usize,
    partitions: u64,
    /// Replicas of partitions on the fullest node.
    replicas: u64,
    /// Live records of the fullest node.
    records: f64,
    levels: Levels,
}

impl<'a> Candidate<'a> {
    fn new(question: &'a Question, node: &'a Sized, nodes: usize) -> Self {
        let copies = u64::from(question.replicas);
        let cores = nodes as u64 * u64::from(question.cores);
        let partitions = (PARTITIONS_PER_CORE * cores / copies)
            .clamp(*PARTITIONS.start(), *PARTITIONS.end())
            .next_power_of_two();
        // The share of a node and a part of it, rounded up; no node has a partition twice.
        let part = CAP_PART as u64;
        let replicas = (partitions * copies * (part + 1))
            .div_ceil(part * nodes as u64)
            .min(partitions);
        let records = question.records as f64 * replicas as f64 / partitions as f64;
        let live = records * node.record.table / f64::from(question.cores);
        Self {
            question,
            node,
            nodes,
            partitions,
            replicas,
            records,
            levels: Levels::new(live, &node.options.tree),
        }
    }

    fn tables(&self) -> f64 {
        self.records * self.node.record.table * self.levels.space()
    }

    fn disk(&self) -> f64 {
        self.tables() + self.node.log + self.node.reserve
    }

    fn fits(&self) -> bool {
        self.disk() <= self.question.disk_bytes as f64
    }

    /// Index and filter blocks of a core.
    fn meta_per_core(&self) -> f64 {
        self.records * self.node.record.meta / f64::from(self.question.cores)
    }

    fn meta_cached(&self) -> f64 {
        (self.node.shares.meta_max / self.meta_per_core().max(1.0)).min(1.0)
    }

    /// Keys are drawn uniformly: what part of the rows' blocks is not in the cache, and of index and
    /// filter blocks.
    fn reads_per_get(&self) -> f64 {
        let shares = &self.node.shares;
        let data = self.records * self.node.record.table / f64::from(self.question.cores);
        let cached = shares.cache - self.meta_per_core().min(shares.meta_max);
        let probes = 2.0 * (1.0 - self.meta_cached());
        (1.0 - cached / data.max(1.0)).max(0.0) + probes
    }

    fn amplification(&self) -> Amplification {
        let record = &self.node.record;
        let flush = record.table / record.plain;
        let level0 = flush * self.levels.l0_writes();
        let deeper = flush * self.levels.deeper_writes();
        let log = record.log / record.plain;
        Amplification {
            write: log + flush + level0 + deeper,
            write_log: log,
            write_flush: flush,
            write_level0: level0,
            write_deeper: deeper,
            space: self.tables() / (self.records * record.plain),
            levels: self.levels.count(),
        }
    }

    fn put_cpu_us(&self) -> f64 {
        let amplification = self.amplification();
        let tables = (amplification.write - amplification.write_log) * self.node.record.plain;
        measured::PUT_CPU_US + tables * measured::COMPACTION_CPU_NS_PER_BYTE / 1000.0
    }

    fn cpu_used(&self) -> f64 {
        let puts = self.question.puts_per_s as f64 * f64::from(self.question.replicas);
        let gets = self.question.gets_per_s as f64;
        let get_us = self.question.get_cpu_us(self.reads_per_get());
        let cores = self.nodes as f64 * f64::from(self.question.cores);
        (puts * self.put_cpu_us() + gets * get_us) / 1e6 / cores
    }

    /// Bytes that clients' puts write to a node's device in a second.
    fn device(&self) -> Option<DevicePlan> {
        let puts = self.question.puts_per_s as f64;
        let rate = puts * self.replicas as f64 / self.partitions as f64
            * self.node.record.plain
            * self.amplification().write;
        let per_day = rate * SECONDS_PER_DAY / self.question.disk_bytes as f64;
        (self.question.puts_per_s > 0).then(|| DevicePlan {
            bytes_per_s: rate as u64,
            drive_writes_per_day: per_day,
            years_at_one_a_day: RATED_YEARS / per_day,
        })
    }

    fn recovery(&self) -> RecoveryPlan {
        let (question, record) = (self.question, &self.node.record);
        let replay = (self.node.shares.memtables / record.memtable)
            .min(self.records / f64::from(question.cores));
        let replay_bytes = replay * record.log;
        let replay_s = (replay / measured::REPLAY_RECORDS_PER_S)
            .max(replay_bytes / measured::REPLAY_BYTES_PER_S);
        let copy = self.records * record.plain;
        let network = question.network_bytes_per_s as f64 * question.copy_share;
        let background = self.node.options.tree.background_bytes_per_s as f64;
        let sent = ShardLimits::default().copy_bytes_per_s as f64;
        let rate = network.min(background.min(sent) * f64::from(question.cores));
        RecoveryPlan {
            replay_records_per_core: replay as u64,
            replay_bytes_per_core: replay_bytes as u64,
            restart_s: measured::START_S + replay_s,
            copy_bytes: copy as u64,
            copy_bytes_per_s: rate as u64,
            copy_s: copy / rate,
        }
    }

    fn memory(&self) -> MemoryPlan {
        let cores = f64::from(self.question.cores);
        let shares = &self.node.shares;
        let entries = self.replicas as f64 * ShardLimits::default().entries_kept_bytes as f64;
        let resident = self.node.memory as f64 * measured::RESIDENT_SLACK + entries;
        MemoryPlan {
            setting_bytes: self.node.memory,
            resident_bytes: resident as u64,
            meta_bytes: (self.meta_per_core() * cores) as u64,
            meta_cached: self.meta_cached(),
            cache_bytes: (shares.cache * cores) as u64,
            memtable_bytes: (shares.memtables * cores) as u64,
            entries_bytes: entries as u64,
        }
    }

    fn plan(&self, limited_by: LimitedBy) -> Plan {
        let record = &self.node.record;
        let put_cpu_us = self.put_cpu_us();
        let reads_per_get = self.reads_per_get();
        let get_cpu_us = self.question.get_cpu_us(reads_per_get);
        Plan {
            nodes: self.nodes,
            limited_by,
            partitions: self.partitions,
            disk: DiskPlan {
                records: self.records as u64,
                plain_bytes: (self.records * record.plain) as u64,
                tables_bytes: self.tables() as u64,
                log_bytes: self.node.log as u64,
                reserve_bytes: self.node.reserve as u64,
                total_bytes: self.disk() as u64,
                used: self.disk() / self.question.disk_bytes as f64,
            },
            memory: self.memory(),
            amplification: self.amplification(),
            device: self.device(),
            recovery: self.recovery(),
            requests: RequestPlan {
                reads_per_get,
                put_cpu_us,
                get_cpu_us,
                puts_per_core_per_s: (1e6 / put_cpu_us) as u64,
                gets_per_core_per_s: (1e6 / get_cpu_us) as u64,
                cpu_used: self.cpu_used(),
            },
        }
    }
}

/// The fewest nodes of one size, from `from` on, that hold the data and serve the traffic.
fn fewest<'a>(
    question: &'a Question,
    node: &'a Sized,
    from: usize,
) -> Result<(Candidate<'a>, LimitedBy), CapacityError> {
    if node.log + node.reserve >= question.disk_bytes as f64 {
        return Err(CapacityError::NoRoom {
            disk: about_bytes(question.disk_bytes),
            fixed: about_bytes((node.log + node.reserve) as u64),
            cores: question.cores,
        });
    }
    let mut limited_by = LimitedBy::Replicas;
    for nodes in from..=NODES_MAX {
        let candidate = Candidate::new(question, node, nodes);
        if !candidate.fits() {
            limited_by = LimitedBy::Disk;
        } else if candidate.cpu_used() > measured::CPU_SHARE_MAX {
            limited_by = LimitedBy::Cpu;
        } else {
            return Ok((candidate, limited_by));
        }
    }
    Err(CapacityError::TooManyNodes { most: NODES_MAX })
}

/// Sizes a cluster.
///
/// # Errors
/// A number out of range, settings that a node would refuse, or no cluster that could do it.
pub fn plan(question: &Question) -> Result<Plan, CapacityError> {
    question.check()?;
    let replicas = question.replicas;
    let settings_of = |memory| memory::settings(question.cores, memory, replicas);
    let from = usize::from(replicas);
    if let Some(memory) = question.memory_bytes {
        let node = Sized::new(question, &settings_of(memory)?);
        let (candidate, limited_by) = fewest(question, &node, from)?;
        return Ok(candidate.plan(limited_by));
    }
    let mut settings = memory::least(question.cores, replicas, 0.0)?;
    loop {
        let node = Sized::new(question, &settings);
        let (candidate, limited_by) = fewest(question, &node, from)?;
        let wanted = memory::least(question.cores, replicas, candidate.meta_per_core())?;
        if wanted.memory <= settings.memory {
            return Ok(candidate.plan(limited_by));
        }
        settings = wanted;
    }
}
