//! A partition without a quorum beside one that goes on.

use std::time::Duration;

use ringbolt_engine::env::Env;
use ringbolt_wire::message::{Ack, Condition, Ttl};
use ringbolt_wire::partition_of;

use super::cluster::{applied, leader_of, written_token};
use super::network::{Network, with_placement};
use super::rig::{PARTITIONS, Placement, limits};
use super::{done, put};

fn carried(network: &Network, node: u32) -> u64 {
    let shard = &network.node(node).shards[0].0;
    shard.counters.carried_forward_total.get()
}

#[test]
fn the_log_goes_on_beside_a_partition_without_a_quorum() {
    with_placement(
        3,
        &[1, 1, 1],
        limits(),
        Placement::Mixed,
        |network| async move {
            let keys = || (0_u32..).map(|n| n.to_be_bytes());
            let is_even = |key: &[u8]| partition_of(key, PARTITIONS).is_multiple_of(2);
            let shared = keys().find(|key| is_even(key)).unwrap();
            let own = keys().find(|key| !is_even(key)).unwrap();
            network.env.sleep(Duration::from_secs(2)).await;
            let node = leader_of(&network, &shared);
            let rig = network.node(node);
            let conn = rig.connect(0, None).await;
            written_token(&rig, conn, &shared, Ack::Quorum).await;
            for other in (1..=3).filter(|&other| other != node) {
                network.sever(node, other);
            }
            // Durable here, and never committed.
            let stuck = written_token(&rig, conn, &shared, Ack::Leader).await;
            let value = vec![7; 60_000];
            let log = || rig.shards[0].engine().log().stats();
            // Several times what the log may hold.
            for _ in 0..1000 {
                done(&rig, conn, &put(&own, &value, Ttl::Never, Condition::None)).await;
            }
            assert!(
                log().segments_begun > 40 && log().segments <= 8,
                "{:?}",
                log()
            );
            assert!(carried(&network, node) > 3);
            let inner = &rig.shards[0].0;
            let partition = partition_of(&shared, PARTITIONS);
            let last = inner.with_replica(partition, |replica| *replica.waiting().end());
            assert_eq!(last, Some(stuck.index));
            network.heal();
            network.env.sleep(Duration::from_secs(2)).await;
            // The others opened a term with an entry of their own: in its place or after it.
            let indexes = [1, 2, 3].map(|node| applied(&network, node, &shared));
            assert!(
                indexes
                    .iter()
                    .all(|&index| index >= stuck.index && index == indexes[0])
            );
        },
    );
}
