//! Redis clients of a local cluster.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use super::tools::{redis_py, tool};
use super::{client, run};
use crate::support::free_cluster_port;

/// Three nodes of `ringbolt local-cluster`; stopped when dropped.
struct Cluster {
    child: std::process::Child,
    first: u16,
}

impl Cluster {
    fn start(dir: &Path) -> Self {
        let first = free_cluster_port();
        let mut child = Command::new(crate::support::BINARY)
            .args(["local-cluster", "--port", &first.to_string(), "--data"])
            .arg(dir)
            .args(["--memory", "384MiB"])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let lines = said.by_ref().map_while(Result::ok);
        let mut seen = lines.inspect(|line| eprintln!("{line}"));
        assert!(seen.any(|line| line.starts_with("The cluster of 3 is ready.")));
        std::thread::spawn(move || {
            said.map_while(Result::ok)
                .for_each(|line| eprintln!("{line}"))
        });
        Self { child, first }
    }

    fn resp(&self, node: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.first + 10 * node + 1))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.child.wait();
    }
}

#[test]
fn every_node_of_a_cluster_serves_redis_clients() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path());
    let mut clients: Vec<_> = (0..3)
        .map(|node| client(cluster.resp(node), "resp3"))
        .collect();
    for (n, node) in (0..60).zip([0, 1, 2].into_iter().cycle()) {
        run::<()>(&mut clients[node], &format!("SET key:{n} {n}"));
    }
    for n in 0..60 {
        let other = &mut clients[(n + 1) % 3];
        assert_eq!(run::<usize>(other, &format!("GET key:{n}")), n);
        assert_eq!(
            run::<usize>(other, &format!("APPEND key:{n} x")),
            n.to_string().len() + 1
        );
    }
    let c = &mut clients[0];
    assert_eq!(run::<usize>(c, "DBSIZE"), 60);
    assert_eq!(run::<Vec<String>>(c, "KEYS key:1?").len(), 10);
    run::<()>(c, "MSET a 1 b 2 c 3 {t}1 4 {t}2 5");
    // The two others have it, for both are there.
    assert_eq!(run::<i64>(c, "WAIT 2 30000"), 2);
    let slots: Vec<Vec<redis::Value>> = run(c, "CLUSTER SLOTS");
    assert_eq!(slots[0][0], redis::Value::Int(0));
    assert_eq!(slots[slots.len() - 1][1], redis::Value::Int(16383));
    assert!(
        slots.iter().all(|range| range.len() == 5),
        "three nodes each"
    );
    assert!(run::<String>(c, "CLUSTER INFO").contains("cluster_known_nodes:3"));

    let port = cluster.resp(1).port().to_string();
    if let Some(said) = tool(
        "redis-cli",
        &["-c", "-p", &port],
        "SET foo bar\nGET foo\nMGET a b c\n",
    ) {
        assert_eq!(said, "OK\nbar\n1\n2\n3\n");
    }
    redis_py(&[cluster.resp(0), cluster.resp(1), cluster.resp(2)]);
}
