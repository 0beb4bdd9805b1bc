//! Many seeds, on as many threads as asked for.

use std::ops::RangeFrom;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use crate::report::Tally;
use crate::run::{Kind, Outcome, run};

/// The work that a slice of any size worth the name must have done.
pub const WORK: [&str; 12] = [
    "operations",
    "entries acknowledged",
    "unacknowledged entries that survived",
    "gets that waited",
    "rows scanned",
    "snapshot gets",
    "flushes",
    "bytes compacted out of level 0",
    "bytes compacted deeper",
    "tables moved",
    "log segments recycled",
    "clean closings",
];

/// What came of a slice.
#[derive(Debug, Default)]
pub struct Slice {
    /// All counts.
    pub tally: Tally,
    /// The seeds that failed.
    pub failures: Vec<Outcome>,
}

/// Runs `count` seeds from `first` on (all there are, if `None`), on `jobs` threads, and hands each
/// outcome to `each`. Stops early once `failures_max` have failed.
pub fn run_all(
    kind: Kind,
    first: RangeFrom<u64>,
    count: Option<u64>,
    jobs: usize,
    failures_max: usize,
    each: impl FnMut(&Outcome),
) -> Slice {
    let run = |seed| run(kind, seed, None);
    run_seeds(run, first, count, jobs, failures_max, each)
}

/// The same for any simulation that a seed decides.
pub fn run_seeds(
    run: impl Fn(u64) -> Outcome + Sync,
    first: RangeFrom<u64>,
    count: Option<u64>,
    jobs: usize,
    failures_max: usize,
    mut each: impl FnMut(&Outcome),
) -> Slice {
    let run = &run;
    let next = AtomicU64::new(first.start);
    let end = count.map_or(u64::MAX, |count| first.start.saturating_add(count));
    let mut slice = Slice::default();
    std::thread::scope(|scope| {
        let (outcomes, results) = mpsc::sync_channel(jobs.max(1));
        for _ in 0..jobs.max(1) {
            let (outcomes, next) = (outcomes.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    // The receiver goes once enough have failed.
                    if seed >= end || outcomes.send(run(seed)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(outcomes);
        for outcome in results {
            each(&outcome);
            slice.tally.merge(&outcome.tally);
            if outcome.violation.is_some() {
                slice.failures.push(outcome);
                if slice.failures.len() >= failures_max {
                    break;
                }
            }
        }
    });
    slice.failures.sort_by_key(|outcome| outcome.seed);
    slice
}
