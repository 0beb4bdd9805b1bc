//! What is counted while a phase runs: one [`Recorder`] a thread, merged at the end; and
//! [`Intervals`], which all threads add to four times a second.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hdrhistogram::Histogram;

use crate::source::OpKind;

/// Length of an interval, in nanoseconds.
pub const INTERVAL_NS: u64 = 250_000_000;

/// Latencies are kept from 1 ns to 100 s; longer ones count as that.
const LATENCY_NS_MAX: u64 = 100_000_000_000;

/// Intervals whose histograms are kept: a thread that reports later only adds its counts.
const OPEN_INTERVALS: usize = 16;

/// An empty histogram of nanoseconds, exact to `digits` digits.
pub fn histogram(digits: u8) -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, digits)
        .expect("the bounds and the number of digits are constants that it takes")
}

/// Counts of one thread.
#[derive(Debug)]
pub struct Recorder {
    /// Latencies by [`OpKind`], in nanoseconds; only kinds that occurred.
    pub latency: [Option<Box<Histogram<u64>>>; OpKind::ALL.len()],
    /// Requests completed within the window, by kind.
    pub completed: [u64; OpKind::ALL.len()],
    /// Errors by code.
    pub errors: BTreeMap<Cow<'static, str>, u64>,
    /// One message for each code.
    pub error_messages: BTreeMap<Cow<'static, str>, String>,
    /// Requests sent again because the server said so.
    pub retries: u64,
    /// Longest time between two acknowledged writes, or from the window's ends to the nearest
    /// one, in nanoseconds. 0 if nothing was written.
    pub write_gap_ns_max: u64,
    last_write_ns: u64,
    window: std::ops::Range<u64>,
    interval: Interval,
    interval_number: u64,
}

/// Counts of one interval.
#[derive(Debug, Clone)]
pub struct Interval {
    /// Requests completed, by kind.
    pub completed: [u64; OpKind::ALL.len()],
    /// Errors.
    pub errors: u64,
    /// Latencies of all kinds, in nanoseconds.
    pub latency: Histogram<u64>,
}

impl Interval {
    fn new() -> Self {
        Self {
            completed: Default::default(),
            errors: 0,
            latency: histogram(2),
        }
    }
}

impl Recorder {
    /// Counts what completes in `window`, nanoseconds of the run's clock.
    pub fn new(window: std::ops::Range<u64>) -> Self {
        Self {
            latency: Default::default(),
            completed: Default::default(),
            errors: BTreeMap::new(),
            error_messages: BTreeMap::new(),
            retries: 0,
            write_gap_ns_max: 0,
            last_write_ns: window.start,
            window,
            interval: Interval::new(),
            interval_number: 0,
        }
    }

    /// When measuring begins and ends.
    pub fn window(&self) -> std::ops::Range<u64> {
        self.window.clone()
    }

    /// A request that began at `begun` succeeded at `now`. Latency is kept if it began within the
    /// window, even if it ended after it: else the slowest would be left out.
    #[inline]
    pub fn success(&mut self, kind: OpKind, begun: u64, now: u64, intervals: &Intervals) {
        if !self.window.contains(&begun) {
            return;
        }
        let at = kind as usize;
        let latency = now.saturating_sub(begun).max(1);
        self.latency[at]
            .get_or_insert_with(|| Box::new(histogram(3)))
            .saturating_record(latency);
        if now >= self.window.end {
            return;
        }
        self.completed[at] += 1;
        if kind.writes() {
            let gap = now.saturating_sub(self.last_write_ns);
            self.write_gap_ns_max = self.write_gap_ns_max.max(gap);
            self.last_write_ns = now;
        }
        self.enter_interval(now, intervals);
        self.interval.completed[at] += 1;
        self.interval.latency.saturating_record(latency);
    }

    /// A request failed, for now or for good.
    pub fn error(
        &mut self,
        code: Cow<'static, str>,
        message: &str,
        now: u64,
        intervals: &Intervals,
    ) {
        if !self.error_messages.contains_key(&code) {
            self.error_messages
                .insert(code.clone(), message.to_string());
        }
        *self.errors.entry(code).or_default() += 1;
        if self.window.contains(&now) {
            self.enter_interval(now, intervals);
            self.interval.errors += 1;
        }
    }

    /// Hands the current interval over if it has passed.
    pub fn enter_interval(&mut self, now: u64, intervals: &Intervals) {
        let number = now.saturating_sub(self.window.start) / INTERVAL_NS;
        if number != self.interval_number {
            intervals.add(self.interval_number, &mut self.interval);
            self.interval_number = number;
        }
    }

    /// Ends counting; the window ended at `end` at the latest.
    pub fn finish(&mut self, end: u64, intervals: &Intervals) {
        intervals.add(self.interval_number, &mut self.interval);
        self.window.end = self.window.end.min(end);
        let wrote = OpKind::ALL
            .iter()
            .any(|kind| kind.writes() && self.completed[*kind as usize] > 0);
        if wrote {
            let tail = self.window.end.saturating_sub(self.last_write_ns);
            self.write_gap_ns_max = self.write_gap_ns_max.max(tail);
        }
    }

    /// Adds another thread's counts.
    pub fn merge(&mut self, other: Recorder) {
        for (mine, theirs) in self.latency.iter_mut().zip(other.latency) {
            match (mine, theirs) {
                (Some(mine), Some(theirs)) => mine
                    .add(*theirs)
                    .expect("both histograms have the same bounds"),
                (mine @ None, theirs) => *mine = theirs,
                (Some(_), None) => {}
            }
        }
        for (mine, theirs) in self.completed.iter_mut().zip(other.completed) {
            *mine += theirs;
        }
        for (code, count) in other.errors {
            *self.errors.entry(code).or_default() += count;
        }
        for (code, message) in other.error_messages {
            self.error_messages.entry(code).or_insert(message);
        }
        self.retries += other.retries;
        self.write_gap_ns_max = self.write_gap_ns_max.max(other.write_gap_ns_max);
        self.window.end = self.window.end.max(other.window.end);
    }
}

/// One interval as reported. Latencies in microseconds, over all kinds.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct IntervalSummary {
    /// Requests completed, by kind in the order of [`OpKind::ALL`].
    #[serde(skip)]
    pub completed: [u64; OpKind::ALL.len()],
    /// Requests completed.
    pub requests: u64,
    /// Writes completed.
    pub writes: u64,
    /// Errors.
    pub errors: u64,
    /// Median.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// Slowest.
    pub max_us: f64,
}

/// The phase over time, shared by its threads.
#[derive(Debug, Default)]
pub struct Intervals(Mutex<Vec<Slot>>);

#[derive(Debug, Default)]
struct Slot {
    summary: IntervalSummary,
    latency: Option<Box<Histogram<u64>>>,
}

impl Slot {
    fn summarize(&mut self) {
        if let Some(latency) = self.latency.take() {
            let us = |ns: u64| ns as f64 / 1000.0;
            self.summary.p50_us = us(latency.value_at_quantile(0.5));
            self.summary.p99_us = us(latency.value_at_quantile(0.99));
            self.summary.p999_us = us(latency.value_at_quantile(0.999));
            self.summary.max_us = us(latency.max());
        }
    }
}

impl Intervals {
    fn lock(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one thread's counts of interval `number`, and clears them.
    fn add(&self, number: u64, interval: &mut Interval) {
        let Ok(number) = usize::try_from(number) else {
            return;
        };
        let mut slots = self.lock();
        while slots.len() <= number {
            slots.push(Slot {
                summary: IntervalSummary::default(),
                latency: Some(Box::new(histogram(2))),
            });
            if let Some(old) = slots.len().checked_sub(OPEN_INTERVALS + 1) {
                slots[old].summarize();
            }
        }
        let slot = &mut slots[number];
        for kind in OpKind::ALL {
            let count = interval.completed[kind as usize];
            slot.summary.completed[kind as usize] += count;
            slot.summary.requests += count;
            if kind.writes() {
                slot.summary.writes += count;
            }
        }
        slot.summary.errors += interval.errors;
        if let Some(latency) = &mut slot.latency {
            latency
                .add(&interval.latency)
                .expect("both histograms have the same bounds");
        }
        interval.completed = Default::default();
        interval.errors = 0;
        interval.latency.reset();
    }

    /// The intervals so far.
    pub fn summaries(&self) -> Vec<IntervalSummary> {
        let mut slots = self.lock();
        slots
            .iter_mut()
            .map(|slot| {
                slot.summarize();
                slot.summary.clone()
            })
            .collect()
    }

    /// Of the latest interval that is over: requests, all errors so far, and the 99th percentile
    /// in microseconds.
    pub(crate) fn recent(&self) -> Option<(u64, u64, f64)> {
        let slots = self.lock();
        let slot = &slots[slots.len().checked_sub(2)?];
        let p99_us = slot
            .latency
            .as_ref()
            .map_or(slot.summary.p99_us, |latency| {
                latency.value_at_quantile(0.99) as f64 / 1000.0
            });
        let errors = slots.iter().map(|slot| slot.summary.errors).sum();
        Some((slot.summary.requests, errors, p99_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn the_window_decides_what_counts() {
        let intervals = Intervals::default();
        let mut recorder = Recorder::new(S..3 * S);
        recorder.success(OpKind::Read, S - 1, S + 5, &intervals);
        recorder.success(OpKind::Read, S, S + 1000, &intervals);
        recorder.success(OpKind::Read, 3 * S - 1, 3 * S + 7, &intervals);
        recorder.finish(3 * S, &intervals);
        assert_eq!(recorder.completed[0], 1);
        let latency = recorder.latency[0].as_ref().unwrap();
        assert_eq!((latency.len(), latency.min()), (2, 8));
        assert_eq!(recorder.write_gap_ns_max, 0);
        let summaries = intervals.summaries();
        assert_eq!((summaries.len(), summaries[0].requests), (1, 1));
    }

    #[test]
    fn the_longest_gap_between_writes_is_kept_with_both_ends() {
        let intervals = Intervals::default();
        let mut recorder = Recorder::new(0..10 * S);
        for at in [1, 2, 5] {
            recorder.success(OpKind::Update, at * S, at * S, &intervals);
        }
        assert_eq!(recorder.write_gap_ns_max, 3 * S);
        recorder.finish(10 * S, &intervals);
        assert_eq!(recorder.write_gap_ns_max, 5 * S);
    }

    #[test]
    fn intervals_of_threads_add_up() {
        let intervals = Intervals::default();
        let mut threads = [Recorder::new(0..60 * S), Recorder::new(0..60 * S)];
        for at in 0..40 {
            for recorder in &mut threads {
                recorder.success(OpKind::Read, at * S, at * S + 1000, &intervals);
            }
        }
        let [mut first, mut second] = threads;
        first.finish(40 * S, &intervals);
        second.finish(40 * S, &intervals);
        first.merge(second);
        assert_eq!(first.completed[0], 80);
        let summaries = intervals.summaries();
        assert_eq!(summaries.len(), 39 * 4 + 1);
        assert!(summaries.iter().step_by(4).all(|i| i.requests == 2));
        assert!(summaries[0].p50_us > 0.9 && summaries[0].p50_us < 1.1);
    }
}
