//! All that was found, as it is written to `compare.json`.

use std::time::Duration;

use serde::Serialize;

use super::gate::{Gate, Line, Skip};

/// How a gate ended, from best to worst.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case", tag = "status")]
pub enum Status {
    /// Every bound holds.
    Passed,
    /// It was not measured.
    NotMeasured {
        /// Why.
        why: String,
    },
    /// A bound does not hold.
    Missed,
}

/// One gate's result.
#[derive(Debug, Serialize)]
pub struct GateResult {
    /// Its number.
    pub number: u8,
    /// What it measures.
    pub title: &'static str,
    /// How it ended.
    #[serde(flatten)]
    pub status: Status,
    /// Its measures.
    pub lines: Vec<Line>,
    /// How long it took, in seconds.
    pub seconds: f64,
}

impl GateResult {
    /// Judges what a gate found.
    pub fn new(gate: &Gate, outcome: Result<Vec<Line>, Skip>, took: Duration) -> Self {
        let (status, lines) = match outcome {
            Ok(lines) if lines.iter().all(Line::passes) => (Status::Passed, lines),
            Ok(lines) => (Status::Missed, lines),
            Err(skip) => (
                Status::NotMeasured {
                    why: skip.to_string(),
                },
                Vec::new(),
            ),
        };
        Self {
            number: gate.number,
            title: gate.title,
            status,
            lines,
            seconds: took.as_secs_f64(),
        }
    }
}

/// All gates that were asked for, and where they ran.
#[derive(Debug, Serialize)]
pub struct Results {
    /// `short` or `full`.
    pub form: &'static str,
    /// The machine, in words.
    pub machine: String,
    /// The gates.
    pub gates: Vec<GateResult>,
}

impl Results {
    /// Before any gate has run.
    pub fn new(full: bool) -> Self {
        Self {
            form: if full { "full" } else { "short" },
            machine: machine(),
            gates: Vec::new(),
        }
    }
}

fn machine() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    // Not what this process may use: it is pinned.
    let cpus = info
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count()
        .max(1);
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |rest| {
            rest.trim_start_matches([' ', '\t', ':'])
        });
    format!("{cpus} CPUs, {model}, Linux {}", kernel.trim())
}
