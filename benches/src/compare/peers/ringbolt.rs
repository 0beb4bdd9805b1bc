//! The Ringbolt server, on a private port.

use std::time::{Duration, Instant};

use ringbolt::node::says_ready;
use ringbolt_load::options::{Options, Protocol};
use ringbolt_load::procfs::Usage;
use ringbolt_load::{LoadError, Report};
use tempfile::TempDir;

use crate::compare::context::Context;
use crate::compare::gate::Skip;
use crate::compare::process::{Process, free_port};

/// Compaction has settled when nothing was written for this long.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
/// Longest that it may take.
const SETTLED_WITHIN: Duration = Duration::from_secs(600);

/// A running Ringbolt.
#[derive(Debug)]
pub struct Ringbolt {
    process: Process,
    port: u16,
    /// The port of the door for Redis clients, if it is open.
    door: Option<u16>,
    _dir: TempDir,
}

impl Ringbolt {
    /// Starts one with one core, in an empty folder.
    pub fn start(context: &Context, memory: &str) -> Result<Self, Skip> {
        Self::start_on(context, &context.server_cpu.to_string(), 1, memory)
    }

    /// The same, with a door for Redis clients.
    pub fn start_with_door(context: &Context, memory: &str) -> Result<Self, Skip> {
        let cpu = context.server_cpu.to_string();
        Self::begin(context, &cpu, 1, memory, Some(free_port()?))
    }

    /// Starts one with `cores` cores on the CPUs listed.
    pub fn start_on(
        context: &Context,
        cpus: &str,
        cores: usize,
        memory: &str,
    ) -> Result<Self, Skip> {
        Self::begin(context, cpus, cores, memory, None)
    }

    fn begin(
        context: &Context,
        cpus: &str,
        cores: usize,
        memory: &str,
        door: Option<u16>,
    ) -> Result<Self, Skip> {
        let dir = context.temp_dir("ringbolt")?;
        let port = free_port()?;
        let log = dir.path().join("log");
        let data = dir.path().join("data");
        let data_text = data.to_string_lossy();
        let listen = format!("127.0.0.1:{port}");
        let cores = cores.to_string();
        let resp = door.map_or("off".into(), |port| format!("127.0.0.1:{port}"));
        let args = [
            "server", "--data", &data_text, "--listen", &listen, "--cores", &cores, "--cpus", cpus,
            "--memory", memory, "--resp", &resp,
        ];
        let program = context.ringbolt.as_os_str();
        let mut process = Process::start(cpus, "ringbolt server", program, &args, &log)?;
        process.wait_until(&log, |said| said.lines().any(says_ready))?;
        Ok(Self {
            process,
            port,
            door,
            _dir: dir,
        })
    }

    /// Waits until compaction has settled: until nothing is written for a while.
    pub fn settle(&self) -> Result<(), Skip> {
        let written = || {
            let usage = Usage::of(self.process.id());
            usage.map(|usage| usage.write_bytes)
        };
        let failed = |error: LoadError| Skip::Failed(format!("ringbolt server: {error}"));
        let deadline = Instant::now() + SETTLED_WITHIN;
        let mut before = written().map_err(failed)?;
        loop {
            std::thread::sleep(SETTLED_AFTER);
            let now = written().map_err(failed)?;
            if now == before {
                return Ok(());
            }
            if Instant::now() > deadline {
                let why = "ringbolt server: compaction does not come to an end";
                return Err(Skip::Failed(why.into()));
            }
            before = now;
        }
    }

    /// Options of a load on it.
    pub fn load(&self) -> Options {
        Options {
            addr: format!("127.0.0.1:{}", self.port),
            protocol: Protocol::Ringbolt,
            server_pid: Some(self.process.id()),
            ..base_load()
        }
    }

    /// The ways in that Redis is held against, as a measure's name ends: Ringbolt's own protocol, and
    /// the door for Redis clients.
    pub fn ways(&self) -> Result<[(&'static str, Options); 2], Skip> {
        let port = self
            .door
            .ok_or_else(|| Skip::Failed("the server was started without a door".into()))?;
        let door = Options {
            addr: format!("127.0.0.1:{port}"),
            protocol: Protocol::Redis,
            ..self.load()
        };
        Ok([("", self.load()), (", RESP", door)])
    }
}

/// What loads on all servers have in common: 16-byte keys, 100-byte values that do not compress.
pub fn base_load() -> Options {
    Options {
        key_prefix: String::new(),
        value_bytes: 100..=100,
        records: 100_000,
        warmup: Duration::from_millis(300),
        progress: false,
        ..Options::default()
    }
}

/// Runs a load; errors of requests are errors.
pub fn measure(options: Options) -> Result<Report, Skip> {
    let server = options.protocol;
    let report = ringbolt_load::run(options)
        .map_err(|error: LoadError| Skip::Failed(format!("load on {server}: {error}")))?;
    if let Some(why) = &report.interrupted {
        return Err(Skip::Failed(format!("load on {server}: {why}")));
    }
    if report.absent > 0 {
        return Err(Skip::Failed(format!(
            "load on {server}: {} reads found nothing",
            report.absent
        )));
    }
    Ok(report)
}
