//! When the disk is full.
//!
//! A job that finds no space is undone and tried again later. To get out of that state by itself the
//! tree keeps a *ballast*: a file of no use, removed when the room is needed, so that the deletions
//! and compactions that free more can be written. It is laid down again once there is plenty.
//!
//! The free room is also looked at every second, so that writers are refused before it is gone.

use std::cell::Cell;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::select;

use crate::env::{AlignedBuf, Disk, DiskErrorKind, DiskFile, Env, FileClass, TaskClass};
use crate::error::{EngineError, Result};

use super::{Inner, table_path};

const BALLAST: &str = "BALLAST";
/// How often the free room is looked at, and how soon a job that found none is tried again.
const INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of the ballast written at once.
const CHUNK_BYTES: u64 = 256 << 10;

/// Whether there is room.
#[derive(Default)]
pub(crate) struct Space {
    /// A job found none, and none has succeeded since.
    job_failed: Cell<bool>,
    /// Less is free than the ballast has.
    is_low: Cell<bool>,
    ballast: Cell<bool>,
}

impl Space {
    pub(crate) fn is_full(&self) -> bool {
        self.job_failed.get() || self.is_low.get()
    }

    /// A job has been written.
    pub(crate) fn set_written(&self) {
        self.job_failed.set(false);
    }
}

fn ballast_path(dir: &Path) -> PathBuf {
    dir.join(BALLAST)
}

impl<E: Env> Inner<E> {
    /// Waits, but not beyond the end of the tree.
    pub(crate) async fn pause(&self, duration: Duration) {
        let ended = self.changed.wait_until(|| self.is_ending());
        select(pin!(self.env.sleep(duration)), pin!(ended)).await;
    }

    /// Answers for a job that failed: waits for room if that is what it wants, ends background work
    /// if nothing helps. Returns whether to try again.
    pub(crate) async fn after_failure(&self, error: EngineError) -> bool {
        match error {
            EngineError::NoSpace(_) => {
                self.space.job_failed.set(true);
                self.stats.borrow_mut().no_space += 1;
                if self.space.ballast.replace(false) {
                    if let Err(e) = self.remove_ballast().await {
                        self.fail(e);
                    }
                } else {
                    self.pause(INTERVAL).await;
                }
                !self.is_ending()
            }
            EngineError::Closed => false,
            error => {
                self.fail(error);
                false
            }
        }
    }

    async fn remove_ballast(&self) -> Result<()> {
        match self.env.disk().remove(&ballast_path(&self.dir)).await {
            Err(e) if e.kind != DiskErrorKind::NotFound => Err(e.into()),
            _ => Ok(()),
        }
    }

    /// Looks at the free room and lays down the ballast if it is missing and there is plenty.
    async fn look(&self) -> Result<()> {
        let ballast = self.options.ballast_bytes;
        let free = self.env.disk().free_bytes(&self.dir).await?;
        let was_low = self.space.is_low.get();
        self.space
            .is_low
            .set(free < if was_low { 2 * ballast } else { ballast });
        let plenty = free > 4 * ballast.max(1);
        if ballast > 0 && plenty && !self.space.is_full() && !self.space.ballast.get() {
            match self.write_ballast().await {
                Ok(()) => self.space.ballast.set(true),
                Err(EngineError::NoSpace(_)) => self.remove_ballast().await?,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    async fn write_ballast(&self) -> Result<()> {
        let disk = self.env.disk();
        let file = disk
            .create(&ballast_path(&self.dir), FileClass::Table)
            .await?;
        let mut buf = AlignedBuf::zeroed(CHUNK_BYTES.min(self.options.ballast_bytes) as usize);
        let mut at = 0;
        while at < self.options.ballast_bytes && !self.is_ending() {
            self.bucket.take(buf.len() as u64).await;
            let (written, back) = file.write_at(at, buf).await;
            written?;
            buf = back;
            at += buf.len() as u64;
        }
        Ok(())
    }
}

/// Removes what a ballast was before, at open: it may be half written.
pub(super) async fn clear<E: Env>(env: &E, dir: &Path) -> Result<()> {
    match env.disk().remove(&ballast_path(dir)).await {
        Err(e) if e.kind != DiskErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}

/// Starts looking at the free room.
pub(super) fn start<E: Env>(inner: &Rc<Inner<E>>) {
    spawn(inner, TaskClass::Background, |inner| async move {
        while !inner.is_ending() {
            if let Err(e) = inner.look().await {
                inner.fail(e);
            }
            inner.pause(INTERVAL).await;
        }
    });
    spawn(inner, TaskClass::Background, |inner| async move {
        sweep(&inner).await;
    });
}

/// Removes the files of tables as the last versions that have them go.
async fn sweep<E: Env>(inner: &Rc<Inner<E>>) {
    loop {
        let obsolete = std::mem::take(&mut *inner.obsolete.borrow_mut());
        for id in &obsolete {
            let removed = inner.env.disk().remove(&table_path(&inner.dir, *id)).await;
            if let Err(e) = removed
                && e.kind != DiskErrorKind::NotFound
            {
                inner.fail(e.into());
                return;
            }
        }
        inner.stats.borrow_mut().tables_removed += obsolete.len() as u64;
        if inner.is_ending() {
            return;
        }
        // A cursor's end makes no noise: look again after a while.
        let has_work = || inner.is_ending() || !inner.obsolete.borrow().is_empty();
        let has_work = inner.changed.wait_until(has_work);
        select(pin!(inner.env.sleep(INTERVAL)), pin!(has_work)).await;
    }
}

/// Starts a background task that [`super::Tree::close`] waits for.
pub(crate) fn spawn<E: Env, F: Future<Output = ()> + 'static>(
    inner: &Rc<Inner<E>>,
    class: TaskClass,
    task: impl FnOnce(Rc<Inner<E>>) -> F,
) {
    inner.tasks.set(inner.tasks.get() + 1);
    let env = inner.env.clone();
    let counted = Rc::clone(inner);
    let task = task(Rc::clone(inner));
    env.spawn(class, async move {
        task.await;
        counted.tasks.set(counted.tasks.get() - 1);
        counted.changed.notify();
    });
}
