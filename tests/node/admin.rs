//! Metrics and health of real processes.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use crate::support::http::{get, json, raw, try_get};
use crate::support::{BINARY, Server, command, free_address, free_addresses, refused};

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
    let (addr, _taken) = loop {
        let addr = free_address();
        let beside = (addr.ip(), addr.port().saturating_add(2));
        if let Ok(taken) = TcpListener::bind(beside) {
            break (addr, taken);
        }
    };
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
