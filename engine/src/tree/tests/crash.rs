//! Power cuts, kills and damage: nothing that was reported flushed is lost, nothing wrong is read.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::model::Model;
use super::walk::{Log, Walk, first_seed, open};
use crate::env::Env;
use crate::env::sim::{self, Fault, FaultRule, SimOptions, SimWorld};
use crate::error::EngineError;
use crate::row::{ReadAt, partition_range};
use crate::tree::TreeOptions;

type Reported = Rc<RefCell<BTreeMap<u16, u64>>>;

/// One life: opens what the last one left, compares, goes on until the crash.
async fn live(env: sim::SimEnv, seed: u64, log: Log, reported: Reported) {
    let mut walk = Walk::new(env, seed, 300, TreeOptions::tiny()).await;
    for entry in log.borrow().iter() {
        walk.model.apply(entry);
        let head = &entry.head;
        walk.model.indexes.insert(head.partition, head.id.index);
        walk.model.times.insert(head.partition, head.time_ms);
    }
    walk.entries = log;
    for (partition, index) in reported.borrow().iter() {
        let flushed = walk.tree.flushed(*partition).id.index;
        assert!(flushed >= *index, "partition {partition} was at {index}");
    }
    for (partition, applied) in walk.tree.flushed_all() {
        assert!(applied.id.index <= walk.model.indexes[&partition]);
    }
    walk.replay();
    walk.check_all().await;
    let hook = {
        let tree = walk.tree.clone();
        move || {
            for (partition, applied) in tree.flushed_all() {
                reported.borrow_mut().insert(partition, applied.id.index);
            }
        }
    };
    walk.tree.on_flushed(Rc::new(hook));
    walk.env.crash_after_steps(walk.rng.below(60_000));
    walk.run(4000).await;
}

#[test]
fn what_was_flushed_survives_power_cuts_and_kills() {
    let first = first_seed();
    let mut crashes = 0;
    for seed in first..first + 5 {
        println!("world of seed {seed}");
        let mut world = SimWorld::new(seed, SimOptions::default());
        let (log, reported) = (Log::default(), Reported::default());
        for life in 0..5 {
            let (log, reported) = (Rc::clone(&log), Rc::clone(&reported));
            let seed = seed + 1000 * life;
            let ended = world.run(move |env| live(env, seed, log, reported));
            match ended {
                Ok(()) => {}
                Err(sim::Stop::Crashed) => crashes += 1,
                Err(stop) => panic!("{stop}"),
            }
            match seed % 3 {
                0 => world.kill(),
                _ => world.crash(),
            }
        }
    }
    assert!(crashes > 5, "{crashes}");
}

/// With reads and writes failing at random, every answer is right or an error, and nothing hangs.
#[test]
fn faults_end_in_right_answers_or_typed_errors() {
    let first = first_seed();
    let faults = [
        Fault::ReadError,
        Fault::WriteError,
        Fault::SyncError,
        Fault::NameError,
        Fault::BitFlip,
        Fault::MisdirectedWrite,
        Fault::LostWrite,
    ];
    let mut errors = 0;
    for (seed, fault) in (first..).zip(faults.iter().cycle()).take(35) {
        println!("seed {seed}, {fault:?}");
        let failed = sim::run(seed, SimOptions::default(), |env| async move {
            let store = env.store().clone();
            let mut walk = Walk::new(env, seed, 500, TreeOptions::tiny()).await;
            store.set_faults(vec![FaultRule::new(*fault, 60)]);
            let mut failed = 0;
            for step in 0..3000 {
                if walk.tree.failure().is_some() {
                    break;
                }
                if walk.tree.pressure().stop {
                    walk.env.sleep(Duration::from_millis(50)).await;
                }
                walk.write();
                if step % 50 == 0 {
                    walk.env.sleep(Duration::from_millis(3)).await;
                    failed += compare(&walk, &walk.model).await;
                }
            }
            failed += u64::from(walk.tree.close().await.is_err());
            failed
        });
        errors += failed;
    }
    assert!(errors > 10, "{errors}");
}

/// Reads everything; an error is counted, a wrong answer is not accepted.
async fn compare(walk: &Walk, model: &Model) -> u64 {
    let mut failed = 0;
    for (row_key, row) in &model.rows {
        let partition = u16::from_be_bytes([row_key[0], row_key[1]]);
        let at = ReadAt::newest(model.time(partition));
        let expected = model.live(row_key, at.time_ms).map(|_| &row.value);
        match walk.tree.get(row_key, at).await {
            Ok(found) => assert_eq!(
                found.as_ref().map(|f| &f.value[..]),
                expected.map(|v| &v[..])
            ),
            Err(EngineError::Corrupt { file, .. }) => {
                assert!(crate::tree::table_id(&file).is_some());
                failed += 1;
            }
            Err(EngineError::Disk(_)) => failed += 1,
            Err(e) => panic!("{e}"),
        }
    }
    for partition in 0..3 {
        let (from, to) = partition_range(partition);
        let at = ReadAt::newest(model.time(partition));
        let mut rows = model
            .rows
            .range(from.clone()..to.clone())
            .filter(|(_, row)| !row.meta.expired_at(at.time_ms));
        let mut cursor = walk.tree.cursor(&from, &to, false, at);
        loop {
            match cursor.next().await {
                Ok(Some((key, _, value))) => {
                    let (expected, row) = rows.next().expect("there is no more");
                    assert_eq!((key, value), (&expected[..], &row.value[..]));
                }
                Ok(None) => {
                    assert!(rows.next().is_none());
                    break;
                }
                Err(_) => {
                    failed += 1;
                    break;
                }
            }
        }
    }
    failed
}

#[test]
fn a_table_that_is_not_the_one_that_was_written_is_refused_by_name() {
    let mut world = SimWorld::new(5, SimOptions::default());
    let made = world.run(|env| async move {
        let mut walk = Walk::new(env, 5, 100, TreeOptions::tiny()).await;
        (0..300).for_each(|_| walk.write());
        walk.tree.flush().await.expect("flushes");
        walk.tree.close().await.expect("closes");
    });
    made.expect("runs");
    let files = world.store().files();
    let (table, len) = files
        .iter()
        .find(|(path, _)| crate::tree::table_id(path).is_some())
        .cloned()
        .expect("a table");
    assert!(world.store().flip_bit(&table, len - 20, 3));
    let opened = world.restart(|env| async move {
        crate::tree::Tree::open(env, Path::new("shard/tree"), TreeOptions::tiny())
            .await
            .map(|_| ())
    });
    match opened.expect("runs") {
        Err(EngineError::Corrupt { file, .. }) => assert_eq!(file, table),
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_that_no_manifest_knows_are_removed() {
    sim::run(6, SimOptions::default(), |env| async move {
        use crate::env::{Disk, FileClass};
        let tree = open(&env, &TreeOptions::tiny()).await;
        tree.close().await.expect("closes");
        let stray = Path::new("shard/tree/0000000077.table");
        let disk = env.disk();
        disk.create(stray, FileClass::Table).await.expect("creates");
        let tree = open(&env, &TreeOptions::tiny()).await;
        let names = disk.list(Path::new("shard/tree")).await.expect("lists");
        assert!(!names.iter().any(|name| name == stray), "{names:?}");
        tree.close().await.expect("closes");
    });
}
