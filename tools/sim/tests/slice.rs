//! A slice of the simulation small enough for every run of the tests.

use ringbolt_sim::run::{Kind, run};
use ringbolt_sim::slice::{WORK, run_all};

fn jobs() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn assert_clean(kind: Kind, first: u64, seeds: u64) -> ringbolt_sim::report::Tally {
    let slice = run_all(kind, first.., Some(seeds), jobs(), 3, |_| {});
    let failures: Vec<String> = slice
        .failures
        .iter()
        .map(|outcome| format!("{kind:?} seed {}: {:?}", outcome.seed, outcome.violation))
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    slice.tally
}

#[test]
fn nothing_acknowledged_is_lost_in_five_hundred_seeds_of_crashes() {
    let tally = assert_clean(Kind::Crash, 1, 500);
    let never = tally.never(&WORK);
    assert!(never.is_empty(), "never tested: {}", never.join(", "));
}

#[test]
fn the_engine_agrees_with_the_model() {
    assert_clean(Kind::Model, 1, 20);
}

#[test]
fn a_seed_replays_exactly() {
    let (once, again) = (run(Kind::Crash, 7, None), run(Kind::Crash, 7, None));
    assert_eq!(once.violation, None);
    assert_eq!(
        (once.trace_hash, once.steps),
        (again.trace_hash, again.steps)
    );
}

/// Seeds that found bugs which are fixed now: writers never woken after a segment was freed or the
/// tree had failed; files removed on the word of a manifest that only the cache held; a checkpoint of
/// a partition without records; a memtable that filled all their memory at once and was never closed.
#[test]
fn seeds_that_found_bugs_stay_clean() {
    for seed in [202, 241, 254, 284, 532, 706, 801, 1876] {
        let outcome = run(Kind::Crash, seed, None);
        assert_eq!(outcome.violation, None, "seed {seed}");
    }
}
