//! The Ringbolt frame codec: messages, frames, slots. No I/O.

pub mod message;
