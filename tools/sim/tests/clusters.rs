//! A slice of the cluster simulation small enough for every run of the tests. More of it:
//! `ringbolt-sim cluster --seeds 5000`.

use ringbolt_sim::cluster::run::{Shape, run};
use ringbolt_sim::slice::run_seeds;

fn shape(seconds: u64) -> Shape {
    Shape {
        seconds,
        ..Shape::default()
    }
}

#[test]
fn clusters_keep_their_promises_in_a_few_seeds() {
    // Seed 209 is open: a partition does not serve again after all faults have ended.
    assert_clean(&shape(15), 200);
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

#[test]
fn a_seed_replays_exactly() {
    let (once, again) = (run(&shape(5), 3, None), run(&shape(5), 3, None));
    assert_eq!(once.violation, None);
    assert_eq!(
        (once.trace_hash, once.steps),
        (again.trace_hash, again.steps)
    );
    assert_ne!(once.trace_hash, run(&shape(5), 4, None).trace_hash);
}
