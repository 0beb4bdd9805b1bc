//! Links to the cores of other nodes.
//!
//! A link goes one way: it is dialed when there is first something for that core, and only sends.
//! What comes the other way comes on the other core's own link, as a session in
//! [`Stage::Peer`]. So there is nothing to agree on when both dial at once, and a network that fails
//! in one direction fails in one direction only.
//!
//! ```text
//!             send                dialed             welcome
//!   ┌──────┐ ───────▶ ┌─────────┐ ───────▶ ┌──────────┐ ───────▶ ┌──────┐
//!   │ Down │          │ Dialing │          │ Greeting │          │ Open │
//!   └──────┘ ◀─────── └─────────┘ ◀─────── └──────────┘ ◀─────── └──────┘
//!             failed, refused, broken, or too slow: then not before a growing, jittered pause
//! ```
//!
//! Items are encoded straight into the batch that is open in the link's session; the batch is closed
//! and sent when the turn ends, or when the send under way is done. While a link is being made, a
//! little is kept for it. What does not fit is dropped, and the caller is told: nobody waits for a
//! peer, so a slow or stopped one costs the others nothing.

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use ringbolt_engine::env::Env;
use ringbolt_wire::frame::{FrameView, HEADER_BYTES};
use ringbolt_wire::message::{ErrorCode, PartitionId, Response};
use ringbolt_wire::peer::{self, BATCH_BYTES_MAX, PeerItem, PeerWelcome, RaftEntry, RaftMessage};
use ringbolt_wire::{Kind, WireError};

use super::counters::add;
use super::mail::SessionKey;
use super::sessions::{Session, Stage};
use super::{Inner, Port, Shard};
use crate::cluster::NodeId;
use crate::replica::node_of;

/// From where on an open batch is closed and the next one begun, in bytes.
const BATCH_BYTES: usize = 256 << 10;
/// What is kept for a link that is being made, in bytes.
const EARLY_BYTES_MAX: usize = 256 << 10;
/// The first pause after a failure, and the longest.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// A link that was open is told of when it breaks, one that was not at its so-many-th failure: nodes
/// that start together find each other before that.
const FAILURES_TOLD: u32 = 5;
/// How long the port may take to dial.
const DIAL_MAX: Duration = Duration::from_secs(2);
/// How long a link may have nothing to send before it is given up.
pub(super) const LINK_IDLE: Duration = Duration::from_secs(300);
/// How long a peer may send nothing before its session is given up.
pub(super) const PEER_IDLE: Duration = Duration::from_secs(600);
/// The request id of a hello.
const HELLO_ID: u64 = 1;

/// A core of another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PeerId {
    pub(super) node: NodeId,
    pub(super) core: u16,
}

/// Why an item was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotSent {
    /// There is no such core, or it could not be reached lately.
    Down,
    /// Too much waits for it.
    Full,
    /// The item is over the receiver's limit, or contradicts itself.
    Refused,
}

enum State {
    Down,
    Dialing { since: Duration, early: Early },
    Greeting { key: SessionKey, early: Early },
    Open { key: SessionKey, batch_max: usize },
}

/// One open batch of what was sent before the link was there.
struct Early(Vec<u8>);

impl Early {
    fn new() -> Self {
        let mut batch = Vec::new();
        peer::begin_batch(&mut batch);
        Self(batch)
    }
}

struct Link {
    to: PeerId,
    state: State,
    /// Failures since it was last open.
    failures: u32,
    /// Whether the log says that it is down.
    told: bool,
    /// When it may be dialed again.
    retry_at: Duration,
    /// How often it was dialed: an answer to an earlier dial is not taken.
    dials: u32,
}

impl Link {
    /// The port's name for the dial under way.
    fn dial(&self, index: u32) -> u64 {
        u64::from(self.dials) << 32 | u64::from(index)
    }
}

/// The links of one core, and the sessions on which other nodes' links end.
#[derive(Default)]
pub(super) struct Peers {
    links: Vec<Link>,
    index: BTreeMap<PeerId, u32>,
    /// Links to dial at the turn's end.
    to_dial: Vec<u32>,
    pub(super) incoming: BTreeMap<PeerId, SessionKey>,
}

impl<E: Env> Shard<E> {
    /// The answer to [`Port::dial`]: the handle of the connection, or why there is none. `None` if
    /// nobody waits for it any more: close it.
    pub fn dialed(&self, dial: u64, result: io::Result<u64>) -> Option<SessionKey> {
        let inner = &self.0;
        let index = dial as u32;
        let now = inner.clock.get().now;
        {
            let mut peers = inner.peers.borrow_mut();
            let link = peers.links.get_mut(index as usize)?;
            if link.dial(index) != dial || !matches!(link.state, State::Dialing { .. }) {
                return None;
            }
            if let Ok(handle) = result {
                let State::Dialing { early, .. } = std::mem::replace(&mut link.state, State::Down)
                else {
                    return None;
                };
                let mut sessions = inner.sessions.borrow_mut();
                let key = sessions.insert(handle, Stage::Link(index), now);
                if let Some(session) = sessions.touch(key) {
                    // Every field is known not to be 0: it always encodes.
                    let encoded = inner.hello(link.to).encode(HELLO_ID, &mut session.out);
                    debug_assert!(encoded.is_ok());
                }
                link.state = State::Greeting { key, early };
                return Some(key);
            }
        }
        if let Err(error) = result {
            inner.link_down(index, &error.to_string());
        }
        None
    }
}

impl<E: Env> Inner<E> {
    /// Sends an item to a core of another node, or drops it. Borrows no more than the sessions and
    /// links, and only until it returns.
    pub(super) fn peer_send(&self, node: NodeId, core: u16, item: &PeerItem<'_>) -> bool {
        self.peer_append(PeerId { node, core }, |out| item.encode(out))
            .is_ok()
    }

    /// The same for a consensus message whose entries are not in wire form.
    pub(super) fn peer_send_raft<'e>(
        &self,
        node: NodeId,
        core: u16,
        partition: PartitionId,
        message: &RaftMessage<'_>,
        entries: impl IntoIterator<Item = RaftEntry<'e>>,
    ) -> bool {
        self.peer_append(PeerId { node, core }, |out| {
            peer::encode_raft(out, partition, message, entries)
        })
        .is_ok()
    }

    /// Appends an item to the batch that is open for a core; begins to dial it if need be. `encode`
    /// appends the item, or nothing.
    pub(super) fn peer_append(
        &self,
        to: PeerId,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), WireError>,
    ) -> Result<(), NotSent> {
        let appended = self.try_append(to, encode);
        if appended.is_err() {
            add(&self.counters.peer_items_dropped_total, 1);
        }
        appended
    }

    fn try_append(
        &self,
        to: PeerId,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), WireError>,
    ) -> Result<(), NotSent> {
        let now = self.clock.get().now;
        let mut peers = self.peers.borrow_mut();
        let peers = &mut *peers;
        let index = match peers.index.get(&to) {
            Some(&index) => index,
            None => self.new_link(peers, to).ok_or(NotSent::Down)?,
        };
        let link = &mut peers.links[index as usize];
        if matches!(link.state, State::Down) {
            if now < link.retry_at {
                return Err(NotSent::Down);
            }
            link.dials = link.dials.wrapping_add(1);
            link.state = State::Dialing {
                since: now,
                early: Early::new(),
            };
            peers.to_dial.push(index);
        }
        match &mut link.state {
            State::Down => Err(NotSent::Down),
            State::Dialing { early, .. } | State::Greeting { early, .. } => {
                let limit = BATCH_BYTES_MAX as usize;
                if early.0.len() >= EARLY_BYTES_MAX {
                    return Err(NotSent::Full);
                }
                append(&mut early.0, 0, limit, encode)
            }
            State::Open { key, batch_max } => {
                let mut sessions = self.sessions.borrow_mut();
                let session = sessions.touch(*key).ok_or(NotSent::Down)?;
                let backlog = session.backlog();
                if backlog >= self.config.limits.peer_backlog_bytes_max {
                    return Err(NotSent::Full);
                }
                if backlog == 0 {
                    session.sent = now;
                }
                let start = open_batch(session);
                append(&mut session.out, start, *batch_max, encode)
            }
        }
    }

    /// A link to a core that was never dialed, if there is such a core.
    fn new_link(&self, peers: &mut Peers, to: PeerId) -> Option<u32> {
        let cluster = &self.config.cluster;
        let node = cluster.node(to.node)?;
        if to.node == cluster.here() || to.core >= node.cores {
            return None;
        }
        let index = peers.links.len() as u32;
        peers.links.push(Link {
            to,
            state: State::Down,
            failures: 0,
            told: false,
            retry_at: Duration::ZERO,
            dials: 0,
        });
        peers.index.insert(to, index);
        Some(index)
    }

    /// Starts the dials that this turn asked for.
    pub(super) fn dial_peers(&self, port: &mut impl Port) {
        let mut lost = Vec::new();
        {
            let mut peers = self.peers.borrow_mut();
            let peers = &mut *peers;
            for index in peers.to_dial.drain(..) {
                let link = &peers.links[index as usize];
                match self.config.cluster.address(link.to.node) {
                    Some(_) => port.dial(link.dial(index), link.to.node),
                    None => lost.push(index),
                }
            }
        }
        for index in lost {
            self.link_down(index, "the name of its host stands for no address yet");
        }
    }

    /// Whether a link waits to be welcomed.
    pub(super) fn is_greeting(&self, index: u32) -> bool {
        let peers = self.peers.borrow();
        let link = peers.links.get(index as usize);
        link.is_some_and(|link| matches!(link.state, State::Greeting { .. }))
    }

    /// Gives up dials that the port has not answered.
    pub(super) fn sweep_dials(&self) {
        let now = self.clock.get().now;
        let late: Vec<u32> = {
            let peers = self.peers.borrow();
            let is_late = |link: &Link| match link.state {
                State::Dialing { since, .. } => now.saturating_sub(since) > DIAL_MAX,
                _ => false,
            };
            (0..peers.links.len() as u32)
                .filter(|&index| is_late(&peers.links[index as usize]))
                .collect()
        };
        for index in late {
            self.link_down(index, "it takes too long to connect");
        }
    }

    /// A link is no more, or could not be made: not before a pause is it tried again.
    pub(super) fn link_down(&self, index: u32, why: &str) {
        let now = self.clock.get().now;
        let (to, was_open) = {
            let mut peers = self.peers.borrow_mut();
            let Some(link) = peers.links.get_mut(index as usize) else {
                return;
            };
            let was_open = matches!(link.state, State::Open { .. });
            link.state = State::Down;
            link.retry_at = now + self.backoff(link.failures);
            link.failures = link.failures.saturating_add(1);
            if was_open || link.failures == FAILURES_TOLD {
                link.told = true;
                tracing::warn!(
                    core = self.config.core,
                    node = link.to.node,
                    peer_core = link.to.core,
                    "no link to another node: {why}; it is tried again"
                );
            }
            (link.to, was_open)
        };
        add(&self.counters.peer_links_failed_total, 1);
        // It may be elsewhere now, whatever the failure was: another node may have its old address.
        self.config.cluster.addresses().note_failed(to.node);
        if was_open {
            let links = &self.counters.peer_links;
            links.set(links.get().saturating_sub(1));
        }
        self.forwards_lost(to, was_open);
    }

    /// A pause that doubles with each failure, of which a random half is waited.
    fn backoff(&self, failures: u32) -> Duration {
        let pause = BACKOFF_MIN
            .saturating_mul(1 << failures.min(8))
            .min(BACKOFF_MAX);
        let half = pause / 2;
        half + half.mul_f64(self.env.random() as f64 / u64::MAX as f64)
    }

    /// A frame came on a link. `false` if it ends it.
    pub(super) fn link_received(&self, key: SessionKey, index: u32, view: &FrameView<'_>) -> bool {
        let refused = match self.take_welcome(index, view) {
            Ok(()) => return true,
            Err(refused) => refused,
        };
        self.cut_because(key, &refused);
        false
    }

    /// Opens a link that was welcomed, or says why not.
    fn take_welcome(&self, index: u32, view: &FrameView<'_>) -> Result<(), String> {
        let mut peers = self.peers.borrow_mut();
        let Some(link) = peers.links.get_mut(index as usize) else {
            return Err("it is not known".into());
        };
        let State::Greeting { key, .. } = link.state else {
            return Err("it speaks where it should only listen".into());
        };
        if view.kind == Kind::Error as u8 {
            return Err(match Response::decode(view) {
                Ok(Response::Error(error)) => {
                    if error.code == ErrorCode::BootReused {
                        self.config.cluster.outlive(&format!(
                            "node {} has seen a later start of this node: the disk was rolled back \
                             or swapped",
                            link.to.node
                        ));
                    }
                    format!("{:?}: {}", error.code, error.message)
                }
                _ => "it refuses".into(),
            });
        }
        let welcome = PeerWelcome::decode(view).map_err(|error| error.to_string())?;
        self.config
            .cluster
            .admit(link.to.node, welcome.boot, welcome.start)
            .map_err(|error| error.to_string())?;
        self.config.cluster.note_welcome();
        let batch_max = welcome.batch_bytes_max.min(BATCH_BYTES_MAX) as usize;
        let open = State::Open { key, batch_max };
        let State::Greeting { early, .. } = std::mem::replace(&mut link.state, open) else {
            return Ok(());
        };
        if std::mem::take(&mut link.told) {
            tracing::info!(
                core = self.config.core,
                node = link.to.node,
                peer_core = link.to.core,
                "the link to another node is back"
            );
        }
        link.failures = 0;
        add(&self.counters.peer_links, 1);
        if let Some(session) = self.sessions.borrow_mut().touch(key) {
            session.sent = self.clock.get().now;
            if early.0.len() > HEADER_BYTES && early.0.len() <= batch_max {
                debug_assert!(session.batch.is_none());
                session.batch = Some(session.out.len());
                session.out.extend_from_slice(&early.0);
            }
        }
        Ok(())
    }

    /// A batch from another node. `false` if it ends the connection.
    pub(super) fn peer_batch(
        self: &Rc<Self>,
        key: SessionKey,
        from: PeerId,
        view: &FrameView<'_>,
    ) -> bool {
        let taken = peer::items(view).and_then(|mut items| {
            items.try_for_each(|item| {
                self.peer_received(from, &item?);
                Ok(())
            })
        });
        if let Err(error) = taken {
            self.cut_because(key, &error.to_string());
            return false;
        }
        true
    }

    /// One item from another node.
    fn peer_received(self: &Rc<Self>, from: PeerId, item: &PeerItem<'_>) {
        match *item {
            PeerItem::Forward {
                id,
                deadline_ms,
                reach,
                frame,
            } => self.execute_forwarded(from, id, deadline_ms, reach, frame),
            PeerItem::ForwardReply { id, frame } => self.forward_answered(from, id, frame),
            PeerItem::Raft {
                partition,
                message,
                entries,
            } => self.raft_received(from.node, partition, &message, entries),
            PeerItem::SnapshotChunk(chunk) if node_of(chunk.from) == from.node => {
                self.snapshot_chunk(&chunk);
            }
            PeerItem::SnapshotAck(ack) if node_of(ack.from) == from.node => {
                self.snapshot_answered(&ack);
            }
            PeerItem::Map { bytes, .. } => self.map_told(bytes),
            PeerItem::Sleep(note) if node_of(note.from) == from.node => {
                self.sleep_note_received(&note);
            }
            PeerItem::Pulse(pulse) => self.pulse_received(from.node, &pulse),
            PeerItem::Clock { wall_ms } => {
                let clock = self.clock.get();
                let clocks = self.config.cluster.clocks();
                clocks.told(from.node, wall_ms, clock.wall_ms, clock.now);
            }
            PeerItem::NodeState(state) => {
                self.config.cluster.note_draining(from.node, state.drains);
                let now = self.clock.get().now;
                self.config.cluster.note_full(from.node, state.is_full, now);
            }
            // What a node says in another's name.
            PeerItem::SnapshotChunk(_) | PeerItem::SnapshotAck(_) | PeerItem::Sleep(_) => {
                add(&self.counters.peer_items_dropped_total, 1);
            }
        }
    }

    /// Notes when other nodes were last heard of by this core.
    pub(super) fn note_heard(&self) {
        let peers = self.peers.borrow();
        let mut sessions = self.sessions.borrow_mut();
        for (from, key) in &peers.incoming {
            if let Some(session) = sessions.get(*key) {
                self.config.cluster.note_heard(from.node, session.heard);
            }
        }
    }

    /// Ends a connection with another node that broke the protocol.
    pub(super) fn cut_because(&self, key: SessionKey, why: &str) {
        let stage = self.sessions.borrow_mut().get(key).map(|s| s.stage);
        match stage {
            Some(Stage::Link(index)) => self.link_down(index, why),
            Some(Stage::Peer(from)) => tracing::warn!(
                core = self.config.core,
                node = from.node,
                peer_core = from.core,
                "the connection of another node is closed: {why}"
            ),
            _ => {}
        }
        add(&self.counters.bad_frames_total, 1);
        self.cut(key);
    }

    /// Closes a connection at once.
    pub(super) fn cut(&self, key: SessionKey) {
        if let Some(session) = self.forget(key) {
            self.closing.borrow_mut().push(session.handle);
        }
    }

    /// A session with another node has ended.
    pub(super) fn peer_ended(&self, key: SessionKey, stage: Stage) {
        match stage {
            Stage::Link(index) => {
                let current = {
                    let peers = self.peers.borrow();
                    match peers.links.get(index as usize).map(|link| &link.state) {
                        Some(State::Greeting { key: k, .. } | State::Open { key: k, .. }) => {
                            *k == key
                        }
                        _ => false,
                    }
                };
                if current {
                    self.link_down(index, "the connection broke");
                }
            }
            Stage::Peer(from) => {
                let mut peers = self.peers.borrow_mut();
                if peers.incoming.get(&from) == Some(&key) {
                    peers.incoming.remove(&from);
                }
            }
            Stage::Greeting | Stage::Open | Stage::Resp | Stage::Closing => {}
        }
    }
}

/// Where the session's open batch begins; a full one is closed first.
fn open_batch(session: &mut Session) -> usize {
    if let Some(start) = session.batch {
        if session.out.len() - start < BATCH_BYTES {
            return start;
        }
        session.close_batch();
    }
    let start = peer::begin_batch(&mut session.out);
    session.batch = Some(start);
    start
}

/// Appends an item to the batch that begins at `start`, if that stays within `limit`.
fn append(
    out: &mut Vec<u8>,
    start: usize,
    limit: usize,
    encode: impl FnOnce(&mut Vec<u8>) -> Result<(), WireError>,
) -> Result<(), NotSent> {
    let before = out.len();
    encode(out).map_err(|_| NotSent::Refused)?;
    if out.len() - start > limit {
        out.truncate(before);
        return Err(NotSent::Refused);
    }
    Ok(())
}
