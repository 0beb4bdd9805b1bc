//! The text format of Prometheus, made of the registry and one sample.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::look::Sample;
use super::registry::{
    CORE_PREFIX, Kind, LabelledPowers, Metric, PREFIX, Point, Powers, Read, metrics,
};
use super::{CoreView, State, requests};

/// `/metrics`: the node as a whole. As many series whatever the number of cores, partitions and keys.
pub(super) fn summary(sample: &Sample) -> String {
    let mut text = Text::default();
    up(&mut text, sample);
    for metric in metrics() {
        let points = match metric.read {
            Read::Node(read) => read(&sample.node),
            Read::Replica(_) | Read::Partitions(_) => continue,
            Read::Powers(read, unit) => {
                text.head(PREFIX, &metric);
                text.buckets(PREFIX, &metric, &[], unit, &powers_of(read, sample.seen()));
                continue;
            }
            _ => points_of(&metric, sample.seen()),
        };
        text.head(PREFIX, &metric);
        for (labels, value) in &points {
            text.line(PREFIX, &metric, "", &[], labels, *value);
        }
    }
    text.0
}

/// `/metrics/detail`: core by core, partition by partition, and the keys that are hot beyond doubt.
pub(super) fn detail(state: &State, sample: &Sample) -> String {
    let mut text = Text::default();
    hot_keys(&mut text, state, sample);
    for metric in metrics() {
        match metric.read {
            Read::Node(_) => {}
            Read::Replica(read) => {
                text.head(PREFIX, &metric);
                for replica in sample.seen().flat_map(|core| &core.shard.replicas) {
                    let labels = [replica.partition.to_string()];
                    text.line(PREFIX, &metric, "", &[], &labels, read(replica));
                }
            }
            Read::Partitions(read) => {
                text.head(PREFIX, &metric);
                for (partition, value) in sample.seen().flat_map(read) {
                    let labels = [partition.to_string()];
                    text.line(PREFIX, &metric, "", &[], &labels, value);
                }
            }
            Read::Powers(read, unit) => {
                text.head(CORE_PREFIX, &metric);
                for core in sample.seen() {
                    let name = core.shard.core.to_string();
                    let powers = powers_of(read, std::iter::once(core));
                    text.buckets(CORE_PREFIX, &metric, &[("core", &name)], unit, &powers);
                }
            }
            _ => {
                text.head(CORE_PREFIX, &metric);
                for core in sample.seen() {
                    let name = core.shard.core.to_string();
                    for (labels, value) in points_of(&metric, std::iter::once(core)) {
                        let own = [("core", name.as_str())];
                        text.line(CORE_PREFIX, &metric, "", &own, &labels, value);
                    }
                }
            }
        }
    }
    text.0
}

/// Keys that take at least a twentieth of their core's requests for sure: at most twenty a core.
fn hot_keys(text: &mut Text, state: &State, sample: &Sample) {
    let metric = Metric {
        name: "key_share",
        help: "The part of its core's requests, from 0 to 1, that a hot key takes for sure",
        kind: Kind::Gauge,
        labels: &["core", "keyspace", "key"],
        read: Read::Node(|_| Vec::new()),
    };
    text.head(PREFIX, &metric);
    for core in sample.seen() {
        for key in &core.shard.hot.keys {
            let share = key.share - key.error;
            if share >= 0.05 {
                let labels = [
                    core.shard.core.to_string(),
                    key.keyspace.to_string(),
                    requests::shown(state, key.keyspace, &key.key),
                ];
                text.line(PREFIX, &metric, "", &[], &labels, share);
            }
        }
    }
}

/// Which cores answered: the one metric that needs no answer.
fn up(text: &mut Text, sample: &Sample) {
    let metric = Metric {
        name: "core_up",
        help: "Whether the core answered within a second",
        kind: Kind::Gauge,
        labels: &["core"],
        read: Read::Node(|_| Vec::new()),
    };
    text.head(PREFIX, &metric);
    for (core, seen) in sample.cores.iter().enumerate() {
        let up = f64::from(u8::from(seen.is_some()));
        text.line(PREFIX, &metric, "", &[], &[core.to_string()], up);
    }
}

/// A metric's values over some cores, by labels.
fn points_of<'a>(metric: &Metric, cores: impl Iterator<Item = &'a CoreView>) -> Vec<Point> {
    let mut all: BTreeMap<Vec<String>, f64> = BTreeMap::new();
    let mut highest = false;
    for core in cores {
        let points = match metric.read {
            Read::Sum(read) => vec![(Vec::new(), read(core))],
            Read::Max(read) => {
                highest = true;
                vec![(Vec::new(), read(core))]
            }
            Read::Counter(read, scale) => {
                vec![(Vec::new(), read(&core.shard.counters) as f64 * scale)]
            }
            Read::Each(read) => read(core),
            Read::EachMax(read) => {
                highest = true;
                read(core)
            }
            Read::Powers(..) | Read::Node(_) | Read::Replica(_) | Read::Partitions(_) => Vec::new(),
        };
        for (labels, value) in points {
            let sum = all.entry(labels).or_insert(0.0);
            *sum = if highest {
                sum.max(value)
            } else {
                *sum + value
            };
        }
    }
    all.into_iter().collect()
}

fn powers_of<'a>(
    read: fn(&CoreView) -> Vec<LabelledPowers>,
    cores: impl Iterator<Item = &'a CoreView>,
) -> BTreeMap<Vec<String>, Powers> {
    let mut all: BTreeMap<Vec<String>, Powers> = BTreeMap::new();
    for (labels, powers) in cores.flat_map(read) {
        all.entry(labels).or_default().add(&powers);
    }
    all
}

/// The text as far as it is written.
#[derive(Default)]
struct Text(String);

impl Text {
    fn head(&mut self, prefix: &str, metric: &Metric) {
        // Writing to a string does not fail.
        let _ = write!(
            self.0,
            "# HELP {prefix}{name} {}.\n# TYPE {prefix}{name} {}\n",
            metric.help,
            metric.kind.name(),
            name = metric.name,
        );
    }

    fn line(
        &mut self,
        prefix: &str,
        metric: &Metric,
        suffix: &str,
        more: &[(&str, &str)],
        labels: &[String],
        value: f64,
    ) {
        let _ = write!(self.0, "{prefix}{}{suffix}", metric.name);
        let own = metric.labels.iter().copied();
        let own = own.zip(labels.iter().map(String::as_str));
        let mut separator = '{';
        for (name, value) in more.iter().copied().chain(own) {
            let _ = write!(self.0, "{separator}{name}=\"{}\"", escaped(value));
            separator = ',';
        }
        if separator == ',' {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    fn buckets(
        &mut self,
        prefix: &str,
        metric: &Metric,
        more: &[(&str, &str)],
        unit: f64,
        all: &BTreeMap<Vec<String>, Powers>,
    ) {
        for (labels, times) in all {
            let mut sum = 0;
            let last = times.buckets.len() - 1;
            for (power, count) in times.buckets.iter().enumerate() {
                sum += count;
                let bound = match power == last {
                    true => "+Inf".to_owned(),
                    false => ((1_u64 << power) as f64 * unit).to_string(),
                };
                let with: Vec<_> = more
                    .iter()
                    .copied()
                    .chain([("le", bound.as_str())])
                    .collect();
                self.line(prefix, metric, "_bucket", &with, labels, sum as f64);
            }
            let total = times.sum as f64 * unit;
            self.line(prefix, metric, "_sum", more, labels, total);
            self.line(prefix, metric, "_count", more, labels, sum as f64);
        }
    }
}

/// A label's value as the format wants it.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_become_growing_buckets() {
        let metric = Metric {
            name: "x_seconds",
            help: "Times",
            kind: Kind::Histogram,
            labels: &["op"],
            read: Read::Powers(|_| Vec::new(), 1e-6),
        };
        let mut times = Powers::default();
        times.buckets[0] = 1;
        times.buckets[10] = 2;
        times.buckets[23] = 4;
        times.sum = 5_000_000;
        let mut text = Text::default();
        let all = BTreeMap::from([(vec!["a\"b".to_owned()], times)]);
        text.head(PREFIX, &metric);
        text.buckets(PREFIX, &metric, &[], 1e-6, &all);
        let lines: Vec<&str> = text.0.lines().collect();
        assert_eq!(lines[1], "# TYPE ringbolt_x_seconds histogram");
        let of = |le: &str| format!("ringbolt_x_seconds_bucket{{le=\"{le}\",op=\"a\\\"b\"}}");
        assert!(
            lines.contains(&format!("{} 1", of("0.000512")).as_str()),
            "{lines:?}"
        );
        assert!(lines.contains(&format!("{} 3", of("0.001024")).as_str()));
        assert!(lines.contains(&format!("{} 7", of("+Inf")).as_str()));
        assert!(lines.contains(&"ringbolt_x_seconds_sum{op=\"a\\\"b\"} 5"));
        assert!(lines.contains(&"ringbolt_x_seconds_count{op=\"a\\\"b\"} 7"));
    }
}
