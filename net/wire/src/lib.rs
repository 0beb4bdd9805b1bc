//! The Ringbolt frame codec: messages, frames, slots. No I/O.
//!
//! - [`message`]: what clients and servers say to each other.
//! - [`frame`]: the 24-byte header, its checks and its checksum.
//! - [`codec`]: messages to frames and back, and encoders that write a reply straight into the
//!   buffer it is sent from.
//! - [`list`]: lists of keys, writes and tokens that stay in wire form.
//! - [`peer`]: what nodes say to each other.
//! - [`slot`](mod@slot): which slot, and so which partition, a key belongs to.
//!
//! `docs/protocol.md` describes every byte; a test replays its examples.
//!
//! Decoding a request allocates nothing. Decoding a response allocates at most seven times the
//! frame's length: no count is believed before the bytes it announces are there.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod codec;
mod error;
pub mod frame;
mod kind;
pub mod list;
pub mod message;
pub mod peer;
mod read;
pub mod slot;
mod status;
mod topology;

pub use error::WireError;
pub use kind::Kind;
pub use slot::{partition_of, slot};

/// The protocol version that this crate speaks.
pub const VERSION: u8 = 1;
/// What a `Hello` begins with, so that a server can tell a client of another protocol.
pub const MAGIC: [u8; 4] = *b"RGBT";
/// Largest frame a server reads before the handshake is done, header included, in bytes.
pub const HELLO_FRAME_BYTES_MAX: u32 = 256;
/// Largest key, in bytes. A server's own limit may be lower, never higher.
pub const KEY_BYTES_MAX: u32 = 64 << 10;
/// Largest value, in bytes. A server's own limit may be lower, never higher.
pub const VALUE_BYTES_MAX: u32 = 16 << 20;
/// Largest frame, in bytes, header included: room for one value of [`VALUE_BYTES_MAX`], its key,
/// and 64 KiB for the rest. A server's own limit may be lower, never higher.
pub const FRAME_BYTES_MAX: u32 = VALUE_BYTES_MAX + KEY_BYTES_MAX + (64 << 10);
/// Largest oversized frame that a server reads past, in bytes, so that the connection can go on
/// after `TooLarge`. A longer length is taken for garbage.
pub const SKIP_BYTES_MAX: u32 = 64 << 20;
/// Most partitions a cluster can have: the number of slots.
pub const PARTITIONS_MAX: u16 = slot::SLOTS;
