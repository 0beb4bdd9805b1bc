//! A plain environment for measuring: one thread, files read and written at once, no direct I/O.

use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::future::{Future, poll_fn};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use ringbolt_engine::env::{AlignedBuf, Disk, DiskError, DiskFile, Env, FileClass, TaskClass};

/// How long a task runs before `yield_if_needed` yields.
const SLICE: Duration = Duration::from_micros(500);

type Task = Pin<Box<dyn Future<Output = ()>>>;

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

type Tasks = Vec<(Arc<Flag>, Option<Task>)>;

#[derive(Clone)]
pub struct StdEnv(Rc<State>);

struct State {
    disk: StdDisk,
    start: Instant,
    slice: Cell<Instant>,
    tasks: RefCell<Tasks>,
    new: RefCell<Vec<Task>>,
    timers: RefCell<Vec<(Instant, Waker)>>,
    random: Cell<u64>,
}

impl StdEnv {
    pub fn new() -> Self {
        Self(Rc::new(State {
            disk: StdDisk::default(),
            start: Instant::now(),
            slice: Cell::new(Instant::now()),
            tasks: RefCell::default(),
            new: RefCell::default(),
            timers: RefCell::default(),
            random: Cell::new(1),
        }))
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.0.disk.written.get()
    }

    /// Runs `main` to its end, and beside it what it spawns, each in turn.
    pub fn block_on<T>(&self, main: impl Future<Output = T>) -> T {
        let mut main = pin!(main);
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&flag));
        loop {
            let mut idle = true;
            if flag.0.swap(false, Ordering::Relaxed) {
                idle = false;
                self.0.slice.set(Instant::now());
                if let Poll::Ready(value) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return value;
                }
            }
            for task in self.0.new.borrow_mut().drain(..) {
                let flag = Arc::new(Flag(AtomicBool::new(true)));
                self.0.tasks.borrow_mut().push((flag, Some(task)));
            }
            let count = self.0.tasks.borrow().len();
            for at in 0..count {
                let (flag, mut task) = {
                    let mut tasks = self.0.tasks.borrow_mut();
                    let (flag, task) = &mut tasks[at];
                    if !flag.0.swap(false, Ordering::Relaxed) {
                        continue;
                    }
                    let Some(task) = task.take() else { continue };
                    (Arc::clone(flag), task)
                };
                idle = false;
                self.0.slice.set(Instant::now());
                let waker = Waker::from(flag);
                if task
                    .as_mut()
                    .poll(&mut Context::from_waker(&waker))
                    .is_pending()
                {
                    self.0.tasks.borrow_mut()[at].1 = Some(task);
                }
            }
            self.0.tasks.borrow_mut().retain(|(_, task)| task.is_some());
            let now = Instant::now();
            self.0.timers.borrow_mut().retain(|(at, waker)| {
                if *at <= now {
                    waker.wake_by_ref();
                }
                *at > now
            });
            if idle {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }
}

impl Env for StdEnv {
    type Disk = StdDisk;

    fn disk(&self) -> &StdDisk {
        &self.0.disk
    }

    fn spawn(&self, _class: TaskClass, task: impl Future<Output = ()> + 'static) {
        self.0.new.borrow_mut().push(Box::pin(task));
    }

    async fn yield_if_needed(&self) {
        let mut yielded = !self.should_yield();
        poll_fn(|cx| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    fn should_yield(&self) -> bool {
        self.0.slice.get().elapsed() >= SLICE
    }

    async fn sleep(&self, duration: Duration) {
        let at = Instant::now() + duration;
        poll_fn(|cx| {
            if Instant::now() >= at {
                return Poll::Ready(());
            }
            self.0.timers.borrow_mut().push((at, cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    fn now(&self) -> Duration {
        self.0.start.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        self.now().as_millis() as u64
    }

    fn random(&self) -> u64 {
        let next = self.0.random.get().wrapping_mul(6_364_136_223_846_793_005) | 1;
        self.0.random.set(next);
        next
    }
}

#[derive(Default)]
pub struct StdDisk {
    written: Rc<Cell<u64>>,
}

pub struct StdFile {
    file: File,
    path: PathBuf,
    written: Rc<Cell<u64>>,
}

fn error<T>(op: &'static str, path: &Path, result: std::io::Result<T>) -> Result<T, DiskError> {
    result.map_err(|e| DiskError::from_io(op, path, &e))
}

impl StdDisk {
    fn wrap(&self, file: File, path: &Path) -> StdFile {
        StdFile {
            file,
            path: path.to_path_buf(),
            written: Rc::clone(&self.written),
        }
    }
}

impl Disk for StdDisk {
    type File = StdFile;

    async fn open(&self, path: &Path, _class: FileClass) -> Result<StdFile, DiskError> {
        let file = OpenOptions::new().read(true).write(true).open(path);
        Ok(self.wrap(error("open", path, file)?, path))
    }

    async fn create(&self, path: &Path, _class: FileClass) -> Result<StdFile, DiskError> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).open(path);
        Ok(self.wrap(error("create", path, file)?, path))
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        error("rename", from, std::fs::rename(from, to))
    }

    async fn remove(&self, path: &Path) -> Result<(), DiskError> {
        error("remove", path, std::fs::remove_file(path))
    }

    async fn create_dir_all(&self, path: &Path) -> Result<(), DiskError> {
        error("create", path, std::fs::create_dir_all(path))
    }

    async fn list(&self, path: &Path) -> Result<Vec<PathBuf>, DiskError> {
        let entries = error("list", path, std::fs::read_dir(path))?;
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        Ok(paths)
    }

    async fn sync_dir(&self, _path: &Path) -> Result<(), DiskError> {
        Ok(())
    }

    async fn free_bytes(&self, _path: &Path) -> Result<u64, DiskError> {
        Ok(1 << 40)
    }
}

impl DiskFile for StdFile {
    type ReadBuf = Vec<u8>;

    async fn len(&self) -> Result<u64, DiskError> {
        Ok(error("stat", &self.path, self.file.metadata())?.len())
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Vec<u8>, DiskError> {
        let mut bytes = vec![0; len];
        let mut done = 0;
        while done < len {
            let read = self.file.read_at(&mut bytes[done..], offset + done as u64);
            match error("read", &self.path, read)? {
                0 => break,
                n => done += n,
            }
        }
        bytes.truncate(done);
        Ok(bytes)
    }

    async fn write_at(&self, offset: u64, buf: AlignedBuf) -> (Result<(), DiskError>, AlignedBuf) {
        self.written.set(self.written.get() + buf.len() as u64);
        let result = self.file.write_all_at(&buf, offset);
        (error("write", &self.path, result), buf)
    }

    async fn sync(&self) -> Result<(), DiskError> {
        Ok(())
    }

    async fn set_len(&self, len: u64) -> Result<(), DiskError> {
        error("truncate", &self.path, self.file.set_len(len))
    }
}
