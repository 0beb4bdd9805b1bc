//! One shard's storage: a write-ahead log and an LSM tree over an abstract disk.

pub mod entry;
pub mod env;
