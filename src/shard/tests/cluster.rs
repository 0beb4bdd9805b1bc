//! Partitions that several nodes hold together.

use std::rc::Rc;
use std::time::Duration;

use ringbolt_engine::env::Env;
use ringbolt_engine::error::EngineError;
use ringbolt_wire::list::{KeysBuf, TokensBuf};
use ringbolt_wire::message::{
    Ack, Condition, ErrorCode, ErrorReply, ReadLevel, ReadOptions, Request, Response, Scan, Token,
    Ttl, WriteOp, WriteOptions,
};
use ringbolt_wire::partition_of;

use super::network::{Network, with_cluster};
use super::rig::{PARTITIONS, Rig, limits, with_node};
use super::{done, incr, put, value};

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// Waits until every partition has a leader that serves.
pub(super) async fn led(network: &Network, nodes: &[u32]) {
    for _ in 0..5000 {
        let mut serving = vec![0; usize::from(PARTITIONS)];
        for &node in nodes {
            for shard in &network.node(node).shards {
                for (partition, replica) in shard.0.replicas.borrow().iter().enumerate() {
                    if replica.as_ref().is_some_and(|replica| replica.serves()) {
                        serving[partition] += 1;
                    }
                }
            }
        }
        if serving.iter().all(|&count| count == 1) {
            return;
        }
        network.env.sleep(Duration::from_millis(1)).await;
    }
    panic!("some partition has no leader");
}

/// The node that leads the partition of a key.
pub(super) fn leader_of(network: &Network, key: &[u8]) -> u32 {
    let partition = partition_of(key, PARTITIONS);
    let leads =
        |node: &u32| {
            network.node(*node).shards.iter().any(|shard| {
                shard.0.with_replica(partition, |replica| replica.serves()) == Some(true)
            })
        };
    network.ids().find(leads).expect("a leader")
}

pub(super) fn plain<'a>(key: &'a [u8], value: &'a [u8]) -> Request<'a> {
    put(key, value, Ttl::Never, Condition::None)
}

/// Writes with retries, as a client does; the version.
async fn written(rig: &Rig, conn: u64, request: &Request<'_>) -> u64 {
    for _ in 0..2000 {
        let answer = rig
            .call(conn, request, |reply| match reply {
                Response::Written { token, .. } => Ok(token.index),
                Response::Error(ErrorReply { code, .. }) => Err(code),
                other => panic!("{other:?}"),
            })
            .await;
        match answer {
            Ok(version) => return version,
            Err(ErrorCode::NotLeader | ErrorCode::Unavailable | ErrorCode::InDoubt) => {
                rig.env.sleep(Duration::from_millis(5)).await;
            }
            Err(code) => panic!("{code:?}"),
        }
    }
    panic!("never written");
}

#[test]
fn any_node_serves_what_another_leads() {
    with_cluster(1, &[1, 2, 3], |network| async move {
        led(&network, &[1, 2, 3]).await;
        let a = network.node(1);
        let conn = a.connect(0, None).await;
        for i in 0..40u32 {
            let key = format!("key-{i}");
            done(&a, conn, &plain(key.as_bytes(), key.as_bytes())).await;
        }
        for node in 1..=3 {
            let rig = network.node(node);
            let conn = rig.connect(0, None).await;
            for i in 0..40u32 {
                let key = format!("key-{i}");
                let found = value(&rig, conn, key.as_bytes()).await;
                assert_eq!(found.as_deref(), Some(key.as_bytes()));
            }
        }
    });
}

#[test]
fn clients_of_any_node_are_told_every_leader() {
    with_cluster(3, &[1, 2, 3], |network| async move {
        led(&network, &[1, 2, 3]).await;
        // Followers hear of a leader by its first heartbeat.
        network.env.sleep(SECOND).await;
        led(&network, &[1, 2, 3]).await;
        let key_of = |partition| {
            (0..)
                .map(|n| format!("k{n}"))
                .find(|key| partition_of(key.as_bytes(), PARTITIONS) == partition)
        };
        for node in 1..=3 {
            let rig = network.node(node);
            let conn = rig.connect(0, None).await;
            let topology = rig
                .call(conn, &Request::Topology, |reply| match reply {
                    Response::Topology(topology) => topology,
                    other => panic!("{other:?}"),
                })
                .await;
            assert_eq!((topology.here, topology.nodes.len()), (node, 3));
            for partition in 0..PARTITIONS {
                let key = key_of(partition).unwrap();
                let leader = leader_of(&network, key.as_bytes());
                assert_eq!(topology.leader(partition), Some(leader));
                assert_eq!(topology.replicas[usize::from(partition)].nodes.len(), 3);
            }
        }
    });
}

#[test]
fn what_was_acknowledged_outlives_the_leader_and_the_rest_go_on() {
    with_cluster(2, &[1, 1, 1], |network| async move {
        led(&network, &[1, 2, 3]).await;
        let lost = leader_of(&network, b"k");
        let other = if lost == 1 { 2 } else { 1 };
        let rig = network.node(other);
        let conn = rig.connect(0, None).await;
        let first = done(&rig, conn, &plain(b"k", b"one")).await;
        let others: Vec<u32> = (1..=3).filter(|&node| node != lost).collect();
        for &node in &others {
            network.cut(node, lost);
            network.cut(lost, node);
        }
        let at = network.env.now();
        led(&network, &others).await;
        let gap = network.env.now() - at;
        assert!(gap < SECOND, "{gap:?} without a leader");
        let second = written(&rig, conn, &plain(b"k", b"two")).await;
        assert!(second > first);
        // The old leader cannot say anything any more, neither old nor new.
        let cut_off = network.node(lost);
        let there = cut_off.connect(0, None).await;
        let code = cut_off
            .call(there, &super::get(b"k"), |reply| match reply {
                Response::Error(ErrorReply { code, .. }) => code,
                other => panic!("{other:?}"),
            })
            .await;
        assert!(
            matches!(code, ErrorCode::Unavailable | ErrorCode::NotLeader),
            "{code:?}"
        );
        network.heal();
        network.env.sleep(SECOND).await;
        assert_eq!(
            value(&cut_off, there, b"k").await.as_deref(),
            Some(&b"two"[..])
        );
    });
}

#[test]
fn that_a_condition_failed_is_said_only_by_who_leads() {
    with_cluster(2, &[1, 1, 1], |network| async move {
        led(&network, &[1, 2, 3]).await;
        // Idle groups sleep: a leader that sleeps does not notice at once that it hears of nobody.
        network.env.sleep(20 * SECOND).await;
        let leader = leader_of(&network, b"k");
        let rig = network.node(leader);
        let conn = rig.connect(0, None).await;
        let present = put(b"k", b"v", Ttl::Never, Condition::Present);
        let touch = super::write(WriteOp::Touch {
            key: b"k",
            ttl: Ttl::Never,
            condition: Condition::None,
        });
        assert_eq!(
            super::code(&rig, conn, &present).await,
            ErrorCode::ConditionFailed
        );
        network.env.sleep(20 * SECOND).await;
        for other in (1..=3).filter(|&node| node != leader) {
            network.cut(leader, other);
            network.cut(other, leader);
        }
        // Its lease has run out, and the others may have elected one of themselves.
        network.env.sleep(SECOND / 4).await;
        assert_eq!(leader_of(&network, b"k"), leader);
        for request in [&present, &touch] {
            let code = super::code(&rig, conn, request).await;
            let is_right = matches!(code, ErrorCode::Unavailable | ErrorCode::NotLeader);
            assert!(is_right, "{code:?}");
        }
        network.heal();
        network.env.sleep(SECOND).await;
        written(&rig, conn, &plain(b"k", b"v")).await;
        written(&rig, conn, &present).await;
    });
}

/// The write that it rests on is committed by the next leader, which may have written since (found by the
/// simulator, seed 301231).
#[test]
fn what_rides_behind_a_write_is_said_only_by_who_leads_still() {
    with_cluster(2, &[1, 1, 1], |network| async move {
        led(&network, &[1, 2, 3]).await;
        network.env.sleep(10 * SECOND).await;
        let leader = leader_of(&network, b"k");
        let others: Vec<u32> = (1..=3).filter(|&node| node != leader).collect();
        for &other in &others {
            network.cut(other, leader);
        }
        let rig = network.node(leader);
        let conn = rig.connect(0, None).await;
        let absent = put(b"k", b"w", Ttl::Never, Condition::Absent);
        for request in [&plain(b"k", b"v"), &absent] {
            let mut frame = Vec::new();
            request.encode(1, 30_000, &mut frame).unwrap();
            rig.send(conn, &frame);
        }
        network.env.sleep(SECOND / 50).await;
        for &other in &others {
            network.cut(leader, other);
        }
        led(&network, &others).await;
        network.heal();
        let mut said = Vec::new();
        for _ in 0..2 {
            let code = rig.reply(conn, |reply| match reply {
                Response::Written { .. } => None,
                Response::Error(ErrorReply { code, .. }) => Some(code),
                other => panic!("{other:?}"),
            });
            said.push(code.await);
        }
        assert_eq!(said, [None, Some(ErrorCode::NotLeader)]);
    });
}

#[test]
fn what_a_leader_lost_does_not_hold_up_what_it_is_asked_when_it_leads_again() {
    with_cluster(7, &[1, 1, 1], |network| async move {
        led(&network, &[1, 2, 3]).await;
        network.env.sleep(10 * SECOND).await;
        let leader = leader_of(&network, b"k");
        let others: Vec<u32> = (1..=3).filter(|&node| node != leader).collect();
        let rig = network.node(leader);
        let conn = rig.connect(0, None).await;
        done(&rig, conn, &plain(b"k", b"v")).await;
        for &node in &others {
            network.sever(leader, node);
        }
        // More than the next leader will have entries: they are never committed.
        for _ in 0..20 {
            let mut frame = Vec::new();
            plain(b"k", b"lost").encode(1, 0, &mut frame).unwrap();
            rig.send(conn, &frame);
        }
        led(&network, &others).await;
        network.heal();
        // Leadership goes back to the node that should have it.
        for _ in 0..100 {
            network.env.sleep(SECOND / 5).await;
            led(&network, &[1, 2, 3]).await;
            if leader_of(&network, b"k") == leader {
                break;
            }
        }
        assert_eq!(leader_of(&network, b"k"), leader);
        let conn = rig.connect(0, None).await;
        let began = network.env.now();
        done(&rig, conn, &plain(b"k", b"again")).await;
        assert!(network.env.now() - began < SECOND / 10);
    });
}

#[test]
fn puts_are_refused_where_most_disks_are_nearly_full() {
    with_cluster(8, &[1, 2, 1], |network| async move {
        led(&network, &[1, 2, 3]).await;
        // Until whoever should lead does.
        network.env.sleep(10 * SECOND).await;
        let leader = leader_of(&network, b"k");
        let rig = network.node(leader);
        let conn = rig.connect(0, None).await;
        done(&rig, conn, &plain(b"k", b"v")).await;
        let others: Vec<u32> = (1..=3).filter(|&node| node != leader).collect();
        // What the node finds out by itself twice a second: until then the others hear this.
        let fill = |nodes: &[u32]| {
            for &node in nodes {
                let shard = &network.node(node).shards[0].0;
                shard.space_low.set(true);
            }
        };
        let delete = super::write(WriteOp::Delete {
            key: b"gone",
            condition: Condition::None,
        });
        let put = plain(b"k", b"v");
        let mut refused = 0;
        for _ in 0..20 {
            network.env.sleep(SECOND).await;
            fill(&others[..1]);
            network.env.sleep(SECOND / 8).await;
            done(&rig, conn, &put).await;
            network.env.sleep(SECOND).await;
            fill(&others);
            network.env.sleep(SECOND / 8).await;
            let code = rig.call(conn, &put, |reply| match reply {
                Response::Error(ErrorReply { code, .. }) => Some(code),
                _ => None,
            });
            let code = code.await;
            assert!(matches!(code, None | Some(ErrorCode::NoSpace)), "{code:?}");
            refused += u32::from(code.is_some());
            done(&rig, conn, &delete).await;
            assert!(value(&rig, conn, b"k").await.is_some());
        }
        assert!(refused > 5, "{refused}");
        // It goes on by itself.
        network.env.sleep(SECOND).await;
        done(&rig, conn, &put).await;
    });
}

#[test]
fn a_session_reads_its_own_writes_on_every_node() {
    with_cluster(3, &[1, 1, 1], |network| async move {
        led(&network, &[1, 2, 3]).await;
        let a = network.node(1);
        let conn = a.connect(0, None).await;
        let conns: Vec<(Rc<Rig>, u64)> = {
            let mut all = Vec::new();
            for node in 1..=3 {
                let rig = network.node(node);
                let conn = rig.connect(0, None).await;
                all.push((rig, conn));
            }
            all
        };
        for i in 0..20u32 {
            let text = i.to_string();
            let request = plain(b"mine", text.as_bytes());
            let token: Token = a
                .call(conn, &request, |reply| match reply {
                    Response::Written { token, .. } => token,
                    other => panic!("{other:?}"),
                })
                .await;
            for (rig, conn) in &conns {
                let mut tokens = TokensBuf::default();
                tokens.push(token);
                let read = Request::Get {
                    keyspace: 0,
                    read: ReadOptions {
                        level: ReadLevel::Session,
                        tokens: tokens.as_tokens(),
                    },
                    key: b"mine",
                };
                let seen = rig
                    .call(*conn, &read, |reply| match reply {
                        Response::Value { value, .. } => value.to_vec(),
                        other => panic!("{other:?}"),
                    })
                    .await;
                assert_eq!(seen, text.as_bytes());
            }
        }
    });
}

#[test]
fn acknowledgements_are_as_many_as_asked_for() {
    with_cluster(4, &[1, 1, 1], |network| async move {
        led(&network, &[1, 2, 3]).await;
        let leader = leader_of(&network, b"k");
        let rig = network.node(leader);
        let conn = rig.connect(0, None).await;
        let with = |ack| Request::Write {
            keyspace: 0,
            options: WriteOptions {
                ack,
                ..WriteOptions::default()
            },
            op: WriteOp::Put {
                key: b"k",
                value: b"v",
                ttl: Ttl::Never,
                condition: Condition::None,
            },
        };
        for ack in [Ack::Leader, Ack::Quorum, Ack::All, Ack::Count(3)] {
            done(&rig, conn, &with(ack)).await;
        }
        assert_eq!(
            super::code(&rig, conn, &with(Ack::Count(4))).await,
            ErrorCode::BadRequest
        );
        let third = (1..=3).find(|&node| node != leader).unwrap();
        network.cut(leader, third);
        network.cut(third, leader);
        done(&rig, conn, &with(Ack::Count(2))).await;
        assert_eq!(
            super::code(&rig, conn, &with(Ack::All)).await,
            ErrorCode::CommittedNotAll
        );
    });
}

#[test]
fn increments_at_every_node_add_up() {
    with_cluster(5, &[2, 1, 1], |network| async move {
        led(&network, &[1, 2, 3]).await;
        for round in 0..20 {
            for node in 1..=3 {
                let rig = network.node(node);
                let conn = rig.connect(0, None).await;
                let count = rig
                    .call(conn, &incr(b"n", 1), |reply| match reply {
                        Response::Counter { value, .. } => value,
                        other => panic!("{other:?}"),
                    })
                    .await;
                assert_eq!(count, round * 3 + i64::from(node));
            }
        }
    });
}

/// What a replica has applied of a key's partition.
pub(super) fn applied(network: &Network, node: u32, key: &[u8]) -> u64 {
    let partition = partition_of(key, PARTITIONS);
    let applied = network.node(node).shards.iter().find_map(|shard| {
        shard
            .0
            .with_replica(partition, |replica| replica.applied_id().index)
    });
    applied.expect("a replica")
}

#[test]
fn scans_and_multi_gets_reach_over_all_nodes() {
    with_cluster(7, &[1, 2, 1], |network| async move {
        led(&network, &[1, 2, 3]).await;
        let a = network.node(1);
        let conn = a.connect(0, None).await;
        let keys: Vec<String> = (0..60u32).map(|i| format!("key-{i:03}")).collect();
        for key in &keys {
            done(&a, conn, &plain(key.as_bytes(), key.as_bytes())).await;
        }
        for node in 1..=3 {
            let rig = network.node(node);
            let conn = rig.connect(0, None).await;
            let mut wanted = KeysBuf::new();
            for key in keys.iter().rev() {
                wanted.push(key.as_bytes()).unwrap();
            }
            wanted.push(b"absent").unwrap();
            let request = Request::MultiGet {
                keyspace: 0,
                read: ReadOptions::default(),
                keys: wanted.as_keys(),
            };
            let values = rig
                .call(conn, &request, |reply| match reply {
                    Response::Values { values, .. } => {
                        let value = |value: &Option<(_, &[u8])>| value.map(|(_, v)| v.to_vec());
                        values.iter().map(value).collect::<Vec<_>>()
                    }
                    other => panic!("{other:?}"),
                })
                .await;
            let mut expected: Vec<Option<Vec<u8>>> = keys
                .iter()
                .rev()
                .map(|key| Some(key.clone().into_bytes()))
                .collect();
            expected.push(None);
            assert_eq!(values, expected);
            for reverse in [false, true] {
                let request = Request::Scan(Scan {
                    keyspace: 0,
                    read: ReadOptions::default(),
                    prefix: b"key-",
                    start: b"",
                    end: b"",
                    reverse,
                    keys_only: true,
                    limit: 100,
                    cursor: b"",
                });
                let rows = rig
                    .call(conn, &request, |reply| match reply {
                        Response::Rows { rows, .. } => rows
                            .iter()
                            .map(|(key, ..)| key.to_vec())
                            .collect::<Vec<_>>(),
                        other => panic!("{other:?}"),
                    })
                    .await;
                let mut expected: Vec<Vec<u8>> =
                    keys.iter().map(|key| key.clone().into_bytes()).collect();
                if reverse {
                    expected.reverse();
                }
                assert_eq!(rows, expected);
            }
        }
    });
}

/// A session read of `k` with a token: what came of it.
async fn read_after(rig: &Rig, conn: u64, token: Token, deadline_ms: u32) -> Result<(), ErrorCode> {
    let mut tokens = TokensBuf::default();
    tokens.push(token);
    let read = Request::Get {
        keyspace: 0,
        read: ReadOptions {
            level: ReadLevel::Session,
            tokens: tokens.as_tokens(),
        },
        key: b"k",
    };
    let mut bytes = Vec::new();
    read.encode(77, deadline_ms, &mut bytes).unwrap();
    rig.send(conn, &bytes);
    rig.reply(conn, |reply| match reply {
        Response::Value { .. } | Response::NotFound { .. } => Ok(()),
        Response::Error(ErrorReply { code, .. }) => Err(code),
        other => panic!("{other:?}"),
    })
    .await
}

#[test]
fn a_token_of_a_discarded_entry_is_lost_everywhere() {
    with_cluster(9, &[1, 1, 1], |network| async move {
        led(&network, &[1, 2, 3]).await;
        let old = leader_of(&network, b"k");
        let others: Vec<u32> = (1..=3).filter(|&node| node != old).collect();
        let rig = network.node(old);
        let conn = rig.connect(0, None).await;
        let stands = written_token(&rig, conn, b"k", Ack::Quorum).await;
        for &node in &others {
            network.sever(old, node);
        }
        // Durable on a leader that nobody hears any more.
        let discarded = written_token(&rig, conn, b"k", Ack::Leader).await;
        assert_eq!(discarded.index, stands.index + 1);
        led(&network, &others).await;
        let new = network.node(leader_of(&network, b"k"));
        let there = new.connect(0, None).await;
        written(&new, there, &plain(b"k", b"other")).await;
        assert_eq!(
            read_after(&new, there, discarded, 100).await,
            Err(ErrorCode::Lost)
        );
        // Who was cut off cannot know yet: it waits.
        assert_eq!(
            read_after(&rig, conn, discarded, 100).await,
            Err(ErrorCode::Stale)
        );
        network.heal();
        network.env.sleep(SECOND).await;
        for node in 1..=3 {
            let rig = network.node(node);
            let conn = rig.connect(0, None).await;
            let lost = read_after(&rig, conn, discarded, 100).await;
            assert_eq!(lost, Err(ErrorCode::Lost), "node {node}");
            assert_eq!(read_after(&rig, conn, stands, 100).await, Ok(()));
            let ahead = Token {
                index: discarded.index + 1000,
                ..discarded
            };
            let lost = read_after(&rig, conn, ahead, 100).await;
            assert_eq!(lost, Err(ErrorCode::Lost), "node {node}");
            let to_come = Token {
                term: discarded.term + 100,
                ..ahead
            };
            let waits = read_after(&rig, conn, to_come, 100).await;
            assert_eq!(waits, Err(ErrorCode::Stale));
        }
    });
}

/// The token of a write.
pub(super) async fn written_token(rig: &Rig, conn: u64, key: &[u8], ack: Ack) -> Token {
    let request = Request::Write {
        keyspace: 0,
        options: WriteOptions {
            ack,
            ..WriteOptions::default()
        },
        op: WriteOp::Put {
            key,
            value: b"v",
            ttl: Ttl::Never,
            condition: Condition::None,
        },
    };
    rig.call(conn, &request, |reply| match reply {
        Response::Written { token, .. } => token,
        other => panic!("{other:?}"),
    })
    .await
}

#[test]
fn an_echo_of_another_life_of_the_clock_is_none() {
    with_node(9, 1, limits(), |rig| async move {
        rig.env.sleep(SECOND).await;
        let inner = &rig.shards[0].0;
        inner.read_clock();
        let now = inner.clock.get().now;
        let sent = now - Duration::from_millis(100);
        assert_eq!(
            inner.own_stamp(inner.shown_stamp(sent)).as_micros(),
            sent.as_micros()
        );
        for moment in [now + SECOND, Duration::ZERO] {
            assert_eq!(inner.own_stamp(inner.shown_stamp(moment)), Duration::ZERO);
        }
        // As a clock shows it that was shifted by another number, or by none.
        assert_eq!(inner.own_stamp(sent.as_micros() as u64), Duration::ZERO);
    });
}

#[test]
fn what_a_failed_log_did_not_take_never_counts_as_stored() {
    with_cluster(10, &[1, 1, 1], |network| async move {
        led(&network, &[1, 2, 3]).await;
        let leader = leader_of(&network, b"k");
        let failed = if leader == 1 { 2 } else { 1 };
        let partition = partition_of(b"k", PARTITIONS);
        let rig = network.node(failed);
        let stored = || {
            let shard = &rig.shards[0].0;
            shard
                .with_replica(partition, |replica| replica.stored_index())
                .unwrap()
        };
        let before = stored();
        rig.shards[0].engine().log().fail(EngineError::Closed);
        let rig = network.node(leader);
        let conn = rig.connect(0, None).await;
        done(&rig, conn, &plain(b"k", b"two others have it")).await;
        network.env.sleep(SECOND).await;
        assert_eq!(stored(), before);
        assert_eq!(applied(&network, failed, b"k"), before);
    });
}
