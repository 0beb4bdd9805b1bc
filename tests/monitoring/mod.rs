//! The files for Prometheus and Grafana, and the list of metrics, made of the registry: they cannot
//! drift from what a node serves. `REWRITE=1 cargo test --test ringbolt monitoring` writes them anew.

use std::path::{Path, PathBuf};
use std::process::Command;

use ringbolt::admin::registry::{Kind, Metric, PREFIX, Read, metrics};

mod alerts;
mod dashboard;

/// The full name of a metric, which must be in the registry.
fn name(metric: &str) -> String {
    let known = metrics().iter().any(|known| known.name == metric);
    assert!(known, "there is no metric {metric}");
    format!("{PREFIX}{metric}")
}

/// An expression in which `{name}` stands for the metric of that name.
fn expression(text: &str) -> String {
    let mut made = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('<') {
        // What is no name is a comparison.
        match behind.split_once('>') {
            Some((metric, behind))
                if metric
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') =>
            {
                made += before;
                made += &name(metric);
                rest = behind;
            }
            _ => {
                made += before;
                made.push('<');
                rest = behind;
            }
        }
    }
    made + rest
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Whether a file is as it should be; writes it if `REWRITE` is set.
fn is_as_made(path: &str, text: &str) -> bool {
    let path = root().join(path);
    if std::env::var_os("REWRITE").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    std::fs::read_to_string(&path).is_ok_and(|found| found == text)
}

/// The list of metrics.
fn list() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         Made of the registry (`src/admin/registry.rs`) by `REWRITE=1 cargo test --test ringbolt \
         monitoring`.\n\n\
         `/metrics` has the node as a whole: sums over its cores, or the highest of them. \
         `/metrics/detail` has what is marked *by core* again under `ringbolt_core_...` with the \
         label `core`, and what is marked *detail*. Beside these, `ringbolt_core_up{core}` says \
         which cores answered.\n\n\
         | metric | kind | labels | | meaning |\n|---|---|---|---|---|\n",
    );
    for metric in metrics() {
        let labels: Vec<String> = metric
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let place = match metric.read {
            Read::Node(_) => "",
            Read::Replica(_) | Read::Partitions(_) => "detail",
            _ => "by core",
        };
        text += &format!(
            "| `{PREFIX}{}` | {} | {} | {place} | {} |\n",
            metric.name,
            metric.kind.name(),
            labels.join(", "),
            metric.help
        );
    }
    text
}

/// The rate of a counter, or a gauge as it is.
fn rate(metric: &Metric) -> String {
    match metric.kind {
        Kind::Counter => format!("rate({PREFIX}{}[$__rate_interval])", metric.name),
        Kind::Gauge | Kind::Histogram => format!("{PREFIX}{}", metric.name),
    }
}

#[test]
fn files_are_as_the_registry_makes_them() {
    let files = [
        ("docs/metrics.md", list()),
        ("monitoring/alerts.yml", alerts::file()),
        ("monitoring/grafana-dashboard.json", dashboard::file()),
    ];
    let stale: Vec<_> = files
        .iter()
        .filter(|(path, text)| !is_as_made(path, text))
        .map(|(path, _)| path)
        .collect();
    assert!(
        stale.is_empty(),
        "{stale:?} differ from the registry: REWRITE=1 cargo test --test ringbolt monitoring"
    );
}

#[test]
fn prometheus_understands_the_alerts_and_they_fire() {
    let promtool = |arguments: &[&str]| {
        let run = Command::new("promtool")
            .args(arguments)
            .current_dir(root().join("monitoring"))
            .output();
        match run {
            Ok(run) => {
                let said = [run.stdout, run.stderr].concat();
                let said = String::from_utf8_lossy(&said).into_owned();
                assert!(run.status.success(), "{arguments:?}: {said}");
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("skipped: promtool is not installed (Debian's package prometheus)");
            }
            Err(error) => panic!("{error}"),
        }
    };
    promtool(&["check", "rules", "alerts.yml"]);
    promtool(&["test", "rules", "alerts.test.yml"]);
}
