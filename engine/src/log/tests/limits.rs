//! Full disks, failing disks, large records, and every limit.

use super::*;
use crate::entry::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::env::sim::{self, Fault, FaultRule, Latency, SimOptions, SimWorld};
use crate::env::{DiskErrorKind, FileClass};

fn put<'a>(key: &'a [u8], value: &'a [u8]) -> [Effect<'a>; 1] {
    [Effect::Put {
        keyspace: 0,
        key,
        value,
        expires_ms: 0,
        created_ms: 0,
    }]
}

#[test]
fn a_full_disk_refuses_and_resumes() {
    sim::run(1, SimOptions::default(), |env| async move {
        let log = open(&env, small(), &Tables::default()).await.unwrap().log;
        let mut acked = BTreeMap::new();
        env.sleep(Duration::from_millis(50)).await;
        env.store().set_capacity(env.store().used_bytes() + 4096);
        let mut index = 0;
        let refused = loop {
            match append(&log, 1, index + 1) {
                Ok(_) => {
                    index += 1;
                    settle(&log, &env, &mut acked, (1, index)).await.unwrap();
                }
                Err(AppendError::Full) => env.sleep(Duration::from_millis(5)).await,
                Err(error) => break error,
            }
        };
        assert_eq!(refused, AppendError::NoSpace);
        assert!(log.failure().is_none() && log.stats().no_space > 0);
        env.store().set_capacity(u64::MAX);
        env.sleep(Duration::from_millis(500)).await;
        append(&log, 1, index + 1).unwrap();
        settle(&log, &env, &mut acked, (1, index + 1))
            .await
            .unwrap();
        log.close().await.unwrap();
    });
}

#[test]
fn recycled_segments_end_a_shortage_too() {
    sim::run(2, SimOptions::default(), |env| async move {
        let tables = Tables::default();
        let log = open(&env, small(), &tables).await.unwrap().log;
        let mut acked = BTreeMap::new();
        env.sleep(Duration::from_millis(50)).await;
        env.store().set_capacity(env.store().used_bytes());
        let mut index = 0;
        for _ in 0..500 {
            match append(&log, 1, index + 1) {
                Ok(_) => {
                    index += 1;
                    settle(&log, &env, &mut acked, (1, index)).await.unwrap();
                }
                Err(AppendError::Full | AppendError::NoSpace) => {
                    tables.flush(1, index);
                    log.recycle(&tables.flushed());
                    env.sleep(Duration::from_millis(1)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(index > 300 && log.stats().segments_recycled > 3);
    });
}

#[test]
fn a_failed_write_is_fatal_and_loses_nothing_acknowledged() {
    let mut failed = 0;
    for seed in 0..60 {
        let mut world = SimWorld::new(seed, SimOptions::default());
        let rule = FaultRule::new(Fault::WriteError, 40).only(FileClass::Log);
        world.store().set_faults(vec![rule.at_most(1)]);
        let acked: Rc<RefCell<BTreeMap<_, _>>> = Rc::default();
        let taken = Rc::clone(&acked);
        let tables = Tables::default();
        let flushed = tables.clone();
        let fails = world.run(|env| async move {
            let opened = open(&env, small(), &flushed).await;
            let (log, mut index) = (opened?.log, 0);
            let error = loop {
                match append(&log, 1, index + 1) {
                    Ok(_) => index += 1,
                    Err(AppendError::Failed) => break log.failure(),
                    Err(AppendError::Full) => {}
                    Err(error) => panic!("{error}"),
                }
                log.submit();
                progress(&log, &env).await;
                take_all(&log, &mut taken.borrow_mut());
                if log.needs_flush() {
                    flushed.flush(1, taken.borrow()[&1]);
                    log.recycle(&flushed.flushed());
                }
            };
            assert!(log.close().await.is_err());
            take_all(&log, &mut taken.borrow_mut());
            error.map_or(Ok(()), Err)
        });
        let Err(EngineError::Disk(error)) = fails.unwrap() else {
            panic!("a failed write was not told");
        };
        assert_eq!(error.kind, DiskErrorKind::Io);
        world.crash();
        let last = world
            .run(|env| async move { open(&env, small(), &tables).await.map(|o| o.last) })
            .unwrap()
            .unwrap();
        for (partition, index) in &*acked.borrow() {
            failed += 1;
            assert!(last[partition] >= *index, "seed {seed}");
        }
    }
    assert!(failed > 30);
}

#[test]
fn memory_in_flight_is_bounded() {
    let options = SimOptions {
        latency: Latency {
            write: Duration::from_secs(3),
            ..SimOptions::default().latency
        },
        ..SimOptions::default()
    };
    sim::run(4, options, |env| async move {
        let log = open(&env, small(), &Tables::default()).await.unwrap().log;
        let mut index = 0;
        let refused = loop {
            match append(&log, 1, index + 1) {
                Ok(_) => index += 1,
                Err(error) => break error,
            }
            log.submit();
        };
        assert_eq!(refused, AppendError::Full);
        assert!(log.stats().buffer_bytes <= small().buffer_bytes_max as u64);
        assert_eq!(log.stats().in_flight, 4);
        let mut acked = BTreeMap::new();
        settle(&log, &env, &mut acked, (1, index)).await.unwrap();
        let stats = log.stats();
        assert!(stats.full > 0 && stats.write_times.max_us > 1_000_000);
        append(&log, 1, index + 1).unwrap();
    });
}

#[test]
fn a_group_grows_for_the_largest_record() {
    let mut world = SimWorld::new(5, SimOptions::default());
    let (key, value) = (vec![1; KEY_BYTES_MAX], vec![7; VALUE_BYTES_MAX]);
    world
        .run(|env| {
            let (key, value) = (key.clone(), value.clone());
            async move {
                let tables = Tables::default();
                let log = open(&env, LogOptions::default(), &tables)
                    .await
                    .unwrap()
                    .log;
                for index in 1..=8 {
                    loop {
                        match log.append(&head(9, index), &put(&key, &value)) {
                            Ok(_) => break,
                            Err(AppendError::Full) => {}
                            Err(error) => panic!("{error}"),
                        }
                        log.submit();
                        progress(&log, &env).await;
                        while log.take_durable().is_some() {}
                    }
                }
                let (long_key, long_value) =
                    ([&key[..], b"x"].concat(), [&value[..], b"x"].concat());
                for effect in [put(&long_key, b""), put(b"k", &long_value)] {
                    assert_eq!(log.append(&head(9, 9), &effect), Err(AppendError::TooLarge));
                }
                let twice = [put(&key, &value)[0], put(b"k", &value)[0]];
                assert_eq!(log.append(&head(9, 9), &twice), Err(AppendError::TooLarge));
                log.close().await.unwrap();
            }
        })
        .unwrap();
    world.crash();
    let found = world
        .run(|env| async move {
            let none = |_| LogId::default();
            let (dir, options) = (Path::new(DIR), LogOptions::default());
            let mut recovery = Recovery::scan(env, dir, options, |_| true, |_| 0, &none)
                .await
                .unwrap();
            let mut found = 0;
            while let Some(group) = recovery.next_group().await.unwrap() {
                for ReplayedEntry { mut effects, .. } in group.entries() {
                    assert!(effects.next() == Some(put(&key, &value)[0]));
                    found += 1;
                }
            }
            found
        })
        .unwrap();
    assert_eq!(found, 8);
}

#[test]
fn a_first_start_fills_for_a_limited_time_and_grows_later() {
    let options = SimOptions {
        latency: Latency {
            write: Duration::from_millis(30),
            ..SimOptions::default().latency
        },
        ..SimOptions::default()
    };
    sim::run(6, options, |env| async move {
        let options = LogOptions {
            segment_bytes: 16 << 20,
            first_fill_bytes: 16 << 20,
            first_fill_time: Duration::from_millis(200),
            ..small()
        };
        let begun = env.now();
        let log = open(&env, options, &Tables::default()).await.unwrap().log;
        assert!(env.now() - begun < Duration::from_millis(400));
        let files = || {
            let files = env.store().files();
            files
                .into_iter()
                .map(|(_, bytes)| bytes)
                .collect::<Vec<_>>()
        };
        assert!(
            files()[0] >= 1 << 20 && files()[0] < 4 << 20,
            "{:?}",
            files()
        );
        let mut acked = BTreeMap::new();
        let mut index = 0;
        while log.stats().segments_begun < 3 {
            for _ in 0..50 {
                if append(&log, 1, index + 1).is_ok() {
                    index += 1;
                }
            }
            settle(&log, &env, &mut acked, (1, index)).await.unwrap();
        }
        assert!(files().contains(&(16 << 20)), "{:?}", files());
        log.close().await.unwrap();
    });
}

#[test]
fn a_log_of_needed_segments_refuses_until_tables_catch_up() {
    sim::run(7, SimOptions::default(), |env| async move {
        let tables = Tables::default();
        let log = open(&env, small(), &tables).await.unwrap().log;
        let mut acked = BTreeMap::new();
        let (mut index, mut refusals) = (0, 0);
        while refusals < 50 {
            match append(&log, 1, index + 1) {
                Ok(_) => {
                    index += 1;
                    refusals = 0;
                    settle(&log, &env, &mut acked, (1, index)).await.unwrap();
                }
                Err(AppendError::Full) => {
                    refusals += 1;
                    env.sleep(Duration::from_millis(5)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(log.needs_flush());
        assert_eq!(log.stats().segments, small().segments_max as u64);
        tables.flush(1, index);
        log.recycle(&tables.flushed());
        assert!(!log.needs_flush());
        append(&log, 1, index + 1).unwrap();
        log.close().await.unwrap();
    });
}

/// A checkpoint that listed a partition without records would not agree with what recovery reads.
#[test]
fn a_refused_first_append_leaves_no_trace() {
    sim::run(9, SimOptions::default(), |env| async move {
        let tables = Tables::default();
        let log = open(&env, small(), &tables).await.unwrap().log;
        let mut acked = BTreeMap::new();
        let mut index = 0;
        while log.stats().full == 0 {
            if append(&log, 1, index + 1).is_ok() {
                index += 1;
            }
        }
        assert_eq!(append(&log, 2, 1), Err(AppendError::Full));
        log.set_commit(3, 1);
        settle(&log, &env, &mut acked, (1, index)).await.unwrap();
        let begun = log.stats().segments_begun;
        while log.stats().segments_begun == begun {
            if append(&log, 1, index + 1).is_ok() {
                index += 1;
                settle(&log, &env, &mut acked, (1, index)).await.unwrap();
            }
            env.sleep(Duration::from_millis(1)).await;
        }
        log.close().await.unwrap();
        let opened = open(&env, small(), &tables).await.unwrap();
        assert_eq!(opened.last[&1], index);
        opened.log.close().await.unwrap();
    });
}

/// Partition 2 has an entry that is not committed, in the oldest segment: nothing can be recycled, and
/// what supersedes that entry needs room itself.
#[test]
fn a_full_log_has_a_reserve_for_what_frees_it() {
    sim::run(8, SimOptions::default(), |env| async move {
        let tables = Tables::default();
        let log = open(&env, small(), &tables).await.unwrap().log;
        let mut acked = BTreeMap::new();
        append(&log, 2, 1).unwrap();
        append(&log, 2, 2).unwrap();
        let (mut index, mut refusals) = (0, 0);
        let mut fill = async |refusals_max| {
            while refusals < refusals_max {
                match append(&log, 1, index + 1) {
                    Ok(_) => {
                        index += 1;
                        settle(&log, &env, &mut acked, (1, index)).await.unwrap();
                        tables.flush(1, index);
                        log.recycle(&tables.flushed());
                    }
                    Err(AppendError::Full) => {
                        refusals += 1;
                        env.sleep(Duration::from_millis(5)).await;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        };
        fill(50).await;
        assert_eq!(append(&log, 2, 2), Err(AppendError::Full));
        log.open_reserve();
        env.sleep(Duration::from_millis(50)).await;
        let of = |partition| tables.flushed()(partition);
        append(&log, 2, 2).unwrap();
        assert_eq!(log.has_room(10), Err(AppendError::Full), "for nothing new");
        assert!(log.spares_for_others(1, of(1)) && !log.spares_for_others(2, of(2)));
        append(&log, 2, 3).unwrap();
        settle(&log, &env, &mut acked, (2, 3)).await.unwrap();
        tables.flush(2, 3);
        // Until the log is sealed.
        env.sleep(Duration::from_millis(10)).await;
        log.recycle(&tables.flushed());
        assert_eq!(log.has_room(10), Ok(()));
        assert!(!log.spares_for_others(1, of(1)));
        log.close().await.unwrap();
    });
}

/// Appending over old entries frees their segments, but not before that can survive a crash.
#[test]
fn superseded_entries_are_kept_until_what_superseded_them_is_durable() {
    for by_snapshot in [false, true] {
        let mut world = SimWorld::new(6, SimOptions::default());
        let written = world
            .run(move |env| async move {
                let tables = Tables::default();
                let log = open(&env, small(), &tables).await.unwrap().log;
                let mut acked = BTreeMap::new();
                let mut index = 0;
                while log.stats().segments < 4 {
                    while append(&log, 1, index + 1).is_ok() {
                        index += 1;
                        if index % 8 == 0 {
                            break;
                        }
                    }
                    settle(&log, &env, &mut acked, (1, index)).await.unwrap();
                    env.sleep(Duration::from_millis(1)).await;
                }
                if by_snapshot {
                    let id = LogId { term: 2, index: 1 };
                    log.append_snapshot(1, id, 1, &[]).unwrap();
                } else {
                    append(&log, 1, 1).unwrap();
                }
                log.recycle(&tables.flushed());
                assert!(log.stats().segments >= 4, "nothing is durable yet");
                index
            })
            .unwrap();
        world.crash();
        let last = world
            .run(move |env| async move {
                let tables = Tables::default();
                let opened = open(&env, small(), &tables).await.unwrap();
                opened.last[&1]
            })
            .unwrap();
        assert_eq!(last, written);
    }
}

/// What is superseded in one segment says nothing of the segments behind it, after a restart either.
#[test]
fn a_restart_keeps_what_came_after_superseded_entries() {
    sim::run(10, SimOptions::default(), |env| async move {
        let tables = Tables::default();
        let log = open(&env, small(), &tables).await.unwrap().log;
        let mut acked = BTreeMap::new();
        append(&log, 1, 1).unwrap();
        append(&log, 1, 2).unwrap();
        append(&log, 1, 1).unwrap();
        let mut index = 1;
        while log.stats().segments < 4 {
            match append(&log, 1, index + 1) {
                Ok(_) => index += 1,
                Err(AppendError::Full) => env.sleep(Duration::from_millis(1)).await,
                Err(error) => panic!("{error}"),
            }
            settle(&log, &env, &mut acked, (1, index)).await.unwrap();
        }
        log.close().await.unwrap();
        let log = open(&env, small(), &tables).await.unwrap().log;
        let segments = log.stats().segments;
        log.recycle(&tables.flushed());
        assert_eq!(log.stats().segments, segments, "nothing is in tables");
        log.close().await.unwrap();
        let opened = open(&env, small(), &tables).await.unwrap();
        assert_eq!(opened.last[&1], index);
        opened.log.close().await.unwrap();
    });
}
