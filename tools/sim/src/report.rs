//! What a set of runs covered: counts by kind, printed as a table, and the kinds never met.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use ringbolt_engine::env::sim::{Counts, Fault, IoEvent, IoOp};
use ringbolt_engine::env::{FileClass, TaskClass};

/// Where a crash struck: what was under way, and whether the engine was still recovering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CrashPoint {
    /// While a group, or a segment's header, was being written to the log.
    LogWrite,
    /// While a log segment was created, filled, renamed or removed.
    SegmentChange,
    /// While a flush was writing or syncing a table.
    Flush,
    /// While a compaction was reading, writing or syncing tables.
    Compaction,
    /// While an edit was being appended to the manifest or synced.
    ManifestEdit,
    /// While a new manifest was put in force.
    ManifestSwitch,
    /// While files no longer needed were being removed.
    Removal,
    /// While the engine was being opened, whatever it was doing.
    Recovery,
    /// While the engine was being closed.
    Closing,
    /// While only reads were under way.
    Reading,
    /// With nothing under way.
    Idle,
}

impl CrashPoint {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::LogWrite,
        Self::SegmentChange,
        Self::Flush,
        Self::Compaction,
        Self::ManifestEdit,
        Self::ManifestSwitch,
        Self::Removal,
        Self::Recovery,
        Self::Closing,
        Self::Reading,
        Self::Idle,
    ];

    /// What the operation belongs to.
    fn of(event: &IoEvent) -> Self {
        let name = event
            .path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let compacting = matches!(event.task, TaskClass::CompactL0 | TaskClass::Background);
        if event.op == IoOp::Remove {
            return Self::Removal;
        }
        if name.starts_with("CURRENT") {
            return Self::ManifestSwitch;
        }
        match event.class {
            Some(FileClass::Log) if event.op == IoOp::Write => Self::LogWrite,
            Some(FileClass::Log) if event.op != IoOp::Read => Self::SegmentChange,
            Some(FileClass::Manifest) if event.op == IoOp::Create => Self::ManifestSwitch,
            Some(FileClass::Manifest) if event.op != IoOp::Read => Self::ManifestEdit,
            Some(FileClass::Table) if compacting => Self::Compaction,
            Some(FileClass::Table) if event.op != IoOp::Read => Self::Flush,
            Some(_) => Self::Reading,
            None => match event.task {
                TaskClass::Log => Self::SegmentChange,
                TaskClass::Flush => Self::Flush,
                TaskClass::CompactL0 | TaskClass::Background => Self::Compaction,
                TaskClass::Foreground => Self::ManifestEdit,
            },
        }
    }

    /// Every point that a crash with these operations under way is at.
    #[must_use]
    pub fn all_of(in_flight: &[IoEvent], stage: Stage) -> Vec<Self> {
        let mut points: Vec<Self> = in_flight.iter().map(Self::of).collect();
        match stage {
            Stage::Opening => points.push(Self::Recovery),
            Stage::Closing => points.push(Self::Closing),
            Stage::Serving if points.is_empty() => points.push(Self::Idle),
            Stage::Serving => {}
        }
        points.sort_unstable();
        points.dedup();
        points
    }
}

impl fmt::Display for CrashPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LogWrite => "in a log write",
            Self::SegmentChange => "in a segment's making or recycling",
            Self::Flush => "in a flush",
            Self::Compaction => "in a compaction",
            Self::ManifestEdit => "in a manifest edit",
            Self::ManifestSwitch => "in a manifest switch",
            Self::Removal => "in the removal of a file",
            Self::Recovery => "in recovery",
            Self::Closing => "in closing",
            Self::Reading => "in a read",
            Self::Idle => "with nothing under way",
        })
    }
}

/// What the simulated process was at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Recovering.
    Opening,
    /// Serving reads and writes.
    Serving,
    /// Closing in good order.
    Closing,
}

/// Counts over any number of seeds.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Named counts: operations, flushes, outcomes.
    pub counts: BTreeMap<&'static str, u64>,
    /// Where crashes struck.
    pub points: BTreeMap<CrashPoint, u64>,
    /// Faults injected, and what crashes left behind.
    pub faults: Counts,
    /// Typed errors met, by what they were.
    pub errors: BTreeMap<String, u64>,
}

impl Tally {
    /// Adds to a named count.
    pub fn add(&mut self, name: &'static str, count: u64) {
        *self.counts.entry(name).or_default() += count;
    }

    /// A named count.
    #[must_use]
    pub fn of(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }

    /// Notes where a crash struck.
    pub fn crashed_at(&mut self, points: &[CrashPoint]) {
        for &point in points {
            *self.points.entry(point).or_default() += 1;
        }
    }

    /// Notes a typed error.
    pub fn error(&mut self, what: impl Into<String>) {
        *self.errors.entry(what.into()).or_default() += 1;
    }

    /// Adds another run's counts.
    pub fn merge(&mut self, other: &Self) {
        for (&name, &count) in &other.counts {
            self.add(name, count);
        }
        for (&point, &count) in &other.points {
            *self.points.entry(point).or_default() += count;
        }
        for (what, &count) in &other.errors {
            *self.errors.entry(what.clone()).or_default() += count;
        }
        self.faults.merge(&other.faults);
    }

    /// The kinds of faults, crash points and work that never happened to single engines and should have.
    #[must_use]
    pub fn never(&self, work: &[&'static str]) -> Vec<String> {
        let faults = Fault::ALL
            .into_iter()
            // What a write that hangs is about is who leads: clusters meet it.
            .filter(|&fault| fault != Fault::WriteHang && self.faults.of(fault) == 0)
            .map(|fault| format!("fault: {fault}"));
        let points = CrashPoint::ALL
            .into_iter()
            .filter(|point| !self.points.contains_key(point))
            .map(|point| format!("crash point: {point}"));
        let work = work
            .iter()
            .filter(|name| self.of(name) == 0)
            .map(|name| format!("work: {name}"));
        faults.chain(points).chain(work).collect()
    }

    /// Those of these named counts that are zero.
    #[must_use]
    pub fn zero(&self, names: &[&'static str]) -> Vec<&'static str> {
        let zero = names.iter().filter(|name| self.of(name) == 0);
        zero.copied().collect()
    }

    /// All counts as text.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        let mut section = |title: &str, rows: Vec<(String, u64)>| {
            let _ = writeln!(text, "{title}");
            for (name, count) in rows {
                let _ = writeln!(text, "  {name:<44} {count:>14}");
            }
        };
        let counts = self.counts.iter();
        section("work", counts.map(|(n, &c)| ((*n).to_owned(), c)).collect());
        if !self.points.is_empty() {
            let points = self.points.iter();
            section(
                "crashes",
                points.map(|(p, &c)| (p.to_string(), c)).collect(),
            );
        }
        let faults = self.faults.iter();
        let faults: Vec<_> = faults.map(|(f, c)| (f.to_string(), c)).collect();
        if !faults.is_empty() {
            section("faults", faults);
        }
        if !self.errors.is_empty() {
            let errors = self.errors.iter();
            section(
                "typed errors",
                errors.map(|(e, &c)| (e.clone(), c)).collect(),
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_happened_is_named() {
        let mut tally = Tally::default();
        assert_eq!(
            tally.never(&["flushes"]).len(),
            Fault::ALL.len() - 1 + CrashPoint::ALL.len() + 1
        );
        for fault in Fault::ALL {
            tally.faults.add(fault);
        }
        tally.crashed_at(&CrashPoint::ALL);
        assert_eq!(tally.never(&["flushes"]), ["work: flushes"]);
        tally.add("flushes", 1);
        assert!(tally.never(&["flushes"]).is_empty());
    }
}
