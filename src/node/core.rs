//! One core: its shard, joined to the ring's connections and to the other cores' mailboxes.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use ringbolt_engine::env::Env;
use ringbolt_ring::{ConnId, Event, ListenerId, Ring, RingWaker};
use ringbolt_wire::codec;
use ringbolt_wire::message::{ErrorCode, ErrorReply};

use super::mailbox::{Door, Letter, Mailboxes};
use crate::admin::CoreView;
use crate::cluster::{ClusterView, NodeId};
use crate::shard::mail::{Parcel, SessionKey};
use crate::shard::{Port, Shard, resp_refusal};

/// How long a client that met the limit of connections should wait, in milliseconds.
const RETRY_AFTER_MS: u32 = 1000;

/// How long connecting to another node may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection of the ring and its session in the shard.
#[derive(Debug, Clone, Copy)]
struct Link {
    conn: ConnId,
    session: SessionKey,
}

/// A core's share of the node.
pub struct Core<E: Env> {
    number: u16,
    shard: Shard<E>,
    cluster: Arc<ClusterView>,
    mailboxes: Mailboxes,
    /// By core.
    wakers: Vec<RingWaker>,
    /// By the ring's slot.
    links: Vec<Option<Link>>,
    /// Connections on their way to another core, with the input they had sent.
    leaving: AHashMap<ConnId, (u16, Vec<u8>)>,
    /// Connections for whose core's mailbox was full. As many at most as this core may have.
    waiting: VecDeque<(u16, Letter)>,
    listeners: Vec<(Door, ListenerId)>,
    stopping: bool,
}

impl<E: Env> Core<E> {
    /// A core whose shard is open.
    pub fn new(
        number: u16,
        shard: Shard<E>,
        cluster: Arc<ClusterView>,
        mailboxes: Mailboxes,
        wakers: Vec<RingWaker>,
    ) -> Self {
        Self {
            number,
            shard,
            cluster,
            mailboxes,
            wakers,
            links: Vec::new(),
            leaving: AHashMap::new(),
            waiting: VecDeque::new(),
            listeners: Vec::new(),
            stopping: false,
        }
    }

    /// The beginning of a turn: the clock is read, mail is taken in.
    pub fn begin_turn(&mut self, ring: &mut Ring) {
        self.shard.begin_turn();
        while let Some(letter) = self.mailboxes.take(self.number) {
            match letter {
                Letter::Parcel(parcel) => self.shard.parcel(&parcel),
                Letter::Connection { socket, input } => self.adopt(ring, Door::Own, socket, &input),
                Letter::Listen(door, listener) => {
                    let listener = ring.listen(OwnedFd::from(listener));
                    self.listeners.push((door, listener));
                }
                Letter::Look(look) => {
                    let shard = self.shard.view(look.depth);
                    (look.answer)(CoreView {
                        shard,
                        ring: ring.stats(),
                    });
                }
                Letter::Stop => {
                    self.stopping = true;
                    for (_, listener) in self.listeners.drain(..) {
                        ring.stop_listening(listener);
                    }
                    self.shard.drain();
                }
            }
        }
    }

    /// Whether letters wait: looked at once more before the core parks.
    pub fn has_mail(&self) -> bool {
        self.mailboxes.has_mail(self.number)
    }

    /// Something happened on the ring.
    pub fn on_event(&mut self, ring: &mut Ring, event: Event) {
        match event {
            Event::Data { conn, bytes } => {
                if let Some(link) = self.link(conn) {
                    self.shard.received(link.session, &bytes);
                }
            }
            Event::Sent { conn, buf } => {
                if let Some(link) = self.link(conn) {
                    self.shard.sent(link.session, buf);
                }
            }
            Event::Accepted { listener, socket } => {
                let mut listeners = self.listeners.iter();
                let door = listeners.find(|(_, known)| *known == listener);
                let door = door.map_or(Door::Own, |(door, _)| *door);
                self.adopt(ring, door, socket, &[]);
            }
            Event::Eof { conn } => match self.link(conn) {
                Some(link) => self.shard.ended(link.session),
                None => ring.close(conn),
            },
            Event::Failed { conn, .. } => {
                self.unlink(conn);
                ring.close(conn);
            }
            Event::Closed { conn } => self.unlink(conn),
            Event::Detached {
                conn,
                socket,
                leftover,
            } => self.send_on(conn, socket, &leftover),
            Event::AcceptPaused { errno, .. } => {
                tracing::warn!(
                    core = self.number,
                    error = %std::io::Error::from_raw_os_error(errno),
                    "accepting connections pauses: raise the limit of open files (ulimit -n)"
                );
            }
            Event::ListenerClosed { errno, .. } if errno != 0 => {
                tracing::error!(
                    core = self.number,
                    error = %std::io::Error::from_raw_os_error(errno),
                    "the listening socket failed; restart the server"
                );
            }
            Event::Connected { token, socket } => self.reached(ring, token, socket),
            Event::ConnectFailed { token, errno } => {
                let error = std::io::Error::from_raw_os_error(errno);
                // Nothing is there that could be closed.
                let _none = self.shard.dialed(token, Err(error));
            }
            Event::ListenerClosed { .. } | Event::FileDone { .. } | Event::Woken => {}
        }
    }

    /// The end of a turn. Returns when the next one is wanted even if nothing arrives.
    pub fn end_turn(&mut self, ring: &mut Ring) -> Option<Duration> {
        let stuck = self.post_waiting(ring);
        let mut port = CorePort {
            number: self.number,
            ring,
            cluster: &self.cluster,
            links: &mut self.links,
            leaving: &mut self.leaving,
            mailboxes: &self.mailboxes,
            wakers: &self.wakers,
        };
        let due = self.shard.end_turn(&mut port);
        if stuck { Some(Duration::ZERO) } else { due }
    }

    /// Whether it was told to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    fn link(&self, conn: ConnId) -> Option<Link> {
        self.links
            .get(conn.slot())
            .copied()
            .flatten()
            .filter(|link| link.conn == conn)
    }

    fn unlink(&mut self, conn: ConnId) {
        if let Some(link) = self.link(conn) {
            self.shard.closed(link.session);
            self.links[conn.slot()] = None;
        }
    }

    /// Takes a connection in, with input that it has sent already.
    fn adopt(&mut self, ring: &mut Ring, door: Door, socket: OwnedFd, input: &[u8]) {
        // At the ring's own limit there is no slot to say so from: the socket is just closed.
        let Ok(conn) = ring.adopt(socket) else {
            return;
        };
        let slot = conn.slot();
        if slot >= self.links.len() {
            self.links.resize(slot + 1, None);
        }
        let session = match door {
            Door::Own => self.shard.connected(slot as u64),
            Door::Resp => self.shard.connected_resp(slot as u64),
        };
        match session {
            Some(session) => {
                self.links[slot] = Some(Link { conn, session });
                if !input.is_empty() {
                    self.shard.received(session, input);
                }
            }
            None => {
                self.links[slot] = None;
                // It may have been closed meanwhile; then nobody is left to be told.
                let _closed = ring.send(
                    conn,
                    match door {
                        Door::Own => refusal(),
                        Door::Resp => resp_refusal(),
                    },
                );
                ring.finish(conn);
            }
        }
    }

    /// Takes in a connection that this core made.
    fn reached(&mut self, ring: &mut Ring, dial: u64, socket: OwnedFd) {
        let Ok(conn) = ring.adopt(socket) else {
            let full = std::io::Error::other("this core has as many connections as it may");
            let _none = self.shard.dialed(dial, Err(full));
            return;
        };
        let slot = conn.slot();
        if slot >= self.links.len() {
            self.links.resize(slot + 1, None);
        }
        let session = self.shard.dialed(dial, Ok(slot as u64));
        self.links[slot] = session.map(|session| Link { conn, session });
        if session.is_none() {
            ring.close(conn);
        }
    }

    /// Sends a detached connection on to the core it wants.
    fn send_on(&mut self, conn: ConnId, socket: OwnedFd, leftover: &[u8]) {
        let Some((core, mut input)) = self.leaving.remove(&conn) else {
            return;
        };
        input.extend_from_slice(leftover);
        self.waiting
            .push_back((core, Letter::Connection { socket, input }));
    }

    /// Posts the connections that wait, as far as their mailboxes take them. Whether some are left.
    fn post_waiting(&mut self, ring: &mut Ring) -> bool {
        for _ in 0..self.waiting.len() {
            let Some((core, letter)) = self.waiting.pop_front() else {
                break;
            };
            match self.mailboxes.post(self.number, core, letter) {
                Ok(()) => {
                    if let Some(waker) = self.wakers.get(usize::from(core)) {
                        ring.wake(waker);
                    }
                }
                Err(letter) => self.waiting.push_back((core, letter)),
            }
        }
        !self.waiting.is_empty()
    }
}

/// What a connection over the limit is told.
fn refusal() -> Vec<u8> {
    let mut frame = Vec::new();
    codec::encode_error(
        &mut frame,
        0,
        &ErrorReply {
            code: ErrorCode::Overloaded,
            retry_after_ms: RETRY_AFTER_MS,
            detail: 0,
            message: "this core has as many connections as it may (limits.connections_max), or \
                      the server is stopping",
        },
    );
    frame
}

/// The ring and the mailboxes as the shard sees them.
struct CorePort<'a> {
    number: u16,
    ring: &'a mut Ring,
    cluster: &'a ClusterView,
    links: &'a mut Vec<Option<Link>>,
    leaving: &'a mut AHashMap<ConnId, (u16, Vec<u8>)>,
    mailboxes: &'a Mailboxes,
    wakers: &'a [RingWaker],
}

impl CorePort<'_> {
    fn conn(&self, handle: u64) -> Option<ConnId> {
        let link = self.links.get(handle as usize).copied().flatten();
        link.map(|link| link.conn)
    }

    fn take(&mut self, handle: u64) -> Option<ConnId> {
        let link = self.links.get_mut(handle as usize)?.take();
        link.map(|link| link.conn)
    }
}

impl Port for CorePort<'_> {
    fn send(&mut self, handle: u64, bytes: Vec<u8>) {
        if let Some(conn) = self.conn(handle)
            && let Err(error) = self.ring.send(conn, bytes)
        {
            // The ring knows it is closed already; its event ends the session.
            tracing::debug!(core = self.number, %error, "a reply has nobody to go to");
        }
    }

    fn pause(&mut self, handle: u64) {
        if let Some(conn) = self.conn(handle) {
            self.ring.pause_recv(conn);
        }
    }

    fn resume(&mut self, handle: u64) {
        if let Some(conn) = self.conn(handle) {
            self.ring.resume_recv(conn);
        }
    }

    fn finish(&mut self, handle: u64) {
        if let Some(conn) = self.take(handle) {
            self.ring.finish(conn);
        }
    }

    fn close(&mut self, handle: u64) {
        if let Some(conn) = self.take(handle) {
            self.ring.close(conn);
        }
    }

    fn hand_over(&mut self, handle: u64, core: u16, input: Vec<u8>) {
        if let Some(conn) = self.take(handle) {
            self.leaving.insert(conn, (core, input));
            self.ring.detach(conn);
        }
    }

    fn dial(&mut self, dial: u64, node: NodeId) {
        // The shard asks for nodes that have an address; it gives up a dial that is not answered.
        if let Some(address) = self.cluster.address(node) {
            self.ring.connect(dial, address, CONNECT_TIMEOUT);
        }
    }

    fn post(&mut self, core: u16, parcel: Parcel) -> Result<(), Parcel> {
        match self
            .mailboxes
            .post(self.number, core, Letter::Parcel(parcel))
        {
            Ok(()) => {
                if let Some(waker) = self.wakers.get(usize::from(core)) {
                    self.ring.wake(waker);
                }
                Ok(())
            }
            Err(Letter::Parcel(parcel)) => Err(parcel),
            Err(_) => Ok(()),
        }
    }
}
