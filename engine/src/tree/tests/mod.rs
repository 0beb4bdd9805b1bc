//! Tests of the tree as a whole, on the simulated machine.

mod crash;
mod full;
mod model;
mod walk;
