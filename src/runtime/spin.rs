//! Whether a core that has nothing to do looks for work before it sleeps.
//!
//! Looking saves a lone client the time of a wake, but costs CPU whenever nothing comes in time. So
//! the core keeps a score: up where looking was rewarded, down by more where it was not. At zero it
//! sleeps at once, and only looks again now and then to see whether things have changed. While the
//! disk works for the core it does not look at all: no disk answers that soon.

/// Up to how many rewards count.
const SCORE_MAX: u32 = 16;
/// What looking in vain takes away.
const MISS: u32 = 2;
/// With a score of zero, one idle time in so many is looked through.
const TRY_EVERY: u32 = 16;

/// The score of one core.
#[derive(Debug, Default)]
pub(super) struct Spin {
    score: u32,
    /// Idle times slept through since the last try.
    slept: u32,
}

impl Spin {
    /// Whether to look for work in the idle time that begins now.
    pub(super) fn begin(&mut self) -> bool {
        if self.score > 0 {
            return true;
        }
        self.slept += 1;
        if self.slept < TRY_EVERY {
            return false;
        }
        self.slept = 0;
        true
    }

    /// Work came while it was looked for.
    pub(super) fn hit(&mut self) {
        self.score = (self.score + 1).min(SCORE_MAX);
    }

    /// It did not.
    pub(super) fn miss(&mut self) {
        self.score = self.score.saturating_sub(MISS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of 1,000 idle times are looked through if work comes in time in `hits` of `of`.
    fn looks(hits: u32, of: u32) -> usize {
        let mut spin = Spin::default();
        (0..1000)
            .filter(|turn| {
                let looks = spin.begin();
                if looks && turn % of < hits {
                    spin.hit();
                } else if looks {
                    spin.miss();
                }
                looks
            })
            .count()
    }

    #[test]
    fn a_core_looks_for_work_as_long_as_it_finds_some() {
        assert_eq!(looks(0, 1), 1000 / TRY_EVERY as usize);
        assert!(looks(1, 1) >= 1000 - TRY_EVERY as usize);
        assert!(looks(9, 10) > 900, "{}", looks(9, 10));
        assert!(looks(1, 2) < 200, "{}", looks(1, 2));
    }
}
