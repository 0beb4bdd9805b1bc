//! Planted bugs: each must be found by the cluster simulation.

use ringbolt::planted::{self, Bug};

use super::run::{Shape, run};
use crate::run::Outcome;

/// What came of the search for one bug.
#[derive(Debug, Clone)]
pub struct Search {
    /// The run that found it.
    pub found: Option<Outcome>,
    /// Seeds tried.
    pub seeds: u64,
}

/// Plants one bug and runs seeds until one finds it, at most `seeds_max`.
#[must_use]
pub fn search(shape: &Shape, bug: Bug, seeds_max: u64) -> Search {
    let mut seeds = 0;
    let found = (1..=seeds_max).find_map(|seed| {
        seeds += 1;
        planted::plant(Some(bug));
        let outcome = run(shape, seed, None);
        planted::plant(None);
        outcome.violation.is_some().then_some(outcome)
    });
    Search { found, seeds }
}
