//! The files that segments are written to: made ahead of need, filled with zeros once, reused.
//!
//! Writing into a file that was filled before costs the disk one write; into a new one it costs the
//! file system's own log as well. So the next file is always ready before the newest segment is
//! full: a recycled one, or a new one filled in the background. Old bytes in a recycled file need
//! no erasing, because nothing of another epoch is ever read as a record.
//!
//! Filling competes with the log's own writes for the disk, so it goes by small pieces with pauses
//! between them. It keeps twice as far into its file as the log is into its newest segment: where
//! it has fallen behind that, it makes no pauses. So it is done by the time it is needed.

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
/// Pause between two pieces while there is time: about 50 MB/s.
const FILL_PAUSE: Duration = Duration::from_millis(5);
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
                let pace = |filled| self.inner.state.borrow().fill_pace(filled, bytes);
                let result = create(env, dir, number, bytes, pace).await;
                match result {
                    Ok(slot) => self.inner.state.borrow_mut().add_file(slot),
                    Err(error) if error.kind == DiskErrorKind::NoSpace => {
                        self.inner.state.borrow_mut().growth = Growth::NoSpace;
                        self.inner.state.borrow_mut().give_up_holds();
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

    /// Segments that there may be now.
    fn segments_max(&self) -> usize {
        self.options.segments_max.max(self.reserve_max)
    }

    /// See [`super::Log::open_reserve`].
    pub(super) fn open_reserve(&mut self) {
        if self.reserve_max == 0 {
            // After a crash there may be more segments than the limit already.
            let used = self.segments().max(self.options.segments_max);
            self.reserve_max = used + SEGMENTS_RESERVE;
        }
    }

    /// How to go on with a file of which `filled` of `bytes` are zeros.
    fn fill_pace(&self, filled: u64, bytes: u64) -> Pace {
        if self.closing || self.failed.is_some() {
            return Pace::Stop;
        }
        let in_time = self
            .used()
            .is_some_and(|(used, of)| 2 * used * bytes <= filled * of);
        if in_time { Pace::Pause } else { Pace::Go }
    }

    /// What is to be done for the next segment.
    fn next_task(&mut self) -> Option<Task> {
        if self.next.is_none() && self.segments() + self.free.len() < self.segments_max() {
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
        let full = self.segments() + self.free.len() >= self.segments_max();
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

/// Segments beyond the limit, for what frees the log: see [`super::Log::open_reserve`].
const SEGMENTS_RESERVE: usize = 2;

/// How the filling of a file goes on after a piece.
pub(super) enum Pace {
    /// At once.
    Go,
    /// After a pause.
    Pause,
    /// Not at all.
    Stop,
}

/// Makes a file of zeros, `bytes` long, that is durable with its name. After each piece `pace` is
/// asked with the length so far; where it says stop, the file is no longer than that.
///
/// The zeros are one thing to make durable, not one a piece: a log file's own way of writing would
/// have the file system commit its journal for each.
pub(super) async fn create<E: Env>(
    env: &E,
    dir: &Path,
    number: u32,
    bytes: u64,
    pace: impl Fn(u64) -> Pace,
) -> Result<Slot<File<E>>, DiskError> {
    let path = State::<File<E>>::slot_path(dir, number);
    let file = match env.disk().create(&path, FileClass::Table).await {
        // Left by a start that was cut short.
        Err(error) if error.kind == DiskErrorKind::AlreadyExists => {
            env.disk().remove(&path).await?;
            env.disk().create(&path, FileClass::Table).await?
        }
        other => other?,
    };
    let mut filled = 0;
    let mut zeros = AlignedBuf::zeroed(FILL_BYTES.min(bytes) as usize);
    loop {
        zeros.set_len((bytes - filled).min(FILL_BYTES) as usize);
        let (result, buf) = file.write_at(filled, zeros).await;
        result?;
        zeros = buf;
        filled += zeros.len() as u64;
        if filled >= bytes {
            break;
        }
        match pace(filled) {
            Pace::Go => env.yield_if_needed().await,
            Pace::Pause => env.sleep(FILL_PAUSE).await,
            Pace::Stop => break,
        }
    }
    file.sync().await?;
    env.disk().sync_dir(dir).await?;
    drop(file);
    Ok(Slot {
        number,
        file: Rc::new(env.disk().open(&path, FileClass::Log).await?),
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
    let in_time = |_| match env.now().saturating_sub(begun) < options.first_fill_time {
        true => Pace::Go,
        false => Pace::Stop,
    };
    create(env, dir, number, options.first_fill_bytes, in_time).await
}
