//! How far the other nodes' clocks are from this node's.
//!
//! Every node tells every other what its clock says, once a second. What is told is a moment old when it is
//! taken, by as much as the network and the two nodes took; so a clock seems further behind than it is, and
//! never further ahead. Of the last few that were told the one that seems furthest ahead is the nearest to
//! the truth, and it is that which counts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use super::bootstrap::CLOCK_SKEW_MAX;
use super::{NodeId, locked};

/// How many of a node's last words count.
const KEPT: usize = 8;
/// How long they count after the last one.
const LAST_FOR: Duration = Duration::from_secs(15);
/// How often a clock that stays far off is told of.
const TELL_EVERY: Duration = Duration::from_secs(300);

/// The clocks of the other nodes, by what they have told.
#[derive(Debug, Default)]
pub struct Clocks(Mutex<BTreeMap<NodeId, Clock>>);

#[derive(Debug, Default)]
struct Clock {
    /// How far ahead of this node's it seemed, in milliseconds.
    ahead_ms: VecDeque<i64>,
    /// When it was told last, and when it is to be said again that it is far off.
    last: Duration,
    tell_at: Option<Duration>,
}

impl Clock {
    fn ahead_ms(&self, now: Duration) -> Option<i64> {
        let lasts = now.saturating_sub(self.last) < LAST_FOR;
        // Of a few words that have waited for this node, each may be late.
        let is_sure =
            |ahead_ms: i64| !is_apart(ahead_ms) || ahead_ms > 0 || self.ahead_ms.len() == KEPT;
        let ahead_ms = self.ahead_ms.iter().copied().max();
        ahead_ms.filter(|&ahead_ms| lasts && is_sure(ahead_ms))
    }
}

/// Whether a clock is too far from this node's.
#[must_use]
pub fn is_apart(ahead_ms: i64) -> bool {
    Duration::from_millis(ahead_ms.unsigned_abs()) > CLOCK_SKEW_MAX
}

impl Clocks {
    /// A node has told its clock, at this moment and when this node's clock said `own_ms`.
    pub fn told(&self, node: NodeId, their_ms: u64, own_ms: u64, now: Duration) {
        let mut clocks = locked(&self.0);
        let clock = clocks.entry(node).or_default();
        if now.saturating_sub(clock.last) >= LAST_FOR {
            clock.ahead_ms.clear();
        }
        clock.last = now;
        clock.ahead_ms.truncate(KEPT - 1);
        clock
            .ahead_ms
            .push_front(their_ms.wrapping_sub(own_ms).cast_signed());
    }

    /// How far each clock that is known now is ahead of this node's, in milliseconds.
    #[must_use]
    pub fn ahead_ms(&self, now: Duration) -> Vec<(NodeId, i64)> {
        let clocks = locked(&self.0);
        let ahead = clocks
            .iter()
            .map(|(node, clock)| (*node, clock.ahead_ms(now)));
        ahead
            .filter_map(|(node, ahead)| Some((node, ahead?)))
            .collect()
    }

    /// What is to be said now: clocks that are far off, and those that are not any more.
    pub fn news(&self, now: Duration) -> Vec<(NodeId, i64)> {
        let mut news = Vec::new();
        for (node, clock) in locked(&self.0).iter_mut() {
            let Some(ahead_ms) = clock.ahead_ms(now) else {
                continue;
            };
            let is_due = match clock.tell_at {
                Some(at) => now >= at || !is_apart(ahead_ms),
                None => is_apart(ahead_ms),
            };
            if is_due {
                clock.tell_at = is_apart(ahead_ms).then_some(now + TELL_EVERY);
                news.push((*node, ahead_ms));
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_clock_that_is_far_off_is_told_of_and_so_is_its_return() {
        let clocks = Clocks::default();
        let mut now = 100 * SECOND;
        let mut tell = |ahead_ms: i64| {
            now += SECOND;
            let their_ms = 9_000_000_u64.checked_add_signed(ahead_ms).unwrap();
            clocks.told(2, their_ms, 9_000_000, now);
            (clocks.news(now), clocks.ahead_ms(now))
        };
        assert_eq!(
            tell(10_000),
            (vec![], vec![(2, 10_000)]),
            "as far as it may be"
        );
        let hour = 3_600_000;
        assert_eq!(tell(hour).0, [(2, hour)]);
        assert!(tell(hour).0.is_empty(), "said already");
        for _ in 0..KEPT - 1 {
            assert!(tell(0).0.is_empty(), "it might be late");
        }
        assert_eq!(tell(-5), (vec![(2, 0)], vec![(2, 0)]));
        for _ in 0..TELL_EVERY.as_secs() {
            tell(-hour);
        }
        assert!(tell(-hour).0.is_empty());
        let again = (0..=KEPT).flat_map(|_| tell(-hour).0).count();
        assert_eq!(again, 1, "said again");
        let later = now + LAST_FOR;
        assert!(clocks.ahead_ms(later).is_empty() && clocks.news(later).is_empty());
    }

    #[test]
    fn what_comes_late_makes_no_clock_seem_behind() {
        let clocks = Clocks::default();
        let mut now = 100 * SECOND;
        for second in 0..20 {
            now += SECOND;
            // Each second one is told, and all of them come late but now and then one.
            let late_ms = if second % KEPT as u64 == 0 {
                40
            } else {
                12_000
            };
            clocks.told(2, 1_000_000 - late_ms, 1_000_000, now);
            assert!(clocks.news(now).is_empty());
        }
        assert_eq!(clocks.ahead_ms(now), [(2, -40)]);
    }
}
