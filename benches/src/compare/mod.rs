//! Ringbolt beside its peers: same machine, same durability, same pinning, turn by turn.
//!
//! A gate is a measure with a bound (`gates/`). It runs Ringbolt and the peer alternately, a few
//! rounds each (A B A B …), and holds the median of the rounds' ratios against the bound; the
//! spread is told beside it. Servers are pinned to one core, the load to another. Everything is
//! started here, on private ports and in folders that are removed at the end, and ended by process
//! id.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

mod chart;
mod context;
mod gate;
mod gates;
mod peers;
mod process;
mod results;
mod table;

use context::Context;
use gate::Skip;
use results::{GateResult, Results, Status};

/// Run the comparisons with Redis, etcd, RocksDB, fjall and fio, and hold them against the gates.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// About ten seconds a gate: small data, few rounds. The default.
    #[arg(long, conflicts_with = "full")]
    short: bool,

    /// Data that matters: 10 M records of 1 KiB, ten minutes of steady load. Takes hours.
    #[arg(long)]
    full: bool,

    /// Only these gates, such as 1,4 or gate1,gate4.
    #[arg(long, value_delimiter = ',', value_parser = parse_gate)]
    only: Vec<u8>,

    /// Rounds of each side [default: 2, with --full 5].
    #[arg(long)]
    rounds: Option<usize>,

    /// Folder for data, on the disk to be measured [default: target/compare].
    #[arg(long)]
    dir: Option<PathBuf>,

    /// Folder for compare.json and compare.svg.
    #[arg(long, default_value = "docs/figures")]
    out: PathBuf,

    /// The server [default: built by cargo].
    #[arg(long)]
    ringbolt: Option<PathBuf>,

    /// CPU for servers and engines.
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,

    /// CPU for the load.
    #[arg(long, default_value_t = 1)]
    load_cpu: usize,
}

fn parse_gate(text: &str) -> Result<u8, String> {
    text.strip_prefix("gate")
        .unwrap_or(text)
        .parse()
        .ok()
        .filter(|number| gates::ALL.iter().any(|gate| gate.number == *number))
        .ok_or_else(|| "a gate is a number from 1 to 18".into())
}

/// Runs the comparisons. Exit code 1 if a gate was missed, 2 if nothing could be measured.
pub fn run(args: &Args) -> ExitCode {
    let context = match Context::new(args) {
        Ok(context) => context,
        Err(what) => {
            eprintln!("compare: {what}");
            return ExitCode::from(2);
        }
    };
    let mut results = Results::new(args.full);
    for gate in &gates::ALL {
        if !context.wants(gate.number) {
            continue;
        }
        eprintln!("gate {:>2}  {} …", gate.number, gate.title);
        let begun = std::time::Instant::now();
        let outcome = (gate.run)(&context);
        let result = GateResult::new(gate, outcome, begun.elapsed());
        if let Status::NotMeasured { why } = &result.status {
            eprintln!("         not measured: {why}");
        }
        results.gates.push(result);
    }
    let text = table::draw(&results);
    // Nothing is to be done where even the terminal is gone.
    let _ = std::io::stdout().write_all(text.as_bytes());
    if let Err(what) = write(&results, &args.out) {
        eprintln!("compare: {what}");
        return ExitCode::from(2);
    }
    match results.gates.iter().map(|gate| &gate.status).max() {
        Some(Status::Passed) | None => ExitCode::SUCCESS,
        Some(_) => ExitCode::from(1),
    }
}

fn write(results: &Results, out: &Path) -> Result<(), String> {
    let io = |error: std::io::Error| format!("{}: {error}", out.display());
    std::fs::create_dir_all(out).map_err(io)?;
    let json = serde_json::to_vec_pretty(results).map_err(|error| error.to_string())?;
    std::fs::write(out.join("compare.json"), json).map_err(io)?;
    std::fs::write(out.join("compare.svg"), chart::draw(results)).map_err(io)
}

/// A gate that cannot be measured, told in one line.
impl From<String> for Skip {
    fn from(what: String) -> Self {
        Self::Failed(what)
    }
}
