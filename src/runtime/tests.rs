//! Cores with real rings, files and sockets.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ringbolt_engine::env::{
    AlignedBuf, Disk, DiskErrorKind, DiskFile, Env, FileClass, SECTOR, TaskClass,
};
use ringbolt_ring::{Event, Ring, RingConfig};

use super::{
    CoreOptions, Durability, Handler, LaunchError, LaunchOptions, RealEnv, Turn, launch, probe,
};

fn options(cores: usize) -> LaunchOptions {
    LaunchOptions {
        cpus: vec![None; cores],
        core: CoreOptions {
            ring: RingConfig {
                entries: 64,
                cq_entries: 1024,
                buffers: 64,
                buffer_bytes: 1024,
                ..RingConfig::default()
            },
            ..CoreOptions::default()
        },
    }
}

/// Runs one core's main to its end.
fn on_a_core<T, F>(options: &LaunchOptions, main: fn(RealEnv) -> F) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    let mut outcomes = launch(options, main).unwrap().join();
    outcomes.pop().unwrap().unwrap()
}

/// Waits for a condition by sleeping, as a task would.
async fn until(env: &RealEnv, condition: impl Fn() -> bool) {
    while !condition() {
        env.sleep(Duration::from_micros(200)).await;
    }
}

#[test]
fn time_goes_on_and_sleeps_end_in_the_order_of_their_deadlines() {
    on_a_core(&options(1), |env| async move {
        let began = env.now();
        let order = Rc::new(RefCell::new(Vec::new()));
        for ms in [180u64, 60, 120] {
            let (env2, order) = (env.clone(), Rc::clone(&order));
            env.spawn(TaskClass::Foreground, async move {
                env2.sleep(Duration::from_millis(ms)).await;
                assert!(env2.now() >= began + Duration::from_millis(ms));
                order.borrow_mut().push(ms);
            });
        }
        // Dropped before its time: it leaves nothing behind.
        drop(Box::pin(env.sleep(Duration::from_secs(3600))));
        until(&env, || order.borrow().len() == 3).await;
        assert_eq!(*order.borrow(), [60, 120, 180]);
        assert!(env.wall_ms() > 1_700_000_000_000);
        assert_ne!(env.random(), env.random());
    });
}

#[test]
fn a_spawned_task_does_not_run_before_spawn_returns() {
    on_a_core(&options(1), |env| async move {
        for class in [
            TaskClass::Foreground,
            TaskClass::Log,
            TaskClass::Flush,
            TaskClass::CompactL0,
            TaskClass::Background,
        ] {
            let ran = Rc::new(Cell::new(false));
            let seen = Rc::clone(&ran);
            env.spawn(class, async move { seen.set(true) });
            assert!(!ran.get());
            until(&env, || ran.get()).await;
        }
    });
}

#[test]
fn a_busy_background_task_gives_way_and_is_not_forgotten() {
    on_a_core(&options(1), |env| async move {
        let steps = Rc::new(Cell::new(0u64));
        let stop = Rc::new(Cell::new(false));
        for class in [TaskClass::Background, TaskClass::CompactL0] {
            let (env2, steps, stop) = (env.clone(), Rc::clone(&steps), Rc::clone(&stop));
            env.spawn(class, async move {
                while !stop.get() {
                    steps.set(steps.get() + 1);
                    std::hint::black_box((0..1000u64).sum::<u64>());
                    env2.yield_if_needed().await;
                }
                steps.set(u64::MAX);
            });
        }
        // The foreground goes on beside them, and they beside it.
        for _ in 0..20 {
            let before = steps.get();
            env.sleep(Duration::from_millis(1)).await;
            until(&env, || steps.get() > before).await;
        }
        stop.set(true);
        until(&env, || steps.get() == u64::MAX).await;
    });
}

#[test]
fn a_foreground_task_that_never_ends_its_work_lets_timers_through() {
    on_a_core(&options(1), |env| async move {
        let stop = Rc::new(Cell::new(false));
        let (env2, stop2) = (env.clone(), Rc::clone(&stop));
        env.spawn(TaskClass::Foreground, async move {
            while !stop2.get() {
                env2.yield_if_needed().await;
            }
        });
        env.sleep(Duration::from_millis(5)).await;
        stop.set(true);
    });
}

/// A directory on a file system with direct I/O: `/tmp` may be memory.
fn disk_dir() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap()
}

async fn use_files(env: RealEnv, dir: std::path::PathBuf) {
    let disk = env.disk();
    for class in [FileClass::Log, FileClass::Table, FileClass::Manifest] {
        let path = dir.join(format!("{class:?}"));
        let file = disk.create(&path, class).await.unwrap();
        let again = disk.create(&path, class).await.map(drop).unwrap_err();
        assert_eq!(again.kind, DiskErrorKind::AlreadyExists);
        // Several at once, the log's way: the buffer stays readable while it is written.
        let mut writes = Vec::new();
        for i in 0..4u8 {
            let mut buf = AlignedBuf::zeroed(2 * SECTOR);
            buf.fill(i + 1);
            let shared = buf.share(2 * SECTOR);
            assert_eq!(buf[0], i + 1);
            writes.push((i, buf, shared));
        }
        for (i, buf, shared) in writes {
            let (result, back) = file.write_at(u64::from(i) * 8192, shared).await;
            result.unwrap();
            assert_eq!((back[0], back.len()), (i + 1, 8192));
            drop(back);
            assert!(buf.is_unique());
        }
        file.sync().await.unwrap();
        assert_eq!(file.len().await.unwrap(), 4 * 8192);
        for (offset, len, want) in [(0, 4096, 4096), (8192, 16384, 16384), (28672, 8192, 4096)] {
            let bytes = file.read_at(offset, len).await.unwrap();
            assert_eq!(bytes.len(), want);
            assert!(bytes.iter().all(|b| u64::from(*b) > offset / 8192));
        }
        assert_eq!(file.read_at(1 << 20, 4096).await.unwrap().len(), 0);
        file.set_len(4096).await.unwrap();
        assert_eq!(file.len().await.unwrap(), 4096);
        file.set_len(1 << 21).await.unwrap();
        let whole = file.read_at(0, 1 << 21).await.unwrap();
        assert_eq!((whole.len(), whole[4095], whole[4096]), (1 << 21, 1, 0));

        let renamed = dir.join(format!("{class:?}-2"));
        disk.rename(&path, &renamed).await.unwrap();
        disk.sync_dir(&dir).await.unwrap();
        let missing = disk.open(&path, class).await.map(drop).unwrap_err();
        assert_eq!(missing.kind, DiskErrorKind::NotFound);
        let opened = disk.open(&renamed, class).await.unwrap();
        let (result, _) = opened.write_at(0, AlignedBuf::zeroed(SECTOR)).await;
        assert_eq!(result.is_ok(), class != FileClass::Table, "{result:?}");
    }
    assert_eq!(disk.list(&dir).await.unwrap().len(), 3);
    assert!(disk.free_bytes(&dir).await.unwrap() > 0);
    disk.remove(&dir.join("Log-2")).await.unwrap();
    disk.create_dir_all(&dir.join("a/b")).await.unwrap();
    assert_eq!(disk.list(&dir).await.unwrap().len(), 3);
    assert!(disk.list(Path::new("/nowhere/at/all")).await.is_err());
    assert_eq!(env.files_pending(), 0);
}

#[test]
fn files_are_written_read_renamed_and_removed_in_both_durability_modes() {
    for durability in [Durability::Dsync, Durability::WriteDatasync] {
        let dir = disk_dir();
        let path = dir.path().to_path_buf();
        let mut options = options(1);
        options.core.durability = durability;
        let main = move |env: RealEnv| use_files(env, path.clone());
        for outcome in launch(&options, main).unwrap().join() {
            outcome.unwrap();
        }
    }
}

#[test]
fn a_write_whose_future_is_dropped_is_finished_before_the_core_ends() {
    let dir = disk_dir();
    let path = dir.path().join("log");
    let file = path.clone();
    let main = move |env: RealEnv| {
        let path = path.clone();
        async move {
            let file = env.disk().create(&path, FileClass::Log).await.unwrap();
            let mut buf = AlignedBuf::zeroed(SECTOR);
            buf.fill(7);
            let mut write = Box::pin(file.write_at(0, buf));
            // One poll starts it; then nobody waits for it.
            let started = std::future::poll_fn(|cx| {
                std::task::Poll::Ready(write.as_mut().poll(cx).is_pending())
            });
            assert!(started.await);
        }
    };
    for outcome in launch(&options(1), main).unwrap().join() {
        outcome.unwrap();
    }
    assert_eq!(std::fs::read(file).unwrap(), [7; SECTOR]);
}

type Reply = (ringbolt_ring::ConnId, Vec<u8>);

/// Adds one to what it receives, in a foreground task; posts go to the other core.
struct Relay {
    env: RealEnv,
    replies: Rc<RefCell<Vec<Reply>>>,
    mail: Arc<[AtomicU64]>,
    taken: u64,
}

impl Handler for Relay {
    fn on_event(&mut self, ring: &mut Ring, event: Event) {
        match event {
            Event::Accepted { socket, .. } => {
                ring.adopt(socket).unwrap();
            }
            Event::Data { conn, bytes } => {
                let (env, replies) = (self.env.clone(), Rc::clone(&self.replies));
                let mut bytes = bytes.to_vec();
                self.env.spawn(TaskClass::Foreground, async move {
                    env.yield_if_needed().await;
                    bytes.iter_mut().for_each(|byte| *byte += 1);
                    replies.borrow_mut().push((conn, bytes));
                });
                let other = 1 - self.env.core_index();
                self.mail[other].fetch_add(1, Ordering::SeqCst);
                ring.wake(&self.env.wakers()[other]);
            }
            Event::Eof { conn } | Event::Failed { conn, .. } => ring.close(conn),
            _ => {}
        }
    }

    fn turn_end(&mut self, ring: &mut Ring) -> Turn {
        let mine = &self.mail[self.env.core_index()];
        self.taken += mine.swap(0, Ordering::SeqCst);
        let mut left = Vec::new();
        for (conn, reply) in self.replies.borrow_mut().drain(..) {
            if ring.can_send(conn) {
                ring.send(conn, reply).unwrap();
            } else {
                left.push((conn, reply));
            }
        }
        *self.replies.borrow_mut() = left;
        Turn::Idle
    }

    fn has_mail(&self) -> bool {
        self.mail[self.env.core_index()].load(Ordering::SeqCst) > 0
    }
}

#[test]
fn two_cores_serve_sockets_through_tasks_and_wake_each_other() {
    let (tell, told) = std::sync::mpsc::channel();
    let mail: Arc<[AtomicU64]> = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    const ROUNDS: u64 = 200;
    let over = Arc::new(AtomicBool::new(false));
    let clients_end = Arc::clone(&over);
    let main = move |env: RealEnv| {
        let (tell, mail, over) = (tell.clone(), Arc::clone(&mail), Arc::clone(&over));
        async move {
            let relay = Rc::new(RefCell::new(Relay {
                env: env.clone(),
                replies: Rc::default(),
                mail,
                taken: 0,
            }));
            env.install(relay.clone());
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            env.with_ring(|ring| ring.listen(listener.into()));
            until(&env, || over.load(Ordering::SeqCst)).await;
            until(&env, || relay.borrow().taken == ROUNDS).await;
            env.stats()
        }
    };
    let cores = launch(&options(2), main).unwrap();
    let clients: Vec<_> = (0..2)
        .map(|_| {
            let addr = told.recv().unwrap();
            std::thread::spawn(move || {
                let mut client = TcpStream::connect(addr).unwrap();
                for round in 0..ROUNDS as u8 {
                    client.write_all(&[round]).unwrap();
                    let mut reply = [0];
                    client.read_exact(&mut reply).unwrap();
                    assert_eq!(reply, [round + 1]);
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    clients_end.store(true, Ordering::SeqCst);
    for outcome in cores.join() {
        let stats = outcome.unwrap();
        assert_eq!((stats.ring.strays, stats.ring.overflows), (0, 0));
        assert!(stats.task_runs > 0 && stats.turns >= stats.busy_turns);
    }
}

#[test]
fn a_core_that_cannot_start_is_an_error_and_no_main_runs() {
    let ran = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&ran);
    let mut bad = options(2);
    bad.core.ring.buffers = 3;
    let main = move |_: RealEnv| {
        let seen = Arc::clone(&seen);
        async move {
            seen.fetch_add(1, Ordering::SeqCst);
        }
    };
    let refused = launch(&bad, main.clone()).map(drop);
    assert!(matches!(refused, Err(LaunchError::Ring { core: 0, .. })));
    let mut bad = options(1);
    bad.cpus.push(Some(100_000));
    let refused = launch(&bad, main).map(drop);
    assert!(
        matches!(refused, Err(LaunchError::Executor { core: 1, .. })),
        "{refused:?}"
    );
    assert_eq!(ran.load(Ordering::SeqCst), 0);
}

#[test]
fn the_probes_answer() {
    probe::io_uring().unwrap();
    assert!(probe::memory_lock(2).needed > probe::memory_lock(1).needed);
    let dir = disk_dir();
    let report = probe::durability(dir.path(), Duration::from_millis(5)).unwrap();
    assert!(report.samples >= 10 && report.dsync_p50 > Duration::ZERO);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    assert_eq!(Durability::from_name(report.mode.name()), Some(report.mode));
    assert_eq!(Durability::from_name("none"), None);
    let file = dir.path().join("f");
    std::fs::write(&file, [0; 4096]).unwrap();
    if let Some(alignment) = probe::direct_alignment(&file).unwrap() {
        assert!(alignment.suits_engine(), "{alignment:?}");
    }
    assert!(probe::free_bytes(dir.path()).unwrap() > 0);
    probe::refuse_memory_file_system(dir.path()).unwrap();
    let shm = Path::new("/dev/shm");
    if shm.is_dir() {
        let refused = probe::refuse_memory_file_system(shm).unwrap_err();
        assert_eq!(refused.kind, DiskErrorKind::Refused);
    }
    let nowhere = probe::durability(Path::new("/nowhere"), Duration::ZERO).unwrap_err();
    assert_eq!(nowhere.kind, DiskErrorKind::NotFound);
}
