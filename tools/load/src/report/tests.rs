use super::*;
use crate::stats::Intervals;

const S: u64 = 1_000_000_000;

fn report() -> Report {
    let intervals = Intervals::default();
    let mut recorder = Recorder::new(0..10 * S);
    for at in 0..10_000u64 {
        let begun = at * 1_000_000;
        let kind = if at % 2 == 0 {
            OpKind::Read
        } else {
            OpKind::Update
        };
        recorder.success(kind, begun, begun + 100_000 + at, &intervals);
    }
    recorder.error("Overloaded".into(), "<too> much & more", 5 * S, &intervals);
    recorder.finish(10 * S, &intervals);
    Report::new(
        &Options::default(),
        Parts {
            recorder,
            measured: Measured {
                seconds: 10.0,
                sampled_seconds: 10.0,
                server: Some(Usage {
                    user_us: 40_000,
                    system_us: 60_000,
                    ..Usage::default()
                }),
                generator: Usage::default(),
            },
            intervals: intervals.summaries(),
            absent: 0,
            rows: 0,
            preload: None,
            checks: None,
            interrupted: None,
        },
    )
}

#[test]
fn a_report_adds_up() {
    let report = report();
    assert!(report.passed());
    assert_eq!(report.all.requests, 10_000);
    assert_eq!(report.all.per_second, 1000.0);
    assert_eq!(report.kinds.len(), 2);
    assert_eq!(report.server.unwrap().cpu_us_per_request, 10.0);
    let worst = report.worst_second_to_mean.unwrap();
    assert!((0.99..=1.0).contains(&worst), "{worst}");
    assert!((104.0..106.0).contains(&report.all.p50_us));
}

#[test]
fn text_names_rates_percentiles_and_errors() {
    let mut out = Vec::new();
    report().write_text(&mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    for part in [
        "mixed (50 % reads)",
        "p99.99",
        "1.00 k",
        "10.00 µs CPU per request",
        "Overloaded × 1: <too> much & more",
    ] {
        assert!(text.contains(part), "{part} in:\n{text}");
    }
}

#[test]
fn json_is_one_object() {
    let mut out = Vec::new();
    report().write_json(&mut out).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(json["all"]["requests"], 10_000);
    assert_eq!(json["errors"]["Overloaded"], 1);
    assert_eq!(json["intervals"].as_array().unwrap().len(), 40);
}

#[test]
fn hgrm_is_what_the_plotter_reads() {
    let mut out = Vec::new();
    report().write_hgrm(&mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let mut last = 0.0;
    let mut rows = 0;
    for line in text.lines().skip(2).filter(|line| !line.starts_with('#')) {
        let fields: Vec<f64> = line
            .split_whitespace()
            .map(|field| field.parse().unwrap())
            .collect();
        assert!(fields.len() == 4 || (fields.len() == 3 && fields[1] == 1.0));
        assert!(fields[0] >= last, "{line}");
        last = fields[0];
        rows += 1;
    }
    assert!(rows > 20);
    assert!(text.contains("Total count    =        10000]"));
    assert!(text.contains("SubBuckets     =         2048]"));
}

#[test]
fn html_is_self_contained_and_escaped() {
    let mut out = Vec::new();
    report().write_html(&mut out).unwrap();
    let html = String::from_utf8(out).unwrap();
    assert!(html.starts_with("<!doctype html>"));
    assert!(html.contains("&lt;too&gt; much &amp; more"));
    assert!(html.matches("<svg").count() >= 3);
    for outside in ["http://", "https://", "src=", "@import", "url("] {
        let without_namespace = html.replace("http://www.w3.org/2000/svg", "");
        assert!(!without_namespace.contains(outside), "{outside}");
    }
}
