//! fjall, by this program's own job.

use std::path::Path;

use super::engine::{EngineJob, parse};
use crate::compare::context::Context;
use crate::compare::gate::Skip;
use crate::compare::process;
use crate::fjall::FjallResult;

/// Durable overwrites per second of the same data with the same budgets as `job`, in `dir`.
pub fn overwrite(
    context: &Context,
    job: &EngineJob,
    memtable_bytes: u64,
    dir: &Path,
) -> Result<f64, Skip> {
    let args = [
        "fjall".to_string(),
        format!("--dir={}", dir.display()),
        format!("--records={}", job.records),
        format!("--value-bytes={}", job.value_bytes),
        format!("--cache-bytes={}", job.memory_bytes - memtable_bytes),
        format!("--memtable-bytes={memtable_bytes}"),
        format!("--seconds={}", job.seconds),
        format!("--depth={}", job.depth),
    ];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let program = context.this.as_os_str();
    let finished = process::run(context.server_cpu, "fjall", program, &args, || ())?;
    let result: FjallResult = parse(&finished.output)
        .ok_or_else(|| Skip::Failed("fjall's job printed no result".into()))?;
    Ok(result.writes_per_second)
}
