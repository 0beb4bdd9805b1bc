//! Commands on the folder of a stopped server: what a real one has written.

use super::run;
use crate::support::Server;

const ONE: &[&str] = &["--cores", "1", "--memory", "128MiB"];
const THREE: &[&str] = &["--cores", "3", "--memory", "256MiB"];

/// Twenty keys of two keyspaces, one of them with a counter that was counted twice.
fn fill(server: &Server) {
    server.ok(&["keyspace", "create", "users"]);
    for number in 0..10 {
        server.ok(&["put", &format!("key{number}"), &number.to_string()]);
        let name = format!("user{number}");
        server.ok(&["put", "--keyspace", "users", &name, "x", "--ttl", "1h"]);
    }
    server.ok(&["incr", "counter", "41"]);
    server.ok(&["incr", "counter"]);
    server.ok(&["del", "key9"]);
}

/// All that can be seen of the rows, times and versions too.
fn seen(server: &Server) -> String {
    let default = server.ok(&["scan", "--format", "json"]);
    let users = server.ok(&["scan", "--format", "json", "--keyspace", "users"]);
    let without_creation = |line: &str| {
        let mut row: serde_json::Value = serde_json::from_str(line).unwrap();
        // A scan tells of the creation only where it is known without looking further.
        row.as_object_mut().unwrap().remove("created_ms");
        row.to_string()
    };
    let rows = default.lines().chain(users.lines()).map(without_creation);
    rows.collect::<Vec<_>>().join("\n")
}

#[test]
fn recore_moves_everything_to_another_number_of_cores_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let mut server = Server::start(dir.path(), ONE);
    fill(&server);
    let before = seen(&server);
    assert_eq!(before.lines().count(), 20);
    let created = server.ok(&["stat", "counter"]);
    let busy = run(&["recore", "--data", data, "--cores", "3"]);
    assert_eq!(busy.code, 2, "a running server holds the folder: {busy:?}");
    assert!(server.stop().success());
    for cores in [THREE, ONE] {
        let moved = run(&[&["recore", "--data", data], cores].concat());
        assert_eq!((moved.code, moved.stderr.as_str()), (0, ""), "{moved:?}");
        let mut server = Server::start(dir.path(), cores);
        assert_eq!(seen(&server), before);
        assert_eq!(server.ok(&["stat", "counter"]), created);
        assert!(server.stop().success());
    }
    let again = run(&[&["recore", "--data", data], ONE].concat());
    assert!(again.stdout.contains("already"), "{again:?}");
}

#[test]
fn inspect_shows_what_a_server_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let mut server = Server::start(dir.path(), ONE);
    fill(&server);
    assert!(server.stop().success());
    let log = run(&["inspect", "log", data, "--records", "--key", "counter"]);
    assert_eq!((log.code, log.stderr.as_str()), (0, ""));
    assert!(
        log.stdout.contains("put keyspace 0 \"counter\" = \"41\""),
        "{}",
        log.stdout
    );
    assert!(
        log.stdout.contains("put keyspace 0 \"counter\" = \"42\""),
        "{}",
        log.stdout
    );
    for command in ["log", "manifest"] {
        let ended = run(&["inspect", command, data]);
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{command}");
        assert!(ended.stdout.contains("shard-000"), "{}", ended.stdout);
    }
}
