//! One shard's storage: a write-ahead log and an LSM tree, over an abstract disk.
//!
//! A shard belongs to one core. Nothing here is shared between cores, nothing takes a lock, and
//! everything reaches the outside (tasks, time, randomness, the disk) through [`env::Env`], so that
//! the whole engine runs on a simulated machine in tests.
//!
//! The path of a write: [`entry`] (what it does) → `log` (made durable) → memtable (readable) →
//! table (flushed, the log's segment is recycled).

pub mod cache;
pub mod compaction;
pub mod compress;
pub mod engine;
pub mod entry;
pub mod env;
pub mod error;
pub mod log;
pub mod manifest;
pub mod memtable;
pub mod planted;
pub mod range_deletes;
pub mod row;
pub mod snapshot;
pub mod table;
pub mod terms;
pub mod tree;
pub mod writers;
