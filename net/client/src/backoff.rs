//! Pauses between attempts: doubling, with jitter, bounded.

use std::time::Duration;

const FIRST_MS: u64 = 10;
const LONGEST_MS: u64 = 1000;
/// The longest pause, but for the server's own.
pub(crate) const LONGEST: Duration = Duration::from_millis(LONGEST_MS);

/// Attempts one request makes at most, the first included: its deadline usually ends it before.
pub(crate) const ATTEMPTS_MAX: u32 = 16;

/// The pause before attempt number `failures`, which counts from 1: between half and all of
/// 10 ms × 2^(failures − 1), at most 1 s.
pub(crate) fn pause(failures: u32) -> Duration {
    let full = FIRST_MS
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(LONGEST_MS);
    Duration::from_micros(rand::random_range(full * 500..=full * 1000))
}

/// The pause after a round in which every node failed, the `rounds`th: at most 80 ms in the first
/// second, which an election takes, then growing to 1 s.
pub(crate) fn pause_between_rounds(rounds: u32) -> Duration {
    const QUICK: u32 = 16;
    pause(if rounds <= QUICK {
        rounds.min(4)
    } else {
        rounds - QUICK + 4
    })
}

/// The server's own pause, made up to a quarter longer so that clients do not come back together;
/// never shorter than the client's own.
pub(crate) fn pause_at_least(told: Duration, failures: u32) -> Duration {
    let told = u64::try_from(told.as_micros()).unwrap_or(u64::MAX / 2);
    Duration::from_micros(rand::random_range(told..=told + told / 4)).max(pause(failures))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end() {
        for (failures, longest_ms) in [(0, 10), (1, 10), (2, 20), (5, 160), (8, 1000), (99, 1000)] {
            let longest = Duration::from_millis(longest_ms);
            for _ in 0..100 {
                let pause = pause(failures);
                assert!(
                    pause <= longest && pause >= longest / 2,
                    "{failures}: {pause:?}"
                );
            }
        }
    }

    #[test]
    fn rounds_are_quick_for_a_second() {
        let quick: Duration = (1..=16).map(pause_between_rounds).sum();
        let expected = Duration::from_millis(500)..Duration::from_millis(1200);
        assert!(expected.contains(&quick), "{quick:?}");
        assert!(pause_between_rounds(17) < Duration::from_millis(161));
        assert!(pause_between_rounds(99) >= LONGEST / 2);
    }

    #[test]
    fn the_server_is_obeyed() {
        for _ in 0..100 {
            let pause = pause_at_least(Duration::from_millis(400), 1);
            assert!(pause >= Duration::from_millis(400) && pause <= Duration::from_millis(500));
        }
        assert!(pause_at_least(Duration::ZERO, 1) >= Duration::from_millis(5));
    }
}
