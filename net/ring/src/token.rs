//! What the kernel hands back with a completion: which operation, on which slot, of which life.
//!
//! ```text
//!  63      56 55            32 31             0
//! ┌──────────┬────────────────┬────────────────┐
//! │ operation│ generation     │ slot           │
//! └──────────┴────────────────┴────────────────┘
//! ```

/// A connection of one ring. Never valid again once [`Event::Closed`](crate::Event::Closed) or
/// [`Event::Detached`](crate::Event::Detached) was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl ConnId {
    /// The slot: below the configured `connections_max`, reused by later connections. For side
    /// tables; compare whole ids before believing an entry.
    #[must_use]
    pub fn slot(self) -> usize {
        self.slot as usize
    }
}

/// A listening socket of one ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListenerId(pub(crate) u32);

/// The kinds of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Op {
    Recv = 1,
    Send,
    /// A cancel by descriptor, part of a close: the slot waits for it.
    CancelAll,
    /// A cancel of the receive only: its own result says nothing.
    CancelRecv,
    /// The deadline of a lingering close.
    Linger,
    Accept,
    AcceptRetry,
    CancelAccept,
    File,
    FileSync,
    /// A message from another ring.
    Wake,
    /// The read armed on the wake eventfd.
    WakeFd,
    /// This ring's own message to another ring failed.
    WakeSent,
    /// The cancel of everything, at the end.
    Drain,
    Connect,
    /// The timeout linked to a connect.
    ConnectLimit,
}

const GENERATION_MASK: u32 = 0x00ff_ffff;

pub(crate) const fn next_generation(generation: u32) -> u32 {
    (generation + 1) & GENERATION_MASK
}

pub(crate) const fn encode(op: Op, slot: u32, generation: u32) -> u64 {
    ((op as u64) << 56) | (((generation & GENERATION_MASK) as u64) << 32) | slot as u64
}

pub(crate) fn decode(user_data: u64) -> Option<(Op, u32, u32)> {
    let op = match (user_data >> 56) as u8 {
        1 => Op::Recv,
        2 => Op::Send,
        3 => Op::CancelAll,
        4 => Op::CancelRecv,
        5 => Op::Linger,
        6 => Op::Accept,
        7 => Op::AcceptRetry,
        8 => Op::CancelAccept,
        9 => Op::File,
        10 => Op::FileSync,
        11 => Op::Wake,
        12 => Op::WakeFd,
        13 => Op::WakeSent,
        14 => Op::Drain,
        15 => Op::Connect,
        16 => Op::ConnectLimit,
        _ => return None,
    };
    let generation = (user_data >> 32) as u32 & GENERATION_MASK;
    Some((op, user_data as u32, generation))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_survives_the_round_trip() {
        for raw in 1..=16u8 {
            let (op, _, _) = decode(u64::from(raw) << 56).expect("a known operation");
            assert_eq!(op as u8, raw);
            let user_data = encode(op, 0xdead_beef, 0x00ab_cdef);
            assert_eq!(decode(user_data), Some((op, 0xdead_beef, 0x00ab_cdef)));
        }
        assert_eq!(decode(0), None);
        assert_eq!(decode(u64::MAX), None);
    }
}
