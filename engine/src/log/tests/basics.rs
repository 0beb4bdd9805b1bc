//! Append, submit, take, close, open.

use super::*;
use crate::env::sim::{self, SimOptions, SimWorld};

#[test]
fn what_was_appended_is_taken_in_order_and_found_again() {
    let mut world = SimWorld::new(1, SimOptions::default());
    let tables = Tables::default();
    let hard = HardState {
        replica_id: 9,
        term: 1,
        vote: 9,
        commit: 0,
    };
    world
        .run(|env| {
            let tables = tables.clone();
            async move {
                let opened = open(&env, small(), &tables).await?;
                let (log, mut acked) = (opened.log, BTreeMap::new());
                assert!(opened.replicas.is_empty());
                log.append_hard_state(3, hard).unwrap();
                for index in 1..=40 {
                    append(&log, 3, index).unwrap();
                    append(&log, 5, index).unwrap();
                    if index % 8 == 0 {
                        settle(&log, &env, &mut acked, (5, index)).await?;
                    }
                }
                assert_eq!(acked, BTreeMap::from([(3, 40), (5, 40)]));
                let stats = log.stats();
                assert_eq!(stats.records, 81);
                assert!(stats.groups >= 5 && stats.write_times.count >= stats.groups);
                log.close().await
            }
        })
        .unwrap()
        .unwrap();
    world.crash();
    let opened = world
        .run(|env| {
            let tables = tables.clone();
            async move {
                open(&env, small(), &tables)
                    .await
                    .map(|o| (o.replicas, o.replayed))
            }
        })
        .unwrap()
        .unwrap();
    assert_eq!(opened.1, 80);
    assert_eq!((opened.0[0].partition, opened.0[0].hard), (3, hard));
    assert_eq!(opened.0[1].last, LogId { term: 1, index: 40 });
    assert_eq!(opened.0[1].time_ms, 1040);
}

#[test]
fn a_pending_record_can_be_read_until_it_is_taken() {
    sim::run(2, SimOptions::default(), |env| async move {
        let log = open(&env, small(), &Tables::default()).await.unwrap().log;
        let first = append(&log, 1, 1).unwrap();
        let check = |at| {
            log.with_pending(at, |head, effects| {
                check_entry(head, effects);
                head.id.index
            })
        };
        assert_eq!(check(first), Some(1));
        log.submit();
        // In flight now; the next one goes to another group.
        let second = append(&log, 1, 2).unwrap();
        assert_eq!((check(first), check(second)), (Some(1), Some(2)));
        assert!(second.group > first.group);
        let mut acked = BTreeMap::new();
        settle(&log, &env, &mut acked, (1, 2)).await.unwrap();
        assert_eq!((check(first), check(second)), (None, None));
    });
}

#[test]
fn an_idle_log_seals_its_last_group_once() {
    sim::run(3, SimOptions::default(), |env| async move {
        let log = open(&env, small(), &Tables::default()).await.unwrap().log;
        let mut acked = BTreeMap::new();
        for index in 1..=3 {
            append(&log, 1, index).unwrap();
            settle(&log, &env, &mut acked, (1, index)).await.unwrap();
            env.sleep(Duration::from_millis(50)).await;
            assert_eq!(log.stats().seals, index);
            assert!(log.take_durable().is_none());
        }
    });
}

#[test]
fn opening_again_and_again_does_not_lengthen_the_log() {
    let mut world = SimWorld::new(4, SimOptions::default());
    let tables = Tables::default();
    for round in 0..40 {
        let (segments, last) = world
            .run(|env| {
                let tables = tables.clone();
                async move {
                    let opened = open(&env, small(), &tables).await.unwrap();
                    let last = opened.last.get(&1).copied().unwrap_or(0);
                    let mut acked = BTreeMap::new();
                    if round % 10 == 0 {
                        append(&opened.log, 1, last + 1).unwrap();
                        settle(&opened.log, &env, &mut acked, (1, last + 1))
                            .await
                            .unwrap();
                    }
                    if round % 2 == 0 {
                        opened.log.close().await.unwrap();
                    }
                    (opened.log.stats().segments, last)
                }
            })
            .unwrap();
        assert!(
            segments <= 2 + round / 10,
            "{segments} segments in round {round}"
        );
        assert_eq!(last, if round == 0 { 0 } else { (round - 1) / 10 + 1 });
        world.crash();
    }
}

#[test]
fn a_superseded_entry_does_not_come_back() {
    let mut world = SimWorld::new(5, SimOptions::default());
    let put = |value: &'static [u8]| {
        [Effect::Put {
            keyspace: 0,
            key: b"k",
            value,
            expires_ms: 0,
            created_ms: 0,
        }]
    };
    world
        .run(|env| async move {
            let log = open(&env, small(), &Tables::default()).await.unwrap().log;
            let id = |term, index| EntryHead {
                id: LogId { term, index },
                ..EntryHead::default()
            };
            log.append(&id(1, 1), &put(b"one")).unwrap();
            log.append(&id(1, 2), &put(b"two")).unwrap();
            log.append(&id(1, 3), &put(b"three")).unwrap();
            log.append(&id(2, 2), &put(b"another two")).unwrap();
            assert_eq!(log.append(&id(2, 4), &put(b"")), Err(AppendError::Gap));
            log.close().await.unwrap();
        })
        .unwrap();
    world.crash();
    let found = world
        .run(|env| async move {
            let none = |_| LogId::default();
            let dir = Path::new(DIR);
            let mut recovery = Recovery::scan(env, dir, small(), |_| true, |_| 0, &none)
                .await
                .unwrap();
            let mut found = Vec::new();
            while let Some(group) = recovery.next_group().await.unwrap() {
                found.extend(group.entries().map(|entry| entry.head.id));
            }
            found
        })
        .unwrap();
    let id = |term, index| LogId { term, index };
    assert_eq!(found, [id(1, 1), id(2, 2)]);
}
