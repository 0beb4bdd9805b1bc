//! Connections as state machines in a slab: bytes in, frames out. No sockets here.

use std::collections::VecDeque;
use std::time::Duration;

use slab::Slab;

use ringbolt_wire::peer;

use super::mail::SessionKey;
use super::peers::PeerId;
use crate::resp::connection::Connection;

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing but `Hello` is taken.
    Greeting,
    /// Requests are served.
    Open,
    /// A Redis client's commands are served.
    Resp,
    /// What is in `out` is sent, then it is closed. Input is ignored.
    Closing,
    /// A core of another node sends batches on it. Limits of clients do not hold here.
    Peer(PeerId),
    /// This core sends batches on it, over the link of this number. Nor here.
    Link(u32),
}

impl Stage {
    /// Whether the other side is another node.
    pub(super) fn is_peer(self) -> bool {
        matches!(self, Stage::Peer(_) | Stage::Link(_))
    }
}

/// One connection.
pub(super) struct Session {
    pub(super) generation: u32,
    /// The socket's handle, opaque here.
    pub(super) handle: u64,
    pub(super) stage: Stage,
    /// The bytes of a frame not yet complete, or not yet taken up.
    pub(super) input: Vec<u8>,
    /// Bytes of an oversized frame still to be thrown away.
    pub(super) skip: usize,
    /// Replies not yet handed to the socket.
    pub(super) out: Vec<u8>,
    /// Where in `out` a batch begins that is not finished, on a link.
    pub(super) batch: Option<usize>,
    /// A buffer for the next batch of replies.
    pub(super) spare: Vec<u8>,
    /// Whether a send is under way; one at a time.
    pub(super) sending: bool,
    /// Bytes of the send under way.
    pub(super) sending_bytes: usize,
    /// Whether a limit is reached, so that no more input is taken up.
    pub(super) paused: bool,
    /// Since when, in microseconds.
    pub(super) paused_us: u64,
    /// Whether no more input is taken up until an earlier command of the connection is answered.
    pub(super) stuck: bool,
    /// Whether the client will send no more, though not all that it sent is taken up.
    pub(super) ended: bool,
    /// What a Redis client's connection has beside the rest.
    pub(super) resp: Option<Box<Connection>>,
    /// Whether the socket was told to stop reading.
    pub(super) port_paused: bool,
    /// Whether it is in the list of sessions with something to do at the turn's end.
    pub(super) dirty: bool,
    /// Unanswered requests.
    pub(super) inflight: u32,
    /// Their bytes.
    pub(super) inflight_bytes: usize,
    /// When it was accepted, or when it last said something.
    pub(super) heard: Duration,
    /// When the frame in `input` began.
    pub(super) frame_began: Duration,
    /// When a send last made progress, or had nothing to do.
    pub(super) sent: Duration,
}

/// What a sent buffer may keep of its capacity, in bytes.
const KEEP_CAPACITY: usize = 64 << 10;

impl Session {
    /// The buffer is free again: keep it for the next replies unless it has grown large.
    pub(super) fn recycle(&mut self, mut buf: Vec<u8>) {
        buf.clear();
        if buf.capacity() <= KEEP_CAPACITY {
            self.spare = buf;
        }
    }

    /// Finishes the open batch, if there is one.
    pub(super) fn close_batch(&mut self) {
        if let Some(start) = self.batch.take() {
            // It fails for 4 GiB, which the limits are far below, and then leaves the batch out.
            let finished = peer::finish_batch(&mut self.out, start);
            debug_assert!(finished.is_ok());
        }
    }

    /// Replies that the client has not taken.
    pub(super) fn backlog(&self) -> usize {
        let held = self.resp.as_ref().map_or(0, |resp| resp.held_bytes());
        self.out.len() + self.sending_bytes + held
    }
}

/// The connections of one shard.
#[derive(Default)]
pub(super) struct Sessions {
    slab: Slab<Session>,
    generation: u32,
    /// How many are with other nodes.
    peers: usize,
    /// Slots with something to do at the turn's end, in this order: those of other nodes, whose disks wait for it,
    /// then what came of this turn's input, then writes that have become durable.
    pub(super) dirty: VecDeque<u32>,
}

impl Sessions {
    pub(super) fn insert(&mut self, handle: u64, stage: Stage, now: Duration) -> SessionKey {
        self.peers += usize::from(stage.is_peer());
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let slot = self.slab.insert(Session {
            generation,
            handle,
            stage,
            input: Vec::new(),
            skip: 0,
            out: Vec::new(),
            batch: None,
            spare: Vec::new(),
            sending: false,
            sending_bytes: 0,
            paused: false,
            paused_us: 0,
            stuck: false,
            ended: false,
            resp: None,
            port_paused: false,
            dirty: false,
            inflight: 0,
            inflight_bytes: 0,
            heard: now,
            frame_began: now,
            sent: now,
        });
        SessionKey {
            slot: slot as u32,
            generation,
        }
    }

    /// How many there are with clients, or with who has not said yet what it is.
    pub(super) fn clients(&self) -> usize {
        self.slab.len() - self.peers
    }

    /// Moves a session on. One with another node stays that until it ends.
    pub(super) fn set_stage(&mut self, key: SessionKey, stage: Stage) {
        if let Some(session) = self.touch(key)
            && !session.stage.is_peer()
        {
            session.stage = stage;
            self.peers += usize::from(stage.is_peer());
        }
    }

    pub(super) fn get(&mut self, key: SessionKey) -> Option<&mut Session> {
        self.slab
            .get_mut(key.slot as usize)
            .filter(|session| session.generation == key.generation)
    }

    /// The session, put on the list of those to look at when the turn ends.
    pub(super) fn touch(&mut self, key: SessionKey) -> Option<&mut Session> {
        let session = self
            .slab
            .get_mut(key.slot as usize)
            .filter(|session| session.generation == key.generation)?;
        if !session.dirty {
            session.dirty = true;
            match session.stage.is_peer() {
                true => self.dirty.push_front(key.slot),
                false => self.dirty.push_back(key.slot),
            }
        }
        Some(session)
    }

    pub(super) fn by_slot(&mut self, slot: u32) -> Option<(SessionKey, &mut Session)> {
        self.slab.get_mut(slot as usize).map(|session| {
            let generation = session.generation;
            (SessionKey { slot, generation }, session)
        })
    }

    pub(super) fn remove(&mut self, key: SessionKey) -> Option<Session> {
        self.get(key)?;
        let session = self.slab.remove(key.slot as usize);
        self.peers -= usize::from(session.stage.is_peer());
        Some(session)
    }

    pub(super) fn keys(&self) -> Vec<SessionKey> {
        self.slab
            .iter()
            .map(|(slot, session)| SessionKey {
                slot: slot as u32,
                generation: session.generation,
            })
            .collect()
    }
}
