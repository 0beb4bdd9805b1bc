//! Ringbolt, and who it is compared with.

pub mod cluster;
pub mod disk;
pub mod engine;
pub mod etcd;
pub mod etcd_load;
pub mod fjall;
pub mod redis;
pub mod ringbolt;
pub mod rocksdb;
