//! The command line of the one binary. Each command is a module: its arguments, its help with
//! examples, and what it does.
//!
//! Data goes to standard output, progress and errors to standard error. How commands end is told
//! in [`failure`].

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

mod admin_client;
mod args;
mod batch;
mod bench;
mod check;
mod clocks;
mod completions;
mod config;
mod del;
mod drain;
mod failure;
mod get;
mod hot;
mod incr;
mod input;
mod inspect;
mod keyspace;
mod local_cluster;
mod offline;
mod output;
mod plan;
mod put;
mod recore;
mod remote;
mod scan;
mod server;
mod slow;
mod stat;
mod stats;
mod status;
mod touch;
mod transfer_leader;

use failure::{Answer, Failure, FailureKind, Outcome};
use output::{Format, Out};

const EXAMPLES: &str = "\
Examples:
  Start a server in the folder ./ringbolt-data, and use it from another shell:
    ringbolt server
    ringbolt put greeting 'hello, disk'
    ringbolt get greeting

  See whether this machine can run a server well:
    ringbolt check

Exit codes:
  0  done
  1  not found, or the condition did not hold
  2  wrong usage or settings, or the server could not start
  3  the server could not be reached, or refused
  4  in doubt: the write may or may not have been done

`ringbolt COMMAND --help` has examples for each command.";

/// A key-value storage server for NVMe machines: every core a durable shard.
#[derive(Debug, Parser)]
#[command(
    name = "ringbolt",
    version,
    after_help = EXAMPLES,
    max_term_width = 100,
    disable_help_subcommand = true,
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Server(server::Args),
    LocalCluster(local_cluster::Args),
    Put(put::Args),
    Get(get::Args),
    Del(del::Args),
    Incr(incr::Args),
    Touch(touch::Args),
    Stat(stat::Args),
    Scan(scan::Args),
    Batch(batch::Args),
    Keyspace(keyspace::Args),
    Bench(Box<bench::Args>),
    Stats(stats::Args),
    Status(status::Args),
    Slow(slow::Args),
    Hot(hot::Args),
    TransferLeader(transfer_leader::Args),
    Drain(drain::Args),
    Check(check::Args),
    Plan(plan::Args),
    Inspect(inspect::Args),
    Recore(recore::Args),
    Config(config::Args),
    Completions(completions::Args),
}

/// The command line as clap knows it: for completions, and for tests of the help.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command line that the process was given.
#[must_use]
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let parsed = command()
        .try_get_matches_from(args)
        .and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing is to be done where even the terminal is gone.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(2),
            };
        }
    };
    let mut out = Out::stdout();
    let (format, outcome) = cli.command.run(&mut out);
    let outcome = outcome.and_then(|answer| {
        out.flush()?;
        Ok(answer)
    });
    match outcome {
        Ok(answer) => answer.into(),
        Err(failure) => {
            // What was found before the failure is still data.
            let _ = out.flush();
            report(&failure, format);
            ExitCode::from(failure.exit_code())
        }
    }
}

fn report(failure: &Failure, format: Format) {
    if failure.kind == FailureKind::ReaderGone {
        return;
    }
    let line = match format {
        Format::Text => format!("ringbolt: {failure}\n"),
        Format::Json => format!("{}\n", failure.json()),
    };
    let _ = std::io::stderr().write_all(line.as_bytes());
}

impl Command {
    /// Runs the command. The format is that of its errors too.
    fn run(self, out: &mut Out) -> (Format, Outcome) {
        match self {
            Self::Server(args) => (Format::Text, args.run()),
            Self::LocalCluster(args) => (Format::Text, args.run()),
            Self::Put(args) => (args.client.output.format, args.run(out)),
            Self::Get(args) => (args.client.output.format, args.run(out)),
            Self::Del(args) => (args.client.output.format, args.run(out)),
            Self::Incr(args) => (args.client.output.format, args.run(out)),
            Self::Touch(args) => (args.client.output.format, args.run(out)),
            Self::Stat(args) => (args.client.output.format, args.run(out)),
            Self::Scan(args) => (args.client.output.format, args.run(out)),
            Self::Batch(args) => (args.client.output.format, args.run(out)),
            Self::Keyspace(args) => (args.format(), args.run(out)),
            Self::Bench(args) => (Format::Text, Ok(Answer::Ended(bench::run(*args)))),
            Self::Stats(args) => (args.client.output.format, args.run(out)),
            Self::Status(args) => (args.client.output.format, args.run(out)),
            Self::Slow(args) => (args.admin.client.output.format, args.run(out)),
            Self::Hot(args) => (args.admin.client.output.format, args.run(out)),
            Self::TransferLeader(args) => (args.client.output.format, args.run(out)),
            Self::Drain(args) => (args.client.output.format, args.run(out)),
            Self::Check(args) => (args.output.format, args.run(out)),
            Self::Plan(args) => (args.output.format, args.run(out)),
            Self::Inspect(args) => (args.format(), args.run(out)),
            Self::Recore(args) => (Format::Text, args.run(out)),
            Self::Config(args) => (Format::Text, args.run(out)),
            Self::Completions(args) => (Format::Text, args.run(out)),
        }
    }
}
