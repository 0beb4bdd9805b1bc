//! Simulation of whole clusters in one deterministic process.
//!
//! The nodes run the very code of the server: engine, shards, sessions and replicas, over a
//! simulated disk, network and clock each. Clients speak the wire protocol to them. Machines lose
//! power, processes die or stand still, connections break, directions of the network carry nothing,
//! clocks jump; then all faults end, and what the clients saw is judged ([`check`]).
//!
//! A *seed* decides everything, so it replays to the same [hash](crate::run::Outcome::trace_hash).

#[cfg(feature = "planted-bugs")]
pub mod bugs;
pub mod check;
pub mod client;
pub mod clock;
pub mod faults;
pub mod folder;
pub mod history;
pub mod meeting;
pub mod net;
pub mod node;
pub mod run;
pub mod workload;
pub mod world;
