//! `ringbolt local-cluster`: several nodes on this machine, each a process of its own, to try things
//! out.
//!
//! The nodes are started with `ringbolt server` of this very binary; what they say is passed on, each
//! line behind the node's name. They live and end together: with a signal, or with the first that ends.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::failure::{Answer, Failure, Outcome};
use crate::config::{
    self, ADMIN_PORT_STEP, MEMORY_PER_CORE_MIN, Machine, Peer, parse_bytes, show_peers,
};
use crate::node::says_ready;
use crate::runtime::signals;

const EXAMPLES: &str = "\
Examples:
  Three nodes on ports 7400, 7410 and 7420, their data in ./ringbolt-cluster:
    ringbolt local-cluster

  Use it from another shell, through any node:
    ringbolt put greeting 'hello, disks'
    ringbolt get --addr 127.0.0.1:7410 greeting
    ringbolt status

  Five nodes elsewhere, which share 2 GiB:
    ringbolt local-cluster --nodes 5 --data /tmp/five --port 9000 --memory 2GiB

The nodes share this machine's CPUs and disk: this shows what a cluster does, not how fast it is.

Ctrl-C or SIGTERM stops all nodes and leaves their data. A node that ends stops the others too.";

/// Ports from one node to the next.
const PORT_STEP: u16 = 10;
/// How often it is looked whether a node has ended.
const WATCH_EVERY: Duration = Duration::from_millis(50);
/// How long nodes may take to stop before they are killed.
const STOP_MAX: Duration = Duration::from_secs(15);

/// Runs a cluster of several nodes on this machine until it is stopped.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// How many nodes.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=32))]
    nodes: u16,

    /// The folder in which each node has its data folder: n1, n2 and so on.
    #[arg(long, value_name = "DIR", default_value = "ringbolt-cluster")]
    data: PathBuf,

    /// Memory of all nodes together, such as 4GiB [default: a quarter of the machine's].
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    memory: Option<u64>,

    /// The port of the first node; each further one is 10 higher.
    #[arg(long, value_name = "PORT", default_value_t = 7400, value_parser = clap::value_parser!(u16).range(1..=65_000))]
    port: u16,
}

impl Args {
    pub(super) fn run(self) -> Outcome {
        signals::block().map_err(Failure::usage)?;
        let mut cluster = Cluster { nodes: Vec::new() };
        for (name, arguments) in self.plan(&Machine::detect()) {
            cluster.nodes.push(Node::start(name, &arguments)?);
        }
        let mut announced = false;
        loop {
            if signals::wait(WATCH_EVERY).map_err(Failure::usage)? == Some(signals::Signal::Stop) {
                return cluster.stop().map(|()| Answer::Yes);
            }
            cluster.check()?;
            if !announced && cluster.nodes.iter().all(Node::is_ready) {
                announced = true;
                say(&self.next_steps());
            }
        }
    }

    fn address(&self, index: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port + index * PORT_STEP).into()
    }

    /// Where Redis clients find a node: a port above its own.
    fn resp_address(&self, index: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port + index * PORT_STEP + 1).into()
    }

    /// Each node's name and the arguments of its `ringbolt server`.
    fn plan(&self, machine: &Machine) -> Vec<(String, Vec<String>)> {
        let peers: Vec<Peer> = (0..self.nodes)
            .map(|index| Peer {
                name: name(index),
                address: self.address(index).to_string(),
            })
            .collect();
        let peers = show_peers(&peers);
        // Where there are fewer CPUs than nodes, the system shares them out.
        let cores = machine.cpus.len() / usize::from(self.nodes);
        let total = self.memory.unwrap_or(machine.memory / 4);
        let least = MEMORY_PER_CORE_MIN * cores.max(1) as u64;
        let memory = (total / u64::from(self.nodes)).max(least) & !((1 << 20) - 1);
        (0..self.nodes)
            .map(|index| {
                let cpus = match cores {
                    0 => "none".to_owned(),
                    cores => {
                        let first = usize::from(index) * cores;
                        config::show_cpus(&machine.cpus[first..first + cores])
                    }
                };
                let values = [
                    // Lines are passed on behind names: for people, whatever they are piped into.
                    ("--set", "messages.format=text".to_owned()),
                    ("--node", name(index)),
                    ("--peers", peers.clone()),
                    ("--listen", self.address(index).to_string()),
                    ("--resp", self.resp_address(index).to_string()),
                    ("--data", self.data.join(name(index)).display().to_string()),
                    ("--cores", cores.max(1).to_string()),
                    ("--cpus", cpus),
                    ("--memory", format!("{}MiB", memory >> 20)),
                ];
                let arguments = values
                    .into_iter()
                    .flat_map(|(flag, v)| [flag.to_owned(), v]);
                (name(index), arguments.collect())
            })
            .collect()
    }

    fn next_steps(&self) -> String {
        let first = self.address(0);
        let last = self.address(self.nodes - 1);
        format!(
            "\nThe cluster of {} is ready. Try, from another shell:\n  \
               ringbolt put --addr {first} greeting hello\n  \
               ringbolt get --addr {last} greeting\n  \
               ringbolt status --addr {first}\n\
             Metrics, health and a page of each node by HTTP: ports {} and on, in steps of {PORT_STEP}.\n\
             Ctrl-C stops it; the data stays in {}.\n\n",
            self.nodes,
            self.port + ADMIN_PORT_STEP,
            self.data.display(),
        )
    }
}

fn name(index: u16) -> String {
    format!("n{}", index + 1)
}

/// Standard error may be closed: that must not stop a cluster.
fn say(text: &str) {
    let _unheard = std::io::stderr().write_all(text.as_bytes());
}

/// One node's process.
struct Node {
    name: String,
    child: Child,
    ready: Arc<AtomicBool>,
}

impl Node {
    fn start(name: String, arguments: &[String]) -> Result<Self, Failure> {
        let failed = |error| Failure::usage(format!("node {name} could not be started: {error}"));
        let program = std::env::current_exe().map_err(failed)?;
        let mut child = Command::new(program)
            .arg("server")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let ready = Arc::new(AtomicBool::new(false));
        if let Some(said) = child.stderr.take() {
            let (name, ready) = (name.clone(), Arc::clone(&ready));
            std::thread::spawn(move || {
                for line in BufReader::new(said).lines().map_while(Result::ok) {
                    say(&format!("{name} | {line}\n"));
                    if says_ready(&line) {
                        ready.store(true, Ordering::Release);
                    }
                }
            });
        }
        Ok(Self { name, child, ready })
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        // One whose state cannot be told is not known to have ended.
        self.child.try_wait().ok().flatten()
    }
}

/// The nodes' processes. None outlives this.
struct Cluster {
    nodes: Vec<Node>,
}

impl Cluster {
    /// Stops all if one has ended.
    fn check(&mut self) -> Result<(), Failure> {
        let ended = self
            .nodes
            .iter_mut()
            .find_map(|node| node.ended().map(|status| (node.name.clone(), status)));
        let Some((name, status)) = ended else {
            return Ok(());
        };
        self.stop()?;
        Err(Failure::usage(format!(
            "node {name} has ended ({status}): what it said is above; the other nodes were stopped"
        )))
    }

    /// Asks all to stop and waits until they have.
    fn stop(&mut self) -> Result<(), Failure> {
        for node in &mut self.nodes {
            if node.ended().is_none() {
                let pid = rustix::process::Pid::from_child(&node.child);
                // It may just have ended.
                let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
        }
        let until = Instant::now() + STOP_MAX;
        while self.nodes.iter_mut().any(|node| node.ended().is_none()) {
            if Instant::now() > until {
                return Err(Failure::usage(format!(
                    "not every node has stopped within {} s: the rest is killed; the next start \
                     recovers what was acknowledged",
                    STOP_MAX.as_secs()
                )));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            // Only those that have not ended are still there to be killed.
            let _gone = node.child.kill();
            let _waited = node.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(nodes: u16, cpus: u16) -> Vec<Vec<String>> {
        let args = Args {
            nodes,
            data: "d".into(),
            memory: None,
            port: 7400,
        };
        let machine = Machine {
            cpus: (0..cpus).collect(),
            memory: 8 << 30,
        };
        args.plan(&machine).into_iter().map(|(_, a)| a).collect()
    }

    #[test]
    fn cpus_and_memory_are_shared_out() {
        let value = |arguments: &[String], flag: &str| {
            let at = arguments.iter().position(|a| a == flag).unwrap();
            arguments[at + 1].clone()
        };
        let nodes = plan(3, 8);
        let cpus: Vec<_> = nodes.iter().map(|node| value(node, "--cpus")).collect();
        assert_eq!(cpus, ["0-1", "2-3", "4-5"]);
        assert_eq!(value(&nodes[1], "--cores"), "2");
        assert_eq!(value(&nodes[1], "--memory"), "682MiB");
        assert_eq!(value(&nodes[2], "--listen"), "127.0.0.1:7420");
        assert_eq!(value(&nodes[2], "--data"), "d/n3");
        let crowded = plan(3, 2);
        assert!(crowded.iter().all(|node| value(node, "--cpus") == "none"));
        assert!(crowded.iter().all(|node| value(node, "--cores") == "1"));
    }
}
