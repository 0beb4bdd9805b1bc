//! Several nodes as processes: how they find each other, and what a lost one costs.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{BINARY, Server, free_addresses, free_cluster_port, refused_at};

/// How long a cluster may take to agree on something. Generous: it fails a hang, not a slow machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Nodes {
    _folder: tempfile::TempDir,
    pub(super) servers: Vec<Server>,
}

impl Nodes {
    pub(super) fn start() -> Self {
        Self::start_in(|index, folder| folder.join(name(index)))
    }

    /// Each node in a folder of the caller's choice, who is given one for all.
    pub(super) fn start_in(dir: impl Fn(usize, &Path) -> PathBuf) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let addresses = free_addresses(3);
        let mut servers: Vec<Server> = (0..3)
            .map(|index| {
                let dir = dir(index, folder.path());
                Server::begin(&dir, addresses[index], arguments(index, &addresses))
            })
            .collect();
        for server in &mut servers {
            server.wait_until_ready();
        }
        Self {
            _folder: folder,
            servers,
        }
    }

    /// The status as one node tells it, once `is` holds of it.
    pub(super) fn status(
        &self,
        asked: usize,
        is: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let told = self.servers[asked].cli(&["status", "--format", "json"]);
            let status = serde_json::from_slice(&told.stdout).unwrap_or_default();
            if told.status.success() && is(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "not within a minute: {status}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn name(index: usize) -> String {
    format!("n{}", index + 1)
}

pub(super) fn arguments(index: usize, addresses: &[SocketAddr]) -> Vec<String> {
    let peers: Vec<String> = (0..)
        .zip(addresses)
        .map(|(index, address)| format!("{}={address}", name(index)))
        .collect();
    let peers = peers.join(",");
    let own = name(index);
    ["--node", &own, "--peers", &peers]
        .into_iter()
        .chain(["--cores", "1", "--memory", "128MiB"])
        .map(str::to_owned)
        .collect()
}

pub(super) fn is_led(status: &serde_json::Value) -> bool {
    status["leaderless"] == serde_json::json!([])
}

#[test]
fn acknowledged_writes_outlive_the_leader_that_took_them() {
    let mut nodes = Nodes::start();
    let keys: Vec<String> = (0..8).map(|n| format!("key-{n}")).collect();
    for key in &keys {
        nodes.servers[0].ok(&["put", "--timeout", "30s", key, "before"]);
    }
    assert_eq!(nodes.servers[2].ok(&["get", &keys[0]]), "before");

    let status = nodes.status(0, is_led);
    let partition = usize::from(ringbolt_wire::partition_of(keys[0].as_bytes(), 128));
    let leader = status["partitions"][partition]["leader"].as_u64().unwrap();
    let killed = usize::try_from(leader).unwrap() - 1;
    let other = (killed + 1) % 3;
    nodes.servers[killed].kill();
    let began = Instant::now();
    nodes.servers[other].ok(&["put", "--timeout", "30s", &keys[0], "after"]);
    let gap = began.elapsed();
    assert!(gap < Duration::from_secs(20), "no new leader for {gap:?}");
    assert_eq!(nodes.servers[other].ok(&["get", &keys[0]]), "after");
    for key in &keys[1..] {
        let found = nodes.servers[other].ok(&["get", "--timeout", "30s", key]);
        assert_eq!(found, "before");
        nodes.servers[other].ok(&["put", "--timeout", "30s", key, "after"]);
    }

    nodes.servers[killed].restart();
    nodes.status(other, |status| {
        let node = &status["nodes"][killed];
        is_led(status) && node["lag"] == 0 && node["replicas"].as_u64() == Some(128)
    });
    for key in &keys {
        let found = nodes.servers[killed].ok(&["get", "--timeout", "30s", key]);
        assert_eq!(found, "after");
    }
}

#[test]
fn a_stranger_is_refused() {
    let nodes = Nodes::start();
    let dir = &nodes.servers[2].dir;
    let addr = nodes.servers[0].addr;
    // A stranger that believes to be a fourth.
    let fourth = free_addresses(1)[0];
    let peers = format!("n1={addr},n4={fourth}");
    let cores = ["--cores", "1", "--memory", "128MiB"];
    let own = [&["--node", "n4", "--peers", &peers][..], &cores].concat();
    let said = refused_at(&dir.with_file_name("n4"), fourth, &own);
    assert!(said.contains("has no node n4"), "{said}");
}

#[test]
fn the_folder_of_another_cluster_is_refused() {
    let mut nodes = Nodes::start();
    let aside = |server: &Server| server.dir.with_extension("aside");
    for server in &mut nodes.servers {
        server.kill();
        std::fs::rename(&server.dir, aside(server)).unwrap();
    }
    // Another cluster of the same names at the same addresses.
    for server in &mut nodes.servers {
        server.begin_again();
    }
    for server in &mut nodes.servers {
        server.wait_until_ready();
    }
    let third = &mut nodes.servers[2];
    third.kill();
    std::fs::remove_dir_all(&third.dir).unwrap();
    std::fs::rename(aside(third), &third.dir).unwrap();
    let addresses: Vec<SocketAddr> = nodes.servers.iter().map(|server| server.addr).collect();
    let arguments = arguments(2, &addresses);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let said = refused_at(&nodes.servers[2].dir, addresses[2], &arguments);
    assert!(said.contains("belongs to cluster"), "{said}");
    assert!(said.contains("start it with its own folder"), "{said}");
}

#[test]
fn a_node_that_waits_for_its_peers_says_so_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let addresses = free_addresses(2);
    let arguments = arguments(0, &addresses);
    let mut server = Server::begin(folder.path(), addresses[0], arguments);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let put = server.cli(&["put", "--timeout", "1s", "a", "1"]);
        assert_eq!(put.status.code(), Some(3), "nothing is written yet");
        let said = String::from_utf8_lossy(&put.stderr);
        if said.contains("node n1 is not part of a cluster yet") {
            break;
        }
        assert!(Instant::now() < deadline, "{said}");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(server.stop().success());
}

#[test]
fn a_local_cluster_serves_until_it_is_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let first = free_cluster_port();
    let mut cluster = Command::new(BINARY)
        .args(["local-cluster", "--port", &first.to_string(), "--data"])
        .arg(folder.path())
        .args(["--memory", "384MiB"])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(cluster.stderr.take().unwrap()).lines();
    let next = said
        .by_ref()
        .map_while(Result::ok)
        .inspect(|line| eprintln!("{line}"))
        .find(|line| line.starts_with("The cluster of 3 is ready."));
    let rest = std::thread::spawn(move || said.map_while(Result::ok).collect::<Vec<_>>());
    // What README's second terminal does, and a load that is checked.
    let at = |node: u16, arguments: &[&str]| {
        let address = format!("127.0.0.1:{}", first + 10 * node);
        let arguments = arguments.iter().chain(&["--timeout", "30s", "--addr"]);
        let output = Command::new(BINARY)
            .args(arguments)
            .arg(address)
            .output()
            .unwrap();
        let (told, said) = (output.stdout, String::from_utf8_lossy(&output.stderr));
        (
            output.status.code(),
            String::from_utf8(told).unwrap(),
            said.into_owned(),
        )
    };
    let put = at(0, &["put", "greeting", "hello, disks"]);
    let got = at(1, &["get", "greeting"]);
    let told = at(2, &["status", "--format", "json"]);
    let load = [
        "bench", "mixed", "--reads", "50", "--verify", "--quiet", "--ops", "2000",
    ];
    let load = at(0, &load);
    let pid = cluster.id().to_string();
    Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    let status = cluster.wait().unwrap();
    let rest = rest.join().unwrap();
    assert!(next.is_some(), "it was not ready: {rest:?}");
    assert!(
        put.0 == Some(0) && status.success(),
        "{put:?} {status} {rest:?}"
    );
    assert_eq!((got.0, got.1.trim_end()), (Some(0), "hello, disks"));
    let told: serde_json::Value = serde_json::from_str(&told.1).unwrap();
    assert_eq!(told["nodes"].as_array().unwrap().len(), 3);
    assert_eq!(load.0, Some(0), "{load:?}");
}
