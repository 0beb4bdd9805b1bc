//! fjall under the load of [`crate::engine`]'s overwrites: each of the writers is a thread that
//! inserts and syncs the journal before it goes on. It runs in a process of its own, like the rest.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fjall::{Database, KeyspaceCreateOptions, PersistMode};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use ringbolt_load::keys::Keys;
use ringbolt_load::value::Values;
use serde::{Deserialize, Serialize};

/// Fill fjall and overwrite random records, durably; print what was measured as JSON.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Folder of the data.
    #[arg(long)]
    dir: PathBuf,

    /// Records.
    #[arg(long)]
    records: u64,

    /// Bytes per value.
    #[arg(long)]
    value_bytes: u32,

    /// Memory for the cache, in bytes.
    #[arg(long)]
    cache_bytes: u64,

    /// Memory for memtables, in bytes: two of them.
    #[arg(long)]
    memtable_bytes: u64,

    /// How long to measure, in seconds.
    #[arg(long)]
    seconds: f64,

    /// Writers.
    #[arg(long)]
    depth: usize,
}

/// What overwriting came to.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct FjallResult {
    /// Durable writes per second.
    pub writes_per_second: f64,
}

/// Runs the job.
pub fn run(args: &Args) -> ExitCode {
    match overwrite(args) {
        Ok(result) => {
            println!("{{\"writes_per_second\":{}}}", result.writes_per_second);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("ringbolt-benches fjall: {error}");
            ExitCode::from(1)
        }
    }
}

fn overwrite(args: &Args) -> fjall::Result<FjallResult> {
    let db = Database::builder(&args.dir)
        .cache_size(args.cache_bytes)
        .open()?;
    let rows = db.keyspace("rows", || {
        KeyspaceCreateOptions::default().max_memtable_size(args.memtable_bytes / 2)
    })?;
    let values = Values::new(args.value_bytes, 1.0, 1);
    let mut keys = Keys::new("");
    for index in 0..args.records {
        rows.insert(keys.key(index), values.plain(index, args.value_bytes))?;
    }
    db.persist(PersistMode::SyncAll)?;
    let writes = AtomicU64::new(0);
    let begun = Instant::now();
    let until = begun + Duration::from_secs_f64(args.seconds);
    let writer = |number: usize| {
        let mut rng = SmallRng::seed_from_u64(number as u64);
        let mut keys = Keys::new("");
        while Instant::now() < until {
            let index = rng.random_range(0..args.records);
            let value = values.plain(rng.random(), args.value_bytes);
            rows.insert(keys.key(index), value)?;
            db.persist(PersistMode::SyncData)?;
            writes.fetch_add(1, Ordering::Relaxed);
        }
        fjall::Result::Ok(())
    };
    let writer = &writer;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..args.depth)
            .map(|number| scope.spawn(move || writer(number)))
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })?;
    Ok(FjallResult {
        writes_per_second: writes.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64(),
    })
}
