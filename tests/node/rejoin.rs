//! Nodes of a cluster that lose their data.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use ringbolt_engine::tree::COLUMNS;
use serde_json::{Value, json};

use super::cluster::{Nodes, PATIENCE, is_led};
use super::crash::{begun, end, load, verify};
use crate::support::BINARY;

/// Whether every partition has three voters, node `node` in this generation among them.
fn is_whole(status: &Value, node: usize, generation: u64) -> bool {
    let partitions = status["partitions"].as_array().unwrap();
    let is_whole = |partition: &Value| {
        let members = partition["members"].as_array().unwrap();
        let own = |member: &&Value| member["node"] == json!(node + 1);
        members.len() == 3
            && members.iter().all(|member| member["votes"] == json!(true))
            && members.iter().find(own).unwrap()["generation"] == json!(generation)
    };
    is_led(status) && status["nodes"][node]["lag"] == json!(0) && partitions.iter().all(is_whole)
}

fn put_all(nodes: &Nodes, through: usize, value: &str) {
    for n in 0..24 {
        let key = format!("key-{n}");
        nodes.servers[through].ok(&["put", "--timeout", "30s", &key, value]);
    }
}

fn get_all(nodes: &Nodes, through: usize, value: &str) {
    for n in 0..24 {
        let key = format!("key-{n}");
        assert_eq!(
            nodes.servers[through].ok(&["get", "--timeout", "30s", &key]),
            value
        );
    }
}

#[test]
fn a_node_whose_folder_was_deleted_rejoins_by_itself() {
    let mut nodes = Nodes::start();
    put_all(&nodes, 0, "before");
    nodes.status(0, |status| is_whole(status, 2, 1));
    nodes.servers[0].ok(&["keyspace", "create", "--timeout", "30s", "kept"]);
    let acked = nodes.servers[0].dir.with_extension("acked");
    for generation in [2, 3] {
        let writing = load(&nodes.servers[0], &acked, generation as u32);
        std::thread::sleep(Duration::from_secs(1));
        nodes.servers[2].kill();
        fs::remove_dir_all(&nodes.servers[2].dir).unwrap();
        let began = Instant::now();
        nodes.servers[2].restart();
        let status = nodes.status(1, |status| is_whole(status, 2, generation));
        println!("whole again after {:?}", began.elapsed());
        assert_eq!(status["map_version"], json!(generation));
        end(writing);
        get_all(&nodes, 2, "before");
        assert!(verify(&nodes.servers[2], &acked) > 0);
    }
    // It votes: with it, the loss of another one costs nothing.
    nodes.servers[0].kill();
    nodes.status(2, is_led);
    put_all(&nodes, 2, "after");
    get_all(&nodes, 2, "after");
    let keyspaces = nodes.servers[2].ok(&["keyspace", "list", "--timeout", "30s"]);
    assert!(keyspaces.contains("kept"), "{keyspaces}");
}

#[test]
fn two_nodes_that_lost_their_folders_make_no_cluster_of_their_own() {
    let mut nodes = Nodes::start();
    put_all(&nodes, 0, "kept");
    for node in 0..3 {
        nodes.servers[node].kill();
    }
    let aside = nodes.servers[1].dir.with_extension("aside");
    fs::rename(&nodes.servers[1].dir, &aside).unwrap();
    fs::remove_dir_all(&nodes.servers[2].dir).unwrap();
    // Alone they wait for the third; with it, for most of the data.
    nodes.servers[1].begin_again();
    nodes.servers[2].begin_again();
    std::thread::sleep(Duration::from_secs(2));
    nodes.servers[0].begin_again();
    std::thread::sleep(Duration::from_secs(6));
    for node in [1, 2] {
        let put = nodes.servers[node].cli(&["put", "--timeout", "1s", "key-0", "invented"]);
        assert_eq!(put.status.code(), Some(3), "{put:?}");
    }
    let status = nodes.status(0, |status| {
        let leaderless = status["leaderless"].as_array();
        leaderless.is_some_and(|all| all.len() == 128)
    });
    let why = status["partitions"][0]["why"].as_str().unwrap();
    assert!(
        why.starts_with("no quorum, 2 of its 3 nodes do not answer"),
        "{why}"
    );
    assert_eq!(status["map_version"], json!(1));

    // The data of one of the two is found again: all is there, and the other gets it.
    nodes.servers[1].kill();
    fs::remove_dir_all(&nodes.servers[1].dir).unwrap();
    fs::rename(&aside, &nodes.servers[1].dir).unwrap();
    nodes.servers[1].begin_again();
    let deadline = Instant::now() + PATIENCE;
    for server in &mut nodes.servers {
        server.wait_until_ready();
    }
    assert!(Instant::now() < deadline);
    nodes.status(0, |status| is_whole(status, 2, 2));
    get_all(&nodes, 2, "kept");
}

/// Every file under a folder.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Overwrites bytes of the shards' files at random places, of what is not zeros.
fn corrupt(dir: &Path, places: usize, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut spans = Vec::new();
    for path in files(dir) {
        let bytes = fs::read(&path).unwrap();
        let used = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1);
        spans.push((path, used as u64));
    }
    let total: u64 = spans.iter().map(|(_, used)| used).sum();
    for _ in 0..places {
        let mut at = rng.random_range(0..total);
        let hit = spans.iter().find(|(_, used)| {
            let is_in = at < *used;
            at = if is_in { at } else { at - used };
            is_in
        });
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&hit.unwrap().0)
            .unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        byte[0] ^= rng.random_range(1..=255u8);
        file.write_all_at(&byte, at).unwrap();
    }
}

#[test]
fn damaged_files_are_never_served_and_repaired_from_the_others() {
    let mut nodes = Nodes::start();
    let acked = nodes.servers[0].dir.with_extension("acked");
    let writing = load(&nodes.servers[0], &acked, 1);
    begun(&acked);
    std::thread::sleep(Duration::from_secs(3));
    end(writing);
    assert!(nodes.servers[1].stop().success());
    corrupt(&nodes.servers[1].dir.join("shard-000"), 1000, 7);
    nodes.servers[1].restart();
    nodes.status(0, |status| is_whole(status, 1, 2));
    assert!(nodes.servers[1].dir.join("lost-1/shard-000/log").exists());
    // What it serves is what was written, with the help of one other only.
    nodes.servers[2].kill();
    nodes.status(1, is_led);
    assert!(verify(&nodes.servers[1], &acked) > 0);
}

#[test]
fn damaged_tables_are_found_while_it_runs_and_repaired() {
    let mut nodes = Nodes::start();
    let acked = nodes.servers[0].dir.with_extension("acked");
    let mut writing = Command::new(BINARY)
        .args([
            "bench",
            "put",
            "--quiet",
            "--addr",
            &nodes.servers[0].addr.to_string(),
        ])
        .args([
            "--connections",
            "16",
            "--records",
            "20000",
            "--value-size",
            "2000",
        ])
        .args(["--duration", "60s", "--seed", "3", "--ledger"])
        .arg(&acked)
        .spawn()
        .unwrap();
    let tables = |node: usize, nodes: &Nodes| -> Vec<PathBuf> {
        let all = files(&nodes.servers[node].dir.join("shard-000/tables"));
        let is_table = |path: &PathBuf| path.extension().is_some_and(|end| end == "table");
        all.into_iter().filter(is_table).collect()
    };
    // More than one flush writes: so the first one's count, and what is in them is not replayed.
    let deadline = Instant::now() + PATIENCE;
    while tables(1, &nodes).len() as u64 <= COLUMNS {
        assert!(Instant::now() < deadline, "nothing is flushed");
        std::thread::sleep(Duration::from_millis(100));
    }
    writing.kill().unwrap();
    writing.wait().unwrap();
    assert!(nodes.servers[1].stop().success());
    // Blocks of rows only: the tables open as if nothing were.
    for path in tables(1, &nodes) {
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        let half = file.metadata().unwrap().len() / 2;
        for at in (0..half).step_by(4096) {
            file.write_all_at(b"damage", at + 1000).unwrap();
        }
    }
    nodes.servers[1].restart();
    // Somebody reads: soon it leads its share again, and reads of that meet the damage.
    let aside = nodes.servers[1].dir.join("lost-1");
    let mut keys = ringbolt_load::keys::Keys::new("bench:");
    let written: HashSet<Vec<u8>> = (0..20_000).map(|n| keys.key(n).to_vec()).collect();
    let deadline = Instant::now() + PATIENCE;
    while !aside.exists() {
        assert!(Instant::now() < deadline, "the damage is not found");
        // It fails where it must, and brings nothing that was not written.
        let read = nodes.servers[1].cli(&["scan", "--limit", "20000", "--keys-only"]);
        for key in String::from_utf8(read.stdout).unwrap().lines() {
            assert!(written.contains(key.as_bytes()), "{key}");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    nodes.status(0, |status| is_whole(status, 1, 2));
    nodes.servers[2].kill();
    nodes.status(1, is_led);
    assert!(verify(&nodes.servers[1], &acked) > 0);
}

fn copy_all(from: &Path, to: &Path) {
    for path in files(from) {
        let target = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(path, target).unwrap();
    }
}

#[test]
fn a_disk_that_was_rolled_back_is_found_and_begun_anew() {
    let mut nodes = Nodes::start();
    put_all(&nodes, 0, "before");
    assert!(nodes.servers[2].stop().success());
    let dir = nodes.servers[2].dir.clone();
    let old = dir.with_extension("old");
    copy_all(&dir, &old);
    nodes.servers[2].restart();
    put_all(&nodes, 2, "after");
    // The others remember over a restart of their own.
    for node in [0, 1] {
        assert!(nodes.servers[node].stop().success());
        nodes.servers[node].restart();
    }
    nodes.servers[2].kill();
    fs::remove_dir_all(&dir).unwrap();
    fs::rename(&old, &dir).unwrap();
    nodes.servers[2].begin_again();
    nodes.status(0, |status| is_whole(status, 2, 2));
    assert!(dir.join("lost-1/shard-000/log").exists());
    nodes.servers[2].wait_until_ready();
    get_all(&nodes, 2, "after");
}
