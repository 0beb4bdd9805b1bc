//! How far the clocks of nodes are from each other, as whoever asks them all sees it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use ringbolt_client::{NodeId, Topology};

use crate::cluster::clocks::is_apart;

/// This machine's clock, in milliseconds since the Unix epoch.
pub(super) fn wall_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64)
}

/// How far each clock is ahead of the one in the middle: where most agree, that is one of them.
pub(super) struct Clocks {
    middle: NodeId,
    ahead_ms: BTreeMap<NodeId, i64>,
}

impl Clocks {
    /// Of clocks by how far each is ahead of one and the same.
    pub(super) fn of(mut ahead_ms: BTreeMap<NodeId, i64>) -> Self {
        let mut sorted: Vec<(i64, NodeId)> = ahead_ms.iter().map(|(id, ms)| (*ms, *id)).collect();
        sorted.sort_unstable();
        let middle = sorted.get(sorted.len().saturating_sub(1) / 2);
        let (middle_ms, middle) = middle.copied().unwrap_or_default();
        for ms in ahead_ms.values_mut() {
            *ms = ms.wrapping_sub(middle_ms);
        }
        Self { middle, ahead_ms }
    }

    pub(super) fn ahead_ms(&self, node: NodeId) -> Option<i64> {
        self.ahead_ms.get(&node).copied()
    }

    /// In words, which are too far off.
    pub(super) fn warnings(&self, topology: &Topology) -> Vec<String> {
        let name = |id: NodeId| {
            let node = topology.nodes.iter().find(|node| node.id == id);
            node.map_or("", |node| node.name.as_str())
        };
        let apart = self.ahead_ms.iter().filter(|(_, ms)| is_apart(**ms));
        apart
            .map(|(node, ms)| {
                let side = if *ms > 0 { "ahead of" } else { "behind" };
                format!(
                    "the clock of {} is {:.1} s {side} that of {}: set both by NTP; until then records \
                     with a TTL expire too early or too late",
                    name(*node),
                    ms.unsigned_abs() as f64 / 1000.0,
                    name(self.middle),
                )
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use ringbolt_client::NodeInfo;

    use super::*;

    fn warnings(clocks: &[i64]) -> Vec<String> {
        let node = |id: NodeId| NodeInfo {
            id,
            name: format!("n{id}"),
            address: String::new(),
            cores: 1,
            zone: String::new(),
        };
        let topology = Topology {
            nodes: (1..).map(node).take(clocks.len()).collect(),
            ..Topology::alone("n1", 1, 1)
        };
        let clocks = Clocks::of((1..).zip(clocks.iter().copied()).collect());
        clocks.warnings(&topology)
    }

    #[test]
    fn the_clock_that_most_do_not_share_is_named() {
        assert!(warnings(&[]).is_empty());
        assert!(
            warnings(&[99_000, 99_400, 89_000]).is_empty(),
            "of the asker nothing is said"
        );
        let said = warnings(&[5, 3_600_005, 9]);
        assert_eq!(said.len(), 1);
        assert!(
            said[0].starts_with("the clock of n2 is 3600.0 s ahead of that of n3"),
            "{said:?}"
        );
        let said = warnings(&[0, -11_000]);
        assert!(
            said[0].starts_with("the clock of n1 is 11.0 s ahead of that of n2"),
            "{said:?}"
        );
    }
}
