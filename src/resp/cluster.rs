//! `CLUSTER`: the nodes and their slots, from what this node knows of them.
//!
//! A partition is a contiguous range of slots, and Redis's slots are ours, so the answer is a list of
//! ranges. A node is told as the master of the partitions that it leads and as a replica of the others
//! that it holds. Where no leader is known the one that should lead stands for it.

use ringbolt_wire::slot::{SLOTS, slot};

use super::reply::{self, Version};
use super::settings::Options;
use crate::cluster::{ClusterView, NodeId, NodeInfo};

/// Consecutive slots with the same nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    first: u16,
    last: u16,
    leader: NodeId,
    others: Vec<NodeId>,
}

/// The cluster as `CLUSTER` tells it.
pub(crate) struct Cluster<'a> {
    pub(crate) view: &'a ClusterView,
    pub(crate) options: &'a Options,
    pub(crate) partitions: u16,
}

impl Cluster<'_> {
    fn ranges(&self) -> Vec<Range> {
        let mut ranges: Vec<Range> = Vec::new();
        let slots = SLOTS / self.partitions;
        for partition in 0..self.partitions {
            let leader = self.view.leader(partition);
            let holders = self.view.holders(partition).iter().copied();
            let mut others: Vec<NodeId> = holders.filter(|&node| node != leader).collect();
            others.sort_unstable();
            let first = partition * slots;
            let last = first + (slots - 1);
            match ranges.last_mut() {
                Some(range) if range.leader == leader && range.others == others => {
                    range.last = last
                }
                _ => ranges.push(Range {
                    first,
                    last,
                    leader,
                    others,
                }),
            }
        }
        ranges
    }

    fn host(&self, node: &NodeInfo) -> String {
        let listen = self.options.listen.filter(|_| node.id == self.view.here());
        match listen.or_else(|| self.view.address(node.id)) {
            Some(address) => Options::host_of(address),
            // A name that stands for nothing here may stand for something where the client is.
            None => native(node).0.to_owned(),
        }
    }

    fn port(&self, node: &NodeInfo) -> u16 {
        self.options.port_of(native(node).1)
    }

    /// The name of 40 hexadecimal digits that Redis's nodes have.
    fn name(&self, node: NodeId) -> String {
        let cluster = self.view.identity().cluster;
        format!("{cluster:016x}{:016x}{node:08x}", 0)
    }

    /// Where clients should go that asked for a key of another node: `MOVED`'s words.
    pub(crate) fn moved(&self, key: &[u8], leader: NodeId) -> Option<String> {
        let node = self.view.node(leader)?;
        let (slot, host, port) = (slot(key), self.host(node), self.port(node));
        Some(format!("MOVED {slot} {host}:{port}"))
    }

    pub(crate) fn my_id(&self, out: &mut Vec<u8>) {
        reply::bulk(out, self.name(self.view.here()).as_bytes());
    }

    pub(crate) fn slots(&self, out: &mut Vec<u8>, version: Version) {
        let ranges = self.ranges();
        reply::array(out, ranges.len());
        for range in &ranges {
            let nodes = self.nodes_of(range);
            reply::array(out, 2 + nodes.len());
            reply::integer(out, i64::from(range.first));
            reply::integer(out, i64::from(range.last));
            for node in nodes {
                reply::array(out, 4);
                reply::bulk(out, self.host(node).as_bytes());
                reply::integer(out, i64::from(self.port(node)));
                reply::bulk(out, self.name(node.id).as_bytes());
                reply::map(out, version, 0);
            }
        }
    }

    pub(crate) fn shards(&self, out: &mut Vec<u8>, version: Version) {
        let mut shards: Vec<(Range, Vec<(u16, u16)>)> = Vec::new();
        for range in self.ranges() {
            let slots = (range.first, range.last);
            let same = |(other, _): &&mut (Range, _)| {
                other.leader == range.leader && other.others == range.others
            };
            match shards.iter_mut().find(same) {
                Some((_, all)) => all.push(slots),
                None => shards.push((range, vec![slots])),
            }
        }
        reply::array(out, shards.len());
        for (range, slots) in &shards {
            reply::map(out, version, 2);
            reply::bulk(out, b"slots");
            reply::array(out, 2 * slots.len());
            for (first, last) in slots {
                reply::integer(out, i64::from(*first));
                reply::integer(out, i64::from(*last));
            }
            reply::bulk(out, b"nodes");
            let nodes = self.nodes_of(range);
            reply::array(out, nodes.len());
            for (at, node) in nodes.iter().enumerate() {
                let (host, role) = (self.host(node), if at == 0 { "master" } else { "replica" });
                reply::map(out, version, 7);
                for (name, text) in [
                    ("id", self.name(node.id).as_str()),
                    ("ip", &host),
                    ("endpoint", &host),
                    ("role", role),
                    ("health", "online"),
                ] {
                    reply::bulk(out, name.as_bytes());
                    reply::bulk(out, text.as_bytes());
                }
                reply::bulk(out, b"port");
                reply::integer(out, i64::from(self.port(node)));
                reply::bulk(out, b"replication-offset");
                reply::integer(out, 0);
            }
        }
    }

    fn nodes_of(&self, range: &Range) -> Vec<&NodeInfo> {
        let all = std::iter::once(&range.leader).chain(&range.others);
        all.filter_map(|&node| self.view.node(node)).collect()
    }

    pub(crate) fn nodes(&self) -> String {
        let ranges = self.ranges();
        let mut text = String::new();
        for node in self.view.nodes() {
            let (host, port) = (self.host(node), self.port(node));
            let myself = if node.id == self.view.here() {
                "myself,"
            } else {
                ""
            };
            // The second port, and the times that Redis's nodes measure, are not Ringbolt's to tell.
            text.push_str(&format!(
                "{} {host}:{port}@{} {myself}master - 0 0 {} connected",
                self.name(node.id),
                native(node).1,
                self.view.map_version(),
            ));
            for range in ranges.iter().filter(|range| range.leader == node.id) {
                text.push_str(&format!(" {}-{}", range.first, range.last));
            }
            text.push('\n');
        }
        text
    }

    pub(crate) fn info(&self) -> String {
        let partitions = 0..self.partitions;
        let slots = SLOTS / self.partitions;
        // Of the partitions without a replica here it is not known that nobody leads them.
        let leaderless = partitions.filter(|&partition| {
            let held = self.view.holders(partition).contains(&self.view.here());
            held && self.view.known_leader(partition) == 0
        });
        let failed = leaderless.count() as u16 * slots;
        let leaders: std::collections::BTreeSet<NodeId> =
            self.ranges().iter().map(|range| range.leader).collect();
        let mut text = String::new();
        let state = if failed == 0 { "ok" } else { "fail" };
        reply::field(&mut text, "cluster_state", state);
        reply::field(&mut text, "cluster_slots_assigned", SLOTS);
        reply::field(&mut text, "cluster_slots_ok", SLOTS - failed);
        reply::field(&mut text, "cluster_slots_pfail", 0);
        reply::field(&mut text, "cluster_slots_fail", failed);
        reply::field(&mut text, "cluster_known_nodes", self.view.nodes().len());
        reply::field(&mut text, "cluster_size", leaders.len());
        reply::field(&mut text, "cluster_current_epoch", self.view.map_version());
        reply::field(&mut text, "cluster_my_epoch", self.view.map_version());
        text
    }
}

/// The host and port of a node's own protocol, as the map has them: there each has both.
fn native(node: &NodeInfo) -> (&str, u16) {
    let (host, port) = node.address.rsplit_once(':').unwrap_or_default();
    (host, port.parse().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::cluster::Identity;

    fn view() -> ClusterView {
        let node = |id: NodeId| NodeInfo {
            id,
            name: format!("n{id}"),
            address: format!("127.0.0.1:{}", 7400 + 10 * (id - 1)),
            cores: 1,
            zone: String::new(),
            weight: 1,
        };
        let identity = Identity {
            cluster: 0xab,
            node: 1,
            boot: 1,
            start: 1,
        };
        let placement = vec![vec![1, 2], vec![1, 2], vec![2, 1], vec![1, 2]];
        ClusterView::new(identity, vec![node(1), node(2)], placement)
    }

    fn options() -> Options {
        let at = |port| Some(SocketAddr::from(([127, 0, 0, 1], port)));
        Options {
            listen: at(7401),
            native: at(7400),
            ..Options::default()
        }
    }

    #[test]
    fn slots_are_ranges_with_their_leader_first() {
        let (view, options) = (view(), options());
        let cluster = Cluster {
            view: &view,
            options: &options,
            partitions: 4,
        };
        let ranges: Vec<_> = cluster
            .ranges()
            .into_iter()
            .map(|r| (r.first, r.last, r.leader, r.others))
            .collect();
        assert_eq!(
            ranges,
            [
                (0, 8191, 1, vec![2]),
                (8192, 12287, 2, vec![1]),
                (12288, 16383, 1, vec![2])
            ]
        );
        assert_eq!(
            cluster.moved(b"foo", 2).unwrap(),
            "MOVED 12182 127.0.0.1:7411"
        );
        let nodes = cluster.nodes();
        assert!(
            nodes.contains(
                " 127.0.0.1:7401@7400 myself,master - 0 0 1 connected 0-8191 12288-16383\n"
            )
        );
        assert!(nodes.contains(" 127.0.0.1:7411@7410 master - 0 0 1 connected 8192-12287\n"));
        assert_eq!(nodes.split(' ').next().unwrap().len(), 40);
        assert!(
            cluster.info().contains("cluster_state:fail"),
            "no leader is known"
        );
        for partition in 0..4 {
            view.set_leader(partition, 2);
        }
        assert!(cluster.info().contains("cluster_state:ok"));
        let mut out = Vec::new();
        cluster.slots(&mut out, Version::Two);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("*1\r\n*4\r\n:0\r\n:16383\r\n*4\r\n$9\r\n127.0.0.1\r\n:7411\r\n"));
    }
}
