//! The real [`Env`].

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use ringbolt_engine::env::{Env, TaskClass};
use ringbolt_ring::{Ring, RingWaker};

use super::core::{Core, CoreStats};
use super::disk::RealDisk;
use super::driver::Handler;
use super::tasks::Counted;
use super::timers::Sleep;
use super::{clock, driver};

/// One core's tasks, clocks, disk and ring. Cheap to clone; never leaves its thread.
#[derive(Clone)]
pub struct RealEnv {
    core: Rc<Core>,
    disk: Rc<RealDisk>,
}

impl RealEnv {
    pub(super) fn new(core: Rc<Core>) -> Self {
        let disk = Rc::new(RealDisk::new(
            Rc::clone(&core.requests),
            core.options.durability,
            core.ring.borrow().can_truncate(),
        ));
        Self { core, disk }
    }

    /// This core's number, from 0.
    #[must_use]
    pub fn core_index(&self) -> usize {
        self.core.index
    }

    /// The wakers of all cores' rings, by core number.
    #[must_use]
    pub fn wakers(&self) -> &[RingWaker] {
        &self.core.wakers
    }

    /// Puts a handler in charge of the ring's events, in place of the one before. Without a
    /// handler, events are dropped: listen only after this.
    pub fn install(&self, handler: Rc<RefCell<dyn Handler>>) {
        *self.core.handler.borrow_mut() = Some(handler);
    }

    /// Takes the handler away.
    pub fn uninstall(&self) {
        // Dropped outside the borrow: it may own clones of this environment.
        let handler = self.core.handler.borrow_mut().take();
        drop(handler);
    }

    /// Uses the ring from a task, to listen for one. A [`Handler`] is given the ring instead.
    ///
    /// # Panics
    ///
    /// Inside a [`Handler`] method, and inside itself: the ring is in use.
    pub fn with_ring<R>(&self, f: impl FnOnce(&mut Ring) -> R) -> R {
        f(&mut self.core.ring.borrow_mut())
    }

    /// File requests that are queued or with the kernel.
    #[must_use]
    pub fn files_pending(&self) -> usize {
        self.core.requests.pending()
    }

    /// Counters of this core's loop. The ring's are as of the end of the last turn.
    #[must_use]
    pub fn stats(&self) -> CoreStats {
        self.core.stats.get()
    }
}

impl Env for RealEnv {
    type Disk = RealDisk;

    fn disk(&self) -> &RealDisk {
        &self.disk
    }

    fn spawn(&self, class: TaskClass, task: impl Future<Output = ()> + 'static) {
        let (queue, handle) = self.core.queue_of(class);
        let runnable = std::sync::Arc::clone(&self.core.runnable);
        let task = Counted::new(task, queue, runnable);
        // The queues were made with this executor and are never removed; an error would mean a
        // foreign handle. Scheduled, never polled here.
        if let Ok(task) = glommio::spawn_local_into(task, handle) {
            task.detach();
        }
    }

    async fn yield_if_needed(&self) {
        if self.core.slice_is_over() {
            driver::give_way().await;
        }
    }

    fn should_yield(&self) -> bool {
        self.core.slice_is_over()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> {
        Sleep::new(Rc::clone(&self.core.timers), duration)
    }

    fn now(&self) -> Duration {
        clock::now()
    }

    fn wall_ms(&self) -> u64 {
        clock::wall_ms()
    }

    fn random(&self) -> u64 {
        self.core.random()
    }

    fn background(&self) -> Duration {
        self.core.background.get()
    }
}
