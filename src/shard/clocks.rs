//! Tells the other nodes what this node's clock says, and the operator which of theirs are far off.
//!
//! No clock decides what is safe, but a partition's time is its leader's clock, and with it when records
//! expire. A node compares clocks when it starts; they may be set apart later, and after a power cut there
//! is nobody to compare with. A node that runs never stops for it: it cannot know whose clock is wrong,
//! and one clock must not be able to stop the others.

use std::time::Duration;

use ringbolt_engine::env::Env;
use ringbolt_wire::peer::PeerItem;

use super::Inner;
use crate::cluster::bootstrap::clock_apart;

/// How often the clock is told.
const TELL_EVERY: Duration = Duration::from_secs(1);

impl<E: Env> Inner<E> {
    /// Tells the clock to every other node, if it is time to. One core does it for all. Nodes that share
    /// no partition hear of each other by this, too.
    pub(super) fn tell_clock(&self) {
        let now = self.clock.get().now;
        if self.config.core != 0 || now < self.next_clock.get() {
            return;
        }
        self.next_clock.set(now + TELL_EVERY);
        let cluster = &self.config.cluster;
        let item = PeerItem::Clock {
            wall_ms: self.clock.get().wall_ms,
        };
        for node in cluster.nodes() {
            if node.id != cluster.here() {
                // One that is lost is followed by another.
                let _sent = self.peer_send(node.id, 0, &item);
            }
        }
        for (node, ahead_ms) in cluster.clocks().news(now) {
            let name = cluster.node(node).map_or("", |node| &node.name);
            match clock_apart(name, ahead_ms) {
                Some(words) => tracing::warn!(
                    "{words}. Records of partitions that one of them leads expire too early, or too late"
                ),
                None => tracing::info!("the clock of {name} agrees with this node's again"),
            }
        }
    }
}
