//! The report as one self-contained page: tables, and three charts as inline SVG. No script, no
//! font, nothing from outside.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::chart::{Axis, Scale, Series, draw};
use super::text::{bytes, count, time};
use super::{ProcessSummary, Report};
use crate::stats::IntervalSummary;

/// Most points of a line over time; more intervals are drawn together.
const POINTS_MAX: usize = 600;

const STYLE: &str = "
:root { color-scheme: light dark;
  --page: #fbfbfa; --card: #ffffff; --ink: #1c1e21; --soft: #646a73; --line: #e3e4e6;
  --s1: #2563c9; --s2: #c2610c; --s3: #8b3fb0; --bad: #b42318; --good: #1a7f4b; }
@media (prefers-color-scheme: dark) { :root {
  --page: #15171a; --card: #1d2024; --ink: #e8eaed; --soft: #9aa1ab; --line: #30343a;
  --s1: #7aa7f5; --s2: #f0a35e; --s3: #cb93e8; --bad: #ff8f85; --good: #6fcf97; } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif }
main { max-width: 960px; margin: 0 auto; padding: 32px 20px 64px }
h1 { font-size: 24px; margin: 0 0 4px } h2 { font-size: 16px; margin: 0 0 12px }
.soft, .tick, .label { color: var(--soft); fill: var(--soft) }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 18px 20px; margin-top: 18px; overflow-x: auto }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 14px }
.figures b { display: block; font-size: 24px; font-weight: 600; line-height: 1.25 }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: 5px 8px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap }
th { font-weight: 500; color: var(--soft) } th:first-child, td:first-child { text-align: left }
tr:last-child td { border-bottom: 0 } td.text { white-space: normal; text-align: left }
svg { display: block; width: 100%; height: auto } svg text { font-size: 12px }
.grid { stroke: var(--line) } .axis, .mark { stroke: var(--soft) }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round }
.line.s1 { stroke: var(--s1) } .line.s2 { stroke: var(--s2) } .line.s3 { stroke: var(--s3) }
.legend { margin: 8px 0 0; color: var(--soft); font-size: 13px }
.legend span { margin-right: 18px }
.legend i { display: inline-block; width: 14px; height: 3px; margin-right: 6px; vertical-align: middle }
i.s1 { background: var(--s1) } i.s2 { background: var(--s2) } i.s3 { background: var(--s3) }
.bad { color: var(--bad) } .good { color: var(--good) }
";

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

pub(super) fn write(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let setup = &report.setup;
    let title = escape(&format!("{} · {}", setup.protocol, setup.workload));
    writeln!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head><body><main>"
    )?;
    let loop_kind = match setup.rate {
        Some(rate) => format!("open loop at {}/s", count(rate)),
        None => "closed loop".to_string(),
    };
    writeln!(
        out,
        "<h1>{title}</h1><div class=\"soft\">{}, {} keys of {} records, {} connections × depth {}, \
         {loop_kind}, {:.1} s</div>",
        escape(&setup.addr),
        escape(&setup.distribution),
        count(setup.records as f64),
        setup.connections,
        setup.depth,
        report.seconds,
    )?;
    figures(report, out)?;
    checks(report, out)?;
    if report.all.requests > 0 {
        section(out, "Latency by percentile", &percentiles(report))?;
        let points = thin(&report.intervals, report.seconds, report.interval_seconds);
        if !points.is_empty() {
            section(out, "Throughput over time", &throughput(&points))?;
            section(out, "Latency over time", &latency(&points))?;
        }
        kinds(report, out)?;
    }
    errors(report, out)?;
    writeln!(out, "</main></body></html>")
}

fn section(out: &mut impl Write, title: &str, body: &str) -> io::Result<()> {
    writeln!(out, "<section><h2>{title}</h2>{body}</section>")
}

fn figures(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let mut figures = Vec::new();
    if let Some(preload) = report.preload {
        figures.push(("preload per second", count(preload.records_per_second)));
    }
    if report.all.requests > 0 {
        figures.push(("requests per second", count(report.all.per_second)));
        figures.push(("median", time(report.all.p50_us)));
        figures.push(("p99", time(report.all.p99_us)));
        figures.push(("p99.9", time(report.all.p999_us)));
    }
    let cpu = |usage: &ProcessSummary| format!("{:.2} µs", usage.cpu_us_per_request);
    if let Some(server) = &report.server {
        figures.push(("server CPU per request", cpu(server)));
        figures.push(("server memory", bytes(server.rss_bytes)));
    }
    if report.write_gap_ms_max > 0.0 {
        let gap = time(report.write_gap_ms_max * 1000.0);
        figures.push(("longest gap between writes", gap));
    }
    let mut body = String::from("<div class=\"figures\">");
    for (name, value) in figures {
        write!(
            body,
            "<div><b>{value}</b><span class=\"soft\">{name}</span></div>"
        )
        .expect("writing to a String cannot fail");
    }
    body.push_str("</div>");
    writeln!(out, "<section>{body}</section>")
}

fn checks(report: &Report, out: &mut impl Write) -> io::Result<()> {
    if let Some(why) = &report.interrupted {
        let why = escape(why);
        section(
            out,
            "Interrupted",
            &format!("<span class=\"bad\">{why}</span>"),
        )?;
    }
    let Some(checks) = &report.checks else {
        return Ok(());
    };
    let mut body = format!(
        "<p>{} reads checked, {} writes acknowledged, {} were in doubt, {} records read back.</p>",
        checks.reads, checks.acknowledged, checks.in_doubt, checks.read_back
    );
    if checks.violations == 0 && checks.unread == 0 {
        body.push_str("<b class=\"good\">Every acknowledged write is there.</b>");
    } else {
        write!(
            body,
            "<b class=\"bad\">{} violations, {} records unread.</b><table>",
            checks.violations, checks.unread
        )
        .expect("writing to a String cannot fail");
        for violation in &checks.details {
            write!(
                body,
                "<tr><td>{}</td><td>{}</td><td class=\"text\">{}</td></tr>",
                violation.kind,
                escape(&violation.key),
                escape(&violation.what)
            )
            .expect("writing to a String cannot fail");
        }
        body.push_str("</table>");
    }
    section(out, "Verification", &body)
}

/// The percentile curve: the x axis is 1/(1-percentile), so that each further nine is one step.
fn percentiles(report: &Report) -> String {
    let latency = &report.latency;
    let nines = (latency.len().max(10) as f64)
        .log10()
        .ceil()
        .clamp(2.0, 7.0) as i32;
    let steps = nines * 40;
    let points: Vec<(f64, f64)> = (0..=steps)
        .map(|step| {
            let inverse = 10f64.powf(f64::from(step) / 40.0);
            let quantile = 1.0 - 1.0 / inverse;
            (inverse, latency.value_at_quantile(quantile) as f64 / 1000.0)
        })
        .collect();
    let name = |inverse: f64| match inverse.log10().round() as i32 {
        0 => "0 %".to_string(),
        1 => "90 %".to_string(),
        2 => "99 %".to_string(),
        power => format!("99.{} %", "9".repeat((power - 2) as usize)),
    };
    let x = Axis {
        label: "percentile",
        scale: Scale::Log,
        min: 1.0,
        max: 10f64.powi(nines),
        ticks: (0..=nines)
            .map(|power| 10f64.powi(power))
            .map(|value| (value, name(value)))
            .collect(),
    };
    let y = log_axis("latency", points.iter().map(|point| point.1));
    let series = Series {
        name: "latency",
        points,
    };
    draw("Latency by percentile", &x, &y, &[series])
}

fn log_axis(label: &'static str, values: impl Iterator<Item = f64>) -> Axis {
    let (mut min, mut max) = (f64::MAX, 0.0f64);
    for value in values.filter(|&value| value > 0.0) {
        min = min.min(value);
        max = max.max(value);
    }
    if max == 0.0 {
        (min, max) = (1.0, 10.0);
    }
    Axis::log(label, min, max, time)
}

/// One point of the lines over time.
struct Point {
    second: f64,
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
}

/// The intervals that are wholly within the window, some together if there are many. Percentiles
/// of intervals drawn together are the worst of them.
fn thin(intervals: &[IntervalSummary], seconds: f64, interval_seconds: f64) -> Vec<Point> {
    let whole = ((seconds / interval_seconds).floor() as usize).min(intervals.len());
    let together = whole.div_ceil(POINTS_MAX).max(1);
    intervals[..whole]
        .chunks_exact(together)
        .enumerate()
        .map(|(number, chunk)| {
            let worst = |of: fn(&IntervalSummary) -> f64| chunk.iter().map(of).fold(0.0, f64::max);
            let requests: u64 = chunk.iter().map(|interval| interval.requests).sum();
            let length = interval_seconds * together as f64;
            Point {
                second: number as f64 * length,
                per_second: requests as f64 / length,
                p50_us: worst(|interval| interval.p50_us),
                p99_us: worst(|interval| interval.p99_us),
                max_us: worst(|interval| interval.max_us),
            }
        })
        .collect()
}

fn seconds_axis(points: &[Point]) -> Axis {
    let last = points.last().map_or(1.0, |point| point.second);
    Axis {
        max: last.max(0.25),
        ..Axis::linear("seconds", last, |value| {
            format!("{}", (value * 100.0).round() / 100.0)
        })
    }
    .within()
}

impl Axis {
    /// Without the ticks past its end.
    fn within(mut self) -> Self {
        self.ticks.retain(|(value, _)| *value <= self.max);
        self
    }
}

fn throughput(points: &[Point]) -> String {
    let most = points
        .iter()
        .map(|point| point.per_second)
        .fold(1.0, f64::max);
    let series = Series {
        name: "requests per second",
        points: points.iter().map(|p| (p.second, p.per_second)).collect(),
    };
    draw(
        "Throughput over time",
        &seconds_axis(points),
        &Axis::linear("requests per second", most, count),
        &[series],
    )
}

fn latency(points: &[Point]) -> String {
    let line = |name, of: fn(&Point) -> f64| Series {
        name,
        points: points
            .iter()
            .map(|point| (point.second, of(point)))
            .collect(),
    };
    let lines = [
        line("p50", |point| point.p50_us),
        line("p99", |point| point.p99_us),
        line("max", |point| point.max_us),
    ];
    let y = log_axis(
        "latency",
        points.iter().flat_map(|point| [point.p50_us, point.max_us]),
    );
    draw("Latency over time", &seconds_axis(points), &y, &lines)
}

fn kinds(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let mut body = String::from(
        "<table><tr><th></th><th>requests</th><th>per second</th><th>p50</th><th>p90</th>\
         <th>p99</th><th>p99.9</th><th>p99.99</th><th>max</th></tr>",
    );
    let all = (report.kinds.len() > 1).then_some(&report.all);
    for kind in report.kinds.iter().chain(all) {
        write!(
            body,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{}</td><td>{}</td></tr>",
            kind.kind,
            count(kind.requests as f64),
            count(kind.per_second),
            time(kind.p50_us),
            time(kind.p90_us),
            time(kind.p99_us),
            time(kind.p999_us),
            time(kind.p9999_us),
            time(kind.max_us),
        )
        .expect("writing to a String cannot fail");
    }
    body.push_str("</table>");
    section(out, "By kind of request", &body)
}

fn errors(report: &Report, out: &mut impl Write) -> io::Result<()> {
    if report.errors.is_empty() {
        return Ok(());
    }
    let mut body = String::from("<table><tr><th>code</th><th>times</th><th></th></tr>");
    for (code, times) in &report.errors {
        let message = report.error_messages.get(code).map_or("", String::as_str);
        write!(
            body,
            "<tr><td>{}</td><td>{times}</td><td class=\"text\">{}</td></tr>",
            escape(code),
            escape(message)
        )
        .expect("writing to a String cannot fail");
    }
    body.push_str("</table>");
    section(out, "Errors", &body)
}
