//! A disk that hangs: its file system is frozen, so that no write comes back. The node gives away what it leads,
//! the others go on, and once the disk writes again the node has everything.

use std::time::{Duration, Instant};

use super::cluster::{Nodes, is_led};
use super::crash::LoopDisk;

const HUNG: usize = 1;
const KEYS: usize = 16;

#[test]
fn a_node_whose_disk_hangs_leads_nothing_and_goes_on_when_it_writes_again() {
    let Some(disk) = LoopDisk::make("hung", 1024) else {
        println!("skipped: mounting a loop device needs root and mkfs.ext4");
        return;
    };
    let nodes = Nodes::start_in(|index, folder| match index {
        HUNG => disk.mount.join("data"),
        _ => folder.join(index.to_string()),
    });
    nodes.status(0, |status| is_led(status) && leads(status, HUNG) > 0);
    let key = |n: usize| format!("key-{n}");
    for n in 0..KEYS {
        nodes.servers[0].ok(&["put", "--timeout", "30s", &key(n), "before"]);
    }

    let Some(frozen) = disk.freeze() else {
        println!("skipped: fsfreeze is not there");
        return;
    };
    let began = Instant::now();
    for n in 0..KEYS {
        nodes.servers[0].ok(&["put", "--timeout", "30s", &key(n), "meanwhile"]);
    }
    nodes.status(0, |status| is_led(status) && leads(status, HUNG) == 0);
    for n in 0..KEYS {
        nodes.servers[2].ok(&["put", "--timeout", "2s", &key(n), "after"]);
    }
    let took = began.elapsed();
    assert!(
        took < Duration::from_secs(25),
        "the others went on after {took:?} only"
    );

    drop(frozen);
    nodes.status(0, |status| {
        is_led(status) && status["nodes"][HUNG]["lag"] == 0 && leads(status, HUNG) > 0
    });
    for n in 0..KEYS {
        let found = nodes.servers[HUNG].ok(&["get", "--timeout", "30s", &key(n)]);
        assert_eq!(found, "after");
    }
}

/// How many partitions a node leads.
fn leads(status: &serde_json::Value, node: usize) -> usize {
    let partitions = status["partitions"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let is_it = |partition: &&serde_json::Value| partition["leader"] == node + 1;
    partitions.iter().filter(is_it).count()
}
