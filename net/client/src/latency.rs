//! How long answers take, and when to ask a second replica.
//!
//! The 95th percentile is followed by steps: up by 9.5 % for an answer that took longer, down by
//! 0.5 % for one that did not. It stands still where one answer in twenty takes longer, needs one
//! number, and doubles within eight slow answers. A second question may be asked for every fiftieth
//! read ([`HEDGE_EVERY`]): reads that are not hedged earn it, at most [`HEDGES_SAVED_MAX`] are
//! saved up, so that a bad minute cannot double the load.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Reads that earn one hedge: a budget of 2 %.
const HEDGE_EVERY: u64 = 50;
/// Hedges that can be saved up.
const HEDGES_SAVED_MAX: u64 = 8;
/// No second question before this: the clock of timers is no finer.
const HEDGE_AFTER_MIN: Duration = Duration::from_millis(1);
/// What one answer weighs in a node's mean latency: an eighth.
const MEAN_SHIFT: u32 = 3;

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1)
}

/// The mean latency of one node, newer answers weighing more. Lost updates of concurrent answers do
/// not matter.
#[derive(Debug, Default)]
pub(crate) struct Mean(AtomicU64);

impl Mean {
    pub(crate) fn record(&self, took: Duration) {
        let (old, new) = (self.micros(), micros(took));
        let mean = match old {
            0 => new,
            old => old - (old >> MEAN_SHIFT) + (new >> MEAN_SHIFT),
        };
        self.0.store(mean.max(1), Ordering::Relaxed);
    }

    /// In microseconds; 0 if there was no answer yet.
    pub(crate) fn micros(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// When a read may be asked of a second replica.
#[derive(Debug, Default)]
pub(crate) struct Hedges {
    /// The 95th percentile, in microseconds; 0 if it is not known yet.
    p95_micros: AtomicU64,
    /// In fiftieths of a hedge.
    saved: AtomicU64,
}

impl Hedges {
    /// A read was answered.
    pub(crate) fn record(&self, took: Duration) {
        let (old, new) = (self.p95_micros.load(Ordering::Relaxed), micros(took));
        let p95 = match old {
            // The first answers include connecting; the percentile comes down soon enough.
            0 => new.saturating_mul(2),
            old if new > old => old.saturating_add((old.saturating_mul(19) / 200).max(1)),
            old => (old - old / 200).max(1),
        };
        self.p95_micros.store(p95, Ordering::Relaxed);
    }

    /// A read that may be hedged begins: when to ask a second replica.
    pub(crate) fn begin(&self) -> Option<Duration> {
        let full = HEDGE_EVERY * HEDGES_SAVED_MAX;
        let _ = self
            .saved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| {
                (saved < full).then_some(saved + 1)
            });
        match self.p95_micros.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(micros).max(HEDGE_AFTER_MIN)),
        }
    }

    /// Whether the budget allows one more second question; it is then spent.
    pub(crate) fn spend(&self) -> bool {
        self.saved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| {
                saved.checked_sub(HEDGE_EVERY)
            })
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentile_settles_where_one_in_twenty_is_slower() {
        let hedges = Hedges::default();
        assert_eq!(hedges.begin(), None);
        for n in 0..100_000u64 {
            // Evenly spread over 1..=1000 ms, in an order that is no order.
            hedges.record(Duration::from_millis(1 + n * 7919 % 1000));
        }
        let after = hedges.begin().unwrap();
        let expected = Duration::from_millis(900)..Duration::from_millis(1050);
        assert!(expected.contains(&after), "{after:?}");
    }

    #[test]
    fn one_read_in_fifty_may_be_hedged() {
        let hedges = Hedges::default();
        let mut spent = 0;
        for _ in 0..10_000 {
            hedges.begin();
            spent += usize::from(hedges.spend());
        }
        assert_eq!(spent, 200);
        // What is saved up is bounded.
        for _ in 0..10_000 {
            hedges.begin();
        }
        assert_eq!((0..100).filter(|_| hedges.spend()).count(), 8);
    }

    #[test]
    fn the_mean_follows() {
        let mean = Mean::default();
        assert_eq!(mean.micros(), 0);
        mean.record(Duration::from_millis(10));
        assert_eq!(mean.micros(), 10_000);
        for _ in 0..100 {
            mean.record(Duration::from_millis(1));
        }
        assert!((900..1200).contains(&mean.micros()), "{}", mean.micros());
    }
}
