//! The clocks of one node, which are right about nothing.
//!
//! The monotonic clock (`CLOCK_BOOTTIME`) starts anywhere, runs a little fast or slow, and goes on
//! while the node stands still. The wall clock is off by seconds, drifts with it, and jumps.

/// Nanoseconds of the true time of the simulation.
pub type Nanos = u64;

/// A second.
pub const SECOND: Nanos = 1_000_000_000;
/// A millisecond.
pub const MILLI: Nanos = 1_000_000;
/// A microsecond.
pub const MICRO: Nanos = 1_000;

/// The clocks of one node.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// The true time at which the monotonic clock showed `shown`.
    began: Nanos,
    shown: Nanos,
    /// How much too fast it runs, in millionths.
    drift_ppm: i64,
    /// What the wall clock shows beyond the true time, in milliseconds.
    skew_ms: i64,
}

impl Clock {
    /// A clock of a machine that starts at `now`.
    #[must_use]
    pub fn new(now: Nanos, shown: Nanos, drift_ppm: i64, skew_ms: i64) -> Self {
        Self {
            began: now,
            shown,
            drift_ppm,
            skew_ms,
        }
    }

    /// What the monotonic clock shows at a true time.
    #[must_use]
    pub fn local(&self, now: Nanos) -> Nanos {
        let passed = i128::from(now.saturating_sub(self.began));
        let drift = passed * i128::from(self.drift_ppm) / 1_000_000;
        self.shown + (passed + drift) as u64
    }

    /// The first true time at which the monotonic clock shows `local` or more.
    #[must_use]
    pub fn global(&self, local: Nanos) -> Nanos {
        let passed = i128::from(local.saturating_sub(self.shown));
        let rate = 1_000_000 + i128::from(self.drift_ppm);
        let mut global = self.began + (passed * 1_000_000 / rate) as u64;
        while self.local(global) < local {
            global += 1;
        }
        global
    }

    /// The machine starts again: its monotonic clock begins anew, the wall clock goes on.
    pub fn restart(&mut self, now: Nanos, shown: Nanos) {
        self.began = now;
        self.shown = shown;
    }

    /// Moves the wall clock.
    pub fn jump(&mut self, by_ms: i64) {
        self.skew_ms += by_ms;
    }

    /// Sets the wall clock, as NTP does: it is right but for what it is off by `skew_ms`.
    pub fn set_right(&mut self, skew_ms: i64) {
        self.skew_ms = skew_ms;
    }

    /// What the wall clock shows less what the monotonic clock shows, in milliseconds.
    #[must_use]
    pub fn wall_offset_ms(&self, now: Nanos) -> i64 {
        let wall = (now / MILLI) as i64 + self.skew_ms;
        wall - (self.local(now) / MILLI) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_and_global_agree() {
        for drift in [-200, 0, 37, 200] {
            let clock = Clock::new(5 * SECOND, 77, drift, 0);
            for now in [5 * SECOND, 5 * SECOND + 1, 9 * SECOND + 123_457] {
                let local = clock.local(now);
                assert!(clock.global(local) <= now);
                assert!(clock.local(clock.global(local)) >= local);
            }
            assert!(clock.local(clock.global(78)) >= 78);
        }
    }

    #[test]
    fn the_wall_clock_is_off_by_its_skew() {
        let mut clock = Clock::new(0, 3 * SECOND, 0, -250);
        clock.jump(1000);
        let now = 10 * SECOND;
        let wall = (clock.local(now) / MILLI) as i64 + clock.wall_offset_ms(now);
        assert_eq!(wall, 10_750);
    }
}
