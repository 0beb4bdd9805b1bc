//! A second node of a name that is taken already.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;

use super::cluster::{Nodes, arguments, is_led};
use crate::support::{Server, free_addresses, refused_at};

/// What a second `n2` is started with.
fn second(nodes: &Nodes) -> Vec<String> {
    let addresses: Vec<SocketAddr> = nodes.servers.iter().map(|server| server.addr).collect();
    arguments(1, &addresses)
}

#[test]
fn a_second_node_of_a_name_is_refused_while_the_first_runs() {
    let nodes = Nodes::start();
    let arguments = second(&nodes);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let dir = nodes.servers[1].dir.with_extension("second");
    let said = refused_at(&dir, free_addresses(1)[0], &arguments);
    assert!(said.contains("node n2 runs already, at "), "{said}");
    assert!(said.contains("(--node)"), "{said}");
}

/// The first one is silent for longer than members wait: the second one does not take its place.
#[test]
fn a_second_node_of_a_name_takes_no_place_while_the_first_is_silent_for_a_moment() {
    let nodes = Nodes::start();
    let dir = nodes.servers[1].dir.with_extension("second");
    nodes.status(0, is_led);
    nodes.servers[1].signal("STOP");
    let mut second = Server::begin(&dir, free_addresses(1)[0], second(&nodes));
    std::thread::sleep(Duration::from_secs(7));
    nodes.servers[1].signal("CONT");
    assert_eq!(second.ended(), Some(2), "it is refused");
    let status = nodes.status(0, |status| {
        is_led(status) && status["nodes"][1]["lag"] == json!(0)
    });
    assert_eq!(status["map_version"], json!(1));
}
