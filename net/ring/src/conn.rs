//! The table of connections: slots with generations.

use std::os::fd::OwnedFd;

use crate::token::{ConnId, next_generation};

/// The receive side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recv {
    /// Nothing armed.
    Idle,
    /// A multishot receive is with the kernel.
    Armed,
    /// It is, and its cancellation was asked for.
    Cancelling,
    /// It ended for want of buffers and is re-armed at the next submit.
    Starved,
}

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    /// Sends what is in flight, then says FIN and reads away what the peer still sends, so that
    /// the peer gets the last reply and not a reset.
    Finishing,
    /// Waits for the last completions.
    Closing,
    /// The same, to leave for another ring.
    Detaching,
}

#[derive(Debug)]
pub(crate) struct Send {
    pub(crate) buf: Vec<u8>,
    pub(crate) done: usize,
}

#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) fd: OwnedFd,
    pub(crate) phase: Phase,
    pub(crate) recv: Recv,
    /// Whether the owner wants to receive (not paused, no EOF or failure seen).
    pub(crate) recv_wanted: bool,
    /// The peer sends no more, or receiving failed.
    pub(crate) eof: bool,
    pub(crate) send: Option<Send>,
    /// A cancel by descriptor is with the kernel: the descriptor must live until it is back.
    pub(crate) cancelling: bool,
    /// What arrived while detaching.
    pub(crate) leftover: Vec<u8>,
    /// What a finishing connection read away so far, in bytes.
    pub(crate) discarded: usize,
}

impl Conn {
    /// Whether the kernel holds nothing of this connection.
    pub(crate) fn is_quiet(&self) -> bool {
        matches!(self.recv, Recv::Idle | Recv::Starved) && self.send.is_none() && !self.cancelling
    }
}

struct Slot {
    generation: u32,
    conn: Option<Conn>,
}

/// Connections by slot. Freed slots are reused, the last freed first.
pub(crate) struct Conns {
    slots: Vec<Slot>,
    free: Vec<u32>,
    max: u32,
}

impl Conns {
    pub(crate) fn new(max: u32) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            max,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Stores a connection; gives the descriptor back if the table is full.
    pub(crate) fn insert(&mut self, fd: OwnedFd) -> Result<ConnId, OwnedFd> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if (self.slots.len() as u64) < u64::from(self.max) => {
                self.slots.push(Slot {
                    generation: 0,
                    conn: None,
                });
                (self.slots.len() - 1) as u32
            }
            None => return Err(fd),
        };
        let entry = &mut self.slots[slot as usize];
        entry.conn = Some(Conn {
            fd,
            phase: Phase::Open,
            recv: Recv::Idle,
            recv_wanted: true,
            eof: false,
            send: None,
            cancelling: false,
            leftover: Vec::new(),
            discarded: 0,
        });
        Ok(ConnId {
            slot,
            generation: entry.generation,
        })
    }

    pub(crate) fn get(&self, id: ConnId) -> Option<&Conn> {
        let slot = self.slots.get(id.slot as usize)?;
        slot.conn
            .as_ref()
            .filter(|_| slot.generation == id.generation)
    }

    pub(crate) fn get_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        let generation = slot.generation;
        slot.conn.as_mut().filter(|_| generation == id.generation)
    }

    /// Frees a slot; its id is void from here on.
    pub(crate) fn remove(&mut self, id: ConnId) -> Option<Conn> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let conn = slot.conn.take()?;
        slot.generation = next_generation(slot.generation);
        self.free.push(id.slot);
        Some(conn)
    }
}
