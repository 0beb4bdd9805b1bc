//! The last ten minutes, second by second, for the page: rates and times that need two readings.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::look::Sample;
use super::{CoreView, State};
use crate::shard::trace::{BUCKETS, Op, Outcome, bucket_end_us};
use crate::shard::view::Depth;

/// How often the cores are asked.
const EVERY: Duration = Duration::from_secs(1);
/// Points kept.
const POINTS: usize = 600;

/// One column: its name, and how it is made of two readings and the seconds between them.
struct Column {
    name: &'static str,
    make: fn(&Reading, &Reading, f64) -> f64,
}

const COLUMNS: &[Column] = &[
    Column {
        name: "reads_per_second",
        make: |old, new, s| rate(old.reads, new.reads, s),
    },
    Column {
        name: "writes_per_second",
        make: |old, new, s| rate(old.writes, new.writes, s),
    },
    Column {
        name: "errors_per_second",
        make: |old, new, s| rate(old.errors, new.errors, s),
    },
    Column {
        name: "read_p50_us",
        make: |old, new, _| quantile(&old.read_times, &new.read_times, 0.5),
    },
    Column {
        name: "read_p99_us",
        make: |old, new, _| quantile(&old.read_times, &new.read_times, 0.99),
    },
    Column {
        name: "write_p50_us",
        make: |old, new, _| quantile(&old.write_times, &new.write_times, 0.5),
    },
    Column {
        name: "write_p99_us",
        make: |old, new, _| quantile(&old.write_times, &new.write_times, 0.99),
    },
    Column {
        name: "log_bytes_per_second",
        make: |old, new, s| rate(old.log_bytes, new.log_bytes, s),
    },
    Column {
        name: "log_writes_per_second",
        make: |old, new, s| rate(old.log_writes, new.log_writes, s),
    },
    Column {
        name: "log_write_mean_us",
        make: |old, new, _| {
            let writes = new.log_writes.saturating_sub(old.log_writes).max(1);
            new.log_write_us.saturating_sub(old.log_write_us) as f64 / writes as f64
        },
    },
    Column {
        name: "flush_bytes_per_second",
        make: |old, new, s| rate(old.flush_bytes, new.flush_bytes, s),
    },
    Column {
        name: "compaction_bytes_per_second",
        make: |old, new, s| rate(old.compaction_bytes, new.compaction_bytes, s),
    },
    Column {
        name: "debt_bytes",
        make: |_, new, _| new.debt_bytes as f64,
    },
    Column {
        name: "memtable_bytes",
        make: |_, new, _| new.memtable_bytes as f64,
    },
    Column {
        name: "throttled_us_per_second",
        make: |old, new, s| rate(old.throttled_us, new.throttled_us, s),
    },
    Column {
        name: "slow_per_second",
        make: |old, new, s| rate(old.slow, new.slow, s),
    },
];

fn rate(old: u64, new: u64, seconds: f64) -> f64 {
    new.saturating_sub(old) as f64 / seconds
}

/// The time that a part of what came between two readings took at most; the middle of its bucket.
fn quantile(old: &[u64; BUCKETS], new: &[u64; BUCKETS], part: f64) -> f64 {
    let counts = || {
        new.iter()
            .zip(old)
            .map(|(new, old)| new.saturating_sub(*old))
    };
    let all: u64 = counts().sum();
    if all == 0 {
        return 0.0;
    }
    let wanted = (all as f64 * part).ceil().max(1.0) as u64;
    let mut sum = 0;
    for (bucket, count) in counts().enumerate() {
        sum += count;
        if sum >= wanted {
            let begin = bucket.checked_sub(1).map_or(0, bucket_end_us);
            return (begin + bucket_end_us(bucket) - 1) as f64 / 2.0;
        }
    }
    0.0
}

/// Counters of all cores, added up.
#[derive(Clone)]
struct Reading {
    reads: u64,
    writes: u64,
    errors: u64,
    read_times: [u64; BUCKETS],
    write_times: [u64; BUCKETS],
    log_bytes: u64,
    log_writes: u64,
    log_write_us: u64,
    flush_bytes: u64,
    compaction_bytes: u64,
    debt_bytes: u64,
    memtable_bytes: u64,
    throttled_us: u64,
    slow: u64,
}

impl Reading {
    fn of<'a>(cores: impl Iterator<Item = &'a CoreView>) -> Self {
        let mut all = Self {
            reads: 0,
            writes: 0,
            errors: 0,
            read_times: [0; BUCKETS],
            write_times: [0; BUCKETS],
            log_bytes: 0,
            log_writes: 0,
            log_write_us: 0,
            flush_bytes: 0,
            compaction_bytes: 0,
            debt_bytes: 0,
            memtable_bytes: 0,
            throttled_us: 0,
            slow: 0,
        };
        for core in cores {
            all.add(core);
        }
        all
    }

    fn add(&mut self, core: &CoreView) {
        let account = &core.shard.account;
        for ((op, counts), times) in Op::ALL.iter().zip(&account.counts).zip(&account.times) {
            let sum: u64 = counts.iter().sum();
            let (count, into) = match op {
                Op::Get | Op::MultiGet | Op::Stat | Op::Scan => {
                    (&mut self.reads, &mut self.read_times)
                }
                Op::Put | Op::Delete | Op::Increment | Op::Touch | Op::Batch => {
                    (&mut self.writes, &mut self.write_times)
                }
                Op::Other => continue,
            };
            *count += sum;
            for (into, count) in into.iter_mut().zip(times.counts()) {
                *into += count;
            }
            let fine = [Outcome::Ok, Outcome::NotFound, Outcome::Conflict];
            let fine: u64 = fine.iter().map(|outcome| counts[*outcome as usize]).sum();
            self.errors += sum - fine;
        }
        let (log, tree) = (&core.shard.engine.log, &core.shard.engine.tree);
        self.log_bytes += log.written_bytes;
        self.log_writes += log.write_times.count;
        self.log_write_us += log.write_times.sum_us;
        self.flush_bytes += tree.flush_bytes_written;
        self.compaction_bytes += tree.compaction_bytes_read + tree.compaction_bytes_written;
        self.debt_bytes += tree.debt_bytes;
        self.memtable_bytes += tree.memtable_bytes;
        self.throttled_us += core.shard.counters.throttled_us_total.get();
        self.slow += account.slow_total;
    }
}

#[derive(Default)]
struct Inner {
    /// Milliseconds since the Unix epoch, and the columns' values.
    points: VecDeque<(u64, Vec<f64>)>,
    /// Requests by partition at the last reading, and a second before.
    partitions: BTreeMap<u16, (u64, f64)>,
}

/// The last ten minutes.
#[derive(Default)]
pub(super) struct Series(Mutex<Inner>);

impl Series {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests a second for a partition, in the last second.
    pub(super) fn partition_rate(&self, partition: u16) -> f64 {
        let inner = self.inner();
        inner
            .partitions
            .get(&partition)
            .map_or(0.0, |(_, rate)| *rate)
    }

    fn push(&self, wall_ms: u64, values: Vec<f64>) {
        let mut inner = self.inner();
        if inner.points.len() == POINTS {
            inner.points.pop_front();
        }
        inner.points.push_back((wall_ms, values));
    }

    fn note_partitions(&self, sample: &Sample, seconds: Option<f64>) {
        let mut inner = self.inner();
        let counts = sample.seen().flat_map(|core| &core.shard.hot.partitions);
        for (partition, count) in counts {
            let before = inner
                .partitions
                .get(partition)
                .map_or(0, |(count, _)| *count);
            let rate = seconds.map_or(0.0, |seconds| rate(before, *count, seconds));
            inner.partitions.insert(*partition, (*count, rate));
        }
    }

    /// `/api/series`: rows of a time and the columns' values, oldest first; those after a time.
    pub(super) fn json(&self, after_ms: u64) -> Value {
        let names = COLUMNS.iter().map(|column| column.name);
        let columns: Vec<&str> = ["wall_ms"].into_iter().chain(names).collect();
        let inner = self.inner();
        let new = inner.points.iter().filter(|(ms, _)| *ms > after_ms);
        let rows: Vec<Value> = new
            .map(|(ms, values)| {
                let values = values.iter().map(|value| rounded(*value));
                [Value::from(*ms)].into_iter().chain(values).collect()
            })
            .collect();
        json!({ "columns": columns, "rows": rows })
    }
}

/// What a page can show of a number.
fn rounded(value: f64) -> Value {
    Value::from((value * 10.0).round() / 10.0)
}

/// Reads the cores every second, for ever.
pub(super) async fn keep(state: Arc<State>) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut before: Option<(tokio::time::Instant, Reading)> = None;
    loop {
        every.tick().await;
        let now = tokio::time::Instant::now();
        let sample = Sample::take(&state, Depth::Counters).await;
        // With a core missing, sums would fall and rise again.
        if sample.running.is_none() || !sample.silent().is_empty() {
            before = None;
            continue;
        }
        let reading = Reading::of(sample.seen());
        let seconds = before
            .as_ref()
            .map(|(then, _)| (now - *then).as_secs_f64().max(1e-3));
        state.series.note_partitions(&sample, seconds);
        if let (Some((_, old)), Some(seconds)) = (&before, seconds) {
            let values = COLUMNS
                .iter()
                .map(|column| (column.make)(old, &reading, seconds));
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            let wall_ms = since.map_or(0, |since| since.as_millis() as u64);
            state.series.push(wall_ms, values.collect());
        }
        before = Some((now, reading));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_what_came_between() {
        let mut old = [0; BUCKETS];
        let mut new = [0; BUCKETS];
        old[10] = 1000;
        new[10] = 1000;
        assert_eq!(quantile(&old, &new, 0.5), 0.0);
        new[20] = 99;
        new[60] = 1;
        let (middle, last) = (quantile(&old, &new, 0.5), quantile(&old, &new, 0.999));
        assert!(middle > bucket_end_us(19) as f64 - 1.0 && middle < bucket_end_us(20) as f64);
        assert!(last > bucket_end_us(59) as f64 - 1.0 && last < bucket_end_us(60) as f64);
    }
}
