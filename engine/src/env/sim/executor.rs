//! A single-threaded executor in virtual time.
//!
//! Each step polls one ready task, chosen by the seed (or in order of waking). A poll costs a fixed
//! amount of virtual time; when nothing is ready the clock jumps to the next timer. So nothing ever
//! waits for real, and the whole schedule follows from the seed.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::trace::Trace;
use super::{Rng, Schedule, SimOptions, Stop};
use crate::env::TaskClass;

type BoxedTask = Pin<Box<dyn Future<Output = ()>>>;

/// The number of the future handed to [`Core::block_on`].
const MAIN: u64 = 0;

/// How many spawned tasks may be polled inside one another before they have to queue.
const EAGER_DEPTH_MAX: u32 = 16;

/// A `Waker` must be `Send`, so the ready queue is behind a lock that is never contended.
#[derive(Default)]
struct ReadyQueue(Mutex<VecDeque<u64>>);

impl ReadyQueue {
    fn with<R>(&self, f: impl FnOnce(&mut VecDeque<u64>) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct TaskWaker {
    id: u64,
    queued: AtomicBool,
    ready: Arc<ReadyQueue>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.with(|ready| ready.push_back(self.id));
        }
    }
}

struct Task {
    class: TaskClass,
    waker: Arc<TaskWaker>,
    /// Taken out while the task is being polled.
    future: Option<BoxedTask>,
}

/// One life of the simulated process: its tasks, timers and clock.
pub(super) struct Core {
    schedule: Schedule,
    steps_max: u64,
    deadline_ns: u64,
    poll_cost_ns: u64,
    yield_calls_max: u64,
    now_ns: Cell<u64>,
    steps: Cell<u64>,
    scheduling: RefCell<Rng>,
    handed_out: RefCell<Rng>,
    ready: Arc<ReadyQueue>,
    tasks: RefCell<BTreeMap<u64, Task>>,
    next_task: Cell<u64>,
    timers: RefCell<BTreeMap<(u64, u64), Waker>>,
    next_timer: Cell<u64>,
    running: Cell<TaskClass>,
    eager_depth: Cell<u32>,
    /// Calls of `should_yield` left before it says yes, for the poll under way.
    slice_left: Cell<u64>,
    /// Set once the process is to die; no task is polled after it.
    crashing: Cell<bool>,
    /// Die at the end of this step, or at this time, whichever comes first.
    crash_step: Cell<Option<u64>>,
    crash_ns: Cell<Option<u64>>,
    /// Set while tasks are being dropped: spawning does nothing then.
    dead: Cell<bool>,
    /// What to add to the clock's milliseconds to get the wall clock's.
    wall_offset_ms: Rc<Cell<i64>>,
    pub(super) trace: Rc<Trace>,
}

impl Core {
    pub(super) fn new(
        options: &SimOptions,
        now_ns: u64,
        rng: &mut Rng,
        trace: Rc<Trace>,
        wall_offset_ms: Rc<Cell<i64>>,
    ) -> Self {
        Self {
            schedule: options.schedule,
            steps_max: options.steps_max,
            deadline_ns: now_ns.saturating_add(nanos(options.time_max)),
            poll_cost_ns: nanos(options.poll_cost),
            yield_calls_max: options.yield_calls_max.max(1),
            now_ns: Cell::new(now_ns),
            steps: Cell::new(0),
            scheduling: RefCell::new(rng.fork()),
            handed_out: RefCell::new(rng.fork()),
            ready: Arc::default(),
            tasks: RefCell::default(),
            next_task: Cell::new(MAIN + 1),
            timers: RefCell::default(),
            next_timer: Cell::new(0),
            running: Cell::new(TaskClass::Foreground),
            eager_depth: Cell::new(0),
            slice_left: Cell::new(0),
            crashing: Cell::new(false),
            crash_step: Cell::new(None),
            crash_ns: Cell::new(None),
            dead: Cell::new(false),
            wall_offset_ms,
            trace,
        }
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    /// Milliseconds of the wall clock since the simulation's start.
    pub(super) fn wall_ms(&self) -> u64 {
        (self.now_ns.get() / 1_000_000).saturating_add_signed(self.wall_offset_ms.get())
    }

    /// Whether this life is over.
    pub(super) fn is_dead(&self) -> bool {
        self.dead.get()
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps.get()
    }

    /// The class of the task that is running.
    pub(super) fn running(&self) -> TaskClass {
        self.running.get()
    }

    pub(super) fn random(&self) -> u64 {
        self.handed_out.borrow_mut().next_u64()
    }

    /// Ends the process before any task is polled again.
    pub(super) fn crash(&self) {
        self.crashing.set(true);
    }

    pub(super) fn crash_at_step(&self, step: u64) {
        self.crash_step.set(Some(step));
    }

    pub(super) fn crash_at_ns(&self, at: u64) {
        let sooner = self.crash_ns.get().map_or(at, |before| before.min(at));
        self.crash_ns.set(Some(sooner));
    }

    pub(super) fn should_yield(&self) -> bool {
        match self.slice_left.get() {
            0 => true,
            left => {
                self.slice_left.set(left - 1);
                false
            }
        }
    }

    pub(super) fn spawn(&self, class: TaskClass, future: BoxedTask) {
        if self.dead.get() {
            return;
        }
        let id = self.next_task.get();
        self.next_task.set(id + 1);
        let waker = self.waker(id);
        self.tasks.borrow_mut().insert(
            id,
            Task {
                class,
                waker: waker.clone(),
                future: Some(future),
            },
        );
        // The real executor polls a spawned task at once, so half the time this one does too: it
        // finds borrows held across a spawn.
        let at_once = matches!(self.schedule, Schedule::Random)
            && self.eager_depth.get() < EAGER_DEPTH_MAX
            && self.scheduling.borrow_mut().one_in(2);
        if at_once {
            let (running, slice) = (self.running.get(), self.slice_left.get());
            self.eager_depth.set(self.eager_depth.get() + 1);
            self.poll_task(id);
            self.eager_depth.set(self.eager_depth.get() - 1);
            self.running.set(running);
            self.slice_left.set(slice);
        } else {
            waker.wake();
        }
    }

    /// Completes `duration_ns` from now.
    pub(super) fn sleep(self: &Rc<Self>, duration_ns: u64) -> Sleep {
        Sleep {
            core: self.clone(),
            at_ns: self.now_ns.get().saturating_add(duration_ns),
            timer: None,
        }
    }

    /// Polls `main` and every spawned task until `main` is done. The tasks that are left stay:
    /// see [`Core::drop_tasks`].
    pub(super) fn block_on<T>(&self, main: impl Future<Output = T>) -> Result<T, Stop> {
        let mut main = pin!(main);
        let result = self.drive(main.as_mut());
        // Before `main` is dropped: its operations under way are the crash's to decide.
        self.dead.set(true);
        result
    }

    fn drive<T>(&self, mut main: Pin<&mut impl Future<Output = T>>) -> Result<T, Stop> {
        let main_waker = self.waker(MAIN);
        let waker = Waker::from(main_waker.clone());
        main_waker.wake_by_ref();
        loop {
            self.check_limits()?;
            self.fire_timers();
            let Some(id) = self.pick() else {
                self.skip_to_next_timer()?;
                continue;
            };
            self.steps.set(self.steps.get() + 1);
            self.trace.event(|| format!("poll {id}"), id);
            if id == MAIN {
                main_waker.queued.store(false, Ordering::Relaxed);
                self.begin_slice(TaskClass::Foreground);
                let polled = main.as_mut().poll(&mut Context::from_waker(&waker));
                if let Poll::Ready(value) = polled {
                    // A crash asked for in this very step wins: nobody saw the answer.
                    self.check_limits()?;
                    return Ok(value);
                }
            } else {
                self.poll_task(id);
            }
            self.advance(self.now_ns.get().saturating_add(self.poll_cost_ns));
        }
    }

    /// For a core that is driven from outside: see [`super::SimCore::run_tasks`].
    pub(super) fn run_tasks(&self, most: u64) -> u64 {
        let mut polled = 0;
        self.fire_timers();
        while polled < most && !self.crash_is_due() {
            let Some(id) = self.pick() else {
                break;
            };
            polled += 1;
            self.steps.set(self.steps.get() + 1);
            self.trace.event(|| format!("poll {id}"), id);
            self.poll_task(id);
            self.advance(self.now_ns.get().saturating_add(self.poll_cost_ns));
            self.fire_timers();
        }
        polled
    }

    /// When there is something to do: now if a task is ready, else when the next timer is due.
    pub(super) fn next_ns(&self) -> Option<u64> {
        if self.ready.with(|ready| !ready.is_empty()) {
            return Some(self.now_ns.get());
        }
        self.timers.borrow().keys().next().map(|&(at, _)| at)
    }

    /// Whether a crash that was asked for is due.
    pub(super) fn crash_is_due(&self) -> bool {
        let (steps, now_ns) = (self.steps.get(), self.now_ns.get());
        self.crashing.get()
            || self.crash_step.get().is_some_and(|at| steps >= at)
            || self.crash_ns.get().is_some_and(|at| now_ns >= at)
    }

    /// Drops every task, as the death of the process does.
    pub(super) fn drop_tasks(&self) {
        self.dead.set(true);
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        drop(tasks);
        let timers = std::mem::take(&mut *self.timers.borrow_mut());
        drop(timers);
    }

    /// Forgets every task without running its destructors: after a panic they may rely on borrows
    /// that were cut short.
    pub(super) fn leak_tasks(&self) {
        self.dead.set(true);
        if let Ok(mut tasks) = self.tasks.try_borrow_mut() {
            std::mem::forget(std::mem::take(&mut *tasks));
        }
    }

    fn waker(&self, id: u64) -> Arc<TaskWaker> {
        Arc::new(TaskWaker {
            id,
            queued: AtomicBool::new(false),
            ready: self.ready.clone(),
        })
    }

    fn check_limits(&self) -> Result<(), Stop> {
        let steps = self.steps.get();
        if self.crash_is_due() {
            return Err(Stop::Crashed);
        }
        if steps >= self.steps_max {
            return Err(Stop::TooManySteps { steps });
        }
        if self.now_ns.get() >= self.deadline_ns {
            return Err(Stop::TooLong { steps });
        }
        Ok(())
    }

    fn begin_slice(&self, class: TaskClass) {
        self.running.set(class);
        let calls = match self.schedule {
            Schedule::Random => self.scheduling.borrow_mut().below(self.yield_calls_max),
            Schedule::Fifo => self.yield_calls_max,
        };
        self.slice_left.set(calls);
    }

    fn poll_task(&self, id: u64) {
        let taken = match self.tasks.borrow_mut().get_mut(&id) {
            Some(task) => task
                .future
                .take()
                .map(|future| (task.class, task.waker.clone(), future)),
            None => None,
        };
        // Gone: it was woken after it had finished.
        let Some((class, task_waker, mut future)) = taken else {
            return;
        };
        task_waker.queued.store(false, Ordering::Relaxed);
        self.begin_slice(class);
        let waker = Waker::from(task_waker);
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        match polled {
            Poll::Pending => {
                if let Some(task) = self.tasks.borrow_mut().get_mut(&id) {
                    task.future = Some(future);
                }
            }
            Poll::Ready(()) => {
                let done = self.tasks.borrow_mut().remove(&id);
                drop(done);
            }
        }
    }

    fn pick(&self) -> Option<u64> {
        self.ready.with(|ready| match self.schedule {
            Schedule::Fifo => ready.pop_front(),
            Schedule::Random => {
                let at = self.scheduling.borrow_mut().index(ready.len());
                ready.swap_remove_back(at)
            }
        })
    }

    fn fire_timers(&self) {
        loop {
            let due = {
                let mut timers = self.timers.borrow_mut();
                match timers.first_key_value() {
                    Some((&(at, _), _)) if at <= self.now_ns.get() => timers.pop_first(),
                    _ => None,
                }
            };
            match due {
                Some((_, waker)) => waker.wake(),
                None => return,
            }
        }
    }

    fn skip_to_next_timer(&self) -> Result<(), Stop> {
        let next = self.timers.borrow().keys().next().map(|&(at, _)| at);
        match next {
            Some(at) => {
                self.advance(at);
                Ok(())
            }
            None => Err(Stop::Deadlock {
                tasks: self.tasks.borrow().len() as u64,
                steps: self.steps.get(),
            }),
        }
    }

    /// Moves the clock forward, but not past a crash that is due on the way.
    pub(super) fn advance(&self, to_ns: u64) {
        let to = self.crash_ns.get().map_or(to_ns, |at| to_ns.min(at));
        self.now_ns.set(self.now_ns.get().max(to));
    }
}

/// See [`Core::sleep`].
pub(super) struct Sleep {
    core: Rc<Core>,
    at_ns: u64,
    timer: Option<(u64, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.core.now_ns.get() >= self.at_ns {
            return Poll::Ready(());
        }
        let key = match self.timer {
            Some(key) => key,
            None => {
                let sequence = self.core.next_timer.get();
                self.core.next_timer.set(sequence + 1);
                (self.at_ns, sequence)
            }
        };
        self.timer = Some(key);
        self.core
            .timers
            .borrow_mut()
            .insert(key, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.timer
            && let Ok(mut timers) = self.core.timers.try_borrow_mut()
        {
            timers.remove(&key);
        }
    }
}

/// Gives way once.
#[derive(Default)]
pub(super) struct Yield {
    yielded: bool,
}

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.yielded {
            return Poll::Ready(());
        }
        self.yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
