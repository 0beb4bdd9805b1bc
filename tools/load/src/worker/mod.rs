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

mod answer;
mod ask;
mod conn;
mod loss;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::ErrorKind;
use std::num::NonZeroU64;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};
use rustix::event::{PollFd, PollFlags, Timespec};

use self::conn::{Conn, Slot, SlotState};
use crate::clock::Clock;
use crate::connect::{Connector, Home, Target, Wanted};
use crate::keys::{Keys, unique};
use crate::open_loop::Schedule;
use crate::protocol::Codec;
use crate::source::{Op, OpKind, Source};
use crate::stats::{Intervals, Recorder};
use crate::value::Values;
use crate::{LoadError, Options};

const READ_BYTES: usize = 256 << 10;
const EVENTS: usize = 1024;
const WAKE: Token = Token(usize::MAX);
/// How close a request that is due must be to be spun for.
const SPIN: Duration = Duration::from_micros(30);
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
            // Each thread numbers its own writes, and no other run's: they would be taken for the same.
            codec.client = unique(seed) | 1;
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
        // The usual slack of 50 µs would count as latency; without leave for less it does.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
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
            let polled = self.poll(&mut events, timeout);
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

    /// Waits for events until a moment, to the microsecond. What is due soon is spun for, since waking up takes
    /// about as long; before that the thread sleeps, so that the server may use the CPU.
    fn poll(&mut self, events: &mut Events, wait: Duration) -> std::io::Result<()> {
        events.clear();
        let whole = Duration::from_millis(wait.as_millis() as u64);
        if whole.is_zero() && wait > SPIN {
            // The wait of epoll itself knows whole milliseconds only.
            let sleep = Timespec::try_from(wait - SPIN).map_err(std::io::Error::other)?;
            let epoll = self.poll.registry().as_fd();
            let mut ready = [PollFd::from_borrowed_fd(epoll, PollFlags::IN)];
            rustix::event::poll(&mut ready, Some(&sleep))?;
        }
        self.poll.poll(events, Some(whole))
    }

    /// How long to wait for events.
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
        Duration::from_nanos(until.saturating_sub(now))
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
