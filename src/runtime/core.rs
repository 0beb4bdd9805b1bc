//! What belongs to one core: its ring, its queues, its clocks' seeds.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use glommio::{Latency, Shares, TaskQueueHandle};
use ringbolt_engine::env::TaskClass;
use ringbolt_ring::{Ring, RingConfig, RingStats, RingWaker};

use super::clock;
use super::driver::Handler;
use super::probe::Durability;
use super::requests::Requests;
use super::tasks::{Queue, Runnable};
use super::timers::Timers;

/// How long a task may hold the core.
const SLICE: Duration = Duration::from_micros(500);
/// How long it may when the ring has something to collect.
const SLICE_RING_PENDING: Duration = Duration::from_micros(50);

/// The settings of one core.
#[derive(Debug, Clone)]
pub struct CoreOptions {
    /// The hot ring's limits.
    pub ring: RingConfig,
    /// How long an idle core looks for work before it sleeps. 20 to 50 µs make a lone client's
    /// request two to four times as fast; 0 saves the CPU.
    pub spin: Duration,
    /// The longest sleep.
    pub heartbeat: Duration,
    /// How log writes are made durable, as the probe found.
    pub durability: Durability,
    /// CPU shares of flush, level-0 compaction and other background tasks, 1 to 1000 each. The
    /// core loop with foreground and log has 1000.
    pub shares: [usize; 3],
}

impl Default for CoreOptions {
    fn default() -> Self {
        Self {
            ring: RingConfig::default(),
            spin: Duration::from_micros(20),
            heartbeat: Duration::from_millis(5),
            durability: Durability::WriteDatasync,
            shares: [400, 250, 150],
        }
    }
}

/// Counters of one core's loop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CoreStats {
    /// Turns of the loop, those that only looked for work included.
    pub turns: u64,
    /// Turns in which something happened.
    pub busy_turns: u64,
    /// Sleeps.
    pub parks: u64,
    /// Times the tasks were given the core.
    pub task_runs: u64,
    /// The ring's own counters.
    pub ring: RingStats,
}

pub(super) struct Core {
    pub(super) index: usize,
    pub(super) ring: RefCell<Ring>,
    pub(super) requests: Rc<Requests>,
    pub(super) timers: Rc<Timers>,
    pub(super) runnable: Arc<Runnable>,
    pub(super) handler: RefCell<Option<Rc<RefCell<dyn Handler>>>>,
    pub(super) wakers: Arc<[RingWaker]>,
    pub(super) options: CoreOptions,
    pub(super) stats: Cell<CoreStats>,
    /// What background tasks have had of the core.
    pub(super) background: Cell<Duration>,
    /// When the tasks were last given the core.
    slice_start: Cell<Instant>,
    /// Flush, level-0 compaction, other background.
    queues: [TaskQueueHandle; 3],
    random: Cell<u64>,
}

impl Core {
    /// Runs on the core's thread, inside its executor.
    pub(super) fn new(
        index: usize,
        ring: Ring,
        wakers: Arc<[RingWaker]>,
        options: CoreOptions,
    ) -> Rc<Self> {
        let executor = glommio::executor();
        let queue = |name, shares: usize| {
            let shares = Shares::Static(shares.clamp(1, 1000));
            executor.create_task_queue(shares, Latency::NotImportant, name)
        };
        let [flush, level0, background] = options.shares;
        let queues = [
            queue("flush", flush),
            queue("compact-l0", level0),
            queue("background", background),
        ];
        Rc::new(Self {
            index,
            ring: RefCell::new(ring),
            requests: Rc::default(),
            timers: Rc::default(),
            runnable: Arc::default(),
            handler: RefCell::new(None),
            wakers,
            options,
            stats: Cell::default(),
            background: Cell::default(),
            slice_start: Cell::new(Instant::now()),
            queues,
            random: Cell::new(clock::seed()),
        })
    }

    pub(super) fn queue_of(&self, class: TaskClass) -> (Queue, TaskQueueHandle) {
        match class {
            TaskClass::Foreground | TaskClass::Log => (Queue::Urgent, TaskQueueHandle::default()),
            TaskClass::Flush => (Queue::Background, self.queues[0]),
            TaskClass::CompactL0 => (Queue::Background, self.queues[1]),
            TaskClass::Background => (Queue::Background, self.queues[2]),
        }
    }

    /// Starts the slice that the tasks about to run have together.
    pub(super) fn start_slice(&self) {
        self.slice_start.set(Instant::now());
    }

    /// The slice that background tasks had is over.
    pub(super) fn end_background(&self) {
        let had = self.background.get() + self.slice_start.get().elapsed();
        self.background.set(had);
    }

    /// Whether the slice is used up.
    pub(super) fn slice_is_over(&self) -> bool {
        let used = self.slice_start.get().elapsed();
        used >= SLICE
            || (used >= SLICE_RING_PENDING
                && self.ring.try_borrow().is_ok_and(|ring| ring.has_pending()))
    }

    /// SplitMix64.
    pub(super) fn random(&self) -> u64 {
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut CoreStats)) {
        let mut stats = self.stats.get();
        change(&mut stats);
        self.stats.set(stats);
    }
}
