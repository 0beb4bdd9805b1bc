//! `ringbolt hot`: the keys and partitions that the traffic goes to.

use std::io::Write as _;

use serde::{Deserialize, Serialize};

use super::admin_client::AdminArgs;
use super::failure::{Answer, Failure, FailureKind, Outcome};
use super::output::{Format, Out};

const EXAMPLES: &str = "\
Examples:
  The hottest keys and partitions of a node in the last half second:
    ringbolt hot

  Keys that take a tenth of its requests or more, for a script:
    ringbolt hot --format json | jq -r '.keys[] | select(.share - .error >= 0.1) | .key'

Keys are counted by samples; a share is too high by at most the error shown beside it. Partitions are
counted whole. Each node tells what it serves itself.";

/// Shows the hottest keys and partitions.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// How many keys and partitions.
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,

    #[command(flatten)]
    pub(super) admin: AdminArgs,
}

#[derive(Deserialize, Serialize)]
struct Told {
    node: String,
    per_second: f64,
    keys: Vec<Key>,
    partitions: Vec<Partition>,
}

#[derive(Deserialize, Serialize)]
struct Key {
    key: String,
    keyspace: u32,
    partition: u16,
    core: u16,
    per_second: f64,
    share: f64,
    error: f64,
    writes: f64,
}

#[derive(Deserialize, Serialize)]
struct Partition {
    partition: u16,
    core: u16,
    requests_total: u64,
    per_second: f64,
}

impl Args {
    pub(super) fn run(self, out: &mut Out) -> Outcome {
        let told = self.admin.get("/api/hot")?;
        let mut told: Told = serde_json::from_value(told).map_err(|error| {
            let message = format!("the node's answer is not understood: {error}");
            Failure::new(FailureKind::Refused, message)
        })?;
        told.keys.truncate(self.top);
        told.partitions.truncate(self.top);
        match self.admin.client.output.format {
            Format::Json => out.json(&told)?,
            Format::Text => text(&told, out)?,
        }
        Ok(Answer::Yes)
    }
}

fn text(told: &Told, out: &mut Out) -> std::io::Result<()> {
    writeln!(out, "node {}: {:.0} requests/s", told.node, told.per_second)?;
    writeln!(
        out,
        "{:>7}  {:>6}  {:>9}  {:>6}  {:>9}  {:>4}  key",
        "share", "error", "per s", "writes", "partition", "core"
    )?;
    for key in &told.keys {
        writeln!(
            out,
            "{:>6.1}%  {:>5.1}%  {:>9.0}  {:>5.0}%  {:>9}  {:>4}  {}",
            key.share * 100.0,
            key.error * 100.0,
            key.per_second,
            key.writes * 100.0,
            key.partition,
            key.core,
            key.key,
        )?;
    }
    writeln!(
        out,
        "{:>9}  {:>4}  {:>9}  {:>12}",
        "partition", "core", "per s", "in all"
    )?;
    for partition in &told.partitions {
        writeln!(
            out,
            "{:>9}  {:>4}  {:>9.0}  {:>12}",
            partition.partition, partition.core, partition.per_second, partition.requests_total,
        )?;
    }
    Ok(())
}
