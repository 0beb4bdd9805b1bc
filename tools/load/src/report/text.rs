//! The report for people.

use std::io::{self, Write};

use super::{KindSummary, ProcessSummary, Report};

/// Microseconds as people like them.
pub(super) fn time(us: f64) -> String {
    match us {
        us if us >= 10_000_000.0 => format!("{:.1} s", us / 1e6),
        us if us >= 1_000_000.0 => format!("{:.2} s", us / 1e6),
        us if us >= 10_000.0 => format!("{:.1} ms", us / 1e3),
        us if us >= 1_000.0 => format!("{:.2} ms", us / 1e3),
        us if us >= 100.0 => format!("{us:.0} µs"),
        us => format!("{us:.1} µs"),
    }
}

/// A count as people like it.
pub(super) fn count(n: f64) -> String {
    match n {
        n if n >= 10_000_000.0 => format!("{:.1} M", n / 1e6),
        n if n >= 1_000_000.0 => format!("{:.2} M", n / 1e6),
        n if n >= 10_000.0 => format!("{:.1} k", n / 1e3),
        n if n >= 1_000.0 => format!("{:.2} k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

/// Bytes as people like them.
pub(super) fn bytes(n: u64) -> String {
    let n = n as f64;
    for (unit, size) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        let size = f64::from(1u32 << size);
        if n >= size {
            return format!("{:.1} {unit}", n / size);
        }
    }
    format!("{n} B")
}

pub(super) fn write(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let setup = &report.setup;
    let loop_kind = match setup.rate {
        Some(rate) => format!("open loop, {}/s asked", count(rate)),
        None => "closed loop".to_string(),
    };
    writeln!(
        out,
        "{} at {}: {}, {} keys of {} records, {} connections × depth {}, {loop_kind}",
        setup.protocol,
        setup.addr,
        setup.workload,
        setup.distribution,
        count(setup.records as f64),
        setup.connections,
        setup.depth,
    )?;
    if let Some(preload) = report.preload {
        writeln!(
            out,
            "preload     {} records in {:.1} s, {}/s",
            count(preload.records as f64),
            preload.seconds,
            count(preload.records_per_second)
        )?;
    }
    if report.all.requests > 0 {
        writeln!(
            out,
            "\n{:18} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
            "", "per second", "p50", "p90", "p99", "p99.9", "p99.99", "max"
        )?;
        if report.kinds.len() > 1 {
            for kind in &report.kinds {
                line(out, kind)?;
            }
        }
        line(out, &report.all)?;
        writeln!(
            out,
            "\nrequests    {} in {:.1} s",
            count(report.all.requests as f64),
            report.seconds
        )?;
    }
    if let Some(ratio) = report.worst_second_to_mean {
        writeln!(
            out,
            "evenness    worst second {:.0} % of the mean",
            ratio * 100.0
        )?;
    }
    if report.write_gap_ms_max > 0.0 {
        writeln!(
            out,
            "writes      longest time without an acknowledgement {}",
            time(report.write_gap_ms_max * 1000.0)
        )?;
    }
    if report.absent > 0 {
        writeln!(out, "absent      {} reads found no record", report.absent)?;
    }
    if report.rows > 0 {
        writeln!(out, "rows        {} scanned", count(report.rows as f64))?;
    }
    if let Some(server) = &report.server {
        process(out, "server", server)?;
    }
    if report.all.requests > 0 {
        process(out, "generator", &report.generator)?;
    }
    if report.retries > 0 {
        writeln!(out, "retries     {}", report.retries)?;
    }
    for (code, count) in &report.errors {
        let message = report.error_messages.get(code).map_or("", String::as_str);
        writeln!(out, "error       {code} × {count}: {message}")?;
    }
    if let Some(checks) = &report.checks {
        writeln!(
            out,
            "checked     {} reads, {} writes acknowledged, {} were in doubt, {} records read back",
            checks.reads, checks.acknowledged, checks.in_doubt, checks.read_back
        )?;
        if checks.unread > 0 {
            writeln!(
                out,
                "UNREAD      {} records could not be read back",
                checks.unread
            )?;
        }
        for violation in &checks.details {
            writeln!(
                out,
                "VIOLATION   {} {}: {}",
                violation.kind, violation.key, violation.what
            )?;
        }
        let shown = checks.details.len() as u64;
        if checks.violations > shown {
            writeln!(out, "            … and {} more", checks.violations - shown)?;
        }
        let verdict = if checks.violations > 0 {
            "FAILED      the server did not keep what it acknowledged"
        } else if checks.unread > 0 {
            "FAILED      not everything could be checked"
        } else {
            "verified    every read was right, and every acknowledged write is there"
        };
        writeln!(out, "{verdict}")?;
    }
    if let Some(why) = &report.interrupted {
        writeln!(out, "INTERRUPTED {why}")?;
    }
    Ok(())
}

fn line(out: &mut impl Write, kind: &KindSummary) -> io::Result<()> {
    writeln!(
        out,
        "{:18} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
        kind.kind,
        count(kind.per_second),
        time(kind.p50_us),
        time(kind.p90_us),
        time(kind.p99_us),
        time(kind.p999_us),
        time(kind.p9999_us),
        time(kind.max_us)
    )
}

fn process(out: &mut impl Write, name: &str, usage: &ProcessSummary) -> io::Result<()> {
    write!(
        out,
        "{name:11} {:.2} µs CPU per request, {:.2} cores ({:.1} s user, {:.1} s system), {} resident",
        usage.cpu_us_per_request,
        usage.cores,
        usage.user_seconds,
        usage.system_seconds,
        bytes(usage.rss_bytes)
    )?;
    if usage.read_bytes > 0 || usage.write_bytes > 0 {
        write!(
            out,
            ", {} read, {} written",
            bytes(usage.read_bytes),
            bytes(usage.write_bytes)
        )?;
    }
    writeln!(out)
}
