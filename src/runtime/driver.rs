//! The loop of one core.

use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use glommio::TaskQueueHandle;
use ringbolt_ring::{Event, Ring, RingError};

use super::core::Core;
use super::spin::Spin;
use super::{clock, requests};

/// How long a core whose main is finished waits for file requests that are still under way.
const LAST_REQUESTS_WITHIN: Duration = Duration::from_secs(5);

/// What a core does with its sockets. All methods run on the core's thread, between tasks, with
/// the ring at hand; [`RealEnv::with_ring`](super::RealEnv::with_ring) must not be used in them.
pub trait Handler {
    /// Something happened on the ring. File completions never come here.
    fn on_event(&mut self, ring: &mut Ring, event: Event);

    /// The events of this turn are through and the tasks have run: take mail, propose, start log
    /// writes, queue sends.
    fn turn_end(&mut self, ring: &mut Ring) -> Turn;

    /// Whether another core has sent something. Asked last thing before the core sleeps.
    fn has_mail(&self) -> bool;
}

/// What a turn's end says about the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing is left to do until something happens.
    Idle,
    /// The same, but not later than this moment of [`Env::now`](ringbolt_engine::env::Env::now).
    Until(Duration),
    /// There is more to do: come again at once.
    Busy,
}

/// Why a core stopped before its work was done.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// The ring failed: the node must stop.
    #[error("core {core}: {error}")]
    Ring {
        /// The core.
        core: usize,
        /// How.
        #[source]
        error: RingError,
    },
    /// The core's thread panicked: the node must stop.
    #[error("core {core} panicked: {message}")]
    Panicked {
        /// The core.
        core: usize,
        /// What it said.
        message: String,
    },
}

/// Runs the loop until `done` says that the core's work is finished.
pub(super) async fn drive(
    core: &Rc<Core>,
    mut done: impl FnMut() -> bool,
) -> Result<(), RingError> {
    let mut spin = Spin::default();
    // Since when work is looked for.
    let mut looking_since: Option<Instant> = None;
    loop {
        let mut busy = core.ring.borrow_mut().submit()? > 0;
        dispatch(core);
        fire_timers(core);
        busy |= run_tasks(core).await;
        if done() {
            return Ok(());
        }
        let turn = turn_end(core);
        busy |= turn == Turn::Busy;
        // What the turn's end started (a log write, say) goes out with this turn's submit.
        if core.runnable.urgent() {
            run_tasks(core).await;
            busy = true;
        }
        {
            let mut ring = core.ring.borrow_mut();
            busy |= core.requests.pour(&mut ring);
            busy |= ring.has_queued();
            let counters = ring.stats();
            core.count(|stats| {
                stats.turns += 1;
                stats.busy_turns += u64::from(busy);
                stats.ring = counters;
            });
        }
        if busy || core.runnable.urgent() || core.runnable.background() {
            if looking_since.take().is_some() {
                spin.hit();
            }
            continue;
        }
        match looking_since {
            None if may_spin(core) && spin.begin() => looking_since = Some(Instant::now()),
            Some(since) if since.elapsed() < core.options.spin => std::hint::spin_loop(),
            _ => {
                if looking_since.take().is_some() {
                    spin.miss();
                }
                park(core, turn)?;
            }
        }
    }
}

/// Whether work may come sooner than a core could sleep and wake.
fn may_spin(core: &Core) -> bool {
    !core.options.spin.is_zero() && core.requests.pending() == 0
}

/// Brings what completed to where it belongs.
fn dispatch(core: &Core) {
    let mut ring = core.ring.borrow_mut();
    let handler = core.handler.borrow().clone();
    let mut handler = handler.as_ref().map(|handler| handler.borrow_mut());
    while let Some(event) = ring.next_event() {
        match event {
            Event::FileDone { token, result, buf } => {
                let answer: requests::Answer = (result, buf);
                core.requests.answer(token, answer);
            }
            event => {
                if let Some(handler) = &mut handler {
                    handler.on_event(&mut ring, event);
                }
            }
        }
    }
}

fn fire_timers(core: &Core) {
    if core.timers.earliest().is_some() {
        core.timers.fire(clock::now());
    }
}

fn turn_end(core: &Core) -> Turn {
    let handler = core.handler.borrow().clone();
    match handler {
        Some(handler) => handler.borrow_mut().turn_end(&mut core.ring.borrow_mut()),
        None => Turn::Idle,
    }
}

/// Gives the runnable tasks the core: the urgent ones one poll each, the background ones the rest
/// of a slice. Returns whether any urgent one was.
async fn run_tasks(core: &Core) -> bool {
    let urgent = core.runnable.urgent();
    if urgent {
        core.count(|stats| stats.task_runs += 1);
        core.start_slice();
        // They are ahead of the loop in its own queue.
        glommio::executor().yield_now().await;
    }
    if core.runnable.background() {
        core.count(|stats| stats.task_runs += 1);
        core.start_slice();
        glommio::executor().yield_task_queue_now().await;
        core.end_background();
    }
    urgent
}

/// Lets a task whose slice is over go to the back: of its queue, or with its queue.
pub(super) async fn give_way() {
    let executor = glommio::executor();
    if executor.current_task_queue() == TaskQueueHandle::default() {
        executor.yield_now().await;
    } else {
        executor.yield_task_queue_now().await;
    }
}

/// Sleeps in the ring until something happens, a timer is due or the heartbeat.
fn park(core: &Core, turn: Turn) -> Result<(), RingError> {
    let mut ring = core.ring.borrow_mut();
    let mut timeout = core.options.heartbeat;
    if let Some(earliest) = core.timers.earliest() {
        timeout = timeout.min(earliest.saturating_sub(clock::now()));
    }
    if let Turn::Until(due) = turn {
        timeout = timeout.min(due.saturating_sub(clock::now()));
    }
    ring.park();
    let handler = core.handler.borrow().clone();
    let mail = handler.is_some_and(|handler| handler.borrow().has_mail());
    let slept = if mail || timeout.is_zero() {
        Ok(0)
    } else {
        core.count(|stats| stats.parks += 1);
        ring.wait(timeout)
    };
    ring.unpark();
    slept.map(drop)
}

/// Runs `main` and the loop until `main` is finished.
pub(super) async fn run<T: 'static>(
    core: Rc<Core>,
    main: impl Future<Output = T> + 'static,
) -> Result<T, CoreError> {
    let outcome = Rc::new(std::cell::RefCell::new(None));
    let slot = Rc::clone(&outcome);
    let env = super::RealEnv::new(Rc::clone(&core));
    ringbolt_engine::env::Env::spawn(
        &env,
        ringbolt_engine::env::TaskClass::Foreground,
        async move {
            let value = main.await;
            *slot.borrow_mut() = Some(value);
        },
    );
    let fail = |error| CoreError::Ring {
        core: core.index,
        error,
    };
    loop {
        drive(&core, || outcome.borrow().is_some())
            .await
            .map_err(fail)?;
        let Some(value) = outcome.borrow_mut().take() else {
            continue;
        };
        // What tasks left with the disk is finished before the ring goes.
        let deadline = clock::now() + LAST_REQUESTS_WITHIN;
        drive(&core, || {
            core.requests.pending() == 0 || clock::now() >= deadline
        })
        .await
        .map_err(fail)?;
        return Ok(value);
    }
}
