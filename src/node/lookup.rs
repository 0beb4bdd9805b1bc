//! Looks up the names of other nodes' hosts, away from the cores: the system's resolver blocks, for many
//! seconds where a name service does not answer.
//!
//! The main thread looks what is due ([`crate::cluster::addresses`]); each name has a short-lived thread of
//! its own, so that none waits for another one's name service.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crate::cluster::addresses::Found;
use crate::cluster::{ClusterView, NodeId};

/// The stack of a thread that looks one name up.
const STACK_BYTES: usize = 256 << 10;

/// Begins to look up what is due.
pub(super) fn look(cluster: &Arc<ClusterView>) {
    look_by(cluster, |written| {
        let found = written.to_socket_addrs().map_err(|error| error.to_string());
        found.map(Iterator::collect)
    });
}

/// The same by any resolver.
fn look_by(
    cluster: &Arc<ClusterView>,
    resolve: impl Fn(&str) -> Result<Vec<SocketAddr>, String> + Clone + Send + 'static,
) {
    for (node, written) in cluster.addresses().due(Instant::now()) {
        let (view, resolve) = (Arc::clone(cluster), resolve.clone());
        let look = move || take(&view, node, resolve(&written));
        let thread = thread::Builder::new().name("lookup".into());
        if let Err(error) = thread.stack_size(STACK_BYTES).spawn(look) {
            take(cluster, node, Err(error.to_string()));
        }
    }
}

/// Hands what has come of it to the cores, and says what is new.
fn take(cluster: &ClusterView, node: NodeId, found: Result<Vec<SocketAddr>, String>) {
    let Some(info) = cluster.node(node) else {
        return;
    };
    let (name, written) = (&info.name, &info.address);
    match cluster.addresses().take(node, found) {
        Found::AsBefore => {}
        Found::Moved(address) => tracing::info!("node {name} at {written} is at {address} now"),
        Found::Nothing(why) => tracing::warn!(
            "the address {written} of node {name} cannot be resolved: {why}; it is tried again as \
             long as the node cannot be reached: look at the name service, or start the node"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::cluster::{Identity, NodeInfo};

    #[test]
    fn a_node_that_moves_is_found_and_a_slow_name_delays_no_other() {
        let node = |id: NodeId, address: &str| NodeInfo {
            id,
            name: format!("n{id}"),
            address: address.to_owned(),
            cores: 1,
            zone: String::new(),
            weight: 1,
        };
        let identity = Identity {
            cluster: 1,
            node: 1,
            boot: 1,
            start: 1,
        };
        let nodes = vec![node(1, "10.0.0.1:1"), node(2, "b:1"), node(3, "c:1")];
        let view = Arc::new(ClusterView::new(identity, nodes, Vec::new()));
        let now_at = Arc::new(Mutex::new(SocketAddr::from(([10, 0, 0, 2], 1))));
        let answers = Arc::new(AtomicBool::new(false));
        let resolve = {
            let (now_at, answers) = (Arc::clone(&now_at), Arc::clone(&answers));
            move |written: &str| match written {
                "b:1" => Ok(vec![*now_at.lock().unwrap()]),
                _ => {
                    while !answers.load(Ordering::Acquire) {
                        thread::sleep(Duration::from_millis(1));
                    }
                    Err("no such name".to_owned())
                }
            }
        };
        let wait_for = |wanted: SocketAddr| {
            while view.address(2) != Some(wanted) {
                look_by(&view, resolve.clone());
                thread::sleep(Duration::from_millis(1));
            }
        };
        wait_for(SocketAddr::from(([10, 0, 0, 2], 1)));
        let moved = SocketAddr::from(([10, 0, 0, 9], 1));
        *now_at.lock().unwrap() = moved;
        view.addresses().note_failed(2);
        wait_for(moved);
        assert_eq!(view.address(3), None);
        answers.store(true, Ordering::Release);
    }
}
