//! What nodes say to each other.
//!
//! A core dials a core of another node when it first has something for it, and uses that connection
//! to send only; answers come on the other side's own. The first frame is a [`PeerHello`], answered
//! by a [`PeerWelcome`] or an error; after it the dialer sends [`PeerBatch`](Kind::PeerBatch) frames
//! and nothing comes back. A batch is a sequence of items:
//!
//! ```text
//!  0     1          5
//!  +-----+----------+------  ---+-----+--
//!  | tag | length   | body ...  | tag | ...
//!  | u8  | u32      |           |     |
//!  +-----+----------+------  ---+-----+--
//! ```
//!
//! The length counts the item's body. A tag that the receiver does not know is passed over by its
//! length, so that nodes of neighbouring versions understand each other; an item that contradicts
//! itself is an error, and the connection is to be closed.
//!
//! Decoding borrows from the frame and allocates nothing. Encoding appends to the batch in which
//! the item is sent.

mod hello;
mod introduce;
mod item;
mod raft;
#[cfg(test)]
mod tests;

pub use hello::{PeerHello, PeerWelcome};
pub use introduce::{
    CLAIM_BYTES_MAX, Claim, INTRODUCED_BYTES_MAX, decode_introduce, decode_introduced,
    encode_introduce, encode_introduced,
};
pub use item::{
    Items, NodeState, PeerItem, Pulse, Reach, Sleep, SleepWord, SnapshotAck, SnapshotChunk,
    encode_forward_reply, items,
};
pub use raft::{
    CONTEXT_BYTES_MAX, MEMBERSHIP_BYTES_MAX, RaftEntries, RaftEntriesIter, RaftEntry, RaftMessage,
    RaftSnapshot, encode_raft, encoded_raft_bytes, raft_kind,
};

use crate::{FRAME_BYTES_MAX, Kind, WireError, frame};

/// The version of what nodes say to each other: the one that a [`PeerHello`] carries.
pub const PEER_VERSION: u16 = 2;
/// Largest batch, in bytes, header included: room for one item that carries a frame of
/// [`FRAME_BYTES_MAX`], and for a mebibyte more. Nodes take it whatever their own limits on requests are:
/// what a leader has taken its followers must take.
pub const BATCH_BYTES_MAX: u32 = FRAME_BYTES_MAX + (1 << 20);
/// Length of what every item begins with, in bytes: tag and length.
pub const ITEM_HEAD_BYTES: usize = 5;

/// Begins a batch at the end of `out` and returns where: items are appended behind it, then it is
/// [finished](finish_batch).
pub fn begin_batch(out: &mut Vec<u8>) -> usize {
    frame::begin(out, Kind::PeerBatch as u8, 0, 0)
}

/// Ends the batch that [`begin_batch`] began at `start`.
///
/// # Errors
/// [`WireError::OverLimit`] if it is over 4 GiB; `out` is then as it was before.
pub fn finish_batch(out: &mut Vec<u8>, start: usize) -> Result<(), WireError> {
    frame::finish(out, start)
}
