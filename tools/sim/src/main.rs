//! `ringbolt-sim`: the simulations from the command line.

mod clusters;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::rc::Rc;

use clap::{Args, Parser, Subcommand};
use ringbolt_engine::env::sim::TraceSink;
use ringbolt_sim::run::{Kind, Outcome, run};
use ringbolt_sim::slice::{Slice, WORK, run_all};

const EXAMPLES: &str = "Examples:
  ringbolt-sim crash --seeds 500            the slice that CI runs
  ringbolt-sim crash --forever --jobs 8     until a seed fails
  ringbolt-sim model --seeds 100            no crashes: operations against a BTreeMap
  ringbolt-sim replay 4711                  every event of one seed, and its hash
  ringbolt-sim cluster --seeds 300          whole clusters: nodes, network, clocks, clients
  ringbolt-sim cluster-replay 4711 --trace  every event of one seed of it, and its hash
  ringbolt-sim cluster --twice              a hundred seeds replay to the last event
  ringbolt-sim bugs                         finds each planted bug of the engine,
  ringbolt-sim cluster-bugs                 and of the server
                                            (cargo planted bugs)

Exit status: 0 nothing found, 1 a seed failed or something was never tested, 2 wrong usage.";

/// Runs the Ringbolt engine on a simulated machine whose disk fails and whose plug is pulled.
#[derive(Debug, Parser)]
#[command(name = "ringbolt-sim", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Crashes at any point and faults of the disk; checks that nothing acknowledged is lost
    Crash(Seeds),
    /// Random operations, flushes, compactions and reopenings against a BTreeMap
    Model(Seeds),
    /// Prints everything that happens with one seed
    Replay {
        /// The seed
        seed: u64,
        /// Replay the model test of that seed instead of the crash test
        #[arg(long)]
        model: bool,
        /// Print only the result and the hash
        #[arg(long)]
        quiet: bool,
    },
    /// Whole clusters with failing machines, networks and clocks; checks what their clients saw
    Cluster(clusters::Args),
    /// Runs one seed of the cluster simulation again
    ClusterReplay(clusters::ReplayArgs),
    /// Plants one bug of the cluster after the other and shows which seed finds it
    ClusterBugs(clusters::BugsArgs),
    /// Plants one bug after the other and shows which seed finds it
    Bugs {
        /// Seeds to try for each bug, at most
        #[arg(long, default_value_t = 400)]
        seeds: u64,
        /// Only this bug
        #[arg(long)]
        bug: Option<String>,
    },
}

#[derive(Debug, Args)]
struct Seeds {
    /// How many seeds
    #[arg(long, default_value_t = 500)]
    seeds: u64,
    /// The first one
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Threads; by default one for each CPU
    #[arg(long)]
    jobs: Option<usize>,
    /// Go on until a seed fails
    #[arg(long, conflicts_with = "seeds")]
    forever: bool,
    /// Stop once so many seeds have failed
    #[arg(long, default_value_t = 1)]
    failures: usize,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Crash(seeds) => slice(Kind::Crash, &seeds),
        Command::Model(seeds) => slice(Kind::Model, &seeds),
        Command::Replay { seed, model, quiet } => {
            let kind = if model { Kind::Model } else { Kind::Crash };
            replay(kind, seed, quiet)
        }
        Command::Cluster(args) => clusters::run(&args),
        Command::ClusterReplay(args) => clusters::replay(&args),
        Command::ClusterBugs(args) => clusters::bugs(&args),
        Command::Bugs { seeds, bug } => bugs(seeds, bug.as_deref()),
    }
}

fn slice(kind: Kind, seeds: &Seeds) -> ExitCode {
    let jobs = seeds
        .jobs
        .or_else(|| std::thread::available_parallelism().ok().map(usize::from))
        .unwrap_or(1);
    let count = (!seeds.forever).then_some(seeds.seeds);
    let live = std::io::stderr().is_terminal();
    let mut done = 0_u64;
    let slice = run_all(
        kind,
        seeds.first..,
        count,
        jobs,
        seeds.failures.max(1),
        |outcome| {
            done += 1;
            match &outcome.violation {
                Some(_) => print_failure(kind, outcome),
                None if live && done.is_multiple_of(10) => {
                    eprint!("\r{done} seeds");
                    let _ = std::io::stderr().flush();
                }
                None if !live && done.is_multiple_of(1000) => eprintln!("{done} seeds"),
                None => {}
            }
        },
    );
    if live {
        eprintln!();
    }
    print!("{}", slice.tally.table());
    verdict(kind, &slice, seeds)
}

fn verdict(kind: Kind, slice: &Slice, seeds: &Seeds) -> ExitCode {
    if !slice.failures.is_empty() {
        println!("FAILED: {} seeds", slice.failures.len());
        return ExitCode::FAILURE;
    }
    // A handful of seeds cannot have met everything.
    if kind == Kind::Crash && seeds.seeds >= 100 {
        let never = slice.tally.never(&WORK);
        if !never.is_empty() {
            println!("FAILED: never tested: {}", never.join(", "));
            return ExitCode::FAILURE;
        }
    }
    println!("ok: {} seeds", slice.tally.of("seeds"));
    ExitCode::SUCCESS
}

fn print_failure(kind: Kind, outcome: &Outcome) {
    let violation = outcome.violation.as_deref().unwrap_or_default();
    let flag = match kind {
        Kind::Crash => "",
        Kind::Model => " --model",
    };
    println!(
        "seed {} failed: {violation}\n  replay: ringbolt-sim replay {}{flag}",
        outcome.seed, outcome.seed
    );
}

fn replay(kind: Kind, seed: u64, quiet: bool) -> ExitCode {
    let sink = (!quiet).then(print_lines);
    let outcome = run(kind, seed, sink);
    print!("{}", outcome.tally.table());
    println!(
        "seed {seed}: {} steps, hash {:016x}",
        outcome.steps, outcome.trace_hash
    );
    match outcome.violation {
        Some(violation) => {
            println!("FAILED: {violation}");
            ExitCode::FAILURE
        }
        None => {
            println!("ok");
            ExitCode::SUCCESS
        }
    }
}

/// A sink that prints each line.
fn print_lines() -> TraceSink {
    let out = std::io::stdout();
    Rc::new(move |line: &str| {
        // Whoever closes the pipe has seen enough.
        if writeln!(out.lock(), "{line}").is_err() {
            std::process::exit(0);
        }
    })
}

#[cfg(feature = "planted-bugs")]
fn bugs(seeds: u64, only: Option<&str>) -> ExitCode {
    use ringbolt_engine::planted::Bug;
    let name = |bug: &Bug| format!("{bug:?}");
    let wanted = |bug: &Bug| only.is_none_or(|only| only.eq_ignore_ascii_case(&name(bug)));
    let all: Vec<Bug> = Bug::ALL.iter().copied().filter(wanted).collect();
    if all.is_empty() {
        let names: Vec<String> = Bug::ALL.iter().map(name).collect();
        eprintln!("no such bug; there are: {}", names.join(", "));
        return ExitCode::from(2);
    }
    let mut missed = 0;
    for bug in all {
        let search = ringbolt_sim::bugs::search(bug, seeds);
        match search.found {
            Some((kind, outcome)) => println!(
                "{bug:?}: found by the {} test with seed {} after {} runs: {}",
                format!("{kind:?}").to_lowercase(),
                outcome.seed,
                search.seeds,
                outcome.violation.unwrap_or_default()
            ),
            None => {
                missed += 1;
                println!("{bug:?}: NOT FOUND in {} runs", search.seeds);
            }
        }
    }
    match missed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

#[cfg(not(feature = "planted-bugs"))]
fn bugs(_seeds: u64, _only: Option<&str>) -> ExitCode {
    eprintln!(
        "this build has no planted bugs; run:\n  \
         cargo planted bugs"
    );
    ExitCode::from(2)
}
