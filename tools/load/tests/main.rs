//! The generator against small servers of our own, honest and lying.
#![allow(clippy::unwrap_used)]

mod fake;
mod resilience;
mod verify;
mod workloads;
