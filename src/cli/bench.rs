//! `ringbolt bench`: load, measured and checked.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use ringbolt_load::options::{Arrivals, Distribution, Limit, Options, Preload, Protocol, Workload};
use ringbolt_load::{LoadError, Report};
use ringbolt_wire::message::Ack;

use crate::config::{parse_bytes, parse_span};

const EXAMPLES: &str = "\
Examples:
  Half reads, half writes for ten seconds, over 50 connections:
    ringbolt bench

  Reads of a million records by 256 connections with 16 requests each:
    ringbolt bench get --records 1M --connections 256 --depth 16

  The latency of 20,000 writes a second, counted from when each was due:
    ringbolt bench put --rate 20000 --duration 60s --html latency.html

  Check every value, and at the end every acknowledged write:
    ringbolt bench --verify --duration 60s

  The same across a crash: keep a ledger, kill the server, start it, check:
    ringbolt bench put --ledger acked --duration 10m
    ringbolt bench verify --ledger acked

  The same load on Redis, with its CPU time:
    ringbolt bench ycsb-a --protocol redis --addr 127.0.0.1:6379 --server-pid $(pidof redis-server)

Workloads (reads/updates/inserts/scans/read-modify-writes in percent, and how keys are drawn):
  put     0/100/0/0/0  uniform        ycsb-a  50/50/0/0/0  zipfian
  get     100/0/0/0/0  uniform        ycsb-b  95/5/0/0/0   zipfian
  mixed   50/50/0/0/0  uniform        ycsb-c  100/0/0/0/0  zipfian
  scan    0/0/0/100/0  uniform        ycsb-d  95/0/5/0/0   latest
                                      ycsb-e  0/0/5/95/0   zipfian
                                      ycsb-f  50/0/0/0/50  zipfian

Exit codes:
  0  done
  1  a value was wrong, an acknowledged write is gone, or the run could not go on
  2  wrong usage, or a file could not be written
  3  the server could not be reached, or refused";

const VERIFY_EXAMPLES: &str = "\
Examples:
  Check that everything acknowledged before a crash is there:
    ringbolt bench verify --ledger acked

  On another address:
    ringbolt bench verify --ledger acked --addr 127.0.0.1:7500";

/// Puts load on a server, measures it, and checks what the server keeps.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,

    /// put, get, mixed, scan, or ycsb-a to ycsb-f.
    #[arg(
        default_value = "mixed",
        value_name = "WORKLOAD",
        hide_default_value = true
    )]
    workload: Workload,

    #[command(flatten)]
    server: ServerArgs,

    #[command(flatten)]
    load: LoadArgs,

    #[command(flatten)]
    data: DataArgs,

    #[command(flatten)]
    check: CheckArgs,

    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Reads back everything that a ledger says was acknowledged.
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(VerifyArgs),
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Server")]
struct ServerArgs {
    /// The server; of a cluster, some of its nodes, with commas between.
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "RINGBOLT_ADDR",
        hide_env_values = true,
        default_value = "127.0.0.1:7400"
    )]
    addr: String,

    /// What it speaks: ringbolt or redis.
    #[arg(long, value_name = "NAME", default_value = "ringbolt", value_parser = parse_protocol)]
    protocol: Protocol,

    /// The keyspace; created if it is not there.
    #[arg(long, value_name = "NAME", default_value = "default")]
    keyspace: String,

    /// When writes are acknowledged: leader, quorum, all or a number.
    #[arg(long, value_name = "LEVEL", default_value = "quorum", value_parser = parse_ack)]
    ack: Ack,

    /// The server's process, if it runs here: report its CPU time per request, I/O and memory.
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Load")]
struct LoadArgs {
    /// Connections, spread over the server's cores.
    #[arg(long, short = 'c', value_name = "N", default_value_t = 50)]
    connections: usize,

    /// Unanswered requests per connection [default: 1; with --rate 64].
    #[arg(long, short = 'd', value_name = "N")]
    depth: Option<usize>,

    /// Generator threads; one saturates a server core.
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,

    /// How long to measure [default: 10s].
    #[arg(long, value_name = "TIME", value_parser = parse_span, conflicts_with = "ops")]
    duration: Option<Duration>,

    /// How many requests to measure, instead of how long.
    #[arg(long, value_name = "N", value_parser = parse_count)]
    ops: Option<u64>,

    /// How long to run before measuring.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_span)]
    warmup: Duration,

    /// Open loop: this many requests a second, each timed from when it was due.
    #[arg(long, value_name = "PER-SECOND", value_parser = parse_rate)]
    rate: Option<f64>,

    /// Open loop with the spacing of independent users, instead of equal spacing.
    #[arg(long, requires = "rate")]
    poisson: bool,

    /// How long a request may take before its connection is given up.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_span)]
    timeout: Duration,

    /// How long to wait for a server that went away.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_span)]
    reconnect_for: Duration,

    /// Seed of keys, sizes and the order of requests.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Data")]
struct DataArgs {
    /// Records in the data set, such as 100000 or 10M.
    #[arg(long, value_name = "N", default_value = "100k", value_parser = parse_count)]
    records: u64,

    /// Bytes per value: a size, or a range such as 100-4KiB.
    #[arg(long, value_name = "BYTES", default_value = "100", value_parser = parse_sizes)]
    value_size: RangeInclusive<u32>,

    /// What a good compressor would leave of a value.
    #[arg(long, value_name = "RATIO", default_value_t = 1.0)]
    value_ratio: f64,

    /// What every key begins with; 16 digits follow.
    #[arg(long, value_name = "TEXT", default_value = "bench:")]
    key_prefix: String,

    /// How keys are drawn: uniform, zipfian (0.99, scrambled) or latest [default: the workload's].
    #[arg(long, value_name = "NAME", value_parser = parse_distribution)]
    distribution: Option<Distribution>,

    /// Percentage of reads in the workload mixed.
    #[arg(long, value_name = "PERCENT", default_value_t = 50)]
    reads: u8,

    /// Rows per scan: a number, or a range.
    #[arg(long, value_name = "ROWS", default_value = "1-100", value_parser = parse_sizes)]
    scan_rows: RangeInclusive<u32>,

    /// Write all records first [default: if the workload reads].
    #[arg(long, conflicts_with_all = ["no_load", "load_only"])]
    load: bool,

    /// Do not write the records first.
    #[arg(long, conflicts_with = "load_only")]
    no_load: bool,

    /// Write all records, and nothing else.
    #[arg(long)]
    load_only: bool,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Checking")]
struct CheckArgs {
    /// Check every value read, and at the end read back every acknowledged write.
    #[arg(long)]
    verify: bool,

    /// Keep what was acknowledged in this file, for `bench verify`; implies --verify.
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,

    /// Percentage of checked writes that are deletes.
    #[arg(long, value_name = "PERCENT", default_value_t = 5)]
    deletes: u8,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Output")]
struct OutputArgs {
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,

    /// Write the latency distribution for HdrHistogram's plotter.
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,

    /// Write the report as one self-contained page.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Show no progress.
    #[arg(long, short = 'q')]
    quiet: bool,
}

#[derive(Debug, clap::Args)]
struct VerifyArgs {
    /// The ledger.
    #[arg(long, value_name = "FILE")]
    ledger: PathBuf,

    /// The server [default: the one that the ledger names].
    #[arg(long, value_name = "HOST:PORT")]
    addr: Option<String>,

    /// Connections.
    #[arg(long, short = 'c', value_name = "N", default_value_t = 8)]
    connections: usize,

    /// How long a request may take before its connection is given up.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_span)]
    timeout: Duration,

    #[command(flatten)]
    output: OutputArgs,
}

fn parse_protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "ringbolt" => Ok(Protocol::Ringbolt),
        "redis" => Ok(Protocol::Redis),
        _ => Err("a protocol is ringbolt or redis".into()),
    }
}

fn parse_distribution(text: &str) -> Result<Distribution, String> {
    match text {
        "uniform" => Ok(Distribution::Uniform),
        "zipfian" => Ok(Distribution::Zipfian),
        "latest" => Ok(Distribution::Latest),
        _ => Err("a distribution is uniform, zipfian or latest".into()),
    }
}

fn parse_ack(text: &str) -> Result<Ack, String> {
    match text {
        "leader" => Ok(Ack::Leader),
        "quorum" => Ok(Ack::Quorum),
        "all" => Ok(Ack::All),
        number => match number.parse() {
            Ok(0) | Err(_) => Err("a level is leader, quorum, all or a number from 1 up".into()),
            Ok(count) => Ok(Ack::Count(count)),
        },
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let count = parse_count(text)?;
    if count == 0 {
        return Err("a rate is at least 1 request a second".into());
    }
    Ok(count as f64)
}

/// A count with k, M or G for thousands, millions and thousands of millions.
fn parse_count(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'k') => (&text[..text.len() - 1], 1_000),
        Some(b'M') => (&text[..text.len() - 1], 1_000_000),
        Some(b'G') => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| "a number such as 5000, 100k or 10M".into())
}

/// One size, or the least and the most with a dash between.
fn parse_sizes(text: &str) -> Result<RangeInclusive<u32>, String> {
    let one = |text: &str| {
        parse_bytes(text)
            .and_then(|bytes| u32::try_from(bytes).map_err(|_| "a size under 4GiB".into()))
    };
    match text.split_once('-') {
        None => one(text).map(|size| size..=size),
        Some((least, most)) => {
            let range = one(least)?..=one(most)?;
            if range.is_empty() {
                return Err("a range from the smaller to the larger".into());
            }
            Ok(range)
        }
    }
}

impl Args {
    fn options(self) -> Options {
        let Self {
            workload,
            server,
            load,
            data,
            check,
            output,
            ..
        } = self;
        let depth_default = if load.rate.is_some() { 64 } else { 1 };
        Options {
            addr: server.addr,
            protocol: server.protocol,
            workload: match workload {
                Workload::Mixed { .. } => Workload::Mixed { reads: data.reads },
                workload => workload,
            },
            distribution: data.distribution,
            connections: load.connections,
            depth: load.depth.unwrap_or(depth_default),
            threads: load.threads,
            records: data.records,
            value_bytes: data.value_size,
            value_ratio: data.value_ratio,
            scan_rows: data.scan_rows,
            key_prefix: data.key_prefix,
            keyspace: server.keyspace,
            ack: server.ack,
            limit: match load.ops {
                Some(ops) => Limit::Ops(ops),
                None => Limit::Duration(load.duration.unwrap_or(Duration::from_secs(10))),
            },
            warmup: load.warmup,
            seed: load.seed,
            rate: load.rate,
            arrivals: if load.poisson {
                Arrivals::Poisson
            } else {
                Arrivals::Constant
            },
            preload: match (data.load, data.no_load, data.load_only) {
                (true, ..) => Preload::Always,
                (_, true, _) => Preload::Never,
                (.., true) => Preload::Only,
                _ => Preload::Auto,
            },
            verify: check.verify,
            deletes: check.deletes,
            ledger: check.ledger,
            timeout: load.timeout,
            reconnect_for: load.reconnect_for,
            server_pid: server.server_pid,
            progress: !output.quiet,
            ..Options::default()
        }
    }
}

/// Runs the command to its end. Ctrl-C ends a measurement early; it is reported all the same.
pub fn run(mut args: Args) -> ExitCode {
    let (result, output) = match args.command.take() {
        Some(Command::Verify(verify)) => {
            let options = Options {
                addr: verify.addr.unwrap_or_default(),
                connections: verify.connections,
                timeout: verify.timeout,
                progress: !verify.output.quiet,
                ..Options::default()
            };
            let report = ringbolt_load::verify_ledger(&verify.ledger, options);
            (report, verify.output)
        }
        None => {
            let output = OutputArgs {
                json: args.output.json,
                hgrm: args.output.hgrm.clone(),
                html: args.output.html.clone(),
                quiet: args.output.quiet,
            };
            let options = args.options();
            // Without it Ctrl-C just ends the process.
            let _ = signal_hook::flag::register(signal_hook::consts::SIGINT, options.stop.clone());
            (ringbolt_load::run(options), output)
        }
    };
    let report = match result {
        Ok(report) => report,
        Err(error) => {
            eprintln!("ringbolt: {error}");
            return ExitCode::from(match error {
                LoadError::Unreachable { .. } => 3,
                LoadError::Protocol(_) => 1,
                _ => 2,
            });
        }
    };
    match write(&report, &output) {
        // Whoever read it went away, as `head` does.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => {
            eprintln!("ringbolt: {error}");
            return ExitCode::from(2);
        }
        Ok(()) => {}
    }
    if report.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    }
}

fn write(report: &Report, output: &OutputArgs) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    if output.json {
        report.write_json(&mut out)?;
    } else {
        report.write_text(&mut out)?;
    }
    out.flush()?;
    if let Some(path) = &output.hgrm {
        to_file(path, |file| report.write_hgrm(file))?;
    }
    if let Some(path) = &output.html {
        to_file(path, |file| report.write_html(file))?;
    }
    Ok(())
}

fn to_file(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("writing {}: {error}", path.display()))
    };
    let mut file = BufWriter::new(File::create(path).map_err(named)?);
    write(&mut file).and_then(|()| file.flush()).map_err(named)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Bench {
        #[command(flatten)]
        args: Args,
    }

    fn options(line: &str) -> Options {
        let words = ["bench"].into_iter().chain(line.split_whitespace());
        Bench::try_parse_from(words).unwrap().args.options()
    }

    #[test]
    fn the_command_line_becomes_options() {
        let plain = options("");
        assert_eq!(plain.workload, Workload::Mixed { reads: 50 });
        assert_eq!((plain.connections, plain.depth), (50, 1));
        let full = options(
            "ycsb-b -c 256 -d 16 --records 10M --value-size 100-4KiB --ops 5k --no-load \
             --protocol redis --seed 9 --threads 2",
        );
        assert_eq!(full.workload, Workload::YcsbB);
        assert_eq!((full.connections, full.depth, full.threads), (256, 16, 2));
        assert_eq!(full.records, 10_000_000);
        assert_eq!(full.value_bytes, 100..=4096);
        assert_eq!(full.limit, Limit::Ops(5000));
        assert_eq!(full.preload, Preload::Never);
        let open = options("mixed --reads 95 --rate 20k --poisson");
        assert_eq!((open.rate, open.depth), (Some(20_000.0), 64));
        assert_eq!(open.workload, Workload::Mixed { reads: 95 });
    }

    #[test]
    fn verify_is_a_command_of_its_own() {
        let bench = Bench::try_parse_from(["bench", "verify", "--ledger", "f"]).unwrap();
        assert!(matches!(bench.args.command, Some(Command::Verify(_))));
        for wrong in [
            "verify",
            "nonsense",
            "--duration 1s --ops 3",
            "--value-size 9-1",
            "--poisson",
            "--records 1X",
        ] {
            let words = ["bench"].into_iter().chain(wrong.split_whitespace());
            assert!(Bench::try_parse_from(words).is_err(), "{wrong}");
        }
    }
}
