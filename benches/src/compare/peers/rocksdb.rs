//! RocksDB by its own `db_bench`, from Debian's package.

use std::ffi::OsStr;
use std::path::Path;

use ringbolt_load::procfs::Usage;

use crate::compare::context::Context;
use crate::compare::gate::Skip;
use crate::compare::process::{Finished, need, run};

/// Bytes of a key.
pub const KEY_BYTES: u64 = 16;

/// How a job of db_bench is set up: the same data and budgets as the engine's.
#[derive(Debug, Clone)]
pub struct RocksDb<'a> {
    /// Folder of the data.
    pub dir: &'a Path,
    /// Records.
    pub records: u64,
    /// Bytes per value.
    pub value_bytes: u32,
    /// Memory for memtables, half of it each for two.
    pub memtable_bytes: u64,
    /// Memory for the block cache.
    pub cache_bytes: u64,
}

/// What a job of db_bench came to.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    /// Operations per second.
    pub per_second: f64,
    /// Operations.
    pub operations: f64,
    /// What the process used.
    pub usage: Usage,
}

impl RocksDb<'_> {
    /// Writes every record once, in random order, and compacts all of it.
    pub fn fill(&self, context: &Context) -> Result<(), Skip> {
        let load = ["--disable_wal=true".to_string()];
        // fillrandom would draw some keys twice and others never, and then a third of the reads
        // would find nothing.
        self.start(context, "filluniquerandom,compact", &load)
            .map(|_| ())
    }

    /// Runs `benchmark` with further flags on the server's CPU.
    pub fn run(&self, context: &Context, benchmark: &str, flags: &[String]) -> Result<Job, Skip> {
        let finished = self.start(context, benchmark, flags)?;
        parse(&finished.output, benchmark)
            .map(|(per_second, operations)| Job {
                per_second,
                operations,
                usage: finished.usage,
            })
            .ok_or_else(|| Skip::Failed(format!("db_bench prints no figure of {benchmark}")))
    }

    fn start(
        &self,
        context: &Context,
        benchmarks: &str,
        flags: &[String],
    ) -> Result<Finished, Skip> {
        need("db_bench", "rocksdb-tools")?;
        let mut args = vec![
            format!("--benchmarks={benchmarks}"),
            format!("--db={}", self.dir.display()),
            format!("--num={}", self.records),
            format!("--value_size={}", self.value_bytes),
            format!("--key_size={KEY_BYTES}"),
            format!("--write_buffer_size={}", self.memtable_bytes / 2),
            "--max_write_buffer_number=2".to_string(),
            format!("--cache_size={}", self.cache_bytes),
            "--compression_type=lz4".to_string(),
            "--compression_ratio=1.0".to_string(),
            "--bloom_bits=12".to_string(),
            "--level_compaction_dynamic_level_bytes=true".to_string(),
            "--use_direct_io_for_flush_and_compaction=true".to_string(),
            "--use_direct_reads=true".to_string(),
            "--max_background_jobs=2".to_string(),
        ];
        args.extend_from_slice(flags);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let cpu = context.server_cpu;
        run(cpu, "db_bench", OsStr::new("db_bench"), &args, || ())
    }
}

/// Operations per second and operations of a line such as
/// `overwrite    :   3.112 micros/op 321294 ops/sec 3.112 seconds 1000000 operations; 35.5 MB/s`.
fn parse(output: &str, benchmark: &str) -> Option<(f64, f64)> {
    let line = output.lines().rev().find(|line| {
        line.strip_prefix(benchmark)
            .is_some_and(|rest| rest.trim_start().starts_with(':'))
    })?;
    let before = |word: &str| -> Option<f64> {
        let mut words = line.split_whitespace();
        let mut last = "";
        for next in words.by_ref() {
            if next.starts_with(word) {
                return last.parse().ok();
            }
            last = next;
        }
        None
    };
    Some((before("ops/sec")?, before("operations")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_in_what_db_bench_prints() {
        let output = "Keys:       16 bytes each\n\
            fillrandom   :       2.1 micros/op 470000 ops/sec 0.2 seconds 100000 operations;   52.0 MB/s\n\
            overwrite    :       3.112 micros/op 321294 ops/sec 3.112 seconds 1000000 operations;   35.5 MB/s\n";
        assert_eq!(parse(output, "overwrite"), Some((321_294.0, 1_000_000.0)));
        assert_eq!(parse(output, "fillrandom"), Some((470_000.0, 100_000.0)));
        assert_eq!(parse(output, "readrandom"), None);
    }
}
