//! The request path over the simulated environment.

mod carry;
mod catch_up;
mod cluster;
mod gateway;
mod keyspaces;
mod network;
mod peers;
mod retries;
mod rig;
mod trace;
mod turns;

use std::time::Duration;

use ringbolt_engine::env::Env;
use ringbolt_wire::list::WriteOpsBuf;
use ringbolt_wire::message::{
    Condition, ErrorCode, ErrorReply, KeyspaceOptions, ReadLevel, ReadOptions, Request, Response,
    Scan, Token, Ttl, WriteOp, WriteOptions,
};
use ringbolt_wire::partition_of;

use rig::{PARTITIONS, Rig, limits, with_node};

fn get(key: &[u8]) -> Request<'_> {
    Request::Get {
        keyspace: 0,
        read: ReadOptions::default(),
        key,
    }
}

fn write(op: WriteOp<'_>) -> Request<'_> {
    Request::Write {
        keyspace: 0,
        options: WriteOptions::default(),
        op,
    }
}

fn put<'a>(key: &'a [u8], value: &'a [u8], ttl: Ttl, condition: Condition) -> Request<'a> {
    write(WriteOp::Put {
        key,
        value,
        ttl,
        condition,
    })
}

fn incr(key: &[u8], by: i64) -> Request<'_> {
    write(WriteOp::Increment {
        key,
        by,
        ttl: Ttl::Keep,
        condition: Condition::None,
    })
}

async fn value(rig: &Rig, conn: u64, key: &[u8]) -> Option<Vec<u8>> {
    rig.call(conn, &get(key), |reply| match reply {
        Response::Value { value, .. } => Some(value.to_vec()),
        Response::NotFound { .. } => None,
        other => panic!("{other:?}"),
    })
    .await
}

async fn done(rig: &Rig, conn: u64, request: &Request<'_>) -> u64 {
    rig.call(conn, request, |reply| match reply {
        Response::Written { token, .. } => token.index,
        other => panic!("{other:?}"),
    })
    .await
}

async fn code(rig: &Rig, conn: u64, request: &Request<'_>) -> ErrorCode {
    rig.call(conn, request, |reply| match reply {
        Response::Error(ErrorReply { code, .. }) => code,
        other => panic!("{other:?}"),
    })
    .await
}

#[test]
fn puts_are_read_back_from_any_core() {
    with_node(1, 3, limits(), |rig| async move {
        let a = rig.connect(0, None).await;
        let b = rig.connect(1, None).await;
        for i in 0..50u32 {
            let key = format!("key-{i}");
            done(
                &rig,
                a,
                &put(key.as_bytes(), b"v", Ttl::Default, Condition::None),
            )
            .await;
            assert_eq!(
                value(&rig, b, key.as_bytes()).await.as_deref(),
                Some(&b"v"[..])
            );
        }
        done(
            &rig,
            b,
            &write(WriteOp::Delete {
                key: b"key-7",
                condition: Condition::None,
            }),
        )
        .await;
        assert_eq!(value(&rig, a, b"key-7").await, None);
    });
}

#[test]
fn a_connection_moves_to_the_core_it_asks_for() {
    with_node(2, 3, limits(), |rig| async move {
        let conn = rig.connect(0, Some(2)).await;
        assert_eq!(rig.core_of(conn), 2);
        assert_eq!(value(&rig, conn, b"nothing").await, None);
    });
}

#[test]
fn conditions_see_pending_writes_and_are_told_the_version() {
    with_node(3, 1, limits(), |rig| async move {
        let conn = rig.connect(0, None).await;
        // Both in one turn: the second must see the first, which is not durable yet.
        let mut bytes = Vec::new();
        let absent = put(b"k", b"1", Ttl::Default, Condition::Absent);
        absent.encode(1, 0, &mut bytes).unwrap();
        absent.encode(2, 0, &mut bytes).unwrap();
        rig.send(conn, &bytes);
        let version = rig
            .reply(conn, |reply| match reply {
                Response::Written { token, existed } => {
                    assert_eq!(existed, Some(false));
                    token.index
                }
                other => panic!("{other:?}"),
            })
            .await;
        rig.reply(conn, |reply| match reply {
            Response::Error(error) => {
                assert_eq!(error.code, ErrorCode::ConditionFailed);
                assert_eq!(error.detail, version);
            }
            other => panic!("{other:?}"),
        })
        .await;
        let wrong = put(b"k", b"2", Ttl::Default, Condition::Version(version + 1));
        assert_eq!(code(&rig, conn, &wrong).await, ErrorCode::ConditionFailed);
        let right = put(b"k", b"2", Ttl::Default, Condition::Version(version));
        assert!(done(&rig, conn, &right).await > version);
    });
}

#[test]
fn increments_in_one_turn_add_up() {
    with_node(4, 1, limits(), |rig| async move {
        let conn = rig.connect(0, None).await;
        let mut bytes = Vec::new();
        for id in 0..10 {
            incr(b"n", 3).encode(id, 0, &mut bytes).unwrap();
        }
        rig.send(conn, &bytes);
        for turn in 1..=10 {
            rig.reply(conn, |reply| match reply {
                Response::Counter { value, .. } => assert_eq!(value, turn * 3),
                other => panic!("{other:?}"),
            })
            .await;
        }
        done(
            &rig,
            conn,
            &put(b"n", b"many", Ttl::Default, Condition::None),
        )
        .await;
        assert_eq!(
            code(&rig, conn, &incr(b"n", 1)).await,
            ErrorCode::NotANumber
        );
        let max = i64::MAX.to_string();
        done(
            &rig,
            conn,
            &put(b"n", max.as_bytes(), Ttl::Default, Condition::None),
        )
        .await;
        assert_eq!(
            code(&rig, conn, &incr(b"n", 1)).await,
            ErrorCode::NotANumber
        );
    });
}

#[test]
fn records_expire_for_every_reader_alike() {
    with_node(5, 1, limits(), |rig| async move {
        let conn = rig.connect(0, None).await;
        done(
            &rig,
            conn,
            &put(b"k", b"v", Ttl::AfterMs(50), Condition::None),
        )
        .await;
        assert!(value(&rig, conn, b"k").await.is_some());
        rig.env.sleep(Duration::from_millis(60)).await;
        assert_eq!(value(&rig, conn, b"k").await, None);
        let touch = write(WriteOp::Touch {
            key: b"k",
            ttl: Ttl::Never,
            condition: Condition::None,
        });
        rig.call(conn, &touch, |reply| {
            assert!(matches!(reply, Response::NotFound { .. }), "{reply:?}");
        })
        .await;
        done(
            &rig,
            conn,
            &put(b"k", b"w", Ttl::AfterMs(50), Condition::Absent),
        )
        .await;
        done(&rig, conn, &touch).await;
        rig.env.sleep(Duration::from_millis(60)).await;
        assert_eq!(value(&rig, conn, b"k").await.as_deref(), Some(&b"w"[..]));
    });
}

#[test]
fn what_comes_in_one_turn_is_one_proposal_of_each_partition() {
    with_node(9, 1, limits(), |rig| async move {
        let conn = rig.connect(0, None).await;
        done(&rig, conn, &put(b"{a}", b"v", Ttl::Never, Condition::None)).await;
        let counters = &rig.shards[0].0.counters;
        let counts = || {
            (
                counters.proposals_total.get(),
                counters.proposal_batches_total.get(),
            )
        };
        let before = counts();
        let mut frames = Vec::new();
        for n in 0..30 {
            // Three partitions in turns.
            let key = format!("{{{}}}{n}", n % 3);
            let put = put(key.as_bytes(), b"v", Ttl::Never, Condition::None);
            put.encode(n, 0, &mut frames).unwrap();
        }
        rig.send(conn, &frames);
        for _ in 0..30 {
            rig.reply(conn, |reply| {
                assert!(matches!(reply, Response::Written { .. }))
            })
            .await;
        }
        assert_eq!(counts(), (before.0 + 30, before.1 + 3));
    });
}

#[test]
fn that_a_record_has_expired_is_told_only_once_it_has_for_everybody() {
    with_node(8, 1, limits(), |rig| async move {
        let conn = rig.connect(0, None).await;
        let touch = write(WriteOp::Touch {
            key: b"k",
            ttl: Ttl::Never,
            condition: Condition::None,
        });
        let if_present = put(b"k", b"w", Ttl::Never, Condition::Present);
        let partition = partition_of(b"k", PARTITIONS);
        for refused in [touch, if_present] {
            let put = put(b"k", b"v", Ttl::AfterMs(50), Condition::None);
            done(&rig, conn, &put).await;
            rig.env.sleep(Duration::from_millis(60)).await;
            let time_ms = || {
                let time_ms = rig.shards[0]
                    .0
                    .with_replica(partition, |replica| replica.applied_time_ms());
                time_ms.unwrap()
            };
            let written_ms = time_ms();
            rig.call(conn, &refused, |reply| match reply {
                Response::NotFound { .. } => {}
                Response::Error(error) => assert_eq!(error.code, ErrorCode::ConditionFailed),
                other => panic!("{other:?}"),
            })
            .await;
            // Another leader goes on from here, whatever its clock says.
            assert!(time_ms() >= written_ms + 50, "{} {written_ms}", time_ms());
        }
    });
}

#[test]
fn batches_are_whole_or_nothing() {
    with_node(6, 2, limits(), |rig| async move {
        let conn = rig.connect(0, None).await;
        let op = |key, condition| WriteOp::Put {
            key,
            value: b"v",
            ttl: Ttl::Default,
            condition,
        };
        let mut ops = WriteOpsBuf::new();
        ops.push(&op(b"{t}a", Condition::None)).unwrap();
        ops.push(&op(b"{t}b", Condition::Present)).unwrap();
        let batch = Request::Batch {
            keyspace: 0,
            options: WriteOptions::default(),
            ops: ops.as_ops(),
        };
        assert_eq!(code(&rig, conn, &batch).await, ErrorCode::ConditionFailed);
        assert_eq!(value(&rig, conn, b"{t}a").await, None);
        done(
            &rig,
            conn,
            &put(b"{t}b", b"old", Ttl::Default, Condition::None),
        )
        .await;
        rig.call(conn, &batch, |reply| {
            assert!(matches!(reply, Response::BatchWritten { .. }), "{reply:?}");
        })
        .await;
        assert_eq!(value(&rig, conn, b"{t}a").await.as_deref(), Some(&b"v"[..]));

        let mut twice = WriteOpsBuf::new();
        twice.push(&op(b"{t}a", Condition::None)).unwrap();
        twice.push(&op(b"{t}a", Condition::None)).unwrap();
        let batch = Request::Batch {
            keyspace: 0,
            options: WriteOptions::default(),
            ops: twice.as_ops(),
        };
        assert_eq!(code(&rig, conn, &batch).await, ErrorCode::BadRequest);

        let mut apart = WriteOpsBuf::new();
        for key in [&b"a"[..], b"b", b"c", b"d"] {
            apart.push(&op(key, Condition::None)).unwrap();
        }
        let batch = Request::Batch {
            keyspace: 0,
            options: WriteOptions::default(),
            ops: apart.as_ops(),
        };
        assert_eq!(code(&rig, conn, &batch).await, ErrorCode::CrossPartition);
    });
}

#[test]
fn scans_merge_partitions_and_cores_page_by_page_both_ways() {
    with_node(7, 3, limits(), |rig| async move {
        let conn = rig.connect(0, None).await;
        let mut keys: Vec<String> = (0..100).map(|i| format!("k{i:03}")).collect();
        for key in &keys {
            done(
                &rig,
                conn,
                &put(key.as_bytes(), b"v", Ttl::Default, Condition::None),
            )
            .await;
        }
        done(
            &rig,
            conn,
            &put(b"other", b"v", Ttl::Default, Condition::None),
        )
        .await;
        for reverse in [false, true] {
            let mut found = Vec::new();
            let mut cursor = Vec::new();
            loop {
                let scan = Request::Scan(Scan {
                    keyspace: 0,
                    read: ReadOptions::default(),
                    prefix: b"k",
                    start: b"",
                    end: b"",
                    reverse,
                    keys_only: false,
                    limit: 7,
                    cursor: &cursor,
                });
                let next = rig
                    .call(conn, &scan, |reply| match reply {
                        Response::Rows { rows, cursor, .. } => {
                            assert!(rows.len() <= 7);
                            found.extend(
                                rows.iter()
                                    .map(|(key, ..)| String::from_utf8(key.to_vec()).unwrap()),
                            );
                            cursor.to_vec()
                        }
                        other => panic!("{other:?}"),
                    })
                    .await;
                if next.is_empty() {
                    break;
                }
                cursor = next;
            }
            assert_eq!(found, keys, "reverse: {reverse}");
            keys.reverse();
        }
    });
}

#[test]
fn keyspaces_are_apart_and_a_dropped_one_leaves_nothing() {
    with_node(8, 2, limits(), |rig| async move {
        let conn = rig.connect(1, None).await;
        let create = Request::KeyspaceCreate {
            name: "users",
            options: KeyspaceOptions::default(),
        };
        let id = rig
            .call(conn, &create, |reply| match reply {
                Response::Keyspaces(list) => list[0].id,
                other => panic!("{other:?}"),
            })
            .await;
        assert_eq!(code(&rig, conn, &create).await, ErrorCode::KeyspaceExists);
        let in_users = |key| Request::Get {
            keyspace: id,
            read: ReadOptions::default(),
            key,
        };
        for i in 0..20u32 {
            let key = i.to_string();
            let request = Request::Write {
                keyspace: id,
                options: WriteOptions::default(),
                op: WriteOp::Put {
                    key: key.as_bytes(),
                    value: b"v",
                    ttl: Ttl::Default,
                    condition: Condition::None,
                },
            };
            done(&rig, conn, &request).await;
            assert_eq!(value(&rig, conn, key.as_bytes()).await, None);
        }
        let drop = Request::KeyspaceDrop { name: "users" };
        rig.call(conn, &drop, |reply| assert_eq!(reply, Response::Done))
            .await;
        assert_eq!(
            code(&rig, conn, &in_users(b"1")).await,
            ErrorCode::NoSuchKeyspace
        );
        let again = rig
            .call(conn, &create, |reply| match reply {
                Response::Keyspaces(list) => list[0].id,
                other => panic!("{other:?}"),
            })
            .await;
        assert!(again > id, "numbers are never used again");
    });
}

#[test]
fn bad_input_is_answered_and_the_neighbours_are_unharmed() {
    with_node(9, 1, limits(), |rig| async move {
        let good = rig.connect(0, None).await;
        let rude = rig.dial(0);
        let mut bytes = Vec::new();
        get(b"k").encode(5, 0, &mut bytes).unwrap();
        rig.send(rude, &bytes);
        rig.reply(rude, |reply| match reply {
            Response::Error(error) => assert_eq!(error.code, ErrorCode::Handshake),
            other => panic!("{other:?}"),
        })
        .await;
        let garbage = rig.connect(0, None).await;
        rig.send(garbage, &[0xff; 64]);
        rig.reply(garbage, |reply| {
            assert!(matches!(reply, Response::Error(_)), "{reply:?}");
        })
        .await;
        rig.env.sleep(Duration::from_millis(5)).await;
        assert!(rig.is_closed(rude) && rig.is_closed(garbage));
        // A request over a limit is refused, and its connection lives.
        let big = vec![0; (64 << 10) + 1];
        let too_large = put(b"k", &big, Ttl::Default, Condition::None);
        assert_eq!(code(&rig, good, &too_large).await, ErrorCode::TooLarge);
        assert_eq!(value(&rig, good, b"k").await, None);
        // The same in dribs and drabs.
        let mut bytes = Vec::new();
        put(b"k", b"v", Ttl::Default, Condition::None)
            .encode(6, 0, &mut bytes)
            .unwrap();
        for byte in bytes {
            rig.send(good, &[byte]);
        }
        rig.reply(good, |reply| {
            assert!(matches!(reply, Response::Written { .. }), "{reply:?}");
        })
        .await;
    });
}

#[test]
fn a_client_that_does_not_read_is_cut_off_and_one_that_says_nothing_too() {
    with_node(10, 1, limits(), |rig| async move {
        let good = rig.connect(0, None).await;
        let value_64k = vec![7; 60 << 10];
        done(
            &rig,
            good,
            &put(b"big", &value_64k, Ttl::Default, Condition::None),
        )
        .await;
        let deaf = rig.connect(0, None).await;
        rig.stop_reading(deaf);
        let silent = rig.dial(0);
        let mut bytes = Vec::new();
        for id in 0..1000 {
            get(b"big").encode(id, 0, &mut bytes).unwrap();
        }
        rig.send(deaf, &bytes);
        rig.env.sleep(Duration::from_secs(30)).await;
        assert!(rig.is_closed(deaf) && rig.is_closed(silent));
        assert!(value(&rig, good, b"big").await.is_some());
    });
}

/// Compaction that meets a damaged table cannot go on, and says which one; the rest is served.
#[test]
fn a_damaged_table_stops_writes_by_its_name_and_not_reads() {
    with_node(23, 1, limits(), |rig| async move {
        let conn = rig.connect(0, None).await;
        let key = |i: u32| format!("key-{:05}", i * 7919 % 10_000);
        let text = vec![b'v'; 600];
        let tree = rig.shards[0].engine().tree().clone();
        let mut written = 0;
        while tree.stats().tables < 4 {
            let key = key(written);
            let put = put(key.as_bytes(), &text, Ttl::Default, Condition::None);
            done(&rig, conn, &put).await;
            written += 1;
        }
        let store = rig.env.store().clone();
        let tables = store.files();
        let mut tables = tables
            .iter()
            .map(|(path, _)| path)
            .filter(|path| path.extension().is_some_and(|e| e == "table"));
        // Somewhere in its first data block.
        let damaged = tables.next().unwrap().clone();
        assert!(store.flip_bit(&damaged, 100, 3));
        let name = damaged.to_string_lossy().into_owned();
        let refusal = loop {
            let key = key(written);
            let put = put(key.as_bytes(), &text, Ttl::Default, Condition::None);
            let refused = rig
                .call(conn, &put, |reply| match reply {
                    Response::Written { .. } => None,
                    Response::Error(error) => Some((error.code, error.message.to_owned())),
                    other => panic!("{other:?}"),
                })
                .await;
            written += 1;
            assert!(written < 20_000, "compaction never met the damage");
            if let Some(refused) = refused {
                break refused;
            }
        };
        assert_eq!(refusal.0, ErrorCode::Corrupt, "{}", refusal.1);
        assert!(refusal.1.contains(&name), "{}", refusal.1);
        assert!(refusal.1.contains("restore"), "{}", refusal.1);
        assert_eq!(tree.stats().stopped, 1);
        let delete = write(WriteOp::Delete {
            key: b"key",
            condition: Condition::None,
        });
        assert_eq!(code(&rig, conn, &delete).await, ErrorCode::Corrupt);
        let (mut served, mut damaged) = (0, 0);
        for i in 0..written - 1 {
            let key = key(i);
            let harmed = rig
                .call(conn, &get(key.as_bytes()), |reply| match reply {
                    Response::Value { value, .. } => {
                        assert_eq!(value, text);
                        false
                    }
                    Response::Error(error) => {
                        assert_eq!(error.code, ErrorCode::Corrupt);
                        assert!(error.message.contains(&name), "{}", error.message);
                        true
                    }
                    other => panic!("{other:?}"),
                })
                .await;
            match harmed {
                true => damaged += 1,
                false => served += 1,
            }
        }
        assert!(damaged > 0 && damaged < served / 10, "{damaged} {served}");
    });
}

#[test]
fn a_read_is_proven_only_by_a_leader_that_has_led_since_it_began() {
    with_node(31, 1, limits(), |rig| async move {
        let conn = rig.connect(0, None).await;
        let request = put(b"key", b"value", Ttl::Default, Condition::None);
        let seen = rig
            .call(conn, &request, |reply| match reply {
                Response::Written { token, .. } => token,
                other => panic!("{other:?}"),
            })
            .await;
        let another_led_in_between = Token {
            term: seen.term - 1,
            ..seen
        };
        let inner = &rig.shards[0].0;
        for level in [ReadLevel::Linearizable, ReadLevel::Strict] {
            assert_eq!(inner.prove_reads([seen], level).await, Ok(()));
            let refused = inner.prove_reads([seen, another_led_in_between], level);
            let refused = refused.await.expect_err("another may have written");
            assert_eq!(refused.code, ErrorCode::Unavailable);
        }
        let session = inner.prove_reads([another_led_in_between], ReadLevel::Session);
        assert_eq!(session.await, Ok(()));
    });
}
