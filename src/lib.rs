//! The Ringbolt node: the server, and the command line of the one binary.

pub mod admin;
pub mod capacity;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod messages;
pub mod node;
pub mod planted;
pub mod replica;
pub mod resp;
pub mod runtime;
pub mod shard;
