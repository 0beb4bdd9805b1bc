//! Moving partitions on simulated machines.

mod chunks;
mod crash;
