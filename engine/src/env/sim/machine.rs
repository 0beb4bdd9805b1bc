//! A simulated machine whose cores somebody else drives: for clusters of them in one process.
//!
//! [`SimWorld`](super::SimWorld) runs one process to its end. Here the caller owns time: it keeps
//! the order of events over all machines, tells each [`SimCore`] what its clock shows, and lets it
//! poll its tasks. So every machine has a clock of its own, and any of them can stand still or die
//! while the others go on.

use std::cell::Cell;
use std::rc::Rc;

use super::executor::Core;
use super::trace::Trace;
use super::world::WALL_START_MS;
use super::{Counts, Rng, SimDisk, SimEnv, SimOptions, SimStore};

/// One machine: its disk, its wall clock and its seed, through any number of process lives.
pub struct SimMachine {
    options: SimOptions,
    rng: Rng,
    store: SimStore,
    trace: Rc<Trace>,
    wall: Rc<Cell<i64>>,
}

impl SimMachine {
    /// A machine with an empty disk. What happens on it follows from `rng` and from its driver.
    #[must_use]
    pub fn new(mut rng: Rng, options: SimOptions, trace: Rc<Trace>) -> Self {
        let store = SimStore::new(options.capacity_bytes, options.faults.clone(), rng.fork());
        Self {
            options,
            rng,
            store,
            trace,
            wall: Rc::default(),
        }
    }

    /// How it was made.
    #[must_use]
    pub fn options(&self) -> &SimOptions {
        &self.options
    }

    /// A core of a new life of the process, whose monotonic clock shows `now_ns`.
    #[must_use]
    pub fn core(&mut self, now_ns: u64) -> SimCore {
        let core = Rc::new(Core::new(
            &self.options,
            now_ns,
            &mut self.rng,
            self.trace.clone(),
            self.wall.clone(),
        ));
        let disk = SimDisk::new(core.clone(), self.store.clone(), &self.options);
        SimCore {
            env: SimEnv::new(core, disk),
        }
    }

    /// Sets what must be added to the monotonic clock to get the wall clock's milliseconds since
    /// the Unix epoch, less the time at which simulations start.
    pub fn set_wall_offset_ms(&self, offset_ms: i64) {
        self.wall.set(offset_ms);
    }

    /// What the wall clock shows when the monotonic clock shows `now_ns`, in milliseconds since the Unix
    /// epoch.
    #[must_use]
    pub fn wall_ms(&self, now_ns: u64) -> u64 {
        WALL_START_MS + (now_ns / 1_000_000).saturating_add_signed(self.wall.get())
    }

    /// The process died; the machine did not. Every core of that life must have been dropped.
    pub fn kill(&mut self) {
        self.store.kill();
    }

    /// The power went: what was not synced is lost, kept, reordered or torn. Every core of that
    /// life must have been dropped.
    pub fn power_cut(&mut self) {
        self.store.power_cut();
    }

    /// The medium: fault settings, counts, files.
    #[must_use]
    pub fn store(&self) -> &SimStore {
        &self.store
    }

    /// The faults injected so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.store.counts()
    }
}

/// One core of one life of a process. Dropping it is the end of that life: its tasks are dropped,
/// and what they had under way is left to [`SimMachine::kill`] or [`SimMachine::power_cut`].
pub struct SimCore {
    env: SimEnv,
}

impl SimCore {
    /// What the code on this core sees of the world.
    #[must_use]
    pub fn env(&self) -> &SimEnv {
        &self.env
    }

    /// What its monotonic clock shows, in nanoseconds.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.env.core().now_ns()
    }

    /// Moves its monotonic clock forward; it never goes back.
    pub fn advance_to(&self, now_ns: u64) {
        self.env.core().advance(now_ns);
    }

    /// Fires the timers that are due and polls tasks that are ready, at most `most`. Each costs
    /// [`SimOptions::poll_cost`]. Returns how many were polled.
    pub fn run_tasks(&self, most: u64) -> u64 {
        self.env.core().run_tasks(most)
    }

    /// When it has something to do, by its own clock: now if a task is ready, else when the next
    /// timer is due.
    #[must_use]
    pub fn next_ns(&self) -> Option<u64> {
        self.env.core().next_ns()
    }

    /// Whether a crash that was asked for ([`SimStore::crash_at_io`], [`SimEnv::crash`]) is due.
    #[must_use]
    pub fn crash_is_due(&self) -> bool {
        self.env.core().crash_is_due()
    }
}

impl Drop for SimCore {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.env.core().leak_tasks();
        } else {
            self.env.core().drop_tasks();
        }
    }
}
