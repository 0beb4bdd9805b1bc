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
//! Limits: the server's number of requests in flight less one, which is kept for pings, [`OUT_BYTES_MAX`]
//! bytes waiting to be sent, and the server's longest frame. Who would pass one of the first two waits.

mod link;
mod tasks;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringbolt_wire::frame::{self, FrameView, Peek};
use ringbolt_wire::message::{ErrorCode, Limits, Request, Response, WriteOp};
use ringbolt_wire::{VERSION, WireError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::Instant;

use self::link::{Shared, State, Waiting};
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
        // One of those that the server allows is kept for a ping: a server whose answers all take long is
        // not to pass for dead.
        let inflight = limits
            .inflight_requests_max
            .saturating_sub(1)
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
            made: Instant::now(),
            silent_since: AtomicU64::new(0),
            wake_watcher: Notify::new(),
            limits,
        });
        tokio::spawn(tasks::write(shared.clone(), writer, options.keepalive));
        tokio::spawn(tasks::read(shared.clone(), reader, arrived));
        // Without another node to ask, patience is all there is.
        if !alone {
            tokio::spawn(tasks::watch(shared.clone(), options.silence));
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
            let was_idle = state.is_idle();
            if was_idle {
                shared.break_silence();
            }
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
