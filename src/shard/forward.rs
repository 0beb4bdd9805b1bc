//! Requests that another node must serve: sent on once, answered from there.
//!
//! The core that took a request up keeps who asked in a bounded table until the answer comes, the
//! deadline passes or the link breaks. A write that may have reached the other node is then in
//! doubt; anything else was not done as far as the client can tell, and it may ask again. A request
//! that came from another node is never sent on: two nodes that take each other for the leader would
//! pass it to and fro.

use std::rc::Rc;
use std::time::Duration;

use ringbolt_engine::env::Env;
use ringbolt_wire::message::ErrorCode;
use ringbolt_wire::peer::{self, PeerItem, Reach};
use ringbolt_wire::{Kind, frame};
use slab::Slab;

use super::Inner;
use super::counters::add;
use super::mail::{Origin, Scope, Ticket};
use super::peers::{NotSent, PeerId};
use super::trace::{Op, Wait};
use crate::cluster::NodeId;

/// How long a client should wait when the other node cannot be reached, in milliseconds.
const DOWN_RETRY_MS: u32 = 50;
/// The same when too much waits for it.
const FULL_RETRY_MS: u32 = 20;

/// A request that another node has been asked.
struct Forwarded {
    generation: u32,
    origin: Origin,
    to: PeerId,
    is_write: bool,
}

/// The requests of one core that other nodes have been asked.
pub(super) struct Forwards {
    slab: Slab<Forwarded>,
    generation: u32,
    /// No deadline is earlier.
    next_deadline: Duration,
}

impl Default for Forwards {
    fn default() -> Self {
        Self {
            slab: Slab::new(),
            generation: 0,
            next_deadline: Duration::MAX,
        }
    }
}

impl Forwards {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Takes a request up; its number.
    fn insert(&mut self, origin: Origin, to: PeerId, is_write: bool) -> u64 {
        self.generation = self.generation.wrapping_add(1);
        self.next_deadline = self.next_deadline.min(origin.deadline);
        let generation = self.generation;
        let slot = self.slab.insert(Forwarded {
            generation,
            origin,
            to,
            is_write,
        });
        u64::from(generation) << 32 | slot as u64
    }

    /// The request of this number, if it was sent to that node and waits still.
    fn take(&mut self, id: u64, node: NodeId) -> Option<Forwarded> {
        let slot = id as u32 as usize;
        let found = self.slab.get(slot)?;
        if found.generation != (id >> 32) as u32 || found.to.node != node {
            return None;
        }
        Some(self.slab.remove(slot))
    }

    /// Takes out every request of which `ends` says so.
    fn extract(&mut self, mut ends: impl FnMut(&Forwarded) -> bool) -> Vec<Forwarded> {
        let slots: Vec<usize> = self
            .slab
            .iter()
            .filter(|(_, waiting)| ends(waiting))
            .map(|(slot, _)| slot)
            .collect();
        slots
            .into_iter()
            .map(|slot| self.slab.remove(slot))
            .collect()
    }

    fn expired(&mut self, now: Duration) -> Vec<Forwarded> {
        if now < self.next_deadline {
            return Vec::new();
        }
        let expired = self.extract(|waiting| waiting.origin.deadline <= now);
        let deadlines = self.slab.iter().map(|(_, waiting)| waiting.origin.deadline);
        self.next_deadline = deadlines.min().unwrap_or(Duration::MAX);
        expired
    }
}

/// Whether the frame, which was opened before, asks for a change.
fn is_write(frame: &[u8]) -> bool {
    let kind = frame::open(frame).map(|view| view.kind);
    [
        Kind::Write,
        Kind::Batch,
        Kind::Clear,
        Kind::KeyspaceCreate,
        Kind::KeyspaceDrop,
    ]
    .iter()
    .any(|write| kind == Ok(*write as u8))
}

impl<E: Env> Inner<E> {
    /// Asks a core of another node to execute a request, and gives its answer to `origin`; or
    /// refuses. A request that was forwarded once is answered `NotLeader`.
    pub(super) fn forward(
        &self,
        node: NodeId,
        core: u16,
        origin: Origin,
        scope: Scope,
        frame: &[u8],
    ) {
        if origin.forwarded {
            let message = "another node leads the partition, and this request was forwarded once";
            self.fail(&origin, ErrorCode::NotLeader, 0, u64::from(node), message);
            return;
        }
        let left = origin.deadline.saturating_sub(self.clock.get().now);
        if left.is_zero() {
            self.too_late(&origin);
            return;
        }
        let limit = self.config.limits.forwards_max;
        let mut forwards = self.forwards.borrow_mut();
        if forwards.len() >= limit {
            drop(forwards);
            add(&self.counters.overloaded_total, 1);
            let message = "too many requests wait for other nodes: try again a little later";
            self.fail(
                &origin,
                ErrorCode::Overloaded,
                FULL_RETRY_MS,
                limit as u64,
                message,
            );
            return;
        }
        let to = PeerId { node, core };
        let id = forwards.insert(origin, to, is_write(frame));
        drop(forwards);
        let item = PeerItem::Forward {
            id,
            deadline_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1),
            reach: match scope {
                Scope::Whole => Reach::Whole,
                Scope::Share | Scope::Node => Reach::Share,
            },
            frame,
        };
        let Err(why) = self.peer_append(to, |out| item.encode(out)) else {
            add(&self.counters.forwards_total, 1);
            return;
        };
        self.forwards.borrow_mut().take(id, node);
        let (code, retry_ms, message) = match why {
            NotSent::Down => (
                ErrorCode::Unavailable,
                DOWN_RETRY_MS,
                "the node that leads the partition cannot be reached",
            ),
            NotSent::Full => (
                ErrorCode::Overloaded,
                FULL_RETRY_MS,
                "too much waits for the node that leads the partition",
            ),
            NotSent::Refused => (
                ErrorCode::TooLarge,
                0,
                "the request is over the limit of the node that leads the partition",
            ),
        };
        self.fail(&origin, code, retry_ms, 0, message);
    }

    /// Executes what another node forwarded.
    pub(super) fn execute_forwarded(
        self: &Rc<Self>,
        from: PeerId,
        id: u64,
        deadline_ms: u32,
        reach: Reach,
        frame: &[u8],
    ) {
        // Damaged on its way in spite of the batch's checksum, so damaged by its sender: whoever
        // waits there is told by its deadline.
        let Ok(view) = frame::open(frame) else {
            add(&self.counters.bad_frames_total, 1);
            return;
        };
        add(&self.counters.requests_total, 1);
        let limit = self.config.limits.shard_inflight_bytes_max;
        let overloaded = self.inflight_bytes.get() > limit;
        self.inflight_bytes
            .set(self.inflight_bytes.get() + frame.len());
        let origin = Origin {
            core: self.config.core,
            ticket: Ticket::Peer {
                node: from.node,
                core: from.core,
                id,
            },
            request_id: view.request_id,
            cost: frame.len() as u32,
            deadline: self.clock.get().now + Duration::from_millis(u64::from(deadline_ms)),
            forwarded: true,
            settled: false,
            trace: self.account.begin(Op::of_kind(view.kind)),
        };
        if overloaded {
            add(&self.counters.overloaded_total, 1);
            let message = "the shard has too many bytes of requests under way: try again a little \
                           later";
            self.fail(
                &origin,
                ErrorCode::Overloaded,
                FULL_RETRY_MS,
                limit as u64,
                message,
            );
        } else if !self.accepting.get() {
            let message = "the node is stopping";
            self.fail(&origin, ErrorCode::Unavailable, DOWN_RETRY_MS, 0, message);
        } else {
            let scope = match reach {
                Reach::Whole => Scope::Whole,
                Reach::Share => Scope::Share,
            };
            self.execute_frame(origin, scope, frame);
        }
    }

    /// Sends the answer to a forwarded request back.
    pub(super) fn answer_forwarded(&self, to: PeerId, id: u64, encode: impl FnOnce(&mut Vec<u8>)) {
        // One that is dropped leaves whoever waits to its deadline.
        let _dropped = self.peer_append(to, |out| peer::encode_forward_reply(out, id, encode));
    }

    /// The answer to a request that was forwarded.
    pub(super) fn forward_answered(&self, from: PeerId, id: u64, frame: &[u8]) {
        let Some(mut answered) = self.forwards.borrow_mut().take(id, from.node) else {
            return;
        };
        let now_us = self.clock.get().us;
        answered.origin.trace.mark(Wait::Forward, now_us);
        let sound = frame::open(frame)
            .is_ok_and(|view| view.request_id == answered.origin.request_id && view.kind >= 0x80);
        if sound {
            self.reply(&answered.origin, |out| out.extend_from_slice(frame));
        } else {
            add(&self.counters.bad_frames_total, 1);
            self.forward_ended(&answered, ErrorCode::Unavailable);
        }
    }

    /// Answers what has waited for another node past its deadline.
    pub(super) fn expire_forwards(&self) {
        let expired = self.forwards.borrow_mut().expired(self.clock.get().now);
        for mut late in expired {
            late.origin.trace.mark(Wait::Forward, self.clock.get().us);
            self.forward_ended(&late, ErrorCode::DeadlineExceeded);
        }
    }

    /// Answers what waits for a core whose link is no more, or never was.
    pub(super) fn forwards_lost(&self, to: PeerId, was_open: bool) {
        let lost = self
            .forwards
            .borrow_mut()
            .extract(|waiting| waiting.to == to);
        for mut lost in lost {
            // Nothing was sent yet: a write was not done.
            lost.is_write &= was_open;
            lost.origin.trace.mark(Wait::Forward, self.clock.get().us);
            self.forward_ended(&lost, ErrorCode::Unavailable);
        }
    }

    /// There will be no answer: a write that was sent is in doubt.
    fn forward_ended(&self, ended: &Forwarded, code: ErrorCode) {
        if ended.is_write {
            let message = "the node that leads the partition has not answered: the write may or \
                           may not be done; read the key to find out";
            self.fail(&ended.origin, ErrorCode::InDoubt, 0, 0, message);
        } else {
            let message = "the node that leads the partition has not answered: nothing was done \
                           that is of consequence";
            self.fail(&ended.origin, code, DOWN_RETRY_MS, 0, message);
        }
    }
}
