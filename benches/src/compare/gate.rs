//! What a gate is, and what it finds.

use std::fmt;

use serde::Serialize;

use super::context::Context;

/// One gate of the list.
#[derive(Debug)]
pub struct Gate {
    /// Its number.
    pub number: u8,
    /// What it measures.
    pub title: &'static str,
    /// Measures it.
    pub run: fn(&Context) -> Result<Vec<Line>, Skip>,
}

/// Why a gate was not measured.
#[derive(Debug)]
pub enum Skip {
    /// A peer is not installed.
    Missing {
        /// The program.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// Something went wrong.
    Failed(String),
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { program, package } => {
                write!(f, "{program} is not here: apt install {package}")
            }
            Self::Failed(what) => f.write_str(what),
        }
    }
}

/// What a measure is held to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
    /// Anything: it is only told.
    Told,
}

impl Bound {
    /// Whether it holds.
    pub fn holds(self, measured: f64) -> bool {
        match self {
            Self::AtMost(bound) => measured <= bound,
            Self::AtLeast(bound) => measured >= bound,
            Self::Told => true,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(bound) => write!(f, "≤ {bound}"),
            Self::AtLeast(bound) => write!(f, "≥ {bound}"),
            Self::Told => f.write_str("–"),
        }
    }
}

/// One figure of one side, a value for each round.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// Who: `Ringbolt`, `Redis`, `RocksDB`, …
    pub side: &'static str,
    /// The unit of the values.
    pub unit: Unit,
    /// One for each round.
    pub values: Vec<f64>,
}

/// A unit, which decides how a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Microseconds.
    Us,
    /// Things per second.
    PerSecond,
    /// Things per second of CPU time.
    PerCpuSecond,
    /// A plain ratio.
    Times,
    /// Milliseconds.
    Ms,
    /// Bytes.
    Bytes,
}

impl Figure {
    /// A figure with its values.
    pub fn new(side: &'static str, unit: Unit, values: Vec<f64>) -> Self {
        Self { side, unit, values }
    }

    /// The median of the rounds.
    pub fn median(&self) -> f64 {
        median(&self.values)
    }
}

/// One measure of a gate: the median over rounds of a ratio, and its bound.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// What is measured.
    pub what: String,
    /// Ringbolt's figure.
    pub ours: Figure,
    /// The other side's, if there is one.
    pub theirs: Option<Figure>,
    /// What is held against the bound, one for each round.
    pub measured: Vec<f64>,
    /// The bound.
    pub bound: Bound,
}

impl Line {
    /// Ringbolt's figure over the other side's, round by round.
    pub fn ratio(what: impl Into<String>, ours: Figure, theirs: Figure, bound: Bound) -> Self {
        let measured = ours
            .values
            .iter()
            .zip(&theirs.values)
            .map(|(ours, theirs)| ours / theirs.max(1e-12))
            .collect();
        Self {
            what: what.into(),
            ours,
            theirs: Some(theirs),
            measured,
            bound,
        }
    }

    /// Ringbolt's figure as it is.
    pub fn plain(what: impl Into<String>, ours: Figure, bound: Bound) -> Self {
        Self {
            what: what.into(),
            measured: ours.values.clone(),
            ours,
            theirs: None,
            bound,
        }
    }

    /// What is held against the bound.
    pub fn median(&self) -> f64 {
        median(&self.measured)
    }

    /// Least and most of the rounds.
    pub fn spread(&self) -> (f64, f64) {
        let min = self.measured.iter().copied().fold(f64::INFINITY, f64::min);
        let max = self.measured.iter().copied().fold(0.0, f64::max);
        (min, max)
    }

    /// Whether the bound holds. Nothing measured does not.
    pub fn passes(&self) -> bool {
        !self.measured.is_empty() && self.bound.holds(self.median())
    }
}

/// The median; 0 of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_round_by_round() {
        let figure = |side, values| Figure::new(side, Unit::Us, values);
        let line = Line::ratio(
            "p50",
            figure("Ringbolt", vec![10.0, 30.0, 20.0]),
            figure("Redis", vec![20.0, 40.0, 80.0]),
            Bound::AtMost(0.6),
        );
        assert_eq!(line.measured, [0.5, 0.75, 0.25]);
        assert_eq!((line.median(), line.spread()), (0.5, (0.25, 0.75)));
        assert!(line.passes());
        assert_eq!(median(&[4.0, 2.0]), 3.0);
        let nothing = Line::plain("", figure("", vec![]), Bound::AtMost(1.0));
        assert!(!nothing.passes());
    }
}
