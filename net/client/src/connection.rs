//! One connection: requests pipelined into one buffer, replies told apart by their ids.
//!
//! A request is encoded straight into the connection's buffer under a short lock; the writer task
//! takes whatever has gathered there and sends it in one go. The reader task splits what arrives
//! into frames and wakes whoever waits for each id. Neither task holds the lock across an await.
//!
//! When a connection breaks, each request in flight learns whether it had been handed to the writer:
//! if not, it was provably not done. The writer takes the buffer, and marks it as taken, under the
//! same lock under which a break empties it, so the two cannot disagree.
//!
//! Limits: the server's number of requests in flight, [`OUT_BYTES_MAX`] bytes waiting to be sent,
//! and the server's longest frame. Who would pass one of the first two waits.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringbolt_wire::frame::{self, FrameView, HEADER_BYTES, Peek};
use ringbolt_wire::message::{ErrorCode, Limits, Request, Response, WriteOp};
use ringbolt_wire::{FRAME_BYTES_MAX, VERSION, WireError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

use crate::error::Error;

/// Most bytes that wait to be sent, in bytes. One frame may be longer; then it waits alone.
const OUT_BYTES_MAX: usize = 32 << 20;
/// Frames up to this long are bounded by their number, and not counted by the byte.
const SMALL_BYTES: usize = 4 << 10;
/// Room for reading that is made at once, in bytes.
const READ_BYTES: usize = 32 << 10;
/// A buffer that has grown beyond this is given back once it is empty, in bytes.
const KEEP_BYTES: usize = 1 << 20;
/// Longest answer to a handshake, in bytes: a topology of a partition for every slot, five replicas
/// of each, fits.
const WELCOME_BYTES_MAX: u32 = 512 << 10;
/// Most requests in flight on a connection, whatever the server allows.
const INFLIGHT_MAX: u32 = 1 << 16;

/// What a connection needs to know to be made.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionOptions {
    pub(crate) agent: Arc<str>,
    pub(crate) keepalive: Duration,
    /// How long a node of several may say nothing while it is asked something.
    pub(crate) silence: Duration,
    pub(crate) inflight_max: u32,
}

/// Why no connection was made.
#[derive(Debug, Clone)]
pub(crate) enum ConnectError {
    /// Worth trying again.
    Unreachable(Arc<str>),
    /// The server answered, and would answer the same again.
    Fatal(Error),
}

/// A reply as it came: the body shares memory with what else arrived in the same read.
#[derive(Debug)]
pub(crate) struct Reply {
    kind: u8,
    flags: u16,
    body: Bytes,
}

impl Reply {
    /// Understands it. What the response borrows can be had as [`Bytes`] by [`Reply::owned`].
    pub(crate) fn decode(&self) -> Result<Response<'_>, WireError> {
        Response::decode(&FrameView {
            kind: self.kind,
            flags: self.flags,
            request_id: 0,
            deadline_ms: 0,
            body: &self.body,
        })
    }

    /// A part of the reply that lives on. A short one is copied, so that it does not keep the whole
    /// read alive.
    pub(crate) fn owned(&self, part: &[u8]) -> Bytes {
        if part.len() < SMALL_BYTES {
            Bytes::copy_from_slice(part)
        } else {
            self.body.slice_ref(part)
        }
    }
}

/// The connection broke before the reply came.
#[derive(Debug, Clone)]
pub(crate) struct Broken {
    /// Whether the request may have reached the server.
    pub(crate) sent: bool,
    /// Whether the server broke the protocol, so that trying again would end the same.
    pub(crate) protocol: bool,
    /// What happened.
    pub(crate) reason: Arc<str>,
}

type Outcome = Result<Reply, Broken>;

/// Why a request was not taken: it was not sent.
#[derive(Debug)]
pub(crate) enum SubmitError {
    /// The connection is broken.
    Broken(Broken),
    /// The request cannot be sent on any connection to this server.
    Invalid(Error),
}

/// Sequential ids need no mixing beyond this.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte) ^ self.0);
        }
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

struct Waiting {
    reply: oneshot::Sender<Outcome>,
    /// Where its frame ends in all that was ever queued, in bytes.
    end: u64,
}

#[derive(Default)]
struct State {
    /// Frames that wait to be sent.
    out: Vec<u8>,
    /// Permits of `room` that the frames in `out` hold.
    out_permits: usize,
    /// All that was ever put into `out`, in bytes.
    queued: u64,
    /// What of it the writer has taken.
    taken: u64,
    last_id: u64,
    waiting: HashMap<u64, Waiting, BuildHasherDefault<IdHasher>>,
    broken: Option<Broken>,
}

struct Shared {
    state: Mutex<State>,
    /// Requests that may still be sent.
    slots: Semaphore,
    /// KiB that may still wait to be sent.
    room: Semaphore,
    /// There is something to send, or the connection is broken.
    wake_writer: Notify,
    /// The connection is broken.
    stop_reader: Notify,
    is_broken: AtomicBool,
    frames_read: AtomicU64,
    bytes_read: AtomicU64,
    /// Requests are in flight again, or the connection is broken.
    wake_watcher: Notify,
    limits: Limits,
}

/// A connection after its handshake. Dropping it closes it.
pub(crate) struct Connection {
    shared: Arc<Shared>,
}

/// What the server said of itself when the connection was made.
pub(crate) struct Welcome {
    pub(crate) core: u16,
    pub(crate) topology: ringbolt_wire::message::Topology,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.fail("the client was closed".into(), false);
    }
}

impl Connection {
    /// Connects, shakes hands and starts the connection's tasks.
    pub(crate) async fn open(
        address: &str,
        core: Option<u16>,
        options: &ConnectionOptions,
    ) -> Result<(Connection, Welcome), ConnectError> {
        let unreachable = |error: io::Error| ConnectError::Unreachable(error.to_string().into());
        let stream = TcpStream::connect(address).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let (mut reader, mut writer) = stream.into_split();

        let mut hello = Vec::new();
        Request::Hello {
            version_min: VERSION.into(),
            version_max: VERSION.into(),
            core,
            agent: options.agent.as_bytes(),
        }
        .encode(1, 0, &mut hello)
        .map_err(|error| ConnectError::Fatal(error.into()))?;
        writer.write_all(&hello).await.map_err(unreachable)?;

        let mut arrived = BytesMut::new();
        let frame = loop {
            match frame::peek(&arrived, WELCOME_BYTES_MAX).map_err(broke_protocol)? {
                Peek::Frame { len } => break arrived.split_to(len),
                Peek::Incomplete { .. } => {}
                Peek::Oversized { len, .. } => {
                    return Err(ConnectError::Fatal(Error::Protocol(
                        format!("an answer of {len} bytes to the handshake").into(),
                    )));
                }
            }
            arrived.reserve(READ_BYTES);
            if reader.read_buf(&mut arrived).await.map_err(unreachable)? == 0 {
                return Err(ConnectError::Unreachable(
                    "the server closed the connection during the handshake".into(),
                ));
            }
        };
        let view = frame::open(&frame).map_err(broke_protocol)?;
        let (limits, welcome) = match Response::decode(&view).map_err(broke_protocol)? {
            Response::Welcome {
                version,
                core,
                limits,
                topology,
                ..
            } if version == u16::from(VERSION) => (limits, Welcome { core, topology }),
            Response::Error(error) => {
                return Err(match Error::from_reply(&error) {
                    Error::Refused(reason) => ConnectError::Unreachable(reason.message),
                    _ => ConnectError::Fatal(Error::Protocol(error.message.into())),
                });
            }
            other => {
                return Err(ConnectError::Fatal(Error::Protocol(
                    format!("the handshake was answered with {:?}", other.kind()).into(),
                )));
            }
        };
        let alone = welcome.topology.nodes.len() == 1;
        Ok((
            Connection::start(reader, writer, arrived, limits, options, alone),
            welcome,
        ))
    }

    fn start(
        reader: OwnedReadHalf,
        writer: OwnedWriteHalf,
        arrived: BytesMut,
        limits: Limits,
        options: &ConnectionOptions,
        alone: bool,
    ) -> Connection {
        let inflight = limits
            .inflight_requests_max
            .min(options.inflight_max)
            .clamp(1, INFLIGHT_MAX);
        let shared = Arc::new(Shared {
            // The handshake was request 1.
            state: Mutex::new(State {
                last_id: 1,
                ..State::default()
            }),
            slots: Semaphore::new(inflight as usize),
            room: Semaphore::new(OUT_BYTES_MAX >> 10),
            wake_writer: Notify::new(),
            stop_reader: Notify::new(),
            is_broken: AtomicBool::new(false),
            frames_read: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
            wake_watcher: Notify::new(),
            limits,
        });
        tokio::spawn(write(shared.clone(), writer, options.keepalive));
        tokio::spawn(read(shared.clone(), reader, arrived));
        // Without another node to ask, patience is all there is.
        if !alone {
            tokio::spawn(watch(shared.clone(), options.silence));
        }
        Connection { shared }
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.shared.is_broken.load(Ordering::Acquire)
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// How many bytes have arrived: if it stands still, so does the server.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.shared.bytes_read.load(Ordering::Relaxed)
    }

    /// Gives the connection up.
    pub(crate) fn fail(&self, reason: &str) {
        self.shared.fail(reason.into(), false);
    }

    /// Waits for room, and queues the request to be sent. The deadline is when the caller stops
    /// waiting: the server is given a little less, so that its answer comes before.
    ///
    /// Dropped before it is done, nothing is sent.
    pub(crate) async fn submit(
        &self,
        request: &Request<'_>,
        deadline: Instant,
    ) -> Result<oneshot::Receiver<Outcome>, SubmitError> {
        let shared = &*self.shared;
        let (Ok(slot), room) = (
            shared.slots.acquire().await,
            match weight(request) {
                0 => None,
                weight => Some(shared.room.acquire_many(weight).await),
            },
        ) else {
            return Err(SubmitError::Broken(shared.broken(false)));
        };
        let room = match room {
            None => None,
            Some(Ok(room)) => Some(room),
            Some(Err(_)) => return Err(SubmitError::Broken(shared.broken(false))),
        };
        let (sender, receiver) = oneshot::channel();
        let (was_empty, was_idle) = {
            let mut state = shared.lock();
            if state.broken.is_some() {
                drop(state);
                return Err(SubmitError::Broken(shared.broken(false)));
            }
            let state = &mut *state;
            let before = state.out.len();
            let id = state.last_id + 1;
            request
                .encode(id, deadline_ms(deadline), &mut state.out)
                .map_err(|error| SubmitError::Invalid(error.into()))?;
            let length = state.out.len() - before;
            if length > shared.limits.frame_bytes_max as usize {
                state.out.truncate(before);
                return Err(SubmitError::Invalid(Error::too_large(
                    "a request",
                    length,
                    shared.limits.frame_bytes_max,
                )));
            }
            state.last_id = id;
            state.queued += length as u64;
            let was_idle = state.waiting.is_empty();
            state.waiting.insert(
                id,
                Waiting {
                    reply: sender,
                    end: state.queued,
                },
            );
            // The reader gives the slot back, the writer the room.
            slot.forget();
            if let Some(room) = room {
                state.out_permits += room.num_permits();
                room.forget();
            }
            (before == 0, was_idle)
        };
        if was_empty {
            shared.wake_writer.notify_one();
        }
        if was_idle {
            shared.wake_watcher.notify_one();
        }
        Ok(receiver)
    }
}

/// KiB that a request counts against the room; 0 for a small one.
fn weight(request: &Request<'_>) -> u32 {
    let bytes = match request {
        Request::Write {
            op: WriteOp::Put { key, value, .. },
            ..
        } => key.len() + value.len(),
        Request::Write { op, .. } => op.key().len(),
        Request::Batch { ops, .. } => ops.wire_bytes(),
        Request::MultiGet { keys, .. } => keys.wire_bytes(),
        Request::Get { key, .. } | Request::Stat { key, .. } => key.len(),
        Request::Scan(scan) => {
            scan.prefix.len() + scan.start.len() + scan.end.len() + scan.cursor.len()
        }
        _ => 0,
    };
    if bytes <= SMALL_BYTES {
        return 0;
    }
    (bytes.min(OUT_BYTES_MAX) >> 10) as u32
}

/// What the server is told: nine tenths of what is left, but no more than 200 ms less.
fn deadline_ms(deadline: Instant) -> u32 {
    let left = deadline.saturating_duration_since(Instant::now());
    let told = left - (left / 10).min(Duration::from_millis(200));
    u32::try_from(told.as_millis()).unwrap_or(u32::MAX).max(1)
}

fn broke_protocol(error: WireError) -> ConnectError {
    ConnectError::Fatal(Error::Protocol(
        format!("the server does not answer as a Ringbolt server does: {error}").into(),
    ))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the connection is broken.
    fn broken(&self, sent: bool) -> Broken {
        let broken = self.lock().broken.clone();
        Broken {
            sent,
            ..broken.unwrap_or(Broken {
                sent,
                protocol: false,
                reason: "the connection is closing".into(),
            })
        }
    }

    /// Breaks the connection, once: tells everyone who waits, and ends both tasks.
    fn fail(&self, reason: Arc<str>, protocol: bool) {
        let (waiting, taken) = {
            let mut state = self.lock();
            if state.broken.is_some() {
                return;
            }
            state.broken = Some(Broken {
                sent: false,
                protocol,
                reason: reason.clone(),
            });
            // From here on the writer finds nothing to take.
            state.out = Vec::new();
            self.is_broken.store(true, Ordering::Release);
            (std::mem::take(&mut state.waiting), state.taken)
        };
        self.slots.close();
        self.room.close();
        self.wake_writer.notify_one();
        self.stop_reader.notify_one();
        self.wake_watcher.notify_one();
        for waiting in waiting.into_values() {
            // Who no longer waits does not need to know.
            let _ = waiting.reply.send(Err(Broken {
                sent: waiting.end <= taken,
                protocol,
                reason: reason.clone(),
            }));
        }
    }

    /// Hands a turn's replies to those who wait for them.
    fn deliver(&self, replies: &mut Vec<(u64, Reply)>, found: &mut Vec<(Waiting, Reply)>) {
        self.frames_read
            .fetch_add(replies.len() as u64, Ordering::Relaxed);
        {
            let mut state = self.lock();
            for (id, reply) in replies.drain(..) {
                // A reply nobody asked for is dropped: it cannot be told from one to a request
                // of a server's own making, and harms nobody.
                if let Some(waiting) = state.waiting.remove(&id) {
                    found.push((waiting, reply));
                }
            }
        }
        self.slots.add_permits(found.len());
        for (waiting, reply) in found.drain(..) {
            // Its caller may have stopped waiting.
            let _ = waiting.reply.send(Ok(reply));
        }
    }

    /// Queues a `Ping` that nobody waits for.
    fn ping(&self) {
        let (sender, _) = oneshot::channel();
        let Ok(slot) = self.slots.try_acquire() else {
            // Requests are in flight: their answers show as much.
            return;
        };
        let mut state = self.lock();
        let state = &mut *state;
        let before = state.out.len();
        let id = state.last_id + 1;
        if state.broken.is_some() || Request::Ping.encode(id, 0, &mut state.out).is_err() {
            return;
        }
        state.last_id = id;
        state.queued += (state.out.len() - before) as u64;
        let end = state.queued;
        state.waiting.insert(id, Waiting { reply: sender, end });
        slot.forget();
        self.wake_writer.notify_one();
        self.wake_watcher.notify_one();
    }
}

/// The writer task: sends what has gathered, until the connection is broken.
async fn write(shared: Arc<Shared>, mut socket: OwnedWriteHalf, keepalive: Duration) {
    let mut tick = tokio::time::interval_at(Instant::now() + keepalive, keepalive);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sending = Vec::new();
    let mut frames_read = 0;
    let mut pinged = false;
    loop {
        let permits = {
            let mut state = shared.lock();
            if state.broken.is_some() {
                return;
            }
            std::mem::swap(&mut state.out, &mut sending);
            state.taken = state.queued;
            std::mem::take(&mut state.out_permits)
        };
        if sending.is_empty() {
            tokio::select! {
                () = shared.wake_writer.notified() => continue,
                _ = tick.tick() => {}
            }
            // Nothing was sent for a while, or something is and the server is slow. Whatever
            // arrives shows that it lives.
            let now = shared.frames_read.load(Ordering::Relaxed);
            if now != frames_read {
                frames_read = now;
                pinged = false;
            } else if pinged {
                shared.fail("the server no longer answers".into(), false);
                return;
            }
            let idle = shared.lock().waiting.is_empty();
            if idle {
                shared.ping();
            }
            pinged = idle || pinged;
            continue;
        }
        let sent = tokio::select! {
            sent = socket.write_all(&sending) => sent,
            // A server that does not read must not keep a broken connection alive.
            () = broken(&shared) => return,
        };
        if let Err(error) = sent {
            shared.fail(error.to_string().into(), false);
            return;
        }
        shared.room.add_permits(permits);
        sending.clear();
        if sending.capacity() > KEEP_BYTES {
            sending = Vec::new();
        }
    }
}

/// Waits until the connection is broken.
async fn broken(shared: &Shared) {
    while !shared.is_broken.load(Ordering::Acquire) {
        shared.wake_writer.notified().await;
    }
}

/// The reader task: splits what arrives into replies, until the connection is broken.
async fn read(shared: Arc<Shared>, mut socket: OwnedReadHalf, mut arrived: BytesMut) {
    let limit = shared.limits.frame_bytes_max.min(FRAME_BYTES_MAX);
    let mut replies = Vec::new();
    let mut found = Vec::new();
    loop {
        let missing = match split(&mut arrived, limit, &mut replies) {
            Ok(missing) => missing,
            Err(reason) => {
                shared.deliver(&mut replies, &mut found);
                shared.fail(reason.into(), true);
                return;
            }
        };
        if !replies.is_empty() {
            shared.deliver(&mut replies, &mut found);
        }
        // Room grows with what has arrived, not with what a length promises.
        arrived.reserve(missing.clamp(1, arrived.len().max(READ_BYTES)));
        let read = tokio::select! {
            read = socket.read_buf(&mut arrived) => read,
            () = shared.stop_reader.notified() => return,
        };
        match read {
            Ok(0) => {
                shared.fail("the server closed the connection".into(), false);
                return;
            }
            Ok(bytes) => {
                shared.bytes_read.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            Err(error) => {
                shared.fail(error.to_string().into(), false);
                return;
            }
        }
    }
}

/// The watcher task: breaks a connection whose server says nothing for `silence` while something is
/// asked of it. After half the time a `Ping` shows whether it is only one answer that takes long.
///
/// A pause of this process is not the server's: a timer that comes late counts for nothing.
async fn watch(shared: Arc<Shared>, silence: Duration) {
    let half = silence / 2;
    let mut pinged = false;
    while !shared.is_broken.load(Ordering::Acquire) {
        if shared.lock().waiting.is_empty() {
            pinged = false;
            shared.wake_watcher.notified().await;
            continue;
        }
        // Something is waiting now. If nothing arrives it is waiting still when the time is up.
        let before = shared.bytes_read.load(Ordering::Relaxed);
        let due = Instant::now() + half;
        tokio::time::sleep_until(due).await;
        let late = Instant::now().saturating_duration_since(due) > half / 2;
        if late || shared.bytes_read.load(Ordering::Relaxed) != before {
            pinged = false;
        } else if pinged {
            shared.fail("the server says nothing".into(), false);
        } else {
            pinged = true;
            shared.ping();
        }
    }
}

/// Takes all whole frames from what has arrived; how many bytes the next one misses.
fn split(
    arrived: &mut BytesMut,
    limit: u32,
    replies: &mut Vec<(u64, Reply)>,
) -> Result<usize, String> {
    loop {
        let len = match frame::peek(arrived, limit).map_err(|error| error.to_string())? {
            Peek::Frame { len } => len,
            Peek::Incomplete { need } => {
                return Ok((need - arrived.len()).max(READ_BYTES.saturating_sub(arrived.len())));
            }
            Peek::Oversized { len, .. } => {
                return Err(format!(
                    "a reply of {len} bytes is over the limit of {limit} that the server set"
                ));
            }
        };
        let frame = arrived.split_to(len).freeze();
        let view = frame::open(&frame).map_err(|error| error.to_string())?;
        let (id, kind, flags) = (view.request_id, view.kind, view.flags);
        if id == 0 {
            return Err(match Response::decode(&view) {
                Ok(Response::Error(error)) => closing(&error),
                _ => "a reply to no request".to_owned(),
            });
        }
        let body = frame.slice(HEADER_BYTES..);
        replies.push((id, Reply { kind, flags, body }));
    }
}

fn closing(error: &ringbolt_wire::message::ErrorReply<'_>) -> String {
    format!(
        "the server gave the connection up: {} ({:#06x})",
        error.message, error.code as u16
    )
}

impl Connection {
    /// Checks a key and a value against the server's limits.
    pub(crate) fn check(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let limits = self.limits();
        if key.is_empty() {
            return Err(Error::invalid(ErrorCode::BadRequest, "the key is empty"));
        }
        if key.len() > limits.key_bytes_max as usize {
            return Err(Error::too_large("a key", key.len(), limits.key_bytes_max));
        }
        if value.len() > limits.value_bytes_max as usize {
            let length = value.len();
            return Err(Error::too_large("a value", length, limits.value_bytes_max));
        }
        Ok(())
    }
}
