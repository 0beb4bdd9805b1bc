//! Ringbolt as a cluster of three nodes with one core each, which share the CPUs and the disk.

use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use ringbolt::node::says_ready;
use ringbolt_client::blocking::Client;
use ringbolt_load::options::{Options, Protocol};
use ringbolt_load::procfs::Usage;
use ringbolt_wire::slot::partition_of;
use serde::Deserialize;
use tempfile::TempDir;

use super::ringbolt::base_load;
use crate::compare::context::Context;
use crate::compare::gate::Skip;
use crate::compare::process::{Process, free_port};

/// Nodes of a cluster.
pub const NODES: usize = 3;
/// How long the nodes may take to be ready, and to have leaders.
const READY_MAX: Duration = Duration::from_secs(60);
/// After that leaders hand over until each node leads its share.
const HAND_OVER: Duration = Duration::from_secs(7);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    program: PathBuf,
    cpus: String,
    peers: String,
    dir: TempDir,
}

/// What is needed of `ringbolt status`.
#[derive(Deserialize)]
struct Status {
    nodes: Vec<Behind>,
    partitions: Vec<Partition>,
}

#[derive(Deserialize)]
struct Behind {
    lag: u64,
}

#[derive(Deserialize)]
struct Partition {
    members: Vec<Member>,
}

#[derive(Deserialize)]
struct Member {
    votes: bool,
}

#[derive(Debug)]
struct Node {
    name: String,
    port: u16,
    /// `None` while it is down.
    process: Option<Process>,
    starts: u32,
}

impl Cluster {
    /// Starts three nodes in empty folders, and waits until every partition has a leader.
    pub fn start(context: &Context) -> Result<Self, Skip> {
        let nodes = (1..=NODES)
            .map(|number| {
                Ok(Node {
                    name: format!("n{number}"),
                    port: free_port()?,
                    process: None,
                    starts: 0,
                })
            })
            .collect::<Result<Vec<_>, Skip>>()?;
        let peers: Vec<String> = nodes
            .iter()
            .map(|node| format!("{}=127.0.0.1:{}", node.name, node.port))
            .collect();
        let mut cluster = Self {
            nodes,
            program: context.ringbolt.clone(),
            cpus: context.all_cpus(),
            peers: peers.join(","),
            dir: context.temp_dir("ringbolt-cluster")?,
        };
        for node in 0..NODES {
            cluster.launch(node)?;
        }
        for node in 0..NODES {
            cluster.wait_ready(node)?;
        }
        cluster.wait_led()?;
        thread::sleep(HAND_OVER);
        Ok(cluster)
    }

    fn log(&self, node: usize) -> PathBuf {
        let node = &self.nodes[node];
        self.dir
            .path()
            .join(format!("{}.{}.log", node.name, node.starts))
    }

    fn launch(&mut self, node: usize) -> Result<(), Skip> {
        self.nodes[node].starts += 1;
        let log = self.log(node);
        let found = &self.nodes[node];
        let data = self.dir.path().join(&found.name);
        let data = data.to_string_lossy();
        let listen = format!("127.0.0.1:{}", found.port);
        let args = [
            "server",
            "--node",
            &found.name,
            "--peers",
            &self.peers,
            "--listen",
            &listen,
            "--data",
            &data,
            "--cores",
            "1",
            "--cpus",
            "none",
            "--memory",
            "256MiB",
        ];
        let program = self.program.as_os_str();
        let process = Process::start(&self.cpus, "ringbolt server", program, &args, &log)?;
        self.nodes[node].process = Some(process);
        Ok(())
    }

    /// Until the node says that it is ready.
    fn wait_ready(&mut self, node: usize) -> Result<(), Skip> {
        let log = self.log(node);
        let Some(process) = self.nodes[node].process.as_mut() else {
            return Ok(());
        };
        process.wait_until(&log, |said| said.lines().any(says_ready))
    }

    /// Until every partition has a leader.
    fn wait_led(&self) -> Result<(), Skip> {
        let client = self.client()?;
        let begun = Instant::now();
        loop {
            let led = client.topology().is_ok_and(|topology| {
                (0..topology.partitions()).all(|partition| topology.leader(partition).is_some())
            });
            if led {
                return Ok(());
            }
            if begun.elapsed() > READY_MAX {
                return Err(Skip::Failed("a partition has no leader".into()));
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Its nodes, as clients are given them.
    pub fn addresses(&self) -> String {
        let all: Vec<String> = self
            .nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port))
            .collect();
        all.join(",")
    }

    /// A client.
    pub fn client(&self) -> Result<Client, Skip> {
        Client::connect(self.addresses())
            .map_err(|error| Skip::Failed(format!("a client of the cluster: {error}")))
    }

    /// Kills a node, as a crash would.
    pub fn kill(&mut self, node: usize) {
        if let Some(process) = self.nodes[node].process.take() {
            process.kill();
        }
    }

    /// Stops a node, as an operator would.
    pub fn stop(&mut self, node: usize) {
        if let Some(process) = self.nodes[node].process.take() {
            process.stop();
        }
    }

    /// Starts a node again that was ended, and waits until the cluster is whole.
    pub fn restart(&mut self, node: usize) -> Result<(), Skip> {
        self.launch(node)?;
        self.wait_ready(node)?;
        self.wait_led()?;
        thread::sleep(HAND_OVER);
        Ok(())
    }

    /// Starts a node again that was ended, without its data.
    pub fn replace(&mut self, node: usize) -> Result<(), Skip> {
        let data = self.dir.path().join(&self.nodes[node].name);
        std::fs::remove_dir_all(&data)
            .map_err(|error| Skip::Failed(format!("{}: {error}", data.display())))?;
        self.launch(node)
    }

    /// Whether every partition has voters on all nodes, and none of them is behind.
    pub fn is_whole(&self) -> Result<bool, Skip> {
        let failed = |error: String| Skip::Failed(format!("ringbolt status: {error}"));
        let told = Command::new(&self.program)
            .args(["status", "--addr", &self.addresses(), "--format", "json"])
            .output()
            .map_err(|error| failed(error.to_string()))?;
        let status: Status =
            serde_json::from_slice(&told.stdout).map_err(|error| failed(error.to_string()))?;
        let votes =
            |partition: &Partition| partition.members.iter().filter(|one| one.votes).count();
        Ok(status.nodes.iter().all(|node| node.lag == 0)
            && status
                .partitions
                .iter()
                .all(|partition| votes(partition) == NODES))
    }

    /// Which node leads the partition of a key: its place in the cluster.
    pub fn leader_of(&self, key: &[u8]) -> Result<usize, Skip> {
        let failed = |what: String| Skip::Failed(format!("who leads: {what}"));
        let client = self.client()?;
        let begun = Instant::now();
        loop {
            let topology = client
                .topology()
                .map_err(|error| failed(error.to_string()))?;
            let partition = partition_of(key, topology.partitions());
            let leader = topology.leader(partition).map(|node| node as usize);
            if let Some(place) = leader.and_then(|node| node.checked_sub(1)) {
                return Ok(place);
            }
            if begun.elapsed() > READY_MAX {
                return Err(failed(format!("nobody leads partition {partition}")));
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// CPU time that all nodes have used so far, in microseconds.
    pub fn cpu_us(&self) -> u64 {
        let processes = self.nodes.iter().filter_map(|node| node.process.as_ref());
        processes
            .filter_map(|process| Usage::of(process.id()).ok())
            .map(|usage| usage.cpu_us())
            .sum()
    }

    /// Options of a load on it.
    pub fn load(&self) -> Options {
        Options {
            addr: self.addresses(),
            protocol: Protocol::Ringbolt,
            ..base_load()
        }
    }
}
