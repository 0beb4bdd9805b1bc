//! The world: one queue of events in true time, over all nodes, connections and clients.
//!
//! Everything that happens is an event of this queue, in the order of time and, at one time, of
//! being asked for. So a run follows from its seed alone, and its trace is the whole story.

mod losses;
mod meetings;
mod strokes;
mod traffic;

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;

use ringbolt_engine::env::sim::{Rng, Trace, TraceSink};

use ringbolt::shard::mail::Parcel;

use super::client::Client;
use super::clock::{MILLI, Nanos, SECOND};
use super::faults::{Faults, Stroke};
use super::history::History;
use super::net::{End, Net, Owner};
use super::node::{Arrival, Node, State};
use super::workload::Keys;
use losses::Loss;
use traffic::Dialer;

/// An event.
#[derive(Debug)]
enum Event {
    /// A core's turn, if it is still due then.
    Turn { node: u16, core: u16, life: u64 },
    /// Something may have arrived at an end.
    Look(End),
    /// A send is done.
    Sent(End, Vec<u8>),
    /// Mail for a core.
    Mail {
        node: u16,
        core: u16,
        life: u64,
        parcel: Parcel,
    },
    /// A connection for another core of its node.
    Moved {
        end: End,
        owner: Owner,
        input: Vec<u8>,
    },
    /// A client may have something to do.
    Client(u16),
    /// A dial reaches its node.
    Dial {
        who: Dialer,
        node: u16,
        since: Nanos,
    },
    /// A dial is answered, or given up.
    Dialed {
        who: Dialer,
        node: u16,
        end: Option<End>,
    },
    /// The next stroke of fate.
    Fate,
    /// A fault strikes.
    Stroke(Stroke),
    /// A process is started.
    Start { node: u16, life: u64 },
    /// A fault ends.
    Relief(Stroke),
    /// A node without a cluster begins to ask all others.
    Meet { node: u16, life: u64 },
    /// The time for their answers is over.
    MeetOver { node: u16, life: u64, round: u64 },
    /// A node's main thread looks around.
    Watch { node: u16, life: u64 },
}

struct Queued {
    at: Nanos,
    number: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// What a world is made of.
pub struct Parts {
    /// All nodes.
    pub nodes: Vec<Node>,
    /// All clients.
    pub clients: Vec<Client>,
    /// The keys that they use.
    pub keys: Keys,
    /// How many partitions the cluster has.
    pub partitions: u16,
    /// What joins them.
    pub net: Net,
    /// What befalls them.
    pub faults: Faults,
}

/// The whole world.
pub struct World {
    /// The true time.
    pub now: Nanos,
    queue: BinaryHeap<Reverse<Queued>>,
    next_number: u64,
    /// Events that happened.
    pub events: u64,
    /// All nodes.
    pub nodes: Vec<Node>,
    /// What joins them.
    pub net: Net,
    /// All clients.
    pub clients: Vec<Client>,
    keys: Keys,
    partitions: u16,
    /// What clients saw.
    pub history: History,
    /// What befalls the cluster.
    pub faults: Faults,
    /// Which node led a partition in a term.
    pub leaders: BTreeMap<(u16, u64), u16>,
    /// Processes that ended because their disk failed.
    pub ended_by_disk: u64,
    /// Replicas that were found to hold the same as another one.
    pub agreed: u64,
    /// From when to when log writes hung.
    pub hangs: Vec<(Nanos, Nanos)>,
    /// Which node is cut off once it is elected, until when, and for how long.
    cut_once_elected: Option<(u16, Nanos, Nanos)>,
    /// A node whose data was taken, until the cluster is whole again.
    loss: Option<Loss>,
    /// When most disks were lost, and which version the cluster map had.
    pub majority_lost: Option<(Nanos, u64)>,
    /// Times a node that had lost its data was taken in again.
    pub rejoined: u64,
    trace: Rc<Trace>,
    /// For the prefix of traced lines.
    told_time: Rc<Cell<Nanos>>,
    rng: Rng,
}

impl World {
    /// A world in which nothing runs yet.
    #[must_use]
    pub fn new(parts: Parts, trace: Rc<Trace>, rng: Rng) -> Self {
        let Parts {
            nodes,
            clients,
            keys,
            partitions,
            net,
            faults,
        } = parts;
        let history = History {
            operations: Vec::new(),
            partitions: keys.partitions(partitions),
            groups: (0..keys.len() as u16).map(|key| keys.group(key)).collect(),
        };
        let mut world = Self {
            now: 0,
            queue: BinaryHeap::new(),
            next_number: 0,
            events: 0,
            nodes,
            net,
            clients,
            keys,
            partitions,
            history,
            faults,
            leaders: BTreeMap::new(),
            ended_by_disk: 0,
            agreed: 0,
            hangs: Vec::new(),
            cut_once_elected: None,
            loss: None,
            majority_lost: None,
            rejoined: 0,
            trace,
            told_time: Rc::default(),
            rng,
        };
        for node in 0..world.nodes.len() as u16 {
            world.at(0, Event::Start { node, life: 0 });
        }
        for client in 0..world.clients.len() as u16 {
            world.at(0, Event::Client(client));
        }
        let first = world.faults.first_at();
        world.at(first, Event::Fate);
        world
    }

    /// Hands every event to `sink`, each line with its time.
    pub fn trace_to(&self, sink: Option<TraceSink>) {
        let time = Rc::clone(&self.told_time);
        self.trace.set_sink(sink.map(|sink| {
            Rc::new(move |line: &str| {
                let now = time.get();
                sink(&format!("{:>4}.{:09} {line}", now / SECOND, now % SECOND));
            }) as TraceSink
        }));
    }

    fn at(&mut self, at: Nanos, event: Event) {
        let number = self.next_number;
        self.next_number += 1;
        self.queue.push(Reverse(Queued { at, number, event }));
    }

    fn say(&self, line: impl FnOnce() -> String, word: u64) {
        self.told_time.set(self.now);
        self.trace.event(line, word ^ self.now);
    }

    /// Runs until a time.
    ///
    /// # Errors
    /// What must not happen: a process that ends by itself, an answer that no server may give.
    pub fn run_until(&mut self, until: Nanos) -> Result<(), String> {
        while let Some(Reverse(next)) = self.queue.peek() {
            if next.at > until {
                break;
            }
            let Some(Reverse(queued)) = self.queue.pop() else {
                break;
            };
            self.now = self.now.max(queued.at);
            self.told_time.set(self.now);
            self.happen(queued.at, queued.event)
                .map_err(|what| format!("at {} ms: {what}", self.now / MILLI))?;
        }
        self.now = self.now.max(until);
        Ok(())
    }

    fn happen(&mut self, at: Nanos, event: Event) -> Result<(), String> {
        match event {
            Event::Turn { node, core, life } => {
                let found = &self.nodes[usize::from(node)];
                if found.life == life && found.state != State::Down && found.wake_at(core) == at {
                    self.events += 1;
                    self.turn(node, core)?;
                }
            }
            Event::Look(end) => {
                self.events += 1;
                self.look(end)?;
            }
            Event::Sent(end, buf) => self.tell_sent(end, buf),
            Event::Mail {
                node,
                core,
                life,
                parcel,
            } => {
                if self.nodes[usize::from(node)].life == life {
                    self.arrive(node, core, self.now, Arrival::Parcel(parcel));
                }
            }
            Event::Moved { end, owner, input } => {
                let Owner::Core { node, core, life } = owner else {
                    return Ok(());
                };
                if self.nodes[usize::from(node)].life == life && self.net.owner(end).is_some() {
                    self.net.hand_over(end, owner);
                    self.net.set_paused(end, false);
                    self.arrive(node, core, self.now, Arrival::Connection(end, input));
                    self.at(self.now, Event::Look(end));
                }
            }
            Event::Client(client) => {
                self.with_client(client, |client, now, keys, done, wishes| {
                    client.wake(now, keys, done, wishes);
                    Ok(())
                })?;
            }
            Event::Dial { who, node, since } => self.dial(who, node, since),
            Event::Dialed { who, node, end } => self.dialed(who, node, end)?,
            Event::Fate => {
                let is_whole = self.is_whole();
                let (strokes, next) = self.faults.draw(self.now, &self.nodes, is_whole);
                if let Some(next) = next {
                    self.at(next, Event::Fate);
                }
                for (later, stroke) in strokes {
                    self.at(self.now + later, Event::Stroke(stroke));
                }
            }
            Event::Stroke(stroke) => self.strike(stroke)?,
            Event::Start { node, life } => {
                let found = &mut self.nodes[usize::from(node)];
                if found.state == State::Down && found.life == life {
                    found.start(self.now);
                    self.faults.set_dark(node, false);
                    self.say(|| format!("node {} starts", node + 1), u64::from(node));
                    self.begin(node);
                }
            }
            Event::Meet { node, life } => self.meet(node, life)?,
            Event::MeetOver { node, life, round } => self.meet_over(node, life, round)?,
            Event::Watch { node, life } => self.watch(node, life)?,
            Event::Relief(stroke) => self.relieve(stroke),
        }
        Ok(())
    }

    fn wake_cores(&mut self, node: u16) {
        for core in 0..self.nodes[usize::from(node)].cores() {
            self.wake_core(node, core);
        }
    }

    fn wake_core(&mut self, node: u16, core: u16) {
        let found = &self.nodes[usize::from(node)];
        let (at, life) = (found.wake_at(core), found.life);
        self.at(at, Event::Turn { node, core, life });
    }

    fn turn(&mut self, node: u16, core: u16) -> Result<(), String> {
        self.say(
            || format!("node {} core {core} turns", node + 1),
            u64::from(node) << 8 | u64::from(core),
        );
        let turned = match self.nodes[usize::from(node)].turn(core, self.now) {
            Ok(turned) => turned,
            Err(ending) => return self.ended_by_itself(node, ending),
        };
        for (partition, term) in turned.leads {
            let first = match self.leaders.entry((partition, term)) {
                Entry::Occupied(found) => *found.get(),
                Entry::Vacant(free) => {
                    free.insert(node);
                    self.elected(node)?;
                    continue;
                }
            };
            if first != node {
                return Err(format!(
                    "nodes {} and {} both lead partition {partition} in term {term}",
                    first + 1,
                    node + 1
                ));
            }
        }
        for wish in turned.out {
            self.grant(node, core, turned.at, wish);
        }
        if turned.next != super::node::NEVER {
            self.wake_core(node, core);
        }
        if self.nodes[usize::from(node)].has_come_up() {
            let life = self.nodes[usize::from(node)].life;
            self.at(self.now, Event::Watch { node, life });
        }
        if self.nodes[usize::from(node)].needs_operator() {
            self.say(|| format!("node {} is started anew", node + 1), 10);
            self.ended_by_disk += 1;
            self.end_process(node, false);
            return Ok(());
        }
        if self.nodes[usize::from(node)].is_closed() {
            self.say(|| format!("node {} has stopped", node + 1), 0);
            self.end_process(node, false);
        }
        Ok(())
    }

    /// Starts a task on a core of a node.
    pub fn spawn(&mut self, node: u16, core: u16, task: impl Future<Output = ()> + 'static) {
        let now = self.now;
        if self.nodes[usize::from(node)]
            .spawn(core, now, task)
            .is_some()
        {
            self.wake_core(node, core);
        }
    }

    /// A hash of all that happened.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.trace.hash()
    }
}
