//! Connections as state machines in a slab: bytes in, frames out. No sockets here.

use std::time::Duration;

use slab::Slab;

use super::mail::SessionKey;

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing but `Hello` is taken.
    Greeting,
    /// Requests are served.
    Open,
    /// What is in `out` is sent, then it is closed. Input is ignored.
    Closing,
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
    /// A buffer for the next batch of replies.
    pub(super) spare: Vec<u8>,
    /// Whether a send is under way; one at a time.
    pub(super) sending: bool,
    /// Bytes of the send under way.
    pub(super) sending_bytes: usize,
    /// Whether a limit is reached, so that no more input is taken up.
    pub(super) paused: bool,
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

    /// Replies that the client has not taken.
    pub(super) fn backlog(&self) -> usize {
        self.out.len() + self.sending_bytes
    }
}

/// The connections of one shard.
#[derive(Default)]
pub(super) struct Sessions {
    slab: Slab<Session>,
    generation: u32,
    /// Slots with something to do at the turn's end.
    pub(super) dirty: Vec<u32>,
}

impl Sessions {
    pub(super) fn insert(&mut self, handle: u64, now: Duration) -> SessionKey {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let slot = self.slab.insert(Session {
            generation,
            handle,
            stage: Stage::Greeting,
            input: Vec::new(),
            skip: 0,
            out: Vec::new(),
            spare: Vec::new(),
            sending: false,
            sending_bytes: 0,
            paused: false,
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

    pub(super) fn len(&self) -> usize {
        self.slab.len()
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
            self.dirty.push(key.slot);
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
        Some(self.slab.remove(key.slot as usize))
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
