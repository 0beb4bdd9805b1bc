//! What a run came to, and how it is told: text, JSON, HdrHistogram percentiles, HTML.

use std::collections::BTreeMap;
use std::io::{self, Write};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::Options;
use crate::procfs::Usage;
use crate::source::OpKind;
use crate::source::verify::Checks;
use crate::stats::{INTERVAL_NS, IntervalSummary, Recorder, histogram};

mod chart;
mod html;
mod text;

/// The preload.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct PreloadSummary {
    /// Records written.
    pub records: u64,
    /// How long it took.
    pub seconds: f64,
    /// Records per second.
    pub records_per_second: f64,
}

/// Latencies and throughput of one kind of request. Latencies in microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct KindSummary {
    /// [`OpKind::name`], or `all`.
    pub kind: &'static str,
    /// Requests completed within the window.
    pub requests: u64,
    /// The same per second.
    pub per_second: f64,
    /// Mean.
    pub mean_us: f64,
    /// Fastest.
    pub min_us: f64,
    /// Median.
    pub p50_us: f64,
    /// 90th percentile.
    pub p90_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// 99.99th percentile.
    pub p9999_us: f64,
    /// Slowest.
    pub max_us: f64,
}

impl KindSummary {
    fn new(kind: &'static str, requests: u64, seconds: f64, latency: &Histogram<u64>) -> Self {
        let us = |quantile| latency.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            kind,
            requests,
            per_second: per(requests as f64, seconds),
            mean_us: latency.mean() / 1000.0,
            min_us: latency.min() as f64 / 1000.0,
            p50_us: us(0.5),
            p90_us: us(0.9),
            p99_us: us(0.99),
            p999_us: us(0.999),
            p9999_us: us(0.9999),
            max_us: latency.max() as f64 / 1000.0,
        }
    }
}

/// What a process used during the measured window.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ProcessSummary {
    /// CPU time per request completed, user and system, in microseconds.
    pub cpu_us_per_request: f64,
    /// CPU time in user mode, in seconds.
    pub user_seconds: f64,
    /// CPU time in the kernel, in seconds.
    pub system_seconds: f64,
    /// CPU time per second: 1.0 is one whole core.
    pub cores: f64,
    /// Bytes fetched from storage.
    pub read_bytes: u64,
    /// Bytes sent to storage.
    pub write_bytes: u64,
    /// Most resident memory seen during the window, in bytes.
    pub rss_bytes: u64,
    /// Most resident memory since the process began, in bytes.
    pub rss_bytes_max: u64,
}

/// What was measured beside the requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub seconds: f64,
    pub sampled_seconds: f64,
    pub server: Option<Usage>,
    pub generator: Usage,
}

/// What [`Report::new`] is made of.
pub(crate) struct Parts {
    pub recorder: Recorder,
    pub measured: Measured,
    pub intervals: Vec<IntervalSummary>,
    pub absent: u64,
    pub rows: u64,
    pub preload: Option<PreloadSummary>,
    pub checks: Option<Checks>,
    pub interrupted: Option<String>,
}

/// What was asked for.
#[derive(Debug, Clone, Serialize)]
pub struct Setup {
    /// `ringbolt` or `redis`.
    pub protocol: String,
    /// Where the server is.
    pub addr: String,
    /// The workload.
    pub workload: String,
    /// How keys are drawn.
    pub distribution: String,
    /// Connections.
    pub connections: usize,
    /// Unanswered requests per connection, at most.
    pub depth: usize,
    /// Generator threads.
    pub threads: usize,
    /// Records.
    pub records: u64,
    /// Value size in bytes: least and most.
    pub value_bytes: [u32; 2],
    /// Open loop: requests per second asked for.
    pub rate: Option<f64>,
    /// Seed.
    pub seed: u64,
}

impl Setup {
    fn new(options: &Options) -> Self {
        Self {
            protocol: options.protocol.to_string(),
            addr: options.addr.clone(),
            workload: options.workload.to_string(),
            distribution: options.distribution().to_string(),
            connections: options.connections,
            depth: options.depth,
            threads: options.threads,
            records: options.records,
            value_bytes: [*options.value_bytes.start(), *options.value_bytes.end()],
            rate: options.rate,
            seed: options.seed,
        }
    }
}

/// A run's result. Serialized, it is what `--json` prints.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What was asked for.
    pub setup: Setup,
    /// The preload, if there was one.
    pub preload: Option<PreloadSummary>,
    /// Length of the measured window.
    pub seconds: f64,
    /// All requests together.
    pub all: KindSummary,
    /// Each kind that occurred.
    pub kinds: Vec<KindSummary>,
    /// Requests failed, by code. A request that was sent again counts each time it was refused.
    pub errors: BTreeMap<String, u64>,
    /// One message for each code.
    pub error_messages: BTreeMap<String, String>,
    /// Requests sent again because the server said to.
    pub retries: u64,
    /// Reads that found no record.
    pub absent: u64,
    /// Rows that scans returned.
    pub rows: u64,
    /// Longest time without an acknowledged write, in milliseconds; 0 if nothing was written.
    pub write_gap_ms_max: f64,
    /// Requests of the slowest whole second (any, not only full ones of the clock), over the
    /// mean; `None` for runs under 2 s.
    pub worst_second_to_mean: Option<f64>,
    /// The server's process, if `--server-pid` was given.
    pub server: Option<ProcessSummary>,
    /// The generator's own process.
    pub generator: ProcessSummary,
    /// What checking came to, in a verified run.
    pub checks: Option<Checks>,
    /// Why the run ended before its time.
    pub interrupted: Option<String>,
    /// Length of an interval.
    pub interval_seconds: f64,
    /// The run over time.
    pub intervals: Vec<IntervalSummary>,
    /// Latencies of all kinds, in nanoseconds.
    #[serde(skip)]
    pub latency: Histogram<u64>,
    /// Latencies of each kind that occurred, in nanoseconds.
    #[serde(skip)]
    pub latency_by_kind: Vec<(OpKind, Histogram<u64>)>,
}

fn per(amount: f64, of: f64) -> f64 {
    if of > 0.0 { amount / of } else { 0.0 }
}

impl Report {
    pub(crate) fn new(options: &Options, parts: Parts) -> Self {
        let Parts {
            recorder,
            measured,
            intervals,
            absent,
            rows,
            preload,
            checks,
            interrupted,
        } = parts;
        let seconds = measured.seconds;
        let mut latency = histogram(3);
        let mut latency_by_kind = Vec::new();
        let mut kinds = Vec::new();
        for (kind, own) in OpKind::ALL.into_iter().zip(recorder.latency) {
            let Some(own) = own else { continue };
            latency
                .add(&*own)
                .expect("all histograms have the same bounds");
            let requests = recorder.completed[kind as usize];
            kinds.push(KindSummary::new(kind.name(), requests, seconds, &own));
            latency_by_kind.push((kind, *own));
        }
        let requests = recorder.completed.iter().sum();
        let process = |usage: Usage| {
            let sampled = measured.sampled_seconds;
            let cpu_seconds = usage.cpu_us() as f64 / 1e6;
            ProcessSummary {
                cpu_us_per_request: per(usage.cpu_us() as f64, requests as f64),
                user_seconds: usage.user_us as f64 / 1e6,
                system_seconds: usage.system_us as f64 / 1e6,
                cores: per(cpu_seconds, sampled),
                read_bytes: usage.read_bytes,
                write_bytes: usage.write_bytes,
                rss_bytes: usage.rss_bytes,
                rss_bytes_max: usage.rss_bytes_max,
            }
        };
        let text = |(code, value): (std::borrow::Cow<'static, str>, _)| (code.into_owned(), value);
        Self {
            setup: Setup::new(options),
            preload,
            seconds,
            all: KindSummary::new("all", requests, seconds, &latency),
            kinds,
            errors: recorder
                .errors
                .into_iter()
                .map(|(code, count)| (code.into_owned(), count))
                .collect(),
            error_messages: recorder.error_messages.into_iter().map(text).collect(),
            retries: recorder.retries,
            absent,
            rows,
            write_gap_ms_max: recorder.write_gap_ns_max as f64 / 1e6,
            worst_second_to_mean: worst_second(&intervals, seconds)
                .map(|worst| per(worst as f64, per(requests as f64, seconds))),
            server: measured.server.map(process),
            generator: process(measured.generator),
            checks,
            interrupted,
            interval_seconds: INTERVAL_NS as f64 / 1e9,
            intervals,
            latency,
            latency_by_kind,
        }
    }

    /// Of a run that only preloaded.
    pub(crate) fn of_preload(options: &Options, preload: PreloadSummary) -> Self {
        Self::new(
            options,
            Parts {
                recorder: Recorder::new(0..0),
                measured: Measured {
                    seconds: 0.0,
                    sampled_seconds: 0.0,
                    server: None,
                    generator: Usage::default(),
                },
                intervals: Vec::new(),
                absent: 0,
                rows: 0,
                preload: Some(preload),
                checks: None,
                interrupted: None,
            },
        )
    }

    /// Whether the run did what it was to do: something succeeded, nothing that was checked was
    /// wrong, everything was read back, and it was not interrupted.
    pub fn passed(&self) -> bool {
        let did = self.preload.is_some() || self.all.requests > 0 || self.checks.is_some();
        let right = self
            .checks
            .as_ref()
            .is_none_or(|checks| checks.violations == 0 && checks.unread == 0);
        did && right && self.interrupted.is_none()
    }

    /// For people.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        text::write(self, out)
    }

    /// One JSON object, over several lines.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, self)?;
        writeln!(out)
    }

    /// The latency distribution as HdrHistogram's tools write it, in milliseconds; what its
    /// plotter reads.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_hgrm(&self, out: &mut impl Write) -> io::Result<()> {
        const MS: f64 = 1e6;
        writeln!(
            out,
            "{:>12} {:>14} {:>10} {:>14}\n",
            "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
        )?;
        let mut total = 0;
        for step in self.latency.iter_quantiles(5) {
            total += step.count_since_last_iteration();
            let value = step.value_iterated_to() as f64 / MS;
            let quantile = step.quantile();
            write!(out, "{value:>12.3} {quantile:>14.12} {total:>10}")?;
            if quantile < 1.0 {
                write!(out, " {:>14.2}", 1.0 / (1.0 - quantile))?;
            }
            writeln!(out)?;
        }
        writeln!(
            out,
            "#[Mean    = {:>12.3}, StdDeviation   = {:>12.3}]",
            self.latency.mean() / MS,
            self.latency.stdev() / MS
        )?;
        writeln!(
            out,
            "#[Max     = {:>12.3}, Total count    = {:>12}]",
            self.latency.max() as f64 / MS,
            self.latency.len()
        )?;
        let (buckets, sub_buckets) = buckets(&self.latency);
        writeln!(
            out,
            "#[Buckets = {buckets:>12}, SubBuckets     = {sub_buckets:>12}]"
        )
    }

    /// One self-contained page.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_html(&self, out: &mut impl Write) -> io::Result<()> {
        html::write(self, out)
    }
}

/// The histogram's inner shape, which HdrHistogram's tools print.
fn buckets(latency: &Histogram<u64>) -> (u32, u32) {
    let digits = u32::from(latency.sigfig());
    let sub_buckets = (2 * 10u32.pow(digits)).next_power_of_two();
    let buckets = (latency.high() / u64::from(sub_buckets)).max(1).ilog2() + 2;
    (buckets, sub_buckets)
}

/// Requests of the slowest second, any four intervals in a row within the window.
fn worst_second(intervals: &[IntervalSummary], seconds: f64) -> Option<u64> {
    let per_second = (1_000_000_000 / INTERVAL_NS) as usize;
    let whole = (seconds * per_second as f64).floor() as usize;
    if whole < 2 * per_second {
        return None;
    }
    let requests = |at: usize| intervals.get(at).map_or(0, |interval| interval.requests);
    (0..=whole - per_second)
        .map(|from| (from..from + per_second).map(requests).sum())
        .min()
}

#[cfg(test)]
mod tests;
