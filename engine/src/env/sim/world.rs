//! A machine that survives its own crashes.

use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use super::executor::{Core, Yield, nanos};
use super::trace::{Trace, TraceSink};
use super::{Counts, Rng, SimDisk, SimOptions, SimStore, Stop};
use crate::env::{Env, TaskClass};

/// The wall clock when the simulation starts, in milliseconds since the Unix epoch.
pub(super) const WALL_START_MS: u64 = 1_700_000_000_000;

/// How long a restart takes.
const REBOOT_NS: u64 = 1_000_000_000;

/// The environment of one life of the simulated process.
#[derive(Clone)]
pub struct SimEnv {
    core: Rc<Core>,
    disk: SimDisk,
}

impl SimEnv {
    pub(super) fn new(core: Rc<Core>, disk: SimDisk) -> Self {
        Self { core, disk }
    }

    pub(super) fn core(&self) -> &Rc<Core> {
        &self.core
    }

    /// The medium: fault settings, counts, files.
    #[must_use]
    pub fn store(&self) -> &SimStore {
        self.disk.store()
    }

    /// Ends this life once the task that calls it gives way: the run returns [`Stop::Crashed`].
    pub fn crash(&self) {
        self.core.crash();
    }

    /// Ends this life when so many more tasks have been polled.
    pub fn crash_after_steps(&self, steps: u64) {
        self.core.crash_at_step(self.core.steps() + steps);
    }

    /// Lets every other ready task have its turn, whether or not this one has used up its slice.
    pub async fn yield_now(&self) {
        Yield::default().await;
    }
}

impl Env for SimEnv {
    type Disk = SimDisk;

    fn disk(&self) -> &SimDisk {
        &self.disk
    }

    fn spawn(&self, class: TaskClass, task: impl Future<Output = ()> + 'static) {
        self.core.spawn(class, Box::pin(task));
    }

    async fn yield_if_needed(&self) {
        if self.core.should_yield() {
            Yield::default().await;
        }
    }

    fn should_yield(&self) -> bool {
        self.core.should_yield()
    }

    async fn sleep(&self, duration: Duration) {
        self.core.sleep(nanos(duration)).await;
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.core.now_ns())
    }

    fn wall_ms(&self) -> u64 {
        WALL_START_MS + self.core.wall_ms()
    }

    fn random(&self) -> u64 {
        self.core.random()
    }
}

/// A simulated machine: its disk, its clock and its seed, through any number of process lives.
pub struct SimWorld {
    seed: u64,
    options: SimOptions,
    rng: Rng,
    store: SimStore,
    trace: Rc<Trace>,
    now_ns: u64,
    steps: u64,
    alive: bool,
}

impl SimWorld {
    /// A machine with an empty disk. All that happens on it follows from `seed`.
    #[must_use]
    pub fn new(seed: u64, options: SimOptions) -> Self {
        let mut rng = Rng::new(seed);
        let store = SimStore::new(options.capacity_bytes, options.faults.clone(), rng.fork());
        Self {
            seed,
            options,
            rng,
            store,
            trace: Rc::default(),
            now_ns: 0,
            steps: 0,
            alive: false,
        }
    }

    /// One life of the process: polls the future and everything it spawns until the future is
    /// done, a crash that was asked for strikes, or a limit is reached. Tasks that are left are
    /// dropped then, and what they had under way is undecided until [`SimWorld::crash`] or
    /// [`SimWorld::kill`]; a further run without either implies a kill.
    ///
    /// # Errors
    /// [`Stop`] says why the future was not finished.
    pub fn run<T, F>(&mut self, main: impl FnOnce(SimEnv) -> F) -> Result<T, Stop>
    where
        F: Future<Output = T>,
    {
        if self.alive {
            self.kill();
        }
        self.alive = true;
        let core = Rc::new(Core::new(
            &self.options,
            self.now_ns,
            &mut self.rng,
            self.trace.clone(),
            Rc::default(),
        ));
        let env = SimEnv {
            core: core.clone(),
            disk: SimDisk::new(core.clone(), self.store.clone(), &self.options),
        };
        let guard = Life {
            core: core.clone(),
            seed: self.seed,
        };
        let result = core.block_on(main(env));
        drop(guard);
        self.now_ns = core.now_ns();
        self.steps += core.steps();
        result
    }

    /// Cuts the power: what was not synced is lost, kept, reordered or torn as the seed decides.
    pub fn crash(&mut self) {
        self.store.power_cut();
        self.reboot();
    }

    /// Kills the process only: completed writes stay, those under way are done, half done or not.
    pub fn kill(&mut self) {
        self.store.kill();
        self.reboot();
    }

    /// Cuts the power and starts the process again.
    ///
    /// # Errors
    /// As [`SimWorld::run`].
    pub fn restart<T, F>(&mut self, main: impl FnOnce(SimEnv) -> F) -> Result<T, Stop>
    where
        F: Future<Output = T>,
    {
        self.crash();
        self.run(main)
    }

    fn reboot(&mut self) {
        self.alive = false;
        self.now_ns += REBOOT_NS;
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

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Tasks polled so far, in all lives.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// A hash of everything that has happened: equal for equal runs.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.trace.hash()
    }

    /// Hands every event to `sink` as a line of text, or stops doing so.
    pub fn trace_to(&self, sink: Option<TraceSink>) {
        self.trace.set_sink(sink);
    }
}

/// Ends a life: also when it ends in a panic, and then says which seed it was.
struct Life {
    core: Rc<Core>,
    seed: u64,
}

impl Drop for Life {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("simulation failed with seed {}", self.seed);
            self.core.leak_tasks();
        } else {
            self.core.drop_tasks();
        }
    }
}

/// Runs a future to its end on a fresh machine and returns what it returns.
///
/// # Panics
/// If it does not finish: a deadlock, a limit, or a crash that the future asked for. The message
/// has the seed.
pub fn run<T, F>(seed: u64, options: SimOptions, main: impl FnOnce(SimEnv) -> F) -> T
where
    F: Future<Output = T>,
{
    match SimWorld::new(seed, options).run(main) {
        Ok(value) => value,
        Err(stop) => panic!("seed {seed}: {stop}"),
    }
}
