//! A client: one operation at a time over the wire protocol, any node, until its deadline.
//!
//! It asks the node that it believes to lead the key's partition, or any; goes on to another when
//! one is silent, gone or not the leader; and keeps account of what it knows: a write that was sent
//! and not answered is in doubt for ever, unless sending it again under the same number brings the
//! answer. It remembers tokens, like the client library, and what it last saw of each key.

use std::collections::BTreeMap;

use ringbolt_engine::env::sim::Rng;
use ringbolt_wire::frame::{self, Peek};
use ringbolt_wire::list::{KeysBuf, TokensBuf, WriteOpsBuf};
use ringbolt_wire::message::{
    Ack, Condition, ErrorClass, ErrorCode, Meta, PartitionId, ReadLevel, ReadOptions, Request,
    Response, Scan, Token, Ttl, WriteOp, WriteOptions,
};

use super::clock::{MILLI, Nanos};
use super::history::{Call, Cell, Change, Guard, KeyId, NEVER, Operation, Outcome};
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
        Self {
            number,
            id: rng.next_u64() | 1,
            next_at: rng.below(100 * MILLI),
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
        let plan = plan.unwrap_or_else(|| {
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
        let level = match last {
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
        let frame = encode(current, keys, self.id, self.request, (wait / MILLI) as u32);
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

    /// Bytes arrived.
    ///
    /// # Errors
    /// An answer that no server may give.
    pub fn received(
        &mut self,
        now: Nanos,
        end: End,
        bytes: &[u8],
        keys: &Keys,
        done: &mut Vec<Operation>,
        wishes: &mut Vec<Wish>,
    ) -> Result<(), String> {
        let Some(node) = self.node_of(end) else {
            return Ok(());
        };
        let mut input = std::mem::take(&mut self.inputs[usize::from(node)]);
        input.extend_from_slice(bytes);
        let mut at = 0;
        while let Peek::Frame { len } =
            frame::peek(&input[at..], u32::MAX).map_err(|error| error.to_string())?
        {
            let view = frame::open(&input[at..at + len]).map_err(|error| error.to_string())?;
            let response = Response::decode(&view).map_err(|error| error.to_string())?;
            self.answered(now, node, view.request_id, &response, keys, done, wishes)?;
            at += len;
        }
        input.drain(..at);
        if self.links[usize::from(node)].end() == Some(end) {
            self.inputs[usize::from(node)] = input;
        }
        self.ask_to_wake(wishes);
        Ok(())
    }

    #[allow(clippy::too_many_arguments)] // The frame and the world it came into.
    fn answered(
        &mut self,
        now: Nanos,
        node: u16,
        request: u64,
        response: &Response<'_>,
        keys: &Keys,
        done: &mut Vec<Operation>,
        wishes: &mut Vec<Wish>,
    ) -> Result<(), String> {
        if let Response::Welcome { topology, .. } = response {
            for partition in 0..topology.partitions() {
                let known = self.leaders.contains_key(&partition);
                if let (false, Some(leader)) = (known, topology.leader(partition)) {
                    self.leaders.insert(partition, leader as u16 - 1);
                }
            }
            if let Link::Greeting(end) = self.links[usize::from(node)] {
                self.links[usize::from(node)] = Link::Open(end);
                let waits = self
                    .current
                    .as_ref()
                    .is_some_and(|current| current.node == node && current.request.is_none());
                if waits {
                    self.send(now, keys, end, wishes);
                }
            }
            return Ok(());
        }
        let Some(current) = &self.current else {
            return Ok(());
        };
        if current.request != Some(request) || current.node != node {
            return Ok(());
        }
        if let Response::Error(error) = response {
            let name = format!("{:?}", error.code);
            *self.met.errors.entry(name).or_default() += 1;
            return self.refused(
                now,
                error.code,
                error.detail,
                error.message,
                keys,
                done,
                wishes,
            );
        }
        self.leaders.insert(current.partition, node);
        let outcome = self.outcome(response, keys)?;
        self.finish(now, outcome, keys, done);
        Ok(())
    }

    fn outcome(&self, response: &Response<'_>, keys: &Keys) -> Result<Outcome, String> {
        let Some(current) = &self.current else {
            return Ok(Outcome::Failed);
        };
        let cell = |key: KeyId, meta: &Meta, value: &[u8]| {
            let Some(number) = keys.decode(key, value) else {
                return Err(format!(
                    "key {key} has a value that was never written: {:?}",
                    String::from_utf8_lossy(value)
                ));
            };
            Ok(Cell {
                value: number,
                version: meta.version,
                updated_ms: meta.updated_ms,
            })
        };
        match (response, &current.plan) {
            (Response::Written { token, .. }, Plan::Write(changes)) => Ok(Outcome::Written {
                token: *token,
                numbers: vec![None; changes.len()],
            }),
            (Response::Counter { token, value }, Plan::Write(_)) => Ok(Outcome::Written {
                token: *token,
                numbers: vec![Some(*value)],
            }),
            (Response::BatchWritten { token, counters }, Plan::Write(_)) => Ok(Outcome::Written {
                token: *token,
                numbers: counters.clone(),
            }),
            (Response::NotFound { token }, Plan::Get(_)) => Ok(Outcome::Seen {
                tokens: vec![*token],
                cells: vec![None],
            }),
            (Response::Value { token, meta, value }, Plan::Get(of)) => Ok(Outcome::Seen {
                tokens: vec![*token],
                cells: vec![Some(cell(of[0], meta, value)?)],
            }),
            (Response::Values { tokens, values }, Plan::Get(of)) => {
                let cells = of.iter().zip(values).map(|(&key, found)| {
                    found
                        .as_ref()
                        .map(|(meta, value)| cell(key, meta, value))
                        .transpose()
                });
                Ok(Outcome::Seen {
                    tokens: tokens.clone(),
                    cells: cells.collect::<Result<_, _>>()?,
                })
            }
            (Response::Rows { tokens, rows, .. }, Plan::Scan(prefix)) => {
                let mut found = BTreeMap::new();
                for (name, meta, value) in rows {
                    let Some(key) = keys.of_name(name) else {
                        return Err(format!("a scan found {:?}", String::from_utf8_lossy(name)));
                    };
                    found.insert(key, cell(key, meta, value)?);
                }
                let all = keys.with_prefix(prefix);
                Ok(Outcome::Seen {
                    tokens: tokens.clone(),
                    cells: all.iter().map(|key| found.get(key).copied()).collect(),
                })
            }
            _ => Err(format!("{response:?} answers {:?}", current.plan)),
        }
    }

    #[allow(clippy::too_many_arguments)] // The parts of an error and the world it came into.
    fn refused(
        &mut self,
        now: Nanos,
        code: ErrorCode,
        detail: u64,
        message: &str,
        keys: &Keys,
        done: &mut Vec<Operation>,
        wishes: &mut Vec<Wish>,
    ) -> Result<(), String> {
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        let writing = matches!(current.plan, Plan::Write(_));
        match code.class() {
            ErrorClass::DecideAgain if code == ErrorCode::ConditionFailed && writing => {
                let outcome = match current.doubtful {
                    true => Outcome::InDoubt,
                    false => Outcome::GuardFailed,
                };
                self.finish(now, outcome, keys, done);
            }
            ErrorClass::FindOut if writing => {
                current.doubtful = true;
                self.attempt_failed(now, keys, done, wishes);
            }
            ErrorClass::TryAgain => {
                if code == ErrorCode::NotLeader {
                    let leader = u16::try_from(detail).ok().and_then(|id| id.checked_sub(1));
                    match leader.filter(|leader| usize::from(*leader) < self.links.len()) {
                        Some(leader) => self.leaders.insert(current.partition, leader),
                        None => self.leaders.remove(&current.partition),
                    };
                } else if self.rng.one_in(2) {
                    self.leaders.remove(&current.partition);
                }
                current.request = None;
                current.give_up_at = now + self.rng.between(5, 50) * MILLI;
            }
            ErrorClass::CallOperator => {
                self.leaders.remove(&current.partition);
                self.attempt_failed(now, keys, done, wishes);
            }
            _ => {
                return Err(format!(
                    "{code:?} ({message}) answers {:?}, {:?}",
                    current.plan, current.level
                ));
            }
        }
        Ok(())
    }

    /// This attempt came to nothing: the next one, or the end.
    fn attempt_failed(
        &mut self,
        now: Nanos,
        keys: &Keys,
        done: &mut Vec<Operation>,
        wishes: &mut Vec<Wish>,
    ) {
        let Some(current) = &mut self.current else {
            return;
        };
        let writing = matches!(current.plan, Plan::Write(_));
        let sent = current.request.is_some();
        if writing && sent {
            current.doubtful = true;
        }
        let may_repeat = !writing || !current.doubtful || self.habits.retries;
        let node = current.node;
        if now < current.deadline && may_repeat {
            if let (false, Link::Greeting(end)) = (sent, &self.links[usize::from(node)]) {
                // The node may have died since it was greeted: nothing else would ever tell.
                wishes.push(Wish::Close(*end));
                self.links[usize::from(node)] = Link::Down;
            }
            if sent {
                self.leaders.remove(&current.partition);
                // A node that does not answer may have lost the connection without a word.
                if self.rng.one_in(2)
                    && let Some(end) = self.links[usize::from(node)].end()
                {
                    self.links[usize::from(node)] = Link::Down;
                    wishes.push(Wish::Close(end));
                }
            }
            return self.attempt(now, keys, wishes);
        }
        let outcome = match writing && current.doubtful {
            true => Outcome::InDoubt,
            false => Outcome::Failed,
        };
        self.finish(now, outcome, keys, done);
    }

    fn finish(&mut self, now: Nanos, outcome: Outcome, keys: &Keys, done: &mut Vec<Operation>) {
        let Some(current) = self.current.take() else {
            return;
        };
        self.next_at = now
            + self
                .rng
                .between(self.habits.pause / 4, self.habits.pause * 2);
        let leader_only = current.ack == Ack::Leader;
        match (&current.plan, &outcome) {
            (Plan::Write(changes), Outcome::Written { token, .. }) if !leader_only => {
                self.remember(*token);
                for &(key, _, change) in changes {
                    match change {
                        Change::Put(value) => {
                            self.known.insert(key, (value, token.index));
                        }
                        Change::Delete | Change::Add(_) => {
                            self.known.remove(&key);
                        }
                    }
                }
            }
            (Plan::Get(_) | Plan::Scan(_), Outcome::Seen { tokens, .. }) => {
                for &token in tokens {
                    self.remember(token);
                }
            }
            _ => {}
        }
        let call = match current.plan {
            Plan::Write(changes) => Call::Write {
                changes,
                leader_only,
            },
            Plan::Get(of) => Call::Read {
                keys: of,
                level: current.level,
                tokens: current.tokens,
                page: false,
            },
            Plan::Scan(prefix) => Call::Read {
                keys: keys.with_prefix(&prefix),
                level: current.level,
                tokens: current.tokens,
                page: true,
            },
        };
        if let (Call::Read { keys: of, .. }, Outcome::Seen { cells, .. }) = (&call, &outcome) {
            for (&key, cell) in of.iter().zip(cells) {
                match cell {
                    Some(cell) => self.known.insert(key, (cell.value, cell.version)),
                    None => self.known.remove(&key),
                };
            }
        }
        let completed = match outcome {
            Outcome::InDoubt => NEVER,
            _ => now,
        };
        done.push(Operation {
            client: u32::from(self.number),
            invoked: current.invoked,
            completed,
            call,
            outcome,
        });
    }
}

fn write_op<'a>(keys: &'a Keys, change: &(KeyId, Guard, Change), value: &'a [u8]) -> WriteOp<'a> {
    let (key, guard, change) = *change;
    let key = keys.name(key);
    let condition = match guard {
        Guard::None => Condition::None,
        Guard::Absent => Condition::Absent,
        Guard::Present => Condition::Present,
        Guard::Is { version, .. } => Condition::Version(version),
    };
    match change {
        Change::Put(_) => WriteOp::Put {
            key,
            value,
            ttl: Ttl::Default,
            condition,
        },
        Change::Delete => WriteOp::Delete { key, condition },
        Change::Add(by) => WriteOp::Increment {
            key,
            by,
            ttl: Ttl::Keep,
            condition,
        },
    }
}

fn encode(current: &Current, keys: &Keys, client: u64, request: u64, wait_ms: u32) -> Vec<u8> {
    let mut tokens = TokensBuf::new();
    if current.level == ReadLevel::Session {
        for &token in &current.tokens {
            tokens.push(token);
        }
    }
    let read = ReadOptions {
        level: current.level,
        tokens: tokens.as_tokens(),
    };
    let options = WriteOptions {
        ack: current.ack,
        client,
        sequence: current.sequence,
        retry: current.doubtful,
    };
    let mut frame = Vec::new();
    let mut encode = |request_body: &Request<'_>| request_body.encode(request, wait_ms, &mut frame);
    let encoded = match &current.plan {
        Plan::Get(of) if of.len() == 1 => encode(&Request::Get {
            keyspace: 0,
            read,
            key: keys.name(of[0]),
        }),
        Plan::Get(of) => {
            let mut list = KeysBuf::new();
            let pushed = of.iter().try_for_each(|&key| list.push(keys.name(key)));
            pushed.and_then(|()| {
                encode(&Request::MultiGet {
                    keyspace: 0,
                    read,
                    keys: list.as_keys(),
                })
            })
        }
        Plan::Scan(prefix) => encode(&Request::Scan(Scan {
            keyspace: 0,
            read,
            prefix,
            start: b"",
            end: b"",
            reverse: false,
            keys_only: false,
            limit: 1000,
            cursor: b"",
        })),
        Plan::Write(changes) => {
            let values: Vec<Vec<u8>> = changes
                .iter()
                .map(|(_, _, change)| match change {
                    Change::Put(number) => Keys::encode(*number),
                    Change::Delete | Change::Add(_) => Vec::new(),
                })
                .collect();
            if let [change] = &changes[..] {
                encode(&Request::Write {
                    keyspace: 0,
                    options,
                    op: write_op(keys, change, &values[0]),
                })
            } else {
                let mut ops = WriteOpsBuf::new();
                let pushed = changes
                    .iter()
                    .zip(&values)
                    .try_for_each(|(change, value)| ops.push(&write_op(keys, change, value)));
                pushed.and_then(|()| {
                    encode(&Request::Batch {
                        keyspace: 0,
                        options,
                        ops: ops.as_ops(),
                    })
                })
            }
        }
    };
    assert!(
        encoded.is_ok(),
        "{:?} cannot be encoded: {encoded:?}",
        current.plan
    );
    frame
}
