//! Ringbolt, and who it is compared with.

pub mod disk;
pub mod engine;
pub mod fjall;
pub mod redis;
pub mod ringbolt;
pub mod rocksdb;
