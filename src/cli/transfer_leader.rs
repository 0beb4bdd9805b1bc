//! `ringbolt transfer-leader`: which node leads a partition.

use std::io::Write as _;
use std::time::{Duration, Instant};

use ringbolt_client::Role;
use serde::Serialize;

use super::args::ClientArgs;
use super::drain::node_named;
use super::failure::{Answer, Failure, FailureKind, Outcome};
use super::output::{Format, Out};
use super::remote;

const EXAMPLES: &str = "\
Examples:
  Node c leads partition 17 from now on, whenever it can:
    ringbolt transfer-leader --partition 17 --to c

The cluster keeps it over restarts, until it is asked for another one. To move all leaderships away
from a node for a while, use `ringbolt drain`.";

/// How often the node is asked whether it leads.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Makes a node the leader of a partition.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The partition.
    #[arg(long, value_name = "NUMBER")]
    partition: u16,

    /// The name of a node that holds the partition.
    #[arg(long, value_name = "NAME")]
    to: String,

    /// How long to wait until it leads.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = crate::config::parse_span)]
    wait: Duration,

    #[command(flatten)]
    pub(super) client: ClientArgs,
}

#[derive(Serialize)]
struct Transferred<'a> {
    partition: u16,
    leader: &'a str,
    term: u64,
}

impl Args {
    pub(super) fn run(self, out: &mut Out) -> Outcome {
        let client = remote::connect(&self.client)?;
        let topology = client.topology()?;
        let node = node_named(&topology, &self.to)?;
        client.prefer(self.partition, node)?;
        let until = Instant::now() + self.wait;
        let term = loop {
            let status = client.status(node)?;
            let mut replicas = status.replicas.iter();
            let replica = replicas.find(|replica| replica.partition == self.partition);
            if let Some(replica) = replica.filter(|replica| replica.role == Role::Leader) {
                break replica.term;
            }
            if Instant::now() >= until {
                let message = format!(
                    "{} does not lead partition {} yet: it is drained, or lacks entries (see \
                     ringbolt status --partitions); it will once it can",
                    self.to, self.partition
                );
                return Err(Failure::new(FailureKind::Refused, message));
            }
            std::thread::sleep(LOOK_EVERY);
        };
        let done = Transferred {
            partition: self.partition,
            leader: &self.to,
            term,
        };
        match self.client.output.format {
            Format::Json => out.json(&done)?,
            Format::Text => writeln!(
                out,
                "OK partition {} is led by {}",
                done.partition, done.leader
            )?,
        }
        Ok(Answer::Yes)
    }
}
