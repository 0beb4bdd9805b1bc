//! The world: one queue of events in true time, over all nodes, connections and clients.
//!
//! Everything that happens is an event of this queue, in the order of time and, at one time, of
//! being asked for. So a run follows from its seed alone, and its trace is the whole story.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;

use ringbolt_engine::env::sim::{Rng, Trace, TraceSink};

use super::client::{Client, Wish};
use super::clock::{MICRO, MILLI, Nanos, SECOND};
use super::faults::{Faults, Stroke};
use super::history::{History, Operation};
use super::net::{self, Chunk, End, Net, Owner, Place, Sent};
use super::node::{Arrival, Node, Out, State};
use super::workload::Keys;
use ringbolt::shard::mail::Parcel;

/// How long a dial waits for an answer that does not come.
const DIAL_TIMEOUT: Nanos = 2 * SECOND;

/// Who dials.
#[derive(Debug, Clone, Copy)]
enum Dialer {
    Client(u16),
    Core {
        node: u16,
        core: u16,
        life: u64,
        /// The shard's name for it.
        dial: u64,
    },
}

impl Dialer {
    fn owner(self) -> Owner {
        match self {
            Self::Client(client) => Owner::Client(client),
            Self::Core {
                node, core, life, ..
            } => Owner::Core { node, core, life },
        }
    }
}

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
    /// A process is started.
    Start { node: u16, life: u64 },
    /// A fault ends.
    Relief(Stroke),
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
            history,
            faults,
            leaders: BTreeMap::new(),
            ended_by_disk: 0,
            agreed: 0,
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
                let (stroke, next) = self.faults.draw(self.now, &self.nodes);
                if let Some(next) = next {
                    self.at(next, Event::Fate);
                }
                if let Some(stroke) = stroke {
                    self.strike(stroke);
                }
            }
            Event::Start { node, life } => {
                let found = &mut self.nodes[usize::from(node)];
                if found.state == State::Down && found.life == life {
                    found.start(self.now);
                    self.faults.set_dark(node, false);
                    self.say(|| format!("node {} starts", node + 1), u64::from(node));
                    self.wake_cores(node);
                }
            }
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
            Err(why) => {
                self.say(|| format!("node {} ends: {why}", node + 1), 0);
                if self.nodes[usize::from(node)].has_reason_to_end() {
                    self.ended_by_disk += 1;
                    self.end_process(node, false);
                    return Ok(());
                }
                return Err(format!("node {} ended by itself: {why}", node + 1));
            }
        };
        for (partition, term) in turned.leads {
            let first = *self.leaders.entry((partition, term)).or_insert(node);
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

    /// Does what a core wants.
    fn grant(&mut self, node: u16, core: u16, at: Nanos, wish: Out) {
        match wish {
            Out::Send(end, bytes) => self.send(end, at, bytes),
            Out::Pause(end, paused) => {
                self.net.set_paused(end, paused);
                if !paused {
                    self.at(at, Event::Look(end));
                }
            }
            Out::Finish(end) | Out::Close(end) => {
                if let Some(due) = self.net.finish(end, at) {
                    self.at(due, Event::Look(net::other(end)));
                }
            }
            Out::HandOver(end, to, input) => {
                let owner = Owner::Core {
                    node,
                    core: to,
                    life: self.nodes[usize::from(node)].life,
                };
                // What comes meanwhile is for the other core.
                self.net.set_paused(end, true);
                self.at(at + 2 * MICRO, Event::Moved { end, owner, input });
            }
            Out::Dial(dial, to) => {
                let life = self.nodes[usize::from(node)].life;
                let who = Dialer::Core {
                    node,
                    core,
                    life,
                    dial,
                };
                self.begin_dial(who, to as u16 - 1, at);
            }
            Out::Post(to, parcel) => {
                let life = self.nodes[usize::from(node)].life;
                let mail = Event::Mail {
                    node,
                    core: to,
                    life,
                    parcel,
                };
                self.at(at + MICRO, mail);
            }
        }
    }

    fn arrive(&mut self, node: u16, core: u16, at: Nanos, arrival: Arrival) {
        if self.nodes[usize::from(node)]
            .arrive(core, at, arrival)
            .is_some()
        {
            self.wake_core(node, core);
        }
    }

    fn send(&mut self, end: End, at: Nanos, bytes: Vec<u8>) {
        self.say(
            || format!("end {end} sends {} bytes", bytes.len()),
            end ^ (bytes.len() as u64) << 32,
        );
        let (sent, due) = self.net.send(end, at, bytes);
        if let Some(due) = due {
            self.at(due, Event::Look(net::other(end)));
        }
        if let Sent::Taken(buf) = sent {
            let delay = self.rng.between(MICRO, 20 * MICRO);
            self.at(at + delay, Event::Sent(end, buf));
        }
    }

    fn tell_sent(&mut self, end: End, buf: Vec<u8>) {
        if let Some(Owner::Core { node, core, life }) = self.net.owner(end)
            && self.nodes[usize::from(node)].life == life
        {
            self.arrive(node, core, self.now, Arrival::Sent(end, buf));
        }
    }

    /// Takes what has arrived at an end to its owner.
    fn look(&mut self, end: End) -> Result<(), String> {
        while let Some(chunk) = self.net.arrived(end, self.now) {
            let Some(owner) = self.net.owner(end) else {
                break;
            };
            let from = net::other(end);
            match (owner, chunk) {
                (Owner::Core { node, core, life }, chunk) => {
                    let arrival = match chunk {
                        Chunk::Bytes(bytes) => Arrival::Bytes(end, bytes),
                        Chunk::End { reset: false } => Arrival::Ended(end),
                        Chunk::End { reset: true } => {
                            self.net.finish(end, self.now);
                            Arrival::Closed(end)
                        }
                    };
                    if self.nodes[usize::from(node)].life == life {
                        self.arrive(node, core, self.now, arrival);
                    }
                }
                (Owner::Client(client), Chunk::Bytes(bytes)) => {
                    self.with_client(client, |client, now, keys, done, wishes| {
                        client.received(now, end, &bytes, keys, done, wishes)
                    })?;
                }
                (Owner::Client(client), Chunk::End { .. }) => {
                    self.with_client(client, |client, now, keys, done, wishes| {
                        client.closed(now, end, keys, done, wishes);
                        Ok(())
                    })?;
                    // Also if the client had let it go already.
                    self.net.finish(end, self.now);
                }
            }
            if let Some((buf, due)) = self.net.relieve(from, self.now) {
                if let Some(due) = due {
                    self.at(due, Event::Look(end));
                }
                self.tell_sent(from, buf);
            }
        }
        if let Some(due) = self.net.next_due(end)
            && due > self.now
        {
            self.at(due, Event::Look(end));
        }
        Ok(())
    }

    fn with_client(
        &mut self,
        client: u16,
        act: impl FnOnce(
            &mut Client,
            Nanos,
            &Keys,
            &mut Vec<Operation>,
            &mut Vec<Wish>,
        ) -> Result<(), String>,
    ) -> Result<(), String> {
        let (mut done, mut wishes) = (Vec::new(), Vec::new());
        let acting = &mut self.clients[usize::from(client)];
        act(acting, self.now, &self.keys, &mut done, &mut wishes)?;
        for operation in done {
            self.say(
                || {
                    format!(
                        "client {client}: {:?} -> {:?}",
                        operation.call, operation.outcome
                    )
                },
                operation.invoked,
            );
            self.history.operations.push(operation);
        }
        for wish in wishes {
            match wish {
                Wish::Dial(node) => self.begin_dial(Dialer::Client(client), node, self.now),
                Wish::Send(end, bytes) => self.send(end, self.now, bytes),
                Wish::Close(end) => {
                    if let Some(due) = self.net.finish(end, self.now) {
                        self.at(due, Event::Look(net::other(end)));
                    }
                }
                Wish::Wake(at) => self.at(at, Event::Client(client)),
            }
        }
        Ok(())
    }

    fn begin_dial(&mut self, who: Dialer, node: u16, since: Nanos) {
        let delay = self.net.delay(who.owner().place(), Place::Node(node));
        self.at(since + delay, Event::Dial { who, node, since });
    }

    /// A dial reaches its node.
    fn dial(&mut self, who: Dialer, node: u16, since: Nanos) {
        if let Dialer::Core { node, life, .. } = who
            && self.nodes[usize::from(node)].life != life
        {
            return;
        }
        let (here, there) = (who.owner().place(), Place::Node(node));
        let back = self.net.delay(there, here);
        let silent = self.net.is_cut(here, there) || self.net.is_cut(there, here);
        let (at, end) = if silent || self.faults.is_dark(node) {
            // Nobody answers, not even with a refusal.
            (since + DIAL_TIMEOUT, None)
        } else if let Some(core) = self.nodes[usize::from(node)].accepting_core() {
            let life = self.nodes[usize::from(node)].life;
            let owner = Owner::Core { node, core, life };
            let end = self.net.connect(who.owner(), owner);
            let arrival = Arrival::Connection(net::other(end), Vec::new());
            self.arrive(node, core, self.now, arrival);
            (self.now + back, Some(end))
        } else {
            (self.now + back, None)
        };
        self.at(at, Event::Dialed { who, node, end });
    }

    fn dialed(&mut self, who: Dialer, to: u16, end: Option<End>) -> Result<(), String> {
        match who {
            Dialer::Client(client) => self.with_client(client, |client, now, _, _, wishes| {
                client.dialed(now, to, end, wishes);
                Ok(())
            }),
            Dialer::Core {
                node,
                core,
                life,
                dial,
            } => {
                if self.nodes[usize::from(node)].life == life {
                    self.arrive(node, core, self.now, Arrival::Dialed(dial, end));
                }
                Ok(())
            }
        }
    }

    /// A process ends, and starts again later.
    fn end_process(&mut self, node: u16, power: bool) {
        self.nodes[usize::from(node)].die(self.now, power);
        self.cut_off(node, power);
        let wait = match power {
            true => self.rng.between(500 * MILLI, 8 * SECOND),
            false => self.rng.between(10 * MILLI, 3 * SECOND),
        };
        self.faults.set_dark(node, power);
        let life = self.nodes[usize::from(node)].life;
        self.at(self.now + wait, Event::Start { node, life });
    }

    /// All connections of a node end. After a power cut the other sides are not told at once.
    fn cut_off(&mut self, node: u16, power: bool) {
        let delay = match power {
            true => self.rng.between(SECOND, 10 * SECOND),
            false => 0,
        };
        for end in self.ends_of(node) {
            let lost = power || self.rng.one_in(2);
            let due = self.net.reset(end, self.now + delay, lost);
            self.net.finish(end, self.now);
            if let Some(due) = due {
                self.at(due, Event::Look(net::other(end)));
            }
        }
    }

    fn ends_of(&self, node: u16) -> Vec<End> {
        let place = Place::Node(node);
        self.net.ends(|owner| owner.place() == place)
    }

    /// A fault strikes.
    fn strike(&mut self, stroke: Stroke) {
        self.say(|| format!("{stroke:?}"), 7);
        match stroke {
            Stroke::Kill { node } => self.end_process(node, false),
            Stroke::PowerCut { node } => self.end_process(node, true),
            Stroke::Stop { node } => self.nodes[usize::from(node)].stop(),
            Stroke::Pause { node, core, until } => {
                for core in self.nodes[usize::from(node)].pause(core, until) {
                    self.wake_core(node, core);
                }
            }
            Stroke::Jump { node, by_ms } => {
                self.nodes[usize::from(node)].jump_clock(self.now, by_ms);
            }
            Stroke::Cut {
                ref directions,
                until,
            } => {
                for &(from, to) in directions {
                    self.net.set_cut(from, to, true);
                }
                self.at(until, Event::Relief(stroke));
            }
            Stroke::Slow {
                ref directions,
                until,
            } => {
                for &(from, to) in directions {
                    self.net.set_slow(from, to, true);
                }
                self.at(until, Event::Relief(stroke));
            }
            Stroke::Break { node } => {
                let ends = self.ends_of(node);
                if !ends.is_empty() {
                    let end = ends[self.rng.index(ends.len())];
                    self.break_connection(end);
                }
            }
            Stroke::Disk { node, rule, until } => {
                self.nodes[usize::from(node)].break_disk(rule);
                self.at(until, Event::Relief(stroke));
            }
        }
    }

    /// Both sides of a connection find it broken; what was under way is lost or comes late.
    fn break_connection(&mut self, end: End) {
        for end in [end, net::other(end)] {
            let lost = self.rng.one_in(2);
            let late = self.rng.below(300 * MILLI);
            if let Some(due) = self.net.reset(end, self.now + late, lost) {
                self.at(due, Event::Look(net::other(end)));
            }
        }
    }

    fn relieve(&mut self, stroke: Stroke) {
        self.say(|| format!("over: {stroke:?}"), 8);
        match stroke {
            Stroke::Cut { directions, .. } => {
                for (from, to) in directions {
                    self.net.set_cut(from, to, false);
                }
                self.look_everywhere();
            }
            Stroke::Slow { directions, .. } => {
                for (from, to) in directions {
                    self.net.set_slow(from, to, false);
                }
            }
            Stroke::Disk { node, .. } => self.nodes[usize::from(node)].mend_disk(),
            _ => {}
        }
    }

    fn look_everywhere(&mut self) {
        for end in self.net.ends(|_| true) {
            if self.net.next_due(end).is_some() {
                self.at(self.now, Event::Look(end));
            }
        }
    }

    /// Ends all faults for good.
    pub fn heal(&mut self) {
        self.say(|| "all faults end".to_owned(), 9);
        self.faults.end();
        self.net.mend();
        self.look_everywhere();
        for node in &mut self.nodes {
            node.mend_disk();
        }
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

    /// Lets a client read keys, whatever else it would have done.
    ///
    /// # Errors
    /// As [`World::run_until`].
    pub fn read_all(&mut self, client: u16, of: Vec<u16>) -> Result<(), String> {
        self.with_client(client, |client, now, keys, _, wishes| {
            client.begin_read(now, keys, of, wishes);
            Ok(())
        })
    }

    /// A hash of all that happened.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.trace.hash()
    }
}
