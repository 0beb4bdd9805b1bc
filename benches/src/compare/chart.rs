//! The chart that README shows: Ringbolt and its peer side by side for each measure that has one,
//! each pair scaled to its larger bar. Light background, no external resources.

use std::fmt::Write as _;

use super::gate::{Bound, Figure, Line};
use super::results::Results;
use super::table::show;

const WIDTH: f64 = 980.0;
const LABELS: f64 = 390.0;
const BARS: f64 = 300.0;
const ROW: f64 = 52.0;
const BAR: f64 = 16.0;
const TOP: f64 = 62.0;
const BOTTOM: f64 = 40.0;

const STYLE: &str = "text{font-family:system-ui,'Segoe UI',Roboto,sans-serif;font-size:13px;\
    fill:#1c1e21}.title{font-size:17px;font-weight:600}.soft{fill:#646a73;font-size:12px}\
    .ours{fill:#2563c9}.theirs{fill:#b9bec6}.pass{fill:#1a7f4b;font-weight:600}\
    .missed{fill:#b42318;font-weight:600}";

/// Draws the chart.
pub(super) fn draw(results: &Results) -> String {
    let lines: Vec<(u8, &Line, &Figure)> = results
        .gates
        .iter()
        .flat_map(|gate| gate.lines.iter().map(move |line| (gate.number, line)))
        .filter(|(_, line)| line.bound != Bound::Told)
        .filter_map(|(gate, line)| line.theirs.as_ref().map(|theirs| (gate, line, theirs)))
        .collect();
    let height = TOP + ROW * lines.len() as f64 + BOTTOM;
    let mut svg = String::new();
    let mut put = |text: std::fmt::Arguments<'_>| {
        svg.write_fmt(text)
            .expect("writing to a String cannot fail");
    };
    put(format_args!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" aria-label="Ringbolt and its peers"><style>{STYLE}</style><rect width="{WIDTH}" height="{height}" fill="white"/><text class="title" x="20" y="30">Ringbolt beside its peers</text><text class="soft" x="20" y="48">Same machine, same durability, one server core, turn by turn. Each pair of bars has its own scale.</text>"#
    ));
    for (number, (gate, line, theirs)) in lines.iter().enumerate() {
        let y = TOP + ROW * number as f64;
        let (ours_value, theirs_value) = (line.ours.median(), theirs.median());
        let most = ours_value.max(theirs_value).max(1e-12);
        let verdict = if line.passes() { "pass" } else { "missed" };
        put(format_args!(
            r#"<text x="20" y="{:.0}">{}</text><text class="soft" x="20" y="{:.0}">gate {gate}, held to {}</text>"#,
            y + 17.0,
            escape(&line.what),
            y + 33.0,
            escape(&line.bound.to_string()),
        ));
        let bars = [
            (&line.ours, ours_value, "ours"),
            (theirs, theirs_value, "theirs"),
        ];
        for (bar, (figure, value, class)) in bars.into_iter().enumerate() {
            let at = y + 4.0 + (BAR + 4.0) * bar as f64;
            let length = (value / most * BARS).max(1.0);
            put(format_args!(
                r#"<rect class="{class}" x="{LABELS}" y="{at:.1}" width="{length:.1}" height="{BAR}" rx="2"/><text class="soft" x="{:.1}" y="{:.1}">{} {}</text>"#,
                LABELS + length + 8.0,
                at + 12.5,
                escape(figure.side),
                escape(&show(value, figure.unit)),
            ));
        }
        put(format_args!(
            r#"<text class="{verdict}" x="{:.0}" y="{:.0}" text-anchor="end">{:.2}×</text>"#,
            WIDTH - 20.0,
            y + 26.0,
            line.median(),
        ));
    }
    put(format_args!(
        r#"<text class="soft" x="20" y="{:.0}">{} form, {}</text></svg>"#,
        height - 16.0,
        results.form,
        escape(&results.machine),
    ));
    svg.push('\n');
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
