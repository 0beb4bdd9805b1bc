//! Starts, stops and folders.

use crate::support::{Server, refused, refused_at};

#[test]
fn what_was_put_is_there_after_a_stop_and_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &["--cores", "2", "--memory", "256MiB"]);
    server.ok(&["put", "a", "1"]);
    assert!(server.stop().success(), "a clean stop exits 0");
    server.restart();
    assert_eq!(server.ok(&["get", "a"]), "1");
    server.ok(&["put", "b", "2"]);
    server.kill();
    server.restart();
    assert_eq!(server.ok(&["get", "a"]), "1");
    assert_eq!(server.ok(&["get", "b"]), "2");
}

#[test]
fn keyspaces_survive_and_dropped_ones_do_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &["--cores", "2", "--memory", "256MiB"]);
    server.ok(&["keyspace", "create", "users"]);
    server.ok(&["keyspace", "create", "sessions"]);
    server.ok(&["put", "--keyspace", "users", "alice", "1"]);
    server.ok(&["put", "--keyspace", "sessions", "s", "1"]);
    server.ok(&["keyspace", "drop", "--yes", "sessions"]);
    server.kill();
    server.restart();
    assert_eq!(server.ok(&["get", "--keyspace", "users", "alice"]), "1");
    let list = server.ok(&["keyspace", "list"]);
    assert!(
        list.contains("users") && !list.contains("sessions"),
        "{list}"
    );
    let gone = server.cli(&["get", "--keyspace", "sessions", "s"]);
    assert!(!gone.status.success());
}

#[test]
fn status_tells_of_every_partition() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--cores", "2", "--memory", "256MiB"]);
    server.ok(&["put", "a", "1"]);
    let status: serde_json::Value =
        serde_json::from_str(&server.ok(&["status", "--format", "json"])).unwrap();
    assert_eq!(status["leaderless"], serde_json::json!([]));
    let node = &status["nodes"][0];
    assert_eq!(
        (&node["leads"], &node["replicas"], &node["lag"]),
        (&128.into(), &128.into(), &0.into())
    );
    let counter = |name: &str| node["counters"][name].as_u64().unwrap();
    // Each partition's leader has opened its term, and one has the put.
    assert!(counter("proposals_total") > 128);
    assert!((129..=counter("proposals_total")).contains(&counter("proposal_batches_total")));
    assert_eq!(counter("snapshots_sent_total"), 0);
    let partitions = status["partitions"].as_array().unwrap();
    assert!(
        partitions
            .iter()
            .all(|row| row["leader"] == 1 && row["term"].as_u64() >= Some(1))
    );
    assert!(
        partitions
            .iter()
            .any(|row| row["applied"].as_u64() >= Some(2))
    );
}

#[test]
fn a_folder_stays_with_its_node_and_peers() {
    let dir = tempfile::tempdir().unwrap();
    let cores = ["--cores", "1", "--memory", "128MiB"];
    let mut server = Server::start(dir.path(), &[&cores[..], &["--node", "a"]].concat());
    assert!(server.stop().success());
    let said = refused(dir.path(), &[&cores[..], &["--node", "b"]].concat());
    assert!(said.contains("that of node a, not of b"), "{said}");
    let peers = ["--node", "a", "--peers", "a=127.0.0.1:7400"];
    let said = refused(dir.path(), &[&cores[..], &peers].concat());
    assert!(said.contains("made without --peers"), "{said}");
    let said = refused(dir.path(), &["--node", "c", "--peers", "a=127.0.0.1:7400"]);
    assert!(
        said.contains("is c, but `peers` (flag --peers) lists a"),
        "{said}"
    );
}

#[test]
fn a_folder_in_use_and_a_changed_core_count_are_refused_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &["--cores", "1", "--memory", "128MiB"]);
    let said = refused(dir.path(), &["--cores", "1", "--memory", "128MiB"]);
    assert!(said.contains("another ringbolt process"), "{said}");
    assert!(server.stop().success());
    let said = refused(dir.path(), &["--cores", "2", "--memory", "256MiB"]);
    assert!(said.contains("ringbolt recore"), "{said}");
}

#[test]
fn a_foreign_folder_and_a_newer_format_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.txt"), "mine").unwrap();
    let said = refused(dir.path(), &["--cores", "1"]);
    assert!(said.contains("not a Ringbolt data folder"), "{said}");
    assert_eq!(
        std::fs::read(dir.path().join("thesis.txt")).unwrap(),
        b"mine"
    );

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("FORMAT"), "version = 99\n").unwrap();
    let said = refused(dir.path(), &["--cores", "1"]);
    assert!(said.contains("format 99"), "{said}");
}

#[test]
fn a_port_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let said = refused_at(dir.path(), addr, &["--cores", "1"]);
    assert!(said.contains("cannot listen"), "{said}");
}

#[test]
fn a_stopped_and_continued_server_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--cores", "2", "--memory", "256MiB"]);
    server.ok(&["put", "a", "1"]);
    server.signal("STOP");
    let unanswered = server.cli(&["get", "--timeout", "200ms", "a"]);
    server.signal("CONT");
    assert!(!unanswered.status.success());
    assert_eq!(server.ok(&["get", "a"]), "1");
    server.ok(&["put", "a", "2"]);
    assert_eq!(server.ok(&["get", "a"]), "2");
}
