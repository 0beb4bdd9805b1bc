//! Redis clients: their commands are executed as the requests that the shard knows.
//!
//! [`crate::resp`] says what commands mean and how; this is where they meet the shard.
//!
//! - `input`: from bytes to commands, in the order of the connection;
//! - `single`: commands on one key, each one request;
//! - `many`: commands on many keys, several requests each;
//! - `task`: commands of several steps: read-modify-write, scans, `WAIT`;
//! - `talk`: what is asked of the server itself;
//! - `clients`: what is asked of connections.

mod clients;
mod input;
mod many;
mod scan;
mod single;
mod talk;
mod task;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use ringbolt_engine::env::Env;
use ringbolt_wire::frame;
use ringbolt_wire::message::{ErrorCode, ErrorReply, KeyspaceId, Request, Response};

use super::counters::add;
use super::mail::{Origin, Scope, SessionKey, Ticket};
use super::reply::{Refusal, carries_data};
use super::sessions::{Session, Stage};
use super::signal::Signal;
use super::trace::{Op, Outcome, Trace, Wait};
use super::{Inner, Shard};
use crate::resp::connection::{Connection, Touches, Want};
use crate::resp::cursor::Cursors;
use crate::resp::parse::ParseLimits;
use crate::resp::reply::Version;
use crate::resp::{Options, reply};

/// Longest capacity that a buffer for frames keeps, in bytes.
const KEEP_CAPACITY: usize = 64 << 10;

/// What a core keeps for Redis clients beside their connections.
pub(super) struct Resp {
    options: Arc<Options>,
    limits: ParseLimits,
    /// Connections so far.
    connections: Cell<u64>,
    cursors: RefCell<Cursors>,
    /// Who waits to change a key by read-modify-write, by the key's hash.
    queues: RefCell<AHashMap<u64, VecDeque<Signal<()>>>>,
    /// Buffers for a request's frame and for an answer's, free between uses.
    request: Cell<Vec<u8>>,
    answer: Cell<Vec<u8>>,
}

impl Resp {
    pub(super) fn new(
        options: Arc<Options>,
        limits: &super::limits::ShardLimits,
        core: u16,
        seed: u64,
    ) -> Self {
        Self {
            options,
            limits: ParseLimits {
                argument_bytes_max: limits.value_bytes_max.max(limits.key_bytes_max),
                arguments_max: 2 * limits.batch_ops_max as usize + 1,
                command_bytes_max: limits.frame_bytes_max() as usize,
            },
            connections: Cell::new(0),
            cursors: RefCell::new(Cursors::new(core, seed)),
            queues: RefCell::default(),
            request: Cell::default(),
            answer: Cell::default(),
        }
    }
}

/// A command under way: whose it is and what it runs on.
#[derive(Debug, Clone, Copy)]
struct Asked {
    key: SessionKey,
    version: Version,
    keyspace: KeyspaceId,
    /// Its length in bytes.
    len: usize,
}

/// A command that a task executes: its slot, and what it holds of the budgets.
#[derive(Debug, Clone, Copy)]
struct Job {
    asked: Asked,
    number: u64,
    deadline: Duration,
    trace: Trace,
}

impl<E: Env> Shard<E> {
    /// A Redis client's connection was accepted. `None` if there are too many: close it after telling
    /// so by [`resp_refusal`].
    pub fn connected_resp(&self, handle: u64) -> Option<SessionKey> {
        let inner = &self.0;
        let mut sessions = inner.sessions.borrow_mut();
        if !inner.accepting.get() || sessions.clients() >= inner.config.limits.sessions_max {
            add(&inner.counters.connections_refused_total, 1);
            return None;
        }
        add(&inner.counters.connections_total, 1);
        let now = inner.clock.get().now;
        let key = sessions.insert(handle, Stage::Resp, now);
        let count = inner.resp.connections.get();
        inner.resp.connections.set(count + 1);
        // Of the node's connections, this core has every so manieth number.
        let (cores, core) = (inner.config.map.cores(), inner.config.core);
        let id = count * u64::from(cores) + u64::from(core) + 1;
        if let Some(session) = sessions.get(key) {
            session.resp = Some(Box::new(Connection::new(id, now)));
        }
        inner.counters.connections.set(sessions.clients() as u64);
        Some(key)
    }
}

/// What a connection over the limit is told.
#[must_use]
pub fn resp_refusal() -> Vec<u8> {
    b"-ERR max number of clients reached\r\n".to_vec()
}

impl<E: Env> Inner<E> {
    /// Something with the connection and its bytes to be sent, if it is still there.
    fn with_connection<T>(
        &self,
        key: SessionKey,
        f: impl FnOnce(&mut Connection, &mut Vec<u8>) -> T,
    ) -> Option<T> {
        let mut sessions = self.sessions.borrow_mut();
        let session = sessions.touch(key)?;
        if session.backlog() == 0 {
            session.sent = self.clock.get().now;
        }
        let connection = session.resp.as_mut()?;
        Some(f(connection, &mut session.out))
    }

    /// A reply that is there at once.
    fn say(&self, key: SessionKey, encode: impl FnOnce(&mut Vec<u8>)) {
        self.with_connection(key, |connection, out| connection.say(out, encode));
    }

    fn say_error(&self, key: SessionKey, text: &str) {
        add(&self.counters.errors_total, 1);
        self.say(key, |out| reply::error(out, text));
    }

    /// Makes a slot for a command, of which `parts` requests are asked, and counts them as under way.
    fn expect(&self, asked: &Asked, want: Want, touches: Touches, parts: u32) -> u64 {
        let number = {
            let mut sessions = self.sessions.borrow_mut();
            let Some(session) = sessions.get(asked.key) else {
                return 0;
            };
            session.inflight += parts;
            session.inflight_bytes += asked.len;
            let connection = session.resp.as_mut();
            connection.map_or(0, |connection| connection.expect(want, touches, parts))
        };
        self.inflight_bytes
            .set(self.inflight_bytes.get() + asked.len);
        number
    }

    /// Who asks for a request: a slot of a connection. The command's bytes are counted once.
    fn origin_of(&self, asked: &Asked, number: u64, cost: usize, op: Op) -> Origin {
        Origin {
            core: self.config.core,
            ticket: Ticket::Session(asked.key),
            request_id: number,
            cost: cost as u32,
            deadline: self.resp_deadline(),
            forwarded: false,
            settled: false,
            trace: self.account.begin(op),
        }
    }

    fn resp_deadline(&self) -> Duration {
        self.clock.get().now + self.config.limits.deadline_default
    }

    /// An answer to a Redis client's request. Its share of the budgets is given back already.
    pub(super) fn answered(
        &self,
        session: &mut Session,
        origin: &Origin,
        encode: impl FnOnce(&mut Vec<u8>),
    ) {
        let limit = self.config.limits.backlog_bytes_max();
        let backlog = session.backlog();
        let Some(connection) = session.resp.as_mut() else {
            return;
        };
        let mut frame = self.resp.answer.take();
        encode(&mut frame);
        let backlogged = Response::Error(ErrorReply {
            code: ErrorCode::Overloaded,
            retry_after_ms: 0,
            detail: limit as u64,
            message: "too many bytes of replies wait on this connection: read them first",
        });
        let view = frame::open(&frame);
        let response = match view.as_ref().map(Response::decode) {
            Ok(Ok(_)) if backlog + frame.len() > limit && carries_data(&frame) => backlogged,
            Ok(Ok(response)) => response,
            _ => Response::Error(ErrorReply {
                code: ErrorCode::ShardFailed,
                retry_after_ms: 0,
                detail: 0,
                message: "a core's answer could not be understood",
            }),
        };
        let wall_ms = self.clock.get().wall_ms;
        connection.answered(origin.request_id, &response, wall_ms, &mut session.out);
        let outcome = Outcome::of_reply(&frame);
        self.account.answered(&origin.trace, outcome, origin.cost);
        give_back(&self.resp.answer, frame);
    }

    /// Has a request executed by whoever must, as one part of a command.
    fn send_request(self: &std::rc::Rc<Self>, request: &Request<'_>, scope: Scope, origin: Origin) {
        let mut frame = self.resp.request.take();
        match request.encode(origin.request_id, 0, &mut frame) {
            Ok(()) => self.execute_frame(origin, scope, &frame),
            Err(error) => self.fail(&origin, error.code(), 0, error.detail(), &error.to_string()),
        }
        give_back(&self.resp.request, frame);
    }

    /// The reply of a task, the last thing it does.
    fn finish_job(&self, job: &Job, bytes: Vec<u8>) {
        self.release(job.asked.len);
        let mut trace = job.trace;
        trace.mark(Wait::Forward, self.now_us());
        let outcome = match bytes.first() {
            Some(b'-') => Outcome::Invalid,
            _ => Outcome::Ok,
        };
        self.account.answered(&trace, outcome, job.asked.len as u32);
        let mut sessions = self.sessions.borrow_mut();
        let Some(session) = sessions.touch(job.asked.key) else {
            return;
        };
        session.inflight = session.inflight.saturating_sub(1);
        session.inflight_bytes = session.inflight_bytes.saturating_sub(job.asked.len);
        if session.backlog() == 0 {
            session.sent = self.clock.get().now;
        }
        if let Some(connection) = session.resp.as_mut() {
            connection.complete(job.number, bytes, &mut session.out);
        }
    }

    /// Who asks for a task's requests.
    fn origin_of_job(&self, job: &Job) -> Origin {
        Origin {
            core: self.config.core,
            ticket: Ticket::None,
            request_id: job.number,
            cost: 0,
            deadline: job.deadline,
            forwarded: false,
            settled: false,
            trace: job.trace,
        }
    }
}

fn give_back(place: &Cell<Vec<u8>>, mut buffer: Vec<u8>) {
    buffer.clear();
    if buffer.capacity() <= KEEP_CAPACITY {
        place.set(buffer);
    }
}

/// A refusal as an error reply.
fn refused(refusal: &Refusal) -> Vec<u8> {
    let mut bytes = Vec::new();
    let failed = ErrorReply {
        code: refusal.code,
        retry_after_ms: refusal.retry_after_ms,
        detail: refusal.detail,
        message: &refusal.message,
    };
    crate::resp::render::error(&mut bytes, &failed);
    bytes
}
