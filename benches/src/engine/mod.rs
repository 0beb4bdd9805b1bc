//! The storage engine alone, driven over the real environment on one core: what a shard does, less
//! the network. Each job runs in a process of its own, so that its CPU time, I/O and memory can be
//! told, and prints one JSON object.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use ringbolt::runtime::{CoreOptions, LaunchOptions, RealEnv, launch, probe};
use ringbolt_load::options::Distribution;

mod read;
mod replay;
mod seek;
mod store;
mod write;

pub use read::ReadResult;
pub use replay::ReplayResult;
pub use seek::SeekResult;
pub use write::WriteResult;

/// How long the durability probe may take for each mode.
const PROBE_TIME: Duration = Duration::from_millis(100);

/// Drive the storage engine alone, and print what was measured as JSON.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// What to do.
    job: Job,

    /// Folder of the data.
    #[arg(long)]
    dir: PathBuf,

    /// Records.
    #[arg(long, default_value_t = 100_000)]
    records: u64,

    /// Bytes per value.
    #[arg(long, default_value_t = 1024)]
    value_bytes: u32,

    /// Memory of the tree: memtables, cache, pinned indexes, in bytes.
    #[arg(long, default_value_t = 64 << 20)]
    memory_bytes: u64,

    /// How long to measure, in seconds.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,

    /// Writers, or reads under way at once.
    #[arg(long, default_value_t = 64)]
    depth: usize,

    /// Seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Job {
    /// Write every record once, in random order, and wait until compaction has settled.
    Fill,
    /// Overwrite random records, durably, with `depth` writers that wait for each other's group.
    Overwrite,
    /// Read random records that exist, then ones that do not.
    Read,
    /// Seek among fresh records, then past 100,000 deleted ones.
    Seek,
    /// Write every record once, and wait to be killed.
    Die,
    /// Open, and tell how long that took.
    Reopen,
}

impl Job {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fill => "fill",
            Self::Overwrite => "overwrite",
            Self::Read => "read",
            Self::Seek => "seek",
            Self::Die => "die",
            Self::Reopen => "reopen",
        }
    }
}

/// Runs a job.
pub fn run(args: Args) -> ExitCode {
    match on_a_core(args) {
        Ok(json) => {
            println!("{json}");
            ExitCode::SUCCESS
        }
        Err(what) => {
            eprintln!("ringbolt-benches engine: {what}");
            ExitCode::from(1)
        }
    }
}

fn on_a_core(args: Args) -> Result<serde_json::Value, String> {
    std::fs::create_dir_all(&args.dir)
        .map_err(|error| format!("{}: {error}", args.dir.display()))?;
    let probed = probe::durability(parent(&args.dir), PROBE_TIME)
        .map_err(|error| format!("the durability probe: {error}"))?;
    let options = LaunchOptions {
        // Pinned by whoever started the process.
        cpus: vec![None],
        core: CoreOptions {
            durability: probed.mode,
            ..CoreOptions::default()
        },
    };
    let cores =
        launch(&options, move |env| work(env, args.clone())).map_err(|error| error.to_string())?;
    cores
        .join()
        .pop()
        .ok_or("no core was started")?
        .map_err(|error| error.to_string())?
}

fn parent(dir: &Path) -> &Path {
    dir.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

async fn work(env: RealEnv, args: Args) -> Result<serde_json::Value, String> {
    let result = match args.job {
        Job::Fill => serde_json::to_value(write::fill(env, &args).await?),
        Job::Overwrite => serde_json::to_value(write::overwrite(env, &args).await?),
        Job::Read => serde_json::to_value(read::run(env, &args).await?),
        Job::Seek => serde_json::to_value(seek::run(env, &args).await?),
        Job::Die => serde_json::to_value(replay::die(env, &args).await?),
        Job::Reopen => serde_json::to_value(replay::reopen(env, &args).await?),
    };
    result.map_err(|error| error.to_string())
}

/// Draws records alike.
const UNIFORM: Distribution = Distribution::Uniform;
