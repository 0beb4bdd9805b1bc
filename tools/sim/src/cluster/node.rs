//! One simulated machine with the server's process on it: a shard for each core.
//!
//! A core runs in turns, like the real loop: the shard's clock is read, what has arrived is taken
//! in, ready tasks are polled, the turn is ended, and what it sends goes out when its time has
//! passed. Between reading the clock and the rest the process may stand still for long; so may the
//! whole node, or one core, between turns.

mod losses;
mod port;
mod setup;
mod turn;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringbolt::cluster::leaving::Leaving;
use ringbolt::cluster::map::ClusterMap;
use ringbolt::cluster::{ClusterView, NodeId};
use ringbolt::shard::mail::SessionKey;
use ringbolt::shard::route::PartitionMap;
use ringbolt::shard::{ReplicaState, Shard, ShardConfig};
use ringbolt_engine::engine::{Engine, EngineOptions};
use ringbolt_engine::env::sim::{Fault, FaultRule, Rng, SimCore, SimEnv, SimMachine};
use ringbolt_engine::env::{Env, FileClass, TaskClass};
use ringbolt_engine::error::EngineError;

use super::clock::{Clock, Nanos};
use super::folder::Folder;
use super::meeting::Meeting;
use super::net::End;
use losses::Image;
pub use port::{Arrival, Out};
pub use setup::Setup;
pub use turn::Turned;

/// Never.
pub const NEVER: Nanos = Nanos::MAX;
/// How long a core's log may hang before it must lead nothing any more.
pub const HUNG_MAX: Duration = Duration::from_millis(1_500);
/// How long a stop in good order waits for what is under way.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// What the code on a core has come to.
#[derive(Default)]
struct Progress {
    shard: RefCell<Option<Shard<SimEnv>>>,
    ready: Cell<bool>,
    /// Why it did not open.
    failed: RefCell<Option<Ending>>,
    closed: Cell<bool>,
}

impl Progress {
    fn fail(&self, is_damage: bool, why: String) {
        self.failed.replace(Some(match is_damage {
            true => Ending::Damaged(why),
            false => Ending::Failed(why),
        }));
    }
}

/// One core of one life.
struct Core {
    core: SimCore,
    progress: Rc<Progress>,
    inbox: VecDeque<Arrival>,
    sessions: BTreeMap<End, SessionKey>,
    /// Its partitions that slept after its last turn.
    asleep: BTreeSet<u16>,
    /// When its next turn is, by the true time.
    wake_at: Nanos,
    /// Until when its last turn lasts, or it stands still.
    busy_until: Nanos,
    /// Whether a turn has begun and was interrupted.
    begun: bool,
    /// Until when the next turn is interrupted, if that is later than its beginning.
    stall_until: Nanos,
}

/// Why a process ends by itself.
#[derive(Debug, Clone)]
pub enum Ending {
    /// What its folder holds is damaged.
    Damaged(String),
    /// Anything else.
    Failed(String),
}

/// How a process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// There is none.
    Down,
    /// It asks the other nodes who they are: it belongs to no cluster.
    Meeting,
    /// It recovers.
    Booting,
    /// It takes connections.
    Up,
    /// It finishes what is under way.
    Stopping,
}

/// One node.
pub struct Node {
    /// Its number, from 0.
    pub number: u16,
    machine: SimMachine,
    clock: Clock,
    setup: Rc<Setup>,
    rng: Rng,
    /// What its disk is like where nothing is wrong with it.
    disk_rules: Vec<FaultRule>,
    /// Which life of its process this is.
    pub life: u64,
    cores: Vec<Core>,
    /// What its data folder says.
    pub folder: Folder,
    /// What it is at in [`State::Meeting`].
    meeting: Option<Meeting>,
    /// The cluster as its process knows it.
    cluster: Option<Arc<ClusterView>>,
    leaving: Leaving,
    /// What its disk and folder held at an earlier time.
    image: Option<Image>,
    /// How its process stands.
    pub state: State,
    /// The life in which it was last seen to have come up.
    was_up: u64,
    /// The disk fails operations.
    disk_fails: bool,
    /// It failed some since this process began, or may have.
    disk_failed: bool,
    /// A write of the log hangs, or will.
    log_hangs: bool,
    /// No turn is interrupted any more.
    pub calm: bool,
    /// Turns interrupted for long.
    pub stalls: u64,
    /// How often replicas fell asleep, and woke again.
    pub sleeps: u64,
    /// See [`Node::sleeps`].
    pub wakes: u64,
    /// Times a mailbox was full.
    pub mailboxes_full: u64,
}

impl Node {
    /// A machine on which nothing runs yet.
    #[must_use]
    pub fn new(
        number: u16,
        machine: SimMachine,
        clock: Clock,
        setup: Rc<Setup>,
        mut rng: Rng,
    ) -> Self {
        let folder = Folder::new(folder_id(&mut rng));
        let disk_rules = machine.options().faults.clone();
        Self {
            number,
            machine,
            clock,
            setup,
            rng,
            disk_rules,
            life: 0,
            cores: Vec::new(),
            folder,
            meeting: None,
            cluster: None,
            leaving: Leaving::default(),
            image: None,
            state: State::Down,
            was_up: 0,
            disk_fails: false,
            disk_failed: false,
            log_hangs: false,
            calm: false,
            stalls: 0,
            sleeps: 0,
            wakes: 0,
            mailboxes_full: 0,
        }
    }

    /// How many cores it has.
    #[must_use]
    pub fn cores(&self) -> u16 {
        self.setup.cores[usize::from(self.number)]
    }

    /// Its disk and what befalls it.
    #[must_use]
    pub fn machine(&self) -> &SimMachine {
        &self.machine
    }

    /// Moves its wall clock.
    pub fn jump_clock(&mut self, now: Nanos, by_ms: i64) {
        self.clock.jump(by_ms);
        self.machine
            .set_wall_offset_ms(self.clock.wall_offset_ms(now));
    }

    /// Sets its wall clock nearly right.
    pub fn set_clock(&mut self, now: Nanos) {
        self.clock
            .set_right(self.rng.between(0, 2_000) as i64 - 1_000);
        self.machine
            .set_wall_offset_ms(self.clock.wall_offset_ms(now));
    }

    /// What its wall clock shows, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn wall_ms(&self, now: Nanos) -> u64 {
        self.machine.wall_ms(self.clock.local(now))
    }

    /// From now on the disk fails operations by this rule too.
    pub fn break_disk(&mut self, rule: FaultRule) {
        self.disk_fails = true;
        self.disk_failed = true;
        let mut rules = self.disk_rules.clone();
        rules.push(rule);
        self.machine.store().set_faults(rules);
    }

    /// The next write of a log never comes back.
    pub fn hang_log(&mut self) {
        self.log_hangs = true;
        let rule = FaultRule::new(Fault::WriteHang, 1).only(FileClass::Log);
        self.break_disk(rule.at_most(1));
    }

    /// Whether a log write may hang.
    #[must_use]
    pub fn log_hangs(&self) -> bool {
        self.log_hangs
    }

    /// The disk is as it was before. Returns whether a log write may hang.
    pub fn unhang_log(&mut self) -> bool {
        let hangs = std::mem::take(&mut self.log_hangs);
        if hangs {
            self.mend_disk();
        }
        hangs
    }

    /// A partition that is led by a core whose log has hung for longer than leaderships may stay.
    #[must_use]
    pub fn leads_hung(&self) -> Option<u16> {
        for core in &self.cores {
            let shard = core.progress.shard.borrow();
            let hung = shard
                .as_ref()
                .filter(|shard| shard.engine().log().oldest_in_flight() > HUNG_MAX);
            let mut led = None;
            if let Some(shard) = hung {
                shard.each_replica(|state| led = led.or(state.leads.then_some(state.partition)));
            }
            if led.is_some() {
                return led;
            }
        }
        None
    }

    /// The disk is as it was before.
    pub fn mend_disk(&mut self) {
        self.disk_fails = false;
        self.machine.store().set_faults(self.disk_rules.clone());
        self.machine.store().heal();
    }

    /// Whether this process serves since the last call.
    pub fn has_come_up(&mut self) -> bool {
        let is_new = self.state == State::Up && self.was_up != self.life;
        if is_new {
            self.was_up = self.life;
        }
        is_new
    }

    /// The same, and from now on nothing takes it seconds: what is still awaited has a limit.
    pub fn mend_disk_for_good(&mut self) {
        self.disk_rules.clear();
        self.mend_disk();
    }

    /// Whether this process has met, or may have met, a disk that failed.
    #[must_use]
    pub fn has_reason_to_end(&self) -> bool {
        self.disk_failed
    }

    /// Whether a tree has stopped for a disk that works again: only a restart brings its core back.
    #[must_use]
    pub fn needs_operator(&self) -> bool {
        let stopped = |core: &Core| {
            let shard = core.progress.shard.borrow();
            let tree = shard.as_ref().map(|shard| shard.engine().tree());
            let failure = tree.and_then(|tree| tree.failure());
            failure.is_some_and(|failure| !matches!(failure, EngineError::Corrupt { .. }))
        };
        self.disk_failed && !self.disk_fails && self.cores.iter().any(stopped)
    }

    /// Starts a process: on the cores, if its folder has a place in a cluster, or else it looks for one.
    pub fn start(&mut self, now: Nanos) {
        self.life += 1;
        self.disk_failed = self.disk_fails;
        if !self.disk_fails {
            // A write that was under way as the disk was mended may have spoilt its sectors since (seeds
            // 303058 and 303227).
            self.machine.store().mend();
        }
        self.machine
            .set_wall_offset_ms(self.clock.wall_offset_ms(now));
        let id = folder_id(&mut self.rng);
        let cores = self.cores();
        self.folder.open(self.machine.store(), cores, id);
        if let Some((map, node)) = self.folder.belongs.clone() {
            return self.start_cores(now, map, node);
        }
        self.state = State::Meeting;
        let Folder { id, rejoins, .. } = &self.folder;
        let wall_ms = self.wall_ms(now);
        let own = self.setup.introduction(self.number, id, *rejoins, wall_ms);
        self.meeting = Some(Meeting::new(own));
    }

    /// What it is at while it looks for its place in a cluster.
    pub fn meeting(&mut self) -> Option<&mut Meeting> {
        self.meeting.as_mut()
    }

    /// It has found its place in a cluster.
    pub fn place(&mut self, now: Nanos, map: ClusterMap, node: NodeId) {
        self.meeting = None;
        self.folder.belongs = Some((map.clone(), node));
        self.start_cores(now, map, node);
    }

    fn start_cores(&mut self, now: Nanos, map: ClusterMap, node: NodeId) {
        self.state = State::Booting;
        let partitions = map.partitions();
        let told = self.folder.tell_start(self.rng.next_u64());
        let view = ClusterView::of_map(map, node, told, &self.folder.seen);
        let cluster = match view {
            Ok(view) => Arc::new(view),
            Err(words) => unreachable!("a map of simulated nodes: {words}"),
        };
        self.cluster = Some(Arc::clone(&cluster));
        self.leaving = Leaving::default();
        let name = format!("node-{node}");
        let map = Arc::new(PartitionMap::spread(name, partitions, self.cores()));
        self.cores.clear();
        for number in 0..self.cores() {
            let core = self.machine.core(self.clock.local(now));
            let progress = Rc::new(Progress::default());
            let config = ShardConfig {
                resp: Arc::default(),
                core: number,
                map: Arc::clone(&map),
                cluster: Arc::clone(&cluster),
                limits: self.setup.limits.clone(),
                dir: self.folder.shard_dir(number),
                space_reserve: 1 << 20,
            };
            let main = boot(
                core.env().clone(),
                self.setup.engine.clone(),
                config,
                Rc::clone(&progress),
            );
            core.env().spawn(TaskClass::Foreground, main);
            self.cores.push(Core {
                core,
                progress,
                inbox: VecDeque::new(),
                sessions: BTreeMap::new(),
                asleep: BTreeSet::new(),
                wake_at: now,
                busy_until: now,
                begun: false,
                stall_until: 0,
            });
        }
    }

    /// The cluster as its process knows it.
    #[must_use]
    pub fn cluster(&self) -> Option<&ClusterView> {
        self.cluster.as_deref()
    }

    /// What the main thread does several times a second while the cores serve: the folder keeps what
    /// was learnt. Why the data must not be used any more, if that has turned out.
    pub fn watch(&mut self, now: Nanos) -> Option<String> {
        let cluster = self.cluster.as_ref().filter(|_| self.state == State::Up)?;
        self.folder.begin();
        self.folder.follow(cluster);
        for core in &self.cores {
            let shard = core.progress.shard.borrow();
            let failure = shard
                .as_ref()
                .and_then(|shard| shard.engine().tree().failure());
            if let Some(failure @ EngineError::Corrupt { .. }) = failure {
                cluster.note_damage(&failure.to_string());
            }
        }
        if let Some(why) = cluster.outlived() {
            return Some(why.to_owned());
        }
        let cores = self.cores.len() as u16;
        let now = Duration::from_nanos(self.clock.local(now));
        self.leaving.look(cluster, cores, now)
    }

    /// The process dies at once. Its disk keeps what a killed process leaves, or what a power cut
    /// leaves; the machine then starts again with a new monotonic clock.
    pub fn die(&mut self, now: Nanos, power: bool) {
        self.state = State::Down;
        self.cores.clear();
        self.meeting = None;
        self.cluster = None;
        match power {
            true => {
                self.machine.power_cut();
                self.clock.restart(now, self.rng.below(1 << 40));
            }
            false => self.machine.kill(),
        }
    }

    /// The process is told to stop in good order.
    pub fn stop(&mut self) {
        if self.state != State::Up {
            return;
        }
        self.state = State::Stopping;
        for core in &self.cores {
            let shard = core.progress.shard.borrow().clone();
            let Some(shard) = shard else {
                continue;
            };
            shard.drain();
            let (env, progress) = (core.core.env().clone(), Rc::clone(&core.progress));
            core.core.env().spawn(TaskClass::Foreground, async move {
                let deadline = env.now() + DRAIN_MAX;
                while !shard.is_idle() && env.now() < deadline {
                    env.sleep(Duration::from_millis(5)).await;
                }
                // A failure is the shard's, which the node looks at after each turn.
                let _told_by_shard = shard.close().await;
                progress.closed.set(true);
            });
        }
    }

    /// Whether a stop in good order is done.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == State::Stopping && self.cores.iter().all(|core| core.progress.closed.get())
    }

    /// When a core's next turn is.
    #[must_use]
    pub fn wake_at(&self, core: u16) -> Nanos {
        self.cores
            .get(usize::from(core))
            .map_or(NEVER, |core| core.wake_at)
    }

    /// Brings something to a core. Returns when it will look, if that is sooner than it would have.
    pub fn arrive(&mut self, core: u16, now: Nanos, arrival: Arrival) -> Option<Nanos> {
        let core = self.cores.get_mut(usize::from(core))?;
        core.inbox.push_back(arrival);
        let at = now.max(core.busy_until);
        (at < core.wake_at).then(|| {
            core.wake_at = at;
            at
        })
    }

    /// Lets a core, or all, stand still until a time. Returns the cores whose next turn moved.
    pub fn pause(&mut self, which: Option<u16>, until: Nanos) -> Vec<u16> {
        let mut moved = Vec::new();
        for (number, core) in self.cores.iter_mut().enumerate() {
            if which.is_none_or(|which| usize::from(which) == number) {
                core.busy_until = core.busy_until.max(until);
                if core.wake_at < core.busy_until {
                    core.wake_at = core.busy_until;
                    moved.push(number as u16);
                }
            }
        }
        moved
    }

    /// Interrupts the next turn of each core until a time.
    pub fn stall(&mut self, until: Nanos) {
        for core in &mut self.cores {
            core.stall_until = until;
        }
    }

    /// A core of this process that takes a new connection; `None` if nobody listens.
    pub fn accepting_core(&mut self) -> Option<u16> {
        (self.state == State::Up).then(|| self.rng.below(u64::from(self.cores())) as u16)
    }

    /// The shard of a core, once it is open.
    #[must_use]
    pub fn shard(&self, core: u16) -> Option<Shard<SimEnv>> {
        self.cores
            .get(usize::from(core))?
            .progress
            .shard
            .borrow()
            .clone()
    }

    /// What each replica of this node is at.
    #[must_use]
    pub fn replicas(&self) -> Vec<ReplicaState> {
        let mut states = Vec::new();
        for core in &self.cores {
            if let Some(shard) = &*core.progress.shard.borrow() {
                shard.each_replica(|state| states.push(state));
            }
        }
        states
    }

    /// Starts a task on a core, as code of the process.
    pub fn spawn(
        &mut self,
        core: u16,
        now: Nanos,
        task: impl Future<Output = ()> + 'static,
    ) -> Option<Nanos> {
        let core = self.cores.get_mut(usize::from(core))?;
        core.core.env().spawn(TaskClass::Foreground, task);
        let at = now.max(core.busy_until);
        core.wake_at = at;
        Some(at)
    }
}

fn folder_id(rng: &mut Rng) -> String {
    format!("{:016x}", rng.next_u64())
}

/// What the main task of a core does.
async fn boot(env: SimEnv, options: EngineOptions, config: ShardConfig, progress: Rc<Progress>) {
    let dir = config.dir.clone();
    let (engine, recovered) = match Engine::open(env.clone(), &dir, options).await {
        Ok(opened) => opened,
        Err(error) => {
            let is_damage = matches!(error, EngineError::Corrupt { .. });
            progress.fail(is_damage, error.to_string());
            return;
        }
    };
    let shard = Shard::new(env, engine, config);
    progress.shard.replace(Some(shard.clone()));
    match shard.start(recovered).await {
        Ok(()) => progress.ready.set(true),
        Err(error) => progress.fail(error.is_damage, error.to_string()),
    }
}
