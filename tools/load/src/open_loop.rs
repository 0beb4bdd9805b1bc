//! When the requests of an open loop are due. They are due whether or not the server keeps up;
//! latency counts from then, so a stall is seen by every request that should have been sent in it.

use rand::SeedableRng;
use rand::distr::Distribution as _;
use rand::rngs::SmallRng;
use rand_distr::Exp1;

use crate::options::Arrivals;

#[derive(Debug)]
pub(crate) struct Schedule {
    interval_ns: f64,
    arrivals: Arrivals,
    rng: SmallRng,
    due_ns: f64,
}

impl Schedule {
    /// `rate` per second, the first at `start_ns`.
    pub fn new(rate: f64, arrivals: Arrivals, seed: u64, start_ns: u64) -> Self {
        Self {
            interval_ns: 1e9 / rate,
            arrivals,
            rng: SmallRng::seed_from_u64(seed),
            due_ns: start_ns as f64,
        }
    }

    /// When the next request is due.
    pub fn due(&self) -> u64 {
        self.due_ns as u64
    }

    /// Takes it: the one after is next.
    pub fn advance(&mut self) {
        let factor = match self.arrivals {
            Arrivals::Constant => 1.0,
            Arrivals::Poisson => Exp1.sample(&mut self.rng),
        };
        self.due_ns += self.interval_ns * factor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_keep_the_rate() {
        for arrivals in [Arrivals::Constant, Arrivals::Poisson] {
            let mut schedule = Schedule::new(10_000.0, arrivals, 1, 500);
            assert_eq!(schedule.due(), 500);
            for _ in 0..100_000 {
                schedule.advance();
            }
            let seconds = schedule.due() as f64 / 1e9;
            assert!((9.8..10.2).contains(&seconds), "{arrivals:?}: {seconds}");
        }
    }
}
