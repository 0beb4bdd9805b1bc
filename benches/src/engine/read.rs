//! Random reads, many at once: of records that exist, then of ones that do not.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use ringbolt::runtime::RealEnv;
use ringbolt_engine::env::{Env as _, TaskClass};
use ringbolt_engine::tree::Lookup;
use ringbolt_load::keys::Keys;
use ringbolt_load::procfs::Usage;
use serde::{Deserialize, Serialize};

use super::Args;
use super::store::Store;

/// Records that do not exist are numbered from here.
const ABSENT: u64 = 1 << 40;
/// The cache is warmed for this part of the time measured.
const WARM_PART: f64 = 0.3;

/// Reads of one kind.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Reads {
    /// Reads done.
    pub reads: u64,
    /// In this time.
    pub seconds: f64,
    /// CPU time, in seconds.
    pub cpu_seconds: f64,
    /// Reads that the device was asked for.
    pub device_reads: u64,
    /// Reads that found a record.
    pub found: u64,
}

impl Reads {
    /// Reads per second.
    pub fn per_second(&self) -> f64 {
        self.reads as f64 / self.seconds.max(1e-9)
    }

    /// Reads per second of CPU time.
    pub fn per_cpu_second(&self) -> f64 {
        self.reads as f64 / self.cpu_seconds.max(1e-9)
    }

    /// Device reads per read.
    pub fn device_reads_each(&self) -> f64 {
        self.device_reads as f64 / self.reads.max(1) as f64
    }
}

/// What reading came to.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct ReadResult {
    /// Records that exist.
    pub hits: Reads,
    /// Records that do not.
    pub misses: Reads,
    /// Bytes of tables.
    pub table_bytes: u64,
    /// Memory of the block cache, in bytes.
    pub cache_bytes: u64,
}

struct Shared {
    store: Store,
    until: Cell<Duration>,
    readers: Cell<usize>,
    reads: Cell<u64>,
    found: Cell<u64>,
    failure: Cell<Option<String>>,
}

pub(super) async fn run(env: RealEnv, args: &Args) -> Result<ReadResult, String> {
    let store = Store::open(env.clone(), args).await?;
    let shared = Rc::new(Shared {
        store,
        until: Cell::new(Duration::ZERO),
        readers: Cell::new(0),
        reads: Cell::new(0),
        found: Cell::new(0),
        failure: Cell::new(None),
    });
    phase(&env, &shared, args, 0, args.seconds * WARM_PART).await?;
    let hits = phase(&env, &shared, args, 0, args.seconds).await?;
    let misses = phase(&env, &shared, args, ABSENT, args.seconds * 0.5).await?;
    let stats = shared.store.stats().tree;
    if hits.found != hits.reads || misses.found != 0 {
        return Err(format!(
            "{} of {} records found, and {} that do not exist",
            hits.found, hits.reads, misses.found
        ));
    }
    Ok(ReadResult {
        hits,
        misses,
        table_bytes: stats.table_bytes,
        cache_bytes: stats.cache_bytes,
    })
}

async fn phase(
    env: &RealEnv,
    shared: &Rc<Shared>,
    args: &Args,
    base: u64,
    seconds: f64,
) -> Result<Reads, String> {
    let device_reads = || shared.store.stats().tree.device_reads;
    let before = (device_reads(), Usage::of_self().unwrap_or_default());
    let begun = env.now();
    shared.reads.set(0);
    shared.found.set(0);
    shared.until.set(begun + Duration::from_secs_f64(seconds));
    shared.readers.set(args.depth);
    for reader in 0..args.depth {
        let task = read_on(
            env.clone(),
            shared.clone(),
            SmallRng::seed_from_u64(args.seed ^ (reader as u64) << 32 ^ base),
            base..base + args.records,
        );
        env.spawn(TaskClass::Foreground, task);
    }
    while shared.readers.get() > 0 {
        env.sleep(Duration::from_millis(5)).await;
    }
    if let Some(failure) = shared.failure.take() {
        return Err(failure);
    }
    let usage = Usage::of_self().unwrap_or_default();
    Ok(Reads {
        reads: shared.reads.get(),
        seconds: env.now().saturating_sub(begun).as_secs_f64(),
        cpu_seconds: usage.since(&before.1).cpu_us() as f64 / 1e6,
        device_reads: device_reads() - before.0,
        found: shared.found.get(),
    })
}

/// One reader: one read after the other until time is up.
async fn read_on(env: RealEnv, shared: Rc<Shared>, mut rng: SmallRng, range: std::ops::Range<u64>) {
    let mut keys = Keys::new("");
    while env.now() < shared.until.get() {
        let row_key = Store::row_key(keys.key(rng.random_range(range.clone())));
        let at = shared.store.at();
        let tree = shared.store.tree();
        let found = match tree.get_now(row_key.as_slice(), at, |_, value| value.len()) {
            Lookup::Found(_) => true,
            Lookup::Absent => false,
            Lookup::NeedsDisk(undecided) => match tree
                .go_on(undecided, row_key.as_slice(), at, |_, value| value.len())
                .await
            {
                Ok(len) => len.is_some(),
                Err(error) => {
                    shared.failure.set(Some(error.to_string()));
                    break;
                }
            },
        };
        shared.reads.set(shared.reads.get() + 1);
        shared.found.set(shared.found.get() + u64::from(found));
        env.yield_if_needed().await;
    }
    shared.readers.set(shared.readers.get() - 1);
}
