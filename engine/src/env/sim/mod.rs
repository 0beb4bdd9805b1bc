//! The simulated environment: a process with virtual time and a disk that fails, deterministic from
//! one seed.
//!
//! ```
//! use std::path::Path;
//! use ringbolt_engine::env::sim::{self, SimOptions};
//! use ringbolt_engine::env::{AlignedBuf, Disk, DiskFile, Env, FileClass, SECTOR};
//!
//! let bytes = sim::run(1, SimOptions::default(), |env| async move {
//!     let disk = env.disk();
//!     let file = disk.create(Path::new("a"), FileClass::Table).await?;
//!     file.write_at(0, AlignedBuf::zeroed(SECTOR)).await.0?;
//!     file.sync().await?;
//!     disk.sync_dir(Path::new("")).await?;
//!     file.read_at(0, SECTOR).await
//! });
//! assert_eq!(bytes.map(|b| b.len()).ok(), Some(SECTOR));
//! ```
//!
//! A test of crashes keeps a [`SimWorld`]: `run` lives until the future ends or a crash that was
//! asked for strikes ([`SimEnv::crash`], [`SimEnv::crash_after_steps`], [`SimStore::crash_at_io`]);
//! [`SimWorld::crash`] then cuts the power, [`SimWorld::kill`] only ends the process, and the next
//! `run` finds the disk as that left it.
//!
//! What a power cut does to what was not synced is chosen afresh each time: all of it lost, all
//! kept, kept up to a moment, or each sector, name and length deciding for itself, some sectors
//! torn in pieces of 512 bytes. Files of class `Log` are durable write by write; their writes under
//! way at the cut are treated like unsynced ones, so a later one may survive an earlier one.
//!
//! A simulation of several machines keeps a [`SimMachine`] for each and drives their cores itself.

use std::time::Duration;

mod disk;
mod executor;
mod fault;
mod image;
mod inode;
mod machine;
mod names;
mod rng;
mod store;
mod trace;
mod world;

pub use disk::{SimDisk, SimFile};
pub use fault::{Counts, Fault, FaultRule};
pub use image::DiskImage;
pub use machine::{SimCore, SimMachine};
pub use rng::Rng;
pub use store::{IoEvent, IoMatch, IoOp, SimStore, Stray};
pub use trace::{Trace, TraceSink};
pub use world::{SimEnv, SimWorld, run};

/// How the next task is picked among those that are ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// By the seed; half the spawned tasks are polled at once.
    Random,
    /// In order of waking.
    Fifo,
}

/// The usual duration of a disk operation. Each one takes between half and one and a half of it.
#[derive(Debug, Clone, Copy)]
pub struct Latency {
    /// A read.
    pub read: Duration,
    /// A write.
    pub write: Duration,
    /// A sync of a file or directory.
    pub sync: Duration,
    /// Anything about names, lengths and free space.
    pub name: Duration,
}

/// How a simulated machine behaves.
#[derive(Debug, Clone)]
pub struct SimOptions {
    /// How tasks are picked.
    pub schedule: Schedule,
    /// Most tasks polled in one life.
    pub steps_max: u64,
    /// Most virtual time of one life.
    pub time_max: Duration,
    /// Virtual time that polling a task takes.
    pub poll_cost: Duration,
    /// `should_yield` says yes after at most so many calls in one poll.
    pub yield_calls_max: u64,
    /// How long disk operations take.
    pub latency: Latency,
    /// How many bytes the disk holds.
    pub capacity_bytes: u64,
    /// Which faults strike.
    pub faults: Vec<FaultRule>,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            schedule: Schedule::Random,
            steps_max: 20_000_000,
            time_max: Duration::from_secs(30 * 24 * 3600),
            poll_cost: Duration::from_micros(1),
            yield_calls_max: 64,
            latency: Latency {
                read: Duration::from_micros(80),
                write: Duration::from_micros(100),
                sync: Duration::from_micros(1000),
                name: Duration::from_micros(50),
            },
            capacity_bytes: 1 << 40,
            faults: Vec::new(),
        }
    }
}

/// Why a run ended before its future did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// A crash that was asked for.
    #[error("crashed as planned")]
    Crashed,
    /// No task can ever run again.
    #[error("deadlock after {steps} steps: nothing is ready, no timer is set, {tasks} tasks wait")]
    Deadlock {
        /// Spawned tasks that have not ended.
        tasks: u64,
        /// Tasks polled in this life.
        steps: u64,
    },
    /// [`SimOptions::steps_max`] was reached.
    #[error("not finished after {steps} steps")]
    TooManySteps {
        /// Tasks polled in this life.
        steps: u64,
    },
    /// [`SimOptions::time_max`] was reached.
    #[error("not finished within the virtual time allowed, after {steps} steps")]
    TooLong {
        /// Tasks polled in this life.
        steps: u64,
    },
}

#[cfg(test)]
mod tests;
