//! Tests of the whole node: real processes, real files, real sockets.

mod cli;
mod house;
mod node;
mod support;
