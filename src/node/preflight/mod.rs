//! What a node needs of its host, checked before it starts.
//!
//! Each [`Check`] says what is required, what is there, and what to do where the two differ. The
//! facts are gathered in [`host`] and [`disk`]; judging them is apart from gathering them, so that
//! every verdict is tested on every machine.

use std::fmt;

use serde::Serialize;

use crate::config::{Machine, Settings};

pub mod disk;
pub mod host;

/// One condition of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name.
    pub condition: &'static str,
    /// What is asked for.
    pub required: String,
    /// What is there.
    pub current: String,
    /// How the two compare.
    pub verdict: Verdict,
    /// What to do; empty where it passed.
    pub remedy: String,
}

/// How a condition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It holds.
    Passed,
    /// It does not quite hold: the node runs, with less than it could.
    Warning,
    /// It does not hold: the node does not start.
    Failed,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "yes",
            Self::Warning => "not quite",
            Self::Failed => "no",
        })
    }
}

impl Check {
    fn passed(
        condition: &'static str,
        required: impl Into<String>,
        current: impl Into<String>,
    ) -> Self {
        Self {
            condition,
            required: required.into(),
            current: current.into(),
            verdict: Verdict::Passed,
            remedy: String::new(),
        }
    }

    fn but(mut self, verdict: Verdict, remedy: impl Into<String>) -> Self {
        self.verdict = verdict;
        self.remedy = remedy.into();
        self
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} is required, but there is {}; {}",
            self.condition, self.required, self.current, self.remedy
        )
    }
}

/// The checks that take no time: every start makes them.
#[must_use]
pub fn run(settings: &Settings) -> Vec<Check> {
    let machine = Machine::detect();
    let mut checks = vec![
        host::kernel(),
        host::io_uring(),
        host::locked_memory(settings),
        host::files(settings),
        host::memory(settings, &machine),
        host::cpus(settings, &machine),
    ];
    checks.extend(disk::checks(settings));
    checks
}

/// All checks, with the measurement of the disk, which takes less than a second.
#[must_use]
pub fn run_all(settings: &Settings) -> Vec<Check> {
    let mut checks = run(settings);
    checks.push(disk::durability(settings));
    checks
}

/// The first check that keeps the node from starting.
#[must_use]
pub fn failed(checks: &[Check]) -> Option<&Check> {
    checks.iter().find(|check| check.verdict == Verdict::Failed)
}

/// The checks that cost the node something and do not keep it from starting.
pub fn warnings(checks: &[Check]) -> impl Iterator<Item = &Check> {
    checks
        .iter()
        .filter(|check| check.verdict == Verdict::Warning)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Inputs, load};

    /// The defaults on a machine with two CPUs and 8 GiB.
    pub(super) fn settings() -> Settings {
        let inputs = Inputs {
            file: None,
            environment: Vec::new(),
            flags: Vec::new(),
            machine: Machine {
                cpus: vec![0, 1],
                memory: 8 << 30,
            },
        };
        load(&inputs).unwrap().settings
    }

    #[test]
    fn the_first_that_failed_is_told_with_its_remedy() {
        let check = Check::passed("colour", "blue", "red");
        let failed_one = check.clone().but(Verdict::Failed, "paint it");
        let warned = check.clone().but(Verdict::Warning, "look again");
        let checks = [check.clone(), warned.clone()];
        assert_eq!(failed(&checks), None);
        assert_eq!(warnings(&checks).collect::<Vec<_>>(), [&warned]);
        assert_eq!(failed(&[check, failed_one.clone()]), Some(&failed_one));
        assert_eq!(
            failed_one.to_string(),
            "colour: blue is required, but there is red; paint it"
        );
    }
}
