//! Tests of the whole node: real processes, real files, real sockets.

// All of this binary is tests; clippy's own exception does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod cli;
mod house;
mod monitoring;
mod node;
mod support;
