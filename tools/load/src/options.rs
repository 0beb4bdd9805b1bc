//! What a run is told: plain data, filled in by the command line or by the comparison suite.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ringbolt_wire::message::Ack;

use crate::LoadError;

/// Most connections of one run.
pub const CONNECTIONS_MAX: usize = 60_000;
/// Most unanswered requests of one connection.
pub const DEPTH_MAX: usize = 4096;
/// Most generator threads.
pub const THREADS_MAX: usize = 256;
/// Largest value, in bytes.
pub const VALUE_BYTES_MAX: u32 = 16 << 20;
/// Longest key prefix, in bytes.
pub const KEY_PREFIX_BYTES_MAX: usize = 256;
/// Most records of a verified run: their state is kept in memory (about 32 B each).
pub const VERIFY_RECORDS_MAX: u64 = 100_000_000;

/// Which protocol the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Ringbolt's own.
    Ringbolt,
    /// Redis RESP2: SET, GET and DEL only, replies in order.
    Redis,
}

/// What the requests are. Percentages in the order read / update / insert / scan /
/// read-modify-write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// 0/100/0/0/0.
    Put,
    /// 100/0/0/0/0.
    Get,
    /// `reads` percent reads, the rest updates.
    Mixed {
        /// Percentage of reads, 0..=100.
        reads: u8,
    },
    /// 0/0/0/100/0.
    Scan,
    /// YCSB A, update heavy: 50/50/0/0/0, zipfian.
    YcsbA,
    /// YCSB B, read mostly: 95/5/0/0/0, zipfian.
    YcsbB,
    /// YCSB C, read only: 100/0/0/0/0, zipfian.
    YcsbC,
    /// YCSB D, read latest: 95/0/5/0/0, latest.
    YcsbD,
    /// YCSB E, short ranges: 0/0/5/95/0, zipfian.
    YcsbE,
    /// YCSB F, read-modify-write: 50/0/0/0/50, zipfian.
    YcsbF,
}

/// How keys are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distribution {
    /// Each record alike.
    Uniform,
    /// Zipf with exponent 0.99, scrambled: the hot records are spread over the key space.
    Zipfian,
    /// Zipf with exponent 0.99 from the newest record backwards.
    Latest,
}

/// When the measured phase ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// After this long.
    Duration(Duration),
    /// After this many requests, over all connections.
    Ops(u64),
}

/// Whether records are written before the measured phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preload {
    /// If the workload reads.
    Auto,
    /// Yes.
    Always,
    /// No.
    Never,
    /// Yes, and nothing else.
    Only,
}

/// How an open loop spaces its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrivals {
    /// At equal distances.
    Constant,
    /// As independent users do: exponentially distributed distances.
    Poisson,
}

/// A whole run.
#[derive(Debug, Clone)]
pub struct Options {
    /// `host:port` of the server; of a cluster, of any of its nodes, with commas between.
    pub addr: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// The mix of requests.
    pub workload: Workload,
    /// How keys are drawn; `None` for the workload's own.
    pub distribution: Option<Distribution>,
    /// Connections, 1..=[`CONNECTIONS_MAX`].
    pub connections: usize,
    /// Unanswered requests a connection may have, 1..=[`DEPTH_MAX`].
    pub depth: usize,
    /// Generator threads, 1..=[`THREADS_MAX`], at most one per connection.
    pub threads: usize,
    /// Records in the data set, at least 1.
    pub records: u64,
    /// Value size in bytes; each write draws from this range.
    pub value_bytes: RangeInclusive<u32>,
    /// What a good compressor would leave of a value, 0 < r ≤ 1.
    pub value_ratio: f64,
    /// Rows a scan asks for; each draws from this range.
    pub scan_rows: RangeInclusive<u32>,
    /// What every key begins with.
    pub key_prefix: String,
    /// The keyspace's name; created if it is not there. Ringbolt only.
    pub keyspace: String,
    /// When writes are acknowledged. Ringbolt only.
    pub ack: Ack,
    /// When the measured phase ends.
    pub limit: Limit,
    /// Time before measuring starts, the load already on.
    pub warmup: Duration,
    /// Seed of everything random.
    pub seed: u64,
    /// Open loop: requests per second over all connections. `None`: closed loop.
    pub rate: Option<f64>,
    /// Spacing in an open loop.
    pub arrivals: Arrivals,
    /// Whether to write the records first.
    pub preload: Preload,
    /// Check every value, and read back every acknowledged write at the end.
    pub verify: bool,
    /// Percentage of a verified run's writes that are deletes, 0..=100.
    pub deletes: u8,
    /// Where to keep what was acknowledged. Implies `verify`.
    pub ledger: Option<PathBuf>,
    /// How long a request may take before its connection is given up.
    pub timeout: Duration,
    /// How long a lost server is waited for.
    pub reconnect_for: Duration,
    /// The server's process, if it runs here: its CPU time, I/O and memory are reported.
    pub server_pid: Option<u32>,
    /// Show progress on stderr if it is a terminal.
    pub progress: bool,
    /// Set it to end the measured phase early; what was measured is reported all the same.
    pub stop: Arc<AtomicBool>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            addr: "127.0.0.1:7400".into(),
            protocol: Protocol::Ringbolt,
            workload: Workload::Mixed { reads: 50 },
            distribution: None,
            connections: 50,
            depth: 1,
            threads: 1,
            records: 100_000,
            value_bytes: 100..=100,
            value_ratio: 1.0,
            scan_rows: 1..=100,
            key_prefix: "bench:".into(),
            keyspace: "default".into(),
            ack: Ack::Quorum,
            limit: Limit::Duration(Duration::from_secs(10)),
            warmup: Duration::from_secs(1),
            seed: 1,
            rate: None,
            arrivals: Arrivals::Constant,
            preload: Preload::Auto,
            verify: false,
            deletes: 5,
            ledger: None,
            timeout: Duration::from_secs(5),
            reconnect_for: Duration::from_secs(30),
            server_pid: None,
            progress: true,
            stop: Arc::default(),
        }
    }
}

impl Options {
    /// Whether this run checks what it reads.
    pub fn verifies(&self) -> bool {
        self.verify || self.ledger.is_some()
    }

    /// The distribution in effect.
    pub fn distribution(&self) -> Distribution {
        self.distribution.unwrap_or(match self.workload {
            Workload::YcsbA
            | Workload::YcsbB
            | Workload::YcsbC
            | Workload::YcsbE
            | Workload::YcsbF => Distribution::Zipfian,
            Workload::YcsbD => Distribution::Latest,
            _ => Distribution::Uniform,
        })
    }

    /// Whether this run writes its records first.
    pub fn preloads(&self) -> bool {
        match self.preload {
            Preload::Auto => !self.verifies() && self.workload.reads(),
            Preload::Always | Preload::Only => true,
            Preload::Never => false,
        }
    }

    /// Checks everything that does not need the server.
    ///
    /// # Errors
    /// [`LoadError::Usage`] names the option and what it may be.
    pub fn check(&self) -> Result<(), LoadError> {
        let require = |ok: bool, what: &str| {
            if ok {
                Ok(())
            } else {
                Err(LoadError::Usage(what.to_string()))
            }
        };
        require(
            (1..=CONNECTIONS_MAX).contains(&self.connections),
            "--connections: 1 to 60000",
        )?;
        require((1..=DEPTH_MAX).contains(&self.depth), "--depth: 1 to 4096")?;
        require(
            (1..=THREADS_MAX).contains(&self.threads) && self.threads <= self.connections,
            "--threads: 1 to 256, and no more than --connections",
        )?;
        require(self.records >= 1, "--records: at least 1")?;
        require(
            !self.value_bytes.is_empty() && *self.value_bytes.end() <= VALUE_BYTES_MAX,
            "--value-size: up to 16 MiB, as BYTES or MIN-MAX",
        )?;
        require(
            self.value_ratio > 0.0 && self.value_ratio <= 1.0,
            "--value-ratio: above 0, up to 1",
        )?;
        require(
            !self.scan_rows.is_empty() && *self.scan_rows.start() >= 1,
            "--scan-rows: at least 1, as ROWS or MIN-MAX",
        )?;
        require(
            self.key_prefix.len() <= KEY_PREFIX_BYTES_MAX,
            "--key-prefix: up to 256 bytes",
        )?;
        if let Some(rate) = self.rate {
            require(
                rate.is_finite() && rate > 0.0,
                "--rate: requests per second, above 0",
            )?;
        }
        require(self.deletes <= 100, "--deletes: 0 to 100 percent")?;
        require(!self.timeout.is_zero(), "--timeout: above 0")?;
        if let Workload::Mixed { reads } = self.workload {
            require(reads <= 100, "--reads: 0 to 100 percent")?;
        }
        if self.protocol == Protocol::Redis {
            require(
                !self.workload.scans(),
                "the Redis protocol has no ordered scan: this workload needs --protocol ringbolt",
            )?;
        }
        if self.verifies() {
            require(
                matches!(
                    self.workload,
                    Workload::Put | Workload::Get | Workload::Mixed { .. }
                ),
                "--verify goes with the workloads put, get and mixed",
            )?;
            require(
                self.records <= VERIFY_RECORDS_MAX,
                "--records: up to 100 M in a verified run",
            )?;
            require(
                *self.value_bytes.start() as usize >= crate::value::STAMP_BYTES,
                "--value-size: at least 32 bytes in a verified run (run, key, sequence, checksum)",
            )?;
            require(
                !matches!(self.preload, Preload::Always | Preload::Only),
                "--load does not go with --verify: a verified run begins with unknown records",
            )?;
        }
        Ok(())
    }
}

impl Workload {
    /// Percentages of read, update, insert, scan, read-modify-write.
    pub fn percent(self) -> [u8; 5] {
        match self {
            Self::Put => [0, 100, 0, 0, 0],
            Self::Get | Self::YcsbC => [100, 0, 0, 0, 0],
            Self::Mixed { reads } => [reads, 100u8.saturating_sub(reads), 0, 0, 0],
            Self::Scan => [0, 0, 0, 100, 0],
            Self::YcsbA => [50, 50, 0, 0, 0],
            Self::YcsbB => [95, 5, 0, 0, 0],
            Self::YcsbD => [95, 0, 5, 0, 0],
            Self::YcsbE => [0, 0, 5, 95, 0],
            Self::YcsbF => [50, 0, 0, 0, 50],
        }
    }

    /// Whether some requests read.
    pub fn reads(self) -> bool {
        let [read, _, _, scan, modify] = self.percent();
        read + scan + modify > 0
    }

    /// Whether some requests scan.
    pub fn scans(self) -> bool {
        self.percent()[3] > 0
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put => write!(f, "put"),
            Self::Get => write!(f, "get"),
            Self::Mixed { reads } => write!(f, "mixed ({reads} % reads)"),
            Self::Scan => write!(f, "scan"),
            Self::YcsbA => write!(f, "ycsb-a"),
            Self::YcsbB => write!(f, "ycsb-b"),
            Self::YcsbC => write!(f, "ycsb-c"),
            Self::YcsbD => write!(f, "ycsb-d"),
            Self::YcsbE => write!(f, "ycsb-e"),
            Self::YcsbF => write!(f, "ycsb-f"),
        }
    }
}

impl FromStr for Workload {
    type Err = String;

    /// `mixed` comes with 50 % reads.
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "put" => Self::Put,
            "get" => Self::Get,
            "mixed" => Self::Mixed { reads: 50 },
            "scan" => Self::Scan,
            "ycsb-a" => Self::YcsbA,
            "ycsb-b" => Self::YcsbB,
            "ycsb-c" => Self::YcsbC,
            "ycsb-d" => Self::YcsbD,
            "ycsb-e" => Self::YcsbE,
            "ycsb-f" => Self::YcsbF,
            _ => {
                return Err(
                    "a workload is one of put, get, mixed, scan, ycsb-a … ycsb-f".to_string(),
                );
            }
        })
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uniform => "uniform",
            Self::Zipfian => "zipfian",
            Self::Latest => "latest",
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ringbolt => "ringbolt",
            Self::Redis => "redis",
        })
    }
}
