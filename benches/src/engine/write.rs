//! Writes: each record once, or random overwrites by writers that wait for their group.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use ringbolt::runtime::RealEnv;
use ringbolt_engine::env::Env as _;
use ringbolt_load::keys::{Chooser, Keys};
use ringbolt_load::procfs::Usage;
use ringbolt_load::value::Values;
use serde::{Deserialize, Serialize};

use super::store::Store;
use super::{Args, UNIFORM};

/// Entries of a fill that wait for their group.
const FILL_DEPTH: usize = 4096;
/// Delays shorter than this are gathered.
const DELAY_MIN: Duration = Duration::from_micros(200);
/// Longest pause that pressure asks for at once.
const DELAY_MAX: Duration = Duration::from_millis(20);
/// Pause while nothing may be written.
const STOPPED: Duration = Duration::from_millis(1);

/// What writing came to.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct WriteResult {
    /// Records written and durable.
    pub writes: u64,
    /// In this time.
    pub seconds: f64,
    /// Writes in each tenth of a second.
    pub tenths: Vec<u64>,
    /// Longest time between two groups that became durable, in milliseconds.
    pub gap_ms_max: f64,
    /// Bytes sent to storage in that time, log included.
    pub write_bytes: u64,
    /// CPU time in that time, in seconds.
    pub cpu_seconds: f64,
    /// Bytes of tables at the end.
    pub table_bytes: u64,
    /// Most resident memory of the process so far, in bytes.
    pub rss_bytes_max: u64,
}

/// Counts of one job.
struct Tally {
    begun: Duration,
    last: Duration,
    result: WriteResult,
    usage: Usage,
}

impl Tally {
    fn begin(env: &RealEnv) -> Self {
        Self {
            begun: env.now(),
            last: env.now(),
            result: WriteResult::default(),
            usage: Usage::of_self().unwrap_or_default(),
        }
    }

    fn add(&mut self, now: Duration, writes: usize) {
        if writes == 0 {
            return;
        }
        let tenth = (now.saturating_sub(self.begun).as_millis() / 100) as usize;
        if self.result.tenths.len() <= tenth {
            self.result.tenths.resize(tenth + 1, 0);
        }
        self.result.tenths[tenth] += writes as u64;
        self.result.writes += writes as u64;
        let gap = now.saturating_sub(self.last).as_secs_f64() * 1e3;
        self.result.gap_ms_max = self.result.gap_ms_max.max(gap);
        self.last = now;
    }

    fn end(mut self, env: &RealEnv, store: &Store) -> WriteResult {
        let usage = Usage::of_self().unwrap_or_default();
        let used = usage.since(&self.usage);
        self.result.seconds = env.now().saturating_sub(self.begun).as_secs_f64();
        self.result.write_bytes = used.write_bytes;
        self.result.cpu_seconds = used.cpu_us() as f64 / 1e6;
        self.result.table_bytes = store.stats().tree.table_bytes;
        self.result.rss_bytes_max = used.rss_bytes_max;
        self.result
    }
}

/// Writes with up to `depth` entries waiting, until `next` gives no more keys or time is up.
async fn drive(
    env: &RealEnv,
    store: &mut Store,
    args: &Args,
    depth: usize,
    until: Option<Duration>,
    mut next: impl FnMut() -> Option<u64>,
) -> Result<Tally, String> {
    let mut keys = Keys::new("");
    let values = Values::new(args.value_bytes, 1.0, args.seed);
    let mut tally = Tally::begin(env);
    let mut in_flight = 0;
    let mut held: Option<u64> = None;
    let mut over = false;
    let mut debt = Duration::ZERO;
    let kib = f64::from(args.value_bytes) / 1024.0;
    loop {
        let now = env.now();
        over |= until.is_some_and(|until| now >= until);
        let pressure = store.pressure();
        if pressure.stop && in_flight == 0 {
            env.sleep(STOPPED).await;
            continue;
        }
        while !over && !pressure.stop && in_flight < depth {
            let Some(index) = held.take().or_else(&mut next) else {
                over = true;
                break;
            };
            let value = values.plain(index ^ tally.result.writes, args.value_bytes);
            if !store.put(keys.key(index), value)? {
                held = Some(index);
                break;
            }
            in_flight += 1;
            debt += pressure.delay_per_kib.mul_f64(kib);
        }
        if over && in_flight == 0 {
            return Ok(tally);
        }
        let durable = store.turn().await?;
        in_flight -= durable.min(in_flight);
        tally.add(env.now(), durable);
        if debt >= DELAY_MIN {
            let pause = debt.min(DELAY_MAX);
            env.sleep(pause).await;
            debt -= pause;
        }
    }
}

/// Writes each of the job's records once.
pub(super) async fn each_once(
    env: &RealEnv,
    store: &mut Store,
    args: &Args,
) -> Result<WriteResult, String> {
    let mut indexes = 0..args.records;
    let tally = drive(env, store, args, FILL_DEPTH, None, || indexes.next()).await?;
    Ok(tally.end(env, store))
}

/// Writes each record once and lets compaction settle.
pub(super) async fn fill(env: RealEnv, args: &Args) -> Result<WriteResult, String> {
    let mut store = Store::open(env.clone(), args).await?;
    let result = each_once(&env, &mut store, args).await?;
    store.settle().await?;
    let table_bytes = store.stats().tree.table_bytes;
    store.close().await?;
    Ok(WriteResult {
        table_bytes,
        ..result
    })
}

/// Overwrites random records, a third of the time as a warm-up.
pub(super) async fn overwrite(env: RealEnv, args: &Args) -> Result<WriteResult, String> {
    let mut store = Store::open(env.clone(), args).await?;
    let mut rng = SmallRng::seed_from_u64(args.seed);
    let chooser = Chooser::new(UNIFORM, args.records);
    let mut next = || Some(chooser.draw(&mut rng, args.records));
    let time = Duration::from_secs_f64(args.seconds);
    let until = env.now() + time / 3;
    drive(&env, &mut store, args, args.depth, Some(until), &mut next).await?;
    let until = env.now() + time;
    let tally = drive(&env, &mut store, args, args.depth, Some(until), &mut next).await?;
    let result = tally.end(&env, &store);
    store.close().await?;
    Ok(result)
}
