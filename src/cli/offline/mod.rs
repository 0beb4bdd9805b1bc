//! The engine without a server: one thread, ordinary files, one thing after the other.
//!
//! `inspect` and `recore` read data folders that no server uses. They need neither speed nor
//! io_uring, so the engine gets an [`Env`] of plain system calls here: every disk operation is done
//! when its future is first polled, and tasks take turns on the thread that runs [`block_on`].

use std::cell::RefCell;
use std::future::Future;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringbolt_engine::env::{Env, TaskClass};

mod disk;

pub use disk::{Access, PlainDisk};

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// The plain world.
#[derive(Clone)]
pub struct PlainEnv {
    inner: Rc<Inner>,
}

struct Inner {
    disk: PlainDisk,
    /// Tasks that are not being polled right now.
    tasks: RefCell<Vec<Task>>,
    start: Instant,
}

/// Whether a task has been woken in this turn; which one does not matter, all are polled.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl PlainEnv {
    /// A world whose files may be used as `access` says.
    #[must_use]
    pub fn new(access: Access) -> Self {
        Self {
            inner: Rc::new(Inner {
                disk: PlainDisk::new(access),
                tasks: RefCell::default(),
                start: Instant::now(),
            }),
        }
    }

    /// Runs a future to its end, and the tasks that it starts as far as they get meanwhile.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        loop {
            woken.0.store(false, Ordering::Relaxed);
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return output;
            }
            let turn = std::mem::take(&mut *self.inner.tasks.borrow_mut());
            for mut task in turn {
                if task.as_mut().poll(&mut context).is_pending() {
                    self.inner.tasks.borrow_mut().push(task);
                }
            }
            if !woken.0.load(Ordering::Relaxed) {
                // Nobody waits for anybody else: only for time to pass.
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

impl Env for PlainEnv {
    type Disk = PlainDisk;

    fn disk(&self) -> &PlainDisk {
        &self.inner.disk
    }

    fn spawn(&self, _class: TaskClass, task: impl Future<Output = ()> + 'static) {
        // It may be spawned in the middle of a turn: then its first poll is in the next.
        self.inner.tasks.borrow_mut().push(Box::pin(task));
    }

    async fn yield_if_needed(&self) {}

    fn should_yield(&self) -> bool {
        false
    }

    async fn sleep(&self, duration: Duration) {
        let until = Instant::now() + duration;
        std::future::poll_fn(|_| match Instant::now() >= until {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    fn now(&self) -> Duration {
        self.inner.start.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |time| {
            u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
        })
    }

    fn random(&self) -> u64 {
        // The standard library seeds each of these anew.
        RandomState::new().build_hasher().finish()
    }
}

#[cfg(test)]
mod tests {
    use ringbolt_engine::env::{AlignedBuf, Disk as _, DiskErrorKind, DiskFile as _, FileClass};

    use super::*;

    #[test]
    fn tasks_and_sleeps_take_turns() {
        let env = PlainEnv::new(Access::Read);
        let log = Rc::new(RefCell::new(Vec::new()));
        let (task_env, task_log) = (env.clone(), Rc::clone(&log));
        env.spawn(TaskClass::Background, async move {
            task_env.sleep(Duration::from_millis(2)).await;
            task_log.borrow_mut().push("task");
        });
        env.block_on(async {
            while log.borrow().is_empty() {
                env.sleep(Duration::from_millis(1)).await;
            }
            log.borrow_mut().push("main");
        });
        assert_eq!(*log.borrow(), ["task", "main"]);
        assert_ne!(env.random(), env.random());
    }

    #[test]
    fn files_are_written_read_and_renamed() {
        let folder = tempfile::tempdir().unwrap();
        let env = PlainEnv::new(Access::Write);
        env.block_on(async {
            let disk = env.disk();
            let inner = folder.path().join("a/b");
            disk.create_dir_all(&inner).await.unwrap();
            let path = inner.join("file");
            let file = disk.create(&path, FileClass::Log).await.unwrap();
            let again = disk.create(&path, FileClass::Log).await;
            assert!(again.is_err_and(|e| e.kind == DiskErrorKind::AlreadyExists));
            let mut block = AlignedBuf::zeroed(8192);
            block.fill(7);
            let (written, _) = file.write_at(4096, block).await;
            written.unwrap();
            file.sync().await.unwrap();
            assert_eq!(file.len().await.unwrap(), 12288);
            assert_eq!(*file.read_at(8192, 8192).await.unwrap(), [7; 4096]);
            let to = inner.join("other");
            disk.rename(&path, &to).await.unwrap();
            disk.sync_dir(&inner).await.unwrap();
            assert_eq!(disk.list(&inner).await.unwrap(), std::slice::from_ref(&to));
            assert!(disk.free_bytes(&inner).await.unwrap() > 0);
            disk.remove(&to).await.unwrap();
            let gone = disk.open(&to, FileClass::Log).await;
            assert!(gone.is_err_and(|e| e.kind == DiskErrorKind::NotFound));
        });
    }

    #[test]
    fn a_reader_writes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, [1; 4096]).unwrap();
        let env = PlainEnv::new(Access::Read);
        env.block_on(async {
            let refused = |e: ringbolt_engine::env::DiskError| e.kind == DiskErrorKind::Refused;
            let disk = env.disk();
            let file = disk.open(&path, FileClass::Log).await.unwrap();
            let (written, _) = file.write_at(0, AlignedBuf::zeroed(4096)).await;
            assert!(written.is_err());
            assert!(disk.remove(&path).await.is_err_and(refused));
            assert!(disk.create(&path, FileClass::Log).await.is_err_and(refused));
            assert!(disk.rename(&path, &path).await.is_err_and(refused));
        });
        assert_eq!(std::fs::read(&path).unwrap(), [1; 4096]);
    }
}
