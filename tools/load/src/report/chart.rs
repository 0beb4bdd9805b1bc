//! Line charts as SVG. Colours are classes (`s1`, `s2`, …), which the page's style sheet gives for
//! light and dark.

use std::fmt::Write;

const WIDTH: f64 = 880.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 44.0;

/// How values become positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    Log,
}

/// One axis.
#[derive(Debug)]
pub(super) struct Axis {
    pub label: &'static str,
    pub scale: Scale,
    pub min: f64,
    pub max: f64,
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From 0 to a round number above `max`.
    pub fn linear(label: &'static str, max: f64, name: impl Fn(f64) -> String) -> Self {
        let step = round_step(max.max(1e-9) / 5.0);
        let steps = (max / step).ceil().max(1.0) as u32;
        Self {
            label,
            scale: Scale::Linear,
            min: 0.0,
            max: step * f64::from(steps),
            ticks: (0..=steps)
                .map(|i| step * f64::from(i))
                .map(|value| (value, name(value)))
                .collect(),
        }
    }

    /// Decades around `min..=max`, both above 0.
    pub fn log(label: &'static str, min: f64, max: f64, name: impl Fn(f64) -> String) -> Self {
        let from = min.max(1e-3).log10().floor() as i32;
        let to = (max.max(1e-3).log10().ceil() as i32).max(from + 1);
        Self {
            label,
            scale: Scale::Log,
            min: 10f64.powi(from),
            max: 10f64.powi(to),
            ticks: (from..=to)
                .map(|power| 10f64.powi(power))
                .map(|value| (value, name(value)))
                .collect(),
        }
    }

    /// Where in 0..=1 a value lies.
    fn place(&self, value: f64) -> f64 {
        let (value, min, max) = match self.scale {
            Scale::Linear => (value, self.min, self.max),
            Scale::Log => (
                value.max(self.min).log10(),
                self.min.log10(),
                self.max.log10(),
            ),
        };
        ((value - min) / (max - min).max(1e-12)).clamp(0.0, 1.0)
    }
}

/// 1, 2 or 5 times a power of ten, at least `rough`.
fn round_step(rough: f64) -> f64 {
    let power = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|&step| step >= rough * 0.999_999)
        .unwrap_or(10.0 * power)
}

/// One line. Its colour is the class `s` + its place in the chart, from 1.
#[derive(Debug)]
pub(super) struct Series {
    pub name: &'static str,
    pub points: Vec<(f64, f64)>,
}

/// Draws a chart.
pub(super) fn draw(label: &str, x: &Axis, y: &Axis, series: &[Series]) -> String {
    let across = |value: f64| LEFT + x.place(value) * (WIDTH - LEFT - RIGHT);
    let up = |value: f64| HEIGHT - BOTTOM - y.place(value) * (HEIGHT - TOP - BOTTOM);
    let mut svg = String::new();
    let mut put = |text: std::fmt::Arguments<'_>| {
        svg.write_fmt(text)
            .expect("writing to a String cannot fail");
    };
    put(format_args!(
        r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">"#
    ));
    for (value, name) in &y.ticks {
        let at = up(*value);
        put(format_args!(
            r#"<line class="grid" x1="{LEFT}" x2="{:.1}" y1="{at:.1}" y2="{at:.1}"/><text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{name}</text>"#,
            WIDTH - RIGHT,
            LEFT - 8.0,
            at + 4.0,
        ));
    }
    for (value, name) in &x.ticks {
        let at = across(*value);
        put(format_args!(
            r#"<line class="mark" x1="{at:.1}" x2="{at:.1}" y1="{:.1}" y2="{:.1}"/><text class="tick" x="{at:.1}" y="{:.1}" text-anchor="middle">{name}</text>"#,
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 5.0,
            HEIGHT - BOTTOM + 19.0,
        ));
    }
    put(format_args!(
        r#"<line class="axis" x1="{LEFT}" x2="{:.1}" y1="{at:.1}" y2="{at:.1}"/>"#,
        WIDTH - RIGHT,
        at = HEIGHT - BOTTOM,
    ));
    put(format_args!(
        r#"<text class="label" x="{:.1}" y="{:.1}" text-anchor="middle">{}</text><text class="label" x="14" y="{:.1}" text-anchor="middle" transform="rotate(-90 14 {:.1})">{}</text>"#,
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 6.0,
        x.label,
        (TOP + HEIGHT - BOTTOM) / 2.0,
        (TOP + HEIGHT - BOTTOM) / 2.0,
        y.label,
    ));
    for (number, line) in series.iter().enumerate() {
        put(format_args!(
            r#"<polyline class="line s{}" points=""#,
            number + 1
        ));
        for &(px, py) in &line.points {
            put(format_args!("{:.1},{:.1} ", across(px), up(py)));
        }
        put(format_args!(r#""><title>{}</title></polyline>"#, line.name));
    }
    put(format_args!("</svg>"));
    if series.len() > 1 {
        put(format_args!(r#"<p class="legend">"#));
        for (number, line) in series.iter().enumerate() {
            put(format_args!(
                r#"<span><i class="s{}"></i>{}</span>"#,
                number + 1,
                line.name
            ));
        }
        put(format_args!("</p>"));
    }
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        let axis = Axis::linear("", 87_000.0, |value| value.to_string());
        assert_eq!((axis.max, axis.ticks.len()), (100_000.0, 6));
        assert_eq!(Axis::linear("", 0.0, |v| v.to_string()).ticks.len(), 2);
        let axis = Axis::log("", 35.0, 2_500.0, |value| value.to_string());
        assert_eq!((axis.min, axis.max), (10.0, 10_000.0));
        assert!((axis.place(100.0) - 1.0 / 3.0).abs() < 1e-9);
    }
}
