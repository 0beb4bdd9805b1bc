//! `ringbolt-sim cluster` and `ringbolt-sim cluster-replay`.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Instant;

use ringbolt_sim::cluster::run::{Shape, run as run_seed, run_twice, work};
use ringbolt_sim::report::Tally;
use ringbolt_sim::slice::run_seeds;
use serde_json::json;

/// Seeds from which every kind of fault must have been met.
const SEEDS_FOR_ALL_KINDS: u64 = 300;

/// Which clusters, for how long.
#[derive(Debug, clap::Args)]
struct ShapeArgs {
    /// Nodes
    #[arg(long, default_value_t = 3)]
    nodes: u16,
    /// Cores of each node: a number, or at least and at most as `1..2`
    #[arg(long, default_value = "1..2", value_parser = parse_cores)]
    cores: (u16, u16),
    /// Clients
    #[arg(long, default_value_t = 5)]
    clients: u16,
    /// Simulated seconds of work under faults
    #[arg(long, default_value_t = 15)]
    seconds: u64,
}

impl ShapeArgs {
    fn shape(&self) -> Shape {
        Shape {
            nodes: self.nodes.max(1),
            cores: self.cores,
            clients: self.clients.max(1),
            seconds: self.seconds,
        }
    }
}

/// Arguments of `cluster`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many seeds
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first one
    #[arg(long, default_value_t = 1)]
    start: u64,
    /// Threads; by default one for each CPU
    #[arg(long)]
    jobs: Option<usize>,
    /// Go on until a seed fails
    #[arg(long, conflicts_with = "seeds")]
    forever: bool,
    /// Stop once so many seeds have failed
    #[arg(long, default_value_t = 1)]
    failures: usize,
    /// Run each seed twice: both runs must be the same to the last event
    #[arg(long)]
    twice: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    shape: ShapeArgs,
}

/// Arguments of `cluster-replay`.
#[derive(Debug, clap::Args)]
pub struct ReplayArgs {
    /// The seed
    seed: u64,
    /// Print everything that happens
    #[arg(long)]
    trace: bool,
    #[command(flatten)]
    shape: ShapeArgs,
}

/// Arguments of `cluster-bugs`.
#[derive(Debug, clap::Args)]
pub struct BugsArgs {
    /// Seeds to try for each bug, at most
    #[arg(long, default_value_t = 400)]
    seeds: u64,
    /// Only this bug
    #[arg(long)]
    bug: Option<String>,
    #[command(flatten)]
    shape: ShapeArgs,
}

fn parse_cores(text: &str) -> Result<(u16, u16), String> {
    let number = |text: &str| text.parse::<u16>().map_err(|error| error.to_string());
    let (least, most) = match text.split_once("..") {
        Some((least, most)) => (number(least)?, number(most.trim_start_matches('='))?),
        None => (number(text)?, number(text)?),
    };
    match (1..=most).contains(&least) {
        true => Ok((least, most)),
        false => Err("at least one core, and not more at least than at most".to_owned()),
    }
}

/// Runs many seeds.
pub fn run(args: &Args) -> ExitCode {
    let jobs = args
        .jobs
        .or_else(|| std::thread::available_parallelism().ok().map(usize::from))
        .unwrap_or(1);
    let shape = args.shape.shape();
    let count = (!args.forever).then_some(args.seeds);
    let live = std::io::stderr().is_terminal();
    let began = Instant::now();
    let mut done = 0_u64;
    let slice = run_seeds(
        |seed| match args.twice {
            true => run_twice(&shape, seed),
            false => run_seed(&shape, seed, None),
        },
        args.start..,
        count,
        jobs,
        args.failures.max(1),
        |outcome| {
            done += 1;
            if let Some(violation) = &outcome.violation {
                eprintln!(
                    "seed {} failed: {violation}\n  replay: ringbolt-sim cluster-replay {} --nodes {} \
                     --cores {}..{} --clients {} --seconds {}",
                    outcome.seed,
                    outcome.seed,
                    shape.nodes,
                    shape.cores.0,
                    shape.cores.1,
                    shape.clients,
                    shape.seconds
                );
            } else if live {
                eprint!("\r{done} seeds");
                let _progress = std::io::stderr().flush();
            } else if done.is_multiple_of(100) {
                eprintln!("{done} seeds");
            }
        },
    );
    if live {
        eprintln!();
    }
    let never = match done >= SEEDS_FOR_ALL_KINDS {
        true => slice.tally.zero(&work(&shape)),
        // A handful of seeds cannot have met everything.
        false => Vec::new(),
    };
    let failed: Vec<u64> = slice.failures.iter().map(|outcome| outcome.seed).collect();
    let ok = failed.is_empty() && never.is_empty();
    let seconds = began.elapsed().as_secs_f64();
    if args.json {
        println!("{}", as_json(&slice.tally, &failed, &never, seconds));
    } else {
        print!("{}", slice.tally.table());
        let hours = slice.tally.of("simulated milliseconds") as f64 / 3_600_000.0;
        println!(
            "{hours:.1} simulated hours in {seconds:.0} s, {:.1} seeds/s",
            done as f64 / seconds
        );
        if !never.is_empty() {
            println!("FAILED: never tested: {}", never.join(", "));
        }
        match failed.is_empty() {
            true => println!("ok: {done} seeds"),
            false => println!("FAILED: seeds {failed:?}"),
        }
    }
    match ok {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn as_json(tally: &Tally, failed: &[u64], never: &[&str], seconds: f64) -> serde_json::Value {
    let faults: serde_json::Map<_, _> = tally
        .faults
        .iter()
        .map(|(fault, count)| (fault.to_string(), count.into()))
        .collect();
    json!({
        "counts": tally.counts,
        "disk_faults": faults,
        "client_errors": tally.errors,
        "failed_seeds": failed,
        "never_tested": never,
        "wall_seconds": seconds,
    })
}

/// Runs one seed again.
pub fn replay(args: &ReplayArgs) -> ExitCode {
    let sink = args.trace.then(super::print_lines);
    let outcome = run_seed(&args.shape.shape(), args.seed, sink);
    print!("{}", outcome.tally.table());
    println!(
        "seed {}: {} events, hash {:016x}",
        args.seed, outcome.steps, outcome.trace_hash
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

/// As much of a violation as a table shows.
#[cfg(feature = "planted-bugs")]
const BRIEF_CHARS: usize = 120;

/// Plants one bug after the other.
#[cfg(feature = "planted-bugs")]
pub fn bugs(args: &BugsArgs) -> ExitCode {
    use ringbolt::planted::Bug;
    let name = |bug: &Bug| format!("{bug:?}");
    let only = args.bug.as_deref();
    let wanted = |bug: &Bug| only.is_none_or(|only| only.eq_ignore_ascii_case(&name(bug)));
    let all: Vec<Bug> = Bug::ALL.iter().copied().filter(wanted).collect();
    if all.is_empty() {
        let names: Vec<String> = Bug::ALL.iter().map(name).collect();
        eprintln!("no such bug; there are: {}", names.join(", "));
        return ExitCode::from(2);
    }
    let shape = args.shape.shape();
    let mut missed = 0;
    for bug in all {
        let search = ringbolt_sim::cluster::bugs::search(&shape, bug, args.seeds);
        match search.found {
            Some(outcome) => {
                let violation = outcome.violation.unwrap_or_default();
                let brief: String = violation.chars().take(BRIEF_CHARS).collect();
                let brief = brief.replace('\n', " ");
                println!("{:<24} seed {:>4}: {brief}", name(&bug), outcome.seed);
            }
            None => {
                missed += 1;
                println!("{:<24} NOT FOUND in {} seeds", name(&bug), search.seeds);
            }
        }
    }
    match missed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Says how to build with planted bugs.
#[cfg(not(feature = "planted-bugs"))]
pub fn bugs(_args: &BugsArgs) -> ExitCode {
    eprintln!(
        "this build has no planted bugs; run:\n  \
         cargo planted cluster-bugs"
    );
    ExitCode::from(2)
}
