//! One simulated machine with the server's process on it: a shard for each core.
//!
//! A core runs in turns, like the real loop: the shard's clock is read, what has arrived is taken
//! in, ready tasks are polled, the turn is ended, and what it sends goes out when its time has
//! passed. Between reading the clock and the rest the process may stand still for long; so may the
//! whole node, or one core, between turns.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringbolt::cluster::{ClusterView, Identity, NodeId, NodeInfo};
use ringbolt::shard::limits::ShardLimits;
use ringbolt::shard::mail::{Parcel, SessionKey};
use ringbolt::shard::route::PartitionMap;
use ringbolt::shard::{Port, ReplicaState, Shard, ShardConfig};
use ringbolt_engine::engine::{Engine, EngineOptions};
use ringbolt_engine::env::sim::{FaultRule, Rng, SimCore, SimEnv, SimMachine};
use ringbolt_engine::env::{Env, TaskClass};

use super::clock::{Clock, MICRO, MILLI, Nanos};
use super::net::End;

/// Never.
pub const NEVER: Nanos = Nanos::MAX;
/// How long a core sleeps at most.
const HEARTBEAT: Nanos = 5 * MILLI;
/// Parcels that a mailbox holds at most.
const MAILBOX: usize = 64;
/// How long a stop in good order waits for what is under way.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Tasks polled in one turn, at most.
const POLLS_MAX: u64 = 24;

/// What has arrived at a core.
#[derive(Debug)]
pub enum Arrival {
    /// A connection, with what it has sent to the core that had it before.
    Connection(End, Vec<u8>),
    /// Bytes.
    Bytes(End, Vec<u8>),
    /// The other side sends no more.
    Ended(End),
    /// The connection is gone.
    Closed(End),
    /// A send is done.
    Sent(End, Vec<u8>),
    /// Mail of another core.
    Parcel(Parcel),
    /// The answer to a dial; `None` if there is no connection.
    Dialed(u64, Option<End>),
}

/// What a core wants of the world, in order.
#[derive(Debug)]
pub enum Out {
    /// Bytes sent.
    Send(End, Vec<u8>),
    /// A connection to be read no more, or again.
    Pause(End, bool),
    /// A connection to be closed once what was sent has gone out.
    Finish(End),
    /// A connection to be closed at once.
    Close(End),
    /// A connection for another core.
    HandOver(End, u16, Vec<u8>),
    /// Mail for another core.
    Post(u16, Parcel),
    /// A connection to another node.
    Dial(u64, NodeId),
}

struct Outbox<'a> {
    out: Vec<Out>,
    /// Room in each core's mailbox.
    room: &'a [usize],
}

impl Port for Outbox<'_> {
    fn send(&mut self, handle: u64, bytes: Vec<u8>) {
        self.out.push(Out::Send(handle, bytes));
    }
    fn pause(&mut self, handle: u64) {
        self.out.push(Out::Pause(handle, true));
    }
    fn resume(&mut self, handle: u64) {
        self.out.push(Out::Pause(handle, false));
    }
    fn finish(&mut self, handle: u64) {
        self.out.push(Out::Finish(handle));
    }
    fn close(&mut self, handle: u64) {
        self.out.push(Out::Close(handle));
    }
    fn hand_over(&mut self, handle: u64, core: u16, input: Vec<u8>) {
        self.out.push(Out::HandOver(handle, core, input));
    }
    fn dial(&mut self, dial: u64, node: NodeId) {
        self.out.push(Out::Dial(dial, node));
    }
    fn post(&mut self, core: u16, parcel: Parcel) -> Result<(), Parcel> {
        if self.room.get(usize::from(core)) == Some(&0) {
            return Err(parcel);
        }
        self.out.push(Out::Post(core, parcel));
        Ok(())
    }
}

/// What the code on a core has come to.
#[derive(Default)]
struct Progress {
    shard: RefCell<Option<Shard<SimEnv>>>,
    ready: Cell<bool>,
    /// Why it did not open.
    failed: RefCell<Option<String>>,
    closed: Cell<bool>,
}

/// One core of one life.
struct Core {
    core: SimCore,
    progress: Rc<Progress>,
    inbox: VecDeque<Arrival>,
    sessions: BTreeMap<End, SessionKey>,
    /// When its next turn is, by the true time.
    wake_at: Nanos,
    /// Until when its last turn lasts, or it stands still.
    busy_until: Nanos,
    /// Whether a turn has begun and was interrupted.
    begun: bool,
}

/// How a process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// There is none.
    Down,
    /// It recovers.
    Booting,
    /// It takes connections.
    Up,
    /// It finishes what is under way.
    Stopping,
}

/// How every node of a run is set up.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Partitions of the cluster.
    pub partitions: u16,
    /// The engine.
    pub engine: EngineOptions,
    /// The shard.
    pub limits: ShardLimits,
    /// One in so many turns is interrupted for long; 0 for none.
    pub stall_one_in: u64,
    /// Cores of each node.
    pub cores: Vec<u16>,
}

impl Setup {
    /// By partition: the nodes that hold it, the one that should lead first.
    fn placement(&self) -> Vec<Vec<NodeId>> {
        let nodes = self.cores.len();
        let of_partition = |partition| {
            let holders = (0..nodes.min(REPLICAS)).map(|i| (partition + i) % nodes);
            holders.map(|node| node as NodeId + 1).collect()
        };
        (0..usize::from(self.partitions))
            .map(of_partition)
            .collect()
    }

    /// The nodes as each of them knows them.
    fn nodes(&self) -> Vec<NodeInfo> {
        let nodes = (1..).zip(&self.cores);
        nodes
            .map(|(id, &cores)| NodeInfo {
                id,
                name: format!("node-{id}"),
                address: SocketAddr::from(([10, 0, 0, id as u8], 7400)),
                cores,
                zone: String::new(),
                weight: 1,
            })
            .collect()
    }
}

/// Replicas of each partition, where there are as many nodes.
const REPLICAS: usize = 3;

/// The number of every simulated cluster.
const CLUSTER: u64 = 1;

/// What a turn came to.
pub struct Turned {
    /// What it wants.
    pub out: Vec<Out>,
    /// When that goes out.
    pub at: Nanos,
    /// When the next turn is wanted.
    pub next: Nanos,
    /// The partitions that it leads, with the term.
    pub leads: Vec<(u16, u64)>,
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
    /// How its process stands.
    pub state: State,
    /// The disk fails operations.
    disk_fails: bool,
    /// It failed some since this process began, or may have.
    disk_failed: bool,
    /// Turns interrupted for long.
    pub stalls: u64,
    /// Times a mailbox was full.
    pub mailboxes_full: u64,
}

impl Node {
    /// A machine on which nothing runs yet.
    #[must_use]
    pub fn new(number: u16, machine: SimMachine, clock: Clock, setup: Rc<Setup>, rng: Rng) -> Self {
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
            state: State::Down,
            disk_fails: false,
            disk_failed: false,
            stalls: 0,
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

    /// From now on the disk fails operations by this rule too.
    pub fn break_disk(&mut self, rule: FaultRule) {
        self.disk_fails = true;
        self.disk_failed = true;
        let mut rules = self.disk_rules.clone();
        rules.push(rule);
        self.machine.store().set_faults(rules);
    }

    /// The disk is as it was before.
    pub fn mend_disk(&mut self) {
        self.disk_fails = false;
        self.machine.store().set_faults(self.disk_rules.clone());
        self.machine.store().heal();
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
            tree.is_some_and(|tree| tree.failure().is_some())
        };
        self.disk_failed && !self.disk_fails && self.cores.iter().any(stopped)
    }

    /// Starts a process.
    pub fn start(&mut self, now: Nanos) {
        self.life += 1;
        self.disk_failed = self.disk_fails;
        self.state = State::Booting;
        self.machine
            .set_wall_offset_ms(self.clock.wall_offset_ms(now));
        let name = format!("node-{}", self.number + 1);
        let map = Arc::new(PartitionMap::spread(
            name,
            self.setup.partitions,
            self.cores(),
        ));
        let identity = Identity {
            cluster: CLUSTER,
            node: NodeId::from(self.number) + 1,
            boot: self.life,
            start: self.rng.next_u64(),
        };
        let cluster = Arc::new(ClusterView::new(
            identity,
            self.setup.nodes(),
            self.setup.placement(),
        ));
        self.cores.clear();
        for number in 0..self.cores() {
            let core = self.machine.core(self.clock.local(now));
            let progress = Rc::new(Progress::default());
            let dir = PathBuf::from(format!("shard-{number:03}"));
            let config = ShardConfig {
                resp: Arc::default(),
                core: number,
                map: Arc::clone(&map),
                cluster: Arc::clone(&cluster),
                limits: self.setup.limits.clone(),
                dir,
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
                wake_at: now,
                busy_until: now,
                begun: false,
            });
        }
    }

    /// The process dies at once. Its disk keeps what a killed process leaves, or what a power cut
    /// leaves; the machine then starts again with a new monotonic clock.
    pub fn die(&mut self, now: Nanos, power: bool) {
        self.state = State::Down;
        self.cores.clear();
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

    /// One turn of a core. `None` if it was interrupted and goes on later.
    ///
    /// # Errors
    /// Why the process must end: it could not open, or its shard failed.
    pub fn turn(&mut self, number: u16, now: Nanos) -> Result<Turned, String> {
        let room: Vec<usize> = self
            .cores
            .iter()
            .map(|core| MAILBOX.saturating_sub(core.inbox.len()))
            .collect();
        let stall = self.rng.one_in(self.setup.stall_one_in);
        let stall_ns = self.rng.between(MILLI, 3_000 * MILLI);
        let cost = self.rng.between(MICRO, 8 * MICRO);
        let heartbeat = self.rng.between(HEARTBEAT / 2, HEARTBEAT);
        let clock = self.clock;
        let core = &mut self.cores[usize::from(number)];
        core.core.advance_to(clock.local(now));
        let shard = core.progress.shard.borrow().clone();
        if let Some(shard) = &shard
            && !std::mem::take(&mut core.begun)
        {
            shard.begin_turn();
            if stall {
                self.stalls += 1;
                core.begun = true;
                core.busy_until = now + stall_ns;
                core.wake_at = core.busy_until;
                return Ok(Turned {
                    out: Vec::new(),
                    at: now,
                    next: core.wake_at,
                    leads: Vec::new(),
                });
            }
        }
        let mut out = Vec::new();
        let mut due = None;
        if let Some(shard) = &shard {
            while let Some(arrival) = core.inbox.pop_front() {
                take_in(shard, &mut core.sessions, arrival, &mut out);
            }
        }
        core.core.run_tasks(POLLS_MAX);
        if let Some(shard) = &shard {
            let mut port = Outbox { out, room: &room };
            due = shard.end_turn(&mut port);
            out = port.out;
            for wish in &out {
                if let Out::Finish(end) | Out::Close(end) | Out::HandOver(end, _, _) = wish {
                    core.sessions.remove(end);
                }
            }
            if let Some(error) = shard.failure() {
                return Err(format!("the shard of core {number} failed: {error}"));
            }
        }
        if let Some(error) = core.progress.failed.take() {
            return Err(format!("core {number} did not start: {error}"));
        }
        if core.core.crash_is_due() {
            return Err("a crash that was asked for".to_owned());
        }
        core.core.advance_to(core.core.now_ns() + cost);
        let at = clock.global(core.core.now_ns()).max(now);
        core.core.advance_to(clock.local(at));
        core.busy_until = at;
        let task = core
            .core
            .next_ns()
            .map_or(NEVER, |local| clock.global(local));
        let due = due.map_or(NEVER, |due| clock.global(due.as_nanos() as u64));
        core.wake_at = task.min(due).min(at + heartbeat).max(at);
        let mut leads = Vec::new();
        if let Some(shard) = &shard {
            shard.each_replica(|state| {
                if state.leads {
                    leads.push((state.partition, state.term));
                }
            });
        }
        let turned = Turned {
            out,
            at,
            next: core.wake_at,
            leads,
        };
        if self.state == State::Booting && self.cores.iter().all(|core| core.progress.ready.get()) {
            self.state = State::Up;
        }
        Ok(turned)
    }
}

/// What the main task of a core does.
async fn boot(env: SimEnv, options: EngineOptions, config: ShardConfig, progress: Rc<Progress>) {
    let dir = config.dir.clone();
    let (engine, recovered) = match Engine::open(env.clone(), &dir, options).await {
        Ok(opened) => opened,
        Err(error) => {
            progress.failed.replace(Some(error.to_string()));
            return;
        }
    };
    let shard = Shard::new(env, engine, config);
    progress.shard.replace(Some(shard.clone()));
    match shard.start(recovered).await {
        Ok(()) => progress.ready.set(true),
        Err(error) => {
            progress.failed.replace(Some(error.to_string()));
        }
    }
}

fn take_in(
    shard: &Shard<SimEnv>,
    sessions: &mut BTreeMap<End, SessionKey>,
    arrival: Arrival,
    out: &mut Vec<Out>,
) {
    match arrival {
        Arrival::Connection(end, input) => match shard.connected(end) {
            Some(session) => {
                sessions.insert(end, session);
                if !input.is_empty() {
                    shard.received(session, &input);
                }
            }
            None => out.push(Out::Finish(end)),
        },
        Arrival::Bytes(end, bytes) => {
            if let Some(session) = sessions.get(&end) {
                shard.received(*session, &bytes);
            }
        }
        Arrival::Ended(end) => {
            if let Some(session) = sessions.get(&end) {
                shard.ended(*session);
            }
        }
        Arrival::Closed(end) => {
            if let Some(session) = sessions.remove(&end) {
                shard.closed(session);
            }
        }
        Arrival::Sent(end, buf) => {
            if let Some(session) = sessions.get(&end) {
                shard.sent(*session, buf);
            }
        }
        Arrival::Parcel(parcel) => shard.parcel(&parcel),
        Arrival::Dialed(dial, None) => {
            // Nothing is there that could be closed.
            let _none = shard.dialed(dial, Err(io::ErrorKind::ConnectionRefused.into()));
        }
        Arrival::Dialed(dial, Some(end)) => match shard.dialed(dial, Ok(end)) {
            Some(session) => {
                sessions.insert(end, session);
            }
            None => out.push(Out::Close(end)),
        },
    }
}
