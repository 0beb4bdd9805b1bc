//! One generator thread: all its connections, one epoll loop.
//!
//! A turn of the loop:
//! 1. take what epoll reports; for each readable connection read once, decode every whole reply,
//!    account for it, and (closed loop) put a new request in its place;
//! 2. take reconnected connections; send again what the server refused for a while; close what
//!    has not answered in time;
//! 3. (open loop) issue what is due, on connections that have room;
//! 4. write what has gathered, one write a connection.
//!
//! In a closed loop a connection's requests are written as soon as its replies are read, so that
//! the server has work while the next connection is looked at. A source that keeps a ledger is
//! asked first, and then all connections are written at the end of the turn.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};

use crate::clock::{Clock, nanos};
use crate::connect::{Connector, Home, Target, Wanted};
use crate::keys::Keys;
use crate::open_loop::Schedule;
use crate::protocol::{Codec, Command, Effect, Failure, Reply};
use crate::source::{Next, Op, OpKind, Outcome, Source};
use crate::stats::{Intervals, Recorder};
use crate::value::{Stamp, Values};
use crate::{LoadError, Options};

const READ_BYTES: usize = 256 << 10;
const EVENTS: usize = 1024;
const WAKE: Token = Token(usize::MAX);
/// How often timeouts are looked for.
const TICK_NS: u64 = 50_000_000;
/// How often a source that said "wait" is asked again.
const WAIT_NS: u64 = 1_000_000;
/// How many tickets of a run limited by requests a thread takes at a time.
const TICKETS: i64 = 16;
/// How long a node that does not lead is left alone, in milliseconds.
const NOT_LEADER_MS: u32 = 10;
/// How often in a row a connection's node may say that it does not lead, before the connection
/// moves to another.
const NOT_LEADER_MAX: u32 = 8;
/// Input and output buffers that grew past this are given back when empty.
const BUFFER_KEEP_BYTES: usize = 1 << 20;

/// A phase, as its threads see it.
#[derive(Debug, Clone)]
pub(crate) struct Phase {
    /// When requests may begin to be made, and when no more may.
    pub open: std::ops::Range<u64>,
    /// What is counted.
    pub window: std::ops::Range<u64>,
    /// Requests left to make within the window, if that is what limits the phase.
    pub tickets: Option<Arc<AtomicI64>>,
    /// Unanswered requests a connection may have.
    pub depth: usize,
    /// Open loop: this thread's requests per second.
    pub rate: Option<f64>,
    /// Counts over time, of all threads.
    pub intervals: Arc<Intervals>,
    /// Set by whoever wants everybody to stop.
    pub stop: Arc<AtomicBool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SlotState {
    Free,
    InFlight,
    /// Refused for a while: to be sent again.
    Waiting,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    state: SlotState,
    generation: u32,
    op: Op,
    /// When latency counts from.
    begun_ns: u64,
    /// When it was last sent.
    sent_ns: u64,
    /// A read-modify-write that has been read.
    modifying: bool,
}

#[derive(Debug)]
struct Conn {
    stream: Option<TcpStream>,
    /// Where it leads, or would if that node could be reached.
    home: Home,
    /// Whose keys it makes requests of; `None`: any.
    place: Option<u16>,
    /// How often in a row its node said that it does not lead.
    not_leader: u32,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slots in the order of their requests, for protocols that answer in order.
    order: VecDeque<u32>,
    dirty: bool,
    /// The source has nothing more for it in this phase.
    done: bool,
    waiting: bool,
    /// Given up: the server did not come back.
    dead: bool,
}

impl Conn {
    fn in_use(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

fn request_id(slot: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(slot)
}

pub(crate) struct Worker {
    clock: Clock,
    poll: Poll,
    events: Events,
    conns: Vec<Conn>,
    codec: Codec,
    /// The nodes' numbers.
    nodes: Vec<u32>,
    connector: Connector,
    keys: Keys,
    prefix: Vec<u8>,
    values: Values,
    /// Values are stamped with this run.
    run: Option<u64>,
    options: Arc<Options>,
    scratch: Vec<u8>,
    dirty: Vec<usize>,
    waiting: Vec<usize>,
    retries: BinaryHeap<Reverse<(u64, usize, u32, u32)>>,
    /// Connections with room, for an open loop: one entry for each free slot.
    room: VecDeque<usize>,
    next_tick_ns: u64,
    next_wait_ns: u64,
    tickets: i64,
    /// Requests under way.
    under_way: usize,
    seed: u64,
}

impl Worker {
    /// Takes over streams that have shaken hands, each with where it belongs and whose keys it gets.
    pub fn new(
        options: Arc<Options>,
        target: &Target,
        clock: Clock,
        streams: Vec<(std::net::TcpStream, Home, Option<u16>)>,
        run: Option<u64>,
        seed: u64,
    ) -> Result<Self, LoadError> {
        let poll = Poll::new().map_err(LoadError::io("creating an epoll"))?;
        let waker =
            Waker::new(poll.registry(), WAKE).map_err(LoadError::io("creating an eventfd"))?;
        let mut codec = target.codec.clone();
        if let Codec::Ringbolt(codec) = &mut codec {
            // Each thread numbers its own writes.
            codec.client = seed | 1;
        }
        let mut worker = Self {
            clock,
            poll,
            events: Events::with_capacity(EVENTS),
            conns: Vec::new(),
            codec,
            nodes: target.nodes.iter().map(|node| node.id).collect(),
            connector: Connector::start(target.clone(), waker)?,
            keys: Keys::new(&options.key_prefix),
            prefix: options.key_prefix.as_bytes().to_vec(),
            values: Values::new(
                *options.value_bytes.end(),
                options.value_ratio,
                options.seed,
            ),
            run,
            options,
            scratch: vec![0; READ_BYTES],
            dirty: Vec::new(),
            waiting: Vec::new(),
            retries: BinaryHeap::new(),
            room: VecDeque::new(),
            next_tick_ns: 0,
            next_wait_ns: 0,
            tickets: 0,
            under_way: 0,
            seed,
        };
        for (conn, (stream, home, place)) in streams.into_iter().enumerate() {
            worker.conns.push(Conn {
                stream: None,
                home,
                place,
                not_leader: 0,
                input: Vec::new(),
                output: Vec::new(),
                written: 0,
                slots: Vec::new(),
                free: Vec::new(),
                order: VecDeque::new(),
                dirty: false,
                done: false,
                waiting: false,
                dead: false,
            });
            worker.attach(conn, stream)?;
        }
        Ok(worker)
    }

    /// Whose keys each connection makes requests of.
    pub fn places(&self) -> Vec<Option<u16>> {
        self.conns.iter().map(|conn| conn.place).collect()
    }

    fn attach(&mut self, conn: usize, stream: std::net::TcpStream) -> Result<(), LoadError> {
        stream
            .set_nonblocking(true)
            .map_err(LoadError::io("setting a socket to non-blocking"))?;
        let mut stream = TcpStream::from_std(stream);
        self.poll
            .registry()
            .register(
                &mut stream,
                Token(conn),
                Interest::READABLE | Interest::WRITABLE,
            )
            .map_err(LoadError::io("registering a socket with epoll"))?;
        self.conns[conn].stream = Some(stream);
        Ok(())
    }

    /// Runs one phase to its end: until nothing more is to be asked and all is answered.
    ///
    /// # Errors
    /// If the phase cannot go on; what was counted so far comes too.
    pub fn run_phase(
        &mut self,
        phase: &Phase,
        source: &mut impl Source,
    ) -> (Recorder, Result<(), LoadError>) {
        let mut turn = Turn {
            recorder: Recorder::new(phase.window.clone()),
            schedule: phase.rate.map(|rate| {
                Schedule::new(rate, self.options.arrivals, self.seed, phase.open.start)
            }),
            phase,
            source,
            closed: false,
        };
        let driven = self.drive(&mut turn);
        // A ledger learns what was acknowledged last, however the phase ended.
        let result = driven.and(turn.source.before_send());
        if result.is_err() {
            phase.stop.store(true, Ordering::Relaxed);
        }
        let end = self.clock.now();
        turn.recorder.finish(end, &phase.intervals);
        (turn.recorder, result)
    }

    fn drive<S: Source>(&mut self, turn: &mut Turn<'_, S>) -> Result<(), LoadError> {
        self.begin_phase(turn);
        let early = turn.phase.open.start.saturating_sub(self.clock.now());
        std::thread::sleep(Duration::from_nanos(early));
        loop {
            let now = self.clock.now();
            if !turn.closed
                && (now >= turn.phase.open.end || turn.phase.stop.load(Ordering::Relaxed))
            {
                turn.closed = true;
            }
            self.take_reconnected(turn, now)?;
            self.send_again(turn, now);
            if now >= self.next_tick_ns {
                self.next_tick_ns = now + TICK_NS;
                self.expire(turn, now);
                turn.source.before_send()?;
            }
            if turn.schedule.is_some() {
                self.issue_due(turn, now);
            } else if now >= self.next_wait_ns && !self.waiting.is_empty() {
                self.next_wait_ns = now + WAIT_NS;
                for conn in std::mem::take(&mut self.waiting) {
                    self.conns[conn].waiting = false;
                    self.fill(turn, conn, now);
                }
            }
            self.flush_dirty(turn)?;
            if self.is_over(turn) {
                return Ok(());
            }
            let timeout = self.timeout(turn, self.clock.now());
            let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
            let polled = self.poll.poll(&mut events, Some(timeout));
            if let Err(error) = polled
                && error.kind() != ErrorKind::Interrupted
            {
                return Err(LoadError::io("waiting for events")(error));
            }
            for event in &events {
                let Token(conn) = event.token();
                if event.token() == WAKE {
                    continue;
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    self.read(turn, conn, event.is_read_closed() || event.is_error())?;
                }
                if self.conns[conn].written < self.conns[conn].output.len()
                    && !self.conns[conn].dirty
                {
                    self.flush(turn, conn);
                }
            }
            self.events = events;
        }
    }

    fn begin_phase<S: Source>(&mut self, turn: &mut Turn<'_, S>) {
        let depth = turn.phase.depth;
        self.room.clear();
        self.waiting.clear();
        self.tickets = 0;
        for (number, conn) in self.conns.iter_mut().enumerate() {
            conn.done = false;
            conn.waiting = turn.schedule.is_none();
            if conn.waiting {
                self.waiting.push(number);
            }
            let generation = conn
                .slots
                .iter()
                .map(|slot| slot.generation)
                .max()
                .unwrap_or(0)
                + 1;
            conn.slots.clear();
            conn.free.clear();
            conn.slots.resize(
                depth,
                Slot {
                    state: SlotState::Free,
                    generation,
                    op: Op {
                        kind: OpKind::Read,
                        index: 0,
                        sequence: 0,
                        size: 0,
                        place: 0,
                    },
                    begun_ns: 0,
                    sent_ns: 0,
                    modifying: false,
                },
            );
            conn.free.extend(0..depth as u32);
            if conn.dead {
                conn.dead = false;
                self.connector.ask(Wanted {
                    conn: number,
                    home: conn.home,
                    until: Instant::now() + self.options.reconnect_for,
                });
            }
        }
        for _ in 0..depth {
            self.room.extend(0..self.conns.len());
        }
        self.next_wait_ns = 0;
    }

    fn is_over<S: Source>(&self, turn: &Turn<'_, S>) -> bool {
        if self.under_way > 0 {
            return false;
        }
        turn.closed
            || self
                .conns
                .iter()
                .all(|conn| (conn.done || conn.dead) && !conn.waiting)
    }

    /// How long to wait for events. A due request less than a millisecond away is spun for:
    /// epoll cannot wait for less.
    fn timeout<S: Source>(&self, turn: &Turn<'_, S>, now: u64) -> Duration {
        let mut until = self.next_tick_ns;
        if !turn.closed {
            until = until.min(turn.phase.open.end.max(now));
            if let Some(schedule) = &turn.schedule {
                if !self.room.is_empty() {
                    until = until.min(schedule.due());
                }
            } else if !self.waiting.is_empty() {
                until = until.min(self.next_wait_ns);
            }
        }
        if let Some(Reverse((due, ..))) = self.retries.peek() {
            until = until.min(*due);
        }
        let wait = Duration::from_nanos(until.saturating_sub(now));
        Duration::from_millis(wait.as_millis() as u64)
    }

    /// Puts requests into all free slots of a connection (closed loop).
    fn fill<S: Source>(&mut self, turn: &mut Turn<'_, S>, conn: usize, now: u64) {
        while !self.conns[conn].free.is_empty() {
            if !self.issue(turn, conn, now, now) {
                return;
            }
        }
    }

    /// Makes every request that is due (open loop).
    fn issue_due<S: Source>(&mut self, turn: &mut Turn<'_, S>, now: u64) {
        let mut skipped = 0;
        while !turn.closed {
            let Some(due) = turn
                .schedule
                .as_ref()
                .map(Schedule::due)
                .filter(|&due| due <= now)
            else {
                return;
            };
            if skipped > self.room.len() {
                return;
            }
            let Some(conn) = self.room.pop_front() else {
                return;
            };
            if self.issue(turn, conn, due, now) {
                skipped = 0;
                if let Some(schedule) = &mut turn.schedule {
                    schedule.advance();
                }
            } else {
                if !self.conns[conn].done {
                    self.room.push_back(conn);
                }
                skipped += 1;
            }
        }
    }

    /// Makes one request on a connection that has room. Says whether it did.
    fn issue<S: Source>(
        &mut self,
        turn: &mut Turn<'_, S>,
        conn: usize,
        begun: u64,
        now: u64,
    ) -> bool {
        let Conn {
            place,
            stream,
            done,
            ..
        } = &self.conns[conn];
        if turn.closed || *done || stream.is_none() {
            return false;
        }
        let place = *place;
        let limited = turn.phase.tickets.is_some() && now >= turn.phase.window.start;
        if limited && !self.has_ticket(turn) {
            self.conns[conn].done = true;
            return false;
        }
        let op = match turn.source.next(conn, place, now) {
            Next::Op(op) => op,
            Next::Wait => {
                let state = &mut self.conns[conn];
                if !state.waiting && turn.schedule.is_none() {
                    state.waiting = true;
                    self.waiting.push(conn);
                }
                return false;
            }
            Next::Done => {
                self.conns[conn].done = true;
                return false;
            }
        };
        let state = &mut self.conns[conn];
        let Some(slot) = state.free.pop() else {
            return false;
        };
        let entry = &mut state.slots[slot as usize];
        self.tickets -= i64::from(limited);
        entry.op = op;
        entry.begun_ns = begun;
        entry.modifying = false;
        entry.generation = entry.generation.wrapping_add(1);
        self.under_way += 1;
        self.send(turn, conn, slot, now);
        true
    }

    /// Whether a run limited by requests lets one more be made: takes a few from all that are left
    /// when this thread has none.
    fn has_ticket<S: Source>(&mut self, turn: &Turn<'_, S>) -> bool {
        if self.tickets <= 0
            && let Some(shared) = &turn.phase.tickets
        {
            let left = shared.fetch_sub(TICKETS, Ordering::Relaxed);
            self.tickets = left.clamp(0, TICKETS);
        }
        self.tickets > 0
    }

    /// Encodes a slot's request into its connection's output.
    fn send<S: Source>(&mut self, turn: &mut Turn<'_, S>, conn: usize, slot: u32, now: u64) {
        let state = &mut self.conns[conn];
        let entry = &mut state.slots[slot as usize];
        entry.state = SlotState::InFlight;
        entry.sent_ns = now;
        let op = entry.op;
        let key = self.keys.key(op.index);
        let command = match op.kind {
            OpKind::Read => Command::Get { key },
            OpKind::Modify if !entry.modifying => Command::Get { key },
            OpKind::Update | OpKind::Insert | OpKind::Modify => Command::Put {
                key,
                value: match self.run {
                    Some(run) => {
                        let stamp = Stamp {
                            run,
                            sequence: op.sequence,
                        };
                        self.values.stamped(stamp, key, op.size)
                    }
                    None => self.values.plain(op.sequence, op.size),
                },
            },
            OpKind::Delete => Command::Delete { key },
            OpKind::Scan => Command::Scan {
                start: key,
                prefix: &self.prefix,
                rows: op.size,
            },
        };
        let id = request_id(slot, entry.generation);
        match self.codec.encode(id, &command, &mut state.output) {
            Ok(()) => {
                if self.codec.in_order() {
                    state.order.push_back(slot);
                }
                if !state.dirty {
                    state.dirty = true;
                    self.dirty.push(conn);
                }
            }
            Err(error) => {
                let failure = Failure {
                    code: Cow::Borrowed("CannotEncode"),
                    effect: Effect::None,
                    message: error.0,
                };
                self.fail(turn, conn, slot, &failure, now);
            }
        }
    }

    fn flush_dirty<S: Source>(&mut self, turn: &mut Turn<'_, S>) -> Result<(), LoadError> {
        if self.dirty.is_empty() {
            return Ok(());
        }
        if turn.source.batched() {
            turn.source.before_send()?;
        }
        for conn in std::mem::take(&mut self.dirty) {
            self.conns[conn].dirty = false;
            self.flush(turn, conn);
        }
        Ok(())
    }

    /// Writes as much of a connection's output as the socket takes.
    fn flush<S: Source>(&mut self, turn: &mut Turn<'_, S>, conn: usize) {
        let state = &mut self.conns[conn];
        let Some(stream) = &mut state.stream else {
            return;
        };
        while state.written < state.output.len() {
            match stream.write(&state.output[state.written..]) {
                Ok(0) => {
                    return self.lose(turn, conn, "ConnectionLost", "the socket takes no bytes");
                }
                Ok(n) => state.written += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    return self.lose(turn, conn, "ConnectionLost", &error.to_string());
                }
            }
        }
        state.output.clear();
        state.written = 0;
        if state.output.capacity() > BUFFER_KEEP_BYTES {
            state.output = Vec::new();
        }
    }

    /// Reads until the socket has no more. A short read means that it has none, unless the other
    /// end has closed: then the end of file is still to come.
    fn read<S: Source>(
        &mut self,
        turn: &mut Turn<'_, S>,
        conn: usize,
        closed: bool,
    ) -> Result<(), LoadError> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut result = Ok(());
        while let Some(stream) = &mut self.conns[conn].stream {
            match stream.read(&mut scratch) {
                Ok(0) => {
                    self.lose(
                        turn,
                        conn,
                        "ConnectionLost",
                        "the server closed the connection",
                    );
                }
                Ok(n) => {
                    result = self.take_bytes(turn, conn, &scratch[..n]);
                    if result.is_err() || (n < scratch.len() && !closed) {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => self.lose(turn, conn, "ConnectionLost", &error.to_string()),
            }
        }
        self.scratch = scratch;
        result
    }

    fn take_bytes<S: Source>(
        &mut self,
        turn: &mut Turn<'_, S>,
        conn: usize,
        bytes: &[u8],
    ) -> Result<(), LoadError> {
        let now = self.clock.now();
        if self.conns[conn].input.is_empty() {
            let used = self.take_replies(turn, conn, bytes, now)?;
            self.conns[conn].input.extend_from_slice(&bytes[used..]);
        } else {
            let mut input = std::mem::take(&mut self.conns[conn].input);
            input.extend_from_slice(bytes);
            let used = self.take_replies(turn, conn, &input, now)?;
            if self.conns[conn].stream.is_some() {
                input.drain(..used);
                if input.is_empty() && input.capacity() > BUFFER_KEEP_BYTES {
                    input = Vec::new();
                }
                self.conns[conn].input = input;
            }
        }
        if turn.schedule.is_none() {
            self.fill(turn, conn, now);
            if !turn.source.batched() && self.conns[conn].dirty {
                // It stays in the dirty list; writing nothing then costs nothing.
                self.flush(turn, conn);
            }
        }
        Ok(())
    }

    /// Takes all whole replies at the front of `bytes` and says how long they are.
    fn take_replies<S: Source>(
        &mut self,
        turn: &mut Turn<'_, S>,
        conn: usize,
        bytes: &[u8],
        now: u64,
    ) -> Result<usize, LoadError> {
        let mut used = 0;
        loop {
            let decoded = match self.codec.decode(&bytes[used..]) {
                Ok(Some(decoded)) => decoded,
                Ok(None) => return Ok(used),
                Err(error) => return Err(LoadError::Protocol(error.to_string())),
            };
            used += decoded.bytes;
            let state = &mut self.conns[conn];
            let slot = match decoded.id {
                // Not ours to answer: what the server says before it closes a connection.
                Some(0) if matches!(decoded.reply, Reply::Error(_)) => None,
                Some(id) => {
                    let slot = id as u32;
                    let known = state.slots.get(slot as usize).is_some_and(|entry| {
                        entry.state == SlotState::InFlight
                            && request_id(slot, entry.generation) == id
                    });
                    if !known {
                        return Err(LoadError::Protocol(format!(
                            "a reply to request {id:#x}, which is not under way"
                        )));
                    }
                    Some(slot)
                }
                None => {
                    let oldest = state.order.pop_front();
                    if oldest.is_none() {
                        return Err(LoadError::Protocol("a reply to no request".into()));
                    }
                    oldest
                }
            };
            match (slot, decoded.reply) {
                (Some(slot), reply) => self.take_reply(turn, conn, slot, reply, now)?,
                (None, Reply::Error(failure)) => {
                    turn.recorder
                        .error(failure.code, &failure.message, now, &turn.phase.intervals);
                }
                (None, _) => {}
            }
        }
    }

    fn take_reply<S: Source>(
        &mut self,
        turn: &mut Turn<'_, S>,
        conn: usize,
        slot: u32,
        reply: Reply<'_>,
        now: u64,
    ) -> Result<(), LoadError> {
        let entry = &mut self.conns[conn].slots[slot as usize];
        let reads = match entry.op.kind {
            OpKind::Read => true,
            OpKind::Modify => !entry.modifying,
            _ => false,
        };
        let scans = entry.op.kind == OpKind::Scan;
        let outcome = match reply {
            Reply::Error(failure) => {
                self.fail(turn, conn, slot, &failure, now);
                return Ok(());
            }
            Reply::Value(value) if reads => Outcome::Value(value),
            Reply::Absent if reads => Outcome::Absent,
            Reply::Written if !reads && !scans => Outcome::Written,
            Reply::Rows(rows) if scans => Outcome::Rows(rows),
            other => {
                return Err(LoadError::Protocol(format!(
                    "{:?} answered with {other:?}",
                    entry.op.kind
                )));
            }
        };
        if entry.op.kind == OpKind::Modify && !entry.modifying {
            entry.modifying = true;
            entry.generation = entry.generation.wrapping_add(1);
            self.send(turn, conn, slot, now);
            return Ok(());
        }
        let (op, begun) = (entry.op, entry.begun_ns);
        self.conns[conn].not_leader = 0;
        turn.recorder
            .success(op.kind, begun, now, &turn.phase.intervals);
        self.release(turn, conn, slot, outcome, now);
        Ok(())
    }

    /// A request was refused or failed.
    fn fail<S: Source>(
        &mut self,
        turn: &mut Turn<'_, S>,
        conn: usize,
        slot: u32,
        failure: &Failure,
        now: u64,
    ) {
        turn.recorder.error(
            failure.code.clone(),
            &failure.message,
            now,
            &turn.phase.intervals,
        );
        if let Effect::NotLeader { node } = failure.effect {
            self.conns[conn].not_leader += 1;
            self.conns[conn].home.node = self.elsewhere(conn, node);
        }
        let entry = &mut self.conns[conn].slots[slot as usize];
        let writes = entry.op.kind.writes();
        let outcome = match failure.effect {
            Effect::Retry { .. } | Effect::NotLeader { .. } => {
                let after_ms = match failure.effect {
                    Effect::Retry { after_ms } => after_ms,
                    _ => NOT_LEADER_MS,
                };
                let due = now + u64::from(after_ms) * 1_000_000;
                let give_up = entry.begun_ns.saturating_add(nanos(self.options.timeout));
                if due < give_up && !turn.closed {
                    entry.state = SlotState::Waiting;
                    turn.recorder.retries += 1;
                    self.retries
                        .push(Reverse((due, conn, slot, entry.generation)));
                    return;
                }
                Outcome::NotDone
            }
            Effect::None => Outcome::NotDone,
            Effect::InDoubt => Outcome::InDoubt,
            Effect::Done if writes => Outcome::Written,
            Effect::Done => Outcome::NotDone,
        };
        self.release(turn, conn, slot, outcome, now);
    }

    /// Where a connection goes whose node does not lead: to the one that does, if it is known.
    fn elsewhere(&self, conn: usize, leader: u32) -> usize {
        let next = (self.conns[conn].home.node + 1) % self.nodes.len();
        let known = self.nodes.iter().position(|&node| node == leader);
        known.unwrap_or(next)
    }

    /// Ends a request.
    fn release<S: Source>(
        &mut self,
        turn: &mut Turn<'_, S>,
        conn: usize,
        slot: u32,
        outcome: Outcome<'_>,
        now: u64,
    ) {
        let state = &mut self.conns[conn];
        let entry = &mut state.slots[slot as usize];
        entry.state = SlotState::Free;
        state.free.push(slot);
        self.under_way -= 1;
        if turn.schedule.is_some() {
            self.room.push_back(conn);
        }
        let op = entry.op;
        let key = self.keys.key(op.index);
        turn.source.done(conn, &op, key, outcome, now);
        // A refused request frees its slot outside of a reply: ask for the next soon.
        if turn.schedule.is_none() && !state.waiting && !state.done {
            state.waiting = !matches!(
                outcome,
                Outcome::Value(_) | Outcome::Absent | Outcome::Written | Outcome::Rows(_)
            );
            if state.waiting {
                self.waiting.push(conn);
            }
        }
    }

    /// Gives a connection up: what was under way on it is in doubt. It is opened again.
    fn lose<S: Source>(
        &mut self,
        turn: &mut Turn<'_, S>,
        conn: usize,
        code: &'static str,
        message: &str,
    ) {
        let now = self.clock.now();
        let state = &mut self.conns[conn];
        let Some(mut stream) = state.stream.take() else {
            return;
        };
        // It is closed next, which takes it out of epoll even if this fails.
        let _ = self.poll.registry().deregister(&mut stream);
        drop(stream);
        state.input.clear();
        state.output.clear();
        state.written = 0;
        state.order.clear();
        state.not_leader = 0;
        turn.recorder
            .error(Cow::Borrowed(code), message, now, &turn.phase.intervals);
        for slot in 0..state.slots.len() as u32 {
            let entry = &self.conns[conn].slots[slot as usize];
            match entry.state {
                SlotState::Free => {}
                SlotState::Waiting => self.release(turn, conn, slot, Outcome::NotDone, now),
                SlotState::InFlight => {
                    let read = matches!(entry.op.kind, OpKind::Read | OpKind::Scan)
                        || (entry.op.kind == OpKind::Modify && !entry.modifying);
                    let outcome = if read {
                        Outcome::NotDone
                    } else {
                        Outcome::InDoubt
                    };
                    self.release(turn, conn, slot, outcome, now);
                }
            }
        }
        self.connector.ask(Wanted {
            conn,
            home: self.conns[conn].home,
            until: Instant::now() + self.options.reconnect_for,
        });
    }

    fn take_reconnected<S: Source>(
        &mut self,
        turn: &mut Turn<'_, S>,
        now: u64,
    ) -> Result<(), LoadError> {
        while let Some((conn, opened)) = self.connector.opened() {
            match opened {
                Ok(stream) => {
                    self.attach(conn, stream)?;
                    if turn.schedule.is_none() {
                        self.fill(turn, conn, now);
                    }
                }
                Err(error) => {
                    self.conns[conn].dead = true;
                    // Its records cannot be reached any more: the run is over.
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Sends again what the server refused for a while, once that has passed.
    fn send_again<S: Source>(&mut self, turn: &mut Turn<'_, S>, now: u64) {
        while let Some(Reverse((due, ..))) = self.retries.peek() {
            if *due > now && !turn.closed {
                return;
            }
            let Some(Reverse((_, conn, slot, generation))) = self.retries.pop() else {
                return;
            };
            let Some(entry) = self.conns[conn].slots.get_mut(slot as usize) else {
                continue;
            };
            if entry.state != SlotState::Waiting || entry.generation != generation {
                continue;
            }
            entry.generation = generation.wrapping_add(1);
            if turn.closed {
                self.release(turn, conn, slot, Outcome::NotDone, now);
            } else {
                self.send(turn, conn, slot, now);
            }
        }
    }

    /// Gives up connections with a request that has gone unanswered for too long, or whose node goes
    /// on saying that it does not lead.
    fn expire<S: Source>(&mut self, turn: &mut Turn<'_, S>, now: u64) {
        // A Ringbolt server answers at the deadline itself: give the answer time to arrive.
        let timeout = nanos(self.options.timeout) + 2 * TICK_NS;
        for conn in 0..self.conns.len() {
            let state = &self.conns[conn];
            if state.in_use() == 0 || state.stream.is_none() {
                continue;
            }
            if state.not_leader >= NOT_LEADER_MAX && self.nodes.len() > 1 {
                self.lose(turn, conn, "Moved", "the node does not lead");
                continue;
            }
            let late = state.slots.iter().any(|slot| {
                slot.state == SlotState::InFlight && now.saturating_sub(slot.sent_ns) > timeout
            });
            if late {
                self.lose(turn, conn, "TimedOut", "no answer within --timeout");
            }
        }
        turn.recorder.enter_interval(now, &turn.phase.intervals);
    }
}

/// What changes from phase to phase.
struct Turn<'a, S> {
    phase: &'a Phase,
    source: &'a mut S,
    recorder: Recorder,
    schedule: Option<Schedule>,
    /// Nothing more is asked.
    closed: bool,
}
