//! One seed: a cluster, its clients, what befalls them, and then the judgement.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::rc::Rc;
use std::time::Duration;

use ringbolt::shard::limits::ShardLimits;
use ringbolt_engine::engine::EngineOptions;
use ringbolt_engine::env::sim::{
    Fault, FaultRule, Latency, Rng, Schedule, SimMachine, SimOptions, Trace, TraceSink,
};
use ringbolt_engine::log::LogOptions;
use ringbolt_engine::tree::TreeOptions;
use ringbolt_wire::message::{KEYSPACE_SYSTEM, ReadLevel};

use super::check;
use super::client::{Client, Habits};
use super::clock::{Clock, MICRO, MILLI, Nanos, SECOND};
use super::faults::{Faults, Kind};
use super::history::{Call, Outcome as Answer};
use super::net::{Delays, Net};
use super::node::{Node, Setup, State};
use super::workload::Keys;
use super::world::{Parts, World};
use crate::report::Tally;
use crate::run::Outcome;

/// How long a healed cluster may take until every process is there again.
const BACK_WITHIN: Nanos = 30 * SECOND;
/// How long a whole cluster without faults may take to serve every partition.
const SERVES_WITHIN: Nanos = 10 * SECOND;
/// How long a cluster of which nothing is asked may take until all of it sleeps: a leader may first
/// wait five seconds to hand over.
const SLEEPS_WITHIN: Nanos = 15 * SECOND;
/// What clocks that run differently and jump may add to the age of a stale read.
const STALE_SLACK: Nanos = 100 * MILLI;

/// How long replicas may take until all have applied the same. Cores still stand still for up to three
/// seconds now and then: of seed 24620, one or another for ten on end.
const LEVEL_WITHIN: Nanos = 30 * SECOND;
/// How long a healed cluster may take until every node has all its data.
const WHOLE_WITHIN: Nanos = 60 * SECOND;
/// How long a cluster that has lost most of its disks is watched after all faults ended.
const LOST_FOR: Nanos = 15 * SECOND;
/// How long a leader may go on after that.
const LEASE_MAX: Nanos = SECOND;
/// How long after a log began to hang clients must go on.
const GOES_ON_AFTER: Nanos = 2 * SECOND;
/// What is counted of that.
const WENT_ON: &str = "writes acknowledged while a log hung";
/// What is counted when a node has its data again.
const REJOINED: &str = "nodes that got their data again";

/// What is run.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Nodes.
    pub nodes: u16,
    /// Cores of each node, at least and at most.
    pub cores: (u16, u16),
    /// Clients.
    pub clients: u16,
    /// How long clients and faults go on, in simulated seconds.
    pub seconds: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            nodes: 3,
            cores: (1, 2),
            clients: 5,
            seconds: 15,
        }
    }
}

/// What a slice of any size worth the name must have met: every kind of fault, every kind of work.
#[must_use]
pub fn work(shape: &Shape) -> Vec<&'static str> {
    let faults = Kind::ALL
        .into_iter()
        .filter(|(kind, _)| kind.nodes().contains(&shape.nodes))
        .map(|(_, name)| name);
    let done = [
        "writes acknowledged",
        "conditions that failed",
        "reads answered",
        "writes in doubt",
        "keys checked",
        "leaderships",
        "turns interrupted",
        "replicas put to sleep",
        "replicas woken",
        "connections lost",
        "attempts after the first",
        "writes sent again",
        "frames that came twice",
        "processes that their disk ended",
    ];
    let rejoins = [REJOINED, WENT_ON].into_iter().filter(|_| shape.nodes >= 3);
    faults.chain(done).chain(rejoins).collect()
}

/// Runs one seed. Never panics: a panic of the server is its violation.
#[must_use]
pub fn run(shape: &Shape, seed: u64, trace: Option<TraceSink>) -> Outcome {
    crate::run::caught(seed, || run_seed(shape, seed, trace))
}

/// Runs one seed twice: that the second run is another one than the first is a violation too.
#[must_use]
pub fn run_twice(shape: &Shape, seed: u64) -> Outcome {
    let mut once = run(shape, seed, None);
    let again = run(shape, seed, None);
    if (once.trace_hash, once.steps) != (again.trace_hash, again.steps) {
        once.violation = Some(format!(
            "it does not replay: hash {:016x} after {} events, then {:016x} after {}",
            once.trace_hash, once.steps, again.trace_hash, again.steps
        ));
    }
    once
}

fn run_seed(shape: &Shape, seed: u64, sink: Option<TraceSink>) -> Outcome {
    let mut world = build(shape, seed, sink);
    let verdict = live(shape, &mut world).and_then(|()| {
        check::history(&world.history, STALE_SLACK).map_err(|what| format!("history: {what}"))
    });
    let mut tally = tally(&world);
    let violation = match verdict {
        Ok(checked) => {
            tally.add("keys checked", checked.keys);
            tally.add("keys undecided", checked.undecided);
            None
        }
        Err(what) => Some(what),
    };
    Outcome {
        seed,
        tally,
        violation,
        trace_hash: world.trace_hash(),
        steps: world.events,
    }
}

/// A cluster before its first moment.
fn build(shape: &Shape, seed: u64, sink: Option<TraceSink>) -> World {
    let mut rng = Rng::new(seed);
    let nodes = shape.nodes;
    let partitions = [2, 4, 8][rng.index(3)];
    let trace = Rc::new(Trace::default());
    let (least, most) = (shape.cores.0.into(), shape.cores.1.into());
    let cores: Vec<u16> = (0..nodes)
        .map(|_| rng.between(least, most) as u16)
        .collect();
    let most_cores = cores.iter().copied().max().unwrap_or(1);
    let faults = Faults::new(rng.fork(), nodes, shape.clients, rng.one_in(16));
    let quick = faults.is_directed();
    let partitions = if quick { 8 } else { partitions };
    let setup = Rc::new(Setup {
        partitions,
        engine: draw_engine(&mut rng),
        limits: ShardLimits {
            value_bytes_max: 64 << 10,
            scan_page_bytes: 64 << 10,
            entries_kept_bytes: [0, 2 << 10, 64 << 10][rng.index(3)],
            // So soon that groups sleep between two operations.
            sleep_after: Duration::from_millis([0, 50, 150, 400][rng.index(4)]),
            ..ShardLimits::default()
        },
        stall_one_in: if quick {
            0
        } else {
            [0, 3_000, 30_000][rng.index(3)]
        },
        cores,
    });
    let built = (0..nodes)
        .map(|number| {
            let machine =
                SimMachine::new(rng.fork(), draw_disk(&mut rng, quick), Rc::clone(&trace));
            let clock = Clock::new(
                0,
                rng.below(1 << 40),
                rng.between(0, 400) as i64 - 200,
                rng.between(0, 4_000) as i64 - 2_000,
            );
            Node::new(number, machine, clock, Rc::clone(&setup), rng.fork())
        })
        .collect();
    let keys = Keys::new(
        rng.between(3, 8) as u16,
        rng.between(1, 3) as u16,
        rng.between(1, 2) as u16,
    );
    let pause = [2, 20, 100, 500][if quick { 0 } else { rng.index(4) }] * MILLI;
    let (patience, grace) = [
        ((50 * MILLI, 300 * MILLI), 20 * MILLI),
        ((200 * MILLI, 1_500 * MILLI), 250 * MILLI),
    ][if quick { 0 } else { rng.index(2) }];
    let habits = Habits {
        pause,
        patience,
        grace,
        reads_most: false,
        // A first sending that a cut holds back for seconds is done again once the partition has
        // forgotten its repeat, which takes 1024 later writes: so not where clients hurry.
        retries: pause >= 20 * MILLI && !rng.one_in(3),
        leader_one_in: [0, 20][rng.index(2)],
        all_one_in: [0, 20][rng.index(2)],
        stray_one_in: [3, 10, 30][if quick { 0 } else { rng.index(3) }],
        cores: most_cores,
    };
    let clients = (0..shape.clients)
        .map(|number| {
            let partitions = keys.partitions(partitions);
            // Whoever writes to a leader that is cut off waits for it; readers go on reading.
            let habits = Habits {
                reads_most: rng.one_in(3),
                ..habits.clone()
            };
            Client::new(number, nodes, rng.fork(), habits, partitions)
        })
        .collect();
    let delays = [
        Delays {
            least: 20 * MICRO,
            range: 100 * MICRO,
            tail_one_in: 200,
            tail: 5 * MILLI,
        },
        Delays {
            least: 200 * MICRO,
            range: 3 * MILLI,
            tail_one_in: 50,
            tail: 200 * MILLI,
        },
        Delays {
            least: 5 * MILLI,
            range: 20 * MILLI,
            tail_one_in: 20,
            tail: 400 * MILLI,
        },
    ][if quick { 0 } else { rng.index(3) }];
    let doubles_one_in = [0, 0, 20, 200][rng.index(4)];
    let net = Net::new(delays, doubles_one_in, rng.fork());
    let parts = Parts {
        nodes: built,
        clients,
        keys,
        partitions,
        net,
        faults,
    };
    let world = World::new(parts, trace, rng.fork());
    world.trace_to(sink);
    world
}

/// Settings small enough that a few thousand writes fill segments, flush and compact.
fn draw_engine(rng: &mut Rng) -> EngineOptions {
    EngineOptions {
        log: LogOptions {
            segment_bytes: [128 << 10, 512 << 10][rng.index(2)],
            first_fill_bytes: 64 << 10,
            writes_in_flight: rng.between(1, 4) as usize,
            // The smallest has room for a record or a few.
            group_bytes: [8 << 10, 16 << 10, 64 << 10][rng.index(3)],
            buffer_bytes_max: 1 << 20,
            segments_max: rng.between(6, 16) as usize,
            segments_flush: rng.between(1, 3) as usize,
            segments_retained: rng.below(3) as usize,
            ..LogOptions::default()
        },
        tree: TreeOptions {
            memory_bytes: 1 << 20,
            memtable_bytes: [20 << 10, 90 << 10][rng.index(2)],
            own_keyspace: Some(KEYSPACE_SYSTEM),
            ..TreeOptions::tiny()
        },
        commits_alone: ringbolt::replica::commits_alone,
        membership_index: ringbolt::replica::membership_index,
    }
}

fn draw_disk(rng: &mut Rng, quick: bool) -> SimOptions {
    let slow = [1, 1, 10, 50][if quick { 0 } else { rng.index(4) }];
    let micros = |micros: u64| Duration::from_micros(micros * slow);
    SimOptions {
        schedule: Schedule::Random,
        latency: Latency {
            read: micros(80),
            write: micros(100),
            sync: micros(300),
            name: micros(50),
        },
        capacity_bytes: 1 << 30,
        faults: match !quick && rng.one_in(2) {
            true => vec![FaultRule::new(Fault::LatencySpike, rng.between(50, 2000))],
            false => Vec::new(),
        },
        ..SimOptions::default()
    }
}

/// The life of a cluster: work under faults, then without, then the last reads.
fn live(shape: &Shape, world: &mut World) -> Result<(), String> {
    world.run_until(shape.seconds * SECOND)?;
    world.heal();
    clients_went_on(world)?;
    if let Some((lost, version)) = world.majority_lost {
        return is_refused(world, lost, version);
    }
    wait(
        world,
        WHOLE_WITHIN,
        "a node has not got its data again",
        |world| world.is_whole() && world.nodes.iter().all(is_well),
    )?;
    wait(world, BACK_WITHIN, "a node is not back", |world| {
        world.nodes.iter().all(|node| node.state == State::Up)
    })?;
    // Clients go on for a while without faults.
    world.run_until(world.now + 2 * SECOND)?;
    for client in &mut world.clients {
        client.stopped = true;
    }
    wait(world, SERVES_WITHIN, "a client still waits", |world| {
        world.clients.iter().all(|client| !client.is_busy())
    })?;
    read_all_keys(world)?;
    compare_replicas(world)?;
    // With nothing to do every replica falls asleep, and serves when it is asked again.
    world.calm();
    wait(world, SLEEPS_WITHIN, "a replica does not sleep", |world| {
        world
            .nodes
            .iter()
            .flat_map(Node::replicas)
            .all(|state| state.asleep)
    })?;
    world.run_until(world.now + SECOND)?;
    read_all_keys(world)?;
    compare_replicas(world)
}

/// Every partition serves.
fn read_all_keys(world: &mut World) -> Result<(), String> {
    for key in 0..world.history.partitions.len() as u16 {
        let before = world.history.operations.len();
        world.read_all(0, vec![key])?;
        wait(
            world,
            SERVES_WITHIN,
            "a partition does not serve",
            |world| !world.clients[0].is_busy(),
        )?;
        let read = world.history.operations[before..].last();
        if !read.is_some_and(|read| matches!(read.outcome, Answer::Seen { .. })) {
            return Err(format!("the last read of key {key} failed: {read:?}"));
        }
    }
    Ok(())
}

/// While one log of three hangs and nothing else is wrong, clients write through the others.
fn clients_went_on(world: &World) -> Result<(), String> {
    for &(since, until) in world.hangs.iter().filter(|_| world.faults.only_hang()) {
        let until = until.min(world.now);
        if until > since + 2 * GOES_ON_AFTER
            && acknowledged(world, since + GOES_ON_AFTER, until) == 0
        {
            return Err("no write is acknowledged while a log hangs".to_owned());
        }
    }
    Ok(())
}

/// Writes that were begun and acknowledged between two moments.
fn acknowledged(world: &World, since: Nanos, until: Nanos) -> u64 {
    let written = world.history.operations.iter().filter(|operation| {
        matches!(operation.outcome, Answer::Written { .. })
            && operation.invoked >= since
            && operation.completed <= until
    });
    written.count() as u64
}

/// Whether a node serves and knows of no damage.
fn is_well(node: &Node) -> bool {
    let damage = node.cluster().and_then(|cluster| cluster.damage());
    node.state == State::Up && damage.is_none()
}

/// A cluster that has lost two disks of three does nothing more, and the nodes that lost their data make
/// none of their own.
fn is_refused(world: &mut World, lost: Nanos, version: u64) -> Result<(), String> {
    world.run_until(world.now + LOST_FOR)?;
    for node in &world.nodes {
        let belongs = node.folder.belongs.as_ref();
        let is_spared = belongs.is_some_and(|(map, _)| map.version() == version);
        if belongs.is_some() && !is_spared {
            return Err(format!("node {} has another map", node.number + 1));
        }
        if !is_spared && matches!(node.state, State::Booting | State::Up) {
            return Err(format!("node {} serves without data", node.number + 1));
        }
    }
    let maps = world
        .nodes
        .iter()
        .filter(|node| node.folder.belongs.is_some());
    if maps.count() != 1 {
        return Err("nodes without data have a cluster".to_owned());
    }
    let mut later = world.history.operations.iter();
    let done = later.find(|operation| {
        let promises = match (&operation.call, &operation.outcome) {
            (Call::Write { leader_only, .. }, Answer::Written { .. }) => !leader_only,
            (Call::Read { level, .. }, Answer::Seen { .. }) => *level == ReadLevel::Linearizable,
            _ => false,
        };
        promises && operation.invoked > lost + LEASE_MAX
    });
    match done {
        Some(operation) => Err(format!("without a quorum: {operation:?}")),
        None => Ok(()),
    }
}

/// Once every replica has caught up, all of them hold the same.
fn compare_replicas(world: &mut World) -> Result<(), String> {
    wait(world, LEVEL_WITHIN, "a replica lags behind", |world| {
        let mut applied = BTreeMap::new();
        let mut states = world.nodes.iter().flat_map(Node::replicas);
        states
            .all(|state| *applied.entry(state.partition).or_insert(state.applied) == state.applied)
    })?;
    let digests = check::replicas::Digests::default();
    for node in 0..world.nodes.len() as u16 {
        for core in 0..world.nodes[usize::from(node)].cores() {
            if let Some(shard) = world.nodes[usize::from(node)].shard(core) {
                let task = check::replicas::take(node, shard, Rc::clone(&digests));
                world.spawn(node, core, task);
            }
        }
    }
    world.run_until(world.now + SECOND)?;
    world.agreed = check::replicas::compare(&digests)?;
    Ok(())
}

fn wait(
    world: &mut World,
    at_most: Nanos,
    what: &str,
    done: impl Fn(&mut World) -> bool,
) -> Result<(), String> {
    let until = world.now + at_most;
    while !done(world) {
        if world.now >= until {
            return Err(format!(
                "{what} {} s after all faults ended: {}",
                at_most / SECOND,
                standing(world)
            ));
        }
        world.run_until(world.now + 20 * MILLI)?;
    }
    Ok(())
}

/// Where every node and replica stands, for whoever looks for the reason.
fn standing(world: &World) -> String {
    let mut all = String::new();
    for node in &world.nodes {
        let _fits = write!(all, "node {} is {:?};", node.number + 1, node.state);
        for state in node.replicas() {
            let role = if state.leads { "leads" } else { "follows" };
            let _fits = write!(
                all,
                " partition {} term {} {role}{} applied {} commit {} last {};",
                state.partition,
                state.term,
                if state.asleep { " asleep" } else { "" },
                state.applied.index,
                state.commit_index,
                state.last_index
            );
        }
        for log in (0..node.cores()).filter_map(|core| node.shard(core)) {
            let stats = log.engine().stats().log;
            let (used, full) = (stats.segments, stats.full);
            let _fits = write!(all, " a log of {used} segments, full {full} times;");
        }
        all.push(' ');
    }
    all
}

fn tally(world: &World) -> Tally {
    let mut tally = Tally::default();
    tally.add("seeds", 1);
    tally.add("simulated milliseconds", world.now / MILLI);
    tally.add("events", world.events);
    tally.add("leaderships", world.leaders.len() as u64);
    tally.add("replicas that agreed", world.agreed);
    for operation in &world.history.operations {
        tally.add(
            match (&operation.call, &operation.outcome) {
                (Call::Write { .. }, Answer::Written { .. }) => "writes acknowledged",
                (_, Answer::GuardFailed { .. }) => "conditions that failed",
                (_, Answer::Seen { .. }) => "reads answered",
                (_, Answer::InDoubt) => "writes in doubt",
                _ => "operations that failed",
            },
            1,
        );
    }
    for (kind, name) in Kind::ALL {
        if let Some(&count) = world.faults.counts.get(&kind) {
            tally.add(name, count);
        }
    }
    tally.add("frames that came twice", world.net.doubled);
    tally.add("processes that their disk ended", world.ended_by_disk);
    tally.add(REJOINED, world.rejoined);
    for &(since, until) in &world.hangs {
        tally.add(WENT_ON, acknowledged(world, since + GOES_ON_AFTER, until));
    }
    for node in &world.nodes {
        tally.faults.merge(&node.machine().counts());
        tally.add("turns interrupted", node.stalls);
        tally.add("replicas put to sleep", node.sleeps);
        tally.add("replicas woken", node.wakes);
        let shards = (0..node.cores()).filter_map(|core| node.shard(core));
        let carried = shards.map(|shard| shard.carried_forward()).sum();
        tally.add("entries carried forward by the last process", carried);
        tally.add("processes started", node.life);
        tally.add("folders set aside", node.folder.set_aside);
    }
    for client in &world.clients {
        tally.add("attempts after the first", client.met.retries);
        tally.add("writes sent again", client.met.repeats);
        tally.add("connections made", client.met.connections);
        tally.add("connections lost", client.met.lost);
        for (error, &count) in &client.met.errors {
            *tally.errors.entry(error.clone()).or_default() += count;
        }
    }
    tally
}
