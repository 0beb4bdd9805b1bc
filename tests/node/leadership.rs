//! Who leads what, as the operator wants it, and as a node that stops leaves it.

use std::time::Duration;

use serde_json::{Value, json};

use super::cluster::{Nodes, is_led};

fn leads(status: &Value, node: usize) -> u64 {
    status["nodes"][node]["leads"].as_u64().unwrap()
}

/// The index of the node that leads a partition.
fn leader(status: &Value, partition: usize) -> usize {
    let leader = &status["partitions"][partition]["leader"];
    usize::try_from(leader.as_u64().unwrap()).unwrap() - 1
}

#[test]
fn a_partition_is_led_by_whom_the_operator_wants() {
    let mut nodes = Nodes::start();
    let status = nodes.status(0, is_led);
    let to = (leader(&status, 17) + 1) % 3;
    let name = format!("n{}", to + 1);
    let done = nodes.servers[(to + 1) % 3].ok(&[
        "transfer-leader",
        "--partition",
        "17",
        "--to",
        &name,
        "--format",
        "json",
    ]);
    let done: Value = serde_json::from_str(&done).unwrap();
    assert_eq!(
        (&done["partition"], &done["leader"]),
        (&json!(17), &json!(name))
    );
    // It is kept, also when the node was away.
    assert!(nodes.servers[to].stop().success());
    nodes.servers[to].restart();
    nodes.status(0, |status| is_led(status) && leader(status, 17) == to);
    let refused = nodes.servers[0].cli(&["transfer-leader", "--partition", "17", "--to", "n9"]);
    assert_eq!(refused.status.code(), Some(2));
    let refused = nodes.servers[0].cli(&["transfer-leader", "--partition", "999", "--to", "n1"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("does not hold partition 999"), "{said}");
}

#[test]
fn a_drained_node_leads_nothing_until_it_is_undone() {
    let nodes = Nodes::start();
    nodes.status(0, |status| is_led(status) && leads(status, 1) > 0);
    nodes.servers[0].ok(&["drain", "--node", "n2"]);
    // Longer than a preferred leader is otherwise waited for. Where a leader has to stand still for long,
    // the drained node may be elected, and gives the partition back.
    let mut led = 0;
    for _ in 0..12 {
        let status = nodes.status(2, is_led);
        led += u32::from(leads(&status, 1) > 0);
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(led <= 2, "it led something in {led} of 12 looks");
    let done = nodes.servers[0].ok(&["drain", "--node", "n2", "--undo", "--format", "json"]);
    let done: Value = serde_json::from_str(&done).unwrap();
    assert_eq!(
        (&done["node"], &done["drains"]),
        (&json!("n2"), &json!(false))
    );
    nodes.status(2, |status| is_led(status) && leads(status, 1) > 30);
}

#[test]
fn a_node_that_is_stopped_leaves_no_partition_without_a_leader() {
    let mut nodes = Nodes::start();
    nodes.status(0, |status| is_led(status) && leads(status, 2) > 0);
    assert!(nodes.servers[2].stop().success());
    // Whoever was told to lead does once its first entry is on two disks.
    nodes.status(0, |status| {
        is_led(status) && status["nodes"][2]["reachable"] == json!(false)
    });
}
