//! Every metric there is: its name, what it means, its kind, its labels, and how it is read.
//!
//! This table is the single source of `/metrics`, `/metrics/detail`, the dashboard and alerts in
//! `monitoring/`, and `docs/metrics.md`. Names are in base units and say so: `_seconds`, `_bytes`,
//! and `_total` for what only grows.
//!
//! A row reads plain cells that a core has copied out ([`CoreView`]), or what the system says of the
//! process ([`NodeView`]). `/metrics` has each row once, summed over the cores (or the highest of them);
//! `/metrics/detail` has the rows of cores again, by core, under `ringbolt_core_...`, and one series
//! a partition.

use ringbolt_engine::log::{GroupSizes, WRITE_TIME_BUCKETS, WriteTimes};
use ringbolt_wire::message::ReplicaStatus;

use super::CoreView;
use super::process::NodeView;
use crate::shard::counters::Counters;
use crate::shard::trace::{Histogram, bucket_end_us};

mod engine;
mod replication;
mod shard;

/// A histogram's microseconds as seconds.
const MICROS: f64 = 1e-6;

/// What every name begins with.
pub const PREFIX: &str = "ringbolt_";
/// What the names of a single core's metrics begin with.
pub const CORE_PREFIX: &str = "ringbolt_core_";

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the process ends.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by upper bounds.
    Histogram,
}

impl Kind {
    /// As the text format has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Label values, in the order of the metric's labels, and a value.
pub type Point = (Vec<String>, f64);

/// Label values, and a histogram.
pub type LabelledPowers = (Vec<String>, Powers);

/// A histogram by powers of two, of times in microseconds or of sizes in bytes: the i-th bucket counts
/// what was less than 2^i and not less than half of that, the last one everything more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Powers {
    /// How many by size.
    pub buckets: [u64; WRITE_TIME_BUCKETS],
    /// All of them added up.
    pub sum: u64,
}

impl Powers {
    /// Adds another one's.
    pub fn add(&mut self, other: &Self) {
        for (own, other) in self.buckets.iter_mut().zip(other.buckets) {
            *own += other;
        }
        self.sum += other.sum;
    }
}

impl From<&WriteTimes> for Powers {
    fn from(times: &WriteTimes) -> Self {
        Self {
            buckets: times.buckets,
            sum: times.sum_us,
        }
    }
}

impl From<&GroupSizes> for Powers {
    fn from(sizes: &GroupSizes) -> Self {
        Self {
            buckets: sizes.buckets,
            sum: sizes.sum_bytes,
        }
    }
}

impl From<&Histogram> for Powers {
    fn from(histogram: &Histogram) -> Self {
        let mut times = Self {
            sum: histogram.sum_us(),
            ..Self::default()
        };
        for (bucket, count) in histogram.counts().enumerate() {
            // Its bucket is that of the highest time in it.
            let highest = bucket_end_us(bucket) - 1;
            let power = (u64::BITS - highest.leading_zeros()) as usize;
            times.buckets[power.min(WRITE_TIME_BUCKETS - 1)] += count;
        }
        times
    }
}

/// How a metric is read.
#[derive(Clone, Copy)]
pub enum Read {
    /// From each core; summed.
    Sum(fn(&CoreView) -> f64),
    /// From each core; the highest counts.
    Max(fn(&CoreView) -> f64),
    /// A shard's counter, summed, in units of which this many make one.
    Counter(fn(&Counters) -> u64, f64),
    /// From each core, by labels; summed.
    Each(fn(&CoreView) -> Vec<Point>),
    /// From each core, by labels; the highest counts.
    EachMax(fn(&CoreView) -> Vec<Point>),
    /// Histograms from each core, by labels; summed. What one of theirs is in the metric's unit.
    Powers(fn(&CoreView) -> Vec<LabelledPowers>, f64),
    /// From the process.
    Node(fn(&NodeView) -> Vec<Point>),
    /// From each replica; only in detail, by partition.
    Replica(fn(&ReplicaStatus) -> f64),
    /// From each core, by partition; only in detail.
    Partitions(fn(&CoreView) -> Vec<(u16, f64)>),
}

/// One metric.
#[derive(Clone, Copy)]
pub struct Metric {
    /// Its name without [`PREFIX`].
    pub name: &'static str,
    /// What it means, in one sentence without the full stop.
    pub help: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// How it is read.
    pub read: Read,
}

pub(super) const fn counter(
    name: &'static str,
    help: &'static str,
    read: fn(&CoreView) -> f64,
) -> Metric {
    Metric {
        name,
        help,
        kind: Kind::Counter,
        labels: &[],
        read: Read::Sum(read),
    }
}

pub(super) const fn gauge(
    name: &'static str,
    help: &'static str,
    read: fn(&CoreView) -> f64,
) -> Metric {
    Metric {
        name,
        help,
        kind: Kind::Gauge,
        labels: &[],
        read: Read::Sum(read),
    }
}

pub(super) const fn highest(
    name: &'static str,
    help: &'static str,
    read: fn(&CoreView) -> f64,
) -> Metric {
    Metric {
        name,
        help,
        kind: Kind::Gauge,
        labels: &[],
        read: Read::Max(read),
    }
}

const fn node(
    name: &'static str,
    help: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    read: fn(&NodeView) -> Vec<Point>,
) -> Metric {
    Metric {
        name,
        help,
        kind,
        labels,
        read: Read::Node(read),
    }
}

fn one(value: Option<f64>) -> Vec<Point> {
    value.map(|value| (Vec::new(), value)).into_iter().collect()
}

fn one_bytes(value: Option<u64>) -> Vec<Point> {
    one(value.map(|value| value as f64))
}

/// What the process as a whole is at.
const NODE: &[Metric] = &[
    node(
        "node_info",
        "1, with what the node is",
        Kind::Gauge,
        &["name", "version"],
        |node| {
            let version = env!("CARGO_PKG_VERSION").to_owned();
            vec![(vec![node.name.clone(), version], 1.0)]
        },
    ),
    node(
        "uptime_seconds",
        "Time since the process began",
        Kind::Gauge,
        &[],
        |node| one(Some(node.uptime.as_secs_f64())),
    ),
    node(
        "cpu_seconds_total",
        "CPU time of the process, user and system",
        Kind::Counter,
        &[],
        |node| one(node.cpu_seconds),
    ),
    node(
        "core_busy_seconds_total",
        "CPU time of each core's thread, user and system",
        Kind::Counter,
        &["core"],
        |node| {
            let cores = node.core_cpu_seconds.iter();
            cores
                .map(|(core, time)| (vec![core.to_string()], *time))
                .collect()
        },
    ),
    node(
        "memory_budget_bytes",
        "Memory that the process may use (the setting memory)",
        Kind::Gauge,
        &[],
        |node| one(Some(node.memory_budget_bytes as f64)),
    ),
    node(
        "memory_resident_bytes",
        "Memory that the process uses",
        Kind::Gauge,
        &[],
        |node| one_bytes(node.resident_bytes),
    ),
    node(
        "disk_free_bytes",
        "Bytes that can still be written to the disk of the data folder",
        Kind::Gauge,
        &[],
        |node| one_bytes(node.disk_free_bytes),
    ),
    node(
        "disk_size_bytes",
        "Size of the file system of the data folder",
        Kind::Gauge,
        &[],
        |node| one_bytes(node.disk_size_bytes),
    ),
    node(
        "disk_reserve_bytes",
        "Free bytes below which puts are refused (the setting disk.reserve_bytes)",
        Kind::Gauge,
        &[],
        |node| one(Some(node.disk_reserve_bytes as f64)),
    ),
];

/// Every metric, in the order it is written.
#[must_use]
pub fn metrics() -> Vec<Metric> {
    let own = Counters::TABLE.iter().map(shard::counter);
    NODE.iter()
        .copied()
        .chain(own)
        .chain(shard::METRICS.iter().copied())
        .chain(replication::METRICS.iter().copied())
        .chain(engine::METRICS.iter().copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_say_their_unit_and_are_used_once() {
        let mut names = BTreeSet::new();
        for metric in metrics() {
            let name = metric.name;
            assert!(names.insert(name), "{name} twice");
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(name.chars().all(fits), "{name}");
            let is_total = name.ends_with("_total");
            assert_eq!(is_total, metric.kind == Kind::Counter, "{name}");
            let base = name.trim_end_matches("_total");
            for unit in ["_us", "_ms", "_ns", "_kib", "_mib", "_percent"] {
                assert!(!base.ends_with(unit), "{name} is not in a base unit");
            }
            assert!(
                !metric.help.is_empty() && !metric.help.ends_with('.'),
                "{name}"
            );
        }
        assert!(names.len() > 80, "{}", names.len());
    }
}
