//! A slice of the cluster simulation small enough for every run of the tests. More of it:
//! `ringbolt-sim cluster --seeds 5000`.

use ringbolt_sim::cluster::run::{Shape, run, run_twice};
use ringbolt_sim::slice::run_seeds;

fn shape(seconds: u64) -> Shape {
    Shape {
        seconds,
        ..Shape::default()
    }
}

#[test]
fn clusters_keep_their_promises_in_a_few_seeds() {
    assert_clean(&shape(15), 300);
}

#[test]
fn clusters_of_five_keep_their_promises_in_a_few_seeds() {
    let five = Shape {
        nodes: 5,
        ..shape(15)
    };
    assert_clean(&five, 20);
}

#[test]
fn a_node_alone_keeps_its_promises_in_a_few_seeds() {
    let alone = Shape {
        nodes: 1,
        ..shape(15)
    };
    assert_clean(&alone, 8);
}

fn assert_clean(shape: &Shape, seeds: u64) {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let run = |seed| run(shape, seed, None);
    let slice = run_seeds(run, 1.., Some(seeds), jobs, 3, |_| {});
    let failures: Vec<String> = slice
        .failures
        .iter()
        .map(|outcome| format!("seed {}: {:?}", outcome.seed, outcome.violation))
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    for done in [
        "writes acknowledged",
        "reads answered",
        "power cuts",
        "processes killed",
    ] {
        assert!(slice.tally.of(done) > 0, "no {done}");
    }
}

/// Seeds that found bugs which are fixed now: a leader that was restarted gave a new member entries instead
/// of a snapshot; a node whose tables were damaged waited for a word of one that had nothing to say.
#[test]
fn seeds_that_found_bugs_stay_clean() {
    for seed in [2280, 2422, 3631] {
        let outcome = run(&shape(15), seed, None);
        assert_eq!(outcome.violation, None, "seed {seed}");
    }
}

/// A hundred: `ringbolt-sim cluster --twice`.
#[test]
fn seeds_replay_exactly() {
    let shape = shape(5);
    let outcomes: Vec<_> = (1..=8).map(|seed| run_twice(&shape, seed)).collect();
    for outcome in &outcomes {
        assert_eq!(outcome.violation, None, "seed {}", outcome.seed);
    }
    assert_ne!(outcomes[0].trace_hash, outcomes[1].trace_hash);
}
