//! Tests of the tree as a whole, on the simulated machine.

mod model;
mod walk;
