//! Gates 7, 8 and 9: random overwrites of data that is many times the memtable, by 64 writers that
//! each wait until their write is durable (after a third of that time as a warm-up, in which the
//! log fills its first segments with zeros); against RocksDB's leveled tree with equal memtable and
//! cache budgets, its log synced for each group of the same 64 writers.
//!
//! Write amplification is what the process sent to storage (`/proc/PID/io`, log included) over the
//! bytes of keys and values that were written. Space amplification is what the folder takes on
//! disk, sampled all along, over the bytes of the live records.

use std::cell::RefCell;
use std::rc::Rc;

use crate::compare::context::Context;
use crate::compare::gate::{Bound, Figure, Line, Skip, Unit, median};
use crate::compare::peers::engine::EngineJob;
use crate::compare::peers::fjall;
use crate::compare::peers::rocksdb::{KEY_BYTES, RocksDb};
use crate::compare::process::disk_bytes;
use crate::engine::{Job, WriteResult};

const VALUE_BYTES: u32 = 1024;
const WRITERS: usize = 64;
/// The folder is measured at every so many looks at the process, 10 ms apart.
const SPACE_EVERY: u32 = 10;

/// What one side came to, a value for each round.
#[derive(Debug, Default)]
struct Side {
    per_second: Vec<f64>,
    write_amplification: Vec<f64>,
    space_steady: Vec<f64>,
    space_peak: Vec<f64>,
    worst_second: Vec<f64>,
    gap_ms: Vec<f64>,
}

#[derive(Debug, Default)]
struct Both {
    ours: Side,
    theirs: Side,
    fjall_per_second: Vec<f64>,
}

/// Looks at a folder's size now and then.
struct SpaceWatch<'a> {
    dir: &'a std::path::Path,
    looks: u32,
    sizes: RefCell<Vec<f64>>,
}

impl<'a> SpaceWatch<'a> {
    fn new(dir: &'a std::path::Path) -> Self {
        Self {
            dir,
            looks: 0,
            sizes: RefCell::default(),
        }
    }

    fn look(&mut self) {
        if self.looks.is_multiple_of(SPACE_EVERY) {
            self.sizes.borrow_mut().push(disk_bytes(self.dir) as f64);
        }
        self.looks += 1;
    }

    fn steady_and_peak(&self) -> (f64, f64) {
        let sizes = self.sizes.borrow();
        (median(&sizes), sizes.iter().copied().fold(0.0, f64::max))
    }
}

/// Which peers take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Peers {
    Nobody,
    RocksDb,
    RocksDbAndFjall,
}

fn measured(context: &Context) -> Result<Rc<Both>, Skip> {
    let peers = match (context.wants(7), context.wants(9)) {
        (_, true) => Peers::RocksDbAndFjall,
        (true, false) => Peers::RocksDb,
        (false, false) => Peers::Nobody,
    };
    context.once(|| measure(context, peers))
}

fn measure(context: &Context, peers: Peers) -> Result<Both, Skip> {
    let (records, memory_bytes, seconds) =
        context.pick((200_000, 48 << 20, 3.0), (10_000_000, 512 << 20, 600.0));
    let memtable_bytes = memory_bytes * 35 / 100;
    let record_bytes = (KEY_BYTES + u64::from(VALUE_BYTES)) as f64;
    let live_bytes = records as f64 * record_bytes;
    let ours_dir = context.temp_dir("engine")?;
    let job = EngineJob {
        dir: ours_dir.path().join("data"),
        records,
        value_bytes: VALUE_BYTES,
        memory_bytes,
        seconds,
        depth: WRITERS,
    };
    let _: (WriteResult, _) = job.run(context, Job::Fill)?;
    let theirs_dir = context.temp_dir("rocksdb")?;
    let rocksdb = RocksDb {
        dir: theirs_dir.path(),
        records,
        value_bytes: VALUE_BYTES,
        memtable_bytes,
        cache_bytes: memory_bytes - memtable_bytes,
    };
    if peers >= Peers::RocksDb {
        rocksdb.fill(context)?;
    }
    let mut both = Both::default();
    for _ in 0..context.rounds {
        let tables = job.dir.join("tables");
        let mut space = SpaceWatch::new(&tables);
        let (wrote, _): (WriteResult, _) =
            job.run_watched(context, Job::Overwrite, || space.look())?;
        let (steady, peak) = space.steady_and_peak();
        let rate = wrote.writes as f64 / wrote.seconds.max(1e-9);
        let ours = &mut both.ours;
        ours.per_second.push(rate);
        ours.write_amplification
            .push(wrote.write_bytes as f64 / (wrote.writes as f64 * record_bytes));
        ours.space_steady.push(steady / live_bytes);
        ours.space_peak.push(peak / live_bytes);
        ours.worst_second.push(worst_second(&wrote) / rate);
        ours.gap_ms.push(wrote.gap_ms_max);
        if peers >= Peers::RocksDb {
            let flags = [
                "--use_existing_db=true".to_string(),
                "--sync=true".to_string(),
                format!("--threads={WRITERS}"),
                format!("--duration={}", seconds as u64),
            ];
            let wrote = rocksdb.run(context, "overwrite", &flags)?;
            let theirs = &mut both.theirs;
            theirs.per_second.push(wrote.per_second);
            theirs
                .write_amplification
                .push(wrote.usage.write_bytes as f64 / (wrote.operations * record_bytes));
        }
        if peers == Peers::RocksDbAndFjall {
            // Told for comparison only, so a short look is enough.
            let look = EngineJob {
                seconds: seconds.min(30.0),
                ..job.clone()
            };
            let dir = context.temp_dir("fjall")?;
            let rate = fjall::overwrite(context, &look, memtable_bytes, dir.path())?;
            both.fjall_per_second.push(rate);
        }
    }
    Ok(both)
}

/// Writes of the slowest second, any ten tenths in a row.
fn worst_second(wrote: &WriteResult) -> f64 {
    let whole = ((wrote.seconds * 10.0) as usize).min(wrote.tenths.len());
    wrote.tenths[..whole]
        .windows(10)
        .map(|second| second.iter().sum::<u64>())
        .min()
        .unwrap_or(0) as f64
}

pub(super) fn run_write_amplification(context: &Context) -> Result<Vec<Line>, Skip> {
    let both = measured(context)?;
    let figure = |side, values: &Vec<f64>| Figure::new(side, Unit::Times, values.clone());
    Ok(vec![Line::ratio(
        "write amplification, log included",
        figure("Ringbolt", &both.ours.write_amplification),
        figure("RocksDB", &both.theirs.write_amplification),
        Bound::AtMost(0.8),
    )])
}

pub(super) fn run_space_amplification(context: &Context) -> Result<Vec<Line>, Skip> {
    let both = measured(context)?;
    let figure = |values: &Vec<f64>| Figure::new("Ringbolt", Unit::Times, values.clone());
    Ok(vec![
        Line::plain(
            "space amplification, steady",
            figure(&both.ours.space_steady),
            Bound::AtMost(1.2),
        ),
        Line::plain(
            "space amplification, peak",
            figure(&both.ours.space_peak),
            Bound::AtMost(1.4),
        ),
    ])
}

pub(super) fn run_throughput(context: &Context) -> Result<Vec<Line>, Skip> {
    let both = measured(context)?;
    let figure = |side, unit, values: &Vec<f64>| Figure::new(side, unit, values.clone());
    let ours = figure("Ringbolt", Unit::PerSecond, &both.ours.per_second);
    Ok(vec![
        Line::ratio(
            "durable random writes/s, 64 writers",
            ours.clone(),
            figure("RocksDB", Unit::PerSecond, &both.theirs.per_second),
            Bound::AtLeast(1.0),
        ),
        Line::ratio(
            "the same over fjall",
            ours,
            figure("fjall", Unit::PerSecond, &both.fjall_per_second),
            Bound::Told,
        ),
        Line::plain(
            "worst second over the mean",
            figure("Ringbolt", Unit::Times, &both.ours.worst_second),
            Bound::AtLeast(0.7),
        ),
        Line::plain(
            "longest gap between durable writes, ms",
            figure("Ringbolt", Unit::Ms, &both.ours.gap_ms),
            Bound::AtMost(100.0),
        ),
    ])
}
