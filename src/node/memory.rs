//! Keeping the process within its setting for memory.
//!
//! A core's budgets count what it asks the allocator for. Resident memory has more: what requests hold,
//! parts of the allocator's pages that nothing fits into, pages not given back yet; how much depends on
//! the load. So each core looks at the process four times a second. Above fifteen sixteenths of the
//! setting it takes its share of the excess from what its tree uses (the cache gives way at once,
//! memtables with the next flush), then waits a second, since memory is given back late. Below seven
//! eighths the tree gets back what was taken, in small steps. Changes are made by a MiB at a time:
//! dropping many blocks at once would hold up the core.

use std::time::Duration;

/// How often to call [`Governor::step`].
pub(super) const STEP_EVERY: Duration = Duration::from_millis(20);
/// Steps from one look at the process to the next.
const STEPS_A_LOOK: u32 = 12;
/// Looks that are passed over after a cut.
const LOOKS_TO_WAIT: u32 = 4;
/// The most that one step changes, in bytes.
const STEP_BYTES: u64 = 1 << 20;

/// What one core's tree may have.
#[derive(Debug)]
pub(super) struct Governor {
    /// The setting, for the whole process, in bytes.
    limit: u64,
    cores: u64,
    /// The budget that was planned: never more than that.
    planned: u64,
    /// Never less than that.
    floor: u64,
    /// The budget in force.
    budget: u64,
    /// Where it is going.
    target: u64,
    steps: u32,
    wait: u32,
}

impl Governor {
    pub(super) fn new(limit: u64, cores: u16, planned: u64) -> Self {
        Self {
            limit,
            cores: u64::from(cores).max(1),
            planned,
            floor: planned / 4,
            budget: planned,
            target: planned,
            steps: 0,
            wait: 0,
        }
    }

    /// One step. `resident` tells the process's resident memory and `used` what the tree may hold
    /// at this moment, both in bytes. Brings the tree's new budget if it is to change.
    pub(super) fn step(
        &mut self,
        resident: impl FnOnce() -> Option<u64>,
        used: impl FnOnce() -> u64,
    ) -> Option<u64> {
        let before = self.budget;
        self.steps += 1;
        if self.steps >= STEPS_A_LOOK {
            self.steps = 0;
            self.look(resident, used);
        }
        self.budget = self.target.clamp(
            self.budget.saturating_sub(STEP_BYTES),
            self.budget + STEP_BYTES,
        );
        (self.budget != before).then_some(self.budget)
    }

    fn look(&mut self, resident: impl FnOnce() -> Option<u64>, used: impl FnOnce() -> u64) {
        self.wait = self.wait.saturating_sub(1);
        if self.wait > 0 {
            return;
        }
        let Some(resident) = resident() else {
            return;
        };
        let high = self.limit / 16 * 15;
        let low = self.limit / 8 * 7;
        if resident > high {
            let excess = (resident - high) / self.cores;
            // What is not used yet is no help.
            let base = self.budget.min(used());
            self.budget = self.budget.min(base + STEP_BYTES);
            self.target = base.saturating_sub(excess).max(self.floor);
            self.wait = LOOKS_TO_WAIT;
        } else if resident < low && self.target < self.planned {
            let room = (low - resident) / self.cores / 4;
            self.target = (self.target + room.min(STEP_BYTES)).min(self.planned);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A process whose tree fills what it is given, with `slack` percent more around it and `rest`
    /// besides, for `seconds`; the resident memory at the end and at its highest.
    fn run(governor: &mut Governor, rest: u64, slack: u64, seconds: u64) -> (u64, u64) {
        let resident = |used: u64| rest + used * (100 + slack) / 100;
        let (mut used, mut budget, mut highest) = (0, governor.budget, 0);
        for _ in 0..seconds * 50 {
            used = (used + 2 * MIB).min(budget);
            highest = resident(used).max(highest);
            if let Some(changed) = governor.step(|| Some(resident(used)), || used) {
                budget = changed;
                used = used.min(budget);
            }
        }
        (resident(used), highest)
    }

    #[test]
    fn a_plan_that_fits_is_left_alone() {
        let mut governor = Governor::new(256 * MIB, 1, 180 * MIB);
        let (resident, _) = run(&mut governor, 40 * MIB, 5, 60);
        assert_eq!(governor.budget, 180 * MIB);
        assert_eq!(resident, 229 * MIB);
    }

    #[test]
    fn an_excess_is_taken_from_the_tree_and_given_back() {
        let mut governor = Governor::new(256 * MIB, 1, 200 * MIB);
        let (resident, highest) = run(&mut governor, 80 * MIB, 20, 60);
        assert!(resident <= 241 * MIB, "{}", resident / MIB);
        assert!(highest <= 270 * MIB, "{}", highest / MIB);
        assert!(governor.budget >= 110 * MIB, "{}", governor.budget / MIB);
        // The load has changed: the rest is small.
        run(&mut governor, 20 * MIB, 0, 120);
        assert_eq!(governor.budget, 200 * MIB);
    }

    #[test]
    fn a_tree_keeps_its_floor_whatever_the_rest_takes() {
        let mut governor = Governor::new(256 * MIB, 2, 80 * MIB);
        run(&mut governor, 400 * MIB, 0, 60);
        assert_eq!(governor.budget, 20 * MIB);
    }

    #[test]
    fn a_system_that_does_not_tell_changes_nothing() {
        let mut governor = Governor::new(256 * MIB, 1, 80 * MIB);
        for _ in 0..1000 {
            assert_eq!(governor.step(|| None, || 0), None);
        }
    }
}
