//! Metrics and health of real processes.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::http::{get, json, raw, try_get};
use crate::support::{
    BINARY, Server, command, free_address, free_addresses, free_cluster_port, refused,
};

/// How long something may take to come about. Generous: it fails a hang, not a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// One core and small memory, with an admin socket.
fn start(dir: &std::path::Path) -> (Server, SocketAddr) {
    let admin = free_address();
    let listen = admin.to_string();
    let arguments = ["--admin", &listen, "--cores", "1", "--memory", "128MiB"];
    (Server::start(dir, &arguments), admin)
}

/// The samples of a scrape by their names and labels. Every line must be sound: after its type, with
/// a number.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut types = BTreeMap::new();
    let mut samples = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(
                types.insert(name.to_owned(), kind.to_owned()),
                None,
                "{line}"
            );
            continue;
        }
        if line.starts_with("# HELP ringbolt_") {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .filter(|base| types.get(*base).is_some_and(|kind| kind == "histogram"));
        assert!(types.contains_key(base.unwrap_or(name)), "untyped: {line}");
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert_eq!(
            samples.insert(series.to_owned(), value),
            None,
            "twice: {line}"
        );
    }
    samples
}

fn scrape(admin: SocketAddr, path: &str) -> BTreeMap<String, f64> {
    let (status, text) = get(admin, path);
    assert_eq!(status, 200, "{text}");
    samples(&text)
}

#[test]
fn what_clients_do_moves_the_metrics() {
    let dir = tempfile::tempdir().unwrap();
    let (server, admin) = start(dir.path());
    assert_eq!(json(admin, "/livez").0, 200);
    let (status, ready) = json(admin, "/readyz");
    assert_eq!((status, &ready["ready"]), (200, &true.into()), "{ready}");

    let before = scrape(admin, "/metrics");
    for _ in 0..5 {
        server.ok(&["put", "a", "1"]);
    }
    server.ok(&["get", "a"]);
    let after = scrape(admin, "/metrics");
    let grown = |name: &str| after[name] - before[name];
    assert!(grown("ringbolt_writes_total") >= 5.0);
    assert!(grown("ringbolt_gets_total") >= 1.0);
    assert!(grown("ringbolt_log_written_bytes_total") > 0.0);
    assert!(grown("ringbolt_log_write_seconds_count") >= 1.0);
    assert_eq!(after["ringbolt_core_up{core=\"0\"}"], 1.0);
    assert_eq!(after["ringbolt_partitions_led"], 128.0);
    assert_eq!(after["ringbolt_partitions_leaderless"], 0.0);
    assert_eq!(after["ringbolt_memory_budget_bytes"], 134_217_728.0);
    assert!(after["ringbolt_disk_free_bytes"] > 0.0);

    let detail = scrape(admin, "/metrics/detail");
    let core = detail["ringbolt_core_writes_total{core=\"0\"}"];
    assert!(core >= after["ringbolt_writes_total"]);
    assert_eq!(
        detail["ringbolt_partition_leader_node{partition=\"127\"}"],
        1.0
    );
    let (status, told) = json(admin, "/api/status");
    assert_eq!((status, &told["stage"]), (200, &"serving".into()));
    assert_eq!(told["cluster"]["nodes"][0]["leads"], 128);
    assert_eq!(told["partitions"].as_array().unwrap().len(), 128);
}

#[test]
fn a_node_without_a_quorum_says_why_it_is_not_ready() {
    let folder = tempfile::tempdir().unwrap();
    let addresses = free_addresses(6);
    let peers: Vec<String> = (1..4)
        .zip(&addresses)
        .map(|(number, address)| format!("n{number}={address}"))
        .collect();
    let begin = |index: usize| {
        let (name, admin) = (format!("n{}", index + 1), addresses[3 + index].to_string());
        let peers = peers.join(",");
        let arguments = ["--node", &name, "--peers", &peers, "--admin", &admin];
        let arguments = arguments
            .into_iter()
            .chain(["--cores", "1", "--memory", "128MiB"])
            .map(str::to_owned);
        Server::begin(
            &folder.path().join(&name),
            addresses[index],
            arguments.collect(),
        )
    };
    let admin = addresses[3];
    let until = |want: u16, reason: &str, count: Option<u64>| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = try_get(admin, "/readyz").map(|(status, body)| {
                let told: serde_json::Value = serde_json::from_str(&body).unwrap();
                (status, told)
            });
            let is = seen.as_ref().is_some_and(|(status, told)| {
                let named = told["reasons"][0]["reason"].as_str().unwrap_or_default();
                *status == want && named == reason && told["reasons"][0]["count"].as_u64() == count
            });
            if is {
                return;
            }
            assert!(Instant::now() < deadline, "not {want} {reason}: {seen:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let mut servers = vec![begin(0)];
    until(503, "meeting", None);
    assert_eq!(json(admin, "/livez").0, 200, "waiting is no fault");
    servers.extend([begin(1), begin(2)]);
    until(200, "", None);
    for server in &mut servers[1..] {
        server.kill();
    }
    until(503, "no_leader", Some(128));
    assert_eq!(json(admin, "/livez").0, 200);
    let metrics = scrape(admin, "/metrics");
    assert_eq!(metrics["ringbolt_partitions_leaderless"], 128.0);
    let status = json(admin, "/api/status").1;
    assert_eq!(status["cluster"]["nodes"].as_array().unwrap().len(), 3);
    for server in &mut servers[1..] {
        server.restart();
    }
    until(200, "", None);
}

#[test]
fn the_admin_socket_is_bounded_and_read_only() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, admin) = start(dir.path());
    let of = |method: &str, path: &str, host: &str, more: &str| {
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n\r\n");
        let answer = raw(admin, &request).unwrap();
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(of("GET", "/livez", "localhost", ""), "200");
    assert_eq!(of("HEAD", "/metrics", "localhost", ""), "200");
    assert_eq!(of("POST", "/livez", "localhost", ""), "405");
    assert_eq!(of("GET", "/nothing", "localhost", ""), "404");
    assert_eq!(of("GET", "/metrics", "rebound.example", ""), "421");
    let long = format!("X-Long: {}\r\n", "x".repeat(64 << 10));
    assert_eq!(of("GET", "/livez", "localhost", &long), "431");
}

#[test]
fn a_taken_port_is_an_error_only_where_it_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    // A port for clients whose second next is taken.
    let port = free_cluster_port();
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let _taken = TcpListener::bind((addr.ip(), port + 2)).unwrap();
    let child = command(dir.path(), addr)
        .env("RINGBOLT_ADMIN_LISTEN", "auto")
        .args(["--cores", "1", "--memory", "128MiB"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id().to_string();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let get = std::process::Command::new(BINARY)
            .args(["get", "--addr", &addr.to_string(), "--timeout", "1s", "x"])
            .output()
            .unwrap();
        if get.status.code() == Some(1) {
            break;
        }
        assert!(Instant::now() < deadline, "it does not serve");
        std::thread::sleep(Duration::from_millis(50));
    }
    let kill = ["-TERM", &pid];
    std::process::Command::new("kill")
        .args(kill)
        .status()
        .unwrap();
    let said = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr);
    assert!(
        said.contains("choose another address with --admin"),
        "{said}"
    );
    assert!(said.contains("admin       off"), "{said}");

    let other = tempfile::tempdir().unwrap();
    let held = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = held.local_addr().unwrap().to_string();
    let said = refused(other.path(), &["--admin", &address, "--cores", "1"]);
    assert!(said.contains(&address), "{said}");
}

/// A client over the wire that does not start a process for each request.
fn client(addr: SocketAddr) -> ringbolt_client::blocking::Client {
    ringbolt_client::Client::builder()
        .addresses(addr.to_string())
        .deadline(Duration::from_secs(30))
        .connect_blocking()
        .unwrap()
}

/// The slow requests of a node, once `is` holds of one; that one.
fn slow_one(admin: SocketAddr, is: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let told = json(admin, "/api/slow").1;
        let found = told["requests"]
            .as_array()
            .unwrap()
            .iter()
            .find(|one| is(one));
        if let Some(found) = found {
            return found.clone();
        }
        assert!(Instant::now() < deadline, "{told}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The part of a slow request's time that its stages explain.
fn explained(request: &serde_json::Value) -> f64 {
    let stages = request["stages_us"].as_object().unwrap().values();
    let sum: f64 = stages.map(|us| us.as_f64().unwrap()).sum();
    sum / request["total_us"].as_f64().unwrap()
}

#[test]
fn a_request_that_met_a_stopped_process_tells_that_it_waited_for_the_core() {
    let dir = tempfile::tempdir().unwrap();
    let (server, admin) = start(dir.path());
    let client = client(server.addr);
    let keyspace = client.keyspace("default").unwrap();
    keyspace.put("a \u{7}", "1").unwrap();
    server.signal("STOP");
    let asked = std::thread::spawn(move || keyspace.get("a \u{7}").unwrap());
    std::thread::sleep(Duration::from_millis(150));
    server.signal("CONT");
    asked.join().unwrap();
    let is_it = |one: &serde_json::Value| one["op"] == "get" && one["key"] == "a \\x07";
    let slow = slow_one(admin, is_it);
    assert!(slow["total_us"].as_u64().unwrap() > 100_000, "{slow}");
    assert!(
        slow["stages_us"]["queue"].as_u64().unwrap() > 100_000,
        "{slow}"
    );
    assert!((0.95..=1.0).contains(&explained(&slow)), "{slow}");
    let shown = std::process::Command::new(BINARY)
        .args(["slow", "--admin", &admin.to_string(), "--min", "100ms"])
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.contains("get ok  a \\x07") && shown.contains(" queue "),
        "{shown}"
    );
}

#[test]
fn a_write_that_waited_for_a_stopped_peer_tells_which() {
    let folder = tempfile::tempdir().unwrap();
    let addresses = free_addresses(4);
    let peers = format!("n1={},n2={}", addresses[0], addresses[1]);
    let mut servers: Vec<Server> = (0..2)
        .map(|index: usize| {
            let (name, admin) = (format!("n{}", index + 1), addresses[2 + index].to_string());
            let arguments = ["--node", &name, "--peers", &peers, "--admin", &admin];
            let more = [
                "--cores",
                "1",
                "--memory",
                "128MiB",
                "--set",
                "replication=2",
            ];
            let arguments = arguments.into_iter().chain(more).map(str::to_owned);
            let dir = folder.path().join(&name);
            Server::begin(&dir, addresses[index], arguments.collect())
        })
        .collect();
    for server in &mut servers {
        server.wait_until_ready();
    }
    // A key that the first node leads: it is written through that one while the other is stopped.
    let led = |key: &String| {
        let partition = ringbolt_wire::partition_of(key.as_bytes(), 128);
        let told = json(addresses[2], "/api/status").1;
        let partitions = told["partitions"].as_array().unwrap();
        partitions[usize::from(partition)]["leader"] == 1
    };
    let deadline = Instant::now() + PATIENCE;
    let key = loop {
        if let Some(key) = (0..64).map(|n| format!("key-{n}")).find(led) {
            break key;
        }
        assert!(Instant::now() < deadline, "the first node leads nothing");
    };
    servers[0].ok(&["put", "--timeout", "30s", &key, "before"]);
    let client = client(addresses[0]);
    let keyspace = client.keyspace("default").unwrap();
    // On a machine that is busy enough the leader's own log may be what takes the time.
    let slow = (0..10).find_map(|attempt| {
        servers[1].signal("STOP");
        let (keyspace, name) = (keyspace.clone(), key.clone());
        let put = std::thread::spawn(move || keyspace.put(name, format!("after {attempt}")));
        // Less than an election timeout.
        std::thread::sleep(Duration::from_millis(120));
        servers[1].signal("CONT");
        put.join().unwrap().unwrap();
        let told = json(addresses[2], "/api/slow").1;
        let mut requests = told["requests"].as_array().unwrap().iter();
        let by_peers = |one: &&serde_json::Value| {
            let peers = one["stages_us"]["peers"].as_u64().unwrap_or(0);
            let is_it = one["op"] == "put" && one["key"] == key.as_str();
            is_it && peers * 2 > one["total_us"].as_u64().unwrap()
        };
        requests.find(by_peers).cloned()
    });
    let slow = slow.expect("a write that mostly waited for the other node");
    assert!((0.95..=1.0).contains(&explained(&slow)), "{slow}");
    let stored = |node: u64| {
        let members = slow["members"].as_array().unwrap().iter();
        let mut of_node = members.filter(|member| member["node"] == node);
        of_node.next().unwrap()["stored_us"].as_u64().unwrap()
    };
    assert!(stored(1) < stored(2), "{slow}");
}

#[test]
fn a_key_with_a_tenth_of_the_traffic_is_named_within_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let (server, admin) = start(dir.path());
    let client = client(server.addr);
    let keyspace = client.keyspace("default").unwrap();
    keyspace.put("hot \"key\"", "1").unwrap();
    let (stop, done) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let load = {
        let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let request = done.fetch_add(1, Ordering::Relaxed);
                let key = match request % 10 {
                    0 => "hot \"key\"".to_owned(),
                    _ => format!("other-{request}"),
                };
                keyspace.get(key).unwrap();
            }
        })
    };
    // A second of it; more on a machine that is too busy to make some hundred requests in that time.
    let deadline = Instant::now() + PATIENCE;
    let mut before = 0;
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let now = done.load(Ordering::Relaxed);
        if now - std::mem::replace(&mut before, now) >= 500 {
            break;
        }
        assert!(Instant::now() < deadline, "{now} requests in a minute");
    }
    let told = json(admin, "/api/hot").1;
    let metrics = scrape(admin, "/metrics");
    let shown = std::process::Command::new(BINARY)
        // Of several addresses the first that answers.
        .args(["hot", "--admin", &format!("{},{admin}", free_address())])
        .output()
        .unwrap();
    stop.store(true, Ordering::Relaxed);
    load.join().unwrap();
    let first = &told["keys"][0];
    assert_eq!(first["key"], "hot \\\"key\\\"", "{before} requests: {told}");
    let sure = first["share"].as_f64().unwrap() - first["error"].as_f64().unwrap();
    assert!((0.05..0.2).contains(&sure), "{told}");
    assert!(metrics["ringbolt_hot_key_share"] > 0.05);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("hot \\\"key\\\""), "{shown}");
    let deadline = Instant::now() + PATIENCE;
    let is_told = || {
        let told = json(admin, "/api/series").1;
        let mut rows = told["rows"].as_array().unwrap().iter();
        rows.any(|row| row[1].as_f64() > Some(0.0))
    };
    while !is_told() {
        assert!(Instant::now() < deadline, "no second was told");
        std::thread::sleep(Duration::from_millis(50));
    }
    let (status, page) = get(admin, "/");
    assert!(status == 200 && page.starts_with("<!doctype html>"));
    assert!(
        !page.contains("src=\"http") && !page.contains("@import"),
        "it stands alone"
    );
}

#[test]
fn keys_can_be_hidden() {
    let dir = tempfile::tempdir().unwrap();
    let admin = free_address();
    let listen = admin.to_string();
    let arguments = ["--admin", &listen, "--cores", "1", "--memory", "128MiB"];
    let hide = ["--set", "admin.keys=hide"];
    let server = Server::start(dir.path(), &[&arguments[..], &hide].concat());
    let client = client(server.addr);
    let keyspace = client.keyspace("default").unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        for _ in 0..10 {
            keyspace.put("secret", "1").unwrap();
        }
        let (_, told) = get(admin, "/api/hot");
        assert!(!told.contains("secret"), "{told}");
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        let key = told["keys"][0]["key"].as_str();
        if key.is_some_and(|key| key.len() == 9 && key.starts_with('#')) {
            return;
        }
        assert!(Instant::now() < deadline, "{told}");
    }
}
