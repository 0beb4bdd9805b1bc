//! Why there is no plan. The remedy is always to ask for something else.

use crate::config::ConfigError;

/// A question without an answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CapacityError {
    /// A number outside its range.
    #[error("{what} is {given}: it must be from {least} to {most}")]
    OutOfRange {
        /// The number.
        what: &'static str,
        /// What was given, as shown.
        given: String,
        /// The least that makes sense.
        least: String,
        /// The most.
        most: String,
    },
    /// Log, reserve and ballast leave no room for tables.
    #[error(
        "a node's disk of {disk} has no room for data: {fixed} go to the log of {cores} cores, the \
         reserve and the ballast; give a larger disk or fewer cores"
    )]
    NoRoom {
        /// The disk, as shown.
        disk: String,
        /// What is taken whatever the data, as shown.
        fixed: String,
        /// Cores of a node.
        cores: u16,
    },
    /// More nodes than a cluster may have.
    #[error(
        "this needs more than {most} nodes, the most that a cluster may have: give larger disks, \
         more cores a node or fewer replicas, or make several clusters"
    )]
    TooManyNodes {
        /// The most.
        most: usize,
    },
    /// Settings that a node would refuse.
    #[error(transparent)]
    Settings(#[from] ConfigError),
}
