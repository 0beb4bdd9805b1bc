//! `cargo run --release -p ringbolt-benches -- compare`

use std::process::ExitCode;

use clap::Parser;
use ringbolt_benches::{compare, engine, fjall};

/// The server's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Comparisons of Ringbolt with its peers.
#[derive(Debug, Parser)]
#[command(name = "ringbolt-benches", version, max_term_width = 100)]
enum Command {
    Compare(compare::Args),
    Engine(engine::Args),
    Fjall(fjall::Args),
}

fn main() -> ExitCode {
    match Command::parse() {
        Command::Compare(args) => compare::run(&args),
        Command::Engine(args) => engine::run(args),
        Command::Fjall(args) => fjall::run(&args),
    }
}
