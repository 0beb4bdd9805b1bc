//! The results as a table for people.

use std::fmt::Write as _;

use super::gate::{Bound, Figure, Line, Unit};
use super::results::{Results, Status};

/// A value in its unit.
pub(super) fn show(value: f64, unit: Unit) -> String {
    let short = |value: f64| match value {
        value if value >= 1e6 => format!("{:.2} M", value / 1e6),
        value if value >= 1e4 => format!("{:.0} k", value / 1e3),
        value if value >= 1e3 => format!("{:.1} k", value / 1e3),
        value => format!("{value:.0}"),
    };
    match unit {
        Unit::Us if value >= 1000.0 => format!("{:.2} ms", value / 1e3),
        Unit::Us if value >= 100.0 => format!("{value:.0} µs"),
        Unit::Us => format!("{value:.2} µs"),
        Unit::Ms => format!("{value:.1} ms"),
        Unit::PerSecond => format!("{}/s", short(value)),
        Unit::PerCpuSecond => format!("{}/CPU s", short(value)),
        Unit::Times => format!("{value:.3}"),
        Unit::Bytes => format!("{:.1} MiB", value / f64::from(1 << 20)),
    }
}

fn figure(figure: &Figure) -> String {
    format!("{} {}", figure.side, show(figure.median(), figure.unit))
}

fn verdict(line: &Line) -> &'static str {
    match line.bound {
        Bound::Told => "",
        _ if line.passes() => "pass",
        _ => "MISSED",
    }
}

/// Draws the table.
pub(super) fn draw(results: &Results) -> String {
    let mut rows = vec![[
        "gate".to_string(),
        "measure".to_string(),
        "Ringbolt".to_string(),
        "peer".to_string(),
        "measured (spread)".to_string(),
        "hold to".to_string(),
        String::new(),
    ]];
    for gate in &results.gates {
        if let Status::NotMeasured { why } = &gate.status {
            rows.push([
                gate.number.to_string(),
                gate.title.to_string(),
                String::new(),
                String::new(),
                "not measured".to_string(),
                String::new(),
                why.clone(),
            ]);
        }
        for line in &gate.lines {
            let (min, max) = line.spread();
            rows.push([
                gate.number.to_string(),
                line.what.clone(),
                show(line.ours.median(), line.ours.unit),
                line.theirs.as_ref().map(figure).unwrap_or_default(),
                format!("{:.3} ({min:.3}–{max:.3})", line.median()),
                line.bound.to_string(),
                verdict(line).to_string(),
            ]);
        }
    }
    let widths: Vec<usize> = (0..7)
        .map(|column| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = format!("\n{} form, {}\n\n", results.form, results.machine);
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let pad = width - cell.chars().count().min(*width);
            write!(line, "{cell}{}  ", " ".repeat(pad)).expect("writing to a String cannot fail");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
