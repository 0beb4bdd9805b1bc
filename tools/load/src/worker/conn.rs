//! A connection of the load and its slots: one for each request it may have unanswered.

use std::collections::VecDeque;

use mio::net::TcpStream;

use crate::connect::Home;
use crate::source::Op;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotState {
    Free,
    InFlight,
    /// Refused for a while: to be sent again.
    Waiting,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    pub state: SlotState,
    pub generation: u32,
    pub op: Op,
    /// When latency counts from.
    pub begun_ns: u64,
    /// When it was last sent.
    pub sent_ns: u64,
    /// A read-modify-write that has been read.
    pub modifying: bool,
}

#[derive(Debug)]
pub(super) struct Conn {
    pub stream: Option<TcpStream>,
    /// Where it leads, or would if that node could be reached.
    pub home: Home,
    /// Whose keys it makes requests of; `None`: any.
    pub place: Option<u16>,
    /// How often in a row its node said that it does not lead.
    pub not_leader: u32,
    pub input: Vec<u8>,
    pub output: Vec<u8>,
    pub written: usize,
    pub slots: Vec<Slot>,
    pub free: Vec<u32>,
    /// Slots in the order of their requests, for protocols that answer in order.
    pub order: VecDeque<u32>,
    pub dirty: bool,
    /// The source has nothing more for it in this phase.
    pub done: bool,
    pub waiting: bool,
    /// Given up: the server did not come back.
    pub dead: bool,
}

impl Conn {
    pub fn in_use(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

pub(super) fn request_id(slot: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(slot)
}
