//! The Ringbolt node: the server, and the command line of the one binary.

pub mod config;
