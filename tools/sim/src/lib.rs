//! Simulation of the Ringbolt engine on a machine whose disk fails and whose plug is pulled.
//!
//! A *seed* decides everything: the operations, their interleaving, how long the disk takes, what
//! fails, and where the process dies. A seed's run is a sequence of *lives* of one engine on one
//! simulated disk. Each life recovers, compares all it holds with a `BTreeMap` model, and goes on
//! reading and writing. What must hold, always:
//!
//! * an entry that was acknowledged is there after any crash, and takes effect whole;
//! * what was not acknowledged is there whole, in order, or not at all;
//! * the engine opens after any crash;
//! * a fault of the disk ends in right data or a typed error: never in wrong data, a panic or a hang.
//!
//! `ringbolt-sim --help` shows how to run it; a failing seed is replayed by its number.

#[cfg(feature = "planted-bugs")]
pub mod bugs;
pub mod check;
pub mod cluster;
pub mod faults;
pub mod life;
pub mod model;
pub mod report;
pub mod run;
pub mod shared;
pub mod signal;
pub mod slice;
pub mod swap;
pub mod workload;
