//! How hard clients may push: the write throttle.
//!
//! Three things can fall behind: level 0 (too many runs or bytes for reads to stay cheap and space
//! to be small), the level below it (over its target, so that emptying level 0 gets dearer), and
//! memory (memtables waiting to be flushed). Each is put on a scale where 0 is in order and 1 is the
//! most that is tolerated; the highest counts. What memtables hold counts as level 0's already, so
//! that a flush is no step. Background work speeds up first; only then are writes slowed, by a delay
//! for each KiB that grows exponentially from 2.5 µs (400 MB/s) to 1 ms (1 MB/s): wherever the rate
//! settles at which compaction keeps up, the delay finds it without a step.

use std::time::Duration;

use crate::compaction::picker::{self, Shape};

use super::version::Version;

/// How much a writer must hold back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pressure {
    /// Time to wait for each KiB written; zero while everything keeps up.
    pub delay_per_kib: Duration,
    /// Write nothing now: memory for memtables is used up, or background work has failed.
    pub stop: bool,
}

/// Delay at the least pressure, for each KiB.
const DELAY_MIN_NS: f64 = 2_500.0;
/// The delay at the most over that at the least.
const DELAY_RANGE: f64 = 400.0;

/// What is behind, each from 0 (in order) to 1 and above (too much).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Debt {
    /// What background work is told: rises as soon as something is due.
    pub background: f64,
    /// What writers are told of the levels below level 0.
    writers: f64,
    /// Level 0 in multiples of where its compaction begins.
    l0: f64,
    /// Where that is, in bytes.
    l0_bytes: u64,
}

/// Level 0 in multiples of where its compaction begins: where background work starts to speed up
/// and is at full speed, and where writers start to slow down and are at their slowest; for these
/// with the memtables.
const L0_BACKGROUND: (f64, f64) = (0.9, 1.25);
const L0_WRITERS: (f64, f64) = (1.3, 2.5);
/// The same for the base level, in multiples of its target.
const BASE_BACKGROUND: (f64, f64) = (0.8, 1.3);
const BASE_WRITERS: (f64, f64) = (1.4, 3.0);
/// The same for memtables, as parts of their budget.
const MEMORY_WRITERS: (f64, f64) = (0.75, 1.0);

fn scale(value: f64, (from, to): (f64, f64)) -> f64 {
    ((value - from) / (to - from)).clamp(0.0, 1.0)
}

/// The debt of a version's levels.
pub(crate) fn of_levels<T>(version: &Version<T>, shape: &Shape) -> Debt {
    let targets = picker::targets(version, shape);
    let l0 = picker::l0_score(version, shape);
    let levels = (1..crate::manifest::LEVELS)
        .map(|level| picker::level_score(version, &targets, level))
        .fold(0.0, f64::max);
    Debt {
        background: scale(l0, L0_BACKGROUND).max(scale(levels, BASE_BACKGROUND)),
        writers: scale(levels, BASE_WRITERS),
        l0,
        l0_bytes: picker::l0_target(version, shape),
    }
}

/// The pressure of the levels' debt and of `memory_bytes` of memtables in `budget_bytes`.
pub(crate) fn of(levels: &Debt, memory_bytes: u64, budget_bytes: u64) -> Pressure {
    let used = memory_bytes as f64 / budget_bytes.max(1) as f64;
    let l0 = levels.l0 + memory_bytes as f64 / levels.l0_bytes.max(1) as f64;
    let debt = scale(l0, L0_WRITERS)
        .max(levels.writers)
        .max(scale(used, MEMORY_WRITERS));
    let delay_ns = match debt > 0.0 {
        true => DELAY_MIN_NS * DELAY_RANGE.powf(debt),
        false => 0.0,
    };
    Pressure {
        delay_per_kib: Duration::from_nanos(delay_ns as u64),
        stop: used >= 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_grows_without_a_step_and_stops_only_at_the_end() {
        let debt = Debt {
            l0_bytes: 100_000,
            ..Debt::default()
        };
        let idle = of(&debt, 0, 1000);
        assert_eq!(idle, Pressure::default());
        let mut last = Duration::ZERO;
        for used in 750..1000 {
            let pressure = of(&debt, used, 1000);
            assert!(pressure.delay_per_kib >= last && !pressure.stop);
            let step = pressure.delay_per_kib - last;
            assert!(step < Duration::from_nanos(2_600).max(last / 20), "{used}");
            last = pressure.delay_per_kib;
        }
        assert!(of(&debt, 1000, 1000).stop);
    }

    #[test]
    fn a_flush_is_no_step() {
        let before = Debt {
            l0: 1.5,
            l0_bytes: 1000,
            ..Debt::default()
        };
        let after = Debt { l0: 1.7, ..before };
        let before = of(&before, 300, 10_000);
        let after = of(&after, 100, 10_000);
        assert!(before.delay_per_kib > Duration::ZERO);
        assert_eq!(
            before.delay_per_kib.as_micros(),
            after.delay_per_kib.as_micros()
        );
    }
}
