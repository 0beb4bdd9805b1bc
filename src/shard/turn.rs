//! The beginning and the end of one turn of the core's loop.

use std::rc::Rc;
use std::time::Duration;

use ringbolt_engine::env::Env;
use ringbolt_engine::error::EngineError;

use super::counters::add;
use super::mail::SessionKey;
use super::peers::{LINK_IDLE, PEER_IDLE};
use super::pending::PendingQueue;
use super::sessions::{Session, Stage};
use super::trace::Wait;
use super::{Inner, Port, Shard, TurnClock, micros};

/// How often deadlines are looked at.
const EXPIRY_EVERY: Duration = Duration::from_millis(5);
/// How often connections are looked at for silence.
const SWEEP_EVERY: Duration = Duration::from_millis(500);

impl<E: Env> Shard<E> {
    /// Reads the clock for this turn.
    pub fn begin_turn(&self) {
        self.0.read_clock();
        let now_us = self.0.clock.get().us;
        let background_us = micros(self.0.env.background());
        self.0.account.begin_turn(now_us, background_us);
        self.0.hot.turn(now_us);
    }

    /// Applies and answers what became durable, starts the log write, hands replies to the
    /// sockets and parcels to the mailboxes. Returns when the shard wants its next turn even if
    /// nothing arrives.
    pub fn end_turn(&self, port: &mut impl Port) -> Option<Duration> {
        let inner = &self.0;
        let tick = inner.tick_replicas();
        inner.begin_acknowledging();
        inner.take_durable();
        inner.take_up_ready();
        let now = inner.clock.get().now;
        if now >= inner.next_expiry.get() {
            inner.next_expiry.set(now + EXPIRY_EVERY);
            inner.expire();
            inner.expire_forwards();
        }
        if now >= inner.next_sweep.get() {
            inner.next_sweep.set(now + SWEEP_EVERY);
            inner.sweep();
            inner.sweep_dials();
            inner.look_after_members();
            inner.keep_learning();
            inner.go_on_dropping();
        }
        let due = inner.release_held();
        // Input that waited is taken up as connections are served, and may be proposals again.
        loop {
            inner.drive_replicas();
            inner.ask_again();
            inner.serve_dirty(port);
            if inner.driving.borrow().is_empty() {
                break;
            }
        }
        inner.dial_peers(port);
        inner.engine.submit();
        for leaving in inner.leaving.take() {
            port.hand_over(leaving.handle, leaving.core, leaving.input);
        }
        for handle in inner.closing.take() {
            port.close(handle);
        }
        if inner.account.has_answered() {
            let (now_us, wall_ms) = (inner.now_us(), inner.clock.get().wall_ms);
            let background_us = micros(inner.env.background());
            inner.account.end_turn(now_us, wall_ms, background_us);
        }
        if inner.post_parcels(port) || !inner.postponed.borrow().is_empty() {
            return Some(now);
        }
        let due = due.into_iter().chain(inner.asks_again_at());
        Some(due.fold(tick, Duration::min))
    }

    /// A send is done; its buffer comes back.
    pub fn sent(&self, key: SessionKey, buf: Vec<u8>) {
        let inner = &self.0;
        let mut sessions = inner.sessions.borrow_mut();
        let Some(session) = sessions.touch(key) else {
            return;
        };
        let counted = if session.stage.is_peer() {
            &inner.counters.peer_sent_bytes_total
        } else {
            &inner.counters.sent_bytes_total
        };
        add(counted, session.sending_bytes as u64);
        session.sending = false;
        session.sending_bytes = 0;
        session.sent = inner.clock.get().now;
        session.recycle(buf);
    }

    /// Takes no new connections and no new requests; what is under way is finished.
    pub fn drain(&self) {
        let inner = &self.0;
        inner.accepting.set(false);
        let keys = inner.sessions.borrow().keys();
        for key in keys {
            // What is under way may need the other nodes: they are kept to the end.
            inner.finish(key);
        }
    }

    /// Takes every replica out of its group, then closes the engine. What is still under way is in
    /// doubt.
    ///
    /// # Errors
    /// The failure that stopped the shard, if one did.
    pub async fn close(&self) -> Result<(), EngineError> {
        // One that went on would be refused by the log, which is the end of a shard.
        self.0.replicas.borrow_mut().fill_with(|| None);
        self.0.engine.close().await
    }

    /// Whether nothing is under way any more.
    pub fn is_idle(&self) -> bool {
        let inner = &self.0;
        inner.sessions.borrow().clients() == 0
            && inner.pending.borrow().iter().all(PendingQueue::is_empty)
    }
}

/// What to do with one connection at the turn's end.
enum Next {
    Nothing,
    Send(u64, Vec<u8>),
    Close,
}

impl<E: Env> Inner<E> {
    pub(super) fn read_clock(&self) {
        let now = self.env.now();
        self.clock.set(TurnClock {
            now,
            us: micros(now),
            wall_ms: self.env.wall_ms(),
        });
    }

    /// The time now, not as of the turn, in microseconds.
    pub(super) fn now_us(&self) -> u64 {
        micros(self.env.now())
    }

    /// Executes requests that waited for what has been applied since.
    fn take_up_ready(self: &Rc<Self>) {
        for mut waiting in self.ready.take() {
            let now_us = self.clock.get().us;
            waiting.origin.trace.mark(Wait::Apply, now_us);
            self.execute_frame(waiting.origin, waiting.scope, &waiting.frame);
        }
    }

    /// Goes over the connections with something to do: takes up input that waited, sends, closes.
    fn serve_dirty(self: &Rc<Self>, port: &mut impl Port) {
        loop {
            let slot = self.sessions.borrow_mut().dirty.pop_front();
            let Some(slot) = slot else {
                break;
            };
            let key = {
                let mut sessions = self.sessions.borrow_mut();
                let Some((key, session)) = sessions.by_slot(slot) else {
                    continue;
                };
                session.dirty = false;
                key
            };
            self.resume(key, port);
            match self.next(key) {
                Next::Nothing => {}
                Next::Send(handle, bytes) => port.send(handle, bytes),
                Next::Close => {
                    if let Some(session) = self.forget(key) {
                        port.finish(session.handle);
                    }
                }
            }
        }
    }

    /// Pauses a connection that is over its limits; takes up the input of one that no longer is.
    fn resume(self: &Rc<Self>, key: SessionKey, port: &mut impl Port) {
        let limits = &self.config.limits;
        let (handle, paused_us, mut input) = {
            let mut sessions = self.sessions.borrow_mut();
            let Some(session) = sessions.get(key) else {
                return;
            };
            if !session.paused && !session.stuck {
                return;
            }
            if session.paused && !session.port_paused {
                session.port_paused = true;
                port.pause(session.handle);
            }
            let relieved = session.inflight <= limits.inflight_requests_max / 2
                && session.inflight_bytes <= limits.inflight_bytes_max / 2
                && session.backlog() <= limits.out_bytes_max / 2;
            if !relieved {
                return;
            }
            session.paused = false;
            session.stuck = false;
            let input = std::mem::take(&mut session.input);
            (session.handle, session.paused_us, input)
        };
        let before = self.account.waited_since(Some(paused_us));
        let taken = self.take_frames(key, &input);
        self.account.waited_since(before);
        input.drain(..taken);
        let mut sessions = self.sessions.borrow_mut();
        if let Some(session) = sessions.get(key) {
            session.frame_began = self.clock.get().now;
            session.input = input;
            if session.paused {
                return;
            }
            if std::mem::take(&mut session.port_paused) {
                port.resume(handle);
            }
            if session.ended && !session.stuck {
                session.input = Vec::new();
                session.ended = false;
                sessions.set_stage(key, Stage::Closing);
            }
        }
    }

    fn next(&self, key: SessionKey) -> Next {
        let mut sessions = self.sessions.borrow_mut();
        let Some(session) = sessions.get(key) else {
            return Next::Nothing;
        };
        if session.sending {
            return Next::Nothing;
        }
        session.close_batch();
        if !session.out.is_empty() {
            let spare = std::mem::take(&mut session.spare);
            let bytes = std::mem::replace(&mut session.out, spare);
            session.sending = true;
            session.sending_bytes = bytes.len();
            return Next::Send(session.handle, bytes);
        }
        if session.stage == Stage::Closing && session.inflight == 0 {
            return Next::Close;
        }
        Next::Nothing
    }

    /// Cuts off connections that do not read, do not speak, or do not finish.
    fn sweep(&self) {
        self.sweep_broken_off();
        self.sweep_receiving();
        let keys = self.sessions.borrow().keys();
        let now = self.clock.get().now;
        for key in keys {
            let mut sessions = self.sessions.borrow_mut();
            let Some(session) = sessions.get(key) else {
                continue;
            };
            if !self.is_dead(session, now) {
                continue;
            }
            drop(sessions);
            add(&self.counters.connections_cut_total, 1);
            if let Some(session) = self.forget(key) {
                self.closing.borrow_mut().push(session.handle);
            }
        }
    }

    fn is_dead(&self, session: &Session, now: Duration) -> bool {
        let limits = &self.config.limits;
        let since = |then: Duration| now.saturating_sub(then);
        let stalled = session.sending && since(session.sent) > limits.stall_timeout;
        let silent = match session.stage {
            Stage::Greeting => since(session.heard) > limits.handshake_timeout,
            Stage::Closing => since(session.heard) > limits.stall_timeout && session.inflight == 0,
            Stage::Open | Stage::Resp => {
                !limits.idle_timeout.is_zero()
                    && session.inflight == 0
                    && since(session.heard) > limits.idle_timeout
            }
            Stage::Peer(_) => since(session.heard) > PEER_IDLE,
            Stage::Link(index) => {
                (self.is_greeting(index) && since(session.heard) > limits.handshake_timeout)
                    || (session.backlog() == 0 && since(session.sent) > LINK_IDLE)
            }
        };
        let dribbling = !session.input.is_empty()
            && !session.paused
            && !session.stuck
            && since(session.frame_began) > limits.frame_timeout;
        stalled || silent || dribbling
    }

    /// Whether a mailbox was full, so that a parcel waits for the next turn.
    fn post_parcels(&self, port: &mut impl Port) -> bool {
        let mut stuck = false;
        let mut parcels = self.parcels.borrow_mut();
        for (core, parcel) in parcels.iter_mut().enumerate() {
            if parcel.is_empty() {
                continue;
            }
            let full = std::mem::take(parcel);
            if let Err(back) = port.post(core as u16, full) {
                *parcel = back;
                stuck = true;
            }
        }
        stuck
    }
}
