//! `ringbolt drain`: a node that is to lead nothing.

use std::io::Write as _;
use std::time::{Duration, Instant};

use ringbolt_client::blocking::Client;
use ringbolt_client::{NodeId, Role, Topology};
use serde::Serialize;

use super::args::ClientArgs;
use super::failure::{Answer, Failure, FailureKind, Outcome};
use super::output::{Format, Out};
use super::remote;

const EXAMPLES: &str = "\
Examples:
  Before work on the machine of node b: it leads nothing, and clients do not notice when it stops:
    ringbolt drain --node b

  It may lead again:
    ringbolt drain --node b --undo

A node that is stopped by SIGTERM drains by itself. A drained node goes on storing what the others
write, and answers reads that any replica may answer. A restart ends it, too.";

/// How often the node is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Moves all leaderships away from a node and keeps them away.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The node's name; by default the one at --addr.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,

    /// Lets the node lead again instead.
    #[arg(long)]
    undo: bool,

    /// How long to wait until it leads nothing.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = crate::config::parse_span)]
    wait: Duration,

    #[command(flatten)]
    pub(super) client: ClientArgs,
}

#[derive(Serialize)]
struct Drained<'a> {
    node: &'a str,
    drains: bool,
    /// Partitions that it leads now.
    leads: usize,
}

impl Args {
    pub(super) fn run(self, out: &mut Out) -> Outcome {
        let client = remote::connect(&self.client)?;
        let topology = client.topology()?;
        let node = match &self.node {
            Some(name) => node_named(&topology, name)?,
            None => topology.here,
        };
        let name = name_of(&topology, node);
        client.drain(node, self.undo)?;
        let leads = if self.undo {
            leads(&client, node)?
        } else {
            self.wait_until_given(&client, node)?
        };
        let done = Drained {
            node: name,
            drains: !self.undo,
            leads,
        };
        match self.client.output.format {
            Format::Json => out.json(&done)?,
            Format::Text if self.undo => writeln!(out, "OK {name} may lead again")?,
            Format::Text => writeln!(out, "OK {name} leads nothing")?,
        }
        Ok(Answer::Yes)
    }

    /// Waits until the node leads nothing; tells on standard error how far it is.
    fn wait_until_given(&self, client: &Client, node: NodeId) -> Result<usize, Failure> {
        let until = Instant::now() + self.wait;
        let mut told = usize::MAX;
        loop {
            let led = leads(client, node)?;
            if led == 0 {
                return Ok(led);
            }
            if led < told {
                told = led;
                eprintln!("{led} partitions are still led there");
            }
            if Instant::now() >= until {
                return Err(Failure::new(
                    FailureKind::Refused,
                    format!(
                        "{led} partitions are still led there: no other node that may lead has all \
                         of their entries (see ringbolt status); they are given away once one has"
                    ),
                ));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

fn leads(client: &Client, node: NodeId) -> Result<usize, Failure> {
    let status = client.status(node)?;
    let leads = |role| matches!(role, Role::Leader | Role::Elected);
    Ok(status
        .replicas
        .iter()
        .filter(|replica| leads(replica.role))
        .count())
}

/// The node of this name.
pub(super) fn node_named(topology: &Topology, name: &str) -> Result<NodeId, Failure> {
    let found = topology.nodes.iter().find(|node| node.name == name);
    found.map(|node| node.id).ok_or_else(|| {
        let names: Vec<&str> = topology.nodes.iter().map(|node| &*node.name).collect();
        let names = names.join(", ");
        Failure::new(
            FailureKind::Usage,
            format!("there is no node {name}: the cluster has {names}"),
        )
    })
}

fn name_of(topology: &Topology, node: NodeId) -> &str {
    let found = topology.nodes.iter().find(|one| one.id == node);
    found.map_or("", |node| &node.name)
}
