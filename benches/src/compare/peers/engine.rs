//! Ringbolt's engine without the network, in a process of its own.

use std::ffi::OsStr;
use std::path::PathBuf;

use ringbolt_load::procfs::Usage;
use serde::de::DeserializeOwned;

use crate::compare::context::Context;
use crate::compare::gate::Skip;
use crate::compare::process::{self, Process};
use crate::engine::Job;

/// A job's data and measure.
#[derive(Debug, Clone)]
pub struct EngineJob {
    /// Folder of the data.
    pub dir: PathBuf,
    /// Records.
    pub records: u64,
    /// Bytes per value.
    pub value_bytes: u32,
    /// Memory of the tree, in bytes.
    pub memory_bytes: u64,
    /// How long to measure.
    pub seconds: f64,
    /// Writers, or reads under way.
    pub depth: usize,
}

impl EngineJob {
    fn args(&self, job: Job) -> Vec<String> {
        vec![
            "engine".into(),
            job.name().into(),
            format!("--dir={}", self.dir.display()),
            format!("--records={}", self.records),
            format!("--value-bytes={}", self.value_bytes),
            format!("--memory-bytes={}", self.memory_bytes),
            format!("--seconds={}", self.seconds),
            format!("--depth={}", self.depth),
        ]
    }

    /// Runs a job on the server's CPU to its end.
    pub fn run<T: DeserializeOwned>(
        &self,
        context: &Context,
        job: Job,
    ) -> Result<(T, Usage), Skip> {
        self.run_watched(context, job, || ())
    }

    /// The same, calling `watch` all along.
    pub fn run_watched<T: DeserializeOwned>(
        &self,
        context: &Context,
        job: Job,
        watch: impl FnMut(),
    ) -> Result<(T, Usage), Skip> {
        let args = self.args(job);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let program: &OsStr = context.this.as_os_str();
        let finished = process::run(context.server_cpu, "the engine", program, &args, watch)?;
        let result = parse(&finished.output)
            .ok_or_else(|| Skip::Failed("the engine's job printed no result".into()))?;
        Ok((result, finished.usage))
    }

    /// Runs a job until it has printed its result, and kills it.
    pub fn run_and_kill<T: DeserializeOwned>(
        &self,
        context: &Context,
        job: Job,
        log: &std::path::Path,
    ) -> Result<T, Skip> {
        let args = self.args(job);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let program = context.this.as_os_str();
        let mut process = Process::start(context.server_cpu, "the engine", program, &args, log)?;
        loop {
            let ended = process.has_ended();
            let said = std::fs::read_to_string(log).unwrap_or_default();
            if let Some(result) = parse(&said) {
                process.kill();
                return Ok(result);
            }
            if ended {
                let last = said.lines().last().unwrap_or_default();
                return Err(Skip::Failed(format!("the engine: {last}")));
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// The result is the line that is an object of the right form.
pub(super) fn parse<T: DeserializeOwned>(output: &str) -> Option<T> {
    output
        .lines()
        .rev()
        .find_map(|line| serde_json::from_str(line).ok())
}
