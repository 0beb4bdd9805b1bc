//! Requests that another node must serve: sent on once, answered from there.
//!
//! The core that took a request up keeps who asked in a bounded table until the answer comes, the
//! deadline passes or the link breaks. A write that may have reached the other node is then in
//! doubt; anything else was not done as far as the client can tell, and it may ask again. A request
//! that came from another node is never sent on: two nodes that take each other for the leader would
//! pass it to and fro.
//!
//! Of a partition that is held here the replica knows who leads. Of any other this node knows only what
//! it has been told ([`ClusterView::note_leader_elsewhere`](crate::cluster::ClusterView)), and its clients
//! may know no more, or no other node. So a request on one is kept until it is answered. If the node that
//! was asked does not lead or cannot be reached, and the request was surely not done, it goes to whoever
//! is taken for the leader then: the one that was named, or the next holder. Each request goes out as
//! often as there are holders, and waits a little before it goes to one that was asked before: an
//! election may be under way.

use std::rc::Rc;
use std::time::Duration;

use ringbolt_engine::entry::PartitionId;
use ringbolt_engine::env::Env;
use ringbolt_wire::Kind;
use ringbolt_wire::frame::{self, FrameView};
use ringbolt_wire::message::{ErrorCode, Response};
use ringbolt_wire::peer::{self, PeerItem, Reach};
use slab::Slab;

use super::Inner;
use super::counters::add;
use super::mail::{Origin, Scope, Ticket};
use super::peers::{NotSent, PeerId};
use super::reply::{Refusal, late};
use super::trace::{Op, Wait};
use crate::cluster::NodeId;

/// How long a client should wait when the other node cannot be reached, in milliseconds.
const DOWN_RETRY_MS: u32 = 50;
/// The same when too much waits for it.
const FULL_RETRY_MS: u32 = 20;
/// How long a request waits before a node is asked once more who did not serve it.
pub(super) const ASK_AGAIN: Duration = Duration::from_millis(20);

/// A request that another node has been asked.
struct Forwarded {
    generation: u32,
    origin: Origin,
    to: PeerId,
    is_write: bool,
    /// Of a partition that is not held here.
    kept: Option<Kept>,
}

/// What is kept of a request to ask another node.
struct Kept {
    partition: PartitionId,
    scope: Scope,
    frame: Vec<u8>,
    does: Does,
    /// Who did not serve it.
    refused_by: Vec<NodeId>,
    /// How often it may be sent.
    sends_left: usize,
}

/// A request that is to be sent on again.
struct Again {
    at: Duration,
    origin: Origin,
    kept: Kept,
}

/// The requests of one core that other nodes have been asked.
pub(super) struct Forwards {
    slab: Slab<Forwarded>,
    generation: u32,
    /// No deadline is earlier.
    next_deadline: Duration,
    /// Requests that another node is to be asked.
    again: Vec<Again>,
}

impl Default for Forwards {
    fn default() -> Self {
        Self {
            slab: Slab::new(),
            generation: 0,
            next_deadline: Duration::MAX,
            again: Vec::new(),
        }
    }
}

impl Forwards {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.slab.len() + self.again.len()
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
            kept: None,
        });
        u64::from(generation) << 32 | slot as u64
    }

    /// Keeps what is needed to ask another node, with a request just taken up.
    fn keep(&mut self, id: u64, kept: Kept) {
        if let Some(waiting) = self.slab.get_mut(id as u32 as usize) {
            waiting.kept = Some(kept);
        }
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

    /// Takes out the requests that are to be sent on again by now.
    fn due(&mut self, now: Duration) -> Vec<Again> {
        self.again.extract_if(.., |again| again.at <= now).collect()
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

/// What a forwarded request may do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    Read,
    Write,
    /// Something in steps: one that is refused may be done in part.
    Steps,
}

impl Does {
    /// The frame was opened before.
    fn of(frame: &[u8]) -> Self {
        let kind = frame::open(frame).map(|view| view.kind).unwrap_or_default();
        let is_any = |kinds: &[Kind]| kinds.iter().any(|known| kind == *known as u8);
        if is_any(&[Kind::Write, Kind::Batch, Kind::Clear]) {
            Self::Write
        } else if is_any(&[Kind::KeyspaceCreate, Kind::KeyspaceDrop]) {
            Self::Steps
        } else {
            Self::Read
        }
    }
}

/// Whether a frame, which was opened before, asks for a change.
pub(super) fn is_write(frame: &[u8]) -> bool {
    Does::of(frame) != Does::Read
}

/// Whether a refusal says that another node may serve what was asked, and that nothing was done.
pub(super) fn is_elsewhere(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::NotLeader | ErrorCode::Unavailable)
}

/// The refusal that an answer is, if another node may serve what was asked.
fn refused_elsewhere(view: &FrameView<'_>) -> Option<Refusal> {
    if view.kind != Kind::Error as u8 {
        return None;
    }
    match Response::decode(view) {
        Ok(Response::Error(error)) if is_elsewhere(error.code) => Some(Refusal::from(&error)),
        _ => None,
    }
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
        let to = PeerId { node, core };
        if let Err(refusal) = self.send_on(to, &origin, scope, frame, Does::of(frame)) {
            self.refuse(&origin, &refusal);
        }
    }

    /// Has a request on a partition that is not held here executed by the node that leads it.
    pub(super) fn forward_elsewhere(
        &self,
        partition: PartitionId,
        origin: Origin,
        scope: Scope,
        frame: &[u8],
    ) {
        let does = Does::of(frame);
        let sends_left = match does {
            Does::Steps => 1,
            Does::Read | Does::Write => self.config.cluster.holders(partition).len(),
        };
        let kept = Kept {
            partition,
            scope,
            frame: frame.to_vec(),
            does,
            refused_by: Vec::new(),
            sends_left,
        };
        self.ask_leader(origin, kept);
    }

    /// Sends a request to the node that is taken for the leader.
    fn ask_leader(&self, origin: Origin, mut kept: Kept) {
        let node = self.config.cluster.leader(kept.partition);
        let core = self.core_on(node, kept.partition).unwrap_or_default();
        let to = PeerId { node, core };
        kept.sends_left = kept.sends_left.saturating_sub(1);
        match self.send_on(to, &origin, kept.scope, &kept.frame, kept.does) {
            Ok(id) => self.forwards.borrow_mut().keep(id, kept),
            Err(refusal) if is_elsewhere(refusal.code) => {
                self.not_served(origin, node, kept, &refusal);
            }
            Err(refusal) => self.refuse(&origin, &refusal),
        }
    }

    /// A node has not served a request on a partition that is not held here: another one is asked soon,
    /// if that may help and do no harm; else the client is told.
    fn not_served(&self, origin: Origin, by: NodeId, mut kept: Kept, refusal: &Refusal) {
        let cluster = &self.config.cluster;
        match NodeId::try_from(refusal.detail) {
            Ok(named) if refusal.code == ErrorCode::NotLeader && named != 0 => {
                cluster.note_leader_elsewhere(kept.partition, named);
            }
            _ => cluster.note_not_led_by(kept.partition, by),
        }
        if !is_elsewhere(refusal.code) || kept.sends_left == 0 {
            return self.refuse(&origin, refusal);
        }
        kept.refused_by.push(by);
        let next = cluster.leader(kept.partition);
        let mut at = self.clock.get().now;
        if kept.refused_by.contains(&next) {
            at += ASK_AGAIN;
        }
        let again = Again { at, origin, kept };
        self.forwards.borrow_mut().again.push(again);
    }

    /// Sends on again what is due for that.
    pub(super) fn ask_again(&self) {
        let due = self.forwards.borrow_mut().due(self.clock.get().now);
        for Again { origin, kept, .. } in due {
            self.ask_leader(origin, kept);
        }
    }

    /// When a request is to be sent on again.
    pub(super) fn asks_again_at(&self) -> Option<Duration> {
        let forwards = self.forwards.borrow();
        forwards.again.iter().map(|again| again.at).min()
    }

    /// Sends a request on and takes it up; its number, or why it was not sent.
    fn send_on(
        &self,
        to: PeerId,
        origin: &Origin,
        scope: Scope,
        frame: &[u8],
        does: Does,
    ) -> Result<u64, Refusal> {
        if origin.forwarded {
            let message = "another node leads the partition, and this request was forwarded once";
            let node = u64::from(to.node);
            return Err(Refusal::new(ErrorCode::NotLeader, node, message));
        }
        let left = origin.deadline.saturating_sub(self.clock.get().now);
        if left.is_zero() {
            return Err(late());
        }
        let limit = self.config.limits.forwards_max;
        let mut forwards = self.forwards.borrow_mut();
        if forwards.len() >= limit {
            add(&self.counters.overloaded_total, 1);
            let message = "too many requests wait for other nodes: try again a little later";
            return Err(Refusal {
                detail: limit as u64,
                ..Refusal::retry(ErrorCode::Overloaded, FULL_RETRY_MS, message)
            });
        }
        let id = forwards.insert(*origin, to, does != Does::Read);
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
            return Ok(id);
        };
        self.forwards.borrow_mut().take(id, to.node);
        let (code, retry_ms, message) = match why {
            NotSent::Down => {
                self.config.cluster.note_silent(to.node);
                let message = "the node that leads the partition cannot be reached";
                (ErrorCode::Unavailable, DOWN_RETRY_MS, message)
            }
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
        Err(Refusal::retry(code, retry_ms, message))
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
        let view = frame::open(frame)
            .ok()
            .filter(|view| view.request_id == answered.origin.request_id && view.kind >= 0x80);
        let Some(view) = view else {
            add(&self.counters.bad_frames_total, 1);
            return self.forward_ended(answered, ErrorCode::Unavailable);
        };
        if let Some(kept) = answered.kept
            && let Some(refusal) = refused_elsewhere(&view)
        {
            return self.not_served(answered.origin, from.node, kept, &refusal);
        }
        self.reply(&answered.origin, |out| out.extend_from_slice(frame));
    }

    /// Answers what has waited for another node past its deadline.
    pub(super) fn expire_forwards(&self) {
        let expired = self.forwards.borrow_mut().expired(self.clock.get().now);
        for mut late in expired {
            late.origin.trace.mark(Wait::Forward, self.clock.get().us);
            // Of one on a single partition that one is known, and is all that is doubted.
            if late.kept.is_none() {
                self.config.cluster.note_silent(late.to.node);
            }
            self.forward_ended(late, ErrorCode::DeadlineExceeded);
        }
    }

    /// Answers what waits for a core whose link is no more, or never was.
    pub(super) fn forwards_lost(&self, to: PeerId, was_open: bool) {
        let lost = self
            .forwards
            .borrow_mut()
            .extract(|waiting| waiting.to == to);
        if !lost.is_empty() {
            self.config.cluster.note_silent(to.node);
        }
        for mut lost in lost {
            // Nothing was sent yet: a write was not done.
            lost.is_write &= was_open;
            lost.origin.trace.mark(Wait::Forward, self.clock.get().us);
            self.forward_ended(lost, ErrorCode::Unavailable);
        }
    }

    /// There will be no answer: a write that was sent is in doubt.
    fn forward_ended(&self, ended: Forwarded, code: ErrorCode) {
        let refusal = if ended.is_write {
            let message = "the node that leads the partition has not answered: the write may or \
                           may not be done; read the key to find out";
            Refusal::new(ErrorCode::InDoubt, 0, message)
        } else {
            let message = "the node that leads the partition has not answered: nothing was done \
                           that is of consequence";
            Refusal::retry(code, DOWN_RETRY_MS, message)
        };
        match ended.kept {
            Some(kept) => self.not_served(ended.origin, ended.to.node, kept, &refusal),
            None => self.refuse(&ended.origin, &refusal),
        }
    }
}
