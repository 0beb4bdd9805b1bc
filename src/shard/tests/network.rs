//! Several nodes joined by links in memory: delay, one-way and whole cuts, broken connections, dials
//! that fail or are never answered, all from a seed.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringbolt_engine::env::sim::{self, Rng, SimEnv, SimOptions};
use ringbolt_engine::env::{Env, TaskClass};

use super::rig::{Placement, Rig, limits, view};
use crate::cluster::NodeId;
use crate::shard::limits::ShardLimits;

/// How the network treats what passes it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weather {
    /// The longest that bytes take, in microseconds.
    pub(super) delay_us_max: u64,
    /// One in so many chunks breaks its connection instead of arriving; 0 for none.
    pub(super) breaks_one_in: u64,
    /// One in so many dials fails, and one in so many is never answered; 0 for none.
    pub(super) dials_fail_one_in: u64,
}

/// One end of a connection: the node and the handle there.
type End = (NodeId, u64);

/// A connection that one node's core made to another node.
struct Wire {
    from: End,
    to: End,
    /// Bytes on their way to `to` and back to `from`, with when they arrive.
    there: VecDeque<(Duration, Vec<u8>)>,
    back: VecDeque<(Duration, Vec<u8>)>,
}

/// The nodes and what is between them.
pub(super) struct Network {
    pub(super) env: SimEnv,
    nodes: RefCell<Vec<Rc<Rig>>>,
    wires: RefCell<Vec<Wire>>,
    rng: RefCell<Rng>,
    pub(super) weather: Cell<Weather>,
    /// Directions in which nothing passes.
    cut: RefCell<BTreeSet<(NodeId, NodeId)>>,
    /// Connections that were made, and connections that broke.
    pub(super) made: Cell<u64>,
    pub(super) broken: Cell<u64>,
}

/// Runs a test on nodes, numbered from 1, of so many cores each, that share no partition.
pub(super) fn with_nodes<F>(
    seed: u64,
    cores: &[u16],
    limits: ShardLimits,
    test: impl FnOnce(Rc<Network>) -> F,
) where
    F: Future<Output = ()> + 'static,
{
    with_placement(seed, cores, limits, Placement::Apart, test);
}

/// The same on nodes that each hold every partition.
pub(super) fn with_cluster<F>(seed: u64, cores: &[u16], test: impl FnOnce(Rc<Network>) -> F)
where
    F: Future<Output = ()> + 'static,
{
    with_placement(seed, cores, limits(), Placement::Together, test);
}

pub(super) fn with_placement<F>(
    seed: u64,
    cores: &[u16],
    limits: ShardLimits,
    placement: Placement,
    test: impl FnOnce(Rc<Network>) -> F,
) where
    F: Future<Output = ()> + 'static,
{
    println!("seed {seed}");
    sim::run(seed, SimOptions::default(), |env| async move {
        let network = Rc::new(Network {
            env: env.clone(),
            nodes: RefCell::default(),
            wires: RefCell::default(),
            rng: RefCell::new(Rng::new(seed)),
            weather: Cell::default(),
            cut: RefCell::default(),
            made: Cell::default(),
            broken: Cell::default(),
        });
        for here in (1..).take(cores.len()) {
            let view = Arc::new(view(here, 1, cores, placement));
            let rig = Rig::open(env.clone(), view, limits.clone()).await;
            network.nodes.borrow_mut().push(rig);
        }
        let stop = Rc::new(Cell::new(false));
        let (turning, stopped) = (Rc::clone(&network), Rc::clone(&stop));
        env.spawn(TaskClass::Foreground, async move {
            while !stopped.get() {
                turning.turn();
                turning.env.sleep(Duration::from_micros(50)).await;
            }
        });
        test(Rc::clone(&network)).await;
        stop.set(true);
        for rig in network.nodes.borrow().iter() {
            rig.stop.set(true);
        }
        env.sleep(Duration::from_millis(10)).await;
    });
}

impl Network {
    pub(super) fn node(&self, id: NodeId) -> Rc<Rig> {
        Rc::clone(&self.nodes.borrow()[id as usize - 1])
    }

    /// The number of every node.
    pub(super) fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (1..).take(self.nodes.borrow().len())
    }

    /// Lets nothing pass from one node to another.
    pub(super) fn cut(&self, from: NodeId, to: NodeId) {
        self.cut.borrow_mut().insert((from, to));
    }

    /// The same both ways, and what connects them breaks.
    pub(super) fn sever(&self, a: NodeId, b: NodeId) {
        self.cut(a, b);
        self.cut(b, a);
        self.wires.borrow_mut().retain(|wire| {
            let ends = [wire.from.0, wire.to.0];
            let concerned = ends.contains(&a) && ends.contains(&b);
            if concerned {
                self.node(wire.from.0).break_off(wire.from.1);
                self.node(wire.to.0).break_off(wire.to.1);
            }
            !concerned
        });
    }

    pub(super) fn heal(&self) {
        self.cut.borrow_mut().clear();
    }

    /// A node takes nothing that was sent to it, or goes on.
    pub(super) fn set_reading(&self, node: NodeId, reads: bool) {
        for wire in self.wires.borrow().iter() {
            for (end, other) in [(wire.from, wire.to), (wire.to, wire.from)] {
                if other.0 == node && reads {
                    self.node(end.0).go_on_reading(end.1);
                } else if other.0 == node {
                    self.node(end.0).stop_reading(end.1);
                }
            }
        }
    }

    fn turn(&self) {
        for id in self.ids() {
            for (core, dial, to) in self.node(id).take_dials() {
                self.dial(id, core, dial, to);
            }
        }
        let mut wires = self.wires.take();
        wires.retain_mut(|wire| {
            let lives = self.pass(wire);
            if !lives {
                self.node(wire.from.0).break_off(wire.from.1);
                self.node(wire.to.0).break_off(wire.to.1);
            }
            lives
        });
        self.wires.borrow_mut().append(&mut wires);
    }

    fn dial(&self, from: NodeId, core: usize, dial: u64, to: NodeId) {
        let (caller, callee) = (self.node(from), self.node(to));
        let one_in = self.weather.get().dials_fail_one_in;
        let mut rng = self.rng.borrow_mut();
        if rng.one_in(one_in) {
            return;
        }
        let cut = self.cut.borrow();
        // Making a connection takes both directions.
        if rng.one_in(one_in) || cut.contains(&(from, to)) || cut.contains(&(to, from)) {
            let refused = Err(io::ErrorKind::ConnectionRefused.into());
            assert!(caller.shards[core].dialed(dial, refused).is_none());
            return;
        }
        let accepting = rng.index(callee.shards.len());
        if let Some(handle) = caller.reached(core, dial) {
            self.made.set(self.made.get() + 1);
            self.wires.borrow_mut().push(Wire {
                from: (from, handle),
                to: (to, callee.dial(accepting)),
                there: VecDeque::new(),
                back: VecDeque::new(),
            });
        }
    }

    /// Moves a connection's bytes on. Whether it still is.
    fn pass(&self, wire: &mut Wire) -> bool {
        let (from, to) = (self.node(wire.from.0), self.node(wire.to.0));
        if from.is_closed(wire.from.1) || to.is_closed(wire.to.1) {
            return false;
        }
        let now = self.env.now();
        for (queue, (source, at), (sink, into), way) in [
            (
                &mut wire.there,
                (&from, wire.from.1),
                (&to, wire.to.1),
                (wire.from.0, wire.to.0),
            ),
            (
                &mut wire.back,
                (&to, wire.to.1),
                (&from, wire.from.1),
                (wire.to.0, wire.from.0),
            ),
        ] {
            let sent = source.take_sent(at);
            if !sent.is_empty() {
                let mut rng = self.rng.borrow_mut();
                if rng.one_in(self.weather.get().breaks_one_in) {
                    self.broken.set(self.broken.get() + 1);
                    return false;
                }
                let delay = Duration::from_micros(rng.below(self.weather.get().delay_us_max + 1));
                // A connection keeps the order.
                let after = queue.back().map_or(now, |(when, _)| *when);
                queue.push_back((after.max(now + delay), sent));
            }
            while let Some((when, _)) = queue.front()
                && *when <= now
                && !self.cut.borrow().contains(&way)
            {
                let Some((_, bytes)) = queue.pop_front() else {
                    break;
                };
                // In pieces, as a socket has them.
                let middle = self.rng.borrow_mut().index(bytes.len());
                sink.send(into, &bytes[..middle]);
                sink.send(into, &bytes[middle..]);
            }
        }
        true
    }
}
