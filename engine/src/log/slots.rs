//! The files that segments are written to: made ahead of need, filled with zeros once, reused.
//!
//! Writing into a file that was filled before costs the disk one write; into a new one it costs the
//! file system's own log as well. So the next file is always ready before the newest segment is
//! full: a recycled one, or a new one filled in the background. Old bytes in a recycled file need
//! no erasing, because nothing of another epoch is ever read as a record.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::chain::Slot;
use super::handle::{File, Log};
use super::options::LogOptions;
use super::state::{Growth, State};
use crate::env::{AlignedBuf, Disk, DiskError, DiskErrorKind, DiskFile, Env, FileClass, TaskClass};
use crate::error::EngineError;

/// Bytes of zeros written at once.
const FILL_BYTES: u64 = 256 << 10;
/// Pause after the disk was found full.
const NO_SPACE_PAUSE: Duration = Duration::from_millis(100);
/// Free files kept for reuse, at most; the rest is removed.
const FREE_MAX: usize = 2;

/// What a background task is to do for the next segment.
enum Task {
    Create { number: u32, bytes: u64 },
    Remove { number: u32 },
}

impl<E: Env> Log<E> {
    /// Has the next segment's file made ready, if none is and nobody is at it.
    pub(super) fn prepare_next(&self) {
        let task = {
            let mut state = self.inner.state.borrow_mut();
            if state.closing || state.failed.is_some() {
                return;
            }
            state.take_free();
            if state.preparing {
                return;
            }
            let Some(task) = state.next_task() else {
                return;
            };
            state.preparing = true;
            task
        };
        self.inner.tasks.borrow_mut().running += 1;
        let log = self.clone();
        self.inner.env.spawn(TaskClass::Log, async move {
            log.work(task).await;
            log.inner.state.borrow_mut().preparing = false;
            log.call_hook();
            // Whatever is to be done next.
            log.prepare_next();
            log.task_ended();
        });
    }

    async fn work(&self, task: Task) {
        let (env, dir) = (&self.inner.env, &self.inner.dir);
        match task {
            Task::Remove { number } => {
                // A file that stays is found at the next open, and is free then.
                let path = State::<File<E>>::slot_path(dir, number);
                let _removed = env.disk().remove(&path).await;
            }
            Task::Create { number, bytes } => {
                let stop = || {
                    let state = self.inner.state.borrow();
                    state.closing || state.failed.is_some()
                };
                let result = create(env, dir, number, bytes, stop).await;
                match result {
                    Ok(slot) => self.inner.state.borrow_mut().add_file(slot),
                    Err(error) if error.kind == DiskErrorKind::NoSpace => {
                        self.inner.state.borrow_mut().growth = Growth::NoSpace;
                        let path = State::<File<E>>::slot_path(dir, number);
                        let _removed = env.disk().remove(&path).await;
                        env.sleep(NO_SPACE_PAUSE).await;
                    }
                    Err(error) => {
                        let mut state = self.inner.state.borrow_mut();
                        state.failed.get_or_insert(EngineError::Disk(error));
                    }
                }
            }
        }
    }
}

impl<F> State<F> {
    /// Takes in a file that was made.
    fn add_file(&mut self, slot: Slot<F>) {
        self.growth = Growth::Fine;
        self.stats.filled_bytes += slot.bytes;
        if self.next.is_none() && slot.bytes >= self.next_bytes_min {
            self.next = Some(slot);
        } else {
            self.free.push(slot);
        }
    }

    /// Goes on in a file that is free, if one will do.
    fn take_free(&mut self) {
        if self.next.is_some() {
            return;
        }
        // Small files date from the log's first seconds, or from a disk that was full.
        let least = match self.growth {
            Growth::Fine => self.options.segment_bytes.max(self.next_bytes_min),
            Growth::NoSpace => self.next_bytes_min,
        };
        let fits = |slot: &Slot<F>| slot.bytes >= least;
        if let Some(place) = self.free.iter().position(fits) {
            self.next = Some(self.free.swap_remove(place));
        }
    }

    /// What is to be done for the next segment.
    fn next_task(&mut self) -> Option<Task> {
        if self.next.is_none() && self.chain.len() + self.free.len() < self.options.segments_max {
            self.slot_newest += 1;
            let current = self.chain.back().map_or(0, |segment| segment.slot.bytes);
            let bytes = (current * 4)
                .max(self.next_bytes_min)
                .min(self.options.segment_bytes);
            return Some(Task::Create {
                number: self.slot_newest,
                bytes,
            });
        }
        let full = self.chain.len() + self.free.len() >= self.options.segments_max;
        if self.free.len() > FREE_MAX || full && self.next.is_none() && !self.free.is_empty() {
            let smallest = (0..self.free.len()).min_by_key(|place| self.free[*place].bytes)?;
            let slot = self.free.swap_remove(smallest);
            return Some(Task::Remove {
                number: slot.number,
            });
        }
        None
    }
}

/// Makes a file of zeros, `bytes` long, that is durable with its name. If `stop` says so before
/// that, it is shorter, and as long as was filled by then (at least one piece).
pub(super) async fn create<E: Env>(
    env: &E,
    dir: &Path,
    number: u32,
    bytes: u64,
    stop: impl Fn() -> bool,
) -> Result<Slot<File<E>>, DiskError> {
    let path = State::<File<E>>::slot_path(dir, number);
    let file = match env.disk().create(&path, FileClass::Log).await {
        // Left by a start that was cut short.
        Err(error) if error.kind == DiskErrorKind::AlreadyExists => {
            env.disk().remove(&path).await?;
            env.disk().create(&path, FileClass::Log).await?
        }
        other => other?,
    };
    let mut filled = 0;
    let mut zeros = AlignedBuf::zeroed(FILL_BYTES.min(bytes) as usize);
    while filled < bytes && (filled == 0 || !stop()) {
        zeros.set_len((bytes - filled).min(FILL_BYTES) as usize);
        let (result, buf) = file.write_at(filled, zeros).await;
        result?;
        zeros = buf;
        filled += zeros.len() as u64;
        env.yield_if_needed().await;
    }
    file.sync().await?;
    env.disk().sync_dir(dir).await?;
    Ok(Slot {
        number,
        file: Rc::new(file),
        bytes: filled,
    })
}

/// Makes the first file of a new log, within the time that a first start has for it.
pub(super) async fn create_first<E: Env>(
    env: &E,
    dir: &Path,
    number: u32,
    options: &LogOptions,
) -> Result<Slot<File<E>>, DiskError> {
    let begun = env.now();
    let late = || env.now().saturating_sub(begun) >= options.first_fill_time;
    create(env, dir, number, options.first_fill_bytes, late).await
}
