//! A client: one operation at a time over the wire protocol, any node, until its deadline.
//!
//! It asks the node that it believes to lead the key's partition, or any; goes on to another when
//! one is silent, gone or not the leader; and keeps account of what it knows: a write that was sent
//! and not answered is in doubt for ever, unless sending it again under the same number brings the
//! answer. It remembers tokens, like the client library, and what it last saw of each key.

mod answers;
mod frames;
mod split;

use std::collections::BTreeMap;

use ringbolt_engine::env::sim::Rng;
use ringbolt_wire::message::{Ack, PartitionId, ReadLevel, Request, Token};

use self::split::Split;
use super::clock::{MILLI, Nanos};
use super::history::{Change, Guard, KeyId, Operation};
use super::net::End;
use super::workload::{self, Keys, Plan};

/// How long it takes to greet.
const GREETING: Nanos = 1_000 * MILLI;

/// What a client wants of the world.
#[derive(Debug)]
pub enum Wish {
    /// A connection to a node.
    Dial(u16),
    /// Bytes sent on the connection.
    Send(End, Vec<u8>),
    /// The connection closed.
    Close(End),
    /// To be called at this time, unless a later wish replaces it.
    Wake(Nanos),
}

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct Habits {
    /// The usual pause between two operations, in nanoseconds.
    pub pause: Nanos,
    /// How long a node has for its answer, at least and at most, in nanoseconds.
    pub patience: (Nanos, Nanos),
    /// How long a client waits beyond that, in nanoseconds.
    pub grace: Nanos,
    /// Whether it reads far more than it writes.
    pub reads_most: bool,
    /// Whether writes are sent again under the same number.
    pub retries: bool,
    /// One in so many writes asks for its leader's acknowledgement alone; 0 for none.
    pub leader_one_in: u64,
    /// One in so many writes waits for every voter; 0 for none.
    pub all_one_in: u64,
    /// One in so many requests goes to any node, whoever leads.
    pub stray_one_in: u64,
    /// Cores of the nodes, to wish for one.
    pub cores: u16,
}

#[derive(Debug, Default)]
enum Link {
    #[default]
    Down,
    Dialing,
    Greeting(End),
    Open(End),
}

impl Link {
    fn end(&self) -> Option<End> {
        match self {
            Self::Greeting(end) | Self::Open(end) => Some(*end),
            Self::Down | Self::Dialing => None,
        }
    }
}

/// The operation under way.
struct Current {
    plan: Plan,
    level: ReadLevel,
    ack: Ack,
    tokens: Vec<Token>,
    invoked: Nanos,
    deadline: Nanos,
    sequence: u64,
    partition: PartitionId,
    /// The node that is asked now.
    node: u16,
    /// The request on its way there, if it was sent.
    request: Option<u64>,
    give_up_at: Nanos,
    /// Whether some attempt may have been done though nobody said so.
    doubtful: bool,
    attempts: u32,
}

/// Counts of what clients met.
#[derive(Debug, Clone, Default)]
pub struct Met {
    /// By error code.
    pub errors: BTreeMap<String, u64>,
    /// Attempts after the first.
    pub retries: u64,
    /// Writes sent again that may have been done.
    pub repeats: u64,
    /// Connections made.
    pub connections: u64,
    /// Connections lost.
    pub lost: u64,
}

/// A client.
pub struct Client {
    /// Its number.
    pub number: u16,
    id: u64,
    /// Whether it numbers its writes, as the client library does and clients of the Redis door do not.
    numbers: bool,
    rng: Rng,
    habits: Habits,
    partitions: Vec<PartitionId>,
    links: Vec<Link>,
    inputs: Vec<Vec<u8>>,
    leaders: BTreeMap<PartitionId, u16>,
    tokens: BTreeMap<PartitionId, Token>,
    known: BTreeMap<KeyId, (i64, u64)>,
    current: Option<Current>,
    next_at: Nanos,
    /// It begins nothing before.
    quiet_until: Nanos,
    split: Option<Split>,
    sequence: u64,
    request: u64,
    puts: i64,
    /// Set once it is to begin nothing more.
    pub stopped: bool,
    /// What it met.
    pub met: Met,
}

impl Client {
    /// A client of a cluster of `nodes` nodes.
    #[must_use]
    pub fn new(
        number: u16,
        nodes: u16,
        mut rng: Rng,
        habits: Habits,
        partitions: Vec<PartitionId>,
    ) -> Self {
        let id = rng.next_u64() | 1;
        Self {
            number,
            id,
            numbers: id & 6 != 0,
            next_at: rng.below(100 * MILLI),
            quiet_until: 0,
            split: None,
            rng,
            habits,
            partitions,
            links: (0..nodes).map(|_| Link::Down).collect(),
            inputs: (0..nodes).map(|_| Vec::new()).collect(),
            leaders: BTreeMap::new(),
            tokens: BTreeMap::new(),
            known: BTreeMap::new(),
            current: None,
            sequence: 0,
            request: 0,
            puts: 0,
            stopped: false,
            met: Met::default(),
        }
    }

    /// Begins nothing until a time.
    pub fn hush(&mut self, until: Nanos) {
        self.quiet_until = until;
        self.next_at = self.next_at.max(until);
    }

    /// Whether an operation is under way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.current.is_some()
    }

    /// Its session so far.
    #[must_use]
    pub fn tokens(&self) -> Vec<Token> {
        self.tokens.values().copied().collect()
    }

    /// Takes over what another session has seen.
    pub fn adopt_tokens(&mut self, tokens: &[Token]) {
        for &token in tokens {
            self.remember(token);
        }
    }

    fn remember(&mut self, token: Token) {
        let mine = self.tokens.entry(token.partition).or_insert(token);
        if token.index > mine.index {
            *mine = token;
        }
    }

    /// Time has come.
    pub fn wake(
        &mut self,
        now: Nanos,
        keys: &Keys,
        done: &mut Vec<Operation>,
        wishes: &mut Vec<Wish>,
    ) {
        match &self.current {
            Some(current) if now >= current.give_up_at => {
                self.attempt_failed(now, keys, done, wishes)
            }
            None if now >= self.next_at && !self.stopped => self.begin(now, keys, None, wishes),
            _ => {}
        }
        self.ask_to_wake(wishes);
    }

    fn ask_to_wake(&self, wishes: &mut Vec<Wish>) {
        match &self.current {
            Some(current) => wishes.push(Wish::Wake(current.give_up_at)),
            None if !self.stopped => wishes.push(Wish::Wake(self.next_at)),
            None => {}
        }
    }

    /// Begins a read of all these keys, for the end of a run.
    pub fn begin_read(&mut self, now: Nanos, keys: &Keys, of: Vec<KeyId>, wishes: &mut Vec<Wish>) {
        self.begin(now, keys, Some(Plan::Get(of)), wishes);
        self.ask_to_wake(wishes);
    }

    fn begin(&mut self, now: Nanos, keys: &Keys, plan: Option<Plan>, wishes: &mut Vec<Wish>) {
        let last = plan.is_some();
        self.puts += 1;
        let fresh = (i64::from(self.number) + 1) << 32 | self.puts;
        self.split = self.split.filter(|split| now < split.until);
        let split = match last {
            true => None,
            false => self.split_plan(keys, fresh),
        };
        let is_split = split.is_some();
        let plan = plan.or(split).unwrap_or_else(|| {
            let (known, rng) = (&self.known, &mut self.rng);
            if self.habits.reads_most && !rng.one_in(10) {
                return Plan::Get(vec![rng.index(keys.len()) as KeyId]);
            }
            workload::draw(rng, keys, fresh, |key| known.get(&key).copied())
        });
        let key = match &plan {
            Plan::Write(changes) => changes[0].0,
            Plan::Get(keys) => keys[0],
            Plan::Scan(prefix) => keys.with_prefix(prefix)[0],
        };
        let level = match last || is_split {
            true => ReadLevel::Linearizable,
            false => workload::draw_level(&mut self.rng),
        };
        // Conditional writes and increments are acknowledged by a quorum at least.
        let blind = match &plan {
            Plan::Write(changes) => changes.iter().all(|(_, guard, change)| {
                *guard == Guard::None && !matches!(change, Change::Add(_))
            }),
            _ => false,
        };
        let ack = match blind {
            true if self.rng.one_in(self.habits.leader_one_in) => Ack::Leader,
            _ if self.rng.one_in(self.habits.all_one_in) => Ack::All,
            _ => Ack::Quorum,
        };
        let patience = match last {
            true => 20_000,
            // Whoever reads what is written elsewhere meanwhile must have asked after that.
            false if is_split && self.clings() => self.rng.between(20, 100),
            false => [300, 1000, 5000][self.rng.index(3)],
        };
        self.sequence += 1;
        self.current = Some(Current {
            plan,
            level,
            ack,
            tokens: self.tokens(),
            invoked: now,
            deadline: now + patience * MILLI,
            sequence: self.sequence,
            partition: self.partitions[usize::from(key)],
            node: 0,
            request: None,
            give_up_at: now,
            doubtful: false,
            attempts: 0,
        });
        self.attempt(now, keys, wishes);
    }

    /// Asks a node: over its connection, or a new one.
    fn attempt(&mut self, now: Nanos, keys: &Keys, wishes: &mut Vec<Wish>) {
        let nodes = self.links.len();
        let clings = self.clings();
        let any = self.rng.index(nodes) as u16;
        let stray = self.rng.one_in(self.habits.stray_one_in);
        let Some(current) = &mut self.current else {
            return;
        };
        let local = matches!(current.level, ReadLevel::Session | ReadLevel::Stale { .. });
        let reading = !matches!(current.plan, Plan::Write(_));
        current.node = match self.leaders.get(&current.partition) {
            Some(leader) if !(stray || local && reading) => *leader,
            _ => any,
        };
        if let Some(split) = self.split.filter(|split| now < split.until) {
            current.node = split.node_for(clings, current.node, nodes as u16);
        }
        current.request = None;
        current.attempts += 1;
        self.met.retries += u64::from(current.attempts > 1);
        current.give_up_at = (now + GREETING).min(current.deadline + self.habits.grace);
        let node = current.node;
        match &self.links[usize::from(node)] {
            Link::Open(end) => {
                let end = *end;
                self.send(now, keys, end, wishes);
            }
            Link::Down => {
                self.links[usize::from(node)] = Link::Dialing;
                wishes.push(Wish::Dial(node));
            }
            Link::Dialing | Link::Greeting(_) => {}
        }
    }

    fn send(&mut self, now: Nanos, keys: &Keys, end: End, wishes: &mut Vec<Wish>) {
        let (least, most) = self.habits.patience;
        let slice = self.rng.between(least, most);
        let Some(current) = &mut self.current else {
            return;
        };
        self.request += 1;
        current.request = Some(self.request);
        let writing = matches!(current.plan, Plan::Write(_));
        self.met.repeats += u64::from(writing && current.doubtful);
        let left = current.deadline.saturating_sub(now);
        let wait = left.min(slice).max(MILLI);
        current.give_up_at = now + wait + self.habits.grace;
        let client = if self.numbers { self.id } else { 0 };
        let frame = frames::encode(current, keys, client, self.request, (wait / MILLI) as u32);
        wishes.push(Wish::Send(end, frame));
    }

    /// A connection was made, or was not.
    pub fn dialed(&mut self, now: Nanos, node: u16, end: Option<End>, wishes: &mut Vec<Wish>) {
        let link = &mut self.links[usize::from(node)];
        let Some(end) = end else {
            *link = Link::Down;
            if let Some(current) = &mut self.current
                && current.node == node
                && current.request.is_none()
            {
                // Not at once: a node that is down says no very quickly.
                current.give_up_at = current.give_up_at.min(now + 20 * MILLI);
            }
            self.ask_to_wake(wishes);
            return;
        };
        self.met.connections += 1;
        *link = Link::Greeting(end);
        self.inputs[usize::from(node)].clear();
        let core = match self.rng.one_in(2) {
            true => Some(self.rng.below(u64::from(self.habits.cores)) as u16),
            false => None,
        };
        let hello = Request::Hello {
            version_min: 1,
            version_max: 1,
            core,
            agent: b"sim",
        };
        let mut frame = Vec::new();
        if hello.encode(0, 0, &mut frame).is_ok() {
            wishes.push(Wish::Send(end, frame));
        }
    }

    /// The other side of a connection is gone.
    pub fn closed(
        &mut self,
        now: Nanos,
        end: End,
        keys: &Keys,
        done: &mut Vec<Operation>,
        wishes: &mut Vec<Wish>,
    ) {
        let Some(node) = self.node_of(end) else {
            return;
        };
        self.met.lost += 1;
        self.links[usize::from(node)] = Link::Down;
        wishes.push(Wish::Close(end));
        if self
            .current
            .as_ref()
            .is_some_and(|current| current.node == node)
        {
            self.attempt_failed(now, keys, done, wishes);
        }
        self.ask_to_wake(wishes);
    }

    fn node_of(&self, end: End) -> Option<u16> {
        let at = self.links.iter().position(|link| link.end() == Some(end))?;
        Some(at as u16)
    }
}
