//! Redis clients of three nodes, each a process of its own: those that know clusters and those that do not, and
//! what they see of nodes that stop.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::cluster::ClusterClient;

use super::tools::tool;
use super::{PATIENCE, ask, client, run};
use crate::support::{Server, free_cluster_port};

/// Three nodes of two cores with doors for Redis clients.
struct Doors {
    _folder: tempfile::TempDir,
    servers: Vec<Server>,
    first: u16,
}

impl Doors {
    fn start(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let first = free_cluster_port();
        let peers: Vec<String> = (0..3)
            .map(|node| format!("n{node}={}", address(first, node, 0)))
            .collect();
        let peers = peers.join(",");
        let begin = |node: u16| {
            let (name, resp) = (format!("n{node}"), address(first, node, 1).to_string());
            let own = ["--node", &name, "--peers", &peers, "--resp", &resp];
            let size = ["--cores", "2", "--memory", "192MiB"];
            let arguments = [&own[..], &size, more].concat();
            let arguments = arguments.into_iter().map(str::to_owned).collect();
            Server::begin(
                &folder.path().join(&name),
                address(first, node, 0),
                arguments,
            )
        };
        let mut servers: Vec<Server> = (0..3).map(begin).collect();
        servers.iter_mut().for_each(Server::wait_until_ready);
        Self {
            _folder: folder,
            servers,
            first,
        }
    }

    fn resp(&self, node: usize) -> SocketAddr {
        address(self.first, node as u16, 1)
    }

    /// A counter of one node.
    fn counter(&self, node: usize, name: &str) -> u64 {
        let told = self.servers[node].ok(&["stats", "--format", "json"]);
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        told[name].as_u64().unwrap()
    }
}

fn address(first: u16, node: u16, door: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, first + 10 * node + door))
}

#[test]
fn clients_that_know_clusters_are_sent_to_the_leader() {
    let doors = Doors::start(&["--set", "resp.cluster=moved"]);
    let mut plain: Vec<_> = (0..3)
        .map(|node| client(doors.resp(node), "resp3"))
        .collect();
    let mut sent_on = 0;
    for n in 0..60 {
        let words = format!("SET plain:{n} {n}");
        let deadline = Instant::now() + PATIENCE;
        let mut node = n % 3;
        // Again if the partition has no leader at the moment, or changes it.
        while let Err(error) = ask::<()>(&mut plain[node], &words) {
            assert!(Instant::now() < deadline, "{words}: {error}");
            match error.redirect_node() {
                Some((told, slot)) => {
                    assert_eq!(
                        slot,
                        ringbolt_wire::slot::slot(format!("plain:{n}").as_bytes())
                    );
                    let told: SocketAddr = told.parse().unwrap();
                    node = (0..3).find(|&node| doors.resp(node) == told).unwrap();
                    sent_on += 1;
                }
                None => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
    assert!(
        sent_on >= 20,
        "two of three are asked of the wrong node: {sent_on}"
    );
    // Each node tells of what it leads: which may change while they are asked.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let sizes: usize = plain.iter_mut().map(|c| run::<usize>(c, "DBSIZE")).sum();
        if sizes == 60 {
            break;
        }
        assert!(Instant::now() < deadline, "{sizes} keys of 60");
    }

    let forwards = || -> u64 {
        (0..3)
            .map(|node| doors.counter(node, "forwards_total"))
            .sum()
    };
    let before = forwards();
    let nodes: Vec<String> = (0..3)
        .map(|node| format!("redis://{}", doors.resp(node)))
        .collect();
    let mut cluster = ClusterClient::new(nodes).unwrap().get_connection().unwrap();
    for n in 0..150 {
        let set: String = redis::cmd("SET")
            .arg(format!("key:{n}"))
            .arg(n)
            .query(&mut cluster)
            .unwrap();
        assert_eq!(set, "OK");
        let got: i32 = redis::cmd("GET")
            .arg(format!("key:{n}"))
            .query(&mut cluster)
            .unwrap();
        assert_eq!(got, n);
    }
    // Of 300 requests two of three would have been.
    let forwarded = forwards() - before;
    assert!(forwarded < 50, "{forwarded} were forwarded");

    let port = doors.resp(1).port().to_string();
    let lines: String = (0..9)
        .map(|n| format!("SET cli:{n} {n}\nGET cli:{n}\n"))
        .collect();
    if let Some(said) = tool("redis-cli", &["-c", "-p", &port], &lines) {
        let (sent_on, answers): (Vec<&str>, Vec<&str>) = said
            .lines()
            .partition(|line| line.starts_with("-> Redirected to slot"));
        let expected: String = (0..9).map(|n| format!("OK\n{n}\n")).collect();
        assert!(answers.into_iter().eq(expected.lines()), "{said}");
        assert!(!sent_on.is_empty(), "{said}");
    }
}

#[test]
fn one_connection_reaches_every_core_and_node() {
    let doors = Doors::start(&[]);
    let counters = || {
        let of = |name| doors.counter(0, name);
        (of("requests_forwarded_total"), of("forwards_total"))
    };
    let before = counters();
    let mut c = client(doors.resp(0), "resp2");
    for n in 0..48 {
        run::<()>(&mut c, &format!("SET key:{n} {n}"));
        assert_eq!(run::<usize>(&mut c, &format!("GET key:{n}")), n);
        assert_eq!(
            run::<usize>(&mut c, &format!("INCRBY key:{n} 100")),
            n + 100
        );
    }
    let after = counters();
    // A third of the keys are this node's, half of those its other core's.
    assert!(after.0 > before.0, "none went to the other core: {after:?}");
    assert!(
        after.1 >= before.1 + 48,
        "few went to other nodes: {before:?} {after:?}"
    );
    let keys: Vec<String> = (0..48).map(|n| format!("key:{n}")).collect();
    let found: Vec<usize> = run(&mut c, &format!("MGET {}", keys.join(" ")));
    assert!(found.into_iter().eq(100..148));
    assert_eq!(run::<usize>(&mut c, &format!("DEL {}", keys.join(" "))), 48);
    assert_eq!(
        run::<usize>(&mut client(doors.resp(2), "resp2"), "DBSIZE"),
        0
    );
}

#[test]
fn wait_counts_the_replicas_that_have_stored_a_write() {
    let doors = Doors::start(&[]);
    let mut c = client(doors.resp(0), "resp3");
    run::<()>(&mut c, "SET a 1");
    assert_eq!(run::<usize>(&mut c, "WAIT 2 30000"), 2);
    doors.servers[2].signal("STOP");
    // The two others have a leader for it, at the latest after an election.
    run::<()>(&mut c, "SET a 2");
    let began = Instant::now();
    assert_eq!(run::<usize>(&mut c, "WAIT 2 400"), 1);
    assert!(began.elapsed() >= Duration::from_millis(400));
    assert_eq!(
        run::<usize>(&mut c, "WAIT 1 30000"),
        1,
        "it has one already"
    );
    doors.servers[2].signal("CONT");
    assert_eq!(run::<usize>(&mut c, "WAIT 2 30000"), 2, "it has caught up");
}

/// One client that writes a few keys again and again, each time a greater number.
struct Writer {
    /// The greatest number acknowledged of each key.
    acknowledged: BTreeMap<String, u64>,
    longest_gap: Duration,
}

/// Writes until told to stop, each number until it is acknowledged, and goes on to the next node where
/// one fails.
fn write(doors: &[SocketAddr], own: usize, stop: &AtomicBool, done: &AtomicU64) -> Writer {
    let connect = |node: usize| {
        let url = format!("redis://{}", doors[node]);
        let connection = redis::Client::open(url).unwrap().get_connection().ok()?;
        connection
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        Some(connection)
    };
    let mut node = own % doors.len();
    let mut connection = connect(node);
    let mut writer = Writer {
        acknowledged: BTreeMap::new(),
        longest_gap: Duration::ZERO,
    };
    let mut last = Instant::now();
    let mut number = 1;
    while !stop.load(Ordering::Relaxed) {
        let Some(c) = &mut connection else {
            std::thread::sleep(Duration::from_millis(10));
            node = (node + 1) % doors.len();
            connection = connect(node);
            continue;
        };
        let key = format!("w{own}:{}", number % 16);
        match ask::<()>(c, &format!("SET {key} {number}")) {
            Ok(()) => {
                writer.acknowledged.insert(key, number);
                number += 1;
                writer.longest_gap = writer.longest_gap.max(last.elapsed());
                last = Instant::now();
                done.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if error.is_io_error() => connection = None,
            // No leader yet: the same node will know the next one.
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    writer
}

#[test]
fn a_killed_leader_costs_redis_clients_seconds_and_no_acknowledged_write() {
    let mut doors = Doors::start(&[]);
    let addresses: Vec<SocketAddr> = (0..3).map(|node| doors.resp(node)).collect();
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let until_more = |count: u64| {
        let wanted = done.load(Ordering::Relaxed) + count;
        let deadline = Instant::now() + PATIENCE;
        while done.load(Ordering::Relaxed) < wanted {
            assert!(Instant::now() < deadline, "clients do not go on");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let writers: Vec<Writer> = std::thread::scope(|scope| {
        let (addresses, stop, done) = (&addresses, &stop, &done);
        let threads: Vec<_> = (0..6)
            .map(|own| scope.spawn(move || write(addresses, own, stop, done)))
            .collect();
        until_more(300);
        // It leads a third of the partitions, and two of the clients are connected to it.
        doors.servers[1].kill();
        until_more(300);
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let gap = writers
        .iter()
        .map(|writer| writer.longest_gap)
        .max()
        .unwrap();
    eprintln!("the longest that a client waited: {gap:?}");
    assert!(gap < Duration::from_secs(20), "{gap:?}");
    let check = |node: usize| {
        let mut c = client(addresses[node], "resp2");
        for (key, &number) in writers.iter().flat_map(|writer| &writer.acknowledged) {
            // A later one whose answer was lost may have come, too.
            let found: Option<u64> = run(&mut c, &format!("GET {key}"));
            assert!(found >= Some(number), "{key}: {found:?} after {number}");
        }
    };
    check(0);
    doors.servers[1].restart();
    check(1);
}
