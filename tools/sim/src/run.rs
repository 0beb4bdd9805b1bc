//! One seed: as many lives as its operations take, with crashes and faults between and within them.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::rc::Rc;
use std::sync::Once;
use std::time::Duration;

use ringbolt_engine::engine::EngineOptions;
use ringbolt_engine::env::sim::{Rng, SimOptions, SimWorld, Stop, TraceSink};
use ringbolt_engine::log::LogOptions;
use ringbolt_engine::manifest;
use ringbolt_engine::tree::TreeOptions;

use crate::faults::{self, CrashPlan, FaultMode, PLENTY_BYTES};
use crate::life::{DIR, Ended, LifePlan, live};
use crate::report::{CrashPoint, Tally};
use crate::shared::Shared;
use crate::swap::swap_two;
use crate::workload::{OWN_KEYSPACE, Profile};

/// Operations of a seed, at least.
pub const OPERATIONS_MIN: u64 = 5_000;
/// Flushes of a seed, at least.
pub const FLUSHES_MIN: u64 = 3;
/// Most operations of a seed that does not reach its flushes and compactions.
const OPERATIONS_MAX: u64 = 40_000;
/// Lives in which the engine may refuse to open one after the other.
const REFUSALS_MAX: u32 = 20;

/// What is tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Crashes and faults of the disk.
    Crash,
    /// Operations against the model, with reopening; nothing goes wrong.
    Model,
}

/// What came of a seed.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What it covered.
    pub tally: Tally,
    /// What went wrong.
    pub violation: Option<String>,
    /// A hash of all that happened; equal on replay.
    pub trace_hash: u64,
    /// Tasks polled.
    pub steps: u64,
}

thread_local! {
    /// Whether a seed is running on this thread.
    static RUNNING: Cell<bool> = const { Cell::new(false) };
    /// What the last panic of this thread said.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs one seed. Never panics: a panic of the engine is its violation.
#[must_use]
pub fn run(kind: Kind, seed: u64, trace: Option<TraceSink>) -> Outcome {
    caught(seed, || run_seed(kind, seed, trace))
}

/// Makes a panic of what is simulated the violation of its seed.
pub(crate) fn caught(seed: u64, run: impl FnOnce() -> Outcome) -> Outcome {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // Of the panics of other threads this says nothing.
            let kept = RUNNING.get();
            if kept {
                PANIC.set(Some(info.to_string()));
            } else {
                before(info);
            }
        }));
    });
    RUNNING.set(true);
    let caught = catch_unwind(AssertUnwindSafe(run));
    RUNNING.set(false);
    caught.unwrap_or_else(|_| Outcome {
        seed,
        tally: Tally::default(),
        violation: Some(PANIC.take().unwrap_or_else(|| "a panic".to_owned())),
        trace_hash: 0,
        steps: 0,
    })
}

fn run_seed(kind: Kind, seed: u64, trace: Option<TraceSink>) -> Outcome {
    let mut run = Run::new(kind, seed, trace);
    let violation = run.lives().err();
    let mut tally = run.shared.tally.borrow().clone();
    tally.faults.merge(&run.world.counts());
    tally.add("seeds", 1);
    Outcome {
        seed,
        tally,
        violation,
        trace_hash: run.world.trace_hash(),
        steps: run.world.steps(),
    }
}

/// Settings small enough that a few thousand operations go down every path.
fn draw_options(rng: &mut Rng) -> EngineOptions {
    let pick = |rng: &mut Rng, of: &[u64]| of[rng.index(of.len())];
    EngineOptions {
        log: LogOptions {
            segment_bytes: pick(rng, &[128 << 10, 192 << 10, 512 << 10]),
            first_fill_bytes: pick(rng, &[64 << 10, 128 << 10]),
            writes_in_flight: rng.between(1, 4) as usize,
            group_bytes: pick(rng, &[8 << 10, 16 << 10, 64 << 10]) as usize,
            segments_max: rng.between(4, 12) as usize,
            segments_flush: rng.between(1, 3) as usize,
            segments_retained: rng.below(2) as usize,
            ..LogOptions::default()
        },
        tree: TreeOptions {
            // The rest is a cache too small for the tables.
            memory_bytes: pick(rng, &[256 << 10, 512 << 10, 1 << 20]),
            memtable_percent: 90,
            // Full after 64 cells or 16 KiB, after 16 KiB, and after 48 KiB.
            memtable_bytes: pick(rng, &[20 << 10, 90 << 10, 130 << 10]),
            table_bytes: pick(rng, &[4 << 10, 8 << 10, 16 << 10]),
            block_bytes: pick(rng, &[256, 512, 4096]) as usize,
            l0_runs: rng.between(2, 4) as usize,
            own_keyspace: Some(OWN_KEYSPACE),
            ..TreeOptions::tiny()
        },
        ..EngineOptions::default()
    }
}

struct Run {
    kind: Kind,
    rng: Rng,
    shared: Rc<Shared>,
    world: SimWorld,
    options: EngineOptions,
    trace: Option<TraceSink>,
    refusals: u32,
    mode: FaultMode,
    /// The last life closed the log in good order.
    sealed: bool,
}

impl Run {
    /// A machine on which nothing has run yet.
    fn new(kind: Kind, seed: u64, trace: Option<TraceSink>) -> Self {
        let mut rng = Rng::new(seed);
        let profile = Profile::draw(&mut rng);
        let options = draw_options(&mut rng);
        let sim = SimOptions {
            steps_max: 10_000_000,
            time_max: Duration::from_secs(24 * 3600),
            capacity_bytes: PLENTY_BYTES,
            ..SimOptions::default()
        };
        let world = SimWorld::new(rng.next_u64(), sim);
        if let Some(sink) = &trace {
            sink(&format!("seed {seed}: {profile:?}"));
            sink(&format!("{options:?}"));
        }
        world.trace_to(trace.clone());
        Self {
            kind,
            rng,
            shared: Shared::new(seed, profile),
            world,
            options,
            trace,
            refusals: 0,
            mode: FaultMode::None,
            sealed: false,
        }
    }

    /// All lives of the seed.
    fn lives(&mut self) -> Result<(), String> {
        while !self.is_enough() {
            if self.shared.operations.get() > OPERATIONS_MAX {
                return Err("the operations did not lead to enough compactions".to_owned());
            }
            let life = self.rng.between(50, 2000);
            match self.kind {
                Kind::Crash => self.life_and_death(life)?,
                Kind::Model => self.good_life(life)?,
            }
        }
        self.good_life(50)?;
        self.good_life(0)
    }

    fn is_enough(&self) -> bool {
        let tally = self.shared.tally.borrow();
        self.shared.operations.get() >= OPERATIONS_MIN
            && tally.of("flushes") >= FLUSHES_MIN
            && tally.of("bytes compacted out of level 0") > 0
    }

    fn say(&self, line: impl FnOnce() -> String) {
        if let Some(sink) = &self.trace {
            sink(&line());
        }
    }

    /// A life in which nothing goes wrong: it must open, whatever happened before, and close.
    fn good_life(&mut self, operations: u64) -> Result<(), String> {
        self.heal();
        self.say(|| format!("-- a life of {operations} operations, nothing goes wrong"));
        let ended = self.live(operations, true, &CrashPlan::Never);
        match ended {
            Ok(Ended::AsPlanned) => {
                // Closed: a power cut right after it must change nothing.
                if self.rng.one_in(2) {
                    self.world.crash();
                } else {
                    self.world.kill();
                }
                self.shared.log_is_whole(self.world.store());
                Ok(())
            }
            other => Err(self.explain(other)),
        }
    }

    fn heal(&mut self) {
        self.settle_manifest();
        self.mode = FaultMode::None;
        self.world.store().heal();
        self.world.store().set_faults(Vec::new());
        self.world.store().set_capacity(PLENTY_BYTES);
        self.shared.errors_allowed.set(false);
    }

    /// A life that may end at any moment and in which the disk may fail.
    fn life_and_death(&mut self, operations: u64) -> Result<(), String> {
        // Damage stays over several lives sometimes; a disk that keeps failing is no test.
        if self.mode == FaultMode::None || self.refusals > 2 || self.rng.one_in(2) {
            self.heal();
            self.mode = match self.sealed && self.rng.one_in(3) {
                true => FaultMode::LogDamage,
                false => FaultMode::draw(&mut self.rng),
            };
        }
        let mode = self.mode;
        if std::mem::take(&mut self.sealed) && mode == FaultMode::LogDamage {
            // Each acknowledged group of a log that was closed is covered by a later one: damage to
            // any must be noticed.
            faults::flip_one(&mut self.rng, self.world.store(), ".seg");
            self.shared.errors_allowed.set(true);
            return self.life_in_danger(operations);
        }
        if mode == FaultMode::Damage && self.rng.one_in(2) {
            swap_two(&mut self.rng, &mut self.world);
        }
        mode.arrange(&mut self.rng, self.world.store());
        if mode.allows_errors() {
            self.shared.errors_allowed.set(true);
        }
        if mode == FaultMode::LogDamage {
            self.shared.log_damaged.set(true);
        }
        self.life_in_danger(operations)
    }

    /// A life with the faults that were arranged.
    fn life_in_danger(&mut self, operations: u64) -> Result<(), String> {
        let mode = self.mode;
        let crash = CrashPlan::draw(&mut self.rng);
        let close = match crash {
            CrashPlan::Never => self.rng.one_in(2),
            CrashPlan::InClosing(_) => true,
            _ => false,
        };
        self.say(|| format!("-- a life of {operations} operations, {mode:?}, {crash:?}"));
        let ended = self.live(operations, close, &crash);
        match ended {
            Ok(Ended::AsPlanned) => {
                self.refusals = 0;
                self.sealed = close && mode == FaultMode::None;
                self.end_life();
            }
            Ok(Ended::Refused) => {
                self.shared.count("openings refused", 1);
                self.refusals += 1;
                if self.refusals > REFUSALS_MAX {
                    return Err("the engine never opens again".to_owned());
                }
                self.end_life();
            }
            Ok(Ended::Stopped) => {
                self.shared.count("engines stopped", 1);
                self.end_life();
            }
            Err(Stop::Crashed) => {
                let in_flight = self.world.store().in_flight();
                let points = CrashPoint::all_of(&in_flight, self.shared.stage.get());
                self.shared.tally.borrow_mut().crashed_at(&points);
                self.shared.count("crashes", 1);
                self.say(|| format!("-- crashed {points:?}, under way: {in_flight:?}"));
                self.end_life();
            }
            other => return Err(self.explain(other)),
        }
        Ok(())
    }

    /// An edit of the manifest that was lost before its seal was written is lost for good, once the
    /// engine has opened without it and removed what it knew nothing of: healing must not bring it
    /// back (seeds 6113 and 7966). What the engine refuses to believe can be healed.
    fn settle_manifest(&mut self) {
        const NAME: &str = "MANIFEST";
        self.world.store().set_faults(Vec::new());
        if !self.world.store().is_damaged(NAME) {
            return;
        }
        let tables = Path::new(DIR).join("tables");
        let believed = self
            .world
            .run(|env| async move { manifest::read(&env, &tables).await.is_ok() });
        self.world.kill();
        if believed == Ok(true) {
            self.world.store().settle(NAME);
        }
    }

    fn end_life(&mut self) {
        if self.rng.one_in(4) {
            self.world.kill();
        } else {
            self.world.crash();
        }
    }

    fn live(&mut self, operations: u64, close: bool, crash: &CrashPlan) -> Result<Ended, Stop> {
        let plan = LifePlan {
            operations,
            close,
            crash_in_closing: match crash {
                CrashPlan::InClosing(steps) => Some(*steps),
                _ => None,
            },
            options: self.options.clone(),
        };
        if let CrashPlan::AtIo(which, nth) = crash {
            self.world.store().crash_at_io(which.clone(), *nth);
        }
        let (shared, mode) = (self.shared.clone(), self.mode);
        let (mut rng, rng_life) = (self.rng.fork(), self.rng.fork());
        self.world.run(|env| {
            if let CrashPlan::AfterSteps(steps) = crash {
                env.crash_after_steps(*steps);
            }
            mode.relieve_later(&mut rng, &env);
            live(env, shared, rng_life, plan)
        })
    }

    /// Words for a life that ended as it must not.
    fn explain(&self, ended: Result<Ended, Stop>) -> String {
        if let Some(violation) = self.shared.violation() {
            return violation;
        }
        match ended {
            Ok(ended) => format!("{ended:?} although nothing went wrong"),
            Err(stop) => format!(
                "a hang: {stop} ({:?}, {:?})",
                self.shared.stage.get(),
                self.mode
            ),
        }
    }
}

#[cfg(test)]
mod tests;
