//! Planted bugs: each must be found by the crash or the model simulation.

use ringbolt_engine::planted::{self, Bug};

use crate::run::{Kind, Outcome, run};

/// What came of the search for one bug.
#[derive(Debug, Clone)]
pub struct Search {
    /// The bug.
    pub bug: Bug,
    /// The run that found it, and by which kind of simulation.
    pub found: Option<(Kind, Outcome)>,
    /// Seeds tried.
    pub seeds: u64,
}

/// Plants one bug and runs seeds until one finds it, at most `seeds_max`.
#[must_use]
pub fn search(bug: Bug, seeds_max: u64) -> Search {
    let mut seeds = 0;
    let found = (1..=seeds_max)
        .flat_map(|seed| [(Kind::Crash, seed), (Kind::Model, seed)])
        .find_map(|(kind, seed)| {
            seeds += 1;
            planted::plant(Some(bug));
            let outcome = run(kind, seed, None);
            planted::plant(None);
            outcome.violation.is_some().then_some((kind, outcome))
        });
    Search { bug, found, seeds }
}
