//! One core's request path: from the bytes of a connection to the engine and back.
//!
//! A [`Shard`] is sans-IO: sockets, mailboxes and the loop that drives it are handed in through
//! [`Port`], everything else through the engine's [`Env`]. So the simulator runs this very code.
//!
//! One turn of the loop, in this order:
//!
//! 1. [`Shard::begin_turn`] reads the clock once;
//! 2. [`Shard::received`], [`Shard::parcel`], [`Shard::sent`] take what has arrived. Frames are
//!    parsed in place; what memory can answer is answered at once, with no task and no allocation
//!    (`read`); a write is decided, numbered and encoded into the log's open group (`write`); what
//!    needs the disk becomes a task;
//! 3. [`Shard::end_turn`] applies what became durable and answers it (`commit`), submits the log's
//!    group, and hands each connection's replies to its socket in one send. Every turn ends with
//!    it, after the tasks have run: so nothing that a task did needs to wake the loop.
//!
//! Who may answer is in the request's [`mail::Origin`]: a connection of this core, or another core
//! that forwarded the request, or another node (`reply`). A request that needs several cores is split
//! and gathered (`gather`); one that another node must serve is sent there once (`forward`), over
//! links from core to core (`peers`).

mod admin;
mod ahead;
mod catch_up;
mod clocks;
mod commit;
mod consensus;
pub mod counters;
mod decide;
mod drain;
mod forward;
mod gather;
pub mod hot;
mod input;
mod keyspaces;
mod learn;
pub mod limits;
mod logging;
pub mod mail;
mod members;
mod multi_get;
mod observe;
mod old_reads;
mod own_rows;
mod peer_hello;
mod peers;
mod pending;
mod pulse;
mod read;
mod read_level;
mod refuse;
mod reply;
mod resp;
pub mod route;
mod scan;
mod sessions;
mod signal;
mod space;
mod start;
mod stats;
mod status;
#[cfg(test)]
mod tests;
pub mod trace;
mod turn;
pub mod view;
mod write;
mod writers;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use ringbolt_engine::engine::Engine;
use ringbolt_engine::entry::LogId;
use ringbolt_engine::env::Env;
use ringbolt_engine::error::EngineError;
use ringbolt_engine::row::RowKeyBuf;
use ringbolt_engine::snapshot::Staged;
use ringbolt_wire::message::{PartitionId, Token};
use ringbolt_wire::peer::NodeState;

use crate::cluster::{ClusterView, NodeId};
use crate::replica::Replica;
use crate::resp::Options;
use admin::UnfinishedDrop;
use catch_up::{BrokenOff, Receiving, Sending};
use consensus::Rounds;
use counters::Counters;
use forward::Forwards;
use gather::Gathers;
use hot::Hot;
use keyspaces::Keyspaces;
use learn::Learning;
use limits::ShardLimits;
use logging::{Awaiting, Unlogged};
use mail::{Origin, Parcel, Scope, SessionKey};
use old_reads::OldReads;
use peers::Peers;
use pending::{Outcome, PendingQueue};
use resp::Resp;
use route::PartitionMap;
use sessions::{Sessions, Stage};
use trace::{Account, Acks};

pub use observe::ReplicaState;
pub use resp::resp_refusal;

/// The sockets and mailboxes of a core, as a shard sees them.
pub trait Port {
    /// Sends bytes on a connection; they come back by [`Shard::sent`]. Never called while a send
    /// on the same connection is under way.
    fn send(&mut self, handle: u64, bytes: Vec<u8>);
    /// Stops reading a connection until [`Port::resume`].
    fn pause(&mut self, handle: u64);
    /// Reads a connection again.
    fn resume(&mut self, handle: u64);
    /// Closes a connection once what was sent has gone out. The shard has forgotten it already.
    fn finish(&mut self, handle: u64);
    /// Closes a connection at once. The shard has forgotten it already.
    fn close(&mut self, handle: u64);
    /// Moves a connection to another core, which first takes `input` as if it came from the
    /// socket. The shard has forgotten it already.
    fn hand_over(&mut self, handle: u64, core: u16, input: Vec<u8>);
    /// Connects to another node, at whichever of its cores. The answer is [`Shard::dialed`], in a
    /// later turn; `dial` is opaque.
    fn dial(&mut self, dial: u64, node: NodeId);
    /// Posts a parcel to another core. Gives it back if the mailbox is full.
    ///
    /// # Errors
    /// The parcel, to be posted in a later turn.
    fn post(&mut self, core: u16, parcel: Parcel) -> Result<(), Parcel>;
}

/// What a shard is told at its start.
pub struct ShardConfig {
    /// The core it lives on.
    pub core: u16,
    /// The node's partition map.
    pub map: Arc<PartitionMap>,
    /// The cluster that the node belongs to.
    pub cluster: Arc<ClusterView>,
    /// Its limits.
    pub limits: ShardLimits,
    /// The door for Redis clients.
    pub resp: Arc<Options>,
    /// The engine's folder, whose file system is watched for free space.
    pub dir: std::path::PathBuf,
    /// Free space, in bytes, below which puts are refused.
    pub space_reserve: u64,
}

/// Connections beyond `sessions_max` that are taken until they say what they are.
const GREETING_MAX: usize = 128;

/// One core's shard. Cheap to clone; lives on one core.
pub struct Shard<E: Env>(Rc<Inner<E>>);

impl<E: Env> Clone for Shard<E> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

/// The clock, read once a turn.
#[derive(Debug, Clone, Copy, Default)]
struct TurnClock {
    now: Duration,
    /// The same in microseconds.
    us: u64,
    wall_ms: u64,
}

/// A request that waits until its partitions have applied certain entries.
struct Deferred {
    wanted: Vec<(PartitionId, u64)>,
    origin: Origin,
    scope: Scope,
    frame: Vec<u8>,
}

/// A connection that wants another core.
struct Leaving {
    key: SessionKey,
    handle: u64,
    core: u16,
    /// All it has sent, its hello first: the other core reads it again.
    input: Vec<u8>,
}

/// A write that is committed, and waits until more replicas have stored it.
struct Spreading {
    partition: PartitionId,
    id: LogId,
    /// How many voters must have stored it.
    needed: usize,
    bytes: u32,
    outcome: Outcome,
}

/// An acknowledgement held back by write throttling.
struct Held {
    until: Duration,
    token: Token,
    outcome: Outcome,
}

struct Inner<E: Env> {
    env: E,
    engine: Engine<E>,
    config: ShardConfig,
    clock: Cell<TurnClock>,
    sessions: RefCell<Sessions>,
    /// Connections that ended since the last turn and are to be closed by the port.
    closing: RefCell<Vec<u64>>,
    /// Connections to hand to other cores at the turn's end.
    leaving: RefCell<Vec<Leaving>>,
    /// By partition; `None` where another core owns it.
    replicas: RefCell<Box<[Option<Replica>]>>,
    /// By partition.
    pending: RefCell<Box<[PendingQueue]>>,
    /// How many pending writes are to be answered once they are durable here.
    leader_acks: Cell<u64>,
    spreading: RefCell<Vec<Spreading>>,
    /// Replicas with something to do, and by partition whether it is among them.
    driving: RefCell<Vec<PartitionId>>,
    driving_flags: Box<[Cell<bool>]>,
    /// By partition: the newest group of the log with a record of it.
    logged: RefCell<Box<[u64]>>,
    /// The newest group of the log that is durable.
    durable: Cell<u64>,
    awaiting: RefCell<Vec<Awaiting>>,
    unlogged: RefCell<VecDeque<Unlogged>>,
    /// What the leader of a partition lets wait for its commit: so much can be carried forward.
    uncommitted_bytes_max: usize,
    rounds: RefCell<AHashMap<PartitionId, Rounds>>,
    /// Snapshots on their way to followers, those being received, and those to be installed.
    sending: RefCell<Vec<Sending>>,
    broken_off: RefCell<Vec<BrokenOff<E>>>,
    /// When rows of snapshots may be sent again.
    copy_at: Cell<Duration>,
    /// Reads of the log for followers that are behind.
    old_reads: RefCell<OldReads>,
    receiving: RefCell<AHashMap<PartitionId, Receiving<E>>>,
    staged: RefCell<AHashMap<PartitionId, Staged<E>>>,
    next_tick: Cell<Duration>,
    /// Something was not logged: nothing is done any more.
    halted: Cell<bool>,
    /// When this process began, and what its clock is shifted by before a peer sees it.
    began: Duration,
    clock_offset: u64,
    deferred: RefCell<Vec<Deferred>>,
    /// Requests whose wait is over, to be taken up this turn.
    ready: RefCell<Vec<Deferred>>,
    held: RefCell<VecDeque<Held>>,
    /// Acknowledgements that are left to the next turn.
    postponed: RefCell<VecDeque<(Outcome, Token)>>,
    /// Connections to which this turn may still acknowledge writes.
    acks_left: Cell<usize>,
    /// Reads of single keys up to the last turn.
    gets_before: Cell<u64>,
    throttle_until: Cell<Duration>,
    /// What goes to each core at the end of the turn.
    parcels: RefCell<Box<[Parcel]>>,
    gathers: RefCell<Gathers>,
    peers: RefCell<Peers>,
    forwards: RefCell<Forwards>,
    keyspaces: RefCell<Keyspaces>,
    resp: Resp,
    /// Whether a keyspace is being created or dropped: one at a time.
    keyspaces_busy: Cell<bool>,
    /// What the home leader has yet to drop whole.
    dropping: RefCell<Vec<UnfinishedDrop>>,
    next_dropping: Cell<Duration>,
    learning: RefCell<Learning>,
    /// When this core asks for the keyspaces anew.
    next_learning: Cell<Duration>,
    /// Whether this core serves as the leader of the home partition.
    leads_home: Cell<bool>,
    /// Whether a change of the cluster map is under way: one at a time.
    map_busy: Cell<bool>,
    /// The version of the cluster map that the replicas know, and with it who may lead.
    map_taken: Cell<(u64, u64)>,
    /// Ticks since a log write has been under way for long.
    slow_ticks: Cell<u32>,
    /// How often the other nodes are still to be told that this one drains, or does not any more.
    tells_left: Cell<u32>,
    told_state: Cell<NodeState>,
    /// When the other nodes are told this node's clock again.
    next_clock: Cell<Duration>,
    /// When the cluster map is told again to the nodes that do not hold it.
    next_telling: Cell<Duration>,
    row_key: RefCell<RowKeyBuf>,
    hasher: ahash::RandomState,
    inflight_bytes: Cell<usize>,
    space_low: Cell<bool>,
    accepting: Cell<bool>,
    next_sweep: Cell<Duration>,
    next_expiry: Cell<Duration>,
    counters: Counters,
    account: Account,
    /// When replicas have stored what.
    acks: RefCell<Acks>,
    hot: Hot,
}

/// A moment or a span in whole microseconds.
fn micros(time: Duration) -> u64 {
    time.as_secs() * 1_000_000 + u64::from(time.subsec_micros())
}

impl<E: Env> Shard<E> {
    /// A shard over an open engine. It serves once [`Shard::start`] is done.
    pub fn new(env: E, engine: Engine<E>, config: ShardConfig) -> Self {
        let partitions = usize::from(config.map.partitions());
        let cores = usize::from(config.map.cores());
        let (began, clock_offset) = (env.now(), env.random());
        let uncommitted_bytes_max = engine.log().uncommitted_bytes_max();
        let shard = Self(Rc::new(Inner {
            clock: Cell::new(TurnClock::default()),
            account: Account::new(micros(config.limits.slow_threshold) as u32),
            acks: RefCell::new(Acks::new(partitions)),
            hot: Hot::new(partitions, micros(began)),
            resp: Resp::new(
                Arc::clone(&config.resp),
                &config.limits,
                config.core,
                env.random(),
            ),
            hasher: ahash::RandomState::with_seeds(env.random(), 1, 2, 3),
            env,
            engine,
            config,
            sessions: RefCell::default(),
            closing: RefCell::default(),
            leaving: RefCell::default(),
            replicas: RefCell::new((0..partitions).map(|_| None).collect()),
            pending: RefCell::new((0..partitions).map(|_| PendingQueue::default()).collect()),
            leader_acks: Cell::new(0),
            spreading: RefCell::default(),
            driving: RefCell::default(),
            driving_flags: (0..partitions).map(|_| Cell::new(false)).collect(),
            logged: RefCell::new((0..partitions).map(|_| 0).collect()),
            durable: Cell::new(0),
            awaiting: RefCell::default(),
            unlogged: RefCell::default(),
            uncommitted_bytes_max,
            rounds: RefCell::default(),
            sending: RefCell::default(),
            broken_off: RefCell::default(),
            copy_at: Cell::default(),
            old_reads: RefCell::default(),
            receiving: RefCell::default(),
            staged: RefCell::default(),
            next_tick: Cell::new(Duration::ZERO),
            halted: Cell::new(false),
            began,
            clock_offset,
            deferred: RefCell::default(),
            ready: RefCell::default(),
            held: RefCell::default(),
            postponed: RefCell::default(),
            acks_left: Cell::new(usize::MAX),
            gets_before: Cell::default(),
            throttle_until: Cell::new(Duration::ZERO),
            parcels: RefCell::new((0..cores).map(|_| Parcel::default()).collect()),
            gathers: RefCell::default(),
            peers: RefCell::default(),
            forwards: RefCell::default(),
            keyspaces: RefCell::default(),
            keyspaces_busy: Cell::new(false),
            dropping: RefCell::default(),
            next_dropping: Cell::new(Duration::ZERO),
            learning: RefCell::default(),
            next_learning: Cell::new(Duration::ZERO),
            leads_home: Cell::new(false),
            map_busy: Cell::new(false),
            map_taken: Cell::new((0, 0)),
            slow_ticks: Cell::new(0),
            tells_left: Cell::new(0),
            told_state: Cell::default(),
            next_clock: Cell::default(),
            next_telling: Cell::new(Duration::ZERO),
            row_key: RefCell::default(),
            inflight_bytes: Cell::new(0),
            space_low: Cell::new(false),
            accepting: Cell::new(true),
            next_sweep: Cell::new(Duration::ZERO),
            next_expiry: Cell::new(Duration::ZERO),
            counters: Counters::default(),
        }));
        shard.0.read_clock();
        shard
    }

    /// The engine.
    pub fn engine(&self) -> &Engine<E> {
        &self.0.engine
    }

    /// Why the shard cannot go on, if it cannot: its process must stop (invariant 6).
    pub fn failure(&self) -> Option<EngineError> {
        self.0.engine.failure()
    }

    /// A connection was accepted. `None` if there are too many: close it after telling so by the
    /// frame that [`Shard::refusal`] gives.
    pub fn connected(&self, handle: u64) -> Option<SessionKey> {
        let inner = &self.0;
        let mut sessions = inner.sessions.borrow_mut();
        // One that has not said hello may be another node's, which is not held to this limit.
        let most = inner.config.limits.sessions_max + GREETING_MAX;
        if !inner.accepting.get() || sessions.clients() >= most {
            counters::add(&inner.counters.connections_refused_total, 1);
            return None;
        }
        counters::add(&inner.counters.connections_total, 1);
        let key = sessions.insert(handle, Stage::Greeting, inner.clock.get().now);
        inner.counters.connections.set(sessions.clients() as u64);
        Some(key)
    }
}
