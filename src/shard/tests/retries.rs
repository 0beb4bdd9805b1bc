//! Writes that come again are applied once.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringbolt_engine::env::Env;
use ringbolt_engine::env::sim::{self, SimOptions};
use ringbolt_engine::writers::RESULTS_KEPT;
use ringbolt_wire::list::WriteOpsBuf;
use ringbolt_wire::message::{
    Condition, ErrorCode, ErrorReply, Request, Response, Token, Ttl, WriteOp, WriteOptions,
};
use ringbolt_wire::partition_of;

use super::cluster::{leader_of, led};
use super::network::{Network, with_cluster};
use super::rig::{PARTITIONS, Placement, Rig, limits, view, with_node};
use super::value;

const SECOND: Duration = Duration::from_secs(1);

fn identity(client: u64, sequence: u64, retry: bool) -> WriteOptions {
    WriteOptions {
        client,
        sequence,
        retry,
        ..WriteOptions::default()
    }
}

/// Adds one to `n`.
fn add(client: u64, sequence: u64, retry: bool) -> Request<'static> {
    Request::Write {
        keyspace: 0,
        options: identity(client, sequence, retry),
        op: WriteOp::Increment {
            key: b"n",
            by: 1,
            ttl: Ttl::Never,
            condition: Condition::None,
        },
    }
}

async fn counted(rig: &Rig, conn: u64) -> Result<(i64, Token), ErrorCode> {
    rig.reply(conn, |reply| match reply {
        Response::Counter { token, value } => Ok((value, token)),
        Response::Error(ErrorReply { code, .. }) => Err(code),
        other => panic!("{other:?}"),
    })
    .await
}

fn send(rig: &Rig, conn: u64, request: &Request<'_>, deadline_ms: u32) {
    let mut bytes = Vec::new();
    request.encode(77, deadline_ms, &mut bytes).unwrap();
    rig.send(conn, &bytes);
}

async fn count(rig: &Rig, conn: u64, request: &Request<'_>) -> Result<(i64, Token), ErrorCode> {
    send(rig, conn, request, 0);
    counted(rig, conn).await
}

/// The same, until a leader that serves has said something definite.
async fn count_at_last(rig: &Rig, conn: u64, request: &Request<'_>) -> (i64, Token) {
    for _ in 0..2000 {
        match count(rig, conn, request).await {
            Ok(answer) => return answer,
            Err(ErrorCode::NotLeader | ErrorCode::Unavailable) => {
                rig.env.sleep(Duration::from_millis(5)).await;
            }
            Err(code) => panic!("{code:?}"),
        }
    }
    panic!("never counted");
}

#[test]
fn a_repeat_is_answered_as_the_write_was() {
    with_node(31, 1, limits(), |rig| async move {
        let conn = rig.connect(0, None).await;
        // A repeat of what was never done is done.
        let first = count(&rig, conn, &add(7, 1, true)).await.unwrap();
        assert_eq!(first.0, 1);
        let second = count(&rig, conn, &add(7, 2, false)).await.unwrap();
        assert_eq!(second.0, 2);
        for retry in [true, false] {
            assert_eq!(count(&rig, conn, &add(7, 1, retry)).await, Ok(first));
            assert_eq!(count(&rig, conn, &add(7, 2, retry)).await, Ok(second));
        }
        // Another client's.
        let third = count(&rig, conn, &add(8, 1, false)).await.unwrap();
        assert_eq!(third.0, 3);
        // One that comes while the write is under way.
        for retry in [false, true, true] {
            send(&rig, conn, &add(7, 3, retry), 0);
        }
        let answer = counted(&rig, conn).await.unwrap();
        assert_eq!(answer.0, 4);
        assert_eq!(counted(&rig, conn).await, Ok(answer));
        assert_eq!(counted(&rig, conn).await, Ok(answer));
        assert_eq!(value(&rig, conn, b"n").await.as_deref(), Some(&b"4"[..]));
        // Without an identity nothing is remembered.
        assert_eq!(count(&rig, conn, &add(0, 0, false)).await.unwrap().0, 5);
        assert_eq!(count(&rig, conn, &add(0, 0, false)).await.unwrap().0, 6);
    });
}

#[test]
fn other_writes_are_repeated_by_their_results_too() {
    with_node(32, 1, limits(), |rig| async move {
        let conn = rig.connect(0, None).await;
        let created = |retry| Request::Write {
            keyspace: 0,
            options: identity(5, 1, retry),
            op: WriteOp::Put {
                key: b"{t}k",
                value: b"v",
                ttl: Ttl::Never,
                condition: Condition::Absent,
            },
        };
        let written = |reply: Response<'_>| match reply {
            Response::Written { token, existed } => (token, existed),
            other => panic!("{other:?}"),
        };
        let first = rig.call(conn, &created(false), written).await;
        assert_eq!(first.1, Some(false));
        // The condition does not hold any more; the write was done all the same.
        assert_eq!(rig.call(conn, &created(true), written).await, first);
        let mut ops = WriteOpsBuf::new();
        for (key, by) in [(&b"{t}a"[..], 5), (b"{t}b", 7)] {
            ops.push(&WriteOp::Increment {
                key,
                by,
                ttl: Ttl::Never,
                condition: Condition::None,
            })
            .unwrap();
        }
        ops.push(&WriteOp::Delete {
            key: b"{t}k",
            condition: Condition::None,
        })
        .unwrap();
        let batch = |retry| Request::Batch {
            keyspace: 0,
            options: identity(5, 2, retry),
            ops: ops.as_ops(),
        };
        let written = |reply: Response<'_>| match reply {
            Response::BatchWritten { token, counters } => (token, counters),
            other => panic!("{other:?}"),
        };
        let first = rig.call(conn, &batch(false), written).await;
        assert_eq!(first.1, [Some(5), Some(7), None]);
        assert_eq!(rig.call(conn, &batch(true), written).await, first);
    });
}

#[test]
fn what_may_be_forgotten_is_in_doubt_and_not_done() {
    with_node(33, 1, limits(), |rig| async move {
        let conn = rig.connect(0, None).await;
        for sequence in 1..=RESULTS_KEPT as u64 + 1 {
            count(&rig, conn, &add(7, sequence, false)).await.unwrap();
        }
        let total = (RESULTS_KEPT + 1).to_string();
        let forgotten = count(&rig, conn, &add(7, 1, true)).await;
        assert_eq!(forgotten, Err(ErrorCode::InDoubt));
        let remembered = count(&rig, conn, &add(7, 2, true)).await.unwrap();
        assert_eq!(remembered.0, 2);
        let found = value(&rig, conn, b"n").await;
        assert_eq!(found.as_deref(), Some(total.as_bytes()));
        let new = count(&rig, conn, &add(7, 9999, true)).await.unwrap();
        assert_eq!(new.0, RESULTS_KEPT as i64 + 2);
    });
}

#[test]
fn a_repeat_after_a_restart_is_answered_as_before() {
    println!("seed 34");
    sim::run(34, SimOptions::default(), |env| async move {
        let open = |boot| {
            let view = Arc::new(view(1, boot, &[1], Placement::Apart));
            Rig::open(env.clone(), view, limits())
        };
        let rig = open(1).await;
        let conn = rig.connect(0, None).await;
        let mut answers = Vec::new();
        for sequence in 1..=3 {
            answers.push(count(&rig, conn, &add(7, sequence, false)).await.unwrap());
        }
        rig.close().await;
        let rig = open(2).await;
        let conn = rig.connect(0, None).await;
        for (sequence, answer) in (1..).zip(answers) {
            assert_eq!(count(&rig, conn, &add(7, sequence, true)).await, Ok(answer));
        }
        // One that was lost on the way to the node that has stopped.
        assert_eq!(count(&rig, conn, &add(7, 4, true)).await.unwrap().0, 4);
        assert_eq!(count(&rig, conn, &add(9, 1, true)).await.unwrap().0, 5);
        for sequence in 5..=2 * RESULTS_KEPT as u64 {
            count(&rig, conn, &add(7, sequence, false)).await.unwrap();
        }
        // From tables.
        rig.shards[0].engine().tree().flush().await.unwrap();
        rig.close().await;
        let rig = open(3).await;
        let conn = rig.connect(0, None).await;
        let last = 2 * RESULTS_KEPT as u64;
        let remembered = count(&rig, conn, &add(7, last, true)).await.unwrap();
        assert_eq!(remembered.0, last as i64 + 1);
        let forgotten = count(&rig, conn, &add(7, 4, true)).await;
        assert_eq!(forgotten, Err(ErrorCode::InDoubt));
        // Whoever is not in the ring may have been.
        let stranger = count(&rig, conn, &add(9, 1, true)).await;
        assert_eq!(stranger, Err(ErrorCode::InDoubt));
        let new = count(&rig, conn, &add(7, last + 1, true)).await.unwrap();
        assert_eq!(new.0, last as i64 + 2);
        rig.close().await;
    });
}

fn others(node: u32) -> impl Iterator<Item = u32> {
    (1..=3).filter(move |&other| other != node)
}

/// Connects to a node that does not lead `n`.
async fn elsewhere(network: &Network, not: u32) -> (Rc<Rig>, u64) {
    let rig = network.node(if not == 1 { 2 } else { 1 });
    let conn = rig.connect(0, None).await;
    (rig, conn)
}

#[test]
fn a_repeat_at_another_leader_is_answered_as_before() {
    with_cluster(35, &[1, 1, 1], |network| async move {
        led(&network, &[1, 2, 3]).await;
        let old = leader_of(&network, b"n");
        let rig = network.node(old);
        let conn = rig.connect(0, None).await;
        let first = count(&rig, conn, &add(7, 1, false)).await.unwrap();
        // Its answer is lost, and so is its leader.
        for node in others(old) {
            network.sever(old, node);
        }
        // This one reaches a leader that nobody hears: it is discarded.
        send(&rig, conn, &add(7, 2, false), 200);
        let remaining: Vec<u32> = others(old).collect();
        led(&network, &remaining).await;
        let (there, other) = elsewhere(&network, old).await;
        assert_eq!(count_at_last(&there, other, &add(7, 1, true)).await, first);
        let second = count_at_last(&there, other, &add(7, 2, true)).await;
        assert_eq!(second.0, 2);
        network.heal();
        network.env.sleep(SECOND).await;
        assert_eq!(counted(&rig, conn).await, Err(ErrorCode::InDoubt));
        for node in 1..=3 {
            let rig = network.node(node);
            let conn = rig.connect(0, None).await;
            assert_eq!(count_at_last(&rig, conn, &add(7, 1, true)).await, first);
            assert_eq!(count_at_last(&rig, conn, &add(7, 2, true)).await, second);
        }
        let found = value(&there, other, b"n").await;
        assert_eq!(found.as_deref(), Some(&b"2"[..]));
    });
}

#[test]
fn every_replica_has_the_results_also_one_that_a_snapshot_made() {
    with_cluster(36, &[1, 1, 1], |network| async move {
        led(&network, &[1, 2, 3]).await;
        let leader = leader_of(&network, b"n");
        let behind = others(leader).next().unwrap();
        for node in others(behind) {
            network.sever(node, behind);
        }
        let rig = network.node(leader);
        let conn = rig.connect(0, None).await;
        let big = vec![7; 4096];
        // More than the log keeps.
        for sequence in 1..=700 {
            let request = Request::Write {
                keyspace: 0,
                options: identity(7, sequence, false),
                op: WriteOp::Put {
                    key: b"n",
                    value: &big,
                    ttl: Ttl::Never,
                    condition: Condition::None,
                },
            };
            super::done(&rig, conn, &request).await;
        }
        network.heal();
        network.env.sleep(5 * SECOND).await;
        let known = |node| {
            let rig = network.node(node);
            let inner = &rig.shards[0].0;
            let installed = inner.counters.snapshots_installed_total.get();
            let writers = inner.engine.tree().writers(partition_of(b"n", PARTITIONS));
            let results = writers.results().into_iter();
            let results: Vec<_> = results.map(|(write, id, _)| (write, id)).collect();
            (results, installed)
        };
        assert!(known(behind).1 > 0, "it came by the log");
        assert_eq!(known(leader).0.len(), 700);
        for node in others(leader) {
            assert_eq!(known(node).0, known(leader).0);
        }
    });
}
