//! The client against a server made for the purpose, in the same process.
#![allow(clippy::unwrap_used)]

#[path = "suite/fake.rs"]
mod fake;
#[path = "suite/fakes.rs"]
mod fakes;
#[path = "suite/memory.rs"]
mod memory;

#[path = "suite/blocking.rs"]
mod blocking;
#[path = "suite/cluster.rs"]
mod cluster;
#[path = "suite/failures.rs"]
mod failures;
#[path = "suite/handshake.rs"]
mod handshake;
#[path = "suite/hedging.rs"]
mod hedging;
#[path = "suite/operations.rs"]
mod operations;
#[path = "suite/pipelining.rs"]
mod pipelining;
#[path = "suite/retries.rs"]
mod retries;
#[path = "suite/sessions.rs"]
mod sessions;
#[path = "suite/silence.rs"]
mod silence;
#[path = "suite/told.rs"]
mod told;
