//! From bytes to requests: framing, the handshake, admission, and who executes what.

use std::rc::Rc;
use std::time::Duration;

use ringbolt_engine::env::Env;
use ringbolt_wire::frame::{self, FrameView, Peek};
use ringbolt_wire::message::{ErrorCode, ReadLevel, ReadOptions, Request, Response, Topology};
use ringbolt_wire::peer::BATCH_BYTES_MAX;
use ringbolt_wire::{HELLO_FRAME_BYTES_MAX, Kind, partition_of};

use super::counters::add;
use super::keyspaces::HOME;
use super::mail::{Item, KeyspaceChange, Origin, Parcel, Scope, SessionKey, Ticket};
use super::route;
use super::sessions::{Session, Stage};
use super::trace::{Op, Wait};
use super::{Inner, Leaving, Shard};

/// How long an overloaded shard asks clients to wait, in milliseconds.
const RETRY_AFTER_MS: u32 = 10;
/// How long a client should wait that meets the limit of connections, in milliseconds.
const FULL_RETRY_MS: u32 = 1000;
/// Largest answer to a hello that is read from another node, in bytes.
const WELCOME_FRAME_BYTES_MAX: u32 = 4096;

impl<E: Env> Shard<E> {
    /// Bytes arrived on a connection.
    pub fn received(&self, key: SessionKey, mut bytes: &[u8]) {
        let inner = &self.0;
        let mut buffered = {
            let mut sessions = inner.sessions.borrow_mut();
            let Some(session) = sessions.get(key) else {
                let mut leaving = inner.leaving.borrow_mut();
                if let Some(leaving) = leaving.iter_mut().find(|leaving| leaving.key == key) {
                    leaving.input.extend_from_slice(bytes);
                }
                return;
            };
            let counted = if session.stage.is_peer() {
                &inner.counters.peer_received_bytes_total
            } else {
                &inner.counters.received_bytes_total
            };
            add(counted, bytes.len() as u64);
            session.heard = inner.clock.get().now;
            let skipped = session.skip.min(bytes.len());
            session.skip -= skipped;
            bytes = &bytes[skipped..];
            if session.paused || session.stuck || !session.input.is_empty() {
                session.input.extend_from_slice(bytes);
                if session.stuck && session.input.len() > inner.config.limits.inflight_bytes_max {
                    session.paused = true;
                    sessions.touch(key);
                    return;
                }
                if session.paused || session.stuck {
                    return;
                }
                Some(std::mem::take(&mut session.input))
            } else {
                None
            }
        };
        match &mut buffered {
            // The usual case: whole frames straight from the socket's buffer.
            None => {
                let taken = inner.take_frames(key, bytes);
                if taken < bytes.len()
                    && let Some(session) = inner.sessions.borrow_mut().get(key)
                {
                    session.input.extend_from_slice(&bytes[taken..]);
                    session.frame_began = inner.clock.get().now;
                }
            }
            Some(input) => {
                let taken = inner.take_frames(key, input);
                input.drain(..taken);
                if let Some(session) = inner.sessions.borrow_mut().get(key) {
                    if taken > 0 {
                        session.frame_began = inner.clock.get().now;
                    }
                    session.input = std::mem::take(input);
                }
            }
        }
    }

    /// The client will send no more. What it asked is still answered.
    pub fn ended(&self, key: SessionKey) {
        let inner = &self.0;
        let stage = inner.sessions.borrow_mut().get(key).map(|s| s.stage);
        if stage.is_some_and(Stage::is_peer) {
            inner.cut(key);
            return;
        }
        if let Some(session) = inner.sessions.borrow_mut().get(key)
            && session.stage == Stage::Resp
            && (session.stuck || session.paused)
        {
            session.ended = true;
            return;
        }
        inner.finish(key);
        if let Some(session) = inner.sessions.borrow_mut().get(key) {
            session.input = Vec::new();
        }
    }

    /// The connection is gone.
    pub fn closed(&self, key: SessionKey) {
        self.0.forget(key);
    }

    /// Mail from another core.
    pub fn parcel(&self, parcel: &Parcel) {
        let came = |origin: &Origin| {
            let mut origin = *origin;
            origin.trace.mark(Wait::Mailbox, self.0.clock.get().us);
            origin
        };
        for item in &parcel.items {
            match item {
                Item::Request {
                    origin,
                    scope,
                    frame,
                } => {
                    let bytes = &parcel.bytes[frame.clone()];
                    self.0.execute_frame(came(origin), *scope, bytes);
                }
                Item::Reply { origin, frame } => {
                    let bytes = &parcel.bytes[frame.clone()];
                    self.0
                        .deliver(&came(origin), |out| out.extend_from_slice(bytes));
                }
                Item::Keyspace { origin, change } => {
                    self.0
                        .keyspace_changed(*origin, KeyspaceChange::clone(change));
                }
                Item::Clients { origin } => self.0.tell_clients(*origin),
            }
        }
    }
}

impl<E: Env> Inner<E> {
    /// Takes up as many whole frames as there are and as limits allow; returns the bytes used.
    pub(super) fn take_frames(self: &Rc<Self>, key: SessionKey, bytes: &[u8]) -> usize {
        let mut at = 0;
        let mut looked_at = 0;
        while at < bytes.len() {
            let Some(stage) = self.may_take(key) else {
                break;
            };
            let limit = match stage {
                Stage::Greeting => HELLO_FRAME_BYTES_MAX,
                Stage::Open => {
                    let limit = self.config.limits.frame_bytes_max();
                    if at >= looked_at {
                        looked_at = at + self.look_ahead(&bytes[at..], limit);
                    }
                    limit
                }
                Stage::Peer(_) => BATCH_BYTES_MAX,
                Stage::Link(_) => WELCOME_FRAME_BYTES_MAX,
                Stage::Closing => return bytes.len(),
                Stage::Resp => return at + self.take_commands(key, &bytes[at..]),
            };
            let rest = &bytes[at..];
            match frame::peek(rest, limit) {
                Ok(Peek::Incomplete { .. }) => break,
                Ok(Peek::Frame { len }) => {
                    if !self.take_frame(key, stage, rest, len) {
                        return bytes.len();
                    }
                    at += len;
                }
                Ok(Peek::Oversized { len, .. }) if stage.is_peer() => {
                    let why = format!("a frame of {len} bytes is over the limit of {limit}");
                    self.cut_because(key, &why);
                    return bytes.len();
                }
                Ok(Peek::Oversized { len, request_id }) => {
                    at += self.refuse_oversized(key, rest.len(), len, request_id, limit);
                }
                Err(error) => {
                    self.break_off(key, error.code(), &error.to_string());
                    return bytes.len();
                }
            }
        }
        at
    }

    /// Whether the connection may have another request taken up, and in what stage it is. If not,
    /// it is paused until its backlog has gone down.
    pub(super) fn may_take(&self, key: SessionKey) -> Option<Stage> {
        let limits = &self.config.limits;
        let mut sessions = self.sessions.borrow_mut();
        let session = sessions.get(key)?;
        if session.stage.is_peer() {
            return Some(session.stage);
        }
        if session.inflight >= limits.inflight_requests_max
            || session.inflight_bytes >= limits.inflight_bytes_max
            || session.backlog() >= limits.out_bytes_max
        {
            if !session.paused {
                session.paused = true;
                session.paused_us = self.clock.get().us;
            }
            sessions.touch(key);
            return None;
        }
        Some(session.stage)
    }

    /// Executes one frame. `false` if the rest of the input is not for this shard any more.
    fn take_frame(self: &Rc<Self>, key: SessionKey, stage: Stage, rest: &[u8], len: usize) -> bool {
        let view = match frame::open(&rest[..len]) {
            Ok(view) => view,
            Err(error) => {
                self.break_off(key, error.code(), &error.to_string());
                return false;
            }
        };
        match stage {
            Stage::Peer(from) => return self.peer_batch(key, from, &view),
            Stage::Link(index) => return self.link_received(key, index, &view),
            Stage::Greeting | Stage::Open | Stage::Resp | Stage::Closing => {}
        }
        add(&self.counters.requests_total, 1);
        let origin = self.admit(key, &view, len);
        if stage == Stage::Greeting {
            return if view.kind == Kind::PeerHello as u8 {
                self.greet_peer(key, &origin, &view, rest)
            } else if view.kind == Kind::Introduce as u8 {
                self.introduce(key, &origin, &view)
            } else {
                self.greet(key, origin, &view, rest)
            };
        }
        let limit = self.config.limits.shard_inflight_bytes_max;
        if self.inflight_bytes.get() > limit {
            add(&self.counters.overloaded_total, 1);
            self.fail(
                &origin,
                ErrorCode::Overloaded,
                RETRY_AFTER_MS,
                limit as u64,
                "the shard has too many bytes of requests under way: try again a little later",
            );
            return true;
        }
        self.execute(origin, Scope::Whole, &view, &rest[..len]);
        true
    }

    /// Counts a request against its connection and the shard.
    fn admit(&self, key: SessionKey, view: &FrameView<'_>, len: usize) -> Origin {
        if let Some(session) = self.sessions.borrow_mut().get(key) {
            session.inflight += 1;
            session.inflight_bytes += len;
        }
        self.inflight_bytes.set(self.inflight_bytes.get() + len);
        let wait = match view.deadline_ms {
            0 => self.config.limits.deadline_default,
            ms => Duration::from_millis(u64::from(ms)),
        };
        Origin {
            core: self.config.core,
            ticket: Ticket::Session(key),
            request_id: view.request_id,
            cost: len as u32,
            deadline: self.clock.get().now + wait,
            forwarded: false,
            settled: false,
            trace: self.account.begin(Op::of_kind(view.kind)),
        }
    }

    /// The first message: `Hello`, here or handed to the core it wants.
    fn greet(
        self: &Rc<Self>,
        key: SessionKey,
        origin: Origin,
        view: &FrameView<'_>,
        rest: &[u8],
    ) -> bool {
        let hello = match Request::decode(view) {
            Ok(request @ Request::Hello { .. }) => request,
            Ok(_) => {
                self.fail(
                    &origin,
                    ErrorCode::Handshake,
                    0,
                    0,
                    "the first message of a connection must be Hello",
                );
                self.finish(key);
                return false;
            }
            Err(error) => {
                self.fail(&origin, error.code(), 0, error.detail(), &error.to_string());
                self.finish(key);
                return false;
            }
        };
        let Request::Hello {
            version_min,
            version_max,
            core,
            ..
        } = hello
        else {
            return false;
        };
        let spoken = u16::from(ringbolt_wire::VERSION);
        if !(version_min..=version_max).contains(&spoken) {
            let message = format!(
                "this server speaks protocol version {spoken}, the client {version_min} to \
                 {version_max}: use a client of the server's version"
            );
            self.fail(
                &origin,
                ErrorCode::Unsupported,
                0,
                u64::from(spoken),
                &message,
            );
            self.finish(key);
            return false;
        }
        match core {
            Some(core) if core >= self.config.map.cores() => {
                let message = format!(
                    "there is no core {core}: this node has {}",
                    self.config.map.cores()
                );
                let cores = u64::from(self.config.map.cores());
                self.fail(&origin, ErrorCode::BadRequest, 0, cores, &message);
                self.finish(key);
                false
            }
            Some(core) if core != self.config.core => {
                let session = self.forget(key);
                self.release(origin.cost as usize);
                if let Some(session) = session {
                    self.leaving.borrow_mut().push(Leaving {
                        key,
                        handle: session.handle,
                        core,
                        input: rest.to_vec(),
                    });
                }
                false
            }
            _ if self.sessions.borrow().clients() > self.config.limits.sessions_max => {
                add(&self.counters.connections_refused_total, 1);
                let limit = self.config.limits.sessions_max as u64;
                let message = "this core has as many connections as it may \
                               (limits.connections_max)";
                self.fail(
                    &origin,
                    ErrorCode::Overloaded,
                    FULL_RETRY_MS,
                    limit,
                    message,
                );
                self.finish(key);
                false
            }
            _ => {
                self.welcome(&origin, spoken);
                self.sessions.borrow_mut().set_stage(key, Stage::Open);
                true
            }
        }
    }

    fn welcome(&self, origin: &Origin, version: u16) {
        let limits = &self.config.limits;
        let response = Response::Welcome {
            version,
            core: self.config.core,
            server: concat!("ringbolt/", env!("CARGO_PKG_VERSION")),
            limits: ringbolt_wire::message::Limits {
                key_bytes_max: limits.key_bytes_max as u32,
                value_bytes_max: limits.value_bytes_max as u32,
                frame_bytes_max: limits.frame_bytes_max(),
                inflight_requests_max: limits.inflight_requests_max,
                scan_rows_max: limits.scan_rows_max,
            },
            topology: self.topology(),
        };
        self.answer(origin, &response);
    }

    pub(super) fn topology(&self) -> Topology {
        if self.config.cluster.nodes().len() == 1 {
            self.config.map.topology()
        } else {
            route::cluster_topology(&self.config.cluster, self.config.map.partitions())
        }
    }

    /// Answers a frame that is too long and makes the connection skip it.
    fn refuse_oversized(
        &self,
        key: SessionKey,
        have: usize,
        len: usize,
        request_id: u64,
        limit: u32,
    ) -> usize {
        add(&self.counters.bad_frames_total, 1);
        let origin = Origin {
            core: self.config.core,
            ticket: Ticket::Session(key),
            request_id,
            cost: 0,
            deadline: Duration::MAX,
            forwarded: false,
            settled: false,
            trace: self.account.begin(Op::Other),
        };
        if let Some(session) = self.sessions.borrow_mut().get(key) {
            session.inflight += 1;
            session.skip = len.saturating_sub(have);
        }
        let message = format!("a frame of {len} bytes is over the limit of {limit}");
        self.fail(&origin, ErrorCode::TooLarge, 0, u64::from(limit), &message);
        have.min(len)
    }

    /// The connection's framing is lost: say so once, then close.
    pub(super) fn break_off(&self, key: SessionKey, code: ErrorCode, message: &str) {
        let stage = self.sessions.borrow_mut().get(key).map(|s| s.stage);
        if stage.is_some_and(Stage::is_peer) {
            self.cut_because(key, message);
            return;
        }
        add(&self.counters.bad_frames_total, 1);
        if let Some(session) = self.sessions.borrow_mut().touch(key) {
            session.inflight += 1;
        }
        let origin = Origin {
            core: self.config.core,
            ticket: Ticket::Session(key),
            request_id: 0,
            cost: 0,
            deadline: Duration::MAX,
            forwarded: false,
            settled: false,
            trace: self.account.begin(Op::Other),
        };
        self.fail(&origin, code, 0, 0, message);
        self.finish(key);
    }

    /// Takes no more input from a connection, and closes it once its replies are sent.
    pub(super) fn finish(&self, key: SessionKey) {
        self.sessions.borrow_mut().set_stage(key, Stage::Closing);
    }

    /// Drops a connection's state.
    pub(super) fn forget(&self, key: SessionKey) -> Option<Session> {
        let session = {
            let mut sessions = self.sessions.borrow_mut();
            let session = sessions.remove(key)?;
            self.counters.connections.set(sessions.clients() as u64);
            session
        };
        self.peer_ended(key, session.stage);
        Some(session)
    }

    /// Executes a frame that another core sent here, or that waited here.
    pub(super) fn execute_frame(self: &Rc<Self>, origin: Origin, scope: Scope, bytes: &[u8]) {
        match frame::open(bytes) {
            Ok(view) => self.execute(origin, scope, &view, bytes),
            Err(error) => self.fail(&origin, error.code(), 0, 0, &error.to_string()),
        }
    }

    /// The same for one whose keyspace was asked for just now.
    pub(super) fn execute_as_learnt(self: &Rc<Self>, origin: Origin, scope: Scope, bytes: &[u8]) {
        match frame::open(bytes).and_then(|view| Request::decode(&view)) {
            Ok(request) => self.execute_request(origin, scope, request, bytes),
            Err(error) => self.fail(&origin, error.code(), 0, 0, &error.to_string()),
        }
    }

    /// Executes a request here, or sends it to the core that owns its partition.
    fn execute(self: &Rc<Self>, origin: Origin, scope: Scope, view: &FrameView<'_>, bytes: &[u8]) {
        let request = match Request::decode(view) {
            Ok(request) => request,
            Err(error) => {
                add(&self.counters.bad_frames_total, 1);
                self.fail(&origin, error.code(), 0, error.detail(), &error.to_string());
                return;
            }
        };
        // One that is dropped is known nowhere.
        let is_drop = scope != Scope::Whole && matches!(request, Request::Clear { .. });
        match request.keyspace() {
            Some(keyspace) if !self.knows_keyspace(keyspace) && !is_drop => {
                self.execute_once_learnt(origin, scope, bytes);
            }
            _ => self.execute_request(origin, scope, request, bytes),
        }
    }

    fn execute_request(
        self: &Rc<Self>,
        origin: Origin,
        scope: Scope,
        request: Request<'_>,
        bytes: &[u8],
    ) {
        let partitions = self.config.map.partitions();
        match request {
            Request::Get {
                keyspace,
                read,
                key,
            } => {
                let partition = partition_of(key, partitions);
                if self.owned(partition, origin, bytes)
                    && self.serves_here(partition, by_leader(&read), &origin, scope, bytes)
                {
                    self.touch(&origin, partition, keyspace, key, false);
                    self.get(origin, scope, partition, keyspace, &read, key, bytes);
                }
            }
            Request::Write {
                keyspace,
                options,
                op,
            } => {
                let partition = partition_of(op.key(), partitions);
                if self.owned(partition, origin, bytes)
                    && self.serves_here(partition, true, &origin, scope, bytes)
                {
                    self.touch(&origin, partition, keyspace, op.key(), true);
                    self.write(origin, partition, keyspace, &options, &op, bytes);
                }
            }
            Request::MultiGet {
                keyspace,
                read,
                keys,
            } => self.multi_get(origin, scope, keyspace, &read, &keys, bytes),
            Request::Batch {
                keyspace,
                options,
                ops,
            } => match self.batch_partition(&ops) {
                Ok(partition) => {
                    if self.owned(partition, origin, bytes)
                        && self.serves_here(partition, true, &origin, scope, bytes)
                    {
                        for op in ops.iter() {
                            self.touch(&origin, partition, keyspace, op.key(), true);
                        }
                        self.batch(origin, partition, keyspace, &options, &ops, bytes);
                    }
                }
                Err(refusal) => self.refuse(&origin, &refusal),
            },
            Request::Stat {
                keyspace,
                read,
                key,
            } => {
                let partition = partition_of(key, partitions);
                if self.owned(partition, origin, bytes)
                    && self.serves_here(partition, by_leader(&read), &origin, scope, bytes)
                {
                    self.touch(&origin, partition, keyspace, key, false);
                    self.stat(origin, scope, partition, keyspace, &read, key, bytes);
                }
            }
            Request::Clear {
                keyspace,
                partition,
            } => {
                if partition >= partitions {
                    let message = format!("there is no partition {partition}");
                    self.fail(&origin, ErrorCode::BadRequest, 0, 0, &message);
                } else if self.owned_as(partition, origin, scope, bytes)
                    && self.serves_here(partition, true, &origin, scope, bytes)
                {
                    self.clear(origin, scope, partition, keyspace);
                }
            }
            Request::Scan(scan) => self.scan(origin, scope, &scan, bytes),
            Request::Ping => self.answer(&origin, &Response::Done),
            Request::Topology => self.answer(&origin, &Response::Topology(self.topology())),
            Request::Stats => self.stats(origin, scope, bytes),
            Request::Status => self.status(origin, scope, bytes),
            Request::KeyspaceCreate { name, options } => {
                if self.owned(HOME, origin, bytes)
                    && self.serves_here(HOME, true, &origin, scope, bytes)
                {
                    self.keyspace_create(origin, name, options);
                }
            }
            Request::KeyspaceDrop { name } => {
                if self.owned(HOME, origin, bytes)
                    && self.serves_here(HOME, true, &origin, scope, bytes)
                {
                    self.keyspace_drop(origin, name);
                }
            }
            Request::KeyspaceList => self.list_keyspaces(origin, scope, bytes),
            Request::Prefer { partition, node } => {
                if self.owned(HOME, origin, bytes)
                    && self.serves_here(HOME, true, &origin, scope, bytes)
                {
                    self.prefer(origin, partition, node);
                }
            }
            Request::Drain { node, undo } => self.drain_asked(&origin, node, undo),
            Request::Hello { .. } => self.fail(
                &origin,
                ErrorCode::Handshake,
                0,
                0,
                "Hello is said once, as a connection's first message",
            ),
        }
    }

    /// Counts a request for a key that is served here, but not again one that had waited.
    pub(super) fn touch(
        &self,
        origin: &Origin,
        partition: u16,
        keyspace: u32,
        key: &[u8],
        is_write: bool,
    ) {
        if !origin.settled {
            self.touch_key(partition, keyspace, key, is_write);
        }
    }

    /// The same for one that is known not to have waited.
    pub(super) fn touch_key(&self, partition: u16, keyspace: u32, key: &[u8], is_write: bool) {
        if self.hot.touch(partition) {
            let hash = self.hash(keyspace, key);
            self.hot.sample(partition, keyspace, key, hash, is_write);
        }
    }

    /// Whether this core owns the partition; if not, the request goes to the core that does.
    pub(super) fn owned(&self, partition: u16, origin: Origin, bytes: &[u8]) -> bool {
        self.owned_as(partition, origin, Scope::Whole, bytes)
    }

    /// The same for a request that another core may have put.
    pub(super) fn owned_as(
        &self,
        partition: u16,
        origin: Origin,
        scope: Scope,
        bytes: &[u8],
    ) -> bool {
        let core = self.config.map.core_of(partition);
        if core == self.config.core {
            return true;
        }
        add(&self.counters.requests_forwarded_total, 1);
        let mut origin = origin;
        origin.trace.mark(Wait::Core, self.clock.get().us);
        self.parcels.borrow_mut()[usize::from(core)].request(origin, scope, bytes);
        false
    }
}

/// Whether a read is for the leader only.
pub(super) fn by_leader(read: &ReadOptions<'_>) -> bool {
    matches!(read.level, ReadLevel::Linearizable | ReadLevel::Strict)
}
