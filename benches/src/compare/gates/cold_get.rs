//! Gates 5 and 6: reads of data at least five times the cache, most of them from the device, once compaction
//! of what was written has settled.
//!
//! The ceiling is fio with the same queue depth on the same files, after all of them were read once: what was
//! written or read lately may lie in a cache behind the disk, where it is several times closer. RocksDB reads the same
//! data with the same budget in direct mode, by 32 threads, since it has no other way to have 32
//! reads under way.

use std::time::Duration;

use ringbolt_load::options::{Limit, Options, Preload, Workload};

use crate::compare::context::Context;
use crate::compare::gate::{Bound, Figure, Line, Skip, Unit};
use crate::compare::peers::ringbolt::{Ringbolt, measure};
use crate::compare::peers::rocksdb::RocksDb;
use crate::compare::peers::{disk, engine};
use crate::engine::{Job, ReadResult, WriteResult};

const VALUE_BYTES: u32 = 1024;
const DEPTH: usize = 32;

/// Records, and memory of the tree in bytes.
fn sizes(context: &Context) -> (u64, u64) {
    context.pick((300_000, 48 << 20), (10_000_000, 512 << 20))
}

fn time(context: &Context) -> Duration {
    context.round_time(1.5, 30.0)
}

pub(super) fn run(context: &Context) -> Result<Vec<Line>, Skip> {
    let (records, memory_bytes) = sizes(context);
    let ours_dir = context.temp_dir("engine")?;
    let job = engine::EngineJob {
        dir: ours_dir.path().join("data"),
        records,
        value_bytes: VALUE_BYTES,
        memory_bytes,
        seconds: time(context).as_secs_f64(),
        depth: DEPTH,
    };
    let _: (WriteResult, _) = job.run(context, Job::Fill)?;
    let tables = job.dir.join("tables");
    let theirs_dir = context.temp_dir("rocksdb")?;
    let rocksdb = RocksDb {
        dir: theirs_dir.path(),
        records,
        value_bytes: VALUE_BYTES,
        memtable_bytes: 16 << 20,
        cache_bytes: memory_bytes - (16 << 20),
    };
    rocksdb.fill(context)?;
    let reads = [
        "--use_existing_db=true".to_string(),
        format!("--threads={DEPTH}"),
        format!("--duration={}", time(context).as_secs().max(1)),
    ];
    let (mut ours, mut ours_cpu) = (Vec::new(), Vec::new());
    let (mut floor, mut theirs_cpu) = (Vec::new(), Vec::new());
    for _ in 0..context.rounds {
        disk::read_through(context, &tables)?;
        let (read, _): (ReadResult, _) = job.run(context, Job::Read)?;
        ours.push(read.hits.per_second());
        ours_cpu.push(read.hits.per_cpu_second());
        let fio = disk::random_reads(context, &tables, time(context))?;
        floor.push(fio.per_second);
        let theirs = rocksdb.run(context, "readrandom", &reads)?;
        theirs_cpu.push(theirs.operations / (theirs.usage.cpu_us() as f64 / 1e6).max(1e-9));
    }
    let fio = Figure::new("fio", Unit::PerSecond, floor);
    Ok(vec![
        Line::ratio(
            "cold GET/s in the engine, depth 32",
            Figure::new("Ringbolt", Unit::PerSecond, ours),
            fio.clone(),
            Bound::AtLeast(0.8),
        ),
        Line::ratio(
            "the same per CPU second",
            Figure::new("Ringbolt", Unit::PerCpuSecond, ours_cpu),
            Figure::new("RocksDB", Unit::PerCpuSecond, theirs_cpu),
            Bound::AtLeast(1.5),
        ),
        Line::ratio(
            "cold GET/s through the network",
            Figure::new("Ringbolt", Unit::PerSecond, through_the_network(context)?),
            fio,
            Bound::AtLeast(0.6),
        ),
    ])
}

fn through_the_network(context: &Context) -> Result<Vec<f64>, Skip> {
    let (records, _) = sizes(context);
    let ringbolt = Ringbolt::start(context, context.pick("128MiB", "512MiB"))?;
    let load = |preload| Options {
        workload: Workload::Get,
        preload,
        records,
        value_bytes: VALUE_BYTES..=VALUE_BYTES,
        connections: DEPTH,
        depth: 4,
        limit: Limit::Duration(time(context)),
        ..ringbolt.load()
    };
    measure(load(Preload::Only))?;
    ringbolt.settle()?;
    (0..context.rounds)
        .map(|_| measure(load(Preload::Never)).map(|report| report.all.per_second))
        .collect()
}

pub(super) fn run_device_reads(context: &Context) -> Result<Vec<Line>, Skip> {
    let (records, memory_bytes) = sizes(context);
    let dir = context.temp_dir("engine")?;
    let job = engine::EngineJob {
        dir: dir.path().join("data"),
        records,
        value_bytes: VALUE_BYTES,
        memory_bytes,
        seconds: time(context).as_secs_f64(),
        depth: DEPTH,
    };
    let _: (WriteResult, _) = job.run(context, Job::Fill)?;
    let (mut hits, mut misses) = (Vec::new(), Vec::new());
    for _ in 0..context.rounds {
        let (read, _): (ReadResult, _) = job.run(context, Job::Read)?;
        hits.push(read.hits.device_reads_each());
        misses.push(read.misses.device_reads_each());
    }
    let figure = |values| Figure::new("Ringbolt", Unit::Times, values);
    Ok(vec![
        Line::plain(
            "device reads per GET, hit",
            figure(hits),
            Bound::AtMost(1.05),
        ),
        Line::plain(
            "device reads per GET, miss",
            figure(misses),
            Bound::AtMost(0.02),
        ),
    ])
}
