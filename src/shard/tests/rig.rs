//! A whole node without sockets: shards over the simulated environment, joined by a port that
//! passes parcels and collects what is sent.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringbolt_engine::engine::{Engine, EngineOptions};
use ringbolt_engine::env::Env;
use ringbolt_engine::env::sim::{self, SimEnv, SimOptions};
use ringbolt_engine::log::LogOptions;
use ringbolt_engine::tree::TreeOptions;
use ringbolt_wire::frame::{self, Peek};
use ringbolt_wire::message::{KEYSPACE_SYSTEM, Request, Response};

use crate::cluster::{ClusterView, Identity, NodeId, NodeInfo};
use crate::shard::limits::ShardLimits;
use crate::shard::mail::{Parcel, SessionKey};
use crate::shard::route::PartitionMap;
use crate::shard::{Port, Shard, ShardConfig};

pub(super) const PARTITIONS: u16 = 16;

/// What the port saw of one core in one turn.
#[derive(Default)]
struct Seen {
    sent: Vec<(u64, Vec<u8>)>,
    closed: Vec<u64>,
    paused: Vec<u64>,
    parcels: Vec<(u16, Parcel)>,
    moved: Vec<(u64, u16, Vec<u8>)>,
    dials: Vec<(u64, NodeId)>,
}

impl Port for Seen {
    fn send(&mut self, handle: u64, bytes: Vec<u8>) {
        self.sent.push((handle, bytes));
    }
    fn pause(&mut self, handle: u64) {
        self.paused.push(handle);
    }
    fn resume(&mut self, handle: u64) {
        self.paused.retain(|paused| *paused != handle);
    }
    fn finish(&mut self, handle: u64) {
        self.closed.push(handle);
    }
    fn close(&mut self, handle: u64) {
        self.closed.push(handle);
    }
    fn hand_over(&mut self, handle: u64, core: u16, input: Vec<u8>) {
        self.moved.push((handle, core, input));
    }
    fn dial(&mut self, dial: u64, node: NodeId) {
        self.dials.push((dial, node));
    }
    fn post(&mut self, core: u16, parcel: Parcel) -> Result<(), Parcel> {
        self.parcels.push((core, parcel));
        Ok(())
    }
}

struct Conn {
    core: usize,
    key: SessionKey,
    received: Vec<u8>,
    closed: bool,
    /// Whether the client takes what is sent to it.
    reads: bool,
    /// What it has not taken, to be given back to the shard when it does.
    unread: Vec<Vec<u8>>,
}

/// The node and its clients.
pub(super) struct Rig {
    pub(super) env: SimEnv,
    pub(super) shards: Vec<Shard<SimEnv>>,
    conns: RefCell<BTreeMap<u64, Conn>>,
    /// Dials that nobody has answered: the core, the dial, the node.
    dials: RefCell<Vec<(usize, u64, NodeId)>>,
    parcels: RefCell<Vec<(u16, Parcel)>>,
    next: Cell<u64>,
    /// To whom each turn sent, in its order; those that sent nothing are left out.
    pub(super) sends: RefCell<Vec<Vec<u64>>>,
    pub(super) stop: Rc<Cell<bool>>,
}

/// Small files and memtables, so that a short test flushes.
fn options() -> EngineOptions {
    EngineOptions {
        log: LogOptions {
            segment_bytes: 1 << 20,
            first_fill_bytes: 1 << 20,
            group_bytes: 64 << 10,
            buffer_bytes_max: 1 << 20,
            ..LogOptions::default()
        },
        tree: TreeOptions {
            memory_bytes: 8 << 20,
            memtable_bytes: 64 << 10,
            own_keyspace: Some(KEYSPACE_SYSTEM),
            ..TreeOptions::tiny()
        },
        commits_alone: crate::replica::commits_alone,
        membership_index: crate::replica::membership_index,
    }
}

pub(super) fn limits() -> ShardLimits {
    ShardLimits {
        value_bytes_max: 64 << 10,
        ..ShardLimits::default()
    }
}

/// Runs a test on a node of `cores` cores.
pub(super) fn with_node<F>(
    seed: u64,
    cores: u16,
    limits: ShardLimits,
    test: impl FnOnce(Rc<Rig>) -> F,
) where
    F: Future<Output = ()> + 'static,
{
    println!("seed {seed}");
    sim::run(seed, SimOptions::default(), |env| async move {
        let view = Arc::new(view(1, 1, &[cores], Placement::Apart));
        let rig = Rig::open(env, view, limits).await;
        test(Rc::clone(&rig)).await;
        rig.stop.set(true);
        rig.env.sleep(Duration::from_millis(10)).await;
    });
}

/// Where the partitions of several nodes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placement {
    /// Each node takes itself for the only one that holds them.
    Apart,
    /// Every node holds every partition.
    Together,
    /// Every node holds the even ones, and takes itself for the only one that holds the odd ones.
    Mixed,
    /// Each partition is held by three nodes, one after the other.
    Spread,
}

/// What node `here` knows of a cluster whose nodes, from 1, have so many cores.
pub(super) fn view(here: NodeId, boot: u64, cores: &[u16], placement: Placement) -> ClusterView {
    let nodes = (1..).zip(cores).map(|(id, &cores)| NodeInfo {
        id,
        name: format!("node-{id}"),
        address: "127.0.0.1:7400".to_owned(),
        cores,
        zone: String::new(),
        weight: 1,
    });
    let identity = Identity {
        cluster: 77,
        node: here,
        boot,
        start: boot * 1000 + u64::from(here),
    };
    let count = cores.len() as u32;
    let placement = (0..u32::from(PARTITIONS))
        .map(|partition| match placement {
            Placement::Apart => vec![here],
            Placement::Mixed if partition % 2 == 1 => vec![here],
            Placement::Together | Placement::Mixed => {
                (0..count).map(|i| (partition + i) % count + 1).collect()
            }
            Placement::Spread => (0..3).map(|i| (partition + i) % count + 1).collect(),
        })
        .collect();
    ClusterView::new(identity, nodes.collect(), placement)
}

impl Rig {
    pub(super) async fn open(
        env: SimEnv,
        cluster: Arc<ClusterView>,
        limits: ShardLimits,
    ) -> Rc<Self> {
        let here = cluster.here();
        let cores = cluster.node(here).unwrap().cores;
        let map = Arc::new(PartitionMap::spread("rig".into(), PARTITIONS, cores));
        let mut shards = Vec::new();
        let mut recovered = Vec::new();
        for core in 0..cores {
            let dir = PathBuf::from(format!("node-{here}-shard-{core:03}"));
            let (engine, replicas) = Engine::open(env.clone(), &dir, options()).await.unwrap();
            recovered.push(replicas);
            shards.push(Shard::new(
                env.clone(),
                engine,
                ShardConfig {
                    resp: Arc::default(),
                    core,
                    map: Arc::clone(&map),
                    cluster: Arc::clone(&cluster),
                    limits: limits.clone(),
                    dir,
                    space_reserve: 1 << 20,
                },
            ));
        }
        let rig = Rc::new(Self {
            env: env.clone(),
            shards,
            conns: RefCell::default(),
            dials: RefCell::default(),
            parcels: RefCell::default(),
            next: Cell::new(1),
            sends: RefCell::default(),
            stop: Rc::new(Cell::new(false)),
        });
        let turning = Rc::clone(&rig);
        env.spawn(ringbolt_engine::env::TaskClass::Foreground, async move {
            while !turning.stop.get() {
                turning.turn();
                turning.env.sleep(Duration::from_micros(50)).await;
            }
        });
        for (shard, replicas) in rig.shards.iter().zip(recovered) {
            shard.start(replicas).await.unwrap();
        }
        rig
    }

    /// Ends the node as a process does that is told to stop; it can be opened again.
    pub(super) async fn close(&self) {
        self.stop.set(true);
        self.env.sleep(Duration::from_millis(10)).await;
        for shard in &self.shards {
            shard.engine().close().await.unwrap();
        }
    }

    /// One turn of every core.
    fn turn(&self) {
        for core in 0..self.shards.len() {
            let shard = &self.shards[core];
            shard.begin_turn();
            let mail: Vec<_> = {
                let mut parcels = self.parcels.borrow_mut();
                parcels
                    .extract_if(.., |(to, _)| usize::from(*to) == core)
                    .collect()
            };
            for (_, parcel) in mail {
                shard.parcel(&parcel);
            }
            let mut seen = Seen::default();
            shard.end_turn(&mut seen);
            self.parcels.borrow_mut().extend(seen.parcels);
            let dials = seen.dials.into_iter().map(|(dial, to)| (core, dial, to));
            self.dials.borrow_mut().extend(dials);
            if !seen.sent.is_empty() {
                let handles = seen.sent.iter().map(|(handle, _)| *handle).collect();
                self.sends.borrow_mut().push(handles);
            }
            for (handle, bytes) in seen.sent {
                let back = {
                    let mut conns = self.conns.borrow_mut();
                    let conn = conns.get_mut(&handle).unwrap();
                    if conn.reads {
                        conn.received.extend_from_slice(&bytes);
                        Some((conn.key, bytes))
                    } else {
                        conn.unread.push(bytes);
                        None
                    }
                };
                if let Some((key, bytes)) = back {
                    shard.sent(key, bytes);
                }
            }
            for handle in seen.closed {
                if let Some(conn) = self.conns.borrow_mut().get_mut(&handle) {
                    conn.closed = true;
                }
            }
            for (handle, to, input) in seen.moved {
                let to = usize::from(to);
                let key = self.shards[to].connected(handle).unwrap();
                if let Some(conn) = self.conns.borrow_mut().get_mut(&handle) {
                    conn.core = to;
                    conn.key = key;
                }
                self.shards[to].received(key, &input);
            }
        }
    }

    /// A connection to a core, before its hello.
    pub(super) fn dial(&self, core: usize) -> u64 {
        let handle = self.next.replace(self.next.get() + 1);
        let key = self.shards[core].connected(handle).unwrap();
        self.keep(handle, core, key);
        handle
    }

    fn keep(&self, handle: u64, core: usize, key: SessionKey) {
        self.conns.borrow_mut().insert(
            handle,
            Conn {
                core,
                key,
                received: Vec::new(),
                closed: false,
                reads: true,
                unread: Vec::new(),
            },
        );
    }

    /// The dials since the last call: the core, the dial, the node that is wanted.
    pub(super) fn take_dials(&self) -> Vec<(usize, u64, NodeId)> {
        self.dials.take()
    }

    /// Answers a dial with a connection; its handle, if it is still wanted.
    pub(super) fn reached(&self, core: usize, dial: u64) -> Option<u64> {
        let handle = self.next.replace(self.next.get() + 1);
        let key = self.shards[core].dialed(dial, Ok(handle))?;
        self.keep(handle, core, key);
        Some(handle)
    }

    /// What the other side of a connection has been sent since the last call.
    pub(super) fn take_sent(&self, handle: u64) -> Vec<u8> {
        let mut conns = self.conns.borrow_mut();
        let conn = conns.get_mut(&handle).unwrap();
        std::mem::take(&mut conn.received)
    }

    /// The other side of a connection is gone.
    pub(super) fn break_off(&self, handle: u64) {
        let (core, key, was_closed) = {
            let mut conns = self.conns.borrow_mut();
            let conn = conns.get_mut(&handle).unwrap();
            (
                conn.core,
                conn.key,
                std::mem::replace(&mut conn.closed, true),
            )
        };
        if !was_closed {
            self.shards[core].closed(key);
        }
    }

    /// The other side of a connection takes what is sent again.
    pub(super) fn go_on_reading(&self, handle: u64) {
        let (core, key, unread) = {
            let mut conns = self.conns.borrow_mut();
            let conn = conns.get_mut(&handle).unwrap();
            conn.reads = true;
            let unread = std::mem::take(&mut conn.unread);
            for bytes in &unread {
                conn.received.extend_from_slice(bytes);
            }
            (conn.core, conn.key, unread)
        };
        for bytes in unread {
            self.shards[core].sent(key, bytes);
        }
    }

    /// A connection that has said hello.
    pub(super) async fn connect(&self, core: usize, wanted: Option<u16>) -> u64 {
        let handle = self.dial(core);
        let hello = Request::Hello {
            version_min: 1,
            version_max: 1,
            core: wanted,
            agent: b"rig",
        };
        self.call(handle, &hello, |reply| {
            assert!(matches!(reply, Response::Welcome { .. }), "{reply:?}");
        })
        .await;
        handle
    }

    pub(super) fn stop_reading(&self, handle: u64) {
        self.conns.borrow_mut().get_mut(&handle).unwrap().reads = false;
    }

    pub(super) fn is_closed(&self, handle: u64) -> bool {
        self.conns.borrow()[&handle].closed
    }

    /// The random number of this node's start.
    pub(super) fn start(&self) -> u64 {
        self.shards[0].0.config.cluster.identity().start
    }

    pub(super) fn key_of(&self, handle: u64) -> SessionKey {
        self.conns.borrow()[&handle].key
    }

    pub(super) fn core_of(&self, handle: u64) -> usize {
        self.conns.borrow()[&handle].core
    }

    /// Sends bytes as they are.
    pub(super) fn send(&self, handle: u64, bytes: &[u8]) {
        let (core, key) = {
            let conns = self.conns.borrow();
            (conns[&handle].core, conns[&handle].key)
        };
        self.shards[core].received(key, bytes);
    }

    /// Sends a request and waits for one reply.
    pub(super) async fn call<R>(
        &self,
        handle: u64,
        request: &Request<'_>,
        check: impl FnOnce(Response<'_>) -> R,
    ) -> R {
        let mut bytes = Vec::new();
        request.encode(77, 0, &mut bytes).unwrap();
        self.send(handle, &bytes);
        self.reply(handle, check).await
    }

    /// Waits for the next reply.
    pub(super) async fn reply<R>(&self, handle: u64, check: impl FnOnce(Response<'_>) -> R) -> R {
        for _ in 0..1_000_000 {
            let frame = {
                let mut conns = self.conns.borrow_mut();
                let received = &mut conns.get_mut(&handle).unwrap().received;
                match frame::peek(received, u32::MAX).unwrap() {
                    Peek::Frame { len } => Some(received.drain(..len).collect::<Vec<u8>>()),
                    _ => None,
                }
            };
            if let Some(frame) = frame {
                let view = frame::open(&frame).unwrap();
                return check(Response::decode(&view).unwrap());
            }
            self.env.sleep(Duration::from_micros(50)).await;
        }
        panic!("no reply");
    }
}
