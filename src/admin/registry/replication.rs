//! Metrics of replicas and partitions.

use ringbolt_wire::message::{ReplicaStatus, Role};

use super::{CoreView, Kind, Metric, Point, Read, counter, gauge, highest};

pub(super) const METRICS: &[Metric] = &[
    gauge("replicas", "Replicas that this node holds", |core| {
        core.shard.replicas.len() as f64
    }),
    gauge(
        "partitions_led",
        "Partitions that this node leads and serves",
        |core| replicas(core, |replica| replica.role == Role::Leader),
    ),
    gauge(
        "partitions_leaderless",
        "Partitions held here of which this node knows no leader",
        |core| replicas(core, |replica| replica.leader == 0),
    ),
    counter(
        "elections_total",
        "Elections that replicas of this node stood for",
        |core| {
            let elections = core.shard.replicas.iter().map(|replica| replica.elections);
            elections.sum::<u64>() as f64
        },
    ),
    highest(
        "apply_lag_entries",
        "Most entries that a replica here knows to be committed and has not applied",
        |core| {
            let lags = core
                .shard
                .replicas
                .iter()
                .map(|replica| replica.commit.saturating_sub(replica.applied));
            lags.max().unwrap_or(0) as f64
        },
    ),
    Metric {
        name: "replication_lag_entries",
        help: "Most entries that a partition led here has committed and the node has not stored",
        kind: Kind::Gauge,
        labels: &["node"],
        read: Read::EachMax(|core| {
            by_member(core, |replica, stored, _| {
                replica.commit.saturating_sub(stored) as f64
            })
        }),
    },
    Metric {
        name: "replicas_silent",
        help: "Replicas of partitions led here from which the leader has not heard lately, by node",
        kind: Kind::Gauge,
        labels: &["node"],
        read: Read::Each(|core| by_member(core, |_, _, alive| f64::from(u8::from(!alive)))),
    },
    Metric {
        name: "clock_apart_seconds",
        help: "How far the clock of the other node is from this node's, either way; more than 10 s is a fault",
        kind: Kind::Gauge,
        labels: &["node"],
        read: Read::EachMax(|core| {
            let clocks = core.shard.clocks.iter();
            clocks
                .map(|(node, ahead_ms)| {
                    (
                        vec![node.to_string()],
                        ahead_ms.unsigned_abs() as f64 / 1000.0,
                    )
                })
                .collect()
        }),
    },
    Metric {
        name: "partition_requests_total",
        help: "Requests for keys of the partition that this node has served",
        kind: Kind::Counter,
        labels: &["partition"],
        read: Read::Partitions(|core| {
            let counts = core.shard.hot.partitions.iter();
            counts
                .map(|(partition, count)| (*partition, *count as f64))
                .collect()
        }),
    },
    replica(
        "partition_leader_node",
        "The node that leads the partition as its replica here knows, 0 for none",
        Kind::Gauge,
        |replica| f64::from(replica.leader),
    ),
    replica(
        "partition_term",
        "The term of the partition's replica",
        Kind::Gauge,
        |replica| replica.term as f64,
    ),
    replica(
        "partition_committed_entries_total",
        "The last entry that the partition's replica knows to be committed",
        Kind::Counter,
        |replica| replica.commit as f64,
    ),
    replica(
        "partition_apply_lag_entries",
        "Entries that the partition's replica knows to be committed and has not applied",
        Kind::Gauge,
        |replica| replica.commit.saturating_sub(replica.applied) as f64,
    ),
];

fn replicas(core: &CoreView, is: impl Fn(&ReplicaStatus) -> bool) -> f64 {
    let replicas = core.shard.replicas.iter();
    replicas.filter(|replica| is(replica)).count() as f64
}

/// A value for each member of each partition that is led here.
fn by_member(core: &CoreView, value: fn(&ReplicaStatus, u64, bool) -> f64) -> Vec<Point> {
    let led = core
        .shard
        .replicas
        .iter()
        .filter(|replica| replica.role == Role::Leader);
    // Of a node that is being taken in again the newest replica counts, which comes last.
    let newest = |replica: &'_ ReplicaStatus, at: usize| {
        let next = replica.members.get(at + 1);
        next.is_none_or(|next| next.node() != replica.members[at].node())
    };
    led.flat_map(|replica| {
        let members = replica.members.iter().enumerate();
        let members = members.filter(move |(at, _)| newest(replica, *at));
        members.map(move |(_, member)| {
            let value = value(replica, member.stored, member.alive);
            (vec![member.node().to_string()], value)
        })
    })
    .collect()
}

const fn replica(
    name: &'static str,
    help: &'static str,
    kind: Kind,
    read: fn(&ReplicaStatus) -> f64,
) -> Metric {
    Metric {
        name,
        help,
        kind,
        labels: &["partition"],
        read: Read::Replica(read),
    }
}
