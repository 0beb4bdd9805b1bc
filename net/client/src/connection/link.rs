//! What a connection's callers and its tasks share: the buffer of requests, who waits for which reply,
//! and how it breaks.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ringbolt_wire::message::{Limits, Request};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::Instant;

use super::{Broken, Outcome, Reply};

/// Sequential ids need no mixing beyond this.
#[derive(Default)]
pub(super) struct IdHasher(u64);

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

pub(super) struct Waiting {
    pub reply: oneshot::Sender<Outcome>,
    /// Where its frame ends in all that was ever queued, in bytes.
    pub end: u64,
}

#[derive(Default)]
pub(super) struct State {
    /// Frames that wait to be sent.
    pub out: Vec<u8>,
    /// Permits of `room` that the frames in `out` hold.
    pub out_permits: usize,
    /// All that was ever put into `out`, in bytes.
    pub queued: u64,
    /// What of it the writer has taken.
    pub taken: u64,
    pub last_id: u64,
    pub waiting: HashMap<u64, Waiting, BuildHasherDefault<IdHasher>>,
    /// The `Ping` that is under way: nobody waits for its reply.
    pub ping: Option<u64>,
    pub broken: Option<Broken>,
}

impl State {
    /// Whether nothing is asked of the server.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.ping.is_none()
    }
}

pub(super) struct Shared {
    pub state: Mutex<State>,
    /// Requests that may still be sent: one less than the server allows, so that a `Ping` may be too.
    pub slots: Semaphore,
    /// KiB that may still wait to be sent.
    pub room: Semaphore,
    /// There is something to send, or the connection is broken.
    pub wake_writer: Notify,
    /// The connection is broken.
    pub stop_reader: Notify,
    pub is_broken: AtomicBool,
    pub frames_read: AtomicU64,
    pub bytes_read: AtomicU64,
    /// When the connection was made.
    pub made: Instant,
    /// Since when the server is asked something and says nothing, in microseconds from `made`.
    pub silent_since: AtomicU64,
    /// Requests are in flight again, or the connection is broken.
    pub wake_watcher: Notify,
    pub limits: Limits,
}

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something arrived, or something is asked where nothing was: a silence counts from here.
    pub fn break_silence(&self) {
        let now = u64::try_from(self.made.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.silent_since.fetch_max(now, Ordering::Relaxed);
    }

    pub fn silent_since(&self) -> Instant {
        self.made + Duration::from_micros(self.silent_since.load(Ordering::Relaxed))
    }

    /// Why the connection is broken.
    pub fn broken(&self, sent: bool) -> Broken {
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
    pub fn fail(&self, reason: Arc<str>, protocol: bool) {
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
    pub fn deliver(&self, replies: &mut Vec<(u64, Reply)>, found: &mut Vec<(Waiting, Reply)>) {
        self.frames_read
            .fetch_add(replies.len() as u64, Ordering::Relaxed);
        {
            let mut state = self.lock();
            for (id, reply) in replies.drain(..) {
                // A reply nobody asked for is dropped: it cannot be told from one to a request
                // of a server's own making, and harms nobody.
                if let Some(waiting) = state.waiting.remove(&id) {
                    found.push((waiting, reply));
                } else if state.ping == Some(id) {
                    state.ping = None;
                }
            }
        }
        self.slots.add_permits(found.len());
        for (waiting, reply) in found.drain(..) {
            // Its caller may have stopped waiting.
            let _ = waiting.reply.send(Ok(reply));
        }
    }

    /// Queues a `Ping` that nobody waits for, unless one is under way; whether one is now. It is not where the
    /// server allows one request only, and has it.
    pub fn ping(&self) -> bool {
        let mut state = self.lock();
        let state = &mut *state;
        if state.ping.is_some() {
            return true;
        }
        let allowed = self.limits.inflight_requests_max as usize;
        if state.broken.is_some() || state.waiting.len() >= allowed.max(1) {
            return false;
        }
        let before = state.out.len();
        let id = state.last_id + 1;
        if Request::Ping.encode(id, 0, &mut state.out).is_err() {
            return false;
        }
        if state.is_idle() {
            self.break_silence();
        }
        state.last_id = id;
        state.queued += (state.out.len() - before) as u64;
        state.ping = Some(id);
        self.wake_writer.notify_one();
        self.wake_watcher.notify_one();
        true
    }
}
