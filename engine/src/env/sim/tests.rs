use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::env::{AlignedBuf, Disk, DiskErrorKind, DiskFile, Env, FileClass, SECTOR, TaskClass};

fn block(byte: u8, sectors: usize) -> AlignedBuf {
    let mut buf = AlignedBuf::zeroed(sectors * SECTOR);
    buf.fill(byte);
    buf
}

async fn put(file: &SimFile, sector: u64, byte: u8) {
    let offset = sector * SECTOR as u64;
    file.write_at(offset, block(byte, 1)).await.0.unwrap();
}

async fn get(file: &SimFile, sector: u64) -> u8 {
    let bytes = file.read_at(sector * SECTOR as u64, SECTOR).await.unwrap();
    bytes[0]
}

/// A file named `path` of one sector of `byte`, all of it durable.
async fn durable_file(env: &SimEnv, path: &str, class: FileClass, byte: u8) -> SimFile {
    let file = env.disk().create(Path::new(path), class).await.unwrap();
    put(&file, 0, byte).await;
    file.sync().await.unwrap();
    env.disk().sync_dir(Path::new("")).await.unwrap();
    file
}

#[test]
fn time_is_virtual_and_tasks_run() {
    let order = run(1, SimOptions::default(), |env| async move {
        let order = Rc::new(RefCell::new(Vec::new()));
        for n in [3_u64, 1, 2] {
            let (env2, order) = (env.clone(), order.clone());
            env.spawn(TaskClass::Background, async move {
                env2.sleep(Duration::from_secs(n)).await;
                order.borrow_mut().push(n);
            });
        }
        env.sleep(Duration::from_secs(10)).await;
        assert!(env.now() >= Duration::from_secs(10));
        order.borrow().clone()
    });
    assert_eq!(order, [1, 2, 3]);
}

#[test]
fn a_deadlock_is_reported() {
    let mut world = SimWorld::new(7, SimOptions::default());
    let stop = world.run(|env| async move {
        env.spawn(TaskClass::Log, std::future::pending());
        std::future::pending::<()>().await;
    });
    assert!(matches!(stop, Err(Stop::Deadlock { tasks: 1, .. })));
}

#[test]
#[should_panic(expected = "seed 99: deadlock")]
fn a_deadlock_names_the_seed() {
    run(99, SimOptions::default(), |_| std::future::pending::<()>());
}

#[test]
fn a_busy_task_meets_the_step_limit() {
    let options = SimOptions {
        steps_max: 1000,
        ..SimOptions::default()
    };
    let stop = SimWorld::new(7, options).run(|env| async move {
        loop {
            env.yield_now().await;
        }
    });
    assert_eq!(stop, Err::<(), _>(Stop::TooManySteps { steps: 1000 }));
}

#[test]
fn slices_end() {
    run(3, SimOptions::default(), |env| async move {
        let done = Rc::new(Cell::new(false));
        let (env2, done2) = (env.clone(), done.clone());
        env.spawn(TaskClass::Background, async move {
            env2.sleep(Duration::from_micros(10)).await;
            done2.set(true);
        });
        while !done.get() {
            env.yield_if_needed().await;
        }
    });
}

/// Concurrent work on the disk, for comparing runs.
fn busy(seed: u64) -> (u64, u64) {
    let mut world = SimWorld::new(seed, SimOptions::default());
    world
        .run(|env| async move {
            let left = Rc::new(Cell::new(8));
            for task in 0..8_u8 {
                let (env2, left) = (env.clone(), left.clone());
                env.spawn(TaskClass::Flush, async move {
                    let path = format!("f{task}");
                    let file = durable_file(&env2, &path, FileClass::Table, task).await;
                    for sector in 0..8 {
                        put(&file, sector, task).await;
                    }
                    left.set(left.get() - 1);
                });
            }
            while left.get() > 0 {
                env.sleep(Duration::from_micros(50)).await;
            }
        })
        .unwrap();
    (world.trace_hash(), world.steps())
}

#[test]
fn a_seed_replays_exactly() {
    assert_eq!(busy(5), busy(5));
    assert_ne!(busy(5), busy(6));
}

#[test]
fn names_behave_like_names() {
    run(2, SimOptions::default(), |env| async move {
        let disk = env.disk();
        disk.create_dir_all(Path::new("d/e")).await.unwrap();
        let missing = disk.create(Path::new("x/y"), FileClass::Table).await;
        assert_eq!(missing.err().unwrap().kind, DiskErrorKind::NotFound);
        let a = disk.create(Path::new("d/a"), FileClass::Table).await;
        let a = a.unwrap();
        let again = disk.create(Path::new("d/a"), FileClass::Table).await;
        assert_eq!(again.err().unwrap().kind, DiskErrorKind::AlreadyExists);
        put(&a, 0, 1).await;
        let b = disk.create(Path::new("d/b"), FileClass::Table).await;
        put(&b.unwrap(), 0, 2).await;
        let names = disk.list(Path::new("d")).await.unwrap();
        let expected = ["d/a", "d/b", "d/e"].map(|n| Path::new(n).to_path_buf());
        assert_eq!(names, expected);

        disk.rename(Path::new("d/b"), Path::new("d/a"))
            .await
            .unwrap();
        assert_eq!(get(&a, 0).await, 1, "the open handle keeps the old file");
        let now = disk.open(Path::new("d/a"), FileClass::Table).await.unwrap();
        assert_eq!(get(&now, 0).await, 2);
        disk.remove(Path::new("d/a")).await.unwrap();
        assert_eq!(get(&now, 0).await, 2);
        let gone = disk.open(Path::new("d/a"), FileClass::Table).await;
        assert_eq!(gone.err().unwrap().kind, DiskErrorKind::NotFound);
    });
}

#[test]
fn lengths_and_holes() {
    run(2, SimOptions::default(), |env| async move {
        let file = env.disk().create(Path::new("f"), FileClass::Manifest).await;
        let file = file.unwrap();
        put(&file, 2, 9).await;
        assert_eq!(file.len().await.unwrap(), 3 * SECTOR as u64);
        assert_eq!(get(&file, 0).await, 0);
        assert_eq!(file.read_at(0, 8 * SECTOR).await.unwrap().len(), 3 * SECTOR);
        file.set_len(2 * SECTOR as u64 + 100).await.unwrap();
        let tail = file.read_at(2 * SECTOR as u64, SECTOR).await.unwrap();
        assert_eq!(tail, vec![9; 100]);
        file.set_len(3 * SECTOR as u64).await.unwrap();
        let tail = file.read_at(2 * SECTOR as u64, SECTOR).await.unwrap();
        assert_eq!((tail[99], tail[100], tail.len()), (9, 0, SECTOR));
    });
}

#[test]
fn space_is_counted_and_comes_back() {
    let options = SimOptions {
        capacity_bytes: 4 * SECTOR as u64,
        ..SimOptions::default()
    };
    run(2, options, |env| async move {
        let disk = env.disk();
        let file = disk.create(Path::new("f"), FileClass::Log).await.unwrap();
        file.write_at(0, block(1, 4)).await.0.unwrap();
        assert_eq!(disk.free_bytes(Path::new("")).await.unwrap(), 0);
        let full = file.write_at(4 * SECTOR as u64, block(1, 1)).await.0;
        assert_eq!(full.err().unwrap().kind, DiskErrorKind::NoSpace);
        file.write_at(0, block(2, 4)).await.0.unwrap();
        disk.remove(Path::new("f")).await.unwrap();
        assert_eq!(
            disk.free_bytes(Path::new("")).await.unwrap(),
            0,
            "still open"
        );
        drop(file);
        assert_eq!(
            disk.free_bytes(Path::new("")).await.unwrap(),
            4 * SECTOR as u64
        );
    });
}

#[test]
fn what_is_synced_survives_every_cut_and_the_rest_varies() {
    let mut seen = Counts::default();
    for seed in 0..300 {
        let mut world = SimWorld::new(seed, SimOptions::default());
        let stop = world.run(|env| async move {
            let disk = env.disk();
            let file = durable_file(&env, "f", FileClass::Table, 1).await;
            put(&file, 0, 2).await;
            put(&file, 1, 2).await;
            put(&file, 0, 3).await;
            put(&file, 2, 3).await;
            let log = durable_file(&env, "log", FileClass::Log, 1).await;
            put(&log, 0, 2).await;
            disk.create(Path::new("new"), FileClass::Table)
                .await
                .unwrap();
            env.crash();
            std::future::pending::<()>().await;
        });
        assert_eq!(stop, Err(Stop::Crashed), "seed {seed}");
        world
            .restart(|env| async move {
                let open = |path, class| env.disk().open(Path::new(path), class);
                let file = open("f", FileClass::Table).await.unwrap();
                let first = file.read_at(0, SECTOR).await.unwrap();
                assert!(first.iter().all(|b| (1..=3).contains(b)), "seed {seed}");
                let log = open("log", FileClass::Log).await.unwrap();
                assert_eq!(get(&log, 0).await, 2, "seed {seed}");
            })
            .unwrap();
        seen.merge(&world.counts());
    }
    for fault in [
        Fault::PowerCut,
        Fault::SectorLost,
        Fault::SectorKept,
        Fault::SectorTorn,
        Fault::Reordered,
        Fault::NameLost,
        Fault::NameKept,
        Fault::LengthLost,
    ] {
        assert!(seen.of(fault) > 0, "{fault} never happened");
    }
}

#[test]
fn log_writes_under_way_at_a_cut_are_done_in_any_part() {
    let mut later_without_earlier = 0;
    for seed in 0..200 {
        let mut world = SimWorld::new(seed, SimOptions::default());
        world.store().crash_at_io(
            IoMatch {
                op: Some(IoOp::Write),
                class: Some(FileClass::Log),
                ..IoMatch::default()
            },
            4,
        );
        let stop = world.run(|env| async move {
            let log = durable_file(&env, "log", FileClass::Log, 1).await;
            for sector in 1..4 {
                let log = log.clone();
                env.spawn(TaskClass::Log, async move { put(&log, sector, 2).await });
            }
            std::future::pending::<()>().await;
        });
        assert_eq!(stop, Err(Stop::Crashed), "seed {seed}");
        assert!(!world.store().in_flight().is_empty(), "seed {seed}");
        world
            .restart(|env| async move {
                let log = env.disk().open(Path::new("log"), FileClass::Log).await;
                let log = log.unwrap();
                assert_eq!(get(&log, 0).await, 1, "seed {seed}");
            })
            .unwrap();
        let log = world.store().content(Path::new("log")).unwrap();
        let there = |sector: usize| log.get(sector * SECTOR + 7) == Some(&2);
        later_without_earlier += u32::from(there(2) && !there(1));
    }
    assert!(later_without_earlier > 0);
}

#[test]
fn a_kill_keeps_completed_writes() {
    for seed in 0..50 {
        let mut world = SimWorld::new(seed, SimOptions::default());
        world
            .run(|env| async move {
                let file = env.disk().create(Path::new("f"), FileClass::Table).await;
                put(&file.unwrap(), 0, 5).await;
            })
            .unwrap();
        world.kill();
        assert_eq!(world.store().content(Path::new("f")).unwrap()[0], 5);
    }
}

#[test]
fn faults_strike_are_counted_and_heal() {
    let strike = |fault| {
        run(11, SimOptions::default(), |env| async move {
            let file = durable_file(&env, "f", FileClass::Manifest, 1).await;
            let other = durable_file(&env, "g", FileClass::Manifest, 8).await;
            env.store()
                .set_faults(vec![FaultRule::new(fault, 1).at_most(1)]);
            let written = file.write_at(0, block(2, 1)).await.0.is_ok();
            let synced = file.sync().await.is_ok();
            let read = file.read_at(0, SECTOR).await.ok();
            let again = file.read_at(0, SECTOR).await.ok();
            assert_eq!(env.store().counts().of(fault), 1, "{fault}");
            env.store().heal();
            let healed = get(&file, 0).await;
            assert_eq!(get(&other, 0).await, 8);
            (written, synced, read, again, healed)
        })
    };
    let twos = Some(vec![2; SECTOR]);
    let (.., read, again, _) = strike(Fault::ReadError);
    assert_eq!((read, again), (None, twos.clone()));
    let (.., read, again, healed) = strike(Fault::ReadErrorSticky);
    assert_eq!((read, again, healed), (None, None, 2));
    let (written, synced, ..) = strike(Fault::WriteError);
    assert_eq!((written, synced), (false, true));
    let (written, synced, ..) = strike(Fault::WriteErrorSticky);
    assert_eq!((written, synced), (false, false));
    let (written, synced, ..) = strike(Fault::SyncError);
    assert_eq!((written, synced), (true, false));
    let (written, ..) = strike(Fault::NoSpace);
    assert!(!written);
    for fault in [Fault::LostWrite, Fault::MisdirectedWrite] {
        let (written, synced, read, again, healed) = strike(fault);
        assert_eq!((written, synced, healed), (true, true, 2));
        assert_eq!(
            (read, again),
            (Some(vec![1; SECTOR]), Some(vec![1; SECTOR]))
        );
    }
    let (.., read, again, healed) = strike(Fault::BitFlip);
    let flipped = |bytes: Option<Vec<u8>>| bytes.unwrap().iter().filter(|b| **b != 2).count();
    assert_eq!((flipped(read), flipped(again), healed), (1, 1, 2));
    strike(Fault::LatencySpike);
}

#[test]
fn a_failed_sync_loses_what_the_next_one_cannot_bring_back() {
    let mut lost = 0;
    for seed in 0..40 {
        let mut world = SimWorld::new(seed, SimOptions::default());
        world
            .run(|env| async move {
                let file = durable_file(&env, "f", FileClass::Manifest, 1).await;
                put(&file, 0, 2).await;
                env.store()
                    .set_faults(vec![FaultRule::new(Fault::SyncError, 1).at_most(1)]);
                assert!(file.sync().await.is_err());
                assert!(file.sync().await.is_ok());
            })
            .unwrap();
        world.crash();
        lost += u32::from(world.store().content(Path::new("f")).unwrap()[0] == 1);
    }
    assert!(lost > 0);
}

#[test]
fn it_is_known_where_a_misdirected_write_fell() {
    let mut elsewhere = 0;
    for seed in 0..20 {
        let mut world = SimWorld::new(seed, SimOptions::default());
        world
            .run(|env| async move {
                durable_file(&env, "f", FileClass::Manifest, 1).await;
                let other = durable_file(&env, "g", FileClass::Manifest, 1).await;
                env.store()
                    .set_faults(vec![FaultRule::new(Fault::MisdirectedWrite, 1).at_most(1)]);
                put(&other, 0, 2).await;
            })
            .unwrap();
        let strays = world.store().strays();
        let [stray] = &strays[..] else {
            panic!("{strays:?}");
        };
        if !stray.sectors.is_empty() {
            let hit = world.store().content(&stray.path).unwrap();
            assert_eq!(hit[stray.sectors[0] * SECTOR], 2);
            elsewhere += u32::from(stray.path == Path::new("f"));
        }
        world.store().heal();
        assert_eq!(world.store().strays(), strays);
    }
    assert!(elsewhere > 0);
}
