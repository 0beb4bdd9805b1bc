//! `ringbolt plan`: how large a cluster must be, and what it will do.

use std::io::Write as _;

use super::args::OutputArgs;
use super::failure::{Answer, Failure, Outcome};
use super::output::{Format, Out};
use crate::capacity::{self, Question};
use crate::config::parse_bytes;

mod numbers;
mod table;

use numbers::{parse_count, parse_network, parse_part};

const EXAMPLES: &str = "\
Examples:
  Nodes for ten thousand million records of 10 kB, three times, on disks of 2 TB:
    ringbolt plan --keys 10e9 --value-size 10KB --replicas 3 --node-disk 2TB

  With its traffic: how busy the cores are, and how long the devices last:
    ringbolt plan --keys 2G --value-size 500 --node-disk 4TB --puts 200k --gets 1M --cores 16

  What happens with less memory than indexes and filters need:
    ringbolt plan --keys 1G --value-size 1KB --node-disk 2TB --memory 8GiB

  The number of nodes alone, for a script:
    ringbolt plan --keys 1G --value-size 1KB --node-disk 2TB --format json | jq .nodes

Numbers may be written 10e9, 100k, 1.5M, 2G or 1T; sizes 10KB (thousands) or 10KiB (1024s). Nothing is
asked of any server. docs/operations.md, \"Size it\", has every formula, where its constants come
from, and how far measurements were off.";

/// Sizes a cluster: nodes, disk, memory, wear of devices and times to recover.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Live records of the whole cluster, such as 10e9 or 500M.
    #[arg(long, value_name = "N", value_parser = parse_count, help_heading = "Data")]
    keys: u64,

    /// Bytes of a key.
    #[arg(
        long,
        value_name = "SIZE",
        value_parser = parse_bytes,
        default_value = "24",
        help_heading = "Data"
    )]
    key_size: u64,

    /// Bytes of a value.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, help_heading = "Data")]
    value_size: u64,

    /// What compression leaves of a value: 0.5 or 50% for half.
    #[arg(
        long,
        value_name = "PART",
        value_parser = parse_part,
        default_value = "1",
        help_heading = "Data"
    )]
    value_ratio: f64,

    /// On how many nodes each record is.
    #[arg(long, value_name = "N", default_value_t = 3, help_heading = "Data")]
    replicas: u8,

    /// Puts a second of all clients; without them nothing is said of the devices' wear.
    #[arg(
        long,
        value_name = "PER-SECOND",
        value_parser = parse_count,
        default_value = "0",
        help_heading = "Traffic"
    )]
    puts: u64,

    /// Gets a second of all clients.
    #[arg(
        long,
        value_name = "PER-SECOND",
        value_parser = parse_count,
        default_value = "0",
        help_heading = "Traffic"
    )]
    gets: u64,

    /// The disk of each node.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, help_heading = "Nodes")]
    node_disk: u64,

    /// The setting `memory` of each node [default: the least that keeps indexes and filters cached].
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, help_heading = "Nodes")]
    memory: Option<u64>,

    /// Cores of each node.
    #[arg(long, value_name = "N", default_value_t = 8, help_heading = "Nodes")]
    cores: u16,

    /// The network of each node, in bits or bytes a second.
    #[arg(
        long,
        value_name = "RATE",
        value_parser = parse_network,
        default_value = "10Gbit",
        help_heading = "Nodes"
    )]
    network: u64,

    /// The part of the network that copying to a new node may take.
    #[arg(
        long,
        value_name = "PART",
        value_parser = parse_part,
        default_value = "50%",
        help_heading = "Nodes"
    )]
    copy_share: f64,

    #[command(flatten)]
    pub(super) output: OutputArgs,
}

impl Args {
    pub(super) fn run(self, out: &mut Out) -> Outcome {
        let question = Question {
            records: self.keys,
            key_bytes: self.key_size,
            value_bytes: self.value_size,
            value_ratio: self.value_ratio,
            replicas: self.replicas,
            puts_per_s: self.puts,
            gets_per_s: self.gets,
            cores: self.cores,
            disk_bytes: self.node_disk,
            memory_bytes: self.memory,
            network_bytes_per_s: self.network,
            copy_share: self.copy_share,
        };
        let plan = capacity::plan(&question).map_err(Failure::usage)?;
        match self.output.format {
            Format::Json => out.json(&plan)?,
            Format::Text => write!(out, "{}", table::show(&question, &plan, out.width()))?,
        }
        Ok(Answer::Yes)
    }
}
