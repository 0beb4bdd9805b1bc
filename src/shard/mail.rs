//! What cores say to each other.
//!
//! A core collects everything it has for another core during one turn into one [`Parcel`]: the
//! items in order, and their bytes back to back in one buffer. So a turn costs one mailbox slot
//! and at most one wake per pair of cores, however many requests crossed.

use std::ops::Range;
use std::time::Duration;

use ringbolt_wire::message::Keyspace;

use super::trace::Trace;
use crate::cluster::NodeId;

/// Where an answer goes on the core that asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ticket {
    /// To a connection.
    Session(SessionKey),
    /// To a gather that waits for several cores.
    Gather {
        /// The gather.
        key: SessionKey,
        /// Which of its parts this is.
        part: u16,
    },
    /// To a core of another node, which forwarded the request.
    Peer {
        /// The node.
        node: NodeId,
        /// The core.
        core: u16,
        /// Its number for the request.
        id: u64,
    },
    /// Nobody waits.
    None,
}

/// A slot and its generation: an answer for a slot since reused is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionKey {
    /// The slot.
    pub slot: u32,
    /// How often the slot has been used.
    pub generation: u32,
}

/// Who asked for something, and until when it is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The core that asked.
    pub core: u16,
    /// What waits there.
    pub ticket: Ticket,
    /// The request's id on its connection.
    pub request_id: u64,
    /// Bytes it holds of the asking connection's budget.
    pub cost: u32,
    /// By the machine's `CLOCK_BOOTTIME`, the same on every core.
    pub deadline: Duration,
    /// Whether another node forwarded it: then it is not forwarded again.
    pub forwarded: bool,
    /// Whether what was committed when it arrived is known to be applied.
    pub settled: bool,
    /// Where its time has gone so far.
    pub trace: Trace,
}

/// A change of the keyspaces that every core must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyspaceChange {
    /// It exists from now on.
    Created(Keyspace),
    /// It is gone.
    Dropped(Keyspace),
}

/// Whether a core answers for the whole node or for its own partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The whole request: every key it names is owned by the receiver.
    Whole,
    /// The receiver's share of a request that names more.
    Share,
    /// The share of the receiver's node: what its cores lead.
    Node,
}

/// One item of a parcel. Ranges point into the parcel's bytes.
#[derive(Debug)]
pub enum Item {
    /// A request frame to execute.
    Request {
        /// Who asked.
        origin: Origin,
        /// For what part.
        scope: Scope,
        /// The frame.
        frame: Range<usize>,
    },
    /// A reply frame.
    Reply {
        /// Who asked.
        origin: Origin,
        /// The frame.
        frame: Range<usize>,
    },
    /// A change of the keyspaces, to be answered by an empty reply.
    Keyspace {
        /// Who waits for it.
        origin: Origin,
        /// The change.
        change: KeyspaceChange,
    },
    /// Who is connected to the receiver, to be answered by text: a line for each Redis client.
    Clients {
        /// Who waits for it.
        origin: Origin,
    },
}

/// One turn's mail from one core to another.
#[derive(Debug, Default)]
pub struct Parcel {
    /// The items, in the order they were written.
    pub items: Vec<Item>,
    /// Their bytes.
    pub bytes: Vec<u8>,
}

impl Parcel {
    /// Whether there is nothing to deliver.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Adds a request.
    pub fn request(&mut self, origin: Origin, scope: Scope, frame: &[u8]) {
        let frame = self.append(|bytes| bytes.extend_from_slice(frame));
        self.items.push(Item::Request {
            origin,
            scope,
            frame,
        });
    }

    /// Adds a reply, encoded in place.
    pub fn reply(&mut self, origin: Origin, encode: impl FnOnce(&mut Vec<u8>)) {
        let frame = self.append(encode);
        self.items.push(Item::Reply { origin, frame });
    }

    /// Adds a change of the keyspaces.
    pub fn keyspace(&mut self, origin: Origin, change: KeyspaceChange) {
        self.items.push(Item::Keyspace { origin, change });
    }

    /// Asks who is connected.
    pub fn clients(&mut self, origin: Origin) {
        self.items.push(Item::Clients { origin });
    }

    fn append(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
        let start = self.bytes.len();
        encode(&mut self.bytes);
        start..self.bytes.len()
    }
}
