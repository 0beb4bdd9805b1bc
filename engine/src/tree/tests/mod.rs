//! Tests of the tree as a whole, on the simulated machine.

mod crash;
mod full;
pub(crate) mod model;
mod pressure;
mod results;
pub(crate) mod walk;
