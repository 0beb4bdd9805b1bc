//! Followers that were away: served from the log, or by a copy of the partition.

use std::time::Duration;

use ringbolt_engine::env::Env;
use ringbolt_wire::message::{ReadLevel, ReadOptions, Request, Response};

use super::cluster::{SECOND, applied, leader_of, led, plain};
use super::done;
use super::network::{Network, with_cluster, with_placement};
use super::rig::{Placement, Rig, limits};
use crate::shard::counters::Counters;
use crate::shard::limits::ShardLimits;

/// Snapshots that a node has installed, and entries that all nodes have read from their logs again.
fn caught_up_by(network: &Network, behind: u32) -> (u64, u64) {
    let sum = |node: u32, count: fn(&Counters) -> u64| {
        let shards = network.node(node);
        let counts = shards.shards.iter().map(|shard| count(&shard.0.counters));
        counts.sum::<u64>()
    };
    (
        sum(behind, |counters| counters.snapshots_installed_total.get()),
        (1..=3)
            .map(|node| sum(node, |counters| counters.old_entries_total.get()))
            .sum(),
    )
}

/// Cuts a follower of `{t}` off and writes `count` values of 4 KiB; the leader, and the follower.
async fn cut_off_and_write(network: &Network, count: u32) -> (u32, u32) {
    led(network, &[1, 2, 3]).await;
    let leader = leader_of(network, b"{t}");
    let behind = if leader == 3 { 2 } else { 3 };
    for node in (1..=3).filter(|&node| node != behind) {
        network.sever(node, behind);
    }
    let rig = network.node(leader);
    let conn = rig.connect(0, None).await;
    for i in 0..count {
        let key = format!("{{t}}{}", i % 100);
        done(&rig, conn, &plain(key.as_bytes(), &[7; 4096])).await;
    }
    (leader, behind)
}

/// The same, and lets it catch up; also how long that took.
async fn fall_behind(network: &Network, count: u32) -> (u32, u32, Duration) {
    let (leader, behind) = cut_off_and_write(network, count).await;
    network.heal();
    let healed = network.env.now();
    for _ in 0..20_000 {
        if applied(network, behind, b"{t}") >= applied(network, leader, b"{t}") {
            break;
        }
        network.env.sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(
        applied(network, behind, b"{t}"),
        applied(network, leader, b"{t}")
    );
    (leader, behind, network.env.now() - healed)
}

#[test]
fn one_behind_what_memory_keeps_is_served_from_the_log() {
    with_cluster(8, &[1, 1, 1], |network| async move {
        // More than memory keeps, less than the log recycles.
        let (_, behind, _) = fall_behind(&network, 100).await;
        let (snapshots, entries) = caught_up_by(&network, behind);
        assert_eq!(snapshots, 0);
        assert!(entries > 50, "{entries}");
    });
}

#[test]
fn one_far_behind_is_caught_up_by_a_snapshot() {
    with_cluster(6, &[1, 1, 1], |network| async move {
        let (leader, behind, _) = fall_behind(&network, 700).await;
        let (snapshots, _) = caught_up_by(&network, behind);
        assert!(snapshots > 0, "the log does not reach that far");
        let rig = network.node(leader);
        let late = network.node(behind);
        let conn = late.connect(0, None).await;
        for i in 0..100u32 {
            let key = format!("{{t}}{i}");
            let read = Request::Get {
                keyspace: 0,
                read: ReadOptions {
                    level: ReadLevel::Session,
                    ..ReadOptions::default()
                },
                key: key.as_bytes(),
            };
            let found = late
                .call(conn, &read, |reply| match reply {
                    Response::Value { value, .. } => value.len(),
                    other => panic!("{other:?}"),
                })
                .await;
            assert_eq!(found, 4096);
        }
        // It goes on from there as any follower.
        let conn = rig.connect(0, None).await;
        done(&rig, conn, &plain(b"{t}", b"after")).await;
        network.env.sleep(SECOND).await;
        assert_eq!(
            applied(&network, behind, b"{t}"),
            applied(&network, leader, b"{t}")
        );
    });
}

#[test]
fn a_snapshot_keeps_to_its_rate() {
    let limits = ShardLimits {
        copy_bytes_per_s: 100 << 10,
        ..limits()
    };
    with_placement(
        6,
        &[1, 1, 1],
        limits,
        Placement::Together,
        |network| async move {
            let (_, behind, took) = fall_behind(&network, 700).await;
            let (snapshots, _) = caught_up_by(&network, behind);
            assert!(snapshots > 0);
            // 100 rows of 4 KiB.
            assert!(took > Duration::from_secs(3), "{took:?}");
        },
    );
}

/// Else what the copy lacks would be gone from the log by its end, and another one would follow, for ever.
#[test]
fn a_snapshot_is_followed_by_the_log_however_much_is_written_meanwhile() {
    let limits = ShardLimits {
        copy_bytes_per_s: 100 << 10,
        ..limits()
    };
    let placement = Placement::Together;
    with_placement(6, &[1, 1, 1], limits, placement, |network| async move {
        led(&network, &[1, 2, 3]).await;
        network.env.sleep(10 * SECOND).await;
        let (leader, behind) = cut_off_and_write(&network, 700).await;
        network.heal();
        let rig = network.node(leader);
        let conn = rig.connect(0, None).await;
        let began = network.env.now();
        while network.env.now() - began < 12 * SECOND {
            let key = format!("{{t}}{}", network.env.random() % 100);
            done(&rig, conn, &plain(key.as_bytes(), &[7; 4096])).await;
        }
        let lacks = applied(&network, leader, b"{t}") - applied(&network, behind, b"{t}");
        assert!(lacks < 100, "{lacks}");
        assert_eq!(caught_up_by(&network, behind).0, 1);
        let written = rig.shards[0].engine().log().stats().segments_recycled;
        assert!(written > 20, "{written}");
    });
}

/// Breaks a copy of some 410 KiB off in the middle; how many bytes were sent in all once it has arrived.
fn broken_off(meanwhile: impl Fn(&Rig) + 'static, check: impl Fn(u64) + 'static) {
    let limits = ShardLimits {
        copy_bytes_per_s: 150 << 10,
        ..limits()
    };
    let placement = Placement::Together;
    with_placement(6, &[1, 1, 1], limits, placement, |network| async move {
        // Until whoever should lead does.
        led(&network, &[1, 2, 3]).await;
        network.env.sleep(10 * SECOND).await;
        let (leader, behind) = cut_off_and_write(&network, 700).await;
        network.heal();
        let sent = || {
            let of = |node| {
                let counters = &network.node(node).shards[0].0.counters;
                counters.snapshot_sent_bytes_total.get()
            };
            (1..=3).map(of).sum::<u64>()
        };
        while sent() < 200 << 10 {
            network.env.sleep(SECOND / 10).await;
        }
        assert_eq!(caught_up_by(&network, behind).0, 0);
        network.sever(leader, behind);
        meanwhile(&network.node(behind));
        // Longer than a chunk is sent again.
        network.env.sleep(11 * SECOND).await;
        network.heal();
        let wanted = applied(&network, leader, b"{t}");
        for _ in 0..100 {
            network.env.sleep(SECOND / 10).await;
            if applied(&network, behind, b"{t}") >= wanted {
                break;
            }
        }
        let now = applied(&network, behind, b"{t}");
        assert!(
            now >= wanted,
            "{now} of {wanted}, {} bytes were sent",
            sent()
        );
        assert_eq!(leader_of(&network, b"{t}"), leader);
        check(sent());
    });
}

#[test]
fn a_snapshot_goes_on_where_it_was_broken_off() {
    let check = |sent| assert!(sent < 500 << 10, "{sent} bytes were sent");
    broken_off(|_| {}, check);
}

#[test]
fn a_snapshot_is_begun_anew_where_the_follower_has_forgotten_its_beginning() {
    let forget = |behind: &Rig| behind.shards[0].0.receiving.borrow_mut().clear();
    let check = |sent| assert!(sent > 500 << 10, "{sent} bytes were sent");
    broken_off(forget, check);
}
