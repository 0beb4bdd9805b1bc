//! `ringbolt inspect`: reads a folder that no server uses, and says what is in it.
//!
//! Nothing is changed, and nothing is believed that is not intact: what cannot be read is reported
//! as such, and the rest is still shown.

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::failure::{Failure, Outcome};
use super::output::{Format, Out};

mod log;
mod manifest;
mod table;
#[cfg(test)]
mod tests;

const EXAMPLES: &str = "\
Examples:
  What the log of a core holds, segment by segment:
    ringbolt inspect log ringbolt-data/shard-000

  The tables of every core:
    ringbolt inspect manifest ringbolt-data

  The rows of one table:
    ringbolt inspect table ringbolt-data/shard-000/tables/0000000012.table --rows";

/// Shows what is in a data folder that no server uses: logs, tables, manifests.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Log(log::Args),
    Manifest(manifest::Args),
    Table(table::Args),
}

impl Args {
    pub(super) fn format(&self) -> Format {
        match &self.command {
            Command::Log(args) => args.output.format,
            Command::Manifest(args) => args.output.format,
            Command::Table(args) => args.output.format,
        }
    }

    pub(super) fn run(self, out: &mut Out) -> Outcome {
        match self.command {
            Command::Log(args) => args.run(out),
            Command::Manifest(args) => args.run(out),
            Command::Table(args) => args.run(out),
        }
    }
}

/// The path itself if it is a file, else the files below it that `wanted` accepts, sorted.
fn files(path: &Path, what: &str, wanted: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>, Failure> {
    // DIR/shard-NNN/log/…: no deeper.
    const DEPTH: usize = 3;
    let failed = |path: &Path, error: std::io::Error| {
        Failure::usage(format!("cannot read {}: {error}", path.display()))
    };
    let metadata = std::fs::metadata(path).map_err(|error| failed(path, error))?;
    if metadata.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut found = Vec::new();
    let mut folders = vec![(path.to_path_buf(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let entries = std::fs::read_dir(&folder).map_err(|error| failed(&folder, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| failed(&folder, error))?;
            let kind = entry.file_type().map_err(|error| failed(&folder, error))?;
            if kind.is_dir() && depth < DEPTH {
                folders.push((entry.path(), depth + 1));
            } else if kind.is_file() && wanted(&entry.path()) {
                found.push(entry.path());
            }
        }
    }
    if found.is_empty() {
        return Err(Failure::usage(format!(
            "{} has no {what} in it",
            path.display()
        )));
    }
    found.sort();
    Ok(found)
}

/// Bytes for people: as in Rust source, long ones cut.
fn show_bytes(bytes: &[u8]) -> String {
    const SHOWN: usize = 64;
    match bytes.get(..SHOWN) {
        Some(start) if bytes.len() > SHOWN => {
            format!("\"{}\"… ({} B)", start.escape_ascii(), bytes.len())
        }
        _ => format!("\"{}\"", bytes.escape_ascii()),
    }
}
