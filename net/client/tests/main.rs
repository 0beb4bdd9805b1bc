//! The client against a server made for the purpose, in the same process.
#![allow(clippy::unwrap_used)]

#[path = "suite/fake.rs"]
mod fake;
#[path = "suite/memory.rs"]
mod memory;

#[path = "suite/blocking.rs"]
mod blocking;
#[path = "suite/failures.rs"]
mod failures;
#[path = "suite/handshake.rs"]
mod handshake;
#[path = "suite/operations.rs"]
mod operations;
#[path = "suite/pipelining.rs"]
mod pipelining;
#[path = "suite/sessions.rs"]
mod sessions;
