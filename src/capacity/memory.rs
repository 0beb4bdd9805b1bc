//! The memory of a node: how much index and filter blocks need, and what is left for data.
//!
//! Settings are made as a node makes them, so the shares are the node's own; the least memory is found
//! by halving, since what is left for index and filter blocks grows with the setting.

use ringbolt_engine::cache::META_SHARE_PERCENT;
use ringbolt_engine::engine::EngineOptions;

use super::CapacityError;
use crate::config::{Flag, Inputs, MEMORY_PER_CORE_MIN, Machine, Settings, load};
use crate::node::engine_options;

/// The largest memory that is looked at, for each core, in bytes.
const PER_CORE_MAX: u64 = 1 << 40;
/// Memory is planned in steps of this, for each core, in bytes.
const STEP_BYTES: u64 = 16 << 20;

/// The settings of a node with this many cores and this much memory, in bytes, all else default.
pub(super) fn settings(cores: u16, memory: u64, replicas: u8) -> Result<Settings, CapacityError> {
    let flag = |name: &str, key: &str, value: String| Flag {
        name: name.to_string(),
        key: key.to_string(),
        value,
    };
    let inputs = Inputs {
        file: None,
        environment: Vec::new(),
        flags: vec![
            flag("--cores", "cores", cores.to_string()),
            flag("--memory", "memory", memory.to_string()),
            flag("--replicas", "replication", replicas.to_string()),
            flag("--partitions", "partitions", "16384".to_string()),
        ],
        machine: Machine {
            cpus: (0..cores).collect(),
            memory,
        },
    };
    Ok(load(&inputs)?.settings)
}

/// How a core's memory is shared out, in bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shares {
    /// Memtables.
    pub memtables: f64,
    /// The block cache, pinned parts of tables included.
    pub cache: f64,
    /// What of it index and filter blocks may take.
    pub meta_max: f64,
}

impl Shares {
    pub fn new(options: &EngineOptions) -> Self {
        let tree = &options.tree;
        let memtables = tree.memtable_budget(tree.memory_bytes);
        let cache = tree.memory_bytes.saturating_sub(memtables) as f64;
        Self {
            memtables: memtables as f64,
            cache,
            meta_max: cache * f64::from(META_SHARE_PERCENT) / 100.0,
        }
    }
}

/// The least setting at which `meta` bytes of index and filter blocks stay in each core's cache; the
/// largest there is if none suffices.
pub(super) fn least(cores: u16, replicas: u8, meta: f64) -> Result<Settings, CapacityError> {
    let at = |steps: u64| settings(cores, steps * STEP_BYTES * u64::from(cores), replicas);
    let suffices = |settings: &Settings| Shares::new(&engine_options(settings)).meta_max >= meta;
    let (mut too_small, mut enough) = (
        MEMORY_PER_CORE_MIN / STEP_BYTES - 1,
        PER_CORE_MAX / STEP_BYTES,
    );
    enough = enough.min((64 << 40) / (STEP_BYTES * u64::from(cores)));
    while too_small + 1 < enough {
        let middle = too_small.midpoint(enough);
        match suffices(&at(middle)?) {
            true => enough = middle,
            false => too_small = middle,
        }
    }
    at(enough)
}
