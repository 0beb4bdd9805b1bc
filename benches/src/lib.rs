//! Micro-benchmarks (`benches/`), and comparisons with peers.
//!
//! - [`compare`]: runs Ringbolt beside Redis, RocksDB, fjall and what the disk itself can do, turn
//!   by turn on the same cores, and holds the results against the gates.
//! - [`engine`]: drives the storage engine without a network, in a process of its own.
//! - [`fjall`](mod@fjall): the same for fjall.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod compare;
pub mod engine;
pub mod fjall;
