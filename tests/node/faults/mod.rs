//! A cluster of processes whose nodes are killed, stopped and cut off under load: what its clients
//! saw is judged by the simulator's checkers (linearizability of each key, one order of entries,
//! sessions that never go back, nothing acknowledged lost).
//!
//! `RINGBOLT_TEST_FAULTS` says how many faults befall the cluster (default 6),
//! `RINGBOLT_TEST_FAULTS_NODES` how many nodes it has (default 3), `RINGBOLT_TEST_FAULTS_SEED` which
//! faults in which order (default 1). Real processes do not replay exactly: the seed only draws the
//! same plan.

mod client;
mod proxy;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringbolt_engine::env::sim::Rng;
use ringbolt_sim::cluster::check;
use ringbolt_sim::cluster::history::{Call, History, Outcome};
use ringbolt_sim::cluster::workload::Keys;

use crate::support::{Server, free_addresses};
use proxy::{Network, Weather};

/// As many as a cluster makes unless it is told otherwise.
const PARTITIONS: u16 = 128;
/// Clients, each with one request at a time.
const CLIENTS: usize = 6;
/// How long a cluster may take to be whole. Generous: it fails a hang, not a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the clocks of processes on one machine may add to the bound of a stale read, and then some
/// for a leader that stood still between taking the time and sending it.
const SLACK: Duration = Duration::from_millis(100);

fn setting(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A cluster behind its proxies.
struct Cluster {
    servers: Vec<Server>,
    network: Arc<Network>,
    addresses: Vec<SocketAddr>,
    _folder: tempfile::TempDir,
}

impl Cluster {
    fn start(nodes: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let network = Network::new(nodes);
        let behind = free_addresses(nodes);
        let addresses: Vec<SocketAddr> = (0..nodes)
            .map(|node| network.listen(node, behind[node]))
            .collect();
        let peers: Vec<String> = addresses
            .iter()
            .enumerate()
            .map(|(node, address)| format!("n{}={address}", node + 1))
            .collect();
        let peers = peers.join(",");
        let mut servers: Vec<Server> = (0..nodes)
            .map(|node| {
                let name = format!("n{}", node + 1);
                let arguments = ["--node", &name, "--peers", &peers];
                let size = ["--cores", "1", "--cpus", "none", "--memory", "128MiB"];
                let arguments = arguments.into_iter().chain(size).map(str::to_owned);
                Server::begin(
                    &folder.path().join(&name),
                    behind[node],
                    arguments.collect(),
                )
            })
            .collect();
        servers.iter_mut().for_each(Server::wait_until_ready);
        let cluster = Self {
            servers,
            network,
            addresses,
            _folder: folder,
        };
        cluster.wait_whole();
        cluster
    }

    fn status(&self, asked: usize) -> serde_json::Value {
        let told = self.servers[asked].cli(&["status", "--format", "json", "--timeout", "5s"]);
        serde_json::from_slice(&told.stdout).unwrap_or_default()
    }

    /// Every partition has a leader, and every node has what the leaders have committed.
    fn wait_whole(&self) {
        let deadline = Instant::now() + PATIENCE;
        for asked in 0..self.servers.len() {
            loop {
                let status = self.status(asked);
                let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
                let whole = status["leaderless"] == serde_json::json!([])
                    && nodes.iter().all(|node| node["lag"] == 0);
                if whole {
                    break;
                }
                assert!(Instant::now() < deadline, "not whole in time: {status}");
                thread::sleep(Duration::from_millis(50));
            }
        }
    }

    /// The node that leads a partition, as any node knows.
    fn leader(&self, partition: u16) -> Option<usize> {
        let status = self.status(0);
        let leader = status["partitions"][usize::from(partition)]["leader"].as_u64()?;
        usize::try_from(leader).ok()?.checked_sub(1)
    }
}

/// What befalls the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// Processes are killed, and started again.
    Kill,
    /// Processes stand still.
    Pause,
    /// Nodes reach no other node, nor are reached.
    Isolate,
    /// The same, and clients neither.
    Darken,
    /// One node is not heard by another.
    OneWay,
    /// Batches between two nodes get lost.
    Lose,
    /// Frames between a node and all others are slow.
    Slow,
}

const FAULTS: [Fault; 7] = [
    Fault::Kill,
    Fault::Pause,
    Fault::Isolate,
    Fault::Kill,
    Fault::Darken,
    Fault::OneWay,
    Fault::Lose,
];

/// Nodes that a fault befalls: one, as often the leader of the first key as any, or a whole minority.
fn victims(cluster: &Cluster, keys: &Keys, rng: &mut Rng) -> Vec<usize> {
    let nodes = cluster.servers.len();
    let partition = keys.partitions(PARTITIONS)[0];
    let first = match rng.one_in(2) {
        true => cluster.leader(partition).unwrap_or(0),
        false => rng.index(nodes),
    };
    let minority = (nodes - 1) / 2;
    let count = match rng.one_in(3) {
        true => minority,
        false => 1,
    };
    (first..).map(|node| node % nodes).take(count).collect()
}

fn strike(cluster: &mut Cluster, keys: &Keys, fault: Fault, rng: &mut Rng) {
    let victims = victims(cluster, keys, rng);
    let lasts = Duration::from_millis(rng.between(200, 2500));
    eprintln!("fault: {fault:?} of {victims:?} for {lasts:?}");
    let nodes = cluster.servers.len();
    let network = Arc::clone(&cluster.network);
    let cut = Weather {
        cut: true,
        ..Weather::default()
    };
    let both = |weather: Weather, places: std::ops::Range<usize>| {
        for &victim in &victims {
            for other in places.clone().filter(|other| !victims.contains(other)) {
                network.set(victim, other, weather);
                network.set(other, victim, weather);
            }
        }
    };
    match fault {
        Fault::Kill => {
            for &victim in &victims {
                cluster.servers[victim].kill();
            }
            thread::sleep(lasts);
            for &victim in &victims {
                cluster.servers[victim].restart();
            }
        }
        Fault::Pause => {
            let signal = |name| {
                for &victim in &victims {
                    cluster.servers[victim].signal(name);
                }
            };
            signal("STOP");
            thread::sleep(lasts);
            signal("CONT");
        }
        Fault::Isolate => both(cut, 0..nodes),
        Fault::Darken => both(cut, 0..nodes + 1),
        Fault::OneWay => {
            let other = (victims[0] + 1 + rng.index(nodes - 1)) % nodes;
            network.set(victims[0], other, cut);
        }
        Fault::Lose => both(
            Weather {
                lose_one_in: 5,
                ..Weather::default()
            },
            0..nodes,
        ),
        Fault::Slow => both(
            Weather {
                delay: Duration::from_millis(20),
                ..Weather::default()
            },
            0..nodes,
        ),
    }
    if !matches!(fault, Fault::Kill | Fault::Pause) {
        thread::sleep(lasts);
        network.mend();
    }
    // Long enough that it often recovers, short enough that it sometimes has not yet.
    thread::sleep(Duration::from_millis(rng.between(100, 1500)));
}

#[test]
fn what_clients_saw_holds_whatever_befell_the_nodes() {
    let count = setting("RINGBOLT_TEST_FAULTS", 6) as usize;
    let nodes = setting("RINGBOLT_TEST_FAULTS_NODES", 3) as usize;
    let mut rng = Rng::new(setting("RINGBOLT_TEST_FAULTS_SEED", 1));
    let mut cluster = Cluster::start(nodes);
    let keys = Keys::new(10, 4, 3);
    let addresses: Vec<String> = cluster.addresses.iter().map(ToString::to_string).collect();
    let addresses = addresses.join(",");
    let began = Instant::now();
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (keys, addresses, over) = (keys.clone(), addresses.clone(), Arc::clone(&over));
            let rng = rng.fork();
            thread::spawn(move || client::live(number, &addresses, &keys, rng, began, &over))
        })
        .collect();
    let mut befell: BTreeMap<Fault, usize> = BTreeMap::new();
    for number in 0..count {
        // Each kind in turn, so that a short run has all of them.
        let fault = match FAULTS.get(number) {
            Some(fault) => *fault,
            None if rng.one_in(8) => Fault::Slow,
            None => FAULTS[rng.index(FAULTS.len())],
        };
        *befell.entry(fault).or_default() += 1;
        strike(&mut cluster, &keys, fault, &mut rng);
    }
    cluster.wait_whole();
    over.store(true, Ordering::Relaxed);
    let mut history = History {
        operations: Vec::new(),
        partitions: keys.partitions(PARTITIONS),
        groups: (0..keys.len() as u16).map(|key| keys.group(key)).collect(),
    };
    for client in clients {
        history.operations.append(&mut client.join().unwrap());
    }
    let mut last = client::read_all(CLIENTS, &addresses, &keys, began);
    history.operations.append(&mut last);
    history
        .operations
        .sort_by_key(|operation| (operation.completed, operation.invoked));
    cluster.network.end();

    let tally = Tally::of(&history);
    eprintln!("{befell:?}; {tally:?}");
    assert!(
        tally.written > count,
        "hardly anything was written: {tally:?}"
    );
    assert_eq!(tally.last, keys.len(), "a last read failed");
    let checked = check::history(&history, SLACK.as_nanos() as u64);
    let checked = checked.unwrap_or_else(|what| panic!("seen by clients: {what}"));
    assert_eq!(checked.undecided, 0, "{checked:?}");
}

/// What a run came to.
#[derive(Debug, Default)]
struct Tally {
    written: usize,
    refused: usize,
    in_doubt: usize,
    seen: usize,
    failed: usize,
    /// Keys that the last client read.
    last: usize,
}

impl Tally {
    fn of(history: &History) -> Self {
        let mut tally = Self::default();
        for operation in &history.operations {
            let reads = matches!(operation.call, Call::Read { .. });
            *match operation.outcome {
                Outcome::Written { .. } => &mut tally.written,
                Outcome::GuardFailed { .. } => &mut tally.refused,
                Outcome::InDoubt => &mut tally.in_doubt,
                Outcome::Seen { .. } => &mut tally.seen,
                Outcome::Failed => &mut tally.failed,
            } += 1;
            let is_seen = matches!(operation.outcome, Outcome::Seen { .. });
            tally.last += usize::from(reads && is_seen && operation.client == CLIENTS as u32);
        }
        tally
    }
}
